//! Certificates for a fleet that has no authority of its own: a private CA, one certificate for each node, and a cookie, as files in a directory.
//!
//! The CA's certificate is a function of its key, so that a later call finds it again from the key alone and adds nodes. Keys are written before certificates:
//! a node that looks in between sees a pair that does not fit, and keeps the one before.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tallymesh_storage::clock::Clock;

/// Days that a new CA is good for.
pub const CA_DAYS: u32 = 3_650;
/// Certificates begin this long before now: clocks differ.
const BEGINS_BEFORE: Duration = Duration::from_secs(24 * 3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const COOKIE_BYTES: usize = 32;
const NAME_BYTES_MAX: usize = 63;
const OWNER_ONLY: u32 = 0o600;
const EVERYBODY: u32 = 0o644;

pub const CA: &str = "ca.pem";
pub const CA_KEY: &str = "ca-key.pem";
pub const COOKIE: &str = "cookie";

#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error(
        "`{0}` cannot be a node's name here: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, beginning with a letter or digit, and not `ca`"
    )]
    Name(String),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} is not the key of a CA made here: {error}")]
    CaKey { path: PathBuf, error: rcgen::Error },
    #[error("{0} is there, but the CA's key is not: certificates can only be added where both are")]
    CaWithoutKey(PathBuf),
    #[error("making a certificate: {0}")]
    Library(#[from] rcgen::Error),
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    New,
    Renewed,
    Kept,
}

/// A node and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFiles {
    pub node: String,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub made: Made,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetFiles {
    pub ca: PathBuf,
    pub ca_made: Made,
    pub cookie: PathBuf,
    pub cookie_made: Made,
    pub nodes: Vec<NodeFiles>,
}

/// Where a fleet's files are.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub dir: PathBuf,
    /// Of a node's certificate.
    pub days: u32,
    /// Replace certificates that are there; the CA and the cookie stay.
    pub renew: bool,
}

impl Fleet {
    /// Makes what is missing.
    ///
    /// # Errors
    /// Names that are none, files that cannot be read or written.
    pub fn make(&self, nodes: &[String], clock: &dyn Clock) -> Result<FleetFiles, CertsError> {
        if let Some(name) = nodes.iter().find(|name| !is_name(name)) {
            return Err(CertsError::Name(name.clone()));
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| CertsError::Io { path: self.dir.clone(), error })?;
        let (issuer, ca_made) = self.authority(clock)?;
        let (cookie, cookie_made) = cookie(&self.dir)?;
        let mut files = Vec::new();
        for node in nodes {
            files.push(self.node(node, &issuer, clock)?);
        }
        Ok(FleetFiles { ca: self.dir.join(CA), ca_made, cookie, cookie_made, nodes: files })
    }

    /// The CA of the directory; a directory that has none gets one.
    fn authority(&self, clock: &dyn Clock) -> Result<(Issuer<'static, KeyPair>, Made), CertsError> {
        let (cert_path, key_path) = (self.dir.join(CA), self.dir.join(CA_KEY));
        if key_path.exists() {
            let text = fs::read_to_string(&key_path).map_err(|error| CertsError::Io { path: key_path.clone(), error })?;
            let key = KeyPair::from_pem(&text).map_err(|error| CertsError::CaKey { path: key_path, error })?;
            let params = ca_params(&key)?;
            if !cert_path.exists() {
                // Broken off in between.
                write(&cert_path, &self_signed(params.clone(), &key, clock)?.pem(), EVERYBODY)?;
            }
            return Ok((Issuer::new(params, key), Made::Kept));
        }
        if cert_path.exists() {
            return Err(CertsError::CaWithoutKey(cert_path));
        }
        let key = KeyPair::generate()?;
        let params = ca_params(&key)?;
        write(&key_path, &key.serialize_pem(), OWNER_ONLY)?;
        write(&cert_path, &self_signed(params.clone(), &key, clock)?.pem(), EVERYBODY)?;
        Ok((Issuer::new(params, key), Made::New))
    }

    fn node(&self, node: &str, issuer: &Issuer<'static, KeyPair>, clock: &dyn Clock) -> Result<NodeFiles, CertsError> {
        let (cert, key) = (self.dir.join(format!("{node}.pem")), self.dir.join(format!("{node}-key.pem")));
        let made = match (cert.exists() && key.exists(), self.renew) {
            (true, false) => Made::Kept,
            (true, true) => Made::Renewed,
            (false, _) => Made::New,
        };
        if made != Made::Kept {
            let mut params = CertificateParams::new(vec![node.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, node);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            // A node dials and is dialled.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.use_authority_key_identifier_extension = true;
            let params = valid_for(params, self.days, clock);
            let its_key = KeyPair::generate()?;
            let its_cert = params.signed_by(&its_key, issuer)?;
            write(&key, &its_key.serialize_pem(), OWNER_ONLY)?;
            write(&cert, &its_cert.pem(), EVERYBODY)?;
        }
        Ok(NodeFiles { node: node.to_owned(), cert, key, made })
    }
}

/// The cookie of a directory; a directory that has none gets one.
///
/// # Errors
/// It cannot be written.
pub fn cookie(dir: &Path) -> Result<(PathBuf, Made), CertsError> {
    let path = dir.join(COOKIE);
    if path.exists() {
        return Ok((path, Made::Kept));
    }
    let mut random = [0; COOKIE_BYTES];
    StdRng::from_os_rng().fill_bytes(&mut random);
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
    write(&path, &format!("{text}\n"), OWNER_ONLY)?;
    Ok((path, Made::New))
}

/// Letters that need no quoting in a file name, a shell or a certificate.
fn is_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    plain
        && name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name != "ca"
        && !name.ends_with("-key")
}

/// The name has the key in it, so that certificates of two fleets are told apart by their issuers.
fn ca_params(key: &KeyPair) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let id: String = params.key_identifier(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Tallymesh fleet {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn self_signed(params: CertificateParams, key: &KeyPair, clock: &dyn Clock) -> Result<Certificate, rcgen::Error> {
    valid_for(params, CA_DAYS, clock).self_signed(key)
}

fn valid_for(mut params: CertificateParams, days: u32, clock: &dyn Clock) -> CertificateParams {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(clock.wall_ms() / 1_000).unwrap_or(0));
    params.not_before = now - BEGINS_BEFORE;
    params.not_after = now + DAY * days;
    params
}

/// Whole or not at all, and never readable by more than `mode` says.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let beside = path.with_extension("new");
    let written = (|| {
        let _ = fs::remove_file(&beside);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|error| CertsError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
