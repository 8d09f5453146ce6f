//! A real failover: the standby is promoted, and the primary goes on writing.

use std::path::Path;
use std::process::Command;

use pgwal::Lsn;
use pgwal_testkit::server::{Postgres, Server, wait_until};
use serde_json::Value;

use crate::{diff, run};

/// The record at `lsn`, as the real pg_waldump prints it.
fn real_record(postgres: &Postgres, wal: &Path, timeline: u32, lsn: Lsn) -> String {
    let args = ["-p".as_ref(), wal.as_os_str(), "-t".as_ref(), timeline.to_string().as_ref(), "-s".as_ref(), lsn.to_string().as_ref()]
        .map(std::ffi::OsStr::to_owned);
    let output = Command::new(postgres.program("pg_waldump")).args(args).args(["-n", "1"]).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
}

fn insert(server: &Server, from: u32, to: u32) {
    server.sql(&format!("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series({from}, {to}) i")).expect("an insert");
}

#[test]
fn a_primary_that_went_on_writing() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "live::a_primary_that_went_on_writing") else { return };
    let settings = "wal_keep_size = 1GB\nautovacuum = off\nmax_wal_size = 1GB";
    let primary = postgres.start(&["--wal-segsize=1"], settings).expect("a server");
    primary.sql("CREATE TABLE t(i int PRIMARY KEY, txt text)").unwrap();
    insert(&primary, 1, 5000);
    let standby = primary.standby().expect("a standby");
    insert(&primary, 5001, 20000);
    let last = primary.sql("SELECT pg_current_wal_lsn()").unwrap();
    wait_until("replay", || standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{last}'")).unwrap() == "t");
    let compare = |args: &[&str]| {
        let (a, b) = (primary.wal(), standby.wal());
        run(&mut diff(Path::new("/"), [a.as_os_str(), b.as_os_str()].into_iter().chain(args.iter().map(std::ffi::OsStr::new))))
    };
    standby.control("promote").expect("a promotion");
    wait_until("promotion", || standby.sql("SELECT pg_is_in_recovery()").unwrap() == "f");
    // Both sides write, also more than a segment.
    primary.sql("DELETE FROM t WHERE i <= 100").unwrap();
    insert(&primary, 100_001, 110_000);
    standby.sql("CREATE TABLE u(i int)").unwrap();
    insert(&standby, 200_001, 230_000);
    primary.sql("CHECKPOINT").unwrap();
    standby.sql("CHECKPOINT").unwrap();

    let history = std::fs::read_to_string(standby.wal().join("00000002.history")).expect("a history file");
    let switch: Lsn = history.split_whitespace().nth(1).unwrap().parse().unwrap();
    let (status, out, err) = compare(&["--overlap"]);
    assert_eq!((status, err.as_str()), (1, ""), "{out}");
    let file = standby.wal().join("00000002.history");
    let (a, b) = (real_record(&postgres, &primary.wal(), 1, switch), real_record(&postgres, &standby.wal(), 2, switch));
    let lsn = |line: &str| -> Lsn { line.split_once("lsn: ").and_then(|(_, rest)| rest.split(',').next()?.parse().ok()).unwrap() };
    assert_eq!(lsn(&a), lsn(&b));
    for expected in [
        format!("\ndiverging at {}, where timeline 1 was left by {}\n", lsn(&a), file.display()),
        format!("\n  first of A (timeline 1): {a}\n"),
        format!("\n  first of B (timeline 2): {b}\n"),
        format!("\n@@ {} @@\n", lsn(&a)),
        format!("\n-{a}\n"),
        format!("\n+{b}\n"),
    ] {
        assert!(out.contains(&expected), "{expected}{out}");
    }
    let (status, out, _) = compare(&["--format", "json", "--limit", "0", "-U1"]);
    assert_eq!(status, 1);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    let parting = &last["parting"];
    assert_eq!((&last["verdict"], &parting["switch"]["agrees"]), (&"diverging".into(), &true.into()), "{last}");
    assert_eq!(parting["at"].as_str().and_then(|at| at.parse().ok()), Some(lsn(&a)));
    assert_eq!(parting["last_common"]["end"].as_str().and_then(|end| end.parse().ok()), Some(switch));
    assert_eq!((&parting["timelines"]["a"], &parting["timelines"]["b"], &parting["meets_at"]), (&1.into(), &2.into(), &Value::Null));
    // What the old primary would lose: one transaction that deletes, and one that inserts.
    let lost = &last["sides"]["a"]["only"];
    assert_eq!(lost["commits"], 2, "{lost}");
    assert!(lost["changes"].as_u64() > Some(10_100), "{lost}");
    let only = |side: &str| lines.iter().filter(|line| line["event"] == "changed" || line["side"] == side).count() as u64;
    assert_eq!(lost["records"].as_u64(), Some(only("a")));
    assert_eq!(last["sides"]["b"]["only"]["records"].as_u64(), Some(only("b")));
    assert!(last["sides"]["a"]["damage"].as_array().unwrap().is_empty() && last["sides"]["b"]["damage"].as_array().unwrap().is_empty());
}
