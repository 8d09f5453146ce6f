//! CPU time of receiving WAL, side by side with the pg_receivewal that is installed, from one server and of the same WAL.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use pgwal_testkit::server::{Postgres, Server};

use crate::bench::build;
use crate::interrupt;

/// Compare the CPU time of pgwal receive with the installed pg_receivewal's
#[derive(clap::Args)]
pub struct Opts {
    /// WAL to write and to receive, in MB
    #[arg(long, default_value_t = 1000)]
    megabytes: u64,
    /// Runs of each program; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Major version of PostgreSQL to compare with, 15 at least [default: the newest installed]
    #[arg(long)]
    major: Option<u8>,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a run took: seconds of CPU as user and in the system, and in all by the clock.
#[derive(Clone, Copy)]
struct Took {
    user: f64,
    system: f64,
    wall: f64,
}

impl Opts {
    /// Builds pgwal, has a server write WAL, runs both programs in turn and prints a table.
    pub fn run(self) -> Result<()> {
        interrupt::watch()?;
        let postgres = Postgres::find(self.major).ok_or("no PostgreSQL with a server and pg_waldump found")?;
        let pgwal = build()?;
        let settings =
            "max_wal_senders = 4\nmax_replication_slots = 4\nmax_wal_size = 64GB\ncheckpoint_timeout = 1h\nsynchronous_commit = off";
        let server = postgres.start(&[], settings)?;
        let (megabytes, end) = self.write_wal(&server)?;
        println!("{megabytes} MB of pgbench's WAL in segments of 16 MB; PostgreSQL {}; median of {} runs", postgres.major, self.runs);
        let mut took = [Vec::new(), Vec::new()];
        // In turn, so that both meet the same machine.
        for _ in 0..self.runs {
            for (program, took) in [None, Some(pgwal.as_path())].into_iter().zip(&mut took) {
                interrupt::check()?;
                took.push(receive(&postgres, &server, program, &end)?);
            }
        }
        println!("{:<16} {:>12} {:>12} {:>12} {:>12}", "per GB", "CPU", "user", "system", "by the clock");
        for (name, took) in ["pg_receivewal", "pgwal receive"].into_iter().zip(&took) {
            let median = |value: fn(&Took) -> f64| {
                let mut values: Vec<f64> = took.iter().map(|took| value(took) * 1024.0 / megabytes as f64).collect();
                values.sort_by(f64::total_cmp);
                values.get(values.len() / 2).copied().unwrap_or_default()
            };
            let (cpu, user, system, wall) = (median(|t| t.user + t.system), median(|t| t.user), median(|t| t.system), median(|t| t.wall));
            println!("{name:<16} {cpu:>10.2} s {user:>10.2} s {system:>10.2} s {wall:>10.2} s");
        }
        Ok(())
    }

    /// WAL behind the slot `base`: how many megabytes, and the last LSN that is received.
    fn write_wal(&self, server: &Server) -> Result<(u64, String)> {
        eprintln!("writing {} MB of WAL with pgbench …", self.megabytes);
        server.client("pgbench", ["-i", "-s", "10", "-q", "postgres"])?;
        server.sql("SELECT pg_switch_wal()")?;
        server.sql("CHECKPOINT")?;
        server.sql("SELECT pg_create_physical_replication_slot('base', true)")?;
        loop {
            interrupt::check()?;
            server.client("pgbench", ["-n", "-c", "4", "-T", "10", "postgres"])?;
            let written = "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn)::bigint >> 20 FROM pg_replication_slots";
            let written: u64 = server.sql(written)?.parse()?;
            if written >= self.megabytes {
                let switched = server.sql("SELECT pg_switch_wal()")?;
                return Ok((written, server.sql(&format!("SELECT '{switched}'::pg_lsn - 8"))?));
            }
        }
    }
}

/// Receives from where the slot `base` is up to `end`, into a new directory: with pgwal, or else with pg_receivewal.
fn receive(postgres: &Postgres, server: &Server, pgwal: Option<&Path>, end: &str) -> Result<Took> {
    server.sql("SELECT pg_copy_physical_replication_slot('base', 'run')")?;
    let dir = tempfile::tempdir()?;
    let mut command = match pgwal {
        Some(pgwal) => {
            let mut command = Command::new(pgwal);
            command.args(["receive", "--quiet", "-d", &format!("host={} user=postgres", server.socket().display())]);
            command
        }
        None => {
            let mut command = Command::new(postgres.program("pg_receivewal"));
            command.args(["-U", "postgres", "-h"]).arg(server.socket());
            command
        }
    };
    command.args(["--slot", "run", "--no-loop", "--endpos", end, "-D"]).arg(dir.path());
    let (before, start) = (children()?, Instant::now());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    let (after, wall) = (children()?, start.elapsed().as_secs_f64());
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    // The server may take a moment to notice that its client is gone.
    while server.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'run'")? == "t" {}
    server.sql("SELECT pg_drop_replication_slot('run')")?;
    Ok(Took { user: after.0 - before.0, system: after.1 - before.1, wall })
}

/// Seconds of CPU that the children have taken that have ended, as users and in the system.
fn children() -> Result<(f64, f64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.num_microseconds() as f64 / 1e6;
    Ok((seconds(usage.user_time()), seconds(usage.system_time())))
}
