//! Cleaning of text before it leaves the process in a log line or on a span: control characters
//! are escaped (nobody can forge a log line), card numbers masked, the length limited.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

/// Longest field value or message, in bytes; what is beyond is cut off.
pub const TEXT_LIMIT: usize = 2_048;
/// Digits of a card number: ISO/IEC 7812 has at most 19; below 13 none is in use.
const CARD_NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// What stands in the place of a card number.
pub const CARD_NUMBER_MASK: &str = "<card number>";
/// What stands in the place of a field's value whose name is not in the table.
pub const REDACTED: &str = "<redacted>";

/// Returns `text` with control and line-breaking characters escaped, card numbers masked, and cut
/// at [`TEXT_LIMIT`] bytes.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    // Masked before it is cut: half a card number would not be recognized.
    match mask_card_numbers(text) {
        Cow::Borrowed(text) => escape_controls(limit(text)),
        Cow::Owned(text) => Cow::Owned(escape_controls(limit(&text)).into_owned()),
    }
}

/// Returns an identifier unchanged if it has the shape of one (UUID, trace id, digest), which
/// nobody could mistake for a card number; else cleans it as text.
#[must_use]
pub fn clean_identifier(text: &str) -> Cow<'_, str> {
    if is_uuid(text) || is_hex_digest(text) {
        Cow::Borrowed(text)
    } else {
        clean(text)
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_hex_digest(text: &str) -> bool {
    matches!(text.len(), 32 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn limit(text: &str) -> &str {
    if text.len() <= TEXT_LIMIT {
        return text;
    }
    let mut end = TEXT_LIMIT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Whether a terminal or a log viewer could take the character for a new line or a reversal of
/// the text's direction.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_controls(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            other if is_unprintable(other) => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(other));
            }
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// Masks every sequence of 13 to 19 digits that passes the Luhn check, also where single spaces
/// or hyphens separate its groups. An unbroken run of more than 19 digits is masked too: a card
/// number could stand anywhere in it.
#[must_use]
pub fn mask_card_numbers(text: &str) -> Cow<'_, str> {
    // Nearly all text has too few digits.
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits < *CARD_NUMBER_DIGITS.start() {
        return Cow::Borrowed(text);
    }
    let mut masked = String::new();
    let mut copied = 0;
    for chain in digit_chains(text.as_bytes()) {
        for range in card_numbers(text.as_bytes(), &chain) {
            masked.push_str(text.get(copied..range.start).unwrap_or_default());
            masked.push_str(CARD_NUMBER_MASK);
            copied = range.end;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(masked)
}

/// Groups of digits, chained where exactly one space or hyphen stands between two of them.
fn digit_chains(bytes: &[u8]) -> Vec<Vec<Range<usize>>> {
    let mut chains: Vec<Vec<Range<usize>>> = Vec::new();
    let mut previous_end: Option<usize> = None;
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        if !byte.is_ascii_digit() {
            index += 1;
            continue;
        }
        let start = index;
        while bytes.get(index).is_some_and(u8::is_ascii_digit) {
            index += 1;
        }
        let joined = previous_end
            .is_some_and(|end| end + 1 == start && matches!(bytes.get(end), Some(b' ' | b'-')));
        let group = start..index;
        match chains.last_mut() {
            Some(chain) if joined => chain.push(group),
            _ => chains.push(Vec::from([group])),
        }
        previous_end = Some(index);
    }
    chains
}

/// The parts of a chain that are card numbers, in order.
fn card_numbers(bytes: &[u8], chain: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut rest = chain;
    while let Some(first) = rest.first() {
        let mut digits: Vec<u8> = Vec::new();
        let mut hit = (first.len() > *CARD_NUMBER_DIGITS.end()).then_some((1, first.end));
        for (index, group) in rest.iter().enumerate() {
            digits.extend(bytes.get(group.clone()).unwrap_or_default());
            if digits.len() > *CARD_NUMBER_DIGITS.end() {
                break;
            }
            if CARD_NUMBER_DIGITS.contains(&digits.len()) && passes_luhn(&digits) {
                hit = Some((index + 1, group.end));
            }
        }
        let used = hit.map_or(1, |(groups, end)| {
            found.push(first.start..end);
            groups
        });
        rest = rest.get(used..).unwrap_or_default();
    }
    found
}

/// ISO/IEC 7812-1 annex B.
fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let value = u32::from(digit.saturating_sub(b'0'));
            match (index % 2, value * 2) {
                (0, _) => value,
                (_, doubled @ 0..=9) => doubled,
                (_, doubled) => doubled - 9,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_masked_in_every_usual_spelling() {
        for (text, expected) in [
            ("4111111111111111", "<card number>"),
            (
                "card 4111 1111 1111 1111, thanks",
                "card <card number>, thanks",
            ),
            ("5555-5555-5555-4444", "<card number>"),
            ("amex:378282246310005.", "amex:<card number>."),
            ("4111 1111 1111 1111 12 25", "<card number> 12 25"),
            (
                "4222222222222 and 6011000990139424",
                "<card number> and <card number>",
            ),
            ("41111111111111111225", "<card number>"),
        ] {
            assert_eq!(mask_card_numbers(text), expected);
        }
    }

    #[test]
    fn other_digits_stay() {
        for text in [
            "4111111111111112",
            "2026-11-23T12:59:35.123456Z",
            "amount 123456789012 of 3",
            "0198d2c4-7b1e-7aaa-8bbb-0123456789ab",
            "",
        ] {
            assert_eq!(mask_card_numbers(text), text);
        }
    }

    #[test]
    fn nobody_can_forge_a_line() {
        assert_eq!(
            clean("ok\r\nlevel=ERROR\u{1b}[31m"),
            "ok\\r\\nlevel=ERROR\\u{1b}[31m"
        );
        assert_eq!(clean("a\u{2028}b\u{202e}c\td"), "a\\u{2028}b\\u{202e}c\\td");
        assert_eq!(clean("größer 👍"), "größer 👍");
    }

    #[test]
    fn text_is_cut_at_a_character_after_masking() {
        let text = format!("{}ü", "x".repeat(TEXT_LIMIT - 1));
        assert_eq!(clean(&text), "x".repeat(TEXT_LIMIT - 1));
        let text = format!("{}4111111111111111", "x".repeat(TEXT_LIMIT - 8));
        assert!(!clean(&text).contains("41111"));
    }

    #[test]
    fn identifiers_stay_and_what_only_pretends_is_cleaned() {
        // All digits, and the tail alone passes the Luhn check.
        let uuid = "01982345-6789-7012-8345-678901234567";
        assert_eq!(clean_identifier(uuid), uuid);
        let digest = "41111111111111114111111111111111";
        assert_eq!(clean_identifier(digest), digest);
        assert_eq!(clean_identifier("4111111111111111"), CARD_NUMBER_MASK);
        assert_eq!(clean_identifier("a\nb"), "a\\nb");
    }
}
