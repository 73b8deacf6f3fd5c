//! The tree, and what is signed about it.

use super::{ANY, Kind, ONCE, kind, whole};

/// The last entry that a head or a checkpoint covers; the first below a hash of the second level of tiles.
const HEAD: &str = "exists (select 1 from tree_heads h where h.tree_size = p.position + 1)";
const OLDER_HEAD: &str = "p.position + 1 < (select max(tree_size) from tree_heads) and \
                          exists (select 1 from tree_heads h where h.tree_size = p.position + 1)";
/// The first entry: the root of a tree of one entry is its leaf hash, so that anybody can tell it.
const BEGINNING: &str = "p.position = 0";
const CHECKPOINT: &str = "exists (select 1 from checkpoints c where c.tree_size = p.position + 1)";
const COSIGNATURE: &str =
    "exists (select 1 from cosignatures c where c.tree_size = p.position + 1)";
/// Those before the first that today's keys have signed may be of keys that were replaced.
const LATER_CHECKPOINT: &str = "p.position >= (select min(tree_size) from checkpoints) and \
                                exists (select 1 from checkpoints c where c.tree_size = p.position + 1)";
const OLDER_CHECKPOINT: &str = "p.position + 1 < (select max(tree_size) from checkpoints) and \
                                exists (select 1 from checkpoints c where c.tree_size = p.position + 1)";
const LEVEL_1: &str =
    "p.position % 256 = 0 and p.position + 256 <= (select max(tree_size) from tree_heads)";
const LEVEL_2: &str =
    "p.position % 65536 = 0 and p.position + 65536 <= (select max(tree_size) from tree_heads)";

/// Every kind of tampering with the tree, and with what is signed about it.
pub const KINDS: &[Kind] = &[
    kind(
        "a head's root",
        HEAD,
        "update tree_heads set root_hash = sha256(root_hash) where tree_size = $position + 1",
        &["TREE_HEAD_DIFFERS"],
    ),
    kind(
        "a head's MAC",
        HEAD,
        "update tree_heads set mac = sha256(mac) where tree_size = $position + 1",
        &["TREE_HEAD_MAC_WRONG"],
    ),
    kind(
        "the key of a head's MAC, to one that is unknown",
        HEAD,
        "update tree_heads set mac_key_id = 'stolen' where tree_size = $position + 1",
        &["TREE_HEAD_KEY_UNKNOWN"],
    ),
    kind(
        "the key of a head's MAC, to another of ours",
        HEAD,
        "update tree_heads set mac_key_id = 'test-1' where tree_size = $position + 1",
        &["TREE_HEAD_MAC_WRONG"],
    ),
    kind(
        "a head of the right root put in by somebody without the key",
        BEGINNING,
        "insert into tree_heads (tree_size, root_hash, fence, mac, mac_key_id) \
         select $position + 1, sha256('\\x00'::bytea || leaf), 1, sha256('x'), 'test-2' from journal where entry_id = $entry \
         on conflict (tree_size) do update set mac = excluded.mac, mac_key_id = excluded.mac_key_id",
        &["TREE_HEAD_MAC_WRONG"],
    ),
    // Of several in a row the last is named, by the one behind it.
    whole(
        "an older head deleted",
        OLDER_HEAD,
        "delete from tree_heads where tree_size = $position + 1",
        &["TREE_HEAD_MISSING"],
    ),
    whole(
        "all older heads deleted",
        ONCE,
        "delete from tree_heads where tree_size < (select max(tree_size) from tree_heads)",
        &["TREE_HEAD_MISSING"],
    ),
    whole(
        "an older head deleted, and the next said to be grown from the one before",
        OLDER_HEAD,
        "with gone as (delete from tree_heads where tree_size = $position + 1 returning previous_size) \
         update tree_heads set previous_size = gone.previous_size from gone where tree_heads.previous_size = $position + 1",
        &["TREE_HEAD_MAC_WRONG"],
    ),
    kind(
        "that a head was grown from another, taken away",
        HEAD,
        "update tree_heads set previous_size = null where tree_size = $position + 1",
        &["TREE_HEAD_MAC_WRONG"],
    ),
    whole(
        "the newest heads deleted",
        ONCE,
        "delete from tree_heads where tree_size > (select max(tree_size) from tree_heads) / 2",
        &["LOG_SET_BACK"],
    ),
    whole(
        "all heads deleted",
        ONCE,
        "delete from tree_heads",
        &["TILE_BEYOND_TREE"],
    ),
    whole(
        "a head of more entries than there are",
        ONCE,
        "insert into tree_heads (tree_size, root_hash, fence, mac, mac_key_id) select next_position + 1, \
         sha256('x'), 1, sha256('x'), 'x' from sequencer_head",
        &["TREE_HEAD_BEYOND_LOG"],
    ),
    whole(
        "a head of fewer entries than any number",
        ONCE,
        "alter table tree_heads drop constraint if exists tree_heads_size_positive; \
         insert into tree_heads (tree_size, root_hash, fence, mac, mac_key_id) \
         values ((-9223372036854775808)::bigint, sha256('x'), 1, sha256('x'), 'test-2')",
        &["TREE_HEAD_MAC_WRONG"],
    ),
    kind(
        "a hash of a tile of level 0",
        ANY,
        "update tree_tiles set hashes = overlay(hashes placing sha256(hashes) from ($position % 256 * 32 + 1)::int) \
         where level = 0 and tile_index = $position / 256",
        &["TILE_DIFFERS"],
    ),
    kind(
        "a hash of a tile of level 1",
        LEVEL_1,
        "update tree_tiles set hashes = overlay(hashes placing sha256(hashes) from ($position / 256 % 256 * 32 + 1)::int) \
         where level = 1 and tile_index = $position / 65536",
        &["TILE_DIFFERS"],
    ),
    kind(
        "a hash of a tile of level 2",
        LEVEL_2,
        "update tree_tiles set hashes = overlay(hashes placing sha256(hashes) from ($position / 65536 * 32 + 1)::int) \
         where level = 2 and tile_index = 0",
        &["TILE_DIFFERS"],
    )
    .large(),
    kind(
        "a tile of level 0 deleted",
        "p.position % 256 = 0",
        "delete from tree_tiles where level = 0 and tile_index = $position / 256",
        &["TILE_MISSING"],
    ),
    whole(
        "the tiles of level 1 deleted",
        ONCE,
        "delete from tree_tiles where level = 1",
        &["TILE_MISSING"],
    ),
    kind(
        "a tile cut off",
        "p.position % 256 = 0",
        "update tree_tiles set hashes = substr(hashes, 1, octet_length(hashes) - 32) \
         where level = 0 and tile_index = $position / 256",
        &["TILE_WIDTH_DIFFERS"],
    ),
    whole(
        "a tile beyond the tree",
        ONCE,
        "insert into tree_tiles values (0, 70000, sha256('x'))",
        &["TILE_BEYOND_TREE"],
    ),
    kind(
        "a checkpoint's root_hash",
        CHECKPOINT,
        "update checkpoints set root_hash = sha256(root_hash) where tree_size = $position + 1",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    whole(
        "a checkpoint's tree_size",
        CHECKPOINT,
        "update checkpoints set tree_size = tree_size - 1 where tree_size = $position + 1",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    kind(
        "a checkpoint's signed_at",
        CHECKPOINT,
        "update checkpoints set signed_at = signed_at + interval '1 year' where tree_size = $position + 1",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    kind(
        "a checkpoint's signed_at, to infinity",
        CHECKPOINT,
        "alter table checkpoints drop constraint if exists checkpoints_signed_at_range; \
         update checkpoints set signed_at = 'infinity' where tree_size = $position + 1",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    kind(
        "a checkpoint again, with another time",
        CHECKPOINT,
        "insert into checkpoints (tree_size, signed_at, root_hash, note, mac, mac_key_id) \
         select tree_size, '2021-01-01', root_hash, note, mac, mac_key_id from checkpoints where tree_size = $position + 1",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    kind(
        "a checkpoint's signature",
        CHECKPOINT,
        "update checkpoints set note = overlay(note placing \
         (case substr(note, length(note) - 20, 1) when 'A' then 'B' else 'A' end) from length(note) - 20) \
         where tree_size = $position + 1",
        &["CHECKPOINT_NOT_SIGNED"],
    ),
    kind(
        "what a checkpoint states",
        CHECKPOINT,
        "update checkpoints set note = replace(note, E'\\n' || tree_size || E'\\n', E'\\n' || tree_size + 1 || E'\\n') \
         where tree_size = $position + 1",
        &["CHECKPOINT_NOT_SIGNED"],
    ),
    kind(
        "a checkpoint that is none",
        CHECKPOINT,
        "update checkpoints set note = 'nothing' where tree_size = $position + 1",
        &["CHECKPOINT_NOT_SIGNED"],
    ),
    kind(
        "a checkpoint of other keys",
        LATER_CHECKPOINT,
        "update checkpoints set note = replace(note, '\u{2014} log.test/quittance ', '\u{2014} log.test/quittance AAAA') \
         where tree_size = $position + 1",
        &["CHECKPOINT_NOT_SIGNED"],
    ),
    whole(
        "the newest checkpoint deleted",
        ONCE,
        "delete from checkpoints where tree_size = (select max(tree_size) from checkpoints)",
        &["CHECKPOINT_MISSING"],
    ),
    // Of several in a row the last is named, by the one behind it.
    whole(
        "an older checkpoint deleted",
        OLDER_CHECKPOINT,
        "delete from checkpoints where tree_size = $position + 1",
        &["CHECKPOINT_MISSING"],
    ),
    whole(
        "all older checkpoints deleted",
        ONCE,
        "delete from checkpoints where tree_size < (select max(tree_size) from checkpoints)",
        &["CHECKPOINT_MISSING"],
    ),
    whole(
        "an older checkpoint deleted, and the next said to follow upon the one before",
        OLDER_CHECKPOINT,
        "with gone as (delete from checkpoints where tree_size = $position + 1 returning previous_size) \
         update checkpoints set previous_size = gone.previous_size from gone where checkpoints.previous_size = $position + 1",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    whole(
        "all checkpoints deleted",
        ONCE,
        "delete from checkpoints",
        &["CHECKPOINT_MISSING"],
    ),
    whole(
        "all checkpoints made to be of other keys",
        ONCE,
        "update checkpoints set note = replace(note, '\u{2014} log.test/quittance ', '\u{2014} log.test/quittance AAAA')",
        &["CHECKPOINT_MISSING"],
    ),
    whole(
        "the signatures of all older checkpoints destroyed, as if a replaced key had made them",
        ONCE,
        "update checkpoints set note = replace(note, '\u{2014} log.test/quittance ', '\u{2014} log.test/quittance AAAA') \
         where tree_size < (select max(tree_size) from checkpoints)",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    whole(
        "the same, with their digests",
        ONCE,
        "update checkpoints set note_digest = null, \
         note = replace(note, '\u{2014} log.test/quittance ', '\u{2014} log.test/quittance AAAA') \
         where tree_size < (select max(tree_size) from checkpoints)",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    kind(
        "a line under a checkpoint's signatures",
        CHECKPOINT,
        "update checkpoints set note = note || E'\\u2014 log.test/other AAAAAAAA\\n' where tree_size = $position + 1",
        &["CHECKPOINT_COLUMN_DIFFERS"],
    ),
    kind(
        "a cosignature",
        COSIGNATURE,
        "update cosignatures set line = overlay(line placing \
         (case substr(line, length(line) - 20, 1) when 'A' then 'B' else 'A' end) from length(line) - 20) \
         where tree_size = $position + 1",
        &["COSIGNATURE_FORGED"],
    ),
    kind(
        "a cosignature's root_hash",
        COSIGNATURE,
        "update cosignatures set root_hash = sha256(root_hash) where tree_size = $position + 1",
        &["COSIGNATURE_FORGED"],
    ),
    whole(
        "a cosignature's tree_size",
        COSIGNATURE,
        "update cosignatures set tree_size = tree_size - 1 where tree_size = $position + 1",
        &["COSIGNATURE_FORGED"],
    ),
    whole(
        "a cosignature of more entries than there are",
        ONCE,
        "update cosignatures set tree_size = 9000000000 where tree_size = (select max(tree_size) from cosignatures)",
        &["COSIGNATURE_BEYOND_TREE"],
    ),
    whole(
        "cosignatures put in by the thousand",
        ONCE,
        "insert into cosignatures select tree_size, witness, root_hash, cosigned_at, line || n \
         from (select * from cosignatures order by tree_size limit 1) first, generate_series(1, 9000) n",
        &["TOO_MANY_COSIGNATURES"],
    ),
    kind(
        "the head and the tile made to fit a changed entry",
        ANY,
        "update journal set leaf = forged(leaf), leaf_hash = sha256('\\x00'::bytea || forged(leaf)) where entry_id = $entry; \
         update tree_tiles set hashes = overlay(hashes placing (select leaf_hash from journal where entry_id = $entry) \
         from ($position % 256 * 32 + 1)::int) where level = 0 and tile_index = $position / 256",
        &["MAC_WRONG"],
    ),
];
