//! The HTTP client that every adapter sends through: one per account.
//!
//! It sends a request exactly once, reads a bounded answer, and says in types what that proves.

mod base_url;
mod exchange;
mod failure;
mod retry_after;

use std::sync::Arc;
use std::time::{Duration, Instant};

use quittance_domain::ids::ProviderAccount;
use reqwest::Method;
use reqwest::header::{
    ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue,
};
use rustls::crypto::{CryptoProvider, ring};
use thiserror::Error;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::outcome::NotSent;
use crate::prepared::Prepared;

pub use base_url::{BaseUrl, BaseUrlError, path_segment};
pub use exchange::{Exchange, MAX_RESPONSE_BYTES, Verdict, refusal};
pub use retry_after::read as retry_after;

/// Most idle connections kept open to a provider; further ones are closed after their answer.
pub const MAX_IDLE_CONNECTIONS: usize = 512;
/// How long an idle connection is kept: shorter than providers' load balancers keep theirs (60 s
/// and more), because a connection that they close while it is being reused costs an `Unknown`.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What providers see as our name.
const USER_AGENT: &str = concat!("quittance/", env!("CARGO_PKG_VERSION"));

/// Adds the current span's W3C `traceparent` to a request's headers.
pub type TraceHeaders = fn(&mut HeaderMap);

/// Where and how an account is reached.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The account, as spans name it.
    pub account: ProviderAccount,
    /// The provider's base URL.
    pub base_url: BaseUrl,
    /// Longest wait for a connection, name resolution and TLS included. Shorter than
    /// `total_timeout`, so that a connection that cannot be made is told from a lost answer.
    pub connect_timeout: Duration,
    /// Longest wait for the whole answer, connection included.
    pub total_timeout: Duration,
}

/// Why a client could not be made.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The platform has no usable root certificates, or TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[from] rustls::Error),
    /// The client could not be built.
    #[error("the HTTP client could not be built")]
    Client(#[source] reqwest::Error),
}

/// One request, to be sent once.
#[derive(Clone)]
pub struct Outgoing<'a> {
    /// The method.
    pub method: Method,
    /// The path below the base URL, beginning with `/`; segments from outside went through
    /// [`path_segment`].
    pub path: &'a str,
    /// The path with placeholders, for span names.
    pub route: &'static str,
    /// The provider's idempotency header, if the request moves money.
    pub idempotency: Option<(HeaderName, &'a str)>,
    /// Media type and body, if there is one.
    pub content: Option<(&'a str, Vec<u8>)>,
    /// 1 for the first send of a transaction, 2 for its first resend.
    pub send: u32,
}

/// Names and values of a query, in their order.
pub type Query<'a> = &'a [(&'a str, &'a str)];

/// A header value that is never printed.
pub fn sensitive(value: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The client of one provider account.
#[derive(Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    settings: Arc<HttpSettings>,
    trace: TraceHeaders,
}

impl HttpClient {
    /// Builds the client. `credentials` go with every request, and must be [`sensitive`].
    /// `trace` adds the trace context.
    ///
    /// Nothing but the settings decides where requests go: redirects are not followed, and proxies
    /// of the environment are ignored. HTTP/1.1 only, so that a broken connection concerns one
    /// request.
    pub fn new(
        settings: HttpSettings,
        mut credentials: HeaderMap,
        trace: TraceHeaders,
    ) -> Result<Self, HttpError> {
        credentials.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&settings.base_url)?)
            .http1_only()
            .https_only(settings.base_url.is_tls())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .tcp_nodelay(true)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.total_timeout)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(USER_AGENT)
            .default_headers(credentials)
            .build()
            .map_err(HttpError::Client)?;
        Ok(Self {
            client,
            settings: Arc::new(settings),
            trace,
        })
    }

    /// How long an exchange can take at most.
    pub fn total_timeout(&self) -> Duration {
        self.settings.total_timeout
    }

    /// Sends a request once, in a CLIENT span of its own, and reads the answer.
    pub async fn exchange(&self, outgoing: Outgoing<'_>) -> Exchange {
        self.exchange_with(outgoing, &[]).await
    }

    /// Sends a prepared request once, with its key in the provider's idempotency header (`key`); one that only asks goes without.
    pub async fn send(
        &self,
        prepared: &Prepared,
        route: &'static str,
        key: &HeaderName,
        send: u32,
    ) -> Exchange {
        let asks = prepared.method == Method::GET;
        let outgoing = Outgoing {
            method: prepared.method.clone(),
            path: &prepared.path,
            route,
            idempotency: (!asks).then(|| (key.clone(), prepared.idempotency_key.as_str())),
            content: (!asks).then(|| (prepared.content_type.as_str(), prepared.body.clone())),
            send,
        };
        self.exchange(outgoing).await
    }

    /// Asks once, as [`exchange`](Self::exchange) does: `GET` of a path with these query parameters, which are
    /// escaped and appear in no span. `route` is the path with placeholders.
    pub async fn get(&self, path: &str, route: &'static str, query: Query<'_>) -> Exchange {
        let outgoing = Outgoing {
            method: Method::GET,
            path,
            route,
            idempotency: None,
            content: None,
            send: 1,
        };
        self.exchange_with(outgoing, query).await
    }

    async fn exchange_with(&self, outgoing: Outgoing<'_>, query: Query<'_>) -> Exchange {
        let span = self.span(&outgoing);
        let attempt = self.attempt(outgoing, query).instrument(span.clone());
        let exchange = attempt.await;
        record(&span, &exchange);
        exchange
    }

    async fn attempt(&self, outgoing: Outgoing<'_>, query: Query<'_>) -> Exchange {
        let started = Instant::now();
        let mut exchange = match self.request(outgoing, query) {
            Some(request) => match self.client.execute(request).await {
                Ok(response) => Exchange::receive(response).await,
                Err(error) => {
                    Exchange::unanswered(failure::verdict(&error, self.settings.base_url.is_tls()))
                }
            },
            None => Exchange::unanswered(Verdict::NotSent(NotSent::RequestRefused)),
        };
        exchange.latency_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        exchange
    }

    /// `None` where the stored text cannot be a header: nothing can be sent then.
    fn request(&self, outgoing: Outgoing<'_>, query: Query<'_>) -> Option<reqwest::Request> {
        let mut url = self.settings.base_url.join(outgoing.path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = reqwest::Request::new(outgoing.method, url);
        let headers = request.headers_mut();
        if let Some((name, key)) = outgoing.idempotency {
            headers.insert(name, HeaderValue::from_str(key).ok()?);
        }
        if let Some((media_type, _)) = &outgoing.content {
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(media_type).ok()?);
        }
        (self.trace)(headers);
        if let Some((_, body)) = outgoing.content {
            *request.body_mut() = Some(body.into());
        }
        Some(request)
    }

    fn span(&self, outgoing: &Outgoing<'_>) -> Span {
        let base = &self.settings.base_url;
        let span = tracing::info_span!(
            "provider request",
            otel.name = %format_args!("{} {}", outgoing.method, outgoing.route),
            otel.kind = "client",
            otel.status_code = Empty,
            provider.account = %self.settings.account,
            http.request.method = %outgoing.method,
            url.template = outgoing.route,
            server.address = base.host(),
            server.port = base.port(),
            http.request.resend_count = Empty,
            http.response.status_code = Empty,
            "error.type" = Empty,
        );
        if let Some(resends) = outgoing.send.checked_sub(1).filter(|resends| *resends > 0) {
            span.record("http.request.resend_count", resends);
        }
        span
    }
}

/// Attributes of the HTTP client conventions that are known once the exchange has ended.
fn record(span: &Span, exchange: &Exchange) {
    if let Some(status) = exchange.status {
        span.record("http.response.status_code", status);
    }
    let error = match exchange.verdict {
        Verdict::Success => return,
        Verdict::Refused(status) => status.to_string(),
        Verdict::NotSent(not_sent) => not_sent.cause().to_string(),
        Verdict::Unknown(unknown) => unknown.cause().to_string(),
    };
    span.record("error.type", error);
    span.record("otel.status_code", "ERROR");
}

/// TLS by rustls with ring and the platform's roots. Plain HTTP gets an empty set of roots, so that
/// a machine without certificates can still talk to its own loopback.
fn tls(base_url: &BaseUrl) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let config = if base_url.is_tls() {
        let verifier = rustls_platform_verifier::Verifier::new(provider)?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth()
    } else {
        builder
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
    };
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_headers_are_sensitive() {
        let value = sensitive("Bearer sk_live_1").unwrap();
        assert!(value.is_sensitive());
        assert!(!format!("{value:?}").contains("sk_live"));
        assert!(sensitive("line\nbreak").is_err());
    }
}
