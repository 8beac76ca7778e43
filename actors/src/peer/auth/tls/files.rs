//! The three files, and what the library makes of them. They are checked as a peer would check them, so that a mistake shows at the start of the node that
//! makes it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tallymesh_storage::clock::Clock;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{self, WebPkiSupportedAlgorithms, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};

use super::reason::objection;
use super::{PROTOCOL, Sides};

/// Where this node's certificate is, and whom it trusts; all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the CA, or of several while one replaces the other.
    pub ca: PathBuf,
    /// This node's certificate, then what stands between it and the CA.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why the files cannot be used. For an operator: it names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is not PEM: {detail}")]
    NotPem { path: PathBuf, detail: String },
    #[error("{path} has no certificate in it: `-----BEGIN CERTIFICATE-----` is what to look for")]
    NoCertificate { path: PathBuf },
    #[error("{path} has no private key in it: `-----BEGIN PRIVATE KEY-----` is what to look for")]
    NoKey { path: PathBuf },
    #[error("{path} has a certificate that cannot be used as a CA: {detail}")]
    NotACa { path: PathBuf, detail: String },
    #[error("the key in {key} does not belong to the certificate in {cert}")]
    KeyDoesNotFit { cert: PathBuf, key: PathBuf },
    #[error("a node that trusts {ca} would not accept the certificate in {cert}: {reason}")]
    NotAccepted { ca: PathBuf, cert: PathBuf, reason: String },
    #[error("the certificate in {cert} with the key in {key}: {detail}")]
    Library { cert: PathBuf, key: PathBuf, detail: String },
}

/// How to tell that a file was replaced or written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// None stands for a file that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps([Option<Stamp>; 3]);

/// Files as they were read.
pub struct Loaded {
    pub stamps: Stamps,
    pub sides: Sides,
    chain: Vec<CertificateDer<'static>>,
    verifier: Arc<OfTheFleet>,
}

impl Loaded {
    /// How long the certificate is still good, if that is less than `ahead`.
    pub fn ends_within(&self, ahead: Duration, clock: &Arc<dyn Clock>) -> Option<Duration> {
        let now = now(clock);
        let then = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + ahead);
        match self.verifier.verify(&self.chain, then) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Some(Duration::from_secs(not_after.as_secs().saturating_sub(now.as_secs())))
            }
            _ => None,
        }
    }
}

impl TlsFiles {
    pub fn stamps(&self) -> Stamps {
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
        };
        Stamps([stamp(&self.ca), stamp(&self.cert), stamp(&self.key)])
    }

    /// Reads and checks the files.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(&self, clock: &Arc<dyn Clock>) -> Result<Loaded, TlsError> {
        // Before they are read: what changes meanwhile is read again.
        let stamps = self.stamps();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(self.roots()?);
        let chain = certificates(&self.cert)?;
        let key = self.key()?;
        let cannot = |error: Error| match error {
            Error::InconsistentKeys(_) => TlsError::KeyDoesNotFit { cert: self.cert.clone(), key: self.key.clone() },
            error => TlsError::Library { cert: self.cert.clone(), key: self.key.clone(), detail: error.to_string() },
        };
        let time: Arc<dyn TimeProvider> = Arc::new(WallTime(clock.clone()));

        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = clients.map_err(|e| TlsError::NotACa { path: self.ca.clone(), detail: e.to_string() })?;
        let server = ServerConfig::builder_with_details(provider.clone(), time.clone()).with_protocol_versions(&[&TLS13]);
        let server = server.map_err(cannot)?.with_client_cert_verifier(clients.clone()).with_single_cert(chain.clone(), key.clone_key());
        let mut server = server.map_err(cannot)?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.alpn_protocols = vec![PROTOCOL.to_vec()];

        let verifier = Arc::new(OfTheFleet { roots, algorithms: provider.signature_verification_algorithms });
        let client = ClientConfig::builder_with_details(provider, time).with_protocol_versions(&[&TLS13]).map_err(cannot)?;
        let client = client.dangerous().with_custom_certificate_verifier(verifier.clone()).with_client_auth_cert(chain.clone(), key);
        let mut client = client.map_err(cannot)?;
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];

        let now = now(clock);
        let as_server = verifier.verify(&chain, now);
        let accepted = as_server.and_then(|()| match chain.split_first() {
            Some((own, between)) => clients.verify_client_cert(own, between, now).map(drop),
            None => Ok(()),
        });
        let not_accepted = |error: Error| {
            let reason = objection(&error).unwrap_or_else(|| error.to_string());
            TlsError::NotAccepted { ca: self.ca.clone(), cert: self.cert.clone(), reason }
        };
        accepted.map_err(not_accepted)?;
        let sides = Sides { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() };
        Ok(Loaded { stamps, sides, chain, verifier })
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|e| TlsError::NotACa { path: self.ca.clone(), detail: e.to_string() })?;
        }
        Ok(roots)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let text = read(&self.key)?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey { path: self.key.clone() },
            error => TlsError::NotPem { path: self.key.clone(), detail: error.to_string() },
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|e| TlsError::NotPem { path: path.to_owned(), detail: e.to_string() })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

/// Judges the side that was dialled: by the CA and the time, not by a name.
#[derive(Debug)]
struct OfTheFleet {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl OfTheFleet {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let Some((own, between)) = chain.split_first() else { return Err(Error::NoCertificatesPresented) };
        verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(own)?, &self.roots, between, now, self.algorithms.all)
    }
}

impl ServerCertVerifier for OfTheFleet {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&own, &self.roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The node's own clock: what a test or a skewed machine sees is what certificates are judged by.
struct WallTime(Arc<dyn Clock>);

impl std::fmt::Debug for WallTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallTime")
    }
}

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(now(&self.0))
    }
}

fn now(clock: &Arc<dyn Clock>) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(clock.wall_ms()).unwrap_or(0)))
}
