//! Which problems an operation may answer with, by status.

use std::collections::BTreeMap;

use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::error::ErrorCode::*;
use utoipa::IntoResponses;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Ref, Type};
use utoipa::openapi::{ContentBuilder, RefOr, Response, ResponseBuilder};

pub const MEDIA_TYPE: &str = "application/problem+json";

/// Of every operation: a request that does not parse, a node with too much to do, a bug.
const ANY: [ErrorCode; 6] = [BadRequest, UriTooLong, HeadTooLarge, Overloaded, RateLimited, Internal];
const QUERY: [ErrorCode; 13] = [
    UnknownMetric,
    BadParameter,
    BadRange,
    BadTimeZone,
    UnknownDimension,
    TooManyPoints,
    TooManyCells,
    GrainUnavailable,
    ShardUnavailable,
    StorageFailed,
    ShuttingDown,
    WriteNotVisible,
    QueryTimeout,
];
const BODY: [ErrorCode; 2] = [RequestTimeout, BodyTooLarge];
const WRITE: [ErrorCode; 5] = [ShardUnavailable, PartlyDurable, ShuttingDown, StorageFailed, DiskFull];

type Responses = BTreeMap<String, RefOr<Response>>;

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($codes:expr),+;)+) => {$(
        $(#[$doc])*
        pub enum $name {}

        impl IntoResponses for $name {
            fn responses() -> Responses {
                responses([&ANY[..], $(&$codes[..]),+].concat())
            }
        }
    )+};
}

problems! {
    /// Of what is only looked up.
    PageProblems: [];
    ReadyProblems: [ShardUnavailable, ShuttingDown, DiskFull];
    QueryProblems: QUERY;
    NamedProblems: QUERY, [NotFound];
    QueryBodyProblems: QUERY, BODY, [EmptyBody, BadJson];
    IngestProblems: BODY, WRITE, [EmptyBody, BadJson, BadEncoding, TooManyEvents, UnsupportedMediaType, UnsupportedEncoding];
    /// Of reading dead letters.
    StoredProblems: [BadParameter, StorageFailed];
    RetryProblems: BODY, WRITE, [BadJson, BadParameter];
    /// Of what changes the cluster.
    ChangeProblems: BODY, WRITE, [EmptyBody, BadJson, BadParameter];
    RemoveProblems: BODY, WRITE, [NotFound, BadParameter];
    TailProblems: [BadParameter];
    LiveProblems: QUERY;
}

/// Of what speaks Prometheus' language: its errors, and problems from around it.
pub enum PrometheusProblems {}

impl IntoResponses for PrometheusProblems {
    fn responses() -> Responses {
        let mut all = responses([&ANY[..], &[NotFound]].concat());
        for (status, description) in [
            ("400", "`bad_data`: the request or its expression cannot be understood, or is over a limit."),
            ("413", "`bad_data`: the body is too large."),
            ("422", "`execution`: it is not supported, or cannot be computed; the error names what."),
            ("500", "`internal`: a bug."),
            ("503", "`timeout` or `unavailable`: a shard did not answer, or the node or this client has too much to do."),
        ] {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("PrometheusError"))).build();
            if let RefOr::T(response) = all.entry(status.to_owned()).or_insert_with(|| RefOr::T(Response::new(""))) {
                response.description = format!("{description} {}", response.description).trim_end().to_owned();
                response.content.insert("application/json".to_owned(), RefOr::T(content));
            }
        }
        all
    }
}

fn responses(mut codes: Vec<ErrorCode>) -> Responses {
    codes.sort_by_key(|code| (code.status(), code.as_str()));
    codes.dedup();
    let of_status = |codes: &[ErrorCode]| {
        let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        // The general shape, and which of the codes it can be here.
        let code = ObjectBuilder::new().property("code", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)));
        let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(code);
        let description: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
        let content = ContentBuilder::new().schema(Some(schema)).build();
        RefOr::T(ResponseBuilder::new().description(description.join(" ")).content(MEDIA_TYPE, content).build())
    };
    codes.chunk_by(|a, b| a.status() == b.status()).map(|codes| (codes[0].status().to_string(), of_status(codes))).collect()
}
