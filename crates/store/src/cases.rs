//! Listing cases for a person. They are opened and closed with the change that does so.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::ids::{EntryId, PaymentId, TenantId, TransactionId};
use quittance_domain::ports::{CaseFilter, StoreError, StoredCase};
use uuid::Uuid;

use crate::payment_row::ReadAs as _;
use crate::schema::operator_actions as actions;
use crate::store::PgStore;

#[derive(Queryable, Selectable)]
#[diesel(table_name = actions, check_for_backend(diesel::pg::Pg))]
struct CaseRow {
    action_id: Uuid,
    payment_id: Uuid,
    transaction_id: Uuid,
    tenant_id: String,
    kind: String,
    opened_at: DateTime<Utc>,
    closed_at: Option<DateTime<Utc>>,
    closed_by: Option<Uuid>,
}

impl TryFrom<CaseRow> for StoredCase {
    type Error = StoreError;

    fn try_from(row: CaseRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: EntryId(row.action_id),
            tenant: TenantId::parse(row.tenant_id).at("operator_actions.tenant_id")?,
            payment: PaymentId(row.payment_id),
            transaction: TransactionId(row.transaction_id),
            kind: OperatorActionKind::from_name(&row.kind).at("operator_actions.kind")?,
            opened_at: row.opened_at,
            closed: row.closed_at.zip(row.closed_by.map(EntryId)),
        })
    }
}

impl PgStore {
    pub(crate) async fn read_cases(
        &self,
        tenant: Option<&TenantId>,
        filter: &CaseFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredCase>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.scan("list cases", |connection| {
            let mut query = actions::table
                .select(CaseRow::as_select())
                .into_boxed::<diesel::pg::Pg>()
                .order(actions::action_id)
                .limit(limit);
            if let Some(tenant) = tenant {
                query = query.filter(actions::tenant_id.eq(tenant.as_str().to_owned()));
            }
            if !filter.closed {
                query = query.filter(actions::closed_at.is_null());
            }
            if let Some(payment) = filter.payment {
                query = query.filter(actions::payment_id.eq(payment.0));
            }
            if let Some(kind) = filter.kind {
                query = query.filter(actions::kind.eq(kind.name()));
            }
            if let Some(after) = after {
                query = query.filter(actions::action_id.gt(after.0));
            }
            async move { query.load::<CaseRow>(connection).await }.boxed()
        });
        read.await?.into_iter().map(StoredCase::try_from).collect()
    }
}
