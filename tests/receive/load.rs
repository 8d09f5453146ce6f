//! Under load: beside pg_receivewal, and killed again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use postgres::NoTls;

use super::*;

/// For as many seconds as `PGWAL_TEST_SECONDS` says; it was run with 60.
#[test]
fn beside_pg_receivewal_all_files_are_equal() {
    let Some((postgres, server)) = server("receive, load", "wal_keep_size = 8GB\nmax_wal_size = 8GB\nsynchronous_commit = off") else {
        return;
    };
    let seconds = number("PGWAL_TEST_SECONDS", 4).to_string();
    server.client("pgbench", ["-i", "-s", "2", "-q", "postgres"]).unwrap();
    server.sql("SELECT pg_switch_wal()").unwrap();
    let theirs = TempDir::new().unwrap();
    let mut command = Command::new(postgres.program("pg_receivewal"));
    command.arg("-D").arg(theirs.path()).args(["-U", "postgres", "-h"]).arg(server.socket());
    let pg_receivewal = Running::start(command);
    let ours = [("none", ""), ("gzip:1", ".gz"), ("lz4", ".lz4"), ("zstd", ".zst")].map(|(method, suffix)| {
        let dir = TempDir::new().unwrap();
        let running = Running::start(receive(&server, dir.path(), ["-Z", method, "--status-interval=1"]));
        (dir, suffix, running)
    });
    wait_for_streams(&server, 5);
    server.client("pgbench", ["-n", "-c", "4", "-T", &seconds, "postgres"]).unwrap();
    // However slow the machine is, there are some segments.
    server.sql("UPDATE pgbench_accounts SET abalance = 1 WHERE aid <= 30000").unwrap();
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("pg_receivewal", || theirs.path().join(&end).exists());
    let expected = finished(theirs.path());
    assert!(expected.len() > 4, "{expected:?}");
    for (dir, suffix, running) in ours {
        wait_until(suffix, || dir.path().join(format!("{end}{suffix}")).exists());
        let (status, said) = running.stop_by("-TERM");
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(finished(dir.path()), expected, "{suffix}");
        for name in &expected {
            let found = pgwal::Segment::open(dir.path().join(format!("{name}{suffix}"))).unwrap();
            assert!(found.bytes() == fs::read(theirs.path().join(name)).unwrap(), "{name}{suffix}");
        }
        if suffix.is_empty() {
            assert_eq!(same_as_the_server(&server, dir.path()), expected.len());
        }
        verified(dir.path());
    }
    pg_receivewal.stop_by("-INT");
    eprintln!("{} segments, the same five times", expected.len());
}

/// Kills as many times as `PGWAL_TEST_KILLS` says; it was run with 100.
#[test]
fn no_commit_that_was_acknowledged_is_absent() {
    let settings = "synchronous_standby_names = 'pgwal'\nmax_wal_size = 1GB";
    let Some((postgres, server)) = server("receive, acknowledged commits", settings) else { return };
    let kills = number("PGWAL_TEST_KILLS", 8);
    let dir = TempDir::new().unwrap();
    let args = ["-S", "s", "--create-slot", "--if-not-exists", "--synchronous"];
    let mut running = Running::start(receive(&server, dir.path(), args));
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let backup = server.dir().join("backup");
    server
        .client("pg_basebackup", ["-X".as_ref(), "none".as_ref(), "-c".as_ref(), "fast".as_ref(), "-D".as_ref(), backup.as_os_str()])
        .unwrap();

    // Rows 1, 2, 3, …: each commits before the next one.
    let (committed, enough) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicBool::new(false)));
    let (config, counted, stop) =
        (format!("host={} user=postgres", server.socket().display()), Arc::clone(&committed), Arc::clone(&enough));
    let client = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&config, NoTls).unwrap();
        let insert = client.prepare("INSERT INTO t VALUES ($1, repeat('x', 500))").unwrap();
        for row in 1.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            client.execute(&insert, &[&row]).unwrap();
            counted.store(row, Ordering::Relaxed);
        }
    });
    let mut random = Random(0x5EED);
    for round in 0..kills {
        let before = committed.load(Ordering::Relaxed);
        if round % 4 > 0 {
            // One may have been acknowledged already when the receiver before was killed.
            wait_until("a commit", || committed.load(Ordering::Relaxed) > before + 1);
        }
        std::thread::sleep(Duration::from_millis(random.below(120)));
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        running = Running::start(receive(&server, dir.path(), args));
    }
    let before = committed.load(Ordering::Relaxed);
    wait_until("a commit", || committed.load(Ordering::Relaxed) > before);
    enough.store(true, Ordering::Relaxed);
    client.join().unwrap();
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    server.control("stop -m immediate").unwrap();

    let archive = server.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let copy = archive.join(name.trim_end_matches(".partial"));
        assert!(!copy.exists(), "{name}");
        fs::copy(&path, &copy).unwrap();
        assert!(Command::new("chmod").arg("644").arg(&copy).status().unwrap().success());
    }
    assert!(Command::new("chmod").arg("755").arg(&archive).status().unwrap().success());
    let settings = format!("synchronous_standby_names = ''\nrestore_command = 'cp {}/%f %p'", archive.display());
    let recovered = postgres.recover(&backup, &settings).unwrap();
    wait_until("recovery", || recovered.sql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f"));
    let committed = committed.load(Ordering::Relaxed);
    let found = recovered.sql(&format!("SELECT count(DISTINCT i) FROM t WHERE i BETWEEN 1 AND {committed}")).unwrap();
    assert_eq!(found, committed.to_string());
    assert!(u64::try_from(committed).unwrap() > kills, "{committed}");
    eprintln!("{committed} commits acknowledged, all there after {kills} kills");
}

#[test]
fn it_goes_on_when_the_server_crashes() {
    let Some((_, server)) = server("receive, crashes", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    let running = Running::start(receive(&server, dir.path(), ["-S", "s", "--create-slot"]));
    running.wait_for_start();
    let mut random = Random(7);
    for _ in 0..3 {
        let before = server.sql("SELECT pg_current_wal_lsn()").unwrap();
        let load = std::thread::scope(|scope| {
            // It ends with the server.
            let load = scope.spawn(|| server.sql("INSERT INTO t SELECT i, repeat('x', 1500) FROM generate_series(1, 1000000) i"));
            let written = format!("SELECT pg_current_wal_lsn() > '{before}'::pg_lsn + 3000000");
            wait_until("some segments", || server.sql(&written).unwrap() == "t");
            // Then at any moment.
            std::thread::sleep(Duration::from_millis(random.below(300)));
            server.control("stop -m immediate").unwrap();
            load.join().unwrap()
        });
        assert!(load.is_err());
        server.control("start").unwrap();
    }
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the last segment", || dir.path().join(&end).exists());
    let (status, said) = running.stop_by("-INT");
    assert_eq!(status, Some(0), "{said}");
    assert!(same_as_the_server(&server, dir.path()) > 3, "{said}");
    verified(dir.path());
}
