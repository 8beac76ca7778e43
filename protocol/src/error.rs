//! The small closed set of errors that outside programs see (RFC 9457, `application/problem+json`).

use serde::{Deserialize, Serialize};

/// What went wrong, for programs. Names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    EmptyBody,
    BadJson,
    BadEncoding,
    BadRequest,
    UriTooLong,
    HeadTooLarge,
    AllRejected,
    TooManyEvents,
    BodyTooLarge,
    UnsupportedMediaType,
    UnsupportedEncoding,
    RequestTimeout,
    NotFound,
    MethodNotAllowed,
    UnknownMetric,
    UnknownDimension,
    BadParameter,
    BadRange,
    BadTimeZone,
    TooManyPoints,
    TooManyCells,
    GrainUnavailable,
    Overloaded,
    RateLimited,
    QueryTimeout,
    ShardUnavailable,
    PartlyDurable,
    ShuttingDown,
    DiskFull,
    StorageFailed,
    Internal,
}

impl ErrorCode {
    /// HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::EmptyBody | Self::BadJson | Self::BadEncoding | Self::BadRequest => 400,
            Self::NotFound | Self::UnknownMetric => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::TooManyEvents | Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType | Self::UnsupportedEncoding => 415,
            Self::AllRejected
            | Self::UnknownDimension
            | Self::BadParameter
            | Self::BadRange
            | Self::BadTimeZone
            | Self::TooManyPoints
            | Self::TooManyCells
            | Self::GrainUnavailable => 422,
            Self::Overloaded | Self::RateLimited => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::ShardUnavailable | Self::PartlyDurable | Self::ShuttingDown | Self::StorageFailed => 503,
            Self::QueryTimeout => 504,
            Self::DiskFull => 507,
        }
    }

    /// Whether the same request may succeed later without a change.
    pub const fn is_retryable(self) -> bool {
        matches!(self.status(), 408 | 429 | 503 | 504 | 507)
    }

    /// One line for people, the same for every problem of this code.
    pub const fn title(self) -> &'static str {
        match self {
            Self::EmptyBody => "the request has no body",
            Self::BadJson => "the body is not JSON",
            Self::BadEncoding => "the body does not decode",
            Self::BadRequest => "the request cannot be understood",
            Self::UriTooLong => "the address of the request is too long",
            Self::HeadTooLarge => "the head of the request is too large",
            Self::AllRejected => "every event was rejected",
            Self::TooManyEvents => "too many events in one request",
            Self::BodyTooLarge => "the body is too large",
            Self::UnsupportedMediaType => "unsupported content type",
            Self::UnsupportedEncoding => "unsupported content encoding",
            Self::RequestTimeout => "the request did not arrive in time",
            Self::NotFound => "no such page",
            Self::MethodNotAllowed => "method not allowed here",
            Self::UnknownMetric => "unknown metric",
            Self::UnknownDimension => "unknown dimension",
            Self::BadParameter => "a parameter is not valid",
            Self::BadRange => "the time range is not valid",
            Self::BadTimeZone => "unknown time zone",
            Self::TooManyPoints => "the step is too fine for the range",
            Self::TooManyCells => "the answer would be too large",
            Self::GrainUnavailable => "that detail is not kept",
            Self::Overloaded => "the node is busy",
            Self::RateLimited => "this client asks for too much",
            Self::QueryTimeout => "the query took too long",
            Self::ShardUnavailable => "a shard cannot be reached",
            Self::PartlyDurable => "only part of the batch was made durable",
            Self::ShuttingDown => "the node is shutting down",
            Self::DiskFull => "the disk is nearly full",
            Self::StorageFailed => "a shard stopped after a storage error",
            Self::Internal => "internal error",
        }
    }
}

/// An error as the outside sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// `about:blank#<code>` is of no use to anybody; a stable URI reference per code.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: ErrorCode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The parameter or field that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The limit that was hit, in the unit that `detail` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggested_step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/docs#{}", serde_json::to_value(code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: None,
            field: None,
            limit: None,
            did_you_mean: None,
            suggested_step: None,
            retry_after_ms: None,
        }
    }

    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    #[must_use]
    pub fn did_you_mean(mut self, guess: Option<String>) -> Self {
        self.did_you_mean = guess;
        self
    }

    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

/// The candidate nearest to what was asked for, if one is near enough to be a slip.
pub fn nearest<'a>(asked: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(asked, c), c))
        .filter(|(distance, c)| *distance <= 1 + c.chars().count() / 4)
        .min()
        .map(|(_, c)| c.to_owned())
}
