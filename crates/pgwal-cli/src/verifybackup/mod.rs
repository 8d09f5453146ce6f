//! The drop-in for pg_verifybackup: a backup is compared with its manifest, and the WAL that it needs is checked.
//!
//! Options and messages are those of 18, for backups of every release: manifests of both versions are read, and archives whatever the
//! release. What is different: the WAL of a backup in tar format is checked, too; the library checks it, so that no pg_waldump is needed,
//! and says under the message what is wrong; files are looked at in the order of their names.

mod options;
mod wording;

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pgwal::printable::printable_path;
use pgwal_stream::backup::{self, BackupError, VerifyEvent, VerifyOptions, WalCheck};

use self::options::Options;
use crate::dropin::log::{Level, Log, to_stderr};
use crate::dropin::{Program, print, release};

/// This drop-in.
pub const PROGRAM: Program = Program { name: "pg_verifybackup", help: HELP, run };

const HELP: &str = "\
pg_verifybackup (pgwal) verifies a backup against the backup manifest.

Usage:
  pg_verifybackup [OPTION]... BACKUPDIR

Options:
  -e, --exit-on-error         exit immediately on error
  -F, --format=p|t            backup format (plain, tar; default: what the backup is)
  -i, --ignore=RELATIVE_PATH  ignore indicated path
  -m, --manifest-path=PATH    use specified path for manifest
  -n, --no-parse-wal          do not try to parse WAL files
  -P, --progress              show progress information
  -q, --quiet                 do not print any output, except for errors
  -s, --skip-checksums        skip checksum verification
  -w, --wal-directory=PATH    use specified path for WAL files
  -V, --version               print the version
  -?, --help                  print this help

pgwal itself has more commands: see pgwal --help.
";

/// Runs the program. `args` begin with the name that it was called by.
fn run(args: &[OsString]) -> ExitCode {
    let log = Log::new(PROGRAM.name);
    let called_by = args.first().map_or(OsStr::new(PROGRAM.name), OsString::as_os_str);
    let options = match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => options,
        Err(wrong) => {
            wrong.say(args, &log);
            return ExitCode::FAILURE;
        }
    };
    match verify(&options, called_by, &log) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Verifies the backup; whether it is as it should be.
fn verify(options: &Options, called_by: &OsStr, log: &Log) -> bool {
    let verify_options = VerifyOptions {
        form: options.format,
        manifest: options.manifest_path.clone(),
        needs_no_manifest: false,
        ignore: options.ignore.clone(),
        skip_checksums: options.skip_checksums,
        exit_on_error: options.exit_on_error,
        wal: if options.no_parse_wal { WalCheck::None } else { WalCheck::Manifest },
        wal_dir: options.wal_directory.clone(),
        incremental: false,
        inside: false,
    };
    let mut progress = Progress::new(options.progress);
    // Signals do what they do to a C program that does not look at them.
    let result = backup::verify(&options.directory, &verify_options, &AtomicBool::new(false), &mut |event| match event {
        VerifyEvent::Problem(problem) => {
            let (text, detail) = wording::problem(problem, &options.directory);
            log.say(Level::Error, &text);
            if let Some(detail) = detail {
                log.say(Level::Detail, &detail);
            }
        }
        VerifyEvent::Progress { done, total } => progress.report(done, total),
    });
    progress.finish();
    match result {
        Ok(_) => {
            if !options.quiet {
                print(log, "backup successfully verified\n");
            }
            true
        }
        // All of it has been said.
        Err(BackupError::Different(_)) => false,
        Err(error) => {
            // Up to 16, whatever was wrong with the JSON, it was this.
            let is_early = || release::major(&release::version(called_by)).is_some_and(|major| major < 17);
            log.say(Level::Error, &wording::fatal(&error, is_early));
            false
        }
    }
}

/// How far it is, at most once a second. C: `progress_report`.
struct Progress {
    is_wanted: bool,
    /// When the last line was written.
    last: Option<Instant>,
    done: u64,
    total: u64,
}

impl Progress {
    fn new(is_wanted: bool) -> Progress {
        Progress { is_wanted, last: None, done: 0, total: 0 }
    }

    fn report(&mut self, done: u64, total: u64) {
        (self.done, self.total) = (done, total);
        if self.is_wanted && self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.last = Some(Instant::now());
            self.write(if io::stderr().is_terminal() { '\r' } else { '\n' });
        }
    }

    /// The last line stays.
    fn finish(&self) {
        if self.last.is_some() {
            self.write('\n');
        }
    }

    fn write(&self, end: char) {
        let (done, total) = ((self.done / 1024).to_string(), (self.total / 1024).to_string());
        let percent = (u128::from(self.done) * 100).checked_div(self.total.into()).unwrap_or(0);
        to_stderr(&format!("{done:>width$}/{total} kB ({percent}%) verified{end}", width = total.len()));
    }
}

/// A path as messages have it.
fn shown(path: &Path) -> String {
    printable_path(path).to_string()
}
