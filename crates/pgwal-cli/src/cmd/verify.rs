//! `pgwal verify`: everything that the format allows to check.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use pgwal::check::{self, Checked, Event, Finding, Summary};
use pgwal::source::Wal;
use pgwal::{Lsn, TimelineId};
use serde::Serialize;

use crate::args;

/// Check WAL: page headers, records, payloads, and whether the segments belong together
#[derive(clap::Args, Debug)]
#[command(
    args_override_self = true,
    after_help = "\
Example: pgwal verify fixtures/v17/timeline2

It does not stop at damage: it goes on where records start again, and reports each damaged range once.

Exit status: 0 nothing found, 1 findings, 2 could not run."
)]
pub struct Opts {
    /// Segments, directories of segments, data directories, tar archives, `-` for standard input; two segments of one directory mean
    /// all from the first to the second [default: ., ./pg_wal, $PGDATA/pg_wal]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Look at nothing before this LSN
    #[arg(long, value_name = "LSN")]
    from: Option<Lsn>,
    /// Look at nothing from this LSN on
    #[arg(long, value_name = "LSN")]
    to: Option<Lsn>,
    /// Check the segments of this timeline only; decimal, or hexadecimal with 0x
    #[arg(long, value_name = "TLI", value_parser = args::timeline)]
    timeline: Option<TimelineId>,
    /// System identifier that all segments must have [default: the one that most of them have]
    #[arg(long, value_name = "ID")]
    system_identifier: Option<u64>,
    /// Stop at the first finding
    #[arg(long)]
    fail_fast: bool,
    /// Print findings only: no summary, no progress
    #[arg(short, long)]
    quiet: bool,
    /// Form of the output; json: one object for each finding, then one for the summary
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
    /// Worker threads; the output does not depend on their number [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// A line of `--format json`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Finding(&'a Finding),
    Summary(&'a Summary),
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        match self.verify(out) {
            Ok(summary) => Ok(ExitCode::from(u8::from(summary.findings > 0))),
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => Err(error),
            Err(error) => {
                eprintln!("pgwal: {error}");
                Ok(ExitCode::from(2))
            }
        }
    }

    fn verify(&self, out: &mut impl Write) -> Result<Summary, Box<dyn Error>> {
        let wal = self.open()?;
        let all_cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let options = check::Options {
            from: self.from,
            to: self.to,
            system_identifier: self.system_identifier,
            threads: self.threads.map_or_else(all_cores, NonZero::get),
        };
        let bar = self.progress_bar(wal.files().len());
        let mut written = Ok(());
        let is_live = is_being_written(&wal);
        let mut held = Vec::new();
        let mut summary = check::check(&wal, options, |event| {
            written = match event {
                Event::Finding(finding) if is_live => {
                    held.push(finding);
                    return ControlFlow::Continue(());
                }
                Event::Finding(finding) => bar.suspend(|| self.show(&finding, out)),
                Event::Checked(Checked { input, .. }) => {
                    bar.set_message(input);
                    bar.inc(1);
                    return ControlFlow::Continue(());
                }
                _ => return ControlFlow::Continue(()),
            };
            if written.is_err() || self.fail_fast { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        written?;
        if !held.is_empty() {
            let held = self.confirmed(held, options)?;
            let shown = if self.fail_fast { held.get(..1).unwrap_or_default() } else { &held };
            shown.iter().try_for_each(|finding| self.show(finding, out))?;
            summary.findings = shown.len() as u64;
        }
        if !self.quiet {
            match self.format {
                Form::Text => self.conclude(&summary, out)?,
                Form::Json => json_line(&Line::Summary(&summary), out)?,
            }
        }
        out.flush()?;
        Ok(summary)
    }

    fn open(&self) -> Result<Wal, Box<dyn Error>> {
        let segment = |path: &Path| if path.is_file() { args::name_of(path) } else { None };
        match self.paths.as_slice() {
            [] => Ok(Wal::open_all(&[args::default_directory()], self.timeline)?),
            [first, last] if first.parent() == last.parent() => match (segment(first), segment(last)) {
                (Some(from), Some(to)) => {
                    let parent = first.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
                    let mut wal = Wal::open_all(&[parent], self.timeline)?;
                    wal.keep_range(Some(from), Some(to));
                    Ok(wal)
                }
                _ => Ok(Wal::open_all(&self.paths, self.timeline)?),
            },
            paths => Ok(Wal::open_all(paths, self.timeline)?),
        }
    }

    /// What is still found when one looks again. A server that writes while its segments are read, one after the other, leaves
    /// places that do not fit together: the end of the WAL as it was, and behind it what came later.
    fn confirmed(&self, mut findings: Vec<Finding>, options: check::Options) -> Result<Vec<Finding>, Box<dyn Error>> {
        for _ in 0..LOOKS {
            std::thread::sleep(PAUSE);
            let mut again = Vec::new();
            check::check(&self.open()?, options, |event| {
                if let Event::Finding(finding) = event {
                    again.push((finding.input, finding.lsns.map(|lsns| lsns.start)));
                }
                ControlFlow::Continue(())
            });
            findings.retain(|finding| {
                let place = (&finding.input, finding.lsns.as_ref().map(|lsns| lsns.start));
                again.iter().any(|(input, start)| (input, *start) == place)
            });
            if findings.is_empty() {
                break;
            }
        }
        Ok(findings)
    }

    /// On a terminal only; elsewhere it shows nothing.
    fn progress_bar(&self, files: usize) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(files as u64);
        match ProgressStyle::with_template("{bar:30} {pos}/{len} files, {eta} left {wide_msg}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    fn show(&self, finding: &Finding, out: &mut impl Write) -> io::Result<()> {
        match self.format {
            Form::Text => writeln!(out, "{finding}\n"),
            Form::Json => json_line(&Line::Finding(finding), out),
        }
    }

    fn conclude(&self, summary: &Summary, out: &mut impl Write) -> io::Result<()> {
        for end in &summary.ends {
            writeln!(out, "Timeline {}: {}.", end.timeline, end.end)?;
        }
        let count = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        if !summary.leftover.is_empty() {
            writeln!(out, "{} behind the end of the WAL, kept for later use.", count(summary.leftover.len(), "segment"))?;
        }
        if !summary.vanished.is_empty() {
            writeln!(out, "{} gone before it was read, as a server removes old ones.", count(summary.vanished.len(), "segment"))?;
        }
        write!(out, "Checked {}, {} records, {} bytes", count(summary.segments as usize, "segment"), summary.records, summary.bytes)?;
        if let Some(lsns) = &summary.lsns {
            write!(out, ", {} to {}", lsns.start, lsns.end)?;
        }
        let timelines: Vec<String> = summary.timelines.iter().map(ToString::to_string).collect();
        if !timelines.is_empty() {
            write!(out, ", timeline{} {}", if timelines.len() == 1 { "" } else { "s" }, timelines.join(", "))?;
        }
        match summary.findings {
            0 => writeln!(out, ": nothing found."),
            _ if self.fail_fast => writeln!(out, ", then stopped at the first finding."),
            findings => writeln!(out, ": {}.", count(findings as usize, "finding")),
        }
    }
}

/// Looks at WAL that is being written before something is said to be wrong with it, and the time between them.
const LOOKS: usize = 2;
const PAUSE: Duration = Duration::from_millis(300);
/// A file that was written to such a short time ago may be one that a server writes to.
const RECENT: Duration = Duration::from_secs(60);

fn is_being_written(wal: &Wal) -> bool {
    let is_recent = |path: &str| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        // A time to come is as good as now.
        modified.is_ok_and(|time| time.elapsed().map_or(true, |age| age < RECENT))
    };
    wal.files().any(|(path, _)| is_recent(path))
}

fn json_line(line: &Line<'_>, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
}
