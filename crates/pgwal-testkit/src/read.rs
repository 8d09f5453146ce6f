//! What a reader makes of some WAL, to compare with what was written and between readers.

use std::iter;
use std::ops::ControlFlow;

use pgwal::scan::{Options, Summary, Work, scan};
use pgwal::{Decoder, End, Error, Lsn, RawRecord, Segment, TimelineId};

use crate::wal::{Placed, Wal};

/// Records, and why there are no more.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The records, in order.
    pub records: Vec<Found>,
    /// The verdict, or the damage.
    pub stop: Result<End, Error>,
}

/// A record that a reader returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place and bytes.
    pub placed: Placed,
    /// Timeline of its page.
    pub timeline: TimelineId,
    /// Start of the lost record before it.
    pub overwritten: Option<Lsn>,
}

impl From<&RawRecord<'_>> for Found {
    fn from(raw: &RawRecord<'_>) -> Found {
        let placed = Placed { lsn: raw.lsn, end: raw.end, bytes: raw.bytes.to_vec() };
        Found { placed, timeline: raw.timeline, overwritten: raw.overwritten }
    }
}

impl Reading {
    /// The records as they were written.
    pub fn placed(&self) -> impl Iterator<Item = &Placed> {
        self.records.iter().map(|found| &found.placed)
    }

    /// Starts of the records.
    pub fn lsns(&self) -> Vec<Lsn> {
        self.placed().map(|placed| placed.lsn).collect()
    }
}

/// Feeds `bytes` to `decoder` in chunks of `sizes`; what is left when they run out comes as one.
pub fn in_chunks(mut decoder: Decoder, bytes: &[u8], sizes: impl IntoIterator<Item = usize>) -> Reading {
    let mut records = Vec::new();
    let mut left = bytes;
    let mut sizes = sizes.into_iter();
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(sizes.next().unwrap_or(usize::MAX).clamp(1, left.len()));
        left = rest;
        decoder.feed(chunk);
        loop {
            match decoder.next_record() {
                Ok(Some(raw)) => records.push(Found::from(&raw)),
                Ok(None) => break,
                Err(error) => return Reading { records, stop: Err(error) },
            }
        }
    }
    Reading { records, stop: Ok(decoder.finish()) }
}

/// As [`in_chunks`], and what lies in a chunk is decoded there.
pub fn inside_chunks(mut decoder: Decoder, mut bytes: &[u8], sizes: impl IntoIterator<Item = usize>) -> Reading {
    let (mut records, mut sizes) = (Vec::new(), sizes.into_iter());
    while !bytes.is_empty() {
        let (mut chunk, rest) = bytes.split_at(sizes.next().unwrap_or(bytes.len()).min(bytes.len()));
        loop {
            match decoder.next_in(&mut chunk) {
                Ok(Some(raw)) => records.push(Found::from(&raw)),
                Ok(None) => break,
                Err(error) => return Reading { records, stop: Err(error) },
            }
        }
        bytes = rest;
    }
    Reading { records, stop: Ok(decoder.finish()) }
}

/// Reads `bytes` whole, from the start of a segment.
pub fn whole(bytes: &[u8]) -> Reading {
    in_chunks(Decoder::new(), bytes, [])
}

/// Reads `bytes` with the iterator over segments, as files of the size that their header says.
///
/// # Panics
/// The bytes do not start with a segment.
pub fn as_segments(bytes: &[u8]) -> Reading {
    let (fmt, _) = pgwal::frame::first_format(bytes).expect("the start of a segment");
    let files = bytes.chunks(fmt.segment_size as usize);
    let segments: Vec<Segment> = files.map_while(|file| Segment::from_bytes(file.to_vec()).ok()).collect();
    as_segments_of(&segments)
}

/// Reads `segments` with the iterator over them.
///
/// # Panics
/// The iterator ends without a verdict.
pub fn as_segments_of(segments: &[Segment]) -> Reading {
    let mut iter = pgwal::records(segments);
    let mut records = Vec::new();
    for raw in &mut iter {
        match raw {
            Ok(raw) => records.push(Found::from(&raw)),
            Err(error) => return Reading { records, stop: Err(error) },
        }
    }
    Reading { records, stop: Ok(iter.end().expect("an iterator that is done has a verdict")) }
}

/// Reads `inputs` with the parallel scan.
pub fn scanned(inputs: &pgwal::source::Wal, options: Options) -> (Vec<Found>, Summary) {
    struct Collect;
    impl Work for Collect {
        type Part = Vec<Found>;
        fn part(&self) -> Vec<Found> {
            Vec::new()
        }
        fn record(&self, raw: &RawRecord<'_>, part: &mut Vec<Found>) -> Result<(), Error> {
            part.push(raw.into());
            raw.decode().map(drop)
        }
    }
    let mut records = Vec::new();
    let summary = scan(inputs, options, &Collect, |part| {
        records.extend(part);
        ControlFlow::Continue(())
    });
    (records, summary)
}

/// Sizes of chunks that look random and are the same in every run.
pub fn random_sizes(mut seed: u64, max: usize) -> impl Iterator<Item = usize> {
    iter::repeat_with(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (seed >> 33) as usize % max
    })
}

/// Reads `wal` whole and in chunks of 1 byte (where it is short), 7, 8191 and random sizes, and expects the same each time.
///
/// # Panics
/// Two of the readings differ.
pub fn every_way(wal: &Wal) -> Reading {
    let decoder = || Decoder::starting_at(wal.start(), wal.format());
    let bytes = wal.bytes();
    let reading = in_chunks(decoder(), bytes, []);
    let small = if bytes.len() <= 200_000 { 1 } else { 61 };
    let same = |how: &str, other: Reading| {
        assert!(other == reading, "{how}: {:?} after {} records", other.stop, other.records.len());
    };
    same("the smallest chunks", in_chunks(decoder(), bytes, iter::repeat(small)));
    same("chunks of 7", in_chunks(decoder(), bytes, iter::repeat(if bytes.len() <= 1_000_000 { 7 } else { 777 })));
    same("chunks of 8191", in_chunks(decoder(), bytes, iter::repeat(8191)));
    same("random chunks", in_chunks(decoder(), bytes, random_sizes(bytes.len() as u64, 20_000)));
    same("in place", inside_chunks(decoder(), bytes, []));
    same("in place, chunks of 8191", inside_chunks(decoder(), bytes, iter::repeat(8191)));
    same("in place, random chunks", inside_chunks(decoder(), bytes, random_sizes(bytes.len() as u64 + 1, 20_000)));
    if wal.start().segment_offset(wal.format().segment_size) == 0 && bytes.len() >= 40 {
        same("the format from the header", whole(bytes));
    }
    reading
}

/// Reads `wal` as [`every_way`] does and expects exactly the records that were written, and a verdict.
///
/// # Panics
/// A record is missing, made up or different, or the WAL seems damaged.
pub fn expect_all(wal: &Wal) -> End {
    let reading = every_way(wal);
    let end = reading.stop.clone().unwrap_or_else(|e| panic!("after {} records: {e}", reading.records.len()));
    for (found, written) in reading.placed().zip(wal.records()) {
        assert!(found == written, "{} to {}: written {} to {}", found.lsn, found.end, written.lsn, written.end);
    }
    assert_eq!(reading.records.len(), wal.records().len());
    end
}
