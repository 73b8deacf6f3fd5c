//! Rows about the tree that somebody deleted from between: each names the one before it, so the next one tells.

use std::time::Duration;

use quittance_domain::verification::{Fault, Mismatch, TreeFault, Trusted};
use quittance_store::PgStore;
use quittance_test_support::TestDb;
use tokio_postgres::Client;

use super::{codes, grow_from, grown, signing, verify_at_rest};

/// How many heads, checkpoints and cosignatures there are.
const TREES: usize = 7;

/// What was deleted, as a fault says it: its size, and that of the last before it that is there.
fn gaps(found: &[Mismatch]) -> Vec<(&'static str, u64, u64)> {
    let gap = |mismatch: &Mismatch| match &mismatch.fault {
        Fault::Tree(
            TreeFault::HeadMissing { size, after }
            | TreeFault::EarlierCheckpointMissing { size, after }
            | TreeFault::CosignatureMissing { size, after, .. },
        ) => (mismatch.fault.code(), *size, *after),
        other => panic!("{other}"),
    };
    found.iter().map(gap).collect()
}

/// A log of several trees, each signed and cosigned, and their sizes.
async fn several_trees() -> (TestDb, PgStore, Client, Trusted, Vec<u64>) {
    let (db, store, client) = grown(20).await;
    let mut trusted = signing::sign(&store, &[1]).await;
    let mut seed = 1_000;
    while signing::sizes(&client).await.len() < TREES {
        grow_from(&store, &client, seed, 1).await;
        seed += 1_000;
        trusted = signing::sign(&store, &[1]).await;
    }
    store.shutdown(Duration::from_secs(10)).await;
    assert_eq!(verify_at_rest(&store, &trusted).await.0, []);
    let sizes = signing::sizes(&client).await;
    for table in ["tree_heads", "checkpoints", "cosignatures"] {
        let saved = format!("create table saved_{table} as table {table}");
        client.batch_execute(&saved).await.unwrap();
    }
    (db, store, client, trusted, sizes)
}

async fn put_back(client: &Client, table: &str) {
    let sql = format!("delete from {table}; insert into {table} select * from saved_{table}");
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_of_rows_deleted_in_a_row_the_last_is_named_and_where_the_others_were() {
    let (_db, store, client, trusted, sizes) = several_trees().await;
    for (table, code) in [
        ("checkpoints", "CHECKPOINT_MISSING"),
        ("cosignatures", "COSIGNATURE_MISSING"),
    ] {
        // One, several in a row, several at the beginning, and two runs.
        for (deleted, expected) in [
            (vec![2], vec![(2, Some(1))]),
            (vec![2, 3, 4], vec![(4, Some(1))]),
            (vec![0, 1, 2], vec![(2, None)]),
            (vec![0, 3, 4], vec![(0, None), (4, Some(2))]),
        ] {
            for at in &deleted {
                let sql = format!("delete from {table} where tree_size = {}", sizes[*at]);
                client.batch_execute(&sql).await.unwrap();
            }
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(at, after)| (code, sizes[at], after.map_or(0, |after| sizes[after])))
                .collect();
            let found = verify_at_rest(&store, &trusted).await.0;
            assert_eq!(gaps(&found), expected, "{table} {deleted:?}");
            put_back(&client, table).await;
        }
    }
    assert_eq!(verify_at_rest(&store, &trusted).await.0, []);
}

/// There may be more heads than were signed: of those the same is true.
#[tokio::test(flavor = "multi_thread")]
async fn s75_of_heads_deleted_in_a_row_the_last_is_named_and_where_the_others_were() {
    let (_db, store, client, trusted, _) = several_trees().await;
    let heads = "select tree_size from tree_heads order by tree_size";
    let heads = client.query(heads, &[]).await.unwrap();
    let heads: Vec<i64> = heads.iter().map(|row| row.get(0)).collect();
    let sql = format!(
        "delete from tree_heads where tree_size > {} and tree_size < {}",
        heads[0], heads[4]
    );
    client.batch_execute(&sql).await.unwrap();
    let found = verify_at_rest(&store, &trusted).await.0;
    let size = |at: usize| u64::try_from(heads[at]).unwrap();
    assert_eq!(gaps(&found), [("TREE_HEAD_MISSING", size(3), size(0))]);
    let text = found[0].fault.to_string();
    assert!(text.contains(&heads[0].to_string()), "{text}");
}

/// Whoever hides a hole has to change the row behind it, which is under a MAC; and without its MAC it is one that the next does
/// not find.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_deleted_cosignature_cannot_be_hidden_in_the_row_behind_it() {
    let (_db, store, client, trusted, sizes) = several_trees().await;
    let [first, gone, behind, next] = [sizes[0], sizes[1], sizes[2], sizes[3]];
    let delete = format!("delete from cosignatures where tree_size = {gone};");
    for (hide, expected) in [
        (
            format!("update cosignatures set previous_size = {first} where tree_size = {behind}"),
            vec!["COSIGNATURE_MAC_WRONG", "COSIGNATURE_MISSING"],
        ),
        (
            format!(
                "update cosignatures set previous_size = null, mac = null, mac_key_id = null \
                 where tree_size = {behind}"
            ),
            vec!["COSIGNATURE_MISSING"],
        ),
        (
            // That may be a key that this server lacks: whether it is, tells whoever has all of them.
            format!("update cosignatures set mac_key_id = 'another' where tree_size = {behind}"),
            vec!["COSIGNATURE_KEY_UNKNOWN"],
        ),
    ] {
        client
            .batch_execute(&(delete.clone() + &hide))
            .await
            .unwrap();
        let found = verify_at_rest(&store, &trusted).await.0;
        assert_eq!(codes(&found), expected, "{hide}");
        let missing = found.last().unwrap();
        assert_eq!(missing.position, behind.checked_sub(1), "before {next}");
        put_back(&client, "cosignatures").await;
    }
    // Of a log of before there were MACs nothing is said.
    let old = "update cosignatures set previous_size = null, mac = null, mac_key_id = null";
    client.batch_execute(old).await.unwrap();
    assert_eq!(verify_at_rest(&store, &trusted).await.0, []);
}

/// Nobody's row stands in for one of ours, and the database is not asked alone which was the last.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_cosignature_deleted_before_the_next_is_kept_is_missed_by_whoever_kept_it() {
    let (_db, store, client) = grown(20).await;
    signing::sign(&store, &[1]).await;
    let kept = store.tree_head().await.unwrap().unwrap().size;
    let delete = "delete from cosignatures";
    client.batch_execute(delete).await.unwrap();
    grow_from(&store, &client, 1_000, 1).await;
    let head = store.tree_head().await.unwrap().unwrap();
    let trusted = signing::sign_behind(&store, head, kept).await;
    store.shutdown(Duration::from_secs(10)).await;
    let found = verify_at_rest(&store, &trusted).await.0;
    assert_eq!(gaps(&found), [("COSIGNATURE_MISSING", kept, 0)]);
}

/// Only the checkpoint that comes next names the one before it: that of the next log, where this one has ended.
#[tokio::test(flavor = "multi_thread")]
async fn s75_the_last_checkpoint_of_a_log_is_missed_where_another_log_has_begun() {
    let (_db, store, client) = grown(20).await;
    assert_eq!(store.last_checkpoint_below(20).await.unwrap(), Some(0));
    for seed in [1_000, 2_000] {
        signing::sign(&store, &[1]).await;
        grow_from(&store, &client, seed, 3).await;
    }
    store.shutdown(Duration::from_secs(10)).await;
    let sizes = signing::sizes(&client).await;
    // Larger ones that somebody put in: nothing else is named than what this service stored.
    let put_in = "insert into checkpoints (tree_size, signed_at, root_hash, note) \
                  select tree_size + 1, signed_at, root_hash, note from checkpoints";
    client.batch_execute(put_in).await.unwrap();
    let trusted = signing::begin_another_log(&store).await;
    let removed = "delete from checkpoints where mac is null";
    client.batch_execute(removed).await.unwrap();
    assert_eq!(verify_at_rest(&store, &trusted).await.0, []);

    let deleted = format!("delete from checkpoints where tree_size = {}", sizes[1]);
    client.batch_execute(&deleted).await.unwrap();
    let found = verify_at_rest(&store, &trusted).await.0;
    assert_eq!(gaps(&found), [("CHECKPOINT_MISSING", sizes[1], sizes[0])]);
}
