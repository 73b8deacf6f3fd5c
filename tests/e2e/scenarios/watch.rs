//! Streams: `WatchPayments` and `TailEntries` miss nothing, whoever goes away in between.

use std::collections::HashMap;

use futures::future::join_all;
use quittance_proto::v1::{
    PaymentEvent, PaymentState, TailEntriesRequest, TailEntriesResponse, WatchPaymentsRequest,
    WatchPaymentsResponse,
};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::harness::{
    Failure, PATIENCE, SiteOptions, World, authorization, capture, next_told, purchase, refund,
};

async fn next(stream: &mut Streaming<WatchPaymentsResponse>) -> (PaymentEvent, String) {
    let message = timeout(PATIENCE, stream.message())
        .await
        .expect("an event comes")
        .unwrap();
    let response = message.expect("the stream goes on");
    assert!(!response.resume_token.is_empty() && response.resume_token.len() <= 512);
    (response.event.unwrap(), response.resume_token)
}

async fn next_entry(stream: &mut Streaming<TailEntriesResponse>) -> TailEntriesResponse {
    let message = timeout(PATIENCE, stream.message())
        .await
        .expect("an entry comes")
        .unwrap();
    message.expect("the stream goes on")
}

fn following(resume_token: &str) -> WatchPaymentsRequest {
    let resume_token = resume_token.to_owned();
    WatchPaymentsRequest {
        resume_token,
        follow: true,
        from_now: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_every_change_in_order_with_the_amounts_after_it() {
    let world = World::start().await;
    let mut stream = world.client.watch(following("")).await.unwrap();
    let payment = world.client.create(authorization("tok_approve", 500)).await;
    world.client.ok(capture(&payment, 200)).await;
    let done = world
        .client
        .ok(refund(&payment, 50))
        .await
        .message
        .payment
        .unwrap();
    let mut events = Vec::new();
    while events.len() < usize::try_from(done.version).unwrap() {
        events.push(next(&mut stream).await.0);
    }
    for (number, event) in (1..).zip(&events) {
        assert_eq!(
            (event.payment_id.as_str(), event.entity_seq),
            (&*payment.payment_id, number)
        );
    }
    assert_eq!(events[0].previous_state(), PaymentState::Unspecified);
    assert!(
        events
            .windows(2)
            .all(|pair| pair[0].state() == pair[1].previous_state())
    );
    let last = events.last().unwrap();
    assert_eq!(
        (last.event_type.as_str(), last.state()),
        ("refund.succeeded", done.state())
    );
    let amounts = last.amounts.clone().unwrap();
    assert_eq!(amounts.captured, done.amount_captured);
    assert_eq!(amounts.refunded, done.amount_refunded);
    let entries = world.client.entries_of(&payment.payment_id).await;
    let ids: Vec<_> = entries.iter().map(|entry| &entry.entry_id).collect();
    assert_eq!(
        events
            .iter()
            .map(|event| &event.event_id)
            .collect::<Vec<_>>(),
        ids
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_disconnects_after_every_event_misses_nothing() {
    let world = World::start().await;
    let other = world.replica().await;
    let payments = join_all((0..10).map(|_| async {
        let payment = world.client.create(authorization("tok_approve", 100)).await;
        world
            .client
            .ok(capture(&payment, None))
            .await
            .message
            .payment
            .unwrap()
    }))
    .await;
    let expected: u64 = payments.iter().map(|payment| payment.version).sum();
    let mut seen: HashMap<String, Vec<u64>> = HashMap::new();
    let mut resume = String::new();
    for number in 0..expected {
        // Any replica continues where another left off.
        let client = if number % 2 == 0 {
            &world.client
        } else {
            &other.client
        };
        let mut stream = client.watch(following(&resume)).await.unwrap();
        let (event, token) = next(&mut stream).await;
        seen.entry(event.payment_id)
            .or_default()
            .push(event.entity_seq);
        resume = token;
    }
    assert_eq!(seen.len(), payments.len());
    for payment in payments {
        let expected: Vec<_> = (1..=payment.version).collect();
        assert_eq!(seen[&payment.payment_id], expected, "each once, in order");
    }
    // Nothing is left, and a stream that does not follow ends there.
    let rest = WatchPaymentsRequest {
        follow: false,
        ..following(&resume)
    };
    let mut stream = world.client.watch(rest).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, stream.message()).await.unwrap().unwrap(),
        None
    );
}

/// Whoever resumes behind an older token than the last may have seen what comes: its id tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumed_behind_an_older_token_repeats_events_under_the_same_ids() {
    let world = World::start().await;
    let other = world.replica().await;
    let mut stream = world.client.watch(following("")).await.unwrap();
    let payment = world.client.create(authorization("tok_approve", 500)).await;
    let done = world.client.ok(capture(&payment, None)).await;
    let done = done.message.payment.unwrap();
    let mut seen = Vec::new();
    while u64::try_from(seen.len()).unwrap() < done.version {
        seen.push(next(&mut stream).await);
    }
    drop(stream);
    for client in [&world.client, &other.client] {
        for (at, (_, token)) in seen.iter().enumerate() {
            let rest = WatchPaymentsRequest {
                follow: false,
                ..following(token)
            };
            let mut stream = client.watch(rest).await.unwrap();
            for (event, _) in &seen[at + 1..] {
                assert_eq!(next(&mut stream).await.0, *event, "repeated as it was");
            }
            let end = timeout(PATIENCE, stream.message()).await.unwrap();
            assert_eq!(end.unwrap(), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_under_load_sees_every_payment_in_order() {
    let world = World::start().await;
    let mut stream = world.client.watch(following("")).await.unwrap();
    let watch = tokio::spawn(async move {
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut ended = 0;
        while ended < 200 {
            let (event, _) = next(&mut stream).await;
            let last = seen.entry(event.payment_id.clone()).or_default();
            assert_eq!(
                event.entity_seq,
                *last + 1,
                "no gap, no repetition while connected"
            );
            *last = event.entity_seq;
            ended += usize::from(event.state() == PaymentState::Captured);
        }
        seen.len()
    });
    for _ in 0..10 {
        join_all((0..20).map(|_| world.client.create(purchase("tok_approve", 5)))).await;
    }
    assert_eq!(watch.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_from_now_sees_only_what_comes() {
    let world = World::start().await;
    world.client.create(purchase("tok_approve", 1)).await;
    let mut past = world.client.watch(following("")).await.unwrap();
    while next(&mut past).await.0.state() != PaymentState::Captured {}
    let from_now = WatchPaymentsRequest {
        from_now: true,
        follow: true,
        ..Default::default()
    };
    let mut stream = world.client.watch(from_now).await.unwrap();
    let payment = world.client.create(purchase("tok_approve", 2)).await;
    assert_eq!(next(&mut stream).await.0.payment_id, payment.payment_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_before_its_first_event_is_resumed_where_it_started() {
    let world = World::start().await;
    let first = world.client.create(purchase("tok_approve", 1)).await;
    let mut past = world.client.watch(following("")).await.unwrap();
    while next(&mut past).await.0.state() != PaymentState::Captured {}
    let from_now = WatchPaymentsRequest {
        from_now: true,
        follow: true,
        ..Default::default()
    };
    let quiet = world.client.watch_response(from_now).await.unwrap();
    let start = quiet.metadata().get("resume-token").unwrap();
    let start = start.to_str().unwrap().to_owned();
    assert!(start.len() <= 512);
    drop(quiet);
    let missed = world.client.create(purchase("tok_approve", 2)).await;
    let mut stream = world.client.watch(following(&start)).await.unwrap();
    assert_eq!(next(&mut stream).await.0.payment_id, missed.payment_id);
    // From the oldest event on, and behind a token, it starts where it was told to.
    let oldest = world.client.watch_response(following("")).await.unwrap();
    let start = oldest.metadata().get("resume-token").unwrap();
    let start = start.to_str().unwrap().to_owned();
    let mut stream = world.client.watch(following(&start)).await.unwrap();
    assert_eq!(next(&mut stream).await.0.payment_id, first.payment_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_token_of_another_tenant_or_of_nobody_is_refused() {
    let world = World::start().await;
    world.client.create(purchase("tok_approve", 1)).await;
    let mut stream = world.client.watch(following("")).await.unwrap();
    let token = next(&mut stream).await.1;
    let stranger = world.other_tenant().await;
    for (client, token) in [(&stranger, token.as_str()), (&world.client, "AAAA")] {
        let failure = match client.watch(following(token)).await {
            Err(failure) => failure,
            Ok(mut stream) => Failure::from(next_told(&mut stream).await.unwrap_err()),
        };
        failure.is(Code::InvalidArgument, "INVALID_RESUME_TOKEN");
    }
    let both = WatchPaymentsRequest {
        from_now: true,
        ..following(&token)
    };
    let failure = match world.client.watch(both).await {
        Err(failure) => failure,
        Ok(mut stream) => Failure::from(next_told(&mut stream).await.unwrap_err()),
    };
    assert_eq!(failure.code, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_has_a_limited_number_of_streams() {
    let options = SiteOptions::default().with("server.limits.max_streams_per_tenant", 2);
    let world = World::start_with(options).await;
    let _first = world.client.watch(following("")).await.unwrap();
    let second = world
        .client
        .tail(TailEntriesRequest::default())
        .await
        .unwrap();
    let failure = world.client.watch(following("")).await.unwrap_err();
    failure.is(Code::ResourceExhausted, "TOO_MANY_STREAMS");
    let stranger = world.other_tenant().await;
    stranger.watch(following("")).await.unwrap();
    drop(second);
    crate::harness::eventually("a place is free again", async || {
        world.client.watch(following("")).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tailing_the_log_misses_nothing_either() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 1)).await;
    let request = TailEntriesRequest {
        include_leaf_data: true,
        ..TailEntriesRequest::default()
    };
    let mut stream = world.client.tail(request.clone()).await.unwrap();
    let accepted = next_entry(&mut stream).await;
    drop(stream);
    let entry = accepted.entry.unwrap();
    assert_eq!(
        (entry.payment_id.as_str(), entry.entity_seq),
        (&*payment.payment_id, 1)
    );
    assert!(!entry.leaf_data.is_empty());
    let resume = TailEntriesRequest {
        resume_token: accepted.resume_token,
        ..request
    };
    let mut stream = world.client.tail(resume).await.unwrap();
    let outcome = next_entry(&mut stream).await.entry.unwrap();
    assert_eq!(
        (outcome.payment_id.as_str(), outcome.entity_seq),
        (&*payment.payment_id, 2)
    );
    // Then the log's own accesses, and what is new.
    let later = world.client.create(purchase("tok_approve", 1)).await;
    loop {
        let entry = next_entry(&mut stream).await.entry.unwrap();
        if entry.payment_id == later.payment_id {
            break;
        }
        assert!(entry.event_type.starts_with("audit."), "{entry:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_when_the_server_stops() {
    let world = World::start().await;
    let mut stream = world.client.watch(following("")).await.unwrap();
    world.client.create(purchase("tok_approve", 1)).await;
    next(&mut stream).await;
    next(&mut stream).await;
    let ended = tokio::spawn(async move { stream.message().await.unwrap_err() });
    let (_site, in_time) = world.shut_down().await;
    assert!(in_time);
    let failure = Failure::from(timeout(PATIENCE, ended).await.unwrap().unwrap());
    failure.is(Code::Unavailable, "SHUTTING_DOWN");
    assert!(failure.retryable());
}
