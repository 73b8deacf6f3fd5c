//! The command line.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use quittance_telemetry::{LogFormat, Telemetry, TelemetryConfig};
use tokio::runtime::Runtime;
use toml::Value;

use crate::auth::Role;
use crate::commands;
use crate::commands::audit::site::AuditSiteCommand;
use crate::commands::audit::{AuditCommand, LogDiffers};
use crate::commands::endpoints::EndpointsCommand;
use crate::commands::evidence::EvidenceCommand;
use crate::commands::notifications::NotificationsCommand;
use crate::commands::payments::{CallFailed, PaymentsCommand};
use crate::commands::personal_data::PersonalDataCommand;
use crate::commands::reconcile::{BooksDiffer, ReconcileArgs};
use crate::commands::webhooks::WebhooksCommand;
use crate::commands::witness::WitnessCommand;
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
    #[command(flatten)]
    Site(SiteCommand),
    /// Look at payments, and decide what only a person can: as a client of a running server.
    #[command(subcommand)]
    Payments(PaymentsCommand),
    /// Verify the audit log, show what it says, and look after its keys and signer.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Manage where a tenant is told of its events: as a client of a running server.
    #[command(subcommand)]
    Endpoints(EndpointsCommand),
    /// Look at notifications, and send dead letters again: as a client of a running server.
    #[command(subcommand)]
    Notifications(NotificationsCommand),
    /// Erase what is stored about a customer: as a client of a running server.
    #[command(subcommand)]
    PersonalData(PersonalDataCommand),
    /// Look at what providers told by themselves, and have what was not applied tried again: as a client of a running
    /// server.
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Compare what a provider settled with our transactions: as a client of a running server.
    Reconcile(ReconcileArgs),
    /// Check evidence about a payment: offline, with nothing but the file and published keys.
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Run a witness, which cosigns the checkpoints of a log that provably grows.
    #[command(subcommand)]
    Witness(WitnessCommand),
}

/// What runs where the service is configured.
#[derive(Debug, Subcommand)]
enum SiteCommand {
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
    /// What of `audit` runs here: keys, signer.
    #[command(skip)]
    Audit(AuditSiteCommand),
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
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let failed = error
        .downcast_ref::<CallFailed>()
        .map(CallFailed::exit_code);
    let differs = error.is::<LogDiffers>().then_some(LogDiffers::EXIT_CODE);
    let found = error.is::<BooksDiffer>().then_some(BooksDiffer::EXIT_CODE);
    failed
        .or(differs)
        .or(found)
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The error and its causes, without those that its own text holds already.
pub(crate) fn with_causes(error: &anyhow::Error) -> String {
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
    match cli.command {
        Command::Site(command) => run_site(command, cli.config),
        // A client needs none of the service's configuration.
        Command::Payments(command) => runtime()?.block_on(commands::payments::run(command)),
        Command::Audit(AuditCommand::Site(command)) => {
            run_site(SiteCommand::Audit(command), cli.config)
        }
        Command::Audit(AuditCommand::Verify(wanted)) => {
            runtime()?.block_on(commands::audit::verify(&wanted))
        }
        Command::Audit(AuditCommand::Show(wanted)) => {
            runtime()?.block_on(commands::audit::show(&wanted))
        }
        Command::Audit(AuditCommand::Export(wanted)) => {
            runtime()?.block_on(commands::audit::export(&wanted))
        }
        Command::PersonalData(command) => {
            runtime()?.block_on(commands::personal_data::run(command))
        }
        Command::Endpoints(command) => runtime()?.block_on(commands::endpoints::run(command)),
        Command::Notifications(command) => {
            runtime()?.block_on(commands::notifications::run(command))
        }
        Command::Webhooks(command) => runtime()?.block_on(commands::webhooks::run(command)),
        Command::Reconcile(wanted) => runtime()?.block_on(commands::reconcile::run(wanted)),
        Command::Evidence(command) => commands::evidence::run(command),
        Command::Witness(command) => run_witness(command),
    }
}

/// A witness stands on its own: it has the logs of a service, and none of its configuration.
fn run_witness(command: WitnessCommand) -> anyhow::Result<()> {
    let telemetry = quittance_telemetry::init(&TelemetryConfig {
        log_format: LogFormat::Readable,
        log_colour: std::io::stderr().is_terminal(),
        ..TelemetryConfig::default()
    })?;
    log_panics();
    let result = runtime()?.block_on(commands::witness::run(command));
    if let Err(error) = telemetry.shutdown() {
        let _ = writeln!(std::io::stderr(), "quittance: {error}");
    }
    result
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

fn run_site(command: SiteCommand, config: Option<PathBuf>) -> anyhow::Result<()> {
    let mut sources = Sources::of_process(config);
    sources.command = log_defaults(&command);
    let settings = Settings::gather(&sources)?;
    let telemetry = quittance_telemetry::init(&TelemetryConfig {
        log_colour: std::io::stderr().is_terminal(),
        ..config::telemetry(&settings)?
    })?;
    log_panics();
    let runtime = runtime()?;
    let result = runtime.block_on(dispatch(command, sources, settings, &telemetry));
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
    command: SiteCommand,
    sources: Sources,
    settings: Settings,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    match command {
        SiteCommand::Serve => commands::serve(&settings, telemetry).await,
        SiteCommand::Dev { data_dir } => {
            commands::dev(
                DevOptions {
                    data_dir: Some(data_dir),
                    sources,
                },
                telemetry,
            )
            .await
        }
        SiteCommand::Migrate => commands::migrate(&settings).await,
        SiteCommand::Keys(KeysCommand::Create(wanted)) => {
            commands::keys::create(&settings, telemetry, &wanted).await
        }
        SiteCommand::Keys(KeysCommand::List { tenant }) => {
            commands::keys::list(&settings, telemetry, tenant.as_deref()).await
        }
        SiteCommand::Keys(KeysCommand::Revoke { key_id }) => {
            commands::keys::revoke(&settings, telemetry, &key_id).await
        }
        SiteCommand::Audit(command) => {
            commands::audit::site::run(&settings, telemetry, command).await
        }
        SiteCommand::Demo => crate::demo::run(sources, telemetry).await,
    }
}

/// Logs are for machines where a service runs, and for people elsewhere. What commands print is
/// their answer: logs then only say what went wrong.
fn log_defaults(command: &SiteCommand) -> Vec<(&'static str, Value)> {
    let (format, filter) = match command {
        SiteCommand::Serve => ("json", "info"),
        SiteCommand::Dev { .. } => ("readable", "info"),
        SiteCommand::Migrate | SiteCommand::Keys(_) | SiteCommand::Audit(_) => ("readable", "warn"),
        SiteCommand::Demo => ("readable", "error"),
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

    fn parsed(words: &[&str]) -> Result<(), String> {
        let words = ["quittance", "payments"].iter().chain(words);
        let cli = Cli::try_parse_from(words);
        cli.map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_resolution_is_exactly_one_and_has_a_reason() {
        let resolve = |found: &[&str]| {
            let reason = ["--reason", "seen in the dashboard"];
            parsed(&[&["resolve", "p", "t"], found, &reason].concat())
        };
        for good in [
            &["--succeeded"][..],
            &["--succeeded", "--provider-reference", "ch_1"],
            &["--succeeded", "--amount", "950 EUR"],
            &["--not-processed", "--evidence", "ticket 7"],
            &["--taken-back", "--seen-version", "7"],
            &["--acknowledge", "excess-amount", "--tenant", "acme"],
        ] {
            assert_eq!(resolve(good), Ok(()), "{good:?}");
        }
        for bad in [
            &[][..],
            &["--succeeded", "--not-processed"],
            &["--not-processed", "--provider-reference", "ch_1"],
            &["--taken-back"],
            &["--taken-back", "--seen-version", "7", "--amount", "950 EUR"],
            &["--acknowledge"],
            &["--acknowledge", "strange"],
            &["--acknowledge", "excess-amount", "--amount", "950 EUR"],
            &["--acknowledge", "excess-amount", "--not-processed"],
            &["--succeeded", "--amount", "950"],
        ] {
            assert!(resolve(bad).is_err(), "{bad:?}");
        }
        assert!(parsed(&["resolve", "p", "t", "--succeeded"]).is_err());
        assert!(parsed(&["retry", "p", "t"]).is_err());
    }

    #[test]
    fn an_api_key_is_no_argument() {
        assert!(parsed(&["actions", "--api-key", "qk_1"]).is_err());
        assert_eq!(parsed(&["actions", "--kind", "recovery-exhausted"]), Ok(()));
        let unknown = parsed(&["actions", "--kind", "strange"]).unwrap_err();
        assert!(unknown.contains("amount-mismatch"), "{unknown}");
    }

    #[test]
    fn webhooks_are_listed_by_state_and_replayed_with_a_reason() {
        let parsed = |words: &[&str]| {
            let words = ["quittance", "webhooks"].iter().chain(words);
            let cli = Cli::try_parse_from(words);
            cli.map(|_| ()).map_err(|error| error.to_string())
        };
        for good in [
            &["list"][..],
            &["list", "--state", "dead", "--state", "parked"],
            &["list", "--all", "--cause", "unknown-payment"],
            &["show", "w"],
            &["replay", "w", "--reason", "the payment is there now"],
        ] {
            assert_eq!(parsed(good), Ok(()), "{good:?}");
        }
        for bad in [
            &["list", "--all", "--state", "dead"][..],
            &["list", "--state", "gone"],
            &["replay", "w"],
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
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
