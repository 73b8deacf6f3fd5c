use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::{PaymentId, ProviderReference, TenantId, TransactionId};
use crate::money::Currency;
use crate::reconciliation::{Names, SettledKind, SettledLine, Settlement};

fn currency(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
}

/// From minute 0 to minute 1,000; what is within 60 of either end is not judged.
fn window() -> Window {
    Window {
        from: at(0),
        to: at(1_000),
        margin: TimeDelta::minutes(60),
        complete: true,
    }
}

fn reference(text: &str) -> ProviderReference {
    ProviderReference::parse(text).unwrap()
}

fn ours(kind: SettledKind, state: TransactionState) -> Booked {
    Booked {
        tenant: TenantId::parse("acme").unwrap(),
        payment: PaymentId(Uuid::from_u128(1)),
        transaction: TransactionId(Uuid::from_u128(2)),
        kind,
        opens: kind == SettledKind::Captured,
        state,
        amount: 1_000,
        currency: currency("EUR"),
        provider_reference: Some(reference("pi_1")),
        created_at: at(500),
        updated_at: at(501),
    }
}

fn line(kind: SettledKind, amount: i64) -> SettledLine {
    SettledLine {
        line: 2,
        at: Some(at(502)),
        kind,
        amount,
        returns_rest: false,
        currency: currency("EUR"),
        in_payout_currency: false,
        names: Names {
            operation: Some(reference("op_1")),
            transaction: Some(TransactionId(Uuid::from_u128(2))),
            ..Names::default()
        },
    }
}

/// What a capture left of its authorization.
fn rest() -> SettledLine {
    SettledLine {
        returns_rest: true,
        ..line(SettledKind::Captured, -600)
    }
}

fn settlement(lines: &[SettledLine]) -> Settlement {
    let mut settlement = Settlement::default();
    for line in lines {
        settlement.add(line.clone()).unwrap();
    }
    settlement
}

fn judged(ours: &Booked, lines: &[SettledLine]) -> Verdict {
    judge(ours, settlement(lines).of(ours), &window())
}

/// What it differs in; empty where both agree.
fn differs(ours: &Booked, lines: &[SettledLine]) -> Vec<Difference> {
    match judged(ours, lines) {
        Verdict::Agrees => Vec::new(),
        Verdict::Found(finding) if finding.kind == FindingKind::Differing => finding.differs,
        other => panic!("{other:?}"),
    }
}

const CAPTURED: SettledKind = SettledKind::Captured;
const REFUNDED: SettledKind = SettledKind::Refunded;

#[test]
fn s78_what_both_have_agrees() {
    for kind in SettledKind::ALL.iter().copied() {
        let succeeded = ours(kind, TransactionState::Succeeded);
        assert_eq!(judged(&succeeded, &[line(kind, 1_000)]), Verdict::Agrees);
    }
}

#[test]
fn s78_what_succeeded_and_is_not_settled_is_missing() {
    let succeeded = ours(CAPTURED, TransactionState::Succeeded);
    let Verdict::Found(finding) = judged(&succeeded, &[]) else {
        panic!()
    };
    assert_eq!(finding.kind, FindingKind::Missing);
    // A refund of the same name is another thing.
    let Verdict::Found(finding) = judged(&succeeded, &[line(REFUNDED, 1_000)]) else {
        panic!()
    };
    assert_eq!(finding.kind, FindingKind::Missing);
    for state in TransactionState::ALL.iter().copied() {
        if state != TransactionState::Succeeded {
            assert_eq!(
                judged(&ours(CAPTURED, state), &[]),
                Verdict::Agrees,
                "{state}"
            );
        }
    }
}

#[test]
fn s78_near_the_ends_of_the_range_nothing_is_called_missing() {
    for (created, updated, missing) in [
        (60, 940, true),
        (59, 940, false),
        (60, 941, false),
        (-5, 500, false),
        (500, 2_000, false),
    ] {
        let ours = Booked {
            created_at: at(created),
            updated_at: at(updated),
            ..ours(CAPTURED, TransactionState::Succeeded)
        };
        let verdict = judged(&ours, &[]);
        assert_eq!(
            matches!(verdict, Verdict::Found(_)),
            missing,
            "{created} {updated}"
        );
        assert_eq!(
            verdict == Verdict::NotJudged,
            !missing,
            "{created} {updated}"
        );
    }
}

#[test]
fn s78_of_an_export_that_has_not_everything_nothing_is_missing() {
    let some = Window {
        complete: false,
        ..window()
    };
    let succeeded = ours(CAPTURED, TransactionState::Succeeded);
    assert_eq!(judge(&succeeded, None, &some), Verdict::NotJudged);
    let settlement = settlement(&[line(CAPTURED, 1)]).of(&succeeded).cloned();
    let found = judge(&succeeded, settlement.as_ref(), &some);
    assert!(matches!(found, Verdict::Found(_)));
}

#[test]
fn s78_another_amount_currency_or_state_differs() {
    let succeeded = ours(CAPTURED, TransactionState::Succeeded);
    assert_eq!(
        differs(&succeeded, &[line(CAPTURED, 999)]),
        [Difference::Amount]
    );
    let twice = [line(CAPTURED, 1_000), line(CAPTURED, 1_000)];
    assert_eq!(differs(&succeeded, &twice), [Difference::Amount]);
    let dollars = SettledLine {
        currency: currency("USD"),
        ..line(CAPTURED, 1_000)
    };
    assert_eq!(
        differs(&succeeded, std::slice::from_ref(&dollars)),
        [Difference::Currency]
    );
    assert_eq!(
        differs(&succeeded, &[line(CAPTURED, 0)]),
        [Difference::State]
    );
    let mixed = [line(CAPTURED, 500), dollars];
    assert_eq!(differs(&succeeded, &mixed), [Difference::Currency]);
    for state in TransactionState::ALL.iter().copied() {
        if state != TransactionState::Succeeded {
            let found = differs(&ours(CAPTURED, state), &[line(CAPTURED, 1_000)]);
            assert_eq!(found, [Difference::State], "{state}");
        }
    }
}

#[test]
fn s78_what_is_done_and_undone_adds_up() {
    let part = Booked {
        amount: 400,
        ..ours(CAPTURED, TransactionState::Succeeded)
    };
    assert_eq!(
        judged(&part, &[line(CAPTURED, 1_000), rest()]),
        Verdict::Agrees
    );
    let returned = [line(REFUNDED, 1_000), line(REFUNDED, -1_000)];
    assert_eq!(
        judged(&ours(REFUNDED, TransactionState::Reversed), &returned),
        Verdict::Agrees
    );
    let still = ours(REFUNDED, TransactionState::Succeeded);
    assert_eq!(differs(&still, &returned), [Difference::State]);
}

#[test]
fn s78_what_is_undone_behind_the_range_is_not_judged() {
    let late = |state| Booked {
        updated_at: at(1_500),
        ..ours(REFUNDED, state)
    };
    let (succeeded, reversed) = (TransactionState::Succeeded, TransactionState::Reversed);
    assert_eq!(
        judged(&late(reversed), &[line(REFUNDED, 1_000)]),
        Verdict::NotJudged
    );
    assert_eq!(
        judged(&late(succeeded), &[line(REFUNDED, 0)]),
        Verdict::NotJudged
    );
    // Undone in this export, done in one before.
    let undone = [line(REFUNDED, -1_000)];
    assert_eq!(judged(&ours(REFUNDED, reversed), &undone), Verdict::Agrees);
    assert_eq!(
        differs(&ours(REFUNDED, succeeded), &undone),
        [Difference::State]
    );
    let captured = ours(CAPTURED, succeeded);
    assert_eq!(judged(&captured, &[rest()]), Verdict::NotJudged);
    // A charge that failed after it was told to be done.
    let failed = [line(CAPTURED, -1_000)];
    assert_eq!(differs(&captured, &failed), [Difference::State]);
}

#[test]
fn s78_an_amount_in_the_payouts_currency_is_compared_only_where_that_is_the_payments() {
    let disputed = ours(SettledKind::ChargedBack, TransactionState::Succeeded);
    let converted = |code, amount| SettledLine {
        currency: currency(code),
        in_payout_currency: true,
        ..line(SettledKind::ChargedBack, amount)
    };
    assert_eq!(
        judged(&disputed, &[converted("USD", 1_100)]),
        Verdict::NotJudged
    );
    assert_eq!(
        judged(&disputed, &[converted("EUR", 1_000)]),
        Verdict::Agrees
    );
    assert_eq!(
        differs(&disputed, &[converted("EUR", 999)]),
        [Difference::Amount]
    );
}

#[test]
fn s78_ours_is_found_by_any_name_and_the_rest_is_extra() {
    let succeeded = ours(CAPTURED, TransactionState::Succeeded);
    let named = |names| SettledLine {
        names,
        ..line(CAPTURED, 1_000)
    };
    let by_transaction = Names {
        transaction: Some(succeeded.transaction),
        ..Names::default()
    };
    let by_operation = Names {
        operation: Some(reference("pi_1")),
        ..Names::default()
    };
    let by_payment = Names {
        operation: Some(reference("ch_1")),
        payment_reference: Some(reference("pi_1")),
        ..Names::default()
    };
    for names in [by_transaction, by_operation, by_payment.clone()] {
        assert_eq!(judged(&succeeded, &[named(names)]), Verdict::Agrees);
    }
    // A capture is not the operation that opened its payment.
    let capture = Booked {
        opens: false,
        ..succeeded.clone()
    };
    assert!(matches!(
        judged(&capture, &[named(by_payment.clone())]),
        Verdict::Found(_)
    ));

    let strange = Names {
        operation: Some(reference("ch_strange")),
        ..Names::default()
    };
    let mut both = settlement(&[named(by_payment), named(strange)]);
    assert!(both.of(&succeeded).is_some());
    let extras: Vec<_> = both.take_unmatched().iter().filter_map(extra).collect();
    let [one] = extras.as_slice() else {
        panic!("{extras:?}")
    };
    assert_eq!(one.kind, FindingKind::Extra);
    let mut nothing = settlement(&[line(CAPTURED, 0), line(CAPTURED, 0)]);
    assert_eq!(nothing.take_unmatched().iter().filter_map(extra).count(), 0);
}

proptest! {
    /// However the lines about one operation are ordered and divided, they come to the same.
    #[test]
    fn s78_the_order_of_lines_means_nothing(parts in proptest::collection::vec(1..500_i64, 1..6), seed in any::<u64>()) {
        let total: i64 = parts.iter().sum();
        let booked = Booked { amount: total, ..ours(CAPTURED, TransactionState::Succeeded) };
        let mut lines: Vec<_> = parts.iter().map(|part| line(CAPTURED, *part)).collect();
        let turn = usize::try_from(seed % 6).unwrap() % lines.len();
        lines.rotate_left(turn);
        prop_assert_eq!(judged(&booked, &lines), Verdict::Agrees);
        lines.pop();
        prop_assert!(judged(&booked, &lines) != Verdict::Agrees);
    }
}

/// A dispute as it stands with us: what is charged back, and whether it was returned.
fn dispute(returned: TransactionState) -> [Booked; 2] {
    let side = |kind, state| Booked {
        provider_reference: Some(reference("du_1")),
        ..ours(kind, state)
    };
    [
        side(SettledKind::ChargedBack, TransactionState::Succeeded),
        side(SettledKind::ChargebackReversed, returned),
    ]
}

/// Movements of one dispute, in the order of time: below 0 what is taken.
fn moved(amounts: &[i64]) -> Vec<SettledLine> {
    let lines = amounts.iter().zip(0..).map(|(amount, minute)| {
        let kind = if *amount < 0 {
            SettledKind::ChargedBack
        } else {
            SettledKind::ChargebackReversed
        };
        SettledLine {
            at: Some(at(500 + minute)),
            names: Names {
                operation: Some(reference("du_1")),
                ..Names::default()
            },
            ..line(kind, amount.abs())
        }
    });
    lines.collect()
}

#[test]
fn s78_a_dispute_is_compared_as_it_stands_however_often_it_was_taken_up_again() {
    use TransactionState::{Pending, Reversed, Succeeded};
    for (amounts, returned) in [
        (&[-1_000][..], Pending),
        (&[-1_000, 1_000], Succeeded),
        (&[-1_000, 1_000, -1_000], Reversed),
        (&[-1_000, 1_000, -1_000, 1_000], Succeeded),
        (&[-1_000, 1_000, -1_000, 1_000, -1_000], Reversed),
        // What was taken first is in the export before.
        (&[1_000, -1_000], Reversed),
    ] {
        let mut lines = moved(amounts);
        for newest_first in [false, true] {
            for side in dispute(returned) {
                let of = format!("{amounts:?}, newest first: {newest_first}, {side:?}");
                // Without what was taken first, its order is all that tells how it stands.
                if !(newest_first && amounts.len() == 2) {
                    assert_eq!(differs(&side, &lines), [], "{of}");
                }
            }
            lines.reverse();
        }
    }
}

#[test]
fn s78_a_dispute_that_stands_otherwise_or_for_another_amount_is_found() {
    use Difference::{Amount, State};
    use TransactionState::{Pending, Reversed, Succeeded};
    for (amounts, returned, taken_differs, returned_differs) in [
        // It was lost after all, and we say that it was won; or the other way round.
        (&[-1_000, 1_000, -1_000][..], Succeeded, vec![], vec![State]),
        (
            &[-1_000, 1_000, -1_000, 1_000],
            Reversed,
            vec![],
            vec![State],
        ),
        (&[-900], Pending, vec![Amount], vec![]),
        (&[-1_000, 1_000, -1_100], Reversed, vec![Amount], vec![]),
        (
            &[-1_000, 1_000, -900],
            Reversed,
            vec![],
            vec![State, Amount],
        ),
        (&[-1_000, 900], Succeeded, vec![], vec![Amount]),
        // Taken twice, and never returned.
        (&[-1_000, -1_000], Pending, vec![Amount], vec![]),
    ] {
        let lines = moved(amounts);
        let [taken, side] = dispute(returned);
        assert_eq!(differs(&taken, &lines), taken_differs, "{amounts:?}");
        assert_eq!(differs(&side, &lines), returned_differs, "{amounts:?}");
    }
}
