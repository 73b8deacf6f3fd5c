//! A world under test: replicas on one database and one provider, clients that ask for things, repeat
//! themselves and give up, and crashes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use quittance_domain::change::{CommandKind, OperatorActionKind};
use quittance_domain::command::{
    Capture, Confirm, Create, Refund, Resolution, Resolve, Retry, Void,
};
use quittance_domain::context::{Actor, ActorKind, Caller, Instance, Origin, TraceIds};
use quittance_domain::decline::Cause;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_domain::flows::{Answer, FlowSettings, Flows, Told as Heard};
use quittance_domain::ids::{
    IdempotencyKey, PaymentId, ProviderAccount, TenantId, TransactionId, WebhookId,
};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{CaptureMethod, Initiator, PaymentMethod, PaymentMethodType};
use quittance_domain::ports::{
    Claim, Clock, Due, DueKind, Observer, Ports, Randomness, Store as _,
};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{OperationKind, Transaction};
use quittance_domain::webhook::WebhookFact;
use uuid::Uuid;

use crate::executor::{Executor, Process, Spawner, WORLD};
use crate::provider::{Nature, ProviderChaos, SimProvider, SimProviders};
use crate::store::{SimStore, StoreChaos};

/// How many processes serve.
const REPLICAS: Process = 2;
/// How long a world is troubled, before it is left in peace.
const TROUBLE: Duration = Duration::from_secs(90);

/// What one client was told about one key.
#[derive(Debug, Default)]
pub struct Told {
    /// Which transactions answered it; more than one breaks I6.
    pub transactions: Vec<TransactionId>,
    /// Whether any answer left open that it was accepted (or none came at all).
    pub may_be_accepted: bool,
    /// Whether any answer denied it after it had been accepted.
    pub denied_though_known: bool,
}

/// How long beyond its provider's timeout a sender is taken to be alive.
const LEASE_MARGIN: Duration = Duration::from_secs(15);
/// How long a replica that is gone keeps what it claimed.
const CLAIM: Duration = Duration::from_secs(60);
/// Most that a worker claims at a time.
const CLAIMED_AT_ONCE: usize = 4;
/// How often a replica tries to apply one webhook.
const MAX_HEARINGS: u32 = 5;
/// Most looks of recovery in a world at peace: more than any schedule of retries needs.
const MAX_LOOKS: u32 = 5_000;

/// A world.
pub struct World {
    /// The scheduler.
    pub executor: Executor,
    /// The database.
    pub store: SimStore,
    /// The provider, at the account that routing prefers.
    pub provider: SimProvider,
    /// What clients were told, by key.
    pub told: Arc<Mutex<BTreeMap<String, Told>>>,
    payments: Arc<Mutex<Vec<PaymentId>>>,
    site: Site,
    seed: u64,
}

/// What every replica is made of.
#[derive(Clone)]
struct Site {
    executor: Executor,
    store: SimStore,
    providers: SimProviders,
    /// How far each replica's clock is from the database's.
    skews: Vec<TimeDelta>,
    /// When what has no outcome is taken up again.
    retries: RetryPolicy,
    /// Under which keys of requests are digested.
    fingerprints: [u8; 32],
}

impl World {
    /// A world whose every event follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let executor = Executor::new(seed);
        let store = SimStore::new(executor.clone());
        let nature = Nature::choose(&executor);
        let provider = SimProvider::new(executor.clone(), store.clone(), nature);
        let skewed = executor.chance(300);
        let skew = |_| {
            let off = i64::from(executor.pick(0..9_800)) - 4_900;
            TimeDelta::milliseconds(if skewed { off } else { 0 })
        };
        let site = Site {
            executor: executor.clone(),
            store: store.clone(),
            providers: SimProviders(vec![provider.clone(), provider.second()]),
            skews: (0..REPLICAS).map(skew).collect(),
            retries: policy(&executor),
            fingerprints: [7; 32],
        };
        Self {
            executor,
            store,
            provider,
            told: Arc::default(),
            payments: Arc::default(),
            site,
            seed,
        }
    }

    /// The same world, whose requests are digested under this key: that of the store which its changes are committed to.
    #[must_use]
    pub fn with_fingerprint_key(mut self, key: [u8; 32]) -> Self {
        self.site.fingerprints = key;
        self
    }

    /// When what has no outcome is taken up again.
    pub fn retries(&self) -> &RetryPolicy {
        &self.site.retries
    }

    /// Lets clients, replicas, chaos and crashes loose; then peace, in which recovery resolves what can be. False
    /// where the schedule does not end.
    pub fn live(&self) -> bool {
        if !self.live_in_trouble() {
            return false;
        }
        if self.executor.chance(150) {
            // Nobody is there for hours: keys age.
            self.pass(Duration::from_secs(3 * 3_600));
        }
        (0..3).all(|_| {
            self.provider.decide_pending();
            self.provider.tell_again();
            self.ask_about_the_rest();
            self.recover_in_peace();
            self.executor.run()
        })
    }

    /// The first half of a life: clients, replicas, chaos and crashes, and then nothing is resolved yet. False where
    /// it does not end.
    pub fn live_in_trouble(&self) -> bool {
        self.trouble();
        for client in 0..self.executor.pick(1..4) {
            self.start_client(client);
        }
        let ends = self.executor.run();
        self.store.set_chaos(StoreChaos::default());
        for provider in &self.site.providers.0 {
            provider.set_chaos(ProviderChaos::default());
        }
        ends
    }

    /// Runs the world until a future has its answer.
    pub fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => drop(self.executor.run()),
            }
        }
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let executor = self.executor.clone();
        self.executor
            .spawn(WORLD, async move { executor.wait(time).await });
        self.executor.run();
    }

    fn trouble(&self) {
        let up_to = |limit| self.executor.pick(0..limit);
        self.store.set_chaos(StoreChaos {
            unavailable: up_to(80),
            lost: up_to(60),
            written_unheard: up_to(80),
        });
        for provider in &self.site.providers.0 {
            let away = self.executor.chance(200);
            provider.set_chaos(ProviderChaos {
                webhooks: up_to(1_000),
                busy: up_to(50),
                circuit_open: up_to(100),
                not_sent: if away { 1_000 } else { up_to(150) },
                lost_request: up_to(100),
                lost_answer: up_to(200),
                lookup_fails: up_to(200),
                declines: up_to(150),
                challenges: up_to(200),
                pends: up_to(200),
            });
        }
        for process in 0..REPLICAS {
            self.site.start_worker(process);
        }
        let site = self.site.clone();
        self.provider
            .listen(Arc::new(move |account, told| site.hear(account, told)));
        if self.executor.chance(700) {
            self.start_crashes();
        }
        if self.executor.chance(300) {
            self.start_dashboard();
        }
        if self.executor.chance(300) {
            self.start_stops();
        }
        if self.executor.chance(300) {
            self.start_taking_back();
        }
    }

    /// Somebody works in the provider's dashboard, and banks charge back.
    fn start_dashboard(&self) {
        let (executor, provider) = (self.executor.clone(), self.provider.clone());
        self.executor.spawn(WORLD, async move {
            for _ in 0..executor.pick(1..4) {
                executor.wait_up_to(TROUBLE / 2).await;
                provider.act_by_itself();
            }
        });
    }

    /// Card schemes reject what the provider had called done.
    fn start_taking_back(&self) {
        let (executor, provider) = (self.executor.clone(), self.provider.clone());
        self.executor.spawn(WORLD, async move {
            for _ in 0..executor.pick(1..4) {
                executor.wait_up_to(TROUBLE / 2).await;
                provider.take_back();
            }
        });
    }

    /// Crashes a replica now and then; it is back at once, with nothing in memory.
    fn start_crashes(&self) {
        let site = self.site.clone();
        self.executor.spawn(WORLD, async move {
            let executor = site.executor.clone();
            for _ in 0..executor.pick(1..6) {
                executor.wait_up_to(TROUBLE / 4).await;
                let victim = usize::try_from(executor.pick(0..2)).unwrap_or(0);
                executor.crash(victim);
                site.start_worker(victim);
            }
        });
    }

    /// Stops a replica now and then, as SIGSTOP does, and lets it go on after its leases have run out, or before.
    fn start_stops(&self) {
        let executor = self.executor.clone();
        self.executor.spawn(WORLD, async move {
            for _ in 0..executor.pick(1..4) {
                executor.wait_up_to(TROUBLE / 4).await;
                let stopped = usize::try_from(executor.pick(0..2)).unwrap_or(0);
                executor.stop(stopped);
                executor.wait_up_to(TROUBLE).await;
                executor.go_on(stopped);
            }
        });
    }

    /// A client that does a few things, some of them twice, at any replica.
    fn start_client(&self, client: u32) {
        let (executor, seed) = (self.executor.clone(), self.seed);
        let replicas: Vec<_> = (0..REPLICAS).map(|at| self.site.flows(at)).collect();
        let (told, payments) = (Arc::clone(&self.told), Arc::clone(&self.payments));
        let store = self.store.clone();
        self.executor.spawn(WORLD, async move {
            for step in 0..executor.pick(2..8) {
                executor.wait_up_to(TROUBLE / 10).await;
                let known = payments.lock().clone();
                let act = Act::choose(
                    &executor,
                    &store,
                    &known,
                    format!("w{seed}-c{client}-{step}"),
                );
                for _ in 0..executor.pick(1..4) {
                    let process = usize::try_from(executor.pick(0..2)).unwrap_or(0);
                    let Some(flows) = replicas.get(process).cloned() else {
                        return;
                    };
                    let call = Call {
                        act: act.clone(),
                        store: store.clone(),
                        told: Arc::clone(&told),
                        payments: Arc::clone(&payments),
                    };
                    call.note_asked();
                    let clock = executor.clone();
                    // A call belongs to its replica: a crash takes it along, and the client hears nothing.
                    executor.spawn(process, async move { call.make(&flows, &clock).await });
                    executor.wait_up_to(Duration::from_secs(5)).await;
                }
            }
        });
    }

    /// Lets recovery do what it does, until it has nothing left to do.
    fn recover_in_peace(&self) {
        let site = self.site.clone();
        self.executor.spawn(WORLD, async move {
            let flows = site.flows(0);
            for _ in 0..MAX_LOOKS {
                let Some(next) = site.next_step() else { return };
                let wait = (next - site.executor.now()).to_std().unwrap_or_default();
                // A little later, so that a clock that is behind agrees that it is due.
                site.executor.wait(wait + Duration::from_secs(1)).await;
                for due in site.claim(DueKind::Any).await {
                    // What it does is checked by what it leaves behind.
                    drop(flows.recover(&due).await);
                }
            }
        });
    }

    /// Asks about what recovery leaves to a person: what one has decided, and what one is asked about.
    fn ask_about_the_rest(&self) {
        let flows = self.site.flows(0);
        let left = |row: &Transaction| row.resolved_by_operator || row.open_case.is_some();
        let open = self.store.look(|tables| {
            let all = tables.payments.iter();
            let unresolved = all.filter(|(_, record)| record.transactions.iter().any(left));
            unresolved.map(|(id, _)| *id).collect::<Vec<_>>()
        });
        let executor = self.executor.clone();
        self.executor.spawn(WORLD, async move {
            for payment in open {
                executor.wait(Duration::from_secs(26)).await;
                // What it answers is checked by what it leaves behind.
                drop(flows.sync(&caller(&executor, false), payment).await);
            }
        });
    }
}

/// What holds each other in a circle is let go, so that a million worlds need the memory of one.
impl Drop for World {
    fn drop(&mut self) {
        self.provider.forget_listener();
        self.executor.end();
    }
}

/// The usual policy; some have little patience with customers.
fn policy(executor: &Executor) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    if executor.chance(300) {
        policy.abandon_after = Some(Duration::from_secs(executor.pick(5..120).into()));
        policy.release.first = Duration::from_secs(executor.pick(1..10).into());
        policy.release.max = Duration::from_secs(20);
        policy.release.steps = executor.pick(1..4);
    }
    policy
}

impl Site {
    fn flows(&self, process: Process) -> Flows {
        let settings = FlowSettings {
            instance: Instance {
                service: "quittance",
                version: "simulated",
                instance: format!("replica-{process}"),
            },
            fingerprint_key: FingerprintKey::new(self.fingerprints),
            answer_margin: Duration::from_millis(100),
            default_wait: Duration::from_secs(30),
            max_decisions: 8,
            outcome_patience: Duration::from_secs(30),
            lease_margin: LEASE_MARGIN,
            retries: self.retries,
        };
        let ports = Ports {
            store: Arc::new(self.store.clone()),
            providers: Arc::new(self.providers.clone()),
            clock: Arc::new(SkewedClock {
                executor: self.executor.clone(),
                skew: self.skews.get(process).copied().unwrap_or_default(),
            }),
            spawn: Arc::new(Spawner {
                executor: self.executor.clone(),
                process,
            }),
            random: Arc::new(Dice(self.executor.clone())),
            observer: Arc::new(Nobody),
        };
        Flows::new(ports, settings)
    }

    /// A replica's recovery: it lives as long as the trouble does, or until its replica crashes.
    fn start_worker(&self, process: Process) {
        let site = self.clone();
        self.executor.spawn(process, async move {
            let end = site.executor.start() + TimeDelta::from_std(TROUBLE).unwrap_or_default();
            while site.executor.now() < end {
                site.executor.wait_up_to(Duration::from_secs(4)).await;
                // Now and then as where its circuit is open.
                let kind = match site.executor.pick(0..10) {
                    0 => DueKind::TooLate,
                    1 => DueKind::Unsent,
                    _ => DueKind::Any,
                };
                for due in site.claim(kind).await {
                    let flows = site.flows(process);
                    // Side by side, as the server's workers do.
                    site.executor.spawn(process, async move {
                        drop(flows.recover(&due).await);
                    });
                }
            }
        });
    }

    async fn claim(&self, kind: DueKind) -> Vec<Due> {
        let claim = Claim {
            kind,
            limit: CLAIMED_AT_ONCE,
            lease: CLAIM,
            except: Vec::new(),
        };
        self.store.claim_due(&claim).await.unwrap_or_default()
    }

    /// A replica takes a webhook, and tries until it is applied; a crash leaves it to the other.
    fn hear(&self, account: ProviderAccount, told: WebhookFact) {
        let site = self.clone();
        let process = usize::try_from(self.executor.pick(0..2)).unwrap_or(0);
        self.executor.spawn(process, async move {
            let flows = site.flows(process);
            let webhook = WebhookId(Uuid::from_u128(site.executor.bits()));
            for _ in 0..MAX_HEARINGS {
                match flows.provider_told(&account, webhook, &told).await {
                    Ok(Heard::Applied | Heard::NoNews | Heard::MovedOn) => return,
                    Ok(
                        Heard::UnknownPayment
                        | Heard::NotOurs
                        | Heard::OtherAccount
                        | Heard::NotConfirmed(_)
                        | Heard::Early
                        | Heard::Nameless,
                    )
                    | Err(_) => site.executor.wait(Duration::from_secs(3)).await,
                }
            }
        });
    }

    /// When the next step of anything pending is due.
    fn next_step(&self) -> Option<DateTime<Utc>> {
        self.store.look(|tables| {
            let rows = tables
                .payments
                .values()
                .flat_map(|record| &record.transactions);
            rows.filter(|row| row.is_taken_up())
                .filter_map(|row| row.next_step_at)
                .min()
        })
    }
}

/// A replica's idea of the database's clock.
struct SkewedClock {
    executor: Executor,
    skew: TimeDelta,
}

#[async_trait]
impl Clock for SkewedClock {
    fn now(&self) -> DateTime<Utc> {
        self.executor.now() + self.skew
    }

    async fn sleep(&self, duration: Duration) {
        self.executor.wait(duration).await;
    }
}

/// Something that a client asks for; repeated, it is the same request under the same key.
#[derive(Clone)]
enum Act {
    Create(Box<Create>),
    Confirm(Confirm),
    Capture(Capture),
    Void(Void),
    Refund(Refund),
    Sync(PaymentId),
    Resolve(Resolve),
    Retry(Retry),
}

impl Act {
    fn choose(executor: &Executor, store: &SimStore, known: &[PaymentId], key: String) -> Self {
        let payment = match u32::try_from(known.len()) {
            Ok(count @ 1..) if executor.chance(700) => known
                .get(usize::try_from(executor.pick(0..count)).unwrap_or(0))
                .copied(),
            _ => None,
        };
        let idempotency_key = key_of(key);
        let Some(payment) = payment else {
            return Self::Create(Box::new(create(executor, idempotency_key)));
        };
        let amount = executor
            .chance(600)
            .then(|| eur(i64::from(executor.pick(1..110))))
            .flatten();
        let (reason, execute_before) = (Text::default(), None);
        match executor.pick(0..13) {
            0..=3 => {
                let final_capture = executor.chance(200);
                Self::Capture(Capture {
                    payment,
                    idempotency_key,
                    amount,
                    final_capture,
                    execute_before,
                })
            }
            4..=6 => Self::Refund(Refund {
                payment,
                idempotency_key,
                amount,
                reason,
                execute_before,
            }),
            7 | 8 => Self::Void(Void {
                payment,
                idempotency_key,
                reason,
            }),
            9 => Self::Confirm(Confirm {
                payment,
                idempotency_key,
                parameters: Sensitive::default(),
            }),
            10 | 11 => Self::Sync(payment),
            _ => Self::of_operator(executor, store, payment).unwrap_or(Self::Sync(payment)),
        }
    }

    /// An operator who decides about what is pending, rightly or wrongly.
    fn of_operator(executor: &Executor, store: &SimStore, payment: PaymentId) -> Option<Self> {
        let transaction = store.look(|tables| {
            let rows = &tables.payments.get(&payment)?.transactions;
            let open = rows.iter().find(|row| !row.state.ended())?;
            Some(open.id)
        })?;
        let reason = Text::parse("seen on a statement").ok()?;
        if executor.chance(500) {
            return Some(Self::Retry(Retry {
                payment,
                transaction,
                reason,
            }));
        }
        let resolution = match executor.pick(0..3) {
            0 => Resolution::Succeeded {
                provider_reference: None,
                amount: None,
            },
            1 => Resolution::NotProcessed,
            _ => Resolution::Acknowledged,
        };
        Some(Self::Resolve(Resolve {
            payment,
            transaction,
            resolution,
            reason,
            evidence: Text::default(),
            seen_version: None,
        }))
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::Create(command) => Some(command.idempotency_key.as_str()),
            Self::Confirm(command) => Some(command.idempotency_key.as_str()),
            Self::Capture(command) => Some(command.idempotency_key.as_str()),
            Self::Void(command) => Some(command.idempotency_key.as_str()),
            Self::Refund(command) => Some(command.idempotency_key.as_str()),
            Self::Sync(_) | Self::Resolve(_) | Self::Retry(_) => None,
        }
    }
}

/// One call of an act.
struct Call {
    act: Act,
    store: SimStore,
    told: Arc<Mutex<BTreeMap<String, Told>>>,
    payments: Arc<Mutex<Vec<PaymentId>>>,
}

impl Call {
    /// Until an answer says otherwise, a call that was made may be accepted.
    fn note_asked(&self) {
        if let Some(key) = self.act.key() {
            self.told.lock().entry(key.to_owned()).or_default();
        }
    }

    async fn make(self, flows: &Flows, executor: &Executor) {
        let key = self.act.key().map(str::to_owned);
        let known = key.clone().is_some_and(|key| self.is_known(key));
        let unheard = Unheard {
            key: key.clone(),
            told: Arc::clone(&self.told),
        };
        let caller = caller(executor, executor.chance(300));
        let answer = match self.act.clone() {
            Act::Create(command) => flows.create(&caller, *command).await,
            Act::Confirm(command) => flows.confirm(&caller, command).await,
            Act::Capture(command) => flows.capture(&caller, command).await,
            Act::Void(command) => flows.void(&caller, command).await,
            Act::Refund(command) => flows.refund(&caller, command).await,
            Act::Sync(payment) => flows.sync(&caller, payment).await,
            Act::Resolve(command) => flows.resolve(&caller, command).await,
            Act::Retry(command) => flows.retry(&caller, command).await,
        };
        unheard.heard();
        let Some(key) = key else { return };
        let mut told = self.told.lock();
        let told = told.entry(key).or_default();
        match answer {
            Ok(Answer {
                record,
                transaction,
                ..
            }) => {
                told.transactions.push(transaction);
                let mut payments = self.payments.lock();
                if !payments.contains(&record.payment.id) {
                    payments.push(record.payment.id);
                }
            }
            Err(error) if error.money_may_have_moved() => told.may_be_accepted = true,
            Err(_) => told.denied_though_known |= known,
        }
    }

    /// Whether the database holds the key already.
    fn is_known(&self, key: String) -> bool {
        let tenant = TenantId::parse("acme").ok();
        let place = tenant.map(|tenant| (tenant, key_of(key)));
        place.is_some_and(|place| self.store.look(|tables| tables.keys.contains_key(&place)))
    }
}

/// Notes, when a crash drops it, that a call ended without an answer.
struct Unheard {
    key: Option<String>,
    told: Arc<Mutex<BTreeMap<String, Told>>>,
}

impl Unheard {
    fn heard(mut self) {
        self.key = None;
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.told.lock().entry(key).or_default().may_be_accepted = true;
        }
    }
}

fn key_of(text: String) -> IdempotencyKey {
    IdempotencyKey::parse(text).unwrap_or_else(|_| unreachable_key())
}

#[allow(clippy::expect_used)] // a constant that is valid
fn unreachable_key() -> IdempotencyKey {
    IdempotencyKey::parse("key").expect("a valid key")
}

fn eur(minor_units: i64) -> Option<Money> {
    Currency::parse("EUR")
        .ok()
        .and_then(|eur| Money::new(minor_units, eur).ok())
}

#[allow(clippy::expect_used)] // constants that are valid
fn create(executor: &Executor, idempotency_key: IdempotencyKey) -> Create {
    Create {
        idempotency_key,
        amount: eur(100).expect("a valid amount"),
        method: PaymentMethod {
            kind: PaymentMethodType::Card,
            token: Some(Sensitive::new("tok".to_owned())),
            brand: Text::default(),
            last4: Text::default(),
            expiry_month: None,
            expiry_year: None,
        },
        capture_method: if executor.chance(500) {
            CaptureMethod::Manual
        } else {
            CaptureMethod::Automatic
        },
        merchant_reference: Text::default(),
        description: Text::default(),
        return_url: Text::default(),
        provider_account: None,
        customer: None,
        initiator: Initiator::Customer,
        mandate_reference: Text::default(),
        execute_before: executor
            .chance(300)
            .then(|| executor.now() + TimeDelta::seconds(executor.pick(10..60).into())),
        metadata: BTreeMap::new(),
    }
}

#[allow(clippy::expect_used)] // constants that are valid
fn caller(executor: &Executor, hurried: bool) -> Caller {
    let patience = TimeDelta::seconds(i64::from(executor.pick(1..12)));
    Caller {
        tenant: TenantId::parse("acme").expect("a valid tenant"),
        actor: Actor {
            kind: ActorKind::Service,
            id: "client".to_owned(),
            auth_method: "api_key",
        },
        origin: Origin::default(),
        remote: None,
        deadline: hurried.then(|| executor.now() + patience),
    }
}

/// Ids and salts from the seed.
struct Dice(Executor);

impl Randomness for Dice {
    fn uuid_v7(&self, now: DateTime<Utc>) -> Uuid {
        let millis = u128::try_from(now.timestamp_millis()).unwrap_or(0);
        let random = self.0.bits() & 0x0fff_3fff_ffff_ffff_ffff;
        Uuid::from_u128(millis << 80 | 0x7000_8000_0000_0000_0000 | random)
    }

    fn salt(&self) -> [u8; 16] {
        self.0.bits().to_be_bytes()
    }
}

/// Telemetry that nobody reads.
struct Nobody;

impl Observer for Nobody {
    fn current_trace(&self) -> TraceIds {
        TraceIds::default()
    }

    fn attempt_ended(
        &self,
        _account: &ProviderAccount,
        _operation: OperationKind,
        _outcome: &'static str,
        _cause: Option<Cause>,
        _seconds: f64,
    ) {
    }

    fn retried(&self, _account: &ProviderAccount, _operation: OperationKind, _how: &'static str) {}

    fn case_opened(&self, _account: &ProviderAccount, _kind: OperatorActionKind) {}

    fn replayed(&self, _command: CommandKind) {}
}
