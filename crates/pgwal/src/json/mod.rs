//! JSON Lines: one object for each record.
//!
//! | field | meaning |
//! | --- | --- |
//! | `lsn`, `end`, `prev` | where the record starts, where the next one may start, where the one before starts; strings, `"16/B374D848"` |
//! | `timeline` | timeline of the page that the record ends on |
//! | `xid` | transaction, 0 for none |
//! | `rmgr` | resource manager, as pg_waldump names it |
//! | `opcode` | record type, as pg_waldump names it; `null` where the major defines none |
//! | `info` | the info byte, a number |
//! | `total_len`, `record_len` | bytes of the record, and without its page images |
//! | `origin`, `toplevel_xid`, `overwritten` | only where the record has them: replication origin, top-level transaction, LSN of a lost record before this one |
//! | `blocks` | block references: `id`, `spc`, `db`, `rel`, `relation` (`database.schema.name`, only where names are given and have it), `fork` (a name), `block`, `flags` (names of the set ones), `data_len`; `image` only where there is one: `len`, `hole_offset`, `hole_length`, `compression` (`"pglz"`, `"lz4"`, `"zstd"` or `null`), `apply` |
//! | `payload` | the resource manager's own: `op` says which struct of [`crate::rmgr`] it is, whose fields follow; `null` for a custom resource manager, or an opcode that the major does not define |
//! | `main_data` | hexadecimal digits of the main data, only where `payload` is `null` |
//! | `error` | only where the payload does not parse: a sentence with the place |
//!
//! `crates/pgwal/schema/record.json` says the same as a JSON Schema, with every field of every payload.
//!
//! Within payloads the rules are the same for all:
//!
//! - Names are C's in small letters, without the struct's prefix, and with underscores between words also where C has none
//!   (`right_link`). A count is `n` and what it counts (`ntuples`, `ndata_pages`), a length ends in `len` or `size`, a line pointer is
//!   an `offnum`. `op` says which record it is; where a part of one can be several things, its `kind` says which.
//! - LSNs are strings, `"16/B374D848"`, and so are all values of 64 bits that use them: ids, members of multixacts, values of sequences,
//!   counters; JSON's numbers are doubles to many readers. Only what stays below 2^53 is a number all the same: sizes, offsets, pages.
//! - Flags are lists of names, unknown bits one `"0x80"` at the end. What else has a name is that name, and its digits as a string where
//!   this version knows none.
//! - Timestamps are ISO 8601 strings in UTC with six digits after the seconds; beyond the years 0 to 9999 the number on disk and its unit.
//! - Bytes that are not ours to read are hexadecimal digits. Text that is not UTF-8 has replacement characters. Control characters and
//!   what else deceives on a terminal ([`crate::printable`]) stand in it as escapes such as `\u009b`.
//! - A field that the record's major does not have is `null`.
//!
//! Lines are written by a serializer of our own ([`write_record`]); the types implement [`serde::Serialize`] for others too, and
//! serde_json makes the same of them, with [`to_writer`] also the same escapes.

mod escape;
mod ser;

use std::fmt;

use serde::Serialize;

pub use escape::{to_string, to_writer, to_writer_pretty};
use ser::{RELATIONS, Relation, Relations, Room, Writer};

use crate::error::Result;
use crate::names::Names;
use crate::record::{BlockFlags, BlockRef, Image, Record};
use crate::rmgr;
use crate::types::ForkNumber;
use crate::wire::Bytes;

/// Lines of JSON: a byte buffer, and what makes writing the next line fast.
#[derive(Debug)]
pub struct Json {
    /// The lines, and room for the next.
    bytes: Vec<u8>,
    /// Bytes of the lines.
    len: usize,
    /// A line that the room does not hold; empty between lines.
    long: Vec<u8>,
    relations: Box<Relations>,
}

impl Json {
    /// An empty buffer.
    pub fn new() -> Json {
        Json { bytes: Vec::new(), len: 0, long: Vec::new(), relations: Box::new([Relation::UNUSED; RELATIONS]) }
    }

    /// The lines written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Forgets what has been written and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes out what has been written.
    pub fn take(&mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        self.len = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Appends a line that `write` writes; where it fails, nothing.
    #[inline(always)]
    fn line(&mut self, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) -> fmt::Result {
        if self.bytes.len() - self.len < size_of::<Room>() {
            self.make_room(size_of::<Room>());
        }
        let Some(room) = self.bytes.get_mut(self.len..).and_then(|rest| rest.first_chunk_mut()) else {
            return Err(fmt::Error); // not with the room just made
        };
        let mut out = Writer::new(room, &mut self.long, &mut self.relations);
        let done = write(&mut out);
        let in_room = out.end();
        if !self.long.is_empty() {
            self.long_line(in_room, done.is_ok());
        } else if done.is_ok() {
            self.len += in_room;
        }
        done
    }

    #[cold]
    fn make_room(&mut self, len: usize) {
        // Twice as much as before, so that growing costs no more than writing.
        self.bytes.resize(self.len.saturating_add(len).max(self.len.saturating_mul(2)).max(8 * size_of::<Room>()), 0);
    }

    /// Appends the line of which only the last bytes are in the room.
    #[cold]
    fn long_line(&mut self, in_room: usize, good: bool) {
        let end = self.bytes.get(self.len..self.len + in_room).unwrap_or_default();
        self.long.extend_from_slice(end);
        if good {
            let len = self.long.len();
            if self.bytes.len() - self.len < len {
                self.make_room(len);
            }
            // What stands after the line stays as it is: to cut it off would mean to clear as much again for the next line.
            if let Some(place) = self.bytes.get_mut(self.len..self.len + len) {
                place.copy_from_slice(&self.long);
                self.len += len;
            }
        }
        self.long.clear();
        self.long.shrink_to(LONG); // some records have megabytes
    }
}

/// Bytes that are kept for the next line that does not fit in the room.
const LONG: usize = 1 << 20;

impl Default for Json {
    fn default() -> Json {
        Json::new()
    }
}

/// Appends the line of `record`.
///
/// # Errors
/// The payload does not parse; the line then has the error, and the main data as it is.
#[inline]
pub fn write_record(record: &Record<'_>, out: &mut Json) -> Result<()> {
    write_record_with_names(record, None, out)
}

/// As [`write_record`], with the names of relations in block references, where `names` has them.
///
/// # Errors
/// As for [`write_record`].
#[inline]
pub fn write_record_with_names(record: &Record<'_>, names: Option<&Names>, out: &mut Json) -> Result<()> {
    let mut bad = None;
    let line = out.line(|out| {
        header(record, out);
        out.push(b",\"blocks\":[");
        for (at, block) in record.blocks.iter().enumerate() {
            if at > 0 {
                out.push(b",");
            }
            block_reference(block, names, out)?;
        }
        out.push(b"],\"payload\":");
        match rmgr::serialize(record, record.fmt(), &mut *out) {
            Ok(Some(written)) => written?,
            Ok(None) => no_payload(record, out)?,
            Err(error) => {
                no_payload(record, out)?;
                out.push(b",\"error\":");
                error.to_string().serialize(&mut *out)?;
                bad = Some(error);
            }
        }
        out.push(b"}\n");
        Ok(())
    });
    if line.is_err() {
        // Writing to memory does not fail, so this is a type that JSON has no form for: a defect, and better seen than cut short.
        let _ = out.line(|out| {
            out.push(b"{\"lsn\":\"");
            out.lsn(record.raw.lsn);
            out.push(b"\",\"error\":\"no JSON for this payload\"}\n");
            Ok(())
        });
    }
    bad.map_or(Ok(()), Err)
}

fn no_payload(record: &Record<'_>, out: &mut Writer<'_>) -> fmt::Result {
    out.push(b"null,\"main_data\":");
    Bytes(record.main).serialize(out)
}

#[inline(always)]
fn header(record: &Record<'_>, out: &mut Writer<'_>) {
    let header = record.header();
    out.push(b"{\"lsn\":\"");
    out.lsn(record.raw.lsn);
    out.push(b"\",\"end\":\"");
    out.lsn(record.raw.end);
    out.push(b"\",\"prev\":\"");
    out.lsn(header.prev);
    out.push(b"\",\"timeline\":");
    out.decimal(record.raw.timeline.0.into());
    out.push(b",\"xid\":");
    out.decimal(header.xid.0.into());
    out.push(b",\"rmgr\":\"");
    match header.rmid.builtin() {
        Some(rmgr) => out.name(rmgr.name),
        None => out.name(&header.rmid.name()),
    }
    match record.opcode_name() {
        Some(name) => {
            out.push(b"\",\"opcode\":\"");
            out.name(name);
            out.push(b"\",\"info\":");
        }
        None => out.push(b"\",\"opcode\":null,\"info\":"),
    }
    out.decimal(header.info.0.into());
    out.push(b",\"total_len\":");
    out.decimal(header.tot_len.into());
    out.push(b",\"record_len\":");
    out.decimal(header.tot_len.saturating_sub(record.image_len()).into());
    if let Some(origin) = record.origin {
        out.push(b",\"origin\":");
        out.decimal(origin.0.into());
    }
    if let Some(xid) = record.toplevel_xid {
        out.push(b",\"toplevel_xid\":");
        out.decimal(xid.0.into());
    }
    if let Some(lsn) = record.raw.overwritten {
        out.push(b",\"overwritten\":\"");
        out.lsn(lsn);
        out.push(b"\"");
    }
}

#[inline(always)]
fn block_reference(block: &BlockRef<'_>, names: Option<&Names>, out: &mut Writer<'_>) -> fmt::Result {
    out.make_room();
    out.push(b"{\"id\":");
    out.decimal(block.id.into());
    out.push(b",");
    out.relation(block.rel);
    if let Some(names) = names.filter(|names| names.relation(block.rel).is_some()) {
        out.push(b",\"relation\":");
        names.show(block.rel).to_string().serialize(&mut *out)?;
    }
    match block.fork {
        ForkNumber::MAIN => out.push(b",\"fork\":\"main\",\"block\":"),
        fork => {
            out.push(b",\"fork\":");
            fork.serialize(&mut *out)?;
            out.push(b",\"block\":");
        }
    }
    out.decimal(block.block.0.into());
    match block.flags {
        BlockFlags::BKPBLOCK_HAS_DATA => out.push(b",\"flags\":[\"BKPBLOCK_HAS_DATA\"],\"data_len\":"),
        flags => {
            out.push(b",\"flags\":");
            flags.serialize(&mut *out)?;
            out.push(b",\"data_len\":");
        }
    }
    out.decimal(block.data.len() as u64);
    if let Some(image) = &block.image {
        image_of_block(image, out);
    }
    out.push(b"}");
    Ok(())
}

fn image_of_block(image: &Image<'_>, out: &mut Writer<'_>) {
    out.push(b",\"image\":{\"len\":");
    out.decimal(image.len.into());
    out.push(b",\"hole_offset\":");
    out.decimal(image.hole_offset.into());
    out.push(b",\"hole_length\":");
    out.decimal(image.hole_length.into());
    match image.info.compression() {
        Some(method) => {
            out.push(b",\"compression\":\"");
            out.name(method.name());
            out.push(b"\"");
        }
        None => out.push(b",\"compression\":null"),
    }
    out.push(if image.apply() { b",\"apply\":true}" } else { b",\"apply\":false}" });
}

/// Serializes a number of more than 53 bits: as its digits in a string.
pub(crate) fn as_string<T: fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
