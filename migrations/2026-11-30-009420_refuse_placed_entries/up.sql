-- Where an entry arrives is no part of what its MAC covers. Whoever owns the database could give an entry that has its position
-- another arrival, and the sequencer gave it another position. It now looks whether an entry has one. That costs each entry
-- one more index entry, written by the sequencer alone: no commit of a payment pays for it.
set local lock_timeout = '5s';

-- On a large table, make it before, with "create index concurrently": it is then found. Not unique: a second row that
-- somebody wrote must not stop the sequencer.
create index if not exists journal_positions_stream_id_entity_seq_idx on journal_positions (stream_id, entity_seq);

-- Nobody reads the reasons but people, so that the new one may be written at once.
alter table refused_entries
    drop constraint refused_entries_reason_known,
    add constraint refused_entries_reason_known check (reason in (
        'MAC_MISSING', 'MAC_WRONG', 'NOT_ITS_ROW', 'UNREADABLE', 'ARRIVAL_TAKEN', 'ALREADY_PLACED'));
