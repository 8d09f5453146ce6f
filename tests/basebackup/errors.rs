//! What cannot be backed up, is refused, or breaks on its way.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{basebackup, conninfo, mapped, server, temporary, wait_until};

/// Directories that a backup that failed must not leave: not there, or empty.
pub fn is_clean(path: &std::path::Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn what_cannot_be_done_is_said() {
    let Some((_, server)) = server("basebackup, errors", &[]) else { return };
    server.sql("CREATE ROLE nobody LOGIN").unwrap();
    let full = server.dir().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("precious"), "").unwrap();
    let new = server.dir().join("new");
    let user = format!("host={} user=nobody", server.socket().display());
    let cases: [(&[&str], i32, &str); 15] = [
        (&[], 1, "\" is not empty: the server has a tablespace there; put it elsewhere with -T "),
        (&["-D", full.to_str().unwrap(), "-D", "x"], 2, "cannot be used multiple times"),
        (&["-T/nowhere=/elsewhere"], 1, "the server has no tablespace in \"/nowhere\""),
        (&["-T/nowhere"], 2, "expected OLDDIR=NEWDIR"),
        (&["-Z", "gzip"], 1, "only archives can be compressed here: choose the tar form"),
        (&["-Z", "server-gzip:level=100"], 1, "compression"),
        (&["-Z", "bzip2"], 2, "expected none, gzip, lz4 or zstd"),
        (&["-S", "s", "-X", "fetch"], 1, "a slot goes with streamed WAL only"),
        (&["-S", "nosuchslot", "-F", "tar"], 1, "replication slot \"nosuchslot\" does not exist"),
        (&["--waldir", "wal"], 1, "the directory for WAL must be an absolute path"),
        (&["-F", "tar", "--waldir", "/nowhere"], 1, "a directory for WAL goes with the plain form only"),
        (&["-F", "tar", "-T/a=/b"], 1, "directories of tablespaces go with the plain form only"),
        (&["-r", "1"], 2, "expected 32 kilobytes to 1024 megabytes a second"),
        (&["-C"], 2, "--slot"),
        (&["-F", "tar", "--manifest-checksums", "md5"], 2, "invalid value 'md5'"),
    ];
    for (args, status, text) in cases {
        let ran = basebackup(&server, &new, args).output().unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{args:?}: {stderr}");
        assert!(stderr.contains(text), "{args:?}: {stderr}");
        assert!(is_clean(&new), "{args:?} leaves something");
    }
    assert!(!super::tablespace(&server).join("PG_VERSION").exists());
    let pgwal = |conninfo: &str, dir: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(["basebackup", "-D", dir, "-d", conninfo]).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (status, stderr) = pgwal(&conninfo(&server), full.to_str().unwrap());
    assert_eq!((status, stderr.as_str()), (Some(1), format!("pgwal: directory \"{}\" is not empty\n", full.display()).as_str()));
    assert!(full.join("precious").exists(), "what was there stays");
    let (status, stderr) = pgwal(&user, new.to_str().unwrap());
    assert_eq!(status, Some(1));
    assert!(stderr.contains("must be superuser or replication role to start walsender"), "{stderr}");
    let (status, stderr) = pgwal("host=/nowhere", new.to_str().unwrap());
    assert_eq!(status, Some(1));
    assert!(stderr.contains("connection to server on socket \"/nowhere/.s.PGSQL.5432\" failed"), "{stderr}");
    let (status, stderr) = pgwal(&conninfo(&server), "/proc/nowhere");
    assert_eq!(status, Some(1));
    assert!(stderr.contains("could not create directory \"/proc/nowhere\""), "{stderr}");
    assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0");
}

#[test]
fn a_server_that_takes_no_replication_is_told_of_before_anything_is_made() {
    let Some(postgres) = pgwal_testkit::server::Postgres::find_or_skip(Some(15), "basebackup, wal_level = minimal") else { return };
    let server = postgres.start(&[], "wal_level = minimal\nmax_wal_senders = 0").unwrap();
    let dir = server.dir().join("backup");
    let ran = basebackup(&server, &dir, [""; 0]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("\nThe server takes no connections for replication, as with wal_level = minimal: it needs "), "{said}");
    assert!(!dir.exists());
}

/// Takes a backup so slowly that there is time for `disturb`, once files have come; its status and what it says. Nothing is left of it.
fn disturbed(server: &pgwal_testkit::server::Server, disturb: impl FnOnce(&std::process::Child)) -> (Option<i32>, String) {
    let dir = temporary();
    let (backup, space) = (dir.path().join("backup"), dir.path().join("space"));
    let args = ["-r", "256", "-C", "-S", "mine", &mapped(server, &space)];
    let child = basebackup(server, &backup, args).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the first files", || space.join("PG_15_202209061").exists() || backup.join("base").exists());
    disturb(&child);
    let ran = child.wait_with_output().unwrap();
    assert!(!backup.exists() && !space.exists(), "nothing is left");
    if server.control("status").is_ok() {
        assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0", "no slot, either");
    }
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn what_breaks_on_its_way_leaves_nothing() {
    let Some((_, server)) = server("basebackup, broken", &[]) else { return };
    let (status, stderr) = disturbed(&server, |child| {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    });
    assert_eq!((status, stderr.contains("interrupted")), (Some(1), true), "{stderr}");

    let (status, stderr) = disturbed(&server, |_| {
        wait_until("the stream of WAL", || {
            server.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication WHERE state = 'streaming'").unwrap() == "1"
        });
    });
    assert_eq!(status, Some(1));
    assert!(stderr.contains("the WAL that the backup needs did not come: "), "{stderr}");

    let (status, stderr) = disturbed(&server, |_| server.control("stop -m immediate").unwrap());
    assert_eq!(status, Some(1));
    assert!(stderr.contains("closed") || stderr.contains("terminat") || stderr.contains("shut"), "{stderr}");
}

#[test]
fn damaged_pages_on_the_server_are_no_success() {
    let Some((_, server)) = server("basebackup, damaged pages", &["-k"]) else { return };
    let file = server.sql("SELECT pg_relation_filepath('t')").unwrap();
    server.control("stop").unwrap();
    let path = server.data().join(file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8192 + 4000] ^= 1;
    fs::write(&path, bytes).unwrap();
    server.control("start").unwrap();
    let (backup, space) = (server.dir().join("backup"), server.dir().join("space"));
    let ran = basebackup(&server, &backup, [&mapped(&server, &space)]).output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("checksum verification failed in file") && stderr.contains("checksum verification failure"), "{stderr}");
    assert!(backup.join("PG_VERSION").exists() && !backup.join("backup_manifest").exists(), "it stays, and is not called a backup");
    let (backup, space) = (server.dir().join("second"), server.dir().join("second_space"));
    let ran = basebackup(&server, &backup, [&mapped(&server, &space), "--no-verify-checksums"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// What `--verify-only` says of a backup.
fn verified(backup: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    let ran = command.args(["basebackup", "--verify-only", "-D"]).arg(backup).args(args).output().unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn a_backup_that_has_been_changed_is_found_out() {
    let Some((_, server)) = server("basebackup --verify-only", &[]) else { return };
    let (backup, space) = (server.dir().join("backup"), server.dir().join("space"));
    super::taken(&server, &backup, [&mapped(&server, &space)]);
    let (status, stderr) = verified(&backup, &[]);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stderr.contains("files are as the manifest says; its WAL has "), "{stderr}");
    let segment = fs::read_dir(backup.join("pg_wal")).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap();
    let oid = fs::read_dir(backup.join("pg_tblspc")).unwrap().next().unwrap().unwrap().file_name().into_string().unwrap();
    let table = server.sql("SELECT regexp_replace(pg_relation_filepath('t'), '^pg_tblspc/[0-9]*/', '')").unwrap();
    let in_space = format!("pg_tblspc/{oid}/{table}");
    let change = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let before = fs::read(path).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
        before
    };
    let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;
    for (path, how, args, expected) in [
        (backup.join(&in_space), &flip(5000) as &dyn Fn(&mut Vec<u8>), &[][..], format!("\"{in_space}\" has been changed")),
        (backup.join("global/pg_control"), &|bytes| bytes.truncate(100), &[], "\"global/pg_control\" has 100 bytes".to_owned()),
        (backup.join("backup_manifest"), &flip(300), &[], "manifest".to_owned()),
        (segment.clone(), &flip(0x60), &[], "the WAL that the backup needs is missing or damaged: ".to_owned()),
        (segment.clone(), &|bytes| bytes.fill(0), &[], "the WAL that the backup needs is missing or damaged: ".to_owned()),
    ] {
        let before = change(&path, how);
        let (status, stderr) = verified(&backup, args);
        assert_eq!(status, Some(1), "{}: {stderr}", path.display());
        assert!(stderr.contains(&expected), "{}: {stderr}", path.display());
        fs::write(&path, before).unwrap();
    }
    let elsewhere = server.dir().join("elsewhere");
    for (path, args, expected) in [
        (backup.join("PG_VERSION"), &[][..], "\"PG_VERSION\" is in the manifest but not in the backup"),
        (segment, &[], "the WAL that the backup needs is missing or damaged: "),
        (backup.join("backup_manifest"), &[], "backup_manifest\": No such file or directory"),
    ] {
        fs::rename(&path, &elsewhere).unwrap();
        let (status, stderr) = verified(&backup, args);
        assert_eq!(status, Some(1), "{}: {stderr}", path.display());
        assert!(stderr.contains(expected), "{}: {stderr}", path.display());
        if path.starts_with(backup.join("pg_wal")) {
            assert_eq!(verified(&backup, &["-X", "none"]).0, Some(0), "WAL that comes from elsewhere");
        }
        fs::rename(&elsewhere, &path).unwrap();
    }
    assert_eq!(verified(&backup, &[]).0, Some(0), "all is as it was");
    assert_eq!(
        verified(Path::new("/nowhere"), &[]),
        (Some(1), "pgwal: could not open directory \"/nowhere\": No such file or directory (os error 2)\n".to_owned())
    );
}

/// Two tablespaces in one directory, or one in the data directory: their files would mix, and each may have one of the same name.
#[test]
fn tablespaces_that_go_to_one_place_are_refused() {
    let Some((_, server)) = super::server("basebackup, one place for two", &[]) else { return };
    let at = |name: &str| server.dir().join(name);
    let other = at("another");
    std::fs::create_dir(&other).unwrap();
    super::give(&other).unwrap();
    server.sql(&format!("CREATE TABLESPACE another LOCATION '{}'", other.display())).unwrap();
    let backup = at("backup");
    let first = |to: &std::path::Path| mapped(&server, to);
    let second = |to: &std::path::Path| format!("-T{}={}", other.display(), to.display());
    let (one, two) = (at("one"), at("two"));
    for (first_to, second_to) in [(&one, &one), (&one, &one.join("below")), (&backup.join("base"), &two), (&one, &backup.join("global"))] {
        let ran = basebackup(&server, &backup, [first(first_to), second(second_to)]).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.code() == Some(1) && said.contains("could not create directory \"") && said.contains("File exists"), "{said}");
        assert!(!backup.exists() && !one.exists() && !two.exists());
    }
    let ran = basebackup(&server, &backup, [first(&one), second(&two)]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
}
