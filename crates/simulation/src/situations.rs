//! What a world has been through, by name and how often: so that a quiet simulation is not taken for a thorough one.

use std::collections::BTreeMap;

use quittance_domain::transaction::Attempt;

use crate::store::Tables;
use crate::world::World;

/// How often each situation came up.
pub type Situations = BTreeMap<String, u64>;

/// What a world has been through that has lived: its entries, how its attempts ended, and where it left its payments and
/// transactions.
pub fn of(world: &World) -> Situations {
    let mut counts = Situations::new();
    let mut count = |name: String| *counts.entry(name).or_default() += 1;
    world.store.look(|tables| {
        for entry in tables.journal.values() {
            let cause = entry.cause.as_deref().unwrap_or("no cause");
            count(format!("entry {}: {cause}", entry.event_type));
        }
        for attempt in tables.attempts.values() {
            count(format!("attempt {}", ended(attempt)));
        }
        rows(tables, &mut count);
    });
    counts
}

fn rows(tables: &Tables, count: &mut dyn FnMut(String)) {
    for record in tables.payments.values() {
        count(format!("payment {}", record.payment.state));
        for row in &record.transactions {
            let (kind, state, origin) = (row.kind, row.state, row.origin);
            let unknown = if row.ever_unknown {
                " after unknown"
            } else {
                ""
            };
            count(format!("transaction {kind} of {origin} {state}{unknown}"));
            if row.resolved_by_operator {
                count("transaction decided by a person".to_owned());
            }
        }
    }
    for case in &tables.cases {
        count(format!("case {}", case.kind));
    }
}

fn ended(attempt: &Attempt) -> String {
    let Some(end) = &attempt.ended else {
        return "without an end".to_owned();
    };
    let cause = end.cause.map_or("", |cause| cause.name());
    format!("{} {cause}", end.outcome).trim_end().to_owned()
}
