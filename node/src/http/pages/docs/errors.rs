//! What each code means, and what to do about it.

use tallymesh_protocol::error::ErrorCode;
use tallymesh_protocol::event::RejectCode;

pub const fn of_problem(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::EmptyBody => "There was nothing to read. Send events, or a query, as JSON; an empty list `[]` is a valid batch.",
        ErrorCode::BadJson => {
            "The body as a whole does not parse. `detail` says where. Lines need `Content-Type: application/x-ndjson`; in lines, one bad line does not hold up the \
             others."
        }
        ErrorCode::BadEncoding => {
            "The bytes are not what `Content-Encoding` says, or end too early. Compress again, or leave the header out."
        }
        ErrorCode::BadRequest => {
            "The request does not read as HTTP should: a header, the query string, or a body that broke off. `field` names the header if it is one."
        }
        ErrorCode::AllRejected => "No event of the request was counted. Each is listed with its reason; the codes are below.",
        ErrorCode::TooManyEvents => "Send the batch in parts of at most `limit` events. Nothing of it was counted.",
        ErrorCode::BodyTooLarge => {
            "Send it in parts. `limit` is in bytes, as sent or as unpacked, `detail` says which. Nothing of it was counted."
        }
        ErrorCode::UriTooLong => "Send a long question as JSON: `POST /v1/query` takes the same names.",
        ErrorCode::UnsupportedMediaType => "Send `application/json`, or `application/x-ndjson` for one event a line.",
        ErrorCode::UnsupportedEncoding => "Send `gzip`, `zstd` or `lz4`, one of them at most, or none.",
        ErrorCode::RequestTimeout => {
            "The body took longer than `limit` milliseconds to arrive. Send it again, in smaller parts on a slow line."
        }
        ErrorCode::NotFound => "There is no such page or ready-made query. `did_you_mean` is the nearest there is.",
        ErrorCode::MethodNotAllowed => "The page is there, but not for this method. The `Allow` header lists those that it has.",
        ErrorCode::UnknownMetric => {
            "No event of that name has been counted, and no metric is defined by it. See `/v1/metrics` for what there is; `did_you_mean` is the nearest."
        }
        ErrorCode::UnknownDimension => {
            "The metric has no such dimension. `/v1/metrics` lists those of each; `did_you_mean` is the nearest."
        }
        ErrorCode::BadParameter => "`field` names the parameter, `detail` what it takes, `limit` the limit if it hit one.",
        ErrorCode::BadRange => "Say `range=24h`, or `from` and perhaps `to`, with `from` before `to`.",
        ErrorCode::BadTimeZone => "Use a name of the IANA database such as `Europe/Berlin`; `did_you_mean` is the nearest.",
        ErrorCode::TooManyPoints => "The range has more than `limit` steps. `suggested_step` would do; `step=auto` picks one by itself.",
        ErrorCode::TooManyCells => {
            "Groups times steps are too many for one answer. Ask for a shorter range, a coarser step, or fewer groups by a filter."
        }
        ErrorCode::GrainUnavailable => {
            "Windows as fine as that are no longer kept for the range, or the time zone needs finer ones. Ask for a coarser step."
        }
        ErrorCode::Overloaded => {
            "The node has as much to do as it takes on, or this client asks for more than its share. Nothing was counted. Wait as long as `Retry-After` says and \
             send the same again."
        }
        ErrorCode::RateLimited => {
            "This client is over `limit`: its connections, its queries at once or per second, or its bytes per second, `detail` says which. Wait as long as \
             `Retry-After` says."
        }
        ErrorCode::HeadTooLarge => "Send fewer or shorter headers.",
        ErrorCode::QueryTimeout => "The query did not end in its time. Ask for less, or raise `timeout_ms`.",
        ErrorCode::ShardUnavailable => {
            "A shard does not answer or cannot confirm. For a write: send the same again, it counts once. For a query: `partial=allow` answers from the others \
             and says so."
        }
        ErrorCode::WriteNotVisible => {
            "The shard that took the token's write has not applied it here yet, or did not answer. Try again; without `token` the query is answered as it stands."
        }
        ErrorCode::PartlyDurable => {
            "Some shards confirmed and some did not. Send the whole batch again: what is there already counts once."
        }
        ErrorCode::ShuttingDown => "The node is stopping. Send the same to another node, or here after `Retry-After`.",
        ErrorCode::DiskFull => {
            "The node refuses writes to keep the last of its disk. Reading works. Free some space, or send to another node."
        }
        ErrorCode::StorageFailed => "A shard's disk failed, and it stopped rather than guess. See `/health` and the log of the node.",
        ErrorCode::Internal => "This is a bug. `request_id` finds it in the log of the node.",
    }
}

pub const fn of_event(code: RejectCode) -> &'static str {
    match code {
        RejectCode::NotAnObject => "An event is a JSON object; this is another JSON value.",
        RejectCode::BadJson => "The line or item does not parse.",
        RejectCode::MissingField => "`event` is required; `event_name` is the same.",
        RejectCode::WrongType => "A field has a value of another type. Strings are not read as numbers.",
        RejectCode::BadName => "The name of the event is empty, too long, has control characters, or `event` and `event_name` differ.",
        RejectCode::BadValue => "A value is too long, or a number that is not finite.",
        RejectCode::BadTimestamp => "Neither RFC 3339 nor epoch seconds or milliseconds.",
        RejectCode::Future => "Further ahead of the node's clock than is tolerated. Check the clock of the sender.",
        RejectCode::Expired => "Older than anything that is kept. Raise `retention.day` to count it.",
        RejectCode::TooLarge => "The event is larger than one may be.",
        RejectCode::TooDeep => "Its JSON is nested too deep.",
        RejectCode::UnknownSchema => "The schema version is not known, or the event does not fit it.",
    }
}
