//! Clients: what they call, what they are told, and that they may hear nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quittance_domain::flows::{Answer, Flows};
use quittance_domain::ids::{PaymentId, TenantId, TransactionId};

use crate::executor::{Executor, WORLD};
use crate::store::SimStore;

use super::acts::{Act, caller, key_of};
use super::{REPLICAS, TROUBLE, World};

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

impl World {
    /// A client that does a few things, some of them twice, at any replica.
    pub(super) fn start_client(&self, client: u32) {
        let (executor, seed) = (self.executor.clone(), self.seed);
        let replicas: Vec<_> = (0..REPLICAS).map(|at| self.site.flows(at)).collect();
        let (told, payments) = (Arc::clone(&self.told), Arc::clone(&self.payments));
        let (store, provider) = (self.store.clone(), self.provider.clone());
        let customers = self.site.customers;
        self.executor.spawn(WORLD, async move {
            for step in 0..executor.pick(2..8) {
                executor.wait_up_to(TROUBLE / 10).await;
                let known = payments.lock().clone();
                let mut act = Act::choose(
                    &executor,
                    &store,
                    &provider,
                    &known,
                    format!("w{seed}-c{client}-{step}"),
                );
                if customers {
                    act.give_customer(seed + u64::from(client + step));
                }
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
                    executor
                        .spawn_on_demand(process, async move { call.make(&flows, &clock).await });
                    executor.wait_up_to(Duration::from_secs(5)).await;
                }
            }
        });
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
