//! The drop-in for pg_waldump: under that name the program takes its options and prints what the pg_waldump of the WAL's own major prints,
//! with the same messages and the same exit status.
//!
//! Where no WAL tells the major, messages are those of 18. Where the first page of a damaged segment does not tell it, the segment's other
//! pages do, or else the other segments of the directory, or the WAL that would be found without arguments. Options that a major lacked
//! work on its WAL too. What is different: the text of `--version` and `--help`; and a warning where standard output cannot be written, as
//! on a full disk. The real program does not notice, and the exit status is the same.

mod archive;
pub mod cscan;
mod files;
mod options;
mod reader;
mod wording;

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgwal::rmgr::RMGRS;
use pgwal::stats::Stats;
use pgwal::text::{Text, Zone};
use pgwal::{Lsn, TimelineId, WalFormat};

use self::archive::Archive;
use self::files::{DEFAULT_MAJOR, Segments};
use self::options::{Options, Parsed};
use self::reader::{Reader, Stop};
use self::wording::Wording;
use crate::dropin::Program;
use crate::dropin::log::{Colors, Level, end_by_closed_pipe, to_stderr};
use crate::dropin::wrong::Wrong;
use crate::fullpage::{FullPageError, FullPages};

/// Output is collected up to this size before it is written.
const OUTPUT_SIZE: usize = 1 << 16;

/// This drop-in.
pub const PROGRAM: Program = Program { name: "pg_waldump", help: HELP, run };

/// Runs the program. `args` begin with the name that it was called by.
fn run(args: &[OsString]) -> ExitCode {
    let mut console = Console::new();
    let result = console.run(args.get(1..).unwrap_or_default()).and_then(|()| console.tell_lost());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => console.fail(failure, &args.first().map(|program| program.to_string_lossy()).unwrap_or_default()),
    }
}

const HELP: &str = "\
pg_waldump (pgwal) shows PostgreSQL's write-ahead log, of any major from 10 to 19,
as that major's own pg_waldump does.

Usage:
  pg_waldump [OPTION]... [STARTSEG [ENDSEG]]

Options:
  -b, --bkp-details      show block references and page images in detail
  -B, --block=N          only records that change block N; needs --relation
  -e, --end=LSN          stop at LSN
  -f, --follow           wait for more at the end of the WAL
  -F, --fork=FORK        only records that change a block of FORK: main, fsm, vm or init
  -n, --limit=N          stop after N records
  -p, --path=PATH        directory of WAL segments, data directory, or tar archive
                         (default: ., ./pg_wal, $PGDATA/pg_wal)
  -q, --quiet            print errors only
  -r, --rmgr=RMGR        only records of this resource manager, or list the names with
                         --rmgr=list; repeated, of all of these (of the last one up to 14)
  -R, --relation=T/D/R   only records that change a block of the relation with these OIDs of
                         tablespace and database and this filenode
  -s, --start=LSN        start at LSN
  -t, --timeline=TLI     timeline to read (default: that of STARTSEG, or 1)
  -V, --version          print the version
  -w, --fullpage         only records with a page image
  -x, --xid=XID          only records of this transaction
  -z, --stats[=record]   print statistics instead of records, by resource manager or by
                         record type
      --save-fullpage=DIR
                         save page images in DIR
  -?, --help             print this help

pgwal itself has more commands and formats: see pgwal --help.
";

/// Why the program ends without having done all that was asked.
#[derive(Debug)]
enum Failure {
    /// The command line is wrong.
    Usage(Wrong),
    /// An error, and perhaps a second line about it.
    Fatal(String, Option<&'static str>),
    /// Nobody reads standard output any more.
    ClosedPipe,
}

fn fatal(message: String) -> Failure {
    Failure::Fatal(message, None)
}

fn usage(message: String) -> Failure {
    Failure::Usage(Wrong::Usage(message))
}

/// Where pages come from.
trait PageSource {
    /// The bytes from `at` on: at least `least`, at most `most`, all of one segment.
    fn read(&mut self, at: Lsn, least: usize, most: usize) -> Result<&[u8], Failure>;

    /// What was read may have changed.
    fn forget(&mut self) {}
}

/// Standard output and standard error.
struct Console {
    out: Text,
    stdout: io::StdoutLock<'static>,
    /// Why standard output could not be written. Then the rest is lost, and the work goes on.
    lost: Option<io::Error>,
    colors: Colors,
    wording: Wording,
}

impl Console {
    fn new() -> Console {
        Console {
            out: Text::new(WalFormat::new(DEFAULT_MAJOR), Zone::local()),
            stdout: io::stdout().lock(),
            lost: None,
            colors: Colors::from_env(io::stderr().is_terminal()),
            wording: Wording { major: DEFAULT_MAJOR },
        }
    }

    fn print(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.push(bytes);
        if self.out.len() >= OUTPUT_SIZE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let result = match self.lost {
            Some(_) => Ok(()),
            None => self.stdout.write_all(self.out.as_bytes()).and_then(|()| self.stdout.flush()),
        };
        self.out.clear();
        match result {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::ClosedPipe),
            Err(e) => {
                self.lost = Some(e);
                Ok(())
            }
        }
    }

    /// Writes what is left, and says so where not all could be written.
    fn tell_lost(&mut self) -> Result<(), Failure> {
        self.flush()?;
        let Some(e) = self.lost.take() else { return Ok(()) };
        self.say(Level::Warning, &format!("could not write to standard output: {}", crate::fullpage::Errno(&e)))
    }

    /// A line on standard error, after everything on standard output.
    fn say(&mut self, level: Level, text: &str) -> Result<(), Failure> {
        self.flush()?;
        to_stderr(&self.wording.line(level, text, &self.colors));
        Ok(())
    }

    /// Reports `failure`. `program` is the name that the program was called by.
    fn fail(&mut self, failure: Failure, program: &str) -> ExitCode {
        let said = self.tell_lost().and_then(|()| match failure {
            Failure::ClosedPipe => Err(Failure::ClosedPipe),
            Failure::Fatal(text, detail) => {
                self.say(Level::Fatal, &text).and_then(|()| detail.map_or(Ok(()), |detail| self.say(Level::Detail, detail)))
            }
            Failure::Usage(wrong) => match wrong {
                Wrong::Getopt(text) => {
                    to_stderr(&format!("{program}: {text}\n"));
                    Ok(())
                }
                // This program has a hint after each.
                Wrong::Usage(text) | Wrong::Value(text) => self.say(Level::Error, &text),
                Wrong::Detailed(text, detail) => self.say(Level::Error, &text).and_then(|()| self.say(Level::Detail, detail)),
                Wrong::Silent => Ok(()),
            }
            .and_then(|()| self.say(Level::Hint, "Try \"pg_waldump --help\" for more information.")),
        });
        if let Err(Failure::ClosedPipe) = said {
            end_by_closed_pipe();
        }
        let _ = said; // nobody reads what was to be said
        ExitCode::FAILURE
    }

    fn run(&mut self, words: &[OsString]) -> Result<(), Failure> {
        let (path, first) = options::peek(words);
        // What is named may not be there, or not be WAL; then that of the directory at hand tells.
        self.wording.major = peek_major(path, first).or_else(|| files::major(None, None)).unwrap_or(DEFAULT_MAJOR);
        if words.is_empty() {
            return Err(usage("no arguments specified".to_owned()));
        }
        let options = match options::parse(words, self.wording) {
            Parsed::Run(options) => options,
            Parsed::ListRmgrs => {
                return RMGRS.iter().try_for_each(|rmgr| self.print(format!("{}\n", rmgr.name).as_bytes()));
            }
            Parsed::Wrong(wrong) => return Err(Failure::Usage(wrong)),
        };
        let input = self.locate(&options)?;
        let save = match &options.save_fullpage {
            Some(dir) => Some(FullPages::create(Path::new(dir)).map_err(|e| self.full_page_failure(&e))?),
            None => None,
        };
        let plan = self.plan(&options, input)?;
        self.dump(&options, plan, save)
    }

    /// What `-p` names: C checks it before anything else.
    fn locate(&self, options: &Options) -> Result<Input, Failure> {
        let Some(path) = &options.path else { return Ok(Input::Nothing) };
        if archive::is_archive_name(path) {
            return Ok(Input::Archive(path.clone()));
        }
        match std::fs::read_dir(path) {
            Ok(_) => Ok(Input::Directory(path.clone())),
            Err(e) => Err(usage(cannot_open_directory(path, &e))),
        }
    }

    /// Range and source of the WAL, from all that the command line names.
    fn plan(&mut self, options: &Options, input: Input) -> Result<Plan, Failure> {
        let (mut start, mut end) = (options.start, options.end);
        let mut timeline = options.timeline.unwrap_or(TimelineId(1));
        let given = match &input {
            Input::Directory(dir) => Some(dir.clone()),
            Input::Nothing | Input::Archive(_) => None,
        };
        let mut archive_path = None;
        let mut found = None;
        if let Some(first) = options.operands.first() {
            if let Input::Archive(_) = input {
                let first = first.to_string_lossy();
                return Err(usage(format!("unnecessary command-line arguments specified with tar archive (first is \"{first}\")")));
            }
            let (dir, name) = files::split_path(first);
            let directory = match (given, dir) {
                (None, Some(dir)) => {
                    std::fs::read_dir(&dir).map_err(|e| fatal(cannot_open_directory(&dir, &e)))?;
                    Some(dir)
                }
                (given, _) => given,
            };
            if archive::is_archive_name(&name) {
                archive_path = Some(Path::new(directory.as_deref().unwrap_or(OsStr::new("."))).join(&name));
            } else {
                let wal = files::find(directory.as_deref(), Some(&name), self.wording)?;
                let size = wal.fmt.segment_size;
                let at = |number: u64| Lsn(number.wrapping_mul(size.into()));
                let number;
                (timeline, number) = files::from_file_name(&name, size);
                if !start.is_valid() {
                    start = at(number);
                } else if start.segment_number(size) != number {
                    let (start, name) = (self.wording.lsn(start), name.to_string_lossy());
                    return Err(usage(format!("start WAL location {start} is not inside file \"{name}\"")));
                }
                let mut last = number;
                if let Some(second) = options.operands.get(1) {
                    let (_, name) = files::split_path(second);
                    if files::open(&wal.dir, &name)?.is_none() {
                        return Err(fatal(format!("could not open file \"{}\"", name.to_string_lossy())));
                    }
                    (timeline, last) = files::from_file_name(&name, size);
                    if last < number {
                        let (first, second) = (first.to_string_lossy(), second.to_string_lossy());
                        return Err(fatal(format!("ENDSEG {second} is before STARTSEG {first}")));
                    }
                }
                if !end.is_valid() {
                    end = at(last.wrapping_add(1));
                }
                if end.segment_number(size) != last && end != at(last.wrapping_add(1)) {
                    let name = options.operands.last().map(|name| name.to_string_lossy()).unwrap_or_default();
                    return Err(usage(format!("end WAL location {} is not inside file \"{name}\"", self.wording.lsn(end))));
                }
                found = Some(wal);
            }
        } else if let Input::Archive(path) = &input {
            archive_path = Some(path.into());
        } else {
            found = Some(files::find(given.as_deref(), None, self.wording)?);
        }
        if !start.is_valid() {
            return Err(usage("no start WAL location given".to_owned()));
        }
        if options.follow && archive_path.is_some() {
            return Err(usage("--follow is not supported when reading from a tar archive".to_owned()));
        }
        let (fmt, source): (WalFormat, Box<dyn PageSource>) = match (archive_path, found) {
            (Some(path), _) => {
                let archive = Archive::open(&path, timeline, start, end, self.wording)?;
                (archive.format(), Box::new(archive))
            }
            (None, Some(wal)) => (wal.fmt, Box::new(Segments::new(wal.dir, timeline, wal.fmt, self.wording))),
            (None, None) => return Err(usage("no start WAL location given".to_owned())),
        };
        Ok(Plan { fmt, timeline, start, end, source })
    }

    fn dump(&mut self, options: &Options, plan: Plan, mut save: Option<FullPages>) -> Result<(), Failure> {
        let Plan { fmt, timeline, start, end, source } = plan;
        let stop_asked = catch_interrupt()?;
        self.out.set_format(fmt);
        let mut reader = Reader::new(source, fmt, start, end);
        let mut stats = Stats::default();
        let mut first_record = None;
        let mut shown = 0u64;
        // Start of the last record read, as error messages give it.
        let mut last = Lsn::INVALID;
        let stop = 'records: loop {
            if first_record.is_some() && stop_asked.load(Ordering::Relaxed) {
                break Stop::End;
            }
            let error = match reader.decoder.next_record() {
                Ok(None) => match reader.feed() {
                    Ok(None) => continue,
                    Ok(Some(stop)) => break stop,
                    Err(failure) => return Err(failure),
                },
                Ok(Some(raw)) => match raw.decode() {
                    Ok(_) if raw.lsn < reader.start => {
                        last = raw.lsn;
                        continue;
                    }
                    Ok(record) => {
                        if first_record.is_none() {
                            first_record = Some(raw.lsn);
                            if raw.lsn != start && start.segment_offset(fmt.segment_size) != 0 {
                                let text = self.skipped(start, raw.lsn);
                                if fmt.since(17) {
                                    self.say(Level::Info, &text)?;
                                } else {
                                    self.print(format!("{text}\n").as_bytes())?;
                                }
                            }
                        }
                        last = raw.lsn;
                        reader.resume = Some(raw.end);
                        if !options.filter.matches(&record) {
                            continue;
                        }
                        if !options.quiet {
                            if options.stats.is_some() {
                                stats.add(&record);
                            } else {
                                // A payload that does not parse is shown as such on its line; the real program, which does not
                                // check payloads, has no message for it either.
                                let _ = pgwal::waldump::write_record(&record, options.details, &mut self.out);
                                if self.out.len() >= OUTPUT_SIZE {
                                    self.flush()?;
                                }
                            }
                        }
                        if let Some(save) = &mut save {
                            save.save(&record, timeline).map_err(|e| self.full_page_failure(&e))?;
                        }
                        shown += 1;
                        if options.limit.is_some_and(|limit| shown >= limit) {
                            break 'records Stop::End;
                        }
                        continue;
                    }
                    Err(error) => {
                        // Before 15 the reader took a record as read before it decoded its parts.
                        if !fmt.since(15) {
                            last = raw.lsn;
                        }
                        reader.resume = Some(raw.end);
                        error
                    }
                },
                Err(error) => error,
            };
            if first_record.is_none() || !options.follow {
                break Stop::Error(error);
            }
            self.flush()?;
            pause(Duration::from_secs(1), &stop_asked);
            reader.restart();
        };
        let why = match &stop {
            Stop::Error(error) => Some(self.wording.reader_error(error, fmt, timeline, last)),
            Stop::End => None,
        };
        let Some(first_record) = first_record else {
            return Err(fatal(self.wording.no_valid_record(start, why.as_deref())));
        };
        if let (Some(by), false) = (options.stats, options.quiet) {
            stats.write_text(by == options::Stats::Record, fmt, first_record, &mut self.out);
        }
        match why {
            Some(why) => Err(fatal(format!("error in WAL record at {}: {why}", self.wording.lsn(last)))),
            None => Ok(()),
        }
    }

    fn skipped(&self, start: Lsn, first: Lsn) -> String {
        let count = (first - start) as u32; // C cuts it to 32 bits too
        let bytes = if count == 1 { "byte" } else { "bytes" };
        let (start, first) = (self.wording.lsn(start), self.wording.lsn(first));
        format!("first record is after {start}, at {first}, skipping over {count} {bytes}")
    }

    fn full_page_failure(&self, error: &FullPageError) -> Failure {
        match error {
            FullPageError::Restore { block, record, .. } => fatal(self.wording.bad_image(*record, *block)),
            other => fatal(other.to_string()),
        }
    }
}

/// What `-p` names.
#[derive(Debug)]
enum Input {
    Nothing,
    Directory(OsString),
    Archive(OsString),
}

/// What to read, and from where.
struct Plan {
    fmt: WalFormat,
    timeline: TimelineId,
    start: Lsn,
    /// Invalid: as far as there is WAL.
    end: Lsn,
    source: Box<dyn PageSource>,
}

fn cannot_open_directory(dir: &OsStr, e: &io::Error) -> String {
    format!("could not open directory \"{}\": {}", dir.to_string_lossy(), crate::fullpage::Errno(e))
}

/// The major of the WAL that the command line names.
fn peek_major(path: Option<OsString>, first: Option<OsString>) -> Option<u8> {
    let (dir, name) = first.as_deref().map(files::split_path).unzip();
    let dir = path.clone().or(dir.flatten());
    let archive = match (&path, &name) {
        (Some(path), _) if archive::is_archive_name(path) => Some(path.into()),
        (_, Some(name)) if archive::is_archive_name(name) => Some(Path::new(dir.as_deref().unwrap_or(OsStr::new("."))).join(name)),
        _ => None,
    };
    match archive {
        Some(archive) => Some(archive::major(&archive).unwrap_or(archive::FIRST_MAJOR)),
        None => files::major(dir.as_deref(), name.as_deref()),
    }
}

/// Set when the user interrupts the program: it then ends after the record at hand, with its statistics.
fn catch_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&asked))
        .map_err(|e| fatal(format!("could not set a handler for SIGINT: {}", crate::fullpage::Errno(&e))))?;
    Ok(asked)
}

/// Waits, but not longer than until `stop` is set.
fn pause(time: Duration, stop: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
}
