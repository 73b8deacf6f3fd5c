//! What text may enter an entry, and what happens to the rest.

use std::borrow::Cow;

/// What stands in an entry for each character that may not: U+FFFD, which no one mistakes for
/// something the caller wrote (a space could have been).
pub const REPLACEMENT: char = '\u{FFFD}';

/// Longest name of a disclosed field, a detail, a stream or a MAC key, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// Replaces every character that could forge or reorder a line of a printed log by [`REPLACEMENT`],
/// one for one: control characters (CR and LF among them, DEL, C1), the line and paragraph
/// separators, and the bidirectional embeddings, overrides and isolates (OWASP Logging Cheat Sheet).
///
/// Cleaning is idempotent; text that needs none is borrowed.
pub fn clean_text(text: &str) -> Cow<'_, str> {
    let dirty = if text.is_ascii() {
        text.bytes().any(|byte| byte.is_ascii_control())
    } else {
        text.chars().any(is_unsafe)
    };
    if dirty {
        text.chars()
            .map(|c| if is_unsafe(c) { REPLACEMENT } else { c })
            .collect::<String>()
            .into()
    } else {
        Cow::Borrowed(text)
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether `name` may be a key of an entry: 1 to 64 bytes of `a-z 0-9 _ . -`, starting with a letter.
/// ASCII only, so that byte order is the order RFC 8785 asks for (UTF-16 code units).
pub(crate) fn is_field_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_direction_overrides_are_replaced_one_for_one() {
        assert_eq!(clean_text("a\r\nb"), "a\u{FFFD}\u{FFFD}b");
        assert_eq!(clean_text("\0\t\x1b\x7f\u{85}"), "\u{FFFD}".repeat(5));
        assert_eq!(
            clean_text("x\u{2028}\u{202E}\u{2069}y"),
            "x\u{FFFD}\u{FFFD}\u{FFFD}y"
        );
    }

    #[test]
    fn ordinary_text_is_borrowed() {
        for text in ["", "order 42 \"x\" \\", "Möbius 日本 😀"] {
            assert!(matches!(clean_text(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn field_names_are_short_lower_case_ascii() {
        for good in ["a", "customer.name", "ip_address-2"] {
            assert!(is_field_name(good), "{good}");
        }
        for bad in [
            "",
            "A",
            "1a",
            "_sd",
            "...",
            "a b",
            "ü",
            "a\"",
            &"a".repeat(65),
        ] {
            assert!(!is_field_name(bad), "{bad}");
        }
    }
}
