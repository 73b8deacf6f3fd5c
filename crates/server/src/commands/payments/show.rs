//! How payments and operator actions look on a terminal.

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use prost_types::Timestamp;
use quittance_domain::money::{Currency, format_minor_units};
use quittance_proto::v1;

/// Prefix of the names of kinds of operator actions.
pub(super) const KIND_PREFIX: &str = "OPERATOR_ACTION_KIND_";
/// Width of the names of a payment's facts.
const LABEL: usize = 20;

/// The text without what would steer a terminal: some of it was written by callers and providers.
pub(in crate::commands) fn plain(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(shown).collect()
}

/// A table of operator actions.
pub(super) fn actions(actions: &[v1::OperatorAction], with_closed: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let mut header = vec!["opened", "kind", "tenant", "payment", "transaction"];
    if with_closed {
        header.extend(["closed", "by entry"]);
    }
    table.set_header(header);
    for action in actions {
        let mut row = vec![
            time(action.open_time.as_ref()),
            kind(action.kind()).to_owned(),
            plain(&action.tenant_id),
            plain(&action.payment_id),
            plain(&action.transaction_id),
        ];
        if with_closed {
            row.push(time(action.close_time.as_ref()));
            row.push(plain(&action.closed_by_entry_id));
        }
        table.add_row(row);
    }
    table
}

/// A payment with its transactions, in lines.
pub(super) fn payment(payment: &v1::Payment) -> String {
    let mut lines = vec![format!("Payment {}", plain(&payment.payment_id))];
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<LABEL$}{value}"));
        }
    };
    let state = short(payment.state().as_str_name(), "PAYMENT_STATE_");
    fact("state", state.to_owned());
    fact("tenant", plain(&payment.tenant_id));
    fact("amount", money(payment.amount.as_ref()));
    for (name, amount) in amounts(payment) {
        if amount.is_some_and(|amount| amount.minor_units != 0) {
            fact(name, money(amount));
        }
    }
    fact("merchant reference", plain(&payment.merchant_reference));
    fact("provider account", plain(&payment.provider_account));
    fact("provider reference", plain(&payment.provider_reference));
    fact("why declined", declined(payment.decline.as_ref()));
    fact("why failed", failed(payment.failure.as_ref()));
    fact("real money", yes_or_no(payment.livemode).to_owned());
    fact("accepted", time(payment.create_time.as_ref()));
    fact("last changed", time(payment.update_time.as_ref()));
    fact("version", payment.version.to_string());
    for row in &payment.transactions {
        lines.push(String::new());
        lines.extend(transaction(row));
    }
    lines.extend(advice(payment));
    lines.join("\n")
}

fn transaction(row: &v1::Transaction) -> Vec<String> {
    let kind_of = short(row.kind().as_str_name(), "TRANSACTION_KIND_");
    let mut lines = vec![format!("{kind_of} {}", plain(&row.transaction_id))];
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<LABEL$}{value}"));
        }
    };
    let mut state = short(row.state().as_str_name(), "TRANSACTION_STATE_").to_owned();
    if row.resolved_by_operator {
        state.push_str(" (resolved by an operator)");
    }
    fact("state", state);
    fact("amount", money(row.amount.as_ref()));
    fact("provider account", plain(&row.provider_account));
    fact("provider reference", plain(&row.provider_reference));
    fact("why declined", declined(row.decline.as_ref()));
    fact("why failed", failed(row.failure.as_ref()));
    fact("reason", plain(&row.reason));
    fact("calls to provider", row.attempts.to_string());
    fact("goes on at", time(row.next_retry_time.as_ref()));
    let waiting: Vec<_> = row.open_operator_actions().map(kind).collect();
    fact("operator actions", waiting.join(", "));
    lines
}

/// What can be done about what waits for a person.
fn advice(payment: &v1::Payment) -> Vec<String> {
    let waiting = payment.transactions.iter().flat_map(|row| {
        let kinds = row.open_operator_actions();
        kinds.map(move |kind| (row, kind))
    });
    let mut lines: Vec<_> = waiting
        .map(|(row, kind)| what_to_do(&payment.payment_id, row, kind))
        .collect();
    // What became of a transaction answers all that ask for it.
    lines.dedup();
    lines
}

fn what_to_do(payment: &str, row: &v1::Transaction, asked: v1::OperatorActionKind) -> String {
    let (payment, id) = (plain(payment), plain(&row.transaction_id));
    let undecided = match row.state() {
        v1::TransactionState::Pending | v1::TransactionState::RequiresAction => true,
        v1::TransactionState::Unspecified
        | v1::TransactionState::Succeeded
        | v1::TransactionState::Declined
        | v1::TransactionState::Failed
        | v1::TransactionState::Reversed => false,
    };
    let for_want_of_it = match asked {
        v1::OperatorActionKind::AmountMismatch | v1::OperatorActionKind::RecoveryExhausted => true,
        v1::OperatorActionKind::Unspecified
        | v1::OperatorActionKind::ContradictingFact
        | v1::OperatorActionKind::ExcessAmount => false,
    };
    if undecided && for_want_of_it {
        return format!(
            "\nFind out from the provider what became of it, then:\n  \
             quittance payments resolve {payment} {id} --succeeded|--not-processed --reason …"
        );
    }
    let asked = kind(asked).to_ascii_lowercase().replace('_', "-");
    format!(
        "\nWhen you have dealt with {asked}:\n  \
         quittance payments resolve {payment} {id} --acknowledge {asked} --reason …"
    )
}

fn amounts(payment: &v1::Payment) -> [(&'static str, Option<&v1::Money>); 9] {
    [
        ("authorized", payment.amount_authorized.as_ref()),
        ("captured", payment.amount_captured.as_ref()),
        ("capture pending", payment.amount_capture_pending.as_ref()),
        ("voided", payment.amount_voided.as_ref()),
        ("void pending", payment.amount_void_pending.as_ref()),
        ("refunded", payment.amount_refunded.as_ref()),
        ("refund pending", payment.amount_refund_pending.as_ref()),
        ("charged back", payment.amount_charged_back.as_ref()),
        ("beyond the limits", payment.amount_excess.as_ref()),
    ]
}

fn kind(kind: v1::OperatorActionKind) -> &'static str {
    short(kind.as_str_name(), KIND_PREFIX)
}

pub(in crate::commands) fn short(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn declined(decline: Option<&v1::Decline>) -> String {
    let Some(decline) = decline else {
        return String::new();
    };
    let code = short(decline.code().as_str_name(), "DECLINE_CODE_");
    match plain(&decline.provider_code) {
        own if own.is_empty() => code.to_owned(),
        own => format!("{code} (the provider's code: {own})"),
    }
}

fn failed(failure: Option<&v1::Failure>) -> String {
    failure
        .map(|failure| plain(&failure.cause))
        .unwrap_or_default()
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// An amount with the decimals of its currency; minor units where the currency is not known here.
pub(in crate::commands) fn money(money: Option<&v1::Money>) -> String {
    let Some(money) = money else {
        return String::new();
    };
    let minor = money.minor_units;
    match Currency::parse(&money.currency_code) {
        Ok(currency) => format_minor_units(minor, currency),
        Err(_) => format!("{minor} minor units of {}", plain(&money.currency_code)),
    }
}

pub(in crate::commands) fn time(time: Option<&Timestamp>) -> String {
    let parsed = time.and_then(|time| {
        DateTime::<Utc>::from_timestamp(time.seconds, u32::try_from(time.nanos).ok()?)
    });
    parsed
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn euros(minor_units: i64) -> v1::Money {
        v1::Money {
            minor_units,
            currency_code: "EUR".to_owned(),
        }
    }

    fn stuck() -> v1::Payment {
        v1::Payment {
            payment_id: "p1".to_owned(),
            tenant_id: "acme".to_owned(),
            state: v1::PaymentState::Pending.into(),
            amount: Some(euros(1250)),
            merchant_reference: "order\u{1b}[2J".to_owned(),
            transactions: vec![v1::Transaction {
                transaction_id: "t1".to_owned(),
                kind: v1::TransactionKind::Purchase.into(),
                state: v1::TransactionState::Pending.into(),
                amount: Some(euros(1250)),
                attempts: 3,
                open_operator_actions: vec![v1::OperatorActionKind::RecoveryExhausted.into()],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_payment_that_waits_for_a_person_says_what_to_do() {
        let mut payment = stuck();
        let text = super::payment(&payment);
        for line in [
            "Payment p1",
            "  state               PENDING",
            "  amount              12.50 EUR",
            "PURCHASE t1",
            "  calls to provider   3",
            "  operator actions    RECOVERY_EXHAUSTED",
            "  quittance payments resolve p1 t1 --succeeded|--not-processed --reason …",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        assert!(
            !text.contains('\u{1b}') && !text.contains("captured"),
            "{text}"
        );
        // Each is shown, and each is closed by itself.
        let row = &mut payment.transactions[0];
        let kinds = [
            v1::OperatorActionKind::ContradictingFact,
            v1::OperatorActionKind::AmountMismatch,
            v1::OperatorActionKind::RecoveryExhausted,
        ];
        row.open_operator_actions = kinds.map(i32::from).to_vec();
        let text = super::payment(&payment);
        for line in [
            "  operator actions    CONTRADICTING_FACT, AMOUNT_MISMATCH, RECOVERY_EXHAUSTED",
            "  quittance payments resolve p1 t1 --acknowledge contradicting-fact --reason …",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        assert_eq!(text.matches("--succeeded|--not-processed").count(), 1);
        let row = &mut payment.transactions[0];
        row.set_state(v1::TransactionState::Succeeded);
        row.resolved_by_operator = true;
        let text = super::payment(&payment);
        assert!(
            text.contains("SUCCEEDED (resolved by an operator)"),
            "{text}"
        );
        assert!(
            text.contains("resolve p1 t1 --acknowledge recovery-exhausted"),
            "{text}"
        );
        payment.transactions[0].open_operator_actions.clear();
        assert!(!super::payment(&payment).contains("payments resolve"));
    }

    #[test]
    fn operator_actions_are_a_table() {
        let action = v1::OperatorAction {
            payment_id: "p1".to_owned(),
            kind: v1::OperatorActionKind::AmountMismatch.into(),
            open_time: Some(Timestamp {
                seconds: 0,
                nanos: 0,
            }),
            ..Default::default()
        };
        let open = actions(std::slice::from_ref(&action), false).to_string();
        assert!(open.contains("AMOUNT_MISMATCH") && open.contains("1970-01-01T00:00:00Z"));
        assert!(!open.contains("closed"));
        assert!(actions(&[action], true).to_string().contains("closed"));
    }
}
