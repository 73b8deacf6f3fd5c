//! What a server finds that lacks a key of another one: nothing that anybody would delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use quittance_domain::erasure::{ErasureStep, Erasures as _, NewErasure};
use quittance_domain::ids::{CustomerId, ErasureId, PaymentId};
use quittance_domain::ports::{Commit, Store as _, StoreError};
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::TransactionState;
use quittance_domain::verification::{Mismatch, Trusted};
use quittance_store::{KeyRing, PgStore};
use quittance_test_support::{
    Alarms, JournalRow, Story, TestDb, entry_of_stream, erasure_done, erasure_requested, tenant,
};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{changes, codes, grow_from, grown, sequenced, signing, verify, verify_at_rest};

async fn without_the_newest_key(db: &TestDb) -> (PgStore, Arc<Alarms>) {
    let mut config = db.config();
    config.keys = KeyRing::new([("test-1".to_owned(), [1; 32])]).unwrap();
    Alarms::watch(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_under_a_key_that_a_server_lacks_is_not_called_forged() {
    let (db, store, client) = grown(20).await;
    let (without, alarms) = without_the_newest_key(&db).await;
    let (mut before, mut seed) = (0, 1_000);
    let mut trusted = signing::newest(&store).await;
    let mut heads = Vec::new();
    // Each names the one before it.
    for signer in [&without, &store, &without, &store] {
        grow_from(&store, &client, seed, 1).await;
        seed += 1_000;
        let head = store.tree_head().await.unwrap().unwrap();
        trusted = signing::sign_behind(signer, head, before).await;
        before = head.size;
        heads.push(head);
    }
    store.shutdown(Duration::from_secs(10)).await;
    assert_eq!(verify_at_rest(&store, &trusted).await.0, []);

    let found = codes(&verify_at_rest(&without, &trusted).await.0);
    let count = |code| found.iter().filter(|found| **found == code).count();
    assert_eq!(count("CHECKPOINT_KEY_UNKNOWN"), 2, "{found:?}");
    assert_eq!(count("COSIGNATURE_KEY_UNKNOWN"), 2, "{found:?}");
    let signed = found
        .iter()
        .filter(|code| code.starts_with("CHECKPOINT") || code.starts_with("COSIGNATURE"));
    assert_eq!(signed.count(), 4, "{found:?}");

    let _ = alarms.taken();
    let newest = without.newest_checkpoint(&trusted.keys).await.unwrap();
    assert_eq!(newest.map(|newest| newest.head), Some(heads[2]));
    assert_eq!(alarms.taken(), ["checkpoint_key"]);
    let newest = store.newest_checkpoint(&trusted.keys).await.unwrap();
    assert_eq!(newest.map(|newest| newest.head), Some(heads[3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_asked_for_under_a_key_that_a_server_lacks_is_neither_refused_nor_asked_for_anew()
 {
    let db = TestDb::new().await;
    let (store, (without, alarms)) = (db.store().await, without_the_newest_key(&db).await);
    let (_, accepted) = Story::accept_of_customer("acme", "key-1", "customer-1", "ada@example.com");
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    let (acme, reference) = (tenant("acme"), Sensitive::new("customer-1".to_owned()));
    let customer = store.customer(&acme, &reference).await.unwrap();
    assert!(customer.is_some());
    let asked = |customer| NewErasure {
        id: ErasureId(Uuid::now_v7()),
        tenant: acme.clone(),
        reference: reference.clone(),
        customer,
    };
    let first = asked(customer);
    let recorded = store.append(erasure_requested(&first)).await;
    assert_eq!(recorded, Ok(Commit::Committed));
    let erasure = store.request_erasure(first.clone()).await.unwrap();
    let erasure = erasure.unwrap();
    assert_eq!(erasure.id, first.id);

    let names_it = |error: StoreError| {
        let StoreError::Corrupt(what) = &error else {
            panic!("{error}");
        };
        assert!(what.contains(&first.id.to_string()), "{what}");
    };
    names_it(without.customer(&acme, &reference).await.unwrap_err());
    names_it(without.request_erasure(asked(None)).await.unwrap_err());
    names_it(without.erasure(&acme, first.id).await.unwrap_err());
    let wait = Duration::from_secs(1);
    names_it(without.erase(&erasure, wait).await.unwrap_err());
    assert_eq!(alarms.taken(), ["entry_key"; 4]);

    assert_eq!(store.customer(&acme, &reference).await, Ok(None));
    let again = store.request_erasure(asked(None)).await.unwrap();
    assert_eq!(again.map(|erasure| erasure.id), Some(first.id));
}

/// Commits schedules in which no outcome is left open: an erasure waits for nothing then.
async fn commit_settled(store: &PgStore) {
    for seed in 1..64 {
        let changes = changes(store, seed);
        let mut open = BTreeSet::new();
        for row in changes.iter().flat_map(|change| &change.transactions) {
            let row = row.row();
            match row.state {
                TransactionState::Pending | TransactionState::RequiresAction => {
                    open.insert(row.id.0)
                }
                _ => open.remove(&row.id.0),
            };
        }
        for change in changes.into_iter().filter(|_| open.is_empty()) {
            store.commit(change).await.unwrap();
        }
    }
}

/// Every customer of whom there are payments, one of these payments, and the erasure that is yet to be asked for.
async fn to_erase(client: &Client) -> Vec<(PaymentId, NewErasure)> {
    let sql = "select distinct on (customer_id) customer_id::text, payment_id::text, tenant_id from payments \
               where customer_id is not null";
    let rows = client.query(sql, &[]).await.unwrap();
    let id = |text: &str| text.parse::<Uuid>().unwrap();
    let new = rows.iter().map(|row| {
        let new = NewErasure {
            id: ErasureId(Uuid::now_v7()),
            tenant: tenant(row.get(2)),
            reference: Sensitive::new("told by the customer's id".to_owned()),
            customer: Some(CustomerId(id(row.get(0)))),
        };
        (PaymentId(id(row.get(1))), new)
    });
    new.collect()
}

/// Has a customer erased: what is asked for, and what was done, put on record by servers of their own.
async fn erase(new: &NewErasure, asked_by: &PgStore, done_by: &PgStore) {
    let recorded = asked_by.append(erasure_requested(new)).await;
    assert_eq!(recorded, Ok(Commit::Committed));
    let erasure = asked_by.request_erasure(new.clone()).await.unwrap();
    let erasure = erasure.unwrap();
    let step = done_by.erase(&erasure, Duration::from_secs(1)).await;
    let Ok(ErasureStep::Erased { payments, behind }) = step else {
        panic!("{step:?}");
    };
    let recorded = done_by.append(erasure_done(new, &behind)).await;
    assert_eq!(recorded, Ok(Commit::Committed));
    let before = Some(Utc::now() - TimeDelta::hours(2));
    let closed = done_by.close_erasure(new.id, payments, before).await;
    assert_eq!(closed, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_on_record_under_a_key_that_a_server_lacks_is_not_held_against_the_customer() {
    let db = TestDb::new().await;
    let (store, (without, _)) = (db.store().await, without_the_newest_key(&db).await);
    store.start_workers();
    let client = db.client().await;
    // Both know the key of what becomes of the payments.
    commit_settled(&without).await;
    let customers = to_erase(&client).await;
    assert!(customers.len() > 1);
    for (place, (_, new)) in customers.iter().enumerate() {
        let asked_by = if place % 2 == 0 { &store } else { &without };
        erase(new, asked_by, &store).await;
    }
    sequenced(&client).await;
    store.shutdown(Duration::from_secs(10)).await;
    assert_eq!(verify(&store).await.0, []);

    let (found, _) = verify_at_rest(&without, &Trusted::default()).await;
    let all = codes(&found);
    assert!(all.iter().all(|it| it.ends_with("_KEY_UNKNOWN")), "{all:?}");
    let of_erasures = found.iter().filter(|it| is_undecided(it));
    let told: Vec<_> = of_erasures.map(|it| it.payment).collect();
    let erasures = told.iter().filter(|payment| payment.is_none());
    assert_eq!(erasures.count(), customers.len());
    assert!(
        customers
            .iter()
            .all(|(payment, _)| told.contains(&Some(*payment)))
    );
}

fn is_undecided(mismatch: &Mismatch) -> bool {
    mismatch.fault.code() == "ERASURE_KEY_UNKNOWN"
}

/// Whoever deletes a customer's key, and makes an erasure up under a key of nobody, is found all the same.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_payment_that_cannot_be_read_is_not_hidden_behind_a_key_that_nobody_has() {
    let (_db, store, client) = grown(20).await;
    store.shutdown(Duration::from_secs(10)).await;
    let (payment, new) = to_erase(&client).await.remove(0);
    let (erasure, customer) = (new.id.0, new.customer.unwrap());
    let entry = JournalRow {
        mac_key_id: "k999".to_owned(),
        ..JournalRow::of(&entry_of_stream("acme", erasure, 1))
    };
    let made_up = format!(
        "insert into erasures (erasure_id, tenant_id, reference_mac, customer_id, next_step_at) \
         select '{erasure}', tenant_id, reference_mac, customer_id, now() from customers \
         where customer_id = '{customer}'; \
         delete from customers where customer_id = '{customer}'; {}",
        entry.insert()
    );
    let closed = "update erasures set payments = 1, finished_at = now(), next_step_at = null";
    for sql in [made_up.as_str(), closed] {
        client.batch_execute(sql).await.unwrap();
        let (found, _) = verify(&store).await;
        let hidden = |it: &Mismatch| it.payment == Some(payment) && is_undecided(it);
        assert!(found.iter().any(hidden), "{:?}", codes(&found));
    }
}
