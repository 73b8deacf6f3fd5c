//! Rows that were changed, and then built upon.

use chrono::{SubsecRound as _, TimeDelta, Utc};
use quittance_domain::change::Change;
use quittance_domain::context::{Actor, ActorKind, Caller, Instance, Origin, TraceIds};
use quittance_domain::decide::{Unasked, unasked};
use quittance_domain::ids::{
    AttemptId, EntryId, PaymentId, ProviderReference, TenantId, TransactionId,
};
use quittance_domain::journal::Stamp;
use quittance_domain::money::Money;
use quittance_domain::payment::PaymentRecord;
use quittance_domain::ports::{Commit, Store as _};
use quittance_domain::retry::RetryPolicy;
use quittance_domain::transaction::{Fact, FactKind, TransactionKind};
use uuid::Uuid;

use super::{grown, sequenced, verify};

/// What the service left is compared with what it found again: a row that was changed in between shows in the entry of
/// the change that was made of it, though every later comparison fits.
#[tokio::test(flavor = "multi_thread")]
async fn s75_a_row_that_was_changed_and_then_built_upon_is_detected_in_the_entry() {
    let (_db, store, client) = grown(200).await;
    let captured = "select payment_id::text, tenant_id from payments where captured > refunded + refund_pending \
                    and state = 'CAPTURED' order by payment_id limit 2";
    let rows = client.query(captured, &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    let columns = [
        "authorized = authorized + 1000000, captured = captured + 1000000",
        "merchant_reference = 'another order'",
    ];
    for (row, columns) in rows.iter().zip(columns) {
        let id: String = row.get(0);
        let tenant = TenantId::parse(row.get::<_, String>(1)).unwrap();
        let change = format!("update payments set {columns} where payment_id = '{id}'");
        client.batch_execute(&change).await.unwrap();
        let payment = PaymentId(id.parse().unwrap());
        let record = store.payment(&tenant, payment).await.unwrap().unwrap();
        // The provider tells of a refund: nothing is sent for it.
        let change = refund_told(&record);
        assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    }
    sequenced(&client).await;
    let (found, _) = verify(&store).await;
    let codes = |row: &tokio_postgres::Row| -> Vec<&str> {
        let id = row.get::<_, String>(0);
        let own = found
            .iter()
            .filter(|it| it.payment.is_some_and(|it| it.to_string() == id));
        assert!(own.clone().all(|it| it.entry.is_some()));
        own.map(|it| it.fault.code()).collect()
    };
    // What was authorized, what was captured, and so what is in excess.
    let three = ["REPLAY_DIFFERS"; 3];
    assert_eq!(
        codes(&rows[0]),
        [&["ROWS_CHANGED_BEFORE"], &three[..]].concat()
    );
    assert_eq!(codes(&rows[1]), ["ROWS_CHANGED_BEFORE"]);
    assert_eq!(found.len(), 5);
}

/// A refund that was made in the provider's dashboard.
fn refund_told(record: &PaymentRecord) -> Change {
    let caller = Caller {
        tenant: record.payment.tenant.clone(),
        actor: Actor {
            kind: ActorKind::Service,
            id: "webhooks".into(),
            auth_method: "",
        },
        origin: Origin::default(),
        remote: None,
        deadline: None,
    };
    let instance = Instance {
        service: "quittance",
        version: "0",
        instance: "test".into(),
    };
    let stamp = Stamp {
        now: Utc::now().trunc_subsecs(6),
        entry_id: EntryId(Uuid::now_v7()),
        transaction_id: TransactionId(Uuid::now_v7()),
        attempt_id: AttemptId(Uuid::now_v7()),
        leaf_salt: [1; 16],
        digest_salt: [2; 16],
        sender_lease: TimeDelta::zero(),
        jitter: 0,
        retries: &RetryPolicy::default(),
        caller: &caller,
        trace: TraceIds::default(),
        instance: &instance,
    };
    let told = Unasked {
        kind: TransactionKind::Refund,
        dispute: None,
        account: &record.payment.provider_account,
        captures_once: false,
    };
    let fact = Fact {
        kind: FactKind::Approved {
            amount: Money::new(1, record.payment.currency()).ok(),
            expires_at: None,
        },
        provider_reference: Some(ProviderReference::parse("by_hand").unwrap()),
        payment_reference: None,
    };
    unasked(record, &told, &fact, &stamp).unwrap().unwrap()
}
