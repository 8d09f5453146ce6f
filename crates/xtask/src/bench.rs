//! Speed, side by side with the pg_waldump that is installed, on WAL that its own server has just written.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgwal_testkit::server::Postgres;

/// Compare pgwal's speed with the installed pg_waldump's
#[derive(clap::Args)]
pub struct Opts {
    /// WAL to write for the comparison, in MB
    #[arg(long, default_value_t = 512)]
    megabytes: u64,
    /// Runs of each command; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Major version of PostgreSQL to compare with [default: the newest installed]
    #[arg(long)]
    major: Option<u8>,
    /// A directory of segments to use in the place of new WAL
    #[arg(long)]
    wal: Option<PathBuf>,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

impl Opts {
    /// Builds pgwal, writes the WAL, runs both programs in turn and prints a table.
    pub fn run(self) -> Result<()> {
        let postgres = Postgres::find(self.major).ok_or("no PostgreSQL with a server and pg_waldump found")?;
        let pgwal = build()?;
        let dir = tempfile::tempdir()?;
        let wal = match &self.wal {
            Some(wal) => wal.clone(),
            None => {
                write_wal(&postgres, self.megabytes, dir.path())?;
                dir.path().to_owned()
            }
        };
        let mut segments: Vec<PathBuf> = fs::read_dir(&wal)?.flatten().map(|entry| entry.path()).filter(|path| is_segment(path)).collect();
        segments.sort();
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Err(format!("{}: no segments", wal.display()).into());
        };
        let bytes: u64 = segments.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
        let waldump = postgres.program("pg_waldump");
        println!("pg_waldump {}, {} MB of WAL in {} segments, median of {} runs", postgres.major, bytes >> 20, segments.len(), self.runs);
        println!("{:<44} {:>10} {:>10} {:>8}", "", "pg_waldump", "pgwal", "ratio");
        let rows: &[(&str, &[&str], &[&str])] = &[
            ("dump, one thread", &[], &["--threads=1"]),
            ("dump, all threads", &[], &[]),
            ("dump -b, one thread", &["-b"], &["-b", "--threads=1"]),
            ("dump --format json, all threads, against text", &[], &["--format=json"]),
            ("dump --stats=record, one thread", &["--stats=record"], &["--stats=record", "--threads=1"]),
            ("dump -q, one thread", &["-q"], &["-q", "--threads=1"]),
        ];
        for (name, theirs, ours) in rows {
            let mut times = [Vec::new(), Vec::new()];
            // In turn, so that both meet the same machine.
            for _ in 0..self.runs {
                times[0].push(time(Command::new(&waldump).args(*theirs).arg(first).arg(last))?);
                times[1].push(time(Command::new(&pgwal).arg("dump").args(*ours).arg(first).arg(last))?);
            }
            let [theirs, ours] = times.map(median);
            println!(
                "{name:<44} {:>8.2} s {:>8.2} s {:>6.1} x",
                theirs.as_secs_f64(),
                ours.as_secs_f64(),
                theirs.as_secs_f64() / ours.as_secs_f64()
            );
        }
        Ok(())
    }
}

fn build() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo).args(["build", "--release", "--quiet", "--package", "pgwal-cli"]).status()?;
    if !built.success() {
        return Err("pgwal does not build".into());
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    Ok(target.join("release/pgwal"))
}

/// pgbench's ordinary transactions until there is enough WAL; finished segments are copied to `to`.
fn write_wal(postgres: &Postgres, megabytes: u64, to: &Path) -> Result<()> {
    eprintln!("writing {megabytes} MB of WAL with pgbench …");
    let settings = "max_wal_size = 64GB\ncheckpoint_timeout = 1h\nwal_keep_size = 64GB\nautovacuum = on\nsynchronous_commit = off";
    let server = postgres.start(&[], settings)?;
    server.client("pgbench", ["-i", "-s", "10", "-q", "postgres"])?;
    server.sql("CHECKPOINT")?;
    let start = server.sql("SELECT pg_switch_wal()")?;
    loop {
        server.client("pgbench", ["-n", "-c", "4", "-T", "10", "postgres"])?;
        let written: u64 = server.sql(&format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}')::bigint"))?.parse()?;
        if written >> 20 >= megabytes {
            break;
        }
    }
    let first = server.sql(&format!("SELECT pg_walfile_name('{start}'::pg_lsn + 16777216)"))?;
    let last = server.sql("SELECT pg_walfile_name(pg_switch_wal())")?;
    for file in fs::read_dir(server.wal())?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if is_segment(&file.path()) && *first <= *name && *name < *last {
            fs::copy(file.path(), to.join(name))?;
        }
    }
    Ok(())
}

fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().parse::<pgwal_testkit::SegmentName>().is_ok())
}

fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    // pg_waldump ends with an error where the last record goes on in a segment that is not there; both have then read it all.
    command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
