//! The set of segments: gaps, files that do not belong, history files, on real promotions and on built WAL.

use std::fs;
use std::path::Path;

use pgwal::history::History;
use pgwal::set::{RemarkKind, survey};
use pgwal::source::Archive;
use pgwal::{Lsn, SegmentName, TimelineId, WalFormat};
use pgwal_testkit::fixtures::{self, Fixture};
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};

/// Remarks on a folder, without the folder's name.
fn remarks(dir: &Path) -> Vec<String> {
    let archive = Archive::open(&[dir]).unwrap();
    survey(&archive, None).iter().map(|remark| remark.to_string().replace(&format!("{}/", dir.display()), "")).collect()
}

fn findings(dir: &Path) -> Vec<String> {
    let archive = Archive::open(&[dir]).unwrap();
    let found = survey(&archive, None);
    let found = found.iter().filter(|remark| remark.kind.is_finding());
    found.map(|remark| remark.to_string().replace(&format!("{}/", dir.display()), "")).collect()
}

/// Four segments of timeline 1, from the second of the cluster.
fn four() -> (tempfile::TempDir, Wal) {
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(16) });
    while wal.end().0 < 5 << 20 {
        wal.record(&RecordBuilder::filler(5000));
    }
    wal.truncate(Lsn(5 << 20));
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    (dir, wal)
}

fn timeline2() -> Vec<Fixture> {
    let found: Vec<Fixture> = fixtures::all().into_iter().filter(|fixture| fixture.scenario == "timeline2").collect();
    assert_eq!(found.len(), 10);
    found
}

#[test]
fn fixtures_are_good_sets() {
    for fixture in fixtures::with_odd() {
        assert_eq!(findings(&fixture.dir), [""; 0], "{}", fixture.dir.display());
    }
}

#[test]
fn gaps_by_number_and_by_history() {
    let (dir, wal) = four();
    assert_eq!(remarks(dir.path()), [""; 0]);
    let file = |n: u32| dir.path().join(format!("0000000100000000000000{n:02X}"));
    fs::remove_file(file(3)).unwrap();
    assert_eq!(remarks(dir.path()), ["000000010000000000000003: the segment is missing"]);
    fs::remove_file(file(2)).unwrap();
    assert_eq!(remarks(dir.path()), ["000000010000000000000002: 2 segments are missing, up to 000000010000000000000003"]);
    fs::remove_file(file(1)).unwrap();
    assert_eq!(remarks(dir.path()), [""; 0]); // older ones may have been removed
    // A name from far behind takes no time.
    let bytes = wal.segments()[0].1.clone();
    let mut far = bytes.clone();
    far[8..16].copy_from_slice(&0xFFFF_FFFF_FFF0_0000u64.to_le_bytes());
    fs::write(dir.path().join("00000001FFFFFFFF00000FFF"), far).unwrap();
    let expected = "000000010000000000000005: 17592186044410 segments are missing, up to 00000001FFFFFFFF00000FFE";
    assert_eq!(remarks(dir.path()), [expected]);

    for fixture in timeline2() {
        let dir = fixture.unpacked();
        let history = History::parse(TimelineId(2), &fixture.read("00000002.history").unwrap()).unwrap();
        let size = Archive::open(&[dir.path()]).unwrap().segments().find_map(|(_, segment)| segment.in_place()).unwrap().0.segment_size;
        let number = history.ancestors[0].switch.segment_number(size);
        // Timeline 2 loses its first segment, but has a second one.
        let [one, two] = [number, number + 1].map(|number| dir.path().join(SegmentName::new(TimelineId(2), number, size).to_string()));
        let mut next = fs::read(&one).unwrap();
        next[8..16].copy_from_slice(&((number + 1) * u64::from(size)).to_le_bytes());
        next[4..8].copy_from_slice(&2u32.to_le_bytes());
        fs::write(&two, next).unwrap();
        assert_eq!(findings(dir.path()), [""; 0], "{}", fixture.dir.display());
        fs::remove_file(&one).unwrap();
        let missing = format!("{}: the segment is missing", one.file_name().unwrap().display());
        assert_eq!(findings(dir.path()), [missing], "{}", fixture.dir.display());
    }
}

#[test]
fn first_pages() {
    let (dir, wal) = four();
    let segments = wal.segments();
    let file = |n: u32| dir.path().join(format!("0000000100000000000000{n:02X}"));
    // Two that the server keeps for later.
    fs::write(file(5), &segments[0].1).unwrap();
    fs::write(file(6), vec![0; MIB as usize]).unwrap();
    let future = [
        "000000010000000000000005: made ready for later, from the segment that started at 0/00100000",
        "000000010000000000000006: made ready for later, zeroed",
    ];
    assert_eq!(remarks(dir.path()), future);
    assert_eq!(findings(dir.path()), [""; 0]);
    // The same in the middle of the WAL.
    fs::write(file(2), &segments[0].1).unwrap();
    fs::write(file(3), vec![0; MIB as usize]).unwrap();
    let found = findings(dir.path());
    assert_eq!(found.len(), 2, "{found:#?}"); // each once, and not as missing too
    assert!(
        found[0].ends_with("002: expected the segment that starts at 0/00200000, found the one that starts at 0/00100000"),
        "{found:#?}"
    );
    assert!(found[1].contains("003: only zeroes") && found[1].ends_with("later segments are there"), "{found:#?}");

    let (dir, _) = four();
    let file = |n: u32| dir.path().join(format!("0000000100000000000000{n:02X}"));
    let put = |n: u32, at: usize, bytes: &[u8]| {
        let mut segment = fs::read(file(n)).unwrap();
        segment[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(file(n), segment).unwrap();
    };
    put(2, 24, &7u64.to_le_bytes());
    let expected = "000000010000000000000002: system identifier: expected 7296712105154052097, found 7: a segment of another cluster";
    assert_eq!(findings(dir.path()), [expected]);
    let archive = Archive::open(&[dir.path()]).unwrap();
    assert_eq!(survey(&archive, Some(7)).iter().filter(|remark| matches!(remark.kind, RemarkKind::OtherCluster { .. })).count(), 3);
    put(2, 24, &0x6543_2100_0000_0001u64.to_le_bytes());
    put(3, 4, &2u32.to_le_bytes());
    let expected = "000000010000000000000003: expected a first page of timeline 1 or older, found timeline 2";
    assert_eq!(findings(dir.path()), [expected]);
    put(3, 4, &1u32.to_le_bytes());
    put(1, 0, &0xD116u16.to_le_bytes());
    assert_eq!(findings(dir.path()), ["000000010000000000000001: expected WAL of PostgreSQL 16 as in the others, found 17"]);
}

#[test]
fn duplicates_are_compared() {
    let (dir, wal) = four();
    let (name, bytes) = &wal.segments()[1];
    let packed = dir.path().join(format!("{name}.zst"));
    fs::write(&packed, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    let same =
        format!("{name}.zst: the same segment as {}/{name}", dir.path().display()).replace(&format!("{}/", dir.path().display()), "");
    assert_eq!(remarks(dir.path()), [same]);
    assert_eq!(findings(dir.path()), [""; 0]);
    let mut other = bytes.clone();
    other[0x8_1234] ^= 1;
    fs::write(&packed, zstd::encode_all(&other[..], 1).unwrap()).unwrap();
    assert_eq!(findings(dir.path()), [format!("{name}.zst: expected the same bytes as in {name}, found others at 0/00281234")]);
    fs::write(&packed, zstd::encode_all(&bytes[..0x8_0000], 1).unwrap()).unwrap();
    assert_eq!(findings(dir.path()), [format!("{name}.zst: expected the same bytes as in {name}, found others at 0/00280000")]);
}

#[test]
fn history_against_the_records() {
    for fixture in timeline2() {
        let dir = fixture.unpacked();
        let path = dir.path().join("00000002.history");
        let good = fs::read_to_string(&path).unwrap();
        let history = History::parse(TimelineId(2), good.as_bytes()).unwrap();
        let switch = history.ancestors[0].switch;
        let with = |timeline: u32, switch: Lsn| {
            fs::write(&path, format!("{timeline}\t{:X}/{:X}\tby hand\n", switch.high(), switch.low())).unwrap();
            findings(dir.path()).join("\n")
        };
        let what = fixture.dir.display();
        let late = with(1, switch + 8);
        assert!(
            late.ends_with(&format!("expected timeline 2 to fork off timeline 1 at {}, found its first record at {switch}", switch + 8)),
            "{what}: {late}"
        );
        let early = with(1, Lsn(switch.0 - 8));
        assert!(early.contains(&format!("to fork off timeline 1 at {}, found ", Lsn(switch.0 - 8))), "{what}: {early}");
        // An earlier record's end is a place where records meet, but not the right one.
        let first = Lsn(switch.0 / 0x2000 * 0x2000 - 0x2000);
        assert!(with(1, first).contains(&format!("to fork off timeline 1 at {first}, found ")), "{what}: {first}");
        // Without the child's segment, the parent's is asked.
        let mut child = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
        let child = child.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("000000020")).unwrap();
        fs::remove_file(&child).unwrap();
        assert_eq!(with(1, switch), "", "{what}");
        assert!(with(1, Lsn(switch.0 - 8)).contains("found the middle of the record at "), "{what}");
    }
}

/// A remark that is a finding becomes one, with the place and what to do.
#[test]
fn findings_have_class_and_place() {
    let (dir, _) = four();
    let file = |n: u32| dir.path().join(format!("0000000100000000000000{n:02X}"));
    fs::remove_file(file(2)).unwrap();
    fs::rename(file(3), file(2)).unwrap();
    fs::write(dir.path().join("00000002.history"), "x\n").unwrap();
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    let archive = Archive::open(&[dir.path()]).unwrap();
    let found: Vec<_> = survey(&archive, None).into_iter().filter_map(|remark| remark.finding(MIB)).collect();
    let names: Vec<&str> = found.iter().map(|finding| finding.class.name()).collect();
    assert_eq!(names, ["wrong_name", "missing_segment", "text_file"]);
    let json = serde_json::to_string(&found[1]).unwrap();
    let missing = r#"{"input":"000000010000000000000003","segment":"000000010000000000000003","offsets":null,"lsns":{"start":"0/00300000","end":"0/00400000"},"record":null,"class":"missing_segment","first":"000000010000000000000003","last":"000000010000000000000003","problem":null,"action":"find_missing"}"#;
    assert_eq!(json, missing);
    let json = serde_json::to_string(&found[2]).unwrap();
    let problem =
        r#""class":"text_file","problem":{"kind":"history","line":1,"history_error":"timeline","found":"x"},"action":"fetch_file"}"#;
    assert!(json.ends_with(problem), "{json}");
    let text = found[2].to_string();
    assert!(
        text.contains("00000002.history: history file or backup label. line 1: expected the number of a timeline, found \"x\". A restore"),
        "{text}"
    );
    // Every kind has JSON: none is of a form that serde cannot tag.
    for remark in survey(&archive, Some(7)) {
        serde_json::to_string(&remark).unwrap();
    }
}

#[test]
fn texts_and_other_files() {
    let (dir, _) = four();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("00000002.history", "1\t0/300000\tx\n");
    write("00000003.history", "1\t0/300008\tx\n2\t0/400000\ty\n");
    write("00000004.history", "");
    write(
        "000000010000000000000002.00000028.backup",
        "START WAL LOCATION: 0/300028 (file 000000010000000000000003)\nCHECKPOINT LOCATION: 0/300060\n",
    );
    write("000000010000000000000001.00000028.backup", "START WAL LOCATION: 0/100028\n");
    write("notes.txt", "x");
    let expected = [
        "000000010000000000000001.00000028.backup: line 1: expected \"(file \", the name of a segment and \")\", found \"\"",
        "000000010000000000000002.00000028.backup: START WAL LOCATION: expected 0/00200028 as in the file's name, found 0/00300028",
        "00000003.history: 00000003.history: expected timeline 1 left at 0/00300000 as in 00000002.history, found timeline 1 left at 0/00300008",
        "00000004.history: expected at least one ancestor, found no line",
    ];
    let found: Vec<String> = findings(dir.path()).into_iter().filter(|text| !text.contains("fork off")).collect();
    assert_eq!(found, expected);
    assert!(remarks(dir.path()).contains(&"notes.txt: neither a segment nor about segments".to_owned()));
}

#[test]
fn abandoned_segments_are_no_damage() {
    let fixture = timeline2().remove(5);
    let dir = fixture.unpacked();
    let partial =
        fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "partial"));
    let partial = partial.unwrap();
    let whole = partial.with_extension("");
    fs::rename(&partial, &whole).unwrap();
    // The old server went on.
    let name: SegmentName = whole.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let next = SegmentName { seg: name.seg + 1, ..name };
    let mut bytes = fs::read(&whole).unwrap();
    bytes[8..16].copy_from_slice(&next.start(MIB).0.to_le_bytes());
    fs::write(dir.path().join(next.to_string()), bytes).unwrap();
    let found = remarks(dir.path());
    assert!(found.iter().any(|text| text.starts_with(&format!("{next}: abandoned: timeline 2 took over at "))), "{found:#?}");
    assert_eq!(findings(dir.path()), [""; 0]);
    fs::remove_file(dir.path().join("00000002.history")).unwrap();
    assert_eq!(findings(dir.path()), ["00000002.history: missing: nothing tells where timeline 2 forked off"]);
}
