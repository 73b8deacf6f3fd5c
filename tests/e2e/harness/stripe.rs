//! A server with an account at PyPI's localstripe, which tells it by webhook what became of payments.

#[path = "../../../crates/providers/tests/it/support/localstripe.rs"]
mod localstripe;
#[allow(dead_code, reason = "the adapters' tests need more of it")]
#[path = "../../../crates/providers/tests/it/support/python.rs"]
mod python;

use hmac::{Hmac, Mac as _};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use toml::{Table, Value as Setting};

use self::localstripe::LocalStripe;
use super::site::PROVIDER_TIMEOUT_MS;
use super::tls::pki;
use super::webhooks::{Post, now};
use super::{Site, SiteOptions, World, eventually};

/// The account's name.
pub const STRIPE: &str = "stripe-eu";
pub const SECRET: &str = "whsec_0123456789abcdef0123456789abcdef";
const NEXT_SECRET: &str = "whsec_fedcba9876543210fedcba9876543210";
const KEY: &str = "sk_test_e2e";

pub struct StripeWorld {
    pub world: World,
    stripe: LocalStripe,
}

impl std::ops::Deref for StripeWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl StripeWorld {
    /// `None` where there is no Python, which only CI must have.
    pub async fn start() -> Option<Self> {
        let ca = pki().ca_file.clone();
        let started = tokio::task::spawn_blocking(move || LocalStripe::start(Some(&ca)));
        let stripe = started.await.unwrap()?;
        let options = SiteOptions::default()
            .with("webhooks.poll_interval_ms", 20)
            // Fewer than open the circuit, which would be waited for.
            .with("webhooks.max_attempts", 10)
            .with("webhooks.retry_first_ms", 20)
            .with("webhooks.retry_max_ms", 200);
        let site = Site::new(options).await;
        let mut account = Table::new();
        for (key, value) in [
            ("name", Setting::from(STRIPE)),
            ("kind", "stripe".into()),
            ("base_url", stripe.base_url().into()),
            ("api_key", KEY.into()),
            ("allow_plaintext", true.into()),
            ("connect_timeout_ms", (PROVIDER_TIMEOUT_MS / 2).into()),
            ("total_timeout_ms", PROVIDER_TIMEOUT_MS.into()),
            ("webhook_secrets", vec![NEXT_SECRET, SECRET].into()),
        ] {
            account.insert(key.to_owned(), value);
        }
        let accounts = vec![Setting::from(account)];
        let world = World::on(site, vec![("providers.accounts", accounts.into())]).await;
        let world = Self { world, stripe };
        let url = format!("https://{}/webhooks/{STRIPE}", world.server.http_addr());
        let endpoint = [("url", url.as_str()), ("secret", SECRET)];
        world.post("/_config/webhooks/quittance", &endpoint).await;
        Some(world)
    }

    /// Asks localstripe itself.
    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let request = client()
            .post(format!("{}{path}", self.stripe.base_url()))
            .bearer_auth(KEY)
            .form(form);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let body = answer.bytes().await.unwrap();
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    /// A payment method at localstripe.
    pub async fn card(&self, number: &str) -> String {
        let form = [
            ("type", "card"),
            ("card[number]", number),
            ("card[exp_month]", "12"),
            ("card[exp_year]", "2050"),
            ("card[cvc]", "123"),
        ];
        self.method(&form).await
    }

    pub async fn debit(&self, iban: &str) -> String {
        let form = [("type", "sepa_debit"), ("sepa_debit[iban]", iban)];
        self.method(&form).await
    }

    async fn method(&self, form: &[(&str, &str)]) -> String {
        let method = self.post("/v1/payment_methods", form).await;
        method["id"].as_str().unwrap().to_owned()
    }

    /// Delivers an event that localstripe does not know, signed as Stripe does; it has to be acknowledged.
    pub async fn tell(&self, id: &str, kind: &str, livemode: bool, object: &Value) {
        let event = json!({
            "id": id, "object": "event", "type": kind, "livemode": livemode,
            "data": {"object": object},
        });
        let (time, body) = (now(), event.to_string());
        let mut mac = Hmac::<Sha256>::new_from_slice(NEXT_SECRET.as_bytes()).unwrap();
        mac.update(format!("{time}.{body}").as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        let post = Post {
            account: STRIPE,
            id: None,
            timestamp: None,
            signature: None,
            body: body.into_bytes(),
        };
        let request = post.request(self.server.http_addr());
        let request = request.header("stripe-signature", format!("t={time},v1={signature}"));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }

    /// What became of a stored event: its state and reason, once it has ended.
    pub async fn kept(&self, event: &str) -> (String, Option<String>) {
        eventually(&format!("{event} has ended"), async || {
            let sql = "select state, reason from webhook_inbox where event_id = $1 \
                       and state not in ('RECEIVED', 'PARKED')";
            let rows = self.world.db.rows(sql, &[&event]).await;
            rows.first().map(|row| (row.get(0), row.get(1)))
        })
        .await
    }
}

/// Plain HTTP on loopback.
fn client() -> Client {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}
