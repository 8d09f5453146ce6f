//! Differences as text in the style of a unified diff, and as JSON Lines.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{
    ButFor, Cluster, Comparison, Ending, Event, Field, First, Found, Kind, Parting, Sides, Sink, Switch, Tally, Verdict, Which,
    page_header_fields, record_fields,
};
use crate::lsn::Lsn;
use crate::page::PageHeader;
use crate::printable::{printable, printable_bytes};
use crate::record::RawRecord;
use crate::text::{Text, Zone};
use crate::{json, waldump};

/// Lines of one side that are held back until the other side's come before or after them.
const BLOCK: usize = 256 << 10;
/// Bytes in a line of a hex dump.
const ROW: usize = 16;
/// Lines of one field in a hex dump, where the two sides are not compared.
const ROWS: usize = 16;

/// Text in the style of a unified diff: records as pg_waldump prints them, with ` `, `-` or `+` before each line.
///
/// Where the two part for long, their records come in blocks, first some of A, then some of B.
pub struct Unified<W> {
    out: W,
    zone: Zone,
    /// Whether each difference is followed by its bytes.
    bytes: bool,
    /// Records of each side that are shown, at most.
    limit: u64,
    shown: super::Sides<u64>,
    left_out: super::Sides<u64>,
    /// Lines of each side that wait for the end of their block.
    block: super::Sides<Vec<u8>>,
    /// What the two sides are called, until that has been said.
    labels: Option<super::Sides<String>>,
}

impl<W: Write> Unified<W> {
    /// Text to `out`, with timestamps in `zone`, and with the bytes of what differs if `bytes`; `labels` are the names of the sides.
    pub fn new(out: W, zone: Zone, bytes: bool, limit: u64, labels: super::Sides<String>) -> Unified<W> {
        let labels = Some(labels);
        let (shown, left_out, block) = Default::default();
        Unified { out, zone, bytes, limit, shown, left_out, block, labels }
    }

    /// Writes what is held back, and how much was left out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        for which in Which::BOTH {
            let (sign, count) = (sign(which), *self.left_out.get(which));
            if count > 0 {
                let what = if count == 1 { "difference" } else { "differences" };
                writeln!(self.out, "{sign}… {count} more {what} of {which}")?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for which in Which::BOTH {
            self.out.write_all(self.block.get(which))?;
            self.block.get_mut(which).clear();
        }
        Ok(())
    }

    /// Whether one more of that side is to be shown.
    fn wanted(&mut self, which: Which) -> bool {
        let shown = self.shown.get_mut(which);
        *shown += 1;
        let wanted = *shown <= self.limit;
        *self.left_out.get_mut(which) += u64::from(!wanted);
        wanted
    }

    fn head(&mut self) -> io::Result<()> {
        match self.labels.take() {
            Some(labels) => writeln!(self.out, "--- {}\n+++ {}", printable(labels.a), printable(labels.b)),
            None => Ok(()),
        }
    }

    fn line(&self, sign: char, found: &Found<'_>) -> Vec<u8> {
        match found {
            Found::Record(raw) => self.record_line(sign, raw),
            Found::Damage(damage) => format!("{sign}damaged: {}\n", printable(damage)).into_bytes(),
        }
    }

    fn record_line(&self, sign: char, raw: &RawRecord<'_>) -> Vec<u8> {
        let mut line = sign.to_string().into_bytes();
        // What a record says may be anything, such as the name of a restore point.
        let text = record_text(raw, self.zone.clone());
        line.extend_from_slice(printable_bytes(text.as_bytes()).to_string().as_bytes());
        line.push(b'\n');
        line
    }

    /// Bytes of both sides, or of one.
    fn dump(&mut self, a: Option<Dumped<'_>>, b: Option<Dumped<'_>>) -> io::Result<()> {
        self.flush()?;
        let mut out = String::new();
        match (a, b) {
            (Some(a), Some(b)) => dump_both(&a, &b, &mut out),
            (Some(a), None) => a.fields.iter().for_each(|field| dump_one('-', field, &mut out)),
            (None, Some(b)) => b.fields.iter().for_each(|field| dump_one('+', field, &mut out)),
            (None, None) => {}
        }
        self.out.write_all(out.as_bytes())
    }
}

impl<W: Write> Sink for Unified<W> {
    fn event(&mut self, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Hunk { at } => {
                self.flush()?;
                self.head()?;
                // Nothing follows the mark where all that follows is left out.
                if self.shown.a < self.limit || self.shown.b < self.limit {
                    writeln!(self.out, "@@ {at} @@")?;
                }
            }
            Event::Context(raw) => {
                self.flush()?;
                if self.shown.a <= self.limit && self.shown.b <= self.limit {
                    let line = self.record_line(' ', raw);
                    self.out.write_all(&line)?;
                }
            }
            Event::Only(which, found) => {
                if self.wanted(which) {
                    let line = self.line(sign(which), &found);
                    let block = self.block.get_mut(which);
                    block.extend_from_slice(&line);
                    if block.len() > BLOCK {
                        self.flush()?;
                    }
                    if self.bytes {
                        let dumped = Some(Dumped::of(&found));
                        match which {
                            Which::A => self.dump(dumped, None)?,
                            Which::B => self.dump(None, dumped)?,
                        }
                    }
                }
            }
            Event::Changed(a, b) => {
                let wanted = (self.wanted(Which::A), self.wanted(Which::B));
                let lines = (self.line('-', &a), self.line('+', &b));
                self.block.a.extend_from_slice(if wanted.0 { &lines.0 } else { &[] });
                self.block.b.extend_from_slice(if wanted.1 { &lines.1 } else { &[] });
                if self.block.a.len().max(self.block.b.len()) > BLOCK {
                    self.flush()?;
                }
                if self.bytes && wanted.0 && wanted.1 {
                    self.dump(Some(Dumped::of(&a)), Some(Dumped::of(&b)))?;
                }
            }
            Event::SameBut(a, b) => {
                if self.bytes && self.wanted(Which::A) && self.wanted(Which::B) {
                    self.head()?;
                    self.flush()?;
                    let line = self.record_line(' ', a);
                    writeln!(self.out, "@@ {}: the same, but for these bytes @@", a.lsn)?;
                    self.out.write_all(&line)?;
                    self.dump(Some(Dumped::record(a)), Some(Dumped::record(b)))?;
                }
            }
            Event::PageHeaders { page, a, b } => {
                if self.bytes && self.wanted(Which::A) && self.wanted(Which::B) {
                    self.head()?;
                    self.flush()?;
                    writeln!(self.out, "@@ {page}: page header @@")?;
                    let (a, b) = (page_bytes(a), page_bytes(b));
                    let dumped = |bytes| Some(Dumped { fields: page_header_fields(bytes) });
                    self.dump(dumped(&a), dumped(&b))?;
                }
            }
        }
        Ok(())
    }
}

const fn sign(which: Which) -> char {
    match which {
        Which::A => '-',
        Which::B => '+',
    }
}

/// A record as pg_waldump prints it, without a line end.
pub(super) fn record_text(raw: &RawRecord<'_>, zone: Zone) -> String {
    let mut text = Text::new(raw.fmt, zone);
    match raw.decode() {
        // A payload that does not parse is shown as bytes, and says so itself.
        Ok(record) => drop(waldump::write_record(&record, false, &mut text)),
        Err(error) => return format!("{}: {error}", raw.lsn),
    }
    text.to_string_lossy().trim_end_matches('\n').to_owned()
}

fn page_bytes(header: &PageHeader) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    bytes
}

/// What a hex dump is made of.
struct Dumped<'r> {
    fields: Vec<Field<'r>>,
}

impl<'r> Dumped<'r> {
    fn of<'f: 'r>(found: &'r Found<'f>) -> Dumped<'r> {
        match found {
            Found::Record(raw) => Dumped::record(raw),
            Found::Damage(damage) => Dumped { fields: record_fields(&damage.bytes, damage.fmt) },
        }
    }

    fn record(raw: &'r RawRecord<'_>) -> Dumped<'r> {
        Dumped { fields: record_fields(&raw.bytes, raw.fmt) }
    }
}

/// Bytes of one side alone.
fn dump_one(sign: char, field: &Field<'_>, out: &mut String) {
    for (row, at) in field.bytes.chunks(ROW).zip((field.at..).step_by(ROW)).take(ROWS) {
        dump_row(sign, at, if at == field.at { &field.name } else { "" }, row, out);
    }
    let left = field.bytes.len().saturating_sub(ROW * ROWS);
    if left > 0 {
        let _ = writeln!(out, "{sign}        {:24}… {left} more bytes", ""); // a string takes everything
    }
}

/// Bytes of both sides, field by field: those that are the same once, those that differ one above the other with marks below.
fn dump_both(a: &Dumped<'_>, b: &Dumped<'_>, out: &mut String) {
    let mut rest = b.fields.as_slice();
    for field in &a.fields {
        let Some(at) = rest.iter().position(|other| other.name == field.name) else {
            dump_one('-', field, out);
            continue;
        };
        let (before, from) = rest.split_at(at); // a position in it
        before.iter().for_each(|other| dump_one('+', other, out));
        if let Some((other, after)) = from.split_first() {
            dump_pair(field, other, out);
            rest = after;
        }
    }
    rest.iter().for_each(|other| dump_one('+', other, out));
}

fn dump_pair(a: &Field<'_>, b: &Field<'_>, out: &mut String) {
    let rows = a.bytes.len().max(b.bytes.len()).div_ceil(ROW);
    let row = |field: &Field<'_>, number: usize| -> Vec<u8> { field.bytes.iter().skip(number * ROW).take(ROW).copied().collect() };
    let mut name: &str = &a.name;
    let mut same = 0;
    for number in 0..rows {
        let (one, other) = (row(a, number), row(b, number));
        if one == other && rows > 1 {
            same += one.len();
            continue;
        }
        skipped(&mut name, &mut same, out);
        let at = number * ROW;
        if one == other {
            dump_row(' ', a.at + at, name, &one, out);
            continue;
        }
        dump_row('-', a.at + at, name, &one, out);
        dump_row('+', b.at + at, name, &other, out);
        let marks = (0..one.len().max(other.len())).map(|at| if one.get(at) == other.get(at) { "   " } else { " ^^" });
        let _ = writeln!(out, "        {:24}{}", "", marks.collect::<String>().trim_end());
        name = "";
    }
    skipped(&mut name, &mut same, out);
}

/// Says how many bytes were the same and are not shown.
fn skipped(name: &mut &str, same: &mut usize, out: &mut String) {
    if *same > 0 {
        let _ = writeln!(out, "         {name:24}… {same} bytes, the same"); // a string takes everything
        (*name, *same) = ("", 0);
    }
}

fn dump_row(sign: char, at: usize, name: &str, row: &[u8], out: &mut String) {
    let _ = write!(out, "{sign} 0x{at:04x} {name:24}"); // a string takes everything
    for byte in row {
        let _ = write!(out, " {byte:02x}"); // as above
    }
    out.push('\n');
}

/// JSON Lines: one object for each difference.
///
/// | `event` | fields |
/// | --- | --- |
/// | `hunk` | `at`: LSN where a difference begins that is not near the one before |
/// | `context` | `record`: a record that both have |
/// | `changed` | `a`, `b`: what stands at the same place and differs |
/// | `only` | `side` (`"a"` or `"b"`), `found`: what that side alone has there |
/// | `same_but` | `a`, `b`: records that are the same in meaning |
/// | `page_headers` | `page`: its LSN; `differ`: names of the fields that differ; `a`, `b`: the headers |
/// | `left_out` | `a`, `b`: how many differences of each side were not shown; the last line, if there are any |
///
/// A record is the object that [`crate::json`] describes. Damage has `lsn`, `to` (where records start again, or `null`), `damage` (a sentence),
/// and where the WAL itself is damaged `kind` and the values of [`crate::ErrorKind`]. Where bytes are asked for, `changed`, `same_but` and
/// `page_headers` have `bytes`: a list of the fields that differ, each with its offset `at`, its name `field`, and hexadecimal digits `a`
/// and `b`, `null` where one side has no such field.
pub struct Json<W> {
    out: W,
    bytes: bool,
    limit: u64,
    shown: super::Sides<u64>,
    left_out: super::Sides<u64>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'e> {
    Hunk {
        at: Lsn,
    },
    Context {
        record: Box<RawValue>,
    },
    Changed {
        a: Box<RawValue>,
        b: Box<RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<Vec<FieldPair>>,
    },
    Only {
        side: Which,
        found: Box<RawValue>,
    },
    SameBut {
        a: Box<RawValue>,
        b: Box<RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<Vec<FieldPair>>,
    },
    PageHeaders {
        page: Lsn,
        differ: Vec<&'static str>,
        a: &'e PageHeader,
        b: &'e PageHeader,
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<Vec<FieldPair>>,
    },
    LeftOut {
        a: u64,
        b: u64,
    },
}

/// A field that differs.
#[derive(Serialize)]
struct FieldPair {
    at: usize,
    field: String,
    a: Option<String>,
    b: Option<String>,
}

impl<W: Write> Json<W> {
    /// Lines to `out`, with bytes where they are asked for, for at most `limit` differences of each side.
    pub fn new(out: W, bytes: bool, limit: u64) -> Json<W> {
        Json { out, bytes, limit, shown: Default::default(), left_out: Default::default() }
    }

    /// Says how much was left out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        let super::Sides { a, b } = self.left_out;
        if a + b > 0 { self.write(&Line::LeftOut { a, b }) } else { Ok(()) }
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    fn wanted(&mut self, sides: &[Which]) -> bool {
        let mut wanted = true;
        for &which in sides {
            let shown = self.shown.get_mut(which);
            *shown += 1;
            let left_out = *shown > self.limit;
            *self.left_out.get_mut(which) += u64::from(left_out);
            wanted &= !left_out;
        }
        wanted
    }

    fn pairs(&self, a: &Dumped<'_>, b: &Dumped<'_>) -> Option<Vec<FieldPair>> {
        self.bytes.then(|| pairs(a, b))
    }
}

impl<W: Write> Sink for Json<W> {
    fn event(&mut self, event: Event<'_>) -> io::Result<()> {
        let line = match event {
            Event::Hunk { at } => Line::Hunk { at },
            Event::Context(raw) => Line::Context { record: record_json(raw)? },
            Event::Only(side, found) if self.wanted(&[side]) => Line::Only { side, found: found_json(&found)? },
            Event::Changed(a, b) if self.wanted(&Which::BOTH) => {
                let bytes = self.pairs(&Dumped::of(&a), &Dumped::of(&b));
                Line::Changed { a: found_json(&a)?, b: found_json(&b)?, bytes }
            }
            Event::SameBut(a, b) if self.wanted(&Which::BOTH) => {
                let bytes = self.pairs(&Dumped::record(a), &Dumped::record(b));
                Line::SameBut { a: record_json(a)?, b: record_json(b)?, bytes }
            }
            Event::PageHeaders { page, a, b } if self.wanted(&Which::BOTH) => {
                let (one, other) = (page_bytes(a), page_bytes(b));
                let dumped = |bytes| Dumped { fields: page_header_fields(bytes) };
                let bytes = self.pairs(&dumped(&one), &dumped(&other));
                Line::PageHeaders { page, differ: super::fields::page_header_differences(a, b), a, b, bytes }
            }
            Event::Only(..) | Event::Changed(..) | Event::SameBut(..) | Event::PageHeaders { .. } => return Ok(()),
        };
        self.write(&line)
    }
}

/// The fields that differ.
fn pairs(a: &Dumped<'_>, b: &Dumped<'_>) -> Vec<FieldPair> {
    let hex = |field: &Field<'_>| field.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let of = |fields: &[Field<'_>], name: &str| fields.iter().find(|field| field.name == name).map(hex);
    let pair = |field: &Field<'_>| FieldPair {
        at: field.at,
        field: field.name.to_string(),
        a: of(&a.fields, &field.name),
        b: of(&b.fields, &field.name),
    };
    let only_b = b.fields.iter().filter(|field| a.fields.iter().all(|other| other.name != field.name));
    a.fields.iter().chain(only_b).map(pair).filter(|pair| pair.a != pair.b).collect()
}

fn found_json(found: &Found<'_>) -> io::Result<Box<RawValue>> {
    match found {
        Found::Record(raw) => record_json(raw),
        Found::Damage(damage) => Ok(serde_json::value::to_raw_value(damage)?),
    }
}

fn record_json(raw: &RawRecord<'_>) -> io::Result<Box<RawValue>> {
    let mut lines = json::Json::new();
    match raw.decode() {
        // A payload that does not parse is among what is written.
        Ok(record) => drop(json::write_record(&record, &mut lines)),
        Err(error) => return Ok(serde_json::value::to_raw_value(&serde_json::json!({"lsn": raw.lsn, "error": error.to_string()}))?),
    }
    let text = String::from_utf8(lines.take()).map_err(io::Error::other)?;
    Ok(RawValue::from_string(text.trim_end().to_owned())?)
}

/// A record as its JSON object, for fields of the verdict.
pub(super) fn record<S: Serializer>(raw: &RawRecord<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    record_json(raw).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

pub(super) fn maybe_record<S: Serializer>(raw: &Option<RawRecord<'_>>, serializer: S) -> Result<S::Ok, S::Error> {
    match raw {
        Some(raw) => record(raw, serializer),
        None => serializer.serialize_none(),
    }
}

/// The last line of JSON: `event` is `verdict`, and the fields are those of [`Comparison`], of its [`Verdict`], and what these are made of.
/// `verdict` is `identical`, `identical_but`, `prefix`, `diverging`, `other_cluster` or `damaged`.
///
/// # Errors
/// It cannot be written.
pub fn write_json(comparison: &Comparison, out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Last<'c> {
        event: &'static str,
        #[serde(flatten)]
        comparison: &'c Comparison,
    }
    json::to_writer(&mut *out, &Last { event: "verdict", comparison })?;
    out.write_all(b"\n")
}

/// The verdict in words: a line of its own, and lines with what is after it. Timestamps are in `zone`.
///
/// # Errors
/// It cannot be written.
pub fn write_text(comparison: &Comparison, zone: &Zone, out: &mut impl Write) -> io::Result<()> {
    let Comparison { verdict, start, same_bytes_to, but_for, sides, .. } = comparison;
    match verdict {
        Verdict::Identical if comparison.records_compared == 0 => writeln!(out, "identical: every byte from {start} to {same_bytes_to}")?,
        Verdict::Identical => writeln!(out, "identical: every record from {start} on")?,
        Verdict::IdenticalBut if but_for.kinds().next().is_none() => writeln!(out, "identical: every record from {start} on")?,
        Verdict::IdenticalBut => writeln!(out, "identical but for {}", but_for_text(but_for))?,
        Verdict::Prefix { side, parting } => {
            writeln!(out, "{side} is a prefix of {}: it ends at {}{}", side.other(), parting.at, switch_text(parting))?;
            write_parting(comparison, parting, zone, out)?;
        }
        Verdict::Diverging { parting } => {
            writeln!(out, "diverging at {}{}", parting.at, switch_text(parting))?;
            write_parting(comparison, parting, zone, out)?;
        }
        Verdict::OtherCluster { clusters, parting } => {
            let Sides { a, b } = *clusters;
            let (a, b) = (a.system_identifier, b.system_identifier);
            match sides.a.clusters.len().max(sides.b.clusters.len()) {
                0 | 1 => writeln!(out, "A is of cluster {a}, B of cluster {b}: these are not copies or histories of the same WAL")?,
                _ => {
                    writeln!(out, "mixed clusters: at {}, A is of cluster {a} and B of cluster {b}", parting.at)?;
                    write_parting(comparison, parting, zone, out)?;
                }
            }
        }
        Verdict::Damaged { parting, ends } => {
            let damaged = Which::BOTH.into_iter().filter(|which| !sides.get(*which).damage.is_empty());
            let damaged = damaged.map(|which| which.to_string()).collect::<Vec<_>>().join(" and ");
            write!(out, "the same but for damage of {damaged}, first at {}", parting.at)?;
            match ends {
                Some(Ending { side, at }) => writeln!(out, "; {side} ends at {at}, and {} goes on", side.other())?,
                None => writeln!(out)?,
            }
            write_parting(comparison, parting, zone, out)?;
        }
    }
    for which in Which::BOTH {
        let clusters = &sides.get(which).clusters;
        if clusters.len() > 1 && !matches!(verdict, Verdict::Identical | Verdict::IdenticalBut) {
            let text = |Cluster { system_identifier, first, segments }: &Cluster| {
                format!("{system_identifier} ({segments} {}, the first at {first})", plural(*segments, "segment"))
            };
            let texts: Vec<String> = clusters.iter().take(CLUSTERS).map(text).collect();
            let more = if clusters.len() > CLUSTERS { " and others" } else { "" };
            writeln!(out, "  {which} has WAL of {} clusters: {}{more}", clusters.len(), texts.join(", "))?;
        }
        let damage = &sides.get(which).damage;
        for damage in damage.iter().take(DAMAGE_LINES) {
            writeln!(out, "  {which} is damaged: {damage}")?;
        }
        if damage.len() > DAMAGE_LINES {
            writeln!(out, "  {which} is damaged in {} more places", damage.len() - DAMAGE_LINES)?;
        }
    }
    if !matches!(verdict, Verdict::IdenticalBut) && but_for.kinds().next().is_some() {
        writeln!(out, "  besides: {}", but_for_text(but_for))?;
    }
    for file in comparison.files.iter().take(FILE_LINES) {
        writeln!(out, "  {file}")?;
    }
    if but_for.files > FILE_LINES as u64 {
        writeln!(out, "  {} more files differ", but_for.files - FILE_LINES as u64)?;
    }
    if let Some(only) = &comparison.only_before {
        writeln!(out, "  only {} has WAL before {}: from {}", only.side, only.to, only.from)?;
    }
    if comparison.damage_in_common > 0 {
        let places = plural(comparison.damage_in_common, "place");
        writeln!(out, "  both are damaged in the same way, in {} {places}: pgwal verify tells more", comparison.damage_in_common)?;
    }
    Ok(())
}

/// Clusters of a side that the verdict in words tells.
const CLUSTERS: usize = 4;

/// Damaged places that the verdict in words tells.
const DAMAGE_LINES: usize = 5;

/// Files that it tells.
const FILE_LINES: usize = 20;

/// Lines on the records around the place where the two part.
fn write_parting(comparison: &Comparison, parting: &Parting, zone: &Zone, out: &mut impl Write) -> io::Result<()> {
    if let Some(raw) = &parting.last_common {
        writeln!(out, "  last common record: {}", record_text(raw, zone.clone()))?;
    }
    for which in Which::BOTH {
        let timeline = match *parting.timelines.get(which) {
            Some(timeline) if parting.timelines.a != parting.timelines.b => format!(" (timeline {timeline})"),
            _ => String::new(),
        };
        match parting.first.get(which) {
            Some(First::Record(raw)) => writeln!(out, "  first of {which}{timeline}: {}", record_text(raw, zone.clone()))?,
            Some(First::Damage { damage, .. }) => writeln!(out, "  first of {which}{timeline}: damaged: {damage}")?,
            None => match comparison.sides.get(which).finish {
                Some(super::Finish::End(end)) => writeln!(out, "  first of {which}{timeline}: nothing: {}", end)?,
                _ => writeln!(out, "  first of {which}{timeline}: nothing")?,
            },
        }
    }
    for which in Which::BOTH {
        let tally = &comparison.sides.get(which).only;
        if tally.records > 0 {
            let Tally { records, bytes, changes, commits, end } = *tally;
            let (noun, commit) = (plural(records, "record"), plural(commits, "commit"));
            writeln!(out, "  only in {which}: {records} {noun} of {bytes} bytes up to {end}: {changes} change data, {commits} {commit}")?;
        }
    }
    match parting.meets_at {
        Some(lsn) => writeln!(out, "  the same again from {lsn} on"),
        None => Ok(()),
    }
}

/// What the history files say, as the end of a sentence.
fn switch_text(parting: &Parting) -> String {
    match &parting.switch {
        None => String::new(),
        Some(Switch::Named { file, timeline, agrees: true, .. }) => format!(", where timeline {timeline} was left by {file}"),
        Some(Switch::Named { file, timeline, at, .. }) => format!("; by {file}, timeline {timeline} was left at {at}"),
        Some(Switch::Missing { file }) => format!("; no {file} is beside the WAL"),
        Some(Switch::Bad { file, reason }) => format!("; {file}: {reason}"),
    }
}

fn but_for_text(but_for: &ButFor) -> String {
    let texts = but_for.kinds().map(|kind| match kind {
        Kind::PageHeaders => {
            let count = but_for.page_headers;
            format!("{count} page {} ({})", plural(count, "header"), but_for.page_header_fields.join(", "))
        }
        Kind::Padding => format!("padding in {} {}", but_for.padding, plural(but_for.padding, "place")),
        Kind::Compression => {
            format!("the compression of page images in {} {}", but_for.compression, plural(but_for.compression, "record"))
        }
        Kind::Layout => format!("the layout of {} {}", but_for.layout, plural(but_for.layout, "record")),
        Kind::HintOnly => format!("{} hint-only {}", but_for.hint_only, plural(but_for.hint_only, "record")),
        Kind::BehindEnd => "bytes behind the end of the WAL".to_owned(),
        Kind::Files => format!("{} {} outside the WAL", but_for.files, plural(but_for.files, "difference")),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
