//! Random walks: any sequence of commands and facts keeps the invariants.

use proptest::prelude::*;
use quittance_evidence::ChainCheck;

use super::unasked::{dispute, named};
use super::*;
use crate::amounts::Amounts;
use crate::change::OperatorActionKind;
use crate::command::{Resolution, Resolve};
use crate::decline::{Cause, Decline, DeclineCode};
use crate::payment::{NextAction, PaymentState};
use crate::transaction::TransactionKind as Kind;
use crate::transition::{Next, PaymentEvent, derive_state, diagram, transition};

#[derive(Debug, Clone)]
enum Act {
    Capture(i64, bool),
    Refund(i64),
    Void,
    Confirm,
    /// Its customer is taken to have left it, a day later.
    Abandon,
    Answer(u8, i64),
    Learn(usize, u8, i64),
    Resend(usize),
    GiveUp(usize),
    /// Transaction, resolution, amount.
    Resolve(usize, u8, i64),
    /// Kind, reference, fact, amount.
    Hear(usize, u8, u8, i64),
}

/// What the provider may do by itself.
const UNASKED: [Kind; 5] = [
    Kind::Refund,
    Kind::Capture,
    Kind::Void,
    Kind::Chargeback,
    Kind::ChargebackReversal,
];

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1..120_i64, any::<bool>()).prop_map(|(amount, last)| Act::Capture(amount, last)),
        (1..120_i64).prop_map(Act::Refund),
        Just(Act::Void),
        Just(Act::Confirm),
        Just(Act::Abandon),
        (0..8_u8, 0..3_i64).prop_map(|(kind, off)| Act::Answer(kind, off)),
        (0..6_usize, 0..9_u8, 0..3_i64).prop_map(|(at, kind, off)| Act::Learn(at, kind, off)),
        (0..6_usize).prop_map(Act::Resend),
        (0..6_usize).prop_map(Act::GiveUp),
        (0..6_usize, 0..4_u8, 1..130_i64)
            .prop_map(|(at, what, amount)| Act::Resolve(at, what, amount)),
        (0..5_usize, 0..3_u8, 0..9_u8, 1..130_i64)
            .prop_map(|(kind, name, fact, amount)| Act::Hear(kind, name, fact, amount)),
    ]
}

fn fact_of(kind: u8, amount: i64) -> FactKind {
    match kind {
        0 | 1 => approved(amount.max(1)),
        2 => FactKind::Declined(Decline {
            code: DeclineCode::Other,
            provider_code: Text::default(),
        }),
        3 => FactKind::RequiresAction(NextAction {
            redirect_url: Sensitive::default(),
            data: Sensitive::default(),
            may_take_days: false,
        }),
        4 => FactKind::Pending,
        5 => FactKind::Failed(Cause::ProviderReportedFailure),
        8 => FactKind::TakenBack(Cause::ProviderReportedFailure),
        _ => FactKind::Expired,
    }
}

impl World {
    fn act(&mut self, act: &Act) {
        let at = |world: &Self, at: usize| {
            world.record.transactions[at % world.record.transactions.len()].clone()
        };
        // A rejection leaves everything as it is.
        match act {
            Act::Capture(amount, last) => drop(self.capture(Some(*amount), *last)),
            Act::Refund(amount) => drop(self.refund(Some(*amount))),
            Act::Void => drop(self.void()),
            Act::Confirm => drop(self.confirm()),
            Act::Abandon => self.leave(),
            Act::Answer(kind, off) => {
                let asked = self
                    .record
                    .transaction(self.attempt().transaction)
                    .unwrap()
                    .amount;
                match kind {
                    6 => self.report(SendOutcome::Unknown(Cause::ConnectionLost)),
                    7 => self.report(SendOutcome::NotSent(Cause::ConnectionRefused)),
                    kind => self.answer(fact_of(*kind, asked + off / 2)),
                }
            }
            Act::Learn(n, kind, off) => {
                let transaction = at(self, *n);
                self.learn(
                    transaction.id,
                    &told(fact_of(*kind, transaction.amount + off / 2)),
                );
            }
            Act::Resend(n) => {
                let id = at(self, *n).id;
                let _ = self
                    .decide(|record, rules, stamp| try_start(record, id, rules, stamp).ok_or(()));
            }
            Act::Hear(kind, name, fact, amount) => {
                let fact = named(&format!("op-{name}"), fact_of(*fact, *amount));
                let about = dispute(eur(*amount));
                // Whatever it says of whatever state: it is never refused.
                self.try_hear(UNASKED[*kind], Some(&about), &fact).unwrap();
            }
            Act::Resolve(n, what, amount) => {
                let id = at(self, *n).id;
                self.resolve_randomly(id, *what, *amount);
            }
            Act::GiveUp(n) => {
                let id = at(self, *n).id;
                let _ = self.decide(|record, _, stamp| try_give_up(record, id, stamp).ok_or(()));
            }
        }
    }

    fn leave(&mut self) {
        self.ticks += 86_400;
        let opening = self.record.opening().unwrap().id;
        let _ = self.decide(|record, rules, stamp| {
            let change = crate::decide::abandon(record, opening, rules, stamp).unwrap();
            change.ok_or(())
        });
        // Where it was released, or refused to be, a person may be asked.
        let _ = self.no_news_of(opening);
    }

    /// The kind that is acknowledged: what is shown first, where anything is.
    fn acknowledged(&self, transaction: TransactionId) -> OperatorActionKind {
        let shown = self.shown(transaction).first().copied();
        shown.unwrap_or(OperatorActionKind::RecoveryExhausted)
    }

    fn resolve_randomly(&mut self, transaction: TransactionId, what: u8, amount: i64) {
        let succeeded = |amount: Option<i64>| Resolution::Succeeded {
            provider_reference: None,
            amount: amount.map(eur),
        };
        let command = Resolve {
            payment: self.record.payment.id,
            transaction,
            resolution: match what {
                0 => succeeded(None),
                1 => succeeded(Some(amount)),
                2 => Resolution::NotProcessed,
                _ => Resolution::Acknowledged(self.acknowledged(transaction)),
            },
            reason: Text::parse("the provider wrote so").unwrap(),
            evidence: Text::default(),
            seen_version: None,
        };
        drop(self.decide(|record, _, stamp| crate::decide::resolve(record, &command, stamp)));
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let payment = &self.record.payment;
        prop_assert!(payment.amounts.holds_limits(), "I5: {:?}", payment.amounts);
        let pending = |kind| {
            let all = self.record.transactions.iter();
            let open = all.filter(|row| row.kind == kind);
            open.map(Transaction::reserved).sum::<i64>()
        };
        prop_assert_eq!(payment.amounts.capture_pending, pending(Kind::Capture));
        prop_assert_eq!(payment.amounts.refund_pending, pending(Kind::Refund));
        let disputes = |kind, state| {
            let all = self.record.transactions.iter();
            let some = all.filter(|row| row.kind == kind && row.state == state);
            some.map(|row| row.amount).sum::<i64>()
        };
        let taken = disputes(Kind::Chargeback, TransactionState::Succeeded);
        let returned = disputes(Kind::ChargebackReversal, TransactionState::Succeeded);
        prop_assert!(payment.amounts.charged_back <= (taken - returned).max(0));
        let open = self.record.transactions.iter();
        let open = open
            .filter(|row| row.kind == Kind::Chargeback)
            .any(|row| row.state == TransactionState::Pending);
        prop_assert_eq!(payment.disputed, open || taken > returned);
        for row in &self.record.transactions {
            let unasked = row.origin == crate::transaction::TransactionOrigin::Provider;
            prop_assert!(
                !unasked || row.attempts == 0 && row.next_step_at.is_none(),
                "what the provider did is never sent"
            );
            prop_assert!(
                !row.state.ended() || row.request.is_none(),
                "I2: wiped at the end"
            );
        }
        let leaves = self
            .changes
            .iter()
            .map(|change| change.entry.leaf.as_bytes());
        let head =
            ChainCheck::run(leaves).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(
            head.map(|head| head.entity_seq),
            Some(payment.version),
            "I7"
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(3_000),
    ))]

    #[test]
    fn s42_any_sequence_keeps_the_invariants(manual in any::<bool>(), acts in prop::collection::vec(act(), 0..25)) {
        let method = if manual { CaptureMethod::Manual } else { CaptureMethod::Automatic };
        let mut world = World::accepted(100, method);
        world.check()?;
        for act in &acts {
            world.act(act);
            world.check()?;
        }
    }

    #[test]
    fn the_derived_state_depends_on_nothing_but_the_amounts(
        authorized in 1..50_i64, captured in 0..50_i64, voided in 0..50_i64, refunded in 0..50_i64,
        expired in any::<bool>(), state in prop::sample::select(PaymentState::ALL),
    ) {
        let amounts = Amounts {
            authorized,
            captured: captured.min(authorized),
            voided: voided.min(authorized - captured.min(authorized)),
            refunded: refunded.min(captured.min(authorized)),
            ..Amounts::default()
        };
        let derived = derive_state(state, &amounts, expired);
        prop_assert_eq!(derived, derive_state(PaymentState::Pending, &amounts, expired));
        let captured_states = [PaymentState::PartiallyCaptured, PaymentState::Captured,
            PaymentState::PartiallyRefunded, PaymentState::Refunded];
        prop_assert_eq!(amounts.captured > 0, captured_states.contains(&derived));
        let finished = matches!(derived, PaymentState::Captured | PaymentState::Refunded | PaymentState::Voided | PaymentState::Expired);
        prop_assert!(!finished || amounts.capturable() == 0);
    }
}

#[test]
fn s42_the_table_forbids_commands_only_and_contradictions_are_facts_only() {
    for event in PaymentEvent::ALL {
        let command = event.name().ends_with("_accepted");
        for state in PaymentState::ALL {
            match transition(*state, *event) {
                Next::Forbid => assert!(command, "{state} × {event}: a fact is never forbidden"),
                Next::Contradicts | Next::Derive => assert!(!command, "{state} × {event}"),
                Next::To(_) | Next::Stay => {}
            }
        }
    }
}

#[test]
fn i3_only_proof_ends_pending() {
    let proofs = [
        PaymentEvent::Approved,
        PaymentEvent::Declined,
        PaymentEvent::NotProcessed,
        PaymentEvent::Expired,
        PaymentEvent::ActionRequired,
        PaymentEvent::VoidSucceeded,
    ];
    for event in PaymentEvent::ALL {
        let leaves = matches!(
            transition(PaymentState::Pending, *event),
            Next::To(_) | Next::Derive
        );
        assert_eq!(leaves, proofs.contains(event), "{event}");
    }
}

#[test]
fn the_diagram_in_the_docs_is_the_table() {
    let docs =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/states.md"));
    assert!(
        docs.unwrap().contains(&diagram()),
        "docs/states.md should hold:\n{}",
        diagram()
    );
}
