//! Damage: every check of framing and record decoding is failed once, and says exactly where.

use std::collections::BTreeSet;

use pgwal::page::PageHeader;
use pgwal::record::Compression;
use pgwal::{Decoder, Error, ErrorKind, Location, Lsn, RawRecord, RmgrId, SegmentName, TimelineId, WalFormat, WalMagic};
use pgwal_testkit::read::{every_way, in_chunks};
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, Wal, refresh_crc, relation};

const FMT: WalFormat = WalFormat { wal_page_size: 1 << 10, segment_size: MIB, ..WalFormat::new(17) };
const START: Lsn = Lsn(16 << 20);

fn wal() -> Wal {
    Wal::new(FMT).starting_at(START)
}

/// The place of the byte at `lsn`, worked out by hand.
fn place(lsn: Lsn, record: Option<Lsn>) -> Location {
    let segment = SegmentName { timeline: TimelineId(1), log: (lsn.0 >> 32) as u32, seg: (lsn.0 as u32) >> 20 };
    Location { segment, offset: lsn.0 & 0xF_FFFF, lsn, record }
}

/// Checks kind and place of `error`, and that its sentence has both, and returns the kind's name.
fn expect(error: &Error, kind: ErrorKind, location: Location) -> String {
    assert_eq!(error.kind(), &kind);
    assert_eq!(error.location(), location, "{error}");
    let sentence = error.to_string();
    assert!(sentence.starts_with(&format!("{}:0x{:x} ({}): ", location.segment, location.offset, location.lsn)), "{sentence}");
    let json = serde_json::to_value(error.kind()).unwrap();
    json["kind"].as_str().unwrap().to_owned()
}

/// Two records, the first of them cut by a page, and then a third that lies behind whatever `break_it` breaks.
fn broken(break_it: impl FnOnce(&mut Wal, [Lsn; 2])) -> Error {
    let mut wal = wal();
    wal.leave(160);
    let first = wal.record(&RecordBuilder::filler(1500));
    let second = wal.record(&RecordBuilder::filler(100));
    wal.record(&RecordBuilder::filler(100));
    break_it(&mut wal, [first, second]);
    every_way(&wal).stop.expect_err("damage")
}

/// The WAL of [`broken`] before it is broken: starts of the two records, and the two pages that the first goes on at.
fn places() -> ([Lsn; 2], [Lsn; 2]) {
    let mut at = None;
    let error = broken(|wal, lsns| {
        at = Some(lsns);
        wal.patch(lsns[1], &[1]);
    });
    assert!(matches!(error.kind(), ErrorKind::RecordLength { .. }));
    let [first, second] = at.unwrap();
    let page = Lsn((first.0 / 1024 + 1) * 1024);
    ([first, second], [page, page + 1024])
}

/// Headers of pages that a record goes on at.
fn page_headers(kinds: &mut BTreeSet<String>) {
    let ([first, _], [page, next]) = places();
    let mut case = |break_it: &dyn Fn(&mut PageHeader), kind, at: Location| {
        let error = broken(|wal, _| {
            wal.patch_page(page, break_it);
        });
        kinds.insert(expect(&error, kind, at));
    };
    let at = place(page, Some(first));
    let magic = WalMagic(0xD118);
    case(&|h| h.magic = magic, ErrorKind::Magic { expected: Some(WalMagic(0xD116)), found: magic }, at);
    case(&|h| h.info.0 |= 0x8000, ErrorKind::InfoBits { found: 0x8001 }, at);
    case(&|h| h.info.0 &= !1, ErrorKind::NoContinuation, at);
    case(&|h| h.remaining += 8, ErrorKind::ContinuationLength { expected: 1340, found: 1348 }, at);
    case(&|h| h.remaining = 0, ErrorKind::ContinuationLength { expected: 1340, found: 0 }, at);
    // An address that is too low would be an end of the WAL: the page is left over.
    case(&|h| h.address = next, ErrorKind::PageAddress { expected: page, found: next }, at);
    // A timeline that is too low shows at once, one that is too high on the next page.
    let timeline = |previous, found| ErrorKind::PageTimeline { previous: TimelineId(previous), found: TimelineId(found) };
    case(&|h| h.timeline = TimelineId(0), timeline(1, 0), at);
    let behind = place(next, Some(first));
    let behind = Location { segment: SegmentName { timeline: TimelineId(9), ..behind.segment }, ..behind };
    case(&|h| h.timeline = TimelineId(9), timeline(9, 1), behind);
}

#[test]
fn every_check_fails_once_at_its_place() {
    let mut kinds = BTreeSet::new();
    let ([first, second], [page, _]) = places();

    page_headers(&mut kinds);

    // The page of a segment's start: without its long header, and with other sizes.
    let long = |change: &dyn Fn(&mut PageHeader)| {
        let mut wal = wal();
        wal.leave_in_segment(24).record(&RecordBuilder::filler(24));
        let page = wal.end();
        wal.record(&RecordBuilder::filler(24));
        wal.patch_page(page, change);
        (every_way(&wal).stop.expect_err("damage"), place(page, None))
    };
    let (error, at) = long(&|h| (h.info.0, h.long) = (0, None));
    kinds.insert(expect(&error, ErrorKind::InfoBits { found: 0 }, at));
    let (error, at) = long(&|h| h.long.as_mut().unwrap().segment_size *= 2);
    kinds.insert(expect(&error, ErrorKind::SegmentSize { expected: Some(MIB), found: 2 * MIB }, at));
    let (error, at) = long(&|h| h.long.as_mut().unwrap().wal_page_size *= 2);
    kinds.insert(expect(&error, ErrorKind::WalPageSize { expected: Some(1024), found: 2048 }, at));
    let (error, at) = long(&|h| h.info.0 |= 1);
    kinds.insert(expect(&error, ErrorKind::ContinuationAtStart, at));

    // Starts that are none.
    let mut whole = wal();
    whole.record(&RecordBuilder::filler(2000));
    for (offset, header) in [(8, 40), (39, 40), (1024 + 1, 24), (1024 + 16, 24)] {
        let at = START + offset;
        let error = in_chunks(Decoder::starting_at(at, FMT), whole.bytes_from(at), []).stop.unwrap_err();
        let location = Location { segment: SegmentName { timeline: TimelineId(0), ..place(at, None).segment }, ..place(at, None) };
        kinds.insert(expect(&error, ErrorKind::InsidePageHeader { header }, location));
    }
    let head = |change: &dyn Fn(&mut PageHeader)| {
        let mut wal = wal();
        wal.record(&RecordBuilder::filler(100));
        wal.patch_page(START, change);
        in_chunks(Decoder::new(), wal.bytes(), []).stop.expect_err("not a segment")
    };
    let nowhere = Location::default();
    let error = head(&|h| h.magic.0 = 0xBEEF);
    kinds.insert(expect(&error, ErrorKind::Magic { expected: None, found: WalMagic(0xBEEF) }, nowhere));
    let error = head(&|h| (h.info.0, h.long) = (0, None));
    kinds.insert(expect(&error, ErrorKind::NoLongHeader { info: 0 }, nowhere));
    let error = head(&|h| h.long.as_mut().unwrap().segment_size = 3 << 20);
    kinds.insert(expect(&error, ErrorKind::SegmentSize { expected: None, found: 3 << 20 }, nowhere));
    let error = head(&|h| h.long.as_mut().unwrap().wal_page_size = 512);
    kinds.insert(expect(&error, ErrorKind::WalPageSize { expected: None, found: 512 }, nowhere));
    let error = head(&|h| h.address = START + 4096);
    let at = Location { lsn: START + 4096, ..nowhere };
    kinds.insert(expect(&error, ErrorKind::PageAddress { expected: START, found: START + 4096 }, at));

    // Record headers: whole ones, and those that a page cuts.
    let error = broken(|wal, [_, second]| {
        wal.patch(second, &10u32.to_le_bytes());
    });
    kinds.insert(expect(&error, ErrorKind::RecordLength { found: 10 }, place(second, Some(second))));
    let error = broken(|wal, [_, second]| {
        wal.patch(second, &[0; 4]);
    });
    kinds.insert(expect(&error, ErrorKind::RecordLength { found: 0 }, place(second, Some(second))));
    let error = broken(|wal, [_, second]| {
        wal.patch_record(second, 17, &[100]);
    });
    kinds.insert(expect(&error, ErrorKind::ResourceManager { found: 100 }, place(second, Some(second))));
    let error = broken(|wal, [_, second]| {
        wal.patch_record(second, 8, &[1]);
    });
    let found = Lsn(first.0 & !0xFF | 1);
    kinds.insert(expect(&error, ErrorKind::PreviousLink { expected: Some(first), found }, place(second, Some(second))));
    for left in [8, 16] {
        let cut = |at: usize, byte: u8| {
            let mut wal = wal();
            let previous = wal.record(&RecordBuilder::filler(30));
            wal.previous(previous).leave(left);
            let lsn = wal.record(&RecordBuilder::filler(100));
            wal.patch_record(lsn, at, &[byte]);
            (every_way(&wal).stop.expect_err("damage"), place(lsn, Some(lsn)), wal.records()[1].lsn)
        };
        let (error, at, _) = cut(0, 23);
        expect(&error, ErrorKind::RecordLength { found: 23 }, at);
        let (error, at, _) = cut(17, 22);
        expect(&error, ErrorKind::ResourceManager { found: 22 }, at);
        let (error, at, previous) = cut(15, 0xFF);
        let found = Lsn(previous.0 | 0xFF << 56);
        expect(&error, ErrorKind::PreviousLink { expected: Some(previous), found }, at);
    }
    // Nothing came before: any earlier place would do, but not this one.
    let mut alone = wal();
    let lsn = alone.position();
    alone.record(&RecordBuilder::filler(30).prev(lsn));
    let error = every_way(&alone).stop.unwrap_err();
    expect(&error, ErrorKind::PreviousLink { expected: None, found: lsn }, place(lsn, Some(lsn)));

    // The length says more than any server writes, and the page header agrees.
    let huge = 0xF000_0000u32;
    let error = broken(|wal, [first, _]| {
        wal.patch(first, &huge.to_le_bytes());
        wal.patch_page(page, |header| header.remaining = huge - 160);
    });
    kinds.insert(expect(&error, ErrorKind::RecordTooLong { found: huge }, place(page, Some(first))));

    // Checksums, of a whole record and of one that pages cut.
    for (which, at) in [(0, 1499), (1, 26), (1, 4)] {
        let mut crcs = None;
        let error = broken(|wal, lsns| {
            let mut bytes = wal.records()[1 + which].bytes.clone();
            let found = u32::from_le_bytes(bytes[20..24].try_into().unwrap());
            bytes[at] ^= 0x40;
            wal.patch_record(lsns[which], at, &bytes[at..=at]);
            refresh_crc(&mut bytes);
            crcs = Some((u32::from_le_bytes(bytes[20..24].try_into().unwrap()), found));
        });
        let (expected, found) = crcs.unwrap();
        let lsn = [first, second][which];
        kinds.insert(expect(&error, ErrorKind::Crc { expected, found }, place(lsn, Some(lsn))));
    }

    record_parts(&mut kinds);
    payloads(&mut kinds);

    let all: BTreeSet<String> = all_kinds();
    let missed: Vec<_> = all.difference(&kinds).collect();
    assert!(missed.is_empty(), "no test reaches {missed:?}");
    assert_eq!(all, kinds);
}

/// Names of all kinds, as the library's source lists them, so that a new one without a test is noticed.
fn all_kinds() -> BTreeSet<String> {
    let source = include_str!("../src/error.rs");
    let list = source.split_once("pub enum ErrorKind {").unwrap().1.split_once("\n}\n").unwrap().0;
    let variants = list.lines().filter_map(|line| line.strip_prefix("    ").filter(|line| line.starts_with(char::is_uppercase)));
    let snake = |name: &str| {
        let mut out = String::new();
        for c in name.chars().take_while(|c| c.is_alphanumeric()) {
            if c.is_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        }
        out
    };
    variants.map(snake).collect()
}

/// Decodes a record whose parts after the header are `parts`.
fn decode(fmt: WalFormat, parts: &[u8]) -> Result<(), Error> {
    let mut bytes = [&[0; 24][..], parts].concat();
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    refresh_crc(&mut bytes);
    let raw = RawRecord::from_bytes(&bytes, RECORD, fmt).unwrap();
    raw.decode().map(drop)
}

/// 128 bytes before the end of a page: what comes later in the record is behind the next page's header.
const RECORD: Lsn = Lsn(START.0 + 1024 - 128);

/// The place of byte `at` after the record's header.
fn part_place(at: u64) -> Location {
    let lsn = RECORD + 24 + at;
    let lsn = if lsn >= START + 1024 { lsn + 24 } else { lsn };
    let segment = SegmentName { timeline: TimelineId(0), ..place(lsn, None).segment };
    Location { segment, ..place(lsn, Some(RECORD)) }
}

/// Header of block reference `id` with `flags` and `len` bytes of data, up to where an image or a relation follows.
fn block(id: u8, flags: u8, len: u16) -> Vec<u8> {
    [&[id, flags][..], &len.to_le_bytes()].concat()
}

fn record_parts(kinds: &mut BTreeSet<String>) {
    let rel_block = [7u8; 16];
    let first = [block(3, 0, 0), rel_block.to_vec()].concat();
    let mut case_in = |fmt, parts: &[u8], kind: ErrorKind, at: u64| {
        let error = decode(fmt, parts).expect_err("damage");
        kinds.insert(expect(&error, kind, part_place(at)));
    };
    let old = WalFormat { major: 13, ..FMT };
    let wide = WalFormat { block_size: 65536 + 100, ..FMT };
    // Before 14 there was no top-level transaction id in the header.
    case_in(old, &[252, 1, 2, 3, 4], ErrorKind::BlockId { found: 252 }, 0);
    let mut case = |parts: &[u8], kind: ErrorKind, at: u64| case_in(FMT, parts, kind, at);
    for id in [3, 0] {
        let second = [first.clone(), block(id, 0, 0), rel_block.to_vec()].concat();
        case(&second, ErrorKind::BlockOrder { id, after: 3 }, 20);
    }
    for found in [33, 251] {
        case(&[first.clone(), vec![found, 0, 0]].concat(), ErrorKind::BlockId { found }, 20);
    }
    let no_data = [block(0, 0x20, 0), rel_block.to_vec()].concat();
    case(&no_data, ErrorKind::BlockData { id: 0, has_data: true, len: 0 }, 0);
    let no_flag = [block(0, 0, 5), rel_block.to_vec(), vec![1; 5]].concat();
    case(&no_flag, ErrorKind::BlockData { id: 0, has_data: false, len: 5 }, 0);
    case(&[block(4, 0x80, 0), vec![1; 4]].concat(), ErrorKind::NoPreviousRelation { id: 4 }, 0);

    // Page images: the header of the image starts at byte 4.
    let image = |len: u16, offset: u16, info: u8, hole: Option<u16>| {
        let mut out = block(0, 0x10, 0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.push(info);
        out.extend(hole.into_iter().flat_map(u16::to_le_bytes));
        out.extend_from_slice(&rel_block);
        out.resize(out.len() + usize::from(len), 1);
        out
    };
    let hole = |has_hole, offset, length, image| ErrorKind::ImageHole { has_hole, offset, length, image };
    case(&image(8192, 100, 0x01, None), hole(true, 100, 0, 8192), 4);
    case(&image(100, 0, 0x01, None), hole(true, 0, 8092, 100), 4);
    case(&image(100, 100, 0x05, Some(0)), hole(true, 100, 0, 100), 4);
    case(&image(100, 0, 0x00, None), hole(false, 0, 8092, 100), 4);
    case(&image(8192, 1, 0x00, None), hole(false, 1, 0, 8192), 4);
    case(&image(8192, 0, 0x08, None), ErrorKind::ImageCompressedLength { image: 8192 }, 4);

    // Parts that are cut short, and lengths that do not add up; some of it behind a page header.
    let mut layout = |parts: &[u8], field, needed, left, at| case(parts, ErrorKind::RecordLayout { field, needed, left }, at);
    layout(&[5], "XLogRecordBlockHeader.fork_flags", 1, 0, 1);
    layout(&[5, 0, 1], "XLogRecordBlockHeader.data_length", 2, 1, 2);
    layout(&[5, 0x10, 0, 0, 1], "XLogRecordBlockImageHeader.length", 2, 1, 4);
    layout(&[5, 0x10, 0, 0, 1, 1, 0], "XLogRecordBlockImageHeader.hole_offset", 2, 1, 6);
    layout(&[5, 0x10, 0, 0, 1, 1, 0, 0], "XLogRecordBlockImageHeader.bimg_info", 1, 0, 8);
    layout(&[5, 0x10, 0, 0, 1, 1, 0, 0, 5, 1], "XLogRecordBlockCompressHeader.hole_length", 2, 1, 9);
    layout(&[first[..6].to_vec()].concat(), "RelFileLocator", 4, 2, 4);
    layout(&first[..18], "BlockNumber", 4, 2, 16);
    layout(&[255], "XLogRecordDataHeaderShort.data_length", 1, 0, 1);
    layout(&[254, 1, 0, 0], "XLogRecordDataHeaderLong.data_length", 4, 3, 1);
    layout(&[253, 1], "replorigin_session_origin", 2, 1, 1);
    layout(&[252, 1, 2, 3], "toplevel_xid", 4, 3, 1);
    layout(&[255, 9, 1, 2], "record data", 9, 2, 2);
    layout(&[255, 1, 1, 2], "record data", 1, 2, 2);
    layout(&[254, 0xFF, 0xFF, 0xFF, 0xFF, 1], "record data", 0xFFFF_FFFF, 1, 5);
    let six: Vec<u8> = (0..6).flat_map(|id| [block(id, 0, 0), rel_block.to_vec()].concat()).collect();
    layout(&[&six[..], &[255, 2, 1]].concat(), "record data", 2, 1, 122);

    // Only where pages have more than 64 kB can the length of the hole, 16 bits wide, be zero for a short image.
    case_in(wide, &image(100, 0, 0, None), ErrorKind::ImageLength { image: 100, expected: 65636 }, 4);
}

/// Payloads and page images that do not parse; the record's other parts stay good.
fn payloads(kinds: &mut BTreeSet<String>) {
    let mut case = |rmid: RmgrId, info: u8, main: &[u8], kind: ErrorKind, at: u64| {
        let bytes = RecordBuilder::new(rmid, info).main(main).bytes(FMT, Lsn(8));
        let raw = RawRecord::from_bytes(&bytes, RECORD, FMT).unwrap();
        let record = raw.decode().unwrap();
        kinds.insert(expect(&record.payload().unwrap_err(), kind, part_place(2 + at)));
    };
    case(RmgrId::XLOG, 0x30, &[1, 2, 3], ErrorKind::Truncated { field: "XLOG_NEXTOID.nextOid", needed: 1 }, 0);
    case(RmgrId::XLOG, 0x30, &[1, 2, 3, 4, 5], ErrorKind::TrailingBytes { after: "XLOG_NEXTOID.nextOid", count: 1 }, 4);
    let no_fork = [[0; 12].as_slice(), &[4, 0, 0, 0]].concat();
    let kind = ErrorKind::Value { field: "xl_smgr_create.fork", expected: "a fork, 0 to 3", found: 4 };
    case(RmgrId(2), 0x10, &no_fork, kind, 12);

    let page = [1; 8192];
    let image = ImageBuilder::new(&page).compress(Compression::Pglz).with_data(&[1, 2]);
    let block = BlockBuilder::new(0, relation(), 0).image(image);
    let bytes = RecordBuilder::new(RmgrId::XLOG, 0xB0).block(block).bytes(FMT, Lsn(8));
    let raw = RawRecord::from_bytes(&bytes, RECORD, FMT).unwrap();
    let record = raw.decode().unwrap();
    let kind = record.blocks[0].image.unwrap().restore(FMT, &mut Vec::new()).unwrap_err();
    assert_eq!(kind, ErrorKind::Decompress { method: "pglz", reason: "the data is cut short".to_owned() });
    kinds.insert("decompress".to_owned());
}

/// Record bytes that come alone: length, checksum, resource manager.
#[test]
fn bytes_of_one_record() {
    let good = RecordBuilder::filler(200).bytes(FMT, Lsn(8));
    assert!(RawRecord::from_bytes(&good, RECORD, FMT).is_ok());
    let alone = |record: &[u8]| RawRecord::from_bytes(record, RECORD, FMT).map(drop).unwrap_err();
    let at = |offset: u64| {
        let lsn = RECORD + offset;
        let segment = SegmentName { timeline: TimelineId(0), ..place(lsn, None).segment };
        Location { segment, ..place(lsn, Some(RECORD)) }
    };
    for len in 0..24 {
        let kind = ErrorKind::Truncated { field: "XLogRecord", needed: 24 - len };
        expect(&alone(&good[..len]), kind, at(len as u64));
    }
    for len in 24..200 {
        let kind = ErrorKind::RecordLayout { field: "xl_tot_len", needed: 200, left: len };
        expect(&alone(&good[..len as usize]), kind, at(0));
    }
    let patched = |offset: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[offset] = byte;
        alone(&bytes)
    };
    expect(&patched(0, 23), ErrorKind::RecordLength { found: 23 }, at(0));
    expect(&patched(17, 22), ErrorKind::ResourceManager { found: 22 }, at(0));
    assert!(matches!(patched(150, 0).kind(), ErrorKind::Crc { .. }));
    assert_eq!(patched(150, 0).location(), at(0));
}

#[test]
fn custom_resource_managers_from_15_on() {
    for major in 10..=19 {
        let fmt = WalFormat { major, ..FMT };
        for id in [21, 22, 127, 128, 200, 255] {
            let mut wal = Wal::new(fmt);
            let lsn = wal.record(&RecordBuilder::new(RmgrId(id), 0xF0).main(b"anything"));
            let reading = every_way(&wal);
            if id < 22 || (id >= 128 && major >= 15) {
                assert_eq!(reading.lsns(), [lsn], "{major} {id}");
                let raw = RawRecord::from_bytes(&reading.records[0].placed.bytes, lsn, fmt).unwrap();
                let record = raw.decode().unwrap();
                if id >= 128 {
                    assert_eq!(record.rmgr_name(), format!("custom{id}"));
                    assert!(record.payload().unwrap().is_none());
                    assert_eq!(record.opcode_name(), None);
                }
            } else {
                assert_eq!(reading.stop.unwrap_err().kind(), &ErrorKind::ResourceManager { found: id }, "{major}");
            }
        }
    }
}

/// One byte is changed, anywhere: what comes before it is read as written, nothing is made up, and every reader agrees.
#[test]
fn no_changed_byte_makes_a_record_up() {
    let mut wal = Wal::new(FMT).starting_at(Lsn(2 * u64::from(MIB) - 2048));
    for len in [60, 24, 700, 1041, 33] {
        wal.record(&RecordBuilder::filler(len));
    }
    wal.leave(8).record(&RecordBuilder::filler(99));
    assert_eq!(every_way(&wal).records.len(), wal.records().len());
    let mut noticed = 0;
    for at in 0..wal.bytes().len() as u64 {
        let lsn = wal.start() + at;
        let was = wal.bytes_from(lsn)[0];
        for byte in [was ^ 1, was ^ 0x80, 0, 0xFF] {
            wal.patch(lsn, &[byte]);
            let reading = every_way(&wal);
            assert!(wal.records().starts_with(&reading.placed().cloned().collect::<Vec<_>>()), "{byte:02x} at {lsn}");
            let before = wal.records().iter().filter(|record| record.end <= lsn).count();
            assert!(reading.records.len() >= before, "{byte:02x} at {lsn}: {} of {before}", reading.records.len());
            noticed += usize::from(reading.records.len() < wal.records().len());
        }
        wal.patch(lsn, &[was]);
    }
    assert!(noticed > wal.bytes().len() * 3, "{noticed}");
}
