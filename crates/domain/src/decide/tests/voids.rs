//! Voids of what is not known to be authorized, at a provider that knows a payment by our name of it.

use super::*;
use crate::change::OperatorActionKind;
use crate::command::Resolution;
use crate::decide::{self, DecideError};
use crate::decline::Cause;
use crate::error::Rejection;
use crate::payment::{NextAction, PaymentState};
use crate::ports::VoidBefore;
use crate::transaction::TransactionOrigin;

const LOST: SendOutcome = SendOutcome::Unknown(Cause::ResponseTimeout);

fn by_our_name() -> Rules {
    Rules::with(|able| {
        able.void_before_authorization = VoidBefore::Ours;
        able.authoritative_lookup = false;
        able.current_lookup = false;
    })
}

fn accepted(capture_method: CaptureMethod) -> World {
    World::accepted_by(by_our_name(), 100, capture_method)
}

/// What a provider tells that gives no name of its own.
fn nameless(kind: FactKind) -> SendOutcome {
    SendOutcome::Answered(Fact {
        kind,
        provider_reference: None,
        payment_reference: None,
    })
}

fn action() -> FactKind {
    FactKind::RequiresAction(NextAction {
        redirect_url: Sensitive::new("https://issuer.example/3ds".to_owned()),
        data: Sensitive::default(),
        may_take_days: false,
    })
}

impl World {
    /// Whether the newest transaction was sent at once.
    fn is_sent(&self) -> bool {
        self.attempt().transaction == self.newest()
    }

    /// Tries to send the opening again, as recovery would.
    fn sends_opening_again(&self) -> bool {
        let opening = self.record.opening().unwrap();
        let mut stamp = stamp(&self.caller, &self.instance, self.next_n());
        stamp.now += TimeDelta::hours(1);
        try_start(&self.record, opening.id, &self.rules, &stamp).is_some()
    }
}

#[test]
fn s06_what_has_no_name_of_the_provider_s_is_released_by_ours() {
    let mut world = accepted(CaptureMethod::Manual);
    world.report(nameless(action()));
    assert_eq!(world.record.payment.provider_reference, None);
    let opening = world.newest();
    world.void().unwrap();
    assert!(world.is_sent());
    world.answer(FactKind::Pending);
    let void = world.newest();
    assert!(world.learn(void, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
    assert_eq!(world.state_of(opening), TransactionState::Failed);
    // It had been authorized just before.
    assert!(world.learn(opening, &told(approved(100))));
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.authorized, amounts.voided), (100, 100));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

#[test]
fn s06_a_customer_who_left_without_a_name_of_the_provider_s_is_abandoned_too() {
    let mut world = accepted(CaptureMethod::Automatic);
    world.report(nameless(action()));
    let opening = world.newest();
    world.ticks += 90_000;
    world
        .decide(|record, rules, stamp| {
            decide::abandon(record, opening, rules, stamp)
                .unwrap()
                .ok_or(())
        })
        .unwrap();
    let void = world.record.transactions.last().unwrap();
    assert_eq!(void.origin, TransactionOrigin::Service);
    assert!(world.is_sent());
    // There was nothing to release yet, and the customer comes back after all.
    let void = void.id;
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert_eq!(world.state_of(void), TransactionState::Failed);
    world.confirm().unwrap();
    world.report(LOST);
    assert!(!world.sends_opening_again(), "its key is forgotten");
    assert!(world.learn(opening, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

#[test]
fn s15_a_void_of_what_may_still_arrive_waits_until_it_cannot() {
    let mut world = accepted(CaptureMethod::Manual);
    let (sent_until, opening) = (start() + TimeDelta::seconds(60), world.newest());
    // While it is being sent, and when its answer was given up on.
    world.record.transactions[0].lease_until = Some(sent_until);
    world.tampered = true;
    world.report(LOST);
    world.void().unwrap();
    let void = world.record.transactions.last().unwrap().clone();
    assert_eq!((void.attempts, void.next_step_at), (0, Some(sent_until)));
    let sendable = |now| decide::can_be_sent(&world.record, &void, &world.rules, now);
    assert!(!sendable(sent_until - TimeDelta::microseconds(1)));
    assert!(sendable(sent_until));
    assert!(!world.sends_opening_again(), "it is not wanted any more");
    assert_eq!(world.state_of(opening), TransactionState::Pending);
}

#[test]
fn s15_what_was_voided_with_nothing_to_release_is_not_sent_for_the_first_time_then() {
    let mut world = accepted(CaptureMethod::Manual);
    world.report(LOST);
    let opening = world.newest();
    assert!(world.sends_opening_again());
    world.void().unwrap();
    assert!(world.is_sent());
    let void = world.newest();
    world.answer(FactKind::Pending);
    assert!(!world.sends_opening_again());
    let failed = FactKind::Failed(Cause::ProviderReportedFailure);
    assert!(world.learn(void, &told(failed)));
    assert_eq!(world.state_of(void), TransactionState::Failed);
    assert!(!world.sends_opening_again(), "nor now");
    // It may have been authorized all the same: that is told, and can be voided again.
    assert_eq!(world.record.payment.state, PaymentState::Pending);
    assert!(world.learn(opening, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Authorized);
    world.void().unwrap();
    assert!(world.is_sent());
}

/// Before the confirmation a void that found nothing to release leaves what the customer was asked to do; after it, it says that
/// the confirmation is not wanted either.
#[test]
fn s15_what_was_voided_after_its_confirmation_is_not_confirmed_for_the_first_time_then() {
    for voided_before in [true, false] {
        let mut world = accepted(CaptureMethod::Automatic);
        world.report(nameless(action()));
        let opening = world.newest();
        let void = |world: &mut World| {
            world.void().unwrap();
            assert!(world.is_sent());
            let void = world.newest();
            world.report(SendOutcome::NotSent(Cause::RequestRefused));
            assert_eq!(world.state_of(void), TransactionState::Failed);
        };
        if voided_before {
            void(&mut world);
        }
        world.ticks += 60;
        world.confirm().unwrap();
        world.report(LOST);
        if !voided_before {
            world.ticks += 60;
            void(&mut world);
        }
        assert_eq!(world.sends_opening_again(), voided_before);
        // Where it was confirmed all the same, that is what is true.
        assert!(world.learn(opening, &told(approved(100))));
        assert_eq!(world.record.payment.state, PaymentState::Captured);
    }
}

#[test]
fn s35_an_authorization_that_is_told_while_its_void_is_under_way_is_released_by_it() {
    for done in [true, false] {
        let mut world = accepted(CaptureMethod::Manual);
        world.report(LOST);
        let opening = world.newest();
        world.void().unwrap();
        world.answer(FactKind::Pending);
        let void = world.newest();
        assert!(world.learn(opening, &told(approved(100))));
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.authorized, amounts.void_pending), (100, 100));
        assert_eq!(world.record.transactions.last().unwrap().attempts, 1);
        let (told, state) = if done {
            (told(approved(100)), PaymentState::Voided)
        } else {
            let failed = FactKind::Failed(Cause::ProviderReportedFailure);
            (told(failed), PaymentState::Authorized)
        };
        assert!(world.learn(void, &told));
        assert_eq!(world.record.payment.state, state);
        assert_eq!(world.record.payment.amounts.void_pending, 0);
    }
}

/// What is released is not captured; it was told to be.
#[test]
fn s35_a_purchase_that_is_both_paid_and_cancelled_is_shown_to_a_person_in_either_order() {
    for paid_first in [true, false] {
        let mut world = accepted(CaptureMethod::Automatic);
        world.report(LOST);
        let opening = world.newest();
        world.void().unwrap();
        world.answer(FactKind::Pending);
        let void = world.newest();
        let order = if paid_first {
            [opening, void]
        } else {
            [void, opening]
        };
        for id in order {
            assert!(world.learn(id, &told(approved(100))));
        }
        let case = world.changes.last().unwrap().operator_action.unwrap().kind;
        assert_eq!(case, OperatorActionKind::ContradictingFact, "{paid_first}");
        assert_eq!(world.record.payment.state, PaymentState::Voided);
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.captured, amounts.voided), (0, 100));
    }
}

#[test]
fn i3_a_void_that_recovery_gave_up_asks_nobody_once_its_payment_is_decided() {
    for decided in [approved(100), declined()] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        let opening = world.newest();
        world.void().unwrap();
        let void = world.record.transactions.last().unwrap().id;
        assert!(world.learn(opening, &told(action())));
        while world.shown(void).is_empty() {
            world.pass(10_000);
            world.no_news_of(void).unwrap();
        }
        assert!(world.learn(opening, &told(decided)));
        assert_eq!(world.state_of(void), TransactionState::Failed);
        assert_eq!(world.closed(), [void]);
        assert!(world.shown(void).is_empty());
    }
}

#[test]
fn s14_what_was_certainly_never_sent_is_not_asked_to_be_released() {
    let mut world = accepted(CaptureMethod::Manual);
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    let opening = world.newest();
    world.void().unwrap();
    let void = world.record.transactions.last().unwrap();
    assert_eq!((void.attempts, void.next_step_at), (0, None));
    let void = void.id;
    world
        .decide(|record, _, stamp| try_give_up(record, opening, stamp).ok_or(()))
        .unwrap();
    assert_eq!(world.state_of(void), TransactionState::Succeeded);
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

/// What the customer returned is not sent, so no answer comes with which the void could go.
#[test]
fn s06_a_void_that_waits_for_a_confirmation_which_is_not_sent_is_taken_up_then() {
    let mut world = accepted(CaptureMethod::Automatic);
    world.report(nameless(action()));
    let opening = world.newest();
    world.confirm().unwrap();
    world.report(SendOutcome::NotSent(Cause::ConnectionRefused));
    world.void().unwrap();
    let void = world.record.transactions.last().unwrap();
    assert_eq!((void.attempts, void.next_step_at), (0, None));
    let void = void.id;
    world
        .decide(|record, _, stamp| try_give_up(record, opening, stamp).ok_or(()))
        .unwrap();
    assert_eq!(world.state_of(opening), TransactionState::RequiresAction);
    let void = world.record.transaction(void).unwrap();
    assert!(void.next_step_at.is_some());
    let now = world.now();
    assert!(decide::can_be_sent(&world.record, void, &world.rules, now));
}

#[test]
fn i9_what_another_void_released_does_not_make_a_refused_one_done() {
    let mut world = World::authorized(100);
    world.void().unwrap();
    let refused = world.newest();
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert_eq!(world.state_of(refused), TransactionState::Failed);
    world.void().unwrap();
    world.answer(approved(100));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
    // The provider has one name for both, and says that the payment is released.
    assert!(!world.learn(refused, &told(approved(100))));
    assert_eq!(world.state_of(refused), TransactionState::Failed);
    // Nor is it for a person who names that.
    let by_person = Resolution::Succeeded {
        provider_reference: told(approved(100)).provider_reference,
        amount: None,
    };
    let state = TransactionState::Failed;
    let ended = DecideError::Rejected(Rejection::TransactionEnded { state });
    assert_eq!(world.resolve_seen(refused, by_person), Err(ended));
    // Under a name of its own it is another thing, and a contradiction.
    let mut other = told(approved(100));
    other.provider_reference = ProviderReference::parse("prov-2").ok();
    assert!(world.learn(refused, &other));
    assert_eq!(world.state_of(refused), TransactionState::Succeeded);
}
