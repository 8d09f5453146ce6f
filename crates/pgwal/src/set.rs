//! The set of segments: whether the files of an archive are, by their names and first pages, WAL without gaps of one cluster.
//!
//! What is inside the segments is not asked, but for the records around each switch point.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::backup_label::BackupLabelError;
use crate::check::{Authority, Check, Class, Finding, Problem};
use crate::error::{Error, ErrorKind};
use crate::format::{WalFormat, WalMagic};
use crate::history::{self, History, HistoryError, HistoryMismatch};
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::printable::printable;
use crate::record::RawRecord;
use crate::rmgr::{Payload, xlog};
use crate::scan::{self, Work, scan};
use crate::source::{
    Archive, ArchiveFile, FileKind, NotWal, SegmentFile, SourceProblem, Start, Wrapping, file_of_input, segment_of_file_name,
};

/// Something to say about the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The file, as the user knows it, or the name of one that is missing.
    pub input: String,
    /// What there is to say.
    #[serde(flatten)]
    pub kind: RemarkKind,
}

/// What there is to say about the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RemarkKind {
    /// Segments between others are not there.
    Gap {
        /// The first one missing.
        first: SegmentName,
        /// The last one missing.
        last: SegmentName,
        /// How many it are.
        count: u64,
    },
    /// The same segment is there twice.
    Duplicate {
        /// The other file.
        other: String,
        /// Where the two first differ; `None`: nowhere.
        differs_at: Option<Lsn>,
    },
    /// The file has the content of another segment, and later segments are there.
    Misplaced {
        /// Where the name belongs.
        expected: Lsn,
        /// Where the first page belongs.
        found: Lsn,
        /// Name that the first page would have.
        content: SegmentName,
    },
    /// The file does not start as a segment does, and later segments are there.
    NotSegment {
        /// What it starts with.
        found: String,
        /// Only zeroes.
        zeroed: bool,
    },
    /// The segment is of another cluster.
    OtherCluster {
        /// System identifier of the others. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        expected: u64,
        /// This one's. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        found: u64,
    },
    /// The segment has another size than the others say of themselves.
    OtherSegmentSize {
        /// Size of the others, in bytes.
        expected: u32,
        /// This one's.
        found: u32,
    },
    /// The segment is of another major than the others.
    OtherMajor {
        /// Major of the others.
        expected: u8,
        /// This one's.
        found: u8,
    },
    /// The first page is of a newer timeline than the name.
    NewerTimeline {
        /// Timeline in the name.
        expected: TimelineId,
        /// Timeline of the page.
        found: TimelineId,
    },
    /// The first page is of an older timeline, which is not in the history of the one in the name.
    NotInHistory {
        /// Timeline in the name.
        timeline: TimelineId,
        /// Timeline of the page.
        found: TimelineId,
    },
    /// A timeline has segments but no history file: nobody can tell where it forked off.
    NoHistory {
        /// The timeline.
        timeline: TimelineId,
    },
    /// The history file is not one.
    History(HistoryError),
    /// The history file contradicts that of its parent.
    HistoryMismatch(HistoryMismatch),
    /// The records do not switch timelines where the history file says.
    SwitchPoint {
        /// The timeline that begins there.
        child: TimelineId,
        /// Its parent, by the history file.
        parent: TimelineId,
        /// Where the parent was left, by the history file.
        expected: Lsn,
        /// What the records say instead.
        found: SwitchFound,
    },
    /// The backup label is not one.
    BackupLabel(BackupLabelError),
    /// The name of the backup history file does not tell where its content says the backup starts.
    BackupStart {
        /// Segment and offset in the name.
        expected: Lsn,
        /// `START WAL LOCATION`.
        found: Lsn,
    },
    /// The segment is compressed or encrypted in a way that is not read.
    NotRead {
        /// In which way.
        wrapping: Wrapping,
    },
    /// The file cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// A segment of the parent after the switch point: the old server went on writing after the promotion. No damage: recovery to
    /// the child does not read it.
    Abandoned {
        /// The timeline that took over.
        child: TimelineId,
        /// Where it forked off.
        switch: Lsn,
    },
    /// A segment that the server made ready for later, under a name after the end of the WAL. No damage.
    Future {
        /// The segment that the file was before; `None`: zeroes.
        recycled: Option<Lsn>,
    },
    /// A file that is neither a segment nor about segments. No damage.
    OtherFile,
}

/// What records say of a switch point that a history file puts elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchFound {
    /// The new timeline begins here.
    Begins(Lsn),
    /// It has a segment that starts here, before the one with the switch point.
    HasSegment(Lsn),
    /// It forked off this timeline.
    Parent(TimelineId),
    /// No record starts or ends at the switch point; this one starts before it and ends after it.
    InsideRecord(Lsn),
}

impl RemarkKind {
    /// Whether something is wrong; the rest is worth knowing at most.
    pub fn is_finding(&self) -> bool {
        match self {
            RemarkKind::Abandoned { .. } | RemarkKind::Future { .. } | RemarkKind::OtherFile => false,
            RemarkKind::Duplicate { differs_at, .. } => differs_at.is_some(),
            _ => true,
        }
    }
}

impl Remark {
    /// The finding that this is, in a set of segments of `segment_size`; `None`: nothing is wrong.
    pub fn finding(self, segment_size: u32) -> Option<Finding> {
        if !self.kind.is_finding() {
            return None;
        }
        let class = match &self.kind {
            RemarkKind::Gap { first, last, .. } => Class::MissingSegment { first: *first, last: *last },
            RemarkKind::Duplicate { other, .. } => Class::DuplicateSegment { other: other.clone() },
            RemarkKind::Misplaced { content, .. } => Class::WrongName { content: *content },
            RemarkKind::NotSegment { zeroed: true, .. } => Class::ZeroedPage,
            RemarkKind::NotSegment { .. } | RemarkKind::OtherSegmentSize { .. } => Class::NotWal,
            RemarkKind::OtherCluster { expected, found } => {
                Class::ForeignCluster { expected: *expected, found: *found, by: Authority::Majority }
            }
            RemarkKind::OtherMajor { expected, found } => match (WalMagic::of(*expected), WalMagic::of(*found)) {
                (Some(expected), Some(found)) => Class::WrongMajor { expected, found },
                _ => Class::NotWal,
            },
            RemarkKind::NewerTimeline { .. } | RemarkKind::NotInHistory { .. } => Class::Timeline,
            RemarkKind::NotRead { wrapping } => Class::NotRead { wrapping: *wrapping },
            RemarkKind::Unreadable { reason } => Class::Unreadable { reason: reason.clone() },
            _ => Class::TextFile,
        };
        let end = |name: SegmentName| name.start(segment_size) + u64::from(segment_size);
        let (segment, lsns) = match &self.kind {
            RemarkKind::Gap { first, last, .. } => (Some(*first), Some(first.start(segment_size)..end(*last))),
            RemarkKind::Duplicate { differs_at: Some(lsn), .. } => (segment_of_input(&self.input), Some(*lsn..*lsn + 1)),
            _ => (segment_of_input(&self.input), None),
        };
        let problem = match &self.kind {
            // The class says it all.
            RemarkKind::Gap { .. }
            | RemarkKind::OtherCluster { .. }
            | RemarkKind::OtherMajor { .. }
            | RemarkKind::NotRead { .. }
            | RemarkKind::Unreadable { .. } => None,
            RemarkKind::NewerTimeline { expected, found } => {
                Some(Problem::Check(Check::TimelineAboveName { name: *expected, found: *found }))
            }
            RemarkKind::OtherSegmentSize { expected, found } => {
                Some(Problem::Format(ErrorKind::SegmentSize { expected: Some(*expected), found: *found }))
            }
            _ => Some(Problem::Set(self.kind)),
        };
        let offset = |lsn: Lsn| lsn.segment_offset(segment_size);
        let offsets =
            lsns.as_ref().filter(|_| !matches!(class, Class::MissingSegment { .. })).map(|lsns| offset(lsns.start)..offset(lsns.start) + 1);
        Some(Finding { input: self.input, segment, offsets, lsns, record: None, class, problem, whole_copy: None })
    }
}

/// The segment that an input is by the name of its file.
fn segment_of_input(input: &str) -> Option<SegmentName> {
    segment_of_file_name(file_of_input(input))
}

/// Looks at the set as a whole. `system_identifier` is the cluster's; `None`: that of most segments.
///
/// Remarks come in the order of segments and timelines.
pub fn survey(archive: &Archive, system_identifier: Option<u64>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let _ = survey_each(archive, system_identifier, |remark| {
        remarks.push(remark);
        ControlFlow::Continue(())
    });
    remarks
}

/// As [`survey`], and gives `each` the remarks one by one, until it says that it is enough: of hundreds of thousands of files there may
/// be as many.
pub fn survey_each(archive: &Archive, system_identifier: Option<u64>, mut each: impl FnMut(Remark) -> ControlFlow<()>) -> ControlFlow<()> {
    let set = Set::of(archive, system_identifier);
    set.first_pages(&mut each)?;
    set.gaps().into_iter().try_for_each(&mut each)?;
    duplicates(archive, &mut each)?;
    set.abandoned(&mut each)?;
    texts(archive, set.fmt, &mut each)?;
    set.histories_of_timelines(&mut each)?;
    let Some(fmt) = set.fmt else { return ControlFlow::Continue(()) };
    let crossings = set.crossings(fmt);
    for (file, _, history) in archive.histories() {
        if let Ok(history) = history
            && let Some(kind) = set.switch_point(history, fmt, &crossings)
        {
            each(file.remark(kind))?;
        }
    }
    ControlFlow::Continue(())
}

/// Takes the remarks as they are made.
type Each<'a> = &'a mut dyn FnMut(Remark) -> ControlFlow<()>;

/// The segments of a set that are where they belong, and what most of them agree about.
pub(crate) struct Set<'a> {
    archive: &'a Archive,
    /// Format of most segments; `None`: there are none.
    pub(crate) fmt: Option<WalFormat>,
    /// The cluster: the one that was asked for, or that of most segments.
    pub(crate) system_identifier: Option<u64>,
    /// Segments of this cluster in their places, the best file of each.
    present: BTreeMap<SegmentName, &'a ArchiveFile>,
}

impl<'a> Set<'a> {
    pub(crate) fn of(archive: &'a Archive, system_identifier: Option<u64>) -> Set<'a> {
        let in_place =
            || archive.segments().filter_map(|(file, segment)| segment.in_place().map(|(fmt, header)| (file, segment, fmt, header)));
        let id = |header: &crate::page::PageHeader| header.long.map(|long| long.system_identifier);
        let mut set = Set { archive, fmt: None, system_identifier, present: BTreeMap::new() };
        set.fmt = most_frequent(in_place().map(|(_, _, fmt, _)| fmt));
        set.system_identifier = system_identifier.or_else(|| most_frequent(in_place().filter_map(|(.., header)| id(header))));
        for (file, segment, fmt, header) in in_place() {
            if Some(fmt) == set.fmt && id(header) == set.system_identifier && header.timeline <= segment.name.timeline {
                let best = set.present.entry(segment.name).or_insert(file);
                if best.rank() < file.rank() {
                    *best = file;
                }
            }
        }
        set
    }

    /// The archive that it is the set of.
    pub(crate) fn archive(&self) -> &'a Archive {
        self.archive
    }

    /// The segment of this name, where it is a good one by its first page.
    pub(crate) fn get(&self, name: SegmentName) -> Option<&'a ArchiveFile> {
        self.present.get(&name).copied()
    }

    /// All of them, by timeline and number.
    pub(crate) fn present(&self) -> impl DoubleEndedIterator<Item = (SegmentName, &'a ArchiveFile)> + '_ {
        self.present.iter().map(|(name, file)| (*name, *file))
    }

    /// The history of `timeline`; one without ancestors, where no file tells.
    fn history(&self, timeline: TimelineId) -> History {
        let file = self.archive.history(timeline).and_then(|(_, history)| history.as_ref().ok());
        file.cloned().unwrap_or_else(|| History::alone(timeline))
    }

    /// Whether a history file says that `timeline` does not descend from `other`.
    fn is_foreign_to(&self, timeline: TimelineId, other: TimelineId) -> bool {
        let history = self.archive.history(timeline).and_then(|(_, history)| history.as_ref().ok());
        history.is_some_and(|history| !history.contains(other))
    }

    fn timelines(&self) -> BTreeSet<TimelineId> {
        self.present.keys().map(|name| name.timeline).collect()
    }

    /// Numbers of the segments of `timeline`, ascending.
    fn numbers(&self, timeline: TimelineId, size: u32) -> impl Iterator<Item = u64> + '_ {
        let first = SegmentName { timeline, ..SegmentName::default() };
        self.present
            .range(first..)
            .map(|(name, _)| *name)
            .take_while(move |name| name.timeline == timeline)
            .map(move |name| name.number(size))
    }

    /// What is wrong with files by their first pages.
    fn first_pages(&self, each: Each<'_>) -> ControlFlow<()> {
        let mut last: BTreeMap<TimelineId, SegmentName> = BTreeMap::new();
        for name in self.present.keys() {
            last.insert(name.timeline, *name); // ascending
        }
        let is_future = |segment: &SegmentFile| last.get(&segment.name.timeline).is_none_or(|&last| segment.name > last);
        let remark = |(file, segment): (&ArchiveFile, &SegmentFile)| {
            let kind = match &segment.start {
                Start::Page(fmt, header) => {
                    let expected = segment.name.start(fmt.segment_size);
                    let id = header.long.map(|long| long.system_identifier).unwrap_or_default();
                    match (self.fmt, self.system_identifier) {
                        (_, Some(expected)) if id != expected => RemarkKind::OtherCluster { expected, found: id },
                        (Some(set), _) if fmt.segment_size != set.segment_size => {
                            RemarkKind::OtherSegmentSize { expected: set.segment_size, found: fmt.segment_size }
                        }
                        (Some(set), _) if fmt.major != set.major => RemarkKind::OtherMajor { expected: set.major, found: fmt.major },
                        _ if header.address < expected && is_future(segment) => RemarkKind::Future { recycled: Some(header.address) },
                        _ if header.address != expected => {
                            let content = SegmentName::of(header.timeline, header.address, fmt.segment_size);
                            RemarkKind::Misplaced { expected, found: header.address, content }
                        }
                        _ if header.timeline > segment.name.timeline => {
                            RemarkKind::NewerTimeline { expected: segment.name.timeline, found: header.timeline }
                        }
                        _ if self.is_foreign_to(segment.name.timeline, header.timeline) => {
                            RemarkKind::NotInHistory { timeline: segment.name.timeline, found: header.timeline }
                        }
                        _ => return None,
                    }
                }
                Start::NotWal(NotWal::Zeroed) if is_future(segment) => RemarkKind::Future { recycled: None },
                Start::NotWal(NotWal::Wrapped(wrapping)) => RemarkKind::NotRead { wrapping: *wrapping },
                Start::NotWal(what) => RemarkKind::NotSegment { found: what.to_string(), zeroed: *what == NotWal::Zeroed },
                Start::Unreadable(why) => RemarkKind::Unreadable { reason: why.clone() },
            };
            Some(file.remark(kind))
        };
        self.archive.segments().filter_map(remark).try_for_each(each)
    }

    /// Segments that recovery to the newest of a timeline would ask for in vain.
    fn gaps(&self) -> Vec<Remark> {
        let Some(fmt) = self.fmt else { return Vec::new() };
        let size = fmt.segment_size;
        let mut gaps: BTreeMap<SegmentName, (SegmentName, u64)> = BTreeMap::new();
        for newest in self.timelines() {
            let history = self.history(newest);
            let owners = owners(&history, size);
            let first = owners.iter().filter_map(|owner| self.numbers(owner.timeline, size).find(|&number| owner.has(number))).min();
            let (Some(first), Some(last)) = (first, self.numbers(newest, size).last()) else { continue };
            for owner in owners {
                let mut wanted = owner.first.max(first);
                let behind = owner.behind.min(last.saturating_add(1));
                let there = self.numbers(owner.timeline, size).filter(|&number| owner.has(number) && number <= last);
                // What is there, and what would come next, so that the hole before it shows too.
                for number in there.chain((wanted < behind).then_some(behind)) {
                    if wanted < number {
                        let name = |number| SegmentName::new(owner.timeline, number, size);
                        gaps.insert(name(wanted), (name(number - 1), number - wanted));
                    }
                    wanted = wanted.max(number.saturating_add(1));
                }
            }
        }
        // A file of that name that is no good has its own remark.
        let named: BTreeSet<SegmentName> =
            self.archive.segments().filter(|(_, segment)| !segment.partial).map(|(_, segment)| segment.name).collect();
        let is_bad = |name: SegmentName| named.contains(&name);
        let remark = |(mut first, (mut last, mut count)): (SegmentName, (SegmentName, u64))| {
            let further = |name: SegmentName, by: i64| SegmentName::new(name.timeline, name.number(size).saturating_add_signed(by), size);
            while count > 0 && is_bad(first) {
                (first, count) = (further(first, 1), count - 1);
            }
            while count > 0 && is_bad(last) {
                (last, count) = (further(last, -1), count - 1);
            }
            (count > 0).then(|| Remark { input: first.to_string(), kind: RemarkKind::Gap { first, last, count } })
        };
        gaps.into_iter().filter_map(remark).collect()
    }

    /// Segments after the place where a newer timeline took over.
    fn abandoned(&self, each: Each<'_>) -> ControlFlow<()> {
        let Some(fmt) = self.fmt else { return ControlFlow::Continue(()) };
        let Some(newest) = self.timelines().last().copied() else { return ControlFlow::Continue(()) };
        let history = self.history(newest);
        for (at, ancestor) in history.ancestors.iter().enumerate() {
            let child = history.ancestors.get(at + 1).map_or(history.timeline, |next| next.timeline);
            let switch = ancestor.switch.segment_number(fmt.segment_size);
            let from = SegmentName::new(ancestor.timeline, switch.saturating_add(1), fmt.segment_size);
            for (_, file) in self.present.range(from..).take_while(|(name, _)| name.timeline == ancestor.timeline) {
                each(file.remark(RemarkKind::Abandoned { child, switch: ancestor.switch }))?;
            }
        }
        ControlFlow::Continue(())
    }

    fn histories_of_timelines(&self, each: Each<'_>) -> ControlFlow<()> {
        let missing = self.timelines().into_iter().filter(|&timeline| timeline > TimelineId(1) && self.archive.history(timeline).is_none());
        missing.map(|timeline| Remark { input: history::file_name(timeline), kind: RemarkKind::NoHistory { timeline } }).try_for_each(each)
    }

    /// The segment of a timeline with a switch point in it, and the next one, as a record there may end in that.
    fn segments_at(&self, timeline: TimelineId, number: u64, fmt: WalFormat) -> Option<crate::source::Wal> {
        let names = [number, number.saturating_add(1)].map(|number| SegmentName::new(timeline, number, fmt.segment_size));
        let mut files = names.map(|name| self.get(name)).into_iter().map_while(|file| file);
        let first = files.next()?;
        Some(self.archive.wal(std::iter::once(first).chain(files)))
    }

    /// The records of parents that switch points are inside of. Each segment is read once, however many timelines begin in it.
    fn crossings(&self, fmt: WalFormat) -> Crossings {
        let mut wanted: BTreeMap<(TimelineId, u64), BTreeSet<Lsn>> = BTreeMap::new();
        for (.., history) in self.archive.histories() {
            let Some(parent) = history.as_ref().ok().and_then(History::parent) else { continue };
            let number = parent.switch.segment_number(fmt.segment_size);
            wanted.entry((parent.timeline, number)).or_default().insert(parent.switch);
        }
        let mut crossings = Crossings::new();
        for ((timeline, number), switches) in wanted {
            let Some(wal) = self.segments_at(timeline, number, fmt) else { continue };
            crossings.extend(crossed(&wal, &switches).into_iter().map(|(switch, record)| ((timeline, switch), record)));
        }
        crossings
    }

    /// The first segment of `child` there is, after the one that should have the switch point, if it begins with an older timeline: then
    /// the switch point is in it.
    fn begun_later(&self, child: TimelineId, switch: u64, fmt: WalFormat) -> Option<crate::source::Wal> {
        let first = self.numbers(child, fmt.segment_size).next().filter(|&first| first > switch)?;
        let file = self.present.get(&SegmentName::new(child, first, fmt.segment_size))?;
        let (_, header) = file.segment()?.in_place()?;
        (header.timeline < child).then(|| self.segments_at(child, first, fmt)).flatten()
    }

    /// Compares the last switch point of `history` with the records there.
    fn switch_point(&self, history: &History, fmt: WalFormat, crossings: &Crossings) -> Option<RemarkKind> {
        let parent = history.parent()?;
        let (child, switch) = (history.timeline, parent.switch);
        let found = |found| RemarkKind::SwitchPoint { child, parent: parent.timeline, expected: switch, found };
        let number = switch.segment_number(fmt.segment_size);
        // A timeline has no segments before the one that it begins in.
        if let Some(first) = self.numbers(child, fmt.segment_size).next().filter(|&first| first < number) {
            let start = SegmentName::new(child, first, fmt.segment_size).start(fmt.segment_size);
            return Some(found(SwitchFound::HasSegment(start)));
        }
        let around = match self.segments_at(child, number, fmt) {
            Some(wal) => Around::read(&wal, switch, child),
            None => match self.begun_later(child, number, fmt) {
                Some(wal) => Around::read(&wal, switch, child),
                None => Around { across: crossings.get(&(parent.timeline, switch)).copied(), ..Around::default() },
            },
        };
        match around {
            Around { names: Some((_, named)), .. } if named != parent.timeline => Some(found(SwitchFound::Parent(named))),
            Around { names: Some((begins, _)), in_order: false, .. } => Some(found(SwitchFound::Begins(begins))),
            Around { across: Some(record), .. } => Some(found(SwitchFound::InsideRecord(record))),
            _ => None,
        }
    }
}

/// Starts of records that start before a switch point of a timeline and end after it.
type Crossings = BTreeMap<(TimelineId, Lsn), Lsn>;

/// The records of `wal` that start before one of `switches` and end after it, by switch point.
fn crossed(wal: &crate::source::Wal, switches: &BTreeSet<Lsn>) -> BTreeMap<Lsn, Lsn> {
    struct Collect<'s>(&'s BTreeSet<Lsn>);
    impl Work for Collect<'_> {
        type Part = (Vec<(Lsn, Lsn)>, Lsn);
        fn part(&self) -> Self::Part {
            (Vec::new(), Lsn::INVALID)
        }
        fn record(&self, raw: &RawRecord<'_>, part: &mut Self::Part) -> Result<(), Error> {
            let inside = self.0.range(raw.lsn + 1..).take_while(|switch| **switch < raw.end);
            part.0.extend(inside.map(|switch| (*switch, raw.lsn)));
            part.1 = raw.end;
            Ok(())
        }
    }
    let Some(last) = switches.last() else { return BTreeMap::new() };
    let mut crossed = BTreeMap::new();
    let options = scan::Options { start: None, end: None, threads: 1 };
    // Damage is reported where it is; the records before it tell what they tell.
    let _ = scan(wal, options, &Collect(switches), |(found, end)| {
        for (switch, record) in found {
            crossed.entry(switch).or_insert(record);
        }
        if end >= *last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    crossed
}

/// The records around a switch point.
#[derive(Clone, Copy, Debug, Default)]
struct Around {
    /// A record that starts before the switch point and ends after it.
    across: Option<Lsn>,
    /// The record that says which timeline begins, and the parent that it names. C: `xl_end_of_recovery`, `CheckPoint`.
    names: Option<(Lsn, TimelineId)>,
    /// That record comes first after the switch point, or only after others that come before it there.
    in_order: bool,
}

impl Around {
    /// Reads the records from the start of `wal` to the one that says that `child` begins.
    fn read(wal: &crate::source::Wal, switch: Lsn, child: TimelineId) -> Around {
        struct Collect {
            switch: Lsn,
            child: TimelineId,
        }
        impl Work for Collect {
            type Part = Vec<(Lsn, Lsn, Step)>;
            fn part(&self) -> Self::Part {
                Vec::new()
            }
            fn record(&self, raw: &RawRecord<'_>, part: &mut Self::Part) -> Result<(), Error> {
                let step = Step::of(raw, self.child)?;
                let is_across = raw.lsn < self.switch && raw.end > self.switch;
                if is_across || raw.lsn >= self.switch || matches!(step, Step::Names(_)) {
                    part.push((raw.lsn, raw.end, step));
                }
                Ok(())
            }
        }
        let options = scan::Options { start: None, end: None, threads: 1 };
        let mut around = Around { in_order: true, ..Around::default() };
        // Damage is reported where it is; the records before it tell what they tell.
        let _ = scan(wal, options, &Collect { switch, child }, |part| {
            for (lsn, end, step) in part {
                if lsn < switch && end > switch && around.across.is_none() {
                    around.across = Some(lsn);
                }
                match step {
                    Step::Names(parent) => {
                        around.in_order &= lsn >= switch;
                        around.names = Some((lsn, parent));
                        return ControlFlow::Break(());
                    }
                    Step::Other if lsn >= switch => around.in_order = false,
                    Step::Before | Step::Other => {}
                }
            }
            ControlFlow::Continue(())
        });
        around
    }
}

/// What a record means for the start of a timeline.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It says that the timeline begins, and which it forked off.
    Names(TimelineId),
    /// A server writes it before the one that does.
    Before,
    Other,
}

impl Step {
    fn of(raw: &RawRecord<'_>, child: TimelineId) -> Result<Step, Error> {
        if raw.header.rmid != crate::RmgrId::XLOG {
            return Ok(Step::Other);
        }
        let record = raw.decode()?;
        let Some(Payload::Xlog(op)) = record.payload()? else { return Ok(Step::Other) };
        Ok(match op.timeline_switch() {
            Some((parent, begins)) if begins == child => Step::Names(parent),
            _ if matches!(op, xlog::Op::FpwChange { .. }) => Step::Before,
            _ => Step::Other,
        })
    }
}

/// The segments that a timeline has in the history of a newer one: from the one with its begin to before the one with its end,
/// which the next timeline's first segment has a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) timeline: TimelineId,
    /// Number of the first segment.
    pub(crate) first: u64,
    /// Number of the first segment that it does not have.
    pub(crate) behind: u64,
}

impl Owner {
    pub(crate) fn has(&self, number: u64) -> bool {
        (self.first..self.behind).contains(&number)
    }
}

/// Who has which segments in `history`, the oldest first. A timeline that was left in the segment where it began has none.
pub(crate) fn owners(history: &History, segment_size: u32) -> Vec<Owner> {
    let owner = |stretch: history::Stretch| Owner {
        timeline: stretch.timeline,
        first: stretch.begin.segment_number(segment_size),
        behind: stretch.end.map_or(u64::MAX, |end| end.segment_number(segment_size)),
    };
    history.stretches().map(owner).collect()
}

/// Files that are the same segment.
fn duplicates(archive: &Archive, each: Each<'_>) -> ControlFlow<()> {
    let mut seen: BTreeMap<(SegmentName, bool), &ArchiveFile> = BTreeMap::new();
    for (file, segment) in archive.segments() {
        match seen.get(&(segment.name, segment.partial)) {
            None => drop(seen.insert((segment.name, segment.partial), file)),
            Some(other) => match first_difference(archive, file, other) {
                Ok(differs_at) => each(file.remark(RemarkKind::Duplicate { other: other.input.to_string(), differs_at }))?,
                Err(why) => each(file.remark(RemarkKind::Unreadable { reason: why }))?,
            },
        }
    }
    ControlFlow::Continue(())
}

/// Where the WAL in two files first differs.
fn first_difference(archive: &Archive, a: &ArchiveFile, b: &ArchiveFile) -> Result<Option<Lsn>, String> {
    const PIECE: usize = 1 << 20;
    let (a, b) = (archive.wal([a]), archive.wal([b]));
    let (mut a, mut b) = (a.extents(PIECE), b.extents(PIECE));
    loop {
        let next = |extents: &mut crate::source::Extents<'_>| match extents.next() {
            // A file that is cut short differs where it ends.
            Some(Err(error)) if matches!(error.problem, SourceProblem::CutShort { .. }) => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(extent)) => Ok(Some(extent)),
            None => Ok(None),
        };
        match (next(&mut a)?, next(&mut b)?) {
            (None, None) => return Ok(None),
            (Some(one), None) | (None, Some(one)) => return Ok(Some(one.start)),
            (Some(a), Some(b)) => {
                let (left, right) = (a.bytes(), b.bytes());
                let same = left.iter().zip(right).take_while(|(a, b)| a == b).count();
                if same < left.len() || same < right.len() {
                    return Ok(Some(a.start + same as u64));
                }
            }
        }
    }
}

/// What is wrong with histories and labels by themselves, and what other files there are.
fn texts(archive: &Archive, fmt: Option<WalFormat>, each: Each<'_>) -> ControlFlow<()> {
    let remark = |file: &ArchiveFile| {
        let kind = match &file.kind {
            FileKind::Segment(_) => return None,
            FileKind::History { history: Err(error), .. } => RemarkKind::History(error.clone()),
            FileKind::History { history: Ok(history), .. } => {
                let parent = archive.history(history.parent()?.timeline).and_then(|(_, parent)| parent.as_ref().ok())?;
                RemarkKind::HistoryMismatch(history.disagrees(parent)?)
            }
            FileKind::BackupLabel { label, start } => match &**label {
                Err(error) => RemarkKind::BackupLabel(error.clone()),
                Ok(label) => {
                    let (segment, offset) = (*start)?;
                    let expected = segment.start(fmt?.segment_size) + u64::from(offset);
                    if expected == label.start {
                        return None;
                    }
                    RemarkKind::BackupStart { expected, found: label.start }
                }
            },
            FileKind::Unreadable(why) => RemarkKind::Unreadable { reason: why.clone() },
            FileKind::Other if is_known(file.file()) => return None,
            FileKind::Other => RemarkKind::OtherFile,
        };
        Some(file.remark(kind))
    };
    archive.files().iter().filter_map(remark).try_for_each(each)
}

/// Whether servers and receivers keep files of this name beside segments; a stream has none.
fn is_known(file: &str) -> bool {
    file.is_empty()
        || file == "backup_manifest"
        || ["xlogtemp.", "RECOVERYXLOG", "RECOVERYHISTORY"].iter().any(|name| file.starts_with(name))
}

impl ArchiveFile {
    fn remark(&self, kind: RemarkKind) -> Remark {
        Remark { input: self.input.to_string(), kind }
    }
}

/// The value that comes most often; of several, the first.
pub(crate) fn most_frequent<T: Copy + Eq + Hash>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: HashMap<T, (usize, Reverse<usize>)> = HashMap::new();
    for (at, value) in values.enumerate() {
        counts.entry(value).or_insert((0, Reverse(at))).0 += 1;
    }
    counts.into_iter().max_by_key(|(_, rank)| *rank).map(|(value, _)| value)
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.input), self.kind)
    }
}

impl fmt::Display for RemarkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use RemarkKind::*;
        match self {
            Gap { first, last, .. } if first == last => write!(f, "the segment is missing"),
            Gap { last, count, .. } => write!(f, "{count} segments are missing, up to {last}"),
            Duplicate { other, differs_at: None } => write!(f, "the same segment as {}", printable(other)),
            Duplicate { other, differs_at: Some(lsn) } => {
                write!(f, "expected the same bytes as in {}, found others at {lsn}", printable(other))
            }
            Misplaced { expected, found, .. } => {
                write!(f, "expected the segment that starts at {expected}, found the one that starts at {found}")
            }
            NotSegment { found, .. } => write!(f, "{found}; later segments are there"),
            OtherCluster { expected, found } => {
                write!(f, "system identifier: expected {expected}, found {found}: a segment of another cluster")
            }
            OtherSegmentSize { expected, found } => write!(f, "segment size: expected {expected} as in the others, found {found}"),
            OtherMajor { expected, found } => write!(f, "expected WAL of PostgreSQL {expected} as in the others, found {found}"),
            NewerTimeline { expected, found } => write!(f, "expected a first page of timeline {expected} or older, found timeline {found}"),
            NotInHistory { timeline, found } => {
                write!(f, "expected a first page of timeline {timeline} or of one in its history, found timeline {found}")
            }
            NoHistory { timeline } => write!(f, "missing: nothing tells where timeline {timeline} forked off"),
            History(error) => error.fmt(f),
            HistoryMismatch(mismatch) => mismatch.fmt(f),
            SwitchPoint { child, parent, expected, found } => {
                write!(f, "expected timeline {child} to fork off timeline {parent} at {expected}, found ")?;
                match found {
                    SwitchFound::Begins(lsn) => write!(f, "its first record at {lsn}"),
                    SwitchFound::HasSegment(lsn) => write!(f, "a segment of it that starts at {lsn}"),
                    SwitchFound::Parent(parent) => write!(f, "a record that says it forked off timeline {parent}"),
                    SwitchFound::InsideRecord(lsn) => write!(f, "the middle of the record at {lsn}"),
                }
            }
            BackupLabel(error) => error.fmt(f),
            BackupStart { expected, found } => write!(f, "START WAL LOCATION: expected {expected} as in the file's name, found {found}"),
            NotRead { wrapping } => write!(f, "not read: {wrapping}"),
            Unreadable { reason } => write!(f, "cannot be read: {}", printable(reason)),
            Abandoned { child, switch } => write!(f, "abandoned: timeline {child} took over at {switch}"),
            Future { recycled: Some(lsn) } => write!(f, "made ready for later, from the segment that started at {lsn}"),
            Future { recycled: None } => write!(f, "made ready for later, zeroed"),
            OtherFile => write!(f, "neither a segment nor about segments"),
        }
    }
}
