//! What only those know who keep something outside the database: the signer, a witness, readers of keys.

use std::time::Duration;

use quittance_domain::verification::Trusted;
use quittance_evidence::Hash;
use quittance_store::TreeHead;
use quittance_test_support::TestDb;

use super::{
    WORLDS_AT_ONCE, codes, grow_from, grown, number, signing, tampering, verify, verify_against,
};

/// Whoever restores an older backup has a log that is right in itself; only what lies outside knows more.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_database_restored_from_an_older_backup_is_reported() {
    let (_db, store, client) = grown(300).await;
    signing::sign_all(&store, &client).await;
    client.batch_execute(&tampering::setup(1)).await.unwrap();
    grow_from(&store, &client, 1_000, 200).await;
    let trusted = signing::sign_all(&store, &client).await;
    store.shutdown(Duration::from_secs(10)).await;
    assert_eq!(verify_against(&store, &trusted).await.0, []);
    client
        .batch_execute(&tampering::put_all_back())
        .await
        .unwrap();
    let (found, _) = verify_against(&store, &trusted).await;
    assert_eq!(codes(&found), ["LOG_SET_BACK"]);
    assert_eq!(verify(&store).await.0, []);
}

/// Whoever has every key writes a log that is right in itself; only what was signed before knows another.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_log_written_anew_with_every_key_is_not_the_one_that_was_signed() {
    let (_db, store, client) = grown(200).await;
    let trusted = signing::sign_all(&store, &client).await;
    let signed = number(&client, "select count(*) from journal").await;
    let db = TestDb::new().await;
    let forged = db.store().await;
    forged.start_workers();
    let client = db.client().await;
    // Longer than what was signed: a shorter one was set back. Some changes are offered twice, and are one entry.
    let mut seed = 5_000;
    while number(&client, "select count(*) from journal").await <= signed {
        grow_from(&forged, &client, seed, 1).await;
        seed += WORLDS_AT_ONCE;
    }
    signing::sign_all(&forged, &client).await;
    let (found, _) = verify_against(&forged, &trusted).await;
    assert_eq!(codes(&found), ["SIGNED_TREE_DIFFERS"]);
}

/// What a witness saw is worth more than anything that is here.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_witness_s_word_on_another_tree_is_reported() {
    let (_db, store, client) = grown(100).await;
    let trusted = signing::sign_all(&store, &client).await;
    assert_eq!(verify_against(&store, &trusted).await.0, []);
    let head = store.tree_head().await.unwrap().unwrap();
    let seen = TreeHead {
        root: Hash::of(b"another history"),
        ..head
    };
    signing::cosign(&store, seen).await;
    let (found, _) = verify_against(&store, &trusted).await;
    assert_eq!(codes(&found), ["COSIGNATURE_DIFFERS"]);
    assert_eq!(found[0].position, head.size.checked_sub(1));
}

/// A replaced key is not at hand any more: what it signed before is held to the tree, and nothing after.
#[tokio::test(flavor = "multi_thread")]
async fn s79_checkpoints_of_a_replaced_key_are_held_to_the_tree() {
    let (_db, store, client) = grown(100).await;
    signing::sign(&store, &[1]).await;
    grow_from(&store, &client, 1_000, 50).await;
    signing::sign(&store, &[1, 2]).await;
    grow_from(&store, &client, 2_000, 50).await;
    let trusted = signing::sign(&store, &[2]).await;
    let new = Trusted {
        keys: trusted.keys[1..].to_vec(),
        ..trusted
    };
    assert_eq!(verify_against(&store, &new).await.0, []);
    grow_from(&store, &client, 3_000, 50).await;
    signing::sign(&store, &[3]).await;
    let (found, _) = verify_against(&store, &new).await;
    assert_eq!(codes(&found), ["CHECKPOINT_NOT_SIGNED"]);
}

/// A key that was replaced and is in use again was never the only one since: what the other signed alone is reported, until a
/// third replaces it.
#[tokio::test(flavor = "multi_thread")]
async fn s79_a_replacement_that_was_taken_back_is_reported_until_a_third_key_replaces_both() {
    let (_db, store, client) = grown(50).await;
    let mut seed = 0;
    let mut trusted = Trusted::default();
    let mut signed_by = async |keys: &[u8]| {
        seed += 1_000;
        grow_from(&store, &client, seed, 1).await;
        signing::sign(&store, keys).await
    };
    for keys in [&[1][..], &[1, 3], &[3], &[1]] {
        trusted = signed_by(keys).await;
    }
    let old = Trusted {
        keys: trusted.keys[..1].to_vec(),
        ..trusted
    };
    let (found, _) = verify_against(&store, &old).await;
    assert_eq!(codes(&found), ["CHECKPOINT_NOT_SIGNED"]);
    let _ = signed_by(&[1, 2]).await;
    let trusted = signed_by(&[2]).await;
    let third = Trusted {
        keys: trusted.keys[1..].to_vec(),
        ..trusted
    };
    assert_eq!(verify_against(&store, &third).await.0, []);
}
