//! Every metric of ours: the table, the instruments, and the recorder.
//!
//! [`METRICS`] is the one declaration of name, unit and meaning; the instruments are made from it
//! and `docs/metrics.md` is generated from it. Labels have few, known values: never a payment's
//! id, a caller's text or a provider's message.

mod table;

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

use table::{
    ATTEMPTS, AUDIT_PENDING_AGE, BACKLOG, BATCH_SIZE, CASES, CHECKPOINT_AGE, CIRCUIT, COSIGNATURES,
    DATABASE_DURATION, EVENTS, EXHAUSTED, NOTIFICATION_BACKLOG, NOTIFICATION_DEAD,
    NOTIFICATION_DURATION, NOTIFICATION_LAG, NOTIFICATION_UNPLANNED, OPEN_CASES, PENDING,
    PENDING_AGE, PROVIDER_DURATION, RECOVERIES, REPLAYS, RETRIES, RPC_DURATION, TREE_SIZE,
    UNVERIFIED, VERIFICATION_AGE, VERIFICATIONS, VERIFY_FAILURES, WEBHOOK_BACKLOG, WEBHOOK_DEAD,
    WEBHOOK_LAG, WEBHOOK_REJECTED, WEBHOOKS_WIPED,
};

pub use table::{Kind, METRICS, MetricSpec, markdown};

/// Stands for accounts that are not configured: a caller must not be able to make up labels.
const OTHER_ACCOUNT: &str = "_OTHER";
/// How scheduled verifications of the audit log end.
const VERIFICATION_RESULTS: [&str; 4] = ["intact", "differs", "incomplete", "busy"];

/// Gives an instrument its declared unit and description: the builders share no trait.
macro_rules! describe {
    ($builder:expr, $spec:expr) => {
        $builder
            .with_unit($spec.unit)
            .with_description($spec.description)
    };
}

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
    /// Ways in which a transaction is taken up again.
    pub retries: &'a [&'static str],
    /// Ways in which a run of recovery ends.
    pub recoveries: &'a [&'static str],
    /// Kinds of cases for a person.
    pub cases: &'a [&'static str],
    /// Causes for which a webhook can be refused.
    pub webhook_rejections: &'a [&'static str],
    /// What is checked of the audit log.
    pub audit_checks: &'a [&'static str],
}

/// What waits for an outcome, see [`Metrics::pending`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pending {
    /// Transactions without an outcome.
    pub transactions: u64,
    /// Age of the oldest of them, in seconds; 0 if there is none.
    pub oldest_age: f64,
    /// Those that recovery should take up now.
    pub due: u64,
    /// Cases that wait for a person.
    pub open_cases: u64,
}

/// How asking a witness ends.
const WITNESS_RESULTS: [&str; 3] = ["cosigned", "failed", "refused"];

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
    pending_age: Gauge<f64>,
    backlog: Gauge<u64>,
    recoveries: Counter<u64>,
    exhausted: Counter<u64>,
    events: Counter<u64>,
    cases: Counter<u64>,
    open_cases: Gauge<u64>,
    circuit: Gauge<u64>,
    webhook_lag: Histogram<f64>,
    notification_duration: Histogram<f64>,
    notification_lag: Histogram<f64>,
    notification_backlog: Gauge<u64>,
    verifications: Counter<u64>,
    cosignatures: Counter<u64>,
    notification_dead: Gauge<u64>,
    notification_unplanned: Gauge<u64>,
    webhook_backlog: Gauge<u64>,
    webhook_dead: Gauge<u64>,
    webhook_rejected: Counter<u64>,
    webhooks_wiped: Counter<u64>,
    replays: Counter<u64>,
    batch_size: Histogram<u64>,
    audit_pending_age: Gauge<f64>,
    checkpoint_age: Gauge<f64>,
    verification_age: Gauge<f64>,
    tree_size: Gauge<u64>,
    unverified: Counter<u64>,
    verify_failures: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let instruments = Instruments {
            rpc_duration: seconds(meter, &RPC_DURATION),
            database_duration: seconds(meter, &DATABASE_DURATION),
            attempts: counter(meter, &ATTEMPTS),
            provider_duration: seconds(meter, &PROVIDER_DURATION),
            retries: counter(meter, &RETRIES),
            pending: whole(meter, &PENDING),
            pending_age: fractional(meter, &PENDING_AGE),
            backlog: whole(meter, &BACKLOG),
            recoveries: counter(meter, &RECOVERIES),
            exhausted: counter(meter, &EXHAUSTED),
            verifications: counter(meter, &VERIFICATIONS),
            cosignatures: counter(meter, &COSIGNATURES),
            notification_duration: seconds(meter, &NOTIFICATION_DURATION),
            notification_lag: seconds(meter, &NOTIFICATION_LAG),
            notification_backlog: whole(meter, &NOTIFICATION_BACKLOG),
            notification_dead: whole(meter, &NOTIFICATION_DEAD),
            notification_unplanned: whole(meter, &NOTIFICATION_UNPLANNED),
            events: counter(meter, &EVENTS),
            cases: counter(meter, &CASES),
            open_cases: whole(meter, &OPEN_CASES),
            circuit: whole(meter, &CIRCUIT),
            webhook_lag: seconds(meter, &WEBHOOK_LAG),
            webhook_backlog: whole(meter, &WEBHOOK_BACKLOG),
            webhook_dead: whole(meter, &WEBHOOK_DEAD),
            webhook_rejected: counter(meter, &WEBHOOK_REJECTED),
            webhooks_wiped: counter(meter, &WEBHOOKS_WIPED),
            replays: counter(meter, &REPLAYS),
            batch_size: describe!(meter.u64_histogram(BATCH_SIZE.name), BATCH_SIZE)
                .with_boundaries(buckets(&BATCH_SIZE))
                .build(),
            audit_pending_age: fractional(meter, &AUDIT_PENDING_AGE),
            checkpoint_age: fractional(meter, &CHECKPOINT_AGE),
            verification_age: fractional(meter, &VERIFICATION_AGE),
            tree_size: whole(meter, &TREE_SIZE),
            unverified: counter(meter, &UNVERIFIED),
            verify_failures: counter(meter, &VERIFY_FAILURES),
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
        self.instruments.unverified.add(0, &[]);
        for outcome in ["done", "dead", "unnamed"] {
            self.webhooks_wiped(outcome, 0);
        }
        for result in VERIFICATION_RESULTS {
            let result = KeyValue::new("result", result);
            self.instruments.verifications.add(0, &[result]);
        }
        for check in known.audit_checks {
            let labels = [KeyValue::new("check", *check)];
            self.instruments.verify_failures.add(0, &labels);
        }
        for account in known.provider_accounts {
            self.account_at_zero(account, known);
        }
    }

    fn account_at_zero(&self, name: &str, known: &KnownLabels<'_>) {
        let all = &self.instruments;
        let account = KeyValue::new("provider.account", name.to_owned());
        all.exhausted.add(0, std::slice::from_ref(&account));
        for outcome in known.recoveries {
            let outcome = KeyValue::new("outcome", *outcome);
            all.recoveries.add(0, &[account.clone(), outcome]);
        }
        for kind in known.cases {
            all.cases
                .add(0, &[account.clone(), KeyValue::new("kind", *kind)]);
        }
        for cause in known.webhook_rejections {
            let labels = [account.clone(), KeyValue::new("cause", *cause)];
            all.webhook_rejected.add(0, &labels);
        }
        for operation in known.operations {
            let [account, operation] = provider_labels(name, operation);
            for how in known.retries {
                let how = KeyValue::new("how", *how);
                all.retries
                    .add(0, &[account.clone(), operation.clone(), how]);
            }
            for (outcome, cause) in known.outcomes {
                let outcome = KeyValue::new("outcome", *outcome);
                let cause = KeyValue::new("cause", *cause);
                let labels = [account.clone(), operation.clone(), outcome, cause];
                all.attempts.add(0, &labels);
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

    /// A transaction is taken up again; `how` names in which way, such as `lookup`.
    pub fn retry(&self, provider_account: &str, operation: &'static str, how: &'static str) {
        let [account, operation] = provider_labels(provider_account, operation);
        let labels = [account, operation, KeyValue::new("how", how)];
        self.instruments.retries.add(1, &labels);
    }

    /// Recovery has taken a transaction up; `outcome` names how that ended.
    pub fn recovered(&self, provider_account: &str, outcome: &'static str) {
        let account = KeyValue::new("provider.account", provider_account.to_owned());
        let labels = [account, KeyValue::new("outcome", outcome)];
        self.instruments.recoveries.add(1, &labels);
    }

    /// Recovery has given a transaction up.
    pub fn recovery_exhausted(&self, provider_account: &str) {
        let account = KeyValue::new("provider.account", provider_account.to_owned());
        self.instruments.exhausted.add(1, &[account]);
    }

    /// A change of a payment was committed; `cause` is the name of why it did not succeed, where it did not.
    pub fn event(&self, provider_account: &str, event_type: &str, cause: &str) {
        let account = KeyValue::new("provider.account", provider_account.to_owned());
        let event_type = KeyValue::new("event_type", event_type.to_owned());
        let labels = [
            account,
            event_type,
            KeyValue::new("cause", cause.to_owned()),
        ];
        self.instruments.events.add(1, &labels);
    }

    /// A case was opened for a person; `kind` is the name of what it is about.
    pub fn case_opened(&self, provider_account: &str, kind: &'static str) {
        let account = KeyValue::new("provider.account", provider_account.to_owned());
        let labels = [account, KeyValue::new("kind", kind)];
        self.instruments.cases.add(1, &labels);
    }

    /// The circuit of an account is in `state`, one of `states`.
    pub fn circuit(&self, provider_account: &str, state: &'static str, states: &[&'static str]) {
        for known in states {
            let account = KeyValue::new("provider.account", provider_account.to_owned());
            let labels = [account, KeyValue::new("state", *known)];
            let is = u64::from(*known == state);
            self.instruments.circuit.record(is, &labels);
        }
    }

    /// A webhook was refused for `cause`; `None`: its account is not configured.
    pub fn webhook_rejected(&self, provider_account: Option<&str>, cause: &'static str) {
        let account = provider_account.unwrap_or(OTHER_ACCOUNT).to_owned();
        let account = KeyValue::new("provider.account", account);
        let labels = [account, KeyValue::new("cause", cause)];
        self.instruments.webhook_rejected.add(1, &labels);
    }

    /// A webhook is done with, `seconds` after it was received; `outcome` names how.
    pub fn webhook_done(&self, provider_account: &str, outcome: &'static str, seconds: f64) {
        let account = KeyValue::new("provider.account", provider_account.to_owned());
        let labels = [account, KeyValue::new("outcome", outcome)];
        self.instruments.webhook_lag.record(seconds, &labels);
    }

    /// The bodies of so many webhooks were wiped; `outcome` names how these had ended.
    pub fn webhooks_wiped(&self, outcome: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let labels = [KeyValue::new("outcome", outcome)];
        self.instruments.webhooks_wiped.add(count, &labels);
    }

    /// A scheduled verification of the audit log ended (`intact`, `differs` or `incomplete`), or could not begin
    /// (`busy`).
    pub fn log_verified(&self, result: &'static str) {
        self.instruments
            .verifications
            .add(1, &[KeyValue::new("result", result)]);
    }

    /// A witness was asked to cosign a checkpoint: `cosigned`, `failed` or `refused`.
    pub fn witness_asked(&self, witness: &str, result: &'static str) {
        let witness = KeyValue::new("witness", witness.to_owned());
        let labels = [witness, KeyValue::new("result", result)];
        self.instruments.cosignatures.add(1, &labels);
    }

    /// So that the first cosignature, and the first failure, is seen.
    pub fn known_witness(&self, witness: &str) {
        for result in WITNESS_RESULTS {
            let witness = KeyValue::new("witness", witness.to_owned());
            let labels = [witness, KeyValue::new("result", result)];
            self.instruments.cosignatures.add(0, &labels);
        }
    }

    /// So long ago a scheduled verification of the audit log came to its end in this process.
    pub fn verification_age(&self, seconds: f64) {
        self.instruments.verification_age.record(seconds, &[]);
    }

    /// So many webhooks wait to be applied, and so many are dead letters.
    pub fn webhook_backlog(&self, waiting: u64, dead: u64) {
        self.instruments.webhook_backlog.record(waiting, &[]);
        self.instruments.webhook_dead.record(dead, &[]);
    }

    /// An attempt to deliver a notification ended after `seconds`; `cause` names why it failed.
    pub fn notification_attempt(
        &self,
        outcome: &'static str,
        cause: Option<&'static str>,
        seconds: f64,
    ) {
        let labels = [
            KeyValue::new("outcome", outcome),
            KeyValue::new("cause", cause.unwrap_or_default()),
        ];
        self.instruments
            .notification_duration
            .record(seconds, &labels);
    }

    /// A notification was delivered or given up, `seconds` after it was made; `outcome` names which.
    pub fn notification_ended(&self, outcome: &'static str, seconds: f64) {
        let labels = [KeyValue::new("outcome", outcome)];
        self.instruments.notification_lag.record(seconds, &labels);
    }

    /// So many notifications wait to be delivered.
    pub fn notifications_waiting(&self, number: u64) {
        self.instruments.notification_backlog.record(number, &[]);
    }

    /// So many notifications are dead letters.
    pub fn notifications_dead(&self, number: u64) {
        self.instruments.notification_dead.record(number, &[]);
    }

    /// So many journal entries were not made notifications from yet.
    pub fn notifications_unplanned(&self, number: u64) {
        self.instruments.notification_unplanned.record(number, &[]);
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

    /// So much waits for an outcome now.
    pub fn pending(&self, now: &Pending) {
        let all = &self.instruments;
        all.pending.record(now.transactions, &[]);
        all.pending_age.record(now.oldest_age, &[]);
        all.backlog.record(now.due, &[]);
        all.open_cases.record(now.open_cases, &[]);
    }

    /// So many journal entries were read whose MAC does not verify.
    pub fn unverified_entries(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.instruments.unverified.add(count, &[]);
    }

    /// A check of the audit log found something wrong `count` times; `check` names what was checked.
    pub fn verification_failed(&self, check: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let labels = [KeyValue::new("check", check)];
        self.instruments.verify_failures.add(count, &labels);
    }

    /// The newest checkpoint is `seconds` old; 0 while it covers the whole tree.
    pub fn checkpoint_age(&self, seconds: f64) {
        self.instruments.checkpoint_age.record(seconds, &[]);
    }

    /// The tree has so many entries.
    pub fn tree_size(&self, size: u64) {
        self.instruments.tree_size.record(size, &[]);
    }

    /// The oldest audit entry that the tree does not hold is `seconds` old; 0 if there is none.
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

fn whole(meter: &Meter, spec: &MetricSpec) -> Gauge<u64> {
    describe!(meter.u64_gauge(spec.name), spec).build()
}

fn fractional(meter: &Meter, spec: &MetricSpec) -> Gauge<f64> {
    describe!(meter.f64_gauge(spec.name), spec).build()
}

fn counter(meter: &Meter, spec: &MetricSpec) -> Counter<u64> {
    describe!(meter.u64_counter(spec.name), spec).build()
}

#[cfg(test)]
mod tests;
