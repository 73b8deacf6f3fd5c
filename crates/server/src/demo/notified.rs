//! The last scene: somebody is told, and verifies it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use chrono::Utc;
use http::{HeaderMap, StatusCode};
use quittance_domain::webhook::Delivery;
use quittance_proto::v1;
use quittance_proto::v1::PaymentState;
use quittance_providers::config::Secret;
use quittance_providers::webhook::StandardWebhooks;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::client::Client;
use super::scenes::{expect, order};
use super::show::{self, Show};

/// The only event that the demo's receiver is told.
const EVENT: &str = "payment.captured";
/// How long the notification may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Notifications that wait to be looked at.
const QUEUE: usize = 16;

/// What the receiver got.
struct Got {
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn payment_id(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let id = body.pointer("/data/payment_id")?;
        id.as_str().map(str::to_owned)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn is_genuine(&self, secret: &str) -> bool {
        let Ok(verifier) = StandardWebhooks::new(&[Secret::new(secret)]) else {
            return false;
        };
        let delivery = Delivery {
            header: &|name| self.header(name),
            body: &self.body,
            received_at: Utc::now(),
        };
        verifier.verify(&delivery).is_ok()
    }
}

async fn take(
    State(queue): State<mpsc::Sender<Got>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    match queue.try_send(Got { headers, body }) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The next one about a payment. What happened just before the endpoint was made may be told, too.
async fn about(payment_id: &str, arrived: &mut mpsc::Receiver<Got>) -> Option<Got> {
    loop {
        let got = arrived.recv().await?;
        if got.payment_id().as_deref() == Some(payment_id) {
            return Some(got);
        }
    }
}

pub(super) async fn notified(client: &mut Client, show: &Show) -> anyhow::Result<()> {
    show.scene(9, "A notification: signed, and verified by whoever is told");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hooks", listener.local_addr()?);
    let (queue, mut arrived) = mpsc::channel(QUEUE);
    let router = Router::new().route("/hooks", post(take)).with_state(queue);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let made = client.create_endpoint(&url, EVENT).await?;
    show.note(&format!("An endpoint for {EVENT}: {url}"));
    let request = order(
        client,
        "notified",
        1_250,
        "tok_approve",
        v1::CaptureMethod::Automatic,
    );
    let bought = client.create(request).await?;
    show.call("CreatePayment 12.50 EUR", &bought.payment);
    expect(&bought, PaymentState::Captured)?;
    let got = tokio::time::timeout(PATIENCE, about(&bought.payment.payment_id, &mut arrived)).await;
    serving.abort();
    let got = got.ok().flatten().context("no notification has arrived")?;
    ensure!(
        got.is_genuine(&made.secret),
        "the signature does not verify"
    );
    ensure!(
        !got.is_genuine("whsec_c29tZWJvZHktZWxzZS1zb21lYm9keS1lbHNl"),
        "anybody's signature verifies"
    );
    show::fact(&format!(
        "webhook-id {}: {EVENT} of that payment, its signature verified",
        got.header("webhook-id").unwrap_or_default()
    ));
    Ok(())
}
