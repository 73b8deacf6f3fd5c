//! The cases for a person that are open about one transaction.

use std::fmt;

use crate::change::OperatorActionKind;

/// In the order in which they are shown and acknowledged: first what no word of the provider closes.
const ORDER: [OperatorActionKind; 4] = [
    OperatorActionKind::ExcessAmount,
    OperatorActionKind::ContradictingFact,
    OperatorActionKind::AmountMismatch,
    OperatorActionKind::RecoveryExhausted,
];

/// Between two names.
const SEPARATOR: char = ',';

/// The cases that are open about one transaction: of each kind one at most, so that the same finding does not open it
/// again, and none hides another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OpenCases([bool; ORDER.len()]);

impl OpenCases {
    /// None.
    pub const NONE: Self = Self([false; ORDER.len()]);

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether one of this kind is open.
    pub fn contains(self, kind: OperatorActionKind) -> bool {
        self.iter().any(|open| open == kind)
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, kind: OperatorActionKind) -> Self {
        self.set(kind, true)
    }

    /// These without one.
    #[must_use]
    pub fn without(self, kind: OperatorActionKind) -> Self {
        self.set(kind, false)
    }

    fn set(mut self, kind: OperatorActionKind, open: bool) -> Self {
        for (held, slot) in ORDER.iter().zip(&mut self.0) {
            if *held == kind {
                *slot = open;
            }
        }
        self
    }

    /// Each of them, first what only a person closes.
    pub fn iter(self) -> impl Iterator<Item = OperatorActionKind> {
        let all = ORDER.into_iter().zip(self.0);
        all.filter_map(|(kind, open)| open.then_some(kind))
    }

    /// The one that a person is shown, and acknowledges, first.
    pub fn first(self) -> Option<OperatorActionKind> {
        self.iter().next()
    }

    /// Reads what [`fmt::Display`] writes; `None` where it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let names = text.split(SEPARATOR).filter(|name| !name.is_empty());
        let cases: Option<Self> = names.map(OperatorActionKind::from_name).collect();
        cases.filter(|cases| cases.to_string() == text)
    }
}

impl FromIterator<OperatorActionKind> for OpenCases {
    fn from_iter<T: IntoIterator<Item = OperatorActionKind>>(kinds: T) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Their names, as the journal and the database have them; empty for none.
impl fmt::Display for OpenCases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, kind) in self.iter().enumerate() {
            if at > 0 {
                write!(f, "{SEPARATOR}")?;
            }
            f.write_str(kind.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for OpenCases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Whether a case is closed by the outcome becoming known.
pub(crate) fn closes_when_known(kind: OperatorActionKind) -> bool {
    match kind {
        OperatorActionKind::RecoveryExhausted | OperatorActionKind::AmountMismatch => true,
        OperatorActionKind::ContradictingFact | OperatorActionKind::ExcessAmount => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_read_as_it_is_written_and_nothing_else_is() {
        let all = OperatorActionKind::ALL;
        for bits in 0..1_u32 << all.len() {
            let chosen = all.iter().enumerate();
            let chosen = chosen.filter(|(at, _)| bits & (1 << at) != 0);
            let chosen: Vec<_> = chosen.map(|(_, kind)| *kind).collect();
            let cases: OpenCases = chosen.iter().copied().collect();
            assert_eq!(cases.iter().count(), chosen.len());
            assert_eq!(OpenCases::parse(&cases.to_string()), Some(cases));
        }
        for other in ["OTHER", "AMOUNT_MISMATCH,", "AMOUNT_MISMATCH,EXCESS_AMOUNT"] {
            assert_eq!(OpenCases::parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_closed_leaves_the_others_open() {
        let both = OpenCases::NONE
            .with(OperatorActionKind::AmountMismatch)
            .with(OperatorActionKind::ContradictingFact);
        assert_eq!(both.first(), Some(OperatorActionKind::ContradictingFact));
        let left = both.without(OperatorActionKind::ContradictingFact);
        assert_eq!(left.first(), Some(OperatorActionKind::AmountMismatch));
        assert!(left.without(OperatorActionKind::AmountMismatch).is_empty());
    }
}
