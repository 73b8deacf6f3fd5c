//! An HTTP server on raw TCP that does exactly what a script says, and records what it was sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does about one request.
#[derive(Clone, Debug)]
pub enum Act {
    /// Reads the request, answers with these bytes, keeps the connection.
    Answer(Vec<u8>),
    /// Reads the request, writes these bytes, closes the connection.
    AnswerAndClose(Vec<u8>),
    /// Reads the request, writes these bytes, resets the connection.
    AnswerAndReset(Vec<u8>),
    /// Reads the request, writes these bytes, and then nothing.
    AnswerAndHang(Vec<u8>),
    /// Accepts the connection and reads nothing.
    AcceptAndHang,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[derive(Default)]
struct State {
    script: VecDeque<Act>,
    received: Vec<Received>,
    connections: usize,
}

/// The running server; it stops when dropped.
pub struct Scripted {
    state: Arc<Mutex<State>>,
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    pub async fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            script: script.into(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let served = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.lock().unwrap().connections += 1;
                connections.spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self { state, port, task }
    }

    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Adds to the script.
    pub fn then(&self, act: Act) {
        self.state.lock().unwrap().script.push_back(act);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    loop {
        let hangs = matches!(
            state.lock().unwrap().script.front(),
            Some(Act::AcceptAndHang)
        );
        if hangs {
            state.lock().unwrap().script.pop_front();
            return std::future::pending().await;
        }
        let Some(received) = read_request(&mut stream).await else {
            return;
        };
        let act = {
            let mut state = state.lock().unwrap();
            state.received.push(received);
            state.script.pop_front()
        };
        match act {
            Some(Act::Answer(bytes)) => stream.write_all(&bytes).await.unwrap(),
            Some(Act::AnswerAndClose(bytes)) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Some(Act::AnswerAndReset(bytes)) => {
                let _ = stream.write_all(&bytes).await;
                SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return;
            }
            Some(Act::AnswerAndHang(bytes)) => {
                stream.write_all(&bytes).await.unwrap();
                return std::future::pending().await;
            }
            Some(Act::AcceptAndHang) => return std::future::pending().await,
            None => panic!("a request that the script does not have: something retried"),
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let mut received = Received {
        head: String::from_utf8(bytes).unwrap(),
        body: Vec::new(),
    };
    let length = received
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    received.body.resize(length, 0);
    stream.read_exact(&mut received.body).await.ok()?;
    Some(received)
}

/// A response with a JSON body and further headers.
pub fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}
