use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::ExtendedKeyUsagePurpose;
use tallymesh_storage::clock::{Clock, SystemClock};

use super::testing::{Ca, Like};
use super::*;
use crate::peer::auth::handshake::{self, Hello, Purpose, Secret};
use crate::peer::{BootId, NodeId};

/// Three days ahead.
struct Ahead(SystemClock);

impl Clock for Ahead {
    fn wall_ms(&self) -> i64 {
        self.0.wall_ms() + 3 * 24 * 3_600_000
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn load(files: &TlsFiles) -> Result<Arc<Tls>, TlsError> {
    Tls::load(files.clone(), clock()).map(Arc::new)
}

fn refused(files: &TlsFiles) -> String {
    match load(files) {
        Ok(_) => panic!("{files:?} was taken"),
        Err(error) => error.to_string(),
    }
}

fn hello(node: u128) -> Hello {
    let (name, address, cluster_name) = (format!("n{node}"), String::new(), "main".to_owned());
    Hello { node: NodeId::from_u128(node), boot: BootId(1), name, address, cluster_name, cluster_id: None }
}

/// What both sides make of each other, over TLS and the handshake inside.
async fn meet(client: &Arc<Tls>, server: &Arc<Tls>) -> (Result<NodeId, String>, Result<NodeId, String>) {
    let (near, far) = tokio::io::duplex(16 << 10);
    let dialling = async {
        let mut channel = client.connect(near).await?;
        let secret = Secret { cookie: "secret", binding: &channel.binding };
        handshake::dial(&mut channel.stream, secret, &hello(1), Purpose::Session).await
    };
    let accepting = async {
        let mut channel = server.accept(far).await?;
        let secret = Secret { cookie: "secret", binding: &channel.binding };
        handshake::accept(&mut channel.stream, secret, &hello(2)).await
    };
    let (a, b) = tokio::join!(dialling, accepting);
    let said = |result: Result<handshake::Agreed, HandshakeError>| match result {
        Ok(agreed) => Ok(agreed.peer.node),
        Err(HandshakeError::Io(error)) => Err(explained(error).to_string()),
        Err(error) => Err(error.to_string()),
    };
    (said(a), said(b))
}

#[tokio::test]
async fn nodes_of_one_authority_meet_and_each_reason_to_refuse_is_told_to_both() {
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let a = load(&ca.issue(dir.path(), "a", Like::default())).expect("loaded");
    let b = load(&ca.issue(dir.path(), "b", Like::default())).expect("loaded");
    assert_eq!(meet(&a, &b).await, (Ok(NodeId::from_u128(2)), Ok(NodeId::from_u128(1))));

    let stranger = load(&Ca::new("other").issue(dir.path(), "c", Like::default())).expect("loaded");
    // Loaded while it was good; the other side's clock says that it is no more.
    let short = load(&ca.issue(dir.path(), "d", Like { valid_days: (-1, 1), ..Like::default() })).expect("loaded");
    let later = Arc::new(Tls::load(ca.issue(dir.path(), "e", Like::default()), Arc::new(Ahead(SystemClock::new()))).expect("loaded"));
    for (client, server, says) in [
        (&a, &stranger, "signed by another CA"),
        (&stranger, &a, "signed by another CA"),
        (&short, &later, "expired"),
        (&later, &short, "expired"),
    ] {
        let (near, far) = meet(client, server).await;
        let (near, far) = (near.expect_err("refused"), far.expect_err("refused"));
        assert!(near.contains(says) && far.contains(says), "{says}: {near} / {far}");
        assert_eq!([&near, &far].iter().filter(|reason| reason.contains("refused this node")).count(), 1, "{near} / {far}");
    }
}

#[tokio::test]
async fn client_without_a_certificate_is_refused_and_told() {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let files = ca.issue(dir.path(), "localhost", Like::default());
    let server = load(&files).expect("loaded");
    let mut roots = RootCertStore::empty();
    for certificate in super::files::certificates(&files.ca).expect("CA") {
        roots.add(certificate).expect("CA");
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let (near, far) = tokio::io::duplex(16 << 10);
    let dialling = async {
        let name = ServerName::try_from("localhost").expect("name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, near).await.expect("the server's verdict comes later");
        handshake::dial(&mut stream, Secret::of("secret"), &hello(1), Purpose::Session).await
    };
    let (a, b) = tokio::join!(dialling, server.accept(far));
    let Err(HandshakeError::Io(error)) = a else { panic!("{a:?}") };
    assert!(explained(error).to_string().contains("this node shows no certificate"));
    assert!(b.err().is_some_and(|error| error.to_string().contains("there is none")));
}

/// Someone with a certificate of the fleet and without the cookie, who passes on what two nodes say to each other.
#[tokio::test]
async fn handshake_that_is_passed_on_proves_nothing() {
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let [a, b, between] = ["a", "b", "m"].map(|name| load(&ca.issue(dir.path(), name, Like::default())).expect("loaded"));
    let ((near, from_near), (to_far, far)) = (tokio::io::duplex(16 << 10), tokio::io::duplex(16 << 10));
    let dialling = async {
        let mut channel = a.connect(near).await?;
        let secret = Secret { cookie: "secret", binding: &channel.binding };
        handshake::dial(&mut channel.stream, secret, &hello(1), Purpose::Session).await
    };
    let accepting = async {
        let mut channel = b.accept(far).await?;
        let secret = Secret { cookie: "secret", binding: &channel.binding };
        handshake::accept(&mut channel.stream, secret, &hello(2)).await
    };
    let passing = async {
        let (mut left, mut right) = (between.accept(from_near).await.expect("a").stream, between.connect(to_far).await.expect("b").stream);
        // Ends when both have had enough.
        let _ = tokio::io::copy_bidirectional(&mut left, &mut right).await;
    };
    let (a, b, ()) = tokio::join!(dialling, accepting, passing);
    assert!(a.as_ref().is_err_and(|error| error.to_string().contains("cookie differs")), "{a:?}");
    assert!(b.is_err(), "{b:?}");
}

#[test]
fn files_that_cannot_work_are_refused_by_name() {
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let good = ca.issue(dir.path(), "good", Like::default());
    let other = Ca::new("other").issue(dir.path(), "other", Like::default());
    let text = dir.path().join("text.pem");
    fs::write(&text, "nothing of the kind").expect("written");
    let absent = dir.path().join("absent.pem");
    let client_only = Like { purposes: vec![ExtendedKeyUsagePurpose::ClientAuth], ..Like::default() };
    let server_only = Like { purposes: vec![ExtendedKeyUsagePurpose::ServerAuth], ..Like::default() };
    for (files, says) in [
        (TlsFiles { ca: absent.clone(), ..good.clone() }, vec!["cannot read", "absent.pem"]),
        (TlsFiles { key: absent, ..good.clone() }, vec!["cannot read", "absent.pem"]),
        (TlsFiles { ca: text.clone(), ..good.clone() }, vec!["text.pem", "BEGIN CERTIFICATE"]),
        (TlsFiles { cert: text.clone(), ..good.clone() }, vec!["text.pem", "BEGIN CERTIFICATE"]),
        (TlsFiles { key: text, ..good.clone() }, vec!["text.pem", "BEGIN PRIVATE KEY"]),
        (TlsFiles { key: good.cert.clone(), ..good.clone() }, vec!["good.pem", "no private key"]),
        (TlsFiles { key: other.key.clone(), ..good.clone() }, vec!["other-key.pem", "does not belong", "good.pem"]),
        (TlsFiles { ca: other.ca.clone(), ..good.clone() }, vec!["other-ca.pem", "good.pem", "another CA"]),
        (ca.issue(dir.path(), "old", Like { valid_days: (-9, -2), ..Like::default() }), vec!["old.pem", "expired"]),
        (ca.issue(dir.path(), "new", Like { valid_days: (2, 9), ..Like::default() }), vec!["new.pem", "not valid yet"]),
        (ca.issue(dir.path(), "client", client_only), vec!["client.pem", "serverAuth"]),
        (ca.issue(dir.path(), "server", server_only), vec!["server.pem", "clientAuth"]),
    ] {
        let reason = refused(&files);
        assert!(says.iter().all(|part| reason.contains(part)), "{says:?}: {reason}");
    }
}

#[tokio::test]
async fn files_that_change_are_used_at_once_unless_they_cannot_be() {
    let (dir, old, new) = (tempfile::tempdir().expect("directory"), Ca::new("old"), Ca::new("new"));
    let a = old.issue(dir.path(), "a", Like::default());
    let b = old.issue(dir.path(), "b", Like::default());
    let (node, peer) = (load(&a).expect("loaded"), load(&b).expect("loaded"));
    let met = async || {
        let (near, far) = meet(&node, &peer).await;
        near.is_ok() && far.is_ok()
    };
    assert!(met().await);
    // Half of a renewal: the key is not there yet.
    let renewed = new.issue(dir.path(), "renewed", Like::default());
    replace(&renewed.cert, &a.cert);
    assert!(met().await, "the files before stay in use");
    // A rotation: first everybody trusts both, then certificates are replaced one node after the other.
    for files in [&a, &b] {
        fs::write(&files.ca, format!("{}{}", old.pem(), new.pem())).expect("written");
    }
    replace(&renewed.key, &a.key);
    assert!(met().await);
    fs::write(&a.ca, new.pem()).expect("written");
    assert!(!met().await, "it no longer trusts the old one, and it knows at once");
    let renewed = new.issue(dir.path(), "renewed", Like::default());
    replace(&renewed.cert, &b.cert);
    replace(&renewed.key, &b.key);
    assert!(met().await);
}

/// As a careful renewal does it.
fn replace(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    fs::copy(from, &beside).expect("copied");
    fs::rename(&beside, to).expect("renamed");
}

#[test]
fn end_of_a_certificate_is_seen_two_weeks_before() {
    let (dir, ca) = (tempfile::tempdir().expect("directory"), Ca::new("fleet"));
    let ends = |name: &str, days: i64| {
        let files = ca.issue(dir.path(), name, Like { valid_days: (-1, days), ..Like::default() });
        files.load(&clock()).expect("loaded").ends_within(EXPIRY_WARNING, &clock())
    };
    assert_eq!(ends("long", 15), None);
    let left = ends("short", 13).expect("seen");
    assert!(left > Duration::from_secs(12 * 24 * 3_600) && left <= Duration::from_secs(13 * 24 * 3_600), "{left:?}");
}
