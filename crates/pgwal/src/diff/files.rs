//! What stands around the WAL of two copies: bytes that follow a segment in its file, and the small files beside segments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::{Side, Sides, Which};
use crate::backup_label;
use crate::history;
use crate::lsn::SegmentName;
use crate::printable::printable;
use crate::source::{FileRest, Rest, file_of_input, is_text_file_name, text_of};

/// Differences of files that are kept.
const MAX_FILES: usize = 1000;
/// Characters of a line that are shown.
const SHOWN: usize = 80;

/// A difference of files that is none of the WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// Name of the file, without folders.
    pub file: String,
    /// What differs.
    #[serde(flatten)]
    pub kind: FileDifferenceKind,
}

/// How two files differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileDifferenceKind {
    /// Only one side has it.
    Only {
        /// That side.
        side: Which,
    },
    /// One side has more bytes after the segment.
    Longer {
        /// The longer side.
        side: Which,
        /// Number of bytes that it has more.
        bytes: u64,
        /// There may be more of them: they were not counted to the end.
        at_least: bool,
    },
    /// Both have as many bytes after the segment, and they are not the same.
    OtherRest {
        /// Number of these bytes.
        bytes: u64,
    },
    /// In a compressed file, other bytes follow the compressed data on one side.
    AfterPacked {
        /// That side.
        side: Which,
        /// Where they begin in the file.
        offset: u64,
    },
    /// Lines differ.
    Line {
        /// Number of the first line that differs, counted from 1.
        line: usize,
        /// That line of each side; `None`: the file ends before it.
        text: Sides<Option<String>>,
    },
    /// It cannot be read on one side.
    Unreadable {
        /// That side.
        side: Which,
        /// Why not.
        reason: String,
    },
}

impl fmt::Display for FileDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = printable(&self.file);
        match &self.kind {
            FileDifferenceKind::Only { side } => write!(f, "{file}: only in {side}"),
            FileDifferenceKind::Longer { side, bytes, at_least } => {
                let (more, noun) = (if *at_least { "or more " } else { "" }, if *bytes == 1 { "byte" } else { "bytes" });
                write!(f, "{file}: {bytes} {noun} {more}more at the end of the file in {side}")
            }
            FileDifferenceKind::OtherRest { bytes: 1 } => write!(f, "{file}: the byte after the segment differs"),
            FileDifferenceKind::OtherRest { bytes } => write!(f, "{file}: the {bytes} bytes after the segment differ"),
            FileDifferenceKind::AfterPacked { side, offset } => {
                write!(f, "{file}: in {side}, other bytes follow the compressed data, from 0x{offset:x} on")
            }
            FileDifferenceKind::Line { line, text } => {
                let shown = |text: &Option<String>| match text {
                    Some(text) => format!("\"{}\"", printable(text)),
                    None => "the end of the file".to_owned(),
                };
                write!(f, "{file}: line {line} is {} in A, {} in B", shown(&text.a), shown(&text.b))
            }
            FileDifferenceKind::Unreadable { side, reason } => write!(f, "{file}: cannot be read in {side}: {}", printable(reason)),
        }
    }
}

/// Differences of files: the first of them, and their number.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: Vec<FileDifference>,
    pub(super) count: u64,
}

impl Found {
    fn add(&mut self, file: &str, kind: FileDifferenceKind) {
        self.count += 1;
        if self.files.len() < MAX_FILES {
            self.files.push(FileDifference { file: file.to_owned(), kind });
        }
    }

    /// Compares what follows the segments in their files.
    pub(super) fn compare_rests(&mut self, a: Vec<FileRest>, b: Vec<FileRest>) {
        let place = |name: SegmentName| (name.log, name.seg);
        let by_place = |rests: Vec<FileRest>| rests.into_iter().map(|rest| (place(rest.name), rest)).collect::<BTreeMap<_, _>>();
        let (a, b) = (by_place(a), by_place(b));
        let places: BTreeSet<_> = a.keys().chain(b.keys()).collect();
        for place in places {
            let sides = Sides { a: a.get(place), b: b.get(place) };
            let rest = |which| sides.get(which).map_or_else(Rest::default, |found: &FileRest| found.rest.clone());
            let rests = Sides { a: rest(Which::A), b: rest(Which::B) };
            let name = |which: Which| sides.get(which).map(|found| file_of_input(&found.input));
            let (x, y) = (&rests.a, &rests.b);
            let longer = if x.len > y.len { Which::A } else { Which::B };
            let file = name(longer).or(name(longer.other())).unwrap_or_default();
            if x.len != y.len {
                let (bytes, at_least) = (x.len.abs_diff(y.len), rests.get(longer).is_part);
                self.add(file, FileDifferenceKind::Longer { side: longer, bytes, at_least });
            } else if x.hash != y.hash {
                self.add(file, FileDifferenceKind::OtherRest { bytes: x.len });
            }
            for side in Which::BOTH {
                if let (Some(offset), None) = (rests.get(side).after_packed, rests.get(side.other()).after_packed) {
                    self.add(name(side).unwrap_or_default(), FileDifferenceKind::AfterPacked { side, offset });
                }
            }
        }
    }

    /// Compares the history files and backup history files beside the segments of two folders or archives.
    pub(super) fn compare_texts(&mut self, a: &Side, b: &Side) {
        // One segment has nothing beside it, and a copy of itself nothing to compare.
        if a.input == b.input || !(a.is_set && b.is_set) {
            return;
        }
        // A side that is read up to some timeline has nothing to do with newer ones.
        let newest = match (a.newest, b.newest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let texts = |side: &Side| {
            let mut texts = BTreeMap::new();
            for (at, input) in side.wal.others() {
                let file = file_of_input(input);
                let timeline =
                    history::timeline_of_file_name(file).or(backup_label::start_of_file_name(file).map(|start| start.0.timeline));
                if is_text_file_name(file) && timeline.zip(newest).is_none_or(|(timeline, newest)| timeline <= newest) {
                    texts.entry(plain_name(file)).or_insert(at);
                }
            }
            texts
        };
        let found = Sides { a: texts(a), b: texts(b) };
        let mut readers = Sides { a: text_of(&a.wal), b: text_of(&b.wal) };
        let names: BTreeSet<&String> = found.a.keys().chain(found.b.keys()).collect();
        for name in names {
            let (x, y) = match (found.a.get(name), found.b.get(name)) {
                (Some(x), Some(y)) => (*x, *y),
                (x, _) => {
                    self.add(name, FileDifferenceKind::Only { side: if x.is_some() { Which::A } else { Which::B } });
                    continue;
                }
            };
            match (readers.a.read(x), readers.b.read(y)) {
                (Ok(x), Ok(y)) if x == y => {}
                (Ok(x), Ok(y)) => self.add(name, first_line(&x, &y)),
                (Err(_), Err(_)) => {}
                (Err(e), _) => self.add(name, FileDifferenceKind::Unreadable { side: Which::A, reason: e.to_string() }),
                (_, Err(e)) => self.add(name, FileDifferenceKind::Unreadable { side: Which::B, reason: e.to_string() }),
            }
        }
    }
}

/// The name of a history file or backup history file without the suffix of its compression.
fn plain_name(file: &str) -> String {
    let end = [".history", ".backup"].iter().find_map(|suffix| file.find(suffix).map(|at| at + suffix.len()));
    file.get(..end.unwrap_or(file.len())).unwrap_or(file).to_owned()
}

/// The first line that differs; of the same lines with other ends, the last one.
fn first_line(a: &[u8], b: &[u8]) -> FileDifferenceKind {
    let lines = |text: &[u8]| text.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (a, b) = (lines(a), lines(b));
    let at = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let text = |lines: &[Vec<u8>]| {
        let line = lines.get(at)?;
        let text = String::from_utf8_lossy(line).into_owned();
        Some(text.strip_suffix('\n').filter(|_| a.get(at).is_some() && b.get(at).is_some()).unwrap_or(&text).chars().take(SHOWN).collect())
    };
    FileDifferenceKind::Line { line: at + 1, text: Sides { a: text(&a), b: text(&b) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_differs() {
        let text = |a: &[u8], b: &[u8]| FileDifference { file: "00000002.history".to_owned(), kind: first_line(a, b) }.to_string();
        assert_eq!(text(b"1\t0/1\tx\n", b"1\t0/2\tx\n"), "00000002.history: line 1 is \"1\\t0/1\\tx\" in A, \"1\\t0/2\\tx\" in B");
        assert_eq!(text(b"1\n2\n", b"1\n"), "00000002.history: line 2 is \"2\\n\" in A, the end of the file in B");
        assert!(text(b"1\xff\n", b"1\x1b\n").ends_with("\"1\\x1b\" in B"));
        assert_eq!(plain_name("00000002.history.gz"), "00000002.history");
        assert_eq!(plain_name("000000010000000000000002.00000028.backup"), "000000010000000000000002.00000028.backup");
    }
}
