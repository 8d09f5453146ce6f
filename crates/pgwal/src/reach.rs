//! Can I restore? Which files recovery takes to reach a place in the WAL, or the first one that it misses.
//!
//! It asks what a server in archive recovery asks: the history of the target timeline, then segment by segment the newest timeline that has
//! it, never an older one than before (C: `XLogFileReadAnyTLI`), every record with its checksum, the end of the base backup, and a place
//! to stop at.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use serde::Serialize;

use crate::backup_label::BackupLabel;
use crate::check::{Class, Finding};
use crate::error::Error;
use crate::format::WalFormat;
use crate::history::{self, History, HistoryError};
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::record::RawRecord;
use crate::rmgr::{Payload, RmgrId, xlog};
use crate::scan::{self, Stop, Summary, Work, scan};
use crate::set::{Owner, Set, owners};
use crate::source::{Archive, ArchiveFile};
use crate::text::Zone;
use crate::times;
use crate::types::TimestampTz;

/// Where recovery shall stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "target", content = "at", rename_all = "snake_case")]
pub enum Target {
    /// At the end of the WAL.
    Latest,
    /// Behind the first record that starts here or later. C: `recovery_target_lsn`, inclusive.
    Lsn(Lsn),
    /// Before the first commit or abort later than this. C: `recovery_target_time`, inclusive.
    Time(TimestampTz),
}

/// The timeline that recovery shall follow. C: `recovery_target_timeline`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetTimeline {
    /// The newest that the archive has history files up to, one after the other. The server's default from 12 on.
    #[default]
    Latest,
    /// That of the start. The server's default up to 11.
    Current,
    /// This one; its history file must be there.
    Id(TimelineId),
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where recovery shall stop.
    pub target: Target,
    /// The base backup to start from; `None`: from the oldest segment.
    pub backup: Option<&'a BackupLabel>,
    /// The timeline to follow.
    pub timeline: TargetTimeline,
    /// The cluster; `None`: that of most segments.
    pub system_identifier: Option<u64>,
    /// What checks of the same archive have found: recovery is not to run into it.
    pub findings: &'a [Finding],
    /// Threads to read with.
    pub threads: usize,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Where recovery shall stop.
    #[serde(flatten)]
    pub target: Target,
    /// The timeline it follows; `None`: it did not come so far.
    pub timeline: Option<TimelineId>,
    /// Where it starts.
    pub start: Option<Lsn>,
    /// LSN behind the record that ends the base backup; `None`: none is asked for, or it was not reached.
    pub backup_end: Option<Lsn>,
    /// Files that it takes, in order: history files, then segments; up to the obstacle, where there is one.
    pub files: Vec<String>,
    /// Whether it comes there.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Whether recovery comes to its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reach", rename_all = "snake_case")]
pub enum Outcome {
    /// It does.
    Yes {
        /// LSN behind the last record that is replayed.
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
    },
}

/// What is in the way of a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "obstacle", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Obstacle {
    /// No segment of the timeline or its ancestors is there.
    NoSegments,
    /// The segment that comes next is not there.
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
    /// The WAL ends before the target, in the middle of a segment.
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
    /// The timeline does not descend from where the recovery starts.
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
    /// The backup is incremental: pg_combinebackup has to put it together with the ones before it.
    Incremental,
    /// No checkpoint's record is where the backup label says, or it is of another one.
    NoCheckpoint {
        /// `CHECKPOINT LOCATION`.
        expected: Lsn,
    },
}

/// Text that is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTargetError(String);

impl fmt::Display for ParseTargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": expected latest, an LSN like 16/B374D848, or a time like 2026-11-23 05:17:00+00", self.0)
    }
}

impl std::error::Error for ParseTargetError {}

impl FromStr for Target {
    type Err = ParseTargetError;

    /// A time is what [`Zone::parse`] takes in the local zone.
    fn from_str(text: &str) -> Result<Target, ParseTargetError> {
        if text == "latest" {
            return Ok(Target::Latest);
        }
        if let Ok(lsn) = text.parse() {
            return Ok(Target::Lsn(lsn));
        }
        Zone::local().parse(text).map(Target::Time).map_err(|_| ParseTargetError(text.to_owned()))
    }
}

impl Reach {
    /// Whether recovery comes to its target.
    pub fn is_yes(&self) -> bool {
        matches!(self.outcome, Outcome::Yes { .. })
    }

    fn no(mut self, obstacle: Obstacle) -> Reach {
        self.outcome = Outcome::No { obstacle };
        self
    }
}

/// Answers the question for the files of `archive`, under any names that a `restore_command` can make the right ones of.
pub fn reach(archive: &Archive, request: Request<'_>) -> Reach {
    let outcome = Outcome::No { obstacle: Obstacle::NoSegments };
    let mut answer = Reach { target: request.target, timeline: None, start: None, backup_end: None, files: Vec::new(), outcome };
    let set = Set::of(archive, request.system_identifier);
    let Some(fmt) = set.fmt else { return answer };
    if request.backup.is_some_and(|label| label.incremental_from.is_some()) {
        return answer.no(Obstacle::Incremental);
    }
    let oldest = set.present().map(|(name, _)| name).min_by_key(|name| (name.log, name.seg, name.timeline));
    let Some(current) = request.backup.map(BackupLabel::timeline).or(oldest.map(|name| name.timeline)) else { return answer };
    let history = match target_history(archive, request.timeline, current, &mut answer.files) {
        Ok(history) => history,
        Err(obstacle) => return answer.no(obstacle),
    };
    answer.timeline = Some(history.timeline);
    let owners = owners(&history, fmt.segment_size);
    let start = match request.backup {
        Some(label) => {
            let expected = history.timeline_at(label.checkpoint);
            if expected != current {
                let (timeline, start) = (history.timeline, label.checkpoint);
                return answer.no(Obstacle::NotDescendant { timeline, start_timeline: current, expected, start });
            }
            label.start
        }
        None => {
            let number = |name: SegmentName| name.number(fmt.segment_size);
            let ours = set
                .present()
                .map(|(name, _)| name)
                .filter(|name| owners.iter().any(|o| o.timeline == name.timeline && o.has(number(*name))));
            match ours.min_by_key(|name| number(*name)) {
                Some(name) => name.start(fmt.segment_size),
                None => return answer,
            }
        }
    };
    answer.start = Some(start);
    let chain = Chain::find(&set, &history, &owners, start, fmt);
    answer.follow(archive, request, &chain, start)
}

/// The history that recovery follows; the files that it reads for that are added to `files`.
fn target_history(archive: &Archive, choice: TargetTimeline, current: TimelineId, files: &mut Vec<String>) -> Result<History, Obstacle> {
    let next = |timeline: TimelineId| TimelineId(timeline.0.saturating_add(1));
    let mut timeline = current;
    match choice {
        TargetTimeline::Current => {}
        // C: `findNewestTimeLine`: the first that is missing ends the search.
        TargetTimeline::Latest => {
            while let Some((file, _)) = archive.history(next(timeline)).filter(|_| timeline.0 < u32::MAX) {
                timeline = next(timeline);
                files.push(file.input.to_string());
            }
        }
        TargetTimeline::Id(id) => {
            timeline = id;
            if id > TimelineId(1) && archive.history(id).is_none() {
                return Err(Obstacle::NoHistory { file: history::file_name(id) });
            }
        }
    }
    match archive.history(timeline) {
        // The server looks for none of timeline 1, and takes a timeline without one for one without ancestors.
        None => Ok(History::alone(timeline)),
        Some(_) if timeline == TimelineId(1) => Ok(History::alone(timeline)),
        Some((file, history)) => {
            if files.last().is_none_or(|last| **last != *file.input) {
                files.push(file.input.to_string());
            }
            history.clone().map_err(|error| Obstacle::History { input: file.input.to_string(), error })
        }
    }
}

/// Segments that follow each other, as recovery takes them.
struct Chain<'a> {
    files: Vec<(SegmentName, &'a ArchiveFile)>,
    fmt: WalFormat,
    /// What comes next.
    missing: SegmentName,
    /// That segment under the name `.partial`.
    partial: Option<String>,
    /// Where the last file stops to count: the timeline that it is of was left there, and the newer one's copy is not there.
    limit: Option<Lsn>,
    /// Later segments of the history are there.
    gap: bool,
}

impl<'a> Chain<'a> {
    fn find(set: &Set<'a>, history: &History, owners: &[Owner], start: Lsn, fmt: WalFormat) -> Chain<'a> {
        let whole = |name| set.get(name).filter(|file| file.segment().is_some_and(|segment| !segment.partial));
        let mut files: Vec<(SegmentName, &ArchiveFile)> = Vec::new();
        let mut number = start.segment_number(fmt.segment_size);
        let (missing, limit) = loop {
            let name = |timeline| SegmentName::new(timeline, number, fmt.segment_size);
            let newest = files.last().map_or(TimelineId::default(), |(name, _)| name.timeline);
            let mut candidates =
                owners.iter().rev().filter(|owner| owner.first <= number && owner.timeline >= newest).map(|owner| owner.timeline);
            let Some(wanted) = candidates.clone().next().map(name) else { break (name(history.timeline), None) };
            // An older timeline's segment counts up to where that was left.
            let counts = |name: SegmentName| history.switch_point(name.timeline).is_none_or(|end| end > name.start(fmt.segment_size));
            let Some((found, file)) = candidates.find_map(|timeline| whole(name(timeline)).map(|file| (name(timeline), file))) else {
                break (wanted, None);
            };
            if !counts(found) {
                break (wanted, None);
            }
            files.push((found, file));
            if found != wanted {
                break (wanted, history.switch_point(found.timeline));
            }
            number = number.saturating_add(1);
        };
        let gap = owners.iter().any(|owner| {
            let is_later =
                |name: SegmentName| name.timeline == owner.timeline && name.number(fmt.segment_size) > missing.number(fmt.segment_size);
            set.present().any(|(name, _)| is_later(name) && owner.has(name.number(fmt.segment_size)))
        });
        let partial = set.get(missing).filter(|_| whole(missing).is_none()).map(|file| file.input.to_string());
        Chain { files, fmt, missing, partial, limit, gap }
    }

    /// The file that has `lsn`, and its place in the chain.
    fn at(&self, lsn: Lsn) -> Option<(usize, &'a ArchiveFile)> {
        let is_there = |name: &SegmentName| name.number(self.fmt.segment_size) == lsn.segment_number(self.fmt.segment_size);
        let at = self.files.iter().position(|(name, _)| is_there(name))?;
        self.files.get(at).map(|(_, file)| (at, *file))
    }

    fn missing(&self, end: Option<Lsn>) -> Obstacle {
        Obstacle::Missing { segment: self.missing, end, gap: self.gap, partial: self.partial.clone() }
    }
}

impl Reach {
    /// Reads the WAL of `chain` as recovery would.
    fn follow(mut self, archive: &Archive, request: Request<'_>, chain: &Chain<'_>, start: Lsn) -> Reach {
        if chain.files.is_empty() {
            return self.no(chain.missing(None));
        }
        let wal = archive.wal(chain.files.iter().map(|(_, file)| *file));
        let replay = Replay { target: request.target, label: request.backup };
        let options = scan::Options { start: request.backup.map(|_| start), end: chain.limit, threads: request.threads };
        let mut seen = Seen::default();
        let needs_backup_end = request.backup.is_some_and(BackupLabel::has_end_record);
        let summary = scan(&wal, options, &replay, |part: Seen| {
            seen.add(part);
            let has_start = seen.checkpoint.is_some() || request.backup.is_none();
            let is_done = seen.hit.is_some() && has_start && (seen.backup_end.is_some() || !needs_backup_end);
            if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.backup_end = seen.backup_end.map(|(_, end)| end);
        // Where a server would have stopped reading.
        let reached = match (&seen.hit, self.target) {
            (Some(hit), _) => Some(hit.end),
            (None, _) => seen.end,
        };
        if let Some((at, damaged)) = first_damage(chain, request.findings, reached.unwrap_or(Lsn(u64::MAX))) {
            self.files.extend(chain.files.iter().take(at + 1).map(|(_, file)| file.input.to_string()));
            return self.no(damaged);
        }
        let last = reached.and_then(|end| chain.at(Lsn(end.0.saturating_sub(1)))).map_or(chain.files.len(), |(at, _)| at + 1);
        self.files.extend(chain.files.iter().take(last).map(|(_, file)| file.input.to_string()));
        match self.judge(request, chain, &summary, &seen, needs_backup_end) {
            Ok(yes) => Reach { outcome: yes, ..self },
            Err(obstacle) => self.no(obstacle),
        }
    }

    fn judge(
        &self,
        request: Request<'_>,
        chain: &Chain<'_>,
        summary: &Summary,
        seen: &Seen,
        needs_backup_end: bool,
    ) -> Result<Outcome, Obstacle> {
        let stopped = || obstacle_of(chain, summary, seen);
        if let Some(label) = request.backup {
            match (summary.first, seen.checkpoint) {
                (None, _) => return Err(stopped()),
                (Some(first), _) if first != label.start => return Err(self.damaged_at(chain, label.start, "no record starts here")),
                (_, Some(redo)) if redo == label.start => {}
                (_, Some(_)) => return Err(Obstacle::NoCheckpoint { expected: label.checkpoint }),
                // A place that was read has another record, or none.
                (_, None) if seen.end.is_some_and(|end| end > label.checkpoint) => {
                    return Err(Obstacle::NoCheckpoint { expected: label.checkpoint });
                }
                (_, None) => return Err(stopped()),
            }
        }
        if let Some(hit) = &seen.hit {
            // A target LSN stops behind the record, a target time before it.
            let is_before = |end: Lsn| match self.target {
                Target::Time(_) => hit.lsn <= end,
                Target::Lsn(_) | Target::Latest => hit.lsn < end,
            };
            if request.backup.is_some_and(|label| is_before(label.checkpoint)) {
                return Err(Obstacle::BeforeConsistency { consistent: seen.backup_end.map(|(_, end)| end) });
            }
            if needs_backup_end && seen.backup_end.is_none_or(|(lsn, _)| is_before(lsn)) {
                return Err(Obstacle::BeforeConsistency { consistent: seen.backup_end.map(|(_, end)| end) });
            }
            let (end, last_transaction) = match self.target {
                Target::Time(_) => (hit.lsn, hit.before),
                Target::Lsn(_) | Target::Latest => (hit.end, hit.until),
            };
            // The oldest WAL does not go back so far.
            let first = summary.first.unwrap_or_default();
            return match self.target {
                Target::Time(_) if hit.before.is_none() && request.backup.is_none() => {
                    Err(Obstacle::BeforeConsistency { consistent: Some(first) })
                }
                Target::Lsn(lsn) if lsn < first => Err(Obstacle::BeforeConsistency { consistent: Some(first) }),
                _ => Ok(Outcome::Yes { end, last_transaction, partial: None }),
            };
        }
        let obstacle = stopped();
        let is_end = match &obstacle {
            Obstacle::End { .. } => !chain.gap,
            Obstacle::Missing { gap, .. } => !gap && chain.limit.is_none(),
            _ => false,
        };
        match (self.target, seen.end) {
            (Target::Latest, Some(end)) if is_end && (seen.backup_end.is_some() || !needs_backup_end) => {
                Ok(Outcome::Yes { end, last_transaction: seen.last_transaction, partial: chain.partial.clone() })
            }
            _ => Err(obstacle),
        }
    }

    fn damaged_at(&self, chain: &Chain<'_>, lsn: Lsn, reason: &str) -> Obstacle {
        let input = chain.at(lsn).map(|(_, file)| file.input.to_string()).unwrap_or_default();
        Obstacle::Damaged { input, lsn: Some(lsn), reason: reason.to_owned() }
    }
}

/// What stopped the reading of `chain`.
fn obstacle_of(chain: &Chain<'_>, summary: &Summary, seen: &Seen) -> Obstacle {
    let input = |lsn| chain.at(lsn).map(|(_, file)| file.input.to_string()).unwrap_or_default();
    match &summary.stop {
        Stop::Damage(error) => {
            let lsn = error.location().lsn;
            Obstacle::Damaged { input: input(lsn), lsn: Some(lsn), reason: error.kind().to_string() }
        }
        Stop::Source(error) => {
            let text = error.to_string();
            let reason = text.strip_prefix(&format!("{}: ", error.input)).unwrap_or(&text).to_owned();
            Obstacle::Damaged { input: error.input.clone(), lsn: None, reason }
        }
        Stop::Reached(_) | Stop::Enough => chain.missing(seen.end),
        Stop::End(end) => {
            // The records go on to the last byte, or end before it.
            let behind = chain.missing.start(chain.fmt.segment_size);
            match end.lsn >= behind || summary.position.is_some_and(|position| position >= behind) {
                true => chain.missing(seen.end),
                false => Obstacle::End { end: end.lsn, last_transaction: seen.last_transaction },
            }
        }
    }
}

/// The first finding that recovery would run into before `end`.
fn first_damage(chain: &Chain<'_>, findings: &[Finding], end: Lsn) -> Option<(usize, Obstacle)> {
    // What no server looks at, or what is about other files.
    let is_harmless = |class: &Class| {
        matches!(
            class,
            Class::NotZero | Class::AfterPacked { .. } | Class::DuplicateSegment { .. } | Class::MissingSegment { .. } | Class::TextFile
        )
    };
    let places: BTreeMap<&str, usize> = chain.files.iter().enumerate().map(|(at, (_, file))| (&*file.input, at)).collect();
    let place = |finding: &Finding| places.get(finding.input.as_str()).copied();
    let start = |finding: &Finding| finding.lsns.as_ref().map(|lsns| lsns.start);
    let damage = findings.iter().filter(|finding| !is_harmless(&finding.class) && start(finding).is_none_or(|lsn| lsn < end));
    let on_the_way = damage.filter_map(|finding| place(finding).map(|at| (at, finding)));
    let is_before_end = |at: usize| chain.files.get(at).is_some_and(|(name, _)| name.start(chain.fmt.segment_size) < end);
    let (at, finding) = on_the_way.filter(|(at, _)| is_before_end(*at)).min_by_key(|(at, finding)| (*at, start(finding)))?;
    let reason = match &finding.problem {
        Some(problem) => format!("{}; {problem}", finding.class),
        None => finding.class.to_string(),
    };
    Some((at, Obstacle::Damaged { input: finding.input.clone(), lsn: start(finding), reason }))
}

/// What recovery looks for in the records.
struct Replay<'a> {
    target: Target,
    label: Option<&'a BackupLabel>,
}

/// What was seen in some of the records, in their order.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The record to stop at.
    hit: Option<Hit>,
    /// Redo point of the checkpoint that the backup label names; invalid: another record is in its place.
    checkpoint: Option<Lsn>,
    /// Start and end of the record that ends the backup.
    backup_end: Option<(Lsn, Lsn)>,
    /// Time of the last commit or abort.
    last_transaction: Option<TimestampTz>,
    /// LSN behind the last record.
    end: Option<Lsn>,
}

#[derive(Clone, Copy, Debug)]
struct Hit {
    lsn: Lsn,
    end: Lsn,
    /// The last commit or abort before it.
    before: Option<TimestampTz>,
    /// The last one, itself included.
    until: Option<TimestampTz>,
}

impl Seen {
    /// Adds what was seen in the records behind.
    fn add(&mut self, behind: Seen) {
        if self.hit.is_none() {
            let known = self.last_transaction;
            self.hit = behind.hit.map(|hit| Hit { before: hit.before.or(known), until: hit.until.or(known), ..hit });
        }
        self.checkpoint = self.checkpoint.or(behind.checkpoint);
        self.backup_end = self.backup_end.or(behind.backup_end);
        self.last_transaction = behind.last_transaction.or(self.last_transaction);
        self.end = behind.end.or(self.end);
    }
}

impl Work for Replay<'_> {
    type Part = Seen;

    fn part(&self) -> Seen {
        Seen::default()
    }

    fn record(&self, raw: &RawRecord<'_>, part: &mut Seen) -> Result<(), Error> {
        // Like a server, which decodes a record before it asks what it is.
        let record = raw.decode()?;
        part.end = Some(raw.end);
        let before = part.last_transaction;
        let mut is_later = false;
        if raw.header.rmid == RmgrId::XACT
            && let Some(Payload::Transaction(op)) = record.payload()?
            && let Some(time) = times::ended(&op)
        {
            is_later = matches!(self.target, Target::Time(target) if time > target);
            part.last_transaction = Some(time);
        }
        if matches!(self.target, Target::Lsn(target) if raw.lsn >= target) || is_later {
            part.hit.get_or_insert(Hit { lsn: raw.lsn, end: raw.end, before, until: part.last_transaction });
        }
        let Some(label) = self.label else { return Ok(()) };
        if raw.lsn == label.checkpoint {
            part.checkpoint = Some(Lsn::INVALID);
        }
        if raw.header.rmid == RmgrId::XLOG {
            match record.payload()? {
                Some(Payload::Xlog(xlog::Op::CheckpointOnline(checkpoint) | xlog::Op::CheckpointShutdown(checkpoint)))
                    if raw.lsn == label.checkpoint =>
                {
                    part.checkpoint = Some(checkpoint.redo);
                }
                Some(Payload::Xlog(xlog::Op::BackupEnd { start })) if start == label.start => {
                    part.backup_end.get_or_insert((raw.lsn, raw.end));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => write!(f, "the end of the WAL"),
            Target::Lsn(lsn) => lsn.fmt(f),
            Target::Time(time) => time.fmt(f),
        }
    }
}

/// The answer in one or two sentences; the files are not in it.
impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Yes { end, last_transaction, partial } => {
                write!(f, "yes: recovery")?;
                if let Some(start) = self.start {
                    write!(f, " from {start}")?;
                }
                if let Some(timeline) = self.timeline {
                    write!(f, " along timeline {timeline}")?;
                }
                write!(f, " comes to {} and ends at {end}", self.target)?;
                if let Some(time) = last_transaction {
                    write!(f, "; the last transaction ended at {time}")?;
                }
                match partial {
                    Some(partial) => write!(f, ". {partial} has more: give a copy of it the name without .partial to go on"),
                    None => Ok(()),
                }
            }
            Outcome::No { obstacle } => write!(f, "no: recovery does not come to {}: {obstacle}", self.target),
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
                    write!(f, ", and later segments are there")?;
                }
                if let Some(end) = end {
                    write!(f, "; the records before it end at {end}")?;
                }
                match partial {
                    Some(partial) => write!(f, ". There is {partial}: give a copy of it the name without .partial to use it"),
                    None => Ok(()),
                }
            }
            Obstacle::Damaged { input, lsn: Some(lsn), reason } => write!(f, "{input} is damaged at {lsn}: {reason}"),
            Obstacle::Damaged { input, lsn: None, reason } => write!(f, "{input} is damaged: {reason}"),
            Obstacle::End { end, last_transaction: Some(time) } => write!(f, "the WAL ends at {end}; the last transaction ended at {time}"),
            Obstacle::End { end, last_transaction: None } => write!(f, "the WAL ends at {end}"),
            Obstacle::NoHistory { file } => {
                write!(f, "{file} is missing: the server follows a timeline only where its history file is there")
            }
            Obstacle::History { input, error } => write!(f, "{input} is damaged: {error}"),
            Obstacle::NotDescendant { timeline, start_timeline, expected, start } => {
                write!(f, "timeline {timeline} does not go back to {start} on timeline {start_timeline}: there it has timeline {expected}")
            }
            Obstacle::BeforeConsistency { consistent: Some(lsn) } => write!(f, "there is no consistent state before {lsn}"),
            Obstacle::BeforeConsistency { consistent: None } => {
                write!(f, "the state is not consistent there: the end of the base backup comes later, and is not in this WAL")
            }
            Obstacle::Incremental => write!(f, "the backup is incremental: pg_combinebackup has to put it together with those before it"),
            Obstacle::NoCheckpoint { expected } => write!(f, "the backup's checkpoint is not at {expected}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let time = |text: &str| match text.parse() {
            Ok(Target::Time(time)) => time.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!("latest".parse(), Ok(Target::Latest));
        assert_eq!("0/3000148".parse(), Ok(Target::Lsn(Lsn(0x300_0148))));
        let expected = "2026-11-23T05:17:00.500000Z";
        for text in ["2026-11-23 05:17:00.5+00", "2026-11-23T05:17:00.5Z", "2026-11-23 06:17:00.5+01:00", "2026-11-23 05:17:00.5 UTC"] {
            assert_eq!(time(text), expected, "{text}");
        }
        for text in ["", "yesterday", "05:17", "3000148", "2026-13-01 00:00:00Z"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
