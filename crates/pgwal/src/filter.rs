//! Choosing records: the filters of pg_waldump, with several values each, and more. C: bin/pg_waldump/pg_waldump.c.

use crate::record::{Record, RecordHeader};
use crate::rmgr::{RMGRS, RmgrId};
use crate::types::{BlockNumber, ForkNumber, Oid, RelFileLocator, Xid};

/// Which records to show. Every condition that is set must hold; the default lets every record pass.
///
/// The four conditions on block references must hold for one and the same reference.
///
/// ```
/// use pgwal::filter::{Filter, OneOf, RmgrSet, rmgr_by_name};
/// use pgwal::types::Xid;
/// let heap = rmgr_by_name("heap").ok_or("no such resource manager")?;
/// let filter =
///     Filter { rmgrs: Some(RmgrSet::from_iter([heap])), xids: Some(OneOf::from_iter([Xid(700), Xid(701)])), ..Filter::default() };
/// assert!(!filter.is_empty());
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Resource managers, any of which will do; `None`: all. pg_waldump: `-r`, repeated.
    pub rmgrs: Option<RmgrSet>,
    /// Transaction in the record's header; zero finds records without one. pg_waldump: `-x`, which it takes once.
    pub xids: Option<OneOf<Xid>>,
    /// Relation of a block reference. pg_waldump: `-R`, which it takes once.
    pub relations: Option<OneOf<RelFileLocator>>,
    /// Database of a block reference; zero is the relations that all databases share.
    pub databases: Option<OneOf<Oid>>,
    /// Block of a block reference. pg_waldump: `-B`, which it takes together with `-R` only.
    pub block: Option<BlockNumber>,
    /// Fork of a block reference. pg_waldump: `-F`.
    pub fork: Option<ForkNumber>,
    /// Whether the record must have a page image. pg_waldump: `-w`.
    pub full_page: bool,
}

impl Filter {
    /// Whether every record passes.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether a record with this header can pass. Saves decoding one that cannot.
    #[inline]
    pub fn matches_header(&self, header: &RecordHeader) -> bool {
        self.rmgrs.is_none_or(|rmgrs| rmgrs.contains(header.rmid)) && self.xids.as_ref().is_none_or(|xids| xids.contains(&header.xid))
    }

    /// Whether the record passes.
    #[inline]
    pub fn matches(&self, record: &Record<'_>) -> bool {
        self.matches_header(record.header()) && self.matches_blocks(record)
    }

    #[inline]
    fn matches_blocks(&self, record: &Record<'_>) -> bool {
        let any_block = self.relations.is_none() && self.databases.is_none() && self.block.is_none() && self.fork.is_none();
        let block_matches = || {
            record.blocks.iter().any(|block| {
                self.fork.is_none_or(|fork| fork == block.fork)
                    && self.relations.as_ref().is_none_or(|relations| relations.contains(&block.rel))
                    && self.databases.as_ref().is_none_or(|databases| databases.contains(&block.rel.db))
                    && self.block.is_none_or(|number| number == block.block)
            })
        };
        (any_block || block_matches()) && (!self.full_page || record.blocks.iter().any(|block| block.image.is_some()))
    }
}

/// Values, any of which will do; none of them, where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOf<T>(Box<[T]>);

impl<T: Ord> OneOf<T> {
    /// Whether `value` is one of them.
    #[inline]
    pub fn contains(&self, value: &T) -> bool {
        match &self.0[..] {
            [only] => only == value,
            values => values.binary_search(value).is_ok(),
        }
    }
}

impl<T: Ord> FromIterator<T> for OneOf<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> OneOf<T> {
        let mut values: Vec<T> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        OneOf(values.into())
    }
}

/// A set of resource managers, built-in and custom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RmgrSet([u64; 4]);

impl RmgrSet {
    /// Adds a resource manager.
    pub fn insert(&mut self, id: RmgrId) {
        self.0[usize::from(id.0 >> 6)] |= 1 << (id.0 & 63); // 255 >> 6 == 3
    }

    /// Whether the resource manager is in the set.
    #[inline]
    pub fn contains(&self, id: RmgrId) -> bool {
        self.0[usize::from(id.0 >> 6)] & 1 << (id.0 & 63) != 0 // 255 >> 6 == 3
    }
}

impl FromIterator<RmgrId> for RmgrSet {
    fn from_iter<I: IntoIterator<Item = RmgrId>>(ids: I) -> RmgrSet {
        let mut set = RmgrSet::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

/// The resource manager with this name, in any case: a built-in one, or `custom128` to `custom255`.
pub fn rmgr_by_name(name: &str) -> Option<RmgrId> {
    if let Some(builtin) = RMGRS.iter().find(|rmgr| rmgr.name.eq_ignore_ascii_case(name)) {
        return Some(builtin.id);
    }
    let (prefix, digits) = name.split_at_checked("custom".len())?;
    let three_digits = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
    let id = digits.parse().ok().map(RmgrId)?;
    (prefix.eq_ignore_ascii_case("custom") && three_digits && id.is_custom()).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::format::WalFormat;
    use crate::lsn::{Lsn, TimelineId};
    use crate::record::{Info, RawRecord};
    use crate::types::Oid;
    use crate::wire::Wire;

    const TABLE: RelFileLocator = RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(16384) };
    const INDEX: RelFileLocator = RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(16390) };
    const OTHER: RelFileLocator = RelFileLocator { spc: Oid(1663), db: Oid(6), rel: Oid(16384) };
    const FULL_PAGE: &[u8] = &[0; 8192];

    /// A record with the given block references; the last part says whether it has an image.
    fn raw(rmid: u8, xid: u32, blocks: &[(RelFileLocator, u8, u32, bool)]) -> RawRecord<'static> {
        let fmt = WalFormat::new(15);
        let mut parts = vec![0; 24];
        for (id, &(rel, fork, block, image)) in blocks.iter().enumerate() {
            parts.extend_from_slice(&[id as u8, fork | if image { 0x10 } else { 0 }, 0, 0]);
            if image {
                parts.extend_from_slice(&[0x00, 0x20, 0, 0, 0x02]);
            }
            rel.write(fmt, &mut parts);
            BlockNumber(block).write(fmt, &mut parts);
        }
        blocks.iter().filter(|block| block.3).for_each(|_| parts.extend_from_slice(FULL_PAGE));
        let header = RecordHeader {
            tot_len: parts.len() as u32,
            xid: Xid(xid),
            prev: Lsn(0),
            info: Info(0),
            rmid: RmgrId(rmid),
            padding: 0,
            crc: 0,
        };
        let (lsn, timeline) = (Lsn(0x28), TimelineId(1));
        RawRecord { lsn, end: lsn, timeline, overwritten: None, header, bytes: Cow::Owned(parts), fmt }
    }

    fn one<T: Ord>(value: T) -> Option<OneOf<T>> {
        Some(OneOf::from_iter([value]))
    }

    fn passes(filter: &Filter, raw: &RawRecord<'_>) -> bool {
        filter.matches(&raw.decode().unwrap())
    }

    #[test]
    fn every_condition_must_hold() {
        let raw = raw(10, 700, &[(TABLE, 0, 7, false), (TABLE, 2, 0, false), (INDEX, 0, 3, true)]);
        let none = Filter::default;
        let heap = || Filter { rmgrs: Some(RmgrSet::from_iter([RmgrId(10)])), ..none() };
        let block = |relation, block| Filter { relations: one(relation), block: Some(BlockNumber(block)), ..none() };
        let several = |relations: &[RelFileLocator]| Filter { relations: Some(relations.iter().copied().collect()), ..none() };
        let on_fork = |filter, fork| Filter { fork: Some(ForkNumber(fork)), ..filter };
        for (filter, expected) in [
            (none(), true),
            (heap(), true),
            (Filter { rmgrs: Some(RmgrSet::from_iter([RmgrId(9), RmgrId(200)])), ..none() }, false),
            (Filter { rmgrs: Some(RmgrSet::default()), ..none() }, false),
            (Filter { xids: one(Xid(700)), ..heap() }, true),
            (Filter { xids: one(Xid(0)), ..heap() }, false),
            (Filter { xids: Some([800, 700, 0].map(Xid).into_iter().collect()), ..heap() }, true),
            (Filter { xids: Some([800, 701, 0].map(Xid).into_iter().collect()), ..heap() }, false),
            (Filter { xids: Some(OneOf::default()), ..none() }, false),
            (several(&[OTHER, INDEX]), true),
            (several(&[OTHER, RelFileLocator { rel: Oid(1), ..TABLE }]), false),
            (Filter { databases: one(Oid(5)), ..none() }, true),
            (Filter { databases: one(Oid(6)), ..none() }, false),
            (Filter { databases: Some([6, 5].map(Oid).into_iter().collect()), ..several(&[TABLE]) }, true),
            (Filter { databases: one(Oid(6)), ..several(&[TABLE, OTHER]) }, false), // the other's database, but not the other
            (Filter { block: Some(BlockNumber(3)), ..several(&[TABLE, OTHER]) }, false), // block 3 is the index's
            (block(TABLE, 7), true),
            (block(TABLE, 3), false), // block 3 is the index's
            (on_fork(none(), 2), true),
            (on_fork(none(), 1), false),
            (on_fork(block(TABLE, 0), 2), true),
            (on_fork(block(TABLE, 7), 2), false),                  // block 7 is in the main fork
            (Filter { full_page: true, ..block(TABLE, 7) }, true), // any block's image will do
        ] {
            assert_eq!(passes(&filter, &raw), expected, "{filter:?}");
        }
    }

    #[test]
    fn without_blocks_no_condition_on_blocks_holds() {
        let raw = raw(200, 0, &[]);
        assert!(passes(&Filter { xids: one(Xid(0)), rmgrs: Some(RmgrSet::from_iter([RmgrId(200)])), ..Filter::default() }, &raw));
        assert!(!passes(&Filter { fork: Some(ForkNumber::MAIN), ..Filter::default() }, &raw));
        assert!(!passes(&Filter { databases: one(Oid(0)), ..Filter::default() }, &raw));
        assert!(!passes(&Filter { full_page: true, ..Filter::default() }, &raw));
    }

    #[test]
    fn names_of_resource_managers() {
        assert_eq!(rmgr_by_name("hEAP2"), Some(RmgrId(9)));
        assert_eq!(rmgr_by_name("Custom128"), Some(RmgrId(128)));
        assert_eq!(rmgr_by_name("custom255"), Some(RmgrId(255)));
        for bad in ["", "heap3", "custom", "custom127", "custom256", "custom0128", "custom+99", "custom12é"] {
            assert_eq!(rmgr_by_name(bad), None, "{bad:?}");
        }
        let set = RmgrSet::from_iter([0, 63, 64, 255].map(RmgrId));
        assert_eq!((0..=255).filter(|&id| set.contains(RmgrId(id))).collect::<Vec<u8>>(), [0, 63, 64, 255]);
    }
}
