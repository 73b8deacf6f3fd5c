//! Plays Stripe, as far as payments, refunds and disputes go: it holds them, and a test says what becomes of them and what
//! is told. Beside localstripe, which cannot let a refund fail, dispute a payment, lose an answer, or fail itself.

use std::sync::{Arc, Mutex, MutexGuard};

use hmac::{Hmac, Mac as _};
use quittance_proto::v1::{Payment, PaymentState};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};
use sha2::Sha256;
use toml::{Table, Value as Setting};

use super::played::{Asked, HeldAnswer, Played, Reply};
use super::site::PROVIDER_TIMEOUT_MS;
use super::stripe::{SECRET, STRIPE};
use super::webhooks::{Post, now};
use super::{Site, SiteOptions, World, eventually};

/// Payment methods that are answered in a certain way; all others are charged.
pub const REDIRECTED: &str = "pm_redirected";
/// The first answer never arrives.
pub const UNHEARD: &str = "pm_unheard";
/// Charged, and answered with an error of Stripe's own, each time.
pub const BROKEN: &str = "pm_broken";
/// Declined with the code behind this.
pub const DECLINED: &str = "pm_declined_";

/// Authorized, as Stripe says until a second ago: it did not let go of it yet.
pub const OVERDUE: &str = "pm_overdue";
/// Authorized for a week, as Stripe says.
pub const HELD: &str = "pm_held";

/// Objects by their kind, as Stripe's API has them, oldest first.
#[derive(Default)]
struct Ledger {
    intents: Vec<Value>,
    refunds: Vec<Value>,
    disputes: Vec<Value>,
    /// How many of the next questions about a dispute are answered with an error of Stripe's own.
    failing: usize,
    /// By idempotency key.
    answers: Vec<(String, (u16, Value))>,
    /// Requests to do something, resends included.
    posts: usize,
}

pub struct PlayedStripe {
    ledger: Arc<Mutex<Ledger>>,
    played: Played,
}

impl PlayedStripe {
    pub async fn start() -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let shared = Arc::clone(&ledger);
        let played = Played::start(move |asked| shared.lock().unwrap().answer(asked)).await;
        Self { ledger, played }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// The configuration of an account here.
    pub fn account(&self) -> Table {
        let mut account = Table::new();
        for (key, value) in [
            ("name", Setting::from(STRIPE)),
            ("kind", "stripe".into()),
            ("base_url", format!("http://{}", self.played.addr).into()),
            ("api_key", "sk_test_e2e".into()),
            ("allow_plaintext", true.into()),
            ("connect_timeout_ms", (PROVIDER_TIMEOUT_MS / 2).into()),
            ("total_timeout_ms", PROVIDER_TIMEOUT_MS.into()),
            ("webhook_secrets", vec![SECRET].into()),
        ] {
            account.insert(key.to_owned(), value);
        }
        account
    }

    /// The payment intent of a payment.
    pub fn intent(&self, payment_id: &str) -> Value {
        let ledger = self.ledger();
        let mut all = ledger.intents.iter();
        let found = all.find(|it| it["metadata"]["quittance_payment"] == payment_id);
        found.unwrap().clone()
    }

    /// Makes another payment with the same metadata, as a copied request would.
    pub fn copy(&self, payment_id: &str) -> Value {
        let mut copy = self.intent(payment_id);
        let mut ledger = self.ledger();
        let number = ledger.intents.len() + 1;
        copy["id"] = json!(format!("pi_{number}"));
        copy["latest_charge"] = json!(format!("ch_{number}"));
        ledger.intents.push(copy.clone());
        copy
    }

    /// How often it was asked to do something.
    pub fn posts(&self) -> usize {
        self.ledger().posts
    }

    /// Something becomes of a payment intent.
    pub fn becomes(&self, intent: &Value, changes: &[(&str, Value)]) -> Value {
        let mut ledger = self.ledger();
        let mut all = ledger.intents.iter_mut();
        let held = all.find(|it| it["id"] == intent["id"]).unwrap();
        for (name, value) in changes {
            held[*name] = value.clone();
        }
        held.clone()
    }

    /// The refunds of a payment intent, oldest first.
    pub fn refunds(&self, intent: &Value) -> Vec<Value> {
        let ledger = self.ledger();
        let all = ledger.refunds.iter();
        let own = all.filter(|it| it["payment_intent"] == intent["id"]);
        own.cloned().collect()
    }

    /// Refunds in the dashboard.
    pub fn refund(&self, intent: &Value, amount: i64) -> Value {
        self.ledger()
            .refund(intent["id"].as_str().unwrap(), amount, &json!({}))
    }

    /// The bank cannot take a refund.
    pub fn fail(&self, refund: &Value) -> Value {
        let mut ledger = self.ledger();
        let mut all = ledger.refunds.iter_mut();
        let held = all.find(|it| it["id"] == refund["id"]).unwrap();
        held["status"] = json!("failed");
        held.clone()
    }

    /// Holds the answer to the next question about a dispute.
    pub fn hold_dispute(&self) -> HeldAnswer {
        self.played.hold_answer("/v1/disputes/")
    }

    /// Refuses what is asked at a path that begins so, after so many answers, and asks to be left alone for a time.
    pub fn asks_to_wait(&self, path: &str, answered: usize, seconds: u64) {
        self.played.asks_to_wait(path, answered, seconds);
    }

    /// Answers the next question about a dispute with an error.
    pub fn fail_dispute(&self) {
        self.ledger().failing += 1;
    }

    /// How a dispute stands from now on.
    pub fn disputed(&self, dispute: &Value) {
        let all = &mut self.ledger().disputes;
        all.retain(|held| held["id"] != dispute["id"]);
        all.push(dispute.clone());
    }

    /// The customer disputes the payment, which goes on so: status, what was withdrawn and returned by then, and until when
    /// it can be answered.
    pub fn dispute(&self, intent: &Value, stands: &[(&str, &[i64], i64)]) -> Vec<Value> {
        let mut ledger = self.ledger();
        let id = format!("du_{}", ledger.disputes.len() + 1);
        let dispute = |(status, moved, due): &(&str, &[i64], i64)| {
            let moved = moved.iter();
            let moved: Value = moved
                .map(|amount| json!({"amount": amount, "currency": intent["currency"]}))
                .collect();
            json!({
                "id": id, "object": "dispute", "status": status, "amount": intent["amount"],
                "currency": intent["currency"], "charge": intent["latest_charge"],
                "payment_intent": intent["id"], "reason": "fraudulent",
                "evidence_details": {"due_by": due}, "balance_transactions": moved,
            })
        };
        let stands: Vec<_> = stands.iter().map(dispute).collect();
        ledger.disputes.extend(stands.last().cloned());
        stands
    }
}

impl Ledger {
    fn answer(&mut self, asked: &Asked) -> Reply {
        assert_eq!(asked.header("authorization"), Some("Bearer sk_test_e2e"));
        let url = Url::parse(&format!("http://stripe{}", asked.target)).unwrap();
        let parts: Vec<_> = url.path_segments().unwrap().skip(1).collect();
        if asked.method == "POST" {
            let key = asked.header("idempotency-key").unwrap().to_owned();
            self.posts += 1;
            let known = self.answers.iter().find(|(known, _)| *known == key);
            if let Some((_, answer)) = known {
                return Some(answer.clone());
            }
            let form = form(&asked.body);
            let answer = self.make(&parts, &form);
            self.answers.push((key, answer.clone()));
            return (form["payment_method"] != UNHEARD).then_some(answer);
        }
        let all = match parts[0] {
            "payment_intents" => &self.intents,
            "refunds" => &self.refunds,
            "disputes" => &self.disputes,
            other => panic!("nobody asks for {other}"),
        };
        if parts.get(1) == Some(&"search") {
            let (_, query) = url.query_pairs().find(|(name, _)| name == "query").unwrap();
            let ours = |it: &&Value| {
                let id = it["metadata"]["quittance_transaction"].as_str();
                id.is_some_and(|id| query.contains(id))
            };
            let found: Vec<_> = all.iter().filter(ours).cloned().collect();
            return Some((200, json!({"data": found, "has_more": false})));
        }
        if parts[0] == "disputes" && self.failing > 0 {
            self.failing -= 1;
            return Some((500, json!({"error": {"type": "api_error"}})));
        }
        if let Some(id) = parts.get(1) {
            let found = all.iter().find(|it| it["id"] == *id).cloned();
            let missing =
                json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}});
            return Some(found.map_or((404, missing), |found| (200, found)));
        }
        let intent = url.query_pairs().find(|(name, _)| name == "payment_intent");
        let (_, intent) = intent.unwrap();
        let mut page: Vec<_> = all
            .iter()
            .filter(|it| it["payment_intent"] == *intent)
            .cloned()
            .collect();
        page.reverse();
        Some((200, json!({"data": page, "has_more": false})))
    }

    fn make(&mut self, parts: &[&str], form: &Value) -> (u16, Value) {
        if let ["payment_intents", id, "cancel"] = parts {
            let mut all = self.intents.iter_mut();
            let held = all.find(|it| it["id"] == *id).unwrap();
            if held["status"] == "canceled" {
                return (400, unexpected_state(held));
            }
            held["status"] = json!("canceled");
            return (200, held.clone());
        }
        if let ["payment_intents", id, "capture"] = parts {
            let mut all = self.intents.iter_mut();
            let held = all.find(|it| it["id"] == *id).unwrap();
            assert_eq!(held["status"], "canceled", "what is played");
            return (400, unexpected_state(held));
        }
        let metadata = json!({
            "quittance_payment": form["metadata[quittance_payment]"],
            "quittance_transaction": form["metadata[quittance_transaction]"],
        });
        let amount: i64 = form["amount"].as_str().unwrap().parse().unwrap();
        if parts == ["refunds"] {
            let intent = form["payment_intent"].as_str().unwrap();
            return (200, self.refund(intent, amount, &metadata));
        }
        assert_eq!(parts, ["payment_intents"], "what is played");
        let number = self.intents.len() + 1;
        let mut intent = json!({
            "id": format!("pi_{number}"), "object": "payment_intent", "status": "succeeded",
            "amount": amount, "amount_capturable": 0, "amount_received": amount,
            "currency": form["currency"], "capture_method": "automatic", "metadata": metadata,
            "latest_charge": format!("ch_{number}"),
        });
        if form["capture_method"] == "manual" {
            intent["capture_method"] = json!("manual");
            intent["status"] = json!("requires_capture");
            intent["amount_capturable"] = json!(amount);
            intent["amount_received"] = json!(0);
        }
        let method = form["payment_method"].as_str().unwrap_or_default();
        let holds = match method {
            OVERDUE => Some(-1),
            HELD => Some(7 * 86_400),
            _ => None,
        };
        if let Some(seconds) = holds {
            intent["latest_charge"] = json!({
                "id": format!("ch_{number}"), "object": "charge", "status": "succeeded",
                "payment_method_details": {"card": {"capture_before": now() + seconds}},
            });
        }
        let mut answer = None;
        if let Some(code) = method.strip_prefix(DECLINED) {
            let error =
                json!({"type": "card_error", "code": "card_declined", "decline_code": code});
            intent["status"] = json!("requires_payment_method");
            intent["amount_received"] = json!(0);
            intent["last_payment_error"] = error.clone();
            let mut error = json!({ "error": error });
            error["error"]["payment_intent"] = intent.clone();
            answer = Some((402, error));
        }
        if method == REDIRECTED {
            intent["status"] = json!("requires_action");
            intent["amount_capturable"] = json!(0);
            intent["amount_received"] = json!(0);
            intent["client_secret"] = json!(format!("pi_{number}_secret_x"));
            let url = "https://hooks.stripe.com/3d_secure_2/hosted";
            intent["next_action"] =
                json!({"type": "redirect_to_url", "redirect_to_url": {"url": url}});
        }
        if method == BROKEN {
            answer = Some((500, json!({"error": {"type": "api_error"}})));
        }
        self.intents.push(intent.clone());
        answer.unwrap_or((200, intent))
    }

    fn refund(&mut self, intent: &str, amount: i64, metadata: &Value) -> Value {
        let number = self.refunds.len() + 1;
        let charge = intent.replace("pi_", "ch_");
        let refund = json!({
            "id": format!("re_{number}"), "object": "refund", "status": "succeeded", "amount": amount,
            "currency": "eur", "payment_intent": intent, "charge": charge, "metadata": metadata,
            "balance_transaction": format!("txn_{number}"),
        });
        self.refunds.push(refund.clone());
        refund
    }
}

/// The refusal of what a payment intent's state does not allow: it comes with that.
fn unexpected_state(intent: &Value) -> Value {
    let (kind, code) = ("invalid_request_error", "payment_intent_unexpected_state");
    json!({"error": {"type": kind, "code": code, "payment_intent": intent}})
}

/// The fields of a form.
fn form(body: &[u8]) -> Value {
    let text = std::str::from_utf8(body).unwrap();
    let url = Url::parse(&format!("http://stripe/?{text}")).unwrap();
    let pairs = url.query_pairs().into_owned();
    pairs.map(|(name, value)| (name, json!(value))).collect()
}

/// The charge of a payment intent, as events have it.
pub fn charge(intent: &Value) -> Value {
    json!({
        "id": intent["latest_charge"], "object": "charge", "status": "succeeded",
        "payment_intent": intent["id"], "metadata": intent["metadata"],
    })
}

/// An event as Stripe sends it to an endpoint of a version that says little.
pub fn event(id: &str, kind: &str, object: &Value) -> Value {
    json!({
        "id": id, "object": "event", "api_version": "2022-11-15", "type": kind, "livemode": false,
        "data": {"object": object},
    })
}

/// Its delivery, signed now.
pub fn delivery(event: &Value, http: &Client, server: std::net::SocketAddr) -> RequestBuilder {
    let (time, body) = (now(), event.to_string());
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.{body}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let post = Post {
        account: STRIPE,
        id: None,
        timestamp: None,
        signature: None,
        body: body.into_bytes(),
    };
    let request = post.request_by(http, server);
    request.header("stripe-signature", format!("t={time},v1={signature}"))
}

/// A world whose server has an account at the played Stripe, which serves the tenant.
pub struct PlayedStripeWorld {
    pub world: World,
    pub stripe: PlayedStripe,
}

impl std::ops::Deref for PlayedStripeWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl PlayedStripeWorld {
    pub async fn start() -> Self {
        Self::start_with(SiteOptions::default()).await
    }

    pub async fn start_with(options: SiteOptions) -> Self {
        let stripe = PlayedStripe::start().await;
        let options = options
            .with("webhooks.poll_interval_ms", 20)
            .with("webhooks.retry_first_ms", 20)
            .with("webhooks.retry_max_ms", 60);
        let site = Site::new(options).await;
        let accounts = vec![Setting::from(stripe.account())];
        let world = World::on(site, vec![("providers.accounts", accounts.into())]).await;
        Self { world, stripe }
    }

    /// Delivers an event, and waits for what becomes of it.
    pub async fn tell(&self, id: &str, kind: &str, object: &Value) -> String {
        self.deliver(id, kind, object).await;
        self.ended(id).await
    }

    /// Delivers an event, which is acknowledged.
    pub async fn deliver(&self, id: &str, kind: &str, object: &Value) {
        let (http, server) = (super::webhooks::client(), self.world.server.http_addr());
        let request = delivery(&event(id, kind, object), &http, server);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    }

    /// Waits for what becomes of an event.
    pub async fn ended(&self, id: &str) -> String {
        eventually(&format!("{id} has ended"), async || {
            let sql = "select state from webhook_inbox where event_id = $1 \
                       and state not in ('RECEIVED', 'PARKED')";
            let rows = self.world.db.rows(sql, &[&id]).await;
            rows.first().map(|row| row.get(0))
        })
        .await
    }

    /// The payment, once it is so.
    pub async fn until(&self, payment: &Payment, state: PaymentState) -> Payment {
        eventually(&format!("the payment is {state:?}"), async || {
            let payment = self.now(payment).await;
            (payment.state() == state).then_some(payment)
        })
        .await
    }

    pub async fn now(&self, payment: &Payment) -> Payment {
        self.world.client.payment(&payment.payment_id).await
    }
}
