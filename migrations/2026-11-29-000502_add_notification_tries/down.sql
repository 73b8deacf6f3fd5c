revoke update (attempts_before) on notification_deliveries from quittance_app;
alter table notification_deliveries drop column attempts_before;
