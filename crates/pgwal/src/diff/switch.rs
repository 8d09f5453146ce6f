//! Where two timelines part by their history files.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::format::WalFormat;
use crate::history::{self, History};
use crate::input_file;
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
        /// Where: after the last record that both timelines have.
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

impl Switch {
    /// What history files say of two timelines whose records part at `parting`; `None`: it is one timeline. Each timeline comes with the
    /// directory of its side. Two servers may have been promoted to the same timeline, so the side that has a timeline knows its history
    /// best; the other side's file is taken where it has none.
    pub(super) fn between(a: (TimelineId, &Path), b: (TimelineId, &Path), parting: Lsn, fmt: WalFormat) -> Option<Switch> {
        if a.0 == b.0 {
            return None;
        }
        let (older, newer) = if a.0 < b.0 { (a, b) } else { (b, a) };
        let (file, history) = match read(newer.0, [newer.1, older.1]) {
            Ok(read) => read,
            Err(switch) => return Some(switch),
        };
        let (timeline, at) = match history.switch_point(older.0) {
            Some(at) => (older.0, at),
            // Neither comes from the other: they part where their histories do.
            None => {
                let (other, older) = match read(older.0, [older.1, newer.1]) {
                    Ok(read) => read,
                    Err(switch) => return Some(switch),
                };
                let common = history.ancestors.iter().zip(&older.ancestors).take_while(|(a, b)| a.timeline == b.timeline);
                match common.last() {
                    Some((a, b)) => (a.timeline, a.switch.min(b.switch)),
                    None => return Some(Switch::Bad { file, reason: format!("has no timeline in common with {other}") }),
                }
            }
        };
        // Where a page starts, the record comes after its header.
        let header = if fmt.page_offset(at) == 0 { fmt.page_header_size(at) } else { 0 };
        let agrees = parting == at || parting == at + header;
        Some(Switch::Named { file, timeline, at, agrees })
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

/// The history of `timeline`, from the first directory that has its file, and that file.
fn read(timeline: TimelineId, directories: [&Path; 2]) -> Result<(String, History), Switch> {
    let name = history::file_name(timeline);
    for directory in directories {
        let path = directory.join(&name);
        let file = path.display().to_string();
        // Every timeline adds a line; a file larger than this is something else.
        match input_file::read(&path, 1 << 20) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
            Err(e) => return Err(Switch::Bad { file, reason: e.to_string() }),
            Ok(bytes) => {
                return match History::parse(timeline, &bytes) {
                    Ok(history) => Ok((file, history)),
                    Err(e) => Err(Switch::Bad { file, reason: e.to_string() }),
                };
            }
        }
    }
    Err(Switch::Missing { file: name })
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
        let (a, b) = ((TimelineId(a), Path::new("/nowhere")), (TimelineId(b), dir.path()));
        let found = Switch::between(a, b, Lsn(parting), WalFormat::new(15));
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
        // The record after the switch starts after a page header.
        assert_eq!(switch(2, 3, 0x500_0028, &[three]), named(three.0, 2, 0x500_0000, true));
        assert_eq!(switch(2, 4, 0x200_0100, &[two, sibling]), named(sibling.0, 1, 0x200_0100, true));
        assert_eq!(switch(1, 2, 0, &[]), Some(Switch::Missing { file: two.0.into() }));
        assert_eq!(switch(2, 4, 0, &[sibling]), Some(Switch::Missing { file: two.0.into() }));
    }

    /// Two standbys of one primary were promoted, both to timeline 2.
    #[test]
    fn the_side_of_a_timeline_knows_its_history() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(one.path().join("00000002.history"), "1\t0/A2C368\tno recovery target specified\n").unwrap();
        fs::write(other.path().join("00000002.history"), "1\t0/A3F418\tno recovery target specified\n").unwrap();
        for (a, b, file, at) in [
            ((1, &one), (2, &other), &other, 0xA3_F418),
            ((2, &one), (1, &other), &one, 0xA2_C368),
            ((1, &other), (2, &one), &one, 0xA2_C368),
        ] {
            let side = |(timeline, dir): (u32, &tempfile::TempDir)| (TimelineId(timeline), dir.path().to_owned());
            let (a, b) = (side(a), side(b));
            let found = Switch::between((a.0, &a.1), (b.0, &b.1), Lsn(at), WalFormat::new(15));
            let file = file.path().join("00000002.history").display().to_string();
            assert_eq!(found, Some(Switch::Named { file, timeline: TimelineId(1), at: Lsn(at), agrees: true }));
        }
    }

    #[test]
    fn bad_history_files() {
        for (text, reason) in [
            ("one\t0/1\n", "line 1: expected the number of a timeline, found \"one\\t0/1\""),
            ("1\t0-1\n", "line 1: expected an LSN like 16/B374D848, found \"0-1\""),
            ("2\t0/1\n", "line 1: expected an ancestor of timeline 2, found timeline 2"),
            ("", "expected at least one ancestor, found no line"),
        ] {
            let bad = Switch::Bad { file: "00000002.history".into(), reason: reason.into() };
            assert_eq!(switch(1, 2, 0, &[("00000002.history", text)]), Some(bad), "{text}");
        }
        let disjoint = [("00000002.history", "1\t0/1\tx"), ("00000004.history", "3\t0/1\tx")];
        assert!(matches!(switch(2, 4, 0, &disjoint), Some(Switch::Bad { reason, .. }) if reason.contains("no timeline in common")));
    }
}
