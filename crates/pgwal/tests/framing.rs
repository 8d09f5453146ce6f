//! Framing: WAL built byte by byte, cut at every place that pages and segments can cut it.

use pgwal::format::MAGICS;
use pgwal::page::PageInfo;
use pgwal::{Decoder, End, EndReason, ErrorKind, Lsn, RmgrId, TimelineId, WalFormat};
use pgwal_testkit::read::{self, every_way, expect_all, in_chunks, whole};
use pgwal_testkit::wal::{BlockBuilder, MIB, Placed, RecordBuilder, Wal, relation};

const PAGE_SIZES: [u32; 7] = [1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16];

/// Something done to WAL, and what it is.
type Named<'a> = (&'a str, &'a dyn Fn(&mut Wal));

fn format(major: u8, wal_page_size: u32, segment_size: u32) -> WalFormat {
    WalFormat { wal_page_size, segment_size, ..WalFormat::new(major) }
}

/// 17 with pages of 1 kB and segments of 1 MB: many boundaries in few bytes.
fn small_pages() -> Wal {
    Wal::new(format(17, 1 << 10, MIB)).starting_at(Lsn(16 << 20))
}

/// A record of `len` bytes, none of which is like its neighbours.
fn record(len: usize) -> RecordBuilder {
    let filler = RecordBuilder::filler(len);
    match len {
        24 => filler,
        26..=281 => filler.main(&noise(len - 26)).short_main(),
        _ => filler.main(&noise(len - 29)).long_main(),
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect()
}

/// Lengths of records that `left` bytes of a page cut in every way: in the header, right behind it, in the data, not at all.
fn lengths(left: u64) -> impl Iterator<Item = usize> {
    let around = (left as usize).saturating_sub(9)..=left as usize + 9;
    (26..=34).chain([24, 48, 64, 300]).chain(around).filter(|&len| len >= 26 || len == 24)
}

#[test]
fn records_are_cut_at_every_place_of_a_page() {
    for page_size in PAGE_SIZES {
        let mut wal = Wal::new(format(17, page_size, MIB));
        let all = u64::from(page_size) - 24;
        for left in (8..=64).step_by(8).chain([all / 16 * 8, all - 8, all]) {
            for len in lengths(left) {
                wal.leave(left).record(&record(len));
                let cut = wal.records().last().unwrap();
                assert_eq!(cut.lsn.0 % u64::from(page_size), u64::from(page_size) - left);
                assert_eq!(wal.bytes_from(cut.lsn).len() > len + 7, len as u64 > left, "cut after {left} of {len} bytes");
            }
        }
        expect_all(&wal);
    }
}

#[test]
fn every_byte_of_a_short_record_is_the_last_of_its_page() {
    let mut wal = small_pages();
    for left in (8..=320).step_by(8) {
        for len in (26..=330).chain([24]) {
            wal.leave(left).record(&record(len));
        }
    }
    expect_all(&wal);
}

#[test]
fn records_are_cut_at_every_place_of_a_segment() {
    for page_size in PAGE_SIZES {
        let mut wal = Wal::new(format(15, page_size, MIB));
        for left in [8, 16, 24, 32, 40, u64::from(page_size) - 24] {
            for len in [24, 33, left as usize + 25] {
                wal.leave_in_segment(left).record(&record(len));
            }
        }
        assert!(wal.bytes().len() > 15 << 20);
        expect_all(&wal);
        assert_eq!(read::as_segments(wal.bytes()), whole(wal.bytes()));
    }
}

#[test]
fn every_segment_size() {
    for segment_size in (20..=30).map(|bits| 1u32 << bits) {
        for left in [8, 16, 24, 4096] {
            // Only the last two pages of the segment exist.
            let boundary = Lsn(3 * u64::from(segment_size));
            let mut wal = Wal::new(format(18, 8192, segment_size)).starting_at(Lsn(boundary.0 - 2 * 8192));
            wal.leave_in_segment(left).record(&record(5000));
            assert!(wal.end() > boundary);
            wal.record(&record(24));
            let end = expect_all(&wal);
            assert_eq!((end.lsn, end.reason), (wal.end(), EndReason::NoMoreInput));
        }
    }
}

/// A whole segment of one gigabyte goes by, most of which a switch leaves unused.
#[test]
fn a_whole_segment_of_the_largest_size() {
    let fmt = format(16, 1 << 16, 1 << 30);
    let mut wal = Wal::new(fmt);
    wal.record(&record(100));
    let switch = wal.record(&RecordBuilder::new(RmgrId::XLOG, 0x40));
    let mut behind = Wal::new(fmt).starting_at(Lsn(2 << 30));
    behind.previous(switch);
    let lsn = behind.record(&record(200));

    let mut decoder = Decoder::new();
    let mut lsns = Vec::new();
    let chunk = vec![0; 1 << 20];
    let mut feed = |bytes: &[u8]| {
        decoder.feed(bytes);
        while let Some(raw) = decoder.next_record().unwrap() {
            lsns.push((raw.lsn, raw.end));
        }
    };
    feed(wal.bytes());
    let mut unused = (1 << 30) - wal.bytes().len();
    while unused > 0 {
        let len = unused.min(chunk.len());
        feed(&chunk[..len]);
        unused -= len;
    }
    feed(behind.bytes());
    assert_eq!(lsns[1..], [(switch, Lsn(2 << 30)), (lsn, behind.end())]);
}

#[test]
fn one_record_over_many_pages_and_segments() {
    for page_size in [1 << 10, 1 << 13, 1 << 16] {
        for left in [8, 16, 24, 504] {
            let mut wal = Wal::new(format(14, page_size, MIB));
            wal.leave_in_segment(left).record(&record(3_500_001));
            wal.record(&record(50));
            expect_all(&wal);
        }
    }
}

#[test]
fn a_record_that_ends_with_its_page_or_segment() {
    // The last bytes are padding, or all of them are the record's.
    for len in (26..=32).chain([24, 33, 40, 993, 994, 999, 1000]) {
        let mut wal = small_pages();
        for _ in 0..2 {
            wal.leave((len as u64).next_multiple_of(8)).record(&record(len));
            assert_eq!(wal.end().0 % 1024, 0);
        }
        wal.leave_in_segment((len as u64).next_multiple_of(8)).record(&record(len));
        wal.record(&record(100));
        expect_all(&wal);
    }
    let mut wal = small_pages();
    wal.leave_in_segment(64).record(&record(64));
    let [.., last] = wal.records() else { unreachable!() };
    assert_eq!(last.end.segment_offset(MIB), 0, "the end is the boundary, not behind the header that comes next");
    assert_eq!(wal.position(), last.end + 40);
}

/// What a reader that starts at `from` must find: the first record whose start is not before it.
fn records_from(wal: &Wal, from: Lsn) -> Vec<Placed> {
    wal.records().iter().filter(|record| record.lsn >= from).cloned().collect()
}

#[test]
fn a_start_at_any_page_finds_the_first_record() {
    for page_size in [1 << 10, 1 << 13] {
        let page = u64::from(page_size);
        let mut wal = Wal::new(format(13, page_size, MIB));
        for left in [8, 16, 24, 32, 200] {
            // The rest fills no page, one or several; it ends inside a page, with its padding, or with a page.
            for rest in [1, 7, 8, 16, 100, page - 24, page - 25, page - 31, page - 32, 3 * (page - 24), 3 * (page - 24) + 1] {
                wal.leave(left).record(&record((left + rest).max(26) as usize));
            }
        }
        wal.leave_in_segment(16).record(&record(1_100_000));
        wal.record(&record(24));
        let mut from = wal.start();
        while from < wal.end() {
            let reading = in_chunks(Decoder::starting_at(from, wal.format()), wal.bytes_from(from), []);
            reading.stop.as_ref().unwrap_or_else(|e| panic!("from {from}: {e}"));
            let expected = records_from(&wal, from);
            assert!(reading.placed().eq(&expected), "from {from}: {:?}", reading.lsns().first());
            from = from + page;
        }
    }
}

/// The search for the first record asks every page how much is left, and does not trust one that says that it is the last.
#[test]
fn a_start_at_a_page_that_seems_to_end_a_record_with_itself() {
    let mut wal = small_pages();
    wal.leave(504).record(&record(4000));
    let next = wal.record(&record(40));
    let page = Lsn(wal.records()[1].lsn.0 / 1024 * 1024 + 1024);
    for remaining in [1000, 999, 993] {
        wal.patch_page(page, |header| header.remaining = remaining);
        let reading = in_chunks(Decoder::starting_at(page, wal.format()), wal.bytes_from(page), []);
        assert_eq!((reading.lsns(), reading.stop.is_ok()), (vec![next], true), "{remaining}");
    }
}

#[test]
fn a_start_at_any_record() {
    let mut wal = small_pages();
    for len in (26..=400).step_by(3) {
        wal.record(&record(len));
    }
    for placed in wal.records() {
        let reading = in_chunks(Decoder::starting_at(placed.lsn, wal.format()), wal.bytes_from(placed.lsn), []);
        assert!(reading.placed().eq(&records_from(&wal, placed.lsn)), "from {}", placed.lsn);
    }
}

#[test]
fn switches() {
    let cases: [Named<'_>; 9] = [
        ("inside a page", &|wal| {
            wal.leave(800);
        }),
        ("right behind the long header", &|_| {}),
        ("as the first record of a page", &|wal| {
            wal.leave(1000);
        }),
        ("ends with its page", &|wal| {
            wal.leave(24);
        }),
        ("cut after 16 bytes by a page", &|wal| {
            wal.leave(16);
        }),
        ("cut after 8 bytes by a page", &|wal| {
            wal.leave(8);
        }),
        ("ends with its segment", &|wal| {
            wal.leave_in_segment(24);
        }),
        ("cut after 16 bytes by a segment", &|wal| {
            wal.leave_in_segment(16);
        }),
        ("cut after 8 bytes by a segment", &|wal| {
            wal.leave_in_segment(8);
        }),
    ];
    for (what, place) in cases {
        let mut wal = small_pages();
        place(&mut wal);
        wal.switch();
        let Placed { lsn, end, .. } = *wal.records().last().unwrap();
        assert_eq!(end.segment_offset(MIB), 0, "{what}");
        let segments = end.segment_number(MIB) - lsn.segment_number(MIB);
        assert_eq!(segments, if what.contains("by a segment") { 2 } else { 1 }, "{what}");
        wal.record(&record(30));
        wal.switch();
        wal.record(&record(40));
        expect_all(&wal);
        assert_eq!(read::as_segments(wal.bytes()), whole(wal.bytes()), "{what}");
    }
}

#[test]
fn what_a_switch_leaves_unused_is_not_looked_at() {
    let mut wal = small_pages();
    wal.switch();
    let unused = wal.records()[0].lsn + 24;
    let len = wal.bytes_from(unused).len();
    wal.patch(unused, &noise(len));
    wal.record(&record(30));
    expect_all(&wal);
}

#[test]
fn lost_records() {
    let cases = [(false, 8, 0), (false, 16, 0), (false, 24, 1), (false, 304, 3), (true, 8, 0), (true, 400, 0)];
    for (major, (segment, left, pages)) in [10, 14, 18, 19].into_iter().flat_map(|major| cases.map(|case| (major, case))) {
        let mut wal = Wal::new(format(major, 1 << 10, MIB));
        wal.record(&record(100));
        // Pages that are filled before the one that is lost; `true`: the lost one starts a segment.
        match segment {
            true => wal.leave_in_segment(left),
            false => wal.leave(left),
        };
        let lost = wal.cut_short(&record(20_000), pages);
        let lsn = wal.overwrite_contrecord(lost);
        wal.record(&record(60));
        assert_eq!(lsn.segment_offset(MIB) == 40, segment);
        expect_all(&wal);
        let reading = whole(wal.bytes());
        for found in &reading.records {
            assert_eq!(found.overwritten, (found.placed.lsn == lsn).then_some(lost), "{}", found.placed.lsn);
        }
        // A reader that starts at the page has nothing to overwrite.
        let page = Lsn(lsn.0 / 1024 * 1024);
        let reading = in_chunks(Decoder::starting_at(page, wal.format()), wal.bytes_from(page), []);
        assert_eq!(reading.lsns()[0], lsn);
        assert_eq!(reading.records[0].overwritten, None);
    }
}

#[test]
fn a_lost_record_whose_page_also_goes_on_is_damage() {
    let mut wal = small_pages();
    let lost = wal.cut_short(&record(5000), 2);
    let page = wal.end();
    wal.overwrite_contrecord(lost);
    wal.patch_page(page, |header| header.info.0 |= PageInfo::XLP_FIRST_IS_CONTRECORD.0);
    let error = every_way(&wal).stop.unwrap_err();
    assert_eq!(error.kind(), &pgwal::ErrorKind::ContinuationAtStart);
    assert_eq!((error.location().lsn, error.location().record), (page, Some(lost)));
}

#[test]
fn the_wal_ends_in_zeroes() {
    // Inside a page, right behind a page header, and where only 8 or 16 bytes are left of a page.
    for left in [1000, 976, 504, 24, 16, 8] {
        let mut wal = small_pages();
        wal.record(&record(1500));
        if left == 1000 {
            wal.leave(24).record(&record(24));
            wal.open_page();
        } else {
            wal.leave(left);
        }
        let lsn = wal.end();
        assert_eq!(lsn.0 % 1024, 1024 - left);
        wal.zero_tail();
        let end = expect_all(&wal);
        assert_eq!((end.lsn, end.reason), (lsn, EndReason::Zeroes));
    }
}

#[test]
fn the_wal_ends_with_a_page() {
    let mut wal = small_pages();
    wal.leave(24).record(&record(24));
    let end = wal.end();
    wal.zero_tail();
    let reading = every_way(&wal);
    assert_eq!(reading.stop.clone().map(|end| (end.lsn, end.reason)), Ok((end, EndReason::ZeroPage)));
    assert_eq!(read::as_segments(wal.bytes()), reading);

    let mut wal = small_pages();
    wal.leave(24).record(&record(24));
    let end = wal.end();
    wal.recycled_pages(3, 5 << 20);
    let reading = every_way(&wal);
    let old = Lsn(end.0 - (5 << 20));
    assert_eq!(reading.stop.clone().map(|end| (end.lsn, end.reason)), Ok((end, EndReason::Recycled { page: old })));
    assert_eq!(read::as_segments(wal.bytes()), reading);
}

#[test]
fn the_wal_ends_inside_a_record() {
    let tails: [Named<'_>; 3] = [
        ("zeroes", &|wal| {
            wal.zero_tail();
        }),
        ("old pages", &|wal| {
            wal.recycled_pages(2, 3 << 20);
        }),
        ("nothing", &|_| {}),
    ];
    for (what, tail) in tails {
        for (left, pages) in [(8, 0), (16, 0), (24, 0), (504, 0), (504, 2)] {
            let mut wal = small_pages();
            wal.leave(left);
            let lsn = wal.cut_short(&record(9999), pages);
            tail(&mut wal);
            let end = every_way(&wal).stop.unwrap();
            let missing = Some(9999 - left - pages as u64 * 1000);
            assert_eq!((end.lsn, end.reason), (lsn, EndReason::Unfinished { missing }), "{what}");
        }
    }
}

#[test]
fn what_an_earlier_use_of_the_file_left_is_an_end_to_the_reader_of_segments() {
    // A receiver writes no zeroes behind the last record: an old record follows it directly, and then old pages.
    let mut wal = small_pages();
    wal.record(&record(200));
    let end = wal.end();
    let mut old = small_pages().starting_at(Lsn(wal.start().0 / 2));
    while old.bytes().len() < MIB as usize {
        old.record(&record(56));
    }
    let behind = old.bytes()[wal.bytes().len()..MIB as usize].to_vec();
    wal.raw(&behind);
    let reading = read::as_segments(wal.bytes());
    assert_eq!(reading.stop.map(|end| (end.lsn, end.reason)), Ok((end, EndReason::Leftover)));
    assert_eq!(reading.records.len(), 1);
    // The push reader cannot see the pages behind: to it, this is damage.
    assert!(every_way(&wal).stop.is_err());
}

/// Where the WAL is cut at `len` bytes, by hand: how many records are whole, and the verdict.
fn expected_of_prefix(wal: &Wal, len: u64) -> (usize, Lsn, EndReason) {
    let cut = wal.start() + len;
    let fmt = wal.format();
    let mut end = wal.start();
    for (index, placed) in wal.records().iter().enumerate() {
        // Bytes of the record before the cut, one by one over the page headers.
        let there = (0..placed.bytes.len()).take_while(|&at| fmt.lsn_in_record(placed.lsn, at as u64) < cut).count();
        if there == placed.bytes.len() {
            end = placed.end;
            continue;
        }
        return match there {
            0 => (index, if placed.lsn <= cut { placed.lsn } else { end }, EndReason::NoMoreInput),
            1..=3 => (index, placed.lsn, EndReason::Unfinished { missing: None }),
            _ => (index, placed.lsn, EndReason::Unfinished { missing: Some((placed.bytes.len() - there) as u64) }),
        };
    }
    (wal.records().len(), end, EndReason::NoMoreInput)
}

#[test]
fn every_prefix_has_its_verdict() {
    let mut wal = small_pages().starting_at(Lsn(2 * u64::from(MIB) - 4096));
    for len in [60, 24, 33, 750, 1041, 90] {
        wal.record(&record(len));
    }
    wal.leave_in_segment(8).record(&record(77));
    wal.leave(16).record(&record(2500));
    wal.record(&record(41));
    for len in 0..=wal.bytes().len() {
        let decoder = Decoder::starting_at(wal.start(), wal.format());
        let reading = in_chunks(decoder, &wal.bytes()[..len], []);
        let end = reading.stop.unwrap();
        assert_eq!((reading.records.len(), end.lsn, end.reason), expected_of_prefix(&wal, len as u64), "{len} bytes");
    }
}

#[test]
fn a_decoder_that_was_never_asked_has_a_verdict_too() {
    let mut wal = small_pages();
    let lsn = wal.record(&record(60));
    wal.record(&record(24));
    let mut decoder = Decoder::starting_at(lsn, wal.format());
    decoder.feed(wal.bytes_from(lsn));
    assert_eq!(decoder.finish().lsn, lsn);
    assert_eq!(Decoder::new().finish().reason, EndReason::NoMoreInput);
}

#[test]
fn every_major_by_its_magic() {
    assert_eq!(MAGICS.iter().map(|row| row.1).collect::<Vec<_>>(), (10..=19).collect::<Vec<_>>());
    for &(magic, major) in MAGICS {
        let mut wal = Wal::new(format(major, 8192, MIB));
        wal.record(&record(9000));
        assert_eq!(wal.bytes()[..2], magic.0.to_le_bytes());
        expect_all(&wal);
        let mut decoder = Decoder::new();
        decoder.feed(wal.bytes());
        let raw = decoder.next_record().unwrap().unwrap();
        assert_eq!((raw.fmt.major, raw.fmt.wal_page_size, raw.fmt.segment_size), (major, 8192, MIB));
    }
}

#[test]
fn timelines_go_up_and_records_have_that_of_their_last_page() {
    let mut wal = small_pages();
    wal.record(&record(30));
    wal.timeline(TimelineId(3)).leave(1000 - 64).record(&record(2000));
    let reading = every_way(&wal);
    let timelines: Vec<u32> = reading.records.iter().map(|found| found.timeline.0).collect();
    assert_eq!(timelines.first(), Some(&1));
    assert_eq!(timelines.last(), Some(&3));
}

#[test]
fn records_are_borrowed_unless_a_page_cuts_them() {
    let mut wal = small_pages();
    let block = BlockBuilder::new(0, relation(), 7).data(&[1, 2, 3]);
    wal.record(&RecordBuilder::new(RmgrId(10), 0).block(block).main(&[1, 0, 0]));
    wal.leave(32).record(&record(32));
    wal.leave(32).record(&record(33));
    let mut decoder = Decoder::new();
    decoder.feed(wal.bytes());
    let mut last = None;
    while let Some(raw) = decoder.next_record().unwrap() {
        last = Some((raw.bytes.len(), matches!(raw.bytes, std::borrow::Cow::Borrowed(_))));
        assert!(raw.bytes.len() == 33 || last.unwrap().1 || raw.bytes.len() > 500, "{last:?}");
    }
    assert_eq!(last, Some((33, false)));
}

/// A length that no server of the major replays is damage before its bytes are there; the reader of pg_waldump has no limit.
#[test]
fn the_longest_record_is_that_of_the_major() {
    for major in 10..=19 {
        let fmt = format(major, 8192, MIB);
        let longest = if major >= 16 { 1020 << 20 } else { 0x3FFF_FFFF - 8192 };
        for len in [longest, longest + 1, 1_069_548_588, u32::MAX] {
            let mut wal = Wal::new(fmt);
            wal.leave(160);
            let first = wal.record(&RecordBuilder::filler(1504));
            wal.patch(first, &len.to_le_bytes());
            wal.patch_page(Lsn(first.0.next_multiple_of(8192)), |header| header.remaining = len - 160);
            let stop = every_way(&wal).stop;
            if len > longest {
                assert_eq!(stop.unwrap_err().kind(), &ErrorKind::RecordTooLong { found: len }, "{major}");
            } else {
                let missing = Some(u64::from(len) - 1504);
                assert_eq!(stop, Ok(End { lsn: first, reason: EndReason::Unfinished { missing } }), "{major}");
            }
            let mut strict = Decoder::strict_at(wal.start(), fmt);
            strict.feed(wal.bytes());
            while strict.next_record().unwrap().is_some() {}
            assert!(matches!(strict.finish().reason, EndReason::Unfinished { .. }), "{major}");
        }
    }
}
