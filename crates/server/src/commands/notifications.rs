//! `quittance notifications`: what became of what tenants were told, as a client of a running server.

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use quittance_proto::v1;

use super::pages;
use super::payments::client::Client;
use super::payments::show::{plain, time};
use super::payments::{CallFailed, Connection};
use crate::output;

/// Prefix of the names of a notification's states.
const STATE_PREFIX: &str = "NOTIFICATION_STATE_";
/// Notifications that are printed unless another number is asked for.
const DEFAULT_LIMIT: &str = "100";

/// Where the API key comes from, and what every exit code means.
const AFTER_HELP: &str = "\
The API key is read from --api-key-file, or else from the variable QUITTANCE_API_KEY. It needs the role `admin` (across
tenants `platform.admin`). See docs/notifications.md.

Exit codes: 0 done · 1 not tried, such as a file that cannot be read · 2 wrong arguments · 3 refused by the server
· 4 out of reach or refused for now: try again later.";

/// What is asked about notifications.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum NotificationsCommand {
    /// List notifications, newest first.
    #[command(after_help = AFTER_HELP)]
    List(ListArgs),
    /// Show a notification with the log of its attempts.
    #[command(after_help = AFTER_HELP)]
    Show(OneArgs),
    /// Send dead letters again, under their ids: one, or those of an endpoint.
    #[command(after_help = AFTER_HELP)]
    Replay(ReplayArgs),
}

/// Which notifications are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
    /// For this endpoint only.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// About this payment only.
    #[arg(long, value_name = "PAYMENT")]
    payment: Option<String>,
    /// In this state only: pending, delivered or dead.
    #[arg(long, value_parser = parse_state, value_name = "STATE")]
    state: Option<v1::NotificationState>,
    /// Of this tenant. Without it: your own, or all if the key has the role platform.admin.
    #[arg(long)]
    tenant: Option<String>,
    /// How many at most.
    #[arg(long, default_value = DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// One notification.
#[derive(Debug, Args)]
pub struct OneArgs {
    #[command(flatten)]
    connection: Connection,
    /// The notification's id: what the receiver got as webhook-id.
    notification: String,
    /// The tenant, if it is not your own (needs the role platform.admin).
    #[arg(long)]
    tenant: Option<String>,
}

/// Which dead letters are sent again.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    which: Which,
    /// The tenant, if it is not your own (needs the role platform.admin).
    #[arg(long)]
    tenant: Option<String>,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The notification's id.
    notification: Option<String>,
    /// All dead letters of this endpoint.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`CallFailed`] where the server was asked, with what to do; else what kept it from being asked.
pub async fn run(command: NotificationsCommand) -> anyhow::Result<()> {
    match command {
        NotificationsCommand::List(wanted) => list(wanted).await,
        NotificationsCommand::Show(wanted) => show(wanted).await,
        NotificationsCommand::Replay(wanted) => replay(wanted).await,
    }
}

async fn list(wanted: ListArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let wanted = v1::ListNotificationsRequest {
        endpoint_id: wanted.endpoint.unwrap_or_default(),
        payment_id: wanted.payment.unwrap_or_default(),
        state: wanted.state.unwrap_or_default().into(),
        tenant_id: wanted.tenant.unwrap_or_default(),
        ..v1::ListNotificationsRequest::default()
    };
    let page = async |page_size, page_token| {
        let request = client.request(v1::ListNotificationsRequest {
            page_size,
            page_token,
            ..wanted.clone()
        });
        let page = client.admin.list_notifications(request).await;
        let page = page.map_err(CallFailed::from)?.into_inner();
        Ok((page.notifications, page.next_page_token))
    };
    let (found, more) = pages::up_to(limit, page).await?;
    if found.is_empty() {
        output::line("No notifications.");
        return Ok(());
    }
    output::line(table(&found));
    pages::say_more(more);
    Ok(())
}

async fn show(wanted: OneArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let request = client.request(v1::GetNotificationRequest {
        notification_id: wanted.notification,
        tenant_id: wanted.tenant.unwrap_or_default(),
    });
    let found = client.admin.get_notification(request).await;
    let found = found.map_err(CallFailed::from)?.into_inner();
    output::line(table(found.notification.as_slice()));
    if found.attempts.is_empty() {
        output::line("No attempt has ended yet.");
        return Ok(());
    }
    let mut attempts = Table::new();
    attempts.load_preset(UTF8_FULL_CONDENSED);
    attempts.set_header(["attempt", "began", "took", "status", "cause"]);
    for attempt in &found.attempts {
        attempts.add_row([
            attempt.number.to_string(),
            time(attempt.start_time.as_ref()),
            format!("{} ms", attempt.latency_ms),
            status(attempt.http_status),
            plain(&attempt.cause),
        ]);
    }
    output::line(attempts);
    Ok(())
}

async fn replay(wanted: ReplayArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let message = v1::ReplayNotificationsRequest {
        notification_id: wanted.which.notification.unwrap_or_default(),
        endpoint_id: wanted.which.endpoint.unwrap_or_default(),
        tenant_id: wanted.tenant.unwrap_or_default(),
    };
    let mut replayed = 0;
    loop {
        let request = client.request(message.clone());
        let answer = client.admin.replay_notifications(request).await;
        let again = answer.map_err(CallFailed::from)?.into_inner().replayed;
        replayed += again;
        // Of an endpoint there may be more.
        if again == 0 || message.endpoint_id.is_empty() {
            break;
        }
    }
    output::line(format!("Sent again: {replayed}."));
    Ok(())
}

fn table(notifications: &[v1::Notification]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "notification",
        "event",
        "payment",
        "no.",
        "state",
        "attempts",
        "status",
        "cause",
        "endpoint",
        "next attempt",
    ]);
    for found in notifications {
        let state = found.state().as_str_name();
        table.add_row([
            plain(&found.notification_id),
            plain(&found.event_type),
            plain(&found.payment_id),
            found.entity_seq.to_string(),
            state.strip_prefix(STATE_PREFIX).unwrap_or(state).to_owned(),
            found.attempts.to_string(),
            status(found.http_status),
            plain(&found.cause),
            plain(&found.endpoint_id),
            time(found.next_attempt_time.as_ref()),
        ]);
    }
    table
}

fn status(status: u32) -> String {
    match status {
        0 => String::new(),
        status => status.to_string(),
    }
}

/// A state by its name without prefix, in either case.
fn parse_state(text: &str) -> Result<v1::NotificationState, String> {
    let name = format!("{STATE_PREFIX}{}", text.to_ascii_uppercase());
    v1::NotificationState::from_str_name(&name)
        .filter(|state| *state != v1::NotificationState::Unspecified)
        .ok_or_else(|| "must be pending, delivered or dead".to_owned())
}
