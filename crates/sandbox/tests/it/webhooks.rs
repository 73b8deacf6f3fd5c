//! What is told, how often, in which order, and how it is signed.

use crate::client::{Client, KEY, config, eventually};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use quittance_sandbox::{Event, EventPage, EventType, OperationStatus, WebhookConfig};
use sha2::Sha256;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Receives webhooks, checks their signatures, and refuses the first few.
#[derive(Default)]
struct Inbox {
    refuse: Mutex<u32>,
    events: Mutex<Vec<Event>>,
}

impl Inbox {
    fn types(&self) -> Vec<EventType> {
        self.events
            .lock()
            .iter()
            .map(|event| event.r#type)
            .collect()
    }

    async fn wait_for(&self, count: usize) -> Vec<EventType> {
        eventually("webhooks", async || {
            let types = self.types();
            (types.len() >= count).then_some(types)
        })
        .await
    }
}

async fn receive(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let key = BASE64
        .decode(SECRET.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&body);
    let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
    assert_eq!(header("webhook-signature"), signature);
    {
        let mut refuse = inbox.refuse.lock();
        if *refuse > 0 {
            *refuse -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
    }
    let event: Event = serde_json::from_slice(&body).unwrap();
    assert_eq!(event.id, id);
    inbox.events.lock().push(event);
    StatusCode::NO_CONTENT
}

async fn with_inbox() -> (Client, Arc<Inbox>, DropGuard) {
    let inbox = Arc::new(Inbox::default());
    let router = Router::new()
        .route("/hook", post(receive))
        .with_state(Arc::clone(&inbox));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stopped)
            .await
            .unwrap();
    });
    let mut config = config();
    config.webhook = Some(WebhookConfig {
        url,
        secret: SECRET.to_owned(),
        ca_pem: None,
    });
    config.settle_unasked = Duration::from_millis(50);
    (Client::with(config).await, inbox, stop.drop_guard())
}

#[tokio::test]
async fn a_lifecycle_is_told_in_order_and_retried() {
    let (client, inbox, _guard) = with_inbox().await;
    *inbox.refuse.lock() = 2;
    let id = client
        .pay("a", "tok_approve", false)
        .await
        .operation()
        .payment_id;
    client.capture(&id, "c", 600, false).await.operation();
    client.void(&id, "v").await.operation();
    client.refund(&id, "f", 100).await.operation();
    let told = inbox.wait_for(4).await;
    assert_eq!(
        told,
        [
            EventType::PaymentAuthorized,
            EventType::PaymentCaptured,
            EventType::PaymentVoided,
            EventType::RefundSucceeded
        ]
    );
    let listed: EventPage = serde_json::from_value(client.get("/events").await.json()).unwrap();
    assert_eq!(listed.events, *inbox.events.lock());
    assert_eq!(listed.next, None);
    let of_the_caller = |event: &Event| event.payment_reference.as_deref() == Some("order-1");
    assert!(listed.events.iter().all(of_the_caller));
    let second: EventPage =
        serde_json::from_value(client.get("/events?after=1&limit=1").await.json()).unwrap();
    assert_eq!(
        (&second.events[0], second.next),
        (&listed.events[1], Some(2))
    );
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_duplicate_webhook_is_sent_three_times() {
    let (client, inbox, _guard) = with_inbox().await;
    client
        .pay("p", "tok_duplicate_webhook", true)
        .await
        .operation();
    let told = inbox.wait_for(3).await;
    assert_eq!(told, [EventType::PaymentCaptured; 3]);
    let events = inbox.events.lock().clone();
    assert!(events.iter().all(|event| event == &events[0]));
    assert_eq!(client.sandbox.events(0, 10).events.len(), 1);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_webhook_out_of_order_tells_the_capture_first() {
    let (client, inbox, _guard) = with_inbox().await;
    let id = client
        .pay("a", "tok_webhook_out_of_order", false)
        .await
        .operation()
        .payment_id;
    assert_eq!(client.sandbox.events(0, 10).events, []);
    client.capture(&id, "c", 1000, false).await.operation();
    let told = inbox.wait_for(2).await;
    assert_eq!(
        told,
        [EventType::PaymentCaptured, EventType::PaymentAuthorized]
    );
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn pending_operations_end_unasked_and_are_told() {
    let (client, inbox, _guard) = with_inbox().await;
    client
        .pay("approved", "tok_pending_then_approve", true)
        .await
        .operation();
    assert_eq!(inbox.wait_for(1).await, [EventType::PaymentCaptured]);
    client
        .pay("declined", "tok_pending_then_decline", true)
        .await
        .operation();
    assert_eq!(inbox.wait_for(2).await[1], EventType::PaymentDeclined);
    let id = client
        .pay("a", "tok_capture_fails", false)
        .await
        .operation()
        .payment_id;
    let pending = client.capture(&id, "c", 1000, false).await.operation();
    assert_eq!(pending.status, OperationStatus::Pending);
    let told = inbox.wait_for(4).await;
    assert_eq!(
        told[2..],
        [
            EventType::PaymentAuthorized,
            EventType::PaymentCaptureFailed
        ]
    );
    assert_eq!(client.charges("approved").0, 1);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn later_failures_are_told() {
    let (client, inbox, _guard) = with_inbox().await;
    let id = client
        .pay("p", "tok_approve", true)
        .await
        .operation()
        .payment_id;
    client.refund(&id, "f", 10).await.operation();
    let url = format!(
        "{}/control/payments/{id}/fail_refund",
        client.sandbox.base_url()
    );
    client.http.post(url).bearer_auth(KEY).send().await.unwrap();
    client.pay("b", "tok_chargeback", true).await.operation();
    let mut told = inbox.wait_for(5).await;
    // Two payments: each in order, the two in any order.
    let chargeback = told
        .iter()
        .position(|kind| *kind == EventType::ChargebackOpened)
        .unwrap();
    told.remove(chargeback);
    assert!(told.contains(&EventType::RefundFailed));
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn settle_on_demand() {
    let client = Client::new().await;
    let token = "tok_pending_then_approve?settle_after_ms=600000";
    let id = client.pay("p", token, true).await.operation().payment_id;
    let path = format!("/control/payments/{id}/settle");
    let settled = client
        .post(&path, "-", &serde_json::json!({}))
        .await
        .operation();
    assert_eq!(settled.status, OperationStatus::Approved);
    assert_eq!(
        client.post(&path, "-", &serde_json::json!({})).await.status,
        409
    );
    client.sandbox.shutdown().await;
}
