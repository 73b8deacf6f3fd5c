//! Rows that somebody put into the database who can write to it: positions and cosignatures are worth what proves them, and
//! forged ones are passed over, with an alarm, and hide nothing (scenario 75).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::similar_names,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use quittance_domain::ids::PaymentId;
use quittance_domain::ports::{Commit, Store as _, StoreError};
use quittance_evidence::note::{KeyName, Note, SigningKey, VerifierKey, WitnessKey};
use quittance_evidence::{Checkpoint, Hash, SignedCheckpoint, leaf_hash};
use quittance_store::{
    MergedEntry, PgStore, StoredCheckpoint, StoredCosignature, TreeDamage, TreeHead, TreeReadError,
    WorkerSettings, witness_id,
};
use quittance_test_support::{
    Alarms, JournalRow, Story, TestDb, entry_of_stream, eventually, tenant,
};
use tokio_postgres::Client;
use uuid::Uuid;

const ORIGIN: &str = "log.test/quittance";
/// Entries of the payment.
const LAST: u64 = 4;

async fn strangers(client: &Client, count: usize) {
    for _ in 0..count {
        let row = JournalRow::of(&entry_of_stream("acme", Uuid::new_v4(), 1));
        client.batch_execute(&row.insert()).await.unwrap();
    }
}

/// A payment of four entries among others, in the tree; nothing is sequenced any more.
struct Paid {
    store: PgStore,
    alarms: Arc<Alarms>,
    client: Client,
    payment: PaymentId,
    head: TreeHead,
    _db: TestDb,
}

impl Paid {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let (store, alarms) = Alarms::watch(db.config()).await;
        store.start_workers();
        let client = db.client().await;
        let (mut story, accepted) = Story::accept("acme", "create", 1_000);
        let rest = [
            story.authorized(),
            story.capture("capture", 400),
            story.captured(),
        ];
        strangers(&client, 300).await;
        for change in std::iter::once(accepted).chain(rest) {
            assert_eq!(store.commit(change).await, Ok(Commit::Committed));
            strangers(&client, 3).await;
        }
        let inside = "select coalesce((select max(tree_size) from tree_heads), 0) = (select count(*) from journal)";
        eventually("every entry is in the tree", || async {
            client.query_one(inside, &[]).await.unwrap().get(0)
        })
        .await;
        store.shutdown(Duration::from_secs(60)).await;
        assert!(alarms.taken().is_empty());
        let (store, alarms) = Alarms::watch(db.config()).await;
        let head = store.tree_head().await.unwrap().unwrap();
        Self {
            store,
            alarms,
            client,
            payment: story.payment.id,
            head,
            _db: db,
        }
    }

    async fn forge(&self, sql: &str) {
        let id = self.payment.to_string();
        let own = "stream_id = $payment::uuid".replace("$payment", &format!("'{id}'"));
        let sql = sql.replace("$own", &own);
        self.client.batch_execute(&sql).await.unwrap();
    }

    async fn merged(&self) -> Result<Vec<MergedEntry>, TreeReadError> {
        let size = self.head.size;
        let merged = self.store.merged_entries(self.payment, 0, LAST, size, 256);
        let merged = merged.await?;
        assert!(merged.done);
        Ok(merged.entries)
    }

    /// The payment is proved whole, whatever was forged.
    async fn assert_proved(&self, expected: &[MergedEntry]) {
        let merged = self.merged().await.unwrap();
        assert_eq!(merged, expected);
        let leaves: Vec<_> = merged
            .iter()
            .map(|entry| (leaf_hash(&entry.leaf), entry.position))
            .collect();
        let proved = self.store.inclusion_proofs(&leaves, self.head.size).await;
        assert_eq!(proved.unwrap().1, self.head.root);
        let place = self.store.place_of(self.payment, LAST, false).await;
        assert_eq!(place.unwrap(), expected.last().map(|last| last.position));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_forged_positions_are_passed_over_and_the_entries_are_proved_where_they_are() {
    let paid = Paid::new().await;
    let genuine = paid.merged().await.unwrap();
    assert_eq!(genuine.len(), 4);
    paid.assert_proved(&genuine).await;
    assert_eq!(paid.alarms.taken_of("position"), 0);
    paid.forge("create table saved as select * from journal_positions")
        .await;
    // Any of them could make a bundle fail without a sound, or leave entries out that are there.
    let forgeries = [
        "update journal_positions set position = 9000000000000000 where $own and entity_seq = 4",
        "update journal_positions set position = 9000000000000000 + entity_seq where $own and entity_seq >= 3",
        "update journal_positions set position = position + 5000000 where $own",
        "delete from journal_positions where $own and entity_seq = 4",
        "delete from journal_positions where $own",
        "update journal_positions set position = -1 - position where $own; \
         update journal_positions p set position = -1 - o.position from journal_positions o \
         where p.position < 0 and o.position < 0 and o.entity_seq = 5 - p.entity_seq",
        // Each of its entries counts twice, and once in another's place.
        "insert into journal_positions select position + 1000000, arrival, entry_id, stream_id, entity_seq, tenant_id \
         from journal_positions where $own",
        "insert into journal_positions select -1 - n, arrival, entry_id, stream_id, entity_seq, tenant_id \
         from journal_positions cross join generate_series(1, 100) n where $own and entity_seq = 2",
    ];
    let without = "alter table journal_positions drop constraint journal_positions_position_not_negative; \
                   alter table journal_positions drop constraint journal_positions_arrival_key";
    paid.forge(without).await;
    for forgery in forgeries {
        paid.forge(forgery).await;
        paid.assert_proved(&genuine).await;
        assert!(paid.alarms.taken_of("position") > 0, "{forgery}");
        paid.forge("truncate journal_positions; insert into journal_positions select * from saved")
            .await;
    }
    paid.assert_proved(&genuine).await;
    assert_eq!(paid.alarms.taken_of("position"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_that_is_gone_or_not_in_the_tree_is_an_alarm_and_no_statement_without_it() {
    let paid = Paid::new().await;
    let acme = tenant("acme");
    // The index is no proof of which entries there are.
    paid.forge("update journal set payment_id = null where $own and entity_seq = 4")
        .await;
    let newest = paid.store.newest_entry(Some(&acme), paid.payment).await;
    assert_eq!(newest, Ok(Some(LAST)));
    paid.forge("update journal set leaf = 'other' where $own and entity_seq = 4")
        .await;
    for error in [
        paid.merged().await.unwrap_err(),
        paid.store
            .place_of(paid.payment, LAST, false)
            .await
            .unwrap_err(),
    ] {
        assert!(
            matches!(error, TreeReadError::Damaged(TreeDamage::Position)),
            "{error}"
        );
    }
    assert!(paid.alarms.taken_of("position") >= 2);
    paid.forge("delete from journal where $own and entity_seq = 4")
        .await;
    let newest = paid.store.newest_entry(Some(&acme), paid.payment).await;
    assert_eq!(newest, Ok(Some(LAST)), "the payment's row says so");
    let gone = paid.store.place_of(paid.payment, LAST, false).await;
    assert!(matches!(
        gone,
        Err(TreeReadError::Damaged(TreeDamage::EntryMissing))
    ));
    let other = tenant("other");
    let nobodys = paid.store.newest_entry(Some(&other), paid.payment).await;
    assert_eq!(nobodys, Ok(None));
}

/// What the application's own role can do: rows behind a payment's last entry, which have no position ever.
#[tokio::test(flavor = "multi_thread")]
async fn s75_rows_put_in_behind_a_payments_newest_entry_do_not_keep_its_evidence_back() {
    let paid = Paid::new().await;
    let acme = tenant("acme");
    let genuine = paid.merged().await.unwrap();
    let columns =
        "tenant_id, payment_id, event_type, result, actor, source, occurred_at, leaf, leaf_hash";
    let put_in = |number: u64, mac: &str, arrival: &str| {
        format!(
            "set role quittance_app; insert into journal (stream_id, entity_seq, entry_id, {columns}, mac, mac_key_id, arrival) \
             select stream_id, {number}, entry_id, {columns}, {mac}, {arrival} from journal where $own and entity_seq = 4; \
             reset role"
        )
    };
    // Bytes of ours under another number, in whosever place, and what nobody wrote; the sequencer comes to none of them.
    for (number, mac, arrival) in [
        (LAST + 1, "mac, mac_key_id", "4000000000000000000"),
        (LAST + 2, "mac, mac_key_id", "arrival"),
        (LAST + 3, "sha256('x'), mac_key_id", "1"),
        (LAST + 4, "mac, 'k999'", "1"),
    ] {
        paid.forge(&put_in(number, mac, arrival)).await;
        let newest = paid.store.newest_entry(Some(&acme), paid.payment).await;
        assert_eq!(newest, Ok(Some(LAST)));
        assert!(paid.alarms.taken_of("entry") > 0);
        paid.assert_proved(&genuine).await;
        assert!(paid.alarms.taken_of("entry") > 0);
        paid.forge("delete from journal where $own and entity_seq > 4")
            .await;
    }
    // More than anybody looks through.
    let many = put_in(LAST + 1, "mac, mac_key_id", "arrival");
    let many = many.replace(", 5, entry_id", ", n, entry_id");
    let many = many.replace(
        "from journal where",
        "from journal, generate_series(5, 5000) n where",
    );
    paid.forge(&many).await;
    let newest = paid.store.newest_entry(Some(&acme), paid.payment).await;
    assert_eq!(newest, Ok(Some(LAST)));
    paid.assert_proved(&genuine).await;
    assert!(paid.alarms.taken_of("entry") > 4_000);
    // One of ours is missed all the same, though the payment's row was set back.
    paid.forge("delete from journal where $own and entity_seq > 4; update payments set version = 2 where payment_id in \
                (select stream_id from journal where $own)")
        .await;
    let newest = paid.store.newest_entry(Some(&acme), paid.payment).await;
    assert_eq!(newest, Ok(Some(LAST)));
    paid.forge("update journal set leaf = 'other' where $own and entity_seq = 4")
        .await;
    let merged = paid
        .store
        .merged_entries(paid.payment, 0, 3, paid.head.size, 256);
    assert!(matches!(
        merged.await,
        Err(TreeReadError::Damaged(TreeDamage::Position))
    ));
}

/// An outcome that cannot be recorded, since somebody took its number, is not only an error of the call.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_row_that_took_the_number_of_a_payments_next_entry_is_told_of() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    let client = db.client().await;
    let (mut story, accepted) = Story::accept("acme", "create", 1_000);
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    let forged = JournalRow {
        mac: vec![7; 32],
        ..JournalRow::of(&entry_of_stream("acme", story.payment.id.0, 2))
    };
    client.batch_execute(&forged.insert()).await.unwrap();
    let authorized = story.authorized();
    let refused = store.commit(authorized.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(alarms.taken_of("entry"), 1);
    let removed = format!("delete from journal where entry_id = '{}'", forged.entry_id);
    client.batch_execute(&removed).await.unwrap();
    assert_eq!(
        store.commit(authorized.clone()).await,
        Ok(Commit::Committed)
    );
    // The same again is no second one, and no alarm.
    assert_eq!(store.commit(authorized).await, Ok(Commit::Committed));
    assert!(alarms.taken().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_on_its_way_into_the_tree_is_no_alarm() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    let (story, accepted) = Story::accept("acme", "create", 1_000);
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    let payment = story.payment.id;
    for eagerly in [false, true] {
        assert_eq!(store.place_of(payment, 1, eagerly).await.unwrap(), None);
    }
    store.start_workers_with(WorkerSettings {
        integrate: false,
        ..WorkerSettings::default()
    });
    let client = db.client().await;
    eventually("it has its position", || async {
        let placed = "select count(*) = 1 from journal_positions";
        client.query_one(placed, &[]).await.unwrap().get(0)
    })
    .await;
    for eagerly in [false, true] {
        assert_eq!(store.place_of(payment, 1, eagerly).await.unwrap(), None);
    }
    let merged = store.merged_entries(payment, 0, 0, 0, 256).await.unwrap();
    assert!(merged.entries.is_empty() && merged.done);
    assert_eq!(alarms.taken_of("position"), 0);
    store.shutdown(Duration::from_secs(60)).await;
}

fn log_key() -> SigningKey {
    SigningKey::from_seed(KeyName::new(ORIGIN).unwrap(), &[1; 32])
}

fn witness(name: &str) -> WitnessKey {
    SigningKey::from_seed(KeyName::new(name).unwrap(), &[7; 32]).into()
}

/// A log with checkpoints that a witness cosigned.
struct Cosigned {
    store: PgStore,
    alarms: Arc<Alarms>,
    client: Client,
    keys: Vec<VerifierKey>,
    witnesses: Vec<WitnessKey>,
    _db: TestDb,
}

impl Cosigned {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let (store, alarms) = Alarms::watch(db.config()).await;
        Self {
            store,
            alarms,
            client: db.client().await,
            keys: vec![log_key().verifier().clone()],
            witnesses: ["a.test/w", "b.test/w"].map(witness).to_vec(),
            _db: db,
        }
    }

    fn published(&self) -> Vec<VerifierKey> {
        let keys = self.witnesses.iter().map(WitnessKey::verifier);
        keys.cloned().collect()
    }

    async fn signed(&self, size: u64) -> (StoredCheckpoint, Checkpoint) {
        let root = Hash::of(&size.to_be_bytes());
        let checkpoint = Checkpoint {
            origin: KeyName::new(ORIGIN).unwrap(),
            size,
            root,
        };
        let stored = StoredCheckpoint {
            head: TreeHead { size, root },
            note: checkpoint.sign(&[&log_key()]).unwrap().to_string(),
            signed_at: Utc::now().trunc_subsecs(6),
            previous: None,
        };
        self.store.keep_checkpoint(&stored).await.unwrap();
        (stored, checkpoint)
    }

    async fn cosign(&self, (stored, checkpoint): &(StoredCheckpoint, Checkpoint), by: usize) {
        let witness = &self.witnesses[by];
        let cosignature = StoredCosignature {
            head: stored.head,
            witness: witness_id(witness.verifier()),
            cosigned_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            line: checkpoint.cosign(witness, 1_800_000_000).to_string(),
        };
        self.store.keep_cosignature(&cosignature, 0).await.unwrap();
    }

    /// Within the rights of the application's role.
    async fn insert(&self, size: &str, witness: &WitnessKey, root: &str, line: &str, rows: u32) {
        let id = witness_id(witness.verifier());
        let sql = format!(
            "set role quittance_app; insert into cosignatures (tree_size, witness, root_hash, cosigned_at, line) \
             select {size}, '{id}', {root}, now(), {line} from generate_series(1, {rows}) n; reset role"
        );
        self.client.batch_execute(&sql).await.unwrap();
    }

    /// The newest cosigned checkpoint, as a reader opens it who knows every key; and who cosigned it.
    async fn newest(&self) -> Option<(u64, Vec<String>)> {
        let witnesses = self.published();
        let newest = self
            .store
            .newest_cosigned_checkpoint(&self.keys, &witnesses);
        let newest = newest.await.unwrap()?;
        let note = Note::parse(newest.note.as_bytes()).unwrap();
        let keys = [self.keys.clone(), witnesses].concat();
        let signed = SignedCheckpoint::open(&note, &keys).unwrap();
        assert_eq!(
            note.signatures().len(),
            signed.signers.len() + signed.cosigners.len(),
            "nothing else is under it"
        );
        let cosigned = signed.cosigned().map(|(name, _)| name.to_string());
        Some((signed.checkpoint.size, cosigned.collect()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_forged_cosignatures_neither_hide_genuine_ones_nor_spoil_a_checkpoint() {
    let log = Cosigned::new().await;
    let old = log.signed(5).await;
    log.cosign(&old, 0).await;
    assert_eq!(log.newest().await, Some((5, vec!["a.test/w".into()])));
    assert_eq!(log.alarms.taken_of("cosignature"), 0);

    let newest = log.signed(9).await;
    let root = "(select root_hash from checkpoints where tree_size = 9)";
    let [a, b] = [&log.witnesses[0], &log.witnesses[1]];
    // Before the witness's own: its place is not taken.
    let made_up = newest.1.cosign(&witness("c.test/w"), 1).to_string();
    let renamed = made_up.replace("c.test/w", "a.test/w");
    let of_old = old.1.cosign(a, 1_800_000_001).to_string();
    let by_log = log_key_line(&newest.0.note);
    for line in [&made_up, &renamed, &of_old, &by_log] {
        log.insert("9", a, root, &format!("'{line}'"), 1).await;
    }
    // Larger than anything, and many: no bound on what is read hides what is behind.
    let line = format!("'{renamed}' || n || E'\\n'");
    log.insert("9000000000000000000", a, "sha256('x')", &line, 200)
        .await;
    log.insert("9", a, "sha256('x')", "n || ' nothing'", 20)
        .await;
    // One witness's are all hidden by more than anybody reads, and the other's are not.
    log.insert("9", b, root, "n || ' nothing'", 300).await;
    assert_eq!(log.newest().await, Some((5, vec!["a.test/w".into()])));
    assert!(log.alarms.taken_of("cosignature") > 200);
    log.cosign(&newest, 0).await;
    log.cosign(&newest, 1).await;
    let last = log.store.last_cosigned(&newest.1.origin, a.verifier());
    assert_eq!(last.await.unwrap().map(|it| it.head), Some(newest.0.head));
    assert_eq!(log.newest().await, Some((9, vec!["a.test/w".into()])));
    assert!(log.alarms.taken_of("cosignature") > 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_what_was_written_under_a_checkpoint_is_not_served_with_it() {
    let log = Cosigned::new().await;
    let signed = log.signed(5).await;
    log.cosign(&signed, 1).await;
    let forged = signed.1.cosign(&witness("c.test/w"), 1).to_string();
    let lines = ["a.test/w", "b.test/w", "d.test/w"].map(|name| forged.replace("c.test/w", name));
    let sql = format!("update checkpoints set note = note || '{}'", lines.concat());
    log.client.batch_execute(&sql).await.unwrap();
    let newest = log.store.newest_checkpoint(&log.keys).await.unwrap();
    assert_eq!(newest, Some(signed.0));
    assert_eq!(log.newest().await, Some((5, vec!["b.test/w".into()])));
}

/// A witness that was away while two keys signed knows only what the old one did: nobody forged that.
#[tokio::test(flavor = "multi_thread")]
async fn s79_what_a_replaced_key_signed_is_passed_over_without_an_alarm() {
    let mut log = Cosigned::new().await;
    let old = log.signed(5).await;
    log.cosign(&old, 0).await;
    assert_eq!(log.newest().await, Some((5, vec!["a.test/w".into()])));
    let name = KeyName::new(ORIGIN).unwrap();
    let new = SigningKey::from_seed(name, &[2; 32]);
    log.keys = vec![new.verifier().clone()];
    assert_eq!(log.newest().await, None);
    let newest = log.store.newest_checkpoint(&log.keys).await.unwrap();
    assert_eq!(newest, None);
    assert_eq!(log.alarms.taken_of("checkpoint"), 0);
    // Its signature destroyed, it is not as it was stored.
    let spoilt = format!(
        "update checkpoints set note = replace(note, '\u{2014} {ORIGIN} ', '\u{2014} {ORIGIN} AAAA')"
    );
    log.client.batch_execute(&spoilt).await.unwrap();
    assert_eq!(log.newest().await, None);
    assert_eq!(log.alarms.taken_of("checkpoint"), 1);
    // And a stranger's has no MAC of ours.
    let stranger = "insert into checkpoints (tree_size, signed_at, root_hash, note) \
                    select 6, signed_at, root_hash, replace(note, E'\\n5\\n', E'\\n6\\n') from checkpoints";
    log.client.batch_execute(stranger).await.unwrap();
    let newest = log.store.newest_checkpoint(&log.keys).await.unwrap();
    assert_eq!(newest, None);
    assert_eq!(log.alarms.taken_of("checkpoint"), 2);
}

/// When it was signed is not in the note: a genuine one, inserted again, would be served with any time.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_checkpoint_is_served_with_the_time_that_it_was_stored_with() {
    let log = Cosigned::new().await;
    let signed = log.signed(5).await;
    // What the application's own role can do.
    let again = "set role quittance_app; \
                 insert into checkpoints (tree_size, signed_at, root_hash, note, mac, mac_key_id) \
                 select tree_size, '2021-01-01', root_hash, note, mac, mac_key_id from checkpoints; reset role";
    log.client.batch_execute(again).await.unwrap();
    let newest = log.store.newest_checkpoint(&log.keys).await.unwrap();
    assert_eq!(newest, Some(signed.0));
    assert_eq!(log.alarms.taken_of("checkpoint"), 1);
    // What a superuser can: then there is none, and nothing old looks fresh.
    let later = "update checkpoints set signed_at = '2199-01-01' where signed_at > '2022-01-01'";
    log.client.batch_execute(later).await.unwrap();
    let newest = log.store.newest_checkpoint(&log.keys).await.unwrap();
    assert_eq!(newest, None);
    assert!(log.alarms.taken_of("checkpoint") > 1);
}

/// The line of the log's own key under a note, with its signature spoilt.
fn log_key_line(note: &str) -> String {
    let line = note.lines().last().unwrap();
    let (start, end) = line.split_at(line.len() - 20);
    let spoilt: String = end.chars().rev().collect();
    format!("{start}{spoilt}\n")
}

/// One that was not written by the service is refused, and nobody waits for it; one that is only said to be refused is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_that_is_only_said_to_be_refused_still_counts_as_waiting() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    let client = db.client().await;
    strangers(&client, 1).await;
    let forged = JournalRow {
        mac: vec![7; 32],
        ..JournalRow::of(&entry_of_stream("acme", Uuid::new_v4(), 1))
    };
    client.batch_execute(&forged.insert()).await.unwrap();
    let done = "select (select count(*) from refused_entries) = 1 and \
                coalesce((select max(tree_size) from tree_heads), 0) = 1";
    eventually("one is in the tree, and one is refused", || async {
        client.query_one(done, &[]).await.unwrap().get(0)
    })
    .await;
    assert_eq!(store.oldest_pending_entry_age().await, Ok(0.0));
    store.shutdown(Duration::from_secs(60)).await;
    assert_eq!(alarms.taken_of("entry"), 1);

    let (store, alarms) = Alarms::watch(db.config()).await;
    let waiting = JournalRow::of(&entry_of_stream("acme", Uuid::new_v4(), 1));
    client.batch_execute(&waiting.insert()).await.unwrap();
    let id = waiting.entry_id;
    for hidden in [
        format!(
            "insert into refused_entries select arrival, entry_id, stream_id, entity_seq, 'MAC_WRONG' \
             from journal where entry_id = '{id}'"
        ),
        "update sequencer_head set low_arrival = 1000000".to_owned(),
        format!(
            "update journal set occurred_at = now() + interval '1 year' where entry_id = '{id}'"
        ),
    ] {
        client.batch_execute(&hidden).await.unwrap();
        let age = store.oldest_pending_entry_age().await.unwrap();
        assert!(age > 0.0, "{hidden}");
    }
    // While it was said to be further than anything arrived.
    assert_eq!(alarms.taken_of("sequencer"), 2);
    let true_again = "update sequencer_head set low_arrival = 1";
    client.batch_execute(true_again).await.unwrap();

    // Not all of so many are judged at each look: that is told, too.
    let flood = "insert into journal select (f).* from (select copied(j, n) as f from journal j, \
                 generate_series(1, 4200) n where mac = decode(repeat('07', 32), 'hex')) c; \
                 insert into refused_entries select arrival, entry_id, stream_id, entity_seq, 'MAC_WRONG' from journal \
                 on conflict do nothing";
    let copied = "create function copied(j journal, n int) returns journal language plpgsql as $$ begin \
                  j.entry_id := gen_random_uuid(); j.stream_id := j.entry_id; j.arrival := -n; return j; end $$";
    client.batch_execute(copied).await.unwrap();
    client.batch_execute(flood).await.unwrap();
    store.oldest_pending_entry_age().await.unwrap();
    assert_eq!(alarms.taken_of("entry"), 1);
}
