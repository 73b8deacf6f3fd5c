//! TLS of both listeners: rustls with ring, TLS 1.2 and 1.3.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Which protocol a listener speaks inside TLS (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1.1.
    Http1,
}

impl Alpn {
    const fn id(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

/// Why the certificate cannot be used. Names files, never what is in them.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("{setting}: cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate file has no certificate in it.
    #[error("server.tls.certificate_file: {} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key do not go together, or are of an unsupported kind.
    #[error("server.tls: the certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Reads certificate and key, and offers `alpn`.
///
/// # Errors
/// [`TlsError`] names the file that cannot be used.
pub fn acceptor(files: &TlsFiles, alpn: Alpn) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unreadable("server.tls.key_file", &files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.id().to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("server.tls.certificate_file", path, &error))?;
    if chain.is_empty() {
        Err(TlsError::NoCertificate(path.to_owned()))
    } else {
        Ok(chain)
    }
}

fn unreadable(
    setting: &'static str,
    path: &Path,
    error: &rustls_pki_types::pem::Error,
) -> TlsError {
    TlsError::Unreadable {
        setting,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
