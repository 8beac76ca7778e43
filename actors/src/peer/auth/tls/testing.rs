//! A CA and certificates for tests.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tallymesh_storage::clock::{Clock, SystemClock};

use super::TlsFiles;

const DAY_S: i64 = 24 * 3_600;

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// What a certificate is like.
pub struct Like {
    /// Days from now.
    pub valid_days: (i64, i64),
    pub purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl Default for Like {
    fn default() -> Self {
        Self { valid_days: (-1, 365), purposes: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] }
    }
}

fn params(name: &str, (from, to): (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("name");
    params.distinguished_name.push(DnType::CommonName, name);
    let now_s = SystemClock::new().wall_ms() / 1_000;
    let at = |days: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs((now_s + days * DAY_S) as u64);
    (params.not_before, params.not_after) = (at(from), at(to));
    params
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = params(name, (-2, 3_650));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("signed"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes the three files of a node; what was there is replaced.
    pub fn issue(&self, dir: &Path, name: &str, like: Like) -> TlsFiles {
        let files = TlsFiles {
            ca: dir.join(format!("{name}-ca.pem")),
            cert: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}-key.pem")),
        };
        let mut params = params(name, like.valid_days);
        params.extended_key_usages = like.purposes;
        let key = KeyPair::generate().expect("key");
        let cert = params.signed_by(&key, &self.0).expect("signed");
        for (path, text) in [(&files.ca, self.pem()), (&files.cert, cert.pem()), (&files.key, key.serialize_pem())] {
            std::fs::write(path, text).expect("written");
        }
        files
    }
}
