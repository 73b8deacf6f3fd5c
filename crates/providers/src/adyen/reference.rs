//! Our reference, which Adyen gives back in every webhook: payment, transaction, and what the transaction does.

use std::fmt;

use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::transaction::TransactionKind;
use uuid::Uuid;

/// Most characters that Adyen takes.
#[cfg(test)]
pub(super) const MAX_CHARACTERS: usize = 80;

/// A transaction of ours, as Adyen knows it: `{payment}-{transaction}-{kind}`, the ids as 32 hexadecimal digits.
///
/// It names both ids within the fields that are signed. The kind is in it because webhooks of an operation may name
/// the payment's opening transaction instead of the operation. It holds no `:`, by which the fields are divided
/// when they are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    pub payment: PaymentId,
    pub transaction: TransactionId,
    pub kind: TransactionKind,
}

impl Reference {
    /// Reads one; `None` where somebody else made it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let payment = PaymentId(id(parts.next()?)?);
        let transaction = TransactionId(id(parts.next()?)?);
        let kind = kind_named(parts.next()?)?;
        let reference = Self {
            payment,
            transaction,
            kind,
        };
        // One text for one reference: upper case, or another form of the ids, is not ours.
        (reference.to_string() == text).then_some(reference)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (payment, transaction) = (self.payment.0.simple(), self.transaction.0.simple());
        write!(f, "{payment}-{transaction}-{}", name(self.kind))
    }
}

fn id(text: &str) -> Option<Uuid> {
    (text.len() == 32).then(|| Uuid::try_parse(text).ok())?
}

fn name(kind: TransactionKind) -> &'static str {
    match kind {
        TransactionKind::Purchase => "purchase",
        TransactionKind::Authorization => "authorization",
        TransactionKind::Capture => "capture",
        TransactionKind::Void => "void",
        TransactionKind::Refund => "refund",
        TransactionKind::Chargeback => "chargeback",
        TransactionKind::ChargebackReversal => "reversal",
    }
}

fn kind_named(text: &str) -> Option<TransactionKind> {
    let mut kinds = TransactionKind::ALL.iter().copied();
    kinds.find(|kind| name(*kind) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(kind: TransactionKind) -> Reference {
        Reference {
            payment: PaymentId(Uuid::from_u128(3)),
            transaction: TransactionId(Uuid::from_u128(u128::MAX)),
            kind,
        }
    }

    #[test]
    fn every_reference_reads_back_and_fits() {
        for kind in TransactionKind::ALL.iter().copied() {
            let text = reference(kind).to_string();
            assert!(text.len() <= MAX_CHARACTERS, "{text}");
            assert!(!text.contains([':', '\\']), "{text}");
            assert_eq!(Reference::parse(&text), Some(reference(kind)));
        }
    }

    #[test]
    fn s57_what_only_looks_like_a_reference_is_not_ours() {
        let good = reference(TransactionKind::Purchase).to_string();
        for bad in [
            String::new(),
            "order-3".to_owned(),
            good.to_uppercase(),
            format!("{good} "),
            format!("{good}-2"),
            format!("{good}:1000"),
            good.replace("-purchase", ""),
            good.replace("-purchase", "-sale"),
            good.replace('-', ":"),
            good.replacen('0', "+", 1),
            good.replacen(
                "00000000000000000000000000000003",
                "00000000-0000-0000-0000-000000000003",
                1,
            ),
        ] {
            assert_eq!(Reference::parse(&bad), None, "{bad}");
        }
    }
}
