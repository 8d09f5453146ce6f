//! A record as pg_waldump prints it. C: `XLogDumpDisplayRecord`, bin/pg_waldump/pg_waldump.c.

use crate::names::Names;
use crate::printable::printable;
use crate::record::Record;
use crate::rmgr::{self, RMGRS};
use crate::text::{Padded, Text, lower_hex, right, six_columns};
use crate::types::{ForkNumber, RelFileLocator};

/// Appends the line of `record`, and with `details` (pg_waldump's `-b`) a line for each block reference.
///
/// # Errors
/// The payload does not parse; the line then has its raw bytes in the place of the description.
#[inline]
pub fn write_record(record: &Record<'_>, details: bool, out: &mut Text) -> crate::Result<()> {
    write_record_with_names(record, details, None, out)
}

/// As [`write_record`], with the name of each relation after its numbers in a block reference, where `names` has one:
/// `rel 1663/5/16394 (shop.public.accounts) blk 7`.
///
/// # Errors
/// As for [`write_record`].
#[inline]
pub fn write_record_with_names(record: &Record<'_>, details: bool, names: Option<&Names>, out: &mut Text) -> crate::Result<()> {
    let (header, fmt) = (record.header(), record.fmt());
    let rmid = record.rmid();
    let image_len = record.image_len();
    let record_len = header.tot_len.saturating_sub(image_len);
    match COLUMNS.get(usize::from(rmid.0)) {
        // Nearly every record: columns of known width, so that one piece of text takes them all.
        Some(Some(name)) if header.tot_len < 1_000_000 => out.fill(HEAD, |head| {
            head[6..17].copy_from_slice(name);
            head[33..39].copy_from_slice(&six_columns(record_len));
            head[40..46].copy_from_slice(&six_columns(header.tot_len));
        }),
        _ => {
            let name = rmid.name();
            put!(out, "rmgr: ", format!("{name:<11}").as_str(), " len (rec/tot): ", right(record_len, 6), "/", right(header.tot_len, 6));
            put!(out, ", tx: ");
        }
    }
    out.xid_column(header.xid);
    put!(out, ", lsn: ", Padded(record.raw.lsn), ", prev ", Padded(header.prev), ", desc: ");
    match rmgr::identify(rmid, header.info, fmt) {
        Some(name) => {
            out.name(name.as_bytes());
            put!(out, " ");
        }
        None => put!(out, "UNKNOWN (", lower_hex(header.info.opcode()), ") "),
    }
    let start = out.len();
    let described = match rmgr::describe(record, fmt, out) {
        Ok(()) => Ok(()),
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
        write_block_details(record, names, out)
    } else {
        write_blocks(record, names, out)
    }
    described
}

/// Text of a record up to its transaction id, with blanks where values go.
const HEAD: &[u8; 52] = b"rmgr:             len (rec/tot):       /      , tx: ";

/// The column of the resource manager's name, filled with blanks; `None` for a name that is longer. C: `%-11s`.
static COLUMNS: [Option<[u8; 11]>; RMGRS.len()] = {
    let mut columns = [None; RMGRS.len()];
    let mut id = 0;
    while id < columns.len() {
        let name = RMGRS[id].name.as_bytes();
        if name.len() <= 11 {
            let mut column = [b' '; 11];
            let mut at = 0;
            while at < name.len() {
                column[at] = name[at];
                at += 1;
            }
            columns[id] = Some(column);
        }
        id += 1;
    }
    columns
};

/// The short form: on the record's line.
fn write_blocks(record: &Record<'_>, names: Option<&Names>, out: &mut Text) {
    for block in &record.blocks {
        if block.id < 10 {
            let mut start = *b", blkref #0: rel ";
            start[10] += block.id; // a digit
            out.push(&start);
        } else {
            put!(out, ", blkref #", block.id, ": rel ");
        }
        put!(out, block.rel);
        if let Some(names) = names {
            write_name(block.rel, names, out);
        }
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
fn write_block_details(record: &Record<'_>, names: Option<&Names>, out: &mut Text) {
    let fmt = record.fmt();
    put!(out, "\n");
    for block in &record.blocks {
        put!(out, "\tblkref #", block.id, ": rel ", block.rel);
        if let Some(names) = names {
            write_name(block.rel, names, out);
        }
        put!(out, " fork ", block.fork, " blk ", block.block);
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

fn write_name(rel: RelFileLocator, names: &Names, out: &mut Text) {
    if names.relation(rel).is_some() {
        put!(out, " (", format!("{}", printable(names.show(rel))).as_str(), ")");
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
