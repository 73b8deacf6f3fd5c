alter table checkpoints drop column mac_key_id, drop column mac;
