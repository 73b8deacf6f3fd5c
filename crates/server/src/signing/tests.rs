//! The signer against a real tree: it signs what grew, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_evidence::note::Note;
use quittance_evidence::{Checkpoint, Hash, SignedCheckpoint};
use quittance_store::{StoredCheckpoint, TreeHead};
use quittance_telemetry::{Telemetry, TelemetryConfig};
use quittance_test_support::{HeadRow, JournalRow, TestDb, entry_of_stream, eventually};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::signer::SignerError;
use super::state::open_checkpoint;
use super::*;

mod keys;
mod tampered;
mod tenants;

const ORIGIN: &str = "quittance.test/log";

/// A log with its keys and its signer's state.
struct Log {
    db: TestDb,
    store: Arc<PgStore>,
    directory: TempDir,
    config: SigningConfig,
}

fn config(directory: &Path) -> SigningConfig {
    SigningConfig {
        log_key_files: vec![directory.join(LOG_KEY_FILE)],
        receipt_keys: vec![ReceiptKeyConfig::of_file(directory.join(RECEIPT_KEY_FILE))],
        state_directory: directory.join(STATE_DIRECTORY),
        interval: Duration::from_millis(100),
        witnesses: WitnessesConfig::default(),
    }
}

fn metrics() -> Metrics {
    Telemetry::new(&TelemetryConfig::default())
        .unwrap()
        .0
        .metrics()
}

impl Log {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let store = Arc::new(db.store().await);
        store.start_workers();
        let directory = tempfile::tempdir().unwrap();
        set_up(directory.path(), ORIGIN).unwrap();
        let config = config(directory.path());
        Self {
            db,
            store,
            directory,
            config,
        }
    }

    fn evidence(&self) -> Evidence {
        let fingerprints = FingerprintKey::new([1; 32]);
        Evidence::load(&self.config, &self.store, fingerprints, &metrics()).unwrap()
    }

    fn signer(&self) -> Signer {
        self.evidence().signer(&self.config).unwrap()
    }

    async fn newest(&self) -> Option<StoredCheckpoint> {
        let keys = self.evidence().keys.verifiers();
        self.store.newest_checkpoint(&keys).await.unwrap()
    }

    fn state_file(&self) -> PathBuf {
        self.config.state_directory.join("signer.toml")
    }

    /// Writes entries, and waits until the tree holds them.
    async fn grow(&self, count: u64) -> TreeHead {
        let head = async || self.store.tree_head().await.unwrap();
        let size = head().await.map_or(0, |head| head.size) + count;
        let client = self.db.client().await;
        for _ in 0..count {
            let row = JournalRow::of(&entry_of_stream("acme", Uuid::new_v4(), 1));
            client.batch_execute(&row.insert()).await.unwrap();
        }
        eventually("the tree has grown", || async {
            head().await.is_some_and(|head| head.size == size)
        })
        .await;
        head().await.unwrap()
    }

    async fn execute(&self, sql: &str) {
        self.db.client().await.batch_execute(sql).await.unwrap();
    }
}

/// A log of so many entries, all of them signed; its signer, and the checkpoint.
async fn signed_log(entries: u64) -> (Log, Signer, StoredCheckpoint) {
    let log = Log::new().await;
    log.grow(entries).await;
    let contender = log.signer();
    let signed = contender.sign_once().await.unwrap();
    (log, contender, signed)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_checkpoint_is_of_the_tree_as_it_grows_and_shown_once_it_is_on_disk() {
    let log = Log::new().await;
    let contender = log.signer();
    let first = contender.sign_once().await.unwrap();
    assert_eq!(first.head.size, 0);
    let head = log.grow(3).await;
    let second = contender.sign_once().await.unwrap();
    assert_eq!(second.head, head);
    let keys = log.evidence().keys.verifiers();
    let note = Note::parse(second.note.as_bytes()).unwrap();
    let signed = SignedCheckpoint::open(&note, &keys).unwrap();
    assert_eq!(signed.checkpoint.origin.as_str(), ORIGIN);
    assert_eq!(signed.checkpoint.root, head.root);
    assert_eq!(log.newest().await.unwrap(), second);
    // Nothing came: nothing is signed.
    assert_eq!(contender.sign_once().await.unwrap(), second);
    // As after a crash between the two: on disk, and not shown.
    log.execute("delete from checkpoints").await;
    contender.sign_once().await.unwrap();
    assert_eq!(log.newest().await.unwrap(), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_database_that_was_set_back_is_never_signed_again() {
    let (log, contender, _) = signed_log(2).await;
    let old = log.store.tree_head().await.unwrap().unwrap();
    log.grow(3).await;
    let signed = contender.sign_once().await.unwrap();
    assert_eq!(signed.head.size, 5);
    log.store.shutdown(Duration::from_secs(60)).await;
    // As an older backup has it.
    log.execute(&format!(
        "delete from tree_heads where tree_size > {}",
        old.size
    ))
    .await;
    log.execute("delete from checkpoints where tree_size > 2")
        .await;
    let refused = contender.sign_once().await.unwrap_err();
    assert!(
        matches!(
            refused,
            SignerError::SetBack {
                stored: 2,
                signed: 5
            }
        ),
        "{refused}"
    );
    // The log has gone on from there, and is longer than what was signed.
    let other = HeadRow::authentic(9, Hash::from_bytes([0xab; 32]));
    log.execute(&other.insert()).await;
    assert!(contender.sign_once().await.is_err());
    let newest = log.newest().await.unwrap();
    assert_eq!(newest.head.size, 2, "nothing was signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_another_tree_of_any_size_is_refused() {
    let (log, contender, signed) = signed_log(4).await;
    log.store.shutdown(Duration::from_secs(60)).await;
    // Every hash of the tree is another, consistently: only what is kept outside the database knows better.
    log.execute(
        "alter table tree_tiles disable trigger all; \
         update tree_tiles set hashes = decode(repeat('cd', 128), 'hex') where level = 0",
    )
    .await;
    let forged = log.store.tree_root(4).await.unwrap();
    assert_ne!(forged, signed.head.root);
    log.execute(&HeadRow::authentic(4, forged).replace()).await;
    let refused = contender.sign_once().await.unwrap_err();
    assert!(
        matches!(refused, SignerError::Forked { size: 4 }),
        "{refused}"
    );
    // And with more entries.
    log.execute("update tree_tiles set hashes = decode(repeat('cd', 160), 'hex') where level = 0")
        .await;
    let root = log.store.tree_root(5).await.unwrap();
    log.execute(&HeadRow::authentic(5, root).insert()).await;
    let refused = contender.sign_once().await.unwrap_err();
    assert!(
        matches!(refused, SignerError::Forked { size: 4 }),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signers_whose_states_differ_sign_one_tree() {
    let log = Log::new().await;
    let contender = log.signer();
    // Another replica, whose directory is not the shared one.
    let state = log.directory.path().join("other");
    let keys = log.evidence().keys;
    StateDirectory::new(&state)
        .init(&keys, None, Utc::now())
        .unwrap();
    let config = SigningConfig {
        state_directory: state,
        ..log.config.clone()
    };
    let other = log.evidence().signer(&config).unwrap();
    let mut seen: Vec<StoredCheckpoint> = Vec::new();
    for round in 0..6 {
        log.grow(2).await;
        let signing = if round % 2 == 0 { &contender } else { &other };
        seen.push(signing.sign_once().await.unwrap());
    }
    for (old, new) in seen.iter().zip(seen.iter().skip(1)) {
        let proof = log.store.consistency_proof(old.head.size, new.head.size);
        let (_, roots) = proof.await.unwrap();
        assert_eq!(roots, [old.head.root, new.head.root]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s76_two_signers_that_are_active_at_once_never_sign_two_trees() {
    let log = Log::new().await;
    let first = log.signer();
    // Its directory is not the shared one, so no lock keeps it from signing at the same time.
    let state = log.directory.path().join("other");
    let keys = log.evidence().keys;
    StateDirectory::new(&state)
        .init(&keys, None, Utc::now())
        .unwrap();
    let config = SigningConfig {
        state_directory: state,
        ..log.config.clone()
    };
    let second = log.evidence().signer(&config).unwrap();
    let stop = CancellationToken::new();
    let growing = async {
        for _ in 0..12 {
            log.grow(1).await;
        }
        stop.cancel();
    };
    let signing = async |signer: &Signer| {
        let mut signed = Vec::new();
        while !stop.is_cancelled() {
            // The other may have shown a larger one in between: then nothing is signed this time.
            signed.extend(signer.sign_once().await.ok());
        }
        signed
    };
    let ((), one, other) = tokio::join!(growing, signing(&first), signing(&second));
    for checkpoint in one.into_iter().chain(other) {
        let head = checkpoint.head;
        if head.size > 0 {
            assert_eq!(log.store.tree_root(head.size).await.unwrap(), head.root);
        }
        assert_eq!(
            open_checkpoint(&checkpoint.note, &keys.verifiers()).unwrap(),
            head
        );
    }
    assert_eq!(first.sign_once().await.unwrap().head.size, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_state_nothing_is_signed_until_somebody_says_from_where() {
    let (log, contender, signed) = signed_log(2).await;
    fs::remove_file(log.state_file()).unwrap();
    let refused = contender.sign_once().await.unwrap_err();
    assert!(
        refused.to_string().contains("quittance audit signer init"),
        "{refused}"
    );
    assert!(matches!(
        log.evidence().signer(&log.config),
        Err(SigningError::State(StateError::Missing { .. }))
    ));
    let state = StateDirectory::new(&log.config.state_directory);
    let keys = log.evidence().keys;
    let garbled = signed.note.replace('2', "3");
    assert!(state.init(&keys, Some(&garbled), Utc::now()).is_err());
    let head = state.init(&keys, Some(&signed.note), Utc::now()).unwrap();
    assert_eq!(head, signed.head);
    assert!(matches!(
        state.init(&keys, None, Utc::now()),
        Err(StateError::Exists { .. })
    ));
    log.grow(1).await;
    assert_eq!(contender.sign_once().await.unwrap().head.size, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_signs_another_waits_its_turn() {
    let log = Log::new().await;
    let lock = StateDirectory::new(&log.config.state_directory)
        .lock()
        .unwrap();
    let refused = log.signer().sign_once().await.unwrap_err();
    assert!(matches!(refused, SignerError::State(StateError::Locked)));
    drop(lock);
    log.signer().sign_once().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s79_while_a_key_replaces_another_checkpoints_are_signed_by_both() {
    let mut log = Log::new().await;
    let old = log.evidence().keys.verifiers();
    log.grow(1).await;
    log.signer().sign_once().await.unwrap();
    let file = log.directory.path().join("log-2.key");
    let new = new_key(&file, old[0].name()).unwrap();
    log.config.log_key_files.insert(0, file);
    log.grow(1).await;
    let both = log.signer().sign_once().await.unwrap();
    // Whoever knows either key takes it, and ignores the other.
    for keys in [&old[..], &[new.clone()][..]] {
        assert_eq!(open_checkpoint(&both.note, keys).unwrap(), both.head);
    }
    // The old key is gone; what follows is of the new one alone.
    log.config.log_key_files.truncate(1);
    log.grow(1).await;
    let last = log.signer().sign_once().await.unwrap();
    assert_eq!(last.head.size, 3);
    assert!(open_checkpoint(&last.note, &old).is_err());
    assert_eq!(open_checkpoint(&last.note, &[new]).unwrap(), last.head);
}

#[test]
fn a_checkpoint_of_another_log_is_no_state() {
    let directory = tempfile::tempdir().unwrap();
    set_up(directory.path(), ORIGIN).unwrap();
    let keys = LogKeys::load(&config(directory.path())).unwrap();
    let other = Checkpoint {
        origin: KeyName::new("quittance.test/other").unwrap(),
        size: 3,
        root: quittance_evidence::tree::empty_root(),
    };
    let note = other.sign(&keys.log()).unwrap().to_string();
    assert!(open_checkpoint(&note, &keys.verifiers()).is_err());
}
