//! What somebody with every right on the database does to it, in SQL.

use tokio_postgres::Client;
use uuid::Uuid;

/// A kind of tampering.
pub struct Kind {
    /// What is done.
    pub name: &'static str,
    /// Which entries it can be done to: a condition on the journal's row `j`.
    pub which: &'static str,
    /// What is done to the entry `$entry`, number `$seq` of stream `$stream`, at `$position`.
    pub sql: &'static str,
    /// One of these must be reported about the entry, its payment or its position.
    pub codes: &'static [&'static str],
    /// Whether it can only be said of the log as a whole.
    pub whole: bool,
    /// Whether a small log has nothing that it could be done to.
    pub large: bool,
}

/// Where it is done.
#[derive(Debug)]
pub struct Target {
    /// The stream.
    pub stream: Uuid,
    /// The number in it.
    pub seq: i64,
    /// The entry.
    pub entry: Uuid,
    /// Its position.
    pub position: i64,
}

const ANY: &str = "true";
/// Every payment's first and last entry, and one in between.
const FIRST: &str = "j.entity_seq = 1";
const LAST: &str = "j.entity_seq = (select version from payments where payment_id = j.stream_id)";
const MIDDLE: &str = "j.entity_seq > 1 and not (j.entity_seq = \
                      (select version from payments where payment_id = j.stream_id))";
/// The last entry of a payment that was changed since it was accepted.
const CHANGED: &str = "j.entity_seq > 1 and j.entity_seq = \
                       (select version from payments where payment_id = j.stream_id)";

/// The last entry of a payment with several transactions, which is not about its opening.
const SEVERAL: &str = "j.entity_seq = (select version from payments where payment_id = j.stream_id) \
                       and j.transaction_id <> (select transaction_id from journal o \
                       where o.stream_id = j.stream_id and o.entity_seq = 1)";

const fn kind(
    name: &'static str,
    which: &'static str,
    sql: &'static str,
    codes: &'static [&'static str],
) -> Kind {
    Kind {
        name,
        which,
        sql,
        codes,
        whole: false,
        large: false,
    }
}

const fn column(name: &'static str, sql: &'static str) -> Kind {
    kind(name, ANY, sql, &["COLUMN_DIFFERS"])
}

const fn payment(name: &'static str, sql: &'static str) -> Kind {
    kind(name, FIRST, sql, &["PAYMENT_ROW_DIFFERS"])
}

const fn whole(
    name: &'static str,
    which: &'static str,
    sql: &'static str,
    codes: &'static [&'static str],
) -> Kind {
    Kind {
        whole: true,
        ..kind(name, which, sql, codes)
    }
}

/// The last entry that a head or a checkpoint covers; the first below a hash of the second level of tiles.
const HEAD: &str = "exists (select 1 from tree_heads h where h.tree_size = p.position + 1)";
/// The first entry: the root of a tree of one entry is its leaf hash, so that anybody can tell it.
const BEGINNING: &str = "p.position = 0";
const CHECKPOINT: &str = "exists (select 1 from checkpoints c where c.tree_size = p.position + 1)";
/// Those before the first that today's keys have signed may be of keys that were replaced.
const LATER_CHECKPOINT: &str = "p.position >= (select min(tree_size) from checkpoints) and \
                                exists (select 1 from checkpoints c where c.tree_size = p.position + 1)";
const LEVEL_1: &str =
    "p.position % 256 = 0 and p.position + 256 <= (select max(tree_size) from tree_heads)";
const LEVEL_2: &str =
    "p.position % 65536 = 0 and p.position + 65536 <= (select max(tree_size) from tree_heads)";
const ONCE: &str = "p.position = 3";

/// Every kind of tampering with the tree, and with what is signed about it.
pub const TREE_KINDS: &[Kind] = &[
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
    Kind {
        large: true,
        ..kind(
            "a hash of a tile of level 2",
            LEVEL_2,
            "update tree_tiles set hashes = overlay(hashes placing sha256(hashes) from ($position / 65536 * 32 + 1)::int) \
             where level = 2 and tile_index = 0",
            &["TILE_DIFFERS"],
        )
    },
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
    kind(
        "the head and the tile made to fit a changed entry",
        ANY,
        "update journal set leaf = forged(leaf), leaf_hash = sha256('\\x00'::bytea || forged(leaf)) where entry_id = $entry; \
         update tree_tiles set hashes = overlay(hashes placing (select leaf_hash from journal where entry_id = $entry) \
         from ($position % 256 * 32 + 1)::int) where level = 0 and tile_index = $position / 256",
        &["MAC_WRONG"],
    ),
];

/// Entries by which an attempt begins, and those by which one ends with an answer.
const ATTEMPTED: &str = "attempt(j.leaf) = 1";
const ANSWERED: &str = "convert_from(j.leaf, 'UTF8') like '%\"provider_response_digest\":%'";
/// Entries that open a case for a person, and that close one.
const OPENS: &str = "exists (select from operator_actions where action_id = j.entry_id)";
const CLOSES: &str = "exists (select from operator_actions where closed_by = j.entry_id)";

/// The attempt that an entry is about.
macro_rules! attempt {
    ($set:literal) => {
        concat!(
            "update attempts a set ",
            $set,
            " from journal j where j.entry_id = $entry and a.payment_id = $stream \
             and a.transaction_id = j.transaction_id and a.number = attempt(j.leaf)"
        )
    };
}

/// One transaction of a payment, which the newest entry is about another than.
macro_rules! transaction {
    ($name:expr, $set:literal, $codes:expr $(,)?) => {
        kind(
            $name,
            SEVERAL,
            concat!(
                "update transactions set ",
                $set,
                " where transaction_id = (select transaction_id from journal where stream_id = $stream and entity_seq = 1)"
            ),
            $codes,
        )
    };
}

/// Every kind of tampering with entries, positions and payments.
pub const KINDS: &[Kind] = &[
    // A leaf's bytes, its hash and its MAC.
    kind(
        "a byte of the leaf",
        ANY,
        "update journal set leaf = set_byte(leaf, (random() * (octet_length(leaf) - 1))::int, 1) where entry_id = $entry",
        &["LEAF_HASH_DIFFERS"],
    ),
    kind(
        "the leaf, and its hash made to fit",
        ANY,
        "update journal set leaf = forged(leaf), leaf_hash = sha256('\\x00'::bytea || forged(leaf)) where entry_id = $entry",
        &["MAC_WRONG"],
    ),
    kind(
        "the leaf, its hash, and the next link made to fit",
        MIDDLE,
        "update journal set leaf = forged(leaf), leaf_hash = sha256('\\x00'::bytea || forged(leaf)) where entry_id = $entry; \
         update journal j set leaf = convert_to(replace(convert_from(j.leaf, 'UTF8'), encode(s.leaf_hash, 'hex'), \
         encode(b.leaf_hash, 'hex')), 'UTF8') from saved_journal s, journal b where s.entry_id = $entry \
         and b.entry_id = $entry and j.stream_id = $stream and j.entity_seq = $seq + 1",
        &["MAC_WRONG"],
    ),
    kind(
        "a leaf that is no entry",
        ANY,
        "update journal set leaf = 'nothing', leaf_hash = sha256('\\x00'::bytea || 'nothing'::bytea) where entry_id = $entry",
        &["LEAF_UNREADABLE"],
    ),
    kind(
        "leaf_hash",
        ANY,
        "update journal set leaf_hash = sha256(leaf_hash) where entry_id = $entry",
        &["LEAF_HASH_DIFFERS"],
    ),
    kind(
        "mac",
        ANY,
        "update journal set mac = sha256(mac) where entry_id = $entry",
        &["MAC_WRONG"],
    ),
    kind(
        "mac_key_id, to one that is unknown",
        ANY,
        "update journal set mac_key_id = 'stolen' where entry_id = $entry",
        &["MAC_KEY_UNKNOWN"],
    ),
    kind(
        "mac_key_id, to another of ours",
        ANY,
        "update journal set mac_key_id = 'test-1' where entry_id = $entry",
        &["MAC_WRONG"],
    ),
    // Index columns.
    column(
        "entry_id",
        "update journal set entry_id = gen_random_uuid() where entry_id = $entry",
    ),
    column(
        "tenant_id",
        "update journal set tenant_id = 'other' where entry_id = $entry",
    ),
    column(
        "tenant_id, to nobody's",
        "update journal set tenant_id = null where entry_id = $entry",
    ),
    column(
        "payment_id",
        "update journal set payment_id = gen_random_uuid() where entry_id = $entry",
    ),
    column(
        "transaction_id",
        "update journal set transaction_id = gen_random_uuid() where entry_id = $entry",
    ),
    column(
        "event_type",
        "update journal set event_type = event_type || 'x' where entry_id = $entry",
    ),
    column(
        "result",
        "update journal set result = case result when 'failure' then 'success' else 'failure' end where entry_id = $entry",
    ),
    column(
        "cause",
        "update journal set cause = coalesce(cause, '') || 'X' where entry_id = $entry",
    ),
    column(
        "actor",
        "update journal set actor = actor || 'x' where entry_id = $entry",
    ),
    column(
        "source",
        "update journal set source = source || 'x' where entry_id = $entry",
    ),
    column(
        "provider_account",
        "update journal set provider_account = coalesce(provider_account, '') || 'x' where entry_id = $entry",
    ),
    column(
        "trace_id",
        "update journal set trace_id = substr(sha256(coalesce(trace_id, '')), 1, 16) where entry_id = $entry",
    ),
    column(
        "occurred_at",
        "update journal set occurred_at = occurred_at - interval '1 microsecond' where entry_id = $entry",
    ),
    kind(
        "entity_seq",
        LAST,
        "update journal set entity_seq = entity_seq + 1 where entry_id = $entry",
        &["COLUMN_DIFFERS"],
    ),
    kind(
        "stream_id",
        LAST,
        "update journal set stream_id = gen_random_uuid() where entry_id = $entry",
        &["OTHER_STREAM"],
    ),
    kind(
        "arrival, as if it were not sequenced yet",
        ANY,
        "update journal set arrival = arrival + 1000000000 where entry_id = $entry",
        &["POSITION_DIFFERS"],
    ),
    // Deleted, inserted, reordered, cut off.
    kind(
        "the first entry deleted",
        "j.entity_seq = 1 and exists (select 1 from payments where payment_id = j.stream_id and version > 1)",
        "delete from journal where entry_id = $entry",
        &["ENTRY_MISSING"],
    ),
    kind(
        "an entry in between deleted",
        MIDDLE,
        "delete from journal where entry_id = $entry",
        &["SEQUENCE_GAP"],
    ),
    kind(
        "the newest entry of a payment deleted",
        LAST,
        "delete from journal where entry_id = $entry",
        // Of a payment with one entry, all are gone.
        &["PAYMENT_VERSION_DIFFERS", "PAYMENT_WITHOUT_ENTRIES"],
    ),
    kind(
        "an entry deleted with its position",
        ANY,
        "delete from journal where entry_id = $entry; delete from journal_positions where entry_id = $entry",
        &["POSITION_GAP", "HEAD_DIFFERS"],
    ),
    kind(
        "a payment deleted without a trace",
        FIRST,
        "delete from journal where stream_id = $stream; delete from payments where payment_id = $stream; \
         delete from transactions where payment_id = $stream; delete from attempts where payment_id = $stream",
        &["ENTRY_MISSING"],
    ),
    kind(
        "an entry forged behind a payment's last",
        LAST,
        "insert into journal select (j).* from (select forged_row(j) as j from journal j where entry_id = $entry) f",
        &["MAC_WRONG"],
    ),
    kind(
        "an entry forged below what is sequenced",
        LAST,
        "insert into journal select (j).* from (select forged_row(j) as j from journal j where entry_id = $entry) f; \
         update journal set arrival = 0 where stream_id = $stream and entity_seq = $seq + 1",
        &["NOT_SEQUENCED"],
    ),
    kind(
        "an entry forged below all numbers there are, of the least stream there is",
        ONCE,
        "alter table journal drop constraint if exists journal_entity_seq_positive; \
         insert into journal select (j).* from (select least_row(j) as j from journal j where entry_id = $entry) f",
        &["MAC_WRONG"],
    ),
    kind(
        "an entry moved below all positions there are",
        ANY,
        "alter table journal_positions drop constraint if exists journal_positions_position_not_negative; \
         update journal_positions set position = (-9223372036854775808)::bigint + $position where position = $position",
        &["POSITION_GAP", "HEAD_DIFFERS"],
    ),
    kind(
        "an entry kept out of the tree, and taken for refused",
        LAST,
        "update journal set arrival = 4000000000000000000 + entity_seq where entry_id = $entry; \
         insert into refused_entries select arrival, entry_id, stream_id, entity_seq, 'MAC_WRONG' from journal \
         where entry_id = $entry; \
         delete from journal_positions where position = $position",
        &["ARRIVAL_NOT_GIVEN"],
    ),
    kind(
        "an entry kept out of the tree while an earlier number is open, and taken for refused",
        LAST,
        "update sequencer_head set low_arrival = (select arrival from journal where entry_id = $entry); \
         insert into refused_entries select arrival, entry_id, stream_id, entity_seq, 'MAC_WRONG' from journal \
         where entry_id = $entry; \
         delete from journal_positions where position = $position",
        &["REFUSED_THOUGH_GENUINE"],
    ),
    kind(
        "a genuine entry of another payment put in",
        LAST,
        "insert into journal select (j).* from (select moved_row(j, $stream, $seq + 1) as j from journal j \
         where stream_id <> $stream and event_type <> 'payment.accepted' limit 1) f",
        &["OTHER_STREAM"],
    ),
    kind(
        "two entries of a payment swapped",
        "j.entity_seq = 1 and exists (select 1 from payments where payment_id = j.stream_id and version > 1)",
        "update journal set entity_seq = 1000000 where stream_id = $stream and entity_seq = 1; \
         update journal set entity_seq = 1 where stream_id = $stream and entity_seq = 2; \
         update journal set entity_seq = 2 where stream_id = $stream and entity_seq = 1000000",
        &["COLUMN_DIFFERS"],
    ),
    kind(
        "the positions of two entries of a payment swapped",
        "j.entity_seq = 1 and exists (select 1 from payments where payment_id = j.stream_id and version > 1)",
        "select swap_positions($stream)",
        &["POSITIONS_REORDERED"],
    ),
    Kind {
        whole: true,
        ..kind(
            "the tail of the positions cut off",
            "p.position = (select max(position) - 5 from journal_positions)",
            "delete from journal_positions where position >= $position",
            &["HEAD_DIFFERS"],
        )
    },
    Kind {
        whole: true,
        ..kind(
            "the head",
            "p.position = 3",
            "update sequencer_head set next_position = next_position - 1",
            &["HEAD_DIFFERS"],
        )
    },
    // Positions.
    kind(
        "a position deleted",
        ANY,
        "delete from journal_positions where position = $position",
        &["NOT_SEQUENCED"],
    ),
    kind(
        "a position's entry_id",
        ANY,
        "update journal_positions set entry_id = gen_random_uuid() where position = $position",
        &["POSITION_DIFFERS"],
    ),
    kind(
        "a position's stream",
        ANY,
        "update journal_positions set stream_id = gen_random_uuid() where position = $position",
        &["POSITION_DIFFERS"],
    ),
    kind(
        "a position's entity_seq",
        ANY,
        "update journal_positions set entity_seq = entity_seq + 1 where position = $position",
        &["POSITION_DIFFERS"],
    ),
    kind(
        "a position's tenant",
        ANY,
        "update journal_positions set tenant_id = 'other' where position = $position",
        &["POSITION_DIFFERS"],
    ),
    // Payments changed without an entry.
    payment(
        "payments.state",
        "update payments set state = case state when 'CAPTURED' then 'REFUNDED' else 'CAPTURED' end where payment_id = $stream",
    ),
    payment(
        "payments.tenant_id",
        "update payments set tenant_id = 'other' where payment_id = $stream",
    ),
    payment(
        "payments.disputed",
        "update payments set disputed = not disputed where payment_id = $stream",
    ),
    payment(
        "payments.expired",
        "update payments set expired = not expired where payment_id = $stream",
    ),
    payment(
        "payments.livemode",
        "update payments set livemode = not livemode where payment_id = $stream",
    ),
    payment(
        "payments.amount",
        "update payments set amount = amount + 1 where payment_id = $stream",
    ),
    payment(
        "payments.currency",
        "update payments set currency = 'CHF' where payment_id = $stream",
    ),
    payment(
        "payments.authorized",
        "update payments set authorized = authorized + 1 where payment_id = $stream",
    ),
    payment(
        "payments.captured",
        "update payments set authorized = authorized + 1, captured = captured + 1 where payment_id = $stream",
    ),
    payment(
        "payments.capture_pending",
        "update payments set authorized = authorized + 1, capture_pending = capture_pending + 1 where payment_id = $stream",
    ),
    payment(
        "payments.voided",
        "update payments set authorized = authorized + 1, voided = voided + 1 where payment_id = $stream",
    ),
    payment(
        "payments.refunded",
        "update payments set authorized = authorized + 1, captured = captured + 1, refunded = refunded + 1 where payment_id = $stream",
    ),
    payment(
        "payments.charged_back",
        "update payments set charged_back = charged_back + 1 where payment_id = $stream",
    ),
    payment(
        "payments.excess",
        "update payments set excess = excess + 1 where payment_id = $stream",
    ),
    payment(
        "payments.method_kind",
        "update payments set method_kind = case method_kind when 'CARD' then 'WALLET' else 'CARD' end where payment_id = $stream",
    ),
    payment(
        "payments.brand",
        "update payments set brand = brand || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.last4",
        "update payments set last4 = case last4 when '0000' then '0001' else '0000' end where payment_id = $stream",
    ),
    payment(
        "payments.expiry_month",
        "update payments set expiry_month = coalesce(expiry_month, 0) % 12 + 1 where payment_id = $stream",
    ),
    payment(
        "payments.expiry_year",
        "update payments set expiry_year = coalesce(expiry_year, 2030) + 1 where payment_id = $stream",
    ),
    payment(
        "payments.capture_method",
        "update payments set capture_method = case capture_method when 'MANUAL' then 'AUTOMATIC' else 'MANUAL' end where payment_id = $stream",
    ),
    payment(
        "payments.merchant_reference",
        "update payments set merchant_reference = merchant_reference || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.description",
        "update payments set description = description || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.return_url",
        "update payments set return_url = return_url || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.initiator",
        "update payments set initiator = case initiator when 'CUSTOMER' then 'MERCHANT' else 'CUSTOMER' end where payment_id = $stream",
    ),
    payment(
        "payments.mandate_reference",
        "update payments set mandate_reference = mandate_reference || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.metadata",
        "update payments set metadata = metadata || '{\"forged\": \"x\"}' where payment_id = $stream",
    ),
    payment(
        "payments.provider_account",
        "update payments set provider_account = provider_account || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.routed",
        "update payments set routed = not routed where payment_id = $stream",
    ),
    payment(
        "payments.provider_reference",
        "update payments set provider_reference = coalesce(provider_reference, '') || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.decline_code",
        "update payments set decline_code = case decline_code when 'DO_NOT_HONOR' then 'INSUFFICIENT_FUNDS' \
         else 'DO_NOT_HONOR' end, decline_provider_code = '05' where payment_id = $stream",
    ),
    payment(
        "payments.created_at",
        "update payments set created_at = created_at + interval '1 microsecond' where payment_id = $stream",
    ),
    payment(
        "payments.expires_at",
        "update payments set expires_at = coalesce(expires_at, created_at) + interval '1 day' where payment_id = $stream",
    ),
    kind(
        "payments.currency_exponent",
        FIRST,
        "update payments set currency_exponent = (currency_exponent + 1) % 5 where payment_id = $stream",
        &["PAYMENT_COLUMN_DIFFERS"],
    ),
    kind(
        "payments.updated_at",
        FIRST,
        "update payments set updated_at = updated_at + interval '1 second' where payment_id = $stream",
        &["PAYMENT_COLUMN_DIFFERS"],
    ),
    kind(
        "payments.version",
        FIRST,
        "update payments set version = version + 1 where payment_id = $stream",
        &["PAYMENT_VERSION_DIFFERS"],
    ),
    kind(
        "payments.last_leaf_hash",
        FIRST,
        "update payments set last_leaf_hash = sha256(last_leaf_hash) where payment_id = $stream",
        &["PAYMENT_LAST_HASH_DIFFERS"],
    ),
    kind(
        "payments.provider_token",
        FIRST,
        "update payments set provider_token = sha256(payment_id::text::bytea) where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    kind(
        "a payment set back to where it was",
        CHANGED,
        "update payments set version = version - 1 where payment_id = $stream",
        &["PAYMENT_VERSION_DIFFERS"],
    ),
    kind(
        "a payment deleted",
        FIRST,
        "delete from payments where payment_id = $stream",
        &["PAYMENT_MISSING"],
    ),
    kind(
        "a payment invented",
        FIRST,
        "insert into payments select (p).* from (select invented(p, $entry) as p from payments p where payment_id = $stream) f",
        &["PAYMENT_WITHOUT_ENTRIES"],
    ),
    // Transactions changed without an entry.
    kind(
        "transactions.amount",
        FIRST,
        "update transactions set amount = amount + 1 where payment_id = $stream",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    kind(
        "transactions.state",
        FIRST,
        "update transactions set request = null, state = case state when 'SUCCEEDED' then 'REVERSED' else 'SUCCEEDED' end \
         where payment_id = $stream",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.kind and amount",
        "kind = case kind when 'VOID' then 'REFUND' else 'VOID' end, amount = amount + 1",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.provider_reference",
        "provider_reference = coalesce(provider_reference, '') || 'x'",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.provider_account",
        "provider_account = provider_account || 'x'",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.origin",
        "origin = case origin when 'CALLER' then 'OPERATOR' else 'CALLER' end",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.final_capture",
        "final_capture = not final_capture",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.ever_unknown",
        "ever_unknown = not ever_unknown",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.attempts",
        "attempts = attempts + 1",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.resolved_by_operator",
        "resolved_by_operator = not resolved_by_operator",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.contradictions",
        "contradictions = contradictions || 'x'",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.execute_before",
        "execute_before = execute_before + interval '1 day'",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.reason",
        "reason = reason || 'x'",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    // What entries say of other tables.
    kind(
        "an attempt deleted",
        ATTEMPTED,
        "delete from attempts a using journal j where j.entry_id = $entry and a.payment_id = $stream \
         and a.transaction_id = j.transaction_id and a.number = attempt(j.leaf)",
        &["ATTEMPT_MISSING"],
    ),
    kind(
        "attempts.response, deleted",
        ANSWERED,
        attempt!("response = null"),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    ),
    kind(
        "attempts.response, another",
        ANSWERED,
        attempt!(
            "response = set_byte(response, octet_length(response) - 1, get_byte(response, octet_length(response) - 1) # 1)"
        ),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    ),
    kind(
        "attempts.response, made long",
        ANSWERED,
        attempt!("response = response || decode(repeat('00', 1000000), 'hex')"),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    ),
    kind(
        "attempts.digest_salt",
        ANSWERED,
        attempt!("digest_salt = sha256(digest_salt)"),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    ),
    kind(
        "attempts.response_digest",
        ANSWERED,
        attempt!("response_digest = sha256(response_digest)"),
        &["ATTEMPT_DIFFERS"],
    ),
    kind(
        "attempts.request_digest",
        ATTEMPTED,
        attempt!("request_digest = sha256(request_digest)"),
        &["ATTEMPT_DIFFERS"],
    ),
    kind(
        "an attempt invented",
        ATTEMPTED,
        "insert into attempts select (a).* from (select invented_attempt(a) as a from attempts a, journal j \
         where j.entry_id = $entry and a.payment_id = $stream and a.transaction_id = j.transaction_id limit 1) f",
        &["ATTEMPT_WITHOUT_ENTRY"],
    ),
    kind(
        "an idempotency record deleted",
        FIRST,
        "delete from idempotency_records where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    ),
    kind(
        "idempotency_records.idempotency_key",
        FIRST,
        "update idempotency_records set idempotency_key = idempotency_key || 'x' where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    ),
    kind(
        "idempotency_records.tenant_id",
        FIRST,
        "update idempotency_records set tenant_id = 'other' where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    ),
    kind(
        "idempotency_records.payment_id",
        FIRST,
        "update idempotency_records set payment_id = gen_random_uuid() where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    ),
    kind(
        "idempotency_records.transaction_id",
        FIRST,
        "update idempotency_records set transaction_id = gen_random_uuid() where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_DIFFERS"],
    ),
    kind(
        "an operator action deleted",
        OPENS,
        "delete from operator_actions where action_id = $entry",
        &["OPERATOR_ACTION_MISSING"],
    ),
    kind(
        "operator_actions.kind",
        OPENS,
        "update operator_actions set kind = case kind when 'EXCESS_AMOUNT' then 'AMOUNT_MISMATCH' else 'EXCESS_AMOUNT' end \
         where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    ),
    kind(
        "operator_actions.transaction_id",
        OPENS,
        "update operator_actions set transaction_id = gen_random_uuid() where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    ),
    kind(
        "an operator action closed by nobody",
        OPENS,
        "update operator_actions set closed_at = now(), closed_by = $entry where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    ),
    Kind {
        large: true,
        ..kind(
            "an operator action opened again",
            CLOSES,
            "update operator_actions set closed_at = null, closed_by = null where closed_by = $entry",
            &["OPERATOR_ACTION_DIFFERS"],
        )
    },
    kind(
        "an operator action invented",
        OPENS,
        "insert into operator_actions select (o).* from (select invented_action(o) as o from operator_actions o \
         where action_id = $entry) f",
        &["OPERATOR_ACTION_WITHOUT_ENTRY"],
    ),
    kind(
        "a transaction deleted",
        FIRST,
        "delete from transactions where payment_id = $stream",
        &["TRANSACTION_MISSING"],
    ),
    kind(
        "a transaction invented",
        FIRST,
        "insert into transactions select (t).* from (select invented(t) as t from transactions t \
         where payment_id = $stream limit 1) f",
        &["TRANSACTION_WITHOUT_ENTRIES"],
    ),
];

/// Puts everything back.
pub const PUT_BACK: &str = "\
    truncate journal, journal_positions, payments, transactions, attempts, sequencer_head, tree_heads, tree_tiles, \
    checkpoints, refused_entries, idempotency_records, operator_actions; \
    insert into journal select * from saved_journal; \
    insert into journal_positions select * from saved_journal_positions; \
    insert into payments select * from saved_payments; \
    insert into transactions select * from saved_transactions; \
    insert into attempts select * from saved_attempts; \
    insert into sequencer_head select * from saved_sequencer_head; \
    insert into tree_heads select * from saved_tree_heads; \
    insert into tree_tiles select * from saved_tree_tiles; \
    insert into checkpoints select * from saved_checkpoints; \
    insert into idempotency_records select * from saved_idempotency_records; \
    insert into operator_actions select * from saved_operator_actions;";

/// Functions of the attacker, and copies by which everything is put back.
pub fn setup(seed: u64) -> String {
    let tables = [
        "journal",
        "journal_positions",
        "payments",
        "transactions",
        "attempts",
        "sequencer_head",
        "tree_heads",
        "tree_tiles",
        "checkpoints",
        "idempotency_records",
        "operator_actions",
    ];
    let mut sql = format!(
        "select setseed({});
         alter table tree_tiles disable trigger all;
         create function forged(leaf bytea) returns bytea language sql as
             $$ select convert_to(regexp_replace(convert_from(leaf, 'UTF8'), '\"event_type\":\"', \
                '\"event_type\":\"forged.'), 'UTF8') $$;
         create function forged_row(j journal) returns journal language plpgsql as $$
         begin
             j.leaf := forged(j.leaf);
             j.leaf_hash := sha256('\\x00'::bytea || j.leaf);
             j.entity_seq := j.entity_seq + 1;
             j.arrival := j.arrival + 1000000000;
             return j;
         end $$;
         create function least_row(j journal) returns journal language plpgsql as $$
         begin
             j.leaf := forged(j.leaf);
             j.leaf_hash := sha256('\\x00'::bytea || j.leaf);
             j.stream_id := '00000000-0000-0000-0000-000000000000';
             j.entity_seq := -9223372036854775808;
             j.arrival := -9223372036854775808;
             return j;
         end $$;
         create function moved_row(j journal, stream uuid, seq bigint) returns journal language plpgsql as $$
         begin
             j.stream_id := stream; j.payment_id := stream; j.entity_seq := seq;
             j.arrival := j.arrival + 1000000000;
             return j;
         end $$;
         create function invented(p payments, id uuid) returns payments language plpgsql as $$
         begin p.payment_id := id; return p; end $$;
         create function invented(t transactions) returns transactions language plpgsql as $$
         begin t.transaction_id := gen_random_uuid(); return t; end $$;
         create function invented_attempt(a attempts) returns attempts language plpgsql as $$
         begin a.number := a.number + 1000; a.attempt_id := gen_random_uuid(); return a; end $$;
         create function invented_action(o operator_actions) returns operator_actions language plpgsql as $$
         begin o.action_id := gen_random_uuid(); return o; end $$;
         create function attempt(leaf bytea) returns int language sql as
             $$ select (regexp_match(convert_from(leaf, 'UTF8'), '\"attempt\":\"?([0-9]+)'))[1]::int $$;
         create function swap_positions(stream uuid) returns void language plpgsql as $$
         declare a bigint; b bigint;
         begin
             select position into a from journal_positions where stream_id = stream and entity_seq = 1;
             select position into b from journal_positions where stream_id = stream and entity_seq = 2;
             update journal_positions set position = 9000000000000 where position = a;
             update journal_positions set position = a where position = b;
             update journal_positions set position = b where position = 9000000000000;
         end $$;",
        f64::from(u32::try_from(seed % 1_000_000).unwrap_or(0)) / 1_000_000.0
    );
    for table in tables {
        let copy = format!("create table saved_{table} as select * from {table};");
        sql.push_str(&copy);
    }
    sql
}

/// Random entries of different payments.
pub async fn pick(client: &Client, kind: &Kind, count: usize) -> Vec<Target> {
    let sql = format!(
        "select stream_id::text, entity_seq, entry_id::text, position from ( \
             select distinct on (j.stream_id) j.stream_id, j.entity_seq, j.entry_id, p.position \
             from journal j join journal_positions p on p.arrival = j.arrival \
             where j.stream_id = j.payment_id and {} order by j.stream_id, random()) t \
         order by random() limit {count}",
        kind.which
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    let target = |row: tokio_postgres::Row| Target {
        stream: id(&row, 0),
        seq: row.get(1),
        entry: id(&row, 2),
        position: row.get(3),
    };
    rows.into_iter().map(target).collect()
}

fn id(row: &tokio_postgres::Row, column: usize) -> Uuid {
    row.get::<_, String>(column).parse().unwrap()
}

/// Does it.
pub async fn tamper(client: &Client, kind: &Kind, target: &Target) {
    let sql = kind
        .sql
        .replace("$stream", &format!("'{}'::uuid", target.stream))
        .replace("$entry", &format!("'{}'::uuid", target.entry))
        .replace("$position", &target.position.to_string())
        .replace("$seq", &target.seq.to_string());
    client
        .batch_execute(&sql)
        .await
        .unwrap_or_else(|error| panic!("{}: {error:?}", kind.name));
}
