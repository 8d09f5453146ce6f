//! Where two timelines part by their history files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::format::WalFormat;
use crate::lsn::{Lsn, TimelineId};

/// What history files say of where two timelines part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "history", rename_all = "snake_case")]
pub enum Switch {
    /// One names the place.
    Named {
        /// The file.
        file: String,
        /// Timeline that the other one left, or both.
        timeline: TimelineId,
        /// Where: behind the last record that both timelines have.
        at: Lsn,
        /// Whether the first record that differs starts there.
        agrees: bool,
    },
    /// The file is not beside the WAL of either side.
    Missing {
        /// Its name.
        file: String,
    },
    /// The file cannot be read, or says something else than a history file does.
    Bad {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One line of a history file: a timeline, and where it was left. C: `TimeLineHistoryEntry`, access/timeline.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    timeline: TimelineId,
    at: Lsn,
}

/// A history file, and what is in it.
struct History {
    file: String,
    lines: Vec<Left>,
}

impl Switch {
    /// What the history files in `directories` say of two timelines whose records part at `parting`; `None`: it is one timeline.
    pub(super) fn between(a: TimelineId, b: TimelineId, directories: [&Path; 2], parting: Lsn, fmt: WalFormat) -> Option<Switch> {
        if a == b {
            return None;
        }
        let (older, newer) = (a.min(b), a.max(b));
        let newer = match read(newer, directories) {
            Ok(history) => history,
            Err(switch) => return Some(switch),
        };
        let left = newer.lines.iter().find(|left| left.timeline == older).copied();
        let left = match left {
            Some(left) => left,
            // Neither comes from the other: they part where their histories do.
            None => {
                let older = match read(older, directories) {
                    Ok(history) => history,
                    Err(switch) => return Some(switch),
                };
                let common = newer.lines.iter().zip(&older.lines).take_while(|(a, b)| a.timeline == b.timeline);
                match common.map(|(a, b)| Left { at: a.at.min(b.at), ..*a }).last() {
                    Some(left) => left,
                    None => {
                        let reason = format!("has no timeline in common with {}", older.file);
                        return Some(Switch::Bad { file: newer.file, reason });
                    }
                }
            }
        };
        // Where a page starts, the record comes behind its header.
        let header = if fmt.page_offset(left.at) == 0 { fmt.page_header_size(left.at) } else { 0 };
        let agrees = parting == left.at || parting == left.at + header;
        Some(Switch::Named { file: newer.file, timeline: left.timeline, at: left.at, agrees })
    }
}

/// Where the history files of `input` are: in the directory of segments, or beside a file.
pub(super) fn directory_of(input: &Path) -> PathBuf {
    let pg_wal = input.join("pg_wal");
    match input.parent() {
        _ if pg_wal.is_dir() => pg_wal,
        _ if input.is_dir() => input.to_owned(),
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The history of `timeline`, from the first directory that has it.
fn read(timeline: TimelineId, directories: [&Path; 2]) -> Result<History, Switch> {
    let name = format!("{:08X}.history", timeline.0);
    for directory in directories {
        let path = directory.join(&name);
        let file = path.display().to_string();
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Switch::Bad { file, reason: e.to_string() }),
            Ok(opened) => {
                let mut text = String::new();
                // Every timeline adds a line; a file larger than this is something else.
                let read = opened.take(1 << 20).read_to_string(&mut text).map_err(|e| e.to_string());
                return match read.and_then(|_| parse(&text, timeline)) {
                    Ok(lines) => Ok(History { file, lines }),
                    Err(reason) => Err(Switch::Bad { file, reason }),
                };
            }
        }
    }
    Err(Switch::Missing { file: name })
}

/// Reads a history file's lines: timeline, LSN, reason; `#` begins a comment. C: `readTimeLineHistory`, access/transam/timeline.c.
fn parse(text: &str, timeline: TimelineId) -> Result<Vec<Left>, String> {
    let mut lines: Vec<Left> = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let left = words.next().and_then(|word| word.parse().ok()).zip(words.next().and_then(|word| word.parse().ok()));
        let Some((id, at)) = left else {
            return Err(format!("line {number}: expected a timeline and an LSN"));
        };
        if lines.last().is_some_and(|last| last.timeline.0 >= id) || id >= timeline.0 {
            return Err(format!("line {number}: timeline {id} is out of order"));
        }
        lines.push(Left { timeline: TimelineId(id), at });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn switch(a: u32, b: u32, parting: u64, files: &[(&str, &str)]) -> Option<Switch> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let found = Switch::between(TimelineId(a), TimelineId(b), [Path::new("/nowhere"), dir.path()], Lsn(parting), WalFormat::new(15));
        let short = |file: String| Path::new(&file).file_name().unwrap().to_string_lossy().into_owned();
        found.map(|found| match found {
            Switch::Named { file, timeline, at, agrees } => Switch::Named { file: short(file), timeline, at, agrees },
            Switch::Bad { file, reason } => Switch::Bad { file: short(file), reason },
            other => other,
        })
    }

    fn named(file: &str, timeline: u32, at: u64, agrees: bool) -> Option<Switch> {
        Some(Switch::Named { file: file.into(), timeline: TimelineId(timeline), at: Lsn(at), agrees })
    }

    #[test]
    fn where_timelines_part() {
        let two = ("00000002.history", "1\t0/30011D8\tno recovery target specified\n");
        let three = ("00000003.history", "# a comment\n\n1\t0/30011D8\tno recovery target\n2\t0/5000000\tbefore 2000-01-01\n");
        let sibling = ("00000004.history", "1\t0/2000100\tafter transaction 7\n");
        assert_eq!(switch(1, 1, 0x300_11D8, &[two]), None);
        assert_eq!(switch(1, 2, 0x300_11D8, &[two]), named(two.0, 1, 0x300_11D8, true));
        assert_eq!(switch(2, 1, 0x300_1200, &[two]), named(two.0, 1, 0x300_11D8, false));
        assert_eq!(switch(1, 3, 0x300_11D8, &[two, three]), named(three.0, 1, 0x300_11D8, true));
        // The record behind the switch starts behind a page header.
        assert_eq!(switch(2, 3, 0x500_0028, &[three]), named(three.0, 2, 0x500_0000, true));
        assert_eq!(switch(2, 4, 0x200_0100, &[two, sibling]), named(sibling.0, 1, 0x200_0100, true));
        assert_eq!(switch(1, 2, 0, &[]), Some(Switch::Missing { file: two.0.into() }));
        assert_eq!(switch(2, 4, 0, &[sibling]), Some(Switch::Missing { file: two.0.into() }));
    }

    #[test]
    fn bad_history_files() {
        for (text, reason) in [
            ("one\t0/1\n", "line 1: expected a timeline and an LSN"),
            ("1\n", "line 1: expected a timeline and an LSN"),
            ("1\t0-1\n", "line 1: expected a timeline and an LSN"),
            ("2\t0/1\n", "line 1: timeline 2 is out of order"),
        ] {
            let bad = Switch::Bad { file: "00000002.history".into(), reason: reason.into() };
            assert_eq!(switch(1, 2, 0, &[("00000002.history", text)]), Some(bad), "{text}");
        }
        let disjoint = [("00000002.history", ""), ("00000003.history", "1\t0/1\tx")];
        assert!(matches!(switch(2, 3, 0, &disjoint), Some(Switch::Bad { .. })));
    }
}
