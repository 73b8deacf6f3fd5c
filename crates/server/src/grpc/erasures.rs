//! Erasing personal data, for `AdminService`.

use quittance_domain::context::Caller;
use quittance_domain::erasure::{Erasure, NewErasure};
use quittance_domain::error::FlowError;
use quittance_domain::flows::audit::AuditEvent;
use quittance_domain::flows::{accept_error, read_error};
use quittance_domain::ids::ErasureId;
use quittance_proto::v1::ErrorReason;

use super::Services;
use super::status::Failure;
use crate::convert::EraseCustomer;

/// How often an entry is offered anew after another of the same process got in between.
const RECORD_TRIES: usize = 3;

/// Puts the request on record, and then does it: what cannot be recorded is not done.
pub(super) async fn erase(
    services: &Services,
    caller: &Caller,
    wanted: EraseCustomer,
) -> Result<Erasure, Failure> {
    let now = services.clock.now();
    let new = NewErasure {
        id: ErasureId(services.random.uuid_v7(now)),
        tenant: caller.tenant.clone(),
        reference: wanted.reference,
    };
    let details = [
        ("erasure_id", new.id.to_string()),
        ("reason", wanted.reason.as_str().to_owned()),
    ];
    let event = AuditEvent {
        event_type: "personal_data.erasure_requested",
        payment: None,
        refused: None,
        details: details.map(|(name, text)| (name.to_owned(), text)).into(),
    };
    record(services, caller, event).await?;
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

async fn record(services: &Services, caller: &Caller, event: AuditEvent) -> Result<(), Failure> {
    for _ in 1..RECORD_TRIES {
        match services.audit.record(caller, event.clone()).await {
            Err(FlowError::ConcurrentChange) => {}
            other => return other.map_err(Failure::from),
        }
    }
    let recorded = services.audit.record(caller, event).await;
    recorded.map_err(Failure::from)
}
