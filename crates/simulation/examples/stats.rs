//! Tells what a range of schedules exercised, so that a quiet simulation is not taken for a thorough one.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;

use quittance_simulation::world::World;

fn main() {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..500 {
        let world = World::new(seed);
        world.live();
        world.store.look(|tables| {
            for record in tables.payments.values() {
                *counts
                    .entry(format!("payment {}", record.payment.state))
                    .or_default() += 1;
                let id = record.payment.id.0;
                for (_, entry) in tables.journal.range((id, 0)..=(id, u64::MAX)) {
                    let by = if entry.source.is_empty() {
                        "a command"
                    } else {
                        &entry.source
                    };
                    *counts
                        .entry(format!("entry {} by {by}", entry.event_type))
                        .or_default() += 1;
                }
                for row in &record.transactions {
                    let unknown = if row.ever_unknown {
                        " after unknown"
                    } else {
                        ""
                    };
                    let (kind, state, origin) = (row.kind, row.state, row.origin);
                    let name = format!("transaction {kind} of {origin} {state}{unknown}");
                    *counts.entry(name).or_default() += 1;
                }
            }
        });
    }
    for (name, count) in counts {
        println!("{count:>7} {name}");
    }
}
