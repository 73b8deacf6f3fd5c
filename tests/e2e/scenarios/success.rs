//! Payments that go well.

use quittance_proto::v1::{
    CaptureMethod, ListPaymentsRequest, PaymentState, Transaction, TransactionKind,
    TransactionOrigin, TransactionState,
};

use crate::harness::site::{ACCOUNT, TENANT};
use crate::harness::{
    Amounts as _, CreateRequest as _, Keyed as _, World, authorization, capture, confirm,
    get_by_key, moment, purchase, refund, sync, void,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_a_purchase_is_charged_once_and_reads_back_whole() {
    let world = World::start().await;
    let mut request = purchase("tok_approve", 1234)
        .merchant_reference("order-1")
        .meta("a", "b");
    request.description = "two books".to_owned();
    let method = request.payment_method.as_mut().unwrap();
    method.brand = "visa".to_owned();
    method.last4 = "4242".to_owned();
    (method.expiry_month, method.expiry_year) = (12, 2031);

    let answer = world.client.ok(request.clone()).await;
    assert!(!answer.replayed());
    let payment = answer.message.payment.unwrap();
    assert_eq!(payment.state(), PaymentState::Captured);
    assert_eq!((payment.authorized(), payment.captured()), (1234, 1234));
    assert_eq!((payment.capturable(), payment.refundable()), (0, 1234));
    assert_eq!(payment.pending(), (0, 0, 0));
    assert_eq!(payment.amount, request.amount);
    assert_eq!(payment.tenant_id, TENANT);
    assert_eq!(payment.provider_account, ACCOUNT);
    assert!(payment.provider_reference.starts_with("spay_"));
    assert_eq!(payment.merchant_reference, "order-1");
    assert_eq!(payment.description, "two books");
    assert_eq!(payment.metadata, request.metadata);
    assert_eq!(payment.capture_method(), CaptureMethod::Automatic);
    assert!(!payment.livemode && !payment.disputed);
    assert!(payment.decline.is_none() && payment.failure.is_none());
    assert!(moment(payment.create_time.as_ref()) <= moment(payment.update_time.as_ref()));
    let method = payment.payment_method.as_ref().unwrap();
    assert_eq!(method.provider_token, "", "the token is never returned");
    assert_eq!(
        (method.brand.as_str(), method.last4.as_str()),
        ("visa", "4242")
    );
    assert_eq!((method.expiry_month, method.expiry_year), (12, 2031));
    // Two commits: accepted, and outcome.
    assert_eq!(payment.version, 2);

    let transaction = answer.message.transaction.unwrap();
    assert_eq!(payment.transactions, std::slice::from_ref(&transaction));
    assert_eq!(transaction.kind(), TransactionKind::Purchase);
    assert_eq!(transaction.origin(), TransactionOrigin::Caller);
    assert_eq!(transaction.state(), TransactionState::Succeeded);
    assert_eq!(transaction.attempts, 1);
    assert!(
        transaction.provider_reference.starts_with("sop_"),
        "R4: the provider's confirmation"
    );
    assert!(moment(transaction.execute_before.as_ref()) > moment(transaction.create_time.as_ref()));

    let charged = world.charged(&transaction.transaction_id);
    assert_eq!((charged.charges, charged.amount), (1, 1234));
    assert_eq!(world.client.payment(&payment.payment_id).await, payment);
    let found = world.client.ok(get_by_key(&request.idempotency_key)).await;
    assert_eq!(found.payment, Some(payment));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_an_authorization_is_captured_whole() {
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 5000))
        .await;
    assert_eq!(payment.state(), PaymentState::Authorized);
    assert_eq!(
        (
            payment.authorized(),
            payment.captured(),
            payment.capturable()
        ),
        (5000, 0, 5000)
    );
    assert!(
        payment.expire_time.is_some(),
        "the provider said until when"
    );

    let answer = world.client.ok(capture(&payment, None)).await;
    let payment = answer.message.payment.unwrap();
    assert_eq!(payment.state(), PaymentState::Captured);
    assert_eq!(
        (
            payment.captured(),
            payment.capturable(),
            payment.refundable()
        ),
        (5000, 0, 5000)
    );
    let kinds: Vec<_> = payment.transactions.iter().map(Transaction::kind).collect();
    assert_eq!(
        kinds,
        [TransactionKind::Authorization, TransactionKind::Capture]
    );
    let captured = answer.message.transaction.unwrap();
    assert_eq!(world.charged(&captured.transaction_id).amount, 5000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s03_partial_captures_add_up_and_a_final_one_releases_the_rest() {
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 1000))
        .await;
    let first = world
        .client
        .ok(capture(&payment, 300))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(first.state(), PaymentState::PartiallyCaptured);
    assert_eq!(
        (first.captured(), first.capturable(), first.refundable()),
        (300, 700, 300)
    );
    let second = world
        .client
        .ok(capture(&payment, 200))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!((second.captured(), second.capturable()), (500, 500));
    let mut last = capture(&payment, 100);
    last.final_capture = true;
    let done = world.client.ok(last).await.message.payment.unwrap();
    assert_eq!(done.state(), PaymentState::Captured);
    assert_eq!(
        (done.captured(), done.voided(), done.capturable()),
        (600, 400, 0)
    );

    let euros = world.books().currencies["EUR"];
    assert_eq!(
        (euros.authorized, euros.captured, euros.voided),
        (1000, 600, 400)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_a_void_releases_an_authorization_or_what_is_left_of_it() {
    let world = World::start().await;
    let payment = world.client.create(authorization("tok_approve", 900)).await;
    let mut request = void(&payment);
    request.reason = "out of stock".to_owned();
    let answer = world.client.ok(request).await.message;
    let voided = answer.payment.unwrap();
    assert_eq!(voided.state(), PaymentState::Voided);
    assert_eq!((voided.voided(), voided.capturable()), (900, 0));
    assert_eq!(answer.transaction.unwrap().reason, "out of stock");

    let payment = world.client.create(authorization("tok_approve", 900)).await;
    world.client.ok(capture(&payment, 400)).await;
    let rest = world
        .client
        .ok(void(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(rest.state(), PaymentState::Captured);
    assert_eq!(
        (rest.captured(), rest.voided(), rest.capturable()),
        (400, 500, 0)
    );
    let euros = world.books().currencies["EUR"];
    assert_eq!((euros.captured, euros.voided), (400, 1400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_refunds_whole_and_in_parts_down_to_zero() {
    let world = World::start().await;
    let whole = world.client.create(purchase("tok_approve", 700)).await;
    let whole = world
        .client
        .ok(refund(&whole, None))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(whole.state(), PaymentState::Refunded);
    assert_eq!((whole.refunded(), whole.refundable()), (700, 0));

    let payment = world.client.create(purchase("tok_approve", 1000)).await;
    for (amount, left, state) in [
        (1, 999, PaymentState::PartiallyRefunded),
        (998, 1, PaymentState::PartiallyRefunded),
        (1, 0, PaymentState::Refunded),
    ] {
        let answer = world.client.ok(refund(&payment, amount)).await.message;
        let after = answer.payment.unwrap();
        assert_eq!((after.refundable(), after.state()), (left, state));
        let refund = answer.transaction.unwrap();
        assert_eq!(refund.kind(), TransactionKind::Refund);
        assert_eq!(
            world.charged(&refund.transaction_id).amount,
            i128::from(amount)
        );
    }
    assert_eq!(world.books().currencies["EUR"].refunded, 1700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s05_a_partly_refunded_payment_can_still_capture_the_rest() {
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 1000))
        .await;
    world.client.ok(capture(&payment, 400)).await;
    let refunded = world
        .client
        .ok(refund(&payment, 400))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!((refunded.refundable(), refunded.capturable()), (0, 600));
    let captured = world
        .client
        .ok(capture(&payment, None))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(
        (
            captured.captured(),
            captured.refunded(),
            captured.refundable()
        ),
        (1000, 400, 600)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_an_authentication_challenge_is_passed_or_failed() {
    let world = World::start().await;
    let mut request = purchase("tok_requires_action", 2500);
    request.return_url = "https://shop.example/back".to_owned();
    let waiting = world.client.create(request).await;
    assert_eq!(waiting.state(), PaymentState::RequiresAction);
    let action = waiting.next_action.as_ref().unwrap();
    assert!(action.redirect_url.starts_with("http"), "{action:?}");
    assert_eq!(world.books().counts.purchases, 0);

    let request = confirm(&waiting, "passed");
    let confirmed = world
        .client
        .ok(request.clone())
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(confirmed.state(), PaymentState::Captured);
    assert!(confirmed.next_action.is_none());
    let again = world.client.ok(request).await;
    assert!(again.replayed());
    assert_eq!(
        world
            .charged(&confirmed.transactions[0].transaction_id)
            .charges,
        1
    );

    let waiting = world
        .client
        .create(authorization("tok_requires_action", 2500))
        .await;
    let declined = world
        .client
        .ok(confirm(&waiting, "failed"))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(declined.state(), PaymentState::Declined);
    assert_eq!(
        declined.decline.unwrap().provider_code,
        "authentication_failed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_a_pending_payment_ends_when_the_provider_says_so() {
    let world = World::start().await;
    for (token, state, charges) in [
        ("tok_pending_then_approve", PaymentState::Captured, 1),
        ("tok_pending_then_decline", PaymentState::Declined, 0),
    ] {
        let pending = world.client.create(purchase(token, 300)).await;
        assert_eq!(pending.state(), PaymentState::Pending);
        assert_eq!(
            (pending.captured(), pending.refundable()),
            (0, 0),
            "pending is not paid"
        );
        let ended = world
            .client
            .ok(sync(&pending))
            .await
            .message
            .payment
            .unwrap();
        assert_eq!(ended.state(), state);
        assert_eq!(
            world.charged(&ended.transactions[0].transaction_id).charges,
            charges
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_are_listed_newest_first_by_page_while_new_ones_arrive() {
    let world = World::start().await;
    let mut made = Vec::new();
    for number in 0..7 {
        let token = if number % 2 == 0 {
            "tok_approve"
        } else {
            "tok_decline"
        };
        let request = purchase(token, 100 + number).merchant_reference("list-me");
        made.push(world.client.create(request).await.payment_id);
    }
    made.reverse();

    let mut request = ListPaymentsRequest {
        page_size: 3,
        ..ListPaymentsRequest::default()
    };
    let mut listed = Vec::new();
    loop {
        let page = world.client.ok(request.clone()).await.message;
        assert!(page.payments.len() <= 3);
        listed.extend(page.payments.into_iter().map(|payment| payment.payment_id));
        // A page stays where it was although the list grows in front of it.
        world.client.create(purchase("tok_approve", 5)).await;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed, made);

    let filtered = ListPaymentsRequest {
        states: vec![PaymentState::Declined.into()],
        merchant_reference: "list-me".to_owned(),
        provider_account: ACCOUNT.to_owned(),
        ..ListPaymentsRequest::default()
    };
    let declined = world.client.ok(filtered.clone()).await.message.payments;
    assert_eq!(declined.len(), 3);
    assert!(
        declined
            .iter()
            .all(|payment| payment.state() == PaymentState::Declined)
    );
    assert!(
        declined
            .iter()
            .all(|payment| payment.transactions.len() == 1)
    );

    let nothing = ListPaymentsRequest {
        provider_account: "other".to_owned(),
        ..filtered
    };
    assert!(world.client.ok(nothing).await.payments.is_empty());
    let until = ListPaymentsRequest {
        create_time_to: declined[0].create_time,
        merchant_reference: "list-me".to_owned(),
        ..ListPaymentsRequest::default()
    };
    // `to` is exclusive: the payment made then is not in it.
    let earlier = world.client.ok(until).await.message.payments;
    let limit = moment(declined[0].create_time.as_ref());
    assert!(
        earlier
            .iter()
            .all(|payment| moment(payment.create_time.as_ref()) < limit)
    );
    assert!(!earlier.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_is_good_only_for_its_own_filter_and_tenant() {
    let world = World::start().await;
    for _ in 0..2 {
        world.client.create(purchase("tok_approve", 100)).await;
    }
    let first = ListPaymentsRequest {
        page_size: 1,
        ..ListPaymentsRequest::default()
    };
    let page_token = world.client.ok(first.clone()).await.message.next_page_token;
    assert!(!page_token.is_empty());
    let next = ListPaymentsRequest {
        page_token: page_token.clone(),
        ..first.clone()
    };
    assert_eq!(world.client.ok(next.clone()).await.payments.len(), 1);

    let other_filter = ListPaymentsRequest {
        merchant_reference: "x".to_owned(),
        ..next.clone()
    };
    let forged = ListPaymentsRequest {
        page_token: format!("{page_token}A"),
        ..first
    };
    for bad in [other_filter, forged] {
        let failure = world.client.refused(bad).await;
        failure.is(tonic::Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
    let stranger = world.other_tenant().await;
    stranger
        .refused(next)
        .await
        .is(tonic::Code::InvalidArgument, "INVALID_PAGE_TOKEN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_found_again_by_the_key_of_any_of_its_commands() {
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 100).key("the-order"))
        .await;
    world
        .client
        .ok(capture(&payment, 60).key("the-capture"))
        .await;
    world
        .client
        .ok(refund(&payment, 10).key("the-refund"))
        .await;
    for key in ["the-order", "the-capture", "the-refund"] {
        let found = world
            .client
            .ok(get_by_key(key))
            .await
            .message
            .payment
            .unwrap();
        assert_eq!(found.payment_id, payment.payment_id);
    }
    let failure = world.client.refused(get_by_key("never-used")).await;
    failure.is(tonic::Code::NotFound, "PAYMENT_NOT_FOUND");
    assert!(failure.money_may_have_moved(), "its commit may still hang");
}
