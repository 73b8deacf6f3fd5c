//! Writing HTML so that no text can become markup.

use crate::text::clean_text;

/// A page under construction. What is not one of our own literals goes through [`Html::words`].
pub(super) struct Html(String);

impl Html {
    pub(super) fn new() -> Self {
        Self("<!DOCTYPE html>\n<html lang=\"en\">\n".to_owned())
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</html>\n");
        self.0
    }

    /// Markup of our own.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Starts an element; no class where it is empty.
    pub(super) fn open(&mut self, tag: &'static str, class: &'static str) -> &mut Self {
        self.0.push('<');
        self.0.push_str(tag);
        if !class.is_empty() {
            self.0.push_str(" class=\"");
            self.0.push_str(class);
            self.0.push('"');
        }
        self.0.push('>');
        self
    }

    pub(super) fn close(&mut self, tag: &'static str) -> &mut Self {
        self.0.push_str("</");
        self.0.push_str(tag);
        self.0.push_str(">\n");
        self
    }

    /// Any text, escaped; characters that would reorder or hide others are replaced.
    pub(super) fn words(&mut self, text: &str) -> &mut Self {
        for character in clean_text(text).chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        self
    }

    /// Any text, line by line.
    pub(super) fn words_in_lines(&mut self, text: &str) -> &mut Self {
        for (number, line) in text.lines().enumerate() {
            if number > 0 {
                self.0.push('\n');
            }
            self.words(line);
        }
        self
    }

    /// An element with nothing but text in it.
    pub(super) fn text(&mut self, tag: &'static str, class: &'static str, text: &str) -> &mut Self {
        self.open(tag, class).words(text).close(tag)
    }

    /// A term and what it is, in a list of such.
    pub(super) fn fact(&mut self, term: &str, class: &'static str, value: &str) -> &mut Self {
        self.open("div", "fact").text("dt", "", term);
        self.text("dd", class, value).close("div")
    }

    /// [`Html::fact`] for what may be absent.
    pub(super) fn opt_fact(&mut self, term: &str, class: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.fact(term, class, value);
        }
    }
}
