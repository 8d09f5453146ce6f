//! `pgwal stats`: what fills the WAL.
//!
//! # JSON
//! One object a line. `table` is the table's name; `row` is `row`, or `total`, `others` (rows that were left out) or `none` (what belongs to
//! no row, as records without a relation do). Without `row` = `total`, the rows of a table add up to the whole WAL. LSNs are strings,
//! times are in UTC, sizes in bytes; null: there is none. CSV has the same fields, but for `table`.
//!
//! | `table` | fields |
//! | --- | --- |
//! | `wal` | on the whole, one row, always the first: `major`, `timeline` of the first record, `start`, `end`, `first_end` and `last_end` (times of commits and aborts), `commits`, `aborts`, `checkpoints`, counts |
//! | `rmgr`, `record` | `rmgr`, for `record` also `opcode`; counts |
//! | `relation` | `relation` (name, or the three numbers), `spc`, `db`, `rel`; counts |
//! | `database` | `database` (name, or number), `db`; counts |
//! | `transaction` | `xid`, `outcome` ([`Outcome`]), `time`, `first` and `end` (LSNs of its first record and of its end), `subtransactions` (that the WAL names, each once), `is_subtransaction` (it is one itself, of a top-level transaction that the WAL does not name); counts |
//! | `time` | `time` (start of the interval), `commits`, `aborts`; counts |
//! | `segment` | `segment`; counts |
//! | `checkpoint` | `lsn`, `redo`, `distance`, `time`, `timeline`, `cause` ([`Cause`]), `lost_transactions` |
//! | `image` | `reason` ([`Reason`]), `compression`, `fpi_count`, `fpi_size`, `raw_size` (without holes, before compression), `page_size` (whole pages) |
//! | `compression_estimate` | `method`, `saved`, and what it comes from: `sampled` images with `sampled_size` bytes became `compressed_size`; all that are not compressed have `uncompressed_size` |
//!
//! Counts are `count` (records), `record_size` (without images), `fpi_count`, `fpi_size` (page images), `combined_size`.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use pgwal::names::Names;
use pgwal::scan;
use pgwal::stats::Counts;
use pgwal::text::Zone;
use pgwal::types::{Oid, RelFileLocator, TimestampTz};
use pgwal::usage::{self, Cause, Outcome, Reason, Usage, Wanted};
use pgwal::{Lsn, WalFormat};

use super::dump::conclude;
use crate::args::{InputArgs, NamesArg, ThreadsArg, TimeArgs, WrongOption, in_order, number};
use crate::table::{Cell, Column, Form, Table, column, grouped, percent, pretty_size};

/// Say what fills the WAL: by relation, transaction, time and more
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without --by: a page with the largest of everything. Tables:
  rmgr, record   as pg_waldump --stats and --stats=record
  relation       a record counts for the relation of its first block reference, images for those that they are of
  database       by the relations' databases
  transaction    with its end; subtransactions with their top-level transaction, where the WAL tells
  time           by commits and aborts; records belong to the one that comes next
  segment        by the segment that a record starts in
  checkpoint     with its distance and, as far as the WAL tells, its cause
  image          full-page images by reason and compression, and what wal_compression would save

Example: pgwal stats --by relation --top 3 fixtures/v17/pgbench

Exit status: 0 the WAL was read to its end, or to the end asked for; 1 damage, or an input that cannot be read (what was read before \
is shown); 2 wrong options, or standard output cannot be written.")]
pub struct Opts {
    #[command(flatten)]
    input: InputArgs,
    /// Tables to show
    #[arg(long, value_name = "TABLE", value_delimiter = ',')]
    by: Vec<By>,
    /// Rows of a table, the largest [default: 10, with --by all, but 1000 transactions]
    #[arg(long, value_name = "N", value_parser = number::<u32>(1..=200_000))]
    top: Option<u32>,
    /// Start at this LSN, or after the last commit or abort before this time
    #[arg(long, value_name = "LSN|TIME", value_parser = point)]
    from: Option<Point>,
    /// Stop at this LSN, or before the first commit or abort after this time
    #[arg(long, value_name = "LSN|TIME", value_parser = point)]
    to: Option<Point>,
    /// Width of the intervals of --by time: 30s, 1m, 2h, 1d [default: what gives at most 40 rows]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    interval: Option<i64>,
    /// Form of the output: tables, one JSON object a row, or one table (--by) as CSV
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
    #[command(flatten)]
    names: NamesArg,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Rmgr,
    Record,
    Relation,
    Database,
    Transaction,
    Time,
    Segment,
    Checkpoint,
    Image,
}

/// A place in the WAL, by position or by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// A position.
    Lsn(Lsn),
    /// A time.
    Time(TimestampTz),
}

/// Reads an LSN or a time.
fn point(text: &str) -> Result<Point, String> {
    let lsn = text.parse().ok().filter(|_| text.contains('/')).map(Point::Lsn);
    lsn.or_else(|| Zone::local().parse(text).ok().map(Point::Time)).ok_or_else(|| {
        "expected an LSN, like 16/B374D848, or a time, like 2026-11-23 05:17:08.25+02; without an offset, the local zone's".to_owned()
    })
}

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;

fn interval(text: &str) -> Result<i64, String> {
    let expected = || "expected a number and a unit, like 30s, 1m, 2h or 1d".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?);
    let unit = match unit {
        "ms" => SECOND / 1000,
        "s" => SECOND,
        "m" | "min" => 60 * SECOND,
        "h" => 3600 * SECOND,
        "d" => 86_400 * SECOND,
        _ => return Err(expected()),
    };
    number.parse().ok().and_then(|number: i64| number.checked_mul(unit)).filter(|&width| width > 0).ok_or_else(expected)
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        if self.format == Form::Csv && self.by.len() != 1 {
            return Err(WrongOption("--format csv shows one table: it needs one --by".to_owned()).into());
        }
        let names = self.names.read()?;
        let wal = self.input.open()?;
        wal.passed_over().iter().for_each(|file| note!("{file}"));
        self.names.compare(&names, &wal);
        let mut options = scan::Options { start: None, end: None, threads: self.threads.get() };
        let mut times = TimeArgs::default();
        match self.from {
            Some(Point::Lsn(lsn)) => options.start = Some(lsn).filter(|lsn| lsn.is_valid()),
            Some(Point::Time(time)) => times.since = Some(time),
            None => {}
        }
        match self.to {
            Some(Point::Lsn(lsn)) => options.end = Some(lsn).filter(|lsn| lsn.is_valid()),
            Some(Point::Time(time)) => times.until = Some(time),
            None => {}
        }
        in_order("--from", options.start, "--to", options.end)?;
        in_order("--from", times.since, "--to", times.until)?;
        let options = times.narrow(&wal, options)?;
        let (usage, summary) = usage::count(&wal, options, self.wanted());
        let shown = Shown { usage: &usage, names: &names, top: self.top.map(|top| top as usize), start: options.start };
        let zone = Zone::local();
        let mut tables: Vec<Table> = Vec::new();
        for &by in &self.by {
            tables.extend(shown.tables(by, self.interval.is_some()));
        }
        match (self.format, usage.format()) {
            (_, None) => {}
            (Form::Text, Some(fmt)) => {
                if self.by.is_empty() {
                    shown.write_page(fmt, &zone, out)?;
                }
                for (at, table) in tables.iter().enumerate() {
                    if at > 0 {
                        writeln!(out)?;
                    }
                    table.write_text(&zone, out)?;
                }
            }
            (Form::Json, Some(fmt)) => {
                shown.span(fmt).write_json(out)?;
                if self.by.is_empty() {
                    tables = shown.page();
                }
                tables.iter().try_for_each(|table| table.write_json(out))?;
            }
            // An estimate is not a row of the images' table.
            (Form::Csv, Some(_)) => tables.iter().take(1).try_for_each(|table| table.write_csv(out))?,
        }
        out.flush()?;
        let (bad_payloads, errors) = usage.bad_payloads();
        errors.iter().for_each(|error| note!("{error}"));
        if bad_payloads > errors.len() as u64 {
            note!("{bad_payloads} payloads do not parse, of which these are the first");
        }
        Ok(conclude(&summary, &wal, self.input.is_part(), bad_payloads))
    }

    fn wanted(&self) -> Wanted {
        let page = self.by.is_empty();
        let any = |wanted: &[By]| self.by.iter().any(|by| wanted.contains(by));
        Wanted {
            relations: page || any(&[By::Relation, By::Database]),
            // Transactions that a crash cut off tell the cause of a checkpoint.
            transactions: page || any(&[By::Transaction, By::Checkpoint]),
            top: self.top.map_or(if page { 10 } else { 1000 }, |top| top as usize),
            interval: any(&[By::Time]).then(|| self.interval.unwrap_or(SECOND)),
            segments: any(&[By::Segment]),
            images: any(&[By::Image]),
        }
    }
}

/// What is shown, and how it is called.
struct Shown<'u> {
    usage: &'u Usage,
    names: &'u Names,
    top: Option<usize>,
    /// Where reading was to start.
    start: Option<Lsn>,
}

/// Columns of [`counts`].
const COUNTS: [Column; 8] = [
    column("count", "records"),
    column("", "%"),
    column("record_size", "record size"),
    column("fpi_count", "images"),
    column("fpi_size", "image size"),
    column("", "%"),
    column("combined_size", "total size"),
    column("", "%"),
];

/// Cells of counts, each with its share of `total`.
fn counts(counts: Counts, total: Counts) -> [Cell; 8] {
    [
        Cell::Number(counts.count),
        Cell::Share(counts.count, total.count),
        Cell::Size(counts.record_size),
        Cell::Number(counts.fpi_count),
        Cell::Size(counts.fpi_size),
        Cell::Share(counts.fpi_size, total.fpi_size),
        Cell::Size(counts.combined_size()),
        Cell::Share(counts.combined_size(), total.combined_size()),
    ]
}

fn id(oid: Oid) -> Cell {
    Cell::Id(oid.0.into())
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

/// A table whose rows end in counts.
fn counted(name: &'static str, title: impl Into<String>, columns: impl IntoIterator<Item = Column>) -> Table {
    Table { name, title: title.into(), columns: columns.into_iter().chain(COUNTS).collect(), rows: Vec::new() }
}

/// The first columns of a special row, of which the first says what it is.
fn special(what: impl Into<String>, columns: usize) -> impl Iterator<Item = Cell> {
    std::iter::once(text(what)).chain(std::iter::repeat_n(Cell::None, columns - 1))
}

impl Shown<'_> {
    fn total(&self) -> Counts {
        self.usage.total()
    }

    /// How many rows of a table to show.
    fn rows(&self, default: usize) -> usize {
        self.top.unwrap_or(default)
    }

    fn push_total(&self, table: &mut Table) {
        let first = table.columns.len() - COUNTS.len();
        let cells = special("total", first).chain(counts(self.total(), self.total())).collect();
        table.push_special("total", cells);
    }

    /// A row for what has no row of its own, where there is something.
    fn push_rest(&self, table: &mut Table, kind: &'static str, what: impl Into<String>, rest: Counts) {
        if rest.count > 0 || rest.fpi_count > 0 {
            let first = table.columns.len() - COUNTS.len();
            table.push_special(kind, special(what, first).chain(counts(rest, self.total())).collect());
        }
    }

    fn tables(&self, by: By, interval_asked: bool) -> Vec<Table> {
        vec![match by {
            By::Rmgr => self.records(false, usize::MAX),
            By::Record => self.records(true, usize::MAX),
            By::Relation => self.relations(usize::MAX),
            By::Database => self.databases(),
            By::Transaction => self.transactions(1000),
            By::Time => self.times(interval_asked),
            By::Segment => self.segments(),
            By::Checkpoint => self.checkpoints(usize::MAX),
            By::Image => return vec![self.images(), self.estimates()],
        }]
    }

    /// The tables of the page.
    fn page(&self) -> Vec<Table> {
        let mut tables = vec![self.records(true, 10), self.relations(10), self.transactions(10), self.checkpoints(10)];
        tables.retain(|table| !table.rows.is_empty());
        tables
    }

    fn write_page(&self, fmt: WalFormat, zone: &Zone, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
        let (usage, total) = (self.usage, self.total());
        let (start, end) = (usage.start().unwrap_or_default(), usage.end().unwrap_or_default());
        let timeline = usage.timeline().unwrap_or_default();
        writeln!(out, "WAL of PostgreSQL {}, timeline {timeline}, {start} to {end}: {}", fmt.major, pretty_size(end - start))?;
        let ends = usage.ends();
        if let Some((first, last)) = ends.times {
            let span = (last.0.saturating_sub(first.0)) as f64 / SECOND as f64;
            let time = |time| Cell::Time(time).text(zone);
            writeln!(out, "Transactions ended from {} to {}, in {}", time(first), time(last), duration(span))?;
        }
        let size = total.combined_size();
        let share = |part| format!("{:.1}%", percent(part, size));
        let images = match total.fpi_count {
            0 => "no full-page images".to_owned(),
            n => format!("{} full-page images with {} ({})", grouped(n), pretty_size(total.fpi_size), share(total.fpi_size)),
        };
        writeln!(out, "{} records with {}, {images}", grouped(total.count), pretty_size(size))?;
        for table in self.page() {
            writeln!(out)?;
            table.write_text(zone, out)?;
        }
        Ok(())
    }

    /// One row on the whole, in JSON only.
    fn span(&self, fmt: WalFormat) -> Table {
        let (usage, total, ends) = (self.usage, self.total(), self.usage.ends());
        let time = |time: Option<TimestampTz>| time.map_or(Cell::None, Cell::Time);
        let lsn = |lsn: Option<Lsn>| lsn.map_or(Cell::None, Cell::Lsn);
        let keys = ["major", "timeline", "start", "end", "first_end", "last_end", "commits", "aborts", "checkpoints"];
        let mut table = counted("wal", "", keys.map(|key| column(key, "")));
        let cells = [
            Cell::Number(fmt.major.into()),
            Cell::Number(usage.timeline().unwrap_or_default().0.into()),
            lsn(usage.start()),
            lsn(usage.end()),
            time(ends.times.map(|times| times.0)),
            time(ends.times.map(|times| times.1)),
            Cell::Number(ends.commits),
            Cell::Number(ends.aborts),
            Cell::Number(usage.checkpoint_count()),
        ];
        table.push(cells.into_iter().chain(counts(total, total)).collect());
        table
    }

    fn records(&self, per_record: bool, top: usize) -> Table {
        let (name, title) = if per_record { ("record", "Record types") } else { ("rmgr", "Resource managers") };
        let mut columns = vec![column("rmgr", if per_record { "" } else { "resource manager" })];
        if per_record {
            columns.extend([column("opcode", ""), column("", "record type")]);
        }
        let mut table = counted(name, title, columns);
        let Some(fmt) = self.usage.format() else { return table };
        let start = self.start.or(self.usage.start()).unwrap_or_default();
        let mut rows = self.usage.stats().report(per_record, fmt, start).rows;
        rows.retain(|row| row.counts.count > 0);
        // Sorted stably: the order of pg_waldump among equals.
        rows.sort_by_key(|row| std::cmp::Reverse(row.counts.combined_size()));
        let mut rest = Counts::default();
        let left_out = rows.len().saturating_sub(self.rows(top));
        for row in rows.iter().skip(self.rows(top)) {
            rest += row.counts;
        }
        for row in rows.into_iter().take(self.rows(top)) {
            let rmgr = row.rmgr.name().into_owned();
            let mut cells = vec![text(rmgr.clone())];
            if let Some(opcode) = row.opcode {
                cells.extend([text(opcode.clone()), text(format!("{rmgr}/{opcode}"))]);
            }
            table.push(cells.into_iter().chain(counts(row.counts, self.total())).collect());
        }
        let others = format!("({left_out} others)");
        if per_record {
            let cells = |what: String| [text(what.clone()), Cell::None, text(what)].into_iter();
            if left_out > 0 {
                table.push_special("others", cells(others).chain(counts(rest, self.total())).collect());
            }
            table.push_special("total", cells("total".into()).chain(counts(self.total(), self.total())).collect());
        } else {
            self.push_rest(&mut table, "others", others, rest);
            self.push_total(&mut table);
        }
        table
    }

    fn relations(&self, top: usize) -> Table {
        let columns = [column("relation", "relation"), column("spc", ""), column("db", ""), column("rel", "")];
        let rows = self.usage.relations();
        let mut others = self.usage.other_relations();
        let mut table = counted("relation", "", columns);
        for (at, &(rel, row)) in rows.iter().enumerate() {
            if at >= self.rows(top) {
                others.add(row);
                continue;
            }
            let RelFileLocator { spc, db, rel: file } = rel;
            let first = [text(self.names.show(rel).to_string()), id(spc), id(db), id(file)];
            table.push(first.into_iter().chain(counts(row, self.total())).collect());
        }
        table.title = format!("Relations, {} of {}", table.rows.len(), grouped(table.rows.len() as u64 + others.count));
        self.push_rest(&mut table, "others", format!("({} others)", grouped(others.count)), others.counts);
        self.push_rest(&mut table, "none", "(no relation)", self.usage.without_relation());
        self.push_total(&mut table);
        table
    }

    fn databases(&self) -> Table {
        let mut table = counted("database", "Databases", [column("database", "database"), column("db", "")]);
        let rows = self.usage.databases();
        let mut others = usage::Others::default();
        for (at, &(db, row)) in rows.iter().enumerate() {
            if at >= self.rows(usize::MAX) {
                others.add(row);
                continue;
            }
            let name = match (self.names.database(db), db.0) {
                (Some(name), _) => name.to_owned(),
                (None, 0) => "(shared)".to_owned(),
                (None, number) => number.to_string(),
            };
            table.push([text(name), id(db)].into_iter().chain(counts(row, self.total())).collect());
        }
        self.push_rest(&mut table, "others", format!("({} others)", grouped(others.count)), others.counts);
        self.push_rest(&mut table, "none", "(no relation)", self.usage.without_relation());
        self.push_total(&mut table);
        table
    }

    fn transactions(&self, top: usize) -> Table {
        let columns = [
            column("xid", "transaction"),
            column("outcome", ""),
            column("", "end"),
            column("time", "time"),
            column("first", "first record"),
            column("end", ""),
            column("subtransactions", "subxacts"),
            column("is_subtransaction", ""),
        ];
        let mut table = counted("transaction", "", columns);
        let all = self.usage.all_transactions();
        let mut others = all;
        for row in self.usage.transactions().into_iter().take(self.rows(top)) {
            others.count = others.count.saturating_sub(1);
            others.counts = less(others.counts, row.counts);
            let outcome = match (row.outcome, row.is_subtransaction) {
                (Outcome::Open, false) => String::new(),
                (outcome, false) => outcome.name().to_owned(),
                (Outcome::Open, true) => "(a subtransaction)".to_owned(),
                (outcome, true) => format!("{} (a subtransaction)", outcome.name()),
            };
            let first = [
                Cell::Id(row.xid.0.into()),
                text(row.outcome.name()),
                text(outcome),
                row.time.map_or(Cell::None, Cell::Time),
                Cell::Lsn(row.first),
                row.end.map_or(Cell::None, Cell::Lsn),
                Cell::Number(row.subtransactions),
                Cell::Flag(row.is_subtransaction),
            ];
            table.push(first.into_iter().chain(counts(row.counts, self.total())).collect());
        }
        let ends = self.usage.ends();
        let (shown, all) = (table.rows.len(), grouped(all.count));
        table.title = format!("Transactions, {shown} of {all}; {} commits, {} aborts", grouped(ends.commits), grouped(ends.aborts));
        self.push_rest(&mut table, "others", format!("({} others)", grouped(others.count)), others.counts);
        self.push_rest(&mut table, "none", "(no transaction)", self.usage.without_transaction());
        self.push_total(&mut table);
        table
    }

    fn times(&self, interval_asked: bool) -> Table {
        let columns = [column("time", "from"), column("commits", "commits"), column("aborts", "aborts")];
        let width = self.usage.interval();
        let times = if interval_asked { 1 } else { self.readable_interval() };
        let rows = self.usage.intervals(times);
        let seconds = width.saturating_mul(times) as f64 / SECOND as f64;
        let mut table = counted("time", format!("Intervals of {}", duration(seconds)), columns);
        table.columns.push(column("", "curve"));
        let largest = rows.values().map(|row| row.counts.combined_size()).max().unwrap_or_default();
        let bar = |size: u64| text("#".repeat((percent(size, largest) / 100.0 * 30.0).round() as usize));
        for (&start, row) in &rows {
            let first = [Cell::Time(start), Cell::Number(row.commits), Cell::Number(row.aborts)];
            let cells = first.into_iter().chain(counts(row.counts, self.total()));
            table.push(cells.chain([bar(row.counts.combined_size())]).collect());
        }
        let tail = self.usage.after_last_end();
        if tail.count > 0 {
            let cells = special("(after the last)", 3).chain(counts(tail, self.total()));
            table.push_special("none", cells.chain([bar(tail.combined_size())]).collect());
        }
        let ends = self.usage.ends();
        let first = [text("total"), Cell::Number(ends.commits), Cell::Number(ends.aborts)];
        table.push_special("total", first.into_iter().chain(counts(self.total(), self.total())).chain([Cell::None]).collect());
        table
    }

    /// How many seconds give at most 40 rows.
    fn readable_interval(&self) -> i64 {
        const SECONDS: [i64; 13] = [1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 21_600, 86_400, 604_800];
        let fits = |&seconds: &i64| self.usage.intervals(seconds).len() <= 40;
        SECONDS.into_iter().find(fits).unwrap_or(30 * 86_400)
    }

    fn segments(&self) -> Table {
        let mut table = counted("segment", "Segments", [column("segment", "segment")]);
        let mut rows: Vec<_> = self.usage.segments().to_vec();
        let mut others = self.usage.other_segments();
        if let Some(top) = self.top {
            // The largest, in the order of the WAL.
            let mut sizes: Vec<_> = rows.iter().map(|(name, row)| (std::cmp::Reverse(row.combined_size()), *name)).collect();
            sizes.sort_unstable();
            let limit = sizes.get(top).copied();
            rows.retain(|(name, row)| {
                let stays = limit.is_none_or(|limit| (std::cmp::Reverse(row.combined_size()), *name) < limit);
                if !stays {
                    others.add(*row);
                }
                stays
            });
        }
        for (name, row) in rows {
            table.push([text(name.to_string())].into_iter().chain(counts(row, self.total())).collect());
        }
        self.push_rest(&mut table, "others", format!("({} others)", grouped(others.count)), others.counts);
        self.push_total(&mut table);
        table
    }

    fn checkpoints(&self, top: usize) -> Table {
        let columns = vec![
            column("lsn", "record"),
            column("redo", "redo"),
            column("distance", "distance"),
            column("time", "began"),
            column("timeline", "timeline"),
            column("cause", ""),
            column("", "cause"),
            column("lost_transactions", "lost xacts"),
        ];
        let rows = self.usage.checkpoints();
        // The last ones: what happened most recently.
        let skipped = rows.len().saturating_sub(self.rows(top));
        let count = self.usage.checkpoint_count();
        let shown = rows.len() - skipped;
        let title = match (shown as u64 == count, skipped > 0) {
            (true, _) => format!("Checkpoints, {}", grouped(count)),
            (_, true) => format!("Checkpoints, the last {shown} of {}", grouped(count)),
            _ => format!("Checkpoints, the first {shown} of {}", grouped(count)),
        };
        let mut table = Table { name: "checkpoint", title, columns, rows: Vec::new() };
        for row in rows.iter().skip(skipped) {
            table.push(vec![
                Cell::Lsn(row.lsn),
                Cell::Lsn(row.redo),
                row.distance.map_or(Cell::None, Cell::Size),
                Cell::Time(row.time),
                Cell::Number(row.timeline.0.into()),
                text(row.cause.name()),
                text(cause(row.cause)),
                Cell::Number(row.lost_transactions),
            ]);
        }
        table
    }

    fn images(&self) -> Table {
        let columns = vec![
            column("reason", ""),
            column("", "reason"),
            column("compression", "compression"),
            column("fpi_count", "images"),
            column("", "%"),
            column("fpi_size", "size"),
            column("", "%"),
            column("raw_size", "uncompressed"),
            column("page_size", "as pages"),
        ];
        let total = self.total();
        let share = percent(total.fpi_size, total.combined_size());
        let title = format!("Full-page images: {share:.1}% of {}", pretty_size(total.combined_size()));
        let mut table = Table { name: "image", title, columns, rows: Vec::new() };
        let (mut raw, mut pages) = (0, 0);
        for row in self.usage.images() {
            (raw, pages) = (raw + row.raw_size, pages + row.page_size);
            table.push(vec![
                text(row.reason.name()),
                text(reason(row.reason)),
                text(row.compression.map_or("none", |compression| compression.name())),
                Cell::Number(row.count),
                Cell::Share(row.count, total.fpi_count),
                Cell::Size(row.size),
                Cell::Share(row.size, total.fpi_size),
                Cell::Size(row.raw_size),
                Cell::Size(row.page_size),
            ]);
        }
        let (count, size) = (total.fpi_count, total.fpi_size);
        table.push_special(
            "total",
            vec![
                text("total"),
                text("total"),
                Cell::None,
                Cell::Number(count),
                Cell::Share(count, count),
                Cell::Size(size),
                Cell::Share(size, size),
                Cell::Size(raw),
                Cell::Size(pages),
            ],
        );
        table
    }

    fn estimates(&self) -> Table {
        let columns = vec![
            column("method", "wal_compression"),
            column("saved", "would save"),
            column("", "% of the images"),
            column("", "% of the WAL"),
            column("sampled", "measured on"),
            column("sampled_size", "size"),
            column("compressed_size", "compressed"),
            column("uncompressed_size", ""),
        ];
        let title =
            "Estimate for the images that are not compressed, measured on a random sample of them (pglz is not measured)".to_owned();
        let mut table = Table { name: "compression_estimate", title, columns, rows: Vec::new() };
        let total = self.total();
        for estimate in self.usage.compression_estimates() {
            table.push(vec![
                text(estimate.method.name()),
                Cell::Size(estimate.saved()),
                Cell::Share(estimate.saved(), total.fpi_size),
                Cell::Share(estimate.saved(), total.combined_size()),
                Cell::Number(estimate.sampled),
                Cell::Size(estimate.sampled_size),
                Cell::Size(estimate.compressed_size),
                Cell::Size(estimate.uncompressed_size),
            ]);
        }
        if table.rows.is_empty() {
            table.title = "All images are compressed: there is nothing to save".to_owned();
            if total.fpi_count == 0 {
                table.title = "There are no images, so there is nothing to save".to_owned();
            }
            table.columns.clear();
        }
        table
    }
}

fn less(whole: Counts, part: Counts) -> Counts {
    Counts {
        count: whole.count.saturating_sub(part.count),
        record_size: whole.record_size.saturating_sub(part.record_size),
        fpi_count: whole.fpi_count.saturating_sub(part.fpi_count),
        fpi_size: whole.fpi_size.saturating_sub(part.fpi_size),
    }
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Online => "online: time, WAL volume or on request",
        Cause::Backup => "online: base backup",
        Cause::Promotion => "online: after promotion",
        Cause::Shutdown => "shutdown, or recovery without losses",
        Cause::CrashRecovery => "recovery after a crash",
        Cause::EndOfRecovery => "recovery to a new timeline",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Change => "change of a page, the first after a checkpoint",
        Reason::Hint => "hint bits",
        Reason::WholePage => "page written as a whole",
        Reason::Check => "wal_consistency_checking",
    }
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{seconds} s"),
        _ if seconds < 7200.0 => format!("{:.1} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}
