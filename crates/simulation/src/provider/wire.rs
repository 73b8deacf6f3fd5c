//! What travels to the simulated provider.

use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::money::Money;
use quittance_domain::ports::Operation;
use quittance_domain::transaction::OperationKind;

/// Everything that the provider needs to carry an operation out.
#[derive(Clone)]
pub(super) struct Wire {
    pub kind: OperationKind,
    pub transaction: TransactionId,
    pub payment: PaymentId,
    pub amount: i64,
    /// How much of it the provider moves.
    pub moves: i64,
    /// Whether it releases the rest (a capture).
    pub last: bool,
    /// Whether the payment is named by the provider's name of it, or by ours.
    pub by_their_name: bool,
    /// Which confirmation of the transaction it is, and so part of its key; 0 for all else.
    pub confirmation: u32,
}

impl Wire {
    pub fn write(operation: &Operation<'_>) -> Vec<u8> {
        let amount = operation.amount.map_or(0, Money::minor_units);
        let (payment, transaction) = (operation.payment, operation.transaction);
        let confirmation = if operation.kind == OperationKind::Confirm {
            transaction.attempts
        } else {
            0
        };
        format!(
            "{} {} {} {amount} {} {} {confirmation}",
            operation.kind,
            transaction.id,
            payment.id,
            transaction.final_capture,
            payment.provider_reference.is_some(),
        )
        .into_bytes()
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split(' ');
        let kind = OperationKind::from_name(parts.next()?)?;
        let transaction = TransactionId(parts.next()?.parse().ok()?);
        let payment = PaymentId(parts.next()?.parse().ok()?);
        let amount = parts.next()?.parse().ok()?;
        Some(Self {
            kind,
            transaction,
            payment,
            amount,
            moves: amount,
            last: parts.next()?.parse().ok()?,
            by_their_name: parts.next()?.parse().ok()?,
            confirmation: parts.next()?.parse().ok()?,
        })
    }
}
