//! The server's configuration, with its certificate and keys.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::load::Target;
use crate::metrics::Http;

/// The name that the server's certificate is for.
const HOST: &str = "localhost";
/// Keys of the log that is signed meanwhile, and what was signed last.
pub const AUDIT_DIRECTORY: &str = "audit";
/// The id of the key that the service encrypts and authenticates with.
pub const KEY_ID: &str = "bench";
const CONFIG_FILE: &str = "quittance.toml";
/// The usual time between two verifications that a server makes by itself.
const DAY_SECONDS: u32 = 86_400;

/// What a server does besides what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Works {
    /// As by default.
    Signed,
    /// It does not sign its log.
    Unsigned,
    /// It neither recovers payments nor verifies the log unasked.
    Idle,
}

/// The server's configuration, with a fresh certificate and keys, in a directory that is removed at the
/// end.
pub struct Setup {
    directory: TempDir,
    master_key: [u8; 32],
    ca_pem: String,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Setup {
    /// Writes it, for a server on the database of this URL.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(
        url: &str,
        sandbox_url: &str,
        sandbox_key: &str,
        works: Works,
    ) -> anyhow::Result<Self> {
        // For this user only.
        let directory = tempfile::Builder::new()
            .prefix("quittance-bench-")
            .tempdir()?;
        let pair = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&pair)?;
        let (grpc, http) = (free_address()?, free_address()?);
        let path = |name: &str| directory.path().join(name);
        let master_key = rand::random::<[u8; 32]>();
        fs::write(path("cert.pem"), certificate.pem())?;
        fs::write(path("key.pem"), pair.serialize_pem())?;
        let config = serde_json::json!({
            "server": {
                "grpc_listen": grpc, "http_listen": http,
                "tls": { "certificate_file": path("cert.pem"), "key_file": path("key.pem") },
            },
            "database": { "url": url },
            "secrets": { "keys": [format!("{KEY_ID}:{}", STANDARD.encode(master_key))] },
            "recovery": { "enabled": works != Works::Idle },
            "providers": { "accounts": [{
                "name": "sandbox", "kind": "sandbox", "base_url": sandbox_url,
                "api_key": sandbox_key, "allow_plaintext": true,
            }] },
            "audit": {
                "enabled": works != Works::Unsigned,
                "verify_interval_seconds": if works == Works::Idle { 0 } else { DAY_SECONDS },
                "log_key_files": [path(AUDIT_DIRECTORY).join("log.key")],
                "receipt_key_file": path(AUDIT_DIRECTORY).join("receipt.key"),
                "state_directory": path(AUDIT_DIRECTORY).join("state"),
            },
        });
        fs::write(path(CONFIG_FILE), toml::to_string(&config)?)?;
        Ok(Self {
            ca_pem: certificate.pem(),
            directory,
            master_key,
            grpc,
            http,
        })
    }

    /// What the service encrypts and authenticates with, as [`KEY_ID`].
    pub const fn master_key(&self) -> [u8; 32] {
        self.master_key
    }

    /// A file in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.file(CONFIG_FILE)
    }

    /// Where the server that has this configuration takes payments.
    pub fn target(&self, api_key: String) -> Target {
        let url = format!("https://{HOST}:{}", self.grpc.port());
        Target {
            url,
            ca_pem: self.ca_pem.clone(),
            api_key,
        }
    }

    pub(crate) fn http(&self) -> anyhow::Result<Http> {
        Http::new(format!("https://{HOST}:{}", self.http.port()), &self.ca_pem)
    }
}

/// 32 random bytes in base64.
pub(crate) fn random_key() -> String {
    STANDARD.encode(rand::random::<[u8; 32]>())
}

/// An address that is free now. Whoever takes it first keeps the server from starting, which then says so.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
