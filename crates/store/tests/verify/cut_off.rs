//! Payments whose last entries somebody cut off: no false last entry is to be stated of them.

use std::collections::BTreeSet;

use quittance_domain::ids::PaymentId;
use quittance_store::PgStore;
use tokio_postgres::Client;
use uuid::Uuid;

use super::grown;

/// Tables that are put back after each change.
const TABLES: [&str; 3] = ["journal", "payments", "transactions"];

async fn compared(store: &PgStore, payment: Uuid) -> BTreeSet<&'static str> {
    let found = store.compare_with_entries(PaymentId(payment)).await;
    found.unwrap().iter().map(|it| it.fault.code()).collect()
}

async fn change(client: &Client, payment: Uuid, sql: &str) {
    let sql = sql.replace("$payment", &format!("'{payment}'::uuid"));
    client.batch_execute(&sql).await.unwrap();
}

/// Of one payment.
async fn put_back(client: &Client, payment: Uuid) {
    for (table, column) in TABLES
        .into_iter()
        .zip(["stream_id", "payment_id", "payment_id"])
    {
        let sql = format!(
            "delete from {table} where {column} = $payment; \
             insert into {table} select * from saved_{table} where {column} = $payment"
        );
        change(client, payment, &sql).await;
    }
}

/// Payments, with the number of the newest entry of each.
async fn payments(client: &Client) -> Vec<(Uuid, i64)> {
    let sql = "select payment_id::text, version from payments order by payment_id";
    let rows = client.query(sql, &[]).await.unwrap();
    let id = |text: &str| Uuid::parse_str(text).unwrap();
    let rows = rows.iter().map(|row| (id(row.get(0)), row.get(1)));
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn s75_a_payment_whose_end_was_cut_off_is_not_as_its_newest_entry_left_it() {
    let (_db, store, client) = grown(200).await;
    for table in TABLES {
        let saved = format!("create table saved_{table} as table {table}");
        client.batch_execute(&saved).await.unwrap();
    }
    let payments = payments(&client).await;
    // A payment is compared whether its customer can be read or not: that says nothing of entries.
    client.batch_execute("delete from customers").await.unwrap();
    for (payment, _) in &payments {
        assert_eq!(compared(&store, *payment).await, BTreeSet::new());
    }
    let several = payments.iter().filter(|(_, version)| *version > 1).take(40);
    for (number, (payment, version)) in several.enumerate() {
        let shorten = match number % 2 {
            0 => "delete from journal",
            _ => "update journal set mac = sha256('x')",
        };
        let left = version - 1;
        for set_back in [
            format!("version = {left}"),
            format!(
                "version = {left}, last_leaf_hash = (select leaf_hash from journal \
                 where stream_id = $payment and entity_seq = {left})"
            ),
        ] {
            let sql = format!(
                "{shorten} where stream_id = $payment and entity_seq > {left}; \
                 update payments set {set_back} where payment_id = $payment"
            );
            change(&client, *payment, &sql).await;
            let newest = store.newest_entry(None, PaymentId(*payment)).await.unwrap();
            assert_eq!(newest, u64::try_from(left).ok(), "it would be stated");
            let found = compared(&store, *payment).await;
            assert_ne!(found, BTreeSet::new(), "{sql}");
            put_back(&client, *payment).await;
            assert_eq!(compared(&store, *payment).await, BTreeSet::new());
        }
    }
    let (payment, _) = payments.first().unwrap();
    let gone = "delete from payments where payment_id = $payment";
    change(&client, *payment, gone).await;
    assert!(compared(&store, *payment).await.contains("PAYMENT_MISSING"));
}

/// What the application's own role can put in keeps nobody's evidence back.
#[tokio::test(flavor = "multi_thread")]
async fn s75_rows_put_in_behind_a_payments_newest_entry_are_not_taken_for_entries_of_it() {
    let (_db, store, client) = grown(50).await;
    let (payment, version) = *payments(&client).await.first().unwrap();
    let columns =
        "tenant_id, payment_id, event_type, result, actor, source, occurred_at, leaf, leaf_hash";
    let put_in = format!(
        "set role quittance_app; \
         insert into journal (stream_id, entity_seq, entry_id, {columns}, mac, mac_key_id, arrival) \
         select stream_id, n, gen_random_uuid(), {columns}, mac, mac_key_id, 4000000000000000000 + n \
         from journal, generate_series({version} + 1, {version} + 3000) n \
         where stream_id = $payment and entity_seq = {version}; reset role"
    );
    change(&client, payment, &put_in).await;
    assert_eq!(compared(&store, payment).await, BTreeSet::new());
}
