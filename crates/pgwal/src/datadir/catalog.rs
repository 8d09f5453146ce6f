//! The catalogs that have the names. C: catalog/pg_class.h, pg_namespace.h, pg_database.h, pg_tablespace.h.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

use super::heap::{Blocks, Tuple, TupleHeader};
use super::xact::Transactions;
use super::{DataDir, DataDirError, GLOBAL_TABLESPACE, Problem};
use crate::format::{Majors, WalFormat};
use crate::names::{Names, RelKind, Relation};
use crate::types::{Oid, RelFileLocator};
use crate::wire::Wire;

/// Reads all names of a cluster.
pub(super) fn names(dir: &DataDir, warn: &mut dyn FnMut(DataDirError)) -> Result<Names, DataDirError> {
    let mut names = Names::default();
    names.system_identifier = dir.control().map(|control| control.system_identifier);
    names.major = Some(dir.format().major);
    let global = Map::read(dir, dir.database_path(GLOBAL_TABLESPACE, Oid(0)))?;
    let mut reader = Reader { dir, xacts: Transactions::new(dir), warn };

    let shared = |rel| RelFileLocator { spc: GLOBAL_TABLESPACE, db: Oid(0), rel };
    let databases =
        reader.rows(&PG_DATABASE, shared(global.get(PG_DATABASE.oid)?), |row| Ok((row.name("datname")?, row.oid("dattablespace")?)))?;
    match global.get(PG_TABLESPACE.oid).and_then(|rel| reader.rows(&PG_TABLESPACE, shared(rel), |row| row.name("spcname"))) {
        Ok(tablespaces) => tablespaces.into_iter().for_each(|(oid, name)| drop(names.insert_tablespace(oid, name))),
        Err(error) => (reader.warn)(error),
    }
    for (oid, (name, tablespace)) in databases {
        names.insert_database(oid, name);
        if let Err(error) = reader.database(oid, tablespace, &global, &mut names) {
            (reader.warn)(error);
        }
    }
    Ok(names)
}

/// A relation map and where it is.
struct Map {
    folder: PathBuf,
    numbers: BTreeMap<Oid, Oid>,
}

impl Map {
    fn read(dir: &DataDir, folder: PathBuf) -> Result<Map, DataDirError> {
        let numbers = dir.relation_map(&folder)?.into_iter().collect();
        Ok(Map { folder, numbers })
    }

    fn get(&self, catalog: Oid) -> Result<Oid, DataDirError> {
        let missing = || DataDirError::of(&self.folder.join("pg_filenode.map"), Problem::NotMapped { oid: catalog, others: 0 });
        self.numbers.get(&catalog).copied().ok_or_else(missing)
    }
}

/// A row of pg_class.
struct Class {
    name: String,
    namespace: Oid,
    filenode: Oid,
    tablespace: Oid,
    shared: bool,
    temporary: bool,
    kind: Option<RelKind>,
}

impl Class {
    fn read(row: &Row<'_>) -> Result<Class, Problem> {
        Ok(Class {
            name: row.name("relname")?,
            namespace: row.oid("relnamespace")?,
            filenode: row.oid("relfilenode")?,
            tablespace: row.oid("reltablespace")?,
            shared: row.byte("relisshared")? != 0,
            temporary: row.byte("relpersistence")? == b't',
            kind: RelKind::from_relkind(row.byte("relkind")?),
        })
    }
}

struct Reader<'d> {
    dir: &'d DataDir,
    xacts: Transactions,
    warn: &'d mut dyn FnMut(DataDirError),
}

impl Reader<'_> {
    /// Adds the relations of one database.
    fn database(&mut self, db: Oid, tablespace: Oid, global: &Map, names: &mut Names) -> Result<(), DataDirError> {
        let local = Map::read(self.dir, self.dir.database_path(tablespace, db))?;
        let pg_class = RelFileLocator { spc: tablespace, db, rel: local.get(PG_CLASS.oid)? };
        let classes = self.rows(&PG_CLASS, pg_class, Class::read)?;
        let place = |oid: Oid, class: &Class| {
            let spc = if class.tablespace.0 == 0 { tablespace } else { class.tablespace };
            let map = if class.shared { global } else { &local };
            let rel = if class.filenode.0 == 0 { map.get(oid)? } else { class.filenode };
            Ok(if class.shared { RelFileLocator { spc: GLOBAL_TABLESPACE, db: Oid(0), rel } } else { RelFileLocator { spc, db, rel } })
        };
        let pg_class = self.dir.relation_path(pg_class);
        let no_row = || DataDirError::of(&pg_class, Problem::NoRow { catalog: PG_CLASS.name, oid: PG_NAMESPACE.oid });
        let pg_namespace = place(PG_NAMESPACE.oid, classes.get(&PG_NAMESPACE.oid).ok_or_else(no_row)?)?;
        let schemas = self.rows(&PG_NAMESPACE, pg_namespace, |row| row.name("nspname"))?;
        // What is missing is told once, whatever the number of relations that need it.
        let mut unmapped: Option<(DataDirError, u64)> = None;
        let mut unnamed: BTreeMap<Oid, u64> = BTreeMap::new();
        for (oid, class) in classes {
            let Some(kind) = class.kind.filter(|_| !class.temporary) else { continue };
            let rel = match place(oid, &class) {
                Ok(rel) => rel,
                Err(error) => {
                    unmapped.get_or_insert((error, 0)).1 += 1;
                    continue;
                }
            };
            let schema = schemas.get(&class.namespace).cloned().unwrap_or_else(|| {
                *unnamed.entry(class.namespace).or_default() += 1;
                class.namespace.0.to_string()
            });
            let before = names.insert_relation(rel, Relation { schema, name: class.name, kind: Some(kind), oid: Some(oid) });
            // Every database has the shared relations.
            let other = before.and_then(|before| before.oid).filter(|&before| before != oid);
            if let Some(first) = other {
                (self.warn)(DataDirError::of(&pg_class, Problem::SameFile { first, second: oid }));
            }
        }
        if let Some((DataDirError { path, problem: Problem::NotMapped { oid, .. }, .. }, catalogs)) = unmapped {
            (self.warn)(DataDirError::of(&path, Problem::NotMapped { oid, others: catalogs - 1 }));
        }
        if let Some(&oid) = unnamed.keys().next() {
            let problem = Problem::NoSchema { oid, others: unnamed.len() as u64 - 1, relations: unnamed.values().sum() };
            (self.warn)(DataDirError::of(&self.dir.relation_path(pg_namespace), problem));
        }
        Ok(())
    }

    /// The valid rows of a catalog by object id.
    fn rows<T>(
        &mut self,
        catalog: &'static Catalog,
        rel: RelFileLocator,
        read: impl Fn(&Row<'_>) -> Result<T, Problem>,
    ) -> Result<BTreeMap<Oid, T>, DataDirError> {
        let Reader { dir, xacts, warn } = self;
        let layout = Layout::of(catalog, dir);
        let mut blocks = Blocks::open(dir, rel)?;
        let mut rows: BTreeMap<Oid, (TupleHeader, T)> = BTreeMap::new();
        let mut twice = Vec::new();
        let mut unknown = Vec::new();
        let mut visit = |tuple: Tuple<'_>| {
            if !xacts.sees(&tuple.header, &mut |error| unknown.push(error)) {
                return Ok(());
            }
            let row = Row { tuple, layout: &layout };
            row.check()?;
            let (oid, value) = (row.id()?, read(&row)?);
            match rows.entry(oid) {
                Entry::Vacant(entry) => drop(entry.insert((tuple.header, value))),
                Entry::Occupied(mut entry) => {
                    twice.push(oid);
                    // The version that the other one's transaction made, or else the younger transaction's.
                    let (first, second) = (entry.get().0, tuple.header);
                    let follows = first.xmax == second.xmin;
                    let precedes = second.xmax == first.xmin;
                    if follows || !precedes && second.xmin.0.wrapping_sub(first.xmin.0) as i32 >= 0 {
                        entry.insert((tuple.header, value));
                    }
                }
            }
            Ok(())
        };
        while blocks.next(warn, &mut visit) {}
        let path = dir.relation_path(rel);
        unknown.into_iter().for_each(&mut **warn);
        for oid in twice {
            warn(DataDirError::of(&path, Problem::TwoRows { catalog: catalog.name, oid }));
        }
        Ok(rows.into_iter().map(|(oid, (_, value))| (oid, value)).collect())
    }
}

/// A catalog, with its columns up to the last one that is read. None of them is ever null.
struct Catalog {
    name: &'static str,
    oid: Oid,
    columns: &'static [Column],
}

struct Column {
    name: &'static str,
    ty: Type,
    majors: Majors,
}

/// Types of fixed length.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Name,
    /// Four bytes: `oid`, `xid`, `int4`, `float4`.
    Four,
    /// One byte: `bool`, `"char"`.
    One,
}
use Type::{Four, Name, One};

const fn col(name: &'static str, ty: Type, majors: Majors) -> Column {
    Column { name, ty, majors }
}

const ALL: Majors = Majors::ALL;
/// The object id became a column like others.
const OID: Column = col("oid", Four, Majors::since(12));

const PG_CLASS: Catalog = Catalog {
    name: "pg_class",
    oid: Oid(1259),
    columns: &[
        OID,
        col("relname", Name, ALL),
        col("relnamespace", Four, ALL),
        col("reltype", Four, ALL),
        col("reloftype", Four, ALL),
        col("relowner", Four, ALL),
        col("relam", Four, ALL),
        col("relfilenode", Four, ALL),
        col("reltablespace", Four, ALL),
        col("relpages", Four, ALL),
        col("reltuples", Four, ALL),
        col("relallvisible", Four, ALL),
        col("relallfrozen", Four, Majors::since(18)),
        col("reltoastrelid", Four, ALL),
        col("relhasindex", One, ALL),
        col("relisshared", One, ALL),
        col("relpersistence", One, ALL),
        col("relkind", One, ALL),
    ],
};

const PG_NAMESPACE: Catalog = Catalog { name: "pg_namespace", oid: Oid(2615), columns: &[OID, col("nspname", Name, ALL)] };

const PG_TABLESPACE: Catalog = Catalog { name: "pg_tablespace", oid: Oid(1213), columns: &[OID, col("spcname", Name, ALL)] };

const PG_DATABASE: Catalog = Catalog {
    name: "pg_database",
    oid: Oid(1262),
    columns: &[
        OID,
        col("datname", Name, ALL),
        col("datdba", Four, ALL),
        col("encoding", Four, ALL),
        col("datlocprovider", One, Majors::since(15)),
        // From 15 on text, at the end.
        col("datcollate", Name, Majors::until(14)),
        col("datctype", Name, Majors::until(14)),
        col("datistemplate", One, ALL),
        col("datallowconn", One, ALL),
        col("dathasloginevt", One, Majors::since(17)),
        col("datconnlimit", Four, ALL),
        col("datlastsysoid", Four, Majors::until(14)),
        col("datfrozenxid", Four, ALL),
        col("datminmxid", Four, ALL),
        col("dattablespace", Four, ALL),
    ],
};

/// Where a catalog of one major has its columns.
struct Layout {
    fmt: WalFormat,
    name_len: usize,
    columns: Vec<(&'static str, usize)>,
}

impl Layout {
    fn of(catalog: &Catalog, dir: &DataDir) -> Layout {
        let fmt = dir.format();
        let name_len = dir.control().map_or(64, |control| control.name_data_len as usize);
        let mut end = 0;
        let columns = catalog.columns.iter().filter(|column| column.majors.contains(fmt.major)).map(|column| {
            let (len, alignment) = match column.ty {
                Name => (name_len, 1),
                Four => (4, 4),
                One => (1, 1),
            };
            let start = usize::next_multiple_of(end, alignment);
            end = start + len; // a few columns of at most 1024 bytes
            (column.name, start)
        });
        Layout { fmt, name_len, columns: columns.collect() }
    }
}

/// A row of a catalog.
struct Row<'p> {
    tuple: Tuple<'p>,
    layout: &'p Layout,
}

impl<'p> Row<'p> {
    /// Whether all columns are there.
    fn check(&self) -> Result<(), Problem> {
        match self.layout.columns.iter().enumerate().find(|(index, _)| !self.tuple.has(*index, self.layout.fmt)) {
            Some((_, &(column, _))) => Err(Problem::Null { column }),
            None => Ok(()),
        }
    }

    fn at(&self, column: &'static str) -> &'p [u8] {
        let start = self.layout.columns.iter().find(|known| known.0 == column).map(|known| known.1);
        start.and_then(|start| self.tuple.attributes().get(start..)).unwrap_or_default()
    }

    /// The row's object id.
    fn id(&self) -> Result<Oid, Problem> {
        if self.layout.fmt.since(12) {
            return self.oid("oid");
        }
        self.tuple.oid(self.layout.fmt).ok_or(Problem::Null { column: "oid" })
    }

    fn oid(&self, column: &'static str) -> Result<Oid, Problem> {
        let (_, oid) = Oid::read(self.at(column), self.layout.fmt).map_err(|e| e.in_field(column))?;
        Ok(oid)
    }

    fn byte(&self, column: &'static str) -> Result<u8, Problem> {
        let (_, byte) = u8::read(self.at(column), self.layout.fmt).map_err(|e| e.in_field(column))?;
        Ok(byte)
    }

    fn name(&self, column: &'static str) -> Result<String, Problem> {
        let (_, bytes) = crate::wire::bytes(self.at(column), self.layout.name_len, column)?;
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}
