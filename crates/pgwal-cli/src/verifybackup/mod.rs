//! The drop-in for pg_verifybackup: a backup is compared with its manifest, and the WAL that it needs is checked.
//!
//! Options and messages are those of 18. Manifests of every version are read, and archives whatever the release of the backup.

mod options;

use std::ffi::OsString;
use std::process::ExitCode;

use pgwal_stream::backup::{self, WalCheck};

use self::options::{Options, Wrong};
use crate::dropin::log::{Level, Log, to_stderr};
use crate::dropin::{Program, print};
use crate::signals;

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
    let options = match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => options,
        Err(wrong) => {
            let hint = !matches!(wrong, Wrong::Value(_));
            match wrong {
                Wrong::Getopt(text) => {
                    let program = args.first().map(|program| program.to_string_lossy()).unwrap_or_default();
                    to_stderr(&format!("{program}: {text}\n"));
                }
                Wrong::Usage(text) | Wrong::Value(text) => log.say(Level::Error, &text),
                Wrong::Silent => {}
            }
            if hint {
                log.try_help();
            }
            return ExitCode::FAILURE;
        }
    };
    if verify(&options, &log) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Verifies the backup; whether it is as it should be.
fn verify(options: &Options, log: &Log) -> bool {
    let result = signals::stop().map_err(|e| e.to_string()).and_then(|stop| {
        let wal = if options.no_parse_wal { WalCheck::None } else { WalCheck::Manifest };
        backup::verify(&options.directory, wal, &stop).map_err(|e| e.to_string())
    });
    match result {
        Ok(_) => {
            if !options.quiet {
                print(log, "backup successfully verified\n");
            }
            true
        }
        Err(error) => {
            log.say(Level::Error, &error);
            false
        }
    }
}
