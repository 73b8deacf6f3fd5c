//! The demo's client: the generated stubs, TLS, an API key and a deadline.

use std::time::Duration;

use anyhow::Context as _;
use quittance_proto::v1;
use quittance_proto::v1::admin_service_client::AdminServiceClient;
use quittance_proto::v1::audit_service_client::AuditServiceClient;
use quittance_proto::v1::payment_service_client::PaymentServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response};
use uuid::Uuid;

use crate::dev::DevServer;

/// How long the demo waits for an answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls the services, every request with credentials and a deadline.
pub(super) struct Client {
    payments: PaymentServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
    admin: AdminServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    /// Makes idempotency keys of this run its own, should the database be a lasting one.
    run: Uuid,
}

/// The answer to a mutating call.
pub(super) struct Answered {
    pub(super) payment: v1::Payment,
    pub(super) replayed: bool,
    /// The trace that the caller was told.
    pub(super) trace_id: String,
}

impl Client {
    pub(super) async fn connect(server: &DevServer) -> anyhow::Result<Self> {
        let address = server.server().grpc_addr();
        let endpoint = if server.is_plaintext() {
            Endpoint::from_shared(format!("http://{address}"))?
        } else {
            let ca = std::fs::read(server.ca_file()).context("cannot read the CA's certificate")?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
            Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?
        };
        let channel = endpoint
            .connect()
            .await
            .context("cannot connect to the server")?;
        let mut authorization: MetadataValue<Ascii> =
            format!("Bearer {}", server.api_key()).parse()?;
        authorization.set_sensitive(true);
        Ok(Self {
            payments: PaymentServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel),
            authorization,
            run: Uuid::new_v4(),
        })
    }

    /// An idempotency key of this run.
    pub(super) fn key(&self, name: &str) -> String {
        format!("demo-{name}-{}", self.run)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request.set_timeout(DEADLINE);
        request
    }

    pub(super) async fn create(
        &mut self,
        message: v1::CreatePaymentRequest,
    ) -> anyhow::Result<Answered> {
        let request = self.request(message);
        let response = self
            .payments
            .create_payment(request)
            .await
            .map_err(|status| described(&status))?;
        answered(response, |body| body.payment)
    }

    pub(super) async fn capture(
        &mut self,
        message: v1::CapturePaymentRequest,
    ) -> anyhow::Result<Answered> {
        let request = self.request(message);
        let response = self
            .payments
            .capture_payment(request)
            .await
            .map_err(|status| described(&status))?;
        answered(response, |body| body.payment)
    }

    pub(super) async fn refund(
        &mut self,
        message: v1::RefundPaymentRequest,
    ) -> anyhow::Result<Answered> {
        let request = self.request(message);
        let response = self
            .payments
            .refund_payment(request)
            .await
            .map_err(|status| described(&status))?;
        answered(response, |body| body.payment)
    }

    pub(super) async fn get(&mut self, payment_id: &str) -> anyhow::Result<Answered> {
        let lookup = v1::get_payment_request::Lookup::PaymentId(payment_id.to_owned());
        let request = self.request(v1::GetPaymentRequest {
            lookup: Some(lookup),
        });
        let response = self
            .payments
            .get_payment(request)
            .await
            .map_err(|status| described(&status))?;
        answered(response, |body| body.payment)
    }

    /// A new endpoint for one type of event, with its secret.
    pub(super) async fn create_endpoint(
        &mut self,
        url: &str,
        event: &str,
    ) -> anyhow::Result<v1::CreateNotificationEndpointResponse> {
        let request = self.request(v1::CreateNotificationEndpointRequest {
            url: url.to_owned(),
            description: "the demo".to_owned(),
            event_types: vec![event.to_owned()],
            tenant_id: String::new(),
        });
        let response = self.admin.create_notification_endpoint(request).await;
        Ok(response.map_err(|status| described(&status))?.into_inner())
    }

    /// The audit entries of one payment, oldest first.
    pub(super) async fn entries(
        &mut self,
        payment_id: &str,
    ) -> anyhow::Result<Vec<v1::AuditEntry>> {
        let message = v1::ListEntriesRequest {
            payment_id: payment_id.to_owned(),
            ..Default::default()
        };
        let request = self.request(message);
        let response = self
            .audit
            .list_entries(request)
            .await
            .map_err(|status| described(&status))?;
        Ok(response.into_inner().entries)
    }

    /// One entry, with its bytes and its receipt.
    pub(super) async fn entry(&mut self, entry_id: &str) -> anyhow::Result<v1::AuditEntry> {
        let entry_id = entry_id.to_owned();
        let request = self.request(v1::GetEntryRequest { entry_id });
        let response = self
            .audit
            .get_entry(request)
            .await
            .map_err(|status| described(&status))?;
        response
            .into_inner()
            .entry
            .context("the answer holds no entry")
    }

    /// The evidence of a payment: the server waits until its newest entry is signed.
    pub(super) async fn evidence(
        &mut self,
        payment_id: &str,
    ) -> anyhow::Result<v1::ExportEvidenceResponse> {
        let request = self.request(v1::ExportEvidenceRequest {
            payment_id: payment_id.to_owned(),
            ..Default::default()
        });
        let response = self.audit.export_evidence(request).await;
        Ok(response.map_err(|status| described(&status))?.into_inner())
    }

    /// The proof that an entry is in the signed log; `None` while it is not merged.
    pub(super) async fn inclusion(
        &mut self,
        entry_id: &str,
    ) -> anyhow::Result<Option<v1::GetInclusionProofResponse>> {
        let entry = v1::get_inclusion_proof_request::Entry::EntryId(entry_id.to_owned());
        let request = self.request(v1::GetInclusionProofRequest {
            entry: Some(entry),
            tree_size: 0,
        });
        match self.audit.get_inclusion_proof(request).await {
            Ok(response) => Ok(Some(response.into_inner())),
            // ENTRY_NOT_MERGED: a matter of a second.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(None),
            Err(status) => Err(described(&status)),
        }
    }
}

/// An error with its code; what tonic prints holds all metadata.
fn described(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}

fn answered<T>(
    response: Response<T>,
    payment: impl FnOnce(T) -> Option<v1::Payment>,
) -> anyhow::Result<Answered> {
    let text = |name| {
        response
            .metadata()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let replayed = text("idempotent-replayed") == Some("true");
    let trace_id = text("quittance-trace-id").unwrap_or_default().to_owned();
    let payment = payment(response.into_inner()).context("the answer holds no payment")?;
    Ok(Answered {
        payment,
        replayed,
        trace_id,
    })
}
