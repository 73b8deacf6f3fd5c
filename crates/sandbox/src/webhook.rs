//! Sending events: signed as in Standard Webhooks, from bounded queues, with a bounded number of
//! tries.

use crate::clock;
use crate::config::WebhookConfig;
use crate::limits::{
    MAX_WEBHOOK_QUEUE, WEBHOOK_BACKOFF, WEBHOOK_SENDERS, WEBHOOK_TIMEOUT, WEBHOOK_TRIES,
};
use crate::wire::Event;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use reqwest::header::CONTENT_TYPE;
use sha2::Sha256;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// The decoded secret. Has no `Debug`, so that it cannot be logged.
struct Secret(Vec<u8>);

impl Secret {
    /// `whsec_` and the base64 of 24 to 64 bytes.
    fn parse(text: &str) -> Option<Self> {
        let key = BASE64.decode(text.strip_prefix("whsec_")?).ok()?;
        (24..=64).contains(&key.len()).then_some(Self(key))
    }

    /// The `webhook-signature` of a body.
    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
    }
}

/// One event on its way.
pub(crate) struct Delivery {
    pub event: Event,
    /// How often it is sent, though it was received.
    pub copies: u32,
}

/// The way into the queues.
#[derive(Clone)]
pub(crate) struct Sender {
    queues: Vec<mpsc::Sender<Delivery>>,
}

impl Sender {
    /// Starts the senders. Fails on a secret or certificate that cannot be read.
    pub(crate) fn start(
        config: &WebhookConfig,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let target = Arc::new(Target::new(config)?);
        let mut queues = Vec::with_capacity(WEBHOOK_SENDERS);
        for _ in 0..WEBHOOK_SENDERS {
            let (queue, waiting) = mpsc::channel(MAX_WEBHOOK_QUEUE);
            queues.push(queue);
            let (target, stop) = (Arc::clone(&target), stop.clone());
            tasks.spawn(async move {
                stop.run_until_cancelled(send_all(waiting, &target)).await;
            });
        }
        Ok(Self { queues })
    }

    /// Queues an event with those of the same payment. Never waits: a provider does not stop
    /// charging because somebody does not take its webhooks.
    pub(crate) fn send(&self, payment: usize, delivery: Delivery) {
        let Some(queue) = self.queues.get(payment % self.queues.len().max(1)) else {
            return;
        };
        if let Err(refused) = queue.try_send(delivery) {
            let event = match &refused {
                mpsc::error::TrySendError::Full(delivery)
                | mpsc::error::TrySendError::Closed(delivery) => &delivery.event.id,
            };
            warn!(
                event,
                "the sandbox's webhook queue is full or closed: event not sent"
            );
        }
    }
}

/// Where and how events are posted.
struct Target {
    client: reqwest::Client,
    url: reqwest::Url,
    secret: Secret,
}

impl Target {
    fn new(config: &WebhookConfig) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let secret = Secret::parse(&config.secret).ok_or_else(|| {
            invalid("the webhook secret must be whsec_ and the base64 of 24 to 64 bytes")
        })?;
        let url = reqwest::Url::parse(&config.url)
            .map_err(|error| invalid(&format!("the webhook URL: {error}")))?;
        // Fails only if the process has a provider already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(WEBHOOK_TIMEOUT);
        if let Some(pem) = &config.ca_pem {
            let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(io::Error::other)?;
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(io::Error::other)?;
        Ok(Self {
            client,
            url,
            secret,
        })
    }
}

async fn send_all(mut waiting: mpsc::Receiver<Delivery>, target: &Target) {
    while let Some(delivery) = waiting.recv().await {
        let Ok(body) = serde_json::to_vec(&delivery.event).map(Bytes::from) else {
            continue;
        };
        for _ in 0..delivery.copies {
            send_one(target, &delivery.event.id, &body).await;
        }
    }
}

/// Sends one copy until it is received or the tries are used up.
async fn send_one(target: &Target, id: &str, body: &Bytes) {
    let mut wait = WEBHOOK_BACKOFF;
    for attempt in 1..=WEBHOOK_TRIES {
        if received(target, id, body).await {
            return;
        }
        if attempt < WEBHOOK_TRIES {
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2);
        }
    }
    warn!(
        event = id,
        tries = WEBHOOK_TRIES,
        "a webhook of the sandbox was not received"
    );
}

async fn received(target: &Target, id: &str, body: &Bytes) -> bool {
    let timestamp = clock::now().timestamp();
    let Some(signature) = target.secret.sign(id, timestamp, body) else {
        return false;
    };
    let answer = target
        .client
        .post(target.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body.clone())
        .send()
        .await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn signs_like_the_specification() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret
                .sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body)
                .unwrap(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn weak_or_foreign_secrets_are_refused() {
        for bad in [
            "",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
            "whsec_?",
        ] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
    }
}
