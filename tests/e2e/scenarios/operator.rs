//! What the service cannot know by itself, and a person decides: on record, and never above what the provider proves.

use quittance_proto::v1::{
    AuditEntry, ListEntriesRequest, ListOperatorActionsRequest, OperatorAction, OperatorActionKind,
    Payment, PaymentState, ResolveTransactionRequest, RetryTransactionRequest,
    TransactionResolution, TransactionState,
};
use quittance_server::auth::Role;
use quittance_test_support::Direction::ToClient;
use quittance_test_support::Plan;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::command_line::CommandLine;
use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::webhooks::Hooks;
use crate::harness::{
    Amounts as _, Cases as _, Client, SiteOptions, World, authorization, eventually, get, purchase,
    refund, sync,
};

use super::verification::verified;

/// More lookups than any test makes.
const MANY: u32 = 100_000;

/// A server whose recovery asks once, and then a person.
async fn world_that_gives_up_soon() -> World {
    World::start_with(giving_up_soon()).await
}

fn giving_up_soon() -> SiteOptions {
    SiteOptions::impatient()
        .recovering()
        .with("payments.retries.outcome_unknown.max_steps", 1)
        .with("payments.retries.undecided.max_steps", 1)
        .with("payments.retries.unreachable.max_steps", 1)
}

/// A caller that may do everything in the tenant, and administer it.
async fn operator(world: &World) -> Client {
    let mut roles = TENANT_ROLES.to_vec();
    roles.push(Role::Admin);
    world.as_role(TENANT, &roles).await
}

/// Lookups at the provider fail from now on.
async fn hide_the_truth(world: &World) {
    world.arm("lookup", 503, MANY).await;
}

async fn show_the_truth(world: &World) {
    world.disarm().await;
}

async fn actions(client: &Client, include_closed: bool) -> Vec<OperatorAction> {
    let request = ListOperatorActionsRequest {
        include_closed,
        ..ListOperatorActionsRequest::default()
    };
    client.ok(request).await.message.operator_actions
}

/// A payment whose outcome recovery could not find out: pending, with a case.
async fn given_up(world: &World, operator: &Client, token: &str) -> Payment {
    hide_the_truth(world).await;
    let pending = operator.create(purchase(token, 800)).await;
    assert_eq!(pending.state(), PaymentState::Pending, "{token}");
    eventually("recovery gives up", async || {
        let open = actions(operator, false).await;
        let found = |one: &OperatorAction| one.payment_id == pending.payment_id;
        open.into_iter().find(found)
    })
    .await;
    // The request whose answer was lost cannot arrive any more.
    world.let_leases_run_out().await;
    let payment = operator.payment(&pending.payment_id).await;
    assert_eq!(payment.state(), PaymentState::Pending, "it is not decided");
    let row = &payment.transactions[0];
    assert_eq!(
        row.open_operator_action(),
        OperatorActionKind::RecoveryExhausted
    );
    assert_eq!(row.next_retry_time, None, "only a person goes on");
    assert!(!row.resolved_by_operator);
    payment
}

fn resolve(payment: &Payment, found: TransactionResolution) -> ResolveTransactionRequest {
    ResolveTransactionRequest {
        payment_id: payment.payment_id.clone(),
        transaction_id: payment.transactions[0].transaction_id.clone(),
        resolution: found.into(),
        reason: "asked the provider's support".to_owned(),
        evidence: "ticket 4711".to_owned(),
        ..ResolveTransactionRequest::default()
    }
}

fn acknowledge(payment: &Payment, kind: OperatorActionKind) -> ResolveTransactionRequest {
    ResolveTransactionRequest {
        acknowledged_kind: kind.into(),
        ..resolve(payment, TransactionResolution::Acknowledged)
    }
}

fn retry(payment: &Payment) -> RetryTransactionRequest {
    RetryTransactionRequest {
        payment_id: payment.payment_id.clone(),
        transaction_id: payment.transactions[0].transaction_id.clone(),
        reason: "the provider is back".to_owned(),
        ..RetryTransactionRequest::default()
    }
}

async fn resolved(client: &Client, request: ResolveTransactionRequest) -> Payment {
    let answer = client.ok(request).await.message;
    let payment = answer.payment.unwrap();
    assert_eq!(
        answer.transaction.unwrap(),
        payment.transactions[0],
        "the transaction that was resolved"
    );
    payment
}

/// The newest entry of a payment, which must tell who decided, and why.
async fn decision(client: &Client, payment: &Payment, found: &str) -> AuditEntry {
    let entry = client.entries_of(&payment.payment_id).await.pop().unwrap();
    assert_eq!(entry.entity_seq, payment.version);
    assert_eq!(entry.details["resolution"], found, "{entry:?}");
    assert_eq!(entry.details["reason"], "asked the provider's support");
    assert_eq!(entry.details["evidence"], "ticket 4711");
    let actor = entry.actor.clone().unwrap();
    assert_eq!((actor.r#type.as_str(), actor.id.len()), ("service", 16));
    let source = entry.source.clone().unwrap();
    assert_eq!(
        source.rpc_method,
        "quittance.v1.AdminService/ResolveTransaction"
    );
    entry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_a_person_finds_the_payment_charged_and_it_goes_on() {
    let world = world_that_gives_up_soon().await;
    let operator = operator(&world).await;
    let payment = given_up(&world, &operator, "tok_timeout_after_charge").await;
    let [opened] = &actions(&operator, false).await[..] else {
        panic!("not one operator action")
    };
    assert_eq!(opened.kind(), OperatorActionKind::RecoveryExhausted);
    assert_eq!(opened.tenant_id, TENANT);
    assert_eq!(
        opened.transaction_id,
        payment.transactions[0].transaction_id
    );
    let opening = operator.entries_of(&payment.payment_id).await;
    let opening = opening
        .iter()
        .find(|entry| entry.entry_id == opened.operator_action_id)
        .expect("the entry that opened it");
    assert_eq!(opening.event_type, "payment.recovery_exhausted");

    // What the person sees at the provider.
    let theirs = world.sandbox.operations(0, 10).operations;
    let mut request = resolve(&payment, TransactionResolution::Succeeded);
    request.provider_reference.clone_from(&theirs[0].payment_id);
    let captured = resolved(&operator, request.clone()).await;
    assert_eq!(captured.state(), PaymentState::Captured);
    assert_eq!(captured.captured(), 800);
    let row = &captured.transactions[0];
    assert_eq!(row.state(), TransactionState::Succeeded);
    assert!(row.resolved_by_operator);
    assert_eq!(row.open_operator_action(), OperatorActionKind::Unspecified);
    let entry = decision(&operator, &captured, "SUCCEEDED").await;
    assert_eq!(entry.event_type, "payment.captured");
    assert_eq!(actions(&operator, false).await, []);
    let [closed] = &actions(&operator, true).await[..] else {
        panic!("not one operator action")
    };
    assert_eq!(closed.operator_action_id, opened.operator_action_id);
    assert_eq!(closed.closed_by_entry_id, entry.entry_id);
    assert_eq!(closed.close_time, entry.occurred_at);

    // It is a payment as any other: it can be refunded, and asking the provider changes nothing but that it confirms the name.
    show_the_truth(&world).await;
    for _ in 0..2 {
        let synced = operator.ok(sync(&captured)).await.message.payment.unwrap();
        assert_eq!(synced.version, captured.version + 1);
    }
    let entries = operator.entries_of(&payment.payment_id).await;
    let told = entries
        .iter()
        .filter(|it| it.event_type == "payment.updated");
    assert_eq!(told.count(), 1);
    let refunded = operator.ok(refund(&captured, 300)).await.message;
    assert_eq!(refunded.payment.unwrap().refunded(), 300);
    let again = operator.refused(request).await;
    again.is(Code::FailedPrecondition, "TRANSACTION_ENDED");
    assert_eq!(again.metadata["state"], "SUCCEEDED");
    assert_eq!(world.books().currencies["EUR"].charges, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_a_person_finds_the_payment_not_processed_and_the_provider_proves_it_later() {
    let world = world_that_gives_up_soon().await;
    let operator = operator(&world).await;
    let payment = given_up(&world, &operator, "tok_timeout_after_charge").await;
    let request = resolve(&payment, TransactionResolution::NotProcessed);
    let failed = resolved(&operator, request).await;
    assert_eq!(failed.state(), PaymentState::Failed);
    assert_eq!(
        failed.failure.as_ref().unwrap().cause,
        "RESOLVED_BY_OPERATOR"
    );
    decision(&operator, &failed, "NOT_PROCESSED").await;
    assert_eq!(actions(&operator, false).await, []);

    // The person was wrong.
    show_the_truth(&world).await;
    let truth = operator.ok(sync(&failed)).await.message.payment.unwrap();
    assert_eq!(
        truth.state(),
        PaymentState::Captured,
        "forward is what is true"
    );
    assert_eq!(truth.captured(), 800);
    let [case] = &actions(&operator, false).await[..] else {
        panic!("not one operator action")
    };
    assert_eq!(case.kind(), OperatorActionKind::ContradictingFact);
    let entries = operator.entries_of(&payment.payment_id).await;
    let actor = entries.last().unwrap().actor.clone().unwrap();
    assert_eq!(actor.r#type, "provider");

    // Somebody tells the customer, and closes the case.
    let request = acknowledge(&truth, OperatorActionKind::ContradictingFact);
    let told = resolved(&operator, request.clone()).await;
    assert_eq!((told.state(), told.captured()), (truth.state(), 800));
    let entry = decision(&operator, &told, "ACKNOWLEDGED").await;
    assert_eq!(entry.event_type, "payment.case_closed");
    assert_eq!(actions(&operator, false).await, []);
    let nothing_open = operator.refused(request).await;
    nothing_open.is(Code::FailedPrecondition, "OPERATOR_ACTION_NOT_OPEN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_a_resolution_that_the_provider_refutes_is_undone() {
    let world = world_that_gives_up_soon().await;
    let operator = operator(&world).await;
    let payment = given_up(&world, &operator, "tok_decline?drop=after").await;
    let request = resolve(&payment, TransactionResolution::Succeeded);
    let captured = resolved(&operator, request).await;
    assert_eq!(captured.state(), PaymentState::Captured);
    show_the_truth(&world).await;
    let truth = operator.ok(sync(&captured)).await.message.payment.unwrap();
    assert_eq!(truth.state(), PaymentState::Declined);
    assert_eq!((truth.captured(), truth.refundable()), (0, 0));
    let [case] = &actions(&operator, false).await[..] else {
        panic!("not one operator action")
    };
    assert_eq!(case.kind(), OperatorActionKind::ContradictingFact);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_a_retry_lets_recovery_find_the_truth_by_itself() {
    let world = world_that_gives_up_soon().await;
    let operator = operator(&world).await;
    let payment = given_up(&world, &operator, "tok_timeout_after_charge").await;
    show_the_truth(&world).await;
    let answer = operator.ok(retry(&payment)).await.message;
    assert_eq!(
        answer.transaction.unwrap().open_operator_action(),
        OperatorActionKind::Unspecified
    );
    let captured = eventually("recovery finds the charge", async || {
        let payment = operator.payment(&payment.payment_id).await;
        (payment.state() == PaymentState::Captured).then_some(payment)
    })
    .await;
    assert!(!captured.transactions[0].resolved_by_operator);
    let entries = operator.entries_of(&payment.payment_id).await;
    let asked = entries
        .iter()
        .find(|entry| entry.event_type == "payment.retry_requested")
        .expect("the request is on record");
    assert_eq!(asked.details["reason"], "the provider is back");
    let [closed] = &actions(&operator, true).await[..] else {
        panic!("not one operator action")
    };
    assert_eq!(closed.closed_by_entry_id, asked.entry_id);
    let charged = world.charged(&captured.transactions[0].transaction_id);
    assert_eq!((charged.charges, charged.amount), (1, 800));
}

/// Another payment at the provider says that it is this transaction.
async fn told_of_another(hooks: &Hooks, payment: &Payment) {
    let other = hooks.client.create(purchase("tok_approve", 800)).await;
    let mut event = hooks.event_about(&other.transactions[0].transaction_id);
    event
        .operation
        .reference
        .clone_from(&payment.transactions[0].transaction_id);
    event.payment_reference = Some(payment.payment_id.clone());
    hooks.tell(&event, "APPLIED").await;
}

fn open_kinds(payment: &Payment) -> Vec<OperatorActionKind> {
    payment.transactions[0].open_operator_actions().collect()
}

/// What may be a second charge is not dealt with by asking about the first again; and the log says what was closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_a_retry_leaves_a_contradiction_open_and_shown_and_the_log_verifies() {
    let hooks = Hooks::start_with(giving_up_soon()).await;
    let operator = operator(&hooks).await;
    let token = "tok_pending_then_approve?settle_after_ms=1";
    let payment = given_up(&hooks, &operator, token).await;
    told_of_another(&hooks, &payment).await;
    let (told, given_up) = (
        OperatorActionKind::ContradictingFact,
        OperatorActionKind::RecoveryExhausted,
    );
    let asked = operator.payment(&payment.payment_id).await;
    assert_eq!(open_kinds(&asked), [told, given_up]);
    show_the_truth(&hooks).await;

    let (id, row) = (&payment.payment_id, &payment.transactions[0].transaction_id);
    let shell = CommandLine::new(&hooks, "payments", &[Role::Admin, Role::PaymentsRead]).await;
    let shown = shell.prints(&["show", id]).await;
    assert!(
        shown.contains("CONTRADICTING_FACT, RECOVERY_EXHAUSTED"),
        "{shown}"
    );
    let retry = ["retry", id, row, "--reason", "the provider is back"];
    shell.prints(&retry).await;
    let captured = eventually("recovery finds the charge", async || {
        let payment = operator.payment(id).await;
        (payment.state() == PaymentState::Captured).then_some(payment)
    })
    .await;
    assert_eq!(open_kinds(&captured), [told]);
    let shown = shell.prints(&["show", id]).await;
    let advice = format!("resolve {id} {row} --acknowledge contradicting-fact --reason …");
    assert!(shown.contains(&advice), "{shown}");
    let [case] = &actions(&operator, false).await[..] else {
        panic!("not one operator action")
    };
    assert_eq!(case.kind(), told);
    let entries = operator.entries_of(id).await;
    let asked = entries
        .iter()
        .find(|entry| entry.event_type == "payment.retry_requested")
        .expect("the request is on record");
    let closed = &asked.details[&format!("case_closed.{row}")];
    assert_eq!(closed, "RECOVERY_EXHAUSTED");

    let auditor = hooks.as_role(TENANT, &[Role::PlatformAudit]).await;
    assert_eq!(verified(&auditor).await.0, []);
    // A row that is closed by an entry that closes another kind is not closed by it.
    let close = "update operator_actions set closed_at = now(), closed_by = $1::text::uuid \
                 where closed_at is null";
    hooks.db.execute(close, &[&asked.entry_id]).await;
    let found = verified(&auditor).await.0;
    let codes: Vec<_> = found.iter().map(|it| it.code.as_str()).collect();
    assert_eq!(codes, ["OPERATOR_ACTION_DIFFERS"], "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_a_wrong_amount_behind_an_open_contradiction_is_decided_and_each_is_closed_by_itself() {
    let hooks = Hooks::start().await;
    let operator = operator(&hooks).await;
    let pending = operator.create(purchase("tok_wrong_amount", 800)).await;
    told_of_another(&hooks, &pending).await;
    let (told, differs) = (
        OperatorActionKind::ContradictingFact,
        OperatorActionKind::AmountMismatch,
    );
    let asked = operator.payment(&pending.payment_id).await;
    assert_eq!(open_kinds(&asked), [told, differs]);
    // What nobody knows is not acknowledged away, whatever else is open.
    let failure = operator.refused(acknowledge(&asked, differs)).await;
    failure.is(Code::FailedPrecondition, "TRANSACTION_OUTCOME_UNKNOWN");
    let request = resolve(&asked, TransactionResolution::Acknowledged);
    let failure = operator.refused(request).await;
    failure.is(Code::InvalidArgument, "INVALID_FIELD");

    let request = resolve(&asked, TransactionResolution::Succeeded);
    let captured = resolved(&operator, request).await;
    assert_eq!(captured.captured(), 800);
    assert_eq!(open_kinds(&captured), [told]);
    let closed = resolved(&operator, acknowledge(&captured, told)).await;
    assert_eq!(open_kinds(&closed), []);
    let every = actions(&operator, true).await;
    assert!(
        every.iter().all(|one| one.close_time.is_some()),
        "{every:?}"
    );
    let auditor = hooks.as_role(TENANT, &[Role::PlatformAudit]).await;
    assert_eq!(verified(&auditor).await.0, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_a_person_says_what_was_really_moved_and_it_is_booked() {
    let world = World::start().await;
    let pending = world.client.create(purchase("tok_wrong_amount", 500)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let mut request = resolve(&pending, TransactionResolution::Succeeded);
    request.amount = Some(quittance_proto::v1::Money {
        minor_units: 501,
        currency_code: "EUR".to_owned(),
    });
    let operator = operator(&world).await;
    let answer = operator.ok(request).await.message;
    let booked = answer.payment.unwrap();
    assert_eq!(
        (booked.state(), booked.captured()),
        (PaymentState::Captured, 501)
    );
    let row = answer.transaction.unwrap();
    assert_eq!(row.amount.unwrap().minor_units, 501);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_a_person_decides_about_a_wrong_amount() {
    let world = World::start().await;
    let operator = operator(&world).await;
    let pending = operator.create(purchase("tok_wrong_amount", 100)).await;
    let [case] = &actions(&operator, false).await[..] else {
        panic!("not one operator action")
    };
    assert_eq!(case.kind(), OperatorActionKind::AmountMismatch);
    let of_kind = |kind: OperatorActionKind| ListOperatorActionsRequest {
        kind: kind.into(),
        payment_id: pending.payment_id.clone(),
        ..ListOperatorActionsRequest::default()
    };
    let exhausted = of_kind(OperatorActionKind::RecoveryExhausted);
    assert_eq!(operator.ok(exhausted).await.operator_actions, []);
    let mismatches = of_kind(OperatorActionKind::AmountMismatch);
    assert_eq!(operator.ok(mismatches).await.operator_actions.len(), 1);
    let request = resolve(&pending, TransactionResolution::Succeeded);
    let captured = resolved(&operator, request).await;
    assert_eq!(captured.captured(), 100, "what was asked for");
    assert_eq!(actions(&operator, false).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_or_still_being_sent_is_not_for_a_person() {
    let world = World::start_with(SiteOptions::default().behind_proxies()).await;
    let provider = &world.links().provider;
    let operator = operator(&world).await;
    let paid = operator.create(purchase("tok_approve", 100)).await;
    let before = world.db.volume().await;
    for found in [
        TransactionResolution::Succeeded,
        TransactionResolution::NotProcessed,
    ] {
        let failure = operator.refused(resolve(&paid, found)).await;
        failure.is(Code::FailedPrecondition, "TRANSACTION_ENDED");
        assert!(!failure.retryable() && !failure.money_may_have_moved());
    }
    let failure = operator.refused(retry(&paid)).await;
    failure.is(Code::FailedPrecondition, "TRANSACTION_ENDED");
    let request = acknowledge(&paid, OperatorActionKind::ContradictingFact);
    let failure = operator.refused(request.clone()).await;
    failure.is(Code::FailedPrecondition, "OPERATOR_ACTION_NOT_OPEN");
    let unseen = ResolveTransactionRequest {
        seen_version: paid.version + 1,
        ..request.clone()
    };
    let failure = operator.refused(unseen).await;
    failure.is(Code::FailedPrecondition, "PAYMENT_CHANGED");
    assert_eq!(failure.metadata["version"], paid.version.to_string());
    let elsewhere = ResolveTransactionRequest {
        transaction_id: paid.payment_id.clone(),
        ..request
    };
    let failure = operator.refused(elsewhere).await;
    failure.is(Code::NotFound, "TRANSACTION_NOT_FOUND");
    assert_eq!(world.db.volume().await, before);

    provider.set(ToClient, Plan::hold_answer_to("POST /").once());
    let slow = operator.clone();
    let sending = tokio::spawn(async move {
        let request = authorization("tok_approve", 200);
        slow.create(request).await
    });
    provider.wait_until_held(ToClient).await;
    let payment_id = eventually("the payment is accepted", async || {
        let sql = "select payment_id::text from payments where state = 'PENDING'";
        let rows = world.db.rows(sql, &[]).await;
        rows.first().map(|row| row.get::<_, String>(0))
    })
    .await;
    let pending = operator.payment(&payment_id).await;
    let request = resolve(&pending, TransactionResolution::NotProcessed);
    for failure in [
        operator.refused(request).await,
        operator.refused(retry(&pending)).await,
    ] {
        failure.is(Code::FailedPrecondition, "TRANSACTION_BEING_SENT");
        assert!(failure.retryable() && !failure.money_may_have_moved());
    }
    provider.release_then(ToClient, Plan::pass());
    let authorized = sending.await.unwrap();
    assert_eq!(authorized.state(), PaymentState::Authorized);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s68_operators_act_within_their_tenant_and_the_platforms_in_all() {
    let world = World::start().await;
    let ours = operator(&world).await;
    let pending = ours.create(purchase("tok_wrong_amount", 100)).await;
    let request = resolve(&pending, TransactionResolution::NotProcessed);

    let acknowledged = acknowledge(&pending, OperatorActionKind::AmountMismatch);
    let failure = ours.refused(acknowledged).await;
    failure.is(Code::FailedPrecondition, "TRANSACTION_OUTCOME_UNKNOWN");

    let reader = world.as_role(TENANT, &TENANT_ROLES).await;
    let list = ListOperatorActionsRequest::default;
    for failure in [
        reader.refused(list()).await,
        reader.refused(request.clone()).await,
        reader.refused(retry(&pending)).await,
    ] {
        failure.is(Code::PermissionDenied, "ROLE_REQUIRED");
        assert_eq!(failure.metadata["role"], "admin");
    }
    let stranger = world.as_role("globex", &[Role::Admin]).await;
    assert_eq!(actions(&stranger, true).await, []);
    let failure = stranger.refused(request.clone()).await;
    failure.is(Code::NotFound, "PAYMENT_NOT_FOUND");
    let named = ResolveTransactionRequest {
        tenant_id: TENANT.to_owned(),
        ..request.clone()
    };
    let failure = stranger.refused(named.clone()).await;
    failure.is(Code::PermissionDenied, "ROLE_REQUIRED");
    assert_eq!(failure.metadata["role"], "platform.admin");
    let failure = ours.refused(get(&stranger_payment(&world).await)).await;
    failure.is(Code::NotFound, "PAYMENT_NOT_FOUND");

    let platform = world.as_role("platform", &[Role::PlatformAdmin]).await;
    let tenants: Vec<_> = actions(&platform, false).await;
    let tenants: Vec<_> = tenants.iter().map(|one| one.tenant_id.as_str()).collect();
    assert_eq!(tenants, [TENANT, "globex"]);
    let failure = platform.refused(request).await;
    failure.is(Code::NotFound, "PAYMENT_NOT_FOUND");
    let closed = platform.ok(named).await.message.payment.unwrap();
    assert_eq!(closed.tenant_id, TENANT);
    decision(&ours, &closed, "NOT_PROCESSED").await;
    assert_eq!(actions(&ours, false).await, []);
    assert_eq!(actions(&platform, false).await.len(), 1);
}

/// A payment of another tenant that waits for a person.
async fn stranger_payment(world: &World) -> String {
    let stranger = world.other_tenant().await;
    let pending = stranger.create(purchase("tok_wrong_amount", 7)).await;
    pending.payment_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s24_the_command_line_lists_shows_and_resolves() {
    let world = World::start().await;
    let shell = CommandLine::new(&world, "payments", &[Role::Admin, Role::PaymentsRead]).await;
    assert_eq!(
        shell.prints(&["actions"]).await.trim(),
        "No operator actions."
    );
    let client = &world.client;
    let pending = client.create(purchase("tok_wrong_amount", 1250)).await;
    let (id, row) = (
        pending.payment_id.as_str(),
        pending.transactions[0].transaction_id.as_str(),
    );
    let listed = shell
        .prints(&["actions", "--kind", "amount-mismatch"])
        .await;
    assert!(listed.contains(id) && listed.contains(row), "{listed}");
    let shown = shell.prints(&["show", id]).await;
    for part in [
        "PENDING",
        "12.50 EUR",
        "AMOUNT_MISMATCH",
        &format!("quittance payments resolve {id} {row} --succeeded|--not-processed --reason …"),
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let reason = ["--reason", "seen in the provider's dashboard"];
    let evidence = ["--evidence", "statement of 2 May"];
    let not_processed = [&["resolve", id, row, "--not-processed"], &reason[..]].concat();
    let resolved = shell
        .prints(&[&not_processed[..], &evidence].concat())
        .await;
    assert!(
        resolved.contains("Recorded.") && resolved.contains("RESOLVED_BY_OPERATOR"),
        "{resolved}"
    );
    let of_payment = ListEntriesRequest {
        payment_id: id.to_owned(),
        ..ListEntriesRequest::default()
    };
    let entry = client.entries(of_payment).await.into_iter();
    let entry = entry
        .rev()
        .find(|entry| entry.details.contains_key("resolution"))
        .unwrap();
    assert_eq!(entry.details["reason"], reason[1]);
    assert_eq!(entry.details["evidence"], evidence[1]);
    let listed = shell.prints(&["actions", "--all", "--payment", id]).await;
    assert!(listed.contains(&entry.entry_id), "{listed}");

    let said = shell.fails(3, &not_processed).await;
    for part in [
        "TRANSACTION_ENDED",
        "What to do: Read the payment.",
        "Trace: ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = shell
        .fails(3, &[&["retry", id, "no-uuid"], &reason[..]].concat())
        .await;
    assert!(
        said.contains("INVALID_FIELD") && said.contains("\n  transaction_id must be a UUID"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_says_what_is_wrong_and_never_the_key() {
    let world = World::start().await;
    let paid = world.client.create(purchase("tok_approve", 100)).await;
    let id = paid.payment_id.as_str();
    // Whoever may only read sees the payment.
    let reader = CommandLine::new(&world, "payments", &[Role::PaymentsRead]).await;
    assert!(reader.prints(&["show", id]).await.contains("CAPTURED"));
    let said = reader.fails(3, &["actions"]).await;
    assert!(
        said.contains("ROLE_REQUIRED: the caller lacks the role admin"),
        "{said}"
    );
    reader.fails(2, &["resolve", id, id, "--reason", "r"]).await;
    let said = reader.fails(2, &["show", id, "--api-key", "qk_1"]).await;
    assert!(said.contains("unexpected argument"), "{said}");

    let nowhere = ["show", id, "--address", "https://localhost:1"];
    let said = reader.fails(4, &nowhere).await;
    assert!(
        said.contains("cannot connect to https://localhost:1"),
        "{said}"
    );
    let said = reader
        .fails(1, &["show", id, "--address", "http://payments.example"])
        .await;
    assert!(said.contains("use https://"), "{said}");
    let said = reader
        .fails(1, &["show", id, "--api-key-file", "/nonexistent"])
        .await;
    assert!(said.contains("cannot read /nonexistent"), "{said}");

    std::fs::write(&reader.key_file, "qk_0123456789abcdef_wrongsecret").unwrap();
    let said = reader.fails(3, &["show", id]).await;
    assert!(
        said.contains("INVALID_CREDENTIALS") && !said.contains("wrongsecret"),
        "{said}"
    );
    let elsewhere = TempDir::new().unwrap();
    let other_ca = elsewhere.path().join("ca.pem");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&other_ca, other.cert.pem()).unwrap();
    let other_ca = other_ca.to_str().unwrap();
    let said = reader.fails(4, &["show", id, "--ca-file", other_ca]).await;
    assert!(said.contains("cannot connect"), "{said}");
}
