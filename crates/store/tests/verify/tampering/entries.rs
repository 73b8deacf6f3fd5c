//! Entries: their bytes, index columns and places.

use super::{ANY, FIRST, Kind, LAST, MIDDLE, ONCE, kind, whole};

const fn column(name: &'static str, sql: &'static str) -> Kind {
    kind(name, ANY, sql, &["COLUMN_DIFFERS"]).local()
}

/// Every kind of tampering with entries and their positions.
pub const KINDS: &[Kind] = &[
    // A leaf's bytes, its hash and its MAC.
    kind(
        "a byte of the leaf",
        ANY,
        "update journal set leaf = set_byte(leaf, (random() * (octet_length(leaf) - 1))::int, 1) where entry_id = $entry",
        &["LEAF_HASH_DIFFERS"],
    )
    .local(),
    kind(
        "the leaf, and its hash made to fit",
        ANY,
        "update journal set leaf = forged(leaf), leaf_hash = sha256('\\x00'::bytea || forged(leaf)) where entry_id = $entry",
        &["MAC_WRONG"],
    )
    .local(),
    kind(
        "the leaf, its hash, and the next link made to fit",
        MIDDLE,
        "update journal set leaf = forged(leaf), leaf_hash = sha256('\\x00'::bytea || forged(leaf)) where entry_id = $entry; \
         update journal j set leaf = convert_to(replace(convert_from(j.leaf, 'UTF8'), encode(s.leaf_hash, 'hex'), \
         encode(b.leaf_hash, 'hex')), 'UTF8') from saved_journal s, journal b where s.entry_id = $entry \
         and b.entry_id = $entry and j.stream_id = $stream and j.entity_seq = $seq + 1",
        &["MAC_WRONG"],
    )
    .local(),
    kind(
        "a leaf that is no entry",
        ANY,
        "update journal set leaf = 'nothing', leaf_hash = sha256('\\x00'::bytea || 'nothing'::bytea) where entry_id = $entry",
        &["LEAF_UNREADABLE"],
    )
    .local(),
    kind(
        "leaf_hash",
        ANY,
        "update journal set leaf_hash = sha256(leaf_hash) where entry_id = $entry",
        &["LEAF_HASH_DIFFERS"],
    )
    .local(),
    kind(
        "mac",
        ANY,
        "update journal set mac = sha256(mac) where entry_id = $entry",
        &["MAC_WRONG"],
    )
    .local(),
    kind(
        "mac_key_id, to one that is unknown",
        ANY,
        "update journal set mac_key_id = 'stolen' where entry_id = $entry",
        &["MAC_KEY_UNKNOWN"],
    )
    .local(),
    kind(
        "mac_key_id, to another of ours",
        ANY,
        "update journal set mac_key_id = 'test-1' where entry_id = $entry",
        &["MAC_WRONG"],
    )
    .local(),
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
    column(
        "occurred_at, to infinity",
        "update journal set occurred_at = 'infinity' where entry_id = $entry",
    ),
    column(
        "occurred_at, before all times",
        "update journal set occurred_at = '-infinity' where entry_id = $entry",
    ),
    column(
        "occurred_at, to the first year that there is",
        "update journal set occurred_at = '4714-11-24 00:00:00+00 BC' where entry_id = $entry",
    ),
    column(
        "occurred_at, to the last year that there is",
        "update journal set occurred_at = '294276-12-31 23:59:59.999999+00' where entry_id = $entry",
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
    whole(
        "the tail of the positions cut off",
        "p.position = (select max(position) - 5 from journal_positions)",
        "delete from journal_positions where position >= $position",
        &["HEAD_DIFFERS"],
    ),
    whole(
        "the head",
        "p.position = 3",
        "update sequencer_head set next_position = next_position - 1",
        &["HEAD_DIFFERS"],
    ),
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
];
