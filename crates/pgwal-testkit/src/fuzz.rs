//! Bodies of the fuzz targets, as functions that panic where something is wrong.
//!
//! `fuzz/` calls them with what libFuzzer makes up; an ordinary test calls them with the seeds in `fuzz/corpus/`. The first bytes of
//! an input choose the format and what is put right before the reader sees it, so that fuzzing gets past checksums.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use pgwal::json::{self, Json};
use pgwal::rmgr::Body;
use pgwal::scan::Options;
use pgwal::source::Kind;
use pgwal::stats::Stats;
use pgwal::text::{Text, Zone};
use pgwal::{Decoder, ErrorKind, Lsn, RawRecord, Record, RmgrId, Segment, WalFormat, WalMagic, waldump};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::read::{Reading, as_segments, as_segments_of, in_chunks, random_sizes, scanned};
use crate::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, refresh_crc, relation};

/// A target: its name, which is also that of its folder in `fuzz/corpus/`, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("framing", framing), ("chunked", chunked), ("record", record), ("payload", payload), ("source", source)];

/// A seed with a few bytes changed, or cut short: always the same for the same `random`, which has numbers below 2^20.
pub fn changed(seed: &[u8], random: &mut impl Iterator<Item = usize>) -> Vec<u8> {
    let mut next = |below: usize| random.next().unwrap_or_default() % below.max(1);
    let mut changed = seed.to_vec();
    for _ in 0..=next(3) {
        let at = next(changed.len());
        let Some(byte) = changed.get_mut(at) else { continue };
        *byte = [0, 1, 0xFF, 0x80, next(256) as u8, *byte ^ 1 << next(8)][next(6)];
    }
    if next(8) == 0 {
        changed.truncate(next(seed.len()));
    }
    changed
}

/// Bytes that stand before the WAL in an input of [`framing`] and [`chunked`].
pub const STREAM_HEAD: usize = 4;
/// Bytes that stand before the record in an input of [`record`].
pub const RECORD_HEAD: usize = 1;

/// Page headers get their magic and address.
pub const FIX_PAGES: u8 = 1;
/// Records get their checksum.
pub const FIX_CRC: u8 = 2;
/// Records get their previous link and a resource manager that exists.
pub const FIX_HEADERS: u8 = 4;
/// Pages get their continuation flag and length.
pub const FIX_CONTINUATION: u8 = 8;

/// A stream of WAL from an input: the format, the place and the bytes.
struct Stream {
    fmt: WalFormat,
    start: Lsn,
    bytes: Vec<u8>,
    chunks: u8,
}

/// Input: major, page size and place, what is put right, seed of the chunks; then the WAL.
fn stream(data: &[u8]) -> Option<Stream> {
    let (&[major, page, fix, chunks], bytes) = data.split_first_chunk::<STREAM_HEAD>()?;
    let major = 10 + major % 10;
    let fmt = WalFormat { wal_page_size: 1024 << (page % 7), segment_size: MIB, ..WalFormat::new(major) };
    let segment = u64::from(MIB);
    let start = match page / 7 % 4 {
        0 => Lsn(16 * segment),
        1 => Lsn(16 * segment + segment / 2),
        // A segment starts after two pages.
        2 => Lsn(16 * segment - 2 * u64::from(fmt.wal_page_size)),
        // The last segment that has an LSN.
        _ => Lsn(u64::MAX - (segment - 1)),
    };
    let mut stream = Stream { fmt, start, bytes: bytes.to_vec(), chunks };
    if fix & FIX_PAGES != 0 {
        stream.fix_pages();
    }
    // Each repair lets the reader come further; more than these are not worth their time.
    for _ in 0..100 {
        let Err(error) = stream.read([]).stop else { break };
        let record = error.location().record.unwrap_or(error.location().lsn);
        let done = match *error.kind() {
            ErrorKind::Crc { expected, .. } if fix & FIX_CRC != 0 => stream.patch(record, 20, &expected.to_le_bytes()),
            ErrorKind::PreviousLink { expected, .. } if fix & FIX_HEADERS != 0 => {
                stream.patch(record, 8, &expected.unwrap_or_default().0.to_le_bytes())
            }
            ErrorKind::ResourceManager { found } if fix & FIX_HEADERS != 0 => stream.patch(record, 17, &[found % 22]),
            ErrorKind::ContinuationLength { expected, .. } if fix & FIX_CONTINUATION != 0 => {
                stream.patch(error.location().lsn, 16, &(expected as u32).to_le_bytes())
            }
            ErrorKind::NoContinuation | ErrorKind::ContinuationAtStart if fix & FIX_CONTINUATION != 0 => {
                let at = (error.location().lsn - start) as usize + 2;
                match stream.bytes.get_mut(at) {
                    Some(info) => *info ^= 1,
                    None => break,
                }
                true
            }
            _ => false,
        };
        if !done {
            break;
        }
    }
    Some(stream)
}

impl Stream {
    fn read(&self, sizes: impl IntoIterator<Item = usize>) -> Reading {
        in_chunks(Decoder::starting_at(self.start, self.fmt), &self.bytes, sizes)
    }

    fn fix_pages(&mut self) {
        let size = self.fmt.wal_page_size as usize;
        for (page, bytes) in self.bytes.chunks_mut(size).enumerate() {
            let address = self.start.0.saturating_add((page * size) as u64);
            let long = Lsn(address).segment_offset(self.fmt.segment_size) == 0;
            let magic = WalMagic::of(self.fmt.major).map_or(0, |magic| magic.0);
            let mut put = |at: usize, value: &[u8]| {
                if let Some(place) = bytes.get_mut(at..at + value.len()) {
                    place.copy_from_slice(value);
                }
            };
            put(0, &magic.to_le_bytes());
            put(3, &[0]);
            put(4, &1u32.to_le_bytes());
            put(8, &address.to_le_bytes());
            if long {
                put(32, &self.fmt.segment_size.to_le_bytes());
                put(36, &self.fmt.wal_page_size.to_le_bytes());
            }
            if let Some(info) = bytes.get_mut(2) {
                *info = *info & 0b1101 | if long { 2 } else { 0 };
            }
        }
    }

    /// Where the bytes `range` of the record at `lsn` lie in the stream, by the flags of the page headers between them.
    fn places(&self, lsn: Lsn, range: Range<usize>) -> Vec<usize> {
        let page_size = self.fmt.wal_page_size as usize;
        let mut at = (lsn - self.start) as usize;
        let mut places = Vec::new();
        for byte in 0..range.end {
            if at.is_multiple_of(page_size) {
                let long = self.bytes.get(at + 2).is_some_and(|info| info & 2 != 0);
                at += if long { 40 } else { 24 };
            }
            if at >= self.bytes.len() {
                break;
            }
            if byte >= range.start {
                places.push(at);
            }
            at += 1;
        }
        places
    }

    fn patch(&mut self, lsn: Lsn, at: usize, value: &[u8]) -> bool {
        let places = self.places(lsn, at..at + value.len());
        for (&place, &byte) in places.iter().zip(value) {
            self.bytes[place] = byte;
        }
        places.len() == value.len()
    }
}

/// Any bytes as WAL: records come in order, have the bytes that lie in the stream, and stand up when read alone.
pub fn framing(data: &[u8]) {
    let Some(stream) = stream(data) else { return };
    let reading = stream.read([]);
    let mut end = stream.start;
    for found in &reading.records {
        let placed = &found.placed;
        assert!(end <= placed.lsn && placed.lsn < placed.end, "{} comes after {end} and ends at {}", placed.lsn, placed.end);
        assert!(found.overwritten.is_none_or(|lost| end <= lost && lost < placed.lsn), "{:?} was lost", found.overwritten);
        end = placed.end;
        let there: Vec<u8> = stream.places(placed.lsn, 0..placed.bytes.len()).iter().map(|&at| stream.bytes[at]).collect();
        assert!(there == placed.bytes, "the record at {} has other bytes", placed.lsn);
        let raw = RawRecord::from_bytes(&placed.bytes, placed.lsn, stream.fmt).expect("a record that was framed is good");
        look_at(&raw);
    }
    let behind = Lsn(stream.start.0.saturating_add(stream.bytes.len() as u64));
    match reading.stop {
        Ok(verdict) => assert!(!verdict.to_string().is_empty()),
        Err(error) => {
            let location = error.location();
            assert!(stream.start <= location.lsn && location.lsn < behind, "{error} lies outside");
            assert_eq!(location.offset, location.lsn.segment_offset(stream.fmt.segment_size), "{error}");
            assert!(location.record.is_none_or(|record| record <= location.lsn), "{error}");
        }
    }
}

/// Any bytes as WAL, in chunks of any size: the same records and the same end as in one piece, and from the iterator over segments.
pub fn chunked(data: &[u8]) {
    let Some(stream) = stream(data) else { return };
    let whole = stream.read([]);
    let seed = u64::from(stream.chunks);
    let max = [1, 7, 100, 8191][usize::from(stream.chunks) % 4];
    let pieces = stream.read(random_sizes(seed, max));
    assert!(pieces == whole, "chunks up to {max}: {:?}, not {:?}", pieces.stop, whole.stop);
    if stream.start.segment_offset(stream.fmt.segment_size) == 0 && pgwal::frame::first_format(&stream.bytes).is_ok() {
        let from_header = in_chunks(Decoder::new(), &stream.bytes, []);
        let pieces = in_chunks(Decoder::new(), &stream.bytes, random_sizes(seed, max));
        assert!(pieces == from_header, "the format from the header, chunks up to {max}: {:?}, not {:?}", pieces.stop, from_header.stop);
        // What the two make of the end differs: the iterator sees what follows.
        if from_header.stop.as_ref().err().is_none_or(|error| error.location().segment != Default::default()) {
            assert!(as_segments(&stream.bytes).records == from_header.records, "the iterator over segments");
        }
    }
}

/// Any bytes as one record, with length and checksum made right.
///
/// Input: major; then the record, its header included.
pub fn record(data: &[u8]) {
    let Some((&[major], bytes)) = data.split_first_chunk::<RECORD_HEAD>() else { return };
    if bytes.len() < 24 {
        return;
    }
    let fmt = WalFormat::new(10 + major % 10);
    let mut bytes = bytes.to_vec();
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    if !pgwal::record::is_rmgr(RmgrId(bytes[17]), fmt) {
        bytes[17] %= 22;
    }
    refresh_crc(&mut bytes);
    let lsn = Lsn((16 << 20) + 8192 - 64);
    let raw = RawRecord::from_bytes(&bytes, lsn, fmt).expect("length, checksum and resource manager are right");
    look_at(&raw);
}

/// Any bytes as the payload of any resource manager: it is refused, or written back to the same bytes; describing it does not panic.
///
/// Input: as [`payload_input`] writes it.
pub fn payload(data: &[u8]) {
    let Some(bytes) = payload_record(data) else { return };
    let fmt = WalFormat::new(10 + data[0] % 10);
    let raw = RawRecord::from_bytes(&bytes, Lsn((16 << 20) + 40), fmt).expect("length and checksum are right");
    look_at(&raw);
}

/// The bytes of the record that an input of [`payload`] stands for; its major is 10 more than the first byte.
pub fn payload_record(data: &[u8]) -> Option<Vec<u8>> {
    let (&[major, rmid, info, count], mut heads) = data.split_first_chunk()?;
    let fmt = WalFormat::new(10 + major % 10);
    let (blocks, mut left) = heads.split_at_checked(BLOCK_HEAD * usize::from(count % 8))?;
    heads = blocks;
    let mut record = RecordBuilder::new(RmgrId(rmid % 22), info).xid(800);
    let mut next_id = 0;
    while let Some((&[id, low, high], rest)) = heads.split_first_chunk::<BLOCK_HEAD>() {
        heads = rest;
        let (data, rest) = left.split_at(left.len().min(u16::from_le_bytes([low, high]).into()));
        left = rest;
        // Ids go up, as they must.
        let block = BlockBuilder::new(next_id.max(id & 0x0F), relation(), id.into()).data(data);
        next_id = next_id.max(id & 0x0F) + 1;
        record = record.block(if id & 0x80 == 0 { block } else { block.image(ImageBuilder::empty_page(8192)) });
    }
    Some(record.main(left).bytes(fmt, Lsn(8)))
}

/// Bytes of each block reference in an input of [`payload`].
const BLOCK_HEAD: usize = 3;

/// An input of [`payload`] that stands for `record`: major, resource manager, info, number of block references; for each its id, with the
/// topmost bit where it has an image, and the length of its data; then the data of the blocks and the main data. `None`: it has too many.
pub fn payload_input(record: &Record<'_>) -> Option<Vec<u8>> {
    let count = u8::try_from(record.blocks.len()).ok().filter(|&count| count < 8)?;
    let mut input = vec![record.fmt().major - 10, record.rmid().0, record.info().0, count];
    for block in &record.blocks {
        input.push(block.id | if block.image.is_some() { 0x80 } else { 0 });
        input.extend_from_slice(&(block.data.len() as u16).to_le_bytes());
    }
    for block in &record.blocks {
        input.extend_from_slice(block.data);
    }
    input.extend_from_slice(record.main);
    Some(input)
}

/// Names that an input of [`source`] may have as a file.
pub const FILE_NAMES: [&str; 6] = [
    "000000010000000000000010",
    "wal",
    "000000010000000000000010.partial",
    "base.tar",
    "FFFFFFFFFFFFFFFFFFFFFFFF",
    "000000010000000000000010.gz",
];

/// Any bytes as a file: a segment, compressed or not, an archive, or nothing of the kind. Read with one thread and with several it is the
/// same, and never more than what its own bytes can hold.
///
/// Input: number of the file's name; then its bytes.
pub fn source(data: &[u8]) {
    let Some((&name, bytes)) = data.split_first() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join(FILE_NAMES[usize::from(name) % FILE_NAMES.len()]);
    std::fs::write(&path, bytes).expect("room for the input");
    let read = |threads| {
        let inputs = pgwal::source::Wal::open(&[&path], None).map_err(|e| e.to_string())?;
        let (records, summary) = scanned(&inputs, Options { start: None, end: None, threads });
        Ok::<_, String>((records, format!("{summary:?}")))
    };
    let one = read(1);
    assert_eq!(read(3), one);
    if Kind::of(bytes) == Kind::Plain {
        let segment = Segment::from_bytes(bytes.to_vec());
        if let (Ok(segment), Ok((records, _))) = (&segment, &one)
            && name.is_multiple_of(6)
            && segment.start() == Lsn(0x10 * u64::from(segment.format().segment_size))
        {
            let alone = as_segments_of(std::slice::from_ref(segment));
            assert!(alone.records == *records, "the iterator over segments");
        }
    }
}

/// Everything that can be asked of a record.
fn look_at(raw: &RawRecord<'_>) {
    let Ok(record) = raw.decode() else { return };
    accounts_for_every_byte(raw, &record);
    let mut page = Vec::new();
    for image in record.blocks.iter().filter_map(|block| block.image) {
        match image.restore(raw.fmt, &mut page) {
            Ok(()) => assert_eq!(page.len(), raw.fmt.known_block_size() as usize),
            Err(kind) => assert!(!kind.to_string().is_empty()),
        }
    }
    let mut text = Text::new(raw.fmt, Zone::utc());
    for details in [false, true] {
        let _ = waldump::write_record(&record, details, &mut text);
    }
    assert!(text.as_bytes().ends_with(b"\n"));
    let mut line = Json::new();
    let _ = json::write_record(&record, &mut line);
    let (last, rest) = line.as_bytes().split_last().expect("every record has JSON");
    assert!(*last == b'\n' && !rest.contains(&b'\n'), "one line");
    let json = String::from_utf8_lossy(rest);
    assert_eq!(json, String::from_utf8_lossy(&crate::json::line(&record)).trim_end(), "as serde_json");
    serde_json::from_str::<Unique>(&json).unwrap_or_else(|e| panic!("{e}: {json}"));
    let mut stats = Stats::default();
    stats.add(&record);
    assert_eq!(stats.total().combined_size(), u64::from(raw.header.tot_len));
    match record.payload() {
        Ok(Some(payload)) => {
            let mut body = Body::default();
            payload.write(raw.fmt, &mut body);
            assert!(body.main == record.main, "{payload:?}\nread from {:02x?}\nwritten  {:02x?}", record.main, body.main);
            body.blocks.sort();
            let written: Vec<_> = body.blocks.iter().filter(|block| !block.1.is_empty()).map(|block| (block.0, &block.1[..])).collect();
            let read: Vec<_> = record.blocks.iter().filter(|block| block.has_data()).map(|block| (block.id, block.data)).collect();
            assert!(written == read, "{payload:?}\nread from {read:02x?}\nwritten  {written:02x?}");
        }
        Ok(None) => {}
        Err(error) => {
            let location = error.location();
            assert_eq!(location.record, Some(raw.lsn), "{error}");
            // Where bytes are missing, the place is that of the first one: behind the next page header, when the page is full.
            let behind = raw.location(raw.bytes.len()).lsn;
            assert!(raw.lsn <= location.lsn && location.lsn <= behind, "{error} lies outside of {} to {behind}", raw.lsn);
        }
    }
}

/// Images, block data and main data are the end of the record, one behind the other, and the headers are the rest.
fn accounts_for_every_byte(raw: &RawRecord<'_>, record: &Record<'_>) {
    let mut data = Vec::new();
    for block in &record.blocks {
        data.extend_from_slice(block.image.map_or(&[][..], |image| image.data));
        data.extend_from_slice(block.data);
    }
    data.extend_from_slice(record.main);
    assert!(raw.bytes[24..].ends_with(&data), "the parts are not the end of the record");
    assert!(raw.bytes.len() - 24 - data.len() >= 20 * record.blocks.iter().filter(|block| block.flags.0 & 0x80 == 0).count());
}

/// Any JSON in which no object has a field twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
        while seq.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Unique>()?;
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("{name} comes twice")));
            }
            names.insert(name);
        }
        Ok(Unique)
    }
}
