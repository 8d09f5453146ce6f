//! Receiving WAL from a walsender, timeline after timeline. C: bin/pg_basebackup/receivelog.c, pg_receivewal.c.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgwal::format::{WalMagic, is_block_size};
use pgwal::history::{History, HistoryError};
use pgwal::page::{is_segment_size, is_wal_page_size};
use pgwal::printable::printable;
use pgwal::types::TimestampTz;
use pgwal::{Decoder, Lsn, SegmentName, TimelineId, WalFormat};

use crate::command::Command;
use crate::compress::Compression;
use crate::lock::{DirectoryLock, LockError};
use crate::message::{FromWalReceiver, FromWalSender, MessageError, NextTimeline, StandbyStatus};
use crate::receiver::{OnDamage, Receiver, Start, TakeError};
use crate::segment_start::StartProblem;
use crate::segments::{FileError, Newest, Origin, Policy, Segments};

/// What a connection to a walsender can do.
pub trait Walsender {
    /// What goes wrong on the connection, or what the server says against a command.
    type Error: std::error::Error + 'static;

    /// Major version of the server.
    fn major(&self) -> u8;

    /// Sends a command; the rows that it brings, each a list of values that may be null.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    fn rows(&mut self, command: &Command<'_>) -> Result<Vec<Row>, Self::Error>;

    /// Sends a command that starts streaming. `Some`: there is nothing left of that timeline, and this is the next one.
    ///
    /// # Errors
    /// The connection breaks, or the server refuses.
    fn start(&mut self, command: &Command<'_>) -> Result<Option<NextTimeline>, Self::Error>;

    /// What comes next of the stream, until then; it may say sooner that nothing has come.
    ///
    /// # Errors
    /// The connection breaks, or the server ends the stream with an error.
    fn next(&mut self, until: Instant) -> Result<Event<'_>, Self::Error>;

    /// Sends a message into the stream.
    ///
    /// # Errors
    /// The connection breaks.
    fn send(&mut self, message: &[u8]) -> Result<(), Self::Error>;

    /// Ends the stream from this side and reads what still comes of it. The next timeline, where the server ended it because there is
    /// nothing left of this one.
    ///
    /// # Errors
    /// The connection breaks.
    fn end(&mut self) -> Result<Option<NextTimeline>, Self::Error>;

    /// Whether the error is the server's refusal of one command, after which the connection can take the next one.
    fn is_refusal(error: &Self::Error) -> bool;
}

/// A row of what a command brings.
pub type Row = Vec<Option<Vec<u8>>>;

/// What comes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The content of a `CopyData`.
    Message(&'a [u8]),
    /// Nothing has come.
    Nothing,
    /// The server has ended the stream.
    End,
    /// The server was shut down, and the connection is over.
    ShutDown,
}

/// What is received, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the segments.
    pub dir: PathBuf,
    /// How they are compressed.
    pub compression: Compression,
    /// The slot that remembers how far this is.
    pub slot: Option<String>,
    /// Everything is put on disk and acknowledged as it comes.
    pub synchronous: bool,
    /// How files are written.
    pub policy: Policy,
    /// How often the server is told how far this is.
    pub status_interval: Duration,
    /// Nothing after this is wanted.
    pub end: Option<Lsn>,
    /// What becomes of WAL that is damaged.
    pub on_damage: OnDamage,
    /// A server that says nothing for so long is given up; after half of it, it is asked for a sign of life. `None`: never.
    /// C: `wal_receiver_timeout`.
    pub timeout: Option<Duration>,
}

/// What one connection leaves to the next one.
#[derive(Debug, Default)]
pub struct Memory {
    /// Damage has been written: nothing more is acknowledged as flushed.
    pub is_damaged: bool,
    /// Behind the last byte written, and its timeline: where to go on if the files are taken away.
    pub written: Option<(TimelineId, Lsn)>,
    /// Where the slot is, for servers before 15, which do not say it over a connection for replication; `None`: not known.
    pub slot: Option<Lsn>,
    /// Keeps other receivers out of the directory.
    pub lock: Option<DirectoryLock>,
    /// What other processes left in the directory has been written anew and put on disk by this one, and no fsync has failed since.
    pub is_on_disk: bool,
    /// The same of the history files of these timelines.
    pub histories: BTreeSet<TimelineId>,
}

impl Memory {
    /// Locks `dir`, unless it is locked already.
    ///
    /// # Errors
    /// Another receiver has locked it, or it cannot be opened.
    pub fn hold(&mut self, dir: &Path) -> Result<(), LockError> {
        if self.lock.as_ref().is_none_or(|lock| !lock.is_of(dir)) {
            // Before the new one is taken: where it is the same directory after all, it is ours.
            self.lock = None;
            self.lock = Some(DirectoryLock::take(dir)?);
        }
        Ok(())
    }
}

/// What happens while WAL is received.
#[derive(Debug)]
pub enum Notice<'a> {
    /// Streaming starts.
    Starting {
        /// From here.
        lsn: Lsn,
        /// On this timeline.
        timeline: TimelineId,
        /// Bytes of a segment.
        segment_size: u32,
    },
    /// The server went on to another timeline.
    Switched {
        /// The timeline that ended.
        from: TimelineId,
        /// The next one.
        to: NextTimeline,
    },
    /// Something has been written.
    Written {
        /// Everything before this.
        written: Lsn,
        /// Where the WAL ends on the server.
        server_end: Lsn,
    },
    /// Damage has been written.
    Damage(&'a pgwal::Error),
    /// A segment in the directory is damaged: what is wrong with it.
    DamagedFile(&'a str),
    /// It is not known where the slot is, and the directory is empty: what the slot keeps from before is not asked for.
    SlotUnknown {
        /// The slot.
        slot: &'a str,
        /// Streaming starts here.
        start: Lsn,
    },
}

/// Why receiving ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was to stop.
    Stopped,
    /// It got to the end that was asked for.
    Reached(Lsn),
    /// The server ended the stream, and says of no timeline that follows.
    Ended,
    /// The server was shut down. Before that it has sent all its WAL.
    ShutDown,
}

/// Why WAL cannot be received.
#[derive(Debug)]
pub enum ReceiveError<E> {
    /// The connection, or what the server says.
    Server(E),
    /// The server refuses a command; the connection is still there.
    Refused {
        /// The command, as PostgreSQL's own programs name it in their messages.
        command: String,
        /// What the server says.
        error: E,
    },
    /// A message of the server.
    Message(MessageError),
    /// What the server says does not say what it should.
    Answer {
        /// The command.
        command: String,
        /// What was expected of its answer.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// A file.
    File(FileError),
    /// Another receiver writes into the directory.
    Locked(LockError),
    /// The WAL that came.
    Wal(TakeError),
    /// The server names a next timeline that cannot follow the one that ended.
    NextTimeline {
        /// The timeline that ended.
        timeline: TimelineId,
        /// The one that is to follow.
        next: TimelineId,
    },
    /// The next timeline begins after what has been streamed of the one that ended: the WAL in between would be missing.
    NextStart {
        /// The timeline that ended.
        timeline: TimelineId,
        /// Where streaming stopped.
        stopped: Lsn,
        /// The timeline that is to follow, and where.
        next: NextTimeline,
    },
    /// The history file of a timeline cannot be read.
    History {
        /// The timeline.
        timeline: TimelineId,
        /// What is wrong with the file.
        error: HistoryError,
    },
    /// The history file of the next timeline says something else than the server did.
    Ancestor {
        /// The timeline that ended.
        timeline: TimelineId,
        /// The timeline that is to follow, and where.
        next: NextTimeline,
        /// The timeline that the file has as the one before, and where it was left.
        found: Option<(TimelineId, Lsn)>,
    },
    /// The history file in the directory is another one than the server's.
    OtherHistory {
        /// Its timeline.
        timeline: TimelineId,
    },
    /// The server has no such slot.
    NoSlot {
        /// The slot.
        slot: String,
    },
    /// The WAL in the directory was written by another major version.
    Major {
        /// The segment that says so.
        segment: SegmentName,
        /// The major that wrote it.
        directory: u8,
        /// That of the server.
        server: u8,
    },
    /// The WAL in the directory is of a cluster with segments of another size.
    SegmentSize {
        /// The segment that says so.
        segment: SegmentName,
        /// Bytes of its segments.
        directory: u32,
        /// Bytes of the server's.
        server: u32,
    },
    /// The WAL in the directory is of another cluster.
    System {
        /// That of the WAL in the directory.
        expected: u64,
        /// That of the server.
        found: u64,
    },
    /// The WAL in the directory is of a newer timeline than the server's.
    Timeline {
        /// That of the directory.
        directory: TimelineId,
        /// That of the server.
        server: TimelineId,
    },
    /// The WAL in the directory goes on where the server's history has left that timeline.
    Diverged {
        /// The timeline of the WAL in the directory.
        timeline: TimelineId,
        /// How far that goes.
        directory: Lsn,
        /// The timeline of the server.
        server: TimelineId,
        /// Where its history left the other one; `None`: it was never on it.
        switch: Option<Lsn>,
    },
    /// A segment in the directory is damaged: what is wrong with it.
    DamagedFile(String),
    /// A major version whose WAL is not known.
    Version {
        /// The version, zero for a server that does not say it.
        found: u8,
    },
    /// The server has not said anything for so long.
    Silent(Duration),
}

impl<E: fmt::Display> fmt::Display for ReceiveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Server(error) | ReceiveError::Refused { error, .. } => error.fmt(f),
            ReceiveError::Message(error) => write!(f, "the server sent {error}"),
            ReceiveError::Answer { command, expected, found } => {
                write!(f, "the server answered {command} with {}: expected {expected}", printable(found))
            }
            ReceiveError::File(error) => error.fmt(f),
            ReceiveError::Locked(error) => error.fmt(f),
            ReceiveError::Wal(error) => error.fmt(f),
            ReceiveError::NextTimeline { timeline, next } => {
                write!(f, "server reported unexpected next timeline {next}, following timeline {timeline}")
            }
            ReceiveError::NextStart { timeline, stopped, next: NextTimeline { timeline: next, start } } => write!(
                f,
                "server stopped streaming timeline {timeline} at {stopped}, but reported next timeline {next} to begin at {start}"
            ),
            ReceiveError::History { timeline, error } => {
                write!(f, "the server's history file of timeline {timeline} cannot be used: {error}")
            }
            ReceiveError::Ancestor { timeline, next: NextTimeline { timeline: next, start }, found } => {
                write!(
                    f,
                    "server reported that timeline {next} follows timeline {timeline} at {start}, but its history file of timeline {next} says "
                )?;
                match found {
                    Some((timeline, switch)) => write!(f, "that it follows timeline {timeline} at {switch}"),
                    None => f.write_str("that it follows none"),
                }
            }
            ReceiveError::OtherHistory { timeline } => write!(
                f,
                "the history file of timeline {timeline} in the directory differs from the server's: these are two timelines of that number"
            ),
            ReceiveError::NoSlot { slot } => write!(f, "replication slot \"{slot}\" does not exist"),
            ReceiveError::Major { segment, directory, server } => write!(
                f,
                "segment {segment} in the directory was written by PostgreSQL {directory}, but the server runs PostgreSQL {server}"
            ),
            ReceiveError::SegmentSize { segment, directory, server } => write!(
                f,
                "segment {segment} in the directory is of a cluster with segments of {directory} bytes, but those of the server have {server}"
            ),
            ReceiveError::System { expected, found } => {
                write!(f, "the WAL in the directory is of a cluster with system identifier {expected}, and the server's is {found}")
            }
            ReceiveError::Timeline { directory, server } => {
                write!(f, "the WAL in the directory is of timeline {directory}, and the server is on timeline {server}")
            }
            ReceiveError::Diverged { timeline, directory, server, switch: Some(switch) } => write!(
                f,
                "the WAL in the directory goes to {directory} on timeline {timeline}, and the server, which is on timeline {server}, has left that at {switch}"
            ),
            ReceiveError::Diverged { timeline, server, switch: None, .. } => {
                write!(
                    f,
                    "the WAL in the directory is of timeline {timeline}, which is not in the history of the server's timeline {server}"
                )
            }
            ReceiveError::DamagedFile(problem) => write!(f, "the WAL in the directory is damaged: {problem}"),
            ReceiveError::Version { found: 0 } => write!(f, "the server does not say its version"),
            ReceiveError::Version { found } => write!(f, "the server is of PostgreSQL {found}, whose WAL is not known"),
            ReceiveError::Silent(limit) => write!(f, "the server has not answered for {} s", limit.as_secs_f32()),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ReceiveError<E> {}

impl<E> ReceiveError<E> {
    /// The error of the connection or of the server; `None`: it is none.
    pub fn server(&self) -> Option<&E> {
        match self {
            ReceiveError::Server(error) | ReceiveError::Refused { error, .. } => Some(error),
            _ => None,
        }
    }

    /// What it means that a command has failed.
    fn of_command<S: Walsender<Error = E>>(command: &Command<'_>, error: E) -> Self {
        if !S::is_refusal(&error) {
            return ReceiveError::Server(error);
        }
        let command = match command {
            // C names these without what follows.
            Command::StartReplication { .. } => "START_REPLICATION".to_owned(),
            Command::TimelineHistory(_) => "TIMELINE_HISTORY".to_owned(),
            command => command.to_string(),
        };
        ReceiveError::Refused { command, error }
    }
}

impl<E> From<FileError> for ReceiveError<E> {
    fn from(error: FileError) -> Self {
        ReceiveError::File(error)
    }
}

impl<E> From<LockError> for ReceiveError<E> {
    fn from(error: LockError) -> Self {
        match error {
            LockError::File(error) => ReceiveError::File(error),
            error @ (LockError::Held { .. } | LockError::ServersOwn { .. }) => ReceiveError::Locked(error),
        }
    }
}

impl<E> From<TakeError> for ReceiveError<E> {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::File(error) => ReceiveError::File(error),
            error => ReceiveError::Wal(error),
        }
    }
}

/// Who the server is. C: `IDENTIFY_SYSTEM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct System {
    /// Its system identifier.
    pub identifier: u64,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// Up to where its WAL is on disk.
    pub flushed: Lsn,
    /// Format of its WAL. [`System::ask`] leaves the block size open.
    pub fmt: WalFormat,
}

impl System {
    /// Asks the server.
    ///
    /// # Errors
    /// The connection breaks, or the answers are not what they should be.
    pub fn ask<S: Walsender>(server: &mut S) -> Result<System, ReceiveError<S::Error>> {
        if WalMagic::of(server.major()).is_none() {
            return Err(ReceiveError::Version { found: server.major() });
        }
        let (identifier, timeline, flushed) = System::identify(server)?;
        let segment_size = size(server, "wal_segment_size", is_segment_size)?;
        let wal_page_size = size(server, "wal_block_size", is_wal_page_size)?;
        let fmt = WalFormat { segment_size, wal_page_size, block_size: 0, ..WalFormat::new(server.major()) };
        Ok(System { identifier, timeline, flushed, fmt })
    }

    /// Asks for the size of heap and index pages as well, which whoever looks at records needs.
    ///
    /// Every server from 10 on answers. One that refuses nevertheless leaves the size open: it then comes from the first page image
    /// that shows it.
    ///
    /// # Errors
    /// The connection breaks, or the answer is not a block size.
    pub fn with_block_size<S: Walsender>(self, server: &mut S) -> Result<System, ReceiveError<S::Error>> {
        match size(server, "block_size", is_block_size) {
            Ok(block_size) => Ok(System { fmt: self.fmt.with_block_size(block_size), ..self }),
            Err(ReceiveError::Refused { .. }) => Ok(self),
            Err(error) => Err(error),
        }
    }

    /// IDENTIFY_SYSTEM: the system identifier, the timeline, and up to where WAL is on disk.
    pub(crate) fn identify<S: Walsender>(server: &mut S) -> Result<(u64, TimelineId, Lsn), ReceiveError<S::Error>> {
        let row = one_row(server, &Command::IdentifySystem)?;
        let wrong = |what: &'static str| ReceiveError::Answer {
            command: Command::IdentifySystem.to_string(),
            expected: what,
            found: row.iter().map(|value| value.as_deref().unwrap_or("null").to_owned()).collect::<Vec<_>>().join(", "),
        };
        let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
        let identifier = text(0).parse().map_err(|_| wrong("a system identifier, a timeline and an LSN"))?;
        let timeline = TimelineId(text(1).parse().map_err(|_| wrong("a timeline"))?);
        let flushed = text(2).parse().map_err(|_| wrong("an LSN"))?;
        Ok((identifier, timeline, flushed))
    }
}

/// The only row that a command brings, as text.
fn one_row<S: Walsender>(server: &mut S, command: &Command<'_>) -> Result<Vec<Option<String>>, ReceiveError<S::Error>> {
    let mut rows = server.rows(command).map_err(|error| ReceiveError::of_command::<S>(command, error))?;
    let (Some(row), true) = (rows.pop(), rows.is_empty()) else {
        let found = format!("{} rows", rows.len());
        return Err(ReceiveError::Answer { command: command.to_string(), expected: "one row", found });
    };
    Ok(row.into_iter().map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())).collect())
}

/// A setting that is a number of bytes, as `16MB` or `8192`, and one that `is_size` allows.
fn size<S: Walsender>(server: &mut S, setting: &'static str, is_size: fn(u32) -> bool) -> Result<u32, ReceiveError<S::Error>> {
    let command = Command::Show(setting);
    let value = one_row(server, &command)?.into_iter().next().flatten().unwrap_or_default();
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at_checked(digits).unwrap_or_default();
    let shift = match unit {
        "" => Some(0),
        "kB" => Some(10),
        "MB" => Some(20),
        "GB" => Some(30),
        _ => None,
    };
    let bytes = number.parse::<u32>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.filter(|&bytes| is_size(bytes)).ok_or(ReceiveError::Answer {
        command: command.to_string(),
        expected: "a size",
        found: format!("\"{value}\""),
    })
}

/// Receives WAL until `stop` is set, the end that was asked for, the end of the stream, or an error. What was written stays, and another
/// call, with the same `memory`, goes on after it.
///
/// # Errors
/// It cannot go on; what to do depends on the [`ReceiveError`].
pub fn receive<S: Walsender>(
    server: &mut S,
    options: &Options,
    memory: &mut Memory,
    stop: &AtomicBool,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Outcome, ReceiveError<S::Error>> {
    memory.hold(&options.dir)?;
    receive_timelines(server, options, memory, stop, notice).inspect_err(|error| {
        if matches!(error, ReceiveError::File(error) if error.is_sync()) {
            memory.is_on_disk = false;
            memory.histories.clear();
        }
    })
}

fn receive_timelines<S: Walsender>(
    server: &mut S,
    options: &Options,
    memory: &mut Memory,
    stop: &AtomicBool,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Outcome, ReceiveError<S::Error>> {
    let system = System::ask(server)?.with_block_size(server)?;
    let (mut start, mut decoder) = first(server, options, &system, memory, stop, notice)?;
    // What is in the directory may not have been looked at then, and nothing of it is acknowledged.
    if stop.load(Ordering::Relaxed) {
        return Ok(Outcome::Stopped);
    }
    // Where the timeline before said that it ended.
    let mut ended = None;
    loop {
        let segments = Segments::new(&options.dir, system.fmt.segment_size, options.compression).with(options.policy);
        keep_history(server, &segments, start.timeline, ended, memory)?;
        let command = Command::StartReplication { slot: options.slot.as_deref(), start: start.lsn, timeline: start.timeline };
        notice(Notice::Starting { lsn: start.lsn, timeline: start.timeline, segment_size: system.fmt.segment_size });
        // How far the timeline came, and where its last whole record ends.
        let (mut stopped, mut whole) = (start.lsn, start.lsn);
        let next = match server.start(&command).map_err(|error| ReceiveError::of_command::<S>(&command, error))? {
            Some(next) => Some(next),
            None => {
                let mut receiver = Receiver::new(segments, system.fmt, start, options.on_damage);
                if let Some(decoder) = decoder.take() {
                    receiver.continue_from(decoder);
                }
                if memory.is_damaged {
                    receiver.set_damaged();
                }
                let result = stream(server, &mut receiver, options, stop, notice);
                // A full disk, such as for the next segment: what is on disk is the server's to know all the same, once.
                if matches!(&result, Err(ReceiveError::File(error)) if !error.is_sync()) {
                    let _ = report(server, &receiver, options.slot.is_some() || options.synchronous, false);
                }
                (stopped, whole) = (receiver.written(), receiver.whole());
                (memory.is_damaged, memory.written) = (receiver.is_damaged(), Some((start.timeline, stopped)));
                // Whatever happened, what has been written is to be found again; and that it cannot be put on disk weighs more.
                let closed = receiver.close();
                if let Err(error) = closed {
                    return Err(if error.is_sync() { error.into() } else { result.err().unwrap_or(error.into()) });
                }
                let ended = result?;
                match ended {
                    Ended::ByServer(next) => next,
                    Ended::ShutDown => return Ok(Outcome::ShutDown),
                    Ended::Stopped => return Ok(Outcome::Stopped),
                    Ended::Reached(lsn) => return Ok(Outcome::Reached(lsn)),
                }
            }
        };
        let Some(next) = next else { return Ok(Outcome::Ended) };
        follows(start.timeline, stopped, whole, next)?;
        notice(Notice::Switched { from: start.timeline, to: next });
        ended = Some((start.timeline, next.start));
        // The segment of the new timeline has what the old one had before the switch.
        let lsn = Lsn(next.start.0 - next.start.segment_offset(system.fmt.segment_size));
        start = Start { timeline: next.timeline, lsn, previous: None };
    }
}

/// Permissions that files are to have: their owner's, and those of a group that may read the server's data directory, from 11 on.
///
/// # Errors
/// The connection breaks, or the server refuses.
pub fn file_mode<S: Walsender>(server: &mut S) -> Result<u32, ReceiveError<S::Error>> {
    if server.major() < 11 {
        return Ok(Policy::OWNER);
    }
    let mode = one_row(server, &Command::Show("data_directory_mode"))?.into_iter().next().flatten();
    let mode = mode.and_then(|mode| u32::from_str_radix(&mode, 8).ok()).unwrap_or_default();
    Ok(if mode & 0o040 != 0 { Policy::GROUP } else { Policy::OWNER })
}

/// Whether `next` can follow `timeline`, which was streamed up to `stopped` and whose last whole record ends at `whole`. C:
/// `ReceiveXlogStream`, receivelog.c.
///
/// It begins where streaming stopped, or before a record of which only a part has come: a standby that is promoted then goes on without it.
pub(crate) fn follows<E>(timeline: TimelineId, stopped: Lsn, whole: Lsn, next: NextTimeline) -> Result<(), ReceiveError<E>> {
    if next.timeline <= timeline {
        return Err(ReceiveError::NextTimeline { timeline, next: next.timeline });
    }
    if next.start > stopped {
        return Err(ReceiveError::NextStart { timeline, stopped, next });
    }
    if next.start < whole {
        return Err(ReceiveError::Diverged { timeline, directory: whole, server: next.timeline, switch: Some(next.start) });
    }
    Ok(())
}

/// Whether the history file of `timeline`, which follows `ended`, says so, too.
pub(crate) fn descends<E>(timeline: TimelineId, content: &[u8], ended: (TimelineId, Lsn)) -> Result<(), ReceiveError<E>> {
    let history = History::parse(timeline, content).map_err(|error| ReceiveError::History { timeline, error })?;
    let found = history.parent().map(|parent| (parent.timeline, parent.switch));
    if found == Some(ended) {
        return Ok(());
    }
    Err(ReceiveError::Ancestor { timeline: ended.0, next: NextTimeline { timeline, start: ended.1 }, found })
}

/// Where to start: after the WAL in the directory; else where the slot is; else where the server is, from the start of that segment.
/// With the decoder that has seen the segments before, where there are some.
fn first<S: Walsender>(
    server: &mut S,
    options: &Options,
    system: &System,
    memory: &mut Memory,
    stop: &AtomicBool,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<(Start, Option<Decoder>), ReceiveError<S::Error>> {
    let size = system.fmt.segment_size;
    let at_segment = |timeline, lsn: Lsn| Start { timeline, lsn: Lsn(lsn.0 - lsn.segment_offset(size)), previous: None };
    let slot = match &options.slot {
        Some(slot) if system.fmt.since(15) => {
            let row = one_row(server, &Command::ReadReplicationSlot(slot))?;
            let value = |at: usize| row.get(at).cloned().flatten();
            if value(0).is_none() {
                return Err(ReceiveError::NoSlot { slot: slot.clone() });
            }
            value(1).and_then(|lsn| lsn.parse().ok()).zip(value(2).and_then(|tli| tli.parse().ok()).map(TimelineId))
        }
        Some(_) => memory.slot.map(|lsn| (lsn, system.timeline)),
        None => None,
    };
    if let Some(mut newest) = Newest::find(&options.dir, size)? {
        let timeline = newest.segment.timeline;
        if timeline > system.timeline {
            return Err(ReceiveError::Timeline { directory: timeline, server: system.timeline });
        }
        if let Some(origin) = newest.origin {
            is_of(&origin, system)?;
        }
        // It is acknowledged only if it is on disk, which it may not be even though it can be read: see `Newest::rewrite`.
        if options.policy.sync && !memory.is_on_disk {
            newest.rewrite(&options.dir, size, slot.map(|(lsn, _)| lsn), stop)?;
            memory.is_on_disk = !stop.load(Ordering::Relaxed);
            // What counts is what has been written now.
            newest = Newest::find(&options.dir, size)?.unwrap_or(newest);
        }
        let start = match options.compression {
            Compression::None => Start { timeline, lsn: newest.next, previous: newest.previous },
            // What is compressed is written from the start of a segment only.
            _ => at_segment(timeline, newest.next),
        };
        // Whatever has not been acknowledged as flushed yet is going to be, so it is looked at.
        let mut checked = newest.check(&options.dir, system.fmt, slot.map(|(lsn, _)| lsn), stop);
        if let (None, Some(problem)) = (&checked.damage, old_timeline(server, &newest, size)?) {
            checked.damage = Some(format!("{}: {problem}", newest.segment));
        }
        if timeline < system.timeline {
            // A record that begins in the last segment and does not end there need not be one.
            let whole = checked.decoder.as_ref().filter(|_| checked.next == start.lsn).map_or(start.lsn, |decoder| decoder.finish().lsn);
            check_history(server, system, timeline, whole)?;
        }
        if let Some(problem) = checked.damage {
            if options.on_damage == OnDamage::Stop || checked.is_too_long {
                return Err(ReceiveError::DamagedFile(problem));
            }
            if !std::mem::replace(&mut memory.is_damaged, true) {
                notice(Notice::DamagedFile(&problem));
            }
        }
        let decoder = checked.decoder.filter(|_| checked.next == start.lsn && start.previous.is_none());
        return Ok((start, decoder));
    }
    memory.is_on_disk = true;
    // The files have been taken away, and what follows them is wanted.
    if let Some((timeline, written)) = memory.written {
        return Ok((at_segment(timeline, written), None));
    }
    if let Some((lsn, timeline)) = slot {
        return Ok((at_segment(timeline, lsn), None));
    }
    let start = at_segment(system.timeline, system.flushed);
    if let (Some(slot), false) = (&options.slot, system.fmt.since(15)) {
        notice(Notice::SlotUnknown { slot, start: start.lsn });
    }
    Ok((start, None))
}

/// The WAL in the directory must be the server's.
fn is_of<E>(origin: &Origin, system: &System) -> Result<(), ReceiveError<E>> {
    let &Origin { segment, major, segment_size, system_identifier, .. } = origin;
    if major != system.fmt.major {
        return Err(ReceiveError::Major { segment, directory: major, server: system.fmt.major });
    }
    if segment_size != system.fmt.segment_size {
        return Err(ReceiveError::SegmentSize { segment, directory: segment_size, server: system.fmt.segment_size });
    }
    if system_identifier != system.identifier {
        return Err(ReceiveError::System { expected: system_identifier, found: system.identifier });
    }
    Ok(())
}

/// Whether the newest segment has the WAL of an older timeline than its name says: only the segment in which a timeline begins may start
/// with that of the one before.
fn old_timeline<S: Walsender>(server: &mut S, newest: &Newest, segment_size: u32) -> Result<Option<StartProblem>, ReceiveError<S::Error>> {
    let timeline = newest.segment.timeline;
    let Some(origin) = newest.origin.filter(|origin| origin.segment == newest.segment && origin.timeline < timeline) else {
        return Ok(None);
    };
    // One that the server no longer has, or that cannot be read, is for others to judge.
    let content = match history(server, timeline) {
        Ok(content) => content,
        Err(error) if error.server().is_none() => return Err(error),
        Err(_) => return Ok(None),
    };
    let begin = History::parse(timeline, &content).ok().and_then(|history| history.parent().map(|parent| parent.switch));
    let begin = begin.filter(|&begin| begin <= newest.segment.start(segment_size));
    Ok(begin.map(|begin| StartProblem::OldTimeline { found: origin.timeline, expected: (timeline, begin) }))
}

/// The WAL in the directory, on a timeline before the server's, must be what the server's goes on behind: up to `whole`, at least.
fn check_history<S: Walsender>(server: &mut S, system: &System, timeline: TimelineId, whole: Lsn) -> Result<(), ReceiveError<S::Error>> {
    let content = history(server, system.timeline)?;
    // One that cannot be read is the server's to refuse.
    let Ok(history) = History::parse(system.timeline, &content) else { return Ok(()) };
    let switch = history.switch_point(timeline);
    if switch.is_some_and(|switch| whole <= switch) {
        return Ok(());
    }
    Err(ReceiveError::Diverged { timeline, directory: whole, server: system.timeline, switch })
}

/// Has the history file of `timeline` in the directory; the first one has none. It must be that of the timeline that follows `ended`.
fn keep_history<S: Walsender>(
    server: &mut S,
    segments: &Segments,
    timeline: TimelineId,
    ended: Option<(TimelineId, Lsn)>,
    memory: &mut Memory,
) -> Result<(), ReceiveError<S::Error>> {
    if timeline.0 <= 1 {
        return Ok(());
    }
    let kept = segments.history(timeline)?;
    let content = match (history(server, timeline), &kept) {
        // The server may have removed it; what is here will do.
        (Err(error), Some(kept)) if error.server().is_some() => kept.clone(),
        (content, _) => content?,
    };
    if let Some(ended) = ended {
        descends(timeline, &content, ended)?;
    }
    match kept {
        Some(kept) if same_history(timeline, &kept, &content) => {
            if !memory.histories.contains(&timeline) {
                segments.rewrite_history(timeline)?;
            }
        }
        // Such as one that was cut short when it was copied.
        Some(kept) if !content.starts_with(&kept) => return Err(ReceiveError::OtherHistory { timeline }),
        Some(_) | None => segments.write_history(timeline, &content)?,
    }
    memory.histories.insert(timeline);
    Ok(())
}

/// Whether two history files say the same of the timelines before; what they say of the reasons does not count.
fn same_history(timeline: TimelineId, one: &[u8], other: &[u8]) -> bool {
    let read = |content| {
        let history = History::parse(timeline, content).ok()?;
        Some(history.ancestors.iter().map(|ancestor| (ancestor.timeline, ancestor.switch)).collect::<Vec<_>>())
    };
    one == other || read(one).is_some_and(|one| read(other) == Some(one))
}

/// The content of the history file of `timeline`.
pub(crate) fn history<S: Walsender>(server: &mut S, timeline: TimelineId) -> Result<Vec<u8>, ReceiveError<S::Error>> {
    let command = Command::TimelineHistory(timeline);
    let rows = server.rows(&command).map_err(|error| ReceiveError::of_command::<S>(&command, error))?;
    rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten()).ok_or_else(|| ReceiveError::Answer {
        command: command.to_string(),
        expected: "the content of a file",
        found: "nothing".to_owned(),
    })
}

/// Why a stream ended.
enum Ended {
    ByServer(Option<NextTimeline>),
    ShutDown,
    Stopped,
    Reached(Lsn),
}

/// Receives one stream.
fn stream<S: Walsender>(
    server: &mut S,
    receiver: &mut Receiver,
    options: &Options,
    stop: &AtomicBool,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Ended, ReceiveError<S::Error>> {
    // Who names no slot and does not wait for the disk must not look like a synchronous standby.
    let reports_flush = options.slot.is_some() || options.synchronous;
    let mut due = Instant::now() + options.status_interval;
    let mut silence = Silence::new(options.timeout);
    // What was received before may be all that there is, and commits wait for it.
    report(server, receiver, reports_flush, false)?;
    loop {
        if stop.load(Ordering::Relaxed) {
            receiver.sync()?;
            report(server, receiver, reports_flush, false)?;
            // What the server is to know has been said; that it does not answer is no failure.
            let _ = server.end();
            return Ok(Ended::Stopped);
        }
        // An end that lies before the start has been reached, whether anything comes or not.
        if options.end.is_some_and(|end| receiver.written() > end) {
            receiver.sync()?;
            report(server, receiver, reports_flush, false)?;
            let _ = server.end();
            return Ok(Ended::Reached(receiver.written()));
        }
        let (mut wants_report, mut is_all) = (false, false);
        let event = server.next(silence.until().map_or(due, |until| until.min(due))).map_err(ReceiveError::Server)?;
        // After the wait, and before a disk that may take long.
        let now = Instant::now();
        let sign = match event {
            Event::Message(bytes) => {
                silence.broken(now);
                match FromWalSender::read(bytes).map_err(ReceiveError::Message)? {
                    FromWalSender::XLogData(wal) => {
                        let server_end = wal.server_end;
                        let taken = receiver.take(&wal);
                        receiver.damage().iter().for_each(|error| notice(Notice::Damage(error)));
                        taken?;
                        notice(Notice::Written { written: receiver.written(), server_end });
                        if options.synchronous {
                            receiver.sync()?;
                            wants_report = true;
                        }
                    }
                    FromWalSender::Keepalive(keepalive) => {
                        notice(Notice::Written { written: receiver.written(), server_end: keepalive.server_end });
                        wants_report = keepalive.wants_reply;
                        is_all = keepalive.server_end <= receiver.written();
                    }
                }
                false
            }
            Event::Nothing => silence.lasts(now).map_err(ReceiveError::Silent)?,
            Event::End => {
                receiver.sync()?;
                let next = server.end().map_err(ReceiveError::Server)?;
                return Ok(Ended::ByServer(next));
            }
            Event::ShutDown => {
                receiver.sync()?;
                return Ok(Ended::ShutDown);
            }
        };
        if wants_report || sign || now >= due {
            // A server that shuts down waits until all it sent is on disk here.
            if reports_flush && !receiver.is_synced() {
                receiver.sync()?;
            }
            // A server that shuts down waits until what it sent last is on disk here, and that may end within a record, as on a standby
            // that lost its primary. Such an end is not acknowledged; but where nothing is said about the disk, what is written counts.
            let within = wants_report && is_all && receiver.is_synced() && receiver.flushed() < receiver.written();
            report(server, receiver, reports_flush && !within, sign)?;
            due = Instant::now() + options.status_interval;
        }
    }
}

/// How long nothing has come. C: the timeouts in `WalReceiverMain`.
struct Silence {
    limit: Option<Duration>,
    since: Instant,
    /// The server has been asked for a sign of life.
    asked: bool,
}

impl Silence {
    fn new(limit: Option<Duration>) -> Silence {
        Silence { limit, since: Instant::now(), asked: false }
    }

    /// Something has come.
    fn broken(&mut self, now: Instant) {
        (self.since, self.asked) = (now, false);
    }

    /// When something is to be done about it.
    fn until(&self) -> Option<Instant> {
        self.limit.map(|limit| self.since + if self.asked { limit } else { limit / 2 })
    }

    /// Nothing has come until now. Whether the server is to be asked for a sign of life; an error with the limit: it is over.
    fn lasts(&mut self, now: Instant) -> Result<bool, Duration> {
        let Some((limit, until)) = self.limit.zip(self.until()).filter(|&(_, until)| now >= until) else { return Ok(false) };
        if self.asked && now >= until {
            return Err(limit);
        }
        // However late this is: the server gets as long again to answer.
        (self.since, self.asked) = (now - limit / 2, true);
        Ok(true)
    }
}

/// Tells the server how far this is.
fn report<S: Walsender>(server: &mut S, receiver: &Receiver, reports_flush: bool, wants_reply: bool) -> Result<(), ReceiveError<S::Error>> {
    let status = receiver.status(now(), wants_reply);
    // Behind damage, nothing is said about the disk: the slot stays, commits wait, and yet the server can be shut down.
    let flush = if reports_flush && !receiver.is_damaged() { status.flush } else { Lsn::INVALID };
    send_status(server, StandbyStatus { flush, ..status })
}

/// Sends a status.
pub(crate) fn send_status<S: Walsender>(server: &mut S, status: StandbyStatus) -> Result<(), ReceiveError<S::Error>> {
    let mut message = Vec::new();
    FromWalReceiver::Status(status).write(&mut message);
    server.send(&message).map_err(ReceiveError::Server)
}

/// The time, as the server counts it.
pub(crate) fn now() -> TimestampTz {
    /// Seconds from 1970 to 2000.
    const EPOCH: i64 = 946_684_800;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampTz(i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_sub(EPOCH * 1_000_000))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs;

    use super::*;
    use crate::live::{self, Live, Position};
    use crate::message::{Keepalive, XLogData};
    use pgwal::frame::first_format;
    use pgwal::history::History;
    use pgwal_testkit::fixtures;

    /// A walsender with the WAL of a real failover: timeline 1, and timeline 2, which forked off it.
    struct Fake {
        fmt: WalFormat,
        system_identifier: u64,
        /// First LSN and bytes of each timeline.
        timelines: Vec<(Lsn, Vec<u8>)>,
        history: Vec<u8>,
        switch: Lsn,
        slot: Option<Lsn>,
        /// Messages to come, in front of the WAL.
        queue: VecDeque<Vec<u8>>,
        /// What it says that follows timeline 1, where that is not the truth.
        lie: Option<NextTimeline>,
        /// The timeline that it says that it is on.
        timeline: u32,
        /// It says so at once instead of streaming timeline 1.
        at_once: bool,
        streamed: Option<(usize, Lsn)>,
        message: Vec<u8>,
        commands: Vec<String>,
        statuses: Vec<StandbyStatus>,
    }

    impl Fake {
        fn new() -> Fake {
            let fixtures = fixtures::all();
            let fixture = fixtures.iter().find(|fixture| fixture.major == 15 && fixture.scenario == "timeline2").unwrap();
            let history = fixture.read("00000002.history").unwrap();
            let switch = History::parse(TimelineId(2), &history).unwrap().ancestors[0].switch;
            let mut first =
                fixture.segments().iter().filter(|path| path.to_str().unwrap().contains("/00000001")).fold(Vec::new(), |mut all, path| {
                    all.extend(fs::read(path).unwrap());
                    all
                });
            let second =
                fixture.segments().iter().find(|path| path.to_str().unwrap().contains("/00000002")).map(|path| fs::read(path).unwrap());
            let second = second.unwrap();
            let (fmt, start) = first_format(&first).unwrap();
            let (_, second_start) = first_format(&second).unwrap();
            if first.len() as u64 <= switch - start {
                // The segment that the switch lies in is there with the new timeline, up to there.
                first.extend(&second[..(switch - second_start) as usize]);
            }
            let system_identifier = pgwal::source::Wal::open(&[&fixture.segments()[0]], None).unwrap().system_identifier().unwrap();
            Fake {
                fmt,
                system_identifier,
                timelines: vec![(start, first), (second_start, second)],
                history,
                switch,
                slot: None,
                queue: VecDeque::new(),
                lie: None,
                timeline: 2,
                at_once: false,
                streamed: None,
                message: Vec::new(),
                commands: Vec::new(),
                statuses: Vec::new(),
            }
        }

        fn next_timeline(&self) -> NextTimeline {
            self.lie.unwrap_or(NextTimeline { timeline: TimelineId(2), start: self.switch })
        }
    }

    fn row(values: &[&str]) -> Vec<Row> {
        vec![values.iter().map(|value| Some(value.as_bytes().to_vec())).collect()]
    }

    impl Walsender for Fake {
        type Error = Unknown;

        fn major(&self) -> u8 {
            self.fmt.major
        }

        fn rows(&mut self, command: &Command<'_>) -> Result<Vec<Row>, Unknown> {
            self.commands.push(command.to_string());
            Ok(match command {
                Command::IdentifySystem => row(&[
                    &self.system_identifier.to_string(),
                    &self.timeline.to_string(),
                    &(self.timelines[1].0 + 900_000).to_string(),
                    "",
                ]),
                Command::Show("wal_segment_size") => row(&[&format!("{}MB", self.fmt.segment_size >> 20)]),
                Command::Show(_) => row(&["8192"]),
                Command::TimelineHistory(_) => vec![vec![Some(b"00000002.history".to_vec()), Some(self.history.clone())]],
                Command::ReadReplicationSlot(_) => match self.slot {
                    Some(lsn) => row(&["physical", &lsn.to_string(), "1"]),
                    None => vec![vec![None, None, None]],
                },
                Command::CreateReplicationSlot { .. } => Vec::new(),
                _ => return Err(Unknown),
            })
        }

        fn start(&mut self, command: &Command<'_>) -> Result<Option<NextTimeline>, Unknown> {
            self.commands.push(command.to_string());
            let Command::StartReplication { start, timeline, .. } = *command else { return Err(Unknown) };
            self.streamed = Some((timeline.0 as usize - 1, start));
            Ok((timeline.0 == 1 && (start >= self.switch || self.at_once)).then(|| self.next_timeline()))
        }

        fn next(&mut self, _: Instant) -> Result<Event<'_>, Unknown> {
            if let Some(message) = self.queue.pop_front() {
                self.message = message;
                return Ok(Event::Message(&self.message));
            }
            let (at, lsn) = self.streamed.unwrap();
            let (first, bytes) = &self.timelines[at];
            let end = if at == 0 { self.switch } else { *first + bytes.len() as u64 };
            if lsn >= end {
                return Ok(Event::End);
            }
            let from = (lsn - *first) as usize;
            let len = 70_001.min((end - lsn) as usize);
            self.message.clear();
            let wal = XLogData { start: lsn, server_end: end, time: TimestampTz(0), data: &bytes[from..from + len] };
            FromWalSender::XLogData(wal).write(&mut self.message);
            self.streamed = Some((at, lsn + len as u64));
            Ok(Event::Message(&self.message))
        }

        fn send(&mut self, message: &[u8]) -> Result<(), Unknown> {
            if let Ok(FromWalReceiver::Status(status)) = FromWalReceiver::read(message) {
                self.statuses.push(status);
            }
            Ok(())
        }

        fn end(&mut self) -> Result<Option<NextTimeline>, Unknown> {
            Ok(self.streamed.filter(|&(at, lsn)| at == 0 && lsn >= self.switch).map(|_| self.next_timeline()))
        }

        fn is_refusal(_: &Unknown) -> bool {
            true
        }
    }

    /// What the fake says to what it does not expect.
    #[derive(Debug)]
    struct Unknown;

    impl fmt::Display for Unknown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the fake does not know this command")
        }
    }

    impl std::error::Error for Unknown {}

    fn options(dir: &std::path::Path) -> Options {
        Options {
            dir: dir.to_owned(),
            compression: Compression::None,
            slot: None,
            synchronous: false,
            policy: Policy::default(),
            status_interval: Duration::from_secs(10),
            end: None,
            on_damage: OnDamage::Stop,
            timeout: None,
        }
    }

    fn run(server: &mut Fake, options: &Options) -> Result<Outcome, ReceiveError<Unknown>> {
        receive(server, options, &mut Memory::default(), &AtomicBool::new(false), &mut |_| {})
    }

    #[test]
    fn streaming_goes_on_over_a_switch_of_timelines() {
        let mut server = Fake::new();
        server.slot = Some(server.timelines[0].0 + 1000);
        let dir = tempfile::tempdir().unwrap();
        let options = Options { slot: Some("s".to_owned()), ..options(dir.path()) };
        assert_eq!(run(&mut server, &options).unwrap(), Outcome::Ended);
        let (start, first) = &server.timelines[0];
        let size = server.fmt.segment_size as usize;
        let name = pgwal::SegmentName::of(TimelineId(1), *start, server.fmt.segment_size).to_string();
        assert!(fs::read(dir.path().join(name)).unwrap() == first[..size]);
        let partial = pgwal::SegmentName::of(TimelineId(1), server.switch, server.fmt.segment_size);
        let partial = fs::read(dir.path().join(format!("{partial}.partial"))).unwrap();
        let len = (server.switch - *start) as usize % size;
        assert!(partial[..len] == first[size..size + len] && partial[len..].iter().all(|&byte| byte == 0) && partial.len() == size);
        assert_eq!(fs::read(dir.path().join("00000002.history")).unwrap(), server.history);
        let name = pgwal::SegmentName::of(TimelineId(2), server.timelines[1].0, server.fmt.segment_size).to_string();
        assert!(fs::read(dir.path().join(name)).unwrap() == server.timelines[1].1);
    }

    /// What a server says of the next timeline that cannot be, and why.
    fn lies(server: &Fake) -> Vec<(TimelineId, Lsn, String)> {
        let (switch, size) = (server.switch, u64::from(server.fmt.segment_size));
        let gap = |next: u32, start: Lsn| {
            format!("server stopped streaming timeline 1 at {switch}, but reported next timeline {next} to begin at {start}")
        };
        let diverged = |start: Lsn| {
            format!(
                "the WAL in the directory goes to {switch} on timeline 1, and the server, which is on timeline 2, has left that at {start}"
            )
        };
        vec![
            (TimelineId(1), switch, "server reported unexpected next timeline 1, following timeline 1".to_owned()),
            (TimelineId(0), switch, "server reported unexpected next timeline 0, following timeline 1".to_owned()),
            (TimelineId(2), switch + 8, gap(2, switch + 8)),
            (TimelineId(2), switch + size, gap(2, switch + size)),
            (TimelineId(3), Lsn(u64::MAX), gap(3, Lsn(u64::MAX))),
            (TimelineId(2), switch, String::new()),
            (TimelineId(2), Lsn(switch.0 - 8), diverged(Lsn(switch.0 - 8))),
            (TimelineId(2), Lsn(0), diverged(Lsn(0))),
        ]
    }

    #[test]
    fn a_next_timeline_that_cannot_follow_is_refused_and_nothing_of_it_acknowledged() {
        for (timeline, start, expected) in lies(&Fake::new()) {
            let mut server = Fake::new();
            server.slot = Some(server.timelines[0].0 + 1000);
            server.lie = Some(NextTimeline { timeline, start });
            let dir = tempfile::tempdir().unwrap();
            let result = run(&mut server, &Options { slot: Some("s".to_owned()), ..options(dir.path()) });
            let streamed: Vec<&String> = server.commands.iter().filter(|command| command.starts_with("START_REPLICATION")).collect();
            if expected.is_empty() {
                assert!(result.is_ok() && streamed.len() == 2, "{result:?}");
                continue;
            }
            assert_eq!((result.unwrap_err().to_string(), streamed.len()), (expected.clone(), 1));
            assert!(server.statuses.iter().all(|status| status.flush <= server.switch));
            // Live records, too: from a server that is on timeline 1 when it is asked, and promoted then.
            server.timeline = 1;
            let mut records = 0;
            let first = server.timelines[0].0;
            let live =
                live::records(&mut server, Some(Position { timeline: None, lsn: first }), "s", &AtomicBool::new(false), &mut |live| {
                    records += u32::from(matches!(live, Live::Record(_)));
                    std::ops::ControlFlow::Continue(())
                });
            assert_eq!(live.unwrap_err().to_string(), expected);
            assert!(records > 0);
        }
        // Without streaming anything first: it starts at the slot, in the first segment.
        for (start, is_gap) in [(100_000, true), (0, false)] {
            let mut server = Fake::new();
            let first = server.timelines[0].0;
            server.slot = Some(first + 1000);
            (server.at_once, server.lie) = (true, Some(NextTimeline { timeline: TimelineId(2), start: first + start }));
            let dir = tempfile::tempdir().unwrap();
            let error = run(&mut server, &Options { slot: Some("s".to_owned()), ..options(dir.path()) }).unwrap_err();
            // Where it begins in time, its history file still says something else.
            assert_eq!(matches!(error, ReceiveError::NextStart { .. }), is_gap, "{error}");
            assert_eq!(matches!(error, ReceiveError::Ancestor { .. }), !is_gap, "{error}");
            assert!(server.statuses.is_empty());
        }
    }

    #[test]
    fn a_history_file_that_contradicts_the_server_or_the_directory_is_refused() {
        let whole = Fake::new();
        let switch = whole.switch;
        let other = |lsn: Lsn| format!("1\t{lsn}\tno recovery target specified\n").into_bytes();
        for (history, expected) in [
            (other(switch + 8), format!("but its history file of timeline 2 says that it follows timeline 1 at {}", switch + 8)),
            (b"1 what\n".to_vec(), "the server's history file of timeline 2 cannot be used: ".to_owned()),
            (Vec::new(), "the server's history file of timeline 2 cannot be used: ".to_owned()),
        ] {
            let mut server = Fake::new();
            server.slot = Some(server.timelines[0].0 + 1000);
            server.history = history;
            let dir = tempfile::tempdir().unwrap();
            let error = run(&mut server, &Options { slot: Some("s".to_owned()), ..options(dir.path()) }).unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
            assert!(!dir.path().join("00000002.history").exists());
        }
        // One in the directory that was cut short is completed, one with another reason stays, and another one is another timeline.
        let kept = |content: &[u8]| {
            let mut server = Fake::new();
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("00000002.history"), content).unwrap();
            let result = run(&mut server, &options(dir.path())).map_err(|error| error.to_string());
            (result, fs::read(dir.path().join("00000002.history")).unwrap())
        };
        let reason = format!("1\t{switch}\tanother reason\n").into_bytes();
        for (before, after) in [(whole.history.clone(), &whole.history), (Vec::new(), &whole.history), (reason.clone(), &reason)] {
            assert_eq!(kept(&before), (Ok(Outcome::Ended), after.clone()));
        }
        let (result, after) = kept(&other(switch + 8));
        let problem = "the history file of timeline 2 in the directory differs from the server's: these are two timelines of that number";
        assert_eq!((result, after), (Err(problem.to_owned()), other(switch + 8)));
    }

    /// A standby that is promoted within a record goes on before it.
    #[test]
    fn a_record_that_came_in_part_before_the_switch_is_no_contradiction() {
        let mut server = Fake::new();
        server.slot = Some(server.timelines[0].0 + 1000);
        let switch = server.switch;
        // The last record before the switch loses its end.
        let dir = tempfile::tempdir().unwrap();
        let cut = Lsn(switch.0 - 16);
        for whole in [switch, cut] {
            let next = NextTimeline { timeline: TimelineId(2), start: whole };
            follows::<Unknown>(TimelineId(1), switch, cut, next).unwrap();
        }
        assert!(follows::<Unknown>(TimelineId(1), switch, cut, NextTimeline { timeline: TimelineId(2), start: Lsn(cut.0 - 1) }).is_err());
        // And what has been received says where the last whole record ends.
        let (start, bytes) = (server.timelines[0].0, &server.timelines[0].1);
        let mut taken = Receiver::new(
            Segments::new(dir.path(), server.fmt.segment_size, Compression::None),
            server.fmt,
            Start { timeline: TimelineId(1), lsn: start, previous: None },
            OnDamage::Stop,
        );
        let data = &bytes[..(cut - start) as usize];
        taken.take(&XLogData { start, server_end: cut, time: TimestampTz(0), data }).unwrap();
        assert!(taken.whole() < cut && taken.whole() >= Lsn(cut.0 - 8192), "{} {cut}", taken.whole());
    }

    #[test]
    fn before_15_somebody_else_says_where_the_slot_is() {
        let mut server = Fake::new();
        server.fmt.major = 14;
        let slot = server.timelines[0].0 + 1000;
        let dir = tempfile::tempdir().unwrap();
        let options = Options { slot: Some("s".to_owned()), ..options(dir.path()) };
        let system = System::ask(&mut server).unwrap();
        let segment = |lsn: Lsn| Lsn(lsn.0 - lsn.segment_offset(system.fmt.segment_size));
        for (known, expected) in [(Some(slot), segment(slot)), (None, segment(system.flushed))] {
            let mut unknown = false;
            let mut notice = |notice: Notice<'_>| unknown |= matches!(notice, Notice::SlotUnknown { slot: "s", .. });
            let mut memory = Memory { slot: known, ..Memory::default() };
            let (start, _) = first(&mut server, &options, &system, &mut memory, &AtomicBool::new(false), &mut notice).unwrap();
            assert_eq!((start.lsn, start.timeline, unknown), (expected, system.timeline, known.is_none()));
        }
        assert_ne!(segment(slot), segment(system.flushed));
    }

    #[test]
    fn a_keepalive_is_answered_and_synchronous_means_at_once() {
        for synchronous in [false, true] {
            let mut server = Fake::new();
            let mut keepalive = Vec::new();
            FromWalSender::Keepalive(Keepalive { server_end: Lsn(9), time: TimestampTz(0), wants_reply: true }).write(&mut keepalive);
            server.queue.push_back(keepalive);
            let dir = tempfile::tempdir().unwrap();
            let options = Options { synchronous, end: Some(server.timelines[1].0 + 900_000), ..options(dir.path()) };
            // Without a slot, streaming starts where the server is.
            let outcome = run(&mut server, &options).unwrap();
            assert!(matches!(outcome, Outcome::Reached(lsn) if lsn > server.timelines[1].0 + 900_000), "{outcome:?}");
            assert!(!server.statuses.is_empty());
            assert_eq!(server.statuses.iter().any(|status| status.flush.is_valid()), synchronous);
            assert!(!synchronous || server.statuses.len() > 10, "{}", server.statuses.len());
            assert!(server.statuses.iter().all(|status| status.flush <= status.write));
        }
    }

    #[test]
    fn wal_of_another_cluster_and_of_a_newer_timeline_is_left_alone() {
        let mut server = Fake::new();
        let dir = tempfile::tempdir().unwrap();
        let name = pgwal::SegmentName::of(TimelineId(2), server.timelines[1].0, server.fmt.segment_size).to_string();
        fs::write(dir.path().join(&name), &server.timelines[1].1).unwrap();
        server.system_identifier += 1;
        let error = run(&mut server, &options(dir.path())).unwrap_err();
        assert!(matches!(error, ReceiveError::System { expected, found } if expected + 1 == found), "{error}");
        server.system_identifier -= 1;
        fs::rename(dir.path().join(&name), dir.path().join(name.replacen("00000002", "00000003", 1))).unwrap();
        let error = run(&mut server, &options(dir.path())).unwrap_err();
        assert_eq!(error.to_string(), "the WAL in the directory is of timeline 3, and the server is on timeline 2");
    }

    #[test]
    fn a_segment_by_the_name_of_a_later_timeline_is_damage() {
        let mut server = Fake::new();
        let dir = tempfile::tempdir().unwrap();
        let (start, wal) = server.timelines[1].clone();
        let name = SegmentName::of(TimelineId(2), start, server.fmt.segment_size);
        fs::write(dir.path().join(name.to_string()), &wal).unwrap();
        // Timeline 2 begins in this segment, whose first page is of timeline 1; a history that has it begin earlier says otherwise.
        let real = std::mem::replace(&mut server.history, format!("1\t{start}\tno recovery target specified\n").into_bytes());
        let error = run(&mut server, &options(dir.path())).unwrap_err().to_string();
        let problem = format!("{name}: its first page is of timeline 1, but timeline 2 began at {start}, before it");
        assert_eq!(error, format!("the WAL in the directory is damaged: {problem}"));
        server.history = real;
        let mut server = Fake { history: server.history, ..Fake::new() };
        let end = Some(start + wal.len() as u64);
        let found = run(&mut server, &Options { end, ..options(dir.path()) });
        assert!(!matches!(found, Err(ReceiveError::DamagedFile(_))), "{found:?}");
    }

    #[test]
    fn stopping_leaves_what_was_written() {
        let mut server = Fake::new();
        let dir = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let mut written = Lsn::INVALID;
        let outcome = receive(&mut server, &options(dir.path()), &mut Memory::default(), &stop, &mut |notice| {
            if let Notice::Written { written: now, .. } = notice {
                written = now;
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(outcome.unwrap(), Outcome::Stopped);
        assert_eq!(server.statuses.last().map(|status| status.write), Some(written));
        let newest = Newest::find(dir.path(), server.fmt.segment_size).unwrap().unwrap();
        assert!(newest.next <= written && newest.previous.is_some(), "{newest:?}");
    }
}
