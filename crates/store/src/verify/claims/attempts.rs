//! Attempts against what entries say, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::ports::StoreError;
use quittance_domain::transaction::MAX_STORED_RESPONSE;
use quittance_domain::verification::{
    AttemptKey, Claim, Mismatch, RowFault, StoredAttempt, StoredResponse, UnjudgedErasure,
    attempt_without_entry, attempts_of_nothing, compare_attempt, compare_attempt_end,
    unspoken_attempts,
};
use uuid::Uuid;

use self::queries::{
    AttemptTuple, KeyTuple, MAX_ATTEMPTS, ReadAttempted, ReadAttempts, ReadEndedAgain, ReadKeys,
    ReadUnspoken,
};
use super::{at_places, pages};
use crate::erasures::{ReadSaid, SaidRow, erased, undecided};
use crate::keys::KeyRing;
use crate::sealing::{CustomerKey, Place, open_unless_erased};
use crate::verify::Events;
use crate::verify::read::Verifying;

mod queries;

/// Longest sealed answer, in bytes: what is stored of it, and what sealing adds at most.
const MAX_SEALED: usize = MAX_STORED_RESPONSE + 128;

/// Holds the attempts of the payments of these entries to what the entries say.
pub(super) async fn compare(
    connection: &mut Verifying,
    claims: &[Claim],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    let numbered = claims.iter().filter_map(|claim| {
        let number = claim.said.attempt.as_ref()?.number;
        Some((claim, i32::try_from(number).ok()?))
    });
    let numbered: Vec<_> = numbered.collect();
    if numbered.is_empty() {
        return Ok(());
    }
    compare_spoken(connection, &numbered, found).await?;
    compare_unspoken(connection, claims, &numbered, found).await
}

/// What entries say of attempts.
async fn compare_spoken(
    connection: &mut Verifying,
    numbered: &[(&Claim, i32)],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
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
    if let Some((claim, number)) = first_repeated(&mut rows).and_then(|place| numbered.get(place)) {
        found.push(claim.mismatch(RowFault::AttemptWithoutEntry {
            transaction: claim.transaction,
            number: *number,
        }));
    }
    let excused = excused_customers(connection, &rows).await?;
    let mut ends = Vec::new();
    for ((claim, number), row) in numbered.iter().zip(rows) {
        let row = stored_attempt(row, &excused, connection.keys());
        compare_attempt(claim, row.as_ref(), found);
        let differs = row.map_or_else(Vec::new, |row| compare_attempt_end(claim, &row));
        if !differs.is_empty() {
            ends.push((*claim, *number, differs));
        }
    }
    report_ends(connection, ends, found).await
}

/// Reports ends that differ, but those of attempts that ended once more: a later entry says how.
async fn report_ends(
    connection: &mut Verifying,
    ends: Vec<(&Claim, i32, Vec<Mismatch>)>,
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    let again = connection.read(|connection| {
        let ends = ends.iter();
        let query = ReadEndedAgain {
            payments: ends.clone().map(|(claim, ..)| claim.payment.0).collect(),
            transactions: ends
                .clone()
                .map(|(claim, ..)| claim.transaction.0)
                .collect(),
            numbers: ends.clone().map(|(_, number, _)| *number).collect(),
            entries: ends.map(|(claim, ..)| claim.entity_seq).collect(),
        };
        async move { query.load::<i64>(connection).await }.boxed()
    });
    let again: BTreeSet<i64> = again.await?.into_iter().collect();
    for (place, (.., differs)) in (1..).zip(ends) {
        if !again.contains(&place) {
            found.extend(differs);
        }
    }
    Ok(())
}

/// Attempts that no entry speaks of.
async fn compare_unspoken(
    connection: &mut Verifying,
    claims: &[Claim],
    numbered: &[(&Claim, i32)],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    let rows = connection.read(|connection| {
        let mut payments: Vec<_> = numbered.iter().map(|(claim, _)| claim.payment.0).collect();
        payments.dedup();
        let query = ReadKeys { payments };
        async move { query.load::<KeyTuple>(connection).await }.boxed()
    });
    let rows = rows.await?;
    let many = i64::try_from(rows.len()).is_ok_and(|rows| rows >= MAX_ATTEMPTS);
    if let (true, Some((claim, _))) = (many, numbered.first()) {
        found.push(claim.mismatch(RowFault::TooManyAttempts));
    }
    let rows: Vec<_> = rows.into_iter().map(attempt_key).collect();
    report_unspoken(connection, unspoken_attempts(claims, &rows), found).await
}

fn attempt_key((payment, transaction, number, ended): KeyTuple) -> AttemptKey {
    AttemptKey {
        payment: PaymentId(payment),
        transaction: TransactionId(transaction),
        number,
        ended,
    }
}

/// Reports those of the attempts that no entry speaks of: others are of entries of another chunk, or began or ended since the
/// chunk was read. An attempt and its entry are committed together, so the entry is there once the attempt was read.
async fn report_unspoken(
    connection: &mut Verifying,
    attempts: Vec<AttemptKey>,
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    if attempts.is_empty() {
        return Ok(());
    }
    let places = connection.read(|connection| {
        let attempts = attempts.iter();
        let query = ReadUnspoken {
            payments: attempts.clone().map(|it| it.payment.0).collect(),
            transactions: attempts.clone().map(|it| it.transaction.0).collect(),
            numbers: attempts.clone().map(|it| it.number).collect(),
            ended: attempts.map(|it| it.ended).collect(),
        };
        async move { query.load::<i64>(connection).await }.boxed()
    });
    let unspoken = at_places(&attempts, places.await?);
    found.extend(unspoken.copied().map(attempt_without_entry));
    Ok(())
}

/// Looks for attempts of what has no entries about attempts: no chunk comes by their payments.
pub(in crate::verify) async fn verify(
    connection: &mut Verifying,
    events: &Events,
) -> Result<(), StoreError> {
    pages(
        connection,
        events,
        |after, connection| {
            let query = ReadAttempted { after };
            async move { query.load::<(Uuid, bool)>(connection).await }.boxed()
        },
        |(payment, _)| *payment,
        |(payment, spoken)| (!spoken).then(|| attempts_of_nothing(PaymentId(payment))),
    )
    .await
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

/// Customers whose answers need not be there.
#[derive(Default)]
struct Excused {
    /// They are erased, or are to be.
    erased: BTreeSet<Uuid>,
    /// Whether they are is not known here.
    undecided: BTreeMap<Uuid, UnjudgedErasure>,
}

impl Excused {
    /// What is to be said of an answer that is not there; `None` where it should be.
    fn response(&self, customer: Option<Uuid>) -> Option<StoredResponse> {
        let customer = customer?;
        if self.erased.contains(&customer) {
            return Some(StoredResponse::Erased);
        }
        let undecided = self.undecided.get(&customer);
        undecided.cloned().map(StoredResponse::Unjudged)
    }
}

/// What the log says of the customers of these attempts: of those whose answer or key is gone.
async fn excused_customers(
    connection: &mut Verifying,
    rows: &[AttemptTuple],
) -> Result<Excused, StoreError> {
    let gone = rows.iter().filter_map(|row| {
        let (customer, data_key) = &row.4;
        customer.filter(|_| row.3.3.is_none() || data_key.is_none())
    });
    let gone: BTreeSet<Uuid> = gone.collect();
    if gone.is_empty() {
        return Ok(Excused::default());
    }
    let said = connection.read(|connection| {
        let query = ReadSaid::of(gone.iter().copied().collect());
        async move { query.load::<SaidRow>(connection).await }.boxed()
    });
    let said = said.await?;
    Ok(Excused {
        erased: erased(&said, connection.keys()),
        undecided: undecided(&said, connection.keys()),
    })
}

/// `None` where there is no such attempt.
fn stored_attempt(row: AttemptTuple, excused: &Excused, ring: &KeyRing) -> Option<StoredAttempt> {
    let (_, texts, end, sealed, customer) = row;
    let (id, tenant, operation, account, started_at) = texts;
    let (ended_at, outcome, cause, latency_micros) = end;
    let (request_digest, response_digest, salt, answer) = sealed;
    let id = id?;
    let excused = excused.response(customer.0);
    let response = stored_response(id, (&salt?, answer), customer, excused, ring);
    Some(StoredAttempt {
        tenant: tenant?,
        operation: operation?,
        account: account?,
        started_at: started_at.unwrap_or(DateTime::<Utc>::MIN_UTC),
        request_digest: request_digest?,
        ended_at,
        outcome,
        cause,
        latency_micros,
        response_digest,
        response,
    })
}

/// What a provider answered to the attempt `id`: its sealed salt and bytes, opened under the key of the payment's customer;
/// or what excuses that it is not there.
fn stored_response(
    id: Uuid,
    (salt, answer): (&[u8], Option<Vec<u8>>),
    (customer, data_key): (Option<Uuid>, Option<Vec<u8>>),
    excused: Option<StoredResponse>,
    ring: &KeyRing,
) -> StoredResponse {
    let key = customer.zip(data_key.as_ref());
    let key = key.and_then(|(id, sealed)| CustomerKey::unwrap(ring, id, sealed).ok());
    let open = |column, sealed: &[u8]| {
        let place = Place::new("attempts", column, id);
        open_unless_erased(ring, key.as_ref(), place, sealed)
    };
    match answer {
        None => excused.unwrap_or(StoredResponse::None),
        Some(sealed) => match (open("response", &sealed), open("digest_salt", salt)) {
            (Ok(Some(bytes)), Ok(Some(salt))) => match salt.as_slice().try_into() {
                Ok(salt) => StoredResponse::Opened {
                    bytes: bytes.to_vec(),
                    salt,
                },
                Err(_) => StoredResponse::Unreadable,
            },
            (Ok(_), Ok(_)) => excused.unwrap_or(StoredResponse::Unreadable),
            (Ok(_) | Err(_), Ok(_) | Err(_)) => StoredResponse::Unreadable,
        },
    }
}
