//! Networks that cut, stall, and lead nowhere; what ends a receiver and what does not.

use super::proxy::Proxy;
use super::*;

#[test]
fn cut_at_any_moment_it_goes_on() {
    let Some((_, server)) = server("receive, cut", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let proxy = Proxy::new(&server);
    let dir = TempDir::new().unwrap();
    let mut random = Random(0xC07);
    // While it logs in, in the answer to a command, in a message, between two.
    proxy.cut([3, 150, 420].into_iter().chain((0..9).map(|_| 1000 + random.below(600_000) as usize)));
    let running = Running::start(receive_from(&proxy.conninfo(), dir.path(), ["-S", "s", "--create-slot"]));
    wait_until("the cuts", || {
        work(&server, 2000);
        proxy.cuts_left() == 0
    });
    work(&server, 2000);
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the last segment", || dir.path().join(&end).exists());
    let (status, said) = running.stop_by("-TERM");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("in the middle of a message") && said.contains("trying again in 0.5 s"), "{said}");
    assert!(same_as_the_server(&server, dir.path()) > 2);
    verified(dir.path());
}

#[test]
fn a_server_that_falls_silent_is_given_up_and_one_that_is_idle_is_not() {
    let Some((_, server)) = server("receive, stall", "wal_sender_timeout = 0") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let proxy = Proxy::new(&server);
    let dir = TempDir::new().unwrap();
    // Neither side says anything of itself: what is heard are the answers. A machine that is busy may take a second for one.
    let args = ["--timeout=4", "--status-interval=0", "-S", "s"];
    server.sql("SELECT pg_create_physical_replication_slot('s', true)").unwrap();
    let running = Running::start(receive_from(&proxy.conninfo(), dir.path(), args));
    wait_until("the receiver", || caught_up(&server));
    let mut replies = std::collections::BTreeSet::new();
    wait_until("signs of life", || {
        replies.insert(server.sql("SELECT reply_time FROM pg_stat_replication").unwrap());
        replies.len() > 3
    });
    assert_eq!(proxy.connections(), 1, "{}", running.said());

    proxy.stall(true);
    running.wait_for("the server has not answered for 4 s; trying again in ");
    // The next one does not even let it in.
    running.wait_for("timeout expired");
    work(&server, 3000);
    proxy.stall(false);
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the last segment", || dir.path().join(&end).exists());

    // Told to stop in a stall, it stops.
    proxy.stall(true);
    let (status, said) = running.stop_by("-INT");
    assert_eq!(status, Some(0), "{said}");
    assert!(same_as_the_server(&server, dir.path()) > 0);
    verified(dir.path());
}

/// The segment that is being written has what the server has flushed.
fn has_all(server: &Server, dir: &Path) -> bool {
    let end = server.sql("SELECT file_name || ' ' || file_offset FROM pg_walfile_name_offset(pg_current_wal_flush_lsn())").unwrap();
    let (name, offset) = end.split_once(' ').unwrap();
    let offset: usize = offset.parse().unwrap();
    let expected = fs::read(server.wal().join(name)).unwrap();
    fs::read(dir.join(format!("{name}.partial"))).is_ok_and(|found| found[..offset] == expected[..offset])
}

#[test]
fn told_to_stop_it_stops_at_once_with_a_whole_state() {
    let Some((_, server)) = server("receive, signals", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    for name in ["-INT", "-TERM"] {
        let running = Running::start(receive(&server, dir.path(), ["-S", "s", "--create-slot", "--if-not-exists", "--status-interval=0"]));
        work(&server, 3000);
        // It tells the server nothing yet.
        wait_until("the receiver", || has_all(&server, dir.path()));
        let (status, said) = running.stop_by(name);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.starts_with("pgwal: starting at ") && said.lines().count() == 1, "{said}");
        let acknowledged = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) < 1000 FROM pg_replication_slots";
        assert_eq!(server.sql(acknowledged).unwrap(), "t", "{}", server.sql("SELECT * FROM pg_replication_slots").unwrap());
        verified(dir.path());
    }
    // An idle server does not keep it waiting. It would wait 10 s for a farewell; a machine that is busy may take as long, but not always.
    let begin_to_end = || {
        let running = Running::start(receive(&server, dir.path(), ["-S", "s", "--status-interval=0"]));
        running.wait_for_start();
        wait_for_streams(&server, 1);
        let begin = Instant::now();
        assert_eq!(running.stop_by("-TERM").0, Some(0));
        begin.elapsed()
    };
    assert!((0..3).any(|_| begin_to_end() < Duration::from_secs(8)), "it waits for an idle server");
    // While it waits for the next try, too.
    let running = Running::start(receive_from("host=/nowhere", dir.path(), [""; 0]));
    running.wait_for("trying again in ");
    assert_eq!(running.stop_by("-TERM").0, Some(0));
}

#[test]
fn nothing_of_progress_is_in_a_pipe_and_quiet_says_nothing() {
    let Some((_, server)) = server("receive, quiet", "wal_sender_timeout = 0") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    let end = server.sql("SELECT pg_current_wal_lsn() + 2000000").unwrap();
    for (args, lines) in [(&["--endpos", &end][..], 1), (&["--endpos", &end, "--quiet"], 0)] {
        let child = receive(&server, dir.path(), args).spawn().unwrap();
        if lines == 1 {
            wait_for_streams(&server, 1);
        }
        work(&server, 10_000);
        let ran = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!((ran.status.code(), ran.stdout.len(), said.lines().count()), (Some(0), 0, lines), "{said}");
    }
    // An end that lies before what is there: nothing that comes by itself wakes it.
    let (status, said) = Running::start(receive(&server, dir.path(), ["--endpos=0/100000", "--status-interval=0", "--timeout=0"])).end();
    assert_eq!(status, Some(0), "{said}");
    assert!(server.sql(&format!("SELECT '{end}'::pg_lsn < pg_current_wal_lsn()")).unwrap() == "t");
    // The end of what there is: a server without work sends nothing after it.
    let end = server.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    let (status, said) = Running::start(receive(&server, dir.path(), ["--endpos", &end])).end();
    assert_eq!(status, Some(0), "{said}");
}
