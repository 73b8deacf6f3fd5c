//! What is measured: a private PostgreSQL, the sandbox provider and the real server, each a process of
//! its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quittance_embedded_postgres::{EmbeddedPostgres, Options as PostgresOptions};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

use crate::load::Target;
use crate::metrics::Http;
use crate::options::Options;

/// The database that the service writes.
pub const SERVICE_DATABASE: &str = "service";
/// The database of the server whose log is not signed (`--audit-cost`).
pub const UNSIGNED_DATABASE: &str = "unsigned";
/// The database that the baseline writes.
pub const BASELINE_DATABASE: &str = "baseline";
/// The name that the server's certificate is for.
const HOST: &str = "localhost";
/// Keys of the log that is signed meanwhile, and what was signed last.
pub const AUDIT_DIRECTORY: &str = "audit";
/// The log's name.
pub const LOG_NAME: &str = "quittance.bench/log";
const TENANT: &str = "bench";
const CONFIG_FILE: &str = "quittance.toml";
const SANDBOX_KEY_VARIABLE: &str = "QUITTANCE_BENCH_SANDBOX_KEY";
/// How long a part may take to start.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the server may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// The sandbox provider, running. Stops when it is dropped.
pub struct SandboxProcess {
    child: Child,
    /// Its URL.
    pub base_url: String,
    api_key: String,
}

impl SandboxProcess {
    /// Starts this program once more, as the sandbox.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let api_key = random_key();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["sandbox", "--api-key-variable", SANDBOX_KEY_VARIABLE])
            .env(SANDBOX_KEY_VARIABLE, &api_key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("start the sandbox")?;
        let mut lines =
            BufReader::new(child.stdout.take().context("the sandbox's output")?).lines();
        let first = tokio::time::timeout(START_PATIENCE, lines.next_line()).await;
        let base_url = first.context("the sandbox does not start")??;
        Ok(Self {
            child,
            base_url: base_url.context("the sandbox did not start")?,
            api_key,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

/// The server, running. Killed when it is dropped.
pub struct ServerProcess {
    child: Child,
    /// Its HTTP side.
    pub http: Http,
    /// Where and as whom payments are made.
    pub target: Target,
}

impl ServerProcess {
    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to stop, and waits for it.
    ///
    /// # Errors
    /// Where it does not end by itself, or ends with a failure.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await;
        let status = status.context("the server does not stop")??;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

/// Starts a server with default durability, and makes the databases in it.
///
/// # Errors
/// Where it cannot be started; says what to do.
pub async fn start_postgres(data_dir: Option<PathBuf>) -> anyhow::Result<EmbeddedPostgres> {
    let options = PostgresOptions {
        data_dir,
        ..PostgresOptions::default()
    };
    let server = EmbeddedPostgres::start_async(options).await?;
    let client = connect(&server, "postgres").await?;
    for database in [SERVICE_DATABASE, UNSIGNED_DATABASE, BASELINE_DATABASE] {
        client
            .batch_execute(&format!("create database {database}"))
            .await?;
    }
    Ok(server)
}

/// A connection to a database of the server, as its superuser.
///
/// # Errors
/// Where it cannot be made.
pub async fn connect(server: &EmbeddedPostgres, database: &str) -> anyhow::Result<Client> {
    connect_to(&server.url(database)).await
}

/// A connection to a database by its URL.
///
/// # Errors
/// Where it cannot be made.
pub async fn connect_to(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with its client; an error shows at the client too.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// What a server writes to.
#[derive(Debug, Clone)]
pub struct ServiceDatabase {
    /// Its URL, the superuser's.
    pub url: String,
    /// Whether the log in it is signed.
    pub signed: bool,
}

impl ServiceDatabase {
    /// The one whose log is signed, or the one whose log is not.
    pub fn of(postgres: &EmbeddedPostgres, signed: bool) -> Self {
        let name = if signed {
            SERVICE_DATABASE
        } else {
            UNSIGNED_DATABASE
        };
        Self {
            url: postgres.url(name),
            signed,
        }
    }
}

/// The server's configuration, with a fresh certificate and keys, in a directory that is removed at the
/// end.
pub struct Setup {
    directory: TempDir,
    ca_pem: String,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Setup {
    /// Writes it, for a server on one of the databases.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(
        database: &ServiceDatabase,
        sandbox_url: &str,
        sandbox_key: &str,
    ) -> anyhow::Result<Self> {
        // For this user only.
        let directory = tempfile::Builder::new()
            .prefix("quittance-bench-")
            .tempdir()?;
        let pair = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&pair)?;
        let (grpc, http) = (free_address()?, free_address()?);
        let path = |name: &str| directory.path().join(name);
        fs::write(path("cert.pem"), certificate.pem())?;
        fs::write(path("key.pem"), pair.serialize_pem())?;
        let config = serde_json::json!({
            "server": {
                "grpc_listen": grpc, "http_listen": http,
                "tls": { "certificate_file": path("cert.pem"), "key_file": path("key.pem") },
            },
            "database": { "url": database.url },
            "secrets": { "keys": [format!("bench:{}", random_key())] },
            "providers": { "accounts": [{
                "name": "sandbox", "kind": "sandbox", "base_url": sandbox_url,
                "api_key": sandbox_key, "allow_plaintext": true,
            }] },
            "audit": {
                "enabled": database.signed,
                "log_key_files": [path(AUDIT_DIRECTORY).join("log.key")],
                "receipt_key_file": path(AUDIT_DIRECTORY).join("receipt.key"),
                "state_directory": path(AUDIT_DIRECTORY).join("state"),
            },
        });
        fs::write(path(CONFIG_FILE), toml::to_string(&config)?)?;
        Ok(Self {
            ca_pem: certificate.pem(),
            directory,
            grpc,
            http,
        })
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

    fn http(&self) -> anyhow::Result<Http> {
        Http::new(format!("https://{HOST}:{}", self.http.port()), &self.ca_pem)
    }
}

/// The `quittance` program and its configuration.
pub struct Quittance {
    program: PathBuf,
    /// The configuration.
    pub setup: Setup,
}

impl Quittance {
    /// Finds the program and configures it.
    ///
    /// # Errors
    /// Where the program was not built, or a file cannot be written.
    pub fn prepare(
        options: &Options,
        database: &ServiceDatabase,
        sandbox: &SandboxProcess,
    ) -> anyhow::Result<Self> {
        let program = match &options.server {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("quittance"),
        };
        if !program.exists() {
            bail!(
                "{} is missing; `make bench` builds it, as does `cargo build --release --package \
                 quittance-server`",
                program.display()
            );
        }
        let setup = Setup::write(database, &sandbox.base_url, &sandbox.api_key)?;
        Ok(Self { program, setup })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let ours = name.to_str().is_some_and(|name| {
                name.starts_with("QUITTANCE_")
                    || name.starts_with("OTEL_")
                    || name == "DATABASE_URL"
            });
            if ours {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(self.setup.config_file());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Brings a database of the server to the service's schema.
    ///
    /// # Errors
    /// Where the program says so.
    pub async fn migrate(&self, url: &str) -> anyhow::Result<()> {
        let mut command = self.command();
        command.arg("migrate").env("DATABASE_URL", url);
        succeed(command).await.map(drop)
    }

    /// Makes the keys and the signer's state of the log, after the schema.
    ///
    /// # Errors
    /// Where the program says so.
    pub async fn prepare_log(&self) -> anyhow::Result<()> {
        let mut keys = self.command();
        keys.args([
            "audit",
            "keys",
            "generate",
            "--name",
            LOG_NAME,
            "--directory",
        ]);
        keys.arg(self.setup.file(AUDIT_DIRECTORY));
        succeed(keys).await?;
        let mut signer = self.command();
        signer.args(["audit", "signer", "init"]);
        succeed(signer).await.map(drop)
    }

    /// Makes an API key that may make payments.
    ///
    /// # Errors
    /// Where the program says so.
    pub async fn create_key(&self) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(["keys", "create", "--tenant", TENANT, "--name", "load"]);
        command.args(["--role", "payments.write"]);
        let output = succeed(command).await?;
        let key = output
            .split_ascii_whitespace()
            .find(|word| word.starts_with("qk_"));
        key.map(str::to_owned)
            .context("`quittance keys create` showed no key")
    }

    /// Starts the server, and returns when it is ready.
    ///
    /// # Errors
    /// Where it ends instead, or is not ready in time.
    pub async fn serve(
        &self,
        api_key: String,
        log: Option<&Path>,
    ) -> anyhow::Result<ServerProcess> {
        let mut command = self.command();
        let log = match log {
            Some(path) => Stdio::from(File::create(path).context(path.display().to_string())?),
            // Written all the same: it is part of what the service does.
            None => Stdio::null(),
        };
        command.arg("serve").stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().context("start the server")?;
        let http = self.setup.http()?;
        let deadline = Instant::now() + START_PATIENCE;
        while !http.is_ready().await {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}; --server-log FILE keeps what it says");
            }
            ensure!(
                Instant::now() < deadline,
                "the server is not ready; see --server-log FILE"
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(ServerProcess {
            child,
            http,
            target: self.setup.target(api_key),
        })
    }
}

async fn succeed(mut command: Command) -> anyhow::Result<String> {
    let output = tokio::time::timeout(START_PATIENCE, command.output()).await;
    let output = output
        .context("`quittance` does not end")?
        .context("start `quittance`")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// 32 random bytes in base64.
fn random_key() -> String {
    STANDARD.encode(rand::random::<[u8; 32]>())
}

/// An address that is free now. Whoever takes it first keeps the server from starting, which then says so.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
