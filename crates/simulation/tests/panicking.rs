//! An adapter that panics over an answer.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use quittance_domain::change::{CommandKind, OperatorActionKind};
use quittance_domain::command::Create;
use quittance_domain::context::{Actor, ActorKind, Caller, Instance, Origin, TraceIds};
use quittance_domain::decline::Cause;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_domain::flows::{FlowSettings, Flows};
use quittance_domain::ids::{IdempotencyKey, ProviderAccount, TenantId};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{
    CaptureMethod, Initiator, PaymentMethod, PaymentMethodType, PaymentState,
};
use quittance_domain::ports::{
    Capabilities, Claim, Clock, DueKind, LookupQuery, Observer, Operation, Ports, Provider,
    ProviderRules, Providers, Randomness, Store as _, Unpreparable,
};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{
    LookupOutcome, OperationKind, PreparedRequest, SendOutcome, SendReport,
};
use quittance_domain::webhook::{
    Delivery, ProviderWebhooks, Unreadable, Unverified, VerifiedEvent, WebhookFact,
};
use quittance_simulation::executor::{Executor, Spawner};
use quittance_simulation::provider::{Nature, SimProvider};
use quittance_simulation::store::SimStore;
use uuid::Uuid;

/// Nobody knows what became of a send, and whoever asks makes it panic.
#[derive(Clone)]
struct Panicking(SimProvider);

impl ProviderRules for Panicking {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        self.0.prepare(operation)
    }
}

impl ProviderWebhooks for Panicking {
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        self.0.verify(delivery)
    }

    fn webhook(&self, body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        self.0.webhook(body)
    }
}

#[async_trait]
impl Provider for Panicking {
    async fn send(&self, _: &PreparedRequest, _: u32) -> SendReport {
        SendReport {
            outcome: SendOutcome::Unknown(Cause::UnreadableResponse),
            http_status: Some(200),
            response: None,
            latency_micros: 1,
            retry_after: None,
        }
    }

    async fn lookup(&self, _: &LookupQuery) -> LookupOutcome {
        panic!("the adapter did not expect this")
    }

    fn send_timeout(&self) -> Duration {
        self.0.send_timeout()
    }

    fn livemode(&self) -> bool {
        false
    }
}

impl Providers for Panicking {
    fn account(&self, _: &ProviderAccount) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(self.clone()))
    }

    fn serves(&self, _: &TenantId, _: &ProviderAccount) -> bool {
        true
    }

    fn names(&self) -> Vec<ProviderAccount> {
        vec![account()]
    }

    fn route(&self, _: &TenantId, _: Money, _: PaymentMethodType) -> Vec<ProviderAccount> {
        vec![account()]
    }
}

/// Time, ids and salts of the schedule; telemetry that nobody reads.
struct Site(Executor);

#[async_trait]
impl Clock for Site {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.wait(duration).await;
    }
}

impl Randomness for Site {
    fn uuid_v7(&self, _: DateTime<Utc>) -> Uuid {
        Uuid::from_u128(self.0.bits())
    }

    fn salt(&self) -> [u8; 16] {
        self.0.bits().to_be_bytes()
    }
}

impl Observer for Site {
    fn current_trace(&self) -> TraceIds {
        TraceIds::default()
    }

    fn attempt_ended(
        &self,
        _: &ProviderAccount,
        _: OperationKind,
        _: &'static str,
        _: Option<Cause>,
        _: f64,
    ) {
    }

    fn retried(&self, _: &ProviderAccount, _: OperationKind, _: &'static str) {}

    fn case_opened(&self, _: &ProviderAccount, _: OperatorActionKind) {}

    fn replayed(&self, _: CommandKind) {}
}

fn account() -> ProviderAccount {
    ProviderAccount::parse("first").unwrap()
}

fn caller() -> Caller {
    Caller {
        tenant: TenantId::parse("acme").unwrap(),
        actor: Actor {
            kind: ActorKind::Service,
            id: "client".to_owned(),
            auth_method: "api_key",
        },
        origin: Origin::default(),
        remote: None,
        deadline: None,
    }
}

fn purchase() -> Create {
    Create {
        idempotency_key: IdempotencyKey::parse("key").unwrap(),
        amount: Money::new(100, Currency::parse("EUR").unwrap()).unwrap(),
        method: PaymentMethod {
            kind: PaymentMethodType::Card,
            token: Some(Sensitive::new("tok".to_owned())),
            brand: Text::default(),
            last4: Text::default(),
            expiry_month: None,
            expiry_year: None,
        },
        capture_method: CaptureMethod::Automatic,
        merchant_reference: Text::default(),
        description: Text::default(),
        return_url: Text::default(),
        provider_account: None,
        customer: None,
        initiator: Initiator::Customer,
        mandate_reference: Text::default(),
        execute_before: None,
        metadata: std::collections::BTreeMap::new(),
    }
}

fn flows(executor: &Executor, store: &SimStore) -> Flows {
    let site = Arc::new(Site(executor.clone()));
    let provider = SimProvider::new(executor.clone(), store.clone(), Nature::default());
    let mut retries = RetryPolicy::default();
    retries.outcome.steps = 3;
    let settings = FlowSettings {
        instance: Instance {
            service: "quittance",
            version: "simulated",
            instance: "replica".to_owned(),
        },
        fingerprint_key: FingerprintKey::new([7; 32]),
        answer_margin: Duration::from_millis(100),
        default_wait: Duration::from_secs(30),
        max_decisions: 8,
        outcome_patience: Duration::from_secs(30),
        lease_margin: Duration::from_secs(15),
        retries,
    };
    let ports = Ports {
        store: Arc::new(store.clone()),
        providers: Arc::new(Panicking(provider)),
        clock: site.clone(),
        spawn: Arc::new(Spawner {
            executor: executor.clone(),
            process: 0,
        }),
        random: site.clone(),
        observer: site,
    };
    Flows::new(ports, settings)
}

#[test]
fn i3_what_makes_an_adapter_panic_is_shown_to_a_person_in_the_end() {
    let executor = Executor::new(1);
    let store = SimStore::new(executor.clone());
    let flows = flows(&executor, &store);
    let (runs, due_from) = (executor.clone(), store.clone());
    executor.spawn(0, async move {
        flows.create(&caller(), purchase()).await.unwrap();
        for _ in 0..20 {
            runs.wait(Duration::from_secs(600)).await;
            let claim = Claim {
                kind: DueKind::Any,
                limit: 10,
                lease: Duration::from_secs(60),
                except: Vec::new(),
            };
            for due in due_from.claim_due(&claim).await.unwrap() {
                flows.recover(&due).await.unwrap();
            }
        }
    });
    assert!(executor.run());
    let record = store.look(|tables| tables.payments.values().next().cloned().unwrap());
    assert_eq!(record.payment.state, PaymentState::Pending);
    let row = record.transactions.first().unwrap();
    assert_eq!(row.open_case, Some(OperatorActionKind::RecoveryExhausted));
    assert_eq!(row.next_step_at, None);
}
