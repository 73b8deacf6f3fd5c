//! What the server does by itself about payments without an outcome: it finds out, sends what was never sent, goes to
//! the next account where that is safe, and calls a person where nothing else is left.

use std::time::SystemTime;

use quittance_proto::v1::{
    CapturePaymentRequest, Payment, PaymentState, RefundPaymentRequest, TransactionState,
};
use quittance_sandbox::{Sandbox, SandboxConfig, SandboxHandle};
use toml::Value;
use tonic::Code;

use crate::harness::collector::{Collector, attribute};
use crate::harness::process::ServerProcess;
use crate::harness::site::{ACCOUNT, PROVIDER_TIMEOUT_MS, SANDBOX_KEY, Setting, account};
use crate::harness::{
    Amounts as _, Client, Site, SiteOptions, World, authorization, capture, eventually, purchase,
    refund, sync, void,
};

/// A provider that is given up on soon, and servers that recover soon.
fn impatient() -> SiteOptions {
    SiteOptions::impatient().recovering()
}

/// The payment, once the server has found out by itself.
async fn found_out(site: &Site, client: &Client, payment_id: &str) -> Payment {
    eventually("the server finds out by itself", async || {
        site.let_unanswered_leases_run_out().await;
        decided(client, payment_id).await
    })
    .await
}

/// The payment, where nothing of it is pending.
async fn decided(client: &Client, payment_id: &str) -> Option<Payment> {
    let payment = client.payment(payment_id).await;
    let open = |it: &quittance_proto::v1::Transaction| it.state() == TransactionState::Pending;
    (!payment.transactions.iter().any(open)).then_some(payment)
}

/// Accounts of a server: names with their base URLs.
fn accounts(of: &[(&str, &str)], timeout_ms: i64) -> Setting {
    let accounts = of
        .iter()
        .map(|(name, url)| Value::from(account(name, url, timeout_ms)));
    (
        "providers.accounts",
        Value::from(accounts.collect::<Vec<_>>()),
    )
}

/// [`found_out`], of what could not be sent, and now may not be any more.
async fn too_late(site: &Site, client: &Client, payment_id: &str) -> Payment {
    let passed = "update transactions set execute_before = now(), next_step_at = now() \
                  where state = 'PENDING' and execute_before > now()";
    eventually("the server ends it", async || {
        site.db.execute(passed, &[]).await;
        decided(client, payment_id).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_recovery_finds_a_success_and_charges_nothing_more() {
    let world = World::start_with(impatient()).await;
    for token in [
        "tok_timeout_after_charge",
        "tok_reset_after_charge",
        "tok_malformed_response",
        "tok_pending_then_approve",
    ] {
        let pending = world.client.create(purchase(token, 700)).await;
        let paid = found_out(&world, &world.client, &pending.payment_id).await;
        assert_eq!(paid.state(), PaymentState::Captured, "{token}");
        let charged = world.charged(&paid.transactions[0].transaction_id);
        assert_eq!((charged.charges, charged.amount), (1, 700), "{token}");
        let entries = world.client.entries_of(&paid.payment_id).await;
        let last = entries.last().unwrap();
        let source = last.source.as_ref().unwrap();
        assert_eq!(source.rpc_method, "recovery", "{token}: who asked");
        assert_ne!(last.trace_id, entries[0].trace_id, "a trace of its own");
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_counted_as_stuck_and_goes_on_once_it_can() {
    let world = World::start_with(impatient()).await;
    let token = "tok_pending_then_approve?settle_after_ms=60000";
    let pending = world.client.create(purchase(token, 700)).await;
    // As where its key was taken out of the configuration.
    let flip = "update transactions set request = set_byte(request, 0, get_byte(request, 0) # 255), \
                    next_step_at = now(), claimed_until = null where request is not null";
    world.db.execute(flip, &[]).await;
    let counted = async |outcome: &str| {
        let series = format!("payment_recovery_runs_total{{outcome=\"{outcome}\"");
        eventually("it is counted", async || {
            (world.metric(&series)? >= 1.0).then_some(())
        })
        .await;
    };
    counted("stuck").await;
    world.db.execute(flip, &[]).await;
    counted("waiting").await;
    let still = world.client.payment(&pending.payment_id).await;
    assert_eq!(still.state(), PaymentState::Pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_recovery_finds_a_decline() {
    let world = World::start_with(impatient()).await;
    for token in ["tok_decline?drop=after", "tok_pending_then_decline"] {
        let pending = world.client.create(purchase(token, 700)).await;
        let declined = found_out(&world, &world.client, &pending.payment_id).await;
        assert_eq!(declined.state(), PaymentState::Declined, "{token}");
        assert!(declined.decline.is_some(), "{token}");
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_recovery_finds_nothing_and_sends_it_again_under_the_same_key() {
    let world = World::start_with(impatient()).await;
    for token in [
        "tok_timeout_before_charge",
        "tok_error_500_then_approve",
        "tok_rate_limited",
    ] {
        let pending = world.client.create(purchase(token, 700)).await;
        assert_eq!(pending.state(), PaymentState::Pending, "{token}");
        let paid = found_out(&world, &world.client, &pending.payment_id).await;
        assert_eq!(paid.state(), PaymentState::Captured, "{token}");
        assert_eq!(paid.transactions[0].attempts, 2, "{token}");
        let charged = world.charged(&paid.transactions[0].transaction_id);
        assert_eq!(charged.charges, 1, "{token}");
    }
    assert!(
        world
            .metric("payment_retries_total{how=\"resend\"")
            .is_some()
    );
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_lost_captures_voids_and_refunds_are_found_out_like_payments() {
    let world = World::start_with(impatient()).await;
    let faults = "capture.drop=after&refund.drop=before&void.hang=after";
    let token = format!("tok_approve?{faults}");
    let captured = world.client.create(authorization(&token, 900)).await;
    world.client.ok(capture(&captured, 400)).await;
    let captured = found_out(&world, &world.client, &captured.payment_id).await;
    world.client.ok(refund(&captured, 150)).await;
    found_out(&world, &world.client, &captured.payment_id).await;
    let voided = world.client.create(authorization(&token, 900)).await;
    world.client.ok(void(&voided)).await;
    let voided = found_out(&world, &world.client, &voided.payment_id).await;
    assert_eq!(voided.state(), PaymentState::Voided);
    let books = world.books();
    let euro = &books.currencies["EUR"];
    assert_eq!((euro.captured, euro.refunded), (400, 150));
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_a_recovery_is_linked_to_the_span_that_accepted_the_payment() {
    let site = Site::new(impatient()).await;
    let collector = Collector::start().await;
    let settings = vec![
        ("telemetry.otlp_endpoint", collector.endpoint().into()),
        ("telemetry.otlp_protocol", "grpc".into()),
    ];
    let server = ServerProcess::start(&site, settings).await;
    let request = purchase("tok_timeout_after_charge", 100);
    let answer = server.client.ok(request).await;
    let accepted_in = answer.trace_id();
    let payment_id = answer.message.payment.unwrap().payment_id;
    found_out(&site, &server.client, &payment_id).await;
    server.stop().await;

    let spans = collector.spans();
    let runs: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "recovery")
        .collect();
    let settled = runs
        .iter()
        .find(|span| attribute(span, "outcome").as_deref() == Some("settled"));
    let settled = settled.unwrap_or_else(|| panic!("no run that settled: {runs:?}"));
    assert_eq!(attribute(settled, "payment.id"), Some(payment_id));
    assert!(settled.parent_span_id.is_empty(), "the root of its trace");
    let links: Vec<_> = settled
        .links
        .iter()
        .map(|link| hex::encode(&link.trace_id))
        .collect();
    assert_eq!(links, [accepted_in]);
    let within = spans
        .iter()
        .filter(|span| span.trace_id == settled.trace_id);
    assert!(within.count() >= 3, "the lookup and the commit are in it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_what_recovery_cannot_find_out_stays_pending_and_calls_a_person() {
    let options = impatient()
        .with("payments.retries.unreachable.max_steps", 3)
        .with("payments.retries.outcome_unknown.max_steps", 3)
        .with("telemetry.gauge_interval_ms", 100);
    let world = World::start_with(options).await;
    let exhausted = "payment_recovery_exhausted_total{provider_account=\"sandbox\"}";
    assert_eq!(world.metric(exhausted), Some(0.0), "before the first");

    // Lookups fail, so that nobody finds it before the provider is away.
    world.arm("lookup", 503, 1_000).await;
    // Nothing holds the sandbox's port: the answer is lost, and then nobody can be asked.
    let client = world.client.reconnected();
    let call = tokio::spawn(async move {
        client
            .create(purchase("tok_timeout_after_charge", 300))
            .await
    });
    eventually("the provider has charged", async || {
        (world.books().counts.purchases == 1).then_some(())
    })
    .await;
    world.sandbox.pause_accepting().await;
    let pending = call.await.unwrap();

    let cases = "select count(*) from operator_actions where kind = 'RECOVERY_EXHAUSTED' and closed_at is null";
    eventually("a person is called", async || {
        (world.db.number(cases).await == 1).then_some(())
    })
    .await;
    let stuck = world.client.payment(&pending.payment_id).await;
    assert_eq!(stuck.state(), PaymentState::Pending, "unknown never decays");
    eventually("it is counted", async || {
        ((world.metric(exhausted)? - 1.0).abs() < 0.5).then_some(())
    })
    .await;
    eventually("the gauges say so", async || {
        let open = world.metric("payment_operator_actions_open") == Some(1.0);
        let pending = world.metric("payment_pending_count") == Some(1.0);
        (open && pending).then_some(())
    })
    .await;
    let due = "select count(*) from transactions where next_step_at is not null";
    assert_eq!(
        world.db.number(due).await,
        0,
        "not taken up by itself any more"
    );

    // The truth is welcome all the same.
    world.sandbox.resume().await.unwrap();
    world.disarm().await;
    let paid = eventually("whoever asks finds out", async || {
        let payment = world.client.ok(sync(&pending)).await.message.payment?;
        (payment.state() != PaymentState::Pending).then_some(payment)
    })
    .await;
    assert_eq!(paid.state(), PaymentState::Captured);
    let charged = world.charged(&paid.transactions[0].transaction_id);
    assert_eq!(charged.charges, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_when_all_accounts_are_out_of_reach_and_then_back_there_is_one_charge() {
    let site = Site::new(SiteOptions::default().recovering()).await;
    let both = accounts(
        &[
            ("first", &site.sandbox.base_url()),
            ("second", "http://127.0.0.1:1"),
        ],
        PROVIDER_TIMEOUT_MS,
    );
    let world = World::on(site, vec![both]).await;
    world.sandbox.pause_accepting().await;
    let pending = world.client.create(purchase("tok_approve", 800)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    eventually("it is tried again while out of reach", async || {
        let payment = world.client.payment(&pending.payment_id).await;
        (payment.transactions[0].attempts >= 4).then_some(())
    })
    .await;
    world.sandbox.resume().await.unwrap();
    let paid = found_out(&world, &world.client, &pending.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.provider_account, "first");
    let charged = world.charged(&paid.transactions[0].transaction_id);
    assert_eq!((charged.charges, charged.amount), (1, 800));
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_what_could_not_be_sent_in_time_fails_and_is_never_sent() {
    let world = World::start_with(SiteOptions::default().recovering()).await;
    world.sandbox.pause_accepting().await;
    let pending = world.client.create(purchase("tok_approve", 800)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let failed = too_late(&world, &world.client, &pending.payment_id).await;
    assert_eq!(failed.state(), PaymentState::Failed);
    let failure = failed.transactions[0].failure.as_ref().unwrap();
    assert_eq!(failure.cause, "NOT_SENT_IN_TIME");
    world.sandbox.resume().await.unwrap();
    assert_eq!(world.books().counts.operations, 0);
    world.everything_agrees().await;
}

/// A time to send by that a caller gives, in whole seconds.
#[allow(clippy::disallowed_methods, reason = "a caller reads its own clock")]
fn seconds_from_now(seconds: i64) -> prost_types::Timestamp {
    let mut at = prost_types::Timestamp::from(SystemTime::now());
    (at.seconds, at.nanos) = (at.seconds + seconds, 0);
    at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_captures_and_refunds_are_sent_by_the_time_that_their_caller_gave_or_never() {
    let world = World::start().await;
    let payment = world.client.create(authorization("tok_approve", 900)).await;
    world.client.ok(capture(&payment, 400)).await;
    world.sandbox.pause_accepting().await;
    // It has no connection yet, whose end could leave open what was sent.
    let recovering = SiteOptions::default().recovering().settings;
    let server = world.replica_with(recovering).await;
    let by = |seconds| {
        let execute_before = Some(seconds_from_now(seconds));
        let capture = CapturePaymentRequest {
            execute_before,
            ..capture(&payment, 500)
        };
        let refund = RefundPaymentRequest {
            execute_before,
            ..refund(&payment, 300)
        };
        (capture, refund, execute_before)
    };

    let (late_capture, late_refund, _) = by(-1);
    for failure in [
        server.client.refused(late_capture).await,
        server.client.refused(late_refund).await,
    ] {
        failure.is(Code::InvalidArgument, "INVALID_FIELD");
        failure.names(&["execute_before"]);
        assert!(failure.money_may_have_moved(), "it had not passed before");
    }

    let (capture_then, refund_then, execute_before) = by(600);
    let pending = [
        server.client.ok(capture_then).await.message.transaction,
        server.client.ok(refund_then).await.message.transaction,
    ];
    for pending in pending.map(Option::unwrap) {
        assert_eq!(pending.state(), TransactionState::Pending);
        assert_eq!(pending.execute_before, execute_before);
    }
    let after = too_late(&world, &server.client, &payment.payment_id).await;
    for failed in &after.transactions[2..] {
        assert_eq!(failed.state(), TransactionState::Failed);
        assert_eq!(failed.failure.as_ref().unwrap().cause, "NOT_SENT_IN_TIME");
    }
    assert_eq!((after.capturable(), after.refundable()), (500, 400));

    world.sandbox.resume().await.unwrap();
    server.client.ok(capture(&payment, 500)).await;
    server.client.ok(refund(&payment, 300)).await;
    found_out(&world, &server.client, &payment.payment_id).await;
    let counts = world.books().counts;
    let sent = (counts.captures, counts.refunds);
    assert_eq!(sent, (2, 1), "what was late never came");
    world.everything_agrees().await;
    assert!(server.server.shutdown().await);
}

/// A second provider.
async fn another() -> SandboxHandle {
    Sandbox::start(SandboxConfig::new(SANDBOX_KEY))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_payment_that_was_certainly_not_sent_goes_to_the_next_account() {
    let site = Site::new(SiteOptions::default()).await;
    let url = site.sandbox.base_url();
    let both = accounts(
        &[("dead", "http://127.0.0.1:1"), (ACCOUNT, &url)],
        PROVIDER_TIMEOUT_MS,
    );
    let world = World::on(site, vec![both]).await;
    let paid = world.client.create(purchase("tok_approve", 500)).await;
    assert_eq!(paid.state(), PaymentState::Captured, "within the same call");
    assert_eq!(paid.provider_account, ACCOUNT);
    assert_eq!(paid.transactions[0].attempts, 2);
    // What follows goes where the money is.
    world.client.ok(refund(&paid, None)).await;
    world.everything_agrees().await;
    let failovers = "payment_retries_total{how=\"failover\"";
    assert!(world.metric(failovers).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_after_a_timeout_nothing_goes_to_another_account_whatever_comes_next() {
    let site = Site::new(impatient()).await;
    let other = another().await;
    let both = accounts(
        &[
            (ACCOUNT, &site.sandbox.base_url()),
            ("other", &other.base_url()),
        ],
        3_000,
    );
    let world = World::on(site, vec![both]).await;
    let client = world.client.reconnected();
    let call = tokio::spawn(async move {
        client
            .create(purchase("tok_timeout_before_charge", 500))
            .await
    });
    eventually("the first attempt is made", async || {
        (world.db.number("select count(*) from attempts").await == 1).then_some(())
    })
    .await;
    let pending = call.await.unwrap();
    // Attempt 1 timed out; from here on the account refuses every connection.
    world.sandbox.pause_accepting().await;
    let tried = "select coalesce(max(retries), 0)::bigint from transactions";
    eventually("it is taken up while out of reach", async || {
        (world.db.number(tried).await >= 3).then_some(())
    })
    .await;
    let stuck = world.client.payment(&pending.payment_id).await;
    assert_eq!(stuck.state(), PaymentState::Pending);
    assert_eq!(stuck.provider_account, ACCOUNT);
    world.sandbox.resume().await.unwrap();
    let paid = found_out(&world, &world.client, &pending.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.provider_account, ACCOUNT);
    assert_eq!(other.books().counts.operations, 0, "never asked");
    world.everything_agrees().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s70_a_circuit_opens_while_the_provider_is_away_and_closes_when_it_is_back() {
    let site = Site::new(SiteOptions::default().recovering()).await;
    let mut only = account(ACCOUNT, &site.sandbox.base_url(), PROVIDER_TIMEOUT_MS);
    let circuit =
        "window_calls = 10\nmin_calls = 4\nopen_ms = 300\nmax_open_ms = 600\nhalf_open_probes = 2";
    only.insert("circuit".to_owned(), Value::Table(circuit.parse().unwrap()));
    let settings = vec![
        ("providers.accounts", Value::from(vec![Value::from(only)])),
        ("telemetry.gauge_interval_ms", Value::from(100)),
    ];
    let world = World::on(site, settings).await;
    let state = |state: &str| {
        let series =
            format!("payment_provider_circuit{{provider_account=\"sandbox\",state=\"{state}\"}}");
        world.metric(&series) == Some(1.0)
    };
    world.sandbox.pause_accepting().await;
    let mut pending = Vec::new();
    for _ in 0..8 {
        pending.push(world.client.create(purchase("tok_approve", 100)).await);
    }
    let open = "select count(*) from journal where cause = 'CIRCUIT_OPEN'";
    eventually("payments are not even tried", async || {
        (world.db.number(open).await > 0).then_some(())
    })
    .await;
    eventually("the metric shows the open circuit", async || {
        state("open").then_some(())
    })
    .await;
    world.sandbox.resume().await.unwrap();
    for payment in pending {
        let paid = found_out(&world, &world.client, &payment.payment_id).await;
        assert_eq!(paid.state(), PaymentState::Captured);
    }
    eventually("the metric shows the closed circuit", async || {
        state("closed").then_some(())
    })
    .await;
    assert_eq!(world.books().counts.purchases, 8);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s82_what_a_dead_server_had_claimed_is_taken_over() {
    let world = World::start_with(SiteOptions::default().recovering()).await;
    let mut victim = ServerProcess::start(&world, Vec::new()).await;
    let client = victim.client.clone();
    let call = tokio::spawn(async move {
        client
            .send(purchase("tok_approve?latency_ms=60000", 100))
            .await
    });
    eventually("the provider has charged", async || {
        (world.books().counts.purchases == 1).then_some(())
    })
    .await;
    victim.kill();
    world.all_senders_are_gone().await;
    assert!(call.await.unwrap().is_err());
    let id: String = world
        .db
        .row("select payment_id::text from payments", &[])
        .await
        .get(0);
    let paid = found_out(&world, &world.client, &id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    world.everything_agrees().await;
}
