//! What a walreceiver does with the WAL that comes: it is verified, written, put on disk, and acknowledged; without sockets.

use std::fmt;

use pgwal::scan::Needs;
use pgwal::types::TimestampTz;
use pgwal::{Decoder, Location, Lsn, SegmentName, TimelineId, WalFormat};

use crate::message::{StandbyStatus, XLogData};
use crate::segments::{FileError, Segments};

/// What becomes of WAL that is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Nothing of it is written, and receiving ends.
    #[default]
    Stop,
    /// It is written and reported, and never acknowledged as flushed.
    Warn,
}

/// Where receiving starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The timeline that is streamed.
    pub timeline: TimelineId,
    /// The first byte that is asked for.
    pub lsn: Lsn,
    /// Start of the record before, if that is known.
    pub previous: Option<Lsn>,
}

/// Why WAL was not taken.
#[derive(Debug)]
pub enum TakeError {
    /// It cannot be written.
    File(FileError),
    /// It does not start where the WAL before it ended.
    NotNext {
        /// Where it should start.
        expected: Lsn,
        /// Where it does.
        found: Lsn,
    },
    /// It is damaged: on the server, or on its way.
    Damage(pgwal::Error),
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeError::File(error) => error.fmt(f),
            TakeError::NotNext { expected, found } => write!(f, "the server sent WAL from {found} on: expected {expected}"),
            TakeError::Damage(error) => write!(f, "the WAL that the server sent is damaged: {error}"),
        }
    }
}

impl std::error::Error for TakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TakeError::File(error) => Some(error),
            TakeError::NotNext { .. } => None,
            TakeError::Damage(error) => Some(error),
        }
    }
}

impl From<FileError> for TakeError {
    fn from(error: FileError) -> TakeError {
        TakeError::File(error)
    }
}

/// What is looked at of a record, besides its checksum.
const NEEDS: Needs = Needs::Headers;

/// The receiving end of a stream of WAL on one timeline.
///
/// What it acknowledges as flushed ends with a whole record whose checksum is right and which is on disk: so no commit that waits for it
/// goes on before it can be replayed from these files.
#[derive(Debug)]
pub struct Receiver {
    segments: Segments,
    fmt: WalFormat,
    timeline: TimelineId,
    on_damage: OnDamage,
    /// `None`: behind damage, up to the next segment.
    decoder: Option<Decoder>,
    /// Behind the last byte written.
    written: Lsn,
    /// Everything before this is on disk.
    synced: Lsn,
    /// End of the last whole record before any damage.
    verified: Lsn,
    /// The same of what is on disk.
    flushed: Lsn,
    /// End of the last whole record, whether there has been damage before it or not.
    whole: Lsn,
    /// Damage that has been written.
    damage: Vec<pgwal::Error>,
    /// There has been damage: nothing after it is acknowledged as flushed.
    is_damaged: bool,
}

impl Receiver {
    /// Receives WAL of `fmt` from `start` on.
    pub fn new(segments: Segments, fmt: WalFormat, start: Start, on_damage: OnDamage) -> Receiver {
        let decoder = match start.previous {
            Some(previous) => Decoder::strict_behind(previous, start.lsn, fmt),
            None => Decoder::strict_at(start.lsn, fmt),
        };
        let decoder = decoder.with_needs(NEEDS);
        let (written, synced, verified, flushed, whole) = (start.lsn, start.lsn, start.lsn, start.lsn, start.lsn);
        let timeline = start.timeline;
        let (decoder, damage) = (Some(decoder), Vec::new());
        Receiver { segments, fmt, timeline, on_damage, decoder, written, synced, verified, flushed, whole, damage, is_damaged: false }
    }

    /// Goes on with a decoder that has seen the WAL before: so a record that begins there is verified, too.
    pub fn continue_from(&mut self, decoder: Decoder) {
        self.whole = decoder.finish().lsn;
        self.decoder = Some(decoder.with_needs(NEEDS));
    }

    /// There is damage before this: nothing is acknowledged as flushed.
    pub fn set_damaged(&mut self) {
        self.is_damaged = true;
    }

    /// Whether there has been damage.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Verifies and writes what came, which must follow what came before.
    ///
    /// # Errors
    /// It cannot be taken, or no further than up to the segment before. What has been written stays.
    pub fn take(&mut self, wal: &XLogData<'_>) -> Result<(), TakeError> {
        if wal.start != self.written {
            return Err(TakeError::NotNext { expected: self.written, found: wal.start });
        }
        let mut data = wal.data;
        while !data.is_empty() {
            let size = self.fmt.segment_size;
            let left = u64::from(size) - self.written.segment_offset(size); // less than a segment
            let (here, rest) = data.split_at_checked(left as usize).unwrap_or((data, &[]));
            // A segment must not be called whole before it has been looked at.
            let before = self.verified;
            if let Err(error) = self.verify(here) {
                self.is_damaged = true;
                if self.on_damage == OnDamage::Stop {
                    // What is right before the damage is not written, either.
                    self.verified = before;
                    return Err(TakeError::Damage(error));
                }
                self.damage.push(error);
            }
            let finished = self.segments.write(self.timeline, self.written, here)?;
            self.written = self.written + here.len() as u64;
            if finished > 0 {
                self.is_on_disk();
            }
            data = rest;
        }
        Ok(())
    }

    /// Decodes what came: up to the end of a segment at most.
    fn verify(&mut self, data: &[u8]) -> Result<(), pgwal::Error> {
        if self.decoder.is_none() && self.written.segment_offset(self.fmt.segment_size) == 0 {
            self.decoder = Some(Decoder::strict_at(self.written, self.fmt).with_needs(NEEDS));
        }
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        let mut rest = data;
        let result = loop {
            match decoder.next_in(&mut rest) {
                Ok(Some(raw)) => {
                    if let Err(error) = raw.decode() {
                        break Err(error);
                    }
                    self.whole = raw.end;
                    if !self.is_damaged {
                        self.verified = raw.end;
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        result.map_err(|error| {
            self.decoder = None;
            // Without a page header, the decoder does not know the timeline.
            let location = error.location();
            let segment = SegmentName { timeline: self.timeline, ..location.segment };
            if location.segment.timeline.0 > 0 { error } else { pgwal::Error::new(error.kind().clone(), Location { segment, ..location }) }
        })
    }

    /// Puts on disk what has been written.
    ///
    /// # Errors
    /// The system cannot.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.segments.sync()?;
        self.is_on_disk();
        Ok(())
    }

    /// All that was written is on disk. A record's end counts the padding after it, which may be still to come, and that of XLOG_SWITCH the
    /// rest of its segment.
    fn is_on_disk(&mut self) {
        (self.synced, self.flushed) = (self.written, self.verified.min(self.written));
    }

    /// Leaves the last segment as it is, on disk: where the next one goes on.
    ///
    /// # Errors
    /// The system cannot put it there.
    pub fn close(mut self) -> Result<Segments, FileError> {
        self.segments.close()?;
        Ok(self.segments)
    }

    /// Behind the last byte that has been written.
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// Where the last whole record ends; at most [`Receiver::written`].
    pub fn whole(&self) -> Lsn {
        self.whole.min(self.written)
    }

    /// What can be acknowledged as flushed: it is on disk, undamaged, and ends with a whole record.
    pub fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Whether there is something to put on disk.
    pub fn is_synced(&self) -> bool {
        self.synced >= self.written
    }

    /// Damage that was written since this was last asked, see [`OnDamage::Warn`].
    pub fn damage(&mut self) -> Vec<pgwal::Error> {
        std::mem::take(&mut self.damage)
    }

    /// What the server is told.
    pub fn status(&self, time: TimestampTz, wants_reply: bool) -> StandbyStatus {
        StandbyStatus { write: self.written, flush: self.flushed(), apply: Lsn::INVALID, time, wants_reply }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::compress::Compression;
    use crate::segments::Newest;
    use pgwal::SegmentName;
    use pgwal::frame::first_format;
    use pgwal_testkit::fixtures;

    struct Wal {
        bytes: Vec<u8>,
        fmt: WalFormat,
        start: Lsn,
    }

    /// Whole segments of a real server that follow each other.
    fn wal() -> Wal {
        let fixtures = fixtures::all();
        let fixture = fixtures.iter().find(|fixture| fixture.major == 15 && fixture.segments().len() > 2).unwrap();
        let mut segments = fixture.timelines().swap_remove(0);
        let (fmt, start) = first_format(&segments[0]).unwrap();
        segments.pop();
        Wal { bytes: segments.concat(), fmt, start }
    }

    impl Wal {
        fn receiver(&self, dir: &Path, on_damage: OnDamage) -> Receiver {
            let newest = Newest::find(dir, self.fmt.segment_size).unwrap();
            let lsn = newest.map_or(self.start, |newest| newest.next);
            let start = Start { timeline: TimelineId(1), lsn, previous: newest.and_then(|newest| newest.previous) };
            Receiver::new(Segments::new(dir, self.fmt.segment_size, Compression::None), self.fmt, start, on_damage)
        }

        fn data(&self, from: Lsn, len: usize) -> XLogData<'_> {
            let at = (from - self.start) as usize;
            let data = &self.bytes[at..(at + len).min(self.bytes.len())];
            XLogData { start: from, server_end: Lsn(0), time: TimestampTz(0), data }
        }

        /// A byte in the middle of a record in the first segment, some way into it.
        fn place(&self) -> u64 {
            let mut decoder = Decoder::new();
            decoder.feed(&self.bytes);
            loop {
                let raw = decoder.next_record().unwrap().unwrap();
                if raw.lsn > self.start + 200_000 && raw.bytes.len() < 200 {
                    return raw.lsn - self.start + 30;
                }
            }
        }

        fn assert_whole_segments(&self, dir: &Path) {
            let size = self.fmt.segment_size;
            for (number, segment) in self.bytes.chunks_exact(size as usize).enumerate() {
                let name = SegmentName::of(TimelineId(1), self.start + number as u64 * u64::from(size), size).to_string();
                assert!(fs::read(dir.join(&name)).unwrap() == segment, "{name}");
            }
        }
    }

    #[test]
    fn whatever_the_pieces_the_segments_are_the_servers() {
        let wal = wal();
        for len in [8192, 128 << 10, 99_991, 40 << 20] {
            let dir = tempfile::tempdir().unwrap();
            let mut receiver = wal.receiver(dir.path(), OnDamage::Stop);
            while receiver.written() - wal.start < wal.bytes.len() as u64 {
                receiver.take(&wal.data(receiver.written(), len)).unwrap();
                assert!(receiver.flushed() <= receiver.written());
                if receiver.written().0.is_multiple_of(3) {
                    receiver.sync().unwrap();
                    assert!(receiver.is_synced());
                }
            }
            wal.assert_whole_segments(dir.path());
        }
    }

    #[test]
    fn one_that_was_killed_goes_on_where_it_was() {
        let wal = wal();
        let dir = tempfile::tempdir().unwrap();
        let mut lens = [40_000, 1, 8191, 500_000, 7, 123_456].into_iter().cycle();
        let mut rounds = 0;
        loop {
            let mut receiver = wal.receiver(dir.path(), OnDamage::Stop);
            let done = receiver.written() - wal.start;
            if done >= wal.bytes.len() as u64 {
                break;
            }
            // The last piece is not even on disk.
            for _ in 0..3 {
                receiver.take(&wal.data(receiver.written(), lens.next().unwrap() + rounds * 1000)).unwrap();
            }
            rounds += 1;
            drop(receiver);
        }
        assert!(rounds > 5);
        wal.assert_whole_segments(dir.path());
    }

    #[test]
    fn only_whole_records_on_disk_are_acknowledged() {
        let wal = wal();
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = wal.receiver(dir.path(), OnDamage::Stop);
        receiver.take(&wal.data(wal.start, 50_001)).unwrap();
        assert_eq!((receiver.written(), receiver.flushed()), (wal.start + 50_001, wal.start));
        receiver.sync().unwrap();
        let flushed = receiver.flushed();
        assert!(flushed > wal.start + 40_000 && flushed < receiver.written(), "{flushed}");
        let status = receiver.status(TimestampTz(5), true);
        assert_eq!(
            status,
            StandbyStatus { write: wal.start + 50_001, flush: flushed, apply: Lsn(0), time: TimestampTz(5), wants_reply: true }
        );
    }

    #[test]
    fn damage_is_never_acknowledged() {
        let mut wal = wal();
        let size = u64::from(wal.fmt.segment_size);
        let place = wal.place();
        wal.bytes[place as usize] ^= 4;
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = wal.receiver(dir.path(), OnDamage::Stop);
        receiver.take(&wal.data(wal.start, 100_000)).unwrap();
        let error = receiver.take(&wal.data(receiver.written(), 200_000)).unwrap_err();
        assert!(matches!(error, TakeError::Damage(_)), "{error}");
        assert!(error.to_string().starts_with("the WAL that the server sent is damaged: "), "{error}");
        receiver.sync().unwrap();
        assert!(receiver.flushed() <= wal.start + place);

        let dir = tempfile::tempdir().unwrap();
        let mut receiver = wal.receiver(dir.path(), OnDamage::Warn);
        while receiver.written() - wal.start < size + 10_000 {
            receiver.take(&wal.data(receiver.written(), 128 << 10)).unwrap();
        }
        receiver.sync().unwrap();
        assert_eq!(receiver.damage().len(), 1, "one place is damaged, and the next segment is looked at again");
        assert!(receiver.flushed() <= wal.start + place && receiver.is_synced());
        assert_eq!(receiver.damage().len(), 0);
    }

    #[test]
    fn a_gap_is_refused() {
        let wal = wal();
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = wal.receiver(dir.path(), OnDamage::Warn);
        let error = receiver.take(&wal.data(wal.start + 8192, 8192)).unwrap_err();
        assert!(matches!(error, TakeError::NotNext { expected, found } if expected == wal.start && found == wal.start + 8192));
    }
}
