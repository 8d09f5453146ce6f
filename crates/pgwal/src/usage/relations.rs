//! By relation and by database.

use std::collections::BTreeMap;

use super::{CAP, Map, Others, smaller_half};
use crate::record::Record;
use crate::stats::Counts;
use crate::types::{Oid, RelFileLocator};

/// Relations that are found without the map, at the place that their file number gives.
const CACHE: usize = 64;
/// An empty place.
const NONE: u32 = u32::MAX;

/// Relations of a part.
#[derive(Debug)]
pub(super) struct Part {
    cache: [(RelFileLocator, u32); CACHE],
    /// Places in `rows`.
    places: Map<RelFileLocator, u32>,
    rows: Vec<(RelFileLocator, Counts)>,
    /// Records without a block reference.
    none: Counts,
}

impl Default for Part {
    fn default() -> Part {
        Part { cache: [(RelFileLocator::default(), NONE); CACHE], places: Map::default(), rows: Vec::new(), none: Counts::default() }
    }
}

impl Part {
    /// Counts the record to the relation of its first block reference, and images to the relations that they are of.
    #[inline]
    pub(super) fn add(&mut self, record: &Record<'_>, counts: Counts) {
        let Some(first) = record.blocks.first() else {
            return self.without_blocks(counts);
        };
        self.add_to(first.rel, Counts { fpi_count: 0, fpi_size: 0, ..counts });
        if counts.fpi_count > 0 {
            for block in &record.blocks {
                if let Some(image) = &block.image {
                    self.add_to(block.rel, Counts { fpi_count: 1, fpi_size: image.len.into(), ..Counts::default() });
                }
            }
        }
    }

    /// Counts a record without a block reference.
    #[inline]
    pub(super) fn without_blocks(&mut self, counts: Counts) {
        self.none += counts;
    }

    #[inline(always)]
    pub(super) fn add_to(&mut self, rel: RelFileLocator, counts: Counts) {
        let (known, at) = self.cache[rel.rel.0 as usize % CACHE]; // a remainder of its length
        let at = if known == rel && at != NONE { at } else { self.find(rel) };
        if let Some((_, row)) = self.rows.get_mut(at as usize) {
            *row += counts;
        }
    }

    #[inline(never)]
    fn find(&mut self, rel: RelFileLocator) -> u32 {
        let at = *self.places.entry(rel).or_insert_with(|| {
            self.rows.push((rel, Counts::default()));
            (self.rows.len() - 1) as u32 // a part has far fewer records than 2^32
        });
        self.cache[rel.rel.0 as usize % CACHE] = (rel, at); // a remainder of its length
        at
    }

    pub(super) fn clear(&mut self) {
        self.cache.fill((RelFileLocator::default(), NONE));
        self.places.clear();
        self.rows.clear();
        self.none = Counts::default();
    }
}

/// Relations of all parts.
#[derive(Debug, Default)]
pub(super) struct Relations {
    rows: Map<RelFileLocator, Counts>,
    /// Records without a block reference.
    pub(super) none: Counts,
    /// Relations that there was no room for.
    pub(super) others: Others,
    /// Their databases.
    others_by_database: BTreeMap<Oid, Counts>,
}

impl Relations {
    pub(super) fn merge(&mut self, part: &Part) {
        for &(rel, counts) in &part.rows {
            *self.rows.entry(rel).or_default() += counts;
        }
        self.none += part.none;
        if self.rows.len() > CAP {
            self.make_room();
        }
    }

    #[cold]
    fn make_room(&mut self) {
        let limit = smaller_half(self.rows.values().map(Counts::combined_size).collect());
        let (others, by_database) = (&mut self.others, &mut self.others_by_database);
        self.rows.retain(|rel, counts| {
            let stays = counts.combined_size() > limit;
            if !stays {
                others.add(*counts);
                *by_database.entry(rel.db).or_default() += *counts;
            }
            stays
        });
        // There are far fewer databases than relations; where there are not, their ids are made up.
        while self.others_by_database.len() > CAP {
            self.others_by_database.pop_last();
        }
    }

    /// All of them, in no order.
    pub(super) fn rows(&self) -> impl Iterator<Item = (RelFileLocator, Counts)> + '_ {
        self.rows.iter().map(|(&rel, &counts)| (rel, counts))
    }

    /// By database.
    pub(super) fn databases(&self) -> BTreeMap<Oid, Counts> {
        let mut databases = self.others_by_database.clone();
        for (rel, counts) in self.rows() {
            *databases.entry(rel.db).or_default() += counts;
        }
        databases
    }
}
