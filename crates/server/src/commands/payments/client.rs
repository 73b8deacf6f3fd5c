//! A connection to a server: TLS, an API key, and a deadline for every call.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::Stream;
use http::Uri;
use quittance_evidence::bundle::MAX_BUNDLE_BYTES;
use quittance_proto::v1;
use quittance_proto::v1::admin_service_client::AdminServiceClient;
use quittance_proto::v1::audit_service_client::AuditServiceClient;
use quittance_proto::v1::payment_service_client::PaymentServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::{CallFailed, Connection};

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take. The server answers before that.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of an answer: a payment of 1,000 transactions is about 1 MiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Most bytes of an answer that holds an evidence bundle, perhaps with its page.
const MAX_EVIDENCE_ANSWER: usize = 3 * MAX_BUNDLE_BYTES;
/// The API key, where no file holds it.
const API_KEY: &str = "QUITTANCE_API_KEY";
/// Most bytes of a file that holds an API key or certificates.
const MAX_FILE: u64 = 1024 * 1024;

/// Calls one server.
pub(in crate::commands) struct Client {
    payments: PaymentServiceClient<Channel>,
    pub(in crate::commands) admin: AdminServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
}

impl Client {
    pub(in crate::commands) async fn connect(to: &Connection) -> anyhow::Result<Self> {
        let endpoint = endpoint(&to.address, to.ca_file.as_deref())?;
        let authorization = authorization(&api_key(to.api_key_file.as_deref())?)?;
        let connected = endpoint.connect().await;
        let channel = connected.map_err(|error| CallFailed::unreachable(&to.address, &error))?;
        let payments = PaymentServiceClient::new(channel.clone());
        let admin = AdminServiceClient::new(channel.clone());
        let audit = AuditServiceClient::new(channel);
        Ok(Self {
            payments: payments.max_decoding_message_size(MAX_ANSWER),
            admin: admin.max_decoding_message_size(MAX_ANSWER),
            audit: audit.max_decoding_message_size(MAX_ANSWER),
            authorization,
        })
    }

    pub(in crate::commands) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request.set_timeout(CALL_LIMIT);
        request
    }

    pub(in crate::commands) async fn get_payment(
        &mut self,
        payment_id: &str,
    ) -> Result<v1::Payment, CallFailed> {
        let lookup = v1::get_payment_request::Lookup::PaymentId(payment_id.to_owned());
        let request = self.request(v1::GetPaymentRequest {
            lookup: Some(lookup),
        });
        payment(self.payments.get_payment(request).await, |answer| {
            answer.payment
        })
    }

    pub(in crate::commands) async fn list_operator_actions(
        &mut self,
        message: v1::ListOperatorActionsRequest,
    ) -> Result<v1::ListOperatorActionsResponse, CallFailed> {
        let request = self.request(message);
        let answer = self.admin.list_operator_actions(request).await;
        Ok(answer?.into_inner())
    }

    pub(in crate::commands) async fn resolve(
        &mut self,
        message: v1::ResolveTransactionRequest,
    ) -> Result<v1::Payment, CallFailed> {
        let request = self.request(message);
        payment(self.admin.resolve_transaction(request).await, |answer| {
            answer.payment
        })
    }

    pub(in crate::commands) async fn retry(
        &mut self,
        message: v1::RetryTransactionRequest,
    ) -> Result<v1::Payment, CallFailed> {
        let request = self.request(message);
        payment(self.admin.retry_transaction(request).await, |answer| {
            answer.payment
        })
    }
}

impl Client {
    pub(in crate::commands) async fn list_entries(
        &mut self,
        message: v1::ListEntriesRequest,
    ) -> Result<v1::ListEntriesResponse, CallFailed> {
        let request = self.request(message);
        Ok(self.audit.list_entries(request).await?.into_inner())
    }

    pub(in crate::commands) async fn export_evidence(
        &mut self,
        message: v1::ExportEvidenceRequest,
    ) -> Result<v1::ExportEvidenceResponse, CallFailed> {
        let request = self.request(message);
        let audit = self.audit.clone();
        let mut audit = audit.max_decoding_message_size(MAX_EVIDENCE_ANSWER);
        Ok(audit.export_evidence(request).await?.into_inner())
    }

    /// A stream of hours, perhaps: it has no deadline.
    pub(in crate::commands) async fn verify_log(
        &mut self,
        resume_token: String,
    ) -> Result<Streaming<v1::VerifyLogResponse>, CallFailed> {
        let mut request = Request::new(v1::VerifyLogRequest { resume_token });
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        Ok(self.audit.verify_log(request).await?.into_inner())
    }

    /// A stream both ways, as long as the export is: it has no deadline.
    pub(in crate::commands) async fn reconcile(
        &mut self,
        messages: impl Stream<Item = v1::ReconcileRequest> + Send + 'static,
    ) -> Result<Streaming<v1::ReconcileResponse>, CallFailed> {
        let mut request = Request::new(messages);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        Ok(self.audit.reconcile(request).await?.into_inner())
    }

    pub(in crate::commands) async fn erase_personal_data(
        &mut self,
        message: v1::ErasePersonalDataRequest,
    ) -> Result<v1::Erasure, CallFailed> {
        let request = self.request(message);
        let answer = self.admin.erase_personal_data(request).await?;
        erasure(answer.into_inner().erasure)
    }

    pub(in crate::commands) async fn get_erasure(
        &mut self,
        erasure_id: String,
        tenant_id: String,
    ) -> Result<v1::Erasure, CallFailed> {
        let request = self.request(v1::GetErasureRequest {
            erasure_id,
            tenant_id,
        });
        let answer = self.admin.get_erasure(request).await?;
        erasure(answer.into_inner().erasure)
    }
}

fn erasure(answer: Option<v1::Erasure>) -> Result<v1::Erasure, CallFailed> {
    answer.ok_or_else(|| Status::internal("the answer holds no erasure").into())
}

/// The inbox of webhooks.
impl Client {
    pub(in crate::commands) async fn list_webhooks(
        &mut self,
        message: v1::ListWebhooksRequest,
    ) -> Result<v1::ListWebhooksResponse, CallFailed> {
        let request = self.request(message);
        Ok(self.admin.list_webhooks(request).await?.into_inner())
    }

    pub(in crate::commands) async fn get_webhook(
        &mut self,
        webhook_id: String,
    ) -> Result<v1::Webhook, CallFailed> {
        let request = self.request(v1::GetWebhookRequest { webhook_id });
        let answer = self.admin.get_webhook(request).await?.into_inner();
        webhook(answer.webhook)
    }

    pub(in crate::commands) async fn replay_webhook(
        &mut self,
        message: v1::ReplayWebhookRequest,
    ) -> Result<v1::Webhook, CallFailed> {
        let request = self.request(message);
        let answer = self.admin.replay_webhook(request).await?.into_inner();
        webhook(answer.webhook)
    }
}

fn webhook(answered: Option<v1::Webhook>) -> Result<v1::Webhook, CallFailed> {
    answered.ok_or_else(|| Status::internal("the answer holds no webhook").into())
}

fn payment<T>(
    answer: Result<Response<T>, Status>,
    payment: impl FnOnce(T) -> Option<v1::Payment>,
) -> Result<v1::Payment, CallFailed> {
    payment(answer?.into_inner())
        .ok_or_else(|| Status::internal("the answer holds no payment").into())
}

fn endpoint(address: &str, ca_file: Option<&Path>) -> anyhow::Result<Endpoint> {
    let uri: Uri = address
        .parse()
        .with_context(|| format!("--address: {address} is not a URL"))?;
    let encrypted = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if is_this_machine(&uri) => false,
        Some("http") => {
            bail!("--address: http:// would show the API key to the network: use https://")
        }
        Some(_) | None => bail!("--address: must begin with https://"),
    };
    let endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT_LIMIT)
        .timeout(CALL_LIMIT);
    if !encrypted {
        return Ok(endpoint);
    }
    let tls = ClientTlsConfig::new();
    let tls = match ca_file {
        None => tls.with_native_roots(),
        Some(file) => {
            let pem = read("--ca-file", file)?;
            tls.ca_certificate(Certificate::from_pem(pem.as_bytes()))
        }
    };
    // tonic is built with one provider; another crate may have brought a second into the process.
    quittance_telemetry::ensure_crypto_provider();
    let endpoint = endpoint.tls_config(tls);
    endpoint.with_context(|| match ca_file {
        Some(file) => format!("--ca-file: {} holds no certificate", file.display()),
        None => "the system's trusted certificates cannot be used".to_owned(),
    })
}

fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

fn api_key(file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    let key = match file {
        Some(file) => read("--api-key-file", file)?,
        None => Zeroizing::new(std::env::var(API_KEY).unwrap_or_default()),
    };
    if key.trim().is_empty() {
        bail!("no API key: name a file by --api-key-file, or set {API_KEY}");
    }
    Ok(Zeroizing::new(key.trim().to_owned()))
}

fn authorization(key: &Zeroizing<String>) -> anyhow::Result<MetadataValue<Ascii>> {
    let text = Zeroizing::new(format!("Bearer {}", key.as_str()));
    // The error would quote the key.
    let Ok(mut value) = text.parse::<MetadataValue<Ascii>>() else {
        bail!("the API key holds characters that no API key has");
    };
    value.set_sensitive(true);
    Ok(value)
}

fn read(option: &str, file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let about = || format!("{option}: cannot read {}", file.display());
    let size = std::fs::metadata(file).with_context(about)?.len();
    if size > MAX_FILE {
        bail!("{option}: {} is too large", file.display());
    }
    let text = std::fs::read_to_string(file).with_context(about)?;
    Ok(Zeroizing::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_over_the_network_encrypted_only() {
        for good in [
            "http://127.0.0.1:1",
            "http://localhost:1",
            "http://[::1]:1",
            "https://payments.example",
        ] {
            assert!(endpoint(good, None).is_ok(), "{good}");
        }
        for bad in [
            "http://payments.example",
            "http://10.0.0.1:7443",
            "http://127.0.0.1.example",
            "127.0.0.1:7443",
            "ftp://127.0.0.1",
            "not a url",
        ] {
            let error = endpoint(bad, None).unwrap_err();
            assert!(error.to_string().starts_with("--address: "), "{error}");
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_and_never_shown() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, "  qk_secret\n").unwrap();
        let key = api_key(Some(&file)).unwrap();
        assert_eq!(key.as_str(), "qk_secret");
        assert!(!format!("{:?}", authorization(&key).unwrap()).contains("secret"));
        std::fs::write(&file, "qk_secret\u{1}x").unwrap();
        let error = authorization(&api_key(Some(&file)).unwrap()).unwrap_err();
        assert!(!format!("{error:?}").contains("secret"));
        std::fs::write(&file, "\n").unwrap();
        assert!(api_key(Some(&file)).is_err());
        assert!(api_key(Some(&directory.path().join("none"))).is_err());
    }
}
