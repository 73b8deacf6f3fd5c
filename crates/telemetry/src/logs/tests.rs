use serde_json::Value;

use super::*;
use crate::TelemetryConfig;
use crate::setup::{test_pipeline, test_pipeline_with};

fn json(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_line_carries_its_event_and_the_ids_of_its_span() {
    let pipeline = test_pipeline();
    let ids = tracing::dispatcher::with_default(&pipeline.dispatch, || {
        let span = tracing::info_span!("commit");
        span.in_scope(|| {
            tracing::info!(
                name: "payment.audit.recorded",
                {
                    payment.id = %"0198d2c4-7b1e-7aaa-8bbb-0123456789ab",
                    audit.sequence = 3_u64,
                    idempotency.replayed = false
                },
                "audit entry recorded"
            );
            crate::current_ids()
        })
    });
    let lines = json(&pipeline.log_lines());
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(line["event"], "payment.audit.recorded");
    assert_eq!(line["message"], "audit entry recorded");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], "quittance_telemetry::logs::tests");
    assert_eq!(line["payment.id"], "0198d2c4-7b1e-7aaa-8bbb-0123456789ab");
    assert_eq!(line["audit.sequence"], 3);
    assert_eq!(line["idempotency.replayed"], false);
    assert_eq!(line["trace_id"], ids.trace_id_hex());
    assert_eq!(line["span_id"], ids.span_id_hex());
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn an_event_with_an_explicit_parent_carries_that_spans_ids() {
    let pipeline = test_pipeline();
    let ids = tracing::dispatcher::with_default(&pipeline.dispatch, || {
        let span = tracing::info_span!("authorize");
        tracing::info!(parent: &span, "batched");
        tracing::info!(parent: None, "alone");
        crate::span_ids(&span)
    });
    let lines = json(&pipeline.log_lines());
    assert_eq!(lines[0]["span_id"], ids.span_id_hex());
    assert_eq!(lines[1].get("span_id"), None);
}

#[test]
fn the_ids_are_there_also_when_only_errors_are_logged() {
    let config = TelemetryConfig {
        log_filter: "error".to_owned(),
        ..TelemetryConfig::default()
    };
    let pipeline = test_pipeline_with(&config);
    tracing::dispatcher::with_default(&pipeline.dispatch, || {
        let _entered = tracing::info_span!("authorize").entered();
        tracing::warn!("not logged");
        tracing::error!("logged");
    });
    let lines = json(&pipeline.log_lines());
    assert_eq!(lines.len(), 1);
    assert!(lines[0].get("trace_id").is_some());
}

#[test]
fn only_listed_fields_are_shown_and_nobody_can_forge_a_line() {
    let pipeline = test_pipeline();
    tracing::dispatcher::with_default(&pipeline.dispatch, || {
        tracing::warn!(
            provider_token = "tok_secret",
            card = 4_111_111_111_111_111_u64,
            cvc = 123,
            request.id = "x\r\n{\"level\":\"ERROR\"}",
            count = 4_111_111_111_111_111_u64,
            "paid with 4111 1111 1111 1111\nforged \"line\""
        );
    });
    let lines = pipeline.log_lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        !lines[0].contains("tok_secret") && !lines[0].contains("4111"),
        "{lines:?}"
    );
    let line = &json(&lines)[0];
    for name in ["provider_token", "card", "cvc"] {
        assert_eq!(line[name], redact::REDACTED);
    }
    assert_eq!(line["request.id"], "x\\r\\n{\"level\":\"ERROR\"}");
    assert_eq!(line["count"], redact::CARD_NUMBER_MASK);
    assert_eq!(line["message"], "paid with <card number>\\nforged \"line\"");
}

#[test]
fn other_crates_are_logged_from_warn_on_and_without_fields() {
    let pipeline = test_pipeline();
    tracing::dispatcher::with_default(&pipeline.dispatch, || {
        tracing::info!(target: "diesel", "too detailed");
        tracing::error!(target: "h2::client", "exporter traffic");
        tracing::warn!(
            target: "tokio_postgres",
            { payment.id = "p", sql = "s" },
            "lost 4111111111111111"
        );
        tracing::error!(name: "ExportFailed", target: "opentelemetry_sdk", error = "e");
    });
    let lines = json(&pipeline.log_lines());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["message"], "lost <card number>");
    assert_eq!(lines[0].get("payment.id"), None);
    assert_eq!(lines[0].get("sql"), None);
    assert_eq!(lines[1]["event"], "ExportFailed");
    assert_eq!(lines[1].get("error"), None);
}

#[test]
fn readable_lines_hold_the_same() {
    let config = TelemetryConfig {
        log_format: LogFormat::Readable,
        log_filter: "warn,quittance_telemetry=debug".to_owned(),
        ..TelemetryConfig::default()
    };
    let pipeline = test_pipeline_with(&config);
    tracing::dispatcher::with_default(&pipeline.dispatch, || {
        tracing::debug!(
            outcome = "approved",
            cause = "two words",
            secret = "s",
            "attempt\nended"
        );
    });
    let lines = pipeline.log_lines();
    assert_eq!(lines.len(), 1);
    let end = "DEBUG quittance_telemetry::logs::tests: attempt\\nended outcome=approved \
               cause=\"two words\" secret=<redacted>";
    assert!(lines[0].ends_with(end), "{lines:?}");
}
