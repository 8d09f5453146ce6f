//! Options that commands share.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use pgwal::filter::{Filter, RmgrSet, rmgr_by_name};
use pgwal::source::{SourceError, SourceProblem, Wal, segment_of_file_name};
use pgwal::types::{BlockNumber, ForkNumber, Oid, RelFileLocator, Xid};
use pgwal::{Lsn, RmgrId, SegmentName, TimelineId};

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
    /// Whether the WAL may go on behind what is read, so that stopping there says nothing about its end.
    pub partial: bool,
}

impl SegmentArgs {
    /// Finds the segments; with `follow`, also those behind a named one.
    pub fn open(&self, follow: bool) -> Result<Selection, Box<dyn Error>> {
        let Some(first) = &self.start_segment else {
            let path = self.path.clone().unwrap_or_else(default_directory);
            let wal = Wal::open(&[path], self.timeline)?;
            return Ok(Selection { wal, start: self.start(), end: self.end(), partial: false });
        };
        let Some(last) = &self.end_segment else {
            let input = self.locate(first);
            let whole = input.is_dir() || first == Path::new("-");
            let wal = match name_of(first).filter(|_| !whole) {
                // A named segment and an end behind it mean all segments up to there.
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

    /// Where to start. Like pg_waldump, 0/0 is as good as nothing.
    pub fn start(&self) -> Option<Lsn> {
        self.start.filter(|lsn| lsn.is_valid())
    }

    fn end(&self) -> Option<Lsn> {
        self.end.filter(|lsn| lsn.is_valid())
    }

    /// A segment named without its folder is looked for where WAL usually is.
    fn locate(&self, input: &Path) -> PathBuf {
        let bare = input.parent() == Some(Path::new("")) && input != Path::new("-");
        if !bare || (self.path.is_none() && input.exists()) {
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
        bases.into_iter().find(|path| path.exists()).unwrap_or_else(|| input.to_owned())
    }
}

/// A set of WAL: any number of inputs, for commands that do not read from one segment to another.
#[derive(Args, Debug)]
#[allow(dead_code, reason = "for the commands to come")]
pub struct InputArgs {
    /// Segments, directories of segments, data directories, tar archives, each also compressed; `-` for standard input
    /// [default: ., ./pg_wal, $PGDATA/pg_wal]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Read no timeline newer than this one; decimal, or hexadecimal with 0x [default: the newest there is]
    #[arg(short, long, value_name = "TLI", value_parser = timeline)]
    pub timeline: Option<TimelineId>,
}

#[allow(dead_code, reason = "for the commands to come")]
impl InputArgs {
    /// Finds the segments.
    pub fn open(&self) -> Result<Wal, SourceError> {
        match &self.paths[..] {
            [] => Wal::open(&[default_directory()], self.timeline),
            paths => Wal::open(paths, self.timeline),
        }
    }

    /// Whether only single segments were named, so that the WAL may go on behind them: stopping there says nothing about its end.
    pub fn is_part(&self) -> bool {
        !self.paths.is_empty() && self.paths.iter().all(|path| name_of(path).is_some() && !path.is_dir())
    }
}

/// The segments beside `first`, which is called `name`, from it to `last`.
fn range(first: &Path, name: SegmentName, last: Option<SegmentName>) -> Result<Wal, Box<dyn Error>> {
    let directory = match first.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
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

fn name_of(path: &Path) -> Option<SegmentName> {
    segment_of_file_name(&path.file_name()?.to_string_lossy())
}

/// The first of pg_waldump's places that has WAL.
fn default_directory() -> PathBuf {
    let has_wal = |dir: &Path| {
        let mut files = dir.read_dir().into_iter().flatten().flatten();
        files.any(|file| segment_of_file_name(&file.file_name().to_string_lossy()).is_some())
    };
    let here = PathBuf::from(".");
    let data = env::var_os("PGDATA").map(|dir| Path::new(&dir).join("pg_wal"));
    let places = [Some(here.clone()), Some(PathBuf::from("pg_wal")), data];
    places.into_iter().flatten().find(|dir| has_wal(dir)).unwrap_or(here)
}

fn timeline(text: &str) -> Result<TimelineId, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(timeline) if timeline > 0 => Ok(TimelineId(timeline)),
        _ => Err("expected a number from 1 to 4294967295".to_owned()),
    }
}

/// Which records to show; all conditions must hold.
#[derive(Args, Debug)]
pub struct FilterArgs {
    /// Only records of this resource manager; repeated, of all of these; `list` prints the names
    #[arg(short, long, value_name = "RMGR", value_parser = rmgr)]
    pub rmgr: Vec<RmgrArg>,
    /// Only records of this transaction
    #[arg(short, long, value_name = "XID")]
    pub xid: Option<u32>,
    /// Only records that touch this relation: tablespace/database/file number
    #[arg(short = 'R', long, value_name = "T/D/R", value_parser = relation)]
    pub relation: Option<RelFileLocator>,
    /// Only records that touch this block of the relation
    #[arg(short = 'B', long, value_name = "N", requires = "relation")]
    pub block: Option<u32>,
    /// Only records that touch this fork
    #[arg(short = 'F', long, value_name = "FORK", value_parser = fork)]
    pub fork: Option<ForkNumber>,
    /// Only records with a full-page image
    #[arg(short = 'w', long)]
    pub fullpage: bool,
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
    pub fn filter(&self) -> Filter {
        let ids = self.rmgr.iter().filter_map(|arg| match arg {
            RmgrArg::Id(id) => Some(*id),
            RmgrArg::List => None,
        });
        Filter {
            rmgrs: (!self.rmgr.is_empty()).then(|| RmgrSet::from_iter(ids)),
            xid: self.xid.map(Xid),
            relation: self.relation,
            block: self.block.map(BlockNumber),
            fork: self.fork,
            full_page: self.fullpage,
        }
    }
}

fn rmgr(name: &str) -> Result<RmgrArg, String> {
    if name == "list" {
        return Ok(RmgrArg::List);
    }
    let unknown = || format!("no resource manager has this name; `--rmgr list` prints the {} there are", pgwal::rmgr::RMGRS.len());
    rmgr_by_name(name).map(RmgrArg::Id).ok_or_else(unknown)
}

fn relation(text: &str) -> Result<RelFileLocator, String> {
    let numbers: Option<Vec<u32>> = text.split('/').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[spc, db, rel]) if spc != 0 && rel != 0 => Ok(RelFileLocator { spc: Oid(spc), db: Oid(db), rel: Oid(rel) }),
        _ => Err("expected tablespace/database/file number, like 1663/5/16384".to_owned()),
    }
}

fn fork(name: &str) -> Result<ForkNumber, String> {
    let number = ForkNumber::NAMES.iter().position(|known| *known == name).and_then(|at| u8::try_from(at).ok());
    number.map(ForkNumber).ok_or_else(|| format!("expected one of {}", ForkNumber::NAMES.join(", ")))
}
