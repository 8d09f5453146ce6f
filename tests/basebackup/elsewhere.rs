//! Backups that go to standard output, or that the server stores itself, and those that build on another one.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::{Command, Stdio};

use pgwal_stream::compress::Compression;
use pgwal_testkit::server::{Postgres, Server, give};

use super::{SETTINGS, basebackup, mapped, pg_verifybackup, server, taken};

/// `pgwal basebackup` without a directory of its own: status, what it writes, and what it says.
fn run(server: &Server, args: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    command.args(["basebackup", "-c", "fast", "-U", "postgres", "-h"]).arg(server.socket()).args(args);
    let ran = command.stdin(Stdio::null()).output().unwrap();
    (ran.status.code(), ran.stdout, String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn standard_output_takes_one_archive_with_the_manifest() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "basebackup -D -") else { return };
    let server = postgres.start(&[], SETTINGS).unwrap();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i").unwrap();
    let cases: [(&[&str], Compression); 4] = [
        (&["-X", "fetch"], Compression::None),
        (&["-X", "fetch", "-R", "-z"], Compression::Gzip(6)),
        (&["-X", "fetch", "-Z", "server-lz4"], Compression::Lz4),
        (&["-X", "fetch", "-Z", "server-gzip:level=1", "--no-manifest"], Compression::Gzip(6)),
    ];
    for (at, (args, compression)) in cases.into_iter().enumerate() {
        let (status, archive, said) = run(&server, &[&["-D", "-", "-F", "tar"], args].concat());
        assert_eq!(status, Some(0), "{args:?}: {said}");
        let dir = server.dir().join(format!("out{at}"));
        fs::create_dir(&dir).unwrap();
        tar::Archive::new(compression.reader(Cursor::new(archive)).unwrap()).unpack(&dir).unwrap();
        match args.contains(&"--no-manifest") {
            true => assert!(!dir.join("backup_manifest").exists()),
            false => pg_verifybackup(&postgres, &dir, &[]),
        }
        assert_eq!(dir.join("standby.signal").exists(), args.contains(&"-R"), "{args:?}");
    }
    // Nothing comes of what cannot be one archive.
    let space = server.dir().join("space");
    fs::create_dir(&space).unwrap();
    give(&space).unwrap();
    server.sql(&format!("CREATE TABLESPACE apart LOCATION '{}'", space.display())).unwrap();
    for (args, expected) in [
        (&["-X", "none"][..], "a cluster with tablespaces cannot be written as one archive: it has 2"),
        (&["-X", "stream"], "WAL cannot be streamed into a single archive"),
    ] {
        let (status, archive, said) = run(&server, &[&["-D", "-", "-F", "tar"], args].concat());
        assert_eq!((status, archive.len()), (Some(1), 0), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_server_stores_a_backup_itself() {
    let Some((_, server)) = server("basebackup --target", &[]) else { return };
    let stored = server.dir().join("stored");
    let target = format!("server:{}", stored.display());
    let (status, out, said) = run(&server, &["-t", &target, "-X", "fetch", "-z", "-P"]);
    assert_eq!((status, out.len()), (Some(0), 0), "{said}");
    assert!(stored.join("base.tar.gz").exists() && stored.join("backup_manifest").exists(), "{said}");
    let (status, _, said) = run(&server, &["--target", "blackhole", "-X", "none"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("the backup starts at "), "{said}");
    for (args, expected, status) in [
        (&["-t", "blackhole"][..], "WAL cannot be streamed into a backup that the server stores itself", 1),
        (&["-t", "bogus", "-X", "none"], "unrecognized target", 1),
        (&["-t", "blackhole", "-X", "none", "-R"], "the settings of a standby cannot be written", 1),
        (&["-t", "blackhole", "-X", "none", "-Z", "client-gzip"], "can only be compressed by the server", 1),
        (&["-t", "blackhole", "-X", "none", "-D", "x"], "there is no --directory", 2),
        (&["-t", "blackhole", "-X", "none", "-F", "tar"], "cannot be used with", 2),
        (&["-t", "client"], "needs --directory", 2),
        (&["-t", "client", "-D", "/nowhere/x", "-i", "/nowhere"], "incremental backups need a server of PostgreSQL 17 or later", 1),
    ] {
        let (code, _, said) = run(&server, args);
        assert_eq!(code, Some(status), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn options_of_the_real_program_are_taken() {
    let Some((postgres, server)) = server("basebackup, options", &[]) else { return };
    let port = server.port().to_string();
    let (backup, space) = (server.dir().join("backup"), server.dir().join("space"));
    let dir = backup.to_str().unwrap();
    let mapping = mapped(&server, &space);
    let args = ["--pgdata", dir, "-p", &port, "-v", "--no-sync", "-s", "5", "--sync-method=syncfs", "-d", "dbname=x user=nobody", &mapping];
    let (status, _, said) = run(&server, &args);
    assert_eq!(status, Some(0), "{said}");
    for line in ["waiting for the server's checkpoint", "created temporary slot \"pgwal_basebackup_", "verifying"] {
        assert!(said.contains(line), "{said}");
    }
    pg_verifybackup(&postgres, &backup, &[]);
    let (backup, space) = (server.dir().join("tars"), server.dir().join("tars_space"));
    let args = ["-F", "t", "-Z", "1", "-R", "--sync-method", "syncfs"];
    let ran = basebackup(&server, &backup, args).env("PGDATABASE", "x").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(backup.join("base.tar.gz").exists() && !space.exists());
    let bytes = fs::read(backup.join("base.tar.gz")).unwrap();
    let mut archive = tar::Archive::new(Compression::Gzip(1).reader(Cursor::new(bytes)).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut auto = entries.find(|entry| entry.path().unwrap() == Path::new("postgresql.auto.conf")).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut auto, &mut text).unwrap();
    assert!(text.contains("primary_conninfo = ") && !text.contains("dbname"), "not before 17: {text}");
}

/// With [`Postgres::all`]: servers of 17 and later are those of `PGWAL_TEST_SERVERS`.
#[test]
fn incremental_backups_are_restored_with_those_before_them() {
    for postgres in Postgres::all().into_iter().filter(|postgres| postgres.major >= 17) {
        let server = postgres.start(&[], &format!("{SETTINGS}\nsummarize_wal = on")).unwrap();
        server.sql("CREATE TABLE t AS SELECT i, repeat('x', 200) x FROM generate_series(1, 20000) i").unwrap();
        let path = |name: &str| server.dir().join(name);
        taken(&server, &path("full"), ["-X", "stream"]);
        server.sql("UPDATE t SET x = 'changed' WHERE i < 500").unwrap();
        let manifest = path("full").join("backup_manifest");
        let said = taken(&server, &path("first"), ["--incremental", manifest.to_str().unwrap()]);
        assert!(said.contains(" of them incremental: "), "{said}");
        assert!(fs::read_to_string(path("first").join("backup_label")).unwrap().contains("INCREMENTAL FROM LSN: "));
        server.sql("DELETE FROM t WHERE i > 19900").unwrap();
        server.sql("CREATE TABLE u AS SELECT generate_series(1, 100) i").unwrap();
        let manifest = path("first").join("backup_manifest");
        let said = taken(&server, &path("tars"), ["-i", manifest.to_str().unwrap(), "-F", "tar", "-X", "fetch", "-z"]);
        assert!(said.contains(" of them incremental: ") && said.contains("its WAL has "), "{said}");
        let args = ["-i", manifest.to_str().unwrap(), "-R"];
        let ran = basebackup(&server, &path("second"), args).env("PGDATABASE", "x").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains("its WAL has "), "{said}");
        let auto = fs::read_to_string(path("second").join("postgresql.auto.conf")).unwrap();
        assert!(auto.contains(" dbname=x'\n"), "{auto}");
        fs::remove_file(path("second").join("standby.signal")).unwrap();

        let combined = path("combined");
        let mut combine = Command::new(postgres.program("pg_combinebackup"));
        let ran = combine.args([path("full"), path("first"), path("second")]).arg("-o").arg(&combined).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let restored = postgres.start_on(&combined, "").unwrap();
        for query in ["SELECT count(*), sum(i), sum(length(x)) FROM t", "SELECT count(*), sum(i) FROM u"] {
            assert_eq!(restored.sql(query).unwrap(), server.sql(query).unwrap());
        }

        // A manifest of another cluster, or none at all.
        let other = postgres.start(&[], &format!("{SETTINGS}\nsummarize_wal = on")).unwrap();
        let refused = |server: &Server, manifest: &Path| {
            let new = server.dir().join("new");
            let ran = basebackup(server, &new, [Path::new("-i"), manifest]).output().unwrap();
            assert!(!ran.status.success() && !new.exists());
            String::from_utf8_lossy(&ran.stderr).into_owned()
        };
        let said = refused(&other, &manifest);
        assert!(said.contains("system identifier in backup manifest is "), "{said}");
        fs::write(path("broken"), fs::read(&manifest).unwrap().split_at(1000).0).unwrap();
        let said = refused(&server, &path("broken"));
        assert!(said.contains("could not parse backup manifest"), "{said}");
        let said = refused(&server, &path("nowhere"));
        assert!(said.contains("could not open \"") && said.contains("nowhere"), "{said}");

        // A file that is damaged together with its manifest.
        let found = walk(&path("first")).into_iter().find(|path| path.to_string_lossy().contains("INCREMENTAL.")).unwrap();
        let mut bytes = fs::read(&found).unwrap();
        bytes[0] ^= 1;
        fs::write(&found, bytes).unwrap();
        let mut verify = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        let ran = verify.args(["basebackup", "--verify-only", "-D"]).arg(path("first")).output().unwrap();
        assert!(String::from_utf8_lossy(&ran.stderr).contains(" has been changed"), "{ran:?}");
    }
}

/// All files below a directory.
fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.flat_map(|entry| if entry.file_type().unwrap().is_dir() { walk(&entry.path()) } else { vec![entry.path()] }).collect()
}
