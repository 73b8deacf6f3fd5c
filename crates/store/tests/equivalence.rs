//! The simulated database is held to the real one: the same changes, in the same order, as the flows made them in
//! random schedules (conflicts, repeated keys and repeated changes among them), must be answered and read the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use quittance_domain::change::Change;
use quittance_domain::ids::PaymentId;
use quittance_domain::ports::{
    Accounts, CaseFilter, Claim, Commit, DueKind, PaymentFilter, PaymentPage, Store, StoreError,
};
use quittance_domain::transaction::OperationKind;
use quittance_simulation::store::SimStore;
use quittance_simulation::world::World;
use quittance_store::PgStore;
use quittance_test_support::{TestDb, tenant};

/// Worlds whose changes are given to both.
const WORLDS: u64 = 100;
/// More than any world holds.
const MANY: usize = 10_000;

type Offer = (Change, Result<Commit, StoreError>);

#[tokio::test]
async fn both_stores_answer_the_same_changes_the_same() {
    let db = TestDb::new().await;
    let real = db.store().await;
    let mut seen = Seen::default();
    for seed in 0..WORLDS {
        let key = real.keys().fingerprint_key();
        let world = World::new(seed).with_fingerprint_key(key);
        world.store.keep_offers();
        assert!(world.live_in_trouble(), "seed {seed}");
        let offers: Vec<Offer> = world.store.offers();
        for (number, (change, answer)) in offers.iter().enumerate() {
            let given = real.commit(change.clone()).await;
            assert_eq!(&given, answer, "seed {seed}, change {number}: {change:?}");
            seen.note(answer);
            // Exactly what a caller does whose connection was lost.
            if number % 7 == 0 {
                let again = real.commit(change.clone()).await;
                assert_eq!(&again, answer, "seed {seed}, change {number}, again");
            }
        }
        compare(&world, &real, seed).await;
    }
    assert!(seen.committed > 1_000, "{seen:?}");
    assert!(seen.conflicts > 5, "{seen:?}");
    assert!(seen.taken > 20, "{seen:?}");
}

#[derive(Debug, Default)]
struct Seen {
    committed: u32,
    conflicts: u32,
    taken: u32,
}

impl Seen {
    fn note(&mut self, answer: &Result<Commit, StoreError>) {
        match answer {
            Ok(Commit::Committed) => self.committed += 1,
            Ok(Commit::VersionConflict) => self.conflicts += 1,
            Ok(Commit::IdempotencyKeyTaken) => self.taken += 1,
            Err(_) => {}
        }
    }
}

/// Reads everything from both.
async fn compare(world: &World, real: &PgStore, seed: u64) {
    let whose = tenant("acme");
    let (payments, keys, attempts) = world.store.look(|tables| {
        let payments: Vec<PaymentId> = tables.payments.keys().copied().collect();
        let keys: Vec<_> = tables.keys.keys().cloned().collect();
        let attempts: Vec<_> = tables.attempts.keys().copied().collect();
        (payments, keys, attempts)
    });
    let simulated = &world.store;
    for id in &payments {
        let found = real.payment(&whose, *id).await.unwrap().unwrap();
        let held = world.drive(simulated.payment(&whose, *id)).unwrap();
        assert_eq!(Some(&found), held.as_ref(), "seed {seed}");
        let token = world.drive(simulated.method_token(*id)).unwrap();
        assert_eq!(real.method_token(*id).await.unwrap(), token, "seed {seed}");
        assert_eq!(real.payment(&tenant("other"), *id).await.unwrap(), None);
        for (transaction, number) in attempts.iter().filter(|(transaction, _)| {
            let rows = found.transactions.iter();
            rows.clone().any(|row| row.id == *transaction)
        }) {
            let found = real.attempt(*id, *transaction, *number).await.unwrap();
            let held = world.drive(simulated.attempt(*id, *transaction, *number));
            assert_eq!(found, held.unwrap(), "seed {seed}");
            if *number == 1 {
                for operation in [OperationKind::Purchase, OperationKind::Confirm] {
                    let found = real.attempts_in_doubt(*id, *transaction, operation).await;
                    let held = simulated.attempts_in_doubt(*id, *transaction, operation);
                    assert_eq!(found, world.drive(held), "seed {seed}");
                }
            }
        }
    }
    for (whose, key) in keys {
        let found = real.idempotency_record(&whose, &key).await.unwrap();
        let held = world.drive(simulated.idempotency_record(&whose, &key));
        assert_eq!(found, held.unwrap(), "seed {seed}");
    }
    let all = PaymentFilter::default();
    let found = real.list_payments(&whose, &all, None, MANY).await.unwrap();
    let held = world.drive(simulated.list_payments(&whose, &all, None, MANY));
    let own = |page: PaymentPage| {
        let ids = page.payments.into_iter().map(|record| record.payment.id);
        ids.filter(|id| payments.contains(id)).collect::<Vec<_>>()
    };
    assert_eq!(own(found), own(held.unwrap()), "seed {seed}");
    compare_recovery(world, simulated, real, seed).await;
}

async fn compare_recovery(world: &World, simulated: &SimStore, real: &PgStore, seed: u64) {
    let whose = tenant("acme");
    for closed in [false, true] {
        let filter = CaseFilter {
            closed,
            ..CaseFilter::default()
        };
        let found = real.list_cases(Some(&whose), &filter, None, MANY).await;
        let held = world.drive(simulated.list_cases(Some(&whose), &filter, None, MANY));
        let held = held.unwrap();
        let mut found = found.unwrap();
        found.retain(|case| simulated.look(|tables| tables.payments.contains_key(&case.payment)));
        assert_eq!(found, held, "seed {seed}");
    }
    // Long after: everything that waits is due, and is claimed once.
    world.pass(Duration::from_secs(365 * 86_400));
    let claim = |kind, limit| Claim {
        kind,
        limit,
        lease: Duration::from_secs(30 * 86_400),
        accounts: Accounts::all(),
    };
    for kind in [
        DueKind::TooLate,
        DueKind::Unsent,
        DueKind::Any,
        DueKind::RanOut,
    ] {
        let held = world
            .drive(simulated.claim_due(&claim(kind, MANY)))
            .unwrap();
        let mut claimed = BTreeSet::new();
        loop {
            let some = real.claim_due(&claim(kind, 3)).await.unwrap();
            if some.is_empty() {
                break;
            }
            for due in some {
                assert!(claimed.insert(due.transaction), "claimed twice");
            }
        }
        let held: BTreeSet<_> = held.into_iter().map(|due| due.transaction).collect();
        assert_eq!(claimed, held, "seed {seed}: {kind:?}");
    }
    let again = world.drive(simulated.claim_due(&claim(DueKind::Any, MANY)));
    assert_eq!(again.unwrap(), Vec::new());
}
