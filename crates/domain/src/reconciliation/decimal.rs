//! Decimal text to minor units, exactly.

use crate::money::Currency;

/// Reads an amount in major units, such as `-12.34`, as minor units of the currency.
///
/// `None` where it is no number, or is not whole in minor units: nothing is rounded. Zeros beyond the currency's decimals
/// are nothing (`500.00` JPY is 500).
pub fn minor_units(text: &str, currency: Currency) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let decimal = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !decimal(whole) || !decimal(fraction) {
        return None;
    }
    let exponent = usize::from(currency.exponent());
    let kept = fraction.len().min(exponent);
    let (kept, beyond) = fraction.split_at_checked(kept)?;
    if beyond.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let minor: i64 = format!("{whole}{kept:0<exponent$}").parse().ok()?;
    Some(if negative { -minor } else { minor })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::money::format_minor_units;

    fn read(text: &str, code: &str) -> Option<i64> {
        minor_units(text, Currency::parse(code).unwrap())
    }

    #[test]
    fn s78_amounts_are_read_exactly_or_not_at_all() {
        for (text, code, expected) in [
            ("12.34", "EUR", Some(1_234)),
            ("-12.3", "EUR", Some(-1_230)),
            ("12", "EUR", Some(1_200)),
            ("0.00", "EUR", Some(0)),
            ("12.340", "EUR", Some(1_234)),
            ("12.345", "EUR", None),
            ("500", "JPY", Some(500)),
            ("500.00", "JPY", Some(500)),
            ("500.50", "JPY", None),
            ("1.234", "KWD", Some(1_234)),
            ("90071992547409.93", "EUR", Some(9_007_199_254_740_993)),
            ("99999999999999999999", "EUR", None),
        ] {
            assert_eq!(read(text, code), expected, "{text} {code}");
        }
        for bad in [
            "", "-", ".", "1.", ".5", "1,00", "1 000", "1e3", "+1", "--1", "1.2.3", "NaN",
            "\u{661}",
        ] {
            assert_eq!(read(bad, "EUR"), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn s78_what_we_write_we_read(minor in any::<i32>(), at in 0..Currency::all().count()) {
            let currency = Currency::all().nth(at).unwrap();
            let text = format_minor_units(minor.into(), currency);
            let number = text.split(' ').next().unwrap();
            prop_assert_eq!(minor_units(number, currency), Some(i64::from(minor)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = read(&text, "EUR");
        }
    }
}
