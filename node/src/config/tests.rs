use super::units::{ByteSize, Keep, Period};
use super::*;

const SHIPPED: &str = include_str!("../../../cluster.toml");

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("cluster.toml");
    std::fs::write(&file, text).expect("written");
    Config::load(&Sources { file: Some(file), ..Sources::default() })
}

fn refused(text: &str) -> String {
    load_text(text).expect_err(text).to_string()
}

fn set(assignment: &str) -> Result<Config, ConfigError> {
    Config::load(&Sources { sets: vec![assignment.to_owned()], ..Sources::default() })
}

#[test]
fn the_shipped_file_holds_every_default_and_nothing_else() {
    assert_eq!(load_text(SHIPPED).expect("the shipped file is valid"), Config::default());
    let shipped: toml::Table = SHIPPED.parse().expect("TOML");
    for (section, keys) in layers::default_table() {
        let Some(keys) = keys.as_table() else { continue };
        for key in keys.keys() {
            let there = shipped.get(&section).and_then(|s| s.get(key)).is_some();
            assert!(there, "{section}.{key} is missing from cluster.toml");
        }
    }
}

#[test]
fn every_setting_in_the_shipped_file_has_a_place_in_an_empty_configuration() {
    assert_eq!(Config::load(&Sources::default()).expect("defaults are valid"), Config::default());
}

#[test]
fn unknown_keys_are_named_with_a_guess() {
    assert!(refused("[http]\nadr = \"x\"").contains("unknown setting `http.adr`"));
    assert!(refused("[http]\nadr = \"x\"").ends_with("did you mean `http.addr`?"));
    assert!(refused("[htpp]\naddr = \"x\"").ends_with("did you mean `http`?"));
    assert!(refused("[http]\nshards = 3").ends_with("did you mean `cluster.shards`?"));
    assert!(set("ingest.lateness=1m").expect_err("elsewhere").to_string().ends_with("did you mean `windows.lateness`?"));
    assert!(refused("[[metrics]]\nname = \"a\"\nevent = [\"a\"]\ndimension = []").contains("dimension"));
}

#[test]
fn later_layers_win() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "[node]\nname = \"file\"\ndata_dir = \"file\"\n[http]\naddr = \"127.0.0.1:1\"\n[cluster]\nname = \"file\"")
        .expect("written");
    let config = Config::load(&Sources {
        file: Some(file),
        env: vec![
            ("TALLYMESH_NODE__DATA_DIR".to_owned(), "env".to_owned()),
            ("TALLYMESH_HTTP__ADDR".to_owned(), "127.0.0.1:2".to_owned()),
            ("TALLYMESH_NODE__NAME".to_owned(), "env".to_owned()),
            ("TALLYMESH_FLIGHTS".to_owned(), "no setting".to_owned()),
        ],
        sets: vec!["node.name=set".to_owned(), "http.addr=127.0.0.1:3".to_owned()],
        flags: vec![("http.addr", "127.0.0.1:4".to_owned())],
    })
    .expect("valid");
    assert_eq!(
        (config.cluster.name.as_str(), config.node.data_dir.as_str(), config.node.name.as_str(), config.http.addr.as_str()),
        ("file", "env", "set", "127.0.0.1:4")
    );
}

#[test]
fn what_is_not_toml_is_a_string_and_what_must_be_text_stays_text() {
    assert_eq!(set("windows.lateness=90s").expect("valid").windows.lateness, Period::seconds(90));
    assert_eq!(set("node.name=7").expect("valid").node.name, "7");
    assert_eq!(set("node.name=\"quoted\"").expect("valid").node.name, "quoted");
    assert_eq!(set("ingest.event_bytes_max=2048").expect("valid").ingest.event_bytes_max, ByteSize::kib(2));
    assert_eq!(set("cluster.shards=4").expect("valid").cluster.shards, 4);
    assert_eq!(set("http.cors_origins=[\"https://a.example\"]").expect("valid").http.cors_origins, ["https://a.example"]);
    assert_eq!(set("retention.day=forever").expect("valid").retention.day, Keep::Forever);
    assert_eq!(set("metrics=[{name=\"m\", event=[\"e\"]}]").expect("valid").metrics.len(), 1);
    assert!(matches!(set("node.name"), Err(ConfigError::NotAnAssignment { .. })));
    assert!(set("cluster.shards=many").is_err());
    assert!(set("http=1").expect_err("a section").to_string().contains("is a section"));
}

#[test]
fn impossible_values_are_refused_with_the_key_and_the_way_out() {
    for (assignment, key, hint) in [
        ("cluster.shards=0", "cluster.shards", "1 to 1024"),
        ("cluster.replication=3", "cluster.replication", "1 founders"),
        ("cluster.founders=[\"a:1\",\"b:1\",\"c:1\"]", "cluster.founders", "leave it empty"),
        ("http.addr=nowhere", "http.addr", "127.0.0.1:7070"),
        ("peer.addr=nowhere", "peer.addr", "10.0.0.1:7071"),
        ("peer.addr=127.0.0.1:1", "peer.cookie_file", "openssl rand"),
        ("peer.advertise=a:1", "peer.advertise", "peer.addr is empty"),
        ("peer.advertise=a", "peer.advertise", "node-1.example.net:7071"),
        ("peer.tls_cert=a.pem", "peer.tls_ca", "peer.tls_cert is set"),
        ("retention.minute=3y", "retention.minute", "retention.hour"),
        ("retention.day=1y", "retention.hour", "retention.day"),
        ("log.max=1MiB", "log.max", "log.segment"),
        ("ingest.encoded_bytes_max=1KiB", "ingest.encoded_bytes_max", "256KiB"),
        ("ingest.inflight_bytes_max=8MiB", "ingest.inflight_bytes_max", "16MiB"),
        ("clients.trusted_proxies=[\"10.0.0.0/40\"]", "clients.trusted_proxies", "10.0.0.0/8"),
        ("cache.jitter=2m", "cache.jitter", "1m"),
        ("query.concurrency=0", "query.concurrency", "at least 1"),
        ("logs.level=a=b=c", "logs.level", "warn"),
        ("disk.readonly_below_percent=90", "disk.readonly_below_percent", "0 to 50"),
        ("cardinality.keys_per_metric=0", "cardinality.keys_per_metric", "at least 1"),
        ("cardinality.metrics={page_view=2000000}", "cardinality.keys", "at least 2000000"),
        ("metrics=[{name=\"m\", event=[]}]", "metrics", "at least one event"),
    ] {
        let message = set(assignment).expect_err(assignment).to_string();
        assert!(message.contains(&format!("`{key}`")) && message.contains(hint), "{assignment}: {message}");
    }
}

#[test]
fn raw_retention_is_accepted_with_a_warning() {
    assert!(Config::default().warnings().is_empty());
    assert_eq!(set("retention.raw=30d").expect("valid").warnings().len(), 1);
}

fn with_peers(sets: &[String]) -> Result<Config, ConfigError> {
    let sets = [&["peer.addr=127.0.0.1:1".to_owned()], sets].concat();
    Config::load(&Sources { sets, ..Sources::default() })
}

#[test]
fn cookie_comes_from_the_setting_or_a_file_and_is_not_printed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("cookie");
    std::fs::write(&file, "of a file and long enough\n").expect("written");
    let in_file = format!("peer.cookie_file={}", file.display());
    let access = |sets: &[String]| with_peers(sets).expect("valid").peer.access().expect("read").expect("a port");
    assert_eq!(access(std::slice::from_ref(&in_file)).cookie.0, "of a file and long enough");
    let config = with_peers(&["peer.cookie=of a setting".to_owned()]).expect("valid");
    assert_eq!(config.peer.access().expect("read").expect("a port").cookie.0, "of a setting");
    assert!(!format!("{config:?}").contains("of a setting"));
    assert_eq!(config.warnings().len(), 1, "it is short");

    let both = with_peers(&[in_file.clone(), "peer.cookie=x".to_owned()]).expect_err("both").to_string();
    assert!(both.contains("choose one"), "{both}");
    std::fs::write(&file, " \n").expect("written");
    assert!(with_peers(std::slice::from_ref(&in_file)).expect_err("empty").to_string().contains("nothing in it"));
    std::fs::remove_file(&file).expect("removed");
    assert!(with_peers(&[in_file]).expect_err("absent").to_string().contains("cannot be read"));
    assert!(Config::default().peer.access().expect("nothing to read").is_none());
}

#[test]
fn certificates_are_tried_at_boot() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let made = crate::certs::Fleet { dir: dir.path().to_owned(), days: 10, renew: false };
    made.make(&["a".to_owned(), "b".to_owned()], &tallymesh_storage::clock::SystemClock::new()).expect("made");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let load = |cert: &str, key: &str| {
        with_peers(&[
            format!("peer.cookie_file={}", at("cookie")),
            format!("peer.tls_ca={}", at("ca.pem")),
            format!("peer.tls_cert={}", at(cert)),
            format!("peer.tls_key={}", at(key)),
        ])
    };
    let config = load("a.pem", "a-key.pem").expect("valid");
    assert!(config.peer.access().expect("read").is_some_and(|access| access.tls.is_some()));
    assert_eq!(config.warnings(), []);
    for (cert, key, says) in
        [("a.pem", "b-key.pem", "does not belong"), ("c.pem", "a-key.pem", "cannot read"), ("a.pem", "a.pem", "no private key")]
    {
        let message = load(cert, key).expect_err(says).to_string();
        assert!(message.contains("`peer.tls_cert`") && message.contains(says), "{message}");
    }
}
