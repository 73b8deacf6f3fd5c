//! What must hold after every schedule.

use std::collections::BTreeMap;

use quittance_domain::amounts::Amounts;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::payment::PaymentRecord;
use quittance_domain::transaction::{
    Transaction, TransactionKind, TransactionOrigin, TransactionState,
};
use quittance_evidence::ChainCheck;

use crate::books::{Books, Keys};
use crate::provider::{Balance, Booked, Status, Unasked};
use crate::world::World;

pub mod cases;
mod decided;
pub mod exhausted;
mod expiry;
mod otherwise;
mod theirs;

use cases::Open;
use decided::nothing_is_lost;
use expiry::ended_as_it_ran_out;
use otherwise::Otherwise;
use theirs::Theirs;

/// Runs one schedule; the violations that it shows, none where all is well.
pub fn run(seed: u64) -> Vec<String> {
    judge(&World::new(seed))
}

/// Lets a world live; the violations that it shows.
pub fn judge(world: &World) -> Vec<String> {
    if !world.live() {
        return vec!["the schedule does not end".to_owned()];
    }
    let mut violations = world.provider.violations();
    violations.append(&mut world.seen.lock());
    world.store.look(|tables| {
        let open = Open::of(tables);
        for record in tables.payments.values() {
            payment(world, record, &open, &mut violations);
            shows_its_cases(record, &open, &mut violations);
        }
    });
    answers(world, &mut violations);
    chains(world, &mut violations);
    verified(world, &mut violations);
    violations
}

/// Verification finds nothing in an honest log: in particular, replaying its entries gives what they say.
fn verified(world: &World, violations: &mut Vec<String>) {
    let Some(keys) = Keys::new() else {
        return violations.push("no key".to_owned());
    };
    world.store.look(|tables| {
        for record in tables.payments.values() {
            let id = record.payment.id;
            let entries = tables.journal.range((id.0, 0)..=(id.0, u64::MAX));
            let books = Books::new(record, entries.map(|(_, entry)| entry), &keys);
            let (found, replayed) = books.verify(&keys);
            if !replayed {
                violations.push(format!("I7: {id} cannot be replayed"));
            }
            for found in found {
                let code = found.fault.code();
                violations.push(format!("I7: {id}: {code}: {}", found.fault));
            }
        }
    });
}

/// I12: what its customer has left is released as often as is allowed.
fn released_within_limits(world: &World, record: &PaymentRecord, violations: &mut Vec<String>) {
    let refused = record.transactions.iter().filter(|row| {
        let ours = row.kind == TransactionKind::Void && row.origin == TransactionOrigin::Service;
        ours && matches!(
            row.state,
            TransactionState::Declined | TransactionState::Failed
        )
    });
    let most = usize::try_from(world.retries().release.steps).unwrap_or(usize::MAX);
    if refused.count() > most {
        violations.push(format!(
            "I12: {} is released again and again",
            record.payment.id
        ));
    }
}

/// The payment and the provider's books agree, to the unit and transaction by transaction.
fn payment(world: &World, record: &PaymentRecord, open: &Open, violations: &mut Vec<String>) {
    let id = record.payment.id;
    let amounts = &record.payment.amounts;
    if !amounts.holds_limits() {
        violations.push(format!("I5: {id} has {amounts:?}"));
    }
    released_within_limits(world, record, violations);
    let booked = world.provider.operations();
    carried_out_once(record, &booked, violations);
    let theirs = world.provider.balance(id);
    let mut rows = record.transactions.iter();
    let by_person = rows.any(|row| row.resolved_by_operator);
    let contradicted = is_contradicted(record, open);
    let otherwise = Otherwise::of(record, &booked, open, violations);
    // What the provider does by itself may be more than we had left.
    let unasked = world.provider.unasked().into_iter();
    let mut unasked: Vec<_> = unasked.filter(|unasked| unasked.payment == id).collect();
    let by_itself = !unasked.is_empty();
    let mut all = booked.values();
    let takes_back = all.any(|booked| booked.payment == id && was_taken_back(booked));
    let ran_out = world.provider.ran_out(id);
    // What was told to have run out may be told to have been authorized after that.
    if contradicted && !by_person && !by_itself && !takes_back && !ran_out {
        violations.push(format!("{id}: the provider contradicts what it had proved"));
    }
    let nature = world.provider.nature();
    let (trusted, shape) = (nature.authoritative, nature.shape);
    let books = Theirs {
        booked: &booked,
        shape,
        ran_out,
    };
    // What a person decided wrongly stays with the person, where others built upon it or nobody can say better.
    let built_upon = record.transactions.len() > 1;
    if by_person && (contradicted || !trusted || built_upon || ran_out) {
        // What was told while a person had not decided yet may be told again only after the end of the schedule.
        let early = waiting_for_ours(record, &mut unasked, |row| row.resolved_by_operator);
        let theirs = early.iter().fold(theirs, without);
        return nothing_is_lost(record, books, &theirs, open, violations);
    }
    let with_person = |row: &Transaction| {
        let asked = open.has(row, OperatorActionKind::RecoveryExhausted);
        asked && (!trusted || world.is_impatient()) && row.state == TransactionState::Pending
    };
    let asked = |row: &Transaction| open.has(row, OperatorActionKind::AmountMismatch);
    let undecided = moves_what_nobody_knows(record, with_person, asked);
    let theirs = as_captured_again(amounts, theirs, (id, &booked));
    // What a capture that a person is asked about holds back did not run out here, as far as is known.
    let mut rows = record.transactions.iter();
    let kept = rows.any(|row| row.kind == TransactionKind::Capture && with_person(row));
    let kept_back = i64::from(kept && ran_out) * amounts.capture_pending;
    let voided = theirs.voided - kept_back;
    let theirs = Balance { voided, ..theirs };
    let early = waiting_for_ours(record, &mut unasked, |row| with_person(row) || asked(row));
    let theirs = early.iter().fold(theirs, without);
    let theirs = otherwise.without(theirs, amounts);
    if !agree(amounts, &theirs, by_itself, undecided) {
        violations.push(format!("{id}: we say {amounts:?}, the provider {theirs:?}"));
    }
    if otherwise.none() && !kept && !record.opening().is_some_and(with_person) {
        ended_as_it_ran_out(record, ran_out, violations);
    }
    unasked_are_recorded(record, unasked, violations);
    transactions(record, books, &otherwise, with_person, violations);
}

/// Whether a refund has no outcome that anybody could tell, or a refund or a capture another amount than a person has decided on.
fn moves_what_nobody_knows(
    record: &PaymentRecord,
    with_person: impl Fn(&Transaction) -> bool,
    asked: impl Fn(&Transaction) -> bool,
) -> bool {
    record.transactions.iter().any(|row| match row.kind {
        TransactionKind::Refund => with_person(row) || asked(row),
        TransactionKind::Capture => asked(row),
        TransactionKind::Purchase
        | TransactionKind::Authorization
        | TransactionKind::Void
        | TransactionKind::Chargeback
        | TransactionKind::ChargebackReversal => false,
    })
}

/// Every transaction of ours stands as the provider's books say, but what a person is asked about.
fn transactions(
    record: &PaymentRecord,
    books: Theirs<'_>,
    otherwise: &Otherwise<'_>,
    with_person: impl Fn(&Transaction) -> bool,
    violations: &mut Vec<String>,
) {
    for row in &record.transactions {
        let waits = row.kind == TransactionKind::Void && row.attempts == 0;
        if with_person(row) || waits && record.opening().is_some_and(&with_person) {
            // I3: nobody can say what became of it.
            continue;
        }
        if row.origin == TransactionOrigin::Provider || otherwise.holds(row) {
            continue;
        }
        if !books.agrees(row) {
            let (kind, TransactionId(id), state) = (row.kind, row.id, row.state);
            let status = books.of(row).map(|booked| booked.status);
            violations.push(format!(
                "{kind} {id} is {state}, at the provider {status:?}"
            ));
        }
    }
}

/// Every case that is open about a transaction is shown with it, and nothing else is.
fn shows_its_cases(record: &PaymentRecord, open: &Open, violations: &mut Vec<String>) {
    for row in &record.transactions {
        let listed = open.about(row);
        if listed != row.open_cases {
            let (kind, id, shown) = (row.kind, row.id, row.open_cases);
            violations.push(format!(
                "{kind} {id} shows {shown:?}, and {listed:?} are open"
            ));
        }
    }
}

/// I2: whatever anybody decided or the provider contradicts, nothing is carried out twice.
fn carried_out_once(
    record: &PaymentRecord,
    booked: &BTreeMap<TransactionId, Booked>,
    violations: &mut Vec<String>,
) {
    for row in &record.transactions {
        if booked.get(&row.id).is_some_and(|booked| booked.times > 1) {
            let (kind, id) = (row.kind, row.id);
            violations.push(format!("I2: {kind} {id} was carried out more than once"));
        }
    }
}

/// A balance, where a last capture was taken back: whether what it had released can be captured again is the provider's
/// affair.
fn as_captured_again(
    ours: &Amounts,
    theirs: Balance,
    (payment, booked): (PaymentId, &BTreeMap<TransactionId, Booked>),
) -> Balance {
    let mut all = booked.values();
    let taken_back = all.any(|booked| {
        booked.payment == payment && booked.last && booked.status == Status::TakenBack
    });
    Balance {
        voided: if taken_back {
            ours.voided
        } else {
            theirs.voided
        },
        ..theirs
    }
}

/// Whether something was done, and is not any more.
fn was_taken_back(booked: &Booked) -> bool {
    matches!(booked.status, Status::TakenBack | Status::Uncaptured)
}

fn is_contradicted(record: &PaymentRecord, open: &Open) -> bool {
    record.transactions.iter().any(|row| {
        open.has(row, OperatorActionKind::ContradictingFact)
            || open.has(row, OperatorActionKind::ExcessAmount)
    })
}

/// Whether our amounts and the provider's are the same, to the unit; where they cannot be, what is out of place is in the
/// excess.
fn agree(amounts: &Amounts, theirs: &Balance, by_itself: bool, undecided: bool) -> bool {
    let ours = Balance {
        authorized: amounts.authorized,
        captured: amounts.captured,
        voided: amounts.voided,
        refunded: amounts.refunded,
        charged_back: amounts.charged_back,
    };
    // A void that succeeded while the customer could still act: whether it released an authorization that was
    // made just before, or kept it from being made, is the same to the unit. What was captured in between is out of place.
    let moved = |balance: &Balance| balance.captured + balance.refunded + balance.charged_back;
    let nothing_else = Amounts {
        excess: amounts.excess,
        ..Amounts::default()
    };
    let released = *amounts == nothing_else
        && (by_itself || amounts.excess == 0)
        && theirs.captured + theirs.voided == theirs.authorized
        && moved(theirs) == amounts.excess;
    // What it did by itself and had no room, beside what we hold back or at all.
    let is_near = |ours: i64, theirs: i64| (ours - theirs).abs() <= amounts.excess;
    let in_excess = by_itself
        && is_near(ours.captured, theirs.captured)
        && is_near(ours.refunded, theirs.refunded)
        && is_near(ours.charged_back, theirs.charged_back)
        && ours.authorized == theirs.authorized
        && moved(&ours) + amounts.excess == moved(theirs);
    // Of a capture that was taken back while a refund of it is undecided, nobody can say whether money left; nor of one that
    // was taken back and refunded, while a person is asked how much another captured.
    let undecided = undecided
        && ours.captured - amounts.excess == theirs.captured
        && (ours.authorized, ours.charged_back) == (theirs.authorized, theirs.charged_back);
    ours == *theirs || released || in_excess || undecided
}

/// Takes out what the provider did by itself and what may be the operation of ours that a person is asked about: of the
/// same kind and amount, it waits for that one.
fn waiting_for_ours(
    record: &PaymentRecord,
    unasked: &mut Vec<Unasked>,
    with_person: impl Fn(&Transaction) -> bool,
) -> Vec<Unasked> {
    let rows = &record.transactions;
    let is_recorded = |unasked: &Unasked| {
        let mut names = rows
            .iter()
            .filter_map(|row| row.provider_reference.as_ref());
        names.any(|name| name.to_string() == unasked.reference)
    };
    let waits = |unasked: &mut Unasked| {
        let may_be_ours = |row: &Transaction| {
            let alike = (row.kind, row.amount) == (unasked.kind, unasked.amount);
            alike && row.provider_reference.is_none() && with_person(row)
        };
        !is_recorded(unasked) && rows.iter().any(may_be_ours)
    };
    unasked.extract_if(.., waits).collect()
}

/// What a balance would be, had the provider not done this by itself.
fn without(balance: Balance, unasked: &Unasked) -> Balance {
    let mut balance = balance;
    match unasked.kind {
        TransactionKind::Capture => balance.captured -= unasked.amount,
        TransactionKind::Refund => balance.refunded -= unasked.amount,
        TransactionKind::Purchase
        | TransactionKind::Authorization
        | TransactionKind::Void
        | TransactionKind::Chargeback
        | TransactionKind::ChargebackReversal => {}
    }
    balance
}

/// What the provider did by itself is recorded, each once.
fn unasked_are_recorded(
    record: &PaymentRecord,
    theirs: Vec<Unasked>,
    violations: &mut Vec<String>,
) {
    let id = record.payment.id;
    let rows = record.transactions.iter();
    let mut ours: Vec<_> = rows
        .filter(|row| row.origin == TransactionOrigin::Provider)
        .map(|row| {
            let reference = row.provider_reference.as_ref().map(ToString::to_string);
            (row.kind, reference, row.amount, row.state)
        })
        .collect();
    let mut theirs: Vec<_> = theirs
        .into_iter()
        .map(|unasked| {
            let reference = Some(unasked.reference);
            let state = TransactionState::Succeeded;
            (unasked.kind, reference, unasked.amount, state)
        })
        .collect();
    ours.sort();
    theirs.sort();
    if ours != theirs {
        violations.push(format!(
            "{id}: by itself the provider did {theirs:?}, and we have {ours:?}"
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
        if told.denied_though_known {
            violations.push(format!(
                "I13: {key} was denied, though it had been accepted"
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
