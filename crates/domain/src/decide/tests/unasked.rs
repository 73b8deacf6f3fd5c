//! What nobody here asked for: refunds, captures and voids made in the provider's dashboard, and disputes.

use super::*;
use crate::change::OperatorActionKind;
use crate::decide::{self, DecideError, Reported, Unasked};
use crate::decline::Cause;
use crate::error::Rejection;
use crate::payment::{MAX_RECORDED_TRANSACTIONS, MAX_TRANSACTIONS, PaymentState};
use crate::transaction::{Dispute, TransactionKind as Kind, TransactionOrigin};

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    Recorded,
    NoNews,
    Early,
    Nameless,
}

fn failed() -> FactKind {
    FactKind::Failed(Cause::ProviderReportedFailure)
}

pub(super) fn dispute(amount: Money) -> Dispute {
    Dispute {
        reason: Text::parse("4853").unwrap(),
        due_at: Some(start()),
        amount,
    }
}

pub(super) fn named(reference: &str, kind: FactKind) -> Fact {
    Fact {
        kind,
        provider_reference: ProviderReference::parse(reference).ok(),
        payment_reference: None,
    }
}

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::parse("USD").unwrap()).unwrap()
}

fn in_usd(minor: i64) -> FactKind {
    FactKind::Approved {
        amount: Some(usd(minor)),
        expires_at: None,
    }
}

impl World {
    /// Hears of an operation as a webhook names it.
    fn hear(&mut self, kind: Kind, reference: &str, fact: FactKind) -> Became {
        self.hear_of(kind, None, &named(reference, fact))
    }

    pub(super) fn try_hear(
        &mut self,
        kind: Kind,
        dispute: Option<&Dispute>,
        fact: &Fact,
    ) -> Result<Option<Change>, DecideError> {
        self.ticks += 1;
        let stamp = stamp(&self.caller, &self.instance, self.ticks);
        let account = ProviderAccount::parse("sandbox").unwrap();
        let told = Unasked {
            kind,
            dispute,
            account: &account,
            captures_once: false,
        };
        let change = match decide::reported(&self.record, kind, fact) {
            Reported::Known(id) => decide::fact_about(&self.record, id, (fact, dispute), &stamp)?,
            Reported::Unknown => decide::unasked(&self.record, &told, fact, &stamp)?,
            Reported::Early | Reported::Nameless => None,
        };
        if let Some(change) = &change {
            self.record = change.apply_to(Some(self.record.clone()));
            self.changes.push(change.clone());
        }
        Ok(change)
    }

    fn hear_of(&mut self, kind: Kind, dispute: Option<&Dispute>, fact: &Fact) -> Became {
        match decide::reported(&self.record, kind, fact) {
            Reported::Early => return Became::Early,
            Reported::Nameless => return Became::Nameless,
            Reported::Known(_) | Reported::Unknown => {}
        }
        match self.try_hear(kind, dispute, fact).unwrap() {
            Some(_) => Became::Recorded,
            None => Became::NoNews,
        }
    }

    fn charge_back(&mut self, reference: &str, amount: i64) -> Became {
        let about = dispute(eur(amount));
        let fact = named(reference, approved(amount));
        self.hear_of(Kind::Chargeback, Some(&about), &fact)
    }

    fn case(&self) -> Option<OperatorActionKind> {
        let action = self.changes.last().unwrap().operator_action;
        action.map(|action| action.kind)
    }

    fn last_event(&self) -> &str {
        &self.changes.last().unwrap().entry.event_type
    }

    fn row(&self) -> &Transaction {
        self.record.transactions.last().unwrap()
    }
}

#[test]
fn a_refund_in_the_dashboard_is_a_transaction_of_the_provider() {
    let mut world = World::captured(100);
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::Recorded
    );
    let row = world.row();
    assert_eq!(
        (row.origin, row.state, row.amount, row.attempts),
        (
            TransactionOrigin::Provider,
            TransactionState::Succeeded,
            30,
            0
        )
    );
    assert_eq!(row.provider_reference.as_ref().unwrap().as_str(), "re_1");
    assert_eq!((row.next_step_at, row.lease_until), (None, None));
    let payment = &world.record.payment;
    assert_eq!(payment.state, PaymentState::PartiallyRefunded);
    assert_eq!(
        (payment.amounts.refunded, payment.amounts.refundable()),
        (30, 70)
    );
    assert_eq!(
        (world.last_event(), world.case()),
        ("refund.succeeded", None)
    );
    let entry = &world.changes.last().unwrap().entry;
    assert_eq!(entry.actor, "sandbox", "the provider's word");
}

#[test]
fn two_refunds_in_the_dashboard_that_look_alike_are_two() {
    let mut world = World::captured(100);
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::Recorded
    );
    assert_eq!(
        world.hear(Kind::Refund, "re_2", approved(30)),
        Became::Recorded
    );
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::NoNews,
        "told twice"
    );
    assert_eq!(world.record.payment.amounts.refunded, 60);
    assert_eq!(world.record.transactions.len(), 3);
}

#[test]
fn s43_a_refund_in_the_dashboard_that_fails_later_gives_its_amount_back() {
    let mut world = World::captured(100);
    world.hear(Kind::Refund, "re_1", approved(30));
    assert_eq!(world.hear(Kind::Refund, "re_1", failed()), Became::Recorded);
    assert_eq!(world.row().state, TransactionState::Reversed);
    assert_eq!(world.record.payment.amounts.refundable(), 100);
    assert_eq!(world.record.payment.state, PaymentState::Captured);
}

#[test]
fn s52_a_refund_told_to_have_failed_first_is_kept_as_such() {
    let mut world = World::captured(100);
    assert_eq!(world.hear(Kind::Refund, "re_1", failed()), Became::Recorded);
    assert_eq!(world.row().state, TransactionState::Failed);
    assert_eq!(world.record.payment.amounts.refunded, 0);
    // Whether its success is older is for the provider to say; if it confirms it, it is booked.
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::Recorded
    );
    assert_eq!(world.record.payment.amounts.refunded, 30);
    assert_eq!(world.case(), Some(OperatorActionKind::ContradictingFact));
}

#[test]
fn a_refund_in_the_dashboard_is_recorded_once_it_ends() {
    let mut world = World::captured(100);
    assert_eq!(
        world.hear(Kind::Refund, "re_1", FactKind::Pending),
        Became::NoNews
    );
    assert_eq!(world.record.transactions.len(), 1);
}

#[test]
fn a_refund_beyond_what_is_left_is_excess_and_a_person_is_asked() {
    let mut world = World::captured(100);
    world.refund(Some(80)).unwrap();
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(50)),
        Became::Recorded
    );
    let amounts = world.record.payment.amounts;
    assert_eq!(
        (amounts.refunded, amounts.refund_pending, amounts.excess),
        (20, 80, 30)
    );
    assert_eq!(world.case(), Some(OperatorActionKind::ExcessAmount));
    // Ours is refused, since nothing is left: then there was no excess.
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    let amounts = world.record.payment.amounts;
    assert_eq!(
        (amounts.refunded, amounts.refund_pending, amounts.excess),
        (50, 0, 0)
    );
}

#[test]
fn a_refund_in_another_currency_waits_for_a_person() {
    let mut world = World::captured(100);
    assert_eq!(
        world.hear(Kind::Refund, "re_1", in_usd(30)),
        Became::Recorded
    );
    assert_eq!(
        (world.row().state, world.row().amount),
        (TransactionState::Pending, 0)
    );
    assert_eq!(world.case(), Some(OperatorActionKind::AmountMismatch));
    assert_eq!(
        world.record.payment.amounts.refund_pending, 0,
        "it holds nothing back"
    );
    assert_eq!(world.hear(Kind::Refund, "re_1", in_usd(30)), Became::NoNews);
}

#[test]
fn a_refund_that_may_be_ours_waits_until_ours_has_a_name() {
    let mut world = World::captured(100);
    world.refund(Some(30)).unwrap();
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::Early
    );
    assert_eq!(
        world.hear(Kind::Refund, "re_2", approved(20)),
        Became::Recorded,
        "another amount"
    );
    let refund = world.record.transactions[1].id;
    assert!(world.learn(refund, &named("re_1", approved(30))));
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::NoNews
    );
    assert_eq!(world.record.payment.amounts.refunded, 50);
}

#[test]
fn nothing_is_recorded_before_what_it_rests_on_is_decided() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.tampered = true;
    let purchase = world.newest();
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::Early
    );
    assert_eq!(world.charge_back("dp_1", 100), Became::Early);
    // Nobody will decide it without a person: what is proved is recorded all the same.
    world.record.transactions[0].next_step_at = None;
    assert_eq!(
        world.hear(Kind::Refund, "re_1", approved(30)),
        Became::Recorded
    );
    assert_eq!(world.record.payment.amounts.excess, 30);
    assert!(world.learn(purchase, &told(approved(100))));
    let amounts = world.record.payment.amounts;
    assert_eq!(
        (amounts.captured, amounts.refunded, amounts.excess),
        (100, 30, 0)
    );
    assert_eq!(world.record.payment.state, PaymentState::PartiallyRefunded);
}

#[test]
fn a_report_that_names_nothing_or_opens_a_payment_is_none() {
    let mut world = World::captured(100);
    let nameless = Fact {
        provider_reference: None,
        ..told(approved(1))
    };
    assert_eq!(
        world.hear_of(Kind::Refund, None, &nameless),
        Became::Nameless
    );
    assert_eq!(
        world.hear(Kind::Purchase, "pi_1", approved(100)),
        Became::Nameless
    );
}

#[test]
fn a_capture_in_the_dashboard_takes_what_it_takes() {
    let mut world = World::authorized(100);
    assert_eq!(
        world.hear(Kind::Capture, "cap_1", approved(60)),
        Became::Recorded
    );
    assert_eq!(world.record.payment.state, PaymentState::PartiallyCaptured);
    assert_eq!(world.record.payment.amounts.capturable(), 40);
    // Ours was under way: together they are too much.
    world.capture(Some(40), false).unwrap();
    assert_eq!(
        world.hear(Kind::Capture, "cap_2", approved(10)),
        Became::Recorded
    );
    assert_eq!(world.record.payment.amounts.excess, 10);
    assert_eq!(world.case(), Some(OperatorActionKind::ExcessAmount));
}

#[test]
fn where_the_provider_captures_once_the_rest_is_released() {
    let mut world = World::authorized(100);
    let account = ProviderAccount::parse("sandbox").unwrap();
    let told = Unasked {
        kind: Kind::Capture,
        dispute: None,
        account: &account,
        captures_once: true,
    };
    let fact = named("cap_1", approved(60));
    world
        .decide(|record, _, stamp| decide::unasked(record, &told, &fact, stamp).map(Option::unwrap))
        .unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(world.record.payment.amounts.voided, 40);
}

#[test]
fn s35_a_void_in_the_dashboard_releases_what_is_left_also_under_our_capture() {
    let mut world = World::authorized(100);
    assert_eq!(
        world.hear(Kind::Void, "vo_1", approved(100)),
        Became::Recorded
    );
    assert_eq!(
        (world.row().amount, world.row().state),
        (100, TransactionState::Succeeded)
    );
    assert_eq!(world.record.payment.state, PaymentState::Voided);
    assert_eq!(
        world.hear(Kind::Void, "vo_2", approved(100)),
        Became::NoNews,
        "nothing is left"
    );

    let mut world = World::authorized(100);
    world.capture(Some(60), false).unwrap();
    let capture = world.newest();
    assert_eq!(
        world.hear(Kind::Void, "vo_1", approved(40)),
        Became::Recorded
    );
    assert_eq!(world.record.payment.amounts.voided, 40);
    assert!(world.learn(capture, &told(failed())));
    assert_eq!(
        world.record.payment.amounts.capturable(),
        0,
        "that is gone as well"
    );
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

#[test]
fn a_void_that_is_told_is_ours_while_ours_is_open() {
    let mut world = World::authorized(100);
    world.void().unwrap();
    let void = world.newest();
    assert_eq!(
        world.hear(Kind::Void, "pi_1", approved(100)),
        Became::Recorded
    );
    assert_eq!(world.state_of(void), TransactionState::Succeeded);
    assert_eq!(world.record.transactions.len(), 2);
    assert_eq!(world.record.payment.state, PaymentState::Voided);
}

#[test]
fn a_payment_that_is_cancelled_in_the_dashboard_never_comes_to_be() {
    for method in [CaptureMethod::Automatic, CaptureMethod::Manual] {
        let mut world = World::accepted(100, method);
        let opening = world.newest();
        assert_eq!(
            world.hear(Kind::Void, "pi_1", approved(100)),
            Became::Recorded
        );
        assert_eq!(world.record.payment.state, PaymentState::Voided);
        assert_eq!(world.state_of(opening), TransactionState::Failed);
        if method == CaptureMethod::Manual {
            // It had been authorized first: the same void released it.
            assert!(world.learn(opening, &told(approved(100))));
            assert_eq!(world.record.payment.state, PaymentState::Voided);
            assert_eq!(world.case(), None);
        }
    }
}

#[test]
fn s44_a_chargeback_takes_money_back_and_is_won() {
    let mut world = World::captured(100);
    assert_eq!(world.charge_back("dp_1", 100), Became::Recorded);
    let payment = &world.record.payment;
    assert!(payment.disputed);
    assert_eq!(
        (payment.amounts.charged_back, payment.amounts.refundable()),
        (100, 0)
    );
    assert_eq!(payment.state, PaymentState::Captured);
    assert_eq!(world.row().dispute, Some(dispute(eur(100))));
    let details = world.changes.last().unwrap().entry.leaf.as_bytes();
    let details = String::from_utf8(details.to_vec()).unwrap();
    for part in [
        "\"dispute_reason\":\"4853\"",
        "\"dispute_amount_minor\":\"100\"",
        "\"origin\":\"PROVIDER\"",
    ] {
        assert!(details.contains(part), "{part} in {details}");
    }
    assert_eq!(world.charge_back("dp_1", 100), Became::NoNews);
    // Won: the reversal goes by the same reference.
    assert_eq!(
        world.hear(Kind::ChargebackReversal, "dp_1", approved(100)),
        Became::Recorded
    );
    let payment = &world.record.payment;
    assert!(!payment.disputed);
    assert_eq!(
        (payment.amounts.charged_back, payment.amounts.refundable()),
        (0, 100)
    );
    assert_eq!(world.last_event(), "chargeback.reversed");
}

#[test]
fn s45_a_chargeback_of_an_unsaid_amount_waits_for_a_person_who_says_it() {
    let mut world = World::captured(100);
    let unsaid = FactKind::Approved {
        amount: None,
        expires_at: None,
    };
    let told = world.hear(Kind::Chargeback, "dp_1", unsaid.clone());
    assert_eq!(told, Became::Recorded);
    assert_eq!(world.row().state, TransactionState::Pending);
    assert_eq!(world.case(), Some(OperatorActionKind::AmountMismatch));
    assert!(world.record.payment.disputed);
    let told = world.hear(Kind::Chargeback, "dp_1", unsaid);
    assert_eq!(told, Became::NoNews);
    let (id, found) = (world.row().id, recovery::moved(40));
    world.resolve_of(id, found, None).unwrap();
    let payment = &world.record.payment;
    assert_eq!((payment.amounts.charged_back, payment.disputed), (40, true));
}

/// Adyen tells both times that money is returned by the same name.
#[test]
fn s44_what_may_be_returned_a_second_time_asks_a_person() {
    let reversal = Kind::ChargebackReversal;
    let mut world = World::captured(100);
    world.charge_back("dp_1", 100);
    world.hear(reversal, "dp_1", approved(100));
    // Another dispute has nothing to do with it.
    world.charge_back("dp_12", 10);
    let told = world.hear(reversal, "dp_1", approved(100));
    assert_eq!(told, Became::NoNews);
    world.charge_back("dp_1/second", 90);
    let before = world.record.payment.amounts;
    let told = world.hear(reversal, "dp_1", approved(100));
    assert_eq!(told, Became::Recorded);
    assert_eq!(world.last_event(), "chargeback_reversal.contradicted");
    assert_eq!(world.case(), Some(OperatorActionKind::ContradictingFact));
    assert_eq!(world.record.payment.amounts, before);
    let told = world.hear(reversal, "dp_1", approved(100));
    assert_eq!(told, Became::NoNews, "once");
}

/// Won, and then lost on appeal: the later word is true, in whatever order both are told.
#[test]
fn s44_what_a_won_dispute_returned_is_charged_back_again_when_it_is_lost_after_all() {
    let lost = FactKind::TakenBack(Cause::ProviderReportedFailure);
    let reversal = Kind::ChargebackReversal;
    let mut world = World::captured(100);
    world.charge_back("dp_1", 100);
    // That nothing is returned is no transaction.
    assert_eq!(world.hear(reversal, "dp_1", lost.clone()), Became::NoNews);
    for round in 0..2 {
        let returned = world.hear(reversal, "dp_1", approved(100));
        assert_eq!(returned, Became::Recorded);
        let payment = &world.record.payment;
        assert_eq!((payment.disputed, payment.amounts.charged_back), (false, 0));
        // It had been told to be lost: a person is told that it is not.
        let told_otherwise = (round > 0).then_some(OperatorActionKind::ContradictingFact);
        assert_eq!(world.row().open_cases.first(), told_otherwise);

        let taken = world.hear(reversal, "dp_1", lost.clone());
        assert_eq!(taken, Became::Recorded);
        let payment = &world.record.payment;
        assert_eq!(
            (payment.disputed, payment.amounts.charged_back),
            (true, 100)
        );
        assert_eq!(payment.amounts.refundable(), 0);
        assert_eq!(world.last_event(), "chargeback_reversal.reversed");
        assert_eq!(world.row().state, TransactionState::Reversed);
        assert_eq!(
            world.row().open_cases.first(),
            Some(OperatorActionKind::ContradictingFact)
        );
        let again = world.hear(reversal, "dp_1", lost.clone());
        assert_eq!(again, Became::NoNews);
    }
}

#[test]
fn s44_what_waits_for_a_person_of_a_dispute_that_is_lost_after_all_is_closed() {
    let mut world = World::captured(100);
    world.charge_back("dp_1", 100);
    let about = dispute(usd(120));
    let returned = named("dp_1", in_usd(120));
    world.hear_of(Kind::ChargebackReversal, Some(&about), &returned);
    assert_eq!(
        world.row().open_cases.first(),
        Some(OperatorActionKind::AmountMismatch)
    );
    let lost = FactKind::TakenBack(Cause::ProviderReportedFailure);
    world.hear(Kind::ChargebackReversal, "dp_1", lost);
    assert_eq!(
        (world.row().state, world.row().open_cases.first()),
        (TransactionState::Failed, None)
    );
    let payment = &world.record.payment;
    assert_eq!(
        (payment.disputed, payment.amounts.charged_back),
        (true, 100)
    );
}

#[test]
fn s45_a_part_that_was_returned_and_is_taken_again_is_booked_as_far_as_it_reaches() {
    let mut world = World::captured(100);
    world.charge_back("dp_1", 150);
    world.hear(Kind::ChargebackReversal, "dp_1", approved(90));
    assert_eq!(world.record.payment.amounts.charged_back, 60);
    let lost = FactKind::TakenBack(Cause::ProviderReportedFailure);
    world.hear(Kind::ChargebackReversal, "dp_1", lost);
    let amounts = &world.record.payment.amounts;
    assert_eq!((amounts.charged_back, amounts.excess), (100, 50));
}

#[test]
fn s44_a_payment_stays_disputed_while_anything_is_charged_back() {
    let mut world = World::captured(100);
    world.charge_back("dp_1", 30);
    world.charge_back("dp_2", 20);
    world.hear(Kind::ChargebackReversal, "dp_1", approved(30));
    assert!(world.record.payment.disputed);
    assert_eq!(world.record.payment.amounts.charged_back, 20);
    world.hear(Kind::ChargebackReversal, "dp_2", approved(20));
    assert!(!world.record.payment.disputed);
}

#[test]
fn s52_a_reversal_that_is_told_before_its_chargeback_leaves_nothing_charged_back() {
    for amount in [100, 150] {
        let mut world = World::captured(100);
        assert_eq!(
            world.hear(Kind::ChargebackReversal, "dp_1", approved(amount)),
            Became::Recorded
        );
        assert!(!world.record.payment.disputed);
        assert_eq!(world.charge_back("dp_1", amount), Became::Recorded);
        let payment = &world.record.payment;
        assert!(!payment.disputed);
        assert_eq!(
            (payment.amounts.charged_back, payment.amounts.excess),
            (0, 0)
        );
    }
}

#[test]
fn an_inquiry_disputes_and_moves_nothing_until_it_is_closed_or_becomes_a_chargeback() {
    for ends in [failed(), approved(100)] {
        let mut world = World::captured(100);
        let about = dispute(eur(100));
        let inquiry = named("dp_1", FactKind::Pending);
        assert_eq!(
            world.hear_of(Kind::Chargeback, Some(&about), &inquiry),
            Became::Recorded
        );
        assert_eq!(world.row().state, TransactionState::Pending);
        assert_eq!((world.row().amount, world.row().next_step_at), (100, None));
        assert!(world.record.payment.disputed);
        assert_eq!(world.record.payment.amounts.charged_back, 0);
        assert_eq!(world.record.payment.amounts.refundable(), 100);
        assert_eq!(world.last_event(), "chargeback.inquiry_opened");
        assert_eq!(
            world.hear_of(Kind::Chargeback, Some(&about), &inquiry),
            Became::NoNews
        );
        let lost = ends == approved(100);
        assert_eq!(world.hear(Kind::Chargeback, "dp_1", ends), Became::Recorded);
        assert_eq!(world.record.payment.disputed, lost);
        assert_eq!(
            world.record.payment.amounts.charged_back,
            if lost { 100 } else { 0 }
        );
        let (state, event) = if lost {
            (TransactionState::Succeeded, "chargeback.opened")
        } else {
            (TransactionState::Failed, "chargeback.closed")
        };
        assert_eq!((world.row().state, world.last_event()), (state, event));
        assert_eq!(world.case(), None);
        assert_eq!(
            world.hear_of(Kind::Chargeback, Some(&about), &inquiry),
            Became::NoNews,
            "an older word"
        );
    }
}

#[test]
fn an_inquiry_is_never_taken_up_by_recovery() {
    let mut world = World::captured(100);
    let inquiry = named("dp_1", FactKind::Pending);
    world.hear_of(Kind::Chargeback, Some(&dispute(eur(100))), &inquiry);
    let id = world.newest();
    let sent = world.decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()));
    assert_eq!(sent, Err(()));
    let given_up = world.decide(|record, _, stamp| try_give_up(record, id, stamp).ok_or(()));
    assert_eq!(given_up, Err(()));
    assert_eq!(world.row().next_step_at, None);
}

#[test]
fn s45_a_dispute_above_the_payment_is_booked_as_far_as_it_reaches() {
    let mut world = World::captured(100);
    assert_eq!(world.charge_back("dp_1", 150), Became::Recorded);
    let payment = &world.record.payment;
    assert_eq!(
        (payment.amounts.charged_back, payment.amounts.excess),
        (100, 50)
    );
    assert_eq!((world.row().amount, payment.disputed), (150, true));
    assert_eq!(world.case(), Some(OperatorActionKind::ExcessAmount));
    world.hear(Kind::ChargebackReversal, "dp_1", approved(150));
    let payment = &world.record.payment;
    assert_eq!(
        (payment.amounts.charged_back, payment.amounts.excess),
        (0, 0)
    );
}

#[test]
fn s45_what_was_refunded_and_is_charged_back_too_is_shown_to_a_person() {
    let mut world = World::captured(100);
    world.hear(Kind::Refund, "re_1", approved(40));
    assert_eq!(world.charge_back("dp_1", 100), Became::Recorded);
    let amounts = world.record.payment.amounts;
    assert_eq!(
        (amounts.refunded, amounts.charged_back, amounts.excess),
        (40, 100, 0)
    );
    assert_eq!(
        world.case(),
        Some(OperatorActionKind::ExcessAmount),
        "40 left twice"
    );
    assert_eq!(amounts.refundable(), 0);
}

#[test]
fn s45_a_dispute_in_another_currency_is_recorded_and_waits_for_a_person() {
    let mut world = World::captured(100);
    let about = dispute(usd(120));
    let fact = named("dp_1", in_usd(120));
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&about), &fact),
        Became::Recorded
    );
    assert_eq!(world.row().dispute, Some(about));
    assert_eq!(
        (world.row().state, world.row().amount),
        (TransactionState::Pending, 0)
    );
    assert!(world.record.payment.disputed);
    assert_eq!(world.case(), Some(OperatorActionKind::AmountMismatch));
    // Where the provider says what it took in the payment's currency, that is booked.
    let mut world = World::captured(100);
    let fact = named("dp_1", approved(95));
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&dispute(usd(120))), &fact),
        Became::Recorded
    );
    assert_eq!(world.record.payment.amounts.charged_back, 95);
    assert_eq!(world.case(), None);
}

#[test]
fn a_chargeback_of_a_payment_that_failed_is_recorded_and_shown_to_a_person() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert_eq!(world.charge_back("dp_1", 100), Became::Recorded);
    assert_eq!(world.record.payment.state, PaymentState::Failed);
    assert_eq!(world.record.payment.amounts.excess, 100);
    assert!(world.record.payment.disputed);
    assert!(world.case().is_some());
}

#[test]
fn i12_the_provider_s_facts_are_recorded_beyond_what_commands_may_make_up_to_a_limit() {
    let mut world = World::captured(100_000);
    let report = |world: &mut World, n: usize| {
        let fact = named(&format!("re_{n}"), approved(1));
        world.try_hear(Kind::Refund, None, &fact)
    };
    for n in 1..MAX_TRANSACTIONS {
        report(&mut world, n).unwrap();
    }
    let too_many = Err(DecideError::Rejected(Rejection::TooManyTransactions));
    assert_eq!(world.refund(Some(1)), too_many);
    // The rest without deciding each.
    let mut filler = world.row().clone();
    filler.state = TransactionState::Failed;
    world.tampered = true;
    while world.record.transactions.len() < MAX_RECORDED_TRANSACTIONS - 1 {
        world.record.transactions.push(filler.clone());
    }
    assert!(report(&mut world, 5_000).unwrap().is_some());
    assert_eq!(
        report(&mut world, 5_001),
        Err(DecideError::Rejected(Rejection::TooManyTransactions))
    );
}

#[test]
fn s44_a_dispute_whose_data_changes_is_kept_as_it_is_now() {
    let mut world = World::captured(100);
    let fact = named("dp_1", approved(100));
    let about = dispute(eur(100));
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&about), &fact),
        Became::Recorded
    );
    let amounts = world.record.payment.amounts;
    let later = Dispute {
        due_at: Some(start() + TimeDelta::days(9)),
        ..about.clone()
    };
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&later), &fact),
        Became::Recorded
    );
    assert_eq!(world.row().dispute.as_ref(), Some(&later));
    assert_eq!(world.last_event(), "chargeback.updated");
    assert_eq!(world.record.payment.amounts, amounts);
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&later), &fact),
        Became::NoNews
    );
    // Another amount is not booked without a person.
    let more = named("dp_1", approved(120));
    let about_more = dispute(eur(120));
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&about_more), &more),
        Became::Recorded
    );
    assert_eq!(world.row().dispute.as_ref(), Some(&about_more));
    assert_eq!(world.case(), Some(OperatorActionKind::ContradictingFact));
    assert_eq!(world.record.payment.amounts, amounts);
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&about_more), &more),
        Became::NoNews
    );
    world.hear_of(Kind::Chargeback, Some(&later), &fact);
    // What was said of the inquiry before it became a chargeback is older.
    let inquiry = named("dp_1", FactKind::Pending);
    assert_eq!(
        world.hear_of(Kind::Chargeback, Some(&about), &inquiry),
        Became::NoNews
    );
    assert_eq!(world.row().dispute.as_ref(), Some(&later));
}

#[test]
fn i5_a_void_that_waited_releases_what_the_provider_has_not_captured_by_itself() {
    for captured in [1, 100] {
        let mut world = World::accepted(100, CaptureMethod::Manual);
        let opening = world.newest();
        // Left to a person, so that nothing is waited for: what rests on it may be told before it.
        world.answer(approved(101));
        let heard = world.hear(Kind::Capture, "op-1", approved(captured));
        assert_eq!(heard, Became::Recorded);
        world.void().unwrap();
        let void = world.newest();
        assert!(world.learn(opening, &told(approved(100))));
        let amounts = world.record.payment.amounts;
        assert!(amounts.holds_limits(), "{amounts:?}");
        assert_eq!(
            (amounts.captured, amounts.void_pending),
            (captured, 100 - captured)
        );
        let void = world.record.transaction(void).unwrap();
        let failed = void.failure.map(|failure| failure.cause);
        let nothing_left = (captured == 100).then_some(Cause::AlreadyCaptured);
        assert_eq!((void.amount, failed), (100 - captured, nothing_left));
    }
}

/// What Adyen tells of a dispute, which it tells in any order and cannot be asked about.
#[test]
fn s52_a_dispute_ends_as_in_order_whatever_order_it_is_told_in() {
    let given_up = declined();
    let inquiry = [
        (Kind::Chargeback, FactKind::Pending),
        (Kind::Chargeback, given_up.clone()),
    ];
    let kept = [
        (Kind::Chargeback, approved(100)),
        (Kind::Chargeback, given_up.clone()),
    ];
    let returned = [
        (Kind::Chargeback, FactKind::Pending),
        (Kind::Chargeback, approved(100)),
        (Kind::Chargeback, given_up),
        (Kind::ChargebackReversal, approved(100)),
    ];
    for story in [&inquiry[..], &kept, &returned] {
        let ended = |order: &[usize]| {
            let mut world = World::captured(100);
            let about = dispute(eur(100));
            for at in order {
                let (kind, fact) = story[*at].clone();
                world.hear_of(kind, Some(&about), &named("DISPUTE1", fact));
            }
            let mut rows: Vec<_> = world
                .record
                .transactions
                .iter()
                .map(|row| (row.kind, row.state, row.amount, row.decline.clone()))
                .collect();
            rows.sort_by_key(|(kind, ..)| kind.name());
            let cases: Vec<_> = world
                .changes
                .iter()
                .filter_map(|change| change.operator_action)
                .map(|action| action.kind)
                .collect();
            let payment = &world.record.payment;
            (
                rows,
                payment.state,
                payment.amounts,
                payment.disputed,
                cases,
            )
        };
        let in_order: Vec<_> = (0..story.len()).collect();
        let expected = ended(&in_order);
        for order in orders(&in_order) {
            assert_eq!(ended(&order), expected, "{story:?} in {order:?}");
        }
    }
}

/// All orders of these.
fn orders(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in of {
        let rest: Vec<_> = of.iter().copied().filter(|it| it != first).collect();
        for order in orders(&rest) {
            all.push([&[*first][..], &order].concat());
        }
    }
    all
}
