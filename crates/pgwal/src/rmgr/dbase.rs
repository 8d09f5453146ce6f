//! Database, resource manager 4. C: commands/dbcommands_xlog.h; text: rmgrdesc/dbasedesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::types::Oid;
use crate::wire::{Array, Parsed, Wire, array};

/// Record types: 15 brought a second way to create a database, and gave DROP another number for it.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "CREATE", Majors::until(14)),
    op(0x10, "DROP", Majors::until(14)),
    op(0x00, "CREATE_FILE_COPY", Majors::since(15)),
    op(0x10, "CREATE_WAL_LOG", Majors::since(15)),
    op(0x20, "DROP", Majors::since(15)),
];

wire_struct! {
    /// One directory of a database is copied, files and all. C: `xl_dbase_create_file_copy_rec`, before 15 `xl_dbase_create_rec`.
    pub struct CreateFileCopy("xl_dbase_create_file_copy_rec") {
        /// The new database.
        db: Oid,
        /// Tablespace of the copy.
        tablespace: Oid,
        /// Database that is copied; the same one when it moves to another tablespace.
        src_db: Oid,
        /// Tablespace that is copied from.
        src_tablespace: Oid,
    }
}

wire_struct! {
    /// The directory of a database is made; its pages follow in records of their own. From 15 on.
    /// C: `xl_dbase_create_wal_log_rec`.
    pub struct CreateWalLog("xl_dbase_create_wal_log_rec") {
        /// The new database.
        db: Oid,
        /// Its tablespace.
        tablespace: Oid,
    }
}

/// Directories of a database are removed. C: `xl_dbase_drop_rec`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Drop<'a> {
    /// The database.
    pub db: Oid,
    /// Tablespaces that have a directory of it. Before 13 a record has exactly one. C: `tablespace_ids`, before 13 `tablespace_id`.
    pub tablespaces: Array<'a, Oid>,
}

impl<'a> Wire<'a> for Drop<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, db) = Oid::read(i, fmt).map_err(|e| e.in_field("xl_dbase_drop_rec.db_id"))?;
        let (i, count) = if fmt.since(13) {
            i32::read(i, fmt).map_err(|e| e.in_field("xl_dbase_drop_rec.ntablespaces"))?
        } else {
            (i, 1)
        };
        let (i, tablespaces) = array(i, count, fmt, "xl_dbase_drop_rec.tablespace_ids")?;
        Ok((i, Drop { db, tablespaces }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.db.write(fmt, out);
        if fmt.since(13) {
            (self.tablespaces.len() as i32).write(fmt, out);
        }
        self.tablespaces.write(out);
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// CREATE (before 15), CREATE_FILE_COPY.
    CreateFileCopy(CreateFileCopy),
    /// CREATE_WAL_LOG.
    CreateWalLog(CreateWalLog),
    /// DROP.
    Drop(Drop<'a>),
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let op = match (rec.info().opcode(), fmt.since(15)) {
        (0x00, _) => {
            Op::CreateFileCopy(rec.parse_all("xl_dbase_create_file_copy_rec", rec.main, |i| CreateFileCopy::read(i, fmt))?)
        }
        (0x10, true) => Op::CreateWalLog(rec.parse_all("xl_dbase_create_wal_log_rec", rec.main, |i| CreateWalLog::read(i, fmt))?),
        (0x10, false) | (0x20, true) => Op::Drop(rec.parse_all("xl_dbase_drop_rec", rec.main, |i| Drop::read(i, fmt))?),
        _ => return Ok(None),
    };
    rec.only_block_data("Database", &[])?;
    Ok(Some(op))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        match self {
            Op::CreateFileCopy(create) => create.write(fmt, &mut body.main),
            Op::CreateWalLog(create) => create.write(fmt, &mut body.main),
            Op::Drop(drop) => drop.write(fmt, &mut body.main),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, fmt: WalFormat, out: &mut Text) {
        match self {
            // 10 and 11 name the database before the tablespace.
            Op::CreateFileCopy(c) if fmt.since(12) => {
                put!(out, "copy dir ", c.src_tablespace, "/", c.src_db, " to ", c.tablespace, "/", c.db);
            }
            Op::CreateFileCopy(c) => put!(out, "copy dir ", c.src_db, "/", c.src_tablespace, " to ", c.db, "/", c.tablespace),
            Op::CreateWalLog(c) => put!(out, "create dir ", c.tablespace, "/", c.db),
            Op::Drop(drop) => {
                put!(out, "dir");
                for tablespace in drop.tablespaces.iter() {
                    if fmt.since(12) {
                        put!(out, " ", tablespace, "/", drop.db);
                    } else {
                        put!(out, " ", drop.db, "/", tablespace);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    fn rec(major: u8, info: u8, main: &[u8]) -> Rec<'_> {
        Rec { major, rmid: 4, info, main, ..Rec::default() }
    }

    #[test]
    fn create() {
        let main = le![16384u32, 1663u32, 1u32, 1664u32];
        for major in [10, 11] {
            rec(major, 0x00, &main).check("copy dir 1/1664 to 16384/1663", &[]);
        }
        for major in 12..=19 {
            rec(major, 0x00, &main).check("copy dir 1664/1 to 1663/16384", &[]);
        }
        for major in 15..=19 {
            rec(major, 0x10, &main[..8]).check("create dir 1663/16384", &[]);
        }
    }

    #[test]
    fn drop() {
        let one = le![16384u32, 1663u32];
        for major in [10, 11] {
            rec(major, 0x10, &one).check("dir 16384/1663", &[]);
        }
        rec(12, 0x10, &one).check("dir 1663/16384", &[]);
        let two = le![16384u32, 2i32, 1663u32, 1664u32];
        for major in [13, 14] {
            rec(major, 0x10, &two).check("dir 1663/16384 1664/16384", &[]);
        }
        for major in 15..=19 {
            rec(major, 0x20, &two).check("dir 1663/16384 1664/16384", &[]);
        }
        let negative = le![16384u32, -1i32];
        assert!(rec(15, 0x20, &negative).parse().unwrap_err().to_string().contains("xl_dbase_drop_rec.tablespace_ids"));
    }

    #[test]
    fn no_major_has_both_kinds_of_create_and_the_old_drop() {
        let main = le![16384u32, 1663u32];
        assert_eq!(rec(14, 0x20, &main).parse(), Ok(None));
        assert_eq!(rec(15, 0x30, &main).parse(), Ok(None));
    }
}
