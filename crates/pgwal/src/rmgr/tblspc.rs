//! Tablespace, resource manager 5. C: commands/tablespace.h; text: rmgrdesc/tblspcdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::types::Oid;
use crate::wire::{Parsed, Str, Wire, c_string};

/// Record types. C: `XLOG_TBLSPC_CREATE`, `XLOG_TBLSPC_DROP`.
pub const OPCODES: &[Opcode] = &[op(0x00, "CREATE", Majors::ALL), op(0x10, "DROP", Majors::ALL)];

/// A tablespace is made. C: `xl_tblspc_create_rec`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Create<'a> {
    /// The tablespace.
    pub id: Oid,
    /// Directory that it stands for; on disk a NUL follows. Empty for one inside the data directory. C: `ts_path`.
    pub path: Str<'a>,
}

impl<'a> Wire<'a> for Create<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, id) = Oid::read(i, fmt).map_err(|e| e.in_field("xl_tblspc_create_rec.ts_id"))?;
        let (i, path) = c_string(i, "xl_tblspc_create_rec.ts_path")?;
        Ok((i, Create { id, path: Str(path.0) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.id.write(fmt, out);
        out.extend_from_slice(self.path.0);
        out.push(0);
    }
}

wire_struct! {
    /// A tablespace is removed. C: `xl_tblspc_drop_rec`.
    pub struct Drop("xl_tblspc_drop_rec") {
        /// The tablespace. C: `ts_id`.
        id: Oid,
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// CREATE.
    Create(Create<'a>),
    /// DROP.
    Drop(Drop),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let op = match rec.info().opcode() {
        0x00 => Op::Create(rec.parse_all("xl_tblspc_create_rec", rec.main, |i| Create::read(i, fmt))?),
        0x10 => Op::Drop(rec.parse_all("xl_tblspc_drop_rec", rec.main, |i| Drop::read(i, fmt))?),
        _ => return Ok(None),
    };
    rec.only_block_data("Tablespace", &[])?;
    Ok(Some(op))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::Create(create) => create.write(fmt, &mut body.main),
            Op::Drop(drop) => drop.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::Create(create) => put!(out, create.id, " \"", create.path, "\""),
            Op::Drop(drop) => put!(out, drop.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    #[test]
    fn create_and_drop() {
        let main = [&16385u32.to_le_bytes()[..], b"/mnt/a b\0"].concat();
        let create = Rec { major: 10, rmid: 5, info: 0x00, main: &main, ..Rec::default() };
        create.check("16385 \"/mnt/a b\"", &[]);
        let main = le![16385u32];
        Rec { info: 0x10, main: &main, ..create }.check("16385", &[]);
    }

    #[test]
    fn a_path_in_the_data_directory_is_empty() {
        let main = [&16385u32.to_le_bytes()[..], b"\0"].concat();
        Rec { major: 15, rmid: 5, main: &main, ..Rec::default() }.check("16385 \"\"", &[]);
    }
}
