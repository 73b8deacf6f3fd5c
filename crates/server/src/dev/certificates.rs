//! A certificate authority of its own for development, and the certificate that it issues.

use chrono::{Datelike as _, NaiveDate, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};

use super::data_dir::{DataDir, DataDirError};
use crate::config::TlsFiles;

/// The certificate authority's certificate: what clients trust.
pub const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca-key.pem";
const CERTIFICATE_FILE: &str = "server.pem";
const KEY_FILE: &str = "server-key.pem";
/// How long a server certificate is valid, in days; a new one is issued at every start.
const VALID_DAYS: i64 = 365;
/// The names that a development server is reached by.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Issues a fresh server certificate, from the authority that is kept in the data directory.
///
/// # Errors
/// [`DataDirError`] where files cannot be read or written, or the kept key is not one.
pub fn issue(directory: &DataDir) -> Result<TlsFiles, DataDirError> {
    let broken = |error: rcgen::Error| directory.broken(CA_KEY_FILE, &error);
    let parameters = authority();
    let kept = directory.read(CA_KEY_FILE)?;
    let has_certificate = kept.is_some() && directory.read(CA_FILE)?.is_some();
    let ca_key = if let Some(pem) = kept {
        KeyPair::from_pem(&pem).map_err(broken)?
    } else {
        let key = KeyPair::generate().map_err(broken)?;
        directory.write_secret(CA_KEY_FILE, &key.serialize_pem())?;
        key
    };
    if !has_certificate {
        let certificate = parameters.self_signed(&ca_key).map_err(broken)?;
        directory.write(CA_FILE, &certificate.pem())?;
    }
    let issuer = Issuer::new(parameters, ca_key);
    let key = KeyPair::generate().map_err(broken)?;
    let certificate = server()
        .and_then(|parameters| parameters.signed_by(&key, &issuer))
        .map_err(broken)?;
    directory.write(CERTIFICATE_FILE, &certificate.pem())?;
    directory.write_secret(KEY_FILE, &key.serialize_pem())?;
    Ok(TlsFiles {
        certificate: directory.path(CERTIFICATE_FILE),
        key: directory.path(KEY_FILE),
    })
}

/// Always the same, so that the kept certificate and a later issuer agree. Whoever trusts it trusts
/// it for no other name: its key lies in a directory of a developer.
fn authority() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "Quittance development CA");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.name_constraints = Some(NameConstraints {
        // Names only: BoringSSL, and so every gRPC client built on it, refuses constraints of addresses.
        permitted_subtrees: vec![GeneralSubtree::DnsName("localhost".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    parameters.not_before = date_time_ymd(2025, 1, 1);
    parameters.not_after = date_time_ymd(2045, 1, 1);
    parameters
}

fn server() -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(NAMES.map(str::to_owned))?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, "Quittance development server");
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = Utc::now().date_naive();
    let (from, to) = (
        today - TimeDelta::days(1),
        today + TimeDelta::days(VALID_DAYS),
    );
    parameters.not_before = date_time_ymd(from.year(), month(from), day(from));
    parameters.not_after = date_time_ymd(to.year(), month(to), day(to));
    Ok(parameters)
}

/// 1 to 12.
fn month(date: NaiveDate) -> u8 {
    u8::try_from(date.month()).unwrap_or(1)
}

/// 1 to 31.
fn day(date: NaiveDate) -> u8 {
    u8::try_from(date.day()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_kept_and_made_anew_when_its_key_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(parent.path()).unwrap();
        let issued = || {
            issue(&directory).unwrap();
            let read = |name| directory.read(name).unwrap().unwrap();
            (read(CA_FILE), read(CERTIFICATE_FILE))
        };
        let (first_ca, first) = issued();
        let (second_ca, second) = issued();
        assert_eq!(first_ca, second_ca);
        assert_ne!(first, second);
        std::fs::remove_file(directory.path(CA_KEY_FILE)).unwrap();
        assert_ne!(
            issued().0,
            first_ca,
            "a certificate without its key is of no use"
        );
        directory.write_secret(CA_KEY_FILE, "no key").unwrap();
        assert!(
            issue(&directory)
                .unwrap_err()
                .to_string()
                .contains("remove it to start afresh")
        );
    }
}
