//! Random tamperings with the tree, with what is signed about it, and with proofs (scenario 75): each is noticed and
//! named, and what was not tampered with is never reported.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeMap;

use chrono::DateTime;
use quittance_domain::verification::{
    CheckpointMac, CheckpointRow, HeadMac, HeadRow, Mismatch, SignedLast, TreeEnd, TreePage,
    TreeWalk, Trusted,
};
use quittance_evidence::note::{KeyName, SigningKey};
use quittance_evidence::tile::{self, TileId, TileSet};
use quittance_evidence::tree::{CompactRange, Path, verify_consistency, verify_inclusion};
use quittance_evidence::{Checkpoint, Hash};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Tamperings of a run; more by `QUITTANCE_TAMPERINGS`.
const TAMPERINGS: usize = 3_000;
/// Entries of a page.
const PAGE: usize = 300;
/// A size at which there are three levels of tiles.
const THREE_LEVELS: usize = 66_000;

fn key() -> SigningKey {
    SigningKey::from_seed(KeyName::new("log.test/quittance").unwrap(), &[1; 32])
}

/// A log as the database holds it.
#[derive(Clone)]
struct Log {
    leaves: Vec<Option<Hash>>,
    heads: Vec<HeadRow>,
    checkpoints: Vec<CheckpointRow>,
    tiles: BTreeMap<TileId, Vec<u8>>,
    signed: SignedLast,
}

fn any_hash(random: &mut StdRng) -> Hash {
    Hash::from_bytes(random.random())
}

fn log(size: usize, random: &mut StdRng) -> (Log, TileSet) {
    let (mut range, mut tiles) = (CompactRange::new(), TileSet::new());
    let (mut leaves, mut heads, mut checkpoints) = (Vec::new(), Vec::new(), Vec::new());
    let mut signed = SignedLast::Nothing;
    for index in 0..size {
        let leaf = any_hash(random);
        tiles.append(&mut range, leaf).unwrap();
        leaves.push(Some(leaf));
        let last = index + 1 == size;
        let size = i64::try_from(range.size()).unwrap();
        if last || random.random_ratio(1, 20) {
            heads.push(HeadRow {
                size,
                root: range.root().as_bytes().to_vec(),
                mac: HeadMac::Ours,
                previous: heads
                    .last()
                    .map_or(Some(0), |head: &HeadRow| Some(head.size)),
            });
            if last || random.random_ratio(1, 2) {
                checkpoints.push(checkpoint(range.size(), range.root()));
                let (size, root) = (range.size(), range.root());
                signed = SignedLast::Tree { size, root };
            }
        }
    }
    let stored = tiles.iter().map(|(id, tile)| (id, tile.encode())).collect();
    let log = Log {
        leaves,
        heads,
        checkpoints,
        tiles: stored,
        signed,
    };
    (log, tiles)
}

fn checkpoint(size: u64, root: Hash) -> CheckpointRow {
    let origin = key().name().clone();
    let stated = Checkpoint { origin, size, root };
    CheckpointRow {
        size: i64::try_from(size).unwrap(),
        root: root.as_bytes().to_vec(),
        note: stated.sign(&[&key()]).unwrap().to_string(),
        signed_at: DateTime::UNIX_EPOCH,
        mac: CheckpointMac::Ours,
        note_is_ours: true,
        previous: None,
    }
}

/// What verification reads and says.
fn verify(log: &Log) -> Vec<Mismatch> {
    let mut walk = TreeWalk::new(Trusted {
        keys: vec![key().verifier().clone()],
        signed: log.signed.clone(),
        witnesses: Vec::new(),
    });
    let newest = log.heads.iter().map(|row| row.size).max().unwrap_or(0);
    let mut found = Vec::new();
    for (number, leaves) in log.leaves.chunks(PAGE).enumerate() {
        let from = i64::try_from(number * PAGE).unwrap();
        let to = from + i64::try_from(leaves.len()).unwrap();
        let inside = |size: i64| (size > from || from == 0) && size <= to;
        let ids = tile::changed(from.unsigned_abs(), to.unsigned_abs());
        let page = TreePage {
            newest,
            heads: log
                .heads
                .iter()
                .filter(|it| inside(it.size))
                .cloned()
                .collect(),
            checkpoints: log
                .checkpoints
                .iter()
                .filter(|it| inside(it.size))
                .cloned()
                .collect(),
            tiles: ids
                .filter_map(|(id, _)| Some((id, log.tiles.get(&id)?.clone())))
                .collect(),
            ..TreePage::default()
        };
        // One that is gone has no row, or no hash.
        let leaves: Vec<_> = (from..).zip(leaves.iter().copied()).collect();
        walk.push(&leaves, &page, &mut found);
    }
    let size = i64::try_from(log.leaves.len()).unwrap();
    let end = TreeEnd {
        newest,
        heads: log
            .heads
            .iter()
            .map(|it| it.size)
            .filter(|it| *it > size)
            .collect(),
        checkpoints: log
            .checkpoints
            .iter()
            .map(|it| it.size)
            .filter(|it| *it > newest)
            .collect(),
        cosignatures: Vec::new(),
        tiles: log
            .tiles
            .keys()
            .copied()
            .filter(|id| id.width_at(newest.unsigned_abs()) == 0)
            .collect(),
    };
    walk.finish(&end, &mut found);
    found
}

/// Does something to the log. Gives what was done, what must be reported, and at which position where it has one.
fn tamper(log: &mut Log, random: &mut StdRng) -> Option<(&'static str, &'static str, Option<i64>)> {
    let at = random.random_range(0..log.leaves.len());
    let position = i64::try_from(at).unwrap();
    let head = random.random_range(0..log.heads.len());
    let of_checkpoint = random.random_range(0..log.checkpoints.len());
    let other = any_hash(random).as_bytes().to_vec();
    let (id, _) = log
        .tiles
        .iter()
        .nth(random.random_range(0..log.tiles.len()))
        .unwrap();
    let id = *id;
    let below = i64::try_from(id.index << (8 * (u32::from(id.level) + 1))).unwrap();
    Some(match random.random_range(0..17) {
        0 => {
            log.leaves[at] = Some(any_hash(random));
            ("an entry changed", "TILE_DIFFERS", None)
        }
        1 if at > 0 => {
            log.leaves.swap(at - 1, at);
            ("two entries swapped", "TILE_DIFFERS", None)
        }
        2 => {
            log.leaves.truncate(at.max(1));
            if log.leaves.len() > at {
                return None;
            }
            (
                "the tail of the entries cut off",
                "TREE_HEAD_BEYOND_LOG",
                None,
            )
        }
        3 => {
            log.heads[head].root = other;
            (
                "a head",
                "TREE_HEAD_DIFFERS",
                Some(log.heads[head].size - 1),
            )
        }
        4 => {
            log.heads.pop();
            ("the newest head deleted", "LOG_SET_BACK", None)
        }
        5 => {
            let tile = log.tiles.get_mut(&id).unwrap();
            let place = random.random_range(0..tile.len() / 32);
            tile[place * 32..place * 32 + 32].copy_from_slice(&other);
            let position = below + i64::try_from(place << (8 * u32::from(id.level))).unwrap();
            ("a hash of a tile", "TILE_DIFFERS", Some(position))
        }
        6 => {
            log.tiles.remove(&id);
            ("a tile deleted", "TILE_MISSING", Some(below))
        }
        7 => {
            let tile = log.tiles.get_mut(&id).unwrap();
            let left = random.random_range(0..tile.len());
            tile.truncate(left);
            ("a tile cut off", "TILE_WIDTH_DIFFERS", Some(below))
        }
        8 => {
            let index = id.index + 1_000;
            log.tiles.insert(TileId { index, ..id }, other);
            ("a tile beyond the tree", "TILE_BEYOND_TREE", None)
        }
        9 => {
            let row = &mut log.checkpoints[of_checkpoint];
            row.root = other;
            (
                "a checkpoint's column",
                "CHECKPOINT_COLUMN_DIFFERS",
                Some(row.size - 1),
            )
        }
        10 => {
            let size = log.checkpoints[of_checkpoint].size;
            log.checkpoints[of_checkpoint] = checkpoint(size.unsigned_abs(), any_hash(random));
            (
                "a checkpoint of another tree, signed",
                "CHECKPOINT_DIFFERS",
                Some(size - 1),
            )
        }
        11 => {
            let row = &mut log.checkpoints[of_checkpoint];
            let text = row.note.clone();
            row.note = text.replacen(&row.size.to_string(), &(row.size + 1).to_string(), 1);
            if row.note == text {
                return None;
            }
            (
                "what a checkpoint states",
                "CHECKPOINT_NOT_SIGNED",
                Some(row.size - 1),
            )
        }
        12 if log.leaves.len() > 1 => {
            log.leaves[at] = None;
            log.tiles.retain(|id, _| id.level > 0);
            (
                "an entry gone, and the tiles",
                "TREE_INCOMPLETE",
                Some(position),
            )
        }
        13 => {
            let row = &mut log.heads[head];
            row.mac = HeadMac::Wrong;
            ("a head's MAC", "TREE_HEAD_MAC_WRONG", Some(row.size - 1))
        }
        14 => {
            let row = &mut log.heads[head];
            row.mac = HeadMac::KeyUnknown("stolen".to_owned());
            (
                "the key of a head's MAC",
                "TREE_HEAD_KEY_UNKNOWN",
                Some(row.size - 1),
            )
        }
        15 => {
            let newest = log.checkpoints.pop()?;
            (
                "the newest checkpoint deleted",
                "CHECKPOINT_MISSING",
                Some(newest.size - 1),
            )
        }
        16 => {
            // What a key that was replaced may have signed, if there were any later ones.
            let newest = log.checkpoints.last()?.size;
            let by_key = format!("\u{2014} {} ", key().name());
            for row in &mut log.checkpoints {
                row.note = row.note.replace(&by_key, &format!("{by_key}AAAA"));
            }
            (
                "all checkpoints replaced by those of a stranger",
                "CHECKPOINT_MISSING",
                Some(newest - 1),
            )
        }
        _ => return None,
    })
}

fn seeded() -> StdRng {
    let seed = std::env::var("QUITTANCE_TAMPER_SEED")
        .map_or_else(|_| rand::random(), |text| text.parse::<u64>().unwrap());
    println!("QUITTANCE_TAMPER_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn assert_detected(log: &Log, random: &mut StdRng) -> Option<&'static str> {
    let mut changed = log.clone();
    let (kind, code, position) = tamper(&mut changed, random)?;
    let found = verify(&changed);
    let named = found.iter().any(|mismatch| {
        let place = mismatch.position.and_then(|it| i64::try_from(it).ok());
        mismatch.fault.code() == code && (position.is_none() || place == position)
    });
    assert!(
        named,
        "{kind} at {position:?} of {}: {found:?}",
        log.leaves.len()
    );
    Some(kind)
}

#[test]
fn s75_thousands_of_random_tamperings_with_the_tree_are_each_detected() {
    let mut random = seeded();
    let count = std::env::var("QUITTANCE_TAMPERINGS")
        .map_or(TAMPERINGS, |text| text.parse::<usize>().unwrap());
    let mut done = BTreeMap::<&str, usize>::new();
    while done.values().sum::<usize>() < count {
        let size = random.random_range(1..1_200);
        let (log, _) = log(size, &mut random);
        assert_eq!(verify(&log), [], "untampered, {size} entries");
        for _ in 0..40 {
            if let Some(kind) = assert_detected(&log, &mut random) {
                *done.entry(kind).or_default() += 1;
            }
        }
    }
    for (kind, count) in &done {
        println!("{count:>6} {kind}: all detected");
    }
    assert_eq!(done.len(), 17, "{done:?}");
}

#[test]
fn s75_a_hash_of_every_level_of_tiles_is_compared() {
    let mut random = seeded();
    let (log, _) = log(THREE_LEVELS, &mut random);
    assert_eq!(verify(&log), []);
    for (level, index, place) in [(0, 100, 7), (1, 0, 200), (1, 1, 0), (2, 0, 0)] {
        let mut changed = log.clone();
        let id = TileId { level, index };
        changed.tiles.get_mut(&id).unwrap()[place * 32] ^= 1;
        let found = verify(&changed);
        assert_eq!(found.len(), 1, "{id:?}: {found:?}");
        assert_eq!(found[0].fault.code(), "TILE_DIFFERS");
        let first = (index * 256 + u64::try_from(place).unwrap()) << (8 * u32::from(level));
        assert_eq!(found[0].position, Some(first));
    }
}

/// An entry that is gone is named by the positions; here its tile stands in, so that nothing else is reported.
#[test]
fn where_an_entry_is_gone_what_follows_is_still_compared() {
    let mut random = seeded();
    let (mut log, _) = log(900, &mut random);
    log.leaves[410] = None;
    assert_eq!(verify(&log), []);
    log.heads[0].root = vec![0; 32];
    log.heads.last_mut().unwrap().root = vec![0; 32];
    let codes: Vec<_> = verify(&log).iter().map(|it| it.fault.code()).collect();
    assert_eq!(codes, ["TREE_HEAD_DIFFERS"; 2]);
}

#[test]
fn s75_a_forged_proof_is_refused_whatever_is_changed() {
    let mut random = seeded();
    for _ in 0..300 {
        let size = random.random_range(2..600_usize);
        let (log, tiles) = log(size, &mut random);
        let size = u64::try_from(size).unwrap();
        let index = random.random_range(0..size);
        let leaf = log.leaves[usize::try_from(index).unwrap()].unwrap();
        let root = root(&log, size);
        let path = Path::inclusion(index, size).unwrap();
        let proof = path.prove(|node| tiles.node(node)).unwrap();
        verify_inclusion(&leaf, index, size, &proof, &root).unwrap();
        let other = any_hash(&mut random);
        let mut forged = proof.clone();
        let place = random.random_range(0..forged.len());
        forged[place] = other;
        assert!(verify_inclusion(&leaf, index, size, &forged, &root).is_err());
        assert!(verify_inclusion(&other, index, size, &proof, &root).is_err());
        assert!(verify_inclusion(&leaf, (index + 1) % size, size, &proof, &root).is_err());
        assert!(verify_inclusion(&leaf, index, size, &proof[1..], &root).is_err());
        assert!(verify_inclusion(&leaf, index, size, &proof, &other).is_err());

        let old = random.random_range(1..size);
        let path = Path::consistency(old, size).unwrap();
        let proof = path.prove(|node| tiles.node(node)).unwrap();
        let old_root = self::root(&log, old);
        verify_consistency(old, &old_root, size, &root, &proof).unwrap();
        assert!(verify_consistency(old, &other, size, &root, &proof).is_err());
        assert!(verify_consistency(old, &old_root, size, &other, &proof).is_err());
        let mut forged = proof.clone();
        let place = random.random_range(0..forged.len());
        forged[place] = other;
        assert!(verify_consistency(old, &old_root, size, &root, &forged).is_err());
    }
}

fn root(log: &Log, size: u64) -> Hash {
    let mut range = CompactRange::new();
    for leaf in log.leaves.iter().take(usize::try_from(size).unwrap()) {
        range.push(leaf.unwrap());
    }
    range.root()
}
