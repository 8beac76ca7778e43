use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tallymesh_actors::peer::{Tls, TlsFiles};
use tallymesh_storage::clock::SystemClock;

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("directory").map(|entry| entry.expect("entry"));
    entries.map(|entry| (entry.file_name().into_string().expect("text"), fs::read(entry.path()).expect("read"))).collect()
}

/// As a node takes them.
fn works(files: &FleetFiles, at: usize) -> bool {
    let NodeFiles { cert, key, .. } = files.nodes[at].clone();
    Tls::load(TlsFiles { ca: files.ca.clone(), cert, key }, Arc::new(SystemClock::new())).is_ok()
}

#[test]
fn fleet_gets_what_its_nodes_take_and_keys_only_for_its_owner() {
    let dir = tempfile::tempdir().expect("directory");
    let fleet = Fleet { dir: dir.path().join("certs"), days: 10, renew: false };
    let files = fleet.make(&names(&["n1", "n-2.example"]), &SystemClock::new()).expect("made");
    assert!(works(&files, 0) && works(&files, 1));
    let mode = |name: &str| fs::metadata(fleet.dir.join(name)).expect("there").permissions().mode() & 0o777;
    for name in ["ca-key.pem", "n1-key.pem", "n-2.example-key.pem", "cookie"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!((mode("n1.pem"), mode("ca.pem"), mode(".")), (0o644, 0o644, 0o700));
    assert_eq!(content(&fleet.dir).len(), 7, "nothing else is left");
}

#[test]
fn second_call_adds_and_renews_and_leaves_the_rest_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let fleet = Fleet { dir: dir.path().to_owned(), days: 10, renew: false };
    let clock = SystemClock::new();
    fleet.make(&names(&["n1", "n2"]), &clock).expect("made");
    let before = content(dir.path());
    let files = fleet.make(&names(&["n1", "n3"]), &clock).expect("made");
    assert_eq!(
        (files.ca_made, files.cookie_made, files.nodes[0].made, files.nodes[1].made),
        (Made::Kept, Made::Kept, Made::Kept, Made::New)
    );
    assert!(works(&files, 1), "by the same CA");
    let mut after = content(dir.path());
    after.retain(|name, _| !name.starts_with("n3"));
    assert!(after == before);

    let files = Fleet { renew: true, ..fleet.clone() }.make(&names(&["n1"]), &clock).expect("made");
    assert!(files.nodes[0].made == Made::Renewed && works(&files, 0));
    let changed: Vec<String> =
        content(dir.path()).into_iter().filter(|(name, text)| before.get(name).is_some_and(|b| b != text)).map(|(n, _)| n).collect();
    assert_eq!(changed, ["n1-key.pem", "n1.pem"]);

    fs::remove_file(dir.path().join(CA)).expect("removed");
    assert!(works(&fleet.make(&names(&["n2"]), &clock).expect("made"), 0), "the CA's certificate comes from its key");
    fs::remove_file(dir.path().join(CA_KEY)).expect("removed");
    assert!(matches!(fleet.make(&names(&["n4"]), &clock), Err(CertsError::CaWithoutKey(_))));
}

#[test]
fn names_that_would_be_other_files_are_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let fleet = Fleet { dir: dir.path().join("none"), days: 10, renew: false };
    for name in ["", "ca", "../n1", ".n1", "-n1", "a b", "ü", "n1-key", &"n".repeat(64)] {
        assert!(matches!(fleet.make(&names(&["n1", name]), &SystemClock::new()), Err(CertsError::Name(_))), "{name}");
    }
    assert!(!fleet.dir.exists(), "nothing was made");
}
