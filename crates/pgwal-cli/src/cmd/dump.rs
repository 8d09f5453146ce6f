//! `pgwal dump`: records as text, as JSON Lines, or counted.

use std::error::Error;
use std::io::{self, Write};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use pgwal::filter::Filter;
use pgwal::rmgr::RMGRS;
use pgwal::scan::{self, Stop, Summary, Work, scan};
use pgwal::stats::Stats;
use pgwal::text::{Text, Zone};
use pgwal::{EndReason, Lsn, RawRecord, WalFormat, json, waldump};

use crate::args::{FilterArgs, RmgrArg, SegmentArgs};

/// Print records: as that major's own pg_waldump does, or as JSON Lines
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example: pgwal dump --rmgr Heap --limit 3 fixtures/v17/pgbench/000000010000000000000025

Exit status: 0 the WAL was read to its end, or to the end asked for; 1 damage, or an input that cannot be read; 2 wrong options.")]
pub struct Opts {
    #[command(flatten)]
    segments: SegmentArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Show block references on lines of their own
    #[arg(short, long)]
    bkp_details: bool,
    /// Keep reading: wait for more WAL at its end
    #[arg(short, long)]
    follow: bool,
    /// Stop after this many records
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<NonZero<u64>>,
    /// Print no records and no statistics, only what is wrong
    #[arg(short, long)]
    quiet: bool,
    /// Show statistics instead of records, by resource manager, or with =record by record type
    #[arg(short = 'z', long, value_name = "BY", num_args = 0..=1, require_equals = true, default_missing_value = "rmgr")]
    stats: Option<StatsBy>,
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
    /// Worker threads; the output does not depend on their number [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatsBy {
    Rmgr,
    Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        if self.filter.rmgr.contains(&RmgrArg::List) {
            RMGRS.iter().try_for_each(|rmgr| writeln!(out, "{}", rmgr.name))?;
            return Ok(ExitCode::SUCCESS);
        }
        let work = Records {
            filter: self.filter.filter(),
            zone: Zone::local(),
            show: match (self.quiet, self.stats, self.format) {
                (true, ..) => Show::Nothing,
                (_, Some(_), _) => Show::Statistics,
                (_, _, Form::Json) => Show::Json,
                (_, _, Form::Text) => Show::Text { details: self.bkp_details },
            },
            limit: self.limit.map(NonZero::get),
            taken: AtomicU64::new(0),
        };
        let all_cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = match self.limit {
            Some(_) => 1, // records are counted in their order
            None => self.threads.map_or_else(all_cores, NonZero::get),
        };
        let mut totals = Totals::default();
        let mut start = self.segments.start;
        let (summary, partial) = loop {
            let selection = self.segments.open(self.follow)?;
            let options = scan::Options { start: start.or(selection.start), end: selection.end, threads };
            let mut written = Ok(());
            let summary = scan(&selection.wal, options, &work, |part| {
                written = totals.take(part, out);
                if written.is_err() || work.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            written?;
            totals.first = totals.first.or(summary.first);
            match &summary.stop {
                Stop::End(end) if self.follow => {
                    out.flush()?;
                    start = Some(end.lsn).filter(|lsn| lsn.is_valid()).or(start);
                    std::thread::sleep(Duration::from_secs(1));
                }
                _ => break (summary, selection.partial),
            }
        };
        if let (Some(by), Some(fmt), false) = (self.stats, totals.fmt, self.quiet) {
            let report = totals.stats.report(by == StatsBy::Record, fmt, totals.first.unwrap_or_default());
            match self.format {
                Form::Text => {
                    let mut text = Text::new(fmt, work.zone.clone());
                    report.write_text(fmt, &mut text);
                    out.write_all(text.as_bytes())?;
                }
                Form::Json => {
                    serde_json::to_writer(&mut *out, &report)?;
                    writeln!(out)?;
                }
            }
        }
        out.flush()?;
        let asked = self.segments.start.zip(totals.first).filter(|(asked, first)| asked < first);
        if let Some((asked, first)) = asked {
            eprintln!("pgwal: the first record after {asked} is at {first}, {} bytes further", first - asked);
        }
        Ok(conclude(&summary, partial, totals.bad_payloads))
    }
}

/// Says on standard error why the reading stopped, where that is worth saying.
fn conclude(summary: &Summary, partial: bool, bad_payloads: u64) -> ExitCode {
    let good = match &summary.stop {
        // The segments asked for were read; their last record may go on in the next one.
        Stop::End(end) if partial && matches!(end.reason, EndReason::NoMoreInput | EndReason::Unfinished { .. }) => true,
        Stop::End(end) => {
            eprintln!("pgwal: {end}");
            true
        }
        Stop::Damage(error) => {
            eprintln!("pgwal: {error}");
            false
        }
        Stop::Source(error) => {
            eprintln!("pgwal: {error}");
            false
        }
        Stop::Reached(_) | Stop::Enough => true,
    };
    if good && bad_payloads == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is made of each record.
struct Records {
    filter: Filter,
    zone: Zone,
    show: Show,
    limit: Option<u64>,
    /// Records that passed the filter; with a limit, only one thread counts.
    taken: AtomicU64,
}

#[derive(Clone, Copy)]
enum Show {
    Nothing,
    Statistics,
    Text { details: bool },
    Json,
}

impl Records {
    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.taken.load(Ordering::Relaxed) >= limit)
    }
}

/// What the records of one extent come to.
struct Part {
    text: Text,
    json: Vec<u8>,
    stats: Stats,
    fmt: Option<WalFormat>,
    /// Payloads that do not parse.
    bad: Vec<pgwal::Error>,
}

impl Work for Records {
    type Part = Part;

    fn part(&self) -> Part {
        // The format is set with the first record.
        let text = Text::new(WalFormat::new(0), self.zone.clone());
        Part { text, json: Vec::new(), stats: Stats::default(), fmt: None, bad: Vec::new() }
    }

    #[inline]
    fn record(&self, raw: &RawRecord<'_>, part: &mut Part) -> pgwal::Result<()> {
        if part.fmt.is_none() {
            part.fmt = Some(raw.fmt);
            part.text.set_format(raw.fmt);
        }
        let record = raw.decode()?;
        if !self.filter.matches(&record) || self.is_full() {
            return Ok(());
        }
        if self.limit.is_some() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        let shown = match self.show {
            Show::Nothing => Ok(()),
            Show::Statistics => {
                part.stats.add(&record);
                Ok(())
            }
            Show::Text { details } => waldump::write_record(&record, details, &mut part.text),
            Show::Json => json::write_record(&record, &mut part.json),
        };
        // A payload that does not parse costs that record alone.
        if let Err(error) = shown {
            part.bad.push(error);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Totals {
    stats: Stats,
    fmt: Option<WalFormat>,
    first: Option<Lsn>,
    bad_payloads: u64,
}

impl Totals {
    fn take(&mut self, part: Part, out: &mut impl Write) -> io::Result<()> {
        out.write_all(part.text.as_bytes())?;
        out.write_all(&part.json)?;
        self.stats.merge(&part.stats);
        self.fmt = self.fmt.or(part.fmt);
        for error in part.bad {
            self.bad_payloads += 1;
            eprintln!("pgwal: {error}");
        }
        Ok(())
    }
}
