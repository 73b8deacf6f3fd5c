//! The write path, against a real PostgreSQL.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use quittance_domain::ids::IdempotencyKey;
use quittance_domain::payment::PaymentState;
use quittance_domain::ports::{Commit, Store, StoreError};
use quittance_evidence::ChainCheck;
use quittance_store::PgStore;
use quittance_test_support::{Story, TestDb, entry_behind, entry_of_stream, tenant};
use uuid::Uuid;

async fn count(db: &TestDb, sql: &str) -> i64 {
    db.client().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_payment_is_accepted_authorized_and_captured() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    let read = store
        .payment(&tenant("acme"), story.payment.id)
        .await
        .unwrap()
        .unwrap();
    let mut expected = story.payment.clone();
    expected.method.token = None;
    assert_eq!(read.payment, expected);
    assert_eq!(read.transactions, vec![story.transaction.clone()]);

    let authorization = {
        assert_eq!(
            store.commit(story.authorized()).await,
            Ok(Commit::Committed)
        );
        story.transaction.clone()
    };
    assert_eq!(
        store.commit(story.capture("key-2", 400)).await,
        Ok(Commit::Committed)
    );
    assert_eq!(store.commit(story.captured()).await, Ok(Commit::Committed));
    let read = store
        .payment(&tenant("acme"), story.payment.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.payment.state, PaymentState::PartiallyCaptured);
    assert_eq!(read.payment.version, 4);
    assert_eq!(read.payment.amounts, story.payment.amounts);
    assert_eq!(read.payment.last_leaf_hash, story.payment.last_leaf_hash);
    assert_eq!(
        read.transactions,
        vec![authorization, story.transaction.clone()]
    );
    assert_eq!(
        count(
            &db,
            "select count(*) from attempts where outcome = 'APPROVED'"
        )
        .await,
        2
    );

    let key = IdempotencyKey::parse("key-2").unwrap();
    let record = store
        .idempotency_record(&tenant("acme"), &key)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (record.payment, record.transaction),
        (story.payment.id, story.transaction.id)
    );
}

#[tokio::test]
async fn i7_every_change_has_one_entry_and_they_are_chained() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    for change in [
        accepted,
        story.authorized(),
        story.capture("key-2", 1_000),
        story.captured(),
    ] {
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    let entries = store
        .list_entries(Some(&tenant("acme")), &Default::default(), None, 10)
        .await
        .unwrap();
    let leaves: Vec<_> = entries.iter().map(|entry| entry.leaf.clone()).collect();
    assert_eq!(leaves.len(), 4);
    ChainCheck::run(&leaves).unwrap();
    let last = quittance_evidence::leaf_hash(&leaves[3]);
    assert_eq!(story.payment.last_leaf_hash, Some(*last.as_bytes()));
}

#[tokio::test]
async fn the_same_change_again_is_committed_once() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    let authorized = story.authorized();
    let capture = story.capture("key-2", 10);
    for change in [&accepted, &authorized, &capture] {
        assert_eq!(store.commit(change.clone()).await, Ok(Commit::Committed));
        assert_eq!(store.commit(change.clone()).await, Ok(Commit::Committed));
    }
    let entry = entry_of_stream("acme", Uuid::now_v7(), 1);
    assert_eq!(store.append(entry.clone()).await, Ok(Commit::Committed));
    assert_eq!(store.append(entry).await, Ok(Commit::Committed));
    // Also after the payment has moved on.
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    assert_eq!(count(&db, "select count(*) from journal").await, 4);
}

#[tokio::test]
async fn a_change_decided_upon_an_old_version_is_a_conflict_and_writes_nothing() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    let mut other = story.clone();
    assert_eq!(
        store.commit(story.authorized()).await,
        Ok(Commit::Committed)
    );
    assert_eq!(
        store.commit(other.answer_lost()).await,
        Ok(Commit::VersionConflict)
    );
    assert_eq!(count(&db, "select count(*) from journal").await, 2);
    assert_eq!(
        count(&db, "select count(*) from transactions where ever_unknown").await,
        0
    );
    // One that was never accepted has moved on, too, as far as anybody can tell.
    let (mut unknown, _) = Story::accept("acme", "key-2", 1_000);
    assert_eq!(
        store.commit(unknown.authorized()).await,
        Ok(Commit::VersionConflict)
    );
}

#[tokio::test]
async fn an_appended_entry_whose_number_is_taken_is_a_conflict() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let stream = Uuid::now_v7();
    let entry = entry_of_stream("acme", stream, 1);
    let first = store.append(entry.clone()).await;
    let second = store.append(entry_of_stream("acme", stream, 1)).await;
    let third = store.append(entry_behind(&entry)).await;
    // What it names as the one before is not there, or is another.
    let another = store.append(entry_of_stream("acme", stream, 3)).await;
    let behind_nothing = store
        .append(entry_of_stream("acme", Uuid::now_v7(), 2))
        .await;
    let lost = [another, behind_nothing];
    assert_eq!(
        lost,
        [Ok(Commit::VersionConflict), Ok(Commit::VersionConflict)]
    );
    assert_eq!(first, Ok(Commit::Committed));
    assert_eq!(second, Ok(Commit::VersionConflict));
    assert_eq!(third, Ok(Commit::Committed));
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_of_a_hundred_requests_under_one_key_one_is_accepted() {
    let db = TestDb::new().await;
    // Two stores, as two replicas would have: their committers meet in the database only.
    let stores = [db.store().await, db.store().await];
    let racing = (0..100).map(|number: usize| {
        let store = stores[number % 2].clone();
        tokio::spawn(async move {
            let (_, accepted) = Story::accept("acme", "one-key", 1_000);
            store.commit(accepted).await.unwrap()
        })
    });
    let mut results = Vec::new();
    for task in racing.collect::<Vec<_>>() {
        results.push(task.await.unwrap());
    }
    let of = |fate| results.iter().filter(|result| **result == fate).count();
    assert_eq!(
        (of(Commit::Committed), of(Commit::IdempotencyKeyTaken)),
        (1, 99)
    );
    for table in [
        "payments",
        "transactions",
        "attempts",
        "journal",
        "idempotency_records",
    ] {
        assert_eq!(
            count(&db, &format!("select count(*) from {table}")).await,
            1,
            "{table}"
        );
    }
    // The key of another tenant is another key.
    let (_, accepted) = Story::accept("other", "one-key", 1_000);
    assert_eq!(stores[0].commit(accepted).await, Ok(Commit::Committed));
}

#[tokio::test]
async fn i6_a_later_command_under_a_taken_key_changes_nothing() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    store.commit(story.authorized()).await.unwrap();
    let capture = story.clone().capture("key-1", 10);
    assert_eq!(store.commit(capture).await, Ok(Commit::IdempotencyKeyTaken));
    let read = store
        .payment(&tenant("acme"), story.payment.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((read.payment.version, read.transactions.len()), (2, 1));
    assert_eq!(
        store.commit(story.capture("key-2", 10)).await,
        Ok(Commit::Committed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_database_refuses_fails_alone_in_its_batch() {
    let db = TestDb::new().await;
    let mut config = db.config();
    config.committers = 1;
    let store = PgStore::connect(config, std::sync::Arc::new(quittance_store::Unobserved));
    let store = store.await.unwrap();
    let changes: Vec<_> = (0..50)
        .map(|number| {
            let (_, mut change) = Story::accept("acme", &format!("key-{number}"), 1_000);
            if number == 23 {
                change.payment.amounts.captured = 1;
            }
            change
        })
        .collect();
    let running: Vec<_> = changes
        .into_iter()
        .map(|change| {
            tokio::spawn({
                let store = store.clone();
                async move { store.commit(change).await }
            })
        })
        .collect();
    for (number, task) in running.into_iter().enumerate() {
        let expected = if number == 23 {
            Err(StoreError::Refused(
                "payments_captures_within_authorized".to_owned(),
            ))
        } else {
            Ok(Commit::Committed)
        };
        assert_eq!(task.await.unwrap(), expected, "{number}");
    }
    assert_eq!(count(&db, "select count(*) from journal").await, 49);
}

type Edit = fn(&mut quittance_domain::amounts::Amounts);

#[tokio::test]
async fn i5_amounts_beyond_the_limits_are_refused_by_the_database() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let cases: [(&str, Edit); 11] = [
        ("payments_captures_within_authorized", |a| {
            a.capture_pending = 1;
        }),
        ("payments_captures_within_authorized", |a| {
            a.void_pending = 1;
        }),
        ("payments_captures_within_authorized", |a| {
            a.voided = 1;
        }),
        ("payments_refunds_within_captured", |a| {
            a.refund_pending = 1;
        }),
        ("payments_refunds_within_captured", |a| {
            a.refunded = 1;
        }),
        ("payments_charged_back_not_negative", |a| {
            a.charged_back = -1;
        }),
        ("payments_excess_not_negative", |a| {
            a.excess = -1;
        }),
        ("payments_refunded_not_negative", |a| {
            a.refunded = -1;
        }),
        ("payments_refund_pending_not_negative", |a| {
            a.refund_pending = -1;
        }),
        ("payments_captured_not_negative", |a| {
            (a.captured, a.refunded) = (-1, -1);
        }),
        ("payments_authorized_not_negative", |a| {
            (a.authorized, a.captured) = (-1, -1);
        }),
    ];
    for (number, (constraint, edit)) in cases.into_iter().enumerate() {
        let (_, mut change) = Story::accept("acme", &format!("key-{number}"), 1_000);
        edit(&mut change.payment.amounts);
        let Err(StoreError::Refused(violated)) = store.commit(change).await else {
            panic!("{constraint} does not hold");
        };
        // Where two are violated, PostgreSQL names the first in alphabetical order.
        assert!(
            violated.as_str() <= constraint,
            "{violated} for {constraint}"
        );
    }
    assert_eq!(count(&db, "select count(*) from payments").await, 0);
}

#[tokio::test]
async fn another_tenants_payment_is_not_there() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (story, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    assert_eq!(
        store.payment(&tenant("other"), story.payment.id).await,
        Ok(None)
    );
    let list = store
        .list_payments(&tenant("other"), &Default::default(), None, 10)
        .await;
    assert_eq!(list.map(|page| page.payments), Ok(vec![]));
}
