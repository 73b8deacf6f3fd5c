//! Idempotency records against what entries say, in both directions.

use diesel::sql_types::{Array, BigInt, Bool, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::fingerprint::{FingerprintKey, idempotency_key_digest};
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    Claim, Mismatch, RowFault, StoredKeyRecord, compare_key_record, key_record_without_entry,
    key_records_of_nothing, unspoken_key_records,
};
use uuid::Uuid;

use super::queries::Behind;
use super::{PAGE, at_places, pages};
use crate::statement::statement;
use crate::verify::Events;
use crate::verify::read::Verifying;

/// Most idempotency records of the payments of a chunk: each has an entry, and a payment is opened and changed by a few
/// thousand commands at most.
const MAX_RECORDS: i64 = 16_384;

type RecordTuple = (String, String, String, Uuid, Uuid);

/// The idempotency records of some payments.
struct ReadRecords {
    payments: Vec<Uuid>,
}

statement!(
    ReadRecords,
    ReadRecords,
    (Text, Text, Text, SqlUuid, SqlUuid),
    |self, out| {
        out.push_sql(
            "select left(tenant_id, 65), left(idempotency_key, 256), left(command, 64), payment_id, transaction_id \
             from idempotency_records where payment_id = any(",
        );
        out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
        out.push_sql(") order by payment_id limit ");
        out.push_bind_param::<BigInt, _>(&MAX_RECORDS)?;
    }
);

/// Which keys, by their places in the list, no entry of their payments holds. An entry is found by its text: whether the
/// service wrote it is looked at where the entry itself is checked.
struct ReadUnspoken {
    payments: Vec<Uuid>,
    digests: Vec<String>,
}

statement!(ReadUnspoken, ReadUnspoken, BigInt, |self, out| {
    out.push_sql("select c.place from unnest(");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<Text>, _>(&self.digests)?;
    out.push_sql(
        ") with ordinality c (payment_id, digest, place) left join (select distinct j.stream_id, \
         substring(encode(substr(j.leaf, 1, 65536), 'escape') from '\"idempotency_key_digest\":\"([0-9a-f]{64})\"') \
         as digest from journal j where j.stream_id = any(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
    out.push_sql(
        ")) s on s.stream_id = c.payment_id and s.digest = c.digest \
         where s.stream_id is null order by c.place",
    );
});

/// Payments behind one to which records lead, with whether an entry of theirs holds a key.
struct ReadLedTo {
    after: Behind,
}

statement!(ReadLedTo, ReadLedTo, (SqlUuid, Bool), |self, out| {
    out.push_sql(
        "select r.payment_id, exists (select from journal j where j.stream_id = r.payment_id \
         and position('\"idempotency_key_digest\":\"'::bytea in j.leaf) > 0) \
         from (select distinct payment_id from idempotency_records where ",
    );
    self.after.push("payment_id", &mut out)?;
    out.push_sql(" order by payment_id limit ");
    out.push_bind_param::<BigInt, _>(&PAGE)?;
    out.push_sql(") r order by r.payment_id");
});

/// Holds the records of the payments of these entries to what the entries say.
pub(super) async fn compare(
    connection: &mut Verifying,
    claims: &[Claim],
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    let keyed = claims.iter().filter(|claim| claim.said.key.is_some());
    let keyed: Vec<_> = keyed.collect();
    if keyed.is_empty() {
        return Ok(());
    }
    let rows = connection.read(|connection| {
        let mut payments: Vec<_> = keyed.iter().map(|claim| claim.payment.0).collect();
        payments.dedup();
        let query = ReadRecords { payments };
        async move { query.load::<RecordTuple>(connection).await }.boxed()
    });
    let rows = rows.await?;
    let many = i64::try_from(rows.len()).is_ok_and(|rows| rows >= MAX_RECORDS);
    // Of the last payment perhaps not all were read.
    let cut = rows.last().map(|row| PaymentId(row.3)).filter(|_| many);
    let key = FingerprintKey::new(connection.keys().fingerprint_key());
    let rows: Vec<_> = rows.into_iter().map(|row| stored(row, &key)).collect();
    let mut told = false;
    for claim in &keyed {
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
    report_unspoken(connection, unspoken_key_records(&keyed, &rows), found).await
}

fn stored(row: RecordTuple, key: &FingerprintKey) -> StoredKeyRecord {
    let (tenant, text, command, payment, transaction) = row;
    StoredKeyRecord {
        key_digest: idempotency_key_digest(key, &tenant, &text),
        command,
        payment: PaymentId(payment),
        transaction: TransactionId(transaction),
    }
}

/// Reports those of the records that no entry speaks of: others are of entries of another chunk, or were accepted since the
/// chunk was read. A record and its entry are committed together, so the entry is there once the record was read.
async fn report_unspoken(
    connection: &mut Verifying,
    records: Vec<&StoredKeyRecord>,
    found: &mut Vec<Mismatch>,
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let places = connection.read(|connection| {
        let query = ReadUnspoken {
            payments: records.iter().map(|it| it.payment.0).collect(),
            digests: records
                .iter()
                .map(|it| hex::encode(it.key_digest))
                .collect(),
        };
        async move { query.load::<i64>(connection).await }.boxed()
    });
    let unspoken = at_places(&records, places.await?);
    found.extend(unspoken.map(|record| key_record_without_entry(record)));
    Ok(())
}

/// Looks for records that lead to what has no entries about keys: no chunk comes by their payments.
pub(in crate::verify) async fn verify(
    connection: &mut Verifying,
    events: &Events,
) -> Result<(), StoreError> {
    pages(
        connection,
        events,
        |after, connection| {
            let query = ReadLedTo { after };
            async move { query.load::<(Uuid, bool)>(connection).await }.boxed()
        },
        |(payment, _)| *payment,
        |(payment, spoken)| (!spoken).then(|| key_records_of_nothing(PaymentId(payment))),
    )
    .await
}
