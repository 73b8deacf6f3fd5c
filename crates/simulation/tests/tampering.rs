//! Thousands of random tamperings with what random schedules have written (scenario 75): each is noticed, and what was
//! not tampered with is never reported.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeMap;

use quittance_domain::change::{Change, JournalEntry};
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::payment::Payment;
use quittance_domain::ports::Commit;
use quittance_domain::transaction::{Transaction, TransactionKind};
use quittance_domain::verification::{
    LoggedRow, MacKeys, Mismatch, Placed, StoredPayment, StoredTransaction, StreamWalk,
    check_entry, compare_payment,
};
use quittance_evidence::{Hash, LeafMac, MAC_KEY_BYTES, MacKey, MacKeyId, leaf_hash};
use quittance_simulation::world::World;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;

/// Tamperings of a run; more by `QUITTANCE_TAMPERINGS`.
const TAMPERINGS: usize = 5_000;
/// Worlds that they are done to.
const WORLDS: u64 = 40;

struct Keys(MacKey);

impl MacKeys for Keys {
    fn mac_key(&self, id: &str) -> Option<&MacKey> {
        (id == self.0.id().as_str()).then_some(&self.0)
    }
}

fn keys() -> Keys {
    Keys(MacKey::new(
        MacKeyId::new("k1").unwrap(),
        [7; MAC_KEY_BYTES],
    ))
}

/// A payment and all that the database holds about it.
#[derive(Debug, Clone)]
struct Books {
    rows: Vec<LoggedRow>,
    stored: StoredPayment,
}

/// The books of every payment of a world.
fn books(seed: u64, keys: &Keys) -> Vec<Books> {
    let world = World::new(seed);
    world.store.keep_offers();
    assert!(world.live_in_trouble(), "seed {seed}");
    let offers = world.store.offers();
    let mut all = BTreeMap::<Uuid, (Vec<LoggedRow>, Payment, BTreeMap<Uuid, Transaction>)>::new();
    let mut arrival = 0;
    let mut taken = std::collections::BTreeSet::new();
    let committed = offers.into_iter().filter(|(change, answer)| {
        answer == &Ok(Commit::Committed) && taken.insert(change.entry.id)
    });
    for (change, _) in committed {
        arrival += 1;
        let Change {
            payment,
            transactions,
            entry,
            ..
        } = change;
        let known = all
            .entry(payment.id.0)
            .or_insert_with(|| (Vec::new(), payment.clone(), BTreeMap::new()));
        known.0.push(row(entry, arrival, keys));
        known.1 = payment;
        for write in transactions {
            known.2.insert(write.row().id.0, write.row().clone());
        }
    }
    let books = all
        .into_values()
        .map(|(rows, payment, transactions)| Books {
            rows,
            stored: stored(payment, transactions),
        });
    books.collect()
}

fn row(entry: JournalEntry, arrival: i64, keys: &Keys) -> LoggedRow {
    let mac = LeafMac::compute(&keys.0, &entry.leaf);
    let entity_seq = i64::try_from(entry.entity_seq).unwrap();
    let tenant_id = entry.tenant.map(|tenant| tenant.as_str().to_owned());
    LoggedRow {
        stream_id: entry.stream,
        entity_seq,
        entry_id: entry.id.0,
        tenant_id: tenant_id.clone(),
        payment_id: entry.payment.map(|it| it.0),
        transaction_id: entry.transaction.map(|it| it.0),
        event_type: entry.event_type,
        result: entry.result.to_owned(),
        cause: entry.cause,
        actor: entry.actor,
        source: entry.source,
        provider_account: entry.provider_account,
        trace_id: entry.trace_id.map(|id| id.to_vec()),
        occurred_at: entry.occurred_at,
        leaf: entry.leaf.as_bytes().to_vec(),
        leaf_hash: entry.leaf_hash.to_vec(),
        mac: mac.tag().to_vec(),
        mac_key_id: mac.key_id().as_str().to_owned(),
        arrival,
        placed: Some(Placed {
            position: arrival,
            entry_id: entry.id.0,
            stream_id: entry.stream,
            entity_seq,
            tenant_id,
        }),
    }
}

fn stored(payment: Payment, transactions: BTreeMap<Uuid, Transaction>) -> StoredPayment {
    let transactions = transactions.into_values().map(|row| StoredTransaction {
        id: row.id,
        amount: row.amount,
        state: row.state.name().to_owned(),
        provider_account: row.provider_account.as_str().to_owned(),
        provider_reference: row.provider_reference.map(|it| it.as_str().to_owned()),
        decline_code: row.decline.map(|it| it.code.name().to_owned()),
        amount_follows: row.kind == TransactionKind::Void,
    });
    StoredPayment {
        id: payment.id,
        version: i64::try_from(payment.version).unwrap(),
        last_leaf_hash: payment.last_leaf_hash.unwrap().to_vec(),
        updated_at: payment.updated_at,
        currency_exponent: i16::from(payment.currency().exponent()),
        transactions: transactions.collect(),
        payment: Ok(payment),
    }
}

/// As a batch is checked.
fn verify(books: &Books, keys: &Keys) -> Vec<Mismatch> {
    let mut found = Vec::new();
    let mut walk = StreamWalk::default();
    let mut rows = books.rows.clone();
    rows.sort_by_key(|row| (row.stream_id, row.entity_seq));
    let mut ends = Vec::new();
    for row in &rows {
        let entry = check_entry(row, i64::MAX, keys, &mut found);
        ends.extend(walk.push(entry, &mut found));
    }
    ends.extend(walk.finish());
    let own = ends.iter().find(|end| end.stream == books.stored.id.0);
    compare_payment(own, Some(&books.stored), &mut found);
    for end in ends.iter().filter(|end| end.stream != books.stored.id.0) {
        compare_payment(Some(end), None, &mut found);
    }
    found
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
    let transaction = random.random_range(0..books.stored.transactions.len());
    let many = books.rows.len() > 1;
    let kind = random.random_range(0..26);
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
            books.stored.transactions[transaction].amount += 1;
            if books.stored.transactions[transaction].amount_follows {
                return None;
            }
            "a transaction's amount"
        }
        24 => {
            let row = &mut books.stored.transactions[transaction];
            row.state = if row.state == "FAILED" {
                "SUCCEEDED"
            } else {
                "FAILED"
            }
            .to_owned();
            "a transaction's state"
        }
        25 => {
            books.stored.transactions[transaction].id = TransactionId(Uuid::now_v7());
            "a transaction exchanged"
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
        assert_eq!(verify(books, &keys), [], "untampered");
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
        let found = verify(&books, &keys);
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
    let codes: Vec<_> = verify(&books, &keys)
        .iter()
        .map(|mismatch| mismatch.fault.code())
        .collect();
    assert!(codes.contains(&"MAC_WRONG"), "{codes:?}");
    let bytes: [u8; 32] = books.rows[0].leaf_hash.as_slice().try_into().unwrap();
    assert_eq!(Hash::from_bytes(bytes), leaf_hash(&books.rows[0].leaf));
}
