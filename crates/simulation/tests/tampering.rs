//! Thousands of random tamperings with what random schedules have written (scenario 75): each is noticed, and what was
//! not tampered with is never reported.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeMap;

use quittance_domain::ids::{PaymentId, ProviderReference, TransactionId};
use quittance_domain::transaction::{TransactionKind, TransactionState};
use quittance_domain::verification::LoggedRow;
use quittance_evidence::{Hash, leaf_hash};
use quittance_simulation::books::{Books, Keys};
use quittance_simulation::world::World;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom as _, IndexedRandom as _};
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

/// Tamperings of a run; more by `QUITTANCE_TAMPERINGS`.
const TAMPERINGS: usize = 5_000;
/// Worlds that they are done to.
const WORLDS: u64 = 40;

fn keys() -> Keys {
    Keys::new().unwrap()
}

/// The books of every payment of a world.
fn books(seed: u64, keys: &Keys) -> Vec<Books> {
    let world = World::new(seed);
    assert!(world.live_in_trouble(), "seed {seed}");
    world.store.look(|tables| {
        let payments = tables.payments.values().map(|record| {
            let id = record.payment.id.0;
            let entries = tables.journal.range((id, 0)..=(id, u64::MAX));
            Books::new(record, entries.map(|(_, entry)| entry), keys)
        });
        payments.collect()
    })
}

fn flip(bytes: &mut [u8], random: &mut StdRng) {
    let at = random.random_range(0..bytes.len());
    bytes[at] ^= 1 << random.random_range(0..8);
}

/// Writes a text in another that a forger would like better, and makes the hash fit.
fn forge(row: &mut LoggedRow, random: &mut StdRng) {
    let text = String::from_utf8(row.leaf.clone()).unwrap();
    let forged = if random.random() {
        text.replacen("\"result\":\"success\"", "\"result\":\"failure\"", 1)
    } else {
        text.replacen("\"amount_minor\":\"", "\"amount_minor\":\"9", 1)
    };
    row.leaf = forged.into_bytes();
    row.leaf_hash = leaf_hash(&row.leaf).as_bytes().to_vec();
}

/// Does one thing to a payment's books. Gives its name; `None` where it cannot be done to these.
fn tamper(books: &mut Books, other: &Books, random: &mut StdRng) -> Option<&'static str> {
    let at = random.random_range(0..books.rows.len());
    let transactions = books.stored.transactions.as_mut().unwrap();
    let transaction = transactions.choose_mut(random).unwrap();
    let many = books.rows.len() > 1;
    let kind = random.random_range(0..29);
    let row = &mut books.rows[at];
    let before = row.leaf.clone();
    let payment = books.stored.payment.as_mut().unwrap();
    let done = match kind {
        0 => {
            flip(&mut row.leaf, random);
            "a bit of the leaf"
        }
        1 => {
            forge(row, random);
            if row.leaf == before {
                return None;
            }
            "a forged leaf with its hash"
        }
        2 => {
            flip(&mut row.leaf_hash, random);
            "a bit of leaf_hash"
        }
        3 => {
            flip(&mut row.mac, random);
            "a bit of the MAC"
        }
        4 => {
            row.event_type.push('x');
            "event_type"
        }
        5 => {
            row.tenant_id = Some("other".to_owned());
            "tenant_id"
        }
        6 => {
            row.entry_id = Uuid::now_v7();
            "entry_id"
        }
        7 => {
            row.payment_id = None;
            "payment_id"
        }
        8 => {
            row.transaction_id = None;
            "transaction_id"
        }
        9 => {
            row.actor.push('x');
            "actor"
        }
        10 => {
            row.source.push('x');
            "source"
        }
        11 => {
            row.occurred_at += chrono::TimeDelta::microseconds(1);
            "occurred_at"
        }
        12 => {
            row.cause = row
                .cause
                .as_ref()
                .map_or_else(|| Some("X".to_owned()), |_| None);
            "cause"
        }
        13 => {
            books.rows.remove(at);
            if books.rows.is_empty() {
                return None;
            }
            "an entry deleted"
        }
        14 if many => {
            books.rows.truncate(at.max(1));
            "the tail cut off"
        }
        15 if many => {
            let to = (at + 1) % books.rows.len();
            let (a, b) = (books.rows[at].entity_seq, books.rows[to].entity_seq);
            (books.rows[at].entity_seq, books.rows[to].entity_seq) = (b, a);
            "two entries swapped"
        }
        16 => {
            let mut copy = other.rows.choose(random).unwrap().clone();
            copy.stream_id = books.stored.id.0;
            copy.entity_seq = i64::try_from(books.rows.len()).unwrap() + 1;
            books.rows.push(copy);
            "an entry of another payment put in"
        }
        17 => {
            row.placed = None;
            "a position taken away"
        }
        18 => {
            let placed = row.placed.as_mut().unwrap();
            placed.entry_id = Uuid::now_v7();
            "a position given to another entry"
        }
        19 => {
            payment.amounts.captured += 1;
            "captured"
        }
        20 => {
            payment.disputed = !payment.disputed;
            "disputed"
        }
        21 => {
            payment.livemode = !payment.livemode;
            "livemode"
        }
        22 => {
            books.stored.version += 1;
            "version"
        }
        23 => {
            transaction.row.as_mut().unwrap().amount += 1;
            "a transaction's amount"
        }
        24 => {
            let row = transaction.row.as_mut().unwrap();
            row.state = if row.state == TransactionState::Failed {
                TransactionState::Succeeded
            } else {
                TransactionState::Failed
            };
            "a transaction's state"
        }
        25 => {
            transaction.id = TransactionId(Uuid::now_v7());
            "a transaction exchanged"
        }
        26 => {
            let row = transaction.row.as_mut().unwrap();
            row.kind = if row.kind == TransactionKind::Void {
                TransactionKind::Refund
            } else {
                TransactionKind::Void
            };
            row.amount += 1;
            "a transaction's kind and amount"
        }
        27 => {
            let row = transaction.row.as_mut().unwrap();
            row.provider_reference = Some(ProviderReference::parse("forged").unwrap());
            "a transaction's reference at the provider"
        }
        28 => {
            let row = transaction.row.as_mut().unwrap();
            row.ever_unknown = !row.ever_unknown;
            "a transaction's ever_unknown"
        }
        _ => return None,
    };
    Some(done)
}

#[test]
fn s75_thousands_of_random_tamperings_are_each_detected() {
    let seed = std::env::var("QUITTANCE_TAMPER_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse::<u64>().unwrap());
    println!("QUITTANCE_TAMPER_SEED={seed}");
    let count = std::env::var("QUITTANCE_TAMPERINGS")
        .map_or(TAMPERINGS, |text| text.parse::<usize>().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let keys = keys();
    let all: Vec<Books> = (0..WORLDS).flat_map(|seed| books(seed, &keys)).collect();
    for books in &all {
        assert_eq!(books.verify(&keys), (vec![], true), "untampered");
    }
    let mut done = BTreeMap::<&str, usize>::new();
    while done.values().sum::<usize>() < count {
        let mut books = all.choose(&mut random).unwrap().clone();
        let other = all.choose(&mut random).unwrap();
        if other.stored.id == books.stored.id {
            continue;
        }
        let Some(kind) = tamper(&mut books, other, &mut random) else {
            continue;
        };
        let (found, _) = books.verify(&keys);
        let named = found.iter().any(|mismatch| {
            mismatch.payment == Some(PaymentId(books.stored.id.0)) || mismatch.entry.is_some()
        });
        assert!(named, "{kind}: not detected and named, but {found:?}");
        *done.entry(kind).or_default() += 1;
    }
    for (kind, count) in &done {
        println!("{count:>6} {kind}: all detected");
    }
    assert!(done.len() > 20, "{done:?}");
}

#[test]
fn a_hash_that_fits_does_not_help_without_the_key() {
    let keys = keys();
    let mut books = books(1, &keys).remove(0);
    let mut random = StdRng::seed_from_u64(1);
    forge(&mut books.rows[0], &mut random);
    let (found, _) = books.verify(&keys);
    let codes: Vec<_> = found.iter().map(|mismatch| mismatch.fault.code()).collect();
    assert!(codes.contains(&"MAC_WRONG"), "{codes:?}");
    let bytes: [u8; 32] = books.rows[0].leaf_hash.as_slice().try_into().unwrap();
    assert_eq!(Hash::from_bytes(bytes), leaf_hash(&books.rows[0].leaf));
}
