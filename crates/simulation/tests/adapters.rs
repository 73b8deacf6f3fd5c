//! Adapters that answer as no simulated provider does: one that panics over an answer, one that misses what it has named.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::command::Create;
use quittance_domain::decline::Cause;
use quittance_domain::flows::Flows;
use quittance_domain::ids::{IdempotencyKey, ProviderAccount, ProviderReference, TenantId};
use quittance_domain::money::Money;
use quittance_domain::payment::{PaymentMethodType, PaymentState};
use quittance_domain::ports::{
    Accounts, Capabilities, Claim, DueKind, LookupQuery, Operation, Ports, Provider, ProviderRules,
    Providers, Store as _, Unpreparable,
};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::transaction::{
    Fact, FactKind, LookupOutcome, PreparedRequest, SendOutcome, SendReport,
};
use quittance_domain::webhook::{
    Delivery, ProviderWebhooks, Unreadable, Unverified, VerifiedEvent, WebhookFact,
};
use quittance_simulation::executor::{Executor, Spawner, WORLD};
use quittance_simulation::provider::{Nature, SimProvider};
use quittance_simulation::store::{SimStore, Tables};
use quittance_simulation::world::{Dice, Nobody, caller, purchase, settings};

/// Answers as it is told to.
#[derive(Clone)]
struct Scripted {
    inner: SimProvider,
    /// What becomes of a send, by its number; `None` where no answer ever comes.
    send: fn(u32) -> Option<SendOutcome>,
    lookup: fn() -> LookupOutcome,
    sends: Arc<AtomicU32>,
}

impl ProviderRules for Scripted {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        self.inner.prepare(operation)
    }
}

impl ProviderWebhooks for Scripted {
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        self.inner.verify(delivery)
    }

    fn webhook(&self, body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        self.inner.webhook(body)
    }
}

#[async_trait]
impl Provider for Scripted {
    async fn send(&self, _: &PreparedRequest, send: u32) -> SendReport {
        self.sends.fetch_add(1, Ordering::Relaxed);
        let Some(outcome) = (self.send)(send) else {
            return std::future::pending().await;
        };
        SendReport {
            outcome,
            http_status: Some(200),
            response: None,
            latency_micros: 1,
            retry_after: None,
        }
    }

    async fn lookup(&self, _: &LookupQuery) -> LookupOutcome {
        (self.lookup)()
    }

    fn send_timeout(&self) -> Duration {
        self.inner.send_timeout()
    }

    fn livemode(&self) -> bool {
        false
    }
}

impl Providers for Scripted {
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

/// Nothing is found, and that proves nothing.
fn misses() -> LookupOutcome {
    LookupOutcome::NotFound {
        authoritative: false,
    }
}

/// One database, two servers, and an adapter that answers as it is told to.
struct World {
    executor: Executor,
    store: SimStore,
    provider: Scripted,
    retries: RetryPolicy,
}

impl World {
    fn new(send: fn(u32) -> Option<SendOutcome>, lookup: fn() -> LookupOutcome) -> Self {
        let executor = Executor::new(1);
        let store = SimStore::new(executor.clone());
        let inner = SimProvider::new(executor.clone(), store.clone(), Nature::default());
        let mut retries = RetryPolicy::default();
        retries.outcome.steps = 3;
        retries.decision.steps = 3;
        let provider = Scripted {
            inner,
            send,
            lookup,
            sends: Arc::default(),
        };
        Self {
            executor,
            store,
            provider,
            retries,
        }
    }

    fn flows(&self, process: usize) -> Flows {
        let executor = self.executor.clone();
        let ports = Ports {
            store: Arc::new(self.store.clone()),
            providers: Arc::new(self.provider.clone()),
            clock: Arc::new(executor.clone()),
            spawn: Arc::new(Spawner {
                executor: executor.clone(),
                process,
            }),
            random: Arc::new(Dice(executor)),
            observer: Arc::new(Nobody),
        };
        let settings = settings("replica".to_owned(), self.retries, [7; 32]);
        Flows::new(ports, settings)
    }

    /// A purchase, which is to be sent within so many seconds.
    fn create(&self, within: i64) {
        let (flows, executor) = (self.flows(0), self.executor.clone());
        self.executor.spawn(0, async move {
            let key = IdempotencyKey::parse("key").unwrap();
            let command = Create {
                execute_before: Some(executor.now() + TimeDelta::seconds(within)),
                ..purchase(key)
            };
            drop(flows.create(&caller(&executor, false), command).await);
        });
    }

    /// The other server takes up what is due, so often, so many seconds apart.
    fn recover(&self, times: u32, apart: u64) {
        let (flows, executor) = (self.flows(1), self.executor.clone());
        let store = self.store.clone();
        self.executor.spawn(1, async move {
            for _ in 0..times {
                executor.wait(Duration::from_secs(apart)).await;
                let claim = Claim {
                    kind: DueKind::Any,
                    limit: 10,
                    lease: Duration::from_secs(60),
                    accounts: Accounts::all(),
                };
                for due in store.claim_due(&claim).await.unwrap() {
                    flows.recover(&due).await.unwrap();
                }
            }
        });
        assert!(self.executor.run());
    }

    /// How often it was sent; the payment stays as it is, and a person is asked.
    fn sends_until_a_person_is_asked(&self) -> u32 {
        let found = |tables: &Tables| tables.payments.values().next().cloned();
        let record = self.store.look(found).unwrap();
        assert_eq!(record.payment.state, PaymentState::Pending);
        let row = record.transactions.first().unwrap();
        let asked = OperatorActionKind::RecoveryExhausted;
        assert!(row.open_cases.contains(asked), "a person is asked");
        assert_eq!(row.next_step_at, None);
        self.provider.sends.load(Ordering::Relaxed)
    }
}

#[test]
fn i3_what_makes_an_adapter_panic_is_shown_to_a_person_in_the_end() {
    let unreadable = |_| Some(SendOutcome::Unknown(Cause::UnreadableResponse));
    let world = World::new(unreadable, || panic!("the adapter did not expect this"));
    world.create(900);
    world.recover(20, 600);
    assert_eq!(world.sends_until_a_person_is_asked(), 1);
}

#[test]
fn i4_what_the_provider_has_named_is_not_sent_again_though_a_lookup_misses_it() {
    let named = |_| {
        let reference = ProviderReference::parse("theirs").ok();
        Some(SendOutcome::Answered(Fact {
            kind: FactKind::Pending,
            provider_reference: reference.clone(),
            payment_reference: reference,
        }))
    };
    let world = World::new(named, misses);
    world.create(900);
    world.recover(20, 600);
    assert_eq!(world.sends_until_a_person_is_asked(), 1);
}

/// The process dies before it sends, and the provider is away when another one does.
#[test]
fn s20_what_may_never_have_left_is_not_sent_after_its_time_whatever_was_tried_since() {
    let refused = |send| (send > 1).then_some(SendOutcome::NotSent(Cause::ConnectionRefused));
    let world = World::new(refused, misses);
    world.create(90);
    let executor = world.executor.clone();
    world.executor.spawn(WORLD, async move {
        executor.wait(Duration::from_secs(5)).await;
        executor.crash(0);
    });
    world.recover(1, 60);
    assert_eq!(world.provider.sends.load(Ordering::Relaxed), 2);
    world.recover(20, 600);
    assert_eq!(world.sends_until_a_person_is_asked(), 2);
}
