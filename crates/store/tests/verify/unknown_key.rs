//! What a server finds that lacks a key of another one: nothing that anybody would delete.

use std::sync::Arc;
use std::time::Duration;

use quittance_store::{KeyRing, PgStore};
use quittance_test_support::TestDb;

use super::stalled::Alarms;
use super::{codes, grow_from, grown, signing, verify_at_rest};

async fn without_the_newest_key(db: &TestDb) -> (PgStore, Arc<Alarms>) {
    let mut config = db.config();
    config.keys = KeyRing::new([("test-1".to_owned(), [1; 32])]).unwrap();
    let alarms = Arc::new(Alarms::default());
    let observer = Arc::<Alarms>::clone(&alarms);
    let store = PgStore::connect(config, observer).await.unwrap();
    (store, alarms)
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

    let _ = alarms.all_taken();
    let newest = without.newest_checkpoint(&trusted.keys).await.unwrap();
    assert_eq!(newest.map(|newest| newest.head), Some(heads[2]));
    assert_eq!(alarms.all_taken(), ["checkpoint_key"]);
    let newest = store.newest_checkpoint(&trusted.keys).await.unwrap();
    assert_eq!(newest.map(|newest| newest.head), Some(heads[3]));
}
