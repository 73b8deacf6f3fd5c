//! The simulated provider: it keeps its idempotency keys and its books faithfully, and everything between it
//! and us fails: requests are refused, delayed beyond every timeout, delivered though the caller gave up;
//! answers are lost, late or unreadable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;
use futures::future::{Either, select};
use parking_lot::Mutex;
use quittance_domain::decline::{Cause, Decline, DeclineCode};
use quittance_domain::ids::{
    PaymentId, ProviderAccount, ProviderReference, TenantId, TransactionId,
};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{NextAction, PaymentMethodType};
use quittance_domain::ports::{
    Capabilities, Circuit, LookupQuery, Operation, Place, Provider, ProviderRules, Providers,
    Saturated, Unpreparable, VoidBefore,
};
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{
    Dispute, Fact, FactKind, LookupOutcome, OperationKind, PreparedRequest, SendOutcome,
    SendReport, TransactionKind, TransactionOrigin,
};
use quittance_domain::webhook::{
    Delivery, PaymentName, ProviderWebhooks, Subject, Unreadable, Unverified, VerifiedEvent,
    WebhookFact,
};

use crate::executor::{Executor, WORLD};
use crate::store::SimStore;

/// The latest that a webhook comes.
const MAX_WEBHOOK_DELAY: Duration = Duration::from_secs(40);
/// How long a caller waits for an answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The latest that a request is processed after its caller gave up; less than the sender's lease.
const LATE: Duration = Duration::from_secs(13);

/// How long after its attempt was recorded a send may begin: a third of the lease's margin for the commit, and what two
/// clocks can differ. Seconds.
const SEND_WITHIN: i64 = 10;

/// What kind of provider it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// Whether its lookup sees every request that it has accepted.
    pub authoritative: bool,
    /// How long its lookup may miss one.
    pub window: Duration,
    /// Whether it gives operations references of its own.
    pub names: bool,
    /// How long it remembers a key; after that it carries the same request out again.
    pub keys_kept: Duration,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            authoritative: true,
            window: Duration::ZERO,
            names: true,
            keys_kept: Duration::from_secs(86_400),
        }
    }
}

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
}

/// One operation in the provider's books.
#[derive(Debug, Clone)]
pub struct Booked {
    /// What.
    pub kind: OperationKind,
    /// For which of our payments.
    pub payment: PaymentId,
    /// How much, in minor units.
    pub amount: i64,
    /// Whether it releases the rest (a capture).
    pub last: bool,
    /// How it stands.
    pub status: Status,
    /// How often it was carried out: more than once is a double charge.
    pub times: u32,
    /// At which account.
    pub account: ProviderAccount,
    /// When it arrived.
    pub arrived: DateTime<Utc>,
}

/// How an operation stands at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Approved,
    /// Refused.
    Declined,
    /// Waits for the customer.
    Challenged,
    /// Decided later.
    Pending,
    /// Voided before it was authorized.
    Voided,
    /// Done, and taken back since.
    TakenBack,
}

/// The provider's account of one payment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Authorized.
    pub authorized: i64,
    /// Captured.
    pub captured: i64,
    /// Released.
    pub voided: i64,
    /// Refunded.
    pub refunded: i64,
    /// Taken back by the bank, and not returned.
    pub charged_back: i64,
}

/// What the provider did by itself: in its dashboard, or for the bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    /// What.
    pub kind: TransactionKind,
    /// Its reference; a chargeback and its reversal share theirs.
    pub reference: String,
    /// On which payment.
    pub payment: PaymentId,
    /// How much, in minor units.
    pub amount: i64,
    /// Through which account.
    pub account: ProviderAccount,
}

/// Account, transaction, and whether it is a confirmation.
type Key = (ProviderAccount, TransactionId, bool);

#[derive(Default)]
struct Books {
    operations: BTreeMap<TransactionId, Booked>,
    keys: BTreeMap<Key, (Vec<u8>, DateTime<Utc>)>,
    balances: BTreeMap<PaymentId, Balance>,
    unasked: Vec<Unasked>,
    violations: Vec<String>,
}

/// One account at the simulated provider. Cheap to clone; all accounts share their books.
#[derive(Clone)]
pub struct SimProvider {
    executor: Executor,
    store: SimStore,
    account: ProviderAccount,
    nature: Nature,
    books: Arc<Mutex<Books>>,
    chaos: Arc<Mutex<ProviderChaos>>,
    capabilities: Arc<Capabilities>,
    listener: Arc<Mutex<Option<Listener>>>,
}

/// The accounts, best first.
#[derive(Clone)]
pub struct SimProviders(pub Vec<SimProvider>);

/// What travels: everything that the provider needs to carry an operation out.
struct Wire {
    kind: OperationKind,
    transaction: TransactionId,
    payment: PaymentId,
    amount: i64,
    last: bool,
}

impl Wire {
    fn write(operation: &Operation<'_>) -> Vec<u8> {
        let amount = operation.amount.map_or(0, Money::minor_units);
        let (payment, transaction) = (operation.payment.id, operation.transaction.id);
        let last = operation.transaction.final_capture;
        format!("{} {transaction} {payment} {amount} {last}", operation.kind).into_bytes()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split(' ');
        Some(Self {
            kind: OperationKind::from_name(parts.next()?)?,
            transaction: TransactionId(parts.next()?.parse().ok()?),
            payment: PaymentId(parts.next()?.parse().ok()?),
            amount: parts.next()?.parse().ok()?,
            last: parts.next()?.parse().ok()?,
        })
    }
}

impl SimProvider {
    /// An account with empty books, which checks I1 against this database.
    pub fn new(executor: Executor, store: SimStore, nature: Nature) -> Self {
        let capabilities = Capabilities {
            partial_capture: true,
            several_captures: true,
            // What cannot be asked for sure what it holds is asked to release it by our name.
            void_before_authorization: if nature.authoritative {
                VoidBefore::Named
            } else {
                VoidBefore::Ours
            },
            authoritative_lookup: nature.authoritative,
            current_lookup: nature.authoritative,
            consistency_window: nature.window,
            idempotency_key_lifetime: nature.keys_kept,
        };
        Self {
            executor,
            store,
            account: account_named("first"),
            nature,
            books: Arc::default(),
            chaos: Arc::default(),
            capabilities: Arc::new(capabilities),
            listener: Arc::default(),
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

    /// Tells by webhook how an operation stands: after any time, up to three times, so in any order with others.
    fn tell_later(&self, id: TransactionId) {
        if self.executor.chance(self.chaos.lock().webhooks) {
            self.tell_for_sure(id);
        }
    }

    fn tell_for_sure(&self, id: TransactionId) {
        let Some(listener) = self.listener.lock().clone() else {
            return;
        };
        let Some(booked) = self.books.lock().operations.get(&id).cloned() else {
            return;
        };
        let told = WebhookFact {
            payment: PaymentName::Ours(booked.payment),
            subject: Subject::Transaction(id),
            fact: fact(id, &booked, self.nature),
        };
        for _ in 0..self.executor.pick(1..4) {
            let (executor, listener) = (self.executor.clone(), Arc::clone(&listener));
            let (account, told) = (booked.account.clone(), told.clone());
            self.executor.spawn(WORLD, async move {
                executor.wait_up_to(MAX_WEBHOOK_DELAY).await;
                listener(account, told);
            });
        }
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

    /// What the books say about a payment.
    pub fn balance(&self, payment: PaymentId) -> Balance {
        self.books
            .lock()
            .balances
            .get(&payment)
            .copied()
            .unwrap_or_default()
    }

    /// What it did by itself.
    pub fn unasked(&self) -> Vec<Unasked> {
        self.books.lock().unasked.clone()
    }

    /// Refunds, captures or charges back some payment that nobody asked it to, and tells it by webhook.
    pub fn act_by_itself(&self) {
        let acted = self.books.lock().act(&self.executor);
        for unasked in acted {
            self.tell_unasked(&unasked);
        }
    }

    /// Takes back a capture or a refund that it has done, and tells it by webhook: perhaps before what it told of its
    /// success has come.
    pub fn take_back(&self) {
        let taken = self.books.lock().take_back(&self.executor);
        if let Some(id) = taken {
            self.tell_for_sure(id);
        }
    }

    /// Tells again what it took back.
    pub fn tell_taken_back_again(&self) {
        let operations = self.operations().into_iter();
        for (id, _) in operations.filter(|(_, booked)| booked.status == Status::TakenBack) {
            self.tell_for_sure(id);
        }
    }

    /// Tells again what it did by itself: a server that died may have been the only one to hear of it.
    pub fn tell_again(&self) {
        for unasked in self.unasked() {
            self.tell_unasked(&unasked);
        }
    }

    fn tell_unasked(&self, unasked: &Unasked) {
        let Some(listener) = self.listener.lock().clone() else {
            return;
        };
        let amount = eur(unasked.amount);
        let dispute = unasked.kind.disputes().then_some(amount).flatten();
        let told = WebhookFact {
            payment: PaymentName::Ours(unasked.payment),
            subject: Subject::Operation {
                kind: unasked.kind,
                dispute: dispute.map(|amount| Dispute {
                    reason: Text::default(),
                    due_at: None,
                    amount,
                }),
            },
            fact: unasked.fact(),
        };
        for _ in 0..self.executor.pick(1..4) {
            let (executor, listener) = (self.executor.clone(), Arc::clone(&listener));
            let (account, told) = (unasked.account.clone(), told.clone());
            self.executor.spawn(WORLD, async move {
                executor.wait_up_to(MAX_WEBHOOK_DELAY).await;
                listener(account, told);
            });
        }
    }

    /// What it saw that must never happen.
    pub fn violations(&self) -> Vec<String> {
        self.books.lock().violations.clone()
    }

    /// Decides what was left pending, one way or the other, and stops challenging.
    pub fn decide_pending(&self) {
        let chaos = *self.chaos.lock();
        let mut books = self.books.lock();
        let open: Vec<_> = books
            .operations
            .iter()
            .filter(|(_, booked)| matches!(booked.status, Status::Pending | Status::Challenged))
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            let approve = !self.executor.chance(chaos.declines.max(300));
            let status = if approve {
                Status::Approved
            } else {
                Status::Declined
            };
            books.conclude(id, status);
        }
    }

    /// Takes a request that has arrived.
    fn process(&self, request: &[u8]) -> Option<Fact> {
        let wire = Wire::read(request)?;
        let chaos = *self.chaos.lock();
        let roll = self.executor.pick(0..1_000);
        let mut books = self.books.lock();
        let confirms = wire.kind == OperationKind::Confirm;
        let now = self.executor.now();
        let key = (self.account.clone(), wire.transaction, confirms);
        let kept = TimeDelta::from_std(self.nature.keys_kept).unwrap_or(TimeDelta::MAX);
        let known = books.keys.get(&key).cloned();
        let known = known.filter(|(_, since)| now - *since < kept);
        match known.map(|(bytes, _)| bytes) {
            Some(bytes) if bytes != request => {
                books.violations.push(format!(
                    "I2: {} was sent with other bytes",
                    wire.transaction
                ));
            }
            Some(_) => {}
            None => {
                books.keys.insert(key, (request.to_vec(), now));
                books.carry_out(&wire, (&self.account, now), roll, chaos);
            }
        }
        books
            .operations
            .get(&wire.transaction)
            .map(|booked| fact(wire.transaction, booked, self.nature))
    }
}

impl Unasked {
    fn fact(&self) -> Fact {
        Fact {
            kind: FactKind::Approved {
                amount: eur(self.amount),
                expires_at: None,
            },
            provider_reference: ProviderReference::parse(self.reference.as_str()).ok(),
            payment_reference: None,
        }
    }
}

impl Books {
    /// Does something to a payment with money in it, by itself: what it did.
    fn act(&mut self, executor: &Executor) -> Vec<Unasked> {
        let opened = self.operations.values().filter(|booked| {
            let opens = matches!(
                booked.kind,
                OperationKind::Purchase | OperationKind::Authorize
            );
            opens && booked.status == Status::Approved
        });
        let opened: Vec<_> = opened
            .map(|booked| (booked.payment, booked.account.clone()))
            .collect();
        let Ok(count @ 1..) = u32::try_from(opened.len()) else {
            return Vec::new();
        };
        let chosen = usize::try_from(executor.pick(0..count)).unwrap_or(0);
        let Some((payment, account)) = opened.get(chosen).cloned() else {
            return Vec::new();
        };
        let balance = self.balances.entry(payment).or_default();
        let amount = i64::from(executor.pick(1..60));
        let reference = format!("by-itself-{}", self.unasked.len());
        let done = |kind, amount| Unasked {
            kind,
            reference: reference.clone(),
            payment,
            amount,
            account: account.clone(),
        };
        let acted = match executor.pick(0..4) {
            0 if balance.captured + balance.voided + amount <= balance.authorized => {
                balance.captured += amount;
                vec![done(TransactionKind::Capture, amount)]
            }
            1 if balance.captured > 0 => {
                let mut acted = vec![done(TransactionKind::Chargeback, balance.captured)];
                if executor.chance(500) {
                    acted.push(done(TransactionKind::ChargebackReversal, balance.captured));
                }
                if balance.charged_back > 0 {
                    // Once is enough: the bank cannot take it twice.
                    acted.clear();
                } else if acted.len() == 1 {
                    balance.charged_back = balance.captured;
                }
                acted
            }
            _ if balance.refunded + amount <= balance.captured => {
                balance.refunded += amount;
                vec![done(TransactionKind::Refund, amount)]
            }
            _ => Vec::new(),
        };
        self.unasked.extend(acted.iter().cloned());
        acted
    }

    /// Takes back something that was done for us: a refund, or a capture that nothing is refunded of.
    fn take_back(&mut self, executor: &Executor) -> Option<TransactionId> {
        let (balances, operations) = (&self.balances, &self.operations);
        let can_be = |booked: &Booked| {
            let balance = balances.get(&booked.payment).copied().unwrap_or_default();
            let refunds = operations.values().any(|other| {
                let pending = other.status == Status::Pending;
                other.payment == booked.payment && other.kind == OperationKind::Refund && pending
            });
            let untouched = balance.refunded == 0 && balance.charged_back == 0 && !refunds;
            match booked.kind {
                OperationKind::Refund => true,
                OperationKind::Capture => untouched,
                OperationKind::Purchase
                | OperationKind::Authorize
                | OperationKind::Confirm
                | OperationKind::Void => false,
            }
        };
        let done = self.operations.iter();
        let done = done.filter(|(_, booked)| booked.status == Status::Approved && can_be(booked));
        let done: Vec<_> = done.map(|(id, _)| *id).collect();
        let count = u32::try_from(done.len()).ok().filter(|count| *count > 0)?;
        let id = *done.get(usize::try_from(executor.pick(0..count)).unwrap_or(0))?;
        let booked = self.operations.get_mut(&id)?;
        booked.status = Status::TakenBack;
        let (kind, payment, amount) = (booked.kind, booked.payment, booked.amount);
        // An authorization that was released is not there again for what was captured of it before.
        let closed = self.operations.values().any(|other| {
            let closes = other.kind == OperationKind::Void
                || other.kind == OperationKind::Capture && other.last;
            closes && other.payment == payment && other.status == Status::Approved
        });
        let balance = self.balances.entry(payment).or_default();
        if kind == OperationKind::Refund {
            balance.refunded -= amount;
            return Some(id);
        }
        balance.captured -= amount;
        if closed {
            balance.voided = balance.authorized - balance.captured;
        }
        Some(id)
    }

    fn carry_out(
        &mut self,
        wire: &Wire,
        (account, now): (&ProviderAccount, DateTime<Utc>),
        roll: u32,
        chaos: ProviderChaos,
    ) {
        if wire.kind == OperationKind::Confirm {
            let declined = roll < chaos.declines;
            let status = if declined {
                Status::Declined
            } else {
                Status::Approved
            };
            if self
                .operations
                .get(&wire.transaction)
                .is_some_and(|held| held.status == Status::Challenged)
            {
                self.conclude(wire.transaction, status);
            }
            return;
        }
        let opens = matches!(
            wire.kind,
            OperationKind::Purchase | OperationKind::Authorize
        );
        let status = if !opens && !self.covers(wire) || roll < chaos.declines {
            Status::Declined
        } else if opens && roll < chaos.declines + chaos.challenges {
            Status::Challenged
        } else if wire.kind != OperationKind::Void
            && roll < chaos.declines + chaos.challenges + chaos.pends
        {
            Status::Pending
        } else {
            Status::Approved
        };
        let before = self.operations.get(&wire.transaction);
        if before.is_some_and(|held| held.account != *account) {
            self.violations.push(format!(
                "I4: {} was processed at two accounts",
                wire.transaction
            ));
        }
        let times = before.map_or(0, |held| held.times);
        let booked = Booked {
            account: account.clone(),
            arrived: now,
            kind: wire.kind,
            payment: wire.payment,
            amount: wire.amount,
            last: wire.last,
            status: Status::Pending,
            times,
        };
        self.operations.insert(wire.transaction, booked);
        if status == Status::Pending {
            return;
        }
        self.conclude(wire.transaction, status);
    }

    /// Whether the payment's balance allows it.
    fn covers(&self, wire: &Wire) -> bool {
        let balance = self
            .balances
            .get(&wire.payment)
            .copied()
            .unwrap_or_default();
        match wire.kind {
            OperationKind::Capture => {
                balance.captured + balance.voided + wire.amount <= balance.authorized
            }
            OperationKind::Refund => balance.refunded + wire.amount <= balance.captured,
            OperationKind::Void => {
                let challenged = self.operations.values().any(|booked| {
                    booked.payment == wire.payment && booked.status == Status::Challenged
                });
                challenged || balance.captured + balance.voided < balance.authorized
            }
            OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm => true,
        }
    }

    /// Ends an operation, and books what it moves.
    fn conclude(&mut self, id: TransactionId, status: Status) {
        let Some(booked) = self.operations.get_mut(&id) else {
            return;
        };
        booked.status = status;
        if status != Status::Approved {
            return;
        }
        booked.times += 1;
        let (kind, payment, amount, last) =
            (booked.kind, booked.payment, booked.amount, booked.last);
        let balance = self.balances.entry(payment).or_default();
        match kind {
            OperationKind::Purchase => {
                balance.authorized += amount;
                balance.captured += amount;
            }
            OperationKind::Authorize => balance.authorized += amount,
            OperationKind::Capture => {
                balance.captured += amount;
                if last {
                    balance.voided = balance.authorized - balance.captured;
                }
            }
            OperationKind::Refund => balance.refunded += amount,
            OperationKind::Void => {
                balance.voided = balance.authorized - balance.captured;
                let challenged = self
                    .operations
                    .values_mut()
                    .filter(|other| other.payment == payment && other.status == Status::Challenged);
                challenged.for_each(|other| other.status = Status::Voided);
            }
            OperationKind::Confirm => {}
        }
    }
}

fn eur(minor_units: i64) -> Option<Money> {
    let eur = Currency::parse("EUR").ok()?;
    Money::new(minor_units, eur).ok()
}

fn fact(id: TransactionId, booked: &Booked, nature: Nature) -> Fact {
    let amount = eur(booked.amount);
    let kind = match booked.status {
        Status::Approved => FactKind::Approved {
            amount,
            expires_at: None,
        },
        Status::Declined => FactKind::Declined(Decline {
            code: DeclineCode::DoNotHonor,
            provider_code: Text::default(),
        }),
        Status::Challenged => FactKind::RequiresAction(NextAction {
            redirect_url: Sensitive::new("https://issuer.example".to_owned()),
            data: Sensitive::default(),
        }),
        Status::Pending => FactKind::Pending,
        Status::Voided => FactKind::Failed(Cause::Voided),
        Status::TakenBack => FactKind::TakenBack(Cause::ProviderReportedFailure),
    };
    Fact {
        kind,
        provider_reference: ProviderReference::parse(id.to_string())
            .ok()
            .filter(|_| nature.names),
        payment_reference: ProviderReference::parse(booked.payment.to_string())
            .ok()
            .filter(|_| nature.names),
    }
}

impl ProviderRules for SimProvider {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        Ok(PreparedRequest {
            bytes: Sensitive::new(Wire::write(operation)),
        })
    }
}

fn report(outcome: SendOutcome) -> SendReport {
    let answered = match &outcome {
        SendOutcome::Answered(fact) => Some(format!("{:?}", fact.kind)),
        SendOutcome::NotSent(_) | SendOutcome::Unknown(_) => None,
    };
    SendReport {
        outcome,
        latency_micros: 1_000,
        http_status: None,
        response: answered.map(|text| Sensitive::new(text.into_bytes())),
        retry_after: None,
    }
}

/// Webhooks come to the flows as facts that were verified and read.
impl ProviderWebhooks for SimProvider {
    fn verify(&self, _delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        Err(Unverified::NoSecret)
    }

    fn webhook(&self, _body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        Err(Unreadable::Unexpected)
    }
}

#[async_trait]
impl Provider for SimProvider {
    async fn send(&self, request: &PreparedRequest, send: u32) -> SendReport {
        let bytes = request.bytes.expose().clone();
        if let Some(wire) = Wire::read(&bytes) {
            self.judge(wire.transaction, send);
        }
        let chaos = *self.chaos.lock();
        if self.executor.chance(chaos.circuit_open) {
            return report(SendOutcome::NotSent(Cause::CircuitOpen));
        }
        let roll = self.executor.pick(0..1_000);
        if roll < chaos.not_sent {
            self.executor.wait_up_to(Duration::from_secs(2)).await;
            return report(SendOutcome::NotSent(Cause::ConnectionRefused));
        }
        if roll < chaos.not_sent + chaos.lost_request {
            self.executor.wait(TOTAL_TIMEOUT).await;
            return report(SendOutcome::Unknown(Cause::ResponseTimeout));
        }
        let unheard = roll < chaos.not_sent + chaos.lost_request + chaos.lost_answer;
        // Once it has left, it arrives, whatever becomes of the sender.
        let (tell, told) = oneshot::channel();
        let provider = self.clone();
        self.executor.spawn(WORLD, async move {
            let takes = if unheard {
                LATE
            } else {
                Duration::from_millis(300)
            };
            provider.executor.wait_up_to(takes).await;
            let fact = provider.process(&bytes);
            if let Some(wire) = Wire::read(&bytes) {
                provider.tell_later(wire.transaction);
            }
            provider
                .executor
                .wait_up_to(Duration::from_millis(300))
                .await;
            // The sender may have crashed.
            let _ = tell.send(fact.filter(|_| !unheard));
        });
        match select(told, Box::pin(self.executor.wait(TOTAL_TIMEOUT))).await {
            Either::Left((Ok(Some(fact)), _)) => report(SendOutcome::Answered(fact)),
            Either::Left((Ok(None) | Err(_), _)) => {
                report(SendOutcome::Unknown(Cause::UnreadableResponse))
            }
            Either::Right(_) => report(SendOutcome::Unknown(Cause::ResponseTimeout)),
        }
    }

    async fn lookup(&self, query: &LookupQuery) -> LookupOutcome {
        self.executor.wait_up_to(Duration::from_millis(300)).await;
        let fails = self.executor.chance(self.chaos.lock().lookup_fails);
        let found = self
            .books
            .lock()
            .operations
            .get(&query.transaction)
            .filter(|booked| self.shows(booked))
            .cloned();
        self.executor.wait_up_to(Duration::from_millis(300)).await;
        let named = query.provider_reference.as_ref();
        let unasked = self.unasked().into_iter().find(|unasked| {
            let same = unasked.kind == query.kind
                && Some(unasked.reference.as_str()) == named.map(ProviderReference::as_str);
            same && query.origin == TransactionOrigin::Provider
        });
        if let Some(unasked) = unasked.filter(|_| !fails) {
            return LookupOutcome::Found(unasked.fact());
        }
        match found {
            _ if fails => LookupOutcome::Unavailable {
                cause: Cause::ConnectionRefused,
                retry_after: None,
            },
            Some(booked) => LookupOutcome::Found(fact(query.transaction, &booked, self.nature)),
            None => LookupOutcome::NotFound {
                authoritative: self.nature.authoritative,
            },
        }
    }

    fn send_timeout(&self) -> Duration {
        TOTAL_TIMEOUT
    }

    fn livemode(&self) -> bool {
        false
    }

    fn reserve(&self) -> Result<Place, Saturated> {
        if self.executor.chance(self.chaos.lock().busy) {
            return Err(Saturated);
        }
        Ok(Place::unlimited())
    }

    fn circuit(&self) -> Circuit {
        if self.executor.chance(self.chaos.lock().circuit_open) {
            return Circuit::Open;
        }
        Circuit::Closed
    }
}

impl SimProvider {
    /// Looks at whether a send may be made now: its attempt is committed, and its lease has time for it.
    fn judge(&self, id: TransactionId, send: u32) {
        let committed = self.store.look(|tables| {
            let attempt = tables.attempts.get(&(id, send));
            attempt.map(|attempt| attempt.started_at)
        });
        let age = committed.map(|at| self.executor.now() - at);
        let text = match age {
            None => format!("I1: {id} was sent without a committed attempt"),
            Some(age) if age > TimeDelta::seconds(SEND_WITHIN) => {
                format!("{id} was sent when its lease had no time for it")
            }
            Some(_) => return,
        };
        self.books.lock().violations.push(text);
    }

    /// Whether its lookup shows an operation: its own, and not younger than its window (in the worst case).
    fn shows(&self, booked: &Booked) -> bool {
        let age = self.executor.now() - booked.arrived;
        let window = TimeDelta::from_std(self.nature.window).unwrap_or_default();
        let seen = age >= window || self.executor.chance(300);
        booked.account == self.account && seen
    }
}

#[allow(clippy::expect_used)] // a constant that is valid
fn account_named(name: &str) -> ProviderAccount {
    ProviderAccount::parse(name).expect("a valid name")
}

impl Providers for SimProviders {
    fn account(&self, name: &ProviderAccount) -> Option<Arc<dyn Provider>> {
        let found = self.0.iter().find(|provider| provider.account == *name)?;
        Some(Arc::new(found.clone()))
    }

    fn names(&self) -> Vec<ProviderAccount> {
        self.0.iter().map(|found| found.account.clone()).collect()
    }

    fn serves(&self, _tenant: &TenantId, _name: &ProviderAccount) -> bool {
        true
    }

    fn route(
        &self,
        _tenant: &TenantId,
        _amount: Money,
        _method: PaymentMethodType,
    ) -> Vec<ProviderAccount> {
        self.names()
    }
}
