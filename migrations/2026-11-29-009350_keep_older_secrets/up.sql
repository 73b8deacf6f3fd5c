-- The secret before the one before: whoever repeats a rotation, because the answer was lost, does not cut off a receiver that
-- still has the first of three.
set local lock_timeout = '5s';

-- Not bound to previous_secret by a constraint: the release before clears that without knowing this one, which is not live
-- any more then.
alter table notification_endpoints add column older_secret bytea;
comment on column notification_endpoints.older_secret is 'The one before previous_secret, where that was still live when it was replaced; live as long as it. Encrypted.';
grant update (older_secret) on notification_endpoints to quittance_app;
