//! The pg_wal of a running server.

use pgwal_testkit::server::Postgres;

use crate::verify;

#[test]
fn a_running_server_has_no_findings() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "live::a_running_server_has_no_findings") else { return };
    // Small segments and frequent checkpoints, so that files are used again.
    let settings = "wal_level = replica\nmax_wal_size = 8MB\nmin_wal_size = 6MB\nwal_recycle = on\ncheckpoint_timeout = 30s";
    let server = postgres.start(&["--wal-segsize=1"], settings).unwrap();
    server.client("pgbench", ["-i", "-s", "2", "-q", "postgres"]).expect("pgbench -i");
    let mut leftover = 0;
    std::thread::scope(|scope| {
        let load = scope.spawn(|| server.client("pgbench", ["-c", "2", "-T", "8", "postgres"]).expect("pgbench"));
        let mut runs = 0;
        while !load.is_finished() {
            let (status, out, err) = verify(server.data(), ["."]);
            assert_eq!((status, err.as_str()), (0, ""), "run {runs}: {out}");
            leftover += usize::from(out.contains("kept for later use"));
            runs += 1;
            if runs % 10 == 0 {
                server.sql("CHECKPOINT").unwrap();
            }
        }
        assert!(runs > 5, "{runs} runs");
    });
    assert!(leftover > 0, "no file waits to be used again");
    server.control("stop -m fast").unwrap();
    let (status, out, err) = verify(server.data(), ["."]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
}
