//! The tree, its tiles and its proofs over generated sizes, against a second implementation and
//! against every small forgery.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a panic is a failed test"
)]

use std::{collections::BTreeMap, sync::LazyLock};

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use quittance_evidence::{
    Hash, leaf_hash,
    tile::{
        BundleError, Entries, TILE_WIDTH, Tile, TileError, TileId, TileSet, bundle_path, changed,
        holding, write_entry,
    },
    tree::{
        CompactRange, MAX_PROOF_HASHES, MAX_TREE_SIZE, NodeId, Path, ProofError, TreeError,
        empty_root, frontier, node_hash, verify_consistency, verify_growth, verify_inclusion,
    },
};
use sha2::Sha256;

/// Leaves of [`LOG`]: three levels of tiles, and a size with many 1 bits.
const LEAVES: u64 = 66_303;

fn leaf(index: u64) -> Hash {
    leaf_hash(&index.to_be_bytes())
}

/// A log with its tiles, and its root at every size.
static LOG: LazyLock<(TileSet, Vec<Hash>)> = LazyLock::new(|| {
    let (mut range, mut tiles) = (CompactRange::new(), TileSet::new());
    let mut roots = vec![range.root()];
    for index in 0..LEAVES {
        tiles.append(&mut range, leaf(index)).unwrap();
        roots.push(range.root());
    }
    (tiles, roots)
});

/// The tiles that a log of `size` leaves had, of those that these nodes need.
fn tiles_at(size: u64, nodes: impl Iterator<Item = NodeId>) -> TileSet {
    let mut tiles = TileSet::new();
    for id in holding(nodes) {
        let tile = LOG.0.get(id).unwrap();
        tiles.insert(id, tile.narrowed(id.width_at(size)).unwrap());
    }
    tiles
}

fn inclusion(index: u64, size: u64) -> Vec<Hash> {
    let path = Path::inclusion(index, size).unwrap();
    let tiles = tiles_at(size, path.nodes());
    path.prove(|id| tiles.node(id)).unwrap()
}

fn consistency(old: u64, new: u64) -> Vec<Hash> {
    let path = Path::consistency(old, new).unwrap();
    let tiles = tiles_at(new, path.nodes());
    path.prove(|id| tiles.node(id)).unwrap()
}

/// A size, near powers of two as often as anywhere.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        1..=LEAVES,
        1..=600_u64,
        (0_u32..17, 0_u64..3).prop_map(|(bits, off)| ((1 << bits) + off).saturating_sub(1).max(1)),
    ]
}

fn size_and_leaf() -> impl Strategy<Value = (u64, u64)> {
    size().prop_flat_map(|size| (Just(size), prop_oneof![0..size, Just(size - 1), Just(0)]))
}

fn two_sizes() -> impl Strategy<Value = (u64, u64)> {
    (size(), size()).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

/// Every way to spoil a proof a little: each bit of each hash, and each hash lost, doubled or swapped.
fn spoiled(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = vec![[proof, &[Hash::of(b"more")]].concat()];
    for at in 0..proof.len() {
        for bit in 0..256 {
            let mut bytes = *proof[at].as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut changed = proof.to_vec();
            changed[at] = Hash::from_bytes(bytes);
            all.push(changed);
        }
        let mut lost = proof.to_vec();
        lost.remove(at);
        all.push(lost);
        let mut doubled = proof.to_vec();
        doubled.insert(at, proof[at]);
        all.push(doubled);
        if at > 0 {
            let mut swapped = proof.to_vec();
            swapped.swap(at - 1, at);
            all.push(swapped);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_leaf_is_proved_and_nothing_else_is((size, index) in size_and_leaf()) {
        let (root, proof) = (LOG.1[size as usize], inclusion(index, size));
        prop_assert!(proof.len() <= MAX_PROOF_HASHES);
        prop_assert_eq!(verify_inclusion(&leaf(index), index, size, &proof, &root), Ok(()));
        for bad in spoiled(&proof) {
            prop_assert!(verify_inclusion(&leaf(index), index, size, &bad, &root).is_err());
        }
        prop_assert!(verify_inclusion(&leaf(index + 1), index, size, &proof, &root).is_err());
        for other in [index ^ 1, index + 1, index.wrapping_sub(1), size, u64::MAX] {
            prop_assert!(verify_inclusion(&leaf(index), other, size, &proof, &root).is_err());
        }
        prop_assert!(verify_inclusion(&leaf(index), index, size, &proof, &leaf(index + 1)).is_err());
    }

    #[test]
    fn every_growth_is_proved_and_nothing_else_is((old, new) in two_sizes()) {
        let (from, to, proof) = (LOG.1[old as usize], LOG.1[new as usize], consistency(old, new));
        prop_assert!(proof.len() <= MAX_PROOF_HASHES);
        prop_assert_eq!(verify_consistency(old, &from, new, &to, &proof), Ok(()));
        prop_assert_eq!(verify_growth(old, &from, new, &to, &proof), Ok(()));
        for bad in spoiled(&proof) {
            prop_assert!(verify_consistency(old, &from, new, &to, &bad).is_err());
        }
        let other = leaf(LEAVES + 1);
        prop_assert!(verify_consistency(old, &other, new, &to, &proof).is_err());
        prop_assert!(verify_consistency(old, &from, new, &other, &proof).is_err());
        if old < new {
            prop_assert!(verify_consistency(new, &to, old, &from, &proof).is_err());
            prop_assert!(verify_consistency(old, &to, new, &from, &proof).is_err());
        }
    }

    #[test]
    fn a_second_implementation_makes_the_same_roots_and_proofs(
        size in 1_u64..400, index in any::<u64>(), old in any::<u64>(),
    ) {
        let (index, old) = (index % size, 1 + old % size);
        let mut theirs = MemoryBackedTree::<Sha256, [u8; 8]>::new();
        (0..size).for_each(|index| theirs.push(index.to_be_bytes()));
        let root = theirs.root();
        prop_assert_eq!(root.as_bytes().as_slice(), LOG.1[size as usize].as_ref());
        let ours = inclusion(index, size).concat_bytes();
        let proof = theirs.prove_inclusion(index as usize);
        prop_assert_eq!(proof.as_bytes(), ours);
        if old < size {
            let ours = consistency(old, size).concat_bytes();
            let proof = theirs.prove_consistency((size - old) as usize);
            prop_assert_eq!(proof.as_bytes(), ours);
        }
    }

    #[test]
    fn a_tree_is_taken_up_again_from_its_tiles(size in size(), more in 1_u64..600) {
        let mut tiles = tiles_at(size, frontier(size));
        let mut range = CompactRange::load(size, |id| tiles.node(id).map_err(Failure::from)).unwrap();
        prop_assert_eq!(range.root(), LOG.1[size as usize]);
        let again = CompactRange::from_edge(size, range.edge().to_vec());
        prop_assert_eq!(again.as_ref(), Ok(&range));
        let end = (size + more).min(LEAVES);
        for index in size..end {
            tiles.append(&mut range, leaf(index)).unwrap();
        }
        prop_assert_eq!(range.root(), LOG.1[end as usize]);
        // What is to be stored is what is new or wider, and as wide as the tree has it.
        for (id, width) in changed(size, end) {
            prop_assert!(width > id.width_at(size));
            let tile = tiles.get(id).unwrap();
            prop_assert_eq!(tile.hashes().len(), usize::from(width));
            prop_assert_eq!(Some(tile.clone()), LOG.0.get(id).unwrap().narrowed(width));
            prop_assert_eq!(Tile::decode(&tile.encode()), Ok(tile.clone()));
        }
        let listed: BTreeMap<_, _> = changed(size, end).collect();
        for (id, tile) in LOG.0.iter().filter(|(id, _)| id.width_at(end) > id.width_at(size)) {
            prop_assert!(listed.contains_key(&id), "{id:?} of {}", tile.hashes().len());
        }
    }

    #[test]
    fn bundles_read_back_and_end_where_they_end(
        entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..256),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bundle = Vec::new();
        for entry in &entries {
            write_entry(&mut bundle, entry).unwrap();
        }
        let read: Result<Vec<_>, _> = Entries::new(&bundle).collect();
        prop_assert_eq!(read.unwrap(), entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if !bundle.is_empty() {
            // A bundle cut anywhere but between entries is an error, and never an entry that was not there.
            let read: Vec<_> = Entries::new(&bundle[..cut.index(bundle.len())]).collect();
            for (found, entry) in read.iter().zip(&entries) {
                prop_assert!(*found == Ok(entry) || matches!(found, Err(BundleError::Cut(_))));
            }
        }
    }
}

/// The hashes of a proof, one after the other, as ct-merkle has them.
trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for Vec<Hash> {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{self:?}")]
enum Failure {
    Tile(#[from] TileError),
    Tree(#[from] TreeError),
}

#[test]
fn the_roots_of_rfc_6962s_reference_implementation() {
    // The first two of the known roots over the leaves "", 0x00 … of Certificate Transparency's tests.
    let mut range = CompactRange::new();
    assert_eq!(range.root(), empty_root());
    assert_eq!(
        empty_root().to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    range.push(leaf_hash(b""));
    range.push(leaf_hash(&[0]));
    assert_eq!(
        range.root().to_string(),
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    );
    assert_eq!(range.root(), node_hash(&leaf_hash(b""), &leaf_hash(&[0])));
}

#[test]
fn what_is_not_in_a_tree_has_no_proof() {
    let no_leaf = |index, size| Err(TreeError::NoSuchLeaf { index, size });
    assert_eq!(Path::inclusion(0, 0), no_leaf(0, 0));
    assert_eq!(Path::inclusion(5, 5), no_leaf(5, 5));
    let huge = MAX_TREE_SIZE + 1;
    assert_eq!(Path::inclusion(0, huge), Err(TreeError::TooLarge(huge)));
    assert_eq!(Path::consistency(1, huge), Err(TreeError::TooLarge(huge)));
    for (old_size, new_size) in [(0, 0), (0, 7), (8, 7)] {
        let error = TreeError::NoSuchGrowth { old_size, new_size };
        assert_eq!(Path::consistency(old_size, new_size), Err(error));
    }
    assert!(Path::consistency(7, 7).unwrap().nodes().next().is_none());
}

#[test]
fn the_largest_tree_still_has_paths_of_bounded_length() {
    for (index, size) in [(0, MAX_TREE_SIZE), (MAX_TREE_SIZE - 2, MAX_TREE_SIZE - 1)] {
        let path = Path::inclusion(index, size).unwrap();
        let proof = path.prove(|_| Ok::<_, ()>(empty_root())).unwrap();
        assert!(proof.len() <= MAX_PROOF_HASHES);
    }
    let path = Path::consistency(MAX_TREE_SIZE / 2 - 1, MAX_TREE_SIZE).unwrap();
    let proof = path.prove(|_| Ok::<_, ()>(empty_root())).unwrap();
    assert_eq!(proof.len(), MAX_PROOF_HASHES);
}

#[test]
fn an_edge_of_another_length_is_refused() {
    let (expected, given) = (2, 3);
    assert_eq!(
        CompactRange::from_edge(6, vec![empty_root(); 3]),
        Err(TreeError::WrongEdge {
            size: 6,
            expected,
            given
        })
    );
    assert!(CompactRange::from_edge(MAX_TREE_SIZE + 1, vec![empty_root(); 2]).is_err());
}

#[test]
fn growth_from_nothing_starts_from_the_root_of_nothing() {
    let root = LOG.1[5];
    assert_eq!(verify_growth(0, &empty_root(), 5, &root, &[]), Ok(()));
    assert_eq!(
        verify_growth(0, &root, 5, &root, &[]),
        Err(ProofError::WrongOldRoot)
    );
    assert_eq!(
        verify_growth(0, &empty_root(), 5, &root, &[root]),
        Err(ProofError::WrongLength)
    );
    assert_eq!(
        verify_growth(0, &empty_root(), 0, &root, &[]),
        Err(ProofError::WrongRoot)
    );
}

#[test]
fn tiles_are_named_as_the_specification_names_them() {
    let id = TileId {
        level: 3,
        index: 1_234_067,
    };
    assert_eq!(id.path(TILE_WIDTH), "tile/3/x001/x234/067");
    assert_eq!(TileId { level: 0, index: 5 }.path(7), "tile/0/005.p/7");
    assert_eq!(bundle_path(1_000, 256), "tile/entries/x001/000");
    // The example of C2SP tlog-tiles: a tree of 70,000 leaves.
    let tiles: Vec<_> = changed(0, 70_000).collect();
    assert_eq!(tiles.len(), 274 + 2 + 1);
    assert_eq!(
        tiles[273],
        (
            TileId {
                level: 0,
                index: 273
            },
            112
        )
    );
    assert_eq!(tiles[275], (TileId { level: 1, index: 1 }, 17));
    assert_eq!(tiles[276], (TileId { level: 2, index: 0 }, 1));
    assert!(changed(70_000, 70_000).next().is_none());
}

#[test]
fn no_tile_is_read_that_is_not_one_and_none_is_appended_to_blindly() {
    for bytes in [0, 31, 33, 257 * 32] {
        let refused = Tile::decode(&vec![0; bytes]);
        assert_eq!(refused, Err(TileError::WrongLength(bytes)));
    }
    let mut range = CompactRange::from_edge(1, vec![leaf(0)]).unwrap();
    let before = range.clone();
    let node = NodeId { level: 0, index: 1 };
    assert_eq!(
        TileSet::new().append(&mut range, leaf(1)),
        Err(TileError::Missing(node))
    );
    assert_eq!(range, before);
}

#[test]
fn a_bundle_of_more_entries_than_a_tile_is_refused() {
    let mut bundle = Vec::new();
    for _ in 0..=TILE_WIDTH {
        write_entry(&mut bundle, b"x").unwrap();
    }
    let read: Vec<_> = Entries::new(&bundle).collect();
    assert_eq!(read.len(), 257);
    assert_eq!(read[256], Err(BundleError::TooMany));
    assert_eq!(
        write_entry(&mut bundle, &vec![0; 65_536]),
        Err(BundleError::TooLong)
    );
}
