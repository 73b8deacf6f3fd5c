//! The replay: amounts and state of a payment after each of its entries, from the entries alone.
//!
//! An entry says what happened to its transaction, and what the payment's amounts and state are afterwards. Here they
//! are derived again, from the entries before and what happened, by the rules of [`Amounts`] and the one transition
//! table; and compared with what the entry says. So a row that somebody changed between two entries shows at the
//! second, though that was made by the service, of what it found. `decide` makes the entries; this is the second,
//! separate account of what each of them does.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::entry::LeafFacts;
use super::mismatch::{Fault, Shown};
use crate::amounts::Amounts;
use crate::journal::AMOUNT_NAMES;
use crate::money::MAX_AMOUNT_MINOR_UNITS;
use crate::payment::{MAX_RECORDED_TRANSACTIONS, PaymentState};
use crate::transaction::{TransactionKind, TransactionOrigin, TransactionState};

mod moves;

use TransactionOrigin::{Caller, Operator, Provider, Service};
use TransactionState::{Declined, Failed, Pending, RequiresAction, Reversed, Succeeded};

/// The most, in minor units, that a payment's transactions can come to together; sums of a few of these do not
/// overflow.
#[allow(
    clippy::as_conversions,
    clippy::cast_possible_wrap,
    reason = "2,000 fits"
)]
const MAX_SUM: i64 = MAX_AMOUNT_MINOR_UNITS * MAX_RECORDED_TRANSACTIONS as i64;

/// A payment as its entries so far make it.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    state: PaymentState,
    amounts: Amounts,
    /// Whether the authorization ran out.
    pub expired: bool,
    transactions: BTreeMap<Uuid, Held>,
}

/// What of a transaction bears on the payment.
#[derive(Debug, Clone, Copy)]
struct Held {
    kind: TransactionKind,
    origin: TransactionOrigin,
    state: TransactionState,
    amount: i64,
    final_capture: bool,
    /// Whether it was sent.
    sent: bool,
    /// Whether it failed because a void came before it.
    voided: bool,
}

/// What an entry says of its transaction and of the payment after it.
struct Said<'a> {
    leaf: &'a LeafFacts,
    id: Uuid,
    state: TransactionState,
    amount: i64,
    amounts: Amounts,
    state_to: PaymentState,
}

impl<'a> Said<'a> {
    /// `None` where it does not say all of it: it was made before entries did, or by a later version.
    fn of(leaf: &'a LeafFacts) -> Option<Self> {
        let id = leaf.transaction_id?;
        leaf.transaction_row(id)?;
        let told = leaf.transaction_states.iter().find(|(told, _)| *told == id);
        Some(Self {
            leaf,
            id,
            state: TransactionState::from_name(&told?.1)?,
            amount: leaf.amount_minor?,
            amounts: leaf.amounts.as_ref().map(amounts_of)?,
            state_to: PaymentState::from_name(leaf.state_to.as_deref()?)?,
        })
    }
}

/// What happened to a transaction, as its states before and after tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    Accepted,
    /// The provider tells of what it has not done yet: an inquiry, or something that waits for a person.
    Noticed,
    NeverDone,
    Expired,
    Done,
    NotDone,
    TakenBack,
    /// A person says that the provider did again what it had taken back.
    DoneAgain,
    Nothing,
}

impl Happened {
    /// `None` where the one state cannot follow the other. `decided` where a person says so.
    fn of(before: Option<Held>, after: Held, event_type: &str, decided: bool) -> Option<Self> {
        if event_type == "payment.expired" {
            return before.map(|_| Self::Expired);
        }
        let Some(before) = before else {
            return match (after.origin, after.state) {
                (Provider, Pending) => Some(Self::Noticed),
                (Caller | Operator | Service, Pending) => Some(Self::Accepted),
                (Provider, Succeeded) => Some(Self::Done),
                (Provider, Declined | Failed | Reversed) => Some(Self::NeverDone),
                (Provider, RequiresAction)
                | (
                    Caller | Operator | Service,
                    RequiresAction | Succeeded | Declined | Failed | Reversed,
                ) => None,
            };
        };
        match (before.state, after.state) {
            (from, to) if from == to => Some(Self::Nothing),
            (Pending, RequiresAction) | (RequiresAction, Pending) => Some(Self::Nothing),
            (Pending | RequiresAction | Declined | Failed, Succeeded) => Some(Self::Done),
            (Pending | RequiresAction, Declined | Failed) | (Failed, Declined) => {
                Some(Self::NotDone)
            }
            // The provider took it back, and says so before its older word that it was done.
            (Pending | RequiresAction | Declined | Failed, Reversed) => Some(Self::NotDone),
            (Succeeded, Declined | Failed | Reversed) => Some(Self::TakenBack),
            (Reversed, Succeeded) if decided => Some(Self::DoneAgain),
            // What a dispute returns follows from how it stands.
            (Reversed, Succeeded) if after.kind.disputes() => Some(Self::Done),
            (Pending | RequiresAction | Declined | Failed | Succeeded | Reversed, _) => None,
        }
    }
}

impl Replay {
    /// Begins with a payment that is about to be accepted.
    pub fn new() -> Self {
        Self {
            state: PaymentState::Pending,
            amounts: Amounts::default(),
            expired: false,
            transactions: BTreeMap::new(),
        }
    }

    /// The amount of a transaction.
    pub fn amount(&self, id: Uuid) -> Option<i64> {
        self.transactions.get(&id).map(|held| held.amount)
    }

    /// Whether a chargeback is open, or charged back money is not returned.
    pub fn disputed(&self) -> bool {
        let mut all = self.transactions.values();
        let open = all.any(|held| held.kind == TransactionKind::Chargeback && !held.state.ended());
        open || self.proved().charged_back > 0
    }

    /// Follows an entry, and reports where it says something else than follows. Goes on from what it says. False where
    /// the replay ends here, since the entry does not say enough.
    pub fn follow(&mut self, leaf: &LeafFacts, first: bool, report: &mut dyn FnMut(Fault)) -> bool {
        let Some(said) = Said::of(leaf) else {
            return false;
        };
        let mut amounts = said.amounts.all().into_iter();
        let sums_possible = amounts.all(|sum| (0..=MAX_SUM).contains(&sum));
        if !sums_possible || !(0..=MAX_AMOUNT_MINOR_UNITS).contains(&said.amount) {
            report(differs("amounts", &"those of a payment", &"others"));
            return false;
        }
        let before = self.transactions.get(&said.id).copied();
        let made = leaf.makes.map(|(kind, origin, final_capture)| Held {
            kind,
            origin,
            state: said.state,
            amount: said.amount,
            final_capture,
            sent: false,
            voided: false,
        });
        let Some(mut after) = before.or(made) else {
            report(differs(
                "transaction_id",
                &"one of an entry before",
                &said.id,
            ));
            return false;
        };
        if before.is_none() && self.transactions.len() >= MAX_RECORDED_TRANSACTIONS {
            // A payment has no more; forged entries do not fill the memory.
            return false;
        }
        after.state = said.state;
        after.amount = said.amount;
        let Some(happened) = Happened::of(before, after, &leaf.event_type, leaf.decided) else {
            let from = before.map_or("nothing", |before| before.state.name());
            report(differs(
                "transaction_state",
                &format_args!("one that can follow {from}"),
                &said.state,
            ));
            return false;
        };
        if !self.may_be(said.amount, before, &said, happened) {
            let expected = before.map_or_else(|| self.amounts.capturable(), |before| before.amount);
            report(differs("amount_minor", &expected, &said.amount));
        }
        let state_from = (!first).then(|| self.state.name());
        if leaf.state_from.as_deref() != state_from {
            let (expected, found) = (state_from.unwrap_or("nothing"), leaf.state_from.as_deref());
            report(differs(
                "state_from",
                &expected,
                &found.unwrap_or("nothing"),
            ));
        }
        let others = self.apply(&said, before, after, happened);
        self.compare(&said, &others, report);
        true
    }

    /// Whether the amount can be the transaction's: it stays what it was, unless a person says what was moved, or the
    /// provider does of what it did itself. A void's is what is left.
    fn may_be(
        &self,
        amount: i64,
        before: Option<Held>,
        said: &Said<'_>,
        happened: Happened,
    ) -> bool {
        match before {
            None if is_void(said) && happened == Happened::Accepted => {
                amount == self.amounts.capturable()
            }
            None => true,
            Some(before) => {
                // Of what it took back before we knew of it, it may say the amount later.
                let told =
                    before.origin == Provider && (happened == Happened::Done || before.amount == 0);
                before.amount == amount || said.leaf.decided || told
            }
        }
    }

    /// Compares what follows with what the entry says, and takes that over: so what differs is reported once.
    fn compare(&mut self, said: &Said<'_>, others: &[(Uuid, Held)], report: &mut dyn FnMut(Fault)) {
        self.transactions.extend(others.iter().copied());
        for ((name, derived), told) in AMOUNT_NAMES
            .into_iter()
            .zip(self.amounts.all())
            .zip(said.amounts.all())
        {
            if derived != told {
                report(differs(name, &derived, &told));
            }
        }
        if self.state != said.state_to {
            report(differs("state_to", &self.state, &said.state_to));
        }
        for (id, told) in &said.leaf.transaction_states {
            let Some(held) = self.transactions.get_mut(id) else {
                report(differs(
                    "transaction_state.",
                    &"of a transaction before",
                    id,
                ));
                continue;
            };
            if held.state.name() != told {
                report(differs("transaction_state.", &held.state, told));
                held.state = TransactionState::from_name(told).unwrap_or(held.state);
            }
        }
        let told = |id| {
            said.leaf
                .transaction_states
                .iter()
                .any(|(told, _)| *told == id)
        };
        for (id, held) in others.iter().filter(|(id, _)| !told(*id)) {
            report(differs(
                "transaction_state.",
                &format_args!("{} of {id}", held.state),
                &"nothing",
            ));
        }
        self.amounts = said.amounts;
        self.state = said.state_to;
    }
}

fn is_void(said: &Said<'_>) -> bool {
    let kind = said.leaf.makes.map(|(kind, ..)| kind);
    kind == Some(TransactionKind::Void)
}

fn differs(
    field: &'static str,
    expected: &dyn std::fmt::Display,
    found: &dyn std::fmt::Display,
) -> Fault {
    Fault::ReplayDiffers {
        field,
        expected: Shown::of(expected),
        found: Shown::of(found),
    }
}

fn amounts_of(said: &quittance_evidence::Amounts) -> Amounts {
    Amounts {
        authorized: said.authorized,
        captured: said.captured,
        capture_pending: said.capture_pending,
        voided: said.voided,
        void_pending: said.void_pending,
        refunded: said.refunded,
        refund_pending: said.refund_pending,
        charged_back: said.charged_back,
        excess: said.excess,
    }
}
