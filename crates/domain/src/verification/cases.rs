//! Cases for a person: what entries say of them against their rows.

use chrono::{DateTime, Utc};
use quittance_evidence::Leaf;

use super::claims::{Claim, RowsSaid};
use super::mismatch::{Mismatch, Shown};
use super::row_fault::RowFault;
use crate::change::OperatorActionKind;
use crate::ids::{EntryId, PaymentId, TransactionId};

/// A case for a person, as stored.
#[derive(Debug, Clone)]
pub struct StoredAction {
    /// Column `payment_id`.
    pub payment: PaymentId,
    /// Column `transaction_id`.
    pub transaction: TransactionId,
    /// Column `tenant_id`: who is shown it.
    pub tenant: String,
    /// Column `kind`.
    pub kind: String,
    /// Column `opened_at`.
    pub opened_at: DateTime<Utc>,
    /// Column `closed_at`: nobody is shown it any more.
    pub closed_at: Option<DateTime<Utc>>,
    /// By which entry it was closed, as far as the row says.
    pub closed_by: Option<EntryId>,
    /// When that entry was made, where it is there, comes after the one that opened it, and closes it ([`closes_case_of`]).
    pub closes: Option<DateTime<Utc>>,
}

/// When the bytes were made, where they are an entry that closes the cases of this kind about a transaction. Whether the
/// service wrote them is looked at where the entry itself is checked.
pub fn closes_case_of(
    leaf: &[u8],
    transaction: TransactionId,
    kind: Option<OperatorActionKind>,
) -> Option<DateTime<Utc>> {
    let leaf = Leaf::decode(leaf).ok()?;
    let closed = RowsSaid::of(&leaf).closed;
    let mut closed = closed.iter().filter(|(id, _)| *id == transaction.0);
    closed
        .any(|(_, closed)| closed.is_none() || *closed == kind)
        .then_some(leaf.occurred_at)
}

/// Holds the case that an entry opened to what it says.
pub fn compare_action(claim: &Claim, row: Option<&StoredAction>, out: &mut Vec<Mismatch>) {
    let Some(kind) = claim.said.opened else {
        return;
    };
    let Some(row) = row else {
        let missing = RowFault::OperatorActionMissing(claim.transaction);
        return out.push(claim.mismatch(missing));
    };
    let mut differs = |column, expected, found| {
        out.push(claim.mismatch(RowFault::OperatorActionDiffers {
            column,
            expected,
            found,
        }));
    };
    if row.payment != claim.payment {
        let (expected, found) = (Shown::of(&claim.payment), Shown::of(&row.payment));
        differs("payment_id", expected, found);
    }
    if row.transaction != claim.transaction {
        let (expected, found) = (Shown::of(&claim.transaction), Shown::of(&row.transaction));
        differs("transaction_id", expected, found);
    }
    if row.tenant != claim.tenant {
        differs(
            "tenant_id",
            Shown::of(&claim.tenant),
            Shown::of(&row.tenant),
        );
    }
    if row.kind != kind.name() {
        differs("kind", Shown::of(kind.name()), Shown::of(&row.kind));
    }
    if !claim.is_at(row.opened_at) {
        let (expected, found) = (Shown::of_time(claim.at), Shown::of_time(row.opened_at));
        differs("opened_at", expected, found);
    }
    if let Some(entry) = row.closed_by.filter(|_| row.closes.is_none()) {
        let expected = Shown::of("an entry that closes it");
        differs("closed_by", expected, Shown::of(&entry));
        return;
    }
    let micros = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_micros());
    if micros(row.closes) != micros(row.closed_at) {
        let shown = |time: Option<DateTime<Utc>>| {
            time.map_or_else(|| Shown::of_option(None::<&str>), Shown::of_time)
        };
        differs("closed_at", shown(row.closes), shown(row.closed_at));
    }
}

/// A case that an entry closed, and that is open by its row.
pub fn left_open(claim: &Claim) -> Mismatch {
    claim.mismatch(RowFault::OperatorActionDiffers {
        column: "closed_by",
        expected: Shown::of(&claim.entry),
        found: Shown::of_option(None::<&str>),
    })
}

/// A case that no entry opened.
pub fn operator_action_without_entry(action: EntryId, payment: PaymentId) -> Mismatch {
    Mismatch::of_payment(payment, RowFault::OperatorActionWithoutEntry(action))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;
    use crate::verification::Fault;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    /// What differs of a case that was opened at 1 and is closed at 2, by an entry of that time.
    fn differing(change: impl FnOnce(&mut StoredAction)) -> Vec<&'static str> {
        let claim = Claim {
            payment: PaymentId(Uuid::from_u128(1)),
            tenant: "acme".to_owned(),
            entry: EntryId(Uuid::from_u128(2)),
            at: at(1),
            entity_seq: 1,
            position: None,
            transaction: TransactionId(Uuid::from_u128(3)),
            said: RowsSaid {
                opened: Some(OperatorActionKind::ExcessAmount),
                ..RowsSaid::default()
            },
        };
        let mut row = StoredAction {
            payment: claim.payment,
            transaction: claim.transaction,
            tenant: "acme".to_owned(),
            kind: "EXCESS_AMOUNT".to_owned(),
            opened_at: at(1),
            closed_at: Some(at(2)),
            closed_by: Some(EntryId(Uuid::from_u128(4))),
            closes: Some(at(2)),
        };
        change(&mut row);
        let mut found = Vec::new();
        compare_action(&claim, Some(&row), &mut found);
        let column = |mismatch: Mismatch| match mismatch.fault {
            Fault::Row(RowFault::OperatorActionDiffers { column, .. }) => column,
            fault => fault.code(),
        };
        found.into_iter().map(column).collect()
    }

    #[test]
    fn a_case_is_its_tenants_and_of_its_entrys_time() {
        assert_eq!(differing(|_| ()), [""; 0]);
        assert_eq!(differing(|row| row.tenant.push('x')), ["tenant_id"]);
        assert_eq!(differing(|row| row.opened_at = at(2)), ["opened_at"]);
    }

    #[test]
    fn a_case_is_closed_by_an_entry_and_then_or_open() {
        let open = |row: &mut StoredAction| {
            row.closed_at = None;
            row.closed_by = None;
            row.closes = None;
        };
        assert_eq!(differing(open), [""; 0]);
        assert_eq!(differing(|row| row.closed_at = Some(at(3))), ["closed_at"]);
        assert_eq!(differing(|row| row.closed_at = None), ["closed_at"]);
        let by_nobody = |row: &mut StoredAction| {
            open(row);
            row.closed_at = Some(at(2));
        };
        assert_eq!(differing(by_nobody), ["closed_at"]);
        assert_eq!(differing(|row| row.closes = None), ["closed_by"]);
    }
}
