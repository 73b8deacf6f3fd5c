//! What happened to a payment, for people.

use quittance_proto::v1;

use crate::commands::payments::{money, plain, time};

/// Longest pause that is told in seconds rather than as a time.
const SHORT: i64 = 60;

/// What is shown with an entry that the service did not write.
const FORGED: &str =
    "NOT AUTHENTIC: changed or put there past the service; rely on nothing that it says";

/// A payment's entries in lines, oldest first; with `reads`, also who read them. What the whole payment is said to be is
/// taken from the newest entry that the service wrote.
pub(super) fn of(payment: &str, entries: &[v1::AuditEntry], reads: bool) -> String {
    let own: Vec<_> = entries
        .iter()
        .filter(|entry| entry.stream_id == payment)
        .collect();
    let mut lines = vec![format!("Payment {}", plain(payment))];
    let forged = own.iter().filter(|entry| !entry.authentic).count();
    if forged > 0 {
        lines.push(format!("  {forged} of its entries: {FORGED}"));
    }
    if let Some(newest) = own.iter().rfind(|entry| entry.authentic) {
        let reference = plain(&newest.merchant_reference);
        let known = [
            ("tenant", plain(&newest.tenant_id)),
            ("order", reference),
            ("state", newest.state_to.clone()),
        ];
        for (name, value) in known.iter().filter(|(_, value)| !value.is_empty()) {
            lines.push(format!("  {name:<8}{value}"));
        }
        lines.extend(amounts(newest));
    } else if own.is_empty() {
        lines.push("  The log has no entry of it.".to_owned());
    }
    let mut before = None;
    for entry in &own {
        lines.push(String::new());
        lines.extend(step(entry, before));
        before = entry.occurred_at.as_ref();
    }
    let others: Vec<_> = entries
        .iter()
        .filter(|entry| entry.stream_id != payment)
        .collect();
    if reads && !others.is_empty() {
        lines.push("\nWho read this".to_owned());
        lines.extend(others.iter().map(|entry| {
            let (at, who) = (time(entry.occurred_at.as_ref()), who(entry));
            let mark = if entry.authentic {
                ""
            } else {
                "  NOT AUTHENTIC"
            };
            format!("  {at}  {}  {who}{mark}", plain(&entry.event_type))
        }));
    }
    lines.join("\n")
}

/// The amounts that are not zero, as the newest entry says.
fn amounts(newest: &v1::AuditEntry) -> Option<String> {
    let all = newest.amounts.as_ref()?;
    let named = [
        ("authorized", &all.authorized),
        ("captured", &all.captured),
        ("being captured", &all.capture_pending),
        ("voided", &all.voided),
        ("being voided", &all.void_pending),
        ("refunded", &all.refunded),
        ("being refunded", &all.refund_pending),
        ("charged back", &all.charged_back),
        ("beyond the limits", &all.excess),
    ];
    let told: Vec<_> = named
        .into_iter()
        .filter(|(_, amount)| amount.as_ref().is_some_and(|it| it.minor_units != 0))
        .map(|(name, amount)| format!("{name} {}", money(amount.as_ref())))
        .collect();
    (!told.is_empty()).then(|| format!("  {:<8}{}", "amounts", told.join(", ")))
}

fn step(entry: &v1::AuditEntry, before: Option<&prost_types::Timestamp>) -> Vec<String> {
    let result = match entry.result() {
        v1::AuditResult::Success => "",
        v1::AuditResult::Failure => "  FAILED",
        v1::AuditResult::Unknown => "  NOT KNOWN",
        v1::AuditResult::Unspecified => "  ?",
    };
    let mut lines = vec![format!(
        "{:>3}  {}{}  {}{result}",
        entry.entity_seq,
        time(entry.occurred_at.as_ref()),
        pause(entry.occurred_at.as_ref(), before),
        plain(&entry.event_type),
    )];
    let mut tell = |text: String| {
        if !text.is_empty() {
            lines.push(format!("     {text}"));
        }
    };
    if !entry.authentic {
        tell(FORGED.to_owned());
    }
    tell(moved(entry));
    tell(done(entry));
    if let Some(cause) = &entry.cause {
        let again = if cause.retryable {
            ", may be tried again"
        } else {
            ""
        };
        tell(format!("because of {}{again}", plain(&cause.code)));
    }
    if entry.next_retry_at.is_some() {
        tell(format!("goes on at {}", time(entry.next_retry_at.as_ref())));
    }
    tell(format!("by {}", who(entry)));
    tell(format!(
        "entry {}, hash {}…",
        plain(&entry.entry_id),
        hex::encode(entry.leaf_hash.get(..8).unwrap_or_default()),
    ));
    lines
}

/// The payment's state, where it changed.
fn moved(entry: &v1::AuditEntry) -> String {
    let (from, to) = (plain(&entry.state_from), plain(&entry.state_to));
    if from.is_empty() {
        return to;
    }
    if from == to {
        return format!("stays {to}");
    }
    format!("{from} → {to}")
}

/// What was done, with how much, where.
fn done(entry: &v1::AuditEntry) -> String {
    let mut parts = Vec::new();
    if let Some(amount) = &entry.amount {
        parts.push(money(Some(amount)));
    }
    if !entry.provider_account.is_empty() {
        parts.push(format!("at {}", plain(&entry.provider_account)));
    }
    if !entry.provider_reference.is_empty() {
        parts.push(format!("as {}", plain(&entry.provider_reference)));
    }
    if entry.attempt > 0 {
        parts.push(format!("call {}", entry.attempt));
    }
    if !entry.decline_code.is_empty() {
        parts.push(format!("declined: {}", plain(&entry.decline_code)));
    }
    parts.join(" ")
}

/// Who did it, and by what.
fn who(entry: &v1::AuditEntry) -> String {
    let actor = entry.actor.as_ref();
    let mut text = actor.map_or_else(String::new, |actor| {
        format!("{} {}", plain(&actor.r#type), plain(&actor.id))
    });
    if let Some(source) = &entry.source {
        if !source.rpc_method.is_empty() {
            text = format!("{text} with {}", plain(&source.rpc_method));
        }
        if !source.peer.is_empty() {
            text = format!("{text} from {}", plain(&source.peer));
        }
    }
    text
}

/// How long after the step before, where that is short.
fn pause(at: Option<&prost_types::Timestamp>, before: Option<&prost_types::Timestamp>) -> String {
    let (Some(at), Some(before)) = (at, before) else {
        return String::new();
    };
    let nanos = i64::from(at.nanos) - i64::from(before.nanos);
    let millis = (at.seconds - before.seconds)
        .saturating_mul(1_000)
        .saturating_add(nanos / 1_000_000);
    if (0..SHORT * 1_000).contains(&millis) {
        format!(" (+{}.{:03} s)", millis / 1_000, millis % 1_000)
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, nanos: i32, from: &str, to: &str) -> v1::AuditEntry {
        v1::AuditEntry {
            entry_id: format!("e{seq}"),
            stream_id: "p1".into(),
            payment_id: "p1".into(),
            tenant_id: "acme".into(),
            entity_seq: seq,
            event_type: "payment.authorized".into(),
            occurred_at: Some(prost_types::Timestamp { seconds: 0, nanos }),
            result: v1::AuditResult::Success.into(),
            state_from: from.into(),
            state_to: to.into(),
            amount: Some(v1::Money {
                minor_units: 1250,
                currency_code: "EUR".into(),
            }),
            provider_account: "sandbox".into(),
            merchant_reference: "order\u{1b}[2J".into(),
            leaf_hash: vec![0xab; 32],
            authentic: true,
            ..Default::default()
        }
    }

    #[test]
    fn a_payment_s_life_is_told_step_by_step() {
        let entries = [
            entry(1, 0, "", "PENDING"),
            entry(2, 84_000_000, "PENDING", "AUTHORIZED"),
        ];
        let text = of("p1", &entries, false);
        for line in [
            "  state   AUTHORIZED",
            "  2  1970-01-01T00:00:00Z (+0.084 s)  payment.authorized",
            "     PENDING → AUTHORIZED",
            "     12.50 EUR at sandbox",
            "     entry e2, hash abababababababab…",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn s75_what_the_service_did_not_write_is_marked_and_decides_nothing() {
        let mut forged = entry(2, 84_000_000, "PENDING", "CAPTURED");
        forged.authentic = false;
        let text = of("p1", &[entry(1, 0, "", "PENDING"), forged.clone()], false);
        assert!(text.contains("  state   PENDING"), "{text}");
        assert!(
            text.contains(&format!("  1 of its entries: {FORGED}")),
            "{text}"
        );
        assert!(text.contains(&format!("     {FORGED}")), "{text}");
        let text = of("p1", &[entry(1, 0, "", "PENDING")], false);
        assert!(!text.contains(FORGED), "{text}");
        let text = of("p1", &[forged], false);
        assert!(
            !text.contains("  state ") && !text.contains("no entry"),
            "{text}"
        );
    }

    #[test]
    fn who_read_it_is_told_on_request() {
        let mut read = entry(1, 0, "", "");
        read.stream_id = "audit-access/x".into();
        read.event_type = "audit.entries_listed".into();
        let entries = [entry(1, 0, "", "PENDING"), read];
        assert!(!of("p1", &entries, false).contains("audit.entries_listed"));
        assert!(of("p1", &entries, true).contains("audit.entries_listed"));
        assert!(of("p2", &entries, false).contains("no entry"));
    }
}
