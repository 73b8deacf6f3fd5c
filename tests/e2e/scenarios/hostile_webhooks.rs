//! Whoever may reach the address of webhooks may try anything there: each is refused with the right status, costs a
//! bounded amount of memory, and payments go on meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use quittance_proto::v1::PaymentState;
use reqwest::{Client as Http, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use toml::Value;

use crate::harness::adyen;
use crate::harness::process::ServerProcess;
use crate::harness::site::{ACCOUNT, PROVIDER_TIMEOUT_MS, account};
use crate::harness::tls::pki;
use crate::harness::webhooks::{OTHER_SECRET, Post, SECRET, client, now};
use crate::harness::{Client, Keyed as _, Site, SiteOptions, eventually, purchase};

/// Bytes of a body that are taken in, as the server is configured here.
const MAX_BODY: usize = 65_536;
/// Senders of each kind at once.
const SENDERS: usize = 24;
/// Connections that are opened and say nothing, or begin and never end.
const IDLE: usize = 150;
/// What all that may cost at most beside what the server needs anyway. The bodies that are held at once are
/// `SENDERS` × `MAX_BODY`, a fraction of it; what was sent is many times as much.
const MEMORY_LIMIT_KB: u64 = 96 * 1024;

/// A real server with one account.
async fn server(site: &Site) -> ServerProcess {
    let mut only = account(ACCOUNT, &site.sandbox.base_url(), PROVIDER_TIMEOUT_MS);
    only.insert("webhook_secrets".to_owned(), Value::from(vec![SECRET]));
    let max_body = i64::try_from(MAX_BODY).unwrap();
    let settings = vec![
        ("webhooks.max_body_bytes", Value::from(max_body)),
        ("webhooks.read_timeout_ms", Value::from(10_000)),
        ("server.tls.handshake_timeout_ms", Value::from(20_000)),
        ("providers.accounts", Value::from(vec![Value::from(only)])),
    ];
    ServerProcess::start(site, settings).await
}

fn endless() -> reqwest::Body {
    let piece = Bytes::from(vec![b'{'; 16_384]);
    let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
    reqwest::Body::wrap_stream(pieces)
}

/// How a request ended: with a status, or with a connection that was closed on whoever would not stop sending.
async fn status(request: reqwest::RequestBuilder) -> Option<StatusCode> {
    request.send().await.ok().map(|answer| answer.status())
}

async fn is_refused(request: reqwest::RequestBuilder, expected: StatusCode, what: &str) {
    if let Some(status) = status(request).await {
        assert_eq!(status, expected, "{what}");
    }
}

/// A TLS connection without a protocol above it.
async fn connected(at: SocketAddr) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = pki().ca_pem.as_bytes();
    for certificate in rustls::pki_types::pem::PemObject::pem_slice_iter(pem) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let stream = TcpStream::connect(at).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

/// Everything at once that is larger than allowed, or says that it is something that it is not.
async fn flood(http: &Http, at: SocketAddr) {
    let post = |id: &str, body: &[u8]| Post::signed(id, body, SECRET).request_by(http, at);
    let senders = (0..SENDERS).map(|number| {
        let http = http.clone();
        async move {
            let post = |id: &str, body: &[u8]| Post::signed(id, body, SECRET).request_by(&http, at);
            let too_large = StatusCode::PAYLOAD_TOO_LARGE;
            let large = post("evt_large", &vec![b' '; MAX_BODY + 1 + number]);
            // It is heard out, so whoever sent it learns why.
            assert_eq!(status(large).await, Some(too_large), "oversized");
            let huge = post("evt_huge", &vec![b' '; 8 * MAX_BODY]);
            is_refused(huge, too_large, "far oversized").await;
            let endless = post("evt_endless", b"").body(endless());
            is_refused(endless, too_large, "chunks without end").await;
            let bomb = post("evt_bomb", &vec![0x1f; MAX_BODY]).header("content-encoding", "gzip");
            is_refused(bomb, StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed").await;
        }
    });
    join_all(senders).await;
    for (encoding, what) in [
        ("br", "brotli"),
        ("gzip, gzip", "twice compressed"),
        ("x", "?"),
    ] {
        // A connection that was idle for ten seconds is closed, perhaps while it is used again: then over another.
        let bomb = || post("evt_bomb", b"{}").header("content-encoding", encoding);
        let answer = match status(bomb()).await {
            None => status(bomb()).await,
            answer => answer,
        };
        let refused = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(answer, refused, "{what}");
    }
}

/// What is no webhook: refused by what it is, or kept where the provider signed it.
async fn malformed(http: &Http, at: SocketAddr) {
    let post = |id: &str, body: &[u8]| Post::signed(id, body, SECRET);
    let (bad, kept) = (StatusCode::BAD_REQUEST, StatusCode::OK);
    for (name, body) in [
        ("nothing", &b""[..]),
        ("no JSON", b"hello"),
        ("half of it", b"{\"id\": \"evt_1\", \"type\""),
        ("not UTF-8", b"{\"id\":\"\xff\xfe\"}"),
        ("deep", &vec![b'['; 60_000][..]),
        ("an array", b"[1,2,3]"),
    ] {
        let sent = status(post("evt_bad", body).request_by(http, at)).await;
        assert_eq!(sent, Some(kept), "{name}");
    }
    // The signature decides, not what the header says about the type.
    let typed = post("evt_form", b"a=b").request_by(http, at);
    let typed = typed.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(status(typed).await, Some(kept));
    let unbelieved = [
        Post::signed_at("evt_1", b"{}", SECRET, now() - 600),
        Post::signed_at("evt_1", b"{}", SECRET, now() + 600),
        Post::signed("evt_1", b"{}", OTHER_SECRET),
    ];
    for post in unbelieved {
        let sent = status(post.request_by(http, at)).await;
        assert_eq!(sent, Some(StatusCode::UNAUTHORIZED));
    }
    let nobody = post("evt_1", b"{}").to("nobody").request_by(http, at);
    assert_eq!(status(nobody).await, Some(StatusCode::NOT_FOUND));
    let url = format!("https://{at}/webhooks/{ACCOUNT}");
    let wrong = [
        (http.get(&url), StatusCode::METHOD_NOT_ALLOWED),
        (http.post(format!("{url}/more")), StatusCode::NOT_FOUND),
        (http.post(format!("https://{at}/webhooks/%ff%fe")), bad),
        (http.post(&url), StatusCode::UNAUTHORIZED),
    ];
    for (request, expected) in wrong {
        let shown = format!("{request:?}");
        let sent = status(request).await;
        assert_eq!(sent, Some(expected), "{shown}");
    }
}

/// Connections that begin and never end: in the handshake, in the headers, in the body.
async fn dawdlers(at: SocketAddr) -> Vec<TlsStream<TcpStream>> {
    let head = format!("POST /webhooks/{ACCOUNT} HTTP/1.1\r\nhost: localhost\r\n");
    let begun = [
        String::new(),
        head.clone(),
        format!("{head}content-length: 100\r\n\r\n{{"),
        format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhe"),
    ];
    let opening = (0..IDLE).map(|number| {
        let begun = begun[number % begun.len()].clone();
        async move {
            let mut stream = connected(at).await;
            stream.write_all(begun.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            stream
        }
    });
    stream::iter(opening).buffer_unordered(16).collect().await
}

/// Payments that go on until told to stop: how many there were.
async fn payments(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut paid = 0;
    while !stop.load(Ordering::Relaxed) || paid == 0 {
        let request = purchase("tok_approve", 100).key(&format!("meanwhile-{paid}"));
        let payment = client.create(request).await;
        assert_eq!(payment.state(), PaymentState::Captured);
        paid += 1;
    }
    paid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s58_hostile_webhooks_are_refused_in_bounded_memory_while_payments_go_on() {
    let site = Site::new(SiteOptions::default()).await;
    let server = server(&site).await;
    let (http, at) = (client(), server.http_address());
    let unheard = purchase("tok_approve?status_after=500", 700);
    let pending = server.client.create(unheard).await;
    let event = site.sandbox.events(0, 10).events.remove(0);
    // What it needs for payments and for TLS is no part of it.
    malformed(&http, at).await;
    let before = server.peak_memory_kb();

    let stop = Arc::new(AtomicBool::new(false));
    let paying = tokio::spawn(payments(server.client.reconnected(), Arc::clone(&stop)));
    let idle = dawdlers(at).await;
    flood(&http, at).await;
    malformed(&http, at).await;
    let good = Post::of(&event).request_by(&http, at);
    assert_eq!(
        status(good).await,
        Some(StatusCode::OK),
        "in the midst of it"
    );
    eventually("what it says is applied", async || {
        let payment = server.client.payment(&pending.payment_id).await;
        (payment.state() == PaymentState::Captured).then_some(())
    })
    .await;
    // Whoever dawdles is answered or cut off: those that began a body are answered.
    let mut answered = 0;
    for mut stream in idle {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
        let _ = ended.await.expect("a connection that never ends");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
        answered += usize::from(!answer.is_empty());
    }
    assert!(answered > 0, "too slow, and told so");
    // The service goes on taking what is good: the same event again, which it knows.
    let repeated = Post::of(&event).request_by(&http, at);
    assert_eq!(status(repeated).await, Some(StatusCode::OK), "after it");
    stop.store(true, Ordering::Relaxed);
    let paid = paying.await.unwrap();
    let grown = server.peak_memory_kb().saturating_sub(before);
    println!("{paid} payments meanwhile; {grown} kB more at the peak, {before} kB before");
    assert!(grown < MEMORY_LIMIT_KB, "{grown} kB");
    let kept = "select count(*) from webhook_inbox where state <> 'DEAD'";
    assert_eq!(site.db.number(kept).await, 1, "nothing but the good one");
    let log = server.stop().await;
    assert!(!log.contains("panicked"), "{log}");
    // All of it is on record, and not one entry for each.
    let entries = "select count(*) from journal where event_type = 'access.refused'";
    let recorded = site.db.number(entries).await;
    assert!((9..=60).contains(&recorded), "{recorded}");
    let causes =
        "select distinct cause from journal where event_type = 'access.refused' order by 1";
    let causes = site.db.rows(causes, &[]).await;
    let causes: Vec<String> = causes.iter().map(|row| row.get(0)).collect();
    for cause in [
        "ENCODED",
        "METHOD",
        "PATH",
        "SIGNATURE_INVALID",
        "TOO_LARGE",
        "TOO_NEW",
        "TOO_OLD",
        "TOO_SLOW",
        "UNKNOWN_ACCOUNT",
        "UNREADABLE",
        "UNSIGNED",
    ] {
        assert!(
            causes.contains(&format!("WEBHOOK_{cause}")),
            "{cause}: {causes:?}"
        );
    }
    site.everything_agrees().await;
}

/// Adyen's signatures are inside of the body, so it is read before it is believed.
fn at_adyen() -> Vec<(&'static str, Vec<u8>)> {
    let batch = |items: &str| format!("{{\"live\":\"false\",\"notificationItems\":[{items}]}}");
    let one = |item: &str| batch(&format!("{{\"NotificationRequestItem\":{item}}}"));
    let many = |item: &str| {
        let count = (MAX_BODY - 60) / (item.len() + 1);
        batch(&vec![item; count].join(","))
    };
    let signed_as = |signature: &str| {
        one(&format!(
            "{{\"eventCode\":\"CAPTURE\",\"additionalData\":{{\"hmacSignature\":{signature}}}}}"
        ))
    };
    let deep = |open: &str| open.repeat(MAX_BODY / 2 / open.len());
    let zeros = vec!["0"; MAX_BODY / 2 - 100].join(",");
    let forged = {
        let mut item = theirs("hostile");
        item["amount"]["value"] = json!(1);
        one(&item.to_string())
    };
    let twice = one("{\"success\":\"true\",\"success\":\"false\"}");
    let texts = [
        ("nothing", String::new()),
        ("no JSON", "hello".to_owned()),
        (
            "half of it",
            "{\"live\":\"false\",\"notificationItems\":[{".to_owned(),
        ),
        ("an array", "[1,2,3]".to_owned()),
        ("no items", batch("")),
        (
            "items without end",
            many("{\"NotificationRequestItem\":{}}"),
        ),
        ("items that are none", many("0")),
        ("deep", deep("[")),
        ("deep inside", one(&deep("{\"a\":"))),
        ("deep where the signature is", signed_as(&deep("["))),
        ("a list for a signature", signed_as(&format!("[{zeros}]"))),
        (
            "a long signature",
            signed_as(&format!("\"{}\"", "A".repeat(MAX_BODY / 2))),
        ),
        ("no base64", signed_as("\"\\u0000\"")),
        ("a field that is there twice", twice),
        ("unsigned", one("{\"eventCode\":\"CAPTURE\"}")),
        ("forged", forged),
    ];
    let mut all: Vec<_> = texts.map(|(name, text)| (name, text.into_bytes())).into();
    all.push(("not UTF-8", b"{\"live\":\"\xff\xfe\"}".to_vec()));
    all
}

/// Signed, and about a payment that somebody else made through the account.
fn theirs(reference: &str) -> serde_json::Value {
    adyen::signed(json!({
        "eventCode": "AUTHORISATION", "success": "true", "pspReference": "THEIRS0000000001",
        "originalReference": null, "merchantReference": reference,
        "merchantAccountCode": adyen::MERCHANT_ACCOUNT,
        "amount": {"currency": "EUR", "value": 100}, "reason": "",
    }))
}

/// A real server with an account at Adyen, of which nothing is asked here.
async fn server_at_adyen(site: &Site) -> ServerProcess {
    let mut only = account(adyen::ADYEN, &site.sandbox.base_url(), PROVIDER_TIMEOUT_MS);
    for (key, value) in [
        ("kind", Value::from("adyen")),
        ("merchant_account", Value::from(adyen::MERCHANT_ACCOUNT)),
        ("webhook_secrets", Value::from(vec![adyen::HMAC_KEY])),
    ] {
        only.insert(key.to_owned(), value);
    }
    let max_body = i64::try_from(MAX_BODY).unwrap();
    let settings = vec![
        ("webhooks.max_body_bytes", Value::from(max_body)),
        ("providers.accounts", Value::from(vec![Value::from(only)])),
    ];
    ServerProcess::start(site, settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s58_hostile_bodies_at_adyen_s_address_are_refused_in_bounded_memory() {
    let site = Site::new(SiteOptions::default()).await;
    let server = server_at_adyen(&site).await;
    let (http, at) = (client(), server.http_address());
    let deliver = async |body: Vec<u8>| {
        let post = Post {
            account: adyen::ADYEN,
            id: None,
            timestamp: None,
            signature: None,
            body,
        };
        status(post.request_by(&http, at)).await
    };
    let refused = async || {
        for (name, body) in at_adyen() {
            let sent = deliver(body).await;
            assert_eq!(sent, Some(StatusCode::UNAUTHORIZED), "{name}");
        }
    };
    refused().await;
    let before = server.peak_memory_kb();
    join_all((0..SENDERS).map(|_| refused())).await;
    let too_large = deliver(vec![b'['; MAX_BODY + 1]).await;
    assert_eq!(too_large, Some(StatusCode::PAYLOAD_TOO_LARGE));
    let grown = server.peak_memory_kb().saturating_sub(before);
    println!("{grown} kB more at the peak, {before} kB before");
    assert!(grown < MEMORY_LIMIT_KB, "{grown} kB");
    let stored = "select count(*) from webhook_inbox";
    assert_eq!(site.db.number(stored).await, 0);

    // One that is signed is kept once, whatever is varied that is not signed.
    for reference in ["order-3", "order:3"] {
        for reason in ["", "one", "another"] {
            let mut item = theirs(reference);
            item["reason"] = json!(reason);
            let batch = json!({"live": "false", "more": reason,
                "notificationItems": [{"NotificationRequestItem": item}]});
            let sent = deliver(batch.to_string().into_bytes()).await;
            assert_eq!(sent, Some(StatusCode::OK), "{reference}");
        }
    }
    assert_eq!(site.db.number(stored).await, 2, "both once");
    let log = server.stop().await;
    assert!(!log.contains("panicked"), "{log}");
}
