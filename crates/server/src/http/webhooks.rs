//! `POST /webhooks/{provider_account}`: verified over its raw bytes, stored, and only then acknowledged. The answer
//! waits for one insert, however many events it tells; what a webhook says is applied later, by the workers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use quittance_domain::ids::{EventId, ProviderAccount, WebhookId};
use quittance_domain::ports::{Clock, Provider, Providers, Randomness, StoreError};
use quittance_domain::webhook::{
    Delivery, Inbox, NewWebhook, Receipt, Unreadable, VerifiedEvent, WebhookReason,
};
use quittance_telemetry::Metrics;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::rejection::Rejection;
pub use super::rejection::rejections;
use crate::config::WebhooksConfig;
use crate::layers::{Refusals, RefusedCaller, RefusedCalls};

/// The route, and how spans, metrics and audit entries name it.
const ROUTE: &str = "/webhooks/{provider_account}";
/// How refused webhooks name what was called.
const SOURCE: &str = "POST /webhooks/{provider_account}";
/// Times the limit of a body that are listened to before the connection is closed on who sends more.
const HEARD_OUT: usize = 4;
/// When a provider is asked to come back while nothing can be stored.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What webhooks are received with.
pub struct WebhookParts {
    /// Where they are stored.
    pub inbox: Arc<dyn Inbox>,
    /// Whose they are: the accounts verify and read them.
    pub providers: Arc<dyn Providers>,
    /// By which they are too old or too new.
    pub clock: Arc<dyn Clock>,
    /// For their ids.
    pub random: Arc<dyn Randomness>,
    /// Where refused ones are counted.
    pub metrics: Metrics,
    /// From where refused ones get on record.
    pub refusals: Refusals,
    /// Limits.
    pub settings: WebhooksConfig,
    /// Told when something was stored.
    pub wake: Arc<Notify>,
    /// Cancelled when the server begins to stop: from then on another one has to take them.
    pub stop: CancellationToken,
}

struct Receiver {
    parts: WebhookParts,
    /// So that a burst of webhooks leaves payments their connections to the database.
    stores: Semaphore,
}

/// How a delivery ends.
enum End {
    Acknowledged,
    Refused(Rejection),
    /// It could not be stored: not acknowledged, so it comes again.
    NotNow,
    /// The store refused it: a defect of ours. It comes again, too.
    Defect(StoreError),
}

impl From<Rejection> for End {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

/// The route.
pub fn router(parts: WebhookParts) -> Router {
    let stores = Semaphore::new(parts.settings.max_stores);
    Router::new()
        // Whatever is refused is counted, so nothing is refused before.
        .route(ROUTE, any(answer))
        .with_state(Arc::new(Receiver { parts, stores }))
}

async fn answer(
    State(receiver): State<Arc<Receiver>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let posted = request.method() == Method::POST;
    let span = tracing::info_span!(
        parent: None,
        "POST /webhooks/{provider_account}",
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = if posted { "POST" } else { "_OTHER" },
        http.route = ROUTE,
        http.response.status_code = Empty,
        provider.account = Empty,
        webhook.id = Empty,
        cause = Empty,
    );
    let answering = async {
        let peer = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let (end, account) = match receiver.known(name) {
            Ok((account, provider)) => {
                Span::current().record("provider.account", account.as_str());
                let end = if posted {
                    receiver.take(&account, provider.as_ref(), request).await
                } else {
                    Rejection::Method.into()
                };
                (end, Some(account))
            }
            Err(rejection) => (rejection.into(), None),
        };
        let response = receiver.respond(end, account, peer);
        Span::current().record("http.response.status_code", response.status().as_u16());
        response
    };
    answering.instrument(span).await
}

impl Receiver {
    /// The account that the path names.
    fn known(
        &self,
        name: Result<Path<String>, PathRejection>,
    ) -> Result<(ProviderAccount, Arc<dyn Provider>), Rejection> {
        let Path(name) = name.map_err(|_| Rejection::Path)?;
        let account = ProviderAccount::parse(name).map_err(|_| Rejection::UnknownAccount)?;
        let provider = self.parts.providers.account(&account);
        Ok((account, provider.ok_or(Rejection::UnknownAccount)?))
    }

    /// Takes a delivery in: from its first byte to its commit.
    async fn take(
        &self,
        account: &ProviderAccount,
        provider: &dyn Provider,
        request: Request,
    ) -> End {
        if self.parts.stop.is_cancelled() {
            return End::NotNow;
        }
        let (head, body) = request.into_parts();
        let body = match self.read(&head.headers, body).await {
            Ok(body) => body,
            Err(rejection) => return rejection.into(),
        };
        let header = |name: &str| single(&head.headers, name);
        let delivery = Delivery {
            header: &header,
            body: &body,
            received_at: self.parts.clock.now(),
        };
        let events = match provider.verify(&delivery) {
            Ok(events) => events,
            Err(unverified) => return Rejection::Unverified(unverified).into(),
        };
        // From here on the provider has said it.
        let waiting = tokio::time::timeout(self.parts.settings.read_timeout, self.stores.acquire());
        let Ok(Ok(_place)) = waiting.await else {
            return End::NotNow;
        };
        let received_at = delivery.received_at;
        self.store_all(account, provider, events, received_at).await
    }

    /// Stores the events of a delivery, all of them in one insert: it is acknowledged once they are there.
    async fn store_all(
        &self,
        account: &ProviderAccount,
        provider: &dyn Provider,
        events: Vec<VerifiedEvent>,
        received_at: DateTime<Utc>,
    ) -> End {
        let new = events.into_iter().map(|event| {
            let dead = provider.webhook(event.body.expose()).err();
            self.new_webhook(account, event, dead, received_at)
        });
        match new.collect() {
            Some(webhooks) => self.store(account, webhooks).await,
            None => End::Defect(StoreError::Refused("event_id".to_owned())),
        }
    }

    /// An event, to be stored.
    fn new_webhook(
        &self,
        account: &ProviderAccount,
        event: VerifiedEvent,
        dead: Option<Unreadable>,
        received_at: DateTime<Utc>,
    ) -> Option<NewWebhook> {
        let id = WebhookId(self.parts.random.uuid_v7(received_at));
        Span::current().record("webhook.id", id.to_string());
        Some(NewWebhook {
            id,
            account: account.clone(),
            event: event_of(event.id, dead, &event.signed)?,
            body: event.body,
            dead: dead.map(reason_of),
        })
    }

    /// Reads the raw body: bounded in size and time, and never decompressed.
    async fn read(&self, headers: &HeaderMap, body: axum::body::Body) -> Result<Bytes, Rejection> {
        let settings = &self.parts.settings;
        let encoding = headers.get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Rejection::Encoded);
        }
        let declared = single(headers, CONTENT_LENGTH.as_str());
        let declared = declared.and_then(|length| length.parse::<u64>().ok());
        let heard_out = settings.max_body_bytes.saturating_mul(HEARD_OUT);
        let heard_out_bytes = u64::try_from(heard_out).unwrap_or(u64::MAX);
        if declared.is_some_and(|length| length > heard_out_bytes) {
            return Err(Rejection::TooLarge);
        }
        let reading = read_within(body, settings.max_body_bytes, heard_out);
        let read = tokio::time::timeout(settings.read_timeout, reading).await;
        read.unwrap_or(Err(Rejection::TooSlow))
    }

    async fn store(&self, account: &ProviderAccount, webhooks: Vec<NewWebhook>) -> End {
        let told: Vec<_> = webhooks.iter().map(|new| (new.id, new.dead)).collect();
        let receipts = match self.parts.inbox.receive(webhooks).await {
            Ok(receipts) => receipts,
            Err(StoreError::Unavailable | StoreError::CommitUnknown | StoreError::Overloaded) => {
                return End::NotNow;
            }
            Err(error @ (StoreError::Refused(_) | StoreError::Corrupt(_))) => {
                return End::Defect(error);
            }
        };
        for ((id, dead), receipt) in told.iter().zip(receipts) {
            match (receipt, dead) {
                (Receipt::Stored, None) => self.parts.wake.notify_one(),
                (Receipt::Stored, Some(reason)) => tracing::warn!(
                    provider.account = %account,
                    webhook.id = %id,
                    cause = reason.name(),
                    "a verified webhook is not understood: kept as a dead letter"
                ),
                (Receipt::KnownEvent, _) => {}
            }
        }
        // What can be read, and is about something that is not handled, is no cause to complain.
        if told
            .iter()
            .any(|(_, dead)| *dead == Some(WebhookReason::Unreadable))
        {
            return Rejection::Unreadable.into();
        }
        End::Acknowledged
    }

    /// Answers, and counts what was refused.
    fn respond(
        &self,
        end: End,
        account: Option<ProviderAccount>,
        peer: Option<IpAddr>,
    ) -> Response {
        let rejection = match end {
            End::Acknowledged => return (StatusCode::OK, "received\n").into_response(),
            End::NotNow => {
                let seconds = HeaderValue::from(TRY_AGAIN_AFTER.as_secs());
                let answer = (StatusCode::SERVICE_UNAVAILABLE, "not stored\n");
                return ([(RETRY_AFTER, seconds)], answer).into_response();
            }
            End::Defect(error) => {
                Span::current().record("otel.status_code", "ERROR");
                tracing::error!(error.message = %error, "a webhook could not be stored");
                return (StatusCode::INTERNAL_SERVER_ERROR, "not stored\n").into_response();
            }
            End::Refused(rejection) => rejection,
        };
        Span::current().record("cause", rejection.name());
        let label = account.as_ref().map(ProviderAccount::as_str);
        self.parts.metrics.webhook_rejected(label, rejection.name());
        let now = self.parts.clock.now();
        let who = RefusedCaller {
            caller: None,
            account,
            peer,
            cause: rejection.audited(),
        };
        let calls = RefusedCalls {
            count: 1,
            rpc: SOURCE,
            first: now,
            last: now,
        };
        self.parts.refusals.count(who, calls);
        let mut response = (rejection.status(), format!("{}\n", rejection.name())).into_response();
        if rejection == Rejection::Method {
            let headers = response.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// A header that is there once, in printable ASCII. One that is there twice says nothing.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (_, _) => None,
    }
}

/// Reads a body of at most `max` bytes. A larger one is heard out, up to `heard_out` bytes of which none are kept:
/// who is still sending does not hear an answer.
async fn read_within(
    mut body: axum::body::Body,
    max: usize,
    heard_out: usize,
) -> Result<Bytes, Rejection> {
    let (mut kept, mut length) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Rejection::Broken)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length = length.saturating_add(data.len());
        if length > heard_out {
            break;
        }
        if length > max {
            kept = BytesMut::new();
        } else {
            kept.extend_from_slice(&data);
        }
    }
    if length > max {
        return Err(Rejection::TooLarge);
    }
    Ok(kept.freeze())
}

/// What the event is known by. One without an id, or that cannot be read, is known by the digest of what is signed of
/// it: then a corrected one under the same id is no repetition.
fn event_of(event: Option<EventId>, dead: Option<Unreadable>, signed: &[u8]) -> Option<EventId> {
    let digest = |prefix: &str| EventId::parse(format!("{prefix}:{}", hex::encode(signed))).ok();
    match (event, dead) {
        (_, Some(Unreadable::Malformed)) => digest("unreadable"),
        (Some(event), Some(Unreadable::Unexpected) | None) => Some(event),
        (None, Some(Unreadable::Unexpected) | None) => digest("sha256"),
    }
}

const fn reason_of(dead: Unreadable) -> WebhookReason {
    match dead {
        Unreadable::Malformed => WebhookReason::Unreadable,
        Unreadable::Unexpected => WebhookReason::Unexpected,
    }
}
