//! The small closed set of errors that outside programs see (RFC 9457, `application/problem+json`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs. Names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
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
    WriteNotVisible,
    PartlyDurable,
    ShuttingDown,
    DiskFull,
    StorageFailed,
    Internal,
}

impl ErrorCode {
    /// In the order of their status.
    pub const ALL: [Self; 32] = [
        Self::EmptyBody,
        Self::BadJson,
        Self::BadEncoding,
        Self::BadRequest,
        Self::NotFound,
        Self::UnknownMetric,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::TooManyEvents,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::UnsupportedEncoding,
        Self::AllRejected,
        Self::UnknownDimension,
        Self::BadParameter,
        Self::BadRange,
        Self::BadTimeZone,
        Self::TooManyPoints,
        Self::TooManyCells,
        Self::GrainUnavailable,
        Self::Overloaded,
        Self::RateLimited,
        Self::HeadTooLarge,
        Self::Internal,
        Self::ShardUnavailable,
        Self::WriteNotVisible,
        Self::PartlyDurable,
        Self::ShuttingDown,
        Self::StorageFailed,
        Self::QueryTimeout,
        Self::DiskFull,
    ];

    /// As it is written in a problem's `code`, and behind the `#` of its `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyBody => "empty_body",
            Self::BadJson => "bad_json",
            Self::BadEncoding => "bad_encoding",
            Self::BadRequest => "bad_request",
            Self::NotFound => "not_found",
            Self::UnknownMetric => "unknown_metric",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::TooManyEvents => "too_many_events",
            Self::BodyTooLarge => "body_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::AllRejected => "all_rejected",
            Self::UnknownDimension => "unknown_dimension",
            Self::BadParameter => "bad_parameter",
            Self::BadRange => "bad_range",
            Self::BadTimeZone => "bad_time_zone",
            Self::TooManyPoints => "too_many_points",
            Self::TooManyCells => "too_many_cells",
            Self::GrainUnavailable => "grain_unavailable",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::HeadTooLarge => "head_too_large",
            Self::Internal => "internal",
            Self::ShardUnavailable => "shard_unavailable",
            Self::WriteNotVisible => "write_not_visible",
            Self::PartlyDurable => "partly_durable",
            Self::ShuttingDown => "shutting_down",
            Self::StorageFailed => "storage_failed",
            Self::QueryTimeout => "query_timeout",
            Self::DiskFull => "disk_full",
        }
    }

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
            Self::ShardUnavailable | Self::WriteNotVisible | Self::PartlyDurable | Self::ShuttingDown | Self::StorageFailed => 503,
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
            Self::WriteNotVisible => "the token's write cannot be seen",
            Self::PartlyDurable => "only part of the batch was made durable",
            Self::ShuttingDown => "the node is shutting down",
            Self::DiskFull => "the disk is nearly full",
            Self::StorageFailed => "a shard stopped after a storage error",
            Self::Internal => "internal error",
        }
    }
}

/// An error as the outside sees it (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error, ToSchema)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// Where the code is explained, relative to this node.
    // `about:blank` is of no use to anybody.
    #[serde(rename = "type")]
    #[schema(example = "/docs#bad_parameter")]
    pub kind: String,
    /// The same for every problem of this code.
    pub title: String,
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this request, and what to do about it.
    pub detail: String,
    pub code: ErrorCode,
    /// The same as the `X-Request-Id` header; absent in one of several results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<String>,
    /// The parameter or field that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// The limit that was hit, in the unit that `detail` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limit: Option<u64>,
    /// The nearest of the names there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub did_you_mean: Option<String>,
    /// A `step` that would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1h")]
    pub suggested_step: Option<String>,
    /// When to try again; also in `Retry-After`, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry_after_ms: Option<u64>,
}

impl Problem {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/docs#{}", code.as_str()),
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

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn every_code_is_listed_under_the_name_that_it_is_sent_with() {
        let schema = serde_json::to_value(ErrorCode::schema()).expect("JSON");
        let mut derived: Vec<&str> = schema["enum"].as_array().expect("an enumeration").iter().filter_map(|v| v.as_str()).collect();
        let mut listed = ErrorCode::ALL.map(ErrorCode::as_str);
        derived.sort_unstable();
        listed.sort_unstable();
        assert_eq!(derived, listed);
        assert!(ErrorCode::ALL.iter().all(|c| serde_json::to_value(c).expect("JSON") == c.as_str()));
        assert!(ErrorCode::ALL.is_sorted_by_key(|c| c.status()));
    }
}
