//! Every single bit that is turned is found.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgwal_testkit::fixtures;
use rayon::prelude::*;

use super::chain::{Chain, Found, Place};
use super::form;
use crate::frame::EndReason;
use crate::lsn::{Lsn, SegmentName};
use crate::page::PageInfo;

/// Segments that follow each other, and what is known of them while they are good.
struct Set {
    name: String,
    segments: Vec<(Arc<Place>, Vec<u8>)>,
    /// The state before each page of each segment, and after the last; inside a very long record, of which it holds what there
    /// is so far, before one page in [`SPARSE`].
    states: Vec<Vec<Option<Chain>>>,
    /// Bytes that no record covers: of each, the segment, and from where to where.
    uncovered: Vec<(usize, Lsn, Lsn)>,
}

const SPARSE: usize = 61;

/// Whether the state is that inside a very long record.
fn is_large(chain: &Chain) -> bool {
    chain.size() > 100_000
}

/// What became of the bits.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    found: u64,
    /// XLP_BKP_REMOVABLE.
    removable: u64,
    /// Bits that no record covers.
    uncovered: u64,
    missed: u64,
}

impl Count {
    fn add(mut self, other: Count) -> Count {
        self.found += other.found;
        self.removable += other.removable;
        self.uncovered += other.uncovered;
        self.missed += other.missed;
        self
    }
}

impl Set {
    fn load(files: &[PathBuf]) -> Set {
        let mut segments: Vec<(Arc<Place>, Vec<u8>)> = Vec::new();
        let mut fmt = None;
        for path in files {
            let file = path.file_name().unwrap().to_str().unwrap();
            let bytes = match file.ends_with(".zst") {
                true => zstd::stream::decode_all(&fs::read(path).unwrap()[..]).unwrap(),
                false => fs::read(path).unwrap(),
            };
            let name: SegmentName = file[..24].parse().unwrap();
            let form = form::find(&bytes, Some(name), fmt).unwrap();
            fmt = Some(form.fmt);
            let before = segments.last().map(|(place, _)| Arc::new(Place { before: None, ..(**place).clone() }));
            segments.push((Arc::new(Place { input: file.into(), name: Some(name), fmt: form.fmt, start: form.start, before }), bytes));
        }
        let name = files[0]
            .parent()
            .unwrap()
            .components()
            .rev()
            .take(2)
            .map(|part| part.as_os_str().to_str().unwrap())
            .collect::<Vec<_>>()
            .join("/");
        let mut set = Set { name, segments, states: Vec::new(), uncovered: Vec::new() };
        set.learn();
        set
    }

    /// Checks the segments as they are, and keeps the state at each page.
    fn learn(&mut self) {
        let first = &self.segments[0].0;
        let mut chain = Chain::new(first.fmt, first.start, None);
        let mut found = Found::default();
        for (at, (place, bytes)) in self.segments.iter().enumerate() {
            let mut states = vec![Some(chain.clone())];
            while chain.next_page(place, bytes, place.start, &mut found) {
                states.push((!is_large(&chain) || states.len().is_multiple_of(SPARSE)).then(|| chain.clone()));
            }
            // The record that began before the first segment, and one that was lost and written over.
            if at == 0 {
                let body = place.start + place.fmt.page_header_size(place.start);
                self.uncovered.push((0, body, found.first.unwrap()));
            }
            self.states.push(states);
        }
        self.lost_records();
        assert!(found.findings.is_empty(), "{}: {:?}", self.name, found.findings);
        let (place, bytes) = self.segments.last().unwrap();
        let end = chain.finish(place, &mut found).unwrap();
        if end.reason != EndReason::NoMoreInput {
            self.uncovered.push((self.segments.len() - 1, end.lsn, place.start + bytes.len() as u64));
            if end.lsn < place.start {
                let before = &self.segments[self.segments.len() - 2].0;
                self.uncovered.push((self.segments.len() - 2, end.lsn, before.start + u64::from(before.fmt.segment_size)));
            }
        }
    }

    /// Records that were lost in a crash: a later one was written over their continuation.
    fn lost_records(&mut self) {
        for at in 1..self.segments.len() {
            let (place, bytes) = &self.segments[at];
            let info = u16::from_le_bytes([bytes[2], bytes[3]]);
            if info & PageInfo::overwrite_contrecord(place.fmt).0 != 0 {
                let start = self.states[at][0].as_ref().unwrap().joining().unwrap();
                self.uncovered.push((at - 1, start, place.start));
            }
        }
    }

    fn is_uncovered(&self, segment: usize, offset: usize) -> bool {
        let place = &self.segments[segment].0;
        let lsn = place.start + offset as u64;
        let page = place.fmt.page_offset(lsn);
        let in_header = page < place.fmt.page_header_size(Lsn(lsn.0 - page));
        // A page header inside a record that is not covered has to be right all the same.
        self.uncovered.iter().any(|&(at, from, to)| at == segment && (from..to).contains(&lsn) && (!in_header || self.is_behind_end(from)))
    }

    fn is_behind_end(&self, from: Lsn) -> bool {
        self.uncovered.iter().any(|&(_, start, _)| start == from) && from > self.segments[0].0.start + 40
    }

    /// What becomes of one bit.
    fn turn(&self, bytes: &mut [u8], segment: usize, offset: usize, bit: u8) -> Count {
        bytes[offset] ^= 1 << bit;
        let is_found = self.is_found(bytes, segment, offset);
        bytes[offset] ^= 1 << bit;
        let (place, _) = &self.segments[segment];
        let page = offset % place.fmt.wal_page_size as usize;
        let is_removable = !place.fmt.since(19) && page == 2 && bit == 2;
        match is_found {
            true => Count { found: 1, ..Count::default() },
            false if is_removable => Count { removable: 1, ..Count::default() },
            false if self.is_uncovered(segment, offset) || self.is_leading_length(segment, offset) => {
                Count { uncovered: 1, ..Count::default() }
            }
            false => {
                println!("{}: {} bit {bit} of byte 0x{offset:x}", self.name, place.input);
                Count { missed: 1, ..Count::default() }
            }
        }
    }

    /// What the first page says is left of a record that began before it.
    fn is_leading_length(&self, segment: usize, offset: usize) -> bool {
        segment == 0 && (16..20).contains(&offset) && self.segments[0].1[16..20] != [0; 4]
    }

    fn is_found(&self, bytes: &[u8], segment: usize, offset: usize) -> bool {
        let size = self.segments[0].0.fmt.wal_page_size as usize;
        if offset < 40 {
            // The file is still taken for what it is.
            let place = &self.segments[segment].0;
            let fronts = self.segments.iter().enumerate().map(|(at, (_, good))| if at == segment { bytes } else { good });
            let expected = form::vote(fronts).map(|vote| vote.0);
            let form = form::find(bytes, place.name, expected).expect("it looks like WAL");
            if (form.fmt, form.start) != (place.fmt, place.start) {
                // One page, and no other to tell that its version is wrong: then one of the two files is said to be of another.
                return form.fmt.major != place.fmt.major;
            }
        }
        let mut found = Found::default();
        let states = self.states[segment][..=offset / size].iter().enumerate().rev();
        let (mut page, mut chain) = states.filter_map(|(page, state)| Some((page, state.clone()?))).next().unwrap();
        for at in segment..self.segments.len() {
            let (place, good) = &self.segments[at];
            let bytes = if at == segment { bytes } else { good };
            while chain.next_page(place, bytes, place.start, &mut found) {
                page += 1;
                if !found.findings.is_empty() {
                    return true;
                }
                if (at > segment || page > offset / size) && self.states[at][page].as_ref() == Some(&chain) {
                    return false;
                }
            }
            page = 0;
        }
        chain.finish(&self.segments.last().unwrap().0, &mut found);
        !found.findings.is_empty()
    }

    /// Every bit of every page header.
    fn headers(&self) -> Count {
        let pages = |(at, (place, bytes)): (usize, &(Arc<Place>, Vec<u8>))| {
            let mut bytes = bytes.clone();
            let mut count = Count::default();
            let size = place.fmt.wal_page_size as usize;
            for page in (0..bytes.len()).step_by(size) {
                // Of the pages inside a very long record, whose state is large, and of those that the server left empty behind
                // XLOG_SWITCH, which are all alike, some have their turn.
                let is_inside = self.states[at][page / size].as_ref().is_none_or(is_large);
                let is_alike = is_inside || bytes[page + 40..page + size].iter().all(|&byte| byte == 0);
                if is_alike && !(page / size).is_multiple_of(SPARSE) {
                    continue;
                }
                for offset in page..page + if page == 0 { 40 } else { 24 } {
                    for bit in 0..8 {
                        count = count.add(self.turn(&mut bytes, at, offset, bit));
                    }
                }
            }
            count
        };
        self.segments.par_iter().enumerate().map(pages).reduce(Count::default, Count::add)
    }

    /// Bits anywhere.
    fn random(&self, bits: usize, seed: u64) -> Count {
        let mut copies: Vec<Vec<u8>> = self.segments.iter().map(|(_, bytes)| bytes.clone()).collect();
        let mut state = seed;
        let mut next = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        (0..bits).fold(Count::default(), |count, _| {
            let at = next(copies.len());
            let (offset, bit) = (next(copies[at].len()), next(8) as u8);
            count.add(self.turn(&mut copies[at], at, offset, bit))
        })
    }
}

/// The files of a folder that follow each other, over timelines.
fn sets(dir: &Path) -> Vec<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        crate::source::segment_of_file_name(name).is_some()
    });
    files.sort();
    let timeline = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap()[..8].to_owned();
    match files.as_slice() {
        [first, second, third] if timeline(second) != timeline(third) => {
            vec![vec![first.clone(), second.clone()], vec![first.clone(), third.clone()]]
        }
        [_, _, ..] => vec![files],
        _ => Vec::new(),
    }
}

#[test]
fn every_turned_bit_is_found() {
    const RANDOM: usize = 8_000;
    let sets: Vec<(u8, Vec<PathBuf>)> =
        fixtures::with_odd().iter().flat_map(|fixture| sets(&fixture.dir).into_iter().map(|set| (fixture.major, set))).collect();
    let counts: Vec<(u8, Count, Count)> = sets
        .par_iter()
        .with_max_len(1)
        .map(|(major, files)| {
            let set = Set::load(files);
            // Inside a very long record each bit takes a copy of all that there is of it.
            let random = if set.states.iter().flatten().flatten().any(is_large) { RANDOM / 50 } else { RANDOM };
            (*major, set.headers(), set.random(random, files.len() as u64 + u64::from(*major)))
        })
        .collect();
    let mut missed = 0;
    for major in 10..=19 {
        let of = |which: fn(&(u8, Count, Count)) -> Count| {
            counts.iter().filter(|count| count.0 == major).map(which).fold(Count::default(), Count::add)
        };
        let (headers, random) = (of(|count| count.1), of(|count| count.2));
        for (what, count) in [("page headers", headers), ("random bits ", random)] {
            let Count { found, removable, uncovered, missed: lost } = count;
            println!(
                "{major}: {what}: {found} of {} found ({removable} XLP_BKP_REMOVABLE, {uncovered} that no record covers)",
                found + lost
            );
            missed += lost;
            assert!(found > 1000, "{major}: {what}");
        }
    }
    assert_eq!(missed, 0);
}
