//! Writes the seeds of the fuzz targets: records of the fixtures, and WAL from the builder.
//!
//! `cargo run -p pgwal-testkit --example seeds`, from the top of the repository. What fuzzing found (files named `found-…`) stays.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use pgwal::{Decoder, Lsn, Record, RmgrId, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::fuzz::{FIX_CONTINUATION, FIX_CRC, FIX_HEADERS, FIX_PAGES, TARGETS, payload_input};
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};

/// Longer ones make no better seeds, unless there are no others.
const LONGEST: usize = 400;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, _) in TARGETS {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir).expect("a folder for the seeds");
        for old in fs::read_dir(&dir).expect("the folder").flatten() {
            if !old.file_name().to_string_lossy().starts_with("found-") {
                fs::remove_file(old.path()).expect("an old seed");
            }
        }
    }
    let write = |target: &str, name: &str, bytes: &[u8]| fs::write(corpus.join(target).join(name), bytes).expect("a seed");

    // Where the layout is that of the major before, another seed would show the fuzzer nothing new.
    let mut records = BTreeMap::<(u8, u8, u8), Seed>::new();
    // Of each record type also a long one, which has more of its optional parts.
    let mut long = BTreeMap::<(u8, u8), Seed>::new();
    for fixture in fixtures::all() {
        for segments in fixture.timelines() {
            let mut decoder = Decoder::new();
            decoder.feed(&segments.concat());
            while let Ok(Some(raw)) = decoder.next_record() {
                let Ok(record) = raw.decode() else { continue };
                let (major, rmid, info) = (fixture.major, record.rmid().0, record.info().0);
                let Some(seed) = Seed::of(&record).filter(|_| rmid < 22) else { continue };
                if seed.payload.len() < LONGEST {
                    let longest = long.entry((rmid, info)).or_insert_with(|| seed.clone());
                    if longest.payload.len() < seed.payload.len() {
                        *longest = seed.clone();
                    }
                }
                let best = records.entry((rmid, info, major)).or_insert_with(|| seed.clone());
                if seed.payload.len() < best.payload.len() {
                    *best = seed;
                }
            }
        }
    }
    let mut last: Option<((u8, u8), Seed)> = None;
    for (&(rmid, info, major), seed) in &records {
        let shape = |seed: &Seed| (seed.payload.len(), seed.payload[3]);
        if last.as_ref().is_some_and(|(row, last)| *row == (rmid, info) && shape(last) == shape(seed)) {
            continue;
        }
        let name = RmgrId(rmid).name().to_lowercase();
        write("payload", &format!("{name}-{info:02x}-v{major}"), &seed.payload);
        if matches!(rmid, 0 | 1 | 10 | 11) && seed.record.len() < LONGEST {
            write("record", &format!("{name}-{info:02x}-v{major}"), &seed.record);
        }
        last = Some(((rmid, info), seed.clone()));
    }

    for ((rmid, info), seed) in &long {
        if !records.values().any(|other| other.payload == seed.payload) {
            write("payload", &format!("{}-{info:02x}-long", RmgrId(*rmid).name().to_lowercase()), &seed.payload);
        }
    }

    for (name, bytes) in files() {
        write("source", name, &bytes);
    }
    for (name, bytes) in streams() {
        write("framing", &name, &bytes);
        write("chunked", &name, &bytes);
    }
}

/// Segments and archives, plain and compressed; each starts with the number of its file name.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(16) };
    let mut wal = Wal::new(fmt).starting_at(Lsn((16 * MIB).into()));
    for len in [40, 300, 9000] {
        wal.record(&RecordBuilder::filler(len));
    }
    let segment = wal.bytes();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes everything")
    };
    let lz4 = |bytes: &[u8]| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    };
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("zstd compresses anything");
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [("pg_wal/000000010000000000000011", &segment[..2000]), ("000000010000000000000010", segment), ("other", b"x")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, bytes).expect("memory takes everything");
    }
    let tar = tar.into_inner().expect("memory takes everything");
    let file = |name: u8, bytes: &[u8]| [&[name][..], bytes].concat();
    vec![
        ("segment", file(0, segment)),
        ("segment-without-name", file(1, segment)),
        ("partial", file(2, &segment[..8192])),
        ("elsewhere", file(4, segment)),
        ("zeroes", file(0, &[0; 8192])),
        ("gzip", file(5, &gzip(segment))),
        ("lz4", file(1, &lz4(segment))),
        ("zstd", file(0, &zstd(segment))),
        ("tar", file(3, &tar)),
        ("tar-gzip", file(3, &gzip(&tar))),
        ("tar-lz4", file(1, &lz4(&tar))),
        ("tar-zstd", file(3, &zstd(&tar))),
        ("zstd-twice", file(1, &zstd(&zstd(segment)))),
    ]
}

/// A record as input of the targets `payload` and `record`.
#[derive(Clone)]
struct Seed {
    payload: Vec<u8>,
    record: Vec<u8>,
}

impl Seed {
    /// `None`: the record does not fit into the form of the target.
    fn of(record: &Record<'_>) -> Option<Seed> {
        let payload = payload_input(record)?;
        let record = [&[record.fmt().major - 10][..], &record.raw.bytes].concat();
        Some(Seed { payload, record })
    }
}

/// WAL with every kind of boundary, and damaged WAL.
fn streams() -> Vec<(String, Vec<u8>)> {
    let all = FIX_PAGES | FIX_CRC | FIX_HEADERS | FIX_CONTINUATION;
    let mut out = Vec::new();
    // Page size and place in the target's form, and the same place.
    for (place, start) in [(0, 16 * MIB), (7, 16 * MIB + MIB / 2), (14, 16 * MIB - 2048)] {
        for major in [10, 15, 19] {
            let fmt = WalFormat { wal_page_size: 1024, segment_size: MIB, ..WalFormat::new(major) };
            let mut add = |name: &str, build: &dyn Fn(&mut Wal)| {
                let mut wal = Wal::new(fmt).starting_at(Lsn(start.into()));
                build(&mut wal);
                for (fix, chunks) in [(0, 1), (all, 2)] {
                    let head = [major - 10, place, fix, chunks + place];
                    out.push((format!("{name}-{place}-v{major}-{fix:x}"), [&head[..], wal.bytes()].concat()));
                }
            };
            add("cut", &|wal| {
                for left in [8, 16, 24, 104] {
                    wal.leave(left).record(&RecordBuilder::filler(130));
                }
            });
            add("long", &|wal| {
                wal.record(&RecordBuilder::filler(2900));
                wal.record(&RecordBuilder::new(RmgrId(10), 0x20).main(&[1, 2, 3]));
            });
            add("lost", &|wal| {
                wal.record(&RecordBuilder::filler(100));
                let lost = wal.cut_short(&RecordBuilder::filler(5000), 1);
                wal.overwrite_contrecord(lost);
                wal.zeroes(100);
            });
            add("switch", &|wal| {
                wal.record(&RecordBuilder::filler(100));
                wal.record(&RecordBuilder::new(RmgrId::XLOG, 0x40));
                wal.zeroes(1800);
            });
            add("recycled", &|wal| {
                wal.record(&RecordBuilder::filler(700));
                wal.recycled_pages(1, 3 << 20);
            });
        }
    }
    out
}
