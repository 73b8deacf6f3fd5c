//! The inbox as operators see it: dead letters are found and replayed, on record; bodies go when their time has passed.

use quittance_proto::v1::{
    GetWebhookRequest, ListWebhooksRequest, ReplayWebhookRequest, Webhook, WebhookCause,
    WebhookOutcome, WebhookState,
};
use quittance_server::auth::Role;
use reqwest::StatusCode;
use tonic::Code;

use crate::harness::command_line::CommandLine;
use crate::harness::site::{ACCOUNT, TENANT};
use crate::harness::webhooks::{Hooks, Post, SECRET};
use crate::harness::{
    Amounts as _, Client, Keyed as _, SiteOptions, eventually, get_by_key, purchase,
};

/// Charged, and answered with an error: what became of it is not known.
const UNHEARD: &str = "tok_approve?status_after=500";
const REASON: &str = "the payment was restored";

async fn listed(client: &Client, states: &[WebhookState]) -> Vec<Webhook> {
    let states = states.iter().map(|state| i32::from(*state));
    let mut request = ListWebhooksRequest {
        page_size: 2,
        states: states.collect(),
        ..ListWebhooksRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let page = client.ok(request.clone()).await.message;
        assert!(page.webhooks.len() <= 2);
        found.extend(page.webhooks);
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

async fn got(client: &Client, webhook_id: &str) -> Webhook {
    let request = GetWebhookRequest {
        webhook_id: webhook_id.to_owned(),
    };
    client.ok(request).await.message.webhook.unwrap()
}

fn replay(webhook_id: &str) -> ReplayWebhookRequest {
    ReplayWebhookRequest {
        webhook_id: webhook_id.to_owned(),
        reason: REASON.to_owned(),
    }
}

/// A webhook about a payment that is not there (as after a restored backup), given up; with the key of that payment.
async fn dead_letter(hooks: &Hooks) -> Webhook {
    let pending = hooks
        .client
        .create(purchase(UNHEARD, 800).key("lost"))
        .await;
    let event = hooks.event_about(&pending.transactions[0].transaction_id);
    let keep = "create table held as select * from payments";
    hooks.db.execute(keep, &[]).await;
    hooks.db.execute("delete from payments", &[]).await;
    hooks.deliver(&Post::of(&event)).await;
    hooks.until(&event.id, "DEAD").await;
    let restore = "insert into payments select * from held";
    hooks.db.execute(restore, &[]).await;
    hooks.db.execute("drop table held", &[]).await;
    let platform = hooks.as_role(TENANT, &[Role::PlatformAdmin]).await;
    let mut dead = listed(&platform, &[WebhookState::Dead]).await;
    assert_eq!(dead.len(), 1);
    dead.remove(0)
}

async fn hooks_that_give_up_soon() -> Hooks {
    Hooks::start_with(SiteOptions::default().with("webhooks.max_attempts", 2)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_a_dead_letter_is_replayed_with_who_and_why_on_record() {
    let hooks = hooks_that_give_up_soon().await;
    let dead = dead_letter(&hooks).await;
    let platform = hooks
        .as_role(TENANT, &[Role::PlatformAdmin, Role::AuditRead])
        .await;
    assert_eq!(
        (dead.state(), dead.cause(), dead.attempts),
        (WebhookState::Dead, WebhookCause::UnknownPayment, 2)
    );
    assert!(dead.finish_time.is_some() && dead.next_attempt_time.is_none());
    let seen = got(&platform, &dead.webhook_id).await;
    let said = &seen.statements[0];
    assert_eq!(said.outcome(), WebhookOutcome::Approved);
    let amount = said.amount.as_ref().unwrap();
    assert_eq!(
        (amount.minor_units, amount.currency_code.as_str()),
        (800, "EUR")
    );
    assert!(seen.body_bytes > 100 && seen.body_sha256.len() == 64);
    let answer = platform.ok(replay(&dead.webhook_id)).await.message;
    assert_ne!(answer.webhook.unwrap().state(), WebhookState::Dead);
    let paid = eventually("the payment is captured", async || {
        let found = hooks.client.ok(get_by_key("lost")).await.message.payment?;
        (found.captured() == 800).then_some(found)
    })
    .await;
    assert_eq!(said.payment_id, paid.payment_id);
    let applied = eventually("it is applied", async || {
        let webhook = got(&platform, &dead.webhook_id).await;
        (webhook.state() == WebhookState::Applied).then_some(webhook)
    })
    .await;
    assert_eq!(
        (applied.attempts, applied.cause()),
        (3, WebhookCause::Unspecified)
    );
    // Who, why, and what became of it.
    let entries = platform.entries(quittance_proto::v1::ListEntriesRequest {
        event_type: "webhook.replay_requested".to_owned(),
        ..Default::default()
    });
    let entries = entries.await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    let entry = &entries[0];
    assert_eq!(entry.details["webhook_id"], dead.webhook_id);
    assert_eq!(entry.details["reason"], REASON);
    assert_eq!(entry.details["webhook_reason"], "UNKNOWN_PAYMENT");
    assert!(!entry.actor.as_ref().unwrap().id.is_empty());
    // What is done with is not replayed.
    let again = platform.refused(replay(&dead.webhook_id)).await;
    again.is(Code::FailedPrecondition, "WEBHOOK_NOT_REPLAYABLE");
    assert_eq!(again.metadata["state"], "APPLIED");
    assert!(!again.money_may_have_moved());
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_a_parked_webhook_is_tried_again_now_and_has_all_its_tries_anew() {
    let options = SiteOptions::default()
        .with("webhooks.max_attempts", 2)
        .with("webhooks.retry_max_ms", 86_400_000)
        .with("webhooks.retry_first_ms", 86_400_000);
    let hooks = Hooks::start_patient(options).await;
    let pending = hooks.client.create(purchase(UNHEARD, 800)).await;
    let mut unknown = hooks.event_about(&pending.transactions[0].transaction_id);
    unknown.payment_reference = Some(uuid::Uuid::now_v7().to_string());
    hooks.deliver(&Post::of(&unknown)).await;
    hooks.until(&unknown.id, "PARKED").await;
    let platform = hooks.as_role(TENANT, &[Role::PlatformAdmin]).await;
    for attempts in [2, 3] {
        let parked = listed(&platform, &[WebhookState::Parked]).await.remove(0);
        platform.ok(replay(&parked.webhook_id)).await;
        let tried = eventually("it is tried again", async || {
            let webhook = got(&platform, &parked.webhook_id).await;
            (webhook.attempts == attempts && webhook.state() != WebhookState::Received)
                .then_some(webhook)
        })
        .await;
        assert_eq!(tried.state(), WebhookState::Parked, "not given up");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s68_webhooks_are_for_who_administers_the_platform_and_pages_hold_each_once() {
    let hooks = Hooks::start().await;
    for number in 0..5 {
        let id = format!("evt_{number}");
        let post = Post::signed(&id, b"{}", SECRET);
        assert_eq!(post.send(hooks.at()).await, StatusCode::OK);
        let body = format!("{{\"number\": {number}}}");
        let post = Post::signed(&id, body.as_bytes(), SECRET);
        assert_eq!(post.send(hooks.at()).await, StatusCode::OK);
    }
    let platform = hooks.as_role(TENANT, &[Role::PlatformAdmin]).await;
    let dead = listed(&platform, &[WebhookState::Dead]).await;
    assert_eq!(dead.len(), 6, "the same unreadable body is kept once");
    let ids: Vec<_> = dead.iter().map(|one| one.webhook_id.clone()).collect();
    let mut newest_first = ids.clone();
    newest_first.sort_by(|one, other| other.cmp(one));
    newest_first.dedup();
    assert_eq!(ids, newest_first);
    assert!(dead.iter().all(|one| one.statements.is_empty()));
    let any = ListWebhooksRequest {
        provider_account: ACCOUNT.to_owned(),
        cause: WebhookCause::Unreadable.into(),
        ..ListWebhooksRequest::default()
    };
    assert_eq!(platform.ok(any.clone()).await.message.webhooks.len(), 6);
    let others = ListWebhooksRequest {
        provider_account: "nobody".to_owned(),
        ..any.clone()
    };
    assert_eq!(platform.ok(others).await.message.webhooks, []);
    let tenants_own = hooks.as_role(TENANT, &[Role::Admin]).await;
    let refused = tenants_own.refused(any).await;
    refused.is(Code::PermissionDenied, "ROLE_REQUIRED");
    let refused = tenants_own.refused(replay(&ids[0])).await;
    refused.is(Code::PermissionDenied, "ROLE_REQUIRED");
    let nowhere = uuid::Uuid::now_v7().to_string();
    let refused = platform.refused(replay(&nowhere)).await;
    refused.is(Code::NotFound, "WEBHOOK_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_the_command_line_lists_shows_and_replays_webhooks() {
    let hooks = hooks_that_give_up_soon().await;
    let shell = CommandLine::new(&hooks.world, "webhooks", &[Role::PlatformAdmin]).await;
    assert_eq!(shell.prints(&["list"]).await.trim(), "No webhooks.");
    let dead = dead_letter(&hooks).await;
    let id = dead.webhook_id.as_str();
    for more in [
        &[][..],
        &["--all"],
        &["--state", "dead", "--cause", "unknown-payment"],
    ] {
        let text = shell.prints(&[&["list"], more].concat()).await;
        assert!(
            text.contains(id) && text.contains("UNKNOWN_PAYMENT"),
            "{text}"
        );
    }
    let none = shell.prints(&["list", "--account", "nobody"]).await;
    assert_eq!(none.trim(), "No webhooks.");
    let shown = shell.prints(&["show", id]).await;
    let hint = format!("quittance webhooks replay {id} --reason …");
    for part in ["DEAD", "It says APPROVED", "8.00 EUR", &hint] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains('{'), "the body is not shown: {shown}");
    let said = shell.prints(&["replay", id, "--reason", REASON]).await;
    assert!(said.contains("Recorded.") && said.contains(id), "{said}");
    eventually("it is applied", async || {
        let text = shell.prints(&["show", id]).await;
        text.contains("APPLIED").then_some(())
    })
    .await;
    let said = shell.fails(3, &["replay", id, "--reason", REASON]).await;
    for part in ["WEBHOOK_NOT_REPLAYABLE", "What to do: Nothing."] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let own = CommandLine::new(&hooks.world, "webhooks", &[Role::Admin]).await;
    let said = own.fails(3, &["list"]).await;
    assert!(said.contains("lacks the role platform.admin"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_all_dead_letters_of_a_kind_are_replayed_by_one_command() {
    let hooks = hooks_that_give_up_soon().await;
    let shell = CommandLine::new(&hooks.world, "webhooks", &[Role::PlatformAdmin]).await;
    let dead = dead_letter(&hooks).await;
    let unreadable = Post::signed("evt_unreadable", b"{}", SECRET);
    assert_eq!(unreadable.send(hooks.at()).await, StatusCode::OK);
    let replay = |which: &'static [&str]| [&["replay"], which, &["--reason", REASON]].concat();
    for (which, said) in [
        (
            &["--account", "nobody"][..],
            "0 dead letters are tried again",
        ),
        (
            &["--cause", "not-confirmed"],
            "0 dead letters are tried again",
        ),
        (
            &["--cause", "unknown-payment", "--account", "sandbox"],
            "1 dead letters are tried again",
        ),
    ] {
        let text = shell.prints(&replay(which)).await;
        assert!(text.contains(said), "{text}");
    }
    eventually("it is applied", async || {
        let text = shell.prints(&["show", &dead.webhook_id]).await;
        text.contains("APPLIED").then_some(())
    })
    .await;
    // Which ones has to be said.
    shell.fails(2, &["replay", "--reason", REASON]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_wiped_when_their_time_has_passed_and_repetitions_are_known_for_good() {
    let options = SiteOptions::default()
        .with("webhooks.wipe_interval_ms", 100)
        .with("webhooks.keep_days", 1)
        .with("webhooks.keep_unnamed_days", 2)
        .with("webhooks.keep_dead_days", 3);
    let hooks = Hooks::start_with(options).await;
    let pending = hooks.client.create(purchase(UNHEARD, 800)).await;
    let event = hooks.event_about(&pending.transactions[0].transaction_id);
    hooks.deliver(&Post::of(&event)).await;
    hooks.until(&event.id, "APPLIED").await;
    // Two dead letters: one about a payment, and one about nobody knows whom.
    for (event, body) in [("evt_dead", b"[]"), ("evt_unnamed", b"{}")] {
        let unreadable = Post::signed(event, body, SECRET);
        assert_eq!(unreadable.send(hooks.at()).await, StatusCode::OK);
        if event == "evt_dead" {
            let about = "update webhook_inbox set payment_ids = array[gen_random_uuid()]";
            hooks.db.execute(about, &[]).await;
        }
    }
    let age = async |days: &str| {
        let sql = format!(
            "update webhook_inbox set finished_at = now() - interval '{days} days 1 minute'"
        );
        hooks.db.execute(&sql, &[]).await;
    };
    let wiped = "select count(*) from webhook_inbox where body is null";
    let states = "select count(*) from webhook_inbox where body is null and state = 'DEAD'";
    age("1").await;
    eventually("what was applied is wiped", async || {
        (hooks.db.number(wiped).await == 1).then_some(())
    })
    .await;
    assert_eq!(hooks.db.number(states).await, 0, "a person may want it yet");
    for (days, what, so_far) in [
        ("2", "what names no payment is wiped", 2),
        ("3", "the other dead letter is wiped", 3),
    ] {
        age(days).await;
        eventually(what, async || {
            (hooks.db.number(wiped).await == so_far).then_some(())
        })
        .await;
    }
    for outcome in ["done", "unnamed", "dead"] {
        let series = format!("payment_webhook_wiped_total{{outcome=\"{outcome}\"");
        eventually("it is counted", async || {
            (hooks.metric(&series) == Some(1.0)).then_some(())
        })
        .await;
    }
    // A repetition is still one, and there is nothing to replay.
    let before = hooks.client.payment(&pending.payment_id).await;
    hooks.deliver(&Post::of(&event)).await;
    assert_eq!(hooks.stored().await, 3);
    let after = hooks.client.payment(&pending.payment_id).await;
    assert_eq!(after.version, before.version);
    let platform = hooks.as_role(TENANT, &[Role::PlatformAdmin]).await;
    let dead = listed(&platform, &[WebhookState::Dead]).await.remove(0);
    assert!(dead.wipe_time.is_some());
    let seen = got(&platform, &dead.webhook_id).await;
    assert_eq!((seen.body_bytes, seen.body_sha256.as_str()), (0, ""));
    let refused = platform.refused(replay(&dead.webhook_id)).await;
    refused.is(Code::FailedPrecondition, "WEBHOOK_WIPED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_webhook_waits_for_its_own_insert_alone() {
    let hooks = Hooks::start().await;
    let pending = hooks.client.create(purchase(UNHEARD, 800)).await;
    let event = hooks.event_about(&pending.transactions[0].transaction_id);
    // Nobody can read or write a payment, an attempt or an entry meanwhile, and the provider is away.
    hooks.db.execute("begin", &[]).await;
    let lock = "lock table payments, transactions, attempts, journal in access exclusive mode";
    hooks.db.execute(lock, &[]).await;
    hooks.sandbox.pause_accepting().await;
    hooks.deliver(&Post::of(&event)).await;
    assert_eq!(hooks.stored().await, 1);
    hooks.db.execute("rollback", &[]).await;
    hooks.sandbox.resume().await.unwrap();
    hooks.until(&event.id, "APPLIED").await;
    let paid = hooks.client.payment(&pending.payment_id).await;
    assert_eq!(paid.captured(), 800);
    hooks.everything_agrees().await;
}
