//! What was done and is taken back: told after its success, or before it.

use super::unasked::named;
use super::*;
use crate::cases::OpenCases;
use crate::change::OperatorActionKind;
use crate::command::{Resolution, Resolve};
use crate::decide::{self, DecideError, taken_back_early};
use crate::decline::Cause;
use crate::error::Rejection;
use crate::payment::{NextAction, PaymentState};
use crate::transaction::{TransactionKind as Kind, TransactionOrigin};

fn taken_back() -> FactKind {
    FactKind::TakenBack(Cause::ProviderReportedFailure)
}

impl World {
    fn events(&self) -> Vec<&str> {
        let entries = self.changes.iter();
        entries
            .map(|change| change.entry.event_type.as_str())
            .collect()
    }

    /// How the newest transaction and the payment stand, and which case is open.
    fn standing(&self) -> (TransactionState, PaymentState, Option<OperatorActionKind>) {
        let row = self.record.transactions.last().unwrap();
        (row.state, self.record.payment.state, row.open_cases.first())
    }
}

/// A refund or a capture that the provider has received, under way.
fn under_way(kind: Kind) -> World {
    let mut world = if kind == Kind::Refund {
        World::captured(100)
    } else {
        World::authorized(100)
    };
    if kind == Kind::Refund {
        world.refund(Some(40)).unwrap();
    } else {
        world.capture(Some(40), false).unwrap();
    }
    world.answer(FactKind::Pending);
    world
}

#[test]
fn s52_what_is_taken_back_before_its_success_is_told_ends_as_in_order() {
    // Also where it had been done for another amount than was asked.
    for (kind, moved) in [
        (Kind::Refund, 40),
        (Kind::Capture, 40),
        (Kind::Refund, 35),
        (Kind::Capture, 45),
    ] {
        let done = told(approved(moved));
        let undone = told(taken_back());
        let mut in_order = under_way(kind);
        let id = in_order.newest();
        assert!(in_order.learn(id, &done));
        assert!(in_order.learn(id, &undone));

        let mut world = under_way(kind);
        assert!(world.learn(id, &undone));
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.capture_pending, amounts.refund_pending), (0, 0));
        assert!(world.events().last().unwrap().ends_with(".failed"));
        assert_eq!(world.standing().2, None, "nothing was called done");
        assert!(!world.learn(id, &undone), "told twice");
        // The older word that it was done does not bring it back.
        assert!(world.learn(id, &done));
        assert!(!world.learn(id, &done));
        assert_eq!(world.standing(), in_order.standing(), "{kind} {moved}");
        assert_eq!(
            world.record.payment.amounts,
            in_order.record.payment.amounts
        );
        assert_eq!(world.state_of(id), TransactionState::Reversed);
    }
}

#[test]
fn s52_a_final_capture_that_is_taken_back_early_released_the_rest_all_the_same() {
    let (done, undone) = (told(approved(60)), told(taken_back()));
    let amounts = [vec![&done, &undone], vec![&undone, &done]].map(|facts| {
        let mut world = World::authorized(100);
        world.capture(Some(60), true).unwrap();
        world.answer(FactKind::Pending);
        let id = world.newest();
        for fact in facts {
            assert!(world.learn(id, fact));
        }
        world.record.payment.amounts
    });
    assert_eq!(amounts[0], amounts[1]);
    assert_eq!((amounts[0].voided, amounts[0].capturable()), (40, 60));
}

#[test]
fn s52_what_is_taken_back_of_a_released_authorization_cannot_be_captured_again() {
    let (done, undone) = (|amount| told(approved(amount)), told(taken_back()));
    for by_void in [false, true] {
        let close = |world: &mut World| {
            if by_void {
                world.void().unwrap();
            } else {
                world.capture(Some(30), true).unwrap();
            }
            world.newest()
        };
        let amounts = [false, true].map(|early| {
            let mut world = World::authorized(100);
            world.capture(Some(60), false).unwrap();
            let first = world.newest();
            world.answer(approved(60));
            let last = close(&mut world);
            let undo = |world: &mut World| assert!(world.learn(first, &undone));
            if early {
                undo(&mut world);
            }
            assert!(world.learn(last, &done(30)));
            if !early {
                undo(&mut world);
            }
            world.record.payment.amounts
        });
        assert_eq!(amounts[0], amounts[1]);
        assert_eq!(amounts[0].capturable(), 0);
    }
}

#[test]
fn what_had_no_room_is_no_excess_once_what_took_its_room_is_taken_back() {
    let mut world = World::authorized(100);
    world.capture(Some(88), true).unwrap();
    let capture = world.newest();
    world.answer(approved(88));
    world.refund(Some(48)).unwrap();
    let refund = world.newest();
    let in_the_dashboard = named("cap_2", approved(52));
    world
        .try_hear(Kind::Capture, None, &in_the_dashboard)
        .unwrap();
    assert_eq!(world.record.payment.amounts.excess, 40);
    assert!(world.learn(capture, &told(taken_back())));
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.captured, amounts.excess), (52, 0));
    assert!(world.learn(refund, &told(approved(48))));
    let amounts = world.record.payment.amounts;
    assert_eq!(
        (amounts.captured, amounts.refunded, amounts.excess),
        (52, 48, 0)
    );
}

#[test]
fn what_a_refund_held_of_a_capture_that_is_taken_back_is_released_with_the_rest() {
    for void_first in [false, true] {
        let mut world = World::authorized(100);
        world.capture(Some(60), false).unwrap();
        let capture = world.newest();
        world.answer(approved(60));
        let void = |world: &mut World| {
            world.void().unwrap();
            world.answer(approved(40));
        };
        if void_first {
            void(&mut world);
        }
        world.refund(Some(60)).unwrap();
        let refund = world.newest();
        assert!(world.learn(capture, &told(taken_back())));
        assert_eq!(world.record.payment.amounts.excess, 60);
        if !void_first {
            void(&mut world);
        }
        assert!(world.learn(refund, &told(declined())));
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.captured, amounts.excess), (0, 0));
        assert_eq!((amounts.voided, amounts.capturable()), (100, 0));
        assert_eq!(world.record.payment.state, PaymentState::Voided);
    }
}

#[test]
fn s52_a_refund_in_the_dashboard_that_is_taken_back_before_it_is_told_moves_nothing() {
    let mut world = World::captured(100);
    let hear = |world: &mut World, kind| {
        let fact = named("re_1", kind);
        world.try_hear(Kind::Refund, None, &fact).unwrap().is_some()
    };
    assert!(hear(&mut world, taken_back()));
    assert!(hear(&mut world, approved(30)));
    let row = world.record.transactions.last().unwrap();
    assert_eq!(
        (row.origin, row.state, row.amount),
        (TransactionOrigin::Provider, TransactionState::Reversed, 30)
    );
    assert_eq!(world.record.payment.amounts.refunded, 0);
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert!(!hear(&mut world, approved(30)));
}

#[test]
fn a_failure_that_turns_out_to_be_one_after_all_keeps_an_older_success_from_being_believed() {
    let mut world = under_way(Kind::Refund);
    let id = world.newest();
    let failed = FactKind::Failed(Cause::ProviderReportedFailure);
    assert!(world.learn(id, &told(failed)));
    assert!(world.learn(id, &told(taken_back())));
    assert!(world.learn(id, &told(approved(40))));
    assert_eq!(world.state_of(id), TransactionState::Reversed);
    assert_eq!(world.record.payment.amounts.refunded, 0);
}

#[test]
fn the_capture_of_a_purchase_that_is_taken_back_is_no_longer_booked() {
    let mut world = World::captured(100);
    let purchase = world.newest();
    assert!(world.learn(purchase, &told(taken_back())));
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.authorized, amounts.captured), (100, 0));
    let case = Some(OperatorActionKind::ContradictingFact);
    let reversed = (TransactionState::Reversed, PaymentState::Authorized, case);
    assert_eq!(world.standing(), reversed);
    assert_eq!(world.events().last(), Some(&"payment.reversed"));
    assert!(!world.learn(purchase, &told(taken_back())));
    // What was refunded of it has left beyond what came in.
    let mut world = World::captured(100);
    world.refund(Some(30)).unwrap();
    world.answer(approved(30));
    assert!(world.learn(purchase, &told(taken_back())));
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.captured, amounts.excess), (30, 30));
}

#[test]
fn what_takes_back_a_purchase_waits_for_what_it_takes_back() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let purchase = world.newest();
    assert!(taken_back_early(
        &world.record.transactions[0],
        &told(taken_back())
    ));
    assert!(!world.learn(purchase, &told(taken_back())));
    world.answer(approved(100));
    assert!(!taken_back_early(
        &world.record.transactions[0],
        &told(taken_back())
    ));
}

#[test]
fn what_is_done_again_after_it_was_taken_back_is_shown_to_a_person() {
    let mut world = under_way(Kind::Capture);
    let id = world.newest();
    assert!(world.learn(id, &told(approved(40))));
    assert!(world.learn(id, &told(taken_back())));
    let before = world.record.payment.amounts;
    // On record also while the case about it is open, and once.
    assert!(world.learn(id, &told(approved(40))));
    assert_eq!(world.events().last(), Some(&"capture.contradicted"));
    assert!(!world.learn(id, &told(approved(40))));
    assert_eq!(world.record.payment.amounts, before);
    // Where the case was closed, it is opened again.
    let at = world.record.transactions.len() - 1;
    world.tampered = true;
    world.record.transactions[at].open_cases = OpenCases::NONE;
    assert!(world.learn(id, &told(approved(40))));
    let case = world.changes.last().unwrap().operator_action.unwrap().kind;
    assert_eq!(case, OperatorActionKind::ContradictingFact);
}

impl World {
    fn decided(&mut self, amount: Option<i64>) -> Result<(), DecideError> {
        let command = Resolve {
            payment: self.record.payment.id,
            transaction: self.newest(),
            resolution: Resolution::Succeeded {
                provider_reference: None,
                amount: amount.map(eur),
            },
            reason: Text::parse("captured again, says the Customer Area").unwrap(),
            evidence: Text::default(),
            seen_version: None,
        };
        self.decide(|record, _, stamp| decide::resolve(record, &command, stamp))
    }
}

impl World {
    fn taken_back_by_hand(
        &mut self,
        transaction: TransactionId,
        seen: bool,
    ) -> Result<(), DecideError> {
        let payment = &self.record.payment;
        let command = Resolve {
            payment: payment.id,
            transaction,
            resolution: Resolution::TakenBack,
            reason: Text::parse("rejected by the bank, says the Customer Area").unwrap(),
            evidence: Text::default(),
            seen_version: seen.then_some(payment.version),
        };
        self.decide(|record, _, stamp| decide::resolve(record, &command, stamp))
    }
}

#[test]
fn s51_what_the_provider_did_again_is_booked_by_a_person() {
    for kind in [Kind::Refund, Kind::Capture] {
        // Whether it is told again before the person looks, or not.
        for told_again in [true, false] {
            let mut world = under_way(kind);
            let id = world.newest();
            assert!(world.learn(id, &told(approved(40))));
            let done = world.record.payment.amounts;
            assert!(world.learn(id, &told(taken_back())));
            assert_eq!(
                told_again,
                told_again && world.learn(id, &told(approved(40)))
            );
            world.decided(None).unwrap();
            assert_eq!(world.record.payment.amounts, done, "{kind}");
            let row = world.record.transactions.last().unwrap();
            assert!(row.resolved_by_operator && row.open_cases.is_empty() && row.failure.is_none());
            assert_eq!(row.state, TransactionState::Succeeded);
            assert!(world.events().last().unwrap().ends_with(".succeeded"));
            let state = TransactionState::Succeeded;
            let ended = Err(Rejection::TransactionEnded { state }.into());
            assert_eq!(world.decided(None), ended, "once");
            // The provider has the last word.
            assert!(!world.learn(id, &told(approved(40))));
            assert!(world.learn(id, &told(taken_back())));
            let case = Some(OperatorActionKind::ContradictingFact);
            assert_eq!(
                (world.standing().0, world.standing().2),
                (TransactionState::Reversed, case)
            );
        }
    }
}

#[test]
fn s43_a_person_takes_a_success_back_where_nobody_was_told() {
    for kind in [Kind::Refund, Kind::Capture] {
        let mut world = under_way(kind);
        let id = world.newest();
        let before = world.record.payment.amounts;
        // Of what is not decided nobody says so, nor without having looked.
        let undecided = Err(Rejection::OutcomeUnknown.into());
        assert_eq!(world.taken_back_by_hand(id, true), undecided);
        assert!(world.learn(id, &told(approved(40))));
        let state = TransactionState::Succeeded;
        let ended = Err(Rejection::TransactionEnded { state }.into());
        assert_eq!(world.taken_back_by_hand(id, false), ended);
        world.taken_back_by_hand(id, true).unwrap();
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.refunded, before.refunded), (0, 0));
        assert_eq!(amounts.captured, before.captured);
        let row = world.record.transactions.last().unwrap();
        assert!(row.resolved_by_operator);
        assert_eq!(
            row.failure.as_ref().unwrap().cause,
            Cause::ResolvedByOperator
        );
        // Whoever was told otherwise is to be told.
        let case = Some(OperatorActionKind::ContradictingFact);
        assert_eq!(
            (world.standing().0, world.standing().2),
            (TransactionState::Reversed, case)
        );
        assert!(world.events().last().unwrap().ends_with(".reversed"));
        let state = TransactionState::Reversed;
        let ended = Err(Rejection::TransactionEnded { state }.into());
        assert_eq!(world.taken_back_by_hand(id, true), ended, "once");
    }
    // That of the payment itself is not for anybody to take back.
    let mut world = World::authorized(100);
    let id = world.newest();
    let state = TransactionState::Succeeded;
    let ended = Err(Rejection::TransactionEnded { state }.into());
    assert_eq!(world.taken_back_by_hand(id, true), ended);
}

#[test]
fn s51_a_purchase_that_was_captured_again_is_captured_and_not_authorized_twice() {
    let mut world = World::captured(100);
    let purchase = world.newest();
    assert!(world.learn(purchase, &told(taken_back())));
    world.decided(None).unwrap();
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.authorized, amounts.captured), (100, 100));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.events().last(), Some(&"payment.captured"));
}

#[test]
fn s51_what_was_done_again_in_part_or_beyond_what_is_left_is_booked_as_it_is() {
    let mut world = under_way(Kind::Capture);
    let id = world.newest();
    assert!(world.learn(id, &told(approved(40))));
    assert!(world.learn(id, &told(taken_back())));
    world.decided(Some(30)).unwrap();
    assert_eq!(world.record.payment.amounts.captured, 30);
    // The whole was captured anew meanwhile: what was captured twice is excess, and another case.
    let mut world = under_way(Kind::Capture);
    let id = world.newest();
    assert!(world.learn(id, &told(approved(40))));
    assert!(world.learn(id, &told(taken_back())));
    world.capture(None, false).unwrap();
    let again = world.newest();
    assert!(world.learn(again, &told(approved(100))));
    let command = Resolve {
        payment: world.record.payment.id,
        transaction: id,
        resolution: Resolution::Succeeded {
            provider_reference: None,
            amount: None,
        },
        reason: Text::parse("captured again").unwrap(),
        evidence: Text::default(),
        seen_version: None,
    };
    world
        .decide(|record, _, stamp| decide::resolve(record, &command, stamp))
        .unwrap();
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.captured, amounts.excess), (100, 40));
    assert_eq!(world.shown(id), [OperatorActionKind::ExcessAmount]);
}

#[test]
fn s51_without_a_case_about_it_what_was_taken_back_is_not_called_done() {
    let mut world = under_way(Kind::Refund);
    let id = world.newest();
    assert!(world.learn(id, &told(taken_back())));
    assert_eq!(world.standing().2, None);
    let state = TransactionState::Reversed;
    let ended = Err(Rejection::TransactionEnded { state }.into());
    assert_eq!(world.decided(None), ended);
}

/// An authorization of 100 under which this is under way, when it runs out.
fn ran_out(start: impl FnOnce(&mut World)) -> World {
    let mut world = World::authorized(100);
    start(&mut world);
    let opening = world.record.transactions[0].id;
    assert!(world.learn(opening, &told(FactKind::Expired)));
    assert!(
        !world.learn(opening, &told(FactKind::Expired)),
        "told twice"
    );
    world
}

#[test]
fn s40_an_authorization_that_runs_out_under_a_capture_of_all_of_it_is_gone_once_that_fails() {
    let failed = || told(FactKind::Failed(Cause::ProviderReportedFailure));
    for last in [false, true] {
        let mut world = ran_out(|world| world.capture(Some(100), last).unwrap());
        assert!(world.record.payment.expired);
        let id = world.newest();
        assert!(world.learn(id, &failed()));
        assert_eq!(world.record.payment.state, PaymentState::Expired);
        assert_eq!(world.record.payment.amounts.capturable(), 0);
        // Where it had been done before, it stays done.
        let mut world = ran_out(|world| world.capture(Some(100), last).unwrap());
        assert!(world.learn(id, &told(approved(100))));
        assert_eq!(world.record.payment.state, PaymentState::Captured);
        assert_eq!(world.record.payment.amounts.captured, 100);
    }
    // A final capture of a part holds the rest back too.
    let mut world = ran_out(|world| world.capture(Some(60), true).unwrap());
    let id = world.newest();
    assert!(world.learn(id, &failed()));
    assert_eq!(world.record.payment.state, PaymentState::Expired);
}

#[test]
fn s40_an_authorization_that_runs_out_under_a_void_is_gone_whatever_becomes_of_it() {
    for kind in [
        FactKind::Failed(Cause::ProviderReportedFailure),
        approved(100),
    ] {
        let mut world = ran_out(|world| world.void().unwrap());
        assert_eq!(world.record.payment.state, PaymentState::Expired);
        let id = world.newest();
        assert!(world.learn(id, &told(kind)));
        assert_eq!(world.record.payment.state, PaymentState::Expired);
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.voided, amounts.void_pending), (100, 0));
    }
}

/// As Adyen may tell it: the events come in any order.
#[test]
fn s52_an_authorization_that_is_told_to_have_run_out_before_it_was_told_ends_as_in_order() {
    // It was captured before; or it was made for another amount than was asked.
    for (captured, made) in [(false, 100), (true, 100), (false, 90)] {
        let ends = [false, true].map(|backwards| {
            let mut world = World::accepted(100, CaptureMethod::Manual);
            let opening = world.newest();
            let (made, ran_out) = (told(approved(made)), told(FactKind::Expired));
            let facts = if backwards {
                [&ran_out, &made]
            } else {
                [&made, &ran_out]
            };
            for fact in facts {
                assert!(world.learn(opening, fact));
            }
            if captured {
                let capture = named("cap-1", approved(30));
                let told = world.try_hear(Kind::Capture, None, &capture).unwrap();
                assert!(told.is_some());
            }
            let payment = &world.record.payment;
            assert_eq!(payment.amounts.capturable(), 0);
            let opening = &world.record.transactions[0];
            // Nobody is asked: it has run out, whenever that it was made is told.
            assert!(opening.open_cases.is_empty(), "{backwards}");
            (
                payment.state,
                payment.amounts,
                payment.expired,
                opening.state,
                opening.failure,
                opening.provider_reference.clone(),
            )
        });
        assert_eq!(ends[0], ends[1], "captured: {captured}, made for {made}");
    }
    // What is captured at once does not run out, in either order.
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let purchase = world.newest();
    assert!(world.learn(purchase, &told(FactKind::Expired)));
    assert!(world.learn(purchase, &told(approved(100))));
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(
        world.standing().2,
        Some(OperatorActionKind::ContradictingFact)
    );
}

#[test]
fn s40_what_was_authorized_runs_out_after_its_capture_was_taken_back() {
    let mut world = World::captured(100);
    let purchase = world.newest();
    assert!(world.learn(purchase, &told(taken_back())));
    assert_eq!(world.record.payment.state, PaymentState::Authorized);
    assert!(world.learn(purchase, &told(FactKind::Expired)));
    assert_eq!(world.record.payment.state, PaymentState::Expired);
    assert_eq!(world.record.payment.amounts.capturable(), 0);
    assert_eq!(world.state_of(purchase), TransactionState::Reversed);
}

#[test]
fn what_is_captured_or_released_whole_does_not_run_out() {
    let mut world = World::authorized(100);
    world.capture(None, false).unwrap();
    world.answer(approved(100));
    let opening = world.record.transactions[0].id;
    assert!(!world.learn(opening, &told(FactKind::Expired)));
    let mut world = World::authorized(100);
    world.void().unwrap();
    world.answer(approved(100));
    assert!(!world.learn(opening, &told(FactKind::Expired)));
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

/// A purchase that a provider captures later than it authorizes it can be cancelled in between.
#[test]
fn s52_a_void_of_a_purchase_takes_its_capture_back_in_either_order() {
    for ours in [false, true] {
        let ends = [false, true].map(|void_first| {
            let mut world = World::accepted(100, CaptureMethod::Automatic);
            let purchase = world.newest();
            let done = |world: &mut World| assert!(world.learn(purchase, &told(approved(100))));
            let cancelled = named("vo-1", approved(100));
            if ours {
                let action = FactKind::RequiresAction(NextAction {
                    redirect_url: Sensitive::default(),
                    data: Sensitive::default(),
                    may_take_days: false,
                });
                world.answer(action);
                world.void().unwrap();
                world.answer(FactKind::Pending);
            }
            if !void_first {
                done(&mut world);
                assert_eq!(world.record.payment.state, PaymentState::Captured);
            }
            let told = world.try_hear(Kind::Void, None, &cancelled).unwrap();
            assert!(told.is_some());
            let void_first_state = world.record.payment.state;
            if void_first {
                done(&mut world);
            }
            assert_eq!(void_first_state, PaymentState::Voided);
            let again = world.try_hear(Kind::Void, None, &cancelled).unwrap();
            let other = world.try_hear(Kind::Void, None, &named("vo-2", approved(100)));
            assert_eq!((again, other.unwrap()), (None, None), "told again");
            let rows = world.record.transactions.iter();
            let cases = rows.clone().flat_map(|row| row.open_cases.iter()).count();
            assert_eq!(cases, 1, "a person hears of it");
            let rows: Vec<_> = rows.map(|row| (row.kind, row.state, row.failure)).collect();
            (
                world.record.payment.state,
                world.record.payment.amounts,
                rows,
            )
        });
        assert_eq!(ends[0], ends[1], "ours: {ours}");
        let (state, amounts, rows) = &ends[0];
        assert_eq!(*state, PaymentState::Voided);
        assert_eq!((amounts.authorized, amounts.captured), (100, 0));
        assert_eq!((amounts.voided, amounts.excess), (100, 0));
        assert_eq!(rows[0].1, TransactionState::Reversed);
        assert_eq!(rows[1].1, TransactionState::Succeeded);
    }
}

#[test]
fn a_void_of_a_purchase_leaves_what_was_refunded_of_it_and_asks_a_person() {
    for refunded in [true, false] {
        let mut world = World::captured(100);
        world.refund(Some(30)).unwrap();
        let refund = world.newest();
        if refunded {
            world.answer(approved(30));
        }
        let cancelled = named("vo-1", approved(100));
        let told = world.try_hear(Kind::Void, None, &cancelled).unwrap();
        assert!(told.unwrap().operator_action.is_some());
        let amounts = world.record.payment.amounts;
        assert_eq!((amounts.captured, amounts.excess), (30, 30));
        assert_eq!((amounts.voided, amounts.capturable()), (70, 0));
        if !refunded {
            assert!(world.learn(refund, &super::told(declined())));
            let amounts = world.record.payment.amounts;
            assert_eq!((amounts.captured, amounts.excess), (0, 0));
            assert_eq!((amounts.voided, amounts.capturable()), (100, 0));
        }
    }
}
