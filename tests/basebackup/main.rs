//! `pgwal basebackup` with real servers.
#![cfg(target_os = "linux")]

mod elsewhere;
mod errors;
mod hostile;
mod signals;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgwal_stream::compress::Compression;
use pgwal_testkit::server::{Postgres, Server, give, wait_until};
use tempfile::TempDir;

const SETTINGS: &str = "wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10\nautovacuum = off";

/// A server with a table in a tablespace of its own.
fn server(test: &str, initdb: &[&str]) -> Option<(Postgres, Server)> {
    let postgres = Postgres::find_or_skip(Some(15), test)?;
    let server = started(&postgres, initdb, "");
    Some((postgres, server))
}

fn started(postgres: &Postgres, initdb: &[&str], settings: &str) -> Server {
    let server = postgres.start(initdb, &format!("{SETTINGS}\n{settings}")).unwrap();
    let space = tablespace(&server);
    fs::create_dir(&space).unwrap();
    give(&space).unwrap();
    server.sql(&format!("CREATE TABLESPACE apart LOCATION '{}'", space.display())).unwrap();
    server.sql("CREATE TABLE t TABLESPACE apart AS SELECT i, repeat('x', 200) x FROM generate_series(1, 10000) i").unwrap();
    server
}

/// Where the server's tablespace is.
fn tablespace(server: &Server) -> PathBuf {
    server.dir().join("apart")
}

fn conninfo(server: &Server) -> String {
    format!("host={} user=postgres", server.socket().display())
}

/// `pgwal basebackup` of `server` into `dir`.
fn basebackup<S: AsRef<OsStr>>(server: &Server, dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    command.args(["basebackup", "-c", "fast", "-d", &conninfo(server), "-D"]).arg(dir).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// As [`basebackup`], run; what it says.
#[track_caller]
fn taken<S: AsRef<OsStr>>(server: &Server, dir: &Path, args: impl IntoIterator<Item = S>) -> String {
    let ran = basebackup(server, dir, args).output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), b"".as_slice()), "{stderr}");
    stderr
}

/// `-T` for the tablespace of `server`, into `to`.
fn mapped(server: &Server, to: &Path) -> String {
    format!("-T{}={}", tablespace(server).display(), to.display())
}

/// The real program accepts the backup.
#[track_caller]
fn pg_verifybackup(postgres: &Postgres, dir: &Path, args: &[&str]) {
    let ran = Command::new(postgres.program("pg_verifybackup")).args(args).arg(dir).output().unwrap();
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

/// A backup in tar form, unpacked as its user would do it.
fn unpacked(backup: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    let mut names: Vec<String> = fs::read_dir(backup).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_by_key(|name| !name.starts_with("base."));
    for name in names {
        let path = backup.join(&name);
        let stem = name.split('.').next().unwrap();
        let into = match stem {
            "backup_manifest" => {
                fs::copy(&path, to.join(&name)).unwrap();
                continue;
            }
            "base" => to.to_owned(),
            "pg_wal" => to.join("pg_wal"),
            oid => to.join("pg_tblspc").join(oid),
        };
        let reader = Compression::of_name(&name).reader(File::open(&path).unwrap()).unwrap();
        tar::Archive::new(reader).unpack(into).unwrap();
    }
}

/// A server on the backup streams from the primary and has what it has.
fn streams(postgres: &Postgres, primary: &Server, backup: &Path) {
    let standby = postgres.start_on(backup, "").unwrap();
    primary.sql("INSERT INTO t SELECT i, 'after the backup' FROM generate_series(1, 1000) i").unwrap();
    let at = primary.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    wait_until("the standby", || standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{at}'")).unwrap() == "t");
    let sums = "SELECT count(*), sum(i) FROM t";
    assert_eq!(standby.sql(sums).unwrap(), primary.sql(sums).unwrap());
    assert_eq!(standby.sql("SELECT pg_is_in_recovery()").unwrap(), "t");
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until("the standby streams", || primary.sql(streaming).unwrap() == "1");
}

#[test]
fn under_load_it_becomes_a_standby_that_catches_up() {
    let Some((postgres, primary)) = server("basebackup, load", &["-k"]) else { return };
    primary.client("pgbench", ["-i", "-q", "-s", "5", "postgres"]).unwrap();
    let space = primary.dir().join("moved");
    let backup = primary.dir().join("backup");
    primary.while_pgbench_runs(|| {
        let written = "SELECT count(*) FROM pgbench_history";
        wait_until("pgbench", || primary.sql(written).unwrap().parse::<u32>().unwrap() > 100);
        let args = ["-R", "-P", "-C", "-S", "standby", &mapped(&primary, &space)];
        let said = taken(&primary, &backup, args);
        assert!(said.contains("files are as the manifest says; its WAL has "), "{said}");
    });
    pg_verifybackup(&postgres, &backup, &[]);
    let auto = fs::read_to_string(backup.join("postgresql.auto.conf")).unwrap();
    let lines = format!("primary_conninfo = 'user=postgres host=''{}'''\nprimary_slot_name = 'standby'\n", primary.socket().display());
    assert!(auto.ends_with(&lines), "{auto}");
    assert_eq!(fs::read(backup.join("standby.signal")).unwrap(), b"");
    give(&space).unwrap();
    streams(&postgres, &primary, &backup);
    assert_eq!(primary.sql("SELECT slot_name, temporary FROM pg_replication_slots").unwrap(), "standby|f");
    let history = "SELECT count(*), sum(delta) FROM pgbench_history";
    assert!(primary.sql(history).unwrap().len() > 4);
}

/// What is in a directory, by path: permissions, and the content of files or where a link leads.
fn listing(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    fn list(dir: &Path, below: &Path, found: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
        for entry in fs::read_dir(dir.join(below)).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (below.join(entry.file_name()), entry.file_type().unwrap());
            let mode = entry.metadata().unwrap().permissions().mode();
            let content = match (kind.is_symlink(), kind.is_dir()) {
                (true, _) => b"a link".to_vec(),
                (_, true) => Vec::new(),
                _ => fs::read(entry.path()).unwrap(),
            };
            found.insert(path.clone(), (mode, content));
            if kind.is_dir() {
                list(dir, &path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    list(dir, Path::new(""), &mut found);
    found
}

/// What two backups one after the other need not have alike.
fn may_differ(path: &Path) -> bool {
    ["backup_label", "backup_manifest", "global/pg_control"].iter().any(|name| path == Path::new(name)) || path.starts_with("pg_wal")
}

/// The name of a file of WAL, whichever segment it is of.
fn any_segment(path: &Path) -> String {
    let name = path.to_str().unwrap();
    let is_segment = |part: &&str| part.len() == 24 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.split(['/', '.']).find(is_segment).map_or_else(|| name.to_owned(), |segment| name.replace(segment, "SEGMENT"))
}

#[test]
fn the_files_are_those_of_pg_basebackup() {
    for (initdb, wal) in [(&["-g"][..], "stream"), (&[][..], "fetch"), (&[][..], "none")] {
        let Some((_, server)) = server("basebackup, files", initdb) else { return };
        let dir = server.dir();
        let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
        let (our_space, their_space) = (dir.join("our_space"), dir.join("their_space"));
        let target = theirs.to_str().unwrap();
        server.client("pg_basebackup", ["-c", "fast", "-X", wal, "-D", target, &mapped(&server, &their_space)]).unwrap();
        taken(&server, &ours, ["-X", wal, &mapped(&server, &our_space)]);
        for (ours, theirs) in [(&ours, &theirs), (&our_space, &their_space)] {
            let (ours, theirs) = (listing(ours), listing(theirs));
            // Segments have other names in the second backup, and there may be one more: it depends on when each of them ends.
            let known = |path: &&PathBuf| path.parent().is_none_or(|parent| !parent.starts_with("pg_wal"));
            assert_eq!(ours.keys().filter(known).collect::<Vec<_>>(), theirs.keys().filter(known).collect::<Vec<_>>());
            for (path, (mode, content)) in ours.iter().filter(|(path, _)| known(path)) {
                let (their_mode, their_content) = &theirs[path];
                assert_eq!(mode, their_mode, "{}", path.display());
                assert!(content == their_content || may_differ(path), "{}", path.display());
            }
            let wal_files = |list: &BTreeMap<PathBuf, (u32, Vec<u8>)>| -> BTreeSet<(String, u32)> {
                list.iter().filter(|(path, _)| !known(path)).map(|(path, (mode, _))| (any_segment(path), *mode)).collect()
            };
            // Whether a segment is whole, and so marked, depends on that, too.
            let (ours, theirs) = (wal_files(&ours), wal_files(&theirs));
            let differ: Vec<_> = ours.symmetric_difference(&theirs).filter(|(name, _)| !name.ends_with("SEGMENT.done")).collect();
            assert!(differ.is_empty(), "{wal}: {differ:?}");
        }
    }
}

#[test]
fn archives_are_those_of_pg_basebackup() {
    let Some((_, server)) = server("basebackup, archives", &[]) else { return };
    let (ours, theirs) = (server.dir().join("ours"), server.dir().join("theirs"));
    server.client("pg_basebackup", ["-c", "fast", "-F", "t", "-R", "-D", theirs.to_str().unwrap()]).unwrap();
    taken(&server, &ours, ["-F", "tar", "-R"]);
    let names = |dir: &Path| {
        let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&ours), names(&theirs));
    let entries = |path: PathBuf| {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let header = entry.header();
            (path, header.mode().unwrap() & 0o777, header.entry_type().as_byte())
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    };
    for name in names(&ours) {
        match name.as_str() {
            // One may have a segment more: it depends on when each of them ends.
            "pg_wal.tar" => {
                // And the mark of one that is finished.
                let is_mark = |(path, ..): &(PathBuf, u32, u8)| path.extension().is_some_and(|extension| extension == "done");
                let kinds = |dir: &Path| -> (BTreeSet<_>, Vec<_>) {
                    let (marks, others): (Vec<_>, Vec<_>) = entries(dir.join(&name)).into_iter().partition(is_mark);
                    (others.into_iter().map(|(path, mode, kind)| (any_segment(&path), mode, kind)).collect(), marks)
                };
                let ((ours, our_marks), (theirs, their_marks)) = (kinds(&ours), kinds(&theirs));
                assert_eq!(ours, theirs, "{name}");
                for (path, mode, kind) in our_marks.iter().chain(&their_marks) {
                    assert!(path.starts_with("archive_status") && (*mode, *kind) == (0o600, b'0'), "{path:?}");
                }
            }
            "backup_manifest" => {
                let size = |dir: &Path| fs::metadata(dir.join(&name)).unwrap().len();
                assert_eq!(size(&ours), size(&theirs), "{name}");
            }
            _ => assert_eq!(entries(ours.join(&name)), entries(theirs.join(&name)), "{name}"),
        }
    }
}

#[test]
fn every_form_stands_the_real_check() {
    let Some((postgres, server)) = server("basebackup, forms", &[]) else { return };
    let cases: [(&[&str], bool); 12] = [
        (&["-X", "stream"], true),
        (&["-X", "fetch", "--manifest-checksums", "sha256"], true),
        (&["-X", "none", "--manifest-checksums", "SHA512"], false),
        (&["-X", "stream", "--no-slot", "--no-sync", "--manifest-checksums", "none"], true),
        (&["-X", "stream", "-Z", "server-gzip:level=1", "--manifest-force-encode"], true),
        (&["-X", "fetch", "-Z", "server-zstd", "-r", "1024M"], true),
        (&["-X", "fetch", "-Z", "server-lz4", "-l", "it's ours"], true),
        (&["-F", "tar", "-X", "stream"], true),
        (&["-F", "t", "-X", "f", "-z", "-R"], true),
        (&["-F", "t", "-X", "s", "-Z", "lz4"], true),
        (&["-F", "t", "-X", "s", "-Z", "client-zstd:1", "-R"], true),
        (&["-F", "t", "-X", "f", "-Z", "server-lz4", "-R"], true),
    ];
    for (at, (args, has_wal)) in cases.into_iter().enumerate() {
        let (backup, space) = (server.dir().join(format!("backup{at}")), server.dir().join(format!("space{at}")));
        let is_tar = args.contains(&"-F");
        let mapping = (!is_tar).then(|| mapped(&server, &space));
        let said = taken(&server, &backup, args.iter().copied().map(str::to_owned).chain(mapping));
        assert!(said.contains("files are as the manifest says"), "{args:?}: {said}");
        assert_eq!(said.contains("its WAL has "), has_wal, "{args:?}: {said}");
        let plain = server.dir().join(format!("plain{at}"));
        let checked = if is_tar {
            unpacked(&backup, &plain);
            &plain
        } else {
            &backup
        };
        pg_verifybackup(&postgres, checked, if has_wal { &[] } else { &["-n"] });
        let label = fs::read_to_string(checked.join("backup_label")).unwrap();
        let expected = if args.contains(&"it's ours") { "LABEL: it's ours\n" } else { "LABEL: pgwal base backup\n" };
        assert!(label.contains(expected), "{label}");
        assert_eq!(checked.join("standby.signal").exists(), args.contains(&"-R"), "{args:?}");
    }
    assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0", "nothing is left behind");
}

#[test]
fn archives_become_a_standby() {
    let Some((postgres, primary)) = server("basebackup, archives of a standby", &[]) else { return };
    for (at, packing) in ["client-none", "server-zstd:level=2"].into_iter().enumerate() {
        let (backup, plain) = (primary.dir().join(format!("backup{at}")), primary.dir().join(format!("plain{at}")));
        taken(&primary, &backup, ["-F", "tar", "-R", "-Z", packing]);
        unpacked(&backup, &plain);
        // The map leads to the primary's own directory: this one is for the standby.
        let space = primary.dir().join(format!("space{at}"));
        let linked = fs::read_dir(plain.join("pg_tblspc")).unwrap().next().unwrap().unwrap().path();
        fs::rename(&linked, &space).unwrap();
        give(&space).unwrap();
        let oid = linked.file_name().unwrap().to_str().unwrap();
        fs::write(plain.join("tablespace_map"), format!("{oid} {}\n", space.display())).unwrap();
        streams(&postgres, &primary, &plain);
    }
}

#[test]
fn wal_goes_to_a_directory_of_its_own() {
    let Some((postgres, server)) = server("basebackup, --waldir", &[]) else { return };
    let (backup, wal, space) = (server.dir().join("backup"), server.dir().join("wal"), server.dir().join("space"));
    taken(&server, &backup, ["--waldir", wal.to_str().unwrap(), &mapped(&server, &space)]);
    assert_eq!(fs::read_link(backup.join("pg_wal")).unwrap(), wal);
    assert!(fs::read_dir(&wal).unwrap().count() >= 2);
    pg_verifybackup(&postgres, &backup, &[]);
}

#[test]
fn a_tablespace_in_the_data_directory_stays_there() {
    let Some((postgres, server)) = server("basebackup, tablespace in place", &[]) else { return };
    let create = ["-qd", "postgres", "-c", "SET allow_in_place_tablespaces = on", "-c", "CREATE TABLESPACE inside LOCATION ''"];
    server.client("psql", create).unwrap();
    server.sql("CREATE TABLE u TABLESPACE inside AS SELECT generate_series(1, 1000) i").unwrap();
    let (backup, space) = (server.dir().join("backup"), server.dir().join("space"));
    taken(&server, &backup, ["-R", &mapped(&server, &space)]);
    pg_verifybackup(&postgres, &backup, &[]);
    give(&space).unwrap();
    // Recovery wants it, too.
    let auto = backup.join("postgresql.auto.conf");
    fs::write(&auto, fs::read_to_string(&auto).unwrap() + "allow_in_place_tablespaces = on\n").unwrap();
    streams(&postgres, &server, &backup);
}

#[test]
fn a_standby_is_backed_up_and_so_is_the_primary_that_it_becomes() {
    let Some((postgres, primary)) = server("basebackup, from a standby", &[]) else { return };
    let path = |name: &str| primary.dir().join(name);
    let moved = |from: &str, to: &str| format!("-T{}={}", path(from).display(), path(to).display());
    taken(&primary, &path("first"), ["-R", &mapped(&primary, &path("space"))]);
    give(&path("space")).unwrap();
    let standby = postgres.start_on(&path("first"), "").unwrap();
    std::thread::scope(|scope| {
        // A standby writes no WAL of its own: its backup ends where the primary's has come to.
        let load = scope.spawn(|| {
            for _ in 0..40 {
                primary.sql("INSERT INTO t SELECT i, 'while it is backed up' FROM generate_series(1, 2000) i").unwrap();
            }
        });
        let said = taken(&standby, &path("second"), [&moved("space", "second_space")]);
        assert!(said.contains(" on timeline 1 ") && said.contains("its WAL has "), "{said}");
        load.join().unwrap();
    });
    pg_verifybackup(&postgres, &path("second"), &[]);
    standby.sql("SELECT pg_promote()").unwrap();
    wait_until("the promotion", || standby.sql("SELECT pg_is_in_recovery()").unwrap() == "f");
    let said = taken(&standby, &path("third"), ["-R", &moved("space", "third_space")]);
    assert!(said.contains(" on timeline 2 "), "{said}");
    pg_verifybackup(&postgres, &path("third"), &[]);
    for name in ["pg_wal/00000002.history", "pg_wal/archive_status/00000002.history.done"] {
        assert!(path("third").join(name).exists(), "{name}");
    }
    give(&path("third_space")).unwrap();
    streams(&postgres, &standby, &path("third"));
}

/// With [`Postgres::all`]: those of `PGWAL_TEST_SERVERS`, too.
#[test]
fn servers_of_every_major_are_backed_up() {
    for postgres in Postgres::all() {
        let major = postgres.major;
        let primary = started(&postgres, &[], "");
        for (at, args) in [&["-R", "-X", "stream"][..], &["-X", "fetch"], &["-F", "tar", "-X", "stream", "-R"]].into_iter().enumerate() {
            let (backup, space) = (primary.dir().join(format!("backup{at}")), primary.dir().join(format!("space{at}")));
            let mapping = (at < 2).then(|| mapped(&primary, &space));
            let said = taken(&primary, &backup, args.iter().copied().map(str::to_owned).chain(mapping));
            assert_eq!(said.contains("files are as the manifest says"), major >= 13, "{major}: {said}");
            assert!(said.contains("its WAL has "), "{major}: {said}");
            if at == 0 {
                give(&space).unwrap();
                streams(&postgres, &primary, &backup);
            }
            let settings = if major < 12 { "recovery.conf" } else { "postgresql.auto.conf" };
            if at < 2 {
                let found = fs::read_to_string(backup.join(settings)).unwrap_or_default();
                assert_eq!(found.contains("primary_conninfo = "), at == 0, "{major}: {found}");
            }
        }
    }
}

/// A temporary directory that the server's user can come through.
fn temporary() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}
