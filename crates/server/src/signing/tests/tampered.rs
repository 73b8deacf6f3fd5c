//! What somebody who can write to the database puts before the signer.

use quittance_store::{TreeDamage, TreeReadError};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_head_over_an_invented_leaf_is_never_signed_and_once_it_is_gone_the_log_goes_on() {
    let log = Log::new().await;
    log.grow(4).await;
    let contender = log.signer();
    let signed = contender.sign_once().await.unwrap();
    log.store.shutdown(Duration::from_secs(5)).await;
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
    let log = Log::new().await;
    log.grow(3).await;
    let contender = log.signer();
    let signed = contender.sign_once().await.unwrap();
    log.store.shutdown(Duration::from_secs(5)).await;
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
    store.shutdown(Duration::from_secs(5)).await;
}
