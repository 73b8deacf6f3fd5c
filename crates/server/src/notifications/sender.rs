//! Sends notifications: each once, to the very address that was judged, without redirects, and with limits on time and
//! size.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use quittance_domain::ids::NotificationId;
use quittance_domain::notification::NotificationCause;
use quittance_domain::text::Sensitive;
use quittance_providers::config::Secret;
use quittance_providers::http::{TraceHeaders, retry_after};
use quittance_providers::webhook::StandardWebhooks;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Request, Response, StatusCode};
use rustls::crypto::{CryptoProvider, ring};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use super::names::{Names, SystemNames};
use super::network::AllowedNetworks;
use super::target::Target;

/// Most bytes of an answer that are read, and thrown away: so that the connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 * 1_024;
/// How long an answer's body is waited for, once its head is there; after that the connection is given up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait that is taken from a receiver, in seconds; `notifications.max_retry_after_seconds` cuts it further.
pub const MAX_RETRY_AFTER_SECONDS: u64 = 86_400;
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most idle connections to one receiver.
const MAX_IDLE: usize = 8;
/// What receivers see as our name.
const USER_AGENT: &str = concat!("quittance/", env!("CARGO_PKG_VERSION"));

/// How notifications are sent.
#[derive(Debug, Clone)]
pub struct SenderSettings {
    /// Longest wait for a connection, name and TLS included.
    pub connect_timeout: Duration,
    /// Longest wait for the whole answer, connection included.
    pub total_timeout: Duration,
    /// Networks that are allowed besides public addresses.
    pub networks: AllowedNetworks,
    /// Whether plain http:// to loopback is allowed.
    pub plaintext_loopback: bool,
    /// Certificates of authorities that are trusted besides the platform's.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// How sending once ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Why it failed; `None` where the receiver took it.
    pub cause: Option<NotificationCause>,
    /// What the receiver answered.
    pub http_status: Option<u16>,
    /// How long the receiver asked us to wait.
    pub retry_after: Option<Duration>,
    /// How long it took until the head of the answer.
    pub latency: Duration,
    /// Whether nobody was asked, since as many names are looked up as are allowed: that says nothing of the receiver.
    pub busy: bool,
}

impl Sent {
    /// Nothing was sent: the URL is not one that is allowed (any more).
    pub const fn refused() -> Self {
        Self::unsent(NotificationCause::AddressRefused)
    }

    /// Nothing was sent.
    pub const fn unsent(cause: NotificationCause) -> Self {
        Self {
            cause: Some(cause),
            http_status: None,
            retry_after: None,
            latency: Duration::ZERO,
            busy: false,
        }
    }
}

/// A notification on its way out.
pub struct Outgoing<'a> {
    /// For whom: names are looked up for nobody so often that others wait.
    pub asker: &'a str,
    /// What the receiver knows it by.
    pub id: NotificationId,
    /// When it is sent (database clock): part of what is signed.
    pub at: DateTime<Utc>,
    /// Every live secret.
    pub secrets: &'a [Sensitive<String>],
    /// The body.
    pub body: Vec<u8>,
    /// By how much sooner than after its total timeout it must have ended.
    pub limit: Duration,
}

/// Sends notifications. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    /// `None` where TLS could not be set up: nothing is sent then.
    encrypted: Option<Client>,
    plaintext: Option<Client>,
    settings: Arc<SenderSettings>,
    trace: TraceHeaders,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum Unresolved {
    #[error("the name has no address")]
    NoAddress,
    #[error("an address of the name is not allowed")]
    Refused,
    #[error("too many names are looked up")]
    Busy,
}

tokio::task_local! {
    /// For whom a connection is made. It is made within the request that first wants it.
    static ASKER: String;
}

/// Why there is no answer.
enum Failed {
    By(NotificationCause),
    Busy,
}

impl From<NotificationCause> for Failed {
    fn from(cause: NotificationCause) -> Self {
        Self::By(cause)
    }
}

/// Resolves names, and hands addresses out only where all of them are allowed. What is connected to is what was judged
/// here: nothing resolves the name a second time.
struct Guarded {
    names: Arc<dyn Names>,
    networks: AllowedNetworks,
    loopback_only: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, networks) = (Arc::clone(&self.names), self.networks.clone());
        let loopback_only = self.loopback_only;
        let asker = ASKER.try_with(Clone::clone).unwrap_or_default();
        async move {
            let found = names.addresses(&asker, name.as_str()).await;
            let found = found.map_err(|error| {
                let busy = error.kind() == io::ErrorKind::WouldBlock;
                if busy {
                    Unresolved::Busy
                } else {
                    Unresolved::NoAddress
                }
            })?;
            let allowed = |address: &IpAddr| {
                networks.allow(*address) && (!loopback_only || address.is_loopback())
            };
            if found.is_empty() {
                return Err(Unresolved::NoAddress.into());
            }
            // One that is not allowed among others is no accident: then none of them is used.
            if !found.iter().all(allowed) {
                return Err(Unresolved::Refused.into());
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        }
        .boxed()
    }
}

impl Sender {
    /// A sender that looks names up with the operating system. `trace` adds the trace context.
    pub fn new(settings: SenderSettings, trace: TraceHeaders) -> Self {
        let names: Arc<dyn Names> = Arc::new(SystemNames::within(settings.connect_timeout));
        Self::with_names(settings, trace, &names)
    }

    /// The same with names from elsewhere.
    pub fn with_names(
        settings: SenderSettings,
        trace: TraceHeaders,
        names: &Arc<dyn Names>,
    ) -> Self {
        let client = |is_tls: bool| {
            let guarded = Guarded {
                names: Arc::clone(names),
                networks: settings.networks.clone(),
                loopback_only: !is_tls,
            };
            client(&settings, is_tls, guarded)
        };
        let encrypted = client(true);
        if let Err(error) = &encrypted {
            tracing::warn!(
                error.message = %error,
                "TLS cannot be set up: no notification can be sent"
            );
        }
        Self {
            encrypted: encrypted.ok(),
            plaintext: settings
                .plaintext_loopback
                .then(|| client(false).ok())
                .flatten(),
            settings: Arc::new(settings),
            trace,
        }
    }

    /// Reads the URL of an endpoint.
    ///
    /// # Errors
    /// Why nothing is sent there.
    pub fn target(&self, url: &str) -> Result<Target, super::TargetProblem> {
        let settings = &self.settings;
        Target::parse(url, &settings.networks, settings.plaintext_loopback)
    }

    /// How long sending once takes at most.
    pub fn total_timeout(&self) -> Duration {
        self.settings.total_timeout
    }

    /// Sends once. The head of the answer says it all: it is judged though its body never ends.
    pub async fn send(&self, target: &Target, outgoing: Outgoing<'_>) -> Sent {
        let began = Instant::now();
        let limit = outgoing.limit.min(self.settings.total_timeout);
        let asker = outgoing.asker.to_owned();
        let sending = ASKER.scope(asker, self.exchange(target, outgoing));
        let ended = tokio::time::timeout(limit, sending).await;
        let latency = began.elapsed();
        let (cause, status, retry_after) = match &ended {
            Ok(Ok(answer)) => judge(answer),
            Ok(Err(Failed::By(cause))) => (Some(*cause), None, None),
            Ok(Err(Failed::Busy)) => (Some(NotificationCause::Unreachable), None, None),
            Err(_) => (Some(NotificationCause::Timeout), None, None),
        };
        let busy = matches!(ended, Ok(Err(Failed::Busy)));
        if let Ok(Ok(answer)) = ended {
            let left = limit.saturating_sub(latency).min(DRAIN_TIMEOUT);
            // What has not ended by then is dropped, and its connection with it.
            let _ = tokio::time::timeout(left, drain(answer)).await;
        }
        Sent {
            cause,
            http_status: status.map(|status| status.as_u16()),
            retry_after,
            latency,
            busy,
        }
    }

    async fn exchange(&self, target: &Target, outgoing: Outgoing<'_>) -> Result<Response, Failed> {
        // An address in the URL itself is nobody's to resolve. It was judged when the endpoint was made, perhaps by
        // other settings.
        let allowed = |address| self.settings.networks.allow(address);
        if target.address().is_some_and(|address| !allowed(address)) {
            return Err(NotificationCause::AddressRefused.into());
        }
        let client = if target.is_tls() {
            self.encrypted.as_ref()
        } else {
            self.plaintext.as_ref()
        };
        let client = client.ok_or(NotificationCause::NotPrepared)?;
        let request = self.request(target, outgoing);
        let request = request.ok_or(NotificationCause::NotPrepared)?;
        let response = client.execute(request).await;
        response.map_err(|error| failed(&error))
    }

    /// `None` where a secret or header cannot be used.
    fn request(&self, target: &Target, outgoing: Outgoing<'_>) -> Option<Request> {
        let secrets = outgoing.secrets.iter();
        let secrets: Vec<_> = secrets.map(|secret| Secret::new(secret.expose())).collect();
        let signer = StandardWebhooks::signing(&secrets).ok()?;
        let (id, at) = (outgoing.id.to_string(), outgoing.at.timestamp());
        let signature = signer.sign(&id, at, &outgoing.body);
        let mut request = Request::new(Method::POST, target.url().clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("webhook-id", HeaderValue::from_str(&id).ok()?);
        headers.insert("webhook-timestamp", HeaderValue::from(at));
        headers.insert("webhook-signature", HeaderValue::from_str(&signature).ok()?);
        (self.trace)(headers);
        *request.body_mut() = Some(outgoing.body.into());
        Some(request)
    }
}

fn judge(
    answer: &Response,
) -> (
    Option<NotificationCause>,
    Option<StatusCode>,
    Option<Duration>,
) {
    let cause = match answer.status() {
        status if status.is_success() => None,
        StatusCode::GONE => Some(NotificationCause::Gone),
        status if status.is_redirection() => Some(NotificationCause::Redirect),
        _ => Some(NotificationCause::HttpStatus),
    };
    let longest = Duration::from_secs(MAX_RETRY_AFTER_SECONDS);
    let wait = cause.and_then(|_| retry_after(answer.headers(), longest));
    (cause, Some(answer.status()), wait)
}

/// Reads the answer's body as far as it is worth it, and drops it. The status has said all that counts.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}

fn failed(error: &reqwest::Error) -> Failed {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(found) = source {
        match found.downcast_ref::<Unresolved>() {
            Some(Unresolved::NoAddress) => return NotificationCause::NameNotResolved.into(),
            Some(Unresolved::Refused) => return NotificationCause::AddressRefused.into(),
            Some(Unresolved::Busy) => return Failed::Busy,
            None => source = found.source(),
        }
    }
    if error.is_connect() {
        return NotificationCause::Unreachable.into();
    }
    if error.is_timeout() {
        return NotificationCause::Timeout.into();
    }
    NotificationCause::ConnectionLost.into()
}

fn client(
    settings: &SenderSettings,
    is_tls: bool,
    resolver: Guarded,
) -> Result<Client, Box<dyn Error + Send + Sync>> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls(settings, is_tls)?)
        .http1_only()
        .https_only(is_tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.total_timeout)
        .pool_max_idle_per_host(MAX_IDLE)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(USER_AGENT)
        .dns_resolver(resolver)
        .build()?;
    Ok(client)
}

/// TLS by rustls with ring; the platform's roots and those that are configured. Plain HTTP gets an empty set.
fn tls(settings: &SenderSettings, is_tls: bool) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    if !is_tls {
        return Ok(builder
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth());
    }
    let authorities = settings.authorities.iter().cloned();
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(authorities, provider)?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
