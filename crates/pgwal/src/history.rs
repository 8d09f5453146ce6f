//! Timeline history files: which timeline forked off which, and where. C: access/transam/timeline.c.
//!
//! A server that leaves recovery begins a new timeline N and writes `0000000N.history`: the history file of the timeline that it forked
//! off, and one line more. So one file has the whole ancestry. All majors write the same:
//!
//! ```text
//! 1    0/3000148    no recovery target specified
//! 2    0/5000000    at restore point "before the upgrade"
//! ```

use std::fmt;

use serde::Serialize;

use crate::lsn::{Lsn, TimelineId, is_upper_hex};

/// A timeline and those that it descends from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct History {
    /// The timeline, which the name of the file tells.
    pub timeline: TimelineId,
    /// Its ancestors, the oldest first; none for timeline 1.
    pub ancestors: Vec<Ancestor>,
}

/// A line of the file: a timeline that was left. C: `TimeLineHistoryEntry`, access/timeline.h.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ancestor {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it was left: its first byte that does not count. C: `switchpoint`.
    pub switch: Lsn,
    /// Why, in the server's words; the server does not read it.
    pub reason: String,
}

/// The part of the WAL that one timeline of a history has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it begins: where its parent was left. Zero for the oldest.
    pub begin: Lsn,
    /// Where it was left; `None`: it is the newest.
    pub end: Option<Lsn>,
}

impl History {
    /// The history of a timeline without ancestors: timeline 1, or, to the server, one whose file is not there.
    pub fn alone(timeline: TimelineId) -> History {
        History { timeline, ancestors: Vec::new() }
    }

    /// Reads the history file of `timeline`.
    ///
    /// Refuses what the server refuses, and what no server writes: switch points that go back, and a file without any line, which
    /// the server takes for a timeline without ancestors.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(timeline: TimelineId, file: &[u8]) -> Result<History, HistoryError> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        let mut last = 0;
        for (number, line) in (1..).zip(file.split(|&b| b == b'\n')) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            last = number;
            let fail = |kind| HistoryError { line: number, kind };
            let found = Ancestor::parse(line).map_err(fail)?;
            if let Some(before) = ancestors.last() {
                if found.timeline <= before.timeline {
                    return Err(fail(HistoryErrorKind::TimelineOrder { after: before.timeline, found: found.timeline }));
                }
                if found.switch < before.switch {
                    return Err(fail(HistoryErrorKind::SwitchOrder { after: before.switch, found: found.switch }));
                }
            }
            if found.timeline >= timeline {
                return Err(fail(HistoryErrorKind::NotOlder { child: timeline, found: found.timeline }));
            }
            ancestors.push(found);
        }
        match ancestors.is_empty() {
            true => Err(HistoryError { line: last, kind: HistoryErrorKind::Empty }),
            false => Ok(History { timeline, ancestors }),
        }
    }

    /// The timelines with what each has of the WAL, the oldest first.
    pub fn stretches(&self) -> impl DoubleEndedIterator<Item = Stretch> + '_ {
        let begins = std::iter::once(Lsn::INVALID).chain(self.ancestors.iter().map(|ancestor| ancestor.switch));
        let ends = self.ancestors.iter().map(|ancestor| (ancestor.timeline, Some(ancestor.switch))).chain([(self.timeline, None)]);
        let stretches: Vec<Stretch> = begins.zip(ends).map(|(begin, (timeline, end))| Stretch { timeline, begin, end }).collect();
        stretches.into_iter()
    }

    /// The timeline that has the byte at `lsn`. C: `tliOfPointInHistory`.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.ancestors.iter().find(|ancestor| lsn < ancestor.switch).map_or(self.timeline, |ancestor| ancestor.timeline)
    }

    /// Where `timeline` was left; `None`: it is the newest, or not in this history. C: `tliSwitchPoint`.
    pub fn switch_point(&self, timeline: TimelineId) -> Option<Lsn> {
        self.ancestors.iter().find(|ancestor| ancestor.timeline == timeline).map(|ancestor| ancestor.switch)
    }

    /// Whether the history has `timeline`. C: `tliInHistory`.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        self.timeline == timeline || self.ancestors.iter().any(|ancestor| ancestor.timeline == timeline)
    }

    /// The timeline that this one forked off; `None` for the first.
    pub fn parent(&self) -> Option<&Ancestor> {
        self.ancestors.last()
    }

    /// Where this history and that of its parent contradict each other: a child's file starts with its parent's.
    pub fn disagrees(&self, parent: &History) -> Option<HistoryMismatch> {
        let ours = self.ancestors.split_last().map_or(&[][..], |(_, before)| before);
        let place = |ancestor: &Ancestor| (ancestor.timeline, ancestor.switch);
        let lines = ours.len().max(parent.ancestors.len());
        (0..lines)
            .map(|at| (ours.get(at).map(place), parent.ancestors.get(at).map(place)))
            .find(|(ours, theirs)| ours != theirs)
            .map(|(found, expected)| HistoryMismatch { child: self.timeline, parent: parent.timeline, expected, found })
    }
}

impl Ancestor {
    fn parse(line: &[u8]) -> Result<Ancestor, HistoryErrorKind> {
        let text = String::from_utf8_lossy(line);
        let mut fields = text.splitn(2, |c: char| c.is_ascii_whitespace());
        let timeline = fields.next().and_then(|digits| digits.parse().ok()).filter(|&id| id > 0);
        let timeline = timeline.map(TimelineId).ok_or_else(|| HistoryErrorKind::Timeline { found: shown(&text) })?;
        let rest = fields.next().unwrap_or_default().trim_start();
        let (place, reason) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
        let switch = place.parse().ok().filter(|lsn: &Lsn| lsn.is_valid());
        let switch = switch.ok_or_else(|| HistoryErrorKind::SwitchPoint { found: shown(place) })?;
        Ok(Ancestor { timeline, switch, reason: reason.trim_start().to_owned() })
    }
}

/// As much of a bad line as a message has room for.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The timeline whose history file has this name, as `00000002.history`. C: `IsTLHistoryFileName`.
///
/// An archive may keep it compressed, with the suffix of that. Other suffixes are those of files that are still being written, or of copies that
/// somebody kept.
pub fn timeline_of_file_name(name: &str) -> Option<TimelineId> {
    /// Of gzip, LZ4, Zstandard, bzip2 and xz.
    const PACKED: [&str; 8] = ["", ".gz", ".lz4", ".zst", ".zstd", ".bz2", ".bzip2", ".xz"];
    let (digits, suffix) = name.split_at_checked(8)?;
    let is_history = is_upper_hex(digits) && PACKED.contains(&suffix.strip_prefix(".history")?);
    u32::from_str_radix(digits, 16).ok().filter(|_| is_history).map(TimelineId)
}

/// Name of the history file of `timeline`. C: `TLHistoryFileName`.
pub fn file_name(timeline: TimelineId) -> String {
    format!("{:08X}.history", timeline.0)
}

/// A line that is not a history's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryError {
    /// Number of the line, counted from 1; zero: the file as a whole.
    pub line: u32,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: HistoryErrorKind,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "history_error", rename_all = "snake_case")]
#[non_exhaustive]
pub enum HistoryErrorKind {
    /// No timeline at its start.
    Timeline {
        /// Start of the line.
        found: String,
    },
    /// No LSN in the second place.
    SwitchPoint {
        /// What stands there.
        found: String,
    },
    /// Timelines must increase.
    TimelineOrder {
        /// Timeline of the line before.
        after: TimelineId,
        /// Timeline of this line.
        found: TimelineId,
    },
    /// A later timeline cannot have been left earlier.
    SwitchOrder {
        /// Switch point of the line before.
        after: Lsn,
        /// Switch point of this line.
        found: Lsn,
    },
    /// An ancestor must be older than the timeline that the file is of.
    NotOlder {
        /// The timeline of the file.
        child: TimelineId,
        /// Timeline of the line.
        found: TimelineId,
    },
    /// No line names an ancestor.
    Empty,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match &self.kind {
            HistoryErrorKind::Timeline { found } => write!(f, "expected the number of a timeline, found \"{}\"", found.escape_debug()),
            HistoryErrorKind::SwitchPoint { found } => write!(f, "expected an LSN like 16/B374D848, found \"{}\"", found.escape_debug()),
            HistoryErrorKind::TimelineOrder { after, found } => write!(f, "expected a timeline after {after}, found {found}"),
            HistoryErrorKind::SwitchOrder { after, found } => write!(f, "expected a switch point not before {after}, found {found}"),
            HistoryErrorKind::NotOlder { child, found } => write!(f, "expected an ancestor of timeline {child}, found timeline {found}"),
            HistoryErrorKind::Empty => write!(f, "expected at least one ancestor, found no line"),
        }
    }
}

impl std::error::Error for HistoryError {}

/// Two history files that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryMismatch {
    /// The timeline whose file is compared.
    pub child: TimelineId,
    /// Its parent.
    pub parent: TimelineId,
    /// Timeline and switch point in the parent's file; `None`: it has fewer lines.
    pub expected: Option<(TimelineId, Lsn)>,
    /// The same line in the child's file; `None`: it has fewer lines.
    pub found: Option<(TimelineId, Lsn)>,
}

impl fmt::Display for HistoryMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |line: Option<(TimelineId, Lsn)>| match line {
            Some((timeline, switch)) => format!("timeline {timeline} left at {switch}"),
            None => "nothing".to_owned(),
        };
        let (parent, child) = (file_name(self.parent), file_name(self.child));
        write!(f, "{child}: expected {} as in {parent}, found {}", line(self.expected), line(self.found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(u32) -> TimelineId = TimelineId;

    fn parse(timeline: u32, text: &str) -> Result<History, HistoryError> {
        History::parse(T(timeline), text.as_bytes())
    }

    #[test]
    fn ancestry() {
        // With the empty line that a server puts before its own, and a comment.
        let text = "1\t0/3000148\tno recovery target specified\n\n# by hand\n3\t1/00000028\tat restore point \"a b\"\n";
        let history = parse(4, text).unwrap();
        assert_eq!(
            history.ancestors[1],
            Ancestor { timeline: T(3), switch: Lsn(0x1_0000_0028), reason: "at restore point \"a b\"".into() }
        );
        for (lsn, timeline) in [(0, 1), (0x300_0147, 1), (0x300_0148, 3), (0x1_0000_0027, 3), (0x1_0000_0028, 4), (u64::MAX, 4)] {
            assert_eq!(history.timeline_at(Lsn(lsn)), T(timeline), "{lsn:X}");
        }
        assert_eq!(history.switch_point(T(1)), Some(Lsn(0x300_0148)));
        assert_eq!((history.switch_point(T(2)), history.switch_point(T(4))), (None, None));
        assert!(history.contains(T(4)) && history.contains(T(3)) && !history.contains(T(2)));
        let stretches: Vec<_> = history.stretches().map(|s| (s.timeline.0, s.begin.0, s.end.map(|lsn| lsn.0))).collect();
        let expected = [(1, 0, Some(0x300_0148)), (3, 0x300_0148, Some(0x1_0000_0028)), (4, 0x1_0000_0028, None)];
        assert_eq!(stretches, expected);
        assert_eq!(History::alone(T(1)).stretches().collect::<Vec<_>>(), [Stretch { timeline: T(1), begin: Lsn(0), end: None }]);
        // As 19 writes an LSN, without a reason, and without the last newline.
        assert_eq!(parse(2, "1\t0/00701208").unwrap().parent().unwrap().switch, Lsn(0x70_1208));
    }

    #[test]
    fn what_is_wrong_and_where() {
        let cases = [
            (2, "1\t0/3000148\tx\nx\t0/4000000\n", "line 2: expected the number of a timeline, found \"x\\t0/4000000\""),
            (2, "0\t0/3000148\n", "line 1: expected the number of a timeline, found \"0\\t0/3000148\""),
            (2, "4294967296\t0/3000148\n", "line 1: expected the number of a timeline, found \"4294967296\\t0/3000148\""),
            (2, "1\n", "line 1: expected an LSN like 16/B374D848, found \"\""),
            (2, "1\t03000148\n", "line 1: expected an LSN like 16/B374D848, found \"03000148\""),
            (2, "1\t0/0\tx\n", "line 1: expected an LSN like 16/B374D848, found \"0/0\""),
            (9, "2\t0/3000148\n\n\n2\t0/4000148\n", "line 4: expected a timeline after 2, found 2"),
            (9, "2\t0/3000148\n3\t0/3000140\n", "line 2: expected a switch point not before 0/03000148, found 0/03000140"),
            (3, "1\t0/3000148\n3\t0/4000148\n", "line 2: expected an ancestor of timeline 3, found timeline 3"),
            (2, "", "expected at least one ancestor, found no line"),
            (2, "# nothing\n", "expected at least one ancestor, found no line"),
            (2, "\0\0\0\0", "line 1: expected the number of a timeline, found \"\\0\\0\\0\\0\""),
        ];
        for (timeline, text, expected) in cases {
            assert_eq!(parse(timeline, text).unwrap_err().to_string(), expected, "{text:?}");
        }
        assert!(History::parse(T(2), &[b'1', b'\t', 0xFF, 0xFE]).is_err());
    }

    #[test]
    fn a_child_starts_with_its_parent() {
        let parent = parse(3, "1\t0/100\n2\t0/200\n").unwrap();
        assert_eq!(parse(4, "1\t0/100\n2\t0/200\n3\t0/300\n").unwrap().disagrees(&parent), None);
        let moved = parse(4, "1\t0/100\n2\t0/208\n3\t0/300\n").unwrap().disagrees(&parent).unwrap();
        let text = "00000004.history: expected timeline 2 left at 0/00000200 as in 00000003.history, found timeline 2 left at 0/00000208";
        assert_eq!(moved.to_string(), text);
        assert_eq!(parse(4, "1\t0/100\n3\t0/300\n").unwrap().disagrees(&parent).unwrap().found, None);
        assert_eq!(parse(2, "1\t0/100\n").unwrap().disagrees(&History::alone(T(1))), None);
    }

    #[test]
    fn names() {
        for (name, timeline) in [("00000002.history", 2), ("000000AF.history.gz", 0xAF), ("0000000A.history.zst", 10)] {
            assert_eq!(timeline_of_file_name(name), Some(T(timeline)), "{name}");
        }
        for name in [
            "00000002.history.again",
            "00000002.history.tmp",
            "00000002.history.",
            "0000000A.history-0123",
            "00000002.histor",
            "0000002.history",
            "0000000g.history",
            "0000000a.history",
            "00000002.history2",
            "000000010000000000000002",
        ] {
            assert_eq!(timeline_of_file_name(name), None, "{name}");
        }
        assert_eq!(file_name(T(0xAF)), "000000AF.history");
    }
}
