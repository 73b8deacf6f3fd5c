//! Settings of telemetry, and how the standard `OTEL_*` variables override them.

use std::time::Duration;

use serde::Deserialize;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::error::Error;

/// Spans that may wait for export. When the queue is full, further spans are dropped and counted;
/// a payment never waits. Overridden by `OTEL_BSP_MAX_QUEUE_SIZE`.
pub const SPAN_QUEUE_LIMIT: usize = 8_192;
/// Spans of one export request. Overridden by `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
pub const SPAN_BATCH_LIMIT: usize = 1_024;
/// Longest time that a span waits for its batch to fill. Overridden by `OTEL_BSP_SCHEDULE_DELAY`.
pub const SPAN_EXPORT_DELAY: Duration = Duration::from_secs(1);
/// Time between two exports of metrics. Overridden by `OTEL_METRIC_EXPORT_INTERVAL`.
pub const METRIC_EXPORT_INTERVAL: Duration = Duration::from_secs(15);
/// Default of [`TelemetryConfig::shutdown_timeout`].
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Port that OTLP/gRPC is registered for: with no protocol configured, the endpoint's port decides.
const OTLP_GRPC_PORT: &str = ":4317";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line: for production.
    #[default]
    Json,
    /// One readable line an event: for development.
    Readable,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogOutput {
    /// Standard error: standard output stays free for what a command prints.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
}

/// How spans and metrics travel to the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP with protobuf bodies.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// What [`crate::init`] needs to know. An `OTEL_*` variable wins over the field of the same
/// meaning.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// `service.name`; default `quittance`. Overridden by `OTEL_SERVICE_NAME` and
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub service_name: String,
    /// `service.version`; default: this workspace's version.
    pub service_version: String,
    /// Which events are logged: a level, or `target=level` pairs separated by commas, as in
    /// `info,quittance_store=debug`. Default `info`. Events of other crates are never logged
    /// below WARN.
    pub log_filter: String,
    /// How log lines look; default JSON.
    pub log_format: LogFormat,
    /// Where log lines go; default standard error.
    pub log_output: LogOutput,
    /// Whether readable lines are coloured; default no. Ignored for JSON.
    pub log_colour: bool,
    /// The collector's URL, such as `http://localhost:4317`; default none: nothing is exported.
    /// Overridden by `OTEL_EXPORTER_OTLP_ENDPOINT` and its per-signal forms.
    pub otlp_endpoint: Option<String>,
    /// The protocol; default: gRPC when the endpoint's port is 4317, else HTTP/protobuf.
    /// Overridden by `OTEL_EXPORTER_OTLP_PROTOCOL` and its per-signal forms.
    pub otlp_protocol: Option<OtlpProtocol>,
    /// Longest time that a flush or a shutdown may take; default [`SHUTDOWN_TIMEOUT`].
    pub shutdown_timeout: Duration,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service_name: "quittance".to_owned(),
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            log_filter: "info".to_owned(),
            log_format: LogFormat::default(),
            log_output: LogOutput::default(),
            log_colour: false,
            otlp_endpoint: None,
            otlp_protocol: None,
            shutdown_timeout: SHUTDOWN_TIMEOUT,
        }
    }
}

impl TelemetryConfig {
    /// Parses [`Self::log_filter`].
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for anything but levels and `target=level` pairs.
    pub(crate) fn log_targets(&self) -> Result<Targets, Error> {
        const NAME: &str = "log_filter";
        // The parser takes a misspelt level for a target, and would then log nothing else.
        for part in self.log_filter.split(',').map(str::trim) {
            if !part.contains('=') && part.parse::<LevelFilter>().is_err() {
                return Err(Error::setting(NAME, format!("{part:?} is no level")));
            }
        }
        self.log_filter
            .parse()
            .map_err(|error| Error::setting(NAME, format!("{error}")))
    }
}

/// Looks a variable up. A parameter, so that tests need not change the process's environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the process's environment. An empty variable counts as unset, as OpenTelemetry's
/// specification asks.
pub(crate) fn process_environment(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

/// A kind of telemetry that is exported on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    const fn endpoint_variable(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            Self::Metrics => "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        }
    }

    const fn protocol_variable(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            Self::Metrics => "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        }
    }

    const fn exporter_variable(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_TRACES_EXPORTER",
            Self::Metrics => "OTEL_METRICS_EXPORTER",
        }
    }

    const fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }
}

/// Where one signal is exported to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Full URL, with the signal's path where the protocol is HTTP.
    pub(crate) endpoint: String,
    pub(crate) protocol: OtlpProtocol,
}

impl Destination {
    /// Where `signal` goes; `None` when it is not exported.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an unknown protocol or an unusable endpoint.
    pub(crate) fn resolve(
        signal: Signal,
        config: &TelemetryConfig,
        environment: Environment<'_>,
    ) -> Result<Option<Self>, Error> {
        let disabled = environment("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || environment(signal.exporter_variable()).is_some_and(|value| value == "none");
        if disabled {
            return Ok(None);
        }
        // A signal's own variable is the full URL; the general one is the base of both signals.
        let (endpoint, is_full) = match environment(signal.endpoint_variable()) {
            Some(endpoint) => (endpoint, true),
            None => match environment("OTEL_EXPORTER_OTLP_ENDPOINT")
                .or_else(|| config.otlp_endpoint.clone())
            {
                Some(endpoint) => (endpoint, false),
                None => return Ok(None),
            },
        };
        let endpoint = endpoint.trim().to_owned();
        check_endpoint(&endpoint)?;
        let protocol = protocol(signal, config, environment, &endpoint)?;
        let endpoint = match protocol {
            OtlpProtocol::HttpProtobuf if !is_full => {
                format!("{}{}", endpoint.trim_end_matches('/'), signal.http_path())
            }
            OtlpProtocol::HttpProtobuf | OtlpProtocol::Grpc => endpoint,
        };
        Ok(Some(Self { endpoint, protocol }))
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), Error> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        return Err(Error::setting(NAME, "must start with http:// or https://"));
    }
    // The endpoint shows up in start-up errors; a credential must not.
    if endpoint.contains('@') {
        return Err(Error::setting(
            NAME,
            "must not contain credentials; use OTEL_EXPORTER_OTLP_HEADERS",
        ));
    }
    Ok(())
}

fn protocol(
    signal: Signal,
    config: &TelemetryConfig,
    environment: Environment<'_>,
    endpoint: &str,
) -> Result<OtlpProtocol, Error> {
    let from_environment = environment(signal.protocol_variable())
        .or_else(|| environment("OTEL_EXPORTER_OTLP_PROTOCOL"));
    match from_environment.as_deref() {
        Some("grpc") => Ok(OtlpProtocol::Grpc),
        Some("http/protobuf") => Ok(OtlpProtocol::HttpProtobuf),
        Some(other) => Err(Error::setting(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            format!("{other:?} is not supported; use grpc or http/protobuf"),
        )),
        None => Ok(config.otlp_protocol.unwrap_or_else(|| {
            if endpoint.trim_end_matches('/').ends_with(OTLP_GRPC_PORT) {
                OtlpProtocol::Grpc
            } else {
                OtlpProtocol::HttpProtobuf
            }
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        signal: Signal,
        config: &TelemetryConfig,
        variables: &[(&str, &str)],
    ) -> Result<Option<Destination>, Error> {
        Destination::resolve(signal, config, &|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn destination(endpoint: &str, protocol: OtlpProtocol) -> Destination {
        Destination {
            endpoint: endpoint.to_owned(),
            protocol,
        }
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        let config = TelemetryConfig::default();
        assert_eq!(resolve(Signal::Traces, &config, &[]).unwrap(), None);
        assert_eq!(resolve(Signal::Metrics, &config, &[]).unwrap(), None);
    }

    #[test]
    fn the_port_decides_when_no_protocol_is_configured() {
        let config = TelemetryConfig::default();
        let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
        assert_eq!(
            resolve(
                Signal::Traces,
                &config,
                &[(general, "http://collector:4317")]
            )
            .unwrap(),
            Some(destination("http://collector:4317", OtlpProtocol::Grpc))
        );
        assert_eq!(
            resolve(
                Signal::Metrics,
                &config,
                &[(general, "http://collector:4318/")]
            )
            .unwrap(),
            Some(destination(
                "http://collector:4318/v1/metrics",
                OtlpProtocol::HttpProtobuf
            ))
        );
    }

    #[test]
    fn the_environment_wins_over_the_configuration_and_a_signals_own_variable_over_both() {
        let config = TelemetryConfig {
            otlp_endpoint: Some("http://configured:1".to_owned()),
            otlp_protocol: Some(OtlpProtocol::Grpc),
            ..TelemetryConfig::default()
        };
        let variables = [
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "https://traces:2/own/path",
            ),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ];
        assert_eq!(
            resolve(Signal::Traces, &config, &variables).unwrap(),
            Some(destination(
                "https://traces:2/own/path",
                OtlpProtocol::HttpProtobuf
            ))
        );
        assert_eq!(
            resolve(Signal::Metrics, &config, &variables).unwrap(),
            Some(destination("http://configured:1", OtlpProtocol::Grpc))
        );
    }

    #[test]
    fn a_signal_can_be_switched_off() {
        let config = TelemetryConfig {
            otlp_endpoint: Some("http://collector:4317".to_owned()),
            ..TelemetryConfig::default()
        };
        let off = [("OTEL_METRICS_EXPORTER", "none")];
        assert_eq!(resolve(Signal::Metrics, &config, &off).unwrap(), None);
        assert!(resolve(Signal::Traces, &config, &off).unwrap().is_some());
        let disabled = [("OTEL_SDK_DISABLED", "true")];
        assert_eq!(resolve(Signal::Traces, &config, &disabled).unwrap(), None);
    }

    #[test]
    fn unusable_settings_are_refused_without_repeating_credentials() {
        let config = TelemetryConfig::default();
        for endpoint in ["collector:4317", "https://user:secret@collector"] {
            let error = resolve(
                Signal::Traces,
                &config,
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)],
            )
            .unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let unknown = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ];
        assert!(resolve(Signal::Traces, &config, &unknown).is_err());
        let bad = TelemetryConfig {
            log_filter: "loud".to_owned(),
            ..config
        };
        assert!(bad.log_targets().is_err());
    }
}
