//! What the handles of a proxy and its connections share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::plan::{Cut, Lane};
use super::{Direction, REMEMBERED_CONNECTIONS, Traffic};

/// What becomes of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// They are forwarded.
    Forward,
    /// Nobody listens: "connection refused".
    Refuse,
    /// They are accepted and reset at once.
    Reset,
}

/// Everything that can be changed while the proxy runs.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) admission: Admission,
    pub(super) to_server: Lane,
    pub(super) to_client: Lane,
    /// How often all connections were cut, and how they were the last time.
    pub(super) cuts: u64,
    pub(super) cut: Cut,
}

impl Control {
    pub(super) fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    pub(super) fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// How many connections are being held, by direction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) to_server: usize,
    pub(super) to_client: usize,
}

impl Held {
    pub(super) fn of(&mut self, direction: Direction) -> &mut usize {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// Bytes forwarded on one connection.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) to_server: AtomicU64,
    pub(super) to_client: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, direction: Direction, bytes: usize) {
        let counter = match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            to_server: self.to_server.load(Ordering::Relaxed),
            to_client: self.to_client.load(Ordering::Relaxed),
        }
    }
}

/// What the handles and the connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) control: watch::Sender<Control>,
    pub(super) held: watch::Sender<Held>,
    pub(super) listening: watch::Sender<bool>,
    pub(super) open: watch::Sender<usize>,
    pub(super) accepted: AtomicU64,
    pub(super) total: Counters,
    pub(super) swallowed: Counters,
    pub(super) connections: Mutex<VecDeque<Arc<Counters>>>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let control = Control {
            admission: Admission::Forward,
            to_server: Lane::default(),
            to_client: Lane::default(),
            cuts: 0,
            cut: Cut::Close,
        };
        Self {
            control: watch::Sender::new(control),
            held: watch::Sender::new(Held::default()),
            listening: watch::Sender::new(true),
            open: watch::Sender::new(0),
            accepted: AtomicU64::new(0),
            total: Counters::default(),
            swallowed: Counters::default(),
            connections: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn new_connection(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        let mut connections = self.connections.lock().unwrap();
        if connections.len() == REMEMBERED_CONNECTIONS {
            connections.pop_front();
        }
        connections.push_back(Arc::clone(&counters));
        self.accepted.fetch_add(1, Ordering::Relaxed);
        counters
    }
}
