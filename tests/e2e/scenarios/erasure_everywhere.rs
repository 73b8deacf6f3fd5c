//! After an erasure, no table holds anything of the customer that could be read: every column is looked at, and a column that is
//! new has to be thought about.

use quittance_proto::v1::{
    ConfirmPaymentRequest, CreateNotificationEndpointRequest, CreatePaymentRequest, Customer,
    ErasePersonalDataRequest, GetErasureRequest, Payment, PaymentState, PostalAddress,
    ResolveTransactionRequest, TransactionResolution,
};
use quittance_server::auth::Role;
use serde_json::json;
use toml::Value;

use super::verification::verified;
use crate::harness::receiver::Receiver;
use crate::harness::site::{KEY_ID, TENANT, TENANT_ROLES};
use crate::harness::webhooks::{Hooks, Post, SECRET};
use crate::harness::{
    Amounts as _, Client, Keyed as _, SiteOptions, authorization, capture, confirm, eventually,
    purchase,
};

/// What every personal value of the test has in it, but for the address of the network.
const PLANTED: &str = "planted";
const IP_ADDRESS: &str = "203.0.113.177";
/// More lookups than the test makes.
const MANY: u32 = 100_000;

/// What becomes of what a column may hold of a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Encrypted under the customer's key, which is destroyed.
    UnderTheirKey,
    /// Wiped by the erasure, or as soon as it is not needed any more, which the erasure waits for.
    Wiped,
    /// A keyed or salted digest, of which docs/personal-data.md says what it tells.
    Digest,
    /// The words of a caller or an operator, which must hold no personal data: docs/personal-data.md says so.
    OwnWords,
    /// Nothing about a person: our own ids and names, codes, hashes, and what is configured.
    Nothing,
}

/// Every column that can hold a text or bytes.
const COLUMNS: &[(&str, Holds, &[&str])] = &[
    (
        "api_keys",
        Holds::Nothing,
        &[
            "key_id",
            "mac_key_id",
            "name",
            "roles",
            "row_mac",
            "secret_mac",
            "tenant_id",
        ],
    ),
    (
        "attempts",
        Holds::UnderTheirKey,
        &["digest_salt", "response"],
    ),
    (
        "attempts",
        Holds::Digest,
        &["request_digest", "response_digest"],
    ),
    (
        "attempts",
        Holds::Nothing,
        &[
            "cause",
            "operation",
            "outcome",
            "provider_account",
            "tenant_id",
        ],
    ),
    (
        "checkpoints",
        Holds::Nothing,
        &["mac", "mac_key_id", "note", "note_digest", "root_hash"],
    ),
    (
        "cosignatures",
        Holds::Nothing,
        &["line", "mac", "mac_key_id", "root_hash", "witness"],
    ),
    ("customers", Holds::Wiped, &["data_key", "reference_mac"]),
    ("customers", Holds::Nothing, &["tenant_id"]),
    ("erasures", Holds::Digest, &["reference_mac"]),
    ("erasures", Holds::Nothing, &["tenant_id"]),
    ("idempotency_records", Holds::Wiped, &["fingerprint"]),
    ("idempotency_records", Holds::OwnWords, &["idempotency_key"]),
    (
        "idempotency_records",
        Holds::Nothing,
        &["command", "tenant_id"],
    ),
    // Of personal data it has salted digests; it has reasons, references and keys of callers as they gave them.
    ("journal", Holds::OwnWords, &["leaf"]),
    (
        "journal",
        Holds::Nothing,
        &[
            "actor",
            "cause",
            "event_type",
            "leaf_hash",
            "mac",
            "mac_key_id",
            "provider_account",
            "result",
            "source",
            "tenant_id",
            "trace_id",
        ],
    ),
    ("journal_positions", Holds::Nothing, &["tenant_id"]),
    ("notification_attempts", Holds::Nothing, &["cause"]),
    (
        "notification_deliveries",
        Holds::Nothing,
        &["cause", "event_type", "state", "tenant_id"],
    ),
    (
        "notification_endpoints",
        Holds::Nothing,
        &[
            "event_types",
            "older_secret",
            "previous_secret",
            "secret",
            "state",
            "tenant_id",
            "url",
        ],
    ),
    ("notification_endpoints", Holds::OwnWords, &["description"]),
    ("operator_actions", Holds::Nothing, &["kind", "tenant_id"]),
    ("payments", Holds::UnderTheirKey, &["customer_sealed"]),
    ("payments", Holds::Wiped, &["next_action", "provider_token"]),
    (
        "payments",
        Holds::OwnWords,
        &[
            "description",
            "mandate_reference",
            "merchant_reference",
            "metadata",
            "return_url",
        ],
    ),
    (
        "payments",
        Holds::Nothing,
        &[
            "brand",
            "capture_method",
            "currency",
            "decline_code",
            "decline_provider_code",
            "failure_cause",
            "initiator",
            "last4",
            "last_leaf_hash",
            "method_kind",
            "provider_account",
            "provider_reference",
            "state",
            "tenant_id",
        ],
    ),
    ("refused_entries", Holds::Nothing, &["reason", "seal"]),
    ("tenants", Holds::Nothing, &["tenant_id"]),
    ("transactions", Holds::UnderTheirKey, &["request"]),
    ("transactions", Holds::OwnWords, &["reason"]),
    (
        "transactions",
        Holds::Nothing,
        &[
            "contradictions",
            "decline_code",
            "decline_provider_code",
            "dispute_currency",
            "dispute_reason",
            "failure_cause",
            "kind",
            "left_alone",
            "open_case",
            "origin",
            "provider_account",
            "provider_reference",
            "state",
        ],
    ),
    (
        "tree_heads",
        Holds::Nothing,
        &["mac", "mac_key_id", "root_hash"],
    ),
    ("tree_tiles", Holds::Nothing, &["hashes"]),
    ("webhook_inbox", Holds::Wiped, &["body"]),
    (
        "webhook_inbox",
        Holds::Nothing,
        &[
            "event_id",
            "payment_ids",
            "provider_account",
            "reason",
            "state",
        ],
    ),
];

fn options() -> SiteOptions {
    let networks = vec![Value::from("127.0.0.1/32")];
    SiteOptions::impatient()
        .recovering()
        .with("database.customer_keys_remembered_ms", 200)
        .with("webhooks.max_attempts", 3)
        .with("payments.retries.outcome_unknown.max_steps", 1)
        .with("payments.retries.undecided.max_steps", 1)
        .with("payments.retries.unreachable.max_steps", 1)
        .with("notifications.allow_plaintext_loopback", true)
        .with("notifications.allowed_networks", Value::from(networks))
        .with("notifications.poll_interval_ms", 50)
}

fn of_planted(request: CreatePaymentRequest) -> CreatePaymentRequest {
    CreatePaymentRequest {
        customer: Some(Customer {
            customer_reference: "customer-planted-17".to_owned(),
            name: "Zaphod Planted".to_owned(),
            email: "zaphod@planted.example".to_owned(),
            ip_address: IP_ADDRESS.to_owned(),
            address: Some(PostalAddress {
                lines: vec!["17 Planted Street".to_owned()],
                city: "Plantedtown".to_owned(),
                region: "Plantedshire".to_owned(),
                postal_code: "PLANTED1".to_owned(),
                country_code: "GB".to_owned(),
            }),
        }),
        ..request
    }
}

/// A payment whose customer had to do something, and did.
async fn confirmed(client: &Client) -> Payment {
    let request = of_planted(purchase("tok_requires_action", 700));
    let payment = client.create(request).await;
    assert_eq!(payment.state(), PaymentState::RequiresAction);
    let mut confirming: ConfirmPaymentRequest = confirm(&payment, "passed");
    let device = "a planted device".to_owned();
    confirming.parameters.insert("device".to_owned(), device);
    let confirmed = client.ok(confirming).await.message.payment.unwrap();
    assert_eq!(confirmed.state(), PaymentState::Captured);
    confirmed
}

/// A payment of which a person had to decide what became of it.
async fn decided_by_a_person(hooks: &Hooks, admin: &Client) -> Payment {
    hooks.world.arm("lookup", 503, MANY).await;
    let request = of_planted(purchase("tok_timeout_after_charge", 800));
    let pending = admin.create(request).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let open = "select count(*) from operator_actions where closed_at is null";
    eventually("a person is asked", async || {
        (hooks.db.number(open).await == 1).then_some(())
    })
    .await;
    hooks.let_leases_run_out().await;
    hooks.world.disarm().await;
    let resolve = ResolveTransactionRequest {
        payment_id: pending.payment_id.clone(),
        transaction_id: pending.transactions[0].transaction_id.clone(),
        resolution: TransactionResolution::Succeeded.into(),
        reason: "asked the provider's support".to_owned(),
        evidence: "ticket 4711".to_owned(),
        ..ResolveTransactionRequest::default()
    };
    admin.ok(resolve).await.message.payment.unwrap()
}

/// Where sealed values lie that the key ring opens, but for the addresses and secrets of the tenants' receivers.
async fn openable(hooks: &Hooks) -> Vec<String> {
    let mut places = hooks.db.sealed_under(KEY_ID).await;
    places.retain(|place| !place.starts_with("notification_endpoints."));
    places
}

async fn places(hooks: &Hooks) -> Vec<String> {
    let mut places = Vec::new();
    for value in [PLANTED, IP_ADDRESS] {
        places.extend(hooks.db.places_of(value).await);
    }
    places
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_erased_customer_is_left_in_any_table_whatever_happened_to_their_payments() {
    let hooks = Hooks::start_with(options()).await;
    hooks.db.erase_soon().await;
    let mut roles = TENANT_ROLES.to_vec();
    roles.push(Role::Admin);
    let admin = hooks.as_role(TENANT, &roles).await;
    // One receiver takes what it is told, and the other one does not exist: its notifications wait.
    let receiver = Receiver::start().await;
    for url in [receiver.url(), "http://127.0.0.1:1/nobody".to_owned()] {
        let endpoint = CreateNotificationEndpointRequest {
            url,
            description: "books".to_owned(),
            event_types: Vec::new(),
            tenant_id: String::new(),
        };
        admin.ok(endpoint).await;
    }

    confirmed(&admin).await;
    let request = of_planted(authorization("tok_approve", 900)).key("repeated");
    let payment = admin.create(request.clone()).await;
    admin.ok(capture(&payment, 900)).await;
    admin.create(of_planted(purchase("tok_decline", 100))).await;
    let decided = decided_by_a_person(&hooks, &admin).await;
    // Webhooks: of what was known, of a dispute, and one that nobody can read and that mentions the customer.
    let known = hooks.event_about(&payment.transactions[0].transaction_id);
    hooks.tell(&known, "IGNORED").await;
    let disputed = hooks
        .control(&payment, "chargebacks", json!({"amount": 100}))
        .await;
    hooks.tell(&disputed, "APPLIED").await;
    // What is not understood names no payment of ours; it tells of the customer all the same.
    let unreadable = serde_json::to_string(&known).unwrap();
    let unreadable = unreadable.replace("\"payment.", "\"celebration.").replacen(
        '{',
        "{\"email\":\"zaphod@planted.example\",",
        1,
    );
    let unreadable = Post::signed("evt_dead", unreadable.as_bytes(), SECRET);
    hooks.deliver(&unreadable).await;
    hooks.until("evt_dead", "DEAD").await;
    eventually("the receiver was told", async || {
        (!receiver.got().is_empty()).then_some(())
    })
    .await;

    // All of it is there, and none of it in plain.
    assert_eq!(places(&hooks).await, Vec::<String>::new());
    let kept = openable(&hooks).await.join(", ");
    for column in ["customers.data_key", "webhook_inbox.body"] {
        assert!(kept.contains(column), "{column} in {kept}");
    }
    // Every payment is decided, and nobody will send it through another account.
    assert!(!kept.contains("payments.provider_token"), "{kept}");

    let asked = ErasePersonalDataRequest {
        customer_reference: "customer-planted-17".to_owned(),
        reason: "asked for under article 17".to_owned(),
        ..ErasePersonalDataRequest::default()
    };
    let asked = admin.ok(asked).await.message.erasure.unwrap();
    let done = eventually("the customer is erased", async || {
        let request = GetErasureRequest {
            erasure_id: asked.erasure_id.clone(),
            ..GetErasureRequest::default()
        };
        let now = admin.ok(request).await.message.erasure.unwrap();
        now.finish_time.is_some().then_some(now)
    })
    .await;
    assert_eq!(done.payments, 4);
    assert_eq!(places(&hooks).await, Vec::<String>::new());
    assert_eq!(openable(&hooks).await, Vec::<String>::new());
    assert_eq!(hooks.db.number("select count(*) from customers").await, 0);

    // What comes later leaves nothing either: a repetition, a webhook again, a step on a payment.
    let again = admin.create(request).await;
    assert_eq!(again.payment_id, payment.payment_id);
    hooks.deliver(&Post::of(&known)).await;
    hooks.deliver(&unreadable).await;
    let told = receiver.got();
    assert!(
        told.iter()
            .all(|one| !one.json().to_string().contains(PLANTED))
    );
    assert_eq!(places(&hooks).await, Vec::<String>::new());
    // The repetition named the customer anew: that makes a new key, under which nothing lies.
    let mut left = openable(&hooks).await;
    left.retain(|place| !place.starts_with("customers.data_key"));
    assert_eq!(left, Vec::<String>::new());
    // And the log proves all of it.
    let auditor = hooks.as_role(TENANT, &[Role::PlatformAudit]).await;
    let (mut found, _) = verified(&auditor).await;
    // This test ended a lease in the table.
    found.retain(|fault| {
        fault.payment_id != decided.payment_id || fault.code != "ROWS_CHANGED_BEFORE"
    });
    assert_eq!(found, []);
    assert_eq!(again.captured(), 900);
}

#[tokio::test]
async fn of_every_column_it_is_said_what_it_holds_of_a_customer() {
    let hooks = Hooks::start().await;
    let sql = "select table_name::text, column_name::text from information_schema.columns c \
               join pg_class r on r.relname = c.table_name and r.relnamespace = 'public'::regnamespace \
               where table_schema = 'public' and r.relkind in ('r', 'p') and not r.relispartition \
               and data_type in ('text', 'bytea', 'jsonb', 'json', 'ARRAY', 'character varying') \
               and not table_name like '\\_\\_%' \
               order by table_name::text collate \"C\", column_name::text collate \"C\"";
    let rows = hooks.db.rows(sql, &[]).await;
    let stored: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut said: Vec<(String, String)> = COLUMNS
        .iter()
        .flat_map(|(table, _, columns)| {
            columns
                .iter()
                .map(|column| ((*table).to_owned(), (*column).to_owned()))
        })
        .collect();
    said.sort();
    assert_eq!(stored, said);
    // What may hold a personal value is told of to whoever has to answer for it.
    let document = include_str!("../../../docs/personal-data.md");
    for (table, holds, columns) in COLUMNS {
        if *holds == Holds::Nothing {
            continue;
        }
        for column in *columns {
            let name = format!("`{table}.{column}`");
            assert!(document.contains(&name), "{name} is {holds:?}");
        }
    }
}
