//! Reconciliations: what is asked, what was found, and what it came to.

use chrono::TimeDelta;
use quittance_domain::flows::reconcile::{Reconciled, Wanted};
use quittance_domain::ids::ProviderAccount;
use quittance_domain::reconciliation::{Difference, Finding, FindingKind};
use quittance_proto::v1;

use super::payment::{money, timestamp, transaction_state};
use super::scalars;
use super::violations::Violations;

/// Longest margin, in seconds: 366 days.
const MAX_MARGIN: u32 = 31_622_400;

/// What is to be reconciled.
///
/// # Errors
/// Every bad field.
pub fn start(request: Option<v1::ReconcileRequest>) -> Result<Wanted, Violations> {
    use v1::reconcile_request::Part;
    let mut violations = Violations::default();
    let bad = &mut violations;
    let Some(Part::Start(start)) = request.and_then(|request| request.part) else {
        bad.invalid("start", "must be the first message");
        return violations.finish(None);
    };
    let account = ProviderAccount::parse(start.provider_account);
    if let Err(error) = &account {
        bad.text("start.provider_account", *error);
    }
    let from = scalars::time(bad, "start.from_time", start.from_time);
    let to = scalars::time(bad, "start.to_time", start.to_time);
    if let (Some(Some(from)), Some(Some(to))) = (from, to)
        && from >= to
    {
        bad.invalid("start.to_time", "must lie after from_time");
    }
    if start
        .margin_seconds
        .is_some_and(|margin| margin > MAX_MARGIN)
    {
        bad.invalid("start.margin_seconds", "must be at most 31622400");
    }
    let margin = start
        .margin_seconds
        .map(|margin| TimeDelta::seconds(margin.into()));
    let wanted = account
        .ok()
        .zip(from)
        .zip(to)
        .map(|((account, from), to)| Wanted {
            account,
            from,
            to,
            margin,
        });
    violations.finish(wanted)
}

/// A finding as a message.
pub fn finding(found: &Finding) -> v1::ReconciliationFinding {
    let (ours, theirs) = (found.ours.as_ref(), found.theirs.as_ref());
    let their_reference = theirs.and_then(|theirs| theirs.names.reference());
    let reference = ours.and_then(|ours| ours.provider_reference.as_ref());
    let movement = ours
        .map(|ours| ours.kind)
        .or(theirs.map(|theirs| theirs.kind));
    let unknown = found.unknown.as_ref();
    let line = theirs.map(|theirs| theirs.line);
    v1::ReconciliationFinding {
        kind: kind(found.kind).into(),
        differences: found
            .differs
            .iter()
            .map(|it| difference(*it).into())
            .collect(),
        tenant_id: ours.map(|ours| ours.tenant.to_string()).unwrap_or_default(),
        payment_id: ours
            .map(|ours| ours.payment.to_string())
            .unwrap_or_default(),
        transaction_id: ours
            .map(|ours| ours.transaction.to_string())
            .unwrap_or_default(),
        movement: movement.map_or("", |movement| movement.name()).to_owned(),
        provider_reference: their_reference
            .or(reference)
            .map(ToString::to_string)
            .unwrap_or_default(),
        line: line.or(unknown.map(|(line, _)| *line)).unwrap_or_default(),
        our_amount: ours.map(|ours| money(ours.amount, ours.currency)),
        our_state: ours
            .map_or(v1::TransactionState::Unspecified, |ours| {
                transaction_state(ours.state)
            })
            .into(),
        their_amount: theirs.map(|theirs| money(theirs.total, theirs.currency)),
        unknown_type: unknown.map(|(_, named)| named.clone()).unwrap_or_default(),
    }
}

fn kind(kind: FindingKind) -> v1::ReconciliationFindingKind {
    match kind {
        FindingKind::Missing => v1::ReconciliationFindingKind::Missing,
        FindingKind::Extra => v1::ReconciliationFindingKind::Extra,
        FindingKind::Differing => v1::ReconciliationFindingKind::Differing,
        FindingKind::UnknownLine => v1::ReconciliationFindingKind::UnknownLine,
    }
}

fn difference(difference: Difference) -> v1::ReconciliationDifference {
    match difference {
        Difference::Amount => v1::ReconciliationDifference::Amount,
        Difference::Currency => v1::ReconciliationDifference::Currency,
        Difference::State => v1::ReconciliationDifference::State,
    }
}

/// What a run came to, as a message.
pub fn summary(reconciled: &Reconciled) -> v1::ReconciliationSummary {
    let count = |kind| reconciled.findings.get(&kind).copied().unwrap_or_default();
    let window = &reconciled.window;
    v1::ReconciliationSummary {
        export_sha256: hex::encode(reconciled.digest),
        from_time: Some(timestamp(window.from)),
        to_time: Some(timestamp(window.to)),
        margin_seconds: u32::try_from(window.margin.num_seconds()).unwrap_or(u32::MAX),
        complete: window.complete,
        lines: reconciled.lines,
        passed_lines: reconciled.passed,
        agreed: reconciled.agreed,
        not_judged: reconciled.not_judged,
        missing: count(FindingKind::Missing),
        extra: count(FindingKind::Extra),
        differing: count(FindingKind::Differing),
        unknown_lines: count(FindingKind::UnknownLine),
        ignored_columns: reconciled.ignored_columns.clone(),
        findings_recorded: reconciled.recorded,
        repeated: reconciled.repeated,
    }
}
