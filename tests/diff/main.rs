//! `pgwal diff`.

mod files;
mod live;
mod memory;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgwal::{Lsn, RmgrId, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, Wal, relation};
use serde_json::Value;
use tempfile::TempDir;

/// `pgwal diff` in `dir`, in the time zone that the fixtures were printed in.
fn diff<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    command.arg("diff").args(args).current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C").env_remove("PGDATA").stdin(Stdio::null());
    command
}

/// Exit status, output and errors of a run.
#[track_caller]
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// The status and the first line of the verdict, without errors.
#[track_caller]
fn verdict(dir: &Path, args: &[&str]) -> (i32, String) {
    let (status, out, err) = run(&mut diff(dir, args.iter().chain(&["--summary"])));
    assert_eq!(err, "", "{args:?}");
    (status, out.lines().next().unwrap_or_default().to_owned())
}

fn fmt(major: u8) -> WalFormat {
    WalFormat { segment_size: MIB, ..WalFormat::new(major) }
}

/// A record that changes something: XLOG's FPI, of a page that is all hole.
fn change(block: u32) -> RecordBuilder {
    RecordBuilder::new(RmgrId::XLOG, 0xB0).block(BlockBuilder::new(0, relation(), block).image(ImageBuilder::empty_page(8192)))
}

/// A full segment and a bit.
fn wal() -> Wal {
    let mut wal = Wal::new(fmt(17));
    for block in 0.. {
        if wal.end() >= Lsn(0x20_1000) {
            break;
        }
        wal.record(&change(block));
    }
    wal
}

/// Folders `a` and `b`.
fn two(a: &Wal, b: &Wal) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (side, wal) in [("a", a), ("b", b)] {
        write(&dir.path().join(side), wal);
    }
    dir
}

fn write(dir: &Path, wal: &Wal) {
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.join(name.to_string()), bytes).unwrap();
    }
}

/// One that has another block number in one record, and that record's start.
fn one_changed() -> (Wal, Lsn) {
    let mut wal = wal();
    let record = wal.records()[300].clone();
    // Behind header, block header, image header and relation comes the block number.
    wal.patch_record(record.lsn, 24 + 4 + 5 + 12, &[0xFF, 0xFF]).refresh_crc(record.lsn);
    (wal, record.lsn)
}

#[test]
fn the_same() {
    let dir = two(&wal(), &wal());
    let dir = dir.path();
    let same = "identical: every byte from 0/00100000 to 0/00300000\n".to_owned();
    assert_eq!(run(&mut diff(dir, ["a", "b"])), (0, same.clone(), String::new()));
    assert_eq!(run(&mut diff(dir, ["--quiet", "a", "b"])), (0, String::new(), String::new()));
    let json = run(&mut diff(dir, ["--format", "json", "a", "b"]));
    let last: Value = serde_json::from_str(&json.1).unwrap();
    assert_eq!(
        (json.0, &last["event"], &last["verdict"], &last["same_bytes_to"]),
        (0, &"verdict".into(), &"identical".into(), &"0/00300000".into())
    );
    // Compressed, in archives, from standard input, one segment.
    let name = "000000010000000000000001";
    let mut tar = tar::Builder::new(fs::File::create(dir.join("b.tar")).unwrap());
    tar.append_dir_all("wal", dir.join("b")).unwrap();
    tar.finish().unwrap();
    fs::write(dir.join("b.tar.zst"), zstd::encode_all(&*fs::read(dir.join("b.tar")).unwrap(), 1).unwrap()).unwrap();
    let segment = fs::read(dir.join("b").join(name)).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&segment).unwrap();
    fs::create_dir(dir.join("gz")).unwrap();
    fs::write(dir.join("gz").join(format!("{name}.gz")), gz.finish().unwrap()).unwrap();
    fs::create_dir(dir.join("partial")).unwrap();
    fs::write(dir.join("partial").join(format!("{name}.partial")), &segment).unwrap();
    for b in ["b.tar", "b.tar.zst"] {
        assert_eq!(run(&mut diff(dir, ["a", b])), (0, same.clone(), String::new()), "{b}");
        assert_eq!(run(&mut diff(dir, [b, "a"])), (0, same.clone(), String::new()), "{b}");
    }
    let one = "identical: every byte from 0/00100000 to 0/00200000\n".to_owned();
    for b in [format!("gz/{name}.gz"), format!("partial/{name}.partial"), format!("b/{name}")] {
        assert_eq!(run(&mut diff(dir, [&format!("a/{name}"), &b])), (0, one.clone(), String::new()), "{b}");
    }
    let input = fs::File::open(dir.join("b").join(name)).unwrap();
    assert_eq!(run(diff(dir, [&format!("a/{name}"), "-"]).stdin(input)), (0, one, String::new()));
}

/// WAL of two clusters is told as that, in every form.
#[test]
fn two_clusters() {
    let build = |blocks: std::ops::Range<u32>, more: u64| {
        let mut wal = Wal::new(fmt(17));
        blocks.for_each(|block| _ = wal.record(&change(block)));
        wal.patch_page(wal.start(), |header| header.long.as_mut().unwrap().system_identifier += more);
        let (_, header) = pgwal::page::PageHeader::read(&wal.segments()[0].1).unwrap();
        (wal, header.long.unwrap().system_identifier)
    };
    let ((a, x), (b, y)) = (build(0..100, 0), build(50..200, 0x1111));
    let dir = two(&a, &b);
    let line = format!("A is of cluster {x}, B of cluster {y}: these are not copies or histories of the same WAL");
    assert_eq!(verdict(dir.path(), &["a", "b"]), (1, line));
    assert_eq!(run(&mut diff(dir.path(), ["--quiet", "a", "b"])).0, 1);
    let (status, out, _) = run(&mut diff(dir.path(), ["--summary", "--format", "json", "a", "b"]));
    let last: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &last["verdict"]), (1, &"other_cluster".into()));
    assert_eq!(last["clusters"]["b"]["system_identifier"], y.to_string());
    assert_eq!(last["sides"]["a"]["clusters"][0]["system_identifier"], x.to_string());
}

#[test]
fn one_record() {
    let (changed, lsn) = one_changed();
    let dir = two(&wal(), &changed);
    let lsns: Vec<Lsn> = wal().records().iter().map(|record| record.lsn).collect();
    let (status, out, err) = run(&mut diff(dir.path(), ["a", "b"]));
    assert_eq!((status, err.as_str()), (1, ""));
    let lines: Vec<&str> = out.lines().collect();
    let (hunk, verdict) = lines.split_at(11);
    assert_eq!(&hunk[..3], ["--- a", "+++ b", &format!("@@ {lsn} @@")]);
    let marks: String = hunk[3..].iter().filter_map(|line| line.chars().next()).collect();
    assert_eq!(marks, "   -+   ");
    for (line, number) in hunk[3..].iter().zip([297, 298, 299, 300, 300, 301, 302, 303]) {
        assert!(
            line[1..].starts_with("rmgr: XLOG ") && line.contains(&format!("lsn: {}, prev {}, ", lsns[number], lsns[number - 1])),
            "{line}"
        );
    }
    let blocks = (format!(" blk {} FPW", 300), format!(" blk {} FPW", 0xFFFF));
    assert!(hunk[6].ends_with(&blocks.0) && hunk[7].ends_with(&blocks.1), "{out}");
    assert_eq!(verdict[0], format!("diverging at {lsn}"));
    assert_eq!(verdict[1], format!("  last common record:{}", hunk[5]));
    assert_eq!(verdict[2], format!("  first of A: {}", &hunk[6][1..]));
    assert_eq!(verdict[3], format!("  first of B: {}", &hunk[7][1..]));
    assert_eq!(verdict[4], format!("  only in A: 1 record of 50 bytes up to {}: 1 change data, 0 commits", lsns[301]));
    assert_eq!(verdict.last(), Some(&&*format!("  the same again from {} on", lsns[301])));
    assert_eq!(run(&mut diff(dir.path(), ["--summary", "a", "b"])), (1, verdict.join("\n") + "\n", String::new()));
    assert_eq!(run(&mut diff(dir.path(), ["--quiet", "a", "b"])), (1, String::new(), String::new()));
    let marks = |args: &[&str]| {
        let (_, out, _) = run(&mut diff(dir.path(), args.iter().chain(&["a", "b"])));
        out.lines().filter(|line| line.get(1..5) == Some("rmgr")).filter_map(|line| line.chars().next()).collect::<String>()
    };
    assert_eq!(marks(&["-U", "0"]), "-+");
    assert_eq!(marks(&["-U1"]), " -+ ");
    assert_eq!(marks(&["-U", "1000"]).len(), 300 + 2 + 1000);
    for (args, status) in [
        (["--end", &lsns[300].to_string()], 0),
        (["--end", &lsns[301].to_string()], 1),
        (["--start", &lsns[300].to_string()], 1),
        (["--start", &lsns[301].to_string()], 0),
    ] {
        assert_eq!(run(&mut diff(dir.path(), args.iter().chain(&["a", "b"]))).0, status, "{args:?}");
    }
}

#[test]
fn bytes_with_their_names() {
    let (changed, lsn) = one_changed();
    let dir = two(&wal(), &changed);
    let (status, out, _) = run(&mut diff(dir.path(), ["--bytes", "a", "b"]));
    assert_eq!(status, 1);
    for expected in [
        "  0x0000 xl_tot_len               32 00 00 00\n",
        "- 0x002d block 0 block number     2c 01 00 00\n+ 0x002d block 0 block number     ff ff 00 00\n                                 ^^ ^^\n",
        "  0x0018 block 0 id               00\n",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    assert!(out.contains("- 0x0014 xl_crc ") && out.contains("+ 0x0014 xl_crc "), "{out}");
    let (_, out, _) = run(&mut diff(dir.path(), ["--bytes", "--format", "json", "-U0", "a", "b"]));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["event"].as_str().unwrap()).collect::<Vec<_>>(), ["hunk", "changed", "verdict"]);
    assert_eq!((&lines[1]["a"]["lsn"], &lines[1]["b"]["blocks"][0]["block"]), (&lsn.to_string().into(), &65535.into()));
    assert_eq!(lines[1]["bytes"][1], serde_json::json!({"at": 45, "field": "block 0 block number", "a": "2c010000", "b": "ffff0000"}));
    assert_eq!(lines[2]["parting"]["at"], lsn.to_string());
    assert_eq!(lines[2]["parting"]["first"]["b"]["blocks"][0]["block"], 65535);
    assert_eq!(lines[2]["sides"]["a"]["finish"]["reason"], "zeroes");
    // Damage: the bytes that cannot be believed are shown beside those of the other side.
    let mut damaged = wal();
    damaged.patch_record(lsn, 24 + 4 + 5 + 12, &[0xFF]);
    let dir = two(&wal(), &damaged);
    let (_, out, _) = run(&mut diff(dir.path(), ["--bytes", "a", "b"]));
    let line = format!("+damaged: 000000010000000000000001:0x{:x} ({lsn}): xl_crc: the bytes have ", lsn.0 & 0xF_FFFF);
    assert!(out.contains(&line) && out.contains("\n+ 0x002d block 0 block number     ff 01 00 00\n"), "{out}");
    assert!(out.contains(&format!("\nthe same but for damage of B, first at {lsn}\n")), "{out}");
    // A page header.
    let mut page = wal();
    page.patch_page(Lsn(0x12_2000), |header| header.timeline.0 = 0x0102);
    let dir = two(&wal(), &page);
    let (_, out, _) = run(&mut diff(dir.path(), ["--bytes", "a", "b"]));
    let dump = "@@ 0/00122000: page header @@\n  0x0000 xlp_magic                16 d1\n";
    assert!(
        out.contains(dump)
            && out.contains("- 0x0004 xlp_tli                  01 00 00 00\n+ 0x0004 xlp_tli                  02 01 00 00\n"),
        "{out}"
    );
}

#[test]
fn kinds_that_do_not_count() {
    let plain = wal();
    let lsn = plain.records()[300].lsn;
    let mut page = wal();
    page.patch_page(Lsn(0x12_2000), |header| header.info.0 |= 4);
    let mut padding = wal();
    padding.patch(lsn + 50, &[1]);
    let mut tail = wal();
    tail.recycled_pages(20, 1 << 20);
    let mut hint = wal();
    hint.record(&RecordBuilder::filler(50));
    let image = |image: ImageBuilder| {
        let mut wal = wal();
        let block = BlockBuilder::new(0, relation(), 1).image(image);
        wal.record(&RecordBuilder::new(RmgrId::XLOG, 0xB0).block(block));
        wal
    };
    let compressed = image(ImageBuilder::new(&[0; 8192]).compress(pgwal::record::Compression::Zstd));
    let uncompressed = image(ImageBuilder::empty_page(8192));
    for (kind, a, b, says) in [
        ("page-headers", &plain, &page, "identical but for 1 page header (xlp_info)"),
        ("padding", &plain, &padding, "identical but for padding in 1 place"),
        ("behind-end", &plain, &tail, "identical but for bytes behind the end of the WAL"),
        ("hint-only", &plain, &hint, &format!("A is a prefix of B: it ends at {}", plain.end())),
        ("compression", &uncompressed, &compressed, "identical but for the compression of page images in 1 record"),
    ] {
        let dir = two(a, b);
        assert_eq!(verdict(dir.path(), &["a", "b"]), (1, says.to_owned()));
        assert_eq!(verdict(dir.path(), &["--ignore", kind, "a", "b"]).0, 0, "{kind}");
        assert_eq!(verdict(dir.path(), &["--ignore", "all", "a", "b"]).0, 0, "{kind}");
        let other = if kind == "padding" { "layout" } else { "padding" };
        assert_eq!(verdict(dir.path(), &["--ignore", &format!("layout,{other}"), "a", "b"]).0, 1, "{kind}");
    }
}

#[test]
fn other_beginnings_and_ends() {
    let mut long = wal();
    (0..10).for_each(|block| _ = long.record(&change(block)));
    let dir = two(&wal(), &long);
    fs::remove_file(dir.path().join("b/000000010000000000000001")).unwrap();
    let (status, out, _) = run(&mut diff(dir.path(), ["--summary", "a", "b"]));
    assert_eq!((status, out.lines().next()), (1, Some(&*format!("A is a prefix of B: it ends at {}", wal().end()))));
    assert!(out.ends_with("  only A has WAL before 0/00200000: from 0/00100000\n"), "{out}");
    assert!(out.contains(&format!("  first of A: nothing: the WAL ends at {}: zeroes follow\n", wal().end())), "{out}");
    assert_eq!(verdict(dir.path(), &["--overlap", "a", "b"]).0, 0);
    assert_eq!(verdict(dir.path(), &["--overlap", "b", "a"]).0, 0);
}

#[test]
fn limits() {
    let (mut a, mut b) = (wal(), wal());
    (0..100).for_each(|block| _ = a.record(&change(block)));
    (0..70).for_each(|block| _ = b.record(&change(block + 1000).xid(9)));
    let dir = two(&a, &b);
    for (limit, shown) in [("5", [5, 5]), ("80", [80, 70]), ("0", [100, 70])] {
        let (status, out, _) = run(&mut diff(dir.path(), ["--limit", limit, "a", "b"]));
        let count = |mark: &str| out.lines().filter(|line| line.starts_with(mark)).count();
        assert_eq!((status, [count("-rmgr"), count("+rmgr")]), (1, shown));
        for (sign, side, left) in [('-', 'A', 100 - shown[0]), ('+', 'B', 70 - shown[1])] {
            assert_eq!(out.contains(&format!("\n{sign}… {left} more differences of {side}\n")), left > 0, "{out}");
        }
        assert!(out.contains("  only in A: 100 records of 5000 bytes"), "{out}");
        // First all of one side, then all of the other.
        let marks: String = out.lines().filter(|line| line.get(1..5) == Some("rmgr")).filter_map(|line| line.chars().next()).collect();
        assert!(marks.contains("-+") && !marks.contains("+-"), "{marks}");
        let (_, out, _) = run(&mut diff(dir.path(), ["--limit", limit, "--format", "json", "a", "b"]));
        let left: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|line: &Value| line["event"] == "left_out").collect();
        assert_eq!(left.is_empty(), limit == "0", "{left:?}");
    }
}

#[test]
fn damage_that_both_have() {
    let mut damaged = wal();
    damaged.patch_record(damaged.records()[300].lsn, 30, &[0xFF]);
    let dir = two(&damaged, &damaged);
    assert_eq!(verdict(dir.path(), &["a", "b"]).0, 0);
    let (status, out, _) = run(&mut diff(dir.path(), ["--check", "a", "b"]));
    assert_eq!(status, 2);
    assert!(out.ends_with("  both are damaged in the same way, in 1 place: pgwal verify tells more\n"), "{out}");
    let dir = two(&wal(), &wal());
    assert_eq!(verdict(dir.path(), &["--check", "a", "b"]), (0, "identical: every record from 0/00100000 on".to_owned()));
}

#[test]
fn trouble() {
    let mut other = Wal::new(fmt(15));
    other.record(&change(1));
    let dir = two(&wal(), &other);
    let dir = dir.path();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::write(dir.join("text"), "no WAL").unwrap();
    let mut later = Wal::new(fmt(17)).starting_at(Lsn(0x900_0000));
    later.record(&change(1));
    write(&dir.join("later"), &later);
    for (args, says) in [
        (["a", "b"], "A is WAL of PostgreSQL 17, B of PostgreSQL 15: nothing can be compared"),
        (["a", "nowhere"], "nowhere: does not exist"),
        (["empty", "a"], "empty: no WAL segment in it"),
        (["a", "text"], "text: only 6 bytes, less than the 40 of the page header that a segment starts with"),
        (["a", "later"], "nothing can be compared: A has no WAL at or after 0/09000000"),
        (["later", "a"], "nothing can be compared: B has no WAL at or after 0/09000000"),
    ] {
        assert_eq!(run(&mut diff(dir, args)), (2, String::new(), format!("pgwal: {says}\n")));
    }
    // A copy of which nothing can be read.
    let name = "000000010000000000000001";
    let mut bytes = fs::read(dir.join("a").join(name)).unwrap();
    bytes.chunks_mut(8192).for_each(|page| page[40..].fill(0xEE));
    fs::create_dir(dir.join("ruined")).unwrap();
    fs::write(dir.join("ruined").join(name), bytes).unwrap();
    let (status, out, _) = run(&mut diff(dir, ["--summary", &format!("a/{name}"), &format!("ruined/{name}")]));
    assert_eq!(status, 2, "{out}");
    assert!(out.starts_with("the same but for damage of B, first at 0/00100028\n"), "{out}");
    for (args, says) in [
        (&["a"][..], "error: the following required arguments were not provided:\n  <B>"),
        (&["a", "b", "c"], "error: unexpected argument 'c' found"),
        (&["--timelines", "1", "a"], "error: invalid value '1' for '--timelines <A,B>': expected two timelines, like 1,2"),
        (&["--timelines", "1,0", "a"], "error: invalid value '1,0' for '--timelines <A,B>': expected a number from 1 to 4294967295"),
        (&["--ignore", "nothing", "a", "b"], "error: invalid value 'nothing' for '--ignore <KIND>'"),
        (&["--start", "here", "a", "b"], "error: invalid value 'here' for '--start <LSN>'"),
    ] {
        let (status, out, err) = run(&mut diff(dir, args));
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}");
        assert!(err.starts_with(says), "{args:?}: {err}");
    }
}

#[test]
fn a_closed_pipe_is_quiet() {
    let (mut a, b) = (wal(), wal());
    (0..9000).for_each(|block| _ = a.record(&change(block)));
    let dir = two(&a, &b);
    let mut child = diff(dir.path(), ["--limit", "0", "a", "b"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(141), ""));
}

/// The two timelines of a promotion, for each major: what the newer one has is what the real pg_waldump prints of it.
#[test]
fn timelines_of_the_fixtures() {
    let mut compared = 0;
    for fixture in fixtures::all().iter().filter(|fixture| fixture.scenario == "timeline2") {
        let dir = fixture.unpacked();
        let switch: Lsn =
            String::from_utf8(fixture.read("00000002.history").unwrap()).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        let (status, out, err) = run(&mut diff(dir.path(), ["--timelines", "1,2", "--limit", "0", "."]));
        assert_eq!((status, err.as_str()), (1, ""), "{}", fixture.dir.display());
        assert!(out.starts_with("--- . (timeline 1)\n+++ . (timeline 2)\n@@ "), "{out}");
        assert!(!out.contains("\n-rmgr"), "{out}");
        let verdict = format!("\nA is a prefix of B: it ends at {switch}, where timeline 1 was left by ./00000002.history\n");
        assert!(out.contains(&verdict), "{out}");
        let ours: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix('+')).filter(|line| line.starts_with("rmgr")).collect();
        let theirs = String::from_utf8(fixture.read("waldump-tli2.txt").unwrap()).unwrap();
        let lsn = |line: &str| line.split_once("lsn: ").and_then(|(_, rest)| rest.split(',').next()?.parse::<Lsn>().ok()).unwrap();
        let theirs: Vec<&str> = theirs.lines().filter(|line| lsn(line) >= switch).collect();
        assert_eq!(ours, theirs, "{}", fixture.dir.display());
        assert!(theirs.len() > 10);
        compared += 1;
    }
    assert_eq!(compared, 10);
}

/// Which timeline has no segment; older ones are not compared in its place.
#[test]
fn timelines_that_are_not_there() {
    let mut newer = Wal::new(fmt(17));
    newer.record(&change(1));
    let dir = TempDir::new().unwrap();
    for (folder, timelines) in [("two", &[2][..]), ("many", &[2, 3, 5]), ("one", &[1])] {
        fs::create_dir(dir.path().join(folder)).unwrap();
        for timeline in timelines {
            for (name, bytes) in newer.segments() {
                let name = pgwal::SegmentName { timeline: pgwal::TimelineId(*timeline), ..name };
                fs::write(dir.path().join(folder).join(name.to_string()), bytes).unwrap();
            }
        }
    }
    for (args, says) in [
        (&["--timelines", "1,2", "two"][..], "two: no WAL segment of timeline 1 or an older one; the segments are of timeline 2"),
        (&["--timelines", "2,1", "two"], "two: no WAL segment of timeline 1 or an older one; the segments are of timeline 2"),
        (&["--timelines", "1,2", "one"], "one: no WAL segment of timeline 2; the segments are of timeline 1"),
        (&["--timelines", "5,7", "many"], "many: no WAL segment of timeline 7; the segments are of timeline 5"),
        (&["--timelines", "1,5", "many"], "many: no WAL segment of timeline 1 or an older one; the segments are of timelines 2 to 5"),
        (&["--timelines", "1,2", "one", "one"], "one: no WAL segment of timeline 2; the segments are of timeline 1"),
    ] {
        assert_eq!(run(&mut diff(dir.path(), args)), (2, String::new(), format!("pgwal: {says}\n")), "{args:?}");
    }
    assert_eq!(verdict(dir.path(), &["--timelines", "2,5", "many"]).0, 0);
    assert_eq!(verdict(dir.path(), &["--timelines", "1,2", "one", "two"]).0, 0);
}

/// The example of the help is one that runs.
#[test]
fn the_help_has_an_example() {
    let (_, help, _) = run(&mut diff(Path::new("."), ["--help"]));
    let example = help.lines().find_map(|line| line.strip_prefix("Example: pgwal diff ")).expect("an example");
    let root: PathBuf = fixtures::root().parent().unwrap().to_owned();
    let (status, out, err) = run(&mut diff(&root, example.split(' ')));
    assert_eq!((status, err.as_str()), (1, ""));
    assert!(out.contains("\nA is a prefix of B: it ends at "), "{out}");
}
