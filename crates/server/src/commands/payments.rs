//! `quittance payments`: what operators look at and decide, as a client of a running server.

pub(super) mod client;
mod failed;
pub(super) mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quittance_proto::v1;

use self::client::Client;
use super::pages;
use crate::output;

pub use self::failed::CallFailed;
pub(super) use self::show::{money, plain, time};

/// The server that is called unless another is named: where `config.default.toml` serves gRPC.
const DEFAULT_ADDRESS: &str = "https://127.0.0.1:7443";
/// Operator actions that are printed unless another number is asked for.
const DEFAULT_ACTIONS: &str = "100";

/// What every exit code means, and where the API key comes from.
const AFTER_HELP: &str = "\
The API key is read from --api-key-file, or else from the variable QUITTANCE_API_KEY; it is never an argument, because
other users can see those. `actions`, `resolve` and `retry` need the role `admin` (across tenants `platform.admin`),
`show` needs `payments.read`. See docs/roles.md.

Exit codes: 0 done · 1 not tried, such as a file that cannot be read · 2 wrong arguments · 3 refused by the server
· 4 out of reach or refused for now: try again later.";

/// Where the server is, and who calls it.
#[derive(Debug, Args)]
pub struct Connection {
    /// The server. http:// is for servers on this machine only, since the API key would be readable on the way.
    #[arg(
        long,
        env = "QUITTANCE_ADDRESS",
        default_value = DEFAULT_ADDRESS,
        value_name = "URL"
    )]
    address: String,
    /// Certificates (PEM) of the authority that signed the server's. Without it, those that the system trusts.
    #[arg(long, env = "QUITTANCE_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// File that holds the API key. Without it, the variable QUITTANCE_API_KEY.
    #[arg(long, env = "QUITTANCE_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// What is asked about payments.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum PaymentsCommand {
    /// List what waits for a person: open operator actions, oldest first.
    #[command(after_help = AFTER_HELP)]
    Actions(ActionsArgs),
    /// Show a payment with its transactions, and what waits for a person.
    #[command(after_help = AFTER_HELP)]
    Show(ShowArgs),
    /// Record what you found out about a transaction whose outcome the service cannot learn; or close the operator
    /// actions of a kind about one. Who, why and with what evidence is in the audit log for good.
    #[command(after_help = AFTER_HELP)]
    Resolve(ResolveArgs),
    /// Let automatic recovery take a transaction up again now. Of the operator actions about it, only
    /// RECOVERY_EXHAUSTED is closed.
    #[command(after_help = AFTER_HELP)]
    Retry(RetryArgs),
}

/// Which operator actions are listed.
#[derive(Debug, Args)]
pub struct ActionsArgs {
    #[command(flatten)]
    connection: Connection,
    /// About this payment only.
    #[arg(long, value_name = "PAYMENT")]
    payment: Option<String>,
    /// Of this kind only.
    #[arg(long, value_parser = parse_kind, value_name = "KIND")]
    kind: Option<v1::OperatorActionKind>,
    /// Closed ones too.
    #[arg(long)]
    all: bool,
    /// Of this tenant. Without it: your own, or all if the key has the role platform.admin.
    #[arg(long)]
    tenant: Option<String>,
    /// How many at most.
    #[arg(long, default_value = DEFAULT_ACTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Which payment is shown.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    connection: Connection,
    /// The payment's id.
    payment: String,
}

/// A transaction.
#[derive(Debug, Args)]
struct Subject {
    /// The payment's id.
    payment: String,
    /// The transaction's id, as `show` tells it.
    transaction: String,
    /// The payment's tenant, if it is not your own (needs the role platform.admin).
    #[arg(long)]
    tenant: Option<String>,
}

/// What was found out about a transaction.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    found: Found,
    /// The provider's identifier of the transaction, if you know it: later refunds may need it.
    // `requires` would not do: clap drops what is required where it conflicts with what is given.
    #[arg(
        long,
        conflicts_with_all = ["not_processed", "taken_back", "acknowledge"],
        value_name = "REFERENCE"
    )]
    provider_reference: Option<String>,
    /// What it really moved, in minor units of the payment's currency and with its code, if that is not what was
    /// asked for: "950 EUR".
    #[arg(
        long,
        conflicts_with_all = ["not_processed", "taken_back", "acknowledge"],
        value_name = "AMOUNT",
        value_parser = parse_money
    )]
    amount: Option<v1::Money>,
    /// Why you decide so; at most 500 characters.
    #[arg(long)]
    reason: String,
    /// What shows it, such as a ticket or a statement; at most 2000 characters.
    #[arg(long, default_value = "", hide_default_value = true)]
    evidence: String,
    /// The version of the payment that you have looked at (`show` tells it): if it has changed since, nothing is decided.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    seen_version: Option<u64>,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Found {
    /// The provider carried it out, for its whole amount unless --amount says otherwise.
    #[arg(long)]
    succeeded: bool,
    /// The provider did not carry it out, and never will.
    #[arg(long)]
    not_processed: bool,
    /// The provider carried it out, and took it back after that; needs --seen-version.
    #[arg(long, requires = "seen_version")]
    taken_back: bool,
    /// Nothing changes: the operator actions of this kind about it are closed.
    #[arg(long, value_parser = parse_kind, value_name = "KIND")]
    acknowledge: Option<v1::OperatorActionKind>,
}

impl Found {
    fn resolution(&self) -> v1::TransactionResolution {
        let flags = (self.succeeded, self.not_processed, self.taken_back);
        match (flags, self.acknowledge) {
            ((true, false, false), None) => v1::TransactionResolution::Succeeded,
            ((false, true, false), None) => v1::TransactionResolution::NotProcessed,
            ((false, false, true), None) => v1::TransactionResolution::TakenBack,
            ((false, false, false), Some(_)) => v1::TransactionResolution::Acknowledged,
            // The command line lets nothing else through; the server would refuse it.
            (_, _) => v1::TransactionResolution::Unspecified,
        }
    }
}

/// Which transaction is taken up again.
#[derive(Debug, Args)]
pub struct RetryArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    subject: Subject,
    /// Why; at most 500 characters.
    #[arg(long)]
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// [`CallFailed`] where the server was asked, with what to do; else what kept it from being asked.
pub async fn run(command: PaymentsCommand) -> anyhow::Result<()> {
    match command {
        PaymentsCommand::Actions(wanted) => actions(wanted).await,
        PaymentsCommand::Show(wanted) => show_payment(&wanted).await,
        PaymentsCommand::Resolve(wanted) => resolve(wanted).await,
        PaymentsCommand::Retry(wanted) => retry(wanted).await,
    }
}

async fn actions(wanted: ActionsArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let request = v1::ListOperatorActionsRequest {
        payment_id: wanted.payment.unwrap_or_default(),
        kind: wanted.kind.unwrap_or_default().into(),
        include_closed: wanted.all,
        tenant_id: wanted.tenant.unwrap_or_default(),
        ..v1::ListOperatorActionsRequest::default()
    };
    let page = async |page_size, page_token| {
        let page = client.list_operator_actions(v1::ListOperatorActionsRequest {
            page_size,
            page_token,
            ..request.clone()
        });
        let page = page.await?;
        Ok((page.operator_actions, page.next_page_token))
    };
    let (found, more) = pages::up_to(limit, page).await?;
    if found.is_empty() {
        output::line("No operator actions.");
        return Ok(());
    }
    output::line(show::actions(&found, wanted.all));
    pages::say_more(more);
    Ok(())
}

async fn show_payment(wanted: &ShowArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let payment = client.get_payment(&wanted.payment).await?;
    output::line(show::payment(&payment));
    let request = v1::ListOperatorActionsRequest {
        payment_id: payment.payment_id.clone(),
        page_size: pages::PAGE,
        include_closed: true,
        ..v1::ListOperatorActionsRequest::default()
    };
    match client.list_operator_actions(request).await {
        Ok(page) if page.operator_actions.is_empty() => {}
        Ok(page) => {
            output::line("\nOperator actions");
            output::line(show::actions(&page.operator_actions, true));
        }
        // Whoever may only read payments has seen all that they may.
        Err(refused) if refused.is(v1::ErrorReason::RoleRequired) => {}
        Err(refused) => return Err(refused.into()),
    }
    Ok(())
}

async fn resolve(wanted: ResolveArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let resolution = wanted.found.resolution();
    let request = v1::ResolveTransactionRequest {
        payment_id: wanted.subject.payment,
        transaction_id: wanted.subject.transaction,
        resolution: resolution.into(),
        provider_reference: wanted.provider_reference.unwrap_or_default(),
        reason: wanted.reason,
        evidence: wanted.evidence,
        tenant_id: wanted.subject.tenant.unwrap_or_default(),
        amount: wanted.amount,
        seen_version: wanted.seen_version.unwrap_or_default(),
        acknowledged_kind: wanted.found.acknowledge.unwrap_or_default().into(),
    };
    let payment = client.resolve(request).await?;
    output::line("Recorded. What the provider proves later still counts.\n");
    output::line(show::payment(&payment));
    Ok(())
}

async fn retry(wanted: RetryArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let request = v1::RetryTransactionRequest {
        payment_id: wanted.subject.payment,
        transaction_id: wanted.subject.transaction,
        reason: wanted.reason,
        tenant_id: wanted.subject.tenant.unwrap_or_default(),
    };
    let payment = client.retry(request).await?;
    output::line(
        "Recorded. Recovery takes it up now; `quittance payments show` tells the outcome.\n",
    );
    output::line(show::payment(&payment));
    Ok(())
}

/// Minor units and a currency's code. The server judges both.
fn parse_money(text: &str) -> Result<v1::Money, String> {
    let parts = text.split_once(' ');
    let money = parts.and_then(|(units, code)| {
        Some(v1::Money {
            minor_units: units.parse().ok()?,
            currency_code: code.trim().to_owned(),
        })
    });
    money.ok_or_else(|| "must be minor units and a currency, such as \"950 EUR\"".to_owned())
}

/// A kind by its name without prefix, in either case.
fn parse_kind(text: &str) -> Result<v1::OperatorActionKind, String> {
    let name = text.to_ascii_uppercase().replace('-', "_");
    let kind = v1::OperatorActionKind::from_str_name(&format!("{}{name}", show::KIND_PREFIX));
    kind.filter(|kind| *kind != v1::OperatorActionKind::Unspecified)
        .ok_or_else(|| {
            "must be amount-mismatch, contradicting-fact, excess-amount or recovery-exhausted"
                .to_owned()
        })
}
