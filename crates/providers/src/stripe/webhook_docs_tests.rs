//! That `docs/stripe.md` says of every status what the code does with it.

use super::*;

const DOCS: &str = include_str!("../../../../docs/stripe.md");

/// The rows of a table, by its first heading: what is named in backticks, the whole first cell, and the second.
fn rows(heading: &str) -> Vec<(Vec<&'static str>, &'static str, &'static str)> {
    let table = DOCS.split(heading).nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| "));
    let rows = rows.map(|row| {
        let (first, second) = row.split_once(" | ").unwrap();
        let named = first.split('`').skip(1).step_by(2).collect();
        (named, first, second.trim_end_matches('|').trim())
    });
    rows.collect()
}

/// Every status of a type, by its name in the docs' table, once.
fn all_of<T: DeserializeOwned>(names: &[&str], count: usize) -> Vec<String> {
    let known = names
        .iter()
        .filter(|name| serde_json::from_value::<T>(json!(name)).is_ok());
    let mut known: Vec<_> = known.map(|name| (*name).to_owned()).collect();
    known.sort();
    known.dedup();
    assert_eq!(known.len(), count, "{known:?}");
    known
}

#[test]
fn the_table_of_disputes_is_what_the_code_does() {
    let rows = rows("| Dispute |");
    let named: Vec<_> = rows.iter().flat_map(|(named, ..)| named.clone()).collect();
    assert_eq!(named.len(), all_of::<DisputeStatus>(&named, 10).len());
    for (named, _, told) in &rows {
        for status in named {
            let changes = [
                ("status", json!(status)),
                (
                    "balance_transactions",
                    json!([{"amount": -1_000, "currency": "eur"}, {"amount": 300, "currency": "eur"}]),
                ),
            ];
            let dispute = shaped::<wire::Dispute>(object(DISPUTE, &changes)).unwrap();
            let facts = disputed(&dispute).unwrap();
            let kinds: Vec<_> = facts.iter().map(|(_, fact)| &fact.kind).collect();
            let (whole, part) = (moved(1_000), moved(300));
            let begins = match kinds.as_slice() {
                [] => "nothing:",
                [FactKind::Pending] => "an inquiry:",
                [FactKind::Failed(_)] => "the inquiry is closed:",
                [taken] if **taken == whole => "a chargeback",
                [taken, back] if **taken == whole && **back == part => {
                    "a chargeback; and a reversal"
                }
                [taken, back] if **taken == whole && **back == whole => {
                    "a chargeback, and its reversal"
                }
                _ => panic!("{status}: {facts:?}"),
            };
            let exact = begins != "a chargeback" || *told == begins;
            assert!(told.starts_with(begins) && exact, "{status}: {told}");
        }
    }
}

#[test]
fn the_table_of_refunds_is_what_the_code_does() {
    let rows = rows("| Refund |");
    let named: Vec<_> = rows.iter().flat_map(|(named, ..)| named.clone()).collect();
    assert_eq!(named.len(), all_of::<wire::RefundStatus>(&named, 5).len());
    for (named, _, told) in &rows {
        for status in named {
            let refund = one("refund.updated", REFUND, &[("status", json!(status))]);
            let begins = match refund.fact.kind {
                FactKind::Pending => "pending",
                FactKind::Approved { .. } => "approved",
                FactKind::Failed(_) => "failed",
                other => panic!("{status}: {other:?}"),
            };
            assert!(told.starts_with(begins), "{status}: {told}");
        }
    }
}

#[test]
fn the_table_of_payment_intents_is_what_the_code_does() {
    let rows = rows("| PaymentIntent |");
    let named: Vec<_> = rows.iter().flat_map(|(named, ..)| named.clone()).collect();
    all_of::<IntentStatus>(&named, 7);
    for (named, cell, told) in &rows {
        let known = |name: &&&str| serde_json::from_value::<IntentStatus>(json!(name)).is_ok();
        for status in named.iter().filter(known) {
            let fixture = match *status {
                "requires_action" => REQUIRES_ACTION,
                "requires_capture" => REQUIRES_CAPTURE,
                _ => SUCCEEDED,
            };
            let mut changes = vec![("status", json!(status)), ("latest_charge", Value::Null)];
            if cell.contains("with `last_payment_error`") {
                let error = json!({"type": "card_error", "code": "expired_card"});
                changes.push(("last_payment_error", error));
            }
            if cell.contains("by `automatic`") {
                changes.push(("cancellation_reason", json!("automatic")));
            }
            let intent = shaped::<PaymentIntent>(object(fixture, &changes)).unwrap();
            let says = match map::opening(&intent).unwrap().kind {
                FactKind::RequiresAction(_) => "waiting for the customer",
                FactKind::Pending => "pending",
                FactKind::Approved { .. } => "approved, for",
                FactKind::Declined(_) => "declined",
                FactKind::Expired => "expired",
                FactKind::Failed(Cause::Voided) => "else failed (`VOIDED`)",
                FactKind::Failed(_) | FactKind::TakenBack(_) => panic!("{status}"),
            };
            assert!(told.contains(says), "{status}: {told}, but {says}");
        }
    }
}
