//! Tests of disputes that are lost, and return a part: as much had been refunded before.

use super::*;

/// What an event about a lost dispute tells, as kind and what was moved, with these movements of money in it.
fn lost(kind: &str, moved: &[(i64, &str)]) -> Vec<(TransactionKind, FactKind, Option<String>)> {
    disputed_so("lost", kind, moved)
}

fn disputed_so(
    status: &str,
    kind: &str,
    moved: &[(i64, &str)],
) -> Vec<(TransactionKind, FactKind, Option<String>)> {
    let moved: Vec<_> = moved
        .iter()
        .map(|(amount, currency)| json!({"object": "balance_transaction", "amount": amount, "currency": currency}))
        .collect();
    let changes = [
        ("status", json!(status)),
        ("balance_transactions", json!(moved)),
    ];
    let told = told(&format!("charge.dispute.{kind}"), DISPUTE, &changes).unwrap();
    let told = told.into_iter().map(|told| match told.subject {
        Subject::Operation { kind, dispute } => {
            let about = dispute.map(|about| about.amount.to_string());
            (kind, told.fact.kind, about)
        }
        Subject::Transaction(_) | Subject::Unnamed { .. } | Subject::Unclear { .. } => {
            panic!("by our id, or by none")
        }
    });
    told.collect()
}

fn taken() -> (TransactionKind, FactKind, Option<String>) {
    let whole = Some("10.00 EUR".to_owned());
    (TransactionKind::Chargeback, moved(1_000), whole)
}

fn returned(
    amount: Option<Money>,
    about: Option<&str>,
) -> (TransactionKind, FactKind, Option<String>) {
    let kind = FactKind::Approved {
        amount,
        expires_at: None,
    };
    let about = about.map(str::to_owned);
    (TransactionKind::ChargebackReversal, kind, about)
}

#[test]
fn s44_a_lost_dispute_returns_what_had_been_refunded_before() {
    let eur = Money::new(300, Currency::parse("EUR").unwrap()).ok();
    let part = returned(eur, Some("3.00 EUR"));
    for kind in ["closed", "funds_reinstated", "updated"] {
        for order in [
            [(-1_000, "eur"), (300, "eur")],
            [(300, "eur"), (-1_000, "eur")],
        ] {
            assert_eq!(lost(kind, &order), [taken(), part.clone()], "{kind}");
        }
    }
    assert_eq!(lost("closed", &[]), [taken()], "it is not said");
}

/// Nothing is returned of a lost dispute, also where it had been won before. Of one that is taken up again, it is not while
/// the money is gone.
#[test]
fn s44_what_a_won_dispute_returned_is_taken_back_when_it_is_lost_after_all() {
    let gone = FactKind::TakenBack(Cause::ProviderReportedFailure);
    let whole = Some("10.00 EUR".to_owned());
    let gone = (TransactionKind::ChargebackReversal, gone, whole);
    let (once, kept) = (
        &[(-1_000, "eur")][..],
        &[(-1_000, "eur"), (1_000, "eur")][..],
    );
    let again = &[(-1_000, "eur"), (1_000, "eur"), (-1_000, "eur")][..];
    for kind in ["closed", "updated"] {
        for nothing in [once, again] {
            assert_eq!(lost(kind, nothing), [taken(), gone.clone()], "{nothing:?}");
        }
        for status in [
            "needs_response",
            "under_review",
            "appeal_needs_response",
            "appeal_under_review",
        ] {
            let open = |moved| disputed_so(status, kind, moved);
            assert_eq!(open(again), [taken(), gone.clone()], "{status}");
            for undecided in [once, kept, &[]] {
                assert_eq!(open(undecided), [taken()], "{status} {undecided:?}");
            }
        }
    }
}

#[test]
fn s45_what_a_lost_dispute_returns_in_another_currency_is_no_amount_of_its_own() {
    let usd = Money::new(330, Currency::parse("USD").unwrap()).ok();
    let settled = [(-1_100, "usd"), (330, "usd")];
    let part = returned(usd, Some("3.30 USD"));
    assert_eq!(lost("funds_reinstated", &settled), [taken(), part]);
}

#[test]
fn s44_that_money_was_returned_is_no_silence_where_it_is_not_said_how_much() {
    let unsaid = [taken(), returned(None, None)];
    for unclear in [
        &[][..],
        &[(-1_000, "eur")],
        &[(-1_000, "eur"), (330, "usd")],
    ] {
        assert_eq!(lost("funds_reinstated", unclear), unsaid, "{unclear:?}");
    }
}

/// The money was taken, whatever we can count it in.
#[test]
fn s45_a_dispute_whose_amount_is_none_of_ours_is_told_without_one() {
    let changes = [
        ("status", json!("needs_response")),
        ("amount", json!(1_050)),
        ("currency", json!("isk")),
    ];
    let told = one("charge.dispute.created", DISPUTE, &changes);
    let taken = FactKind::Approved {
        amount: None,
        expires_at: None,
    };
    assert_eq!(told.fact.kind, taken);
    let (kind, dispute) = (TransactionKind::Chargeback, None);
    assert_eq!(told.subject, Subject::Operation { kind, dispute });
}
