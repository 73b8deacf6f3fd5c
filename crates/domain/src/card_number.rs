//! Finds card numbers in free text, so that they are refused before they are stored (R6).
//!
//! A hit is a run of 13 to 19 digits, up to three spaces, dots or dashes between two of them removed, that starts
//! with an issuer prefix in use and passes Luhn's check. The run must be bounded by characters that are
//! not alphanumeric, so that opaque tokens pass. A UUID passes as a whole: about one in 30,000 random
//! ones has groups that read like a card number, and UUIDs are what callers use as keys and references.

/// Fewest digits of a card number (ISO/IEC 7812).
const MIN_DIGITS: usize = 13;
/// Most digits of a card number (ISO/IEC 7812).
const MAX_DIGITS: usize = 19;
/// Length of a UUID with its hyphens (RFC 9562).
const UUID_CHARS: usize = 36;

/// Most separators between two digits of one number.
const MAX_SEPARATORS: usize = 3;

/// Whether `text` holds something that looks like a card number.
///
/// Linear in the length of the text but for a small factor; allocates nothing.
pub fn contains_card_number(text: &str) -> bool {
    let mut before = None;
    let mut skip_to = 0;
    for (at, c) in text.char_indices() {
        let bounded = at >= skip_to && before.is_none_or(|c: char| !c.is_alphanumeric());
        before = Some(c);
        if !bounded {
            continue;
        }
        if starts_uuid(text, at) {
            skip_to = at + UUID_CHARS;
        } else if digit(c).is_some() && starts_card_number(text, at) {
            return true;
        }
    }
    false
}

/// The value of a decimal digit, in the scripts in which people write numbers.
fn digit(c: char) -> Option<u8> {
    let zeros = ['0', '\u{660}', '\u{6F0}', '\u{966}', '\u{FF10}'];
    zeros.iter().find_map(|zero| {
        let value = u32::from(c).checked_sub(u32::from(*zero))?;
        u8::try_from(value).ok().filter(|value| *value <= 9)
    })
}

/// Whether people put this between the groups of a number.
fn separates(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '-' | '.' | '_' | '\u{B7}' | '\u{2010}'
                ..='\u{2015}' | '\u{2022}' | '\u{2212}' | '\u{FF0D}'
        )
}

/// Whether a UUID with hyphens starts at `at`, and ends there too.
fn starts_uuid(text: &str, at: usize) -> bool {
    let end = at + UUID_CHARS;
    let Some(uuid) = text.get(at..end) else {
        return false;
    };
    let fits = uuid.bytes().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    let after = text.get(end..).and_then(|rest| rest.chars().next());
    fits && after.is_none_or(|c| !c.is_alphanumeric())
}

/// Whether a card number starts at `at`; every bounded end of the digit run is tried, so that a
/// number followed by another group (`4242… 2027`) is still found.
fn starts_card_number(text: &str, at: usize) -> bool {
    let mut digits = [0_u8; MAX_DIGITS];
    let mut count = 0;
    let mut separators = 0;
    let mut rest = text.get(at..).unwrap_or_default().chars().peekable();
    while let Some(c) = rest.next() {
        if separates(c) && separators < MAX_SEPARATORS {
            separators += 1;
            continue;
        }
        let (Some(value), Some(slot)) = (digit(c), digits.get_mut(count)) else {
            return false;
        };
        *slot = value;
        count += 1;
        separators = 0;
        let ends = rest.peek().is_none_or(|next| !next.is_alphanumeric());
        if ends && count >= MIN_DIGITS {
            let number = digits.get(..count).unwrap_or_default();
            if has_issuer_prefix(number) && passes_luhn(number) {
                return true;
            }
        }
    }
    false
}

/// Prefixes and lengths of the card schemes in use: 3 (American Express, Diners, JCB), 4 (Visa), 5 and
/// 2221–2720 (Mastercard, Maestro), 6 (Discover, `UnionPay`, Maestro, `RuPay`), 81/82 (`RuPay`), 9792 (Troy), 220 (Mir).
fn has_issuer_prefix(digits: &[u8]) -> bool {
    let prefix = |n: usize| {
        digits
            .iter()
            .take(n)
            .fold(0_u32, |acc, d| acc * 10 + u32::from(*d))
    };
    let length = digits.len();
    match digits.first() {
        Some(4) => matches!(length, 13 | 16 | 18 | 19),
        Some(5 | 6) => true,
        Some(3) => match prefix(2) {
            34 | 37 => length == 15,
            30 | 36 | 38 | 39 => (14..=19).contains(&length),
            35 => (16..=19).contains(&length),
            _ => false,
        },
        Some(2) => {
            (2221..=2720).contains(&prefix(4)) && length == 16 || (2200..=2204).contains(&prefix(4))
        }
        Some(8) => matches!(prefix(2), 81 | 82),
        Some(9) => prefix(4) == 9792 && length == 16,
        _ => false,
    }
}

/// Luhn's check (ISO/IEC 7812-1, annex B).
fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(position, digit)| {
            let value = u32::from(*digit) << (position % 2);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s67_card_numbers_are_found_however_they_are_written() {
        for text in [
            "4242424242424242",
            "4242 4242 4242 4242",
            "4242-4242-4242-4242",
            "4242.4242.4242.4242",
            "order 4111111111111111, thanks",
            "(378282246310005)",
            "pan=6011111111111117;",
            "5555555555554444 2027",
            "é4242424242424242é".trim_matches('é'),
            "\"card\":\"2223003122003222\"",
            "x 30569309025904",
            "4242  4242  4242  4242",
            "4242 - 4242 - 4242 - 4242",
            "4242\u{a0}4242\u{2013}4242\u{2009}4242",
            "４２４２４２４２４２４２４２４２",
            "42424242-4242-4242-8aaa-aaaaaaaaaaa",
            "01920b3a-4242-7424-8242-42424242424b 4242-4242-4242-4242",
        ] {
            assert!(contains_card_number(text), "{text}");
        }
    }

    #[test]
    fn s67_what_is_not_a_card_number_passes() {
        for text in [
            "",
            "order 12345",
            "4242424242424241",
            "01920b3a-4242-7424-8242-424242424242",
            // Its groups but the last are a Visa number.
            "42424242-4242-4242-8aaa-aaaaaaaaaaaa",
            "order-42424242-4242-4242-8aaa-aaaaaaaaaaaa/1",
            "tok4242424242424242",
            "1234567890123456789012345",
            "0000000000000000",
            "2026-11-23 12:00:00",
            "1764000000000",
            "é4242424242424242",
        ] {
            assert!(!contains_card_number(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_without_panic(text in ".{0,200}") {
            let _ = contains_card_number(&text);
        }

        #[test]
        fn s67_a_valid_number_is_found_between_any_words(before in "[a-z ]{0,20} ", after in " [a-z ]{0,20}", body in "4[0-9]{14}") {
            let mut digits: Vec<u8> = body.bytes().map(|b| b - b'0').collect();
            digits.push(0);
            let check = (0..10).find(|d| { digits[15] = *d; passes_luhn(&digits) }).unwrap();
            let text = format!("{before}{body}{check}{after}");
            prop_assert!(contains_card_number(&text));
        }
    }
}
