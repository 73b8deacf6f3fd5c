use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;

use super::plan::{Finder, Place};
use super::{Cut, Direction, FaultProxy, Plan, Traffic, Upstream, bounded, with_address};
use crate::eventually;

use Direction::{ToClient, ToServer};

/// A server whose side of each connection the test has in hand.
struct Server {
    connections: mpsc::UnboundedReceiver<TcpStream>,
    proxy: FaultProxy,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await;
        let (accepted, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if accepted.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { connections, proxy }
    }

    /// A new connection: the client's end and the server's.
    async fn connect(&mut self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).await.unwrap();
        let server = bounded("the connection arrives", self.connections.recv()).await;
        (client, server.unwrap())
    }
}

async fn arrives(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    bounded("the bytes arrive", stream.read_exact(&mut bytes))
        .await
        .unwrap();
    assert_eq!(bytes, text.as_bytes());
}

/// What comes until the end, and whether that is a reset.
async fn rest(stream: &mut TcpStream) -> (String, bool) {
    let mut bytes = Vec::new();
    let ended = bounded("the stream ends", stream.read_to_end(&mut bytes)).await;
    let reset = ended.is_err_and(|error| {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        true
    });
    (String::from_utf8(bytes).unwrap(), reset)
}

/// Nothing comes in this direction, shown by what comes in the other afterwards.
fn nothing_came(stream: &TcpStream) {
    let error = stream.try_read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn everything_passes_both_ways_and_so_does_the_end_of_a_stream() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    client.write_all(b"question").await.unwrap();
    arrives(&mut remote, "question").await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut remote).await, (String::new(), false));
    remote.write_all(b"answer, after the end").await.unwrap();
    drop(remote);
    let answer = ("answer, after the end".to_owned(), false);
    assert_eq!(rest(&mut client).await, answer);
    let traffic = Traffic {
        to_server: 8,
        to_client: 21,
    };
    assert_eq!(server.proxy.traffic(), traffic);
    assert_eq!(server.proxy.connections(), [traffic]);
    assert_eq!(server.proxy.accepted(), 1);
}

#[tokio::test]
async fn a_unix_socket_can_be_stood_for() {
    let directory = std::env::temp_dir().join(format!("quittance-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let proxy = FaultProxy::start(Upstream::Unix(path)).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut remote, _) = bounded("it arrives", listener.accept()).await.unwrap();
    remote.write_all(b"hello").await.unwrap();
    arrives(&mut client, "hello").await;
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_refused_and_the_same_port_listens_again() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    for _ in 0..20 {
        server.proxy.refuse_connections().await;
        let refused = TcpStream::connect(server.proxy.address()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        server.proxy.accept_connections().await;
        drop(server.connect().await);
    }
    client.write_all(b"still open").await.unwrap();
    arrives(&mut remote, "still open").await;
}

#[tokio::test]
async fn a_connection_can_be_reset_as_it_comes() {
    let mut server = Server::start().await;
    server.proxy.reset_connections().await;
    let mut client = TcpStream::connect(server.proxy.address()).await.unwrap();
    assert_eq!(rest(&mut client).await, (String::new(), true));
    server.proxy.pass().await;
    let (_client, _remote) = server.connect().await;
    assert_eq!(server.proxy.accepted(), 2);
}

#[tokio::test]
async fn a_connection_is_cut_after_exactly_so_many_bytes() {
    let mut server = Server::start().await;
    for how in [Cut::Close, Cut::Reset] {
        for bytes in [0, 1, 5, 8] {
            let (mut client, mut remote) = server.connect().await;
            server.proxy.set(ToClient, Plan::cut_after(bytes, how));
            remote.write_all(b"12345678").await.unwrap();
            let (came, reset) = rest(&mut client).await;
            assert_eq!(reset, how == Cut::Reset);
            // A reset may overtake what was forwarded before it.
            let all = &"12345678"[..usize::try_from(bytes).unwrap()];
            assert!(came == all || (reset && all.starts_with(&came)), "{came}");
            assert_eq!(server.proxy.connections().last().unwrap().to_client, bytes);
            assert_eq!(rest(&mut remote).await.1, reset);
        }
    }
}

#[tokio::test]
async fn bytes_are_counted_per_connection_and_from_when_the_plan_was_set() {
    let mut server = Server::start().await;
    let (mut first, mut first_remote) = server.connect().await;
    let (mut second, mut second_remote) = server.connect().await;
    first.write_all(b"before").await.unwrap();
    arrives(&mut first_remote, "before").await;
    server.proxy.set(ToServer, Plan::cut_after(3, Cut::Close));
    first.write_all(b"12").await.unwrap();
    arrives(&mut first_remote, "12").await;
    second.write_all(b"1234").await.unwrap();
    assert_eq!(rest(&mut second_remote).await.0, "123");
    first.write_all(b"34").await.unwrap();
    assert_eq!(rest(&mut first_remote).await.0, "3");
}

#[tokio::test]
async fn what_is_meant_for_one_connection_happens_to_one() {
    let mut server = Server::start().await;
    let plan = Plan::cut_at("POST", Cut::Close).once();
    server.proxy.set(ToServer, plan);
    let (mut first, mut first_remote) = server.connect().await;
    let (mut second, mut second_remote) = server.connect().await;
    first.write_all(b"GET POST").await.unwrap();
    assert_eq!(rest(&mut first_remote).await.0, "GET ");
    second.write_all(b"POST POST").await.unwrap();
    arrives(&mut second_remote, "POST POST").await;
}

#[tokio::test]
async fn half_open_means_that_nothing_arrives_and_nothing_ends() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    server.proxy.swallow();
    client.write_all(b"lost").await.unwrap();
    remote.write_all(b"lost as well").await.unwrap();
    let lost = Traffic {
        to_server: 4,
        to_client: 12,
    };
    let proxy = &server.proxy;
    eventually("both are swallowed", || async { proxy.swallowed() == lost }).await;
    nothing_came(&client);
    nothing_came(&remote);
    proxy.pass().await;
    client.write_all(b"passes").await.unwrap();
    arrives(&mut remote, "passes").await;
    remote.write_all(b"again").await.unwrap();
    arrives(&mut client, "again").await;
}

#[tokio::test]
async fn the_end_of_a_swallowed_stream_comes_when_it_passes_again() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    server.proxy.set(ToServer, Plan::swallow());
    client.shutdown().await.unwrap();
    // The answer passes: the connection lives, although its client has ended.
    remote.write_all(b"answer").await.unwrap();
    arrives(&mut client, "answer").await;
    nothing_came(&remote);
    server.proxy.set(ToServer, Plan::pass());
    assert_eq!(rest(&mut remote).await, (String::new(), false));
}

#[tokio::test]
async fn bytes_are_held_at_a_text_and_released() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    server.proxy.set(ToServer, Plan::hold_at("POST /"));
    client.write_all(b"GET / POST /pay").await.unwrap();
    server.proxy.wait_until_held(ToServer).await;
    assert_eq!(server.proxy.held(ToServer), 1);
    arrives(&mut remote, "GET / ").await;
    client.write_all(b"ments").await.unwrap();
    nothing_came(&remote);
    server.proxy.release(ToServer);
    arrives(&mut remote, "POST /payments").await;
    client.write_all(b" POST / passes now").await.unwrap();
    arrives(&mut remote, " POST / passes now").await;
    assert_eq!(server.proxy.held(ToServer), 0);
}

#[tokio::test]
async fn what_is_held_arrives_even_after_its_sender_is_gone() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    server.proxy.set(ToServer, Plan::hold_at("request"));
    client.write_all(b"request ").await.unwrap();
    server.proxy.wait_until_held(ToServer).await;
    client.write_all(b"and its end").await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    server.proxy.release_then(ToServer, Plan::swallow());
    arrives(&mut remote, "request ").await;
    server.proxy.pass().await;
    let (came, _) = rest(&mut remote).await;
    assert!("and its end".starts_with(&came), "{came}");
}

#[tokio::test]
async fn what_is_held_can_be_discarded_with_its_connection() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    server.proxy.set(ToServer, Plan::hold());
    client.write_all(b"never arrives").await.unwrap();
    server.proxy.wait_until_held(ToServer).await;
    server.proxy.drop_held(ToServer, Cut::Reset);
    assert_eq!(rest(&mut client).await, (String::new(), true));
    assert_eq!(rest(&mut remote).await, (String::new(), true));
    let (mut client, mut remote) = server.connect().await;
    client.write_all(b"arrives").await.unwrap();
    arrives(&mut remote, "arrives").await;
}

#[tokio::test]
async fn the_answer_to_a_request_is_held_and_no_other() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    server.proxy.set(ToClient, Plan::hold_answer_to("commit"));
    remote.write_all(b"unasked ").await.unwrap();
    arrives(&mut client, "unasked ").await;
    for half in ["com", "mit"] {
        client.write_all(half.as_bytes()).await.unwrap();
        arrives(&mut remote, half).await;
    }
    remote.write_all(b"done").await.unwrap();
    server.proxy.wait_until_held(ToClient).await;
    nothing_came(&client);
    server.proxy.release(ToClient);
    arrives(&mut client, "done").await;
}

#[tokio::test]
async fn the_answer_to_a_request_is_cut_at_a_byte() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    let plan = Plan::cut_answer_to("commit", Cut::Close).skip(2).once();
    server.proxy.set(ToClient, plan);
    client.write_all(b"commit").await.unwrap();
    arrives(&mut remote, "commit").await;
    remote.write_all(b"done").await.unwrap();
    assert_eq!(rest(&mut client).await.0, "do");
    let (mut client, mut remote) = server.connect().await;
    client.write_all(b"commit").await.unwrap();
    arrives(&mut remote, "commit").await;
    remote.write_all(b"done").await.unwrap();
    arrives(&mut client, "done").await;
}

#[tokio::test]
async fn every_open_connection_is_cut_by_order() {
    let mut server = Server::start().await;
    for how in [Cut::Close, Cut::Reset] {
        let (mut first, mut first_remote) = server.connect().await;
        let (mut second, _second_remote) = server.connect().await;
        server.proxy.cut_all(how).await;
        assert_eq!(server.proxy.open(), 0);
        let reset = how == Cut::Reset;
        assert_eq!(rest(&mut first).await.1, reset);
        assert_eq!(rest(&mut second).await.1, reset);
        assert_eq!(rest(&mut first_remote).await.1, reset);
    }
}

#[tokio::test]
async fn a_delay_delays() {
    let mut server = Server::start().await;
    let (mut client, mut remote) = server.connect().await;
    let delay = Duration::from_millis(60);
    server.proxy.delay(ToServer, delay);
    let begun = Instant::now();
    client.write_all(b"slow").await.unwrap();
    arrives(&mut remote, "slow").await;
    assert!(begun.elapsed() >= delay);
}

#[tokio::test]
async fn with_the_last_handle_the_proxy_ends() {
    let mut server = Server::start().await;
    let (mut client, _remote) = server.connect().await;
    let address = server.proxy.address();
    drop(server.proxy.clone());
    client.write_all(b"open").await.unwrap();
    drop(server);
    assert_eq!(rest(&mut client).await.0, "");
    let refused = TcpStream::connect(address).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_text_is_found_across_chunks() {
    let text = b"abcab";
    for cut in 0..=9 {
        let (first, second) = b"xxabcabyy".split_at(cut);
        let mut finder = Finder::default();
        let place = finder
            .find(first, text)
            .or_else(|| finder.find(second, text));
        let place = place.unwrap_or_else(|| panic!("cut at {cut}"));
        let expected = match cut {
            0..=2 => Place {
                at: 2 - cut,
                before: 0,
            },
            3..=6 => Place {
                at: 0,
                before: cut - 2,
            },
            _ => Place { at: 2, before: 0 },
        };
        assert_eq!(place, expected, "cut at {cut}");
    }
}

#[test]
fn a_text_is_not_found_where_it_is_not() {
    let mut finder = Finder::default();
    for chunk in ["ab", "ac", "", "a", "c", "b"] {
        assert_eq!(finder.find(chunk.as_bytes(), b"abc"), None);
    }
    assert_eq!(finder.find(b"c", b"bc"), Some(Place { at: 0, before: 1 }));
}

#[test]
fn a_url_gets_another_address() {
    let address = "127.0.0.1:9".parse().unwrap();
    for (url, through) in [
        (
            "postgres://u:p@%2Ftmp%2Fpg:5432/db",
            "postgres://u:p@127.0.0.1:9/db",
        ),
        (
            "postgresql://host/db?a=b",
            "postgresql://127.0.0.1:9/db?a=b",
        ),
        ("postgres://u@host:1", "postgres://u@127.0.0.1:9/"),
    ] {
        assert_eq!(with_address(url, address), through);
    }
}
