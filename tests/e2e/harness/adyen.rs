//! Plays Adyen: answers the Checkout API over HTTP on loopback, and tells results by webhook when a test says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use quittance_proto::v1::{CreatePaymentRequest, Customer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::Sha256;
use toml::Table;

use super::played::Played;
use super::site::{PROVIDER_TIMEOUT_MS, Setting};
use super::webhooks::Post;
use super::{Site, SiteOptions, World, authorization, eventually, purchase};

/// The name of the account, and that of the merchant account behind it.
pub const ADYEN: &str = "adyen-eu";
pub const MERCHANT_ACCOUNT: &str = "QuittanceECOM";
/// The key that signs webhooks.
pub const HMAC_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
/// Tokens that are answered in a certain way.
pub const APPROVED: &str = "stored-approved";
pub const REFUSED: &str = "stored-refused";
/// Refused for want of money, for a card that was stolen, and by the issuer's guard against fraud.
pub const POOR: &str = "stored-poor";
pub const STOLEN: &str = "stored-stolen";
pub const BLOCKED: &str = "stored-blocked";
pub const REDIRECTED: &str = "stored-redirected";
/// What a redirect returned too long ago: the confirmation is refused.
pub const STALE: &str = "stale";
/// Authorised for half of what was asked.
pub const PARTLY: &str = "stored-partly";
/// Authorised, and the first answer never arrives.
pub const UNHEARD: &str = "stored-unheard";

/// A request as it was processed, once for each idempotency key.
#[derive(Clone, Debug)]
pub struct Processed {
    pub path: String,
    pub body: Value,
    pub answer: Value,
    /// How often it came.
    pub sends: u32,
}

impl Processed {
    /// Our reference in it.
    pub fn reference(&self) -> &str {
        self.body["reference"].as_str().unwrap()
    }

    /// Adyen's reference of it.
    pub fn psp_reference(&self) -> &str {
        self.answer["pspReference"].as_str().unwrap()
    }
}

#[derive(Default)]
struct Ledger {
    /// In the order of their coming.
    processed: Vec<Processed>,
    /// Where each is, by its idempotency key.
    by_key: HashMap<String, usize>,
    references: HashMap<String, u32>,
}

/// The played Adyen; it stops when dropped.
pub struct PlayedAdyen {
    ledger: Arc<Mutex<Ledger>>,
    played: Played,
}

impl PlayedAdyen {
    pub async fn start() -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let shared = Arc::clone(&ledger);
        let played = Played::start(move |asked| {
            assert_eq!(asked.header("x-api-key"), Some("adyen-key"));
            let key = asked.header("idempotency-key").unwrap();
            let body = serde_json::from_slice(&asked.body).unwrap();
            let mut ledger = shared.lock().unwrap();
            ledger.answer(key, asked.target.clone(), &body)
        })
        .await;
        Self { ledger, played }
    }

    /// The configuration of an account here.
    pub fn account(&self) -> Table {
        let mut account = Table::new();
        for (key, value) in [
            ("name", ADYEN),
            ("kind", "adyen"),
            ("api_key", "adyen-key"),
            ("merchant_account", MERCHANT_ACCOUNT),
        ] {
            account.insert(key.to_owned(), value.into());
        }
        let base_url = format!("http://{}", self.played.addr);
        account.insert("base_url".to_owned(), base_url.into());
        account.insert("allow_plaintext".to_owned(), true.into());
        account.insert(
            "connect_timeout_ms".to_owned(),
            (PROVIDER_TIMEOUT_MS / 2).into(),
        );
        account.insert("total_timeout_ms".to_owned(), PROVIDER_TIMEOUT_MS.into());
        account.insert("webhook_secrets".to_owned(), vec![HMAC_KEY].into());
        account
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// What was processed at paths that end so, oldest first.
    pub fn processed(&self, path: &str) -> Vec<Processed> {
        let ledger = self.ledger();
        let all = ledger.processed.iter();
        let all = all.filter(|processed| processed.path.ends_with(path));
        all.cloned().collect()
    }

    /// The last of it whose reference begins so.
    pub fn last_of(&self, path: &str, reference: &str) -> Processed {
        let ledger = self.ledger();
        let all = ledger.processed.iter().rev();
        let mut own = all.filter(|it| it.path.ends_with(path));
        let found = own.find(|it| it.reference().starts_with(reference));
        found.unwrap().clone()
    }

    /// The only one.
    pub fn only(&self, path: &str) -> Processed {
        let mut all = self.processed(path);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

impl Ledger {
    /// The answer under this key: made once, and given again ever after. `None`: it is lost on its way.
    fn answer(&mut self, key: &str, path: String, body: &Value) -> Option<(u16, Value)> {
        let modifies = path.starts_with("/payments/") && path != "/payments/details";
        let status = if modifies || path == "/cancels" {
            201
        } else {
            200
        };
        if let Some(at) = self.by_key.get(key) {
            let processed = &mut self.processed[*at];
            assert_eq!(processed.body, *body, "I2: other bytes under the same key");
            processed.sends += 1;
            return Some((status, processed.answer.clone()));
        }
        if body["details"]["redirectResult"] == STALE {
            let refused = json!({"status": 422, "errorCode": "14_006", "errorType": "validation"});
            return Some((422, refused));
        }
        let answer = self.make(&path, body);
        let processed = Processed {
            path,
            body: body.clone(),
            answer: answer.clone(),
            sends: 1,
        };
        self.by_key.insert(key.to_owned(), self.processed.len());
        self.processed.push(processed);
        let lost = body["paymentMethod"]["storedPaymentMethodId"] == UNHEARD;
        (!lost).then_some((status, answer))
    }

    fn psp_reference(&mut self, prefix: &str) -> String {
        let count = self.references.entry(prefix.to_owned()).or_default();
        *count += 1;
        format!("{prefix}{count:010}")
    }

    fn make(&mut self, path: &str, body: &Value) -> Value {
        if path == "/cancels" {
            return json!({
                "status": "received",
                "pspReference": self.psp_reference("MODIF"),
                "paymentReference": body["paymentReference"],
                "merchantAccount": body["merchantAccount"],
                "reference": body["reference"],
            });
        }
        if let Some(rest) = path
            .strip_prefix("/payments/")
            .filter(|it| *it != "details")
        {
            let (payment, _) = rest.split_once('/').unwrap();
            return json!({
                "status": "received",
                "pspReference": self.psp_reference("MODIF"),
                "paymentPspReference": payment,
                "merchantAccount": body["merchantAccount"],
                "reference": body["reference"],
                "amount": body["amount"],
            });
        }
        let token = body["paymentMethod"]["storedPaymentMethodId"].as_str();
        let opened = self.processed.iter().find(|it| it.path == "/payments");
        // What a confirmation completes: a test redirects one payment at a time.
        let (amount, reference) = match (token, opened) {
            (None, Some(opened)) => (opened.body["amount"].clone(), &opened.body["reference"]),
            _ => (body["amount"].clone(), &body["reference"]),
        };
        let (reference, psp_reference) = (reference.clone(), self.psp_reference("PAYMENT"));
        match token {
            Some(REDIRECTED) => json!({
                "resultCode": "RedirectShopper",
                "action": {"type": "redirect", "method": "GET", "url": "https://issuer.example/3ds"},
            }),
            Some(PARTLY) => json!({
                "resultCode": "PartiallyAuthorised", "pspReference": psp_reference,
                "merchantReference": reference,
                "amount": {"currency": "EUR", "value": amount["value"].as_i64().unwrap() / 2},
            }),
            Some(REFUSED | POOR | STOLEN | BLOCKED) => {
                let (code, reason) = match token {
                    Some(POOR) => ("12", "Not enough balance"),
                    Some(STOLEN) => ("5", "Blocked Card"),
                    Some(BLOCKED) => ("20", "FRAUD"),
                    _ => ("6", "Expired Card"),
                };
                json!({
                    "resultCode": "Refused", "refusalReason": reason, "refusalReasonCode": code,
                    "pspReference": psp_reference, "merchantReference": reference,
                })
            }
            _ => json!({
                "resultCode": "Authorised", "pspReference": psp_reference,
                "merchantReference": reference, "amount": amount,
            }),
        }
    }
}

/// What a webhook says, before it is signed.
pub fn item(event: &str, about: &Processed, original: Option<&Processed>) -> Value {
    json!({
        "eventCode": event,
        "success": "true",
        "pspReference": about.psp_reference(),
        "originalReference": original.map(Processed::psp_reference),
        "merchantReference": about.reference(),
        "merchantAccountCode": MERCHANT_ACCOUNT,
        "amount": about.body["amount"],
        "eventDate": "2026-01-02T03:04:05+01:00",
        "reason": "",
    })
}

/// A webhook of these items, from the live platform (`"true"`), or from that for tests.
pub fn batch(live: &str, items: &[Value]) -> Post {
    let items: Vec<_> = items
        .iter()
        .map(|item| json!({"NotificationRequestItem": item}))
        .collect();
    let batch = json!({"live": live, "notificationItems": items});
    Post {
        account: ADYEN,
        id: None,
        timestamp: None,
        signature: None,
        body: serde_json::to_vec(&batch).unwrap(),
    }
}

/// The item with its signature.
pub fn signed(mut item: Value) -> Value {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = [
        &item["pspReference"],
        &item["originalReference"],
        &item["merchantAccountCode"],
        &item["merchantReference"],
        &item["amount"]["value"],
        &item["amount"]["currency"],
        &item["eventCode"],
        &item["success"],
    ];
    let key = hex::decode(HMAC_KEY).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(fields.map(text).join(":").as_bytes());
    let signature = BASE64.encode(mac.finalize().into_bytes());
    item["additionalData"]["hmacSignature"] = Value::String(signature);
    item
}

/// A world whose server has an account at the played Adyen, which serves the tenant.
pub struct AdyenWorld {
    pub world: World,
    pub adyen: PlayedAdyen,
}

impl std::ops::Deref for AdyenWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl AdyenWorld {
    pub async fn start() -> Self {
        Self::start_with(SiteOptions::default()).await
    }

    pub async fn start_with(options: SiteOptions) -> Self {
        let adyen = PlayedAdyen::start().await;
        let options = options
            .with("webhooks.poll_interval_ms", 20)
            .with("webhooks.retry_first_ms", 20)
            .with("webhooks.retry_max_ms", 60);
        let site = Site::new(options).await;
        let settings: Vec<Setting> = vec![("providers.accounts", vec![adyen.account()].into())];
        let world = World::on(site, settings).await;
        Self { world, adyen }
    }

    /// Delivers these items in one webhook of the test platform.
    pub async fn deliver(&self, items: &[Value]) -> StatusCode {
        self.deliver_from("false", items).await
    }

    /// Delivers them from the live platform (`"true"`), or from that for tests.
    pub async fn deliver_from(&self, live: &str, items: &[Value]) -> StatusCode {
        let post = batch(live, items);
        post.send(self.world.server.http_addr()).await
    }

    /// Delivers one event, signed; it has to be acknowledged.
    pub async fn tell(&self, item: Value) {
        assert_eq!(self.deliver(&[signed(item)]).await, StatusCode::OK);
    }

    /// What became of a stored event: its state, and why.
    pub async fn kept(&self, event: &str, state: &str) -> Option<String> {
        eventually(&format!("{event} is {state}"), async || {
            let sql = "select state, reason from webhook_inbox where event_id = $1";
            let rows = self.world.db.rows(sql, &[&event]).await;
            let found: String = rows.first()?.get(0);
            (found == state).then(|| rows[0].get(1))
        })
        .await
    }
}

/// With what Adyen needs beside the usual.
fn for_adyen(request: CreatePaymentRequest) -> CreatePaymentRequest {
    CreatePaymentRequest {
        return_url: "https://shop.example/return".to_owned(),
        customer: Some(Customer {
            customer_reference: "shopper-7".to_owned(),
            ..Customer::default()
        }),
        ..request
    }
}

pub fn adyen_purchase(token: &str, minor_units: i64) -> CreatePaymentRequest {
    for_adyen(purchase(token, minor_units))
}

pub fn adyen_authorization(token: &str, minor_units: i64) -> CreatePaymentRequest {
    for_adyen(authorization(token, minor_units))
}
