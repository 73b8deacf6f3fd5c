//! Makes payments over gRPC: as many as the service takes from a number of clients (closed loop), or
//! at a fixed rate whatever the service does (open loop).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quittance_proto::v1::payment_service_client::PaymentServiceClient;
use quittance_proto::v1::{
    CaptureMethod, CreatePaymentRequest, Money, Payment, PaymentMethod, PaymentMethodType,
    PaymentState,
};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use uuid::Uuid;

use crate::latency::Latencies;
use crate::number::float;

/// The token that the sandbox approves at once.
pub const APPROVED: &str = "tok_approve";
/// The token that the sandbox approves after a while.
pub const SLOW: &str = "tok_slow";
/// No payment of a run takes longer; one that does is a failure.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Payments under way at once in the open loop; arrivals beyond it are failures.
const MAX_OPEN_LOOP_IN_FLIGHT: usize = 10_000;
/// Histograms of the open loop, so that its tasks seldom wait for one another.
const OPEN_LOOP_SHARDS: usize = 16;
/// The failure of an arrival that found [`MAX_OPEN_LOOP_IN_FLIGHT`] payments under way.
const NOT_STARTED: &str = "not started: too many payments under way";
/// Largest amount of a payment, in minor units.
const MAX_MINOR_UNITS: i64 = 99_999;

/// Where payments are made, and as whom.
#[derive(Clone)]
pub struct Target {
    /// `https://localhost:port`.
    pub url: String,
    /// The authority of the server's certificate, PEM.
    pub ca_pem: String,
    /// An API key with the role `payments.write`. Secret.
    pub api_key: String,
}

/// Connections to the service, shared by all clients.
#[derive(Clone)]
pub struct Clients {
    connections: Vec<PaymentServiceClient<Channel>>,
    authorization: MetadataValue<Ascii>,
}

/// One request, told apart by its keys.
#[derive(Debug, Clone)]
pub struct Order {
    /// The idempotency key: a random UUID.
    pub idempotency_key: String,
    /// The order id: `order-` and a UUIDv7 without hyphens, so that newer ones sort behind older
    /// ones, as order ids usually do.
    pub merchant_reference: String,
    amount: i64,
}

impl Order {
    /// A new one.
    pub fn new() -> Self {
        Self {
            idempotency_key: Uuid::new_v4().to_string(),
            merchant_reference: format!("order-{}", Uuid::now_v7().simple()),
            amount: rand::random_range(1..=MAX_MINOR_UNITS),
        }
    }

    fn request(&self, token: &str) -> CreatePaymentRequest {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        CreatePaymentRequest {
            idempotency_key: self.idempotency_key.clone(),
            amount: Some(Money {
                minor_units: self.amount,
                currency_code: "EUR".to_owned(),
            }),
            payment_method: Some(PaymentMethod {
                r#type: PaymentMethodType::Card.into(),
                provider_token: token.to_owned(),
                brand: "visa".to_owned(),
                last4: "4242".to_owned(),
                expiry_month: 12,
                expiry_year: 2031,
            }),
            capture_method: CaptureMethod::Automatic.into(),
            merchant_reference: self.merchant_reference.clone(),
            description: "Benchmark order".to_owned(),
            metadata: [
                pair("cart", "c-81723"),
                pair("channel", "web"),
                pair("region", "eu-west"),
            ]
            .into_iter()
            .collect(),
            ..CreatePaymentRequest::default()
        }
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::new()
    }
}

/// What a load did.
#[derive(Debug)]
pub struct Load {
    /// Latencies of the payments that were captured.
    pub latencies: Latencies,
    /// Payments that were not, by what came instead.
    pub failures: BTreeMap<String, u64>,
    /// From the first start to the last end.
    pub elapsed: Duration,
}

impl Load {
    /// Captured payments per second.
    pub fn per_second(&self) -> f64 {
        float(self.latencies.count()) / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// When a closed loop ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this long; payments under way are finished.
    Elapsed(Duration),
    /// After this many payments.
    Payments(u64),
}

/// What one client, or one shard of the open loop, saw.
struct Tally {
    latencies: Latencies,
    failures: BTreeMap<String, u64>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latencies: Latencies::new()?,
            failures: BTreeMap::new(),
        })
    }

    fn count(&mut self, outcome: Result<(), String>, since: Instant) {
        match outcome {
            Ok(()) => self.latencies.record(since.elapsed()),
            Err(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }

    fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        self.latencies.merge(&other.latencies)?;
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        Ok(())
    }

    fn finish(self, started: Instant) -> Load {
        let elapsed = started.elapsed();
        Load {
            latencies: self.latencies,
            failures: self.failures,
            elapsed,
        }
    }
}

impl Clients {
    /// Opens the connections.
    ///
    /// # Errors
    /// Where one cannot be made.
    pub async fn connect(target: &Target, connections: u16) -> anyhow::Result<Self> {
        let mut authorization = MetadataValue::try_from(format!("Bearer {}", target.api_key))?;
        authorization.set_sensitive(true);
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&target.ca_pem));
        let endpoint = Endpoint::from_shared(target.url.clone())?
            .tls_config(tls)?
            .tcp_nodelay(true);
        let mut made = Vec::new();
        for _ in 0..connections {
            let channel = endpoint.connect().await.context("connect to the service")?;
            made.push(PaymentServiceClient::new(channel));
        }
        Ok(Self {
            connections: made,
            authorization,
        })
    }

    /// The connection of a client or an arrival.
    fn connection(&self, number: u64) -> anyhow::Result<PaymentServiceClient<Channel>> {
        let count = u64::try_from(self.connections.len())?.max(1);
        let index = usize::try_from(number % count)?;
        self.connections
            .get(index)
            .cloned()
            .context("there is no connection")
    }

    /// Makes one payment, and returns when it is captured.
    ///
    /// # Errors
    /// A short text: the code of the error, or the state that the payment is in instead.
    pub async fn pay(&self, number: u64, order: &Order, token: &str) -> Result<(), String> {
        let connection = self.connection(number).map_err(|error| error.to_string())?;
        pay(connection, &self.authorization, order, token).await
    }

    /// `clients` clients, each making one payment after another.
    ///
    /// # Errors
    /// Only where a task panicked.
    pub async fn closed_loop(&self, clients: u16, until: Until) -> anyhow::Result<Load> {
        let started = Instant::now();
        let taken = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..u64::from(clients) {
            let (connection, taken) = (self.connection(number)?, Arc::clone(&taken));
            let authorization = self.authorization.clone();
            tasks.spawn(async move {
                let mut tally = Tally::new()?;
                while goes_on(until, started, &taken) {
                    let since = Instant::now();
                    let order = Order::new();
                    let outcome = pay(connection.clone(), &authorization, &order, APPROVED).await;
                    tally.count(outcome, since);
                }
                anyhow::Ok(tally)
            });
        }
        let mut all = Tally::new()?;
        while let Some(tally) = tasks.join_next().await {
            all.merge(tally??)?;
        }
        Ok(all.finish(started))
    }

    /// Starts `rate` payments per second for this long, evenly spaced, however many are under way.
    ///
    /// Latency counts from the moment a payment was *due*, not from when it was sent: a stalled
    /// generator or service makes all payments late that were due meanwhile, as it does for callers
    /// (no coordinated omission).
    ///
    /// # Errors
    /// Only where a task panicked.
    pub async fn open_loop(&self, rate: f64, length: Duration) -> anyhow::Result<Load> {
        let interval = Duration::from_secs_f64(1.0 / rate.max(f64::EPSILON));
        let shards = (0..OPEN_LOOP_SHARDS)
            .map(|_| anyhow::Ok(Mutex::new(Tally::new()?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let arrivals = Arrivals {
            clients: self.clone(),
            runtime: tokio::runtime::Handle::current(),
            tracker: TaskTracker::new(),
            shards: Arc::new(shards),
        };
        let (tracker, shards) = (arrivals.tracker.clone(), Arc::clone(&arrivals.shards));
        let started = Instant::now();
        // A thread of its own sleeps to some 60 µs; the runtime's timer only to a millisecond.
        tokio::task::spawn_blocking(move || arrivals.start_all(started, interval, length))
            .await??;
        tracker.close();
        tracker.wait().await;
        let mut all = Tally::new()?;
        for shard in shards.iter() {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.merge(std::mem::replace(&mut *shard, Tally::new()?))?;
        }
        Ok(all.finish(started))
    }
}

/// Whether another payment starts; takes one of [`Until::Payments`].
fn goes_on(until: Until, started: Instant, taken: &AtomicU64) -> bool {
    match until {
        Until::Elapsed(length) => started.elapsed() < length,
        Until::Payments(count) => taken.fetch_add(1, Ordering::Relaxed) < count,
    }
}

/// The arrivals of an open loop.
struct Arrivals {
    clients: Clients,
    runtime: tokio::runtime::Handle,
    tracker: TaskTracker,
    shards: Arc<Vec<Mutex<Tally>>>,
}

impl Arrivals {
    /// Starts every payment when it is due, late rather than never.
    fn start_all(
        self,
        started: Instant,
        interval: Duration,
        length: Duration,
    ) -> anyhow::Result<()> {
        let mut due = Duration::ZERO;
        let mut number = 0;
        while due < length {
            if let Some(early) = due.checked_sub(started.elapsed()) {
                std::thread::sleep(early);
            }
            self.start(number, started + due)?;
            number += 1;
            due += interval;
        }
        Ok(())
    }

    fn start(&self, number: u64, due: Instant) -> anyhow::Result<()> {
        let shards = Arc::clone(&self.shards);
        let shard = usize::try_from(number)? % OPEN_LOOP_SHARDS;
        let count = move |outcome| {
            if let Some(shard) = shards.get(shard) {
                shard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .count(outcome, due);
            }
        };
        if self.tracker.len() >= MAX_OPEN_LOOP_IN_FLIGHT {
            count(Err(NOT_STARTED.to_owned()));
            return Ok(());
        }
        let connection = self.clients.connection(number)?;
        let authorization = self.clients.authorization.clone();
        let payment = async move {
            count(pay(connection, &authorization, &Order::new(), APPROVED).await);
        };
        self.tracker.spawn_on(payment, &self.runtime);
        Ok(())
    }
}

async fn pay(
    mut connection: PaymentServiceClient<Channel>,
    authorization: &MetadataValue<Ascii>,
    order: &Order,
    token: &str,
) -> Result<(), String> {
    let mut request = Request::new(order.request(token));
    request
        .metadata_mut()
        .insert("authorization", authorization.clone());
    request.set_timeout(CALL_TIMEOUT);
    let call = tokio::time::timeout(CALL_TIMEOUT, connection.create_payment(request));
    match call.await {
        Err(_) => Err("no answer in time".to_owned()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Ok(Ok(response)) => {
            let state = response.get_ref().payment.as_ref().map(Payment::state);
            match state {
                Some(PaymentState::Captured) => Ok(()),
                Some(other) => Err(other.as_str_name().to_owned()),
                None => Err("an answer without a payment".to_owned()),
            }
        }
    }
}
