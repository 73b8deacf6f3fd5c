-- When the log was last verified without being asked, so that of several servers one does it.
create table verification_schedule (
    id boolean not null default true,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    mismatches bigint,
    constraint verification_schedule_pkey primary key (id),
    constraint verification_schedule_one_row check (id),
    constraint verification_schedule_mismatches_not_negative check (mismatches >= 0),
    constraint verification_schedule_finished_completely check ((finished_at is null) = (mismatches is null))
);
comment on table verification_schedule is 'The newest scheduled verification of the audit log: one row.';
comment on column verification_schedule.id is 'Always true.';
comment on column verification_schedule.started_at is 'When it was begun (database clock); at first, when the table was made.';
comment on column verification_schedule.finished_at is 'When it came to its end; null while it runs, and if it was interrupted.';
comment on column verification_schedule.mismatches is 'What it found; null until it came to its end.';
insert into verification_schedule default values;

grant select, update (started_at, finished_at, mismatches) on verification_schedule to quittance_app;
