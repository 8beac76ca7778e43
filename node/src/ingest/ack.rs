//! The answer to an ingest request.

use serde::Serialize;
use tallymesh_protocol::event::{RejectCode, Rejection};
use tallymesh_protocol::question::token::WriteToken;
use utoipa::ToSchema;

use super::Appended;
use crate::limits::REJECTIONS_SHOWN_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AckStatus {
    Accepted,
    /// There were events, and every one was refused.
    Rejected,
}

/// One refused event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Refusal {
    /// Place among the array's items or the non-empty lines, from 0.
    pub index: u32,
    #[serde(flatten)]
    pub rejection: Rejection,
}

/// Refused events: all of them counted, the first of them spelled out.
#[derive(Debug, Default)]
pub struct Refusals {
    pub shown: Vec<Refusal>,
    pub total: u64,
    pub by_code: Vec<(RejectCode, u64)>,
}

impl Refusals {
    pub fn add(&mut self, refusal: Refusal) {
        self.total += 1;
        match self.by_code.iter_mut().find(|(code, _)| *code == refusal.rejection.code) {
            Some((_, count)) => *count += 1,
            None => self.by_code.push((refusal.rejection.code, 1)),
        }
        if self.shown.len() < REJECTIONS_SHOWN_MAX {
            self.shown.push(refusal);
        }
    }
}

/// Whether the refused events can be looked at later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LettersKept {
    All,
    /// The dead-letter store failed; the good events are counted all the same.
    Lost,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Ack {
    pub status: AckStatus,
    /// Newly counted events.
    pub count: u64,
    /// Events that had been counted before, or twice in this batch.
    pub duplicates: u64,
    /// Events that came without an id.
    pub generated_ids: u32,
    /// Refused events, the first 1 000 of them.
    pub rejected: Vec<Refusal>,
    /// All refused events, when `rejected` does not list them all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rejected_total: Option<u64>,
    /// Only said when it is `lost`.
    #[serde(skip_serializing_if = "is_all")]
    #[schema(required = false)]
    pub dead_letters: LettersKept,
    /// Names this write to a later query (read your writes).
    pub token: String,
}

fn is_all(kept: &LettersKept) -> bool {
    *kept == LettersKept::All
}

impl Ack {
    pub(super) fn new(
        events: u32,
        appended: &Appended,
        generated_ids: u32,
        refusals: Refusals,
        dead_letters: LettersKept,
        token: &WriteToken,
    ) -> Self {
        let shown = refusals.shown.len() as u64;
        Self {
            status: if events == 0 && refusals.total > 0 { AckStatus::Rejected } else { AckStatus::Accepted },
            count: appended.counted,
            duplicates: appended.duplicates,
            generated_ids,
            rejected_total: (refusals.total > shown).then_some(refusals.total),
            rejected: refusals.shown,
            dead_letters,
            token: token.encode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> WriteToken {
        WriteToken::new(7, Vec::new())
    }

    fn refusal(index: u32) -> Refusal {
        Refusal { index, rejection: Rejection::new(RejectCode::MissingField, Some("event"), "`event` is missing") }
    }

    #[test]
    fn an_answer_reads_as_the_interface_says() {
        let appended = Appended { counted: 2, duplicates: 1, positions: Vec::new() };
        let mut refusals = Refusals::default();
        refusals.add(refusal(3));
        let ack = serde_json::to_value(Ack::new(3, &appended, 1, refusals, LettersKept::All, &token())).expect("JSON");
        assert_eq!(
            ack,
            serde_json::json!({"status": "accepted", "count": 2, "duplicates": 1, "generated_ids": 1, "token": token().encode(),
                "rejected": [{"index": 3, "code": "missing_field", "field": "event", "detail": "`event` is missing"}]})
        );
    }

    #[test]
    fn a_long_list_of_refusals_is_cut_but_counted() {
        let mut refusals = Refusals::default();
        (0..1_500).for_each(|i| refusals.add(refusal(i)));
        assert_eq!(refusals.by_code, [(RejectCode::MissingField, 1_500)]);
        let ack = Ack::new(0, &Appended::default(), 0, refusals, LettersKept::Lost, &token());
        assert_eq!((ack.status, ack.rejected.len(), ack.rejected_total), (AckStatus::Rejected, REJECTIONS_SHOWN_MAX, Some(1_500)));
        assert_eq!(serde_json::to_value(ack).expect("JSON")["dead_letters"], "lost");
    }

    #[test]
    fn an_empty_batch_is_accepted() {
        let ack = Ack::new(0, &Appended::default(), 0, Refusals::default(), LettersKept::All, &token());
        assert_eq!(ack.status, AckStatus::Accepted);
    }
}
