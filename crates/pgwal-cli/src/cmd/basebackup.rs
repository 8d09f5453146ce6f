//! `pgwal basebackup`: a base backup of a live server, verified.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use pgwal::printable::printable;
use pgwal_stream::backup::manifest::Algorithm;
use pgwal_stream::backup::{
    self, Destination, Form, ManifestOptions, Notice, Options, Packing, Progress, Recovery, Slot, Summary, Verified, VerifyOptions,
    WalCheck, WalMethod,
};
use pgwal_stream::connection::Mode;
use pgwal_stream::conninfo::{Config, Environment};

use crate::args::{WrongOption, compression, compression_problem};
use crate::closed;
use crate::console::CouldNotRun;
use crate::server::{self, ClientArgs};
use crate::signals;
use crate::table::percent;

/// Take a base backup of a live server, with the WAL that it needs, and verify both
#[derive(Args, Debug)]
#[command(after_help = "\
Example: pgwal basebackup -D standby -h db.example.org -U replicator -R -P

The backup is that of pg_basebackup: a data directory that a server starts on, or tar archives. At the end every file is compared with the
manifest, and the WAL is checked record by record. All options of pg_basebackup work here with the same meaning.

Exit status: 0 the backup is complete and as its manifest says; 1 it is not, and nothing is left of it unless --no-clean says so; 2 wrong
options, or standard output cannot be written; 141 nobody reads it (as `| head` leaves it).")]
#[command(disable_help_flag = true)]
pub struct Opts {
    /// Directory of the backup, which must be empty or not exist yet; - writes one tar archive to standard output
    #[arg(short = 'D', long, visible_alias = "pgdata", value_name = "DIR", required_unless_present = "target")]
    directory: Option<PathBuf>,
    /// Have the server store the backup itself (15 and later): server:DIR on the server's machine, blackhole to discard it, or client for
    /// a backup here
    #[arg(short, long, value_name = "TARGET[:DETAIL]", conflicts_with = "format")]
    target: Option<String>,
    /// Take only what has changed since the backup with this manifest, from a server of 17 or later with summarize_wal = on;
    /// pg_combinebackup restores it together with the backups before it
    #[arg(short, long, value_name = "MANIFEST")]
    incremental: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
    /// A data directory, or tar archives [default: plain; with --verify-only what the backup is]
    #[arg(short = 'F', long, value_name = "FORM")]
    format: Option<FormArg>,
    /// How the WAL comes that the backup needs: on a connection of its own, at the end, or not at all
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "stream")]
    wal_method: WalArg,
    /// Make it a standby of this server: standby.signal and its settings (recovery.conf for 10 and 11)
    #[arg(short = 'R', long)]
    write_recovery_conf: bool,
    /// Put the tablespace that is in this directory on the server into another one here
    #[arg(short = 'T', long, value_name = "OLDDIR=NEWDIR", value_parser = mapping)]
    tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// Put the WAL into this directory, and a link to it into the backup
    #[arg(long, value_name = "DIR")]
    waldir: Option<PathBuf>,
    /// Compress archives with gzip
    #[arg(short = 'z', long, conflicts_with = "compress")]
    gzip: bool,
    /// Compress with gzip, lz4 or zstd, at a level as in gzip:9, or with options as in zstd:level=5,workers=2,long; a number alone is a
    /// level of gzip. With `server-` in front, the server compresses (15 and later)
    #[arg(short = 'Z', long, value_name = "[server-|client-]METHOD[:DETAIL]")]
    compress: Option<String>,
    /// Have the checkpoint done at once, or spread over time
    #[arg(short, long, value_name = "HOW", default_value = "spread")]
    checkpoint: Checkpoint,
    /// Stream the WAL by this slot, which stays [default: one that goes with the connection]
    #[arg(short = 'S', long, value_name = "NAME")]
    slot: Option<String>,
    /// Create the slot
    #[arg(short = 'C', long, requires = "slot")]
    create_slot: bool,
    /// Stream the WAL without a slot
    #[arg(long, conflicts_with = "slot")]
    no_slot: bool,
    /// Name of the backup, in backup_label
    #[arg(short, long, value_name = "LABEL", default_value = "pgwal base backup")]
    label: String,
    /// Take at most so much a second: kilobytes, or with a suffix k or M
    #[arg(short = 'r', long, value_name = "RATE", value_parser = rate)]
    max_rate: Option<u32>,
    /// How the checksums of the manifest are computed
    #[arg(long, value_name = "ALGORITHM", default_value = "crc32c", ignore_case = true)]
    manifest_checksums: Checksums,
    /// Have all paths in the manifest as hexadecimal digits
    #[arg(long)]
    manifest_force_encode: bool,
    /// Have no manifest
    #[arg(long, conflicts_with_all = ["manifest_force_encode"])]
    no_manifest: bool,
    /// Do not have the server check the checksums of its pages
    #[arg(long)]
    no_verify_checksums: bool,
    /// Do not have the server look first how much there is
    #[arg(long)]
    no_estimate_size: bool,
    /// Do not compare the backup with its manifest, and do not check its WAL
    #[arg(long)]
    no_verify: bool,
    /// Take no backup, but compare the one in the directory with its manifest, and check its WAL, unless -X none says that it has none
    #[arg(long, conflicts_with_all = ONLY_WHEN_TAKEN)]
    verify_only: bool,
    #[command(flatten)]
    verify: VerifyArgs,
    /// Leave what was made of a backup that fails
    #[arg(short, long)]
    no_clean: bool,
    /// Do not wait until everything is on disk
    #[arg(short = 'N', long)]
    no_sync: bool,
    /// How to put everything on disk; syncfs is done as fsync is, file by file
    #[arg(long, value_name = "METHOD", default_value = "fsync")]
    sync_method: SyncMethod,
    /// Tell the server this often how much of the streamed WAL is here; 0: only when it asks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10, value_parser = server::seconds)]
    status_interval: u64,
    /// Show the progress
    #[arg(short = 'P', long)]
    progress: bool,
    /// Say what is being done
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Print only problems
    #[arg(short, long)]
    quiet: bool,
}

/// Options of `--verify-only`, which are those of pg_verifybackup.
#[derive(Args, Debug)]
struct VerifyArgs {
    /// With --verify-only: stop at the first problem
    #[arg(long, requires = "verify_only")]
    exit_on_error: bool,
    /// With --verify-only: do not look at this path in the backup, nor at anything below it
    #[arg(long, value_name = "RELATIVE_PATH", requires = "verify_only")]
    ignore: Vec<PathBuf>,
    /// With --verify-only: the manifest [default: backup_manifest in the backup]
    #[arg(long, value_name = "FILE", requires = "verify_only")]
    manifest_path: Option<PathBuf>,
    /// With --verify-only: compare names and sizes only, and do not read the files
    #[arg(long, requires = "verify_only")]
    skip_checksums: bool,
    /// With --verify-only: directory or archive of the WAL [default: the backup's own]
    #[arg(long, value_name = "PATH", requires = "verify_only")]
    wal_directory: Option<PathBuf>,
}

/// Options that do not go with `--verify-only`.
const ONLY_WHEN_TAKEN: [&str; 26] = [
    "target",
    "incremental",
    "dbname",
    "host",
    "port",
    "username",
    "status_interval",
    "write_recovery_conf",
    "tablespace_mapping",
    "waldir",
    "gzip",
    "compress",
    "checkpoint",
    "slot",
    "create_slot",
    "no_slot",
    "label",
    "max_rate",
    "manifest_checksums",
    "manifest_force_encode",
    "no_manifest",
    "no_verify_checksums",
    "no_estimate_size",
    "no_verify",
    "no_clean",
    "no_sync",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormArg {
    #[value(alias = "p")]
    Plain,
    #[value(alias = "t")]
    Tar,
}

impl From<FormArg> for Form {
    fn from(form: FormArg) -> Form {
        match form {
            FormArg::Plain => Form::Plain,
            FormArg::Tar => Form::Tar,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WalArg {
    #[value(alias = "n")]
    None,
    #[value(alias = "f")]
    Fetch,
    #[value(alias = "s")]
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SyncMethod {
    Fsync,
    Syncfs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Checkpoint {
    Fast,
    Spread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum Checksums {
    Crc32c,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    None,
}

impl Checksums {
    fn algorithm(self) -> Option<Algorithm> {
        match self {
            Checksums::Crc32c => Some(Algorithm::Crc32c),
            Checksums::Sha224 => Some(Algorithm::Sha224),
            Checksums::Sha256 => Some(Algorithm::Sha256),
            Checksums::Sha384 => Some(Algorithm::Sha384),
            Checksums::Sha512 => Some(Algorithm::Sha512),
            Checksums::None => None,
        }
    }
}

/// `OLDDIR=NEWDIR`, with `\=` for a `=` in a name. C: `tablespace_list_append`.
fn mapping(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let mut sides = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, sides.last_mut()) {
            ('\\', Some(side)) if chars.peek() == Some(&'=') => side.extend(chars.next()),
            ('=', _) => sides.push(String::new()),
            (c, Some(side)) => side.push(c),
            (_, None) => {}
        }
    }
    let [old, new] = <[String; 2]>::try_from(sides).map_err(|_| "expected OLDDIR=NEWDIR".to_owned())?.map(PathBuf::from);
    for path in [&old, &new] {
        if !path.is_absolute() {
            return Err(format!("\"{}\" is not an absolute path", path.display()));
        }
    }
    Ok((old, new))
}

/// Kilobytes a second, in the bounds that a server takes. C: `MAX_RATE_LOWER`, `MAX_RATE_UPPER`.
fn rate(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.strip_suffix(['k', 'M']) {
        Some(number) if text.ends_with('M') => (number, 1024),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    let rate = number.trim().parse::<f64>().ok().map(|number| number * f64::from(factor));
    match rate {
        Some(rate) if (32.0..=1_048_576.0).contains(&rate) => Ok(rate as u32),
        _ => Err("expected 32 kilobytes to 1024 megabytes a second".to_owned()),
    }
}

impl Opts {
    /// Runs the command.
    pub fn run(self, _out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        if let (true, Some(directory)) = (self.verify_only, &self.directory) {
            return self.verify_only(directory);
        }
        let destination = self.destination()?;
        let packing = self.packing(&destination)?;
        let mut config = self.client.config()?;
        config.connect_timeout = config.connect_timeout.or(Some(server::TIMEOUT));
        let stop = signals::stop()?;
        let connected = self.client.server.connect_until(&mut config, Mode::Replication, &stop);
        let mut connection = connected.map_err(|error| format!("{error}{}", server::replication_hint(&error)))?;
        let options = self.options(&config, destination, packing)?;
        let mut shown = Shown::new(self.progress, self.verbose, self.quiet);
        let summary = backup::take(&mut connection, &config, &options, &stop, &mut |notice| shown.take(notice));
        shown.bar.finish_and_clear();
        let summary = summary?;
        if !self.quiet {
            note!("{}", conclusion(&summary));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn verify_only(&self, directory: &Path) -> Result<ExitCode, Box<dyn Error>> {
        let options = VerifyOptions {
            form: self.format.map(Form::from),
            manifest: self.verify.manifest_path.clone(),
            needs_no_manifest: false,
            ignore: self.verify.ignore.clone(),
            skip_checksums: self.verify.skip_checksums,
            exit_on_error: self.verify.exit_on_error,
            wal: if self.wal_method == WalArg::None { WalCheck::None } else { WalCheck::Manifest },
            wal_dir: self.verify.wal_directory.clone(),
            incremental: true,
            inside: true,
        };
        let stop = signals::stop()?;
        let verified = backup::verify(directory, &options, &stop, &mut |_| {})?;
        if !self.quiet {
            note!("{}", verified_text(&verified));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn destination(&self) -> Result<Destination, Box<dyn Error>> {
        match (self.target.as_deref().filter(|target| *target != "client"), &self.directory) {
            (Some(target), None) => {
                let (name, detail) = target.split_once(':').map_or((target, None), |(name, detail)| (name, Some(detail)));
                Ok(Destination::Target { name: name.to_owned(), detail: detail.map(str::to_owned) })
            }
            (Some(_), Some(_)) => {
                Err(WrongOption("--target: the server stores the backup itself, so there is no --directory".to_owned()).into())
            }
            (None, Some(dir)) if self.format == Some(FormArg::Tar) && dir.as_os_str() == "-" => {
                closed::check_stdout().map_err(|e| CouldNotRun(format!("cannot write to standard output: {e}").into()))?;
                Ok(Destination::File(Arc::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))))
            }
            (None, Some(dir)) => Ok(Destination::Directory(dir.clone())),
            (None, None) => Err(WrongOption("--target client needs --directory".to_owned()).into()),
        }
    }

    fn packing(&self, destination: &Destination) -> Result<Packing, WrongOption> {
        let text = match &self.compress {
            Some(text) => text,
            None if self.gzip => "gzip",
            None => return Ok(Packing::None),
        };
        let elsewhere = matches!(destination, Destination::Target { .. });
        let packing = Packing::parse(text, elsewhere).map_err(|error| compression_problem(&error));
        let local = text.strip_prefix("client-").unwrap_or(text);
        // What is compressed here must have what is asked for.
        packing
            .and_then(|packing| match packing {
                Packing::Client(_) => compression(local).map(|_| packing),
                packing => Ok(packing),
            })
            .map_err(WrongOption)
    }

    fn options(&self, config: &Config, destination: Destination, packing: Packing) -> Result<Options, Box<dyn Error>> {
        let recovery = match self.write_recovery_conf {
            true => {
                let settings = self.client.settings()?.complete(&Environment::current())?;
                Some(Recovery::new(settings, config, self.slot.clone()))
            }
            false => None,
        };
        Ok(Options {
            destination,
            form: self.format.map(Form::from).unwrap_or_default(),
            wal: match self.wal_method {
                WalArg::None => WalMethod::None,
                WalArg::Fetch => WalMethod::Fetch,
                WalArg::Stream => WalMethod::Stream,
            },
            slot: match &self.slot {
                Some(name) => Slot::Named { name: name.clone(), create: self.create_slot },
                None if self.no_slot => Slot::None,
                None => Slot::Temporary,
            },
            slot_prefix: "pgwal_basebackup".to_owned(),
            wal_dir: self.waldir.clone(),
            tablespaces: self.tablespace_mapping.clone(),
            tablespaces_must_exist: true,
            incremental: self.incremental.clone(),
            wal_packing: packing.client(),
            packing,
            label: self.label.clone(),
            fast: self.checkpoint == Checkpoint::Fast,
            max_rate: self.max_rate,
            estimate: self.progress && !self.no_estimate_size,
            verify_checksums: !self.no_verify_checksums,
            manifest: (!self.no_manifest)
                .then(|| ManifestOptions { checksums: self.manifest_checksums.algorithm(), force_encode: self.manifest_force_encode }),
            recovery,
            status_interval: server::interval(self.status_interval),
            sync: match self.sync_method {
                _ if self.no_sync => backup::SyncMethod::None,
                SyncMethod::Fsync => backup::SyncMethod::Fsync,
                SyncMethod::Syncfs => backup::SyncMethod::Syncfs,
            },
            verify: !self.no_verify,
            keep_failed: self.no_clean,
        })
    }
}

/// What was taken, in a sentence.
fn conclusion(summary: &Summary) -> String {
    let Summary { start, end, verified } = summary;
    let mut text = format!("the backup starts at {} on timeline {} and ends at {}", start.lsn, start.timeline, end.lsn);
    if let Some(verified) = verified {
        text.push_str("; ");
        text.push_str(&verified_text(verified));
    }
    text
}

/// What was found right, as a part of a sentence.
fn verified_text(verified: &Verified) -> String {
    let files = match verified.files {
        Some(files) => format!("{files} files are as the manifest says"),
        None => "it has no manifest".to_owned(),
    };
    let files = match verified.incremental {
        0 => files,
        count => format!("{files}, {count} of them incremental: pg_combinebackup restores them with the backups before"),
    };
    match verified.records {
        Some(records) => format!("{files}; its WAL has {records} records, all right"),
        None => files,
    }
}

/// What the user sees while it runs.
struct Shown {
    bar: ProgressBar,
    /// There is no terminal: a line for each tenth.
    lines: bool,
    verbose: bool,
    quiet: bool,
    tenth: u64,
    archive: String,
}

impl Shown {
    fn new(progress: bool, verbose: bool, quiet: bool) -> Shown {
        let is_terminal = io::stderr().is_terminal();
        let bar = if progress && is_terminal { ProgressBar::no_length() } else { ProgressBar::hidden() };
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left {wide_msg}")
        {
            bar.set_style(style);
        }
        if progress && is_terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Shown { bar, lines: progress && !is_terminal, verbose, quiet, tenth: 0, archive: String::new() }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| note!("{line}"));
        }
    }

    /// What goes on now: beside the progress bar, and with --verbose as a line.
    fn doing(&self, what: impl Into<String>) {
        let what = what.into();
        if self.verbose {
            self.say(&what);
        }
        self.bar.set_message(what);
    }

    fn take(&mut self, notice: Notice<'_>) {
        match notice {
            Notice::Server(message) => self.bar.suspend(|| note!("{message}")),
            Notice::Upload(path) => self.doing(format!("sending \"{}\"", path.display())),
            Notice::Checkpoint => self.doing("waiting for the server's checkpoint"),
            Notice::Started { place, tablespaces } => {
                if self.lines || self.verbose {
                    let count = tablespaces.len().saturating_sub(1);
                    self.say(&format!(
                        "starting at {} on timeline {}, {count} tablespaces besides the data directory",
                        place.lsn, place.timeline
                    ));
                }
            }
            Notice::Streaming { created } if self.verbose => match created {
                Some((slot, true)) => self.say(&format!("created temporary slot \"{slot}\" and started to receive WAL")),
                Some((slot, false)) => self.say(&format!("created slot \"{slot}\" and started to receive WAL")),
                None => self.say("started to receive WAL"),
            },
            Notice::Streaming { .. } => {}
            Notice::Archive(name) => {
                self.archive = printable(name).to_string();
                self.doing(self.archive.clone());
            }
            Notice::Progress { progress: Progress { done, total }, .. } => {
                if let Some(total) = total {
                    // Files grow while they are read.
                    self.bar.set_length(total.max(done));
                    let tenth = (percent(done, total.max(1)) / 10.0) as u64;
                    if self.lines && tenth > self.tenth {
                        self.tenth = tenth;
                        self.say(&format!("{} of {}, {}", HumanBytes(done), HumanBytes(total), self.archive));
                    }
                }
                self.bar.set_position(done);
            }
            Notice::Ended(place) => self.doing(format!("waiting for the end of the WAL, at {}", place.lsn)),
            Notice::Sync => self.doing("waiting until everything is on disk"),
            Notice::Complete => {}
            Notice::Verify => self.doing("verifying"),
            Notice::Removing { dir, stays, .. } if self.verbose => {
                self.say(&format!("removing {}\"{}\"", if stays { "what is in " } else { "" }, dir.display()));
            }
            Notice::Removing { .. } => {}
            Notice::SlotLeft { slot, problem } => self.say(&format!("slot \"{slot}\" was created and could not be dropped: {problem}")),
            Notice::SlotUnknown { slot } => self.say(&format!(
                "the server did not say whether it has created slot \"{slot}\"; if it has, drop it, as it makes the server keep WAL"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_by_pg_basebackup() {
        let paths = |old: &str, new: &str| Ok((PathBuf::from(old), PathBuf::from(new)));
        assert_eq!(mapping("/a=/b"), paths("/a", "/b"));
        assert_eq!(mapping("/a\\=b=/c\\d"), paths("/a=b", "/c\\d"));
        assert_eq!(mapping("/a=b"), Err("\"b\" is not an absolute path".to_owned()));
        assert_eq!(mapping("/a"), Err("expected OLDDIR=NEWDIR".to_owned()));
        assert_eq!([rate("32"), rate("1M"), rate("64k"), rate("1024M")], [Ok(32), Ok(1024), Ok(64), Ok(1_048_576)]);
        assert!([rate("31"), rate("2000M"), rate("x"), rate("")].iter().all(Result::is_err));
    }
}
