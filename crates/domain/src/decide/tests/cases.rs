//! Cases for a person: none hides another, and each is closed by itself.

use super::recovery::{TIMED_OUT, moved, succeeded};
use super::*;
use crate::change::{OperatorAction, OperatorActionKind};
use crate::command::Resolution;
use crate::payment::PaymentState;

use OperatorActionKind::{AmountMismatch, ContradictingFact};

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

fn case(kind: OperatorActionKind, transaction: TransactionId) -> [OperatorAction; 1] {
    [OperatorAction { kind, transaction }]
}

#[test]
fn s60_a_mismatch_is_not_hidden_behind_an_older_contradiction() {
    let (mut world, id) = declined_and_done_for_90();
    let open: Vec<_> = world.held().open_cases.iter().collect();
    assert_eq!(open, [ContradictingFact, AmountMismatch]);
    // The same finding opens neither again.
    world.learn(id, &told(approved(90)));
    assert_eq!(world.opened(), None);
    world.resolve(Resolution::Acknowledged).unwrap();
    assert_eq!(world.change().closes_cases, case(ContradictingFact, id));
    let open: Vec<_> = world.held().open_cases.iter().collect();
    assert_eq!(open, [AmountMismatch]);
    world.resolve(Resolution::Acknowledged).unwrap();
    assert_eq!(world.change().closes_cases, case(AmountMismatch, id));
    assert!(world.held().open_cases.is_empty());
}

#[test]
fn s60_deciding_a_mismatch_leaves_an_older_contradiction_open() {
    let (mut world, id) = declined_and_done_for_90();
    world.resolve(moved(90)).unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.record.payment.amounts.captured, 90);
    assert_eq!(world.change().closes_cases, case(AmountMismatch, id));
    assert_eq!(world.opened(), None, "it is open already");
    let open: Vec<_> = world.held().open_cases.iter().collect();
    assert_eq!(open, [ContradictingFact]);
}
