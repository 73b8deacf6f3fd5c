//! One certificate authority and one server certificate for the whole test run.

use std::path::PathBuf;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// Files of the server, and the authority that clients trust.
pub struct Pki {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    pub ca_file: PathBuf,
    pub ca_pem: String,
    _directory: TempDir,
}

/// The name in the server's certificate.
pub const SERVER_NAME: &str = "localhost";

pub fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(make)
}

fn make() -> Pki {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    // Another name than the server's: equal names mean "self-signed" to OpenSSL.
    ca.distinguished_name
        .push(DnType::CommonName, "Quittance end-to-end tests");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let names = vec![SERVER_NAME.to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let directory = TempDir::new().unwrap();
    let file = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let ca_pem = ca_certificate.pem();
    Pki {
        certificate_file: file("server.pem", &certificate.pem()),
        key_file: file("server.key", &key.serialize_pem()),
        ca_file: file("ca.pem", &ca_pem),
        ca_pem,
        _directory: directory,
    }
}
