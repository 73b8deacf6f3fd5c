//! Amounts as Adyen counts them: mostly, but not always, in the minor units of ISO 4217.

use quittance_domain::money::{Currency, Money};
use quittance_domain::ports::Unpreparable;

use super::wire;

/// Decimal digits of Adyen's minor unit, where they are not those of ISO 4217 (Adyen, "Currency codes and minor
/// units").
const DIFFERING: [(&str, u8); 4] = [("CLP", 2), ("CVE", 0), ("IDR", 0), ("ISK", 2)];
/// Most decimal digits of a currency that Adyen serves.
const MAX_EXPONENT: u8 = 3;

/// Decimal digits of a currency's minor unit at Adyen.
fn exponent(currency: Currency) -> u8 {
    let differing = DIFFERING.iter().find(|(code, _)| *code == currency.code());
    differing.map_or(currency.exponent(), |(_, digits)| *digits)
}

fn power(digits: u8) -> i64 {
    10_i64.saturating_pow(u32::from(digits))
}

/// An amount for Adyen; what it cannot represent exactly is refused, never rounded.
pub(super) fn to_wire(money: Money) -> Result<wire::Amount, Unpreparable> {
    let currency = money.currency();
    let (ours, theirs) = (currency.exponent(), exponent(currency));
    if theirs > MAX_EXPONENT {
        return Err(Unpreparable::Currency(currency));
    }
    let value = if theirs >= ours {
        money.minor_units().checked_mul(power(theirs - ours))
    } else {
        let factor = power(ours - theirs);
        (money.minor_units() % factor == 0).then(|| money.minor_units() / factor)
    };
    Ok(wire::Amount {
        value: value.ok_or(Unpreparable::Amount)?,
        currency: currency.code().to_owned(),
    })
}

/// What Adyen says; `None` where it is no positive amount in whole minor units of a known currency.
pub(super) fn from_wire(amount: &wire::Amount) -> Option<Money> {
    let currency = Currency::parse(&amount.currency).ok()?;
    let (ours, theirs) = (currency.exponent(), exponent(currency));
    let minor_units = if theirs >= ours {
        let factor = power(theirs - ours);
        (amount.value % factor == 0).then(|| amount.value / factor)
    } else {
        amount.value.checked_mul(power(ours - theirs))
    };
    Money::new(minor_units?, currency).ok()
}

#[cfg(test)]
mod tests {
    use quittance_domain::money::MAX_AMOUNT_MINOR_UNITS;

    use super::*;

    fn money(code: &str, minor_units: i64) -> Money {
        Money::new(minor_units, Currency::parse(code).unwrap()).unwrap()
    }

    fn wire(code: &str, value: i64) -> wire::Amount {
        wire::Amount {
            currency: code.to_owned(),
            value,
        }
    }

    #[test]
    fn s63_currencies_that_adyen_counts_otherwise_are_converted_both_ways() {
        for (code, ours, theirs) in [
            ("EUR", 1_050, 1_050),
            ("JPY", 500, 500),
            ("KWD", 1_234, 1_234),
            ("ISK", 10, 1_000),
            ("CLP", 10, 1_000),
            ("CVE", 1_000, 10),
            ("IDR", 1_000, 10),
        ] {
            assert_eq!(to_wire(money(code, ours)), Ok(wire(code, theirs)), "{code}");
            assert_eq!(
                from_wire(&wire(code, theirs)),
                Some(money(code, ours)),
                "{code}"
            );
        }
    }

    #[test]
    fn s63_what_cannot_be_represented_exactly_is_refused_and_never_rounded() {
        for code in ["CVE", "IDR"] {
            for inexact in [1, 99, 1_050, 1_001] {
                let refused = to_wire(money(code, inexact));
                assert_eq!(refused, Err(Unpreparable::Amount), "{code} {inexact}");
            }
        }
        for code in ["ISK", "CLP"] {
            assert_eq!(from_wire(&wire(code, 1_050)), None, "{code}");
        }
        for code in ["CLF", "UYW"] {
            let currency = Currency::parse(code).unwrap();
            let refused = to_wire(money(code, 10_000));
            assert_eq!(refused, Err(Unpreparable::Currency(currency)));
        }
    }

    #[test]
    fn every_currency_comes_back_as_it_went() {
        for currency in Currency::all() {
            for minor_units in [100, 7_000, MAX_AMOUNT_MINOR_UNITS - 99] {
                let money = Money::new(minor_units, currency).unwrap();
                if let Ok(sent) = to_wire(money) {
                    assert_eq!(from_wire(&sent), Some(money), "{money}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_amount_is_none() {
        for (code, value) in [("EUR", 0), ("EUR", -1), ("XXX", 5), ("eur", 5), ("", 0)] {
            assert_eq!(from_wire(&wire(code, value)), None, "{code} {value}");
        }
        assert_eq!(from_wire(&wire("IDR", i64::MAX)), None);
    }
}
