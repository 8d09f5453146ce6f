//! The clusters that the segments of a side are of, by their system identifiers.

use serde::Serialize;

use super::stream::Chunk;
use crate::lsn::Lsn;

/// Places where a side changes from one cluster to another that are remembered; also its clusters.
const MAX_RUNS: usize = 1000;

/// A cluster that segments of a side are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// Its identifier, as in `pg_control`. JSON: a string.
    #[serde(serialize_with = "crate::json::as_string")]
    pub system_identifier: u64,
    /// Where the first of its segments begins, among those that were compared.
    pub first: Lsn,
    /// Number of its segments among those that were compared.
    pub segments: u64,
}

/// Which segments of a side are of which cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Clusters {
    all: Vec<Cluster>,
    /// Start of a segment and its cluster, wherever that is another one than before.
    runs: Vec<(Lsn, u64)>,
    /// The last segment that was seen.
    last: Option<Lsn>,
}

impl Clusters {
    /// Takes note of the segment that `chunk` is of. Chunks come in order, and some of them twice.
    pub(super) fn add(&mut self, chunk: &Chunk) {
        let start = Lsn(chunk.start().0 - chunk.start().segment_offset(chunk.fmt().segment_size));
        let Some(system_identifier) = chunk.cluster().filter(|_| self.last.is_none_or(|last| last < start)) else { return };
        self.last = Some(start);
        if let Some(cluster) = self.all.iter_mut().find(|cluster| cluster.system_identifier == system_identifier) {
            cluster.segments += 1;
        } else if self.all.len() < MAX_RUNS {
            self.all.push(Cluster { system_identifier, first: start, segments: 1 });
        }
        if self.runs.last().is_none_or(|run| run.1 != system_identifier) && self.runs.len() < MAX_RUNS {
            self.runs.push((start, system_identifier));
        }
    }

    /// The cluster of the segment that has `lsn`.
    pub(super) fn at(&self, lsn: Lsn) -> Option<Cluster> {
        let (_, found) = self.runs.iter().rev().find(|(start, _)| *start <= lsn)?;
        self.all.iter().find(|cluster| cluster.system_identifier == *found).copied()
    }

    /// All of them, in the order in which they came.
    pub(super) fn all(&self) -> &[Cluster] {
        &self.all
    }
}

impl Cluster {
    /// Whether this and `other` are two clusters; one flipped bit makes no other cluster.
    pub(super) fn is_foreign_to(&self, other: &Cluster) -> bool {
        (self.system_identifier ^ other.system_identifier).count_ones() > 1
    }
}
