alter table tree_heads drop column mac_key_id, drop column mac;
