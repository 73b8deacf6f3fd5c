//! The command line.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use quittance_telemetry::{Telemetry, TelemetryConfig};
use toml::Value;

use crate::auth::Role;
use crate::commands;
use crate::config::{self, Settings, Sources};
use crate::dev::DevOptions;

/// A payment service over gRPC: authorize, capture, void and refund, with every change on record.
#[derive(Debug, Parser)]
#[command(name = "quittance", version, propagate_version = true)]
struct Cli {
    /// Configuration file (TOML); config.default.toml documents every setting.
    #[arg(long, env = "QUITTANCE_CONFIG", global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gRPC and HTTP, as configured.
    Serve,
    /// Serve for development: brings its own PostgreSQL, certificate, sandbox provider and API key.
    Dev {
        /// Where everything is kept between runs.
        #[arg(
            long,
            env = "QUITTANCE_DATA_DIR",
            default_value = crate::dev::DEFAULT_DATA_DIR,
            value_name = "DIR"
        )]
        data_dir: PathBuf,
    },
    /// Bring the database's schema up to date. The login must own the database.
    Migrate,
    /// Manage API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show what the service does, on a throw-away server.
    Demo,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make an API key, and show it once.
    Create(CreateKey),
    /// List API keys, without their secrets.
    List {
        /// Of this tenant only.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Revoke an API key. It works on for auth.cache_ttl_ms at most.
    Revoke {
        /// The key's id, as `keys list` shows it.
        key_id: String,
    },
}

/// What a new API key is for.
#[derive(Debug, Args)]
pub struct CreateKey {
    /// The tenant; made if it does not exist.
    #[arg(long)]
    pub tenant: String,
    /// What the key is for, such as the name of the program that uses it.
    #[arg(long)]
    pub name: String,
    /// What it may do; may be given several times. See docs/roles.md.
    #[arg(long = "role", required = true, value_name = "ROLE")]
    pub roles: Vec<Role>,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "quittance: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, without those that its own text holds already.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let mut sources = Sources::of_process(cli.config);
    sources.command = log_defaults(&cli.command);
    let settings = Settings::gather(&sources)?;
    let telemetry = quittance_telemetry::init(&TelemetryConfig {
        log_colour: std::io::stderr().is_terminal(),
        ..config::telemetry(&settings)?
    })?;
    log_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(dispatch(cli.command, sources, settings, &telemetry));
    drop(runtime);
    // Spans of the last calls are still to be exported; losing them is no failure of the command.
    if let Err(error) = telemetry.shutdown() {
        let _ = writeln!(std::io::stderr(), "quittance: {error}");
    }
    result
}

/// Logs where a panic was, without its message: that may hold what no log may show.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(error.message = place, "a defect: the code panicked");
    }));
}

async fn dispatch(
    command: Command,
    sources: Sources,
    settings: Settings,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    match command {
        Command::Serve => commands::serve(&settings, telemetry).await,
        Command::Dev { data_dir } => {
            commands::dev(
                DevOptions {
                    data_dir: Some(data_dir),
                    sources,
                },
                telemetry,
            )
            .await
        }
        Command::Migrate => commands::migrate(&settings).await,
        Command::Keys(KeysCommand::Create(wanted)) => {
            commands::keys::create(&settings, telemetry, &wanted).await
        }
        Command::Keys(KeysCommand::List { tenant }) => {
            commands::keys::list(&settings, telemetry, tenant.as_deref()).await
        }
        Command::Keys(KeysCommand::Revoke { key_id }) => {
            commands::keys::revoke(&settings, telemetry, &key_id).await
        }
        Command::Demo => crate::demo::run(sources, telemetry).await,
    }
}

/// Logs are for machines where a service runs, and for people elsewhere. What commands print is
/// their answer: logs then only say what went wrong.
fn log_defaults(command: &Command) -> Vec<(&'static str, Value)> {
    let (format, filter) = match command {
        Command::Serve => ("json", "info"),
        Command::Dev { .. } => ("readable", "info"),
        Command::Migrate | Command::Keys(_) => ("readable", "warn"),
        Command::Demo => ("readable", "error"),
    };
    vec![
        ("telemetry.log_format", Value::String(format.to_owned())),
        ("telemetry.log_filter", Value::String(filter.to_owned())),
    ]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("port taken").context("cannot listen: port taken");
        assert_eq!(with_causes(&error), "cannot listen: port taken");
        assert_eq!(
            with_causes(&error.context("no start")),
            "no start: cannot listen: port taken"
        );
    }

    #[test]
    fn roles_are_checked_while_parsing() {
        let create = |role| {
            let words = [
                "quittance",
                "keys",
                "create",
                "--tenant",
                "t",
                "--name",
                "n",
                "--role",
                role,
            ];
            Cli::try_parse_from(words)
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(create("payments.read"), Ok(()));
        assert!(
            create("root")
                .unwrap_err()
                .contains("payments.write, payments.refund")
        );
    }
}
