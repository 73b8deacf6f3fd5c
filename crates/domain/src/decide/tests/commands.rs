//! Which commands are allowed when, and what they reserve.

use super::*;
use crate::change::CommandKind;
use crate::command::{Capture, Confirm, Refund, Void};
use crate::decide::{self, DecideError};
use crate::decline::Cause;
use crate::error::Rejection;
use crate::payment::PaymentState;

pub(super) fn capture(amount: Option<i64>, last: bool) -> Capture {
    Capture {
        payment: PaymentId(id(1)),
        idempotency_key: IdempotencyKey::parse("c").unwrap(),
        amount: amount.map(eur),
        final_capture: last,
        execute_before: None,
    }
}

pub(super) fn refund(amount: Option<i64>) -> Refund {
    Refund {
        payment: PaymentId(id(1)),
        idempotency_key: IdempotencyKey::parse("r").unwrap(),
        amount: amount.map(eur),
        reason: Text::default(),
        execute_before: None,
    }
}

pub(super) fn void() -> Void {
    Void {
        payment: PaymentId(id(1)),
        idempotency_key: IdempotencyKey::parse("v").unwrap(),
        reason: Text::default(),
    }
}

impl World {
    pub fn capture(&mut self, amount: Option<i64>, last: bool) -> Result<(), DecideError> {
        let ask = ask(CommandKind::Capture, self.next_n());
        self.decide(|record, rules, stamp| {
            decide::capture(record, &capture(amount, last), ask, rules, stamp)
        })
    }

    pub fn refund(&mut self, amount: Option<i64>) -> Result<(), DecideError> {
        let ask = ask(CommandKind::Refund, self.next_n());
        self.decide(|record, rules, stamp| {
            decide::refund(record, &refund(amount), ask, rules, stamp)
        })
    }

    pub fn void(&mut self) -> Result<(), DecideError> {
        let ask = ask(CommandKind::Void, self.next_n());
        self.decide(|record, rules, stamp| decide::void(record, &void(), ask, rules, stamp))
    }

    pub fn confirm(&mut self) -> Result<(), DecideError> {
        let ask = ask(CommandKind::Confirm, self.next_n());
        let command = Confirm {
            payment: PaymentId(id(1)),
            idempotency_key: IdempotencyKey::parse("k").unwrap(),
            parameters: Sensitive::new(vec![("challenge".into(), "passed".into())]),
        };
        self.decide(|record, rules, stamp| decide::confirm(record, &command, ask, rules, stamp))
    }
}

fn rejected(rejection: Rejection) -> Result<(), DecideError> {
    Err(DecideError::Rejected(rejection))
}

#[test]
fn s38_a_capture_cannot_exceed_what_is_left() {
    let mut world = World::authorized(100);
    assert_eq!(
        world.capture(Some(101), false),
        rejected(Rejection::ExceedsCapturable { left: 100 })
    );
    world.capture(Some(60), false).unwrap();
    assert_eq!(
        world.capture(Some(41), false),
        rejected(Rejection::ExceedsCapturable { left: 40 })
    );
    world.capture(None, false).unwrap();
    assert_eq!(world.record.payment.amounts.capture_pending, 100);
    assert_eq!(
        world.capture(None, false),
        rejected(Rejection::ExceedsCapturable { left: 0 })
    );
}

#[test]
fn s39_a_refund_before_a_capture_is_refused() {
    let state = PaymentState::Authorized;
    assert_eq!(
        World::authorized(100).refund(None),
        rejected(Rejection::StateForbids { state })
    );
    let state = PaymentState::Pending;
    let mut pending = World::accepted(100, CaptureMethod::Automatic);
    assert_eq!(
        pending.refund(None),
        rejected(Rejection::StateForbids { state })
    );
}

#[test]
fn s37_two_refunds_cannot_exceed_the_rest() {
    let mut world = World::captured(100);
    world.refund(Some(70)).unwrap();
    assert_eq!(
        world.refund(Some(31)),
        rejected(Rejection::ExceedsRefundable { left: 30 })
    );
    world.refund(Some(30)).unwrap();
    assert_eq!(
        world.refund(Some(1)),
        rejected(Rejection::ExceedsRefundable { left: 0 })
    );
}

#[test]
fn s65_partial_sums_reach_the_last_unit() {
    let mut world = World::authorized(100);
    for amount in [33, 33, 34] {
        world.capture(Some(amount), false).unwrap();
        world.answer(approved(amount));
    }
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    for amount in [1, 98] {
        world.refund(Some(amount)).unwrap();
        world.answer(approved(amount));
        assert_eq!(world.record.payment.state, PaymentState::PartiallyRefunded);
    }
    world.refund(None).unwrap();
    world.answer(approved(1));
    assert_eq!(world.record.payment.state, PaymentState::Refunded);
}

#[test]
fn s40_an_expired_authorization_cannot_be_captured() {
    let mut world = World::authorized(100);
    let opening = world.newest();
    assert!(world.learn(opening, &told(FactKind::Expired)));
    let state = PaymentState::Expired;
    assert_eq!(world.record.payment.state, state);
    assert_eq!(
        world.capture(None, false),
        rejected(Rejection::StateForbids { state })
    );
}

#[test]
fn s35_capture_and_void_exclude_each_other() {
    let mut world = World::authorized(100);
    world.capture(Some(40), false).unwrap();
    assert_eq!(world.void(), rejected(Rejection::CapturePending));
    let mut world = World::authorized(100);
    world.void().unwrap();
    assert_eq!(world.capture(None, false), rejected(Rejection::VoidPending));
    assert_eq!(world.void(), rejected(Rejection::VoidPending));
    world.answer(approved(100));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

#[test]
fn a_final_capture_releases_the_rest() {
    let mut world = World::authorized(100);
    world.capture(Some(60), true).unwrap();
    assert_eq!(world.record.payment.amounts.void_pending, 40);
    world.answer(approved(60));
    assert_eq!(world.record.payment.amounts.voided, 40);
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

#[test]
fn a_final_capture_waits_for_the_captures_under_way() {
    let mut world = World::authorized(100);
    world.capture(Some(60), false).unwrap();
    assert_eq!(
        world.capture(None, true),
        rejected(Rejection::CapturePending)
    );
    world.answer(approved(60));
    world.capture(Some(10), true).unwrap();
}

#[test]
fn a_failed_final_capture_gives_the_rest_back() {
    let mut world = World::authorized(100);
    world.capture(Some(60), true).unwrap();
    world.answer(FactKind::Failed(Cause::ProviderReportedFailure));
    assert_eq!(world.record.payment.amounts.capturable(), 100);
    assert_eq!(world.record.payment.state, PaymentState::Authorized);
}

#[test]
fn a_partly_refunded_payment_still_captures_the_rest() {
    let mut world = World::authorized(100);
    world.capture(Some(50), false).unwrap();
    world.answer(approved(50));
    world.refund(Some(50)).unwrap();
    world.answer(approved(50));
    assert_eq!(world.record.payment.state, PaymentState::PartiallyRefunded);
    world.capture(None, false).unwrap();
    world.answer(approved(50));
    assert_eq!(world.record.payment.amounts.captured, 100);
}

#[test]
fn i5_where_the_provider_captures_once_the_rest_is_released_also_what_a_refund_had_held() {
    let once = Rules::with(|able| able.several_captures = false);
    let mut world = World::accepted_by(once, 100, CaptureMethod::Automatic);
    world.answer(approved(100));
    let purchase = world.newest();
    world.refund(Some(64)).unwrap();
    let refund = world.newest();
    world.answer(FactKind::Pending);
    // The purchase's capture failed after all, and all that is left for now is captured again.
    let failed = FactKind::TakenBack(Cause::ProviderReportedFailure);
    assert!(world.learn(purchase, &told(failed)));
    world.capture(Some(36), false).unwrap();
    assert!(world.held().final_capture, "it releases what it leaves");
    world.answer(approved(36));
    let failed = FactKind::Failed(Cause::ProviderReportedFailure);
    assert!(world.learn(refund, &told(failed)));
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.captured, amounts.voided), (36, 64));
    assert_eq!((amounts.capturable(), amounts.excess), (0, 0));
}

#[test]
fn a_provider_that_captures_once_wants_a_final_capture() {
    let once = || Rules::with(|able| able.several_captures = false);
    let mut world = World::accepted_by(once(), 100, CaptureMethod::Manual);
    world.answer(approved(100));
    assert_eq!(
        world.capture(Some(50), false),
        rejected(Rejection::CaptureMustBeFinal)
    );
    world.capture(Some(50), true).unwrap();
    let whole = Rules::with(|able| able.partial_capture = false);
    let mut world = World::accepted_by(whole, 100, CaptureMethod::Manual);
    world.answer(approved(100));
    assert_eq!(
        world.capture(Some(50), true),
        rejected(Rejection::PartialCaptureUnsupported)
    );
}

#[test]
fn another_currency_is_refused() {
    let mut world = World::authorized(100);
    let ask = ask(CommandKind::Capture, 9);
    let mut command = capture(Some(10), false);
    command.amount = Money::new(10, Currency::parse("USD").unwrap()).ok();
    let result =
        world.decide(|record, rules, stamp| decide::capture(record, &command, ask, rules, stamp));
    assert_eq!(result, rejected(Rejection::CurrencyDiffers));
}

#[test]
fn a_confirmation_is_for_payments_that_wait_for_it() {
    let state = PaymentState::Pending;
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    assert_eq!(world.confirm(), rejected(Rejection::StateForbids { state }));
}

#[test]
fn a_payment_has_at_most_a_thousand_transactions() {
    let mut world = World::captured(100_000);
    let refunded = world.record.transactions[0].clone();
    while world.record.transactions.len() < crate::payment::MAX_TRANSACTIONS {
        world.record.transactions.push(refunded.clone());
    }
    assert_eq!(
        world.refund(Some(1)),
        rejected(Rejection::TooManyTransactions)
    );
}
