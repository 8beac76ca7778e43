//! One event as one line for people, or as a record of CSV.

use serde_json::Value;
use tallymesh_protocol::question::answer::csv_field;
use tallymesh_protocol::time::rfc3339;

use crate::cli::output::printable;

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// Properties shown at most, in characters.
const PROPERTIES_CHARS_MAX: usize = 100;
/// A user or session is shown with so many characters at most.
const IDENTITY_CHARS_MAX: usize = 12;

/// Columns of CSV, in the order of the fields of an event.
const COLUMNS: [&str; 10] =
    ["timestamp", "event", "event_id", "user_id", "session_id", "source", "device_type", "country_code", "value", "properties"];

pub fn csv_header() -> String {
    format!("{}\r\n", COLUMNS.join(","))
}

/// A record of RFC 4180; null and absent are empty, properties are their JSON.
pub fn as_csv(json: &str) -> String {
    let event = serde_json::from_str::<Value>(json).unwrap_or_default();
    let fields: Vec<String> = COLUMNS
        .iter()
        .map(|column| match &event[*column] {
            Value::Null => String::new(),
            Value::String(text) => csv_field(text).into_owned(),
            other => csv_field(&other.to_string()).into_owned(),
        })
        .collect();
    format!("{}\r\n", fields.join(","))
}

/// The line for an event as the node tells it; with colour on a terminal. Text of the event cannot steer the terminal.
pub fn for_people(json: &str, with_colour: bool) -> String {
    let Ok(event) = serde_json::from_str::<Value>(json) else {
        return printable(json);
    };
    let text = |names: &[&str]| names.iter().find_map(|n| event[*n].as_str()).map(printable);
    let time = match &event["timestamp"] {
        Value::Number(n) => n.as_i64().map(rfc3339),
        other => other.as_str().map(printable),
    };
    let name = text(&["event", "event_name"]).unwrap_or_default();
    let place = ["source", "device_type", "country_code"].map(|f| text(&[f]).unwrap_or_else(|| "–".to_owned())).join(" ");
    let who = text(&["user_id", "session_id"]).map_or_else(|| "–".to_owned(), |id| shortened(&id, IDENTITY_CHARS_MAX));
    let value = event["value"].as_f64().map(|v| format!(" value={v}")).unwrap_or_default();
    let properties: String = match event["properties"].as_object() {
        Some(map) => map.iter().map(|(k, v)| format!(" {}={}", printable(k), plain(v))).collect(),
        None => String::new(),
    };
    let properties = shortened(&properties, PROPERTIES_CHARS_MAX);
    let [dim, bold, reset] = if with_colour { [DIM, colour_of(&name), RESET] } else { [""; 3] };
    let time = time.unwrap_or_default();
    format!("{dim}{time:<24}{reset}  {bold}{name:<18}{reset}  {place:<22}  {who:<12}{value}{dim}{properties}{reset}")
}

fn colour_of(name: &str) -> &'static str {
    if name.contains("error") || name.contains("fail") {
        RED
    } else if name.contains("purchase") || name.contains("signup") {
        GREEN
    } else {
        BOLD
    }
}

fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| printable(&value.to_string()), printable)
}

/// How many events a frame of kind `lagged` speaks of.
pub fn left_out(data: &str) -> String {
    let number = serde_json::from_str::<Value>(data).ok().and_then(|v| match v {
        Value::Object(map) => map.values().find_map(Value::as_u64),
        other => other.as_u64(),
    });
    number.map_or_else(|| "some".to_owned(), |n| n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let line = for_people(
            r#"{"event":"purchase","timestamp":"2026-01-01T12:00:00Z","source":"web","country_code":"US","user_id":"u_1","value":19,"properties":{"plan":"team"}}"#,
            false,
        );
        assert_eq!(line, "2026-01-01T12:00:00Z      purchase            web – US                u_1          value=19 plan=team");
        assert!(for_people(r#"{"event":"error_occurred"}"#, true).contains(RED));
        assert!(for_people(r#"{"event":"a","session_id":"0123456789abcdef"}"#, false).ends_with("0123456789a…"));
    }

    #[test]
    fn an_event_is_one_record_of_csv() {
        let record =
            as_csv(r#"{"event":"a,b","timestamp":"2026-01-01T12:00:00Z","user_id":null,"value":1.5,"properties":{"plan":"te\"am"}}"#);
        assert_eq!(record, "2026-01-01T12:00:00Z,\"a,b\",,,,,,,1.5,\"{\"\"plan\"\":\"\"te\\\"\"am\"\"}\"\r\n");
        assert_eq!(record.matches(',').count() - 1, csv_header().matches(',').count());
    }

    #[test]
    fn an_event_cannot_steer_the_terminal() {
        let line = for_people("{\"event\":\"a\\u001b[2J\",\"properties\":{\"\\u0007\":\"x\\ny\"}}", false);
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!for_people("not json \u{1b}[2J", false).chars().any(char::is_control));
    }

    #[test]
    fn the_number_left_out_is_read_in_any_shape() {
        assert_eq!([left_out("{\"missed\":12}"), left_out("7"), left_out("?")], ["12", "7", "some"]);
    }
}
