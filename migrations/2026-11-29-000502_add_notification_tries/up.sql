-- Which attempts count against the limit on how often a notification is begun.
set local lock_timeout = '5s';

alter table notification_deliveries add column attempts_before integer not null default 0;
alter table notification_deliveries
    add constraint notification_deliveries_attempts_before_in_range check (attempts_before between 0 and attempts);

comment on column notification_deliveries.attempts_before is
    'The attempts that do not count against the limit: those before it was last replayed, and those that our own database failed.';

grant update (attempts_before) on notification_deliveries to quittance_app;
