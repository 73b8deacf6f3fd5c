//! What the provider tells by itself: believed only where it is signed, applied once, in any order, and never lost.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use quittance_proto::v1::{
    AuditEntry, ListEntriesRequest, Payment, PaymentState, TransactionState,
};
use quittance_sandbox::{Event, EventType, OperationStatus, Sandbox, SandboxConfig, WebhookConfig};
use quittance_server::auth::Role;
use quittance_test_support::Direction::ToClient;
use quittance_test_support::{Cut, Plan};
use reqwest::StatusCode;
use tokio::net::TcpSocket;
use toml::Value;

use crate::harness::collector::{Collector, attribute};
use crate::harness::process::ServerProcess;
use crate::harness::site::{ACCOUNT, PROVIDER_TIMEOUT_MS, SANDBOX_KEY, account};
use crate::harness::tls::pki;
use crate::harness::webhooks::{
    Hooks, NEXT_SECRET, OTHER_ACCOUNT, OTHER_SECRET, Post, SECRET, now,
};
use crate::harness::{
    Amounts as _, Keyed as _, Links, Site, SiteOptions, World, authorization, eventually,
    get_by_key, purchase, refund, void,
};

/// Charged, and answered with an error: what became of it is not known.
const UNHEARD: &str = "tok_approve?status_after=500";

fn transaction_of(payment: &Payment) -> &str {
    &payment.transactions.last().unwrap().transaction_id
}

/// A payment that the provider has charged, and we do not know it; with the event that tells it.
async fn unheard(hooks: &Hooks, minor_units: i64) -> (Payment, Event) {
    let pending = hooks.client.create(purchase(UNHEARD, minor_units)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let event = hooks.event_about(transaction_of(&pending));
    (pending, event)
}

async fn until_state(hooks: &Hooks, payment: &Payment, state: PaymentState) -> Payment {
    eventually(&format!("the payment is {state:?}"), async || {
        let payment = hooks.client.payment(&payment.payment_id).await;
        (payment.state() == state).then_some(payment)
    })
    .await
}

async fn entries_of_type(hooks: &Hooks, payment: &Payment, event_type: &str) -> Vec<AuditEntry> {
    let mut entries = hooks.client.entries_of(&payment.payment_id).await;
    entries.retain(|entry| entry.event_type == event_type);
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_a_500_is_resolved_by_the_webhook_that_says_success() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    hooks.deliver(&Post::of(&event)).await;
    let paid = until_state(&hooks, &pending, PaymentState::Captured).await;
    assert_eq!(paid.captured(), 800);
    let kept = hooks.until(&event.id, "APPLIED").await;
    assert_eq!((kept.reason, kept.attempts), (None, 1));
    let captured = entries_of_type(&hooks, &paid, "payment.captured").await;
    assert_eq!(captured.len(), 1, "one entry of success");
    let (actor, source) = (&captured[0].actor, &captured[0].source);
    let (actor, source) = (actor.as_ref().unwrap(), source.as_ref().unwrap());
    assert_eq!(
        (actor.r#type.as_str(), actor.id.as_str()),
        ("provider", ACCOUNT)
    );
    assert_eq!(source.rpc_method, "webhook");
    let sql = "select webhook_id::text from webhook_inbox";
    let id: String = hooks.db.row(sql, &[]).await.get(0);
    assert_eq!(captured[0].request_id, id, "the entry names its webhook");
    assert!(
        hooks
            .db
            .places_of("payment.captured\",\"created_at")
            .await
            .is_empty()
    );
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s41_a_webhook_before_the_answer_is_applied_and_the_answer_changes_nothing() {
    let hooks = Hooks::start().await;
    let links = Links::between(&hooks.all_settings(), hooks.sandbox.addr()).await;
    let mut settings = hooks.all_settings();
    settings.extend(links.settings());
    let sender = ServerProcess::start(&hooks, settings).await;
    let plan = Plan::hold_answer_to("POST /").once();
    links.provider.set(ToClient, plan);
    let (client, request) = (
        sender.client.clone(),
        purchase("tok_approve", 700).key("slow"),
    );
    let call = tokio::spawn(async move { client.create(request).await });
    links.provider.wait_until_held(ToClient).await;
    let event = eventually("the provider has charged", async || hooks.events().pop()).await;
    hooks.deliver(&Post::of(&event)).await;
    let early = eventually("the webhook is applied", async || {
        let found = hooks.client.ok(get_by_key("slow")).await.message.payment?;
        (found.state() == PaymentState::Captured).then_some(found)
    })
    .await;
    assert!(!call.is_finished(), "the answer is still on its way");
    links.provider.release_then(ToClient, Plan::pass());
    let answered = call.await.unwrap();
    assert_eq!(answered.payment_id, early.payment_id);
    assert_eq!(answered.captured(), 700);
    let captured = entries_of_type(&hooks, &answered, "payment.captured").await;
    assert_eq!(captured.len(), 1, "one entry of success");
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s41_a_webhook_after_the_answer_tells_nothing_new() {
    let hooks = Hooks::start().await;
    let paid = hooks.client.create(purchase("tok_approve", 700)).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    let event = hooks.event_about(transaction_of(&paid));
    hooks.deliver(&Post::of(&event)).await;
    hooks.until(&event.id, "IGNORED").await;
    let after = hooks.client.payment(&paid.payment_id).await;
    assert_eq!(after.version, paid.version);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_webhook_of_another_tenants_account_changes_nothing() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    let body = serde_json::to_vec(&event).unwrap();
    // The right secret of the wrong account: a good signature about somebody else's money.
    let theirs = Post::signed(&event.id, &body, OTHER_SECRET);
    hooks.deliver(&theirs.clone().to(OTHER_ACCOUNT)).await;
    let kept = hooks.until(&event.id, "DEAD").await;
    assert_eq!(kept.reason.as_deref(), Some("OTHER_ACCOUNT"));
    assert_eq!(kept.account, OTHER_ACCOUNT);
    assert_eq!(
        theirs.send(hooks.at()).await,
        StatusCode::UNAUTHORIZED,
        "their secret is none of ours"
    );
    let unchanged = hooks.client.payment(&pending.payment_id).await;
    assert_eq!(unchanged.version, pending.version);
    // And the event's id is not used up for the account whose it is.
    hooks.deliver(&Post::of(&event)).await;
    until_state(&hooks, &pending, PaymentState::Captured).await;
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s46_a_bad_or_missing_signature_is_refused_counted_and_put_on_record() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    let good = Post::of(&event);
    let none = Post {
        signature: None,
        ..good.clone()
    };
    let forged = Post {
        signature: Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()),
        ..good.clone()
    };
    for bad in [&none, &forged] {
        assert_eq!(bad.send(hooks.at()).await, StatusCode::UNAUTHORIZED);
    }
    let stranger = good.clone().to("nobody");
    assert_eq!(stranger.send(hooks.at()).await, StatusCode::NOT_FOUND);
    let twice = good.request(hooks.at()).header("webhook-id", &event.id);
    let twice = twice.send().await.unwrap();
    assert_eq!(
        twice.status(),
        StatusCode::UNAUTHORIZED,
        "which of them is signed?"
    );
    assert_eq!(hooks.stored().await, 0);
    let unchanged = hooks.client.payment(&pending.payment_id).await;
    assert_eq!(unchanged.version, pending.version);
    let text = hooks.server.prometheus().unwrap().render();
    let counted = |account: &str, cause: &str, count: u32| {
        let found = text.lines().any(|line| {
            line.starts_with("payment_webhook_rejected_total{")
                && line.contains(&format!("provider_account=\"{account}\""))
                && line.contains(&format!("cause=\"{cause}\""))
                && line.ends_with(&format!(" {count}"))
        });
        assert!(found, "{account} {cause} {count}: {text}");
    };
    counted(ACCOUNT, "unsigned", 2);
    counted(ACCOUNT, "signature", 1);
    counted("_OTHER", "unknown_account", 1);
    counted(ACCOUNT, "too_old", 0);
    let (site, _) = hooks.world.shut_down().await;
    let sql = "select convert_from(leaf, 'UTF8') from journal where event_type = 'access.refused'";
    let rows = site.db.rows(sql, &[]).await;
    let leaves: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let on_record = |parts: &[&str]| {
        let found = |leaf: &&String| parts.iter().all(|part| leaf.contains(part));
        assert_eq!(
            leaves.iter().filter(found).count(),
            1,
            "{parts:?}: {leaves:?}"
        );
    };
    on_record(&[
        "WEBHOOK_UNSIGNED",
        "POST /webhooks",
        "sandbox",
        "\"2\"",
        "127.0.0.1",
    ]);
    on_record(&["WEBHOOK_SIGNATURE_INVALID", "sandbox", "\"1\""]);
    on_record(&["WEBHOOK_UNKNOWN_ACCOUNT"]);
    assert!(!leaves.iter().any(|leaf| leaf.contains("spay_")), "no body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s47_an_altered_body_is_refused() {
    let hooks = Hooks::start().await;
    let (_, event) = unheard(&hooks, 800).await;
    let good = Post::of(&event);
    let text = String::from_utf8(good.body.clone()).unwrap();
    for (from, to) in [
        ("800", "900"),
        ("EUR", "USD"),
        ("{", " {"),
        ("captured", "declined"),
    ] {
        let altered = Post {
            body: text.replacen(from, to, 1).into_bytes(),
            ..good.clone()
        };
        assert_ne!(altered.body, good.body);
        let status = altered.send(hooks.at()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{from} → {to}");
    }
    assert_eq!(hooks.stored().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s48_an_old_or_future_timestamp_is_refused() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    let body = serde_json::to_vec(&event).unwrap();
    for off in [-310, 3_600, -86_400] {
        let post = Post::signed_at(&event.id, &body, SECRET, now() + off);
        assert_eq!(
            post.send(hooks.at()).await,
            StatusCode::UNAUTHORIZED,
            "{off}"
        );
    }
    assert_eq!(hooks.stored().await, 0);
    let post = Post::signed_at(&event.id, &body, SECRET, now() - 200);
    hooks.deliver(&post).await;
    until_state(&hooks, &pending, PaymentState::Captured).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s49_both_secrets_are_live_during_rotation() {
    let hooks = Hooks::start().await;
    for secret in [SECRET, NEXT_SECRET] {
        let (pending, event) = unheard(&hooks, 800).await;
        let body = serde_json::to_vec(&event).unwrap();
        hooks.deliver(&Post::signed(&event.id, &body, secret)).await;
        until_state(&hooks, &pending, PaymentState::Captured).await;
    }
    let (_, event) = unheard(&hooks, 800).await;
    let body = serde_json::to_vec(&event).unwrap();
    let retired = Post::signed(&event.id, &body, OTHER_SECRET);
    assert_eq!(retired.send(hooks.at()).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s50_the_same_event_again_is_acknowledged_and_changes_nothing() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    let again = || async { hooks.deliver(&Post::of(&event)).await };
    futures::join!(again(), again(), again());
    let paid = until_state(&hooks, &pending, PaymentState::Captured).await;
    hooks.until(&event.id, "APPLIED").await;
    again().await;
    assert_eq!(hooks.stored().await, 1);
    let after = hooks.client.payment(&pending.payment_id).await;
    assert_eq!(after.version, paid.version);
    assert_eq!(hooks.until(&event.id, "APPLIED").await.attempts, 1);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_two_events_about_one_change_change_it_once() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    let mut second = event.clone();
    second.id = format!("{}b", event.id);
    second.r#type = EventType::PaymentAuthorized;
    hooks.deliver(&Post::of(&event)).await;
    hooks.deliver(&Post::of(&second)).await;
    let paid = until_state(&hooks, &pending, PaymentState::Captured).await;
    eventually("both are done with", async || {
        let open = "select count(*) from webhook_inbox where next_step_at is not null";
        (hooks.db.number(open).await == 0).then_some(())
    })
    .await;
    let states = "select count(*) from webhook_inbox where state = 'IGNORED'";
    assert_eq!(hooks.db.number(states).await, 1);
    let captured = entries_of_type(&hooks, &paid, "payment.captured").await;
    assert_eq!(captured.len(), 1);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_an_older_event_that_comes_last_does_not_replace_the_newer() {
    let hooks = Hooks::start().await;
    let token = "tok_approve?refund.status_after=500";
    let paid = hooks.client.create(purchase(token, 900)).await;
    let refunding = hooks.client.ok(refund(&paid, 300)).await.message;
    let pending = refunding.payment.unwrap();
    assert_eq!(pending.pending(), (0, 0, 300), "nobody knows of the refund");
    let refund_id = refunding.transaction.unwrap().transaction_id;
    // It is returned by the bank later.
    let reference = pending.provider_reference.clone();
    let url = format!(
        "{}/control/payments/{reference}/fail_refund",
        hooks.sandbox.base_url()
    );
    let answer = reqwest::Client::new()
        .post(url)
        .bearer_auth(SANDBOX_KEY)
        .send();
    assert!(answer.await.unwrap().status().is_success());
    let mut told = hooks.events();
    told.retain(|event| event.operation.reference == refund_id);
    let types: Vec<_> = told.iter().map(|event| event.r#type).collect();
    assert_eq!(types, [EventType::RefundSucceeded, EventType::RefundFailed]);
    hooks.deliver(&Post::of(&told[1])).await;
    hooks.until(&told[1].id, "APPLIED").await;
    hooks.deliver(&Post::of(&told[0])).await;
    hooks.until(&told[0].id, "IGNORED").await;
    let after = hooks.client.payment(&paid.payment_id).await;
    assert_eq!((after.refunded(), after.pending()), (0, (0, 0, 0)));
    let refund = after.transactions.last().unwrap();
    assert_eq!(refund.state(), TransactionState::Failed);
    let cases = "select count(*) from operator_actions";
    assert_eq!(
        hooks.db.number(cases).await,
        0,
        "nothing contradicts anything"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_an_unknown_payment_is_tried_again_and_then_a_dead_letter() {
    let options = SiteOptions::default().with("webhooks.max_attempts", 3);
    let hooks = Hooks::start_with(options).await;
    let (pending, event) = unheard(&hooks, 800).await;
    let mut unknown = event.clone();
    unknown.id = "evt_unknown".to_owned();
    unknown.payment_reference = Some(uuid::Uuid::now_v7().to_string());
    hooks.deliver(&Post::of(&unknown)).await;
    // It holds nobody up.
    hooks.deliver(&Post::of(&event)).await;
    until_state(&hooks, &pending, PaymentState::Captured).await;
    let dead = hooks.until("evt_unknown", "DEAD").await;
    assert_eq!(
        (dead.reason.as_deref(), dead.attempts),
        (Some("UNKNOWN_PAYMENT"), 3)
    );
    // A transaction that we never sent, of a payment that we know, is nobody's.
    let mut alien = event.clone();
    alien.id = "evt_alien".to_owned();
    alien.operation.reference = uuid::Uuid::now_v7().to_string();
    hooks.deliver(&Post::of(&alien)).await;
    let dead = hooks.until("evt_alien", "DEAD").await;
    assert_eq!(dead.reason.as_deref(), Some("OTHER_ACCOUNT"));
    // Both are reported: counted, and on record with why, after how many tries, and which payment it may be about.
    let platform = hooks.as_role("platform", &[Role::AuditRead]).await;
    let entries = eventually("both are on record", async || {
        let given_up = ListEntriesRequest {
            event_type: "webhook.given_up".to_owned(),
            ..ListEntriesRequest::default()
        };
        let entries = platform.entries(given_up).await;
        (entries.len() == 2).then_some(entries)
    })
    .await;
    let told = entries.iter().map(|entry| {
        let told = |name: &str| entry.details.get(name).cloned().unwrap_or_default();
        [
            told("provider_account"),
            told("webhook_reason"),
            told("tries"),
            told("payment_ids"),
        ]
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    let unknown = unknown.payment_reference.unwrap();
    let expected = [
        [ACCOUNT, "OTHER_ACCOUNT", "1", &pending.payment_id],
        [ACCOUNT, "UNKNOWN_PAYMENT", "3", &unknown],
    ];
    assert_eq!(told, expected.map(|told| told.map(str::to_owned)));
    let counted = "payment_webhook_lag_seconds_count{outcome=\"dead\",provider_account=\"sandbox\"";
    eventually("both are counted", async || {
        ((hooks.metric(counted)? - 2.0).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s54_a_webhook_that_comes_before_our_row_is_applied_once_that_is_there() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    hooks
        .db
        .execute("create table held as select * from payments", &[])
        .await;
    hooks.db.execute("delete from payments", &[]).await;
    hooks.deliver(&Post::of(&event)).await;
    let parked = hooks.until(&event.id, "PARKED").await;
    assert_eq!(parked.reason.as_deref(), Some("UNKNOWN_PAYMENT"));
    hooks
        .db
        .execute("insert into payments select * from held", &[])
        .await;
    hooks.db.execute("drop table held", &[]).await;
    until_state(&hooks, &pending, PaymentState::Captured).await;
    assert!(hooks.until(&event.id, "APPLIED").await.attempts > 1);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s55_an_unknown_type_is_acknowledged_and_kept_as_a_dead_letter() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    let body = serde_json::to_string(&event).unwrap();
    let body = body.replace("payment.captured", "payment.celebrated");
    hooks
        .deliver(&Post::signed("evt_new", body.as_bytes(), SECRET))
        .await;
    let dead = hooks.until("evt_new", "DEAD").await;
    assert_eq!(
        (dead.reason.as_deref(), dead.attempts),
        (Some("UNEXPECTED"), 0)
    );
    let unchanged = hooks.client.payment(&pending.payment_id).await;
    assert_eq!(unchanged.version, pending.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s58_oversized_encoded_and_slow_bodies_are_refused_and_unreadable_ones_kept() {
    let options = SiteOptions::default().with("webhooks.read_timeout_ms", 3_000);
    let hooks = Hooks::start_with(options).await;
    let large = Post::signed("evt_large", &vec![b' '; 262_145], SECRET);
    assert_eq!(large.send(hooks.at()).await, StatusCode::PAYLOAD_TOO_LARGE);
    // Nobody says beforehand how much it will be.
    let pieces =
        stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 8_192]))));
    let undeclared = Post::signed("evt_stream", b"", SECRET).request(hooks.at());
    let undeclared = undeclared
        .body(reqwest::Body::wrap_stream(pieces))
        .send()
        .await;
    // The connection may be closed while the rest is still being sent.
    if let Ok(answer) = undeclared {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let first = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"{")) });
    let never = first.chain(stream::pending());
    let slow = Post::signed("evt_slow", b"", SECRET).request(hooks.at());
    let slow = slow
        .body(reqwest::Body::wrap_stream(never))
        .send()
        .await
        .unwrap();
    assert_eq!(slow.status(), StatusCode::REQUEST_TIMEOUT);
    let zipped = Post::signed("evt_zip", b"\x1f\x8b\x08\x00", SECRET);
    let zipped = zipped
        .request(hooks.at())
        .header("content-encoding", "gzip");
    let zipped = zipped.send().await.unwrap();
    assert_eq!(zipped.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(hooks.stored().await, 0);

    let body = b"{\"id\":\"\xff\xfe\"}";
    let not_text = Post::signed("evt_bytes", body, SECRET);
    for _ in 0..2 {
        // Acknowledged: the provider would send it again and again, and what follows it later.
        assert_eq!(not_text.send(hooks.at()).await, StatusCode::OK);
    }
    assert_eq!(hooks.stored().await, 1, "kept once, for a person");
    let counted =
        "payment_webhook_rejected_total{cause=\"unreadable\",provider_account=\"sandbox\"";
    assert_eq!(hooks.metric(counted), Some(2.0));
    let sql = "select state || ' ' || reason from webhook_inbox";
    let kept: String = hooks.db.row(sql, &[]).await.get(0);
    assert_eq!(kept, "DEAD UNREADABLE");
    // The service is as it was, and a corrected event under the same id is no repetition.
    let (pending, event) = unheard(&hooks, 800).await;
    let body = serde_json::to_vec(&event).unwrap();
    hooks
        .deliver(&Post::signed("evt_bytes", &body, SECRET))
        .await;
    until_state(&hooks, &pending, PaymentState::Captured).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s59_while_the_database_is_away_nothing_is_acknowledged() {
    let options = SiteOptions::default()
        .behind_proxies()
        .soon_without_database();
    let hooks = Hooks::start_with(options).await;
    let (pending, event) = unheard(&hooks, 800).await;
    let database = &hooks.links().database;
    database.refuse_connections().await;
    database.cut_all(Cut::Close).await;
    let post = Post::of(&event);
    let answer = post.request(hooks.at()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(hooks.stored().await, 0);
    database.accept_connections().await;
    eventually("it is acknowledged", async || {
        (post.send(hooks.at()).await == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(hooks.stored().await, 1);
    until_state(&hooks, &pending, PaymentState::Captured).await;
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_a_webhook_with_another_amount_or_currency_waits_for_a_person() {
    let hooks = Hooks::start().await;
    let token = "tok_approve?amount_delta=5&status_after=500";
    let pending = hooks.client.create(purchase(token, 800)).await;
    let event = hooks.event_about(transaction_of(&pending));
    assert_eq!(event.operation.amount, 805);
    let (other, mut foreign) = unheard(&hooks, 800).await;
    foreign.operation.currency = "USD".to_owned();
    for (payment, event) in [(&pending, &event), (&other, &foreign)] {
        hooks.deliver(&Post::of(event)).await;
        hooks.until(&event.id, "APPLIED").await;
        let after = hooks.client.payment(&payment.payment_id).await;
        assert_eq!(
            (after.state(), after.captured()),
            (PaymentState::Pending, 0)
        );
        let mismatch = entries_of_type(&hooks, payment, "payment.amount_mismatch").await;
        assert_eq!(mismatch.len(), 1);
    }
    let open = "select count(*) from operator_actions where kind = 'AMOUNT_MISMATCH' and closed_at is null";
    assert_eq!(hooks.db.number(open).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_void_that_waited_is_sent_when_the_webhook_tells_the_authorization() {
    let hooks = Hooks::start().await;
    let pending = hooks.client.create(authorization(UNHEARD, 600)).await;
    let voiding = hooks.client.ok(void(&pending)).await.message;
    assert_eq!(voiding.payment.unwrap().state(), PaymentState::Pending);
    let authorized = &pending.transactions[0].transaction_id;
    let event = hooks.event_about(authorized);
    hooks.deliver(&Post::of(&event)).await;
    let voided = until_state(&hooks, &pending, PaymentState::Voided).await;
    assert_eq!(voided.voided(), 600);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_webhook_is_applied_once_over_two_replicas_in_any_order() {
    // Fewer 500s than open the circuit.
    const PAYMENTS: usize = 16;
    let hooks = Hooks::start().await;
    let second = hooks.second_server().await;
    let servers = [hooks.at(), second.http_addr()];
    let mut payments = Vec::new();
    for _ in 0..PAYMENTS {
        payments.push(unheard(&hooks, 500).await);
    }
    // Newest first, each twice on both.
    let posts = payments.iter().rev().flat_map(|(_, event)| {
        let post = Post::of(event);
        (0..4).map(move |copy| (servers[copy % 2], post.clone()))
    });
    let delivering =
        stream::iter(posts).map(|(server, post)| async move { post.send(server).await });
    let statuses: Vec<_> = delivering.buffer_unordered(8).collect().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    for (payment, event) in &payments {
        let paid = until_state(&hooks, payment, PaymentState::Captured).await;
        hooks.until(&event.id, "APPLIED").await;
        let captured = entries_of_type(&hooks, &paid, "payment.captured").await;
        assert_eq!(captured.len(), 1);
    }
    assert_eq!(hooks.stored().await, i64::try_from(PAYMENTS).unwrap());
    assert!(second.shutdown().await);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_whose_server_died_is_applied_by_another() {
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    // As a server leaves it that died right after it had claimed it.
    let claim = "create or replace function claimed() returns trigger language plpgsql as $$ begin \
        new.claimed_until := now() + interval '1 second'; new.attempts := 1; return new; end $$";
    hooks.db.execute(claim, &[]).await;
    let trigger = "create trigger claimed before insert on webhook_inbox \
        for each row execute function claimed()";
    hooks.db.execute(trigger, &[]).await;
    hooks.deliver(&Post::of(&event)).await;
    until_state(&hooks, &pending, PaymentState::Captured).await;
    assert_eq!(hooks.until(&event.id, "APPLIED").await.attempts, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_what_contradicts_a_known_outcome_waits_until_the_provider_confirms_it() {
    // What it waits for uses up no try.
    let options = SiteOptions::default().with("webhooks.max_attempts", 1);
    let hooks = Hooks::start_with(options).await;
    let (pending, event) = unheard(&hooks, 800).await;
    let mut failed = event.clone();
    failed.id = "evt_failed".to_owned();
    failed.operation.status = OperationStatus::Failed;
    hooks.deliver(&Post::of(&failed)).await;
    until_state(&hooks, &pending, PaymentState::Failed).await;
    // Success after failure: true, as the provider will say, once it can be asked.
    hooks.sandbox.pause_accepting().await;
    hooks.deliver(&Post::of(&event)).await;
    let parked = hooks.until(&event.id, "PARKED").await;
    assert_eq!(parked.reason.as_deref(), Some("NOT_CONFIRMED"));
    let unchanged = hooks.client.payment(&pending.payment_id).await;
    assert_eq!(unchanged.state(), PaymentState::Failed);
    hooks.sandbox.resume().await.unwrap();
    until_state(&hooks, &pending, PaymentState::Captured).await;
    hooks.until(&event.id, "APPLIED").await;
    let cases = "select count(*) from operator_actions where kind = 'CONTRADICTING_FACT'";
    assert_eq!(
        hooks.db.number(cases).await,
        1,
        "it was told to have failed"
    );
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_what_is_said_by_an_account_that_a_transaction_has_left_moves_nothing_and_opens_a_case()
{
    let hooks = Hooks::start().await;
    let (pending, event) = unheard(&hooks, 800).await;
    // As failover leaves it: an attempt through this account, and the transaction at another.
    let moved = "update transactions set provider_account = $1";
    hooks.db.execute(moved, &[&OTHER_ACCOUNT]).await;
    hooks.deliver(&Post::of(&event)).await;
    let dead = hooks.until(&event.id, "DEAD").await;
    assert_eq!(dead.reason.as_deref(), Some("MOVED_ON"));
    let after = hooks.client.payment(&pending.payment_id).await;
    assert_eq!((after.state(), after.captured()), (pending.state(), 0));
    // Perhaps it was carried out twice: a person looks.
    let entries = hooks.client.entries_of(&pending.payment_id).await;
    assert_eq!(entries.last().unwrap().event_type, "payment.contradicted");
    let cases = "select count(*) from operator_actions where kind = 'CONTRADICTING_FACT'";
    assert_eq!(hooks.db.number(cases).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_has_a_trace_of_its_own_linked_to_the_one_that_accepted_the_transaction() {
    let site = Site::new(SiteOptions::default()).await;
    let collector = Collector::start().await;
    let (_port, address) = reserved_port();
    let mut only = account(ACCOUNT, &site.sandbox.base_url(), PROVIDER_TIMEOUT_MS);
    only.insert("webhook_secrets".to_owned(), Value::from(vec![SECRET]));
    let settings = vec![
        ("telemetry.otlp_endpoint", collector.endpoint().into()),
        ("telemetry.otlp_protocol", "grpc".into()),
        ("server.http_listen", Value::from(address.to_string())),
        ("providers.accounts", Value::from(vec![Value::from(only)])),
    ];
    let server = ServerProcess::start(&site, settings).await;
    let pending = server.client.create(purchase(UNHEARD, 800)).await;
    let event = site.sandbox.events(0, 1).events.remove(0);
    let status = Post::of(&event).send(address).await;
    assert_eq!(status, StatusCode::OK);
    eventually("the webhook is applied", async || {
        let payment = server.client.payment(&pending.payment_id).await;
        (payment.state() == PaymentState::Captured).then_some(())
    })
    .await;
    let entries = server.client.entries_of(&pending.payment_id).await;
    let (accepted, captured) = (entries.first().unwrap(), entries.last().unwrap());
    let log = server.stop().await;
    assert!(
        !log.contains(SECRET) && !log.contains(&event.operation.id),
        "{log}"
    );
    let spans = collector.spans();
    let [webhook] = spans
        .iter()
        .filter(|span| span.name == "webhook")
        .collect::<Vec<_>>()[..]
    else {
        panic!("one webhook: {spans:?}");
    };
    assert!(webhook.parent_span_id.is_empty());
    assert_eq!(hex::encode(&webhook.trace_id), captured.trace_id);
    assert_ne!(captured.trace_id, accepted.trace_id);
    let links = webhook.links.iter().map(|link| hex::encode(&link.span_id));
    let links: Vec<_> = links.collect();
    assert_eq!(links, [accepted.span_id.as_str()]);
    assert_eq!(attribute(webhook, "outcome").as_deref(), Some("APPLIED"));
    let received = spans
        .iter()
        .find(|span| span.name.starts_with("POST /webhooks"));
    let status = attribute(received.unwrap(), "http.response.status_code");
    assert_eq!(status.as_deref(), Some("200"));
}

/// A port that stays free for a server: bound here, and never listening.
fn reserved_port() -> (TcpSocket, SocketAddr) {
    let port = TcpSocket::new_v4().unwrap();
    port.set_reuseaddr(true).unwrap();
    port.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = port.local_addr().unwrap();
    (port, address)
}

/// The provider itself delivers, over TLS, to the server's own listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_a_pending_payment_is_settled_by_the_provider_s_own_webhook() {
    let site = Site::new(SiteOptions::default()).await;
    let (_port, address) = reserved_port();
    let mut config = SandboxConfig::new(SANDBOX_KEY);
    config.settle_unasked = Duration::from_millis(100);
    config.webhook = Some(WebhookConfig {
        url: format!("https://{address}/webhooks/{ACCOUNT}"),
        secret: SECRET.to_owned(),
        ca_pem: Some(pki().ca_pem.clone().into_bytes()),
    });
    let sandbox = Sandbox::start(config).await.unwrap();
    let mut only = account(ACCOUNT, &sandbox.base_url(), PROVIDER_TIMEOUT_MS);
    only.insert("webhook_secrets".to_owned(), Value::from(vec![SECRET]));
    let settings = vec![
        ("server.http_listen", Value::from(address.to_string())),
        ("providers.accounts", Value::from(vec![Value::from(only)])),
    ];
    let world = World::on(site, settings).await;
    for (token, ends) in [
        ("tok_pending_then_approve", PaymentState::Captured),
        ("tok_pending_then_decline", PaymentState::Declined),
    ] {
        let pending = world.client.create(purchase(token, 400)).await;
        // The provider may have told it before the answer was given.
        assert!([PaymentState::Pending, ends].contains(&pending.state()));
        eventually("the webhook settles the payment", async || {
            let payment = world.client.payment(&pending.payment_id).await;
            (payment.state() == ends).then_some(())
        })
        .await;
    }
    let applied = "select count(*) from webhook_inbox where state = 'APPLIED'";
    eventually("both are done with", async || {
        (world.db.number(applied).await == 2).then_some(())
    })
    .await;
    eventually("both are counted", async || {
        let counted = world.metric("payment_webhook_lag_seconds_count")?;
        ((counted - 2.0).abs() < 0.5).then_some(())
    })
    .await;
    sandbox.shutdown().await;
}
