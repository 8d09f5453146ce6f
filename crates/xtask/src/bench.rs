//! Speed, side by side with the pg_waldump that is installed, on WAL that its own server has just written.

mod limits;
mod wal;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgwal_testkit::server::Postgres;

use crate::interrupt;
use limits::Limits;
use wal::Kind;

/// Compare pgwal's speed with the installed pg_waldump's
///
/// Four kinds of WAL are written by the installed server: pgbench with page images, small records, COPY, and page images alone. Every
/// command runs as a whole process, on WAL that was read from disk into the page cache, with its output going to /dev/null, and takes turns
/// with pg_waldump.
#[derive(clap::Args)]
pub struct Opts {
    /// WAL of pgbench to write for the comparison, in MB; half as much of each other kind
    #[arg(long, default_value_t = 320)]
    megabytes: u64,
    /// Runs of each command; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Major version of PostgreSQL to compare with [default: the newest installed]
    #[arg(long)]
    major: Option<u8>,
    /// Kinds of WAL to write
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    kinds: Vec<Kind>,
    /// A directory of segments to use instead of new WAL
    #[arg(long)]
    wal: Option<PathBuf>,
    /// Keep the WAL that was written in this directory, for --wal
    #[arg(long, conflicts_with = "wal", value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The program to measure [default: build it as it is released]
    #[arg(long, value_name = "FILE")]
    pgwal: Option<PathBuf>,
    /// Print the tables as Markdown
    #[arg(long)]
    markdown: bool,
}

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is compared: a run of pg_waldump, and runs of pgwal that do the same or more. `{}` stands for the segments.
struct Group {
    theirs: &'static [&'static str],
    ours: &'static [Row],
    /// Only the first segment.
    is_short: bool,
}

struct Row {
    name: &'static str,
    args: &'static [&'static str],
    /// The least ratio that pgwal is held to; zero: none.
    floor: f64,
}

const GROUPS: &[Group] = &[
    Group {
        theirs: &[],
        ours: &[
            Row { name: "dump, one thread", args: &["dump", "--threads=1"], floor: 5.0 },
            Row { name: "dump", args: &["dump"], floor: 10.0 },
            Row { name: "dump --format json, against text", args: &["dump", "--format=json"], floor: 6.0 },
        ],
        is_short: false,
    },
    Group {
        theirs: &["-b"],
        ours: &[Row { name: "dump -b, one thread", args: &["dump", "-b", "--threads=1"], floor: 0.0 }],
        is_short: false,
    },
    Group {
        theirs: &["-q"],
        ours: &[
            Row { name: "dump -q, one thread", args: &["dump", "-q", "--threads=1"], floor: 2.0 },
            Row { name: "verify, against -q", args: &["verify", "--quiet"], floor: 4.0 },
        ],
        is_short: false,
    },
    Group { theirs: &["-z"], ours: &[Row { name: "stats, against -z", args: &["stats"], floor: 3.5 }], is_short: false },
    Group {
        theirs: &["--stats=record"],
        ours: &[Row { name: "dump --stats=record, one thread", args: &["dump", "--stats=record", "--threads=1"], floor: 2.0 }],
        is_short: false,
    },
    Group {
        theirs: &[],
        ours: &[
            Row { name: "dump of one segment", args: &["dump"], floor: 1.0 },
            Row { name: "dump --format json of one segment", args: &["dump", "--format=json"], floor: 1.0 },
        ],
        is_short: true,
    },
    Group {
        theirs: &["-q"],
        ours: &[
            Row { name: "dump -q of one segment", args: &["dump", "-q"], floor: 1.0 },
            Row { name: "verify of one segment, against -q", args: &["verify", "--quiet"], floor: 1.0 },
        ],
        is_short: true,
    },
    Group {
        theirs: &["-z"],
        ours: &[
            Row { name: "dump --stats of one segment", args: &["dump", "--stats"], floor: 1.0 },
            Row { name: "stats of one segment, against -z", args: &["stats"], floor: 1.0 },
        ],
        is_short: true,
    },
];

impl Opts {
    /// Builds pgwal, writes the WAL, runs both programs in turn and prints a table for each kind of WAL.
    pub fn run(self) -> Result<()> {
        interrupt::watch()?;
        let postgres = Postgres::find(self.major).ok_or("no PostgreSQL with a server and pg_waldump found")?;
        let pgwal = match &self.pgwal {
            Some(pgwal) => pgwal.clone(),
            None => {
                eprintln!("building pgwal …");
                build()?
            }
        };
        let written = tempfile::tempdir()?;
        let home = self.keep.as_deref().unwrap_or(written.path());
        fs::create_dir_all(home)?;
        let mut sets = Vec::new();
        match &self.wal {
            Some(wal) => sets.push((wal.display().to_string(), wal.clone())),
            None => {
                for &kind in &self.kinds {
                    let megabytes = if kind == Kind::Pgbench { self.megabytes } else { self.megabytes / 2 };
                    eprintln!("writing {megabytes} MB of WAL: {} …", kind.describe());
                    sets.push((kind.describe().to_owned(), wal::write(&postgres, kind, megabytes, &home.join(kind.name()))?));
                }
            }
        }
        eprintln!("measuring what the machine can do …");
        let limits = Limits::measure()?;
        println!("{limits}");
        let waldump = postgres.program("pg_waldump");
        for (name, wal) in &sets {
            self.compare(name, wal, postgres.major, &waldump, &pgwal, &limits)?;
        }
        Ok(())
    }

    /// Runs both programs on the segments in `wal`.
    fn compare(&self, name: &str, wal: &Path, major: u8, waldump: &Path, pgwal: &Path, limits: &Limits) -> Result<()> {
        let mut segments: Vec<PathBuf> =
            fs::read_dir(wal)?.flatten().map(|entry| entry.path()).filter(|path| wal::is_segment(path)).collect();
        segments.sort();
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Err(format!("{}: no segments", wal.display()).into());
        };
        wal::read_from_disk(&segments)?;
        let len = |path: &PathBuf| fs::metadata(path).map(|metadata| metadata.len());
        let all = segments.iter().map(len).sum::<std::io::Result<u64>>()?;
        let one = len(first)?;
        println!("\n{name}: {} MB in {} segments; pg_waldump {major}; median of {} runs", all >> 20, segments.len(), self.runs);
        self.line(["", "pg_waldump", "pgwal", "ratio", "floor", "pgwal reads", "of the limit"]);
        if self.markdown {
            println!("| --- | --- | --- | --- | --- | --- | --- |");
        }
        for group in GROUPS {
            let (files, bytes): (&[&Path], u64) = if group.is_short { (&[first], one) } else { (&[first, last], all) };
            // Short runs vary more.
            let runs = if group.is_short { 4 * self.runs + 1 } else { self.runs };
            let names: Vec<&str> = group.ours.iter().map(|row| row.name).collect();
            eprintln!("{}: {} …", name.split(',').next().unwrap_or(name), names.join("; "));
            let mut theirs = Vec::new();
            let mut ours = vec![Vec::new(); group.ours.len()];
            // In turn, so that all meet the same machine.
            for _ in 0..runs {
                theirs.push(time(Command::new(waldump).args(group.theirs).args(files))?);
                for (row, times) in group.ours.iter().zip(&mut ours) {
                    let is_dump = row.args.first() == Some(&"dump");
                    // `verify` and `stats` take a directory or single files, not a range.
                    let files: &[&Path] = if is_dump || group.is_short { files } else { &[wal] };
                    times.push(time(Command::new(pgwal).args(row.args).args(files))?);
                }
            }
            let theirs = median(theirs).as_secs_f64();
            for (row, times) in group.ours.iter().zip(ours) {
                let ours = median(times).as_secs_f64();
                let rate = bytes as f64 / ours;
                let threads = if row.args.contains(&"--threads=1") { 1 } else { limits.threads };
                let ratio = theirs / ours;
                let floor = match row.floor {
                    0.0 => String::new(),
                    floor if ratio < floor => format!("{floor:.1} MISSED"),
                    floor => format!("{floor:.1}"),
                };
                self.line([
                    row.name,
                    &format!("{theirs:.3} s"),
                    &format!("{ours:.3} s"),
                    &format!("{ratio:.1} x"),
                    &floor,
                    &format!("{:.2} GB/s", rate / 1e9),
                    &format!("{:.0} %", 100.0 * rate / limits.rate(threads)),
                ]);
            }
        }
        Ok(())
    }

    fn line(&self, cells: [&str; 7]) {
        if self.markdown {
            return println!("| {} |", cells.join(" | "));
        }
        let [name, theirs, ours, ratio, floor, rate, limit] = cells;
        println!("{name:<36} {theirs:>10} {ours:>10} {ratio:>8} {floor:>11} {rate:>12} {limit:>13}");
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

fn time(command: &mut Command) -> Result<Duration> {
    interrupt::check()?;
    let start = Instant::now();
    // pg_waldump ends with an error where the last record goes on in a segment that is not there; both have then read it all.
    command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let took = start.elapsed();
    // What a signal cut short does not count.
    interrupt::check()?;
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
