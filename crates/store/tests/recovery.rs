//! What recovery asks of a real PostgreSQL: claims, the backlog, cases for a person.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use quittance_domain::change::{OperatorAction, OperatorActionKind, Write};
use quittance_domain::contradictions::Contradictions;
use quittance_domain::decline::Cause;
use quittance_domain::ids::{ProviderAccount, ProviderReference, TransactionId};
use quittance_domain::left_alone::LeftAlone;
use quittance_domain::ports::{Accounts, Backlog, CaseFilter, Claim, Commit, DueKind, Store};
use quittance_domain::transaction::{
    AttemptOutcome, Transaction, TransactionKind, TransactionState,
};
use quittance_store::PgStore;
use quittance_test_support::{SALT_BYTE, Story, TestDb, eventually, tenant};

fn claim(limit: usize, lease: Duration) -> Claim {
    Claim {
        kind: DueKind::Any,
        limit,
        lease,
        accounts: Accounts::all(),
    }
}

const LONG: Duration = Duration::from_secs(3_600);

/// Accepts a payment whose next step is due so many seconds ago (negative: later).
async fn due(store: &PgStore, key: &str, seconds_ago: i64, account: &str) -> TransactionId {
    let (_, mut change) = Story::accept("acme", key, 1_000);
    let account = ProviderAccount::parse(account).unwrap();
    let moment = Utc::now() - TimeDelta::seconds(seconds_ago);
    let Some(Write::Insert(transaction)) = change.transactions.first_mut() else {
        panic!("accepting inserts a transaction");
    };
    (transaction.next_step_at, transaction.lease_until) = (Some(moment), Some(moment));
    transaction.provider_account = account;
    let id = transaction.id;
    assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    id
}

type Edit = fn(&mut Transaction);

/// Accepts a payment whose next step is due, and changes its transaction.
async fn due_as(
    store: &PgStore,
    key: &str,
    routed: bool,
    edit: impl FnOnce(&mut Transaction),
) -> TransactionId {
    let (_, mut change) = Story::accept("acme", key, 1_000);
    change.payment.routed = routed;
    let Some(Write::Insert(row)) = change.transactions.first_mut() else {
        panic!("accepting inserts a transaction");
    };
    row.lease_until = None;
    row.next_step_at = Some(Utc::now() - TimeDelta::seconds(9));
    edit(row);
    let id = row.id;
    assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    id
}

/// Of an account that cannot be called now: what has to end, and what another account may take.
#[tokio::test]
async fn what_is_proved_unsent_is_claimed_by_itself() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let past = |row: &mut Transaction| row.execute_before = Utc::now() - TimeDelta::seconds(1);
    let late = due_as(&store, "late", false, past).await;
    let movable = due_as(&store, "movable", true, |_| ()).await;
    let kept: [(&str, Edit); 4] = [
        ("unknown", |row| row.ever_unknown = true),
        ("named", |row| {
            row.provider_reference = ProviderReference::parse("p-1").ok();
        }),
        ("being sent", |row| {
            row.lease_until = Some(Utc::now() + TimeDelta::seconds(60));
        }),
        ("a void", |row| row.kind = TransactionKind::Void),
    ];
    for (key, edit) in kept {
        due_as(&store, key, true, |row| {
            past(row);
            edit(row);
        })
        .await;
    }
    due_as(&store, "the caller chose its account", false, |_| ()).await;
    for (kind, found) in [
        (DueKind::TooLate, vec![late]),
        (DueKind::Unsent, vec![movable]),
    ] {
        let only = Claim {
            kind,
            ..claim(10, LONG)
        };
        let claimed = store.claim_due(&only).await.unwrap();
        let claimed: Vec<_> = claimed.iter().map(|due| due.transaction).collect();
        assert_eq!(claimed, found, "{kind:?}");
    }
    assert_eq!(store.claim_due(&claim(10, LONG)).await.unwrap().len(), 5);
}

/// They have their outcome: no other claim takes them.
#[tokio::test]
async fn s40_authorizations_that_may_have_run_out_are_claimed_by_themselves() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let done = |row: &mut Transaction, kind| {
        (row.kind, row.state, row.request) = (kind, TransactionState::Succeeded, None);
    };
    let held = |row: &mut Transaction| done(row, TransactionKind::Authorization);
    let watched = due_as(&store, "watched", false, held).await;
    let pending = due_as(&store, "pending", false, |_| ()).await;
    let purchase = |row: &mut Transaction| done(row, TransactionKind::Purchase);
    due_as(&store, "a purchase", false, purchase).await;
    for (key, next) in [
        ("later", Some(Utc::now() + TimeDelta::seconds(60))),
        ("never", None),
    ] {
        let edit = |row: &mut Transaction| {
            held(row);
            row.next_step_at = next;
        };
        due_as(&store, key, false, edit).await;
    }
    let ran_out = Claim {
        kind: DueKind::RanOut,
        ..claim(10, LONG)
    };
    for (claim, found) in [
        (claim(10, LONG), vec![pending]),
        (ran_out.clone(), vec![watched]),
        (ran_out, Vec::new()),
    ] {
        let claimed = store.claim_due(&claim).await.unwrap();
        let claimed: Vec<_> = claimed.iter().map(|due| due.transaction).collect();
        assert_eq!(claimed, found, "{:?}", claim.kind);
    }
}

#[tokio::test]
async fn what_is_due_is_claimed_once_longest_due_first() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let second = due(&store, "key-1", 20, "sandbox").await;
    let first = due(&store, "key-2", 30, "sandbox").await;
    let other = due(&store, "key-3", 10, "adyen").await;
    due(&store, "later", -60, "sandbox").await;
    let (mut ended, accepted) = Story::accept("acme", "ended", 1_000);
    store.commit(accepted).await.unwrap();
    store.commit(ended.authorized()).await.unwrap();

    assert_eq!(store.claim_due(&claim(0, LONG)).await, Ok(Vec::new()));
    let one = store.claim_due(&claim(1, LONG)).await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(
        (one[0].transaction, &one[0].tenant),
        (first, &tenant("acme"))
    );
    let adyen = ProviderAccount::parse("adyen").unwrap();
    let mut except = claim(10, LONG);
    except.accounts = Accounts::AllBut(vec![adyen.clone()]);
    let rest = store.claim_due(&except).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].transaction, second);
    let mut only = claim(10, LONG);
    only.accounts = Accounts::Only(ProviderAccount::parse("other").unwrap());
    assert_eq!(store.claim_due(&only).await, Ok(Vec::new()));
    only.accounts = Accounts::Only(adyen);
    let rest = store.claim_due(&only).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert_eq!(
        (rest[0].transaction, rest[0].provider_account.as_str()),
        (other, "adyen")
    );
    assert_eq!(store.claim_due(&claim(10, LONG)).await, Ok(Vec::new()));

    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.due, backlog.pending), (3, 4));
    assert!((0.0..60.0).contains(&backlog.oldest_pending_seconds));
    assert_eq!(backlog.open_cases, 0);
}

#[tokio::test]
async fn an_empty_backlog_is_nothing() {
    let db = TestDb::new().await;
    let store = db.store().await;
    assert_eq!(store.backlog().await, Ok(Backlog::default()));
}

#[tokio::test]
async fn a_claim_that_ran_out_is_taken_over_and_a_change_ends_one() {
    let db = TestDb::new().await;
    let (dead, alive) = (db.store().await, db.store().await);
    let id = due(&dead, "key-1", 5, "sandbox").await;
    assert_eq!(dead.claim_due(&claim(10, LONG)).await.unwrap().len(), 1);
    assert_eq!(alive.claim_due(&claim(10, LONG)).await, Ok(Vec::new()));
    let lapse = "update transactions set claimed_until = now() - interval '1 second'";
    assert_eq!(db.client().await.execute(lapse, &[]).await.unwrap(), 1);
    let taken = alive.claim_due(&claim(10, LONG)).await.unwrap();
    let taken: Vec<_> = taken.iter().map(|due| due.transaction).collect();
    assert_eq!(taken, [id]);
    // One that is given for a short time runs out by itself.
    let (short, other) = (
        Duration::from_millis(1),
        due(&dead, "key-3", 5, "sandbox").await,
    );
    assert_eq!(dead.claim_due(&claim(10, short)).await.unwrap().len(), 1);
    eventually("the claim runs out", || async {
        let taken = alive.claim_due(&claim(10, LONG)).await.unwrap();
        taken.iter().any(|due| due.transaction == other)
    })
    .await;

    let (mut story, accepted) = Story::accept("acme", "key-2", 1_000);
    alive.commit(accepted).await.unwrap();
    let past = Some(Utc::now() - TimeDelta::seconds(1));
    for _ in 0..2 {
        // Each time it is claimed for long, and each change ends that.
        let mut change = story.answer_lost();
        for write in &mut change.transactions {
            if let Write::Update(transaction) = write {
                transaction.next_step_at = past;
            }
        }
        assert_eq!(alive.commit(change).await, Ok(Commit::Committed));
        let claimed = dead.claim_due(&claim(10, LONG)).await.unwrap();
        let claimed: Vec<_> = claimed.iter().map(|due| due.transaction).collect();
        assert_eq!(claimed, [story.transaction.id]);
        assert_eq!(alive.claim_due(&claim(10, LONG)).await, Ok(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claimers_no_two_get_the_same() {
    const DUE: usize = 300;
    let db = TestDb::new().await;
    let store = db.store().await;
    let accepting = (0..DUE).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { due(&store, &format!("key-{number}"), 5, "sandbox").await })
    });
    for task in accepting.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let other = db.store().await;
    let claimers = (0..8).map(|number: usize| {
        let store = if number.is_multiple_of(2) {
            store.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let claimed = store.claim_due(&claim(7, LONG)).await.unwrap();
                if claimed.is_empty() {
                    return got;
                }
                got.extend(claimed.into_iter().map(|due| due.transaction));
            }
        })
    });
    let mut all = Vec::new();
    for claimer in claimers.collect::<Vec<_>>() {
        all.extend(claimer.await.unwrap());
    }
    // One that passed over rows others had locked may have ended early; all together have all.
    let different: HashSet<_> = all.iter().collect();
    assert_eq!((all.len(), different.len()), (DUE, DUE));
}

#[tokio::test]
async fn what_somebody_is_changing_is_passed_over_and_not_waited_for() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let held = due(&store, "key-1", 5, "sandbox").await;
    let free = due(&store, "key-2", 4, "sandbox").await;
    let client = db.client().await;
    let lock = format!(
        "begin; select 1 from transactions where transaction_id = '{}' for update",
        held.0
    );
    client.batch_execute(&lock).await.unwrap();
    let claimed = store.claim_due(&claim(10, LONG)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].transaction, free);
    client.batch_execute("commit").await.unwrap();
    let claimed = store.claim_due(&claim(10, LONG)).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].transaction, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_commits_do_not_get_into_each_others_way() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let stop = Arc::new(AtomicBool::new(false));
    let claimers: Vec<_> = (0..3)
        .map(|_| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut claimed = 0;
                while !stop.load(Ordering::Relaxed) {
                    let due = store.claim_due(&claim(50, Duration::from_millis(1))).await;
                    claimed += due.unwrap().len();
                }
                claimed
            })
        })
        .collect();
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..15 {
                    let key = format!("key-{writer}-{number}");
                    let (mut story, accepted) = Story::accept("acme", &key, 1_000);
                    let mut lost = story.answer_lost();
                    let mut again = story.answer_lost();
                    for change in [&mut lost, &mut again] {
                        for write in &mut change.transactions {
                            if let Write::Update(transaction) = write {
                                transaction.next_step_at = Some(Utc::now());
                            }
                        }
                    }
                    for change in [accepted, lost, again, story.authorized()] {
                        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut claimed = 0;
    for claimer in claimers {
        claimed += claimer.await.unwrap();
    }
    assert!(claimed > 0);
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    // A backend counts what happened to it when it ends, at the latest.
    let end = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity \
               where datname = current_database() and application_name like 'quittance %'";
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let client = db.client().await;
    client.query_one(end, &[]).await.unwrap();
    let deadlocks: i64 = client.query_one(deadlocks, &[]).await.unwrap().get(0);
    assert_eq!(deadlocks, 0);
}

#[tokio::test]
async fn an_attempt_and_the_methods_token_are_read_back() {
    let db = TestDb::new().await;
    let store = db.store().await;
    for customer in [None, Some("customer-1")] {
        let key = format!("key-{customer:?}");
        let (mut story, accepted) = match customer {
            None => Story::accept("acme", &key, 1_000),
            Some(reference) => Story::accept_of_customer("acme", &key, reference, "a@b.example"),
        };
        store.commit(accepted).await.unwrap();
        let (payment, transaction) = (story.payment.id, story.transaction.id);
        let started = story.attempt.clone();
        let read = store
            .attempt(payment, transaction, 1)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read, started);
        assert_eq!(read.digest_salt, [SALT_BYTE; 16]);
        store.commit(story.answer_lost()).await.unwrap();
        // Read by a store that has seen nothing of it.
        let other = db.store().await;
        let read = other
            .attempt(payment, transaction, 1)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read, story.attempt);
        assert_eq!(read.ended.unwrap().outcome, AttemptOutcome::Unknown);
        assert_eq!(other.attempt(payment, transaction, 2).await, Ok(None));
        assert_eq!(
            other.attempt(payment, transaction, u32::MAX).await,
            Ok(None)
        );
        let token = other.method_token(payment).await.unwrap().unwrap();
        assert_eq!(token.expose(), "tok_approve");
    }
    let (nowhere, _) = Story::accept("acme", "never", 1);
    let token = store.method_token(nowhere.payment.id).await;
    assert_eq!(token, Ok(None));
}

#[tokio::test]
async fn what_recovery_needs_is_stored() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    story.transaction.retries = 7;
    story.transaction.resolved_by_operator = true;
    let told = Contradictions::from_stored("PURCHASE APPROVED stripe pi_2\nFAILED DECLINED");
    story.transaction.contradictions = told.clone();
    let asked = "2030-01-01T00:00:00.000001Z adyen\n2030-01-02T00:00:00.000000Z sandbox";
    story.transaction.left_alone = LeftAlone::from_stored(asked).unwrap();
    story.payment.routed = true;
    let other = ProviderAccount::parse("adyen").unwrap();
    story.payment.provider_account = other.clone();
    story.transaction.provider_account = other;
    store.commit(story.answer_lost()).await.unwrap();
    let read = store.payment(&tenant("acme"), story.payment.id).await;
    let read = read.unwrap().unwrap();
    let held: &Transaction = &read.transactions[0];
    assert_eq!(held, &story.transaction);
    assert_eq!((held.retries, held.resolved_by_operator), (7, true));
    assert_eq!(held.contradictions, told);
    assert_eq!(held.left_alone.to_stored(), asked);
    assert_eq!(
        (read.payment.routed, read.payment.provider_account.as_str()),
        (true, "adyen")
    );
    let end = story.attempt.ended.clone().unwrap();
    assert_ne!(end.cause, Some(Cause::ResolvedByOperator));
}

#[tokio::test]
async fn cases_are_opened_closed_and_listed() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let mut stories = Vec::new();
    for (name, kind) in [
        ("acme", OperatorActionKind::RecoveryExhausted),
        ("acme", OperatorActionKind::AmountMismatch),
        ("globex", OperatorActionKind::ExcessAmount),
    ] {
        let (mut story, accepted) = Story::accept(name, "key-1", 1_000);
        let accepted = if stories.len() == 1 {
            let (second, accepted) = Story::accept(name, "key-2", 1_000);
            story = second;
            accepted
        } else {
            accepted
        };
        assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
        let mut change = story.answer_lost();
        let transaction = story.transaction.id;
        change.operator_action = Some(OperatorAction { kind, transaction });
        assert_eq!(store.commit(change.clone()).await, Ok(Commit::Committed));
        // Executed again, as after a lost answer: one case.
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
        stories.push(story);
    }
    assert_eq!(store.backlog().await.unwrap().open_cases, 3);
    let (acme, all) = (tenant("acme"), CaseFilter::default());
    let cases = store.list_cases(Some(&acme), &all, None, 10).await.unwrap();
    let kinds: Vec<_> = cases.iter().map(|case| case.kind).collect();
    assert_eq!(
        kinds,
        [
            OperatorActionKind::RecoveryExhausted,
            OperatorActionKind::AmountMismatch
        ]
    );
    let after = Some(cases[0].id);
    let rest = store.list_cases(Some(&acme), &all, after, 10).await;
    assert_eq!(rest.unwrap(), cases[1..]);
    let everybody = store.list_cases(None, &all, None, 2).await.unwrap();
    assert_eq!(everybody.len(), 2);
    let filter = CaseFilter {
        payment: Some(stories[2].payment.id),
        kind: Some(OperatorActionKind::ExcessAmount),
        ..CaseFilter::default()
    };
    let found = store.list_cases(None, &filter, None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].tenant, tenant("globex"));
    let elsewhere = store.list_cases(Some(&acme), &filter, None, 10).await;
    assert_eq!(elsewhere, Ok(Vec::new()));

    // The first is closed by a change that opens another; one of another kind, about another, stays as it is.
    let story = &mut stories[0];
    let transaction = story.transaction.id;
    let mut change = story.answer_lost();
    change.closes_cases = [
        OperatorActionKind::RecoveryExhausted,
        OperatorActionKind::ExcessAmount,
    ]
    .map(|kind| OperatorAction { kind, transaction })
    .to_vec();
    change.operator_action = Some(OperatorAction {
        kind: OperatorActionKind::ContradictingFact,
        transaction: story.transaction.id,
    });
    let (closed_by, closed_at) = (change.entry.id, change.entry.occurred_at);
    assert_eq!(store.commit(change.clone()).await, Ok(Commit::Committed));
    assert_eq!(store.commit(change.clone()).await, Ok(Commit::Committed));
    let open = store.list_cases(Some(&acme), &all, None, 10).await.unwrap();
    let kinds: Vec<_> = open.iter().map(|case| case.kind).collect();
    assert_eq!(
        kinds,
        [
            OperatorActionKind::AmountMismatch,
            OperatorActionKind::ContradictingFact
        ]
    );
    let filter = CaseFilter {
        closed: true,
        ..CaseFilter::default()
    };
    let every = store
        .list_cases(Some(&acme), &filter, None, 10)
        .await
        .unwrap();
    assert_eq!(every.len(), 3);
    assert_eq!(every[0].closed, Some((closed_at, closed_by)));
    assert_eq!(store.backlog().await.unwrap().open_cases, 3);

    // Two of one kind about a transaction, and one of another: closing a kind closes each of it, and leaves the other.
    for kind in [
        OperatorActionKind::ContradictingFact,
        OperatorActionKind::ExcessAmount,
    ] {
        let mut change = story.answer_lost();
        change.operator_action = Some(OperatorAction { kind, transaction });
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    for (kind, left) in [
        (OperatorActionKind::RecoveryExhausted, 4),
        (OperatorActionKind::ContradictingFact, 2),
        (OperatorActionKind::ExcessAmount, 1),
    ] {
        let mut change = story.answer_lost();
        change.closes_cases = vec![OperatorAction { kind, transaction }];
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
        let open = store.list_cases(Some(&acme), &all, None, 10).await.unwrap();
        assert_eq!(open.len(), left, "{kind}");
    }
}
