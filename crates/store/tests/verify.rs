//! Verification of the whole log, and what somebody with every right on the database may do to it (scenario 75).
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

mod signing;
mod tampering;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{SubsecRound as _, TimeDelta, Utc};
use futures::future::join_all;
use quittance_domain::change::Change;
use quittance_domain::context::{Actor, ActorKind, Caller, Instance, Origin, TraceIds};
use quittance_domain::decide::{Unasked, unasked};
use quittance_domain::ids::{
    AttemptId, EntryId, PaymentId, ProviderReference, TenantId, TransactionId,
};
use quittance_domain::journal::Stamp;
use quittance_domain::money::Money;
use quittance_domain::payment::PaymentRecord;
use quittance_domain::ports::{Commit, Store as _, StoreError};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::transaction::{Fact, FactKind, TransactionKind};
use quittance_domain::verification::{Fault, Mismatch, TreeFault, Trusted};
use quittance_evidence::Hash;
use quittance_simulation::world::World;
use quittance_store::{
    PgStore, TreeHead, VERIFY_PATIENCE, VerifyError, VerifyEvent, VerifyProgress, VerifySettings,
    VerifySummary, measured_columns,
};
use quittance_test_support::{TestDb, eventually};
use tokio::sync::mpsc;
use tokio_postgres::Client;
use uuid::Uuid;

use tampering::{Kind, Reach};

/// Worlds whose changes are committed beside each other.
const WORLDS_AT_ONCE: u64 = 32;

/// Entries below one hash of a tile of level 2.
const LEVEL_2_ENTRIES: usize = 65_536;

/// Says that a kind of tampering was not tried, past the test harness, which shows nothing of a test that passes.
fn not_tried(kind: &Kind) {
    let line = format!(
        "\nNOT TRIED in so small a log: {} (QUITTANCE_TAMPER_ENTRIES=100000 does)\n",
        kind.name
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A number of the environment, for the full run.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The changes that payments went through in a random schedule, as the product's own flows made them.
fn changes(store: &PgStore, seed: u64) -> Vec<Change> {
    let key = store.keys().fingerprint_key();
    let world = World::new(seed).with_fingerprint_key(key).with_customers();
    world.store.keep_offers();
    assert!(world.live_in_trouble(), "seed {seed}");
    let committed = world.store.offers().into_iter();
    let committed = committed.filter(|(_, answer)| answer == &Ok(Commit::Committed));
    committed.map(|(change, _)| change).collect()
}

async fn commit_world(store: &PgStore, seed: u64) -> usize {
    let changes = changes(store, seed);
    let count = changes.len();
    for change in changes {
        // One whose answer was lost is offered again.
        store.commit(change).await.unwrap();
    }
    count
}

/// A log of at least so many entries, each with its position and in the tree.
async fn grow(store: &PgStore, client: &Client, entries: usize) {
    grow_from(store, client, 0, entries).await;
}

async fn grow_from(store: &PgStore, client: &Client, mut seed: u64, entries: usize) {
    let mut count = 0;
    while count < entries {
        let worlds = (seed..seed + WORLDS_AT_ONCE).map(|seed| commit_world(store, seed));
        count += join_all(worlds).await.into_iter().sum::<usize>();
        seed += WORLDS_AT_ONCE;
    }
    sequenced(client).await;
}

async fn sequenced(client: &Client) {
    let without = "select count(*) from journal j where not exists \
                   (select 1 from journal_positions p where p.arrival = j.arrival)";
    eventually("every entry has a position", || async {
        client
            .query_one(without, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
    let outside = "select (select count(*) from journal_positions) - \
                   coalesce((select max(tree_size) from tree_heads), 0)";
    eventually("every entry is in the tree", || async {
        client
            .query_one(outside, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
}

async fn run(
    store: &PgStore,
    lanes: usize,
    resume: VerifyProgress,
    trusted: &Trusted,
) -> (Result<VerifySummary, VerifyError>, Vec<VerifyEvent>) {
    let (sender, mut events) = mpsc::channel(16);
    let settings = VerifySettings {
        lanes,
        resume,
        trusted: trusted.clone(),
        patience: VERIFY_PATIENCE,
    };
    let running = store.verify_log(settings, sender);
    let listening = async {
        let mut heard = Vec::new();
        while let Some(event) = events.recv().await {
            heard.push(event);
        }
        heard
    };
    tokio::join!(running, listening)
}

/// What is found, and the summary; the numbers agree.
async fn verify(store: &PgStore) -> (Vec<Mismatch>, VerifySummary) {
    verify_against(store, &Trusted::default()).await
}

async fn verify_against(store: &PgStore, trusted: &Trusted) -> (Vec<Mismatch>, VerifySummary) {
    let (summary, events) = run(store, 2, VerifyProgress::default(), trusted).await;
    let summary = summary.unwrap();
    let found: Vec<Mismatch> = events
        .into_iter()
        .filter_map(|event| match event {
            VerifyEvent::Mismatch(mismatch) => Some(*mismatch),
            VerifyEvent::Progress { .. } => None,
        })
        .collect();
    assert_eq!(u64::try_from(found.len()).unwrap(), summary.mismatches);
    (found, summary)
}

async fn number(client: &Client, sql: &str) -> u64 {
    let number: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    number.try_into().unwrap()
}

async fn grown(entries: usize) -> (TestDb, PgStore, Client) {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let client = db.client().await;
    grow(&store, &client, entries).await;
    (db, store, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untampered_log_is_verified_whole_and_nothing_is_reported() {
    let (_db, store, client) = grown(3_000).await;
    let (found, summary) = verify(&store).await;
    assert_eq!(found, []);
    let entries = number(&client, "select count(*) from journal").await;
    let payments = number(&client, "select count(*) from payments").await;
    assert_eq!((summary.entries, summary.payments), (entries, payments));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_is_intact() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (found, summary) = verify(&store).await;
    assert_eq!((found.as_slice(), summary.entries), (&[][..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_meanwhile_is_never_reported() {
    let (_db, store, client) = grown(500).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut seed = (writer + 1) * 1_000_000;
                while !stop.load(Ordering::Relaxed) {
                    commit_world(&store, seed).await;
                    seed += 1;
                }
            })
        })
        .collect();
    let before = number(&client, "select count(*) from journal").await;
    let sign = async || {
        while !stop.load(Ordering::Relaxed) {
            signing::sign(&store, &[1]).await;
        }
    };
    let check = async || {
        for _ in 0..setting("QUITTANCE_VERIFY_ROUNDS", 12) {
            let trusted = signing::newest(&store).await;
            let (found, _) = verify_against(&store, &trusted).await;
            assert_eq!(found, []);
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(sign(), check());
    for writer in writers {
        writer.await.unwrap();
    }
    let after = number(&client, "select count(*) from journal").await;
    assert!(after > before, "nothing was committed meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_verification_runs_at_a_time_and_an_interrupted_one_goes_on() {
    let (db, store, client) = grown(3_000).await;
    let (sender, mut events) = mpsc::channel(1);
    let settings = VerifySettings {
        lanes: 1,
        resume: VerifyProgress::default(),
        trusted: Trusted::default(),
        patience: VERIFY_PATIENCE,
    };
    let running = tokio::spawn({
        let store = store.clone();
        async move { store.verify_log(settings, sender).await }
    });
    assert!(events.recv().await.is_some());
    let other = db.store().await;
    let (busy, _) = run(&other, 1, VerifyProgress::default(), &Trusted::default()).await;
    assert_eq!(busy, Err(VerifyError::Busy));
    // Nobody listens any more: it ends.
    drop(events);
    assert!(running.await.unwrap().is_err());

    // From wherever it was told to go on, nothing is left out.
    let (summary, events) = run(&store, 1, VerifyProgress::default(), &Trusted::default()).await;
    let whole = summary.unwrap();
    let points = events.iter().filter_map(|event| match event {
        VerifyEvent::Progress { at, .. } => Some(*at),
        VerifyEvent::Mismatch(_) => None,
    });
    let middle =
        "select stream_id::text from journal order by stream_id, entity_seq offset 1500 limit 1";
    let middle: String = client.query_one(middle, &[]).await.unwrap().get(0);
    let before = format!("select count(*) from journal where stream_id < '{middle}'");
    let paid = format!("select count(*) from payments where payment_id < '{middle}'");
    let half = VerifyProgress {
        streams_from: Some(middle.parse().unwrap()),
        entries: number(&client, &before).await,
        payments: number(&client, &paid).await,
        mismatches: 0,
        begun: true,
    };
    for point in points.chain([half]) {
        let (summary, _) = run(&store, 3, point, &Trusted::default()).await;
        assert_eq!(summary, Ok(whole.clone()), "from {point:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_does_not_read_does_not_keep_others_from_verifying() {
    let (db, store, _client) = grown(200).await;
    // One event is taken, and the next has nowhere to go.
    let (sender, events) = mpsc::channel(1);
    let settings = VerifySettings {
        lanes: 1,
        resume: VerifyProgress::default(),
        trusted: Trusted::default(),
        patience: Duration::from_millis(1),
    };
    let ended = store.verify_log(settings, sender).await;
    assert_eq!(ended, Err(VerifyError::Store(StoreError::Unavailable)));
    let other = db.store().await;
    let (summary, _) = run(&other, 1, VerifyProgress::default(), &Trusted::default()).await;
    assert_eq!(summary.unwrap().mismatches, 0);
    drop(events);
}

#[tokio::test]
async fn a_verification_that_is_yet_to_begin_is_due() {
    let db = TestDb::new().await;
    let (store, client) = (db.store().await, db.client().await);
    let every = Duration::from_secs(3_600);
    assert_eq!(store.claim_verification(every).await, Ok(false));
    let never = "update verification_schedule set started_at = 'infinity'";
    client.batch_execute(never).await.unwrap();
    assert_eq!(store.claim_verification(every).await, Ok(true));
    assert_eq!(store.claim_verification(every).await, Ok(false));
}

/// What the service left is compared with what it found again: a row that was changed in between shows in the entry of
/// the change that was made of it, though every later comparison fits.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_row_that_was_changed_and_then_built_upon_is_detected_in_the_entry() {
    let (_db, store, client) = grown(200).await;
    let captured = "select payment_id::text, tenant_id from payments where captured > refunded + refund_pending \
                    and state = 'CAPTURED' order by payment_id limit 2";
    let rows = client.query(captured, &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    let columns = [
        "authorized = authorized + 1000000, captured = captured + 1000000",
        "merchant_reference = 'another order'",
    ];
    for (row, columns) in rows.iter().zip(columns) {
        let id: String = row.get(0);
        let tenant = TenantId::parse(row.get::<_, String>(1)).unwrap();
        let change = format!("update payments set {columns} where payment_id = '{id}'");
        client.batch_execute(&change).await.unwrap();
        let payment = PaymentId(id.parse().unwrap());
        let record = store.payment(&tenant, payment).await.unwrap().unwrap();
        // The provider tells of a refund: nothing is sent for it.
        let change = refund_told(&record);
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    sequenced(&client).await;
    let (found, _) = verify(&store).await;
    let codes = |row: &tokio_postgres::Row| -> Vec<&str> {
        let id = row.get::<_, String>(0);
        let own = found
            .iter()
            .filter(|it| it.payment.is_some_and(|it| it.to_string() == id));
        assert!(own.clone().all(|it| it.entry.is_some()));
        own.map(|it| it.fault.code()).collect()
    };
    // What was authorized, what was captured, and so what is in excess.
    let three = ["REPLAY_DIFFERS"; 3];
    assert_eq!(
        codes(&rows[0]),
        [&["ROWS_CHANGED_BEFORE"], &three[..]].concat()
    );
    assert_eq!(codes(&rows[1]), ["ROWS_CHANGED_BEFORE"]);
    assert_eq!(found.len(), 5);
}

/// A refund that was made in the provider's dashboard.
fn refund_told(record: &PaymentRecord) -> Change {
    let caller = Caller {
        tenant: record.payment.tenant.clone(),
        actor: Actor {
            kind: ActorKind::Service,
            id: "webhooks".into(),
            auth_method: "",
        },
        origin: Origin::default(),
        remote: None,
        deadline: None,
    };
    let instance = Instance {
        service: "quittance",
        version: "0",
        instance: "test".into(),
    };
    let stamp = Stamp {
        now: Utc::now().trunc_subsecs(6),
        entry_id: EntryId(Uuid::now_v7()),
        transaction_id: TransactionId(Uuid::now_v7()),
        attempt_id: AttemptId(Uuid::now_v7()),
        leaf_salt: [1; 16],
        digest_salt: [2; 16],
        sender_lease: TimeDelta::zero(),
        jitter: 0,
        retries: &RetryPolicy::default(),
        caller: &caller,
        trace: TraceIds::default(),
        instance: &instance,
    };
    let told = Unasked {
        kind: TransactionKind::Refund,
        dispute: None,
        account: &record.payment.provider_account,
        captures_once: false,
    };
    let fact = Fact {
        kind: FactKind::Approved {
            amount: Money::new(1, record.payment.currency()).ok(),
            expires_at: None,
        },
        provider_reference: Some(ProviderReference::parse("by_hand").unwrap()),
        payment_reference: None,
    };
    unasked(record, &told, &fact, &stamp).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_transactions_put_in_by_the_thousand_are_told_of_and_not_all_read() {
    let (_db, store, client) = grown(200).await;
    client.batch_execute(&tampering::setup(1)).await.unwrap();
    let row = client
        .query_one("select max(payment_id::text) from transactions", &[])
        .await
        .unwrap();
    let id: String = row.get(0);
    let put_in = format!(
        "insert into transactions select (t).* from (select invented(t) as t from \
         (select * from transactions where payment_id = '{id}' limit 1) t, generate_series(1, 10000)) f"
    );
    client.batch_execute(&put_in).await.unwrap();
    let (found, _) = verify(&store).await;
    let found: Vec<_> = found
        .iter()
        .map(|it| (it.fault.code(), it.payment.map(|it| it.to_string())))
        .collect();
    assert_eq!(found, [("TOO_MANY_TRANSACTIONS", Some(id))]);
}

/// Copies of a checkpoint that the log signed, at other times: each is right, and together they hide those behind.
#[tokio::test(flavor = "multi_thread")]
async fn s75_checkpoints_put_in_by_the_thousand_are_told_of_and_do_not_fill_the_memory() {
    let (_db, store, client) = grown(200).await;
    let trusted = signing::sign_all(&store, &client).await;
    assert_eq!(verify_against(&store, &trusted).await.0, []);
    let saved = "create table saved_checkpoints as table checkpoints";
    client.batch_execute(saved).await.unwrap();
    let copies = |note: &str, count: usize| {
        format!(
            "insert into checkpoints (tree_size, signed_at, root_hash, note) \
             select tree_size, signed_at + n * interval '1 microsecond', root_hash, {note} \
             from (select * from checkpoints order by tree_size limit 1) first, generate_series(1, {count}) n; \
             update checkpoints set note = 'nothing' where tree_size = (select max(tree_size) from checkpoints)"
        )
    };
    // Long ones have more signatures, of keys that nobody knows.
    let long = "note || repeat(E'\\u2014 log.test/other AAAA\\n', 2000)";
    for put_in in [copies("note", 8_192), copies(long, 400)] {
        client.batch_execute(&put_in).await.unwrap();
        let (found, _) = verify_against(&store, &trusted).await;
        assert!(codes(&found).contains(&"TOO_MANY_CHECKPOINTS"), "{found:?}");
        let put_back =
            "truncate checkpoints; insert into checkpoints select * from saved_checkpoints";
        client.batch_execute(put_back).await.unwrap();
    }
    assert_eq!(verify_against(&store, &trusted).await.0, []);
}

/// Without the checks and keys that keep them out, rows by the thousand: each way is told of, and few of them are read.
#[tokio::test(flavor = "multi_thread")]
async fn s75_rows_put_in_by_the_thousand_where_keys_were_dropped_are_told_of_and_not_all_read() {
    let (_db, store, client) = grown(200).await;
    // More than twice what is read at once of each.
    let repeated = |table: &str, which: &str, rows: usize| {
        format!(
            "insert into {table} select t.* from {table} t, generate_series(1, {rows}) where {which}"
        )
    };
    for (drop, put_in, code, rows) in [
        (
            "alter table tree_heads drop constraint tree_heads_size_positive",
            "insert into tree_heads (tree_size, root_hash, fence, mac, mac_key_id) \
             select -n, sha256('x'), 1, sha256('x'), 'test-2' from generate_series(1, 20000) n"
                .to_owned(),
            "TOO_MANY_TREE_HEADS",
            20_000,
        ),
        (
            "alter table tree_tiles drop constraint tree_tiles_pkey",
            repeated("tree_tiles", "level = 0 and tile_index = 0", 20_000),
            "TILE_REPEATED",
            20_000,
        ),
        (
            "alter table journal_positions drop constraint journal_positions_pkey, \
             drop constraint journal_positions_arrival_key",
            repeated("journal_positions", "position = 7", 20_000),
            "POSITION_GAP",
            20_000,
        ),
        (
            "alter table journal drop constraint journal_pkey",
            repeated(
                "journal",
                "arrival = (select min(arrival) from journal)",
                20_000,
            ),
            "SEQUENCE_GAP",
            20_000,
        ),
        (
            "alter table attempts drop constraint attempts_pkey",
            repeated(
                "attempts",
                "attempt_id = (select min(attempt_id::text)::uuid from attempts)",
                2_000,
            ),
            "ATTEMPT_WITHOUT_ENTRY",
            2_000,
        ),
    ] {
        let table = put_in.split(' ').nth(2).unwrap();
        let saved = format!("{drop}; create table saved as table {table}");
        client.batch_execute(&saved).await.unwrap();
        client.batch_execute(&put_in).await.unwrap();
        let (found, _) = verify(&store).await;
        assert!(codes(&found).contains(&code), "{code}: {found:?}");
        assert!(found.len() < rows / 2, "{code}: {}", found.len());
        let put_back = format!(
            "delete from {table}; insert into {table} select * from saved; drop table saved"
        );
        client.batch_execute(&put_back).await.unwrap();
        assert_eq!(verify(&store).await.0, [], "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_column_that_was_made_long_is_cut_and_told_of() {
    let (_db, store, client) = grown(200).await;
    let long = "update journal set actor = repeat('x', 100000), mac_key_id = repeat('y', 100000) \
                where entity_seq = 1 and stream_id = payment_id";
    client.batch_execute(long).await.unwrap();
    let (found, _) = verify(&store).await;
    assert!(!found.is_empty());
    for mismatch in found {
        let code = mismatch.fault.code();
        let expected = ["COLUMN_DIFFERS", "MAC_KEY_UNKNOWN"].contains(&code);
        assert!(expected, "{mismatch:?}");
    }
}

/// Columns whose checks somebody dropped, or that have none: what would fill the memory is not read.
#[tokio::test(flavor = "multi_thread")]
async fn s75_rows_that_were_made_long_are_told_of_and_not_read() {
    let (_db, store, client) = grown(200).await;
    let payments = "select payment_id::text from payments order by payment_id limit 4";
    let ids = client.query(payments, &[]).await.unwrap();
    let ids: Vec<String> = ids.iter().map(|row| row.get(0)).collect();
    // What compresses well takes little room where it lies, and all of it where it is read.
    let long = "repeat('x', 100000000)";
    for (id, change) in ids.iter().zip([
        format!("update payments set description = {long}"),
        format!("update payments set metadata = jsonb_build_object('a', {long})"),
        format!("update payments set provider_token = convert_to({long}, 'UTF8')"),
        format!("update transactions set reason = {long}"),
    ]) {
        let sql = format!("{change} where payment_id = '{id}'");
        client.batch_execute(&sql).await.unwrap();
    }
    let (found, _) = verify(&store).await;
    assert!(
        found
            .iter()
            .all(|it| it.fault.code() == "PAYMENT_UNREADABLE"),
        "{found:?}"
    );
    for id in &ids {
        let about = |it: &&Mismatch| it.payment.is_some_and(|it| it.to_string() == *id);
        assert!(found.iter().any(|it| about(&it)), "{id}");
    }
    let too_long = found
        .iter()
        .filter(|it| it.fault.to_string().contains("longer than"));
    assert!(too_long.count() >= ids.len());
}

#[tokio::test]
async fn every_column_that_can_be_long_is_measured_before_a_row_is_read() {
    let db = TestDb::new().await;
    let client = db.client().await;
    // Read otherwise: measured as text, and not read at all.
    let apart = ["payments.metadata", "transactions.request"];
    for (table, measured) in measured_columns() {
        let sql = format!(
            "select column_name::text from information_schema.columns where table_name = '{table}' \
             and data_type in ('text', 'bytea', 'jsonb', 'ARRAY') order by column_name::text collate \"C\""
        );
        let rows = client.query(&sql, &[]).await.unwrap();
        let columns = rows.iter().map(|row| row.get::<_, String>(0));
        let columns = columns.filter(|it| !apart.contains(&format!("{table}.{it}").as_str()));
        let columns: Vec<String> = columns.collect();
        let mut measured = measured.to_vec();
        measured.sort_unstable();
        assert_eq!(columns, measured, "{table}");
    }
}

/// Most kinds that are tried at once.
const TOGETHER: usize = 16;

/// What was tampered with, and is yet to be found: several kinds of those that show nowhere but at their payments, or one
/// of the others.
#[derive(Default)]
struct Tried(Vec<(&'static Kind, Vec<tampering::Target>)>);

impl Tried {
    fn streams(&self) -> Vec<Uuid> {
        let targets = self.0.iter().flat_map(|(_, targets)| targets);
        targets.map(|target| target.stream).collect()
    }

    fn takes(&self, kind: &Kind) -> bool {
        let kinds = self.0.iter().map(|(kind, _)| *kind).chain([kind]);
        let mut together = kinds.map(|kind| kind.reach == Reach::Payment);
        self.0.is_empty() || self.0.len() < TOGETHER && together.all(|together| together)
    }

    /// Demands that all of it is found, and puts it back. Tells what was.
    async fn check(&mut self, store: &PgStore, client: &Client, trusted: &Trusted) -> String {
        let mut told = Vec::new();
        let (found, _) = verify_against(store, trusted).await;
        let tried = std::mem::take(&mut self.0);
        for (kind, targets) in &tried {
            for target in targets {
                assert_detected(kind, target, &found);
            }
            let count = targets.len();
            told.push(format!("{:<45} {count} of {count} detected\n", kind.name));
        }
        let kinds: Vec<&Kind> = tried.iter().map(|(kind, _)| *kind).collect();
        let put_back = tampering::put_back_after(&kinds);
        client.batch_execute(&put_back).await.unwrap();
        told.concat()
    }
}

/// Each kind of tampering at random places, all of a kind at once; then everything is put back.
#[tokio::test(flavor = "multi_thread")]
async fn s75_whatever_is_tampered_with_is_detected_and_named() {
    let seed = std::env::var("QUITTANCE_TAMPER_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse::<u64>().unwrap());
    println!("QUITTANCE_TAMPER_SEED={seed}");
    let entries = setting("QUITTANCE_TAMPER_ENTRIES", 600);
    let (_db, store, client) = grown(entries).await;
    let each = setting("QUITTANCE_TAMPER_EACH", 3);
    let trusted = signing::sign_all(&store, &client).await;
    client.batch_execute(&tampering::setup(seed)).await.unwrap();
    // Nothing is sequenced that was tampered with while it lies there: the attacker stops the service first.
    store.shutdown(Duration::from_secs(10)).await;
    assert_eq!(verify_against(&store, &trusted).await.0, []);
    let mut tried = Tried::default();
    for kind in tampering::chosen() {
        let others = tried.streams();
        let mut targets = tampering::pick(&client, kind, each, &others).await;
        if !tried.takes(kind) || targets.is_empty() && !others.is_empty() {
            print!("{}", tried.check(&store, &client, &trusted).await);
            targets = tampering::pick(&client, kind, each, &[]).await;
        }
        if targets.is_empty() && kind.large {
            assert!(
                entries < LEVEL_2_ENTRIES,
                "nothing to tamper with: {}",
                kind.name
            );
            not_tried(kind);
            continue;
        }
        assert!(!targets.is_empty(), "nothing to tamper with: {}", kind.name);
        for target in &targets {
            tampering::tamper(&client, kind, target).await;
        }
        tried.0.push((kind, targets));
    }
    print!("{}", tried.check(&store, &client, &trusted).await);
    assert_eq!(verify_against(&store, &trusted).await.0, []);
}

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

fn codes(found: &[Mismatch]) -> Vec<&'static str> {
    found.iter().map(|mismatch| mismatch.fault.code()).collect()
}

fn assert_detected(kind: &Kind, target: &tampering::Target, found: &[Mismatch]) {
    let about = |mismatch: &&Mismatch| {
        let payment = mismatch
            .payment
            .is_some_and(|it| it.0 == target.stream || it.0 == target.entry);
        let entry = mismatch.entry.is_some_and(|it| it.0 == target.entry);
        let at = target.position;
        let place = match &mismatch.fault {
            Fault::EntryMissing { stream, .. } => *stream == target.stream,
            Fault::PositionGap { expected, found } => (*expected..*found).contains(&at),
            Fault::Tree(TreeFault::TileDiffers { tile, .. }) => {
                let below = at >> (8 * (u32::from(tile.level) + 1));
                u64::try_from(below) == Ok(tile.index)
            }
            Fault::Tree(_) if kind.reach == Reach::Whole => true,
            // What was cut off at the very end has no place that could be named.
            Fault::HeadDiffers { found, .. } => kind.reach == Reach::Whole || at >= *found,
            _ => mismatch
                .position
                .is_some_and(|it| i64::try_from(it) == Ok(at)),
        };
        payment || entry || place
    };
    let codes: Vec<&str> = found
        .iter()
        .filter(about)
        .map(|mismatch| mismatch.fault.code())
        .collect();
    assert!(
        kind.codes.iter().any(|code| codes.contains(code)),
        "{}: {target:?} was not detected as one of {:?}, but as {codes:?}",
        kind.name,
        kind.codes,
    );
}
