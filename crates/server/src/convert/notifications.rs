//! Notification endpoints and notifications.

use std::time::Duration;

use quittance_domain::card_number::contains_card_number;
use quittance_domain::ids::{EndpointId, NotificationId, PaymentId, TenantId};
use quittance_domain::notification::{
    Endpoint, EndpointState, EndpointUpdate, EventPattern, MAX_EVENT_TYPE, MAX_EVENT_TYPES,
    NotificationFilter, NotificationState, Replay, StoredAttempt, StoredNotification,
};
use quittance_domain::text::{Sensitive, Text};
use quittance_proto::v1;

use super::admin::ForTenant;
use super::payment::timestamp;
use super::queries::{optional_uuid, page_size, tenant};
use super::scalars::{self, Checked};
use super::violations::Violations;
use crate::notifications::Sender;

/// For how long the secret before is live unless the caller says otherwise.
const DEFAULT_KEEP: Duration = Duration::from_secs(86_400);
/// For how long it can be at most.
const MAX_KEEP: Duration = Duration::from_secs(2_592_000);

/// A new endpoint asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointWanted {
    /// Where notifications are posted.
    pub url: Sensitive<String>,
    /// What it is for.
    pub description: Text<500>,
    /// Which events.
    pub events: Vec<EventPattern>,
}

/// A page of endpoints asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointsQuery {
    /// How many at most.
    pub page_size: usize,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// A page of notifications asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationsQuery {
    /// Which.
    pub filter: NotificationFilter,
    /// How many at most.
    pub page_size: usize,
    /// Of which tenant, where one is named.
    pub tenant: Option<TenantId>,
}

/// Parses `CreateNotificationEndpoint`.
///
/// # Errors
/// Every bad field.
pub fn create_endpoint(
    request: v1::CreateNotificationEndpointRequest,
    sender: &Sender,
) -> Result<ForTenant<EndpointWanted>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let url = url(bad, request.url, sender);
    let description = scalars::text(bad, "description", request.description);
    let events = events(bad, "event_types", &request.event_types);
    let tenant = tenant(bad, request.tenant_id);
    let wanted = || {
        let command = EndpointWanted {
            url: url?,
            description: description?,
            events: events?,
        };
        Some(ForTenant {
            command,
            tenant: tenant?,
        })
    };
    let wanted = wanted();
    violations.finish(wanted)
}

/// Parses `ListNotificationEndpoints`; its page token is opened by whoever has the keys.
///
/// # Errors
/// Every bad field.
pub fn list_endpoints(
    request: v1::ListNotificationEndpointsRequest,
) -> Result<EndpointsQuery, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let page_size = page_size(bad, "page_size", request.page_size);
    let tenant = tenant(bad, request.tenant_id);
    let query = || {
        Some(EndpointsQuery {
            page_size: page_size?,
            tenant: tenant?,
        })
    };
    let query = query();
    violations.finish(query)
}

/// Parses `UpdateNotificationEndpoint`.
///
/// # Errors
/// Every bad field.
pub fn update_endpoint(
    request: v1::UpdateNotificationEndpointRequest,
    sender: &Sender,
) -> Result<ForTenant<(EndpointId, EndpointUpdate)>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let id = endpoint_id(bad, &request.endpoint_id);
    let url = optional(request.url, |value| url(bad, value, sender));
    let text = |value| scalars::text(bad, "description", value);
    let description = optional(request.description, text);
    let given = |given: v1::NotificationEventTypes| {
        events(bad, "event_types.event_types", &given.event_types)
    };
    let events = optional(request.event_types, given);
    let tenant = tenant(bad, request.tenant_id);
    let update = || {
        let update = EndpointUpdate {
            url: url?,
            description: description?,
            events: events?,
            enabled: request.enabled,
        };
        Some(ForTenant {
            command: (id?, update),
            tenant: tenant?,
        })
    };
    let update = update();
    violations.finish(update)
}

/// Parses what names an endpoint and nothing else.
///
/// # Errors
/// Every bad field.
pub fn one_endpoint(id: &str, named: String) -> Result<ForTenant<EndpointId>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let (id, tenant) = (endpoint_id(bad, id), tenant(bad, named));
    let found = id.zip(tenant);
    violations.finish(found.map(|(command, tenant)| ForTenant { command, tenant }))
}

/// Parses `RotateNotificationEndpointSecret`.
///
/// # Errors
/// Every bad field.
pub fn rotate_secret(
    request: v1::RotateNotificationEndpointSecretRequest,
) -> Result<ForTenant<(EndpointId, Duration)>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let id = endpoint_id(bad, &request.endpoint_id);
    let keep = request.keep_previous_seconds;
    let keep = keep.map_or(DEFAULT_KEEP, |seconds| Duration::from_secs(seconds.into()));
    if keep > MAX_KEEP {
        let most = MAX_KEEP.as_secs();
        bad.invalid("keep_previous_seconds", format!("must be 0 to {most}"));
    }
    let tenant = tenant(bad, request.tenant_id);
    let found = id.zip(tenant);
    violations.finish(found.map(|(id, tenant)| ForTenant {
        command: (id, keep),
        tenant,
    }))
}

/// Parses `ListNotifications`; its page token is opened by whoever has the keys.
///
/// # Errors
/// Every bad field.
pub fn list_notifications(
    request: v1::ListNotificationsRequest,
) -> Result<NotificationsQuery, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let page_size = page_size(bad, "page_size", request.page_size);
    let endpoint = optional_uuid(bad, "endpoint_id", &request.endpoint_id);
    let payment = optional_uuid(bad, "payment_id", &request.payment_id);
    let state = scalars::known(bad, "state", request.state).map(state_of);
    let tenant = tenant(bad, request.tenant_id);
    let query = || {
        let filter = NotificationFilter {
            endpoint: endpoint?.map(EndpointId),
            payment: payment?.map(PaymentId),
            state: state?,
        };
        Some(NotificationsQuery {
            filter,
            page_size: page_size?,
            tenant: tenant?,
        })
    };
    let query = query();
    violations.finish(query)
}

/// Parses `GetNotification`.
///
/// # Errors
/// Every bad field.
pub fn get_notification(
    request: v1::GetNotificationRequest,
) -> Result<ForTenant<NotificationId>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let id = scalars::uuid(bad, "notification_id", &request.notification_id);
    let found = id.map(NotificationId).zip(tenant(bad, request.tenant_id));
    violations.finish(found.map(|(command, tenant)| ForTenant { command, tenant }))
}

/// Parses `ReplayNotifications`.
///
/// # Errors
/// Every bad field.
pub fn replay_notifications(
    request: v1::ReplayNotificationsRequest,
) -> Result<ForTenant<Replay>, Violations> {
    let mut violations = Violations::default();
    let bad = &mut violations;
    let one = optional_uuid(bad, "notification_id", &request.notification_id);
    let endpoint = optional_uuid(bad, "endpoint_id", &request.endpoint_id);
    let replay = match (one, endpoint) {
        (Some(Some(id)), Some(None)) => Some(Replay::One(NotificationId(id))),
        (Some(None), Some(Some(id))) => Some(Replay::Endpoint(EndpointId(id))),
        (Some(None), Some(None)) => {
            bad.invalid("notification_id", "or endpoint_id is required");
            None
        }
        (Some(Some(_)), Some(Some(_))) => {
            bad.invalid("endpoint_id", "must not be given with notification_id");
            None
        }
        (None, _) | (_, None) => None,
    };
    let found = replay.zip(tenant(bad, request.tenant_id));
    violations.finish(found.map(|(command, tenant)| ForTenant { command, tenant }))
}

/// The endpoint as a message.
pub fn endpoint(endpoint: &Endpoint) -> v1::NotificationEndpoint {
    let state = match endpoint.state {
        EndpointState::Enabled => v1::NotificationEndpointState::Enabled,
        EndpointState::Disabled => v1::NotificationEndpointState::Disabled,
        EndpointState::Gone => v1::NotificationEndpointState::Gone,
        // Deleted ones are not shown.
        EndpointState::Deleted => v1::NotificationEndpointState::Unspecified,
    };
    v1::NotificationEndpoint {
        endpoint_id: endpoint.id.to_string(),
        tenant_id: endpoint.tenant.to_string(),
        url: endpoint.url.expose().clone(),
        description: endpoint.description.clone(),
        event_types: endpoint.events.clone(),
        state: state.into(),
        create_time: Some(timestamp(endpoint.created_at)),
        update_time: Some(timestamp(endpoint.updated_at)),
        previous_secret_expire_time: endpoint.previous_secret_until.map(timestamp),
    }
}

/// The notification as a message.
pub fn notification(found: &StoredNotification) -> v1::Notification {
    let state = match found.state {
        NotificationState::Pending => v1::NotificationState::Pending,
        NotificationState::Delivered => v1::NotificationState::Delivered,
        NotificationState::Dead => v1::NotificationState::Dead,
    };
    v1::Notification {
        notification_id: found.id.to_string(),
        endpoint_id: found.endpoint.to_string(),
        tenant_id: found.tenant.to_string(),
        event_id: found.entry.to_string(),
        event_type: found.event_type.clone(),
        payment_id: found.payment.to_string(),
        entity_seq: found.entity_seq,
        state: state.into(),
        attempts: found.attempts,
        create_time: Some(timestamp(found.created_at)),
        next_attempt_time: found.next_attempt_at.map(timestamp),
        end_time: found.ended_at.map(timestamp),
        cause: found
            .cause
            .map(|cause| cause.name().to_owned())
            .unwrap_or_default(),
        http_status: found.http_status.map(u32::from).unwrap_or_default(),
    }
}

/// The attempt as a message.
pub fn notification_attempt(attempt: &StoredAttempt) -> v1::NotificationAttempt {
    let log = &attempt.log;
    v1::NotificationAttempt {
        number: attempt.number,
        start_time: Some(timestamp(log.started_at)),
        latency_ms: u32::try_from(log.latency.as_millis()).unwrap_or(u32::MAX),
        http_status: log.http_status.map(u32::from).unwrap_or_default(),
        cause: attempt
            .cause
            .map(|cause| cause.name().to_owned())
            .unwrap_or_default(),
    }
}

fn endpoint_id(bad: &mut Violations, value: &str) -> Option<EndpointId> {
    scalars::uuid(bad, "endpoint_id", value).map(EndpointId)
}

fn optional<T, U>(value: Option<T>, parse: impl FnOnce(T) -> Option<U>) -> Checked<Option<U>> {
    match value {
        None => Some(None),
        Some(value) => parse(value).map(Some),
    }
}

fn url(bad: &mut Violations, value: String, sender: &Sender) -> Option<Sensitive<String>> {
    if contains_card_number(&value) {
        bad.card_number("url");
        return None;
    }
    match sender.target(&value) {
        Ok(_) => Some(Sensitive::new(value)),
        Err(problem) => {
            bad.invalid("url", problem.to_string());
            None
        }
    }
}

fn events(bad: &mut Violations, field: &str, given: &[String]) -> Option<Vec<EventPattern>> {
    if given.len() > MAX_EVENT_TYPES {
        bad.invalid(field, format!("must be at most {MAX_EVENT_TYPES}"));
        return None;
    }
    let mut events: Vec<EventPattern> = Vec::new();
    let mut good = true;
    for (index, text) in given.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if contains_card_number(text) {
            bad.card_number(&field);
            good = false;
            continue;
        }
        match EventPattern::parse(text) {
            Some(event) if events.contains(&event) => {}
            Some(event) => events.push(event),
            None => {
                let why = format!(
                    "must be an event type such as payment.captured, or a kind such as refund.*, \
                     of at most {MAX_EVENT_TYPE} characters"
                );
                bad.invalid(&field, why);
                good = false;
            }
        }
    }
    good.then_some(events)
}

/// The state that a message names; `None` for "unspecified".
fn state_of(state: v1::NotificationState) -> Option<NotificationState> {
    match state {
        v1::NotificationState::Unspecified => None,
        v1::NotificationState::Pending => Some(NotificationState::Pending),
        v1::NotificationState::Delivered => Some(NotificationState::Delivered),
        v1::NotificationState::Dead => Some(NotificationState::Dead),
    }
}
