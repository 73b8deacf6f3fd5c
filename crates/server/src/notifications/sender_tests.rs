//! Sending over real connections: what is judged, what is connected to, and what an answer means.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use quittance_domain::webhook::Delivery;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;

const SECRETS: [&str; 2] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_bmV4dC1zZWNyZXQtbmV4dC1zZWNyZXQtbmV4dA==",
];
const BODY: &[u8] = br#"{"type":"payment.captured"}"#;

/// A receiver that gives the same answer to everybody, and keeps what it was sent.
struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn answering(answer: &str) -> Self {
        Self::on(Ipv4Addr::LOCALHOST, 0, answer).await
    }

    /// It says no more after the answer, and never hangs up.
    async fn holding_open(answer: &str) -> Self {
        Self::serving(Ipv4Addr::LOCALHOST, 0, answer, true).await
    }

    async fn on(ip: Ipv4Addr, port: u16, answer: &str) -> Self {
        Self::serving(ip, port, answer, false).await
    }

    async fn serving(ip: Ipv4Addr, port: u16, answer: &str, open: bool) -> Self {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (kept, answer) = (Arc::clone(&requests), answer.to_owned());
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), answer.clone());
                tokio::spawn(async move {
                    let mut bytes = vec![0; 65_536];
                    let mut read = 0;
                    while !bytes[..read].ends_with(BODY) {
                        match connection.read(&mut bytes[read..]).await {
                            Ok(0) | Err(_) => return,
                            Ok(more) => read += more,
                        }
                    }
                    kept.lock()
                        .push(String::from_utf8(bytes[..read].to_vec()).unwrap());
                    // The sender may hang up in the middle.
                    let _ = connection.write_all(answer.as_bytes()).await;
                    if open {
                        // Until the sender hangs up.
                        let _ = connection.read(&mut bytes).await;
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    fn header(&self, name: &str) -> Option<String> {
        let requests = self.requests.lock();
        let lines = requests.last()?.lines();
        let mut values = lines.filter_map(|line| line.split_once(": "));
        let found = values.find(|(known, _)| *known == name)?;
        Some(found.1.to_owned())
    }
}

/// A limit that no busy machine comes to.
const LONG: Duration = Duration::from_secs(60);

fn settings(networks: &[&str]) -> SenderSettings {
    let parsed = networks.iter().map(|text| text.parse().unwrap());
    SenderSettings {
        connect_timeout: LONG,
        total_timeout: LONG,
        networks: AllowedNetworks(parsed.collect()),
        plaintext_loopback: true,
        authorities: Vec::new(),
    }
}

fn local() -> Sender {
    Sender::new(settings(&["127.0.0.0/8"]), |_| {})
}

async fn send(sender: &Sender, url: &str, limit: Duration) -> Sent {
    let secrets = SECRETS.map(|secret| Sensitive::new(secret.to_owned()));
    let outgoing = Outgoing {
        asker: "shop",
        id: NotificationId(Uuid::from_u128(7)),
        at: DateTime::from_timestamp(1_614_265_330, 0).unwrap(),
        secrets: &secrets,
        body: BODY.to_vec(),
        limit,
    };
    sender.send(&sender.target(url).unwrap(), outgoing).await
}

async fn answered(answer: &str) -> Sent {
    let receiver = Receiver::answering(answer).await;
    send(&local(), &receiver.url(), LONG).await
}

#[tokio::test]
async fn a_notification_is_signed_under_every_live_secret() {
    let receiver = Receiver::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let sent = send(&local(), &receiver.url(), LONG).await;
    assert_eq!((sent.cause, sent.http_status), (None, Some(204)));
    let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let [id, at, signatures] = headers.map(|name| receiver.header(name).unwrap());
    assert_eq!(id, Uuid::from_u128(7).to_string());
    assert_eq!(at, "1614265330");
    assert_eq!(signatures.split(' ').count(), 2);
    let content = receiver.header("content-type");
    assert_eq!(content.as_deref(), Some("application/json"));
    for secret in SECRETS {
        let verifier = StandardWebhooks::new(&[Secret::new(secret)]).unwrap();
        let header = |name: &str| match name {
            "webhook-id" => Some(id.as_str()),
            "webhook-timestamp" => Some(at.as_str()),
            "webhook-signature" => Some(signatures.as_str()),
            _ => None,
        };
        let delivery = Delivery {
            header: &header,
            body: BODY,
            received_at: DateTime::from_timestamp(1_614_265_331, 0).unwrap(),
        };
        assert!(verifier.verify(&delivery).is_ok());
    }
}

#[tokio::test]
async fn what_an_answer_means() {
    use NotificationCause::{Gone, HttpStatus, Redirect};
    for (status, cause) in [
        (200, None),
        (202, None),
        (301, Some(Redirect)),
        (302, Some(Redirect)),
        (307, Some(Redirect)),
        (400, Some(HttpStatus)),
        (401, Some(HttpStatus)),
        (410, Some(Gone)),
        (429, Some(HttpStatus)),
        (500, Some(HttpStatus)),
        (503, Some(HttpStatus)),
    ] {
        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n");
        let sent = answered(&answer).await;
        assert_eq!((sent.cause, sent.http_status), (cause, Some(status)));
        assert_eq!(sent.retry_after, None);
    }
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n";
    let sent = answered(busy).await;
    assert_eq!(sent.retry_after, Some(Duration::from_secs(120)));
    // As long as the settings may allow.
    for (asked, expected) in [(7_200, 7_200), (86_400, 86_400), (86_401, 86_400)] {
        let busy =
            format!("HTTP/1.1 503 Busy\r\nretry-after: {asked}\r\ncontent-length: 0\r\n\r\n");
        let sent = answered(&busy).await;
        assert_eq!(sent.retry_after, Some(Duration::from_secs(expected)));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let answer = format!(
        "HTTP/1.1 307 Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url()
    );
    let sent = answered(&answer).await;
    assert_eq!(sent.cause, Some(NotificationCause::Redirect));
    assert_eq!(elsewhere.requests.lock().len(), 0);
}

#[tokio::test]
async fn an_answer_is_read_within_bounds_and_does_not_count() {
    // It announces a gigabyte, sends some of it, and goes on for ever.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
    let sent = answered(&format!("{head}{}", "x".repeat(2 * MAX_ANSWER_BYTES))).await;
    assert_eq!((sent.cause, sent.http_status), (None, Some(200)));
}

#[tokio::test]
async fn an_answer_counts_though_its_body_never_ends() {
    for (status, cause) in [(200, None), (410, Some(NotificationCause::Gone))] {
        let head = format!("HTTP/1.1 {status} So\r\ntransfer-encoding: chunked\r\n\r\n");
        // The first chunk, and then nothing: the connection stays open.
        let answer = format!("{head}2\r\nok\r\n");
        let receiver = Receiver::holding_open(&answer).await;
        let sent = send(&local(), &receiver.url(), LONG).await;
        assert_eq!((sent.cause, sent.http_status), (cause, Some(status)));
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_given_up() {
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let sent = send(&local(), &url, Duration::from_millis(50)).await;
    assert_eq!(sent.cause, Some(NotificationCause::Timeout));
    drop(silent);
    let sent = send(&local(), &url, LONG).await;
    assert_eq!(sent.cause, Some(NotificationCause::Unreachable));
}

/// Names that lead elsewhere each time they are asked for.
struct Rebinding {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Names for Rebinding {
    async fn addresses(&self, asker: &str, _: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(asker, "shop");
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.get(number).cloned();
        answer.ok_or_else(|| io::Error::other("no such name"))
    }
}

#[tokio::test]
async fn a_name_that_is_bound_anew_leads_to_nothing_that_was_not_judged() {
    let good = Receiver::answering("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
    let port = good.address.port();
    // The same port of another address of this host, which is not allowed.
    let inner = Receiver::on(Ipv4Addr::new(127, 0, 0, 2), port, "HTTP/1.1 200 OK\r\n\r\n").await;
    let [allowed, refused] = ["127.0.0.1", "127.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let names = Arc::new(Rebinding {
        answers: vec![
            vec![allowed],
            vec![refused],
            // Hidden among good ones, and as an address within another.
            vec![allowed, refused],
            vec!["::ffff:127.0.0.2".parse().unwrap()],
            vec![],
        ],
        asked: AtomicUsize::new(0),
    });
    let resolver: Arc<dyn Names> = Arc::<Rebinding>::clone(&names);
    let sender = Sender::with_names(settings(&["127.0.0.1/32"]), |_| {}, &resolver);
    let url = format!("http://localhost:{port}/");
    let mut causes = Vec::new();
    for _ in 0..6 {
        causes.push(send(&sender, &url, LONG).await.cause);
    }
    let refused = Some(NotificationCause::AddressRefused);
    let none = Some(NotificationCause::NameNotResolved);
    assert_eq!(causes, [None, refused, refused, refused, none, none]);
    assert_eq!(
        names.asked.load(Ordering::SeqCst),
        6,
        "once for each connection"
    );
    assert_eq!(inner.requests.lock().len(), 0);
    assert_eq!(good.requests.lock().len(), 1);
}

#[tokio::test]
async fn an_address_in_a_url_is_judged_again_when_it_is_sent_to() {
    let receiver = Receiver::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let target = local().target(&receiver.url()).unwrap();
    // The settings have changed since.
    let sender = Sender::new(settings(&[]), |_| {});
    assert!(sender.target(&receiver.url()).is_err());
    let outgoing = Outgoing {
        asker: "shop",
        id: NotificationId(Uuid::from_u128(7)),
        at: DateTime::UNIX_EPOCH,
        secrets: &[Sensitive::new(SECRETS[0].to_owned())],
        body: BODY.to_vec(),
        limit: LONG,
    };
    let sent = sender.send(&target, outgoing).await;
    assert_eq!(sent.cause, Some(NotificationCause::AddressRefused));
    assert_eq!(receiver.requests.lock().len(), 0);
}

/// A receiver with a certificate for `localhost`, by an authority of its own.
async fn encrypted() -> (u16, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // Whoever does not trust it hangs up.
            let Ok(mut connection) = acceptor.accept(connection).await else {
                continue;
            };
            let mut bytes = [0; 4_096];
            let _ = connection.read(&mut bytes).await;
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let _ = connection.write_all(answer).await;
            let _ = connection.shutdown().await;
        }
    });
    (port, certificate)
}

#[tokio::test]
async fn a_certificate_is_verified_and_an_authority_can_be_added() {
    let (port, certificate) = encrypted().await;
    let names = || -> Arc<dyn Names> {
        Arc::new(Rebinding {
            answers: vec![vec![Ipv4Addr::LOCALHOST.into()]; 2],
            asked: AtomicUsize::new(0),
        })
    };
    let url = format!("https://localhost:{port}/");
    let strict = Sender::with_names(settings(&["127.0.0.1"]), |_| {}, &names());
    let sent = send(&strict, &url, LONG).await;
    assert_eq!(sent.cause, Some(NotificationCause::Unreachable));
    let trusting = SenderSettings {
        authorities: vec![certificate],
        ..settings(&["127.0.0.1"])
    };
    let trusting = Sender::with_names(trusting, |_| {}, &names());
    let sent = send(&trusting, &url, LONG).await;
    assert_eq!((sent.cause, sent.http_status), (None, Some(200)));
    // The certificate is not for this name.
    let other = format!("https://other.example:{port}/");
    let sent = send(&trusting, &other, LONG).await;
    assert_eq!(sent.cause, Some(NotificationCause::Unreachable));
}
