//! Sends dead letters through the door again. Those that are counted now leave the store; the others stay as they are.
//!
//! A letter's event keeps its id, or gets the one that was set aside for it, and its time of arrival where it has no timestamp: a retry that is
//! cut short and done again counts once.

use serde::Serialize;
use tallymesh_protocol::error::{ErrorCode, Problem};
use tallymesh_protocol::event::encode::{BatchEncoder, GeneratedIds};
use tallymesh_protocol::event::parse::parse_event;
use tallymesh_protocol::event::{RejectCode, Rejection};
use tallymesh_storage::StorageError;
use tallymesh_storage::dead_letters::DeadLetter;
use utoipa::ToSchema;

use super::{Ingest, letters, room_for};
use crate::limits::{REJECTIONS_SHOWN_MAX, RETRY_PAGE};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    Ids(Vec<u64>),
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Retried {
    /// Letters looked at.
    pub retried: u64,
    /// Newly counted.
    pub accepted: u64,
    /// Had been counted before.
    pub duplicates: u64,
    /// Refused again.
    pub still_rejected: u64,
    /// Kept cut, so they cannot be sent again.
    pub not_retryable: u64,
    /// Why they were refused again, the first of them.
    pub rejected: Vec<RefusedAgain>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RefusedAgain {
    pub id: String,
    #[serde(flatten)]
    pub rejection: Rejection,
}

impl Ingest {
    /// # Errors
    /// Some letters may have been counted and removed by then; doing it again goes on with the rest.
    pub async fn retry(&self, selection: Selection) -> Result<Retried, Problem> {
        let mut done = Retried::default();
        match selection {
            Selection::Ids(ids) => {
                for ids in ids.chunks(RETRY_PAGE) {
                    let ids = ids.to_vec();
                    let page = self.letters(move |store| store.get(&ids)).await?;
                    self.retry_page(page, &mut done).await?;
                }
            }
            Selection::All => {
                let mut before = None;
                loop {
                    let page = self.letters(move |store| store.list(before, RETRY_PAGE)).await?;
                    let Some(oldest) = page.last() else { break };
                    before = Some(oldest.id);
                    self.retry_page(page, &mut done).await?;
                }
            }
        }
        Ok(done)
    }

    async fn letters(
        &self,
        read: impl FnOnce(&tallymesh_storage::dead_letters::DeadLetters) -> Result<Vec<DeadLetter>, StorageError> + Send + 'static,
    ) -> Result<Vec<DeadLetter>, Problem> {
        let store = self.shared.dead_letters.clone();
        let read = tokio::task::spawn_blocking(move || read(&store)).await.map_err(|e| Problem::new(ErrorCode::Internal, e.to_string()))?;
        read.map_err(|e| Problem::new(ErrorCode::StorageFailed, e.to_string()))
    }

    async fn retry_page(&self, page: Vec<DeadLetter>, done: &mut Retried) -> Result<(), Problem> {
        let shared = &self.shared;
        shared.space.admit()?;
        let bytes = page.iter().map(|l| l.letter.raw.len() + size_of::<DeadLetter>()).sum();
        let _room = room_for(&shared.admission, bytes).await?;
        // Ids are set below, so none is ever generated.
        let mut encoder = BatchEncoder::new(shared.mesh.shards(), shared.mesh.definitions(), shared.door(), GeneratedIds::Random(0));
        let mut passed = Vec::new();
        for (index, dead) in page.iter().enumerate() {
            done.retried += 1;
            if dead.letter.truncated {
                done.not_retryable += 1;
                continue;
            }
            match push(&mut encoder, index as u32, dead) {
                Ok(()) => passed.push(dead.id),
                Err(rejection) => {
                    done.still_rejected += 1;
                    if done.rejected.len() < REJECTIONS_SHOWN_MAX {
                        done.rejected.push(RefusedAgain { id: dead.id.to_string(), rejection });
                    }
                }
            }
        }
        let appended = shared.append(encoder.finish().parts, None).await?;
        done.accepted += appended.counted;
        done.duplicates += appended.duplicates;
        letters::remove(&shared.dead_letters, passed).await.map(drop).map_err(|why| Problem::new(ErrorCode::StorageFailed, why))
    }
}

fn push(encoder: &mut BatchEncoder, index: u32, dead: &DeadLetter) -> Result<(), Rejection> {
    let text = std::str::from_utf8(&dead.letter.raw).map_err(|_| Rejection::new(RejectCode::BadJson, None, "the event is not UTF-8"))?;
    let mut event = parse_event(text)?;
    event.event_id.get_or_insert_with(|| dead.letter.event_id.as_str().into());
    event.timestamp_ms.get_or_insert(dead.letter.arrived_ms);
    event.schema_version = event.schema_version.or(dead.letter.schema_version.as_deref().map(Into::into));
    encoder.push(index, &event)
}
