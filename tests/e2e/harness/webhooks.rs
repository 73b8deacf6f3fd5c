//! Plays the provider's part in delivering webhooks: which, when, how often, in which order, and how signed.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use quittance_proto::v1::Payment;
use quittance_sandbox::Event;
use quittance_server::server::Server;
use reqwest::{RequestBuilder, StatusCode};
use sha2::Sha256;
use toml::{Table, Value};

use super::site::{ACCOUNT, SANDBOX_KEY, Setting, account};
use super::tls::pki;
use super::{Site, SiteOptions, World, eventually};

/// The secret of the account that every test has.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The one that replaces it.
pub const NEXT_SECRET: &str = "whsec_bmV4dC1zZWNyZXQtbmV4dC1zZWNyZXQtbmV4dA==";
/// The account of another tenant, `globex`.
pub const OTHER_ACCOUNT: &str = "sandbox-globex";
/// Its secret.
pub const OTHER_SECRET: &str = "whsec_Z2xvYmV4LXNlY3JldC1nbG9iZXgtc2VjcmV0";

/// A webhook as it is put on the wire.
#[derive(Clone)]
pub struct Post {
    pub account: &'static str,
    pub id: Option<String>,
    pub timestamp: Option<String>,
    pub signature: Option<String>,
    pub body: Vec<u8>,
}

impl Post {
    /// Signed now, under the usual secret.
    pub fn of(event: &Event) -> Self {
        Self::signed(&event.id, &serde_json::to_vec(event).unwrap(), SECRET)
    }

    pub fn signed(id: &str, body: &[u8], secret: &str) -> Self {
        Self::signed_at(id, body, secret, now())
    }

    pub fn signed_at(id: &str, body: &[u8], secret: &str, seconds: i64) -> Self {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap());
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.unwrap()).unwrap();
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        let signature = BASE64.encode(mac.finalize().into_bytes());
        Self {
            account: ACCOUNT,
            id: Some(id.to_owned()),
            timestamp: Some(seconds.to_string()),
            signature: Some(format!("v1,{signature}")),
            body: body.to_vec(),
        }
    }

    pub fn to(mut self, account: &'static str) -> Self {
        self.account = account;
        self
    }

    pub fn request(&self, server: SocketAddr) -> RequestBuilder {
        self.request_by(&client(), server)
    }

    /// On a connection of this client's.
    pub fn request_by(&self, client: &reqwest::Client, server: SocketAddr) -> RequestBuilder {
        let url = format!("https://{server}/webhooks/{}", self.account);
        let mut request = client.post(url).body(self.body.clone());
        for (name, value) in [
            ("webhook-id", &self.id),
            ("webhook-timestamp", &self.timestamp),
            ("webhook-signature", &self.signature),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request
    }

    pub async fn send(&self, server: SocketAddr) -> StatusCode {
        self.request(server).send().await.unwrap().status()
    }
}

/// The provider's clock.
#[allow(clippy::disallowed_methods, reason = "the provider is somebody else")]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A sender of webhooks, which keeps its connections.
pub fn client() -> reqwest::Client {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(pki().ca_pem.as_bytes()).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([ca])
        .build()
        .unwrap()
}

/// What the inbox says of a webhook.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    pub account: String,
    pub state: String,
    pub reason: Option<String>,
    pub attempts: i32,
}

/// A world whose server takes webhooks of two accounts: the usual one, and one of the tenant `globex` alone.
pub struct Hooks {
    pub world: World,
    settings: Vec<Setting>,
}

impl std::ops::Deref for Hooks {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Hooks {
    pub async fn start() -> Self {
        Self::start_with(SiteOptions::default()).await
    }

    pub async fn start_with(options: SiteOptions) -> Self {
        // What is tried again is so soon.
        let options = options
            .with("webhooks.poll_interval_ms", 20)
            .with("webhooks.retry_first_ms", 20)
            .with("webhooks.retry_max_ms", 60);
        Self::start_patient(options).await
    }

    /// With the waits of these options.
    pub async fn start_patient(options: SiteOptions) -> Self {
        let (timeout, behind) = (options.provider_timeout_ms, options.behind_proxies);
        let site = Site::new(options).await;
        assert!(
            !behind || site.links().provider.open() == 0,
            "only the database is cut"
        );
        let base_url = site.sandbox.base_url();
        let accounts = [
            (ACCOUNT, vec![SECRET, NEXT_SECRET]),
            (OTHER_ACCOUNT, vec![OTHER_SECRET]),
        ];
        let accounts = accounts.map(|(name, secrets)| {
            let mut account = account(name, &base_url, timeout);
            account.insert("webhook_secrets".to_owned(), Value::from(secrets));
            Value::from(account)
        });
        let mut rules = Vec::new();
        for (tenant, account) in [("globex", OTHER_ACCOUNT), ("acme", ACCOUNT)] {
            let mut rule = Table::new();
            rule.insert("tenant".to_owned(), Value::from(tenant));
            rule.insert("accounts".to_owned(), Value::from(vec![account]));
            rules.push(Value::from(rule));
        }
        let settings = vec![
            ("providers.accounts", Value::from(accounts.to_vec())),
            ("providers.routing", Value::from(rules)),
        ];
        let world = World::on(site, settings.clone()).await;
        Self { world, settings }
    }

    /// Another server on the same database, with the same accounts.
    pub async fn second_server(&self) -> quittance_server::server::RunningServer {
        let config = self.world.config_with(self.settings.clone());
        Server::start(config).await.unwrap()
    }

    /// The settings of its servers.
    pub fn all_settings(&self) -> Vec<Setting> {
        let mut all = self.world.settings();
        all.extend(self.settings.clone());
        all
    }

    pub fn at(&self) -> SocketAddr {
        self.world.server.http_addr()
    }

    /// Every event that the provider has to tell, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.world.sandbox.events(0, 1_000).events
    }

    /// The only event of this type about a transaction.
    pub fn event_about(&self, transaction: &str) -> Event {
        let mut events = self.events();
        events.retain(|event| event.operation.reference == transaction);
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// Does something to a payment that no caller asks for; the event that tells it.
    pub async fn control(&self, payment: &Payment, what: &str, body: serde_json::Value) -> Event {
        let reference = &payment.provider_reference;
        let base_url = self.world.sandbox.base_url();
        let answer = reqwest::Client::new()
            .post(format!("{base_url}/control/payments/{reference}/{what}"))
            .bearer_auth(SANDBOX_KEY)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{what}: {answer:?}");
        self.events().pop().unwrap()
    }

    /// Delivers an event, and waits until it is done with.
    pub async fn tell(&self, event: &Event, becomes: &str) {
        self.deliver(&Post::of(event)).await;
        self.until(&event.id, becomes).await;
    }

    /// Delivers a webhook, which has to be acknowledged.
    pub async fn deliver(&self, post: &Post) {
        assert_eq!(post.send(self.at()).await, StatusCode::OK);
    }

    /// What is kept of an event.
    pub async fn kept(&self, event: &str) -> Vec<Kept> {
        let sql = "select provider_account, state, reason, attempts from webhook_inbox \
                   where event_id = $1 order by webhook_id";
        let rows = self.world.db.rows(sql, &[&event]).await;
        let kept = rows.iter().map(|row| Kept {
            account: row.get(0),
            state: row.get(1),
            reason: row.get(2),
            attempts: row.get(3),
        });
        kept.collect()
    }

    /// The only webhook of an event, once it is in a state.
    pub async fn until(&self, event: &str, state: &str) -> Kept {
        eventually(&format!("webhook {event} is {state}"), async || {
            let mut kept = self.kept(event).await;
            assert!(kept.len() <= 1, "{kept:?}");
            kept.pop().filter(|kept| kept.state == state)
        })
        .await
    }

    pub async fn stored(&self) -> i64 {
        self.world
            .db
            .number("select count(*) from webhook_inbox")
            .await
    }
}
