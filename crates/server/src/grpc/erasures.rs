//! Erasing personal data, for `AdminService`.

use quittance_domain::context::Caller;
use quittance_domain::erasure::{
    CUSTOMER_DETAIL, ERASURE_DETAIL, ERASURE_REQUESTED, ERASURE_STREAM, Erasure, NewErasure,
};
use quittance_domain::error::FlowError;
use quittance_domain::flows::audit::AuditEvent;
use quittance_domain::flows::{accept_error, read_error};
use quittance_domain::ids::ErasureId;
use quittance_proto::v1::ErrorReason;

use super::Services;
use super::status::Failure;
use crate::convert::EraseCustomer;

/// Puts the request on record, and then does it: what cannot be recorded is not done, and what is not on record is not
/// believed. The entry names whom it is about by an id that says nothing else.
pub(super) async fn erase(
    services: &Services,
    caller: &Caller,
    wanted: EraseCustomer,
) -> Result<Erasure, Failure> {
    let now = services.clock.now();
    let (tenant, reference) = (&caller.tenant, wanted.reference);
    let customer = services.erasures.customer(tenant, &reference).await;
    let new = NewErasure {
        id: ErasureId(services.random.uuid_v7(now)),
        tenant: tenant.clone(),
        reference,
        customer: customer.map_err(read_error)?,
    };
    record(services, caller, &new, wanted.reason.as_str()).await?;
    let erasure = services.erasures.request_erasure(new).await;
    erasure.map_err(accept_error)?.ok_or_else(|| {
        let message = "no customer of this tenant has, or had, this reference";
        Failure::new(ErrorReason::CustomerNotFound, message.to_owned())
    })
}

/// Reads an erasure of the tenant that the caller acts for.
pub(super) async fn get(
    services: &Services,
    caller: &Caller,
    id: ErasureId,
) -> Result<Erasure, Failure> {
    let found = services.erasures.erasure(&caller.tenant, id).await;
    found
        .map_err(read_error)?
        .ok_or_else(|| Failure::new(ErrorReason::ErasureNotFound, "no such erasure".to_owned()))
}

/// The first entry of the erasure's own stream.
async fn record(
    services: &Services,
    caller: &Caller,
    new: &NewErasure,
    reason: &str,
) -> Result<(), Failure> {
    let customer = new
        .customer
        .map(|customer| (CUSTOMER_DETAIL, customer.to_string()));
    let details = [
        (ERASURE_DETAIL, new.id.to_string()),
        ("reason", reason.to_owned()),
    ];
    let details = details.into_iter().chain(customer);
    let details = details.map(|(name, text)| (name.to_owned(), text));
    let event = AuditEvent::done(ERASURE_REQUESTED, details.collect());
    let log = &services.audit;
    let appended = log.append_to(caller, event, ERASURE_STREAM, new.id.0, None);
    let appended = appended.await?;
    // Nobody else knows its id yet.
    appended
        .map(drop)
        .ok_or_else(|| FlowError::ConcurrentChange.into())
}
