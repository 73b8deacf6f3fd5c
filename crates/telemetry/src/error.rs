//! What can go wrong while telemetry is set up or shut down.

use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::error::OTelSdkError;

/// Why telemetry could not be set up or shut down. Nothing here concerns a payment: once set up,
/// telemetry never fails a caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting or an `OTEL_*` variable has a value that cannot be used.
    #[error("telemetry setting {name}: {reason}")]
    InvalidSetting {
        /// The setting's or variable's name.
        name: &'static str,
        /// What is wrong with it, and what is expected.
        reason: String,
    },
    /// The OTLP exporter could not be built.
    #[error("OTLP exporter: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The metrics pipeline could not be built.
    #[error("metrics pipeline: {0}")]
    Metrics(#[source] OTelSdkError),
    /// The exporter's own runtime could not be started.
    #[error("exporter runtime: {0}")]
    Runtime(#[source] std::io::Error),
    /// The process already has a tracing subscriber.
    #[error("a tracing subscriber is already installed in this process")]
    AlreadyInstalled,
    /// The last batch could not be delivered before the time limit.
    #[error("telemetry was not flushed completely: {0}")]
    Incomplete(String),
}

impl Error {
    pub(crate) fn setting(name: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidSetting {
            name,
            reason: reason.into(),
        }
    }
}
