//! Comparing two copies: every verdict, on WAL that is built for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pgwal::diff::{self, Comparison, Error, Event, First, Found, Kind, Options, Side, Sides, Sink, Switch, Verdict, Which};
use pgwal::page::PageHeader;
use pgwal::record::Compression;
use pgwal::types::{Oid, RelFileLocator};
use pgwal::{Lsn, RmgrId, TimelineId, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, Wal, refresh_crc};
use tempfile::TempDir;

fn fmt(major: u8) -> WalFormat {
    WalFormat { segment_size: MIB, ..WalFormat::new(major) }
}

/// Two full segments and a bit, of records that some pages cut.
fn wal() -> Wal {
    let mut wal = Wal::new(fmt(15));
    while wal.end() < Lsn(0x30_1000) {
        wal.record(&change(1000));
    }
    wal
}

/// A record of `len` bytes that changes something.
fn change(len: usize) -> RecordBuilder {
    RecordBuilder::new(RmgrId(10), 0x00).main(&vec![0xA5; len - 29]).long_main()
}

/// Two directories.
struct Two {
    dir: TempDir,
}

impl Two {
    fn new(a: &Wal, b: &Wal) -> Two {
        let two = Two { dir: TempDir::new().unwrap() };
        for (side, wal) in [("a", a), ("b", b)] {
            fs::create_dir(two.dir.path().join(side)).unwrap();
            for (name, bytes) in wal.segments() {
                fs::write(two.path(side).join(name.to_string()), bytes).unwrap();
            }
        }
        two
    }

    fn path(&self, side: &str) -> PathBuf {
        self.dir.path().join(side)
    }

    fn compare(&self, options: Options) -> (Comparison, Vec<String>) {
        compare(&self.path("a"), &self.path("b"), options).unwrap()
    }
}

/// Events in short: `-LSN`, `+LSN`, ` LSN`, `@LSN`, `~LSN` for the same in meaning, `#LSN` for a page header, `!` for damage.
#[derive(Default)]
struct Short(Vec<String>);

impl Sink for Short {
    fn event(&mut self, event: Event<'_>) -> io::Result<()> {
        let place = |found: &Found<'_>| match found {
            Found::Record(raw) => raw.lsn.to_string(),
            Found::Damage(damage) => format!("!{}", damage.lsn),
        };
        match event {
            Event::Hunk { at } => self.0.push(format!("@{at}")),
            Event::Context(raw) => self.0.push(format!(" {}", raw.lsn)),
            Event::Only(which, found) => self.0.push(format!("{}{}", if which == Which::A { "-" } else { "+" }, place(&found))),
            Event::Changed(a, b) => self.0.extend([format!("-{}", place(&a)), format!("+{}", place(&b))]),
            Event::SameBut(a, b) => {
                assert!(a.bytes != b.bytes || a.lsn == b.lsn);
                self.0.push(format!("~{}", a.lsn));
            }
            Event::PageHeaders { page, a, b } => {
                assert_ne!(a, b);
                self.0.push(format!("#{page}"));
            }
        }
        Ok(())
    }
}

fn compare(a: &Path, b: &Path, options: Options) -> Result<(Comparison, Vec<String>), Error> {
    let open = |path: &Path| Side::open(path, None).unwrap();
    let mut events = Short::default();
    let comparison = diff::diff(&open(a), &open(b), options, &mut events)?;
    Ok((comparison, events.0))
}

/// Compares both ways and with `check`, which must come to the same.
#[track_caller]
fn between(a: &Wal, b: &Wal) -> (Comparison, Vec<String>) {
    let two = Two::new(a, b);
    let (comparison, events) = two.compare(Options { context: 1, ..Options::default() });
    let (checked, others) = two.compare(Options { context: 1, check: true, ..Options::default() });
    assert_eq!(format!("{:?}", checked.verdict), format!("{:?}", comparison.verdict));
    assert_eq!((checked.but_for, others), (comparison.but_for.clone(), events.clone()));
    let (other_way, _) = compare(&two.path("b"), &two.path("a"), Options::default()).unwrap();
    assert_eq!(std::mem::discriminant(&other_way.verdict), std::mem::discriminant(&comparison.verdict));
    assert_eq!(other_way.but_for, comparison.but_for);
    (comparison, events)
}

/// The same records but for `kinds`.
#[track_caller]
fn same_but(a: &Wal, b: &Wal, kinds: &[Kind]) -> (Comparison, Vec<String>) {
    let (comparison, events) = between(a, b);
    assert!(matches!(comparison.verdict, Verdict::IdenticalBut), "{comparison:#?}");
    assert_eq!(comparison.but_for.kinds().collect::<Vec<_>>(), kinds);
    assert!(comparison.is_same(kinds, false) && !comparison.is_same(&[], false));
    (comparison, events)
}

#[test]
fn equal_bytes() {
    let (comparison, events) = between(&wal(), &wal());
    assert!(matches!(comparison.verdict, Verdict::Identical), "{comparison:?}");
    assert_eq!((comparison.start, comparison.first_byte, events.len()), (Lsn(0x10_0000), None, 0));
    assert!(comparison.is_same(&[], false));
    assert_eq!(comparison.same_bytes_to, Lsn(0x40_0000));
    // Equal damage is seen only by those who look.
    let mut damaged = wal();
    let lsn = damaged.records()[500].lsn;
    damaged.patch_record(lsn, 30, &[0]);
    let two = Two::new(&damaged, &damaged);
    assert_eq!(two.compare(Options::default()).0.damage_in_common, 0);
    let (comparison, _) = two.compare(Options { check: true, ..Options::default() });
    assert!(matches!(comparison.verdict, Verdict::Identical) && comparison.damage_in_common == 1, "{comparison:?}");
}

#[test]
fn one_record_differs() {
    let a = wal();
    for number in [0, 1, 500, 1500, a.records().len() - 1] {
        let (mut b, lsn) = (wal(), a.records()[number].lsn);
        b.patch_record(lsn, 100, &[0]).refresh_crc(lsn);
        let (comparison, events) = between(&a, &b);
        let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:?}") };
        assert_eq!(parting.at, lsn);
        let before = number.checked_sub(1).map(|before| a.records()[before].lsn);
        assert_eq!(parting.last_common.as_ref().map(|raw| raw.lsn), before);
        let Sides { a: Some(First::Record(first)), b: Some(First::Record(other)) } = &parting.first else { panic!("{parting:?}") };
        assert!(first.lsn == lsn && other.lsn == lsn && first.bytes != other.bytes);
        assert_eq!(parting.meets_at, a.records().get(number + 1).map(|next| next.lsn));
        let context = |record: Option<Lsn>| record.map(|lsn| format!(" {lsn}"));
        let mut expected = vec![format!("@{lsn}")];
        expected.extend(context(before));
        expected.extend([format!("-{lsn}"), format!("+{lsn}")]);
        expected.extend(context(parting.meets_at));
        assert_eq!(events, expected);
        assert!(comparison.first_byte > Some(lsn) && comparison.first_byte < Some(lsn + 1000));
        assert_eq!((comparison.sides.a.only.records, comparison.sides.b.only.records), (1, 1));
    }
}

#[test]
fn context_of_differences_that_are_near() {
    let a = wal();
    let mut b = wal();
    let lsns: Vec<Lsn> = a.records().iter().map(|record| record.lsn).collect();
    for number in [10, 12, 15, 30] {
        b.patch_record(lsns[number], 100, &[0]).refresh_crc(lsns[number]);
    }
    let (_, events) = Two::new(&a, &b).compare(Options { context: 2, ..Options::default() });
    let mut expected = Vec::new();
    for (mark, number) in [
        ("@", 10),
        (" ", 8),
        (" ", 9),
        ("-", 10),
        ("+", 10),
        (" ", 11),
        ("-", 12),
        ("+", 12),
        (" ", 13),
        (" ", 14),
        ("-", 15),
        ("+", 15),
        (" ", 16),
        (" ", 17),
        ("@", 30),
        (" ", 28),
        (" ", 29),
        ("-", 30),
        ("+", 30),
        (" ", 31),
        (" ", 32),
    ] {
        expected.push(format!("{mark}{}", lsns[number]));
    }
    assert_eq!(events, expected);
}

#[test]
fn a_prefix() {
    let long = wal();
    for records in [1, 700, 1500, long.records().len() - 1] {
        let mut short = Wal::new(fmt(15));
        for _ in 0..records {
            short.record(&change(1000));
        }
        let (comparison, events) = between(&short, &long);
        let Verdict::Prefix { side: Which::A, parting } = &comparison.verdict else { panic!("{comparison:?}") };
        let next = long.records()[records].lsn;
        assert_eq!((parting.at, parting.meets_at), (next, None));
        assert_eq!(parting.last_common.as_ref().map(|raw| raw.lsn), Some(long.records()[records - 1].lsn));
        assert!(parting.first.a.is_none() && matches!(&parting.first.b, Some(First::Record(raw)) if raw.lsn == next));
        let only = comparison.sides.b.only;
        assert_eq!((only.records, only.end), ((long.records().len() - records) as u64, long.end()));
        assert_eq!(events.iter().filter(|event| event.starts_with('+')).count() as u64, only.records);
        assert!(!comparison.is_same(&[], false) && comparison.is_same(&[], true));
        assert!(!comparison.is_same(&[Kind::HintOnly], false));
    }
}

#[test]
fn a_record_that_ends_behind_the_last_segment_is_missing() {
    let wal = wal();
    let two = Two::new(&wal, &wal);
    for name in ["000000010000000000000002", "000000010000000000000003"] {
        fs::remove_file(two.path("a").join(name)).unwrap();
    }
    let (comparison, _) = two.compare(Options::default());
    let Verdict::Prefix { side: Which::A, parting } = &comparison.verdict else { panic!("{comparison:?}") };
    let cut = wal.records().iter().rev().find(|record| record.lsn < Lsn(0x20_0000)).unwrap();
    assert!(cut.end > Lsn(0x20_0000));
    assert_eq!(parting.at, cut.lsn);
}

#[test]
fn page_headers() {
    let a = wal();
    let mut b = wal();
    b.patch_page(Lsn(0x10_2000), |header| header.info.0 |= 0x0004);
    b.patch_page(Lsn(0x22_0000), |header| header.padding = 7);
    for page in (0x2F_0000..0x30_2000).step_by(8192) {
        b.patch_page(Lsn(page), |header| header.timeline = TimelineId(2));
    }
    let (comparison, events) = same_but(&a, &b, &[Kind::PageHeaders]);
    assert_eq!(comparison.but_for.page_headers, 2 + 9);
    assert_eq!(comparison.but_for.page_header_fields, ["xlp_info", "padding", "xlp_tli"]);
    assert_eq!((events.len(), &*events[0], &*events[1]), (11, "#0/00102000", "#0/00220000"));
    assert_eq!(comparison.first_byte, Some(Lsn(0x10_2002)));
    let mut b = wal();
    b.patch_page(Lsn(0x20_0000), |header| header.long.as_mut().unwrap().system_identifier += 1);
    let (comparison, _) = same_but(&a, &b, &[Kind::PageHeaders]);
    assert_eq!(comparison.but_for.page_header_fields, ["xlp_sysid"]);
}

#[test]
fn padding() {
    let build = |header: u8, behind: u8, switch: u8, payload: u8| {
        let mut wal = Wal::new(fmt(15));
        wal.record(&RecordBuilder::filler(1001));
        let second = wal.record(&RecordBuilder::filler(1001));
        wal.patch_record(second, 18, &[header]).refresh_crc(second);
        wal.patch(second + 1003, &[behind]);
        // TRUNCATE of no relation: database, count, flags, three bytes of padding.
        let mut truncate = [0; 12];
        truncate[10] = payload;
        wal.record(&RecordBuilder::new(RmgrId(10), 0x30).main(&truncate));
        let lsn = wal.switch();
        wal.patch(lsn + 100, &[switch]);
        wal.record(&RecordBuilder::filler(100));
        wal
    };
    let plain = build(0, 0, 0, 0);
    for other in [build(1, 0, 0, 0), build(0, 1, 0, 0), build(0, 0, 1, 0), build(0, 0, 0, 1)] {
        let (comparison, _) = same_but(&plain, &other, &[Kind::Padding]);
        assert_eq!(comparison.but_for.padding, 1);
    }
    assert_eq!(same_but(&plain, &build(1, 1, 1, 1), &[Kind::Padding]).0.but_for.padding, 3);
}

fn rel() -> RelFileLocator {
    RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(16384) }
}

fn page(seed: u8) -> Vec<u8> {
    (0..8192u32).map(|at| if (200..7000).contains(&at) { 0 } else { (at / 9) as u8 ^ seed }).collect()
}

#[test]
fn images_that_are_stored_differently() {
    let build = |image: &dyn Fn(u8) -> ImageBuilder| {
        let mut wal = Wal::new(fmt(15));
        for number in 0..200u8 {
            let block = BlockBuilder::new(0, rel(), number.into()).image(image(number));
            wal.record(&RecordBuilder::new(RmgrId::XLOG, 0xB0).block(block));
            wal.record(&RecordBuilder::filler(100));
        }
        wal
    };
    let whole = build(&|number| ImageBuilder::new(&page(number)));
    let hole = build(&|number| ImageBuilder::new(&page(number)).hole(200, 6800));
    let lz4 = build(&|number| ImageBuilder::new(&page(number)).hole(200, 6800).compress(Compression::Lz4));
    let pglz = build(&|number| ImageBuilder::new(&page(number)).compress(Compression::Pglz));
    for (a, b) in [(&whole, &hole), (&hole, &lz4), (&lz4, &pglz), (&pglz, &whole)] {
        let (comparison, _) = same_but(a, b, &[Kind::Compression]);
        assert_eq!(comparison.but_for.compression, 200);
    }
    // One page is another one.
    let other = build(&|number| ImageBuilder::new(&page(number | u8::from(number == 4))).hole(200, 6800));
    let (comparison, _) = between(&hole, &other);
    let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:?}") };
    assert_eq!((parting.at, parting.meets_at), (hole.records()[8].lsn, Some(hole.records()[9].lsn)));
}

#[test]
fn every_byte_of_a_record_has_a_name() {
    let fmt = WalFormat::new(15);
    let image = ImageBuilder::new(&[7; 8192]).hole(100, 4000).compress(Compression::Lz4);
    let len = image.bytes().len();
    let first = BlockBuilder::new(0, rel(), 1).image(image);
    let second = BlockBuilder::new(1, rel(), 2).same_rel().data(&[1, 2, 3]);
    let builder = RecordBuilder::new(RmgrId(10), 0).block(first).block(second).toplevel_xid(9).main(&[4; 5]);
    let record = builder.bytes(fmt, Lsn(0x100_0028));
    let names = diff::record_fields(&record, fmt).into_iter().map(|field| format!("{}:{}", field.name, field.bytes.len()));
    let expected = "xl_tot_len:4, xl_xid:4, xl_prev:8, xl_info:1, xl_rmid:1, padding:2, xl_crc:4, \
        block 0 id:1, block 0 fork_flags:1, block 0 data_length:2, block 0 image length:2, block 0 hole_offset:2, block 0 bimg_info:1, \
        block 0 hole_length:2, block 0 spcOid:4, block 0 dbOid:4, block 0 relNode:4, block 0 block number:4, \
        block 1 id:1, block 1 fork_flags:1, block 1 data_length:2, block 1 block number:4, \
        toplevel_xid id:1, toplevel_xid:4, main data id:1, main data data_length:1";
    let expected = format!("{expected}, block 0 image:{len}, block 1 data:3, main data:5");
    assert_eq!(names.collect::<Vec<_>>().join(", "), expected);
    // Whatever is cut off or damaged, every byte is there once, in order, and nothing panics.
    for cut in 0..record.len() {
        for flip in [0, 0xFF] {
            let mut bytes = record[..cut].to_vec();
            bytes.iter_mut().skip(24).step_by(3).for_each(|byte| *byte ^= flip);
            let fields = diff::record_fields(&bytes, fmt);
            assert_eq!(fields.iter().flat_map(|field| field.bytes).copied().collect::<Vec<_>>(), bytes);
        }
    }
}

#[test]
fn parts_that_are_laid_out_differently() {
    let build = |long: bool| {
        let mut wal = Wal::new(fmt(15));
        let record = RecordBuilder::new(RmgrId::XLOG, 0x20).main(&[7; 40]);
        wal.record(&if long { record.long_main() } else { record });
        wal.record(&RecordBuilder::filler(100));
        wal
    };
    same_but(&build(false), &build(true), &[Kind::Layout]);
}

#[test]
fn hint_only_records() {
    let build = |seed: u8| {
        let mut wal = Wal::new(fmt(15));
        wal.record(&RecordBuilder::filler(100));
        wal.record(&RecordBuilder::new(RmgrId::XLOG, 0xA0).block(BlockBuilder::new(0, rel(), 3).image(ImageBuilder::new(&page(seed)))));
        wal.record(&RecordBuilder::filler(100));
        wal
    };
    let (comparison, _) = same_but(&build(1), &build(2), &[Kind::HintOnly]);
    assert_eq!(comparison.but_for.hint_only, 2);
    // Such records may be missing.
    let mut more = build(1);
    more.record(&RecordBuilder::filler(100));
    let (comparison, _) = between(&build(1), &more);
    assert!(matches!(comparison.verdict, Verdict::Prefix { side: Which::A, .. }), "{comparison:?}");
    assert!(comparison.is_same(&[Kind::HintOnly], false) && !comparison.is_same(&[], false));
    // The same with a record that changes a page.
    let mut change = build(1);
    change.record(&RecordBuilder::new(RmgrId(10), 0x00).main(&[1, 0, 0]));
    let (comparison, _) = between(&build(1), &change);
    assert!(matches!(comparison.verdict, Verdict::Prefix { side: Which::A, .. }), "{comparison:?}");
    assert_eq!((comparison.sides.b.only.changes, comparison.is_same(&[Kind::HintOnly], false)), (1, false));
}

#[test]
fn behind_the_end() {
    let a = wal();
    let mut recycled = wal();
    recycled.recycled_pages(40, 2 << 20);
    let mut garbage = wal();
    garbage.zeroes(8192).raw(&[9; 100]);
    for other in [&recycled, &garbage] {
        same_but(&a, other, &[Kind::BehindEnd]);
    }
    // A segment for later use.
    let two = Two::new(&a, &a);
    fs::copy(two.path("a").join("000000010000000000000001"), two.path("b").join("000000010000000000000004")).unwrap();
    let (comparison, _) = two.compare(Options::default());
    assert!(comparison.is_same(&[Kind::BehindEnd], false) && !comparison.is_same(&[], false), "{comparison:?}");
}

/// One flipped bit, wherever it is, is said to be damage, or padding, or a field of a page header, and never more than what it hits.
#[test]
fn one_flipped_bit() {
    let mut good = Wal::new(fmt(15));
    while good.end() < Lsn(0x10_6000) {
        let len = 200 + (good.end().0 as usize / 8 % 5) * 1500;
        good.record(&change(len));
    }
    let two = Two::new(&good, &good);
    let file = two.path("b").join("000000010000000000000001");
    let bytes = fs::read(&file).unwrap();
    let end = (good.end().0 - good.start().0) as usize;
    let last = good.records().last().unwrap();
    let mut damaged = 0;
    let headers = (0..end).step_by(8192).flat_map(|page| (page + 40 * usize::from(page == 0)..page + 24).step_by(1));
    let first_header = 2..8; // the format is not flipped: that is another test
    let records = good.records().iter().flat_map(|record| {
        let at = (record.lsn.0 - good.start().0) as usize;
        (at..at + 24).step_by(1).chain((at + 24..).take(3))
    });
    for (number, at) in headers.chain(first_header).chain(records).enumerate() {
        let bit = 1 << (number % 8);
        let mut flipped = bytes.clone();
        flipped[at] ^= bit;
        fs::write(&file, &flipped).unwrap();
        let what = format!("bit {bit:#x} of byte {at:#x}");
        let (comparison, events) = two.compare(Options::default());
        assert_eq!(comparison.first_byte, Some(good.start() + at as u64), "{what}");
        assert!(!comparison.is_same(&[], true), "{what}: {comparison:?}");
        match &comparison.verdict {
            Verdict::IdenticalBut => {}
            Verdict::Damaged { parting, ends: None } => {
                damaged += 1;
                assert!(comparison.sides.a.damage.is_empty() && comparison.sides.b.damage.len() == 1, "{what}: {comparison:?}");
                // A timeline that is too high shows where the next page has a lower one.
                let shows = if (4..8).contains(&(at % 8192)) { at + 8192 } else { at };
                assert!(parting.at.0 - good.start().0 <= shows as u64, "{what}: {comparison:?}");
                if parting.at < last.lsn {
                    let lost = comparison.sides.a.only.records;
                    assert!(parting.meets_at.is_some() && lost <= 12, "{what}: {lost} records lost, {comparison:?}, {events:?}");
                }
            }
            // Zeroes in the place of the last record's length are the end.
            Verdict::Prefix { parting, .. } => assert_eq!(parting.at, last.lsn, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(damaged > 300, "{damaged}");
}

#[test]
fn damage_to_a_record_and_to_a_page() {
    let a = wal();
    let lsn = a.records()[900].lsn;
    let mut b = wal();
    b.patch_record(lsn, 500, &[0]);
    let (comparison, events) = between(&a, &b);
    let Verdict::Damaged { parting, ends: None } = &comparison.verdict else { panic!("{comparison:?}") };
    let next = a.records()[901].lsn;
    assert_eq!((parting.at, parting.meets_at), (lsn, Some(next)));
    let damage = &comparison.sides.b.damage[0];
    assert_eq!((damage.lsn, damage.to, damage.bytes.len()), (lsn, Some(next), 1000));
    assert_eq!(
        events,
        [format!("@{lsn}"), format!(" {}", a.records()[899].lsn), format!("-{lsn}"), format!("+!{lsn}"), format!(" {next}")]
    );
    // A page of zeroes costs the records that touch it.
    let mut b = wal();
    let page = Lsn(0x15_4000);
    b.patch(page, &[0; 8192]);
    let (comparison, _) = between(&a, &b);
    let Verdict::Damaged { parting, ends: None } = &comparison.verdict else { panic!("{comparison:?}") };
    let touch: Vec<_> = a.records().iter().filter(|record| record.end > page && record.lsn < page + 8192).collect();
    assert_eq!((parting.at, parting.meets_at), (touch[0].lsn, Some(touch.last().unwrap().end)));
    assert_eq!(comparison.sides.a.only.records, touch.len() as u64);
    // Both are damaged, in different places, and differ in a third one.
    let (mut a, mut b) = (wal(), wal());
    let places: Vec<Lsn> = [100, 900, 1500].map(|number| a.records()[number].lsn).to_vec();
    a.patch_record(places[0], 500, &[0]);
    b.patch_record(places[1], 500, &[0]);
    b.patch_record(places[2], 500, &[0]).refresh_crc(places[2]);
    let (comparison, _) = between(&a, &b);
    let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:?}") };
    assert_eq!((parting.at, comparison.sides.a.damage[0].lsn, comparison.sides.b.damage[0].lsn), (places[2], places[0], places[1]));
}

#[test]
fn records_that_are_different_behind_damage() {
    let a = wal();
    let mut b = wal();
    let lsn = a.records()[900].lsn;
    b.patch_record(lsn, 500, &[0]);
    let next = a.records()[901].lsn;
    b.patch_record(next, 500, &[0]).refresh_crc(next);
    let (comparison, _) = between(&a, &b);
    let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:?}") };
    assert_eq!((parting.at, comparison.sides.b.damage[0].lsn), (next, lsn));
}

/// Four segments of records of many lengths, with line ends in them.
fn varied(seed: usize) -> Wal {
    let mut wal = Wal::new(fmt(15));
    for number in seed.. {
        if wal.end() >= Lsn(0x48_0000) {
            break;
        }
        let len = 60 + number * 7919 % 61 * (1 + number % 5 * 20) / 3;
        let bytes: Vec<u8> = (0..len).map(|at| (at * 31 + number * 17) as u8).collect();
        wal.record(&RecordBuilder::new(RmgrId(10), 0x00).main(&bytes).long_main());
    }
    wal
}

/// Writes the segment `number` of `side` anew.
fn edit(two: &Two, side: &str, number: u32, edit: impl FnOnce(&mut Vec<u8>)) {
    let files = fs::read_dir(two.path(side)).unwrap().map(|file| file.unwrap().path());
    let path = files.into_iter().find(|path| path.display().to_string().ends_with(&format!("{number:08X}"))).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

fn swap(bytes: &mut [u8], a: usize, b: usize, len: usize) {
    let first = bytes[a..a + len].to_vec();
    bytes.copy_within(b..b + len, a);
    bytes[b..b + len].copy_from_slice(&first);
}

fn insert(bytes: &mut Vec<u8>, at: usize, len: usize) {
    let size = bytes.len();
    bytes.splice(at..at, vec![0; len]);
    bytes.truncate(size);
}

fn remove(bytes: &mut Vec<u8>, at: usize, len: usize) {
    bytes.drain(at..at + len);
    bytes.extend(vec![0; len]);
}

fn crlf(bytes: &mut Vec<u8>) {
    *bytes = bytes.iter().flat_map(|&byte| if byte == b'\n' { vec![b'\r', byte] } else { vec![byte] }).collect();
}

/// Whole records that are not where they were written are damage, and no other history.
#[test]
fn displaced_content_is_damage() {
    let wal = varied(0);
    type Edit = Box<dyn Fn(&mut Vec<u8>)>;
    let mut edits: Vec<(String, Edit)> = Vec::new();
    for (a, b, len) in [(10, 11, 8192), (3, 90, 8192), (14, 15, 32768), (1, 2, 4096), (41, 42, 4096), (20, 31, 4096)] {
        edits.push((format!("{len} bytes swapped"), Box::new(move |bytes| swap(bytes, a * len, b * len, len))));
    }
    for at in [163_842, 400_000, 500_001, 8192 * 50 + 512] {
        for sectors in [1, 2, 7] {
            let at = at / 512 * 512 + 1024;
            edits.push((format!("sectors swapped at {at}"), Box::new(move |bytes| swap(bytes, at, at + sectors * 512, 512))));
        }
        for len in [8, 16, 512, 4096, 8192, 24_000] {
            edits.push((format!("{len} bytes inserted at {at}"), Box::new(move |bytes| insert(bytes, at, len))));
            edits.push((format!("{len} bytes removed at {at}"), Box::new(move |bytes| remove(bytes, at, len))));
        }
    }
    edits.push(("line ends".to_owned(), Box::new(crlf)));
    for (what, change) in &edits {
        let two = Two::new(&wal, &wal);
        edit(&two, "b", 2, change);
        let (comparison, _) = two.compare(Options::default());
        assert!(matches!(comparison.verdict, Verdict::Damaged { ends: None, .. }), "{what}: {comparison:#?}");
        assert!(comparison.sides.a.damage.is_empty() && !comparison.sides.b.damage.is_empty(), "{what}: {comparison:#?}");
        assert_eq!(comparison.sides.b.only.records, 0, "{what}");
        let (other_way, _) = compare(&two.path("b"), &two.path("a"), Options::default()).unwrap();
        assert!(matches!(other_way.verdict, Verdict::Damaged { ends: None, .. }), "{what}: {other_way:#?}");
    }
    // All files, in text mode.
    let two = Two::new(&wal, &wal);
    (1..=4).for_each(|number| edit(&two, "b", number, crlf));
    let (comparison, _) = two.compare(Options::default());
    assert!(matches!(comparison.verdict, Verdict::Damaged { .. }), "{comparison:#?}");
    // Two files have each other's name, or one has another's content.
    let name = |side: &str, number: u32| (side.to_owned(), format!("0000000100000000{number:08X}"));
    for (from, to) in [(2, 3), (3, 2)] {
        let two = Two::new(&wal, &wal);
        let path = |(side, file): (String, String)| two.path(&side).join(file);
        fs::copy(path(name("a", from)), path(name("b", to))).unwrap();
        let (comparison, _) = two.compare(Options::default());
        assert!(matches!(comparison.verdict, Verdict::Damaged { ends: None, .. }), "{from} as {to}: {comparison:#?}");
        fs::copy(path(name("a", to)), path(name("b", from))).unwrap();
        let (comparison, _) = two.compare(Options::default());
        assert!(matches!(comparison.verdict, Verdict::Damaged { ends: None, .. }), "{from} and {to}: {comparison:#?}");
    }
}

/// Damage of one side hides no other history of it, before and at the place where the histories part.
#[test]
fn histories_that_part_after_damage() {
    let (mut a, mut b) = (Wal::new(fmt(15)), Wal::new(fmt(15)));
    let common = |wal: &mut Wal| (0..1500).for_each(|number| _ = wal.record(&change(900 + number % 7 * 40)));
    common(&mut a);
    common(&mut b);
    let (fork, last) = (a.end(), a.records().last().unwrap().lsn);
    (0..500).for_each(|number| _ = a.record(&change(700 + number % 11 * 8)));
    b.timeline(TimelineId(2));
    (0..500).for_each(|number| _ = b.record(&change(710 + number % 13 * 8)));
    // A record, pages in each other's place, bytes that were inserted.
    type Edit = fn(&mut [u8]);
    for damage in
        [|bytes| bytes[500_100] ^= 4, |bytes| swap(bytes, 8192 * 20, 8192 * 21, 8192), |bytes| bytes[600_000..700_000].rotate_right(8)]
            as [Edit; 3]
    {
        for side in ["a", "b"] {
            let two = Two::new(&a, &b);
            edit(&two, side, 1, |bytes| damage(bytes));
            let (comparison, _) = two.compare(Options::default());
            let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:#?}") };
            assert_eq!(parting.at, fork);
        }
    }
    // The last record that both have is damaged.
    b.patch_record(last, 100, &[0]);
    let (comparison, _) = Two::new(&a, &b).compare(Options::default());
    let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:#?}") };
    assert_eq!(parting.at, fork);
}

/// Damage of both sides that overlaps is damage.
#[test]
fn both_are_damaged_in_one_place() {
    let (mut a, mut b) = (wal(), wal());
    a.patch(Lsn(0x15_4000), &[0; 16384]);
    b.patch(Lsn(0x15_6000), &[0; 16384]);
    let (comparison, _) = between(&a, &b);
    let Verdict::Damaged { parting, ends: None } = &comparison.verdict else { panic!("{comparison:#?}") };
    assert!(parting.meets_at.is_some(), "{parting:?}");
    assert_eq!((comparison.sides.a.damage.len(), comparison.sides.b.damage.len()), (1, 1));
}

/// WAL of two clusters is no two histories of one.
#[test]
fn other_clusters() {
    let of_cluster = |mut wal: Wal, more: u64| {
        for number in 1..=4 {
            wal.patch_page(Lsn(number << 20), |header| header.long.as_mut().unwrap().system_identifier += more);
        }
        wal
    };
    let (a, b) = (varied(0), of_cluster(varied(7), 0x1234_5678));
    let (comparison, _) = between(&a, &b);
    let Verdict::OtherCluster { clusters, parting } = &comparison.verdict else { panic!("{comparison:#?}") };
    assert_eq!(clusters.b.system_identifier - clusters.a.system_identifier, 0x1234_5678);
    assert_eq!((parting.at, parting.meets_at, clusters.b.segments), (Lsn(0x10_0028), None, 4));
    assert!(!comparison.is_same(&Kind::ALL, true));
    assert_eq!((&comparison.sides.a.clusters, &comparison.sides.b.clusters), (&vec![clusters.a], &vec![clusters.b]));
    // One segment of it among the others.
    for number in [1u32, 2, 3] {
        let two = Two::new(&a, &a);
        let name = format!("0000000100000000{number:08X}");
        fs::copy(Two::new(&b, &b).path("a").join(&name), two.path("b").join(&name)).unwrap();
        let (comparison, _) = two.compare(Options::default());
        let Verdict::OtherCluster { parting, .. } = &comparison.verdict else { panic!("{comparison:#?}") };
        assert!(parting.at.segment_number(MIB) == u64::from(number) && parting.meets_at > Some(parting.at), "{parting:#?}");
        let counts: Vec<u64> = comparison.sides.b.clusters.iter().map(|cluster| cluster.segments).collect();
        assert_eq!((counts.iter().sum::<u64>(), counts.len(), comparison.sides.a.clusters.len()), (4, 2, 1));
        // Elsewhere, the histories part.
        let (mut c, lsn) = (varied(0), a.records().iter().find(|record| record.lsn > Lsn(0x42_0000)).unwrap().lsn);
        c.patch_record(lsn, 40, &[0xFF]).refresh_crc(lsn);
        let more = Two::new(&c, &c);
        fs::copy(two.path("b").join(&name), more.path("b").join(&name)).unwrap();
        let (comparison, _) = compare(&two.path("a"), &more.path("b"), Options::default()).unwrap();
        let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:#?}") };
        assert_eq!((parting.at, comparison.sides.b.clusters.len()), (lsn, 2));
    }
}

#[test]
fn missing_and_cut_segments() {
    let wal = wal();
    let two = Two::new(&wal, &wal);
    let second = two.path("b").join("000000010000000000000002");
    let whole = fs::read(&second).unwrap();
    fs::write(&second, &whole[..300_000]).unwrap();
    let check = |what: &str| {
        let (comparison, _) = two.compare(Options::default());
        let Verdict::Damaged { parting, ends: None } = &comparison.verdict else { panic!("{comparison:?}") };
        let damage = comparison.sides.b.damage[0].to_string();
        assert!(damage.contains(what) && damage.contains("records start again at 0/00300"), "{damage}");
        assert_eq!(comparison.sides.b.damage.len(), 1);
        parting.at
    };
    let cut = check("000000010000000000000002: cut short: the segment has 300000 of its 1048576 bytes");
    assert!(cut.0 < 0x20_0000 + 300_000 && cut.0 > 0x20_0000 + 300_000 - 1100);
    fs::remove_file(&second).unwrap();
    let gap = check("000000010000000000000002: no such segment");
    assert!(gap < Lsn(0x20_0000) && gap > Lsn(0x1F_FB00));
    // Both miss it.
    fs::remove_file(two.path("a").join("000000010000000000000002")).unwrap();
    let (comparison, _) = two.compare(Options::default());
    assert!(comparison.is_same(&[], false) && comparison.damage_in_common == 1, "{comparison:?}");
}

#[test]
fn copies_that_begin_elsewhere() {
    let wal = wal();
    let two = Two::new(&wal, &wal);
    fs::remove_file(two.path("b").join("000000010000000000000001")).unwrap();
    let (comparison, _) = two.compare(Options::default());
    assert!(matches!(comparison.verdict, Verdict::Identical));
    let only = comparison.only_before.unwrap();
    assert_eq!((only.side, only.from, only.to), (Which::A, Lsn(0x10_0000), Lsn(0x20_0000)));
    assert!(!comparison.is_same(&[], false) && comparison.is_same(&[], true));
    // From a start that both have, nothing is missing.
    let (comparison, _) = two.compare(Options { start: Some(Lsn(0x20_5000)), ..Options::default() });
    assert!(comparison.is_same(&[], false) && comparison.start == Lsn(0x20_5000));
    // Nothing in common.
    for name in ["000000010000000000000002", "000000010000000000000003"] {
        fs::remove_file(two.path("a").join(name)).unwrap();
    }
    let error = compare(&two.path("a"), &two.path("b"), Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "nothing can be compared: A has no WAL at or after 0/00200000");
}

#[test]
fn a_part_of_the_wal() {
    let a = wal();
    let mut b = wal();
    let lsns: Vec<Lsn> = a.records().iter().map(|record| record.lsn).collect();
    for number in [100, 900] {
        b.patch_record(lsns[number], 500, &[0]).refresh_crc(lsns[number]);
    }
    let two = Two::new(&a, &b);
    let part = |start: Option<usize>, end: Option<usize>| {
        let place = |number: Option<usize>| number.map(|number| lsns[number]);
        two.compare(Options { start: place(start), end: place(end), ..Options::default() })
    };
    let at = |start, end| match part(start, end).0.verdict {
        Verdict::Diverging { parting } => Some(parting.at),
        Verdict::Identical | Verdict::IdenticalBut => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(at(None, None), Some(lsns[100]));
    assert_eq!(at(Some(100), None), Some(lsns[100]));
    assert_eq!(at(Some(101), None), Some(lsns[900]));
    assert_eq!(at(Some(101), Some(900)), None);
    assert_eq!(at(Some(101), Some(901)), Some(lsns[900]));
    assert_eq!(at(Some(901), None), None);
    assert_eq!(at(None, Some(100)), None);
    assert_eq!(part(None, Some(101)).1.len(), 3);
}

#[test]
fn what_cannot_be_compared() {
    let mut other = Wal::new(fmt(17));
    other.record(&RecordBuilder::filler(24));
    let two = Two::new(&wal(), &other);
    let error = compare(&two.path("a"), &two.path("b"), Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "A is WAL of PostgreSQL 15, B of PostgreSQL 17: nothing can be compared");
    fs::write(two.path("b").join("000000010000000000000001"), [1; 9000]).unwrap();
    let error = compare(&two.path("a"), &two.path("b"), Options::default()).unwrap_err();
    assert!(matches!(error, Error::Source { side: Which::B, .. }), "{error}");
}

/// Records of several reads each.
#[test]
fn long_records() {
    let build = |byte: u8| {
        let mut wal = Wal::new(fmt(15));
        for _ in 0..3 {
            wal.record(&RecordBuilder::filler(100));
            wal.record(&change(3_000_000));
        }
        let lsn = wal.records()[3].lsn;
        wal.patch_record(lsn, 2_000_000, &[byte]).refresh_crc(lsn);
        wal
    };
    let (comparison, _) = between(&build(1), &build(2));
    let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:?}") };
    let records = build(1).records().iter().map(|record| record.lsn).collect::<Vec<_>>();
    assert_eq!((parting.at, parting.meets_at), (records[3], Some(records[4])));
    assert_eq!(parting.last_common.as_ref().map(|raw| raw.lsn), Some(records[2]));
}

/// Two timelines whose records never meet again.
#[test]
fn logs_that_never_meet_again() {
    let common = |wal: &mut Wal| (0..300).for_each(|number| _ = wal.record(&RecordBuilder::filler(100 + number)));
    let (mut a, mut b) = (Wal::new(fmt(15)), Wal::new(fmt(15)));
    common(&mut a);
    common(&mut b);
    let switch = a.end();
    let record = |xid: u32, len: usize| RecordBuilder::new(RmgrId(10), 0x00).xid(xid).main(&vec![7; len]);
    (0..3000u32).for_each(|number| _ = a.record(&record(700, 300 + number as usize % 90)));
    b.timeline(TimelineId(2));
    (0..5000u32).for_each(|number| _ = b.record(&record(800, 330 + number as usize % 70)));
    let two = Two::new(&a, &a);
    fs::remove_dir_all(two.path("b")).unwrap();
    fs::create_dir(two.path("b")).unwrap();
    b.segments().into_iter().for_each(|(name, bytes)| fs::write(two.path("b").join(name.to_string()), bytes).unwrap());
    fs::write(two.path("b").join("00000002.history"), format!("1\t{switch}\tno recovery target specified\n")).unwrap();
    let (comparison, events) = two.compare(Options { context: 3, ..Options::default() });
    let Verdict::Diverging { parting } = &comparison.verdict else { panic!("{comparison:?}") };
    assert_eq!((parting.at, parting.meets_at), (switch, None));
    assert_eq!(parting.timelines, Sides { a: Some(TimelineId(1)), b: Some(TimelineId(2)) });
    let file = two.path("b").join("00000002.history").display().to_string();
    assert_eq!(parting.switch, Some(Switch::Named { file, timeline: TimelineId(1), at: switch, agrees: true }));
    let only = Sides { a: comparison.sides.a.only, b: comparison.sides.b.only };
    assert_eq!((only.a.records, only.a.changes, only.a.end), (3000, 3000, a.end()));
    assert_eq!((only.b.records, only.b.changes, only.b.end), (5000, 5000, b.end()));
    let count = |mark: char| events.iter().filter(|event| event.starts_with(mark)).count();
    assert_eq!((count('@'), count(' '), count('-'), count('+')), (1, 3, 3000, 5000));
}

/// Every fixture is the same as its copy; with the last record's checksum made right over another byte, it is not.
#[test]
fn fixtures_and_their_copies() {
    for fixture in fixtures::all() {
        if !["crash", "pgbench", "contrecord", "timeline2"].contains(&fixture.scenario.as_str()) {
            continue;
        }
        let (a, b) = (fixture.unpacked(), fixture.unpacked());
        for check in [false, true] {
            let (comparison, _) = compare(a.path(), b.path(), Options { check, ..Options::default() }).unwrap();
            assert!(matches!(comparison.verdict, Verdict::Identical), "{}: {comparison:?}", fixture.dir.display());
            assert!(comparison.damage_in_common == 0 && comparison.has_compared(), "{}: {comparison:?}", fixture.dir.display());
        }
        // A compressed copy is the same.
        let (comparison, _) = compare(a.path(), &fixture.dir, Options::default()).unwrap();
        assert!(comparison.is_same(&[], false), "{}: {comparison:?}", fixture.dir.display());
        let path =
            fs::read_dir(b.path()).unwrap().map(|file| file.unwrap().path()).filter(|path| path.extension().is_none()).max().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let (_, header) = PageHeader::read(&bytes).unwrap();
        let segments = [pgwal::Segment::from_bytes(bytes.clone()).unwrap()];
        let last = pgwal::records(&segments)
            .filter_map(Result::ok)
            .filter(|raw| raw.header.rmid > RmgrId(8) && matches!(raw.bytes, std::borrow::Cow::Borrowed(_)))
            .last();
        let Some((lsn, mut record)) = last.map(|raw| (raw.lsn, raw.bytes.to_vec())) else { panic!("{}", path.display()) };
        record[4] ^= 1;
        refresh_crc(&mut record);
        let at = (lsn.0 - header.address.0) as usize;
        bytes[at..at + record.len()].copy_from_slice(&record);
        fs::write(&path, &bytes).unwrap();
        let (comparison, _) = compare(a.path(), b.path(), Options::default()).unwrap();
        match &comparison.verdict {
            Verdict::Diverging { parting } => assert_eq!(parting.at, lsn, "{}", path.display()),
            other => panic!("{}: {other:?}", path.display()),
        }
    }
}

/// Where the two timelines of each major's promotion part is what the history file says.
#[test]
fn timelines_of_the_fixtures() {
    let mut majors = 0;
    for fixture in fixtures::all().iter().filter(|fixture| fixture.scenario == "timeline2") {
        let dir = fixture.unpacked();
        let side = |timeline| Side::open(dir.path(), Some(TimelineId(timeline))).unwrap();
        let comparison = diff::diff(&side(1), &side(2), Options::default(), &mut ()).unwrap();
        let history = String::from_utf8(fixture.read("00000002.history").unwrap()).unwrap();
        let switch: Lsn = history.split_whitespace().nth(1).unwrap().parse().unwrap();
        match &comparison.verdict {
            Verdict::Prefix { parting, side: Which::A } => {
                assert!(matches!(parting.switch, Some(Switch::Named { at, agrees: true, .. }) if at == switch), "{parting:?}");
                assert_eq!(parting.at, switch);
            }
            other => panic!("{}: {other:?}", fixture.dir.display()),
        }
        majors += 1;
    }
    assert_eq!(majors, 10);
}
