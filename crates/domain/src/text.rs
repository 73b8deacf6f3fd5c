//! Bounded text: what callers write, checked once, at the edge.

use std::fmt;

use thiserror::Error;

/// Why a text was refused. The message names no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// Required, and empty.
    #[error("must not be empty")]
    Empty,
    /// More characters than allowed.
    #[error("must be at most {max} characters long")]
    TooLong {
        /// Most characters allowed.
        max: usize,
    },
    /// A control character, a line break included.
    #[error("must not hold control characters")]
    ControlCharacter,
    /// Something outside printable ASCII.
    #[error("must hold printable ASCII characters only")]
    NotPrintableAscii,
}

/// Text of at most `MAX` characters, without control characters; may be empty.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Checks length (in characters) and control characters.
    pub fn parse(value: impl Into<String>) -> Result<Self, TextError> {
        let value = value.into();
        if value.len() > MAX && value.chars().count() > MAX {
            return Err(TextError::TooLong { max: MAX });
        }
        if value.chars().any(is_forbidden) {
            return Err(TextError::ControlCharacter);
        }
        Ok(Self(value))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, or `None` where it is empty.
    pub fn non_empty(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

/// Control characters, and the Unicode characters that reorder or hide text.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// Checks an identifier: 1 to `max` printable ASCII characters without spaces.
pub(crate) fn identifier(value: String, max: usize) -> Result<String, TextError> {
    if value.is_empty() {
        return Err(TextError::Empty);
    }
    if value.len() > max {
        return Err(TextError::TooLong { max });
    }
    if !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(TextError::NotPrintableAscii);
    }
    Ok(value)
}

/// A value that must never be printed: provider tokens, stored requests, personal fields.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sensitive<T>(T);

impl<T> Sensitive<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Hands the value out, to whoever has a reason to see it.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Takes the value out.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s66_length_counts_characters_and_control_characters_are_refused() {
        assert!(Text::<3>::parse("äöü").is_ok());
        assert_eq!(Text::<3>::parse("abcd"), Err(TextError::TooLong { max: 3 }));
        for bad in ["a\nb", "\0", "a\u{7f}", "\u{202E}abc", "\u{85}"] {
            assert_eq!(
                Text::<9>::parse(bad),
                Err(TextError::ControlCharacter),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn sensitive_values_do_not_print() {
        assert_eq!(
            format!("{:?}", Sensitive::new("tok_approve")),
            "<sensitive>"
        );
        assert_eq!(
            format!("{:?}", Text::<9>::parse("Ada").unwrap()),
            "Text(3 bytes)"
        );
    }
}
