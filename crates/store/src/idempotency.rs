//! Reading idempotency records. They are written with the change that they belong to.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::change::{CommandKind, IdempotencyRecord};
use quittance_domain::fingerprint::Fingerprint;
use quittance_domain::ids::{IdempotencyKey, PaymentId, TenantId, TransactionId};
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use crate::schema::idempotency_records as records;
use crate::store::PgStore;

type Row = (String, Vec<u8>, Uuid, Uuid, DateTime<Utc>);

impl PgStore {
    pub(crate) async fn read_idempotency_record(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let read = self
            .inner
            .reader
            .read("read idempotency record", |connection| {
                let query = records::table
                    .find((tenant.as_str().to_owned(), key.as_str().to_owned()))
                    .select((
                        records::command,
                        records::fingerprint,
                        records::payment_id,
                        records::transaction_id,
                        records::created_at,
                    ));
                async move { query.first::<Row>(connection).await.optional() }.boxed()
            });
        let Some((command, fingerprint, payment, transaction, created_at)) = read.await? else {
            return Ok(None);
        };
        let command = CommandKind::from_name(&command)
            .ok_or_else(|| StoreError::Corrupt("idempotency_records.command".to_owned()))?;
        Ok(Some(IdempotencyRecord {
            tenant: tenant.clone(),
            key: key.clone(),
            command,
            fingerprint: Fingerprint::from_bytes(fingerprint),
            payment: PaymentId(payment),
            transaction: TransactionId(transaction),
            created_at,
        }))
    }
}
