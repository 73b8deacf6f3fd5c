-- Whoever asks for an erasure again gets it, whatever became of its row: where the log does not know the row's id, somebody
-- wrote it, and it takes the id of the entry that asks. There is one row for each customer, so no other can stand beside it.
grant update (erasure_id, tenant_id, reference_mac) on erasures to quittance_app;
comment on column erasures.finished_at is
    'When it was looked at for the last time, some time after it was done; null until then. That it was done says the log.';
comment on column erasures.payments is 'How many payments the customer had then; null until it is looked at for the last time.';
comment on column erasures.next_step_at is 'When it is to be taken up; null once it was looked at for the last time.';

-- What was committed after an erasure had ended kept a token and digests of its customer. Those that are done are looked at once
-- more: the log says so, and they are closed at once.
update erasures set finished_at = null, payments = null, next_step_at = now() where finished_at is not null;
