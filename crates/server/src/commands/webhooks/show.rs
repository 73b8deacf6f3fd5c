//! How webhooks look on a terminal.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use quittance_proto::v1;

use crate::commands::payments::show::{money, plain, short, time};

/// Prefix of the names of states.
pub(super) const STATE_PREFIX: &str = "WEBHOOK_STATE_";
/// Prefix of the names of causes.
pub(super) const CAUSE_PREFIX: &str = "WEBHOOK_CAUSE_";
/// Width of the names of a webhook's facts.
const LABEL: usize = 20;

/// A table of webhooks.
pub(super) fn webhooks(webhooks: &[v1::Webhook]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "received", "state", "cause", "tries", "account", "event", "webhook",
    ]);
    for webhook in webhooks {
        table.add_row([
            time(webhook.receive_time.as_ref()),
            state(webhook),
            cause(webhook),
            webhook.attempts.to_string(),
            plain(&webhook.provider_account),
            plain(&webhook.event_id),
            plain(&webhook.webhook_id),
        ]);
    }
    table
}

/// A webhook and what it says, in lines.
pub(super) fn webhook(webhook: &v1::Webhook) -> String {
    let mut lines = vec![format!("Webhook {}", plain(&webhook.webhook_id))];
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<LABEL$}{value}"));
        }
    };
    fact("state", state(webhook));
    fact("cause", cause(webhook));
    fact("account", plain(&webhook.provider_account));
    fact("event", plain(&webhook.event_id));
    fact("received", time(webhook.receive_time.as_ref()));
    fact("tried", webhook.attempts.to_string());
    fact("tried again at", time(webhook.next_attempt_time.as_ref()));
    fact("finished", time(webhook.finish_time.as_ref()));
    fact("body wiped", time(webhook.wipe_time.as_ref()));
    if webhook.body_bytes > 0 {
        fact("body", format!("{} bytes", webhook.body_bytes));
    }
    fact("SHA-256", plain(&webhook.body_sha256));
    for said in &webhook.statements {
        lines.push(String::new());
        lines.extend(statement(said));
    }
    if webhook.state() == v1::WebhookState::Dead && webhook.wipe_time.is_none() {
        let id = plain(&webhook.webhook_id);
        lines.push(format!(
            "\nWhen its cause is removed (docs/webhooks.md):\n  quittance webhooks replay {id} --reason …"
        ));
    }
    lines.join("\n")
}

fn statement(said: &v1::WebhookStatement) -> Vec<String> {
    let outcome = short(said.outcome().as_str_name(), "WEBHOOK_OUTCOME_");
    let mut lines = vec![format!("It says {outcome}")];
    for (name, value) in [
        ("payment", plain(&said.payment_id)),
        ("payment there", plain(&said.payment_reference)),
        ("transaction", plain(&said.transaction_id)),
        ("operation there", plain(&said.provider_reference)),
        ("amount", money(said.amount.as_ref())),
    ] {
        if !value.is_empty() {
            lines.push(format!("  {name:<LABEL$}{value}"));
        }
    }
    lines
}

fn state(webhook: &v1::Webhook) -> String {
    short(webhook.state().as_str_name(), STATE_PREFIX).to_owned()
}

fn cause(webhook: &v1::Webhook) -> String {
    match webhook.cause() {
        v1::WebhookCause::Unspecified => String::new(),
        cause => short(cause.as_str_name(), CAUSE_PREFIX).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead() -> v1::Webhook {
        v1::Webhook {
            webhook_id: "w1".to_owned(),
            provider_account: "sandbox".to_owned(),
            event_id: "evt\u{1b}[2J".to_owned(),
            state: v1::WebhookState::Dead.into(),
            cause: v1::WebhookCause::UnknownPayment.into(),
            attempts: 30,
            body_bytes: 300,
            statements: vec![v1::WebhookStatement {
                payment_id: "p1".to_owned(),
                outcome: v1::WebhookOutcome::Approved.into(),
                amount: Some(v1::Money {
                    minor_units: 1250,
                    currency_code: "EUR".to_owned(),
                }),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_dead_letter_says_what_it_says_and_how_it_is_replayed() {
        let text = webhook(&dead());
        for line in [
            "Webhook w1",
            "  state               DEAD",
            "  cause               UNKNOWN_PAYMENT",
            "  body                300 bytes",
            "It says APPROVED",
            "  payment             p1",
            "  amount              12.50 EUR",
            "  quittance webhooks replay w1 --reason …",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        let wiped = v1::Webhook {
            wipe_time: Some(prost_types::Timestamp::default()),
            ..dead()
        };
        assert!(!webhook(&wiped).contains("replay"), "nothing is left");
    }

    #[test]
    fn webhooks_are_a_table() {
        let table = webhooks(&[dead()]).to_string();
        for cell in ["DEAD", "UNKNOWN_PAYMENT", "30", "sandbox", "w1"] {
            assert!(table.contains(cell), "{cell}: {table}");
        }
    }
}
