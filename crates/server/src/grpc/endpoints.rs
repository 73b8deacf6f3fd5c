//! The part of `AdminService` that manages notifications. Every change of an endpoint is put on record in the commit that
//! makes it, and everything else before it is done: what cannot be recorded is not done.

use std::time::Duration;

use prost::Message as _;
use quittance_domain::context::Caller;
use quittance_domain::flows::audit::{AuditEvent, RecordError};
use quittance_domain::ids::{EndpointId, NotificationId, TenantId};
use quittance_domain::notification::{
    AttemptLog, Destination, Endpoint, EndpointChange, NewEndpoint, Replay, Replayed, StoredAttempt,
};
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use quittance_proto::v1;
use quittance_proto::v1::ErrorReason;
use quittance_providers::webhook::{NEW_SECRET_BYTES, secret_of};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tonic::Request;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::TokenKind;
use super::admin::{AdminRpcs, acting_for, administers_all};
use super::call::Call;
use super::facts::Facts;
use super::payments::page_start;
use super::status::{Failure, too_many_trials};
use crate::convert;
use crate::convert::ForTenant;
use crate::convert::notifications as parse;
use crate::notifications::payload;
use crate::notifications::sender::Outgoing;

/// Most dead letters that one call replays.
const MAX_REPLAY: usize = 1_000;
/// How long a test may take at most, so that its answer comes before any caller gives up.
const TEST_LIMIT: Duration = Duration::from_secs(15);
/// The constraint that says that a tenant does not exist.
const NO_TENANT: &str = "notification_endpoints_tenant_id_fkey";

fn no_endpoint() -> Failure {
    Failure::new(
        ErrorReason::EndpointNotFound,
        "no such notification endpoint",
    )
}

fn no_notification() -> Failure {
    Failure::new(ErrorReason::NotificationNotFound, "no such notification")
}

/// A new secret, as receivers are given it.
fn new_secret() -> Result<Sensitive<String>, Failure> {
    let mut bytes = Zeroizing::new([0; NEW_SECRET_BYTES]);
    let drawn = OsRng.try_fill_bytes(bytes.as_mut_slice());
    drawn.map_err(|error| Failure::defect(&error.to_string()))?;
    Ok(Sensitive::new(secret_of(&bytes).to_string()))
}

impl AdminRpcs {
    async fn on_record(
        &self,
        caller: &Caller,
        event_type: &'static str,
        facts: Facts,
    ) -> Result<(), Failure> {
        let event = AuditEvent::done(event_type, facts.into_details());
        Ok(self.services.audit.record(caller, event).await?)
    }

    /// Changes an endpoint, and puts it on record: both or neither. False where there was nothing to change.
    async fn change(
        &self,
        caller: &Caller,
        event_type: &'static str,
        facts: Facts,
        change: EndpointChange,
    ) -> Result<bool, Failure> {
        let event = AuditEvent::done(event_type, facts.into_details());
        let outbox = &self.services.notifications.outbox;
        let write = |entry| outbox.change_endpoint(&caller.tenant, change, entry);
        match self.services.audit.record_with(caller, event, write).await {
            Ok(done) => Ok(done),
            Err(RecordError::Store(StoreError::Refused(constraint))) if constraint == NO_TENANT => {
                Err(Failure::new(ErrorReason::TenantNotFound, "no such tenant"))
            }
            Err(RecordError::Store(error)) => Err(error.into()),
            Err(RecordError::Flow(error)) => Err(error.into()),
        }
    }

    async fn endpoint(&self, tenant: &TenantId, id: EndpointId) -> Result<Endpoint, Failure> {
        let outbox = &self.services.notifications.outbox;
        let found = outbox.endpoint(tenant, id).await?;
        found.ok_or_else(no_endpoint)
    }

    /// The host of a URL that was looked at.
    fn host(&self, url: &Sensitive<String>) -> String {
        let target = self.services.notifications.sender.target(url.expose());
        target.map_or_else(
            |_| String::new(),
            |target| format!("{}:{}", target.host(), target.port()),
        )
    }

    pub(super) async fn create_endpoint(
        &self,
        request: Request<v1::CreateNotificationEndpointRequest>,
    ) -> Result<v1::CreateNotificationEndpointResponse, Failure> {
        let call = Call::of(request)?;
        let notifications = &self.services.notifications;
        let ForTenant { command, tenant } =
            parse::create_endpoint(call.message, &notifications.sender)?;
        let caller = acting_for(call.caller, &call.who, tenant)?;
        let id = EndpointId(self.services.random.uuid_v7(self.services.clock.now()));
        let secret = new_secret()?;
        let facts = Facts::of_endpoint(id).with("host", &self.host(&command.url));
        let facts = facts.with_events(&command.events);
        let endpoint = NewEndpoint {
            id,
            tenant: caller.tenant.clone(),
            url: command.url,
            description: command.description,
            events: command.events,
            secret: secret.clone(),
        };
        let limit = notifications.max_endpoints;
        let change = EndpointChange::Create { endpoint, limit };
        if !self
            .change(&caller, "endpoint.created", facts, change)
            .await?
        {
            let message =
                format!("the tenant has {limit} notification endpoints, as many as it may");
            return Err(Failure::new(ErrorReason::TooManyEndpoints, message));
        }
        Ok(v1::CreateNotificationEndpointResponse {
            endpoint: Some(parse::endpoint(&self.endpoint(&caller.tenant, id).await?)),
            secret: secret.into_exposed(),
        })
    }

    pub(super) async fn list_endpoints(
        &self,
        request: Request<v1::ListNotificationEndpointsRequest>,
    ) -> Result<v1::ListNotificationEndpointsResponse, Failure> {
        let call = Call::of(request)?;
        let token = call.message.page_token.clone();
        let query = parse::list_endpoints(call.message)?;
        let across = query.tenant.is_none() && administers_all(&call.who);
        let tenant = acting_for(call.caller, &call.who, query.tenant)?.tenant;
        let tenant = Some(&tenant).filter(|_| !across);
        let bound = [tenant.map_or("", TenantId::as_str).as_bytes()];
        let tokens = &self.services.tokens;
        let after = page_start(tokens, TokenKind::Endpoints, &bound, &token)?.map(EndpointId);
        let (size, outbox) = (query.page_size, &self.services.notifications.outbox);
        let mut found = outbox.list_endpoints(tenant, after, size + 1).await?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().map(|one| one.id).filter(|_| more);
        Ok(v1::ListNotificationEndpointsResponse {
            endpoints: found.iter().map(parse::endpoint).collect(),
            next_page_token: last
                .map(|id| tokens.seal(TokenKind::Endpoints, &bound, id.0.as_bytes()))
                .unwrap_or_default(),
        })
    }

    pub(super) async fn update_endpoint(
        &self,
        request: Request<v1::UpdateNotificationEndpointRequest>,
    ) -> Result<v1::UpdateNotificationEndpointResponse, Failure> {
        let call = Call::of(request)?;
        let notifications = &self.services.notifications;
        let ForTenant { command, tenant } =
            parse::update_endpoint(call.message, &notifications.sender)?;
        let (id, update) = command;
        let caller = acting_for(call.caller, &call.who, tenant)?;
        let mut facts = Facts::of_endpoint(id);
        if let Some(url) = &update.url {
            facts = facts.with("host", &self.host(url));
        }
        if let Some(events) = &update.events {
            facts = facts.with_events(events);
        }
        if let Some(enabled) = update.enabled {
            facts = facts.with("enabled", &enabled);
        }
        let change = EndpointChange::Update { id, update };
        if !self
            .change(&caller, "endpoint.updated", facts, change)
            .await?
        {
            return Err(no_endpoint());
        }
        Ok(v1::UpdateNotificationEndpointResponse {
            endpoint: Some(parse::endpoint(&self.endpoint(&caller.tenant, id).await?)),
        })
    }

    pub(super) async fn delete_endpoint(
        &self,
        request: Request<v1::DeleteNotificationEndpointRequest>,
    ) -> Result<v1::DeleteNotificationEndpointResponse, Failure> {
        let call = Call::of(request)?;
        let message = call.message;
        let ForTenant { command, tenant } =
            parse::one_endpoint(&message.endpoint_id, message.tenant_id)?;
        let caller = acting_for(call.caller, &call.who, tenant)?;
        let facts = Facts::of_endpoint(command);
        let change = EndpointChange::Delete { id: command };
        if !self
            .change(&caller, "endpoint.deleted", facts, change)
            .await?
        {
            return Err(no_endpoint());
        }
        Ok(v1::DeleteNotificationEndpointResponse {})
    }

    pub(super) async fn test_endpoint(
        &self,
        request: Request<v1::TestNotificationEndpointRequest>,
    ) -> Result<v1::TestNotificationEndpointResponse, Failure> {
        let call = Call::of(request)?;
        let message = call.message;
        let ForTenant { command, tenant } =
            parse::one_endpoint(&message.endpoint_id, message.tenant_id)?;
        let caller = acting_for(call.caller, &call.who, tenant)?;
        let outbox = &self.services.notifications.outbox;
        let destination = outbox.destination(&caller.tenant, command).await?;
        let destination = destination.ok_or_else(no_endpoint)?;
        let trial = self.services.notifications.trials.begin(command);
        let _trial = trial.ok_or_else(too_many_trials)?;
        let facts = Facts::of_endpoint(command);
        self.on_record(&caller, "endpoint.tested", facts).await?;
        let id = NotificationId(Uuid::new_v4());
        let attempt = self
            .send_test((&caller.tenant, command), id, &destination)
            .await?;
        Ok(v1::TestNotificationEndpointResponse {
            delivered: attempt.cause.is_none(),
            notification_id: id.to_string(),
            attempt: Some(parse::notification_attempt(&attempt)),
        })
    }

    async fn send_test(
        &self,
        (tenant, endpoint): (&TenantId, EndpointId),
        id: NotificationId,
        destination: &Destination,
    ) -> Result<StoredAttempt, Failure> {
        let (sender, now) = (
            &self.services.notifications.sender,
            self.services.clock.now(),
        );
        let body = payload::of_test(endpoint.0, now);
        let body = body.ok_or_else(|| Failure::defect("the body of a test"))?;
        let sent = match sender.target(destination.url.expose()) {
            Ok(target) => {
                let outgoing = Outgoing {
                    asker: tenant.as_str(),
                    id,
                    at: now,
                    secrets: &destination.secrets,
                    body,
                    limit: TEST_LIMIT,
                };
                sender.send(&target, outgoing).await
            }
            Err(_) => crate::notifications::Sent::refused(),
        };
        Ok(StoredAttempt {
            number: 1,
            log: AttemptLog {
                started_at: now,
                latency: sent.latency,
                http_status: sent.http_status,
            },
            cause: sent.cause,
        })
    }

    pub(super) async fn rotate_endpoint_secret(
        &self,
        request: Request<v1::RotateNotificationEndpointSecretRequest>,
    ) -> Result<v1::RotateNotificationEndpointSecretResponse, Failure> {
        let call = Call::of(request)?;
        let ForTenant { command, tenant } = parse::rotate_secret(call.message)?;
        let (id, keep) = command;
        let caller = acting_for(call.caller, &call.who, tenant)?;
        let new = new_secret()?;
        let facts = Facts::of_endpoint(id).with("keep_previous_seconds", &keep.as_secs());
        let secret = new.clone();
        let change = EndpointChange::Rotate {
            id,
            secret: new,
            keep,
        };
        if !self
            .change(&caller, "endpoint.secret_rotated", facts, change)
            .await?
        {
            return Err(no_endpoint());
        }
        Ok(v1::RotateNotificationEndpointSecretResponse {
            endpoint: Some(parse::endpoint(&self.endpoint(&caller.tenant, id).await?)),
            secret: secret.into_exposed(),
        })
    }

    pub(super) async fn list_notifications_of(
        &self,
        request: Request<v1::ListNotificationsRequest>,
    ) -> Result<v1::ListNotificationsResponse, Failure> {
        let call = Call::of(request)?;
        let mut filters = call.message.clone();
        filters.page_token.clear();
        filters.page_size = 0;
        let filters = filters.encode_to_vec();
        let token = call.message.page_token.clone();
        let query = parse::list_notifications(call.message)?;
        let across = query.tenant.is_none() && administers_all(&call.who);
        let tenant = acting_for(call.caller, &call.who, query.tenant)?.tenant;
        let tenant = Some(&tenant).filter(|_| !across);
        let bound = [tenant.map_or("", TenantId::as_str).as_bytes(), &filters];
        let before = self.before(&bound, &token)?;
        let (size, outbox) = (query.page_size, &self.services.notifications.outbox);
        let listing = outbox.list_notifications(tenant, &query.filter, before, size + 1);
        let mut found = listing.await?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more);
        let next = last.map(|last| {
            let place = [&last.position.to_be_bytes()[..], last.id.0.as_bytes()].concat();
            let tokens = &self.services.tokens;
            tokens.seal(TokenKind::Notifications, &bound, &place)
        });
        Ok(v1::ListNotificationsResponse {
            notifications: found.iter().map(parse::notification).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// Where a page of notifications ended.
    fn before(
        &self,
        bound: &[&[u8]],
        token: &str,
    ) -> Result<Option<(u64, NotificationId)>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let tokens = &self.services.tokens;
        let place = tokens.open::<24>(TokenKind::Notifications, bound, token);
        let place = place.as_ref().and_then(|place| {
            let (position, id) = place.split_first_chunk::<8>()?;
            let id = Uuid::from_slice(id).ok()?;
            Some((u64::from_be_bytes(*position), NotificationId(id)))
        });
        place.map(Some).ok_or_else(Failure::invalid_page_token)
    }

    pub(super) async fn read_notification(
        &self,
        request: Request<v1::GetNotificationRequest>,
    ) -> Result<v1::GetNotificationResponse, Failure> {
        let call = Call::of(request)?;
        let ForTenant { command, tenant } = convert::notifications::get_notification(call.message)?;
        let tenant = acting_for(call.caller, &call.who, tenant)?.tenant;
        let outbox = &self.services.notifications.outbox;
        let found = outbox.notification(&tenant, command).await?;
        let (found, attempts) = found.ok_or_else(no_notification)?;
        Ok(v1::GetNotificationResponse {
            notification: Some(parse::notification(&found)),
            attempts: attempts.iter().map(parse::notification_attempt).collect(),
        })
    }

    pub(super) async fn replay_dead(
        &self,
        request: Request<v1::ReplayNotificationsRequest>,
    ) -> Result<v1::ReplayNotificationsResponse, Failure> {
        let call = Call::of(request)?;
        let ForTenant { command, tenant } = parse::replay_notifications(call.message)?;
        let caller = acting_for(call.caller, &call.who, tenant)?;
        let outbox = &self.services.notifications.outbox;
        let facts = match command {
            Replay::One(id) => {
                let found = outbox.notification(&caller.tenant, id).await?;
                let (found, _) = found.ok_or_else(no_notification)?;
                Facts::of_endpoint(found.endpoint).with("notification_id", &id)
            }
            Replay::Endpoint(id) => {
                self.endpoint(&caller.tenant, id).await?;
                Facts::of_endpoint(id)
            }
        };
        self.on_record(&caller, "endpoint.replayed", facts).await?;
        let replayed = outbox.replay_notifications(&caller.tenant, command, MAX_REPLAY);
        match replayed.await? {
            Replayed::Again(count) => Ok(v1::ReplayNotificationsResponse {
                replayed: u32::try_from(count).unwrap_or(u32::MAX),
            }),
            Replayed::NotFound => Err(match command {
                Replay::One(_) => no_notification(),
                Replay::Endpoint(_) => no_endpoint(),
            }),
            Replayed::NotDead => {
                let message = "the notification is no dead letter";
                Err(Failure::new(ErrorReason::NotificationNotDead, message))
            }
            Replayed::EndpointClosed => {
                let message = "the notification endpoint is off: nothing would be sent";
                Err(Failure::new(ErrorReason::EndpointNotEnabled, message))
            }
        }
    }
}
