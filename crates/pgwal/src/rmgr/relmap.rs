//! Relation map, resource manager 7. C: utils/relmapper.h; text: rmgrdesc/relmapdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::types::Oid;
use crate::wire::{Array, Bytes, FixedSize, Parsed, Until, Wire, WireError, array, bytes};

/// Record types. C: `XLOG_RELMAP_UPDATE`.
pub const OPCODES: &[Opcode] = &[op(0x00, "UPDATE", Majors::ALL)];

/// Slots for mappings in a map, used and unused. C: `MAX_MAPPINGS`.
pub const fn max_mappings(fmt: WalFormat) -> usize {
    if fmt.since(16) { 64 } else { 62 }
}

wire_struct! {
    /// Where the file number of a catalog is kept that cannot have it in pg_class. C: `RelMapping`.
    pub struct RelMapping("RelMapping") {
        /// The catalog.
        oid: Oid,
        /// Its file number. C: `mapfilenumber`, before 16 `mapfilenode`.
        filenumber: Oid,
    }
}

/// The file `pg_filenode.map`, 524 bytes; 512 before 16. C: `RelMapFile`, utils/cache/relmapper.c.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RelMapFile<'a> {
    /// 0x592717 in a healthy map. C: `RELMAPPER_FILEMAGIC`.
    pub magic: u32,
    /// The mappings in use; on disk their number comes before them. C: `num_mappings`, `mappings`.
    pub mappings: Array<'a, RelMapping>,
    /// Slots not in use: whatever was left in them.
    #[serde(skip)]
    pub unused: Bytes<'a>,
    /// CRC-32C of everything above.
    pub crc: u32,
    /// Makes the map 512 bytes long; `None` from 16 on.
    #[serde(skip)]
    pub pad: Until<15, u32>,
}

impl<'a> Wire<'a> for RelMapFile<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, magic) = u32::read(i, fmt).map_err(|e| e.in_field("RelMapFile.magic"))?;
        let at = i;
        let (i, used) = u32::read(i, fmt).map_err(|e| e.in_field("RelMapFile.num_mappings"))?;
        let Some(unused) = max_mappings(fmt).checked_sub(used as usize) else {
            return Err(WireError::invalid(at, "RelMapFile.num_mappings", "no more than there are slots", used.into()));
        };
        let (i, mappings) = array(i, used, fmt, "RelMapFile.mappings")?;
        let (i, unused) = bytes(i, unused * RelMapping::size(fmt), "RelMapFile.mappings")?; // at most 64 slots of 8 bytes
        let (i, crc) = u32::read(i, fmt).map_err(|e| e.in_field("RelMapFile.crc"))?;
        let (i, pad) = Until::read(i, fmt).map_err(|e| e.in_field("RelMapFile.pad"))?;
        Ok((i, RelMapFile { magic, mappings, unused: Bytes(unused), crc, pad }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.magic.write(fmt, out);
        (self.mappings.len() as u32).write(fmt, out);
        self.mappings.write(out);
        out.extend_from_slice(self.unused.0);
        self.crc.write(fmt, out);
        self.pad.write(fmt, out);
    }
}

wire_struct! {
    /// Fixed part of UPDATE, 12 bytes. C: `xl_relmap_update`.
    pub struct UpdateHead("xl_relmap_update") {
        /// Database of the map; zero for the map of the shared catalogs. C: `dbid`.
        db: Oid,
        /// The database's tablespace, or `pg_global`. C: `tsid`.
        tablespace: Oid,
        /// Bytes of the map that follows.
        nbytes: i32,
    }
}

/// The whole map as it is from now on. C: `xl_relmap_update`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update<'a> {
    /// Fixed part.
    pub head: UpdateHead,
    /// The map. C: `data`.
    pub map: RelMapFile<'a>,
}
json_object!(Update<'_> { ..head, map });

impl<'a> Wire<'a> for Update<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, head) = UpdateHead::read(i, fmt)?;
        let start = i.len();
        let (rest, map) = RelMapFile::read(i, fmt)?;
        if i32::try_from(start.saturating_sub(rest.len())) != Ok(head.nbytes) {
            // As unsigned, like every value in an error; a negative one is then far too big.
            return Err(WireError::invalid(i, "xl_relmap_update.nbytes", "the size of the map", (head.nbytes as u32).into()));
        }
        Ok((rest, Update { head, map }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.head.write(fmt, out);
        self.map.write(fmt, out);
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// UPDATE.
    Update(Update<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let op = match rec.info().opcode() {
        0x00 => Op::Update(rec.parse_all("xl_relmap_update", rec.main, |i| Update::read(i, fmt))?),
        _ => return Ok(None),
    };
    rec.only_block_data("xl_relmap_update", &[])?;
    Ok(Some(op))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::Update(update) => update.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::Update(Update { head, .. }) => {
                put!(out, "database ", head.db, " tablespace ", head.tablespace, " size ", head.nbytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    fn update(slots: usize, used: u32, nbytes: i32, pad: &[u8]) -> Vec<u8> {
        let mut main = le![5u32, 1663u32, nbytes, 0x592717u32, used];
        for slot in 0..slots as u32 {
            main.extend(le![1259 + slot, 16384 + slot]); // slots not in use keep what was in them
        }
        main.extend(le![0xDEADBEEFu32]);
        main.extend(pad);
        main
    }

    fn rec(major: u8, main: &[u8]) -> Rec<'_> {
        Rec { major, rmid: 7, main, ..Rec::default() }
    }

    fn error(major: u8, main: &[u8]) -> String {
        rec(major, main).parse().unwrap_err().kind().to_string()
    }

    #[test]
    fn the_map_of_each_major() {
        let old = update(62, 17, 512, &[1, 2, 3, 4]);
        rec(10, &old).check("database 5 tablespace 1663 size 512", &[]);
        rec(15, &old).check("database 5 tablespace 1663 size 512", &[]);
        let new = update(64, 64, 524, &[]);
        rec(16, &new).check("database 5 tablespace 1663 size 524", &[]);
        rec(19, &new).check("database 5 tablespace 1663 size 524", &[]);
        assert!(error(15, &new).starts_with("RelMapFile.num_mappings"));
        assert_eq!(error(16, &old), "RelMapFile.mappings: 8 more bytes needed");
    }

    #[test]
    fn counts_must_fit() {
        assert_eq!(
            error(16, &update(64, 65, 524, &[])),
            "RelMapFile.num_mappings: expected no more than there are slots, found 65"
        );
        assert_eq!(error(16, &update(64, 17, 512, &[])), "xl_relmap_update.nbytes: expected the size of the map, found 512");
    }
}
