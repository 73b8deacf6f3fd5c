drop index webhook_inbox_payment_ids_idx;
alter table webhook_inbox drop column payment_ids;
