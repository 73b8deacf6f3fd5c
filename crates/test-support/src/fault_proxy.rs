//! A TCP proxy that breaks connections on request: it cuts, delays, swallows and holds bytes.
//!
//! It stands between a server of ours and what that depends on (a payment provider, PostgreSQL), and
//! shows failures that no configuration of either could: a request cut in its middle, an answer that
//! never leaves, a connection that is open at one end only. Holding bytes stops a program at a named
//! point without a switch in it: while the outcome's commit is held, it has not happened.
//!
//! ```no_run
//! # async fn test(provider: std::net::SocketAddr) {
//! use quittance_test_support::{Direction, FaultProxy, Plan};
//!
//! let proxy = FaultProxy::start(provider).await;
//! // … a server whose provider is at proxy.address() …
//! proxy.set(Direction::ToServer, Plan::hold_at("POST /"));
//! // … a payment is created …
//! proxy.wait_until_held(Direction::ToServer).await;
//! // The provider has not seen the request. Whatever happens now happens before the charge.
//! proxy.release(Direction::ToServer);
//! # }
//! ```
//!
//! What happens to a direction of all connections is said by its [`Plan`]; it can be changed while
//! connections are open. Bytes that no plan concerns are forwarded at once, as they came.

mod plan;
mod pump;
mod shared;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_postgres::config::Host;

pub use plan::{Cut, Plan};

use shared::{Admission, Control, Shared};

/// How long [`FaultProxy::wait_until_held`] waits before the test fails: it bounds a failing test.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;
/// Connections whose traffic is remembered, the newest.
const REMEMBERED_CONNECTIONS: usize = 1_024;

/// One of the two ways of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connected to whom the proxy stands for.
    ToServer,
    /// From whom the proxy stands for to who connected.
    ToClient,
}

impl Direction {
    fn other(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

/// Whom the proxy stands for.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// At an address.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Numbers of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// [`Direction::ToServer`].
    pub to_server: u64,
    /// [`Direction::ToClient`].
    pub to_client: u64,
}

/// Ends the proxy with its last handle.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: AbortHandle,
    /// Keeps the port ours while nobody listens on it: bound, and never listening.
    _port: TcpSocket,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The task owns the connections' tasks.
        self.accepting.abort();
    }
}

/// A running proxy on a free port of 127.0.0.1. Clones are handles of the same one; with the last of
/// them it ends, and its connections are closed.
#[derive(Debug, Clone)]
pub struct FaultProxy(Arc<Running>);

impl FaultProxy {
    /// Starts on the current tokio runtime. Forwards everything until it is told otherwise.
    ///
    /// # Panics
    /// If there is no port to be had.
    pub async fn start(upstream: impl Into<Upstream>) -> Self {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = port.local_addr().unwrap();
        let shared = Arc::new(Shared::new());
        let listener = listen(address).unwrap();
        let task = accept(listener, address, upstream.into(), Arc::clone(&shared));
        let accepting = tokio::spawn(task).abort_handle();
        // Nothing else runs in between on a current-thread runtime: connections wait in the backlog.
        tokio::task::yield_now().await;
        Self(Arc::new(Running {
            shared,
            address,
            accepting,
            _port: port,
        }))
    }

    /// Starts before the PostgreSQL of a URL, on TCP or a Unix socket, and gives the URL that leads
    /// through the proxy. Without TLS, unless the URL demands it.
    ///
    /// # Panics
    /// If the URL is none, or names several servers.
    pub async fn before_database(url: &str) -> (Self, String) {
        let config: tokio_postgres::Config = url.parse().expect("a database URL");
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let upstream = match config.get_hosts() {
            [Host::Tcp(host)] => {
                let mut found = tokio::net::lookup_host((host.as_str(), port))
                    .await
                    .expect("the database's address");
                Upstream::Tcp(found.next().expect("the database's address"))
            }
            [Host::Unix(directory)] => Upstream::Unix(directory.join(format!(".s.PGSQL.{port}"))),
            hosts => panic!("not one host: {hosts:?}"),
        };
        let proxy = Self::start(upstream).await;
        let through = with_address(url, proxy.address());
        (proxy, through)
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What happens to a direction from now on, on connections that are open and on new ones. What is
    /// being held stays held.
    pub fn set(&self, direction: Direction, plan: Plan) {
        self.change(|control| control.lane_mut(direction).set(plan));
    }

    /// Lets everything pass again: both directions, without delay, and new connections. What is being
    /// held is forwarded; what was swallowed is gone.
    pub async fn pass(&self) {
        self.change(|control| {
            for direction in [Direction::ToServer, Direction::ToClient] {
                let lane = control.lane_mut(direction);
                lane.release(Plan::pass());
                lane.delay = Duration::ZERO;
            }
        });
        self.admit(Admission::Forward).await;
    }

    /// Opens the connection halfway: it stays open, and nothing arrives in either direction, the end of
    /// a stream included.
    pub fn swallow(&self) {
        self.set(Direction::ToServer, Plan::swallow());
        self.set(Direction::ToClient, Plan::swallow());
    }

    /// Every chunk of a direction waits so long before it is forwarded. Zero: no delay.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.change(|control| control.lane_mut(direction).delay = delay);
    }

    /// Closes the listener: whoever connects is refused ("connection refused") when this returns. The port
    /// stays ours. Open connections stay open; see [`Self::cut_all`].
    pub async fn refuse_connections(&self) {
        self.admit(Admission::Refuse).await;
    }

    /// Accepts new connections, and resets them at once.
    pub async fn reset_connections(&self) {
        self.admit(Admission::Reset).await;
    }

    /// Listens on the same port again, and forwards, when this returns.
    pub async fn accept_connections(&self) {
        self.admit(Admission::Forward).await;
    }

    /// Cuts every open connection, and returns when none of them is open any more.
    pub async fn cut_all(&self, how: Cut) {
        let before = self.accepted();
        self.change(|control| {
            control.cuts += 1;
            control.cut = how;
        });
        // New ones may come in the meantime; they do not count.
        let open = |open: &usize| self.accepted() > before || *open == 0;
        let mut opened = self.0.shared.open.subscribe();
        let gone = opened.wait_for(open);
        bounded("the connections are cut", gone).await.ok();
    }

    /// Returns when something is being held in a direction.
    ///
    /// # Panics
    /// If nothing is within 30 seconds.
    pub async fn wait_until_held(&self, direction: Direction) {
        let mut held = self.0.shared.held.subscribe();
        let something = held.wait_for(|held| {
            let mut held = *held;
            *held.of(direction) > 0
        });
        bounded("something is held", something).await.ok();
    }

    /// How many connections are being held in a direction.
    pub fn held(&self, direction: Direction) -> usize {
        let mut held = *self.0.shared.held.borrow();
        *held.of(direction)
    }

    /// Forwards what is being held, even if who sent it is gone, and lets the direction pass from now on.
    pub fn release(&self, direction: Direction) {
        self.release_then(direction, Plan::pass());
    }

    /// Forwards what is being held, and follows another plan from there on. With [`Plan::swallow`] the
    /// receiver does not learn that the sender is gone.
    pub fn release_then(&self, direction: Direction, plan: Plan) {
        self.change(|control| control.lane_mut(direction).release(plan));
    }

    /// Discards what is being held, cuts the connections where it was, and lets the direction pass from
    /// now on.
    pub fn drop_held(&self, direction: Direction, how: Cut) {
        self.change(|control| control.lane_mut(direction).discard(how));
    }

    /// Connections accepted so far, those included that were reset.
    pub fn accepted(&self) -> u64 {
        self.0.shared.accepted.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        *self.0.shared.open.borrow()
    }

    /// Bytes forwarded so far, on all connections.
    pub fn traffic(&self) -> Traffic {
        self.0.shared.total.traffic()
    }

    /// Bytes swallowed so far, on all connections.
    pub fn swallowed(&self) -> Traffic {
        self.0.shared.swallowed.traffic()
    }

    /// Bytes forwarded so far on each connection, oldest first; of the newest 1,024.
    pub fn connections(&self) -> Vec<Traffic> {
        let connections = self.0.shared.connections.lock().unwrap();
        connections.iter().map(|one| one.traffic()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Control)) {
        self.0.shared.control.send_modify(change);
    }

    async fn admit(&self, admission: Admission) {
        let mut listening = self.0.shared.listening.subscribe();
        self.change(|control| control.admission = admission);
        let wanted = admission != Admission::Refuse;
        let done = listening.wait_for(|listening| *listening == wanted);
        bounded("the listener follows", done).await.ok();
    }
}

async fn bounded<T>(what: &str, condition: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, condition)
        .await
        .unwrap_or_else(|_| panic!("did not happen within {PATIENCE:?}: {what}"))
}

/// A URL with another `host:port`.
fn with_address(url: &str, address: SocketAddr) -> String {
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let at = if user.is_empty() { "" } else { "@" };
    format!("{scheme}://{user}{at}{address}/{path}")
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Beside the socket that keeps the port, and beside connections of an earlier listener.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until it is aborted, which ends the connections too.
async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    upstream: Upstream,
    shared: Arc<Shared>,
) {
    let mut control = shared.control.subscribe();
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let admission = control.borrow_and_update().admission;
        if admission == Admission::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen(address).expect("the port is kept for the proxy"));
        }
        shared.listening.send_replace(listener.is_some());
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = control.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
            accepted = accepted => {
                let Ok((client, _)) = accepted else { continue };
                if admission == Admission::Reset {
                    shared.new_connection();
                    end(&client, Cut::Reset);
                } else {
                    // As it is now: while the upstream is being connected to, this one may have to be cut.
                    let cuts = control.borrow().cuts;
                    let upstream = upstream.clone();
                    connections.spawn(serve(client, upstream, Arc::clone(&shared), cuts));
                }
            }
        }
    }
}

/// Counts a connection as open while it lives.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

async fn serve(mut client: TcpStream, upstream: Upstream, shared: Arc<Shared>, cuts: u64) {
    let counters = shared.new_connection();
    let _open = Open::new(&shared);
    match upstream {
        Upstream::Tcp(address) => {
            let Ok(mut server) = TcpStream::connect(address).await else {
                end(&client, Cut::Reset);
                return;
            };
            // A small write is not to wait for the acknowledgement of the one before.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ended = pump::relay(&mut client, &mut server, &shared, &counters, cuts).await;
            end(&client, ended);
            end(&server, ended);
        }
        Upstream::Unix(path) => {
            let Ok(mut server) = UnixStream::connect(path).await else {
                end(&client, Cut::Reset);
                return;
            };
            let _ = client.set_nodelay(true);
            let ended = pump::relay(&mut client, &mut server, &shared, &counters, cuts).await;
            end(&client, ended);
        }
    }
}

/// How a stream ends when it is dropped.
fn end(stream: &TcpStream, how: Cut) {
    match how {
        Cut::Close => {}
        // A stream that has ended already cannot be reset any more.
        Cut::Reset => drop(stream.set_zero_linger()),
    }
}
