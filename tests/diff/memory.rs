//! Memory does not grow with the WAL, also where the two never meet again.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use pgwal::{Lsn, SegmentName, TimelineId, WalFormat};
use pgwal_testkit::wal::{RecordBuilder, Wal};

use crate::diff;

/// What `pgwal diff` may take, in kB.
const LIMIT: u64 = 128 << 10;
const SEGMENT: u32 = 16 << 20;
/// More than the limit, on each side.
const SEGMENTS: u64 = 12;

#[test]
fn stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    for (side, xid) in [("a", 700), ("b", 800)] {
        fs::create_dir(dir.path().join(side)).unwrap();
        let mut prev = Lsn::INVALID;
        for number in 1..=SEGMENTS {
            let start = Lsn(number * u64::from(SEGMENT));
            let mut wal = Wal::new(WalFormat { segment_size: SEGMENT, ..WalFormat::new(17) }).starting_at(start);
            wal.previous(prev);
            while wal.end() + 400 < start + u64::from(SEGMENT) {
                // The same for a while, then not even at the same places.
                let xid = if number == 1 { 600 } else { xid };
                prev = wal.record(&RecordBuilder::new(pgwal::RmgrId(10), 0x00).xid(xid).main(&vec![7; (xid / 8) as usize]));
            }
            wal.fill_to(Lsn(start.0 + u64::from(SEGMENT) - 24));
            prev = wal.record(&RecordBuilder::filler(24)).max(prev);
            let name = SegmentName::new(TimelineId(1), number, SEGMENT).to_string();
            fs::write(dir.path().join(side).join(name), wal.bytes()).expect("room for the WAL");
        }
    }
    for args in
        [&["a", "b"][..], &["--limit", "0", "a", "b"], &["--limit", "0", "--bytes", "--format", "json", "a", "b"], &["--check", "a", "a"]]
    {
        let mut child = diff(dir.path(), args).stdout(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        let code = loop {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0).max(peak);
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        eprintln!("{} MB on each side, {}: {} MiB", SEGMENTS * 16, args.join(" "), peak >> 10);
        assert_eq!(code, Some(i32::from(!args.contains(&"--check"))), "{args:?}");
        assert!(peak > 0 && peak < LIMIT, "{args:?}: {peak} kB");
    }
}

/// What unpacks to gigabytes of zeroes behind a segment's first pages.
#[test]
fn bombs() {
    let fixture = pgwal_testkit::fixtures::all().into_iter().find(|f| f.major == 15 && f.scenario == "workload").unwrap();
    let good = fs::read(&fixture.segments()[0]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good"), &good).unwrap();
    let pack = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let mut bomb = pack(&good[..1 << 16]);
    let zeroes = pack(&vec![0; 64 << 20]);
    (0..16).for_each(|_| bomb.extend_from_slice(&zeroes));
    fs::write(dir.path().join("bomb"), bomb).unwrap();
    for args in [["good", "bomb"], ["bomb", "good"], ["bomb", "bomb"]] {
        // Private memory: data, heap and stacks, whatever the number of threads reserves besides. Linux: RLIMIT_DATA.
        let mut command = std::process::Command::new("prlimit");
        command.args(["--data=268435456", "--", env!("CARGO_BIN_EXE_pgwal"), "diff"]).args(args).current_dir(dir.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(i32::from(args[0] != args[1])), "{args:?}");
    }
}
