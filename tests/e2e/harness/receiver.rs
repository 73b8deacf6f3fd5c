//! Plays a tenant's receiver of notifications: it verifies each by its signature, and answers as it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the receiver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With this status, and these further header lines.
    Status(u16, String),
    /// 200, after a while.
    Slow(Duration),
    /// With this status, once it is let go; not at all to whoever hangs up before.
    Withheld(u16),
    /// Not at all: it hangs up.
    HangUp,
    /// Not at all: it waits until the sender hangs up.
    Never,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::Status(status, String::new())
    }
}

/// A notification as it came in.
#[derive(Debug, Clone)]
pub struct Got {
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`.
    pub timestamp: String,
    /// `webhook-signature`.
    pub signature: String,
    /// Every header, by its name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, byte by byte.
    pub body: Vec<u8>,
    /// The status that it was answered with.
    pub status: u16,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn event_type(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    pub fn payment(&self) -> String {
        let json = self.json();
        json["data"]["payment_id"].as_str().unwrap().to_owned()
    }

    pub fn entity_seq(&self) -> u64 {
        self.json()["data"]["entity_seq"].as_u64().unwrap()
    }

    /// Whether one of its signatures is that of this secret.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap());
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.unwrap()).unwrap();
        mac.update(format!("{}.{}.", self.id, self.timestamp).as_bytes());
        mac.update(&self.body);
        let expected = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
        self.signature.split(' ').any(|given| given == expected)
    }
}

struct Inside {
    answer: Mutex<Answer>,
    got: Mutex<Vec<Got>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    let_go: watch::Sender<bool>,
    waited_in_vain: AtomicUsize,
}

/// A receiver that listens on loopback.
pub struct Receiver {
    address: SocketAddr,
    inside: Arc<Inside>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Inside {
            answer: Mutex::new(Answer::status(200)),
            got: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            let_go: watch::Sender::new(false),
            waited_in_vain: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&inside);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&shared)));
            }
        });
        Self { address, inside }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// From now on it answers so.
    pub fn answers(&self, answer: Answer) {
        *self.inside.answer.lock().unwrap() = answer;
    }

    /// Gives the answers that are withheld, and withholds none any more.
    pub fn lets_go(&self) {
        self.inside.let_go.send_replace(true);
    }

    /// How often a sender hung up on an answer that was withheld.
    pub fn waited_in_vain(&self) -> usize {
        self.inside.waited_in_vain.load(Ordering::SeqCst)
    }

    /// Everything that came in, in this order.
    pub fn got(&self) -> Vec<Got> {
        self.inside.got.lock().unwrap().clone()
    }

    /// What it took, in the order in which it took it.
    pub fn taken(&self) -> Vec<Got> {
        let mut got = self.got();
        got.retain(|one| one.status == 200);
        got
    }

    /// How many different notifications it took.
    pub fn different(&self) -> usize {
        let ids: BTreeSet<_> = self.taken().into_iter().map(|one| one.id).collect();
        ids.len()
    }

    /// How many it is at.
    pub fn at_once(&self) -> usize {
        self.inside.at_once.load(Ordering::SeqCst)
    }

    /// How many it was at, at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.inside.most_at_once.load(Ordering::SeqCst)
    }

    /// The numbers of the events that were taken, by payment, each the first time that it was.
    #[track_caller]
    pub fn in_order(&self) -> BTreeMap<String, Vec<u64>> {
        let mut seen = BTreeMap::<String, String>::new();
        let mut numbers = BTreeMap::<String, Vec<u64>>::new();
        for one in self.taken() {
            let key = format!("{} {}", one.payment(), one.entity_seq());
            let known = seen.entry(key).or_insert_with(|| one.id.clone());
            assert_eq!(*known, one.id, "an event has one id");
            let of_payment = numbers.entry(one.payment()).or_default();
            if !of_payment.contains(&one.entity_seq()) {
                of_payment.push(one.entity_seq());
            }
        }
        for (payment, numbers) in &numbers {
            assert!(numbers.is_sorted(), "{payment}: {numbers:?}");
        }
        numbers
    }
}

/// Serves one connection, request by request.
async fn serve(mut connection: TcpStream, inside: Arc<Inside>) {
    let mut bytes = Vec::new();
    while let Some((head, body)) = request(&mut connection, &mut bytes).await {
        let now = inside.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        inside.most_at_once.fetch_max(now, Ordering::SeqCst);
        let answer = inside.answer.lock().unwrap().clone();
        let (status, lines) = match answer {
            Answer::Status(status, lines) => (status, lines),
            Answer::Slow(wait) => {
                tokio::time::sleep(wait).await;
                (200, String::new())
            }
            Answer::Withheld(status) => {
                let mut let_go = inside.let_go.subscribe();
                let mut nothing = [0];
                let waits = tokio::select! {
                    _ = let_go.wait_for(|let_go| *let_go) => true,
                    _ = connection.read(&mut nothing) => false,
                };
                if !waits {
                    inside.waited_in_vain.fetch_add(1, Ordering::SeqCst);
                    inside.at_once.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
                (status, String::new())
            }
            Answer::Never => {
                let _ = connection.read(&mut [0]).await;
                inside.at_once.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            Answer::HangUp => {
                inside.got.lock().unwrap().push(got(head, body, 0));
                inside.at_once.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        };
        // Before the answer: a sender that is killed while it reads it has delivered.
        inside.got.lock().unwrap().push(got(head, body, status));
        inside.at_once.fetch_sub(1, Ordering::SeqCst);
        let text = format!("HTTP/1.1 {status} So\r\n{lines}content-length: 0\r\n\r\n");
        if connection.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn got(headers: BTreeMap<String, String>, body: Vec<u8>, status: u16) -> Got {
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    Got {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body,
        status,
        headers,
    }
}

/// The next request: its headers and its body.
async fn request(
    connection: &mut TcpStream,
    bytes: &mut Vec<u8>,
) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let lines = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(": "));
            let headers: BTreeMap<_, _> = lines
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers["content-length"].parse().unwrap();
            let whole = end + 4 + length;
            if bytes.len() >= whole {
                let body = bytes[end + 4..whole].to_vec();
                bytes.drain(..whole);
                return Some((headers, body));
            }
        }
        if connection.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}
