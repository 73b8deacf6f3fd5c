//! Reading attempts. They are written with the change that starts or ends them.

use chrono::{DateTime, Utc};
use diesel::dsl::{count, count_star};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::decline::Cause;
use quittance_domain::ids::{AttemptId, PaymentId, ProviderAccount, TransactionId};
use quittance_domain::ports::{InDoubt, StoreError};
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{Attempt, AttemptEnd, AttemptOutcome, OperationKind};
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::payment_row::ReadAs as _;
use crate::schema::attempts;
use crate::sealing::{CustomerKey, Place, open_unless_erased};
use crate::store::PgStore;

/// What stands for the salt of an attempt whose customer was erased: its digests prove nothing any more.
const ERASED_SALT: [u8; 16] = [0; 16];

#[derive(Queryable, Selectable)]
#[diesel(table_name = attempts, check_for_backend(diesel::pg::Pg))]
struct AttemptRow {
    transaction_id: Uuid,
    number: i32,
    attempt_id: Uuid,
    operation: String,
    provider_account: String,
    digest_salt: Vec<u8>,
    request_digest: Vec<u8>,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    latency_micros: Option<i64>,
    outcome: Option<String>,
    cause: Option<String>,
    http_status: Option<i16>,
    response: Option<Vec<u8>>,
    response_digest: Option<Vec<u8>>,
}

impl AttemptRow {
    fn into_attempt(
        self,
        ring: &KeyRing,
        customer: Option<&CustomerKey>,
    ) -> Result<Attempt, StoreError> {
        let place = Place::new("attempts", "digest_salt", self.attempt_id);
        let salt = open_unless_erased(ring, customer, place, &self.digest_salt)?;
        let digest_salt = match salt {
            Some(salt) => salt.as_slice().try_into().at("attempts.digest_salt")?,
            None => ERASED_SALT,
        };
        Ok(Attempt {
            id: AttemptId(self.attempt_id),
            transaction: TransactionId(self.transaction_id),
            number: u32::try_from(self.number).at("attempts.number")?,
            operation: OperationKind::from_name(&self.operation).at("attempts.operation")?,
            provider_account: ProviderAccount::parse(self.provider_account.as_str())
                .at("attempts.provider_account")?,
            digest_salt,
            request_digest: self
                .request_digest
                .as_slice()
                .try_into()
                .at("attempts.request_digest")?,
            started_at: self.started_at,
            ended: self.end(ring, customer)?,
        })
    }

    fn end(
        &self,
        ring: &KeyRing,
        customer: Option<&CustomerKey>,
    ) -> Result<Option<AttemptEnd>, StoreError> {
        let Some(ended_at) = self.ended_at else {
            return Ok(None);
        };
        let place = Place::new("attempts", "response", self.attempt_id);
        let response = match &self.response {
            Some(sealed) => open_unless_erased(ring, customer, place, sealed)?,
            None => None,
        };
        let outcome = self.outcome.as_deref().and_then(AttemptOutcome::from_name);
        let cause = self.cause.as_deref();
        let cause = cause.map(|cause| Cause::from_name(cause).at("attempts.cause"));
        let status = self.http_status.map(u16::try_from).transpose();
        let latency = self.latency_micros.map(u64::try_from).transpose();
        let digest = self.response_digest.as_deref().map(TryInto::try_into);
        Ok(Some(AttemptEnd {
            ended_at,
            latency_micros: latency
                .at("attempts.latency_micros")?
                .at("attempts.latency_micros")?,
            outcome: outcome.at("attempts.outcome")?,
            cause: cause.transpose()?,
            http_status: status.at("attempts.http_status")?,
            response: response.map(|response| Sensitive::new(response.to_vec())),
            response_digest: digest.transpose().at("attempts.response_digest")?,
        }))
    }
}

impl PgStore {
    pub(crate) async fn read_attempt(
        &self,
        payment: PaymentId,
        transaction: TransactionId,
        number: u32,
    ) -> Result<Option<Attempt>, StoreError> {
        let Ok(number) = i32::try_from(number) else {
            return Ok(None);
        };
        let read = self.inner.reader.read("read attempt", |connection| {
            let query = attempts::table
                .find((payment.0, transaction.0, number))
                .select(AttemptRow::as_select());
            async move { query.first(connection).await.optional() }.boxed()
        });
        // At once, so that both are answered in time.
        let (row, customer) = futures::try_join!(read, self.inner.customers.key_of(payment.0))?;
        let row: Option<AttemptRow> = row;
        row.map(|row| row.into_attempt(&self.inner.keys, customer.as_ref()))
            .transpose()
    }
    pub(crate) async fn count_attempts_in_doubt(
        &self,
        payment: PaymentId,
        transaction: TransactionId,
        operation: OperationKind,
    ) -> Result<InDoubt, StoreError> {
        let (sends, begun) = self
            .inner
            .reader
            .read("count attempts in doubt", |connection| {
                let unsent = AttemptOutcome::NotSent.name();
                let lost = Cause::SenderLost.name();
                let ended = attempts::outcome.is_not_null();
                let begun = ended.and(attempts::cause.is_distinct_from(lost));
                let query = attempts::table
                    .filter(attempts::payment_id.eq(payment.0))
                    .filter(attempts::transaction_id.eq(transaction.0))
                    .filter(attempts::operation.eq(operation.name()))
                    .filter(attempts::outcome.is_null().or(attempts::outcome.ne(unsent)))
                    .select((
                        count_star(),
                        count(attempts::number).aggregate_filter(begun),
                    ));
                async move { query.get_result::<(i64, i64)>(connection).await }.boxed()
            })
            .await?;
        Ok(InDoubt {
            sends: u32::try_from(sends).at("attempts.number")?,
            begun: u32::try_from(begun).at("attempts.number")?,
        })
    }
}
