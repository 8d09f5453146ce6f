//! Messages of a server, found in one buffer: none is copied. Manual: "Message Formats".

use std::ops::Range;

use pgwal::aligned;

use super::error::{Error, Result};
use super::stream::{Stream, Wait, Waited};

/// What the buffer begins with: two messages of a walsender, each up to 128 kB of WAL (C: `MAX_SEND_SIZE`).
const CAPACITY: usize = 320 * 1024;

/// The longest message that is taken: CopyData. A walsender's are far below.
pub(super) const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The longest DataRow. A history file is by far the longest value that is asked for.
const MAX_ROW: usize = 16 * 1024 * 1024;

/// The longest of all other messages: errors, notices, parameters, descriptions of columns.
const MAX_OTHER: usize = 1024 * 1024;

/// The longest message before the server has let us in. libpq: `PQconnectPoll`, 30000.
pub(super) const MAX_EARLY_MESSAGE: usize = 30_000;

/// The types of messages that a server sends. Manual: "Message Formats", those marked (B).
const TAGS: &[u8] = b"123ACDEGHIKNRSTVWZcdnstv";

/// What has arrived and is not consumed yet.
#[derive(Debug)]
pub(super) struct Input {
    data: aligned::Buffer,
    start: usize,
    end: usize,
    /// The longest message that is taken.
    pub(super) limit: usize,
}

/// A message: its type, and where its body is in the buffer.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Range<usize>,
}

impl Input {
    pub(super) fn new() -> Input {
        Input { data: aligned::Buffer::new(CAPACITY), start: 0, end: 0, limit: MAX_EARLY_MESSAGE }
    }

    /// The body of the message that was last returned; empty for one that is gone.
    pub(super) fn body(&self, message: &Message) -> &[u8] {
        self.data.as_slice().get(message.body.clone()).unwrap_or_default()
    }

    /// Whether bytes are here that have not been returned.
    pub(super) fn has_some(&self) -> bool {
        self.start < self.end
    }

    /// The next message, read from the stream where the buffer does not have all of it.
    pub(super) fn next(&mut self, stream: &mut Stream, expected: &'static str, wait: Wait<'_>) -> Result<Waited<Message>> {
        let mut has_read = false;
        loop {
            let needed = match self.buffered(expected)? {
                Ok(message) => return Ok(Waited::Done(message)),
                Err(needed) => needed,
            };
            // However little comes at a time. What has come stays for the next call.
            if has_read && wait.slice().is_zero() {
                return Ok(Waited::Timeout);
            }
            self.make_room(needed);
            let room = self.data.as_mut_slice().get_mut(self.end..).unwrap_or_default();
            match stream.read(room, wait)? {
                Waited::Done(0) => return Err(Error::Closed { expected, partial: self.end - self.start }),
                // Never more than the room.
                Waited::Done(count) => (self.end, has_read) = (self.end + count, true),
                Waited::Timeout => return Ok(Waited::Timeout),
                Waited::Interrupted => return Ok(Waited::Interrupted),
            }
        }
    }

    /// The next message, if all of it is here; if not, its length with its head, as far as it is known.
    fn buffered(&mut self, expected: &'static str) -> Result<std::result::Result<Message, usize>> {
        let have = self.data.as_slice().get(self.start..self.end).unwrap_or_default();
        let Some((&tag, rest)) = have.split_first() else { return Ok(Err(HEAD)) };
        // Known by its first byte, so that what is no server at all is not waited for.
        if !TAGS.contains(&tag) {
            return Err(Error::Tag { expected, found: tag });
        }
        let Some((len, rest)) = rest.split_first_chunk::<4>() else { return Ok(Err(HEAD)) };
        let found = u32::from_be_bytes(*len);
        let limit = self.limit.min(match tag {
            b'd' => MAX_MESSAGE,
            b'D' => MAX_ROW,
            _ => MAX_OTHER,
        });
        let body = usize::try_from(found).ok().filter(|&len| (4..=limit).contains(&len)).map(|len| len - 4);
        let body = body.ok_or(Error::Length { tag, limit, found })?;
        if rest.len() < body {
            return Ok(Err(HEAD + body));
        }
        let start = self.start + HEAD;
        self.start = start + body;
        Ok(Ok(Message { tag, body: start..start + body }))
    }

    /// Makes room for a message of `needed` bytes that starts at `start`.
    fn make_room(&mut self, needed: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + needed > self.data.len() {
            self.data.as_mut_slice().copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if needed > self.data.len() {
            self.data.grow(needed);
        }
    }
}

/// Type and length of a message.
const HEAD: usize = 5;
