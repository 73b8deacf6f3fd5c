//! What becomes of an authorization that runs out without a word of it.

use super::*;
use crate::decline::Cause;
use crate::payment::PaymentState;

const HOUR: u32 = 3_600;

/// Until when the provider says that it holds: an hour after it was made.
fn until() -> DateTime<Utc> {
    start() + TimeDelta::hours(1)
}

fn authorized_until(amount: i64) -> FactKind {
    FactKind::Approved {
        amount: Some(eur(amount)),
        expires_at: Some(until()),
    }
}

/// A payment whose authorization holds for an hour, and that authorization.
fn watched() -> (World, TransactionId) {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    let opening = world.newest();
    world.answer(authorized_until(100));
    (world, opening)
}

impl World {
    fn look_at(&self, id: TransactionId) -> Option<DateTime<Utc>> {
        self.record.transaction(id).unwrap().next_step_at
    }
}

#[test]
fn s40_an_authorization_is_asked_about_a_while_after_its_time_and_then_ever_later() {
    let (mut world, opening) = watched();
    let first = POLICY.release.first;
    assert_eq!(world.look_at(opening), Some(until() + first));
    assert_eq!(world.no_news_of(opening), Err(()), "not before");
    world.pass(2 * HOUR);
    for look in 1..=POLICY.release.steps {
        world.no_news_of(opening).unwrap();
        assert_eq!(world.record.payment.state, PaymentState::Authorized);
        let next = world.look_at(opening);
        assert_eq!(next.is_some(), look < POLICY.release.steps, "look {look}");
        let now = start() + TimeDelta::seconds(i64::from(world.next_n() - 1));
        if let Some(next) = next {
            let hours = 2i64.pow(look).min(24);
            assert_eq!(next - now, TimeDelta::hours(hours), "look {look}");
        }
        world.pass(24 * HOUR);
    }
    assert_eq!(world.no_news_of(opening), Err(()), "often enough");
    let asked = |change: &Change| change.operator_action.is_some();
    assert!(!world.changes.iter().any(asked), "nobody is asked");
}

#[test]
fn s40_until_when_an_authorization_holds_may_be_told_after_it() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    let opening = world.newest();
    world.answer(approved(100));
    assert_eq!(world.look_at(opening), None);
    let told = told(authorized_until(100));
    assert!(world.learn(opening, &told));
    assert_eq!(world.record.payment.expires_at, Some(until()));
    assert_eq!(world.record.payment.state, PaymentState::Authorized);
    let first = POLICY.release.first;
    assert_eq!(world.look_at(opening), Some(until() + first));
    assert!(!world.learn(opening, &told), "told once");
}

#[test]
fn s40_an_authorization_without_its_outcome_is_taken_up_as_before() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    let opening = world.newest();
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    assert!(world.look_at(opening).is_some());
    world.pass(HOUR);
    world.no_news_of(opening).unwrap();
    assert!(world.look_at(opening).is_some());
    world.void().unwrap();
    assert!(world.look_at(opening).is_some());
}

#[test]
fn s40_only_the_provider_s_word_ends_an_authorization_whose_time_has_passed() {
    let (mut world, opening) = watched();
    world.pass(48 * HOUR);
    assert!(!world.learn(opening, &told(authorized_until(100))));
    world.no_news_of(opening).unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Authorized);
    world.capture(Some(40), false).unwrap();
    world.answer(approved(40));
    assert!(world.look_at(opening).is_some(), "something is left");
    assert!(world.learn(opening, &told(FactKind::Expired)));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.look_at(opening), None);
}

#[test]
fn s40_what_holds_for_an_unknown_time_or_is_all_used_up_is_not_asked_about() {
    let world = World::authorized(100);
    assert_eq!(world.look_at(world.newest()), None, "it was not told");
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(authorized_until(100));
    assert_eq!(world.look_at(world.newest()), None, "a purchase");
    for last in [false, true] {
        let (mut world, opening) = watched();
        let amount = if last { 60 } else { 100 };
        world.capture(Some(amount), last).unwrap();
        assert!(world.look_at(opening).is_some(), "it may be refused");
        world.answer(approved(amount));
        assert_eq!(world.look_at(opening), None);
        assert_eq!(world.no_news_of(opening), Err(()));
    }
    let (mut world, opening) = watched();
    world.void().unwrap();
    world.answer(approved(100));
    assert_eq!(world.look_at(opening), None);
}

#[test]
fn s40_a_refused_capture_or_void_has_the_provider_asked_about_the_authorization_at_once() {
    for void in [false, true] {
        let (mut world, opening) = watched();
        let ask = |world: &mut World| {
            if void {
                world.void().unwrap();
            } else {
                world.capture(Some(40), false).unwrap();
            }
        };
        ask(&mut world);
        world.answer(FactKind::Failed(Cause::Expired));
        assert_eq!(world.record.payment.state, PaymentState::Authorized);
        let now = world.changes.last().unwrap().payment.updated_at;
        assert_eq!(world.look_at(opening), Some(now));
        // It was refused for another reason: it is left until its time.
        world.no_news_of(opening).unwrap();
        assert_eq!(world.look_at(opening), Some(until() + POLICY.release.first));
        assert_eq!(world.record.transaction(opening).unwrap().retries, 0);
        ask(&mut world);
        world.answer(declined());
        assert!(world.learn(opening, &told(FactKind::Expired)));
        assert_eq!(world.record.payment.state, PaymentState::Expired);
        assert_eq!(world.look_at(opening), None);
    }
}

#[test]
fn s40_what_a_capture_that_is_taken_back_leaves_is_asked_about_again() {
    let (mut world, opening) = watched();
    world.capture(None, false).unwrap();
    let capture = world.newest();
    world.answer(approved(100));
    assert_eq!(world.look_at(opening), None);
    let taken_back = FactKind::TakenBack(Cause::ProviderReportedFailure);
    assert!(world.learn(capture, &told(taken_back)));
    assert_eq!(world.record.payment.state, PaymentState::Authorized);
    assert!(world.look_at(opening).is_some());
}
