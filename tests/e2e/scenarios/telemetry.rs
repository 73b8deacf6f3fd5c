//! Follows one payment from the caller's span to the audit entries, at a real collector.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use quittance_proto::v1::PaymentState;

use crate::harness::collector::{Collector, attribute};
use crate::harness::process::ServerProcess;
use crate::harness::python::{python_or_skip, run};
use crate::harness::site::Setting;
use crate::harness::{Site, SiteOptions, World, purchase, sync};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn exported_to(collector: &Collector) -> Vec<Setting> {
    vec![
        ("telemetry.otlp_endpoint", collector.endpoint().into()),
        ("telemetry.otlp_protocol", "grpc".into()),
    ]
}

/// The spans' names from one span up to the caller's.
fn ancestors<'a>(spans: &'a HashMap<&[u8], &'a Span>, of: &'a Span) -> Vec<&'a str> {
    let mut names = Vec::new();
    let mut parent = of.parent_span_id.as_slice();
    while let Some(span) = spans.get(parent) {
        names.push(span.name.as_str());
        parent = span.parent_span_id.as_slice();
    }
    assert_eq!(
        hex::encode(parent),
        SPAN,
        "{} leads to the caller: {names:?}",
        of.name
    );
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_payment_is_followed_from_the_caller_s_span_to_its_audit_entries() {
    let site = Site::new(SiteOptions::default()).await;
    let collector = Collector::start().await;
    let server = ServerProcess::start(&site, exported_to(&collector)).await;
    let client = server.client.traced(TRACE, SPAN);
    let answer = client.ok(purchase("tok_approve", 100)).await;
    assert_eq!(answer.trace_id(), TRACE);
    let payment = answer.message.payment.unwrap();
    let entries = server.client.entries_of(&payment.payment_id).await;
    let log = server.stop().await;

    let spans = collector.trace(TRACE);
    let by_id: HashMap<&[u8], &Span> = spans
        .iter()
        .map(|span| (span.span_id.as_slice(), span))
        .collect();

    let method = "quittance.v1.PaymentService/CreatePayment";
    let servers: Vec<_> = spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Server)
        .collect();
    let [server_span] = servers[..] else {
        panic!("one server span, not {servers:?}")
    };
    assert_eq!(server_span.name, method);
    assert_eq!(hex::encode(&server_span.parent_span_id), SPAN);
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", method),
        ("rpc.status_code", "OK"),
    ] {
        assert_eq!(attribute(server_span, key).as_deref(), Some(value), "{key}");
    }

    let database: Vec<_> = spans
        .iter()
        .filter(|span| attribute(span, "db.system.name").is_some())
        .collect();
    let recorded: HashSet<_> = database
        .iter()
        .filter_map(|span| attribute(span, "audit.entry_id"))
        .collect();
    for span in &database {
        assert_eq!(
            attribute(span, "db.system.name").as_deref(),
            Some("postgresql")
        );
        assert!(attribute(span, "db.query.summary").is_some(), "{span:?}");
        assert!(ancestors(&by_id, span).contains(&method));
    }
    let commits: Vec<_> = database
        .iter()
        .filter(|span| attribute(span, "audit.entry_id").is_some())
        .collect();
    assert_eq!(commits.len(), 2, "a span per commit: accepted, outcome");
    assert!(
        commits
            .iter()
            .all(|s| attribute(s, "payment.id").as_ref() == Some(&payment.payment_id))
    );

    let attempts: Vec<_> = spans
        .iter()
        .filter(|span| attribute(span, "http.request.method").is_some())
        .collect();
    let [attempt] = attempts[..] else {
        panic!("one attempt, not {attempts:?}")
    };
    assert_eq!(attempt.kind(), SpanKind::Client);
    assert_eq!(
        attribute(attempt, "http.response.status_code").as_deref(),
        Some("200")
    );
    assert_eq!(
        attribute(attempt, "http.request.resend_count"),
        None,
        "from the first resend"
    );
    assert!(ancestors(&by_id, attempt).contains(&method));

    // The link: an entry names the span that committed it, and that span names the entry.
    let ids: HashSet<_> = entries.iter().map(|entry| entry.entry_id.clone()).collect();
    assert_eq!(recorded, ids);
    for entry in &entries {
        assert_eq!(
            (entry.trace_id.as_str(), entry.remote_span_id.as_str()),
            (TRACE, SPAN)
        );
        let span = by_id.get(hex::decode(&entry.span_id).unwrap().as_slice());
        assert!(
            span.is_some(),
            "the entry's span {} was exported",
            entry.span_id
        );
        let line = log
            .lines()
            .find(|line| line.contains("payment.audit.recorded") && line.contains(&entry.entry_id))
            .unwrap_or_else(|| panic!("no log record for entry {}", entry.entry_id));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["trace_id"], TRACE);
        assert_eq!(line["payment.id"], payment.payment_id);
        assert_eq!(line["audit.entry_id"], entry.entry_id);
    }
    assert!(
        !format!("{spans:?}{log}").contains("tok_approve"),
        "the token is nowhere"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_not_sampled_does_not_suppress_a_payment_s_trace() {
    let site = Site::new(SiteOptions::default()).await;
    let collector = Collector::start().await;
    let server = ServerProcess::start(&site, exported_to(&collector)).await;
    let client = server
        .client
        .with("traceparent", &format!("00-{TRACE}-{SPAN}-00"));
    client.create(purchase("tok_approve", 100)).await;
    server.stop().await;
    assert!(!collector.trace(TRACE).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resend_is_a_client_span_of_its_own_with_its_count_and_fails_nobody_above() {
    let site = Site::new(SiteOptions::default()).await;
    let collector = Collector::start().await;
    let server = ServerProcess::start(&site, exported_to(&collector)).await;
    let lost = server
        .client
        .create(purchase("tok_error_500_then_approve", 100))
        .await;
    assert_eq!(lost.state(), PaymentState::Pending);
    site.let_leases_run_out().await;
    site.let_waits_end().await;
    let answer = server.client.traced(TRACE, SPAN).ok(sync(&lost)).await;
    assert_eq!(
        answer.message.payment.unwrap().state(),
        PaymentState::Captured
    );
    server.stop().await;
    let spans = collector.trace(TRACE);
    let sends: Vec<_> = spans
        .iter()
        .filter(|span| attribute(span, "http.request.method").as_deref() == Some("POST"))
        .collect();
    let [resend] = sends[..] else {
        panic!("one resend, not {sends:?}")
    };
    assert_eq!(
        attribute(resend, "http.request.resend_count").as_deref(),
        Some("1")
    );
    let failed: Vec<_> = collector
        .spans()
        .into_iter()
        .filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2))
        .filter(|span| span.kind() == SpanKind::Server)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_payments_is_counted_by_account_event_and_cause() {
    let world = World::start().await;
    world.client.create(purchase("tok_approve", 100)).await;
    world.client.create(purchase("tok_approve", 200)).await;
    world.client.create(purchase("tok_decline", 300)).await;
    let counted = |event: &str, cause: &str| {
        let labels =
            format!("cause=\"{cause}\",event_type=\"{event}\",provider_account=\"sandbox\"");
        world.metric(&format!("payment_events_total{{{labels}"))
    };
    assert_eq!(counted("payment.accepted", "none"), Some(3.0));
    assert_eq!(counted("payment.captured", "none"), Some(2.0));
    assert_eq!(counted("payment.declined", "DO_NOT_HONOR"), Some(1.0));
}

/// Reads what Prometheus is given as it does. Pinned.
const RULE_READERS: [&str; 2] = ["promql-parser==0.12.0", "pyyaml==6.0.4"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_alert_is_in_the_language_of_prometheus() {
    let Some(python) = python_or_skip("python-promql", &RULE_READERS).await else {
        return;
    };
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = tests.join("../deploy/prometheus/rules.yml");
    let alerts = std::fs::read_to_string(&rules).unwrap();
    let alerts = alerts.matches("- alert: ").count();
    let output = tokio::task::spawn_blocking(move || {
        run(Command::new(python)
            .arg(tests.join("python/alerts.py"))
            .arg(rules))
    });
    let output = output.await.unwrap();
    let read = output.unwrap_or_else(|failure| panic!("{failure}")).stdout;
    assert_eq!(String::from_utf8(read).unwrap().trim(), alerts.to_string());
}
