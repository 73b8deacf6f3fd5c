//! The sequencer: gapless, complete, and one at a time.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::ports::{Commit, EntryFilter, Store};
use quittance_store::{KeyRing, PgStore, Refusal, Unobserved};
use quittance_test_support::{
    Alarms, JournalRow, Story, TestDb, entry_of_stream, eventually, tenant,
};
use tokio_postgres::Client;
use uuid::Uuid;

/// Writes an entry as the service does, each time another.
fn insert() -> String {
    new_row().insert()
}

fn new_row() -> JournalRow {
    JournalRow::of(&entry_of_stream("acme", Uuid::new_v4(), 1))
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Every committed entry has one position, and positions are 0, 1, 2 …
async fn assert_gapless_and_complete(client: &Client, entries: i64) {
    assert_eq!(
        number(client, "select count(*) from journal").await,
        entries
    );
    let unplaced = "select count(*) from journal j where not exists \
                    (select 1 from journal_positions p where p.arrival = j.arrival \
                     and p.entry_id = j.entry_id)";
    assert_eq!(number(client, unplaced).await, 0);
    assert_eq!(
        number(client, "select count(*) from journal_positions").await,
        entries
    );
    assert_eq!(
        number(
            client,
            "select coalesce(min(position), 0) from journal_positions"
        )
        .await,
        0
    );
    let last = "select coalesce(max(position), -1) from journal_positions";
    assert_eq!(number(client, last).await, entries - 1);
    assert_eq!(
        number(client, "select next_position from sequencer_head").await,
        entries
    );
}

async fn wait_for_positions(client: &Client, count: i64) {
    eventually("every entry has a position", || async {
        number(client, "select count(*) from journal_positions").await >= count
    })
    .await;
}

/// One writer's life: commits, rolls back, and leaves some transactions open while it goes on.
async fn write(db: Arc<TestDb>, writer: usize) -> i64 {
    let client = db.client().await;
    let mut delayed: Vec<(usize, Client)> = Vec::new();
    let mut committed = 0;
    for step in 0..60 {
        let finished = delayed.extract_if(.., |(since, _)| step >= *since + 9);
        for (since, client) in finished.collect::<Vec<_>>() {
            let end = if since % 2 == 0 { "commit" } else { "rollback" };
            client.batch_execute(end).await.unwrap();
            committed += i64::from(since % 2 == 0);
        }
        match (step + writer) % 6 {
            0 => {
                let begun = format!("begin; {}; {}; rollback", insert(), insert());
                client.batch_execute(&begun).await.unwrap();
            }
            3 => {
                let other = db.client().await;
                other
                    .batch_execute(&format!("begin; {}", insert()))
                    .await
                    .unwrap();
                delayed.push((step, other));
            }
            _ => {
                client.batch_execute(&insert()).await.unwrap();
                committed += 1;
            }
        }
    }
    for (_, client) in delayed {
        client.batch_execute("commit").await.unwrap();
        committed += 1;
    }
    committed
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_gapless_and_complete_whatever_order_commits_come_in() {
    let db = Arc::new(TestDb::new().await);
    let store = db.store().await;
    store.start_workers();
    let writers: Vec<_> = (0..4)
        .map(|writer| tokio::spawn(write(Arc::clone(&db), writer)))
        .collect();
    let mut entries = 0;
    for writer in writers {
        entries += writer.await.unwrap();
    }
    let client = db.client().await;
    wait_for_positions(&client, entries).await;
    assert_gapless_and_complete(&client, entries).await;
    // What was rolled back is proved dead, so nothing is looked for any more.
    eventually("every hole is proved dead", || async {
        let low = "select (low_arrival > (select last_value from journal_arrival) \
                           or low_arrival > (select max(arrival) from journal))::int::bigint \
                   from sequencer_head";
        number(&client, low).await == 1
    })
    .await;
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_commits_late_is_not_lost_and_delays_nobody() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (late, client) = (db.client().await, db.client().await);
    late.batch_execute(&format!("begin; {}", insert()))
        .await
        .unwrap();
    for _ in 0..3 {
        client.batch_execute(&insert()).await.unwrap();
    }
    wait_for_positions(&client, 3).await;
    // Several looks later it is still a hole.
    let fence = "select extract(epoch from lease_until)::bigint from sequencer_head";
    let before = number(&client, fence).await;
    eventually("the lease is renewed", || async {
        number(&client, fence).await > before
    })
    .await;
    assert_eq!(
        number(&client, "select low_arrival from sequencer_head").await,
        1
    );
    late.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, 4).await;
    assert_gapless_and_complete(&client, 4).await;
    let position = "select p.position from journal_positions p order by arrival limit 1";
    assert_eq!(number(&client, position).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payments_entries_are_in_order_and_waiters_are_woken() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    let (_, foreign) = Story::accept("other", "key-1", 1_000);
    let waiter = tokio::spawn({
        let store = store.clone();
        async move {
            store.wait_for_position(2, Duration::from_secs(60)).await;
            store.next_position().await.unwrap()
        }
    });
    for change in [accepted, foreign, story.authorized()] {
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    assert_eq!(waiter.await.unwrap(), 3);
    let all = store.entries_from(None, 0, 10).await.unwrap();
    let positions: Vec<_> = all.iter().map(|entry| entry.position).collect();
    assert_eq!(positions, [Some(0), Some(1), Some(2)]);
    let own = store
        .entries_from(Some(&tenant("acme")), 0, 10)
        .await
        .unwrap();
    let numbers: Vec<_> = own.iter().map(|entry| entry.entity_seq).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(
        store
            .entries_from(Some(&tenant("acme")), 3, 10)
            .await
            .unwrap(),
        vec![]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sequencers_one_is_active_and_a_fenced_one_writes_nothing() {
    let db = TestDb::new().await;
    let stores = [db.store().await, db.store().await];
    stores.iter().for_each(PgStore::start_workers);
    let client = db.client().await;
    eventually("one is active", || async {
        number(&client, "select count(holder) from sequencer_head").await == 1
    })
    .await;
    let mut entries = 0;
    for round in 0..5 {
        let fence = number(&client, "select fence from sequencer_head").await;
        // As if the holder had been silent for too long.
        eventually("another takes over", || async {
            client
                .batch_execute("update sequencer_head set lease_until = '-infinity'")
                .await
                .unwrap();
            number(&client, "select fence from sequencer_head").await > fence
        })
        .await;
        for number in 0..10 {
            let (_, change) = Story::accept("acme", &format!("key-{round}-{number}"), 1_000);
            assert_eq!(
                stores[number % 2].commit(change).await,
                Ok(Commit::Committed)
            );
            entries += 1;
        }
    }
    wait_for_positions(&client, entries).await;
    assert_gapless_and_complete(&client, entries).await;
}

#[test]
fn another_takes_over_from_one_that_died_with_holes() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let db = second.block_on(TestDb::new());
    let client = second.block_on(db.client());
    let late = second.block_on(db.client());
    first.block_on(async {
        let store = PgStore::connect(db.config(), Arc::new(Unobserved))
            .await
            .unwrap();
        store.start_workers();
        late.batch_execute(&format!("begin; {}", insert()))
            .await
            .unwrap();
        client.batch_execute(&insert()).await.unwrap();
        wait_for_positions(&client, 1).await;
    });
    // It ends as a killed process does: without giving its lease back.
    first.shutdown_background();
    second.block_on(async {
        let store = db.store().await;
        store.start_workers();
        client.batch_execute(&insert()).await.unwrap();
        late.batch_execute("commit").await.unwrap();
        wait_for_positions(&client, 3).await;
        assert_gapless_and_complete(&client, 3).await;
        eventually("the other has the lease", || async {
            number(&client, "select fence from sequencer_head").await >= 2
        })
        .await;
        store.shutdown(Duration::from_secs(60)).await;
        // One that ends in order gives its lease back.
        assert_eq!(
            number(&client, "select count(holder) from sequencer_head").await,
            0
        );
    });
}

/// Nothing is looked for any more: every hole is filled or proved dead.
async fn wait_until_no_holes_are_left(client: &Client) {
    eventually("every hole is proved dead", || async {
        let low = "select (low_arrival > (select max(arrival) from journal))::int::bigint \
                   from sequencer_head";
        number(client, low).await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_or_analyze_that_takes_hours_keeps_no_hole_alive() {
    let db = TestDb::new().await;
    let (vacuum, client) = (db.client().await, db.client().await);
    // The lock that they hold.
    vacuum
        .batch_execute("begin; lock table journal in share update exclusive mode")
        .await
        .unwrap();
    let rolled_back = format!("begin; {}; rollback", insert());
    client.batch_execute(&rolled_back).await.unwrap();
    client.batch_execute(&insert()).await.unwrap();
    let store = db.store().await;
    store.start_workers();
    wait_for_positions(&client, 1).await;
    wait_until_no_holes_are_left(&client).await;
    vacuum.batch_execute("commit").await.unwrap();
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_holes_than_one_pass_looks_into_are_all_filled() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (late, early, client) = (db.client().await, db.client().await, db.client().await);
    for writer in [&late, &early] {
        writer.batch_execute("begin").await.unwrap();
    }
    let holes = 1_300;
    for _ in 0..holes {
        late.batch_execute(&insert()).await.unwrap();
        early.batch_execute(&insert()).await.unwrap();
    }
    early.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, holes).await;
    late.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, 2 * holes).await;
    assert_gapless_and_complete(&client, 2 * holes).await;
    wait_until_no_holes_are_left(&client).await;
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_never_gets_its_position_before_the_one_that_it_follows_upon() {
    let db = TestDb::new().await;
    let first = db.store().await;
    first.start_workers();
    let (late, early, client) = (db.client().await, db.client().await, db.client().await);
    for writer in [&late, &early] {
        writer.batch_execute("begin").await.unwrap();
    }
    let entry = |stream, number| JournalRow::of(&entry_of_stream("acme", stream, number)).insert();
    // More holes than are looked into at once, each of one entry.
    let holes = 1_300;
    let streams: Vec<Uuid> = (0..holes).map(|_| Uuid::new_v4()).collect();
    for stream in &streams {
        late.batch_execute(&entry(*stream, 1)).await.unwrap();
        early.batch_execute(&insert()).await.unwrap();
    }
    early.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, holes).await;
    first.shutdown(Duration::from_secs(60)).await;
    // Nobody looks while the holes are filled, and while each stream goes on: those of the last holes first.
    late.batch_execute("commit").await.unwrap();
    let next: Vec<_> = streams
        .iter()
        .rev()
        .map(|stream| entry(*stream, 2))
        .collect();
    client.batch_execute(&next.join(";")).await.unwrap();
    let second = db.store().await;
    second.start_workers();
    wait_for_positions(&client, 3 * holes).await;
    assert_gapless_and_complete(&client, 3 * holes).await;
    let reordered = "select count(*) from journal_positions a join journal_positions b \
                     on b.stream_id = a.stream_id and b.entity_seq = a.entity_seq + 1 \
                     where b.position < a.position";
    let reordered: i64 = client.query_one(reordered, &[]).await.unwrap().get(0);
    assert_eq!(reordered, 0);
    second.shutdown(Duration::from_secs(60)).await;
}

/// Every way in which somebody who owns the database can write an entry that is not ours.
fn forgeries() -> Vec<(Refusal, JournalRow)> {
    let changed = |change: fn(&mut JournalRow)| {
        let mut row = new_row();
        change(&mut row);
        row
    };
    vec![
        (Refusal::MacWrong, changed(|row| row.mac = vec![7; 32])),
        (Refusal::MacWrong, changed(|row| row.leaf.push(b' '))),
        (
            Refusal::MacWrong,
            changed(|row| row.mac_key_id = "test-1".to_owned()),
        ),
        (
            Refusal::MacMissing,
            changed(|row| row.mac_key_id = String::new()),
        ),
        // An entry of ours, and not this one.
        (
            Refusal::NotItsRow,
            changed(|row| row.stream_id = Uuid::new_v4()),
        ),
        (Refusal::NotItsRow, changed(|row| row.entity_seq = 2)),
        (
            Refusal::NotItsRow,
            changed(|row| row.entry_id = Uuid::new_v4()),
        ),
        (
            Refusal::NotItsRow,
            changed(|row| row.tenant_id = Some("other".to_owned())),
        ),
    ]
}

/// `select` among what was refused.
async fn refusals(client: &Client) -> Vec<(String, String)> {
    let sql = "select entry_id::text, reason from refused_entries order by arrival, entry_id";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_that_was_written_past_the_service_gets_no_position_and_holds_nobody_up() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    let client = db.client().await;
    let mut expected = Vec::new();
    for (refusal, row) in forgeries() {
        client.batch_execute(&insert()).await.unwrap();
        client.batch_execute(&row.insert()).await.unwrap();
        expected.push((row.entry_id.to_string(), refusal.name().to_owned()));
    }
    client.batch_execute(&insert()).await.unwrap();
    let ours = i64::try_from(expected.len()).unwrap() + 1;
    wait_for_positions(&client, ours).await;
    wait_until_no_holes_are_left(&client).await;
    assert_eq!(refusals(&client).await, expected);
    // Of each once, and again where the lease was lost in between: another term judges anew.
    assert!(alarms.taken_of("entry") >= expected.len());
    let placed = "select count(*) from journal_positions p join refused_entries using (arrival)";
    assert_eq!(number(&client, placed).await, 0);
    let last = "select max(position) from journal_positions";
    assert_eq!(number(&client, last).await, ours - 1);
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_forged_entry_hides_no_other_whatever_number_it_takes() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (late, client) = (db.client().await, db.client().await);
    // The number of an entry that is not committed yet; of one that is; and one far beyond.
    late.batch_execute(&format!("begin; {}", insert()))
        .await
        .unwrap();
    client.batch_execute(&insert()).await.unwrap();
    wait_for_positions(&client, 1).await;
    for (arrival, refused) in [(Some(1), 1), (Some(2), 1), (Some(i64::MAX), 1), (None, 2)] {
        let forged = JournalRow {
            arrival,
            mac: vec![7; 32],
            ..new_row()
        };
        client.batch_execute(&forged.insert()).await.unwrap();
        eventually("it is on record", || async {
            number(&client, "select count(*) from refused_entries").await == refused
        })
        .await;
    }
    late.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, 2).await;
    client.batch_execute(&insert()).await.unwrap();
    wait_for_positions(&client, 3).await;
    let hidden = "select count(*) from journal j where mac <> decode(repeat('07', 32), 'hex') \
                  and not exists (select 1 from journal_positions p where p.entry_id = j.entry_id)";
    assert_eq!(number(&client, hidden).await, 0);
    store.shutdown(Duration::from_secs(60)).await;
}

/// Whoever has the application's role can name entries in `refused_entries`, also before they are visible, and copy what
/// the sequencer left there of a forged one.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_genuine_entry_that_somebody_calls_refused_gets_its_position_all_the_same() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (late, client) = (db.client().await, db.client().await);
    let rows: Vec<JournalRow> = (0..3).map(|_| new_row()).collect();
    late.batch_execute("begin").await.unwrap();
    for row in &rows {
        late.batch_execute(&row.insert()).await.unwrap();
    }
    let forged = JournalRow {
        mac: vec![7; 32],
        ..new_row()
    };
    client.batch_execute(&forged.insert()).await.unwrap();
    client.batch_execute(&insert()).await.unwrap();
    wait_for_positions(&client, 1).await;
    let seals = [
        "null",
        "sha256('guessed')",
        "(select seal from refused_entries where arrival = 4)",
    ];
    for ((row, arrival), seal) in rows.iter().zip(1..).zip(seals) {
        let named = format!(
            "set role quittance_app; insert into refused_entries (arrival, entry_id, stream_id, entity_seq, reason, seal) \
             values ({arrival}, '{}', '{}', 1, 'MAC_WRONG', {seal}); reset role",
            row.entry_id, row.stream_id
        );
        client.batch_execute(&named).await.unwrap();
    }
    late.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, 4).await;
    wait_until_no_holes_are_left(&client).await;
    let placed = "select count(*) from journal_positions where arrival between 1 and 3";
    assert_eq!(number(&client, placed).await, 3);
    store.shutdown(Duration::from_secs(60)).await;
}

/// A refusal is of one term: the next sequencer judges again what lies in a hole, and refuses it again.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_forged_entry_in_a_hole_is_refused_again_in_the_next_term_and_holds_nobody_up() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let (late, client) = (db.client().await, db.client().await);
    late.batch_execute(&format!("begin; {}", insert()))
        .await
        .unwrap();
    let forged = JournalRow {
        arrival: Some(1),
        mac: vec![7; 32],
        ..new_row()
    };
    client.batch_execute(&insert()).await.unwrap();
    client.batch_execute(&forged.insert()).await.unwrap();
    let sealed = async || {
        let sql = "select encode(seal, 'hex') from refused_entries";
        let rows = client.query(sql, &[]).await.unwrap();
        rows.first().map(|row| row.get::<_, String>(0))
    };
    eventually("it is refused", async || sealed().await.is_some()).await;
    let before = sealed().await;
    store.shutdown(Duration::from_secs(60)).await;
    let store = db.store().await;
    store.start_workers();
    eventually("it is refused again", async || sealed().await != before).await;
    late.batch_execute("commit").await.unwrap();
    wait_for_positions(&client, 2).await;
    wait_until_no_holes_are_left(&client).await;
    assert_eq!(refusals(&client).await.len(), 1);
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_of_two_rows_with_one_number_the_second_is_refused_and_the_sequencer_goes_on() {
    let db = TestDb::new().await;
    let client = db.client().await;
    client.batch_execute(&insert()).await.unwrap();
    let twin = JournalRow {
        arrival: Some(1),
        ..new_row()
    };
    client.batch_execute(&twin.insert()).await.unwrap();
    client.batch_execute(&insert()).await.unwrap();
    let store = db.store().await;
    store.start_workers();
    wait_for_positions(&client, 2).await;
    wait_until_no_holes_are_left(&client).await;
    let refused = refusals(&client).await;
    let reasons: Vec<_> = refused.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["ARRIVAL_TAKEN"]);
    store.shutdown(Duration::from_secs(60)).await;
}

/// Gives the entry at a position another number, as whoever owns the database can.
async fn renumber(client: &Client, position: i64) -> (String, String) {
    let sql = "update journal j set arrival = nextval('journal_arrival') from journal_positions p \
               where p.position = $1 and j.entry_id = p.entry_id returning j.entry_id::text";
    let row = client.query_one(sql, &[&position]).await.unwrap();
    (row.get(0), Refusal::AlreadyPlaced.name().to_owned())
}

/// The repair that docs/signing.md gives.
const NUMBERS_PUT_BACK: &str = "update journal j set arrival = p.arrival from journal_positions p \
     where p.stream_id = j.stream_id and p.entity_seq = j.entity_seq and p.arrival <> j.arrival";

#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_that_was_given_another_number_gets_no_second_position() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    let client = db.client().await;
    for _ in 0..4 {
        client.batch_execute(&insert()).await.unwrap();
    }
    wait_for_positions(&client, 4).await;
    // While the sequencer runs, and while none does.
    let mut expected = vec![renumber(&client, 1).await];
    client.batch_execute(&insert()).await.unwrap();
    wait_for_positions(&client, 5).await;
    wait_until_no_holes_are_left(&client).await;
    assert_eq!(refusals(&client).await, expected);
    assert!(alarms.taken_of("entry") >= 1);
    eventually("nothing waits for what the tree has", || async {
        store.oldest_pending_entry_age().await == Ok(0.0)
    })
    .await;
    store.shutdown(Duration::from_secs(60)).await;
    expected.push(renumber(&client, 2).await);
    client.batch_execute(&insert()).await.unwrap();
    let store = db.store().await;
    store.start_workers();
    wait_for_positions(&client, 6).await;
    wait_until_no_holes_are_left(&client).await;
    assert_eq!(refusals(&client).await, expected);
    store.shutdown(Duration::from_secs(60)).await;

    let docs = include_str!("../../../docs/signing.md");
    assert!(docs.contains(NUMBERS_PUT_BACK), "{NUMBERS_PUT_BACK}");
    client.batch_execute(NUMBERS_PUT_BACK).await.unwrap();
    assert_gapless_and_complete(&client, 6).await;
}

/// As after a crash, wherever the mark was left: what has its position is not refused, and gets no other.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_looked_at_again_after_a_restart_is_not_refused() {
    let db = TestDb::new().await;
    let client = db.client().await;
    for count in [3, 6, 9] {
        for _ in 0..3 {
            client.batch_execute(&insert()).await.unwrap();
        }
        let anew = "update sequencer_head set low_arrival = 1, holder = null";
        client.batch_execute(anew).await.unwrap();
        let store = db.store().await;
        store.start_workers();
        wait_for_positions(&client, count).await;
        wait_until_no_holes_are_left(&client).await;
        assert_eq!(refusals(&client).await, []);
        store.shutdown(Duration::from_secs(60)).await;
    }
    assert_gapless_and_complete(&client, 9).await;
}

/// What any holder of the application's role can insert: the database keeps such a column in a hundredth of its length, and to
/// read it whole would take a hundred times as much.
#[tokio::test(flavor = "multi_thread")]
async fn s75_rows_with_long_columns_are_refused_and_do_not_fill_the_memory() {
    const LONG: usize = 50 << 20;
    let db = TestDb::new().await;
    let client = db.client().await;
    let mut expected = Vec::new();
    for _ in 0..12 {
        let row = new_row();
        let long = format!("repeat('x', {LONG})");
        let insert = row.insert().replace("'test-2'", &long);
        assert!(insert.contains(&long), "{insert}");
        let insert = format!("set role quittance_app; {insert}; reset role");
        client.batch_execute(&insert).await.unwrap();
        expected.push((row.entry_id.to_string(), "MAC_MISSING".to_owned()));
    }
    client.batch_execute(&insert()).await.unwrap();
    let before = peak_memory();
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    wait_for_positions(&client, 1).await;
    wait_until_no_holes_are_left(&client).await;
    assert_eq!(refusals(&client).await, expected);
    assert!(alarms.taken_of("entry") >= expected.len());
    // None of them is waited for: it is not ours.
    eventually("the tree has all that is ours", || async {
        store.oldest_pending_entry_age().await == Ok(0.0)
    })
    .await;
    let (acme, all) = (tenant("acme"), EntryFilter::default());
    let listed = store.list_entries(Some(&acme), &all, None, 99).await;
    assert_eq!(listed.unwrap().len(), 13);
    assert!(peak_memory() - before < 4 * LONG, "{before}");
    store.shutdown(Duration::from_secs(60)).await;
}

/// Most memory that this process has had, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    1024 * peak.parse::<usize>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_row_under_a_key_that_nobody_has_holds_no_other_up_and_is_told_of() {
    let db = TestDb::new().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    let client = db.client().await;
    client.batch_execute(&insert()).await.unwrap();
    let made_up = JournalRow {
        mac_key_id: "k999".to_owned(),
        mac: vec![7; 32],
        ..new_row()
    };
    // The application's own role can do so, and say when it happened.
    let made_up = made_up.insert().replace("now()", "'infinity'");
    let made_up = format!("set role quittance_app; {made_up}; reset role");
    client.batch_execute(&made_up).await.unwrap();
    for _ in 0..3 {
        client.batch_execute(&insert()).await.unwrap();
    }
    wait_for_positions(&client, 4).await;
    assert!(alarms.taken_of("entry_key") > 0);
    eventually("the log is told to lack an entry", || async {
        store.oldest_pending_entry_age().await.unwrap() > 0.0
    })
    .await;
    // A server that has the key may still come.
    assert_eq!(refusals(&client).await, []);
    let looked_for = "select (low_arrival <= (select arrival from journal where mac_key_id = 'k999'))::int::bigint \
                      from sequencer_head";
    eventually("it is not forgotten", || async {
        number(&client, looked_for).await == 1
    })
    .await;
    store.shutdown(Duration::from_secs(60)).await;
    // None does: somebody made it up, and it is removed.
    let remove = "delete from journal where mac_key_id = 'k999'";
    client.batch_execute(remove).await.unwrap();
    let store = db.store().await;
    store.start_workers();
    wait_until_no_holes_are_left(&client).await;
    assert_gapless_and_complete(&client, 4).await;
    store.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_under_a_key_that_a_process_lacks_waits_for_one_that_has_it() {
    let db = TestDb::new().await;
    let mut config = db.config();
    let older = KeyRing::new([("test-1".to_owned(), [1; 32])]).unwrap();
    config.keys = older.clone();
    let without = PgStore::connect(config, Arc::new(Unobserved))
        .await
        .unwrap();
    without.start_workers();
    let client = db.client().await;
    eventually("the one without the key is active", || async {
        number(&client, "select count(holder) from sequencer_head").await == 1
    })
    .await;
    // An entry, one that a process without the key decided upon it, and one that has nothing to do with them.
    let (stream, other) = (Uuid::new_v4(), Uuid::new_v4());
    let rows = [
        JournalRow::of(&entry_of_stream("acme", stream, 1)),
        JournalRow::under(&older, &entry_of_stream("acme", stream, 2)),
        JournalRow::under(&older, &entry_of_stream("acme", other, 1)),
    ];
    let rows = rows.map(|row| row.insert()).join(";");
    client.batch_execute(&rows).await.unwrap();
    eventually("it gives the work back", || async {
        number(&client, "select count(holder) from sequencer_head").await == 0
    })
    .await;
    let placed = async || {
        let sql = "select stream_id::text, entity_seq from journal_positions order by position";
        let rows = client.query(sql, &[]).await.unwrap();
        let row = |row: &tokio_postgres::Row| (row.get::<_, String>(0), row.get::<_, i64>(1));
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let (stream, other) = (stream.to_string(), other.to_string());
    assert_eq!(placed().await, [(other.clone(), 1)]);
    assert_eq!(refusals(&client).await, []);
    let with = db.store().await;
    with.start_workers();
    wait_for_positions(&client, 3).await;
    assert_eq!(
        placed().await,
        [(other, 1), (stream.clone(), 1), (stream, 2)]
    );
    for store in [without, with] {
        store.shutdown(Duration::from_secs(60)).await;
    }
}
