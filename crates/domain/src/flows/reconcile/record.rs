//! What a reconciliation leaves in the log.
//!
//! Findings go into a stream of their own, whose id is made of what they are: the account, the export's digest, whose they
//! are, and the findings. So the same findings about the same export find that they are there already, whoever made them
//! and however often: the journal's key (stream, number) refuses a second one. A run that was cut short is completed.
//! That somebody reconciled is recorded each time, and says whether it brought anything new.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveTime, SecondsFormat, Utc};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::context::Caller;
use crate::error::FlowError;
use crate::flows::audit::{AuditEvent, AuditLog};
use crate::flows::read_error;
use crate::ids::TenantId;
use crate::reconciliation::{Booked, Bookings, Difference, Finding, FindingKind, Settled};

use super::{ReconcileError, Reconciled, Wanted};

/// Name of the streams that hold findings.
const STREAM: &str = "reconciliation";
/// How often an entry is offered anew after another of the same stream got in between.
const RECORD_TRIES: usize = 8;

/// What one finding's entry says.
type Details = BTreeMap<String, String>;

/// What the entries of one run have in common.
pub(super) struct Run<'a> {
    pub log: &'a AuditLog,
    pub bookings: &'a dyn Bookings,
    pub caller: &'a Caller,
    pub wanted: &'a Wanted,
}

/// Somebody begins to reconcile.
pub(super) async fn started(
    log: &AuditLog,
    caller: &Caller,
    wanted: &Wanted,
    asked: bool,
) -> Result<(), FlowError> {
    let source = if asked { "provider" } else { "export" };
    let details = with_account(wanted, [("source", source.to_owned())]);
    let event = AuditEvent::done("reconciliation.started", details);
    record(log, caller, event).await
}

/// It came to nothing.
pub(super) async fn failed(
    log: &AuditLog,
    caller: &Caller,
    wanted: &Wanted,
    error: &ReconcileError,
) -> Result<(), FlowError> {
    let mut details = with_account(wanted, []);
    let cause = match error {
        ReconcileError::Flow(_) => "NOT_DONE",
        ReconcileError::Export(unreadable) => {
            details.insert("line".to_owned(), unreadable.line.to_string());
            "EXPORT_UNREADABLE"
        }
        ReconcileError::TooManyLines(_) => "EXPORT_TOO_LARGE",
        ReconcileError::NoSettlements => "NO_SETTLEMENTS",
        ReconcileError::Provider(cause) => cause.name(),
        ReconcileError::NoRange => "NO_RANGE",
        ReconcileError::Interrupted => "INTERRUPTED",
        ReconcileError::NotRead => "NOT_READ",
    };
    let event = AuditEvent {
        refused: Some(cause),
        ..AuditEvent::done("reconciliation.failed", details)
    };
    record(log, caller, event).await
}

impl Run<'_> {
    /// Puts findings on record, those of each tenant in a stream of their own.
    pub(super) async fn findings(
        &self,
        reconciled: &mut Reconciled,
        kept: &[Finding],
    ) -> Result<(), FlowError> {
        let mut of_tenants: BTreeMap<Option<&TenantId>, Vec<&Finding>> = BTreeMap::new();
        for finding in kept {
            let tenant = finding.ours.as_ref().map(|ours| &ours.tenant);
            of_tenants.entry(tenant).or_default().push(finding);
        }
        let mut added = false;
        for (tenant, findings) in of_tenants {
            added |= self.stream(tenant, reconciled, &findings).await?;
        }
        reconciled.recorded = u64::try_from(kept.len()).unwrap_or(u64::MAX);
        reconciled.repeated = !kept.is_empty() && !added;
        Ok(())
    }

    /// Completes the stream of these findings. Says whether anything was missing there. What is nobody's is the caller's.
    async fn stream(
        &self,
        tenant: Option<&TenantId>,
        reconciled: &Reconciled,
        findings: &[&Finding],
    ) -> Result<bool, FlowError> {
        let digest = hex::encode(reconciled.digest);
        let details: Vec<_> = findings
            .iter()
            .map(|it| self.details(it, &digest))
            .collect();
        let stream = stream_id(tenant, reconciled, &details);
        let caller = Caller {
            tenant: tenant.unwrap_or(&self.caller.tenant).clone(),
            ..self.caller.clone()
        };
        let mut head = self
            .bookings
            .stream_head(stream)
            .await
            .map_err(read_error)?;
        let (mut added, mut tries) = (false, 0);
        loop {
            let written = head.map_or(0, |head| head.entity_seq);
            let at = usize::try_from(written).unwrap_or(usize::MAX);
            let Some((finding, details)) = findings.get(at).zip(details.get(at)) else {
                return Ok(added);
            };
            let event = AuditEvent {
                payment: finding.ours.as_ref().map(|ours| ours.payment),
                ..AuditEvent::done(event_type(finding.kind), details.clone())
            };
            let appended = self
                .log
                .append_to(&caller, event, STREAM, stream, head)
                .await?;
            match appended {
                Some(now) => (head, added) = (Some(now), true),
                // Another run of the same export writes the same.
                None if tries < RECORD_TRIES => {
                    tries += 1;
                    head = self
                        .bookings
                        .stream_head(stream)
                        .await
                        .map_err(read_error)?;
                }
                None => return Err(FlowError::ConcurrentChange),
            }
        }
    }

    fn details(&self, finding: &Finding, digest: &str) -> Details {
        let mut details = with_account(self.wanted, [("export_sha256", digest.to_owned())]);
        let mut add = |name: &str, value: String| {
            details.insert(name.to_owned(), value);
        };
        if !finding.differs.is_empty() {
            let names: Vec<_> = finding
                .differs
                .iter()
                .copied()
                .map(Difference::name)
                .collect();
            add("differs", names.join(" "));
        }
        if let Some((line, named)) = &finding.unknown {
            add("line", line.to_string());
            add("type", named.clone());
        }
        if let Some(ours) = &finding.ours {
            of_ours(ours, &mut add);
        }
        if let Some(theirs) = &finding.theirs {
            of_theirs(theirs, &mut add);
        }
        details
    }

    /// It came to its end.
    pub(super) async fn finished(&self, reconciled: &Reconciled) -> Result<(), FlowError> {
        let count = |kind| reconciled.findings.get(&kind).copied().unwrap_or_default();
        let details = with_account(
            self.wanted,
            [
                ("export_sha256", hex::encode(reconciled.digest)),
                ("from", time(reconciled.window.from)),
                ("to", time(reconciled.window.to)),
                (
                    "margin_seconds",
                    reconciled.window.margin.num_seconds().to_string(),
                ),
                ("lines", reconciled.lines.to_string()),
                ("agreed", reconciled.agreed.to_string()),
                ("not_judged", reconciled.not_judged.to_string()),
                ("missing", count(FindingKind::Missing).to_string()),
                ("extra", count(FindingKind::Extra).to_string()),
                ("differing", count(FindingKind::Differing).to_string()),
                ("unknown_lines", count(FindingKind::UnknownLine).to_string()),
                ("findings_recorded", reconciled.recorded.to_string()),
                ("repeated", reconciled.repeated.to_string()),
            ],
        );
        let event = AuditEvent::done("reconciliation.finished", details);
        record(self.log, self.caller, event).await
    }
}

fn of_ours(ours: &Booked, add: &mut impl FnMut(&str, String)) {
    add("transaction_id", ours.transaction.to_string());
    add("kind", ours.kind.name().to_owned());
    add("our_state", ours.state.name().to_owned());
    add("our_amount", format!("{} {}", ours.amount, ours.currency));
    if let Some(reference) = &ours.provider_reference {
        add("provider_reference", reference.to_string());
    }
}

fn of_theirs(theirs: &Settled, add: &mut impl FnMut(&str, String)) {
    // Not the line: in a tenant's log it would tell how many lines of others stand before it.
    add("kind", theirs.kind.name().to_owned());
    add(
        "their_amount",
        format!("{} {}", theirs.total, theirs.currency),
    );
    if let Some(reference) = theirs.names.reference() {
        add("provider_reference", reference.to_string());
    }
}

fn event_type(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Missing => "reconciliation.missing",
        FindingKind::Extra => "reconciliation.extra",
        FindingKind::Differing => "reconciliation.differing",
        FindingKind::UnknownLine => "reconciliation.unknown_line",
    }
}

/// A UUIDv7 of the day on which what was compared ends, as every stream's is one of when it opened, with a digest in place of
/// its random bits. Only of the day: the time of an export's last line is another tenant's affair.
fn stream_id(tenant: Option<&TenantId>, reconciled: &Reconciled, findings: &[Details]) -> Uuid {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(text);
    };
    add(tenant.map_or("", TenantId::as_str));
    for details in findings {
        for (name, value) in details {
            add(name);
            add(value);
        }
        add("");
    }
    let digest = digest.finalize();
    let mut bits = [0; 10];
    for (bit, byte) in bits.iter_mut().zip(digest) {
        *bit = byte;
    }
    let opened = reconciled.opened_at.date_naive().and_time(NaiveTime::MIN);
    let opened = opened.and_utc().timestamp_millis();
    Builder::from_unix_timestamp_millis(u64::try_from(opened).unwrap_or_default(), &bits)
        .into_uuid()
}

fn with_account<const N: usize>(wanted: &Wanted, facts: [(&str, String); N]) -> Details {
    let account = ("provider_account", wanted.account.to_string());
    let facts = facts.into_iter().chain([account]);
    facts
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

async fn record(log: &AuditLog, caller: &Caller, event: AuditEvent) -> Result<(), FlowError> {
    for _ in 1..RECORD_TRIES {
        match log.record(caller, event.clone()).await {
            Err(FlowError::ConcurrentChange) => {}
            other => return other,
        }
    }
    log.record(caller, event).await
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
