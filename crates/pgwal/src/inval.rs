//! Cache invalidation messages, as commits, standby records and in-place updates carry them.
//!
//! C: storage/sinval.h; text: `standby_desc_invalidations`, rmgrdesc/standbydesc.c.

use serde::{Serialize, Serializer};

use crate::format::WalFormat;
use crate::text::Text;
use crate::types::{Oid, RelFileLocator};
use crate::wire::{Array, FixedSize, Pad, Parsed, Wire};

/// One message as it lies in the WAL, padding included; [`InvalMessage::decode`] says what it means. JSON: its meaning.
///
/// C: `SharedInvalidationMessage`, 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalMessage(pub [u8; 16]);

/// What an invalidation message says is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Inval {
    /// One tuple in one catalog cache. C: `SharedInvalCatcacheMsg`.
    Catcache {
        /// The cache's id, which differs between majors.
        cache: i8,
        /// Database; zero for a shared relation.
        db: Oid,
        /// Hash value of the key.
        hash: u32,
    },
    /// Everything cached of one catalog. C: `SharedInvalCatalogMsg`.
    Catalog {
        /// Database; zero for a shared catalog.
        db: Oid,
        /// The catalog: `pg_class.oid`.
        catalog: Oid,
    },
    /// The relation cache's entry. C: `SharedInvalRelcacheMsg`.
    Relcache {
        /// Database; zero for a shared relation.
        db: Oid,
        /// The relation: `pg_class.oid`; zero for all of them.
        rel: Oid,
    },
    /// What is known of a relation's files. C: `SharedInvalSmgrMsg`.
    Smgr {
        /// Session that owns a temporary relation; -1 for other relations.
        backend: i32,
        /// The relation.
        rel: RelFileLocator,
    },
    /// The map of a database's mapped relations. C: `SharedInvalRelmapMsg`.
    Relmap {
        /// Database; zero for shared catalogs.
        db: Oid,
    },
    /// Snapshots kept for a catalog. C: `SharedInvalSnapshotMsg`.
    Snapshot {
        /// Database; zero for a shared relation.
        db: Oid,
        /// The relation: `pg_class.oid`.
        rel: Oid,
    },
    /// What logical replication keeps of a relation; from 18 on. C: `SharedInvalRelSyncMsg`.
    Relsync {
        /// Database.
        db: Oid,
        /// The relation: `pg_class.oid`; zero for all of them.
        rel: Oid,
    },
    /// A kind that this major does not define.
    Unknown {
        /// Number of the kind, below zero.
        id: i8,
    },
}

impl InvalMessage {
    /// What the message says. `SHAREDINVALRELSYNC_ID` came with 18; before, it means nothing.
    pub fn decode(self) -> Inval {
        let [id, hi, lo0, lo1, a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = self.0;
        let (id, db) = (id as i8, Oid(u32::from_le_bytes([a0, a1, a2, a3])));
        let object = u32::from_le_bytes([b0, b1, b2, b3]);
        match id {
            0.. => Inval::Catcache { cache: id, db, hash: object },
            -1 => Inval::Catalog { db, catalog: Oid(object) },
            -2 => Inval::Relcache { db, rel: Oid(object) },
            -3 => Inval::Smgr {
                backend: i32::from(hi as i8) << 16 | i32::from(u16::from_le_bytes([lo0, lo1])),
                rel: RelFileLocator { spc: db, db: Oid(object), rel: Oid(u32::from_le_bytes([c0, c1, c2, c3])) },
            },
            -4 => Inval::Relmap { db },
            -5 => Inval::Snapshot { db, rel: Oid(object) },
            -6 => Inval::Relsync { db, rel: Oid(object) },
            _ => Inval::Unknown { id },
        }
    }
}

impl Wire<'_> for InvalMessage {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        let (input, Pad(raw)) = Pad::read(input, fmt).map_err(|e| e.in_field("SharedInvalidationMessage"))?;
        Ok((input, InvalMessage(raw)))
    }
    fn write(&self, _: WalFormat, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}
impl FixedSize for InvalMessage {
    fn size(_: WalFormat) -> usize {
        16
    }
}
impl Serialize for InvalMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.decode().serialize(serializer)
    }
}

/// Appends what descriptions say of `msgs`; `init_file`: the relation cache's start-up files of database `db` in tablespace `ts`
/// are out of date too.
///
/// Nothing at all where there are no messages: that check is the caller's before 13.
pub fn put_invalidations(out: &mut Text, fmt: WalFormat, msgs: &Array<'_, InvalMessage>, db: Oid, ts: Oid, init_file: bool) {
    if msgs.is_empty() && fmt.since(13) {
        return;
    }
    if init_file {
        put!(out, "; relcache init file inval dbid ", db, " tsid ", ts);
    }
    put!(out, "; inval msgs:");
    for msg in msgs.iter() {
        match msg.decode() {
            Inval::Catcache { cache, .. } => put!(out, " catcache ", cache),
            Inval::Catalog { catalog, .. } => put!(out, " catalog ", catalog),
            Inval::Relcache { rel, .. } => put!(out, " relcache ", rel),
            Inval::Smgr { .. } => put!(out, " smgr"),
            Inval::Relmap { db } => put!(out, " relmap db ", db),
            Inval::Snapshot { rel, .. } => put!(out, " snapshot ", rel),
            Inval::Relsync { rel, .. } if fmt.since(18) => put!(out, " relsync ", rel),
            Inval::Relsync { .. } => put!(out, " unrecognized id -6"),
            Inval::Unknown { id } => put!(out, " unrecognized id ", id),
        }
    }
}
