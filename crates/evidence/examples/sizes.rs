//! Prints how large proofs and bundles are beside the log, as the table of docs/evidence.md, and how fast
//! a log is verified: `cargo run --release -p quittance-evidence --example sizes [entries]`.
//!
//! The logs are real trees of that many leaves, over the entries of one payment and random-looking
//! leaves of others.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a program for developers: it stops where something is wrong, and prints"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use quittance_evidence::{
    ChainCheck, Checkpoint, Hash, LastEntry,
    bundle::{Bundle, BundleEntry, TrustedKeys},
    leaf_hash,
    note::{KeyName, SigningKey},
    tile::TileSet,
    tree::{CompactRange, Path},
};
use support::log::{ORIGIN, STORY, key, story};
use uuid::Uuid;

const PAYMENT: Uuid = Uuid::from_u128(0x0199_0a5d_ac96_774b_bcce_b302_099a_8057);

/// Sizes of the table.
const SIZES: [u64; 6] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

fn main() {
    let most = std::env::args().nth(1);
    let most: u64 = most.map_or(1_000_000, |most| most.parse().unwrap());
    println!(
        "| entries in the log | hashes in a proof | bytes of a proof | bytes of the bundle | verified in |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: |");
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        row(size);
    }
    speed(most);
}

fn row(size: u64) {
    let signer = key(ORIGIN, 1);
    let bundle = export(size, &signer);
    let longest = bundle
        .entries
        .iter()
        .map(|entry| entry.inclusion_proof.len());
    let longest = longest.max().unwrap();
    let bytes = bundle.encode().unwrap();
    let keys = TrustedKeys::new(vec![signer.verifier().clone()]);
    let begun = Instant::now();
    let report = Bundle::decode(&bytes).unwrap().verify(&keys);
    let elapsed = begun.elapsed();
    assert!(report.is_proved());
    let (proof, file) = (longest * 32, bytes.len());
    println!(
        "| {size} | {longest} | {proof} | {file} | {:.1} ms |",
        elapsed.as_secs_f64() * 1e3
    );
}

/// A log in which the payment's entries are spread evenly.
fn export(size: u64, signer: &SigningKey) -> Bundle {
    let (mut range, mut tiles) = (CompactRange::new(), TileSet::new());
    let (mut last, mut own) = (None, Vec::new());
    for index in 0..size {
        let seq = own.len() as u64 + 1;
        let hash = if seq <= STORY && index >= size * (seq * 2 - 1) / (STORY * 2) {
            let bytes = story(PAYMENT, seq, last).encode().unwrap().into_bytes();
            last = Some(leaf_hash(&bytes));
            own.push((index, bytes));
            last.unwrap()
        } else {
            Hash::of(&index.to_be_bytes())
        };
        tiles.append(&mut range, hash).unwrap();
    }
    let (origin, root) = (KeyName::new(ORIGIN).unwrap(), range.root());
    let checkpoint = Checkpoint { origin, size, root };
    let statement = LastEntry {
        payment_id: PAYMENT,
        entity_seq: STORY,
        leaf_hash: last.unwrap(),
        origin: checkpoint.origin.clone(),
        tree_size: size,
        root,
    };
    let entry = |(index, bytes)| {
        let path = Path::inclusion(index, size).unwrap();
        BundleEntry::new(bytes, index, path.prove(|id| tiles.node(id)).unwrap()).unwrap()
    };
    Bundle {
        payment_id: PAYMENT,
        checkpoint: checkpoint.sign(&[signer]).unwrap(),
        last_entry: statement.sign(&[signer]).unwrap(),
        entries: own.into_iter().map(entry).collect(),
        disclosures: Vec::new(),
    }
}

/// Entries a second when a whole log is checked: each decoded, chained and hashed into the tree.
fn speed(entries: u64) {
    let leaves: Vec<_> = {
        let mut last = None;
        let encode = |seq| {
            let bytes = story(PAYMENT, seq, last).encode().unwrap().into_bytes();
            last = Some(leaf_hash(&bytes));
            bytes
        };
        (1..=STORY).map(encode).collect()
    };
    let bytes: usize = leaves.iter().map(Vec::len).sum::<usize>() / leaves.len();
    let (begun, mut range, mut checked) = (Instant::now(), CompactRange::new(), 0);
    while checked < entries {
        let mut chain = ChainCheck::new();
        for leaf in &leaves {
            chain.push(leaf).unwrap();
            range.push(leaf_hash(leaf));
            checked += 1;
        }
    }
    let rate = checked as f64 / begun.elapsed().as_secs_f64();
    println!(
        "\n{checked} entries of {bytes} bytes checked on one core: {rate:.0} entries a second."
    );
    assert_eq!(range.size(), checked);
}
