//! A payment that its customer has left: time proves nothing, it only starts a void.

use crate::change::{Change, Write};
use crate::ids::TransactionId;
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::ProviderRules;
use crate::text::Text;
use crate::transaction::{OperationKind, TransactionKind, TransactionOrigin};

use super::DecideError;
use super::attempt::releases_before;
use super::command::{accept, deadline, transaction};
use super::step::Step;

/// What the void says of itself.
const REASON: &str = "The customer did not finish the payment in time.";

/// Asks the provider to release a payment whose customer has not acted for as long as the policy allows. `None` where it
/// is not that late, the provider cannot release it before it is authorized, or a void was tried before: one that
/// failed is not repeated, since the provider has its reason.
///
/// To be decided after the provider was asked: what the customer finished is not abandoned.
pub fn abandon(
    record: &PaymentRecord,
    id: TransactionId,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let late = stamp
        .retries
        .abandoned_at(held)
        .is_some_and(|at| at <= stamp.now);
    let tried = record.transactions.iter().any(|row| {
        row.kind == TransactionKind::Void
            && (!row.state.ended() || row.origin == TransactionOrigin::Service)
    });
    if !late || tried || !releases_before(record, rules) {
        return Ok(None);
    }
    let until = deadline(None, stamp)?;
    let mut row = transaction(record, TransactionKind::Void, 0, until, stamp);
    row.origin = TransactionOrigin::Service;
    row.reason = Text::parse(REASON).unwrap_or_default();
    let event = "void.accepted".to_owned();
    let step = Step::on(&record.payment, Write::Insert(row), event);
    accept(step, record, None, OperationKind::Void, rules, stamp).map(Some)
}
