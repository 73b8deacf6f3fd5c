//! Settlement exports in CSV (RFC 4180), read as they come: one record is held at a time.

mod table;

pub use table::{MAX_COLUMNS, MAX_RECORD_BYTES, Row, Rows, Table};
