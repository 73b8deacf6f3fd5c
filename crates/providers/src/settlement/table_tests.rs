use proptest::prelude::*;

use super::*;

/// Two columns; each record is passed over, unless it says `bad`.
struct Plain;

impl Rows for Plain {
    const NEEDED: &'static [&'static str] = &["a"];
    const READ: &'static [&'static str] = &["b"];

    fn line(&self, row: &Row<'_>) -> Result<ExportLine, ExportError> {
        match row.get("a") {
            "bad" => Err(row.wrong("a", ExportProblem::Shape)),
            _ => Ok(ExportLine::Unknown {
                line: row.line,
                named: format!("{}|{}", row.get("a"), row.get("b")),
            }),
        }
    }
}

type Told = Result<Vec<(u64, String)>, ExportError>;

/// What the text says, read in parts of `size` bytes.
fn read(text: &[u8], size: usize) -> Told {
    let mut table = Table::new(Plain);
    let mut lines = Vec::new();
    for part in text.chunks(size.max(1)) {
        lines.extend(table.read(part)?);
    }
    lines.extend(table.finish()?);
    let told = lines.into_iter().map(|line| match line {
        ExportLine::Unknown { line, named } => (line, named),
        other => panic!("{other:?}"),
    });
    Ok(told.collect())
}

fn whole(text: &str) -> Told {
    read(text.as_bytes(), usize::MAX)
}

fn said(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    let owned = |(line, text): &(u64, &str)| (*line, (*text).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn s78_records_are_read_as_rfc_4180_has_them() {
    for (text, expected) in [
        ("a,b\n1,2\n3,4\n", &[(2, "1|2"), (3, "3|4")][..]),
        ("a,b\r\n1,2\r\n3,4", &[(2, "1|2"), (3, "3|4")]),
        ("\u{feff}b,a\n2,1\n", &[(2, "1|2")]),
        ("a,b\n\"x, \"\"y\"\"\",2\n", &[(2, "x, \"y\"|2")]),
        ("a,b\n\"x\nz\",2\n3,4\n", &[(2, "x\nz|2"), (4, "3|4")]),
        ("a\n1\n", &[(2, "1|")]),
        ("a,other,b\n1,x,2\n", &[(2, "1|2")]),
        // Exports that were joined.
        ("a,b\n1,2\na,b\n3,4\n", &[(2, "1|2"), (4, "3|4")]),
        ("a,b\n", &[]),
    ] {
        assert_eq!(whole(text), Ok(said(expected)), "{text:?}");
    }
}

#[test]
fn s78_a_malformed_export_is_refused_with_line_and_column() {
    let long = format!("a,b\n1,2\n\"{}", "x".repeat(MAX_RECORD_BYTES + 1));
    let wide = format!("a,b\n{}", ",".repeat(MAX_COLUMNS + 1));
    for (text, line, column, problem) in [
        ("", 1, None, ExportProblem::NoHeader),
        ("b\n1\n", 1, Some("a"), ExportProblem::MissingColumn),
        ("a,b,a\n", 1, Some("a"), ExportProblem::RepeatedColumn),
        (
            "a,b\n1,2\n1\n",
            3,
            None,
            ExportProblem::Fields {
                expected: 2,
                found: 1,
            },
        ),
        ("a,b\n1,2\nbad,2\n", 3, Some("a"), ExportProblem::Shape),
        (
            &long,
            3,
            None,
            ExportProblem::TooLong {
                max: MAX_RECORD_BYTES,
            },
        ),
        (
            &wide,
            2,
            None,
            ExportProblem::Fields {
                expected: 2,
                found: MAX_COLUMNS + 1,
            },
        ),
    ] {
        let column = column.map(str::to_owned);
        let expected = ExportError {
            line,
            column,
            problem,
        };
        assert_eq!(whole(text), Err(expected), "{:?}", text.get(..20));
    }
    let bytes = read(b"a,b\n\xff,2\n", 3);
    assert_eq!(bytes, Err(ExportError::line(2, ExportProblem::Encoding)));
    let shown = ExportError::column(3, "gross", ExportProblem::Amount).to_string();
    assert!(shown.starts_with("line 3, column \"gross\": "), "{shown}");
}

#[test]
fn s78_columns_that_nobody_looks_at_are_named() {
    let mut table = Table::new(Plain);
    table.read(b"a,fee,b,net\n").unwrap();
    assert_eq!(table.ignored_columns(), ["fee", "net"]);
}

proptest! {
    #[test]
    fn s78_however_an_export_is_cut_it_says_the_same(text in "(a,b\n)?[ab,\"\r\n12x]{0,60}", size in 1..9_usize) {
        prop_assert_eq!(read(text.as_bytes(), size), whole(&text));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes, 7);
    }
}
