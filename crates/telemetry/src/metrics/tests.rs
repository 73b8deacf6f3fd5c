use super::*;
use crate::setup::{Telemetry, test_telemetry};

fn record_everything(telemetry: &Telemetry) {
    let metrics = telemetry.metrics();
    metrics.rpc_finished("quittance.v1.PaymentService/CreatePayment", "OK", 0.02);
    metrics.db_operation("commit changes", 0.003, true);
    metrics.attempt("sandbox", "authorize", "approved", "none", 0.1);
    metrics.retry("sandbox", "authorize", "lookup");
    metrics.recovered("sandbox", "settled");
    metrics.recovery_exhausted("sandbox");
    metrics.event("sandbox", "payment.captured", "none");
    metrics.case_opened("sandbox", "RECOVERY_EXHAUSTED");
    metrics.circuit("sandbox", "open", &["closed", "half_open", "open"]);
    metrics.webhook_rejected(Some("sandbox"), "signature");
    metrics.webhook_rejected(None, "unknown_account");
    metrics.webhook_done("sandbox", "applied", 0.03);
    metrics.webhook_backlog(4, 1);
    metrics.notification_attempt("failed", Some("TIMEOUT"), 0.2);
    metrics.notification_ended("delivered", 0.4);
    metrics.notifications_waiting(5);
    metrics.notifications_dead(2);
    metrics.notifications_unplanned(7);
    metrics.webhooks_wiped("done", 1);
    metrics.unverified_entries(2);
    metrics.idempotency_replay("quittance.v1.PaymentService/CreatePayment");
    metrics.commit_batch(17);
    metrics.pending(&Pending {
        transactions: 3,
        oldest_age: 61.5,
        due: 2,
        open_cases: 1,
    });
    metrics.audit_pending_age(0.25);
    metrics.checkpoint_age(0.5);
    metrics.tree_size(9);
    metrics.verification_failed("entry", 1);
    metrics.log_verified("intact");
    metrics.witness_asked("witness.example/w1", "cosigned");
    metrics.verification_age(60.0);
}

#[test]
fn every_declared_metric_appears_for_prometheus_under_its_declared_name() {
    let telemetry = test_telemetry();
    record_everything(&telemetry);
    let text = telemetry.prometheus_text();
    for spec in METRICS {
        let kind = match spec.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let line = format!("# TYPE {} {kind}\n", spec.prometheus);
        assert!(text.contains(&line), "{line} missing in\n{text}");
        let series = text
            .lines()
            .find(|line| line.starts_with(spec.prometheus) && line.len() > spec.prometheus.len());
        for label in spec.labels {
            let label = format!("{}=", label.replace('.', "_"));
            assert!(
                series.unwrap().contains(&label),
                "{label} missing in {series:?}"
            );
        }
    }
    assert!(
        text.contains("rpc_server_call_duration_seconds_bucket{"),
        "{text}"
    );
    assert!(
        text.contains("le=\"0.005\"") && text.contains("le=\"10\""),
        "{text}"
    );
    for series in [
        "payment_commit_batch_size_sum 17",
        "payment_pending_oldest_age_seconds 61.5",
        "payment_webhook_backlog 4",
        "payment_webhook_dead 1",
        "payment_notification_backlog 5",
        "payment_notification_dead 2",
        "payment_notification_unplanned 7",
        "payment_webhook_rejected_total{cause=\"unknown_account\",provider_account=\"_OTHER\"} 1",
        "payment_provider_circuit{provider_account=\"sandbox\",state=\"open\"} 1",
        "payment_provider_circuit{provider_account=\"sandbox\",state=\"closed\"} 0",
    ] {
        assert!(text.contains(series), "{series} missing in\n{text}");
    }
}

#[test]
fn known_counters_start_at_zero() {
    let telemetry = test_telemetry();
    telemetry.metrics().start_at_zero(&KnownLabels {
        idempotent_rpcs: &["quittance.v1.PaymentService/RefundPayment"],
        provider_accounts: &["sandbox", "stripe-eu"],
        operations: &["authorize"],
        outcomes: &[("unknown", "timeout")],
        retries: &["lookup"],
        recoveries: &["settled"],
        cases: &["RECOVERY_EXHAUSTED"],
        webhook_rejections: &["signature"],
        audit_checks: &["entry"],
    });
    let text = telemetry.prometheus_text();
    for series in [
        "payment_idempotency_replays_total{rpc_method=\"quittance.v1.PaymentService/RefundPayment\"} 0",
        "payment_retries_total{how=\"lookup\",operation=\"authorize\",provider_account=\"stripe-eu\"} 0",
        "payment_recovery_runs_total{outcome=\"settled\",provider_account=\"sandbox\"} 0",
        "payment_recovery_exhausted_total{provider_account=\"sandbox\"} 0",
        "payment_operator_actions_total{kind=\"RECOVERY_EXHAUSTED\",provider_account=\"sandbox\"} 0",
        "audit_entries_unverified_total 0",
        "payment_webhook_rejected_total{cause=\"signature\",provider_account=\"stripe-eu\"} 0",
        "payment_attempts_total{cause=\"timeout\",operation=\"authorize\",outcome=\"unknown\",provider_account=\"sandbox\"} 0",
    ] {
        assert!(text.contains(series), "{series} missing in\n{text}");
    }
}

#[test]
fn the_documentation_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, markdown()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        written,
        markdown(),
        "run with UPDATE_DOCS=1 to write it anew"
    );
}

/// Of each rule for Prometheus its name, what it asks for, and where to read on.
fn alerts() -> Vec<(String, String, String)> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/prometheus/rules.yml"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let value = |rule: &str, key: &str| {
        let mut lines = rule.lines().map(str::trim);
        let found = lines.find_map(|line| line.strip_prefix(key));
        found
            .unwrap_or_else(|| panic!("no {key} in {rule}"))
            .to_owned()
    };
    let rules = text.split("- alert: ").skip(1);
    let rule = |rule: &str| {
        let name = rule.lines().next().unwrap().to_owned();
        (name, value(rule, "expr: "), value(rule, "runbook: "))
    };
    rules.map(rule).collect()
}

/// Prometheus' own: whether the last scrape was answered.
const UP: &str = "up";
/// What expressions call that looks like a metric.
const FUNCTIONS: [&str; 1] = ["histogram_quantile"];

/// The metric that a series is of; a histogram has three.
fn metric(series: &str) -> Option<&'static MetricSpec> {
    METRICS.iter().find(|spec| match spec.kind {
        Kind::Counter | Kind::Gauge => spec.prometheus == series,
        Kind::Histogram(_) => {
            let ending = series.strip_prefix(spec.prometheus);
            ending.is_some_and(|ending| ["_bucket", "_sum", "_count"].contains(&ending))
        }
    })
}

fn is_label(word: &str) -> bool {
    let mut labels = METRICS.iter().flat_map(|spec| spec.labels);
    labels.any(|label| label.replace('.', "_") == word)
}

fn is_no_name(it: char) -> bool {
    !(it.is_ascii_lowercase() || it == '_')
}

/// Words of an expression that are to be names of series: those outside of braces that are neither called nor labels.
fn series(expression: &str) -> Vec<&str> {
    let outside = expression
        .split('{')
        .map(|part| part.rsplit('}').next().unwrap());
    let words = outside.flat_map(|part| part.split(is_no_name));
    let named = |word: &&str| word.contains('_') && !FUNCTIONS.contains(word) && !is_label(word);
    words.filter(|word| *word == UP || named(word)).collect()
}

/// Of each pair of braces the series before it, and the labels by which it chooses.
fn selectors(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let mut parts = expression.split('{');
    let mut before = parts.next().unwrap();
    let mut selectors = Vec::new();
    for part in parts {
        let (matchers, behind) = part.split_once('}').unwrap();
        let chosen = before.rsplit(is_no_name).next().unwrap();
        let labels = matchers
            .split(',')
            .map(|matcher| matcher.split(['=', '!']).next().unwrap());
        selectors.push((chosen, labels.collect()));
        before = behind;
    }
    selectors
}

#[test]
fn alerts_are_about_metrics_that_there_are_and_say_where_to_read_on() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut watched = Vec::new();
    for (name, expression, runbook) in alerts() {
        let asked = series(&expression);
        assert!(!asked.is_empty(), "{name} asks for nothing");
        for one in &asked {
            let known = *one == UP || metric(one).is_some();
            assert!(known, "{name}: {one} is no metric");
        }
        for (chosen, labels) in selectors(&expression) {
            if chosen == UP {
                continue;
            }
            let spec = metric(chosen).unwrap();
            for label in labels {
                let mut known = spec.labels.iter().map(|known| known.replace('.', "_"));
                assert!(
                    known.any(|known| known == label),
                    "{name}: {chosen} has no label {label}"
                );
            }
        }
        watched.extend(asked.into_iter().map(str::to_owned));
        let (file, heading) = runbook.split_once(", ").unwrap();
        let text = std::fs::read_to_string(format!("{root}/{file}")).unwrap();
        let heading = format!("# {}\n", heading.trim_matches('"'));
        assert!(text.contains(&heading), "{name}: {file} has no {heading}");
    }
    // What nobody may overlook.
    for name in [
        "payment_recovery_exhausted_total",
        "payment_operator_actions_open",
        "payment_webhook_dead",
        "payment_notification_dead",
        "audit_verify_failures_total",
        "audit_entries_unverified_total",
        "audit_pending_oldest_age_seconds",
    ] {
        assert!(watched.iter().any(|watched| watched == name), "{name}");
    }
}
