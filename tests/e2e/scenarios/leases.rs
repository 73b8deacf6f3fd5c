//! Senders that come too late: stopped, or held up by the database, beyond the time in which they may send.

use quittance_proto::v1::{CreatePaymentRequest, Payment, PaymentState};
use quittance_test_support::{Direction, Plan};
use tokio::task::JoinHandle;
use toml::Value;

use crate::harness::process::ServerProcess;
use crate::harness::site::{ACCOUNT, PROVIDER_TIMEOUT_MS, account};
use crate::harness::{
    Amounts as _, Client, Keyed as _, Links, SiteOptions, World, eventually, purchase,
    until_resolved, until_resolved_by_key,
};

use Direction::{ToClient, ToServer};

/// What only the commit of the acceptance holds: its entry of the journal.
const ACCEPTED: &str = "payment.accepted";
/// A lookup at the provider.
const LOOKUP: &str = "GET /v1/operations";

fn asks(client: &Client, request: CreatePaymentRequest) -> JoinHandle<Option<Payment>> {
    let client = client.clone();
    tokio::spawn(async move { client.send(request).await.ok()?.message.payment })
}

/// How the attempts of all payments ended, in order: outcome and cause.
async fn ends(world: &World) -> Vec<(String, String)> {
    let sql = "select coalesce(outcome, ''), coalesce(cause, '') from attempts order by started_at";
    let rows = world.db.rows(sql, &[]).await;
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn end(outcome: &str, cause: &str) -> (String, String) {
    (outcome.to_owned(), cause.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s82_a_server_that_was_stopped_until_its_lease_had_run_out_sends_nothing() {
    let options = SiteOptions {
        provider_timeout_ms: 6_000,
        ..SiteOptions::default()
    };
    let world = World::start_with(options.recovering()).await;
    let links = Links::of(&world).await;
    let mut settings = links.settings();
    // Its own lease runs out before long; that of whoever takes over does not.
    settings.push(("payments.lease_margin_ms", 2_000.into()));
    let stopped = ServerProcess::start(&world, settings).await;
    links.database.set(ToClient, Plan::hold_answer_to(ACCEPTED));
    let call = asks(&stopped.client, purchase("tok_approve", 900).key("stopped"));
    links.database.wait_until_held(ToClient).await;
    // It is accepted, and about to be sent as soon as its server hears of it.
    stopped.suspend();
    links.pass().await;

    let paid = until_resolved_by_key(&world.client, "stopped").await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.transactions[0].attempts, 2);
    let before = world.books();
    stopped.go_on();
    let ended = [end("NOT_SENT", "SEND_OVERDUE"), end("APPROVED", "")];
    eventually("it says what became of its attempt", async || {
        (ends(&world).await == ended).then_some(())
    })
    .await;
    assert_eq!(world.books(), before, "it did not send");
    assert_eq!(before.counts.replays, 0);
    let after = world.client.payment(&paid.payment_id).await;
    assert_eq!(
        (after.state(), after.captured(), after.version),
        (PaymentState::Captured, 900, paid.version + 1),
        "an entry about the attempt, and nothing else"
    );
    // Whoever still waits at it is told the truth.
    if let Some(answer) = call.await.unwrap() {
        assert_eq!(answer.payment_id, paid.payment_id);
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_what_was_accepted_too_late_to_be_sent_is_proved_not_sent_and_goes_on_by_itself() {
    // Nobody else takes it up meanwhile.
    let world = World::start_with(SiteOptions::short_leases().behind_proxies()).await;
    let database = &world.links().database;
    database.set(ToClient, Plan::hold_answer_to(ACCEPTED).once());
    let call = asks(&world.client, purchase("tok_approve", 700));
    database.wait_until_held(ToClient).await;
    // What is left of the lease is less than a call at the provider takes, with what clocks differ.
    let late = "select count(*) from transactions where lease_until < now() + interval '2 s'";
    eventually("it is too late to send", async || {
        (world.db.number(late).await == 1).then_some(())
    })
    .await;
    database.release_then(ToClient, Plan::pass());

    let accepted = call.await.unwrap().unwrap();
    let mut settings = SiteOptions::default()
        .recovering()
        .with("payments.lease_margin_ms", 600_000)
        .settings;
    let patient = account(ACCOUNT, &world.sandbox.base_url(), PROVIDER_TIMEOUT_MS);
    let accounts = Value::from(vec![Value::from(patient)]);
    settings.push(("providers.accounts", accounts));
    settings.push(("recovery.claim_seconds", 120.into()));
    let _recovery = ServerProcess::start(&world, settings).await;
    let paid = until_resolved(&world.client, &accepted.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    let ended = [end("NOT_SENT", "SEND_OVERDUE"), end("APPROVED", "")];
    assert_eq!(ends(&world).await, ended);
    let entries = world.client.entries_of(&paid.payment_id).await;
    let told: Vec<_> = entries.iter().map(|it| it.event_type.as_str()).collect();
    assert_eq!(
        told,
        [
            "payment.accepted",
            "payment.not_sent",
            "payment.attempt_started",
            "payment.captured"
        ]
    );
    let doubtful = "select count(*) from transactions where ever_unknown";
    assert_eq!(world.db.number(doubtful).await, 0, "nobody was lost");
    world.everything_agrees().await;
}

/// A server whose connections to the database are open at its end alone has claimed work, and has an answer about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s82_a_claim_over_a_half_open_connection_is_taken_over_and_its_late_result_changes_nothing()
{
    for lost in [false, true] {
        let world = World::start_with(SiteOptions::short_leases()).await;
        let pending = world
            .client
            .create(purchase("tok_approve?drop=after", 600))
            .await;
        assert_eq!(pending.state(), PaymentState::Pending);
        let links = Links::of(&world).await;
        let options = SiteOptions::default().recovering().soon_without_database();
        let mut settings = options.settings;
        settings.extend(links.settings());
        links
            .provider
            .set(ToClient, Plan::hold_answer_to(LOOKUP).once());
        let first = ServerProcess::start(&world, settings).await;
        links.provider.wait_until_held(ToClient).await;
        // It has claimed the transaction, and is about to hear that it was charged.
        for direction in [ToServer, ToClient] {
            let silent = if lost { Plan::swallow() } else { Plan::hold() };
            links.database.set(direction, silent);
        }
        links.provider.release_then(ToClient, Plan::pass());

        let recovering = SiteOptions::default().recovering().settings;
        let second = ServerProcess::start(&world, recovering).await;
        let paid = until_resolved(&second.client, &pending.payment_id).await;
        assert_eq!(paid.state(), PaymentState::Captured);
        // What the first one had to say arrives after all, or it has to say it again.
        let heard = links.database.traffic().to_server;
        links.pass().await;
        eventually("the first one speaks to the database again", async || {
            (links.database.traffic().to_server > heard + 1_000).then_some(())
        })
        .await;
        first.stop().await;
        let after = second.client.payment(&paid.payment_id).await;
        assert_eq!(after, paid, "its late result changes nothing");
        world.everything_agrees().await;
    }
}
