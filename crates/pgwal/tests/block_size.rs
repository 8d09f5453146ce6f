//! The block size: page images show it, data directories and users tell it, and nothing else passes for it.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use pgwal::check::{self, Event};
use pgwal::record::Compression;
use pgwal::scan::{self, Stop, Work, scan};
use pgwal::source::Wal as Source;
use pgwal::{Decoder, Lsn, RawRecord, RmgrId, Segment, WalFormat, records};
use pgwal_testkit::fixtures;
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, Wal, refresh_crc, relation};

/// What is known of a server by its WAL alone.
const FMT: WalFormat = WalFormat { segment_size: MIB, block_size: 0, ..WalFormat::new(17) };
const LSN: Lsn = Lsn(1 << 24 | 40);
const METHODS: [Option<Compression>; 4] = [None, Some(Compression::Pglz), Some(Compression::Lz4), Some(Compression::Zstd)];

/// A standard page of `size` bytes, with this hole and random tuples.
fn page(size: u32, hole: (u16, u16), seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        // Half of the bytes, so that they can be compressed.
        if state & 0x100 == 0 { 0 } else { state as u8 | 1 }
    };
    let mut page: Vec<u8> = (0..size).map(|_| random()).collect();
    let (lower, upper) = match hole {
        (0, 0) => (28, 28),
        (offset, len) => (offset, offset + len),
    };
    page[12..14].copy_from_slice(&lower.to_le_bytes());
    page[14..16].copy_from_slice(&upper.to_le_bytes());
    page[16..18].copy_from_slice(&(size as u16).to_le_bytes());
    page[18..20].copy_from_slice(&(size as u16 | 4).to_le_bytes());
    page[usize::from(lower)..usize::from(upper)].fill(0);
    page
}

fn image(page: &[u8], hole: (u16, u16), method: Option<Compression>) -> ImageBuilder {
    let image = match hole {
        (0, 0) => ImageBuilder::new(page),
        (offset, len) => ImageBuilder::new(page).hole(offset, len),
    };
    method.map_or(image.clone(), |method| image.compress(method))
}

fn record(image: ImageBuilder) -> RecordBuilder {
    RecordBuilder::new(RmgrId::XLOG, 0xB0).block(BlockBuilder::new(0, relation(), 0).image(image))
}

fn holes(size: u32) -> [(u16, u16); 4] {
    [(0, 0), (24, 1), (40, size as u16 / 2), (100, size as u16 - 200)]
}

#[test]
fn every_healthy_image_shows_the_block_size() {
    for major in 10..=19 {
        for size in (10..=15).map(|power| 1 << power) {
            let built = WalFormat { major, block_size: size, ..FMT };
            for hole in holes(size) {
                for method in METHODS.into_iter().take(if built.since(15) { 4 } else { 2 }) {
                    let page = page(size, hole, 7);
                    let bytes = record(image(&page, hole, method)).bytes(built, Lsn(8));
                    let raw = RawRecord::from_bytes(&bytes, LSN, built.with_block_size(0)).unwrap();
                    let what = format!("{major}, {size}, hole {hole:?}, {method:?}");
                    assert_eq!(raw.fmt, built, "{what}");
                    let record = raw.decode().unwrap();
                    let image = record.blocks[0].image.unwrap();
                    assert_eq!((image.hole_offset, image.hole_length), hole, "{what}");
                    let mut restored = Vec::new();
                    image.restore(raw.fmt, &mut restored).unwrap();
                    assert!(restored == page, "{what}");
                }
            }
            // A page that has never been used.
            for method in [None, Some(Compression::Pglz)] {
                let bytes = record(image(&vec![0; size as usize], (0, 0), method)).bytes(built, Lsn(8));
                assert_eq!(RawRecord::from_bytes(&bytes, LSN, built.with_block_size(0)).unwrap().fmt, built);
            }
        }
    }
}

/// A record whose images do not agree with each other, or with themselves, says nothing, even if its checksum is right.
#[test]
fn damage_does_not_pass_for_another_block_size() {
    let shown = |bytes: &[u8]| RawRecord::from_bytes(bytes, LSN, FMT).map(|raw| raw.fmt.block_size);
    let mut unclear = 0;
    for size in [8192, 32768] {
        let built = FMT.with_block_size(size);
        for hole in holes(size) {
            for method in METHODS {
                let bytes = record(image(&page(size, hole, 9), hole, method)).bytes(built, Lsn(8));
                assert_eq!(shown(&bytes).unwrap(), size);
                // The headers, and the front of the page.
                for at in (24..100).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
                    let mut changed = bytes.clone();
                    changed[at.0] ^= 1 << at.1;
                    refresh_crc(&mut changed);
                    let found = shown(&changed).unwrap();
                    assert!(found == size || found == 0, "{size}, hole {hole:?}, {method:?}, {at:?}: {found}");
                    unclear += usize::from(found == 0);
                }
            }
        }
    }
    assert!(unclear > 1000, "{unclear}");
    let two = |a: u32, b: u32| {
        let block = |id, size| BlockBuilder::new(id, relation(), 0).image(ImageBuilder::new(&page(size, (0, 0), 3)));
        RecordBuilder::new(RmgrId::XLOG, 0xB0).block(block(0, a)).block(block(1, b)).bytes(FMT.with_block_size(a), Lsn(8))
    };
    assert_eq!(shown(&two(16384, 16384)).unwrap(), 16384);
    assert_eq!(shown(&two(16384, 8192)).unwrap(), 0);
}

/// An image that does not show the size: its hole is not where the page says that it is.
fn unclear_image(size: u32, seed: u32) -> ImageBuilder {
    let hole = (200, size as u16 / 2 + 100);
    let mut page = page(size, hole, seed);
    page[12] ^= 1;
    ImageBuilder::new(&page).hole(hole.0, hole.1)
}

/// Renders records as pg_waldump -b does.
struct Lines;

impl Work for Lines {
    type Part = String;

    fn part(&self) -> String {
        String::new()
    }

    fn record(&self, raw: &RawRecord<'_>, part: &mut String) -> pgwal::Result<()> {
        *part += &line(raw)?;
        Ok(())
    }
}

fn line(raw: &RawRecord<'_>) -> pgwal::Result<String> {
    let mut text = pgwal::text::Text::new(raw.fmt, pgwal::text::Zone::utc());
    let _ = pgwal::waldump::write_record(&raw.decode()?, true, &mut text); // fillers have no payload that parses
    Ok(String::from_utf8_lossy(text.as_bytes()).into_owned())
}

fn lines(wal: &Source, start: Option<Lsn>, threads: usize) -> String {
    let mut lines = String::new();
    let summary = scan(wal, scan::Options { start, end: None, threads }, &Lines, |part| {
        lines += &part;
        ControlFlow::Continue(())
    });
    assert!(matches!(summary.stop, Stop::End(_)), "{:?}", summary.stop);
    lines
}

fn write_segments(wal: &Wal, dir: &Path) {
    for (name, bytes) in wal.segments() {
        fs::write(dir.join(name.to_string()), bytes).unwrap();
    }
}

/// The first image that shows the size decides, however the WAL is cut into parts and whoever reads them.
#[test]
fn all_readers_find_the_same_size() {
    for (size, wal_page_size) in [(8192, 8192), (32768, 8192), (32768, 1 << 16), (16384, 1 << 14)] {
        let built = WalFormat { block_size: size, wal_page_size, ..FMT };
        let mut wal = Wal::new(built);
        for number in 0..240u32 {
            for _ in 0..10 {
                wal.record(&RecordBuilder::filler(3000));
            }
            let hole = holes(size)[number as usize % 4];
            let image = match number % 40 {
                // Where the next part may begin, the size does not show yet.
                0..5 => unclear_image(size, number),
                _ => image(&page(size, hole, number), hole, METHODS[number as usize / 4 % 4]),
            };
            wal.record(&record(image));
        }
        wal.switch();
        let dir = tempfile::tempdir().unwrap();
        write_segments(&wal, dir.path());
        let source = Source::open(&[dir.path()], None).unwrap();
        let one = lines(&source, None, 1);
        assert_eq!(one.matches("(FPW)").count(), 240);
        for threads in [2, 3, 8] {
            assert!(lines(&source, None, threads) == one, "{size}: {threads} threads");
        }
        let mut told = Source::open(&[dir.path()], None).unwrap();
        told.set_block_size(size);
        // Images before the first that shows the size are taken for those of the usual size.
        let same = |a: &str, b: &str| a.lines().zip(b.lines()).filter(|(a, b)| a != b).count();
        assert_eq!(same(&lines(&told, None, 2), &one), if size == 8192 { 0 } else { 5 });

        let mut decoder = Decoder::new();
        let mut pushed = String::new();
        for chunk in wal.bytes().chunks(99_991) {
            decoder.feed(chunk);
            while let Some(raw) = decoder.next_record().unwrap() {
                pushed += &line(&raw).unwrap();
            }
        }
        assert!(pushed == one, "{size}: pushed");
        assert_eq!(decoder.format(), Some(built));

        let segments: Vec<Segment> = wal.segments().into_iter().map(|(_, bytes)| Segment::from_bytes(bytes).unwrap()).collect();
        let pulled: String = records(&segments).map(|raw| line(&raw.unwrap()).unwrap()).collect();
        assert!(pulled == one, "{size}: pulled");

        for threads in [1, 4] {
            let source = Source::open_all(&[dir.path()], None).unwrap();
            let options = check::Options { from: None, to: None, system_identifier: None, threads };
            let mut findings = Vec::new();
            check::check(&source, options, |event| {
                if let Event::Finding(finding) = event {
                    findings.push(format!("{finding:?}"));
                }
                ControlFlow::Continue(())
            });
            assert_eq!(findings, Vec::<String>::new(), "{size}");
        }
    }
}

/// WAL of one server that has images of another size is damaged there, whatever came first.
#[test]
fn a_lone_image_of_another_size_is_damage() {
    for (first, other) in [(8192, 32768), (32768, 8192)] {
        let mut wal = Wal::new(FMT.with_block_size(first));
        let full = |size| record(ImageBuilder::new(&page(size, (0, 0), 5)));
        wal.record(&full(first));
        let lsn = wal.record(&full(other));
        wal.record(&full(first));
        wal.switch();
        let dir = tempfile::tempdir().unwrap();
        write_segments(&wal, dir.path());
        let source = Source::open_all(&[dir.path()], None).unwrap();
        let mut found = Vec::new();
        check::check(&source, check::Options { from: None, to: None, system_identifier: None, threads: 2 }, |event| {
            if let Event::Finding(finding) = event {
                found.push(finding.lsns.unwrap().start);
            }
            ControlFlow::Continue(())
        });
        assert_eq!(found, [lsn]);
    }
}

/// What pg_control says counts for the WAL of its cluster, and for no other.
#[test]
fn a_data_directory_tells_the_size() {
    let identifier = 0x1234_5678;
    let dir = tempfile::tempdir().unwrap();
    let (pg_wal, global) = (dir.path().join("pg_wal"), dir.path().join("global"));
    fs::create_dir_all(&pg_wal).unwrap();
    fs::create_dir_all(&global).unwrap();
    fs::write(dir.path().join("PG_VERSION"), "17\n").unwrap();
    let mut control = fs::read(fixtures::root().join("names/data/global/pg_control")).unwrap();
    control[..8].copy_from_slice(&u64::to_le_bytes(identifier));
    control[216..220].copy_from_slice(&u32::to_le_bytes(32768)); // blcksz
    let crc = crc32c::crc32c(&control[..288]);
    control[288..292].copy_from_slice(&crc.to_le_bytes());
    fs::write(global.join("pg_control"), control).unwrap();
    for (own, expected) in [(identifier, 32768 - 1000), (identifier + 1, 8192 - 1000)] {
        let mut wal = Wal::new(FMT.with_block_size(32768));
        wal.system_identifier(own);
        // Nothing in the image shows the size.
        let mut page = page(32768, (500, 32768 - 1000), 4);
        page[18] = 0;
        wal.record(&record(ImageBuilder::new(&page).hole(500, 32768 - 1000)));
        let [(name, bytes)] = &wal.segments()[..] else { panic!("a segment") };
        let path = pg_wal.join(name.to_string());
        fs::write(&path, bytes).unwrap();
        for input in [dir.path(), pg_wal.as_path(), path.as_path()] {
            let source = Source::open(&[input], None).unwrap();
            let shown = lines(&source, None, 2);
            assert!(shown.contains(&format!("hole: offset: 500, length: {expected}")), "{}: {shown}", input.display());
        }
        let mut source = Source::open(&[dir.path()], None).unwrap();
        source.set_block_size(16384);
        assert!(lines(&source, None, 2).contains(&format!("length: {}", 16384 - 1000)), "what the user says counts for more");
    }
}
