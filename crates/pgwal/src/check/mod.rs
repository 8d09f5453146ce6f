//! Checking WAL: everything that the format allows to check, without stopping at damage.
//!
//! [`check`] reads all segments of a [`Wal`] (made by [`Wal::open_all`]) and reports each damaged range once, as a [`Finding`].
//! What it checks:
//! - page headers: magic, info bits, address, timeline, remaining length, padding, and the long header against the file's name and size
//!   and against the other segments;
//! - records: length, resource manager, link to the record before, checksum, block references, payload to its last byte, images that
//!   decompress to a page, padding, zeroes behind XLOG_SWITCH;
//! - the set: gaps, files of the wrong size, segments of another cluster or another major.
//!
//! Where records stop, the next place is looked for where they start again. Where none comes, the WAL has ended: zeroes or what is
//! left over from an earlier use of a file are no damage then, and neither are whole segments of that kind under later names.
//!
//! Any single bit that is turned is found, but for these:
//! - XLP_BKP_REMOVABLE, up to 18, which the server sets as it likes;
//! - what no record covers: bytes after the end of the WAL, of a record that never became whole, and of the record that began before the
//!   first segment.

mod chain;
mod control;
mod copying;
mod damage;
mod finding;
mod flip;
mod form;
mod links;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use serde::Serialize;

pub use control::{Cluster, ControlProblem, Signal, StartedBy, Told};
pub use copying::is_being_copied;
pub use finding::{Action, Authority, Check, Class, Finding, Problem};
pub use runs::{Run, Runs};

use crate::format::{WalFormat, WalMagic};
use crate::frame::{End, EndReason};
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::ordered::{self, Results};
use crate::page::PageHeader;
use crate::record::RECORD_HEADER_SIZE;
use crate::source::{
    AfterPacked, NoFile, NotWal, Piece, Pieces, SourceError, SourceProblem, Span, Wal, file_of_input, is_packed, is_partial, piece_size,
    wrapping,
};
use chain::{Chain, Found, Place, begins_anew};
use links::Links;

/// What to check, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nothing before this LSN is looked at; `None`: all there is.
    pub from: Option<Lsn>,
    /// Nothing from this LSN on is looked at; `None`: all there is.
    pub to: Option<Lsn>,
    /// System identifier that all segments must have; `None`: that of most of them.
    pub system_identifier: Option<u64>,
    /// Worker threads; what is found does not depend on their number.
    pub threads: usize,
}

/// What a check reports while it runs, in the order of timelines and segments.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Something is wrong.
    Finding(Finding),
    /// A file has been checked.
    Checked(Checked),
}

/// A file that has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// What the user knows it by.
    pub input: String,
    /// Segment that its name tells.
    pub segment: Option<SegmentName>,
    /// Bytes that were looked at.
    pub bytes: u64,
    /// Whole records with the right checksum that end in it.
    pub records: u64,
    /// Whether the WAL ended before it: a segment that is kept for later use.
    pub leftover: bool,
}

/// What there is to say besides the findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Files with WAL in them.
    pub segments: u64,
    /// Files that the WAL ended before: they are kept for later use.
    pub leftover: Vec<String>,
    /// Files that were there when the check began and not when they were to be read, as a server removes old segments.
    pub vanished: Vec<String>,
    /// Files that somebody is still copying or writing: nothing is said of them yet.
    pub being_copied: Vec<String>,
    /// Whole records with the right checksum.
    pub records: u64,
    /// Bytes of all files that were looked at.
    pub bytes: u64,
    /// Start of the first record and of the last one, by LSN.
    pub lsns: Option<Range<Lsn>>,
    /// Timelines of the pages.
    pub timelines: BTreeSet<TimelineId>,
    /// Where the WAL of each timeline ends, where it does.
    pub ends: Vec<TimelineEnd>,
    /// System identifier of the segments. JSON: a string.
    #[serde(serialize_with = "as_string")]
    pub system_identifier: Option<u64>,
    /// Major version that wrote the WAL.
    pub major: Option<u8>,
    /// Number of findings.
    pub findings: u64,
}

/// Where a timeline's WAL ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineEnd {
    /// By the name of its last segment.
    pub timeline: TimelineId,
    /// Where, and why.
    #[serde(flatten)]
    pub end: End,
}

fn as_string<S: serde::Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => crate::json::as_string(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// So many of the last files without WAL may turn out to have lost it.
const MOST_LEFTOVER: usize = 100;

/// More files of one segment are not taken together.
const MOST_COPIES: usize = 16;

/// Copies of one segment that differ, and are tried where it goes on.
const RIVALS: usize = 4;

/// So many files tell what is usual among them: format and system identifier.
const VOTERS: usize = 15;
/// How many segments' worth of bytes a compressed file is unpacked to, to see whether it unpacks to its end.
const MOST_AFTER: u64 = 3;

/// Checks `wal`, which [`Wal::open_all`] made, and gives `sink` what is found, in order; it may stop the check.
pub fn check(wal: &Wal, options: Options, mut sink: impl FnMut(Event) -> ControlFlow<()>) -> Summary {
    let plan = Plan::new(wal, options, piece_size(ordered::window(options.threads)));
    let system_identifier = plan.system_identifier;
    let mut walk = Walk::new(wal, options, system_identifier);
    walk.is_given_alone = plan.is_given_alone;
    let work_on = |job: Job, is_ahead: bool| if is_ahead { job.ahead(system_identifier) } else { (job, None) };
    let flow = ordered::with_workers(options.threads, plan, work_on, |feed| {
        let mut flow = Flow::Continue(());
        while flow.is_continue()
            && let Some((job, ahead)) = feed.next()
        {
            flow = walk.take(job, ahead, &mut sink);
        }
        flow
    });
    if flow.is_continue() {
        // Whether the sink wants more makes no difference at the end.
        let _ = walk.choose(&mut sink).is_continue() && walk.decide(None, &mut sink).is_continue() && walk.finish(&mut sink).is_continue();
    }
    walk.summary
}

/// A piece of the work, in the order of the files.
enum Job {
    /// A file starts.
    Begin { file: usize, place: Arc<Place>, start: Lsn, front: Front },
    /// Some of its pages, whole unless the file ends there.
    Bytes { file: usize, place: Arc<Place>, start: Lsn, bytes: Span, range: Range<usize> },
    /// It ends.
    End { len: u64, after: Option<AfterPacked> },
    /// It cannot be read, or is not WAL.
    Failed { file: usize, class: Class },
    /// It is gone.
    Vanished { file: usize },
}

/// What the first page of a file says.
#[derive(Clone, Copy, Debug)]
struct Front {
    /// The magic of its major, where that is not the one of most files.
    other_major: Option<WalMagic>,
    /// Its first or second page is of the place that its name tells.
    is_wal: bool,
    /// It is of another cluster.
    is_foreign: bool,
    /// Its first record is a checkpoint that follows nothing.
    begins_anew: bool,
}

/// Reads the files and finds out how each is to be read.
struct Plan<'w> {
    wal: &'w Wal,
    pieces: Pieces<'w>,
    files: Vec<(&'w str, Option<SegmentName>)>,
    options: Options,
    /// Format of most files, or of the first that shows one.
    fmt: Option<WalFormat>,
    system_identifier: Option<u64>,
    /// The system identifier was given, and no file that was asked has it.
    is_given_alone: bool,
    /// The file that is being read, and whether any of it is wanted.
    place: Option<(Arc<Place>, bool)>,
    queue: Option<Job>,
}

impl<'w> Plan<'w> {
    fn new(wal: &'w Wal, options: Options, piece: usize) -> Plan<'w> {
        let fronts = wal.fronts(VOTERS);
        let vote = form::vote(fronts.iter().map(Vec::as_slice));
        let (fmt, system_identifier) = (vote.map(|vote| vote.0), options.system_identifier.or(vote.map(|vote| vote.1)));
        let id_of = |front: &Vec<u8>| PageHeader::read(front).ok().and_then(|(_, header)| header.long).map(|long| long.system_identifier);
        let is_given_alone = options.system_identifier.is_some_and(|given| fronts.iter().filter_map(id_of).all(|id| id != given));
        let (pieces, files) = (wal.pieces(piece), wal.files().collect());
        Plan { wal, pieces, files, options, fmt, system_identifier, is_given_alone, place: None, queue: None }
    }

    /// Looks at the first bytes of a file.
    fn begin(&mut self, file: usize, front: &[u8]) -> Result<(Job, Arc<Place>, bool), Class> {
        let (input, name) = self.files.get(file).copied().unwrap_or_default();
        if let Some(wrapping) = wrapping(front, file_of_input(input)) {
            return Err(Class::NotRead { wrapping });
        }
        let mut form = form::find(front, name, self.fmt).ok_or(Class::NotWal)?;
        let long = PageHeader::read(front).ok().and_then(|(_, header)| header.long);
        form.fmt = self.wal.complete(form.fmt, long.map(|long| long.system_identifier));
        let other_major = self.fmt.filter(|fmt| fmt.major != form.fmt.major).and_then(|_| WalMagic::of(form.fmt.major));
        self.fmt.get_or_insert(form.fmt);
        let before = match self.place.take().map(|(place, _)| place) {
            // Another copy of the segment.
            Some(place) if name.is_some() && place.name == name => place.before.clone(),
            Some(place) => Some(Arc::new(Place { before: None, ..(*place).clone() })),
            None => None,
        };
        let before = before.filter(|before| before.fmt.is_same_wal(form.fmt) && before.start < form.start);
        let place = Arc::new(Place { input: input.into(), name, fmt: form.fmt, start: form.start, before });
        let end = if name.is_some() { form.start + u64::from(form.fmt.segment_size) } else { Lsn(u64::MAX) };
        let is_wanted = self.options.from.is_none_or(|from| end > from) && self.options.to.is_none_or(|to| form.start < to);
        let start = self.first_page(&place).max(form.start);
        let ids = (long.map(|long| long.system_identifier), self.system_identifier);
        let is_foreign = matches!(ids, (Some(found), Some(expected)) if found != expected);
        let begins_anew = begins_anew(front, form.fmt, form.start);
        let front = Front { other_major, is_wal: form.is_wal, is_foreign, begins_anew };
        Ok((Job::Begin { file, place: Arc::clone(&place), start, front }, place, is_wanted))
    }

    /// The page that the check starts at.
    fn first_page(&self, place: &Place) -> Lsn {
        self.options.from.map_or(Lsn::INVALID, |from| Lsn(from.0 - place.fmt.page_offset(from)))
    }

    /// The part of some bytes that is wanted: whole pages, and nothing after the end of a segment.
    fn wanted(&self, place: &Place, start: Lsn, len: usize) -> Range<usize> {
        let size = u64::from(place.fmt.wal_page_size);
        let mut end = self.options.to.map_or(u64::MAX, |to| to.0.checked_next_multiple_of(size).unwrap_or(u64::MAX));
        if place.name.is_some() {
            end = end.min((place.start + u64::from(place.fmt.segment_size)).0);
        }
        let at = |lsn: Lsn| usize::try_from(lsn - start).unwrap_or(usize::MAX).min(len);
        let (first, last) = (at(self.first_page(place)), at(Lsn(end)));
        first..last.max(first)
    }
}

impl Iterator for Plan<'_> {
    type Item = Job;

    fn next(&mut self) -> Option<Job> {
        if let Some(job) = self.queue.take() {
            return Some(job);
        }
        loop {
            match self.pieces.next()? {
                (file, Piece::Bytes { offset, bytes }) => {
                    let mut begin = None;
                    if offset == 0 {
                        match self.begin(file, bytes.bytes()) {
                            Ok((job, place, is_wanted)) => {
                                self.place = Some((place, is_wanted));
                                if !is_wanted {
                                    self.pieces.skip_file();
                                }
                                begin = is_wanted.then_some(job);
                            }
                            Err(class) => {
                                self.pieces.skip_file();
                                return Some(Job::Failed { file, class });
                            }
                        }
                    }
                    let Some((place, true)) = &self.place else { continue };
                    let size = u64::from(place.fmt.segment_size);
                    if place.name.is_some() && offset >= size && offset < MOST_AFTER * size && is_packed(&place.input) {
                        // What unpacks to too much may be damaged: the checksum at the end tells.
                        continue;
                    }
                    if place.name.is_some() && offset >= size {
                        // However much there may be after a segment, nobody wants it.
                        self.pieces.skip_file();
                        return Some(Job::End { len: offset + bytes.len() as u64, after: None });
                    }
                    let start = place.start + offset;
                    let range = self.wanted(place, start, bytes.len());
                    let bytes = (!range.is_empty()).then(|| Job::Bytes { file, place: Arc::clone(place), start, bytes, range });
                    if begin.is_some() {
                        self.queue = bytes;
                        return begin;
                    }
                    if bytes.is_some() {
                        return bytes;
                    }
                }
                // A segment that is being received, of which nothing has come yet.
                (file, Piece::End { len: 0, .. }) if self.files.get(file).is_some_and(|(input, _)| is_partial(input)) => {}
                (file, Piece::End { len: 0, .. }) => return Some(Job::Failed { file, class: Class::EmptyFile }),
                (_, Piece::End { len, after }) => return Some(Job::End { len, after }),
                (file, Piece::Failed(SourceError { problem: SourceProblem::Io(e), .. })) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Some(Job::Vanished { file });
                }
                (file, Piece::Failed(error)) => return Some(Job::Failed { file, class: class(&error) }),
            }
        }
    }
}

/// Why an input cannot be read, without its name.
fn class(error: &SourceError) -> Class {
    let reason = match &error.problem {
        SourceProblem::NoFile(NoFile::Unknown { reason }) => reason.clone(),
        SourceProblem::NoFile(what) => return Class::NotAFile { what: what.clone() },
        SourceProblem::NotWal(NotWal::Wrapped(wrapping)) => return Class::NotRead { wrapping: *wrapping },
        SourceProblem::Io(e) => e.to_string(),
        SourceProblem::Unpack(why) => format!("does not unpack: {why}"),
        _ => error.to_string(),
    };
    Class::Unreadable { reason }
}

/// Pages that a worker checked without knowing what came before.
struct Ahead {
    /// The bytes before the seam.
    front: Vec<u8>,
    /// The state at the first page at which it is what a reader in order must have too.
    seam: Chain,
    /// The state at the end.
    chain: Chain,
    /// What was found after the seam.
    found: Found,
}

impl Job {
    /// Reads the bytes, if they have not been read.
    fn read(self) -> Job {
        let Job::Bytes { file, place, start, bytes, range } = self else { return self };
        match bytes.read() {
            // A file that is shorter than it was ends earlier.
            Ok(data) => {
                let range = range.start.min(data.len())..range.end.min(data.len());
                Job::Bytes { file, place, start, bytes: Span::Ready(data), range }
            }
            Err(e) => Job::Failed { file, class: Class::Unreadable { reason: e.to_string() } },
        }
    }

    /// Checks pages before their turn; gives up, and leaves it to the one in order, at anything unusual.
    ///
    /// What can be read again is not kept: this thread reads the next pages into memory that it has just used.
    fn ahead(self, system_identifier: Option<u64>) -> (Job, Option<Ahead>) {
        let again = match &self {
            Job::Bytes { file, place, start, bytes, range } => bytes.again().map(|bytes| {
                let (file, place, start, range) = (*file, Arc::clone(place), *start, range.clone());
                Job::Bytes { file, place, start, bytes, range }
            }),
            _ => None,
        };
        let job = self.read();
        let ahead = job.check(system_identifier);
        match again {
            Some(again) if ahead.is_some() => (again, ahead),
            _ => (job, ahead),
        }
    }

    /// The work of [`Job::ahead`].
    fn check(&self, system_identifier: Option<u64>) -> Option<Ahead> {
        let Job::Bytes { place, start, bytes, range, .. } = self else { return None };
        let bytes = bytes.bytes().get(range.clone())?;
        let start = *start + range.start as u64;
        let mut chain = Chain::new(place.fmt, start, system_identifier);
        let mut found = Found::default();
        while !chain.is_settled() {
            if !chain.next_page(place, bytes, start, &mut found) || !found.findings.is_empty() {
                return None;
            }
        }
        let seam = chain.clone();
        let front = bytes.get(..usize::try_from(seam.position() - start).ok()?)?.to_vec();
        let mut found = Found::default();
        while chain.next_page(place, bytes, start, &mut found) {
            if !found.findings.is_empty() || !chain.is_sound() {
                return None;
            }
        }
        chain.is_settled().then_some(Ahead { front, seam, chain, found })
    }
}

/// The check in order; its chain is the state of truth.
struct Walk<'w> {
    wal: &'w Wal,
    files: Vec<(&'w str, Option<SegmentName>)>,
    options: Options,
    links: Option<Links>,
    chain: Option<Chain>,
    /// Number of the file that the chain has come to, and its place.
    current: Option<(usize, Arc<Place>)>,
    /// Chains at the end of segments that another timeline goes on from.
    saved: BTreeMap<usize, Chain>,
    /// What is known of the current file.
    checked: Option<Checked>,
    /// Number of the last file of which something came.
    begun: Option<usize>,
    /// The segment that is there more than once, while its files are checked.
    copies: Option<Copies>,
    /// Copies of the last such segment that are whole and differ: the records that follow tell which of them they follow.
    rivals: Vec<Rival>,
    /// The file that stands for the last such segment, for findings that begin in it.
    chosen: Option<(SegmentName, String)>,
    /// The WAL of another history has been told of, and has not ended.
    is_other_history: bool,
    /// Names whose files have the content of another segment.
    misnamed: BTreeSet<SegmentName>,
    /// What was found in the compressed file that is being read: all the same damage, if it does not unpack to its end.
    held: Vec<Finding>,
    /// The system identifier was given, and no segment has it.
    is_given_alone: bool,
    summary: Summary,
}

/// The files of one segment. Each is checked as what comes after the segment before; the WAL goes on from the best one.
struct Copies {
    /// Number of the first of them, which stands for all in [`Links`].
    lead: usize,
    /// Files still to come.
    left: usize,
    /// What comes before: known once the first one has begun.
    enter: Option<Option<Chain>>,
    /// The place before.
    before: Option<(usize, Arc<Place>)>,
    done: Vec<Copy>,
}

/// A file of [`Copies`].
struct Copy {
    file: usize,
    /// `.partial`: it may end anywhere.
    may_be_short: bool,
    place: Option<Arc<Place>>,
    /// The state at its end; `None`: it could not be read.
    chain: Option<Chain>,
    events: Vec<Event>,
}

impl Copy {
    fn findings(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Finding(_))).count()
    }

    /// How good it is: whole, then WAL to its end, then fewest findings, then most WAL.
    fn rank(&self) -> (bool, bool, bool, std::cmp::Reverse<usize>, Lsn) {
        let sound = self.chain.as_ref().map_or(Lsn::INVALID, Chain::sound_to);
        let is_full = self.is_full();
        (self.chain.is_some(), is_full && self.findings() == 0, is_full, std::cmp::Reverse(self.findings()), sound)
    }

    /// Whether its WAL goes to its end.
    fn is_full(&self) -> bool {
        match (&self.chain, &self.place) {
            (Some(chain), Some(place)) => chain.sound_to() >= place.start + u64::from(place.fmt.segment_size),
            _ => false,
        }
    }

    /// Whether nothing is wrong with it.
    fn is_whole(&self) -> bool {
        self.chain.is_some() && self.findings() == 0 && (self.is_full() || !self.may_be_short)
    }
}

/// A copy that is whole and differs from the one that was chosen.
struct Rival {
    chain: Chain,
    input: String,
    /// The one that was chosen.
    other: String,
    finding: Finding,
}

type Flow = ControlFlow<()>;

/// Moves `chain` over all that was checked ahead, if it comes to the seam without a finding and in the state that was assumed there;
/// what was found on the whole way.
fn take_over(chain: &mut Chain, ahead: Ahead, place: &Place, start: Lsn) -> Option<Found> {
    let mut before = Found::default();
    let mut reader = chain.clone();
    while reader != ahead.seam {
        if !reader.next_page(place, &ahead.front, start, &mut before) || !before.findings.is_empty() {
            return None;
        }
    }
    reader.go_on_from(ahead.chain).then(|| {
        *chain = reader;
        let mut found = ahead.found;
        found.add(&mut before);
        found
    })
}

impl<'w> Walk<'w> {
    fn new(wal: &'w Wal, options: Options, system_identifier: Option<u64>) -> Walk<'w> {
        let (files, summary) = (wal.files().collect(), Summary { system_identifier, ..Summary::default() });
        Walk {
            wal,
            files,
            options,
            links: None,
            chain: None,
            current: None,
            saved: BTreeMap::new(),
            checked: None,
            begun: None,
            copies: None,
            rivals: Vec::new(),
            chosen: None,
            is_other_history: false,
            misnamed: BTreeSet::new(),
            held: Vec::new(),
            is_given_alone: false,
            summary,
        }
    }

    fn take(&mut self, job: Job, ahead: Option<Ahead>, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        if let Job::Begin { file, .. } | Job::Failed { file, .. } | Job::Vanished { file } = &job
            && self.begun != Some(*file)
        {
            self.begun = Some(*file);
            self.enter(*file, sink)?;
        }
        let is_end = matches!(job, Job::End { .. } | Job::Failed { .. } | Job::Vanished { .. });
        self.take_job(job, ahead, sink)?;
        if is_end && self.copies.is_some() { self.leave(sink) } else { Flow::Continue(()) }
    }

    /// A file comes: where it is the first of several of its segment, they are taken together.
    fn enter(&mut self, file: usize, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        let name_of = |at: usize| self.files.get(at).and_then(|(_, name)| *name);
        // Some of its files may not have been looked at.
        if self.copies.as_ref().is_some_and(|copies| name_of(copies.lead) != name_of(file)) {
            self.choose(sink)?;
        }
        let name_of = |at: usize| self.files.get(at).and_then(|(_, name)| *name);
        if let (None, Some(name)) = (&self.copies, name_of(file)) {
            let is_first = file.checked_sub(1).and_then(name_of) != Some(name);
            let count = (file..).take(MOST_COPIES + 1).take_while(|&at| name_of(at) == Some(name)).count();
            // What is called like one segment a hundred thousand times is no copy of anything.
            if is_first && (2..=MOST_COPIES).contains(&count) {
                let before = self.current.clone();
                self.copies = Some(Copies { lead: file, left: count, enter: None, before, done: Vec::new() });
            }
        }
        if let Some(copies) = &mut self.copies {
            copies.left = copies.left.saturating_sub(1);
            let may_be_short = self.files.get(file).is_some_and(|(input, _)| is_partial(input));
            copies.done.push(Copy { file, may_be_short, place: None, chain: None, events: Vec::new() });
        }
        Flow::Continue(())
    }

    /// A file of several has been checked.
    fn leave(&mut self, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        let Some(copies) = &mut self.copies else { return Flow::Continue(()) };
        if let Some(copy) = copies.done.last_mut()
            && let Some((_, place)) = self.current.as_ref().filter(|(at, _)| *at == copy.file)
        {
            (copy.place, copy.chain) = (Some(Arc::clone(place)), self.chain.take());
        }
        if copies.left == 0 { self.choose(sink) } else { Flow::Continue(()) }
    }

    /// All files of a segment have been checked: the WAL goes on from the best one, and what is wrong with the others is told with that.
    fn choose(&mut self, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        let Some(mut copies) = self.copies.take() else { return Flow::Continue(()) };
        let mut best = 0;
        for (at, copy) in copies.done.iter().enumerate() {
            if copies.done.get(best).is_some_and(|known| known.rank() < copy.rank()) {
                best = at; // of equals, the first
            }
        }
        let input_of = |files: &[(&str, Option<SegmentName>)], file: usize| files.get(file).map_or("", |(input, _)| *input).to_owned();
        let Some(chosen) = copies.done.get_mut(best) else { return Flow::Continue(()) };
        let (chosen_file, chosen_input, is_whole) = (chosen.file, input_of(&self.files, chosen.file), chosen.is_whole());
        let (place, chain) = (chosen.place.clone(), chosen.chain.clone());
        let name = self.files.get(copies.lead).and_then(|(_, name)| *name);
        if is_whole && let (Some(place), Some(chain)) = (&place, &chain) {
            for copy in copies.done.iter_mut().filter(|copy| copy.file != chosen_file) {
                let input = input_of(&self.files, copy.file);
                self.compare(copy, input, chain, (chosen_file, &chosen_input), place);
            }
        }
        for copy in copies.done {
            let input = input_of(&self.files, copy.file);
            for mut event in copy.events {
                if let (Event::Finding(finding), true) = (&mut event, is_whole && copy.file != chosen_file) {
                    // What goes over the border to the segment before is right with the other copy, so this one is to blame.
                    if let (true, Some(place)) = (finding.input != input, &copy.place) {
                        finding.lsns = finding.lsns.take().map(|lsns| lsns.start.max(place.start)..lsns.end.max(place.start + 1));
                        finding.offsets = finding.lsns.as_ref().map(|lsns| lsns.start - place.start..lsns.end - place.start);
                        (finding.input, finding.segment) = (input.clone(), place.name);
                    }
                    finding.whole_copy = Some(chosen_input.clone());
                }
                match event {
                    Event::Finding(finding) => self.emit(finding, sink)?,
                    event => sink(event)?,
                }
            }
        }
        match (place, chain) {
            (Some(place), Some(chain)) => {
                if self.links.as_ref().is_some_and(|links| links.is_fork(copies.lead)) {
                    self.saved.insert(copies.lead, chain.clone());
                }
                (self.chain, self.current) = (Some(chain), Some((copies.lead, place)));
            }
            // None of them can be read.
            _ => {
                (self.chain, self.current) = (copies.enter.flatten().or(self.chain.take()), copies.before);
                if let (Some(name), Some((_, place))) = (name, &self.current) {
                    let end = name.start(place.fmt.segment_size) + u64::from(place.fmt.segment_size);
                    if let Some(chain) = self.chain.as_mut().filter(|chain| chain.position() < end) {
                        chain.skip_to(end, Class::Corrupted);
                    }
                    self.current = self.current.take().map(|(_, place)| (copies.lead, place));
                }
            }
        }
        self.chosen = name.map(|name| (name, chosen_input));
        Flow::Continue(())
    }

    /// Compares a copy with the one that was chosen, which ended with `chain`: it may end earlier, or have other WAL.
    fn compare(&mut self, copy: &mut Copy, input: String, chain: &Chain, chosen: (usize, &str), place: &Place) {
        let (chosen_file, chosen) = chosen;
        let Some(own) = copy.chain.take().filter(|_| copy.findings() == 0) else { return };
        let name = self.files.get(copy.file).and_then(|(_, name)| *name);
        let size = u64::from(place.fmt.segment_size);
        let end = place.start + size;
        let (reach, theirs) = (own.sound_to().min(end), chain.sound_to().min(end));
        let is_short = is_partial(&input);
        if reach < theirs {
            // A file that may end anywhere, or two that a server and a receiver are writing.
            if is_short || (theirs < end && is_partial(chosen)) {
                return;
            }
            let (class, lsns) = (own.class_of_end().unwrap_or(Class::Corrupted), Some(reach..end));
            let offsets = Some(reach - place.start..size);
            copy.events.push(Event::Finding(Finding {
                input,
                segment: name,
                offsets,
                lsns,
                record: None,
                class,
                problem: None,
                whole_copy: None,
            }));
            return;
        }
        let Some(at) = self.wal.first_difference(copy.file, chosen_file, reach - place.start) else { return };
        let lsn = place.start + at;
        let class = Class::DuplicateSegment { other: chosen.to_owned() };
        let problem = crate::set::RemarkKind::Duplicate { other: chosen.to_owned(), differs_at: Some(lsn) };
        let finding = Finding {
            input: input.clone(),
            segment: name,
            offsets: Some(at..size),
            lsns: Some(lsn..end),
            record: None,
            class,
            problem: Some(Problem::Set(problem)),
            whole_copy: None,
        };
        if own == *chain || is_short || self.rivals.len() >= RIVALS {
            copy.events.push(Event::Finding(finding));
        } else {
            self.rivals.push(Rival { chain: own, input, other: chosen.to_owned(), finding });
        }
    }

    /// The first bytes after a segment of which there are different copies, or the end: the records there tell which one they follow.
    fn decide(&mut self, next: Option<(&Place, &[u8], Lsn)>, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        let rivals = std::mem::take(&mut self.rivals);
        // The next segment may be there more than once, too, with one copy for each of them.
        let further: Vec<Vec<u8>> = match &self.copies {
            Some(copies) => (copies.lead..=copies.lead.saturating_add(copies.left)).filter_map(|at| self.wal.front(at)).collect(),
            None => Vec::new(),
        };
        let goes_on =
            |chain: &Chain, place: &Place, bytes: &[u8], start| chain.position() != start || chain.goes_on_in(place, bytes, start);
        let fits = |chain: &Chain| match next {
            Some((place, bytes, start)) => {
                goes_on(chain, place, bytes, start) || further.iter().any(|front| goes_on(chain, place, front, start))
            }
            None => false,
        };
        let follows = |chain: &Chain| next.is_some_and(|(place, bytes, start)| goes_on(chain, place, bytes, start));
        let chosen_fits = self.chain.as_ref().is_some_and(fits);
        let mut is_followed = self.chain.as_ref().is_some_and(follows);
        for rival in rivals {
            let mut finding = rival.finding;
            let rival_fits = fits(&rival.chain);
            if !is_followed && follows(&rival.chain) {
                is_followed = true;
                self.chain = Some(rival.chain);
            }
            match (chosen_fits, rival_fits) {
                (true, false) => finding.whole_copy = Some(rival.other),
                (false, true) => {
                    // The other one is to blame.
                    finding.whole_copy = Some(rival.input.clone());
                    finding.class = Class::DuplicateSegment { other: rival.input.clone() };
                    if let Some(Problem::Set(crate::set::RemarkKind::Duplicate { other, .. })) = &mut finding.problem {
                        *other = rival.input.clone();
                    }
                    finding.input = rival.other;
                    self.chosen = finding.segment.map(|name| (name, rival.input));
                }
                _ => {}
            }
            self.emit(finding, sink)?;
        }
        if let Some(copies) = self.copies.as_mut().filter(|copies| copies.enter.is_some()) {
            copies.enter = Some(self.chain.clone());
        }
        Flow::Continue(())
    }

    fn take_job(&mut self, job: Job, ahead: Option<Ahead>, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        match job {
            Job::Begin { file, place, start, front } => self.begin(file, place, start, front, sink),
            job @ Job::Bytes { .. } => self.bytes(job, ahead, sink),
            Job::End { len, after } => self.end(len, after, sink),
            Job::Failed { file, class } => self.failed(file, class, sink),
            Job::Vanished { file } => {
                self.summary.vanished.extend(self.files.get(file).map(|(input, _)| (*input).to_owned()));
                Flow::Continue(())
            }
        }
    }

    fn begin(&mut self, file: usize, place: Arc<Place>, start: Lsn, front: Front, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        self.flush_held(sink)?;
        let Front { other_major, is_wal, is_foreign, begins_anew } = front;
        let entered = self.copies.as_mut().and_then(|copies| copies.enter.clone());
        if let Some(chain) = entered {
            self.chain = chain;
            return self.begin_file(file, place, start, other_major, sink);
        }
        if self.links.is_none() {
            self.links = Some(Links::new(&self.files, place.fmt.segment_size));
        }
        let mut starts_over = false;
        let is_later = self.current.as_ref().is_some_and(|(_, before)| before.start < place.start);
        if begins_anew && is_later && self.chain.is_some() && !is_foreign && self.options.from.is_none_or(|from| from < start) {
            self.anew(&place, sink)?;
            starts_over = true;
        } else if is_foreign && self.chain.as_ref().is_some_and(Chain::seems_ended) {
            // What somebody else left after the end of the WAL does not make it go on.
            self.finish(sink)?;
            starts_over = true;
        }
        let Some(links) = &self.links else { return Flow::Continue(()) };
        let (before, gap) = (links.before(file), links.gap(file).filter(|_| !is_foreign && !begins_anew));
        let follows = |chain: &Chain, at: usize| match place.name {
            Some(_) => before == Some(at),
            None => chain.position() == place.start,
        };
        let continues = match (&self.chain, &self.current) {
            (Some(chain), Some((at, _))) => follows(chain, *at) && chain.position() == start,
            _ => false,
        };
        // A gap counts where there is WAL after it: what is left over under later names may have gaps.
        let gap = gap.filter(|_| is_wal && self.chain.is_some() && self.options.from.is_none_or(|from| from < start));
        if let Some((first, last)) = gap {
            let fmt = place.fmt;
            let lsns = first.start(fmt.segment_size)..last.start(fmt.segment_size) + u64::from(fmt.segment_size);
            let class = Class::MissingSegment { first, last };
            if let Some(chain) = &mut self.chain {
                chain.goes_on(start);
            }
            self.finish(sink)?;
            let segment = Some(first);
            let missing = Finding {
                input: first.to_string(),
                segment,
                offsets: None,
                lsns: Some(lsns),
                record: None,
                class,
                problem: None,
                whole_copy: None,
            };
            self.report(missing, sink)?;
        } else if !continues {
            let saved =
                before.and_then(|before| self.saved.get(&before)).filter(|chain| chain.position() == start && !starts_over).cloned();
            self.finish(sink)?;
            self.chain = saved;
        }
        if let Some(copies) = &mut self.copies {
            copies.enter = Some(self.chain.clone());
        }
        self.begin_file(file, place, start, other_major, sink)
    }

    fn begin_file(
        &mut self,
        file: usize,
        place: Arc<Place>,
        start: Lsn,
        other_major: Option<WalMagic>,
        sink: &mut impl FnMut(Event) -> Flow,
    ) -> Flow {
        self.forget(file);
        if let Some(found) = other_major {
            self.finish(sink)?;
            let expected = self.summary.major.and_then(WalMagic::of).unwrap_or(found);
            let lsns = place.start..place.start + u64::from(place.fmt.segment_size);
            let class = Class::WrongMajor { expected, found };
            let input = place.input.to_string();
            let offsets = Some(0..place.fmt.segment_size.into());
            self.report(
                Finding { input, segment: place.name, offsets, lsns: Some(lsns), record: None, class, problem: None, whole_copy: None },
                sink,
            )?;
        }
        let system_identifier = self.summary.system_identifier;
        self.chain.get_or_insert_with(|| Chain::new(place.fmt, start, system_identifier));
        self.summary.major.get_or_insert(place.fmt.major);
        self.checked = Some(Checked { input: place.input.to_string(), segment: place.name, bytes: 0, records: 0, leftover: false });
        self.current = Some((file, place));
        Flow::Continue(())
    }

    /// The WAL begins anew at `place`, after other WAL: that has ended, and the segments between never were, or are of no use.
    fn anew(&mut self, place: &Place, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        let ends = self.summary.ends.len();
        self.finish(sink)?;
        let ended = self.summary.ends.get(ends..).and_then(|ends| ends.last()).map(|end| end.end.lsn);
        let header = place.fmt.page_header_size(place.start);
        let record = place.start + header;
        let finding = Finding {
            input: place.input.to_string(),
            segment: place.name,
            offsets: Some(header..header + RECORD_HEADER_SIZE as u64),
            lsns: Some(record..record + RECORD_HEADER_SIZE as u64),
            record: Some(record),
            class: Class::WalReset { ended },
            problem: None,
            whole_copy: None,
        };
        self.report(finding, sink)
    }

    fn bytes(&mut self, job: Job, ahead: Option<Ahead>, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        let (Some(chain), Job::Bytes { place, start, range, .. }) = (&mut self.chain, &job) else { return Flow::Continue(()) };
        let start = *start + range.start as u64;
        let len = range.len() as u64;
        if !self.rivals.is_empty() {
            let (place, range) = (Arc::clone(place), range.clone());
            let job = job.read();
            if let Job::Bytes { bytes, .. } = &job {
                let bytes = bytes.bytes().get(range).unwrap_or_default().to_vec();
                self.decide(Some((&place, &bytes, start)), sink)?;
            }
            return self.bytes(job, None, sink);
        }
        if let Some(found) = ahead.and_then(|ahead| take_over(chain, ahead, place, start)) {
            return self.take_bytes(len, found, sink);
        }
        let mut found = Found::default();
        match job.read() {
            Job::Bytes { place, bytes, range, .. } => {
                let bytes = bytes.bytes().get(range).unwrap_or_default();
                while chain.next_page(&place, bytes, start, &mut found) {}
                self.take_bytes(bytes.len() as u64, found, sink)
            }
            Job::Failed { file, class } => self.failed(file, class, sink),
            _ => Flow::Continue(()),
        }
    }

    /// Some bytes have been checked.
    fn take_bytes(&mut self, len: u64, found: Found, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        if let Some(checked) = &mut self.checked {
            checked.bytes += len;
            checked.records += found.records;
        }
        self.summary.bytes += len;
        if let Some(chain) = &self.chain {
            self.summary.system_identifier = chain.system_identifier();
        }
        self.take_found(found, sink)
    }

    /// The file has ended.
    fn end(&mut self, len: u64, after: Option<AfterPacked>, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        self.flush_held(sink)?;
        let (Some((file, place)), Some(mut checked)) = (&self.current, self.checked.take()) else { return Flow::Continue(()) };
        let (file, place) = (*file, Arc::clone(place));
        let size = place.fmt.segment_size;
        let seems_ended = self.chain.as_ref().is_some_and(Chain::seems_ended);
        checked.leftover = seems_ended && checked.records == 0;
        // What no server leaves there is told, though it is after the end of the WAL.
        if let Some(class) = self.chain.as_ref().filter(|_| checked.leftover).and_then(|chain| chain.strange(place.start)) {
            checked.leftover = false;
            let finding = Finding {
                input: place.input.to_string(),
                segment: place.name,
                offsets: Some(0..len),
                lsns: Some(place.start..place.start + u64::from(size)),
                record: None,
                class,
                problem: None,
                whole_copy: None,
            };
            self.report(finding, sink)?;
        }
        let expected = u64::from(size);
        let is_whole = if place.name.is_some() { len == expected } else { len.is_multiple_of(expected) };
        let may_be_short = place.input.contains(".partial") && len < expected;
        if !(is_whole || may_be_short || place.name.is_none() && seems_ended) {
            let (len, end) = match place.name {
                Some(_) => (len, place.start + expected),
                None => (len % expected, Lsn(place.start.0.saturating_add(len.next_multiple_of(expected)))),
            };
            let (class, bytes) = match len < expected {
                true => (Class::Truncated { len, expected: size }, len..expected),
                false => (Class::TooLong { len, expected: size }, expected..len),
            };
            let lsns = (len < expected).then(|| Lsn(end.0 - (expected - len))..end);
            if let Some(chain) = self.chain.as_mut().filter(|_| is_packed(&place.input)) {
                // A damaged compressed file unpacks to anything, of any length: that is the same damage.
                chain.forget_lost_from(place.start);
            }
            let is_told = self.chain.as_ref().is_some_and(Chain::is_displaced);
            if let (true, Some(chain)) = (len < expected, &mut self.chain) {
                chain.skip_to(end, class.clone());
            }
            if !is_told {
                let input = place.input.to_string();
                self.report(
                    Finding {
                        input,
                        segment: place.name,
                        offsets: Some(bytes),
                        lsns,
                        record: None,
                        class,
                        problem: None,
                        whole_copy: None,
                    },
                    sink,
                )?;
            }
        }
        if let Some(AfterPacked { offset }) = after {
            let (input, class) = (place.input.to_string(), Class::AfterPacked { offset });
            self.report(
                Finding { input, segment: place.name, offsets: None, lsns: None, record: None, class, problem: None, whole_copy: None },
                sink,
            )?;
        }
        if checked.leftover {
            self.summary.leftover.push(checked.input.clone());
        } else {
            self.summary.segments += 1;
        }
        let is_fork = self.copies.is_none() && self.links.as_ref().is_some_and(|links| links.is_fork(file));
        if let (Some(chain), true) = (&self.chain, is_fork) {
            self.saved.insert(file, chain.clone());
        }
        match self.copies.as_mut().and_then(|copies| copies.done.last_mut()) {
            Some(copy) => {
                copy.events.push(Event::Checked(checked));
                Flow::Continue(())
            }
            None => sink(Event::Checked(checked)),
        }
    }

    /// Tells what was found in a compressed file that unpacks to its end.
    fn flush_held(&mut self, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        std::mem::take(&mut self.held).into_iter().try_for_each(|finding| self.emit(finding, sink))
    }

    /// A file cannot be read, or no further.
    fn failed(&mut self, file: usize, class: Class, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        self.forget(file);
        let (input, name) = self.files.get(file).copied().unwrap_or_default();
        let input = input.to_owned();
        let mut finding = Finding { input, segment: name, offsets: None, lsns: None, record: None, class, problem: None, whole_copy: None };
        // What was found in it comes of the same damage, and the first of it tells where that begins.
        let mut held = std::mem::take(&mut self.held);
        if let Some(copy) = self.copies.as_mut().and_then(|copies| copies.done.last_mut()) {
            let is_same = |event: &Event| matches!(event, Event::Finding(other) if other.input == finding.input);
            held.extend(copy.events.extract_if(.., |event| is_same(event)).filter_map(|event| match event {
                Event::Finding(other) => Some(other),
                _ => None,
            }));
        }
        let first = held.first().and_then(|held| held.lsns.as_ref()).map(|lsns| lsns.start);
        if let (Some((_, place)), Some(name)) = (&self.current, name) {
            let start = name.start(place.fmt.segment_size);
            let end = start + u64::from(place.fmt.segment_size);
            let lost = self.chain.as_ref().map(Chain::sound_to);
            let wrong = [first, lost].into_iter().flatten().filter(|lsn| *lsn > start && *lsn < end).min();
            finding.lsns = Some(wrong.unwrap_or(start)..end);
            if let Some(copies) = &self.copies {
                // Whether there is a better one is not known yet.
                if self.current.as_ref().is_some_and(|(at, _)| *at == file) && copies.enter.is_some() {
                    self.chain = None;
                }
            } else if let Some(chain) = &mut self.chain {
                // What came of it before is part of the same damage.
                chain.forget_lost_from(name.start(place.fmt.segment_size));
                if chain.position() < end {
                    chain.skip_to(end, finding.class.clone());
                }
            }
            let is_in_group = self.copies.is_some();
            let place = Arc::clone(place);
            if !is_in_group {
                self.current = Some((file, place));
            } else {
                self.current = self.copies.as_ref().and_then(|copies| copies.before.clone());
            }
        }
        self.checked = None;
        match self.copies.as_mut().and_then(|copies| copies.done.last_mut()) {
            Some(copy) => {
                copy.events.push(Event::Finding(finding));
                Flow::Continue(())
            }
            None => self.report(finding, sink),
        }
    }

    /// Drops the saved chain that `file` continues, unless a later file needs it too.
    fn forget(&mut self, file: usize) {
        if let Some(links) = &self.links
            && let Some(before) = links.before(file)
            && links.is_last(before, file)
        {
            self.saved.remove(&before);
        }
    }

    /// Nothing follows on the chain.
    fn finish(&mut self, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        self.flush_held(sink)?;
        let (Some(chain), Some((_, place))) = (self.chain.take(), &self.current) else { return Flow::Continue(()) };
        // What stopped there because no more was asked for has not ended there; what ended before has.
        let (has_ended, position) = (chain.seems_ended(), chain.position());
        let is_asked = |end: &End| self.options.to.is_none_or(|to| if has_ended { end.lsn < to } else { position < to });
        let mut found = Found::default();
        if let Some(end) = chain.finish(place, &mut found).filter(is_asked) {
            let is_leftover = matches!(end.reason, EndReason::Recycled { .. } | EndReason::ZeroPage) && end.lsn == place.start;
            if !is_leftover || self.summary.ends.is_empty() {
                let timeline = place.name.map_or(found.timeline, |name| name.timeline);
                let end = TimelineEnd { timeline, end };
                // Files of one segment may end alike.
                if !self.summary.ends.contains(&end) {
                    self.summary.ends.push(end);
                }
            }
        }
        self.take_found(found, sink)
    }

    fn take_found(&mut self, found: Found, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        self.summary.records += found.records;
        if found.timeline.0 > 0 {
            self.summary.timelines.insert(found.timeline);
        }
        if let (Some(first), Some(last)) = (found.first, found.last) {
            let lsns = self.summary.lsns.get_or_insert(first..last);
            *lsns = lsns.start.min(first)..lsns.end.max(last);
        }
        found.findings.into_iter().try_for_each(|finding| self.report(finding, sink))
    }

    fn report(&mut self, mut finding: Finding, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        let is_outside = finding.lsns.as_ref().is_some_and(|lsns| {
            self.options.from.is_some_and(|from| lsns.end <= from) || self.options.to.is_some_and(|to| lsns.start >= to)
        });
        if is_outside {
            return Flow::Continue(());
        }
        if let (Class::ForeignCluster { by, .. }, true) = (&mut finding.class, self.options.system_identifier.is_some()) {
            *by = if self.is_given_alone { Authority::GivenAgainstAll } else { Authority::Given };
        }
        if let (Class::WrongName { content }, Some(name), Some((_, place))) = (&finding.class, finding.segment, &self.current) {
            // A server reuses old files for later segments: where the old one is in its place, this is what was there before.
            let (content, address) = (*content, content.start(place.fmt.segment_size));
            let is_reused = address < name.start(place.fmt.segment_size)
                && !self.misnamed.contains(&content)
                && self.files.iter().any(|(_, name)| *name == Some(content));
            if is_reused {
                finding.class = Class::RecycledPage { from: content, address };
            }
            self.misnamed.insert(name);
        }
        // What is said before its files begin is not about them.
        match self.copies.as_mut().filter(|copies| copies.enter.is_some()).and_then(|copies| copies.done.last_mut()) {
            Some(copy) => {
                copy.events.push(Event::Finding(finding));
                Flow::Continue(())
            }
            None if self.checked.as_ref().is_some_and(|checked| checked.input == finding.input && is_packed(&checked.input)) => {
                self.held.push(finding);
                Flow::Continue(())
            }
            None => self.emit(finding, sink),
        }
    }

    fn emit(&mut self, mut finding: Finding, sink: &mut impl FnMut(Event) -> Flow) -> Flow {
        // What begins in the segment before belongs to the copy of it that the WAL goes on from.
        if let Some((name, chosen)) =
            self.chosen.as_ref().filter(|(name, chosen)| finding.segment == Some(*name) && finding.input != *chosen)
            && finding.whole_copy.is_none()
            && !matches!(finding.class, Class::DuplicateSegment { .. })
            && self.current.as_ref().is_some_and(|(_, place)| place.name != Some(*name))
        {
            finding.input = chosen.clone();
        }
        if finding.class == Class::OtherHistory {
            // Where a later segment does not follow it, the history from before goes on.
            let is_end = self.is_other_history && finding.offsets.as_ref().is_some_and(|offsets| offsets.start == 0);
            self.is_other_history = !is_end;
            if is_end {
                return Flow::Continue(());
            }
        }
        // A file without WAL has turned out to have lost it.
        let mut leftover = self.summary.leftover.iter().rev().take(MOST_LEFTOVER);
        if let Some(from_end) = leftover.position(|input| *input == finding.input) {
            let at = self.summary.leftover.len() - 1 - from_end; // a position in the list
            self.summary.leftover.remove(at);
            self.summary.segments += 1;
        }
        self.summary.findings += 1;
        sink(Event::Finding(finding))
    }
}

#[cfg(test)]
mod tests;
