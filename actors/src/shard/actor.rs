//! The life of a shard on this node: begun, told the time, drained, stopped. What it does for requests is in [`super::owner`].

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use super::owner::{Delivery, Owner};

pub enum Message {
    Time,
    Drain(oneshot::Sender<()>),
}

/// Local: it never leaves the process.
impl ractor::Message for Message {}

pub struct ShardActor;

impl Actor for ShardActor {
    type Msg = Message;
    type State = Arc<Owner>;
    type Arguments = Arc<Owner>;

    async fn pre_start(&self, _myself: ActorRef<Message>, owner: Arc<Owner>) -> Result<Arc<Owner>, ActorProcessingErr> {
        Ok(owner)
    }

    async fn handle(&self, _myself: ActorRef<Message>, message: Message, owner: &mut Arc<Owner>) -> Result<(), ActorProcessingErr> {
        owner.bring(match message {
            Message::Time => Delivery::Time,
            Message::Drain(done) => Delivery::Drain(done),
        });
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<Message>, owner: &mut Arc<Owner>) -> Result<(), ActorProcessingErr> {
        owner.bring(Delivery::Stop);
        Ok(())
    }
}
