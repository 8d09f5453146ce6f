//! Memory does not grow with the WAL.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use pgwal::{Decoder, Lsn, TimelineId, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::wal::{RecordBuilder, Wal, refresh_crc};

use crate::pgwal;

const SEGMENT: u32 = 16 << 20;
/// What `pgwal` may take, in kB, for 10 GB of WAL and for anything else.
pub const LIMIT: u64 = 256 << 10;

/// Records of a real server.
fn records() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for fixture in fixtures::all().iter().filter(|fixture| fixture.major == 15 && fixture.scenario == "pgbench") {
        let mut decoder = Decoder::new();
        fixture.timelines().concat().iter().for_each(|segment| decoder.feed(segment));
        while let Ok(Some(raw)) = decoder.next_record() {
            found.push(raw.bytes.to_vec());
        }
    }
    // A switch would end the segment.
    found.retain(|record| !(record[17] == 0 && record[16] & 0xF0 == 0x40));
    found
}

/// Writes `count` full segments of such records, which follow each other.
fn write_wal(dir: &Path, count: u64) {
    let records = records();
    let mut records = records.iter().cycle();
    let mut prev = Lsn::INVALID;
    for number in 1..=count {
        let start = Lsn(number * u64::from(SEGMENT));
        let end = start + u64::from(SEGMENT);
        let mut wal = Wal::new(WalFormat { segment_size: SEGMENT, ..WalFormat::new(15) }).starting_at(start);
        wal.previous(prev);
        while wal.end() + 40_000 < end {
            let mut record = records.next().expect("there are records").clone();
            record[8..16].copy_from_slice(&prev.0.to_le_bytes());
            refresh_crc(&mut record);
            prev = wal.raw_record(record);
        }
        wal.fill_to(Lsn(end.0 - 24));
        prev = wal.record(&RecordBuilder::filler(24));
        let name = pgwal::SegmentName::new(TimelineId(1), number, SEGMENT).to_string();
        fs::write(dir.join(name), wal.bytes()).expect("room for the WAL");
    }
}

/// Waits for the end of a run; its highest resident size, in kB.
pub fn peak(child: &mut Child) -> (ExitStatus, u64) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            return (status, peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// 512 MB, or as many as `PGWAL_TEST_WAL_MB` says.
#[test]
fn stays_bounded() {
    let megabytes: u64 = std::env::var("PGWAL_TEST_WAL_MB").map_or(512, |text| text.parse().expect("PGWAL_TEST_WAL_MB: a number"));
    let dir = tempfile::tempdir().unwrap();
    write_wal(dir.path(), megabytes / 16);
    let dumps = [&["dump"][..], &["dump", "-b"], &["dump", "--format", "json"], &["dump", "--stats"]];
    for args in dumps.into_iter().chain([&["verify"][..], &["stats"]]) {
        for threads in [None, Some("1"), Some("16")] {
            let mut args = args.to_vec();
            args.extend(threads.into_iter().flat_map(|threads| ["--threads", threads]));
            args.push(".");
            let (status, peak) = peak(&mut pgwal(dir.path(), &args).stdout(Stdio::null()).spawn().unwrap());
            assert!(status.success(), "{args:?}: {status}");
            eprintln!("{megabytes} MB of WAL, {}: {} MiB", args.join(" "), peak >> 10);
            assert!(peak > 0 && peak < LIMIT, "{args:?}: {peak} kB");
        }
    }
}
