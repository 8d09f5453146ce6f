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
    /// WAL with page images to write for the comparison, in MB; two fifths of that with small records
    #[arg(long, default_value_t = 560)]
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
        let written = tempfile::tempdir()?;
        let sets = match &self.wal {
            Some(wal) => vec![(wal.display().to_string(), wal.clone())],
            None => {
                let pgbench = write_wal(&postgres, self.megabytes, "", &written.path().join("pgbench"))?;
                let small = write_wal(&postgres, self.megabytes * 2 / 5, "full_page_writes = off", &written.path().join("small"))?;
                vec![
                    ("pgbench, with page images".to_owned(), pgbench),
                    ("pgbench, small records (full_page_writes = off)".to_owned(), small),
                ]
            }
        };
        let waldump = postgres.program("pg_waldump");
        sets.iter().try_for_each(|(name, wal)| self.compare(name, wal, postgres.major, &waldump, &pgwal))
    }

    /// Runs both programs on the segments in `wal`.
    fn compare(&self, name: &str, wal: &Path, major: u8, waldump: &Path, pgwal: &Path) -> Result<()> {
        let mut segments: Vec<PathBuf> = fs::read_dir(wal)?.flatten().map(|entry| entry.path()).filter(|path| is_segment(path)).collect();
        segments.sort();
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Err(format!("{}: no segments", wal.display()).into());
        };
        let bytes: u64 = segments.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
        println!("{name}: {} MB in {} segments; pg_waldump {major}; median of {} runs", bytes >> 20, segments.len(), self.runs);
        println!("{:<44} {:>10} {:>10} {:>8}", "", "pg_waldump", "pgwal", "ratio");
        let range: &[&Path] = &[first, last];
        let one: &[&Path] = &[first];
        let all: &[&Path] = &[wal];
        type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a Path], &'a [&'a str], &'a [&'a Path]);
        let rows: &[Row<'_>] = &[
            ("dump, one thread", &[], range, &["dump", "--threads=1"], range),
            ("dump", &[], range, &["dump"], range),
            ("dump of one segment", &[], one, &["dump"], one),
            ("dump -b, one thread", &["-b"], range, &["dump", "-b", "--threads=1"], range),
            ("dump --format json, against text", &[], range, &["dump", "--format=json"], range),
            ("verify, against -q", &["-q"], range, &["verify", "--quiet"], all),
            ("stats, against -z", &["-z"], range, &["stats"], all),
            ("dump -q, one thread", &["-q"], range, &["dump", "-q", "--threads=1"], range),
            ("dump --stats=record, one thread", &["--stats=record"], range, &["dump", "--stats=record", "--threads=1"], range),
        ];
        for (name, theirs, their_files, ours, our_files) in rows {
            let mut times = [Vec::new(), Vec::new()];
            // In turn, so that both meet the same machine.
            for _ in 0..self.runs {
                times[0].push(time(Command::new(waldump).args(*theirs).args(*their_files))?);
                times[1].push(time(Command::new(pgwal).args(*ours).args(*our_files))?);
            }
            let [theirs, ours] = times.map(|times| median(times).as_secs_f64());
            println!("{name:<44} {theirs:>8.3} s {ours:>8.3} s {:>6.1} x", theirs / ours);
        }
        println!();
        Ok(())
    }
}

/// Builds pgwal as it is released; where it is.
pub fn build() -> Result<PathBuf> {
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
fn write_wal(postgres: &Postgres, megabytes: u64, setting: &str, to: &Path) -> Result<PathBuf> {
    eprintln!("writing {megabytes} MB of WAL with pgbench … {setting}");
    fs::create_dir(to)?;
    let settings = "max_wal_size = 64GB\ncheckpoint_timeout = 1h\nwal_keep_size = 64GB\nautovacuum = on\nsynchronous_commit = off";
    let server = postgres.start(&[], &format!("{settings}\n{setting}"))?;
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
    Ok(to.to_owned())
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
