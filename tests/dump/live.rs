//! WAL that a server has just written, or is writing.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use pgwal_testkit::server::{PATIENCE, Postgres, Server};

use crate::fixtures::with_any_threads;
use crate::{Ran, dump, run, same_bytes};

/// A bit of everything, so that most resource managers have records.
const MIXED: &str = "
CREATE TABLE t(i int PRIMARY KEY, txt text, doc tsvector, p point);
CREATE INDEX ON t USING hash (txt);
CREATE INDEX ON t USING gin (doc);
CREATE INDEX ON t USING gist (p);
CREATE INDEX ON t USING spgist (txt);
CREATE INDEX ON t USING brin (i);
INSERT INTO t SELECT i, md5(i::text), to_tsvector('simple', 'w' || i % 50 || ' x' || i), point(i, i % 7) FROM generate_series(1, 4000) i;
UPDATE t SET txt = repeat(txt, 3) WHERE i % 3 = 0;
DELETE FROM t WHERE i % 4 = 0;
VACUUM t;
BEGIN; SAVEPOINT a; INSERT INTO t VALUES (-1, 'a'); ROLLBACK TO a; INSERT INTO t VALUES (-2, 'b'); COMMIT;
BEGIN; INSERT INTO t VALUES (-3, 'c'); PREPARE TRANSACTION 'one'; COMMIT PREPARED 'one';
BEGIN; INSERT INTO t VALUES (-4, 'd'); PREPARE TRANSACTION 'two'; ROLLBACK PREPARED 'two';
BEGIN; SELECT * FROM t WHERE i = 1 FOR KEY SHARE; ROLLBACK;
CREATE SEQUENCE s; SELECT nextval('s');
CREATE DATABASE copied STRATEGY file_copy; CREATE DATABASE logged STRATEGY wal_log; DROP DATABASE copied;
SELECT pg_logical_emit_message(true, 'prefix', 'content'); SELECT pg_logical_emit_message(false, 'prefix', 'more');
SELECT pg_create_restore_point('here'); SELECT pg_replication_origin_create('there');
TRUNCATE t; REINDEX TABLE pg_class; DROP TABLE t; CHECKPOINT; SELECT pg_switch_wal();
CREATE TABLE u AS SELECT generate_series(1, 1000) i; VACUUM FULL u; CHECKPOINT;
";

fn server(test: &str) -> Option<(Postgres, Server)> {
    let postgres = Postgres::find_or_skip(Some(15), test)?;
    let settings = "wal_level = logical\nwal_keep_size = 1GB\nmax_prepared_transactions = 5\ntrack_commit_timestamp = on\n\
         wal_compression = lz4\nwal_log_hints = on\nautovacuum = off\nmax_wal_size = 1GB";
    let server = postgres.start(&["--wal-segsize=1"], settings).expect("a server");
    Some((postgres, server))
}

fn each_statement(server: &Server) {
    let statements = MIXED.lines().filter(|line| !line.is_empty());
    for line in statements {
        // Transactions stay together on their line; what refuses to run inside one is alone.
        if let (true, Some((transaction, second_phase))) = (line.contains("PREPARE TRANSACTION"), line.trim_end().rsplit_once("; ")) {
            server.sql(transaction).expect(line);
            server.sql(second_phase).expect(line);
        } else if line.starts_with("BEGIN") {
            server.sql(line).expect(line);
        } else {
            line.split_terminator(';').filter(|sql| !sql.trim().is_empty()).for_each(|sql| drop(server.sql(sql).expect(sql)));
        }
    }
}

fn segments(wal: &Path) -> Vec<String> {
    let names = fs::read_dir(wal).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.len() == 24).collect();
    names.sort();
    names
}

fn real(postgres: &Postgres, dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(postgres.program("pg_waldump"));
    run(command.args(args).current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C").env_remove("PGDATA"))
}

#[test]
fn equal_to_pg_waldump() {
    let Some((postgres, server)) = server("live::equal_to_pg_waldump") else { return };
    let start = server.sql("SELECT pg_current_wal_insert_lsn()").unwrap();
    server.client("pgbench", ["-i", "-s", "2", "-q", "postgres"]).expect("pgbench -i");
    server.client("pgbench", ["-c", "4", "-t", "300", "postgres"]).expect("pgbench");
    each_statement(&server);
    let last = server.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
    server.control("stop -m fast").expect("a shutdown");
    let wal = server.wal();
    let first = segments(&wal).remove(0);
    for options in [&[][..], &["-b"], &["--stats=record"], &["-z"], &["-r", "Heap", "-b"], &["-w"], &["-s", &start]] {
        let args: Vec<&str> = options.iter().copied().chain([first.as_str(), last.as_str()]).collect();
        // The first segment may begin before the start.
        let theirs = real(&postgres, &wal, &args);
        let ours = with_any_threads(&wal, &args);
        same_bytes(&args.join(" "), &ours.stdout, &theirs.stdout);
        assert!(theirs.stdout.len() > 1000, "{args:?}: {}", theirs.stderr);
        assert_eq!(ours.status, 0, "{args:?}: {}", ours.stderr);
    }
    // The data directory, up to the end of the WAL.
    let whole = with_any_threads(server.data(), &[""; 0]);
    let theirs = real(&postgres, &wal, &[&first, &last]);
    same_bytes("the data directory", &whole.stdout, &theirs.stdout);
    assert!(whole.status == 0 && whole.stderr.starts_with("pgwal: the WAL ends at "), "{}", whole.stderr);
}

/// Waits for something to be there, and kills the child if that takes too long.
fn wait_for(child: &mut Child, what: &str, mut there: impl FnMut(&mut Child) -> bool) {
    let start = Instant::now();
    while !there(child) {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("no {what} after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn followed_while_it_grows() {
    let Some((postgres, server)) = server("live::followed_while_it_grows") else { return };
    let wal = server.wal();
    let start = server.sql("SELECT pg_switch_wal(); SELECT pg_walfile_name(pg_current_wal_insert_lsn() + 1)").unwrap();
    let first = start.lines().last().unwrap().to_owned();
    server.sql("CREATE TABLE t(i int, txt text)").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = || fs::read(&out).unwrap();
    let mut child = dump(&wal, ["--follow", &first]).stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    for round in 0..3 {
        // Several segments each time.
        server.sql(&format!("INSERT INTO t SELECT i, repeat('x', 300) FROM generate_series(1, 6000) i; CHECKPOINT; SELECT pg_create_restore_point('round {round}')")).unwrap();
        server.client("pgbench", ["-n", "-f", "/dev/null", "-t", "1", "postgres"]).ok();
        let mark = format!("desc: RESTORE_POINT round {round}");
        wait_for(&mut child, &mark, |child| {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            String::from_utf8_lossy(&output()).contains(&mark)
        });
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    wait_for(&mut child, "end after SIGINT", |child| child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let last = server.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
    let followed = output();
    let theirs = real(&postgres, &wal, &[&first, &last]);
    let seen = theirs.stdout.get(..followed.len()).unwrap_or(&theirs.stdout);
    same_bytes("what was followed", &followed, seen);

    // As many records as were asked for, of which most are still to come.
    let count = theirs.stdout.iter().filter(|&&b| b == b'\n').count() + 500;
    let mut child = dump(&wal, ["--follow", "-n", &count.to_string(), &first]).stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    server.sql("INSERT INTO t SELECT i, 'y' FROM generate_series(1, 1000) i").unwrap();
    wait_for(&mut child, "end after -n", |child| child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(output().iter().filter(|&&b| b == b'\n').count(), count);
}

/// A server that is shut down, and one that is killed: the first is told as that, and the records go on where they stopped.
#[test]
fn a_live_server_that_is_shut_down() {
    let Some((postgres, server)) = server("live::a_live_server_that_is_shut_down") else { return };
    server.sql("CREATE TABLE t(i int)").unwrap();
    let start = server.sql("SELECT pg_switch_wal(); SELECT pg_current_wal_insert_lsn()").unwrap().lines().last().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let conninfo = format!("host={} user=postgres", server.socket().display());
    let follow = |name: &str, options: &[&str]| {
        let file = |what: &str| fs::File::create(dir.path().join(format!("{name}.{what}"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        command.args(["dump", "--from", &conninfo, "--start", &start]).args(options).env("TZ", "UTC");
        command.stdout(file("out")).stderr(file("err")).spawn().unwrap()
    };
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let (mut looping, mut once) = (follow("looping", &[]), follow("once", &["--no-loop"]));
    let mark = |what: &str| {
        server.sql(&format!("INSERT INTO t SELECT generate_series(1, 3000); SELECT pg_create_restore_point('{what}')")).unwrap();
        format!("desc: RESTORE_POINT {what}")
    };
    let first = mark("first");
    for name in ["looping.out", "once.out"] {
        wait_for(&mut looping, &first, |_| read(name).contains(&first));
    }
    server.control("stop -m fast").unwrap();
    wait_for(&mut once, "end of --no-loop", |child| child.try_wait().unwrap().is_some());
    assert_eq!(once.wait().unwrap().code(), Some(0), "{}", read("once.err"));
    assert_eq!(read("once.err"), "pgwal: the server was shut down\n");
    // All that the server had.
    assert!(read("once.out").contains("CHECKPOINT_SHUTDOWN"));
    server.control("start").unwrap();
    let second = mark("second");
    wait_for(&mut looping, &second, |_| read("looping.out").contains(&second));
    // Now the connection breaks.
    server.control("stop -m immediate").unwrap();
    server.control("start").unwrap();
    let third = mark("third");
    wait_for(&mut looping, &third, |_| read("looping.out").contains(&third));
    assert!(Command::new("kill").args(["-INT", &looping.id().to_string()]).status().unwrap().success());
    wait_for(&mut looping, "end after SIGINT", |child| child.try_wait().unwrap().is_some());
    assert_eq!(looping.wait().unwrap().code(), Some(0));
    let stderr = read("looping.err");
    assert!(stderr.starts_with("pgwal: the server was shut down; trying again in 0.5 s\n"), "{stderr}");
    assert!(!stderr.contains("message of type"), "{stderr}");
    // Nothing is missing, and nothing twice.
    let last = server.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
    let first = server.sql(&format!("SELECT pg_walfile_name('{start}')")).unwrap();
    let theirs = real(&postgres, &server.wal(), &["-s", &start, &first, &last]);
    let ours = fs::read(dir.path().join("looping.out")).unwrap();
    let seen = theirs.stdout.get(..ours.len()).unwrap_or(&theirs.stdout);
    same_bytes("what was followed", &ours, seen);
}
