alter table refused_entries
    drop constraint refused_entries_reason_known,
    add constraint refused_entries_reason_known check (reason in (
        'MAC_MISSING', 'MAC_WRONG', 'NOT_ITS_ROW', 'UNREADABLE', 'ARRIVAL_TAKEN'));
drop index journal_positions_stream_id_entity_seq_idx;
