//! `pgwal slot` with real servers.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};

use pgwal_testkit::server::{Postgres, Server, wait_until};
use serde_json::{Value, json};

const SETTINGS: &str = "wal_level = logical\nmax_wal_senders = 10\nmax_replication_slots = 10\nautovacuum = off";

fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    command.arg("slot").args(args).args(["-d", &format!("host={} user=postgres", server.socket().display())]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit status, standard output, standard error.
fn slot(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    let ran = command(server, args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
}

/// The rows of the list.
fn list(server: &Server) -> Vec<Value> {
    let (status, out, err) = slot(server, &["list", "--format", "json"]);
    assert_eq!((status, err.as_str()), (Some(0), ""));
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn slots_of_every_major() {
    let servers = Postgres::all();
    if servers.is_empty() {
        Postgres::find_or_skip(None, "slot::slots_of_every_major");
        return;
    }
    for postgres in servers {
        slots_of(&postgres);
    }
}

/// The first value that a query answers; not every server comes with psql.
fn sql(server: &Server, sql: &str) -> String {
    let mut config = postgres::Config::new();
    let mut client = config.host(server.socket().to_str().unwrap()).user("postgres").connect(postgres::NoTls).unwrap();
    for message in client.simple_query(sql).unwrap() {
        if let postgres::SimpleQueryMessage::Row(row) = message {
            return row.get(0).unwrap_or_default().to_owned();
        }
    }
    String::new()
}

fn slots_of(postgres: &Postgres) {
    let major = postgres.major;
    let server = postgres.start(&[], SETTINGS).unwrap_or_else(|e| panic!("{major}: {e}"));
    let (status, out, _) = slot(&server, &["list"]);
    assert_eq!((status, out.as_str()), (Some(0), "No replication slots\n"), "{major}");

    let (status, out, err) = slot(&server, &["create", "archive"]);
    let restart = sql(&server, "SELECT restart_lsn FROM pg_replication_slots").parse::<pgwal::Lsn>().unwrap();
    let created = format!("replication slot \"archive\" created: WAL is kept from {restart} on\n");
    assert_eq!((status, out, err.as_str()), (Some(0), created, ""), "{major}");
    let (status, out, err) = slot(&server, &["create", "archive"]);
    assert_eq!((status, out.as_str(), err.as_str()), (Some(1), "", "pgwal: replication slot \"archive\" already exists\n"), "{major}");
    let (status, out, _) = slot(&server, &["create", "archive", "--if-not-exists"]);
    let there = format!("replication slot \"archive\" is there already: WAL is kept from {restart} on\n");
    assert_eq!((status, out), (Some(0), there), "{major}");
    let (status, _, err) = slot(&server, &["create", "Bad Name"]);
    assert!(status == Some(1) && err.contains("invalid character"), "{major}: {err}");

    sql(&server, "SELECT pg_create_physical_replication_slot('unused')");
    sql(&server, "SELECT pg_switch_wal()");
    let sql = "SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = 'archive'";
    let lag: u64 = self::sql(&server, sql).parse().unwrap();
    let rows = list(&server);
    let later: u64 = self::sql(&server, sql).parse().unwrap();
    assert_eq!(rows.len(), 2, "{major}");
    let (archive, unused) = (&rows[0], &rows[1]);
    assert_eq!(archive["restart_lsn"], json!(restart.to_string()), "{major}");
    assert_eq!(
        (&archive["type"], &archive["active"], &archive["temporary"]),
        (&json!("physical"), &json!(false), &json!(false)),
        "{major}"
    );
    assert_eq!((archive["name"].as_str(), unused["name"].as_str()), (Some("archive"), Some("unused")), "{major}");
    // The server itself writes now and then.
    let found = archive["lag"].as_u64().unwrap();
    assert!((lag..=later).contains(&found), "{major}: {found}, {lag} to {later}");
    assert!(archive["pinned"].as_u64().unwrap() >= found, "{major}: {archive}");
    assert!(unused["restart_lsn"].is_null() && unused["lag"].is_null() && unused["pinned"].is_null(), "{major}: {unused}");
    assert_eq!(archive["wal_status"].is_string(), major >= 13, "{major}: {archive}");
    assert_eq!(archive["inactive_since"].is_string(), major >= 17, "{major}: {archive}");
    assert!(archive["plugin"].is_null() && archive["database"].is_null() && archive["invalidation_reason"].is_null(), "{major}: {archive}");
    let (status, out, _) = slot(&server, &["list"]);
    assert!(status == Some(0) && out.starts_with("Replication slots\n") && out.contains("archive"), "{major}: {out}");
    let (_, out, _) = slot(&server, &["list", "--format", "csv"]);
    assert_eq!(out.lines().count(), 3, "{major}: {out}");

    for name in ["archive", "unused"] {
        let (status, out, err) = slot(&server, &["drop", name]);
        assert_eq!((status, out, err.as_str()), (Some(0), format!("replication slot \"{name}\" dropped\n"), ""), "{major}");
    }
    let (status, _, err) = slot(&server, &["drop", "archive"]);
    assert_eq!((status, err.as_str()), (Some(1), "pgwal: replication slot \"archive\" does not exist\n"), "{major}");
    let (status, out, _) = slot(&server, &["drop", "archive", "--if-exists"]);
    assert_eq!((status, out.as_str()), (Some(0), "replication slot \"archive\" is not there\n"), "{major}");
    assert!(list(&server).is_empty(), "{major}");
}

#[test]
fn a_slot_in_use() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "slot::a_slot_in_use") else { return };
    let server = postgres.start(&[], SETTINGS).unwrap();
    assert_eq!(slot(&server, &["create", "s"]).0, Some(0));
    let dir = tempfile::tempdir().unwrap();
    let mut receiver = Command::new(env!("CARGO_BIN_EXE_pgwal"))
        .args(["receive", "-q", "-S", "s", "-D"])
        .arg(dir.path())
        .args(["-d", &format!("host={} user=postgres", server.socket().display())])
        .spawn()
        .unwrap();
    let mut pid = String::new();
    wait_until("the slot is in use", || {
        pid = server.sql("SELECT active_pid FROM pg_replication_slots WHERE active").unwrap();
        !pid.is_empty()
    });
    let rows = list(&server);
    assert_eq!((&rows[0]["active"], rows[0]["active_pid"].to_string()), (&json!(true), pid.clone()));
    let (status, _, err) = slot(&server, &["drop", "s"]);
    let said = format!("pgwal: replication slot \"s\" is in use by the server's process {pid}; --wait waits until it is not\n");
    assert_eq!((status, err), (Some(1), said));

    let mut waiting = command(&server, &["drop", "s", "--wait"]).spawn().unwrap();
    wait_until("it waits", || server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ReplicationSlotDrop'").unwrap() == "1");
    assert!(waiting.try_wait().unwrap().is_none(), "it waits");
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    let ran = waiting.wait_with_output().unwrap();
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), &b"replication slot \"s\" dropped\n"[..]));
    assert!(list(&server).is_empty());
}

/// Logical slots, a standby's slots, and what a server takes from a slot that is too far behind.
#[test]
fn slots_that_are_not_ordinary() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "slot::slots_that_are_not_ordinary") else { return };
    let server = postgres.start(&["--wal-segsize=1"], &format!("{SETTINGS}\nmin_wal_size = 2MB\nmax_wal_size = 2MB")).unwrap();
    server.sql("SELECT pg_create_logical_replication_slot('decoded', 'pgoutput')").unwrap();
    let rows = list(&server);
    let decoded = &rows[0];
    assert_eq!((&decoded["type"], &decoded["plugin"], &decoded["database"]), (&json!("logical"), &json!("pgoutput"), &json!("postgres")));
    assert!(decoded["confirmed_flush_lsn"].is_string(), "{decoded}");

    let standby = server.standby().unwrap();
    assert_eq!(slot(&standby, &["create", "cascade"]).0, Some(0));
    let rows = list(&standby);
    assert!(rows[0]["lag"].is_u64() && rows[0]["pinned"].is_u64(), "{}", rows[0]);
    assert_eq!(slot(&standby, &["drop", "cascade"]).0, Some(0));

    assert_eq!(slot(&server, &["create", "slow"]).0, Some(0));
    server.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").unwrap();
    server.reload().unwrap();
    server.sql("CREATE TABLE t (x text)").unwrap();
    for _ in 0..6 {
        server.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 2000)").unwrap();
        server.sql("SELECT pg_switch_wal()").unwrap();
    }
    server.sql("CHECKPOINT").unwrap();
    let rows = list(&server);
    let slow = rows.iter().find(|row| row["name"] == "slow").unwrap();
    assert_eq!(slow["wal_status"], json!("lost"), "{slow}");
    assert!(slow["pinned"].is_null(), "{slow}");
}

#[test]
fn no_server_and_wrong_options() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_pgwal")).arg("slot").args(args).output().unwrap();
    for args in [&["list"][..], &["create", "s"], &["drop", "s"]] {
        let ran = run(&[args, &["-d", "host=/nowhere user=x"]].concat());
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.code() == Some(1) && said.contains("/nowhere"), "{args:?}: {said}");
    }
    assert_eq!(run(&["create"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}
