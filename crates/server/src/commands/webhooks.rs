//! `quittance webhooks`: the inbox of webhooks, as a client of a running server.

mod show;

use clap::{Args, Subcommand};
use quittance_proto::v1;

use super::pages;
use super::payments::Connection;
use super::payments::client::Client;
use crate::output;

/// Webhooks that are printed unless another number is asked for.
const DEFAULT_WEBHOOKS: &str = "100";

/// Dead letters that are replayed by one command unless another number is asked for.
const DEFAULT_REPLAYED: &str = "10000";

/// What every exit code means, and where the API key comes from.
const AFTER_HELP: &str = "\
The API key is read from --api-key-file, or else from the variable QUITTANCE_API_KEY; it is never an argument, because
other users can see those. It needs the role `platform.admin`: a webhook belongs to a provider account, which may serve
several tenants. See docs/roles.md and docs/webhooks.md.

Exit codes: 0 done · 1 not tried, such as a file that cannot be read · 2 wrong arguments · 3 refused by the server
· 4 out of reach or refused for now: try again later.";

/// What is asked about webhooks.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum WebhooksCommand {
    /// List webhooks, newest first. Without --state or --all: what waits and what was given up.
    #[command(after_help = AFTER_HELP)]
    List(ListArgs),
    /// Show a webhook and what it says. Its body is never shown.
    #[command(after_help = AFTER_HELP)]
    Show(ShowArgs),
    /// Have a parked webhook or a dead letter tried again now; or, by --account and --cause, all dead letters of a kind. Who
    /// and why is in the audit log for good, of each.
    #[command(after_help = AFTER_HELP)]
    Replay(ReplayArgs),
}

/// Which webhooks are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
    /// In this state: received, applied, ignored, parked or dead; may be given several times.
    #[arg(long = "state", value_parser = parse_state, value_name = "STATE", conflicts_with = "all")]
    states: Vec<v1::WebhookState>,
    /// In every state.
    #[arg(long)]
    all: bool,
    /// That came for this provider account only.
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Parked or dead for this cause only, such as unknown-payment.
    #[arg(long, value_parser = parse_cause, value_name = "CAUSE")]
    cause: Option<v1::WebhookCause>,
    /// How many at most.
    #[arg(long, default_value = DEFAULT_WEBHOOKS, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Which webhook is shown.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    connection: Connection,
    /// The webhook's id, as `list` tells it.
    webhook: String,
}

/// Which webhook is tried again.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    connection: Connection,
    /// The webhook's id, as `list` tells it.
    #[arg(required_unless_present_any = ["account", "cause"])]
    webhook: Option<String>,
    /// All dead letters that came for this provider account.
    #[arg(long, value_name = "ACCOUNT", conflicts_with = "webhook")]
    account: Option<String>,
    /// All dead letters of this cause, such as not-confirmed.
    #[arg(long, value_parser = parse_cause, value_name = "CAUSE", conflicts_with = "webhook")]
    cause: Option<v1::WebhookCause>,
    /// How many of them at most, newest first.
    #[arg(long, default_value = DEFAULT_REPLAYED, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Why; at most 500 characters.
    #[arg(long)]
    reason: String,
}

/// Runs the command.
///
/// # Errors
/// [`CallFailed`](super::payments::CallFailed) where the server was asked, with what to do; else what kept it from being
/// asked.
pub async fn run(command: WebhooksCommand) -> anyhow::Result<()> {
    match command {
        WebhooksCommand::List(wanted) => list(wanted).await,
        WebhooksCommand::Show(wanted) => show_webhook(wanted).await,
        WebhooksCommand::Replay(wanted) => replay(wanted).await,
    }
}

async fn list(wanted: ListArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let states = match (wanted.all, wanted.states) {
        (true, _) => Vec::new(),
        (false, given) if given.is_empty() => {
            vec![v1::WebhookState::Parked, v1::WebhookState::Dead]
        }
        (false, given) => given,
    };
    let request = v1::ListWebhooksRequest {
        states: states.into_iter().map(i32::from).collect(),
        provider_account: wanted.account.unwrap_or_default(),
        cause: wanted.cause.unwrap_or_default().into(),
        ..v1::ListWebhooksRequest::default()
    };
    let (found, more) = find(&mut client, &request, wanted.limit).await?;
    if found.is_empty() {
        output::line("No webhooks.");
        return Ok(());
    }
    output::line(show::webhooks(&found));
    pages::say_more(more);
    Ok(())
}

/// The newest of what is asked for, and whether there are more.
async fn find(
    client: &mut Client,
    request: &v1::ListWebhooksRequest,
    limit: u32,
) -> anyhow::Result<(Vec<v1::Webhook>, bool)> {
    let page = async |page_size, page_token| {
        let page = client.list_webhooks(v1::ListWebhooksRequest {
            page_size,
            page_token,
            ..request.clone()
        });
        let page = page.await?;
        Ok((page.webhooks, page.next_page_token))
    };
    pages::up_to(usize::try_from(limit).unwrap_or(usize::MAX), page).await
}

async fn show_webhook(wanted: ShowArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let webhook = client.get_webhook(wanted.webhook).await?;
    output::line(show::webhook(&webhook));
    Ok(())
}

async fn replay(wanted: ReplayArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let Some(webhook_id) = wanted.webhook else {
        let which = v1::ListWebhooksRequest {
            states: vec![v1::WebhookState::Dead.into()],
            provider_account: wanted.account.unwrap_or_default(),
            cause: wanted.cause.unwrap_or_default().into(),
            ..v1::ListWebhooksRequest::default()
        };
        return replay_all(&mut client, &which, wanted.limit, &wanted.reason).await;
    };
    let request = v1::ReplayWebhookRequest {
        webhook_id,
        reason: wanted.reason,
    };
    let webhook = client.replay_webhook(request).await?;
    output::line(
        "Recorded. It is tried again now; `quittance webhooks show` tells what became of it.\n",
    );
    output::line(show::webhook(&webhook));
    Ok(())
}

/// Replays dead letters one by one, each on record. Those that are taken up or wiped meanwhile are passed over.
async fn replay_all(
    client: &mut Client,
    which: &v1::ListWebhooksRequest,
    limit: u32,
    reason: &str,
) -> anyhow::Result<()> {
    let (found, more) = find(client, which, limit).await?;
    let (mut replayed, mut passed_over) = (0_usize, 0_usize);
    // Oldest first, as they came.
    for webhook in found.into_iter().rev() {
        let request = v1::ReplayWebhookRequest {
            webhook_id: webhook.webhook_id,
            reason: reason.to_owned(),
        };
        match client.replay_webhook(request).await {
            Ok(_) => replayed += 1,
            Err(failed)
                if failed.is(v1::ErrorReason::WebhookNotReplayable)
                    || failed.is(v1::ErrorReason::WebhookWiped) =>
            {
                passed_over += 1;
            }
            Err(failed) => {
                output::line(format!("{replayed} dead letters are tried again."));
                return Err(failed.into());
            }
        }
    }
    output::line(format!(
        "{replayed} dead letters are tried again; {passed_over} were passed over."
    ));
    pages::say_more(more);
    Ok(())
}

/// A state by its name without prefix, in either case.
fn parse_state(text: &str) -> Result<v1::WebhookState, String> {
    let name = format!("{}{}", show::STATE_PREFIX, text.to_ascii_uppercase());
    v1::WebhookState::from_str_name(&name)
        .filter(|state| *state != v1::WebhookState::Unspecified)
        .ok_or_else(|| "must be received, applied, ignored, parked or dead".to_owned())
}

/// A cause by its name without prefix, in either case.
fn parse_cause(text: &str) -> Result<v1::WebhookCause, String> {
    let name = text.to_ascii_uppercase().replace('-', "_");
    v1::WebhookCause::from_str_name(&format!("{}{name}", show::CAUSE_PREFIX))
        .filter(|cause| *cause != v1::WebhookCause::Unspecified)
        .ok_or_else(|| "must be a cause of docs/webhooks.md, such as unknown-payment".to_owned())
}
