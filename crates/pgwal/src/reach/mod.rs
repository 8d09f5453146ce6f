//! Can I restore? Which files recovery takes to reach a place in the WAL, or the first thing that is in its way.
//!
//! It asks what a server in archive recovery asks: the history of the target timeline, then segment by segment the newest timeline that has
//! it, never an older one than before (C: `XLogFileReadAnyTLI`), every record with its checksum, the place from which the base backup is
//! consistent, and a place to stop at. What stops a server in between (`wal_level = minimal`, a file of the wrong size) stops it here, and what
//! it needs besides the files is told. C: access/transam/xlogrecovery.c (xlog.c up to 14).

mod answer;
mod chain;
mod target;
mod walk;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

pub use answer::{Caveat, Doubt, HowFar, Obstacle, Outcome, Place, Reach};
pub use target::{ParseTargetError, Target};

use self::chain::{Bad, BadFile, Chain, Sources, known_end, target_history};
use self::walk::{Mark, Replay, SETTINGS, Seen};
use crate::backup_label::BackupMethod;
use crate::base_backup::{BackupName, BaseBackup};
use crate::check::{Class, Finding, Problem};
use crate::datadir::ControlFile;
use crate::frame::EndReason;
use crate::history::{self, History};
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::scan::{self, Summary, scan};
use crate::set::{Set, owners};
use crate::source::{Archive, ArchiveFile, SourceProblem};
use crate::types::TimestampTz;

/// The timeline that recovery shall follow. C: `recovery_target_timeline`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetTimeline {
    /// What a server does that is told nothing: `Latest` from 12 on, `Current` before.
    #[default]
    ByVersion,
    /// The newest that the archive has history files up to, one after the other.
    Latest,
    /// That of the start.
    Current,
    /// This one; its history file must be there.
    Id(TimelineId),
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where recovery shall stop.
    pub target: &'a Target,
    /// Whether a record at the target itself is replayed. C: `recovery_target_inclusive`.
    pub inclusive: bool,
    /// The base backup to start from; `None`: the newest in the archive that reaches the target, or else the oldest segment.
    pub backup: Option<&'a BaseBackup>,
    /// The timeline to follow.
    pub timeline: TargetTimeline,
    /// The cluster; `None`: that of the backup, or of most segments.
    pub system_identifier: Option<u64>,
    /// What checks of the same archive have found: recovery is not to run into it.
    pub findings: &'a [Finding],
    /// Threads to read with.
    pub threads: usize,
}

/// Answers the question for the files of `archive`, under any names that a `restore_command` can make the right ones of.
pub fn reach(archive: &Archive, request: Request<'_>) -> Reach {
    if let Some(backup) = request.backup {
        return attempt(archive, request, Some(backup), false);
    }
    let mut refused: Vec<Reach> = Vec::new();
    for backup in BaseBackup::in_archive(archive) {
        let answer = attempt(archive, request, Some(&backup), true);
        if answer.is_yes() || !an_older_backup_may_do(&answer) {
            return answer;
        }
        refused.push(answer);
    }
    // The oldest that is too new says most.
    let is_too_new = |answer: &Reach| {
        matches!(answer.outcome, Outcome::No { obstacle: Obstacle::BeforeConsistency { .. } | Obstacle::BeforeBackup { .. }, .. })
    };
    match refused.iter().rposition(is_too_new).or(if refused.is_empty() { None } else { Some(0) }) {
        Some(at) => refused.swap_remove(at),
        None => attempt(archive, request, None, false),
    }
}

/// Whether what stands in the way is the backup, or comes before anything that tells about the target.
fn an_older_backup_may_do(answer: &Reach) -> bool {
    match &answer.outcome {
        Outcome::Yes { .. } => false,
        Outcome::Unknown { doubt, .. } => matches!(doubt, Doubt::Consistency { .. }),
        Outcome::No { obstacle, how_far } => match obstacle {
            Obstacle::BeforeConsistency { .. }
            | Obstacle::BeforeBackup { .. }
            | Obstacle::NotDescendant { .. }
            | Obstacle::NoCheckpoint { .. }
            | Obstacle::Incremental
            | Obstacle::ForeignBackup { .. }
            | Obstacle::LabelContradictsControl { .. } => true,
            Obstacle::End { .. } if matches!(answer.target, Target::Xid(_) | Target::Name(_)) => true,
            _ => how_far.as_ref().is_none_or(|how_far| how_far.last_transaction.is_none()),
        },
    }
}

/// Where recovery stops: LSN after the last record that is replayed, and after the last one that is read.
#[derive(Clone, Copy, Debug)]
struct Stop {
    end: Lsn,
    read: Lsn,
    last_transaction: Option<TimestampTz>,
}

/// What must have been replayed before the state is consistent. C: `CheckRecoveryConsistency`.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Nothing.
    None,
    /// The record that ends the backup which started at `end_of`, if one is given, and WAL up to `minimum`.
    Known { end_of: Option<Lsn>, minimum: Lsn },
    /// Nobody knows; WAL up to here is enough.
    Unknown { at_latest: Option<Lsn> },
    /// A server that was running, without its own WAL: it does not start.
    Crashed,
}

/// Where the state is consistent.
#[derive(Clone, Copy, Debug)]
enum Consistent {
    /// From the start.
    Always,
    /// From the end of this record on.
    From(Mark),
    /// Nowhere in what was read.
    NotReached,
    /// That is not known; at this place it is.
    Unknown { at_latest: Option<Lsn> },
}

impl Rule {
    fn of(backup: Option<&BaseBackup>, request: Request<'_>) -> Rule {
        let Some(backup) = backup else { return Rule::None };
        let at_latest = backup.manifest.and_then(|manifest| manifest.end);
        let minimum = backup.control.map(|control| control.min_recovery_point).unwrap_or_default();
        match (&backup.label, &backup.control) {
            (Some(label), _) if label.has_end_record() => Rule::Known { end_of: Some(label.start), minimum },
            (Some(_), Some(_)) => Rule::Known { end_of: None, minimum },
            (Some(_), None) => Rule::Unknown { at_latest },
            (None, Some(control)) => {
                let minimum = minimum.max(control.backup_end);
                if control.backup_end_required {
                    Rule::Known { end_of: Some(control.backup_start), minimum }
                } else if minimum.is_valid() || control.state.is_shut_down() {
                    Rule::Known { end_of: None, minimum }
                } else {
                    // After a crash, all WAL in its own pg_wal is replayed before the archive is asked, and it is consistent after that.
                    match end_of_own_wal(backup, request) {
                        Some(minimum) => Rule::Known { end_of: None, minimum },
                        None => Rule::Crashed,
                    }
                }
            }
            (None, None) => Rule::None,
        }
    }

    fn judge(&self, seen: &Seen, start: Lsn) -> Consistent {
        match *self {
            Rule::None => Consistent::Always,
            Rule::Crashed => Consistent::NotReached,
            Rule::Unknown { at_latest } => Consistent::Unknown { at_latest },
            Rule::Known { end_of, minimum } => {
                let needs_minimum = minimum > start;
                let marks = (end_of.map(|_| seen.backup_end), needs_minimum.then_some(seen.minimum));
                match marks {
                    (None, None) => Consistent::Always,
                    (Some(None), _) | (_, Some(None)) => Consistent::NotReached,
                    (Some(Some(mark)), None) | (None, Some(Some(mark))) => Consistent::From(mark),
                    (Some(Some(a)), Some(Some(b))) => Consistent::From(if a.end < b.end { b } else { a }),
                }
            }
        }
    }
}

/// Where the WAL ends that a data directory has of its own; `None`: the record of its checkpoint is not in it.
fn end_of_own_wal(backup: &BaseBackup, request: Request<'_>) -> Option<Lsn> {
    let own = backup.wal.as_ref()?;
    let id = backup.system_identifier();
    let sources = Sources::new(own, None, id)?;
    let (start, timeline) = (backup.start()?, backup.newest_timeline()?);
    let history = target_history(own, None, TargetTimeline::Current, timeline, &mut Vec::new()).ok()?;
    let chain = Chain::find(&sources, &history, &owners(&history, sources.fmt.segment_size), start, None);
    if chain.files.is_empty() {
        return None;
    }
    let wal = sources.wal(chain.files.iter().map(|(_, file)| *file));
    let replay = Replay {
        target: &Target::Latest,
        inclusive: true,
        checkpoint: None,
        from: start,
        backup_start: None,
        minimum: None,
        history: &history,
    };
    let mut end = None;
    let options = scan::Options { start: Some(start), end: chain.limit, threads: request.threads };
    let _ = scan(&wal, options, &replay, |part: Seen| {
        end = part.end.or(end);
        ControlFlow::Continue(())
    });
    end.filter(|end| backup.checkpoint().is_some_and(|checkpoint| checkpoint < *end))
}

/// Asks for one backup, or for none.
fn attempt(archive: &Archive, request: Request<'_>, backup: Option<&BaseBackup>, found: bool) -> Reach {
    let mut answer = Reach {
        target: request.target.clone(),
        inclusive: request.inclusive,
        backup: backup.map(|backup| BackupName::of(backup, found)),
        timeline: None,
        start: backup.and_then(BaseBackup::start),
        backup_end: None,
        consistent: None,
        files: Vec::new(),
        caveats: Vec::new(),
        outcome: Outcome::No { obstacle: Obstacle::NoSegments, how_far: None },
    };
    let of_backup = backup.and_then(BaseBackup::system_identifier);
    if let Some(obstacle) = foreign(archive, request.system_identifier, of_backup).or_else(|| backup.and_then(refused)) {
        return answer.no(obstacle, None);
    }
    // Where nobody says which cluster is meant, it is that of most segments.
    let id = of_backup.or(request.system_identifier).or_else(|| Set::of(archive, None).system_identifier);
    let Some(sources) = Sources::new(archive, backup, id) else { return answer };
    let fmt = sources.fmt;
    if stops_at_minimal(fmt.major) && backup.and_then(|backup| backup.control).is_some_and(|control| is_minimal(&control)) {
        return answer.no(Obstacle::MinimalWal { lsn: None }, None);
    }
    let oldest = sources.present().min_by_key(|name| (name.log, name.seg, name.timeline));
    let Some(current) = backup.and_then(BaseBackup::newest_timeline).or(oldest.map(|name| name.timeline)) else { return answer };
    let choice = match request.timeline {
        TargetTimeline::ByVersion if fmt.since(12) => TargetTimeline::Latest,
        TargetTimeline::ByVersion => TargetTimeline::Current,
        choice => choice,
    };
    let history = match target_history(archive, backup, choice, current, &mut answer.files) {
        Ok(history) => history,
        Err(obstacle) => return answer.no(obstacle, None),
    };
    answer.timeline = Some(history.timeline);
    if let Some(obstacle) = backup.and_then(|backup| not_in_history(backup, &history)) {
        return answer.no(obstacle, None);
    }
    let owners = owners(&history, fmt.segment_size);
    let number = |name: SegmentName| name.number(fmt.segment_size);
    let start = match backup.and_then(BaseBackup::start) {
        Some(start) => start,
        None => {
            let ours = sources.present().filter(|name| owners.iter().any(|o| o.timeline == name.timeline && o.has(number(*name))));
            match ours.min_by_key(|name| number(*name)) {
                Some(name) => name.start(fmt.segment_size),
                None => return answer,
            }
        }
    };
    answer.start = Some(start);
    if choice == TargetTimeline::Latest {
        let newer = sources.present().map(|name| name.timeline).filter(|timeline| *timeline > history.timeline).min();
        let next = TimelineId(history.timeline.0.saturating_add(1));
        answer.caveats.extend(newer.map(|timeline| Caveat::NotFollowed { timeline, file: history::file_name(next) }));
    }
    let chain = Chain::find(&sources, &history, &owners, start, known_end(backup));
    let rule = Rule::of(backup, request);
    if let (Rule::Crashed, Some(checkpoint)) = (rule, backup.and_then(BaseBackup::checkpoint)) {
        let timeline = backup.and_then(BaseBackup::timeline).unwrap_or(current);
        let segment = SegmentName::new(timeline, checkpoint.segment_number(fmt.segment_size), fmt.segment_size);
        return answer.no(Obstacle::NoOwnWal { checkpoint, segment }, None);
    }
    Attempt { request, backup, sources, rule, start, chain, history }.run(answer)
}

/// Whether backup and WAL are of different clusters.
fn foreign(archive: &Archive, asked: Option<u64>, of_backup: Option<u64>) -> Option<Obstacle> {
    let found = of_backup?;
    let different = |expected: u64| (expected != found).then_some(Obstacle::ForeignBackup { expected, found });
    if let Some(asked) = asked {
        return different(asked);
    }
    // Where clusters are mixed, the backup says which one is meant.
    let has_own = Set::of(archive, Some(found)).present().next().is_some();
    let others = Set::of(archive, None).system_identifier.filter(|_| !has_own);
    others.and_then(different)
}

/// What a server refuses of the backup itself.
fn refused(backup: &BaseBackup) -> Option<Obstacle> {
    let label = backup.label.as_ref();
    if label.is_some_and(|label| label.incremental_from.is_some()) {
        return Some(Obstacle::Incremental);
    }
    let control = backup.control.as_ref()?;
    let is_of_standby = label.is_some_and(|label| label.from_standby == Some(true) && label.stop.is_none());
    (is_of_standby && !control.state.is_in_archive_recovery()).then(|| Obstacle::LabelContradictsControl { state: control.state.name() })
}

fn is_minimal(control: &ControlFile) -> bool {
    control.settings.wal_level.name() == "minimal"
}

/// Whether a server stops where wal_level was minimal. C: `CheckRequiredParameterValues`.
fn stops_at_minimal(major: u8) -> bool {
    major >= 14
}

/// Whether the backup is not on the timeline that is followed.
fn not_in_history(backup: &BaseBackup, history: &History) -> Option<Obstacle> {
    let checkpoint = backup.checkpoint().zip(backup.timeline());
    let minimum = backup.control.filter(|control| control.min_recovery_point.is_valid());
    let minimum = minimum.map(|control| (Lsn(control.min_recovery_point.0 - 1), control.min_recovery_timeline)); // it is not 0
    checkpoint.into_iter().chain(minimum).find_map(|(start, start_timeline)| {
        let expected = history.timeline_at(start);
        (expected != start_timeline).then_some(Obstacle::NotDescendant { timeline: history.timeline, start_timeline, expected, start })
    })
}

/// One way from a backup to the target.
struct Attempt<'a> {
    request: Request<'a>,
    backup: Option<&'a BaseBackup>,
    sources: Sources<'a>,
    rule: Rule,
    start: Lsn,
    chain: Chain<'a>,
    history: History,
}

impl<'a> Attempt<'a> {
    /// Reads the WAL as recovery would.
    fn run(mut self, mut answer: Reach) -> Reach {
        let (summary, seen) = loop {
            if self.chain.files.is_empty() {
                let obstacle = self.obstacle_behind(None, None, false);
                return match obstacle {
                    Ok(obstacle) => self.no(answer, obstacle, None, false),
                    Err(doubt) => self.unknown(answer, doubt, None),
                };
            }
            let (summary, seen) = self.walk(self.chain.limit);
            // What does not unpack to its end is no file to a server: only what comes before it counts.
            match self.broken_file(&summary, &seen) {
                Some((at, why)) => self.chain.cut(at, why),
                None => break (summary, seen),
            }
        };
        answer.backup_end = seen.backup_end.map(|mark| mark.end).filter(|_| self.is_end_recorded());
        let consistent = self.rule.judge(&seen, self.start);
        if let Consistent::From(mark) = consistent {
            answer.consistent = Some(Place { lsn: mark.end, last_transaction: mark.until });
        }
        let stop = self.stop(&seen, consistent);
        let reached = stop.map(|stop| stop.read).or(seen.end);
        if let Some((at, damaged, lsn)) = first_damage(&self.chain, self.request.findings, self.start, reached.unwrap_or(Lsn(u64::MAX))) {
            let before = lsn.map(|lsn| self.walk(Some(lsn)).1);
            let place = before.and_then(|seen| Some((seen.end?, seen.last_transaction)));
            answer.files.extend(self.chain.files.iter().take(at + 1).map(|(_, file)| file.input.to_string()));
            let opens = place.is_some_and(|(end, _)| self.opens(consistent, end));
            let name = self.chain.files.get(at).map(|(name, _)| *name);
            return self.no_at(answer, damaged, place, opens, name);
        }
        let last = reached.and_then(|end| self.chain.at(Lsn(end.0.saturating_sub(1)))).map_or(self.chain.files.len(), |(at, _)| at + 1);
        answer.files.extend(self.chain.files.iter().take(last).map(|(_, file)| file.input.to_string()));
        let answer = self.judge(answer, &summary, &seen, consistent, stop);
        let answer = self.without_strays(answer, &seen);
        self.with_minimal(answer, &seen)
    }

    /// A server stops at a record that goes over to a timeline which is not in the history that it follows: the segments are those of another
    /// timeline, whatever their names say. C: `checkTimeLineSwitch`.
    fn without_strays(&self, answer: Reach, seen: &Seen) -> Reach {
        let &Outcome::Yes { end, .. } = &answer.outcome else { return answer };
        let Some((mark, timeline)) = seen.strayed.filter(|(mark, _)| mark.lsn < end) else { return answer };
        let input = self.chain.at(mark.lsn).map(|(_, file)| file.input.to_string()).unwrap_or_default();
        let reason = format!("it goes over to timeline {timeline}, which is not in the history of timeline {}", self.history.timeline);
        self.no(answer, Obstacle::Damaged { input, lsn: Some(mark.lsn), reason }, Some((mark.lsn, mark.before)), false)
    }

    /// Before 14 a server with hot_standby off only warns of WAL that was written with wal_level=minimal, and opens with data missing.
    fn with_minimal(&self, answer: Reach, seen: &Seen) -> Reach {
        let &Outcome::Yes { end, last_transaction, .. } = &answer.outcome else { return answer };
        let was_minimal = self.backup.and_then(|backup| backup.control).is_some_and(|control| is_minimal(&control));
        let lsn = seen.minimal.filter(|mark| mark.end <= end).map(|mark| mark.lsn);
        if !was_minimal && lsn.is_none() {
            return answer;
        }
        let lsn = lsn.filter(|_| !was_minimal);
        self.no(answer, Obstacle::MinimalWal { lsn }, Some((end, last_transaction)), true)
    }

    fn is_end_recorded(&self) -> bool {
        matches!(self.rule, Rule::Known { end_of: Some(_), .. })
    }

    /// Reads the records until all is known, or up to `end`.
    fn walk(&self, end: Option<Lsn>) -> (Summary, Seen) {
        self.walk_files(end, &[])
    }

    /// The same, through the files of `beyond` after the chain's own.
    fn walk_files(&self, end: Option<Lsn>, beyond: &[(SegmentName, &'a ArchiveFile)]) -> (Summary, Seen) {
        let wal = self.sources.wal(self.chain.files.iter().chain(beyond).map(|(_, file)| *file));
        let checkpoint = self.backup.and_then(BaseBackup::checkpoint);
        // The record of a checkpoint without WAL of its own is read, and replay continues after it.
        let from = checkpoint.filter(|checkpoint| *checkpoint == self.start).map_or(Lsn::INVALID, |checkpoint| checkpoint + 1);
        let (backup_start, minimum) = match self.rule {
            Rule::Known { end_of, minimum } => (end_of, Some(minimum)),
            _ => (None, None),
        };
        let Request { target, inclusive, threads, .. } = self.request;
        let replay = Replay { target, inclusive, checkpoint, from, backup_start, minimum, history: &self.history };
        let options = scan::Options { start: self.backup.map(|_| self.start), end, threads };
        let mut seen = Seen::default();
        let summary = scan(&wal, options, &replay, |part: Seen| {
            seen.add(part);
            let consistent = self.rule.judge(&seen, self.start);
            let has_start = seen.checkpoint.is_some() || checkpoint.is_none();
            let is_known = !matches!(consistent, Consistent::NotReached);
            let is_done = has_start && is_known && self.stop(&seen, consistent).is_some();
            if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (summary, seen)
    }

    /// Where the target has recovery stop.
    fn stop(&self, seen: &Seen, consistent: Consistent) -> Option<Stop> {
        if *self.request.target != Target::Immediate {
            return seen.stop(self.request.target, self.request.inclusive);
        }
        if self.takes_start_for_end() {
            return seen.first.map(|first| Stop { end: first, read: first + 1, last_transaction: None });
        }
        // Whether the state is consistent is asked before the next record, or after the end of a transaction.
        match consistent {
            Consistent::Always => seen.first.map(|first| Stop { end: first, read: first + 1, last_transaction: None }),
            Consistent::From(mark) => {
                let is_asked = mark.ends_transaction || seen.end.is_some_and(|end| end > mark.end);
                is_asked.then_some(Stop { end: mark.end, read: mark.end, last_transaction: mark.until })
            }
            Consistent::NotReached | Consistent::Unknown { .. } => None,
        }
    }

    /// Whether `immediate` stops recovery right at its start: from 15 on, if the label does not say that the backup was streamed. The server
    /// then finds that the backup has not ended. C: `backupEndRequired` in `CheckRecoveryConsistency`.
    fn takes_start_for_end(&self) -> bool {
        let label = self.backup.and_then(|backup| backup.label.as_ref()).filter(|label| label.has_end_record() && label.stop.is_none());
        self.sources.fmt.since(15) && label.is_some_and(|label| label.method != Some(BackupMethod::Streamed))
    }

    /// The first file that turned out not to be readable to its end, and why.
    fn broken_file(&self, summary: &Summary, seen: &Seen) -> Option<(usize, String)> {
        let place = |input: &str| self.chain.files.iter().position(|(_, file)| *file.input == *input);
        if let scan::Stop::Source(error) = &summary.stop {
            let is_of_file = matches!(error.problem, SourceProblem::CutShort { .. } | SourceProblem::Unpack(_) | SourceProblem::Io(_));
            return place(&error.input).filter(|_| is_of_file && !self.chain.is_short(&error.input)).map(|at| (at, what_is_wrong(error)));
        }
        // Nobody has read the last file to its end.
        let stop = self.stop(seen, self.rule.judge(seen, self.start))?;
        let (at, file) = self.chain.at(Lsn(stop.read.0.saturating_sub(1)))?;
        if file.plain_len().is_some() {
            return None;
        }
        let wal = self.sources.wal([file]);
        let mut extents = wal.extents(1 << 20);
        let error = std::iter::from_fn(|| extents.next()).find_map(Result::err)?;
        Some((at, what_is_wrong(&error)))
    }

    fn judge(&self, mut answer: Reach, summary: &Summary, seen: &Seen, consistent: Consistent, stop: Option<Stop>) -> Reach {
        let place = seen.end.map(|end| (end, seen.last_transaction));
        let is_cut = matches!(summary.stop, scan::Stop::End(end) if matches!(end.reason, EndReason::Unfinished { .. }));
        let behind = || self.obstacle_behind(Some(summary), Some(seen), is_cut);
        if let Some(checkpoint) = self.backup.and_then(BaseBackup::checkpoint) {
            match (summary.first, seen.checkpoint) {
                (None, _) => return self.refuse(answer, behind(), None, false),
                (Some(first), _) if first != self.start => {
                    let input = self.chain.at(self.start).map(|(_, file)| file.input.to_string()).unwrap_or_default();
                    let reason = "no record starts here".to_owned();
                    return self.no(answer, Obstacle::Damaged { input, lsn: Some(self.start), reason }, None, false);
                }
                (_, Some(redo)) if redo == self.start => {}
                (_, Some(_)) => return self.no(answer, Obstacle::NoCheckpoint { expected: checkpoint }, None, false),
                // A place that was read has another record, or none.
                (_, None) if seen.end.is_some_and(|end| end > checkpoint) => {
                    return self.no(answer, Obstacle::NoCheckpoint { expected: checkpoint }, None, false);
                }
                (_, None) => return self.refuse(answer, behind(), None, false),
            }
        }
        let is_replayed = |mark: &Mark| stop.is_none_or(|stop| mark.end <= stop.end);
        if let Some(mark) = seen.minimal.filter(is_replayed).filter(|_| stops_at_minimal(self.sources.fmt.major)) {
            let place = Some((mark.lsn, mark.before));
            return self.no(answer, Obstacle::MinimalWal { lsn: Some(mark.lsn) }, place, false);
        }
        self.add_caveats(&mut answer, seen, stop);
        let Some(stop) = stop else { return self.judge_end(answer, behind(), place, consistent) };
        // A backup is not consistent before its checkpoint, whatever else is known.
        let checkpoint = self.backup.and_then(BaseBackup::checkpoint);
        let is_early = checkpoint.is_some_and(|checkpoint| stop.end <= checkpoint && checkpoint > self.start);
        let is_consistent = match consistent {
            Consistent::Always => Some(true),
            Consistent::From(mark) => Some(mark.end <= stop.end),
            Consistent::NotReached => Some(false),
            Consistent::Unknown { at_latest } => at_latest.filter(|lsn| *lsn <= stop.end).map(|_| true),
        };
        let lsn = answer.consistent.map(|place| place.lsn);
        match is_consistent {
            Some(false) => return self.no(answer, Obstacle::BeforeConsistency { consistent: lsn }, None, false),
            Some(true) | None if is_early && !matches!(consistent, Consistent::Always) => {
                return self.no(answer, Obstacle::BeforeConsistency { consistent: lsn }, None, false);
            }
            None => {
                let Consistent::Unknown { at_latest } = consistent else { return answer };
                return self.unknown(answer, Doubt::Consistency { at_latest }, Some((stop.end, stop.last_transaction)));
            }
            Some(true) => {}
        }
        if self.backup.is_none() {
            // The oldest WAL does not go back so far.
            let first = summary.first.unwrap_or_default();
            let is_before = match self.request.target {
                Target::Time(_) => stop.last_transaction.is_none(),
                Target::Lsn(lsn) => *lsn < first,
                Target::Immediate => return self.unknown(answer, Doubt::NoBackup, None),
                _ => false,
            };
            if is_before {
                return self.no(answer, Obstacle::BeforeConsistency { consistent: Some(first) }, None, false);
            }
        }
        if let Some(began) = self.begins_after_target(seen, stop) {
            return self.no(answer, Obstacle::BeforeBackup { began }, Some((stop.end, stop.last_transaction)), true);
        }
        answer.outcome = Outcome::Yes { end: stop.end, last_transaction: stop.last_transaction, partial: None };
        answer
    }

    /// When the backup began, if that was after the target time. A server stops before the first commit after the target, and takes no
    /// notice of those that are in the backup already; where none is replayed before that, nothing but the time of the checkpoint tells.
    fn begins_after_target(&self, seen: &Seen, stop: Stop) -> Option<TimestampTz> {
        let Target::Time(target) = self.request.target else { return None };
        let seconds = seen.checkpoint_time.filter(|_| stop.last_transaction.is_none())?.0;
        let began = TimestampTz(seconds.checked_mul(1_000_000)?.checked_sub(TimestampTz::UNIX_EPOCH_OFFSET)?);
        // It is a whole second, in which more may have been committed.
        (target.0 < began.0.saturating_add(1_000_000)).then_some(began)
    }

    /// The WAL ended, and nothing had recovery stop before.
    fn judge_end(
        &self,
        mut answer: Reach,
        behind: Result<Obstacle, Doubt>,
        place: Option<(Lsn, Option<TimestampTz>)>,
        consistent: Consistent,
    ) -> Reach {
        let end = place.map_or(self.start, |(end, _)| end);
        let mut opens = self.opens(consistent, end) && !matches!(behind, Ok(Obstacle::WrongSize { .. }));
        let mut place = place;
        if self.chain.is_left {
            // A server goes on in the old timeline's segments, as if that had not been left there, and may find its target in them.
            let (_, beyond) = self.walk_files(None, &self.chain.beyond);
            let consistent = self.rule.judge(&beyond, self.start);
            place = match self.stop(&beyond, consistent) {
                Some(stop) => {
                    opens = Self::is_consistent(consistent, stop.end);
                    Some((stop.end, stop.last_transaction))
                }
                None => {
                    opens = beyond.end.is_some_and(|end| self.opens(consistent, end)) && !self.chain.stops_beyond;
                    beyond.end.map(|end| (end, beyond.last_transaction))
                }
            };
        }
        let obstacle = match behind {
            Ok(obstacle) => obstacle,
            Err(doubt) => return self.unknown(answer, doubt, place),
        };
        let is_all = match &obstacle {
            Obstacle::End { .. } => !self.chain.gap,
            Obstacle::Missing { gap, .. } => !gap && !self.chain.is_torn,
            _ => false,
        };
        match (self.request.target, consistent) {
            (Target::Immediate, Consistent::Unknown { at_latest }) => return self.unknown(answer, Doubt::Consistency { at_latest }, place),
            (Target::Latest, _) if is_all => {}
            _ => return self.no(answer, obstacle, place, opens),
        }
        match consistent {
            Consistent::Unknown { at_latest } if at_latest.is_none_or(|lsn| lsn > end) => {
                self.unknown(answer, Doubt::Consistency { at_latest }, place)
            }
            Consistent::NotReached => self.no(answer, obstacle, place, false),
            _ => match place {
                Some((end, last_transaction)) => {
                    answer.outcome = Outcome::Yes { end, last_transaction, partial: self.chain.partial.clone() };
                    answer
                }
                None => self.no(answer, obstacle, None, false),
            },
        }
    }

    /// Whether a server opens that comes to the end of the WAL without having reach its target. From 13 on it refuses to, if it has one.
    fn opens(&self, consistent: Consistent, end: Lsn) -> bool {
        let has_no_target = *self.request.target == Target::Latest || !self.sources.fmt.since(13);
        has_no_target && Self::is_consistent(consistent, end)
    }

    fn is_consistent(consistent: Consistent, end: Lsn) -> bool {
        match consistent {
            Consistent::Always => true,
            Consistent::From(mark) => mark.end <= end,
            Consistent::NotReached => false,
            Consistent::Unknown { at_latest } => at_latest.is_some_and(|lsn| lsn <= end),
        }
    }

    /// What comes after the last record.
    fn obstacle_behind(&self, summary: Option<&Summary>, seen: Option<&Seen>, is_cut: bool) -> Result<Obstacle, Doubt> {
        let chain = &self.chain;
        let input = |lsn| chain.at(lsn).map(|(_, file)| file.input.to_string()).unwrap_or_default();
        let end = seen.and_then(|seen| seen.end);
        let last_transaction = seen.and_then(|seen| seen.last_transaction);
        match summary.map(|summary| &summary.stop) {
            Some(scan::Stop::Damage(error)) => {
                let lsn = error.location().lsn;
                return Ok(Obstacle::Damaged { input: input(lsn), lsn: Some(lsn), reason: error.kind().to_string() });
            }
            Some(scan::Stop::Source(error)) if !chain.is_short(&error.input) => {
                return Ok(Obstacle::Damaged { input: error.input.clone(), lsn: None, reason: what_is_wrong(error) });
            }
            // The records go on to the last byte, or end before it.
            Some(scan::Stop::End(stop)) => {
                let start = chain.missing.start(chain.fmt.segment_size);
                let is_short = matches!(&chain.bad, Some(BadFile { why: Bad::Short { .. }, .. }));
                let behind = chain.limit.filter(|_| is_short).unwrap_or(start);
                let is_at_end =
                    stop.lsn >= behind || summary.and_then(|summary| summary.position).is_some_and(|position| position >= behind);
                if !is_at_end {
                    return Ok(Obstacle::End { end: stop.lsn, last_transaction });
                }
            }
            _ => {}
        }
        if let Some(bad) = &chain.bad {
            let input = bad.file.input.to_string();
            let lsn = Some(bad.name.start(chain.fmt.segment_size));
            let damaged = |reason: String| Obstacle::Damaged { input: input.clone(), lsn, reason };
            match &bad.why {
                Bad::Size { expected, found } => return Ok(Obstacle::WrongSize { input, expected: *expected, found: *found }),
                Bad::OtherCluster { expected, found } => {
                    return Ok(Obstacle::ForeignSegment { input, expected: *expected, found: *found });
                }
                Bad::OtherContent { address, timeline } => {
                    return Ok(damaged(format!("its first page is that of {address} on timeline {timeline}")));
                }
                Bad::Short { expected, found } => {
                    let reason = format!("it has {found} bytes instead of {expected}");
                    return Ok(Obstacle::Damaged { input, lsn: end, reason });
                }
                Bad::Other(reason) => return Ok(damaged(reason.clone())),
                Bad::Wrapped(wrapping) => return Err(Doubt::NotRead { input, wrapping: *wrapping }),
                Bad::Unused if chain.gap || is_cut || chain.is_expected => {
                    return Ok(damaged("nothing was written to it, or not what belongs there".to_owned()));
                }
                Bad::Unused => {}
            }
        }
        match (chain.is_expected || is_cut, end) {
            (false, Some(end)) => Ok(Obstacle::End { end, last_transaction }),
            _ => Ok(Obstacle::Missing { segment: chain.missing, end, gap: chain.gap, partial: chain.partial.clone() }),
        }
    }

    fn refuse(&self, answer: Reach, why: Result<Obstacle, Doubt>, place: Option<(Lsn, Option<TimestampTz>)>, opens: bool) -> Reach {
        match why {
            Ok(obstacle) => self.no(answer, obstacle, place, opens),
            Err(doubt) => self.unknown(answer, doubt, place),
        }
    }

    fn no(&self, mut answer: Reach, obstacle: Obstacle, place: Option<(Lsn, Option<TimestampTz>)>, opens: bool) -> Reach {
        let name = match &obstacle {
            Obstacle::Missing { segment, .. } => Some(*segment),
            Obstacle::Damaged { lsn: Some(lsn), .. } => {
                self.chain.at(*lsn).map(|(at, _)| at).and_then(|at| self.chain.files.get(at)).map(|it| it.0)
            }
            _ => None,
        };
        let name = name.or_else(|| self.chain.bad.as_ref().filter(|bad| Some(&*bad.file.input) == input_of(&obstacle)).map(|bad| bad.name));
        if let Some(bad) = self.chain.bad.as_ref().filter(|bad| Some(&*bad.file.input) == input_of(&obstacle)) {
            answer.files.push(bad.file.input.to_string());
        }
        self.no_at(answer, obstacle, place, opens, name)
    }

    fn no_at(
        &self,
        answer: Reach,
        obstacle: Obstacle,
        place: Option<(Lsn, Option<TimestampTz>)>,
        opens: bool,
        name: Option<SegmentName>,
    ) -> Reach {
        let copies = name.map(|name| self.sources.copies(name, input_of(&obstacle))).unwrap_or_default();
        let how_far = self.how_far(place, opens, copies);
        answer.no(obstacle, how_far)
    }

    fn unknown(&self, mut answer: Reach, doubt: Doubt, place: Option<(Lsn, Option<TimestampTz>)>) -> Reach {
        answer.outcome = Outcome::Unknown { doubt, how_far: self.how_far(place, false, Vec::new()) };
        answer
    }

    fn how_far(&self, place: Option<(Lsn, Option<TimestampTz>)>, opens: bool, copies: Vec<String>) -> Option<HowFar> {
        let file = |end: Lsn| self.chain.at(Lsn(end.0.saturating_sub(1))).map(|(_, file)| file.input.to_string());
        place.map(|(end, last_transaction)| HowFar { end, last_transaction, file: file(end), opens, copies })
    }

    fn add_caveats(&self, answer: &mut Reach, seen: &Seen, stop: Option<Stop>) {
        let is_replayed = |lsn: Lsn| stop.is_none_or(|stop| lsn < stop.end);
        if self.backup.is_none() {
            answer.caveats.push(Caveat::NoBackup { start: self.start });
        }
        let had = self.backup.and_then(|backup| backup.control).map(|control| {
            let settings = control.settings;
            [
                Some(settings.max_connections),
                Some(settings.max_worker_processes),
                settings.max_wal_senders,
                Some(settings.max_prepared_transactions),
                Some(settings.max_locks_per_transaction),
            ]
        });
        for (at, (setting, default)) in SETTINGS.into_iter().enumerate() {
            let Some((needed, lsn)) = seen.settings.get(at).copied().flatten().filter(|(_, lsn)| is_replayed(*lsn)) else { continue };
            let had = had.and_then(|had| had.get(at).copied().flatten());
            if needed > had.unwrap_or(default) {
                answer.caveats.push(Caveat::Setting { setting, needed, had, lsn, pauses: self.sources.fmt.since(14) });
            }
        }
        for (oid, directory) in self.backup.iter().flat_map(|backup| &backup.tablespaces) {
            answer.caveats.push(Caveat::Tablespace { oid: *oid, directory: directory.clone(), lsn: None });
        }
        for (oid, directory, lsn) in seen.tablespaces.iter().filter(|(.., lsn)| is_replayed(*lsn)) {
            answer.caveats.push(Caveat::Tablespace { oid: *oid, directory: directory.clone(), lsn: Some(*lsn) });
        }
        let last = stop.and_then(|stop| self.chain.at(Lsn(stop.read.0.saturating_sub(1)))).map(|(at, _)| at + 1);
        if let Some(bad) = self.chain.bad.as_ref().filter(|bad| matches!(bad.why, Bad::Size { .. }))
            && last == Some(self.chain.files.len())
            && self.sources.fmt.since(15)
        {
            answer.caveats.push(Caveat::ReadAhead { input: bad.file.input.to_string() });
        }
    }
}

fn input_of(obstacle: &Obstacle) -> Option<&str> {
    match obstacle {
        Obstacle::Damaged { input, .. } | Obstacle::WrongSize { input, .. } | Obstacle::ForeignSegment { input, .. } => Some(input),
        _ => None,
    }
}

/// The problem without the file that has it.
fn what_is_wrong(error: &crate::source::SourceError) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", error.input)).unwrap_or(&text).to_owned()
}

/// The first finding that recovery would run into between `from` and `end`.
fn first_damage(chain: &Chain<'_>, findings: &[Finding], from: Lsn, end: Lsn) -> Option<(usize, Obstacle, Option<Lsn>)> {
    // What a server's own reader stops at, or its replay; files that are no good as such are not in the chain.
    let stops = |finding: &Finding| matches!(finding.problem, Some(Problem::Format(_))) || finding.class == Class::Malformed;
    let places: BTreeMap<&str, usize> = chain.files.iter().enumerate().map(|(at, (_, file))| (&*file.input, at)).collect();
    let place = |finding: &Finding| places.get(finding.input.as_str()).copied();
    let start = |finding: &Finding| finding.lsns.as_ref().map(|lsns| lsns.start);
    let damage = findings.iter().filter(|finding| stops(finding) && start(finding).is_some_and(|lsn| lsn >= from && lsn < end));
    let on_the_way = damage.filter_map(|finding| place(finding).map(|at| (at, finding)));
    let is_before_end = |at: usize| chain.files.get(at).is_some_and(|(name, _)| name.start(chain.fmt.segment_size) < end);
    let (at, finding) = on_the_way.filter(|(at, _)| is_before_end(*at)).min_by_key(|(at, finding)| (*at, start(finding)))?;
    let reason = match &finding.problem {
        Some(problem) => format!("{}; {problem}", finding.class),
        None => finding.class.to_string(),
    };
    let lsn = start(finding);
    Some((at, Obstacle::Damaged { input: finding.input.clone(), lsn, reason }, lsn))
}
