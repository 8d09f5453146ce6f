//! JSON of a record as serde_json writes it, with escapes for what steers a terminal: what `pgwal::json::write_record` must equal.

use pgwal::record::{BlockFlags, BlockRef, Compression, Record};
use pgwal::rmgr::{Payload, RmgrId};
use pgwal::types::{BlockNumber, ForkNumber, RelFileLocator, RepOriginId, Xid};
use pgwal::wire::Bytes;
use pgwal::{Lsn, TimelineId};
use serde::Serialize;

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
    blocks: Vec<Block>,
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

impl Block {
    fn new(block: &BlockRef<'_>) -> Block {
        Block {
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
        }
    }
}

/// The line of `record`.
pub fn line(record: &Record<'_>) -> Vec<u8> {
    let header = record.header();
    let (payload, error) = match record.payload() {
        Ok(payload) => (payload, None),
        Err(error) => (None, Some(error.to_string())),
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
        blocks: record.blocks.iter().map(Block::new).collect(),
        main_data: payload.is_none().then_some(Bytes(record.main)),
        payload,
        error,
    };
    let mut json = Vec::new();
    pgwal::json::to_writer(&mut json, &line).expect("JSON has a form for it");
    json.push(b'\n');
    json
}
