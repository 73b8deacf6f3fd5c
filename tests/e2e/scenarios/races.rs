//! Two things at once, and amounts that do not fit.

use futures::future::{join, join_all};
use quittance_evidence::ChainCheck;
use quittance_proto::v1::PaymentState;
use tonic::Code;

use crate::harness::{
    Amounts as _, Failure, Keyed as _, SiteOptions, World, authorization, capture, purchase,
    refund, void,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s76_appends_from_two_replicas_are_numbered_without_gaps() {
    let world = World::start().await;
    let other = world.replica().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 4_000))
        .await;
    let calls = (0..40).map(|number| {
        let client = if number % 2 == 0 {
            &world.client
        } else {
            &other.client
        };
        client.call(capture(&payment, 100))
    });
    let answers = join_all(calls).await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(taken > 0);
    for failure in answers.into_iter().filter_map(Result::err) {
        assert_eq!(
            failure.code,
            Code::Aborted,
            "lost too many races: {failure:?}"
        );
    }
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(after.captured(), i64::try_from(taken).unwrap() * 100);
    // Numbered, chained, and one entry a version, whoever wrote it.
    let entries = world.client.entries_of(&payment.payment_id).await;
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.entity_seq).collect();
    let expected: Vec<u64> = (1..=u64::try_from(entries.len()).unwrap()).collect();
    assert_eq!(numbers, expected);
    assert_eq!(after.version, *numbers.last().unwrap());
    let leaves = entries.iter().map(|entry| entry.leaf_data.as_slice());
    let head = ChainCheck::run(leaves).unwrap().unwrap();
    assert_eq!(head.entity_seq, after.version);
    assert!(other.server.shutdown().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s35_capture_against_void_is_won_by_exactly_one() {
    let world = World::start().await;
    let token = "tok_approve?capture.latency_ms=20&void.latency_ms=20";
    let (mut captures_won, mut voids_won) = (0, 0);
    for _ in 0..20 {
        let payment = world.client.create(authorization(token, 100)).await;
        let other = world.client.reconnected();
        let (captured, voided) = join(
            world.client.call(capture(&payment, None)),
            other.call(void(&payment)),
        )
        .await;
        let after = world.client.payment(&payment.payment_id).await;
        match (captured, voided) {
            (Ok(_), Err(failure)) => {
                captures_won += 1;
                lost(&failure);
                assert_eq!(
                    (after.state(), after.captured()),
                    (PaymentState::Captured, 100)
                );
            }
            (Err(failure), Ok(_)) => {
                voids_won += 1;
                lost(&failure);
                assert_eq!((after.state(), after.voided()), (PaymentState::Voided, 100));
            }
            (Ok(_), Ok(_)) => panic!("captured and voided"),
            (Err(one), Err(other)) => panic!("neither: {one:?}; {other:?}"),
        }
    }
    let euros = world.books().currencies["EUR"];
    assert_eq!(
        (euros.captured, euros.voided),
        (100 * captures_won, 100 * voids_won)
    );
}

/// What the loser of a race may be told: that money may have moved only where an equal request might have won it.
fn lost(failure: &Failure) {
    assert!(
        matches!(failure.code, Code::FailedPrecondition | Code::Aborted),
        "{failure:?}"
    );
    let aborted = failure.code == Code::Aborted;
    assert_eq!(failure.money_may_have_moved(), aborted, "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s36_capture_against_refund_keeps_the_limits() {
    let world = World::start().await;
    for _ in 0..10 {
        let payment = world.client.create(authorization("tok_approve", 100)).await;
        world.client.ok(capture(&payment, 40)).await;
        let (captured, refunded) = join(
            world.client.call(capture(&payment, 60)),
            world.client.call(refund(&payment, 40)),
        )
        .await;
        captured.unwrap();
        refunded.unwrap();
        let after = world.client.payment(&payment.payment_id).await;
        assert_eq!(
            (after.captured(), after.refunded(), after.refundable()),
            (100, 40, 60)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s37_of_two_refunds_that_exceed_the_rest_exactly_one_succeeds() {
    let world = World::start().await;
    let other = world.replica().await;
    for _ in 0..20 {
        let payment = world
            .client
            .create(purchase("tok_approve?refund.latency_ms=10", 100))
            .await;
        let results = join(
            world.client.call(refund(&payment, 60)),
            other.client.call(refund(&payment, 60)),
        )
        .await;
        let failure = match results {
            (Ok(_), Err(failure)) | (Err(failure), Ok(_)) => failure,
            (Ok(_), Ok(_)) => panic!("both refunds succeeded"),
            (Err(one), Err(other)) => panic!("neither: {one:?}; {other:?}"),
        };
        failure.is(Code::FailedPrecondition, "AMOUNT_EXCEEDS_REFUNDABLE");
        let after = world.client.payment(&payment.payment_id).await;
        assert_eq!((after.refunded(), after.refundable()), (60, 40));
    }
    assert_eq!(world.books().currencies["EUR"].refunded, 20 * 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s37_many_small_refunds_at_once_never_exceed_the_capture() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let refunds = join_all((0..15).map(|_| world.client.call(refund(&payment, 10)))).await;
    let (done, refused): (Vec<_>, Vec<_>) = refunds.into_iter().partition(Result::is_ok);
    for failure in refused.into_iter().filter_map(Result::err) {
        lost(&failure);
    }
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(after.refunded(), 10 * i64::try_from(done.len()).unwrap());
    assert!(after.refunded() <= 100);
    assert_eq!(
        world.books().currencies["EUR"].refunded,
        i128::from(after.refunded())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i13_no_refund_that_was_made_twice_at_once_is_denied_where_the_other_call_won() {
    let options = SiteOptions::default().with("payments.max_decisions", 1);
    let world = World::start_with(options).await;
    let other = world.replica().await;
    for round in 0..12 {
        let payment = world.client.create(purchase("tok_approve", 100)).await;
        let keys = (0..4).map(|number| format!("{round}-{number}"));
        let calls = keys.flat_map(|key| {
            let clients = [&world.client, &other.client];
            clients.map(|client| {
                let call = client.call(refund(&payment, 10).key(&key));
                let key = key.clone();
                async move { (key, call.await) }
            })
        });
        for (key, answer) in join_all(calls).await {
            let Err(failure) = answer else { continue };
            assert_eq!(failure.code, Code::Aborted, "{failure:?}");
            let taken =
                format!("select count(*) from idempotency_records where idempotency_key = '{key}'");
            let denied = !failure.money_may_have_moved();
            assert!(!denied || world.db.number(&taken).await == 0, "I13: {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s38_capturing_more_than_authorized_is_refused() {
    let world = World::start().await;
    let payment = world.client.create(authorization("tok_approve", 100)).await;
    let before = world.db.volume().await;
    let failure = world.client.refused(capture(&payment, 101)).await;
    failure.is(Code::FailedPrecondition, "AMOUNT_EXCEEDS_CAPTURABLE");
    assert!(!failure.money_may_have_moved() && !failure.retryable());
    assert_eq!(world.db.volume().await, before);
    world.client.ok(capture(&payment, 99)).await;
    let failure = world.client.refused(capture(&payment, 2)).await;
    failure.is(Code::FailedPrecondition, "AMOUNT_EXCEEDS_CAPTURABLE");
    world.client.ok(capture(&payment, 1)).await;
    assert_eq!(world.books().currencies["EUR"].captured, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s39_refunding_before_a_capture_is_refused() {
    let world = World::start().await;
    let payment = world.client.create(authorization("tok_approve", 100)).await;
    let before = world.db.volume().await;
    for amount in [Some(1), None] {
        let failure = world.client.refused(refund(&payment, amount)).await;
        assert_eq!(failure.code, Code::FailedPrecondition, "{failure:?}");
        let reason = failure.reason.as_str();
        assert!(
            matches!(
                reason,
                "AMOUNT_EXCEEDS_REFUNDABLE" | "PAYMENT_STATE_FORBIDS"
            ),
            "{reason}"
        );
    }
    assert_eq!(world.db.volume().await, before);
    assert_eq!(world.books().counts.refunds, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s65_partial_sums_hold_to_the_last_unit() {
    let world = World::start().await;
    let total = 999_999_999_999_999;
    let payment = world
        .client
        .create(authorization("tok_approve", total))
        .await;
    for part in [1, total - 3, 1] {
        world.client.ok(capture(&payment, part)).await;
    }
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!((after.captured(), after.capturable()), (total - 1, 1));
    let failure = world.client.refused(capture(&payment, 2)).await;
    failure.is(Code::FailedPrecondition, "AMOUNT_EXCEEDS_CAPTURABLE");
    world.client.ok(capture(&payment, 1)).await;
    for part in [total - 1, 1] {
        world.client.ok(refund(&payment, part)).await;
    }
    let failure = world.client.refused(refund(&payment, 1)).await;
    assert_eq!(failure.code, Code::FailedPrecondition);
    let euros = world.books().currencies["EUR"];
    assert_eq!(
        (euros.captured, euros.refunded),
        (i128::from(total), i128::from(total))
    );
}
