//! That `docs/adyen.md` says of every event what the code does with it.

use super::*;

const DOCS: &str = include_str!("../../../../docs/adyen.md");
/// Every event of Adyen's standard webhooks that is about a payment or its dispute.
const EVENTS: [&str; 38] = [
    "AUTHORISATION",
    "AUTHORISATION_ADJUSTMENT",
    "AUTORESCUE",
    "AUTORESCUE_NEXT_ATTEMPT",
    "CANCELLATION",
    "CANCEL_AUTORESCUE",
    "CANCEL_OR_REFUND",
    "CAPTURE",
    "CAPTURE_FAILED",
    "CHARGEBACK",
    "CHARGEBACK_REVERSED",
    "DISPUTE_DEFENSE_PERIOD_ENDED",
    "EXPIRE",
    "INFORMATION_SUPPLIED",
    "ISSUER_COMMENTS",
    "ISSUER_RESPONSE_TIMEFRAME_EXPIRED",
    "MANUAL_REVIEW_ACCEPT",
    "MANUAL_REVIEW_REJECT",
    "NOTIFICATION_OF_CHARGEBACK",
    "NOTIFICATION_OF_FRAUD",
    "OFFER_CLOSED",
    "ORDER_CLOSED",
    "ORDER_OPENED",
    "POSTPONED_REFUND",
    "PREARBITRATION_ACCEPTED",
    "PREARBITRATION_DECLINED",
    "PREARBITRATION_ISSUER_WITHDRAWN",
    "PREARBITRATION_LOST",
    "PREARBITRATION_OPEN",
    "PREARBITRATION_WON",
    "REFUND",
    "REFUNDED_REVERSED",
    "REFUND_FAILED",
    "REFUND_WITH_DATA",
    "REQUEST_FOR_INFORMATION",
    "SCHEME_ARBITRATION",
    "SCHEME_ARBITRATION_LOST",
    "SCHEME_ARBITRATION_WON",
];
/// Handled, and newer in the list above than in this one would be a surprise.
const ALSO: [&str; 3] = [
    "RECURRING_CONTRACT",
    "SECOND_CHARGEBACK",
    "TECHNICAL_CANCEL",
];

/// How the docs say what an event tells: the beginning of the cell.
fn told_as(code: &str, success: bool) -> &'static str {
    let mut item = item_of(CHARGEBACK);
    item["eventCode"] = json!(code);
    item["success"] = json!(success.to_string());
    let facts = match account().webhook(&batch(&[item])) {
        Ok(facts) => facts,
        Err(Unreadable::Unexpected) => return "not handled",
        Err(Unreadable::Malformed) => panic!("{code} cannot be read"),
    };
    let Some(told) = facts.first() else {
        return "nothing";
    };
    let kind = match &told.subject {
        Subject::Operation { kind, .. } | Subject::Unnamed { kind } => Some(*kind),
        Subject::Transaction(_) => None,
        Subject::Unclear { .. } => return "a person is asked",
    };
    match (&told.fact.kind, kind) {
        (FactKind::Approved { .. }, None) => "approved",
        (FactKind::Approved { .. }, Some(TransactionKind::Chargeback)) => "a chargeback",
        (FactKind::Approved { .. }, Some(TransactionKind::ChargebackReversal)) => "its reversal",
        (FactKind::Approved { .. }, Some(_)) => "done",
        (FactKind::TakenBack(_), _) => "done, and taken back",
        (FactKind::Pending, _) => "an inquiry:",
        (FactKind::Declined(_), Some(_)) => "an inquiry is closed",
        (FactKind::Declined(_), None) => "declined",
        (FactKind::Expired, _) => "the authorization, or what is left of it, ran out",
        (FactKind::Failed(Cause::Expired), _) => "failed (`EXPIRED`)",
        (FactKind::Failed(_), _) => "failed",
        (FactKind::RequiresAction(_), _) => panic!("{code} asks nothing of a customer"),
    }
}

/// The rows of the table of events: event, success, failure.
fn rows() -> Vec<[String; 3]> {
    let table = DOCS.split("| Event | Success | Failure |").nth(1).unwrap();
    let mut lines = table.lines().skip(2);
    let mut rows = Vec::new();
    while let Some(row) = lines.next().and_then(|line| line.strip_prefix("| ")) {
        let cells: Vec<_> = row.trim_end_matches('|').split(" | ").collect();
        let [events, success, failure] = cells.as_slice() else {
            panic!("{row}");
        };
        for event in events.split(", ") {
            rows.push([event, success, failure].map(|cell| cell.trim().to_owned()));
        }
    }
    rows
}

#[test]
fn the_table_of_events_is_what_the_code_does() {
    let rows = rows();
    for [event, success, failure] in &rows {
        for (cell, told) in [
            (success, told_as(event, true)),
            (failure, told_as(event, false)),
        ] {
            let longer = cell.strip_prefix(told).unwrap_or_else(|| {
                panic!("{event}: the docs say {cell:?}, the code {told:?}");
            });
            let whole = told != "done" && told != "a chargeback" || longer.is_empty();
            assert!(whole, "{event}: the docs say {cell:?}, the code {told:?}");
        }
    }
    for event in EVENTS.iter().chain(&ALSO) {
        let handled = told_as(event, true) != "not handled";
        let there = rows.iter().filter(|[name, ..]| name == event).count();
        assert_eq!(there, usize::from(handled), "{event}");
    }
    assert!(
        rows.iter()
            .all(|[event, ..]| EVENTS.iter().chain(&ALSO).any(|it| it == event))
    );
}

#[test]
fn every_event_that_tells_something_is_one_to_subscribe_to() {
    let setup = DOCS.split("with these events:").nth(1).unwrap();
    let setup = setup.split('.').next().unwrap();
    let mut wanted: Vec<_> = setup.split(',').map(str::trim).collect();
    let rows = rows();
    let tell = rows
        .iter()
        .filter(|[_, success, _]| !success.starts_with("nothing"));
    let mut tell: Vec<_> = tell.map(|[event, ..]| event.as_str()).collect();
    wanted.sort_unstable();
    tell.sort_unstable();
    assert_eq!(wanted, tell);
}
