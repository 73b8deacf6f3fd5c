//! Connections over real sockets: TLS, limits, and stopping.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, ServiceExt as _};

use super::*;
use crate::config::TlsFiles;
use crate::dev::{CA_FILE, DataDir, issue_certificate};

/// How long a test waits for what should happen at once.
const SOON: Duration = Duration::from_secs(60);

/// The health service, after `go` has a permit.
#[derive(Clone)]
struct Gated {
    routes: tonic::service::Routes,
    go: Arc<Semaphore>,
    /// Gets a permit for every call that arrives.
    arrived: Arc<Semaphore>,
}

impl Service<Request<Body>> for Gated {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (go, routes) = (Arc::clone(&self.go), self.routes.clone());
        self.arrived.add_permits(1);
        Box::pin(async move {
            drop(go.acquire().await);
            routes.oneshot(request).await
        })
    }
}

struct Fixture {
    directory: DataDir,
    address: SocketAddr,
    go: Arc<Semaphore>,
    arrived: Arc<Semaphore>,
    stop: CancellationToken,
    kill: CancellationToken,
    tracker: TaskTracker,
    _parent: tempfile::TempDir,
}

async fn fixture(max_connections: usize, go: usize) -> Fixture {
    fixture_with(max_connections, go, SOON).await
}

async fn fixture_with(max_connections: usize, go: usize, handshake_timeout: Duration) -> Fixture {
    let parent = tempfile::tempdir().unwrap();
    let directory = DataDir::open(parent.path()).unwrap();
    let files = issue_certificate(&directory).unwrap();
    let listener = Listener::bind(ListenerSettings {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: Some(acceptor(&files, Alpn::Http2).unwrap()),
        handshake_timeout,
        max_connections,
    })
    .await
    .unwrap();
    let address = listener.address();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let service = Gated {
        routes: tonic::service::Routes::new(health),
        go: Arc::new(Semaphore::new(go)),
        arrived: Arc::new(Semaphore::new(0)),
    };
    let (go, arrived) = (Arc::clone(&service.go), Arc::clone(&service.arrived));
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let settings = Http2Settings {
        preface_timeout: handshake_timeout,
        max_concurrent_streams: 10,
        max_header_list_size: 16_384,
        keepalive_interval: SOON,
        keepalive_timeout: SOON,
    };
    let tracker = TaskTracker::new();
    let (stopped, killed) = (stop.clone(), kill.clone());
    tokio::spawn(
        listener.run(stop.clone(), tracker.clone(), move |connection| {
            serve_grpc(
                connection,
                service.clone(),
                settings.clone(),
                stopped.clone(),
                killed.clone(),
            )
        }),
    );
    Fixture {
        directory,
        address,
        go,
        arrived,
        stop,
        kill,
        tracker,
        _parent: parent,
    }
}

impl Fixture {
    async fn client(&self) -> HealthClient<Channel> {
        self.try_client().await.unwrap()
    }

    /// On a busy machine an honest handshake may be too slow as well.
    async fn client_in_time(&self) -> HealthClient<Channel> {
        let connecting = async {
            loop {
                if let Ok(client) = self.try_client().await {
                    return client;
                }
            }
        };
        tokio::time::timeout(SOON, connecting).await.unwrap()
    }

    async fn try_client(&self) -> Result<HealthClient<Channel>, tonic::transport::Error> {
        let ca = Certificate::from_pem(self.directory.read(CA_FILE).unwrap().unwrap());
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", self.address.port()))
            .unwrap()
            .tls_config(ClientTlsConfig::new().ca_certificate(ca))
            .unwrap();
        endpoint.connect().await.map(HealthClient::new)
    }

    async fn call_arrived(&self) {
        tokio::time::timeout(SOON, self.arrived.acquire())
            .await
            .unwrap()
            .unwrap()
            .forget();
    }

    async fn all_ended(&self) {
        self.tracker.close();
        tokio::time::timeout(SOON, self.tracker.wait())
            .await
            .unwrap();
    }
}

fn connector(fixture: &Fixture, alpn: &[u8]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(fixture.directory.path(CA_FILE)).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn a_call_in_flight_finishes_while_new_connections_are_refused() {
    let f = fixture(10, 0).await;
    let mut client = f.client().await;
    let call = tokio::spawn(async move { client.check(HealthCheckRequest::default()).await });
    f.call_arrived().await;
    f.stop.cancel();
    f.go.add_permits(1);
    let answered = tokio::time::timeout(SOON, call).await.unwrap().unwrap();
    assert!(answered.is_ok(), "{answered:?}");
    f.all_ended().await;
    assert!(TcpStream::connect(f.address).await.is_err());
}

#[tokio::test]
async fn a_killed_connection_does_not_wait_for_its_calls() {
    let f = fixture(10, 0).await;
    let mut client = f.client().await;
    let call = tokio::spawn(async move { client.check(HealthCheckRequest::default()).await });
    f.call_arrived().await;
    f.stop.cancel();
    f.kill.cancel();
    f.all_ended().await;
    assert!(
        tokio::time::timeout(SOON, call)
            .await
            .unwrap()
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn the_certificate_is_for_every_name_of_this_machine_and_only_h2_is_spoken() {
    let f = fixture(10, 1).await;
    for name in ["localhost", "127.0.0.1", "::1"] {
        let stream = TcpStream::connect(f.address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let secured = connector(&f, b"h2").connect(name, stream).await.unwrap();
        assert_eq!(secured.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
    let stream = TcpStream::connect(f.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    assert!(
        connector(&f, b"http/1.1")
            .connect(name, stream)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_slow_handshake_is_cut_and_its_place_is_free_again() {
    let f = fixture_with(1, 1, Duration::from_millis(300)).await;
    let mut idle = TcpStream::connect(f.address).await.unwrap();
    idle.write_all(b"\x16\x03\x01").await.unwrap();
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(SOON, idle.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(
        cut.is_err() || rest.len() < 16,
        "nothing but an alert comes back"
    );
    let mut client = f.client_in_time().await;
    let answer = client.check(HealthCheckRequest::default()).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// A peer that has made its TLS handshake.
async fn secured(f: &Fixture) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(f.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    connector(f, b"h2").connect(name, stream).await
}

#[tokio::test]
async fn who_says_nothing_after_the_handshake_is_cut_and_its_place_is_free_again() {
    let f = fixture_with(1, 1, Duration::from_millis(300)).await;
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut silent = loop {
            // On a busy machine an honest handshake may be too slow as well.
            if let Ok(secured) = secured(&f).await {
                break secured;
            }
        };
        silent.write_all(said).await.unwrap();
        let mut rest = Vec::new();
        let cut = tokio::time::timeout(SOON, silent.read_to_end(&mut rest)).await;
        assert!(cut.is_ok(), "it is kept");
    }
    let mut client = f.client_in_time().await;
    let answer = client.check(HealthCheckRequest::default()).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// One that never begins, one that has begun and is not there any more, and one that leaves when it is told.
#[tokio::test]
async fn a_stopping_server_does_not_wait_for_those_who_have_no_call_open() {
    let f = fixture(10, 1).await;
    let silent = secured(&f).await.unwrap();
    let mut gone = secured(&f).await.unwrap();
    gone.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut settings = [0; 9];
    gone.read_exact(&mut settings).await.unwrap();
    let mut client = f.client().await;
    let answer = client.check(HealthCheckRequest::default()).await;
    assert!(answer.is_ok(), "{answer:?}");
    f.stop.cancel();
    f.all_ended().await;
    drop((silent, gone));
}

/// Answers of so many bytes, which no buffer on the way holds.
const LONG: usize = 64 * 1_024;

/// A peer of a server that gives long answers, and cuts whoever does not take them in this time.
fn asked(take_timeout: Duration) -> (DuplexStream, JoinHandle<()>) {
    let (peer, stream) = tokio::io::duplex(1_024);
    let long = || async { "~".repeat(LONG) };
    let router = axum::Router::new().route("/", axum::routing::get(long));
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let stop = CancellationToken::new();
    let serving = serve_http1(stream, address, router, take_timeout, stop);
    (peer, tokio::spawn(serving))
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn who_asks_and_never_reads_or_reads_byte_by_byte_loses_its_connection() {
    for reads in [false, true] {
        let (mut peer, serving) = asked(Duration::from_millis(200));
        peer.write_all(&ASK.repeat(8)).await.unwrap();
        let slowly = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while reads && peer.read_u8().await.is_ok() {
                ticks.tick().await;
            }
            std::future::pending::<DuplexStream>().await
        });
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
        slowly.abort();
    }
}

#[tokio::test]
async fn who_takes_every_answer_keeps_its_connection() {
    let (mut peer, serving) = asked(10 * SOON);
    for _ in 0..20 {
        peer.write_all(ASK).await.unwrap();
        let mut taken = 0;
        while taken < LONG {
            let mut part = [0; 4_096];
            let read = peer.read(&mut part).await.unwrap();
            assert!(read > 0, "cut off");
            let filling = part[..read].iter().filter(|byte| **byte == b'~');
            taken += filling.copied().map(|_| 1).sum::<usize>();
        }
    }
    assert!(!serving.is_finished());
    serving.abort();
}

#[tokio::test]
async fn what_is_no_certificate_is_named_by_its_setting() {
    let f = fixture(1, 1).await;
    let missing = TlsFiles {
        certificate: "/no/such.pem".into(),
        key: "/no/such.key".into(),
    };
    let text = |files: &TlsFiles| {
        acceptor(files, Alpn::Http1)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(text(&missing).starts_with("server.tls.certificate_file: cannot read /no/such.pem"));
    let ca = f.directory.path(CA_FILE);
    let mixed = TlsFiles {
        certificate: ca,
        key: f.directory.path("server-key.pem"),
    };
    assert!(text(&mixed).starts_with("server.tls: the certificate and its key cannot be used"));
}
