//! The Merkle tree: one, complete, and the same as the journal's entries make.
#![allow(
    clippy::similar_names,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use quittance_domain::ports::{Commit, Store};
use quittance_evidence::tree::{CompactRange, verify_consistency, verify_inclusion};
use quittance_evidence::{Hash, leaf_hash};
use quittance_store::{MAX_INTEGRATED, PgStore, TreeDamage, TreeReadError, WorkerSettings};
use quittance_test_support::{
    Alarms, HeadRow, JournalRow, Story, TestDb, entry_of_stream, eventually,
};
use tokio_postgres::Client;
use uuid::Uuid;

fn without_integrator() -> WorkerSettings {
    WorkerSettings {
        integrate: false,
        ..WorkerSettings::default()
    }
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Writes so many entries, in few statements.
async fn write(client: &Client, count: usize) {
    let rows: Vec<String> = (0..count)
        .map(|_| JournalRow::of(&entry_of_stream("acme", Uuid::new_v4(), 1)).insert())
        .collect();
    for some in rows.chunks(100) {
        client.batch_execute(&some.join(";")).await.unwrap();
    }
}

async fn wait_for_size(client: &Client, size: usize) {
    let size = i64::try_from(size).unwrap();
    eventually("the tree has grown", || async {
        number(client, "select coalesce(max(tree_size), 0) from tree_heads").await >= size
    })
    .await;
}

async fn shut_down(store: PgStore) {
    store.shutdown(Duration::from_secs(60)).await;
}

/// The leaf hashes, in the order of positions, from the bytes of the entries.
async fn leaves(client: &Client) -> Vec<Hash> {
    let sql = "select j.leaf from journal_positions p join journal j using (stream_id, entity_seq) \
               order by p.position";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| leaf_hash(row.get(0))).collect()
}

/// Every head is the root over the first so many entries: there was never another tree. Answers all heads.
async fn assert_one_tree(client: &Client) -> BTreeMap<u64, Hash> {
    let sql = "select tree_size, root_hash from tree_heads order by tree_size";
    let rows = client.query(sql, &[]).await.unwrap();
    let heads: BTreeMap<u64, Hash> = rows
        .iter()
        .map(|row| {
            let root: [u8; 32] = row.get::<_, &[u8]>(1).try_into().unwrap();
            let size = u64::try_from(row.get::<_, i64>(0)).unwrap();
            (size, Hash::from_bytes(root))
        })
        .collect();
    let mut range = CompactRange::new();
    let mut seen = 0;
    for leaf in leaves(client).await {
        range.push(leaf);
        if let Some(root) = heads.get(&range.size()) {
            assert_eq!(range.root(), *root, "the head of size {}", range.size());
            seen += 1;
        }
    }
    assert_eq!(seen, heads.len(), "a head is beyond the log");
    heads
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_holds_every_entry_at_its_position_and_proves_it() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.start_workers();
    let client = db.client().await;
    assert_eq!(store.tree_head().await.unwrap(), None);
    let (mut story, accepted) = Story::accept("acme", "key-1", 1_000);
    assert_eq!(store.commit(accepted).await, Ok(Commit::Committed));
    wait_for_size(&client, 1).await;
    assert_eq!(
        store.commit(story.authorized()).await,
        Ok(Commit::Committed)
    );
    write(&client, 700).await;
    wait_for_size(&client, 702).await;
    let heads = assert_one_tree(&client).await;
    let (size, root) = heads.last_key_value().map(|(s, r)| (*s, *r)).unwrap();
    assert_eq!(size, 702);
    for (index, leaf) in (0..).zip(leaves(&client).await) {
        if index % 37 == 0 || index > 695 {
            let (proof, at) = store.inclusion_proof(leaf, index, size).await.unwrap();
            assert_eq!(at, root);
            verify_inclusion(&leaf, index, size, &proof, &root).unwrap();
            // A proof that would convince nobody is not given.
            let other = store.inclusion_proof(root, index, size).await;
            assert!(matches!(other, Err(TreeReadError::Damaged(_))), "{index}");
        }
    }
    for (old, old_root) in &heads {
        let (proof, roots) = store.consistency_proof(*old, size).await.unwrap();
        assert_eq!(roots, [*old_root, root]);
        verify_consistency(*old, old_root, size, &root, &proof).unwrap();
    }
    let beyond = store.inclusion_proof(root, size, size).await;
    assert!(matches!(beyond, Err(TreeReadError::OutOfRange(_))));
    shut_down(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sequenced_while_nobody_grew_the_tree_is_caught_up_with_in_batches() {
    let db = TestDb::new().await;
    let client = db.client().await;
    let first = db.store().await;
    first.start_workers_with(without_integrator());
    let count = 3 * MAX_INTEGRATED + 17;
    write(&client, count).await;
    let placed = i64::try_from(count).unwrap();
    eventually("every entry has a position", || async {
        number(&client, "select count(*) from journal_positions").await == placed
    })
    .await;
    shut_down(first).await;
    let second = db.store().await;
    second.start_workers();
    wait_for_size(&client, count).await;
    let heads = assert_one_tree(&client).await;
    assert!(heads.len() > 12, "in {} batches", heads.len());
    shut_down(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s76_with_the_lease_taken_away_again_and_again_there_is_one_tree() {
    let db = TestDb::new().await;
    let stores = [db.store().await, db.store().await, db.store().await];
    stores.iter().for_each(PgStore::start_workers);
    let client = db.client().await;
    let mut entries = 0;
    for round in 0..12 {
        for number in 0..10 {
            let (_, change) = Story::accept("acme", &format!("key-{round}-{number}"), 1_000);
            let store = &stores[number % stores.len()];
            assert_eq!(store.commit(change).await, Ok(Commit::Committed));
            entries += 1;
        }
        // The holder still believes that it is the one.
        let fence = number(&client, "select fence from sequencer_head").await;
        eventually("another takes over", || async {
            let taken = "update sequencer_head set lease_until = '-infinity'";
            client.batch_execute(taken).await.unwrap();
            number(&client, "select fence from sequencer_head").await > fence
        })
        .await;
    }
    wait_for_size(&client, entries).await;
    assert_one_tree(&client).await;
    let positions = "select count(distinct entry_id) from journal_positions";
    assert_eq!(
        number(&client, positions).await,
        i64::try_from(entries).unwrap()
    );
    for store in stores {
        shut_down(store).await;
    }
}

/// Makes of a database what it was when it had `kept` entries, all of them in the tree: as a restore does, or another
/// server of it that had not got the last moments. The sequencer's head is left with whom it was.
fn set_back(kept: i64) -> String {
    format!(
        "set session_replication_role = replica; \
         update sequencer_head set next_position = {kept}, low_arrival = {kept} + 1; \
         delete from tree_heads where tree_size > {kept}; \
         update tree_tiles set hashes = substr(hashes, 1, {kept} * 32); \
         delete from journal_positions where position >= {kept}; \
         delete from journal where arrival > {kept}; \
         select setval('journal_arrival', {kept}); \
         set session_replication_role = origin"
    )
}

/// What comes instead of what was lost is sequenced and in the tree, and nothing else is; nobody was alarmed.
async fn goes_on_from(kept: usize, store: PgStore, alarms: &Alarms, client: &Client) {
    write(client, 2).await;
    let (size, all) = (kept + 2, i64::try_from(kept + 2).unwrap());
    eventually("what is new has its positions", || async {
        number(client, "select count(*) from journal_positions").await == all
    })
    .await;
    wait_for_size(client, size).await;
    let heads = assert_one_tree(client).await;
    assert_eq!(heads.keys().max(), Some(&u64::try_from(size).unwrap()));
    assert_eq!(alarms.taken(), [""; 0]);
    // What this process knew of what was lost wakes nobody.
    let waiting = store.wait_for_position(u64::try_from(size).unwrap(), Duration::from_secs(60));
    assert!(waiting.now_or_never().is_none());
    shut_down(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_nothing_of_what_a_database_lost_under_a_living_process_comes_into_the_tree() {
    let db = TestDb::new().await;
    let client = db.client().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    write(&client, 3).await;
    wait_for_size(&client, 3).await;
    write(&client, 7).await;
    wait_for_size(&client, 10).await;
    client.batch_execute(&set_back(3)).await.unwrap();
    goes_on_from(3, store, &alarms, &client).await;
}

/// As before, and the process notices nothing: what it was about to append finds the database set back.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_tree_does_not_grow_over_positions_that_the_database_lost_meanwhile() {
    let db = TestDb::new().await;
    let (client, holder) = (db.client().await, db.client().await);
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    write(&client, 3).await;
    wait_for_size(&client, 3).await;
    let hold = "begin; lock table tree_heads in share mode";
    holder.batch_execute(hold).await.unwrap();
    write(&client, 7).await;
    eventually("the tree is about to grow", || async {
        let waiting = "select (select next_position from sequencer_head) * count(*) from pg_locks \
                       where relation = 'tree_heads'::regclass and not granted \
                       and database = (select oid from pg_database where datname = current_database())";
        number(&client, waiting).await == 10
    })
    .await;
    holder.batch_execute(&set_back(3)).await.unwrap();
    holder.batch_execute("commit").await.unwrap();
    goes_on_from(3, store, &alarms, &client).await;
}

/// A process that has just lost its lease takes the tree up while the new holder grows it: it reads the head, and when it
/// comes to the tiles they are another head's.
#[tokio::test(flavor = "multi_thread")]
async fn s76_a_tree_that_another_grows_while_it_is_taken_up_is_no_damage() {
    let db = TestDb::new().await;
    let client = db.client().await;
    let first = db.store().await;
    first.start_workers();
    write(&client, 10).await;
    wait_for_size(&client, 10).await;
    shut_down(first).await;
    let second = db.store().await;
    second.start_workers_with(without_integrator());
    write(&client, 1).await;
    eventually("the last entry has a position", || async {
        number(&client, "select count(*) from journal_positions").await == 11
    })
    .await;
    shut_down(second).await;
    let leaves = leaves(&client).await;
    let mut range = CompactRange::new();
    for leaf in leaves {
        range.push(leaf);
    }

    let mut other = db.client().await;
    let growing = other.transaction().await.unwrap();
    let lock = "lock table tree_tiles in access exclusive mode";
    growing.batch_execute(lock).await.unwrap();
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    eventually("it has read the head, and waits for the tiles", || async {
        let waits =
            "select count(*) from pg_locks where not granted and relation = 'tree_tiles'::regclass \
             and database = (select oid from pg_database where datname = current_database())";
        number(&client, waits).await > 0
    })
    .await;
    let head = HeadRow::authentic(11, range.root()).insert();
    let taken = "update sequencer_head set fence = fence + 1, holder = gen_random_uuid(), lease_until = '-infinity'";
    let tile = "update tree_tiles set hashes = hashes || (select leaf_hash from journal join journal_positions \
                using (stream_id, entity_seq) where position = 10) where level = 0";
    for grown in [head.as_str(), taken, tile] {
        growing.batch_execute(grown).await.unwrap();
    }
    growing.commit().await.unwrap();
    write(&client, 5).await;
    wait_for_size(&client, 16).await;
    assert_one_tree(&client).await;
    assert_eq!(alarms.taken(), [""; 0]);
    shut_down(store).await;
}

/// A database with a tree of 300 entries that nobody serves, changed by its owner. Then a store starts, and more
/// entries come: the tree must stand still, and say so.
async fn refuses_after(changes: &[&str]) {
    let db = TestDb::new().await;
    let client = db.client().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    write(&client, 100).await;
    wait_for_size(&client, 100).await;
    write(&client, 200).await;
    wait_for_size(&client, 300).await;
    shut_down(store).await;
    assert_eq!(alarms.taken(), [""; 0]);
    client
        .batch_execute("alter table tree_tiles disable trigger all")
        .await
        .unwrap();
    for change in changes {
        assert_eq!(client.execute(*change, &[]).await.unwrap(), 1, "{change}");
    }
    let largest = "select coalesce(max(tree_size), 0) from tree_heads";
    let before = number(&client, largest).await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    write(&client, 5).await;
    for _ in 0..2 {
        eventually("it is reported, and again", || async {
            alarms.taken_of("tree") > 0
        })
        .await;
    }
    assert_eq!(number(&client, largest).await, before);
    // Payments and the order of the log go on.
    eventually("the entries have positions", || async {
        number(&client, "select next_position from sequencer_head").await == 305
    })
    .await;
    shut_down(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_changed_tile_stops_the_tree() {
    refuses_after(&[
        "update tree_tiles set hashes = overlay(hashes placing decode(repeat('ab', 32), 'hex') from 33) \
         where level = 0 and tile_index = 1",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_changed_upper_tile_stops_the_tree() {
    refuses_after(&[
        "update tree_tiles set hashes = decode(repeat('ab', 32), 'hex') where level = 1",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_changed_head_stops_the_tree() {
    refuses_after(&[
        "update tree_heads set root_hash = decode(repeat('ab', 32), 'hex') where tree_size = 300",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_deleted_head_stops_the_tree() {
    refuses_after(&["delete from tree_heads where tree_size = 300"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_lost_tile_stops_the_tree() {
    refuses_after(&["delete from tree_tiles where level = 0 and tile_index = 1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_head_beyond_the_log_stops_the_tree() {
    let beyond = HeadRow::authentic(4_711, Hash::from_bytes([0xab; 32]));
    refuses_after(&[&beyond.insert()]).await;
}

/// What the application's own role can do: one more leaf in the last tile, a head that fits it, and a position.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_head_that_somebody_inserted_with_a_tile_that_fits_it_stops_the_tree_until_it_is_gone()
 {
    let db = TestDb::new().await;
    let client = db.client().await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    write(&client, 10).await;
    wait_for_size(&client, 10).await;
    shut_down(store).await;
    let grown = "set role quittance_app; \
                 update tree_tiles set hashes = hashes || decode(repeat('cd', 32), 'hex') where level = 0; \
                 insert into journal_positions select 10, nextval('journal_arrival'), stream_id, stream_id, 9, tenant_id \
                 from journal where arrival = 1; \
                 update sequencer_head set next_position = 11";
    client.batch_execute(grown).await.unwrap();
    let (store, _) = Alarms::watch(db.config()).await;
    let root = store.tree_root(11).await.unwrap();
    let of_another_key = HeadRow {
        mac_key_id: "key-3".to_owned(),
        ..HeadRow::made_up(11, root)
    };
    client
        .batch_execute(&of_another_key.insert())
        .await
        .unwrap();
    let read = store.tree_head().await;
    assert!(matches!(
        read,
        Err(TreeReadError::Damaged(TreeDamage::HeadKey))
    ));
    let remove = "reset role; delete from tree_heads where tree_size = 11";
    client.batch_execute(remove).await.unwrap();
    client
        .batch_execute(&HeadRow::made_up(11, root).insert())
        .await
        .unwrap();
    let read = store.tree_head().await;
    assert!(matches!(
        read,
        Err(TreeReadError::Damaged(TreeDamage::HeadMac))
    ));
    assert_eq!(alarms.taken(), [""; 0]);
    shut_down(store).await;
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    for _ in 0..2 {
        eventually("it is reported, and again", || async {
            alarms.taken_of("tree") > 0
        })
        .await;
    }
    // What was inserted goes; the log goes on.
    let mended = "delete from tree_heads where tree_size = 11; \
                  delete from journal_positions where position = 10; \
                  update sequencer_head set next_position = 10, fence = fence + 1; \
                  alter table tree_tiles disable trigger all; \
                  update tree_tiles set hashes = substr(hashes, 1, 320) where level = 0; \
                  alter table tree_tiles enable trigger all";
    client.batch_execute(mended).await.unwrap();
    write(&client, 5).await;
    wait_for_size(&client, 15).await;
    assert_one_tree(&client).await;
    shut_down(store).await;
}

/// Entries have their positions, and somebody changes one before the tree has it.
async fn refuses_entries_after(change: &str) {
    let db = TestDb::new().await;
    let client = db.client().await;
    let first = db.store().await;
    first.start_workers_with(without_integrator());
    write(&client, 20).await;
    eventually("every entry has a position", || async {
        number(&client, "select count(*) from journal_positions").await == 20
    })
    .await;
    shut_down(first).await;
    assert_eq!(client.execute(change, &[]).await.unwrap(), 1, "{change}");
    let (store, alarms) = Alarms::watch(db.config()).await;
    store.start_workers();
    eventually("it is reported", || async { alarms.taken_of("tree") > 0 }).await;
    assert_eq!(number(&client, "select count(*) from tree_heads").await, 0);
    shut_down(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_changed_after_it_got_its_position_never_enters_the_tree() {
    refuses_entries_after(
        "update journal set leaf = overlay(leaf placing '\\x7a'::bytea from 20) where arrival = 7",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_an_entry_deleted_after_it_got_its_position_stops_the_tree() {
    refuses_entries_after("delete from journal where arrival = 7").await;
}

#[tokio::test]
async fn i8_the_application_can_only_add_heads_and_checkpoints_and_let_tiles_grow() {
    let db = TestDb::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "insert into tree_tiles values (0, 0, decode(repeat('ab', 32), 'hex')); \
             insert into tree_heads (tree_size, root_hash, fence, mac, mac_key_id) \
             values (1, decode(repeat('ab', 32), 'hex'), 1, decode(repeat('ab', 32), 'hex'), 'key'); \
             set role quittance_app",
        )
        .await
        .unwrap();
    for refused in [
        "update tree_heads set tree_size = 2",
        "delete from tree_heads",
        "update checkpoints set note = ''",
        "delete from checkpoints",
        "delete from refused_entries",
        "delete from tree_tiles",
        "update tree_tiles set tile_index = 7",
        "update tree_tiles set hashes = decode(repeat('cd', 64), 'hex')",
    ] {
        assert!(client.batch_execute(refused).await.is_err(), "{refused}");
    }
    let grows = "update tree_tiles set hashes = hashes || decode(repeat('cd', 32), 'hex')";
    client.batch_execute(grows).await.unwrap();
}
