//! Reads, encryption, customers and API keys.

use chrono::{TimeDelta, Utc};
use quittance_domain::payment::{NextAction, PaymentState};
use quittance_domain::ports::{Commit, EntryFilter, PaymentFilter, Store, StoreError};
use quittance_domain::text::Sensitive;
use quittance_store::NewApiKey;
use quittance_test_support::{Story, TestDb, entry_of_stream, tenant};
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
        .unwrap();
    store
        .commit(Story::accept("acme", "key-new", 1).1)
        .await
        .unwrap();
    let after = Some(first[3].payment.id);
    let second = store
        .list_payments(&acme, &PaymentFilter::default(), after, 4)
        .await
        .unwrap();
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
async fn sealed_columns_hold_nothing_readable_and_the_request_is_wiped() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (mut story, mut accepted) =
        Story::accept_of_customer("acme", "key-1", "customer-77", "ada@example.com");
    let action = NextAction {
        redirect_url: Sensitive::new("https://acs.example.com/secret-session".to_owned()),
        data: Sensitive::new([("creq".to_owned(), "secret-data".to_owned())].into()),
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
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
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
    let summary = store
        .summarize_failures(Some(&acme), from, to, 10)
        .await
        .unwrap();
    assert_eq!(summary.len(), 1);
    let failure = &summary[0];
    assert_eq!(
        (failure.failures, failure.attempts, failure.examples.len()),
        (3, 5, 3)
    );
    assert_eq!(
        (failure.cause.as_str(), failure.operation.as_str()),
        ("RESPONSE_TIMEOUT", "authorize")
    );
    assert!((failure.latency[2] - 0.012_345).abs() < 1e-9);
    assert_eq!(
        store
            .summarize_failures(Some(&tenant("other")), from, to, 10)
            .await,
        Ok(vec![])
    );
    assert_eq!(
        store
            .summarize_failures(None, from, to, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(store.summarize_failures(None, to, to, 10).await, Ok(vec![]));
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
