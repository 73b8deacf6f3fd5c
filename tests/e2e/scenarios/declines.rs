//! Payments that are declined: an outcome, not an error.

use quittance_proto::v1::{DeclineCode, PaymentState, RetryAdvice, TransactionState};

use crate::harness::{
    Amounts as _, Keyed as _, World, authorization, capture, purchase, refund, sync,
};

/// Every way in which the sandbox's issuer says no: its token, its code, ours, and the advice.
const DECLINES: [(&str, &str, DeclineCode, RetryAdvice); 5] = [
    (
        "tok_decline",
        "do_not_honor",
        DeclineCode::DoNotHonor,
        RetryAdvice::RetryWithOtherMethod,
    ),
    (
        "tok_insufficient_funds",
        "insufficient_funds",
        DeclineCode::InsufficientFunds,
        RetryAdvice::RetryLater,
    ),
    (
        "tok_expired_card",
        "expired_card",
        DeclineCode::CardExpired,
        RetryAdvice::RetryWithOtherMethod,
    ),
    (
        "tok_lost_card",
        "lost_card",
        DeclineCode::CardLostOrStolen,
        RetryAdvice::DoNotRetry,
    ),
    (
        "tok_fraud",
        "fraud",
        DeclineCode::FraudSuspected,
        RetryAdvice::DoNotRetry,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s08_every_decline_has_a_unified_code_and_advice_beside_the_provider_s_own() {
    let world = World::start().await;
    for (token, provider_code, code, advice) in DECLINES {
        for request in [purchase(token, 100), authorization(token, 100)] {
            let payment = world.client.create(request).await;
            assert_eq!(payment.state(), PaymentState::Declined, "{token}");
            let decline = payment.decline.as_ref().unwrap();
            assert_eq!(
                (decline.code(), decline.retry_advice()),
                (code, advice),
                "{token}"
            );
            assert_eq!(decline.provider_code, provider_code);
            assert!(payment.failure.is_none());
            let transaction = &payment.transactions[0];
            assert_eq!(transaction.state(), TransactionState::Declined);
            assert_eq!(transaction.decline.as_ref(), Some(decline));
            assert_eq!((payment.authorized(), payment.capturable()), (0, 0));
        }
    }
    let counts = world.books().counts;
    assert_eq!(
        (counts.purchases, counts.authorizations, counts.declined),
        (0, 0, 10)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_after_a_soft_decline_a_new_key_can_succeed() {
    let world = World::start().await;
    let declined = world
        .client
        .create(purchase("tok_insufficient_funds", 100))
        .await;
    assert_eq!(declined.state(), PaymentState::Declined);
    let paid = world.client.create(purchase("tok_approve", 100)).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_ne!(paid.payment_id, declined.payment_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_a_hard_decline_is_never_retried_by_itself() {
    let world = World::start().await;
    let request = purchase("tok_lost_card", 100).key("lost");
    let declined = world.client.create(request.clone()).await;
    assert_eq!(declined.state(), PaymentState::Declined);
    // Asking again, in whatever way, asks the issuer nothing.
    let replay = world.client.ok(request).await;
    assert!(replay.replayed());
    let synced = world
        .client
        .ok(sync(&declined))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(synced.version, declined.version);
    assert_eq!(synced.transactions[0].attempts, 1);
    assert_eq!(world.db.number("select count(*) from attempts").await, 1);
    let due = "select count(*) from transactions where next_step_at is not null";
    assert_eq!(world.db.number(due).await, 0, "nothing is due");
    let counts = world.books().counts;
    assert_eq!((counts.operations, counts.replays), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_refusal_in_an_http_200_is_a_decline() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_decline", 100)).await;
    assert_eq!(payment.state(), PaymentState::Declined);
    let sql = "select http_status, outcome from attempts";
    let attempt = world.db.row(sql, &[]).await;
    assert_eq!(attempt.get::<_, i16>("http_status"), 200);
    assert_eq!(attempt.get::<_, String>("outcome"), "DECLINED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_fraud_block_ends_the_payment() {
    let world = World::start().await;
    let payment = world.client.create(authorization("tok_fraud", 100)).await;
    assert_eq!(
        payment.decline.as_ref().unwrap().code(),
        DeclineCode::FraudSuspected
    );
    for failure in [
        world.client.refused(capture(&payment, 1)).await,
        world.client.refused(refund(&payment, 1)).await,
    ] {
        assert_eq!(failure.code, tonic::Code::FailedPrecondition, "{failure:?}");
        assert!(!failure.money_may_have_moved());
    }
}
