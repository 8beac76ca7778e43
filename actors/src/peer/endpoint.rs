//! The one actor of this node that peers can send to: it takes frames in and hands each to its session.

use std::sync::Weak;

use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::registry::Registry;
use super::wire;

/// A frame as it came.
pub struct Arrived(Vec<u8>);

impl ractor::Message for Arrived {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        Ok(SerializedMessage::Cast { variant: String::new(), args: self.0, metadata: None })
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } => Ok(Self(args)),
            // Answers travel as frames of their own.
            SerializedMessage::Call { .. } | SerializedMessage::CallReply(..) => Err(BoxedDowncastErr),
        }
    }
}

pub struct Endpoint;

impl Actor for Endpoint {
    type Msg = Arrived;
    type State = Weak<Registry>;
    type Arguments = Weak<Registry>;

    async fn pre_start(&self, _myself: ActorRef<Arrived>, registry: Weak<Registry>) -> Result<Self::State, ActorProcessingErr> {
        Ok(registry)
    }

    async fn handle(&self, _myself: ActorRef<Arrived>, message: Arrived, registry: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let Some(registry) = registry.upgrade() else { return Ok(()) };
        match wire::decode(message.0) {
            Ok(frame) => registry.take(frame),
            Err(error) => tracing::warn!(%error, "a peer sent what is no frame"),
        }
        Ok(())
    }
}
