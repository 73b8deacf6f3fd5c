//! The simulated provider: it keeps its idempotency keys and its books faithfully, and everything between it
//! and us fails: requests are refused, delayed beyond every timeout, delivered though the caller gave up;
//! answers are lost, late or unreadable. It has the [`Shape`] of one of the adapters.

mod desk;
mod facts;
mod ledger;
mod port;
mod shape;
mod telling;
mod unasked;
mod waits;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quittance_domain::ids::{PaymentId, ProviderAccount, ProviderReference, TransactionId};
use quittance_domain::ports::Capabilities;
use quittance_domain::webhook::WebhookFact;

use crate::executor::Executor;
use crate::store::SimStore;

use ledger::Ledger;
pub use ledger::{Balance, Booked, Status};
pub use shape::{Nature, Shape};
pub use unasked::Unasked;
use waits::Waits;

/// Who takes the provider's webhooks.
pub type Listener = Arc<dyn Fn(ProviderAccount, WebhookFact) + Send + Sync>;

/// How often, in a thousand, something fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProviderChaos {
    /// What happened to an operation is told by webhook: late, or several times.
    pub webhooks: u32,
    /// As many calls run as are allowed.
    pub busy: u32,
    /// The circuit is open.
    pub circuit_open: u32,
    /// Refused before processing.
    pub not_sent: u32,
    /// Lost before it arrives.
    pub lost_request: u32,
    /// Processed, and the answer is lost, late or unreadable.
    pub lost_answer: u32,
    /// A lookup fails.
    pub lookup_fails: u32,
    /// Declined.
    pub declines: u32,
    /// The customer has to act.
    pub challenges: u32,
    /// Decided later.
    pub pends: u32,
    /// It asks us to wait: before it processed a request, or instead of an answer to a question.
    pub holds_off: u32,
    /// Done for less than was asked: partly authorized, captured or refunded.
    pub moves_less: u32,
}

/// One account at the simulated provider. Cheap to clone; all accounts share their books.
#[derive(Clone)]
pub struct SimProvider {
    executor: Executor,
    store: SimStore,
    account: ProviderAccount,
    nature: Nature,
    books: Arc<Mutex<Ledger>>,
    chaos: Arc<Mutex<ProviderChaos>>,
    capabilities: Arc<Capabilities>,
    listener: Arc<Mutex<Option<Listener>>>,
    waits: Arc<Mutex<Waits>>,
}

/// The accounts, best first.
#[derive(Clone)]
pub struct SimProviders(pub Vec<SimProvider>);

impl SimProvider {
    /// An account with empty books, which checks I1 against this database.
    pub fn new(executor: Executor, store: SimStore, nature: Nature) -> Self {
        Self {
            executor,
            store,
            account: account_named("first"),
            nature,
            books: Arc::default(),
            chaos: Arc::default(),
            capabilities: Arc::new(nature.capabilities()),
            listener: Arc::default(),
            waits: Arc::default(),
        }
    }

    /// Names who takes the webhooks of all accounts.
    pub fn listen(&self, listener: Listener) {
        *self.listener.lock() = Some(listener);
    }

    /// Nobody takes the webhooks any more.
    pub fn forget_listener(&self) {
        *self.listener.lock() = None;
    }

    /// A second account on the same books.
    #[must_use]
    pub fn second(&self) -> Self {
        Self {
            account: account_named("second"),
            chaos: Arc::default(),
            ..self.clone()
        }
    }

    /// What kind of provider it is.
    pub fn nature(&self) -> Nature {
        self.nature
    }

    /// Sets how often things fail from now on.
    pub fn set_chaos(&self, chaos: ProviderChaos) {
        *self.chaos.lock() = chaos;
    }

    /// Every operation in the books.
    pub fn operations(&self) -> BTreeMap<TransactionId, Booked> {
        self.books.lock().operations.clone()
    }

    /// How its dashboard names an operation.
    pub fn name_of(&self, transaction: TransactionId) -> Option<ProviderReference> {
        let books = self.books.lock();
        let booked = books.operations.get(&transaction)?;
        facts::names(transaction, booked, self.nature)?.0
    }

    /// What the books say about a payment.
    pub fn balance(&self, payment: PaymentId) -> Balance {
        self.books.lock().balance(payment)
    }

    /// What it did by itself.
    pub fn unasked(&self) -> Vec<Unasked> {
        self.books.lock().unasked.clone()
    }

    /// Whether the authorization of a payment ran out, or what was left of it.
    pub fn ran_out(&self, payment: PaymentId) -> bool {
        self.books.lock().expired.contains(&payment)
    }

    /// What it saw that must never happen.
    pub fn violations(&self) -> Vec<String> {
        self.books.lock().violations.clone()
    }

    /// Refunds, captures or charges back some payment that nobody asked it to, and tells it by webhook.
    pub fn act_by_itself(&self) {
        let acted = self.books.lock().act(&self.executor, self.nature);
        for unasked in acted {
            self.tell_unasked(&unasked);
        }
    }

    /// Lets some authorization run out, and tells it by webhook: perhaps, where it can be asked; and perhaps before what it
    /// told of its success has come.
    pub fn let_run_out(&self) {
        let Some(id) = self.books.lock().run_out(&self.executor, self.nature) else {
            return;
        };
        let chance = self.chaos.lock().webhooks;
        let told = !self.nature.can_be_asked() || self.executor.chance(chance);
        let booked = self.operations().remove(&id);
        if let Some(booked) = booked.filter(|_| told) {
            self.tell_expiry(id, &booked);
        }
    }

    /// Takes back a capture or a refund that it has done, and tells it by webhook: perhaps before what it told of its
    /// success has come.
    pub fn take_back(&self) {
        let taken = self.books.lock().take_back(&self.executor, self.nature);
        if let Some(id) = taken {
            self.tell_for_sure(id);
        }
    }
}

#[allow(clippy::expect_used)] // a constant that is valid
fn account_named(name: &str) -> ProviderAccount {
    ProviderAccount::parse(name).expect("a valid name")
}
