//! `pgwal diff`: where two copies of WAL part.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use pgwal::diff::{self, Json, Kind, Options, Side, Sides, Unified};
use pgwal::text::Zone;
use pgwal::{Lsn, TimelineId};

use crate::args::{BlockSizeArg, Form, in_order, number, timeline};
use crate::console::{COULD_NOT_RUN, CouldNotRun};

/// Compare two copies of WAL, or two timelines: where they part, and what each has from there on
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example: pgwal diff --timelines 1,2 fixtures/v15/timeline2

Compared are the WAL and what stands around it: history files and backup history files, and bytes that follow a segment in its file, unless \
--start or --end asks for a part of the WAL.

What is the same byte for byte is not looked into: damage that both sides have is found with --check, or by pgwal verify.

Exit status: 0 the same; 1 different; 2 trouble: nothing could be compared, --check found damage that both have, or standard output cannot \
be written; 141 nobody reads it (as `| head` leaves it).")]
pub struct Opts {
    /// First copy: a segment, a directory, a data directory, a tar archive, each also compressed; `-` for standard input
    a: PathBuf,
    /// Second copy [default: the first, for two timelines of it]
    #[arg(required_unless_present = "timelines")]
    b: Option<PathBuf>,
    /// Read the first copy up to timeline A and the second one up to B; decimal, or hexadecimal with 0x [default: the newest there is]
    #[arg(short, long, value_name = "A,B", value_parser = two_timelines)]
    timelines: Option<(TimelineId, TimelineId)>,
    /// Compare only records that start at this LSN or later
    #[arg(short, long, value_name = "LSN")]
    start: Option<Lsn>,
    /// Compare only records that end before this LSN
    #[arg(short, long, value_name = "LSN")]
    end: Option<Lsn>,
    /// Compare only where both have WAL: what one has before the other begins, or after its end, is no difference
    #[arg(long)]
    overlap: bool,
    /// Take differences of these kinds for none; may be repeated
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    ignore: Vec<Ignore>,
    /// Also look for damage that both have
    #[arg(long)]
    check: bool,
    /// Show this many records before and after each difference
    #[arg(short = 'U', long, value_name = "N", default_value_t = 3, value_parser = number::<u16>(0..=u64::from(u16::MAX)))]
    unified: u16,
    /// Show at most this many differences of each side; 0: all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = number::<u64>(0..=u64::MAX))]
    limit: u64,
    /// Show the bytes of what differs with the names of their fields, also where the meaning is the same
    #[arg(long)]
    bytes: bool,
    /// Show the verdict alone
    #[arg(long)]
    summary: bool,
    /// Show nothing; the exit status tells
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    blocks: BlockSizeArg,
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
}

/// Kinds of differences where the meaning is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ignore {
    /// Fields of page headers
    PageHeaders,
    /// Padding in records and after them
    Padding,
    /// How page images are stored, where they are restored to the same pages
    Compression,
    /// How a record's parts are laid out
    Layout,
    /// Records that change nothing but hint bits and the server's bookkeeping
    HintOnly,
    /// Bytes after the end of the WAL
    BehindEnd,
    /// History files, backup history files, and bytes that follow a segment in its file
    Files,
    /// All of these
    All,
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        in_order("--start", self.start, "--end", self.end)?;
        match self.compare(out) {
            Ok(code) => Ok(code),
            Err(error) => match error.downcast::<diff::Error>() {
                Ok(error) => Err(CouldNotRun(error).into()),
                Err(error) if error.is::<pgwal::source::SourceError>() => Err(CouldNotRun(error).into()),
                Err(error) => Err(error),
            },
        }
    }

    fn compare(&self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        let timelines = self.timelines.unzip();
        let mut a = Side::open(&self.a, timelines.0)?;
        let mut b = Side::open(self.b.as_ref().unwrap_or(&self.a), timelines.1)?;
        let passed_over = a.passed_over().iter().chain(b.passed_over().iter().filter(|_| self.b.is_some()));
        passed_over.for_each(|file| note!("{file}"));
        if let Some(block_size) = self.blocks.block_size {
            a.set_block_size(block_size);
            b.set_block_size(block_size);
        }
        let options = Options { start: self.start, end: self.end, context: self.unified.into(), check: self.check };
        let zone = Zone::local();
        let limit = if self.limit == 0 { u64::MAX } else { self.limit };
        let comparison = match self.format {
            _ if self.quiet || self.summary => diff::diff(&a, &b, options, &mut ())?,
            Form::Text => {
                let label = |side: &Side, timeline: Option<TimelineId>| match timeline {
                    Some(timeline) => format!("{} (timeline {timeline})", side.input()),
                    None => side.input().to_owned(),
                };
                let labels = Sides { a: label(&a, timelines.0), b: label(&b, timelines.1) };
                let mut sink = Unified::new(&mut *out, zone.clone(), self.bytes, limit, labels);
                let comparison = diff::diff(&a, &b, options, &mut sink)?;
                sink.finish()?;
                comparison
            }
            Form::Json => {
                let mut sink = Json::new(&mut *out, self.bytes, limit);
                let comparison = diff::diff(&a, &b, options, &mut sink)?;
                sink.finish()?;
                comparison
            }
        };
        match self.format {
            _ if self.quiet => {}
            Form::Text => diff::write_text(&comparison, &zone, out)?,
            Form::Json => diff::write_json(&comparison, out)?,
        }
        Ok(if !comparison.has_compared() || (self.check && comparison.damage_in_common > 0) {
            COULD_NOT_RUN.into() // as of diff(1)
        } else if comparison.is_same(&self.ignored(), self.overlap) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn ignored(&self) -> Vec<Kind> {
        let kinds = self.ignore.iter().flat_map(|ignore| match ignore {
            Ignore::PageHeaders => &[Kind::PageHeaders][..],
            Ignore::Padding => &[Kind::Padding],
            Ignore::Compression => &[Kind::Compression],
            Ignore::Layout => &[Kind::Layout],
            Ignore::HintOnly => &[Kind::HintOnly],
            Ignore::BehindEnd => &[Kind::BehindEnd],
            Ignore::Files => &[Kind::Files],
            Ignore::All => &Kind::ALL,
        });
        kinds.copied().collect()
    }
}

fn two_timelines(text: &str) -> Result<(TimelineId, TimelineId), String> {
    let (a, b) = text.split_once(',').ok_or("expected two timelines, like 1,2")?;
    Ok((timeline(a)?, timeline(b)?))
}
