//! The witness over HTTP, with its state on disk.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use quittance_evidence::note::{KeyName, Note, Signature, SigningKey};
use quittance_evidence::tile::TileSet;
use quittance_evidence::tree::{CompactRange, Path};
use quittance_evidence::witness::AddCheckpoint;
use quittance_evidence::{Checkpoint, SignedCheckpoint, leaf_hash};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::http::{BODY_TIMEOUT, MAX_REQUESTS};
use super::listen::MAX_CONNECTIONS;
use super::{StateError, Witness, WitnessState, router, serve};

const ORIGIN: &str = "log.example/quittance";

fn key(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(KeyName::new(name).unwrap(), &[seed; 32])
}

/// A log of 300 leaves, told apart from others by a salt.
struct Log {
    tiles: TileSet,
    heads: Vec<Checkpoint>,
}

impl Log {
    fn new(salt: u8) -> Self {
        let (mut range, mut tiles) = (CompactRange::new(), TileSet::new());
        let mut heads = vec![Checkpoint::empty(KeyName::new(ORIGIN).unwrap())];
        for index in 0..300_u16 {
            let [high, low] = index.to_be_bytes();
            tiles
                .append(&mut range, leaf_hash(&[high, low, salt]))
                .unwrap();
            heads.push(Checkpoint {
                origin: KeyName::new(ORIGIN).unwrap(),
                size: range.size(),
                root: range.root(),
            });
        }
        Self { tiles, heads }
    }

    fn request(&self, old: u64, new: u64) -> AddCheckpoint {
        let path = (old > 0).then(|| Path::consistency(old, new).unwrap());
        let proof = path.map(|path| path.prove(|id| self.tiles.node(id)).unwrap());
        let head = &self.heads[usize::try_from(new).unwrap()];
        AddCheckpoint {
            old_size: old,
            proof: proof.unwrap_or_default(),
            checkpoint: head.sign(&[&key(ORIGIN, 1)]).unwrap(),
        }
    }
}

fn open(directory: &TempDir) -> Result<Witness, StateError> {
    let log = [key(ORIGIN, 1).verifier().clone()];
    Witness::open(key("witness.example/w1", 2).into(), &log, directory.path())
}

fn init(directory: &TempDir) -> Result<(), StateError> {
    WitnessState::lock(directory.path())?.init(&KeyName::new(ORIGIN).unwrap())
}

async fn post(witness: &Router, body: String) -> (StatusCode, String) {
    let request = Request::post("/add-checkpoint")
        .body(Body::from(body))
        .unwrap();
    let response = witness.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 10_000)
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn what_grows_is_cosigned_with_a_time_and_remembered_across_restarts() {
    let (directory, log) = (TempDir::new().unwrap(), Log::new(0));
    init(&directory).unwrap();
    let witness = router(open(&directory).unwrap());
    let request = log.request(0, 200);
    let (status, lines) = post(&witness, request.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let mut note: Note = request.checkpoint.clone();
    note.add(Signature::parse_lines(&lines).unwrap()).unwrap();
    let keys = [
        key(ORIGIN, 1).verifier().clone(),
        open_key().verifier().clone(),
    ];
    let signed = SignedCheckpoint::open(&note, &keys).unwrap();
    let (name, seconds) = signed.cosigned().next().unwrap();
    assert_eq!(name.as_str(), "witness.example/w1");
    assert!(seconds > 1_700_000_000);

    drop(witness);
    let witness = router(open(&directory).unwrap());
    // Another history of the same size, a smaller one, and one that grew from another.
    let forked = Log::new(1);
    let conflict = (StatusCode::CONFLICT, "200\n".to_owned());
    assert_eq!(
        post(&witness, forked.request(200, 200).to_string()).await,
        conflict
    );
    assert_eq!(
        post(&witness, log.request(0, 100).to_string()).await,
        conflict
    );
    assert_eq!(
        post(&witness, forked.request(0, 250).to_string()).await,
        conflict
    );
    let (status, _) = post(&witness, forked.request(200, 250).to_string()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, _) = post(&witness, log.request(200, 250).to_string()).await;
    assert_eq!(status, StatusCode::OK);
}

fn open_key() -> quittance_evidence::note::WitnessKey {
    key("witness.example/w1", 2).into()
}

#[tokio::test]
async fn each_refusal_has_the_status_of_the_protocol() {
    let (directory, log) = (TempDir::new().unwrap(), Log::new(0));
    init(&directory).unwrap();
    let witness = router(open(&directory).unwrap());
    let signed_by = |name: &str, seed| {
        let head = Checkpoint {
            origin: KeyName::new(name).unwrap(),
            ..log.heads[5].clone()
        };
        let mut request = log.request(0, 5);
        request.checkpoint = head.sign(&[&key(name, seed)]).unwrap();
        request.to_string()
    };
    let mut above = log.request(0, 5);
    above.old_size = 6;
    for (body, status) in [
        ("nonsense".to_owned(), StatusCode::BAD_REQUEST),
        (above.to_string(), StatusCode::BAD_REQUEST),
        (signed_by("other.example", 1), StatusCode::NOT_FOUND),
        (signed_by(ORIGIN, 9), StatusCode::FORBIDDEN),
        ("x".repeat(1_000_000), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(post(&witness, body).await.0, status);
    }
}

#[test]
fn a_witness_without_state_does_not_start_and_its_state_is_made_once() {
    let directory = TempDir::new().unwrap();
    assert!(matches!(open(&directory), Err(StateError::Missing(_))));
    init(&directory).unwrap();
    assert!(matches!(init(&directory), Err(StateError::Present(_))));
    let running = open(&directory).unwrap();
    assert!(matches!(open(&directory), Err(StateError::InUse(_))));
    drop(running);
    for file in std::fs::read_dir(directory.path()).unwrap() {
        std::fs::write(file.unwrap().path(), "log.example/other\n0\n").unwrap();
    }
    assert!(matches!(open(&directory), Err(StateError::Broken { .. })));
}

#[tokio::test]
async fn strangers_who_dawdle_keep_neither_the_log_nor_the_prober_waiting() {
    let directory = TempDir::new().unwrap();
    init(&directory).unwrap();
    let witness = router(open(&directory).unwrap());
    let (taken, mut taking) = tokio::sync::mpsc::unbounded_channel();
    let dawdle = || {
        let (witness, taken) = (witness.clone(), taken.clone());
        let body = futures::stream::once(async move {
            taken.send(()).unwrap();
            std::future::pending::<Result<Vec<u8>, std::io::Error>>().await
        });
        let request = Request::post("/add-checkpoint").body(Body::from_stream(body));
        tokio::spawn(witness.oneshot(request.unwrap()))
    };
    let begun = Instant::now();
    let strangers: Vec<_> = (0..2 * MAX_REQUESTS).map(|_| dawdle()).collect();
    // Of what is waited for, the state file is written to the disk.
    let soon = Duration::from_secs(60);
    for _ in &strangers {
        let one = tokio::time::timeout(soon, taking.recv()).await;
        one.unwrap().unwrap();
    }
    let log = Log::new(1);
    let sent = log.request(0, 5).to_string();
    let cosigned = tokio::time::timeout(soon, post(&witness, sent)).await;
    assert_eq!(cosigned.unwrap().0, StatusCode::OK);
    let probe = Request::get("/healthz").body(Body::empty()).unwrap();
    let probed = tokio::time::timeout(soon, witness.clone().oneshot(probe)).await;
    assert_eq!(probed.unwrap().unwrap().status(), StatusCode::OK);
    // Those who came first had to give way, and are told to come again.
    let mut strangers = strangers.into_iter();
    let first = strangers.next().unwrap();
    let first = tokio::time::timeout(soon, first)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first.status(), StatusCode::SERVICE_UNAVAILABLE);
    // Those who came last go on dawdling: nobody had to wait until a stranger's time was up.
    let dawdles = !strangers.last().unwrap().is_finished();
    assert!(dawdles || begun.elapsed() >= BODY_TIMEOUT);
}

/// Sends a request over a connection of its own, and gives the whole answer.
async fn ask(address: std::net::SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn strangers_with_all_connections_that_say_nothing_are_closed_for_those_who_ask() {
    let directory = TempDir::new().unwrap();
    init(&directory).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let witness = router(open(&directory).unwrap());
    let serving = tokio::spawn(serve(listener, witness, stop.clone()));
    let (mut silent, mut bodies) = (Vec::new(), Vec::new());
    // Some say nothing, some half of a head, and some a head and half of a body.
    for number in 0..2 * MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        match number % 4 {
            0 => {
                let head =
                    "POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: 9\r\n\r\nold ";
                stream.write_all(head.as_bytes()).await.unwrap();
                bodies.push(stream);
            }
            1 => {
                stream
                    .write_all(b"GET /healthz HTTP/1.1\r\n")
                    .await
                    .unwrap();
                silent.push(stream);
            }
            _ => silent.push(stream),
        }
    }
    let sent = Log::new(1).request(0, 5).to_string();
    let cosigned = ask(address, "POST /add-checkpoint", &sent).await;
    assert!(cosigned.starts_with("HTTP/1.1 200"), "{cosigned}");
    let probed = ask(address, "GET /healthz", "").await;
    assert!(probed.starts_with("HTTP/1.1 200"), "{probed}");
    // Whoever came first and said nothing was closed without a word.
    let mut rest = Vec::new();
    let first = silent.first_mut().unwrap().read_to_end(&mut rest).await;
    assert!(first.is_err() || rest.is_empty());
    stop.cancel();
    drop((silent, bodies));
    serving.await.unwrap();
}
