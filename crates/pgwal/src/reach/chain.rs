//! The files that recovery takes, one after the other.

use std::collections::BTreeMap;

use super::TargetTimeline;
use super::answer::Obstacle;
use crate::base_backup::BaseBackup;
use crate::format::WalFormat;
use crate::history::{self, History};
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::set::{Owner, Set};
use crate::source::{Archive, ArchiveFile, NotWal, Start, Wrapping};

/// The history that recovery follows; the files that it reads for that are added to `files`.
pub(super) fn target_history(
    archive: &Archive,
    backup: Option<&BaseBackup>,
    choice: TargetTimeline,
    current: TimelineId,
    files: &mut Vec<String>,
) -> Result<History, Obstacle> {
    // Where the archive has none, a server looks into its own pg_wal.
    let own = backup.and_then(|backup| backup.wal.as_ref());
    let file_of = |timeline| archive.history(timeline).or_else(|| own.and_then(|own| own.history(timeline)));
    let next = |timeline: TimelineId| TimelineId(timeline.0.saturating_add(1));
    let mut timeline = current;
    match choice {
        TargetTimeline::Current | TargetTimeline::ByVersion => {}
        // C: `findNewestTimeLine`: the first that is missing ends the search.
        TargetTimeline::Latest => {
            while let Some((file, _)) = file_of(next(timeline)).filter(|_| timeline.0 < u32::MAX) {
                timeline = next(timeline);
                files.push(file.input.to_string());
            }
        }
        TargetTimeline::Id(id) => {
            timeline = id;
            if id > TimelineId(1) && file_of(id).is_none() {
                return Err(Obstacle::NoHistory { file: history::file_name(id) });
            }
        }
    }
    match file_of(timeline) {
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

/// Bytes of the smallest WAL page.
const MIN_PAGE: u64 = 1024;

/// The files of an archive, followed by those in the backup's own pg_wal, by name.
pub(super) struct Sources<'a> {
    pub(super) fmt: WalFormat,
    archive: &'a Archive,
    stores: Vec<Store<'a>>,
    system_identifier: Option<u64>,
}

struct Store<'a> {
    set: Set<'a>,
    /// The best file of each name that is not `.partial`.
    named: BTreeMap<SegmentName, &'a ArchiveFile>,
}

/// A file with the right name that a server would read and not get on with.
#[derive(Clone, Debug)]
pub(super) struct BadFile<'a> {
    pub(super) file: &'a ArchiveFile,
    pub(super) name: SegmentName,
    pub(super) why: Bad,
}

#[derive(Clone, Debug)]
pub(super) enum Bad {
    /// A server refuses a file of another size, and does not go on: FATAL.
    Size {
        expected: u32,
        found: u64,
    },
    /// A file of the backup's own pg_wal that is too short: a server reads it up to there, and takes that for the end of the WAL.
    Short {
        expected: u32,
        found: u64,
    },
    /// As it was before it was used, or zeroes: nothing was written to it.
    Unused,
    OtherCluster {
        expected: u64,
        found: u64,
    },
    /// The first page has another address, or a timeline that the name does not have.
    OtherContent {
        address: Lsn,
        timeline: TimelineId,
    },
    /// Not WAL, or it cannot be read; in words.
    Other(String),
    /// Encrypted, or compressed in a way that is not read.
    Wrapped(Wrapping),
}

impl<'a> Sources<'a> {
    /// `None`: no file is a segment.
    pub(super) fn new(archive: &'a Archive, backup: Option<&'a BaseBackup>, system_identifier: Option<u64>) -> Option<Sources<'a>> {
        let own = backup.and_then(|backup| backup.wal.as_ref());
        let stores: Vec<Store<'a>> = std::iter::once(archive)
            .chain(own)
            .map(|files| {
                let set = Set::of(files, system_identifier);
                let mut named: BTreeMap<SegmentName, &ArchiveFile> = BTreeMap::new();
                for (file, segment) in files.segments().filter(|(_, segment)| !segment.partial) {
                    // One that has only begun to be compressed is not there yet.
                    let is_plain = file.file().len() == SegmentName::LEN;
                    if !is_plain && matches!(segment.start, Start::NotWal(NotWal::Empty)) {
                        continue;
                    }
                    let is_good = |file: &ArchiveFile| set.get(segment.name).is_some_and(|good| good.input == file.input);
                    let best = named.entry(segment.name).or_insert(file);
                    if (is_good(file), file.rank()) > (is_good(best), best.rank()) {
                        *best = file;
                    }
                }
                Store { set, named }
            })
            .collect();
        let fmt = stores.iter().find_map(|store| store.set.fmt)?;
        Some(Sources { fmt, archive, stores, system_identifier })
    }

    /// The file of this name that a server reads.
    fn get(&self, name: SegmentName) -> Option<&'a ArchiveFile> {
        self.stores.iter().find_map(|store| store.named.get(&name)).copied()
    }

    /// Whether a server reads the file where it is, in the backup's own pg_wal: it fetches only what `restore_command` has.
    fn is_own(&self, name: SegmentName, file: &ArchiveFile) -> bool {
        self.stores.get(1).and_then(|own| own.named.get(&name)).is_some_and(|own| own.input == file.input)
    }

    /// The segments that are in place, of all timelines.
    pub(super) fn present(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.stores.iter().flat_map(|store| store.set.present().map(|(name, _)| name))
    }

    /// What is wrong with `file` before a record of it is read.
    fn judge(&self, name: SegmentName, file: &ArchiveFile) -> Option<Bad> {
        let segment = file.segment()?;
        let size = self.fmt.segment_size;
        let is_wrapped = matches!(segment.start, Start::NotWal(NotWal::Wrapped(_)));
        let mut short = None;
        if !is_wrapped && file.len != u64::from(size) {
            // What is packed has the size that it has.
            match file.plain_len().filter(|&len| len != u64::from(size)) {
                // C: `XLogFileRead`; only what comes from an archive must have the right size.
                Some(0..MIN_PAGE) if self.is_own(name, file) => return Some(Bad::Unused),
                Some(found) if found < u64::from(size) && self.is_own(name, file) => short = Some(Bad::Short { expected: size, found }),
                Some(found) => return Some(Bad::Size { expected: size, found }),
                None => {}
            }
        }
        match &segment.start {
            Start::Page(fmt, header) => {
                let id = header.long.map(|long| long.system_identifier).unwrap_or_default();
                match self.system_identifier {
                    Some(expected) if expected != id => return Some(Bad::OtherCluster { expected, found: id }),
                    _ => {}
                }
                let start = name.start(size);
                match () {
                    () if header.address < start && fmt.segment_size == size => Some(Bad::Unused),
                    () if header.address != start || header.timeline > name.timeline => {
                        Some(Bad::OtherContent { address: header.address, timeline: header.timeline })
                    }
                    () if !fmt.is_same_wal(self.fmt) => Some(Bad::Other(format!("WAL of another kind: PostgreSQL {}", fmt.major))),
                    () => short,
                }
            }
            Start::NotWal(NotWal::Zeroed) => Some(Bad::Unused),
            Start::NotWal(NotWal::Wrapped(wrapping)) => Some(Bad::Wrapped(*wrapping)),
            Start::NotWal(what) => Some(Bad::Other(what.to_string())),
            Start::Unreadable(why) => Some(Bad::Other(why.clone())),
        }
    }

    /// Other files that may have the WAL of `name`: `.partial`, another packing or folder, the same number on another timeline.
    pub(super) fn copies(&self, name: SegmentName, besides: Option<&str>) -> Vec<String> {
        /// So many are named.
        const COPIES: usize = 8;
        let mut same = Vec::new();
        let mut others = Vec::new();
        for store in &self.stores {
            for (file, segment) in store
                .files()
                .filter(|(file, segment)| (segment.name.log, segment.name.seg) == (name.log, name.seg) && Some(&*file.input) != besides)
            {
                if segment.in_place().is_some() {
                    let list = if segment.name == name { &mut same } else { &mut others };
                    list.push(file.input.to_string());
                }
            }
        }
        same.extend(others);
        same.dedup();
        same.truncate(COPIES);
        same
    }

    /// The WAL of `files`, of the archive or of the backup.
    pub(super) fn wal(&self, files: impl IntoIterator<Item = &'a ArchiveFile>) -> crate::source::Wal {
        self.archive.wal(files)
    }
}

impl<'a> Store<'a> {
    fn files(&self) -> impl Iterator<Item = (&'a ArchiveFile, &'a crate::source::SegmentFile)> {
        self.set.archive().segments()
    }
}

/// Segments that follow each other, as recovery takes them.
pub(super) struct Chain<'a> {
    pub(super) files: Vec<(SegmentName, &'a ArchiveFile)>,
    pub(super) fmt: WalFormat,
    /// What comes next.
    pub(super) missing: SegmentName,
    /// A file of that name that is no good.
    pub(super) bad: Option<BadFile<'a>>,
    /// That segment under the name `.partial`.
    pub(super) partial: Option<String>,
    /// Where the last file stops to count: the timeline that it is of was left there, and the newer one's copy is not there; or it ends.
    pub(super) limit: Option<Lsn>,
    /// A timeline was left, and the newer one's copy is not there.
    pub(super) is_left: bool,
    /// What a server replays after that, which does not lead to the target: the rest of the timeline that was left.
    pub(super) beyond: Vec<(SegmentName, &'a ArchiveFile)>,
    /// A file of the wrong size follows that: the server stops at it with an error.
    pub(super) stops_beyond: bool,
    /// Later segments of the history are there.
    pub(super) gap: bool,
    /// WAL of the history between its end and a place that the history tells of is not there.
    pub(super) is_torn: bool,
    /// The segment that comes next must have existed.
    pub(super) is_expected: bool,
}

impl<'a> Chain<'a> {
    /// As a server does: segment by segment the newest timeline that has a file of that name, whatever is in it, and never an older timeline
    /// than before. C: `XLogFileReadAnyTLI`.
    pub(super) fn find(sources: &Sources<'a>, history: &History, owners: &[Owner], start: Lsn, known_end: Option<Lsn>) -> Chain<'a> {
        let fmt = sources.fmt;
        let mut files: Vec<(SegmentName, &ArchiveFile)> = Vec::new();
        let mut number = start.segment_number(fmt.segment_size);
        let mut bad = None;
        let mut is_left = false;
        let (missing, limit) = loop {
            let name = |timeline| SegmentName::new(timeline, number, fmt.segment_size);
            let newest = files.last().map_or(TimelineId::default(), |(name, _)| name.timeline);
            let mut candidates =
                owners.iter().rev().filter(|owner| owner.first <= number && owner.timeline >= newest).map(|owner| owner.timeline);
            let Some(wanted) = candidates.clone().next().map(name) else { break (name(history.timeline), None) };
            // An older timeline's segment counts up to where that was left.
            let counts = |name: SegmentName| history.switch_point(name.timeline).is_none_or(|end| end > name.start(fmt.segment_size));
            let Some((found, file)) = candidates.find_map(|timeline| sources.get(name(timeline)).map(|file| (name(timeline), file))) else {
                break (wanted, None);
            };
            let why = sources.judge(found, file);
            let is_short = matches!(why, Some(Bad::Short { .. }));
            bad = why.map(|why| BadFile { file, name: found, why });
            if bad.is_some() && !is_short {
                break (found, None);
            }
            if !counts(found) {
                is_left = true;
                break (wanted, None);
            }
            if let Some(BadFile { why: Bad::Short { found: len, .. }, .. }) = bad {
                files.push((found, file));
                // Of a page that is cut a server reads nothing.
                let end = found.start(fmt.segment_size) + (len - len % u64::from(fmt.wal_page_size));
                let left = history.switch_point(found.timeline).filter(|_| found != wanted);
                break (found, Some(left.map_or(end, |left| left.min(end))));
            }
            files.push((found, file));
            if found != wanted {
                is_left = true;
                number = number.saturating_add(1);
                break (wanted, history.switch_point(found.timeline));
            }
            number = number.saturating_add(1);
        };
        let (mut beyond, mut stops_beyond): (Vec<(SegmentName, &ArchiveFile)>, bool) = (Vec::new(), false);
        let numbers = if is_left { number..u64::MAX } else { 0..0 };
        for number in numbers {
            let name = |timeline| SegmentName::new(timeline, number, fmt.segment_size);
            let newest = beyond.last().or(files.last()).map_or(TimelineId::default(), |(name, _)| name.timeline);
            let candidates = owners.iter().rev().filter(|owner| owner.first <= number && owner.timeline >= newest);
            let mut found = candidates.filter_map(|owner| sources.get(name(owner.timeline)).map(|file| (name(owner.timeline), file)));
            let Some((found, file)) = found.next() else { break };
            match sources.judge(found, file) {
                None => beyond.push((found, file)),
                Some(why) => {
                    stops_beyond = matches!(why, Bad::Size { .. });
                    break;
                }
            }
        }
        let behind = missing.start(fmt.segment_size);
        let gap = sources.present().any(|name| {
            let number = name.number(fmt.segment_size);
            let is_ours = |owner: &Owner| name.timeline == owner.timeline && owner.has(number);
            number > missing.number(fmt.segment_size) && owners.iter().any(is_ours)
        });
        let partial_of = |store: &Store<'a>| store.set.get(missing).filter(|file| file.segment().is_some_and(|segment| segment.partial));
        let partial = sources.stores.iter().find_map(partial_of).map(|file| file.input.to_string());
        let switches_later = history.ancestors.iter().any(|ancestor| ancestor.switch > behind);
        let is_torn = limit.is_some() || switches_later;
        let is_expected = gap || partial.is_some() || is_torn || known_end.is_some_and(|end| end > behind);
        Chain { files, fmt, missing, bad, partial, limit, is_left, beyond, stops_beyond, gap, is_torn, is_expected }
    }

    /// The file that has `lsn`, and its place in the chain.
    pub(super) fn at(&self, lsn: Lsn) -> Option<(usize, &'a ArchiveFile)> {
        let is_there = |name: &SegmentName| name.number(self.fmt.segment_size) == lsn.segment_number(self.fmt.segment_size);
        let at = self.files.iter().position(|(name, _)| is_there(name))?;
        self.files.get(at).map(|(_, file)| (at, *file))
    }

    /// Whether the file is one of the backup's own that is too short.
    pub(super) fn is_short(&self, input: &str) -> bool {
        self.bad.as_ref().is_some_and(|bad| matches!(bad.why, Bad::Short { .. }) && *bad.file.input == *input)
    }

    /// Leaves out the files from `at` on: a server cannot read that one.
    pub(super) fn cut(&mut self, at: usize, why: String) {
        if let Some(&(name, file)) = self.files.get(at) {
            self.files.truncate(at);
            (self.missing, self.limit, self.partial) = (name, None, None);
            self.beyond.clear();
            self.is_left = false;
            self.bad = Some(BadFile { file, name, why: Bad::Other(why) });
        }
    }
}

/// WAL up to here must have existed: the backup says so.
pub(super) fn known_end(backup: Option<&BaseBackup>) -> Option<Lsn> {
    let backup = backup?;
    let stop = backup.label.as_ref().and_then(|label| label.stop.as_ref()).map(|stop| stop.lsn);
    let minimum = backup.control.map(|control| control.min_recovery_point);
    let manifest = backup.manifest.and_then(|manifest| manifest.end);
    [stop, minimum, manifest, backup.checkpoint()].into_iter().flatten().max()
}
