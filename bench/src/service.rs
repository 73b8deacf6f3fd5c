//! What is measured: a private PostgreSQL, the sandbox provider and the real server, each a process of
//! its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use quittance_embedded_postgres::{EmbeddedPostgres, Options as PostgresOptions};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

use crate::load::Target;
use crate::metrics::Http;
use crate::options::Options;
use crate::setup::{AUDIT_DIRECTORY, Setup, Works, random_key};

/// The database that the service writes.
pub const SERVICE_DATABASE: &str = "service";
/// The database of the server whose log is not signed (`--audit-cost`).
pub const UNSIGNED_DATABASE: &str = "unsigned";
/// The database that the baseline writes.
pub const BASELINE_DATABASE: &str = "baseline";
/// The log's name.
pub const LOG_NAME: &str = "quittance.bench/log";
const TENANT: &str = "bench";
/// How long a verification may take.
const VERIFY_PATIENCE: Duration = Duration::from_secs(24 * 3_600);
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
    let client = connect(&server.url("postgres")).await?;
    for database in [SERVICE_DATABASE, UNSIGNED_DATABASE, BASELINE_DATABASE] {
        client
            .batch_execute(&format!("create database {database}"))
            .await?;
    }
    Ok(server)
}

/// A connection to a database.
///
/// # Errors
/// Where it cannot be made.
pub async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with its client; an error shows at the client too.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// The `quittance` program and its configuration.
pub struct Quittance {
    program: PathBuf,
    /// The configuration.
    pub setup: Setup,
}

impl Quittance {
    /// Finds the program and configures it, for the database of this URL.
    ///
    /// # Errors
    /// Where the program was not built, or a file cannot be written.
    pub fn prepare(
        options: &Options,
        url: &str,
        sandbox: &SandboxProcess,
        works: Works,
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
        let setup = Setup::write(url, &sandbox.base_url, &sandbox.api_key, works)?;
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

    /// Makes an API key with a role.
    ///
    /// # Errors
    /// Where the program says so.
    pub async fn create_key(&self, role: &str) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(["keys", "create", "--tenant", TENANT, "--name", "load"]);
        command.args(["--role", role]);
        let output = succeed(command).await?;
        let key = output
            .split_ascii_whitespace()
            .find(|word| word.starts_with("qk_"));
        key.map(str::to_owned)
            .context("`quittance keys create` showed no key")
    }

    /// Has a server verify its whole log, as an operator asks for it; gives what the command printed.
    ///
    /// # Errors
    /// Where the log does not verify, or the command fails.
    pub async fn verify_log(&self, target: &Target) -> anyhow::Result<String> {
        let ca = self.setup.file("cert.pem");
        let mut command = self.command();
        command.args(["audit", "verify", "--address", &target.url]);
        command.arg("--ca-file").arg(ca);
        command.env("QUITTANCE_API_KEY", &target.api_key);
        succeed_within(command, VERIFY_PATIENCE).await
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

async fn succeed(command: Command) -> anyhow::Result<String> {
    succeed_within(command, START_PATIENCE).await
}

async fn succeed_within(mut command: Command, patience: Duration) -> anyhow::Result<String> {
    let output = tokio::time::timeout(patience, command.output()).await;
    let output = output
        .context("`quittance` does not end")?
        .context("start `quittance`")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
