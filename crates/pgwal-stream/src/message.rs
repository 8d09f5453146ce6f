//! Messages of streaming replication, as they stand in `CopyData`: what walsender and walreceiver say to each other.
//!
//! Numbers are big-endian here, other than in the WAL itself. C: replication/walsender.c, replication/walreceiver.c; the chapter
//! "Streaming Replication Protocol" of PostgreSQL's documentation.

use std::fmt;

use pgwal::types::{TimestampTz, Xid};
use pgwal::{Lsn, TimelineId};

/// What a walsender says while it streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromWalSender<'a> {
    /// Some bytes of WAL.
    XLogData(XLogData<'a>),
    /// It has nothing to send, or wants to know if anybody is there.
    Keepalive(Keepalive),
}

/// Bytes of WAL. C: `XLogSendPhysical`; message `w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XLogData<'a> {
    /// LSN of the first byte.
    pub start: Lsn,
    /// Where the WAL ends on the server.
    pub server_end: Lsn,
    /// The server's clock.
    pub time: TimestampTz,
    /// The bytes: a server sends at most 128 kB at a time, which end with a record or a page.
    pub data: &'a [u8],
}

/// C: `WalSndKeepalive`; message `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Where the WAL ends on the server; for a standby, what it has sent.
    pub server_end: Lsn,
    /// The server's clock.
    pub time: TimestampTz,
    /// It wants a [`StandbyStatus`] at once, or it takes the receiver for dead after `wal_sender_timeout`.
    pub wants_reply: bool,
}

/// What a walreceiver says while it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromWalReceiver {
    /// How far it is.
    Status(StandbyStatus),
    /// What its queries still need.
    Feedback(HotStandbyFeedback),
}

/// How far a receiver is. C: `XLogWalRcvSendReply`; message `r`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Everything before this has been written.
    pub write: Lsn,
    /// Everything before this is on disk: a slot lets go of it, and a commit that waits for it goes on.
    pub flush: Lsn,
    /// Everything before this has been replayed; invalid for one that does not replay.
    pub apply: Lsn,
    /// The receiver's clock.
    pub time: TimestampTz,
    /// It wants a [`Keepalive`] at once.
    pub wants_reply: bool,
}

/// What queries on a standby still need. C: `XLogWalRcvSendHSFeedback`; message `h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotStandbyFeedback {
    /// The standby's clock.
    pub time: TimestampTz,
    /// Oldest transaction that it still needs; zero: it needs none any more.
    pub xmin: Xid,
    /// How often transaction ids had started again when `xmin` was given out.
    pub epoch: u32,
    /// The same for its catalogs, where it has logical slots.
    pub catalog_xmin: Xid,
    /// How often transaction ids had started again when `catalog_xmin` was given out.
    pub catalog_epoch: u32,
}

/// What a server says while it sends a base backup, from 15 on. C: backup/basebackup_copy.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromBackup<'a> {
    /// An archive begins. Message `n`.
    Archive {
        /// Its name, such as `base.tar` or `16400.tar.gz`.
        name: &'a str,
        /// Directory of the tablespace that it is of; empty for the data directory.
        tablespace: &'a str,
    },
    /// The manifest begins. Message `m`.
    Manifest,
    /// Bytes of what began last. Message `d`.
    Data(&'a [u8]),
    /// So many bytes have been read on the server. Message `p`.
    Progress(u64),
}

/// A message that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// There is nothing in it.
    Empty,
    /// Its first byte is not that of a message that can stand here.
    Type {
        /// The byte.
        found: u8,
        /// Those that can.
        expected: &'static str,
    },
    /// It has not the length of its type.
    Length {
        /// The type.
        kind: char,
        /// Bytes that it must have, or must have at least, its type included.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A text in it does not end, or is not UTF-8.
    Text {
        /// The type.
        kind: char,
        /// What the text is.
        field: &'static str,
    },
    /// There is something behind its end.
    Behind {
        /// The type.
        kind: char,
        /// Bytes behind.
        found: usize,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Empty => write!(f, "an empty replication message"),
            MessageError::Type { found, expected } => {
                write!(f, "a replication message of type \"{}\": expected one of {expected}", found.escape_ascii())
            }
            MessageError::Length { kind, expected, found } => {
                write!(f, "a replication message of type \"{kind}\" with {found} bytes: expected {expected}")
            }
            MessageError::Text { kind, field } => {
                write!(f, "a replication message of type \"{kind}\": its {field} does not end or is not UTF-8")
            }
            MessageError::Behind { kind, found } => write!(f, "a replication message of type \"{kind}\": {found} bytes behind its end"),
        }
    }
}

impl std::error::Error for MessageError {}

type Result<T> = std::result::Result<T, MessageError>;

/// Takes the fields of a message from its front, each as many bytes as its type has.
struct Fields<'a> {
    kind: char,
    len: usize,
    /// Bytes that a message of this type has at least.
    expected: usize,
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(message: &'a [u8], kind: u8, expected: usize) -> Fields<'a> {
        Fields { kind: kind.into(), len: message.len(), expected, left: message.get(1..).unwrap_or_default() }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let too_short = MessageError::Length { kind: self.kind, expected: self.expected, found: self.len };
        let (field, left) = self.left.split_first_chunk().ok_or(too_short)?;
        self.left = left;
        Ok(*field)
    }

    fn lsn(&mut self) -> Result<Lsn> {
        Ok(Lsn(u64::from_be_bytes(self.array()?)))
    }

    fn time(&mut self) -> Result<TimestampTz> {
        Ok(TimestampTz(i64::from_be_bytes(self.array()?)))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn flag(&mut self) -> Result<bool> {
        Ok(self.array::<1>()? != [0])
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str> {
        let wrong = MessageError::Text { kind: self.kind, field };
        let end = self.left.iter().position(|&byte| byte == 0).ok_or_else(|| wrong.clone())?;
        let (text, left) = self.left.split_at_checked(end).ok_or_else(|| wrong.clone())?;
        self.left = left.get(1..).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| wrong)
    }

    /// There must be nothing left.
    fn end(self) -> Result<()> {
        if self.left.is_empty() { Ok(()) } else { Err(MessageError::Behind { kind: self.kind, found: self.left.len() }) }
    }
}

impl<'a> FromWalSender<'a> {
    /// Reads the content of a `CopyData`.
    ///
    /// # Errors
    /// It is no message of a walsender that streams WAL.
    #[inline]
    pub fn read(message: &'a [u8]) -> Result<FromWalSender<'a>> {
        match message.first().ok_or(MessageError::Empty)? {
            b'w' => {
                let mut fields = Fields::new(message, b'w', 25);
                let (start, server_end, time) = (fields.lsn()?, fields.lsn()?, fields.time()?);
                Ok(FromWalSender::XLogData(XLogData { start, server_end, time, data: fields.left }))
            }
            b'k' => {
                let mut fields = Fields::new(message, b'k', 18);
                let keepalive = Keepalive { server_end: fields.lsn()?, time: fields.time()?, wants_reply: fields.flag()? };
                fields.end()?;
                Ok(FromWalSender::Keepalive(keepalive))
            }
            &found => Err(MessageError::Type { found, expected: "w, k" }),
        }
    }

    /// Writes the content of a `CopyData`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            FromWalSender::XLogData(data) => {
                out.push(b'w');
                out.extend_from_slice(&data.start.0.to_be_bytes());
                out.extend_from_slice(&data.server_end.0.to_be_bytes());
                out.extend_from_slice(&data.time.0.to_be_bytes());
                out.extend_from_slice(data.data);
            }
            FromWalSender::Keepalive(keepalive) => {
                out.push(b'k');
                out.extend_from_slice(&keepalive.server_end.0.to_be_bytes());
                out.extend_from_slice(&keepalive.time.0.to_be_bytes());
                out.push(keepalive.wants_reply.into());
            }
        }
    }
}

impl FromWalReceiver {
    /// Reads the content of a `CopyData`.
    ///
    /// # Errors
    /// It is no message of a walreceiver.
    pub fn read(message: &[u8]) -> Result<FromWalReceiver> {
        match message.first().ok_or(MessageError::Empty)? {
            b'r' => {
                let mut fields = Fields::new(message, b'r', 34);
                let (write, flush, apply) = (fields.lsn()?, fields.lsn()?, fields.lsn()?);
                let status = StandbyStatus { write, flush, apply, time: fields.time()?, wants_reply: fields.flag()? };
                fields.end()?;
                Ok(FromWalReceiver::Status(status))
            }
            b'h' => {
                let mut fields = Fields::new(message, b'h', 25);
                let (time, xmin, epoch) = (fields.time()?, Xid(fields.u32()?), fields.u32()?);
                let feedback = HotStandbyFeedback { time, xmin, epoch, catalog_xmin: Xid(fields.u32()?), catalog_epoch: fields.u32()? };
                fields.end()?;
                Ok(FromWalReceiver::Feedback(feedback))
            }
            &found => Err(MessageError::Type { found, expected: "r, h" }),
        }
    }

    /// Writes the content of a `CopyData`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            FromWalReceiver::Status(status) => {
                out.push(b'r');
                for lsn in [status.write, status.flush, status.apply] {
                    out.extend_from_slice(&lsn.0.to_be_bytes());
                }
                out.extend_from_slice(&status.time.0.to_be_bytes());
                out.push(status.wants_reply.into());
            }
            FromWalReceiver::Feedback(feedback) => {
                out.push(b'h');
                out.extend_from_slice(&feedback.time.0.to_be_bytes());
                for number in [feedback.xmin.0, feedback.epoch, feedback.catalog_xmin.0, feedback.catalog_epoch] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
    }
}

impl<'a> FromBackup<'a> {
    /// Reads the content of a `CopyData`.
    ///
    /// # Errors
    /// It is no message of a server that sends a base backup.
    pub fn read(message: &'a [u8]) -> Result<FromBackup<'a>> {
        match message.first().ok_or(MessageError::Empty)? {
            b'n' => {
                let mut fields = Fields::new(message, b'n', 3);
                let (name, tablespace) = (fields.text("archive name")?, fields.text("tablespace directory")?);
                fields.end()?;
                Ok(FromBackup::Archive { name, tablespace })
            }
            b'm' => Fields::new(message, b'm', 1).end().map(|()| FromBackup::Manifest),
            b'd' => Ok(FromBackup::Data(message.get(1..).unwrap_or_default())),
            b'p' => {
                let mut fields = Fields::new(message, b'p', 9);
                let done = u64::from_be_bytes(fields.array()?);
                fields.end()?;
                Ok(FromBackup::Progress(done))
            }
            &found => Err(MessageError::Type { found, expected: "n, m, d, p" }),
        }
    }

    /// Writes the content of a `CopyData`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            FromBackup::Archive { name, tablespace } => {
                out.push(b'n');
                for text in [name, tablespace] {
                    out.extend_from_slice(text.as_bytes());
                    out.push(0);
                }
            }
            FromBackup::Manifest => out.push(b'm'),
            FromBackup::Data(data) => {
                out.push(b'd');
                out.extend_from_slice(data);
            }
            FromBackup::Progress(done) => {
                out.push(b'p');
                out.extend_from_slice(&done.to_be_bytes());
            }
        }
    }
}

/// Where a timeline was left, as the server says it at the end of streaming: the next timeline, and its first LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTimeline {
    /// The next timeline.
    pub timeline: TimelineId,
    /// Where it begins.
    pub start: Lsn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let time = TimestampTz(-1_234_567);
        let from_sender = [
            FromWalSender::XLogData(XLogData { start: Lsn(0x1_0203_0405), server_end: Lsn(7), time, data: b"some WAL" }),
            FromWalSender::XLogData(XLogData { start: Lsn(1), server_end: Lsn(u64::MAX), time, data: b"" }),
            FromWalSender::Keepalive(Keepalive { server_end: Lsn(9), time, wants_reply: true }),
        ];
        for message in from_sender {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            assert_eq!(FromWalSender::read(&bytes), Ok(message));
        }
        let status = StandbyStatus { write: Lsn(3), flush: Lsn(2), apply: Lsn(1), time, wants_reply: true };
        let feedback = HotStandbyFeedback { time, xmin: Xid(700), epoch: 1, catalog_xmin: Xid(650), catalog_epoch: 2 };
        for message in [FromWalReceiver::Status(status), FromWalReceiver::Feedback(feedback)] {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            assert_eq!(FromWalReceiver::read(&bytes), Ok(message));
        }
        let from_backup = [
            FromBackup::Archive { name: "16400.tar", tablespace: "/srv/ü" },
            FromBackup::Manifest,
            FromBackup::Data(b"d"),
            FromBackup::Progress(1 << 40),
        ];
        for message in from_backup {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            assert_eq!(FromBackup::read(&bytes), Ok(message));
        }
    }

    /// Bytes of the protocol's documentation: type, numbers in network order.
    #[test]
    fn a_status_has_the_bytes_of_the_protocol() {
        let mut bytes = Vec::new();
        FromWalReceiver::Status(StandbyStatus {
            write: Lsn(0x0102),
            flush: Lsn(0x03),
            apply: Lsn(0),
            time: TimestampTz(4),
            wants_reply: false,
        })
        .write(&mut bytes);
        let mut expected = vec![b'r'];
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend([0; 15]);
        expected.extend([4, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_message_that_is_cut_short_or_too_long_is_refused() {
        let mut keepalive = Vec::new();
        FromWalSender::Keepalive(Keepalive { server_end: Lsn(9), time: TimestampTz(0), wants_reply: true }).write(&mut keepalive);
        for len in 1..keepalive.len() {
            let expected = MessageError::Length { kind: 'k', expected: 18, found: len };
            assert_eq!(FromWalSender::read(&keepalive[..len]), Err(expected));
        }
        keepalive.push(0);
        assert_eq!(FromWalSender::read(&keepalive), Err(MessageError::Behind { kind: 'k', found: 1 }));
        assert_eq!(FromWalSender::read(&[b'w'; 24]), Err(MessageError::Length { kind: 'w', expected: 25, found: 24 }));
        assert_eq!(FromWalSender::read(b""), Err(MessageError::Empty));
        let error = FromWalSender::read(b"\x01").unwrap_err();
        assert_eq!(error.to_string(), "a replication message of type \"\\x01\": expected one of w, k");
        assert_eq!(FromBackup::read(b"nbase.tar"), Err(MessageError::Text { kind: 'n', field: "archive name" }));
        assert_eq!(FromBackup::read(b"nbase.tar\0/x"), Err(MessageError::Text { kind: 'n', field: "tablespace directory" }));
        assert_eq!(FromWalReceiver::read(&[b'h'; 20]), Err(MessageError::Length { kind: 'h', expected: 25, found: 20 }));
    }
}
