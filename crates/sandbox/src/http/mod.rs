//! The HTTP side: starting, stopping, connections and routes.

mod connection;
mod control;
mod operations;
mod reply;

use crate::config::SandboxConfig;
use crate::ledger::{Ledger, Outbox};
use crate::limits::SETTLE_TICK;
use crate::wire::{Books, Charged, EventPage, OperationPage};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use connection::{Doorman, Listening};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// What every request sees.
pub(crate) struct App {
    pub ledger: Mutex<Ledger>,
    pub api_key: String,
    pub max_hang: Duration,
    pub outage: Mutex<Outage>,
    pub doorman: Doorman,
}

/// How `/v1` is out of order, if it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outage {
    /// It is not.
    #[default]
    None,
    /// Connections are reset before anything is read.
    Refuse,
    /// Requests hang and are never processed.
    Hang,
}

/// Starts sandboxes.
#[derive(Debug)]
pub struct Sandbox;

impl Sandbox {
    /// Listens, and serves on the current tokio runtime until [`SandboxHandle::shutdown`] is
    /// called or the handle is dropped.
    ///
    /// # Errors
    /// The address cannot be listened on; the books file cannot be read or written
    /// (`InvalidData` if a line of it makes no sense); `InvalidInput` for an empty API key, or a
    /// webhook URL or secret that cannot be used.
    pub async fn start(config: SandboxConfig) -> io::Result<SandboxHandle> {
        if config.api_key.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the API key is empty",
            ));
        }
        let listener = TcpListener::bind(config.listen).await?;
        let addr = listener.local_addr()?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        let outbox = match &config.webhook {
            Some(webhook) => Some(Outbox::start(webhook, &tasks, &stop)?),
            None => None,
        };
        let (doorman, orders) = Doorman::new();
        let settles = outbox.is_some();
        let app = Arc::new(App {
            ledger: Mutex::new(Ledger::open(&config, format!("http://{addr}"), outbox)?),
            api_key: config.api_key,
            max_hang: config.max_hang,
            outage: Mutex::new(Outage::None),
            doorman,
        });
        if settles {
            tasks.spawn(settle_unasked(Arc::clone(&app), stop.clone()));
        }
        let listening = Listening::new(addr, routes(Arc::clone(&app)), tasks.clone(), stop);
        tasks.spawn(listening.serve(listener, orders));
        Ok(SandboxHandle {
            addr,
            app,
            tasks,
            guard,
        })
    }
}

/// A running sandbox. Dropping it stops the sandbox too, without waiting.
pub struct SandboxHandle {
    addr: SocketAddr,
    app: Arc<App>,
    tasks: TaskTracker,
    guard: DropGuard,
}

impl fmt::Debug for SandboxHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxHandle")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl SandboxHandle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and the address, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What was really charged, in total. Like `GET /books`.
    pub fn books(&self) -> Books {
        self.app.ledger.lock().books()
    }

    /// What was really charged for one reference. Like `GET /books/{reference}`.
    pub fn charged(&self, reference: &str) -> Charged {
        self.app.ledger.lock().charged(reference)
    }

    /// At most `limit` (1 to 1000) operations from number `after` on. Like `GET /books?after=`.
    pub fn operations(&self, after: u64, limit: usize) -> OperationPage {
        self.app.ledger.lock().operation_page(after, limit)
    }

    /// At most `limit` (1 to 1000) events from number `after` on. Like `GET /events`.
    pub fn events(&self, after: u64, limit: usize) -> EventPage {
        self.app.ledger.lock().event_page(after, limit)
    }

    /// Closes the listener and every connection: from now on connecting is refused
    /// (`ECONNREFUSED`), until [`Self::resume`].
    pub async fn pause_accepting(&self) {
        self.app.doorman.pause().await;
    }

    /// Listens again on the same address.
    ///
    /// # Errors
    /// The port was taken meanwhile.
    pub async fn resume(&self) -> io::Result<()> {
        self.app.doorman.resume().await
    }

    /// Stops: closes the listener, cuts every connection and drops undelivered webhooks.
    pub async fn shutdown(self) {
        let Self { tasks, guard, .. } = self;
        drop(guard);
        tasks.close();
        tasks.wait().await;
    }
}

async fn settle_unasked(app: Arc<App>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SETTLE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        app.ledger.lock().settle_unasked();
    }
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/payments", post(operations::create))
        .route("/v1/payments/{id}", get(operations::payment))
        .route("/v1/payments/{id}/confirm", post(operations::confirm))
        .route("/v1/payments/{id}/captures", post(operations::capture))
        .route("/v1/payments/{id}/void", post(operations::void))
        .route("/v1/payments/{id}/refunds", post(operations::refund))
        .route("/v1/operations/{reference}", get(operations::look_up))
        .route("/books", get(control::books))
        .route("/books/{reference}", get(control::charged))
        .route("/events", get(control::events))
        .route("/control/faults", post(control::arm))
        .route("/control/faults", delete(control::disarm))
        .route("/control/outage", post(control::outage))
        .route("/control/payments/{id}/settle", post(control::settle))
        .route(
            "/control/payments/{id}/fail_refund",
            post(control::fail_refund),
        )
        .route("/control/payments/{id}/refunds", post(control::refund))
        .route("/control/payments/{id}/captures", post(control::capture))
        .route("/control/payments/{id}/void", post(control::void))
        .route("/control/payments/{id}/chargebacks", post(control::dispute))
        .route(
            "/control/payments/{id}/close_dispute",
            post(control::close_dispute),
        )
        .route("/challenge/{id}", get(control::challenge))
        .fallback(control::no_such_path)
        .method_not_allowed_fallback(control::no_such_method)
        .layer(DefaultBodyLimit::max(crate::limits::MAX_BODY_BYTES))
        .with_state(app)
}
