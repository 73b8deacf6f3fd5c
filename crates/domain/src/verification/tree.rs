//! The tree, rebuilt from the entries in the order of their positions, and compared with all that is stored and signed
//! about it.

mod checkpoints;

use std::collections::BTreeMap;

use quittance_evidence::Hash;
use quittance_evidence::note::{KeyName, VerifierKey};
use quittance_evidence::tile::{self, TILE_HEIGHT, TILE_WIDTH, TileId};
use quittance_evidence::tree::CompactRange;

use super::cosignatures::CosignatureWalk;
use super::heads::HeadWalk;
use super::links::{Gap, Links};
use super::mismatch::{Fault, Mismatch};
use super::stored_tree::{
    CheckpointRow, CosignatureRow, Linked, SignedLast, TreeEnd, TreePage, Trusted,
};
use super::tree_fault::TreeFault;

/// Bytes of a hash in a tile.
const HASH_BYTES: usize = 32;
/// A tile of which hashes differ: the first, and how many more.
struct Differing {
    place: u16,
    more: u16,
}

/// What a stored checkpoint states.
#[derive(Debug)]
struct Stated {
    size: i64,
    root: Vec<u8>,
    origin: KeyName,
}

/// Rebuilds the tree. Holds its right edge, whatever the log holds.
#[derive(Debug, Default)]
pub struct TreeWalk {
    trusted: Trusted,
    range: CompactRange,
    /// Whether a page was taken.
    begun: bool,
    /// Whether entries and tiles were both missing.
    lost: bool,
    heads: HeadWalk,
    cosignatures: CosignatureWalk,
    checkpoints_in_a_row: u32,
    odd_in_a_row: u32,
    /// Whether a checkpoint was seen that nobody but today's keys signed.
    only_known_keys: bool,
    /// The tile of each level that was last told to be missing, wider or narrower.
    told: BTreeMap<u8, u64>,
    newest_signed: Option<CheckpointRow>,
    /// The logs of those checkpoints of the last size that this service stored, each with the root: a log that has ended has
    /// another name than that which goes on.
    stated: Vec<Stated>,
    /// Entries of the largest checkpoint that is stored and signed by a key that is at hand, whatever it states.
    shown: u64,
    /// The checkpoints that this service stored.
    checkpoints: Links,
}

impl TreeWalk {
    /// Begins with the empty tree.
    pub fn new(trusted: Trusted) -> Self {
        Self {
            trusted,
            ..Self::default()
        }
    }

    /// How many entries the tree has so far.
    pub const fn size(&self) -> u64 {
        self.range.size()
    }

    /// The largest checkpoint that is of the tree and signed by a key that is at hand; none where no key is.
    pub const fn newest_signed(&self) -> Option<&CheckpointRow> {
        self.newest_signed.as_ref()
    }

    /// Takes a page of entries, each with its position, in order; those that are gone have no hash, or are left out.
    pub fn push(
        &mut self,
        leaves: &[(i64, Option<Hash>)],
        page: &TreePage,
        out: &mut Vec<Mismatch>,
    ) {
        let mut heads = page.heads.iter().peekable();
        let mut checkpoints = page.checkpoints.iter().peekable();
        let mut cosignatures = page.cosignatures.iter().peekable();
        let mut report = Report { out };
        let mut compare = |walk: &mut Self, report: &mut Report<'_>| {
            let size = i64::try_from(walk.size()).unwrap_or(i64::MAX);
            while let Some(row) = heads.next_if(|row| row.size <= size) {
                let root = walk.range.root();
                walk.heads.push(row, root, report);
            }
            while let Some(row) = checkpoints.next_if(|row| row.size <= size) {
                walk.checkpoint(row, report);
            }
            while let Some(row) = cosignatures.next_if(|row| row.size <= size) {
                walk.cosignature(row, report);
            }
            walk.signed(report);
        };
        if !self.begun {
            self.begun = true;
            compare(self, &mut report);
        }
        let mut differing = BTreeMap::new();
        let from = self.size();
        for (position, leaf) in leaves {
            let Ok(position) = u64::try_from(*position) else {
                continue;
            };
            // The chain of positions tells what is missing; here its tile stands for it.
            while !self.lost && self.size() < position {
                self.take(None, page, &mut differing, &mut report);
                compare(self, &mut report);
            }
            if !self.lost && self.size() == position {
                self.take(*leaf, page, &mut differing, &mut report);
                compare(self, &mut report);
            }
        }
        self.widths(from, page, &mut report);
        report_cut(page, &mut report);
        for (tile, Differing { place, more }) in differing {
            report.add(TreeFault::TileDiffers { tile, place, more });
        }
    }

    /// Appends an entry, or what the tile holds in its place, and compares the hashes that this completes.
    fn take(
        &mut self,
        leaf: Option<Hash>,
        page: &TreePage,
        differing: &mut BTreeMap<TileId, Differing>,
        report: &mut Report<'_>,
    ) {
        let leaf = leaf.or_else(|| {
            let (tile, place) = place_of(0, self.size());
            stored(page, tile, place)
        });
        let Some(leaf) = leaf else {
            self.lost = true;
            return report.add(TreeFault::Incomplete { size: self.size() });
        };
        self.range.push_with(leaf, |node, hash| {
            if !node.level.is_multiple_of(TILE_HEIGHT) {
                return;
            }
            let (tile, place) = place_of(node.level / TILE_HEIGHT, node.index);
            if stored(page, tile, place).is_some_and(|stored| stored != *hash) {
                let known = differing.entry(tile).and_modify(|it| it.more += 1);
                known.or_insert(Differing { place, more: 0 });
            }
        });
    }

    /// Without a key of the log its name is not known, which is what a witness cosigns: then there is nothing to compare. It may
    /// also be the name of a log that has ended, of which this very checkpoint is stored.
    fn cosignature(&mut self, row: &CosignatureRow, report: &mut Report<'_>) {
        let Some(own) = self.trusted.keys.first().map(VerifierKey::name) else {
            return;
        };
        let mut same = self.stated.iter();
        let earlier =
            same.find(|it| it.size == row.size && it.root == row.root && it.origin != *own);
        let origins = [Some(own), earlier.map(|it| &it.origin)];
        let root = self.range.root();
        self.cosignatures.push(row, &origins, root, report);
    }

    /// What later rows name as that before them, and was not seen. It may have been stored meanwhile.
    pub fn missing(&self) -> Vec<(Linked, Vec<u64>)> {
        let mut missing = vec![
            (Linked::Heads, self.heads.missing()),
            (Linked::Checkpoints, self.checkpoints.missing()),
        ];
        missing.extend(self.cosignatures.missing());
        missing
    }

    /// Takes the sizes of those that are stored after all.
    pub fn stored(&mut self, kind: &Linked, sizes: &[u64]) {
        match kind {
            Linked::Heads => self.heads.stored(sizes),
            Linked::Checkpoints => self.checkpoints.stored(sizes),
            Linked::Cosignatures(witness) => self.cosignatures.stored(witness, sizes),
        }
    }

    /// Whether the tiles of a page are there, and as wide as the newest head of its moment says.
    fn widths(&mut self, from: u64, page: &TreePage, report: &mut Report<'_>) {
        let newest = u64::try_from(page.newest).unwrap_or(0);
        for (id, _) in tile::changed(from, self.size()) {
            let expected = id.width_at(newest);
            let bytes = page.tiles.get(&id).map(Vec::len);
            let right = usize::from(expected) * HASH_BYTES;
            // One beyond the newest head is told at the end.
            if expected == 0
                || bytes == Some(right)
                || self.told.insert(id.level, id.index) == Some(id.index)
            {
                continue;
            }
            report.add(match bytes {
                None => TreeFault::TileMissing(id),
                Some(bytes) => TreeFault::TileWidthDiffers {
                    tile: id,
                    expected,
                    bytes,
                },
            });
        }
    }

    /// The end of the log.
    pub fn finish(&self, end: &TreeEnd, out: &mut Vec<Mismatch>) {
        let mut report = Report { out };
        let (entries, tree) = (self.size(), end.newest);
        for size in end.heads.iter().copied() {
            report.add(TreeFault::HeadBeyondLog { size, entries });
        }
        self.heads.finish(&mut report);
        for size in end.checkpoints.iter().copied() {
            report.add(TreeFault::CheckpointBeyondTree { size, tree });
        }
        for size in end.cosignatures.iter().copied() {
            report.add(TreeFault::CosignatureBeyondTree { size, tree });
        }
        for tile in end.tiles.iter().copied() {
            report.add(TreeFault::TileBeyondTree(tile));
        }
        if let Some(signed) = self.awaits(end) {
            let shown = self.shown;
            report.add(TreeFault::CheckpointMissing { signed, shown });
        }
        for Gap { size, after } in self.checkpoints.gaps() {
            report.add(TreeFault::EarlierCheckpointMissing { size, after });
        }
        self.cosignatures.finish(&mut report);
        match &self.trusted.signed {
            SignedLast::Nothing => {}
            SignedLast::Unreadable(why) => report.add(TreeFault::SignedUnreadable(why.clone())),
            SignedLast::Tree { size: signed, .. } => {
                if i64::try_from(*signed).unwrap_or(i64::MAX) > tree {
                    let signed = *signed;
                    report.add(TreeFault::SetBack { signed, tree });
                }
            }
        }
    }
}

/// What of a page was not read, since somebody put it in.
fn report_cut(page: &TreePage, report: &mut Report<'_>) {
    if let Some(size) = page.heads_cut {
        report.add(TreeFault::TooManyHeads { size });
    }
    if let Some(size) = page.checkpoints_cut {
        report.add(TreeFault::TooManyCheckpoints { size });
    }
    if let Some(size) = page.cosignatures_cut {
        report.add(TreeFault::TooManyCosignatures { size });
    }
    for tile in page.tiles_repeated.iter().copied() {
        report.add(TreeFault::TileRepeated(tile));
    }
}

/// The tile that holds a hash of a level of tiles, and its place there.
fn place_of(level: u8, index: u64) -> (TileId, u16) {
    let width = u64::from(TILE_WIDTH);
    let place = u16::try_from(index % width).unwrap_or_default();
    let index = index / width;
    (TileId { level, index }, place)
}

/// A hash as its tile has it.
fn stored(page: &TreePage, tile: TileId, place: u16) -> Option<Hash> {
    let (hashes, _) = page.tiles.get(&tile)?.as_chunks::<HASH_BYTES>();
    hashes
        .get(usize::from(place))
        .copied()
        .map(Hash::from_bytes)
}

pub(super) struct Report<'a> {
    out: &'a mut Vec<Mismatch>,
}

impl Report<'_> {
    pub(super) fn add(&mut self, fault: TreeFault) {
        self.out.push(Mismatch {
            position: fault.position(),
            fault: Fault::Tree(fault),
            entry: None,
            payment: None,
        });
    }
}
