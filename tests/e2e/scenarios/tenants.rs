//! Who may do what, and to whose payments.

use std::collections::BTreeSet;
use std::time::Duration;

use quittance_proto::v1::{
    GetEntryRequest, ListEntriesRequest, ListPaymentsRequest, TailEntriesRequest,
    WatchPaymentsRequest,
};
use quittance_server::auth::Role;
use tonic::Code;

use crate::harness::site::TENANT;
use crate::harness::{
    Client, Failure, World, authorization, capture, confirm, eventually, get, get_by_key,
    next_told, purchase, refund, sync, void,
};

/// Those that can move money, or look up by key what did.
const DENY_NOTHING: [&str; 9] = [
    "PaymentService/CreatePayment",
    "PaymentService/ConfirmPayment",
    "PaymentService/CapturePayment",
    "PaymentService/VoidPayment",
    "PaymentService/RefundPayment",
    "PaymentService/SyncPayment",
    "PaymentService/GetPayment",
    "AdminService/ResolveTransaction",
    "AdminService/RetryTransaction",
];

/// Role × RPC as the contract has it, written down here a second time on purpose.
const PERMISSIONS: [(&str, &[&str]); 36] = [
    ("PaymentService/CreatePayment", &["payments.write"]),
    ("PaymentService/ConfirmPayment", &["payments.write"]),
    ("PaymentService/CapturePayment", &["payments.write"]),
    ("PaymentService/VoidPayment", &["payments.write"]),
    ("PaymentService/RefundPayment", &["payments.refund"]),
    ("PaymentService/SyncPayment", &["payments.write"]),
    ("PaymentService/GetPayment", &["payments.read"]),
    ("PaymentService/ListPayments", &["payments.read"]),
    ("PaymentService/WatchPayments", &["payments.read"]),
    (
        "AuditService/ListEntries",
        &["audit.read", "platform.audit"],
    ),
    ("AuditService/GetEntry", &["audit.read", "platform.audit"]),
    (
        "AuditService/TailEntries",
        &["audit.read", "platform.audit"],
    ),
    (
        "AuditService/GetCheckpoint",
        &["audit.read", "platform.audit"],
    ),
    (
        "AuditService/GetInclusionProof",
        &["audit.read", "platform.audit"],
    ),
    (
        "AuditService/GetConsistencyProof",
        &["audit.read", "platform.audit"],
    ),
    (
        "AuditService/ExportEvidence",
        &["audit.read", "platform.audit"],
    ),
    (
        "AuditService/SummarizeFailures",
        &["audit.read", "platform.audit"],
    ),
    ("AuditService/VerifyLog", &["platform.audit"]),
    ("AuditService/Reconcile", &["platform.audit"]),
    (
        "AdminService/ListOperatorActions",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/ResolveTransaction",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/RetryTransaction",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/ErasePersonalData",
        &["admin", "platform.admin"],
    ),
    ("AdminService/GetErasure", &["admin", "platform.admin"]),
    (
        "AdminService/CreateNotificationEndpoint",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/ListNotificationEndpoints",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/UpdateNotificationEndpoint",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/DeleteNotificationEndpoint",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/TestNotificationEndpoint",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/RotateNotificationEndpointSecret",
        &["admin", "platform.admin"],
    ),
    (
        "AdminService/ListNotifications",
        &["admin", "platform.admin"],
    ),
    ("AdminService/GetNotification", &["admin", "platform.admin"]),
    (
        "AdminService/ReplayNotifications",
        &["admin", "platform.admin"],
    ),
    ("AdminService/ListWebhooks", &["platform.admin"]),
    ("AdminService/GetWebhook", &["platform.admin"]),
    ("AdminService/ReplayWebhook", &["platform.admin"]),
];

const STREAMS: [&str; 4] = [
    "PaymentService/WatchPayments",
    "AuditService/TailEntries",
    "AuditService/VerifyLog",
    "AuditService/Reconcile",
];
/// How long an open stream may say nothing before it counts as open.
const QUIET: Duration = Duration::from_millis(100);

async fn empty_call(client: &Client, rpc: &str) -> Option<Failure> {
    let method = format!("quittance.v1.{rpc}");
    let status = if STREAMS.contains(&rpc) {
        client.raw_stream(&method, Vec::new(), QUIET).await.err()
    } else {
        client.raw(&method, Vec::new()).await.err()
    };
    status.map(Failure::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s68_a_role_opens_exactly_its_own_rpcs() {
    let world = World::start().await;
    for role in Role::ALL {
        let client = world.as_role(TENANT, &[role]).await;
        for (rpc, allowed) in PERMISSIONS {
            let failure = empty_call(&client, rpc).await;
            if allowed.contains(&role.name()) {
                let code = failure.map(|failure| failure.code);
                let refused = [Some(Code::PermissionDenied), Some(Code::Unauthenticated)];
                assert!(!refused.contains(&code), "{role} may call {rpc}: {code:?}");
            } else {
                let failure = failure.unwrap_or_else(|| panic!("{role} could call {rpc}"));
                failure.is(Code::PermissionDenied, "ROLE_REQUIRED");
                assert_eq!(failure.money_may_have_moved(), DENY_NOTHING.contains(&rpc));
                let named = failure
                    .metadata
                    .values()
                    .any(|value| allowed.contains(&value.as_str()));
                assert!(
                    named,
                    "{rpc}: the role that is needed is not named: {failure:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s68_the_permissions_cover_every_rpc_of_the_contract() {
    let pool = prost_reflect::DescriptorPool::decode(quittance_proto::FILE_DESCRIPTOR_SET).unwrap();
    let contract: BTreeSet<_> = pool
        .services()
        .filter(|service| service.full_name().starts_with("quittance.v1."))
        .flat_map(|service| {
            let names = service.methods().map(|method| method.name().to_owned());
            names
                .map(|name| format!("{}/{name}", service.name()))
                .collect::<Vec<_>>()
        })
        .collect();
    let listed: BTreeSet<_> = PERMISSIONS
        .iter()
        .map(|(rpc, _)| (*rpc).to_owned())
        .collect();
    assert_eq!(listed, contract);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s68_another_tenant_s_payment_is_not_found_by_any_rpc() {
    let world = World::start().await;
    let stranger = world.other_tenant().await;
    let payment = world.client.create(authorization("tok_approve", 100)).await;
    let waiting = world
        .client
        .create(purchase("tok_requires_action", 100))
        .await;
    let before = world.db.volume().await;
    for failure in [
        stranger.refused(get(&payment.payment_id)).await,
        stranger.refused(capture(&payment, 1)).await,
        stranger.refused(void(&payment)).await,
        stranger.refused(refund(&payment, 1)).await,
        stranger.refused(sync(&payment)).await,
        stranger.refused(confirm(&waiting, "passed")).await,
    ] {
        failure.is(Code::NotFound, "PAYMENT_NOT_FOUND");
        assert!(!failure.money_may_have_moved());
    }
    // Exactly as for one that does not exist.
    let nobodys = "0198c5a2-0000-7000-8000-000000000001";
    let theirs = stranger.refused(get(&payment.payment_id)).await;
    let none = stranger.refused(get(nobodys)).await;
    assert_eq!(
        (theirs.code, &theirs.message, &theirs.metadata),
        (none.code, &none.message, &none.metadata)
    );

    let key = "select idempotency_key from idempotency_records limit 1";
    let key: String = world.db.row(key, &[]).await.get(0);
    stranger
        .refused(get_by_key(&key))
        .await
        .is(Code::NotFound, "PAYMENT_NOT_FOUND");
    let listed = stranger.ok(ListPaymentsRequest::default()).await;
    assert!(listed.payments.is_empty() && listed.next_page_token.is_empty());
    assert_eq!(world.db.volume().await, before);
    assert_eq!(world.books().counts.captures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s68_another_tenant_s_entries_and_events_are_not_seen() {
    let world = World::start().await;
    let stranger = world.other_tenant().await;
    let payment = world.client.create(purchase("tok_approve", 100)).await;
    let entries = world.client.entries_of(&payment.payment_id).await;
    assert_eq!(stranger.entries_of(&payment.payment_id).await, []);
    let entry_id = entries[0].entry_id.clone();
    let failure = stranger.refused(GetEntryRequest { entry_id }).await;
    failure.is(Code::NotFound, "ENTRY_NOT_FOUND");
    let trace_id = entries[0].trace_id.clone();
    let by_trace = ListEntriesRequest {
        trace_id,
        ..ListEntriesRequest::default()
    };
    assert_eq!(stranger.entries(by_trace).await, []);

    // Naming the tenant does not help.
    let named = || TENANT.to_owned();
    let failure = stranger
        .refused(ListEntriesRequest {
            tenant_id: named(),
            ..ListEntriesRequest::default()
        })
        .await;
    assert!(
        matches!(failure.code, Code::PermissionDenied | Code::InvalidArgument),
        "{failure:?}"
    );
    let tail = TailEntriesRequest {
        tenant_id: named(),
        ..TailEntriesRequest::default()
    };
    let refused = match stranger.tail(tail).await {
        Err(failure) => failure,
        Ok(mut stream) => Failure::from(next_told(&mut stream).await.unwrap_err()),
    };
    assert_eq!(refused.code, failure.code);

    // The stranger's stream brings its own events only.
    let theirs = stranger.create(purchase("tok_approve", 7)).await;
    let mut stream = stranger
        .watch(WatchPaymentsRequest::default())
        .await
        .unwrap();
    while let Some(response) = next_told(&mut stream).await.unwrap() {
        assert_eq!(response.event.unwrap().payment_id, theirs.payment_id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s68_the_platform_reads_the_entries_of_all_tenants() {
    let world = World::start().await;
    let stranger = world.other_tenant().await;
    world.client.create(purchase("tok_approve", 100)).await;
    stranger.create(purchase("tok_approve", 100)).await;
    let platform = world.as_role("platform", &[Role::PlatformAudit]).await;
    let all = platform.entries(ListEntriesRequest::default()).await;
    let tenants: BTreeSet<_> = all.iter().map(|entry| entry.tenant_id.as_str()).collect();
    assert!(
        tenants.contains(TENANT) && tenants.contains("globex"),
        "{tenants:?}"
    );
    let only = ListEntriesRequest {
        tenant_id: TENANT.to_owned(),
        ..ListEntriesRequest::default()
    };
    let ours = platform.entries(only).await;
    assert!(!ours.is_empty() && ours.iter().all(|entry| entry.tenant_id == TENANT));
    let failure = platform.refused(ListPaymentsRequest::default()).await;
    failure.is(Code::PermissionDenied, "ROLE_REQUIRED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_valid_key_are_refused_before_anything_else() {
    let world = World::start().await;
    let before = world.db.volume().await;
    let nobody = Client::new(world.address());
    let failure = nobody.refused(purchase("tok_approve", 100)).await;
    failure.is(Code::Unauthenticated, "MISSING_CREDENTIALS");
    let key = world.api_key(TENANT, &[Role::PaymentsWrite]).await;
    let another = if key.ends_with('A') { "B" } else { "A" };
    let altered = format!("{}{another}", &key[..key.len() - 1]);
    for bad in [
        "",
        "qk_",
        "Bearer",
        "qk_0123456789abcdef_short",
        altered.as_str(),
    ] {
        let failure = nobody
            .with_key(bad)
            .refused(purchase("tok_approve", 100))
            .await;
        assert_eq!(failure.code, Code::Unauthenticated, "{bad}: {failure:?}");
        assert!(failure.money_may_have_moved(), "I13: by an earlier call");
        assert!(!failure.message.contains(bad) || bad.is_empty() || bad == "Bearer");
    }
    let basic = nobody.with("authorization", "Basic YTpi");
    let failure = basic.refused(purchase("tok_approve", 100)).await;
    assert_eq!(failure.code, Code::Unauthenticated);
    assert_eq!(world.db.volume().await, before);
    assert_eq!(world.books().counts.operations, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_ends_within_the_cache_s_time() {
    let options = crate::harness::SiteOptions::default().with("auth.cache_ttl_ms", 50);
    let world = World::start_with(options).await;
    let client = world.as_role(TENANT, &[Role::PaymentsRead]).await;
    client.ok(ListPaymentsRequest::default()).await;
    world
        .db
        .execute("update api_keys set revoked_at = now()", &[])
        .await;
    let failure = eventually("the key stops working", async || {
        client.call(ListPaymentsRequest::default()).await.err()
    })
    .await;
    failure.is(Code::Unauthenticated, "INVALID_CREDENTIALS");
}
