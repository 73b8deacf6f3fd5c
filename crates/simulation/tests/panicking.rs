//! An adapter that panics over an answer.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::decline::Cause;
use quittance_domain::flows::Flows;
use quittance_domain::ids::{IdempotencyKey, ProviderAccount, TenantId};
use quittance_domain::money::Money;
use quittance_domain::payment::{PaymentMethodType, PaymentState};
use quittance_domain::ports::{
    Capabilities, Claim, DueKind, LookupQuery, Operation, Ports, Provider, ProviderRules,
    Providers, Store as _, Unpreparable,
};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::transaction::{LookupOutcome, PreparedRequest, SendOutcome, SendReport};
use quittance_domain::webhook::{
    Delivery, ProviderWebhooks, Unreadable, Unverified, VerifiedEvent, WebhookFact,
};
use quittance_simulation::executor::{Executor, Spawner};
use quittance_simulation::provider::{Nature, SimProvider};
use quittance_simulation::store::SimStore;
use quittance_simulation::world::{Dice, Nobody, caller, purchase, settings};

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

fn account() -> ProviderAccount {
    ProviderAccount::parse("first").unwrap()
}

fn flows(executor: &Executor, store: &SimStore) -> Flows {
    let provider = SimProvider::new(executor.clone(), store.clone(), Nature::default());
    let mut retries = RetryPolicy::default();
    retries.outcome.steps = 3;
    let ports = Ports {
        store: Arc::new(store.clone()),
        providers: Arc::new(Panicking(provider)),
        clock: Arc::new(executor.clone()),
        spawn: Arc::new(Spawner {
            executor: executor.clone(),
            process: 0,
        }),
        random: Arc::new(Dice(executor.clone())),
        observer: Arc::new(Nobody),
    };
    Flows::new(ports, settings("replica".to_owned(), retries, [7; 32]))
}

#[test]
fn i3_what_makes_an_adapter_panic_is_shown_to_a_person_in_the_end() {
    let executor = Executor::new(1);
    let store = SimStore::new(executor.clone());
    let flows = flows(&executor, &store);
    let (runs, due_from) = (executor.clone(), store.clone());
    executor.spawn(0, async move {
        let key = IdempotencyKey::parse("key").unwrap();
        let caller = caller(&runs, false);
        flows.create(&caller, purchase(key)).await.unwrap();
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
    let asked = row
        .open_cases
        .contains(OperatorActionKind::RecoveryExhausted);
    assert!(asked, "a person is asked");
    assert_eq!(row.next_step_at, None);
}
