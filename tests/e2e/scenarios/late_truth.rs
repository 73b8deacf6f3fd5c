//! Requests that arrive, and answers that are told, after we have given up: whatever was said in between, what is true is
//! applied, and a person hears of it.

use quittance_proto::v1::{
    CreatePaymentRequest, OperatorActionKind, Payment, PaymentState, ResolveTransactionRequest,
    TransactionResolution, TransactionState,
};
use quittance_server::auth::Role;
use quittance_test_support::{Direction, Plan};
use serde_json::json;

use crate::harness::adyen::{AdyenWorld, UNHEARD, adyen_authorization, item};
use crate::harness::process::ServerProcess;
use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::webhooks::Hooks;
use crate::harness::{
    Amounts as _, Cases as _, Keyed as _, Links, SiteOptions, World, authorization, eventually,
    get_by_key, purchase, sync, void,
};

use Direction::{ToClient, ToServer};

/// Where a request to the provider that moves money begins.
const REQUEST: &str = "POST /";

/// A server whose request to the provider is held on its way, and another that hears of webhooks and recovers.
struct Held {
    hooks: Hooks,
    links: Links,
    sender: ServerProcess,
}

impl Held {
    async fn start(options: SiteOptions) -> Self {
        let hooks = Hooks::start_with(options).await;
        let links = Links::between(&hooks.all_settings(), hooks.sandbox.addr()).await;
        let mut settings = hooks.all_settings();
        settings.extend(links.settings());
        // It only sends: the other one recovers.
        settings.push(("recovery.enabled", false.into()));
        let sender = ServerProcess::start(&hooks, settings).await;
        Self {
            hooks,
            links,
            sender,
        }
    }

    /// A payment whose request was given up on, and may still arrive.
    async fn given_up_on(&self, request: CreatePaymentRequest) -> Payment {
        let plan = Plan::hold_at(REQUEST).once();
        self.links.provider.set(ToServer, plan);
        let pending = self.sender.client.create(request).await;
        assert_eq!(pending.state(), PaymentState::Pending);
        assert_eq!(self.hooks.books().counts.operations, 0, "not there yet");
        pending
    }

    /// The payment, once nothing is pending: nobody sends it any more, and it was too late to.
    async fn ends_too_late(&self, payment: &Payment) -> Payment {
        eventually("it is too late", async || {
            // In one: between the two it would be sent again.
            let sql = "update transactions set execute_before = now(), \
                       lease_until = now() - interval '1 second', next_step_at = now() \
                       where lease_until > now() and next_step_at is distinct from lease_until";
            self.hooks.db.execute(sql, &[]).await;
            let payment = self.hooks.client.payment(&payment.payment_id).await;
            (payment.state() != PaymentState::Pending).then_some(payment)
        })
        .await
    }

    /// The request arrives after all, and the provider tells what it made of it.
    async fn arrives(&self, payment: &Payment) {
        self.arrives_untold(payment).await;
        let event = self
            .hooks
            .event_about(&payment.transactions[0].transaction_id);
        self.hooks.tell(&event, "APPLIED").await;
    }

    /// The request arrives after all, and nobody hears of it.
    async fn arrives_untold(&self, payment: &Payment) {
        self.links.provider.release_then(ToServer, Plan::swallow());
        let transaction = &payment.transactions[0].transaction_id;
        eventually("the provider has carried it out", async || {
            (self.hooks.charged(transaction).charges == 1).then_some(())
        })
        .await;
    }
}

/// The payment after a fact that contradicts what was said of it: a person is to tell whoever heard the contrary.
async fn contradicted(world: &World, payment: &Payment, state: PaymentState) -> Payment {
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(after.state(), state, "forward is what is true");
    let opening = &after.transactions[0];
    assert_eq!(
        opening.open_operator_action(),
        OperatorActionKind::ContradictingFact
    );
    assert_eq!(after.failure, None);
    let last = world.client.entries_of(&payment.payment_id).await.pop();
    assert_eq!(last.unwrap().actor.unwrap().r#type, "provider");
    after
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_a_request_that_arrives_after_its_payment_has_failed_is_applied_and_reported() {
    let held = Held::start(SiteOptions::impatient().recovering()).await;
    let pending = held.given_up_on(purchase("tok_approve", 700)).await;
    let failed = held.ends_too_late(&pending).await;
    assert_eq!(failed.state(), PaymentState::Failed);
    assert_eq!(failed.failure.as_ref().unwrap().cause, "NOT_PROCESSED");

    held.arrives(&pending).await;
    let paid = contradicted(&held.hooks, &pending, PaymentState::Captured).await;
    assert_eq!((paid.captured(), paid.transactions[0].attempts), (700, 1));
    held.hooks.everything_agrees().await;
}

/// Its webhook was lost: whoever asks finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_a_success_after_its_payment_has_failed_is_found_by_asking() {
    let held = Held::start(SiteOptions::impatient().recovering()).await;
    let pending = held.given_up_on(purchase("tok_approve", 700)).await;
    let failed = held.ends_too_late(&pending).await;
    assert_eq!(failed.state(), PaymentState::Failed);
    // As long as there is nothing, asking changes nothing.
    let asked = held.hooks.client.ok(sync(&failed)).await.message.payment;
    assert_eq!(asked, Some(failed.clone()));

    held.arrives_untold(&pending).await;
    let asked = held.hooks.client.ok(sync(&failed)).await.message.payment;
    assert_eq!(asked.unwrap().state(), PaymentState::Captured);
    let paid = contradicted(&held.hooks, &pending, PaymentState::Captured).await;
    assert_eq!((paid.captured(), paid.transactions[0].attempts), (700, 1));
    held.hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_a_request_that_arrives_after_its_payment_was_voided_is_applied_and_reported() {
    let held = Held::start(SiteOptions::impatient().recovering()).await;
    let pending = held.given_up_on(authorization("tok_approve", 700)).await;
    held.hooks.client.ok(void(&pending)).await;
    let voided = eventually("it is voided without having been sent", async || {
        held.hooks.let_unanswered_leases_run_out().await;
        let payment = held.hooks.client.payment(&pending.payment_id).await;
        (payment.state() != PaymentState::Pending).then_some(payment)
    })
    .await;
    assert_eq!(voided.state(), PaymentState::Voided);

    held.arrives(&pending).await;
    let authorized = contradicted(&held.hooks, &pending, PaymentState::Authorized).await;
    assert_eq!(authorized.capturable(), 700);
    // The person releases it.
    let released = held.hooks.client.ok(void(&authorized)).await;
    let released = released.message.payment.unwrap();
    assert_eq!(released.state(), PaymentState::Voided);
    let books = held.hooks.books();
    let euro = &books.currencies["EUR"];
    assert_eq!((euro.authorized, euro.voided), (700, 700));
    assert_eq!((books.counts.authorizations, books.counts.voids), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_a_request_that_arrives_after_a_person_called_it_not_processed_is_applied_and_reported()
{
    let held = Held::start(SiteOptions::impatient()).await;
    let pending = held.given_up_on(purchase("tok_approve", 700)).await;
    held.hooks.let_leases_run_out().await;
    let mut roles = TENANT_ROLES.to_vec();
    roles.push(Role::Admin);
    let operator = held.hooks.as_role(TENANT, &roles).await;
    let request = ResolveTransactionRequest {
        payment_id: pending.payment_id.clone(),
        transaction_id: pending.transactions[0].transaction_id.clone(),
        resolution: TransactionResolution::NotProcessed.into(),
        reason: "not on their statement".to_owned(),
        ..ResolveTransactionRequest::default()
    };
    let failed = operator.ok(request).await.message.payment.unwrap();
    assert_eq!(failed.state(), PaymentState::Failed);

    held.arrives(&pending).await;
    let paid = contradicted(&held.hooks, &pending, PaymentState::Captured).await;
    assert_eq!(paid.captured(), 700);
    held.hooks.everything_agrees().await;
}

/// An answer that is late, but not too late: whoever gave up on it first has sent nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_a_late_answer_after_a_webhook_and_a_lookup_have_told_it_changes_nothing() {
    let held = Held::start(SiteOptions::default()).await;
    let (hooks, provider) = (&held.hooks, &held.links.provider);
    provider.set(ToClient, Plan::hold_answer_to(REQUEST).once());
    let client = held.sender.client.clone();
    let request = purchase("tok_approve", 700).key("late");
    let call = tokio::spawn(async move { client.create(request).await });
    provider.wait_until_held(ToClient).await;
    let event = eventually("the provider has charged", async || hooks.events().pop()).await;
    let pending = hooks.client.ok(get_by_key("late")).await.message.payment;
    let pending = pending.unwrap();
    let found = hooks.client.ok(sync(&pending)).await.message.payment;
    let found = found.unwrap();
    assert_eq!(found.state(), PaymentState::Captured, "found by a lookup");
    hooks.tell(&event, "IGNORED").await;
    assert!(!call.is_finished(), "its answer is still on its way");
    provider.release_then(ToClient, Plan::pass());
    let answered = call.await.unwrap();
    assert_eq!(
        (answered.captured(), answered.payment_id),
        (700, found.payment_id)
    );
    let entries = hooks.client.entries_of(&pending.payment_id).await;
    let told: Vec<_> = entries.iter().map(|it| it.event_type.as_str()).collect();
    assert_eq!(
        told,
        [
            "payment.accepted",
            "payment.captured",
            "payment.attempt_ended"
        ],
        "the answer is on record, and no news"
    );
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s22_a_success_of_adyen_s_after_each_end_is_applied_and_reported() {
    for (event, success, ends) in [
        ("EXPIRE", "true", PaymentState::Expired),
        ("OFFER_CLOSED", "true", PaymentState::Failed),
        ("AUTHORISATION", "false", PaymentState::Declined),
    ] {
        let world = AdyenWorld::start().await;
        let request = adyen_authorization(UNHEARD, 900);
        let pending = world.client.create(request).await;
        assert_eq!(pending.state(), PaymentState::Pending);
        let opening = world.adyen.only("/payments");
        let mut told = item(event, &opening, None);
        told["success"] = json!(success);
        world.tell(told).await;
        eventually(&format!("{event} has ended it"), async || {
            let payment = world.client.payment(&pending.payment_id).await;
            (payment.state() == ends).then_some(())
        })
        .await;

        world.tell(item("AUTHORISATION", &opening, None)).await;
        eventually(&format!("{event} was not the last word"), async || {
            let payment = world.client.payment(&pending.payment_id).await;
            let opening = &payment.transactions[0];
            (opening.state() == TransactionState::Succeeded).then_some(())
        })
        .await;
        if event == "EXPIRE" {
            // As in order: what ran out was authorized before, nothing is left of it, and nobody is asked.
            let expired = world.client.payment(&pending.payment_id).await;
            assert_eq!((expired.state(), expired.capturable()), (ends, 0));
            let asked = expired.transactions[0].open_operator_action();
            assert_eq!(asked, OperatorActionKind::Unspecified);
            continue;
        }
        let authorized = contradicted(&world, &pending, PaymentState::Authorized).await;
        assert_eq!(authorized.capturable(), 900, "{event}");
    }
}
