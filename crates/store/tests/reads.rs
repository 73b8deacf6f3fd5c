//! Reads, encryption, customers and API keys.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use quittance_domain::cases::OpenCases;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::erasure::Erasures as _;
use quittance_domain::ids::ErasureId;
use quittance_domain::payment::{NextAction, PaymentState};
use quittance_domain::ports::{
    Commit, EntryFilter, FailureReport, PaymentFilter, Store, StoreError,
};
use quittance_domain::text::Sensitive;
use quittance_store::{KeyRing, NewApiKey, PgStore, Unobserved};
use quittance_test_support::{Alarms, Story, TestDb, entry_behind, entry_of_stream, tenant};
use uuid::Uuid;

#[tokio::test]
async fn lists_are_newest_first_filtered_and_stable_under_inserts() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let mut stories = Vec::new();
    for number in 0..6 {
        let (mut story, accepted) = Story::accept("acme", &format!("key-{number}"), 1_000 + number);
        store.commit(accepted).await.unwrap();
        if number % 2 == 0 {
            store.commit(story.authorized()).await.unwrap();
        }
        stories.push(story);
    }
    let acme = tenant("acme");
    let first = store
        .list_payments(&acme, &PaymentFilter::default(), None, 4)
        .await
        .unwrap()
        .payments;
    store
        .commit(Story::accept("acme", "key-new", 1).1)
        .await
        .unwrap();
    let after = Some(first[3].payment.id);
    let second = store
        .list_payments(&acme, &PaymentFilter::default(), after, 4)
        .await
        .unwrap()
        .payments;
    let listed: Vec<_> = first
        .iter()
        .chain(&second)
        .map(|record| record.payment.id)
        .collect();
    let expected: Vec<_> = stories.iter().rev().map(|story| story.payment.id).collect();
    assert_eq!(listed, expected);
    assert!(first.iter().all(|record| record.transactions.len() == 1));

    let count = async |filter: PaymentFilter| {
        store
            .list_payments(&acme, &filter, None, 100)
            .await
            .unwrap()
            .payments
            .len()
    };
    let all = PaymentFilter::default;
    let states = vec![PaymentState::Authorized, PaymentState::Captured];
    assert_eq!(count(PaymentFilter { states, ..all() }).await, 3);
    let reference = |text: &str| Some(text.to_owned());
    assert_eq!(
        count(PaymentFilter {
            merchant_reference: reference("order-1"),
            ..all()
        })
        .await,
        7
    );
    assert_eq!(
        count(PaymentFilter {
            merchant_reference: reference("order-2"),
            ..all()
        })
        .await,
        0
    );
    assert_eq!(
        count(PaymentFilter {
            merchant_reference: reference(""),
            ..all()
        })
        .await,
        0
    );
    let third = stories[2].payment.created_at;
    assert_eq!(
        count(PaymentFilter {
            created_from: Some(third),
            ..all()
        })
        .await,
        5
    );
    assert_eq!(
        count(PaymentFilter {
            created_to: Some(third),
            ..all()
        })
        .await,
        2
    );
    let account = stories[0].payment.provider_account.clone();
    assert_eq!(
        count(PaymentFilter {
            provider_account: Some(account),
            ..all()
        })
        .await,
        7
    );
}

#[tokio::test]
async fn entries_are_found_by_every_filter_and_never_across_tenants() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    store.commit(story.answer_lost()).await.unwrap();
    store
        .commit(Story::accept("other", "key-1", 1_000).1)
        .await
        .unwrap();
    let own = entry_of_stream("acme", Uuid::now_v7(), 1);
    store.append(own.clone()).await.unwrap();
    let mut nobodys = entry_of_stream("acme", Uuid::now_v7(), 1);
    nobodys.tenant = None;
    assert_eq!(store.append(nobodys.clone()).await, Ok(Commit::Committed));

    let acme = tenant("acme");
    let count = async |filter: EntryFilter| {
        store
            .list_entries(Some(&acme), &filter, None, 100)
            .await
            .unwrap()
            .len()
    };
    let all = EntryFilter::default;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(count(all()).await, 3);
    assert_eq!(
        count(EntryFilter {
            payment: Some(story.payment.id),
            ..all()
        })
        .await,
        2
    );
    assert_eq!(
        count(EntryFilter {
            transaction: Some(story.transaction.id),
            ..all()
        })
        .await,
        2
    );
    assert_eq!(
        count(EntryFilter {
            trace_id: Some(story.trace_id),
            ..all()
        })
        .await,
        2
    );
    assert_eq!(
        count(EntryFilter {
            actor: text("key-1"),
            ..all()
        })
        .await,
        3
    );
    assert_eq!(
        count(EntryFilter {
            actor: text("key-2"),
            ..all()
        })
        .await,
        0
    );
    assert_eq!(
        count(EntryFilter {
            event_type: text("payment.accepted"),
            ..all()
        })
        .await,
        1
    );
    assert_eq!(
        count(EntryFilter {
            source: text("elsewhere"),
            ..all()
        })
        .await,
        0
    );
    assert_eq!(
        count(EntryFilter {
            result: text("unknown"),
            ..all()
        })
        .await,
        1
    );
    assert_eq!(
        count(EntryFilter {
            cause: text("TIMEOUT"),
            ..all()
        })
        .await,
        0
    );
    let soon = Utc::now() + TimeDelta::minutes(1);
    assert_eq!(
        count(EntryFilter {
            from: Some(soon),
            ..all()
        })
        .await,
        0
    );
    assert_eq!(
        count(EntryFilter {
            to: Some(soon),
            ..all()
        })
        .await,
        3
    );

    let platform = store.list_entries(None, &all(), None, 100).await.unwrap();
    assert_eq!(platform.len(), 5);
    assert!(platform.is_sorted_by_key(|entry| entry.id));
    let page = store
        .list_entries(None, &all(), Some(platform[1].id), 2)
        .await
        .unwrap();
    assert_eq!(page, platform[2..4]);
    assert_eq!(store.entry(Some(&tenant("other")), own.id).await, Ok(None));
    for scope in [Some(&acme), None] {
        let entry = store.entry(scope, own.id).await.unwrap().unwrap();
        assert_eq!(entry.leaf, own.leaf.as_bytes());
    }
    assert_eq!(
        store.entry(None, nobodys.id).await.unwrap().unwrap().stream,
        nobodys.stream
    );
}

#[tokio::test]
async fn sealed_columns_hold_nothing_readable_and_request_and_token_are_wiped() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, mut accepted) =
        Story::accept_of_customer("acme", "key-1", "customer-77", "ada@example.com");
    let action = NextAction {
        redirect_url: Sensitive::new("https://acs.example.com/secret-session".to_owned()),
        data: Sensitive::new([("creq".to_owned(), "secret-data".to_owned())].into()),
        may_take_days: true,
    };
    story.payment.next_action = Some(action.clone());
    accepted.payment.next_action = Some(action.clone());
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));

    let read = store
        .payment(&tenant("acme"), story.payment.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.payment.next_action, Some(action));
    assert_eq!(
        read.payment.customer_reference,
        story.payment.customer_reference
    );
    assert_eq!(read.transactions[0].request, story.transaction.request);
    assert!(
        store
            .method_token(story.payment.id)
            .await
            .unwrap()
            .is_some()
    );

    // As another process would: it knows what it read, and no more.
    let another = db.store().await;
    story.payment = read.payment;
    assert_eq!(
        another.commit(story.authorized()).await,
        Ok(Commit::Committed)
    );
    let read = another
        .payment(&tenant("acme"), story.payment.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.transactions[0].request, None);
    assert_eq!(store.method_token(read.payment.id).await, Ok(None));

    let client = db.client().await;
    for table in [
        "payments",
        "transactions",
        "attempts",
        "customers",
        "journal",
    ] {
        let rows = client
            .query(&format!("select t::text from {table} t"), &[])
            .await
            .unwrap();
        assert!(!rows.is_empty(), "{table}");
        for row in rows {
            let text: String = row.get(0);
            for secret in ["tok_approve", "secret", "ada@", "customer-77", "\"status\""] {
                assert!(!text.contains(secret), "{secret} in {table}");
                assert!(
                    !text.contains(&hex_of(secret)),
                    "{secret} in {table}, hexadecimal"
                );
            }
        }
    }
    // The customer's key is what the request and the response were encrypted under.
    let under = "select count(*) from attempts, customers where \
        position(convert_to('c:' || replace(customer_id::text, '-', ''), 'UTF8') in response) > 0";
    assert_eq!(
        client.query_one(under, &[]).await.unwrap().get::<_, i64>(0),
        1
    );
    client.batch_execute("delete from customers").await.unwrap();
    let read = another
        .payment(&tenant("acme"), story.payment.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.payment.customer_reference, None);
}

fn hex_of(text: &str) -> String {
    text.bytes()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[tokio::test]
async fn a_customer_has_one_key_whoever_comes_first() {
    let db = TestDb::new().await;
    let stores = [db.store().await, db.store().await];
    let racing: Vec<_> = (0..20)
        .map(|number: usize| {
            let store = stores[number % 2].clone();
            tokio::spawn(async move {
                let key = format!("key-{number}");
                let change = Story::accept_of_customer("acme", &key, "customer-1", "a@b.c").1;
                store.commit(change).await.unwrap()
            })
        })
        .collect();
    for task in racing {
        assert_eq!(task.await.unwrap(), Commit::Committed);
    }
    let other = Story::accept_of_customer("other", "key", "customer-1", "a@b.c").1;
    stores[0].commit(other).await.unwrap();
    let client = db.client().await;
    let count = |sql: &'static str| {
        let client = &client;
        async move { client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) }
    };
    assert_eq!(
        count("select count(*) from customers where tenant_id = 'acme'").await,
        1
    );
    assert_eq!(
        count("select count(distinct customer_id) from payments").await,
        2
    );
}

#[tokio::test]
async fn failures_are_summarized_by_cause_account_and_operation() {
    let db = TestDb::new().await;
    let store = db.store().await;
    for number in 0..5 {
        let (mut story, accepted) = Story::accept("acme", &format!("key-{number}"), 1_000);
        store.commit(accepted).await.unwrap();
        let outcome = if number < 2 {
            story.authorized()
        } else {
            story.answer_lost()
        };
        store.commit(outcome).await.unwrap();
    }
    let (from, to) = (
        Utc::now() - TimeDelta::hours(1),
        Utc::now() + TimeDelta::hours(1),
    );
    let acme = tenant("acme");
    // What indexes the entries, and other tables, say nothing: only their bytes count.
    let superuser = db.client().await;
    let tampered = superuser.batch_execute(
        "update attempts set latency_micros = 1, provider_account = 'other'; \
         update journal set cause = 'DECLINED', result = 'success', provider_account = 'other', \
         event_type = 'payment.accepted', occurred_at = 'epoch'",
    );
    tampered.await.unwrap();
    let report = store
        .summarize_failures(Some(&acme), from, to, 10)
        .await
        .unwrap();
    assert_eq!((report.entries, report.refused, report.from), (10, 0, from));
    assert_eq!(report.summaries.len(), 1);
    let failure = &report.summaries[0];
    assert_eq!(
        (failure.failures, failure.attempts, failure.examples.len()),
        (3, 5, 3)
    );
    assert_eq!(
        (failure.cause.as_str(), failure.operation.as_str()),
        ("RESPONSE_TIMEOUT", "authorize")
    );
    assert!((failure.latency[2] - 0.012_345).abs() < 0.000_124);
    let other = tenant("other");
    for (whose, from, found) in [
        (Some(&other), from, 0),
        (None, from, 1),
        (None, to - TimeDelta::seconds(1), 0),
    ] {
        let report = store.summarize_failures(whose, from, to, 10).await.unwrap();
        assert_eq!(report.summaries.len(), found);
    }
}

#[tokio::test]
async fn a_summary_reads_the_newest_entries_and_counts_none_that_was_forged() {
    let db = TestDb::new().await;
    let store = db.store().await;
    for (tenant, number) in [("acme", 1), ("other", 2), ("acme", 3), ("other", 4)] {
        let (mut story, accepted) = Story::accept(tenant, &format!("key-{number}"), 1_000);
        store.commit(accepted).await.unwrap();
        store.commit(story.answer_lost()).await.unwrap();
    }
    let now = Utc::now();
    let range = (now - TimeDelta::hours(1), now + TimeDelta::hours(1));
    let failed = |report: &FailureReport| -> u64 {
        report
            .summaries
            .iter()
            .map(|summary| summary.failures)
            .sum()
    };
    let all = store.read_failures(None, range, 10, 100).await.unwrap();
    assert_eq!((failed(&all), all.entries, all.from), (4, 8, range.0));
    // The newest of both tenants together; from when on it counted, it says.
    let newest = store.read_failures(None, range, 10, 4).await.unwrap();
    assert_eq!((failed(&newest), newest.entries), (2, 4));
    assert!(newest.from > range.0 && newest.from <= now);
    let acme = tenant("acme");
    let newest = store
        .read_failures(Some(&acme), range, 10, 1)
        .await
        .unwrap();
    assert_eq!((failed(&newest), newest.entries), (1, 1));

    let superuser = db.client().await;
    let tampered = superuser.batch_execute(
        "update journal set leaf = convert_to(replace(convert_from(leaf, 'UTF8'), 'RESPONSE_TIMEOUT', 'CONNECT_FAILED'), \
         'UTF8') where tenant_id = 'acme'",
    );
    tampered.await.unwrap();
    let all = store.read_failures(None, range, 10, 100).await.unwrap();
    assert_eq!((failed(&all), all.entries, all.refused), (2, 8, 2));
}

#[tokio::test]
async fn api_keys_are_made_found_listed_and_revoked() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (secret_mac, mac_key_id) = store.keys().api_key_mac(b"secret");
    let key = NewApiKey {
        key_id: "k1".to_owned(),
        tenant: tenant("acme"),
        name: "shop".to_owned(),
        roles: vec!["payments.write".to_owned()],
        secret_mac,
        mac_key_id,
    };
    let refused = store.create_api_key(&key).await;
    assert_eq!(
        refused,
        Err(StoreError::Refused("api_keys_tenant_id_fkey".to_owned()))
    );
    assert_eq!(store.create_tenant(&tenant("acme")).await, Ok(true));
    assert_eq!(store.create_tenant(&tenant("acme")).await, Ok(false));
    assert_eq!(store.create_api_key(&key).await, Ok(true));
    assert_eq!(store.create_api_key(&key).await, Ok(false));
    let found = store.api_key("k1").await.unwrap().unwrap();
    assert!(
        store
            .keys()
            .verify_api_key(b"secret", &found.mac_key_id, &found.secret_mac)
    );
    assert_eq!((found.roles, found.revoked_at), (key.roles.clone(), None));
    assert_eq!(
        store
            .api_keys(Some(&tenant("acme")), None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(store.api_keys(None, Some("k1"), 10).await.unwrap().len(), 0);
    assert_eq!(store.revoke_api_key("k1").await, Ok(true));
    assert_eq!(store.revoke_api_key("k1").await, Ok(false));
    assert!(
        store
            .api_key("k1")
            .await
            .unwrap()
            .unwrap()
            .revoked_at
            .is_some()
    );
    assert_eq!(store.api_key("k2").await, Ok(None));
    store.ping().await.unwrap();
}

async fn count(db: &TestDb, sql: &str) -> i64 {
    db.client().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_customer_keeps_its_key_while_a_new_one_becomes_active_on_one_replica_after_the_other() {
    let db = TestDb::new().await;
    let store = async |keys: &[(&str, u8)]| {
        let mut config = db.config();
        let keys = keys
            .iter()
            .map(|(id, byte)| ((*id).to_owned(), [*byte; 32]));
        config.keys = KeyRing::new(keys).unwrap();
        PgStore::connect(config, Arc::new(Unobserved))
            .await
            .unwrap()
    };
    // First every replica learns the new key, then it becomes active on one after the other.
    let replicas = [
        store(&[("new", 8), ("old", 7)]).await,
        store(&[("new", 8), ("old", 7)]).await,
        store(&[("old", 7)]).await,
    ];
    // The last one does not know it yet, and makes the customer.
    for (number, replica) in replicas.iter().rev().enumerate() {
        let key = format!("key-{number}");
        let change = Story::accept_of_customer("acme", &key, "customer-1", "a@b.c").1;
        assert_eq!(replica.commit(change).await, Ok(Commit::Committed));
    }
    assert_eq!(count(&db, "select count(*) from customers").await, 1);
    let of_payments = "select count(distinct customer_id) from payments";
    assert_eq!(count(&db, of_payments).await, 1);
}

#[tokio::test]
async fn nothing_is_stored_under_another_key_for_a_payment_whose_customer_was_erased() {
    let db = TestDb::new().await;
    let (mut story, accepted) =
        Story::accept_of_customer("acme", "key-1", "customer-77", "ada@example.com");
    db.store().await.commit(accepted).await.unwrap();
    // Erased, and seen again: another customer now.
    let client = db.client().await;
    client.batch_execute("delete from customers").await.unwrap();
    let (_, again) = Story::accept_of_customer("acme", "key-2", "customer-77", "a@b.c");
    db.store().await.commit(again).await.unwrap();
    // Whoever read the payment before the erasure, and went on only now, reads it again.
    let mut change = story.authorized();
    let outcome = db.store().await.commit(change.clone()).await;
    assert_eq!(outcome, Ok(Commit::VersionConflict));
    let responses = "select count(response) from attempts";
    assert_eq!(count(&db, responses).await, 0);
    let store = db.store().await;
    let read = store.payment(&tenant("acme"), change.payment.id).await;
    assert!(read.unwrap().unwrap().payment.customer_erased);
    change.payment.customer_erased = true;
    let outcome = db.store().await.commit(change).await;
    assert_eq!(outcome, Ok(Commit::Committed));
    assert_eq!(count(&db, responses).await, 0, "nothing personal is kept");
}

#[tokio::test]
async fn an_erasure_is_looked_at_again_for_an_hour_after_its_end() {
    let db = TestDb::new().await;
    let (store, client) = (db.store().await, db.client().await);
    let id = ErasureId(Uuid::now_v7());
    let sql = format!(
        "insert into erasures (erasure_id, tenant_id, reference_mac, customer_id, next_step_at, claimed_until) \
         values ('{id}', 'acme', sha256('x'), gen_random_uuid(), now(), now() + interval '1 minute')"
    );
    client.batch_execute(&sql).await.unwrap();
    let sql = "select finished_at is not null, claimed_until is null, payments, \
               coalesce(next_step_at > now() + make_interval(mins => $1) \
                   and next_step_at <= now() + make_interval(mins => $1 + 1), false) from erasures";
    let stands = async |minutes: i32| {
        let row = client.query_one(sql, &[&minutes]).await.unwrap();
        (row.get(0), row.get(1), row.get(2), row.get(3))
    };
    store.close_erasure(id, 2, None).await.unwrap();
    assert_eq!(stands(59).await, (false, true, None::<i64>, true));
    let ago = |minutes| Some(Utc::now() - TimeDelta::minutes(minutes));
    store.close_erasure(id, 2, ago(50)).await.unwrap();
    assert_eq!(stands(9).await, (false, true, None, true));
    store.close_erasure(id, 2, ago(61)).await.unwrap();
    assert_eq!(stands(0).await, (true, true, Some(2), false));
}

#[tokio::test]
async fn a_payment_is_readable_after_its_currency_changed_its_exponent() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    let client = db.client().await;
    let other = "update payments set currency_exponent = 3";
    client.batch_execute(other).await.unwrap();
    let read = store.payment(&tenant("acme"), story.payment.id).await;
    let mut expected = story.payment.clone();
    expected.method.token = None;
    assert_eq!(read.unwrap().unwrap().payment, expected);
    let outcome = store.commit(story.authorized()).await;
    assert_eq!(outcome, Ok(Commit::Committed));
    let stored = "select currency_exponent::bigint from payments";
    assert_eq!(count(&db, stored).await, 3);
}

#[tokio::test]
async fn open_cases_stay_with_their_transaction_until_they_are_closed() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    let one = OpenCases::NONE.with(OperatorActionKind::AmountMismatch);
    let every: OpenCases = OperatorActionKind::ALL.iter().copied().collect();
    for cases in [one, every, OpenCases::NONE] {
        story.transaction.open_cases = cases;
        store.commit(story.answer_lost()).await.unwrap();
        let read = store.payment(&tenant("acme"), story.payment.id).await;
        assert_eq!(read.unwrap().unwrap().transactions[0].open_cases, cases);
    }
}

#[tokio::test]
async fn entries_about_a_payment_are_listed_with_its_own() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (story, accepted) = Story::accept("acme", "key-1", 1_000);
    let (_, other) = Story::accept("acme", "key-2", 1_000);
    store.commit(accepted).await.unwrap();
    store.commit(other).await.unwrap();
    // Somebody read its entries; somebody read another thing.
    let (log, mut ids) = (Uuid::now_v7(), Vec::new());
    let mut before = None;
    for number in 1..=4 {
        let first = || entry_of_stream("acme", log, 1);
        let mut access = before.as_ref().map_or_else(first, entry_behind);
        before = Some(access.clone());
        if number % 2 == 0 {
            access.payment = Some(story.payment.id);
            ids.push(access.id);
        }
        store.append(access).await.unwrap();
    }
    let filter = EntryFilter {
        payment: Some(story.payment.id),
        ..EntryFilter::default()
    };
    let acme = tenant("acme");
    for scope in [Some(&acme), None] {
        let all = store.list_entries(scope, &filter, None, 10).await.unwrap();
        assert_eq!((all.len(), all[0].stream), (3, story.payment.id.0));
        let access: Vec<_> = all[1..].iter().map(|entry| entry.id).collect();
        assert_eq!(access, ids);
        let page = store.list_entries(scope, &filter, Some(all[0].id), 1).await;
        assert_eq!(page.unwrap(), all[1..2]);
    }
    let other = tenant("other");
    let hidden = store.list_entries(Some(&other), &filter, None, 10).await;
    assert_eq!(hidden, Ok(vec![]));
    // The index holds access entries only.
    let indexed = "select count(*) from journal where payment_id <> stream_id";
    assert_eq!(count(&db, indexed).await, 2);
}

#[tokio::test]
async fn entries_that_somebody_wrote_past_us_are_reported() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    let (_, accepted) = Story::accept("acme", "key-1", 1_000);
    store.commit(accepted).await.unwrap();
    let acme = tenant("acme");
    let filter = EntryFilter::default();
    let list = async || {
        let listed = store.list_entries(Some(&acme), &filter, None, 10).await;
        let listed = listed.unwrap().len();
        (listed, alarms.taken_forged())
    };
    assert_eq!(list().await, (1, 0));
    // A copy with another leaf; another under a key that nobody has.
    let forge = |leaf: &str, key: &str| {
        format!(
            "insert into journal (stream_id, entity_seq, entry_id, tenant_id, event_type, result, \
                                  actor, source, occurred_at, leaf, leaf_hash, mac, mac_key_id) \
             select gen_random_uuid(), 1, gen_random_uuid(), tenant_id, event_type, result, actor, \
                    source, occurred_at, {leaf}, leaf_hash, mac, {key} from journal limit 1"
        )
    };
    let client = db.client().await;
    for (leaf, key) in [("leaf || ' '::bytea", "mac_key_id"), ("leaf", "'stranger'")] {
        client.batch_execute(&forge(leaf, key)).await.unwrap();
    }
    assert_eq!(list().await, (3, 2));
    // A genuine leaf in a row that is another entry's.
    client
        .batch_execute(&forge("leaf", "mac_key_id"))
        .await
        .unwrap();
    let listed = store.list_entries(Some(&acme), &filter, None, 10).await;
    let listed = listed.unwrap();
    let authentic = listed
        .iter()
        .filter(|entry| entry.authentic_leaf().is_some());
    assert_eq!((authentic.count(), listed.len()), (1, 4));
}

/// Whoever may insert can give a row the tenant and the id of an entry of ours, under another stream.
#[tokio::test]
async fn s75_an_entry_is_read_by_its_id_whatever_others_have_that_id_too() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    let (story, accepted) = Story::accept("acme", "key-1", 1_000);
    let (entry, acme) = (accepted.entry.id, tenant("acme"));
    store.commit(accepted).await.unwrap();
    let client = db.client().await;
    // Streams before and behind ours, and more of them than are read at once.
    let before: Vec<_> = (0..40).map(|number| format!("{number:08x}")).collect();
    for stream in before.iter().map(String::as_str).chain(["ffffffff"]) {
        let same_id = format!(
            "set role quittance_app; \
             insert into journal (stream_id, entity_seq, entry_id, tenant_id, event_type, result, \
                                  actor, source, occurred_at, leaf, leaf_hash, mac, mac_key_id) \
             select overlay(stream_id::text placing '{stream}' from 1)::uuid, 1, entry_id, tenant_id, event_type, \
                    result, actor, source, occurred_at, leaf || ' ', leaf_hash, mac, mac_key_id \
             from journal where stream_id = '{}'; reset role",
            story.payment.id
        );
        client.batch_execute(&same_id).await.unwrap();
    }
    let read = store.entry(Some(&acme), entry).await.unwrap().unwrap();
    assert_eq!(read.stream, story.payment.id.0);
    assert!(read.is_authentic());
    assert!(alarms.taken_forged() >= 40);
}

#[tokio::test]
async fn s75_nothing_is_stated_about_an_entry_that_this_service_did_not_write() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    let (story, accepted) = Story::accept("acme", "key-1", 1_000);
    let payment = story.payment.id;
    store.commit(accepted).await.unwrap();
    let read = async || store.entry_of_payment(payment, 1).await.unwrap();
    assert!(read().await.is_some());
    assert_eq!(alarms.taken_forged(), 0);
    let rewritten = "update journal set leaf = convert_to(replace(convert_from(leaf, 'utf8'), \
                     'payment.accepted', 'payment.captured'), 'utf8')";
    let client = db.client().await;
    assert_eq!(client.execute(rewritten, &[]).await.unwrap(), 1);
    assert_eq!(read().await, None);
    assert_eq!(alarms.taken_forged(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_changes_while_it_is_read_is_read_as_it_was_at_one_moment() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    let id = story.payment.id;
    store.commit(accepted).await.unwrap();
    store.commit(story.authorized()).await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..100 {
                let key = format!("capture-{number}");
                store.commit(story.capture(&key, 1)).await.unwrap();
                store.commit(story.captured()).await.unwrap();
            }
        }
    });
    let acme = tenant("acme");
    let consistent = async || {
        let record = store.payment(&acme, id).await.unwrap().unwrap();
        let captures = &record.transactions[1..];
        let amounts = record.payment.amounts;
        let sum: i64 = captures.iter().map(|capture| capture.amount).sum();
        assert_eq!(amounts.captured + amounts.capture_pending, sum);
        let open = captures.iter().filter(|capture| !capture.state.ended());
        assert_eq!(
            i64::try_from(open.count()).unwrap(),
            amounts.capture_pending
        );
        record.payment.version
    };
    while !writing.is_finished() {
        consistent().await;
    }
    writing.await.unwrap();
    assert_eq!(consistent().await, 202);
}

/// As a server of the release before leaves them.
#[tokio::test]
async fn the_migration_wipes_the_tokens_of_payments_that_are_decided_and_of_no_other() {
    const WIPE: &str = include_str!("../../../migrations/2026-11-30-009440_wipe_tokens/up.sql");
    let db = TestDb::new().await;
    let (store, client) = (db.store().await, db.client().await);
    let mut payments = Vec::new();
    for decided in [false, true, true] {
        let key = format!("key-{}", payments.len());
        let (mut story, accepted) = Story::accept("acme", &key, 1_000);
        store.commit(accepted).await.unwrap();
        let kept = format!(
            "create table kept_{} as select * from payments",
            payments.len()
        );
        client.batch_execute(&kept).await.unwrap();
        if decided {
            store.commit(story.authorized()).await.unwrap();
            let put_back = format!(
                "update payments p set provider_token = k.provider_token from kept_{} k where k.payment_id = p.payment_id",
                payments.len()
            );
            client.batch_execute(&put_back).await.unwrap();
        }
        payments.push((story.payment.id, decided));
    }
    client.batch_execute(WIPE).await.unwrap();
    for (payment, decided) in payments {
        let token = store.method_token(payment).await.unwrap();
        assert_eq!(token.is_none(), decided);
    }
}
