//! What tenants are told by themselves: everything, at least once, signed, in the order of each payment, and to nobody else.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use quittance_proto::v1::{
    AuditEntry, CreateNotificationEndpointRequest, CreateNotificationEndpointResponse,
    DeleteNotificationEndpointRequest, GetNotificationRequest, ListEntriesRequest,
    ListNotificationEndpointsRequest, ListNotificationsRequest, Notification,
    NotificationEndpointState, NotificationEventTypes, NotificationState,
    ReplayNotificationsRequest, RotateNotificationEndpointSecretRequest,
    TestNotificationEndpointRequest, UpdateNotificationEndpointRequest,
};
use quittance_server::auth::Role;
use serde_json::json;
use tempfile::TempDir;
use toml::Value;
use tonic::Code;

use crate::harness::collector::{Collector, attribute};
use crate::harness::database::Database;
use crate::harness::process::{ServerProcess, command};
use crate::harness::receiver::{Answer, Got, Receiver};
use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::tls::pki;
use crate::harness::webhooks::Hooks;
use crate::harness::{
    Client, Site, SiteOptions, World, authorization, capture, eventually, purchase, refund,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_a_payment_arrives_signed_and_in_order_and_says_what_is_true_after_it() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let made = endpoint(&admin, &receiver, &[]).await;
    assert!(made.secret.starts_with("whsec_"));
    let (payment, events) = lifecycle(&world.client).await;
    eventually("every event arrives", async || {
        (receiver.different() as u64 == events).then_some(())
    })
    .await;
    let got = receiver.taken();
    let numbers: Vec<_> = got.iter().map(Got::entity_seq).collect();
    assert_eq!(numbers, (1..=events).collect::<Vec<_>>());
    let entries = world.client.entries_of(&payment).await;
    for (one, entry) in got.iter().zip(&entries) {
        assert!(one.is_signed_by(&made.secret));
        assert_eq!(one.headers["content-type"], "application/json");
        let trace = &one.headers["traceparent"];
        let json = one.json();
        assert_eq!(json["type"], entry.event_type);
        assert_eq!(json["data"]["event_id"], entry.entry_id);
        assert_eq!(json["data"]["tenant_id"], TENANT);
        assert_eq!(json["data"]["trace_id"], entry.trace_id);
        assert!(!trace.contains(&entry.trace_id), "a trace of its own");
        let transaction = &json["data"]["transaction"];
        assert_eq!(transaction["transaction_id"], entry.transaction_id);
    }
    let last = got.last().unwrap().json();
    assert_eq!(last["type"], "refund.succeeded");
    assert_eq!(last["data"]["state"], "PARTIALLY_REFUNDED");
    assert_eq!(last["data"]["currency"], "EUR");
    assert_eq!(last["data"]["currency_exponent"], 2);
    assert_eq!(last["data"]["transaction"]["amount"], 300);
    let amounts = &last["data"]["amounts"];
    assert_eq!(amounts["captured"], 1_000);
    assert_eq!(amounts["refunded"], 300);
    assert_eq!(amounts["refund_pending"], 0);
    // The journal and the stream know the same event by the same id.
    let delivered = notifications(&admin, NotificationState::Delivered).await;
    assert_eq!(delivered.len() as u64, events);
    let newest = &delivered[0];
    assert_eq!(newest.notification_id, got.last().unwrap().id);
    assert_eq!(newest.event_id, entries.last().unwrap().entry_id);
    assert_eq!((newest.attempts, newest.http_status), (1, 200));
    eventually("the metrics know", async || {
        let backlog = counted(&world, "payment_notification_backlog")?;
        let unplanned = counted(&world, "payment_notification_unplanned")?;
        let done = counted(&world, DELIVERED)?;
        ((backlog, unplanned, done) == (0, 0, events)).then_some(())
    })
    .await;
}

/// Also what nobody here did: the network's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_chargeback_and_its_reversal_are_told_to_an_endpoint() {
    let hooks = Hooks::start_with(options()).await;
    let admin = administrator(&hooks.world, TENANT).await;
    let receiver = Receiver::start().await;
    let wanted = ["chargeback.opened", "chargeback.reversed"];
    let made = endpoint(&admin, &receiver, &wanted).await;
    let payment = hooks.client.create(purchase("tok_approve", 900)).await;
    for (what, body) in [
        ("chargebacks", json!({ "amount": 400 })),
        ("close_dispute", json!({ "won": true })),
    ] {
        let event = hooks.control(&payment, what, body).await;
        hooks.tell(&event, "APPLIED").await;
    }
    eventually("both arrive", async || {
        (receiver.different() == 2).then_some(())
    })
    .await;
    let got = receiver.taken();
    let entries = hooks.client.entries_of(&payment.payment_id).await;
    for ((one, event), charged_back) in got.iter().zip(wanted).zip([400, 0]) {
        assert!(one.is_signed_by(&made.secret));
        let json = one.json();
        let entry = entries.iter().find(|it| it.event_type == event).unwrap();
        assert_eq!(json["type"], event);
        assert_eq!(json["data"]["event_id"], entry.entry_id);
        assert_eq!(json["data"]["payment_id"], payment.payment_id);
        assert_eq!(json["data"]["state"], "CAPTURED");
        assert_eq!(json["data"]["amounts"]["charged_back"], charged_back);
        let transaction = &json["data"]["transaction"];
        assert_eq!(transaction["transaction_id"], entry.transaction_id);
        assert_eq!(transaction["amount"], 400);
        let documented = include_str!("../../../docs/notifications.md");
        assert!(documented.contains(&format!("`{event}`")), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_down_then_slow_then_back_misses_nothing_and_no_order() {
    const PAYMENTS: usize = 20;
    let waits = [[200; 10], [1_000; 10], [1_000; 10]].concat();
    let waits: Vec<_> = waits.into_iter().map(Value::from).collect();
    let options = options().with("notifications.retry_schedule_ms", waits);
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let other = Receiver::start().await;
    endpoint(&admin, &receiver, &[]).await;
    endpoint(&admin, &other, &["capture.succeeded"]).await;
    receiver.answers(Answer::status(503));
    let mut events = 0;
    for _ in 0..PAYMENTS {
        events += lifecycle(&world.client).await.1;
    }
    // Whoever is well is told at once.
    eventually("the other one has it all", async || {
        (other.different() == PAYMENTS).then_some(())
    })
    .await;
    eventually("the backlog is seen", async || {
        let backlog = counted(&world, "payment_notification_backlog")?;
        (backlog >= PAYMENTS as u64).then_some(())
    })
    .await;
    receiver.answers(Answer::HangUp);
    let before = receiver.got().len();
    eventually("it was tried again in vain", async || {
        (receiver.got().len() > before + PAYMENTS).then_some(())
    })
    .await;
    assert_eq!(receiver.different(), 0);
    receiver.answers(Answer::Slow(Duration::from_millis(30)));
    eventually("some arrives", async || {
        (receiver.different() > PAYMENTS).then_some(())
    })
    .await;
    receiver.answers(Answer::status(200));
    until_all_ended(&world).await;
    assert_eq!(receiver.different() as u64, events);
    let numbers = receiver.in_order();
    assert_eq!(numbers.len(), PAYMENTS);
    for (payment, numbers) in numbers {
        let all: Vec<_> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, all, "{payment}");
    }
    assert_eq!(notifications(&admin, NotificationState::Dead).await, []);
    let most = receiver.most_at_once();
    assert!((2..=8).contains(&most), "{most} at once");
    eventually("the backlog is zero again", async || {
        (counted(&world, "payment_notification_backlog")? == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_share_the_work_and_keep_the_order() {
    const PAYMENTS: usize = 30;
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let replica = world.replica().await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver, &[]).await;
    // Slow enough for both to be at it.
    receiver.answers(Answer::Slow(Duration::from_millis(5)));
    let mut events = 0;
    for number in 0..PAYMENTS {
        let client = if number % 2 == 0 {
            &world.client
        } else {
            &replica.client
        };
        events += lifecycle(client).await.1;
    }
    until_all_ended(&world).await;
    assert_eq!(receiver.different() as u64, events);
    assert_eq!(receiver.taken().len() as u64, events, "each once");
    assert_eq!(receiver.in_order().len(), PAYMENTS);
    let text = replica.server.prometheus().unwrap().render();
    let line = text.lines().find(|line| line.starts_with(DELIVERED));
    let theirs = line.unwrap().rsplit(' ').next().unwrap();
    let theirs: u64 = theirs.parse().unwrap();
    let ours = counted(&world, DELIVERED).unwrap();
    assert_eq!(ours + theirs, events);
    assert!(ours > 0 && theirs > 0, "{ours} {theirs}");
    assert!(replica.server.shutdown().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s77_servers_killed_while_they_notify_lose_nothing_and_repeat_under_the_same_id() {
    const PAYMENTS: usize = 24;
    let options = options()
        .with("notifications.claim_seconds", 1)
        .with("notifications.connect_timeout_ms", 300)
        .with("notifications.total_timeout_ms", 500);
    let site = Site::new(options).await;
    let mut servers = [
        ServerProcess::start(&site, Vec::new()).await,
        ServerProcess::start(&site, Vec::new()).await,
    ];
    let mut roles = TENANT_ROLES.to_vec();
    roles.push(Role::Admin);
    let admin = site.caller(servers[0].address, TENANT, &roles).await;
    let receiver = Receiver::start().await;
    let made = endpoint(&admin, &receiver, &[]).await;
    receiver.answers(Answer::Slow(Duration::from_millis(10)));
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    println!("seed {seed}");
    let (mut events, mut chance) = (0, seed);
    for number in 0..PAYMENTS {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let victim = usize::from(chance >> 63 == 1);
        events += lifecycle(&servers[1 - victim].client).await.1;
        if number % 4 != 3 {
            continue;
        }
        // In the middle of what is being sent.
        let until = receiver.got().len() + usize::try_from(chance >> 60).unwrap() % 4;
        let more = async || (receiver.got().len() >= until).then_some(());
        eventually("some more arrives", more).await;
        servers[victim].kill();
        servers[victim].start_again().await;
    }
    until_all_ended(&site).await;
    assert_eq!(receiver.different() as u64, events, "nothing is lost");
    let dead = "select count(*) from notification_deliveries where state = 'DEAD'";
    assert_eq!(site.db.number(dead).await, 0);
    // A repetition has the id and the bytes of the first, and is signed anew.
    let taken = receiver.taken();
    let mut bodies = std::collections::BTreeMap::new();
    for one in &taken {
        assert!(one.is_signed_by(&made.secret));
        let known = bodies
            .entry(one.id.clone())
            .or_insert_with(|| one.body.clone());
        assert_eq!(*known, one.body);
    }
    println!(
        "{} events, {} repeated",
        events,
        taken.len() as u64 - events
    );
    for (payment, numbers) in receiver.in_order() {
        let all: Vec<_> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, all, "{payment}");
    }
    let [first, second] = servers;
    for log in [first.stop().await, second.stop().await] {
        assert!(!log.contains("whsec_") && !log.contains("/hooks"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_is_linked_to_the_span_that_accepted_the_payment() {
    let site = Site::new(options()).await;
    let collector = Collector::start().await;
    let settings = vec![
        ("telemetry.otlp_endpoint", collector.endpoint().into()),
        ("telemetry.otlp_protocol", "grpc".into()),
    ];
    let server = ServerProcess::start(&site, settings).await;
    let admin = site.caller(server.address, TENANT, &[Role::Admin]).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver, &["payment.captured"]).await;
    let answer = server.client.ok(purchase("tok_approve", 100)).await;
    let accepted_in = answer.trace_id();
    let got = eventually("it arrives", async || receiver.taken().pop()).await;
    until_all_ended(&site).await;
    server.stop().await;
    let spans = collector.spans();
    let sent: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "notification")
        .collect();
    let [sent] = &sent[..] else {
        panic!("not one: {sent:?}")
    };
    assert!(sent.parent_span_id.is_empty(), "the root of its trace");
    let links = sent.links.iter().map(|link| hex::encode(&link.trace_id));
    assert_eq!(links.collect::<Vec<_>>(), [accepted_in]);
    let payment = answer.message.payment.unwrap().payment_id;
    for (name, expected) in [
        ("payment.id", payment.as_str()),
        ("notification.id", &got.id),
        ("outcome", "DELIVERED"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(sent, name).as_deref(), Some(expected), "{name}");
    }
    // The receiver goes on with this trace.
    let trace = hex::encode(&sent.trace_id);
    assert!(got.headers["traceparent"].contains(&trace));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_is_switched_off_on_record_and_its_dead_letters_can_be_replayed() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = id_of(&endpoint(&admin, &receiver, &[]).await);
    receiver.answers(Answer::status(410));
    let (_, events) = lifecycle(&world.client).await;
    eventually("all are dead letters", async || {
        let dead = notifications(&admin, NotificationState::Dead).await;
        (dead.len() as u64 == events).then_some(())
    })
    .await;
    assert_eq!(receiver.got().len(), 1, "it is not asked again");
    let list = ListNotificationEndpointsRequest::default();
    let listed = admin.ok(list).await.message.endpoints;
    assert_eq!(listed[0].state(), NotificationEndpointState::Gone);
    let entries = on_record(&world.client, "endpoint.gone").await;
    assert_eq!(entries[0].details["endpoint_id"], id);
    assert_eq!(entries[0].actor.as_ref().unwrap().r#type, "system");
    let causes: BTreeSet<_> = notifications(&admin, NotificationState::Dead)
        .await
        .into_iter()
        .map(|one| one.cause)
        .collect();
    let expected = ["ENDPOINT_CLOSED", "GONE"].map(str::to_owned);
    assert_eq!(causes, expected.into());
    // Nothing is replayed while it is off.
    let all = ReplayNotificationsRequest {
        endpoint_id: id.clone(),
        ..ReplayNotificationsRequest::default()
    };
    let refused = admin.refused(all.clone()).await;
    refused.is(Code::FailedPrecondition, "ENDPOINT_NOT_ENABLED");
    receiver.answers(Answer::status(200));
    let on = UpdateNotificationEndpointRequest {
        endpoint_id: id,
        enabled: Some(true),
        ..UpdateNotificationEndpointRequest::default()
    };
    admin.ok(on).await;
    assert_eq!(u64::from(admin.ok(all).await.message.replayed), events);
    until_all_ended(&world).await;
    assert_eq!(receiver.different() as u64, events);
    assert_eq!(receiver.in_order().len(), 1);
    let first = receiver.got()[0].id.clone();
    assert!(receiver.taken().iter().any(|one| one.id == first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_too_long_is_a_dead_letter_whose_replay_has_its_id() {
    let options = options().with("notifications.retry_schedule_ms", schedule(20, 2));
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver, &["payment.captured"]).await;
    receiver.answers(Answer::Status(
        302,
        format!("location: {}\r\n", receiver.url()),
    ));
    world.client.create(purchase("tok_approve", 700)).await;
    let dead = eventually("it is given up", async || {
        notifications(&admin, NotificationState::Dead).await.pop()
    })
    .await;
    assert_eq!((dead.attempts, dead.cause.as_str()), (3, "REDIRECT"));
    assert_eq!(receiver.got().len(), 3, "a redirect is not followed");
    let get = GetNotificationRequest {
        notification_id: dead.notification_id.clone(),
        tenant_id: String::new(),
    };
    let shown = admin.ok(get.clone()).await.message;
    let log: Vec<_> = shown
        .attempts
        .iter()
        .map(|one| (one.number, one.http_status))
        .collect();
    assert_eq!(log, [(1, 302), (2, 302), (3, 302)]);
    eventually("the metric knows", async || {
        (counted(&world, "payment_notification_dead")? == 1).then_some(())
    })
    .await;
    receiver.answers(Answer::status(200));
    let replay = ReplayNotificationsRequest {
        notification_id: dead.notification_id.clone(),
        ..ReplayNotificationsRequest::default()
    };
    // Another tenant's administrator cannot see it, let alone replay it.
    let theirs = administrator(&world, "globex").await;
    let refused = theirs.refused(replay.clone()).await;
    refused.is(Code::NotFound, "NOTIFICATION_NOT_FOUND");
    theirs
        .refused(get)
        .await
        .is(Code::NotFound, "NOTIFICATION_NOT_FOUND");
    assert_eq!(admin.ok(replay.clone()).await.message.replayed, 1);
    until_all_ended(&world).await;
    let got = receiver.got();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|one| one.id == dead.notification_id));
    assert!(got.iter().all(|one| one.body == got[0].body));
    let again = admin.refused(replay).await;
    again.is(Code::FailedPrecondition, "NOTIFICATION_NOT_DEAD");
    let entries = on_record(&world.client, "endpoint.replayed").await;
    assert_eq!(entries[0].details["notification_id"], dead.notification_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_asks_for_time_gets_it() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver, &["payment.captured"]).await;
    receiver.answers(Answer::Status(429, "retry-after: 600\r\n".to_owned()));
    world.client.create(purchase("tok_approve", 700)).await;
    let waiting = eventually("it was answered", async || {
        let pending = notifications(&admin, NotificationState::Pending)
            .await
            .pop();
        pending.filter(|one| one.http_status == 429)
    })
    .await;
    let next = waiting.next_attempt_time.unwrap().seconds;
    let made = waiting.create_time.unwrap().seconds;
    assert!((590..=660).contains(&(next - made)), "{}", next - made);
    assert_eq!(receiver.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_an_endpoint_gets_the_events_of_its_tenant_alone() {
    let world = World::start_with(options()).await;
    let (ours, theirs) = (Receiver::start().await, Receiver::start().await);
    let ours_admin = administrator(&world, TENANT).await;
    let theirs_admin = administrator(&world, "globex").await;
    let made = endpoint(&ours_admin, &ours, &[]).await;
    endpoint(&theirs_admin, &theirs, &[]).await;
    let (our_payment, our_events) = lifecycle(&ours_admin).await;
    let (their_payment, their_events) = lifecycle(&theirs_admin).await;
    until_all_ended(&world).await;
    for (receiver, tenant, payment, events) in [
        (&ours, TENANT, our_payment, our_events),
        (&theirs, "globex", their_payment, their_events),
    ] {
        let taken = receiver.taken();
        assert_eq!(taken.len() as u64, events);
        for one in taken {
            assert_eq!(one.payment(), payment);
            assert_eq!(one.json()["data"]["tenant_id"], tenant);
        }
    }
    // Nor is it seen or touched by another tenant's administrator.
    let id = id_of(&made);
    let list = ListNotificationEndpointsRequest::default();
    let listed = theirs_admin.ok(list.clone()).await.message.endpoints;
    assert!(listed.iter().all(|one| one.endpoint_id != id));
    let named = ListNotificationEndpointsRequest {
        tenant_id: TENANT.to_owned(),
        ..list.clone()
    };
    let refused = theirs_admin.refused(named.clone()).await;
    refused.is(Code::PermissionDenied, "ROLE_REQUIRED");
    let delete = DeleteNotificationEndpointRequest {
        endpoint_id: id.clone(),
        tenant_id: String::new(),
    };
    let refused = theirs_admin.refused(delete.clone()).await;
    refused.is(Code::NotFound, "ENDPOINT_NOT_FOUND");
    let test = TestNotificationEndpointRequest {
        endpoint_id: id.clone(),
        tenant_id: String::new(),
    };
    theirs_admin
        .refused(test)
        .await
        .is(Code::NotFound, "ENDPOINT_NOT_FOUND");
    // The platform's administrators act for all.
    let platform = world.as_role("ops", &[Role::PlatformAdmin]).await;
    assert_eq!(platform.ok(list).await.message.endpoints.len(), 2);
    assert_eq!(platform.ok(named).await.message.endpoints.len(), 1);
    let delete = DeleteNotificationEndpointRequest {
        tenant_id: TENANT.to_owned(),
        ..delete
    };
    platform.ok(delete).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_secret_is_changed_both_are_live_and_then_one() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let made = endpoint(&admin, &receiver, &["payment.captured"]).await;
    let rotate = |keep| RotateNotificationEndpointSecretRequest {
        endpoint_id: id_of(&made),
        keep_previous_seconds: keep,
        tenant_id: String::new(),
    };
    let signed_by = async |secrets: &[&str]| {
        let before = receiver.taken().len();
        world.client.create(purchase("tok_approve", 700)).await;
        eventually("it arrives", async || {
            (receiver.taken().len() > before).then_some(())
        })
        .await;
        let one = receiver.taken().pop().unwrap();
        secrets
            .iter()
            .map(|secret| one.is_signed_by(secret))
            .collect::<Vec<_>>()
    };
    let second = admin.ok(rotate(None)).await.message;
    let until = second.endpoint.unwrap().previous_secret_expire_time;
    assert!(until.is_some());
    let both = [made.secret.as_str(), second.secret.as_str()];
    assert_eq!(signed_by(&both).await, [true, true]);
    // At most two: a third drops the first.
    let third = admin.ok(rotate(Some(3_600))).await.message.secret;
    let all = [both[0], both[1], third.as_str()];
    assert_eq!(signed_by(&all).await, [false, true, true]);
    // It became known: only the new one counts from now on.
    let fourth = admin.ok(rotate(Some(0))).await.message.secret;
    let all = [both[1], third.as_str(), fourth.as_str()];
    assert_eq!(signed_by(&all).await, [false, false, true]);
    let refused = admin.refused(rotate(Some(2_592_001))).await;
    refused.is(Code::InvalidArgument, "INVALID_FIELD");
    refused.names(&["keep_previous_seconds"]);
    let entries = on_record(&world.client, "endpoint.secret_rotated").await;
    assert_eq!(entries.len(), 3);
    let text = format!("{entries:?}");
    assert!(!text.contains("whsec_"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_made_changed_and_deleted_on_record_and_bad_fields_are_named() {
    let options = options().with("notifications.max_endpoints_per_tenant", 2);
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let bad = CreateNotificationEndpointRequest {
        url: "http://169.254.169.254/latest/meta-data".to_owned(),
        description: "x".repeat(501),
        event_types: vec![
            "payment.captured".to_owned(),
            "*".to_owned(),
            "Refund".to_owned(),
        ],
        tenant_id: "a b".to_owned(),
    };
    let refused = admin.refused(bad).await;
    refused.is(Code::InvalidArgument, "INVALID_FIELD");
    refused.names(&[
        "url",
        "description",
        "event_types[1]",
        "event_types[2]",
        "tenant_id",
    ]);
    for url in [
        "https://10.0.0.1/",
        "https://127.0.0.2:8443/",
        "https://[::1]:8443/",
        "https://[fd00::1]/",
        "https://user:pass@receiver.example/",
        "http://receiver.example/",
    ] {
        let request = CreateNotificationEndpointRequest {
            url: url.to_owned(),
            ..CreateNotificationEndpointRequest::default()
        };
        let refused = admin.refused(request).await;
        refused.is(Code::InvalidArgument, "INVALID_FIELD");
        refused.names(&["url"]);
        assert!(!refused.message.contains("pass"), "{refused:?}");
    }
    let made = endpoint(&admin, &receiver, &[]).await;
    let id = id_of(&made);
    let update = UpdateNotificationEndpointRequest {
        endpoint_id: id.clone(),
        description: Some("ledger".to_owned()),
        event_types: Some(NotificationEventTypes {
            event_types: vec!["refund.*".to_owned()],
        }),
        ..UpdateNotificationEndpointRequest::default()
    };
    let changed = admin.ok(update).await.message.endpoint.unwrap();
    assert_eq!(changed.description, "ledger");
    assert_eq!(changed.event_types, ["refund.*"]);
    assert_eq!(changed.url, receiver.url());
    lifecycle(&world.client).await;
    until_all_ended(&world).await;
    let kinds: BTreeSet<_> = receiver.taken().iter().map(Got::event_type).collect();
    assert!(
        kinds.iter().all(|kind| kind.starts_with("refund.")),
        "{kinds:?}"
    );
    assert!(!kinds.is_empty());

    let tested = admin
        .ok(TestNotificationEndpointRequest {
            endpoint_id: id.clone(),
            tenant_id: String::new(),
        })
        .await
        .message;
    assert!(tested.delivered);
    let got = receiver.got().pop().unwrap();
    assert_eq!(
        (got.id.as_str(), got.event_type().as_str()),
        (tested.notification_id.as_str(), "endpoint.test")
    );
    assert!(got.is_signed_by(&made.secret));

    endpoint(&admin, &receiver, &[]).await;
    let third = CreateNotificationEndpointRequest {
        url: receiver.url(),
        ..CreateNotificationEndpointRequest::default()
    };
    let refused = admin.refused(third).await;
    refused.is(Code::FailedPrecondition, "TOO_MANY_ENDPOINTS");
    let delete = DeleteNotificationEndpointRequest {
        endpoint_id: id.clone(),
        tenant_id: String::new(),
    };
    admin.ok(delete.clone()).await;
    let refused = admin.refused(delete).await;
    refused.is(Code::NotFound, "ENDPOINT_NOT_FOUND");
    for (event, count) in [
        ("created", 2),
        ("updated", 1),
        ("tested", 1),
        ("deleted", 1),
    ] {
        let entries = on_record(&world.client, &format!("endpoint.{event}")).await;
        assert_eq!(entries.len(), count, "{event}");
        assert_eq!(entries[0].details["endpoint_id"], id);
        let actor = entries[0].actor.as_ref().unwrap();
        assert_eq!((actor.r#type.as_str(), actor.id.len()), ("service", 16));
        let text = format!("{entries:?}");
        assert!(
            !text.contains("/hooks") && !text.contains("whsec_"),
            "{text}"
        );
    }
}

/// Notifications that a day delivers are more than one statement removes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_everything_that_was_delivered_long_ago_is_removed_however_much_it_is() {
    const LEFT: &str = "select count(*) from notification_deliveries";
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = id_of(&endpoint(&admin, &receiver, &[]).await);
    // As a server leaves them that was away for long.
    let old = format!(
        "insert into notification_deliveries (endpoint_id, tenant_id, position, entry_id, payment_id, entity_seq, \
             event_type, state, next_attempt_at, ended_at) \
         select '{id}', '{TENANT}', n, gen_random_uuid(), gen_random_uuid(), 1, 'payment.captured', 'DELIVERED', null, \
             now() - case when n <= 2200 then interval '31 days' else interval '29 days' end \
         from generate_series(1, 2500) n"
    );
    world.db.execute(&old, &[]).await;
    let replica = world.replica().await;
    eventually("what is too old goes", async || {
        (world.db.number(LEFT).await == 300).then_some(())
    })
    .await;
    assert!(replica.server.shutdown().await);
}

/// One capture that the receiver did not take, and that is not tried again for an hour.
async fn one_that_waits(world: &World, admin: &Client, receiver: &Receiver) -> String {
    endpoint(admin, receiver, &["payment.captured"]).await;
    receiver.answers(Answer::status(503));
    world.client.create(purchase("tok_approve", 700)).await;
    let found = eventually("it was tried once", async || {
        let mut found = notifications(admin, NotificationState::Pending).await;
        found.retain(|one| one.http_status == 503);
        found.pop()
    });
    found.await.notification_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s77_a_notification_that_those_who_send_it_die_of_is_given_up_and_can_be_replayed() {
    let options = options().with("notifications.retry_schedule_ms", schedule(3_600_000, 2));
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = one_that_waits(&world, &admin, &receiver).await;
    receiver.answers(Answer::status(200));
    // As servers leave it that died five times over it: it was begun six times.
    let died = "update notification_deliveries set attempts = 6, next_attempt_at = now()";
    world.db.execute(died, &[]).await;
    let dead = eventually("it is given up", async || {
        notifications(&admin, NotificationState::Dead).await.pop()
    })
    .await;
    assert_eq!(dead.notification_id, id);
    let get = GetNotificationRequest {
        notification_id: id.clone(),
        tenant_id: String::new(),
    };
    let attempts = admin.ok(get).await.message.attempts;
    let causes: Vec<_> = attempts.iter().map(|one| one.cause.as_str()).collect();
    assert_eq!(causes, ["HTTP_STATUS", "ABANDONED"]);
    assert_eq!(receiver.taken().len(), 0, "it was not sent");
    let replay = ReplayNotificationsRequest {
        notification_id: id.clone(),
        ..ReplayNotificationsRequest::default()
    };
    admin.ok(replay).await;
    eventually("it arrives", async || {
        (receiver.taken().pop()?.id == id).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_database_that_fails_uses_up_nothing_of_a_receivers_schedule() {
    const POSTPONED: &str = "select count(*) from notification_deliveries \
                             where state = 'PENDING' and attempts > 1 and attempts_before > 0";
    let options = options()
        .with("notifications.retry_schedule_ms", schedule(3_600_000, 1))
        .with("database.statement_timeout_ms", 300);
    let world = World::start_with(options).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = one_that_waits(&world, &admin, &receiver).await;
    receiver.answers(Answer::status(200));
    // Nobody can read the journal, while everything else goes on.
    let holder = Database::connect(world.database_url()).await;
    holder.execute("begin", &[]).await;
    let lock = "lock table journal in access exclusive mode";
    holder.execute(lock, &[]).await;
    let due = "update notification_deliveries set next_attempt_at = now()";
    world.db.execute(due, &[]).await;
    eventually("it is left alone", async || {
        (world.db.number(POSTPONED).await == 1).then_some(())
    })
    .await;
    holder.execute("rollback", &[]).await;
    let again = "update notification_deliveries set claimed_until = now() where state = 'PENDING'";
    world.db.execute(again, &[]).await;
    eventually("it arrives", async || {
        (receiver.taken().pop()?.id == id).then_some(())
    })
    .await;
    until_all_ended(&world).await;
    let failures = "select failures::bigint from notification_deliveries";
    assert_eq!(world.db.number(failures).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_an_endpoint_is_tested_once_at_a_time() {
    let world = World::start_with(options()).await;
    let admin = administrator(&world, TENANT).await;
    let receiver = Receiver::start().await;
    let id = id_of(&endpoint(&admin, &receiver, &[]).await);
    let test = TestNotificationEndpointRequest {
        endpoint_id: id,
        tenant_id: String::new(),
    };
    receiver.answers(Answer::Never);
    let (first, request) = (administrator(&world, TENANT).await, test.clone());
    let first = tokio::spawn(async move { first.ok(request).await });
    eventually("it is under way", async || {
        (receiver.at_once() == 1).then_some(())
    })
    .await;
    let refused = admin.refused(test.clone()).await;
    refused.is(Code::ResourceExhausted, "OVERLOADED");
    assert_eq!(on_record(&world.client, "endpoint.tested").await.len(), 1);
    // Whoever gives up leaves room.
    first.abort();
    eventually("it has ended", async || {
        (receiver.at_once() == 0).then_some(())
    })
    .await;
    receiver.answers(Answer::status(200));
    assert!(admin.ok(test).await.message.delivered);
}

/// The command line, called as an operator calls it.
struct CommandLine {
    address: String,
    key_file: std::path::PathBuf,
    _directory: TempDir,
}

impl CommandLine {
    async fn new(world: &World) -> Self {
        let directory = TempDir::new().unwrap();
        let key_file = directory.path().join("key");
        let key = world.api_key(TENANT, &[Role::Admin]).await;
        std::fs::write(&key_file, key).unwrap();
        Self {
            address: format!("https://localhost:{}", world.address().port()),
            key_file,
            _directory: directory,
        }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command: Command = command(arguments);
        command
            .env("QUITTANCE_ADDRESS", &self.address)
            .env("QUITTANCE_CA_FILE", &pki().ca_file)
            .env("QUITTANCE_API_KEY_FILE", &self.key_file);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    async fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        errors
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_manages_endpoints_and_replays_dead_letters() {
    let options = options().with("notifications.retry_schedule_ms", schedule(20, 1));
    let world = World::start_with(options).await;
    let shell = CommandLine::new(&world).await;
    let receiver = Receiver::start().await;
    let listed = shell.prints(&["endpoints", "list"]).await;
    assert_eq!(listed.trim(), "No endpoints.");
    let url = receiver.url();
    let created = ["endpoints", "create", &url, "--event", "payment.captured"];
    let printed = shell.prints(&created).await;
    let secret = printed.lines().last().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"), "{printed}");
    let admin = administrator(&world, TENANT).await;
    let list = ListNotificationEndpointsRequest::default();
    let id = admin.ok(list).await.message.endpoints[0]
        .endpoint_id
        .clone();
    let listed = shell.prints(&["endpoints", "list"]).await;
    assert!(
        listed.contains(&id) && listed.contains("ENABLED"),
        "{listed}"
    );
    assert!(!listed.contains("whsec_"), "{listed}");
    let tested = shell.prints(&["endpoints", "test", &id]).await;
    assert!(tested.contains("HTTP 200"), "{tested}");

    receiver.answers(Answer::status(500));
    let tested = shell.fails(1, &["endpoints", "test", &id]).await;
    assert!(tested.contains("HTTP_STATUS, HTTP 500"), "{tested}");
    world.client.create(purchase("tok_approve", 700)).await;
    let dead = eventually("it is given up", async || {
        notifications(&admin, NotificationState::Dead).await.pop()
    })
    .await;
    let dead = dead.notification_id.as_str();
    let listed = shell
        .prints(&["notifications", "list", "--state", "dead"])
        .await;
    assert!(
        listed.contains(dead) && listed.contains("payment.captured"),
        "{listed}"
    );
    let shown = shell.prints(&["notifications", "show", dead]).await;
    assert_eq!(shown.matches("HTTP_STATUS").count(), 3, "{shown}");
    receiver.answers(Answer::status(200));
    let replayed = shell
        .prints(&["notifications", "replay", "--endpoint", &id])
        .await;
    assert_eq!(replayed.trim(), "Sent again: 1.");
    eventually("it arrives", async || {
        let taken = receiver.taken();
        taken.iter().any(|one| one.id == dead).then_some(())
    })
    .await;
    until_all_ended(&world).await;
    let said = shell.fails(3, &["notifications", "replay", dead]).await;
    assert!(
        said.contains("NOTIFICATION_NOT_DEAD") && said.contains("What to do"),
        "{said}"
    );
    let off = shell
        .prints(&["endpoints", "update", &id, "--disable"])
        .await;
    assert!(off.contains("DISABLED"), "{off}");
    let rotated = shell.prints(&["endpoints", "rotate-secret", &id]).await;
    let next = rotated.lines().last().unwrap();
    assert!(next.starts_with("whsec_") && next != secret, "{rotated}");
    let deleted = shell.prints(&["endpoints", "delete", &id]).await;
    assert_eq!(deleted.trim(), "Deleted.");
    let said = shell.fails(3, &["endpoints", "delete", &id]).await;
    assert!(said.contains("ENDPOINT_NOT_FOUND"), "{said}");
    shell.fails(2, &["notifications", "replay"]).await;
    shell
        .fails(2, &["notifications", "replay", dead, "--endpoint", &id])
        .await;
}
