//! How each provider signs its webhooks, by its documentation's words, for the conformance kit.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use quittance_domain::ports::Provider;
use quittance_providers::adyen::Adyen;
use quittance_providers::config::{ProviderAccountConfig, ProviderKind, Secret};
use quittance_providers::sandbox::Sandbox;
use quittance_providers::stripe::Stripe;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::conformance::{AdyenSubject, SandboxSubject, StripeSubject};
use crate::support::signatures::{SignedDelivery, Signs};

const NOWHERE: &str = "http://127.0.0.1:1";

fn config(kind: ProviderKind, key: &str, secrets: &[&str]) -> ProviderAccountConfig {
    ProviderAccountConfig {
        allow_plaintext: true,
        webhook_secrets: secrets.iter().map(|secret| Secret::new(*secret)).collect(),
        ..ProviderAccountConfig::new("conformance", kind, NOWHERE, Secret::new(key))
    }
}

fn trace(_: &mut reqwest::header::HeaderMap) {}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// In its headers, all of it.
fn without_headers(delivery: SignedDelivery) -> SignedDelivery {
    SignedDelivery {
        headers: Vec::new(),
        ..delivery
    }
}

impl Signs for SandboxSubject {
    fn secrets(&self) -> [&'static str; 3] {
        [
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
            "whsec_AQECAwQFBgcICQoLDA0ODxAREhMUFRYX",
            "whsec_AgECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        ]
    }

    fn with_secrets(&self, secrets: &[&str]) -> Arc<dyn Provider> {
        let config = config(quittance_providers::sandbox::KIND, "sandbox-key", secrets);
        Arc::new(Sandbox::new(&config, trace).unwrap())
    }

    fn signed(&self, secret: &str, at: DateTime<Utc>) -> SignedDelivery {
        let body = include_bytes!("../../src/sandbox/fixtures/event_captured.json");
        let key = BASE64.decode(&secret["whsec_".len()..]).unwrap();
        let (id, time) = ("evt_1", at.timestamp());
        let message = [format!("{id}.{time}.").as_bytes(), body].concat();
        let signature = BASE64.encode(mac(&key, &message));
        SignedDelivery {
            headers: vec![
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", time.to_string()),
                ("webhook-signature", format!("v1,{signature}")),
            ],
            body: body.to_vec(),
        }
    }

    fn unsigned(&self, delivery: SignedDelivery) -> SignedDelivery {
        without_headers(delivery)
    }
}

impl Signs for StripeSubject {
    fn secrets(&self) -> [&'static str; 3] {
        [
            "whsec_0123456789abcdefghijklmn",
            "whsec_1123456789abcdefghijklmn",
            "whsec_2123456789abcdefghijklmn",
        ]
    }

    fn with_secrets(&self, secrets: &[&str]) -> Arc<dyn Provider> {
        let config = config(
            quittance_providers::stripe::KIND,
            "rk_test_0123456789",
            secrets,
        );
        Arc::new(Stripe::new(&config, trace).unwrap())
    }

    fn signed(&self, secret: &str, at: DateTime<Utc>) -> SignedDelivery {
        let intent = include_str!("../../src/stripe/fixtures/intent_succeeded.json");
        let intent: Value = serde_json::from_str(intent).unwrap();
        let event = json!({
            "id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "livemode": false,
            "created": at.timestamp(), "data": {"object": intent},
        });
        let (body, time) = (event.to_string().into_bytes(), at.timestamp());
        let message = [format!("{time}.").as_bytes(), &body].concat();
        let signature = hex::encode(mac(secret.as_bytes(), &message));
        SignedDelivery {
            headers: vec![("stripe-signature", format!("t={time},v1={signature}"))],
            body,
        }
    }

    fn unsigned(&self, delivery: SignedDelivery) -> SignedDelivery {
        without_headers(delivery)
    }
}

impl Signs for AdyenSubject {
    fn secrets(&self) -> [&'static str; 3] {
        [
            "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
            "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF",
            "FF112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF",
        ]
    }

    fn with_secrets(&self, secrets: &[&str]) -> Arc<dyn Provider> {
        let config = ProviderAccountConfig {
            own: [("merchant_account", "QuittanceECOM".to_owned())].into(),
            ..config(quittance_providers::adyen::KIND, "adyen-key", secrets)
        };
        Arc::new(Adyen::new(&config, trace).unwrap())
    }

    fn signed(&self, secret: &str, _: DateTime<Utc>) -> SignedDelivery {
        let batch = include_str!("../../src/adyen/fixtures/event_capture.json");
        let mut batch: Value = serde_json::from_str(batch).unwrap();
        let item = &mut batch["notificationItems"][0]["NotificationRequestItem"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let message = [
            text(&item["pspReference"]),
            text(&item["originalReference"]),
            text(&item["merchantAccountCode"]),
            text(&item["merchantReference"]),
            item["amount"]["value"].to_string(),
            text(&item["amount"]["currency"]),
            text(&item["eventCode"]),
            text(&item["success"]),
        ]
        .join(":");
        let signature = mac(&hex::decode(secret).unwrap(), message.as_bytes());
        item["additionalData"]["hmacSignature"] = json!(BASE64.encode(signature));
        SignedDelivery {
            headers: Vec::new(),
            body: batch.to_string().into_bytes(),
        }
    }

    fn unsigned(&self, delivery: SignedDelivery) -> SignedDelivery {
        let mut batch: Value = serde_json::from_slice(&delivery.body).unwrap();
        let item = &mut batch["notificationItems"][0]["NotificationRequestItem"];
        item["additionalData"] = json!({});
        SignedDelivery {
            headers: Vec::new(),
            body: batch.to_string().into_bytes(),
        }
    }

    /// A replay is a known event.
    fn signs_time(&self) -> bool {
        false
    }
}
