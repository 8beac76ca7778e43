//! One event of the sample traffic and its JSON.

use std::io::Write;

use serde::Serialize;

/// What an event carries beside the fields of the schema; absent ones are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referrer: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub button: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u32>,
}

/// Small and free of text, because most of a session's events are held until their minute comes.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleEvent {
    pub timestamp_ms: i64,
    pub session: u128,
    /// Position in the session; with it the event's identity.
    pub step: u16,
    pub name: &'static str,
    pub user: Option<u64>,
    pub source: &'static str,
    pub device: &'static str,
    pub country: &'static str,
    pub value: Option<f64>,
    pub properties: Properties,
}

impl SampleEvent {
    pub fn event_id(&self) -> String {
        format!("{:032x}-{:03x}", self.session, self.step)
    }

    /// Appends the event as one line of NDJSON.
    pub fn write_ndjson(&self, out: &mut Vec<u8>) {
        self.write_ndjson_from(self.source, out);
    }

    /// The same, as if sent by another source; any text will do.
    pub fn write_ndjson_from(&self, source: &str, out: &mut Vec<u8>) {
        // Writing to a `Vec` cannot fail. All texts but the source are constants of the catalogue; those outside of `properties` need no escaping.
        let _ = write!(
            out,
            "{{\"event_id\":\"{:032x}-{:03x}\",\"event\":\"{}\",\"timestamp\":{},\"session_id\":\"{:032x}\",\"user_id\":",
            self.session, self.step, self.name, self.timestamp_ms, self.session
        );
        let _ = match self.user {
            Some(user) => write!(out, "\"u_{user:06}\""),
            None => write!(out, "null"),
        };
        out.extend_from_slice(b",\"source\":");
        let _ = serde_json::to_writer(&mut *out, source);
        let _ = write!(out, ",\"device_type\":\"{}\",\"country_code\":\"{}\"", self.device, self.country);
        if let Some(value) = self.value {
            let _ = write!(out, ",\"value\":{value}");
        }
        if self.properties != Properties::default() {
            out.extend_from_slice(b",\"properties\":");
            let _ = serde_json::to_writer(&mut *out, &self.properties);
        }
        out.extend_from_slice(b"}\n");
    }
}
