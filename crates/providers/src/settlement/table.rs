//! Records with a header, whatever the export.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use quittance_domain::ids::ProviderReference;
use quittance_domain::money::Currency;
use quittance_domain::reconciliation::{
    ExportError, ExportLine, ExportProblem, SettlementReader, minor_units,
};

/// Most bytes of one record. A quote that is never closed ends here.
pub const MAX_RECORD_BYTES: usize = 64 * 1_024;
/// Most columns of one record.
pub const MAX_COLUMNS: usize = 512;
/// Most columns that are named because nobody looked at them.
const MAX_IGNORED: usize = 50;
/// Most characters of a type that is not known.
const MAX_NAMED: usize = 60;

/// What an export's records mean.
pub trait Rows: Send {
    /// Columns without which nothing can be said.
    const NEEDED: &'static [&'static str];
    /// Columns that are read where they are there.
    const READ: &'static [&'static str];

    /// What a record says.
    ///
    /// # Errors
    /// What is wrong with it.
    fn line(&self, row: &Row<'_>) -> Result<ExportLine, ExportError>;
}

/// Reads records of one kind.
pub struct Table<R> {
    rows: R,
    csv: Reader,
    fields: Vec<u8>,
    ends: Vec<usize>,
    /// How much of `fields` and `ends` the record has filled so far.
    filled: (usize, usize),
    /// Where the record began.
    line: u64,
    header: Option<Vec<String>>,
}

/// A record under its header.
pub struct Row<'a> {
    header: &'a [String],
    fields: Vec<&'a str>,
    /// Where it begins.
    pub line: u64,
}

impl<R: Rows> Table<R> {
    /// A table whose records mean this.
    pub fn new(rows: R) -> Self {
        Self {
            rows,
            // A carriage return before the line feed is cut off afterwards: so lines are counted right.
            csv: ReaderBuilder::new()
                .terminator(Terminator::Any(b'\n'))
                .build(),
            fields: vec![0; MAX_RECORD_BYTES],
            ends: vec![0; MAX_COLUMNS],
            filled: (0, 0),
            line: 1,
            header: None,
        }
    }

    /// Reads on; an empty input is the end.
    fn feed(&mut self, mut input: &[u8]) -> Result<Vec<ExportLine>, ExportError> {
        let mut lines = Vec::new();
        loop {
            let (fields, ends) = self.filled;
            let (Some(free_fields), Some(free_ends)) =
                (self.fields.get_mut(fields..), self.ends.get_mut(ends..))
            else {
                return Ok(lines);
            };
            let (result, read, more_fields, more_ends) =
                self.csv.read_record(input, free_fields, free_ends);
            input = input.get(read..).unwrap_or_default();
            self.filled = (fields + more_fields, ends + more_ends);
            match result {
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(lines),
                ReadRecordResult::OutputFull => {
                    let max = MAX_RECORD_BYTES;
                    return Err(ExportError::line(self.line, ExportProblem::TooLong { max }));
                }
                ReadRecordResult::OutputEndsFull => {
                    let expected = self.header.as_ref().map_or(MAX_COLUMNS, Vec::len);
                    let found = MAX_COLUMNS + 1;
                    let problem = ExportProblem::Fields { expected, found };
                    return Err(ExportError::line(self.line, problem));
                }
                ReadRecordResult::Record => {
                    lines.extend(self.record()?);
                    self.filled = (0, 0);
                    self.line = self.csv.line();
                }
            }
        }
    }

    /// What the record that is complete says; nothing of the header, which may come again where exports were joined, nor of
    /// an empty line.
    fn record(&mut self) -> Result<Option<ExportLine>, ExportError> {
        let line = self.line;
        let mut start = 0;
        let mut fields = Vec::new();
        for end in self.ends.iter().take(self.filled.1) {
            let bytes = self.fields.get(start..*end).unwrap_or_default();
            start = *end;
            let text = std::str::from_utf8(bytes);
            fields.push(text.map_err(|_| ExportError::line(line, ExportProblem::Encoding))?);
        }
        if let Some(last) = fields.last_mut() {
            *last = last.strip_suffix('\r').unwrap_or(last);
        }
        if fields.iter().all(|field| field.is_empty()) {
            return Ok(None);
        }
        let Some(header) = &self.header else {
            self.header = Some(checked_header::<R>(&fields, line)?);
            return Ok(None);
        };
        if header.iter().map(String::as_str).eq(fields.iter().copied()) {
            return Ok(None);
        }
        if fields.len() != header.len() {
            let (expected, found) = (header.len(), fields.len());
            let problem = ExportProblem::Fields { expected, found };
            return Err(ExportError::line(line, problem));
        }
        let row = Row {
            header,
            fields,
            line,
        };
        self.rows.line(&row).map(Some)
    }
}

fn checked_header<R: Rows>(fields: &[&str], line: u64) -> Result<Vec<String>, ExportError> {
    let mut header: Vec<String> = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.trim_start_matches('\u{feff}').trim();
        let read = R::NEEDED.contains(&name) || R::READ.contains(&name);
        if read && header.iter().any(|known| known == name) {
            return Err(ExportError::column(
                line,
                name,
                ExportProblem::RepeatedColumn,
            ));
        }
        header.push(name.to_owned());
    }
    for needed in R::NEEDED {
        if !header.iter().any(|name| name == needed) {
            return Err(ExportError::column(
                line,
                *needed,
                ExportProblem::MissingColumn,
            ));
        }
    }
    Ok(header)
}

impl<R: Rows> SettlementReader for Table<R> {
    fn read(&mut self, chunk: &[u8]) -> Result<Vec<ExportLine>, ExportError> {
        if chunk.is_empty() {
            // Empty input would be its end.
            return Ok(Vec::new());
        }
        self.feed(chunk)
    }

    fn finish(&mut self) -> Result<Vec<ExportLine>, ExportError> {
        let lines = self.feed(&[])?;
        match self.header {
            Some(_) => Ok(lines),
            None => Err(ExportError::line(1, ExportProblem::NoHeader)),
        }
    }

    fn ignored_columns(&self) -> Vec<String> {
        let header = self.header.iter().flatten();
        let ignored = header.filter(|name| {
            !R::NEEDED.contains(&name.as_str()) && !R::READ.contains(&name.as_str())
        });
        ignored.take(MAX_IGNORED).cloned().collect()
    }
}

impl<'a> Row<'a> {
    /// A field; empty where its column is not there.
    pub fn get(&self, column: &str) -> &'a str {
        let at = self.header.iter().position(|name| name == column);
        let field = at.and_then(|at| self.fields.get(at));
        field.map_or("", |field| field.trim())
    }

    /// What is wrong with a field.
    pub fn wrong(&self, column: &str, problem: ExportProblem) -> ExportError {
        ExportError::column(self.line, column, problem)
    }

    /// A currency, in upper or lower case.
    pub fn currency(&self, column: &str) -> Result<Currency, ExportError> {
        let code = self.get(column).to_ascii_uppercase();
        Currency::parse(&code).map_err(|_| self.wrong(column, ExportProblem::Currency))
    }

    /// An amount in major units.
    pub fn amount(&self, column: &str, currency: Currency) -> Result<i64, ExportError> {
        let amount = minor_units(self.get(column), currency);
        amount.ok_or_else(|| self.wrong(column, ExportProblem::Amount))
    }

    /// A reference of the provider's; `None` where it is empty.
    pub fn reference(&self, column: &str) -> Result<Option<ProviderReference>, ExportError> {
        match self.get(column) {
            "" => Ok(None),
            text => ProviderReference::parse(text)
                .map(Some)
                .map_err(|_| self.wrong(column, ExportProblem::Reference)),
        }
    }

    /// A line whose type is not known.
    pub fn unknown(&self, column: &str) -> ExportLine {
        let named = self.get(column).chars().filter(|c| !c.is_control());
        ExportLine::Unknown {
            line: self.line,
            named: named.take(MAX_NAMED).collect(),
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
