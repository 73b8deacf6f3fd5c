alter table cosignatures
    drop column previous_size,
    drop column mac,
    drop column mac_key_id;
