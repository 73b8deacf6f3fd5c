//! What a payment becomes that its customer has left.

use super::facts::action;
use super::*;
use crate::change::OperatorActionKind;
use crate::decide;
use crate::decline::Cause;
use crate::payment::PaymentState;
use crate::retry::WaitFor;
use crate::transaction::{TransactionKind, TransactionOrigin};

/// The provider does not release it, for a reason of its own.
const REFUSED: SendOutcome = SendOutcome::NotSent(Cause::RequestRefused);

const DAY: u32 = 86_400;
/// How long the provider asks to be left alone.
const WAIT: Duration = Duration::from_secs(600);

/// A payment that has waited for its customer for a day, and the transaction that opened it.
fn left() -> (World, TransactionId) {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.answer(action());
    world.pass(DAY);
    (world, opening)
}

impl World {
    fn abandon(&mut self, opening: TransactionId) -> Result<(), ()> {
        self.decide(|record, rules, stamp| {
            decide::abandon(record, opening, rules, stamp)
                .unwrap()
                .ok_or(())
        })
    }

    fn next_step(&self, id: TransactionId) -> Option<DateTime<Utc>> {
        self.record.transaction(id).unwrap().next_step_at
    }

    /// A person has it taken up now.
    /// Has every release refused that is allowed, until a person is asked.
    fn refuse_all_releases(&mut self, opening: TransactionId) {
        for _ in 0..POLICY.release.steps {
            self.abandon(opening).unwrap();
            self.report(REFUSED);
            self.pass(DAY);
        }
        self.no_news_of(opening).unwrap();
    }
}

#[test]
fn s06_what_its_customer_has_left_is_released_and_only_the_provider_ends_it() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    assert_eq!(world.abandon(opening), Err(()), "nobody is asked to act");
    world.answer(action());
    world.pass(DAY - 400);
    assert_eq!(world.abandon(opening), Err(()), "the customer has a day");
    world.pass(400);
    world.abandon(opening).unwrap();
    let void = world.held().clone();
    assert_eq!(
        (void.kind, void.origin),
        (TransactionKind::Void, TransactionOrigin::Service)
    );
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    assert_eq!(world.state_of(opening), TransactionState::RequiresAction);
    assert_eq!(world.change().entry.event_type, "void.accepted");
    assert_eq!(world.change().idempotency, None, "nobody's key");
    assert_eq!(world.attempt().transaction, void.id);
    assert_eq!(world.abandon(opening), Err(()), "one is under way");
    world.answer(approved(100));
    assert_eq!(world.state_of(opening), TransactionState::Failed);
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

#[test]
fn s06_what_its_customer_has_days_for_is_not_abandoned() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    let FactKind::RequiresAction(mut patient) = action() else {
        unreachable!()
    };
    patient.may_take_days = true;
    world.answer(FactKind::RequiresAction(patient));
    for _ in 0..30 {
        world.pass(DAY);
        assert_eq!(world.abandon(opening), Err(()));
    }
    // Who is sent elsewhere after that has a day for it, as anybody.
    world.answer(action());
    world.pass(DAY);
    world.abandon(opening).unwrap();
}

#[test]
fn s06_a_refused_release_is_repeated_ever_later_and_in_the_end_a_person_is_asked() {
    let (mut world, opening) = left();
    for hours in [1, 2, 4, 8, 16] {
        world.abandon(opening).unwrap();
        let void = world.newest();
        world.report(REFUSED);
        assert_eq!(world.state_of(void), TransactionState::Failed);
        let again_at = world.held().updated_at + TimeDelta::hours(hours);
        assert_eq!(world.next_step(opening), Some(again_at));
        // Not before: whoever asks about it meanwhile neither hastens nor delays it.
        assert_eq!(world.abandon(opening), Err(()));
        assert_eq!(world.no_news_of(opening), Err(()));
        assert!(!world.learn(opening, &told(action())));
        assert_eq!(world.next_step(opening), Some(again_at));
        world.pass(u32::try_from(hours).unwrap() * 3_600);
    }
    world.abandon(opening).unwrap();
    world.report(REFUSED);
    assert_eq!(world.abandon(opening), Err(()), "as often as is allowed");
    world.no_news_of(opening).unwrap();
    assert_eq!(world.opened(), Some(OperatorActionKind::RecoveryExhausted));
    let entry = &world.change().entry;
    assert_eq!(entry.event_type, "payment.recovery_exhausted");
    assert_eq!(entry.transaction, Some(opening));
    assert_eq!(world.next_step(opening), None);
    // Time proves nothing (I3).
    assert_eq!(world.state_of(opening), TransactionState::RequiresAction);
    assert_eq!(world.record.payment.state, PaymentState::RequiresAction);
    world.pass(30 * DAY);
    assert_eq!(world.abandon(opening), Err(()));
    assert_eq!(world.no_news_of(opening), Err(()));
}

#[test]
fn s06_a_release_that_is_declined_or_called_failed_is_repeated_as_well() {
    for refusal in [declined(), FactKind::Failed(Cause::ProviderReportedFailure)] {
        let (mut world, opening) = left();
        world.abandon(opening).unwrap();
        world.answer(FactKind::Pending);
        world.pass(DAY);
        // Not while one is under way, whatever else happens to the payment.
        assert_eq!(world.abandon(opening), Err(()));
        let void = world.newest();
        assert!(world.learn(void, &told(refusal)));
        world.pass(3_600);
        world.abandon(opening).unwrap();
        assert_ne!(world.newest(), void);
    }
}

#[test]
fn s06_what_the_customer_finishes_after_a_refused_release_counts_and_closes_the_case() {
    let (mut world, opening) = left();
    world.refuse_all_releases(opening);
    assert!(world.learn(opening, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.closed(), [opening]);
    assert!(world.shown(opening).is_empty());
}

#[test]
fn s06_a_person_has_the_provider_asked_once_more_about_what_its_customer_has_left() {
    let (mut world, opening) = left();
    world.refuse_all_releases(opening);
    let left_at = world.record.transaction(opening).unwrap().updated_at;
    world.retry(opening);
    assert_eq!(world.closed(), [opening]);
    let held = world.record.transaction(opening).unwrap();
    assert_eq!(held.state, TransactionState::RequiresAction);
    assert_eq!((held.retries, held.updated_at), (0, left_at));
    assert!(held.open_cases.is_empty());
    assert!(held.next_step_at.unwrap() <= world.now());
    // It is asked to release it as often as before: a person is asked again where that brings nothing.
    world.pass(1);
    assert_eq!(world.abandon(opening), Err(()));
    world.no_news_of(opening).unwrap();
    assert_eq!(world.opened(), Some(OperatorActionKind::RecoveryExhausted));
}

#[test]
fn s18_a_provider_that_asks_for_time_gets_it_also_about_what_is_left_by_its_customer() {
    let asked = (WaitFor::Customer, Some(Cause::RateLimited), Some(WAIT));
    let hold_off = |world: &mut World, id| {
        let held = world.decide(|record, _, stamp| {
            decide::unresolved(record, id, asked, stamp)
                .unwrap()
                .ok_or(())
        });
        held.unwrap();
        let due = world.next_step(id).unwrap();
        let told_at = world.change().entry.occurred_at;
        assert!(due >= told_at + TimeDelta::from_std(WAIT).unwrap());
    };
    // A minute before it is abandoned.
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.answer(action());
    world.pass(DAY - 60);
    hold_off(&mut world, opening);
    // Some minutes before it is to be released again, and a person wants it to be asked about.
    let (mut world, opening) = left();
    world.abandon(opening).unwrap();
    world.report(REFUSED);
    world.pass(3_600 - 300);
    world.retry(opening);
    hold_off(&mut world, opening);
}

#[test]
fn s06_a_void_that_is_done_at_last_closes_the_case_about_what_it_ends() {
    let (mut world, opening) = left();
    world.refuse_all_releases(opening);
    world.void().unwrap();
    world.answer(approved(100));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
    assert_eq!(world.closed(), [opening]);
    assert!(world.shown(opening).is_empty());
}

#[test]
fn s06_a_caller_s_void_that_is_refused_is_not_repeated_for_it() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.answer(action());
    let due = world.next_step(opening);
    world.void().unwrap();
    world.report(REFUSED);
    assert_eq!(world.next_step(opening), due);
    world.pass(DAY);
    // It does not count either.
    world.abandon(opening).unwrap();
    world.report(REFUSED);
    let again_at = world.held().updated_at + TimeDelta::hours(1);
    assert_eq!(world.next_step(opening), Some(again_at));
}

#[test]
fn s06_a_customer_who_comes_back_after_a_refused_release_has_a_day_again() {
    let (mut world, opening) = left();
    world.abandon(opening).unwrap();
    world.report(REFUSED);
    world.confirm().unwrap();
    world.report(REFUSED);
    assert_eq!(world.state_of(opening), TransactionState::RequiresAction);
    world.pass(3_600);
    assert_eq!(world.abandon(opening), Err(()));
    world.pass(DAY);
    world.abandon(opening).unwrap();
}

#[test]
fn s06_a_release_that_is_due_and_cannot_be_started_is_not_forgotten() {
    let (mut world, opening) = left();
    world.abandon(opening).unwrap();
    world.report(REFUSED);
    world.pass(3_600);
    // Its account was busy, or could not be asked: at a next step.
    world.no_news_of(opening).unwrap();
    assert!(world.next_step(opening).is_some());
    assert_eq!(world.opened(), None);
    // That schedule is used up too: a person is asked.
    world.pass(8 * DAY);
    while world.next_step(opening).is_some() {
        world.no_news_of(opening).unwrap();
    }
    assert_eq!(world.opened(), Some(OperatorActionKind::RecoveryExhausted));
}

/// The schedule was used up before, and the only step that is left is that at which it counts as abandoned.
#[test]
fn s06_what_is_abandoned_while_the_provider_cannot_be_asked_is_not_forgotten() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.answer(action());
    for _ in 0..POLICY.customer.steps {
        world.no_news_of(opening).unwrap();
    }
    world.pass(DAY);
    let abandoned_at = world.now();
    loop {
        world.no_news_of(opening).unwrap();
        assert_eq!(world.state_of(opening), TransactionState::RequiresAction);
        if world.next_step(opening).is_none() {
            break;
        }
        assert_eq!(world.opened(), None);
        world.pass(3_600);
    }
    let asked_for = world.now() - abandoned_at;
    assert!(asked_for > TimeDelta::hours(20), "{asked_for}");
    assert_eq!(world.opened(), Some(OperatorActionKind::RecoveryExhausted));
    // It is back, and a person has it asked: it is released then.
    world.retry(opening);
    world.abandon(opening).unwrap();
    world.answer(approved(100));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

#[test]
fn s06_what_is_old_when_its_customer_comes_and_is_asked_again_is_looked_at_as_often_as_it_can_be() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.answer(action());
    world.pass(8 * DAY);
    world.confirm().unwrap();
    world.answer(action());
    for _ in 0..POLICY.customer.late_steps() {
        // `jitter` is 0: due at once.
        assert!(world.next_step(opening).unwrap() <= world.now());
        world.looked_at(opening);
    }
    let left_at = world.record.transaction(opening).unwrap().updated_at;
    assert_eq!(
        world.next_step(opening),
        Some(left_at + TimeDelta::days(1)),
        "when it is abandoned"
    );
}

#[test]
fn s06_what_cannot_be_released_or_may_wait_for_ever_is_not_abandoned() {
    let unable = Rules::with(|able| able.void_before_authorization = VoidBefore::Never);
    let mut world = World::accepted_by(unable, 100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.answer(action());
    world.pass(100_000);
    let decided = |rules: &Rules, policy: &RetryPolicy| {
        let mut stamp = stamp(&world.caller, &world.instance, world.next_n());
        stamp.retries = policy;
        decide::abandon(&world.record, opening, rules, &stamp).unwrap()
    };
    assert_eq!(decided(&world.rules, &POLICY), None);
    let patient = RetryPolicy {
        abandon_after: None,
        ..*POLICY
    };
    assert_eq!(decided(&Rules::able(), &patient), None);
    assert!(decided(&Rules::able(), &POLICY).is_some());
}
