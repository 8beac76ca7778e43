//! Results on the terminal, for programs (`json`) and for spreadsheets (`csv`).

pub(super) mod paint;
pub(super) mod progress;

use std::io::{IsTerminal, Write};

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, ContentArrangement};
use serde_json::Value;

use super::client::CliError;

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Csv,
}

/// Flattened into every command that prints a result.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArgs {
    /// How to print the result
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// Rows of JSON scalars under named columns.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// One value per column.
    pub fn row(&mut self, values: Vec<Value>) {
        debug_assert_eq!(values.len(), self.columns.len());
        self.rows.push(values);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For people: borders and thousands separators when `pretty`, bare columns otherwise. Numbers stand on the right.
    pub fn to_text(&self, pretty: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(if pretty { UTF8_FULL_CONDENSED } else { NOTHING });
        table.set_content_arrangement(if pretty { ContentArrangement::Dynamic } else { ContentArrangement::Disabled });
        table.set_header(self.columns.iter().map(|c| Cell::new(printable(c))));
        for row in &self.rows {
            table.add_row(row.iter().map(|value| match value {
                Value::Number(n) => {
                    Cell::new(if pretty { grouped(&n.to_string()) } else { n.to_string() }).set_alignment(CellAlignment::Right)
                }
                Value::String(text) => Cell::new(printable(text)),
                Value::Null => Cell::new(if pretty { "–" } else { "-" }),
                other => Cell::new(other.to_string()),
            }));
        }
        for (i, column) in table.column_iter_mut().enumerate() {
            let numeric = self.rows.iter().any(|r| r[i].is_number()) && !self.rows.iter().any(|r| r[i].is_string());
            if numeric {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt()
    }

    /// RFC 4180, with a header; null is an empty field.
    pub fn to_csv(&self) -> String {
        let mut out = String::new();
        let mut line = |fields: &mut dyn Iterator<Item = String>| {
            for (i, field) in fields.enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&tallymesh_protocol::question::answer::csv_field(&field));
            }
            out.push_str("\r\n");
        };
        line(&mut self.columns.iter().cloned());
        for row in &self.rows {
            line(&mut row.iter().map(|v| match v {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }));
        }
        out
    }

    /// An array of objects.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Value>| Value::Object(self.columns.iter().cloned().zip(row.iter().cloned()).collect());
        Value::Array(self.rows.iter().map(object).collect())
    }

    /// Prints to stdout.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn print(&self, format: Format) -> Result<(), CliError> {
        match format {
            Format::Table => print_text(&format!("{}\n", self.to_text(std::io::stdout().is_terminal()))),
            Format::Csv => print_text(&self.to_csv()),
            Format::Json => print_json(&self.to_json()),
        }
    }
}

/// Pretty on a terminal, one line for programs.
///
/// # Errors
/// Stdout cannot be written.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = if std::io::stdout().is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    print_text(&format!("{}\n", text.map_err(|e| CliError::Failed(e.to_string()))?))
}

/// A reader that went away (`| head`) is no error.
///
/// # Errors
/// Stdout cannot be written.
pub fn print_text(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::Failed(format!("cannot print: {e}"))),
        _ => Ok(()),
    }
}

/// `1234567.5` as `1,234,567.5`.
pub fn grouped(number: &str) -> String {
    let (sign, rest) = number.strip_prefix('-').map_or(("", number), |r| ("-", r));
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (whole, tail) = rest.split_at(digits);
    let mut out = String::with_capacity(number.len() + whole.len() / 3);
    out.push_str(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out.push_str(tail);
    out
}

/// Text from outside without what would steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["country", "count"]);
        table.row(vec![json!("US"), json!(1_234_567)]);
        table.row(vec![json!(null), json!(3)]);
        table
    }

    #[test]
    fn numbers_are_grouped_for_people_and_bare_for_programs() {
        for (plain, people) in [("0", "0"), ("999", "999"), ("-1000", "-1,000"), ("1234567.25", "1,234,567.25"), ("1e300", "1e300")] {
            assert_eq!(grouped(plain), people);
        }
        let pretty = sample().to_text(true);
        assert!(pretty.contains("1,234,567") && pretty.contains('│'), "{pretty}");
        let plain = sample().to_text(false);
        assert!(plain.contains("1234567") && !plain.contains('│'), "{plain}");
        let ends: Vec<usize> = plain.lines().map(str::len).collect();
        assert!(ends.iter().all(|e| *e == ends[0]), "numbers end in one column: {plain}");
    }

    #[test]
    fn csv_quotes_what_needs_it_and_leaves_null_empty() {
        let mut table = sample();
        table.row(vec![json!("a,\"b\""), json!(1.5)]);
        assert_eq!(table.to_csv(), "country,count\r\nUS,1234567\r\n,3\r\n\"a,\"\"b\"\"\",1.5\r\n");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let mut table = Table::new(["event"]);
        table.row(vec![json!("\u{1b}[2Jgone")]);
        assert!(!table.to_text(true).contains('\u{1b}'));
    }
}
