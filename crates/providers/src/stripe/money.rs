//! Amounts as Stripe counts them (<https://docs.stripe.com/currencies>), where that is not as ISO 4217 has it.

use quittance_domain::money::{Currency, Money};
use quittance_domain::ports::Unpreparable;

/// How Stripe counts a currency, beside ISO 4217's minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// The same units.
    Same,
    /// Hundredths, though the currency has none: always whole hundreds.
    Hundredths,
    /// Whole units, though the currency has hundredths.
    Whole,
    /// The same units, of which the last digit has to be 0.
    Tens,
}

fn unit(currency: Currency) -> Option<Unit> {
    match (currency.code(), currency.exponent()) {
        ("ISK" | "UGX", _) => Some(Unit::Hundredths),
        ("MGA", _) => Some(Unit::Whole),
        ("BHD" | "JOD" | "KWD" | "OMR" | "TND", _) => Some(Unit::Tens),
        (_, 0 | 2) => Some(Unit::Same),
        // Three decimals and more: Stripe documents no others than those above.
        _ => None,
    }
}

/// What Stripe is asked for.
pub(super) fn to_stripe(money: Money) -> Result<i64, Unpreparable> {
    let (currency, minor) = (money.currency(), money.minor_units());
    match unit(currency).ok_or(Unpreparable::Currency(currency))? {
        Unit::Same => Ok(minor),
        Unit::Hundredths => minor.checked_mul(100).ok_or(Unpreparable::Amount),
        Unit::Whole if minor % 100 == 0 => Ok(minor / 100),
        Unit::Tens if minor % 10 == 0 => Ok(minor),
        Unit::Whole | Unit::Tens => Err(Unpreparable::Amount),
    }
}

/// What Stripe says; `None` where it cannot be said in the currency's minor units, or is not an amount at all.
pub(super) fn from_stripe(amount: i64, currency: &str) -> Option<Money> {
    let currency = Currency::parse(&currency.to_ascii_uppercase()).ok()?;
    let minor = match unit(currency)? {
        Unit::Same | Unit::Tens => amount,
        Unit::Hundredths if amount % 100 == 0 => amount / 100,
        Unit::Hundredths => return None,
        Unit::Whole => amount.checked_mul(100)?,
    };
    Money::new(minor, currency).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(minor: i64, code: &str) -> Money {
        Money::new(minor, Currency::parse(code).unwrap()).unwrap()
    }

    #[test]
    fn s63_amounts_are_sent_as_stripe_counts_them() {
        for (minor, code, expected) in [
            (1_234, "EUR", Ok(1_234)),
            (500, "JPY", Ok(500)),
            (500, "KRW", Ok(500)),
            (500, "XAF", Ok(500)),
            (5, "ISK", Ok(500)),
            (5, "UGX", Ok(500)),
            (500, "MGA", Ok(5)),
            (501, "MGA", Err(Unpreparable::Amount)),
            (1_230, "KWD", Ok(1_230)),
            (1_234, "KWD", Err(Unpreparable::Amount)),
            (1_235, "TND", Err(Unpreparable::Amount)),
        ] {
            assert_eq!(to_stripe(money(minor, code)), expected, "{minor} {code}");
        }
        for code in ["IQD", "LYD", "CLF", "UYW"] {
            let currency = Currency::parse(code).unwrap();
            let refused = Err(Unpreparable::Currency(currency));
            assert_eq!(to_stripe(money(1_000, code)), refused, "{code}");
        }
    }

    #[test]
    fn s63_what_cannot_be_said_exactly_is_not_guessed() {
        assert_eq!(from_stripe(500, "isk"), Some(money(5, "ISK")));
        assert_eq!(from_stripe(550, "isk"), None);
        assert_eq!(from_stripe(5, "mga"), Some(money(500, "MGA")));
        assert_eq!(from_stripe(1_234, "kwd"), Some(money(1_234, "KWD")));
        for (amount, currency) in [(0, "eur"), (-1, "eur"), (1, "eurx"), (1, ""), (1, "iqd")] {
            assert_eq!(from_stripe(amount, currency), None, "{amount} {currency}");
        }
        assert_eq!(from_stripe(i64::MAX, "mga"), None);
    }

    proptest! {
        #[test]
        fn s63_every_amount_that_is_sent_comes_back_the_same(
            minor in 1..=quittance_domain::money::MAX_AMOUNT_MINOR_UNITS,
            at in 0..Currency::all().count(),
        ) {
            let currency = Currency::all().nth(at).unwrap();
            let asked = Money::new(minor, currency).unwrap();
            if let Ok(sent) = to_stripe(asked) {
                prop_assert_eq!(from_stripe(sent, &currency.code().to_lowercase()), Some(asked));
            }
        }
    }
}
