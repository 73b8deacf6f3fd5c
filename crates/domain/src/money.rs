//! Money: `i64` minor units of one ISO 4217 currency, never a float.

use std::fmt;

use thiserror::Error;

/// Largest amount of one payment, in minor units (10^15 − 1).
///
/// A thousand transactions of this size still fit an `i64` many times over, so no sum of a
/// payment's amounts can overflow.
pub const MAX_AMOUNT_MINOR_UNITS: i64 = 999_999_999_999_999;

/// Why an amount or a currency was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// The code is not an active ISO 4217 alphabetic code in upper case.
    #[error("unknown currency: expected an ISO 4217 alphabetic code in upper case, such as EUR")]
    UnknownCurrency,
    /// Zero, negative, or above [`MAX_AMOUNT_MINOR_UNITS`].
    #[error("amount out of range: expected 1 to {MAX_AMOUNT_MINOR_UNITS} minor units")]
    OutOfRange,
}

/// An active ISO 4217 currency and its exponent (decimal digits of the minor unit).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(&'static (&'static str, u8));

impl Currency {
    /// Looks an upper-case alphabetic code up in the table of ISO 4217.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        CURRENCIES
            .binary_search_by(|(known, _)| (*known).cmp(code))
            .ok()
            .and_then(|at| CURRENCIES.get(at))
            .map(Self)
            .ok_or(MoneyError::UnknownCurrency)
    }

    /// The three-letter code, upper case.
    pub fn code(self) -> &'static str {
        self.0.0
    }

    /// Decimal digits of the minor unit: 0 (JPY) to 4 (CLF).
    pub fn exponent(self) -> u8 {
        self.0.1
    }

    /// Every currency of the table, in alphabetical order.
    pub fn all() -> impl Iterator<Item = Self> {
        CURRENCIES.iter().map(Self)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount between 1 and [`MAX_AMOUNT_MINOR_UNITS`] in one currency.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Money {
    minor_units: i64,
    currency: Currency,
}

impl Money {
    /// A positive amount within range.
    pub fn new(minor_units: i64, currency: Currency) -> Result<Self, MoneyError> {
        if (1..=MAX_AMOUNT_MINOR_UNITS).contains(&minor_units) {
            Ok(Self {
                minor_units,
                currency,
            })
        } else {
            Err(MoneyError::OutOfRange)
        }
    }

    /// The amount in minor units.
    pub fn minor_units(self) -> i64 {
        self.minor_units
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_minor_units(self.minor_units, self.currency))
    }
}

/// Renders minor units with the currency's decimals, such as `12.34 EUR` or `500 JPY`.
pub fn format_minor_units(minor_units: i64, currency: Currency) -> String {
    let digits = usize::from(currency.exponent());
    let sign = if minor_units < 0 { "-" } else { "" };
    let padded = format!(
        "{:0>width$}",
        minor_units.unsigned_abs(),
        width = digits + 1
    );
    let (whole, fraction) = padded.split_at(padded.len() - digits);
    if fraction.is_empty() {
        format!("{sign}{whole} {currency}")
    } else {
        format!("{sign}{whole}.{fraction} {currency}")
    }
}

/// Active codes of ISO 4217 (list one, funds and metals left out), sorted, with their exponents.
#[rustfmt::skip]
static CURRENCIES: &[(&str, u8)] = &[
    ("AED", 2), ("AFN", 2), ("ALL", 2), ("AMD", 2), ("AOA", 2), ("ARS", 2), ("AUD", 2), ("AWG", 2),
    ("AZN", 2), ("BAM", 2), ("BBD", 2), ("BDT", 2), ("BHD", 3), ("BIF", 0), ("BMD", 2), ("BND", 2),
    ("BOB", 2), ("BRL", 2), ("BSD", 2), ("BTN", 2), ("BWP", 2), ("BYN", 2), ("BZD", 2), ("CAD", 2),
    ("CDF", 2), ("CHF", 2), ("CLF", 4), ("CLP", 0), ("CNY", 2), ("COP", 2), ("CRC", 2), ("CUP", 2),
    ("CVE", 2), ("CZK", 2), ("DJF", 0), ("DKK", 2), ("DOP", 2), ("DZD", 2), ("EGP", 2), ("ERN", 2),
    ("ETB", 2), ("EUR", 2), ("FJD", 2), ("FKP", 2), ("GBP", 2), ("GEL", 2), ("GHS", 2), ("GIP", 2),
    ("GMD", 2), ("GNF", 0), ("GTQ", 2), ("GYD", 2), ("HKD", 2), ("HNL", 2), ("HTG", 2), ("HUF", 2),
    ("IDR", 2), ("ILS", 2), ("INR", 2), ("IQD", 3), ("IRR", 2), ("ISK", 0), ("JMD", 2), ("JOD", 3),
    ("JPY", 0), ("KES", 2), ("KGS", 2), ("KHR", 2), ("KMF", 0), ("KPW", 2), ("KRW", 0), ("KWD", 3),
    ("KYD", 2), ("KZT", 2), ("LAK", 2), ("LBP", 2), ("LKR", 2), ("LRD", 2), ("LSL", 2), ("LYD", 3),
    ("MAD", 2), ("MDL", 2), ("MGA", 2), ("MKD", 2), ("MMK", 2), ("MNT", 2), ("MOP", 2), ("MRU", 2),
    ("MUR", 2), ("MVR", 2), ("MWK", 2), ("MXN", 2), ("MYR", 2), ("MZN", 2), ("NAD", 2), ("NGN", 2),
    ("NIO", 2), ("NOK", 2), ("NPR", 2), ("NZD", 2), ("OMR", 3), ("PAB", 2), ("PEN", 2), ("PGK", 2),
    ("PHP", 2), ("PKR", 2), ("PLN", 2), ("PYG", 0), ("QAR", 2), ("RON", 2), ("RSD", 2), ("RUB", 2),
    ("RWF", 0), ("SAR", 2), ("SBD", 2), ("SCR", 2), ("SDG", 2), ("SEK", 2), ("SGD", 2), ("SHP", 2),
    ("SLE", 2), ("SOS", 2), ("SRD", 2), ("SSP", 2), ("STN", 2), ("SVC", 2), ("SYP", 2), ("SZL", 2),
    ("THB", 2), ("TJS", 2), ("TMT", 2), ("TND", 3), ("TOP", 2), ("TRY", 2), ("TTD", 2), ("TWD", 2),
    ("TZS", 2), ("UAH", 2), ("UGX", 0), ("USD", 2), ("UYU", 2), ("UYW", 4), ("UZS", 2), ("VED", 2),
    ("VES", 2), ("VND", 0), ("VUV", 0), ("WST", 2), ("XAF", 0), ("XCD", 2), ("XCG", 2), ("XOF", 0),
    ("XPF", 0), ("YER", 2), ("ZAR", 2), ("ZMW", 2), ("ZWG", 2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s62_amounts_outside_the_range_are_refused() {
        let eur = Currency::parse("EUR").unwrap();
        for bad in [0, -1, i64::MIN, i64::MAX, MAX_AMOUNT_MINOR_UNITS + 1] {
            assert_eq!(Money::new(bad, eur), Err(MoneyError::OutOfRange), "{bad}");
        }
        for good in [1, MAX_AMOUNT_MINOR_UNITS] {
            assert_eq!(Money::new(good, eur).unwrap().minor_units(), good);
        }
    }

    #[test]
    fn s64_unknown_and_lower_case_currencies_are_refused() {
        for bad in ["", "eur", "Eur", "EURO", "XXX", "XAU", "€", "HRK", "E R"] {
            assert_eq!(
                Currency::parse(bad),
                Err(MoneyError::UnknownCurrency),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_table_is_sorted_so_that_every_currency_is_found() {
        for currency in Currency::all() {
            assert_eq!(Currency::parse(currency.code()), Ok(currency));
        }
        assert!(CURRENCIES.is_sorted());
    }

    #[test]
    fn exponents_follow_iso_4217() {
        for (code, exponent) in [("JPY", 0), ("KWD", 3), ("EUR", 2), ("ISK", 0), ("BHD", 3)] {
            assert_eq!(
                Currency::parse(code).unwrap().exponent(),
                exponent,
                "{code}"
            );
        }
    }

    #[test]
    fn amounts_read_as_people_write_them() {
        let money = |minor, code| Money::new(minor, Currency::parse(code).unwrap()).unwrap();
        assert_eq!(money(1234, "EUR").to_string(), "12.34 EUR");
        assert_eq!(money(5, "EUR").to_string(), "0.05 EUR");
        assert_eq!(money(500, "JPY").to_string(), "500 JPY");
        assert_eq!(money(1234, "KWD").to_string(), "1.234 KWD");
        assert_eq!(
            format_minor_units(-205, Currency::parse("EUR").unwrap()),
            "-2.05 EUR"
        );
    }
}
