//! Changes to write: those of the simulation's random schedules, as the product's own flows make them.

use std::sync::Arc;

use anyhow::ensure;
use quittance_domain::change::Change;
use quittance_domain::ports::Commit;
use quittance_simulation::world::World;
use quittance_store::{KeyRing, PgStore, StoreConfig, Unobserved};

use crate::service::Quittance;
use crate::setup::KEY_ID;

/// The store of the server that is configured so, on this database.
///
/// # Errors
/// Where it cannot be reached.
pub async fn store(quittance: &Quittance, url: &str) -> anyhow::Result<PgStore> {
    let keys = KeyRing::new([(KEY_ID.to_owned(), quittance.setup.master_key())])?;
    let config = StoreConfig::new(url, keys);
    Ok(PgStore::connect(config, Arc::new(Unobserved)).await?)
}

/// What payments go through in the schedule of this seed, to be written to this store one after another.
///
/// # Errors
/// Where the schedule does not end.
pub async fn changes(store: &PgStore, seed: u64) -> anyhow::Result<Vec<Change>> {
    let key = store.keys().fingerprint_key();
    tokio::task::spawn_blocking(move || {
        let world = World::new(seed).with_fingerprint_key(key);
        world.store.keep_offers();
        ensure!(
            world.live_in_trouble(),
            "the schedule of seed {seed} does not end"
        );
        let offers = world.store.offers().into_iter();
        let committed = offers.filter(|(_, answer)| answer == &Ok(Commit::Committed));
        Ok(committed.map(|(change, _)| change).collect())
    })
    .await?
}
