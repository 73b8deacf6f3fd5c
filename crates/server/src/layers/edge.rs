//! The edge: the one service around all RPCs.
//!
//! In order: server span, RPC known?, room for it?, who calls?, not too often?, may they?, the RPC within its
//! deadline; then the trace id for the caller, and the end of the span when the last byte is sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use quittance_domain::ports::{Clock, Randomness};
use quittance_telemetry::{self as telemetry, Metrics};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::call::{self, CallContext, REQUEST_ID_HEADER, TRACE_ID_HEADER};
use super::end::{CallEnd, EndingBody};
use super::rates::TenantRates;
use super::refusal::{ROLE_REQUIRED, Refusal};
use super::refusals::{Refusals, RefusedCaller, RefusedCalls};
use crate::auth::permissions::{HEALTH, REFLECTION, RPCS};
use crate::auth::{Access, Authenticated, Authenticator, Rpc};
use crate::config::ReflectionAccess;

/// How metrics and spans name an RPC that does not exist: callers must not make up names.
const OTHER: &str = "_OTHER";

/// The RPCs that are served, by request path.
#[derive(Debug, Clone)]
pub struct Methods(HashMap<&'static str, Rpc>);

impl Methods {
    /// Those of the contract, health, and reflection as the setting says.
    pub fn new(reflection: ReflectionAccess) -> Self {
        let mut methods: HashMap<_, _> = RPCS
            .iter()
            .chain(HEALTH)
            .map(|rpc| (rpc.method, *rpc))
            .collect();
        let access = match reflection {
            ReflectionAccess::Open => Some(Access::Open),
            ReflectionAccess::Authenticated => Some(Access::Authenticated),
            ReflectionAccess::Off => None,
        };
        for method in REFLECTION {
            if let Some(access) = access {
                methods.insert(
                    method,
                    Rpc {
                        method,
                        access,
                        streams: true,
                        denies_nothing: false,
                    },
                );
            }
        }
        Self(methods)
    }

    /// The RPC that a request path names.
    pub fn find(&self, path: &str) -> Option<Rpc> {
        self.0.get(path.strip_prefix('/')?).copied()
    }
}

/// What the edge needs.
pub struct EdgeSettings {
    /// The RPCs that are served.
    pub methods: Methods,
    /// Who calls.
    pub authenticator: Arc<Authenticator>,
    /// Where refused calls are counted for the audit log.
    pub refusals: Refusals,
    /// Where calls are counted.
    pub metrics: Metrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Request ids.
    pub random: Arc<dyn Randomness>,
    /// Unary calls worked on at once.
    pub max_in_flight: usize,
    /// How often a tenant may call.
    pub tenant_rates: TenantRates,
    /// How long a unary call may take.
    pub request_timeout: Duration,
    /// Cancelled when the server waits for calls no longer: those in flight are answered then.
    pub kill: CancellationToken,
    /// Gives a refusal its status; told whether the RPC can move money.
    pub status: fn(&Refusal, bool) -> Status,
}

struct Shared {
    settings: EdgeSettings,
    in_flight: Arc<Semaphore>,
}

/// The service around all RPCs.
#[derive(Clone)]
pub struct Edge<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// What was found out about a call before it reaches its RPC.
struct Admitted {
    /// Held while a unary call is worked on.
    permit: Option<OwnedSemaphorePermit>,
    /// How long it may take to begin its answer; `None`: a stream without a deadline.
    limit: Option<Duration>,
    /// Who calls, where the RPC is not open.
    caller: Option<Authenticated>,
}

impl<S> Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
    S::Future: Send,
{
    /// Puts the edge around `inner`.
    pub fn new(inner: S, settings: EdgeSettings) -> Self {
        let in_flight = Arc::new(Semaphore::new(settings.max_in_flight));
        Self {
            inner,
            shared: Arc::new(Shared {
                settings,
                in_flight,
            }),
        }
    }

    /// The places of unary calls, to be taken by tests.
    #[cfg(test)]
    pub(super) fn shared_in_flight(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.in_flight)
    }

    async fn answer(
        mut self,
        mut request: Request<Body>,
        rpc: Option<Rpc>,
        context: Option<CallContext>,
    ) -> Response<Body> {
        let peer = request.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let admitted = match self.shared.admit(&mut request, rpc, context).await {
            Ok(admitted) => admitted,
            Err((refusal, caller)) => {
                if let Some(cause) = refusal.audited() {
                    self.shared.count_refusal(rpc, peer, caller, cause);
                }
                return self.refuse(refusal, rpc);
            }
        };
        // A panic is a defect of one call; the caller still gets an answer.
        let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let ending = async {
            match admitted.limit {
                Some(limit) => tokio::time::timeout(limit, call).await,
                None => Ok(call.await),
            }
        };
        let kill = self.shared.settings.kill.clone();
        let answered = tokio::select! {
            biased;
            answered = ending => answered,
            // A command that was accepted goes on, or is recovered; its caller is told that it may be.
            () = kill.cancelled() => return self.refuse(Refusal::Interrupted, rpc),
        };
        drop(admitted.permit);
        match answered {
            Ok(Ok(Ok(response))) => {
                // What only the RPC could know: that more is asked for than the caller may see.
                if is_permission_denied(response.headers()) {
                    let caller = admitted.caller;
                    self.shared.count_refusal(rpc, peer, caller, ROLE_REQUIRED);
                }
                response
            }
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_panic)) => self.refuse(Refusal::Defect, rpc),
            Err(_elapsed) => self.refuse(Refusal::DeadlineExceeded, rpc),
        }
    }

    fn refuse(&self, refusal: Refusal, rpc: Option<Rpc>) -> Response<Body> {
        let denies_nothing = rpc.is_some_and(|rpc| rpc.denies_nothing);
        (self.shared.settings.status)(&refusal, denies_nothing).into_http()
    }
}

impl EdgeSettings {
    /// Reflection is not counted: whoever may use it learns how to call, and calls nothing.
    fn count_call(
        &self,
        rpc: Rpc,
        caller: &Authenticated,
    ) -> Result<(), (Refusal, Option<Authenticated>)> {
        match rpc.access {
            Access::Open | Access::Authenticated => Ok(()),
            Access::AnyOf(_) => {
                let counted = self.tenant_rates.admit(&caller.tenant);
                counted.map_err(|retry_after| (Refusal::RateLimited { retry_after }, None))
            }
        }
    }
}

impl Shared {
    async fn admit(
        &self,
        request: &mut Request<Body>,
        rpc: Option<Rpc>,
        context: Option<CallContext>,
    ) -> Result<Admitted, (Refusal, Option<Authenticated>)> {
        let rpc = rpc.ok_or((Refusal::UnknownMethod, None))?;
        let permit = if rpc.streams {
            None
        } else {
            let permit = Arc::clone(&self.in_flight).try_acquire_owned();
            Some(permit.map_err(|_| (Refusal::Overloaded, None))?)
        };
        let wanted = call::timeout(request.headers());
        let limit = if rpc.streams {
            wanted
        } else {
            let own = self.settings.request_timeout;
            Some(wanted.map_or(own, |wanted| wanted.min(own)))
        };
        let caller = match rpc.access {
            Access::Open => None,
            Access::Authenticated | Access::AnyOf(_) => {
                let known = self.settings.authenticator.authenticate(request.headers());
                let caller = known.await.map_err(|failure| (failure.into(), None))?;
                self.settings.count_call(rpc, &caller)?;
                if let Err(role) = rpc.access.check(caller.roles) {
                    return Err((Refusal::RoleRequired(role), Some(caller)));
                }
                request.extensions_mut().insert(caller.clone());
                Some(caller)
            }
        };
        // Nothing behind this line needs the secret.
        request.headers_mut().remove(AUTHORIZATION);
        if let Some(context) = context {
            request.extensions_mut().insert(context);
        }
        Ok(Admitted {
            permit,
            limit,
            caller,
        })
    }

    fn count_refusal(
        &self,
        rpc: Option<Rpc>,
        peer: Option<IpAddr>,
        caller: Option<Authenticated>,
        cause: &'static str,
    ) {
        let now = self.settings.clock.now();
        let who = RefusedCaller {
            caller,
            account: None,
            peer,
            cause,
        };
        let call = RefusedCalls {
            count: 1,
            rpc: rpc.map_or(OTHER, |rpc| rpc.method),
            first: now,
            last: now,
        };
        self.settings.refusals.count(who, call);
    }

    /// When a call has to be answered: what the caller wants, but before a unary call is cut off, so that a command
    /// that was accepted is answered with its payment.
    fn deadline(&self, headers: &HeaderMap, rpc: Rpc, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wanted = call::timeout(headers)?;
        let kept = if rpc.streams {
            wanted
        } else {
            wanted.min(self.settings.request_timeout)
        };
        call::deadline(now, kept)
    }

    /// The server span, its parent as the caller says.
    fn begin(
        &self,
        headers: &HeaderMap,
        rpc: Option<Rpc>,
        peer: Option<SocketAddr>,
    ) -> (Span, Arc<str>, Option<CallContext>) {
        let now = self.settings.clock.now();
        let request_id: Arc<str> = match call::request_id(headers) {
            Some(id) => id.into(),
            None => self.settings.random.uuid_v7(now).to_string().into(),
        };
        let method = rpc.map_or(OTHER, |rpc| rpc.method);
        let span = tracing::info_span!(
            "rpc",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = method,
            rpc.status_code = Empty,
            request.id = &*request_id,
        );
        let parent = telemetry::trace_context_from_headers(headers);
        let remote = telemetry::remote_parent_ids(&parent).map(call::domain_ids);
        telemetry::set_parent(&span, parent);
        let context = rpc.zip(peer).map(|(rpc, peer)| CallContext {
            rpc,
            peer,
            request_id: Arc::clone(&request_id),
            remote,
            deadline: self.deadline(headers, rpc, now),
        });
        (span, request_id, context)
    }
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready answers; its fresh clone takes the next request.
        let fresh = self.inner.clone();
        let ready = Self {
            inner: std::mem::replace(&mut self.inner, fresh),
            shared: Arc::clone(&self.shared),
        };
        mark_sensitive(request.headers_mut());
        let rpc = self.shared.settings.methods.find(request.uri().path());
        let peer = request.extensions().get::<SocketAddr>().copied();
        let (span, request_id, context) = self.shared.begin(request.headers(), rpc, peer);
        let metrics = self.shared.settings.metrics.clone();
        let mut end = CallEnd::new(span.clone(), metrics, rpc.map_or(OTHER, |rpc| rpc.method));
        let trace_id = telemetry::span_ids(&span).trace_id_hex();
        let answered = async move {
            let mut response = ready.answer(request, rpc, context).await;
            let headers = response.headers_mut();
            insert(headers, TRACE_ID_HEADER, &trace_id);
            insert(headers, REQUEST_ID_HEADER, &request_id);
            end.see(headers);
            Ok(response.map(|body| Body::new(EndingBody::new(body, end))))
        };
        Box::pin(answered.instrument(span))
    }
}

/// Whether the answer is PERMISSION_DENIED: an RPC that refuses does so before its first message.
fn is_permission_denied(headers: &HeaderMap) -> bool {
    headers.contains_key(Status::GRPC_STATUS)
        && Status::from_header_map(headers)
            .is_some_and(|status| status.code() == Code::PermissionDenied)
}

/// No layer's debug output shows a sensitive header.
fn mark_sensitive(headers: &mut HeaderMap) {
    if let http::header::Entry::Occupied(mut values) = headers.entry(AUTHORIZATION) {
        for value in values.iter_mut() {
            value.set_sensitive(true);
        }
    }
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
