//! Whether the tree holds entries where they are said to be, many of them at once.
//!
//! The proof of a tile's first leaf is made from all the other hashes of that tile, up to the tree's end. So one proof that
//! leads to the root vouches for the whole tile, and each entry of it takes a comparison.

use std::collections::BTreeMap;

use quittance_domain::ports::StoreError;
use quittance_evidence::Hash;
use quittance_evidence::tile::{TILE_WIDTH, TileSet};
use quittance_evidence::tree::{NodeId, Path, verify_inclusion};
use uuid::Uuid;

use super::TreeHead;
use super::reads::{TreeReadError, prove};
use crate::store::PgStore;

/// Most tiles of the lowest level that are read at once (8 KiB each), those of the first positions. They hold 32,768 entries.
const MAX_TILES: usize = 128;

/// That an entry, by its leaf hash, is at a place of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) entry: Uuid,
    pub(super) leaf: Hash,
    pub(super) position: u64,
}

/// Claims that were judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// These are proved.
    pub(super) there: Vec<Claim>,
    /// These are not: the tree, as it is stored, does not show them.
    pub(super) elsewhere: Vec<Claim>,
}

impl Held {
    fn push(&mut self, claim: Claim, proved: bool) {
        let of = if proved {
            &mut self.there
        } else {
            &mut self.elsewhere
        };
        of.push(claim);
    }
}

/// Claims by the tile that they are about.
fn by_tile(claims: Vec<Claim>) -> BTreeMap<u64, Vec<Claim>> {
    let mut tiles: BTreeMap<u64, Vec<Claim>> = BTreeMap::new();
    for claim in claims {
        let tile = claim.position / u64::from(TILE_WIDTH);
        tiles.entry(tile).or_default().push(claim);
    }
    tiles
}

/// The first leaf of a tile of the lowest level.
fn first_leaf(tile: u64) -> NodeId {
    leaf(tile * u64::from(TILE_WIDTH))
}

const fn leaf(index: u64) -> NodeId {
    NodeId { level: 0, index }
}

/// Whether a tile of the lowest level is the tree's, as far as that reaches.
fn is_of_tree(tiles: &TileSet, tile: u64, head: TreeHead) -> bool {
    let first = first_leaf(tile);
    let proof = Path::inclusion(first.index, head.size).map(|path| prove(tiles, &path));
    let (Ok(Ok(proof)), Ok(hash)) = (proof, tiles.node(first)) else {
        return false;
    };
    verify_inclusion(&hash, first.index, head.size, &proof, &head.root).is_ok()
}

impl PgStore {
    /// Judges claims about places in the tree of `head`, which this service made. Where there are too many for one look, the
    /// last ones are left out.
    pub(super) async fn held(
        &self,
        claims: Vec<Claim>,
        head: TreeHead,
    ) -> Result<Held, StoreError> {
        let mut judged = Held::default();
        if claims.is_empty() {
            return Ok(judged);
        }
        let mut looked_at = by_tile(claims);
        while looked_at.len() > MAX_TILES {
            looked_at.pop_last();
        }
        let firsts = looked_at.keys().copied().map(first_leaf);
        let paths = firsts
            .clone()
            .map(|it| Path::inclusion(it.index, head.size));
        let paths: Vec<Path> = paths.filter_map(Result::ok).collect();
        let nodes = paths.iter().flat_map(Path::nodes).chain(firsts);
        let tiles = match self.tiles_holding(nodes).await {
            Ok(tiles) => tiles,
            Err(TreeReadError::Store(error)) => return Err(error),
            // With a tile that is none, nothing is proved.
            Err(TreeReadError::Damaged(_) | TreeReadError::OutOfRange(_)) => TileSet::new(),
        };
        for (tile, claims) in looked_at {
            let proved = is_of_tree(&tiles, tile, head);
            for claim in claims {
                let stored = tiles.node(leaf(claim.position));
                judged.push(claim, proved && stored == Ok(claim.leaf));
            }
            // A proof takes a tenth of a millisecond.
            tokio::task::yield_now().await;
        }
        Ok(judged)
    }
}

#[cfg(test)]
mod tests {
    use quittance_evidence::tile::{Tile, TileId};
    use quittance_evidence::tree::CompactRange;

    use super::*;

    fn hash(number: u64) -> Hash {
        Hash::of(&number.to_be_bytes())
    }

    fn tree(size: u64) -> (TileSet, TreeHead) {
        let (mut tiles, mut range) = (TileSet::new(), CompactRange::new());
        for number in 0..size {
            tiles.append(&mut range, hash(number)).unwrap();
        }
        let root = range.root();
        (tiles, TreeHead { size, root })
    }

    fn exchange(tiles: &mut TileSet, id: TileId, place: usize) {
        let mut hashes = tiles.get(id).unwrap().encode();
        hashes[32 * place] ^= 1;
        tiles.insert(id, Tile::decode(&hashes).unwrap());
    }

    #[test]
    fn one_proof_vouches_for_every_hash_of_a_tile_up_to_the_trees_end() {
        for size in [1, 2, 3, 255, 256, 257, 259, 700] {
            let (tiles, head) = tree(size);
            let width = u64::from(TILE_WIDTH);
            for tile in 0..size.div_ceil(width) {
                assert!(is_of_tree(&tiles, tile, head), "{tile} of {size}");
                let id = TileId {
                    level: 0,
                    index: tile,
                };
                for place in 0..tiles.get(id).unwrap().hashes().len() {
                    let mut changed = tiles.clone();
                    exchange(&mut changed, id, place);
                    assert!(!is_of_tree(&changed, tile, head), "{tile} of {size}");
                }
            }
            assert!(!is_of_tree(&tiles, size.div_ceil(width), head));
        }
    }

    #[test]
    fn a_tile_that_grew_since_is_still_the_trees() {
        let (_, head) = tree(300);
        let (grown, _) = tree(400);
        assert!(is_of_tree(&grown, 0, head) && is_of_tree(&grown, 1, head));
        let (_, other) = tree(301);
        let root = other.root;
        assert!(!is_of_tree(&grown, 1, TreeHead { size: 300, root }));
    }
}
