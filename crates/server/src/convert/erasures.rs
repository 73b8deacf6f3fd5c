//! Erasures of personal data.

use quittance_domain::erasure::Erasure;
use quittance_domain::ids::{ErasureId, TenantId};
use quittance_domain::text::{Sensitive, Text};
use quittance_proto::v1;

use super::admin::reason;
use super::payment::timestamp;
use super::queries::tenant;
use super::scalars;
use super::violations::Violations;

/// Whose data is to be erased, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EraseCustomer {
    /// The caller's reference of the customer.
    pub reference: Sensitive<String>,
    /// Why.
    pub reason: Text<500>,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// Parses `ErasePersonalData`.
///
/// # Errors
/// Every bad field.
pub fn erase_personal_data(
    request: v1::ErasePersonalDataRequest,
) -> Result<EraseCustomer, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let reference = scalars::required::<255>(bad, "customer_reference", request.customer_reference);
    let reason = reason(bad, request.reason);
    let tenant = tenant(bad, request.tenant_id);
    let command = || {
        Some(EraseCustomer {
            reference: Sensitive::new(reference?.as_str().to_owned()),
            reason: reason?,
            tenant: tenant?,
        })
    };
    let command = command();
    violations.finish(command)
}

/// Parses `GetErasure`: which, and of which tenant, where one is named.
///
/// # Errors
/// Every bad field.
pub fn get_erasure(
    request: v1::GetErasureRequest,
) -> Result<(ErasureId, Option<TenantId>), Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let id = scalars::uuid(bad, "erasure_id", &request.erasure_id);
    let tenant = tenant(bad, request.tenant_id);
    let query = || Some((ErasureId(id?), tenant?));
    let query = query();
    violations.finish(query)
}

/// The erasure as a message.
pub fn erasure(erasure: &Erasure) -> v1::Erasure {
    v1::Erasure {
        erasure_id: erasure.id.to_string(),
        tenant_id: erasure.tenant.to_string(),
        request_time: Some(timestamp(erasure.requested_at)),
        open_payments: erasure.open_payments,
        finish_time: erasure.done.map(|done| timestamp(done.at)),
        payments: erasure.done.map_or(0, |done| done.payments),
    }
}
