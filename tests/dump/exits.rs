//! Exit status and standard error: ends, damage, wrong options.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use pgwal::page::PageHeader;
use pgwal::{Lsn, WalFormat};
use pgwal_testkit::server::wait_until;
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};
use tempfile::TempDir;

use crate::fixtures::with_any_threads;
use crate::{Ran, dump, run};

/// Three full segments, and a fourth with some records, of records that some pages cut.
fn wal(major: u8) -> Wal {
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(major) });
    while wal.end() < Lsn(0x40_1000) {
        wal.record(&RecordBuilder::filler(1000));
    }
    wal
}

/// Writes the segments of `wal` into a new folder.
fn folder(wal: &Wal) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    dir
}

/// Start of the record that holds, or comes next after, `lsn`.
fn record_at(wal: &Wal, lsn: u64) -> Lsn {
    wal.records().iter().find(|record| record.end.0 > lsn).expect("a record").lsn
}

/// Records before `lsn`, one line each, exit status 1 and one sentence.
#[track_caller]
fn stops(dir: &Path, wal: &Wal, at: Lsn, status: i32, sentence: &str) {
    let ran = with_any_threads(dir, &["."]);
    assert_eq!((ran.status, ran.stderr), (status, format!("pgwal: {sentence}\n")));
    let expected = wal.records().iter().filter(|record| record.lsn < at).count();
    assert_eq!(ran.stdout.iter().filter(|&&b| b == b'\n').count(), expected);
}

#[test]
fn a_clean_end() {
    for major in [10, 13, 15, 19] {
        let wal = wal(major);
        let dir = folder(&wal);
        let end = wal.end();
        stops(dir.path(), &wal, end, 0, &format!("the WAL ends at {end}: zeroes follow"));
        // Segments that were allocated ahead, and one that is kept for later use.
        fs::write(dir.path().join("000000010000000000000005"), vec![0; MIB as usize]).unwrap();
        let used = fs::read(dir.path().join("000000010000000000000001")).unwrap();
        fs::write(dir.path().join("000000010000000000000006"), used).unwrap();
        stops(dir.path(), &wal, end, 0, &format!("the WAL ends at {end}: zeroes follow"));
    }
}

#[test]
fn what_was_asked_for_ends_quietly() {
    let wal = wal(17);
    let dir = folder(&wal);
    for args in [
        &["000000010000000000000001"][..],
        &["000000010000000000000001", "000000010000000000000003"],
        &["-e", "0/200000"],
        &["-n", "3"],
        &["-n", "3", "-s", "0/100028"],
    ] {
        let ran = run(&mut dump(dir.path(), args));
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{args:?}");
        assert!(!ran.stdout.is_empty(), "{args:?}");
    }
    // Damage behind the last record that is wanted is nobody's business.
    let third = wal.records()[3].lsn;
    let mut damaged = wal.clone();
    damaged.patch_record(third, 30, &[0]);
    let dir = folder(&damaged);
    let ran = run(&mut dump(dir.path(), ["-n", "3"]));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
}

#[test]
fn damage_in_records() {
    let good = wal(17);
    for place in [0x10_0900, 0x17_0000, 0x21_FF00, 0x3F_FFFF] {
        let lsn = record_at(&good, place);
        let place = |lsn: Lsn| format!("0000000100000000{:08X}:0x{:x} ({lsn})", lsn.0 >> 20, lsn.0 & 0xF_FFFF);
        let here = place(lsn);
        let mut wal = good.clone();
        wal.patch_record(lsn, 500, &[0xA4]);
        let found = u32::from_le_bytes(good.records().iter().find(|r| r.lsn == lsn).unwrap().bytes[20..24].try_into().unwrap());
        let mut bytes = good.records().iter().find(|r| r.lsn == lsn).unwrap().bytes.clone();
        bytes[500] = 0xA4;
        let expected = crc32c::crc32c_append(crc32c::crc32c(&bytes[24..]), &bytes[..20]);
        let sentence = format!("{here}: xl_crc: the bytes have {expected:08X}, the header says {found:08X}");
        stops(folder(&wal).path(), &good, lsn, 1, &sentence);

        let mut wal = good.clone();
        wal.patch_record(lsn, 0, &10u32.to_le_bytes());
        stops(folder(&wal).path(), &good, lsn, 1, &format!("{here}: xl_tot_len: expected at least 24, found 10"));

        let mut wal = good.clone();
        wal.patch_record(lsn, 17, &[100]);
        stops(folder(&wal).path(), &good, lsn, 1, &format!("{here}: xl_rmid: no resource manager has id 100"));

        let before = good.records().iter().take_while(|record| record.lsn < lsn).last().unwrap().lsn;
        let mut wal = good.clone();
        wal.patch_record(lsn, 8, &0x1234_5678u64.to_le_bytes());
        stops(folder(&wal).path(), &good, lsn, 1, &format!("{here}: xl_prev: expected {before}, found 0/12345678"));

        // Zeroes in the middle look like an end, but the next page goes on.
        let mut wal = good.clone();
        wal.patch_record(lsn, 0, &[0; 24]);
        stops(folder(&wal).path(), &good, lsn, 1, &format!("{here}: xl_tot_len: expected at least 24, found 0"));
    }
}

#[test]
fn damage_in_pages() {
    let good = wal(17);
    for page in [0x10_2000u64, 0x20_0000, 0x25_E000, 0x30_0000, 0x3F_E000] {
        // The record that goes on over the page is lost.
        let lost = good.records().iter().take_while(|record| record.lsn.0 < page).last().unwrap().lsn;
        let here = format!("0000000100000000{:08X}:0x{:x} ({})", page >> 20, page & 0xF_FFFF, Lsn(page));
        let joins = format!(", in the record at {lost}");
        let mut wal = good.clone();
        wal.patch(Lsn(page), &[0; 8192]);
        stops(folder(&wal).path(), &good, lost, 1, &format!("{here}: xlp_magic: expected D116, found 0000{joins}"));

        let mut wal = good.clone();
        wal.patch_page(Lsn(page), |header| header.address = Lsn(page - 0x10_0000));
        let (expected, found) = (Lsn(page), Lsn(page - 0x10_0000));
        stops(folder(&wal).path(), &good, lost, 1, &format!("{here}: xlp_pageaddr: expected {expected}, found {found}{joins}"));

        let mut wal = good.clone();
        wal.patch_page(Lsn(page), |header| header.remaining += 8);
        let expected = PageHeader::read(good.bytes_from(Lsn(page))).unwrap().1.remaining;
        let found = expected + 8;
        stops(folder(&wal).path(), &good, lost, 1, &format!("{here}: xlp_rem_len: expected {expected}, found {found}{joins}"));
    }
}

#[test]
fn missing_and_cut_segments() {
    let wal = wal(17);
    let dir = folder(&wal);
    let dir = dir.path();
    let second = dir.join("000000010000000000000002");
    let bytes = fs::read(&second).unwrap();
    fs::write(&second, &bytes[..300_000]).unwrap();
    let lost = record_at(&wal, 0x20_0000 + 300_000);
    stops(dir, &wal, lost, 1, "./000000010000000000000002: cut short: the segment has 300000 of its 1048576 bytes");
    let alone = with_any_threads(dir, &["000000010000000000000002"]);
    let sentence = "pgwal: 000000010000000000000002: cut short: the segment has 300000 of its 1048576 bytes\n";
    assert_eq!((alone.status, alone.stderr.as_str()), (1, sentence));
    fs::remove_file(&second).unwrap();
    let lost = record_at(&wal, 0x20_0000 - 1);
    stops(dir, &wal, lost, 1, "000000010000000000000002: no such segment");
    // What is missing before the start is not missed.
    let ran = with_any_threads(dir, &["-s", "0/300000", "-e", "0/300800"]);
    assert_eq!((ran.status, ran.stdout.is_empty()), (0, false), "{}", ran.stderr);
}

#[test]
fn a_payload_that_does_not_parse_costs_that_record_alone() {
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(17) });
    wal.record(&RecordBuilder::filler(100));
    let bad = wal.record(&RecordBuilder::new(pgwal::RmgrId(1), 0x00).main(&[1, 2, 3]));
    wal.record(&RecordBuilder::filler(100));
    let dir = folder(&wal);
    for format in ["text", "json"] {
        let ran = with_any_threads(dir.path(), &["--format", format]);
        assert_eq!(ran.status, 1, "{format}");
        let mut said = ran.stderr.lines();
        let first = said.next().unwrap();
        assert!(first.starts_with("pgwal: 000000010000000000000001:0x") && first.contains("xl_xact_commit"), "{first}");
        assert!(first.contains(&bad.to_string()), "{first}");
        assert_eq!(said.next(), Some(format!("pgwal: the WAL ends at {}: zeroes follow", wal.end()).as_str()));
        assert_eq!(ran.stdout.iter().filter(|&&b| b == b'\n').count(), 3, "{format}");
    }
}

#[test]
fn wrong_options() {
    let dir = TempDir::new().unwrap();
    for (args, says) in [
        (&["--no-such-option"][..], "error: unexpected argument '--no-such-option' found"),
        (&["-B", "1"], "error: the following required arguments were not provided:\n  --relation <T/D/R>"),
        (
            &["-R", "0/5/1"],
            "error: invalid value '0/5/1' for '--relation <T/D/R>': expected tablespace/database/file number, like 1663/5/16384, or with --names a name",
        ),
        (&["-F", "side"], "error: invalid value 'side' for '--fork <FORK>': expected one of main, fsm, vm, init"),
        (&["-r", "nothing"], "error: invalid value 'nothing' for '--rmgr <RMGR>': no resource manager has this name"),
        (&["-s", "here"], "error: invalid value 'here' for '--start <LSN>'"),
        (&["-t", "0"], "error: invalid value '0' for '--timeline <TLI>': expected a number from 1 to 4294967295"),
        (&["-x", "many"], "error: invalid value 'many' for '--xid <XID>'"),
        (&["--stats=everything"], "error: invalid value 'everything' for '--stats[=<BY>]'"),
        (&["--format", "xml"], "error: invalid value 'xml' for '--format <FORM>'"),
        (&["--threads", "0"], "error: invalid value '0' for '--threads <N>'"),
        (&["a", "b", "c"], "error: unexpected argument 'c' found"),
    ] {
        let ran = run(&mut dump(dir.path(), args));
        assert_eq!((ran.status, ran.stdout.len()), (2, 0), "{args:?}");
        assert!(ran.stderr.starts_with(says), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("For more information, try '--help'."), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn names_of_resource_managers() {
    let dir = TempDir::new().unwrap();
    let ran = run(&mut dump(dir.path(), ["--rmgr", "list"]));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    let names: Vec<&str> = std::str::from_utf8(&ran.stdout).unwrap().lines().collect();
    assert_eq!((names.len(), names.first(), names.last()), (22, Some(&"XLOG"), Some(&"LogicalMessage")));
}

#[test]
fn a_closed_pipe_is_quiet() {
    let dir = folder(&wal(17));
    let mut child = dump(dir.path(), ["."]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

/// As when another process cuts short a file that is mapped.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_became_shorter_ends_with_a_message() {
    let dir = TempDir::new().unwrap();
    let mut waiting = dump(dir.path(), ["-"]);
    let waiting = waiting.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Nothing comes to read: it has got there when it has gone to sleep.
    let status = format!("/proc/{}/status", waiting.id());
    let sleeps = || fs::read_to_string(&status).unwrap().lines().any(|line| line.starts_with("State:\tS"));
    wait_until("it reads", sleeps);
    assert!(Command::new("kill").args(["-BUS", &waiting.id().to_string()]).status().unwrap().success());
    let ran = Ran::from(waiting.wait_with_output().unwrap());
    assert_eq!((ran.status, ran.stderr.contains("became shorter while it was being read")), (2, true), "{ran:?}");
}
