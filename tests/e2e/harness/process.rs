//! The server as a process of its own: for signals, and for what it logs and exports.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use toml::{Table, Value};

use super::site::{Setting, TENANT, TENANT_ROLES};
use super::{Client, Site, client, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_quittance-under-test");

/// A command of the product, with nothing of the test's environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_clear();
    for kept in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

/// `quittance serve`, running. Killed when dropped.
pub struct ServerProcess {
    child: Child,
    pub address: SocketAddr,
    pub client: Client,
    log_file: PathBuf,
    _directory: TempDir,
}

impl ServerProcess {
    /// Starts a server on the site, and waits until it serves.
    pub async fn start(site: &Site, settings: Vec<Setting>) -> Self {
        let directory = TempDir::new().unwrap();
        let (config_file, log_file) = (
            directory.path().join("quittance.toml"),
            directory.path().join("log"),
        );
        let mut all = site.settings();
        all.extend(settings);
        std::fs::write(&config_file, toml_text(all)).unwrap();
        let mut child = command(&["serve", "--config"])
            .arg(&config_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log_file).unwrap())
            .spawn()
            .unwrap();
        let address = eventually("the process serves gRPC", async || {
            let log = std::fs::read_to_string(&log_file).unwrap();
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended with {ended:?}: {log}");
            logged_address(&log, "serving gRPC")
        })
        .await;
        let client = site.caller(address, TENANT, &TENANT_ROLES).await;
        Self {
            child,
            address,
            client,
            log_file,
            _directory: directory,
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap()
    }

    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for its end; then its log is complete, and its spans are exported.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the process ends", async || child.try_wait().unwrap()).await
    }

    /// Ends it, and hands its log over.
    pub async fn stop(mut self) -> String {
        self.terminate();
        let status = self.ended().await;
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        log
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn logged_address(log: &str, message: &str) -> Option<SocketAddr> {
    let line = log
        .lines()
        .find(|line| line.contains(message) && line.ends_with('}'))?;
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let place = line
        .get("address")
        .or_else(|| line.get("fields")?.get("address"));
    Some(client::address(
        place
            .unwrap_or_else(|| panic!("no address in {line}"))
            .as_str()
            .unwrap(),
    ))
}

fn toml_text(settings: Vec<Setting>) -> String {
    let mut root = Table::new();
    for (path, value) in settings {
        let (sections, key) = path.rsplit_once('.').unwrap();
        let mut table = &mut root;
        for section in sections.split('.') {
            let inner = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            table = inner.as_table_mut().unwrap();
        }
        table.insert(key.to_owned(), value);
    }
    toml::to_string(&root).unwrap()
}
