revoke update (closed_at, closed_by) on operator_actions from quittance_app;
drop index operator_actions_open_idx;
drop index operator_actions_subject_idx;
alter table operator_actions
    drop constraint operator_actions_kind_known,
    add constraint operator_actions_kind_known check (kind in (
        'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT')),
    drop constraint operator_actions_closed_completely,
    drop column closed_by,
    drop column closed_at;
drop index transactions_next_step_idx;
alter table transactions
    drop constraint transactions_open_case_known,
    add constraint transactions_open_case_known check (open_case in (
        'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT')),
    drop constraint transactions_retries_not_negative,
    drop column claimed_until,
    drop column resolved_by_operator,
    drop column retries;
alter table payments drop column routed;
