//! The answer, in values and in words.

use std::fmt;

use serde::Serialize;

use super::Target;
use crate::base_backup::BackupName;
use crate::history::HistoryError;
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::printable::printable;
use crate::source::Wrapping;
use crate::types::TimestampTz;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Where recovery shall stop.
    #[serde(flatten)]
    pub target: Target,
    /// Whether a record at the target itself is replayed. C: `recovery_target_inclusive`.
    pub inclusive: bool,
    /// The base backup that it starts from; `None`: none was named, and the archive tells of none.
    pub backup: Option<BackupName>,
    /// The timeline it follows; `None`: it did not come so far.
    pub timeline: Option<TimelineId>,
    /// Where it starts.
    pub start: Option<Lsn>,
    /// LSN after the record that ends the base backup; `None`: none is asked for, or it was not reached.
    pub backup_end: Option<Lsn>,
    /// Where the state becomes consistent, so that recovery may stop from there on; `None`: not reached, or not known.
    pub consistent: Option<Place>,
    /// Files that it takes, in order: history files, then segments; up to the obstacle, where there is one.
    pub files: Vec<String>,
    /// What has to be seen to, or known, although it comes there.
    pub caveats: Vec<Caveat>,
    /// Whether it comes there.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A place in the WAL, and what was replayed up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// LSN after the last record.
    pub lsn: Lsn,
    /// Time of the last commit or abort; `None`: there is none.
    pub last_transaction: Option<TimestampTz>,
}

/// Whether recovery reaches its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reach", rename_all = "snake_case")]
pub enum Outcome {
    /// It does.
    Yes {
        /// LSN after the last record that is replayed.
        end: Lsn,
        /// The last commit or abort that is replayed; `None`: there is none.
        last_transaction: Option<TimestampTz>,
        /// A `.partial` file that has more, which no server takes by itself: recovery would go on if it got the name without that.
        partial: Option<String>,
    },
    /// It does not.
    No {
        /// What is in its way.
        obstacle: Obstacle,
        /// How far it gets; `None`: no record is replayed.
        how_far: Option<HowFar>,
    },
    /// The files that are available do not tell.
    Unknown {
        /// What would have to be known.
        doubt: Doubt,
        /// How far the WAL goes on the way to the target.
        how_far: Option<HowFar>,
    },
}

/// How far recovery gets that does not reach its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HowFar {
    /// LSN after the last record that is replayed.
    pub end: Lsn,
    /// The last commit or abort that is replayed: the latest target time that can be reached is that of the record before the next commit.
    pub last_transaction: Option<TimestampTz>,
    /// The file whose records end it.
    pub file: Option<String>,
    /// Whether the server then opens for writing, with what it has, as if nothing was wrong; else it stops with an error.
    pub opens: bool,
    /// Other files that may have the WAL that is damaged or missing.
    pub copies: Vec<String>,
}

/// What the files that are available do not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "doubt", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Doubt {
    /// The backup was taken from a standby, or is a data directory: only its pg_control tells where it is consistent, and it is not available.
    Consistency {
        /// From here on it is, by its manifest.
        at_latest: Option<Lsn>,
    },
    /// The segment is encrypted or compressed in a way that is not read.
    NotRead {
        /// The file.
        input: String,
        /// In which way.
        wrapping: Wrapping,
    },
    /// There is no backup, and where one is consistent is asked for.
    NoBackup,
}

/// What has to be seen to, or known, although recovery reaches its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "caveat", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Caveat {
    /// No base backup is known: the answer holds for one that starts here or later and ends before the target.
    NoBackup {
        /// Where the WAL starts.
        start: Lsn,
    },
    /// A hot standby needs the setting to be at least so high: with less it stops, or pauses and stops when it is told to go on.
    Setting {
        /// Its name.
        setting: &'static str,
        /// The value that it must have.
        needed: i32,
        /// The value of the server that was backed up; `None`: not known.
        had: Option<i32>,
        /// The record that says so.
        lsn: Lsn,
        /// Whether the server pauses; before 14 it stops with an error.
        pauses: bool,
    },
    /// The directory of a tablespace must be there, empty if WAL creates it, and with its files if the backup has it.
    Tablespace {
        /// Object id.
        oid: u32,
        /// Where.
        directory: String,
        /// The record that creates it; `None`: it is part of the backup.
        lsn: Option<Lsn>,
    },
    /// Segments of a newer timeline are there that recovery does not follow, as a history file is missing.
    NotFollowed {
        /// The timeline.
        timeline: TimelineId,
        /// The history file.
        file: String,
    },
    /// The next segment is of the wrong size. A server of 15 or later may read ahead, and stops at it with an error.
    ReadAhead {
        /// The file.
        input: String,
    },
}

/// What is in the way of a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "obstacle", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Obstacle {
    /// No segment of the timeline or its ancestors is there.
    NoSegments,
    /// The segment that comes next is not there, and must have been.
    Missing {
        /// Its name.
        segment: SegmentName,
        /// Where the records before it end.
        end: Option<Lsn>,
        /// Whether later segments are there.
        gap: bool,
        /// The segment under the name `.partial`, which no server takes by itself.
        partial: Option<String>,
    },
    /// The segment is damaged.
    Damaged {
        /// The file.
        input: String,
        /// Where.
        lsn: Option<Lsn>,
        /// How.
        reason: String,
    },
    /// The file has the name of the segment that comes next, and another size: the server stops with an error.
    WrongSize {
        /// The file.
        input: String,
        /// Bytes of a segment.
        expected: u32,
        /// Bytes of the file.
        found: u64,
    },
    /// The file has the name of the segment that comes next, and is of another cluster.
    ForeignSegment {
        /// The file.
        input: String,
        /// The cluster of the backup. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        expected: u64,
        /// The cluster of the file. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        found: u64,
    },
    /// The backup is of another cluster than the WAL.
    ForeignBackup {
        /// The cluster of the WAL. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        expected: u64,
        /// The cluster of the backup. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        found: u64,
    },
    /// The WAL ends before the target.
    End {
        /// Where.
        end: Lsn,
        /// The last commit or abort before; `None`: there is none.
        last_transaction: Option<TimestampTz>,
    },
    /// The history file of the timeline that was asked for is not there.
    NoHistory {
        /// Its name.
        file: String,
    },
    /// The history file is damaged: the server stops at it.
    History {
        /// The file.
        input: String,
        /// What is wrong with it.
        error: HistoryError,
    },
    /// The timeline does not descend from where the recovery starts, or from the backup's minimum recovery point.
    NotDescendant {
        /// The timeline that was to be followed.
        timeline: TimelineId,
        /// Timeline of the start.
        start_timeline: TimelineId,
        /// The timeline that has the start in its history.
        expected: TimelineId,
        /// The start.
        start: Lsn,
    },
    /// The target lies before the end of the base backup, or before the oldest WAL: there is no consistent state so early.
    BeforeConsistency {
        /// Where the state becomes consistent; `None`: the end of the backup was not found.
        consistent: Option<Lsn>,
    },
    /// The backup was begun after the target time, and has what was committed until then. A server does not see that: it opens.
    BeforeBackup {
        /// When its checkpoint began, to the second.
        began: TimestampTz,
    },
    /// The backup is incremental: pg_combinebackup has to put it together with the ones before it.
    Incremental,
    /// No checkpoint's record is where the backup label says, or it is of another one.
    NoCheckpoint {
        /// `CHECKPOINT LOCATION`.
        expected: Lsn,
    },
    /// The backup has no label, and its pg_control is that of a running server: recovery begins with the WAL in its own pg_wal, as after a
    /// crash, and the checkpoint is not in that.
    NoOwnWal {
        /// The record of the checkpoint. C: `checkPoint`.
        checkpoint: Lsn,
        /// The segment that has it.
        segment: SegmentName,
    },
    /// WAL was written with wal_level=minimal: the server does not replay it, or, before 14, only with hot_standby off and a warning.
    MinimalWal {
        /// The record that says so; `None`: the backup's pg_control.
        lsn: Option<Lsn>,
    },
    /// The label is that of a backup of a standby, and pg_control is not that of a standby.
    LabelContradictsControl {
        /// What the server was doing, by pg_control.
        state: &'static str,
    },
}

impl Reach {
    /// Whether recovery reaches its target.
    pub fn is_yes(&self) -> bool {
        matches!(self.outcome, Outcome::Yes { .. })
    }

    /// One word: yes, no, or unknown.
    pub fn verdict(&self) -> &'static str {
        match self.outcome {
            Outcome::Yes { .. } => "yes",
            Outcome::No { .. } => "no",
            Outcome::Unknown { .. } => "unknown",
        }
    }

    /// The file that is to blame for a no, where one is.
    pub fn input(&self) -> Option<&str> {
        let Outcome::No { obstacle, how_far } = &self.outcome else { return None };
        match obstacle {
            Obstacle::Damaged { input, .. }
            | Obstacle::WrongSize { input, .. }
            | Obstacle::ForeignSegment { input, .. }
            | Obstacle::History { input, .. } => Some(input),
            _ => how_far.as_ref().and_then(|how_far| how_far.file.as_deref()),
        }
    }

    pub(super) fn no(mut self, obstacle: Obstacle, how_far: Option<HowFar>) -> Reach {
        self.outcome = Outcome::No { obstacle, how_far };
        self
    }
}

/// The answer in a few sentences; files and caveats are not in it.
impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exclusive = if self.inclusive { "" } else { ", itself not included," };
        let from = |f: &mut fmt::Formatter<'_>| {
            if let Some(backup) = &self.backup {
                write!(f, " from base backup {}", printable(&backup.input))?;
            }
            if let Some(start) = self.start {
                let word = if self.backup.is_some() { "at" } else { "from" };
                write!(f, " {word} {start}")?;
            }
            match self.timeline {
                Some(timeline) => write!(f, " along timeline {timeline}"),
                None => Ok(()),
            }
        };
        match &self.outcome {
            Outcome::Yes { end, last_transaction, partial } => {
                write!(f, "yes: recovery")?;
                from(f)?;
                write!(f, " reaches {}{exclusive} and ends at {end}", self.target)?;
                if let Some(time) = last_transaction {
                    write!(f, "; the last transaction ended at {time}")?;
                }
                match partial {
                    Some(partial) => {
                        write!(f, ". {} has more: give a copy of it the name without .partial to go on", printable(partial))
                    }
                    None => Ok(()),
                }
            }
            Outcome::No { obstacle, how_far } => {
                write!(f, "no: recovery")?;
                if self.backup.is_some() {
                    from(f)?;
                }
                write!(f, " cannot reach {}{exclusive}: ", self.target)?;
                self.explain(obstacle, f)?;
                let opens = how_far.as_ref().is_some_and(|how_far| how_far.opens);
                let tells = match obstacle {
                    Obstacle::MinimalWal { .. } if opens => {
                        write!(f, ". With hot_standby off, a server of this version only warns, and opens with data that may be missing")?;
                        false
                    }
                    Obstacle::BeforeBackup { .. } => false,
                    _ => true,
                };
                self.tell_how_far(how_far.as_ref().filter(|_| tells), f)
            }
            Outcome::Unknown { doubt, how_far } => {
                write!(f, "unknown: whether recovery")?;
                if self.backup.is_some() {
                    from(f)?;
                }
                write!(f, " can stop at {}{exclusive} cannot be told: {doubt}", self.target)?;
                self.tell_how_far(how_far.as_ref(), f)
            }
        }
    }
}

impl Reach {
    fn explain(&self, obstacle: &Obstacle, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (obstacle, &self.target) {
            (Obstacle::BeforeConsistency { consistent }, _) if self.backup.is_some() => {
                match consistent {
                    Some(lsn) => write!(f, "this backup ended at {lsn}")?,
                    None => write!(f, "this backup ends later, in WAL that is not here")?,
                }
                if let Some(time) = self.consistent.and_then(|place| place.last_transaction) {
                    write!(f, ", after the transaction that ended at {time}")?;
                }
                if let Some(time) = self.backup.as_ref().and_then(|backup| backup.stop_time.as_ref()) {
                    write!(f, " (stop time {})", printable(time))?;
                }
                write!(f, "; take an older one")
            }
            (Obstacle::BeforeBackup { .. }, _) => {
                write!(f, "{obstacle}. The server does not notice, and opens with what the backup contains; take an older one")
            }
            (Obstacle::End { last_transaction: Some(time), .. }, Target::Time(target)) if time <= target => {
                write!(f, "the WAL has no later transaction, so the server cannot tell that it has reached the target: {obstacle}")
            }
            (Obstacle::End { .. }, Target::Xid(_)) => write!(f, "its commit or abort is not in the WAL: {obstacle}"),
            (Obstacle::End { .. }, Target::Name(_)) => write!(f, "it is not in the WAL: {obstacle}"),
            _ => write!(f, "{obstacle}"),
        }
    }

    fn tell_how_far(&self, how_far: Option<&HowFar>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(HowFar { end, last_transaction, file, opens, copies }) = how_far else { return Ok(()) };
        write!(f, ". Recovery gets to {end}")?;
        if let Some(file) = file {
            write!(f, " in {}", printable(file))?;
        }
        match last_transaction {
            Some(time) => write!(f, "; the last transaction before that ended at {time}")?,
            None => write!(f, ", before any transaction ends")?,
        }
        if *opens {
            write!(f, ". The server does not complain: it opens there, without what comes later")?;
        }
        if !copies.is_empty() {
            let copies: Vec<String> = copies.iter().map(|copy| printable(copy).to_string()).collect();
            write!(f, ". Files that may have what is missing: {}", copies.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Consistency { at_latest } => {
                write!(
                    f,
                    "only this backup's pg_control records where it becomes consistent, and it is not available: name the directory or the archive of the backup"
                )?;
                match at_latest {
                    Some(lsn) => write!(f, " (from {lsn} on it is, by its manifest)"),
                    None => Ok(()),
                }
            }
            Doubt::NotRead { input, wrapping } => write!(f, "{} is {wrapping}", printable(input)),
            Doubt::NoBackup => write!(f, "no base backup is known"),
        }
    }
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caveat::NoBackup { start } => {
                write!(
                    f,
                    "no base backup is named or found in the archive: this holds for one that starts at {start} or later and ends before the target"
                )
            }
            Caveat::Setting { setting, needed, had, lsn, pauses } => {
                write!(f, "{setting} must be at least {needed}")?;
                if let Some(had) = had {
                    write!(f, " (the server that was backed up had {had})")?;
                }
                let what = if *pauses { "pauses at" } else { "stops at" };
                write!(f, ", or hot_standby off: else recovery {what} {lsn}, and does not go on")
            }
            Caveat::Tablespace { oid, directory, lsn: Some(lsn) } => {
                write!(f, "tablespace {oid} is created at {lsn}: the directory {} must be there and empty", printable(directory))
            }
            Caveat::Tablespace { oid, directory, lsn: None } => {
                write!(f, "tablespace {oid} of the backup must be restored to {}", printable(directory))
            }
            Caveat::NotFollowed { timeline, file } => {
                write!(f, "timeline {timeline} has segments here, but recovery does not follow it: {file} is missing")
            }
            Caveat::ReadAhead { input } => {
                write!(
                    f,
                    "{} comes next and has the wrong size: a server that reads ahead stops at it; set recovery_prefetch to off",
                    printable(input)
                )
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoSegments => write!(f, "there is no segment to start from"),
            Obstacle::Missing { segment, end, gap, partial } => {
                write!(f, "{segment} is missing")?;
                if *gap {
                    write!(f, ", although later segments are present")?;
                }
                if let Some(end) = end {
                    write!(f, "; the records before it end at {end}")?;
                }
                match partial {
                    Some(partial) => {
                        write!(f, ". There is {}: give a copy of it the name without .partial to use it", printable(partial))
                    }
                    None => Ok(()),
                }
            }
            Obstacle::Damaged { input, lsn: Some(lsn), reason } => write!(f, "{} is damaged at {lsn}: {reason}", printable(input)),
            Obstacle::Damaged { input, lsn: None, reason } => write!(f, "{} is damaged: {reason}", printable(input)),
            Obstacle::WrongSize { input, expected, found } => {
                write!(f, "{} has {found} bytes instead of {expected}: the server stops at it with an error", printable(input))
            }
            Obstacle::ForeignSegment { input, expected, found } => {
                write!(f, "{} is of another cluster: its system identifier is {found}, not {expected}", printable(input))
            }
            Obstacle::ForeignBackup { expected, found } => {
                write!(f, "the backup is of another cluster: its system identifier is {found}, that of the WAL {expected}")
            }
            Obstacle::End { end, last_transaction: Some(time) } => write!(f, "the WAL ends at {end}; the last transaction ended at {time}"),
            Obstacle::End { end, last_transaction: None } => write!(f, "the WAL ends at {end}"),
            Obstacle::NoHistory { file } => {
                write!(f, "{file} is missing: the server follows a timeline only where its history file is there")
            }
            Obstacle::History { input, error } => write!(f, "{} is damaged: {error}", printable(input)),
            Obstacle::NotDescendant { timeline, start_timeline, expected, start } => {
                write!(f, "timeline {timeline} does not go back to {start} on timeline {start_timeline}: there it has timeline {expected}")
            }
            Obstacle::BeforeConsistency { consistent: Some(lsn) } => write!(f, "there is no consistent state before {lsn}"),
            Obstacle::BeforeConsistency { consistent: None } => {
                write!(f, "the state is not consistent there: the base backup ends later, in WAL that is not here")
            }
            Obstacle::BeforeBackup { began } => {
                write!(f, "this backup began at {began}, after the target, and contains everything committed before that")
            }
            Obstacle::Incremental => write!(f, "the backup is incremental: pg_combinebackup has to put it together with those before it"),
            Obstacle::NoCheckpoint { expected } => write!(f, "the backup's checkpoint is not at {expected}"),
            Obstacle::NoOwnWal { checkpoint, segment } => {
                write!(
                    f,
                    "the backup has no backup_label, and by its pg_control the server was running: recovery begins in its own pg_wal, which does not have the checkpoint at {checkpoint}, in {segment}"
                )
            }
            Obstacle::MinimalWal { lsn: Some(lsn) } => {
                write!(
                    f,
                    "the WAL was written with wal_level=minimal from {lsn} on, which recovery refuses: take a base backup from after it"
                )
            }
            Obstacle::MinimalWal { lsn: None } => {
                write!(f, "by its pg_control, the server that was backed up had wal_level=minimal, which recovery refuses")
            }
            Obstacle::LabelContradictsControl { state } => {
                write!(f, "the backup is corrupted: by its label it was taken from a standby, but by its pg_control the server was {state}")
            }
        }
    }
}
