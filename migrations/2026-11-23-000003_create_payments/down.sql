drop table operator_actions;
drop table idempotency_records;
drop table attempts;
drop table transactions;
drop table payments;
