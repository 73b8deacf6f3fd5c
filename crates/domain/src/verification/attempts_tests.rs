//! Attempts against what entries say.

use chrono::TimeDelta;
use uuid::Uuid;

use super::*;
use crate::ids::EntryId;
use crate::verification::{Fault, RowsSaid};

const PAYMENT: PaymentId = PaymentId(Uuid::from_u128(1));
const TRANSACTION: TransactionId = TransactionId(Uuid::from_u128(2));

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn claim(seconds: i64, end: Option<AttemptEndSaid>) -> Claim {
    Claim {
        payment: PAYMENT,
        tenant: "acme".to_owned(),
        entry: EntryId(Uuid::from_u128(3)),
        at: at(seconds),
        entity_seq: 1,
        position: None,
        transaction: TRANSACTION,
        said: RowsSaid {
            attempt: Some(AttemptSaid {
                number: 1,
                request: Some(Hash::from_bytes([1; 32])),
                response: None,
                account: Some("here".to_owned()),
                operation: Some("refund".to_owned()),
                end,
            }),
            ..RowsSaid::default()
        },
    }
}

fn unknown() -> AttemptEndSaid {
    AttemptEndSaid {
        outcome: "UNKNOWN".to_owned(),
        cause: Some("RESPONSE_TIMEOUT".to_owned()),
        latency_micros: Some("5000".to_owned()),
    }
}

/// An attempt that began at 1 and timed out at 2.
fn row() -> StoredAttempt {
    StoredAttempt {
        tenant: "acme".to_owned(),
        operation: "refund".to_owned(),
        account: "here".to_owned(),
        started_at: at(1),
        request_digest: vec![1; 32],
        ended_at: Some(at(2)),
        outcome: Some("UNKNOWN".to_owned()),
        cause: Some("RESPONSE_TIMEOUT".to_owned()),
        latency_micros: Some(5_000),
        response_digest: None,
        response: StoredResponse::None,
    }
}

fn differing(change: impl FnOnce(&mut StoredAttempt)) -> Vec<&'static str> {
    let mut row = row();
    change(&mut row);
    let mut found = Vec::new();
    compare_attempt(&claim(1, None), Some(&row), &mut found);
    found.extend(compare_attempt_end(&claim(1, None), &row));
    found.extend(compare_attempt_end(&claim(2, Some(unknown())), &row));
    let column = |mismatch: Mismatch| match mismatch.fault {
        Fault::Row(RowFault::AttemptDiffers { column, .. }) => column,
        fault => fault.code(),
    };
    found.into_iter().map(column).collect()
}

#[test]
fn every_column_that_an_entry_states_is_compared() {
    assert_eq!(differing(|_| ()), [""; 0]);
    assert_eq!(differing(|row| row.tenant.push('x')), ["tenant_id"]);
    assert_eq!(differing(|row| row.account.push('x')), ["provider_account"]);
    assert_eq!(differing(|row| row.operation.push('x')), ["operation"]);
    assert_eq!(differing(|row| row.started_at = at(0)), ["started_at"]);
    assert_eq!(
        differing(|row| row.request_digest = vec![2; 32]),
        ["request_digest"]
    );
    assert_eq!(differing(|row| row.ended_at = Some(at(3))), ["ended_at"]);
    let not_sent = Some("NOT_SENT".to_owned());
    assert_eq!(differing(|row| row.outcome = not_sent), ["outcome"]);
    assert_eq!(differing(|row| row.cause = None), ["cause"]);
    assert_eq!(
        differing(|row| row.latency_micros = Some(1)),
        ["latency_micros"]
    );
    let digest = Some(vec![3; 32]);
    assert_eq!(
        differing(|row| row.response_digest = digest),
        ["response_digest"]
    );
}

#[test]
fn one_that_ended_is_not_taken_back() {
    let found = differing(|row| {
        row.outcome = None;
        row.ended_at = None;
        row.latency_micros = None;
    });
    assert_eq!(found, ["outcome", "latency_micros", "ended_at"]);
}

#[test]
fn an_attempt_is_unspoken_of_where_no_entry_began_it_or_ended_it() {
    let key = |number, ended| AttemptKey {
        payment: PAYMENT,
        transaction: TRANSACTION,
        number,
        ended,
    };
    let begun = [claim(1, None)];
    let both = [claim(1, None), claim(2, Some(unknown()))];
    assert_eq!(unspoken_attempts(&begun, &[key(1, false)]), []);
    assert_eq!(unspoken_attempts(&begun, &[key(1, true)]), [key(1, true)]);
    assert_eq!(unspoken_attempts(&both, &[key(1, true)]), []);
    // It may have ended since its row was read.
    assert_eq!(unspoken_attempts(&both[1..], &[key(1, false)]), []);
    for number in [i32::MIN, -1, 0, 2, i32::MAX] {
        assert_eq!(
            unspoken_attempts(&both, &[key(number, false)]),
            [key(number, false)]
        );
    }
    let other = AttemptKey {
        transaction: TransactionId(Uuid::from_u128(9)),
        ..key(1, false)
    };
    assert_eq!(unspoken_attempts(&both, &[other]), [other]);
    assert_eq!(
        attempt_without_entry(other).fault.code(),
        "ATTEMPT_WITHOUT_ENTRY"
    );
}
