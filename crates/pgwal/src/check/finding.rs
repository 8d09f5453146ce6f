//! What a check found: where, what, and what can be done about it.

use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

use super::control::ControlProblem;
use crate::error::ErrorKind;
use crate::format::WalMagic;
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::printable::printable;
use crate::set::RemarkKind;
use crate::source::{NoFile, Wrapping};

/// Something wrong in a segment, or in the set of segments; one for each damaged range. JSON: one object, with the fields of its
/// [`Class`] and of its [`Problem`] (`problem`) beside its own, and with `action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, archive member or stream, as the user knows it; of a file that is missing, its name.
    pub input: String,
    /// Segment: by the name of its file, else by its content; `None` where no segment is meant, as for a history file.
    pub segment: Option<SegmentName>,
    /// Bytes of the file, the end not included; `None`: the file as a whole.
    pub offsets: Option<Range<u64>>,
    /// The place in the WAL, the end not included; `None` where it is unknown.
    pub lsns: Option<Range<Lsn>>,
    /// Start of the record that is damaged, or the first of them; `None`: a page header, or no record at all.
    pub record: Option<Lsn>,
    /// What happened to the bytes.
    pub class: Class,
    /// The check that failed: what was expected and what was found; `None` where the class says it all.
    pub problem: Option<Problem>,
    /// Another file of the same segment that has no damage; `None`: there is none.
    pub whole_copy: Option<String>,
}

/// What happened to the bytes: what a person can act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "class", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// A part of a page was written and the rest was not: it has zeroes, or what was there before.
    TornPage {
        /// Bytes that were written at a time: 512 (a disk's sector) or 4096 (a page of the operating system).
        sector: u32,
    },
    /// Whole pages of zeroes with WAL after them.
    ZeroedPage,
    /// The end of a segment is zeroes, and the next segment goes on: a copy that was cut off after the file had got its size.
    ZeroedTail,
    /// A page of an earlier use of the file, with WAL after it.
    RecycledPage {
        /// Segment that the page comes from.
        from: SegmentName,
        /// Its address there. C: `xlp_pageaddr`.
        address: Lsn,
    },
    /// One bit is the other way round, and turning it back makes all right.
    BitFlip {
        /// Offset of its byte in the file.
        offset: u64,
        /// The bit in its byte, 0 to 7, the lowest first.
        bit: u8,
    },
    /// The content is whole and not in its place: bytes were put in or left out before it.
    Displaced {
        /// By so many bytes; negative: they are missing.
        by: i64,
        /// Each line feed has a carriage return before it, as after a copy in text mode.
        text_mode: bool,
    },
    /// The record's length is not one that a record can have.
    ImpossibleLength {
        /// The length. C: `xl_tot_len`.
        found: u32,
    },
    /// Damage without a pattern.
    Corrupted,
    /// The WAL begins anew with a checkpoint that follows no record: pg_resetwal wrote it.
    WalReset {
        /// Where the WAL before ended; `None`: it is damaged there.
        ended: Option<Lsn>,
    },
    /// From here on the WAL follows other records than those before it, and neither is damaged: two servers wrote the same timeline.
    OtherHistory,
    /// The bytes are as they were written (the checksum is right), but they are not what the format allows.
    Malformed,
    /// Bytes that the format leaves unused are not zero.
    NotZero,
    /// WAL of another major version than the segments around it.
    WrongMajor {
        /// Magic of the segments around it.
        expected: WalMagic,
        /// Its own.
        found: WalMagic,
    },
    /// Not WAL at all, or of an unknown version.
    NotWal,
    /// The file has the name of a segment and no bytes.
    EmptyFile,
    /// A segment of another cluster.
    ForeignCluster {
        /// System identifier of the cluster. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        expected: u64,
        /// Its own. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        found: u64,
        /// What says which cluster it is.
        by: Authority,
    },
    /// The content is whole WAL of another place than the file's name says.
    WrongName {
        /// The name that fits the content.
        content: SegmentName,
    },
    /// The file ends inside the segment.
    Truncated {
        /// Bytes there are.
        len: u64,
        /// Bytes of a segment.
        expected: u32,
    },
    /// The file is longer than a segment.
    TooLong {
        /// Bytes there are, at least.
        len: u64,
        /// Bytes of a segment.
        expected: u32,
    },
    /// The segment is whole, but the compressed file goes on with something else.
    AfterPacked {
        /// Where that begins in the compressed file.
        offset: u64,
    },
    /// Segments are missing, with WAL after them.
    MissingSegment {
        /// The first one.
        first: SegmentName,
        /// The last one.
        last: SegmentName,
    },
    /// The WAL ends before a place that the server needs.
    EndsEarly {
        /// The place.
        needed: Lsn,
    },
    /// `pg_control` is damaged, or does not fit the WAL beside it.
    ControlFile,
    /// A segment is there twice.
    DuplicateSegment {
        /// The other file.
        other: String,
    },
    /// Timelines contradict each other: in page headers, records, file names or history files.
    Timeline,
    /// A history file or backup label is missing, or does not say what a server writes.
    TextFile,
    /// What has the name of a segment is not a file.
    NotAFile {
        /// What it is.
        #[serde(flatten)]
        what: NoFile,
    },
    /// The file is compressed or encrypted in a way that is not read: nothing is known of what is inside.
    NotRead {
        /// In which way.
        wrapping: Wrapping,
    },
    /// The file cannot be read, or does not unpack.
    Unreadable {
        /// What the operating system or the decompressor says.
        reason: String,
    },
}

/// What says which of two clusters is the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// Most segments, which proves nothing.
    Majority,
    /// `pg_control`, or whoever asks.
    Given,
    /// The same, and no segment at all is of that cluster: rather that is wrong, or the directory is another one than was meant.
    GivenAgainstAll,
}

/// What to do about a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// Take the segment from another copy of the WAL: the server's pg_wal, a standby, another archive.
    FetchAgain,
    /// Find the missing segments in another copy of the WAL; without them a restore stops before them.
    FindMissing,
    /// Find the missing WAL in another copy, as the server does not start without it; if there is none, restore a base backup.
    FindForStart,
    /// Take the directory's copy again, or restore a base backup.
    RestoreCluster,
    /// Do not start the server: it would write over WAL. Take the directory's copy again.
    DoNotStart,
    /// Take the file out of this set of segments, and look for the one that belongs there.
    Separate,
    /// Find out which of two clusters or releases is the right one, and keep their segments apart.
    KeepApart,
    /// Take the file from another copy of the archive, or from the server's pg_wal.
    FetchFile,
    /// Take a new base backup: no copy of the WAL helps.
    NewBaseBackup,
    /// Look for the segment in the archive of the server whose history is wanted.
    FindHistory,
    /// Compare the file with another copy: recovery does not look at these bytes.
    Compare,
    /// Use the other copy of the segment, which is whole.
    UseOther,
    /// Remove the empty file where the server still has the segment, so that it is archived again; else take it from another copy.
    ArchiveAgain,
    /// Give the file the name of its content, after a look at how it got the other one.
    Rename,
    /// Compress the segment anew, or take the file from another copy of the archive.
    Repack,
    /// Decide which of the two is right, and remove the other.
    RemoveOne,
    /// Unpack the segment where it is: the server needs it to start.
    UnpackForStart,
    /// Unpack or decrypt the file, and check what is inside.
    Unwrap,
    /// Report it: the server wrote it like this, or this program is wrong.
    Report,
}

/// A check that failed: what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Problem {
    /// The server's own reader would stop at it.
    Format(ErrorKind),
    /// The server's own reader does not look at it.
    Check(Check),
    /// Something about the set of files.
    Set(RemarkKind),
    /// What a data directory's `pg_control` says.
    Control(ControlProblem),
}

/// Checks that the server's own reader does not make: one variant for each, with its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Check {
    /// The padding of the page header, after `xlp_rem_len`, is not zero.
    PagePadding {
        /// What it has.
        found: u32,
    },
    /// `xlp_rem_len` is not zero on a page that no record goes on at.
    RemainingAlone {
        /// `xlp_rem_len`.
        found: u32,
    },
    /// `xlp_rem_len` does not carry on the count of the page before.
    Remaining {
        /// What is left of the record, by the page before.
        expected: u64,
        /// `xlp_rem_len`.
        found: u32,
    },
    /// A long page header where no segment starts.
    LongHeaderInside,
    /// `xlp_sysid` is not that of the other segments.
    SystemIdentifier {
        /// That of the other segments. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        expected: u64,
        /// `xlp_sysid`. JSON: a string.
        #[serde(serialize_with = "crate::json::as_string")]
        found: u64,
    },
    /// `xlp_tli` is newer than the timeline in the file's name.
    TimelineAboveName {
        /// Timeline in the name.
        name: TimelineId,
        /// `xlp_tli`.
        found: TimelineId,
    },
    /// `xlp_tli` changes without a record that switches the timeline.
    TimelineWithoutSwitch {
        /// Timeline of the WAL before.
        expected: TimelineId,
        /// `xlp_tli`.
        found: TimelineId,
    },
    /// The page says that a lost record is written over, but no such record starts on it. C: `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
    NoOverwriteRecord,
    /// OVERWRITE_CONTRECORD is about another record than the one that was lost.
    OverwrittenRecord {
        /// Start of the record that was lost.
        expected: Lsn,
        /// What the record says.
        found: Lsn,
    },
    /// The padding of the record header is not zero.
    RecordPadding {
        /// What it has.
        found: u16,
    },
    /// The bytes between a record and the next are not zero.
    AlignmentPadding {
        /// The first that is not.
        found: u8,
    },
    /// Bytes behind XLOG_SWITCH, which leaves the rest of the segment empty, are not zero.
    AfterSwitch {
        /// The first that is not.
        found: u8,
    },
}

impl Check {
    /// Whether it is about bytes that have no meaning.
    const fn is_unused(&self) -> bool {
        matches!(
            self,
            Check::PagePadding { .. }
                | Check::RemainingAlone { .. }
                | Check::RecordPadding { .. }
                | Check::AlignmentPadding { .. }
                | Check::AfterSwitch { .. }
        )
    }
}

impl Class {
    /// Its name, as JSON has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Class::TornPage { .. } => "torn_page",
            Class::ZeroedPage => "zeroed_page",
            Class::ZeroedTail => "zeroed_tail",
            Class::RecycledPage { .. } => "recycled_page",
            Class::BitFlip { .. } => "bit_flip",
            Class::Displaced { .. } => "displaced",
            Class::ImpossibleLength { .. } => "impossible_length",
            Class::Corrupted => "corrupted",
            Class::WalReset { .. } => "wal_reset",
            Class::OtherHistory => "other_history",
            Class::Malformed => "malformed",
            Class::NotZero => "not_zero",
            Class::WrongMajor { .. } => "wrong_major",
            Class::NotWal => "not_wal",
            Class::EmptyFile => "empty_file",
            Class::ForeignCluster { .. } => "foreign_cluster",
            Class::WrongName { .. } => "wrong_name",
            Class::Truncated { .. } => "truncated",
            Class::TooLong { .. } => "too_long",
            Class::AfterPacked { .. } => "after_packed",
            Class::MissingSegment { .. } => "missing_segment",
            Class::EndsEarly { .. } => "ends_early",
            Class::ControlFile => "control_file",
            Class::DuplicateSegment { .. } => "duplicate_segment",
            Class::Timeline => "timeline",
            Class::TextFile => "text_file",
            Class::NotAFile { .. } => "not_a_file",
            Class::NotRead { .. } => "not_read",
            Class::Unreadable { .. } => "unreadable",
        }
    }

    /// What to do about it, as far as the class tells: see [`Finding::action`].
    pub const fn action(&self) -> Action {
        match self {
            Class::MissingSegment { .. } => Action::FindMissing,
            Class::ForeignCluster { by: Authority::Given, .. } => Action::Separate,
            Class::WrongMajor { .. } | Class::ForeignCluster { .. } => Action::KeepApart,
            Class::EndsEarly { .. } => Action::FindForStart,
            Class::EmptyFile => Action::ArchiveAgain,
            Class::WalReset { .. } => Action::NewBaseBackup,
            Class::OtherHistory => Action::FindHistory,
            Class::NotZero => Action::Compare,
            Class::ControlFile => Action::RestoreCluster,
            Class::WrongName { .. } => Action::Rename,
            Class::AfterPacked { .. } => Action::Repack,
            Class::DuplicateSegment { .. } => Action::RemoveOne,
            Class::Malformed => Action::Report,
            Class::TextFile => Action::FetchFile,
            Class::NotRead { .. } => Action::Unwrap,
            _ => Action::FetchAgain,
        }
    }
}

impl Finding {
    /// What to do about it.
    pub fn action(&self) -> Action {
        if self.whole_copy.is_some() {
            return Action::UseOther;
        }
        match (&self.class, &self.problem) {
            (_, Some(Problem::Control(ControlProblem::GoesOnAfterShutdown { .. }))) => Action::DoNotStart,
            (Class::ControlFile, _) | (Class::TextFile, Some(Problem::Control(_))) => Action::RestoreCluster,
            (_, Some(Problem::Control(ControlProblem::NotPlain { .. }))) => Action::UnpackForStart,
            (_, Some(Problem::Control(_))) => Action::FindForStart,
            (Class::BitFlip { .. }, Some(Problem::Check(check))) if check.is_unused() => Action::Compare,
            (class, _) => class.action(),
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'f> {
            input: &'f str,
            segment: Option<SegmentName>,
            offsets: &'f Option<Range<u64>>,
            lsns: &'f Option<Range<Lsn>>,
            record: Option<Lsn>,
            #[serde(flatten)]
            class: &'f Class,
            problem: &'f Option<Problem>,
            action: Action,
            #[serde(skip_serializing_if = "Option::is_none")]
            whole_copy: &'f Option<String>,
        }
        let action = self.action();
        let Finding { input, segment, offsets, lsns, record, class, problem, whole_copy } = self;
        Line { input, segment: *segment, offsets, lsns, record: *record, class, problem, action, whole_copy }.serialize(serializer)
    }
}

/// One paragraph: where, what, what was expected and found, what it means, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        printable(&self.input).fmt(f)?;
        if let Some(offsets) = &self.offsets {
            write!(f, ":0x{:x}-0x{:x}", offsets.start, offsets.end)?;
        }
        if let Some(lsns) = &self.lsns {
            write!(f, " ({} to {})", lsns.start, lsns.end)?;
        }
        match &self.problem {
            Some(Problem::Control(ControlProblem::VersionUnreadable { .. })) => write!(f, ": version file")?,
            _ => write!(f, ": {}", self.class)?,
        }
        match (&self.class, &self.problem) {
            (Class::MissingSegment { first, last }, None) if first == last => write!(f, ": there is WAL after it. ")?,
            (Class::MissingSegment { .. }, None) => write!(f, ", and there is WAL after them. ")?,
            _ => write!(f, ". ")?,
        }
        if let Some(problem) = &self.problem {
            write!(f, "{problem}")?;
            match self.record {
                Some(record) if self.lsns.as_ref().is_none_or(|lsns| lsns.start != record) => write!(f, ", in the record at {record}. ")?,
                _ => write!(f, ". ")?,
            }
        }
        match &self.whole_copy {
            Some(copy) => write!(f, "{} is whole: use that one.", printable(copy)),
            None => write!(f, "{}", self.action()),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Class::TornPage { sector } => write!(f, "torn page: only some of its {sector}-byte pieces were written"),
            Class::ZeroedPage => write!(f, "zeroed page: zeroes, and WAL continues after them"),
            Class::ZeroedTail => write!(f, "zeroed tail: the segment ends with zeroes, and the next one goes on"),
            Class::RecycledPage { from, address } => {
                write!(f, "recycled page: it was left over from {from} ({address}), and WAL continues after it")
            }
            Class::BitFlip { offset, bit } => write!(f, "bit flip: bit {bit} of the byte at 0x{offset:x}, and nothing else"),
            Class::Displaced { text_mode: true, .. } => {
                write!(f, "copied in text mode: a carriage return was put before each line feed, as FTP does in ASCII mode")
            }
            Class::Displaced { by, .. } => {
                let (what, count) = (if *by < 0 { "are missing" } else { "too many come" }, by.unsigned_abs());
                write!(f, "displaced: {count} bytes {what} before what is whole again")
            }
            Class::ImpossibleLength { found } => write!(f, "impossible record length: {found} bytes"),
            Class::Corrupted => write!(f, "corrupted: no single bit, page or sector explains it"),
            Class::WalReset { ended: Some(ended) } => {
                write!(f, "begun anew by pg_resetwal: a checkpoint that follows no record, where the WAL before ended at {ended}")
            }
            Class::WalReset { ended: None } => write!(f, "begun anew by pg_resetwal: a checkpoint that follows no record"),
            Class::OtherHistory => {
                write!(f, "another history: from here on it follows other records than those before it, and both are whole")
            }
            Class::Malformed => write!(f, "malformed: the checksum is right, the content is not"),
            Class::NotZero => write!(f, "not zero: bytes that the format leaves unused"),
            Class::WrongMajor { expected, found } => {
                write!(f, "wrong major: WAL of {}, among WAL of {}", Major(*found), Major(*expected))
            }
            Class::NotWal => write!(f, "not WAL that can be checked"),
            Class::EmptyFile => write!(f, "empty file: nothing of the segment was written"),
            Class::ForeignCluster { expected, found, by: Authority::Majority } => {
                write!(f, "foreign cluster: system identifier {found}, where most others have {expected}")
            }
            Class::ForeignCluster { expected, found, by: Authority::Given } => {
                write!(f, "foreign cluster: system identifier {found}, where this cluster has {expected}")
            }
            Class::ForeignCluster { expected, found, by: Authority::GivenAgainstAll } => {
                write!(
                    f,
                    "foreign cluster: system identifier {found}, where this cluster has {expected}; no segment here is of this cluster"
                )
            }
            Class::WrongName { content } => write!(f, "wrong name: it has the content of {content}"),
            Class::Truncated { len, expected } => write!(f, "truncated: {len} of {expected} bytes"),
            Class::TooLong { len, expected } => write!(f, "too long: {len} bytes, where a segment has {expected}"),
            Class::AfterPacked { offset } => {
                write!(f, "trailing garbage: the compressed data is whole and ends at 0x{offset:x} of the file, where other bytes follow")
            }
            Class::MissingSegment { first, last } if first == last => write!(f, "missing segment"),
            Class::MissingSegment { first, last } => write!(f, "missing segments: {first} to {last}"),
            Class::EndsEarly { needed } => write!(f, "ends early: the WAL does not go on to {needed}"),
            Class::ControlFile => write!(f, "control file"),
            Class::DuplicateSegment { other } => write!(f, "duplicate segment: {} is the same one with other WAL", printable(other)),
            Class::Timeline => write!(f, "timelines contradict each other"),
            Class::TextFile => write!(f, "history file or backup label"),
            Class::NotAFile { what } => write!(f, "not a file: {what}"),
            Class::NotRead { wrapping } => write!(f, "not read: {wrapping}"),
            Class::Unreadable { reason } => write!(f, "unreadable: {}", printable(reason)),
        }
    }
}

/// A magic with the release that it means.
struct Major(WalMagic);

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.major(), self.0.older_release()) {
            (Some(major), _) => write!(f, "PostgreSQL {major}"),
            (None, Some(release)) => write!(f, "PostgreSQL {release}"),
            (None, None) => write!(f, "an unknown version ({})", self.0),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::FetchAgain => {
                "A restore would stop here: take this segment from another copy of the WAL (the server's pg_wal, a standby, another archive)."
            }
            Action::FindMissing => {
                "A restore would stop before it: look for it in another copy of the WAL (the server's pg_wal, a standby, another archive)."
            }
            Action::FetchFile => {
                "A restore may stop here, or take the wrong timeline: take the file from another copy of the archive, or the server's pg_wal."
            }
            Action::FindForStart => {
                "The server needs this WAL to start: look for it in an archive, on a standby or in another copy of pg_wal. If there is none, \
                 restore a base backup; pg_resetwal would start the server with inconsistent data."
            }
            Action::RestoreCluster => {
                "The server does not start like this, or not where it should: if the directory is a copy, take the copy again; else restore a \
                 base backup."
            }
            Action::DoNotStart => {
                "Do not start the server: it would resume at the checkpoint and overwrite the WAL after it. If the directory is a copy, take \
                 the copy again, as a base backup."
            }
            Action::Separate => "A restore would stop here: move the file out of this set, and look for the segment that belongs there.",
            Action::KeepApart => {
                "A restore would stop where one follows the other: find out which of the two is yours (pg_controldata shows a cluster's system \
                 identifier, --system-identifier checks for it), and keep them in directories of their own."
            }
            Action::Rename => "A restore would stop here: find out how the file got this name, and look for the segment that belongs there.",
            Action::Repack => {
                "gzip, xz, zstd and lz4 unpack it but exit with an error, so a restore_command that calls them may fail: compress the segment \
                anew, or take the file from another copy of the archive."
            }
            Action::RemoveOne => {
                "Both are whole, but a restore takes one of them: two servers have written this segment, as after two promotions to the same \
                 timeline. Find out which server's WAL you need, and keep the two apart."
            }
            Action::NewBaseBackup => {
                "No copy of the WAL helps: backups from before cannot be recovered beyond this place, and transactions may be lost. Take a new \
                 base backup, and check the data."
            }
            Action::FindHistory => {
                "A restore would stop here. Two servers have written this timeline, as after two promotions of standbys of one primary, or where \
                 a copy of the cluster was started: look for this segment in the archive of the server whose history you need, and keep the WAL \
                 of the two apart."
            }
            Action::Compare => {
                "Recovery does not look at these bytes, but something has changed them: compare the file with another copy of the WAL."
            }
            Action::UseOther => "Another copy of the segment is whole: use that one.",
            Action::ArchiveAgain => {
                "A restore would stop here: take the segment from another copy of the WAL. If it is to be archived from the server's pg_wal \
                 again, remove this empty file first."
            }
            Action::UnpackForStart => {
                "The server needs this WAL to start: unpack the segment in pg_wal, under its name without a suffix, with the owner and \
                 permissions of the others."
            }
            Action::Unwrap => "Nothing is known of what is inside: unpack or decrypt it, and check that.",
            Action::Report => "No copy will differ: the server wrote it like this, or this check is wrong. Please report it.",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Format(kind) => kind.fmt(f),
            Problem::Check(check) => check.fmt(f),
            Problem::Set(remark) => remark.fmt(f),
            Problem::Control(problem) => problem.fmt(f),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Check::PagePadding { found } => write!(f, "padding after xlp_rem_len: expected 0, found {found:08X}"),
            Check::RemainingAlone { found } => write!(f, "xlp_rem_len: expected 0, since no record goes on here, found {found}"),
            Check::Remaining { expected, found } => write!(f, "xlp_rem_len: expected {expected} by the page before, found {found}"),
            Check::LongHeaderInside => {
                write!(f, "xlp_info: expected a short page header, since no segment starts here, found XLP_LONG_HEADER")
            }
            Check::SystemIdentifier { expected, found } => write!(f, "xlp_sysid: expected {expected}, found {found}"),
            Check::TimelineAboveName { name, found } => write!(f, "xlp_tli: expected {name} at most, by the file's name, found {found}"),
            Check::TimelineWithoutSwitch { expected, found } => {
                write!(f, "xlp_tli: expected {expected}, since no record switches the timeline here, found {found}")
            }
            Check::NoOverwriteRecord => write!(f, "XLP_FIRST_IS_OVERWRITE_CONTRECORD is set, but OVERWRITE_CONTRECORD does not follow"),
            Check::OverwrittenRecord { expected, found } => write!(f, "overwritten_lsn: expected {expected}, found {found}"),
            Check::RecordPadding { found } => write!(f, "padding after xl_rmid: expected 0, found {found:04X}"),
            Check::AlignmentPadding { found } => write!(f, "padding between records: expected 00, found {found:02X}"),
            Check::AfterSwitch { found } => write!(f, "rest of the segment after XLOG_SWITCH: expected 00, found {found:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_class_and_problem() {
        let finding = Finding {
            input: "000000010000000000000001".to_owned(),
            segment: "000000010000000000000001".parse().ok(),
            offsets: Some(0x2000..0x4000),
            lsns: Some(Lsn(0x100_2000)..Lsn(0x100_4000)),
            record: None,
            class: Class::ZeroedPage,
            problem: Some(Problem::Format(ErrorKind::Magic { expected: WalMagic::of(15), found: WalMagic(0) })),
            whole_copy: None,
        };
        let json = serde_json::to_string(&finding).unwrap();
        let expected = "{\"input\":\"000000010000000000000001\",\"segment\":\"000000010000000000000001\",\
            \"offsets\":{\"start\":8192,\"end\":16384},\"lsns\":{\"start\":\"0/01002000\",\"end\":\"0/01004000\"},\"record\":null,\
            \"class\":\"zeroed_page\",\"problem\":{\"kind\":\"magic\",\"expected\":\"D110\",\"found\":\"0000\"},\"action\":\"fetch_again\"}";
        assert_eq!(json, expected);
        let text = finding.to_string();
        assert!(text.starts_with("000000010000000000000001:0x2000-0x4000 (0/01002000 to 0/01004000): zeroed page"), "{text}");
        assert!(json.contains(&format!("\"class\":\"{}\"", finding.class.name())));
    }
}
