//! The gRPC services: requests are parsed, handed to the flows, and their answers put into messages.

mod admin;
mod audit;
mod call;
mod endpoints;
mod erasures;
mod facts;
mod feed;
mod payments;
mod reconcile;
pub mod status;
mod status_layer;
mod tokens;
mod verify_log;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use quittance_domain::erasure::Erasures;
use quittance_domain::flows::audit::AuditLog;
use quittance_domain::flows::reconcile::Reconciler;
use quittance_domain::flows::{Flows, InboxDesk};
use quittance_domain::notification::Outbox;
use quittance_domain::ports::{Clock, Randomness, Store};
use quittance_proto::v1::admin_service_server::{self, AdminServiceServer};
use quittance_proto::v1::audit_service_server::{self, AuditServiceServer};
use quittance_proto::v1::payment_service_server::{self, PaymentServiceServer};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use self::admin::AdminRpcs;
use self::audit::AuditRpcs;
use self::feed::StreamLimit;
use self::payments::PaymentRpcs;

pub use self::audit::PROOF_CHECK;

pub use self::status::{normalize_framework_status, refusal};
pub use self::status_layer::StatusLayer;
pub use self::tokens::{TokenKind, Tokens};
pub use self::verify_log::LogVerifier;
use crate::auth::Authenticator;
use crate::notifications::{Sender, Trials};
use crate::signing::Evidence;

/// Response metadata of an answer to a repeated request.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";

/// Response metadata of a stream: the token of where it starts.
pub const RESUME_TOKEN_HEADER: &str = "resume-token";

/// What `AdminService` needs to manage notifications.
#[derive(Clone)]
pub struct Notifications {
    /// Endpoints, and what they were told.
    pub outbox: Arc<dyn Outbox>,
    /// Judges URLs, and sends tests.
    pub sender: Sender,
    /// Which endpoints are being tested.
    pub trials: Trials,
    /// Most endpoints of one tenant.
    pub max_endpoints: usize,
}

/// What the services need.
#[derive(Clone)]
pub struct Services {
    /// The payment flows.
    pub flows: Flows,
    /// The audit log.
    pub audit: AuditLog,
    /// The inbox of webhooks.
    pub inbox: InboxDesk,
    /// The database, for streams and summaries.
    pub store: Arc<dyn Store>,
    /// Checks the log.
    pub verifier: Arc<dyn LogVerifier>,
    /// Reconciles provider accounts.
    pub reconciler: Reconciler,
    /// Erasures of personal data.
    pub erasures: Arc<dyn Erasures>,
    /// The notifications.
    pub notifications: Notifications,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub random: Arc<dyn Randomness>,
    /// Knows callers, for streams that outlive what was known when they were opened.
    pub authenticator: Arc<Authenticator>,
    /// How often the key of an open stream is looked at again.
    pub stream_recheck: Duration,
    /// Seals page and resume tokens.
    pub tokens: Tokens,
    /// Most bytes of one request message.
    pub max_request_bytes: usize,
    /// Most streams (`WatchPayments`, `TailEntries`) that one tenant may have open.
    pub max_streams_per_tenant: usize,
    /// What proves the log; `None`: it is not signed.
    pub evidence: Option<Evidence>,
    /// Ends every open stream, and turns health to "not serving".
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("max_request_bytes", &self.max_request_bytes)
            .field("max_streams_per_tenant", &self.max_streams_per_tenant)
            .finish_non_exhaustive()
    }
}

/// All services, behind the layer that gives every error its form.
pub type EdgeRoutes = StatusLayer<Routes>;

/// Makes the routes. Needs a Tokio runtime: once `stop` is cancelled, health says that nothing is served any more.
///
/// # Errors
/// The descriptor set cannot be read: a defect of the build.
pub fn routes(services: Services) -> Result<EdgeRoutes, tonic_reflection::server::Error> {
    let limit = services.max_request_bytes;
    let streams = StreamLimit::new(services.max_streams_per_tenant);
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(quittance_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Nobody else holds the reporter's lock yet, so this is done at once.
    let _ = report(&reporter, ServingStatus::Serving).now_or_never();
    drop(tokio::spawn(report_stop(reporter, services.stop.clone())));
    let payments = PaymentRpcs::new(services.clone(), streams.clone());
    let admin = AdminRpcs::new(services.clone());
    let audit = AuditRpcs::new(services, streams);
    let routes = Routes::new(PaymentServiceServer::new(payments).max_decoding_message_size(limit))
        .add_service(AuditServiceServer::new(audit).max_decoding_message_size(limit))
        .add_service(AdminServiceServer::new(admin).max_decoding_message_size(limit))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();
    Ok(StatusLayer::new(routes))
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    // The empty name is the server as a whole (gRPC health checking protocol).
    for service in [
        "",
        payment_service_server::SERVICE_NAME,
        audit_service_server::SERVICE_NAME,
        admin_service_server::SERVICE_NAME,
    ] {
        reporter.set_service_status(service, status).await;
    }
}

async fn report_stop(reporter: HealthReporter, stop: CancellationToken) {
    stop.cancelled().await;
    report(&reporter, ServingStatus::NotServing).await;
}

#[cfg(test)]
mod no_outbox;
#[cfg(test)]
#[path = "rpc_tests.rs"]
mod tests;
