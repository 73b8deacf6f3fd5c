//! Findings and the summary, for people and for programs.

use quittance_domain::money::{Currency, format_minor_units};
use quittance_proto::v1;
use serde_json::{Value, json};

use crate::commands::payments::plain;

/// A finding: two lines, or one of JSON.
pub(super) fn finding(found: &v1::ReconciliationFinding, json: bool) -> String {
    let kind = named(found.kind().as_str_name(), "RECONCILIATION_FINDING_KIND_");
    let differs: Vec<_> = found
        .differences()
        .map(|it| named(it.as_str_name(), "RECONCILIATION_DIFFERENCE_"))
        .collect();
    let our_state = found
        .our_amount
        .as_ref()
        .map(|_| named(found.our_state().as_str_name(), "TRANSACTION_STATE_"));
    if json {
        let finding = json!({
            "kind": kind,
            "differs": differs,
            "movement": found.movement,
            "tenant_id": found.tenant_id,
            "payment_id": found.payment_id,
            "transaction_id": found.transaction_id,
            "provider_reference": found.provider_reference,
            "line": found.line,
            "our_amount": found.our_amount.as_ref().map(amount),
            "our_state": our_state,
            "their_amount": found.their_amount.as_ref().map(amount),
            "unknown_type": found.unknown_type,
        });
        return json!({"finding": finding}).to_string();
    }
    let mut head = vec![kind.to_owned()];
    head.extend((!differs.is_empty()).then(|| format!("({})", differs.join(", "))));
    head.extend(Some(plain(&found.movement)).filter(|text| !text.is_empty()));
    head.extend(
        found
            .our_amount
            .as_ref()
            .map(|it| format!("ours {}", written(it))),
    );
    head.extend(our_state.map(str::to_owned));
    head.extend(
        found
            .their_amount
            .as_ref()
            .map(|it| format!("theirs {}", written(it))),
    );
    if !found.unknown_type.is_empty() {
        head.push(format!("type \"{}\"", plain(&found.unknown_type)));
    }
    let mut places = Vec::new();
    for (name, value) in [
        ("payment", &found.payment_id),
        ("transaction", &found.transaction_id),
        ("reference", &found.provider_reference),
        ("tenant", &found.tenant_id),
    ] {
        if !value.is_empty() {
            places.push(format!("{name} {}", plain(value)));
        }
    }
    places.extend((found.line > 0).then(|| format!("line {}", found.line)));
    format!("{}\n  {}", head.join("  "), places.join(", "))
}

/// The end of a run.
pub(super) fn summary(summary: &v1::ReconciliationSummary, json: bool) -> String {
    let time =
        |time: Option<&prost_types::Timestamp>| time.map(ToString::to_string).unwrap_or_default();
    let range = [
        time(summary.from_time.as_ref()),
        time(summary.to_time.as_ref()),
    ];
    if json {
        summary_object(summary, &range).to_string()
    } else {
        summary_text(summary, &range)
    }
}

fn summary_object(summary: &v1::ReconciliationSummary, [from, to]: &[String; 2]) -> Value {
    json!({"summary": {
        "export_sha256": summary.export_sha256,
        "from": from,
        "to": to,
        "margin_seconds": summary.margin_seconds,
        "complete": summary.complete,
        "lines": summary.lines,
        "passed_lines": summary.passed_lines,
        "agreed": summary.agreed,
        "not_judged": summary.not_judged,
        "missing": summary.missing,
        "extra": summary.extra,
        "differing": summary.differing,
        "unknown_lines": summary.unknown_lines,
        "ignored_columns": summary.ignored_columns,
        "findings_recorded": summary.findings_recorded,
        "repeated": summary.repeated,
    }})
}

fn summary_text(summary: &v1::ReconciliationSummary, [from, to]: &[String; 2]) -> String {
    let mut lines = vec![
        format!(
            "Compared {from} to {to}: {} lines, {} passed over.",
            summary.lines, summary.passed_lines
        ),
        format!(
            "{} agree, {} missing, {} extra, {} differ, {} lines of unknown type; {} could not be judged.",
            summary.agreed,
            summary.missing,
            summary.extra,
            summary.differing,
            summary.unknown_lines,
            summary.not_judged
        ),
    ];
    if !summary.complete {
        let why = "The export need not have everything of that time, so nothing is called missing: say --from and --to.";
        lines.push(why.to_owned());
    }
    if summary.repeated {
        let before = "The same was found about this export before; nothing was added to the log.";
        lines.push(before.to_owned());
    } else if summary.findings_recorded > 0 {
        let recorded = summary.findings_recorded;
        lines.push(format!("{recorded} findings were put into the log."));
    }
    if !summary.ignored_columns.is_empty() {
        let ignored = plain(&summary.ignored_columns.join(", "));
        lines.push(format!("Columns not looked at: {ignored}."));
    }
    let digest = plain(&summary.export_sha256);
    lines.push(format!("SHA-256 of the export: {digest}"));
    lines.join("\n")
}

fn named<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn amount(money: &v1::Money) -> Value {
    json!({"minor_units": money.minor_units, "currency": money.currency_code})
}

fn written(money: &v1::Money) -> String {
    Currency::parse(&money.currency_code).map_or_else(
        |_| plain(&format!("{} {}", money.minor_units, money.currency_code)),
        |currency| format_minor_units(money.minor_units, currency),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differing() -> v1::ReconciliationFinding {
        let money = |minor_units| v1::Money {
            minor_units,
            currency_code: "EUR".to_owned(),
        };
        v1::ReconciliationFinding {
            kind: v1::ReconciliationFindingKind::Differing.into(),
            differences: vec![v1::ReconciliationDifference::Amount.into()],
            payment_id: "p".to_owned(),
            provider_reference: "ch_1\u{1b}[2J".to_owned(),
            movement: "CAPTURED".to_owned(),
            line: 7,
            our_amount: Some(money(1_000)),
            our_state: v1::TransactionState::Succeeded.into(),
            their_amount: Some(money(999)),
            ..v1::ReconciliationFinding::default()
        }
    }

    #[test]
    fn s78_a_finding_reads_as_people_write_and_cannot_steer_the_terminal() {
        let text = finding(&differing(), false);
        let expected = "DIFFERING  (AMOUNT)  CAPTURED  ours 10.00 EUR  SUCCEEDED  theirs 9.99 EUR\n  payment p, reference ch_1";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.ends_with(", line 7") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn s78_json_is_one_object_a_line() {
        let text = finding(&differing(), true);
        assert!(!text.contains('\n'));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["finding"]["kind"], "DIFFERING");
        assert_eq!(value["finding"]["their_amount"]["minor_units"], 999);
        let told = v1::ReconciliationSummary {
            missing: 2,
            ..v1::ReconciliationSummary::default()
        };
        let value: Value = serde_json::from_str(&summary(&told, true)).unwrap();
        assert_eq!(value["summary"]["missing"], 2);
        assert!(summary(&told, false).contains("0 agree, 2 missing"));
    }
}
