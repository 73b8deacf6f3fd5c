//! Spans and metrics arrive at a real OTLP receiver, over gRPC and over HTTP, redacted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use quittance_telemetry::{
    OtlpProtocol, Pending, Telemetry, TelemetryConfig, TraceIds, current_ids,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const LIMIT: Duration = Duration::from_secs(60);

struct Receiver {
    traces: mpsc::UnboundedSender<ExportTraceServiceRequest>,
    metrics: mpsc::UnboundedSender<ExportMetricsServiceRequest>,
}

struct Traces(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

struct MetricsReceiver(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for MetricsReceiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Receiver {
    async fn start(self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(Traces(self.traces)))
                .add_service(MetricsServiceServer::new(MetricsReceiver(self.metrics)))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        address
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let value = &attributes
        .iter()
        .find(|attribute| attribute.key == key)?
        .value;
    match value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Runs an RPC's span, with a field that must not leave, around traffic that is not recorded.
fn rpc_with_a_secret() -> TraceIds {
    let span = tracing::info_span!(
        target: "quittance_server::grpc",
        "rpc",
        otel.name = "quittance.v1.PaymentService/CreatePayment",
        otel.kind = "server",
        rpc.system.name = "grpc",
        payment.id = "0198d2c4-7b1e-7aaa-8bbb-0123456789ab",
        provider_token = "tok_secret",
    );
    span.in_scope(|| {
        let foreign = tracing::info_span!(target: "h2", "exporter traffic");
        foreign.in_scope(current_ids)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_and_a_metric_arrive_over_grpc_with_listed_attributes_only() {
    let (traces, mut received_traces) = mpsc::unbounded_channel();
    let (metrics, mut received_metrics) = mpsc::unbounded_channel();
    let address = Receiver { traces, metrics }.start().await;

    let config = TelemetryConfig {
        otlp_endpoint: Some(format!("http://{address}")),
        otlp_protocol: Some(OtlpProtocol::Grpc),
        log_filter: "off".to_owned(),
        shutdown_timeout: LIMIT,
        ..TelemetryConfig::default()
    };
    let (telemetry, dispatch) = Telemetry::new(&config).unwrap();
    let ids = tracing::dispatcher::with_default(&dispatch, rpc_with_a_secret);
    telemetry.metrics().pending(&Pending {
        transactions: 7,
        ..Pending::default()
    });
    tokio::task::spawn_blocking(move || telemetry.shutdown())
        .await
        .unwrap()
        .unwrap();

    let request = tokio::time::timeout(LIMIT, received_traces.recv())
        .await
        .unwrap()
        .unwrap();
    let of_resource = request.resource_spans.first().unwrap();
    let resource = of_resource.resource.as_ref().unwrap();
    assert_eq!(
        text(&resource.attributes, "service.name"),
        Some("quittance")
    );
    let spans: Vec<_> = of_resource
        .scope_spans
        .iter()
        .flat_map(|of_scope| &of_scope.spans)
        .collect();
    assert_eq!(spans.len(), 1, "foreign spans are not recorded: {spans:?}");
    let span = spans.first().unwrap();
    assert_eq!(span.trace_id, ids.trace_id);
    assert_eq!(span.span_id, ids.span_id);
    assert_eq!(span.name, "quittance.v1.PaymentService/CreatePayment");
    assert_eq!(text(&span.attributes, "rpc.system.name"), Some("grpc"));
    assert_eq!(
        text(&span.attributes, "payment.id"),
        Some("0198d2c4-7b1e-7aaa-8bbb-0123456789ab")
    );
    assert_eq!(span.dropped_attributes_count, 1);
    assert!(!format!("{request:?}").contains("tok_secret"));

    let request = tokio::time::timeout(LIMIT, received_metrics.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(format!("{request:?}").contains("payment.pending.count"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_arrives_over_http_with_protobuf() {
    let (traces, mut arrived) = mpsc::unbounded_channel();
    let receive = move |body: Bytes| async move {
        traces
            .send(ExportTraceServiceRequest::decode(body).unwrap())
            .unwrap();
    };
    let receiver = Router::new()
        .route("/v1/traces", post(receive))
        .route("/v1/metrics", post(|_: Bytes| async {}));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, receiver).await });

    let config = TelemetryConfig {
        otlp_endpoint: Some(format!("http://{address}/")),
        otlp_protocol: Some(OtlpProtocol::HttpProtobuf),
        log_filter: "off".to_owned(),
        shutdown_timeout: LIMIT,
        ..TelemetryConfig::default()
    };
    let (telemetry, dispatch) = Telemetry::new(&config).unwrap();
    let ids = tracing::dispatcher::with_default(&dispatch, || {
        tracing::info_span!(target: "quittance_server::grpc", "rpc").in_scope(current_ids)
    });
    let telemetry = tokio::task::spawn_blocking(move || {
        telemetry.flush().unwrap();
        telemetry
    })
    .await
    .unwrap();

    let request = tokio::time::timeout(LIMIT, arrived.recv())
        .await
        .unwrap()
        .unwrap();
    let span = request
        .resource_spans
        .iter()
        .flat_map(|of_resource| &of_resource.scope_spans)
        .flat_map(|of_scope| &of_scope.spans)
        .next()
        .unwrap();
    assert_eq!(span.trace_id, ids.trace_id);
    // Also the last handle's end inside of a runtime must not panic.
    drop(telemetry);
}
