//! Every metric of ours: the table, the instruments, and the recorder.
//!
//! [`METRICS`] is the one declaration of name, unit and meaning; the instruments are made from it
//! and `docs/metrics.md` is generated from it. Labels have few, known values: never a payment's
//! id, a caller's text or a provider's message.

use std::fmt::Write as _;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

/// Buckets of RPCs, in seconds.
const CALL_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Buckets of database work, in seconds; as the semantic conventions advise.
const DATABASE_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// Buckets of provider calls, in seconds: up to the longest total timeout.
const PROVIDER_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Buckets of batch sizes, in changes.
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Gives an instrument its declared unit and description: the builders share no trait.
macro_rules! describe {
    ($builder:expr, $spec:expr) => {
        $builder
            .with_unit($spec.unit)
            .with_description($spec.description)
    };
}

/// What a metric counts or measures, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only rises; starts at 0.
    Counter,
    /// The newest value.
    Gauge,
    /// A distribution, with these upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// Declaration of one metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricSpec {
    /// OpenTelemetry name.
    pub name: &'static str,
    /// UCUM unit; `{…}` names what is counted.
    pub unit: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What it means, in one sentence.
    pub description: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Name on `/metrics`; a histogram's series add `_bucket`, `_sum` and `_count`.
    pub prometheus: &'static str,
}

const RPC_DURATION: MetricSpec = MetricSpec {
    name: "rpc.server.call.duration",
    unit: "s",
    kind: Kind::Histogram(CALL_SECONDS),
    description: "Time from the arrival of an RPC to its last byte, streams included.",
    labels: &["rpc.system.name", "rpc.method", "rpc.status_code"],
    prometheus: "rpc_server_call_duration_seconds",
};
const DATABASE_DURATION: MetricSpec = MetricSpec {
    name: "db.client.operation.duration",
    unit: "s",
    kind: Kind::Histogram(DATABASE_SECONDS),
    description: "Time of one database operation, the wait for a connection not included.",
    labels: &["db.system.name", "db.query.summary", "outcome"],
    prometheus: "db_client_operation_duration_seconds",
};
const ATTEMPTS: MetricSpec = MetricSpec {
    name: "payment.attempts",
    unit: "{attempt}",
    kind: Kind::Counter,
    description: "Calls to a provider that ended, by what is known of them then.",
    labels: &["provider.account", "operation", "outcome", "cause"],
    prometheus: "payment_attempts_total",
};
const PROVIDER_DURATION: MetricSpec = MetricSpec {
    name: "payment.provider.duration",
    unit: "s",
    kind: Kind::Histogram(PROVIDER_SECONDS),
    description: "Time of one call to a provider, connecting included.",
    labels: &["provider.account", "operation", "outcome"],
    prometheus: "payment_provider_duration_seconds",
};
const RETRIES: MetricSpec = MetricSpec {
    name: "payment.retries",
    unit: "{retry}",
    kind: Kind::Counter,
    description: "Calls to a provider that repeat an earlier one of the same transaction.",
    labels: &["provider.account", "operation"],
    prometheus: "payment_retries_total",
};
const PENDING: MetricSpec = MetricSpec {
    name: "payment.pending.count",
    unit: "{payment}",
    kind: Kind::Gauge,
    description: "Payments whose outcome is not known yet.",
    labels: &[],
    prometheus: "payment_pending_count",
};
const REPLAYS: MetricSpec = MetricSpec {
    name: "payment.idempotency.replays",
    unit: "{replay}",
    kind: Kind::Counter,
    description: "Requests that were answered from an earlier one with the same idempotency key.",
    labels: &["rpc.method"],
    prometheus: "payment_idempotency_replays_total",
};
const BATCH_SIZE: MetricSpec = MetricSpec {
    name: "payment.commit.batch_size",
    unit: "{change}",
    kind: Kind::Histogram(BATCH_SIZES),
    description: "Changes that one database commit wrote together.",
    labels: &[],
    prometheus: "payment_commit_batch_size",
};
const AUDIT_PENDING_AGE: MetricSpec = MetricSpec {
    name: "audit.pending.oldest_age",
    unit: "s",
    kind: Kind::Gauge,
    description: "Age of the oldest audit entry that has no position yet; 0 if all have one.",
    labels: &[],
    prometheus: "audit_pending_oldest_age_seconds",
};

/// Every metric of ours, in the order of `docs/metrics.md`.
pub const METRICS: &[MetricSpec] = &[
    RPC_DURATION,
    DATABASE_DURATION,
    ATTEMPTS,
    PROVIDER_DURATION,
    RETRIES,
    PENDING,
    REPLAYS,
    BATCH_SIZE,
    AUDIT_PENDING_AGE,
];

/// Label values that are known before anything happens, see [`Metrics::start_at_zero`].
#[derive(Debug, Clone, Copy, Default)]
pub struct KnownLabels<'a> {
    /// Full names of the RPCs that take an idempotency key, as in
    /// `quittance.v1.PaymentService/CreatePayment`.
    pub idempotent_rpcs: &'a [&'static str],
    /// Configured provider accounts.
    pub provider_accounts: &'a [&'a str],
    /// Operations that a provider can be asked for.
    pub operations: &'a [&'static str],
    /// Outcomes of an attempt, each with a cause that it can have.
    pub outcomes: &'a [(&'static str, &'static str)],
}

/// Records what happens. Cheap to clone; never blocks and never fails.
#[derive(Debug, Clone)]
pub struct Metrics {
    instruments: Arc<Instruments>,
}

#[derive(Debug)]
struct Instruments {
    rpc_duration: Histogram<f64>,
    database_duration: Histogram<f64>,
    attempts: Counter<u64>,
    provider_duration: Histogram<f64>,
    retries: Counter<u64>,
    pending: Gauge<u64>,
    replays: Counter<u64>,
    batch_size: Histogram<u64>,
    audit_pending_age: Gauge<f64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let instruments = Instruments {
            rpc_duration: seconds(meter, &RPC_DURATION),
            database_duration: seconds(meter, &DATABASE_DURATION),
            attempts: counter(meter, &ATTEMPTS),
            provider_duration: seconds(meter, &PROVIDER_DURATION),
            retries: counter(meter, &RETRIES),
            pending: describe!(meter.u64_gauge(PENDING.name), PENDING).build(),
            replays: counter(meter, &REPLAYS),
            batch_size: describe!(meter.u64_histogram(BATCH_SIZE.name), BATCH_SIZE)
                .with_boundaries(buckets(&BATCH_SIZE))
                .build(),
            audit_pending_age: describe!(
                meter.f64_gauge(AUDIT_PENDING_AGE.name),
                AUDIT_PENDING_AGE
            )
            .build(),
        };
        Self {
            instruments: Arc::new(instruments),
        }
    }

    /// Makes the counters of every known combination appear with 0, so that a rate sees the first
    /// failure. Call once, at start-up.
    pub fn start_at_zero(&self, known: &KnownLabels<'_>) {
        for rpc in known.idempotent_rpcs {
            self.instruments
                .replays
                .add(0, &[KeyValue::new("rpc.method", *rpc)]);
        }
        for account in known.provider_accounts {
            for operation in known.operations {
                let [account, operation] = provider_labels(account, operation);
                self.instruments
                    .retries
                    .add(0, &[account.clone(), operation.clone()]);
                for (outcome, cause) in known.outcomes {
                    let outcome = KeyValue::new("outcome", *outcome);
                    let cause = KeyValue::new("cause", *cause);
                    let labels = [account.clone(), operation.clone(), outcome, cause];
                    self.instruments.attempts.add(0, &labels);
                }
            }
        }
    }

    /// An RPC ended after `seconds`. `method` is its full name, `code` the name of its status,
    /// such as `OK` or `NOT_FOUND`. Both are fixed names, `_OTHER` for an unknown method: a caller
    /// must not be able to make up labels.
    pub fn rpc_finished(&self, method: &'static str, code: &'static str, seconds: f64) {
        self.instruments.rpc_duration.record(
            seconds,
            &[
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method),
                KeyValue::new("rpc.status_code", code),
            ],
        );
    }

    /// A database operation ended after `seconds`. `summary` names it as the span does
    /// (`db.query.summary`); `ok` is false if it failed.
    pub fn db_operation(&self, summary: &'static str, seconds: f64, ok: bool) {
        self.instruments.database_duration.record(
            seconds,
            &[
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.query.summary", summary),
                KeyValue::new("outcome", if ok { "ok" } else { "error" }),
            ],
        );
    }

    /// A call to a provider ended after `seconds`. `outcome` and `cause` are names of the
    /// domain's classification; `cause` is `none` where the outcome has none.
    pub fn attempt(
        &self,
        provider_account: &str,
        operation: &'static str,
        outcome: &'static str,
        cause: &'static str,
        seconds: f64,
    ) {
        let [account, operation] = provider_labels(provider_account, operation);
        let outcome = KeyValue::new("outcome", outcome);
        let duration_labels = [account.clone(), operation.clone(), outcome.clone()];
        self.instruments
            .provider_duration
            .record(seconds, &duration_labels);
        let labels = [account, operation, outcome, KeyValue::new("cause", cause)];
        self.instruments.attempts.add(1, &labels);
    }

    /// A transaction is sent to its provider again.
    pub fn retry(&self, provider_account: &str, operation: &'static str) {
        self.instruments
            .retries
            .add(1, &provider_labels(provider_account, operation));
    }

    /// A request to `rpc` (full name) was answered from an earlier one.
    pub fn idempotency_replay(&self, rpc: &'static str) {
        self.instruments
            .replays
            .add(1, &[KeyValue::new("rpc.method", rpc)]);
    }

    /// One database commit wrote `size` changes.
    pub fn commit_batch(&self, size: usize) {
        self.instruments
            .batch_size
            .record(u64::try_from(size).unwrap_or(u64::MAX), &[]);
    }

    /// Now `payments` have no known outcome yet.
    pub fn pending_count(&self, payments: u64) {
        self.instruments.pending.record(payments, &[]);
    }

    /// The oldest audit entry without a position is `seconds` old; 0 if there is none.
    pub fn audit_pending_age(&self, seconds: f64) {
        self.instruments.audit_pending_age.record(seconds, &[]);
    }
}

fn provider_labels(account: &str, operation: &'static str) -> [KeyValue; 2] {
    [
        KeyValue::new("provider.account", account.to_owned()),
        KeyValue::new("operation", operation),
    ]
}

fn buckets(spec: &MetricSpec) -> Vec<f64> {
    match spec.kind {
        Kind::Histogram(bounds) => bounds.to_vec(),
        Kind::Counter | Kind::Gauge => Vec::new(),
    }
}

fn seconds(meter: &Meter, spec: &MetricSpec) -> Histogram<f64> {
    describe!(meter.f64_histogram(spec.name), spec)
        .with_boundaries(buckets(spec))
        .build()
}

fn counter(meter: &Meter, spec: &MetricSpec) -> Counter<u64> {
    describe!(meter.u64_counter(spec.name), spec).build()
}

/// Renders [`METRICS`] as the text of `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(MARKDOWN_HEAD);
    for spec in METRICS {
        let kind = match spec.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = spec
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {kind} | {} | {} | `{}` |",
            spec.name,
            spec.unit,
            spec.description,
            if labels.is_empty() {
                "none".to_owned()
            } else {
                labels.join(", ")
            },
            spec.prometheus,
        );
    }
    text.push_str(MARKDOWN_BUCKETS);
    for spec in METRICS {
        if let Kind::Histogram(bounds) = spec.kind {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            let _ = writeln!(text, "- `{}`: {}", spec.name, bounds.join(", "));
        }
    }
    text
}

const MARKDOWN_HEAD: &str = "\
# Metrics

Generated from `crates/telemetry/src/metrics.rs`, and compared with it by a test; to write it anew:
`UPDATE_DOCS=1 cargo test -p quittance-telemetry metrics`.

`/metrics` serves them for Prometheus, where dots in labels become underscores and a histogram has
the series `_bucket`, `_sum` and `_count`; with an OTLP endpoint they are exported there too.
Counters start at 0 for the label values that are known at start-up, so that a rate sees the first
failure. No label holds an id of a payment.

| Metric | Unit | Kind | Meaning | Labels | Prometheus |
| --- | --- | --- | --- | --- | --- |
";

const MARKDOWN_BUCKETS: &str = "
## Buckets

Upper bounds of the histograms' buckets, in the metric's unit:

";

#[cfg(test)]
mod tests;
