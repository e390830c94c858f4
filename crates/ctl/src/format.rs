//! The output formats of listings.

use std::io::{self, Write};

use serde_json::{Map, Value};
use warren_control::{Cell, Row};

/// How listings are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Formatter {
    /// Values separated by tabs, a line a row.
    #[default]
    Table,
    /// A table with borders.
    PrettyTable,
    /// An array of objects.
    Json,
    /// An object a line.
    JsonStream,
    /// Values in quotes, separated by commas.
    Csv,
    /// An Erlang list of property lists.
    Erlang,
}

impl Formatter {
    /// Whether programs read it: then nothing else is printed.
    pub(crate) fn is_for_programs(self) -> bool {
        matches!(self, Self::Json | Self::JsonStream | Self::Csv | Self::Erlang)
    }
}

/// Prints the rows of a listing as they come.
#[derive(Debug)]
pub(crate) struct Printer<'a, W> {
    formatter: Formatter,
    headers: bool,
    columns: &'a [String],
    out: W,
    rows: usize,
    /// A pretty table is as wide as its widest values, so it is kept until the end.
    kept: Vec<Vec<String>>,
}

impl<'a, W: Write> Printer<'a, W> {
    pub(crate) fn new(formatter: Formatter, headers: bool, columns: &'a [String], out: W) -> Self {
        Self { formatter, headers, columns, out, rows: 0, kept: Vec::new() }
    }

    /// Prints a row.
    pub(crate) fn row(&mut self, row: &Row) -> io::Result<()> {
        if self.rows == 0 {
            self.begin()?;
        }
        match self.formatter {
            Formatter::Table => {
                writeln!(self.out, "{}", joined(row.iter().map(|cell| escaped(&text(cell))), "\t"))?
            }
            Formatter::PrettyTable => self.kept.push(row.iter().map(|cell| escaped(&text(cell))).collect()),
            Formatter::Csv => {
                writeln!(self.out, "{}", joined(row.iter().map(|cell| quoted(&text(cell))), ","))?
            }
            Formatter::Json => {
                let comma = if self.rows == 0 { "" } else { "," };
                writeln!(self.out, "{comma}{}", self.object(row))?;
            }
            Formatter::JsonStream => writeln!(self.out, "{}", self.object(row))?,
            Formatter::Erlang => {
                let comma = if self.rows == 0 { "" } else { ",\n " };
                write!(self.out, "{comma}{}", self.properties(row))?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.formatter {
            Formatter::Table if self.headers => writeln!(self.out, "{}", self.columns.join("\t")),
            Formatter::Csv if self.headers => {
                writeln!(self.out, "{}", joined(self.columns.iter().map(|name| quoted(name)), ","))
            }
            Formatter::Json => writeln!(self.out, "["),
            Formatter::Erlang => write!(self.out, "["),
            _ => Ok(()),
        }
    }

    /// Prints what comes behind the last row.
    pub(crate) fn end(mut self) -> io::Result<()> {
        if self.rows == 0 && matches!(self.formatter, Formatter::Json | Formatter::Erlang) {
            self.begin()?;
        }
        match self.formatter {
            Formatter::Json => writeln!(self.out, "]")?,
            Formatter::Erlang => writeln!(self.out, "]")?,
            Formatter::PrettyTable => self.pretty()?,
            _ => {}
        }
        self.out.flush()
    }

    fn object(&self, row: &Row) -> Value {
        let entries = self.columns.iter().zip(row).map(|(name, cell)| (name.clone(), value(cell)));
        Value::Object(entries.collect::<Map<_, _>>())
    }

    fn properties(&self, row: &Row) -> String {
        let pairs = self.columns.iter().zip(row).map(|(name, cell)| format!("{{{name},{}}}", term(cell)));
        format!("[{}]", joined(pairs, ","))
    }

    fn pretty(&mut self) -> io::Result<()> {
        let mut widths: Vec<usize> = self.columns.iter().map(|name| name.chars().count()).collect();
        for row in &self.kept {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let rule = |left: &str, middle: &str, right: &str| {
            let bars: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            format!("{left}{}{right}", bars.join(middle))
        };
        let line = |cells: &[String]| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!(" {cell}{} ", " ".repeat(width - cell.chars().count())))
                .collect();
            format!("│{}│", padded.join("│"))
        };
        writeln!(self.out, "{}", rule("┌", "┬", "┐"))?;
        if self.headers {
            writeln!(self.out, "{}", line(self.columns))?;
            writeln!(self.out, "{}", rule("├", "┼", "┤"))?;
        }
        for row in &self.kept {
            writeln!(self.out, "{}", line(row))?;
        }
        writeln!(self.out, "{}", rule("└", "┴", "┘"))
    }
}

fn joined(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

/// A line must stay a line, and a value a value.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            letter if letter.is_control() => out.push_str(&format!("\\{:03o}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A value as people read it.
fn text(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Text(text) | Cell::Word(text) | Cell::Pid(text) => text.clone(),
        Cell::Words(words) => format!("[{}]", words.join(", ")),
        Cell::Number(number) => number.to_string(),
        Cell::Flag(flag) => flag.to_string(),
        Cell::Arguments(table) => properties(table),
        Cell::Json(value) => value.to_string(),
    }
}

/// A field table as a list of pairs, without the types.
fn properties(table: &Value) -> String {
    let pair = |entry: &Value| format!("{{{},{}}}", plain(&entry[0]), typed(&entry[1], &entry[2]));
    format!("[{}]", joined(table.as_array().into_iter().flatten().map(pair), ","))
}

fn typed(kind: &Value, value: &Value) -> String {
    match kind.as_str() {
        Some("table") => properties(value),
        Some("array") => {
            let items = value.as_array().into_iter().flatten();
            format!("[{}]", joined(items.map(|item| typed(&item[0], &item[1])), ","))
        }
        _ => plain(value),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Null => "undefined".to_owned(),
        other => other.to_string(),
    }
}

/// A value in JSON.
fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Empty => Value::String(String::new()),
        Cell::Text(text) | Cell::Word(text) | Cell::Pid(text) => Value::String(text.clone()),
        Cell::Words(words) => words.iter().cloned().map(Value::String).collect(),
        Cell::Number(number) => Value::from(*number),
        Cell::Flag(flag) => Value::Bool(*flag),
        Cell::Arguments(table) => table.clone(),
        Cell::Json(value) => value.clone(),
    }
}

/// A value as an Erlang term.
fn term(cell: &Cell) -> String {
    let binary = |text: &str| format!("<<{text:?}>>");
    match cell {
        Cell::Empty => "<<>>".to_owned(),
        Cell::Text(text) => binary(text),
        Cell::Pid(pid) => pid.clone(),
        Cell::Word(word) => word.clone(),
        Cell::Words(words) => format!("[{}]", words.join(",")),
        Cell::Number(number) => number.to_string(),
        Cell::Flag(flag) => flag.to_string(),
        Cell::Arguments(table) => properties(table),
        Cell::Json(value) => binary(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(formatter: Formatter, headers: bool, rows: &[Row]) -> String {
        let columns: Vec<String> = ["name", "n", "arguments"].map(str::to_owned).to_vec();
        let mut out = Vec::new();
        let mut printer = Printer::new(formatter, headers, &columns, &mut out);
        rows.iter().for_each(|row| printer.row(row).expect("memory takes everything"));
        printer.end().expect("memory takes everything");
        String::from_utf8(out).expect("it is text")
    }

    fn rows() -> Vec<Row> {
        let arguments = json!([
            ["x-max-length", "signedint", 10],
            ["x-dead-letter-exchange", "longstr", "dlx"],
            ["t", "table", [["l", "array", [["bool", true], ["void", null]]]]]
        ]);
        vec![
            vec![Cell::Text("q\t1".into()), Cell::Number(1), Cell::Arguments(arguments)],
            vec![Cell::Text("a \"b\"".into()), Cell::Empty, Cell::Arguments(json!([]))],
        ]
    }

    #[test]
    fn tables() {
        let rows = rows();
        let lines = "q\\0111\t1\t[{\"x-max-length\",10},{\"x-dead-letter-exchange\",\"dlx\"},\
                     {\"t\",[{\"l\",[true,undefined]}]}]\na \"b\"\t\t[]\n";
        assert_eq!(printed(Formatter::Table, true, &rows), format!("name\tn\targuments\n{lines}"));
        assert_eq!(printed(Formatter::Table, false, &rows), lines);
        assert_eq!(printed(Formatter::Table, true, &[]), "");
    }

    #[test]
    fn json() {
        let printed_rows = printed(Formatter::Json, true, &rows());
        let parsed: Value = serde_json::from_str(&printed_rows).expect("it is JSON");
        assert_eq!(parsed[0]["arguments"][0], json!(["x-max-length", "signedint", 10]));
        assert_eq!(parsed[1]["n"], json!(""));
        assert_eq!(printed(Formatter::Json, true, &[]), "[\n]\n");
        let stream = printed(Formatter::JsonStream, true, &rows());
        assert_eq!(stream.lines().count(), 2);
    }

    #[test]
    fn csv_and_erlang() {
        let rows =
            [vec![Cell::Text("a \"b\"".into()), Cell::Flag(true), Cell::Words(vec!["x".into(), "y".into()])]];
        assert_eq!(
            printed(Formatter::Csv, true, &rows),
            "\"name\",\"n\",\"arguments\"\n\"a \"\"b\"\"\",\"true\",\"[x, y]\"\n"
        );
        assert_eq!(
            printed(Formatter::Erlang, true, &rows),
            "[[{name,<<\"a \\\"b\\\"\">>},{n,true},{arguments,[x,y]}]]\n"
        );
    }

    #[test]
    fn pretty_tables_fit_their_widest_value() {
        let rows = [vec![Cell::Text("longer".into()), Cell::Number(7), Cell::Empty]];
        assert_eq!(
            printed(Formatter::PrettyTable, true, &rows),
            "┌────────┬───┬───────────┐\n│ name   │ n │ arguments │\n├────────┼───┼───────────┤\n\
             │ longer │ 7 │           │\n└────────┴───┴───────────┘\n"
        );
    }
}
