//! A world under test: replicas on one database and one provider, clients that ask for things, repeat
//! themselves and give up, and crashes.

mod acts;
mod client;
mod ports;
mod site;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chrono::TimeDelta;
use parking_lot::Mutex;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::ids::PaymentId;
use quittance_domain::ports::DueKind;
use quittance_domain::retry::RetryPolicy;
use quittance_domain::transaction::Transaction;

use crate::check::cases::Open;
use crate::check::exhausted;
use crate::executor::{Executor, Process, WORLD};
use crate::provider::{Nature, ProviderChaos, SimProvider, SimProviders};
use crate::store::{SimStore, StoreChaos};

use acts::{Act, given_up};
pub use acts::{caller, purchase};
pub use client::Told;
pub use ports::{Dice, Nobody};
use site::Site;
pub use site::settings;

/// How many processes serve.
const REPLICAS: Process = 2;
/// How long a world is troubled, before it is left in peace.
const TROUBLE: Duration = Duration::from_secs(90);
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
    /// What broke an invariant while it lived.
    pub seen: Mutex<Vec<String>>,
    payments: Arc<Mutex<Vec<PaymentId>>>,
    site: Site,
    seed: u64,
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
        // Each is within 5 s of the database's.
        provider.allow_clocks_apart(Duration::from_secs(if skewed { 10 } else { 0 }));
        let site = Site {
            executor: executor.clone(),
            store: store.clone(),
            providers: SimProviders(vec![provider.clone(), provider.second()]),
            skews: (0..REPLICAS).map(skew).collect(),
            retries: policy(&executor),
            fingerprints: [7; 32],
            customers: false,
        };
        Self {
            executor,
            store,
            provider,
            told: Arc::default(),
            seen: Mutex::default(),
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

    /// The same world, where most payments are those of one of a few customers.
    #[must_use]
    pub fn with_customers(mut self) -> Self {
        self.site.customers = true;
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
            self.deal_with_the_given_up();
            self.executor.run();
            self.ask_about_the_rest();
            self.recover_in_peace();
            let ends = self.executor.run();
            self.look();
            ends
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
        self.look();
        ends
    }

    /// Looks at what must hold whenever nothing runs.
    fn look(&self) {
        let mut seen = self.seen.lock();
        self.store
            .look(|tables| exhausted::look(tables, self.retries(), &mut seen));
    }

    /// Whether recovery gives up soon, so that a person is asked about what could be resolved.
    pub fn is_impatient(&self) -> bool {
        self.retries().outcome != RetryPolicy::default().outcome
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
                for kind in [DueKind::Any, DueKind::RanOut] {
                    for due in site.claim(kind).await {
                        // What it does is checked by what it leaves behind.
                        drop(flows.recover(&due).await);
                    }
                }
            }
        });
    }

    /// Operators see to some of what recovery has given up: they have it taken up again, or say what they were told.
    fn deal_with_the_given_up(&self) {
        let flows = self.site.flows(0);
        let rows = self.store.look(|tables| {
            let open = Open::of(tables);
            let all = tables.payments.values().flat_map(|record| {
                let rows = record.transactions.iter();
                rows.map(|row| (record.payment.id, row))
            });
            let kind = OperatorActionKind::RecoveryExhausted;
            let given_up = all.filter(|(_, row)| open.has(row, kind));
            given_up.map(|(id, row)| (id, row.id)).collect::<Vec<_>>()
        });
        let (executor, provider) = (self.executor.clone(), self.provider.clone());
        self.executor.spawn_on_demand(WORLD, async move {
            for (payment, transaction) in rows {
                executor.wait(Duration::from_secs(26)).await;
                let caller = caller(&executor, false);
                // What it answers is checked by what it leaves behind.
                match given_up(&executor, &provider, payment, transaction) {
                    Some(Act::Retry(command)) => drop(flows.retry(&caller, command).await),
                    Some(Act::Resolve(command)) => drop(flows.resolve(&caller, command).await),
                    Some(_) | None => {}
                }
            }
        });
    }

    /// Asks about what recovery leaves to a person: what one has decided, and what one is asked about.
    fn ask_about_the_rest(&self) {
        let flows = self.site.flows(0);
        let open = self.store.look(|tables| {
            let open = Open::of(tables);
            let left = |row: &Transaction| row.resolved_by_operator || open.any(row);
            let all = tables.payments.iter();
            let unresolved = all.filter(|(_, record)| record.transactions.iter().any(left));
            unresolved.map(|(id, _)| *id).collect::<Vec<_>>()
        });
        let executor = self.executor.clone();
        self.executor.spawn_on_demand(WORLD, async move {
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
    if executor.chance(200) {
        // Some give up soon.
        let steps = executor.pick(1..8);
        let give_up_after = Duration::from_secs(executor.pick(30..1_200).into());
        for backoff in [
            &mut policy.reach,
            &mut policy.leave,
            &mut policy.outcome,
            &mut policy.decision,
        ] {
            backoff.steps = steps;
            backoff.give_up_after = give_up_after;
        }
    }
    policy
}
