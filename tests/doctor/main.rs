//! `pgwal doctor` with real servers that have real mistakes.
#![cfg(target_os = "linux")]

mod situations;

use std::fs;
use std::process::{Command, Stdio};

use pgwal_testkit::server::{HeldPort, Postgres, Server, give, wait_until};
use serde_json::Value;

/// What the servers of the tests have and a good setup has not.
const GOOD: &str = "listen_addresses = '0.0.0.0'\nfsync = on\nautovacuum = off\nmax_connections = 20\nwal_keep_size = '64MB'";

fn postgres(test: &str) -> Option<Postgres> {
    Postgres::find_or_skip(Some(15), &format!("doctor::{test}"))
}

/// A server of 15 without mistakes but those in `settings`.
fn server(test: &str, settings: &str) -> Option<Server> {
    Some(start(&postgres(test)?, settings))
}

fn start(postgres: &Postgres, settings: &str) -> Server {
    let started = postgres.start_tcp(&["--wal-segsize=1"], &format!("{GOOD}\n{settings}"));
    started.unwrap_or_else(|e| panic!("{}: {e}", postgres.major))
}

/// By its socket, as its superuser.
fn socket(server: &Server) -> String {
    format!("host={} port={} user=postgres dbname=postgres", server.socket().display(), server.port())
}

/// By TCP, as that role.
fn tcp(server: &Server, user: &str) -> String {
    format!("host=127.0.0.1 port={} user={user} dbname=postgres", server.port())
}

/// What came of a run.
struct Ran {
    status: Option<i32>,
    findings: Vec<Value>,
    all: String,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    for variable in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"] {
        command.env_remove(variable);
    }
    command.arg("doctor").args(args).stdin(Stdio::null());
    command
}

#[track_caller]
fn doctor(args: &[&str]) -> Ran {
    let ran = command(&[args, &["--format", "json"]].concat()).env("PGPASSWORD", "from-the-environment").output().unwrap();
    let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    let findings: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let problems = findings.iter().any(|finding| ["error", "warning"].contains(&finding["severity"].as_str().unwrap()));
    // The status says what the findings say, unless there are none.
    assert!(ran.status.code() == Some(2) || ran.status.code() == Some(i32::from(problems)), "{:?}: {out}{err}", ran.status);
    Ran { status: ran.status.code(), findings, all: out + &err }
}

impl Ran {
    /// The findings of a point, worst first.
    fn of(&self, id: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["id"] == id).collect()
    }

    /// A finding of that point and severity, whose text has `part`.
    #[track_caller]
    fn has(&self, severity: &str, id: &str, part: &str) -> &Value {
        let text = |finding: &Value| finding["found"].as_str().unwrap().to_owned();
        let found = self.of(id).into_iter().find(|finding| finding["severity"] == severity && text(finding).contains(part));
        found.unwrap_or_else(|| panic!("no {severity} {id} with {part:?} in\n{}", self.all))
    }

    /// As [`Ran::has`], and the first line to change.
    #[track_caller]
    fn fix(&self, severity: &str, id: &str, part: &str) -> (String, String) {
        let finding = self.has(severity, id, part);
        assert!(!finding["why"].as_str().unwrap().is_empty(), "{finding}");
        let fix = &finding["fix"][0];
        (fix["place"].as_str().unwrap().to_owned(), fix["line"].as_str().unwrap().to_owned())
    }

    /// Ids of what is to be put right.
    fn problems(&self) -> Vec<&str> {
        let is = |finding: &&Value| ["error", "warning"].contains(&finding["severity"].as_str().unwrap());
        self.findings.iter().filter(is).map(|finding| finding["id"].as_str().unwrap()).collect()
    }
}

fn streams(standby: &Server) -> bool {
    standby.sql("SELECT status FROM pg_stat_wal_receiver").is_ok_and(|status| status == "streaming")
}

/// Waits until both sides say so: a moment after the standby does, the primary may still call it behind.
#[track_caller]
fn wait_for_stream(primary: &Server, standby: &Server) {
    wait_until("the standby streams", || streams(standby));
    let streaming = "SELECT coalesce(bool_and(state = 'streaming'), false) FROM pg_stat_replication";
    wait_until("the primary says so", || primary.sql(streaming).unwrap() == "t");
}

/// Adds lines to postgresql.conf, as one does who reads what is to be changed.
fn append(server: &Server, lines: &str) {
    let conf = server.data().join("postgresql.conf");
    fs::write(&conf, fs::read_to_string(&conf).unwrap() + lines + "\n").unwrap();
}

/// Puts a line of the file that `place` names in the place of the one there.
fn replace_line(server: &Server, place: &str, line: &str) {
    let (file, number) = place.rsplit_once(", line ").unwrap();
    let mut lines: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    lines[number.parse::<usize>().unwrap() - 1] = line.to_owned();
    server.put(file.rsplit('/').next().unwrap(), (lines.join("\n") + "\n").as_bytes()).unwrap();
}

fn reload(server: &Server) {
    server.reload().unwrap();
}

/// A primary with a standby that streams through a slot.
fn pair(test: &str, settings: &str) -> Option<(Server, Server)> {
    Some(with_standby(server(test, settings)?))
}

fn with_standby(primary: Server) -> (Server, Server) {
    primary.sql("SELECT pg_create_physical_replication_slot('standby', true)").unwrap();
    let standby = primary.standby().unwrap();
    standby.sql("ALTER SYSTEM SET primary_slot_name = 'standby'").unwrap();
    reload(&standby);
    wait_until("the standby streams by its slot", || primary.sql("SELECT active FROM pg_replication_slots").unwrap() == "t");
    wait_for_stream(&primary, &standby);
    (primary, standby)
}

fn both(primary: &Server, standby: &Server) -> Ran {
    doctor(&["-d", &socket(primary), "--standby", &socket(standby)])
}

#[test]
fn a_good_setup() {
    let Some((primary, standby)) = pair("a_good_setup", "") else { return };
    wait_until("the standby has what there is", || {
        primary.sql("SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication").unwrap() == "t"
    });
    let ran = both(&primary, &standby);
    assert_eq!((ran.status, ran.problems()), (Some(0), vec![]), "{}", ran.all);
    assert!(!ran.all.contains("skipped"), "{}", ran.all);
    let ok = [
        "wal-level",
        "max-wal-senders",
        "max-replication-slots",
        "role-replication",
        "hba-replication",
        "replication-connection",
        "listen-addresses",
        "slots",
        "wal-keep",
        "synchronous-standbys",
        "standby-lag",
        "hot-standby",
        "fsync",
        "full-page-writes",
        "in-recovery",
        "system-identifier",
        "timeline",
        "wal-receiver",
        "primary-conninfo",
        "primary-slot",
        "recovery-paused",
        "standby-settings",
    ];
    for id in ok {
        ran.has("ok", id, "");
    }
    ran.has("note", "archive", "archive_mode is off");
    ran.has("note", "max-slot-wal-keep-size", "-1");
    let text = command(&["-d", &socket(&primary), "-s", &socket(&standby)]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("ok       wal-level: primary: wal_level is replica\n"), "{text}");
    assert!(text.lines().last().unwrap().contains(" notes, ") && text.ends_with(" ok\n"), "{text}");
    let quiet = command(&["-q", "-d", &socket(&primary)]).output().unwrap();
    assert_eq!((quiet.status.code(), String::from_utf8(quiet.stdout).unwrap().lines().count()), (Some(0), 1));
}

#[test]
fn every_major() {
    let servers = Postgres::all();
    if servers.is_empty() {
        Postgres::find_or_skip(None, "doctor::every_major");
        return;
    }
    for postgres in servers {
        let major = postgres.major;
        let server =
            postgres.start_tcp(&[], "wal_level = replica\nlisten_addresses = '0.0.0.0'").unwrap_or_else(|e| panic!("{major}: {e}"));
        let mut config = postgres::Config::new();
        let config = config.host(server.socket().to_str().unwrap()).port(server.port()).user("postgres");
        let mut client = config.connect(postgres::NoTls).unwrap();
        let mut sql = |sql: &str| client.batch_execute(sql).unwrap_or_else(|e| panic!("{major}: {sql}: {e}"));

        let ran = doctor(&["-d", &socket(&server)]);
        assert_eq!(ran.problems(), ["wal-keep", "fsync"], "{major}: {}", ran.all);
        assert!(!ran.all.contains("skipped"), "{major}: {}", ran.all);
        sql("SELECT pg_create_physical_replication_slot('s', true)");
        let ran = doctor(&["-d", &socket(&server)]);
        ran.has("ok", "wal-keep", "1 physical slots");
        ran.has("note", "slot-idle", "\"s\"");

        // Somebody with no rights at all: points are skipped, and what it takes is said.
        sql("CREATE ROLE nobody LOGIN");
        let ran = doctor(&["-d", &tcp(&server, "nobody")]);
        let (_, grant) = ran.fix_of_skipped("hba-replication");
        assert!(ran.problems().starts_with(&["role-replication", "replication-connection"]), "{major}: {}", ran.all);
        sql(&grant);
        let (_, alter) = ran.fix("error", "role-replication", "\"nobody\"");
        assert_eq!(alter, "ALTER ROLE nobody REPLICATION;");
        sql(&alter);
        let ran = doctor(&["-d", &tcp(&server, "nobody")]);
        ran.has("ok", "hba-replication", "127.0.0.1");
        ran.has("ok", "role-replication", "REPLICATION");
        ran.has("ok", "replication-connection", "timeline 1");
    }
}

/// Primary and standby, of the majors whose servers come with what it takes to make one.
#[test]
fn pairs_of_every_major() {
    let has = |postgres: &Postgres, program: &str| postgres.program(program).is_file();
    let with_programs = |postgres: &Postgres| postgres.major >= 13 && has(postgres, "pg_basebackup") && has(postgres, "psql");
    let mut servers: Vec<Postgres> = Postgres::all().into_iter().filter(with_programs).collect();
    if servers.is_empty() {
        servers.extend(Postgres::find_or_skip(None, "doctor::pairs_of_every_major"));
    }
    for postgres in &servers {
        let major = postgres.major;
        let (primary, standby) = with_standby(start(postgres, "max_slot_wal_keep_size = '10GB'"));
        let ran = both(&primary, &standby);
        assert_eq!((ran.status, ran.problems()), (Some(0), vec![]), "{major}: {}", ran.all);
        assert!(!ran.all.contains("skipped"), "{major}: {}", ran.all);
        ran.has("ok", "wal-receiver", "it streams, timeline 1");
        ran.has("ok", "primary-slot", "in use");

        // Without rights there is less to see, and nothing is called wrong for it.
        primary.sql("CREATE ROLE nobody LOGIN").unwrap();
        wait_until("the role is on the standby", || standby.sql("SELECT 1 FROM pg_roles WHERE rolname = 'nobody'").unwrap() == "1");
        let blind = socket(&standby).replace("user=postgres", "user=nobody");
        let ran = doctor(&["-d", &socket(&primary), "-s", &blind]);
        assert_eq!((ran.status, ran.problems()), (Some(0), vec![]), "{major}: {}", ran.all);
        ran.has("skipped", "wal-receiver", "not shown");
        let (_, line) = ran.fix_of_skipped("primary-conninfo");
        primary.sql(&line).unwrap();
        wait_until("the grant is on the standby", || {
            !doctor(&["-d", &socket(&primary), "-s", &blind]).of("primary-conninfo").iter().any(|finding| finding["severity"] == "skipped")
        });

        // The standby as one that sends WAL on.
        let ran = doctor(&["-d", &socket(&standby)]);
        ran.has("note", "server", "in recovery");
        standby.control("promote").unwrap();
        both(&primary, &standby).has("error", "timeline", "the standby on 2");
    }
}

/// Before 12 what a standby lives from is in recovery.conf, and nobody can see it.
#[test]
fn standbys_before_12() {
    for postgres in Postgres::all().into_iter().filter(|postgres| postgres.major < 12) {
        let major = postgres.major;
        let settings = "wal_level = replica\nmax_wal_senders = 10\nhot_standby = on\nwal_keep_segments = 10\nfsync = on";
        let primary = postgres.start_tcp(&[], &format!("listen_addresses = '0.0.0.0'\n{settings}")).unwrap();
        let standby = primary.standby().unwrap();
        // The pg_basebackup of a later major writes options that this libpq does not know.
        let conninfo = format!("host={} port={} user=postgres", primary.socket().display(), primary.port());
        standby.put("recovery.conf", format!("standby_mode = on\nprimary_conninfo = '{conninfo}'\n").as_bytes()).unwrap();
        standby.control("restart -m fast").unwrap();
        wait_for_stream(&primary, &standby);
        let ran = both(&primary, &standby);
        ran.has("ok", "wal-receiver", "it streams");
        assert_eq!(ran.problems(), [""; 0], "{major}: {}", ran.all);
        standby.put("recovery.conf", b"standby_mode = on\nprimary_conninfo = 'host=/nowhere'\n").unwrap();
        standby.control("restart -m fast").unwrap();
        let ran = both(&primary, &standby);
        assert_eq!(ran.problems(), [""; 0], "{major}: {}", ran.all);
        for id in ["wal-receiver", "primary-conninfo", "primary-slot"] {
            ran.has("skipped", id, "in recovery.conf, which SQL does not show");
        }
    }
}

/// Slots that a standby has from its primary, before a promotion.
#[test]
fn slots_synchronized_to_a_standby() {
    for postgres in Postgres::all().into_iter().filter(|postgres| postgres.major >= 17) {
        let primary = start(&postgres, "wal_level = logical");
        primary.sql("SELECT pg_create_physical_replication_slot('standby', true)").unwrap();
        primary.sql("SELECT pg_create_logical_replication_slot('copied', 'pgoutput', failover => true)").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let backup = dir.path().join("backup");
        let taken = Command::new(env!("CARGO_BIN_EXE_pgwal"))
            .args(["basebackup", "-R", "-c", "fast", "-d", &socket(&primary), "-D"])
            .arg(&backup)
            .output()
            .unwrap();
        assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
        fs::remove_file(backup.join("postgresql.auto.conf")).unwrap();
        let conninfo = format!("host={} port={} user=postgres dbname=postgres", primary.socket().display(), primary.port());
        let of_standby = "listen_addresses = ''\nport = 5432\nhot_standby_feedback = on\nprimary_slot_name = 'standby'";
        let standby = postgres.start_on(&backup, &format!("{of_standby}\nprimary_conninfo = '{conninfo}'")).unwrap();
        // It is kept once the primary's slot has come as far as the standby.
        wait_until("the slot is there", || {
            let _ = primary.sql("SELECT pg_log_standby_snapshot()");
            let _ = primary.sql("SELECT pg_replication_slot_advance('copied', pg_current_wal_lsn())");
            let _ = standby.sql("SELECT pg_sync_replication_slots()");
            standby.sql("SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary").unwrap() == "1"
        });
        let ran = doctor(&["-d", &socket(&standby)]);
        ran.has("ok", "slots", "1 slots are synchronized");
        assert!(!ran.all.contains("\"copied\""), "{}: {}", postgres.major, ran.all);
        let ran = both(&primary, &standby);
        assert!(!ran.all.contains("pg_drop_replication_slot('copied')") || ran.of("slot-inactive").len() == 1, "{}", ran.all);

        // What the worker that does it all the time takes.
        standby.sql("ALTER SYSTEM SET sync_replication_slots = on").unwrap();
        standby.sql("ALTER SYSTEM SET hot_standby_feedback = off").unwrap();
        reload(&standby);
        let ran = both(&primary, &standby);
        let (_, line) = ran.fix("error", "slot-sync", "hot_standby_feedback is off");
        standby.sql(&line).unwrap();
        reload(&standby);
        both(&primary, &standby).has("ok", "slot-sync", "with the settings that it takes");

        // Consumers of the slot wait for a standby that is not there.
        primary.sql("ALTER SYSTEM SET synchronized_standby_slots = 'standby, gone'").unwrap();
        reload(&primary);
        let ran = both(&primary, &standby);
        let (_, line) = ran.fix("warning", "synchronized-standby-slots", "\"gone\", which does not exist");
        primary.sql(&line).unwrap();
        reload(&primary);
        assert!(both(&primary, &standby).of("synchronized-standby-slots").is_empty());

        // After a failover the slot is for the consumers of the old primary.
        standby.control("promote").unwrap();
        standby.sql("CREATE TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 20000)").unwrap();
        let ran = doctor(&["-d", &socket(&standby)]);
        let slot = ran.has("warning", "slot-inactive", "\"copied\"");
        assert_eq!(slot["fix"].as_array().unwrap().len(), 0, "{slot}");

        // The archiver stops where both are set, and counts that nowhere.
        standby.sql("ALTER SYSTEM SET archive_mode = on").unwrap();
        standby.sql("ALTER SYSTEM SET archive_library = 'basic_archive'").unwrap();
        standby.sql("ALTER SYSTEM SET archive_command = 'test ! -f /nowhere/%f && cp %p /nowhere/%f'").unwrap();
        standby.control("restart -m fast").unwrap();
        let ran = doctor(&["-d", &socket(&standby)]);
        let (_, line) = ran.fix("error", "archive-command", "both archive_command and archive_library are set");
        standby.sql(&line).unwrap();
        reload(&standby);
        assert!(doctor(&["-d", &socket(&standby)]).of("archive-command").is_empty());
    }
}

impl Ran {
    /// How to let a point be seen that was skipped.
    #[track_caller]
    fn fix_of_skipped(&self, id: &str) -> (String, String) {
        let fix = &self.has("skipped", id, "")["fix"][0];
        (fix["place"].as_str().unwrap().to_owned(), fix["line"].as_str().unwrap().to_owned())
    }
}

#[test]
fn wal_level_minimal() {
    let Some(server) = server("wal_level_minimal", "wal_level = minimal\nmax_wal_senders = 0") else { return };
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["wal-level", "max-wal-senders", "replication-connection"], "{}", ran.all);
    let (place, line) = ran.fix("error", "wal-level", "wal_level is minimal");
    assert!(place.contains("postgresql.conf, line ") && line == "wal_level = replica", "{place}: {line}");
    replace_line(&server, &place, &line);
    let (place, line) = ran.fix("error", "max-wal-senders", "is 0");
    replace_line(&server, &place, &line);
    let ran = doctor(&["-d", &socket(&server)]);
    ran.has("error", "wal-level", "minimal");
    server.control("restart").unwrap();
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
}

#[test]
fn walsenders_and_slots_all_in_use() {
    let Some((primary, _standby)) = pair("walsenders_and_slots_all_in_use", "max_wal_senders = 2\nmax_replication_slots = 2") else {
        return;
    };
    primary.sql("SELECT pg_create_physical_replication_slot('another')").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut receiver = Command::new(env!("CARGO_BIN_EXE_pgwal"))
        .args(["receive", "-q", "-D"])
        .arg(dir.path())
        .args(["-d", &socket(&primary)])
        .spawn()
        .unwrap();
    wait_until("two walsenders", || primary.sql("SELECT count(*) FROM pg_stat_replication").unwrap() == "2");
    let ran = doctor(&["-d", &socket(&primary)]);
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    let (_, line) = ran.fix("warning", "max-wal-senders", "all of max_wal_senders = 2 are in use");
    assert_eq!(line, "max_wal_senders = 12");
    ran.has("warning", "replication-connection", "max_wal_senders");
    ran.has("warning", "max-replication-slots", "all of max_replication_slots = 2");
}

#[test]
fn pg_hba_conf() {
    let Some(server) = server("pg_hba_conf", "") else { return };
    server.sql("CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'from-the-environment'").unwrap();
    server.sql("CREATE ROLE members; CREATE ROLE inner_group IN ROLE members; GRANT inner_group TO replicator").unwrap();
    server.sql("GRANT pg_monitor TO replicator; GRANT SELECT ON pg_hba_file_rules TO replicator").unwrap();
    server.sql("GRANT EXECUTE ON FUNCTION pg_hba_file_rules(), pg_read_file(text, bigint, bigint) TO replicator").unwrap();
    let conninfo = tcp(&server, "replicator");
    let with = |lines: &str| {
        let common = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
        server.put("pg_hba.conf", format!("{common}{lines}\n").as_bytes()).unwrap();
        reload(&server);
        doctor(&["-d", &conninfo])
    };
    // Lines from the third on; what is said; the line to change, if that is none at the end of the file.
    let refused = [
        ("host replication replicatr 127.0.0.1/32 trust", "line 3 would, but names \"replicatr\"", Some(3)),
        ("host replication Replicator 127.0.0.1/32 trust", "line 3 would, but names \"Replicator\"", Some(3)),
        ("host replication standby_user 127.0.0.1/32 trust", "names \"standby_user\", which is no role", None),
        ("", "line 2 has the database all, which does not match replication", None),
        ("host \"replication\" replicator 127.0.0.1/32 trust", "line 3 has replication in quotes", Some(3)),
        ("host replication replicator 10.0.0.0/8 trust", "line 3 is for 10.0.0.0", None),
        ("hostssl replication replicator 127.0.0.1/32 trust", "line 3 is for hostssl connections", None),
        ("local replication replicator trust", "line 3 is for local connections", None),
        ("host replication \"+members\" 127.0.0.1/32 trust", "names \"+members\", which is no role", None),
    ];
    for (line, said, at) in refused {
        let ran = with(line);
        let (place, fix) = ran.fix("error", "hba-replication", said);
        let tried = ran.has("error", "replication-connection", "no pg_hba.conf entry for replication connection");
        assert!(tried["fix"].as_array().unwrap().is_empty(), "{tried}");
        match at {
            Some(at) => {
                assert!(place.ends_with(&format!("pg_hba.conf, line {at}")), "{place}");
                assert_eq!(fix, "host replication replicator 127.0.0.1/32 trust");
                replace_line(&server, &place, &fix);
            }
            None => {
                assert!(place.ends_with("pg_hba.conf"), "{place}");
                assert_eq!(fix, "host replication replicator 127.0.0.1/32 scram-sha-256");
                let old = fs::read_to_string(&place).unwrap();
                server.put("pg_hba.conf", format!("{old}{fix}\n").as_bytes()).unwrap();
            }
        }
        // The server has not read the file yet.
        let ran = doctor(&["-d", &conninfo]);
        assert_eq!(ran.fix("error", "replication-connection", "").1, "SELECT pg_reload_conf();", "{line}");
        reload(&server);
        let ran = doctor(&["-d", &conninfo]);
        ran.has("ok", "hba-replication", "role \"replicator\" from 127.0.0.1");
        ran.has("ok", "replication-connection", "");
    }

    let ran = with("host replication all 127.0.0.1/32 reject\nhost replication replicator 127.0.0.1/32 trust");
    let (place, line) = ran.fix("error", "hba-replication", "line 3 rejects role \"replicator\" from 127.0.0.1");
    assert!(place.ends_with("pg_hba.conf, before line 3"), "{place}");
    assert_eq!(line, "host replication replicator 127.0.0.1/32 scram-sha-256");
    ran.has("error", "replication-connection", "rejects");

    // What lets it in.
    for line in ["host replication +members samehost trust", "host all,replication all 127.0.0.1 255.255.255.255 trust"] {
        let ran = with(line);
        ran.has("ok", "hba-replication", "line 3 lets");
        ran.has("ok", "replication-connection", "");
    }
    let ran = with("host replication all localhost trust");
    ran.has("ok", "hba-replication", "it was tried");

    // Other lines that are wrong.
    let ran = with("host replication all 127.0.0.1/32 trust\nhostssl replication all 10.0.0.0/8 md5");
    assert_eq!(ran.fix("warning", "hba-errors", "line 4: hostssl record cannot match because SSL is disabled").1, "ssl = on");
    let ran = with("host replication all 127.0.0.1/32 trust\nhost replication postgers 10.0.0.1/32 md5\nhost all all 10.0.0.0/8 password");
    let (place, line) = ran.fix("warning", "hba-roles", "line 4: \"postgers\" is no role of this server");
    assert!(place.ends_with("line 4"), "{place}");
    assert_eq!(line, "host replication postgres 10.0.0.1/32 md5");
    let (_, line) = ran.fix("warning", "hba-password", "line 5 has method password");
    assert_eq!(line, "host all all 10.0.0.0/8 scram-sha-256");
    ran.has("note", "hba-md5", "line 4");
    // Options may be secret.
    let ran = with("host replication replicater 127.0.0.1/32 ldap ldapserver=x ldapbasedn=y ldapbinddn=z ldapbindpasswd=hunter2");
    assert_eq!(ran.fix("error", "hba-replication", "names \"replicater\"").1, "host replication replicator 127.0.0.1/32 ldap …");
    assert!(!ran.all.contains("hunter2"), "{}", ran.all);
    let ran = with("host replication all 127.0.0.1/32 trust");
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    // The file is not loaded: what was there before counts.
    let ran = with("host replication all 127.0.0.1/33 trust");
    ran.has("error", "hba-errors", "line 3: invalid CIDR mask");
    ran.has("warning", "hba-replication", "yet it works");
}

/// Lines that a pg_hba.conf may have, by their fields.
const HBA: [&[&str]; 5] = [
    &["local", "host", "host", "hostnossl", "hostssl"],
    &["replication", "replication", "all", "\"replication\"", "all,replication", "\"all\", replication", "sameuser,postgres"],
    &[
        "all",
        "replicator",
        "\"replicator\"",
        "Replicator",
        "+members",
        "\"+members\"",
        "+replicator",
        "\"all\"",
        "other,replicator",
        "other, \"replicator\"",
        "/^repl",
        "\"/^re.*or$\"",
        "other",
    ],
    &[
        "127.0.0.1/32",
        "127.0.0.0/8",
        "10.0.0.0/8",
        "all",
        "samehost",
        "samenet",
        "127.0.0.1 255.255.255.255",
        "0.0.0.0/0",
        "::/0",
        "localhost",
    ],
    &["trust", "trust", "reject"],
];

/// Any pg_hba.conf is judged as the server judges it. As many as `PGWAL_TEST_HBA` says; it was run with 1000 for each of 15, 16 and 17.
#[test]
fn pg_hba_conf_as_the_server_reads_it() {
    let has = |postgres: &Postgres, program: &str| postgres.program(program).is_file();
    let mut servers: Vec<Postgres> = Postgres::all().into_iter().filter(|postgres| postgres.major >= 13 && has(postgres, "psql")).collect();
    if servers.is_empty() {
        servers.extend(Postgres::find_or_skip(None, "doctor::pg_hba_conf_as_the_server_reads_it"));
    }
    let rounds: u32 = std::env::var("PGWAL_TEST_HBA").map_or(40, |text| text.parse().unwrap());
    for postgres in &servers {
        judged_alike(&start(postgres, ""), postgres.major, rounds);
    }
}

fn judged_alike(server: &Server, major: u8, rounds: u32) {
    use pgwal_stream::connection::Connection;
    use pgwal_stream::conninfo::{Config, Environment};
    use pgwal_stream::doctor::hba::{Subject, Verdict, decide};

    server
        .sql("CREATE ROLE replicator LOGIN REPLICATION; CREATE ROLE other; CREATE ROLE members; CREATE ROLE inner_group IN ROLE members")
        .unwrap();
    server.sql("GRANT inner_group TO replicator; GRANT pg_monitor TO replicator; GRANT SELECT ON pg_hba_file_rules TO replicator").unwrap();
    server.sql("GRANT EXECUTE ON FUNCTION pg_hba_file_rules(), pg_read_file(text, bigint, bigint) TO replicator").unwrap();
    let env = Environment::new("replicator", server.dir());
    let places = [tcp(server, "replicator"), socket(server).replace("user=postgres", "user=replicator")];
    let configs = places.map(|conninfo| Config::parse(&conninfo, &env).unwrap());
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut pick = |count: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % count
    };
    let (mut yes, mut no, mut unsure) = (0, 0, 0);
    for _ in 0..rounds {
        let mut file = "local postgres all trust\nhost postgres all 127.0.0.1/32 trust\n".to_owned();
        for _ in 0..=pick(4) {
            let fields: Vec<&str> = HBA.iter().map(|field| field[pick(field.len())]).collect();
            let fields: Vec<&str> =
                fields.iter().enumerate().filter(|(at, _)| *at != 3 || fields[0] != "local").map(|(_, field)| *field).collect();
            file.push_str(&(fields.join("  ") + if pick(3) == 0 { " # replicator\n" } else { "\n" }));
        }
        server.put("pg_hba.conf", file.as_bytes()).unwrap();
        reload(server);
        for config in &configs {
            let facts = pgwal_stream::doctor::gather("replicator", &mut |mode| Connection::connect(config, mode)).unwrap();
            let subject =
                Subject { user: "replicator", client: &facts.client, server: facts.address, major: facts.major, roles: &facts.roles };
            let rules = facts.hba.as_ref().unwrap();
            let count = match (decide(rules, &subject), facts.replication.is_ok()) {
                (Verdict::Accepted(_), true) => &mut yes,
                (Verdict::Rejected(_) | Verdict::NoLine, false) => &mut no,
                (Verdict::Uncertain(rule), _) if ["samenet", "localhost"].contains(&rule.address.as_deref().unwrap_or_default()) => {
                    &mut unsure
                }
                (verdict, works) => panic!("{major}: works: {works}, {verdict:?} of\n{file}{rules:#?}"),
            };
            *count += 1;
        }
    }
    assert!(yes > 0 && no > 0 && unsure < yes + no, "{major}: {yes} {no} {unsure}");
}

/// What the README shows is what is printed, but for ports and paths.
#[test]
fn the_example_of_the_readme() {
    let Some(server) = server("the_example_of_the_readme", "listen_addresses = 'localhost'") else { return };
    server.sql("CREATE ROLE replicator LOGIN REPLICATION; GRANT pg_monitor TO replicator").unwrap();
    server.sql("GRANT SELECT ON pg_hba_file_rules TO replicator; GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO replicator").unwrap();
    server.sql("CREATE ROLE monitor LOGIN").unwrap();
    let hba = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication replicater 127.0.0.1/32 trust\n";
    server.put("pg_hba.conf", hba.as_bytes()).unwrap();
    reload(&server);
    let ran = command(&["--quiet", "-d", &tcp(&server, "replicator")]).output().unwrap();
    let out = String::from_utf8(ran.stdout).unwrap();
    let conf = fs::read_to_string(server.data().join("postgresql.conf")).unwrap();
    let listen = conf.lines().enumerate().filter(|(_, line)| line.starts_with("listen_addresses = ")).last().unwrap().0 + 1;
    let found = out
        .replace(&server.data().display().to_string(), "/var/lib/postgresql/15/main")
        .replace(&format!("port {}", server.port()), "port 5432")
        .replace(&format!("postgresql.conf, line {listen}:"), "postgresql.conf, line 60:");
    let readme = include_str!("../../README.md");
    let shown = readme.split("$ pgwal doctor --quiet -d ").nth(1).and_then(|rest| Some(rest.split_once('\n')?.1.split_once("```")?.0));
    assert_eq!(Some(found.as_str()), shown, "{found}");
}

#[test]
fn listening_to_itself_only() {
    let Some(server) = server("listening_to_itself_only", "listen_addresses = 'localhost'") else { return };
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["listen-addresses"], "{}", ran.all);
    let (place, line) = ran.fix("warning", "listen-addresses", "'localhost'");
    assert_eq!(line, "listen_addresses = '*'");
    replace_line(&server, &place, &line);
    server.control("restart").unwrap();
    assert_eq!(doctor(&["-d", &socket(&server)]).problems(), [""; 0]);
}

#[test]
fn slots_that_nobody_uses() {
    let Some(server) =
        server("slots_that_nobody_uses", "min_wal_size = 2MB\nmax_wal_size = 1GB\nwal_keep_size = 0\ncheckpoint_timeout = 1h")
    else {
        return;
    };
    let write = || {
        server.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 2000)").unwrap();
        server.sql("SELECT pg_switch_wal()").unwrap();
    };
    server.sql("CREATE TABLE t (x text)").unwrap();
    server.sql("SELECT pg_create_physical_replication_slot('it''s', true)").unwrap_err();
    server.sql("SELECT pg_create_physical_replication_slot('left_over', true)").unwrap();
    doctor(&["-d", &socket(&server)]).has("note", "slot-idle", "\"left_over\"");
    write();
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["slot-inactive"], "{}", ran.all);
    let (_, line) = ran.fix("warning", "slot-inactive", "\"left_over\" is not in use and keeps ");
    assert!(ran.all.contains(" MB of WAL"), "{}", ran.all);
    server.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").unwrap();
    reload(&server);
    write();
    let ran = doctor(&["-d", &socket(&server)]);
    let (_, limit) = ran.fix("error", "slot-unreserved", "\"left_over\"");
    assert_eq!(limit, "ALTER SYSTEM SET max_slot_wal_keep_size = '1024MB';");
    (0..5).for_each(|_| write());
    server.sql("CHECKPOINT").unwrap();
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.fix("error", "slot-lost", "\"left_over\" is lost").1, line);
    server.sql(&line).unwrap();
    assert_eq!(doctor(&["-d", &socket(&server)]).problems(), ["wal-keep"]);
}

#[test]
fn nothing_keeps_the_wal() {
    let Some(server) = server("nothing_keeps_the_wal", "wal_keep_size = 0") else { return };
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["wal-keep"], "{}", ran.all);
    let setting = &ran.has("warning", "wal-keep", "wal_keep_size is 0")["fix"][1];
    replace_line(&server, setting["place"].as_str().unwrap(), setting["line"].as_str().unwrap());
    reload(&server);
    assert_eq!(doctor(&["-d", &socket(&server)]).problems(), [""; 0]);
}

#[test]
fn archiving() {
    let Some(server) = server("archiving", "archive_mode = on\narchive_command = ''") else { return };
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["archive"], "{}", ran.all);
    let (place, line) = ran.fix("error", "archive", "neither archive_command nor archive_library");
    assert!(line.starts_with("archive_command = "), "{line}");
    replace_line(&server, &place, "archive_command = 'echo secret-token >/dev/null; false'");
    reload(&server);
    server.sql("SELECT pg_switch_wal()").unwrap();
    wait_until("archiving fails", || server.sql("SELECT failed_count > 0 FROM pg_stat_archiver").unwrap() == "t");
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["archive-failing"], "{}", ran.all);
    let (place, line) = ran.fix("error", "archive-failing", "archiving fails: 0000000100000000000000");
    assert!(line.starts_with("archive_command = ") && !ran.all.contains("secret-token"), "{}", ran.all);
    let archive = server.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    give(&archive).unwrap();
    let line = "archive_command = 'test ! -f DIR/%f && cp %p DIR/%f'".replace("DIR", archive.to_str().unwrap());
    replace_line(&server, &place, &line);
    reload(&server);
    server.sql("SELECT pg_switch_wal()").unwrap();
    wait_until("archiving works", || server.sql("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver").unwrap() == "t");
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    ran.has("ok", "archive", "archive_mode is on");
}

#[test]
fn nobody_answers_synchronous_commits() {
    let Some((primary, standby)) = pair("nobody_answers_synchronous_commits", "") else { return };
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (dr_site)'").unwrap();
    reload(&primary);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["synchronous-standbys"], "{}", ran.all);
    let (_, line) = ran.fix("error", "synchronous-standbys", "0 such standbys answer, 1 needed; connected are: walreceiver (async)");
    assert_eq!(line, "primary_conninfo = '… application_name=dr_site'");
    let conninfo = format!("host={} port={} user=postgres application_name=dr_site", primary.socket().display(), primary.port());
    standby.sql(&format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'")).unwrap();
    reload(&standby);
    wait_until("it is called so", || {
        primary.sql("SELECT string_agg(sync_state, '') FROM pg_stat_replication WHERE application_name = 'dr_site'").unwrap() == "sync"
    });
    wait_for_stream(&primary, &standby);
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);

    // Commits that wait for replay, which somebody has paused.
    primary.sql("ALTER SYSTEM SET synchronous_commit = 'remote_apply'").unwrap();
    reload(&primary);
    standby.sql("SELECT pg_wal_replay_pause()").unwrap();
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["synchronous-apply", "recovery-paused"], "{}", ran.all);
    standby.sql(&ran.fix("error", "recovery-paused", "replay is paused").1).unwrap();
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);

    // It is called so already, and asks another server: its name is not what is wrong.
    standby.sql(&format!("ALTER SYSTEM SET primary_conninfo = '{conninfo} options=-cnonsense'")).unwrap();
    reload(&standby);
    wait_until("it is gone", || primary.sql("SELECT count(*) FROM pg_stat_replication").unwrap() == "0");
    let ran = both(&primary, &standby);
    ran.has("error", "synchronous-standbys", "the standby that you gave is one of them by its name");
    assert!(!ran.all.contains("application_name="), "{}", ran.all);
    ran.has("error", "wal-receiver", "no walreceiver runs");
}

#[test]
fn lower_settings_and_paused_replay() {
    let Some((primary, standby)) = pair("lower_settings_and_paused_replay", "") else { return };
    append(&primary, "max_connections = 30");
    primary.control("restart -m fast").unwrap();
    wait_until("replay pauses", || standby.sql("SELECT pg_is_wal_replay_paused()").unwrap() == "t");
    wait_for_stream(&primary, &standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["recovery-paused", "standby-settings"], "{}", ran.all);
    // Resuming would shut it down.
    let paused = ran.has("error", "recovery-paused", "replay is paused");
    assert_eq!(paused["fix"].as_array().unwrap().len(), 0, "{paused}");
    let (place, line) = ran.fix("error", "standby-settings", "max_connections is 20, on the primary 30");
    assert!(place.starts_with(standby.data().to_str().unwrap()), "{place}");
    replace_line(&standby, &place, &line);
    standby.control("restart -m fast").unwrap();
    wait_for_stream(&primary, &standby);
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);
    standby.sql("SELECT pg_wal_replay_pause()").unwrap();
    let ran = both(&primary, &standby);
    let (_, line) = ran.fix("error", "recovery-paused", "replay is paused");
    standby.sql(&line).unwrap();
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);
}

#[test]
fn a_promoted_standby() {
    let Some((primary, standby)) = pair("a_promoted_standby", "wal_log_hints = on") else { return };
    standby.control("promote").unwrap();
    let ran = both(&primary, &standby);
    ran.has("error", "in-recovery", "it is a primary");
    assert!(ran.fix("error", "in-recovery", "").1.starts_with("pg_rewind "));
    ran.has("error", "timeline", "the primary is on timeline 1, the standby on 2");
    ran.has("ok", "system-identifier", "both");
    // The other way round: the old primary is no standby either, and behind.
    let ran = both(&standby, &primary);
    ran.has("error", "timeline", "the primary is on timeline 2, the standby still on 1");
    assert!(!ran.all.contains("recovery_target_timeline"), "{}", ran.all);
}

#[test]
fn a_standby_of_another_cluster() {
    let Some(primary) = server("a_standby_of_another_cluster", "") else { return };
    let Some(other) = server("a_standby_of_another_cluster", "") else { return };
    // A primary of somebody else: whatever is wrong, nothing is to be done to it.
    let ran = both(&primary, &other);
    ran.has("error", "system-identifier", "the primary has system identifier ");
    assert_eq!(ran.problems(), ["system-identifier"], "{}", ran.all);
    assert!(ran.findings.iter().all(|finding| finding["fix"].as_array().unwrap().is_empty()), "{}", ran.all);
    let conninfo = format!("host=127.0.0.1 port={} user=postgers password=hunter2", primary.port());
    other.sql(&format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'")).unwrap();
    other.put("standby.signal", b"").unwrap();
    other.control("restart -m fast").unwrap();
    let ran = both(&primary, &other);
    let (_, line) = ran.fix("error", "system-identifier", "the primary has system identifier ");
    assert!(line.starts_with("pg_basebackup -R "), "{line}");
    ran.has("error", "wal-receiver", "no walreceiver runs");
    let (_, line) = ran.fix("error", "standby-role", "\"postgers\", which is no role");
    assert!(line.starts_with("CREATE ROLE postgers REPLICATION LOGIN"), "{line}");
    ran.has("ok", "standby-hba", "role \"postgers\" from 127.0.0.1");
    let (place, line) = ran.fix("warning", "primary-conninfo-password", "clear text");
    assert!(place.contains(".pgpass") && line.ends_with(":replication:postgers:the password"), "{place}: {line}");
    assert!(!ran.all.contains("hunter2"), "{}", ran.all);
    ran.has("note", "primary-slot", "primary_slot_name is not set");

    // Without any way to a primary.
    other.sql("ALTER SYSTEM RESET primary_conninfo").unwrap();
    reload(&other);
    let ran = both(&primary, &other);
    let (_, line) = ran.fix("error", "primary-conninfo", "is empty");
    let (host, port) = (primary.socket().display(), primary.port());
    assert_eq!(line, format!("primary_conninfo = 'host={host} port={port} user=postgres'"));
}

#[test]
fn a_slot_that_the_primary_does_not_have() {
    let Some((primary, standby)) = pair("a_slot_that_the_primary_does_not_have", "") else { return };
    standby.sql("ALTER SYSTEM SET primary_slot_name = 'gone'").unwrap();
    reload(&standby);
    // Whenever it tries anew, it says for a moment that it streams.
    let mut ran = both(&primary, &standby);
    wait_until("it does not stream", || {
        ran = both(&primary, &standby);
        ran.of("wal-receiver").iter().any(|finding| finding["severity"] == "error")
    });
    let (_, line) = ran.fix("error", "primary-slot", "'gone', and the primary has no such slot");
    assert_eq!(line, "SELECT pg_create_physical_replication_slot('gone', true);");
    primary.sql(&line).unwrap();
    // What served the standby may still hold it for a moment.
    wait_until("its slot can go", || primary.sql("SELECT pg_drop_replication_slot('standby')").is_ok());
    wait_for_stream(&primary, &standby);
    wait_until("by that slot", || primary.sql("SELECT active FROM pg_replication_slots").unwrap() == "t");
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);

    standby.sql("ALTER SYSTEM RESET primary_slot_name").unwrap();
    primary.sql("ALTER SYSTEM SET wal_keep_size = 0").unwrap();
    reload(&standby);
    reload(&primary);
    let without = "SELECT count(*) = 1 FROM pg_stat_replication, pg_replication_slots WHERE state = 'streaming' AND NOT active";
    wait_until("it streams without a slot", || primary.sql(without).unwrap() == "t");
    wait_for_stream(&primary, &standby);
    let ran = both(&primary, &standby);
    ran.has("warning", "primary-slot", "not set");
}

/// primary <- middle <- last: the last one's slot is the middle one's, and the primary must not get it.
#[test]
fn a_standby_of_a_standby() {
    let Some((primary, middle)) = pair("a_standby_of_a_standby", "") else { return };
    middle.sql("SELECT pg_create_physical_replication_slot('casc', true)").unwrap();
    let last = middle.standby().unwrap();
    last.sql("ALTER SYSTEM SET primary_slot_name = 'casc'").unwrap();
    reload(&last);
    wait_until("it streams by its slot", || middle.sql("SELECT active FROM pg_replication_slots").unwrap() == "t");
    wait_for_stream(&middle, &last);
    let ran = both(&primary, &last);
    ran.has("warning", "wal-receiver", "from another server");
    let slot = ran.has("note", "primary-slot", "'casc'");
    assert_eq!((ran.problems(), slot["fix"].as_array().unwrap().len()), (vec!["wal-receiver"], 0), "{}", ran.all);
    assert!(!ran.all.contains("pg_create_physical_replication_slot"), "{}", ran.all);
    let ran = both(&middle, &last);
    ran.has("ok", "primary-slot", "in use");
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    // What counts on a primary only.
    middle.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").unwrap();
    reload(&middle);
    doctor(&["-d", &socket(&middle)]).has("note", "synchronous-standbys", "'nobody'");
}

/// A standby that knows an archive, and no primary; then one that it cannot reach.
#[test]
fn a_standby_that_lives_from_an_archive() {
    let Some((primary, standby)) = pair("a_standby_that_lives_from_an_archive", "") else { return };
    primary.sql("CREATE ROLE nobody LOGIN").unwrap();
    wait_until("the role is on the standby", || standby.sql("SELECT 1 FROM pg_roles WHERE rolname = 'nobody'").unwrap() == "1");
    fs::remove_file(standby.data().join("postgresql.auto.conf")).unwrap();
    append(&standby, "restore_command = 'false'");
    standby.control("restart -m fast").unwrap();
    wait_until("its slot can go", || primary.sql("SELECT pg_drop_replication_slot('standby')").is_ok());
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    ran.has("note", "wal-receiver", "it lives from restore_command");
    ran.has("note", "primary-conninfo", "is empty");
    ran.has("ok", "timeline", "both are on timeline 1");
    standby.sql("ALTER SYSTEM SET primary_conninfo = 'host=/nowhere user=postgres'").unwrap();
    reload(&standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["wal-receiver"], "{}", ran.all);
    ran.has("warning", "wal-receiver", "it lives from restore_command");
    // Who is not shown whether it is set is not told that it is not.
    let ran = doctor(&["-d", &socket(&primary), "-s", &socket(&standby).replace("user=postgres", "user=nobody")]);
    let grant = (String::from("SQL"), String::from("GRANT pg_read_all_settings TO nobody;"));
    assert_eq!((ran.problems(), ran.fix_of_skipped("wal-receiver")), (vec![], grant), "{}", ran.all);
}

/// A receiver without a slot says nothing of what it has flushed, and no commit counts it.
#[test]
fn a_synchronous_standby_that_is_none() {
    let Some(server) = server("a_synchronous_standby_that_is_none", "synchronous_standby_names = 'FIRST 1 (pgwal, x)'") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut receiver = Command::new(env!("CARGO_BIN_EXE_pgwal"))
        .args(["receive", "-q", "-D"])
        .arg(dir.path())
        .args(["-d", &format!("{} application_name=pgwal", socket(&server))])
        .spawn()
        .unwrap();
    wait_until("it streams", || server.sql("SELECT state FROM pg_stat_replication").unwrap() == "streaming");
    let ran = doctor(&["-d", &socket(&server)]);
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    let (_, line) = ran.fix("error", "synchronous-standbys", "\"pgwal\" streams and does not say what it has flushed");
    assert!(line.contains("--synchronous"), "{line}");
}

#[test]
fn standbys_that_take_no_connections() {
    let Some((primary, standby)) = pair("standbys_that_take_no_connections", "") else { return };
    let before = primary.sql("SELECT pid FROM pg_stat_replication").unwrap();
    append(&standby, "hot_standby = off");
    standby.control("restart -m fast").unwrap();
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    let of_before = format!("SELECT count(*) FROM pg_stat_replication WHERE pid = {before}");
    wait_until("the stream of before has ended", || primary.sql(&of_before).unwrap() == "0");
    wait_until("it streams", || primary.sql(streaming).unwrap() == "1");
    let ran = both(&primary, &standby);
    ran.has("skipped", "hot-standby", "somebody streams from the primary");
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    append(&standby, "primary_slot_name = 'no_such_slot'");
    fs::remove_file(standby.data().join("postgresql.auto.conf")).unwrap();
    standby.control("restart -m fast").unwrap();
    wait_until("nobody streams", || primary.sql(streaming).unwrap() == "0");
    let ran = both(&primary, &standby);
    let (_, line) = ran.fix("warning", "hot-standby", "the standby does not take connections");
    let conninfo = format!("host={} port={} user=postgres", primary.socket().display(), primary.port());
    append(&standby, &format!("{line}\nprimary_slot_name = 'standby'\nprimary_conninfo = '{conninfo}'"));
    standby.control("restart -m fast").unwrap();
    wait_for_stream(&primary, &standby);
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);
    standby.control("stop -m fast").unwrap();
    both(&primary, &standby).has("error", "standby-connection", "no connection");
}

#[test]
fn passwords() {
    let Some(server) = server("passwords", "") else { return };
    server.sql("CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'hunter2'").unwrap();
    server
        .put(
            "pg_hba.conf",
            b"local all all trust\nlocal replication all trust\nhost all,replication replicator 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
    reload(&server);
    let told = format!("{} password=hunter2", tcp(&server, "replicator"));
    let ran = doctor(&["-d", &told]);
    assert_eq!((ran.problems(), ran.all.contains("hunter2")), (vec!["password"], false), "{}", ran.all);
    assert_eq!(ran.fix("warning", "password", "clear text"), ("~/.pgpass, mode 0600".into(), "host:port:*:replicator:the password".into()));
    // The line to change, in a password file.
    let passfile = server.dir().join("pgpass");
    fs::write(&passfile, format!("127.0.0.1:{}:*:replicator:hunter2\n", server.port())).unwrap();
    fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let conninfo = format!("{} passfile={}", tcp(&server, "replicator"), passfile.display());
    let ran = command(&["-q", "-d", &conninfo]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stdout));
    let uri = format!("postgresql://replicator:hunter2@127.0.0.1:{}/postgres", server.port());
    assert_eq!(doctor(&["-d", &uri]).problems(), ["password"]);
    // A wrong one.
    let ran = doctor(&["-d", &told.replace("hunter2", "hunter3")]);
    assert!(ran.status == Some(2) && ran.all.contains("password authentication failed") && !ran.all.contains("hunter3"), "{}", ran.all);
}

#[test]
fn only_replication_is_allowed() {
    let Some(server) = server("only_replication_is_allowed", "wal_keep_size = 2GB") else { return };
    server.sql("CREATE ROLE replicator LOGIN REPLICATION").unwrap();
    server.put("pg_hba.conf", b"local all all trust\nhost replication replicator 127.0.0.1/32 trust\n").unwrap();
    reload(&server);
    let ran = doctor(&["-d", &tcp(&server, "replicator")]);
    assert_eq!((ran.status, ran.problems()), (Some(0), vec![]), "{}", ran.all);
    ran.has("note", "server", "only replication is possible");
    ran.has("ok", "wal-level", "replica");
    ran.has("ok", "wal-keep", "wal_keep_size is 2048MB");
    ran.has("skipped", "hba-replication", "no SQL");
    ran.has("ok", "replication-connection", "timeline 1");
}

#[test]
fn warnings_about_the_disk() {
    let Some(server) = server("warnings_about_the_disk", "fsync = off\nfull_page_writes = off") else { return };
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["fsync", "full-page-writes"], "{}", ran.all);
    for id in ran.problems() {
        let (place, line) = ran.fix("warning", id, "off");
        replace_line(&server, &place, &line);
    }
    reload(&server);
    assert_eq!(doctor(&["-d", &socket(&server)]).problems(), [""; 0]);
}

#[test]
fn no_server_and_wrong_options() {
    let ran = doctor(&["-d", "host=/nowhere user=x"]);
    assert!(ran.status == Some(2) && ran.all.contains("/nowhere") && ran.findings.is_empty(), "{}", ran.all);
    for wrong in [["-d", "hots=x"], ["-d", "host=x port=none"]] {
        assert_eq!(doctor(&wrong).status, Some(2));
    }
    assert_eq!(command(&["--nonsense"]).output().unwrap().status.code(), Some(2));
}
