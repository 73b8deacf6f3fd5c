//! The texts that our notes sign: a title, then one fact a line, in a fixed order.

use std::{fmt::Display, str::FromStr};

/// A note's text is not of the form expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It is a text of another kind.
    #[error("the text is not that of a {0}")]
    OtherKind(&'static str),
    /// A line is missing, in the wrong place or malformed.
    #[error("the line {0:?} is missing or malformed")]
    Line(&'static str),
    /// There are lines after the last one.
    #[error("the text goes on after its end")]
    TooLong,
}

/// Reads lines one by one. A value has one spelling: writing it again must give the same text.
pub(crate) struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The title, which tells the kinds of text apart, and so their signatures.
    pub(crate) fn title(&mut self, title: &'static str) -> Result<(), TextError> {
        match self.next() {
            Some(line) if line == title => Ok(()),
            _ => Err(TextError::OtherKind(title)),
        }
    }

    /// The value of the line `<name> <value>`.
    pub(crate) fn value<T: FromStr + Display>(
        &mut self,
        name: &'static str,
    ) -> Result<T, TextError> {
        self.next()
            .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .and_then(parse)
            .ok_or(TextError::Line(name))
    }

    /// The next line, whatever it says.
    pub(crate) fn bare<T: FromStr + Display>(
        &mut self,
        what: &'static str,
    ) -> Result<T, TextError> {
        self.next().and_then(parse).ok_or(TextError::Line(what))
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(self) -> Result<(), TextError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(TextError::TooLong)
        }
    }

    fn next(&mut self) -> Option<&'a str> {
        let (line, rest) = self.0.split_once('\n')?;
        self.0 = rest;
        Some(line)
    }
}

fn parse<T: FromStr + Display>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    (value.to_string() == text).then_some(value)
}
