//! Input that is made to cost: time and memory stay bounded by the bytes that are there.
//!
//! The limits are far above what a busy machine takes, and far below what is taken where time grows with the square of the input, or
//! memory with what the input promises.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use pgwal::page::PageInfo;
use pgwal::{Lsn, WalFormat};
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};
use tempfile::TempDir;

use crate::inputs::{from_stdin, later, packed, workload};
use crate::memory::{LIMIT, peak};
use crate::{Ran, dump, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs with one thread and with four, within the limits, and expects the same.
#[track_caller]
fn bounded(dir: &Path, args: &[&str]) -> Ran {
    let with = |threads: &str| {
        let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
        let mut command = dump(dir, args);
        command.args(["--threads", threads]).stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        // Whatever is unpacked lands where the test can see it.
        command.env("TMPDIR", dir);
        let started = Instant::now();
        let (status, peak) = peak(&mut command.spawn().unwrap());
        assert!(started.elapsed() < PATIENCE, "{args:?}: {:?}", started.elapsed());
        assert!(peak < LIMIT, "{args:?}: {peak} kB");
        eprintln!("{args:?}, {threads} threads: {:?}, {} MiB", started.elapsed(), peak >> 10);
        let stderr = fs::read_to_string(stderr).unwrap();
        Ran { status: status.code().unwrap_or(-1), stdout: fs::read(stdout).unwrap(), stderr }
    };
    let one = with("1");
    assert_eq!(with("4"), one, "{args:?}");
    one
}

/// The first segment of a fixture, its name, and the text of its records.
fn segment(dir: &Path) -> (String, Vec<u8>, Vec<u8>) {
    let (name, bytes) = workload().0.swap_remove(0);
    fs::write(dir.join("good"), &bytes).unwrap();
    let text = run(&mut dump(dir, ["good"])).stdout;
    assert!(!text.is_empty());
    (name, bytes, text)
}

/// A header of a tar in GNU's form.
fn header(name: &str, kind: u8, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A member that has as many bytes as it says.
fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = header(name, b'0', bytes.len() as u64).as_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// `front`, compressed, and then `megabytes` of zeroes, which compress to next to nothing.
fn bomb(packing: &str, front: &[u8], megabytes: usize) -> Vec<u8> {
    let zeroes = packed(packing, &vec![0; 64 << 20]);
    let mut out = packed(packing, front);
    (0..megabytes / 64).for_each(|_| out.extend_from_slice(&zeroes));
    out
}

#[test]
fn a_record_that_claims_a_gigabyte() {
    let mut wal = Wal::new(WalFormat { segment_size: 64 * MIB, ..WalFormat::new(17) });
    let first = wal.record(&RecordBuilder::filler(100));
    let lsn = wal.record(&RecordBuilder::filler(60 << 20));
    let claimed = 1000u32 << 20;
    wal.patch_record(lsn, 0, &claimed.to_le_bytes());
    let mut left = claimed - (8192 - (lsn.0 as u32 & 0x1FFF));
    for page in (lsn.0.next_multiple_of(8192)..wal.end().0).step_by(8192) {
        wal.patch_page(Lsn(page), |header| {
            assert!(header.info.contains(PageInfo::XLP_FIRST_IS_CONTRECORD));
            header.remaining = left;
        });
        left -= 8192 - 24;
    }
    let dir = TempDir::new().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    let ran = bounded(dir.path(), &["."]);
    assert_eq!(ran.stdout.iter().filter(|&&b| b == b'\n').count(), 1);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.starts_with(&format!("pgwal: the WAL ends at {lsn}: the record there is not finished, ")), "{}", ran.stderr);
    assert!(first < lsn);
}

#[test]
fn a_segment_size_that_the_file_has_not() {
    let mut wal = Wal::new(WalFormat { segment_size: 1 << 30, ..WalFormat::new(15) });
    wal.record(&RecordBuilder::filler(100));
    wal.fill_to(wal.start() + ((16 << 20) - 24));
    wal.record(&RecordBuilder::filler(24));
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("000000010000000000000001"), wal.bytes()).unwrap();
    let ran = bounded(dir.path(), &["000000010000000000000001"]);
    assert_eq!(ran.status, 1);
    assert_eq!(ran.stderr, "pgwal: 000000010000000000000001: cut short: the segment has 16777216 of its 1073741824 bytes\n");
    assert_eq!(ran.stdout.iter().filter(|&&b| b == b'\n').count(), wal.records().len());
}

#[test]
fn archives_that_lie() {
    let top = TempDir::new().unwrap();
    let top = top.path();
    let (name, good, text) = segment(top);
    let whole = member(&name, &good);
    let with_size = |name: &str, size: u64| [header(name, b'0', size).as_bytes(), &good[..], &[0; 1024]].concat();
    let mut no_header = whole.clone();
    no_header.extend_from_slice(&[b'\x1b'; 512]);
    let mut long_name = header("././@LongLink", b'L', 8 << 30).as_bytes().to_vec();
    long_name.extend(b"a/name/");
    let mut holes = header(&name, b'S', good.len() as u64);
    {
        let gnu = holes.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(0);
        gnu.sparse[0].set_length(good.len() as u64);
        gnu.sparse[1].set_offset(1 << 50);
        gnu.sparse[1].set_length(0);
        gnu.set_real_size(1 << 50);
    }
    holes.set_cksum();
    let holes = [holes.as_bytes(), &good[..], &[0; 1024]].concat();
    let oversized = |size: u64| format!("damaged archive: {name} has {size} bytes there, more than a segment can have");
    // What it says further is what the archive has there, and not repeated.
    let no_number = "damaged archive: numeric field ";
    let first_records = {
        fs::write(top.join("cut"), &good[..2000]).unwrap();
        run(&mut dump(top, ["cut"])).stdout.len()
    };
    // What is in the archive, the length of its records' text, and what is said of it: plain, and compressed where that differs.
    for (what, bytes, records, plain, compressed) in [
        ("exabytes", with_size(&name, 1 << 60), text.len(), oversized(1 << 60), None),
        ("no number", with_size(&name, u64::MAX), 0, "damaged archive: size overflow".to_owned(), None),
        (
            "exabytes of something else",
            [&whole[..], &with_size("other", 1 << 60)].concat(),
            text.len(),
            "cut short inside \"other\"".to_owned(),
            Some("cut short"),
        ),
        ("too few bytes", with_size(&name, 2000), first_records, no_number.to_owned(), None),
        ("no header", no_header, text.len(), no_number.to_owned(), None),
        ("holes", holes, text.len(), oversized(1 << 50), None),
        ("a name of gigabytes", [&whole[..], &long_name].concat(), text.len(), "cut short".to_owned(), None),
    ] {
        for packing in ["plain", "gzip", "zstd"] {
            fs::write(top.join("a.tar"), if packing == "plain" { bytes.clone() } else { packed(packing, &bytes) }).unwrap();
            let ran = bounded(top, &["a.tar"]);
            let says = compressed.filter(|_| packing != "plain").unwrap_or(&plain);
            assert_eq!((ran.status, ran.stdout == text[..records]), (1, true), "{what}, {packing}: {}", ran.stderr);
            let last = ran.stderr.lines().last().unwrap();
            assert!(last.contains(says) && !ran.stderr.contains('\x1b'), "{what}, {packing}: {}", ran.stderr);
        }
    }
}

#[test]
fn bombs() {
    let top = TempDir::new().unwrap();
    let top = top.path();
    let (name, good, text) = segment(top);
    let is_good = |what: &str, ran: Ran, stderr: &str| {
        assert_eq!((ran.status, ran.stderr.as_str()), (0, stderr), "{what}");
        assert!(ran.stdout == text, "{what}");
    };
    for packing in ["gzip", "zstd"] {
        // A name says where the segment ends.
        let bytes = bomb(packing, &good, 16 << 10);
        fs::write(top.join(&name), &bytes).unwrap();
        is_good(packing, bounded(top, &[&name]), "");
        // Without one, what follows may be the next segment, and is zeroes.
        fs::write(top.join("unnamed"), &bytes).unwrap();
        is_good(packing, bounded(top, &["unnamed"]), "");
        // A member of an archive, in order and not.
        let small = bomb(packing, &good, 4 << 10);
        let after = member(&later(&name, 1).0, b"");
        for (what, bytes) in [("in order", [member(&name, &small), after.clone()]), ("shuffled", [after.clone(), member(&name, &small)])] {
            for packed_again in [false, true] {
                let bytes = bytes.concat();
                fs::write(top.join("a.tar"), if packed_again { packed(packing, &bytes) } else { bytes }).unwrap();
                let ran = bounded(top, &["a.tar"]);
                assert_eq!((ran.status, ran.stdout == text), (1, true), "{packing}, {what}: {}", ran.stderr);
                let empty = format!("pgwal: a.tar:{}: empty, not a WAL segment\n", later(&name, 1).0);
                assert_eq!(ran.stderr, empty, "{packing}, {what}");
            }
        }
        // An archive that is one: two gigabytes that are no segment, before one that is.
        let mut archive = packed(packing, header("base/1/1", b'0', 2 << 30).as_bytes());
        archive.extend(bomb(packing, &[], 2 << 10));
        archive.extend(packed(packing, &member(&name, &good)));
        fs::write(top.join("b.tar"), &archive).unwrap();
        let ran = bounded(top, &["b.tar"]);
        assert_eq!((ran.status, ran.stdout == text), (0, true), "{packing}: {}", ran.stderr);
        // A name of four gigabytes.
        let mut archive = packed(packing, &member(&name, &good));
        archive.extend(packed(packing, header("././@LongLink", b'L', 4 << 30).as_bytes()));
        archive.extend(bomb(packing, &[], 4 << 10));
        fs::write(top.join("c.tar"), &archive).unwrap();
        let ran = bounded(top, &["c.tar"]);
        assert_eq!(ran.stderr.lines().last(), Some("pgwal: c.tar: does not unpack: damaged archive: a name longer than 1 MB"));
        assert_eq!((ran.status, ran.stdout == text), (1, true), "{packing}: {}", ran.stderr);
        let ran = from_stdin(top, &archive, "2");
        assert_eq!((ran.status, ran.stdout == text), (1, true), "{packing}: {}", ran.stderr);
    }
}

#[test]
fn a_hundred_thousand_members() {
    let top = TempDir::new().unwrap();
    let top = top.path();
    let (name, good, text) = segment(top);
    let mut archive = Vec::new();
    (0..100_000).for_each(|n| archive.extend(member(&format!("base/5/{n}"), b"tiny")));
    archive.extend(member(&name, &good));
    let mut of_segments = member(&name, &good);
    (1..100_000).for_each(|n| of_segments.extend(member(&later(&name, n).0, b"tiny")));
    for packing in ["plain", "gzip", "zstd"] {
        let write = |archive: &[u8]| match packing {
            "plain" => fs::write(top.join("a.tar"), archive).unwrap(),
            _ => fs::write(top.join("a.tar"), packed(packing, archive)).unwrap(),
        };
        write(&archive);
        let ran = bounded(top, &["a.tar"]);
        assert_eq!((ran.status, ran.stdout == text), (0, true), "{packing}: {}", ran.stderr);
        write(&of_segments);
        let ran = bounded(top, &["a.tar"]);
        assert_eq!((ran.status, ran.stdout == text), (1, true), "{packing}: {}", ran.stderr);
    }
}

#[test]
fn a_hundred_thousand_names() {
    let top = TempDir::new().unwrap();
    let top = top.path();
    let (name, good, text) = segment(top);
    fs::remove_file(top.join("good")).unwrap();
    let wal = top.join("wal");
    fs::create_dir(&wal).unwrap();
    fs::write(wal.join(&name), &good).unwrap();
    (1..100_000).for_each(|n| drop(File::create(wal.join(later(&name, n).0)).unwrap()));
    let last = later(&name, 99_999).0;
    let after = later(&name, 1).0;
    let empty = format!("pgwal: wal/{after}: empty, not a WAL segment\n");
    for args in [&["wal"][..], &["-p", "wal", &name, &last], &["-p", "wal", "-s", &later(&name, 0).1.to_string()]] {
        let ran = bounded(top, args);
        assert_eq!((ran.status, ran.stdout == text), (1, true), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stderr, empty);
    }
    let ran = bounded(top, &["-p", "wal", "-s", &later(&name, 99_998).1.to_string()]);
    assert_eq!((ran.status, ran.stdout.len()), (1, 0), "{}", ran.stderr);
}

/// What is unpacked of an archive that is not in the order of the WAL has no name, so that nothing of it stays whatever ends the program.
#[test]
fn nothing_unpacked_has_a_name() {
    use std::io::{Read, Write};
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(15) });
    while wal.end() < wal.start() + (2 << 20) {
        wal.record(&RecordBuilder::filler(60));
    }
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, bytes) in wal.segments().into_iter().take(2).rev() {
        archive.append(&header(&name.to_string(), b'0', bytes.len() as u64), &bytes[..]).unwrap();
    }
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    let (dir, temp) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    File::create(dir.path().join("a.tar.gz")).unwrap().write_all(&bytes).unwrap();
    let mut command = dump(dir.path(), ["a.tar.gz"]);
    let mut child = command.env("TMPDIR", temp.path()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // It has been unpacked when the first record is there, and more of them than a pipe takes follow.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 10]).unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
