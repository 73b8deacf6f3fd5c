//! Webhooks that name no payment of ours, or tell nothing of it, and may hold what a customer is called all the same.

use quittance_proto::v1::{
    CreatePaymentRequest, Customer, ErasePersonalDataRequest, GetErasureRequest, PaymentState,
};
use quittance_server::auth::Role;
use serde_json::{Value, json};

use crate::harness::adyen::{APPROVED, AdyenWorld, adyen_purchase, item};
use crate::harness::played_stripe::{PlayedStripeWorld, charge};
use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::{SiteOptions, World, eventually, purchase};

const CUSTOMER: &str = "customer-Zaphod";
const EMAIL: &str = "zaphod@heartofgold.example";

fn options() -> SiteOptions {
    SiteOptions::default()
        .recovering()
        .with("database.customer_keys_remembered_ms", 200)
}

fn of_zaphod(request: CreatePaymentRequest) -> CreatePaymentRequest {
    CreatePaymentRequest {
        customer: Some(Customer {
            customer_reference: CUSTOMER.to_owned(),
            name: "Zaphod Beeblebrox".to_owned(),
            email: EMAIL.to_owned(),
            ..Customer::default()
        }),
        ..request
    }
}

/// Erases the customer, and waits until that is done.
async fn erase(world: &World) {
    let mut roles = TENANT_ROLES.to_vec();
    roles.push(Role::Admin);
    let admin = world.as_role(TENANT, &roles).await;
    let request = ErasePersonalDataRequest {
        customer_reference: CUSTOMER.to_owned(),
        reason: "asked for under article 17".to_owned(),
        ..ErasePersonalDataRequest::default()
    };
    let asked = admin.ok(request).await.message.erasure.unwrap();
    eventually("the customer is erased", async || {
        let request = GetErasureRequest {
            erasure_id: asked.erasure_id.clone(),
            ..GetErasureRequest::default()
        };
        let now = admin.ok(request).await.message.erasure.unwrap();
        now.finish_time.map(drop)
    })
    .await;
    for secret in ["Zaphod", "heartofgold"] {
        assert_eq!(world.db.places_of(secret).await, Vec::<String>::new());
    }
}

/// The events whose bodies are there.
async fn with_bodies(world: &World) -> Vec<String> {
    let sql = "select event_id from webhook_inbox where body is not null order by event_id";
    let rows = world.db.rows(sql, &[]).await;
    rows.iter().map(|row| row.get(0)).collect()
}

fn stripe_customer(name: &str, email: &str) -> Value {
    json!({"id": "cus_1", "object": "customer", "name": name, "email": email, "metadata": {}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_reaches_what_stripe_says_of_a_customer_without_naming_a_payment() {
    let world = PlayedStripeWorld::start_with(options()).await;
    world.db.erase_soon().await;
    let request = of_zaphod(purchase("pm_card_visa", 900));
    let payment = world.client.create(request).await;
    assert_eq!(payment.state(), PaymentState::Captured);
    let intent = world.stripe.intent(&payment.payment_id);

    // It tells what another event tells better: nobody will want it again.
    let mut charged = charge(&intent);
    charged["billing_details"] = json!({"name": "Zaphod Beeblebrox", "email": EMAIL});
    let told = world.tell("evt_charge", "charge.succeeded", &charged);
    assert_eq!(told.await, "IGNORED");
    assert_eq!(with_bodies(&world).await, Vec::<String>::new());

    // What is not handled is kept, for it may be one day.
    let (zaphod, arthur) = (
        stripe_customer("Zaphod Beeblebrox", "ZAPHOD@heartofgold.example"),
        stripe_customer("Arthur Dent", "arthur@earth.example"),
    );
    let warned = json!({"id": "issfr_1", "payment_intent": payment.provider_reference});
    let invoice = json!({"id": "in_1", "customer_email": EMAIL, "customer": "cus_1"});
    let stored = [
        ("evt_customer", "customer.created", &zaphod),
        ("evt_invoice", "invoice.paid", &invoice),
        ("evt_other", "customer.created", &arthur),
        ("evt_ours", "payment_intent.celebrated", &intent),
        ("evt_warned", "radar.early_fraud_warning.created", &warned),
    ];
    for (event, kind, object) in stored {
        assert_eq!(world.tell(event, kind, object).await, "DEAD", "{event}");
    }
    assert_eq!(with_bodies(&world).await.len(), stored.len());
    erase(&world).await;
    assert_eq!(with_bodies(&world).await, ["evt_other"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_reaches_what_adyen_says_of_a_shopper_without_naming_a_payment() {
    let world = AdyenWorld::start_with(options()).await;
    world.db.erase_soon().await;
    let request = of_zaphod(adyen_purchase(APPROVED, 900));
    let payment = world.client.create(request).await;
    assert_eq!(payment.state(), PaymentState::Captured);
    let opening = world.adyen.only("/payments");
    let about = |event: &str, named: &str, shopper: &str| {
        let mut told = item(event, &opening, None);
        told["pspReference"] = json!(named);
        told["additionalData"] = json!({"shopperReference": shopper, "shopperEmail": "-"});
        told
    };
    let stored = about("RECURRING_CONTRACT", "STORED0000000001", CUSTOMER);
    world.tell(stored).await;
    world
        .kept("RECURRING_CONTRACT:true:STORED0000000001", "IGNORED")
        .await;
    assert_eq!(with_bodies(&world).await, Vec::<String>::new());

    // One that names our payment, one that names its shopper alone, and one about somebody else.
    let ours = about("FRAUD_LIKED", "UNKNOWN000000001", "-");
    let mut shopper = about("TOKEN_MADE", "UNKNOWN000000002", CUSTOMER);
    shopper["merchantReference"] = json!("subscription-1");
    let mut other = about("TOKEN_MADE", "UNKNOWN000000003", "customer-Arthur");
    other["merchantReference"] = json!("subscription-2");
    for (told, event) in [
        (ours, "FRAUD_LIKED:true:UNKNOWN000000001"),
        (shopper, "TOKEN_MADE:true:UNKNOWN000000002"),
        (other, "TOKEN_MADE:true:UNKNOWN000000003"),
    ] {
        world.tell(told).await;
        world.kept(event, "DEAD").await;
    }
    assert_eq!(with_bodies(&world).await.len(), 3);
    erase(&world).await;
    assert_eq!(
        with_bodies(&world).await,
        ["TOKEN_MADE:true:UNKNOWN000000003"]
    );
}
