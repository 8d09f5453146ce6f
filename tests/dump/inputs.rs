//! Where WAL comes from, and what is said of what is none.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use pgwal::{Lsn, SegmentName};
use pgwal_testkit::fixtures::{self, Fixture};
use tempfile::TempDir;

use crate::fixtures::{runs, with_any_threads};
use crate::{Ran, dump, run, same_bytes};

fn fixture(major: u8, scenario: &str) -> Fixture {
    fixtures::with_odd().into_iter().find(|fixture| fixture.major == major && fixture.scenario == scenario).expect("a fixture")
}

/// Segments with their names, and what the real pg_waldump printed of all of them.
pub fn workload() -> (Vec<(String, Vec<u8>)>, Vec<u8>) {
    let fixture = fixture(15, "workload");
    let dir = fixture.unpacked();
    let names = fixture.segments().into_iter().map(|path| path.file_name().unwrap().to_string_lossy().trim_end_matches(".zst").to_owned());
    let segments = names.map(|name| (name.clone(), fs::read(dir.path().join(name)).unwrap())).collect();
    (segments, runs(&fixture)[0].stdout.clone())
}

const PACKINGS: [&str; 3] = ["gzip", "lz4", "zstd"];

/// Name of the segment that comes `further` ones after `name`, and its first LSN.
pub fn later(name: &str, further: i64) -> (String, Lsn) {
    let name: SegmentName = name.parse().unwrap();
    let number = name.number(1 << 20).checked_add_signed(further).unwrap();
    let name = SegmentName::new(name.timeline, number, 1 << 20);
    (name.to_string(), name.start(1 << 20))
}

pub fn packed(packing: &str, bytes: &[u8]) -> Vec<u8> {
    match packing {
        "gzip" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        "lz4" => {
            // As the server's programs do it.
            let blocks = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut out = lz4_flex::frame::FrameEncoder::with_frame_info(blocks, Vec::new());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        _ => zstd::encode_all(bytes, 1).unwrap(),
    }
}

fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        out.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    out.into_inner().unwrap()
}

pub fn from_stdin(dir: &Path, bytes: &[u8], threads: &str) -> Ran {
    let mut child = dump(dir, ["-", "--threads", threads]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&bytes); // whoever has seen enough closes the pipe
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.into()
}

/// Whole WAL, with nothing on standard error but where it ends.
#[track_caller]
fn is_whole(what: &str, ran: &Ran, expected: &[u8]) {
    same_bytes(what, &ran.stdout, expected);
    let quiet = ran.stderr.is_empty() || (ran.stderr.starts_with("pgwal: the WAL ends at ") && ran.stderr.lines().count() == 1);
    assert!(ran.status == 0 && quiet, "{what}: {} {}", ran.status, ran.stderr);
}

/// Exit status 1, nothing on standard output, one sentence.
#[track_caller]
fn is_refused(dir: &Path, args: &[&str], sentence: &str) {
    let ran = with_any_threads(dir, args);
    assert_eq!((ran.status, ran.stderr), (1, format!("pgwal: {sentence}\n")), "{args:?}");
    assert!(ran.stdout.is_empty(), "{args:?}");
}

fn write_all(dir: &Path, files: &[(String, Vec<u8>)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

#[test]
fn directories_and_named_segments() {
    let (segments, expected) = workload();
    let top = TempDir::new().unwrap();
    let top = top.path();
    let (first, last) = (segments[0].0.as_str(), segments[segments.len() - 1].0.as_str());
    write_all(&top.join("plain"), &segments);
    write_all(&top.join("data/pg_wal"), &segments);
    let in_folder = |name: &str| format!("plain/{name}");
    for args in [
        vec!["plain".to_owned()],
        vec!["data".to_owned()],
        vec!["-p".to_owned(), "data".to_owned()],
        vec!["-p".to_owned(), "data/pg_wal".to_owned(), first.to_owned(), last.to_owned()],
        vec!["--path=data".to_owned(), first.to_owned(), last.to_owned()],
        vec![in_folder(first), in_folder(last)],
        vec![in_folder(first), last.to_owned()],
    ] {
        is_whole(&args.join(" "), &with_any_threads(top, &args), &expected);
    }
    is_whole("the folder itself", &run(&mut dump(&top.join("plain"), [""; 0])), &expected);
    is_whole("its pg_wal", &run(&mut dump(&top.join("data"), [""; 0])), &expected);
    is_whole("PGDATA", &run(dump(&top.join("data/pg_wal/.."), [first, last]).env("PGDATA", top.join("data"))), &expected);
    let named = [first.to_owned(), "-e".to_owned(), later(last, 1).1.to_string()];
    is_whole("an end behind the segment", &run(&mut dump(&top.join("plain"), &named)), &expected);

    is_refused(&top.join("plain"), &[last, first], &format!("ENDSEG {first} is before STARTSEG {last}"));
    let (before, after) = (later(first, -3).0, later(last, 3).0);
    is_refused(&top.join("plain"), &[first, &after], &format!("./{after}: no such segment"));
    is_refused(&top.join("plain"), &[&before, last], &format!("./{before}: no such segment"));
    is_refused(&top.join("plain"), &[&before], &format!("{before}: does not exist"));
    is_refused(&top.join("plain"), &["-s", "0/100", first], "000000010000000000000000: no such segment");
    is_refused(&top.join("plain"), &["-s", "5/0", first], &format!("{first}: ends before 5/00000000, where reading was to start"));
    fs::create_dir(top.join("none")).unwrap();
    is_refused(top, &["none"], "none: no WAL segment in it");
    is_refused(top, &["nowhere"], "nowhere: does not exist");
}

#[test]
fn compressed_partial_and_renamed() {
    let (segments, expected) = workload();
    let top = TempDir::new().unwrap();
    let top = top.path();
    let alone = {
        write_all(top, &segments[..1]);
        with_any_threads(top, &[&segments[0].0])
    };
    assert!(expected.starts_with(&alone.stdout) && !alone.stdout.is_empty());
    for packing in PACKINGS {
        let files: Vec<_> = segments.iter().map(|(name, bytes)| (format!("{name}.{packing}"), packed(packing, bytes))).collect();
        write_all(&top.join(packing), &files);
        is_whole(packing, &with_any_threads(top, &[packing]), &expected);
        fs::write(top.join("a name of no meaning"), &files[0].1).unwrap();
        is_whole(packing, &with_any_threads(top, &["a name of no meaning"]), &alone.stdout);
        fs::write(top.join("cut"), &files[0].1[..files[0].1.len() / 2]).unwrap();
        let cut = with_any_threads(top, &["cut"]);
        assert!(cut.status == 1 && cut.stderr.starts_with("pgwal: cut: does not unpack: "), "{packing}: {}", cut.stderr);
        assert!(alone.stdout.starts_with(&cut.stdout) && cut.stdout.len() < alone.stdout.len(), "{packing}");
        fs::write(top.join("no wal"), packed(packing, b"no WAL at all, but some text that is longer than a header")).unwrap();
        let sentence = "no wal: not a WAL segment: it starts with 6F6E, which is the page magic of no PostgreSQL from 10 to 19";
        is_refused(top, &["no wal"], sentence);
        is_whole(&format!("{packing} from standard input"), &from_stdin(top, &files[0].1, "2"), &alone.stdout);
    }
    fs::write(top.join(format!("{}.partial", segments[0].0)), &segments[0].1).unwrap();
    is_whole("partial", &with_any_threads(top, &[format!("{}.partial", segments[0].0)]), &alone.stdout);
    let mut last_partial = segments.clone();
    let last = last_partial.last_mut().unwrap();
    last.0 += ".partial";
    write_all(&top.join("with partial"), &last_partial);
    is_whole("a partial one last", &with_any_threads(top, &["with partial"]), &expected);
    let everything: Vec<u8> = segments.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    is_whole("segments one behind the other", &from_stdin(top, &everything, "3"), &expected);
    fs::write(top.join("joined"), &everything).unwrap();
    is_whole("segments one behind the other in a file", &with_any_threads(top, &["joined"]), &expected);
}

#[test]
fn archives() {
    let (segments, expected) = workload();
    let top = TempDir::new().unwrap();
    let top = top.path();
    let mut others = segments.clone();
    others.insert(1, ("backup_label".to_owned(), b"START WAL LOCATION: 0/2400028".to_vec()));
    others.iter_mut().for_each(|(name, _)| name.insert_str(0, "pg_wal/"));
    let mut shuffled = segments.clone();
    shuffled.rotate_left(1);
    shuffled.push(("00000002.history".to_owned(), b"1\t0/2700000\tno recovery target specified\n".to_vec()));
    let members_packed: Vec<_> = segments.iter().map(|(name, bytes)| (format!("{name}.lz4"), packed("lz4", bytes))).collect();
    for (what, members) in [("ordered", &others), ("shuffled", &shuffled), ("packed", &members_packed)] {
        let plain = tar(members);
        let mut forms = vec![("tar", plain.clone())];
        forms.extend(PACKINGS.map(|packing| (packing, packed(packing, &plain))));
        for (form, bytes) in forms {
            let what = format!("{what} {form}");
            fs::write(top.join("archive"), &bytes).unwrap();
            is_whole(&what, &with_any_threads(top, &["archive"]), &expected);
            is_whole(&what, &with_any_threads(top, &["-p", "archive"]), &expected);
            is_whole(&format!("{what} from standard input"), &from_stdin(top, &bytes, "2"), &expected);
        }
    }
    fs::write(top.join("no wal.tar"), tar(&others[1..2])).unwrap();
    is_refused(top, &["no wal.tar"], "no wal.tar: no WAL segment in it");
    // A plain archive that was cut short inside a segment: what is there is read.
    let whole = tar(&segments);
    fs::write(top.join("cut.tar"), &whole[..whole.len() - 700_000]).unwrap();
    let cut = with_any_threads(top, &["cut.tar"]);
    assert!(expected.starts_with(&cut.stdout) && !cut.stdout.is_empty());
    assert_eq!(cut.status, 1);
    let sentence = format!("pgwal: cut.tar:{}: cut short: the segment has ", segments[2].0);
    assert!(cut.stderr.starts_with(&sentence) && cut.stderr.ends_with(" of its 1048576 bytes\n"), "{}", cut.stderr);
    // A compressed one: first the records that are there, then the sentence.
    for packing in PACKINGS {
        for (order, archive) in [("ordered", &whole), ("shuffled", &tar(&shuffled))] {
            let bytes = packed(packing, archive);
            let cut = &bytes[..bytes.len() / 2];
            fs::write(top.join("cut.tgz"), cut).unwrap();
            for (input, ran) in [("cut.tgz", with_any_threads(top, &["cut.tgz"])), ("standard input", from_stdin(top, cut, "2"))] {
                let what = format!("{packing}, {order}, {input}");
                let said: Vec<&str> = ran.stderr.lines().collect();
                let reason = format!("pgwal: {input}");
                let last = said.last().unwrap();
                assert!(last.starts_with(&reason) && last.contains(": does not unpack: "), "{what}: {}", ran.stderr);
                assert!(ran.status == 1 && !ran.stdout.is_empty() && said.len() <= 2, "{what}: {}", ran.stderr);
                // An archive in another order may lack the first segment.
                let lines = |text: &[u8]| String::from_utf8_lossy(text).lines().map(str::to_owned).collect::<Vec<_>>();
                let (found, all) = (lines(&ran.stdout), lines(&expected));
                let from = all.iter().position(|line| *line == found[0]).unwrap();
                assert_eq!(from == 0, order == "ordered", "{what}");
                assert!(found.len() < all.len() - from && found == all[from..from + found.len()], "{what}");
            }
        }
    }
}

fn is_refused_on_stdin(dir: &Path, bytes: &[u8], sentence: &str) {
    let ran = from_stdin(dir, bytes, "2");
    assert_eq!((ran.status, ran.stderr), (1, format!("pgwal: standard input: {sentence}\n")));
    assert!(ran.stdout.is_empty());
}

#[test]
fn two_timelines() {
    for major in [13, 15, 17, 19] {
        let fixture = fixture(major, "timeline2");
        let dir = fixture.unpacked();
        let old = fixture.read("waldump-tli1.txt").unwrap();
        let new = fixture.read("waldump-tli2.txt").unwrap();
        let both = with_any_threads(dir.path(), &["."]);
        assert_eq!(both.status, 0, "v{major}: {}", both.stderr);
        assert!(both.stdout.starts_with(&old) && both.stdout.ends_with(&new), "v{major}");
        // At most the record that goes from one into the other.
        let between = &both.stdout[old.len()..both.stdout.len() - new.len()];
        assert!(between.iter().filter(|&&b| b == b'\n').count() <= 1, "v{major}: {}", String::from_utf8_lossy(between));
        let first = with_any_threads(dir.path(), &["-t", "1"]);
        assert!(first.status == 0 && first.stdout.starts_with(&old) && first.stdout.len() > old.len(), "v{major}: {}", first.stderr);
        assert!(!String::from_utf8_lossy(&first.stdout).contains("END_OF_RECOVERY"), "v{major}");
    }
}

#[test]
fn an_older_timeline_does_not_go_on_behind_a_newer_one() {
    let (mut segments, expected) = workload();
    let first = run(&mut {
        let top = TempDir::new().unwrap().keep();
        write_all(&top, &segments[..1]);
        dump(&top, [&segments[0].0])
    });
    segments[1].0.replace_range(..8, "00000002");
    let top = TempDir::new().unwrap();
    write_all(top.path(), &segments);
    let ran = with_any_threads(top.path(), &["."]);
    // Timeline 1's third segment is what timeline 2 left behind.
    assert!(expected.starts_with(&ran.stdout) && ran.stdout.len() > first.stdout.len() && ran.stdout.len() < expected.len());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
}

#[test]
fn what_is_no_wal() {
    let (segments, _) = workload();
    let top = TempDir::new().unwrap();
    let top = top.path();
    let good = &segments[0].1;
    let name = segments[0].0.clone();
    let with_magic = |magic: u16| [&magic.to_le_bytes()[..], &good[2..]].concat();
    let mut no_long_header = good[8192..].to_vec();
    no_long_header.truncate(100_000);
    for (bytes, sentence) in [
        (Vec::new(), "empty, not a WAL segment".to_owned()),
        (vec![0; 1 << 20], "only zeroes: a segment that was allocated but never written".to_owned()),
        (good[..20].to_vec(), "only 20 bytes, less than the 40 of the page header that a segment starts with".to_owned()),
        (good[..39].to_vec(), "only 39 bytes, less than the 40 of the page header that a segment starts with".to_owned()),
        (with_magic(0xD093), "WAL of PostgreSQL 9.6 (page magic D093); supported are 10 to 19".to_owned()),
        (with_magic(0xD087), "WAL of PostgreSQL 9.5 (page magic D087); supported are 10 to 19".to_owned()),
        (with_magic(0x10D1), "WAL of a machine with the other byte order (page magic 10D1); read it on such a machine".to_owned()),
        (with_magic(0xBEEF), "not a WAL segment: it starts with BEEF, which is the page magic of no PostgreSQL from 10 to 19".to_owned()),
        (
            b"# PostgreSQL configuration file, much longer than a header".to_vec(),
            "not a WAL segment: it starts with 2023, which is the page magic of no PostgreSQL from 10 to 19".to_owned(),
        ),
        (
            no_long_header,
            "not the start of a WAL segment: a page of WAL, but without the long header that a segment starts with".to_owned(),
        ),
    ] {
        fs::write(top.join("some file"), &bytes).unwrap();
        is_refused(top, &["some file"], &format!("some file: {sentence}"));
        write_all(&top.join("folder"), &[(name.clone(), bytes.clone())]);
        is_refused(top, &["folder"], &format!("folder/{name}: {sentence}"));
        fs::write(top.join("archive.tar"), tar(&[(name.clone(), bytes.clone())])).unwrap();
        is_refused(top, &["archive.tar"], &format!("archive.tar:{name}: {sentence}"));
        is_refused_on_stdin(top, &bytes, &sentence);
        if !bytes.is_empty() {
            is_refused_on_stdin(top, &packed("gzip", &bytes), &sentence);
        }
    }
    // A segment that is kept for later use, under the name that it will have.
    let (kept, lsn) = later(&name, 12);
    fs::write(top.join(&kept), good).unwrap();
    is_refused(top, &[&kept], &format!("the WAL ends at {lsn}: a page left over from {} follows", later(&name, 0).1));
    #[cfg(unix)]
    is_refused(top, &["/dev/null"], "/dev/null: neither a file nor a directory; what a pipe gives can be read from standard input, as `-`");
}

#[test]
fn standard_input_that_grows_slowly() {
    let (segments, expected) = workload();
    let dir = TempDir::new().unwrap();
    let everything: Vec<u8> = segments.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let mut child = dump(dir.path(), ["-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(File::create(dir.path().join("out")).unwrap()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for chunk in everything.chunks(70_001) {
        stdin.write_all(chunk).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    same_bytes("slow standard input", &fs::read(dir.path().join("out")).unwrap(), &expected);
}

/// A server built with blocks of 32 kB: its page images show that, in whatever form the WAL comes, and the option says it.
#[test]
fn other_block_sizes() {
    for major in [15, 18] {
        let fixture = fixture(major, "blocks32");
        let unpacked = fixture.unpacked();
        let real = runs(&fixture).into_iter().find(|run| run.args.contains(&"-b".to_owned())).unwrap();
        let names: Vec<String> = fixture.segments().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        let segments: Vec<(String, Vec<u8>)> =
            names.iter().map(|name| (name.clone(), fs::read(unpacked.path().join(name)).unwrap())).collect();

        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("wal.tar"), tar(&segments)).unwrap();
        fs::write(dir.path().join("wal.tar.zst"), packed("zstd", &tar(&segments))).unwrap();
        let shuffled: Vec<_> = segments.iter().rev().cloned().collect();
        fs::write(dir.path().join("shuffled.tar.gz"), packed("gzip", &tar(&shuffled))).unwrap();
        for archive in ["wal.tar", "wal.tar.zst", "shuffled.tar.gz"] {
            same_bytes(archive, &with_any_threads(dir.path(), &["-b", archive]).stdout, &real.stdout);
        }
        let packed_dir = dir.path().join("packed");
        fs::create_dir(&packed_dir).unwrap();
        for (number, (name, bytes)) in segments.iter().enumerate() {
            fs::write(packed_dir.join(format!("{name}.{}", PACKINGS[number % 3])), packed(PACKINGS[number % 3], bytes)).unwrap();
        }
        same_bytes("packed", &with_any_threads(dir.path(), &["-b", "packed"]).stdout, &real.stdout);

        for size in ["32768", "32kB"] {
            let told = run(&mut dump(unpacked.path(), ["-b", "--block-size", size, &names[0], names.last().unwrap()]));
            same_bytes(size, &told.stdout, &real.stdout);
        }
        // What the option says is believed, and then the images are wrong.
        let told = run(&mut dump(unpacked.path(), ["-b", "--block-size", "16kB", &names[0], names.last().unwrap()]));
        assert_eq!(told.status, 1);
        assert!(told.stderr.contains("expected 16384") || told.stderr.contains("hole"), "{}", told.stderr);
        for wrong in ["0", "8193", "64kB", "8MB", "kB", ""] {
            let refused = run(&mut dump(unpacked.path(), ["--block-size", wrong, &names[0]]));
            assert_eq!(refused.status, 2, "{wrong}");
            assert!(refused.stderr.contains("expected a power of two from 1kB to 32kB"), "{}", refused.stderr);
        }
        // A start behind the first images changes nothing about the later ones.
        let text = String::from_utf8(real.stdout).unwrap();
        let start = text.lines().filter_map(|line| line.split_once(", lsn: ")).nth(1000).unwrap().1;
        let start = start.split(',').next().unwrap();
        let from = text.find(&format!("lsn: {start},")).and_then(|at| text[..at].rfind('\n')).unwrap() + 1;
        let ran = with_any_threads(unpacked.path(), &["-b", "-s", start, &names[0], names.last().unwrap()]);
        same_bytes(start, &ran.stdout, &text.as_bytes()[from..]);
    }
}
