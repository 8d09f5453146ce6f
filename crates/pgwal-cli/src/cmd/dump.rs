//! `pgwal dump`: records as text, as JSON Lines, or counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use pgwal::filter::Filter;
use pgwal::json::{self, Json};
use pgwal::names::Names;
use pgwal::rmgr::RMGRS;
use pgwal::scan::{self, Needs, Stop, Summary, Work, scan};
use pgwal::source::{SourceError, SourceProblem, Wal, file_of_input, segment_of_file_name};
use pgwal::stats::{Counts, Stats};
use pgwal::text::{Text, Zone};
use pgwal::{EndReason, Lsn, RawRecord, Record, SegmentName, TimelineId, WalFormat, put, waldump};

use pgwal_stream::connection::{Connection, Mode};
use pgwal_stream::conninfo::{Config, Environment};
use pgwal_stream::live::{self, Live, Position};
use pgwal_stream::receive::{Outcome, ReceiveError};

use crate::args::{FilterArgs, Form, RmgrArg, SegmentArgs, ThreadsArg, TimeArgs, in_order, number};
use crate::fullpage::{FullPageError, FullPages};

use super::receive::is_final;

/// Print records: as that major's own pg_waldump does, or as JSON Lines
#[derive(clap::Args, Debug)]
#[command(
    args_override_self = true,
    after_help = "\
Example: pgwal dump --rmgr Heap --limit 3 fixtures/v17/pgbench/00000001000000000000000B

Exit status: 0 the WAL was read to its end, or to the end asked for; 1 damage, or an input that cannot be read; 2 wrong options, or standard output cannot be \
written."
)]
pub struct Opts {
    #[command(flatten)]
    segments: SegmentArgs,
    #[command(flatten)]
    times: TimeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Show block references on lines of their own
    #[arg(short, long)]
    bkp_details: bool,
    /// Keep reading: wait for more WAL at its end
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
    /// Read from a live server, as it writes: from --start, or from now on; `keyword=value` pairs or a URI, as libpq takes them
    #[arg(long, value_name = "CONNINFO", conflicts_with_all = ["start_segment", "path", "timeline", "block_size", "follow", "since", "until"])]
    from: Option<String>,
    /// With --from, stop when the server shuts down or the connection breaks, instead of connecting again
    #[arg(long, requires = "from")]
    no_loop: bool,
    /// In text, show the name of each relation after its numbers, from --names or --dbname; JSON has the names whenever there are any
    #[arg(long)]
    show_names: bool,
    /// Stop after this many records; 0: never
    #[arg(short = 'n', long, value_name = "N", value_parser = number::<u64>(0..=u64::MAX))]
    limit: Option<u64>,
    /// Print no records and no statistics, only what is wrong
    #[arg(short, long)]
    quiet: bool,
    /// Show statistics instead of records, by resource manager, or with =record by record type
    #[arg(short = 'z', long, value_name = "BY", num_args = 0..=1, require_equals = true, default_missing_value = "rmgr")]
    stats: Option<StatsBy>,
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
    /// Save the page images of the records in this directory, one file each; created where it is not there, else it must be empty
    #[arg(long, value_name = "DIR")]
    save_fullpage: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatsBy {
    Rmgr,
    Record,
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        if self.filter.rmgr.contains(&RmgrArg::List) {
            RMGRS.iter().try_for_each(|rmgr| writeln!(out, "{}", rmgr.name))?;
            return Ok(ExitCode::SUCCESS);
        }
        self.segments.check()?;
        in_order("--since", self.times.since, "--until", self.times.until)?;
        if self.show_names {
            self.filter.names.required("--show-names")?;
        }
        // Before the signal is taken: a server that does not answer keeps nobody.
        let names = self.filter.names.read()?;
        let saved = self.save_fullpage.as_deref().map(FullPages::create).transpose()?;
        let asked_to_stop = Arc::new(AtomicBool::new(false));
        if self.segments.start_segment.as_deref() != Some(Path::new("-")) {
            // Like pg_waldump: what has been counted until then is shown. A read of standard input may wait for ever.
            signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&asked_to_stop))?;
        }
        let filter = self.filter.filter(&names)?;
        let limit = self.limit.filter(|&limit| limit > 0);
        let in_order = limit.is_some() || saved.is_some();
        let mut work = Records {
            is_filtered: !filter.is_empty(),
            filter,
            names: (self.show_names || self.format == Form::Json && self.filter.names.are_given()).then_some(&names),
            zone: Zone::local(),
            show: match (self.quiet, self.stats, self.format) {
                (true, ..) => Show::Nothing,
                (_, Some(_), _) => Show::Statistics,
                (_, _, Form::Json) => Show::Json,
                (_, _, Form::Text) => Show::Text { details: self.bkp_details },
            },
            limit,
            taken: AtomicU64::new(0),
            saved: saved.map(Mutex::new),
            timelines: BTreeMap::new(),
            failed: OnceLock::new(),
            asked_to_stop,
            spare: Mutex::default(),
        };
        // What is counted or saved, is in the order of the WAL.
        let threads = if in_order { 1 } else { self.threads.get() };
        let mut totals = Totals { asked: self.segments.start(), plain: self.format == Form::Text, ..Totals::default() };
        if let Some(conninfo) = &self.from {
            return self.live(conninfo, &work, totals, out);
        }
        // Times are looked for once; what follows later starts where reading stopped.
        let mut times = Some(&self.times);
        let mut start = self.segments.start();
        let mut patience = Patience::default();
        let mut is_compared = false;
        let (summary, selection) = loop {
            let selection = self.segments.open(self.follow)?;
            if !std::mem::replace(&mut is_compared, true) {
                selection.wal.passed_over().iter().for_each(|file| note!("{file}"));
                self.filter.names.compare(&names, &selection.wal);
            }
            work.timelines = selection.wal.names().map(|name| ((name.log, name.seg), name.timeline)).collect();
            let options = scan::Options { start: start.or(selection.start), end: selection.end, threads };
            let options = times.take().map_or(Ok(options), |times| times.narrow(&selection.wal, options))?;
            let mut written = Ok(());
            let sink = |part| {
                written = totals.take(&part, out);
                work.reuse(part);
                if written.is_err() || work.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let summary = if work.only_counts() {
                scan(&selection.wal, options, &Counting(&work), sink)
            } else {
                scan(&selection.wal, options, &work, sink)
            };
            written?;
            if let Some(error) = work.failed.take() {
                return Err(error.into());
            }
            if work.is_full() || !self.follow || !patience.allows(&summary) {
                break (summary, selection);
            }
            out.flush()?;
            start = resume_at(&summary).or(start);
            std::thread::sleep(PAUSE);
        };
        self.show_statistics(&work, &totals, out)?;
        Ok(conclude(&summary, &selection.wal, selection.partial, totals.bad_payloads))
    }

    /// Shows what has been counted, if that was asked for.
    fn show_statistics(&self, work: &Records<'_>, totals: &Totals, out: &mut impl Write) -> io::Result<()> {
        if let (Some(by), Some(fmt), false) = (self.stats, totals.fmt, self.quiet) {
            let report = totals.stats.report(by == StatsBy::Record, fmt, totals.first.unwrap_or_default());
            match self.format {
                Form::Text => {
                    let mut text = Text::new(fmt, work.zone.clone());
                    report.write_text(fmt, &mut text);
                    out.write_all(text.as_bytes())?;
                }
                Form::Json => {
                    pgwal::json::to_writer(&mut *out, &report)?;
                    writeln!(out)?;
                }
            }
        }
        out.flush()
    }

    /// Shows what a live server writes. When the server shuts down or the connection breaks, connects again, as `pgwal receive` does.
    fn live(&self, conninfo: &str, work: &Records<'_>, mut totals: Totals, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        let config = Config::parse(conninfo, &Environment::current())?;
        let stop = &work.asked_to_stop;
        let mut shown = Shown { position: None, system: None };
        let mut wait = WAIT.0;
        for attempt in 1_u32.. {
            let before = shown.position;
            let result = self.stream(&config, attempt, work, &mut shown, &mut totals, out)?;
            if let Some(error) = work.failed.get() {
                note!("{error}");
                return Ok(ExitCode::FAILURE);
            }
            let (why, error): (_, Option<Box<dyn Error>>) = match result {
                _ if stop.load(Ordering::Relaxed) => break,
                Ok(Outcome::Stopped | Outcome::Reached(_)) => break,
                Ok(Outcome::ShutDown) => ("the server was shut down".to_owned(), None),
                Ok(Outcome::Ended) => ("the server ended the stream".to_owned(), None),
                // Nothing has been shown yet that could go on.
                Err(LiveError { error, is_final }) if is_final || shown.position.is_none() => return Err(error),
                Err(LiveError { error, .. }) => (error.to_string(), Some(error)),
            };
            if self.no_loop {
                match error {
                    Some(error) => return Err(error),
                    None => note!("{why}"),
                }
                break;
            }
            wait = if shown.position == before { (wait * 2).min(WAIT.1) } else { WAIT.0 };
            note!("{why}; trying again in {} s", wait.as_secs_f32());
            let until = Instant::now() + wait;
            while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.show_statistics(work, &totals, out)?;
        Ok(if totals.bad_payloads == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Connects and shows records from where `shown` is.
    fn stream(
        &self,
        config: &Config,
        attempt: u32,
        work: &Records<'_>,
        shown: &mut Shown,
        totals: &mut Totals,
        out: &mut impl Write,
    ) -> Result<Result<Outcome, LiveError>, Box<dyn Error>> {
        let stop = &work.asked_to_stop;
        let mut connection = match Connection::connect_until(config, Mode::Replication, Arc::clone(stop)) {
            Ok(connection) => connection,
            Err(error) if error.is_interrupted() => return Ok(Ok(Outcome::Stopped)),
            Err(error) => {
                let is_final = !error.attempts.is_empty() && error.attempts.iter().all(|attempt| is_final(&attempt.error));
                return Ok(Err(LiveError { error: error.into(), is_final }));
            }
        };
        // A temporary slot goes with its connection, which the server may not know yet to be broken.
        let slot = match attempt {
            1 => format!("pgwal_dump_{}", std::process::id()),
            _ => format!("pgwal_dump_{}_{attempt}", std::process::id()),
        };
        let end = self.segments.end();
        let start = shown.position.or(self.segments.start().map(|lsn| Position { timeline: None, lsn }));
        let mut part = work.part();
        let mut failed: Result<(), Box<dyn Error>> = Ok(());
        let result = live::records(&mut connection, start, &slot, stop, &mut |live| {
            let done = match live {
                Live::System(system) => match shown.system.replace(system.identifier) {
                    Some(before) if before != system.identifier => {
                        Err(format!("the server now has system identifier {}, not {before}: it is another cluster", system.identifier)
                            .into())
                    }
                    _ => Ok(()),
                },
                // As with files: bytes from there on are not read.
                Live::Record(raw) if end.is_some_and(|end| raw.location(raw.bytes.len().saturating_sub(1)).lsn >= end) => {
                    return ControlFlow::Break(());
                }
                Live::Record(raw) => {
                    // The timeline is that of the stream: a page's may be older.
                    shown.position = shown.position.map(|position| Position { lsn: raw.end, ..position });
                    work.record(raw, &mut part).map_err(Into::into)
                }
                Live::Starting(position) => {
                    shown.position = Some(position);
                    Ok(())
                }
                Live::Pause => {
                    let full = std::mem::replace(&mut part, work.part());
                    let written = totals.take(&full, out).and_then(|()| out.flush());
                    work.reuse(full);
                    written.map_err(Into::into)
                }
            };
            let is_done = done.is_err() || work.is_full();
            failed = done;
            if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        totals.take(&part, out)?;
        out.flush()?;
        failed?;
        Ok(result.map_err(|error| LiveError {
            is_final: !matches!(&error, ReceiveError::Server(error) if !is_final(error)),
            error: error.into(),
        }))
    }
}

/// Time until the next try to connect, at first and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What has been shown of a live server.
struct Shown {
    /// Where the next record starts; `None`: streaming has not started yet.
    position: Option<Position>,
    /// The server's system identifier.
    system: Option<u64>,
}

/// Why there are no more records over a connection.
struct LiveError {
    error: Box<dyn Error>,
    /// To try again would change nothing.
    is_final: bool,
}

/// How long to wait for more WAL before the next look. A signal ends it early.
const PAUSE: Duration = Duration::from_millis(500);

/// How long to follow WAL that seems damaged: what the server is writing may be half there.
#[derive(Default)]
struct Patience {
    damage: Option<pgwal::Error>,
    looks: u32,
}

impl Patience {
    /// Whether there may be more WAL where reading stopped.
    fn allows(&mut self, summary: &Summary) -> bool {
        let damage = match &summary.stop {
            Stop::End(_) => None,
            Stop::Damage(error) => Some(error.clone()),
            Stop::Source(SourceError { problem: SourceProblem::CutShort { .. } | SourceProblem::NoStart { .. }, .. }) => None,
            Stop::Source(_) | Stop::Reached(_) | Stop::Enough => return false,
        };
        self.looks = if damage.is_some() && self.damage == damage { self.looks + 1 } else { 0 };
        self.damage = damage;
        self.looks < 20
    }
}

/// Where to look for more WAL: at the first record that was not whole.
fn resume_at(summary: &Summary) -> Option<Lsn> {
    let at = match &summary.stop {
        Stop::End(end) => Some(end.lsn),
        Stop::Damage(error) => Some(error.location().record.unwrap_or(error.location().lsn)),
        _ => summary.position,
    };
    at.filter(|lsn| lsn.is_valid())
}

/// Names other files of a segment that is damaged.
fn note_copies(wal: &Wal, name: SegmentName) {
    for copy in wal.copies_of(name) {
        note!("{}: another file of this segment, which may be whole", pgwal::printable::printable(copy));
    }
}

/// Says on standard error why the reading stopped, where that is worth saying.
pub(super) fn conclude(summary: &Summary, wal: &Wal, partial: bool, bad_payloads: u64) -> ExitCode {
    // An archive that is damaged may have had more.
    let is_broken = || wal.broken().inspect(|error| note!("{error}")).count() > 0;
    let good = match &summary.stop {
        // The segments asked for were read; their last record may go on in the next one.
        Stop::End(end) if partial && matches!(end.reason, EndReason::NoMoreInput | EndReason::Unfinished { .. }) => true,
        Stop::End(end) => {
            note!("{end}");
            // A segment that is kept for later use is no WAL yet.
            !is_broken() && (summary.first.is_some() || !matches!(end.reason, EndReason::Recycled { .. } | EndReason::ZeroPage))
        }
        Stop::Damage(error) => {
            note!("{error}");
            note_copies(wal, error.location().segment);
            false
        }
        Stop::Source(error) => {
            note!("{error}");
            segment_of_file_name(file_of_input(&error.input)).into_iter().for_each(|name| note_copies(wal, name));
            if !matches!(error.problem, SourceProblem::Unpack(_)) {
                is_broken();
            }
            false
        }
        Stop::Reached(_) | Stop::Enough => true,
    };
    if good && bad_payloads == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is made of each record.
struct Records<'n> {
    filter: Filter,
    /// Names to show.
    names: Option<&'n Names>,
    /// Whether the filter has any condition.
    is_filtered: bool,
    zone: Zone,
    show: Show,
    limit: Option<u64>,
    /// Records that passed the filter; with a limit, only one thread counts.
    taken: AtomicU64,
    /// Where page images go; then only one thread reads.
    saved: Option<Mutex<FullPages>>,
    /// Timeline of each segment, by what its name says besides.
    timelines: BTreeMap<(u32, u32), TimelineId>,
    /// Why the reading cannot go on, for a reason that is not in the WAL.
    failed: OnceLock<FullPageError>,
    /// Set by a signal.
    asked_to_stop: Arc<AtomicBool>,
    /// Parts that are written, to be used again.
    spare: Mutex<Vec<Part>>,
}

#[derive(Clone, Copy)]
enum Show {
    Nothing,
    Statistics,
    Text { details: bool },
    Json,
}

impl Records<'_> {
    /// Whether all records count, and nothing is shown of any one of them.
    fn only_counts(&self) -> bool {
        let shows_none = matches!(self.show, Show::Nothing | Show::Statistics);
        shows_none && !self.is_filtered && self.limit.is_none() && self.saved.is_none()
    }

    /// Whether no more records are wanted.
    fn is_full(&self) -> bool {
        let enough = self.limit.is_some_and(|limit| self.taken.load(Ordering::Relaxed) >= limit);
        enough || self.failed.get().is_some() || self.asked_to_stop.load(Ordering::Relaxed)
    }

    /// Keeps the memory of `part`: it is there already, and much of it in the processor's cache.
    fn reuse(&self, mut part: Part) {
        part.text.clear();
        part.json.clear();
        part.bad.clear();
        (part.stats, part.first) = (Stats::default(), None);
        self.spare().push(part);
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Part>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves the page images of `record`.
    fn save(&self, record: &Record<'_>, saved: &Mutex<FullPages>) {
        let name = SegmentName::of(record.raw.timeline, record.raw.lsn, record.raw.fmt.segment_size);
        // Like pg_waldump, the segment's timeline: its first pages may be a copy of an older one.
        let timeline = self.timelines.get(&(name.log, name.seg)).copied().unwrap_or(record.raw.timeline);
        if let Err(error) = saved.lock().unwrap_or_else(PoisonError::into_inner).save(record, timeline) {
            let _ = self.failed.set(error); // the first one is told
        }
    }
}

/// What the records of one extent come to.
struct Part {
    text: Text,
    json: Json,
    stats: Stats,
    /// Format of the WAL and start of the first record, whether it is shown or not.
    first: Option<(WalFormat, Lsn)>,
    /// Payloads that do not parse.
    bad: Vec<pgwal::Error>,
}

impl Work for Records<'_> {
    type Part = Part;

    fn part(&self) -> Part {
        if let Some(part) = self.spare().pop() {
            return part;
        }
        // The format is set with the first record.
        let text = Text::new(WalFormat::new(0), self.zone.clone());
        Part { text, json: Json::new(), stats: Stats::default(), first: None, bad: Vec::new() }
    }

    fn part_size(&self) -> usize {
        match self.show {
            // A line is some ten times as long as its record.
            Show::Json => 64 << 10,
            Show::Text { .. } | Show::Nothing | Show::Statistics => 512 << 10,
        }
    }

    #[inline]
    fn record(&self, raw: &RawRecord<'_>, part: &mut Part) -> pgwal::Result<()> {
        part.begin(raw);
        if self.limit.is_some() && self.is_full() {
            return Ok(());
        }
        let mut record = Record::unread(raw);
        record.read()?;
        if self.is_filtered && !self.filter.matches(&record) {
            return Ok(());
        }
        if self.limit.is_some() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(saved) = &self.saved {
            self.save(&record, saved);
        }
        let shown = match self.show {
            Show::Nothing => Ok(()),
            Show::Statistics => {
                part.stats.add(&record);
                Ok(())
            }
            Show::Text { details } => waldump::write_record_with_names(&record, details, self.names, &mut part.text),
            Show::Json => json::write_record_with_names(&record, self.names, &mut part.json),
        };
        // A payload that does not parse costs that record alone.
        if let Err(error) = shown {
            part.bad.push(error);
        }
        Ok(())
    }
}

impl Part {
    /// Notes where the part begins.
    #[inline(always)]
    fn begin(&mut self, raw: &RawRecord<'_>) {
        if self.first.is_none() {
            self.first = Some((raw.fmt, raw.lsn));
            self.text.set_format(raw.fmt);
        }
    }
}

/// Counting records, or only looking whether they are whole: most need not be put together for that.
struct Counting<'a>(&'a Records<'a>);

impl Work for Counting<'_> {
    type Part = Part;

    fn part(&self) -> Part {
        self.0.part()
    }

    fn needs(&self) -> Needs {
        Needs::MainData
    }

    const IS_QUICK: bool = true;

    #[inline(always)]
    fn quick_record(&self, raw: &RawRecord<'_>, part: &mut Part) -> bool {
        let Some(counts) = Counts::at_a_glance(raw) else { return false };
        part.begin(raw);
        part.stats.add_counts(raw, counts);
        true
    }

    fn record(&self, raw: &RawRecord<'_>, part: &mut Part) -> pgwal::Result<()> {
        self.0.record(raw, part)
    }
}

#[derive(Default)]
struct Totals {
    stats: Stats,
    fmt: Option<WalFormat>,
    first: Option<Lsn>,
    bad_payloads: u64,
    /// Where reading was to start.
    asked: Option<Lsn>,
    /// Whether the output is pg_waldump's.
    plain: bool,
}

impl Totals {
    fn take(&mut self, part: &Part, out: &mut impl Write) -> io::Result<()> {
        if let (None, Some((fmt, first))) = (self.fmt, part.first) {
            (self.fmt, self.first) = (Some(fmt), Some(first));
            self.say_skipped(fmt, first, out)?;
        }
        out.write_all(part.text.as_bytes())?;
        out.write_all(part.json.as_bytes())?;
        self.stats.merge(&part.stats);
        for error in &part.bad {
            self.bad_payloads += 1;
            note!("{error}");
        }
        Ok(())
    }

    /// Says what was skipped to find the first record. Up to 16, pg_waldump says so among the records, and never where the start
    /// is that of a segment.
    fn say_skipped(&self, fmt: WalFormat, first: Lsn, out: &mut impl Write) -> io::Result<()> {
        let Some(asked) = self.asked.filter(|&asked| asked != first && asked.segment_offset(fmt.segment_size) != 0) else {
            return Ok(());
        };
        let count = first - asked;
        let bytes = if count == 1 { "byte" } else { "bytes" };
        if self.plain && !fmt.since(17) {
            let mut text = Text::new(fmt, Zone::utc());
            put!(&mut text, "first record is after ", asked, ", at ", first, ", skipping over ", count, " ", bytes, "\n");
            return out.write_all(text.as_bytes());
        }
        note!("the first record after {asked} is at {first}, {count} {bytes} further");
        Ok(())
    }
}
