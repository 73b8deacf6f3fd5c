//! The one declaration of every metric, and `docs/metrics.md` made from it.

use std::fmt::Write as _;

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
/// Buckets of the lag of webhooks, in seconds: from one that is applied at once to one that is tried for days.
const LAG_SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0, 172_800.0,
];
/// Buckets of batch sizes, in changes.
const BATCH_SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

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

pub(super) const RPC_DURATION: MetricSpec = MetricSpec {
    name: "rpc.server.call.duration",
    unit: "s",
    kind: Kind::Histogram(CALL_SECONDS),
    description: "Time from the arrival of an RPC to its last byte, streams included.",
    labels: &["rpc.system.name", "rpc.method", "rpc.status_code"],
    prometheus: "rpc_server_call_duration_seconds",
};
pub(super) const DATABASE_DURATION: MetricSpec = MetricSpec {
    name: "db.client.operation.duration",
    unit: "s",
    kind: Kind::Histogram(DATABASE_SECONDS),
    description: "Time of one database operation, the wait for a connection not included.",
    labels: &["db.system.name", "db.query.summary", "outcome"],
    prometheus: "db_client_operation_duration_seconds",
};
pub(super) const ATTEMPTS: MetricSpec = MetricSpec {
    name: "payment.attempts",
    unit: "{attempt}",
    kind: Kind::Counter,
    description: "Calls to a provider that ended, by what is known of them then.",
    labels: &["provider.account", "operation", "outcome", "cause"],
    prometheus: "payment_attempts_total",
};
pub(super) const PROVIDER_DURATION: MetricSpec = MetricSpec {
    name: "payment.provider.duration",
    unit: "s",
    kind: Kind::Histogram(PROVIDER_SECONDS),
    description: "Time of one call to a provider, connecting included.",
    labels: &["provider.account", "operation", "outcome"],
    prometheus: "payment_provider_duration_seconds",
};
pub(super) const RETRIES: MetricSpec = MetricSpec {
    name: "payment.retries",
    unit: "{retry}",
    kind: Kind::Counter,
    description: "Transactions that were taken up again: sent again, looked up, or sent to the next account.",
    labels: &["provider.account", "operation", "how"],
    prometheus: "payment_retries_total",
};
pub(super) const PENDING: MetricSpec = MetricSpec {
    name: "payment.pending.count",
    unit: "{transaction}",
    kind: Kind::Gauge,
    description: "Transactions whose outcome is not known yet, those that wait for the customer left out.",
    labels: &[],
    prometheus: "payment_pending_count",
};
pub(super) const PENDING_AGE: MetricSpec = MetricSpec {
    name: "payment.pending.oldest_age",
    unit: "s",
    kind: Kind::Gauge,
    description: "Age of the oldest transaction whose outcome is not known yet; 0 if there is none.",
    labels: &[],
    prometheus: "payment_pending_oldest_age_seconds",
};
pub(super) const BACKLOG: MetricSpec = MetricSpec {
    name: "payment.recovery.backlog",
    unit: "{transaction}",
    kind: Kind::Gauge,
    description: "Transactions that recovery should take up now, those that it is at included.",
    labels: &[],
    prometheus: "payment_recovery_backlog",
};
pub(super) const RECOVERIES: MetricSpec = MetricSpec {
    name: "payment.recovery.runs",
    unit: "{run}",
    kind: Kind::Counter,
    description: "Transactions that recovery took up, by how that ended.",
    labels: &["provider.account", "outcome"],
    prometheus: "payment_recovery_runs_total",
};
pub(super) const EXHAUSTED: MetricSpec = MetricSpec {
    name: "payment.recovery.exhausted",
    unit: "{transaction}",
    kind: Kind::Counter,
    description: "Transactions that recovery gave up on: they stay pending until a person decides.",
    labels: &["provider.account"],
    prometheus: "payment_recovery_exhausted_total",
};
pub(super) const EVENTS: MetricSpec = MetricSpec {
    name: "payment.events",
    unit: "{event}",
    kind: Kind::Counter,
    description: "Changes of payments that were committed, by what happened (the types of docs/notifications.md); `cause` is `none` where nothing failed.",
    labels: &["provider.account", "event_type", "cause"],
    prometheus: "payment_events_total",
};
pub(super) const CASES: MetricSpec = MetricSpec {
    name: "payment.operator_actions",
    unit: "{case}",
    kind: Kind::Counter,
    description: "Cases opened for a person, by what they are about.",
    labels: &["provider.account", "kind"],
    prometheus: "payment_operator_actions_total",
};
pub(super) const OPEN_CASES: MetricSpec = MetricSpec {
    name: "payment.operator_actions.open",
    unit: "{case}",
    kind: Kind::Gauge,
    description: "Cases that wait for a person.",
    labels: &[],
    prometheus: "payment_operator_actions_open",
};
pub(super) const CIRCUIT: MetricSpec = MetricSpec {
    name: "payment.provider.circuit",
    unit: "{circuit}",
    kind: Kind::Gauge,
    description: "Whether the circuit of an account is in this state, as this process sees it: 1 or 0.",
    labels: &["provider.account", "state"],
    prometheus: "payment_provider_circuit",
};
pub(super) const WEBHOOK_LAG: MetricSpec = MetricSpec {
    name: "payment.webhook.lag",
    unit: "s",
    kind: Kind::Histogram(LAG_SECONDS),
    description: "Time from the receipt of a webhook until it was applied, ignored or given up.",
    labels: &["provider.account", "outcome"],
    prometheus: "payment_webhook_lag_seconds",
};
pub(super) const WEBHOOK_BACKLOG: MetricSpec = MetricSpec {
    name: "payment.webhook.backlog",
    unit: "{webhook}",
    kind: Kind::Gauge,
    description: "Webhooks that wait to be applied, those that are tried again later included.",
    labels: &[],
    prometheus: "payment_webhook_backlog",
};
pub(super) const WEBHOOK_DEAD: MetricSpec = MetricSpec {
    name: "payment.webhook.dead",
    unit: "{webhook}",
    kind: Kind::Gauge,
    description: "Webhooks that are dead letters: verified, stored, and not applied.",
    labels: &[],
    prometheus: "payment_webhook_dead",
};
pub(super) const WEBHOOK_REJECTED: MetricSpec = MetricSpec {
    name: "payment.webhook.rejected",
    unit: "{webhook}",
    kind: Kind::Counter,
    description: "Webhooks that were refused, by cause; `_OTHER` stands for accounts that are not configured.",
    labels: &["provider.account", "cause"],
    prometheus: "payment_webhook_rejected_total",
};
pub(super) const WEBHOOKS_WIPED: MetricSpec = MetricSpec {
    name: "payment.webhook.wiped",
    unit: "{webhook}",
    kind: Kind::Counter,
    description: "Webhooks whose body was wiped: `done` after webhooks.keep_days, `dead` after webhooks.keep_dead_days, `unnamed` after webhooks.keep_unnamed_days.",
    labels: &["outcome"],
    prometheus: "payment_webhook_wiped_total",
};
pub(super) const NOTIFICATION_DURATION: MetricSpec = MetricSpec {
    name: "payment.notification.duration",
    unit: "s",
    kind: Kind::Histogram(PROVIDER_SECONDS),
    description: "Duration of one attempt to deliver a notification; `cause` is empty where it was delivered.",
    labels: &["outcome", "cause"],
    prometheus: "payment_notification_duration_seconds",
};
pub(super) const NOTIFICATION_LAG: MetricSpec = MetricSpec {
    name: "payment.notification.lag",
    unit: "s",
    kind: Kind::Histogram(LAG_SECONDS),
    description: "Time from the making of a notification until it was delivered or given up.",
    labels: &["outcome"],
    prometheus: "payment_notification_lag_seconds",
};
pub(super) const NOTIFICATION_BACKLOG: MetricSpec = MetricSpec {
    name: "payment.notification.backlog",
    unit: "{notification}",
    kind: Kind::Gauge,
    description: "Notifications that wait to be delivered, those that are tried again later included.",
    labels: &[],
    prometheus: "payment_notification_backlog",
};
pub(super) const NOTIFICATION_DEAD: MetricSpec = MetricSpec {
    name: "payment.notification.dead",
    unit: "{notification}",
    kind: Kind::Gauge,
    description: "Notifications that are dead letters: given up, and kept for a replay.",
    labels: &[],
    prometheus: "payment_notification_dead",
};
pub(super) const NOTIFICATION_UNPLANNED: MetricSpec = MetricSpec {
    name: "payment.notification.unplanned",
    unit: "{entry}",
    kind: Kind::Gauge,
    description: "Journal entries that notifications were not made from yet.",
    labels: &[],
    prometheus: "payment_notification_unplanned",
};
pub(super) const REPLAYS: MetricSpec = MetricSpec {
    name: "payment.idempotency.replays",
    unit: "{replay}",
    kind: Kind::Counter,
    description: "Requests that were answered from an earlier one with the same idempotency key.",
    labels: &["rpc.method"],
    prometheus: "payment_idempotency_replays_total",
};
pub(super) const BATCH_SIZE: MetricSpec = MetricSpec {
    name: "payment.commit.batch_size",
    unit: "{change}",
    kind: Kind::Histogram(BATCH_SIZES),
    description: "Changes that one database commit wrote together.",
    labels: &[],
    prometheus: "payment_commit_batch_size",
};
pub(super) const AUDIT_PENDING_AGE: MetricSpec = MetricSpec {
    name: "audit.pending.oldest_age",
    unit: "s",
    kind: Kind::Gauge,
    description: "Age of the oldest audit entry that the Merkle tree does not hold yet; 0 if it holds all.",
    labels: &[],
    prometheus: "audit_pending_oldest_age_seconds",
};
pub(super) const CHECKPOINT_AGE: MetricSpec = MetricSpec {
    name: "audit.checkpoint.age",
    unit: "s",
    kind: Kind::Gauge,
    description: "Age of the newest signed checkpoint; 0 while it covers the whole tree.",
    labels: &[],
    prometheus: "audit_checkpoint_age_seconds",
};
pub(super) const TREE_SIZE: MetricSpec = MetricSpec {
    name: "audit.tree.size",
    unit: "{entry}",
    kind: Kind::Gauge,
    description: "Entries in the Merkle tree, as the process that grows it knows.",
    labels: &[],
    prometheus: "audit_tree_size",
};

pub(super) const UNVERIFIED: MetricSpec = MetricSpec {
    name: "audit.entries.unverified",
    unit: "{entry}",
    kind: Kind::Counter,
    description: "Journal entries that were read and whose MAC does not verify: somebody wrote to the database past the service.",
    labels: &[],
    prometheus: "audit_entries_unverified_total",
};
pub(super) const VERIFY_FAILURES: MetricSpec = MetricSpec {
    name: "audit.verify.failures",
    unit: "{failure}",
    kind: Kind::Counter,
    description: "Checks of the audit log that found something wrong, by what was checked. Any is reason for a page.",
    labels: &["check"],
    prometheus: "audit_verify_failures_total",
};
pub(super) const COSIGNATURES: MetricSpec = MetricSpec {
    name: "audit.witness.cosignatures",
    unit: "{cosignature}",
    kind: Kind::Counter,
    description: "Checkpoints that were sent to a witness: `cosigned`, `failed` where it is away or answers nothing of use, or `refused` where it says that the log did not grow from what it cosigned. The last is reason for a page.",
    labels: &["witness", "result"],
    prometheus: "audit_witness_cosignatures_total",
};
pub(super) const VERIFICATIONS: MetricSpec = MetricSpec {
    name: "audit.verify.runs",
    unit: "{verification}",
    kind: Kind::Counter,
    description: "Scheduled verifications of the audit log: `intact`, `differs`, or `incomplete` where the database failed; and tries that found it being verified already, `busy`.",
    labels: &["result"],
    prometheus: "audit_verify_runs_total",
};
pub(super) const VERIFICATION_AGE: MetricSpec = MetricSpec {
    name: "audit.verify.age",
    unit: "s",
    kind: Kind::Gauge,
    description: "Since a scheduled verification of the audit log came to its end in this process, or since its start. One server verifies at a time: where the least of all is above two intervals (`audit.verify_interval_seconds`), verification is kept from running.",
    labels: &[],
    prometheus: "audit_verify_age_seconds",
};

/// Every metric of ours, in the order of `docs/metrics.md`.
pub const METRICS: &[MetricSpec] = &[
    RPC_DURATION,
    DATABASE_DURATION,
    ATTEMPTS,
    PROVIDER_DURATION,
    RETRIES,
    PENDING,
    PENDING_AGE,
    BACKLOG,
    RECOVERIES,
    EXHAUSTED,
    EVENTS,
    CASES,
    OPEN_CASES,
    CIRCUIT,
    WEBHOOK_LAG,
    WEBHOOK_BACKLOG,
    WEBHOOK_DEAD,
    WEBHOOK_REJECTED,
    WEBHOOKS_WIPED,
    NOTIFICATION_DURATION,
    NOTIFICATION_LAG,
    NOTIFICATION_BACKLOG,
    NOTIFICATION_DEAD,
    NOTIFICATION_UNPLANNED,
    REPLAYS,
    BATCH_SIZE,
    AUDIT_PENDING_AGE,
    CHECKPOINT_AGE,
    TREE_SIZE,
    UNVERIFIED,
    VERIFY_FAILURES,
    COSIGNATURES,
    VERIFICATIONS,
    VERIFICATION_AGE,
];

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
