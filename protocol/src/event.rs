//! An event as it was sent, checked and typed, still borrowing from the request body.
//!
//! `&[u8] -> Event` is [`parse`]; `Event -> ShardBatch` is [`batch`].

pub mod batch;
pub mod body;
pub mod command;
pub mod encode;
pub mod parse;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why one event was refused. Part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectCode {
    NotAnObject,
    BadJson,
    MissingField,
    WrongType,
    BadName,
    BadValue,
    BadTimestamp,
    Future,
    Expired,
    TooLarge,
    TooDeep,
    UnknownSchema,
}

impl RejectCode {
    pub const ALL: [RejectCode; 12] = [
        Self::NotAnObject,
        Self::BadJson,
        Self::MissingField,
        Self::WrongType,
        Self::BadName,
        Self::BadValue,
        Self::BadTimestamp,
        Self::Future,
        Self::Expired,
        Self::TooLarge,
        Self::TooDeep,
        Self::UnknownSchema,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "not_an_object",
            Self::BadJson => "bad_json",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::BadName => "bad_name",
            Self::BadValue => "bad_value",
            Self::BadTimestamp => "bad_timestamp",
            Self::Future => "future",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::UnknownSchema => "unknown_schema",
        }
    }
}

/// One refused event: what the sender is told, and what the dead-letter store keeps beside the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rejection {
    pub code: RejectCode,
    /// The field that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    pub detail: String,
}

impl Rejection {
    pub fn new(code: RejectCode, field: Option<&str>, detail: impl Into<String>) -> Self {
        Self { code, field: field.map(str::to_owned), detail: detail.into() }
    }
}

/// A valid event. Text is unescaped; null and absent are both `None`; empty user and session ids are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event<'a> {
    pub event_id: Option<Cow<'a, str>>,
    pub name: Cow<'a, str>,
    /// Event time in UTC milliseconds; `None` when the sender left it to arrival.
    pub timestamp_ms: Option<i64>,
    pub session_id: Option<Cow<'a, str>>,
    pub user_id: Option<Cow<'a, str>>,
    pub source: Option<Cow<'a, str>>,
    pub device_type: Option<Cow<'a, str>>,
    pub country_code: Option<Cow<'a, str>>,
    /// Finite.
    pub value: Option<f64>,
    pub schema_version: Option<Cow<'a, str>>,
    /// The `properties` object as received (validated JSON text, `{` to `}`), if there is one.
    pub properties: Option<&'a str>,
    /// The whole event as received (validated JSON text): unknown top-level fields are looked up here.
    pub raw: &'a str,
    /// Whether `raw` has top-level fields that the schema does not know; they count as properties.
    pub has_extra_fields: bool,
}

impl<'a> Event<'a> {
    /// The three default dimensions, in key order.
    pub fn default_dimensions(&self) -> [Option<&str>; 3] {
        [self.source.as_deref(), self.device_type.as_deref(), self.country_code.as_deref()]
    }
}
