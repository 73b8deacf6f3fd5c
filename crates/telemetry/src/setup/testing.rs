use std::io;
use std::sync::{Arc, Mutex};

use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::*;

/// Spans and log lines of one test, recorded by the layers that the product uses.
pub(crate) struct TestPipeline {
    pub(crate) dispatch: Dispatch,
    spans: Arc<Mutex<Vec<SpanData>>>,
    logs: LogBuffer,
    _provider: SdkTracerProvider,
}

impl TestPipeline {
    pub(crate) fn finished(&self) -> Vec<SpanData> {
        self.spans.lock().unwrap().clone()
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        let bytes = self.logs.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

#[derive(Debug)]
struct Collector(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn test_pipeline() -> TestPipeline {
    test_pipeline_with(&TelemetryConfig::default())
}

pub(crate) fn test_pipeline_with(config: &TelemetryConfig) -> TestPipeline {
    let spans = Arc::new(Mutex::new(Vec::new()));
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler::from_environment(&|_| None).unwrap())
        .with_simple_exporter(Collector(Arc::clone(&spans)))
        .build();
    let logs = LogBuffer::default();
    let writer = logs.clone();
    let dispatch = subscriber(provider.tracer(SCOPE), config, move || writer.clone()).unwrap();
    TestPipeline {
        dispatch,
        spans,
        logs,
        _provider: provider,
    }
}

pub(crate) fn test_telemetry() -> Telemetry {
    let config = TelemetryConfig::default();
    Telemetry::with_environment(&config, &|_| None, BoxMakeWriter::new(io::sink))
        .unwrap()
        .0
}

#[test]
fn without_an_exporter_spans_have_valid_ids_and_children_share_the_trace() {
    let config = TelemetryConfig::default();
    let writer = BoxMakeWriter::new(io::sink);
    let (telemetry, dispatch) = Telemetry::with_environment(&config, &|_| None, writer).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        let parent = tracing::info_span!("authorize");
        let _entered = parent.enter();
        let parent = crate::current_ids();
        let child = tracing::info_span!("commit").in_scope(crate::current_ids);
        assert!(parent.is_valid() && child.is_valid());
        assert_eq!(parent.trace_id, child.trace_id);
        assert_ne!(parent.span_id, child.span_id);
    });
    telemetry.flush().unwrap();
    telemetry.shutdown().unwrap();
}

#[test]
fn an_unreachable_collector_delays_shutdown_only_to_its_limit() {
    let config = TelemetryConfig {
        // A port that nobody listens on, in the range kept for documentation and tests.
        otlp_endpoint: Some("http://127.0.0.1:1".to_owned()),
        otlp_protocol: Some(crate::OtlpProtocol::Grpc),
        shutdown_timeout: Duration::from_millis(500),
        ..TelemetryConfig::default()
    };
    let writer = BoxMakeWriter::new(io::sink);
    let (telemetry, dispatch) = Telemetry::with_environment(&config, &|_| None, writer).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::info_span!("authorize").in_scope(|| assert!(crate::current_ids().is_valid()));
    });
    let begin = std::time::Instant::now();
    let _ = telemetry.shutdown();
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_service_name_comes_from_the_environment_or_else_the_configuration() {
    let config = TelemetryConfig::default();
    let key = opentelemetry::Key::from_static_str("service.name");
    let named = resource(&config, &|name| {
        (name == "OTEL_SERVICE_NAME").then(|| "payments-eu".to_owned())
    });
    assert_eq!(named.get(&key).unwrap().as_str(), "payments-eu");
    assert_eq!(
        resource(&config, &|_| None).get(&key).unwrap().as_str(),
        "quittance"
    );
}
