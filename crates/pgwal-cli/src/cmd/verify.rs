//! `pgwal verify`: everything that the format allows to check.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::error::Error;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use pgwal::check::{self, Checked, Class, Cluster, Event, Finding, Problem, Run, Runs, Signal, Summary, Told};
use pgwal::history::timeline_of_file_name;
use pgwal::output_file::OutputFile;
use pgwal::printable::{printable, printable_path};
use pgwal::reach::Reach;
use pgwal::set::{RemarkKind, survey_each};
use pgwal::source::{Archive, SourceError, SourceProblem, Wal, file_of_input, is_wal_file_name};
use pgwal::state::{self, Reread, Scope, State, Unusable, Verified};
use pgwal::{Lsn, SegmentName, TimelineId};
use serde::Serialize;

use crate::args::{self, ThreadsArg};
use crate::console::CouldNotRun;
use crate::restore::{self, RestoreArgs};
use crate::{metrics, report};

/// Check WAL: page headers, records, payloads, and whether the segments belong together
#[derive(clap::Args, Debug)]
#[command(
    args_override_self = true,
    after_help = "\
Example: pgwal verify fixtures/v17/timeline2

It does not stop at damage: it goes on where records start again, and reports each damaged range once.

Exit status: 0 nothing found, 1 findings, 2 could not run, or standard output cannot be written, 141 nobody reads it (as `| head` \
leaves it). With --reach, what counts is the answer: 0 yes, whatever was found that is not in the way, 1 no or unknown."
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
    /// System identifier that all segments must have [default: that of the data directory's pg_control, else the one that most of them have]
    #[arg(long, value_name = "ID", value_parser = args::number::<u64>(0..=u64::MAX))]
    system_identifier: Option<u64>,
    /// Stop at the first finding
    #[arg(long)]
    fail_fast: bool,
    /// Print findings only: no summary, no progress
    #[arg(short, long)]
    quiet: bool,
    /// Remember in this file what had no findings, and read only what is new or changed since, and what is beside it. A file is taken for
    /// unchanged where device, inode, size, and the times of its content and of its inode (mtime, ctime) are as they were: what changes
    /// without those, as bits that rot on a disk, or what is written through a memory mapping before the system notes the time, shows
    /// only in a run without --state
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "timeline", "fail_fast"])]
    state: Option<PathBuf>,
    /// With --state: read a part of what is unchanged again on each day, so that all of it is read within this many days of nightly runs
    #[arg(long, value_name = "DAYS", requires = "state")]
    reread: Option<NonZero<u16>>,
    #[command(flatten)]
    blocks: args::BlockSizeArg,
    #[command(flatten)]
    restore: RestoreArgs,
    /// Form of the output; json: one object for each finding, then one for the summary; junit and sarif: a report for CI systems;
    /// prometheus: metrics for the node exporter's textfile collector, or what else reads that format
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
    /// Write to this file, which is replaced once all of it is written; a run that fails leaves the old one [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Junit,
    Sarif,
    Prometheus,
}

/// A line of `--format json`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Finding(&'a Run),
    /// Files beside segments that are none.
    Beside {
        files: &'a [&'a str],
    },
    /// What a data directory's pg_control says.
    Control {
        path: String,
        state: String,
        checkpoint: Lsn,
        redo: Lsn,
        timeline: TimelineId,
        running: bool,
    },
    /// Segments that are missing before the place where the data directory's server starts to read.
    Unneeded {
        first: SegmentName,
        last: SegmentName,
        /// Replication slots that need them.
        slots: Vec<String>,
    },
    Summary(&'a Summary),
    Restore(&'a Reach),
}

/// What a run comes to.
struct Outcome {
    summary: Summary,
    restore: Option<Reach>,
}

/// What is kept of the findings and files, for whoever asks at the end.
#[derive(Default)]
struct Kept {
    findings: Vec<Finding>,
    /// Joins findings in consecutive segments.
    runs: Runs,
    /// Number of findings, as they are told: one for the same damage in consecutive segments.
    count: u64,
    /// The same, by the names of their classes.
    classes: BTreeMap<&'static str, u64>,
    /// Files that have findings, for the state.
    bad: HashSet<String>,
    inputs: Vec<String>,
    /// Only the findings of these are asked for.
    only: Option<HashSet<Arc<str>>>,
    /// Segments that were not read again.
    unchanged: usize,
    /// Where findings are, for who looks at the whole afterwards.
    told: Told,
    /// Where the WAL starts that the server of the data directory needs, if there is nothing else than that directory.
    needs_from: Option<Lsn>,
    /// Segments that are missing before that.
    unneeded: Vec<(SegmentName, SegmentName, Lsn)>,
    /// When the run began.
    started: Option<Instant>,
}

impl Opts {
    /// Runs the command.
    pub fn run(mut self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        args::in_order("--from", self.from, "--to", self.to)?;
        if let Some(folder) = args::folder_of_all(&self.paths) {
            self.paths = vec![folder];
        }
        let result = match &self.output {
            Some(path) => self.verify_into(path),
            None => self.verify(out),
        };
        match result {
            Ok(Outcome { summary, restore }) => {
                // A finding that is not in the way of a restore does not make its yes a no.
                let is_good = restore.map_or(summary.findings == 0, |answer| answer.is_yes());
                Ok(ExitCode::from(u8::from(!is_good)))
            }
            Err(error) => Err(CouldNotRun(error).into()),
        }
    }

    fn verify_into(&self, path: &Path) -> Result<Outcome, Box<dyn Error>> {
        let failed = |e: io::Error| format!("{}: {e}", printable_path(path));
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if is_wal_file_name(&name) {
            return Err(format!("{}: an output file cannot have the name of a WAL file", printable_path(path)).into());
        }
        let mut file = BufWriter::new(OutputFile::create(path).map_err(failed)?);
        let outcome = self.verify(&mut file)?;
        file.into_inner().map_err(|e| failed(e.into_error()))?.commit().map_err(failed)?;
        Ok(outcome)
    }

    fn verify(&self, out: &mut impl Write) -> Result<Outcome, Box<dyn Error>> {
        let started = Instant::now();
        // Before the WAL is listed: a server removes segments only when pg_control says that it can.
        let clusters = self.clusters();
        let system_identifier = self.system_identifier.or_else(|| one_cluster(&clusters));
        let archive = self.archive(&clusters)?;
        let before = match (&self.state, &archive) {
            (Some(path), Some(archive)) => {
                state::wait_for_clock(archive);
                load_state(path, self.scope(system_identifier))?
            }
            _ => State::default(),
        };
        let unchanged = archive.as_ref().map_or_else(Vec::new, |archive| {
            before.unchanged_or_due(archive, self.reread.map(|days| Reread::new(days, SystemTime::now())))
        });
        let is_unchanged: BTreeSet<&str> = unchanged.iter().map(|file| &*file.input).collect();
        let part;
        let wal = match &archive {
            Some(archive) if unchanged.is_empty() && self.timeline.is_none() => archive.whole(),
            Some(archive) => {
                part = archive.wal_without(self.timeline, |input| is_unchanged.contains(input));
                &part
            }
            None => {
                part = self.open()?;
                &part
            }
        };
        let options = check::Options { from: self.from, to: self.to, system_identifier, threads: self.threads.get() };
        let bar = self.progress_bar(wal.files().len());
        let mut written = Ok(());
        let mut is_live = is_being_written(wal);
        let mut held = Vec::new();
        let mut kept = Kept {
            only: archive.as_ref().and_then(|archive| self.asked_for(archive)),
            unchanged: unchanged.len(),
            needs_from: match &clusters[..] {
                [cluster] if self.inputs().len() == 1 && archive.is_some() => cluster.needs_from(),
                _ => None,
            },
            started: Some(started),
            ..Kept::default()
        };
        let mut being_copied: Vec<String> = Vec::new();
        let mut summary = check::check(wal, options, |event| {
            written = match event {
                Event::Finding(finding) if archive.as_ref().is_some_and(|archive| check::is_being_copied(archive, &finding)) => {
                    if !being_copied.contains(&finding.input) {
                        being_copied.push(finding.input);
                    }
                    return ControlFlow::Continue(());
                }
                // What is not read again is not missing: gaps are looked for in the whole set.
                Event::Finding(Finding { class: Class::MissingSegment { .. }, .. }) if !unchanged.is_empty() => {
                    return ControlFlow::Continue(());
                }
                Event::Finding(finding) if is_live && held.len() < HELD => {
                    held.push(finding);
                    return ControlFlow::Continue(());
                }
                // A server that writes has few places that do not fit: this is something else.
                Event::Finding(finding) if !held.is_empty() => {
                    is_live = false;
                    let mut all = held.drain(..).chain(Some(finding));
                    bar.suspend(|| all.try_for_each(|finding| self.take(finding, &mut kept, out)))
                }
                Event::Finding(finding) => bar.suspend(|| self.take(finding, &mut kept, out)),
                Event::Checked(Checked { input, leftover, .. }) => {
                    bar.inc(1);
                    if self.keeps_inputs() && !leftover {
                        kept.inputs.push(input.clone());
                    }
                    bar.set_message(printable(&input).to_string());
                    return ControlFlow::Continue(());
                }
                _ => return ControlFlow::Continue(()),
            };
            if written.is_err() || self.fail_fast { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        written?;
        // A timeline without a segment is a question that --reach can answer.
        let is_narrowed = self.from.is_some() || self.to.is_some() || (self.timeline.is_some() && self.restore.reach.is_none());
        if is_narrowed && summary.segments == 0 && summary.leftover.is_empty() && summary.findings == 0 && unchanged.is_empty() {
            // To have looked at nothing is not to have found nothing.
            return Err("no WAL in the range that was asked for".into());
        }
        if !held.is_empty() {
            let (held, mut growing) = self.confirmed(held, options)?;
            being_copied.append(&mut growing);
            let shown = if self.fail_fast { held.into_iter().take(1).collect() } else { held };
            shown.into_iter().try_for_each(|finding| self.take(finding, &mut kept, out))?;
        }
        summary.being_copied = being_copied;
        self.end_run(&mut kept, out)?;
        if let Some(archive) = archive.as_ref().filter(|_| !self.fail_fast || kept.count == 0) {
            self.of_the_set(archive, system_identifier, !unchanged.is_empty(), |finding| self.take(finding, &mut kept, out))?;
            let paths = self.inputs();
            for cluster in clusters.iter().filter(|_| self.timeline.is_none()) {
                for finding in cluster.findings(&paths, archive, &kept.told) {
                    self.take(finding, &mut kept, out)?;
                }
            }
        }
        self.end_run(&mut kept, out)?;
        summary.findings = kept.count;
        if let (Some(path), Some(archive)) = (&self.state, &archive) {
            let after = remember(archive, &before, &is_unchanged, &kept, &summary.being_copied);
            after.store(path).map_err(|e| format!("{}: {e}", printable_path(path)))?;
        }
        let restore = match &archive {
            Some(archive) => {
                let inputs = self.inputs();
                self.restore.answer(archive, &inputs, &kept.findings, self.timeline, system_identifier, options.threads)?
            }
            None => None,
        };
        let clusters = if archive.is_some() { &clusters[..] } else { &[] };
        self.finish(&summary, &kept, archive.as_ref(), restore.as_ref(), clusters, out)?;
        out.flush()?;
        Ok(Outcome { summary, restore })
    }

    /// The end of the output.
    fn finish(
        &self,
        summary: &Summary,
        kept: &Kept,
        archive: Option<&Archive>,
        restore: Option<&Reach>,
        clusters: &[Cluster],
        out: &mut impl Write,
    ) -> Result<(), Box<dyn Error>> {
        let beside: Vec<&str> = archive.iter().flat_map(|archive| archive.beside_segments()).map(|file| &*file.input).collect();
        match self.format {
            Form::Text => {
                if !self.quiet {
                    write_beside(&beside, out)?;
                    if kept.unchanged > 0 {
                        writeln!(out, "{} unchanged and not read again.", count(kept.unchanged, "segment"))?;
                    }
                    clusters.iter().try_for_each(|cluster| write_cluster(cluster, archive, out))?;
                    clusters.iter().try_for_each(|cluster| write_unneeded(cluster, kept, out))?;
                    self.conclude(summary, out)?;
                }
                for cluster in clusters.iter().filter(|cluster| cluster.is_running() && summary.findings > 0) {
                    let path = printable_path(cluster.path());
                    writeln!(out, "A server is running on {path}: do not change its files under it.")?;
                }
                if let Some(answer) = restore {
                    restore::write_text(answer, summary.findings, out)?;
                }
            }
            Form::Json => {
                if !self.quiet {
                    if !beside.is_empty() {
                        json_line(&Line::Beside { files: &beside }, out)?;
                    }
                    clusters.iter().filter_map(control_line).try_for_each(|line| json_line(&line, out))?;
                    for &(first, last, end) in &kept.unneeded {
                        let slots = clusters.iter().flat_map(Cluster::slots).filter(|(_, restart)| *restart < end);
                        json_line(&Line::Unneeded { first, last, slots: slots.map(|(name, _)| name).collect() }, out)?;
                    }
                    json_line(&Line::Summary(summary), out)?;
                }
                if let Some(answer) = restore {
                    json_line(&Line::Restore(answer), out)?;
                }
            }
            Form::Junit => report::junit(&kept.by_input(), restore, out)?,
            Form::Sarif => report::sarif(&kept.by_input(), restore, out)?,
            Form::Prometheus => {
                let run = metrics::Run {
                    path: &Scope::new(&self.inputs()).inputs.join(" "),
                    summary,
                    classes: &kept.classes,
                    unchanged: kept.unchanged,
                    reaches: restore.map(Reach::is_yes),
                    took: kept.started.map_or(Duration::ZERO, |started| started.elapsed()),
                };
                metrics::write(&run, SystemTime::now(), out)?;
            }
        }
        Ok(())
    }

    /// Whether the files are asked for at the end.
    fn keeps_inputs(&self) -> bool {
        self.state.is_some() || matches!(self.format, Form::Junit | Form::Sarif)
    }

    /// Whether the findings are asked for at the end: there may be hundreds of thousands.
    fn keeps_findings(&self) -> bool {
        self.restore.reach.is_some() || matches!(self.format, Form::Junit | Form::Sarif)
    }

    /// Shows a finding, as soon as it is known where its run ends, or at the end.
    fn take(&self, finding: Finding, kept: &mut Kept, out: &mut impl Write) -> io::Result<()> {
        if let (Finding { class: Class::MissingSegment { first, last }, lsns: Some(lsns), problem: None, .. }, Some(from)) =
            (&finding, kept.needs_from)
            && lsns.end <= from
        {
            kept.unneeded.push((*first, *last, lsns.end));
            return Ok(());
        }
        kept.told.add(&finding);
        if let Some(run) = kept.runs.add(finding.clone()) {
            self.show(&run, kept, out)?;
        }
        if self.state.is_some() && !kept.bad.contains(&finding.input) {
            kept.bad.insert(finding.input.clone());
        }
        if self.keeps_findings() && kept.only.as_ref().is_none_or(|only| only.contains(finding.input.as_str())) {
            kept.findings.push(finding);
        }
        Ok(())
    }

    /// Shows the last finding: no more follow.
    fn end_run(&self, kept: &mut Kept, out: &mut impl Write) -> io::Result<()> {
        kept.runs.finish().map_or(Ok(()), |run| self.show(&run, kept, out))
    }

    fn show(&self, run: &Run, kept: &mut Kept, out: &mut impl Write) -> io::Result<()> {
        kept.count += 1;
        *kept.classes.entry(run.first().class.name()).or_default() += 1;
        match self.format {
            Form::Text => writeln!(out, "{run}\n"),
            Form::Json => json_line(&Line::Finding(run), out),
            Form::Junit | Form::Sarif | Form::Prometheus => Ok(()),
        }
    }

    /// The files whose findings are asked for at the end; `None`: all. Recovery looks at no others than segments that start as such, and
    /// there may be hundreds of thousands that do not.
    fn asked_for(&self, archive: &Archive) -> Option<HashSet<Arc<str>>> {
        if self.restore.reach.is_none() || matches!(self.format, Form::Junit | Form::Sarif) {
            return None;
        }
        let in_place = archive.segments().filter(|(_, segment)| segment.in_place().is_some());
        Some(in_place.map(|(file, _)| Arc::clone(&file.input)).collect())
    }

    /// What a state file of this run is for.
    fn scope(&self, system_identifier: Option<u64>) -> Scope {
        let mut scope = Scope::new(&self.inputs());
        if let Some(id) = system_identifier {
            scope.options.insert("system_identifier".to_owned(), id.to_string());
        }
        if let Some(block_size) = self.blocks.block_size {
            scope.options.insert("block_size".to_owned(), block_size.to_string());
        }
        scope
    }

    /// What is verified.
    fn inputs(&self) -> Vec<PathBuf> {
        if self.paths.is_empty() { vec![args::default_directory()] } else { self.paths.clone() }
    }

    /// The data directories among the inputs, and those whose pg_wal, or segments in it, are.
    fn clusters(&self) -> Vec<Cluster> {
        let mut clusters: Vec<Cluster> = Vec::new();
        for input in self.inputs() {
            let dir = if input.is_file() { args::directory_of(&input).to_owned() } else { input };
            let cluster = Cluster::of_input(&dir);
            clusters.extend(cluster.filter(|cluster| clusters.iter().all(|known| known.path() != cluster.path())));
        }
        clusters
    }

    /// The files as a set, where that is what was asked for: not segments by name, nor a stream, which is read once.
    fn archive(&self, clusters: &[Cluster]) -> Result<Option<Archive>, Box<dyn Error>> {
        let paths = self.inputs();
        let is_asked_for = self.state.is_some() || self.restore.reach.is_some();
        if paths.iter().any(|path| path == Path::new("-")) {
            return if is_asked_for { Err("--state and --reach need files, not standard input".into()) } else { Ok(None) };
        }
        let is_segment = |path: &&PathBuf| path.is_file() && args::name_of(path).is_some();
        let segments: Vec<&PathBuf> = paths.iter().filter(is_segment).collect();
        let is_by_name = !segments.is_empty() && !are_all_of_their_directories(&segments);
        let is_set = is_asked_for || (!is_by_name && self.from.is_none() && self.to.is_none());
        let mut archive = match is_set.then(|| Archive::open(&paths)) {
            Some(Ok(archive)) => Some(archive),
            // That all WAL of a data directory is gone is a finding, or it is to be fetched.
            Some(Err(SourceError { problem: SourceProblem::NoSegments, .. })) if !clusters.is_empty() => Some(Archive::empty()),
            Some(Err(e)) => return Err(e.into()),
            None => None,
        };
        if let (Some(archive), Some(block_size)) = (&mut archive, self.blocks.block_size) {
            archive.set_block_size(block_size);
        }
        Ok(archive)
    }

    /// Tells `take` what is wrong with the set of files besides its segments; and with `gaps`, which segments are missing.
    fn of_the_set(
        &self,
        archive: &Archive,
        system_identifier: Option<u64>,
        gaps: bool,
        mut take: impl FnMut(Finding) -> io::Result<()>,
    ) -> io::Result<()> {
        let size = archive.segments().find_map(|(_, segment)| segment.in_place()).map_or(0, |(fmt, _)| fmt.segment_size);
        let is_new = |finding: &Finding| match finding.class {
            Class::TextFile => true,
            Class::Timeline => matches!(finding.problem, Some(Problem::Set(RemarkKind::NotInHistory { .. }))),
            // A segment that cannot be read has been told of.
            Class::Unreadable { .. } => finding.segment.is_none(),
            Class::MissingSegment { .. } => gaps,
            _ => false,
        };
        let timeline =
            |finding: &Finding| timeline_of_file_name(file_of_input(&finding.input)).or(finding.segment.map(|segment| segment.timeline));
        let is_told = |finding: &Finding| is_new(finding) && self.timeline.is_none_or(|wanted| timeline(finding) == Some(wanted));
        let mut taken = Ok(());
        let _ = survey_each(archive, system_identifier, |remark| {
            taken = remark.finding(size).filter(is_told).map_or(Ok(()), &mut take);
            if taken.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        taken
    }

    fn open(&self) -> Result<Wal, Box<dyn Error>> {
        let mut wal = self.find()?;
        self.blocks.apply(&mut wal);
        Ok(wal)
    }

    fn find(&self) -> Result<Wal, Box<dyn Error>> {
        let segment = |path: &Path| if path.is_file() { args::name_of(path) } else { None };
        match self.paths.as_slice() {
            [] => Ok(Wal::open_all(&[args::default_directory()], self.timeline)?),
            [first, last] if first.parent() == last.parent() => match (segment(first), segment(last)) {
                (Some(from), Some(to)) if from > to => Err(format!("{to} is before {from}: name the first segment first").into()),
                (Some(from), Some(to)) => {
                    let mut wal = Wal::open_all(&[args::directory_of(first)], self.timeline)?;
                    wal.keep_range(Some(from), Some(to));
                    Ok(wal)
                }
                _ => Ok(Wal::open_all(&self.paths, self.timeline)?),
            },
            paths => Ok(Wal::open_all(paths, self.timeline)?),
        }
    }

    /// What is still found when one looks again. A server that writes while its segments are read, one after the other, leaves
    /// places that do not fit together: the end of the WAL as it was, and after it what came later.
    ///
    /// The second list has the files that grow meanwhile: somebody is still copying them.
    fn confirmed(&self, mut findings: Vec<Finding>, options: check::Options) -> Result<(Vec<Finding>, Vec<String>), Box<dyn Error>> {
        let len = |input: &str| fs::metadata(input).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
        let inputs: BTreeSet<String> = findings.iter().map(|finding| finding.input.clone()).collect();
        let mut lens: BTreeMap<String, u64> = inputs.into_iter().filter_map(|input| len(&input).map(|len| (input, len))).collect();
        for finding in &findings {
            // As long as it was when it was read.
            if let (Class::Truncated { len, .. }, Some(known)) = (&finding.class, lens.get_mut(&finding.input)) {
                *known = *len;
            }
        }
        for _ in 0..LOOKS {
            std::thread::sleep(PAUSE);
            let mut again = HashSet::new();
            check::check(&self.open()?, options, |event| {
                if let Event::Finding(finding) = event {
                    again.insert((finding.input, finding.lsns.map(|lsns| lsns.start)));
                }
                ControlFlow::Continue(())
            });
            findings.retain(|finding| again.contains(&(finding.input.clone(), finding.lsns.as_ref().map(|lsns| lsns.start))));
            if findings.is_empty() {
                break;
            }
        }
        let growing: Vec<String> =
            lens.into_iter().filter(|(input, was)| len(input).is_some_and(|len| len > *was)).map(|(input, _)| input).collect();
        findings.retain(|finding| !growing.contains(&finding.input));
        Ok((findings, growing))
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

    fn conclude(&self, summary: &Summary, out: &mut impl Write) -> io::Result<()> {
        for end in &summary.ends {
            writeln!(out, "Timeline {}: {}.", end.timeline, end.end)?;
        }
        if !summary.leftover.is_empty() {
            writeln!(out, "{} behind the end of the WAL, kept for later use.", count(summary.leftover.len(), "segment"))?;
        }
        for input in &summary.being_copied {
            writeln!(out, "{} is still being copied, and is not judged: check it again when it is complete.", printable(input))?;
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
            0 if !summary.being_copied.is_empty() => {
                writeln!(out, ": nothing found in what is complete ({} not judged).", count(summary.being_copied.len(), "file"))
            }
            0 => writeln!(out, ": nothing found."),
            _ if self.fail_fast => writeln!(out, ", then stopped at the first finding."),
            findings => writeln!(out, ": {}.", count(findings as usize, "finding")),
        }
    }
}

/// Whether segments are named as a pattern of the shell names them: more than the two of a range, and all that their directories have.
fn are_all_of_their_directories(segments: &[&PathBuf]) -> bool {
    let mut named: BTreeMap<&Path, usize> = BTreeMap::new();
    for segment in segments {
        *named.entry(args::directory_of(segment)).or_default() += 1;
    }
    let is_segment = |path: &Path| args::name_of(path).is_some() && path.is_file();
    let count = |dir: &Path| fs::read_dir(dir).map(|entries| entries.flatten().filter(|entry| is_segment(&entry.path())).count());
    segments.len() > 2 && named.iter().all(|(dir, named)| count(dir).is_ok_and(|count| count == *named))
}

/// The cluster that data directories are of, if they are of one.
fn one_cluster(clusters: &[Cluster]) -> Option<u64> {
    let mut identifiers = clusters.iter().filter_map(|cluster| cluster.control()).map(|control| control.system_identifier);
    let first = identifiers.next()?;
    identifiers.all(|other| other == first).then_some(first)
}

/// Where recovery would start, in a sentence.
fn write_cluster(cluster: &Cluster, archive: Option<&Archive>, out: &mut impl Write) -> io::Result<()> {
    let Some(control) = cluster.control() else { return Ok(()) };
    let copy = &control.checkpoint_copy;
    let (state, checkpoint) = (control.state, control.checkpoint);
    writeln!(out, "pg_control: {state}; last checkpoint at {checkpoint} on timeline {}, recovery starts at {}.", copy.timeline, copy.redo)?;
    if archive.is_some_and(|archive| cluster.is_stored_packed(archive)) {
        writeln!(out, "All segments in pg_wal are compressed: unpack them before a server is started on this directory.")?;
    }
    let (Some(archive), Some(signal)) = (archive, cluster.fetches_wal()) else { return Ok(()) };
    let from = match signal {
        Signal::Recovery => "the archive",
        Signal::Standby | Signal::RecoveryConf => "the primary or the archive",
    };
    for (first, last) in cluster.fetched(archive) {
        let (what, verb) = if first == last { (first.to_string(), "is") } else { (format!("{first} to {last}"), "are") };
        writeln!(out, "{what} {verb} not in pg_wal: the server fetches WAL from {from}, as {} says.", signal.file_name())?;
    }
    Ok(())
}

/// Segments that are missing and that the server does not need, and the slots that do.
fn write_unneeded(cluster: &Cluster, kept: &Kept, out: &mut impl Write) -> io::Result<()> {
    let Some(from) = kept.needs_from else { return Ok(()) };
    for (first, last, _) in &kept.unneeded {
        let (what, verb) = if first == last { (first.to_string(), "is") } else { (format!("{first} to {last}"), "are") };
        writeln!(out, "{what} {verb} not in pg_wal, and not needed to start: recovery starts at {from}.")?;
    }
    let Some(last) = kept.unneeded.iter().map(|(_, _, end)| *end).max() else { return Ok(()) };
    for (name, restart) in cluster.slots().iter().filter(|(_, restart)| *restart < last) {
        let name = printable(name);
        writeln!(
            out,
            "Replication slot {name} needs WAL from {restart} on, which is not all there: its consumer cannot continue from this server."
        )?;
    }
    Ok(())
}

fn control_line(cluster: &Cluster) -> Option<Line<'static>> {
    let control = cluster.control()?;
    let (redo, timeline) = (control.checkpoint_copy.redo, control.checkpoint_copy.timeline);
    let (path, state, running) = (cluster.path().display().to_string(), control.state.to_string(), cluster.is_running());
    Some(Line::Control { path, state, checkpoint: control.checkpoint, redo, timeline, running })
}

/// Names the files that stand beside segments, the first of them.
fn write_beside(files: &[&str], out: &mut impl Write) -> io::Result<()> {
    /// So many names are worth a line.
    const NAMED: usize = 3;
    if files.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = files.iter().take(NAMED).map(|file| printable(file_of_input(file)).to_string()).collect();
    let more = if files.len() > NAMED { ", …" } else { "" };
    writeln!(out, "{} beside the segments, not looked at: {}{more}.", count(files.len(), "other file"), names.join(", "))
}

fn count(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

impl Kept {
    /// Each file with its findings, in order; what is not one of the files, as what is missing, comes last.
    fn by_input(&self) -> Vec<(&str, Vec<&Finding>)> {
        let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            findings.entry(&finding.input).or_default().push(finding);
        }
        let files = self.inputs.iter().map(|input| (input.as_str(), findings.remove(input.as_str()).unwrap_or_default()));
        let mut inputs: Vec<_> = files.collect();
        inputs.extend(findings);
        inputs
    }
}

/// The state of the last run. One that cannot be used makes a full run; a file that is not ours is an error, told
/// before any WAL is read, not after hours of reading.
fn load_state(path: &Path, scope: Scope) -> Result<State, Box<dyn Error>> {
    let failed = |e: io::Error| format!("{}: {e}", printable_path(path));
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if is_wal_file_name(&name) {
        return Err(format!("{}: a state file cannot have the name of a WAL file", printable_path(path)).into());
    }
    let (state, unusable) = State::load(path).map_err(failed)?;
    let why = match unusable {
        Some(Unusable::Foreign) => {
            let path = printable_path(path);
            return Err(format!("{path}: not a state file of pgwal verify: name another one, or remove it").into());
        }
        Some(Unusable::Missing) => None,
        Some(why) => Some(why.to_string()),
        None if state.scope().options != scope.options => Some("a state file of a run with other options".to_owned()),
        None if *state.scope() != scope => {
            let inputs: Vec<String> = state.scope().inputs.iter().map(|input| printable(input).to_string()).collect();
            Some(format!("a state file of {}", inputs.join(", ")))
        }
        None => {
            OutputFile::create(path).map_err(failed)?;
            return Ok(state);
        }
    };
    OutputFile::create(path).map_err(failed)?;
    if let Some(why) = why {
        note!("{}: {why}: everything is read", printable_path(path));
    }
    Ok(State::new(scope))
}

/// What this run can tell the next one: segments that were checked and have no findings, and what was told to this one.
fn remember(archive: &Archive, before: &State, unchanged: &BTreeSet<&str>, kept: &Kept, being_copied: &[String]) -> State {
    let checked: BTreeSet<&str> = kept.inputs.iter().map(String::as_str).collect();
    let mut state = State::new(before.scope().clone());
    for (file, _) in archive.segments() {
        let input = &*file.input;
        let known = if unchanged.contains(input) { before.get(file).cloned() } else { None };
        let is_good = checked.contains(input) && !kept.bad.contains(input) && !being_copied.iter().any(|copied| copied == input);
        if let Some(verified) = known.or_else(|| (is_good && file.is_as_listed()).then(|| Verified::new(file)).flatten()) {
            state.insert(file, verified);
        }
    }
    state
}

/// Looks at WAL that is being written before something is said to be wrong with it, and the time between them.
/// Findings of one run that may be such places.
const HELD: usize = 1000;
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
    pgwal::json::to_writer(&mut *out, line)?;
    writeln!(out)
}
