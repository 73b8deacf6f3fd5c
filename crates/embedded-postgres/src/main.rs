//! `embedded-postgres run -- COMMAND`: runs a command beside a private PostgreSQL, so that all test
//! binaries of one run share one server.
#![allow(clippy::doc_markdown, reason = "PostgreSQL is a name, not code")]

use std::env;
use std::ffi::OsString;
use std::io::{IsTerminal, Write, stderr, stdin};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand};
use quittance_embedded_postgres::{EmbeddedPostgres, Options};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Where the URL of the database is handed over; if it is set already, no server is started.
const DATABASE_URL: &str = "DATABASE_URL";
/// What a shell would answer for a command that it cannot start.
const CANNOT_RUN: u8 = 126;

#[derive(Parser)]
#[command(about = "A private PostgreSQL for development and tests", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs a command with `DATABASE_URL` set to a private server, which stops with the command.
    /// Where `DATABASE_URL` is set already, the command runs against that, and nothing is started.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Keep the data in this directory (new, empty, or used before); default: throw it away.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Listen on 127.0.0.1 too, and hand over that address.
    #[arg(long)]
    tcp: bool,
    /// A setting of postgresql.conf, as NAME=VALUE; may be given several times.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE expected")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn main() -> ExitCode {
    let Task::Run(run) = Cli::parse().command;
    match execute(run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            drop(writeln!(stderr(), "embedded-postgres: {error:#}"));
            ExitCode::from(CANNOT_RUN)
        }
    }
}

fn execute(run: Run) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if env::var_os(DATABASE_URL).is_some_and(|url| !url.is_empty()) {
        return runtime.block_on(supervise(&run.command, None));
    }
    let options = Options {
        data_dir: run.data_dir,
        tcp: run.tcp,
        settings: run.settings,
    };
    let server = EmbeddedPostgres::start(options)?;
    let url = server
        .tcp_url("postgres")
        .unwrap_or_else(|| server.url("postgres"));
    let code = runtime.block_on(supervise(&run.command, Some(&url)))?;
    server.stop()?;
    Ok(code)
}

/// Runs the command, passes signals on, and returns its exit code (128 + N after signal N).
async fn supervise(command: &[OsString], url: Option<&str>) -> anyhow::Result<u8> {
    let (program, arguments) = command.split_first().context("no command")?;
    // In a terminal the command stays in our process group: it may read, and Ctrl-C reaches it.
    let terminal = stdin().is_terminal();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(url) = url {
        command.env(DATABASE_URL, url);
    }
    if !terminal {
        command.process_group(0);
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let status = loop {
        let forward = tokio::select! {
            status = child.wait() => break status?,
            _ = interrupted.recv() => Signal::INT,
            _ = terminated.recv() => Signal::TERM,
            _ = hung_up.recv() => Signal::HUP,
        };
        pass_on(forward, &child, terminal);
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(u8::try_from(code)?),
        (None, Some(signal)) => Ok(u8::try_from(128 + signal)?),
        (None, None) => Err(anyhow!("the command ended with {status}")),
    }
}

/// Outside a terminal, to the command and all that it started; it may just have ended.
fn pass_on(signal: Signal, child: &Child, terminal: bool) {
    let id = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    let Some(id) = id else { return };
    if !terminal {
        let _ = kill_process_group(id, signal);
    } else if signal != Signal::INT {
        let _ = kill_process(id, signal);
    }
}
