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
//! | `blocks` | block references: `id`, `spc`, `db`, `rel`, `fork` (a name), `block`, `flags` (names of the set ones), `data_len`; `image` only where there is one: `len`, `hole_offset`, `hole_length`, `compression` (`"pglz"`, `"lz4"`, `"zstd"` or `null`), `apply` |
//! | `payload` | the resource manager's own: `op` says which struct of [`crate::rmgr`] it is, whose fields follow; `null` for a custom resource manager, or an opcode that the major does not define |
//! | `main_data` | hexadecimal digits of the main data, only where `payload` is `null` |
//! | `error` | only where the payload does not parse: a sentence with the place |
//!
//! Within payloads the rules are the same for all: LSNs and 64-bit ids are strings, flags are lists of names with unknown bits
//! as one `"0x80"`, timestamps are ISO 8601 strings in UTC, bytes that are not ours to read are hexadecimal digits, and a field that the
//! record's major does not have is `null`.

use serde::Serialize;

use crate::error::Result;
use crate::lsn::{Lsn, TimelineId};
use crate::record::{BlockFlags, BlockRef, Compression, Record};
use crate::rmgr::{Payload, RmgrId};
use crate::types::{BlockNumber, ForkNumber, RelFileLocator, RepOriginId, Xid};
use crate::wire::Bytes;

#[derive(Serialize)]
struct Line<'r> {
    lsn: Lsn,
    end: Lsn,
    prev: Lsn,
    timeline: TimelineId,
    xid: Xid,
    rmgr: RmgrId,
    opcode: Option<&'static str>,
    info: u8,
    total_len: u32,
    record_len: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<RepOriginId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    toplevel_xid: Option<Xid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overwritten: Option<Lsn>,
    #[serde(serialize_with = "blocks")]
    blocks: &'r [BlockRef<'r>],
    payload: Option<Payload<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    main_data: Option<Bytes<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Block {
    id: u8,
    #[serde(flatten)]
    rel: RelFileLocator,
    fork: ForkNumber,
    block: BlockNumber,
    flags: BlockFlags,
    data_len: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<Image>,
}

#[derive(Serialize)]
struct Image {
    len: u16,
    hole_offset: u16,
    hole_length: u16,
    compression: Option<Compression>,
    apply: bool,
}

fn blocks<S: serde::Serializer>(blocks: &&[BlockRef<'_>], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(blocks.iter().map(|block| Block {
        id: block.id,
        rel: block.rel,
        fork: block.fork,
        block: block.block,
        flags: block.flags,
        data_len: block.data.len(),
        image: block.image.map(|image| Image {
            len: image.len,
            hole_offset: image.hole_offset,
            hole_length: image.hole_length,
            compression: image.info.compression(),
            apply: image.apply(),
        }),
    }))
}

/// Appends the line of `record`.
///
/// # Errors
/// The payload does not parse; the line then has the error, and the main data as it is.
pub fn write_record(record: &Record<'_>, out: &mut Vec<u8>) -> Result<()> {
    let header = record.header();
    let (payload, error) = match record.payload() {
        Ok(payload) => (payload, None),
        Err(error) => (None, Some(error)),
    };
    let line = Line {
        lsn: record.raw.lsn,
        end: record.raw.end,
        prev: header.prev,
        timeline: record.raw.timeline,
        xid: header.xid,
        rmgr: header.rmid,
        opcode: record.opcode_name(),
        info: header.info.0,
        total_len: header.tot_len,
        record_len: header.tot_len.saturating_sub(record.image_len()),
        origin: record.origin,
        toplevel_xid: record.toplevel_xid,
        overwritten: record.raw.overwritten,
        blocks: &record.blocks,
        main_data: payload.is_none().then_some(Bytes(record.main)),
        payload,
        error: error.as_ref().map(ToString::to_string),
    };
    let start = out.len();
    if let Err(why) = serde_json::to_writer(&mut *out, &line) {
        // Writing to memory does not fail, so this is a type that JSON has no form for: a defect, and better seen than cut short.
        out.truncate(start);
        out.extend_from_slice(format!("{{\"lsn\":\"{}\",\"error\":{:?}}}", record.raw.lsn, why.to_string()).as_bytes());
    }
    out.push(b'\n');
    error.map_or(Ok(()), Err)
}
