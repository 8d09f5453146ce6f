//! The pg_wal of a running server.

use std::time::Instant;

use pgwal_testkit::server::{PATIENCE, Postgres};

use crate::verify;

#[test]
fn a_running_server_has_no_findings() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "live::a_running_server_has_no_findings") else { return };
    // Small segments and frequent checkpoints, so that files are used again.
    let settings = "wal_level = replica\nmax_wal_size = 8MB\nmin_wal_size = 6MB\nwal_recycle = on\ncheckpoint_timeout = 30s";
    let server = postgres.start(&["--wal-segsize=1"], settings).unwrap();
    server.client("pgbench", ["-i", "-s", "2", "-q", "postgres"]).expect("pgbench -i");
    server.while_pgbench_runs(|| {
        let (mut runs, mut leftover) = (0, 0);
        let start = Instant::now();
        // With and without files that wait to be used again.
        while runs < 40 || leftover < 10 {
            let (status, out, err) = verify(server.data(), ["."]);
            assert_eq!((status, err.as_str()), (0, ""), "run {runs}: {out}");
            leftover += usize::from(out.contains("kept for later use"));
            runs += 1;
            if runs % 10 == 0 {
                server.sql("CHECKPOINT").unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "{leftover} of {runs} runs saw files that wait to be used again");
        }
    });
    server.control("stop -m fast").unwrap();
    let (status, out, err) = verify(server.data(), ["."]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
}

#[test]
fn a_running_standby_has_no_findings() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "live::a_running_standby_has_no_findings") else { return };
    let settings = "wal_level = replica\nmax_wal_size = 8MB\nmin_wal_size = 6MB\ncheckpoint_timeout = 30s\nwal_keep_size = 64MB";
    let server = postgres.start(&["--wal-segsize=1"], settings).unwrap();
    server.client("pgbench", ["-i", "-s", "2", "-q", "postgres"]).expect("pgbench -i");
    let standby = server.standby().unwrap();
    let look = |when: &str| {
        let (status, out, err) = verify(standby.data(), ["."]);
        assert_eq!((status, err.as_str()), (0, ""), "{when}: {out}");
        assert!(out.contains("pg_control: "), "{out}");
    };
    server.while_pgbench_runs(|| {
        for run in 0..15 {
            look("running");
            if run % 4 == 3 {
                server.sql("CHECKPOINT").unwrap();
                standby.sql("CHECKPOINT").unwrap();
            }
        }
    });
    standby.control("stop -m immediate").unwrap();
    look("crashed");
    standby.control("start").unwrap();
    standby.control("stop -m fast").unwrap();
    look("shut down");
}
