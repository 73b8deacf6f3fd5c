//! What arrives: every event, signed, in the order of each payment, whoever dies.

use std::time::Duration;

use quittance_proto::v1::NotificationState;
use quittance_server::auth::Role;
use serde_json::json;
use toml::Value;

use crate::harness::collector::{Collector, attribute};
use crate::harness::process::ServerProcess;
use crate::harness::receiver::{Answer, Got, Receiver};
use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::webhooks::Hooks;
use crate::harness::{Site, World, eventually, purchase, refund};

use super::{
    DELIVERED, administrator, counted, endpoint, lifecycle, notifications, options, schedule,
    until_all_ended,
};

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
        let documented = include_str!("../../../../docs/notifications.md");
        assert!(documented.contains(&format!("`{event}`")), "{event}");
    }
}

/// A refund whose bank finds out later that it cannot take it: first that it succeeded, then that it did not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_refund_that_fails_later_is_told_to_an_endpoint_after_its_success() {
    let hooks = Hooks::start_with(options()).await;
    let admin = administrator(&hooks.world, TENANT).await;
    let receiver = Receiver::start().await;
    let wanted = ["refund.succeeded", "refund.reversed"];
    let made = endpoint(&admin, &receiver, &wanted).await;
    let payment = hooks.client.create(purchase("tok_approve", 900)).await;
    hooks.client.ok(refund(&payment, 400)).await;
    let failed = hooks.control(&payment, "fail_refund", json!({})).await;
    hooks.tell(&failed, "APPLIED").await;
    eventually("both arrive", async || {
        (receiver.different() == 2).then_some(())
    })
    .await;
    let entries = hooks.client.entries_of(&payment.payment_id).await;
    let told = [
        ("refund.succeeded", "PARTIALLY_REFUNDED", 400),
        ("refund.reversed", "CAPTURED", 0),
    ];
    for (one, (event, state, refunded)) in receiver.taken().iter().zip(told) {
        assert!(one.is_signed_by(&made.secret), "{event}");
        let (json, entry) = (one.json(), entries.iter().find(|it| it.event_type == event));
        let (data, entry) = (&json["data"], entry.unwrap());
        assert_eq!(
            (&json["type"], &data["state"]),
            (&json!(event), &json!(state))
        );
        assert_eq!(data["event_id"], entry.entry_id);
        assert_eq!(data["payment_id"], payment.payment_id);
        assert_eq!(data["amounts"]["refunded"], refunded, "{event}");
        assert_eq!(data["amounts"]["captured"], 900, "{event}");
        let transaction = &data["transaction"];
        assert_eq!(transaction["transaction_id"], entry.transaction_id);
        assert_eq!(transaction["amount"], 400);
    }
    assert_eq!(receiver.in_order()[&payment.payment_id].len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_down_then_slow_then_back_misses_nothing_and_no_order() {
    const PAYMENTS: usize = 20;
    let waits = [&[200; 12][..], &[5_000; 18]].concat();
    let waits: Vec<_> = waits.into_iter().map(Value::from).collect();
    let options = options()
        .with("notifications.retry_schedule_ms", waits)
        .with("notifications.connect_timeout_ms", 400)
        .with("notifications.total_timeout_ms", 400);
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
    // So slow that its sender gives up on it, and tries again.
    receiver.answers(Answer::Withheld(200));
    eventually(
        "each payment's first event was waited for in vain",
        async || (receiver.waited_in_vain() > PAYMENTS).then_some(()),
    )
    .await;
    assert_eq!(receiver.different(), 0);
    let backlog = counted(&world, "payment_notification_backlog").unwrap();
    assert!(backlog >= PAYMENTS as u64, "{backlog}");
    receiver.lets_go();
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
    // Where its sender has gone, a connection is still counted for a moment.
    let most = receiver.most_at_once();
    assert!((2..=16).contains(&most), "{most} at once");
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
    // Each is counted after it is known to have arrived.
    let (ours, theirs) = eventually("all are counted", async || {
        let text = replica.server.prometheus().unwrap().render();
        let line = text.lines().find(|line| line.starts_with(DELIVERED))?;
        let theirs: u64 = line.rsplit(' ').next()?.parse().ok()?;
        let ours = counted(&world, DELIVERED)?;
        (ours + theirs == events).then_some((ours, theirs))
    })
    .await;
    assert!(ours > 0 && theirs > 0, "{ours} {theirs}");
    assert!(replica.server.shutdown().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s77_servers_killed_while_they_notify_lose_nothing_and_repeat_under_the_same_id() {
    const PAYMENTS: usize = 24;
    let options = options()
        .with("notifications.retry_schedule_ms", schedule(1_000, 30))
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
