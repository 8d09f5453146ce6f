//! Tables that are shown as text, JSON Lines or CSV: described once, printed three ways.

use std::error::Error;
use std::io::Write;

use clap::ValueEnum;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, presets};
use pgwal::Lsn;
use pgwal::printable::escaped;
use pgwal::printable::printable;
use pgwal::text::{Text, Zone};
use pgwal::types::TimestampTz;
use pgwal::{WalFormat, put};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Form of a table that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Text,
    Json,
    Csv,
}

/// A table.
pub struct Table {
    /// Its name, in JSON the field `table`.
    pub name: &'static str,
    /// Its heading in text.
    pub title: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows: as many cells each as there are columns.
    pub rows: Vec<Row>,
}

/// A row.
pub struct Row {
    /// What it is besides an ordinary row (`total`), in JSON the field `row`; `None`: an ordinary one.
    pub kind: Option<&'static str>,
    /// Its cells.
    pub cells: Vec<Cell>,
}

/// A column.
pub struct Column {
    /// Its name in JSON and CSV; empty: it is in the text only.
    pub key: &'static str,
    /// Its heading in text; empty: it is not in the text.
    pub heading: &'static str,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    None,
    /// Text.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// A number that names something: text shows it without separators.
    Id(u64),
    /// Bytes.
    Size(u64),
    /// So much of so much; text only.
    Share(u64, u64),
    /// A position.
    Lsn(Lsn),
    /// A time: in text in the local zone, else in UTC.
    Time(TimestampTz),
}

/// Shows a column in all forms.
pub const fn column(key: &'static str, heading: &'static str) -> Column {
    Column { key, heading }
}

impl Table {
    /// Adds an ordinary row.
    pub fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row { kind: None, cells });
    }

    /// Adds a row that is not like the others.
    pub fn push_special(&mut self, kind: &'static str, cells: Vec<Cell>) {
        self.rows.push(Row { kind: Some(kind), cells });
    }

    /// Appends the table with its title.
    pub fn write_text(&self, zone: &Zone, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
        let shown: Vec<usize> = (0..self.columns.len()).filter(|&at| self.columns.get(at).is_some_and(|c| !c.heading.is_empty())).collect();
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(shown.iter().filter_map(|&at| self.columns.get(at)).map(|column| column.heading));
        for row in &self.rows {
            table.add_row(shown.iter().map(|&at| row.cells.get(at).map_or(String::new(), |cell| escaped(&cell.text(zone)).into_owned())));
        }
        for (column, &at) in table.column_iter_mut().zip(&shown) {
            let number = |row: &Row| row.cells.get(at).is_some_and(Cell::is_number);
            if self.rows.iter().any(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
        }
        writeln!(out, "{}", printable(&self.title))?;
        for line in table.lines() {
            writeln!(out, "  {}", line.trim_end())?;
        }
        Ok(())
    }

    /// Appends one JSON object for each row.
    pub fn write_json(&self, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
        for row in &self.rows {
            pgwal::json::to_writer(&mut *out, &Object { table: self, row })?;
            writeln!(out)?;
        }
        Ok(())
    }

    /// Appends the table with a line of its columns' names.
    pub fn write_csv(&self, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
        let mut csv = csv::Writer::from_writer(out);
        let named = |at: &usize| self.columns.get(*at).is_some_and(|column| !column.key.is_empty());
        let named: Vec<usize> = (0..self.columns.len()).filter(named).collect();
        csv.write_record(["row"].into_iter().chain(named.iter().filter_map(|&at| self.columns.get(at)).map(|column| column.key)))?;
        for row in &self.rows {
            // As in text, so that what is shown on a terminal does not steer it, and a row is a line. JSON has names as they are.
            let cells = named.iter().map(|&at| row.cells.get(at).map_or(String::new(), |cell| escaped(&cell.plain()).into_owned()));
            csv.write_record([row.kind.unwrap_or("row").to_owned()].into_iter().chain(cells))?;
        }
        csv.flush()?;
        Ok(())
    }
}

struct Object<'t> {
    table: &'t Table,
    row: &'t Row,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("table", self.table.name)?;
        map.serialize_entry("row", self.row.kind.unwrap_or("row"))?;
        for (column, cell) in self.table.columns.iter().zip(&self.row.cells).filter(|(column, _)| !column.key.is_empty()) {
            map.serialize_entry(column.key, cell)?;
        }
        map.end()
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::None | Cell::Share(..) => serializer.serialize_none(),
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::Flag(is) => serializer.serialize_bool(*is),
            Cell::Number(number) | Cell::Id(number) | Cell::Size(number) => serializer.serialize_u64(*number),
            Cell::Lsn(lsn) => lsn.serialize(serializer),
            Cell::Time(time) => time.serialize(serializer),
        }
    }
}

impl Cell {
    fn is_number(&self) -> bool {
        matches!(self, Cell::Number(_) | Cell::Size(_) | Cell::Share(..))
    }

    /// For people.
    pub fn text(&self, zone: &Zone) -> String {
        match *self {
            Cell::Flag(is) => if is { "yes" } else { "no" }.to_owned(),
            Cell::Number(number) => grouped(number),
            Cell::Size(size) => pretty_size(size),
            Cell::Share(part, whole) => format!("{:.1}%", percent(part, whole)),
            Cell::Time(time) => {
                // 19 is like all others here: it is the format of LSNs that changed.
                let mut text = Text::new(WalFormat::new(19), zone.clone());
                put!(&mut text, time);
                text.to_string_lossy().replacen(".000000 ", " ", 1)
            }
            _ => self.plain(),
        }
    }

    /// For programs.
    fn plain(&self) -> String {
        match self {
            Cell::None | Cell::Share(..) => String::new(),
            Cell::Text(text) => text.clone(),
            Cell::Flag(is) => is.to_string(),
            Cell::Number(number) | Cell::Id(number) | Cell::Size(number) => number.to_string(),
            Cell::Lsn(lsn) => lsn.to_string(),
            Cell::Time(time) => time.to_string(),
        }
    }
}

/// Hundredths that `part` is of `whole`; zero of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as people say them, in PostgreSQL's units of 1024: `bytes`, `kB`, `MB`, `GB`, `TB`.
pub fn pretty_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    if bytes < 10_000 {
        return format!("{} B", grouped(bytes));
    }
    let mut units = ["kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = "B";
    // Rounded to one digit, 1023.96 would be 1024.0.
    while size >= 1023.95 {
        let Some(next) = units.next() else { break };
        (size, unit) = (size / 1024.0, next);
    }
    format!("{size:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 9_999, 10_000, 1 << 20, (1 << 20) - 1, u64::MAX].map(pretty_size);
        assert_eq!(sizes, ["0 B", "9,999 B", "9.8 kB", "1.0 MB", "1.0 MB", "16.0 EB"]);
    }

    #[test]
    fn one_description_three_forms() {
        let mut table = Table {
            name: "relation",
            title: "Relations".to_owned(),
            columns: vec![column("name", "relation"), column("oid", ""), column("size", "size"), column("", "%"), column("end", "end")],
            rows: Vec::new(),
        };
        let time = Cell::Time(TimestampTz(1_000_000));
        table.push(vec![Cell::Text("a,\"b\"".into()), Cell::Id(16384), Cell::Size(20_480), Cell::Share(1, 3), time]);
        table.push_special("total", vec![Cell::Text("total".into()), Cell::None, Cell::Size(61_440), Cell::Share(3, 3), Cell::None]);
        let mut out = Vec::new();
        table.write_text(&Zone::utc(), &mut out).unwrap();
        table.write_json(&mut out).unwrap();
        table.write_csv(&mut out).unwrap();
        let expected = "\
Relations
  relation     size       %  end
  a,\"b\"     20.0 kB   33.3%  2000-01-01 00:00:01 UTC
  total     60.0 kB  100.0%
{\"table\":\"relation\",\"row\":\"row\",\"name\":\"a,\\\"b\\\"\",\"oid\":16384,\"size\":20480,\"end\":\"2000-01-01T00:00:01.000000Z\"}
{\"table\":\"relation\",\"row\":\"total\",\"name\":\"total\",\"oid\":null,\"size\":61440,\"end\":null}
row,name,oid,size,end
row,\"a,\"\"b\"\"\",16384,20480,2000-01-01T00:00:01.000000Z
total,total,,61440,
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        // Control characters are escaped as in text; what is read back is that, and nothing else is changed.
        table.rows.clear();
        for name in ["\x1b[2J\n\"x\", y\u{9b}\r", "Größe, \\x1b", "=1+1\u{202e}"] {
            table.push(vec![Cell::Text(name.into()), Cell::None, Cell::None, Cell::None, Cell::None]);
        }
        let mut out = Vec::new();
        table.write_csv(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().count() == 4 && !text.lines().any(pgwal::printable::has_unprintable), "{text}");
        let read: Vec<String> = csv::Reader::from_reader(text.as_bytes()).records().map(|row| row.unwrap()[1].to_owned()).collect();
        assert_eq!(read, ["\\x1b[2J\\n\"x\", y\\u{9b}\\r", "Größe, \\x1b", "=1+1\\u{202e}"]);
    }
}
