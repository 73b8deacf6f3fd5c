//! What a connection that cannot be made proves, over real sockets, and what spans tell about it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use crate::support::builders;
use crate::support::server::{Act, Scripted, response};
use quittance_domain::decline::Cause;
use quittance_domain::ports::{Provider as _, ProviderRules as _};
use quittance_domain::transaction::{OperationKind, SendOutcome, SendReport};
use quittance_providers::config::{ProviderAccountConfig, Secret};
use quittance_providers::sandbox::Sandbox;
use rcgen::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::rustls;
use tracing::Dispatch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

const TOKEN: &str = "tok_approve?latency_ms=1";
const KEY: &str = "sandbox-secret-key";

async fn send(base_url: &str, connect_timeout: Duration, send: u32) -> SendReport {
    let config = ProviderAccountConfig {
        connect_timeout_ms: u64::try_from(connect_timeout.as_millis()).unwrap(),
        total_timeout_ms: 100_000,
        allow_plaintext: true,
        ..ProviderAccountConfig::new(
            "sandbox",
            quittance_providers::sandbox::KIND,
            base_url,
            Secret::new(KEY),
        )
    };
    let sandbox = Sandbox::new(&config, |_| {}).unwrap();
    let payment = builders::payment(TOKEN, None);
    let transaction = builders::transaction(&payment, OperationKind::Purchase, 1000);
    let asked = builders::operation(OperationKind::Purchase, &payment, &transaction, &[]);
    let request = sandbox.prepare(&asked).unwrap();
    sandbox.send(&request, send).await
}

/// Ample: only the cases that wait for it use less.
const CONNECT: Duration = Duration::from_secs(50);

async fn not_sent(base_url: &str, connect_timeout: Duration, cause: Cause) {
    let report = send(base_url, connect_timeout, 1).await;
    assert_eq!(report.outcome, SendOutcome::NotSent(cause), "{base_url}");
    assert_eq!(
        (report.http_status, report.response),
        (None, None),
        "{base_url}"
    );
}

#[tokio::test]
async fn a_tls_handshake_that_never_ends_is_a_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    not_sent(&url, Duration::from_millis(300), Cause::ConnectTimeout).await;
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_not_sent() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let peer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(answer).await;
        };
        tokio::join!(peer, not_sent(&url, CONNECT, Cause::TlsHandshake));
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_sent() {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let peer = async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(
            acceptor.accept(stream).await.is_err(),
            "the client accepted the certificate"
        );
    };
    tokio::join!(peer, not_sent(&url, CONNECT, Cause::TlsHandshake));
}

/// Everything that spans were told, by field.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, String>>>);

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}").trim_matches('"').to_owned();
        self.0
            .lock()
            .unwrap()
            .insert(field.name().to_owned(), value);
    }
}

impl<S: tracing::Subscriber> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if attributes.metadata().target().starts_with("quittance") {
            attributes.record(&mut self.clone());
        }
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
        values.record(&mut self.clone());
    }
}

/// A place in the code that another test's thread comes to first asks every subscriber whether it is wanted; but where
/// there is only one, that thread's own, which is none. So there are always two.
static ANOTHER: LazyLock<Dispatch> =
    LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

#[tokio::test]
async fn each_attempt_has_a_client_span_without_secrets() {
    LazyLock::force(&ANOTHER);
    let fields = async |status, number| {
        let server = Scripted::start(vec![Act::Answer(response(status, "", "{}"))]).await;
        let seen = Seen::default();
        let subscriber = tracing_subscriber::registry().with(seen.clone());
        let guard = tracing::subscriber::set_default(subscriber);
        send(&server.base_url(), CONNECT, number).await;
        drop(guard);
        let fields = seen.0.lock().unwrap().clone();
        assert_eq!(fields["server.port"], server.port().to_string());
        fields
    };
    let first = fields(503, 1).await;
    assert_eq!(first["otel.kind"], "client");
    assert_eq!(first["otel.name"], "POST /v1/payments");
    assert_eq!(first["http.request.method"], "POST");
    assert_eq!(first["server.address"], "127.0.0.1");
    assert_eq!(first["http.response.status_code"], "503");
    assert_eq!(first["error.type"], "PROVIDER_ERROR");
    assert!(!first.contains_key("http.request.resend_count"));

    let second = fields(429, 2).await;
    assert_eq!(second["http.request.resend_count"], "1");
    assert_eq!(second["error.type"], "RATE_LIMITED");
    let shown = format!("{first:?}{second:?}");
    assert!(!shown.contains("tok_") && !shown.contains(KEY), "{shown}");
}
