//! The sandbox adapter against the real sandbox over HTTP: every token, from the first send to the
//! books.

use std::time::Duration;

use crate::support::builders::{self, eur};
use quittance_domain::decline::{Cause, DeclineCode};
use quittance_domain::ids::ProviderReference;
use quittance_domain::payment::Payment;
use quittance_domain::ports::{LookupQuery, Provider as _, ProviderRules as _};
use quittance_domain::transaction::{
    Fact, FactKind, LookupOutcome, OperationKind, PreparedRequest, SendOutcome, Transaction,
};
use quittance_providers::config::{ProviderAccountConfig, Secret};
use quittance_providers::sandbox::Sandbox;
use quittance_sandbox::{SandboxConfig, SandboxHandle, Token};

struct World {
    provider: SandboxHandle,
    account: Sandbox,
    /// The same, for what does not answer: it is not waited for long.
    hurried: Sandbox,
}

/// One transaction, and the bytes that its sends carry.
struct Asked {
    transaction: Transaction,
    request: PreparedRequest,
}

/// With limits for making a connection and for the whole call, in milliseconds.
fn account(base_url: String, connect: u64, total: u64) -> Sandbox {
    let config = ProviderAccountConfig {
        connect_timeout_ms: connect,
        total_timeout_ms: total,
        allow_plaintext: true,
        ..ProviderAccountConfig::new(
            "sandbox",
            quittance_providers::sandbox::KIND,
            base_url,
            Secret::new("key"),
        )
    };
    Sandbox::new(&config, |_| {}).unwrap()
}

impl World {
    async fn start() -> Self {
        let mut config = SandboxConfig::new("key");
        config.slow = Duration::from_millis(50);
        let provider = quittance_sandbox::Sandbox::start(config).await.unwrap();
        Self {
            account: account(provider.base_url(), 50_000, 100_000),
            // Below the sandbox's default of 60 s for hanging.
            hurried: account(provider.base_url(), 7_000, 8_000),
            provider,
        }
    }

    fn ask(&self, kind: OperationKind, payment: &Payment, amount: i64) -> Asked {
        let transaction = builders::transaction(payment, kind, amount);
        let asked = builders::operation(kind, payment, &transaction, &[]);
        let request = self.account.prepare(&asked).unwrap();
        Asked {
            transaction,
            request,
        }
    }

    fn confirm(&self, payment: &Payment, opening: &Asked, challenge: &str) -> PreparedRequest {
        let parameters = [("challenge".to_owned(), challenge.to_owned())];
        let kind = OperationKind::Confirm;
        let asked = builders::operation(kind, payment, &opening.transaction, &parameters);
        self.account.prepare(&asked).unwrap()
    }

    async fn send(&self, asked: &Asked, send: u32) -> SendOutcome {
        self.account.send(&asked.request, send).await.outcome
    }

    /// The first send of a token, which may get no answer.
    async fn send_first(&self, token: Token, asked: &Asked) -> SendOutcome {
        if first(token) == First::Unknown(Cause::ResponseTimeout) {
            return self.hurried.send(&asked.request, 1).await.outcome;
        }
        self.send(asked, 1).await
    }

    async fn lookup(&self, asked: &Asked) -> LookupOutcome {
        let query = LookupQuery {
            transaction: asked.transaction.id,
            kind: asked.transaction.kind,
            origin: asked.transaction.origin,
            provider_reference: None,
            payment_reference: None,
        };
        self.account.lookup(&query).await
    }

    async fn found(&self, asked: &Asked) -> FactKind {
        match self.lookup(asked).await {
            LookupOutcome::Found(fact) => fact.kind,
            other => panic!("{other:?}"),
        }
    }

    /// How often, and how much, the sandbox really moved for a transaction.
    fn charged(&self, asked: &Asked) -> (u64, i128) {
        let charged = self.provider.charged(&asked.transaction.id.to_string());
        (charged.charges, charged.amount)
    }

    /// A payment opened by an approved operation of this kind.
    async fn opened(&self, token: &str, kind: OperationKind) -> Payment {
        let mut payment = builders::payment(token, None);
        let opening = self.ask(kind, &payment, 1000);
        let fact = answered(self.send(&opening, 1).await);
        assert!(is_approved(&fact.kind, 1000), "{token}: {:?}", fact.kind);
        payment.provider_reference = fact.payment_reference;
        payment
    }
}

fn answered(outcome: SendOutcome) -> Fact {
    match outcome {
        SendOutcome::Answered(fact) => fact,
        other => panic!("{other:?}"),
    }
}

fn is_approved(kind: &FactKind, minor_units: i64) -> bool {
    matches!(kind, FactKind::Approved { amount, .. } if *amount == Some(eur(minor_units)))
}

fn declined(kind: &FactKind) -> Option<DeclineCode> {
    match kind {
        FactKind::Declined(decline) => Some(decline.code),
        _ => None,
    }
}

/// What the first send of a token proves; then a resend, or else a lookup, always ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Approved,
    WrongAmount,
    Declined(DeclineCode),
    Pending(Option<DeclineCode>),
    RequiresAction,
    NotSent(Cause),
    Unknown(Cause),
}

fn first(token: Token) -> First {
    match token {
        Token::Approve
        | Token::Slow
        | Token::DuplicateWebhook
        | Token::WebhookOutOfOrder
        | Token::CaptureFails
        | Token::RefundFailsLater
        | Token::Chargeback => First::Approved,
        Token::WrongAmount => First::WrongAmount,
        Token::Decline => First::Declined(DeclineCode::DoNotHonor),
        Token::InsufficientFunds => First::Declined(DeclineCode::InsufficientFunds),
        Token::ExpiredCard => First::Declined(DeclineCode::CardExpired),
        Token::LostCard => First::Declined(DeclineCode::CardLostOrStolen),
        Token::Fraud => First::Declined(DeclineCode::FraudSuspected),
        Token::RequiresAction => First::RequiresAction,
        Token::PendingThenApprove => First::Pending(None),
        Token::PendingThenDecline => First::Pending(Some(DeclineCode::DoNotHonor)),
        Token::TimeoutBeforeCharge | Token::TimeoutAfterCharge => {
            First::Unknown(Cause::ResponseTimeout)
        }
        Token::ResetAfterCharge => First::Unknown(Cause::ConnectionLost),
        Token::Error500ThenApprove => First::Unknown(Cause::ProviderError),
        Token::RateLimited => First::NotSent(Cause::RateLimited),
        Token::MalformedResponse => First::Unknown(Cause::UnreadableResponse),
    }
}

async fn plays(world: &World, token: Token, kind: OperationKind) {
    let payment = builders::payment(token.name(), None);
    let asked = world.ask(kind, &payment, 1000);
    let name = token.name();
    let not_found = LookupOutcome::NotFound {
        authoritative: true,
    };
    assert_eq!(world.lookup(&asked).await, not_found, "{name}");
    let outcome = world.send_first(token, &asked).await;
    match first(token) {
        First::Approved => {
            assert!(is_approved(&answered(outcome).kind, 1000), "{name}");
            assert!(is_approved(&world.found(&asked).await, 1000), "{name}");
            assert_eq!(world.charged(&asked), (1, 1000), "{name}");
        }
        First::WrongAmount => {
            assert!(is_approved(&answered(outcome).kind, 1001), "{name}");
            assert!(is_approved(&world.found(&asked).await, 1001), "{name}");
        }
        First::Declined(code) => {
            assert_eq!(declined(&answered(outcome).kind), Some(code), "{name}");
            assert_eq!(declined(&world.found(&asked).await), Some(code), "{name}");
            assert_eq!(world.charged(&asked), (0, 0), "{name}");
        }
        First::Pending(code) => {
            assert_eq!(answered(outcome).kind, FactKind::Pending, "{name}");
            let found = world.found(&asked).await;
            assert_eq!(declined(&found), code, "{name}");
            assert_eq!(is_approved(&found, 1000), code.is_none(), "{name}");
        }
        First::RequiresAction => {
            let action = answered(outcome).kind;
            assert!(matches!(action, FactKind::RequiresAction(_)), "{name}");
            assert_eq!(world.found(&asked).await, action, "{name}");
        }
        First::NotSent(cause) => {
            assert_eq!(outcome, SendOutcome::NotSent(cause), "{name}");
            assert_eq!(world.charged(&asked), (0, 0), "{name}");
            assert!(
                is_approved(&answered(world.send(&asked, 2).await).kind, 1000),
                "{name}"
            );
        }
        First::Unknown(cause) => {
            assert_eq!(outcome, SendOutcome::Unknown(cause), "{name}");
            let resent = world.send(&asked, 2).await;
            if token == Token::MalformedResponse {
                assert_eq!(resent, outcome, "{name}: the stored answer is as broken");
            } else {
                assert!(is_approved(&answered(resent).kind, 1000), "{name}");
            }
            assert!(is_approved(&world.found(&asked).await, 1000), "{name}");
            assert_eq!(
                world.charged(&asked),
                (1, 1000),
                "{name}: not charged exactly once"
            );
        }
    }
}

#[tokio::test]
async fn every_token_plays_its_scenario_as_purchase_and_as_authorization() {
    let world = World::start().await;
    let kinds = [OperationKind::Purchase, OperationKind::Authorize];
    let world = &world;
    let plays = Token::ALL
        .into_iter()
        .flat_map(|token| kinds.map(|kind| plays(world, token, kind)));
    futures::future::join_all(plays).await;
}

#[tokio::test]
async fn an_authorization_is_captured_in_parts_and_refunded() {
    let world = World::start().await;
    let payment = world.opened("tok_approve", OperationKind::Authorize).await;
    for (kind, amount) in [
        (OperationKind::Capture, 300),
        (OperationKind::Capture, 200),
        (OperationKind::Refund, 450),
    ] {
        let asked = world.ask(kind, &payment, amount);
        let fact = answered(world.send(&asked, 1).await);
        assert!(is_approved(&fact.kind, amount), "{kind}");
        assert_eq!(fact.payment_reference, payment.provider_reference, "{kind}");
        assert_eq!(
            answered(world.send(&asked, 2).await),
            fact,
            "{kind}: another answer"
        );
        assert_eq!(world.charged(&asked), (1, i128::from(amount)), "{kind}");
    }
    let too_much = world.ask(OperationKind::Capture, &payment, 501);
    let refused = SendOutcome::NotSent(Cause::RequestRefused);
    assert_eq!(world.send(&too_much, 1).await, refused);
    let void = world.ask(OperationKind::Void, &payment, 0);
    assert!(is_approved(&answered(world.send(&void, 1).await).kind, 500));
    let again = world.ask(OperationKind::Void, &payment, 0);
    assert_eq!(world.send(&again, 1).await, refused);
}

#[tokio::test]
async fn the_answer_to_a_capture_void_or_refund_can_be_lost_without_doing_it_twice() {
    let world = World::start().await;
    for (token, opening, kind) in [
        (
            "tok_approve?capture.reset=after",
            OperationKind::Authorize,
            OperationKind::Capture,
        ),
        (
            "tok_approve?void.reset=after",
            OperationKind::Authorize,
            OperationKind::Void,
        ),
        (
            "tok_approve?refund.reset=after",
            OperationKind::Purchase,
            OperationKind::Refund,
        ),
    ] {
        let payment = world.opened(token, opening).await;
        let asked = world.ask(kind, &payment, 1000);
        let lost = SendOutcome::Unknown(Cause::ConnectionLost);
        assert_eq!(world.send(&asked, 1).await, lost, "{token}");
        assert!(is_approved(&world.found(&asked).await, 1000), "{token}");
        assert!(
            is_approved(&answered(world.send(&asked, 2).await).kind, 1000),
            "{token}"
        );
        assert_eq!(world.charged(&asked), (1, 1000), "{token}");
    }
}

#[tokio::test]
async fn a_challenge_is_confirmed_under_a_key_of_its_own() {
    let world = World::start().await;
    for (challenge, code) in [
        ("passed", None),
        ("failed", Some(DeclineCode::AuthenticationFailed)),
    ] {
        let mut payment = builders::payment("tok_requires_action", None);
        let opening = world.ask(OperationKind::Authorize, &payment, 1000);
        payment.provider_reference = answered(world.send(&opening, 1).await).payment_reference;

        let nonsense = world.confirm(&payment, &opening, "maybe");
        let refused = world.account.send(&nonsense, 1).await.outcome;
        assert_eq!(refused, SendOutcome::NotSent(Cause::RequestRefused));

        let confirm = world.confirm(&payment, &opening, challenge);
        let fact = answered(world.account.send(&confirm, 1).await.outcome);
        assert_eq!(declined(&fact.kind), code, "{challenge}");
        assert_eq!(is_approved(&fact.kind, 1000), code.is_none(), "{challenge}");
        assert_eq!(
            answered(world.account.send(&confirm, 2).await.outcome),
            fact
        );
        assert_eq!(world.found(&opening).await, fact.kind);

        // Other parameters under the same key: something was processed, so nothing is disproved.
        let opposite = if challenge == "passed" {
            "failed"
        } else {
            "passed"
        };
        let other = world.confirm(&payment, &opening, opposite);
        let unknown = SendOutcome::Unknown(Cause::RequestInProgress);
        assert_eq!(world.account.send(&other, 1).await.outcome, unknown);
    }
}

#[tokio::test]
async fn a_payment_that_waits_for_the_customer_can_be_voided() {
    let world = World::start().await;
    let mut payment = builders::payment("tok_requires_action", None);
    let opening = world.ask(OperationKind::Authorize, &payment, 1000);
    payment.provider_reference = answered(world.send(&opening, 1).await).payment_reference;
    let void = world.ask(OperationKind::Void, &payment, 0);
    let fact = answered(world.send(&void, 1).await);
    assert!(matches!(fact.kind, FactKind::Approved { .. }));
    let failed = FactKind::Failed(Cause::ProviderReportedFailure);
    assert_eq!(world.found(&opening).await, failed);
}

#[tokio::test]
async fn operations_that_fail_later_are_found_failed() {
    let world = World::start().await;
    let failed = FactKind::Failed(Cause::ProviderReportedFailure);

    let payment = world
        .opened("tok_capture_fails", OperationKind::Authorize)
        .await;
    let capture = world.ask(OperationKind::Capture, &payment, 1000);
    assert_eq!(
        answered(world.send(&capture, 1).await).kind,
        FactKind::Pending
    );
    assert_eq!(world.found(&capture).await, failed);

    let payment = world
        .opened("tok_refund_fails_later", OperationKind::Purchase)
        .await;
    let refund = world.ask(OperationKind::Refund, &payment, 400);
    assert!(is_approved(
        &answered(world.send(&refund, 1).await).kind,
        400
    ));
    assert!(is_approved(&world.found(&refund).await, 400));
    assert_eq!(world.found(&refund).await, failed);
    assert_eq!(world.charged(&refund), (0, 0));
}

#[tokio::test]
async fn a_wrong_key_or_a_stopped_sandbox_sends_nothing() {
    let world = World::start().await;
    let payment = builders::payment("tok_approve", None);
    let asked = world.ask(OperationKind::Purchase, &payment, 1000);
    world.provider.pause_accepting().await;
    let refused = SendOutcome::NotSent(Cause::ConnectionRefused);
    assert_eq!(world.send(&asked, 1).await, refused);
    world.provider.resume().await.unwrap();
    assert!(is_approved(
        &answered(world.send(&asked, 2).await).kind,
        1000
    ));
    assert_eq!(world.charged(&asked), (1, 1000));

    let unknown = ProviderReference::parse("spay_00000000000000000000000000000000");
    let stranger = builders::payment("tok_approve", Some(unknown.unwrap().as_str()));
    let capture = world.ask(OperationKind::Capture, &stranger, 1);
    let refused = SendOutcome::NotSent(Cause::RequestRefused);
    assert_eq!(world.send(&capture, 1).await, refused);
    let nonsense = builders::payment("tok_nonsense", None);
    let purchase = world.ask(OperationKind::Purchase, &nonsense, 1);
    assert_eq!(world.send(&purchase, 1).await, refused);
    world.provider.shutdown().await;
}
