//! Cases for a person: none hides another, and each is closed by itself.

use super::recovery::{REFUSED, TIMED_OUT, acknowledged, case, moved, succeeded};
use super::*;
use crate::change::OperatorActionKind;
use crate::command::{Resolution, Retry};
use crate::decide;
use crate::payment::PaymentState;
use crate::verification::closes_case_of;

use OperatorActionKind::{AmountMismatch, ContradictingFact, ExcessAmount, RecoveryExhausted};

impl World {
    /// The kinds of the cases that are shown as open about a transaction.
    pub(super) fn shown(&self, id: TransactionId) -> Vec<OperatorActionKind> {
        let row = self.record.transaction(id).unwrap();
        row.open_cases.iter().collect()
    }

    /// What the last entry says of the closed cases of a transaction.
    fn told_closed(&self, id: TransactionId) -> Option<String> {
        let leaf = quittance_evidence::Leaf::decode(self.change().entry.leaf.as_bytes()).unwrap();
        leaf.details.get(&format!("case_closed.{id}")).cloned()
    }

    /// Whether the last entry is one that may have closed a case of this kind.
    fn closes(&self, id: TransactionId, kind: OperatorActionKind) -> bool {
        closes_case_of(self.change().entry.leaf.as_bytes(), id, Some(kind)).is_some()
    }

    pub(super) fn retry(&mut self, transaction: TransactionId) {
        let command = Retry {
            payment: self.record.payment.id,
            transaction,
            reason: Text::parse("the provider is back").unwrap(),
        };
        self.decide(|record, _, stamp| decide::retry(record, &command, stamp))
            .unwrap();
    }
}

/// A purchase that is under way at the second account, while the first one says that it has done it.
fn told_by_the_first_account() -> (World, TransactionId) {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(REFUSED);
    world.fail_over().unwrap();
    world.answer(FactKind::Pending);
    let id = world.newest();
    let first = ProviderAccount::parse("sandbox").unwrap();
    world
        .decide(|record, _, stamp| {
            let fact = told(approved(100));
            let told = decide::told_by_former_account(record, id, &first, &fact, stamp);
            told.unwrap().ok_or(())
        })
        .unwrap();
    assert_eq!(world.opened(), Some(ContradictingFact));
    (world, id)
}

/// A purchase that a person called done, and the provider declined, and then did for another amount.
fn declined_and_done_for_90() -> (World, TransactionId) {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.report(TIMED_OUT);
    world.pass(1_000);
    world.resolve(succeeded()).unwrap();
    assert!(world.learn(id, &told(declined())));
    assert_eq!(world.opened(), Some(ContradictingFact));
    assert!(world.learn(id, &told(approved(90))));
    assert_eq!(world.opened(), Some(AmountMismatch));
    (world, id)
}

#[test]
fn s60_a_mismatch_behind_an_open_contradiction_is_shown_once_and_can_be_decided() {
    let (mut world, id) = told_by_the_first_account();
    assert!(world.learn(id, &told(approved(90))));
    assert_eq!(world.opened(), Some(AmountMismatch));
    assert_eq!(world.shown(id), [ContradictingFact, AmountMismatch]);
    // A repetition opens neither again, also where it is asked for.
    assert!(!world.learn(id, &told(approved(90))));
    for _ in 0..2 {
        world.retry(id);
        assert_eq!(world.change().closes_cases, []);
        assert!(world.learn(id, &told(approved(90))), "it waits once more");
        assert_eq!(world.opened(), None);
        assert_eq!(world.shown(id), [ContradictingFact, AmountMismatch]);
    }
    world.resolve(moved(90)).unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.record.payment.amounts.captured, 90);
    assert_eq!(world.change().closes_cases, case(AmountMismatch, id));
    assert_eq!(world.told_closed(id).as_deref(), Some("AMOUNT_MISMATCH"));
    assert_eq!(world.shown(id), [ContradictingFact]);
}

#[test]
fn s60_a_mismatch_of_what_had_ended_is_not_hidden_behind_an_older_contradiction() {
    let (mut world, id) = declined_and_done_for_90();
    assert_eq!(world.shown(id), [ContradictingFact, AmountMismatch]);
    world.resolve(acknowledged(ContradictingFact)).unwrap();
    assert_eq!(world.change().closes_cases, case(ContradictingFact, id));
    assert_eq!(world.shown(id), [AmountMismatch]);
    world.resolve(acknowledged(AmountMismatch)).unwrap();
    assert_eq!(world.change().closes_cases, case(AmountMismatch, id));
    assert!(world.shown(id).is_empty());

    let (mut world, id) = declined_and_done_for_90();
    world.resolve(moved(90)).unwrap();
    assert_eq!(world.record.payment.amounts.captured, 90);
    assert_eq!(world.change().closes_cases, case(AmountMismatch, id));
    assert_eq!(world.opened(), None, "that it was told otherwise is open");
    assert_eq!(world.shown(id), [ContradictingFact]);
}

#[test]
fn s24_what_recovery_gave_up_is_closed_by_itself_beside_a_contradiction() {
    let given_up = || {
        let (mut world, id) = told_by_the_first_account();
        while world.held().next_step_at.is_some() {
            world.pass(10_000);
            world.unresolved().unwrap();
        }
        assert_eq!(world.shown(id), [ContradictingFact, RecoveryExhausted]);
        (world, id)
    };
    // By a person who has it asked for again, and by the provider's word.
    let (mut world, id) = given_up();
    world.retry(id);
    assert_eq!(world.told_closed(id).as_deref(), Some("RECOVERY_EXHAUSTED"));
    assert!(world.closes(id, RecoveryExhausted));
    assert!(!world.closes(id, ContradictingFact), "nor may it have");
    assert_eq!(world.shown(id), [ContradictingFact]);
    let (mut world, id) = given_up();
    assert!(world.learn(id, &told(approved(100))));
    assert_eq!(world.change().closes_cases, case(RecoveryExhausted, id));
    assert_eq!(world.shown(id), [ContradictingFact]);
    // By a person who says what became of it.
    for found in [succeeded(), Resolution::NotProcessed] {
        let (mut world, id) = given_up();
        world.resolve(found).unwrap();
        assert_eq!(world.change().closes_cases, case(RecoveryExhausted, id));
        assert_eq!(world.shown(id), [ContradictingFact]);
    }
}

#[test]
fn what_is_told_again_is_news_once_its_case_is_closed_whatever_else_is_open() {
    let mut world = World::captured(100);
    let id = world.newest();
    let failure = told(FactKind::Failed(
        crate::decline::Cause::ProviderReportedFailure,
    ));
    assert!(world.learn(id, &failure));
    world.tampered = true;
    let row = &mut world.record.transactions[0];
    row.open_cases = row.open_cases.with(ExcessAmount);
    assert!(!world.learn(id, &failure), "once");
    world.resolve(acknowledged(ContradictingFact)).unwrap();
    assert_eq!(world.shown(id), [ExcessAmount]);
    assert!(world.learn(id, &failure));
    assert_eq!(world.shown(id), [ExcessAmount, ContradictingFact]);
}

/// A refund of what was captured, which is taken back by the provider while another refund of all of it is under way.
#[test]
fn an_excess_is_shown_beside_a_contradiction_that_is_open_already() {
    let mut world = World::authorized(100);
    world.capture(Some(60), false).unwrap();
    let capture = world.newest();
    world.answer(approved(60));
    let row = world.record.transactions.last_mut().unwrap();
    row.open_cases = row.open_cases.with(ContradictingFact);
    world.tampered = true;
    world.refund(Some(20)).unwrap();
    let failed = told(FactKind::Failed(
        crate::decline::Cause::ProviderReportedFailure,
    ));
    assert!(world.learn(capture, &failed));
    assert_eq!(world.record.payment.amounts.excess, 20);
    assert_eq!(world.opened(), Some(ExcessAmount));
    assert_eq!(world.shown(capture), [ExcessAmount, ContradictingFact]);
}
