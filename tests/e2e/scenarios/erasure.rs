//! A customer's personal data is erased: nothing opens it any more, payments go on, and the log still proves itself.

use std::collections::BTreeSet;

use quittance_evidence::{ChainCheck, Leaf};
use quittance_proto::v1::{
    ConfirmPaymentRequest, CreatePaymentRequest, Customer, ErasePersonalDataRequest, Erasure,
    GetEntryRequest, GetErasureRequest, ListEntriesRequest, ListWebhooksRequest, Payment,
    PaymentState, ReplayWebhookRequest,
};
use quittance_sandbox::OperationStatus;
use quittance_server::auth::Role;
use tonic::Code;
use uuid::Uuid;

use super::evidence::{evidence_of, exported};
use super::verification::verified;
use crate::harness::site::{KEY_ID, TENANT, TENANT_ROLES};
use crate::harness::webhooks::{Hooks, Post};
use crate::harness::{
    Amounts as _, Client, SiteOptions, World, authorization, capture, confirm, eventually,
    purchase, refund,
};

pub(super) const CUSTOMER: &str = "customer-Zaphod";

pub(super) fn options() -> SiteOptions {
    SiteOptions::impatient()
        .recovering()
        .with("database.customer_keys_remembered_ms", 200)
}

async fn world() -> World {
    let world = World::start_with(options()).await;
    world.db.erase_soon().await;
    world
}

pub(super) async fn administrator(world: &World) -> Client {
    let mut roles = TENANT_ROLES.to_vec();
    roles.push(Role::Admin);
    world.as_role(TENANT, &roles).await
}

fn zaphod() -> Customer {
    Customer {
        customer_reference: CUSTOMER.to_owned(),
        name: "Zaphod Beeblebrox".to_owned(),
        email: "zaphod@heartofgold.example".to_owned(),
        ..Customer::default()
    }
}

pub(super) fn erase(customer_reference: &str) -> ErasePersonalDataRequest {
    ErasePersonalDataRequest {
        customer_reference: customer_reference.to_owned(),
        reason: "asked for under article 17".to_owned(),
        ..ErasePersonalDataRequest::default()
    }
}

/// The fingerprint of the request that made a payment.
pub(super) async fn fingerprint(world: &World, payment: &Payment) -> Vec<u8> {
    let sql = "select fingerprint from idempotency_records \
               where payment_id = $1::text::uuid and command = 'CreatePayment'";
    world.db.row(sql, &[&payment.payment_id]).await.get(0)
}

#[tokio::test]
async fn a_fingerprint_tells_nothing_of_an_erased_customer_and_repetitions_are_still_known() {
    let world = world().await;
    let client = administrator(&world).await;
    let asked = CreatePaymentRequest {
        customer: Some(zaphod()),
        ..purchase("tok_approve", 1_000)
    };
    let payment = client.create(asked.clone()).await;
    let before = fingerprint(&world, &payment).await;
    let erasure = client.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    erased(&client, &erasure).await;
    let after = fingerprint(&world, &payment).await;
    // A version byte, then eight bytes a field; the token is the fourth field, and the customer the fourteenth.
    let personal = |at: &usize| (25..33).contains(at) || (105..113).contains(at);
    for (at, (old, new)) in before.iter().zip(&after).enumerate() {
        let expected = if personal(&at) { 0 } else { *old };
        assert_eq!(*new, expected, "byte {at}");
    }
    assert_eq!(before.len(), after.len());
    let again = client.create(asked.clone()).await;
    assert_eq!(again.payment_id, payment.payment_id);
    let other = CreatePaymentRequest {
        merchant_reference: "another order".to_owned(),
        ..asked
    };
    let refused = client.refused(other).await;
    refused.is(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
}

/// What a customer's device sent back may say who they are.
#[tokio::test]
async fn a_confirmation_s_fingerprint_tells_nothing_of_an_erased_customer() {
    let world = world().await;
    let client = administrator(&world).await;
    let asked = CreatePaymentRequest {
        customer: Some(zaphod()),
        ..purchase("tok_requires_action", 1_000)
    };
    let payment = client.create(asked).await;
    let confirming = confirm(&payment, "passed");
    client.ok(confirming.clone()).await;
    let sql = "select fingerprint from idempotency_records where command = 'ConfirmPayment'";
    let before: Vec<u8> = world.db.row(sql, &[]).await.get(0);
    let erasure = client.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    erased(&client, &erasure).await;
    let after: Vec<u8> = world.db.row(sql, &[]).await.get(0);
    // A version byte, the payment, and the parameters.
    assert_ne!(before[9..], [0; 8]);
    assert_eq!((&before[..9], &[0; 8][..]), after.split_at(9));
    let again = client.ok(confirming.clone()).await.message.payment;
    assert_eq!(again.unwrap().payment_id, payment.payment_id);
    let other = client.create(purchase("tok_requires_action", 1_000)).await;
    let of_another = ConfirmPaymentRequest {
        payment_id: other.payment_id,
        ..confirming
    };
    let refused = client.refused(of_another).await;
    refused.is(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
}

pub(super) async fn stands(client: &Client, erasure: &Erasure) -> Erasure {
    let request = GetErasureRequest {
        erasure_id: erasure.erasure_id.clone(),
        ..GetErasureRequest::default()
    };
    client.ok(request).await.message.erasure.unwrap()
}

pub(super) async fn erased(client: &Client, erasure: &Erasure) -> Erasure {
    eventually("the customer is erased", async || {
        let now = stands(client, erasure).await;
        now.finish_time.is_some().then_some(now)
    })
    .await
}

/// The customer row behind a payment.
pub(super) async fn customer_of(world: &World, payment: &Payment) -> Uuid {
    let sql = "select customer_id::text from payments where payment_id = $1::text::uuid";
    let row = world.db.row(sql, &[&payment.payment_id]).await;
    Uuid::parse_str(row.get(0)).unwrap()
}

/// How many sealed values name the customer's key, and how many of the payment's values are under another.
async fn sealed_values(world: &World, payment: &Payment, customer: Uuid) -> (i64, i64) {
    let key = format!("c:{}", customer.simple());
    // A sealed value begins with a version, the length of its key's id, and the id.
    let sql = "\
        with values as ( \
            select customer_sealed as sealed from payments where payment_id = $1::text::uuid \
            union all select provider_token from payments where payment_id = $1::text::uuid \
            union all select next_action from payments where payment_id = $1::text::uuid \
            union all select request from transactions where payment_id = $1::text::uuid \
            union all select response from attempts where payment_id = $1::text::uuid \
        ) \
        select count(*) filter (where position(convert_to($2, 'UTF8') in sealed) = 3), \
               count(*) filter (where position(convert_to($2, 'UTF8') in sealed) <> 3) \
        from values where sealed is not null";
    let row = world.db.row(sql, &[&payment.payment_id, &key]).await;
    (row.get(0), row.get(1))
}

async fn entries(client: &Client, event_type: &str) -> usize {
    let request = ListEntriesRequest {
        event_type: event_type.to_owned(),
        ..ListEntriesRequest::default()
    };
    client.entries(request).await.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_payment_that_is_kept_from_its_customers_erasure_is_found() {
    let world = world().await;
    let admin = administrator(&world).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let mut request = purchase("tok_approve", 900);
    request.customer = Some(zaphod());
    let payment = admin.create(request).await;
    admin.entries_of(&payment.payment_id).await;
    let codes = async || -> Vec<_> {
        let (found, _) = verified(&auditor).await;
        let codes = found.into_iter().map(|mismatch| mismatch.code);
        // What the provider answered is under the same key: it cannot be read either.
        codes
            .filter(|code| code != "ATTEMPT_RESPONSE_DIFFERS")
            .collect()
    };
    assert_eq!(codes().await, Vec::<String>::new());

    let keep = "create table kept as select customer_id, customer_sealed from payments";
    world.db.execute(keep, &[]).await;
    for (change, code) in [
        ("customer_id = gen_random_uuid()", "PAYMENT_UNREADABLE"),
        (
            "customer_id = null, customer_sealed = null",
            "PAYMENT_COLUMN_DIFFERS",
        ),
        (
            "customer_sealed = set_byte(customer_sealed, 80, 1 + get_byte(customer_sealed, 80) % 255)",
            "PAYMENT_UNREADABLE",
        ),
    ] {
        world
            .db
            .execute(&format!("update payments set {change}"), &[])
            .await;
        assert_eq!(codes().await, [code], "{change}");
        let put_back = "update payments p set customer_id = k.customer_id, \
                        customer_sealed = k.customer_sealed from kept k";
        world.db.execute(put_back, &[]).await;
    }
    world
        .db
        .execute("create table keys as select * from customers", &[])
        .await;
    world.db.execute("delete from customers", &[]).await;
    assert_eq!(codes().await, ["PAYMENT_UNREADABLE"], "the key is lost");
    world
        .db
        .execute("insert into customers select * from keys", &[])
        .await;

    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    erased(&admin, &asked).await;
    assert_eq!(
        codes().await,
        Vec::<String>::new(),
        "an erasure is no fault"
    );
}

/// A row of `erasures` about the customer of a payment, as somebody writes it who owns the database.
async fn forge_erasure(world: &World, payment: &Payment, state: &str) {
    let sql = format!(
        "insert into erasures (erasure_id, tenant_id, reference_mac, customer_id, payments, next_step_at, finished_at) \
         select gen_random_uuid(), tenant_id, sha256('x'), customer_id, {state} from payments \
         where payment_id = $1::text::uuid"
    );
    world.db.execute(&sql, &[&payment.payment_id]).await;
}

pub(super) async fn of_customer(client: &Client, reference: &str) -> Payment {
    let mut request = purchase("tok_approve", 900);
    request.customer = Some(Customer {
        customer_reference: reference.to_owned(),
        ..zaphod()
    });
    client.create(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_key_that_is_lost_is_not_taken_for_erased_whatever_the_table_of_erasures_says() {
    let world = world().await;
    let admin = administrator(&world).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let erased_rightly = of_customer(&admin, CUSTOMER).await;
    let lost = of_customer(&admin, "customer-Trillian").await;
    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    erased(&admin, &asked).await;
    let found = async || -> Vec<_> {
        let (found, _) = verified(&auditor).await;
        let found = found.into_iter();
        let mut found: Vec<_> = found.map(|it| (it.payment_id, it.code)).collect();
        found.sort();
        found
    };
    assert_eq!(found().await, []);
    // What the provider answered is under the same key.
    let unreadable = |payment: &Payment| {
        ["ATTEMPT_RESPONSE_DIFFERS", "PAYMENT_UNREADABLE"]
            .map(|code| (payment.payment_id.clone(), code.to_owned()))
    };
    // One that says that it was done is missed in the log.
    let closed = |state: &str| -> Vec<_> {
        let code = "ERASURE_WITHOUT_ENTRY".to_owned();
        let one = state.starts_with('1').then(|| (String::new(), code));
        one.into_iter().collect()
    };
    let keep = "create table kept_answers as select attempt_id, response from attempts";
    world.db.execute(keep, &[]).await;
    for state in ["1, null, now()", "null, now(), null"] {
        forge_erasure(&world, &lost, state).await;
        let sql = "update attempts set response = null where payment_id = $1::text::uuid";
        world.db.execute(sql, &[&lost.payment_id]).await;
        let mut expected = closed(state);
        expected.push(unreadable(&lost)[0].clone());
        assert_eq!(found().await, expected, "{state}");
        let undo = "delete from erasures where reference_mac = sha256('x')";
        world.db.execute(undo, &[]).await;
    }
    let undo = "update attempts a set response = k.response from kept_answers k \
                where k.attempt_id = a.attempt_id";
    world.db.execute(undo, &[]).await;
    world.db.execute("delete from customers", &[]).await;
    assert_eq!(found().await, unreadable(&lost));
    for state in ["1, null, now()", "null, now(), null"] {
        forge_erasure(&world, &lost, state).await;
        let mut expected = closed(state);
        expected.extend(unreadable(&lost));
        assert_eq!(found().await, expected, "{state}");
        let undo = "delete from erasures where reference_mac = sha256('x')";
        world.db.execute(undo, &[]).await;
    }
    // Nor is what the log says of another's.
    let moved = "update erasures set customer_id = \
                 (select customer_id from payments where payment_id = $1::text::uuid)";
    world.db.execute(moved, &[&lost.payment_id]).await;
    let mut both = [unreadable(&erased_rightly), unreadable(&lost)].concat();
    both.push((String::new(), "ERASURE_DIFFERS".to_owned()));
    both.sort();
    assert_eq!(found().await, both);
}

/// A backup of the database holds keys that were destroyed since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_destroyed_key_that_somebody_put_back_is_found() {
    let world = world().await;
    let admin = administrator(&world).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    let payment = of_customer(&admin, CUSTOMER).await;
    of_customer(&admin, "customer-Trillian").await;
    let keep = "create table kept_customers as select * from customers";
    world.db.execute(keep, &[]).await;
    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    erased(&admin, &asked).await;
    let (found, _) = verified(&auditor).await;
    assert!(found.is_empty(), "{found:?}");
    let put_back = "insert into customers select * from kept_customers k \
                    where not exists (select from customers c where c.customer_id = k.customer_id)";
    world.db.execute(put_back, &[]).await;
    let (found, _) = verified(&auditor).await;
    let found: Vec<_> = found
        .iter()
        .map(|it| (it.payment_id.as_str(), it.code.as_str()))
        .collect();
    let both = [
        ("", "ERASED_CUSTOMER_STORED"),
        (payment.payment_id.as_str(), "PAYMENT_COLUMN_DIFFERS"),
    ];
    assert_eq!(BTreeSet::from_iter(found), BTreeSet::from(both));
}

/// Without its row nobody would look at what the log says of it, and everything would open again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_a_destroyed_key_that_somebody_put_back_is_found_though_its_erasure_is_deleted() {
    let world = world().await;
    let admin = administrator(&world).await;
    let auditor = world.as_role(TENANT, &[Role::PlatformAudit]).await;
    of_customer(&admin, CUSTOMER).await;
    of_customer(&admin, "customer-Trillian").await;
    let keep = "create table kept_customers as select * from customers";
    world.db.execute(keep, &[]).await;
    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    erased(&admin, &asked).await;
    let codes = async || -> BTreeSet<String> {
        let (found, _) = verified(&auditor).await;
        found.into_iter().map(|it| it.code).collect()
    };
    assert_eq!(codes().await, BTreeSet::new());
    let keep = "create table kept_erasures as select * from erasures";
    world.db.execute(keep, &[]).await;
    let put_back = "insert into customers select * from kept_customers k \
                    where not exists (select from customers c where c.customer_id = k.customer_id)";
    world.db.execute("delete from erasures", &[]).await;
    world.db.execute(put_back, &[]).await;
    let found = codes().await;
    let both = ["ERASED_CUSTOMER_STORED", "ERASURE_MISSING"].map(str::to_owned);
    assert!(found.is_superset(&BTreeSet::from(both)), "{found:?}");
    let undo = "insert into erasures select * from kept_erasures";
    world.db.execute(undo, &[]).await;
    let undo = "delete from customers where customer_id in (select customer_id from erasures)";
    world.db.execute(undo, &[]).await;
    assert_eq!(codes().await, BTreeSet::new());
    // Nor is it said to be another tenant's.
    let given_away = "update erasures set tenant_id = 'other'";
    world.db.execute(given_away, &[]).await;
    assert!(codes().await.contains("ERASURE_DIFFERS"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s75_an_erasure_that_nobody_asked_for_erases_nothing_and_an_alert_is_raised() {
    let world = world().await;
    let admin = administrator(&world).await;
    let payment = of_customer(&admin, CUSTOMER).await;
    forge_erasure(&world, &payment, "null, '-infinity', null").await;
    eventually("an alert is raised", async || {
        let series = "audit_verify_failures_total{check=\"erasure\"";
        (world.metric(series) > Some(0.0)).then_some(())
    })
    .await;
    // One that was asked for is not held up by it.
    let other = of_customer(&admin, "customer-Trillian").await;
    let asked = admin
        .ok(erase("customer-Trillian"))
        .await
        .message
        .erasure
        .unwrap();
    erased(&admin, &asked).await;
    let left = "select customer_id::text from customers";
    let left = world.db.rows(left, &[]).await;
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [customer_of(&world, &payment).await.to_string()]);
    assert_eq!(entries(&admin, "personal_data.erased").await, 1);
    assert!(!other.payment_id.is_empty());
    // The log says whose data it was, and in which order: one stream for each erasure.
    let stream = "select leaf from journal where stream_id = $1::text::uuid order by entity_seq";
    let leaves = world.db.rows(stream, &[&asked.erasure_id]).await;
    let leaves: Vec<Vec<u8>> = leaves.iter().map(|row| row.get(0)).collect();
    assert_eq!(leaves.len(), 2);
    ChainCheck::run(&leaves).unwrap();
    let customer = customer_of(&world, &other).await.to_string();
    for leaf in leaves {
        let leaf = Leaf::decode(&leaf).unwrap();
        assert_eq!(leaf.details["customer_id"], customer);
        assert_eq!(leaf.details["erasure_id"], asked.erasure_id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_customer_is_unreadable_and_everything_else_stays() {
    let world = world().await;
    let admin = administrator(&world).await;
    let mut request = authorization("tok_approve", 900);
    request.customer = Some(zaphod());
    let payment = admin.create(request).await;
    let payment = admin
        .ok(capture(&payment, 900))
        .await
        .message
        .payment
        .unwrap();
    let customer = customer_of(&world, &payment).await;
    let before = admin.entries_of(&payment.payment_id).await;

    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    let again = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    assert_eq!(
        asked.erasure_id, again.erasure_id,
        "asked again, it is the same"
    );
    let done = erased(&admin, &asked).await;
    assert_eq!((done.payments, done.open_payments), (1, 0));

    let count = format!("select count(*) from customers where customer_id = '{customer}'");
    assert_eq!(world.db.number(&count).await, 0, "the key is gone");
    let (under_the_key, under_another) = sealed_values(&world, &payment, customer).await;
    assert!(
        under_the_key > 0,
        "what was stored is under the key that is gone"
    );
    assert_eq!(
        under_another, 0,
        "nothing about the payment is under a key that is there"
    );
    for event in ["personal_data.erasure_requested", "personal_data.erased"] {
        assert!(entries(&admin, event).await >= 1, "{event}");
    }
    for secret in ["Zaphod", "heartofgold"] {
        assert_eq!(world.db.places_of(secret).await, Vec::<String>::new());
    }

    // The payment goes on, and what the provider answers from now on is not kept.
    let refunded = admin
        .ok(refund(&payment, 400))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(refunded.state(), PaymentState::PartiallyRefunded);
    let (_, under_another) = sealed_values(&world, &payment, customer).await;
    assert_eq!(under_another, 0);

    // Entries are what they were, and the chain holds.
    let after = admin.entries_of(&payment.payment_id).await;
    assert_eq!(after[..before.len()], before[..]);
    let mut leaves = Vec::new();
    for entry in &after {
        let request = GetEntryRequest {
            entry_id: entry.entry_id.clone(),
        };
        let entry = admin.ok(request).await.message.entry.unwrap();
        leaves.push(entry.leaf_data);
    }
    ChainCheck::run(&leaves).unwrap();
}

/// Whether the body of an event's webhook is still there.
async fn has_body(hooks: &Hooks, event: &str) -> bool {
    let sql = "select body is not null, wiped_at is null from webhook_inbox where event_id = $1";
    let row = hooks.db.row(sql, &[&event]).await;
    assert_eq!(row.get::<_, bool>(0), row.get::<_, bool>(1));
    row.get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_reaches_the_bodies_of_webhooks_those_that_come_later_too() {
    let hooks = Hooks::start_with(options()).await;
    hooks.db.erase_soon().await;
    let admin = administrator(&hooks.world).await;
    let mut request = purchase("tok_approve", 900);
    request.customer = Some(zaphod());
    let payment = admin.create(request).await;
    let told = hooks.events().pop().unwrap();
    hooks.tell(&told, "IGNORED").await;
    assert!(has_body(&hooks, &told.id).await);
    // One that the provider tells only once the customer is erased.
    let chargeback = hooks
        .control(&payment, "chargebacks", serde_json::json!({"amount": 100}))
        .await;

    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    erased(&admin, &asked).await;
    assert!(!has_body(&hooks, &told.id).await, "wiped with the key");
    assert_eq!(
        hooks.db.sealed_under(KEY_ID).await,
        Vec::<String>::new(),
        "nothing that can be opened is left in any table"
    );

    // The late one is applied all the same, and told again it is known.
    hooks.tell(&chargeback, "APPLIED").await;
    assert!(
        !has_body(&hooks, &chargeback.id).await,
        "wiped once it was applied"
    );
    hooks.deliver(&Post::of(&chargeback)).await;
    hooks.deliver(&Post::of(&told)).await;
    assert_eq!(hooks.stored().await, 2);
    assert_eq!(hooks.db.sealed_under(KEY_ID).await, Vec::<String>::new());
    let disputed = admin.payment(&payment.payment_id).await;
    assert!(disputed.disputed);

    // Another customer's are left alone.
    let other = admin.create(purchase("tok_approve", 100)).await;
    let theirs = hooks.event_about(&other.transactions[0].transaction_id);
    hooks.tell(&theirs, "IGNORED").await;
    assert!(has_body(&hooks, &theirs.id).await);
}

/// A customer's payment that failed, as a webhook said, and a webhook that says that it did not, which waits until the
/// provider can be asked; the customer is to be erased.
async fn parked_while_erased(options: SiteOptions) -> (Hooks, Client, Payment, String, Erasure) {
    let options = options.with("database.customer_keys_remembered_ms", 200);
    let hooks = Hooks::start_with(options).await;
    hooks.db.erase_soon().await;
    let admin = administrator(&hooks.world).await;
    let mut request = purchase("tok_approve?status_after=500", 800);
    request.customer = Some(zaphod());
    let payment = admin.create(request).await;
    let succeeded = hooks.event_about(&payment.transactions[0].transaction_id);
    let mut failed = succeeded.clone();
    failed.id = "evt_failed".to_owned();
    failed.operation.status = OperationStatus::Failed;
    hooks.tell(&failed, "APPLIED").await;
    let failed = admin.payment(&payment.payment_id).await;
    assert_eq!(failed.state(), PaymentState::Failed);
    hooks.sandbox.pause_accepting().await;
    hooks.deliver(&Post::of(&succeeded)).await;
    // It may have been given up by now, where that is soon.
    eventually("it was tried", async || {
        let kept = hooks.kept(&succeeded.id).await;
        (kept.first()?.attempts >= 1).then_some(())
    })
    .await;
    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    (hooks, admin, payment, succeeded.id, asked)
}

/// No table holds anything that the customer is known by, in whatever form it could be opened.
async fn assert_nothing_personal(hooks: &Hooks) {
    assert_eq!(hooks.db.sealed_under(KEY_ID).await, Vec::<String>::new());
    for secret in ["Zaphod", "heartofgold"] {
        assert_eq!(hooks.db.places_of(secret).await, Vec::<String>::new());
    }
    assert_eq!(hooks.db.number("select count(*) from customers").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_for_a_parked_webhook_which_is_applied_and_leaves_nothing_personal() {
    let (hooks, admin, payment, event, asked) = parked_while_erased(SiteOptions::default()).await;
    eventually("the erasure waits for it", async || {
        (stands(&admin, &asked).await.open_payments == 1).then_some(())
    })
    .await;
    assert!(has_body(&hooks, &event).await, "it is needed yet");
    hooks.sandbox.resume().await.unwrap();
    hooks.until(&event, "APPLIED").await;
    let done = erased(&admin, &asked).await;
    assert_eq!(done.payments, 1);
    assert!(!has_body(&hooks, &event).await);
    assert_nothing_personal(&hooks).await;
    let paid = admin.payment(&payment.payment_id).await;
    assert_eq!(
        (paid.state(), paid.captured()),
        (PaymentState::Captured, 800)
    );
    hooks.everything_agrees().await;
    // What it told is on record, and the record proves itself.
    exported(&hooks.world, &admin, evidence_of(&payment.payment_id)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_webhook_that_is_given_up_leaves_nothing_personal_either() {
    // The provider is away, and nothing waits for it for longer than that.
    let options = SiteOptions::impatient()
        .with("webhooks.max_attempts", 4)
        .with("webhooks.wait_days", 0);
    let (hooks, admin, payment, event, asked) = parked_while_erased(options).await;
    let dead = hooks.until(&event, "DEAD").await;
    assert_eq!(dead.reason.as_deref(), Some("NOT_CONFIRMED"));
    erased(&admin, &asked).await;
    assert!(!has_body(&hooks, &event).await);
    assert_nothing_personal(&hooks).await;
    // Nothing is left that could be tried again.
    hooks.sandbox.resume().await.unwrap();
    let platform = hooks.as_role(TENANT, &[Role::PlatformAdmin]).await;
    let listed = platform.ok(ListWebhooksRequest::default()).await.message;
    let dead = listed.webhooks.iter().find(|one| one.event_id == event);
    let replay = ReplayWebhookRequest {
        webhook_id: dead.unwrap().webhook_id.clone(),
        reason: "the provider is back".to_owned(),
    };
    let refused = platform.refused(replay).await;
    refused.is(Code::FailedPrecondition, "WEBHOOK_WIPED");
    let failed = admin.payment(&payment.payment_id).await;
    assert_eq!(failed.state(), PaymentState::Failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_evidence_of_an_erased_customer_discloses_nothing_and_still_proves_everything() {
    let world = world().await;
    let admin = administrator(&world).await;
    let mut request = authorization("tok_approve", 900);
    request.customer = Some(zaphod());
    let payment = admin.create(request).await;
    let id = payment.payment_id.as_str();
    let (before, bundle, _) = exported(&world, &admin, evidence_of(id)).await;
    assert_eq!(bundle.disclosures.len(), 2);
    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    // From now on, not only once the key is destroyed.
    let (_, bundle, _) = exported(&world, &admin, evidence_of(id)).await;
    assert_eq!(bundle.disclosures.len(), 0);
    erased(&admin, &asked).await;
    admin.ok(capture(&payment, 900)).await;
    let (after, bundle, report) = exported(&world, &admin, evidence_of(id)).await;
    assert!(after.last_entity_seq > before.last_entity_seq);
    assert_eq!((bundle.disclosures.len(), after.disclosures), (0, 0));
    let digests = &report.entries[0].leaf.personal_data;
    assert_eq!(digests.len(), 2, "the digests stay, and say nothing");
    let text = String::from_utf8(after.bundle).unwrap();
    for secret in ["Zaphod", "heartofgold"] {
        assert!(!text.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_waits_for_payments_whose_outcome_is_not_known() {
    let world = world().await;
    let admin = administrator(&world).await;
    let mut request = purchase("tok_requires_action", 300);
    request.customer = Some(zaphod());
    let waiting = admin.create(request).await;
    assert_eq!(waiting.state(), PaymentState::RequiresAction);
    let asked = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    eventually("it waits", async || {
        (stands(&admin, &asked).await.open_payments == 1).then_some(())
    })
    .await;
    let customer = customer_of(&world, &waiting).await;
    let count = format!("select count(*) from customers where customer_id = '{customer}'");
    assert_eq!(world.db.number(&count).await, 1, "the key is still needed");

    // Whoever comes back meanwhile is a new customer.
    let mut request = purchase("tok_approve", 100);
    request.customer = Some(zaphod());
    let newer = admin.create(request).await;
    assert_ne!(customer_of(&world, &newer).await, customer);

    admin.ok(crate::harness::void(&waiting)).await;
    let done = erased(&admin, &asked).await;
    assert_eq!(done.payments, 1);
    // The new customer is erased by an erasure of its own.
    let next = admin.ok(erase(CUSTOMER)).await.message.erasure.unwrap();
    assert_ne!(next.erasure_id, asked.erasure_id);
    erased(&admin, &next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_administrator_erases_and_only_customers_that_there_are() {
    let world = world().await;
    let admin = administrator(&world).await;
    let unknown = admin.refused(erase("nobody")).await;
    unknown.is(Code::NotFound, "CUSTOMER_NOT_FOUND");
    let mut request = purchase("tok_approve", 100);
    request.customer = Some(zaphod());
    world.client.create(request).await;
    let other = world.as_role("globex", &[Role::Admin]).await;
    other
        .refused(erase(CUSTOMER))
        .await
        .is(Code::NotFound, "CUSTOMER_NOT_FOUND");
    let refused = world.client.refused(erase(CUSTOMER)).await;
    refused.is(Code::PermissionDenied, "ROLE_REQUIRED");
    let nameless = admin.refused(ErasePersonalDataRequest::default()).await;
    let fields: Vec<_> = nameless
        .violations
        .iter()
        .map(|(field, _)| field.as_str())
        .collect();
    assert_eq!(fields, ["customer_reference", "reason"]);
}
