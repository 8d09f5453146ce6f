//! backup_label and backup history files: where a base backup starts, and where it ends. C: `build_backup_content` in
//! access/transam/xlogbackup.c (xlog.c up to 14), `read_backup_label` in xlogrecovery.c (xlog.c up to 14).
//!
//! The label is in the backup; at the end of the backup a server that is not a standby writes the same lines and a few more into
//! its WAL folder, as `000000010000000000000002.00000028.backup`: segment and offset where the backup starts.

use std::fmt;

use serde::Serialize;

use crate::history::shown;
use crate::lsn::{Lsn, SegmentName, TimelineId, is_upper_hex};

/// What a base backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupLabel {
    /// Where replay starts: the redo point of the checkpoint. C: `START WAL LOCATION`.
    pub start: Lsn,
    /// Segment that has it, which also tells the timeline.
    pub start_segment: SegmentName,
    /// The checkpoint's record. C: `CHECKPOINT LOCATION`.
    pub checkpoint: Lsn,
    /// How the backup was taken; `None`: not said.
    pub method: Option<BackupMethod>,
    /// Taken from a standby; `None`: not said.
    pub from_standby: Option<bool>,
    /// When it began, in the server's own words and time zone. C: `START TIME`.
    pub start_time: Option<String>,
    /// Its name. C: `LABEL`.
    pub label: Option<String>,
    /// Timeline that it starts on; from 11 on. C: `START TIMELINE`.
    pub start_timeline: Option<TimelineId>,
    /// Where it ends; only in a backup history file.
    pub stop: Option<BackupStop>,
    /// The backup that this one builds upon: it is incremental, and no server starts from it; from 17 on.
    pub incremental_from: Option<Lsn>,
}

/// The end of a backup, in a backup history file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupStop {
    /// LSN behind its last record. C: `STOP WAL LOCATION`.
    pub lsn: Lsn,
    /// Segment that has it.
    pub segment: SegmentName,
    /// When it ended, in the server's own words and time zone. C: `STOP TIME`.
    pub time: Option<String>,
    /// Timeline that it ends on; from 11 on. C: `STOP TIMELINE`.
    pub timeline: Option<TimelineId>,
}

/// How a backup was taken. C: `BACKUP METHOD`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupMethod {
    /// By pg_basebackup, or between `pg_backup_start` and `pg_backup_stop` in one session.
    Streamed,
    /// Between `pg_start_backup` and `pg_stop_backup` with the label in the data directory; up to 14.
    PgStartBackup,
    /// Not a backup: pg_rewind wrote the label.
    PgRewind,
    /// Something else, which the server does not ask about.
    #[serde(untagged)]
    Other(String),
}

impl BackupLabel {
    /// Reads a backup_label or a backup history file.
    ///
    /// # Errors
    /// The first line that the server would not start from.
    pub fn parse(file: &[u8]) -> Result<BackupLabel, BackupLabelError> {
        let text = String::from_utf8_lossy(file);
        let mut lines = Lines { text: &text, number: 0 };
        let start = lines.needed("START WAL LOCATION")?;
        let (start, start_segment) = lines.place_in_file(start)?;
        let stop = match lines.next_if("STOP WAL LOCATION")? {
            Some(stop) => Some(lines.place_in_file(stop)?),
            None => None,
        };
        let checkpoint = lines.needed("CHECKPOINT LOCATION")?;
        let checkpoint = lines.lsn(checkpoint)?;
        let mut label = BackupLabel {
            start,
            start_segment,
            checkpoint,
            method: None,
            from_standby: None,
            start_time: None,
            label: None,
            start_timeline: None,
            stop: stop.map(|(lsn, segment)| BackupStop { lsn, segment, time: None, timeline: None }),
            incremental_from: None,
        };
        while let Some(line) = lines.next() {
            let Some((key, value)) = line.split_once(": ") else { continue };
            match (key, &mut label.stop) {
                ("BACKUP METHOD", _) => {
                    label.method = Some(match value {
                        "streamed" => BackupMethod::Streamed,
                        "pg_start_backup" => BackupMethod::PgStartBackup,
                        "pg_rewind" => BackupMethod::PgRewind,
                        other => BackupMethod::Other(other.to_owned()),
                    });
                }
                ("BACKUP FROM", _) => label.from_standby = Some(value == "standby"),
                ("START TIME", _) => label.start_time = Some(value.to_owned()),
                ("LABEL", _) => label.label = Some(value.to_owned()),
                ("START TIMELINE", _) => {
                    let (expected, found) = (start_segment.timeline, lines.timeline(value)?);
                    if found != expected {
                        return Err(lines.fail(BackupLabelErrorKind::StartTimeline { expected, found }));
                    }
                    label.start_timeline = Some(found);
                }
                ("STOP TIME", Some(stop)) => stop.time = Some(value.to_owned()),
                ("STOP TIMELINE", Some(stop)) => stop.timeline = Some(lines.timeline(value)?),
                ("INCREMENTAL FROM LSN", _) => label.incremental_from = Some(lines.lsn(value)?),
                _ => {} // the server reads no further either
            }
        }
        Ok(label)
    }

    /// Timeline that the backup starts on.
    pub fn timeline(&self) -> TimelineId {
        self.start_segment.timeline
    }

    /// Whether an XLOG_BACKUP_END record ends the backup, without which a server does not start from it, whatever method the label names. On
    /// a standby, and after pg_rewind, pg_control says up to where replay has to come.
    pub fn has_end_record(&self) -> bool {
        self.from_standby != Some(true)
    }
}

/// Segment and offset in the name of a backup history file, as `000000010000000000000002.00000028.backup`; it may be compressed,
/// with a suffix. C: `IsBackupHistoryFileName`.
pub fn start_of_file_name(name: &str) -> Option<(SegmentName, u32)> {
    let (segment, rest) = name.split_once('.')?;
    let (offset, suffix) = rest.split_once(".backup")?;
    let is_offset = offset.len() == 8 && is_upper_hex(offset);
    let is_backup = is_offset && (suffix.is_empty() || suffix.starts_with(['.', '-']));
    Some((segment.parse().ok()?, u32::from_str_radix(offset, 16).ok().filter(|_| is_backup)?))
}

struct Lines<'a> {
    text: &'a str,
    number: u32,
}

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.text.split_inclusive('\n').next()
    }

    fn next(&mut self) -> Option<&'a str> {
        let line = self.peek()?;
        self.text = self.text.get(line.len()..).unwrap_or_default();
        self.number += 1;
        Some(line.trim_end_matches('\n'))
    }

    /// Value of the next line, which must have this key and end as the server wants it.
    fn needed(&mut self, key: &'static str) -> Result<&'a str, BackupLabelError> {
        match self.next_if(key)? {
            Some(value) => Ok(value),
            None => {
                self.number += 1;
                let found = self.peek().unwrap_or_default().trim_end_matches('\n');
                Err(self.fail(BackupLabelErrorKind::Key { expected: key, found: shown(found) }))
            }
        }
    }

    fn next_if(&mut self, key: &'static str) -> Result<Option<&'a str>, BackupLabelError> {
        let is_next = self.peek().and_then(|line| line.strip_prefix(key)).is_some_and(|rest| rest.starts_with(": "));
        if !is_next {
            return Ok(None);
        }
        let cut_short = !self.peek().is_some_and(|line| line.ends_with('\n'));
        let line = self.next().unwrap_or_default();
        match cut_short || line.ends_with('\r') {
            // A label that was copied through a terminal or an editor: the server calls it invalid and says no more.
            true => Err(self.fail(BackupLabelErrorKind::LineEnd { cut_short })),
            false => Ok(line.get(key.len() + 2..)),
        }
    }

    fn lsn(&self, text: &str) -> Result<Lsn, BackupLabelError> {
        text.parse().map_err(|_| self.fail(BackupLabelErrorKind::Lsn { found: shown(text) }))
    }

    /// `0/2000028 (file 000000010000000000000002)`
    fn place_in_file(&self, text: &str) -> Result<(Lsn, SegmentName), BackupLabelError> {
        let (lsn, file) = text.split_once(" (file ").unwrap_or((text, ""));
        let lsn = self.lsn(lsn)?;
        let name = file.strip_suffix(')').and_then(|name| name.parse().ok());
        Ok((lsn, name.ok_or_else(|| self.fail(BackupLabelErrorKind::Segment { found: shown(file) }))?))
    }

    fn timeline(&self, text: &str) -> Result<TimelineId, BackupLabelError> {
        text.parse().map(TimelineId).map_err(|_| self.fail(BackupLabelErrorKind::Timeline { found: shown(text) }))
    }

    fn fail(&self, kind: BackupLabelErrorKind) -> BackupLabelError {
        BackupLabelError { line: self.number, kind }
    }
}

/// A line that is not a label's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupLabelError {
    /// Number of the line, counted from 1.
    pub line: u32,
    /// What is wrong.
    #[serde(flatten)]
    pub kind: BackupLabelErrorKind,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "label_error", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackupLabelErrorKind {
    /// Another line must stand here.
    Key {
        /// How it starts.
        expected: &'static str,
        /// What stands here.
        found: String,
    },
    /// The line does not end with a newline, or has a carriage return before it.
    LineEnd {
        /// The file ends inside the line.
        cut_short: bool,
    },
    /// Not an LSN.
    Lsn {
        /// What stands in its place.
        found: String,
    },
    /// Not the name of a segment in brackets.
    Segment {
        /// What stands in its place.
        found: String,
    },
    /// Not the number of a timeline.
    Timeline {
        /// What stands in its place.
        found: String,
    },
    /// The timeline is not that of the segment where the backup starts.
    StartTimeline {
        /// The segment's.
        expected: TimelineId,
        /// What the line says.
        found: TimelineId,
    },
}

impl fmt::Display for BackupLabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use BackupLabelErrorKind::*;
        write!(f, "line {}: ", self.line)?;
        match &self.kind {
            Key { expected, found } => write!(f, "expected \"{expected}: \", found \"{}\"", found.escape_debug()),
            LineEnd { cut_short: true } => write!(f, "expected a newline at its end, found the end of the file"),
            LineEnd { cut_short: false } => write!(f, "expected a newline at its end, found a carriage return before it"),
            Lsn { found } => write!(f, "expected an LSN like 16/B374D848, found \"{}\"", found.escape_debug()),
            Segment { found } => write!(f, "expected \"(file \", the name of a segment and \")\", found \"{}\"", found.escape_debug()),
            Timeline { found } => write!(f, "expected the number of a timeline, found \"{}\"", found.escape_debug()),
            StartTimeline { expected, found } => write!(f, "expected timeline {expected} as in the segment's name, found {found}"),
        }
    }
}

impl std::error::Error for BackupLabelError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server of 15 wrote them.
    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
        BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 05:10:00 UTC\nLABEL: nightly: one\nSTART TIMELINE: 1\n";
    const HISTORY: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        STOP WAL LOCATION: 0/2000138 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\n\
        BACKUP FROM: primary\nSTART TIME: 2026-11-23 05:10:00 UTC\nLABEL: nightly: one\nSTART TIMELINE: 1\n\
        STOP TIME: 2026-11-23 05:10:02 UTC\nSTOP TIMELINE: 1\n";

    #[test]
    fn label_and_history() {
        let label = BackupLabel::parse(LABEL.as_bytes()).unwrap();
        assert_eq!((label.start, label.checkpoint), (Lsn(0x200_0028), Lsn(0x200_0060)));
        assert_eq!(label.start_segment.to_string(), "000000010000000000000002");
        assert_eq!((label.method.clone(), label.from_standby), (Some(BackupMethod::Streamed), Some(false)));
        assert_eq!((label.label.as_deref(), label.start_timeline), (Some("nightly: one"), Some(TimelineId(1))));
        assert!(label.has_end_record() && label.stop.is_none());
        let history = BackupLabel::parse(HISTORY.as_bytes()).unwrap();
        let stop = history.stop.clone().unwrap();
        assert_eq!(
            (stop.lsn, stop.time.as_deref(), stop.timeline),
            (Lsn(0x200_0138), Some("2026-11-23 05:10:02 UTC"), Some(TimelineId(1)))
        );
        assert_eq!(BackupLabel { stop: None, ..history }, label);
    }

    #[test]
    fn what_majors_and_programs_leave_out_or_add() {
        let ten = LABEL.replace("START TIMELINE: 1\n", "").replace("streamed", "pg_start_backup");
        let label = BackupLabel::parse(ten.as_bytes()).unwrap();
        assert_eq!(
            (label.method.clone(), label.start_timeline, label.timeline()),
            (Some(BackupMethod::PgStartBackup), None, TimelineId(1))
        );
        assert!(label.has_end_record());
        let standby = BackupLabel::parse(LABEL.replace("primary", "standby").as_bytes()).unwrap();
        assert!(!standby.has_end_record());
        let rewound = LABEL.replace("streamed", "pg_rewind");
        assert!(!BackupLabel::parse(rewound.replace("primary", "standby").as_bytes()).unwrap().has_end_record());
        // A server waits for the record whatever the method is called.
        let other = LABEL.replace("BACKUP METHOD: streamed\n", "");
        for label in [rewound, other, LABEL.lines().take(2).collect::<Vec<_>>().join("\n") + "\n"] {
            assert!(BackupLabel::parse(label.as_bytes()).unwrap().has_end_record(), "{label}");
        }
        let incremental = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        assert_eq!(BackupLabel::parse(incremental.as_bytes()).unwrap().incremental_from, Some(Lsn(0x100_0028)));
    }

    #[test]
    fn what_the_server_refuses() {
        let line = |number: usize, text: &str| {
            let mut lines: Vec<&str> = LABEL.lines().collect();
            lines[number - 1] = text;
            lines.join("\n") + "\n"
        };
        let cases = [
            (String::new(), "line 1: expected \"START WAL LOCATION: \", found \"\""),
            (line(1, "START: 0/1"), "line 1: expected \"START WAL LOCATION: \", found \"START: 0/1\""),
            (line(1, "START WAL LOCATION: 02000028"), "line 1: expected an LSN like 16/B374D848, found \"02000028\""),
            (line(1, "START WAL LOCATION: 0/2000028"), "line 1: expected \"(file \", the name of a segment and \")\", found \"\""),
            (line(2, "BACKUP METHOD: streamed"), "line 2: expected \"CHECKPOINT LOCATION: \", found \"BACKUP METHOD: streamed\""),
            (LABEL.replace('\n', "\r\n"), "line 1: expected a newline at its end, found a carriage return before it"),
            (LABEL[..90].to_owned(), "line 2: expected a newline at its end, found the end of the file"),
            (line(7, "START TIMELINE: 2"), "line 7: expected timeline 1 as in the segment's name, found 2"),
            (line(7, "START TIMELINE: x"), "line 7: expected the number of a timeline, found \"x\""),
        ];
        for (text, expected) in cases {
            assert_eq!(BackupLabel::parse(text.as_bytes()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn names() {
        let start = |name| start_of_file_name(name).map(|(segment, offset)| (segment.to_string(), offset));
        let expected = Some(("000000010000000000000002".to_owned(), 0x28));
        assert_eq!(start("000000010000000000000002.00000028.backup"), expected);
        assert_eq!(start("000000010000000000000002.00000028.backup.gz"), expected);
        for name in ["000000010000000000000002", "000000010000000000000002.28.backup", "000000010000000000000002.partial", "backup_label"] {
            assert_eq!(start(name), None, "{name}");
        }
    }
}
