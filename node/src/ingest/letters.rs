//! Hands refused events to the dead-letter store before the answer goes out.
//!
//! The store is no reason to refuse good events: when it fails or dawdles, the answer says that the refused ones were not kept, an error is logged and
//! a metric counts them.

use tallymesh_storage::StorageError;
use tallymesh_storage::dead_letters::{DeadLetters, NewLetter};
use tokio::sync::oneshot;

use super::ack::LettersKept;
use crate::limits::LETTER_WAIT;
use crate::metrics::Metrics;

pub async fn keep(store: &DeadLetters, metrics: &Metrics, letters: Vec<NewLetter>, request_id: &str) -> LettersKept {
    if letters.is_empty() {
        return LettersKept::All;
    }
    let count = letters.len();
    let why = match wait(|done| store.add(letters, done)).await {
        Ok(()) => return LettersKept::All,
        Err(why) => why,
    };
    tracing::error!(request_id, count, %why, "refused events were not kept");
    metrics.letters_lost.add(count as u64);
    LettersKept::Lost
}

pub async fn remove(store: &DeadLetters, ids: Vec<u64>) -> Result<u64, String> {
    if ids.is_empty() {
        return Ok(0);
    }
    wait(|done| store.remove(ids, done)).await
}

type Done<T> = Box<dyn FnOnce(Result<T, StorageError>) + Send>;

async fn wait<T: Send + 'static>(start: impl FnOnce(Done<T>)) -> Result<T, String> {
    let (answer, answered) = oneshot::channel();
    start(Box::new(move |result| {
        // The request may have given up waiting.
        let _ = answer.send(result);
    }));
    match tokio::time::timeout(LETTER_WAIT, answered).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("the dead-letter store ended without an answer".to_owned()),
        Err(_) => Err(format!("the dead-letter store did not answer within {} ms", LETTER_WAIT.as_millis())),
    }
}
