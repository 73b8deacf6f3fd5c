//! What an export says, operation by operation.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{Booked, MAX_SETTLED_LINES, SettledKind, SettledLine};
use crate::ids::{PaymentId, ProviderReference, TransactionId};
use crate::money::Currency;
use crate::reconciliation::Names;

/// More lines than one run compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("more than {MAX_SETTLED_LINES} lines that move money: reconcile a shorter time at once")]
pub struct TooManyLines;

/// What the lines about one operation tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// That it was done.
    Done,
    /// Nothing but that it was undone: it was settled before.
    Undone,
    /// Nothing but that a capture left something of its authorization: what was taken was settled before.
    Rest,
}

impl Told {
    const fn by(line: &SettledLine) -> Self {
        match line.amount {
            _ if line.returns_rest => Self::Rest,
            ..0 => Self::Undone,
            0.. => Self::Done,
        }
    }

    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Done, _) | (_, Self::Done) => Self::Done,
            (Self::Undone, _) | (_, Self::Undone) => Self::Undone,
            (Self::Rest, Self::Rest) => Self::Rest,
        }
    }
}

/// What the lines about one operation add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The first of them.
    pub line: u64,
    /// What they settle.
    pub kind: SettledKind,
    /// Their sum, in minor units: 0 where the provider moved nothing, or undid it.
    pub total: i64,
    /// The currency of the first.
    pub currency: Currency,
    /// Whether others have another, so that the sum means nothing.
    pub mixed: bool,
    /// Whether it is the payout's currency, and may not be the payment's.
    pub in_payout_currency: bool,
    /// Whether that it was done is among what is told.
    pub told: Told,
    /// What they are about.
    pub names: Names,
}

/// An export, gathered operation by operation: lines that share a name and a kind are about one.
#[derive(Debug, Default)]
pub struct Settlement {
    settled: Vec<Settled>,
    /// Whether one of ours was found for it, at the same place.
    matched: Vec<bool>,
    by_name: HashMap<u128, usize>,
    /// Of what is a side of a dispute, at the same place.
    sides: HashMap<usize, Side>,
    lines: u64,
    times: Option<(DateTime<Utc>, DateTime<Utc>)>,
    untimed: bool,
}

impl Settlement {
    /// Adds a line.
    ///
    /// # Errors
    /// There are as many as one run compares.
    pub fn add(&mut self, line: SettledLine) -> Result<(), TooManyLines> {
        // Also of lines about the same operation, since each may bring another name to remember.
        if self.lines >= u64::try_from(MAX_SETTLED_LINES).unwrap_or(u64::MAX) {
            return Err(TooManyLines);
        }
        self.lines += 1;
        self.note_time(line.at);
        let keys = keys_of(line.kind, &line.names);
        let movement = Movement::of(&line);
        let known = keys.iter().find_map(|key| self.by_name.get(key)).copied();
        let at = known.unwrap_or(self.settled.len());
        if let Some(settled) = self.settled.get_mut(at) {
            settled.add(&line);
        } else {
            self.settled.push(Settled::from(line));
            self.matched.push(false);
        }
        for key in keys {
            self.by_name.entry(key).or_insert(at);
        }
        if let Some(movement) = movement {
            self.cancel_out(at, &movement);
        }
        Ok(())
    }

    /// A dispute that was won and is taken up again takes once more what it had returned. The two cancel out, so that what is
    /// left of either side is how the dispute stands.
    fn cancel_out(&mut self, here: usize, movement: &Movement) {
        let other = self.by_name.get(&movement.other_side).copied();
        let returned_at = other
            .and_then(|other| self.sides.get(&other))
            .and_then(|side| side.first_at);
        let (again, amount) = (self.sides.contains_key(&here), movement.amount);
        let side = self.sides.entry(here).or_insert(Side {
            first_at: movement.at,
            again: 0,
        });
        if again {
            side.again = side.again.saturating_add(amount);
        }
        let Some(other) = other else {
            return;
        };
        let returned_before = returned_at
            .zip(movement.at)
            .is_some_and(|(returned, taken)| returned < taken);
        if movement.takes && !again && returned_before {
            // What was taken first is in an earlier export.
            let gone = amount.min(self.left(other)).max(0);
            return self.lessen(other, gone);
        }
        let (taken, returned) = if movement.takes {
            (here, other)
        } else {
            (other, here)
        };
        let taken_again = self.sides.get(&taken).map_or(0, |side| side.again);
        let gone = taken_again.min(self.left(returned)).max(0);
        if let Some(side) = self.sides.get_mut(&taken) {
            side.again -= gone;
        }
        self.lessen(taken, gone);
        self.lessen(returned, gone);
    }

    /// What the lines at this place add up to, in one currency.
    fn left(&self, at: usize) -> i64 {
        let settled = self.settled.get(at).filter(|settled| !settled.mixed);
        settled.map_or(0, |settled| settled.total)
    }

    fn lessen(&mut self, at: usize, gone: i64) {
        if let Some(settled) = self.settled.get_mut(at) {
            settled.total = settled.total.saturating_sub(gone);
        }
    }

    /// Notes that a line was told at this time: from the first to the last is what the export tells of.
    pub fn note_time(&mut self, at: Option<DateTime<Utc>>) {
        let Some(at) = at else {
            self.untimed = true;
            return;
        };
        self.times = Some(match self.times {
            Some((first, last)) => (first.min(at), last.max(at)),
            None => (at, at),
        });
    }

    /// The times of the first and the last line; `None` where there is none, or one that does not say when.
    pub fn times(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        self.times.filter(|_| !self.untimed)
    }

    /// How many lines move a payment's money.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// What the provider says about one of ours, by the strongest name that both have. It is then no extra.
    pub fn of(&mut self, booked: &Booked) -> Option<&Settled> {
        let keys = keys_of_booked(booked);
        let at = *keys.iter().find_map(|key| self.by_name.get(key))?;
        *self.matched.get_mut(at)? = true;
        self.settled.get(at)
    }

    /// The payments of ours that are named where nothing of ours was found.
    pub fn unmatched(&self) -> HashSet<PaymentId> {
        let settled = self.settled.iter().zip(&self.matched);
        let unmatched = settled.filter(|(_, matched)| !**matched);
        unmatched
            .filter_map(|(settled, _)| settled.names.payment)
            .collect()
    }

    /// What nothing of ours was found for, in the order of the export: extra. The rest is forgotten.
    pub fn take_unmatched(&mut self) -> Vec<Settled> {
        self.by_name.clear();
        let settled = std::mem::take(&mut self.settled).into_iter();
        let matched = std::mem::take(&mut self.matched).into_iter();
        let unmatched = settled.zip(matched).filter(|(_, matched)| !matched);
        unmatched.map(|(settled, _)| settled).collect()
    }
}

/// One side of a dispute: what was taken, or what was returned.
#[derive(Debug)]
struct Side {
    /// When its first line is of.
    first_at: Option<DateTime<Utc>>,
    /// What was moved in its direction after that, and is not cancelled out, in minor units.
    again: i64,
}

/// A line of a dispute.
struct Movement {
    amount: i64,
    at: Option<DateTime<Utc>>,
    takes: bool,
    /// Under which name its other side is known.
    other_side: u128,
}

impl Movement {
    /// `None` of lines about anything else.
    fn of(line: &SettledLine) -> Option<Self> {
        let (takes, other) = match line.kind {
            SettledKind::ChargedBack => (true, SettledKind::ChargebackReversed),
            SettledKind::ChargebackReversed => (false, SettledKind::ChargedBack),
            SettledKind::Captured | SettledKind::Refunded => return None,
        };
        let dispute = line.names.operation.as_ref()?;
        Some(Self {
            amount: line.amount,
            at: line.at,
            takes,
            other_side: key(other, Name::Operation, dispute.as_str().as_bytes()),
        })
    }
}

impl From<SettledLine> for Settled {
    fn from(line: SettledLine) -> Self {
        Self {
            line: line.line,
            kind: line.kind,
            total: line.amount,
            currency: line.currency,
            mixed: false,
            in_payout_currency: line.in_payout_currency,
            told: Told::by(&line),
            names: line.names,
        }
    }
}

impl Settled {
    fn add(&mut self, line: &SettledLine) {
        self.total = self.total.saturating_add(line.amount);
        self.mixed |= line.currency != self.currency;
        self.in_payout_currency |= line.in_payout_currency;
        self.told = self.told.and(Told::by(line));
        let names = &mut self.names;
        names.payment = names.payment.or(line.names.payment);
        names.transaction = names.transaction.or(line.names.transaction);
    }
}

/// Which kind of name.
#[derive(Clone, Copy)]
enum Name {
    Transaction,
    Operation,
    Payment,
}

/// Names are kept as digests: of one size, however long they are. 128 bits of SHA-256 do not meet by chance, nor by intent.
fn key(kind: SettledKind, name: Name, text: &[u8]) -> u128 {
    let tag = match name {
        Name::Transaction => b't',
        Name::Operation => b'o',
        Name::Payment => b'p',
    };
    let digest = Sha256::new()
        .chain_update(kind.name())
        .chain_update([0, tag])
        .chain_update(text)
        .finalize();
    digest
        .iter()
        .take(16)
        .fold(0, |key, byte| (key << 8) | u128::from(*byte))
}

/// The names of a line, the strongest first.
fn keys_of(kind: SettledKind, names: &Names) -> Vec<u128> {
    let text = |name, reference: &ProviderReference| key(kind, name, reference.as_str().as_bytes());
    let transaction = names.transaction.map(|id| ours(kind, id));
    let operation = names.operation.as_ref().map(|it| text(Name::Operation, it));
    let payment = names.payment_reference.as_ref();
    let payment = payment.map(|it| text(Name::Payment, it));
    [transaction, operation, payment]
        .into_iter()
        .flatten()
        .collect()
}

/// The names under which one of ours may stand in an export. The operation that opened a payment has its reference.
fn keys_of_booked(booked: &Booked) -> Vec<u128> {
    let reference = booked.provider_reference.as_ref();
    let named = |name| reference.map(|it| key(booked.kind, name, it.as_str().as_bytes()));
    let payment = named(Name::Payment).filter(|_| booked.opens);
    [
        Some(ours(booked.kind, booked.transaction)),
        named(Name::Operation),
        payment,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ours(kind: SettledKind, transaction: TransactionId) -> u128 {
    key(kind, Name::Transaction, transaction.0.as_bytes())
}
