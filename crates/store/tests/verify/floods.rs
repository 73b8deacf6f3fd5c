//! What somebody puts in by the thousand, or makes long, is told of and does not fill the memory.

use quittance_domain::verification::Mismatch;
use quittance_store::measured_columns;
use quittance_test_support::TestDb;

use super::{codes, grown, signing, tampering, verify, verify_against};

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
