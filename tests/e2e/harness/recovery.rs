//! Waiting until what is unknown is known, and that everybody knows the same.

use std::collections::BTreeSet;

use quittance_evidence::Leaf;
use quittance_proto::v1::{Payment, TransactionState};
use quittance_sandbox::{CurrencyTotals, Operation, OperationStatus};

use super::{Client, Site, eventually, get, get_by_key};

/// Whether nothing about a payment is unknown any more.
fn is_resolved(payment: &Payment) -> bool {
    payment
        .transactions
        .iter()
        .all(|transaction| match transaction.state() {
            TransactionState::Unspecified | TransactionState::Pending => false,
            TransactionState::RequiresAction
            | TransactionState::Succeeded
            | TransactionState::Declined
            | TransactionState::Failed
            | TransactionState::Reversed => true,
        })
}

/// The payment, once recovery has found out everything about it: nobody else asks. The server may be gone meanwhile.
pub async fn until_resolved(client: &Client, payment_id: &str) -> Payment {
    eventually("the payment is resolved", async || {
        let payment = client.send(get(payment_id)).await.ok()?;
        let payment = payment.message.payment.unwrap();
        is_resolved(&payment).then_some(payment)
    })
    .await
}

/// [`until_resolved`], of the payment that a key belongs to.
pub async fn until_resolved_by_key(client: &Client, idempotency_key: &str) -> Payment {
    let payment = eventually("the payment is found by its key", async || {
        let found = client.send(get_by_key(idempotency_key)).await.ok()?;
        found.message.payment
    })
    .await;
    until_resolved(client, &payment.payment_id).await
}

/// What a currency's payments sum up to: authorized, captured, voided, refunded, charged back.
type Sums = [i128; 5];

/// What the sandbox has books of: not what is played beside it.
const AT_SANDBOXES: &str = "provider_account not in ('adyen-eu', 'stripe-eu')";

impl Site {
    /// Demands that the provider's books, the payments, their transactions and the journal agree to the unit,
    /// and that nothing is left open: nobody was charged twice, and nothing was lost.
    pub async fn everything_agrees(&self) {
        self.nothing_is_open().await;
        self.transactions_agree_with_the_books().await;
        self.journal_agrees_with_the_payments().await;
        let currencies = self.books().currencies;
        for (currency, theirs) in &currencies {
            assert_eq!(self.sums(currency).await, sums_of(theirs), "{currency}");
        }
    }

    async fn nothing_is_open(&self) {
        // The provider is asked at some time whether an authorization ran out: that leaves nothing open.
        let open = "select payment_id::text || ' ' || kind || ' ' || state from transactions \
                    where state not in ('SUCCEEDED', 'DECLINED', 'FAILED', 'REVERSED') \
                    or request is not null or lease_until is not null \
                    or next_step_at is not null and (kind, state) <> ('AUTHORIZATION', 'SUCCEEDED')";
        let open: Vec<String> = self.texts(open).await;
        assert_eq!(open, Vec::<String>::new(), "left open");
        let pending = "select count(*) from payments where state = 'PENDING' \
                       or capture_pending + void_pending + refund_pending > 0";
        assert_eq!(self.db.number(pending).await, 0, "payments left pending");
    }

    /// Every transaction was carried out as often as its state says, and nothing else was.
    async fn transactions_agree_with_the_books(&self) {
        self.what_nobody_asked_for_agrees().await;
        let sql = format!(
            "select transaction_id::text, state, amount, kind from transactions \
             where origin <> 'PROVIDER' and {AT_SANDBOXES}"
        );
        let mut known = BTreeSet::new();
        for row in self.db.rows(&sql, &[]).await {
            let id: String = row.get(0);
            let (state, amount): (String, i64) = (row.get(1), row.get(2));
            let kind: String = row.get(3);
            let charged = self.charged(&id);
            let expected = match state.as_str() {
                "SUCCEEDED" => (1, i128::from(amount)),
                _ => (0, 0),
            };
            assert_eq!(
                (charged.charges, charged.amount),
                expected,
                "{kind} {id} {state}: {charged:?}"
            );
            known.insert(id);
        }
        let mut after = 0;
        loop {
            let page = self.sandbox.operations(after, 1_000);
            for operation in page.operations {
                if is_unasked(&operation) {
                    continue;
                }
                assert!(
                    known.contains(&operation.reference),
                    "without a record of ours: {operation:?}"
                );
                assert_ne!(operation.status, OperationStatus::Pending, "{operation:?}");
            }
            match page.next {
                Some(next) => after = next,
                None => return,
            }
        }
    }

    /// What was done in the provider's dashboard, or by the bank, has one transaction each, by the provider's reference.
    async fn what_nobody_asked_for_agrees(&self) {
        let sql = format!(
            "select provider_reference, lower(kind), amount, state from transactions \
             where origin = 'PROVIDER' and {AT_SANDBOXES} order by provider_reference"
        );
        let rows = self.db.rows(&sql, &[]).await;
        let ours = rows.iter().map(|row| {
            let state = match row.get::<_, &str>(3) {
                "SUCCEEDED" => OperationStatus::Approved,
                "PENDING" => OperationStatus::Pending,
                _ => OperationStatus::Failed,
            };
            // What failed may never have been told with an amount.
            let amount: i64 = row.get(2);
            let amount = if state == OperationStatus::Failed {
                0
            } else {
                amount
            };
            let (reference, kind): (String, String) = (row.get(0), row.get(1));
            (reference, kind, amount, format!("{state:?}"))
        });
        let theirs = self.sandbox.operations(0, 1_000).operations;
        let mut theirs: Vec<_> = theirs
            .into_iter()
            .filter(is_unasked)
            .map(|operation| {
                let kind = serde_json::to_value(operation.kind).unwrap();
                let failed = operation.status == OperationStatus::Failed;
                let amount = if failed { 0 } else { operation.amount };
                let status = format!("{:?}", operation.status);
                (
                    operation.id,
                    kind.as_str().unwrap().to_owned(),
                    amount,
                    status,
                )
            })
            .collect();
        theirs.sort();
        let mut ours: Vec<_> = ours.collect();
        ours.sort();
        assert_eq!(ours, theirs, "what nobody asked for");
    }

    /// One entry per change, numbered without gaps, and the newest says what the payment's row says.
    async fn journal_agrees_with_the_payments(&self) {
        let sql = "select payment_id::text from payments p where version <> (select count(*) from journal j \
                   where j.stream_id = p.payment_id) or version <> (select max(entity_seq) from journal j \
                   where j.stream_id = p.payment_id)";
        let differing = self.texts(sql).await;
        assert_eq!(differing, Vec::<String>::new(), "one entry per change");
        let sql = "select distinct on (j.stream_id) j.leaf, p.authorized, p.captured, p.voided, \
                   p.refunded, p.payment_id::text from journal j join payments p \
                   on p.payment_id = j.stream_id order by j.stream_id, j.entity_seq desc";
        for row in self.db.rows(sql, &[]).await {
            let said = Leaf::decode(row.get(0)).unwrap().amounts.unwrap();
            let said = [said.authorized, said.captured, said.voided, said.refunded];
            let stored: [i64; 4] = std::array::from_fn(|column| row.get(column + 1));
            assert_eq!(
                said,
                stored,
                "{}: the newest entry",
                row.get::<_, String>(5)
            );
        }
    }

    async fn sums(&self, currency: &str) -> Sums {
        let sql = format!(
            "select coalesce(sum(authorized), 0)::text, coalesce(sum(captured), 0)::text, \
             coalesce(sum(voided), 0)::text, coalesce(sum(refunded), 0)::text, \
             coalesce(sum(charged_back), 0)::text \
             from payments where currency = $1 and {AT_SANDBOXES}"
        );
        let row = self.db.row(&sql, &[&currency]).await;
        std::array::from_fn(|column| row.get::<_, String>(column).parse().unwrap())
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.db.rows(sql, &[]).await;
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// Whether no caller asked for it.
fn is_unasked(operation: &Operation) -> bool {
    let begins = |with: &str| operation.reference.starts_with(with);
    begins("dash_") || begins("cb_")
}

fn sums_of(totals: &CurrencyTotals) -> Sums {
    [
        totals.authorized,
        totals.captured,
        totals.voided,
        totals.refunded,
        totals.charged_back,
    ]
}

/// The comparison is worth something only if it sees what is wrong.
mod tests {
    use crate::harness::site::SANDBOX_KEY;
    use crate::harness::{World, purchase};

    async fn world_with_a_payment() -> (World, String) {
        let world = World::start().await;
        let paid = world.client.create(purchase("tok_approve", 500)).await;
        world.everything_agrees().await;
        (world, paid.transactions[0].transaction_id.clone())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[should_panic(expected = "PURCHASE")]
    async fn a_second_charge_is_seen() {
        let (world, transaction) = world_with_a_payment().await;
        // Another key: the provider charges again.
        let body = format!(
            r#"{{"reference": "{transaction}", "amount": 500, "currency": "EUR", "token": "tok_approve",
                "capture": true}}"#
        );
        let answer = reqwest::Client::new()
            .post(format!("{}/v1/payments", world.sandbox.base_url()))
            .bearer_auth(SANDBOX_KEY)
            .header("idempotency-key", "another")
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        assert_eq!(answer.unwrap().status(), 200);
        world.everything_agrees().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[should_panic(expected = "the newest entry")]
    async fn a_changed_payment_is_seen() {
        let (world, _) = world_with_a_payment().await;
        let sql = "update payments set captured = captured - 1";
        world.db.execute(sql, &[]).await;
        world.everything_agrees().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[should_panic(expected = "one entry per change")]
    async fn a_missing_entry_is_seen() {
        let (world, _) = world_with_a_payment().await;
        let sql = "delete from journal where payment_id is not null and entity_seq = 1";
        world.db.execute(sql, &[]).await;
        world.everything_agrees().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[should_panic(expected = "without a record of ours")]
    async fn a_charge_without_a_record_is_seen() {
        let (world, _) = world_with_a_payment().await;
        world.client.create(purchase("tok_approve", 1)).await;
        for table in ["payments", "transactions"] {
            let newest = format!(
                "delete from {table} where payment_id = (select max(payment_id::text)::uuid from attempts)"
            );
            world.db.execute(&newest, &[]).await;
        }
        world.everything_agrees().await;
    }
}
