//! What commands print on standard output. Everything else goes to the log, on standard error.

use std::io::{self, Write as _};

/// Prints one line. A reader that has gone away (`quittance … | head`) is no error.
pub fn line(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
