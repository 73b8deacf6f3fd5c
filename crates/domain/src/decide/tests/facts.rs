//! What facts do: the same path for answers and lookups, whatever state they find.

use super::*;
use crate::change::OperatorActionKind;
use crate::decide;
use crate::decline::{Cause, DeclineCode};
use crate::payment::{NextAction, PaymentState};

pub(super) fn action() -> FactKind {
    FactKind::RequiresAction(NextAction {
        redirect_url: Sensitive::new("https://issuer.example/3ds".to_owned()),
        data: Sensitive::default(),
        may_take_days: false,
    })
}

impl World {
    fn action(&self) -> Option<OperatorActionKind> {
        self.changes
            .last()
            .unwrap()
            .operator_action
            .map(|action| action.kind)
    }

    fn start_attempt(&mut self, transaction: TransactionId) {
        self.decide(|record, rules, stamp| try_start(record, transaction, rules, stamp).ok_or(()))
            .unwrap();
    }
}

#[test]
fn s01_a_purchase_is_captured_at_once() {
    let world = World::captured(1_234);
    let payment = &world.record.payment;
    assert_eq!(payment.state, PaymentState::Captured);
    assert_eq!(
        (payment.amounts.authorized, payment.amounts.captured),
        (1_234, 1_234)
    );
    assert_eq!(payment.version, 2);
    assert_eq!(
        world.record.transactions[0].request, None,
        "the stored request is wiped"
    );
}

#[test]
fn a_decline_is_an_outcome_with_its_code() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(declined());
    assert_eq!(world.record.payment.state, PaymentState::Declined);
    assert_eq!(
        world.record.payment.decline.as_ref().unwrap().code,
        DeclineCode::InsufficientFunds
    );
    assert_eq!(
        world.changes[1].entry.cause.as_deref(),
        Some("INSUFFICIENT_FUNDS")
    );
}

#[test]
fn i3_an_unknown_outcome_stays_pending() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert!(world.record.transactions[0].ever_unknown);
    assert!(
        world.record.transactions[0].request.is_some(),
        "the bytes are kept for a resend"
    );
}

#[test]
fn i4_unknown_is_sticky() {
    for refusal in [
        Cause::ConnectionRefused,
        Cause::RequestRefused,
        Cause::RateLimited,
        Cause::CredentialsRefused,
    ] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        let transaction = world.newest();
        let sent = world.attempt().request_digest;
        world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
        world.start_attempt(transaction);
        assert_eq!(world.attempt().request_digest, sent, "I2: the same bytes");
        world.report(SendOutcome::NotSent(refusal));
        assert_eq!(
            world.record.payment.state,
            PaymentState::Pending,
            "{refusal}"
        );
    }
}

#[test]
fn a_request_that_was_given_up_on_keeps_its_lease_since_it_may_still_arrive() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let lease = world.record.transactions[0].lease_until;
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    assert_eq!(world.record.transactions[0].lease_until, lease);
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    assert_eq!(world.record.transactions[0].lease_until, None);
}

#[test]
fn i3_nothing_is_given_up_or_sent_again_while_a_sender_may_be_alive() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.tampered = true;
    let id = world.newest();
    world.record.transactions[0].lease_until = Some(start() + TimeDelta::days(1));
    let given_up = world.decide(|record, _, stamp| try_give_up(record, id, stamp).ok_or(()));
    assert_eq!(given_up, Err(()));
    let resent = world.decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()));
    assert_eq!(resent, Err(()));
}

#[test]
fn s13_a_refused_connection_waits_and_a_refused_request_fails() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert!(world.record.transactions[0].next_step_at.is_some());
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert_eq!(world.record.payment.state, PaymentState::Failed);
}

#[test]
fn s60_another_amount_is_never_called_success() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(approved(101));
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert_eq!(world.record.payment.amounts.captured, 0);
    assert_eq!(world.action(), Some(OperatorActionKind::AmountMismatch));
    let transaction = world.newest();
    assert!(
        !world.learn(transaction, &told(approved(101))),
        "the same mismatch is no news"
    );
    assert!(
        world.learn(transaction, &told(approved(100))),
        "the right amount is"
    );
}

/// What was called done waits for a person too: it stays booked as it is until then.
#[test]
fn s60_another_amount_of_what_succeeded_is_shown_to_a_person() {
    let usd = Money::new(100, Currency::parse("USD").unwrap()).unwrap();
    let in_usd = FactKind::Approved {
        amount: Some(usd),
        expires_at: None,
    };
    let unsaid = FactKind::Approved {
        amount: None,
        expires_at: None,
    };
    let mut refunded = World::captured(100);
    refunded.refund(Some(100)).unwrap();
    refunded.answer(approved(100));
    let mut captured = World::authorized(100);
    captured.capture(None, true).unwrap();
    captured.answer(approved(100));
    for mut world in [
        World::captured(100),
        World::authorized(100),
        captured,
        refunded,
    ] {
        let (id, payment) = (world.newest(), world.record.payment.clone());
        assert!(!world.learn(id, &told(unsaid.clone())));
        for other in [approved(60), approved(160), in_usd.clone()] {
            assert!(world.learn(id, &told(other.clone())), "{other:?}");
            let contradicting = Some(OperatorActionKind::ContradictingFact);
            assert_eq!(world.action(), contradicting);
            let entry = &world.changes.last().unwrap().entry;
            assert_eq!(entry.cause.as_deref(), Some("AMOUNT_MISMATCH"));
            let leaf = String::from_utf8(entry.leaf.as_bytes().to_vec()).unwrap();
            assert!(leaf.contains("named_amount_minor"), "{leaf}");
            assert!(!world.learn(id, &told(other)), "once");
        }
        assert!(!world.learn(id, &told(approved(100))));
        assert_eq!(world.state_of(id), TransactionState::Succeeded);
        assert_eq!(world.record.payment.amounts, payment.amounts);
        assert_eq!(world.record.payment.state, payment.state);
    }
    let mut voided = World::authorized(100);
    voided.void().unwrap();
    voided.answer(approved(100));
    let void = voided.newest();
    assert!(!voided.learn(void, &told(approved(60))), "never compared");
}

#[test]
fn i09_a_mismatch_found_after_an_unknown_outcome_is_reported_once() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let transaction = world.newest();
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    assert!(world.learn(transaction, &told(approved(99))));
    assert_eq!(world.action(), Some(OperatorActionKind::AmountMismatch));
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert!(!world.learn(transaction, &told(approved(99))));
}

#[test]
fn a_contradicted_success_is_reported_once() {
    let mut world = World::captured(100);
    let transaction = world.newest();
    let failed = told(FactKind::Failed(Cause::ProviderReportedFailure));
    assert!(world.learn(transaction, &failed));
    assert_eq!(world.action(), Some(OperatorActionKind::ContradictingFact));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert!(!world.learn(transaction, &failed));
}

#[test]
fn a_confirmation_that_was_not_sent_proves_nothing_about_the_payment() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(action());
    world.confirm().unwrap();
    let confirm = world.attempt();
    world.void().unwrap();
    let report = SendReport {
        outcome: SendOutcome::NotSent(Cause::ConnectionRefused),
        latency_micros: 1,
        http_status: None,
        response: None,
        retry_after: None,
    };
    world
        .decide(|record, _, stamp| decide::outcome(record, &confirm, &report, stamp))
        .unwrap();
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    let opening = confirm.transaction;
    assert!(
        world.learn(opening, &told(approved(100))),
        "the customer came back by himself"
    );
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.action(), None);
}

#[test]
fn what_the_provider_has_named_is_never_given_up_as_unsent() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(FactKind::Pending);
    let given_up = world.decide(|record, _, stamp| try_give_up(record, id, stamp).ok_or(()));
    assert_eq!(given_up, Err(()));
}

#[test]
fn only_the_provider_speaks_as_the_provider() {
    let actor = |world: &World| world.changes.last().unwrap().entry.actor.clone();
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    assert_eq!(actor(&world), "shop");
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(approved(100));
    assert_eq!(actor(&world), "sandbox");
}

#[test]
fn nothing_is_sent_first_after_its_time_or_once_it_is_voided() {
    let mut late = World::accepted(100, CaptureMethod::Manual);
    late.tampered = true;
    late.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    late.record.transactions[0].execute_before = start();
    let mut voided = World::accepted(100, CaptureMethod::Manual);
    voided.tampered = true;
    voided.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    voided.void().unwrap();
    for world in [&mut late, &mut voided] {
        let id = world.record.transactions[0].id;
        let started =
            world.decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()));
        assert_eq!(started, Err(()));
    }
}

#[test]
fn a_resend_after_a_lost_sender_is_of_unknown_outcome() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.start_attempt(id);
    assert!(
        world.record.transactions[0].ever_unknown,
        "I4: nobody knows what the first send did"
    );
}

#[test]
fn a_late_success_after_a_failure_is_applied_and_reported() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let transaction = world.newest();
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert!(world.learn(transaction, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.action(), Some(OperatorActionKind::ContradictingFact));
    assert_eq!(world.record.payment.failure, None);
}

#[test]
fn equal_and_older_facts_change_nothing() {
    let mut world = World::captured(100);
    let transaction = world.newest();
    for fact in [approved(100), declined(), action(), FactKind::Pending] {
        assert!(!world.learn(transaction, &told(fact.clone())), "{fact:?}");
    }
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(FactKind::Pending);
    let transaction = world.newest();
    assert!(!world.learn(transaction, &told(FactKind::Pending)));
}

#[test]
fn s22_an_answer_that_comes_after_a_lookup_is_recorded_and_changes_nothing() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let transaction = world.newest();
    assert!(world.learn(transaction, &told(approved(100))));
    world.answer(approved(100));
    assert_eq!(world.record.payment.amounts.captured, 100);
    assert_eq!(world.changes[2].entry.event_type, "payment.attempt_ended");
}

#[test]
fn s43_a_refund_that_fails_later_gives_its_amount_back() {
    let mut world = World::captured(100);
    world.refund(Some(40)).unwrap();
    let refund = world.newest();
    world.answer(approved(40));
    assert!(world.learn(
        refund,
        &told(FactKind::Failed(Cause::ProviderReportedFailure))
    ));
    assert_eq!(world.state_of(refund), TransactionState::Reversed);
    assert_eq!(world.record.payment.amounts.refundable(), 100);
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    // An older success does not bring it back: a person sees whether it is one.
    assert!(world.learn(refund, &told(approved(40))));
    assert_eq!(world.state_of(refund), TransactionState::Reversed);
    assert_eq!(world.record.payment.amounts.refundable(), 100);
}

#[test]
fn a_capture_that_fails_later_under_a_refund_is_recorded_as_excess() {
    let mut world = World::authorized(100);
    world.capture(Some(60), false).unwrap();
    let capture = world.newest();
    world.answer(approved(60));
    world.refund(Some(20)).unwrap();
    let failed = told(FactKind::Failed(Cause::ProviderReportedFailure));
    assert!(world.learn(capture, &failed));
    let amounts = world.record.payment.amounts;
    assert_eq!(
        (amounts.captured, amounts.refund_pending, amounts.excess),
        (20, 20, 20)
    );
    // One case tells both, and the capture can still be booked where it is done again.
    let contradicting = Some(OperatorActionKind::ContradictingFact);
    assert_eq!(world.action(), contradicting);
    let entry = &world.changes.last().unwrap().entry;
    let leaf = String::from_utf8(entry.leaf.as_bytes().to_vec()).unwrap();
    assert!(leaf.contains("\"excess_minor\":\"20\""), "{leaf}");
    assert_eq!(
        world.shown(capture),
        [OperatorActionKind::ContradictingFact]
    );
}

#[test]
fn a_void_of_a_pending_payment_waits_for_the_authorization() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    let opening = world.attempt();
    world.void().unwrap();
    let void = world.newest();
    assert_eq!(
        world.record.transactions[1].attempts, 0,
        "nothing is sent yet"
    );
    let report = SendReport {
        outcome: SendOutcome::Answered(told(approved(100))),
        latency_micros: 1,
        http_status: None,
        response: None,
        retry_after: None,
    };
    world
        .decide(|record, _, stamp| decide::outcome(record, &opening, &report, stamp))
        .unwrap();
    assert_eq!(world.record.payment.amounts.void_pending, 100);
    world.start_attempt(void);
    world.answer(approved(100));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

#[test]
fn a_void_that_finds_a_capture_fails() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.void().unwrap();
    let void = world.newest();
    assert!(world.learn(opening, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    let failure = world.record.transaction(void).unwrap().failure.unwrap();
    assert_eq!(failure.cause, Cause::AlreadyCaptured);
}

#[test]
fn a_void_of_a_payment_that_was_never_sent_ends_both() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    let opening = world.attempt();
    world.void().unwrap();
    let void = world.newest();
    let report = SendReport {
        outcome: SendOutcome::NotSent(Cause::ConnectionRefused),
        latency_micros: 1,
        http_status: None,
        response: None,
        retry_after: None,
    };
    world
        .decide(|record, _, stamp| decide::outcome(record, &opening, &report, stamp))
        .unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Voided);
    assert_eq!(world.state_of(void), TransactionState::Succeeded);
    assert_eq!(
        world.state_of(opening.transaction),
        TransactionState::Failed
    );
}

#[test]
fn s06_a_challenge_is_confirmed_and_a_refused_confirmation_can_be_repeated() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(action());
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    world.confirm().unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    world.confirm().unwrap();
    world.answer(approved(100));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.record.payment.next_action, None);
}

#[test]
fn what_was_never_sent_in_time_fails_as_such() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let transaction = world.newest();
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    world
        .decide(|record, _, stamp| try_give_up(record, transaction, stamp).ok_or(()))
        .unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Failed);
    assert_eq!(
        world.record.payment.failure.unwrap().cause,
        Cause::NotSentInTime
    );
}

/// As where the provider names a payment only once it is decided.
fn nameless(kind: FactKind) -> SendOutcome {
    SendOutcome::Answered(Fact {
        kind,
        provider_reference: None,
        payment_reference: None,
    })
}

#[test]
fn s06_a_refused_confirmation_of_a_payment_without_a_name_can_be_repeated() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(nameless(action()));
    assert!(world.record.transactions[0].ever_unknown);
    world.confirm().unwrap();
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    assert!(
        world.record.transactions[0].ever_unknown,
        "the payment is at the provider"
    );
    world.confirm().unwrap();
    world.report(nameless(approved(100)));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

#[test]
fn a_confirmation_that_was_never_sent_in_time_leaves_the_payment_to_its_customer() {
    let opened = || {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        world.report(nameless(action()));
        world.tampered = true;
        world.confirm().unwrap();
        world.record.transactions[0].execute_before = start();
        world
    };
    let mut world = opened();
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    // Its time ran out while it waited to be sent again.
    let mut world = opened();
    world.record.transactions[0].execute_before = start() + TimeDelta::days(1);
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    let id = world.newest();
    world
        .decide(|record, _, stamp| try_give_up(record, id, stamp).ok_or(()))
        .unwrap();
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    world.confirm().unwrap();
}

#[test]
fn s06_a_confirmation_long_after_its_payment_has_time_of_its_own() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(nameless(action()));
    world.ticks += 3_600;
    world.confirm().unwrap();
    let row = &world.record.transactions[0];
    let within = TimeDelta::from_std(crate::command::DEFAULT_EXECUTE_WITHIN).unwrap();
    assert_eq!(row.execute_before, row.updated_at + within);
    // So it is sent again, rather than called too late.
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    let id = world.newest();
    world.start_attempt(id);
    world.report(nameless(approved(100)));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

#[test]
fn i4_a_confirmation_of_unknown_outcome_is_not_repeated_as_a_new_one() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(nameless(action()));
    world.confirm().unwrap();
    let id = world.newest();
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    world.start_attempt(id);
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert_eq!(world.record.payment.state, PaymentState::Pending);
}
