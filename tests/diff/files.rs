//! What stands around the records: bytes that follow a segment in its file, history files, and names of damaged files.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use pgwal::Lsn;
use pgwal_testkit::wal::Wal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{change, diff, run, two, verdict, wal};

const FIRST: &str = "000000010000000000000001";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A tar of the segments of `wal`, with `more` after the first.
fn tar(wal: &Wal, more: &[u8]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (at, (name, bytes)) in wal.segments().into_iter().enumerate() {
        let bytes = [&bytes[..], if at == 0 { more } else { b"" }].concat();
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        out.append_data(&mut header, name.to_string(), &bytes[..]).unwrap();
    }
    out.into_inner().unwrap()
}

/// Changes the first segment of one side, and gives it another name.
fn change_first(dir: &Path, side: &str, suffix: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let folder = dir.join(side);
    let old = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).find(|path| path.to_str().unwrap().contains(FIRST)).unwrap();
    let bytes = change(fs::read(&old).unwrap());
    fs::remove_file(&old).unwrap();
    fs::write(folder.join(format!("{FIRST}{suffix}")), bytes).unwrap();
}

/// A file that is not whole beside one of the same segment that is: the other one is read, whatever the suffixes.
#[test]
fn a_bad_file_beside_a_whole_one() {
    let wal = wal();
    let segment = wal.segments()[0].1.clone();
    let compress = |suffix: &str, bytes: &[u8]| match suffix.trim_end_matches(".partial") {
        ".gz" => gzip(bytes),
        ".zst" => zstd::encode_all(bytes, 1).unwrap(),
        _ => bytes.to_vec(),
    };
    let cut = |len: usize| {
        move |mut bytes: Vec<u8>| {
            bytes.truncate(len);
            bytes
        }
    };
    let start_of_another = |mut bytes: Vec<u8>| {
        bytes[8 + 2] ^= 0x10;
        bytes
    };
    let late = |mut bytes: Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at..at + 40].fill(0xEE);
        bytes
    };
    type Change<'c> = &'c dyn Fn(Vec<u8>) -> Vec<u8>;
    // The suffix of the bad file, what is wrong with it, whether opening it shows that, and the suffix of the whole one.
    let situations: [(&str, Change<'_>, bool, &str); 12] = [
        ("", &cut(0), true, ".gz"),
        ("", &cut(100), true, ".zst"),
        ("", &cut(500_000), true, ".partial"),
        ("", &|bytes: Vec<u8>| vec![0x55; bytes.len()], true, ".gz"),
        ("", &|bytes: Vec<u8>| vec![0; bytes.len()], true, ".gz.partial"),
        ("", &start_of_another, true, ".gz"),
        (".gz", &cut(0), true, ".zst"),
        (".gz", &cut(30), true, ".zst"),
        (".zst", &cut(10), true, ".partial"),
        (".zst", &late, false, ".partial"),
        (".gz", &late, false, ".zst"),
        ("", &late, false, ".gz"),
    ];
    for (bad, change, is_seen, whole) in situations {
        let dir = two(&wal, &wal);
        let dir = dir.path();
        let [bad_path, whole_path] = [bad, whole].map(|suffix| format!("b/{FIRST}{suffix}"));
        fs::remove_file(dir.join("b").join(FIRST)).unwrap();
        fs::write(dir.join(&whole_path), compress(whole, &segment)).unwrap();
        fs::write(dir.join(&bad_path), change(compress(bad, &segment))).unwrap();
        let (status, out, err) = run(&mut diff(dir, ["--summary", "a", "b"]));
        assert_eq!((status, &out[..11]), (0, "identical: "), "{bad_path} {whole_path}: {out}{err}");
        let is_passed_over = |err: &str| err.contains(&bad_path) && err.contains(&format!("reading {whole_path} instead"));
        assert!(is_passed_over(&err), "{bad_path} {whole_path}: {err}");
        for command in ["dump", "stats"] {
            let pgwal = |side: &str| run(std::process::Command::new(env!("CARGO_BIN_EXE_pgwal")).args([command, side]).current_dir(dir));
            let (expected, (status, out, err)) = (pgwal("a"), pgwal("b"));
            if is_seen {
                assert!(is_passed_over(&err), "{command} {bad_path} {whole_path}: {err}");
                assert_eq!((status, out), (expected.0, expected.1), "{command} {bad_path} {whole_path}: {err}");
            } else {
                assert!(status == 1 && err.contains(&format!("{whole_path}: another file of this segment")), "{command} {bad_path}: {err}");
            }
        }
    }
}

#[test]
fn bytes_that_follow_a_segment() {
    let wal = wal();
    let more = |bytes: &'static [u8]| move |segment: Vec<u8>| [&segment[..], bytes].concat();
    type Change<'a> = Box<dyn FnOnce(Vec<u8>) -> Vec<u8> + 'a>;
    let packed = |bytes: &'static [u8]| -> Change<'_> { Box::new(move |segment| gzip(&more(bytes)(segment))) };
    let after = |bytes: &'static [u8]| -> Change<'_> { Box::new(move |segment| [gzip(&segment), bytes.to_vec()].concat()) };
    let plain = |bytes: &'static [u8]| -> Change<'_> { Box::new(more(bytes)) };
    let packed_len = gzip(&wal.segments()[0].1).len();
    for (a, b, says) in [
        ((plain(b""), ""), (plain(b"xy"), ""), Some(format!("{FIRST}: 2 bytes more at the end of the file in B"))),
        ((plain(b"x"), ""), (plain(b""), ""), Some(format!("{FIRST}: 1 byte more at the end of the file in A"))),
        ((plain(b"xy"), ""), (plain(b"xz"), ""), Some(format!("{FIRST}: the 2 bytes after the segment differ"))),
        ((plain(b"xy"), ""), (plain(b"xy"), ""), None),
        ((packed(b""), ".gz"), (packed(&[0; 512]), ".gz"), Some(format!("{FIRST}.gz: 512 bytes more at the end of the file in B"))),
        ((plain(b""), ""), (packed(b"xy"), ".gz"), Some(format!("{FIRST}.gz: 2 bytes more at the end of the file in B"))),
        ((plain(b"xy"), ""), (packed(b"xy"), ".gz"), None),
        ((plain(b""), ""), (packed(b""), ".gz"), None),
        ((packed(b""), ".gz"), (after(&[0; 512]), ".gz"), None),
        (
            (plain(b""), ""),
            (after(b"garbage"), ".gz"),
            Some(format!("{FIRST}.gz: in B, other bytes follow the compressed data, from 0x{packed_len:x} on")),
        ),
    ] {
        let dir = two(&wal, &wal);
        let dir = dir.path();
        change_first(dir, "a", a.1, a.0);
        change_first(dir, "b", b.1, b.0);
        let (status, out, err) = run(&mut diff(dir, ["a", "b"]));
        match says {
            Some(says) => {
                let expected = format!("identical but for 1 difference outside the WAL\n  {says}\n");
                assert_eq!((status, out.as_str(), err.as_str()), (1, expected.as_str(), ""));
                // A part of the WAL has no such bytes.
                assert_eq!(run(&mut diff(dir, ["--end", "0/200000", "a", "b"])).0, 0);
                for ignore in ["files", "all"] {
                    assert_eq!(run(&mut diff(dir, ["--quiet", "--ignore", ignore, "a", "b"])).0, 0);
                }
                let (_, out, _) = run(&mut diff(dir, ["--format", "json", "a", "b"]));
                let verdict: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
                assert_eq!((&verdict["verdict"], &verdict["but_for"]["files"]), (&"identical_but".into(), &1.into()), "{out}");
                assert!(verdict["files"][0]["file"].as_str().unwrap().starts_with(FIRST), "{out}");
                // The segments by their names, too.
                let of = |side: &str, suffix: &str| format!("{side}/{FIRST}{suffix}");
                assert_eq!(run(&mut diff(dir, ["--quiet", &of("a", a.1), &of("b", b.1)])).0, 1);
            }
            None => assert!(status == 0 && out.starts_with("identical: "), "{out}"),
        }
    }
    // Members of archives.
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
    write("good.tar", tar(&wal, b""));
    write("longer.tar", tar(&wal, b"xyz"));
    write("longer.tar.gz", gzip(&tar(&wal, b"xyz")));
    let expected = format!("identical but for 1 difference outside the WAL\n  {FIRST}: 3 bytes more at the end of the file in B\n");
    for longer in ["longer.tar", "longer.tar.gz"] {
        assert_eq!(run(&mut diff(dir.path(), ["good.tar", longer])), (1, expected.clone(), String::new()));
    }
    assert_eq!(run(&mut diff(dir.path(), ["longer.tar", "longer.tar.gz"])).0, 0);
    // With other differences.
    let mut longer = crate::wal();
    (0..3).for_each(|block| _ = longer.record(&change(block)));
    let dir = two(&wal, &longer);
    change_first(dir.path(), "a", "", more(b"xy"));
    let (status, out, _) = run(&mut diff(dir.path(), ["--summary", "a", "b"]));
    assert!(status == 1 && out.starts_with("A is a prefix of B: "), "{out}");
    let expected = format!("  besides: 1 difference outside the WAL\n  {FIRST}: 2 bytes more at the end of the file in A\n");
    assert!(out.ends_with(&expected), "{out}");
}

#[test]
fn history_files_of_both_sides() {
    let wal = wal();
    let dir = two(&wal, &wal);
    let dir = dir.path();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    let backup = "000000010000000000000001.00000028.backup";
    let says = |expected: &[&str]| {
        let (status, out, err) = run(&mut diff(dir, ["a", "b"]));
        let lines: Vec<&str> = out.lines().skip(1).map(str::trim_start).collect();
        assert_eq!((status, lines.as_slice(), err.as_str()), (i32::from(!expected.is_empty()), expected, ""), "{out}");
    };
    write("a/00000001.txt", b"of no meaning");
    says(&[]);
    write("a/00000002.history", b"1\t0/180000\tno recovery target specified\n");
    write("a/00000003.history.gz", &gzip(b"1\t0/180000\tx\n2\t0/190000\tx\n"));
    write(&format!("b/{backup}"), b"START WAL LOCATION: 0/100028\n");
    says(&[&format!("{backup}: only in B"), "00000002.history: only in A", "00000003.history: only in A"]);
    // What only one of them has does not count where only one of them has WAL either.
    assert_eq!(verdict(dir, &["--overlap", "a", "b"]).0, 0);
    assert_eq!(verdict(dir, &["--ignore", "files", "a", "b"]).0, 0);
    // Older than what is read of one of them: up to timeline 1.
    assert_eq!(verdict(dir, &["--timelines", "1,1", "--ignore", "padding", "a", "b"]).0, 1);
    fs::remove_file(dir.join("b").join(backup)).unwrap();
    assert_eq!(verdict(dir, &["--timelines", "1,1", "a", "b"]).0, 0);
    write("b/00000002.history", b"1\t0/180001\tno recovery target specified\n");
    write("b/00000003.history", b"1\t0/180000\tx\n2\t0/190000\tx\n");
    let differs = "00000002.history: line 1 is \"1\\t0/180000\\tno recovery target specified\" in A, \"1\\t0/180001\\tno recovery target \
                   specified\" in B";
    says(&[differs]);
    assert_eq!(verdict(dir, &["--overlap", "a", "b"]).0, 1);
    // A copy in an archive.
    let mut out = tar::Builder::new(Vec::new());
    out.append_dir_all("wal", dir.join("a")).unwrap();
    write("b.tar", &out.into_inner().unwrap());
    assert_eq!(run(&mut diff(dir, ["a", "b.tar"])).0, 0);
    let (status, text, _) = run(&mut diff(dir, ["b.tar", "b"]));
    assert!(status == 1 && text.contains(differs), "{text}");
    // A single segment has none.
    assert_eq!(run(&mut diff(dir, [format!("a/{FIRST}"), format!("b/{FIRST}")])).0, 0);
    assert_eq!(run(&mut diff(dir, ["a", "a"])).0, 0);
}

/// That one side ends is told as that, whatever is wrong with the other one before.
#[test]
fn one_ends_and_one_is_damaged_before() {
    let mut longer = wal();
    (0..10).for_each(|block| _ = longer.record(&change(block)));
    let end = wal().end();
    let lsn = wal().records()[300].lsn;
    let mut damaged = longer.clone();
    damaged.patch_record(lsn, 30, &[0xFF]);
    for (a, b, says) in [
        (&wal(), &damaged, format!("the same but for damage of B, first at {lsn}; A ends at {end}, and B goes on")),
        (&damaged, &wal(), format!("the same but for damage of A, first at {lsn}; B ends at {end}, and A goes on")),
    ] {
        let dir = two(a, b);
        assert_eq!(verdict(dir.path(), &["a", "b"]), (1, says));
    }
    let mut short = wal();
    short.patch_record(lsn, 30, &[0xFF]);
    let dir = two(&short, &longer);
    let says = format!("the same but for damage of A, first at {lsn}; A ends at {end}, and B goes on");
    assert_eq!(verdict(dir.path(), &["a", "b"]), (1, says));
    let (_, out, _) = run(&mut diff(dir.path(), ["--format", "json", "a", "b"]));
    let json: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&json["verdict"], &json["ends"]["side"], &json["ends"]["at"]), (&"damaged".into(), &"a".into(), &end.to_string().into()));
    // Damage of both, in different places.
    let other = wal().records()[700].lsn;
    let mut both = longer.clone();
    both.patch_record(other, 30, &[0xFF]);
    let dir = two(&short, &both);
    let says = format!("the same but for damage of A and B, first at {lsn}; A ends at {end}, and B goes on");
    assert_eq!(verdict(dir.path(), &["a", "b"]), (1, says));
    // Damage after the place where one ends changes nothing about that.
    let mut behind = longer.clone();
    behind.patch_record(longer.records()[wal().records().len() + 5].lsn, 30, &[0xFF]);
    let dir = two(&wal(), &behind);
    assert_eq!(verdict(dir.path(), &["a", "b"]), (1, format!("A is a prefix of B: it ends at {end}")));
    // A partial segment, filled with zeroes or not, is a beginning.
    let dir = two(&wal(), &longer);
    let last = dir.path().join("a/000000010000000000000002");
    let bytes = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    for len in [bytes.len(), 0x4000] {
        fs::write(dir.path().join("a/000000010000000000000002.partial"), &bytes[..len]).unwrap();
        assert_eq!(verdict(dir.path(), &["a", "b"]), (1, format!("A is a prefix of B: it ends at {end}")), "{len}");
    }
    // Other records behind the damage are another matter.
    let mut other = wal();
    other.patch_record(lsn, 30, &[0xFF]);
    (0..10).for_each(|block| _ = other.record(&change(block + 1000)));
    let dir = two(&longer, &other);
    assert_eq!(verdict(dir.path(), &["a", "b"]), (1, format!("diverging at {end}")));
}

#[test]
fn damage_has_the_name_of_its_file() {
    let lsn: Lsn = wal().records()[300].lsn;
    let mut damaged = wal();
    damaged.patch_record(lsn, 30, &[0xFF]);
    let dir = two(&wal(), &damaged);
    for suffix in ["", ".gz", ".zst"] {
        change_first(dir.path(), "b", suffix, |bytes| {
            // It has been compressed before, or not at all.
            let bytes = if bytes.starts_with(&[0x1F, 0x8B]) {
                let mut plain = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut plain).unwrap();
                plain
            } else {
                bytes
            };
            match suffix {
                ".gz" => gzip(&bytes),
                ".zst" => zstd::encode_all(&bytes[..], 1).unwrap(),
                _ => bytes,
            }
        });
        let place = format!("damaged: {FIRST}{suffix}:0x{:x} ({lsn}): xl_crc: ", lsn.0 & 0xF_FFFF);
        let (_, out, _) = run(&mut diff(dir.path(), ["a", "b"]));
        assert!(out.contains(&format!("\n+{place}")) && out.contains(&format!("\n  B is {place}")), "{out}");
        let (_, out, _) = run(&mut diff(dir.path(), [format!("a/{FIRST}"), format!("b/{FIRST}{suffix}")]));
        assert!(out.contains(&format!("\n+{place}")), "{out}");
        let (_, out, _) = run(&mut diff(dir.path(), ["--format", "json", "a", "b"]));
        assert!(out.contains(&format!("\"damage\":\"{FIRST}{suffix}:0x")), "{out}");
    }
}

/// Wherever one side is cut short, the other one is whole.
#[test]
fn the_side_that_is_whole_is_not_accused() {
    let fixture = pgwal_testkit::fixtures::all().into_iter().find(|fixture| fixture.major == 17 && fixture.scenario == "workload").unwrap();
    let dir = TempDir::new().unwrap();
    for side in ["a", "b"] {
        fs::create_dir(dir.path().join(side)).unwrap();
        for segment in fixture.segments() {
            fs::copy(&segment, dir.path().join(side).join(segment.file_name().unwrap())).unwrap();
        }
    }
    let segments = fixture.segments();
    for segment in [&segments[0], segments.last().unwrap()] {
        let bytes = fs::read(segment).unwrap();
        let cut = dir.path().join("b").join(segment.file_name().unwrap());
        for len in [8192 * 3, 8192 * 3 + 1, 8192 * 5 + 24, 300_000, 8192 * 100 + 4093, 8192 * 100 + 8191] {
            fs::write(&cut, &bytes[..len]).unwrap();
            let (status, out, _) = run(&mut diff(dir.path(), ["--summary", "a", "b"]));
            assert!(status == 1 && !out.contains("A is damaged") && !out.contains("damage of A"), "{len} of {}: {out}", cut.display());
        }
        fs::write(&cut, &bytes).unwrap();
    }
    assert_eq!(run(&mut diff(dir.path(), ["a", "b"])).0, 0);
}
