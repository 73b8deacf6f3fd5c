//! The server as a process of its own: for signals, and for what it logs and exports.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::net::TcpSocket;
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

/// Runs a command of the product with the settings of a site; what it printed, or why it failed.
pub fn run(site: &Site, settings: Vec<Setting>, arguments: &[&str]) -> Result<String, String> {
    let directory = TempDir::new().unwrap();
    let mut all = site.settings();
    all.extend(settings);
    std::fs::write(config_file(&directory), toml_text(all)).unwrap();
    let mut command = command(arguments);
    let ended = command
        .arg("--config")
        .arg(config_file(&directory))
        .output();
    let ended = ended.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if ended.status.success() {
        Ok(text(ended.stdout))
    } else {
        Err(text(ended.stderr))
    }
}

/// `quittance serve`, running. Killed when dropped.
pub struct ServerProcess {
    running: Running,
    pub address: SocketAddr,
    pub client: Client,
    /// How often it was started.
    starts: usize,
    time_zone: &'static str,
    directory: TempDir,
    ports: Ports,
}

/// The ports of a process, which stay its own while it is not running: bound, and never listening.
struct Ports {
    grpc: TcpSocket,
    http: TcpSocket,
}

impl Ports {
    fn reserve() -> Self {
        let socket = || {
            let socket = TcpSocket::new_v4().unwrap();
            // The server's listener comes beside it.
            socket.set_reuseaddr(true).unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            socket
        };
        Self {
            grpc: socket(),
            http: socket(),
        }
    }

    fn settings(&self) -> Vec<Setting> {
        let address = |socket: &TcpSocket| Value::from(socket.local_addr().unwrap().to_string());
        vec![
            ("server.grpc_listen", address(&self.grpc)),
            ("server.http_listen", address(&self.http)),
        ]
    }
}

impl ServerProcess {
    /// Starts a server on the site, and waits until it serves.
    pub async fn start(site: &Site, settings: Vec<Setting>) -> Self {
        Self::start_in("UTC", site, settings).await
    }

    /// Starts it on a machine in this time zone.
    pub async fn start_in(time_zone: &'static str, site: &Site, settings: Vec<Setting>) -> Self {
        let (directory, ports) = (TempDir::new().unwrap(), Ports::reserve());
        write_config(&directory, &ports, site, settings);
        let (running, address) = serve(&directory, 0, time_zone).await;
        let client = site.caller(address, TENANT, &TENANT_ROLES).await;
        Self {
            running,
            address,
            client,
            starts: 1,
            time_zone,
            directory,
            ports,
        }
    }

    /// Kills it with SIGKILL, wherever it is; returns when it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself, which whoever looks at its work will find out.
        let _ = self.running.0.kill();
        self.running.0.wait().unwrap();
    }

    /// Starts it again after its end, with the same settings at the same address, and waits until it serves.
    pub async fn start_again(&mut self) {
        let (running, address) = serve(&self.directory, self.starts, self.time_zone).await;
        assert_eq!(address, self.address);
        self.running = running;
        self.starts += 1;
        self.client = self.client.reconnected();
    }

    /// Ends it as an operator does, and starts it again at the same address with other settings of its own.
    pub async fn start_anew(&mut self, site: &Site, settings: Vec<Setting>) {
        self.terminate();
        let status = self.ended().await;
        assert!(status.success(), "{status}: {}", self.log());
        write_config(&self.directory, &self.ports, site, settings);
        self.start_again().await;
    }

    /// What it has logged so far, over all its starts.
    pub fn log(&self) -> String {
        let logs = (0..self.starts).map(|start| log_file(&self.directory, start));
        logs.map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    }

    /// Where health, readiness and metrics are served.
    pub fn http_address(&self) -> SocketAddr {
        self.ports.http.local_addr().unwrap()
    }

    /// The most memory that the process has ever used at once (`VmHWM` of proc(5)), in kB.
    pub fn peak_memory_kb(&self) -> u64 {
        let status = format!("/proc/{}/status", self.running.0.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let mut words = line.unwrap().split_whitespace();
        words.nth(1).unwrap().parse().unwrap()
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it where it is, with SIGSTOP: it runs on with [`Self::go_on`], and has noticed nothing. Returns once it does
    /// nothing any more: the signal alone only asks for that.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        // One that has ended would be waited for for ever. It is left to whoever asks for its status.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.pid()), stopped).unwrap();
        assert!(status.is_some_and(|it| it.stopped()), "it has ended");
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its number, as the system knows it.
    pub fn id(&self) -> u32 {
        self.running.0.id()
    }

    fn pid(&self) -> Pid {
        let pid = i32::try_from(self.running.0.id()).ok();
        pid.and_then(Pid::from_raw).unwrap()
    }

    /// Waits for its end; then its log is complete, and its spans are exported.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.running.0;
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

/// A process that does not outlive whoever started it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config_file(directory: &TempDir) -> PathBuf {
    directory.path().join("quittance.toml")
}

fn write_config(directory: &TempDir, ports: &Ports, site: &Site, settings: Vec<Setting>) {
    let mut all = site.settings();
    all.extend(ports.settings());
    all.extend(settings);
    std::fs::write(config_file(directory), toml_text(all)).unwrap();
}

fn log_file(directory: &TempDir, start: usize) -> PathBuf {
    directory.path().join(format!("log-{start}"))
}

/// Starts the server of a directory, and waits until it serves.
async fn serve(directory: &TempDir, start: usize, time_zone: &str) -> (Running, SocketAddr) {
    let log_file = log_file(directory, start);
    let child = command(&["serve", "--config"])
        .arg(config_file(directory))
        .env("TZ", time_zone)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log_file).unwrap())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let address = eventually("the process serves gRPC", async || {
        let log = std::fs::read_to_string(&log_file).unwrap();
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "the server ended with {ended:?}: {log}");
        logged_address(&log, "serving gRPC")
    })
    .await;
    (running, address)
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
