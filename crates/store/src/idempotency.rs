//! Reading idempotency records. They are written with the change that they belong to.
//!
//! Whoever can write to the database can make one up, and would have a command answered with another's outcome that was
//! never carried out. So a record counts only with the entry that accepted its command, whose MAC the database cannot
//! make. A fresh key has no record, so this costs nothing but a repetition; and of what this process accepted itself,
//! nothing at all.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::change::{CommandKind, IdempotencyRecord};
use quittance_domain::fingerprint::{Fingerprint, FingerprintKey, idempotency_key_digest};
use quittance_domain::ids::{IdempotencyKey, PaymentId, TenantId, TransactionId};
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use crate::schema::idempotency_records as records;
use crate::store::PgStore;
use crate::warning::Thinned;

static FORGED: Thinned = Thinned::new();

type Row = (String, Vec<u8>, Uuid, Uuid, DateTime<Utc>);

impl PgStore {
    /// The record of a key. `Corrupt` where no entry of ours says that its command was accepted: it must not be answered
    /// from, and its key is taken all the same, so nothing is carried out under it.
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
        let (payment, transaction) = (PaymentId(payment), TransactionId(transaction));
        self.demand_acceptance(tenant, key, (payment, transaction))
            .await?;
        Ok(Some(IdempotencyRecord {
            tenant: tenant.clone(),
            key: key.clone(),
            command,
            fingerprint: Fingerprint::from_bytes(fingerprint),
            payment,
            transaction,
            created_at,
        }))
    }

    /// The record and the entry are committed together: whoever has read the one finds the other.
    async fn demand_acceptance(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        (payment, transaction): (PaymentId, TransactionId),
    ) -> Result<(), StoreError> {
        let secret = FingerprintKey::new(self.inner.keys.fingerprint_key());
        let digest = idempotency_key_digest(&secret, tenant.as_str(), key.as_str());
        let accepted = self.acceptance(payment, transaction, &digest).await?;
        if accepted.is_some() {
            return Ok(());
        }
        self.inner.observer.verification_failed("idempotency", 1);
        if FORGED.due().is_some() {
            tracing::error!(
                payment.id = %payment,
                transaction.id = %transaction,
                "an idempotency record is stored that no entry of the log speaks of: nothing is answered from it"
            );
        }
        Err(StoreError::Corrupt("idempotency_records".to_owned()))
    }
}
