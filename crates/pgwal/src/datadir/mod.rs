//! A data directory read as files, without its server: which cluster it is, and what its catalogs call its relations.
//!
//! [`DataDir::open`] finds out what the cluster is; [`DataDir::names`] reads `pg_database`, `pg_tablespace` and, of each database,
//! `pg_class` and `pg_namespace` page by page, and keeps the rows whose transactions committed. Nothing is written.
//!
//! What is trusted: the major is what `PG_VERSION` says. Block size, blocks in a file, length of names and whether pages have checksums
//! are what `pg_control` says, if its own checksum is right; without it they are what almost every server is built with, and pages are
//! not checked. A page whose checksum or header is wrong is left out, and so is a row whose tuple is.
//!
//! A server may be running on the directory. Then what it has not written yet, at most what came after its last checkpoint, is
//! missing, and [`DataDir::is_live`] says so. Names are expected in UTF-8; bytes that are not are replaced.

mod catalog;
mod control;
mod heap;
mod slru;
#[cfg(test)]
mod tests;
mod xact;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub use control::{ControlError, ControlFile, ControlSettings, DbState};

use crate::format::{CATALOG_VERSIONS, WalFormat};
use crate::input_file;
use crate::names::Names;
use crate::rmgr::relmap::RelMapFile;
use crate::types::{BlockNumber, Oid, RelFileLocator};
use crate::wire::{Problem as WireProblem, Wire, WireError};

/// A data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    fmt: WalFormat,
    control: Option<ControlFile>,
}

/// Tablespace of a new database unless another is asked for. C: `DEFAULTTABLESPACE_OID`, catalog/pg_tablespace.dat.
pub const DEFAULT_TABLESPACE: Oid = Oid(1663);
/// Tablespace of the shared relations. C: `GLOBALTABLESPACE_OID`, catalog/pg_tablespace.dat.
pub const GLOBAL_TABLESPACE: Oid = Oid(1664);

impl DataDir {
    /// Reads `PG_VERSION` and `pg_control`.
    ///
    /// What is wrong with `pg_control` goes to `warn`: without it the usual sizes hold.
    ///
    /// # Errors
    /// It is not a data directory of a supported major.
    pub fn open(path: impl Into<PathBuf>, mut warn: impl FnMut(DataDirError)) -> Result<DataDir, DataDirError> {
        let path = path.into();
        let file = path.join("PG_VERSION");
        let is_missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound && !path.exists();
        let text = read_start(&file, 64).map_err(|e| DataDirError::of(if is_missing(&e) { &path } else { &file }, Problem::Io(e)))?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let major = text.parse().ok().filter(|major| CATALOG_VERSIONS.iter().any(|row| row.0 == *major));
        let Some(major) = major else { return Err(DataDirError::of(&file, Problem::Version { found: text })) };
        let mut fmt = WalFormat::new(major);
        let file = path.join("global/pg_control");
        let control = read_start(&file, ControlFile::MAX_SIZE).map_err(Problem::Io).and_then(|bytes| ControlFile::read(&bytes, major));
        let control = control.map_err(|problem| warn(DataDirError::of(&file, problem))).ok();
        if let Some(control) = &control {
            fmt.block_size = control.block_size;
            (fmt.wal_page_size, fmt.segment_size) = (control.wal_page_size, control.segment_size);
        }
        Ok(DataDir { path, fmt, control })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its major and sizes.
    pub fn format(&self) -> WalFormat {
        self.fmt
    }

    /// Its `pg_control`; `None`: missing or damaged.
    pub fn control(&self) -> Option<&ControlFile> {
        self.control.as_ref()
    }

    /// Whether a server runs on it, or ran until the directory was copied or it crashed. `false` without a `pg_control`.
    pub fn is_live(&self) -> bool {
        self.control.as_ref().is_some_and(|control| !control.state.is_shut_down())
    }

    /// Reads the names of its databases, tablespaces and relations. Temporary relations are left out: WAL has none of them.
    ///
    /// What cannot be read, or contradicts itself, goes to `warn`, and the rest goes on.
    ///
    /// # Errors
    /// Not even the list of databases can be read.
    pub fn names(&self, mut warn: impl FnMut(DataDirError)) -> Result<Names, DataDirError> {
        catalog::names(self, &mut warn)
    }

    /// Path of a relation's first file. C: `GetRelationPath`, common/relpath.c.
    fn relation_path(&self, rel: RelFileLocator) -> PathBuf {
        self.database_path(rel.spc, rel.db).join(rel.rel.0.to_string())
    }

    /// The folder that a database has in a tablespace. C: `GetDatabasePath`, common/relpath.c.
    fn database_path(&self, spc: Oid, db: Oid) -> PathBuf {
        if spc == GLOBAL_TABLESPACE {
            return self.path.join("global");
        }
        if spc == DEFAULT_TABLESPACE {
            return self.path.join("base").join(db.0.to_string());
        }
        let catalog_version = self.control.as_ref().map_or_else(|| self.fmt.catalog_version(), |control| control.catalog_version);
        let version = format!("PG_{}_{catalog_version}", self.fmt.major);
        self.path.join("pg_tblspc").join(spc.0.to_string()).join(version).join(db.0.to_string())
    }

    /// Reads the relation map in `folder`: catalogs and their file numbers.
    fn relation_map(&self, folder: &Path) -> Result<Vec<(Oid, Oid)>, DataDirError> {
        let path = folder.join("pg_filenode.map");
        let bytes = read_start(&path, 1024).map_err(|e| DataDirError::of(&path, Problem::Io(e)))?;
        relation_map(&bytes, self.fmt).map_err(|problem| DataDirError::of(&path, problem))
    }
}

/// What is wrong, and in which file.
#[derive(Debug)]
pub struct DataDirError {
    /// The file.
    pub path: PathBuf,
    /// Block of the file's relation, counted over all its files, if one is to blame.
    pub block: Option<BlockNumber>,
    /// Line pointer on the block, counted from 1, if one is to blame.
    pub offnum: Option<u16>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a file of a data directory.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The operating system says no.
    Io(io::Error),
    /// `PG_VERSION` is not of a supported major.
    Version {
        /// What it says.
        found: String,
    },
    /// A checksum is wrong.
    Checksum {
        /// What has it.
        field: &'static str,
        /// That of the bytes.
        expected: u32,
        /// The one in the file.
        found: u32,
    },
    /// A field has a value that it cannot have.
    Value {
        /// C struct and field.
        field: &'static str,
        /// What it can have.
        expected: &'static str,
        /// What it has.
        found: u64,
    },
    /// The bytes end before the field does.
    Truncated {
        /// C struct and field.
        field: &'static str,
        /// Bytes missing.
        needed: usize,
    },
    /// The file ends inside a block.
    PartialBlock {
        /// Bytes of the block that are there.
        len: usize,
    },
    /// A column that cannot be null is.
    Null {
        /// The column.
        column: &'static str,
    },
    /// The relation map has no entry for a catalog whose file number is kept there.
    NotMapped {
        /// The catalog; of several, the one with the lowest object id.
        oid: Oid,
        /// How many more there are.
        others: u64,
    },
    /// A catalog has no row that it must have.
    NoRow {
        /// The catalog.
        catalog: &'static str,
        /// The row.
        oid: Oid,
    },
    /// pg_namespace has no row for schemas that relations are in; they are called by the schema's object id.
    NoSchema {
        /// The schema; of several, the one with the lowest object id.
        oid: Oid,
        /// How many more there are.
        others: u64,
        /// Relations that are in them.
        relations: u64,
    },
    /// Two rows of a catalog are both valid; the newer one counts.
    TwoRows {
        /// The catalog.
        catalog: &'static str,
        /// The row.
        oid: Oid,
    },
    /// Two relations have the same file number; the second one counts.
    SameFile {
        /// The first.
        first: Oid,
        /// The second.
        second: Oid,
    },
    /// Nothing is known of a transaction; it counts as unfinished.
    NoStatus {
        /// The first such transaction.
        xid: u32,
        /// Why.
        reason: String,
    },
}

impl DataDirError {
    fn of(path: &Path, problem: Problem) -> DataDirError {
        DataDirError { path: path.to_owned(), block: None, offnum: None, problem }
    }
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", crate::printable::printable_path(&self.path))?;
        if let Some(block) = self.block {
            write!(f, ", block {}", block.0)?;
        }
        if let Some(offnum) = self.offnum {
            write!(f, ", line pointer {offnum}")?;
        }
        match &self.problem {
            Problem::Io(e) if e.kind() == io::ErrorKind::NotFound => f.write_str(": does not exist"),
            problem => write!(f, ": {problem}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Io(e) => e.fmt(f),
            Problem::Version { found } => write!(f, "expected a major version from 10 to 19, found \"{}\"", found.escape_debug()),
            Problem::Checksum { field, expected, found } => {
                write!(f, "{field}: the bytes have {expected:X}, the file says {found:X}")
            }
            Problem::Value { field, expected, found } => write!(f, "{field}: expected {expected}, found {found}"),
            Problem::Truncated { field, needed } => {
                write!(f, "{field}: {needed} more byte{} needed", if *needed == 1 { "" } else { "s" })
            }
            Problem::PartialBlock { len } => write!(f, "the file ends after {len} bytes of the block"),
            Problem::Null { column } => write!(f, "{column} is null"),
            Problem::NotMapped { oid, others: 0 } => write!(f, "no file number for catalog {}", oid.0),
            Problem::NotMapped { oid, others } => write!(f, "no file number for catalog {} and {others} more", oid.0),
            Problem::NoRow { catalog, oid } => write!(f, "{catalog} has no row {}", oid.0),
            Problem::NoSchema { oid, others, relations } => {
                write!(f, "pg_namespace has no row {}", oid.0)?;
                if *others > 0 {
                    write!(f, ", and {others} more are missing")?;
                }
                let what = if *relations == 1 { "1 relation is".to_owned() } else { format!("{relations} relations are") };
                write!(f, "; {what} listed with the schema's object id instead of its name")
            }
            Problem::TwoRows { catalog, oid } => write!(f, "{catalog} has two valid versions of row {}; the newer one counts", oid.0),
            Problem::SameFile { first, second } => {
                write!(f, "relations {} and {} have the same file number; the second one counts", first.0, second.0)
            }
            Problem::NoStatus { xid, reason } => write!(f, "transaction {xid} counts as unfinished: {reason}"),
        }
    }
}

impl std::error::Error for DataDirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Problem {
        let field = error.field;
        match error.problem {
            WireProblem::Truncated { needed } => Problem::Truncated { field, needed },
            WireProblem::Invalid { expected, found } => Problem::Value { field, expected, found },
        }
    }
}

/// First number of a healthy relation map. C: `RELMAPPER_FILEMAGIC`, utils/cache/relmapper.c.
const RELMAPPER_FILEMAGIC: u32 = 0x59_27_17;

fn relation_map(bytes: &[u8], fmt: WalFormat) -> Result<Vec<(Oid, Oid)>, Problem> {
    let (left, map) = RelMapFile::read(bytes, fmt)?;
    if map.magic != RELMAPPER_FILEMAGIC {
        return Err(Problem::Value { field: "RelMapFile.magic", expected: "5842711 (0x592717)", found: map.magic.into() });
    }
    // The checksum is that of everything before it; before 16 four bytes of padding follow it.
    let covered = bytes.len().saturating_sub(left.len() + 4 + if map.pad.is_some() { 4 } else { 0 });
    let expected = crc32c::crc32c(bytes.get(..covered).unwrap_or_default());
    if expected != map.crc {
        return Err(Problem::Checksum { field: "RelMapFile.crc", expected, found: map.crc });
    }
    Ok(map.mappings.iter().map(|mapping| (mapping.oid, mapping.filenumber)).collect())
}

/// The first `limit` bytes of a file, or fewer where it is shorter.
fn read_start(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input_file::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts the `len` bytes at `offset`, or what there is of them, into `bytes`.
fn read_at(mut file: &File, offset: u64, len: u32, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    file.seek(SeekFrom::Start(offset))?;
    file.take(len.into()).read_to_end(bytes)?;
    Ok(())
}
