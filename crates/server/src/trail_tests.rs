//! The record over a real database.

use std::net::Ipv4Addr;

use quittance_evidence::Leaf;
use quittance_test_support::{TestDb, eventually};
use toml::{Table, Value};

use super::*;
use crate::auth::Authenticated;
use crate::config::{Config, Sources};
use crate::server::{RunningServer, Server};

/// A limit that no busy machine comes to.
const LONG: Duration = Duration::from_secs(60);
const MASTER: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn config(db: &TestDb) -> Config {
    let text = |text: &str| Value::String(text.to_owned());
    let account = Table::from_iter([
        ("name".to_owned(), text("sandbox")),
        ("kind".to_owned(), text("sandbox")),
        ("base_url".to_owned(), text("http://127.0.0.1:1")),
        ("api_key".to_owned(), text("k")),
        ("allow_plaintext".to_owned(), Value::Boolean(true)),
    ]);
    let forced = vec![
        ("server.plaintext", Value::Boolean(true)),
        ("server.grpc_listen", text("127.0.0.1:0")),
        ("server.http_listen", text("127.0.0.1:0")),
        ("database.url", text(db.url())),
        ("database.allow_unsafe_durability", Value::Boolean(true)),
        // No limit is the subject here, and no busy machine comes to these.
        ("database.connect_timeout_ms", Value::Integer(60_000)),
        ("database.statement_timeout_ms", Value::Integer(60_000)),
        ("database.unavailable_after_ms", Value::Integer(60_000)),
        (
            "database.commit_resolution_timeout_ms",
            Value::Integer(60_000),
        ),
        ("secrets.keys", Value::Array(vec![text(MASTER)])),
        ("audit.enabled", Value::Boolean(false)),
        (
            "providers.accounts",
            Value::Array(vec![Value::Table(account)]),
        ),
    ];
    Config::load(&Sources {
        forced,
        ..Sources::default()
    })
    .unwrap()
}

async fn start(db: &TestDb) -> RunningServer {
    Server::start(config(db)).await.unwrap()
}

async fn entries(db: &TestDb, tenant: &str) -> Vec<Leaf> {
    let sql = "select leaf from journal where tenant_id = $1 order by entry_id";
    let rows = db.client().await.query(sql, &[&tenant]).await.unwrap();
    rows.iter()
        .map(|row| Leaf::decode(row.get(0)).unwrap())
        .collect()
}

fn types(entries: &[Leaf]) -> Vec<&str> {
    entries.iter().map(|leaf| &*leaf.event_type).collect()
}

#[tokio::test]
async fn start_and_stop_are_on_record() {
    let db = TestDb::new().await;
    let server = start(&db).await;
    let started = entries(&db, PLATFORM_TENANT).await;
    assert_eq!(types(&started), ["service.started"]);
    assert!(server.shutdown_recording_within(LONG).await);
    let both = entries(&db, PLATFORM_TENANT).await;
    assert_eq!(types(&both), ["service.started", "service.stopped"]);
    for leaf in &both {
        assert_eq!((&*leaf.actor.kind, &*leaf.actor.id), ("system", "server"));
        assert_eq!(leaf.details["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(leaf.details["instance"], leaf.source.instance);
    }
    assert_eq!(both[1].details["finished_in_time"], "true");
    assert_eq!(both[1].stream_id, both[0].stream_id);
}

#[tokio::test]
async fn refused_calls_are_on_record_at_the_latest_when_the_server_stops() {
    let db = TestDb::new().await;
    let server = start(&db).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc_addr()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client =
        quittance_proto::v1::payment_service_client::PaymentServiceClient::new(channel);
    for _ in 0..3 {
        let refused = client.get_payment(quittance_proto::v1::GetPaymentRequest::default());
        assert_eq!(
            refused.await.unwrap_err().code(),
            tonic::Code::Unauthenticated
        );
    }
    drop(client);
    server.shutdown_recording_within(LONG).await;
    let entries = entries(&db, PLATFORM_TENANT).await;
    assert_eq!(
        types(&entries),
        ["service.started", "access.refused", "service.stopped"]
    );
    let refused = &entries[1].details;
    assert_eq!(
        (&*refused["count"], &*refused["cause"]),
        ("3", "MISSING_CREDENTIALS")
    );
    assert_eq!(refused["peer"], "127.0.0.1");
    assert_eq!(entries[1].source.peer.as_deref(), Some("127.0.0.1"));
    assert_eq!(
        entries[1].source.rpc_method.as_deref(),
        Some("quittance.v1.PaymentService/GetPayment")
    );
}

fn refused(key: Option<&str>) -> (RefusedCaller, RefusedCalls) {
    let at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let who = RefusedCaller {
        caller: key.map(|key| Authenticated {
            tenant: TenantId::parse("acme").unwrap(),
            key_id: key.into(),
            name: "till".into(),
            roles: [Role::PaymentsRead].into_iter().collect(),
            auth_method: "api_key",
        }),
        account: None,
        peer: Some(Ipv4Addr::new(192, 0, 2, 7).into()),
        cause: "ROLE_REQUIRED",
    };
    let calls = RefusedCalls {
        count: 7,
        rpc: "quittance.v1.PaymentService/RefundPayment",
        first: at,
        last: at + chrono::TimeDelta::seconds(9),
    };
    (who, calls)
}

#[tokio::test]
async fn a_known_callers_refusals_are_in_its_own_tenants_record() {
    let db = TestDb::new().await;
    let server = start(&db).await;
    let (who, calls) = refused(Some("00000000000000aa"));
    server.refusals().count(who, calls);
    server.trail().record_refusals(server.refusals()).await;
    let entries = entries(&db, "acme").await;
    assert_eq!(types(&entries), ["access.refused"]);
    let leaf = &entries[0];
    assert_eq!(leaf.actor.id, "00000000000000aa");
    assert_eq!(leaf.details["count"], "7");
    assert_eq!(leaf.details["first_time"], "2026-09-21T14:13:20.000000Z");
    assert_eq!(leaf.details["last_time"], "2026-09-21T14:13:29.000000Z");
    server.shutdown_recording_within(LONG).await;
}

#[tokio::test]
async fn refusals_that_cannot_be_recorded_wait_for_the_database() {
    let db = TestDb::new().await;
    let server = start(&db).await;
    let owner = db.client().await;
    let close = "alter table journal add constraint closed check (event_type <> 'access.refused') not valid";
    owner.batch_execute(close).await.unwrap();
    let (who, calls) = refused(None);
    server.refusals().count(who.clone(), calls);
    server.trail().record_refusals(server.refusals()).await;
    let open = "alter table journal drop constraint closed";
    owner.batch_execute(open).await.unwrap();
    let (_, more) = refused(None);
    server.refusals().count(who, more);
    server.trail().record_refusals(server.refusals()).await;
    let entries = entries(&db, PLATFORM_TENANT).await;
    assert_eq!(types(&entries), ["service.started", "access.refused"]);
    assert_eq!(entries[1].details["count"], "14");
    server.shutdown_recording_within(LONG).await;
}

#[tokio::test]
async fn refusals_are_recorded_again_and_again_while_the_server_runs() {
    let db = TestDb::new().await;
    let server = start(&db).await;
    let (refusals, stop) = (Refusals::default(), CancellationToken::new());
    let trail = server.trail().clone();
    let every = Duration::from_millis(5);
    let keeping = tokio::spawn(trail.keep_refusals(refusals.clone(), every, stop.clone()));
    for times in 1..=2 {
        let (who, calls) = refused(Some("00000000000000aa"));
        refusals.count(who, calls);
        let there = async || entries(&db, "acme").await.len() == times;
        eventually("an entry of the refused calls", there).await;
    }
    stop.cancel();
    keeping.await.unwrap();
    server.shutdown_recording_within(LONG).await;
}
