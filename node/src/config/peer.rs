//! `[peer]`: what this node shows to other nodes and asks of them. Read and checked at boot: a certificate that peers would refuse is found here, not by them.

use std::fmt;
use std::fs;
use std::net::ToSocketAddrs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallymesh_actors::peer::{Tls, TlsFiles};
use tallymesh_storage::clock::SystemClock;

use super::ConfigError;
use super::check::{Warning, invalid};
use super::units::ByteSize;

/// The port for other nodes of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peer {
    /// Where other nodes are listened to; empty is no peer port.
    pub addr: String,
    /// What others dial; empty is `addr`.
    pub advertise: String,
    /// Known to all nodes of the cluster and to nobody else.
    pub cookie: Secret,
    /// A file with it.
    pub cookie_file: String,
    /// Bytes a second that all other nodes together may fetch of snapshots.
    pub bulk_rate: ByteSize,
    /// Certificates that the other nodes' are signed by; PEM, like the two below.
    pub tls_ca: String,
    /// This node's certificate, then what stands between it and the CA.
    pub tls_cert: String,
    pub tls_key: String,
}

impl Default for Peer {
    fn default() -> Self {
        let empty = String::new;
        Self {
            addr: empty(),
            advertise: empty(),
            cookie: Secret::default(),
            cookie_file: empty(),
            bulk_rate: ByteSize::mib(256),
            tls_ca: empty(),
            tls_cert: empty(),
            tls_key: empty(),
        }
    }
}

/// Text that is not printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

/// What a peer port is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAccess {
    pub cookie: Secret,
    pub tls: Option<TlsFiles>,
}

/// A cookie is one line of text; what is longer is some other file.
const COOKIE_BYTES_MAX: usize = 4 << 10;
/// Shorter cookies can be found by trying, by whoever gets the peer port to answer.
const COOKIE_BYTES_MIN: usize = 16;
const READABLE_BY_OTHERS: u32 = 0o004;
const HOW_TO_MAKE_ONE: &str = "give all nodes the same one, for example from `tallymesh cluster certs` or `openssl rand -hex 32`";

impl Peer {
    /// Reads the secrets. None without a peer port.
    ///
    /// # Errors
    /// What is missing or cannot be used, with the key.
    pub fn access(&self) -> Result<Option<PeerAccess>, ConfigError> {
        let tls = self.tls()?;
        if self.addr.is_empty() {
            return Ok(None);
        }
        let cookie = self.cookie()?;
        if let Some(files) = &tls {
            Tls::load(files.clone(), Arc::new(SystemClock::new()))
                .map_err(|e| ConfigError::Invalid { key: "peer.tls_cert", problem: format!("cannot be used: {e}") })?;
        }
        Ok(Some(PeerAccess { cookie, tls }))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.addr.is_empty()
            && let Err(error) = self.addr.to_socket_addrs()
        {
            return invalid("peer.addr", format!("`{}`: {error}; write for example \"10.0.0.1:7071\"", self.addr));
        }
        // Only its form: others resolve it, maybe to something else than this host does.
        let has_port = self.advertise.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !self.advertise.is_empty() && !has_port {
            return invalid("peer.advertise", format!("`{}` is no address; write for example \"node-1.example.net:7071\"", self.advertise));
        }
        if self.addr.is_empty() && !self.advertise.is_empty() {
            return invalid("peer.advertise", "is set, but peer.addr is empty: there is no port that others could dial");
        }
        let is_open = self.addr.to_socket_addrs().is_ok_and(|mut found| found.any(|addr| addr.ip().is_unspecified()));
        if is_open && self.advertise.is_empty() {
            return invalid("peer.advertise", format!("is empty, and nobody can dial {}; name the address that others reach this node at", self.addr));
        }
        if self.bulk_rate < ByteSize::mib(1) {
            return invalid("peer.bulk_rate", format!("is {}; choose at least 1MiB", self.bulk_rate));
        }
        self.access().map(drop)
    }

    /// What others dial.
    pub fn advertised(&self) -> &str {
        if self.advertise.is_empty() { &self.addr } else { &self.advertise }
    }

    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.addr.is_empty() {
            return warnings;
        }
        if self.cookie().is_ok_and(|cookie| cookie.0.len() < COOKIE_BYTES_MIN) {
            warnings.push(Warning(format!(
                "the cookie between nodes is shorter than {COOKIE_BYTES_MIN} bytes and can be guessed: {HOW_TO_MAKE_ONE}"
            )));
        }
        for (key, path) in [("peer.cookie_file", &self.cookie_file), ("peer.tls_key", &self.tls_key)] {
            let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
            if !path.is_empty() && mode.is_ok_and(|mode| mode & READABLE_BY_OTHERS != 0) {
                warnings.push(Warning(format!("{key}: everybody on this machine can read {path}; chmod o-r it")));
            }
        }
        warnings
    }

    fn cookie(&self) -> Result<Secret, ConfigError> {
        match (self.cookie.0.is_empty(), self.cookie_file.is_empty()) {
            (false, false) => invalid("peer.cookie", "and peer.cookie_file are both set; choose one"),
            (true, true) => {
                invalid("peer.cookie_file", format!("is empty, and so is peer.cookie: nodes know each other by it; {HOW_TO_MAKE_ONE}"))
            }
            (false, true) => Ok(self.cookie.clone()),
            (true, false) => read_cookie(Path::new(&self.cookie_file)),
        }
    }

    /// All three files, or none.
    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let files = [("peer.tls_ca", &self.tls_ca), ("peer.tls_cert", &self.tls_cert), ("peer.tls_key", &self.tls_key)];
        let missing = files.into_iter().find(|(_, path)| path.is_empty());
        match (missing, files.into_iter().find(|(_, path)| !path.is_empty())) {
            (_, None) => Ok(None),
            (Some((key, _)), Some((other, _))) => {
                invalid(key, format!("is empty, but {other} is set: TLS needs tls_ca, tls_cert and tls_key"))
            }
            (None, Some(_)) => {
                let path = |text: &String| PathBuf::from(text);
                Ok(Some(TlsFiles { ca: path(&self.tls_ca), cert: path(&self.tls_cert), key: path(&self.tls_key) }))
            }
        }
    }
}

fn read_cookie(path: &Path) -> Result<Secret, ConfigError> {
    let problem = match fs::read_to_string(path) {
        Err(error) => format!("cannot be read: {}: {error}", path.display()),
        Ok(text) if text.trim().is_empty() => format!("has nothing in it: {}; {HOW_TO_MAKE_ONE}", path.display()),
        Ok(text) if text.len() > COOKIE_BYTES_MAX => {
            format!("is no cookie: {} has {} bytes, at most {COOKIE_BYTES_MAX}", path.display(), text.len())
        }
        Ok(text) => return Ok(Secret(text.trim().to_owned())),
    };
    invalid("peer.cookie_file", problem)
}
