-- Dead letters are removed in time, too, and a deleted endpoint goes with the last of what it was told.
set local lock_timeout = '5s';

create index notification_deliveries_dead_ended_at_idx on notification_deliveries (ended_at) where state = 'DEAD';

grant delete on notification_endpoints to quittance_app;
