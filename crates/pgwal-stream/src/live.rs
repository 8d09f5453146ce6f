//! Records as the server writes them.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgwal::{Decoder, Lsn, RawRecord, TimelineId};

use crate::command::Command;
use crate::message::{FromWalSender, StandbyStatus};
use crate::receive::{Event, Outcome, ReceiveError, System, Walsender, descends, follows, history, now, send_status};
use crate::receiver::TakeError;

/// What comes of live WAL.
#[derive(Debug)]
pub enum Live<'a> {
    /// Before the first record: who the server is.
    System(System),
    /// Streaming has started: once for each timeline.
    Starting(Position),
    /// A whole record with the right checksum.
    Record(&'a RawRecord<'a>),
    /// No more records for now.
    Pause,
}

/// Where records are wanted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The timeline, which the server may have left since; `None`: the one that it is on.
    pub timeline: Option<TimelineId>,
    /// Records that start before this are not wanted.
    pub lsn: Lsn,
}

/// How often the server is told how far this is.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Gives `each` the records from `start` on, or from now on, as the server writes them, until `each` or `stop` says that it is enough.
///
/// A temporary slot keeps the server from removing what has not been read yet; nothing is left behind.
///
/// # Errors
/// The connection breaks, the server refuses, or the WAL is damaged.
pub fn records<S: Walsender>(
    server: &mut S,
    start: Option<Position>,
    slot: &str,
    stop: &AtomicBool,
    each: &mut dyn FnMut(Live<'_>) -> ControlFlow<()>,
) -> Result<Outcome, ReceiveError<S::Error>> {
    let system = System::ask(server)?.with_block_size(server)?;
    if each(Live::System(system)).is_break() {
        return Ok(Outcome::Stopped);
    }
    let create = Command::CreateReplicationSlot { slot, temporary: true, reserve_wal: true };
    server.rows(&create).map_err(ReceiveError::Server)?;
    let mut timeline = start.and_then(|start| start.timeline).unwrap_or(system.timeline);
    let mut from = start.map_or(system.flushed, |start| start.lsn);
    loop {
        // Records are found from the start of a page on.
        let page = Lsn(from.0 - from.0 % u64::from(system.fmt.wal_page_size));
        let command = Command::StartReplication { slot: Some(slot), start: page, timeline };
        let (mut stopped, mut whole) = (page, page);
        let next = match server.start(&command).map_err(ReceiveError::Server)? {
            Some(next) => Some(next),
            None => {
                let mut stream = Stream { decoder: Decoder::strict_at(page, system.fmt), position: page, whole: page, from };
                let begun = each(Live::Starting(Position { timeline: Some(timeline), lsn: from }));
                match if begun.is_break() { Run::Enough } else { stream.run(server, stop, each)? } {
                    Run::Ended => {}
                    Run::ShutDown => return Ok(Outcome::ShutDown),
                    Run::Enough => {
                        server.end().map_err(ReceiveError::Server)?;
                        return Ok(Outcome::Stopped);
                    }
                }
                (stopped, whole) = (stream.position, stream.whole.min(stream.position));
                server.end().map_err(ReceiveError::Server)?
            }
        };
        let Some(next) = next else { return Ok(Outcome::Ended) };
        follows(timeline, stopped, whole, next)?;
        descends(next.timeline, &history(server, next.timeline)?, (timeline, next.start))?;
        (timeline, from) = (next.timeline, next.start);
    }
}

/// Why a stream is over.
enum Run {
    /// The server ended it.
    Ended,
    /// The server was shut down.
    ShutDown,
    /// Nobody wants more of it.
    Enough,
}

/// The WAL of one timeline.
struct Stream {
    decoder: Decoder,
    /// Behind what has come.
    position: Lsn,
    /// Where the last whole record ends.
    whole: Lsn,
    /// What starts before this is not wanted.
    from: Lsn,
}

impl Stream {
    /// Reads until the server ends the stream, or nobody wants more of it.
    fn run<S: Walsender>(
        &mut self,
        server: &mut S,
        stop: &AtomicBool,
        each: &mut dyn FnMut(Live<'_>) -> ControlFlow<()>,
    ) -> Result<Run, ReceiveError<S::Error>> {
        let mut due = Instant::now() + STATUS_INTERVAL;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(Run::Enough);
            }
            let mut wants_report = Instant::now() >= due;
            match server.next(due).map_err(ReceiveError::Server)? {
                Event::Message(bytes) => match FromWalSender::read(bytes).map_err(ReceiveError::Message)? {
                    FromWalSender::XLogData(wal) if wal.start != self.position => {
                        return Err(TakeError::NotNext { expected: self.position, found: wal.start }.into());
                    }
                    FromWalSender::XLogData(wal) => {
                        self.position = self.position + wal.data.len() as u64;
                        self.decoder.feed(wal.data);
                        while let Some(raw) = self.decoder.next_record().map_err(TakeError::Damage)? {
                            self.whole = raw.end;
                            if raw.lsn >= self.from && each(Live::Record(&raw)).is_break() {
                                return Ok(Run::Enough);
                            }
                        }
                        if each(Live::Pause).is_break() {
                            return Ok(Run::Enough);
                        }
                    }
                    FromWalSender::Keepalive(keepalive) => wants_report |= keepalive.wants_reply,
                },
                Event::Nothing => {}
                Event::End => return Ok(Run::Ended),
                Event::ShutDown => return Ok(Run::ShutDown),
            }
            if wants_report {
                // What has been shown need not be kept.
                let (write, flush) = (self.position, self.position);
                send_status(server, StandbyStatus { write, flush, apply: Lsn::INVALID, time: now(), wants_reply: false })?;
                due = Instant::now() + STATUS_INTERVAL;
            }
        }
    }
}
