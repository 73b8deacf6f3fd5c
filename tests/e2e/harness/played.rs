//! HTTP on loopback for the providers that tests play.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::PATIENCE;

/// A request as it came.
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    head: String,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }
}

/// Status and body; `None`: the request is processed, and the answer is lost.
pub type Reply = Option<(u16, Value)>;
type Answers = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// An answer that was made, and is under way until it is let go.
pub struct HeldAnswer {
    asked: oneshot::Receiver<()>,
    let_go: oneshot::Sender<()>,
}

impl HeldAnswer {
    /// Waits until it was asked for, and made.
    pub async fn made(&mut self) {
        let asked = timeout(PATIENCE, &mut self.asked).await;
        asked.expect("nobody has asked").unwrap();
    }

    pub fn let_go(self) {
        self.let_go.send(()).unwrap();
    }
}

/// The answer that is to be held: the next one to what is asked at a path that begins so.
struct ToHold {
    path: String,
    asked: oneshot::Sender<()>,
    let_go: oneshot::Receiver<()>,
}

/// Questions at a path that begins so are refused, with a `Retry-After` of so many seconds; after so many that are answered.
struct Busy {
    path: String,
    answered: usize,
    seconds: u64,
}

/// What is to become of answers, other than to arrive.
#[derive(Default)]
struct Plans {
    hold: Option<ToHold>,
    busy: Option<Busy>,
}

impl Plans {
    /// For how long whoever asks this is to leave the server alone, where it is not answered.
    fn refuses(&mut self, target: &str) -> Option<u64> {
        let busy = self.busy.as_mut()?;
        if !target.starts_with(&busy.path) {
            return None;
        }
        if busy.answered > 0 {
            busy.answered -= 1;
            return None;
        }
        Some(busy.seconds)
    }
}

/// A server that answers so. It stops when dropped.
pub struct Played {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
    plans: Arc<Mutex<Plans>>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Played {
    pub async fn start(answers: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answers: Answers = Arc::new(answers);
        let plans = Arc::<Mutex<Plans>>::default();
        let followed = Arc::clone(&plans);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&answers), Arc::clone(&followed)));
            }
        });
        Self { addr, task, plans }
    }

    /// Holds the next answer to what is asked at a path that begins so: it is made, and does not arrive.
    pub fn hold_answer(&self, path: &str) -> HeldAnswer {
        let (made, asked) = oneshot::channel();
        let (let_go, going) = oneshot::channel();
        let to_hold = ToHold {
            path: path.to_owned(),
            asked: made,
            let_go: going,
        };
        self.plans.lock().unwrap().hold = Some(to_hold);
        HeldAnswer { asked, let_go }
    }

    /// Refuses what is asked at a path that begins so (429), after so many answers, and asks to be left alone for a time.
    pub fn asks_to_wait(&self, path: &str, answered: usize, seconds: u64) {
        self.plans.lock().unwrap().busy = Some(Busy {
            path: path.to_owned(),
            answered,
            seconds,
        });
    }
}

/// One connection: requests with their bodies, one after the other.
async fn serve(mut stream: TcpStream, answers: Answers, plans: Arc<Mutex<Plans>>) {
    while let Some(asked) = read(&mut stream).await {
        let refused = plans.lock().unwrap().refuses(&asked.target);
        let wait =
            refused.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
        let answer = match refused {
            Some(_) => Some((429, Value::Null)),
            None => answers(&asked),
        };
        let Some((status, answer)) = answer else {
            return;
        };
        let held = {
            let hold = &mut plans.lock().unwrap().hold;
            hold.take_if(|it| asked.target.starts_with(&it.path))
        };
        if let Some(held) = held {
            held.asked.send(()).unwrap();
            held.let_go.await.unwrap();
        }
        let answer = answer.to_string();
        let response = format!(
            "HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{wait}\r\n{answer}",
            answer.len()
        );
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut first = head.split(' ').map(str::to_owned);
    let (method, target) = (first.next()?, first.next()?);
    let mut asked = Asked {
        method,
        target,
        head,
        body: Vec::new(),
    };
    let length = asked.header("content-length").map(str::parse);
    asked.body = vec![0; length.map_or(0, Result::unwrap)];
    stream.read_exact(&mut asked.body).await.ok()?;
    Some(asked)
}
