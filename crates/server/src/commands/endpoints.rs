//! `quittance endpoints`: where a tenant is told of its events, as a client of a running server.

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use quittance_proto::v1;

use super::pages;
use super::payments::client::Client;
use super::payments::show::{plain, time};
use super::payments::{CallFailed, Connection};
use crate::output;

/// Prefix of the names of an endpoint's states.
const STATE_PREFIX: &str = "NOTIFICATION_ENDPOINT_STATE_";

/// Where the API key comes from, and what every exit code means.
const AFTER_HELP: &str = "\
The API key is read from --api-key-file, or else from the variable QUITTANCE_API_KEY. It needs the role `admin` (across
tenants `platform.admin`). See docs/notifications.md.

Exit codes: 0 done · 1 not tried, or a test that was not delivered · 2 wrong arguments · 3 refused by the server
· 4 out of reach or refused for now: try again later.";

/// What is done with endpoints.
#[derive(Debug, Subcommand)]
#[command(after_help = AFTER_HELP)]
pub enum EndpointsCommand {
    /// Add an endpoint, and show its secret once.
    #[command(after_help = AFTER_HELP)]
    Create(CreateArgs),
    /// List endpoints, without their secrets.
    #[command(after_help = AFTER_HELP)]
    List(ListArgs),
    /// Change an endpoint, or switch it on or off.
    #[command(after_help = AFTER_HELP)]
    Update(UpdateArgs),
    /// Delete an endpoint for good.
    #[command(after_help = AFTER_HELP)]
    Delete(OneArgs),
    /// Send an event of type endpoint.test to an endpoint, and tell how that ended.
    #[command(after_help = AFTER_HELP)]
    Test(OneArgs),
    /// Make a new secret, and show it once. The one before works on for a while.
    #[command(after_help = AFTER_HELP)]
    RotateSecret(RotateArgs),
}

/// A new endpoint.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    connection: Connection,
    /// Where notifications are posted: an https:// URL.
    url: String,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// An event type such as payment.captured, or a kind such as refund.*; may be given several times. Without it: all.
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// The tenant, if it is not your own (needs the role platform.admin).
    #[arg(long)]
    tenant: Option<String>,
}

/// Whose endpoints are listed.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
    /// Of this tenant. Without it: your own, or all if the key has the role platform.admin.
    #[arg(long)]
    tenant: Option<String>,
}

/// One endpoint.
#[derive(Debug, Args)]
pub struct OneArgs {
    #[command(flatten)]
    connection: Connection,
    /// The endpoint's id, as `endpoints list` shows it.
    endpoint: String,
    /// The tenant, if it is not your own (needs the role platform.admin).
    #[arg(long)]
    tenant: Option<String>,
}

/// What of an endpoint is changed.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Where notifications are posted.
    #[arg(long)]
    url: Option<String>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    /// Its event types, in the place of those it has; may be given several times.
    #[arg(long = "event", value_name = "TYPE", conflicts_with = "all_events")]
    events: Vec<String>,
    /// All events.
    #[arg(long)]
    all_events: bool,
    /// Switch it on.
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Switch it off: events become dead letters meanwhile, which can be replayed.
    #[arg(long)]
    disable: bool,
}

/// Whose secret is changed.
#[derive(Debug, Args)]
pub struct RotateArgs {
    #[command(flatten)]
    one: OneArgs,
    /// For how long notifications are signed under the secret before as well. 0 drops it at once. Default: a day.
    #[arg(long, value_name = "SECONDS")]
    keep_previous: Option<u32>,
}

/// Runs the command.
///
/// # Errors
/// [`CallFailed`] where the server was asked, with what to do; else what kept it from being asked.
pub async fn run(command: EndpointsCommand) -> anyhow::Result<()> {
    match command {
        EndpointsCommand::Create(wanted) => create(wanted).await,
        EndpointsCommand::List(wanted) => list(wanted).await,
        EndpointsCommand::Update(wanted) => update(wanted).await,
        EndpointsCommand::Delete(wanted) => delete(wanted).await,
        EndpointsCommand::Test(wanted) => test(wanted).await,
        EndpointsCommand::RotateSecret(wanted) => rotate(wanted).await,
    }
}

async fn create(wanted: CreateArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let request = client.request(v1::CreateNotificationEndpointRequest {
        url: wanted.url,
        description: wanted.description,
        event_types: wanted.events,
        tenant_id: wanted.tenant.unwrap_or_default(),
    });
    let made = client.admin.create_notification_endpoint(request).await;
    let made = made.map_err(CallFailed::from)?.into_inner();
    show(made.endpoint.as_slice());
    output::line("The secret, shown this once. Receivers verify notifications with it:");
    output::line(made.secret);
    Ok(())
}

async fn list(wanted: ListArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let tenant_id = wanted.tenant.unwrap_or_default();
    let page = async |page_size, page_token| {
        let request = client.request(v1::ListNotificationEndpointsRequest {
            page_size,
            page_token,
            tenant_id: tenant_id.clone(),
        });
        let page = client.admin.list_notification_endpoints(request).await;
        let page = page.map_err(CallFailed::from)?.into_inner();
        Ok((page.endpoints, page.next_page_token))
    };
    let endpoints = pages::all(page).await?;
    if endpoints.is_empty() {
        output::line("No endpoints.");
    } else {
        show(&endpoints);
    }
    Ok(())
}

async fn update(wanted: UpdateArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.one.connection).await?;
    let events = !wanted.events.is_empty() || wanted.all_events;
    let request = client.request(v1::UpdateNotificationEndpointRequest {
        endpoint_id: wanted.one.endpoint,
        url: wanted.url,
        description: wanted.description,
        event_types: events.then_some(v1::NotificationEventTypes {
            event_types: wanted.events,
        }),
        enabled: (wanted.enable || wanted.disable).then_some(wanted.enable),
        tenant_id: wanted.one.tenant.unwrap_or_default(),
    });
    let updated = client.admin.update_notification_endpoint(request).await;
    let updated = updated.map_err(CallFailed::from)?.into_inner();
    show(updated.endpoint.as_slice());
    Ok(())
}

async fn delete(wanted: OneArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let request = client.request(v1::DeleteNotificationEndpointRequest {
        endpoint_id: wanted.endpoint,
        tenant_id: wanted.tenant.unwrap_or_default(),
    });
    let deleted = client.admin.delete_notification_endpoint(request).await;
    deleted.map_err(CallFailed::from)?;
    output::line("Deleted.");
    Ok(())
}

async fn test(wanted: OneArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.connection).await?;
    let request = client.request(v1::TestNotificationEndpointRequest {
        endpoint_id: wanted.endpoint,
        tenant_id: wanted.tenant.unwrap_or_default(),
    });
    let tested = client.admin.test_notification_endpoint(request).await;
    let tested = tested.map_err(CallFailed::from)?.into_inner();
    let attempt = tested.attempt.unwrap_or_default();
    let status = match attempt.http_status {
        0 => String::new(),
        status => format!(", HTTP {status}"),
    };
    if !tested.delivered {
        let cause = plain(&attempt.cause);
        anyhow::bail!(
            "not delivered: {cause}{status}, after {} ms",
            attempt.latency_ms
        );
    }
    output::line(format!(
        "Delivered as {}{status}, in {} ms.",
        plain(&tested.notification_id),
        attempt.latency_ms
    ));
    Ok(())
}

async fn rotate(wanted: RotateArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&wanted.one.connection).await?;
    let request = client.request(v1::RotateNotificationEndpointSecretRequest {
        endpoint_id: wanted.one.endpoint,
        keep_previous_seconds: wanted.keep_previous,
        tenant_id: wanted.one.tenant.unwrap_or_default(),
    });
    let rotated = client
        .admin
        .rotate_notification_endpoint_secret(request)
        .await;
    let rotated = rotated.map_err(CallFailed::from)?.into_inner();
    show(rotated.endpoint.as_slice());
    output::line("The new secret, shown this once:");
    output::line(rotated.secret);
    Ok(())
}

fn show(endpoints: &[v1::NotificationEndpoint]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "endpoint",
        "tenant",
        "state",
        "url",
        "events",
        "description",
        "changed",
    ]);
    for endpoint in endpoints {
        let state = endpoint.state().as_str_name();
        let events = match endpoint.event_types.join(" ") {
            events if events.is_empty() => "all".to_owned(),
            events => plain(&events),
        };
        table.add_row([
            plain(&endpoint.endpoint_id),
            plain(&endpoint.tenant_id),
            state.strip_prefix(STATE_PREFIX).unwrap_or(state).to_owned(),
            plain(&endpoint.url),
            events,
            plain(&endpoint.description),
            time(endpoint.update_time.as_ref()),
        ]);
    }
    output::line(table);
}
