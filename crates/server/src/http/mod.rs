//! The HTTP side: health, readiness, metrics and webhooks.

mod rejection;
pub mod webhooks;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use quittance_telemetry::PrometheusText;
use tokio_util::sync::CancellationToken;

/// Prometheus' text exposition format.
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether what the server depends on can be used.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// `Err` says in a few words, without values, what is wrong.
    async fn check(&self) -> Result<(), &'static str>;
}

/// What the HTTP side serves from.
#[derive(Clone)]
pub struct HttpState {
    /// Whether what the server depends on can be used.
    pub readiness: Arc<dyn Readiness>,
    /// The metrics.
    pub prometheus: PrometheusText,
    /// Cancelled when the server begins to stop: it is not ready from then on.
    pub stop: CancellationToken,
}

/// The routes.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn readyz(State(state): State<HttpState>) -> Response {
    if state.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match state.readiness.check().await {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        )
            .into_response(),
    }
}

async fn metrics(State(state): State<HttpState>) -> Response {
    ([(CONTENT_TYPE, PROMETHEUS)], state.prometheus.render()).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::Request;
    use http_body_util::BodyExt as _;
    use quittance_telemetry::{Telemetry, TelemetryConfig};
    use tower::ServiceExt as _;

    use super::*;

    #[derive(Default)]
    struct Database {
        down: AtomicBool,
    }

    #[async_trait]
    impl Readiness for Database {
        async fn check(&self) -> Result<(), &'static str> {
            if self.down.load(Ordering::Relaxed) {
                Err("the database is out of reach")
            } else {
                Ok(())
            }
        }
    }

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_database_and_the_shutdown() {
        let (telemetry, _) = Telemetry::new(&TelemetryConfig::default()).unwrap();
        let database = Arc::new(Database::default());
        let stop = CancellationToken::new();
        let state = HttpState {
            readiness: database.clone(),
            prometheus: telemetry.prometheus(),
            stop: stop.clone(),
        };
        let router = router(state);
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::OK);
        database.down.store(true, Ordering::Relaxed);
        let (status, text) = get(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "not ready: the database is out of reach\n");
        assert_eq!(get(&router, "/healthz").await.0, StatusCode::OK);
        database.down.store(false, Ordering::Relaxed);
        stop.cancel();
        assert_eq!(
            get(&router, "/readyz").await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }

    #[tokio::test]
    async fn metrics_are_served_as_prometheus_text() {
        let (telemetry, _) = Telemetry::new(&TelemetryConfig::default()).unwrap();
        telemetry
            .metrics()
            .rpc_finished("quittance.v1.PaymentService/GetPayment", "OK", 0.01);
        let state = HttpState {
            readiness: Arc::new(Database::default()),
            prometheus: telemetry.prometheus(),
            stop: CancellationToken::new(),
        };
        let (status, text) = get(&router(state), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            text.contains("rpc_server_call_duration_seconds_count"),
            "{text}"
        );
    }
}
