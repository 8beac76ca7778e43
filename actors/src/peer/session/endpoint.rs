//! The one actor of this node that peers can send to: it takes frames in and hands each to its session.

use std::sync::Weak;

use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use super::super::limits::SAY_NO_FRAME_AGAIN_AFTER;
use super::super::transport::registry::Registry;
use super::wire::{self, FrameError};

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

pub struct State {
    registry: Weak<Registry>,
    /// When it was last said that something is no frame.
    said: Option<Instant>,
}

impl State {
    /// Which session it came from is not known, and a peer can send many.
    fn no_frame(&mut self, error: &FrameError) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_NO_FRAME_AGAIN_AFTER) {
            self.said = Some(Instant::now());
            tracing::warn!(%error, "a peer sent what is no frame: it is dropped");
        }
    }
}

impl Actor for Endpoint {
    type Msg = Arrived;
    type State = State;
    type Arguments = Weak<Registry>;

    async fn pre_start(&self, _myself: ActorRef<Arrived>, registry: Weak<Registry>) -> Result<Self::State, ActorProcessingErr> {
        Ok(State { registry, said: None })
    }

    async fn handle(&self, _myself: ActorRef<Arrived>, message: Arrived, state: &mut State) -> Result<(), ActorProcessingErr> {
        let Some(registry) = state.registry.upgrade() else { return Ok(()) };
        match wire::decode(message.0) {
            Ok(frame) => registry.take(frame),
            // Not a transmission error, against which the connection has checksums of its own.
            Err(error @ FrameError::Checksum { connection }) => registry.violated(connection, &error.to_string()),
            Err(error) => state.no_frame(&error),
        }
        Ok(())
    }
}
