//! What tenants are told by themselves: everything, at least once, signed, in the order of each payment, and to nobody else.

mod delivery;
mod endpoints;
mod undelivered;

use quittance_proto::v1::{
    AuditEntry, CreateNotificationEndpointRequest, CreateNotificationEndpointResponse,
    ListEntriesRequest, ListNotificationsRequest, Notification, NotificationState,
};
use quittance_server::auth::Role;
use toml::Value;

use crate::harness::receiver::Receiver;
use crate::harness::site::TENANT_ROLES;
use crate::harness::{
    Client, Site, SiteOptions, World, authorization, capture, eventually, refund,
};

/// How many notifications a server has delivered.
const DELIVERED: &str = "payment_notification_lag_seconds_count{outcome=\"delivered\"";

/// Servers that may post to loopback, and try again soon.
fn options() -> SiteOptions {
    let networks = vec![Value::from("127.0.0.1/32")];
    SiteOptions::default()
        .with("notifications.allow_plaintext_loopback", true)
        .with("notifications.allowed_networks", Value::from(networks))
        .with("notifications.poll_interval_ms", 50)
        .with("notifications.retry_schedule_ms", schedule(40, 20))
        .with("notifications.jitter_percent", 20)
        .with("telemetry.gauge_interval_ms", 100)
}

/// So many equal waits.
fn schedule(wait_ms: i64, times: usize) -> Value {
    Value::from(vec![Value::from(wait_ms); times])
}

/// A caller that may do everything in the tenant, and administer it.
async fn administrator(world: &World, tenant: &str) -> Client {
    let mut roles = TENANT_ROLES.to_vec();
    roles.push(Role::Admin);
    world.as_role(tenant, &roles).await
}

async fn endpoint(
    admin: &Client,
    receiver: &Receiver,
    events: &[&str],
) -> CreateNotificationEndpointResponse {
    let request = CreateNotificationEndpointRequest {
        url: receiver.url(),
        description: "books".to_owned(),
        event_types: events.iter().map(|event| (*event).to_owned()).collect(),
        tenant_id: String::new(),
    };
    admin.ok(request).await.message
}

fn id_of(made: &CreateNotificationEndpointResponse) -> String {
    made.endpoint.as_ref().unwrap().endpoint_id.clone()
}

/// A payment that is authorized, captured and refunded: its number of events.
async fn lifecycle(client: &Client) -> (String, u64) {
    let payment = client.create(authorization("tok_approve", 1_000)).await;
    let captured = client.ok(capture(&payment, None)).await.message.payment;
    let refunded = client.ok(refund(&captured.unwrap(), 300)).await.message;
    let payment = refunded.payment.unwrap();
    (payment.payment_id, payment.version)
}

async fn notifications(admin: &Client, state: NotificationState) -> Vec<Notification> {
    let mut request = ListNotificationsRequest {
        state: state.into(),
        page_size: 7,
        ..ListNotificationsRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let page = admin.ok(request.clone()).await.message;
        found.extend(page.notifications);
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

/// Waits until everything that was committed has been looked at, and nothing waits to be delivered.
async fn until_all_ended(site: &Site) {
    const LEFT: &str = "\
        select (select count(*) from journal) - (select next_position from notification_cursor) \
             + (select count(*) from notification_deliveries where state = 'PENDING')";
    eventually("nothing waits to be delivered", async || {
        (site.db.number(LEFT).await == 0).then_some(())
    })
    .await;
}

/// The value of a series of `/metrics` that counts.
fn counted(world: &World, series: &str) -> Option<u64> {
    let text = world.server.prometheus().unwrap().render();
    let line = text.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The entries about endpoints, oldest first.
async fn on_record(client: &Client, event_type: &str) -> Vec<AuditEntry> {
    let request = ListEntriesRequest {
        event_type: event_type.to_owned(),
        page_size: 100,
        ..ListEntriesRequest::default()
    };
    client.entries(request).await
}
