//! How the demo looks: in colour where there is a terminal that wants it.

use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};
use quittance_proto::v1;

use crate::output;

/// Prints scenes.
pub(super) struct Show {
    in_colour: bool,
}

impl Show {
    /// With colour if standard output is a terminal and `NO_COLOR` is not set (no-color.org).
    pub(super) fn for_terminal() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            in_colour: std::io::stdout().is_terminal() && !refused,
        }
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.in_colour {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn title(&self, text: &str) {
        output::line(format_args!("\n{}", self.styled(Style::new().bold(), text)));
    }

    /// The head of a scene.
    pub(super) fn scene(&self, number: u8, text: &str) {
        let style = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
        output::line(format_args!(
            "\n{}",
            self.styled(style, &format!("{number}. {text}"))
        ));
    }

    /// A remark.
    pub(super) fn note(&self, text: &str) {
        output::line(format_args!(
            "   {}",
            self.styled(Style::new().dimmed(), text)
        ));
    }

    /// A call and what the payment is afterwards.
    pub(super) fn call(&self, call: &str, payment: &v1::Payment) {
        let state = self.state(payment.state());
        output::line(format_args!("   {call:<50} {state}{}", amounts(payment)));
    }

    fn state(&self, state: v1::PaymentState) -> String {
        use v1::PaymentState as State;
        let colour = match state {
            State::Authorized
            | State::PartiallyCaptured
            | State::Captured
            | State::PartiallyRefunded
            | State::Refunded
            | State::Voided => AnsiColor::Green,
            State::Pending | State::RequiresAction => AnsiColor::Yellow,
            State::Unspecified | State::Declined | State::Failed | State::Expired => AnsiColor::Red,
        };
        let style = Style::new().bold().fg_color(Some(colour.into()));
        self.styled(
            style,
            &format!("{:<19}", short(state.as_str_name(), "PAYMENT_STATE_")),
        )
    }
}

/// One fact in a line of its own.
pub(super) fn fact(text: &str) {
    output::line(format_args!("   {text}"));
}

/// A table, each of its lines indented.
pub(super) fn table(table: &comfy_table::Table) {
    for line in table.lines() {
        output::line(format_args!("   {line}"));
    }
}

/// What is said at the end.
pub(super) fn end(text: &str) {
    output::line(format_args!("\n{text}"));
}

/// An enum value's name without its prefix.
pub(super) fn short<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// An amount of a currency with two decimals, which are the only ones in the demo.
pub(super) fn money(money: &v1::Money) -> String {
    let (units, cents) = (money.minor_units / 100, money.minor_units % 100);
    format!("{units}.{cents:02} {}", money.currency_code)
}

fn amounts(payment: &v1::Payment) -> String {
    let named = [
        ("authorized", payment.amount_authorized.as_ref()),
        ("captured", payment.amount_captured.as_ref()),
        ("refunded", payment.amount_refunded.as_ref()),
    ];
    let shown = named.into_iter().filter_map(|(name, amount)| {
        let amount = amount.filter(|amount| amount.minor_units != 0)?;
        Some(format!("{name} {}", money(amount)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_two_decimals() {
        let of = |minor_units| {
            money(&v1::Money {
                minor_units,
                currency_code: "EUR".to_owned(),
            })
        };
        assert_eq!(of(1999), "19.99 EUR");
        assert_eq!(of(5), "0.05 EUR");
    }

    #[test]
    fn without_a_terminal_there_is_no_colour() {
        let show = Show { in_colour: false };
        assert_eq!(show.styled(Style::new().bold(), "x"), "x");
        assert_ne!(
            Show { in_colour: true }.styled(Style::new().bold(), "x"),
            "x"
        );
    }
}
