//! The part of RFC 8785 (JSON Canonicalization Scheme) that entries need: objects with ASCII keys,
//! strings, and integers below 2^53. Floats and nulls cannot be written.
//!
//! Written by hand rather than with a canonicalizing serializer: those hold every value in a sorted
//! map before they write it, and bring the number formatting of ECMAScript, which we must never
//! produce. Here the keys are in order in the source, and the bytes go straight into one buffer.
//! Callers write keys in ascending order; the golden and property tests hold them to it.

use std::{borrow::Cow, collections::BTreeMap, fmt, io::Write as _};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::text::clean_text;

/// Usual size of an entry, so that the buffer is allocated once.
const USUAL_BYTES: usize = 2048;

/// Writes one object into a buffer, and remembers which of its fields took the most bytes.
pub(crate) struct ObjectWriter {
    out: Vec<u8>,
    needs_comma: bool,
    depth: u32,
    field: &'static str,
    field_start: usize,
    largest: (&'static str, usize),
}

impl ObjectWriter {
    pub(crate) fn new() -> Self {
        let mut out = Vec::with_capacity(USUAL_BYTES);
        out.push(b'{');
        Self {
            out,
            needs_comma: false,
            depth: 0,
            field: "",
            field_start: 0,
            largest: ("", 0),
        }
    }

    /// Ends the object; gives its bytes and its largest top-level field with that field's size.
    pub(crate) fn finish(mut self) -> (Vec<u8>, (&'static str, usize)) {
        self.note_size();
        self.out.push(b'}');
        (self.out, self.largest)
    }

    /// Text that people or other systems wrote: cleaned first.
    pub(crate) fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        push_string(&mut self.out, &clean_text(value));
    }

    pub(crate) fn opt_text(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// A value whose display form needs no escape: UUIDs, hashes, 64-bit integers as text.
    pub(crate) fn plain(&mut self, key: &'static str, value: impl fmt::Display) {
        self.key(key);
        self.out.push(b'"');
        self.display(value);
        self.out.push(b'"');
    }

    pub(crate) fn opt_plain(&mut self, key: &'static str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.plain(key, value);
        }
    }

    /// Bytes as lower-case hexadecimal.
    pub(crate) fn hex(&mut self, key: &'static str, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.key(key);
        self.out.push(b'"');
        for byte in bytes {
            let nibbles = [byte >> 4, byte & 0x0f];
            self.out
                .extend(nibbles.iter().filter_map(|n| DIGITS.get(usize::from(*n))));
        }
        self.out.push(b'"');
    }

    pub(crate) fn opt_hex(&mut self, key: &'static str, bytes: Option<impl AsRef<[u8]>>) {
        if let Some(bytes) = bytes {
            self.hex(key, bytes.as_ref());
        }
    }

    /// Bytes as unpadded base64url.
    pub(crate) fn base64url(&mut self, key: &'static str, bytes: &[u8]) {
        self.plain(key, URL_SAFE_NO_PAD.encode(bytes));
    }

    /// A small integer, as a JSON number.
    pub(crate) fn number(&mut self, key: &'static str, value: impl Into<u32>) {
        self.key(key);
        self.display(value.into());
    }

    pub(crate) fn opt_number(&mut self, key: &'static str, value: Option<impl Into<u32>>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.display(value);
    }

    /// An object whose fields `write` adds.
    pub(crate) fn object(&mut self, key: &'static str, write: impl FnOnce(&mut Self)) {
        self.key(key);
        self.out.push(b'{');
        self.needs_comma = false;
        self.depth += 1;
        write(self);
        self.depth -= 1;
        self.out.push(b'}');
        self.needs_comma = true;
    }

    /// An object of texts, sorted as the map is (its keys are ASCII); left out where it is empty.
    pub(crate) fn texts<V>(
        &mut self,
        key: &'static str,
        pairs: &BTreeMap<String, V>,
        render: impl Fn(&V) -> Cow<'_, str>,
    ) {
        if pairs.is_empty() {
            return;
        }
        self.object(key, |writer| {
            for (name, value) in pairs {
                writer.separate();
                push_string(&mut writer.out, name);
                writer.out.push(b':');
                push_string(&mut writer.out, &render(value));
            }
        });
    }

    fn key(&mut self, key: &'static str) {
        if self.depth == 0 {
            self.note_size();
            self.field = key;
            self.field_start = self.out.len();
        }
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn separate(&mut self) {
        if self.needs_comma {
            self.out.push(b',');
        }
        self.needs_comma = true;
    }

    fn note_size(&mut self) {
        let size = self.out.len() - self.field_start;
        if !self.field.is_empty() && size > self.largest.1 {
            self.largest = (self.field, size);
        }
    }

    fn display(&mut self, value: impl fmt::Display) {
        // Writing into memory cannot fail.
        let _ = write!(self.out, "{value}");
    }
}

/// Writes a JSON string with the escapes of RFC 8785, 3.2.2.2, and no others.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.bytes().for_each(|byte| push_escaped(out, byte));
    }
    out.push(b'"');
}

fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b'\n' => out.extend_from_slice(b"\\n"),
        0x0c => out.extend_from_slice(b"\\f"),
        b'\r' => out.extend_from_slice(b"\\r"),
        // Writing into memory cannot fail.
        0x00..=0x1f => {
            let _ = write!(out, "\\u{byte:04x}");
        }
        _ => out.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_the_minimal_escapes_of_rfc_8785() {
        let mut out = Vec::new();
        // The string of RFC 8785, 3.2.2 (its example input, unescaped).
        push_string(&mut out, "€$\u{f}\nA'B\"\\\\\"/");
        assert_eq!(out, "\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"".as_bytes());
    }

    #[test]
    fn every_control_character_has_its_one_form() {
        let mut out = Vec::new();
        push_string(&mut out, "\0\x08\t\n\x0b\x0c\r\x1f\x7f");
        assert_eq!(out, b"\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\"");
    }
}
