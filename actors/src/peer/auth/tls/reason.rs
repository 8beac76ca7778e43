//! What went wrong in TLS, in the words of an operator. Texts have nothing in them that varies from one attempt to the next: they are logged once a while.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::super::handshake::{HandshakeError, Refused};

/// The reason behind an error of a stream: the library's, if it is in there.
pub fn explained(error: io::Error) -> HandshakeError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Refused::ByPeer(alert_means(*alert)).into(),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Refused::NoTls.into(),
        Some(inner) => match objection(inner) {
            Some(reason) => Refused::Certificate(reason).into(),
            None => Refused::Tls(inner.to_string()).into(),
        },
        None => HandshakeError::Io(error),
    }
}

/// What is wrong with a certificate, if that is it.
pub fn objection(error: &Error) -> Option<String> {
    let certificate = match error {
        Error::NoCertificatesPresented => return Some("there is none: each node needs one".to_owned()),
        Error::InvalidCertificate(certificate) => certificate,
        _ => return None,
    };
    let reason = match certificate {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is signed by another CA: all nodes need the certificates of one CA in tls_ca"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it, or the CA's, has expired: renew it",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it, or the CA's, is not valid yet: compare the clocks of the two nodes"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage does not allow both serverAuth and clientAuth: a node is both"
        }
        other => return Some(Error::InvalidCertificate(other.clone()).to_string()),
    };
    Some(reason.to_owned())
}

fn alert_means(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "this node's certificate is signed by another CA: all nodes need the certificates of one CA in tls_ca".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "this node's certificate, or its CA's, has expired or is not valid yet by its clock".to_owned()
        }
        AlertDescription::CertificateRequired => "this node shows no certificate".to_owned(),
        AlertDescription::UnsupportedCertificate => {
            "this node's certificate does not allow both serverAuth and clientAuth: a node is both".to_owned()
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown | AlertDescription::CertificateRevoked => {
            "this node's certificate is not accepted".to_owned()
        }
        AlertDescription::NoApplicationProtocol => "it is no node of this kind, or of another version".to_owned(),
        other => format!("it ended the TLS handshake ({other:?})"),
    }
}
