//! A data directory's pg_wal held against its pg_control.

use std::fs;
use std::path::{Path, PathBuf};

use pgwal::{Lsn, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::server::Postgres;
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};
use serde_json::Value;
use tempfile::TempDir;

use crate::verify;

/// Offsets in the pg_control of 17.
const STATE: usize = 16;
const CHECKPOINT: usize = 32;
const COPY: usize = 40;
const COPY_LEN: usize = 88;
const MINIMUM: usize = 136;
const SEGMENT_SIZE: usize = 228;
const CRC: usize = 288;

/// A data directory of 17 around the WAL of the scenario `crash`: segments 06 and 07, checkpoints at 0/600080 and 0/7059C8, the last one a
/// shutdown's.
struct Cluster {
    dir: TempDir,
}

impl Cluster {
    fn new(checkpoint: usize, state: u32) -> Cluster {
        let cluster = Cluster { dir: TempDir::new().unwrap() };
        let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 17 && fixture.scenario == "crash").unwrap();
        fs::create_dir(cluster.path("pg_wal")).unwrap();
        fs::create_dir(cluster.path("global")).unwrap();
        fs::write(cluster.path("PG_VERSION"), "17\n").unwrap();
        for segment in fixture.segments() {
            fs::copy(&segment, cluster.path("pg_wal").join(segment.file_name().unwrap())).unwrap();
        }
        let wal = fs::read(cluster.segment(checkpoint >> 20)).unwrap();
        let system_identifier = fs::read(cluster.segment(6)).unwrap()[24..32].to_vec();
        // Behind the record's header and the short header of its data.
        let payload = (checkpoint & 0xF_FFFF) + 26;
        cluster.control(|bytes| {
            bytes[..8].copy_from_slice(&system_identifier);
            bytes[STATE..STATE + 4].copy_from_slice(&state.to_le_bytes());
            bytes[CHECKPOINT..CHECKPOINT + 8].copy_from_slice(&(checkpoint as u64).to_le_bytes());
            bytes[COPY..COPY + COPY_LEN].copy_from_slice(&wal[payload..payload + COPY_LEN]);
            bytes[SEGMENT_SIZE..SEGMENT_SIZE + 4].copy_from_slice(&(1u32 << 20).to_le_bytes());
        });
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn segment(&self, number: usize) -> PathBuf {
        self.path(&format!("pg_wal/0000000100000000{number:08X}"))
    }

    /// Changes pg_control, and its checksum with it.
    fn control(&self, change: impl FnOnce(&mut [u8])) {
        let path = self.path("global/pg_control");
        let template = fixtures::root().join("names/data/global/pg_control");
        let mut bytes = fs::read(&path).or_else(|_| fs::read(template)).unwrap();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..CRC]);
        bytes[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
        fs::write(path, bytes).unwrap();
    }

    fn minimum(&self, lsn: u64) {
        self.control(|bytes| {
            bytes[MINIMUM..MINIMUM + 8].copy_from_slice(&lsn.to_le_bytes());
            bytes[MINIMUM + 8] = 1;
        });
    }

    /// The findings, which are the same for the directory, its pg_wal, and inside that.
    fn findings(&self) -> Vec<Value> {
        let of = |dir: &Path, arg: &str| {
            let (status, out, err) = verify(dir, ["--format", "json", arg]);
            let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let mut found: Vec<Value> = lines.into_iter().filter(|line| line["type"] == "finding").collect();
            assert_eq!((status, err.as_str()), (i32::from(!found.is_empty()), ""), "{out}");
            let name = |path: &Value| Value::from(path.as_str().unwrap().rsplit('/').next());
            for finding in &mut found {
                finding["input"] = name(&finding["input"]);
                if let Some(files) = finding.get_mut("files").and_then(Value::as_array_mut) {
                    files.iter_mut().for_each(|file| *file = name(file));
                }
            }
            found
        };
        let found = of(self.dir.path(), ".");
        assert_eq!(of(self.dir.path(), "pg_wal"), found);
        assert_eq!(of(&self.path("pg_wal"), "."), found);
        found
    }

    #[track_caller]
    fn one_finding(&self, expected: [&str; 4]) -> Value {
        let found = self.findings();
        assert_eq!(found.len(), 1, "{found:#?}");
        let [input, class, problem, action] = expected;
        let one = &found[0];
        assert_eq!([&one["input"], &one["class"], &one["problem"]["kind"], &one["action"]], [input, class, problem, action], "{one:#}");
        found[0].clone()
    }
}

const SHUT_DOWN: u32 = 1;
const IN_ARCHIVE_RECOVERY: u32 = 5;
const IN_PRODUCTION: u32 = 6;
const FIRST: usize = 0x60_0080;
const LAST: usize = 0x70_59C8;
const SIX: &str = "000000010000000000000006";
const SEVEN: &str = "000000010000000000000007";

#[test]
fn what_recovery_needs_must_be_there() {
    for (checkpoint, state) in [(FIRST, IN_PRODUCTION), (LAST, SHUT_DOWN), (LAST, IN_PRODUCTION), (FIRST, IN_ARCHIVE_RECOVERY)] {
        assert_eq!(Cluster::new(checkpoint, state).findings(), [] as [Value; 0], "{checkpoint:x} {state}");
    }
    let (_, out, _) = verify(Cluster::new(LAST, SHUT_DOWN).dir.path(), ["."]);
    let line = "pg_control: shut down; last checkpoint at 0/007059C8 on timeline 1, recovery starts at 0/007059C8.\n";
    assert!(out.starts_with(line), "{out}");

    // The segment of the checkpoint is gone, zeroed, or not yet what its name says.
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    let (six, seven) = (fs::read(cluster.segment(6)).unwrap(), fs::read(cluster.segment(7)).unwrap());
    fs::remove_file(cluster.segment(6)).unwrap();
    let one = cluster.one_finding([SIX, "missing_segment", "starts_at", "find_for_start"]);
    assert_eq!((&one["problem"]["redo"], &one["problem"]["checkpoint"]), (&"0/00600028".into(), &"0/00600080".into()));
    fs::remove_file(cluster.segment(7)).unwrap();
    cluster.one_finding([SIX, "missing_segment", "starts_at", "find_for_start"]);
    let cluster = Cluster::new(LAST, SHUT_DOWN);
    fs::write(cluster.segment(7), vec![0; 1 << 20]).unwrap();
    cluster.one_finding([SEVEN, "zeroed_page", "starts_at", "find_for_start"]);
    fs::write(cluster.segment(7), &six).unwrap();
    cluster.one_finding([SEVEN, "recycled_page", "starts_at", "find_for_start"]);
    // The WAL ends before the checkpoint.
    let mut cut = seven.clone();
    cut[0x4000..].fill(0);
    fs::write(cluster.segment(7), &cut).unwrap();
    let one = cluster.one_finding([SEVEN, "ends_early", "starts_at", "find_for_start"]);
    // Its place is where the WAL ends.
    let end = u64::from_str_radix(&one["lsns"]["start"].as_str().unwrap()[2..], 16).unwrap();
    assert!((0x70_3000..=0x70_4000).contains(&end) && one["needed"] == "0/007059C8", "{one:#}");
    // It is on another timeline than the WAL.
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    cluster.control(|bytes| bytes[COPY + 8] = 2);
    let one = cluster.one_finding(["000000020000000000000006", "missing_segment", "starts_at", "find_for_start"]);
    assert_eq!(one["problem"]["timeline"], 2);
    // A backup starts where its label says, and has its WAL from elsewhere, if it is to be recovered.
    let cluster = Cluster::new(LAST, SHUT_DOWN);
    fs::remove_file(cluster.segment(6)).unwrap();
    let label = "START WAL LOCATION: 0/600028 (file 000000010000000000000006)\nCHECKPOINT LOCATION: 0/600080\nBACKUP METHOD: streamed\n\
        BACKUP FROM: primary\nSTART TIME: 2026-11-23 03:06:15 UTC\nLABEL: x\nSTART TIMELINE: 1\n";
    fs::write(cluster.path("backup_label"), label).unwrap();
    let one = cluster.one_finding([SIX, "missing_segment", "starts_at", "find_for_start"]);
    assert_eq!(one["problem"]["by"], "backup_label");
    fs::write(cluster.path("standby.signal"), "").unwrap();
    assert_eq!(cluster.findings(), [] as [Value; 0]);
    // What stands before the redo point is not asked for.
    let cluster = Cluster::new(LAST, SHUT_DOWN);
    fs::write(cluster.segment(7), &seven).unwrap();
    fs::remove_file(cluster.segment(6)).unwrap();
    assert_eq!(cluster.findings(), [] as [Value; 0]);
}

#[test]
fn a_standby_must_come_to_its_minimum_recovery_point() {
    let cluster = Cluster::new(FIRST, IN_ARCHIVE_RECOVERY);
    for (lsn, expected) in [
        (0x70_0000, None),
        (0x70_59C8, None),
        (0x70_9000, Some([SEVEN, "ends_early", "minimum_recovery_point", "find_for_start"])),
        (0x81_0000, Some(["000000010000000000000008", "missing_segment", "minimum_recovery_point", "find_for_start"])),
    ] {
        cluster.minimum(lsn);
        match expected {
            Some(expected) => drop(cluster.one_finding(expected)),
            None => assert_eq!(cluster.findings(), [] as [Value; 0], "{lsn:x}"),
        }
    }
    // A primary replays all there is, whatever it had to reach as a standby.
    cluster.control(|bytes| bytes[STATE] = IN_PRODUCTION as u8);
    assert_eq!(cluster.findings(), [] as [Value; 0]);
}

#[test]
fn pg_control_and_pg_wal_that_do_not_belong_together() {
    let told = |cluster: &Cluster, by: &str, action: &str| {
        let found = cluster.findings();
        assert!(!found.is_empty());
        for one in &found {
            let told = [&one["class"], &one["by"], &one["action"]];
            assert_eq!(told, [&Value::from("foreign_cluster"), &by.into(), &action.into()], "{found:#?}");
        }
    };
    // Where all WAL is another cluster's, pg_wal may be a link to the wrong place: nothing is to be moved.
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    cluster.control(|bytes| bytes[..4].fill(9));
    told(&cluster, "given_against_all", "keep_apart");
    // Otherwise the cluster of pg_control is the right one, however many segments the other has.
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    let foreign = fs::read(cluster.segment(7)).unwrap();
    for number in 7..12 {
        let mut foreign = foreign.clone();
        foreign[24..32].fill(7);
        foreign[8..16].copy_from_slice(&((number as u64) << 20).to_le_bytes());
        fs::write(cluster.segment(number), foreign).unwrap();
    }
    let found = cluster.findings();
    let first = &found[0];
    assert_eq!(
        [&first["class"], &first["by"], &first["action"]],
        ["foreign_cluster", "given", "separate"].map(Value::from).each_ref(),
        "{found:#?}"
    );
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    cluster.control(|bytes| bytes[..4].fill(9));
    // Without it nobody knows, and nothing is to be moved.
    fs::remove_dir_all(cluster.path("global")).unwrap();
    let mut other = fs::read(cluster.segment(7)).unwrap();
    other[24..32].fill(7);
    fs::write(cluster.segment(7), other).unwrap();
    let (_, out, _) = verify(cluster.dir.path(), ["--format", "json", "--quiet", "."]);
    let found: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((&found["class"], &found["by"], &found["action"]), (&"foreign_cluster".into(), &"majority".into(), &"keep_apart".into()));

    // A pg_control from another day.
    let cluster = Cluster::new(0x70_50D8, SHUT_DOWN);
    let one = cluster.one_finding(["pg_control", "control_file", "goes_on_after_shutdown", "do_not_start"]);
    assert_eq!(one["problem"]["checkpoint"], "0/007050D8");
    fs::write(cluster.path("recovery.signal"), "").unwrap();
    assert_eq!(cluster.findings(), [] as [Value; 0]);
    let cluster = Cluster::new(LAST, SHUT_DOWN);
    cluster.control(|bytes| bytes[COPY] ^= 8);
    cluster.one_finding(["pg_control", "control_file", "other_checkpoint", "restore_cluster"]);
    let cluster = Cluster::new(LAST, SHUT_DOWN);
    cluster.control(|bytes| bytes[CHECKPOINT..CHECKPOINT + 8].copy_from_slice(&0x70_5960u64.to_le_bytes()));
    cluster.one_finding(["pg_control", "control_file", "no_checkpoint", "restore_cluster"]);
}

#[test]
fn a_damaged_pg_control_is_told() {
    let cluster = Cluster::new(LAST, SHUT_DOWN);
    let path = cluster.path("global/pg_control");
    let good = fs::read(&path).unwrap();
    let mut bytes = good.clone();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    cluster.one_finding(["pg_control", "control_file", "control_checksum", "restore_cluster"]);
    fs::write(&path, &good[..200]).unwrap();
    cluster.one_finding(["pg_control", "control_file", "control_truncated", "restore_cluster"]);
    fs::remove_file(&path).unwrap();
    cluster.one_finding(["pg_control", "control_file", "control_unreadable", "restore_cluster"]);
    fs::write(&path, &good).unwrap();
    fs::write(cluster.path("PG_VERSION"), "18\n").unwrap();
    cluster.one_finding(["pg_control", "control_file", "control_version", "restore_cluster"]);
    fs::write(cluster.path("PG_VERSION"), "17\n").unwrap();
    cluster.control(|bytes| bytes[STATE] = 9);
    cluster.one_finding(["pg_control", "control_file", "control_value", "restore_cluster"]);
}

/// All segments by a pattern of the shell are those of the directory; a pg_wal that is gone is a finding.
#[test]
fn a_pattern_and_a_link_to_nowhere() {
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    fs::remove_file(cluster.segment(6)).unwrap();
    let wal = fs::read(cluster.segment(7)).unwrap();
    for number in 8..10 {
        fs::write(cluster.segment(number), &wal).unwrap();
    }
    let classes = |inputs: &[PathBuf]| {
        let args = ["--format", "json", "--quiet"].map(PathBuf::from).into_iter().chain(inputs.iter().cloned());
        let (_, out, _) = verify(cluster.dir.path(), args);
        let found = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        found.filter(|line| line["type"] == "finding").map(|one| one["class"].clone()).collect::<Vec<_>>()
    };
    let all: Vec<PathBuf> = (7..10).map(|number| cluster.segment(number)).collect();
    let whole = classes(&[cluster.path("pg_wal")]);
    assert!(whole.contains(&"missing_segment".into()), "{whole:?}");
    assert_eq!(classes(&all), whole);
    assert!(!classes(&all[..2]).contains(&"missing_segment".into()));
    // Without its folder `global`, it is a data directory all the same.
    fs::rename(cluster.path("global"), cluster.path("gone")).unwrap();
    assert!(classes(&[cluster.dir.path().to_owned()]).contains(&"control_file".into()));
    fs::rename(cluster.path("gone"), cluster.path("global")).unwrap();
    fs::remove_dir_all(cluster.path("pg_wal")).unwrap();
    assert_eq!(classes(&[cluster.dir.path().to_owned()]), ["missing_segment"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/does/not/exist", cluster.path("pg_wal")).unwrap();
        assert_eq!(classes(&[cluster.dir.path().to_owned()]), ["missing_segment"]);
    }
    let (status, ..) = verify(cluster.dir.path(), ["."]);
    assert_eq!(status, 1);
}

/// What is found on a real server's directory is why it does not start, and with the advice followed it starts.
#[test]
fn what_is_found_keeps_a_server_from_starting() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "control::what_is_found_keeps_a_server_from_starting") else { return };
    let server = postgres.start(&["--wal-segsize=1"], "wal_keep_size = 20\nautovacuum = off").unwrap();
    server.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 20000) g; SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    server.sql("INSERT INTO t SELECT generate_series(1, 20000)").unwrap();
    let found = || {
        let (_, out, err) = verify(server.data(), ["--format", "json", "."]);
        assert_eq!(err, "");
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.into_iter().filter(|line| line["type"] == "finding").collect::<Vec<_>>()
    };
    assert_eq!(found(), [] as [Value; 0]);
    server.control("stop -m immediate").unwrap();
    assert_eq!(found(), [] as [Value; 0]);
    let control = pgwal::datadir::DataDir::open(server.data(), |e| panic!("{e}")).unwrap();
    let redo = control.control().unwrap().checkpoint_copy.redo;
    let segment = pgwal::SegmentName::of(pgwal::TimelineId(1), redo, 1 << 20).to_string();
    let (file, aside) = (server.wal().join(&segment), server.dir().join("aside"));
    fs::rename(&file, &aside).unwrap();
    let missing = found();
    let last = missing.last().unwrap();
    // Whether there is WAL around it or not.
    assert_eq!((&last["class"], &last["first"]), (&"missing_segment".into(), &segment.into()));
    server.control("start").expect_err("it needs the segment");
    assert!(server.log().unwrap().contains("could not locate a valid checkpoint record"), "{}", server.log().unwrap());
    fs::rename(&aside, &file).unwrap();
    assert_eq!(found(), [] as [Value; 0]);
    server.control("start").unwrap();
    assert_eq!(server.sql("SELECT count(*) FROM t").unwrap(), "40000");
    server.control("stop -m fast").unwrap();
    assert_eq!(found(), [] as [Value; 0]);
}

/// A directory that is kept compressed as a whole is not to be started as it is; among plain segments, a compressed one is missing.
#[test]
fn compressed_segments_of_a_data_directory() {
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    let pack = |number| {
        let plain = cluster.segment(number);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &fs::read(&plain).unwrap()).unwrap();
        fs::write(plain.with_extension("gz"), gzip.finish().unwrap()).unwrap();
        fs::remove_file(plain).unwrap();
    };
    pack(6);
    assert!(cluster.findings().iter().any(|finding| finding["problem"]["kind"] == "not_plain"));
    pack(7);
    // A copy that is kept that way, which nobody starts as it is.
    assert_eq!(cluster.findings(), [] as [Value; 0]);
    let (_, out, _) = verify(cluster.dir.path(), ["."]);
    assert!(out.contains("All segments in pg_wal are compressed: unpack them before a server is started"), "{out}");
}

/// What stops a server that is started on a base backup is found before.
#[test]
fn a_base_backup_that_does_not_start() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "control::a_base_backup_that_does_not_start") else { return };
    let server = postgres.start(&["--wal-segsize=1"], "wal_level = replica\nmax_wal_senders = 4\nautovacuum = off").unwrap();
    // Where the server's account may write.
    let data = server.dir().join("backup");
    server.sql("CREATE TABLE t AS SELECT 1 AS g").unwrap();
    let rows = "INSERT INTO t SELECT generate_series(1, 20000)";
    server.client("pg_basebackup", ["-X", "none", "-c", "fast", "-D", data.to_str().unwrap()]).unwrap();
    server.sql(rows).unwrap();
    let label = fs::read(data.join("backup_label")).unwrap();
    let start = pgwal::backup_label::BackupLabel::parse(&label).unwrap().start_segment;
    // All WAL of the backup: a switch follows its end.
    let first = fs::read(server.wal().join(start.to_string())).unwrap();
    let found = || {
        let (status, out, err) = verify(&data, ["--format", "json", "."]);
        assert_eq!(err, "", "{out}");
        let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found: Vec<Value> = lines.into_iter().filter(|line| line["type"] == "finding").collect();
        assert_eq!(status, i32::from(!found.is_empty()), "{out}");
        found.iter().map(|finding| finding["problem"]["kind"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let plain = data.join("pg_wal").join(start.to_string());
    // Nothing is there; then it is to be fetched, by the primary or an archive.
    assert_eq!(found(), ["starts_at"]);
    for signal in ["standby.signal", "recovery.signal"] {
        fs::write(data.join(signal), "").unwrap();
        assert_eq!(found(), [] as [&str; 0]);
        let (_, text, _) = verify(&data, ["."]);
        assert!(text.contains(&format!("{start} is not in pg_wal: the server fetches WAL from the ")) && text.contains(signal), "{text}");
        fs::remove_file(data.join(signal)).unwrap();
    }
    fs::write(&plain, &first).unwrap();
    assert_eq!(found(), [] as [&str; 0]);
    // What is compressed is not read there.
    let packed = plain.with_extension("gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &first).unwrap();
    fs::write(&packed, gzip.finish().unwrap()).unwrap();
    fs::remove_file(&plain).unwrap();
    assert_eq!(found(), ["not_plain"]);
    postgres.start_on(&data, "").expect_err("the segment is compressed");
    fs::remove_file(&packed).unwrap();
    // The WAL ends before the record of the backup's end, with a manifest and without.
    let end = first.windows(8).rposition(|bytes| bytes == (start.start(1 << 20).0 + 0x28).to_le_bytes()).unwrap();
    let mut cut = first.clone();
    cut[end - 26..].fill(0);
    fs::write(&plain, &cut).unwrap();
    assert_eq!(found(), ["backup_end"]);
    fs::rename(data.join("backup_manifest"), server.dir().join("aside")).unwrap();
    assert_eq!(found(), ["backup_end"]);
    postgres.start_on(&data, "").expect_err("WAL ends before end of online backup");
    fs::write(&plain, &first).unwrap();
    // A label that is none, or cannot be read; nothing is waited for.
    let path = data.join("backup_label");
    fs::write(&path, "garbage\n").unwrap();
    assert_eq!(found(), ["label_invalid"]);
    postgres.start_on(&data, "").expect_err("invalid data in file \"backup_label\"");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(found(), ["label_unreadable"]);
    fs::remove_dir(&path).unwrap();
    for target in ["/dev/zero", "nowhere"] {
        std::os::unix::fs::symlink(target, &path).unwrap();
        assert_eq!(found(), ["label_unreadable"], "{target}");
        fs::remove_file(&path).unwrap();
    }
    assert!(std::process::Command::new("mkfifo").arg(&path).arg(data.join("postmaster.pid")).status().unwrap().success());
    assert_eq!(found(), ["label_unreadable"]);
    fs::remove_file(data.join("postmaster.pid")).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &label).unwrap();
    assert_eq!(found(), [] as [&str; 0]);
    postgres.start_on(&data, "").unwrap();
}

/// Segments may be missing before the place that the server starts from, as after somebody has removed some: a server starts with that. Slots
/// may need them all the same.
#[test]
fn what_is_missing_before_redo_is_no_damage() {
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    let id = u64::from_le_bytes(fs::read(cluster.segment(6)).unwrap()[24..32].try_into().unwrap());
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(17) }).starting_at(Lsn(1 << 20));
    wal.system_identifier(id);
    while wal.end() < Lsn(4 << 20) {
        wal.record(&RecordBuilder::filler(5000));
    }
    for (name, bytes) in wal.segments().into_iter().filter(|(name, _)| name.seg < 4) {
        fs::write(cluster.path("pg_wal").join(name.to_string()), bytes).unwrap();
    }
    fs::remove_file(cluster.segment(2)).unwrap();
    assert_eq!(cluster.findings(), [] as [Value; 0]);
    let (status, out, _) = verify(cluster.dir.path(), ["."]);
    let two = "000000010000000000000002 is not in pg_wal, and not needed to start: recovery starts at 0/00600028.\n";
    let gap = "000000010000000000000004 to 000000010000000000000005 are not in pg_wal, and not needed to start";
    assert!(status == 0 && out.contains(two) && out.contains(gap), "{out}");
    let slot = |name: &str, restart: u64| {
        let mut state = vec![0; 200];
        state[..4].copy_from_slice(&0x0105_1CA1_u32.to_le_bytes());
        state[8..16].copy_from_slice(&[5, 0, 0, 0, 184, 0, 0, 0]);
        state[16..16 + name.len()].copy_from_slice(name.as_bytes());
        state[96..104].copy_from_slice(&restart.to_le_bytes());
        let crc = crc32c::crc32c(&state[8..]);
        state[4..8].copy_from_slice(&crc.to_le_bytes());
        fs::create_dir_all(cluster.path("pg_replslot").join(name)).unwrap();
        fs::write(cluster.path("pg_replslot").join(name).join("state"), state).unwrap();
    };
    slot("behind", 0x30_0100);
    slot("good", 0x60_0028);
    let (status, out, _) = verify(cluster.dir.path(), ["."]);
    assert!(status == 0 && out.contains("Replication slot behind needs WAL from 0/00300100 on"), "{out}");
    assert!(!out.contains("slot good"), "{out}");
    let (_, out, _) = verify(cluster.dir.path(), ["--format", "json", "."]);
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|line: &Value| line["type"] == "unneeded").collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!((&lines[1]["last"], &lines[1]["slots"][0]), (&"000000010000000000000005".into(), &"behind".into()));
    // After it, the server needs each of them; and an archive has no place to start from.
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(17) }).starting_at(Lsn(9 << 20));
    wal.system_identifier(id).record(&RecordBuilder::filler(5000));
    let (nine, bytes) = wal.segments().swap_remove(0);
    let nine = cluster.path("pg_wal").join(nine.to_string());
    fs::write(&nine, bytes).unwrap();
    let found = cluster.findings();
    assert!(found.iter().any(|one| one["class"] == "missing_segment" && one["first"] == "000000010000000000000008"), "{found:#?}");
    fs::remove_file(nine).unwrap();
    let cluster_dir = cluster.path("pg_wal");
    let here = TempDir::new().unwrap();
    fs::rename(&cluster_dir, here.path().join("archive")).unwrap();
    let (status, out, _) = verify(here.path(), ["archive"]);
    assert!(status == 1 && out.contains("missing segments: 000000010000000000000004 to 000000010000000000000005"), "{out}");
}

/// The server reads PG_VERSION first.
#[test]
fn a_version_file_that_is_none() {
    let cluster = Cluster::new(FIRST, IN_PRODUCTION);
    let version = cluster.path("PG_VERSION");
    fs::remove_file(&version).unwrap();
    fs::create_dir(&version).unwrap();
    cluster.one_finding(["PG_VERSION", "control_file", "version_unreadable", "restore_cluster"]);
    fs::remove_dir(&version).unwrap();
    for text in ["", "seventeen\n", "\0\0\0", "170000\n"] {
        fs::write(&version, text).unwrap();
        cluster.one_finding(["PG_VERSION", "control_file", "version_unreadable", "restore_cluster"]);
    }
    fs::write(&version, "17\n").unwrap();
    assert_eq!(cluster.findings(), [] as [Value; 0]);
    #[cfg(unix)]
    {
        fs::remove_file(&version).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&version).status().unwrap().success());
        let one = cluster.one_finding(["PG_VERSION", "control_file", "version_unreadable", "restore_cluster"]);
        assert!(one["problem"]["reason"].as_str().unwrap().contains("pipe"), "{one:#}");
    }
}
