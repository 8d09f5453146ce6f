//! What happened to the WAL, told apart: made with real servers where they can make it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use pgwal::{Lsn, WalFormat};
use pgwal_testkit::server::{Postgres, Server, give, wait_until};
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};
use serde_json::Value;
use tempfile::TempDir;

use crate::{copy, damage, findings, verify};

/// The one finding of a folder, and the same with its segments packed: class, action, and offsets.
#[track_caller]
fn one(dir: &Path) -> Value {
    let (status, found) = findings(dir);
    assert_eq!((status, found.len()), (1, 1), "{found:#?}");
    let packed = TempDir::new().unwrap();
    for file in fs::read_dir(dir).unwrap().flatten() {
        let to = fs::File::create(packed.path().join(format!("{}.gz", file.file_name().to_str().unwrap()))).unwrap();
        let mut to = flate2::write::GzEncoder::new(to, flate2::Compression::fast());
        to.write_all(&fs::read(file.path()).unwrap()).unwrap();
        to.finish().unwrap();
    }
    let (status, again) = findings(packed.path());
    assert_eq!((status, again.len()), (1, 1), "{again:#?}");
    for field in ["class", "offsets", "lsns", "action", "segment", "problem"] {
        assert_eq!(again[0][field], found[0][field], "{again:#?}");
    }
    found[0].clone()
}

#[test]
fn a_tail_of_zeroes_and_contiguous_damage_are_one_finding() {
    for (from, to, class) in [
        (0x4_2000, 0x10_0000, "zeroed_tail"),
        (0x4_2123, 0x10_0000, "zeroed_tail"),
        (0xF_F000, 0x10_0000, "zeroed_tail"),
        (0x4_2000, 0x8_0000, "zeroed_page"),
        (0x4_2100, 0x8_0100, "corrupted"),
        (0x100, 0x9_0000, "corrupted"),
    ] {
        let (dir, files) = copy(15, "workload");
        damage(&files[1], |bytes| match class {
            "corrupted" => {
                let mut state = 1u32;
                bytes[from..to].iter_mut().for_each(|byte| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte = (state >> 24) as u8;
                });
            }
            _ => bytes[from..to].fill(0),
        });
        let one = one(dir.path());
        let (start, end) = (one["offsets"]["start"].as_u64().unwrap() as usize, one["offsets"]["end"].as_u64().unwrap() as usize);
        assert!(start <= from && from < start + 9000 && end >= to && end < to + 9000, "{from:x} {to:x}: {one:#}");
        assert_eq!(one["input"], format!("./{}", files[1].file_name().unwrap().to_str().unwrap()));
        if class != "corrupted" {
            assert_eq!(one["class"], class, "{one:#}");
        }
    }
}

/// Each file has to be replaced, so each has its finding; a file that is damaged in its packing has one.
#[test]
fn damage_over_several_files_is_one_finding_for_each() {
    let told = |dir: &Path| {
        let (status, found) = findings(dir);
        assert_eq!(status, 1);
        let input = |finding: &Value| finding["input"].as_str().unwrap().trim_start_matches("./").trim_end_matches(".gz").to_owned();
        found
            .iter()
            .map(|finding| (input(finding), finding["class"].as_str().unwrap().to_owned(), finding["offsets"].clone()))
            .collect::<Vec<_>>()
    };
    let (dir, files) = copy(15, "workload");
    let name = |at: usize| files[at].file_name().unwrap().to_str().unwrap().to_owned();
    damage(&files[0], |bytes| bytes[0x7_8000..].fill(0));
    damage(&files[1], |bytes| bytes.fill(0));
    let whole = serde_json::json!({"start": 0, "end": 1 << 20});
    let found = told(dir.path());
    let short: Vec<(&str, &str)> = found.iter().map(|(input, class, _)| (input.as_str(), class.as_str())).collect();
    assert_eq!(short, [(&*name(0), "zeroed_tail"), (&*name(1), "zeroed_page")], "{found:?}");
    assert_eq!(found[1].2, whole);
    let (_, out, _) = verify(dir.path(), ["."]);
    assert!(!out.contains("kept for later use"), "{out}");

    let (dir, files) = copy(15, "workload");
    let packed = PathBuf::from(format!("{}.gz", files[1].display()));
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    to.write_all(&fs::read(&files[1]).unwrap()).unwrap();
    let bytes = to.finish().unwrap();
    fs::remove_file(&files[1]).unwrap();
    for at in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 2000, bytes.len() - 6] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].fill(0x55);
        fs::write(&packed, bytes).unwrap();
        assert_eq!(told(dir.path()).len(), 1, "{at}");
    }
    for len in [20, 1000, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&packed, &bytes[..len]).unwrap();
        let found = told(dir.path());
        assert_eq!((found.len(), found[0].1.as_str()), (1, "unreadable"), "{len}: {found:?}");
    }
}

/// Bytes put in or left out displace all that follows: one finding, though records are whole there.
#[test]
fn displaced_content_is_one_finding() {
    let good = fs::read(&copy(15, "workload").1[1]).unwrap();
    let insert = |at: usize, bytes: &[u8]| [&good[..at], bytes, &good[at..]].concat();
    let remove = |at: usize, len: usize| [&good[..at], &good[at + len..]].concat();
    let text = good.iter().flat_map(|&byte| if byte == b'\n' { vec![b'\r', b'\n'] } else { vec![byte] }).collect::<Vec<u8>>();
    for (what, mut bytes, by) in [
        ("8 more", insert(300_000, &[0; 8]), Some(8)),
        ("512 more", insert(300_032, &[0; 512]), Some(512)),
        ("3 more", insert(300_000, b"abc"), Some(3)),
        ("8 missing", remove(300_000, 8), Some(-8)),
        ("512 missing", remove(300_000, 512), Some(-512)),
        ("text mode", text, None),
    ] {
        for has_its_size in [false, true] {
            let (dir, files) = copy(15, "workload");
            if has_its_size {
                bytes.resize(good.len(), 0);
            }
            fs::write(&files[1], &bytes).unwrap();
            let (status, found) = findings(dir.path());
            // Some records come before the first page that shows it.
            let most = if by.is_none() { 2 } else { 1 };
            assert!(status == 1 && found.len() <= most, "{what}: {found:#?}");
            let last = found.last().unwrap();
            assert_eq!(last["class"], "displaced", "{what}: {found:#?}");
            assert_eq!(last["text_mode"], by.is_none(), "{what}");
            assert!(by.is_none_or(|by| last["by"] == by), "{what}: {found:#?}");
            assert_eq!(last["action"], "fetch_again");
        }
    }
    // The last segment, too: this is no end of the WAL.
    let (dir, files) = copy(15, "workload");
    let last = files.last().unwrap();
    damage(last, |bytes| bytes.splice(0x4_0000..0x4_0000, [0; 8]).for_each(drop));
    let (status, found) = findings(dir.path());
    assert_eq!((status, found.len(), &found[0]["class"]), (1, 1, &"displaced".into()), "{found:#?}");
}

/// Files with the names of others are told as that, whichever way round.
#[test]
fn names_that_were_mixed_up() {
    let (dir, files) = copy(15, "workload");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let contents: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let expect = |expected: &[(usize, &str, Option<usize>)]| {
        let (_, found) = findings(dir.path());
        let found: Vec<(String, String, Option<String>)> = found
            .iter()
            .map(|one| {
                let input = name(Path::new(one["input"].as_str().unwrap()));
                (input, one["class"].as_str().unwrap().to_owned(), one["content"].as_str().map(str::to_owned))
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(at, class, content)| (name(&files[*at]), (*class).to_owned(), content.map(|at| name(&files[at]))))
            .collect();
        assert_eq!(found, expected);
    };
    fs::write(&files[1], &contents[2]).unwrap();
    fs::write(&files[2], &contents[1]).unwrap();
    expect(&[(1, "wrong_name", Some(2)), (2, "wrong_name", Some(1))]);
    // A copy of one that is in its place: a new name helps nobody.
    fs::write(&files[2], &contents[2]).unwrap();
    fs::write(&files[1], &contents[0]).unwrap();
    expect(&[(1, "recycled_page", None)]);
}

/// A compressed file that is damaged unpacks to anything, and is one finding all the same.
#[test]
fn damage_of_compressed_files_is_one_finding() {
    let (_kept, goods) = copy(15, "workload");
    let good = fs::read(&goods[1]).unwrap();
    let gzip = {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        to.write_all(&good).unwrap();
        to.finish().unwrap()
    };
    let zstd = {
        let mut to = zstd::Encoder::new(Vec::new(), 3).unwrap();
        to.include_checksum(true).unwrap();
        to.write_all(&good).unwrap();
        to.finish().unwrap()
    };
    let lz4 = {
        let info = lz4_flex::frame::FrameInfo::new().content_checksum(true);
        let mut to = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        to.write_all(&good).unwrap();
        to.finish().unwrap()
    };
    for (suffix, packed) in [("gz", gzip), ("zst", zstd), ("lz4", lz4)] {
        for part in 1..12 {
            let at = packed.len() * part / 12;
            let (dir, files) = copy(15, "workload");
            fs::remove_file(&files[1]).unwrap();
            let mut bytes = packed.clone();
            bytes[at..at + 5].fill(b'X');
            fs::write(format!("{}.{suffix}", files[1].display()), bytes).unwrap();
            let (status, found) = findings(dir.path());
            let classes: Vec<&str> = found.iter().map(|one| one["class"].as_str().unwrap()).collect();
            assert_eq!((status, &*classes), (1, &["unreadable"][..]), "{suffix}, {at}: {found:#?}");
        }
    }
}

/// A history file that says that its timeline began in an earlier segment than it did.
#[test]
fn a_fork_that_is_too_early() {
    let fixture = pgwal_testkit::fixtures::all().into_iter().find(|one| one.major == 17 && one.scenario == "timeline2").unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    for file in ["000000010000000000000006", "000000010000000000000007.partial", "000000020000000000000007", "00000002.history"] {
        fs::copy(fixture.dir.join(file), dir.path().join(file)).unwrap();
    }
    assert_eq!(findings(dir.path()), (0, vec![]));
    for switch in ["0/680000", "0/600100"] {
        fs::write(dir.path().join("00000002.history"), format!("1\t{switch}\tno recovery target specified\n")).unwrap();
        let (status, found) = findings(dir.path());
        assert_eq!((status, found.len(), &found[0]["class"]), (1, 1, &"text_file".into()), "{found:#?}");
        assert_eq!(found[0]["problem"]["kind"], "switch_point", "{found:#?}");
    }
}

/// Segments of one timeline under the names of another, which does not descend from it.
#[test]
fn segments_under_the_name_of_another_timeline() {
    let fixture = pgwal_testkit::fixtures::all().into_iter().find(|one| one.major == 17 && one.scenario == "timeline2").unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    fs::copy(fixture.dir.join("000000010000000000000006"), dir.path().join("000000010000000000000006")).unwrap();
    fs::copy(fixture.dir.join("00000002.history"), dir.path().join("00000003.history")).unwrap();
    let mut bytes = fs::read(fixture.dir.join("000000020000000000000007")).unwrap();
    fs::write(dir.path().join("000000030000000000000007"), &bytes).unwrap();
    // The next one begins with the timeline that it is of: here the pages are moved there.
    let pages = bytes.len() / 8192;
    for page in 0..pages {
        let address = u64::from_le_bytes(bytes[page * 8192 + 8..page * 8192 + 16].try_into().unwrap());
        if address != 0 {
            bytes[page * 8192 + 8..page * 8192 + 16].copy_from_slice(&(address + (1 << 20)).to_le_bytes());
            bytes[page * 8192 + 4..page * 8192 + 8].copy_from_slice(&2u32.to_le_bytes());
        }
    }
    fs::write(dir.path().join("000000030000000000000008"), &bytes).unwrap();
    let (status, found) = findings(dir.path());
    let named: Vec<_> = found.iter().filter(|one| one["problem"]["kind"] == "not_in_history").collect();
    assert_eq!((status, named.len(), &named[0]["class"]), (1, 1, &"timeline".into()), "{found:#?}");
    assert_eq!((&named[0]["problem"]["timeline"], &named[0]["problem"]["found"]), (&3.into(), &2.into()), "{found:#?}");
    // Nor can one restore along it: "unexpected timeline ID 2 (after 1)", says the server, and stops.
    fs::remove_file(dir.path().join("000000030000000000000008")).unwrap();
    let (status, out, _) = verify(dir.path(), ["--quiet", "--reach", "latest", "--timeline", "3", "."]);
    assert!(status == 1 && out.contains("\nno: ") | out.starts_with("no: ") && out.contains("it goes over to timeline 2"), "{out}");
    let (status, out, _) = verify(dir.path(), ["--quiet", "--reach", "0/700000", "--timeline", "3", "."]);
    assert!(status == 0 && out.contains("yes: "), "{out}");
}

#[test]
fn a_length_that_no_record_can_have() {
    for len in [1u32, 23, 0x7FFF_FFFF, 0xF123_4567] {
        for last in [false, true] {
            let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(15) };
            let mut wal = Wal::new(fmt);
            for len in [60, 3000, 700] {
                wal.record(&RecordBuilder::filler(len));
            }
            let at = wal.record(&RecordBuilder::filler(90));
            wal.patch(at, &len.to_le_bytes());
            for _ in 0..if last { 3 } else { 9000 } {
                wal.record(&RecordBuilder::filler(170));
            }
            wal.zero_tail();
            let dir = TempDir::new().unwrap();
            for (name, bytes) in wal.segments() {
                fs::write(dir.path().join(name.to_string()), bytes).unwrap();
            }
            let one = one(dir.path());
            assert_eq!((&one["class"], &one["found"]), (&"impossible_length".into(), &len.into()), "{one:#}");
            assert_eq!(one["record"], at.to_string(), "{one:#}");
        }
    }
}

#[test]
fn foreign_segments_after_the_end_do_not_make_the_wal_go_on() {
    let (dir, files) = copy(15, "crash");
    let (_, whole, _) = verify(dir.path(), ["."]);
    let end = whole.lines().next().unwrap().to_owned();
    let last = u64::from_str_radix(&files[1].file_name().unwrap().to_str().unwrap()[16..], 16).unwrap();
    // Right behind the end, and behind a gap.
    for next in [last + 1, last + 3] {
        let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(15) }).starting_at(Lsn(next << 20));
        wal.system_identifier(77).previous(Lsn((next << 20) - 0x1000));
        for _ in 0..100 {
            wal.record(&RecordBuilder::filler(170));
        }
        wal.zero_tail();
        let (name, bytes) = wal.segments().remove(0);
        let path = dir.path().join(name.to_string());
        fs::write(&path, bytes).unwrap();
        let (status, found) = findings(dir.path());
        assert_eq!((status, found.len()), (1, 1), "{found:#?}");
        assert_eq!((&found[0]["class"], &found[0]["input"]), (&"foreign_cluster".into(), &format!("./{name}").into()));
        let (_, out, _) = verify(dir.path(), ["."]);
        assert!(out.contains(&end), "{out}");
        fs::remove_file(path).unwrap();
    }
}

/// Copies what a server's pg_wal has into an archive.
fn archive(server: &Server, to: &Path) {
    for file in fs::read_dir(server.wal()).unwrap().flatten().filter(|file| file.path().is_file()) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn segments(dir: &Path, timeline: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().flatten().map(|file| file.path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.len() == 24 && name.starts_with(timeline)
    });
    files.sort();
    files
}

/// pg_resetwal begins the WAL anew: no copy of the WAL helps, a new base backup does.
#[test]
fn wal_begun_anew_by_pg_resetwal() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "classes::wal_begun_anew_by_pg_resetwal") else { return };
    let settings = "wal_keep_size = 64MB\nautovacuum = off\nwal_level = replica\nmax_wal_senders = 4\nwal_recycle = off";
    let server = postgres.start(&["--wal-segsize=1"], settings).unwrap();
    server.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 30000) g").unwrap();
    server.sql("CHECKPOINT").unwrap();
    server.sql("INSERT INTO t SELECT generate_series(1, 30000)").unwrap();
    server.control("stop -m immediate").unwrap();
    let dir = TempDir::new().unwrap();
    archive(&server, dir.path());
    let before = segments(dir.path(), "00000001").len();
    server.on_data("pg_resetwal", ["-f"]).unwrap();
    server.control("start").unwrap();
    server.sql("INSERT INTO t SELECT generate_series(1, 30000)").unwrap();
    server.control("stop -m fast").unwrap();
    archive(&server, dir.path());
    let files = segments(dir.path(), "00000001");
    assert!(files.len() > before);
    let first = files[before].file_name().unwrap().to_str().unwrap().to_owned();
    let one = one(dir.path());
    assert_eq!(
        (&one["class"], &one["action"], &one["input"]),
        (&"wal_reset".into(), &"new_base_backup".into(), &format!("./{first}").into())
    );
    assert!(one["ended"].is_string() && one["offsets"]["start"] == 40, "{one:#}");
    // Also where segments between the two are missing: they are of no use.
    fs::remove_file(&files[before - 1]).unwrap();
    let (_, found) = findings(dir.path());
    assert_eq!((found.len(), &found[0]["class"]), (1, &"wal_reset".into()), "{found:#?}");
    // What it wrote alone, as in its pg_wal, is sound.
    files[..before - 1].iter().for_each(|file| fs::remove_file(file).unwrap());
    assert_eq!(findings(dir.path()), (0, vec![]));
    // The advice: a base backup taken since can be recovered with the WAL since.
    server.control("start").unwrap();
    let backup = server.dir().join("backup");
    server.client("pg_basebackup", ["-X", "none", "-c", "fast", "-D", backup.to_str().unwrap()]).unwrap();
    server.sql("INSERT INTO t VALUES (0); SELECT pg_switch_wal()").unwrap();
    server.control("stop -m fast").unwrap();
    archive(&server, dir.path());
    assert_eq!(findings(dir.path()), (0, vec![]));
    give(dir.path()).unwrap();
    let restored = postgres.recover(&backup, &format!("restore_command = 'cp {}/%f %p'", dir.path().display())).unwrap();
    wait_until("the end of recovery", || restored.sql("SELECT pg_is_in_recovery()").is_ok_and(|is| is == "f"));
    assert_eq!(restored.sql("SELECT count(*) FROM t WHERE g = 0").unwrap(), "1");
}

/// Two standbys of one primary are promoted: both write timeline 2. A segment of the one among those of the other is found, and with the right
/// one in its place all is well.
#[test]
fn a_segment_of_another_promotion() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "classes::a_segment_of_another_promotion") else { return };
    let settings = "wal_keep_size = 64MB\nautovacuum = off\nwal_level = replica\nmax_wal_senders = 4";
    let primary = postgres.start(&["--wal-segsize=1"], settings).unwrap();
    primary.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 20000) g").unwrap();
    let standbys = [primary.standby().unwrap(), primary.standby().unwrap()];
    let rows =
        ["INSERT INTO t SELECT generate_series(1, 60000)", "CREATE TABLE u AS SELECT repeat('u', 137) FROM generate_series(1, 30000)"];
    let archives = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    for ((standby, rows), dir) in standbys.iter().zip(rows).zip(&archives) {
        standby.control("promote").unwrap();
        wait_until("the promotion", || standby.sql("SELECT pg_is_in_recovery()").is_ok_and(|is| is == "f"));
        standby.sql(&format!("{rows}; SELECT pg_switch_wal()")).unwrap();
        standby.control("stop -m fast").unwrap();
        archive(standby, dir.path());
        assert_eq!(findings(dir.path()), (0, vec![]));
    }
    let [ours, theirs] = archives.each_ref().map(|dir| segments(dir.path(), "00000002"));
    assert!(ours.len() >= 5 && theirs.len() >= 5, "{ours:?} {theirs:?}");
    let dir = archives[0].path();
    let name = |path: &Path| format!("./{}", path.file_name().unwrap().to_str().unwrap());
    let good = fs::read(&ours[2]).unwrap();
    fs::copy(&theirs[2], &ours[2]).unwrap();
    let told = one(dir);
    assert_eq!(
        (&told["class"], &told["action"], &told["input"]),
        (&"other_history".into(), &"find_history".into(), &name(&ours[2]).into())
    );
    assert_eq!(told["offsets"]["start"], 0);
    // Only the end of the file is the other's.
    let mut mixed = good.clone();
    mixed[0x8_0000..].copy_from_slice(&fs::read(&theirs[2]).unwrap()[0x8_0000..]);
    fs::write(&ours[2], mixed).unwrap();
    let told = one(dir);
    assert_eq!((&told["class"], &told["offsets"]["start"]), (&"other_history".into(), &0x8_0000.into()), "{told:#}");
    // From places inside pages on: a part of a record, or none, is left between the two.
    let others = fs::read(&theirs[2]).unwrap();
    let mut unknown = 0;
    for at in (0..40).map(|n| 0x1_0000 + n * 21_211) {
        let mixed = [&good[..at], &others[at..]].concat();
        fs::write(&ours[2], mixed).unwrap();
        let (status, found) = findings(dir);
        assert_eq!(status, 1);
        let (told, start) = (&found[0], found[0]["offsets"]["start"].as_u64().unwrap() as usize);
        assert!(start <= at + 8192 && at < start + 9000, "{at:#x}: {told:#}");
        match told["class"].as_str() {
            Some("other_history") => assert_eq!((found.len(), &told["action"]), (1, &"find_history".into()), "{at:#x}: {found:#?}"),
            // A record of each begins at the same place; the way back to the first history shows.
            Some("corrupted") => {
                assert_eq!((found.len(), &found[1]["class"]), (2, &"other_history".into()), "{at:#x}: {found:#?}");
                unknown += 1;
            }
            class => panic!("{at:#x}: {class:?}"),
        }
    }
    assert!(unknown <= 4, "{unknown}");
    // All from there on.
    fs::write(&ours[2], &good).unwrap();
    let goods: Vec<Vec<u8>> = ours.iter().map(|file| fs::read(file).unwrap()).collect();
    for (ours, theirs) in ours.iter().zip(&theirs).skip(3) {
        fs::copy(theirs, ours).unwrap();
    }
    let (_, found) = findings(dir);
    assert_eq!((found.len(), &found[0]["class"], &found[0]["input"]), (1, &"other_history".into(), &name(&ours[3]).into()), "{found:#?}");
    // The advice: the segments of the server whose history it is.
    ours.iter().zip(&goods).for_each(|(file, good)| fs::write(file, good).unwrap());
    assert_eq!(findings(dir), (0, vec![]));
    // Both archives at once: whole segments that differ.
    let here = TempDir::new().unwrap();
    let (status, out, err) = verify(here.path(), [Path::new("--format"), Path::new("json"), dir, archives[1].path()]);
    assert_eq!((status, err.as_str()), (1, ""));
    let classes: Vec<Value> =
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| line["type"] == "finding").collect();
    assert!(classes.iter().any(|finding| finding["class"] == "duplicate_segment"), "{out}");
    assert!(classes.iter().all(|finding| ["duplicate_segment", "other_history"].contains(&finding["class"].as_str().unwrap())), "{out}");
}

/// Whole segments in a row that have the same damage are one finding, plain and packed, with all files in it.
#[test]
fn segments_in_a_row() {
    let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(15) };
    let mut wal = Wal::new(fmt);
    while wal.end() < wal.start() + (9 << 20) {
        wal.record(&RecordBuilder::filler(3001));
    }
    let good: Vec<(String, Vec<u8>)> = wal.segments().into_iter().take(9).map(|(name, bytes)| (name.to_string(), bytes)).collect();
    type Change = fn(&mut Vec<u8>, &[u8]);
    let changes: [(&str, Change); 7] = [
        ("foreign_cluster", |bytes, _| bytes[24..32].copy_from_slice(&77u64.to_le_bytes())),
        ("recycled_page", |bytes, earlier| bytes.copy_from_slice(earlier)),
        ("zeroed_page", |bytes, _| bytes.fill(0)),
        ("truncated", |bytes, _| bytes.truncate(0x4_0000)),
        ("empty_file", |bytes, _| bytes.clear()),
        ("not_wal", |bytes, _| *bytes = b"not WAL at all".to_vec()),
        ("corrupted", |bytes, _| (0..bytes.len()).for_each(|at| bytes[at] = (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3])),
    ];
    for (class, change) in changes {
        let dir = TempDir::new().unwrap();
        for (at, (name, bytes)) in good.iter().enumerate() {
            let mut bytes = bytes.clone();
            if (4..7).contains(&at) {
                change(&mut bytes, &good[at - 4].1);
            }
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let (status, found) = findings(dir.path());
        assert_eq!((status, found.len()), (1, 1), "{class}: {found:#?}");
        let files: Vec<Value> = good[4..7].iter().map(|(name, _)| format!("./{name}").into()).collect();
        assert_eq!((&found[0]["first"], &found[0]["last"]), (&good[4].0.clone().into(), &good[6].0.clone().into()), "{class}: {found:#?}");
        assert_eq!(found[0]["files"], Value::from(files), "{class}");
        if class != "not_wal" {
            assert_eq!(found[0]["class"], class);
        }
        let (_, out, _) = verify(dir.path(), ["."]);
        assert!(out.contains(&format!("./{} to {}, 3 files", good[4].0, good[6].0)) && out.contains(": 1 finding.\n"), "{class}: {out}");
        // A report has each file, and a state knows none of them as good.
        let (_, out, _) = verify(dir.path(), ["--format", "junit", "."]);
        assert_eq!(out.matches("<failure ").count(), 3, "{class}: {out}");
        let state = dir.path().join("state");
        for _ in 0..2 {
            let (status, out, _) = verify(dir.path(), ["--state", state.to_str().unwrap(), "."]);
            assert!(status == 1 && out.contains(": 1 finding.\n") && out.contains(", 3 files"), "{class}: {out}");
        }
        if ["foreign_cluster", "recycled_page", "zeroed_page", "corrupted"].contains(&class) {
            fs::remove_file(state).unwrap();
            let again = one(dir.path());
            assert_eq!(again["last"], found[0]["last"]);
        }
    }
}
