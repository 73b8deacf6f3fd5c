//! Idempotency records: what entries say of them against their rows.
//!
//! In both directions. A record that is gone lets a command be carried out twice; one that somebody made up answers a
//! command that was never accepted with another's outcome.

use std::collections::BTreeSet;

use quittance_evidence::{Hash, Leaf};

use super::claims::Claim;
use super::mismatch::{Mismatch, Shown};
use super::row_fault::RowFault;
use crate::change::CommandKind;
use crate::ids::{PaymentId, TransactionId};

/// What an entry says of the idempotency key under which its command was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySaid {
    /// Digest of tenant and key.
    pub digest: Hash,
    /// The command, as far as the event tells it.
    pub command: Option<CommandKind>,
}

impl KeySaid {
    pub(super) fn of(leaf: &Leaf) -> Option<Self> {
        leaf.idempotency_key_digest.map(|digest| Self {
            digest,
            command: command_of(&leaf.event_type),
        })
    }
}

/// The command whose acceptance an event is.
fn command_of(event_type: &str) -> Option<CommandKind> {
    match event_type.strip_suffix(".accepted")? {
        "payment" => Some(CommandKind::Create),
        "confirm" => Some(CommandKind::Confirm),
        "capture" => Some(CommandKind::Capture),
        "void" => Some(CommandKind::Void),
        "refund" => Some(CommandKind::Refund),
        _ => None,
    }
}

/// An idempotency record as stored: the digest of its key, and where it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKeyRecord {
    /// Digest of tenant and key, as entries have it.
    pub key_digest: [u8; 32],
    /// Column `command`.
    pub command: String,
    /// The payment.
    pub payment: PaymentId,
    /// The transaction that the command made or advanced.
    pub transaction: TransactionId,
}

/// Holds the records of a payment to what an entry says.
pub fn compare_key_record(claim: &Claim, rows: &[StoredKeyRecord], out: &mut Vec<Mismatch>) {
    let Some(said) = claim.said.key else {
        return;
    };
    let digest = said.digest.as_bytes();
    let own = rows.iter().filter(|row| row.payment == claim.payment);
    let mut own = own.filter(|row| row.key_digest == *digest).peekable();
    if own.peek().is_none() {
        out.push(claim.mismatch(RowFault::IdempotencyRecordMissing));
    }
    let mut differs = |column, expected, found| {
        out.push(claim.mismatch(RowFault::IdempotencyRecordDiffers {
            column,
            expected,
            found,
        }));
    };
    for row in own {
        if row.transaction != claim.transaction {
            let (expected, found) = (Shown::of(&claim.transaction), Shown::of(&row.transaction));
            differs("transaction_id", expected, found);
        }
        if let Some(command) = said.command.filter(|it| it.name() != row.command) {
            differs("command", Shown::of(&command), Shown::of(&row.command));
        }
    }
}

/// The records whose keys none of these entries is about. Entries of their payments that are not among these may be.
pub fn unspoken_key_records<'a>(
    claims: &[&Claim],
    rows: &'a [StoredKeyRecord],
) -> Vec<&'a StoredKeyRecord> {
    let said = claims.iter().filter_map(|claim| {
        let digest = claim.said.key?.digest;
        Some((claim.payment, *digest.as_bytes()))
    });
    let said: BTreeSet<_> = said.collect();
    rows.iter()
        .filter(|row| !said.contains(&(row.payment, row.key_digest)))
        .collect()
}

/// A record under whose key no command of its payment was accepted.
pub fn key_record_without_entry(record: &StoredKeyRecord) -> Mismatch {
    let fault = RowFault::IdempotencyRecordWithoutEntry(record.transaction);
    Mismatch::of_payment(record.payment, fault)
}

/// Records that lead to a payment of which no entry says that a command was accepted.
pub fn key_records_of_nothing(payment: PaymentId) -> Mismatch {
    Mismatch::of_payment(payment, RowFault::IdempotencyRecordsOfNothing)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::ids::EntryId;
    use crate::verification::Fault;
    use crate::verification::RowsSaid;

    fn claim(digest: u8) -> Claim {
        Claim {
            payment: PaymentId(Uuid::from_u128(1)),
            tenant: "acme".to_owned(),
            entry: EntryId(Uuid::from_u128(2)),
            at: DateTime::UNIX_EPOCH,
            entity_seq: 1,
            position: Some(0),
            transaction: TransactionId(Uuid::from_u128(3)),
            said: RowsSaid {
                key: Some(KeySaid {
                    digest: Hash::from_bytes([digest; 32]),
                    command: Some(CommandKind::Refund),
                }),
                ..RowsSaid::default()
            },
        }
    }

    fn record(digest: u8) -> StoredKeyRecord {
        StoredKeyRecord {
            key_digest: [digest; 32],
            command: "RefundPayment".to_owned(),
            payment: PaymentId(Uuid::from_u128(1)),
            transaction: TransactionId(Uuid::from_u128(3)),
        }
    }

    fn columns(rows: &[StoredKeyRecord]) -> Vec<&'static str> {
        let mut found = Vec::new();
        compare_key_record(&claim(7), rows, &mut found);
        let column = |mismatch: Mismatch| match mismatch.fault {
            Fault::Row(RowFault::IdempotencyRecordDiffers { column, .. }) => column,
            fault => fault.code(),
        };
        found.into_iter().map(column).collect()
    }

    #[test]
    fn every_record_of_a_key_is_of_its_command_and_leads_to_its_transaction() {
        assert_eq!(columns(&[record(7), record(8)]), [""; 0]);
        assert_eq!(columns(&[record(8)]), ["IDEMPOTENCY_RECORD_MISSING"]);
        let other = StoredKeyRecord {
            transaction: TransactionId(Uuid::from_u128(4)),
            ..record(7)
        };
        let void = StoredKeyRecord {
            command: "VoidPayment".to_owned(),
            ..record(7)
        };
        // Of several where somebody dropped a key, each is looked at.
        assert_eq!(
            columns(&[record(7), other, void]),
            ["transaction_id", "command"]
        );
    }

    #[test]
    fn a_record_is_unspoken_of_where_no_entry_of_its_payment_has_its_key() {
        let elsewhere = StoredKeyRecord {
            payment: PaymentId(Uuid::from_u128(9)),
            ..record(7)
        };
        let rows = [record(7), record(8), elsewhere.clone()];
        let found = unspoken_key_records(&[&claim(7)], &rows);
        assert_eq!(found, [&record(8), &elsewhere]);
        let told = key_record_without_entry(&elsewhere);
        assert_eq!(told.fault.code(), "IDEMPOTENCY_RECORD_WITHOUT_ENTRY");
        assert_eq!(told.payment, Some(elsewhere.payment));
    }

    #[test]
    fn an_acceptance_tells_its_command() {
        for (event, command) in [
            ("payment.accepted", CommandKind::Create),
            ("confirm.accepted", CommandKind::Confirm),
            ("capture.accepted", CommandKind::Capture),
            ("void.accepted", CommandKind::Void),
            ("refund.accepted", CommandKind::Refund),
        ] {
            assert_eq!(command_of(event), Some(command));
        }
        assert_eq!(command_of("refund.succeeded"), None);
        assert_eq!(command_of("other.accepted"), None);
    }
}
