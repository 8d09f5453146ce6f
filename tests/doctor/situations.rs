//! Situations in which one setting alone says nothing: who follows whom, what has become of an archive, whose slot it is. The advice is
//! followed, and the doctor is quiet.

use super::*;

/// What is to be put right where, and the lines for it.
fn fixes(finding: &Value) -> Vec<(String, String, String)> {
    let text = |fix: &Value, key: &str| fix[key].as_str().unwrap_or_default().to_owned();
    finding["fix"].as_array().unwrap().iter().map(|fix| (text(fix, "on"), text(fix, "place"), text(fix, "line"))).collect()
}

/// Follows a line for the standby: SQL, or a line of a file.
#[track_caller]
fn follow(server: &Server, (on, place, line): &(String, String, String), side: &str) {
    assert_eq!(on, side, "{place}: {line}");
    match place.as_str() {
        "SQL" => drop(server.sql(line).unwrap()),
        "postgresql.conf" => append(server, line),
        _ => replace_line(server, place, line),
    }
}

fn write(server: &Server, rows: usize) {
    server.sql(&format!("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, {rows})")).unwrap();
}

/// The standby has replayed all that the primary has written.
#[track_caller]
fn caught_up(primary: &Server, standby: &Server) {
    let position = primary.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    wait_until("the standby has caught up", || standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'")).unwrap() == "t");
}

/// a is the primary; b is promoted, while c and d follow a: c can follow b at first, and not any more once a has written.
#[test]
fn after_a_failover() {
    let Some(a) = server("after_a_failover", "wal_log_hints = on") else { return };
    a.sql("CREATE TABLE filler (x text)").unwrap();
    let (b, c, d) = (a.standby().unwrap(), a.standby().unwrap(), a.standby().unwrap());
    [&b, &c, &d].into_iter().for_each(|standby| wait_until("it streams", || streams(standby)));
    [&b, &c, &d].into_iter().for_each(|standby| caught_up(&a, standby));
    a.control("stop -m fast").unwrap();
    b.control("promote").unwrap();
    wait_until("its primary is gone", || c.sql("SELECT count(*) FROM pg_stat_wal_receiver").unwrap() == "0");

    // It is not too late; its settings are those that it should have, but for the server that it asks.
    let ran = both(&b, &c);
    let timeline = ran.has("error", "timeline", "the standby still on 1, and has nothing beyond ");
    assert!(!ran.all.contains("recovery_target_timeline") && !ran.all.contains("pg_rewind -D"), "{}", ran.all);
    let receiver = ran.has("error", "wal-receiver", "which is not the primary that you gave");
    let (host, port) = (b.socket().display(), b.port());
    let line = format!("ALTER SYSTEM SET primary_conninfo = 'host={host} port={port} user=postgres';");
    assert_eq!(fixes(timeline).last().unwrap().2, line);
    assert_eq!(fixes(receiver).last().unwrap().2, line);

    // The old primary comes back, and both have what b has not.
    a.control("start").unwrap();
    [&c, &d].into_iter().for_each(|standby| wait_until("it streams", || streams(standby)));
    write(&a, 100);
    caught_up(&a, &c);
    let ran = both(&b, &c);
    let timeline = ran.has("error", "timeline", "the standby has diverged, because it has replayed WAL up to ");
    assert!(fixes(timeline)[0].2.starts_with("pg_rewind -D DATADIR "), "{timeline}");
    assert!(!ran.all.contains("ALTER SYSTEM") && !ran.all.contains("recovery_target_timeline"), "{}", ran.all);
    // As primary and standby the old ones are a good pair, but that there is a newer primary is told of each.
    let ran = both(&a, &b);
    ran.has("error", "timeline", "; the primary has written ");
    let promoted = fixes(ran.has("error", "in-recovery", "it is a primary"));
    assert_eq!([promoted[0].0.as_str(), promoted[1].0.as_str()], ["standby", "primary"], "{}", ran.all);
    let ran = both(&b, &a);
    ran.has("error", "timeline", "the standby has diverged, because it has written WAL up to ");

    // c as the primary of d is nonsense, and d of a is not.
    let ran = both(&c, &d);
    ran.has("warning", "wal-receiver", "from another server");
    assert_eq!(both(&a, &d).problems(), [""; 0]);

    // The advice, with the files that pg_rewind brings from b put back.
    c.control("stop -m fast").unwrap();
    let conf = fs::read(c.data().join("postgresql.conf")).unwrap();
    let source = format!("--source-server=host={host} port={port} user=postgres dbname=postgres");
    c.on_data("pg_rewind", [source.as_str(), "-R"]).unwrap();
    c.put("postgresql.conf", &conf).unwrap();
    c.control("start").unwrap();
    wait_for_stream(&b, &c);
    caught_up(&b, &c);
    let ran = both(&b, &c);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    ran.has("ok", "timeline", "both are on timeline 2");
    // It is a newer primary's standby to the old one.
    let ran = both(&a, &c);
    ran.has("error", "timeline", "the primary is on timeline 1, the standby on 2, which began at ");
    assert!(fixes(ran.has("error", "timeline", "")).iter().all(|(on, ..)| on != "standby"), "{}", ran.all);

    // Another promotion of a standby of a: the same number, another timeline.
    d.control("promote").unwrap();
    let ran = both(&b, &d);
    let timeline = ran.has("error", "timeline", "both are on a timeline 2, but not on the same one");
    assert!(fixes(timeline)[0].2.starts_with("pg_basebackup ") && !ran.all.contains("pg_rewind -D"), "{}", ran.all);
}

/// Replay was paused before the fork, and what was received goes beyond it.
#[test]
fn paused_before_the_fork() {
    let Some(a) = server("paused_before_the_fork", "") else { return };
    a.sql("CREATE TABLE filler (x text)").unwrap();
    let (b, c) = (a.standby().unwrap(), a.standby().unwrap());
    [&b, &c].into_iter().for_each(|standby| wait_until("it streams", || streams(standby)));
    [&b, &c].into_iter().for_each(|standby| caught_up(&a, standby));
    c.sql("SELECT pg_wal_replay_pause()").unwrap();
    b.control("promote").unwrap();
    write(&a, 100);
    let end = a.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    wait_until("c has it", || c.sql(&format!("SELECT pg_last_wal_receive_lsn() >= '{end}'")).unwrap() == "t");
    let ran = both(&b, &c);
    ran.has("error", "timeline", "because it has received WAL up to ");
    ran.has("error", "recovery-paused", "replay is paused");
    assert!(!ran.all.contains("pg_wal_replay_resume()\""), "{}", ran.all);
    assert!(fixes(ran.has("error", "recovery-paused", "")).is_empty(), "{}", ran.all);
    assert!(fixes(ran.has("error", "timeline", ""))[0].2.starts_with("pg_basebackup "), "{}", ran.all);
}

/// The standby asks a server that is not there, then is given as its own primary, then is away.
#[test]
fn whom_the_standby_asks() {
    let Some((primary, standby)) = pair("whom_the_standby_asks", "") else { return };
    primary.sql("CREATE TABLE filler (x text)").unwrap();
    let nobody = HeldPort::new().unwrap();
    standby.sql(&format!("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={} user=postgres'", nobody.port())).unwrap();
    reload(&standby);
    wait_until("nobody streams", || primary.sql("SELECT count(*) FROM pg_stat_replication").unwrap() == "0");
    write(&primary, 2000);
    let ran = both(&primary, &standby);
    let found = format!("primary_conninfo leads to host 127.0.0.1, port {}, which is not the primary that you gave", nobody.port());
    let fix = fixes(ran.has("error", "wal-receiver", &found));
    let slot = ran.has("warning", "slot-inactive", "\"standby\", of this standby, is not in use");
    assert!(fixes(slot).is_empty() && !ran.all.contains("pg_drop_replication_slot"), "{}", ran.all);
    assert_eq!(ran.problems(), ["slot-inactive", "wal-receiver"], "{}", ran.all);
    follow(&standby, &fix[0], "standby");
    reload(&standby);
    wait_for_stream(&primary, &standby);
    caught_up(&primary, &standby);
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);

    // Another one was made from the same files, and wants the same slot.
    {
        let twin = primary.standby().unwrap();
        twin.sql("ALTER SYSTEM SET primary_slot_name = 'standby'").unwrap();
        reload(&twin);
        let mut ran = both(&primary, &twin);
        wait_until("it is refused", || {
            ran = both(&primary, &twin);
            ran.of("primary-slot").iter().any(|finding| finding["severity"] == "error")
        });
        let fix = fixes(ran.has("error", "primary-slot", "somebody else uses that slot of the primary, by \"walreceiver\""));
        follow(&primary, &fix[0], "primary");
        follow(&twin, &fix[1], "standby");
        reload(&twin);
        wait_until("both stream", || primary.sql("SELECT count(*) FROM pg_replication_slots WHERE active").unwrap() == "2");
        wait_for_stream(&primary, &twin);
        caught_up(&primary, &twin);
        assert_eq!(both(&primary, &twin).problems(), [""; 0]);
        drop(twin);
        wait_until("its slot can go", || primary.sql("SELECT pg_drop_replication_slot('standby_2')").is_ok());
    }

    // The arguments.
    let ran = both(&standby, &primary);
    assert_eq!((ran.problems(), ran.findings.len()), (vec!["arguments"], 1), "{}", ran.all);
    let fix = fixes(ran.has("error", "arguments", "swapped"));
    let right = format!("-d \"host={} port={} user=postgres …\" --standby ", primary.socket().display(), primary.port());
    assert!(fix.len() == 1 && fix[0].0 == "here" && fix[0].2.contains(&right), "{fix:?}");
    for same in [&primary, &standby] {
        let ran = both(same, same);
        assert_eq!((ran.problems(), ran.findings.len()), (vec!["arguments"], 1), "{}", ran.all);
        ran.has("error", "arguments", "are the same");
    }

    // The file without which it is a primary with its next start.
    fs::remove_file(standby.data().join("standby.signal")).unwrap();
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["standby-signal"], "{}", ran.all);
    assert!(ran.fix("warning", "standby-signal", "no standby.signal").1.starts_with("touch DATADIR/standby.signal"));
    standby.put("standby.signal", b"").unwrap();
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);

    // A slot that the standby has for itself.
    standby.sql("SELECT pg_create_physical_replication_slot('left_over', true)").unwrap();
    write(&primary, 2000);
    caught_up(&primary, &standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["slot-inactive"], "{}", ran.all);
    let finding = ran.has("warning", "slot-inactive", "\"left_over\" is not in use");
    assert_eq!(finding["server"], "standby");
    follow(&standby, &fixes(finding)[0], "standby");
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);

    // Replay has come to a target: to resume it is to promote.
    standby.control("stop -m fast").unwrap();
    primary.sql("SELECT pg_create_restore_point('before_the_release')").unwrap();
    append(&standby, "recovery_target_name = 'before_the_release'");
    standby.control("start").unwrap();
    wait_until("replay pauses", || standby.sql("SELECT pg_is_wal_replay_paused()").unwrap() == "t");
    wait_for_stream(&primary, &standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["recovery-paused"], "{}", ran.all);
    let fix = fixes(ran.has("error", "recovery-paused", "replay is paused"));
    assert!(fix.len() == 1 && fix[0].2 == "recovery_target_name = ''", "{fix:?}");
    follow(&standby, &fix[0], "standby");
    standby.control("restart -m fast").unwrap();
    wait_for_stream(&primary, &standby);
    caught_up(&primary, &standby);
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);

    // It is stopped, and its slot waits for it.
    standby.control("stop -m fast").unwrap();
    write(&primary, 2000);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["slot-inactive", "standby-connection"], "{}", ran.all);
    assert!(!ran.all.contains("pg_drop_replication_slot"), "{}", ran.all);
    standby.control("start").unwrap();
    wait_for_stream(&primary, &standby);
    caught_up(&primary, &standby);
    assert_eq!(both(&primary, &standby).problems(), [""; 0]);
}

/// The slot of a standby that was away is lost, and with it the WAL that the standby needs; the archive has it.
#[test]
fn a_standby_whose_wal_is_gone() {
    let settings = "min_wal_size = 2MB\nmax_wal_size = 2MB\nwal_keep_size = 0\nmax_slot_wal_keep_size = 1MB\ncheckpoint_timeout = 1h\narchive_mode = on";
    let Some(primary) = server("a_standby_whose_wal_is_gone", settings) else { return };
    let archive = primary.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    give(&archive).unwrap();
    append(&primary, &"archive_command = 'test ! -f DIR/%f && cp %p DIR/%f'".replace("DIR", archive.to_str().unwrap()));
    reload(&primary);
    let (primary, standby) = with_standby(primary);
    primary.sql("CREATE TABLE filler (x text)").unwrap();
    standby.control("stop -m fast").unwrap();
    wait_until("the slot is lost", || {
        write(&primary, 2000);
        primary.sql("SELECT pg_switch_wal()").unwrap();
        primary.sql("CHECKPOINT").unwrap();
        primary.sql("SELECT wal_status FROM pg_replication_slots").unwrap() == "lost"
    });
    standby.control("start").unwrap();
    let mut ran = both(&primary, &standby);
    // Whenever it tries anew, there is a walreceiver for a moment.
    wait_until("it does not stream", || {
        ran = both(&primary, &standby);
        ran.of("wal-receiver").iter().any(|finding| finding["severity"] == "error")
    });
    let fix = fixes(ran.has("error", "wal-receiver", "and the oldest that the primary has begins at "));
    let slot = ran.has("error", "slot-lost", "\"standby\", of this standby, is lost");
    assert!(!ran.all.contains("pg_drop_replication_slot"), "{slot}");
    assert_eq!(ran.problems(), ["slot-lost", "wal-receiver"], "{}", ran.all);
    let (on, place, line) = &fix[0];
    let line = line.replace("/archive/", &format!("{}/", archive.display()));
    follow(&standby, &(on.clone(), place.clone(), line), "standby");
    reload(&standby);
    wait_until("the slot is in use again", || {
        primary.sql("SELECT active AND wal_status <> 'lost' FROM pg_replication_slots").unwrap() == "t"
    });
    wait_for_stream(&primary, &standby);
    caught_up(&primary, &standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
}

/// Commands that say success, that overwrite, that never come back; and a standby that archives, too.
#[test]
fn what_the_archive_command_does() {
    let Some(primary) = server("what_the_archive_command_does", "archive_mode = always\narchive_command = 'true'") else { return };
    let archive = primary.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    give(&archive).unwrap();
    let archive = archive.to_str().unwrap();
    let set = |command: &str| {
        let command = command.replace("DIR", archive).replace('\'', "''");
        primary.sql(&format!("ALTER SYSTEM SET archive_command = '{command}'")).unwrap();
        reload(&primary);
    };
    let cases = [
        ("true", "does nothing"),
        (":", "does nothing"),
        ("exit 0", "does nothing"),
        ("cp %p DIR/%f || true", "cannot fail"),
        ("test ! -f DIR/%f && cp %p DIR/%f; /bin/true", "cannot fail"),
        ("cp %p DIR/%f", "overwrites"),
        ("rsync -a %p DIR/%f", "overwrites"),
        ("cat < %p > DIR/%f", "overwrites"),
        ("mv %p DIR/%f", "takes the segment away"),
        ("/usr/local/bin/archive", "neither %p nor %f"),
    ];
    for (command, what) in cases {
        set(command);
        let ran = doctor(&["-d", &socket(&primary)]);
        let finding = ran.of("archive-command").into_iter().find(|finding| finding["found"].as_str().unwrap().contains(what));
        let fix = fixes(finding.unwrap_or_else(|| panic!("{command}: {}", ran.all)));
        let (on, place, line) = &fix[0];
        // Where it does not know the archive it shows an example.
        let line = line.replace("/archive/", &format!("{archive}/"));
        follow(&primary, &(on.clone(), place.clone(), line), "primary");
        reload(&primary);
        let ran = doctor(&["-d", &socket(&primary)]);
        assert_eq!(ran.problems(), [""; 0], "{command}: {}", ran.all);
    }
    primary.sql("CREATE TABLE filler (x text)").unwrap();
    primary.sql("SELECT pg_switch_wal()").unwrap();
    wait_until("it archives", || primary.sql("SELECT archived_count > 0 FROM pg_stat_archiver").unwrap() == "t");

    // It hangs, and no failure is counted.
    let good = primary.sql("SHOW archive_command").unwrap();
    set("sleep 1000 && cp %p DIR/%f");
    for _ in 0..4 {
        write(&primary, 10);
        primary.sql("SELECT pg_switch_wal()").unwrap();
    }
    let mut ran = doctor(&["-d", &socket(&primary)]);
    wait_until("it is seen to hang", || {
        ran = doctor(&["-d", &socket(&primary)]);
        !ran.of("archive-hangs").is_empty()
    });
    let fix = fixes(ran.has("warning", "archive-hangs", "files wait to be archived, and for "));
    assert!(fix[0].2.starts_with("ps -o pid,etime,args --ppid PID") && fix[1].2.contains("timeout 60"), "{fix:?}");
    set(&good);
    let archiver = primary.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'").unwrap();
    assert!(Command::new("pkill").args(["-P", &archiver]).status().unwrap().success());
    wait_until("all is archived", || {
        primary.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'").unwrap() == "0"
    });
    let ran = doctor(&["-d", &socket(&primary)]);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);

    // The standby archives to the same place: what the primary has archived it cannot, and that is told of the standby.
    // The primary comes first, as the standby is down meanwhile.
    let (primary, standby) = with_standby(primary);
    standby.control("-m fast stop").unwrap();
    write(&primary, 10);
    primary.sql("SELECT pg_switch_wal()").unwrap();
    wait_until("the primary has archived", || {
        primary.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'").unwrap() == "0"
    });
    standby.control("start").unwrap();
    wait_until("the standby fails", || standby.sql("SELECT failed_count > 0 FROM pg_stat_archiver").unwrap() == "t");
    wait_for_stream(&primary, &standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["archive-failing"], "{}", ran.all);
    let failing = ran.has("error", "archive-failing", "archiving fails");
    assert_eq!((&failing["server"], &failing["fix"][0]["on"]), (&Value::from("standby"), &Value::from("standby")), "{failing}");
    let same = "ALTER SYSTEM SET archive_command = 'if test -f DIR/%f; then cmp -s %p DIR/%f; else cp %p DIR/%f; fi'";
    standby.sql(&same.replace("DIR", archive)).unwrap();
    reload(&standby);
    wait_until("the standby archives", || {
        standby.sql("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver").unwrap() == "t"
    });
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
}

/// A logical slot that is in use and stays where it is: a transaction that was prepared, and forgotten.
#[test]
fn a_logical_slot_that_stays_behind() {
    let settings = "wal_level = logical\nmax_prepared_transactions = 2\nmin_wal_size = 2MB\nmax_wal_size = 2MB\nwal_keep_size = 0";
    let Some(server) = server("a_logical_slot_that_stays_behind", settings) else { return };
    server.sql("CREATE TABLE filler (x text); CREATE PUBLICATION p FOR ALL TABLES").unwrap();
    server.sql("SELECT pg_create_logical_replication_slot('subscription', 'pgoutput')").unwrap();
    let program = Postgres::find(Some(15)).unwrap().program("pg_recvlogical");
    let mut consumer = Command::new(program)
        .args(["-U", "postgres", "-d", "postgres", "-p", &server.port().to_string(), "-h", server.socket().to_str().unwrap()])
        .args(["-S", "subscription", "--start", "-o", "proto_version=1", "-o", "publication_names=p", "-s", "1", "-f", "/dev/null"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let active = "SELECT active FROM pg_replication_slots";
    wait_until("the slot is in use", || server.sql(active).unwrap() == "t");
    let ran = doctor(&["-d", &socket(&server)]);
    server.sql("BEGIN; INSERT INTO filler VALUES ('forgotten'); PREPARE TRANSACTION 'it''s'").unwrap();
    let behind = "SELECT wal_status = 'extended' AND pg_wal_lsn_diff(confirmed_flush_lsn, restart_lsn) > 4000000 FROM pg_replication_slots";
    wait_until("the slot stays behind", || {
        write(&server, 500);
        server.sql("CHECKPOINT").unwrap();
        server.sql(behind).unwrap() == "t"
    });
    let held = doctor(&["-d", &socket(&server)]);
    let problems = held.problems().join(" ");
    let fix = (problems == "slot-behind")
        .then(|| fixes(held.has("warning", "slot-behind", "logical slot \"subscription\" is in use; its restart position is ")));
    if let Some([(_, _, line), ..]) = fix.as_deref() {
        server.sql(line).unwrap();
        wait_until("the slot moves on", || {
            server.sql("CHECKPOINT").unwrap();
            write(&server, 1);
            server.sql(behind).unwrap() == "f" && doctor(&["-d", &socket(&server)]).problems().is_empty()
        });
    }
    consumer.kill().unwrap();
    consumer.wait().unwrap();
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    let fix = fix.unwrap_or_else(|| panic!("{}", held.all));
    assert_eq!(fix[0].2, "ROLLBACK PREPARED 'it''s';");
    assert!(!held.all.contains("pg_drop_replication_slot"), "{}", held.all);
}

/// A query on the standby that replay must not wait for without end.
#[test]
fn replay_that_waits_for_a_query() {
    let Some((primary, standby)) = pair("replay_that_waits_for_a_query", "max_standby_streaming_delay = -1") else { return };
    primary.sql("CREATE TABLE filler (x text); INSERT INTO filler VALUES ('old')").unwrap();
    caught_up(&primary, &standby);
    let mut config = postgres::Config::new();
    let mut reader =
        config.host(standby.socket().to_str().unwrap()).port(standby.port()).user("postgres").connect(postgres::NoTls).unwrap();
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM filler").unwrap();
    primary.sql("DROP TABLE filler").unwrap();
    let mut ran = both(&primary, &standby);
    wait_until("replay waits", || {
        ran = both(&primary, &standby);
        !ran.of("replay-waits").is_empty()
    });
    assert_eq!(ran.problems(), ["replay-waits"], "{}", ran.all);
    let fix = fixes(ran.has("warning", "replay-waits", "replay waits for queries of the standby (Lock relation)"));
    // The setting counts for the next one, and this one is to be ended.
    follow(&standby, &fix[1], "standby");
    reload(&standby);
    let first = standby.sql(fix[0].2.split("  --").next().unwrap()).unwrap();
    let pid = first.lines().find(|line| line.contains("FROM filler")).and_then(|line| line.split('|').next()).unwrap();
    assert!(fix[0].2.ends_with("pg_terminate_backend(pid) ends one"), "{fix:?}");
    standby.sql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    caught_up(&primary, &standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);

    // Another one is cancelled by itself.
    append(&standby, "max_standby_streaming_delay = 0");
    reload(&standby);
    primary.sql("CREATE TABLE filler (x text)").unwrap();
    caught_up(&primary, &standby);
    let mut reader = config.connect(postgres::NoTls).unwrap();
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM filler").unwrap();
    primary.sql("DROP TABLE filler").unwrap();
    caught_up(&primary, &standby);
    wait_until("it is counted", || !both(&primary, &standby).of("recovery-conflicts").is_empty());
    let ran = both(&primary, &standby);
    ran.has("note", "recovery-conflicts", "replay has cancelled queries: 1 (lock)");
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
}

/// An archiver that is slower than the server writes: no failure is counted, and more and more waits.
#[test]
fn an_archive_that_does_not_keep_up() {
    let Some(server) = server("an_archive_that_does_not_keep_up", "archive_mode = on\narchive_command = 'true'") else { return };
    let archive = server.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    give(&archive).unwrap();
    let set = |before: &str| {
        let command = format!("{before}test ! -f {0}/%f && cp %p {0}/%f", archive.display());
        server.sql(&format!("ALTER SYSTEM SET archive_command = '{command}'")).unwrap();
        reload(&server);
    };
    set("sleep 0.3; ");
    let switches = "DO $$ BEGIN FOR i IN 1..60 LOOP
        PERFORM pg_logical_emit_message(false, 'x', 'x'); PERFORM pg_switch_wal(); END LOOP; END $$";
    let mut ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    wait_until("it is far behind", || {
        server.sql(switches).unwrap();
        ran = doctor(&["-d", &socket(&server)]);
        !ran.problems().is_empty()
    });
    assert_eq!(ran.problems(), ["archive-backlog"], "{}", ran.all);
    let (_, place, line) = fixes(ran.has("warning", "archive-backlog", " files wait to be archived")).remove(0);
    assert_eq!(place, "SQL");
    let waiting = || server.sql(line.split("  --").next().unwrap()).unwrap().parse::<u32>().unwrap();
    assert!(waiting() >= 100, "{}", ran.all);
    set("");
    wait_until("all is archived", || waiting() == 0);
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
}

/// A logical slot whose consumer is there and does not take what comes.
#[test]
fn a_logical_slot_with_a_slow_consumer() {
    let settings = "wal_level = logical\nmin_wal_size = 2MB\nmax_wal_size = 2MB\nwal_keep_size = 0";
    let Some(server) = server("a_logical_slot_with_a_slow_consumer", settings) else { return };
    server.sql("CREATE TABLE filler (x text); CREATE PUBLICATION p FOR ALL TABLES").unwrap();
    server.sql("SELECT pg_create_logical_replication_slot('subscription', 'pgoutput')").unwrap();
    let program = Postgres::find(Some(15)).unwrap().program("pg_recvlogical");
    let mut consumer = Command::new(program)
        .args(["-U", "postgres", "-d", "postgres", "-p", &server.port().to_string(), "-h", server.socket().to_str().unwrap()])
        .args(["-S", "subscription", "--start", "-o", "proto_version=1", "-o", "publication_names=p", "-s", "1", "-f", "/dev/null"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &consumer.id().to_string()]).status().unwrap().success());
    wait_until("the slot is in use", || server.sql("SELECT active FROM pg_replication_slots").unwrap() == "t");
    signal("-STOP");
    let behind =
        "SELECT wal_status = 'extended' AND pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) > 4000000 FROM pg_replication_slots";
    wait_until("the slot stays behind", || {
        write(&server, 500);
        server.sql("CHECKPOINT").unwrap();
        server.sql(behind).unwrap() == "t"
    });
    let held = doctor(&["-d", &socket(&server)]);
    signal("-CONT");
    wait_until("the slot moves on", || {
        write(&server, 1);
        server.sql("CHECKPOINT").unwrap();
        doctor(&["-d", &socket(&server)]).problems().is_empty()
    });
    consumer.kill().unwrap();
    consumer.wait().unwrap();
    assert_eq!(held.problems(), ["slot-behind"], "{}", held.all);
    let finding = held.has("warning", "slot-behind", "logical slot \"subscription\" is in use; its restart position is ");
    assert!(finding["why"].as_str().unwrap().starts_with("its consumer does not keep up, or does not confirm what it has"), "{finding}");
    assert!(!held.all.contains("pg_drop_replication_slot"), "{}", held.all);
}

/// The summarizer of 17 and later, which goes on after an error as if nothing had been.
#[test]
fn a_wal_summarizer_that_fails() {
    use std::os::unix::fs::PermissionsExt;
    for postgres in Postgres::all().into_iter().filter(|postgres| postgres.major >= 17) {
        let server = start(&postgres, "summarize_wal = on");
        server.sql("CREATE TABLE filler (x text)").unwrap();
        let folder = server.wal().join("summaries");
        let allow = |mode: u32| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        let mut ran = doctor(&["-d", &socket(&server)]);
        assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
        allow(0o500);
        wait_until("it fails", || {
            write(&server, 100);
            server.sql("CHECKPOINT").unwrap();
            ran = doctor(&["-d", &socket(&server)]);
            !ran.problems().is_empty()
        });
        allow(0o700);
        assert_eq!(ran.problems(), ["wal-summarizer"], "{}", ran.all);
        let fix = fixes(ran.has("error", "wal-summarizer", "has failed, and tries again"));
        assert!(fix[0].2.starts_with("SELECT pg_current_logfile();"), "{fix:?}");
        wait_until("it goes on", || doctor(&["-d", &socket(&server)]).problems().is_empty());
    }
}

/// Neither side notices that the other one is gone.
#[test]
fn connections_without_timeouts() {
    let Some((primary, standby)) = pair("connections_without_timeouts", "wal_sender_timeout = 0") else { return };
    standby.sql("ALTER SYSTEM SET wal_receiver_timeout = 0").unwrap();
    reload(&standby);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), ["receiver-timeout"], "{}", ran.all);
    ran.has("note", "sender-timeout", "wal_sender_timeout is 0");
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'").unwrap();
    reload(&primary);
    wait_until("it is synchronous", || primary.sql("SELECT sync_state FROM pg_stat_replication").unwrap() == "sync");
    let ran = both(&primary, &standby);
    let mut problems = ran.problems();
    problems.sort_unstable();
    assert_eq!(problems, ["receiver-timeout", "sender-timeout"], "{}", ran.all);
    follow(&standby, &fixes(ran.has("warning", "receiver-timeout", ""))[0], "standby");
    follow(&primary, &fixes(ran.has("warning", "sender-timeout", ""))[0], "primary");
    [&primary, &standby].into_iter().for_each(reload);
    let ran = both(&primary, &standby);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
    assert!(ran.of("sender-timeout").is_empty(), "{}", ran.all);
}

/// What stands in postgresql.auto.conf is changed by SQL, which takes a size in quotes only.
#[test]
fn sizes_by_sql() {
    let Some(server) = server("sizes_by_sql", "") else { return };
    server.sql("ALTER SYSTEM SET wal_keep_size = 0").unwrap();
    reload(&server);
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), ["wal-keep"], "{}", ran.all);
    let fix = fixes(ran.has("warning", "wal-keep", "wal_keep_size is 0"));
    assert_eq!((fix[1].1.as_str(), fix[1].2.as_str()), ("SQL", "ALTER SYSTEM SET wal_keep_size = '1GB';"));
    follow(&server, &fix[1], "primary");
    reload(&server);
    let ran = doctor(&["-d", &socket(&server)]);
    assert_eq!(ran.problems(), [""; 0], "{}", ran.all);
}
