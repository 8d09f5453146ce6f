//! Servers of every major that is found.

use super::*;

#[test]
fn servers_of_every_major() {
    let servers = Postgres::all();
    if servers.is_empty() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "receive, every major: no PostgreSQL found");
        return eprintln!("SKIPPED receive, every major: no PostgreSQL found");
    }
    for postgres in servers {
        let major = postgres.major;
        // Nothing is removed before the first checkpoint that comes by itself.
        let settings = "wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10\nautovacuum = off\ncheckpoint_timeout = 1h";
        let sizes: &[&str] = if major > 10 { &["--wal-segsize=1"] } else { &[] };
        let server = postgres.start(sizes, settings).unwrap();
        let mut client = postgres::Client::connect(&format!("host={} user=postgres", server.socket().display()), postgres::NoTls).unwrap();
        client.batch_execute("CREATE TABLE t (i int, x text)").unwrap();
        // A slot that keeps WAL from before anybody uses it.
        client.batch_execute("SELECT pg_create_physical_replication_slot('early', true)").unwrap();
        client.batch_execute("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i").unwrap();
        client.batch_execute("SELECT pg_switch_wal()").unwrap();
        let dirs = ["none", "zstd"].map(|method| (method, TempDir::new().unwrap()));
        let receivers = dirs.each_ref().map(|(method, dir)| {
            let args = ["-S", method, "--create-slot", "--status-interval=1", "-Z", method];
            Running::start(receive(&server, dir.path(), args))
        });
        for running in &receivers {
            running.wait_for_start();
            assert!(!running.said().contains("it is not known where slot "), "{major}: {}", running.said());
        }
        for _ in 0..3 {
            client.batch_execute("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i").unwrap();
        }
        let end: String = client.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).unwrap().get(0);
        for ((method, dir), running) in dirs.iter().zip(receivers) {
            let suffix = if *method == "zstd" { ".zst" } else { "" };
            wait_until(&format!("{major}, {method}"), || dir.path().join(format!("{end}{suffix}")).exists());
            let (status, said) = running.stop_by("-INT");
            assert_eq!(status, Some(0), "{major}: {said}");
            assert!(same_as_the_server(&server, dir.path()) >= if major > 10 { 3 } else { 1 }, "{major}: {said}");
            verified(dir.path());
        }
        let early = "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots WHERE slot_name = 'early'";
        let (first, dir): (String, _) = (client.query_one(early, &[]).unwrap().get(0), TempDir::new().unwrap());
        let running = Running::start(receive(&server, dir.path(), ["-S", "early"]));
        wait_until(&format!("{major}, early"), || dir.path().join(&end).exists());
        assert_eq!(running.stop_by("-INT").0, Some(0), "{major}");
        assert!(dir.path().join(&first).exists() && first < end, "{major}: it starts where the slot is");
        assert!(same_as_the_server(&server, dir.path()) >= 2, "{major}");
        eprintln!("PostgreSQL {major}: all segments are the server's");
    }
}
