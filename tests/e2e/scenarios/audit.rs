//! The audit log: one entry per change, in the same commit, chained, authenticated, and searchable.

use std::collections::HashSet;

use quittance_evidence::{ChainCheck, Leaf, LeafMac, MacKeyId};
use quittance_proto::v1::{
    AuditEntry, AuditResult, ExportEvidenceRequest, GetCheckpointRequest,
    GetConsistencyProofRequest, GetEntryRequest, GetInclusionProofRequest, ListEntriesRequest,
    Payment, SummarizeFailuresRequest, TailEntriesRequest, get_inclusion_proof_request,
};
use quittance_server::auth::Role;
use tonic::Code;

use crate::harness::site::{ACCOUNT, TENANT};
use crate::harness::{
    CreateRequest as _, Keyed as _, SiteOptions, World, authorization, capture, moment, next_told,
    purchase, refund, sync, void,
};

const CREATE: &str = "quittance.v1.PaymentService/CreatePayment";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Authorized, captured twice, partly refunded, the rest voided.
async fn a_whole_story(world: &World) -> Payment {
    let request = authorization("tok_approve", 1000).merchant_reference("story");
    let payment = world.client.create(request).await;
    world.client.ok(capture(&payment, 300)).await;
    world.client.ok(capture(&payment, 200)).await;
    world.client.ok(refund(&payment, 100)).await;
    world
        .client
        .ok(void(&payment))
        .await
        .message
        .payment
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_payment_has_exactly_one_entry_in_the_same_commit() {
    let world = World::start().await;
    let payment = a_whole_story(&world).await;
    let entries = world.client.entries_of(&payment.payment_id).await;
    assert_eq!(u64::try_from(entries.len()).unwrap(), payment.version);
    for (number, entry) in (1..).zip(&entries) {
        assert_eq!(entry.entity_seq, number);
        assert_eq!(entry.stream_id, payment.payment_id);
        assert_eq!(entry.tenant_id, TENANT);
        assert_eq!(entry.merchant_reference, "story");
    }
    let steps: Vec<_> = entries
        .iter()
        .map(|entry| (entry.state_from.as_str(), entry.state_to.as_str()))
        .collect();
    assert_eq!(steps.first(), Some(&("", "PENDING")));
    assert_eq!(steps.last().unwrap().1, "PARTIALLY_REFUNDED");
    assert!(
        steps.windows(2).all(|pair| pair[0].1 == pair[1].0),
        "{steps:?}"
    );

    // PostgreSQL says which transaction wrote a row: the newest entry's is the payment's.
    let same = world
        .db
        .row(
            "select p.xmin::text = j.xmin::text as same, p.last_leaf_hash = j.leaf_hash as chained \
             from payments p join journal j on j.stream_id = p.payment_id and j.entity_seq = p.version \
             where p.payment_id::text = $1",
            &[&payment.payment_id],
        )
        .await;
    assert!(same.get::<_, bool>("same") && same.get::<_, bool>("chained"));
    let attempts = world
        .db
        .row(
            "select count(*), count(*) filter (where exists (select from journal j where \
             j.stream_id = a.payment_id and j.xmin::text = a.xmin::text)) from attempts a",
            &[],
        )
        .await;
    assert_eq!(attempts.get::<_, i64>(0), 5);
    assert_eq!(
        attempts.get::<_, i64>(1),
        5,
        "an attempt's end is written with its entry"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entries_of_a_payment_are_chained_and_their_served_bytes_are_the_hashed_ones() {
    let world = World::start().await;
    let payment = a_whole_story(&world).await;
    let entries = world.client.entries_of(&payment.payment_id).await;
    let leaves: Vec<_> = entries
        .iter()
        .map(|entry| entry.leaf_data.clone())
        .collect();
    let head = ChainCheck::run(&leaves).unwrap().unwrap();
    assert_eq!(head.entity_seq, payment.version);
    for entry in &entries {
        let leaf = Leaf::decode(&entry.leaf_data).unwrap();
        assert_eq!(
            quittance_evidence::leaf_hash(&entry.leaf_data).as_bytes(),
            &entry.leaf_hash[..]
        );
        assert_eq!(leaf.entry_id.to_string(), entry.entry_id);
        assert_eq!(leaf.event_type, entry.event_type);
        assert_eq!(hex::encode(leaf.trace_id), entry.trace_id);
        assert_eq!(leaf.leaf_salt.to_vec(), entry.leaf_salt);
    }
    let salts: HashSet<_> = entries
        .iter()
        .map(|entry| entry.leaf_salt.clone())
        .collect();
    assert_eq!(salts.len(), entries.len());
    // Any entry altered, left out or exchanged breaks the chain.
    let mut without = leaves.clone();
    without.remove(3);
    assert!(ChainCheck::run(&without).is_err());
    let mut swapped = leaves.clone();
    swapped.swap(2, 3);
    assert!(ChainCheck::run(&swapped).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_journal_row_has_a_mac_that_the_database_cannot_make() {
    let world = World::start().await;
    a_whole_story(&world).await;
    world.client.create(purchase("tok_fraud", 5)).await;
    world.client.ok(ListEntriesRequest::default()).await;
    let rows = world
        .db
        .rows("select leaf, mac, mac_key_id from journal", &[])
        .await;
    assert!(rows.len() >= 13, "{}", rows.len());
    for row in rows {
        let (leaf, tag, id): (Vec<u8>, Vec<u8>, String) = (row.get(0), row.get(1), row.get(2));
        let key = world.keys.journal_key_by_id(&id).unwrap();
        let mac = LeafMac::from_parts(MacKeyId::new(id).unwrap(), tag.try_into().unwrap());
        mac.verify(key, &leaf).unwrap();
        let mut altered = leaf.clone();
        altered[10] ^= 1;
        assert!(mac.verify(key, &altered).is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_says_who_what_when_from_where_and_with_which_result() {
    let world = World::start().await;
    let client = world.client.with("x-request-id", "request-77");
    let payment = client
        .create(purchase("tok_insufficient_funds", 4200).key("k"))
        .await;
    let [accepted, outcome]: [AuditEntry; 2] = client
        .entries_of(&payment.payment_id)
        .await
        .try_into()
        .unwrap();

    let actor = accepted.actor.as_ref().unwrap();
    assert_eq!(
        (actor.r#type.as_str(), actor.auth_method.as_str()),
        ("service", "api_key")
    );
    assert!(!actor.id.is_empty());
    let source = accepted.source.as_ref().unwrap();
    assert_eq!(
        (source.service.as_str(), source.rpc_method.as_str()),
        ("quittance", CREATE)
    );
    assert_eq!(source.peer, "127.0.0.1");
    assert!(!source.instance.is_empty() && !source.version.is_empty());
    assert_eq!(accepted.request_id, "request-77");
    assert_eq!(accepted.amount, payment.amount);
    assert_eq!(accepted.currency_exponent, Some(2));
    assert_eq!(accepted.capture_method, "AUTOMATIC");
    assert_eq!(accepted.idempotency_key_digest.len(), 32);
    assert_eq!(accepted.provider_request_digest.len(), 32);
    assert_eq!(
        (accepted.attempt, accepted.provider_account.as_str()),
        (1, ACCOUNT)
    );
    assert_eq!(
        accepted.transaction_id,
        payment.transactions[0].transaction_id
    );

    assert_eq!(outcome.event_type, "payment.declined");
    assert_eq!(outcome.result(), AuditResult::Failure);
    assert_eq!(outcome.decline_code, "INSUFFICIENT_FUNDS");
    assert_eq!(outcome.cause.as_ref().unwrap().code, "INSUFFICIENT_FUNDS");
    assert_eq!(
        (outcome.state_from.as_str(), outcome.state_to.as_str()),
        ("PENDING", "DECLINED")
    );
    assert_eq!(outcome.actor.as_ref().unwrap().r#type, "provider");
    assert_eq!(outcome.provider_response_digest.len(), 32);
    assert!(outcome.provider_reference.starts_with("sop_"));
    assert!(moment(outcome.occurred_at.as_ref()) >= moment(accepted.occurred_at.as_ref()));
    let text = String::from_utf8(outcome.leaf_data).unwrap();
    assert!(!text.contains("tok_"), "the token is in no entry: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entries_of_a_call_are_linked_to_its_trace_and_to_the_caller_s_span() {
    let world = World::start().await;
    let client = world.client.traced(TRACE, SPAN);
    let answer = client.ok(purchase("tok_approve", 100)).await;
    assert_eq!(answer.trace_id(), TRACE, "the caller's trace goes on");
    let payment = answer.message.payment.unwrap();
    let by_trace = ListEntriesRequest {
        trace_id: TRACE.to_owned(),
        ..ListEntriesRequest::default()
    };
    let entries = world.client.entries(by_trace).await;
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        assert_eq!(entry.payment_id, payment.payment_id);
        assert_eq!((entry.trace_id.as_str(), entry.span_id.len()), (TRACE, 16));
        assert_eq!(
            (
                entry.remote_trace_id.as_str(),
                entry.remote_span_id.as_str()
            ),
            (TRACE, SPAN)
        );
    }

    // Without a span of the caller, the trace is the server's own, and the answer names it.
    let answer = world.client.ok(purchase("tok_approve", 100)).await;
    let own = answer.trace_id();
    assert_ne!(own, TRACE);
    let entries = world
        .client
        .entries_of(&answer.message.payment.unwrap().payment_id)
        .await;
    assert!(
        entries
            .iter()
            .all(|entry| entry.trace_id == own && entry.remote_trace_id.is_empty())
    );
}

/// What a filter should let through.
type Matches<'a> = Box<dyn Fn(&AuditEntry) -> bool + 'a>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_found_by_every_filter() {
    let world = World::start_with(SiteOptions::impatient()).await;
    let story = a_whole_story(&world).await;
    let lost = world
        .client
        .create(purchase("tok_timeout_after_charge", 77))
        .await;
    let declined = world.client.create(purchase("tok_fraud", 9)).await;
    let all = world.client.entries(ListEntriesRequest::default()).await;
    let mut sorted = all.clone();
    sorted.sort_by(|a, b| a.entry_id.cmp(&b.entry_id));
    assert_eq!(ids(&all), ids(&sorted), "chronological");
    let none = ListEntriesRequest::default();
    let middle = all[all.len() / 2].occurred_at;

    let cases: Vec<(ListEntriesRequest, Matches<'_>)> = vec![
        (
            ListEntriesRequest {
                payment_id: story.payment_id.clone(),
                ..none.clone()
            },
            Box::new(|entry| entry.payment_id == story.payment_id),
        ),
        (
            ListEntriesRequest {
                transaction_id: story.transactions[1].transaction_id.clone(),
                ..none.clone()
            },
            Box::new(|entry| entry.transaction_id == story.transactions[1].transaction_id),
        ),
        (
            ListEntriesRequest {
                event_type: "capture.succeeded".to_owned(),
                ..none.clone()
            },
            Box::new(|entry| entry.event_type == "capture.succeeded"),
        ),
        (
            ListEntriesRequest {
                source: CREATE.to_owned(),
                ..none.clone()
            },
            Box::new(|entry| entry.source.as_ref().unwrap().rpc_method == CREATE),
        ),
        (
            ListEntriesRequest {
                result: AuditResult::Unknown.into(),
                ..none.clone()
            },
            Box::new(|entry| entry.result() == AuditResult::Unknown),
        ),
        (
            ListEntriesRequest {
                result: AuditResult::Failure.into(),
                ..none.clone()
            },
            Box::new(|entry| entry.result() == AuditResult::Failure),
        ),
        (
            ListEntriesRequest {
                cause: "RESPONSE_TIMEOUT".to_owned(),
                ..none.clone()
            },
            Box::new(|entry| {
                entry
                    .cause
                    .as_ref()
                    .is_some_and(|cause| cause.code == "RESPONSE_TIMEOUT")
            }),
        ),
        (
            ListEntriesRequest {
                actor_id: ACCOUNT.to_owned(),
                ..none.clone()
            },
            Box::new(|entry| entry.actor.as_ref().unwrap().id == ACCOUNT),
        ),
        (
            ListEntriesRequest {
                trace_id: all[0].trace_id.clone(),
                ..none.clone()
            },
            Box::new(|entry| entry.trace_id == all[0].trace_id),
        ),
        (
            ListEntriesRequest {
                occurred_from: middle,
                ..none.clone()
            },
            Box::new(|entry| moment(entry.occurred_at.as_ref()) >= moment(middle.as_ref())),
        ),
        (
            ListEntriesRequest {
                occurred_to: middle,
                ..none.clone()
            },
            Box::new(|entry| moment(entry.occurred_at.as_ref()) < moment(middle.as_ref())),
        ),
        (
            ListEntriesRequest {
                payment_id: lost.payment_id.clone(),
                result: AuditResult::Unknown.into(),
                ..none.clone()
            },
            Box::new(|entry| {
                entry.payment_id == lost.payment_id && entry.result() == AuditResult::Unknown
            }),
        ),
    ];
    for (filter, matches) in cases {
        let expected: Vec<_> = all.iter().filter(|entry| matches(entry)).cloned().collect();
        assert!(
            !expected.is_empty() && expected.len() < all.len(),
            "{filter:?} tells nothing"
        );
        let known: HashSet<_> = all.iter().map(|entry| &entry.entry_id).collect();
        // Small pages, so that tokens are used; reading adds entries, which are left out here.
        let found = world
            .client
            .entries(ListEntriesRequest {
                page_size: 2,
                ..filter.clone()
            })
            .await;
        let found: Vec<_> = found
            .into_iter()
            .filter(|entry| known.contains(&entry.entry_id))
            .collect();
        assert_eq!(ids(&found), ids(&expected), "{filter:?}");
    }
    assert_eq!(declined.version, 2);
}

fn ids(entries: &[AuditEntry]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| entry.entry_id.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entry_is_read_with_its_leaf_data() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let listed = world.client.entries_of(&payment.payment_id).await;
    for entry in &listed {
        let read = world
            .client
            .ok(GetEntryRequest {
                entry_id: entry.entry_id.clone(),
            })
            .await;
        let mut read = read.message.entry.unwrap();
        assert!(read.receipt.take().is_some(), "its receipt comes with it");
        assert_eq!(&read, entry);
    }
    let unknown = GetEntryRequest {
        entry_id: "0198c5a2-0000-7000-8000-000000000001".to_owned(),
    };
    world
        .client
        .refused(unknown)
        .await
        .is(Code::NotFound, "ENTRY_NOT_FOUND");
    let short = world.client.ok(ListEntriesRequest::default()).await;
    assert!(short.entries.iter().all(|entry| entry.leaf_data.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_the_log_is_itself_logged_once_per_call() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let accesses = "select count(*) from journal where event_type like 'audit.%'";
    assert_eq!(world.db.number(accesses).await, 0);
    let entries = world.client.entries_of(&payment.payment_id).await;
    assert_eq!(world.db.number(accesses).await, 1);
    world
        .client
        .ok(GetEntryRequest {
            entry_id: entries[0].entry_id.clone(),
        })
        .await;
    assert_eq!(world.db.number(accesses).await, 2);
    let mut stream = world
        .client
        .tail(TailEntriesRequest::default())
        .await
        .unwrap();
    next_told(&mut stream).await.unwrap().unwrap();
    drop(stream);
    assert_eq!(world.db.number(accesses).await, 3);
    world.client.ok(SummarizeFailuresRequest::default()).await;
    assert_eq!(world.db.number(accesses).await, 4);

    // The accesses are entries like any other: read, chained, and saying who asked for what.
    let source = "quittance.v1.AuditService/ListEntries".to_owned();
    let filter = ListEntriesRequest {
        source,
        include_leaf_data: true,
        ..ListEntriesRequest::default()
    };
    let first = world
        .client
        .entries(filter)
        .await
        .into_iter()
        .next()
        .unwrap();
    assert_eq!(first.payment_id, payment.payment_id);
    assert_eq!(first.actor.as_ref().unwrap().auth_method, "api_key");
    assert!(first.trace_id.len() == 32 && first.state_to.is_empty());
    let payment_id = payment.payment_id.clone();
    let about = ListEntriesRequest {
        payment_id,
        ..ListEntriesRequest::default()
    };
    let about = world.client.entries(about).await;
    assert!(
        ids(&about).contains(&first.entry_id.as_str()),
        "who read about a payment is told too"
    );

    let rows = world
        .db
        .rows(
            "select leaf from journal where event_type like 'audit.%' order by entity_seq",
            &[],
        )
        .await;
    let leaves: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
    let head = ChainCheck::run(&leaves).unwrap().unwrap();
    assert_eq!(usize::try_from(head.entity_seq).unwrap(), leaves.len());
    // A refused call read nothing.
    let before = world.db.number(accesses).await;
    let reader = world.as_role(TENANT, &[Role::PaymentsRead]).await;
    reader.refused(ListEntriesRequest::default()).await;
    assert_eq!(world.db.number(accesses).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_summed_up_by_cause_account_and_operation() {
    let world = World::start_with(SiteOptions::impatient()).await;
    for _ in 0..3 {
        world.client.create(purchase("tok_fraud", 100)).await;
    }
    for _ in 0..2 {
        world.client.create(purchase("tok_approve", 100)).await;
    }
    let lost = world
        .client
        .create(authorization("tok_timeout_after_charge", 100))
        .await;
    let summary = world
        .client
        .ok(SummarizeFailuresRequest::default())
        .await
        .message;
    let bucket = |operation: &str| {
        let found = summary
            .buckets
            .iter()
            .find(|bucket| bucket.operation == operation);
        found.unwrap_or_else(|| panic!("no {operation} in {summary:?}"))
    };
    let fraud = bucket("purchase");
    assert_eq!(
        (fraud.cause.as_str(), fraud.provider_account.as_str()),
        ("FRAUD_SUSPECTED", ACCOUNT)
    );
    assert_eq!((fraud.failures, fraud.attempts), (3, 5));
    assert!((fraud.failure_rate - 0.6).abs() < 1e-9);
    assert_eq!(fraud.example_payment_ids.len(), 3);
    let timeout = bucket("authorize");
    assert_eq!(
        (timeout.cause.as_str(), timeout.failures),
        ("RESPONSE_TIMEOUT", 1)
    );
    assert!(timeout.latency_p50_seconds >= 0.3, "{timeout:?}");
    assert_eq!(timeout.example_payment_ids, [lost.payment_id]);
    let stranger = world.other_tenant().await;
    assert!(
        stranger
            .ok(SummarizeFailuresRequest::default())
            .await
            .buckets
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_with_the_evidence_log_says_that_it_is_not_implemented() {
    let unsigned = SiteOptions::default().with("audit.enabled", false);
    let world = World::start_with(unsigned).await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let entry_id = world.client.entries_of(&payment.payment_id).await[0]
        .entry_id
        .clone();
    let platform = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let proof = GetInclusionProofRequest {
        entry: Some(get_inclusion_proof_request::Entry::EntryId(entry_id)),
        tree_size: 0,
    };
    let consistency = GetConsistencyProofRequest {
        first_tree_size: 1,
        second_tree_size: 2,
    };
    let evidence = ExportEvidenceRequest {
        payment_id: payment.payment_id,
        ..ExportEvidenceRequest::default()
    };
    for failure in [
        platform.refused(GetCheckpointRequest {}).await,
        platform.refused(proof).await,
        platform.refused(consistency).await,
        platform.refused(evidence).await,
    ] {
        failure.is(Code::Unimplemented, "NOT_IMPLEMENTED");
        assert!(!failure.money_may_have_moved());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_again_without_news_adds_no_entry() {
    let world = World::start().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    for _ in 0..3 {
        let same = world
            .client
            .ok(sync(&payment))
            .await
            .message
            .payment
            .unwrap();
        assert_eq!(same.version, payment.version);
    }
    let sql = "select count(*) from journal where payment_id is not null";
    assert_eq!(world.db.number(sql).await, 2);
}

/// As a restore does, or another server of the database that had not got the last moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_accesses_are_recorded_in_unbroken_streams_after_the_database_lost_the_last_of_them() {
    const READS: &str = "select count(*) from journal where event_type = 'audit.entries_listed'";
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 1000))
        .await;
    for _ in 0..3 {
        world.client.entries_of(&payment.payment_id).await;
    }
    let lose = "delete from journal where event_type = 'audit.entries_listed' and entity_seq >= 3";
    world.db.execute(lose, &[]).await;
    let kept = world.db.number(READS).await;
    for _ in 0..3 {
        world.client.entries_of(&payment.payment_id).await;
    }
    assert_eq!(world.db.number(READS).await, kept + 3);
    let broken = "select count(*) from journal j where event_type = 'audit.entries_listed' and entity_seq > 1 \
                  and not exists (select from journal p where p.stream_id = j.stream_id \
                  and p.entity_seq = j.entity_seq - 1 \
                  and position(convert_to(encode(p.leaf_hash, 'hex'), 'UTF8') in j.leaf) > 0)";
    assert_eq!(world.db.number(broken).await, 0);
    // The stream that lost its end is left, and another has begun.
    let streams =
        "select count(distinct stream_id) from journal where event_type = 'audit.entries_listed'";
    assert_eq!(world.db.number(streams).await, 2);
}
