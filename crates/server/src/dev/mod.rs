//! Development mode: everything that a server needs, made on the spot and kept in one directory.
//!
//! What is configured is used instead: a database URL, a certificate, master keys or provider accounts
//! from the file or the environment win over what would be made.

mod banner;
mod certificates;
mod data_dir;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quittance_embedded_postgres::EmbeddedPostgres;
use quittance_evidence::note::VerifierKey;
use quittance_sandbox::{Sandbox, SandboxConfig, SandboxHandle, WebhookConfig};
use quittance_telemetry::Telemetry;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use thiserror::Error;
use toml::{Table, Value};
use zeroize::Zeroizing;

pub use certificates::{CA_FILE, issue as issue_certificate};
pub use data_dir::{DataDir, DataDirError};

use crate::auth::{ApiKey, Role};
use crate::config::{Config, ConfigError, Settings, Sources};
use crate::database::{self, Keys};
use crate::server::{RunningServer, Server, StartError};
use crate::signing::{self, SigningError};

/// Where development mode keeps things unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "./.quittance";
/// The tenant of the development key.
pub const TENANT: &str = "demo";
/// The account at the sandbox.
pub const SANDBOX_ACCOUNT: &str = "sandbox";
/// The development key's roles: everything within its tenant.
const ROLES: [Role; 5] = [
    Role::PaymentsWrite,
    Role::PaymentsRefund,
    Role::PaymentsRead,
    Role::AuditRead,
    Role::Admin,
];
/// The name of the development log.
const LOG_NAME: &str = "quittance.dev/log";
/// Keys and state of the development log.
const SIGNING_DIRECTORY: &str = "audit";
const KEY_NAME: &str = "development";
const API_KEY_FILE: &str = "api-key";
const MASTER_KEYS_FILE: &str = "master-keys";
const SANDBOX_KEY_FILE: &str = "sandbox-api-key";
const SANDBOX_BOOKS_FILE: &str = "sandbox-books.jsonl";
const POSTGRES_DIRECTORY: &str = "postgres";
/// Bytes of the secret under which the sandbox signs its webhooks: made anew at each start.
const WEBHOOK_SECRET_BYTES: usize = 32;
/// The database of the private PostgreSQL that is used.
const DATABASE: &str = "postgres";

/// What a development server is started with.
#[derive(Debug)]
pub struct DevOptions {
    /// Where everything is kept; `None`: nowhere, a throw-away server.
    pub data_dir: Option<PathBuf>,
    /// Settings, which win over what would be made.
    pub sources: Sources,
}

/// Why development mode did not start.
#[derive(Debug, Error)]
pub enum DevError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The private PostgreSQL did not start.
    #[error(transparent)]
    Postgres(#[from] quittance_embedded_postgres::Error),
    /// The sandbox did not start.
    #[error("the sandbox provider did not start: {0}")]
    Sandbox(std::io::Error),
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database refused the migrations, or is out of reach.
    #[error(transparent)]
    Store(#[from] quittance_store::StoreStartError),
    /// The API key could not be made.
    #[error("the API key could not be made: {0}")]
    ApiKey(#[from] database::KeysError),
    /// The keys that sign the audit log could not be made.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The operating system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] rand::rand_core::OsError),
}

/// A running development server and what was made for it.
pub struct DevServer {
    server: RunningServer,
    sandbox: Option<SandboxHandle>,
    postgres: Option<EmbeddedPostgres>,
    directory: DataDir,
    is_plaintext: bool,
    api_key: Zeroizing<String>,
    /// Removed when the server is dropped.
    _throw_away: Option<tempfile::TempDir>,
}

/// Sets a setting, as the command line would.
fn set(sources: &mut Sources, key: &'static str, value: &str) {
    sources.command.push((key, Value::String(value.to_owned())));
}

impl DevServer {
    /// Makes what is missing, brings the schema up to date, and starts.
    ///
    /// # Errors
    /// [`DevError`] says what is missing and what to do about it.
    pub async fn start(options: DevOptions, telemetry: &Telemetry) -> Result<Self, DevError> {
        let (directory, throw_away) = open(options.data_dir.as_deref())?;
        let mut sources = options.sources;
        let given = Settings::gather(&sources)?;
        let made = |key: &str| !given.is_given(key) && !given.is_given(&format!("{key}_file"));
        set(&mut sources, "server.reflection", "open");
        sources.command.extend(local_notifications());
        let is_plaintext = given.is_true("server.plaintext");
        let has_own_ca = !is_plaintext && !given.is_given("server.tls.certificate_file");
        if has_own_ca {
            let files = issue_certificate(&directory)?;
            set(
                &mut sources,
                "server.tls.certificate_file",
                &files.certificate.to_string_lossy(),
            );
            set(
                &mut sources,
                "server.tls.key_file",
                &files.key.to_string_lossy(),
            );
        }
        if made("secrets.keys") {
            let keys = Value::Array(vec![Value::String(master_key(&directory)?)]);
            sources.command.push(("secrets.keys", keys));
        }
        let mut sandbox = None;
        if !given.is_given("providers.accounts") {
            let webhook = webhook(&directory, &Settings::gather(&sources)?, has_own_ca)?;
            let is_kept = throw_away.is_none();
            let (handle, account) = start_sandbox(&directory, is_kept, webhook).await?;
            sources.command.push(("providers.accounts", account));
            sandbox = Some(handle);
        }
        let mut postgres = None;
        if made("database.url") {
            let started = start_postgres(&directory, throw_away.is_none()).await?;
            set(&mut sources, "database.url", &started.url(DATABASE));
            postgres = Some(started);
        }
        if made("audit.log_key_files") && given.is_true("audit.enabled") {
            let files = directory.path(SIGNING_DIRECTORY);
            sources.command.extend(signing::set_up(&files, LOG_NAME)?);
        }
        let config = Config::load(&sources)?;
        database::migrate(&config.database).await?;
        let keys = database::key_ring(&config.secrets).map_err(StartError::Keys)?;
        let server = Server::start_with(config, telemetry).await?;
        let api_key = api_key(&directory, &Keys::new(server.store().clone()), &keys).await?;
        Ok(Self {
            server,
            sandbox,
            postgres,
            directory,
            is_plaintext,
            api_key,
            _throw_away: throw_away,
        })
    }

    /// The server.
    pub fn server(&self) -> &RunningServer {
        &self.server
    }

    /// The API key.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The certificate authority that clients trust (PEM).
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path(CA_FILE)
    }

    /// Whether it is served without TLS.
    pub fn is_plaintext(&self) -> bool {
        self.is_plaintext
    }

    /// The keys with which anybody checks what the server signs of its log: of checkpoints, then of receipts.
    ///
    /// # Errors
    /// The key files of this directory cannot be read.
    pub fn log_keys(&self) -> Result<[VerifierKey; 2], SigningError> {
        signing::published(&self.directory.path(SIGNING_DIRECTORY))
    }

    /// The sandbox, unless provider accounts are configured.
    pub fn sandbox(&self) -> Option<&SandboxHandle> {
        self.sandbox.as_ref()
    }

    /// Stops everything, the server first.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
        if let Some(sandbox) = self.sandbox {
            sandbox.shutdown().await;
        }
        if let Some(postgres) = self.postgres {
            // Blocks while PostgreSQL writes its last checkpoint. Its failure is in the log.
            let stopped = tokio::task::spawn_blocking(move || postgres.stop()).await;
            if let Ok(Err(error)) = stopped {
                tracing::error!(error.message = %error, "PostgreSQL did not stop");
            }
        }
    }
}

/// Receivers of a developer are programs on this machine.
fn local_notifications() -> [(&'static str, Value); 2] {
    let loopback = ["127.0.0.0/8", "::1"].map(|network| Value::String(network.to_owned()));
    [
        (
            "notifications.allow_plaintext_loopback",
            Value::Boolean(true),
        ),
        (
            "notifications.allowed_networks",
            Value::Array(loopback.to_vec()),
        ),
    ]
}

fn open(data_dir: Option<&Path>) -> Result<(DataDir, Option<tempfile::TempDir>), DataDirError> {
    if let Some(path) = data_dir {
        return Ok((DataDir::open(path)?, None));
    }
    let made = tempfile::Builder::new()
        .prefix("quittance-")
        .tempdir()
        .map_err(|source| DataDirError::Io {
            path: std::env::temp_dir(),
            source,
        })?;
    Ok((DataDir::open(made.path())?, Some(made)))
}

/// The kept master key, or a new one.
fn master_key(directory: &DataDir) -> Result<String, DevError> {
    if let Some(kept) = directory.read(MASTER_KEYS_FILE)? {
        return Ok(kept.trim().to_owned());
    }
    let mut secret = Zeroizing::new([0_u8; 32]);
    OsRng.try_fill_bytes(secret.as_mut_slice())?;
    let key = format!("dev:{}", STANDARD.encode(secret.as_slice()));
    directory.write_secret(MASTER_KEYS_FILE, &key)?;
    Ok(key)
}

/// The kept key of the sandbox, or a new one.
fn sandbox_key(directory: &DataDir) -> Result<String, DevError> {
    if let Some(kept) = directory.read(SANDBOX_KEY_FILE)? {
        return Ok(kept.trim().to_owned());
    }
    let mut secret = [0_u8; 16];
    OsRng.try_fill_bytes(&mut secret)?;
    let key = format!("sandbox_{}", hex::encode(secret));
    directory.write_secret(SANDBOX_KEY_FILE, &key)?;
    Ok(key)
}

/// Where the sandbox posts its events: to this server, unless that takes any free port, which is known too late.
fn webhook(
    directory: &DataDir,
    settings: &Settings,
    has_own_ca: bool,
) -> Result<Option<WebhookConfig>, DevError> {
    let listen = settings.address("server.http_listen")?;
    if listen.port() == 0 {
        return Ok(None);
    }
    let scheme = if settings.is_true("server.plaintext") {
        "http"
    } else {
        "https"
    };
    let ca_pem = if has_own_ca {
        directory.read(CA_FILE)?.map(String::into_bytes)
    } else {
        None
    };
    let mut secret = Zeroizing::new([0_u8; WEBHOOK_SECRET_BYTES]);
    OsRng.try_fill_bytes(secret.as_mut_slice())?;
    Ok(Some(WebhookConfig {
        url: format!(
            "{scheme}://localhost:{}/webhooks/{SANDBOX_ACCOUNT}",
            listen.port()
        ),
        secret: format!("whsec_{}", STANDARD.encode(secret.as_slice())),
        ca_pem,
    }))
}

async fn start_sandbox(
    directory: &DataDir,
    is_kept: bool,
    webhook: Option<WebhookConfig>,
) -> Result<(SandboxHandle, Value), DevError> {
    let key = sandbox_key(directory)?;
    let mut config = SandboxConfig::new(key.clone());
    config.persist = is_kept.then(|| directory.path(SANDBOX_BOOKS_FILE));
    let secrets: Vec<_> = webhook
        .iter()
        .map(|webhook| webhook.secret.clone())
        .collect();
    config.webhook = webhook;
    let handle = Sandbox::start(config).await.map_err(DevError::Sandbox)?;
    let text = |text: &str| Value::String(text.to_owned());
    let account = Table::from_iter([
        ("name".to_owned(), text(SANDBOX_ACCOUNT)),
        ("kind".to_owned(), text("sandbox")),
        ("base_url".to_owned(), text(&handle.base_url())),
        ("api_key".to_owned(), text(&key)),
        ("webhook_secrets".to_owned(), Value::from(secrets)),
        ("allow_plaintext".to_owned(), Value::Boolean(true)),
    ]);
    Ok((handle, Value::Array(vec![Value::Table(account)])))
}

async fn start_postgres(
    directory: &DataDir,
    is_kept: bool,
) -> Result<EmbeddedPostgres, quittance_embedded_postgres::Error> {
    let data_dir = is_kept.then(|| directory.path(POSTGRES_DIRECTORY));
    let options = quittance_embedded_postgres::Options {
        data_dir,
        ..Default::default()
    };
    EmbeddedPostgres::start_async(options).await
}

/// The kept API key if the database still knows it, or a new one.
async fn api_key(
    directory: &DataDir,
    stored: &Keys,
    keys: &quittance_store::KeyRing,
) -> Result<Zeroizing<String>, DevError> {
    if let Some(kept) = directory.read(API_KEY_FILE)?
        && let Some(key) = ApiKey::parse(kept.trim())
        && stored.is_valid(&key, keys).await?
    {
        return Ok(key.reveal());
    }
    let key = stored
        .create(TENANT, KEY_NAME, ROLES.into_iter().collect(), keys)
        .await?;
    directory.write_secret(API_KEY_FILE, &key.reveal())?;
    Ok(key.reveal())
}
