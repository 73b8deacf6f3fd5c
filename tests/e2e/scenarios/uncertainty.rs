//! Answers that never come, come late, or say something else: unknown never decays, nothing is charged twice.

use std::time::Duration;

use quittance_proto::v1::{Payment, PaymentState, TransactionState};

use crate::harness::{
    Amounts as _, Keyed as _, SiteOptions, World, authorization, capture, eventually, get_by_key,
    purchase, refund, sync, void,
};

/// A payment whose provider answer is lost: PENDING first, then resolved by asking.
async fn is_pending_then_paid_by_sync(world: &World, token: &str, cause: &str) -> Payment {
    let pending = world.client.create(purchase(token, 800)).await;
    assert_eq!(
        pending.state(),
        PaymentState::Pending,
        "{token}: unknown is an outcome"
    );
    assert_eq!(
        (pending.captured(), pending.refundable()),
        (0, 0),
        "{token}"
    );
    let first = world.client.entries_of(&pending.payment_id).await;
    let causes: Vec<_> = first
        .iter()
        .filter_map(|entry| Some(entry.cause.as_ref()?.code.as_str()))
        .collect();
    assert_eq!(causes, [cause], "{token}");

    let mut paid = world
        .client
        .ok(sync(&pending))
        .await
        .message
        .payment
        .unwrap();
    if paid.state() == PaymentState::Pending {
        // The provider does not hold it, but the request may still be on its way.
        assert_eq!(paid.transactions[0].attempts, 1, "{token}: not resent yet");
        world.let_leases_run_out().await;
        world.let_waits_end().await;
        paid = world
            .client
            .ok(sync(&pending))
            .await
            .message
            .payment
            .unwrap();
    }
    assert_eq!(paid.state(), PaymentState::Captured, "{token}");
    assert_eq!(paid.captured(), 800);
    let charged = world.charged(&paid.transactions[0].transaction_id);
    assert_eq!(
        (charged.charges, charged.amount),
        (1, 800),
        "{token}: charged once"
    );
    let requests = "select count(*) from transactions where request is not null";
    assert_eq!(
        world.db.number(requests).await,
        0,
        "{token}: the request is wiped at the end"
    );
    paid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_a_refused_connection_leaves_the_payment_pending_until_it_can_be_sent() {
    let world = World::start().await;
    world.sandbox.pause_accepting().await;
    let pending = world.client.create(purchase("tok_approve", 800)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let entries = world.client.entries_of(&pending.payment_id).await;
    let cause = entries.last().unwrap().cause.clone().unwrap();
    assert_eq!(
        (cause.code.as_str(), cause.retryable),
        ("CONNECTION_REFUSED", true)
    );
    // Nothing was sent, so it is tried again, but not before its time, however often somebody asks.
    let later = "update transactions set next_step_at = now() + interval '1 hour'";
    world.db.execute(later, &[]).await;
    let asked = async || {
        let answer = world.client.ok(sync(&pending)).await;
        answer.message.payment.unwrap()
    };
    for _ in 0..3 {
        assert_eq!(asked().await.transactions[0].attempts, 1);
    }
    // Still out of reach, it stays pending.
    world.let_waits_end().await;
    let still = asked().await;
    assert_eq!(still.state(), PaymentState::Pending);
    assert_eq!(still.transactions[0].attempts, 2);
    world.sandbox.resume().await.unwrap();
    world.let_waits_end().await;
    let paid = asked().await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.transactions[0].attempts, 3);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_timeout_before_the_charge_is_pending_then_sent_again_by_sync() {
    let world = World::start_with(SiteOptions::impatient()).await;
    let paid =
        is_pending_then_paid_by_sync(&world, "tok_timeout_before_charge", "RESPONSE_TIMEOUT").await;
    assert_eq!(
        paid.transactions[0].attempts, 2,
        "the provider did not hold it, so it was resent"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_a_timeout_after_the_charge_is_pending_then_found_by_sync() {
    let world = World::start_with(SiteOptions::impatient()).await;
    let paid =
        is_pending_then_paid_by_sync(&world, "tok_timeout_after_charge", "RESPONSE_TIMEOUT").await;
    assert_eq!(paid.transactions[0].attempts, 1, "found, not resent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_a_reset_in_the_middle_of_the_answer_is_pending_then_found_by_sync() {
    let world = World::start().await;
    let paid =
        is_pending_then_paid_by_sync(&world, "tok_reset_after_charge", "CONNECTION_LOST").await;
    assert_eq!(paid.transactions[0].attempts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_a_500_is_pending_then_resolved_by_sync() {
    let world = World::start().await;
    is_pending_then_paid_by_sync(&world, "tok_error_500_then_approve", "PROVIDER_ERROR").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_a_429_on_a_first_send_proves_that_nothing_was_sent() {
    let world = World::start().await;
    let paid = is_pending_then_paid_by_sync(&world, "tok_rate_limited", "RATE_LIMITED").await;
    assert_eq!(paid.transactions[0].attempts, 2);
    let unknown = "select count(*) from transactions where ever_unknown";
    assert_eq!(world.db.number(unknown).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_a_429_on_a_resend_proves_nothing() {
    let world = World::start().await;
    let token = "tok_approve?status=500";
    let pending = world.client.create(purchase(token, 100)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    // From now on every send is answered 429: after one Unknown that does not make it NotSent (I4).
    let armed = sandbox_control::arm(&world, r#"{"kind": "purchase"}"#, 429).await;
    assert!(armed);
    world.let_leases_run_out().await;
    world.let_waits_end().await;
    let still = world
        .client
        .ok(sync(&pending))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(still.state(), PaymentState::Pending);
    assert_eq!(still.transactions[0].attempts, 2);
    assert_eq!(
        world
            .db
            .number("select count(*) from transactions where ever_unknown")
            .await,
        1
    );
    world.let_leases_run_out().await;
    world.let_waits_end().await;
    let paid = world
        .client
        .ok(sync(&pending))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s19_a_malformed_answer_is_pending_then_found_by_sync() {
    let world = World::start().await;
    is_pending_then_paid_by_sync(&world, "tok_malformed_response", "UNREADABLE_RESPONSE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_a_caller_that_goes_away_does_not_stop_its_payment() {
    let world = World::start().await;
    let request = purchase("tok_approve?latency_ms=300", 450).key("gone");
    let client = world.client.reconnected();
    let call = tokio::spawn({
        let request = request.clone();
        async move { client.send(request).await }
    });
    eventually("the payment is accepted", async || {
        (world.db.number("select count(*) from payments").await == 1).then_some(())
    })
    .await;
    call.abort();
    let paid = eventually("the payment completes", async || {
        let payment = world
            .client
            .ok(get_by_key("gone"))
            .await
            .message
            .payment
            .unwrap();
        (payment.state() != PaymentState::Pending).then_some(payment)
    })
    .await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
    let replay = world.client.ok(request).await;
    assert!(replay.replayed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_at_its_deadline_a_caller_gets_the_payment_as_it_stands() {
    let options = SiteOptions::default().with("payments.answer_margin_ms", 3_000);
    let world = World::start_with(options).await;
    let request = purchase("tok_approve?latency_ms=6000", 450).key("late");
    let answer = world
        .client
        .within(Duration::from_secs(5))
        .ok(request)
        .await;
    let pending = answer.message.payment.unwrap();
    assert_eq!(pending.state(), PaymentState::Pending);
    assert_eq!(
        answer.message.transaction.unwrap().state(),
        TransactionState::Pending
    );
    let paid = eventually("the payment completes", async || {
        let payment = world.client.payment(&pending.payment_id).await;
        (payment.state() != PaymentState::Pending).then_some(payment)
    })
    .await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_refund_that_fails_later_gives_the_money_back_to_the_payment() {
    let world = World::start().await;
    let payment = world
        .client
        .create(purchase("tok_refund_fails_later", 600))
        .await;
    let refunded = world
        .client
        .ok(refund(&payment, None))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(refunded.state(), PaymentState::Refunded);
    world.client.ok(sync(&payment)).await;
    let reversed = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(reversed.state(), PaymentState::Captured);
    assert_eq!((reversed.refunded(), reversed.refundable()), (0, 600));
    assert_eq!(reversed.transactions[1].state(), TransactionState::Reversed);
    let last = world
        .client
        .entries_of(&payment.payment_id)
        .await
        .pop()
        .unwrap();
    assert_eq!(last.event_type, "refund.reversed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_that_fails_later_gives_its_reservation_back() {
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_capture_fails", 500))
        .await;
    let pending = world
        .client
        .ok(capture(&payment, 300))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(pending.pending(), (300, 0, 0));
    assert_eq!((pending.captured(), pending.capturable()), (0, 200));
    let failed = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(failed.state(), PaymentState::Authorized);
    assert_eq!((failed.pending(), failed.capturable()), ((0, 0, 0), 500));
    let capture = &failed.transactions[1];
    assert_eq!(capture.state(), TransactionState::Failed);
    assert_eq!(
        capture.failure.as_ref().unwrap().cause,
        "PROVIDER_REPORTED_FAILURE"
    );
    assert_eq!(world.books().counts.captures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_a_wrong_amount_keeps_the_payment_pending_and_calls_a_person() {
    let world = World::start().await;
    let pending = world.client.create(purchase("tok_wrong_amount", 100)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    assert_eq!(pending.captured(), 0);
    let action = world
        .db
        .row("select kind, payment_id::text from operator_actions", &[])
        .await;
    assert_eq!(action.get::<_, String>(0), "AMOUNT_MISMATCH");
    assert_eq!(action.get::<_, String>(1), pending.payment_id);
    let still = world
        .client
        .ok(sync(&pending))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(
        still.state(),
        PaymentState::Pending,
        "only a person can say what it means"
    );
    assert_eq!(
        world.charged(&still.transactions[0].transaction_id).charges,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_to_captures_voids_and_refunds_are_resolved_by_sync() {
    let world = World::start_with(SiteOptions::impatient()).await;
    let token = "tok_approve?capture.hang=after&refund.reset=after";
    let payment = world.client.create(authorization(token, 1000)).await;
    let pending = world
        .client
        .ok(capture(&payment, 600))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(
        (pending.pending(), pending.capturable()),
        ((600, 0, 0), 400)
    );
    let captured = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!((captured.captured(), captured.pending()), (600, (0, 0, 0)));

    let pending = world
        .client
        .ok(refund(&payment, 250))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(
        (pending.pending(), pending.refundable()),
        ((0, 0, 250), 350)
    );
    let refunded = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!((refunded.refunded(), refunded.pending()), (250, (0, 0, 0)));

    let payment = world
        .client
        .create(authorization("tok_approve?void.hang=before", 300))
        .await;
    let pending = world
        .client
        .ok(void(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(pending.pending(), (0, 300, 0));
    world.let_leases_run_out().await;
    world.let_waits_end().await;
    let voided = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(voided.state(), PaymentState::Voided);
    let euros = world.books().currencies["EUR"];
    assert_eq!(
        (euros.captured, euros.refunded, euros.voided),
        (600, 250, 300)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_void_while_the_outcome_is_unknown_is_carried_out_once_it_is_known() {
    let world = World::start_with(SiteOptions::impatient()).await;
    let payment = world
        .client
        .create(authorization("tok_timeout_after_charge", 500))
        .await;
    assert_eq!(payment.state(), PaymentState::Pending);
    let waiting = world
        .client
        .ok(void(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(
        waiting.state(),
        PaymentState::Pending,
        "the intent is recorded"
    );
    let voided = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(voided.state(), PaymentState::Voided);
    assert_eq!(world.books().currencies["EUR"].voided, 500);

    let payment = world
        .client
        .create(purchase("tok_timeout_after_charge", 500))
        .await;
    world.client.ok(void(&payment)).await;
    let captured = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(
        captured.state(),
        PaymentState::Captured,
        "what is captured cannot be voided"
    );
    let void = &captured.transactions[1];
    assert_eq!(void.state(), TransactionState::Failed);
    assert_eq!(void.failure.as_ref().unwrap().cause, "ALREADY_CAPTURED");
}

/// The sandbox's control API, over HTTP as an operator of the sandbox would use it.
mod sandbox_control {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use crate::harness::World;
    use crate::harness::site::SANDBOX_KEY;

    /// The next matching request is answered with this status.
    pub async fn arm(world: &World, matching: &str, status: u16) -> bool {
        let body =
            format!(r#"{{"match": {matching}, "fault": {{"status": {status}}}, "times": 1}}"#);
        let mut socket = TcpStream::connect(world.sandbox.addr()).await.unwrap();
        let request = format!(
            "POST /control/faults HTTP/1.1\r\nhost: sandbox\r\nauthorization: Bearer {SANDBOX_KEY}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer.starts_with("HTTP/1.1 2")
    }
}
