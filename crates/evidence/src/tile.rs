//! Tiles and entry bundles: how a tree and its entries are stored and served (C2SP tlog-tiles).
//!
//! A tile holds up to 256 hashes of one level of the tree: tile level `l` those of tree level `8 l`.
//! The levels between are computed. Only the last tile of a level may be partial; it grows on the
//! right until it is full, and then never changes.

mod bundle;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    hash::Hash,
    tree::{CompactRange, NodeId, node_hash},
};

pub use bundle::{BundleError, Entries, write_entry};

/// Hashes of a full tile, and entries of a full entry bundle.
pub const TILE_WIDTH: u16 = 256;

/// Levels of the tree that one level of tiles stands for.
pub const TILE_HEIGHT: u8 = 8;

/// Bytes of a hash in a tile.
const HASH_BYTES: usize = 32;

/// A tile's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// Level of the tile; its hashes are those of tree level `8 * level`.
    pub level: u8,
    /// Place within the level, from 0.
    pub index: u64,
}

impl TileId {
    /// The tile from whose hashes a node over a full subtree is had.
    pub const fn holding(node: NodeId) -> Self {
        let above = node.level % TILE_HEIGHT;
        Self {
            level: node.level / TILE_HEIGHT,
            index: node.index >> (TILE_HEIGHT - above),
        }
    }

    /// Hashes that the tile has in a tree of `size` leaves: 0 where it does not exist, up to 256.
    pub fn width_at(self, size: u64) -> u16 {
        let hashes = size
            .checked_shr(u32::from(self.level) * u32::from(TILE_HEIGHT))
            .unwrap_or(0);
        let before = self.index.saturating_mul(u64::from(TILE_WIDTH));
        let width = hashes.saturating_sub(before).min(u64::from(TILE_WIDTH));
        u16::try_from(width).unwrap_or(TILE_WIDTH)
    }

    /// The path of the tile under a log's URL: `tile/<level>/<index>`, with `.p/<width>` where it is
    /// partial; the index in groups of three digits, all but the last with an `x`.
    pub fn path(self, width: u16) -> String {
        format!("tile/{}/{}", self.level, path_end(self.index, width))
    }
}

/// The path of the entry bundle number `index`, which holds `width` entries.
pub fn bundle_path(index: u64, width: u16) -> String {
    format!("tile/entries/{}", path_end(index, width))
}

fn path_end(index: u64, width: u16) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < TILE_WIDTH {
        path + ".p/" + &width.to_string()
    } else {
        path
    }
}

/// The tiles of all levels that are new or wider in a tree of `new_size` leaves than in one of
/// `old_size`, with their new width; level by level, from left to right.
pub fn changed(old_size: u64, new_size: u64) -> impl Iterator<Item = (TileId, u16)> {
    let width = u64::from(TILE_WIDTH);
    (0..=u8::MAX)
        .map(move |level| {
            let shift = u32::from(level) * u32::from(TILE_HEIGHT);
            let hashes = |size: u64| size.checked_shr(shift).unwrap_or(0);
            (level, hashes(old_size), hashes(new_size))
        })
        .take_while(|(_, _, new)| *new > 0)
        .filter(|(_, old, new)| old < new)
        .flat_map(move |(level, old, new)| {
            (old / width..new.div_ceil(width)).map(move |index| TileId { level, index })
        })
        .map(move |id| (id, id.width_at(new_size)))
}

/// The tiles from which these nodes are had, each once.
pub fn holding(nodes: impl IntoIterator<Item = NodeId>) -> BTreeSet<TileId> {
    nodes.into_iter().map(TileId::holding).collect()
}

/// Bytes that are no tile, or hashes that do not fit into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A tile is 1 to 256 hashes of 32 bytes.
    #[error("a tile is 1 to 256 hashes of 32 bytes, not {0} bytes")]
    WrongLength(usize),
    /// The node lies beyond what the tiles at hand hold.
    #[error("node {} of level {} is in no tile at hand", .0.index, .0.level)]
    Missing(NodeId),
}

/// The hashes of one tile: 1 to 256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile(Vec<Hash>);

impl Tile {
    /// Reads a stored tile.
    pub fn decode(bytes: &[u8]) -> Result<Self, TileError> {
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() || hashes.is_empty() || hashes.len() > usize::from(TILE_WIDTH) {
            return Err(TileError::WrongLength(bytes.len()));
        }
        Ok(Self(hashes.iter().copied().map(Hash::from_bytes).collect()))
    }

    /// The bytes to store: the hashes, one after the other.
    pub fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }

    /// The hashes.
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// The tile as it was when it was narrower. `None` if it never was of that width.
    pub fn narrowed(&self, width: u16) -> Option<Self> {
        let hashes = self.0.get(..usize::from(width))?;
        (!hashes.is_empty()).then(|| Self(hashes.to_vec()))
    }

    /// The root of the full subtree number `place` of height `height` within the tile.
    fn node(&self, height: u8, place: usize) -> Option<Hash> {
        let span = 1_usize << height;
        let begin = place.checked_mul(span)?;
        let hashes = self.0.get(begin..begin.checked_add(span)?)?;
        subtree_root(hashes)
    }
}

/// The root over a power of two of hashes.
fn subtree_root(hashes: &[Hash]) -> Option<Hash> {
    if let [only] = hashes {
        return Some(*only);
    }
    let (left, right) = hashes.split_at_checked(hashes.len() / 2)?;
    Some(node_hash(&subtree_root(left)?, &subtree_root(right)?))
}

/// Some tiles of one tree: those that a task needs, to read nodes from and to append to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TileSet(BTreeMap<TileId, Tile>);

impl TileSet {
    /// None.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Puts a tile in, instead of one that was there.
    pub fn insert(&mut self, id: TileId, tile: Tile) {
        self.0.insert(id, tile);
    }

    /// The tile at a place.
    pub fn get(&self, id: TileId) -> Option<&Tile> {
        self.0.get(&id)
    }

    /// All tiles, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (TileId, &Tile)> {
        self.0.iter().map(|(id, tile)| (*id, tile))
    }

    /// The hash of a node over a full subtree.
    ///
    /// # Errors
    /// `Missing` where its tile is not in the set, or narrower.
    pub fn node(&self, id: NodeId) -> Result<Hash, TileError> {
        let height = id.level % TILE_HEIGHT;
        // The node's place among those of its level that the tile stands for.
        let places = 1_u64 << (TILE_HEIGHT - height);
        let place = usize::try_from(id.index % places).ok();
        self.get(TileId::holding(id))
            .zip(place)
            .and_then(|(tile, place)| tile.node(height, place))
            .ok_or(TileError::Missing(id))
    }

    /// Appends a leaf to a tree whose right edge is `range` and whose last tile of each level is in
    /// the set (a full one need not be). [`changed`] says which tiles are to be stored afterwards.
    ///
    /// # Errors
    /// `Missing` where a partial last tile is not in the set; neither is changed then.
    pub fn append(&mut self, range: &mut CompactRange, leaf: Hash) -> Result<(), TileError> {
        let size = range.size();
        // The leaf is its level's next hash, and closes a tile for every eight 1 bits at the end.
        for level in (0..=size.trailing_ones()).step_by(usize::from(TILE_HEIGHT)) {
            let id = NodeId {
                level: u8::try_from(level).unwrap_or(u8::MAX),
                index: size >> level,
            };
            let place = usize::try_from(id.index % u64::from(TILE_WIDTH)).unwrap_or(usize::MAX);
            let held = self.get(TileId::holding(id)).map_or(0, |t| t.0.len());
            if held != place {
                return Err(TileError::Missing(id));
            }
        }
        range.push_with(leaf, |id, hash| {
            if id.level.is_multiple_of(TILE_HEIGHT) {
                let tile = self.0.entry(TileId::holding(id));
                tile.or_insert_with(|| Tile(Vec::new())).0.push(*hash);
            }
        });
        Ok(())
    }
}
