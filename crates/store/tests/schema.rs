//! The schema: comments, names, privileges, partitions, and the way back.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::default_trait_access,
    reason = "a test reads like its story, and one that cannot go on panics"
)]

use std::collections::BTreeSet;

use quittance_domain::change::{CommandKind, OperatorActionKind};
use quittance_domain::notification::{EndpointState, NotificationCause, NotificationState};
use quittance_domain::payment::{CaptureMethod, Initiator, PaymentMethodType, PaymentState};
use quittance_domain::ports::{Commit, Store};
use quittance_domain::transaction::{
    AttemptOutcome, OperationKind, TransactionKind, TransactionOrigin, TransactionState,
};
use quittance_domain::webhook::{WebhookReason, WebhookState};
use quittance_store::{DatabaseTls, PgStore, Refusal, StoreStartError, Unobserved};
use quittance_test_support::{Story, TestDb, test_keys};
use tokio_postgres::Client;

async fn names(client: &Client, sql: &str) -> BTreeSet<String> {
    client
        .query(sql, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test]
async fn every_table_column_and_sequence_has_a_comment() {
    let db = TestDb::new().await;
    let without = "\
        select c.relname || coalesce('.' || a.attname, '') \
        from pg_class c \
        left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
            and c.relkind <> 'S' \
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'S') \
          and not c.relispartition and c.relname <> '__diesel_schema_migrations' \
          and (col_description(c.oid, a.attnum) is null and a.attnum is not null \
               or obj_description(c.oid, 'pg_class') is null)";
    assert_eq!(names(&db.client().await, without).await, BTreeSet::new());
}

#[tokio::test]
async fn every_constraint_is_mapped_and_every_mapped_one_exists() {
    let db = TestDb::new().await;
    let constraints = "\
        select conname::text from pg_constraint c join pg_class t on t.oid = c.conrelid \
        where c.connamespace = 'public'::regnamespace and not t.relispartition \
          and t.relname <> '__diesel_schema_migrations' and contype <> 'n'";
    let in_database = names(&db.client().await, constraints).await;
    let mapped = quittance_store::constraint_names()
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(in_database, mapped);
}

fn all<T: Copy>(values: &[T], name: fn(T) -> &'static str) -> BTreeSet<String> {
    values.iter().map(|value| name(*value).to_owned()).collect()
}

#[tokio::test]
async fn the_names_that_the_database_knows_are_the_domains() {
    let cases = [
        (
            "payments_state_known",
            all(PaymentState::ALL, PaymentState::name),
        ),
        (
            "payments_method_kind_known",
            all(PaymentMethodType::ALL, PaymentMethodType::name),
        ),
        (
            "payments_capture_method_known",
            all(CaptureMethod::ALL, CaptureMethod::name),
        ),
        (
            "payments_initiator_known",
            all(Initiator::ALL, Initiator::name),
        ),
        (
            "transactions_kind_known",
            all(TransactionKind::ALL, TransactionKind::name),
        ),
        (
            "transactions_origin_known",
            all(TransactionOrigin::ALL, TransactionOrigin::name),
        ),
        (
            "transactions_state_known",
            all(TransactionState::ALL, TransactionState::name),
        ),
        (
            "transactions_open_case_known",
            all(OperatorActionKind::ALL, OperatorActionKind::name),
        ),
        (
            "attempts_operation_known",
            all(OperationKind::ALL, OperationKind::name),
        ),
        (
            "attempts_outcome_known",
            all(AttemptOutcome::ALL, AttemptOutcome::name),
        ),
        (
            "idempotency_records_command_known",
            all(CommandKind::ALL, CommandKind::name),
        ),
        (
            "operator_actions_kind_known",
            all(OperatorActionKind::ALL, OperatorActionKind::name),
        ),
        (
            "webhook_inbox_state_known",
            all(WebhookState::ALL, WebhookState::name),
        ),
        (
            "webhook_inbox_reason_known",
            all(WebhookReason::ALL, WebhookReason::name),
        ),
        (
            "refused_entries_reason_known",
            all(Refusal::ALL, Refusal::name),
        ),
        (
            "notification_endpoints_state_known",
            all(EndpointState::ALL, EndpointState::name),
        ),
        (
            "notification_deliveries_state_known",
            all(NotificationState::ALL, NotificationState::name),
        ),
        (
            "notification_deliveries_cause_known",
            all(NotificationCause::ALL, NotificationCause::name),
        ),
    ];
    let db = TestDb::new().await;
    let client = db.client().await;
    let quoted = "\
        select m[1] from pg_constraint c join pg_class t on t.oid = c.conrelid, \
             regexp_matches(pg_get_constraintdef(c.oid), '''([A-Za-z_]+)''::text', 'g') m \
        where c.conname::text = $1 and not t.relispartition";
    for (constraint, names) in cases {
        let rows = client.query(quoted, &[&constraint]).await.unwrap();
        let known: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(known, names, "{constraint}");
    }
}

#[tokio::test]
async fn i8_the_application_cannot_change_or_delete_journal_rows() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store
        .commit(Story::accept("acme", "key-1", 1_000).1)
        .await
        .unwrap();
    let client = db.client().await;
    client
        .batch_execute("set role quittance_app")
        .await
        .unwrap();
    let partition = "select tableoid::regclass::text from journal";
    let partition: String = client.query_one(partition, &[]).await.unwrap().get(0);
    for table in ["journal", "journal_positions", &partition] {
        for statement in [
            format!("update {table} set arrival = 1"),
            format!("delete from {table}"),
            format!("truncate {table}"),
            format!("drop table {table}"),
            format!("alter table {table} disable trigger all"),
        ] {
            let error = client.batch_execute(&statement).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "42501", "{statement}");
        }
    }
    for statement in [
        "delete from payments",
        "truncate payments",
        "delete from idempotency_records",
        "update idempotency_records set command = 'CreatePayment'",
        "update customers set data_key = ''",
        "update api_keys set roles = '{admin}'",
        "select setval('journal_arrival', 1)",
        "create table mine (id int)",
        "delete from __diesel_schema_migrations",
    ] {
        let error = client.batch_execute(statement).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{statement}");
    }
}

/// The folders of all migrations, oldest first.
fn migrations() -> Vec<std::path::PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let mut folders: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("up.sql").exists())
        .collect();
    folders.sort();
    folders
}

#[tokio::test]
async fn migrations_go_down_and_up_again_and_may_run_side_by_side() {
    let db = TestDb::unmigrated().await;
    let tls = DatabaseTls::default();
    let (first, second) = tokio::join!(
        PgStore::migrate(db.url(), &tls),
        PgStore::migrate(db.url(), &tls),
    );
    let run = [first.unwrap().len(), second.unwrap().len()];
    assert!(
        run.contains(&0) && run.contains(&migrations().len()),
        "{run:?}"
    );
    let client = db.client().await;
    for folder in migrations().iter().rev() {
        let down = folder.join("down.sql");
        let sql = std::fs::read_to_string(&down).unwrap();
        client
            .batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{down:?}: {error:?}"));
    }
    let left = "select relname::text from pg_class where relnamespace = 'public'::regnamespace";
    let left = names(&client, left).await;
    let all_ours = left
        .iter()
        .all(|name| name.starts_with("__diesel_schema_migrations"));
    assert!(all_ours, "{left:?}");
    client
        .batch_execute("truncate __diesel_schema_migrations")
        .await
        .unwrap();
    let again = PgStore::migrate(db.url(), &tls).await.unwrap();
    assert_eq!(again.len(), migrations().len());
}

#[tokio::test]
async fn partitions_are_made_ahead_and_nothing_is_refused_for_want_of_one() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let client = db.client().await;
    let tables = ["payments", "transactions", "attempts", "journal"];
    for table in tables {
        let count =
            format!("select count(*) from pg_inherits where inhparent = '{table}'::regclass");
        let count: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
        // A migration on the last day of a month may have made one less than this month wants.
        assert!(count >= 4, "{table}: {count}");
    }
    store.create_partitions().await.unwrap();
    assert_eq!(store.create_partitions().await, Ok(0));
    let (_, change) = Story::accept("acme", "key-1", 1_000);
    store.commit(change).await.unwrap();
    // An id of a month that has no partition.
    let (mut story, mut old) = Story::accept("acme", "key-2", 1_000);
    let id = uuid::Uuid::from_u128(0x0180_0000_0000_7000_8000_0000_0000_0001);
    let id = quittance_domain::ids::PaymentId(id);
    (
        story.payment.id,
        old.payment.id,
        old.entry.payment,
        old.entry.stream,
    ) = (id, id, Some(id), id.0);
    old.idempotency.as_mut().unwrap().payment = id;
    assert_eq!(store.commit(old).await, Ok(Commit::Committed));
    assert_eq!(
        store.commit(story.authorized()).await,
        Ok(Commit::Committed)
    );
    for table in tables {
        let month = chrono::Utc::now().format("p%Y%m");
        let default = format!("select count(*) from {table}_default");
        let current = format!("select count(*) from {table}_{month}");
        let default: i64 = client.query_one(&default, &[]).await.unwrap().get(0);
        let current: i64 = client.query_one(&current, &[]).await.unwrap().get(0);
        assert_eq!((default > 0, current), (true, 1), "{table}");
    }
    // That month's rows lie in the default partition already: passed over, not failed.
    let made = "select quittance_create_partitions('2022-04-01', 1)";
    let made: i32 = client.query_one(made, &[]).await.unwrap().get(0);
    assert_eq!(made, 0);
}

#[tokio::test]
async fn a_database_that_payments_cannot_be_trusted_to_is_refused() {
    let db = TestDb::unmigrated().await;
    let mut config = db.config();
    config.application_role = None;
    let store = PgStore::connect(config, std::sync::Arc::new(Unobserved))
        .await
        .unwrap();
    let pending = store.check_durability(false).await.unwrap_err();
    assert!(
        matches!(pending, StoreStartError::PendingMigrations { count, .. } if count == migrations().len()),
        "{pending}"
    );
    PgStore::migrate(db.url(), &DatabaseTls::default())
        .await
        .unwrap();
    store.check_durability(false).await.unwrap();
    let client = db.client().await;
    let off = format!("alter database {} set synchronous_commit = off", db.name());
    client.batch_execute(&off).await.unwrap();
    let refused = store.check_durability(false).await.unwrap_err();
    let off = matches!(
        refused,
        StoreStartError::NotDurable {
            setting: "synchronous_commit"
        }
    );
    assert!(off, "{refused}");
    store.check_durability(true).await.unwrap();
}

#[tokio::test]
async fn a_store_does_not_start_without_its_role_or_its_database() {
    let db = TestDb::new().await;
    let mut config = db.config();
    config.application_role = Some("no_such_role".to_owned());
    let error = PgStore::connect(config, std::sync::Arc::new(Unobserved))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreStartError::Role { .. }), "{error}");
    let nowhere = "postgres://u:hunter2@127.0.0.1:1/q";
    let config = quittance_store::StoreConfig::new(nowhere, test_keys());
    assert!(!format!("{config:?}").contains("hunter2"));
    let error = PgStore::connect(config, std::sync::Arc::new(Unobserved))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreStartError::Connect(_)), "{error}");
    assert!(!error.to_string().contains("hunter2"));
}

/// The bounds of a month's partition in UTC.
fn month_bounds(year: i32, month: u32) -> String {
    let floor = |year, month| {
        let first = chrono::NaiveDate::from_ymd_opt(year, month, 1).unwrap();
        let millis = first
            .and_time(chrono::NaiveTime::MIN)
            .and_utc()
            .timestamp_millis();
        uuid::Uuid::from_u128(u128::try_from(millis).unwrap() << 80)
    };
    let next = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    let (from, to) = (floor(year, month), floor(next.0, next.1));
    format!("FOR VALUES FROM ('{from}') TO ('{to}')")
}

#[tokio::test]
async fn partitions_are_months_of_utc_whatever_zone_the_database_is_in() {
    for zone in ["America/New_York", "Europe/Berlin", "Pacific/Kiritimati"] {
        let db = TestDb::unmigrated().await;
        let set = format!("alter database {} set timezone = '{zone}'", db.name());
        db.client().await.batch_execute(&set).await.unwrap();
        PgStore::migrate(db.url(), &DatabaseTls::default())
            .await
            .unwrap();
        let client = db.client().await;
        let shown = client.query_one("show timezone", &[]).await.unwrap();
        assert_eq!(shown.get::<_, &str>(0), zone);
        // Both changes of the clocks, and the end of a year.
        let made = "select quittance_create_partitions('2031-01-31', 14)";
        let made: i32 = client.query_one(made, &[]).await.unwrap().get(0);
        assert_eq!(made, 4 * 14, "{zone}");
        for number in 0..14 {
            let (year, month) = (2031 + number / 12, u32::try_from(number % 12 + 1).unwrap());
            for table in ["payments", "transactions", "attempts", "journal"] {
                let bounds = format!(
                    "select pg_get_expr(relpartbound, oid) from pg_class \
                     where relname = '{table}_p{year}{month:02}'"
                );
                let bounds: String = client.query_one(&bounds, &[]).await.unwrap().get(0);
                assert_eq!(bounds, month_bounds(year, month), "{zone}, {table}");
            }
        }
    }
}
