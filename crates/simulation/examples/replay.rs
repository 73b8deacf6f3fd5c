//! Replays one seed, and prints what the journal says of every payment that violates something.
#![allow(clippy::print_stdout)]

use quittance_evidence::Leaf;
use quittance_simulation::{check, world::World};

fn main() {
    let seed = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let violations = check::run(seed);
    let text = violations.join("\n");
    println!("{text}");
    let world = World::new(seed);
    println!("{:?}", world.provider.nature());
    world.live();
    world.store.look(|tables| {
        for record in tables.payments.values() {
            let named = record
                .transactions
                .iter()
                .any(|row| text.contains(&row.id.to_string()));
            if !named && !text.contains(&record.payment.id.to_string()) {
                continue;
            }
            let id = record.payment.id.0;
            for (_, entry) in tables.journal.range((id, 0)..=(id, u64::MAX)) {
                let Ok(leaf) = Leaf::decode(entry.leaf.as_bytes()) else {
                    continue;
                };
                println!(
                    "{} {:<24} {:<18} {:?} {:?} {:?}",
                    leaf.occurred_at.format("%H:%M:%S%.3f"),
                    leaf.event_type,
                    leaf.state_to.unwrap_or_default(),
                    leaf.transaction_id.map(|id| id.to_string().split_off(30)),
                    leaf.cause.map(|cause| cause.code),
                    leaf.amount_minor,
                );
                println!("      {:?}", leaf.amounts.unwrap_or_default());
            }
        }
    });
    for (id, booked) in world.provider.operations() {
        if record_mentions(&text, &booked.payment.to_string()) || text.contains(&id.to_string()) {
            println!("{} {booked:?}", id.to_string().split_off(30));
        }
    }
}

fn record_mentions(text: &str, payment: &str) -> bool {
    text.contains(payment)
}
