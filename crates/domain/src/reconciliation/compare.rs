//! The comparison of one of ours with what the provider says about it.

use crate::named::named_enum;
use crate::transaction::TransactionState;

use super::{Booked, Settled, Told, Window};

named_enum! {
    /// What was found.
    pub enum FindingKind {
        /// We say that it succeeded, and the export does not have it.
        Missing = "MISSING",
        /// The export has it, and we know of no such transaction.
        Extra = "EXTRA",
        /// Both have it, and do not agree on it.
        Differing = "DIFFERING",
        /// A line whose type is not known.
        UnknownLine = "UNKNOWN_LINE",
    }
}

named_enum! {
    /// On what the two do not agree.
    pub enum Difference {
        /// The amount.
        Amount = "AMOUNT",
        /// The currency.
        Currency = "CURRENCY",
        /// Whether it was done.
        State = "STATE",
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub kind: FindingKind,
    /// On what the two do not agree; empty unless it differs.
    pub differs: Vec<Difference>,
    /// Our transaction, where there is one.
    pub ours: Option<Booked>,
    /// What the provider says, where it does.
    pub theirs: Option<Settled>,
    /// Of a line whose type is not known: where it is, and the type.
    pub unknown: Option<(u64, String)>,
}

/// What a comparison comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Both say the same.
    Agrees,
    /// Nothing can be said: too near to an end of the export's range, or in another currency than the payment.
    NotJudged,
    /// They do not.
    Found(Box<Finding>),
}

/// Compares one of ours with what the provider says about it.
pub fn judge(ours: &Booked, theirs: Option<&Settled>, window: &Window) -> Verdict {
    let Some(theirs) = theirs else {
        return absent(ours, window);
    };
    match theirs.told {
        Told::Done => {}
        Told::Undone | Told::Rest => return undone(ours, theirs, window),
    }
    let mut differs = Vec::new();
    match (ours.state, theirs.total > 0 || theirs.mixed) {
        // What changed near the end, or behind it, may show in the next export only.
        (TransactionState::Succeeded, false) | (TransactionState::Reversed, true)
            if !window.is_before_end(ours.updated_at) =>
        {
            return Verdict::NotJudged;
        }
        (TransactionState::Succeeded, true) => {}
        (TransactionState::Succeeded, false)
        | (
            TransactionState::Pending
            | TransactionState::RequiresAction
            | TransactionState::Declined
            | TransactionState::Failed
            | TransactionState::Reversed,
            true,
        ) => differs.push(Difference::State),
        // Nothing moved, and we say so too, or do not say more.
        (
            TransactionState::Pending
            | TransactionState::RequiresAction
            | TransactionState::Declined
            | TransactionState::Failed
            | TransactionState::Reversed,
            false,
        ) => return Verdict::Agrees,
    }
    let other_currency = theirs.mixed || theirs.currency != ours.currency;
    if other_currency && theirs.in_payout_currency {
        // The payout's currency says nothing about the payment's.
        if differs.is_empty() {
            return Verdict::NotJudged;
        }
    } else if other_currency {
        differs.push(Difference::Currency);
    } else if theirs.total > 0 && theirs.total != ours.amount {
        differs.push(Difference::Amount);
    }
    found(ours, theirs, differs)
}

/// We have it, and the export does not.
fn absent(ours: &Booked, window: &Window) -> Verdict {
    match ours.state {
        TransactionState::Succeeded if window.holds(ours.created_at, ours.updated_at) => {
            Verdict::Found(Box::new(Finding {
                kind: FindingKind::Missing,
                differs: Vec::new(),
                ours: Some(ours.clone()),
                theirs: None,
                unknown: None,
            }))
        }
        TransactionState::Succeeded => Verdict::NotJudged,
        // Done and undone adds up to nothing.
        TransactionState::Reversed
        | TransactionState::Pending
        | TransactionState::RequiresAction
        | TransactionState::Declined
        | TransactionState::Failed => Verdict::Agrees,
    }
}

/// The export only tells that it was undone: that it was done is in an earlier one.
fn undone(ours: &Booked, theirs: &Settled, window: &Window) -> Verdict {
    match ours.state {
        TransactionState::Succeeded if theirs.told == Told::Rest => Verdict::NotJudged,
        TransactionState::Succeeded if !window.is_before_end(ours.updated_at) => Verdict::NotJudged,
        TransactionState::Succeeded => found(ours, theirs, vec![Difference::State]),
        TransactionState::Reversed
        | TransactionState::Pending
        | TransactionState::RequiresAction
        | TransactionState::Declined
        | TransactionState::Failed => Verdict::Agrees,
    }
}

fn found(ours: &Booked, theirs: &Settled, differs: Vec<Difference>) -> Verdict {
    if differs.is_empty() {
        return Verdict::Agrees;
    }
    Verdict::Found(Box::new(Finding {
        kind: FindingKind::Differing,
        differs,
        ours: Some(ours.clone()),
        theirs: Some(theirs.clone()),
        unknown: None,
    }))
}

/// What nothing of ours was found for; `None` where nothing moved, or where only the rest of an authorization was returned,
/// of which the export before tells.
pub fn extra(theirs: &Settled) -> Option<Finding> {
    let moved = theirs.total != 0 || theirs.mixed;
    (moved && theirs.told != Told::Rest).then(|| Finding {
        kind: FindingKind::Extra,
        differs: Vec::new(),
        ours: None,
        theirs: Some(theirs.clone()),
        unknown: None,
    })
}

/// A line whose type is not known.
pub fn unknown(line: u64, named: String) -> Finding {
    Finding {
        kind: FindingKind::UnknownLine,
        differs: Vec::new(),
        ours: None,
        theirs: None,
        unknown: Some((line, named)),
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
