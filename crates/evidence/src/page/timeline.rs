//! What happened: the summary, and entry by entry.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::html::Html;
use crate::{
    bundle::{Bundle, CheckedEntry, Report},
    leaf::{Amounts, EntryResult, Leaf},
};

/// The payment at a glance: what its entries say together.
pub(super) fn summary(page: &mut Html, report: &Report) {
    let leaves = || report.entries.iter().map(|entry| &entry.leaf);
    let (Some(first), Some(last)) = (leaves().next(), leaves().next_back()) else {
        return;
    };
    let latest = |field: fn(&Leaf) -> Option<&str>| leaves().rev().find_map(field);
    // What opened the payment: its account and reference are the payment's, those of a refund are the refund's.
    let opening = |field: fn(&Leaf) -> Option<&str>| {
        let own = leaves().filter(|leaf| leaf.transaction_id == first.transaction_id);
        own.rev().find_map(field)
    };
    page.open("section", "card").open("dl", "facts");
    page.opt_fact(
        "Amount",
        "amount",
        leaves().find_map(step_amount).as_deref(),
    );
    page.opt_fact(
        "State",
        "",
        latest(|leaf| leaf.state_to.as_deref())
            .map(title)
            .as_deref(),
    );
    page.opt_fact(
        "Order of the merchant",
        "",
        latest(|leaf| leaf.merchant_reference.as_deref()),
    );
    page.opt_fact(
        "Capture",
        "",
        latest(|leaf| leaf.capture_method.as_deref())
            .map(title)
            .as_deref(),
    );
    page.opt_fact(
        "Provider account",
        "",
        opening(|leaf| leaf.provider_account.as_deref()),
    );
    page.opt_fact(
        "Provider\u{2019}s reference",
        "mono",
        opening(|leaf| leaf.provider_reference.as_deref()),
    );
    page.fact("Accepted", "", &time(first.recorded_at));
    page.fact("Last entry", "", &time(last.recorded_at));
    page.fact("Tenant", "", &first.tenant_id);
    page.close("dl");
    if let Some((amounts, leaf)) = leaves().rev().find_map(|leaf| Some((leaf.amounts?, leaf))) {
        page.open("dl", "facts sums");
        for (name, minor) in sums(&amounts) {
            page.opt_fact(name, "amount", amount(leaf, minor).as_deref());
        }
        page.close("dl");
    }
    page.close("section");
}

/// The payment's transactions, each with what is its own, in the order in which they were made.
pub(super) fn transactions(page: &mut Html, report: &Report) {
    let mut own: Vec<(Uuid, Vec<&Leaf>)> = Vec::new();
    for leaf in report.entries.iter().map(|entry| &entry.leaf) {
        let Some(id) = leaf.transaction_id else {
            continue;
        };
        match own.iter_mut().find(|(known, _)| *known == id) {
            Some((_, leaves)) => leaves.push(leaf),
            None => own.push((id, vec![leaf])),
        }
    }
    if own.is_empty() {
        return;
    }
    page.open("section", "").text("h2", "", "Transactions");
    page.text(
        "p",
        "note",
        "What the provider was asked for, as of the last entry about each.",
    );
    for (id, leaves) in &own {
        transaction(page, *id, leaves);
    }
    page.close("section");
}

fn transaction(page: &mut Html, id: Uuid, leaves: &[&Leaf]) {
    let latest =
        |field: fn(&Leaf) -> Option<&str>| leaves.iter().rev().find_map(|leaf| field(leaf));
    let detail = |name: &str| leaves.iter().rev().find_map(|leaf| leaf.details.get(name));
    page.open("dl", "facts card transaction");
    let kind = detail("transaction_kind").map(|kind| title(kind));
    page.opt_fact("Transaction", "", kind.as_deref());
    let of = leaves.iter().rev().find_map(|leaf| step_amount(leaf));
    page.opt_fact("Amount", "amount", of.as_deref());
    let state = detail("transaction_state").map(|state| title(state));
    page.opt_fact("State", "", state.as_deref());
    let account = latest(|leaf| leaf.provider_account.as_deref());
    page.opt_fact("Provider account", "", account);
    let reference = latest(|leaf| leaf.provider_reference.as_deref());
    page.opt_fact("Provider\u{2019}s reference", "mono", reference);
    page.fact("Our reference", "mono", &id.to_string());
    page.close("dl");
}

/// The sums worth showing: the two main ones, and the others where they are not 0.
fn sums(amounts: &Amounts) -> impl Iterator<Item = (&'static str, i64)> {
    [
        ("Authorized", amounts.authorized),
        ("Captured", amounts.captured),
        ("Capture pending", amounts.capture_pending),
        ("Released", amounts.voided),
        ("Release pending", amounts.void_pending),
        ("Refunded", amounts.refunded),
        ("Refund pending", amounts.refund_pending),
        ("Charged back", amounts.charged_back),
        ("Beyond the limits", amounts.excess),
    ]
    .into_iter()
    .enumerate()
    .filter(|(place, (_, minor))| *place < 2 || *minor != 0)
    .map(|(_, sum)| sum)
}

/// Entry by entry.
pub(super) fn entries(page: &mut Html, bundle: &Bundle, report: &Report) {
    page.open("section", "").text("h2", "", "What happened");
    page.text("p", "note", "All times are UTC, as the log recorded them.");
    page.open("ol", "timeline");
    for (checked, stored) in report.entries.iter().zip(&bundle.entries) {
        entry(page, checked, stored.leaf_index);
    }
    page.close("ol").close("section");
}

fn entry(page: &mut Html, checked: &CheckedEntry, leaf_index: u64) {
    let leaf = &checked.leaf;
    let (class, result) = match leaf.result {
        EntryResult::Success => ("good", "success"),
        EntryResult::Failure => ("bad", "failure"),
        EntryResult::Unknown => ("open", "not known yet"),
    };
    page.open("li", class).open("div", "head");
    page.text("span", "number", &leaf.entity_seq.to_string());
    page.text("h3", "", &title(&leaf.event_type));
    page.text("span", "result", result);
    if let Some(amount) = step_amount(leaf) {
        page.text("span", "amount", &amount);
    }
    page.close("div");
    page.text("p", "when", &time(leaf.recorded_at));
    page.open("dl", "facts");
    page.opt_fact("State", "", states(leaf).as_deref());
    page.fact("By", "", &actor(leaf));
    page.opt_fact("Cause", "", cause(leaf).as_deref());
    page.opt_fact(
        "Decline",
        "",
        leaf.decline_code.as_deref().map(title).as_deref(),
    );
    page.opt_fact("Answer to the caller", "", leaf.grpc_status.as_deref());
    page.opt_fact("Attempt", "", attempt(leaf).as_deref());
    page.opt_fact("Next attempt", "", leaf.next_retry_at.map(time).as_deref());
    page.opt_fact("Provider account", "", leaf.provider_account.as_deref());
    page.opt_fact(
        "Provider\u{2019}s reference",
        "mono",
        leaf.provider_reference.as_deref(),
    );
    for (name, value) in leaf.details.iter().filter(|(name, _)| !is_digest(name)) {
        let (name, value) = detail(name, value);
        page.fact(&name, "", &value);
    }
    page.close("dl");
    technical(page, checked, leaf_index);
    page.close("li");
}

/// Whether a detail is a digest of a row: it is for whoever verifies the log against the database.
fn is_digest(name: &str) -> bool {
    name == "rows_before" || name == "transaction_row" || name.starts_with("transaction_row.")
}

/// A detail, in words where it is one of a payment's own.
fn detail(name: &str, value: &str) -> (String, String) {
    if let Some(id) = name.strip_prefix("transaction_state.") {
        return (format!("State of transaction {id}"), title(value));
    }
    let (known, value) = match name {
        "attempt_account" => ("Sent to account", value.to_owned()),
        "attempt_operation" => ("Asked of the provider", title(value)),
        "attempt_outcome" => ("What the provider\u{2019}s answer told", title(value)),
        "attempt_cause" => ("Why it told nothing", title(value)),
        "attempt_latency_us" => ("Microseconds until then", value.to_owned()),
        "transaction_kind" | "transaction_state" => return (title(name), title(value)),
        _ => return (title(name), value.to_owned()),
    };
    (known.to_owned(), value)
}

/// What an engineer looks for.
fn technical(page: &mut Html, checked: &CheckedEntry, leaf_index: u64) {
    let leaf = &checked.leaf;
    page.open("dl", "technical");
    page.fact("entry", "", &leaf.entry_id.to_string());
    let transaction = leaf.transaction_id.map(|id| id.to_string());
    page.opt_fact("transaction", "", transaction.as_deref());
    page.fact("place in the log", "", &leaf_index.to_string());
    page.fact("leaf hash", "", &checked.leaf_hash.to_string());
    if leaf.trace_id != [0; 16] {
        page.fact("trace", "", &hex::encode(leaf.trace_id));
    }
    let method = leaf.source.rpc_method.as_deref();
    page.opt_fact("call", "", method);
    page.opt_fact("from", "", leaf.source.peer.as_deref());
    let source = &leaf.source;
    let recorded_by = format!(
        "{} {} ({})",
        source.service, source.version, source.instance
    );
    page.fact("recorded by", "", &recorded_by);
    page.close("dl");
}

/// The personal values that were disclosed, which the log itself holds as digests only.
pub(super) fn disclosures(page: &mut Html, report: &Report) {
    if report.disclosures.is_empty() {
        return;
    }
    page.open("section", "").text("h2", "", "Disclosed details");
    page.text(
        "p",
        "note",
        "The log holds these as salted digests only. The values are disclosed in this file, and are \
         those that were recorded.",
    );
    page.open("dl", "facts card");
    for disclosure in &report.disclosures {
        page.fact(&title(disclosure.name()), "", disclosure.value());
    }
    page.close("dl").close("section");
}

fn states(leaf: &Leaf) -> Option<String> {
    match (leaf.state_from.as_deref(), leaf.state_to.as_deref()) {
        (Some(from), Some(to)) if from != to => {
            Some(format!("{} \u{2192} {}", title(from), title(to)))
        }
        (_, Some(state)) | (Some(state), None) => Some(title(state)),
        (None, None) => None,
    }
}

fn actor(leaf: &Leaf) -> String {
    let actor = &leaf.actor;
    let kind = match actor.kind.as_str() {
        "api_key" => "API key".to_owned(),
        other => title(other),
    };
    let by = format!("{kind} \u{201c}{}\u{201d}", actor.id);
    match &actor.auth_method {
        Some(method) => format!("{by}, by {}", title(method).to_lowercase()),
        None => by,
    }
}

fn cause(leaf: &Leaf) -> Option<String> {
    let cause = leaf.cause.as_ref()?;
    let again = if cause.retryable {
        ", can be tried again"
    } else {
        ""
    };
    Some(format!("{}{again}", title(&cause.code)))
}

fn attempt(leaf: &Leaf) -> Option<String> {
    let attempt = leaf.attempt?;
    let most = leaf.max_attempts.map(|most| format!(" of at most {most}"));
    Some(format!("{attempt}{}", most.unwrap_or_default()))
}

fn step_amount(leaf: &Leaf) -> Option<String> {
    amount(leaf, leaf.amount_minor?)
}

/// An amount as people write it, in the currency of the entry: `12 345.67 EUR`.
fn amount(leaf: &Leaf, minor: i64) -> Option<String> {
    let currency = leaf.currency.as_deref()?;
    let exponent = usize::from(leaf.currency_exponent?);
    let sign = if minor < 0 { "\u{2212}" } else { "" };
    let digits = format!("{:0width$}", minor.unsigned_abs(), width = exponent + 1);
    let (whole, fraction) = digits.split_at(digits.len() - exponent);
    let mut grouped = String::with_capacity(whole.len() * 2);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            // Narrow and unbreakable.
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{grouped}{point}{fraction}\u{a0}{currency}"))
}

/// A stable name as words: `payment.outcome_unknown` is "Payment outcome unknown".
fn title(name: &str) -> String {
    let words = name.replace(['.', '_'], " ").to_lowercase();
    let mut letters = words.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_words() {
        assert_eq!(title("payment.outcome_unknown"), "Payment outcome unknown");
        assert_eq!(title(""), "");
    }
}
