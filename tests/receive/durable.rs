//! Disks that fail to put something on disk: what they failed with counts only once it has been written anew.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use super::*;

/// The library of `fault.c`; `None`: there is no compiler.
pub fn fault() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<TempDir>> = OnceLock::new();
    let build = || {
        let dir = TempDir::new().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/receive/fault.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(dir.path().join("fault.so")).arg(source).arg("-ldl").status();
        match built {
            Ok(status) => {
                assert!(status.success(), "cc does not compile fault.c");
                Some(dir)
            }
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "cc: {error}");
                None
            }
        }
    };
    static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();
    let dir = LIBRARY.get_or_init(build).as_ref();
    if dir.is_none() {
        eprintln!("SKIPPED receive, disks that fail: no cc found");
    }
    dir.map(|dir| PATH.get_or_init(|| dir.path().join("fault.so")).as_path())
}

/// Inodes of the files in `dir`.
fn inodes(dir: &Path) -> BTreeSet<u64> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().ino()).collect()
}

/// The files in `dir`.
fn open(dir: &Path) -> Vec<File> {
    fs::read_dir(dir).unwrap().map(|entry| File::open(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn after_a_failed_fsync_and_a_restart_nothing_counts_that_was_not_written_anew() {
    let Some((_, server)) = server("receive, failed fsync", "") else { return };
    let Some(library) = fault() else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    for (number, (compression, ending, after, failing)) in [
        // While a segment is written, also in the very first one, and when it is whole.
        ("none", ".partial", "7", "a segment that is not whole"),
        ("none", ".partial", "0", "a segment that begins"),
        ("gzip", ".gz.partial", "4", "a compressed segment"),
        // The name of a whole segment: not that of a new one, which is put there before.
        ("none", "", "5", "the names in the directory"),
        ("zstd", "", "5", "the names in the directory, compressed"),
    ]
    .into_iter()
    .enumerate()
    {
        let (dir, log) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        // The first time for the new segment, the second one when its name is put on disk, and then it is the end of a segment's turn.
        let ending = if ending.is_empty() { dir.path().to_str().unwrap() } else { ending };
        let slot = format!("s{number}");
        let args = ["-S", &slot, "--create-slot", "--if-not-exists", "--synchronous", "-Z", compression];
        let mut command = receive(&server, dir.path(), args);
        command.env("LD_PRELOAD", library).env("FAULT_MATCH", ending).env("FAULT_AFTER", after).env("FAULT_LOG", log.path());
        let running = Running::start(command);
        let acknowledged = || server.sql(&format!("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'")).unwrap();
        running.wait_for_start();
        for _ in 0..8 {
            work(&server, 3000);
        }
        let (status, said) = running.end();
        assert_eq!(status, Some(1), "{failing}: {said}");
        assert!(said.contains("could not sync \"") && !said.contains("trying again"), "{failing}: it is no use to try again: {said}");
        let before = acknowledged();
        let failed: u64 = fs::read_to_string(log.path()).unwrap().parse().unwrap();
        // A directory keeps its inode: what it has been asked to put on disk are the names of the files that it has now.
        let lost: BTreeSet<u64> = if ending.starts_with('/') {
            assert_eq!(failed, dir.path().metadata().unwrap().ino(), "{failing}");
            let newest = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
            [newest.metadata().unwrap().ino()].into()
        } else {
            assert!(inodes(dir.path()).contains(&failed), "{failing}");
            [failed].into()
        };

        // Kept open, so that no new file gets their inodes.
        let kept = open(dir.path());
        let running = Running::start(receive(&server, dir.path(), args));
        wait_until("what was missing", || server.sql(&format!("SELECT '{before}'::pg_lsn < '{}'", acknowledged())).unwrap() == "t");
        let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
        work(&server, 10);
        let suffix = [("none", ""), ("gzip", ".gz"), ("zstd", ".zst")].iter().find(|known| known.0 == compression).unwrap().1;
        wait_until("the last segment", || dir.path().join(format!("{end}{suffix}")).exists());
        let (status, said) = running.stop_by("-TERM");
        assert_eq!(status, Some(0), "{failing}: {said}");
        assert!(inodes(dir.path()).is_disjoint(&lost), "{failing}: the file that could not be put on disk has been taken for good");
        drop(kept);
        assert!(same_as_the_server(&server, dir.path()) > 1, "{failing}");
        verified(dir.path());
        server.sql(&format!("SELECT pg_drop_replication_slot('{slot}')")).unwrap();
    }
}

#[test]
fn a_history_file_that_is_not_on_disk_is_written_anew() {
    let Some((_, primary)) = server("receive, failed fsync of a history file", "") else { return };
    let Some(library) = fault() else { return };
    primary.sql("CREATE TABLE t (i int, x text)").unwrap();
    let standby = primary.standby().unwrap();
    standby.sql("SELECT pg_promote()").unwrap();
    wait_until("the promotion", || standby.sql("SELECT pg_is_in_recovery()").unwrap() == "f");
    for ending in [".history.tmp", ""] {
        let (dir, log) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let ending = if ending.is_empty() { dir.path().to_str().unwrap() } else { ending };
        let mut command = receive(&standby, dir.path(), [""; 0]);
        command.env("LD_PRELOAD", library).env("FAULT_MATCH", ending).env("FAULT_LOG", log.path());
        let (status, said) = Running::start(command).end();
        assert_eq!(status, Some(1), "{said}");
        let lost = inodes(dir.path());
        assert_eq!(lost.len(), 1, "{said}");
        let _kept = open(dir.path());
        let end = standby.sql("SELECT pg_current_wal_lsn() - 8").unwrap();
        let (status, said) = Running::start(receive(&standby, dir.path(), ["--endpos", &end])).end();
        assert_eq!(status, Some(0), "{said}");
        let path = dir.path().join("00000002.history");
        assert_eq!(fs::read(&path).unwrap(), fs::read(standby.wal().join("00000002.history")).unwrap());
        // What is still being written is written again into the same file.
        assert!(ending.ends_with("tmp") || !lost.contains(&path.metadata().unwrap().ino()), "{ending}");
    }
}
