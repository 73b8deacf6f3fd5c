//! What operators ask, and the cases that they look at.

use quittance_domain::change::OperatorActionKind;
use quittance_domain::command::{Resolution, Resolve, Retry};
use quittance_domain::ids::{PaymentId, ProviderReference, TenantId, TransactionId};
use quittance_domain::ports::{CaseFilter, StoredCase};
use quittance_domain::text::{Text, TextError};
use quittance_proto::v1;

use super::payment::{action_kind, timestamp};
use super::queries::{optional_uuid, page_size, tenant};
use super::scalars::{self, Checked};
use super::violations::Violations;

/// A page of operator actions asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionsQuery {
    /// Which operator actions.
    pub filter: CaseFilter,
    /// How many at most.
    pub page_size: usize,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// A command, and for whose payment it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForTenant<T> {
    /// The command.
    pub command: T,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// Parses `ListOperatorActions`; its page token is opened by whoever has the keys.
///
/// # Errors
/// Every bad field.
pub fn list_operator_actions(
    request: v1::ListOperatorActionsRequest,
) -> Result<ActionsQuery, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let page_size = page_size(bad, "page_size", request.page_size);
    let payment = optional_uuid(bad, "payment_id", &request.payment_id);
    let kind = scalars::known(bad, "kind", request.kind).map(kind_of);
    let tenant = tenant(bad, request.tenant_id);
    let query = || {
        let filter = CaseFilter {
            closed: request.include_closed,
            payment: payment?.map(PaymentId),
            kind: kind?,
        };
        Some(ActionsQuery {
            filter,
            page_size: page_size?,
            tenant: tenant?,
        })
    };
    let query = query();
    violations.finish(query)
}

/// Parses `ResolveTransaction`.
///
/// # Errors
/// Every bad field.
pub fn resolve(request: v1::ResolveTransactionRequest) -> Result<ForTenant<Resolve>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let payment = scalars::payment_id(bad, &request.payment_id);
    let transaction = transaction_id(bad, &request.transaction_id);
    let resolution = resolution(
        bad,
        request.resolution,
        request.provider_reference,
        request.amount.as_ref(),
        request.acknowledged_kind,
    );
    let reason = reason(bad, request.reason);
    let evidence = scalars::text(bad, "evidence", request.evidence);
    let seen = request.seen_version;
    let tenant = tenant(bad, request.tenant_id);
    let command = || {
        let command = Resolve {
            payment: payment?,
            transaction: transaction?,
            resolution: resolution?,
            reason: reason?,
            evidence: evidence?,
            seen_version: (seen != 0).then_some(seen),
        };
        Some(ForTenant {
            command,
            tenant: tenant?,
        })
    };
    let command = command();
    violations.finish(command)
}

/// Parses `RetryTransaction`.
///
/// # Errors
/// Every bad field.
pub fn retry(request: v1::RetryTransactionRequest) -> Result<ForTenant<Retry>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let payment = scalars::payment_id(bad, &request.payment_id);
    let transaction = transaction_id(bad, &request.transaction_id);
    let reason = reason(bad, request.reason);
    let tenant = tenant(bad, request.tenant_id);
    let command = || {
        let command = Retry {
            payment: payment?,
            transaction: transaction?,
            reason: reason?,
        };
        Some(ForTenant {
            command,
            tenant: tenant?,
        })
    };
    let command = command();
    violations.finish(command)
}

/// The case as a message.
pub fn operator_action(case: &StoredCase) -> v1::OperatorAction {
    v1::OperatorAction {
        operator_action_id: case.id.to_string(),
        tenant_id: case.tenant.to_string(),
        payment_id: case.payment.to_string(),
        transaction_id: case.transaction.to_string(),
        kind: action_kind(case.kind).into(),
        open_time: Some(timestamp(case.opened_at)),
        close_time: case.closed.map(|(at, _)| timestamp(at)),
        closed_by_entry_id: case
            .closed
            .map(|(_, entry)| entry.to_string())
            .unwrap_or_default(),
    }
}

fn transaction_id(bad: &mut Violations, value: &str) -> Option<TransactionId> {
    scalars::uuid(bad, "transaction_id", value).map(TransactionId)
}

/// The reason of a person's decision: without one, nobody could tell later why it was made.
pub(super) fn reason(bad: &mut Violations, value: String) -> Option<Text<500>> {
    scalars::parsed(bad, "reason", value, |value| {
        if value.trim().is_empty() {
            return Err(TextError::Empty);
        }
        Text::parse(value)
    })
}

/// What was found out. All fields are looked at, so that all are named that are bad.
fn resolution(
    bad: &mut Violations,
    number: i32,
    reference: String,
    amount: Option<&v1::Money>,
    acknowledged: i32,
) -> Option<Resolution> {
    use v1::TransactionResolution as Given;
    let given = scalars::known(bad, "resolution", number);
    let reference_given = !reference.is_empty();
    let provider_reference = provider_reference(bad, reference);
    let moved = scalars::optional_money(bad, "amount", amount);
    let kind = scalars::known(bad, "acknowledged_kind", acknowledged).map(kind_of);
    let given = given?;
    if given == Given::Unspecified {
        bad.invalid("resolution", "is required");
        return None;
    }
    let why = "is for TRANSACTION_RESOLUTION_SUCCEEDED only";
    if reference_given && given != Given::Succeeded {
        bad.invalid("provider_reference", why);
    }
    if amount.is_some() && given != Given::Succeeded {
        bad.invalid("amount", why);
    }
    match (given == Given::Acknowledged, kind?) {
        (true, None) => bad.invalid("acknowledged_kind", "is required"),
        (false, Some(_)) => {
            let why = "is for TRANSACTION_RESOLUTION_ACKNOWLEDGED only";
            bad.invalid("acknowledged_kind", why);
        }
        (true, Some(_)) | (false, None) => {}
    }
    match given {
        Given::Unspecified => None,
        Given::Succeeded => Some(Resolution::Succeeded {
            provider_reference: provider_reference?,
            amount: moved?,
        }),
        Given::NotProcessed => Some(Resolution::NotProcessed),
        Given::TakenBack => Some(Resolution::TakenBack),
        Given::Acknowledged => kind?.map(Resolution::Acknowledged),
    }
}

fn provider_reference(bad: &mut Violations, value: String) -> Checked<Option<ProviderReference>> {
    if value.is_empty() {
        return Some(None);
    }
    let parse = |value| ProviderReference::parse(value);
    scalars::parsed(bad, "provider_reference", value, parse).map(Some)
}

/// The kind that a message names; `None` for "unspecified".
fn kind_of(kind: v1::OperatorActionKind) -> Option<OperatorActionKind> {
    use v1::OperatorActionKind as Given;
    Some(match kind {
        Given::Unspecified => return None,
        Given::AmountMismatch => OperatorActionKind::AmountMismatch,
        Given::ContradictingFact => OperatorActionKind::ContradictingFact,
        Given::ExcessAmount => OperatorActionKind::ExcessAmount,
        Given::RecoveryExhausted => OperatorActionKind::RecoveryExhausted,
    })
}
