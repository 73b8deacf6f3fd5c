//! What somebody who can write to the database puts before the signer.

use super::super::state::sign;
use quittance_store::{TreeDamage, TreeReadError};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_head_over_an_invented_leaf_is_never_signed_and_once_it_is_gone_the_log_goes_on() {
    let (log, contender, signed) = signed_log(4).await;
    log.store.shutdown(Duration::from_secs(60)).await;
    // All of it is within the rights of the application's own role.
    log.execute(
        "set role quittance_app; \
         update tree_tiles set hashes = hashes || decode(repeat('cd', 32), 'hex') where level = 0",
    )
    .await;
    let root = log.store.tree_root(5).await.unwrap();
    let made_up = HeadRow::made_up(5, root).insert();
    log.execute(&format!("set role quittance_app; {made_up}"))
        .await;
    let refused = contender.sign_once().await.unwrap_err();
    assert!(
        matches!(
            refused,
            SignerError::Tree(TreeReadError::Damaged(TreeDamage::HeadMac))
        ),
        "{refused}"
    );
    log.execute("delete from tree_heads where tree_size = 5")
        .await;
    assert_eq!(contender.sign_once().await.unwrap(), signed);
}

/// As after the migration that brought the MACs.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_made_again_from_the_journal_is_the_one_that_was_signed() {
    let (log, contender, signed) = signed_log(3).await;
    log.store.shutdown(Duration::from_secs(60)).await;
    log.execute("delete from tree_heads; delete from tree_tiles")
        .await;
    let refused = contender.sign_once().await.unwrap_err();
    assert!(matches!(refused, SignerError::SetBack { .. }), "{refused}");
    let store = log.db.store().await;
    store.start_workers();
    eventually("the tree is whole again", || async {
        store.tree_head().await.unwrap() == Some(signed.head)
    })
    .await;
    assert_eq!(contender.sign_once().await.unwrap(), signed);
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_checkpoints_that_somebody_inserted_are_neither_served_nor_in_the_signers_way() {
    let (log, contender, old) = signed_log(2).await;
    log.grow(1).await;
    let newest = contender.sign_once().await.unwrap();
    // An old note under another size and root, and under another root alone; and one under a key of nobody.
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), ORIGIN).unwrap();
    let foreign = LogKeys::load(&config(directory.path())).unwrap();
    let larger = TreeHead {
        size: 9_000_000_000_000_000_000,
        root: Hash::from_bytes([0xab; 32]),
    };
    let other_root = TreeHead {
        root: larger.root,
        ..newest.head
    };
    let now = Utc::now();
    for head in [larger, other_root] {
        let forged = StoredCheckpoint {
            head,
            signed_at: old.signed_at,
            ..old.clone()
        };
        log.store.keep_checkpoint(&forged).await.unwrap();
    }
    let head = TreeHead { size: 4, ..larger };
    let forged = sign(&foreign, head, now, None).unwrap();
    log.store.keep_checkpoint(&forged).await.unwrap();
    assert_eq!(log.newest().await, Some(newest.clone()));
    assert_eq!(contender.sign_once().await.unwrap(), newest);
    log.grow(1).await;
    let next = contender.sign_once().await.unwrap();
    assert_eq!((next.head.size, log.newest().await), (4, Some(next)));
    // So many that there is no end to them: nothing is served, and nothing old as if it were new.
    log.execute(&format!(
        "insert into checkpoints select n, now(), decode(repeat('ab', 32), 'hex'), '{}' \
         from generate_series(1000, 2000) n",
        old.note
    ))
    .await;
    let keys = log.evidence().keys.verifiers();
    let read = log.store.newest_checkpoint(&keys).await;
    assert!(matches!(
        read,
        Err(TreeReadError::Damaged(TreeDamage::Checkpoints))
    ));
}
