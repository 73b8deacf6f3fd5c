//! Accepting a new payment.

use crate::amounts::Amounts;
use crate::change::{Change, CustomerData, Write};
use crate::command::{Create, DEFAULT_EXECUTE_WITHIN};
use crate::error::Rejection;
use crate::ids::{PaymentId, ProviderAccount, TenantId};
use crate::journal::Stamp;
use crate::payment::{CaptureMethod, Payment, PaymentState};
use crate::ports::ProviderRules;
use crate::transaction::{OperationKind, Transaction, TransactionKind};

use super::attempt::first_attempt;
use super::step::Step;
use super::{Ask, DecideError};

/// What is decided about a new payment outside the command.
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// Fresh.
    pub id: PaymentId,
    /// Whose.
    pub tenant: TenantId,
    /// Served by.
    pub account: ProviderAccount,
    /// Whether real money moves.
    pub livemode: bool,
    /// The customer's personal fields with fresh salts.
    pub customer: Option<CustomerData>,
}

/// Accepts a new payment, with its first attempt started.
pub fn create(
    command: &Create,
    ask: Ask,
    new: NewPayment,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    let within = chrono::TimeDelta::from_std(DEFAULT_EXECUTE_WITHIN).unwrap_or_default();
    let execute_before = command.execute_before.unwrap_or(stamp.now + within);
    if execute_before <= stamp.now {
        return Err(Rejection::ExecuteBeforePassed.into());
    }
    let (kind, operation) = match command.capture_method {
        CaptureMethod::Automatic => (TransactionKind::Purchase, OperationKind::Purchase),
        CaptureMethod::Manual => (TransactionKind::Authorization, OperationKind::Authorize),
    };
    let (amount, account) = (command.amount.minor_units(), new.account.clone());
    let mut transaction = Transaction::begun(stamp, kind, amount, account, execute_before);
    let payment = accepted(command, &new, stamp);
    let attempt = first_attempt(
        (&payment, None),
        &mut transaction,
        operation,
        &[],
        rules,
        stamp,
    )?;
    let mut step = Step::on(
        &payment,
        Write::Insert(transaction),
        "payment.accepted".to_owned(),
    );
    step.state_from = None;
    step.attempt = Some(Write::Insert(attempt));
    step.customer = new.customer;
    step.close(None, Some(ask), stamp)
}

/// The payment's row before its first version is closed.
fn accepted(command: &Create, new: &NewPayment, stamp: &Stamp<'_>) -> Payment {
    Payment {
        id: new.id,
        tenant: new.tenant.clone(),
        state: PaymentState::Pending,
        disputed: false,
        expired: false,
        livemode: new.livemode,
        amount: command.amount,
        amounts: Amounts::default(),
        method: command.method.clone(),
        capture_method: command.capture_method,
        merchant_reference: command.merchant_reference.clone(),
        description: command.description.clone(),
        return_url: command.return_url.clone(),
        initiator: command.initiator,
        mandate_reference: command.mandate_reference.clone(),
        metadata: command.metadata.clone(),
        customer_reference: command
            .customer
            .as_ref()
            .map(|customer| customer.reference.clone()),
        customer_erased: false,
        provider_account: new.account.clone(),
        routed: command.provider_account.is_none(),
        provider_reference: None,
        named_by_operator: false,
        next_action: None,
        decline: None,
        failure: None,
        created_at: stamp.now,
        updated_at: stamp.now,
        expires_at: None,
        version: 0,
        last_leaf_hash: None,
    }
}
