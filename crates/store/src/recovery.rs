//! What recovery asks of the database: transactions whose next step is due, and how many there are.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{PaymentId, ProviderAccount, TenantId, TransactionId};
use quittance_domain::ports::{Accounts, Backlog, Claim, Due, DueKind, StoreError};
use uuid::Uuid;

use crate::payment_row::ReadAs as _;
use crate::store::PgStore;

/// Most transactions that one claim takes, whatever it asks for.
pub const MAX_CLAIM: usize = 1_000;

/// Claims what is due of some transactions. It waits for nobody: rows that somebody else is changing are passed over, and it
/// changes only rows that it holds. So it cannot deadlock with the statement that writes batches.
///
/// The fourth parameter says whether the accounts of the third are those to claim of, rather than those to leave out. `now()` is
/// the database's clock. Rows that were claimed but not returned, because the connection was lost, are somebody else's once the
/// claim has run out.
macro_rules! claim {
    ($of:literal) => {
        concat!(
            "with due as materialized ( \
                select payment_id, transaction_id from transactions t \
                where next_step_at <= now() \
                    and (claimed_until is null or claimed_until <= now()) \
                    and (provider_account = any ($3)) = $4 and ",
            $of,
            " order by next_step_at \
                limit $1 \
                for update skip locked \
            ), claimed as ( \
                update transactions t set claimed_until = now() + make_interval(secs => $2) \
                from due d \
                where t.payment_id = d.payment_id and t.transaction_id = d.transaction_id \
                returning t.payment_id, t.transaction_id, t.provider_account, t.next_step_at \
            ) \
            select p.tenant_id, c.payment_id, c.transaction_id, c.provider_account \
            from claimed c join payments p on p.payment_id = c.payment_id \
            order by c.next_step_at, c.transaction_id"
        )
    };
}

/// Claims of what has no outcome yet. The fifth parameter is the [`DueKind`]: 0 any, 1 too late, 2 unsent.
const CLAIM: &str = claim!(
    "state in ('PENDING', 'REQUIRES_ACTION') \
        and ($5 = 0 or state = 'PENDING' and not ever_unknown and provider_reference is null \
            and lease_until is null \
            and (kind <> 'VOID' and execute_before <= now() \
                or $5 = 2 and kind in ('PURCHASE', 'AUTHORIZATION') and exists ( \
                    select from payments r where r.payment_id = t.payment_id and r.routed)))"
);

/// Claims of the authorizations that may have run out: another index holds those that are to be asked about.
const CLAIM_RAN_OUT: &str = claim!("state = 'SUCCEEDED' and kind = 'AUTHORIZATION'");

/// Both counts are of what an index holds that nothing ended is in.
const BACKLOG: &str = "\
    select p.due, p.pending, p.oldest, c.open_cases \
    from ( \
        select count(*) filter (where next_step_at <= now()) as due, \
               count(*) filter (where state = 'PENDING' and origin <> 'PROVIDER') as pending, \
               coalesce(extract(epoch from now() - min(created_at) \
                   filter (where state = 'PENDING' and origin <> 'PROVIDER')), 0)::double precision \
                   as oldest \
        from transactions where state in ('PENDING', 'REQUIRES_ACTION') \
    ) p, (select count(*) as open_cases from operator_actions where closed_at is null) c";

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = Text)]
    tenant_id: String,
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    transaction_id: Uuid,
    #[diesel(sql_type = Text)]
    provider_account: String,
}

impl TryFrom<DueRow> for Due {
    type Error = StoreError;

    fn try_from(row: DueRow) -> Result<Self, StoreError> {
        Ok(Self {
            tenant: TenantId::parse(row.tenant_id).at("payments.tenant_id")?,
            payment: PaymentId(row.payment_id),
            transaction: TransactionId(row.transaction_id),
            provider_account: ProviderAccount::parse(row.provider_account)
                .at("transactions.provider_account")?,
        })
    }
}

#[derive(QueryableByName)]
struct BacklogRow {
    #[diesel(sql_type = BigInt)]
    due: i64,
    #[diesel(sql_type = BigInt)]
    pending: i64,
    #[diesel(sql_type = Double)]
    oldest: f64,
    #[diesel(sql_type = BigInt)]
    open_cases: i64,
}

impl PgStore {
    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Vec<Due>, StoreError> {
        let limit = i64::try_from(claim.limit.min(MAX_CLAIM)).unwrap_or(i64::MAX);
        let (accounts, only) = match &claim.accounts {
            Accounts::AllBut(except) => (except.as_slice(), false),
            Accounts::Only(account) => (std::slice::from_ref(account), true),
        };
        let names = accounts.iter().map(|account| account.as_str().to_owned());
        let names: Vec<String> = names.collect();
        let lease = claim.lease.as_secs_f64();
        let kind = match claim.kind {
            DueKind::Any => Some(0),
            DueKind::TooLate => Some(1),
            DueKind::Unsent => Some(2),
            DueKind::RanOut => None,
        };
        let claimed = self
            .inner
            .reader
            .write_slowly("claim due transactions", |connection, _| {
                let query = diesel::sql_query(kind.map_or(CLAIM_RAN_OUT, |_| CLAIM))
                    .bind::<BigInt, _>(limit)
                    .bind::<Double, _>(lease)
                    .bind::<Array<Text>, _>(names.clone())
                    .bind::<Bool, _>(only);
                async move {
                    match kind {
                        Some(kind) => query.bind::<Integer, _>(kind).load(connection).await,
                        None => query.load::<DueRow>(connection).await,
                    }
                }
                .boxed()
            });
        claimed.await?.into_iter().map(Due::try_from).collect()
    }

    pub(crate) async fn count_backlog(&self) -> Result<Backlog, StoreError> {
        let read = self.inner.reader.scan("count backlog", |connection| {
            let query = diesel::sql_query(BACKLOG);
            async move { query.get_result::<BacklogRow>(connection).await }.boxed()
        });
        let row = read.await?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(Backlog {
            due: count(row.due),
            pending: count(row.pending),
            // Ages are told by another clock than acceptance was: never below zero.
            oldest_pending_seconds: row.oldest.max(0.0),
            open_cases: count(row.open_cases),
        })
    }
}

#[cfg(test)]
mod tests {
    use quittance_test_support::TestDb;

    use super::*;

    /// Rows as they lie after a long time: nearly all have ended.
    const FILL: &str = "\
        insert into transactions \
            (payment_id, transaction_id, kind, origin, state, amount, provider_account, reason, \
             final_capture, attempts, ever_unknown, execute_before, next_step_at, created_at, updated_at) \
        select quittance_uuid_floor(now() - interval '20 days' + make_interval(secs => n * 15)), \
               gen_random_uuid(), 'AUTHORIZATION', 'CALLER', \
               case when n % 400 = 0 then 'PENDING' else 'SUCCEEDED' end, 1000, 'sandbox', '', false, 1, \
               false, now(), case when n % 400 = 0 then now() - make_interval(secs => n) end, now(), now() \
        from generate_series(1, 100000) n";

    /// Its plan has to be this one at ten million rows as well: by the index, and nothing is sorted.
    #[tokio::test]
    async fn the_claim_finds_what_is_due_by_its_index() {
        let db = TestDb::new().await;
        let client = db.client().await;
        client.batch_execute(FILL).await.unwrap();
        let kinds = ["0", "1", "2"].into_iter();
        let claims = kinds.flat_map(|kind| ["true", "false"].map(|only| (kind, only)));
        let claims = claims.map(|(kind, only)| {
            let claim = CLAIM.replace("$1", "100").replace("$2", "60");
            let claim = claim.replace("$3", "'{adyen}'::text[]");
            claim.replace("$4", only).replace("$5", kind)
        });
        let ran_out = ["true", "false"].map(|only| {
            let claim = CLAIM_RAN_OUT.replace("$1", "100").replace("$2", "60");
            let claim = claim.replace("$3", "'{adyen}'::text[]");
            claim.replace("$4", only)
        });
        let others = ran_out.into_iter().chain([BACKLOG.to_owned()]);
        let statements: Vec<String> = claims.chain(others).collect();
        // Without statistics, as a new partition is; and with them.
        for prepare in ["select 1", "analyze"] {
            client.batch_execute(prepare).await.unwrap();
            for statement in &statements {
                let explain = format!("explain (costs off) {statement}");
                let lines = client.query(&explain, &[]).await.unwrap();
                let plan: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
                let plan = plan.join("\n");
                assert!(plan.contains("next_step_at_idx"), "{prepare}: {plan}");
                // What is empty, or holds the few rows of a month's first hours, has no better way.
                let scanned = plan
                    .lines()
                    .filter_map(|line| line.split_once("Seq Scan on "));
                for table in scanned.filter_map(|(_, rest)| rest.split(' ').next()) {
                    let count = format!("select count(*) from {table}");
                    let count: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
                    assert!(count < 1_000, "{prepare}: {table} of {count} in {plan}");
                }
            }
        }
    }
}
