//! Options that commands share.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pgwal::filter::{Filter, OneOf, RmgrSet, rmgr_by_name};
use pgwal::format::is_block_size;
use pgwal::input_file;
use pgwal::names::{Names, RelationName};
use pgwal::printable::printable_path;
use pgwal::scan::{self, Stop};
use pgwal::source::{SourceError, SourceProblem, Wal, segment_of_file_name};
use pgwal::text::Zone;
use pgwal::times::{self, Found};
use pgwal::types::{BlockNumber, ForkNumber, Oid, RelFileLocator, TimestampTz, Xid};
use pgwal::{Lsn, RmgrId, SegmentName, TimelineId};
use pgwal_stream::compress::{Compression, SpecError, split_spec};

use crate::live;

/// Form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Text,
    Json,
}

/// Reads a number of a range, which an error names.
pub fn number<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number)).and_then(|number: u64| T::try_from(number).ok());
        number.ok_or_else(|| match (range.start(), range.end()) {
            (start, &u64::MAX) => format!("expected a number, {start} or more"),
            (start, end) => format!("expected a number from {start} to {end}"),
        })
    }
}

/// Ids of 32 bits.
const IDS: RangeInclusive<u64> = 0..=u32::MAX as u64;

/// Which WAL to read.
#[derive(Args, Debug)]
pub struct SegmentArgs {
    /// First segment; or a directory of segments, a data directory, a tar archive, `-` for standard input
    #[arg(value_name = "STARTSEG")]
    pub start_segment: Option<PathBuf>,
    /// Last segment
    #[arg(value_name = "ENDSEG", requires = "start_segment")]
    pub end_segment: Option<PathBuf>,
    /// Directory of segments, data directory or tar archive [default: ., ./pg_wal, $PGDATA/pg_wal]
    #[arg(short, long, value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Start at the first record at or after this LSN
    #[arg(short, long, value_name = "LSN")]
    pub start: Option<Lsn>,
    /// Stop at this LSN
    #[arg(short, long, value_name = "LSN")]
    pub end: Option<Lsn>,
    /// Read no timeline newer than this one; decimal, or hexadecimal with 0x [default: the newest there is]
    #[arg(short, long, value_name = "TLI", value_parser = timeline)]
    pub timeline: Option<TimelineId>,
    #[command(flatten)]
    pub blocks: BlockSizeArg,
}

/// The WAL that was asked for, and the part of it to read.
#[derive(Debug)]
pub struct Selection {
    /// The segments.
    pub wal: Wal,
    /// First LSN.
    pub start: Option<Lsn>,
    /// Where to stop; `None`: at the end of the WAL.
    pub end: Option<Lsn>,
    /// Whether the WAL may go on after what is read, so that stopping there says nothing about its end.
    pub partial: bool,
}

impl SegmentArgs {
    /// Finds the segments; with `follow`, also those after a named one.
    pub fn open(&self, follow: bool) -> Result<Selection, Box<dyn Error>> {
        let mut selection = self.find(follow)?;
        self.blocks.apply(&mut selection.wal);
        Ok(selection)
    }

    fn find(&self, follow: bool) -> Result<Selection, Box<dyn Error>> {
        let Some(first) = &self.start_segment else {
            let path = self.path.clone().unwrap_or_else(default_directory);
            let wal = Wal::open(&[path], self.timeline)?;
            return Ok(Selection { wal, start: self.start(), end: self.end(), partial: false });
        };
        let Some(last) = &self.end_segment else {
            let input = self.locate(first);
            let whole = input.is_dir() || first == Path::new("-");
            let wal = match name_of(first).filter(|_| !whole) {
                // A named segment and an end after it mean all segments up to there.
                Some(name) if follow || self.end().is_some() => range(&input, name, None)?,
                // Like pg_waldump: a name has its timeline, whatever the option says.
                Some(_) => Wal::open(&[input], None)?,
                None => Wal::open(&[input], self.timeline)?,
            };
            return Ok(Selection { wal, start: self.start(), end: self.end(), partial: self.end().is_none() && !whole && !follow });
        };
        let input = self.locate(first);
        let wal = match (name_of(first), name_of(last)) {
            (Some(name), Some(last)) => range(&input, name, Some(last))?,
            _ => Wal::open(&[input, self.locate(last)], self.timeline)?,
        };
        Ok(Selection { wal, start: self.start(), end: self.end(), partial: self.end().is_none() })
    }

    /// Whether there can be anything between `--start` and `--end`.
    pub fn check(&self) -> Result<(), WrongOption> {
        in_order("--start", self.start(), "--end", self.end())
    }

    /// Where to start. Like pg_waldump, 0/0 is as good as nothing.
    pub fn start(&self) -> Option<Lsn> {
        self.start.filter(|lsn| lsn.is_valid())
    }

    /// Where to stop.
    pub fn end(&self) -> Option<Lsn> {
        self.end.filter(|lsn| lsn.is_valid())
    }

    /// A segment named without its folder is looked for where WAL usually is.
    fn locate(&self, input: &Path) -> PathBuf {
        let bare = input.parent() == Some(Path::new("")) && input != Path::new("-");
        // A dangling link is named as that, and no file of the same name elsewhere is taken for it.
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        if !bare || (self.path.is_none() && exists(input)) {
            return input.to_owned();
        }
        let bases = match &self.path {
            Some(path) => vec![path.join(input), path.join("pg_wal").join(input)],
            None => [Some(PathBuf::from("pg_wal")), env::var_os("PGDATA").map(|dir| Path::new(&dir).join("pg_wal"))]
                .into_iter()
                .flatten()
                .map(|dir| dir.join(input))
                .collect(),
        };
        bases.into_iter().find(|path| exists(path)).unwrap_or_else(|| input.to_owned())
    }
}

/// A set of WAL: any number of inputs, for commands that do not read from one segment to another.
#[derive(Args, Debug)]
pub struct InputArgs {
    /// Segments, directories of segments, data directories, tar archives, each also compressed; `-` for standard input
    /// [default: ., ./pg_wal, $PGDATA/pg_wal]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Read no timeline newer than this one; decimal, or hexadecimal with 0x [default: the newest there is]
    #[arg(short, long, value_name = "TLI", value_parser = timeline)]
    pub timeline: Option<TimelineId>,
    #[command(flatten)]
    pub blocks: BlockSizeArg,
}

impl InputArgs {
    /// Finds the segments.
    pub fn open(&self) -> Result<Wal, SourceError> {
        let mut wal = match (&self.paths[..], folder_of_all(&self.paths)) {
            ([], _) => Wal::open(&[default_directory()], self.timeline),
            (_, Some(folder)) => Wal::open(&[folder], self.timeline),
            (paths, None) => Wal::open(paths, self.timeline),
        }?;
        self.blocks.apply(&mut wal);
        Ok(wal)
    }

    /// Whether only single segments were named, so that the WAL may go on after them: stopping there says nothing about its end.
    pub fn is_part(&self) -> bool {
        !self.paths.is_empty() && self.paths.iter().all(|path| name_of(path).is_some() && !path.is_dir())
    }
}

/// The segments beside `first`, which is called `name`, from it to `last`.
fn range(first: &Path, name: SegmentName, last: Option<SegmentName>) -> Result<Wal, Box<dyn Error>> {
    let directory = directory_of(first);
    let place = |name: &SegmentName| (name.log, name.seg);
    if let Some(last) = last.filter(|last| place(last) < place(&name)) {
        return Err(format!("ENDSEG {last} is before STARTSEG {name}").into());
    }
    // Like pg_waldump, the last segment named decides the timeline.
    let timeline = last.map_or(name.timeline, |last| last.timeline);
    let mut wal = Wal::open(&[directory], Some(timeline))?;
    wal.keep_range(Some(name), last);
    let missing = [Some(name), last].into_iter().flatten().find(|wanted| wal.names().all(|name| place(&name) != place(wanted)));
    match missing {
        Some(wanted) => {
            let input = directory.join(wanted.to_string()).display().to_string();
            Err(SourceError { input, problem: SourceProblem::Missing }.into())
        }
        None => Ok(wal),
    }
}

/// The folder whose files `paths` are, all of them: what a shell makes of `archive/*` means `archive`.
pub fn folder_of_all(paths: &[PathBuf]) -> Option<PathBuf> {
    let first = paths.first().filter(|_| paths.len() > 1)?;
    let parent = first.parent()?;
    // A pattern leaves out what begins with a dot.
    let is_shown = |name: &OsStr| !name.as_encoded_bytes().starts_with(b".");
    let named: BTreeSet<&OsStr> = paths.iter().filter(|path| path.parent() == Some(parent)).filter_map(|path| path.file_name()).collect();
    let there =
        directory_of(first).read_dir().ok()?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>().ok()?;
    let is_all = named.len() == paths.len() && there.iter().filter(|name| is_shown(name)).all(|name| named.contains(&**name));
    is_all.then(|| directory_of(first).to_owned())
}

/// Where a file lies.
pub fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// The segment that a file's name tells.
pub fn name_of(path: &Path) -> Option<SegmentName> {
    segment_of_file_name(&path.file_name()?.to_string_lossy())
}

/// The first of pg_waldump's places that has WAL.
pub fn default_directory() -> PathBuf {
    let has_wal = |dir: &Path| {
        let mut files = dir.read_dir().into_iter().flatten().flatten();
        files.any(|file| segment_of_file_name(&file.file_name().to_string_lossy()).is_some())
    };
    let here = PathBuf::from(".");
    let data = env::var_os("PGDATA").map(|dir| Path::new(&dir).join("pg_wal"));
    let places = [Some(here.clone()), Some(PathBuf::from("pg_wal")), data];
    places.into_iter().flatten().find(|dir| has_wal(dir)).unwrap_or(here)
}

/// A timeline, decimal or hexadecimal.
pub fn timeline(text: &str) -> Result<TimelineId, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(timeline) if timeline > 0 => Ok(TimelineId(timeline)),
        _ => Err("expected a number from 1 to 4294967295".to_owned()),
    }
}

/// Which records to show: all conditions must hold, of several values of one option any.
#[derive(Args, Debug)]
pub struct FilterArgs {
    /// Only records of this resource manager; repeated, of all of these; `list` prints the names
    #[arg(short, long, value_name = "RMGR", value_parser = rmgr)]
    pub rmgr: Vec<RmgrArg>,
    /// Only records of this transaction; repeated, of all of these
    #[arg(short, long, value_name = "XID", value_parser = number::<u32>(IDS))]
    pub xid: Vec<u32>,
    /// Only records that touch this relation: tablespace/database/file number, or with --names its name, as in
    /// db.public.accounts, public.accounts or accounts, as SQL reads it: '"Accounts"' keeps its capital letter; repeated, any of these
    #[arg(short = 'R', long, value_name = "T/D/R", value_parser = relation)]
    pub relation: Vec<RelationArg>,
    /// Only records that touch this database: its OID, 0 for shared relations, or with --names its name; repeated, any of these.
    /// Records without a block reference, such as commits, touch none
    #[arg(long, value_name = "DB")]
    pub database: Vec<String>,
    /// Only records that touch this block of the relation
    #[arg(short = 'B', long, value_name = "N", requires = "relation", value_parser = number::<u32>(0..=MAX_BLOCK))]
    pub block: Option<u32>,
    /// Only records that touch this fork
    #[arg(short = 'F', long, value_name = "FORK", value_parser = fork)]
    pub fork: Option<ForkNumber>,
    /// Only records with a full-page image
    #[arg(short = 'w', long)]
    pub fullpage: bool,
    #[command(flatten)]
    pub names: NamesArg,
}

/// The last block that a relation can have. C: `MaxBlockNumber`.
const MAX_BLOCK: u64 = 0xFFFF_FFFE;

/// A relation by its numbers or by its name.
#[derive(Clone, Debug)]
pub enum RelationArg {
    /// Its numbers.
    Numbers(RelFileLocator),
    /// Its name.
    Name {
        /// What it means.
        name: RelationName,
        /// As it was typed.
        typed: String,
    },
}

/// Where names come from.
#[derive(Args, Debug)]
pub struct NamesArg {
    /// Names of databases and relations: a file that `pgwal names` made
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Names of databases and relations: ask this server, as `pgwal names --dbname` does
    #[arg(short, long, value_name = "CONNINFO", conflicts_with = "names")]
    dbname: Option<String>,
}

impl NamesArg {
    /// Reads the file, or asks the server; without either there are no names.
    pub fn read(&self) -> Result<Names, Box<dyn Error>> {
        match (&self.names, &self.dbname) {
            (Some(path), _) => {
                let file = input_file::open(path).map_err(|e| match e.kind() {
                    io::ErrorKind::NotFound => format!("{}: does not exist", printable_path(path)),
                    _ => format!("{}: {e}", printable_path(path)),
                })?;
                Ok(Names::read(file).map_err(|e| format!("{}: {e}", printable_path(path)))?)
            }
            (None, Some(conninfo)) => live::names(conninfo, |warning| note!("{warning}")),
            (None, None) => Ok(Names::default()),
        }
    }

    /// Says so where the names are those of another cluster than the WAL: its numbers mean something else there.
    pub fn compare(&self, names: &Names, wal: &Wal) {
        if let (Some(theirs), Some(own)) = (names.system_identifier, wal.system_identifier())
            && theirs != own
        {
            let source = self.source().unwrap_or_default();
            note!("{source}: the names are those of system {theirs}, but the WAL is that of system {own}");
        }
    }

    /// Where the names come from, for messages.
    fn source(&self) -> Option<String> {
        let file = self.names.as_ref().map(|path| path.display().to_string());
        file.or_else(|| self.dbname.as_ref().map(|_| "the server".to_owned()))
    }

    /// Whether there are any.
    pub fn are_given(&self) -> bool {
        self.names.is_some() || self.dbname.is_some()
    }

    /// Where the names come from; an error for `option`, which needs them.
    pub fn required(&self, option: &str) -> Result<String, WrongOption> {
        self.source().ok_or_else(|| WrongOption(format!("{option}: names need --names FILE or --dbname CONNINFO")))
    }
}

/// An option that turns out to be wrong when it is used: it is answered like one that is wrong at first sight.
#[derive(Debug)]
pub struct WrongOption(pub String);

impl fmt::Display for WrongOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for WrongOption {}

/// Checks that the value of option `first` does not come after that of option `last`.
pub fn in_order<T: PartialOrd + fmt::Display>(first: &str, start: Option<T>, last: &str, end: Option<T>) -> Result<(), WrongOption> {
    match (start, end) {
        (Some(start), Some(end)) if start > end => Err(WrongOption(format!("{first} {start} is after {last} {end}"))),
        _ => Ok(()),
    }
}

/// Which times to read.
#[derive(Args, Debug, Default)]
pub struct TimeArgs {
    /// Start after the last commit or abort before this time: 2026-11-23 05:17:08.25+02, without an offset in the local zone.
    /// Records belong to the time of the commit or abort that comes next
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<TimestampTz>,
    /// Stop before the first commit or abort after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<TimestampTz>,
}

impl TimeArgs {
    /// Narrows `options` down to these times. Reads `wal` for it, as far as it must.
    pub fn narrow(&self, wal: &Wal, options: scan::Options) -> Result<scan::Options, Box<dyn Error>> {
        if self.since.is_none() && self.until.is_none() {
            return Ok(options);
        }
        if wal.is_stream() {
            let message = "times are looked for before the WAL is read, and standard input can be read once only";
            return Err(WrongOption(message.to_owned()).into());
        }
        match times::find(wal, options, self.since, self.until) {
            (Found::Range { start, end }, _) => Ok(scan::Options { start, end, ..options }),
            (Found::Nothing { last }, summary) => {
                let range = match (self.since, self.until) {
                    (Some(since), Some(until)) => format!("from {since} to {until}"),
                    (Some(since), None) => format!("at or after {since}"),
                    (None, until) => format!("up to {}", until.map(|until| until.to_string()).unwrap_or_default()),
                };
                let last = last.map_or("there is none at all".to_owned(), |last| format!("the last one looked at is of {last}"));
                let stopped = match summary.stop {
                    Stop::Damage(error) => format!("; {error}"),
                    Stop::Source(error) => format!("; {error}"),
                    Stop::End(_) | Stop::Reached(_) | Stop::Enough => String::new(),
                };
                Err(format!("no transaction ends {range}; {last}{stopped}").into())
            }
        }
    }
}

fn time(text: &str) -> Result<TimestampTz, String> {
    Zone::local().parse(text).map_err(|e| e.to_string())
}

/// Size of the server's blocks.
#[derive(Args, Debug)]
pub struct BlockSizeArg {
    /// Size of heap and index pages that the server was built with: 1kB to 32kB [default: as in pg_control, for a data directory; else
    /// as page images in the WAL show]
    #[arg(long, value_name = "SIZE", value_parser = block_size)]
    pub block_size: Option<u32>,
}

impl BlockSizeArg {
    /// Tells `wal`, if the option is given.
    pub fn apply(&self, wal: &mut Wal) {
        if let Some(block_size) = self.block_size {
            wal.set_block_size(block_size);
        }
    }
}

fn block_size(text: &str) -> Result<u32, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "B" => Some(1),
        "kB" => Some(1024),
        _ => None,
    };
    let size = number.parse::<u32>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.filter(|&size| is_block_size(size)).ok_or_else(|| "expected a power of two from 1kB to 32kB, as 32kB or 32768".to_owned())
}

/// How many threads work.
#[derive(Args, Debug)]
pub struct ThreadsArg {
    /// Worker threads; the output does not depend on their number [default: all cores]
    #[arg(long, value_name = "N", value_parser = number::<usize>(1..=u64::MAX))]
    threads: Option<usize>,
}

impl ThreadsArg {
    /// The number.
    pub fn get(&self) -> usize {
        let all_cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.unwrap_or_else(all_cores)
    }
}

/// A resource manager, or the wish to see their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RmgrArg {
    /// `list`.
    List,
    /// A name.
    Id(RmgrId),
}

impl FilterArgs {
    /// The filter.
    pub fn filter(&self, names: &Names) -> Result<Filter, Box<dyn Error>> {
        let ids = self.rmgr.iter().filter_map(|arg| match arg {
            RmgrArg::Id(id) => Some(*id),
            RmgrArg::List => None,
        });
        Ok(Filter {
            rmgrs: (!self.rmgr.is_empty()).then(|| RmgrSet::from_iter(ids)),
            xids: any(self.xid.iter().copied().map(Xid)),
            relations: any(self.relations(names)?),
            databases: any(self.databases(names)?),
            block: self.block.map(BlockNumber),
            fork: self.fork,
            full_page: self.fullpage,
        })
    }

    fn relations(&self, names: &Names) -> Result<Vec<RelFileLocator>, WrongOption> {
        let mut relations = Vec::new();
        for wanted in &self.relation {
            match wanted {
                RelationArg::Numbers(relation) => relations.push(*relation),
                RelationArg::Name { name, typed } => {
                    let option = format!("--relation {name}");
                    let source = self.names.required(&option)?;
                    let found = names.find(name);
                    if found.is_empty() {
                        return Err(WrongOption(format!("{option}: {source} has no such relation{}", capitals(name, typed, names))));
                    }
                    relations.extend(found);
                }
            }
        }
        Ok(relations)
    }

    fn databases(&self, names: &Names) -> Result<Vec<Oid>, WrongOption> {
        let find = |wanted: &String| match wanted.parse() {
            Ok(oid) => Ok(Oid(oid)),
            Err(_) => {
                let option = format!("--database {wanted}");
                let source = self.names.required(&option)?;
                // The name as it is, or in the double quotes that SQL would have.
                let unquoted = RelationName::with_capitals(wanted).ok().filter(|name| name.schema.is_none()).map(|name| name.name);
                let named = names.database_named(wanted).or_else(|| unquoted.and_then(|name| names.database_named(&name)));
                let like = || names.databases().find(|(_, name)| name.to_lowercase() == wanted.to_lowercase());
                let hint = || like().map(|(_, name)| format!("; there is {name}")).unwrap_or_default();
                named.ok_or_else(|| WrongOption(format!("{option}: {source} has no such database{}", hint())))
            }
        };
        self.database.iter().map(find).collect()
    }
}

/// What to say where capital letters may be why no relation is found.
fn capitals(name: &RelationName, typed: &str, names: &Names) -> String {
    let quoted = RelationName::with_capitals(typed).ok().filter(|quoted| quoted != name);
    match (names.find_in_any_case(name), quoted) {
        (Some(other), _) => format!("; there is {other}, and capital letters count only in double quotes: --relation '{other}'"),
        (None, Some(quoted)) => format!("; capital letters count only in double quotes, as in --relation '{quoted}'"),
        (None, None) => String::new(),
    }
}

/// A condition, where there are values for it.
fn any<T: Ord>(values: impl IntoIterator<Item = T>) -> Option<OneOf<T>> {
    let mut values = values.into_iter().peekable();
    values.peek()?;
    Some(values.collect())
}

fn rmgr(name: &str) -> Result<RmgrArg, String> {
    if name == "list" {
        return Ok(RmgrArg::List);
    }
    let unknown = || format!("no resource manager has this name; `--rmgr list` prints the {} there are", pgwal::rmgr::RMGRS.len());
    rmgr_by_name(name).map(RmgrArg::Id).ok_or_else(unknown)
}

fn relation(text: &str) -> Result<RelationArg, String> {
    let numbers: Option<Vec<u32>> = text.split('/').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[spc, db, rel]) if spc != 0 && rel != 0 => {
            Ok(RelationArg::Numbers(RelFileLocator { spc: Oid(spc), db: Oid(db), rel: Oid(rel) }))
        }
        None if !text.contains('/') || text.contains('"') => {
            let named = |name| RelationArg::Name { name, typed: text.to_owned() };
            text.parse()
                .map(named)
                .map_err(|e| format!("{e}; write one with capital letters or dots in it in double quotes: '\"Order Lines\"'"))
        }
        _ => Err("expected tablespace/database/file number, like 1663/5/16384, or with --names a name".to_owned()),
    }
}

fn fork(name: &str) -> Result<ForkNumber, String> {
    let number = ForkNumber::NAMES.iter().position(|known| *known == name).and_then(|at| u8::try_from(at).ok());
    number.map(ForkNumber).ok_or_else(|| format!("expected one of {}", ForkNumber::NAMES.join(", ")))
}

/// How to compress, for a command of pgwal's own. LZ4 is written without levels, so that none is taken and then left out.
pub fn compression(text: &str) -> Result<Compression, String> {
    match (text.parse(), split_spec(text)) {
        (Ok(Compression::Lz4), (_, Some(_))) => Err("lz4 has no levels".to_owned()),
        (result, _) => result.map_err(|error| compression_problem(&error)),
    }
}

/// What is wrong with a compression specification, and what would be right.
pub fn compression_problem(error: &SpecError) -> String {
    match error {
        SpecError::Method(_) => format!("{error}: expected none, gzip, lz4 or zstd"),
        SpecError::Level { min, max, .. } => format!("{error}: expected a level from {min} to {max}"),
        error => format!("invalid compression specification: {error}"),
    }
}
