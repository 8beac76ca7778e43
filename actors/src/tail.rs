//! Accepted events for those who watch (`tail`): a bounded broadcast. Nobody watching costs one atomic read a request.
//!
//! A slow watcher loses the oldest events and is told how many; it never holds up ingest, and what is kept for it is bounded by
//! count and by the size of one event.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tallymesh_protocol::definition::FieldRef;
use tallymesh_protocol::event::Event;
use tallymesh_protocol::question::filter::Filter;
use tallymesh_protocol::time::rfc3339;
use tokio::sync::broadcast;

/// Longest `properties` that a watched event shows, in bytes; longer ones are left out and the event says so.
pub const TAIL_PROPERTIES_BYTES_MAX: usize = 4_096;

/// One accepted event, ready to send.
#[derive(Clone, Debug, PartialEq)]
pub struct TailEvent {
    /// One JSON object.
    pub json: Bytes,
    event: String,
    user_id: Option<String>,
    session_id: Option<String>,
    source: Option<String>,
    device_type: Option<String>,
    country_code: Option<String>,
}

/// The fields that a tail filter may name.
pub const TAIL_FIELDS: [&str; 6] = ["event", "source", "device_type", "country_code", "user_id", "session_id"];

/// What a watcher gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    Event(Arc<TailEvent>),
    /// So many events were lost because the watcher was slow.
    Missed(u64),
    /// The node is shutting down.
    Closed,
}

/// Cheap to clone; all clones are the same broadcast.
#[derive(Clone, Debug)]
pub struct TailHub {
    sender: broadcast::Sender<Arc<TailEvent>>,
    watchers: Arc<AtomicUsize>,
    watchers_max: usize,
}

/// One watcher; leaves on drop.
#[derive(Debug)]
pub struct Watcher {
    receiver: broadcast::Receiver<Arc<TailEvent>>,
    watchers: Arc<AtomicUsize>,
}

impl TailHub {
    /// `buffer_events` are kept for the slowest watcher.
    pub fn new(buffer_events: usize, watchers_max: usize) -> Self {
        let (sender, _) = broadcast::channel(buffer_events.max(1));
        Self { sender, watchers: Arc::new(AtomicUsize::new(0)), watchers_max }
    }

    /// Whether events are worth preparing.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// `None` when there are as many watchers as are allowed.
    pub fn watch(&self) -> Option<Watcher> {
        let max = self.watchers_max;
        self.watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1)).ok()?;
        Some(Watcher { receiver: self.sender.subscribe(), watchers: self.watchers.clone() })
    }

    pub fn publish(&self, events: Vec<TailEvent>) {
        for event in events {
            // An error only means that the last watcher has just left.
            let _ = self.sender.send(Arc::new(event));
        }
    }
}

impl Watcher {
    /// The next event, or how many were lost before it.
    pub async fn next(&mut self) -> Watched {
        match self.receiver.recv().await {
            Ok(event) => Watched::Event(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Watched::Missed(missed),
            Err(broadcast::error::RecvError::Closed) => Watched::Closed,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(serde::Serialize)]
struct Shown<'a> {
    event: &'a str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    user_id: Option<&'a str>,
    session_id: Option<&'a str>,
    source: Option<&'a str>,
    device_type: Option<&'a str>,
    country_code: Option<&'a str>,
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<&'a serde_json::value::RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    properties_omitted: bool,
}

impl TailEvent {
    /// `now_ms` stands in for a missing timestamp.
    pub fn new(event: &Event<'_>, now_ms: i64) -> Self {
        let text = event.properties.filter(|p| p.len() <= TAIL_PROPERTIES_BYTES_MAX);
        let shown = Shown {
            event: &event.name,
            timestamp: rfc3339(event.timestamp_ms.unwrap_or(now_ms)),
            event_id: event.event_id.as_deref(),
            user_id: event.user_id.as_deref(),
            session_id: event.session_id.as_deref(),
            source: event.source.as_deref(),
            device_type: event.device_type.as_deref(),
            country_code: event.country_code.as_deref(),
            value: event.value,
            properties: text.and_then(|p| serde_json::from_str(p).ok()),
            properties_omitted: event.properties.is_some() && text.is_none(),
        };
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            json: serde_json::to_vec(&shown).unwrap_or_default().into(),
            event: event.name.to_string(),
            user_id: owned(&event.user_id),
            session_id: owned(&event.session_id),
            source: owned(&event.source),
            device_type: owned(&event.device_type),
            country_code: owned(&event.country_code),
        }
    }

    /// Whether every filter holds. A filter on a field that is not one of [`TAIL_FIELDS`] sees null.
    pub fn passes(&self, filters: &[Filter]) -> bool {
        filters.iter().all(|filter| {
            let value = match FieldRef::parse(&filter.dimension) {
                FieldRef::Event => Some(self.event.as_str()),
                FieldRef::UserId => self.user_id.as_deref(),
                FieldRef::SessionId => self.session_id.as_deref(),
                FieldRef::Source => self.source.as_deref(),
                FieldRef::DeviceType => self.device_type.as_deref(),
                FieldRef::CountryCode => self.country_code.as_deref(),
                FieldRef::Value | FieldRef::SchemaVersion | FieldRef::Property(_) => None,
            };
            filter.matches(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &'static str) -> Event<'static> {
        Event { name: name.into(), source: Some("web".into()), value: Some(2.5), properties: Some(r#"{"a":[1]}"#), ..Event::default() }
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_how_many_it_missed() {
        let hub = TailHub::new(4, 1);
        assert!(!hub.is_watched());
        let mut slow = hub.watch().expect("a place");
        assert!(hub.is_watched() && hub.watch().is_none());
        hub.publish((0..10).map(|_| TailEvent::new(&event("page_view"), 0)).collect());
        assert_eq!(slow.next().await, Watched::Missed(6));
        assert!(matches!(slow.next().await, Watched::Event(_)));
        drop(slow);
        assert!(!hub.is_watched());
    }

    #[test]
    fn an_event_shows_what_was_sent_and_leaves_out_huge_properties() {
        let shown: serde_json::Value = serde_json::from_slice(&TailEvent::new(&event("page_view"), 1_000).json).expect("JSON");
        assert_eq!(
            shown,
            serde_json::json!({"event": "page_view", "timestamp": "1970-01-01T00:00:01Z", "user_id": null, "session_id": null, "source": "web",
                "device_type": null, "country_code": null, "value": 2.5, "properties": {"a": [1]}})
        );
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(TAIL_PROPERTIES_BYTES_MAX));
        let huge = Event { properties: Some(&long), ..event("page_view") };
        let shown: serde_json::Value = serde_json::from_slice(&TailEvent::new(&huge, 0).json).expect("JSON");
        assert_eq!((&shown["properties_omitted"], shown.get("properties")), (&serde_json::Value::Bool(true), None));
    }

    #[test]
    fn all_filters_must_hold() {
        let seen = TailEvent::new(&event("page_view"), 0);
        for (filters, passes) in [
            (vec![], true),
            (vec!["event:page_view", "source:web|api"], true),
            (vec!["event:page_view", "source:api"], false),
            (vec!["!event:page_view"], false),
            (vec!["country:"], true),
        ] {
            let filters: Vec<Filter> = filters.iter().map(|f| Filter::parse(f).expect("valid")).collect();
            assert_eq!(seen.passes(&filters), passes, "{filters:?}");
        }
    }
}
