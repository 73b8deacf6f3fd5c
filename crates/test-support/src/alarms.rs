//! A store whose alarms are listened to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use quittance_store::{PgStore, StoreConfig, StoreObserver};

/// The alarms that a store raised: which check failed, as often as it did; and how many entries it read that it did not write.
#[derive(Debug, Default)]
pub struct Alarms {
    checks: Mutex<Vec<&'static str>>,
    forged: AtomicUsize,
}

impl StoreObserver for Alarms {
    fn batch(&self, _size: usize) {}
    fn operation(&self, _summary: &'static str, _seconds: f64, _ok: bool) {}
    fn unverified_entries(&self, count: usize) {
        self.forged.fetch_add(count, Ordering::Relaxed);
    }
    fn verification_failed(&self, check: &'static str, count: usize) {
        self.checks.lock().unwrap().extend(vec![check; count]);
    }
}

impl Alarms {
    /// A store with these settings, and the alarms that it raises.
    pub async fn watch(config: StoreConfig) -> (PgStore, Arc<Self>) {
        let alarms = Arc::new(Self::default());
        let observer: Arc<dyn StoreObserver> = Arc::<Self>::clone(&alarms);
        let store = PgStore::connect(config, observer).await.expect("a store");
        (store, alarms)
    }

    /// Those that there were since the last time.
    pub fn taken(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.checks.lock().unwrap())
    }

    /// How many there were since the last time, all of them of this check.
    pub fn taken_of(&self, check: &str) -> usize {
        let taken = self.taken();
        assert!(taken.iter().all(|other| *other == check), "{taken:?}");
        taken.len()
    }

    /// How many entries were read since the last time that the store did not write.
    pub fn taken_forged(&self) -> usize {
        self.forged.swap(0, Ordering::Relaxed)
    }
}
