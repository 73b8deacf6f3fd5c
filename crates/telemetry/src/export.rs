//! OTLP exporters: what leaves the process passes the allow-list, and travels on a runtime of its
//! own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use opentelemetry::trace::Status;
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    MetricExporter, Protocol, SpanExporter as OtlpSpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;

use crate::config::{Destination, OtlpProtocol};
use crate::error::Error;
use crate::fields;
use crate::redact;

const HTTPS: &str = "https://";

/// Builds the exporter of spans; call within the exporter runtime.
///
/// # Errors
/// [`Error::Exporter`] for an endpoint or header that cannot be used.
pub(crate) fn span_exporter(
    destination: &Destination,
    runtime: &Handle,
) -> Result<AllowListExporter<OtlpSpanExporter>, Error> {
    let _guard = runtime.enter();
    let builder = OtlpSpanExporter::builder();
    let inner = match destination.protocol {
        OtlpProtocol::Grpc => grpc(builder.with_tonic(), destination).build()?,
        OtlpProtocol::HttpProtobuf => http(builder.with_http(), destination).build()?,
    };
    Ok(AllowListExporter {
        inner,
        runtime: runtime.clone(),
    })
}

/// Builds the exporter of metrics; call within the exporter runtime.
///
/// # Errors
/// [`Error::Exporter`] for an endpoint or header that cannot be used.
pub(crate) fn metric_exporter(
    destination: &Destination,
    runtime: &Handle,
) -> Result<RuntimeMetricExporter<MetricExporter>, Error> {
    let _guard = runtime.enter();
    let builder = MetricExporter::builder();
    let inner = match destination.protocol {
        OtlpProtocol::Grpc => grpc(builder.with_tonic(), destination).build()?,
        OtlpProtocol::HttpProtobuf => http(builder.with_http(), destination).build()?,
    };
    Ok(RuntimeMetricExporter {
        inner,
        runtime: runtime.clone(),
    })
}

/// Over gRPC; encrypted where the endpoint says so.
fn grpc<B: WithExportConfig + WithTonicConfig>(builder: B, destination: &Destination) -> B {
    let builder = builder.with_endpoint(&destination.endpoint);
    if !destination.endpoint.starts_with(HTTPS) {
        return builder;
    }
    ensure_crypto_provider();
    builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots())
}

/// Over HTTP.
fn http<B: WithExportConfig>(builder: B, destination: &Destination) -> B {
    ensure_crypto_provider();
    builder
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&destination.endpoint)
}

/// Gives the process a default provider of cryptography for TLS (ring), where it has none. Clients that are built without one
/// of their own fail where there is none, or more than one to choose from.
pub fn ensure_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Polls `future` within `runtime`: the SDK's batch threads know no runtime, but the transports
/// need one for their timers and connections.
async fn within<F: Future>(runtime: &Handle, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _guard = runtime.enter();
        future.as_mut().poll(context)
    })
    .await
}

/// Removes from every span what is not in the table of [`fields::ALLOWED`], then exports it.
#[derive(Debug)]
pub(crate) struct AllowListExporter<E> {
    inner: E,
    runtime: Handle,
}

impl<E: SpanExporter> SpanExporter for AllowListExporter<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        for span in &mut batch {
            redact_span(span);
        }
        within(&self.runtime, self.inner.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Exports metrics from the SDK's thread. Their labels come from [`crate::Metrics`] alone.
#[derive(Debug)]
pub(crate) struct RuntimeMetricExporter<E> {
    inner: E,
    runtime: Handle,
}

impl<E: PushMetricExporter> PushMetricExporter for RuntimeMetricExporter<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        within(&self.runtime, self.inner.export(metrics)).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

/// Applies the allow-list to everything on a span that is not of fixed form.
pub(crate) fn redact_span(span: &mut SpanData) {
    let dropped = redact_attributes(&mut span.attributes);
    span.dropped_attributes_count = span.dropped_attributes_count.saturating_add(dropped);
    span.name = redact::clean(&span.name).into_owned().into();
    for event in &mut span.events.events {
        let dropped = redact_attributes(&mut event.attributes);
        event.dropped_attributes_count = event.dropped_attributes_count.saturating_add(dropped);
        event.name = redact::clean(&event.name).into_owned().into();
    }
    for link in &mut span.links.links {
        let dropped = redact_attributes(&mut link.attributes);
        link.dropped_attributes_count = link.dropped_attributes_count.saturating_add(dropped);
    }
    if let Status::Error { description } = &mut span.status {
        *description = redact::clean(description).into_owned().into();
    }
}

/// Returns how many attributes were dropped.
fn redact_attributes(attributes: &mut Vec<KeyValue>) -> u32 {
    let before = attributes.len();
    attributes.retain_mut(|attribute| {
        let Some(kind) = fields::allowed(attribute.key.as_str()) else {
            return false;
        };
        match &mut attribute.value {
            Value::String(text) => *text = kind.clean(text.as_str()).into_owned().into(),
            Value::I64(number) => {
                let text = number.to_string();
                let cleaned = kind.clean(&text);
                if cleaned != text {
                    attribute.value = Value::String(cleaned.into_owned().into());
                }
            }
            Value::Array(Array::String(texts)) => {
                for text in texts {
                    *text = kind.clean(text.as_str()).into_owned().into();
                }
            }
            // A truth value or a fraction cannot hold a card number.
            Value::Bool(_) | Value::F64(_) => {}
            // Lists of numbers are not recorded; whatever the SDK adds later is not reviewed.
            _ => return false,
        }
        true
    });
    u32::try_from(before - attributes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    use super::*;
    use crate::setup::test_pipeline;

    #[test]
    fn only_listed_attributes_leave_and_their_values_are_cleaned() {
        let pipeline = test_pipeline();
        tracing::dispatcher::with_default(&pipeline.dispatch, || {
            let span = tracing::info_span!(
                "authorize",
                payment.id = "0198d2c4-7b1e-7aaa-8bbb-0123456789ab",
                provider_token = "tok_secret",
                request.id = "4111 1111 1111 1111\r\nforged",
                attempt.number = 4_111_111_111_111_111_i64,
            );
            span.context().span().add_event(
                "note",
                vec![KeyValue::new("authorization", "Bearer secret")],
            );
            span.set_status(Status::error("card 4111111111111111"));
            tracing::error!(parent: &span, "an event is a log line, never a span event");
        });
        let mut spans = pipeline.finished();
        assert_eq!(spans.len(), 1);
        redact_span(&mut spans[0]);
        let span = &spans[0];
        let shown = format!("{span:?}");
        for secret in ["tok_secret", "4111", "Bearer", "log line"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert_eq!(span.dropped_attributes_count, 1);
        assert!(span.attributes.contains(&KeyValue::new(
            "payment.id",
            "0198d2c4-7b1e-7aaa-8bbb-0123456789ab"
        )));
        assert!(
            span.attributes
                .contains(&KeyValue::new("request.id", "<card number>\\r\\nforged"))
        );
        assert_eq!(span.status, Status::error("card <card number>"));
    }
}
