//! The provider's books, which it keeps faithfully.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use quittance_domain::ids::{PaymentId, ProviderAccount, TransactionId};
use quittance_domain::transaction::{OperationKind, SendOutcome};

use super::ProviderChaos;
use super::unasked::Unasked;
use super::wire::Wire;

/// One operation in the provider's books.
#[derive(Debug, Clone)]
pub struct Booked {
    /// What.
    pub kind: OperationKind,
    /// For which of our payments.
    pub payment: PaymentId,
    /// How much was asked for, in minor units.
    pub asked: i64,
    /// How much it moves, in minor units: now and then less.
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
    /// Whether it is an authorization that ran out, or what was left of it.
    pub ran_out: bool,
}

impl Booked {
    /// Whether it opens a payment.
    pub fn opens(&self) -> bool {
        opens(self.kind)
    }

    /// Whether it was done, for another amount than was asked for.
    pub fn moved_otherwise(&self) -> bool {
        self.times > 0 && self.amount != self.asked
    }
}

/// Whether an operation opens a payment.
pub(super) fn opens(kind: OperationKind) -> bool {
    matches!(kind, OperationKind::Purchase | OperationKind::Authorize)
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
    /// A purchase that was authorized, and voided before its capture was booked.
    Uncaptured,
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

/// Account, transaction, and which confirmation it is.
pub(super) type Key = (ProviderAccount, TransactionId, u32);

/// What the provider remembers of a key.
#[derive(Clone)]
pub(super) struct Remembered {
    pub request: Vec<u8>,
    pub since: DateTime<Utc>,
    /// What the first request under it was answered.
    pub answer: Option<SendOutcome>,
}

/// The books.
#[derive(Default)]
pub(super) struct Ledger {
    pub operations: BTreeMap<TransactionId, Booked>,
    pub keys: BTreeMap<Key, Remembered>,
    pub balances: BTreeMap<PaymentId, Balance>,
    pub unasked: Vec<Unasked>,
    /// Payments whose authorization ran out, or what was left of it.
    pub expired: BTreeSet<PaymentId>,
    /// Of which a request has left for it.
    pub begun: BTreeSet<TransactionId>,
    pub violations: Vec<String>,
}

impl Ledger {
    /// What the books say about a payment.
    pub fn balance(&self, payment: PaymentId) -> Balance {
        self.balances.get(&payment).copied().unwrap_or_default()
    }

    /// The operations of a payment.
    pub fn of(&self, payment: PaymentId) -> impl Iterator<Item = &Booked> {
        let all = self.operations.values();
        all.filter(move |booked| booked.payment == payment)
    }

    /// Hands over what the customer's authentication returned: it decides what still waits for it.
    pub fn confirm(&mut self, id: TransactionId, declined: bool) {
        let status = if declined {
            Status::Declined
        } else {
            Status::Approved
        };
        let held = self.operations.get(&id);
        if held.is_some_and(|held| held.status == Status::Challenged) {
            self.conclude(id, status);
        }
    }

    /// How the provider decides about a request, by the dice and by the payment's balance.
    pub fn judge(&self, wire: &Wire, roll: u32, chaos: ProviderChaos) -> Status {
        let (opens, void) = (opens(wire.kind), wire.kind == OperationKind::Void);
        let uncovered = !opens && !self.covers(wire.kind, wire.payment, wire.moves);
        if uncovered || roll < chaos.declines {
            Status::Declined
        } else if opens && roll < chaos.declines + chaos.challenges {
            Status::Challenged
        } else if !void && roll < chaos.declines + chaos.challenges + chaos.pends {
            Status::Pending
        } else {
            Status::Approved
        }
    }

    /// Books an operation that has arrived, and how it was decided.
    pub fn book(
        &mut self,
        wire: &Wire,
        (account, now): (&ProviderAccount, DateTime<Utc>),
        status: Status,
    ) {
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
            ran_out: false,
            kind: wire.kind,
            payment: wire.payment,
            asked: wire.amount,
            amount: wire.moves,
            last: wire.last,
            status: Status::Pending,
            times,
        };
        self.operations.insert(wire.transaction, booked);
        if status != Status::Pending {
            self.conclude(wire.transaction, status);
        }
    }

    /// Whether the payment's balance allows an operation.
    pub fn covers(&self, kind: OperationKind, payment: PaymentId, amount: i64) -> bool {
        let balance = self.balance(payment);
        match kind {
            OperationKind::Capture => {
                balance.captured + balance.voided + amount <= balance.authorized
            }
            OperationKind::Refund => balance.refunded + amount <= balance.captured,
            OperationKind::Void => {
                let challenged = self
                    .of(payment)
                    .any(|held| held.status == Status::Challenged);
                challenged || balance.captured + balance.voided < balance.authorized
            }
            OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm => true,
        }
    }

    /// The purchase whose capture is not booked yet, so that a void can still keep it from being made.
    pub fn purchase_untouched(&self, payment: PaymentId) -> Option<TransactionId> {
        let balance = self.balance(payment);
        let only = self
            .of(payment)
            .filter(|held| held.kind != OperationKind::Void);
        let moved = balance.refunded != 0 || balance.charged_back != 0;
        if moved || only.count() != 1 {
            return None;
        }
        let mut all = self.operations.iter();
        let found = all.find(|(_, held)| {
            let purchase = held.kind == OperationKind::Purchase && held.payment == payment;
            purchase && held.status == Status::Approved && held.amount == balance.captured
        });
        found.map(|(id, _)| *id)
    }

    /// Keeps the capture of a purchase from being made.
    pub fn uncapture(&mut self, id: TransactionId) {
        let Some(held) = self.operations.get_mut(&id) else {
            return;
        };
        held.status = Status::Uncaptured;
        let (payment, amount) = (held.payment, held.amount);
        self.balances.entry(payment).or_default().captured -= amount;
    }

    /// Ends an operation, and books what it moves.
    pub fn conclude(&mut self, id: TransactionId, status: Status) {
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
