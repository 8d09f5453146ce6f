//! A record as pg_waldump prints it. C: `XLogDumpDisplayRecord`, bin/pg_waldump/pg_waldump.c.

use crate::record::Record;
use crate::rmgr::{self, Describe};
use crate::text::{Padded, Text, lower_hex, right};
use crate::types::ForkNumber;

/// Appends the line of `record`, and with `details` (pg_waldump's `-b`) a line for each block reference.
///
/// # Errors
/// The payload does not parse; the line then has its raw bytes in the place of the description.
#[inline]
pub fn write_record(record: &Record<'_>, details: bool, out: &mut Text) -> crate::Result<()> {
    let (header, fmt) = (record.header(), record.fmt());
    let rmid = record.rmid();
    let image_len = record.image_len();
    put!(out, "rmgr: ");
    match rmid.builtin() {
        Some(rmgr) => {
            out.push(rmgr.name.as_bytes());
            out.push(b"           ".get(rmgr.name.len()..).unwrap_or_default());
        }
        None => put!(out, format!("{:<11}", rmid.name()).as_str()),
    }
    put!(out, " len (rec/tot): ", right(header.tot_len.saturating_sub(image_len), 6), "/", right(header.tot_len, 6));
    put!(out, ", tx: ", right(header.xid.0, 10), ", lsn: ", Padded(record.raw.lsn), ", prev ", Padded(header.prev), ", desc: ");
    match rmgr::identify(rmid, header.info, fmt) {
        Some(name) => put!(out, name, " "),
        None => put!(out, "UNKNOWN (", lower_hex(header.info.opcode()), ") "),
    }
    let start = out.len();
    let described = match record.payload() {
        Ok(Some(payload)) => {
            payload.describe(record, fmt, out);
            Ok(())
        }
        Ok(None) => {
            if rmid.is_custom() {
                put!(out, "rmid: ", rmid.0);
            }
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            put!(out, "[payload does not parse:");
            for &byte in record.main {
                put!(out, " ", crate::text::lower_hex2(byte));
            }
            put!(out, "]");
            Err(error)
        }
    };
    if details {
        write_block_details(record, out)
    } else {
        write_blocks(record, out)
    }
    described
}

/// The short form: on the record's line.
fn write_blocks(record: &Record<'_>, out: &mut Text) {
    for block in &record.blocks {
        put!(out, ", blkref #", block.id, ": rel ", block.rel);
        if block.fork != ForkNumber::MAIN {
            put!(out, " fork ", block.fork);
        }
        put!(out, " blk ", block.block);
        if let Some(image) = &block.image {
            put!(out, if image.apply() { " FPW" } else { " FPW for WAL verification" });
        }
    }
    put!(out, "\n");
}

/// The long form: a line for each block.
fn write_block_details(record: &Record<'_>, out: &mut Text) {
    let fmt = record.fmt();
    put!(out, "\n");
    for block in &record.blocks {
        put!(out, "\tblkref #", block.id, ": rel ", block.rel, " fork ", block.fork, " blk ", block.block);
        if let Some(image) = &block.image {
            put!(out, if image.apply() { " (FPW); hole: offset: " } else { " (FPW for WAL verification); hole: offset: " });
            put!(out, image.hole_offset, ", length: ", image.hole_length);
            if image.info.is_compressed() {
                put!(out, ", compression saved: ", image.saved(fmt));
                if fmt.since(15) {
                    put!(out, ", method: ", image.info.compression().map_or("unknown", |method| method.name()));
                }
            }
        }
        put!(out, "\n");
    }
}

impl crate::text::Put for ForkNumber {
    fn put(&self, out: &mut Text) {
        match self.name() {
            Some(name) => put!(out, name),
            None => put!(out, self.0),
        }
    }
}
