//! `pgwal receive` with real servers.
#![cfg(target_os = "linux")]

mod damage;
mod durable;
mod files;
mod load;
mod locks;
mod majors;
mod named;
mod network;
mod proxy;
mod refused;
mod stalls;

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pgwal_testkit::server::{HeldPort, PATIENCE, Postgres, Server, wait_until};
use tempfile::TempDir;

const SETTINGS: &str = "wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10\nwal_keep_size = 2GB\nautovacuum = off";

/// A server with small segments, so that there are many.
fn server(test: &str, settings: &str) -> Option<(Postgres, Server)> {
    let postgres = Postgres::find_or_skip(Some(15), test)?;
    let server = postgres.start(&["--wal-segsize=1"], &format!("{SETTINGS}\nmin_wal_size = 2MB\n{settings}")).unwrap();
    Some((postgres, server))
}

fn conninfo(server: &Server) -> String {
    format!("host={} user=postgres application_name=pgwal", server.socket().display())
}

/// `pgwal receive` from `server` into `dir`.
fn receive<S: AsRef<OsStr>>(server: &Server, dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
    receive_from(&conninfo(server), dir, args)
}

/// `pgwal receive` from where `conninfo` says into `dir`.
fn receive_from<S: AsRef<OsStr>>(conninfo: &str, dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    command.args(["receive", "-D"]).arg(dir).args(["-d", conninfo]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A receiver that runs, and what it says.
struct Running {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = command.stderr(log.reopen().unwrap()).stdout(File::create("/dev/null").unwrap()).spawn().unwrap();
        Running { child, log }
    }

    /// What it has said up to now.
    fn said(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Waits until it has said this, and the rest of the line.
    #[track_caller]
    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        // A line may come in pieces.
        while !self.said().split_once(text).is_some_and(|(_, rest)| rest.contains('\n')) {
            assert!(start.elapsed() < PATIENCE, "no \"{text}\" within {PATIENCE:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it knows from where on it receives: what the server writes from now on will be received.
    #[track_caller]
    fn wait_for_start(&self) {
        self.wait_for("starting at ");
    }

    /// Waits for its end: its status, and what it said.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < PATIENCE, "it does not end: {}", self.said()),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        (status.code(), self.said())
    }

    /// Sends a signal, and waits for the end.
    #[track_caller]
    fn stop_by(self, name: &str) -> (Option<i32>, String) {
        signal(&self.child, name);
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A number that a variable gives, for runs that are longer than usual.
fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Names of the whole segments in `dir`, without what compression adds.
fn finished(dir: &Path) -> std::collections::BTreeSet<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".partial")).filter_map(|name| Some(name.get(..24)?.to_owned())).collect()
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Tells it to stop; what it came to.
fn stop(child: Child) -> Output {
    signal(&child, "-INT");
    child.wait_with_output().unwrap()
}

fn work(server: &Server, rows: u32) {
    server.sql(&format!("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, {rows}) i")).unwrap();
}

/// The whole segments in `dir`, decompressed, hold what the server's files of these names do; how many they are.
fn same_as_the_server(server: &Server, dir: &Path) -> usize {
    let mut compared = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(segment) = name.get(..24).filter(|_| !name.ends_with(".partial")) else { continue };
        let Ok(expected) = fs::read(server.wal().join(segment)) else { continue };
        let found = pgwal::Segment::open(&path).unwrap();
        assert!(found.bytes() == expected, "{name}");
        compared += 1;
    }
    compared
}

/// The server has everything up to here acknowledged as written by the receiver.
fn caught_up(server: &Server) -> bool {
    let behind = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pgwal' AND write_lsn >= pg_current_wal_flush_lsn()";
    server.sql(behind).unwrap() == "1"
}

/// Waits until so many clients stream from the server: what it writes from now on, they all receive.
#[track_caller]
fn wait_for_streams(server: &Server, count: usize) {
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    wait_until("streaming", || server.sql(streams).unwrap() == count.to_string());
}

#[track_caller]
fn verified(dir: &Path) {
    let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).arg("verify").arg(dir).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn finished_files_are_the_servers_own_in_every_compression() {
    let Some((_, server)) = server("receive", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dirs: Vec<(&str, TempDir)> = ["none", "gzip", "lz4", "zstd:5"].map(|method| (method, TempDir::new().unwrap())).into();
    let children: Vec<Child> =
        dirs.iter().map(|(method, dir)| receive(&server, dir.path(), ["-Z", method, "--status-interval=1"]).spawn().unwrap()).collect();
    wait_for_streams(&server, dirs.len());
    for _ in 0..8 {
        work(&server, 4000);
    }
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    for (method, dir) in &dirs {
        let suffix = match *method {
            "gzip" => ".gz",
            "lz4" => ".lz4",
            "zstd:5" => ".zst",
            _ => "",
        };
        wait_until(method, || dir.path().join(format!("{end}{suffix}")).exists());
    }
    for child in children {
        let ran = stop(child);
        assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    for (method, dir) in &dirs {
        assert!(same_as_the_server(&server, dir.path()) > 6, "{method}");
        verified(dir.path());
    }
}

/// As often as `PGWAL_TEST_KILLS` says; it was run with 100.
#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let Some((_, server)) = server("receive, killed", "") else { return };
    let kills: u32 = std::env::var("PGWAL_TEST_KILLS").map_or(8, |text| text.parse().unwrap());
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    for round in 0..kills {
        let mut child = receive(&server, dir.path(), ["-S", "s", "--create-slot", "--if-not-exists", "--quiet"]).spawn().unwrap();
        // Sometimes also while it starts; but the first time it gets as far as making the slot.
        if round % 4 < 3 {
            wait_for_streams(&server, 1);
        }
        work(&server, 2000);
        std::thread::sleep(Duration::from_millis(u64::from(round * 37 % 150)));
        assert!(child.try_wait().unwrap().is_none(), "it goes on until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let child = receive(&server, dir.path(), ["-S", "s", "--synchronous"]).spawn().unwrap();
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the last segment", || dir.path().join(&end).exists());
    assert_eq!(stop(child).status.code(), Some(0));
    assert!(same_as_the_server(&server, dir.path()) > 1);
    verified(dir.path());
}

#[test]
fn commits_wait_for_a_synchronous_receiver_and_go_on() {
    let settings = "synchronous_standby_names = 'pgwal'";
    let Some((_, server)) = server("receive, synchronous", settings) else { return };
    let dir = TempDir::new().unwrap();
    let child = receive(&server, dir.path(), ["--synchronous"]).spawn().unwrap();
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let state = "SELECT sync_state FROM pg_stat_replication";
    let flushed = "SELECT flush_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication";
    for _ in 0..20 {
        // That this comes back says that the commit was acknowledged.
        work(&server, 10);
        assert_eq!(server.sql(state).unwrap(), "sync");
        // The server writes something of its own now and then.
        wait_until("what the server has flushed", || server.sql(flushed).unwrap() == "t");
    }
    assert_eq!(stop(child).status.code(), Some(0));
}

#[test]
fn it_goes_on_when_the_server_is_restarted() {
    let Some((_, server)) = server("receive, restart", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    let child = receive(&server, dir.path(), ["-S", "s", "--create-slot"]).spawn().unwrap();
    wait_for_streams(&server, 1);
    work(&server, 5000);
    wait_until("the receiver", || caught_up(&server));
    server.control("stop").unwrap();
    server.control("start").unwrap();
    work(&server, 5000);
    wait_until("the receiver after the restart", || caught_up(&server));
    let ran = stop(child);
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("trying again in "), "{stderr}");
    assert!(same_as_the_server(&server, dir.path()) > 1);
    verified(dir.path());
}

#[test]
fn it_follows_a_promoted_standby_to_its_timeline() {
    let Some((_, primary)) = server("receive, promotion", "") else { return };
    primary.sql("CREATE TABLE t (i int, x text)").unwrap();
    work(&primary, 3000);
    let standby = primary.standby().unwrap();
    let dir = TempDir::new().unwrap();
    let child = receive(&standby, dir.path(), ["--status-interval=1"]).spawn().unwrap();
    wait_for_streams(&standby, 1);
    work(&primary, 3000);
    wait_until("the standby", || {
        let at = primary.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
        standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{at}'")).unwrap() == "t"
    });
    primary.control("stop").unwrap();
    standby.sql("SELECT pg_promote()").unwrap();
    wait_until("the promotion", || standby.sql("SELECT pg_is_in_recovery()").unwrap() == "f");
    work(&standby, 5000);
    let end = standby.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    assert!(end.starts_with("00000002"), "{end}");
    wait_until("the segment on timeline 2", || dir.path().join(&end).exists());
    let ran = stop(child);
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("timeline 1 ended at ") && stderr.contains("going on with timeline 2"), "{stderr}");
    assert!(dir.path().join("00000002.history").exists());
    assert!(same_as_the_server(&standby, dir.path()) > 1);
    verified(dir.path());
}

/// What a standby has of a record that is not whole is not acknowledged, and yet the standby can be shut down.
#[test]
fn a_standby_whose_wal_ends_within_a_record_can_be_shut_down() {
    let Some((_, primary)) = server("receive, a standby's end", "") else { return };
    let standby = primary.standby().unwrap();
    let dir = TempDir::new().unwrap();
    let child = receive(&standby, dir.path(), ["-S", "s", "--create-slot", "--status-interval=1"]).spawn().unwrap();
    // Rolled back, so that nothing waits for its end, and the server writes out what pages are full.
    let large = "BEGIN; SELECT pg_logical_emit_message(false, 'x', repeat('a', 30000)); ROLLBACK";
    let on_page =
        "SELECT mod(pg_last_wal_receive_lsn() - '0/0'::pg_lsn, 8192) = 0 AND pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()";
    wait_until("an end within a record", || {
        primary.sql(large).unwrap();
        let found = (0..20).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            standby.sql(on_page).unwrap() == "t"
        });
        if !found {
            return false;
        }
        // Now nobody writes the rest, unless the server has done so just before it stopped.
        primary.control("stop -m immediate").unwrap();
        let stays = standby.sql(on_page).unwrap() == "t";
        if !stays {
            primary.control("start").unwrap();
        }
        stays
    });
    wait_until("the receiver", || {
        let sent = "SELECT write_lsn = pg_last_wal_receive_lsn() AND flush_lsn <= write_lsn FROM pg_stat_replication";
        standby.sql(sent).unwrap() == "t"
    });
    standby.control("stop -m fast").unwrap();
    assert_eq!(stop(child).status.code(), Some(0));
}

#[test]
fn what_cannot_be_done_is_said() {
    let Some((_, server)) = server("receive, errors", "wal_keep_size = 0") else { return };
    let dir = TempDir::new().unwrap();
    let said = |args: &[&str]| {
        let ran = receive(&server, dir.path(), args.iter().copied().chain(["--no-loop"])).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (status, stderr) = said(&["-S", "nobody"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("replication slot \"nobody\" does not exist"), "{stderr}");

    // WAL that the server has removed: a segment of long ago is there, and what follows it is not.
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let first = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    fs::copy(server.wal().join(&first), dir.path().join(&first)).unwrap();
    for _ in 0..6 {
        work(&server, 4000);
        server.sql("SELECT pg_switch_wal()").unwrap();
        server.sql("CHECKPOINT").unwrap();
    }
    let (status, stderr) = said(&[]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("has already been removed") && stderr.contains("there would be a gap"), "{stderr}");
    // The gap is named: from the end of what is here to the oldest that the server has.
    let gap = || {
        let oldest = server.sql("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'").unwrap();
        let number = |name: &str| u64::from_str_radix(&name[16..], 16).unwrap();
        let (from, to) = (number(&first) + 1, number(&oldest));
        let (start, end) = (pgwal::Lsn(from << 20), pgwal::Lsn(to << 20));
        let segments = format!("segments 0000000100000000{from:08X} to 0000000100000000{:08X}", to - 1);
        format!("there would be a gap from {start} to {end}, {segments} (the oldest that it has is {oldest}). ")
    };
    assert!(stderr.contains(&gap()), "{stderr}, expected {}", gap());

    // A slot that has been lost is no slot any more: that ends it, with the gap.
    server.sql("SELECT pg_create_physical_replication_slot('late', true)").unwrap();
    server.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").unwrap();
    server.control("reload").unwrap();
    wait_until("the loss of the slot", || {
        work(&server, 8000);
        server.sql("CHECKPOINT").unwrap();
        server.sql("SELECT wal_status FROM pg_replication_slots").unwrap() == "lost"
    });
    let (status, stderr) = Running::start(receive(&server, dir.path(), ["-S", "late"])).end();
    assert_eq!(status, Some(1), "{stderr}");
    let lost = "\nslot \"late\" is lost: the server keeps no WAL for it any more. Drop it and create it again\n";
    assert!(stderr.contains(lost) && stderr.contains(&gap()) && !stderr.contains("trying again"), "{stderr}, expected {}", gap());

    let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(["receive", "-D", "/nowhere/at/all", "-d", "host=/nowhere"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "pgwal: /nowhere/at/all: does not exist\n");
    let ran = receive(&server, dir.path(), ["-d", "hots=x"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(2), "an option given twice");
    let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(["receive", "-d", "hots=x", "-D"]).arg(dir.path()).output().unwrap();
    assert_eq!((ran.status.code(), String::from_utf8_lossy(&ran.stderr).contains("invalid connection option \"hots\"")), (Some(1), true));
}

#[test]
fn slots_are_created_and_dropped() {
    let Some((_, server)) = server("receive, slots", "") else { return };
    let slot = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        let ran = command.args(["receive", "-d", &conninfo(&server), "-S", "s"]).args(args).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    assert_eq!(slot(&["--create-slot"]), (Some(0), String::new()));
    let reserved = "SELECT slot_type || ' ' || (restart_lsn IS NOT NULL) FROM pg_replication_slots WHERE slot_name = 's'";
    assert_eq!(server.sql(reserved).unwrap(), "physical true");
    let (status, stderr) = slot(&["--create-slot"]);
    assert_eq!((status, stderr.contains("already exists")), (Some(1), true), "{stderr}");
    assert_eq!(slot(&["--create-slot", "--if-not-exists"]), (Some(0), String::new()));
    assert_eq!(slot(&["--drop-slot"]), (Some(0), String::new()));
    assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0");
}

#[test]
fn live_records_are_those_of_the_files() {
    let Some((_, server)) = server("dump --from", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let start = server.sql("SELECT pg_current_wal_insert_lsn()").unwrap();
    // It starts before there is anything to read, and its end comes while it runs.
    let end = format!("{:X}/{:X}", 0, 0x200_0000);
    for form in ["text", "json"] {
        let pgwal = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
            command.args(["dump", "--format", form, "--start", &start, "--end", &end, "-r", "Heap"]).args(args);
            command
        };
        let live = pgwal(&["--from", &conninfo(&server)]).stdout(Stdio::piped()).spawn().unwrap();
        while server.sql(&format!("SELECT pg_current_wal_flush_lsn() > '{end}'")).unwrap() == "f" {
            work(&server, 4000);
        }
        let ran = live.wait_with_output().unwrap();
        assert_eq!(ran.status.code(), Some(0));
        let files = pgwal(&["-p", server.wal().to_str().unwrap()]).output().unwrap();
        assert!(ran.stdout == files.stdout && ran.stdout.len() > 100_000, "{} and {} bytes", ran.stdout.len(), files.stdout.len());
    }
    assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0", "nothing is left behind");
}

#[test]
fn live_records_are_filtered_and_limited() {
    let Some((_, server)) = server("dump --from, filtered", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let live = Command::new(env!("CARGO_BIN_EXE_pgwal"))
        .args(["dump", "--from", &conninfo(&server), "-r", "Heap", "-n", "5", "-q"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_streams(&server, 1);
    work(&server, 10);
    let ran = live.wait_with_output().unwrap();
    assert_eq!((ran.status.code(), ran.stderr.as_slice()), (Some(0), b"".as_slice()));
    let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(["dump", "--from", "host=/nowhere"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("connection to server on socket \"/nowhere/.s.PGSQL.5432\" failed"), "{stderr}");
}
