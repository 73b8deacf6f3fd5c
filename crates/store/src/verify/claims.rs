//! Attempts, idempotency records and operator actions: what entries say of them against their rows.
//!
//! Looked up behind each batch, by what the entries name, a few hundred at a time: so memory is bounded by the batch,
//! whatever the tables hold.

pub(super) mod attempts;
pub(super) mod key_records;
mod queries;

use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::ids::{EntryId, PaymentId, TransactionId};
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    Claim, Mismatch, StoredAction, closes_case_of, compare_action, left_open,
    operator_action_without_entry,
};
use uuid::Uuid;

pub(super) use self::queries::Behind;
use self::queries::{ActionTuple, LeftOpenTuple, ReadActions, ReadLeftOpen, ReadOpenings};
use super::Events;
use super::read::Verifying;
use crate::pool::Reading;

/// Entries whose rows are read at once: an attempt has up to 16 KiB.
const CHUNK: usize = 256;
/// Operator actions of one page.
const PAGE: i64 = 1_024;

/// Holds the rows to what these entries say of them.
pub(super) async fn compare(
    connection: &mut Verifying,
    claims: &[Claim],
) -> Result<Vec<Mismatch>, StoreError> {
    let mut found = Vec::new();
    for chunk in claims.chunks(CHUNK) {
        attempts::compare(connection, chunk, &mut found).await?;
        key_records::compare(connection, chunk, &mut found).await?;
        compare_openings(connection, chunk, &mut found).await?;
        compare_closings(connection, chunk, &mut found).await?;
    }
    Ok(found)
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
        let row = rows.iter().find(|row| row.0.0 == claim.entry.0);
        let row = row.map(|row| stored_action(row, claim));
        compare_action(claim, row.as_ref(), found);
    }
    Ok(())
}

fn stored_action(row: &ActionTuple, claim: &Claim) -> StoredAction {
    let ((_, payment, transaction), (tenant, kind), (opened_at, closed_at, closed_by), closing) =
        row;
    let closing = closing.as_ref();
    StoredAction {
        payment: PaymentId(*payment),
        transaction: TransactionId(*transaction),
        tenant: tenant.clone(),
        kind: kind.clone(),
        opened_at: *opened_at,
        closed_at: *closed_at,
        closed_by: closed_by.map(EntryId),
        closes: closing.and_then(|leaf| closes_case_of(leaf, claim.transaction, claim.said.opened)),
    }
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
    pages(
        connection,
        events,
        |after, connection| {
            let query = ReadOpenings { after };
            async move { query.load::<(Uuid, Uuid, bool)>(connection).await }.boxed()
        },
        |(action, ..)| *action,
        |(action, payment, opened)| {
            let without = || operator_action_without_entry(EntryId(action), PaymentId(payment));
            (!opened).then(without)
        },
    )
    .await
}

/// Reads rows page by page, in the order of their ids, and tells what is found of them.
async fn pages<T, F>(
    connection: &mut Verifying,
    events: &Events,
    read: F,
    id: fn(&T) -> Uuid,
    judge: impl Fn(T) -> Option<Mismatch>,
) -> Result<(), StoreError>
where
    F: for<'c> Fn(Behind, &'c mut AsyncPgConnection) -> Reading<'c, Vec<T>>,
{
    let mut after = Behind::default();
    loop {
        let page = connection
            .read(|connection| read(after, connection))
            .await?;
        let last = i64::try_from(page.len()).is_ok_and(|rows| rows < PAGE);
        after = page.last().map_or(after, |row| Behind::id(id(row)));
        let found = page.into_iter().filter_map(&judge).collect();
        events.found(found).await?;
        if last {
            return Ok(());
        }
    }
}

/// Those of some rows that are at these places in their list, as a statement counts them: from 1.
fn at_places<T>(rows: &[T], places: Vec<i64>) -> impl Iterator<Item = &T> {
    places.into_iter().filter_map(|place| {
        let index = usize::try_from(place).ok()?.checked_sub(1)?;
        rows.get(index)
    })
}
