//! What is told of another payment at the provider that bears our names: what it does is not done to ours.

use super::facts::action;
use super::unasked::named;
use super::*;
use crate::change::OperatorActionKind;
use crate::command::{Resolution, Resolve};
use crate::decide::{
    self, DecideError, Meant, Unasked, done_by_another_name, payment_meant, told_of_another,
    told_unclearly,
};
use crate::decline::Cause;
use crate::error::Rejection;
use crate::payment::PaymentState;
use crate::transaction::TransactionKind as Kind;

use OperatorActionKind::ContradictingFact;

impl World {
    fn meant(&self, id: Option<TransactionId>, fact: &Fact, named_once: bool) -> Meant {
        let held = id.map(|id| self.record.transaction(id).unwrap());
        payment_meant(&self.record, held, fact, named_once)
    }

    /// Puts on record what is told of another payment; whether it was news.
    fn hear_of_another(&mut self, kind: Kind, fact: &Fact) -> bool {
        let opening = self.record.transactions[0].id;
        let told = |record: &PaymentRecord, stamp: &Stamp<'_>| {
            let told = told_of_another(record, opening, (kind, fact), stamp);
            told.unwrap().ok_or(())
        };
        self.decide(|record, _, stamp| told(record, stamp)).is_ok()
    }
}

fn failed() -> FactKind {
    FactKind::Failed(Cause::ProviderReportedFailure)
}

/// What is told of an operation on the payment that the provider calls so.
fn of(payment: &str, reference: &str, kind: FactKind) -> Fact {
    Fact {
        payment_reference: ProviderReference::parse(payment).ok(),
        ..named(reference, kind)
    }
}

#[test]
fn i9_what_is_done_to_another_payment_with_our_names_is_not_done_to_ours() {
    let taken_back = FactKind::TakenBack(Cause::ProviderReportedFailure);
    for method in [CaptureMethod::Automatic, CaptureMethod::Manual] {
        let mut world = World::accepted(100, method);
        world.answer(approved(100));
        let opening = world.newest();
        for named_once in [true, false] {
            for kind in [
                approved(100),
                failed(),
                declined(),
                FactKind::Pending,
                taken_back.clone(),
            ] {
                let theirs = of("prov-2", "op-2", kind.clone());
                assert_eq!(world.meant(None, &theirs, named_once), Meant::Another);
                assert_eq!(
                    world.meant(Some(opening), &theirs, named_once),
                    Meant::Another
                );
                let ours = of("prov-1", "op-1", kind.clone());
                assert_eq!(world.meant(None, &ours, named_once), Meant::Ours);
                let unsaid = named("op-1", kind);
                assert_eq!(world.meant(None, &unsaid, named_once), Meant::Ours);
            }
            // An authorization that ran out, and has no name of its own.
            let ran_out = Fact {
                provider_reference: None,
                ..of("prov-2", "-", FactKind::Expired)
            };
            assert_eq!(
                world.meant(Some(opening), &ran_out, named_once),
                Meant::Another
            );
        }
    }
}

#[test]
fn i9_a_person_who_says_that_a_purchase_was_taken_back_gives_it_no_other_name() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(approved(100));
    let opening = world.newest();
    world.resolve_seen(opening, Resolution::TakenBack).unwrap();
    let theirs = of("prov-2", "op-2", approved(100));
    for named_once in [true, false] {
        for held in [None, Some(opening)] {
            assert_eq!(world.meant(held, &theirs, named_once), Meant::Another);
        }
    }
    let named = world.record.payment.provider_reference.as_ref();
    assert_eq!(named.unwrap().as_str(), "prov-1");
}

#[test]
fn i9_what_a_person_called_a_payment_is_not_its_name_once_it_is_taken_back() {
    for by_person in [false, true] {
        let mut world = World::accepted(100, CaptureMethod::Automatic);
        let opening = world.newest();
        world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
        world.pass(120);
        let said = Resolution::Succeeded {
            provider_reference: ProviderReference::parse("a-name-of-something-else").ok(),
            amount: None,
        };
        world.resolve(said).unwrap();
        if by_person {
            world.resolve_seen(opening, Resolution::TakenBack).unwrap();
        } else {
            let undone = FactKind::TakenBack(Cause::ProviderReportedFailure);
            assert!(world.learn(opening, &of("prov-1", "op-1", undone)));
        }
        assert_eq!(world.held().state, TransactionState::Reversed);
        let refunded = of("prov-1", "op-2", approved(40));
        assert_eq!(world.meant(None, &refunded, false), Meant::Ours);
    }
}

/// A purchase that the provider called `prov-1` (where it did), and of which a person said that it is done.
fn said_to_be_done(by_provider: bool, by_person: Option<&str>) -> World {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    if by_provider {
        assert!(world.learn(opening, &of("prov-1", "op-1", FactKind::Pending)));
    }
    world.pass(120);
    let said = Resolution::Succeeded {
        provider_reference: by_person.and_then(|name| ProviderReference::parse(name).ok()),
        amount: None,
    };
    world.resolve(said).unwrap();
    world
}

fn name_of(world: &World) -> Option<&str> {
    let named = world.record.payment.provider_reference.as_ref();
    named.map(ProviderReference::as_str)
}

#[test]
fn i9_the_provider_s_name_of_a_payment_outlives_what_a_person_says_of_it() {
    for by_person in [None, Some("a-name-of-something-else")] {
        let mut world = said_to_be_done(true, by_person);
        let opening = world.newest();
        for taken_back in [false, true] {
            if taken_back {
                world.resolve_seen(opening, Resolution::TakenBack).unwrap();
            }
            assert_eq!(name_of(&world), Some("prov-1"), "{by_person:?}");
            let own = world.record.transactions[0].provider_reference.as_ref();
            assert_eq!(own.map(ProviderReference::as_str), Some("op-1"));
            let refunded = of("prov-2", "op-2", approved(40));
            assert_eq!(world.meant(None, &refunded, true), Meant::Another);
        }
    }
}

#[test]
fn i9_what_a_person_called_a_payment_is_confirmed_by_what_opens_it_alone() {
    let mut world = said_to_be_done(false, Some("prov-1"));
    let opening = world.newest();
    world.refund(Some(30)).unwrap();
    world.report(SendOutcome::Answered(of(
        "prov-1",
        "op-2",
        FactKind::Pending,
    )));
    assert!(world.record.payment.named_by_operator, "it was sent there");
    let done = of("prov-1", "op-1", approved(100));
    assert!(world.learn(opening, &done));
    assert!(!world.record.payment.named_by_operator);
    assert_eq!(name_of(&world), Some("prov-1"));
    assert!(!world.learn(opening, &done), "told once");
}

#[test]
fn a_person_can_name_what_was_done_under_another_name_than_what_was_not() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let opening = world.newest();
    world.report(SendOutcome::Answered(of("prov-1", "op-1", declined())));
    let said = Resolution::Succeeded {
        provider_reference: ProviderReference::parse("prov-2").ok(),
        amount: None,
    };
    world.resolve_seen(opening, said).unwrap();
    assert_eq!(name_of(&world), Some("prov-2"));
    assert!(world.record.payment.named_by_operator);
}

#[test]
fn what_a_person_says_to_be_done_again_has_the_name_that_they_give_it() {
    let mut world = said_to_be_done(false, Some("a-name-of-something-else"));
    let opening = world.newest();
    world.resolve_seen(opening, Resolution::TakenBack).unwrap();
    assert_eq!(name_of(&world), None);
    let done = of("prov-1", "op-1", approved(100));
    assert_eq!(world.meant(Some(opening), &done, true), Meant::Ours);
    assert!(world.learn(opening, &done), "a person is asked");
    let said = Resolution::Succeeded {
        provider_reference: ProviderReference::parse("prov-1").ok(),
        amount: None,
    };
    world.resolve_seen(opening, said).unwrap();
    assert_eq!(world.record.payment.state, PaymentState::Captured);
    assert_eq!(name_of(&world), Some("prov-1"));
    assert!(world.record.payment.named_by_operator);
}

#[test]
fn what_a_person_called_done_without_a_name_is_named_by_the_provider() {
    let mut world = said_to_be_done(false, None);
    let opening = world.newest();
    assert_eq!(name_of(&world), None);
    let done = of("prov-1", "op-1", approved(100));
    assert!(world.learn(opening, &done));
    assert_eq!(name_of(&world), Some("prov-1"));
    let told = &world.changes.last().unwrap().entry;
    assert_eq!(told.event_type, "payment.updated");
    assert!(!world.learn(opening, &done), "told once");
    let amounts = world.record.payment.amounts;
    assert_eq!((amounts.captured, amounts.excess), (100, 0));

    world.refund(Some(30)).unwrap();
    world.report(SendOutcome::Unknown(Cause::ResponseTimeout));
    let refund = world.newest();
    world.pass(120);
    let said = Resolution::Succeeded {
        provider_reference: None,
        amount: None,
    };
    world.resolve(said).unwrap();
    assert!(world.learn(refund, &of("prov-1", "op-2", approved(30))));
    let named = world.held().provider_reference.as_ref().unwrap();
    assert_eq!(named.as_str(), "op-2");
    let told = &world.changes.last().unwrap().entry;
    assert_eq!(told.event_type, "refund.updated");
}

#[test]
fn where_the_provider_cannot_be_asked_only_what_opens_a_payment_gives_it_another_name() {
    let mut pending = World::accepted(100, CaptureMethod::Automatic);
    pending.answer(FactKind::Pending);
    let mut refused = World::accepted(100, CaptureMethod::Automatic);
    refused.answer(declined());
    for world in [&mut pending, &mut refused] {
        let opening = Some(world.newest());
        for kind in [approved(100), declined(), action(), FactKind::Pending] {
            let told = of("prov-2", "prov-2", kind);
            assert_eq!(world.meant(opening, &told, false), Meant::Ours);
            assert_eq!(world.meant(opening, &told, true), Meant::Another);
            assert_eq!(world.meant(None, &told, false), Meant::NotYetOurs);
            assert_eq!(world.meant(None, &told, true), Meant::Another);
        }
        for kind in [FactKind::Expired, failed()] {
            let told = of("prov-2", "prov-2", kind);
            assert_eq!(world.meant(opening, &told, false), Meant::NotYetOurs);
        }
        let id = world.newest();
        assert!(world.learn(id, &of("prov-2", "prov-2", approved(100))));
        let named = world.record.payment.provider_reference.as_ref();
        assert_eq!(named.unwrap().as_str(), "prov-2");
    }
}

/// A person may have said a name that is not the provider's.
#[test]
fn a_name_that_a_person_said_gives_way_to_the_provider_s() {
    let mut world = World::captured(100);
    world.tampered = true;
    world.record.payment.named_by_operator = true;
    let theirs = of("prov-2", "re-1", approved(30));
    assert_eq!(world.meant(None, &theirs, true), Meant::Ours);
    assert!(
        world
            .try_hear(Kind::Refund, None, &theirs)
            .unwrap()
            .is_some()
    );
    let named = world.record.payment.provider_reference.as_ref();
    assert_eq!(named.unwrap().as_str(), "prov-2");
}

#[test]
fn an_operation_does_not_give_a_payment_another_name() {
    let mut world = World::captured(100);
    world.refund(Some(30)).unwrap();
    let refund = world.newest();
    let account = ProviderAccount::parse("sandbox").unwrap();
    let told = Unasked {
        kind: Kind::Refund,
        dispute: None,
        account: &account,
        captures_once: false,
    };
    let fact = of("prov-2", "re-1", approved(10));
    world
        .decide(|record, _, stamp| decide::unasked(record, &told, &fact, stamp).map(Option::unwrap))
        .unwrap();
    assert!(world.learn(refund, &of("prov-2", "re-2", approved(30))));
    let named = world.record.payment.provider_reference.as_ref();
    assert_eq!(named.unwrap().as_str(), "prov-1");
}

#[test]
fn what_gives_back_or_releases_another_payment_is_nothing_that_a_person_has_to_see() {
    let mut world = World::captured(100);
    let before = world.record.clone();
    for kind in [Kind::Void, Kind::Refund, Kind::ChargebackReversal] {
        assert!(!world.hear_of_another(kind, &of("prov-2", "op-1", approved(100))));
    }
    for kind in [Kind::Capture, Kind::Chargeback] {
        assert!(!world.hear_of_another(kind, &of("prov-2", "op-1", failed())));
        let mut world = World::captured(100);
        assert!(world.hear_of_another(kind, &of("prov-2", "op-1", approved(100))));
        let row = &world.record.transactions[0];
        assert_eq!(world.shown(row.id), [ContradictingFact]);
        assert_eq!(world.record.payment.amounts, before.payment.amounts);
        assert_eq!(world.record.transactions.len(), 1);
    }
    assert_eq!(world.record, before);
}

#[test]
fn another_payment_at_the_provider_with_our_names_is_a_case_and_not_ours() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(FactKind::Pending);
    let id = world.newest();
    let other = named("prov-2", approved(100));
    assert_eq!(world.meant(Some(id), &other, true), Meant::Another);
    let known = named("prov-1", approved(100));
    assert_eq!(world.meant(Some(id), &known, true), Meant::Ours);
    let tell = |record: &PaymentRecord, stamp: &Stamp<'_>| {
        told_of_another(record, id, (Kind::Purchase, &other), stamp)
            .unwrap()
            .ok_or(())
    };
    world
        .decide(|record, _, stamp| tell(record, stamp))
        .unwrap();
    let row = &world.record.transactions[0];
    assert_eq!(world.shown(row.id), [ContradictingFact]);
    assert_eq!(row.provider_reference, known.provider_reference);
    assert_eq!(world.record.payment.amounts.captured, 0);
    let again = world.decide(|record, _, stamp| tell(record, stamp));
    assert_eq!(again, Err(()), "once");
}

/// The case that is open may be about something else, or about another one.
#[test]
fn i9_each_payment_with_our_names_is_a_case_of_its_own_whatever_case_is_open() {
    let case = |world: &World| {
        let action = world.changes.last().unwrap().operator_action;
        action.map(|action| action.kind)
    };
    let contradicting = Some(ContradictingFact);
    // Called not done, and done after all: a case is open.
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    let id = world.newest();
    world.report(SendOutcome::NotSent(Cause::RequestRefused));
    assert!(world.learn(id, &told(approved(100))));
    assert_eq!(case(&world), contradicting);
    for reference in ["prov-2", "prov-3"] {
        // As a provider tells it that cannot be asked, and one that can.
        let second = of(reference, reference, approved(100));
        assert!(world.learn(id, &second), "{reference}");
        assert_eq!(case(&world), contradicting);
        assert!(!world.learn(id, &second), "once");
        for kind in [FactKind::Pending, approved(100)] {
            let told = of(reference, reference, kind);
            assert!(world.hear_of_another(Kind::Purchase, &told), "{reference}");
            assert_eq!(case(&world), contradicting);
            assert!(!world.hear_of_another(Kind::Purchase, &told), "once");
        }
        let taken = of(reference, "dp-1", approved(100));
        assert!(world.hear_of_another(Kind::Chargeback, &taken));
    }
    assert!(!world.record.transactions[0].contradictions.is_empty());
    // Nor is it lost that the provider says it failed.
    let failure = told(failed());
    assert!(world.learn(id, &failure));
    assert_eq!(case(&world), contradicting);
    assert!(!world.learn(id, &failure), "once");
    assert_eq!(world.record.payment.amounts.captured, 100);
}

#[test]
fn what_is_told_again_once_a_person_has_closed_its_case_opens_another_one() {
    let mut world = World::captured(100);
    let other = of("prov-2", "prov-2", approved(100));
    assert!(world.hear_of_another(Kind::Purchase, &other));
    let command = Resolve {
        payment: world.record.payment.id,
        transaction: world.newest(),
        resolution: Resolution::Acknowledged(ContradictingFact),
        reason: Text::parse("refunded by hand").unwrap(),
        evidence: Text::default(),
        seen_version: None,
    };
    world
        .decide(|record, _, stamp| decide::resolve(record, &command, stamp))
        .unwrap();
    assert!(world.hear_of_another(Kind::Purchase, &other));
    assert!(!world.hear_of_another(Kind::Purchase, &other));
}

#[test]
fn what_a_person_has_not_seen_is_not_closed() {
    let mut world = World::captured(100);
    let second = of("prov-2", "prov-2", approved(100));
    assert!(world.hear_of_another(Kind::Purchase, &second));
    let seen = world.record.payment.version;
    let acknowledge = |seen_version| Resolve {
        payment: PaymentId(id(1)),
        transaction: TransactionId(id(12)),
        resolution: Resolution::Acknowledged(ContradictingFact),
        reason: Text::parse("refunded by hand").unwrap(),
        evidence: Text::default(),
        seen_version,
    };
    assert_eq!(world.newest(), acknowledge(None).transaction);
    // Another one is told before they answer.
    let third = of("prov-3", "prov-3", approved(100));
    assert!(world.hear_of_another(Kind::Purchase, &third));
    let command = acknowledge(Some(seen));
    let changed = Rejection::PaymentChanged { version: seen + 1 };
    let refused = world.decide(|record, _, stamp| decide::resolve(record, &command, stamp));
    assert_eq!(refused, Err(DecideError::Rejected(changed)));
    assert_eq!(world.shown(TransactionId(id(12))), [ContradictingFact]);
    let command = acknowledge(Some(seen + 1));
    world
        .decide(|record, _, stamp| decide::resolve(record, &command, stamp))
        .unwrap();
    assert!(world.shown(TransactionId(id(12))).is_empty());
}

/// Where the provider cannot be asked: who was told of the first, was not told of the second.
#[test]
fn a_second_success_under_another_reference_is_shown_to_a_person() {
    for method in [CaptureMethod::Automatic, CaptureMethod::Manual] {
        let mut world = World::accepted(100, method);
        world.answer(approved(100));
        let (id, before) = (world.newest(), world.record.clone());
        let other = ProviderReference::parse("prov-2").ok();
        let second = Fact {
            payment_reference: other.clone(),
            ..named("prov-2", approved(100))
        };
        // Its operation may have a name of its own.
        let known = Fact {
            provider_reference: other,
            ..told(approved(100))
        };
        assert!(!world.learn(id, &known));
        assert!(world.learn(id, &second));
        let row = &world.record.transactions[0];
        assert_eq!(world.shown(row.id), [ContradictingFact]);
        assert_eq!(
            row.provider_reference, before.transactions[0].provider_reference,
            "the known one stays"
        );
        let payment = &world.record.payment;
        assert_eq!(
            (payment.state, payment.amounts),
            (before.payment.state, before.payment.amounts)
        );
        assert_eq!(
            world.changes.last().unwrap().entry.event_type,
            "payment.contradicted"
        );
        let entry = &world.changes.last().unwrap().entry;
        let leaf = String::from_utf8(entry.leaf.as_bytes().to_vec()).unwrap();
        assert!(leaf.contains("\"told_reference\":\"prov-2\""), "{leaf}");
        assert!(!world.learn(id, &second), "once");
        assert!(!world.learn(id, &told(approved(100))), "the known one");
    }
}

/// What the provider did is not known: that it did something is on record, once for each of its names.
#[test]
fn s43_what_does_not_say_what_was_moved_is_shown_to_a_person_and_moves_nothing() {
    let mut world = World::accepted(100, CaptureMethod::Automatic);
    world.answer(approved(100));
    let opening = world.newest();
    let before = world.record.payment.clone();
    let account = world.record.payment.provider_account.clone();
    let hear = |world: &mut World, reference: &str| {
        let fact = named(reference, FactKind::Pending);
        let told = |record: &PaymentRecord, stamp: &Stamp<'_>| {
            let told = told_unclearly(record, (&account, "CANCEL_OR_REFUND"), &fact, stamp);
            told.unwrap().ok_or(())
        };
        world.decide(|record, _, stamp| told(record, stamp)).is_ok()
    };
    assert!(hear(&mut world, "op-2"));
    assert_eq!(world.shown(opening), [ContradictingFact]);
    assert!(!hear(&mut world, "op-2"), "once");
    assert!(hear(&mut world, "op-3"), "another one");
    let entry = &world.changes.last().unwrap().entry;
    assert_eq!(entry.event_type, "payment.contradicted");
    let leaf = String::from_utf8(entry.leaf.as_bytes().to_vec()).unwrap();
    assert!(
        leaf.contains("\"told_fact\":\"CANCEL_OR_REFUND\""),
        "{leaf}"
    );
    assert!(leaf.contains("\"told_reference\":\"op-3\""), "{leaf}");
    let payment = &world.record.payment;
    assert_eq!(
        (payment.state, payment.amounts),
        (before.state, before.amounts)
    );
}

#[test]
fn i9_what_is_done_under_a_second_name_may_be_done_twice_and_asks_a_person() {
    for refunds in [true, false] {
        let mut world = if refunds {
            World::captured(100)
        } else {
            World::authorized(100)
        };
        if refunds {
            world.refund(Some(40)).unwrap();
        } else {
            world.capture(Some(40), false).unwrap();
        }
        world.answer(approved(40));
        let held = world.held().clone();
        let fact = |name: &str| named(name, approved(40));
        assert!(!done_by_another_name(&held, &told(approved(40))));
        assert!(!done_by_another_name(
            &held,
            &named("other", FactKind::Pending)
        ));
        assert!(done_by_another_name(&held, &fact("other")));
        let before = world.record.payment.amounts;
        let mut note = |name: &str| {
            world.decide(|record, _, stamp| {
                let held = record.transaction(held.id).unwrap();
                let change = decide::told_by_another_name(record, held, &fact(name), stamp);
                change.unwrap().ok_or(())
            })
        };
        assert_eq!(note("other"), Ok(()));
        assert_eq!(note("other"), Err(()), "once");
        assert_eq!(note("third"), Ok(()));
        assert_eq!(world.opened(), Some(ContradictingFact));
        assert_eq!(world.record.payment.amounts, before);
        assert_eq!(world.held().provider_reference, held.provider_reference);
        // A person may have mistyped it.
        let mut by_person = held.clone();
        by_person.resolved_by_operator = true;
        assert!(!done_by_another_name(&by_person, &fact("other")));
    }
}
