//! What must hold after every schedule.

use std::collections::BTreeMap;

use quittance_domain::ids::TransactionId;
use quittance_domain::payment::PaymentRecord;
use quittance_domain::transaction::{Transaction, TransactionKind, TransactionState};
use quittance_evidence::ChainCheck;

use crate::provider::{Balance, Booked, Status};
use crate::world::World;

/// Runs one schedule; the violations that it shows, none where all is well.
pub fn run(seed: u64) -> Vec<String> {
    let world = World::new(seed);
    if !world.live() {
        return vec!["the schedule does not end".to_owned()];
    }
    let mut violations = world.provider.violations();
    world.store.look(|tables| {
        for record in tables.payments.values() {
            payment(&world, record, &mut violations);
        }
    });
    answers(&world, &mut violations);
    chains(&world, &mut violations);
    violations
}

/// The payment and the provider's books agree, to the unit and transaction by transaction.
fn payment(world: &World, record: &PaymentRecord, violations: &mut Vec<String>) {
    let id = record.payment.id;
    let amounts = &record.payment.amounts;
    if !amounts.holds_limits() {
        violations.push(format!("I5: {id} has {amounts:?}"));
    }
    let ours = Balance {
        authorized: amounts.authorized,
        captured: amounts.captured,
        voided: amounts.voided,
        refunded: amounts.refunded,
    };
    let theirs = world.provider.balance(id);
    if ours != theirs {
        violations.push(format!("{id}: we say {ours:?}, the provider {theirs:?}"));
    }
    let booked = world.provider.operations();
    for row in &record.transactions {
        transaction(row, booked.get(&row.id), violations);
    }
}

fn transaction(row: &Transaction, booked: Option<&Booked>, violations: &mut Vec<String>) {
    let agrees = match (row.state, booked.map(|booked| booked.status)) {
        (TransactionState::Succeeded, Some(Status::Approved))
        | (TransactionState::Declined, Some(Status::Declined))
        | (TransactionState::Failed, None | Some(Status::Voided)) => true,
        // A void that ended with the authorization that it was waiting for was never sent.
        (TransactionState::Succeeded, None) => {
            row.kind == TransactionKind::Void && row.attempts == 0
        }
        (
            TransactionState::Pending
            | TransactionState::RequiresAction
            | TransactionState::Succeeded
            | TransactionState::Declined
            | TransactionState::Failed
            | TransactionState::Reversed,
            _,
        ) => false,
    };
    if !agrees {
        let status = booked.map(|booked| booked.status);
        let TransactionId(id) = row.id;
        violations.push(format!(
            "{} {id} is {}, at the provider {status:?}",
            row.kind, row.state
        ));
    }
    if booked.is_some_and(|booked| booked.times > 1) {
        violations.push(format!(
            "{} {} was carried out more than once",
            row.kind, row.id
        ));
    }
}

/// I6: one key, one transaction. I13: who was told that nothing was accepted was told the truth.
fn answers(world: &World, violations: &mut Vec<String>) {
    let recorded: BTreeMap<String, TransactionId> = world.store.look(|tables| {
        let all = tables.keys.values();
        all.map(|known| (known.key.as_str().to_owned(), known.transaction))
            .collect()
    });
    for (key, told) in world.told.lock().iter() {
        let known = recorded.get(key);
        if told
            .transactions
            .iter()
            .any(|transaction| Some(transaction) != known)
        {
            violations.push(format!("I6: {key} was answered with another transaction"));
        }
        if told.rejected_though_known {
            violations.push(format!(
                "I6: {key} was rejected, though it had been accepted"
            ));
        }
        if told.transactions.is_empty() && !told.may_be_accepted && known.is_some() {
            violations.push(format!("I13: {key} was refused, and is accepted"));
        }
    }
}

/// I7: one entry a version, numbered without gaps and chained.
fn chains(world: &World, violations: &mut Vec<String>) {
    world.store.look(|tables| {
        for record in tables.payments.values() {
            let (id, version) = (record.payment.id, record.payment.version);
            let entries = tables.journal.range((id.0, 0)..=(id.0, u64::MAX));
            match ChainCheck::run(entries.map(|(_, entry)| entry.leaf.as_bytes())) {
                Ok(Some(head)) if head.entity_seq == version => {}
                Ok(_) => {
                    violations.push(format!("I7: {id} has version {version}, and other entries"));
                }
                Err(error) => violations.push(format!("I7: {id}: {error}")),
            }
        }
    });
}
