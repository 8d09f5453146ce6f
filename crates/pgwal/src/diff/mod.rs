//! Where two copies of the WAL part: two segments, two archives, two timelines.
//!
//! What both have in common byte for byte is found by comparing bytes, and is not looked into. From the last records before the
//! first difference on, both sides are decoded, each in a thread of its own, and compared record by record: by their place in the
//! WAL, and while only the lengths of page images differ, by their order. What it comes to is a [`Comparison`]; on the way, a
//! [`Sink`] is told of each difference, with as much around it as it wants. Memory stays bounded, however long the two are and whether
//! they meet again or not.
//!
//! Bytes can differ where the meaning is the same, and that is told apart from records that differ: see [`ButFor`].

mod clusters;
mod fields;
mod files;
mod front;
mod same;
mod show;
mod stream;
mod switch;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

pub use clusters::Cluster;
pub use fields::{Field, page_header_fields, record_fields};
pub use files::{FileDifference, FileDifferenceKind};
pub use show::{Json, Unified, write_json, write_text};
pub use switch::Switch;

use crate::error::Error as Damaged;
use crate::format::WalFormat;
use crate::frame::End;
use crate::lsn::{Lsn, TimelineId};
use crate::page::PageHeader;
use crate::printable::printable;
use crate::record::RawRecord;
use crate::source::{FileRest, PassedOver, SourceError, SourceProblem, Wal, file_of_input};
use clusters::Clusters;
use same::{ButFor as ButForRecord, Effect, effect, same};
use stream::{Batch, Feed, Item, Message, Tail, What};

/// Damaged places of a side that are kept.
const MAX_DAMAGE: usize = 1000;

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The first; a line of it begins with `-`.
    A,
    /// The second; a line of it begins with `+`.
    B,
}

impl Which {
    /// Both, in order.
    pub const BOTH: [Which; 2] = [Which::A, Which::B];

    /// The other one.
    pub const fn other(self) -> Which {
        match self {
            Which::A => Which::B,
            Which::B => Which::A,
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Which::A { "A" } else { "B" })
    }
}

/// Something that each side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sides<T> {
    /// Of the first side.
    pub a: T,
    /// Of the second side.
    pub b: T,
}

impl<T> Sides<T> {
    /// Of one of them.
    pub const fn get(&self, which: Which) -> &T {
        match which {
            Which::A => &self.a,
            Which::B => &self.b,
        }
    }

    /// Of one of them, to be changed.
    pub const fn get_mut(&mut self, which: Which) -> &mut T {
        match which {
            Which::A => &mut self.a,
            Which::B => &mut self.b,
        }
    }
}

/// One of the copies: a segment, a directory, a data directory, an archive, each of them also compressed.
#[derive(Debug)]
pub struct Side {
    wal: Wal,
    input: String,
    /// Where its timeline history files may be.
    directory: PathBuf,
    /// No newer timeline is read.
    newest: Option<TimelineId>,
    /// It is a folder or an archive, not a single segment.
    is_set: bool,
}

impl Side {
    /// Finds the segments of `input`, up to `timeline`; see [`Wal::open`].
    ///
    /// # Errors
    /// As [`Wal::open`], or there is no segment of `timeline`: what older ones have would be compared in its place.
    pub fn open(input: &Path, timeline: Option<TimelineId>) -> Result<Side, SourceError> {
        let mut wal = Wal::open(&[input], timeline)?;
        let timelines = || wal.names().map(|name| name.timeline);
        if let (Some(wanted), Some(first), Some(last)) = (timeline, timelines().min(), timelines().max())
            && last < wanted
        {
            return Err(SourceError::new(input.display(), SourceProblem::NoTimeline { wanted, or_older: false, first, last }));
        }
        wal.prefer_whole();
        let is_single = |file: &str| input == Path::new(file) || file == "standard input";
        let is_set = wal.files().any(|(file, _)| !is_single(file));
        Ok(Side { wal, input: input.display().to_string(), directory: switch::directory_of(input), newest: timeline, is_set })
    }

    /// See [`Wal::set_block_size`].
    pub fn set_block_size(&mut self, block_size: u32) {
        self.wal.set_block_size(block_size);
    }

    /// What the user knows it by.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// Files of its segments that are not read, as they are not whole and others are.
    pub fn passed_over(&self) -> &[PassedOver] {
        self.wal.passed_over()
    }

    /// Timeline of the segment that holds the byte at `lsn`, by the segment's name.
    fn timeline_at(&self, lsn: Lsn, fmt: WalFormat) -> Option<TimelineId> {
        let number = lsn.segment_number(fmt.segment_size);
        let names = self.wal.names().filter(|name| name.number(fmt.segment_size) <= number);
        names.map(|name| name.timeline).last()
    }

    /// LSN that it begins at, where that can be found without taking anything from a stream.
    fn begin(&self) -> Option<Lsn> {
        self.wal.names().next()?;
        self.wal.extents(1).find_map(Result::ok).map(|extent| extent.start)
    }
}

/// What is compared, and what the sink is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only records that start here or later.
    pub start: Option<Lsn>,
    /// Only records that end before.
    pub end: Option<Lsn>,
    /// Records that both have which the sink is told of, before and after each difference.
    pub context: usize,
    /// Equal bytes are decoded too, so that damage which both sides have is found.
    pub check: bool,
}

/// What two copies of the WAL have in common and what not.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What it comes to.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Where both begin, or are asked to begin.
    pub start: Lsn,
    /// WAL before that, which only one side has.
    pub only_before: Option<OnlyBefore>,
    /// The first byte that differs, where it was found by comparing bytes; `None`: there is none, one side ends first, or the page that
    /// the comparison starts on differs before that.
    pub first_byte: Option<Lsn>,
    /// LSN up to which all bytes are the same.
    pub same_bytes_to: Lsn,
    /// What differs in bytes and not in meaning.
    pub but_for: ButFor,
    /// Records that were decoded and are the same; those in bytes that are the same are not.
    pub records_compared: u64,
    /// The sides themselves.
    pub sides: Sides<SideReport>,
    /// Differences of files beside the WAL: what follows segments in their files, history files and backup history files; the first of them.
    /// Empty where only a part of the WAL is compared.
    pub files: Vec<FileDifference>,
    /// Damaged places that both have, with the same bytes, and segments that both miss. They are no difference, and damage is only seen
    /// where both are decoded.
    pub damage_in_common: u64,
}

/// WAL that only one side has, before the other one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OnlyBefore {
    /// The side.
    pub side: Which,
    /// Where it begins.
    pub from: Lsn,
    /// Where the other one begins.
    pub to: Lsn,
}

/// What a comparison comes to.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// All bytes are the same.
    Identical,
    /// All records are the same in meaning; see [`Comparison::but_for`].
    IdenticalBut,
    /// One side ends where the other goes on.
    Prefix {
        /// The side that ends.
        side: Which,
        /// Where the two part.
        parting: Parting,
    },
    /// The sides have different records.
    Diverging {
        /// Where the two part.
        parting: Parting,
    },
    /// Where the sides differ, they are of different clusters: not two histories of one.
    OtherCluster {
        /// The clusters there.
        clusters: Sides<Cluster>,
        /// Where the two part.
        parting: Parting,
    },
    /// Where the sides differ, one of them is damaged or has a gap; see [`SideReport::damage`].
    Damaged {
        /// Where that is first.
        parting: Parting,
        /// One of them ends, too, where the other goes on: the side and the place.
        ends: Option<Ending>,
    },
}

/// Where one side ends and the other goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// The side that ends.
    pub side: Which,
    /// Its position in the WAL.
    pub at: Lsn,
}

/// A place where the two part.
#[derive(Debug, Serialize)]
pub struct Parting {
    /// Where the first record starts that differs.
    pub at: Lsn,
    /// The last record that both have, where one was decoded.
    #[serde(serialize_with = "show::maybe_record")]
    pub last_common: Option<RawRecord<'static>>,
    /// What each side has next; `None`: it ends.
    pub first: Sides<Option<First>>,
    /// Timelines of the segments, by their names, and what history files say.
    pub timelines: Sides<Option<TimelineId>>,
    /// Where the timelines part by their history files; `None`: it is one timeline, or no history file was found.
    pub switch: Option<Switch>,
    /// Where the sides have the same records again, after the last difference; `None`: nowhere.
    pub meets_at: Option<Lsn>,
}

/// The first thing that one side has after the parting.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum First {
    /// A record.
    Record(#[serde(serialize_with = "show::record")] RawRecord<'static>),
    /// Damage, or a gap.
    Damage {
        /// Its position in the WAL.
        lsn: Lsn,
        /// What it is.
        damage: String,
    },
}

/// One side of a comparison.
#[derive(Debug, Serialize)]
pub struct SideReport {
    /// What the user knows it by.
    pub input: String,
    /// Where and why it ends; `None`: all bytes were the same, and nobody looked.
    pub finish: Option<Finish>,
    /// Records that only this side has, or has differently, those excepted that [`ButFor`] counts.
    pub only: Tally,
    /// Where it is damaged or has gaps; the first of them, at most a thousand.
    pub damage: Vec<Damage>,
    /// The clusters of its segments; more than one where WAL of several clusters was mixed.
    pub clusters: Vec<Cluster>,
}

/// Records counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those among them that change anything but hint bits and the server's bookkeeping. Not counted are: FPI_FOR_HINT, NOOP, SWITCH,
    /// RESTORE_POINT, CHECKPOINT_SHUTDOWN, CHECKPOINT_ONLINE, CHECKPOINT_REDO and RUNNING_XACTS.
    pub changes: u64,
    /// Commits among them, of prepared transactions too.
    pub commits: u64,
    /// LSN after the last of them; zero for none.
    pub end: Lsn,
}

impl Tally {
    fn add(&mut self, raw: &RawRecord<'_>) {
        self.records += 1;
        self.bytes += u64::from(raw.header.tot_len);
        self.changes += u64::from(effect(raw) != Effect::HintOnly);
        self.commits += u64::from(effect(raw) == Effect::Commit);
        self.end = raw.end;
    }
}

/// Differences of bytes where the meaning is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ButFor {
    /// Page headers that differ, without those that are damage. Nobody reads XLP_BKP_REMOVABLE and padding, and the timeline of a page
    /// is the record's only by custom.
    pub page_headers: u64,
    /// The fields in which they differ.
    pub page_header_fields: Vec<&'static str>,
    /// Padding that differs: within record headers and payloads, behind records, behind XLOG_SWITCH.
    pub padding: u64,
    /// Records whose page images are stored differently and are restored to the same pages.
    pub compression: u64,
    /// Records whose parts are the same and are laid out differently.
    pub layout: u64,
    /// Records that only one side has, or has differently, and that change nothing: see [`Tally::changes`]. Counted only where that is
    /// all that differs in meaning.
    pub hint_only: u64,
    /// Bytes after the end of the WAL differ: zeroes here, leftovers there, or segments for later use.
    pub behind_end: bool,
    /// Files differ in what is not WAL; see [`Comparison::files`].
    pub files: u64,
}

impl ButFor {
    /// The kinds of differences that there are.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| match kind {
            Kind::PageHeaders => self.page_headers > 0,
            Kind::Padding => self.padding > 0,
            Kind::Compression => self.compression > 0,
            Kind::Layout => self.layout > 0,
            Kind::HintOnly => self.hint_only > 0,
            Kind::BehindEnd => self.behind_end,
            Kind::Files => self.files > 0,
        })
    }
}

/// A kind of difference where the meaning is the same; see [`ButFor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`ButFor::page_headers`].
    PageHeaders,
    /// [`ButFor::padding`].
    Padding,
    /// [`ButFor::compression`].
    Compression,
    /// [`ButFor::layout`].
    Layout,
    /// [`ButFor::hint_only`].
    HintOnly,
    /// [`ButFor::behind_end`].
    BehindEnd,
    /// [`ButFor::files`].
    Files,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::PageHeaders, Kind::Padding, Kind::Compression, Kind::Layout, Kind::HintOnly, Kind::BehindEnd, Kind::Files];
}

/// Where one side stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finish {
    /// The WAL ends.
    End(End),
    /// The end that was asked for.
    Reached {
        /// LSN of it.
        lsn: Lsn,
    },
    /// It is damaged, and nothing good follows.
    Damage,
}

/// A stretch that could not be read.
#[derive(Debug)]
pub struct Damage {
    /// Where it starts: a record, or a page header.
    pub lsn: Lsn,
    /// Where records start again; `None`: nowhere.
    pub to: Option<Lsn>,
    /// What is wrong.
    pub trouble: Trouble,
    /// The file that the damage is in, as the user knows it; `None`: [`Damage::trouble`] names it.
    pub input: Option<Arc<str>>,
    /// Format of the WAL.
    pub fmt: WalFormat,
    /// The bytes of the damaged record, as far as they are known.
    pub bytes: Vec<u8>,
}

/// Why a stretch could not be read.
#[derive(Debug)]
pub enum Trouble {
    /// The WAL is damaged.
    Damage(Damaged),
    /// A segment is missing, cut short, or cannot be read.
    Source(SourceError),
}

impl Damage {
    /// What is wrong and where, by the name of the file: a page header may say that it is of another timeline, and a compressed file has
    /// a suffix.
    fn what(&self) -> String {
        match (&self.trouble, self.input.as_deref().map(file_of_input).filter(|file| !file.is_empty())) {
            (Trouble::Source(error), _) => error.to_string(),
            (Trouble::Damage(error), None) => error.to_string(),
            (Trouble::Damage(error), Some(file)) => {
                let text = error.to_string();
                let segment = error.location().segment.to_string();
                text.strip_prefix(&segment).map_or_else(|| text.clone(), |rest| format!("{}{rest}", printable(file)))
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what())?;
        match self.to {
            Some(to) => write!(f, "; records start again at {to}"),
            None => write!(f, "; no records follow"),
        }
    }
}

impl Serialize for Damage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Form<'d> {
            lsn: Lsn,
            to: Option<Lsn>,
            damage: String,
            #[serde(flatten)]
            kind: Option<&'d crate::ErrorKind>,
        }
        let kind = match &self.trouble {
            Trouble::Damage(error) => Some(error.kind()),
            Trouble::Source(_) => None,
        };
        Form { lsn: self.lsn, to: self.to, damage: self.what(), kind }.serialize(serializer)
    }
}

/// Why nothing could be compared.
#[derive(Debug)]
pub enum Error {
    /// A side cannot be read.
    Source {
        /// The side.
        side: Which,
        /// What is wrong with it.
        error: SourceError,
    },
    /// A side has no WAL at all.
    Nothing {
        /// The side.
        side: Which,
    },
    /// The sides are of different majors, or have other sizes of segments or pages.
    Formats {
        /// Of the first.
        a: WalFormat,
        /// Of the second.
        b: WalFormat,
    },
    /// A side ends before the other one begins, or before the start that was asked for.
    Apart {
        /// The side that ends.
        side: Which,
        /// Where the comparison would have begun.
        begin: Lsn,
    },
    /// The sink could not do what it does.
    Sink(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Source { error, .. } => error.fmt(f),
            Error::Nothing { side } => write!(f, "{side} has no WAL"),
            Error::Formats { a, b } if a.major != b.major => {
                write!(f, "A is WAL of PostgreSQL {}, B of PostgreSQL {}: nothing can be compared", a.major, b.major)
            }
            Error::Formats { a, b } => write!(
                f,
                "A has segments of {} and pages of {} bytes, B segments of {} and pages of {}: nothing can be compared",
                a.segment_size, a.wal_page_size, b.segment_size, b.wal_page_size
            ),
            Error::Apart { side, begin } => write!(f, "nothing can be compared: {side} has no WAL at or after {begin}"),
            Error::Sink(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// What a sink is told, in the order of the WAL.
#[derive(Debug)]
pub enum Event<'e> {
    /// A difference is to come, somewhere else than the one before.
    Hunk {
        /// Its position in the WAL.
        at: Lsn,
    },
    /// A record that both have, near a difference.
    Context(&'e RawRecord<'e>),
    /// What stands at the same place and differs.
    Changed(Found<'e>, Found<'e>),
    /// What one side alone has at this place.
    Only(Which, Found<'e>),
    /// Records that are the same in meaning and not in their bytes.
    SameBut(&'e RawRecord<'e>, &'e RawRecord<'e>),
    /// Page headers that differ.
    PageHeaders {
        /// Address of the page.
        page: Lsn,
        /// Of the first side.
        a: &'e PageHeader,
        /// Of the second side.
        b: &'e PageHeader,
    },
}

/// What a side has at some place.
#[derive(Debug)]
pub enum Found<'e> {
    /// A record.
    Record(RawRecord<'e>),
    /// Damage, or a gap.
    Damage(&'e Damage),
}

/// Who is told of the differences.
pub trait Sink {
    /// The next one.
    ///
    /// # Errors
    /// It cannot be written; the comparison ends.
    fn event(&mut self, event: Event<'_>) -> io::Result<()>;
}

/// A sink for those who want to know the verdict alone.
impl Sink for () {
    fn event(&mut self, _: Event<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Compares two copies of the WAL.
///
/// # Errors
/// Nothing could be compared, or the sink fails.
pub fn diff(a: &Side, b: &Side, options: Options, sink: &mut dyn Sink) -> Result<Comparison, Error> {
    let known = Sides { a: a.begin(), b: b.begin() };
    let start = known.a.max(known.b).unwrap_or_default().max(options.start.unwrap_or_default());
    let rests = Sides::<Mutex<Vec<FileRest>>>::default();
    std::thread::scope(|scope| {
        let [first, second] = [(&a.wal, &rests.a), (&b.wal, &rests.b)].map(|(wal, rests)| {
            let (sender, receiver) = sync_channel(stream::AHEAD);
            scope.spawn(move || stream::read(wal, start, rests, &sender));
            Feed::new(receiver, options.end)
        });
        let mut feeds = Sides { a: first, b: second };
        let begin = front::align(&mut feeds, &known, options.start)?;
        let equal = match options.check {
            true => front::Equal { difference: None, all: false, end: begin.lsn, clusters: Sides::default() },
            false => front::skip_equal(&mut feeds, &begin, options.context),
        };
        let start = options.start.unwrap_or_default().max(begin.lsn);
        let mut comparison = Comparison {
            verdict: Verdict::Identical,
            start,
            only_before: begin.only_before,
            // The page that the start is on may differ before it.
            first_byte: equal.difference.filter(|&lsn| lsn >= start),
            same_bytes_to: equal.end,
            but_for: ButFor::default(),
            sides: Sides { a: SideReport::new(a), b: SideReport::new(b) },
            records_compared: 0,
            files: Vec::new(),
            damage_in_common: 0,
        };
        let clusters = equal.clusters;
        if equal.all {
            comparison.sides.a.clusters = clusters.a.all().to_vec();
            comparison.sides.b.clusters = clusters.b.all().to_vec();
            comparison.compare_files(a, b, options, &rests);
            return Ok(comparison);
        }
        let decode = |feed: Feed, clusters: Clusters| {
            let (sender, receiver) = sync_channel(stream::AHEAD);
            scope.spawn(move || stream::decode(feed, begin.fmt, &sender));
            Cursor::new(receiver, comparison.start, options.context, clusters)
        };
        let sides = Sides { a: decode(feeds.a, clusters.a), b: decode(feeds.b, clusters.b) };
        let mut merge = Merge {
            sides,
            sink,
            options,
            out: &mut comparison,
            last: Sides::default(),
            shifted: false,
            open: None,
            closed: Closed::default(),
            since: 0,
            told: 0,
            begun: false,
            common: 0,
        };
        merge.run().map_err(Error::Sink)?;
        merge.conclude(a, b, begin.fmt);
        comparison.compare_files(a, b, options, &rests);
        Ok(comparison)
    })
}

impl Comparison {
    /// Compares what is not WAL, once all of that has been read. Who asks for a part of the WAL is not told of the rest.
    fn compare_files(&mut self, a: &Side, b: &Side, options: Options, rests: &Sides<Mutex<Vec<FileRest>>>) {
        if options.start.is_some() || options.end.is_some() {
            return;
        }
        let take = |rests: &Mutex<Vec<FileRest>>| std::mem::take(&mut *rests.lock().unwrap_or_else(PoisonError::into_inner));
        let mut found = files::Found::default();
        found.compare_rests(take(&rests.a), take(&rests.b));
        found.compare_texts(a, b);
        (self.files, self.but_for.files) = (found.files, found.count);
        if self.but_for.files > 0 && matches!(self.verdict, Verdict::Identical) {
            self.verdict = Verdict::IdenticalBut;
        }
    }

    /// Whether there is no difference but those of `kinds`; with `overlap`, where both have WAL.
    pub fn is_same(&self, kinds: &[Kind], overlap: bool) -> bool {
        let ignored = |kind: Kind| kinds.contains(&kind);
        let records = match &self.verdict {
            Verdict::Identical | Verdict::IdenticalBut => true,
            Verdict::Prefix { side, .. } => overlap || (ignored(Kind::HintOnly) && self.sides.get(side.other()).only.changes == 0),
            Verdict::Diverging { .. } | Verdict::OtherCluster { .. } | Verdict::Damaged { .. } => false,
        };
        // What only one side has does not count where only one side has WAL either.
        let only_one_has = |file: &FileDifference| matches!(file.kind, FileDifferenceKind::Only { .. });
        let are_extra = overlap && self.files.len() as u64 == self.but_for.files && self.files.iter().all(only_one_has);
        let is_told = |kind: Kind| ignored(kind) || (kind == Kind::Files && are_extra);
        records && self.but_for.kinds().all(is_told) && (overlap || self.only_before.is_none())
    }

    /// Whether there was anything to compare: bytes that are the same, or records that could be read on both sides.
    pub fn has_compared(&self) -> bool {
        let read = |side: &SideReport| side.only.records > 0 || !matches!(side.finish, Some(Finish::Damage));
        self.records_compared > 0 || (read(&self.sides.a) && read(&self.sides.b))
    }
}

impl SideReport {
    fn new(side: &Side) -> SideReport {
        SideReport { input: side.input.clone(), finish: None, only: Tally::default(), damage: Vec::new(), clusters: Vec::new() }
    }
}

/// A side's items, one after the other, and some that have gone by.
struct Cursor {
    receiver: Receiver<Message>,
    batches: VecDeque<Batch>,
    /// Place of the next item: a batch, and an item in it.
    at: (usize, usize),
    pages: VecDeque<(Lsn, PageHeader)>,
    finish: Option<(Finish, Tail)>,
    start: Lsn,
    keep: usize,
    clusters: Clusters,
}

impl Cursor {
    fn new(receiver: Receiver<Message>, start: Lsn, context: usize, clusters: Clusters) -> Cursor {
        let (batches, pages) = Default::default();
        Cursor { receiver, batches, at: (0, 0), pages, finish: None, start, keep: context + 1, clusters }
    }

    /// Gets batches until there is a next item, or the end is known.
    fn fill(&mut self) {
        loop {
            match self.batches.get(self.at.0) {
                Some(batch) => match batch.items.get(self.at.1) {
                    Some(item) if item.lsn < self.start => self.at.1 += 1,
                    Some(_) => return,
                    None => self.at = (self.at.0 + 1, 0),
                },
                None if self.finish.is_some() => return,
                None => {
                    self.forget();
                    match self.receiver.recv() {
                        Ok(Message::Batch(mut batch)) => {
                            self.clusters.add(batch.chunk());
                            self.pages.extend(std::mem::take(&mut batch.pages).into_iter().filter(|page| page.0 >= self.start));
                            // Gigabytes of damage, or of zeroes, have nothing to look back at.
                            if !batch.items.is_empty() {
                                self.batches.push_back(batch);
                            }
                        }
                        Ok(Message::Finish(finish, tail)) => self.finish = Some((finish, tail)),
                        // The decoder says how it ends unless it panics, and then the scope does.
                        Err(_) => self.finish = Some((Finish::Damage, Tail::default())),
                    }
                }
            }
        }
    }

    /// Forgets batches that are not needed for looking back.
    fn forget(&mut self) {
        let mut behind: usize = self.batches.iter().take(self.at.0).map(|batch| batch.items.len()).sum();
        while let Some(first) = self.batches.front().filter(|_| self.at.0 > 0) {
            behind -= first.items.len(); // part of the sum
            if behind < self.keep {
                return;
            }
            self.batches.pop_front();
            self.at.0 -= 1; // more than zero
        }
    }

    fn item(&self) -> Option<(&Batch, &Item)> {
        let batch = self.batches.get(self.at.0)?;
        Some((batch, batch.items.get(self.at.1)?))
    }

    fn advance(&mut self) {
        self.at.1 += 1;
        self.fill();
    }

    /// The records that have gone by, the last one first.
    fn behind(&self) -> impl Iterator<Item = RawRecord<'_>> {
        let now = self.batches.get(self.at.0).map(|batch| (batch, batch.items.get(..self.at.1).unwrap_or_default()));
        let before = self.batches.iter().take(self.at.0).rev().map(|batch| (batch, batch.items.as_slice()));
        let items = now.into_iter().chain(before).flat_map(|(batch, items)| items.iter().rev().map(move |item| (batch, item)));
        items.filter(|(_, item)| item.lsn >= self.start).filter_map(|(batch, item)| match &item.what {
            What::Record(record) => Some(batch.raw(item.lsn, record)),
            _ => None,
        })
    }

    fn forget_pages(&mut self, before: Lsn) {
        while self.pages.front().is_some_and(|(lsn, _)| *lsn < before) {
            self.pages.pop_front();
        }
    }

    /// The header of the page at `page`; those before it are forgotten.
    fn page(&mut self, page: Lsn) -> Option<PageHeader> {
        self.forget_pages(page);
        self.pages.front().filter(|(lsn, _)| *lsn == page).map(|(_, header)| *header)
    }

    /// The page that `damage` is of, and its header here.
    fn find_page(&self, damage: &Damage) -> (Lsn, Option<&PageHeader>) {
        let page = damage.page().unwrap_or_default();
        (page, self.pages.iter().find(|(lsn, _)| *lsn == page).map(|(_, header)| header))
    }

    /// Takes the next item's damage out, where it is that.
    fn take_damage(&mut self) -> Option<Damage> {
        let item = self.batches.get_mut(self.at.0)?.items.get_mut(self.at.1)?;
        match std::mem::replace(&mut item.what, What::Unused(0)) {
            What::Damage(damage) => Some(*damage),
            other => {
                item.what = other;
                None
            }
        }
    }
}

/// Walks along both sides.
struct Merge<'m> {
    sides: Sides<Cursor>,
    sink: &'m mut dyn Sink,
    options: Options,
    out: &'m mut Comparison,
    /// Starts of the last records that were the same.
    last: Sides<Lsn>,
    /// Whether the sides no longer stand at the same LSNs, so that pages cannot be compared.
    shifted: bool,
    /// The stretch where the sides differ right now.
    open: Option<Stretch>,
    closed: Closed,
    /// Records that were the same since the last difference, and how many of them the sink has been told of.
    since: usize,
    told: usize,
    /// Whether the sink has been told of any difference.
    begun: bool,
    /// Records that both have.
    common: u64,
}

/// Records that differ, between two that are the same.
struct Stretch {
    parting: Parting,
    /// Where damage of one side ends that is the reason; what differs after that does so for another reason.
    damaged_to: Option<Lsn>,
    records: Sides<u64>,
    changes: u64,
}

/// Stretches that are over.
#[derive(Default)]
struct Closed {
    /// The first where the records differ.
    different: Option<Stretch>,
    /// How many of them there were.
    count: u64,
    /// The first where the sides are of different clusters.
    foreign: Option<(Sides<Cluster>, Stretch)>,
    /// The first whose reason is damage.
    damaged: Option<Stretch>,
}

/// What to do with the next items.
enum Step {
    Same(ButForRecord),
    /// The unused rest of a segment, on both sides; whether it is the same.
    Unused(bool),
    /// Nothing that counts as a difference.
    Skip(Which),
    SameDamage,
    Changed,
    Only(Which),
    End,
}

impl Merge<'_> {
    fn run(&mut self) -> io::Result<()> {
        self.sides.a.fill();
        self.sides.b.fill();
        loop {
            match self.step() {
                Step::Same(but_for) => self.same(but_for)?,
                Step::Unused(same) => {
                    self.out.but_for.padding += u64::from(!same);
                    self.advance_both();
                }
                Step::Skip(which) => self.sides.get_mut(which).advance(),
                Step::SameDamage => {
                    self.out.damage_in_common += 1;
                    self.advance_both();
                }
                Step::Changed => self.differ(&Which::BOTH)?,
                Step::Only(which) => self.differ(&[which])?,
                Step::End => return Ok(()),
            }
        }
    }

    fn advance_both(&mut self) {
        self.sides.a.advance();
        self.sides.b.advance();
    }

    fn step(&self) -> Step {
        let ((batch, x), (other, y)) = match (self.sides.a.item(), self.sides.b.item()) {
            (Some(x), Some(y)) => (x, y),
            (Some((_, Item { what: What::Unused(_), .. })), None) => return Step::Skip(Which::A),
            (None, Some((_, Item { what: What::Unused(_), .. }))) => return Step::Skip(Which::B),
            (Some(_), None) => return Step::Only(Which::A),
            (None, Some(_)) => return Step::Only(Which::B),
            (None, None) => return Step::End,
        };
        match (&x.what, &y.what) {
            (What::Record(r), What::Record(s)) => {
                let linked = self.open.is_none() && (r.header.prev, s.header.prev) == (self.last.a, self.last.b);
                if linked || x.lsn == y.lsn {
                    let but_for = match batch.bytes(r) == other.bytes(s) {
                        true => Some(ButForRecord::default()),
                        false => same(&batch.raw(x.lsn, r), &other.raw(y.lsn, s), linked),
                    };
                    if let Some(but_for) = but_for {
                        return Step::Same(ButForRecord { padding: but_for.padding || r.padding != s.padding, ..but_for });
                    }
                }
            }
            (What::Unused(r), What::Unused(s)) if x.lsn == y.lsn => return Step::Unused(r == s),
            (What::Unused(_), _) => return Step::Skip(Which::A),
            (_, What::Unused(_)) => return Step::Skip(Which::B),
            (What::Damage(r), What::Damage(s)) if r.same(s) => return Step::SameDamage,
            _ => {}
        }
        match x.lsn.cmp(&y.lsn) {
            Ordering::Less => Step::Only(Which::A),
            Ordering::Equal => Step::Changed,
            Ordering::Greater => Step::Only(Which::B),
        }
    }

    /// Goes on after a record that both have.
    fn same(&mut self, but_for: ButForRecord) -> io::Result<()> {
        let Sides { a, b } = &mut self.sides;
        let (Some((batch, x)), Some((other, y))) = (a.item(), b.item()) else { return Ok(()) };
        let (What::Record(r), What::Record(s)) = (&x.what, &y.what) else { return Ok(()) };
        let (lsn, ends) = (x.lsn, (r.end, s.end));
        if but_for != ButForRecord::default() {
            let counts = &mut self.out.but_for;
            counts.padding += u64::from(but_for.padding);
            counts.compression += u64::from(but_for.compression);
            counts.layout += u64::from(but_for.layout);
            self.sink.event(Event::SameBut(&batch.raw(x.lsn, r), &other.raw(y.lsn, s)))?;
        }
        if self.begun && self.since < self.options.context {
            self.sink.event(Event::Context(&batch.raw(x.lsn, r)))?;
            self.told += 1;
        }
        self.last = Sides { a: x.lsn, b: y.lsn };
        if let Some(mut stretch) = self.open.take() {
            stretch.parting.meets_at = Some(lsn);
            let clusters = foreign(&a.clusters, &b.clusters, &stretch);
            self.closed.add(stretch, clusters, &mut self.out.but_for);
            // The pages up to here belong to what differs.
            a.forget_pages(lsn);
            b.forget_pages(lsn);
        }
        self.shifted |= ends.0 != ends.1;
        while let Some(&(page, header)) = a.pages.front().filter(|page| page.0 < ends.0) {
            a.pages.pop_front();
            if let Some(other) = b.page(page).filter(|other| *other != header && !self.shifted) {
                self.out.but_for.add_page_header(&header, &other);
                self.sink.event(Event::PageHeaders { page, a: &header, b: &other })?;
            }
        }
        b.forget_pages(ends.1);
        self.since += 1;
        self.common += 1;
        self.advance_both();
        Ok(())
    }

    /// Goes on behind something that `who` have, and differently.
    fn differ(&mut self, who: &[Which]) -> io::Result<()> {
        let lsn = who.iter().filter_map(|which| self.sides.get(*which).item()).map(|(_, item)| item.lsn).min().unwrap_or_default();
        let is_new = self.open.as_ref().is_none_or(|stretch| stretch.damaged_to.is_some_and(|to| lsn >= to));
        if is_new {
            self.open_stretch(lsn)?;
        }
        for side in [&mut self.sides.a, &mut self.sides.b] {
            side.forget_pages(lsn);
        }
        let found = |which: Which| {
            let (batch, item) = self.sides.get(which).item()?;
            Some(match &item.what {
                What::Record(record) => Found::Record(batch.raw(item.lsn, record)),
                What::Damage(damage) => Found::Damage(damage),
                What::Unused(_) => return None,
            })
        };
        for &which in who {
            match found(which) {
                Some(Found::Record(raw)) => {
                    let tally = &mut self.out.sides.get_mut(which).only;
                    let before = tally.changes;
                    tally.add(&raw);
                    if let Some(stretch) = &mut self.open {
                        *stretch.records.get_mut(which) += 1;
                        stretch.changes += tally.changes - before; // it only grows
                    }
                }
                Some(Found::Damage(damage)) => {
                    // Damage that the stretch begins with is the reason for it; further on, it only happens to be there.
                    // So is damage that begins before that of the other side ends.
                    let begins = |first: &Option<First>| matches!(first, Some(First::Damage { lsn, .. }) if *lsn == damage.lsn);
                    let is_reason = |stretch: &Stretch| {
                        begins(stretch.parting.first.get(which)) || stretch.damaged_to.is_some_and(|to| damage.lsn < to)
                    };
                    if let Some(stretch) = self.open.as_mut().filter(|stretch| is_reason(stretch)) {
                        let to = damage.to.unwrap_or(Lsn(u64::MAX));
                        stretch.damaged_to = stretch.damaged_to.max(Some(to));
                    }
                    let pages = (self.sides.a.find_page(damage), self.sides.b.find_page(damage));
                    if let ((page, Some(a)), (_, Some(b))) = pages
                        && a != b
                    {
                        self.sink.event(Event::PageHeaders { page, a, b })?;
                    }
                }
                None => {}
            }
        }
        match *who {
            [which] => {
                if let Some(found) = found(which) {
                    self.sink.event(Event::Only(which, found))?;
                }
            }
            _ => {
                if let (Some(a), Some(b)) = (found(Which::A), found(Which::B)) {
                    self.sink.event(Event::Changed(a, b))?;
                }
            }
        }
        for &which in who {
            let damage = self.sides.get_mut(which).take_damage();
            let report = &mut self.out.sides.get_mut(which).damage;
            report.extend(damage.filter(|_| report.len() < MAX_DAMAGE));
            self.sides.get_mut(which).advance();
        }
        Ok(())
    }

    /// A difference begins at `lsn`.
    fn open_stretch(&mut self, at: Lsn) -> io::Result<()> {
        if let Some(before) = self.open.take() {
            let clusters = foreign(&self.sides.a.clusters, &self.sides.b.clusters, &before);
            self.closed.add(before, clusters, &mut self.out.but_for);
        }
        let untold = self.since - self.told; // told of at most all of them
        let context = untold.min(self.options.context);
        if !self.begun || untold > context {
            self.sink.event(Event::Hunk { at })?;
        }
        let mut before: Vec<RawRecord<'_>> = self.sides.a.behind().take(context).collect();
        before.reverse();
        before.iter().try_for_each(|raw| self.sink.event(Event::Context(raw)))?;
        let last_common = self.sides.a.behind().next().filter(|_| self.since > 0).map(owned);
        let first = |cursor: &Cursor| {
            let (batch, item) = cursor.item()?;
            Some(match &item.what {
                What::Record(record) => First::Record(owned(batch.raw(item.lsn, record))),
                What::Damage(damage) => First::Damage { lsn: item.lsn, damage: damage.to_string() },
                What::Unused(_) => return None,
            })
        };
        let first = Sides { a: first(&self.sides.a), b: first(&self.sides.b) };
        let parting = Parting { at, last_common, first, timelines: Sides::default(), switch: None, meets_at: None };
        self.open = Some(Stretch { parting, damaged_to: None, records: Sides::default(), changes: 0 });
        (self.since, self.told, self.begun) = (0, 0, true);
        Ok(())
    }

    /// What it comes to, at the end of both sides.
    fn conclude(mut self, a: &Side, b: &Side, fmt: WalFormat) {
        let is_open = self.open.is_some();
        if let Some(stretch) = self.open.take() {
            let clusters = foreign(&self.sides.a.clusters, &self.sides.b.clusters, &stretch);
            self.closed.add(stretch, clusters, &mut self.out.but_for);
        }
        let out = self.out;
        out.sides.a.clusters = self.sides.a.clusters.all().to_vec();
        out.sides.b.clusters = self.sides.b.clusters.all().to_vec();
        let ends = (self.sides.a.finish, self.sides.b.finish);
        if let (Some((Finish::End(_), tail)), Some((Finish::End(_), other))) = &ends
            && !is_open
            && !self.shifted
        {
            let closed = &self.closed;
            let is_told = closed.different.is_some() || closed.foreign.is_some() || closed.damaged.is_some();
            let explained = is_told || out.but_for.kinds().next().is_some();
            out.but_for.behind_end = tail != other || (out.first_byte.is_some() && !explained);
        }
        out.sides.a.finish = ends.0.map(|(finish, _)| finish);
        out.sides.b.finish = ends.1.map(|(finish, _)| finish);
        out.records_compared = self.common;
        let locate = |mut stretch: Stretch| {
            let at = stretch.parting.at;
            stretch.parting.timelines = Sides { a: a.timeline_at(at, fmt), b: b.timeline_at(at, fmt) };
            if let Sides { a: Some(one), b: Some(other) } = stretch.parting.timelines {
                stretch.parting.switch = Switch::between((one, &a.directory), (other, &b.directory), at, fmt);
            }
            stretch.parting
        };
        // One side ends there, and that is all.
        let ends_there = |stretch: &Stretch| is_open && self.closed.count == 1 && stretch.parting.meets_at.is_none();
        let shorter = |stretch: &Stretch| match stretch.records {
            Sides { a: 0, .. } => Some(Which::A),
            Sides { b: 0, .. } => Some(Which::B),
            _ => None,
        };
        let shorter = self.closed.different.as_ref().and_then(|stretch| shorter(stretch).filter(|_| ends_there(stretch)));
        let has_history = self.closed.different.is_some() && shorter.is_none();
        if let Some((clusters, stretch)) = self.closed.foreign.take_if(|_| !has_history) {
            out.verdict = Verdict::OtherCluster { clusters, parting: locate(stretch) };
            return;
        }
        out.verdict = match (self.closed.different, self.closed.damaged) {
            (Some(stretch), damaged) => match (shorter, damaged) {
                (Some(side), None) => Verdict::Prefix { side, parting: locate(stretch) },
                // It ends there, and the damage is another matter.
                (Some(side), Some(damaged)) => {
                    Verdict::Damaged { ends: Some(Ending { side, at: stretch.parting.at }), parting: locate(damaged) }
                }
                (None, _) => Verdict::Diverging { parting: locate(stretch) },
            },
            (None, Some(stretch)) => Verdict::Damaged { parting: locate(stretch), ends: None },
            (None, None) if out.first_byte.is_none() && out.but_for.kinds().next().is_none() => Verdict::Identical,
            (None, None) => Verdict::IdenticalBut,
        };
    }
}

impl Closed {
    /// Adds a stretch; `foreign` are the clusters of the sides there, if they are different ones.
    fn add(&mut self, stretch: Stretch, foreign: Option<Sides<Cluster>>, but_for: &mut ButFor) {
        let both_have_records = stretch.records.a > 0 && stretch.records.b > 0;
        if stretch.damaged_to.is_some() {
            self.damaged.get_or_insert(stretch);
        } else if stretch.changes == 0 && (both_have_records || stretch.parting.meets_at.is_some()) {
            but_for.hint_only += stretch.records.a + stretch.records.b;
        } else if let Some(clusters) = foreign {
            self.foreign.get_or_insert((clusters, stretch));
        } else {
            self.count += 1;
            self.different.get_or_insert(stretch);
        }
    }
}

/// The clusters of the sides where `stretch` begins, if they are different ones.
fn foreign(a: &Clusters, b: &Clusters, stretch: &Stretch) -> Option<Sides<Cluster>> {
    let (a, b) = (a.at(stretch.parting.at)?, b.at(stretch.parting.at)?);
    a.is_foreign_to(&b).then_some(Sides { a, b })
}

impl ButFor {
    fn add_page_header(&mut self, a: &PageHeader, b: &PageHeader) {
        self.page_headers += 1;
        for field in fields::page_header_differences(a, b) {
            if !self.page_header_fields.contains(&field) {
                self.page_header_fields.push(field);
            }
        }
    }
}

impl Damage {
    fn same(&self, other: &Damage) -> bool {
        match (&self.trouble, &other.trouble) {
            (Trouble::Damage(a), Trouble::Damage(b)) => a == b && (self.lsn, self.to, &self.bytes) == (other.lsn, other.to, &other.bytes),
            (Trouble::Source(a), Trouble::Source(b)) => {
                let missing = |error: &SourceError| matches!(error.problem, SourceProblem::Missing);
                missing(a) && missing(b) && (self.lsn, self.to) == (other.lsn, other.to)
            }
            _ => false,
        }
    }

    /// The page whose header is damaged.
    fn page(&self) -> Option<Lsn> {
        match &self.trouble {
            Trouble::Damage(error) if Some(error.location().lsn) != error.location().record => Some(error.location().lsn),
            _ => None,
        }
    }
}

fn owned(raw: RawRecord<'_>) -> RawRecord<'static> {
    RawRecord { bytes: raw.bytes.into_owned().into(), ..raw }
}
