//! Decisions, tested by table and by random walks over commands and facts.

mod abandoned;
mod another;
mod cases;
mod commands;
mod facts;
mod left_alone;
mod margins;
mod recovery;
mod replay;
mod reversals;
mod unasked;
mod voids;
mod walk;
mod watch;

use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Ask, KeyAlive, MaySend, NewPayment, ProvedUnsent, Quiet, create};
use crate::change::{Change, CommandKind, Write};
use crate::command::Create;
use crate::context::{Actor, ActorKind, Caller, Instance, Origin, TraceIds};
use crate::decline::{Decline, DeclineCode};
use crate::fingerprint::Fingerprint;
use crate::ids::{
    AttemptId, EntryId, IdempotencyKey, PaymentId, ProviderAccount, ProviderReference, TenantId,
    TransactionId,
};
use crate::journal::Stamp;
use crate::money::{Currency, Money};
use crate::payment::{CaptureMethod, Initiator, PaymentMethod, PaymentMethodType, PaymentRecord};
use crate::ports::{Capabilities, Operation, ProviderRules, Unpreparable, VoidBefore};
use crate::retry::RetryPolicy;
use crate::text::{Sensitive, Text};
use crate::transaction::{
    Attempt, Fact, FactKind, PreparedRequest, SendOutcome, SendReport, Transaction,
    TransactionState,
};

/// A provider that can do everything, and whose requests are readable.
pub(super) struct Rules(Capabilities);

impl Rules {
    pub fn able() -> Self {
        Self(Capabilities {
            partial_capture: true,
            several_captures: true,
            void_before_authorization: VoidBefore::Named,
            authoritative_lookup: true,
            current_lookup: true,
            consistency_window: Duration::ZERO,
            idempotency_key_lifetime: Duration::from_secs(86_400),
        })
    }

    pub fn with(change: impl FnOnce(&mut Capabilities)) -> Self {
        let mut rules = Self::able();
        change(&mut rules.0);
        rules
    }
}

impl ProviderRules for Rules {
    fn capabilities(&self) -> &Capabilities {
        &self.0
    }

    fn prepare(&self, operation: &Operation<'_>) -> Result<PreparedRequest, Unpreparable> {
        let text = format!(
            "{} {} {:?}",
            operation.kind,
            operation.transaction.id,
            operation.amount.map(Money::minor_units)
        );
        Ok(PreparedRequest {
            bytes: Sensitive::new(text.into_bytes()),
        })
    }
}

static POLICY: LazyLock<RetryPolicy> = LazyLock::new(RetryPolicy::default);

/// A payment under test: time and ids run on by themselves.
pub(super) struct World {
    pub record: PaymentRecord,
    pub changes: Vec<Change>,
    pub rules: Rules,
    /// Whether it was changed past the decisions.
    pub tampered: bool,
    ticks: u32,
    caller: Caller,
    instance: Instance,
}

pub(super) fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn id(n: u32) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

pub(super) fn eur(minor: i64) -> Money {
    Money::new(minor, Currency::parse("EUR").unwrap()).unwrap()
}

pub(super) fn ask(command: CommandKind, n: u32) -> Ask {
    Ask {
        key: IdempotencyKey::parse(format!("key-{n}")).unwrap(),
        command,
        fingerprint: Fingerprint::from_bytes(vec![1]),
        key_digest: [0; 32],
    }
}

pub(super) fn create_command(amount: i64, capture_method: CaptureMethod) -> Create {
    Create {
        idempotency_key: IdempotencyKey::parse("key-0").unwrap(),
        amount: eur(amount),
        method: PaymentMethod {
            kind: PaymentMethodType::Card,
            token: Some(Sensitive::new("tok_approve".to_owned())),
            brand: Text::parse("visa").unwrap(),
            last4: Text::parse("4242").unwrap(),
            expiry_month: Some(12),
            expiry_year: Some(2030),
        },
        capture_method,
        merchant_reference: Text::parse("order-1").unwrap(),
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

impl World {
    /// A payment that was just accepted, its first attempt started.
    pub fn accepted(amount: i64, capture_method: CaptureMethod) -> Self {
        Self::accepted_by(Rules::able(), amount, capture_method)
    }

    pub fn accepted_by(rules: Rules, amount: i64, capture_method: CaptureMethod) -> Self {
        let caller = Caller {
            tenant: TenantId::parse("acme").unwrap(),
            actor: Actor {
                kind: ActorKind::Service,
                id: "shop".into(),
                auth_method: "api_key",
            },
            origin: Origin {
                rpc_method: "test".into(),
                ..Origin::default()
            },
            remote: None,
            deadline: None,
        };
        let instance = Instance {
            service: "quittance",
            version: "0",
            instance: "test".into(),
        };
        let new = NewPayment {
            id: PaymentId(id(1)),
            tenant: caller.tenant.clone(),
            account: ProviderAccount::parse("sandbox").unwrap(),
            livemode: false,
            customer: None,
        };
        let stamp = stamp(&caller, &instance, 1);
        let command = create_command(amount, capture_method);
        let change = create(&command, ask(CommandKind::Create, 0), new, &rules, &stamp).unwrap();
        let record = change.apply_to(None);
        Self {
            record,
            changes: vec![change],
            rules,
            tampered: false,
            ticks: 1,
            caller,
            instance,
        }
    }

    /// An authorized payment.
    pub fn authorized(amount: i64) -> Self {
        let mut world = Self::accepted(amount, CaptureMethod::Manual);
        world.answer(approved(amount));
        world
    }

    /// A captured payment.
    pub fn captured(amount: i64) -> Self {
        let mut world = Self::accepted(amount, CaptureMethod::Automatic);
        world.answer(approved(amount));
        world
    }

    /// Decides with a fresh stamp, and applies what was decided.
    pub fn decide<E>(
        &mut self,
        decide: impl FnOnce(&PaymentRecord, &Rules, &Stamp<'_>) -> Result<Change, E>,
    ) -> Result<(), E> {
        self.ticks += 1;
        let stamp = stamp(&self.caller, &self.instance, self.ticks);
        let change = decide(&self.record, &self.rules, &stamp)?;
        self.record = change.apply_to(Some(self.record.clone()));
        self.changes.push(change);
        Ok(())
    }

    /// Applies a fact learned by a lookup; whether it was news.
    pub fn learn(&mut self, transaction: TransactionId, fact: &Fact) -> bool {
        self.ticks += 1;
        let stamp = stamp(&self.caller, &self.instance, self.ticks);
        let Some(change) = super::fact(&self.record, transaction, fact, &stamp).unwrap() else {
            return false;
        };
        self.record = change.apply_to(Some(self.record.clone()));
        self.changes.push(change);
        true
    }

    /// Ends the newest attempt with this outcome.
    pub fn report(&mut self, outcome: SendOutcome) {
        let attempt = self.attempt();
        let report = SendReport {
            outcome,
            latency_micros: 1_000,
            http_status: None,
            response: None,
            retry_after: None,
        };
        self.decide(|record, _, stamp| super::outcome(record, &attempt, &report, stamp))
            .unwrap();
    }

    /// Ends the newest attempt with an answer.
    pub fn answer(&mut self, kind: FactKind) {
        self.report(SendOutcome::Answered(told(kind)));
    }

    /// The newest attempt that was started.
    pub fn attempt(&self) -> Attempt {
        let started = |change: &Change| match &change.attempt {
            Some(Write::Insert(attempt)) => Some(attempt.clone()),
            Some(Write::Update(_)) | None => None,
        };
        self.changes.iter().rev().find_map(started).unwrap()
    }

    pub fn newest(&self) -> TransactionId {
        self.record.transactions.last().unwrap().id
    }

    pub fn state_of(&self, transaction: TransactionId) -> TransactionState {
        self.record.transaction(transaction).unwrap().state
    }

    pub fn next_n(&self) -> u32 {
        self.ticks + 1
    }
}

impl Drop for World {
    /// Whatever a test has decided: verification finds nothing wrong with it, where it was not tampered with.
    fn drop(&mut self) {
        if !self.tampered && !std::thread::panicking() {
            assert_eq!(self.verify(), []);
        }
    }
}

/// What proves that a transaction was not sent: its sends, or a lookup once all is quiet.
pub(super) fn proof(
    record: &PaymentRecord,
    held: &Transaction,
    now: DateTime<Utc>,
) -> Option<ProvedUnsent> {
    let by_lookup = || {
        let quiet = Quiet::judge(held, Duration::ZERO, now)?;
        ProvedUnsent::by_lookup(quiet, record, held)
    };
    ProvedUnsent::by_sends(held).or_else(by_lookup)
}

/// A resend, as the flows would ask for it; `None` where none is due.
pub(super) fn try_start(
    record: &PaymentRecord,
    id: TransactionId,
    rules: &Rules,
    stamp: &Stamp<'_>,
) -> Option<Change> {
    let held = record.transaction(id).unwrap();
    let same_key = || KeyAlive::judge(held, rules.capabilities(), stamp.now).map(MaySend::SameKey);
    let unsent = proof(record, held, stamp.now).map(MaySend::Unsent);
    let allowed = (unsent.or_else(same_key)?, held.attempts);
    super::start_attempt(record, id, allowed, rules, stamp).unwrap()
}

/// A transaction that is given up as unsent, as the flows would ask for it; `None` where it is not.
pub(super) fn try_give_up(
    record: &PaymentRecord,
    id: TransactionId,
    stamp: &Stamp<'_>,
) -> Option<Change> {
    let held = record.transaction(id).unwrap();
    let proof = proof(record, held, stamp.now)?;
    super::give_up_unsent(record, id, proof, stamp).unwrap()
}

fn stamp<'a>(caller: &'a Caller, instance: &'a Instance, n: u32) -> Stamp<'a> {
    Stamp {
        now: start() + TimeDelta::seconds(i64::from(n)),
        entry_id: EntryId(id(n * 10 + 1)),
        transaction_id: TransactionId(id(n * 10 + 2)),
        attempt_id: AttemptId(id(n * 10 + 3)),
        leaf_salt: [1; 16],
        digest_salt: [2; 16],
        sender_lease: TimeDelta::zero(),
        jitter: 0,
        retries: &POLICY,
        caller,
        trace: TraceIds::default(),
        instance,
    }
}

pub(super) fn told(kind: FactKind) -> Fact {
    let reference = ProviderReference::parse("prov-1").unwrap();
    Fact {
        kind,
        provider_reference: Some(reference.clone()),
        payment_reference: Some(reference),
    }
}

pub(super) fn declined() -> FactKind {
    FactKind::Declined(Decline {
        code: DeclineCode::InsufficientFunds,
        provider_code: Text::parse("insufficient_funds").unwrap(),
    })
}

pub(super) fn approved(amount: i64) -> FactKind {
    FactKind::Approved {
        amount: Some(eur(amount)),
        expires_at: None,
    }
}
