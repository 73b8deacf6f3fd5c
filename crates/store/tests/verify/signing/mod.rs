//! Checkpoints over the heads of a tree, as the signer makes them.

use chrono::{DateTime, Utc};
use quittance_domain::verification::{SignedLast, Trusted};
use quittance_evidence::note::{KeyName, SigningKey, VerifierKey, WitnessKey};
use quittance_evidence::{Checkpoint, Hash};
use quittance_store::{PgStore, StoredCheckpoint, StoredCosignature, TreeHead, witness_id};
use tokio_postgres::Client;

const ORIGIN: &str = "log.test/quittance";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(KeyName::new(ORIGIN).unwrap(), &[seed; 32])
}

fn witness() -> WitnessKey {
    SigningKey::from_seed(KeyName::new("witness.test/w").unwrap(), &[9; 32]).into()
}

/// The published keys that tests sign with but for the last one, which is a stranger's.
fn published() -> Vec<VerifierKey> {
    [1, 2].map(|seed| key(seed).verifier().clone()).to_vec()
}

/// Entries of the newest checkpoint that is stored; 0 where none is.
async fn newest_of(store: &PgStore) -> Option<u64> {
    let largest = store.largest_checkpoint().await.unwrap();
    Some(u64::try_from(largest.unwrap_or(0)).unwrap())
}

async fn keep(store: &PgStore, head: TreeHead, keys: &[u8], before: u64) -> Trusted {
    let checkpoint = Checkpoint {
        origin: KeyName::new(ORIGIN).unwrap(),
        size: head.size,
        root: head.root,
    };
    let keys: Vec<SigningKey> = keys.iter().map(|seed| key(*seed)).collect();
    let keys: Vec<&SigningKey> = keys.iter().collect();
    let checkpoint = StoredCheckpoint {
        head,
        note: checkpoint.sign(&keys).unwrap().to_string(),
        signed_at: Utc::now(),
        previous: newest_of(store).await.filter(|before| *before < head.size),
    };
    store.keep_checkpoint(&checkpoint).await.unwrap();
    cosign_behind(store, head, before).await;
    trusted(head)
}

/// Begins another log with the newest head, as `quittance audit signer init --new-log` does.
pub async fn begin_another_log(store: &PgStore) -> Trusted {
    let head = store.tree_head().await.unwrap().unwrap();
    let origin = KeyName::new("log.test/quittance-2").unwrap();
    let key = SigningKey::from_seed(origin.clone(), &[4; 32]);
    let checkpoint = Checkpoint {
        origin,
        size: head.size,
        root: head.root,
    };
    let checkpoint = StoredCheckpoint {
        head,
        note: checkpoint.sign(&[&key]).unwrap().to_string(),
        signed_at: Utc::now(),
        previous: store.last_checkpoint_below(head.size).await.unwrap(),
    };
    store.keep_checkpoint(&checkpoint).await.unwrap();
    Trusted {
        keys: vec![key.verifier().clone()],
        // They cosigned the log before.
        witnesses: Vec::new(),
        ..trusted(head)
    }
}

/// Signs a head; whoever has it cosigned remembers a cosignature of so many entries.
pub async fn sign_behind(store: &PgStore, head: TreeHead, before: u64) -> Trusted {
    keep(store, head, &[1], before).await
}

/// Entries of the checkpoints that are stored.
pub async fn sizes(client: &Client) -> Vec<u64> {
    let sql = "select tree_size from checkpoints order by tree_size";
    let rows = client.query(sql, &[]).await.unwrap();
    let sizes = rows.iter().map(|row| u64::try_from(row.get::<_, i64>(0)));
    sizes.map(Result::unwrap).collect()
}

/// Keeps the witness's word on a tree.
pub async fn cosign(store: &PgStore, head: TreeHead) {
    cosign_behind(store, head, 0).await;
}

async fn cosign_behind(store: &PgStore, head: TreeHead, before: u64) {
    let checkpoint = Checkpoint {
        origin: KeyName::new(ORIGIN).unwrap(),
        size: head.size,
        root: head.root,
    };
    let time = 1_800_000_000;
    let cosignature = StoredCosignature {
        head,
        witness: witness_id(witness().verifier()),
        cosigned_at: DateTime::from_timestamp(time, 0).unwrap(),
        line: checkpoint
            .cosign(&witness(), time.unsigned_abs())
            .to_string(),
    };
    store.keep_cosignature(&cosignature, before).await.unwrap();
}

fn trusted(head: TreeHead) -> Trusted {
    Trusted {
        keys: published(),
        signed: SignedLast::Tree {
            size: head.size,
            root: head.root,
        },
        witnesses: vec![witness().verifier().clone()],
    }
}

/// Signs the newest head with these keys. Gives what is kept outside the database then.
pub async fn sign(store: &PgStore, keys: &[u8]) -> Trusted {
    let head = store.tree_head().await.unwrap().unwrap();
    keep(store, head, keys, 0).await
}

/// What is kept outside the database, where the newest head was signed.
pub async fn newest(store: &PgStore) -> Trusted {
    trusted(store.tree_head().await.unwrap().unwrap())
}

/// Signs every head that there is.
pub async fn sign_all(store: &PgStore, client: &Client) -> Trusted {
    let sql = "select tree_size, root_hash from tree_heads order by tree_size";
    for row in client.query(sql, &[]).await.unwrap() {
        let root: [u8; 32] = row.get::<_, &[u8]>(1).try_into().unwrap();
        let head = TreeHead {
            size: u64::try_from(row.get::<_, i64>(0)).unwrap(),
            root: Hash::from_bytes(root),
        };
        keep(store, head, &[1], 0).await;
    }
    newest(store).await
}
