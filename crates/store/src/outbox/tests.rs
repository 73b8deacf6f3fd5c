use quittance_test_support::TestDb;

use super::*;

/// A log as it lies behind the cursor, of payments with one entry each.
const FILL: &str = "\
    insert into journal \
        (stream_id, entity_seq, entry_id, tenant_id, payment_id, event_type, result, actor, source, occurred_at, \
         leaf, leaf_hash, mac, mac_key_id, arrival) \
    select id, 1, gen_random_uuid(), 'acme', id, 'payment.captured', 'success', '', '', now(), \
           repeat('x', 1500)::bytea, sha256(''), sha256(''), '1', n \
    from (select n, quittance_uuid_floor(now() + make_interval(secs => n)) as id from generate_series(1, 5000) n) t; \
    insert into journal_positions (position, arrival, entry_id, stream_id, entity_seq, tenant_id) \
    select arrival - 1, arrival, entry_id, stream_id, entity_seq, tenant_id from journal; \
    update notification_cursor set next_position = 4990; \
    update sequencer_head set next_position = 5000";

const ENDPOINT: &str = "\
    insert into tenants (tenant_id) values ('acme'); \
    insert into notification_endpoints (endpoint_id, tenant_id, url, description, event_types, secret) \
    values (gen_random_uuid(), 'acme', 'sealed', '', '{}', 'sealed')";

/// Every wake of every process does this: what it costs must not grow with the log.
#[tokio::test]
async fn the_plan_reads_no_more_of_the_log_than_it_makes_notifications_of() {
    let db = TestDb::new().await;
    let client = db.client().await;
    client.batch_execute(FILL).await.unwrap();
    // Without statistics, as a new partition is; and with them. Without an endpoint, and with one.
    for prepare in ["select 1", "analyze", ENDPOINT, "analyze"] {
        client.batch_execute(prepare).await.unwrap();
        client.batch_execute("begin").await.unwrap();
        let explain =
            format!("explain (analyze, costs off, timing off) {PLAN}").replace("$1", "256");
        let lines = client.query(&explain, &[]).await.unwrap();
        client.batch_execute("rollback").await.unwrap();
        let plan: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
        let mut read = plan.iter().filter(|line| line.contains(" on journal"));
        // Ten entries at most, each at once or one by one, however many there are in the log.
        assert!(
            read.all(|line| line.contains("never executed") || rows(line) <= 10),
            "{prepare}: {}",
            plan.join("\n")
        );
        assert!(
            !plan
                .iter()
                .any(|line| line.contains("Rows Removed by Filter")),
            "{}",
            plan.join("\n")
        );
    }
}

/// How many rows a step of a plan answered; PostgreSQL 18 writes `10.00`.
fn rows(step: &str) -> u32 {
    let (_, rest) = step.split_once("actual rows=").unwrap();
    rest.split([' ', '.']).next().unwrap().parse().unwrap()
}
