//! Puts the pieces together: subscriber, tracer provider, meter provider, exporters; and takes
//! them down within a time limit.

use std::sync::mpsc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfig, BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use prometheus::{Registry, TextEncoder};
use tokio::runtime::{Builder, Runtime};
use tracing::Dispatch;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{
    Destination, Environment, LogOutput, METRIC_EXPORT_INTERVAL, SPAN_BATCH_LIMIT,
    SPAN_EXPORT_DELAY, SPAN_QUEUE_LIMIT, Signal, TelemetryConfig, process_environment,
};
use crate::error::Error;
use crate::logs::{LogFilter, LogLayer, SPAN_LEVEL, is_recorded_span};
use crate::metrics::Metrics;
use crate::{export, sampler};

/// Name of the instrumentation scope of our spans and metrics.
const SCOPE: &str = "quittance";
/// Threads of the exporter's runtime: one, since there is one batch in flight per signal.
const EXPORTER_THREADS: usize = 1;

/// Sets telemetry up for this process and installs its tracing subscriber. Needs no runtime: the
/// exporters bring one, so that a slow collector takes nothing from payments.
///
/// # Errors
/// [`Error::InvalidSetting`] or [`Error::Exporter`] for settings that cannot be used, and
/// [`Error::AlreadyInstalled`] if the process has a tracing subscriber. That the collector cannot
/// be reached is no error.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, Error> {
    let (telemetry, dispatch) = Telemetry::new(config)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| Error::AlreadyInstalled)?;
    Ok(telemetry)
}

/// Telemetry of this process, once set up. Dropping it shuts it down as [`Telemetry::shutdown`]
/// does.
#[derive(Debug)]
#[must_use = "dropping it ends the export of spans"]
pub struct Telemetry {
    tracer_provider: SdkTracerProvider,
    meter_provider: SdkMeterProvider,
    metrics: Metrics,
    prometheus: PrometheusText,
    /// Present only while something is exported.
    exporter_runtime: Option<Runtime>,
    shutdown_timeout: Duration,
    is_closed: bool,
}

/// Renders all metrics for `/metrics`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PrometheusText {
    registry: Registry,
}

impl PrometheusText {
    /// All metrics in Prometheus' text format 0.0.4 (`text/plain; version=0.0.4`).
    #[must_use]
    pub fn render(&self) -> String {
        // Fails only for a family without a name or series, which none of ours is.
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

impl Telemetry {
    /// Like [`init`], but leaves the subscriber to the caller: for tests, which run several in one
    /// process.
    ///
    /// # Errors
    /// As [`init`], but for `AlreadyInstalled`.
    pub fn new(config: &TelemetryConfig) -> Result<(Self, Dispatch), Error> {
        let writer = match config.log_output {
            LogOutput::Stderr => BoxMakeWriter::new(std::io::stderr),
            LogOutput::Stdout => BoxMakeWriter::new(std::io::stdout),
        };
        Self::with_environment(config, &process_environment, writer)
    }

    fn with_environment(
        config: &TelemetryConfig,
        environment: Environment<'_>,
        writer: BoxMakeWriter,
    ) -> Result<(Self, Dispatch), Error> {
        let traces = Destination::resolve(Signal::Traces, config, environment)?;
        let metrics = Destination::resolve(Signal::Metrics, config, environment)?;
        let runtime = match (&traces, &metrics) {
            (None, None) => None,
            (_, _) => Some(exporter_runtime()?),
        };
        let resource = resource(config, environment);
        let tracer_provider = tracer_provider(
            traces.as_ref(),
            runtime.as_ref(),
            resource.clone(),
            environment,
        )?;
        let registry = Registry::new();
        let meter_provider = meter_provider(
            metrics.as_ref(),
            runtime.as_ref(),
            resource,
            &registry,
            environment,
        )?;
        let dispatch = subscriber(tracer_provider.tracer(SCOPE), config, writer)?;
        let telemetry = Self {
            tracer_provider,
            metrics: Metrics::new(&meter_provider.meter(SCOPE)),
            meter_provider,
            prometheus: PrometheusText { registry },
            exporter_runtime: runtime,
            shutdown_timeout: config.shutdown_timeout,
            is_closed: false,
        };
        Ok((telemetry, dispatch))
    }

    /// The recorder of metrics.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// A handle that renders the metrics, for whoever serves `/metrics`.
    #[must_use]
    pub fn prometheus(&self) -> PrometheusText {
        self.prometheus.clone()
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn prometheus_text(&self) -> String {
        self.prometheus.render()
    }

    /// Exports what waits. Blocks, at most for [`TelemetryConfig::shutdown_timeout`]; does nothing
    /// where nothing is exported.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if the collector did not take it in time.
    pub fn flush(&self) -> Result<(), Error> {
        if self.exporter_runtime.is_none() {
            return Ok(());
        }
        let (traces, metrics) = (self.tracer_provider.clone(), self.meter_provider.clone());
        within_limit(self.shutdown_timeout, move || {
            both(traces.force_flush(), metrics.force_flush())
        })
    }

    /// Exports what waits, and ends. Spans that begin later have no ids: call it when the last
    /// payment is done. Blocks, at most for [`TelemetryConfig::shutdown_timeout`].
    ///
    /// # Errors
    /// [`Error::Incomplete`] if the collector did not take everything in time; telemetry has ended
    /// all the same.
    pub fn shutdown(mut self) -> Result<(), Error> {
        self.close()
    }

    fn close(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_closed, true) {
            return Ok(());
        }
        let timeout = self.shutdown_timeout;
        let (traces, metrics) = (self.tracer_provider.clone(), self.meter_provider.clone());
        let result = within_limit(timeout, move || {
            both(
                traces.shutdown_with_timeout(timeout),
                metrics.shutdown_with_timeout(timeout),
            )
        });
        if let Some(runtime) = self.exporter_runtime.take() {
            match result {
                Ok(()) => runtime.shutdown_background(),
                // An export is still under way on a thread of the SDK, and would panic without its
                // runtime. The process is about to end, and takes both with it.
                Err(_) => std::mem::forget(runtime),
            }
        }
        result
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // Nobody is left to tell that the last batch was lost.
        let _ = self.close();
    }
}

fn both(traces: OTelSdkResult, metrics: OTelSdkResult) -> OTelSdkResult {
    traces.and(metrics)
}

/// Runs `work`, which the SDK may let last longer than asked, and waits for it at most `limit`.
fn within_limit(
    limit: Duration,
    work: impl FnOnce() -> OTelSdkResult + Send + 'static,
) -> Result<(), Error> {
    let (done, result) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("telemetry-flush".to_owned())
        .spawn(move || {
            // The receiver is gone if the limit has passed.
            let _ = done.send(work());
        })
        .map_err(Error::Runtime)?;
    match result.recv_timeout(limit) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::Incomplete(error.to_string())),
        Err(_) => Err(Error::Incomplete(format!(
            "not within {} ms",
            limit.as_millis()
        ))),
    }
}

fn exporter_runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .worker_threads(EXPORTER_THREADS)
        .thread_name("otlp-export")
        .enable_all()
        .build()
        .map_err(Error::Runtime)
}

fn resource(config: &TelemetryConfig, environment: Environment<'_>) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new(
            "service.version",
            config.service_version.clone(),
        ))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match environment("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

fn tracer_provider(
    destination: Option<&Destination>,
    runtime: Option<&Runtime>,
    resource: Resource,
    environment: Environment<'_>,
) -> Result<SdkTracerProvider, Error> {
    // A wrong sampler is reported also where nothing is exported yet.
    let sampler = sampler::from_environment(environment)?;
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let (Some(destination), Some(runtime)) = (destination, runtime) else {
        // Nothing to record for: such a span is little more than its ids, which audit entries
        // store, and tells those downstream that nobody recorded it here.
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let exporter = export::span_exporter(destination, runtime.handle())?;
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batch_config(environment))
        .build();
    Ok(builder
        .with_sampler(sampler)
        .with_span_processor(processor)
        .build())
}

/// Our limits where no `OTEL_BSP_*` variable says otherwise.
fn batch_config(environment: Environment<'_>) -> BatchConfig {
    let mut batch = BatchConfigBuilder::default();
    if environment("OTEL_BSP_MAX_QUEUE_SIZE").is_none() {
        batch = batch.with_max_queue_size(SPAN_QUEUE_LIMIT);
    }
    if environment("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").is_none() {
        batch = batch.with_max_export_batch_size(SPAN_BATCH_LIMIT);
    }
    if environment("OTEL_BSP_SCHEDULE_DELAY").is_none() {
        batch = batch.with_scheduled_delay(SPAN_EXPORT_DELAY);
    }
    batch.build()
}

fn meter_provider(
    destination: Option<&Destination>,
    runtime: Option<&Runtime>,
    resource: Resource,
    registry: &Registry,
    environment: Environment<'_>,
) -> Result<SdkMeterProvider, Error> {
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()
        .map_err(Error::Metrics)?;
    let mut builder = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(prometheus);
    if let (Some(destination), Some(runtime)) = (destination, runtime) {
        let exporter = export::metric_exporter(destination, runtime.handle())?;
        let mut reader = PeriodicReader::builder(exporter);
        if environment("OTEL_METRIC_EXPORT_INTERVAL").is_none() {
            reader = reader.with_interval(METRIC_EXPORT_INTERVAL);
        }
        builder = builder.with_reader(reader.build());
    }
    Ok(builder.build())
}

fn subscriber<W>(tracer: SdkTracer, config: &TelemetryConfig, writer: W) -> Result<Dispatch, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Spans only: an event is a log line. As a span event it would be stored twice, and an error
    // that was handled would fail its span.
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false)
        .with_filter(filter_fn(is_recorded_span).with_max_level_hint(SPAN_LEVEL));
    let logs = LogLayer::new(writer, config.log_format, config.log_colour)
        .with_filter(LogFilter::new(config.log_targets()?));
    Ok(Dispatch::new(
        tracing_subscriber::registry().with(spans).with(logs),
    ))
}

#[cfg(test)]
pub(crate) use testing::{test_pipeline, test_pipeline_with, test_telemetry};

#[cfg(test)]
mod testing;
