//! Traces, metrics and logs of Quittance.
//!
//! - [`init`] sets up OpenTelemetry tracing, the metrics and the log output, from a
//!   [`TelemetryConfig`] and the standard `OTEL_*` variables.
//! - [`Metrics`] records what the service measures. Every metric is declared in
//!   [`metrics::METRICS`]; `docs/metrics.md` is generated from it.
//! - [`context`] moves W3C trace context in and out of headers, and tells which trace the
//!   current code runs in, so that an audit entry can name it.
//! - [`fields::ALLOWED`] is the one table of field names that may appear in a log line or on an
//!   exported span. Everything else is redacted (invariant I10).
//!
//! Without an OTLP endpoint nothing is exported, but spans still have valid trace ids: every
//! audit entry stores one. Losing the collector loses telemetry, never an audit entry.

pub mod config;
pub mod context;
mod error;
mod export;
pub mod fields;
mod logs;
pub mod metrics;
pub mod redact;
mod sampler;
mod setup;

pub use config::{LogFormat, LogOutput, OtlpProtocol, TelemetryConfig};
pub use context::{
    TraceIds, add_link, current_ids, inject, remote_parent_ids, set_parent, span_ids,
    trace_context_from_headers,
};
pub use error::Error;
pub use export::ensure_crypto_provider;
pub use metrics::{KnownLabels, Metrics, Pending};
pub use setup::{PrometheusText, Telemetry, init};
