//! What a provider asks for that wants to be left alone (`Retry-After`) is kept until that is over, whatever is learned
//! meanwhile: only a person overrides it.

use super::facts::action;
use super::recovery::REFUSED;
use super::*;
use crate::decide;
use crate::decline::Cause;
use crate::retry::WaitFor;

/// How long the provider asks to be left alone.
const WAIT: Duration = Duration::from_secs(600);
const SECONDS: u32 = 600;

fn account(name: &str) -> ProviderAccount {
    ProviderAccount::parse(name).unwrap()
}

/// What a send told that was answered by asking to wait.
fn held_off(outcome: SendOutcome, wait: Duration) -> SendReport {
    SendReport {
        outcome,
        latency_micros: 1,
        http_status: Some(429),
        response: None,
        retry_after: Some(wait),
    }
}

const BUSY: SendOutcome = SendOutcome::NotSent(Cause::RateLimited);

impl World {
    /// Ends an attempt by being asked to wait; until when.
    fn hold_off(&mut self, attempt: &Attempt, outcome: SendOutcome) -> DateTime<Utc> {
        let report = held_off(outcome, WAIT);
        self.decide(|record, _, stamp| decide::outcome(record, attempt, &report, stamp))
            .unwrap();
        self.asked_until()
    }

    /// Ends the newest attempt by being asked to wait; until when.
    fn hold_off_newest(&mut self) -> DateTime<Utc> {
        self.hold_off(&self.attempt(), BUSY)
    }

    /// Puts on record that a lookup was answered by asking to wait; until when.
    fn hold_off_lookup(&mut self, id: TransactionId) -> DateTime<Utc> {
        let told = (WaitFor::Leave, Some(Cause::RateLimited), Some(WAIT));
        self.decide(|record, _, stamp| {
            let change = decide::unresolved(record, id, told, stamp);
            change.unwrap().ok_or(())
        })
        .unwrap();
        self.asked_until()
    }

    fn asked_until(&self) -> DateTime<Utc> {
        self.changes.last().unwrap().entry.occurred_at + TimeDelta::seconds(i64::from(SECONDS))
    }

    fn due(&self, id: TransactionId) -> DateTime<Utc> {
        self.record.transaction(id).unwrap().next_step_at.unwrap()
    }

    fn start_again(&mut self, id: TransactionId) -> Result<(), ()> {
        self.decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()))
    }

    fn lose_sender(&mut self) -> Attempt {
        let attempt = self.attempt();
        self.decide(|record, _, stamp| {
            let lost = decide::sender_lost(record, &attempt, stamp);
            lost.unwrap().ok_or(())
        })
        .unwrap();
        attempt
    }

    fn move_to(&mut self, name: &str) -> Result<(), ()> {
        let (id, account) = (self.newest(), account(name));
        let held = self.record.transaction(id).unwrap();
        let proof = ProvedUnsent::by_sends(held).ok_or(())?;
        self.decide(|record, rules, stamp| {
            let change = decide::fail_over(record, id, proof, &account, rules, stamp);
            change.unwrap().ok_or(())
        })
    }
}

#[test]
fn s18_news_without_an_outcome_does_not_undo_what_the_provider_asked_for() {
    for news in [FactKind::Pending, action()] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        let id = world.newest();
        let until = world.hold_off_newest();
        assert!(world.learn(id, &told(news)), "a webhook");
        assert!(world.due(id) >= until);
    }
}

#[test]
fn s18_a_step_without_news_does_not_undo_what_the_provider_asked_for() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(FactKind::Pending);
    world.pass(60);
    let until = world.hold_off_lookup(id);
    assert!(world.learn(id, &told(action())));
    assert!(world.due(id) >= until);
    assert!(world.learn(id, &told(FactKind::Pending)));
    assert!(world.due(id) >= until);
}

#[test]
fn an_open_circuit_is_ours_and_asks_nobody_to_leave_the_account_alone() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let (id, attempt) = (world.newest(), world.attempt());
    let report = held_off(SendOutcome::NotSent(Cause::CircuitOpen), WAIT);
    world
        .decide(|record, _, stamp| decide::outcome(record, &attempt, &report, stamp))
        .unwrap();
    world.pass(60);
    let told = (WaitFor::Reach, Some(Cause::CircuitOpen), Some(WAIT));
    world
        .decide(|record, _, stamp| {
            let change = decide::unresolved(record, id, told, stamp);
            change.unwrap().ok_or(())
        })
        .unwrap();
    let held = world.record.transaction(id).unwrap();
    assert_eq!(held.left_alone_until(), None);
}

#[test]
fn s18_an_answer_to_a_lookup_counts_though_no_step_is_due_any_more() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(FactKind::Pending);
    world.pass(60);
    world.hold_off_lookup(id);
    let retries = world.record.transaction(id).unwrap().retries;
    world.pass(60);
    // Somebody asked all the same, or was asked before; it is told to wait longer.
    let until = world.hold_off_lookup(id);
    assert!(world.due(id) >= until);
    // A shorter wait is no news, and none of it is a step.
    let told = (WaitFor::Leave, Some(Cause::RateLimited), Some(WAIT / 2));
    let again = world.decide(|record, _, stamp| {
        let change = decide::unresolved(record, id, told, stamp);
        change.unwrap().ok_or(())
    });
    assert_eq!(again, Err(()));
    assert!(world.due(id) >= until);
    assert_eq!(world.record.transaction(id).unwrap().retries, retries);
}

#[test]
fn s18_a_late_answer_of_an_older_attempt_neither_undoes_nor_loses_what_was_asked_for() {
    for older_asks in [true, false] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        // An attempt does not end twice.
        world.tampered = true;
        let id = world.newest();
        let older = world.lose_sender();
        world.start_again(id).unwrap();
        let until = if older_asks {
            world.report(REFUSED);
            world.hold_off(&older, SendOutcome::Unknown(Cause::ProviderError))
        } else {
            let until = world.hold_off_newest();
            let late = SendReport {
                retry_after: None,
                ..held_off(SendOutcome::Unknown(Cause::ResponseTimeout), WAIT)
            };
            world
                .decide(|record, _, stamp| decide::outcome(record, &older, &late, stamp))
                .unwrap();
            until
        };
        assert!(world.due(id) >= until, "older: {older_asks}");
    }
}

#[test]
fn s18_while_a_later_attempt_runs_its_lease_says_when_and_then_the_wait_counts() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.tampered = true;
    let id = world.newest();
    let older = world.lose_sender();
    world.start_again(id).unwrap();
    let lease = world.due(id);
    let until = world.hold_off(&older, SendOutcome::Unknown(Cause::ProviderError));
    assert_eq!(world.due(id), lease);
    world.report(REFUSED);
    assert!(world.due(id) >= until);
}

#[test]
fn s18_a_sender_that_is_lost_does_not_undo_what_the_provider_asked_for() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(action());
    world.pass(60);
    let until = world.hold_off_lookup(id);
    // What the customer returned is handed over at once.
    world.confirm().unwrap();
    world.lose_sender();
    assert!(world.due(id) >= until);
    assert!(
        !world
            .record
            .transaction(id)
            .unwrap()
            .sender_is_lost(world.now())
    );
}

#[test]
fn s18_a_confirmation_that_is_held_off_and_not_wanted_any_more_waits_as_asked() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(action());
    world.confirm().unwrap();
    let attempt = world.attempt();
    world.void().unwrap();
    let until = world.hold_off(&attempt, BUSY);
    assert_eq!(world.state_of(id), TransactionState::RequiresAction);
    assert!(world.due(id) >= until);
}

#[test]
fn s18_a_release_that_is_refused_does_not_undo_what_was_asked_for_about_the_payment() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.answer(action());
    world.pass(86_400);
    world
        .decide(|record, rules, stamp| {
            let change = decide::abandon(record, id, rules, stamp);
            change.unwrap().ok_or(())
        })
        .unwrap();
    world.pass(3_600 - 300);
    let until = world.hold_off_lookup(id);
    world.answer(declined());
    assert!(world.due(id) >= until);
}

#[test]
fn s18_another_account_is_not_bound_by_it_and_a_failover_back_is() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    let until = world.hold_off_newest();
    world.move_to("second").unwrap();
    world.report(REFUSED);
    assert!(world.due(id) < until, "another account");
    assert_eq!(world.move_to("sandbox"), Err(()), "it is to be left alone");
    world.start_again(id).unwrap();
    world.report(REFUSED);
    world.pass(SECONDS);
    world.move_to("sandbox").unwrap();
    world.report(REFUSED);
    assert!(world.due(id) > until);
}

#[test]
fn s18_what_two_accounts_asked_for_is_kept_of_each() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    let first = world.hold_off_newest();
    world.move_to("second").unwrap();
    let second = world.hold_off_newest();
    assert!(world.due(id) >= second);
    let held = world.record.transaction(id).unwrap();
    assert_eq!(held.left_alone.until(&account("sandbox")), Some(first));
    assert_eq!(held.left_alone.until(&account("second")), Some(second));
}

#[test]
fn s18_it_is_bounded_and_the_longest_that_was_asked_for_counts() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let (id, attempt) = (world.newest(), world.attempt());
    let report = held_off(BUSY, Duration::from_secs(7_200));
    world
        .decide(|record, _, stamp| decide::outcome(record, &attempt, &report, stamp))
        .unwrap();
    let told_at = world.changes.last().unwrap().entry.occurred_at;
    let hour = TimeDelta::seconds(3_600);
    let held = world.record.transaction(id).unwrap();
    assert_eq!(held.left_alone_until(), Some(told_at + hour));
    // It certainly was not sent: its end needs no word of the provider.
    assert_eq!(held.next_step_at, Some(held.execute_before));
}

#[test]
fn s18_a_person_overrides_it() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    let until = world.hold_off_newest();
    world.retry(id);
    assert!(world.due(id) <= world.now());
    world.start_again(id).unwrap();
    world.report(REFUSED);
    assert!(world.due(id) < until);
}

#[test]
fn s18_nothing_is_kept_of_what_has_ended() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let (id, attempt) = (world.newest(), world.attempt());
    world.hold_off_newest();
    assert!(world.learn(id, &told(approved(100))));
    assert!(world.record.transaction(id).unwrap().left_alone.is_empty());
    // Nor of what is said late.
    world.tampered = true;
    world.hold_off(&attempt, SendOutcome::Unknown(Cause::ProviderError));
    assert!(world.record.transaction(id).unwrap().left_alone.is_empty());
}

#[test]
fn s18_an_authorization_is_not_asked_about_sooner_because_its_void_is_refused() {
    let mut world = World::accepted(100, CaptureMethod::Manual);
    let id = world.newest();
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    world.pass(SECONDS);
    let until = world.hold_off_lookup(id);
    let made = FactKind::Approved {
        amount: Some(eur(100)),
        expires_at: Some(start() + TimeDelta::hours(48)),
    };
    assert!(world.learn(id, &told(made)));
    world.void().unwrap();
    world.answer(FactKind::Failed(Cause::Expired));
    assert_eq!(world.due(id), until);
}
