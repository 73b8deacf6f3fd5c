//! The registry's accounts over real sockets: what a failing, slow or overloaded provider still gets
//! to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::builders::{self, eur};
use crate::support::server::{Act, Scripted, response};
use quittance_domain::decline::Cause;
use quittance_domain::ids::{ProviderAccount, TenantId};
use quittance_domain::payment::PaymentMethodType;
use quittance_domain::ports::{Circuit, LookupQuery, Provider, Providers as _, Saturated};
use quittance_domain::transaction::{
    LookupOutcome, OperationKind, PreparedRequest, SendOutcome, SendReport, Transaction,
};
use quittance_providers::config::{ProviderAccountConfig, ProvidersConfig, Secret};
use quittance_providers::guard::{CircuitConfig, Guarded};
use quittance_providers::registry::Registry;
use quittance_providers::sandbox::Sandbox;

const PAUSE: Duration = Duration::from_secs(5);

fn config(name: &str, base_url: &str) -> ProviderAccountConfig {
    ProviderAccountConfig {
        // No busy machine comes to these.
        connect_timeout_ms: 50_000,
        total_timeout_ms: 100_000,
        allow_plaintext: true,
        max_concurrent_calls: 2,
        circuit: CircuitConfig {
            min_calls: 2,
            jitter_percent: 0,
            half_open_probes: 1,
            ..CircuitConfig::default()
        },
        ..ProviderAccountConfig::new(
            name,
            quittance_providers::sandbox::KIND,
            base_url,
            Secret::new("key"),
        )
    }
}

/// Accounts at scripted servers, under a clock that the test moves.
struct World {
    registry: Registry,
    millis: Arc<AtomicU64>,
}

impl World {
    fn new(accounts: &[(&str, &Scripted)]) -> Self {
        let millis = Arc::new(AtomicU64::new(0));
        let guarded = accounts.iter().map(|(name, server)| {
            let config = config(name, &server.base_url());
            let millis = Arc::clone(&millis);
            Guarded::new(
                config.account().unwrap(),
                Arc::new(Sandbox::new(&config, |_| {}).unwrap()),
                config.guard_settings().unwrap(),
                Arc::new(move || Duration::from_millis(millis.load(Ordering::SeqCst))),
            )
        });
        let registry = Registry::new(guarded.collect(), &[]).unwrap();
        Self { registry, millis }
    }

    fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    fn account(&self, name: &str) -> Arc<dyn Provider> {
        let name = ProviderAccount::parse(name).unwrap();
        self.registry.account(&name).unwrap()
    }

    fn route(&self) -> Vec<String> {
        let tenant = TenantId::parse("shop").unwrap();
        let accounts = self
            .registry
            .route(&tenant, eur(1), PaymentMethodType::Card);
        accounts.iter().map(ToString::to_string).collect()
    }
}

/// A purchase and the bytes that its sends carry.
fn purchase(account: &dyn Provider) -> (Transaction, PreparedRequest) {
    let payment = builders::payment("tok_approve", None);
    let transaction = builders::transaction(&payment, OperationKind::Purchase, 1000);
    let asked = builders::operation(OperationKind::Purchase, &payment, &transaction, &[]);
    let request = account.prepare(&asked).unwrap();
    (transaction, request)
}

async fn send(account: &dyn Provider) -> SendReport {
    account.send(&purchase(account).1, 1).await
}

async fn lookup(account: &dyn Provider, transaction: &Transaction) -> LookupOutcome {
    let query = LookupQuery {
        transaction: transaction.id,
        kind: transaction.kind,
        origin: transaction.origin,
        provider_reference: None,
        payment_reference: None,
    };
    account.lookup(&query).await
}

fn unavailable(cause: Cause, seconds: Option<u64>) -> LookupOutcome {
    LookupOutcome::Unavailable {
        cause,
        retry_after: seconds.map(Duration::from_secs),
    }
}

fn approved(transaction: &Transaction) -> Act {
    let body = format!(
        r#"{{"id": "sop_1", "payment_id": "spay_1", "reference": "{}", "kind": "purchase",
            "status": "approved", "amount": 1000, "currency": "EUR",
            "created_at": "2026-01-02T03:04:05Z"}}"#,
        transaction.id
    );
    Act::Answer(response(200, "", &body))
}

fn failed(status: u16, headers: &str) -> Act {
    Act::Answer(response(status, headers, "{}"))
}

#[tokio::test]
async fn s18_rate_limits_are_passed_on_with_their_wait_and_open_no_circuit() {
    let date = "date: Sun, 06 Nov 1994 08:49:07 GMT\r\n\
                retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let limited = |_| failed(429, "retry-after: 7\r\n");
    let script = (0..4).map(limited).chain((0..2).map(|_| failed(429, date)));
    let server = Scripted::start(script.collect()).await;
    let world = World::new(&[("one", &server)]);
    let account = world.account("one");
    let (transaction, request) = purchase(account.as_ref());
    // A first send and a resend alike: that nothing was sent is told of this send alone.
    for seconds in [7, 30] {
        for number in 1..=2 {
            let report = account.send(&request, number).await;
            assert_eq!(report.outcome, SendOutcome::NotSent(Cause::RateLimited));
            assert_eq!(report.retry_after, Some(Duration::from_secs(seconds)));
            if seconds == 7 {
                let looked_up = lookup(account.as_ref(), &transaction).await;
                assert_eq!(looked_up, unavailable(Cause::RateLimited, Some(7)));
            }
        }
    }
    assert_eq!(server.received().len(), 6);
    assert_eq!(account.circuit(), Circuit::Closed);
}

#[tokio::test]
async fn s18_a_wait_of_hours_is_passed_on_and_cut_to_a_day() {
    let asked = [3_601, 21_600, 86_400, 90_000];
    let limited = |seconds| failed(429, &format!("retry-after: {seconds}\r\n"));
    let server = Scripted::start(asked.map(limited).into()).await;
    let world = World::new(&[("one", &server)]);
    let account = world.account("one");
    let (_, request) = purchase(account.as_ref());
    for seconds in asked {
        let report = account.send(&request, 1).await;
        let passed_on = Duration::from_secs(seconds.min(86_400));
        assert_eq!(report.retry_after, Some(passed_on));
    }
}

#[tokio::test]
async fn s69_calls_above_the_limit_get_no_place_and_nothing_is_sent() {
    let server = Scripted::start(Vec::new()).await;
    let world = World::new(&[("one", &server)]);
    let account = world.account("one");
    let places = [account.reserve().unwrap(), account.reserve().unwrap()];
    assert_eq!(account.reserve().unwrap_err(), Saturated);
    assert_eq!(server.connections(), 0);
    drop(places);
    assert!(account.reserve().is_ok());
}

#[tokio::test]
async fn s70_an_open_circuit_writes_nothing_and_closes_when_a_probe_succeeds() {
    let server = Scripted::start(vec![failed(500, ""), failed(503, "retry-after: 9\r\n")]).await;
    let world = World::new(&[("one", &server)]);
    let account = world.account("one");
    let (transaction, request) = purchase(account.as_ref());
    let report = account.send(&request, 1).await;
    assert_eq!(report.outcome, SendOutcome::Unknown(Cause::ProviderError));
    assert_eq!(
        lookup(account.as_ref(), &transaction).await,
        unavailable(Cause::ProviderError, Some(9))
    );
    assert_eq!(account.circuit(), Circuit::Open);

    let report = account.send(&request, 2).await;
    assert_eq!(report.outcome, SendOutcome::NotSent(Cause::CircuitOpen));
    assert_eq!((report.latency_micros, report.http_status), (0, None));
    assert_eq!(
        lookup(account.as_ref(), &transaction).await,
        unavailable(Cause::CircuitOpen, Some(PAUSE.as_secs()))
    );
    assert_eq!(
        server.received().len(),
        2,
        "an open circuit let a request through"
    );

    // The first probe fails: the pause doubles. The second succeeds.
    server.then(failed(500, ""));
    world.pass(PAUSE);
    assert_eq!(account.circuit(), Circuit::HalfOpen);
    account.send(&request, 3).await;
    assert_eq!(account.circuit(), Circuit::Open);
    world.pass(PAUSE);
    assert_eq!(account.circuit(), Circuit::Open);
    world.pass(PAUSE);
    server.then(approved(&transaction));
    assert!(matches!(
        lookup(account.as_ref(), &transaction).await,
        LookupOutcome::Found(_)
    ));
    assert_eq!(account.circuit(), Circuit::Closed);
    assert_eq!(server.received().len(), 4);
}

#[tokio::test]
async fn s70_accounts_with_an_open_circuit_are_routed_to_last() {
    let failing = Scripted::start(vec![failed(500, ""), failed(500, "")]).await;
    let other = Scripted::start(Vec::new()).await;
    let world = World::new(&[("one", &failing), ("two", &other), ("three", &other)]);
    assert_eq!(world.route(), ["one", "two", "three"]);
    for _ in 0..2 {
        send(world.account("one").as_ref()).await;
    }
    assert_eq!(world.route(), ["two", "three", "one"]);
    let circuits = world.registry.circuits().into_iter();
    let circuits = circuits.map(|(name, circuit)| (name.to_string(), circuit));
    assert_eq!(
        circuits.collect::<Vec<_>>(),
        [
            ("one".to_owned(), Circuit::Open),
            ("two".to_owned(), Circuit::Closed),
            ("three".to_owned(), Circuit::Closed),
        ]
    );
    // Once its pause is over it is first again: else nothing would ever try it.
    world.pass(PAUSE);
    assert_eq!(world.route(), ["one", "two", "three"]);
}

#[tokio::test]
async fn s70_every_account_has_a_circuit_of_its_own_by_configuration() {
    let server = Scripted::start(vec![failed(500, ""), failed(500, "")]).await;
    let accounts = ["one", "two"].map(|name| config(name, &server.base_url()));
    let config = ProvidersConfig {
        accounts: accounts.into(),
        routing: Vec::new(),
    };
    let registry = Registry::from_config(&config, |_| {}).unwrap();
    let names = registry.names();
    let one = registry.account(&names[0]).unwrap();
    for _ in 0..2 {
        send(one.as_ref()).await;
    }
    let circuits: Vec<_> = registry.circuits().into_iter().map(|(_, it)| it).collect();
    assert_eq!(circuits, [Circuit::Open, Circuit::Closed]);
}
