//! A gRPC client over TLS, as a caller would write one, that reads errors strictly.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::str::FromStr as _;
use std::time::Duration;

use quittance_proto::v1::admin_service_client::AdminServiceClient;
use quittance_proto::v1::audit_service_client::AuditServiceClient;
use quittance_proto::v1::payment_service_client::PaymentServiceClient;
use quittance_proto::v1::{self, Payment};
use tokio::time::timeout;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;
use super::failure::Failure;
use super::tls::{SERVER_NAME, pki};
use super::wire;

/// How long a call may take unless a test says otherwise: less than the server allows itself, so that it is the server
/// that says what became of it.
const CALL_LIMIT: Duration = Duration::from_secs(55);

/// A caller of one server.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    channel: Channel,
    metadata: MetadataMap,
    limit: Option<Duration>,
}

/// An answer with its metadata.
pub struct Reply<T> {
    pub message: T,
    pub metadata: MetadataMap,
}

impl<T> Deref for Reply<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T: fmt::Debug> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl<T> Reply<T> {
    /// Whether the server says that it had answered this before.
    pub fn replayed(&self) -> bool {
        match self
            .metadata
            .get("idempotent-replayed")
            .map(MetadataValue::as_encoded_bytes)
        {
            None => false,
            Some(value) => {
                assert_eq!(value, b"true");
                true
            }
        }
    }

    /// The trace that the call was in.
    pub fn trace_id(&self) -> String {
        text(&self.metadata, "quittance-trace-id")
    }
}

/// The text of a response header that must be there.
pub fn text(metadata: &MetadataMap, name: &str) -> String {
    let value = metadata
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {metadata:?}"));
    value.to_str().unwrap().to_owned()
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// A unary request: which RPC it is for.
pub trait Call: Sized + Send + 'static {
    type Answer: fmt::Debug + Send;

    fn send(client: &Client, request: Request<Self>) -> Answering<Self::Answer>;
}

macro_rules! calls {
    ($service:ident: $($method:ident($request:ident) -> $answer:ident;)*) => {$(
        impl Call for v1::$request {
            type Answer = v1::$answer;

            fn send(client: &Client, request: Request<Self>) -> Answering<Self::Answer> {
                let mut service = $service::new(client.channel.clone());
                Box::pin(async move { service.$method(request).await })
            }
        }
    )*};
}

calls! { PaymentServiceClient:
    create_payment(CreatePaymentRequest) -> CreatePaymentResponse;
    confirm_payment(ConfirmPaymentRequest) -> ConfirmPaymentResponse;
    capture_payment(CapturePaymentRequest) -> CapturePaymentResponse;
    void_payment(VoidPaymentRequest) -> VoidPaymentResponse;
    refund_payment(RefundPaymentRequest) -> RefundPaymentResponse;
    sync_payment(SyncPaymentRequest) -> SyncPaymentResponse;
    get_payment(GetPaymentRequest) -> GetPaymentResponse;
    list_payments(ListPaymentsRequest) -> ListPaymentsResponse;
}

calls! { AuditServiceClient:
    list_entries(ListEntriesRequest) -> ListEntriesResponse;
    get_entry(GetEntryRequest) -> GetEntryResponse;
    get_checkpoint(GetCheckpointRequest) -> GetCheckpointResponse;
    get_inclusion_proof(GetInclusionProofRequest) -> GetInclusionProofResponse;
    get_consistency_proof(GetConsistencyProofRequest) -> GetConsistencyProofResponse;
    export_evidence(ExportEvidenceRequest) -> ExportEvidenceResponse;
    summarize_failures(SummarizeFailuresRequest) -> SummarizeFailuresResponse;
}

calls! { AdminServiceClient:
    list_operator_actions(ListOperatorActionsRequest) -> ListOperatorActionsResponse;
    resolve_transaction(ResolveTransactionRequest) -> ResolveTransactionResponse;
    retry_transaction(RetryTransactionRequest) -> RetryTransactionResponse;
    erase_personal_data(ErasePersonalDataRequest) -> ErasePersonalDataResponse;
    get_erasure(GetErasureRequest) -> GetErasureResponse;
    create_notification_endpoint(CreateNotificationEndpointRequest) -> CreateNotificationEndpointResponse;
    list_notification_endpoints(ListNotificationEndpointsRequest) -> ListNotificationEndpointsResponse;
    update_notification_endpoint(UpdateNotificationEndpointRequest) -> UpdateNotificationEndpointResponse;
    delete_notification_endpoint(DeleteNotificationEndpointRequest) -> DeleteNotificationEndpointResponse;
    test_notification_endpoint(TestNotificationEndpointRequest) -> TestNotificationEndpointResponse;
    rotate_notification_endpoint_secret(RotateNotificationEndpointSecretRequest) -> RotateNotificationEndpointSecretResponse;
    list_notifications(ListNotificationsRequest) -> ListNotificationsResponse;
    get_notification(GetNotificationRequest) -> GetNotificationResponse;
    replay_notifications(ReplayNotificationsRequest) -> ReplayNotificationsResponse;
    list_webhooks(ListWebhooksRequest) -> ListWebhooksResponse;
    get_webhook(GetWebhookRequest) -> GetWebhookResponse;
    replay_webhook(ReplayWebhookRequest) -> ReplayWebhookResponse;
}

impl Client {
    /// A caller without credentials. Connects with the first call.
    pub fn new(address: SocketAddr) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&pki().ca_pem))
            .domain_name(SERVER_NAME);
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        let channel = endpoint
            .tls_config(tls)
            .unwrap()
            .tcp_nodelay(true)
            .connect_lazy();
        Self {
            address,
            channel,
            metadata: MetadataMap::new(),
            limit: Some(CALL_LIMIT),
        }
    }

    /// The same caller on a connection of its own.
    pub fn reconnected(&self) -> Self {
        Self {
            channel: Self::new(self.address).channel,
            ..self.clone()
        }
    }

    /// The same connection with this request metadata.
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.metadata.insert(name, value.parse().unwrap());
        client
    }

    /// Calls with this API key.
    pub fn with_key(&self, api_key: &str) -> Self {
        self.with("authorization", &format!("Bearer {api_key}"))
    }

    /// Calls from within a span of the caller.
    pub fn traced(&self, trace_id: &str, span_id: &str) -> Self {
        self.with("traceparent", &format!("00-{trace_id}-{span_id}-01"))
    }

    /// Calls with a deadline.
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            ..self.clone()
        }
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request with this caller's metadata and deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        if let Some(limit) = self.limit {
            request.set_timeout(limit);
        }
        request
    }

    /// Calls, and says how it ended, transport errors included.
    pub async fn send<M: Call>(&self, message: M) -> Result<Reply<M::Answer>, Status> {
        let response = M::send(self, self.request(message)).await?;
        let (metadata, message, _) = response.into_parts();
        Ok(Reply { message, metadata })
    }

    /// Calls; an error must have the form of the contract.
    pub async fn call<M: Call>(&self, message: M) -> Result<Reply<M::Answer>, Failure> {
        self.send(message).await.map_err(Failure::from)
    }

    /// Calls, and expects an answer.
    pub async fn ok<M: Call>(&self, message: M) -> Reply<M::Answer> {
        let rpc = std::any::type_name::<M>();
        self.call(message)
            .await
            .unwrap_or_else(|failure| panic!("{rpc}: {failure:?}"))
    }

    /// Calls, and expects an error.
    pub async fn refused<M: Call>(&self, message: M) -> Failure {
        let rpc = std::any::type_name::<M>();
        match self.call(message).await {
            Ok(answer) => panic!("{rpc} was not refused: {:?}", answer.message),
            Err(failure) => failure,
        }
    }

    /// Creates a payment, and expects an answer.
    pub async fn create(&self, request: v1::CreatePaymentRequest) -> Payment {
        self.ok(request).await.message.payment.unwrap()
    }

    /// The payment as it stands.
    pub async fn payment(&self, payment_id: &str) -> Payment {
        self.ok(super::get(payment_id))
            .await
            .message
            .payment
            .unwrap()
    }

    pub async fn watch(
        &self,
        request: v1::WatchPaymentsRequest,
    ) -> Result<Streaming<v1::WatchPaymentsResponse>, Failure> {
        self.watch_response(request).await.map(Response::into_inner)
    }

    /// The same with the response metadata.
    pub async fn watch_response(
        &self,
        request: v1::WatchPaymentsRequest,
    ) -> Result<Response<Streaming<v1::WatchPaymentsResponse>>, Failure> {
        let request = self.stream_request(request);
        let mut service = PaymentServiceClient::new(self.channel());
        opened(service.watch_payments(request)).await
    }

    pub async fn tail(
        &self,
        request: v1::TailEntriesRequest,
    ) -> Result<Streaming<v1::TailEntriesResponse>, Failure> {
        let request = self.stream_request(request);
        let mut service = AuditServiceClient::new(self.channel());
        let answer = opened(service.tail_entries(request)).await;
        answer.map(Response::into_inner)
    }

    pub async fn verify_log(&self) -> Result<Streaming<v1::VerifyLogResponse>, Failure> {
        let request = self.stream_request(v1::VerifyLogRequest::default());
        let mut service = AuditServiceClient::new(self.channel());
        let answer = opened(service.verify_log(request)).await;
        answer.map(Response::into_inner)
    }

    /// A stream stays open as long as the test wants it.
    fn stream_request<T>(&self, message: T) -> Request<T> {
        Self {
            limit: None,
            ..self.clone()
        }
        .request(message)
    }

    /// Calls with bytes.
    pub async fn raw(&self, method: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
        let answer = wire::call(self.channel(), method, self.request(bytes)).await?;
        Ok(answer.into_inner())
    }

    /// Opens a stream with bytes.
    pub async fn raw_stream(
        &self,
        method: &str,
        bytes: Vec<u8>,
        wait: Duration,
    ) -> Result<Option<Vec<u8>>, Status> {
        let request = self.stream_request(bytes);
        wire::first_of_stream(self.channel(), method, request, wait).await
    }

    /// Every change of a payment, oldest first, with leaf data. What is listed besides, such as who read
    /// these entries, is in streams of its own, and left out.
    pub async fn entries_of(&self, payment_id: &str) -> Vec<v1::AuditEntry> {
        let request = v1::ListEntriesRequest {
            payment_id: payment_id.to_owned(),
            include_leaf_data: true,
            page_size: 500,
            ..v1::ListEntriesRequest::default()
        };
        let mut entries = self.entries(request).await;
        entries.retain(|entry| entry.stream_id == payment_id);
        entries
    }

    /// Every entry that a filter lets through, page by page.
    pub async fn entries(&self, mut request: v1::ListEntriesRequest) -> Vec<v1::AuditEntry> {
        let mut entries = Vec::new();
        loop {
            let page = self.ok(request.clone()).await.message;
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return entries;
            }
            request.page_token = page.next_page_token;
        }
    }
}

/// The answer to a call that opens a stream: the stream has no deadline, and its opening is not waited for for ever.
async fn opened<T>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Failure> {
    let answer = timeout(PATIENCE, answer).await;
    answer.expect("the stream opens").map_err(Failure::from)
}

/// What a stream tells next, which comes in time; `None` at its end.
pub async fn next_told<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    let told = timeout(PATIENCE, stream.message()).await;
    told.expect("the stream says something, or ends")
}

/// An address from text, for processes that tell theirs.
pub fn address(text: &str) -> SocketAddr {
    SocketAddr::from_str(text).unwrap_or_else(|_| panic!("not an address: {text}"))
}
