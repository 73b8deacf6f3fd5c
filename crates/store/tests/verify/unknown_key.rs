//! What a server finds that lacks a key of another one: nothing that anybody would delete.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::erasure::{Erasures as _, NewErasure};
use quittance_domain::ids::ErasureId;
use quittance_domain::ports::{Commit, Store as _, StoreError};
use quittance_domain::text::Sensitive;
use quittance_store::{KeyRing, PgStore};
use quittance_test_support::{Alarms, Story, TestDb, erasure_requested, tenant};
use uuid::Uuid;

use super::{codes, grow_from, grown, signing, verify_at_rest};

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
