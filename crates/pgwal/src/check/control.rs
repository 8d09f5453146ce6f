//! A data directory's WAL held against its `pg_control`: what the server would read when it starts.
//!
//! C: `StartupXLOG` in access/transam/xlog.c, `InitWalRecovery` in xlogrecovery.c (xlog.c up to 14).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::finding::{Class, Finding, Problem};
use crate::backup_label::{BackupLabel, BackupLabelError, BackupLabelErrorKind, BackupMethod};
use crate::datadir::{self, ControlFile, DbState};
use crate::error::Error;
use crate::format::WalFormat;
use crate::history::History;
use crate::input_file;
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::page::PageHeader;
use crate::record::RawRecord;
use crate::rmgr::xlog::{self, Checkpoint};
use crate::rmgr::{Payload, RmgrId};
use crate::scan::{self, Work, scan};
use crate::set::owners;
use crate::source::{Archive, ArchiveFile, NoFile, NotWal, Start};

/// A data directory: what its `pg_control` says, and what a server would do with it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// As the user knows it.
    path: PathBuf,
    /// Why its PG_VERSION cannot be read, where it is there.
    bad_version: Option<String>,
    control: Result<(ControlFile, u8), ControlProblem>,
    /// A backup_label that the server would start from instead of `pg_control`'s checkpoint, or what is wrong with it.
    label: Result<Option<BackupLabel>, ControlProblem>,
    signal: Option<Signal>,
    is_running: bool,
}

/// What is wrong with `pg_control`, or with the WAL as `pg_control` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ControlProblem {
    /// It cannot be read.
    ControlUnreadable {
        /// Why.
        reason: String,
    },
    /// Its checksum is wrong.
    ControlChecksum {
        /// That of its bytes.
        expected: u32,
        /// The one that it has. C: `crc`.
        found: u32,
    },
    /// PG_VERSION, which the server reads first, is not what a server writes.
    VersionUnreadable {
        /// Why.
        reason: String,
    },
    /// It is of another major version than the data directory.
    ControlVersion {
        /// The major, by PG_VERSION.
        expected: u8,
        /// C: `pg_control_version`.
        found: u32,
    },
    /// A field has a value that it cannot have.
    ControlValue {
        /// C struct and field.
        field: &'static str,
        /// What it can have.
        expected: &'static str,
        /// What it has.
        found: u64,
    },
    /// It ends before the field does.
    ControlTruncated {
        /// C struct and field.
        field: &'static str,
        /// Bytes missing.
        needed: usize,
    },
    /// The WAL is of another major version.
    WalMajor {
        /// That of the data directory.
        expected: u8,
        /// That of the WAL.
        found: u8,
    },
    /// Recovery starts at the redo point of the last checkpoint and must find its record.
    StartsAt {
        /// The checkpoint's record.
        checkpoint: Lsn,
        /// Where replay starts.
        redo: Lsn,
        /// Timeline of the checkpoint.
        timeline: TimelineId,
        /// What names them.
        by: StartedBy,
    },
    /// Recovery must come to the minimum recovery point, as data files may be that new.
    MinimumRecoveryPoint {
        /// That point. C: `minRecoveryPoint`.
        needed: Lsn,
        /// Its timeline. C: `minRecoveryPointTLI`.
        timeline: TimelineId,
    },
    /// The record at the checkpoint's place is none of a checkpoint.
    NoCheckpoint {
        /// The place.
        checkpoint: Lsn,
    },
    /// The checkpoint's record is not the one that `pg_control` has a copy of.
    OtherCheckpoint {
        /// The place.
        checkpoint: Lsn,
        /// Redo point and timeline in `pg_control`.
        expected: (Lsn, TimelineId),
        /// Those of the record.
        found: (Lsn, TimelineId),
    },
    /// The server was shut down, but records follow its last checkpoint.
    GoesOnAfterShutdown {
        /// The checkpoint that it was shut down with.
        checkpoint: Lsn,
        /// The first record after it.
        found: Lsn,
    },
    /// The segment where recovery starts, or one that it comes to, is in pg_wal only in a form that the server does not read there.
    NotPlain {
        /// The file that is there.
        file: String,
    },
    /// Recovery must come to the end of the base backup.
    BackupEnd {
        /// Redo point of the backup, which the record of its end names.
        start: Lsn,
        /// Where it ends, by backup_manifest; `None`: not known.
        end: Option<Lsn>,
        /// Where the WAL ends.
        found: Lsn,
        /// What says that there is such a record.
        by: StartedBy,
    },
    /// backup_label cannot be read.
    LabelUnreadable {
        /// Why.
        reason: String,
    },
    /// backup_label has something that the server does not start from.
    LabelInvalid {
        /// What, and in which line.
        error: BackupLabelError,
    },
    /// backup_label is that of an incremental backup.
    LabelIncremental {
        /// Where the backup starts that it builds upon.
        from: Lsn,
    },
    /// The backup was taken from a standby, but `pg_control` is not one's.
    NotOfStandby {
        /// What it says the server was doing, in pg_controldata's words.
        found: String,
    },
}

/// What names the checkpoint that recovery starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartedBy {
    /// `global/pg_control`.
    PgControl,
    /// `backup_label`, which comes first.
    BackupLabel,
}

/// The file that makes a server fetch WAL from elsewhere when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `recovery.signal`: it comes from an archive.
    Recovery,
    /// `standby.signal`: it comes from a primary or an archive.
    Standby,
    /// `recovery.conf`, up to 11: either.
    RecoveryConf,
}

impl Signal {
    /// As the server of this major looks for them; `None`: of a major that is not known.
    fn find(data: &Path, major: Option<u8>) -> Option<Signal> {
        let is_there = |signal: &Signal| data.join(signal.file_name()).exists();
        let all = [Signal::Standby, Signal::Recovery, Signal::RecoveryConf];
        all.into_iter().filter(|signal| major.is_none_or(|major| (*signal == Signal::RecoveryConf) == (major < 12))).find(is_there)
    }

    /// Its name.
    pub const fn file_name(self) -> &'static str {
        match self {
            Signal::Recovery => "recovery.signal",
            Signal::Standby => "standby.signal",
            Signal::RecoveryConf => "recovery.conf",
        }
    }
}

/// Places that findings have told of, so that nothing is told twice.
#[derive(Clone, Debug, Default)]
pub struct Told(BTreeMap<Lsn, Lsn>);

impl Told {
    /// So many places are remembered: who has more than this has other worries.
    const MOST: usize = 10_000;

    /// Remembers where a finding is.
    pub fn add(&mut self, finding: &Finding) {
        if let Some(lsns) = finding.lsns.as_ref().filter(|_| self.0.len() < Told::MOST) {
            let end = self.0.entry(lsns.start).or_insert(lsns.end);
            *end = lsns.end.max(*end);
        }
    }

    /// Whether some of `lsns` has been told of.
    fn has(&self, lsns: &Range<Lsn>) -> bool {
        self.0.range(..lsns.end).any(|(_, &end)| end > lsns.start)
    }
}

/// Looks at a `pg_control` that a server writes to, and the time between them.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// More segments than this are not asked for: nobody has so many between two checkpoints.
const MOST_SEGMENTS: u64 = 100_000;
/// Looks at a directory whose server takes one checkpoint after the other.
const CHECKPOINTS: usize = 20;

/// More slots are not looked at.
const MOST_SLOTS: usize = 10_000;

/// Bytes of a small text file in a data directory, at most.
const TEXT_LEN: u64 = 1 << 20;

/// What recovery needs.
#[derive(Clone, Copy, Debug)]
struct Needs {
    checkpoint: Lsn,
    redo: Lsn,
    timeline: TimelineId,
    by: StartedBy,
    /// How far it must come, and on which timeline.
    minimum: Option<(Lsn, TimelineId)>,
}

impl Cluster {
    /// The data directory that `input` is, or whose pg_wal it is; `None`: neither.
    ///
    /// It should be read before its WAL is listed: a server removes segments only after `pg_control` says that it can.
    pub fn of_input(input: &Path) -> Option<Cluster> {
        let path = data_directory(input)?;
        let file = path.join("global/pg_control");
        let (major, bad_version) = match read_version(&path.join("PG_VERSION")) {
            Ok(major) => (major, None),
            Err(reason) => (None, Some(reason)),
        };
        let control = read_control(&file, major);
        let label = read_label(&path.join("backup_label"));
        let signal = Signal::find(&path, major.or(control.as_ref().ok().map(|(_, major)| *major)));
        let is_running = is_running(&path);
        Some(Cluster { path, bad_version, control, label, signal, is_running })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `pg_control` says, where it can be read.
    pub fn control(&self) -> Option<&ControlFile> {
        self.control.as_ref().ok().map(|(control, _)| control)
    }

    /// Whether a server runs on it.
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// Whether all segments in its pg_wal are compressed, as in a copy that is kept: they must be unpacked before a server can start on it.
    pub fn is_stored_packed(&self, archive: &Archive) -> bool {
        let Ok((control, major)) = &self.control else { return false };
        Files::of(archive, format_of(control, *major), control.system_identifier, self).is_stored
    }

    /// The file that makes the server fetch the WAL that it starts from, where its pg_wal does not have it; `None`: it needs the WAL there.
    ///
    /// Without a backup_label, and with a `pg_control` that does not say how far recovery must come, a server replays the WAL in pg_wal
    /// first, whatever file is there. C: `ArchiveRecoveryRequested` and `InArchiveRecovery`.
    pub fn fetches_wal(&self) -> Option<Signal> {
        let is_direct = |control: &ControlFile| {
            control.min_recovery_point.is_valid()
                || control.backup_end_required
                || control.backup_end.is_valid()
                || control.state == DbState::SHUT_DOWN
        };
        let has_label = matches!(self.label, Ok(Some(_)));
        self.signal.filter(|_| has_label || self.control().is_none_or(is_direct))
    }

    /// Segments that recovery needs, that are not in pg_wal, and that the server fetches from elsewhere: see [`Cluster::fetches_wal`].
    pub fn fetched(&self, archive: &Archive) -> Vec<(SegmentName, SegmentName)> {
        let (Some(_), Ok((control, major))) = (self.fetches_wal(), &self.control) else { return Vec::new() };
        let fmt = format_of(control, *major);
        let (files, needs) = (Files::of(archive, fmt, control.system_identifier, self), self.needs(control));
        let missing = self.segments(archive, &files, &needs, fmt, &Told::default());
        let names = missing.into_iter().filter_map(|finding| match finding.class {
            Class::MissingSegment { first, last } => Some((first, last)),
            _ => finding.segment.map(|segment| (segment, segment)),
        });
        names.collect()
    }

    /// What is wrong with `pg_control`, or with the WAL in `archive` as `pg_control` has it, and has not been `told` yet.
    ///
    /// A server may run on the directory. Where it took a checkpoint meanwhile, and may have removed what the one before needed, it is looked
    /// at again; `inputs` are those of the archive.
    pub fn findings<P: AsRef<Path>>(&self, inputs: &[P], archive: &Archive, told: &Told) -> Vec<Finding> {
        let mut found = self.check(archive, told);
        let mut before = self.clone();
        for _ in 0..CHECKPOINTS {
            if found.is_empty() {
                break;
            }
            let Some(now) = inputs.iter().find_map(|input| Cluster::of_input(input.as_ref()).filter(|cluster| cluster.path == self.path))
            else {
                break;
            };
            if now.control == before.control {
                break;
            }
            let Ok(archive) = Archive::open(inputs) else { break };
            found = now.check(&archive, told);
            before = now;
        }
        found
    }

    /// Where the WAL starts that the server needs to start; before it, segments may be missing. `None`: not known, as `pg_control` or
    /// `backup_label` cannot be read.
    pub fn needs_from(&self) -> Option<Lsn> {
        let control = self.control().filter(|_| self.label.is_ok())?;
        let needs = self.needs(control);
        // Without the end of recovery in its records, a server that was a backup starts from there.
        let backup = Some(control.backup_start).filter(|start| start.is_valid());
        Some(backup.map_or(needs.redo, |start| needs.redo.min(start)))
    }

    /// The replication slots with the oldest WAL that each of them keeps, by its files; of what is no slot's state, nothing.
    pub fn slots(&self) -> Vec<(String, Lsn)> {
        let Ok(folder) = fs::read_dir(self.path.join("pg_replslot")) else { return Vec::new() };
        let state = |path: PathBuf| {
            let bytes = input_file::read(&path.join("state"), TEXT_LEN).ok()?;
            Some((path.file_name()?.to_string_lossy().into_owned(), slot_restart(&bytes)?))
        };
        let mut slots: Vec<_> = folder.flatten().take(MOST_SLOTS).filter_map(|entry| state(entry.path())).collect();
        slots.sort();
        slots
    }

    fn check(&self, archive: &Archive, told: &Told) -> Vec<Finding> {
        let version = self.bad_version.clone().map(|reason| {
            let input = self.path.join("PG_VERSION").display().to_string();
            Finding { input, ..self.of_control(ControlProblem::VersionUnreadable { reason }) }
        });
        version.into_iter().chain(self.check_control(archive, told)).collect()
    }

    fn check_control(&self, archive: &Archive, told: &Told) -> Vec<Finding> {
        let (control, major) = match &self.control {
            Ok((control, major)) => (control, *major),
            Err(problem) => return vec![self.of_control(problem.clone())],
        };
        let fmt = format_of(control, major);
        if control.state.0 > DbState::IN_PRODUCTION.0 {
            let (field, expected, found) = ("ControlFileData.state", "a state from 0 to 6", control.state.0.into());
            return vec![self.of_control(ControlProblem::ControlValue { field, expected, found })];
        }
        let label = match &self.label {
            Ok(label) => label.as_ref(),
            // The server stops at this file, so there is no telling which WAL it would read next.
            Err(problem) => return vec![self.of_label(problem.clone())],
        };
        let mut found = Vec::new();
        if let Some(from) = label.and_then(|label| label.incremental_from).filter(|_| major >= 17) {
            return vec![self.of_label(ControlProblem::LabelIncremental { from })];
        }
        let from_standby = label.is_some_and(|label| label.from_standby == Some(true));
        if from_standby && !control.state.is_in_archive_recovery() {
            found.push(self.of_control(ControlProblem::NotOfStandby { found: control.state.to_string() }));
        }
        let is_ours = |file: &ArchiveFile| of_cluster(file, control.system_identifier);
        let other_major = archive.segments().find_map(|(file, segment)| {
            let other = segment.in_place().map(|(fmt, _)| fmt.major).filter(|&found| found != major)?;
            is_ours(file).then_some(other)
        });
        let needs = self.needs(control);
        let files = Files::of(archive, fmt, control.system_identifier, self);
        if let Some(other) = other_major.filter(|_| files.good.is_empty()) {
            found.push(self.of_control(ControlProblem::WalMajor { expected: major, found: other }));
            return found;
        }
        let mut missing = self.segments(archive, &files, &needs, fmt, told);
        let is_there = missing.is_empty();
        let is_fetched = self.fetches_wal().is_some();
        if !is_fetched {
            found.append(&mut missing);
        }
        if is_there {
            let start = self.start(archive, &files, &needs, fmt, told);
            found.extend(start.filter(|finding| !is_fetched || finding.class == Class::ControlFile));
        }
        if is_there && !is_fetched {
            found.extend(self.minimum(archive, &files, &needs, fmt, told));
            found.extend(self.backup_end(archive, &files, &needs, fmt, told));
        }
        found
    }

    fn needs(&self, control: &ControlFile) -> Needs {
        let minimum = Some((control.min_recovery_point, control.min_recovery_timeline)).filter(|(lsn, _)| lsn.is_valid());
        match self.label() {
            Some(label) => Needs {
                checkpoint: label.checkpoint,
                redo: label.start,
                timeline: label.start_segment.timeline,
                by: StartedBy::BackupLabel,
                // The end of the backup, where it was taken from a standby.
                minimum: minimum.filter(|_| label.from_standby == Some(true)),
            },
            None => Needs {
                checkpoint: control.checkpoint,
                redo: control.checkpoint_copy.redo.min(control.checkpoint),
                timeline: control.checkpoint_copy.timeline,
                by: StartedBy::PgControl,
                minimum: minimum.filter(|_| control.state.is_in_archive_recovery()),
            },
        }
    }

    fn label(&self) -> Option<&BackupLabel> {
        self.label.as_ref().ok()?.as_ref()
    }

    /// Segments that recovery needs and that are not there.
    fn segments(&self, archive: &Archive, files: &Files<'_>, needs: &Needs, fmt: WalFormat, told: &Told) -> Vec<Finding> {
        let size = fmt.segment_size;
        let newest = needs.minimum.map_or(needs.timeline, |(_, timeline)| timeline.max(needs.timeline));
        let history = history_of(archive, newest);
        let first = needs.redo.segment_number(size);
        let start_last = needs.checkpoint.segment_number(size);
        let last = needs.minimum.map_or(start_last, |(lsn, _)| Lsn(lsn.0 - 1).segment_number(size).max(start_last));
        let mut found: Vec<Finding> = Vec::new();
        let mut missing: Option<(u64, u64)> = None;
        let flush = |missing: &mut Option<(u64, u64)>, found: &mut Vec<Finding>| {
            let Some((from, to)) = missing.take() else { return };
            let problem = if from > start_last { minimum_problem(needs) } else { start_problem(needs) };
            let owner = |number| {
                let timeline = if number <= start_last { needs.timeline } else { newest };
                let own = history_of(archive, timeline);
                let owner = owners(&own, size).into_iter().find(|owner| owner.has(number));
                SegmentName::new(owner.map_or(timeline, |owner| owner.timeline), number, size)
            };
            let (first, last) = (owner(from), owner(to));
            let lsns = first.start(size)..last.start(size) + u64::from(size);
            found.push(missing_segments(first, last, lsns, problem));
        };
        for number in first..=last.min(first.saturating_add(MOST_SEGMENTS)) {
            let start = SegmentName::new(needs.timeline, number, size).start(size);
            let lsns = start..start + u64::from(size);
            if files.has(number, &history, needs.timeline, archive) || told.has(&lsns) {
                flush(&mut missing, &mut found);
                continue;
            }
            match files.named(number, size, &history) {
                // What is wrong with it is told of where it is.
                Some((_, Hollow::Other)) => flush(&mut missing, &mut found),
                Some((file, Hollow::NotPlain)) => {
                    flush(&mut missing, &mut found);
                    found.extend(not_plain(file, size));
                }
                Some((file, hollow)) => {
                    flush(&mut missing, &mut found);
                    let problem = if number > start_last { minimum_problem(needs) } else { start_problem(needs) };
                    let class = match hollow {
                        Hollow::Recycled(header) => {
                            let from = SegmentName::of(header.timeline, header.address, size);
                            Class::RecycledPage { from, address: header.address }
                        }
                        _ => Class::ZeroedPage,
                    };
                    let segment = file.segment().map(|segment| segment.name);
                    let (offsets, problem) = (Some(0..u64::from(size)), Some(Problem::Control(problem)));
                    found.push(Finding {
                        input: file.input.to_string(),
                        segment,
                        offsets,
                        lsns: Some(lsns),
                        record: None,
                        class,
                        problem,
                        whole_copy: None,
                    });
                }
                None => missing = Some((missing.map_or(number, |(from, _)| from), number)),
            }
        }
        flush(&mut missing, &mut found);
        // Recovery would end before a segment that it cannot read, as if the WAL ended there.
        let is_over = self.label().is_none() && self.control().is_some_and(|control| control.state == DbState::SHUT_DOWN);
        if found.is_empty() && !is_over && !self.is_running {
            let mut numbers = last.saturating_add(1)..last.saturating_add(MOST_SEGMENTS);
            let next = numbers.find(|number| files.at_or_after(*number, needs.timeline, archive).is_none());
            if let Some((file, Hollow::NotPlain)) = next.and_then(|number| files.named_after(number, size, needs.timeline, archive)) {
                found.extend(not_plain(file, size));
            }
        }
        found
    }

    /// Whether the checkpoint's record is there and is the one that is meant, and a record at its redo point.
    fn start(&self, archive: &Archive, files: &Files<'_>, needs: &Needs, fmt: WalFormat, told: &Told) -> Option<Finding> {
        let history = history_of(archive, needs.timeline);
        let read = |lsn: Lsn| files.read(archive, lsn, &history, needs.timeline, fmt);
        let early = |lsn: Lsn| {
            let lsns = lsn..lsn + 1;
            if told.has(&lsns) {
                return None;
            }
            let file = |lsn: Lsn| files.at(lsn.segment_number(fmt.segment_size), &history, needs.timeline, archive);
            let end = files.end(archive, needs.redo, lsn, &history, needs.timeline, fmt);
            let (end, file) = end.and_then(|end| Some((end, file(end)?))).or_else(|| Some((lsn, file(lsn)?)))?;
            Some(of_file(file, end, Class::EndsEarly { needed: lsn }, start_problem(needs), fmt))
        };
        let records = read(needs.checkpoint);
        let Some((_, checkpoint)) = records.first().filter(|(lsn, _)| *lsn == needs.checkpoint) else { return early(needs.checkpoint) };
        let control = self.control()?;
        let Some(record) = checkpoint else {
            return Some(self.of_control(ControlProblem::NoCheckpoint { checkpoint: needs.checkpoint }));
        };
        let copy = control.checkpoint_copy;
        let is_same = (record.redo, record.timeline, record.time) == (copy.redo, copy.timeline, copy.time);
        if needs.by == StartedBy::PgControl && !is_same {
            let (expected, found) = ((copy.redo, copy.timeline), (record.redo, record.timeline));
            return Some(self.of_control(ControlProblem::OtherCheckpoint { checkpoint: needs.checkpoint, expected, found }));
        }
        if needs.redo < needs.checkpoint && read(needs.redo).first().is_none_or(|(lsn, _)| *lsn != needs.redo) {
            return early(needs.redo);
        }
        // A server that was shut down has written nothing since, whatever else was put into its pg_wal.
        let is_over = control.state == DbState::SHUT_DOWN && !self.is_running && self.signal.is_none() && self.label().is_none();
        let (next, _) = records.get(1).filter(|_| is_over)?;
        Some(self.of_control(ControlProblem::GoesOnAfterShutdown { checkpoint: needs.checkpoint, found: *next }))
    }

    /// Whether the WAL goes on to the minimum recovery point.
    fn minimum(&self, archive: &Archive, files: &Files<'_>, needs: &Needs, fmt: WalFormat, told: &Told) -> Option<Finding> {
        let (lsn, timeline) = needs.minimum?;
        let last = Lsn(lsn.0 - 1); // it is not zero
        let page = Lsn(last.0 - fmt.page_offset(last));
        let history = history_of(archive, timeline);
        let file = files.at(last.segment_number(fmt.segment_size), &history, timeline, archive)?;
        let header = front_at(archive, file, page);
        let is_there = header.is_some_and(|header| header.address == page && header.magic.major() == Some(fmt.major));
        if is_there || told.has(&(page..lsn)) {
            return None;
        }
        // Behind XLOG_SWITCH, the rest of a segment has no pages.
        let start = Lsn(lsn.0 - 1 - last.segment_offset(fmt.segment_size));
        let options = scan::Options { start: Some(start), end: None, threads: 1 };
        let position = scan(&archive.wal([file]), options, &Look, |_| ControlFlow::Continue(())).position;
        if position.is_some_and(|position| position >= lsn) {
            return None;
        }
        Some(of_file(file, position.unwrap_or(start).max(start), Class::EndsEarly { needed: lsn }, minimum_problem(needs), fmt))
    }

    /// Whether the WAL goes on to the end of the base backup that recovery starts from. C: "WAL ends before end of online backup".
    fn backup_end(&self, archive: &Archive, files: &Files<'_>, needs: &Needs, fmt: WalFormat, told: &Told) -> Option<Finding> {
        let control = self.control()?;
        let (start, by) = match self.label() {
            // One that was taken from a standby ends at the minimum recovery point; of others the server does not ask for the end.
            Some(label) => {
                let is_asked_for = label.method == Some(BackupMethod::Streamed) && label.from_standby != Some(true);
                (Some(label.start).filter(|_| is_asked_for)?, StartedBy::BackupLabel)
            }
            // A start that failed, or was stopped, after it had read the label.
            None => {
                let is_asked_for = control.backup_end_required && !control.backup_end.is_valid() && control.backup_start.is_valid();
                (Some(control.backup_start).filter(|_| is_asked_for)?, StartedBy::PgControl)
            }
        };
        let size = fmt.segment_size;
        let first = needs.redo.segment_number(size);
        let numbers = first..first.saturating_add(MOST_SEGMENTS);
        let chain: Vec<&ArchiveFile> = numbers.map_while(|number| files.at_or_after(number, needs.timeline, archive)).collect();
        let mut is_there = false;
        let options = scan::Options { start: Some(needs.redo), end: None, threads: 1 };
        let summary = scan(&archive.wal(chain.iter().copied()), options, &BackupEnds { start }, |part| {
            is_there |= part;
            if is_there { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let found = summary.position.unwrap_or(needs.redo);
        let number = found.segment_number(size);
        let rest = found..SegmentName::new(needs.timeline, number, size).start(size) + u64::from(size);
        if is_there || told.has(&rest) {
            return None;
        }
        let end = manifest_end(&self.path.join("backup_manifest"), start);
        let problem = ControlProblem::BackupEnd { start, end: end.map(|(_, end)| end), found, by };
        // Segments that are missing can be named where it is known how far they must go.
        let next = first.saturating_add(chain.len() as u64);
        let last = end.map(|(timeline, end)| (timeline, Lsn(end.0.saturating_sub(1)).segment_number(size)));
        if let Some((timeline, last)) = last.filter(|(_, last)| *last >= next) {
            let (first, last) = (SegmentName::new(timeline, next, size), SegmentName::new(timeline, last, size));
            let lsns = first.start(size)..last.start(size) + u64::from(size);
            return Some(missing_segments(first, last, lsns, problem));
        }
        let last = *chain.last()?;
        let file_at = |at: Lsn| at.segment_number(size).checked_sub(first).and_then(|at| chain.get(usize::try_from(at).ok()?)).copied();
        // At the end of the last file there is no byte to point at but its last.
        let before = Lsn(found.0.saturating_sub(1)).max(needs.redo);
        let (file, at) = file_at(found).map_or((file_at(before).unwrap_or(last), before), |file| (file, found));
        Some(of_file(file, at, Class::EndsEarly { needed: end.map_or(found, |(_, end)| end) }, problem, fmt))
    }

    /// A finding about `backup_label`.
    fn of_label(&self, problem: ControlProblem) -> Finding {
        let input = self.path.join("backup_label").display().to_string();
        let (class, problem) = (Class::TextFile, Some(Problem::Control(problem)));
        Finding { input, segment: None, offsets: None, lsns: None, record: None, class, problem, whole_copy: None }
    }

    /// A finding about `pg_control` itself.
    fn of_control(&self, problem: ControlProblem) -> Finding {
        let input = self.path.join("global/pg_control").display().to_string();
        let (class, problem) = (Class::ControlFile, Some(Problem::Control(problem)));
        Finding { input, segment: None, offsets: None, lsns: None, record: None, class, problem, whole_copy: None }
    }
}

fn format_of(control: &ControlFile, major: u8) -> WalFormat {
    let (wal_page_size, segment_size) = (control.wal_page_size, control.segment_size);
    WalFormat { major, wal_page_size, segment_size, block_size: control.block_size }
}

fn missing_segments(first: SegmentName, last: SegmentName, lsns: Range<Lsn>, problem: ControlProblem) -> Finding {
    Finding {
        input: first.to_string(),
        segment: Some(first),
        offsets: None,
        lsns: Some(lsns),
        record: None,
        class: Class::MissingSegment { first, last },
        problem: Some(Problem::Control(problem)),
        whole_copy: None,
    }
}

/// A segment that is not there but in a form that the server does not read.
fn not_plain(file: &ArchiveFile, size: u32) -> Option<Finding> {
    let name = file.segment()?.name;
    let start = name.start(size);
    let problem = ControlProblem::NotPlain { file: file.file().to_owned() };
    Some(missing_segments(name, name, start..start + u64::from(size), problem))
}

fn start_problem(needs: &Needs) -> ControlProblem {
    let Needs { checkpoint, redo, timeline, by, .. } = *needs;
    ControlProblem::StartsAt { checkpoint, redo, timeline, by }
}

fn minimum_problem(needs: &Needs) -> ControlProblem {
    let (needed, timeline) = needs.minimum.unwrap_or_default();
    ControlProblem::MinimumRecoveryPoint { needed, timeline }
}

/// A finding that begins at `lsn` in `file` and goes to its end.
fn of_file(file: &ArchiveFile, lsn: Lsn, class: Class, problem: ControlProblem, fmt: WalFormat) -> Finding {
    let size = u64::from(fmt.segment_size);
    let offset = lsn.segment_offset(fmt.segment_size);
    let lsns = lsn..lsn + (size - offset);
    let segment = file.segment().map(|segment| segment.name);
    let input = file.input.to_string();
    Finding {
        input,
        segment,
        offsets: Some(offset..size),
        lsns: Some(lsns),
        record: None,
        class,
        problem: Some(Problem::Control(problem)),
        whole_copy: None,
    }
}

/// Segments of the cluster that start as they should, by number and timeline.
struct Files<'a> {
    good: BTreeMap<(u64, TimelineId), &'a ArchiveFile>,
    /// All files with names of segments, likewise.
    named: BTreeMap<(u64, TimelineId), &'a ArchiveFile>,
    /// Those that the server does not read where they are, likewise.
    not_plain: BTreeMap<(u64, TimelineId), &'a ArchiveFile>,
    /// All segments in pg_wal are compressed.
    is_stored: bool,
}

impl<'a> Files<'a> {
    /// Inside the pg_wal of `cluster`, only those count that its server reads there: whole ones under the plain name.
    fn of(archive: &'a Archive, fmt: WalFormat, system_identifier: u64, cluster: &Cluster) -> Files<'a> {
        let mut files = Files { good: BTreeMap::new(), named: BTreeMap::new(), not_plain: BTreeMap::new(), is_stored: false };
        let pg_wal = fs::canonicalize(cluster.path.join("pg_wal")).ok();
        let mut folders: HashMap<&Path, bool> = HashMap::new();
        let mut is_in_pg_wal = |file: &'a ArchiveFile| {
            let Some(folder) = Path::new(&*file.input).parent() else { return false };
            *folders.entry(folder).or_insert_with(|| {
                let folder = if folder == Path::new("") { Path::new(".") } else { folder };
                pg_wal.is_some() && fs::canonicalize(folder).ok() == pg_wal
            })
        };
        let has_plain_name = |file: &ArchiveFile| file.file().len() == SegmentName::LEN;
        // Where all of them are compressed, somebody keeps a copy of the directory that way, and no server is to start on it as it is.
        let in_pg_wal = archive.segments().filter(|(file, segment)| segment.in_place().is_some() && is_in_pg_wal(file));
        let (packed, plain) = in_pg_wal.fold((0, 0), |(packed, plain), (file, _)| match has_plain_name(file) {
            true => (packed, plain + 1),
            false => (packed + 1, plain),
        });
        let is_stored = plain == 0 && packed > 1;
        files.is_stored = is_stored;
        for (file, segment) in archive.segments().filter(|(_, segment)| !segment.partial) {
            let place = (segment.name.number(fmt.segment_size), segment.name.timeline);
            files.named.entry(place).or_insert(file);
            let is_plain = has_plain_name(file) && file.len == u64::from(fmt.segment_size);
            if has_plain_name(file) && !is_plain && is_in_pg_wal(file) && file.plain_len() == Some(file.len) {
                // It has another length, which is told where it is.
                continue;
            }
            if !is_plain && !is_stored && segment.in_place().is_some() && is_in_pg_wal(file) {
                files.not_plain.entry(place).or_insert(file);
                continue;
            }
            if segment.in_place().is_some_and(|(own, _)| own.is_same_wal(fmt)) && of_cluster(file, system_identifier) {
                let best = files.good.entry(place).or_insert(file);
                if best.rank() < file.rank() {
                    *best = file;
                }
            }
        }
        files
    }

    /// The file with the name of this segment on a timeline of `history`, and what it has.
    fn named(&self, number: u64, size: u32, history: &History) -> Option<(&'a ArchiveFile, Hollow)> {
        let of_number = self.named.range((number, TimelineId::default())..=(number, TimelineId(u32::MAX)));
        let (place, file) = of_number.rev().find(|((_, timeline), _)| history.contains(*timeline))?;
        let segment = file.segment()?;
        if let Some(file) = self.not_plain.get(place) {
            return Some((*file, Hollow::NotPlain));
        }
        let hollow = match &segment.start {
            Start::NotWal(NotWal::Zeroed) => Hollow::Zeroed,
            Start::Page(_, header) if header.address < segment.name.start(size) => Hollow::Recycled(**header),
            _ => Hollow::Other,
        };
        Some((*file, hollow))
    }

    fn has(&self, number: u64, history: &History, timeline: TimelineId, archive: &Archive) -> bool {
        self.at(number, history, timeline, archive).is_some()
    }

    /// The file with this segment, or the newest of a timeline that descends from `timeline`, which recovery from there on reads.
    fn at_or_after(&self, number: u64, timeline: TimelineId, archive: &Archive) -> Option<&'a ArchiveFile> {
        self.at(number, &history_of(archive, timeline), timeline, archive)
    }

    /// As [`Files::named`], of `timeline` or the newest that descends from it.
    fn named_after(&self, number: u64, size: u32, timeline: TimelineId, archive: &Archive) -> Option<(&'a ArchiveFile, Hollow)> {
        let of_number = self.not_plain.range((number, TimelineId::default())..=(number, TimelineId(u32::MAX)));
        let newest = of_number.rev().map(|((_, timeline), _)| *timeline).map(|timeline| history_of(archive, timeline));
        let mut descended = newest.filter(|history| history.contains(timeline));
        self.named(number, size, &descended.next()?)
    }

    /// The file that a server on `timeline`, or one that descends from it, would read: the newest that can have this segment.
    fn at(&self, number: u64, history: &History, timeline: TimelineId, archive: &Archive) -> Option<&'a ArchiveFile> {
        let of_number = self.good.range((number, TimelineId::default())..=(number, TimelineId(u32::MAX)));
        let is_descended = |newer: TimelineId| history_of(archive, newer).contains(timeline);
        let mut newest_first = of_number.rev().filter(|((_, found), _)| history.contains(*found) || is_descended(*found));
        newest_first.next().map(|(_, file)| *file)
    }

    /// Where the WAL from `from` on ends before it comes to `needed`; from the start of the segment where the two are the same.
    fn end(&self, archive: &Archive, from: Lsn, needed: Lsn, history: &History, timeline: TimelineId, fmt: WalFormat) -> Option<Lsn> {
        let number = |lsn: Lsn| lsn.segment_number(fmt.segment_size);
        let from = if from < needed { from } else { Lsn(needed.0 - needed.segment_offset(fmt.segment_size)) };
        let numbers = number(from)..=number(needed).min(number(from).saturating_add(MOST_SEGMENTS));
        let chain = numbers.map_while(|number| self.at(number, history, timeline, archive));
        let options = scan::Options { start: Some(from), end: None, threads: 1 };
        let position = scan(&archive.wal(chain), options, &Nothing, |()| ControlFlow::Continue(())).position;
        // Where not one record is found, the start is all there is to say.
        Some(position.unwrap_or(from)).filter(|position| *position < needed)
    }

    /// The records from the one at or after `lsn` on, the first two, with what those of checkpoints say.
    fn read(&self, archive: &Archive, lsn: Lsn, history: &History, timeline: TimelineId, fmt: WalFormat) -> Vec<(Lsn, Option<Checkpoint>)> {
        let number = lsn.segment_number(fmt.segment_size);
        let file = |number| self.at(number, history, timeline, archive);
        let Some(first) = file(number) else { return Vec::new() };
        // A record there may end in the next one.
        let wal = archive.wal(std::iter::once(first).chain(file(number.saturating_add(1))));
        let mut records = Vec::new();
        let options = scan::Options { start: Some(lsn), end: None, threads: 1 };
        let _ = scan(&wal, options, &Look, |mut part| {
            records.append(&mut part);
            if records.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        records
    }
}

/// Whether the record is there that ends the backup with this redo point.
struct BackupEnds {
    start: Lsn,
}

impl Work for BackupEnds {
    type Part = bool;

    fn part(&self) -> Self::Part {
        false
    }

    fn record(&self, raw: &RawRecord<'_>, part: &mut Self::Part) -> Result<(), Error> {
        if raw.header.rmid == RmgrId::XLOG
            && let Some(Payload::Xlog(xlog::Op::BackupEnd { start })) = raw.decode().ok().and_then(|record| record.payload().ok()?)
        {
            *part |= start == self.start;
        }
        Ok(())
    }
}

/// Nothing of the records: where they end is asked for.
struct Nothing;

impl Work for Nothing {
    type Part = ();

    fn part(&self) -> Self::Part {}

    fn record(&self, _: &RawRecord<'_>, (): &mut Self::Part) -> Result<(), Error> {
        Ok(())
    }
}

/// The first two records of each part, with what those of checkpoints say.
struct Look;

impl Work for Look {
    type Part = Vec<(Lsn, Option<Checkpoint>)>;

    fn part(&self) -> Self::Part {
        Vec::new()
    }

    fn record(&self, raw: &RawRecord<'_>, part: &mut Self::Part) -> Result<(), Error> {
        if part.len() < 2 {
            part.push((raw.lsn, checkpoint(raw)));
        }
        Ok(())
    }
}

/// What a checkpoint's record says.
fn checkpoint(raw: &RawRecord<'_>) -> Option<Checkpoint> {
    if raw.header.rmid != RmgrId::XLOG {
        return None;
    }
    match raw.decode().ok()?.payload().ok()?? {
        Payload::Xlog(xlog::Op::CheckpointShutdown(checkpoint) | xlog::Op::CheckpointOnline(checkpoint)) => Some(checkpoint),
        _ => None,
    }
}

/// The header of the page at `page`, which lies in `file`.
fn front_at(archive: &Archive, file: &ArchiveFile, page: Lsn) -> Option<PageHeader> {
    let wal = archive.wal([file]);
    let extent = wal.extents_from(page, 1).map_while(Result::ok).find(|extent| extent.end() > page && extent.start <= page)?;
    let at = usize::try_from(page - extent.start).ok()?;
    PageHeader::read(extent.bytes().get(at..)?).ok().map(|(_, header)| header)
}

fn history_of(archive: &Archive, timeline: TimelineId) -> History {
    let file = archive.history(timeline).and_then(|(_, history)| history.as_ref().ok());
    file.cloned().unwrap_or_else(|| History::alone(timeline))
}

/// A file with the name of a segment, and without its WAL.
enum Hollow {
    Zeroed,
    Recycled(PageHeader),
    /// In a form that the server does not read in pg_wal.
    NotPlain,
    /// Something that has a finding of its own.
    Other,
}

/// Whether the segment has this system identifier.
fn of_cluster(file: &ArchiveFile, system_identifier: u64) -> bool {
    let header = file.segment().and_then(|segment| segment.in_place()).map(|(_, header)| header);
    header.and_then(|header| header.long).is_some_and(|long| long.system_identifier == system_identifier)
}

/// The data directory that `input` is, or whose pg_wal it is.
fn data_directory(input: &Path) -> Option<PathBuf> {
    if !input.is_dir() {
        return None;
    }
    let is_one = |dir: &Path| ["global/pg_control", "PG_VERSION"].iter().any(|file| dir.join(file).exists());
    let pg_wal = input.join("pg_wal");
    // It may be a link to a file system that is not mounted, or gone.
    if pg_wal.is_dir() || (!input.ends_with("pg_wal") && input.join("global/pg_control").exists() && input.join("PG_VERSION").exists()) {
        return is_one(input).then(|| input.to_owned());
    }
    let parent = match input.file_name() {
        // As the user knows it: it may be a link to elsewhere.
        Some(name) if name == "pg_wal" => match input.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        },
        _ => fs::canonicalize(input).ok().filter(|path| path.ends_with("pg_wal")).map(|_| input.join(".."))?,
    };
    is_one(&parent).then_some(parent)
}

/// `restart_lsn` in the state file of a replication slot, where its checksum is right and there is one. C: `ReplicationSlotOnDisk`,
/// replication/slot.c: magic, checksum, version, length, and then the slot, whose fields up to this one are the same in all majors.
fn slot_restart(bytes: &[u8]) -> Option<Lsn> {
    const MAGIC: u32 = 0x0105_1CA1;
    let u32_at = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let end = 16_usize.checked_add(usize::try_from(u32_at(12)?).ok()?)?;
    let is_right = u32_at(0)? == MAGIC && crc32c::crc32c(bytes.get(8..end)?) == u32_at(4)?;
    let restart = bytes.get(96..104).filter(|_| is_right)?.first_chunk().map(|bytes| Lsn(u64::from_le_bytes(*bytes)))?;
    restart.is_valid().then_some(restart)
}

/// The major version in the PG_VERSION at `path`; `None`: there is none. C: `ValidatePgVersion`, utils/init/miscinit.c.
fn read_version(path: &Path) -> Result<Option<u8>, String> {
    let bytes = match input_file::read(path, TEXT_LEN) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let digits = text.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    match digits.parse() {
        Ok(major) => Ok(Some(major)),
        Err(_) if digits.is_empty() => Err(format!("expected a version number, found {:?}", text.chars().take(20).collect::<String>())),
        Err(_) => Err(format!("expected the version number of a PostgreSQL release, found {digits}")),
    }
}

/// The text of a small file, where it is one.
fn read_text(path: &Path) -> Option<String> {
    String::from_utf8(input_file::read(path, TEXT_LEN).ok()?).ok()
}

/// The backup_label at `path`; `None`: there is none.
fn read_label(path: &Path) -> Result<Option<BackupLabel>, ControlProblem> {
    let text = match input_file::read(path, TEXT_LEN) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A server takes one that leads nowhere for none, and would start from a checkpoint that is not the backup's.
            let Ok(target) = fs::read_link(path) else { return Ok(None) };
            let what = NoFile::DanglingLink { target: target.to_string_lossy().into_owned() };
            return Err(ControlProblem::LabelUnreadable { reason: what.to_string() });
        }
        Err(e) => return Err(ControlProblem::LabelUnreadable { reason: e.to_string() }),
    };
    let label = BackupLabel::parse(&text).map_err(|error| ControlProblem::LabelInvalid { error })?;
    if label.stop.is_some() {
        // A backup history file under this name: the server wants the other line here.
        let kind = BackupLabelErrorKind::Key { expected: "CHECKPOINT LOCATION", found: "STOP WAL LOCATION".to_owned() };
        return Err(ControlProblem::LabelInvalid { error: BackupLabelError { line: 2, kind } });
    }
    Ok(Some(label))
}

/// The end of the backup that starts at `start`, and its timeline, by the last lines of its backup_manifest.
fn manifest_end(path: &Path, start: Lsn) -> Option<(TimelineId, Lsn)> {
    /// The ranges are the last but one thing in it; there is one for each timeline.
    const TAIL: u64 = 64 << 10;
    #[derive(Deserialize)]
    struct WalRange {
        #[serde(rename = "Timeline")]
        timeline: u32,
        #[serde(rename = "Start-LSN")]
        start: String,
        #[serde(rename = "End-LSN")]
        end: String,
    }
    let mut file = input_file::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let (_, ranges) = tail.rsplit_once("\"WAL-Ranges\":")?;
    let ranges = ranges.get(..=ranges.find(']')?)?;
    let ranges: Vec<WalRange> = serde_json::from_str(ranges).ok()?;
    let mut parsed = Vec::new();
    for range in ranges {
        parsed.push((TimelineId(range.timeline), range.start.parse::<Lsn>().ok()?, range.end.parse::<Lsn>().ok()?));
    }
    let is_ours = parsed.iter().any(|(_, from, _)| *from == start);
    let (timeline, _, end) = parsed.into_iter().max_by_key(|(_, _, end)| *end)?;
    is_ours.then_some((timeline, end))
}

/// Reads `pg_control`, again where a server has just written half of it. With the major that it is of.
fn read_control(file: &Path, major: Option<u8>) -> Result<(ControlFile, u8), ControlProblem> {
    let read = || -> Result<(ControlFile, u8), ControlProblem> {
        let mut bytes = Vec::new();
        let opened = input_file::open(file).and_then(|file| file.take(ControlFile::MAX_SIZE).read_to_end(&mut bytes));
        opened.map_err(|e: io::Error| ControlProblem::ControlUnreadable { reason: e.to_string() })?;
        let control = match major {
            Some(major) => ControlFile::read(&bytes, major),
            None => ControlFile::of_any_major(&bytes),
        };
        let control = control.map_err(|problem| ControlProblem::of(&problem, major))?;
        let of_catalog = crate::format::CATALOG_VERSIONS.iter().find(|row| row.1 == control.catalog_version).map(|row| row.0);
        Ok((control, major.or(of_catalog).unwrap_or_default()))
    };
    let mut last = read();
    for _ in 0..LOOKS {
        if !matches!(last, Err(ControlProblem::ControlChecksum { .. })) {
            break;
        }
        std::thread::sleep(PAUSE);
        let again = read();
        if again == last {
            break;
        }
        last = again;
    }
    last
}

/// Whether the process that `postmaster.pid` names is there.
fn is_running(data: &Path) -> bool {
    let pid = read_text(&data.join("postmaster.pid")).and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
    match pid {
        Some(pid) if cfg!(target_os = "linux") => Path::new("/proc").join(pid.to_string()).exists(),
        Some(_) => true,
        None => false,
    }
}

impl fmt::Display for StartedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartedBy::PgControl => "pg_control",
            StartedBy::BackupLabel => "backup_label",
        })
    }
}

impl ControlProblem {
    fn of(problem: &datadir::Problem, major: Option<u8>) -> ControlProblem {
        match *problem {
            datadir::Problem::Checksum { expected, found, .. } => ControlProblem::ControlChecksum { expected, found },
            datadir::Problem::Truncated { field, needed } => ControlProblem::ControlTruncated { field, needed },
            datadir::Problem::Value { field: "ControlFileData.pg_control_version", found, .. } if major.is_some() => {
                ControlProblem::ControlVersion { expected: major.unwrap_or_default(), found: u32::try_from(found).unwrap_or(u32::MAX) }
            }
            datadir::Problem::Value { field, expected, found } => ControlProblem::ControlValue { field, expected, found },
            ref other => ControlProblem::ControlUnreadable { reason: other.to_string() },
        }
    }
}

impl fmt::Display for ControlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlProblem::ControlUnreadable { reason } => write!(f, "{}", crate::printable::printable(reason)),
            ControlProblem::ControlChecksum { expected, found } => {
                write!(f, "ControlFileData.crc: the bytes have {expected:08X}, the file says {found:08X}")
            }
            ControlProblem::VersionUnreadable { reason } => write!(f, "{}", crate::printable::printable(reason)),
            ControlProblem::ControlVersion { expected, found } => {
                write!(f, "ControlFileData.pg_control_version: expected that of PostgreSQL {expected}, as PG_VERSION says, found {found}")
            }
            ControlProblem::ControlValue { field, expected, found } => write!(f, "{field}: expected {expected}, found {found}"),
            ControlProblem::ControlTruncated { field, needed } => {
                write!(f, "{field}: {needed} more byte{} needed", if *needed == 1 { "" } else { "s" })
            }
            ControlProblem::WalMajor { expected, found } => {
                write!(f, "the data directory is of PostgreSQL {expected}, the WAL in it of PostgreSQL {found}")
            }
            ControlProblem::StartsAt { checkpoint, redo, timeline, by } => {
                write!(f, "{by}: recovery starts at {redo} on timeline {timeline}, for the checkpoint at {checkpoint}")
            }
            ControlProblem::MinimumRecoveryPoint { needed, timeline } => {
                write!(
                    f,
                    "pg_control: recovery must reach {needed} on timeline {timeline} (minRecoveryPoint), as data files may be that new"
                )
            }
            ControlProblem::NoCheckpoint { checkpoint } => {
                write!(f, "pg_control says that its checkpoint is at {checkpoint}, but the record there is not a checkpoint")
            }
            ControlProblem::OtherCheckpoint { checkpoint, expected, found } => write!(
                f,
                "the checkpoint at {checkpoint} is not the one that pg_control has a copy of: expected redo {} on timeline {}, found redo {} \
                 on timeline {}, or another time",
                expected.0, expected.1, found.0, found.1
            ),
            ControlProblem::GoesOnAfterShutdown { checkpoint, found } => write!(
                f,
                "pg_control says that the server was shut down with the checkpoint at {checkpoint}, but the WAL goes on with a record at \
                 {found}: pg_control is older than pg_wal"
            ),
            ControlProblem::NotPlain { file } => {
                let file = crate::printable::printable(file);
                write!(f, "pg_wal has it as {file} only, and there the server reads no compressed segments, so recovery cannot read it")
            }
            ControlProblem::BackupEnd { start, end, found, by } => {
                write!(f, "{by}: recovery must reach the end of the base backup that starts at {start}")?;
                match end {
                    Some(end) => write!(f, ", which backup_manifest has at {end}, but the WAL ends at {found}"),
                    None => write!(f, ", but the WAL ends at {found} without the record of that end"),
                }
            }
            ControlProblem::LabelUnreadable { reason } => write!(f, "backup_label: {}", crate::printable::printable(reason)),
            ControlProblem::LabelInvalid { error } => write!(f, "backup_label: {error}"),
            ControlProblem::LabelIncremental { from } => write!(
                f,
                "backup_label: this is an incremental backup, on top of one that starts at {from}, and pg_combinebackup has to combine the two \
                 before a server can start"
            ),
            ControlProblem::NotOfStandby { found } => {
                write!(f, "backup_label says that the backup was taken from a standby, but pg_control says \"{found}\"")
            }
        }
    }
}
