//! Attempts, idempotency records and operator actions: what entries say of them against their rows.
//!
//! Looked up behind each batch, by what the entries name, a few hundred at a time: so memory is bounded by the batch,
//! whatever the tables hold.

mod queries;

use std::collections::BTreeSet;

use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::fingerprint::{FingerprintKey, idempotency_key_digest};
use quittance_domain::ids::{EntryId, PaymentId, TransactionId};
use quittance_domain::ports::StoreError;
use quittance_domain::transaction::MAX_STORED_RESPONSE;
use quittance_domain::verification::{
    Claim, Mismatch, RowFault, StoredAction, StoredAttempt, StoredKeyRecord, StoredResponse,
    closes_case_of, compare_action, compare_attempt, compare_key_record, left_open,
    operator_action_without_entry,
};
use uuid::Uuid;

use self::queries::{
    ActionTuple, AttemptTuple, LeftOpenTuple, ReadActions, ReadAttempts, ReadLeftOpen,
    ReadOpenings, ReadRecords,
};
use super::Events;
use super::read::Verifying;
use crate::erasures::{ReadSaid, SaidRow, erased};
use crate::keys::KeyRing;
use crate::sealing::{CustomerKey, Place, open_unless_erased};

/// Entries whose rows are read at once: an attempt has up to 16 KiB.
const CHUNK: usize = 256;
/// Most idempotency records of the payments of a chunk: each has an entry, and a payment is opened and changed by a few
/// thousand commands at most.
const MAX_RECORDS: i64 = 16_384;
/// Longest sealed answer, in bytes: what is stored of it, and what sealing adds at most.
const MAX_SEALED: usize = MAX_STORED_RESPONSE + 128;
/// Operator actions of one page.
const PAGE: i64 = 1_024;

/// Holds the rows to what these entries say of them.
pub(super) async fn compare(
    connection: &mut Verifying,
    claims: &[Claim],
) -> Result<Vec<Mismatch>, StoreError> {
    let mut found = Vec::new();
    for chunk in claims.chunks(CHUNK) {
        compare_attempts(connection, chunk, &mut found).await?;
        compare_records(connection, chunk, &mut found).await?;
        compare_openings(connection, chunk, &mut found).await?;
        compare_closings(connection, chunk, &mut found).await?;
    }
    Ok(found)
}

async fn compare_attempts(
    connection: &mut Verifying,
    claims: &[Claim],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    let numbered = claims.iter().filter_map(|claim| {
        let number = i32::try_from(claim.said.attempt?.number).ok()?;
        Some((claim, number))
    });
    let numbered: Vec<_> = numbered.collect();
    if numbered.is_empty() {
        return Ok(());
    }
    let rows = connection.read(|connection| {
        let claims = numbered.iter();
        let query = ReadAttempts {
            payments: claims.clone().map(|(claim, _)| claim.payment.0).collect(),
            transactions: claims
                .clone()
                .map(|(claim, _)| claim.transaction.0)
                .collect(),
            numbers: claims.map(|(_, number)| *number).collect(),
            cut: i32::try_from(MAX_SEALED + 1).unwrap_or(i32::MAX),
            most: i64::try_from(numbered.len() + 1).unwrap_or(i64::MAX),
        };
        async move { query.load::<AttemptTuple>(connection).await }.boxed()
    });
    let mut rows = rows.await?;
    if let Some(place) = first_repeated(&mut rows) {
        let repeated = numbered.get(place);
        found
            .extend(repeated.map(|(claim, _)| {
                claim.mismatch(RowFault::AttemptWithoutEntry(claim.transaction))
            }));
    }
    let erased = erased_customers(connection, &rows).await?;
    for ((claim, _), row) in numbered.iter().zip(rows) {
        let beyond = row.7;
        let row = stored_attempt(row, &erased, connection.keys());
        compare_attempt(claim, row.as_ref(), found);
        // Once: both entries about an attempt find it.
        if beyond
            && claim
                .said
                .attempt
                .is_some_and(|said| said.response.is_none())
        {
            found.push(claim.mismatch(RowFault::AttemptWithoutEntry(claim.transaction)));
        }
    }
    Ok(())
}

/// Leaves one row of each place. Gives the first place that has several, from 0.
fn first_repeated(rows: &mut Vec<AttemptTuple>) -> Option<usize> {
    let mut repeated = None;
    rows.dedup_by(|row, kept| {
        let again = row.0 == kept.0;
        if again {
            repeated.get_or_insert(row.0);
        }
        again
    });
    usize::try_from(repeated?).ok()?.checked_sub(1)
}

/// The customers of these attempts that are erased, or are to be, as the log says: of those whose answer or key is gone.
async fn erased_customers(
    connection: &mut Verifying,
    rows: &[AttemptTuple],
) -> Result<BTreeSet<Uuid>, StoreError> {
    let gone = rows.iter().filter_map(|row| {
        let (customer, data_key) = &row.6;
        customer.filter(|_| row.5.is_none() || data_key.is_none())
    });
    let gone: BTreeSet<Uuid> = gone.collect();
    if gone.is_empty() {
        return Ok(gone);
    }
    let said = connection.read(|connection| {
        let query = ReadSaid::of(gone.iter().copied().collect());
        async move { query.load::<SaidRow>(connection).await }.boxed()
    });
    let said = said.await?;
    Ok(erased(&said, connection.keys()))
}

/// `None` where there is no such attempt.
fn stored_attempt(
    row: AttemptTuple,
    erased: &BTreeSet<Uuid>,
    ring: &KeyRing,
) -> Option<StoredAttempt> {
    let (_, id, request_digest, response_digest, salt, response, customer, _) = row;
    let (id, salt) = (id?, salt?);
    let (customer, data_key) = customer;
    let erased = customer.is_some_and(|id| erased.contains(&id));
    let key = customer.zip(data_key.as_ref());
    let key = key.and_then(|(id, sealed)| CustomerKey::unwrap(ring, id, sealed).ok());
    let open = |column, sealed: &[u8]| {
        let place = Place::new("attempts", column, id);
        open_unless_erased(ring, key.as_ref(), place, sealed)
    };
    let response = match response {
        None if erased => StoredResponse::Erased,
        None => StoredResponse::None,
        Some(sealed) => match (open("response", &sealed), open("digest_salt", &salt)) {
            (Ok(Some(bytes)), Ok(Some(salt))) => match salt.as_slice().try_into() {
                Ok(salt) => StoredResponse::Opened {
                    bytes: bytes.to_vec(),
                    salt,
                },
                Err(_) => StoredResponse::Unreadable,
            },
            (Ok(_), Ok(_)) if erased => StoredResponse::Erased,
            (Ok(_) | Err(_), Ok(_) | Err(_)) => StoredResponse::Unreadable,
        },
    };
    Some(StoredAttempt {
        request_digest: request_digest?,
        response_digest,
        response,
    })
}

async fn compare_records(
    connection: &mut Verifying,
    claims: &[Claim],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    let keyed = claims.iter();
    let keyed: Vec<_> = keyed
        .filter(|claim| claim.said.key_digest.is_some())
        .collect();
    if keyed.is_empty() {
        return Ok(());
    }
    let rows = connection.read(|connection| {
        let mut payments: Vec<_> = keyed.iter().map(|claim| claim.payment.0).collect();
        payments.dedup();
        let query = ReadRecords { payments };
        async move { query.load::<(String, String, Uuid, Uuid)>(connection).await }.boxed()
    });
    let rows = rows.await?;
    let many = i64::try_from(rows.len()).is_ok_and(|rows| rows >= MAX_RECORDS);
    // Of the last payment perhaps not all were read.
    let cut = rows.last().map(|row| PaymentId(row.2)).filter(|_| many);
    let key = FingerprintKey::new(connection.keys().fingerprint_key());
    let record =
        |(tenant, text, payment, transaction): (String, String, Uuid, Uuid)| StoredKeyRecord {
            key_digest: idempotency_key_digest(&key, &tenant, &text),
            payment: PaymentId(payment),
            transaction: TransactionId(transaction),
        };
    let rows: Vec<_> = rows.into_iter().map(record).collect();
    let mut told = false;
    for claim in keyed {
        // Payments come in the order of their ids, as they were read.
        let from = rows.partition_point(|row| row.payment < claim.payment);
        let own = rows.get(from..).unwrap_or_default();
        let to = own.partition_point(|row| row.payment == claim.payment);
        if cut.is_none_or(|cut| claim.payment < cut) {
            compare_key_record(claim, own.get(..to).unwrap_or_default(), found);
        } else if !told {
            told = true;
            found.push(claim.mismatch(RowFault::TooManyIdempotencyRecords));
        }
    }
    Ok(())
}

async fn compare_openings(
    connection: &mut Verifying,
    claims: &[Claim],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    let opening = claims.iter().filter(|claim| claim.said.opened.is_some());
    let opening: Vec<_> = opening.collect();
    if opening.is_empty() {
        return Ok(());
    }
    let rows = connection.read(|connection| {
        let query = ReadActions {
            entries: opening.iter().map(|claim| claim.entry.0).collect(),
            most: i64::try_from(opening.len()).unwrap_or(i64::MAX),
        };
        async move { query.load::<ActionTuple>(connection).await }.boxed()
    });
    let rows = rows.await?;
    for claim in opening {
        let row = rows.iter().find(|row| row.0 == claim.entry.0);
        let row = row.map(
            |(_, payment, transaction, kind, closed_by, closing)| StoredAction {
                payment: PaymentId(*payment),
                transaction: TransactionId(*transaction),
                kind: kind.clone(),
                closed_by: closed_by.map(EntryId),
                closes: closing
                    .as_ref()
                    .is_some_and(|leaf| closes_case_of(leaf, claim.transaction, claim.said.opened)),
            },
        );
        compare_action(claim, row.as_ref(), found);
    }
    Ok(())
}

async fn compare_closings(
    connection: &mut Verifying,
    claims: &[Claim],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    let closing = claims.iter().flat_map(|claim| {
        let closed = claim.said.closed.iter();
        closed.map(move |(transaction, kind)| (claim, *transaction, *kind))
    });
    let closing: Vec<_> = closing.collect();
    if closing.is_empty() {
        return Ok(());
    }
    let rows = connection.read(|connection| {
        let closing = closing.iter();
        let query = ReadLeftOpen {
            payments: closing.clone().map(|(claim, ..)| claim.payment.0).collect(),
            transactions: closing
                .clone()
                .map(|(_, transaction, _)| *transaction)
                .collect(),
            kinds: closing
                .clone()
                .map(|(.., kind)| kind.map(|kind| kind.name().to_owned()))
                .collect(),
            numbers: closing.map(|(claim, ..)| claim.entity_seq).collect(),
        };
        async move { query.load::<LeftOpenTuple>(connection).await }.boxed()
    });
    let open = rows.await?;
    for (claim, transaction, kind) in closing {
        let kind = kind.map(|kind| kind.name().to_owned());
        if open.contains(&(transaction, claim.entity_seq, kind)) {
            found.push(left_open(claim));
        }
    }
    Ok(())
}

/// Looks for operator actions that no entry opened.
pub(super) async fn verify_actions(
    connection: &mut Verifying,
    events: &Events,
) -> Result<(), StoreError> {
    let mut after = Uuid::nil();
    loop {
        let page = connection.read(|connection| {
            let query = ReadOpenings { after };
            async move { query.load::<(Uuid, Uuid, bool)>(connection).await }.boxed()
        });
        let page = page.await?;
        let last = i64::try_from(page.len()).is_ok_and(|rows| rows < PAGE);
        after = page.last().map_or(after, |row| row.0);
        let without = page.into_iter().filter(|(.., opened)| !opened);
        let found = without.map(|(action, payment, _)| {
            operator_action_without_entry(EntryId(action), PaymentId(payment))
        });
        events.found(found.collect()).await?;
        if last {
            return Ok(());
        }
    }
}
