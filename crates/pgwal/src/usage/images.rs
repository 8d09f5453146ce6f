//! Full-page images: why they are there, how they are compressed, and what compression would save.

use std::collections::BinaryHeap;

use rayon::prelude::*;
use serde::Serialize;

use crate::record::{Compression, Record};
use crate::rmgr::RmgrId;

/// Images that are compressed to see what compression would save.
const SAMPLE: usize = 1000;

/// Why a record has a page image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// With a change to the page: usually its first one after a checkpoint.
    Change,
    /// A hint bit was about to be set, with checksums or `wal_log_hints`. Record type `XLOG/FPI_FOR_HINT`.
    Hint,
    /// The page was written as a whole, by an index build or a copy of a relation. Record types `XLOG/FPI` and `FPI_MULTI`.
    WholePage,
    /// For `wal_consistency_checking` only; replay does not restore the page from it.
    Check,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 4] = [Reason::Change, Reason::Hint, Reason::WholePage, Reason::Check];

    /// Its name, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Change => "change",
            Reason::Hint => "hint",
            Reason::WholePage => "whole_page",
            Reason::Check => "check",
        }
    }
}

/// Images with the same reason and compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Why they are there.
    pub reason: Reason,
    /// How they are compressed; `None`: not.
    pub compression: Option<Compression>,
    /// Images.
    pub count: u64,
    /// Their bytes on disk.
    pub size: u64,
    /// Bytes of the same pages without their holes, before compression.
    pub raw_size: u64,
    /// Bytes of the whole pages.
    pub page_size: u64,
}

/// What compression would make of the images that are not compressed: an estimate from a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Setting of `wal_compression`. `pglz` is not measured.
    pub method: Compression,
    /// Images in the sample, drawn from those that are not compressed.
    pub sampled: u64,
    /// Their bytes on disk.
    pub sampled_size: u64,
    /// Their bytes compressed. As in the server, an image that does not become smaller stays as it is.
    pub compressed_size: u64,
    /// Bytes of all images that are not compressed.
    pub uncompressed_size: u64,
}

impl Estimate {
    /// Bytes that would be saved, if the other images are like those in the sample.
    pub fn saved(&self) -> u64 {
        match self.sampled_size {
            0 => 0,
            size => {
                let saved = size.saturating_sub(self.compressed_size);
                (u128::from(self.uncompressed_size) * u128::from(saved) / u128::from(size)) as u64 // at most uncompressed_size
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    count: u64,
    size: u64,
    raw_size: u64,
    page_size: u64,
}

/// The methods, with none in front: the order of [`Sizes`] in a table.
const METHODS: [Option<Compression>; 4] = [None, Some(Compression::Pglz), Some(Compression::Lz4), Some(Compression::Zstd)];

/// Images of a part, or of all.
#[derive(Debug, Default)]
pub(super) struct Images {
    sizes: [[Sizes; METHODS.len()]; Reason::ALL.len()],
    /// Those with the smallest numbers, the largest of them first. The number comes from the image's place in the WAL, so
    /// this is a random sample, and always the same one.
    pub(super) sample: BinaryHeap<(u64, Vec<u8>)>,
}

impl Images {
    /// Counts the images of a record. `limit`: numbers above it are in no sample.
    pub(super) fn add(&mut self, record: &Record<'_>, limit: u64) {
        let fmt = record.fmt();
        for block in &record.blocks {
            let Some(image) = &block.image else { continue };
            let reason = match (record.rmid(), record.info().opcode()) {
                _ if !image.apply() => Reason::Check,
                (RmgrId::XLOG, 0xA0) => Reason::Hint,
                (RmgrId::XLOG, 0xB0) => Reason::WholePage,
                (RmgrId::XLOG, 0xC0) if !fmt.since(12) => Reason::WholePage,
                _ => Reason::Change,
            };
            let compression = image.info.compression();
            let method = METHODS.iter().position(|method| *method == compression).unwrap_or_default();
            if let Some(sizes) = self.sizes.get_mut(reason as usize).and_then(|row| row.get_mut(method)) {
                sizes.count += 1;
                sizes.size += u64::from(image.len);
                sizes.raw_size += u64::from(image.len) + u64::from(if compression.is_some() { image.saved(fmt) } else { 0 });
                sizes.page_size += u64::from(fmt.known_block_size());
            }
            if compression.is_none() {
                let number = mix(record.raw.lsn.0 ^ u64::from(block.id) << 56);
                if number <= limit {
                    self.draw(number, || image.data.to_vec());
                }
            }
        }
    }

    pub(super) fn draw(&mut self, number: u64, image: impl FnOnce() -> Vec<u8>) {
        if self.sample.len() < SAMPLE {
            self.sample.push((number, image()));
        } else if let Some(mut largest) = self.sample.peek_mut().filter(|largest| number < largest.0) {
            *largest = (number, image());
        }
    }

    /// Numbers above this are in no sample any more.
    pub(super) fn limit(&self) -> u64 {
        if self.sample.len() < SAMPLE { u64::MAX } else { self.sample.peek().map_or(u64::MAX, |largest| largest.0) }
    }

    /// Adds those of a part, and empties it.
    pub(super) fn merge(&mut self, part: &mut Images) {
        for (mine, theirs) in self.sizes.iter_mut().flatten().zip(part.sizes.iter().flatten()) {
            mine.count += theirs.count;
            mine.size += theirs.size;
            mine.raw_size += theirs.raw_size;
            mine.page_size += theirs.page_size;
        }
        part.sizes = Default::default();
        for (number, image) in part.sample.drain() {
            self.draw(number, || image);
        }
    }

    pub(super) fn rows(&self) -> Vec<ImageRow> {
        let row = |reason: Reason, compression, sizes: &Sizes| {
            let Sizes { count, size, raw_size, page_size } = *sizes;
            ImageRow { reason, compression, count, size, raw_size, page_size }
        };
        let rows = Reason::ALL.iter().zip(&self.sizes);
        let rows = rows.flat_map(|(&reason, sizes)| METHODS.iter().zip(sizes).map(move |(&method, sizes)| row(reason, method, sizes)));
        rows.filter(|row| row.count > 0).collect()
    }

    /// Compresses the sample; empty where there is none.
    pub(super) fn estimates(&self) -> Vec<Estimate> {
        if self.sample.is_empty() {
            return Vec::new();
        }
        let uncompressed_size = self.sizes.iter().filter_map(|row| row.first()).map(|sizes| sizes.size).sum();
        let sampled_size = self.sample.iter().map(|(_, image)| image.len() as u64).sum();
        let estimate = |method: Compression, compress: fn(&[u8]) -> usize| {
            let images: Vec<&[u8]> = self.sample.iter().map(|(_, image)| &image[..]).collect();
            let compressed_size = images.par_iter().map(|image| compress(image).min(image.len()) as u64).sum();
            Estimate { method, sampled: images.len() as u64, sampled_size, compressed_size, uncompressed_size }
        };
        // The server's levels: the defaults of the libraries. The length of the hole is kept besides.
        const HOLE_LENGTH: usize = 2;
        let zstd = |image: &[u8]| {
            zstd::bulk::compress(image, zstd::DEFAULT_COMPRESSION_LEVEL).map_or(image.len(), |compressed| compressed.len() + HOLE_LENGTH)
        };
        vec![estimate(Compression::Lz4, |image| lz4_flex::block::compress(image).len() + HOLE_LENGTH), estimate(Compression::Zstd, zstd)]
    }
}

/// Spreads the bits of a number over all 64: the finalizer of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}
