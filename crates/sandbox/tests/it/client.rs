//! A caller of the sandbox, and short ways to write what it asks for.

use quittance_sandbox::{Operation, Sandbox, SandboxConfig, SandboxHandle};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const KEY: &str = "sandbox-test-key";

pub struct Client {
    pub sandbox: SandboxHandle,
    pub http: reqwest::Client,
}

pub struct Answer {
    pub status: StatusCode,
    pub replayed: bool,
    pub retry_after: Option<String>,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub fn operation(&self) -> Operation {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .retry(reqwest::retry::never())
        .build()
        .unwrap()
}

/// What a hanging request costs a test.
pub fn config() -> SandboxConfig {
    let mut config = SandboxConfig::new(KEY);
    config.max_hang = Duration::from_millis(100);
    config.slow = Duration::from_millis(300);
    config
}

pub fn payment(reference: &str, token: &str, capture: bool) -> Value {
    json!({
        "reference": reference, "payment_reference": "order-1", "amount": 1000,
        "currency": "EUR", "token": token, "capture": capture,
        "return_url": "https://shop.example/return", "metadata": {"a": "b"},
    })
}

impl Client {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: SandboxConfig) -> Self {
        Self {
            sandbox: Sandbox::start(config).await.unwrap(),
            http: http(),
        }
    }

    /// A POST, or why there is no (whole) answer.
    pub async fn try_post(
        &self,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.sandbox.base_url());
        let request = self
            .http
            .post(url)
            .bearer_auth(KEY)
            .header("Idempotency-Key", key);
        read(request.json(body).send().await?).await
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.try_post(path, key, body).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.sandbox.base_url());
        read(self.http.get(url).bearer_auth(KEY).send().await.unwrap())
            .await
            .unwrap()
    }

    /// The key is the reference, as with our service.
    pub async fn pay(&self, reference: &str, token: &str, capture: bool) -> Answer {
        self.post(
            "/v1/payments",
            reference,
            &payment(reference, token, capture),
        )
        .await
    }

    pub async fn try_pay(&self, reference: &str, token: &str) -> Result<Answer, reqwest::Error> {
        self.try_post("/v1/payments", reference, &payment(reference, token, true))
            .await
    }

    pub async fn capture(&self, id: &str, reference: &str, amount: i64, last: bool) -> Answer {
        let body =
            json!({"reference": reference, "amount": amount, "currency": "EUR", "final": last});
        self.post(&format!("/v1/payments/{id}/captures"), reference, &body)
            .await
    }

    pub async fn refund(&self, id: &str, reference: &str, amount: i64) -> Answer {
        let body = json!({"reference": reference, "amount": amount, "currency": "EUR"});
        self.post(&format!("/v1/payments/{id}/refunds"), reference, &body)
            .await
    }

    pub async fn void(&self, id: &str, reference: &str) -> Answer {
        let body = json!({"reference": reference});
        self.post(&format!("/v1/payments/{id}/void"), reference, &body)
            .await
    }

    pub async fn look_up(&self, reference: &str) -> Answer {
        self.get(&format!("/v1/operations/{reference}")).await
    }

    /// How often the books say that money moved.
    pub fn charges(&self, reference: &str) -> (u64, i128) {
        let charged = self.sandbox.charged(reference);
        (charged.charges, charged.amount)
    }
}

async fn read(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let header = |name| {
        response
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
    };
    let (status, retry_after) = (response.status(), header("retry-after"));
    let replayed = header("idempotent-replayed").as_deref() == Some("true");
    let bytes = response.bytes().await?.to_vec();
    Ok(Answer {
        status,
        replayed,
        retry_after,
        bytes,
    })
}

/// Polls until something is there, for two minutes at most.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
