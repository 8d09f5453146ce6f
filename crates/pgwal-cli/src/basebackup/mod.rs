//! The drop-in for pg_basebackup: options, messages and exit status are those of 18, with servers of every major. C:
//! bin/pg_basebackup/pg_basebackup.c.
//!
//! The backup is that of `pgwal basebackup` without its comparison with the manifest at the end, which pg_verifybackup is there for; the
//! records of streamed WAL are checked all the same. docs/drop-ins.md lists what is different on purpose.

mod options;
mod progress;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use pgwal_stream::backup::{self, BackupError, Destination, MadeKind, Notice, Recovery, Slot, WalMethod};
use pgwal_stream::compress::Compression;
use pgwal_stream::connection::{self, Mode};
use pgwal_stream::conninfo::Environment;
use pgwal_stream::receive::ReceiveError;

use self::options::Options;
use self::progress::Progress;
use crate::closed;
use crate::console::write_stderr;
use crate::dropin::log::{Level, Log};
use crate::dropin::{Program, client};
use crate::fullpage::Errno;
use crate::{server, signals};

/// This drop-in.
pub const PROGRAM: Program = Program { name: "pg_basebackup", help: HELP, run };

const HELP: &str = "\
pg_basebackup (pgwal) takes a base backup of a running PostgreSQL server.

Usage:
  pg_basebackup [OPTION]...

Options controlling the output:
  -D, --pgdata=DIRECTORY receive base backup into directory
  -F, --format=p|t       output format (plain (default), tar)
  -i, --incremental=OLDMANIFEST
                         take incremental backup
  -r, --max-rate=RATE    maximum transfer rate to transfer data directory
                         (in kB/s, or use suffix \"k\" or \"M\")
  -R, --write-recovery-conf
                         write configuration for replication
  -t, --target=TARGET[:DETAIL]
                         backup target (if other than client)
  -T, --tablespace-mapping=OLDDIR=NEWDIR
                         relocate tablespace in OLDDIR to NEWDIR
      --waldir=WALDIR    location for the write-ahead log directory
  -X, --wal-method=none|fetch|stream
                         include required WAL files with specified method
  -z, --gzip             compress tar output
  -Z, --compress=[{client|server}-]METHOD[:DETAIL]
                         compress on client or server as specified
  -Z, --compress=none    do not compress tar output

General options:
  -c, --checkpoint=fast|spread
                         set fast or spread (default) checkpointing
  -C, --create-slot      create replication slot
  -l, --label=LABEL      set backup label
  -n, --no-clean         do not clean up after errors
  -N, --no-sync          do not wait for changes to be written safely to disk
  -P, --progress         show progress information
  -S, --slot=SLOTNAME    replication slot to use
  -v, --verbose          output verbose messages
  -V, --version          output version information, then exit
      --manifest-checksums=SHA{224,256,384,512}|CRC32C|NONE
                         use algorithm for manifest checksums
      --manifest-force-encode
                         hex encode all file names in manifest
      --no-estimate-size do not estimate backup size in server side
      --no-manifest      suppress generation of backup manifest
      --no-slot          prevent creation of temporary replication slot
      --no-verify-checksums
                         do not verify checksums
      --sync-method=METHOD
                         set method for syncing files to disk
  -?, --help             show this help, then exit

Connection options:
  -d, --dbname=CONNSTR   connection string
  -h, --host=HOSTNAME    database server host or socket directory
  -p, --port=PORT        database server port number
  -s, --status-interval=INTERVAL
                         time between status packets sent to server (in seconds)
  -U, --username=NAME    connect as specified database user
  -w, --no-password      never prompt for password
  -W, --password         force password prompt (should happen automatically)

pgwal itself has more commands: see pgwal --help.
";

/// Runs the program. `args` begin with the name that it was called by.
fn run(args: &[OsString]) -> ExitCode {
    let log = Log::lasting(PROGRAM.name);
    let options = match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => options,
        Err(wrong) => {
            wrong.say(args, &log);
            return ExitCode::FAILURE;
        }
    };
    match take(options, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(lines)) => {
            lines.iter().for_each(|(level, text)| log.say(*level, text));
            ExitCode::FAILURE
        }
    }
}

/// Why there is no backup, and what was done about it, in the order in which it is said.
struct Failure(Vec<(Level, String)>);

impl Failure {
    fn new(error: &dyn std::fmt::Display) -> Failure {
        Failure(vec![(Level::Error, error.to_string())])
    }
}

/// Takes the backup.
fn take(options: Options, log: &Log) -> Result<(), Failure> {
    let settings = client::settings(&options.client, PROGRAM.name).map_err(|e| Failure::new(&e))?;
    let mut config = client::config(&options.client, &settings).map_err(|e| Failure::new(&e))?;
    let stop = signals::stop().map_err(|e| Failure::new(&e))?;
    let connected = options.client.server.connect_until(&mut config, Mode::Replication, &stop);
    let mut connection = connected.map_err(|e| Failure::new(&client::connect_error(&e)))?;
    let recovery = match options.recovery {
        true => {
            let settings = settings.complete(&Environment::current()).map_err(|e| Failure::new(&e))?;
            let slot = match &options.slot {
                Slot::Named { name, .. } => Some(name.clone()),
                Slot::Temporary | Slot::None => None,
            };
            Some(Recovery::new(settings, &config, slot))
        }
        false => None,
    };
    let destination = match (&options.target, &options.dir) {
        (Some(_), _) if recovery.is_some() => {
            return Err(Failure::new(&"recovery configuration cannot be written when a backup target is used"));
        }
        (Some((name, detail)), _) => Destination::Target { name: name.clone(), detail: detail.clone() },
        (None, _) if options.is_stdout() => {
            // C writes to what is closed, and then says so.
            closed::check_stdout().map_err(|e| Failure::new(&format!("could not write to file \"-\": {}", Errno(&e))))?;
            let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::new(&e))?;
            Destination::File(Arc::new(File::from(stdout)))
        }
        (None, dir) => Destination::Directory(dir.clone().unwrap_or_default()),
    };
    let wanted = backup::Options {
        destination,
        form: options.form,
        wal: options.wal,
        slot: options.slot,
        slot_prefix: PROGRAM.name.to_owned(),
        wal_dir: options.wal_dir,
        tablespaces: options.tablespaces,
        // The real program takes any.
        tablespaces_must_exist: false,
        incremental: options.incremental,
        // The real program compresses it with gzip only, and whoever unpacks it goes by its name.
        wal_packing: match options.packing.client() {
            gzip @ Compression::Gzip(_) => gzip,
            _ => Compression::None,
        },
        packing: options.packing,
        label: options.label,
        fast: options.fast,
        max_rate: options.max_rate,
        estimate: options.progress,
        verify_checksums: options.verify_checksums,
        manifest: options.manifest,
        recovery,
        status_interval: server::interval(options.status_interval),
        sync: options.sync,
        verify: false,
        keep_failed: options.no_clean,
    };
    let progress = options.progress.then(|| Progress::new(options.verbose));
    let slot = match &wanted.slot {
        Slot::Named { name, .. } => name.clone(),
        Slot::Temporary | Slot::None => String::new(),
    };
    let major = connection.major();
    let mut teller =
        Teller { log, verbose: options.verbose, wal: options.wal, slot, major, progress, phase: Phase::Prepared, after: Vec::new() };
    let result = backup::take(&mut connection, &config, &wanted, &stop, &mut |notice| teller.take(notice));
    match result {
        Ok(_) => {
            teller.info("base backup completed");
            Ok(())
        }
        Err(error) => {
            let mut lines = teller.explain(&error);
            if let (true, Some(dir)) = (options.no_clean && teller.phase != Phase::Prepared, wanted.destination.dir()) {
                lines.push((Level::Info, format!("data directory \"{}\" not removed at user's request", dir.display())));
            }
            lines.append(&mut teller.after);
            Err(Failure(lines))
        }
    }
}

/// How far the backup is, which says what an error of the server is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Directories are being made.
    Prepared,
    /// The manifest of the backup before is sent.
    Upload,
    /// The server begins the backup.
    Begin,
    /// A slot is created, and the WAL asked for.
    Slot,
    /// Archives come.
    Receive,
    /// All archives are here.
    End,
}

/// Says what the real program says.
struct Teller<'a> {
    log: &'a Log,
    verbose: bool,
    wal: WalMethod,
    /// Name of the slot that stays; empty: there is none.
    slot: String,
    /// The server's.
    major: Option<u32>,
    progress: Option<Progress>,
    phase: Phase,
    /// What is said after the error.
    after: Vec<(Level, String)>,
}

impl Teller<'_> {
    /// A line of `--verbose`.
    fn info(&self, text: &str) {
        if self.verbose {
            self.log.say(Level::Info, text);
        }
    }

    fn take(&mut self, notice: Notice<'_>) {
        match notice {
            // As libpq prints them: without the program's name.
            Notice::Server(message) => {
                write_stderr(format!("{message}\n").as_bytes());
            }
            Notice::Upload(_) => self.phase = Phase::Upload,
            Notice::Checkpoint => {
                self.phase = Phase::Begin;
                self.info("initiating base backup, waiting for checkpoint to complete");
                if let Some(progress) = &self.progress {
                    progress.checkpoint();
                }
            }
            Notice::Started { place, tablespaces } => {
                self.info("checkpoint completed");
                if self.wal != WalMethod::None {
                    let start = client::short(place.lsn);
                    self.info(&format!("write-ahead log start point: {start} on timeline {}", place.timeline));
                }
                if let Some(progress) = &mut self.progress {
                    progress.begin(tablespaces);
                }
                self.phase = Phase::Receive;
                if self.wal == WalMethod::Stream {
                    self.phase = Phase::Slot;
                    self.info("starting background WAL receiver");
                }
            }
            Notice::Streaming { created } => {
                self.phase = Phase::Receive;
                match created {
                    Some((slot, true)) => self.info(&format!("created temporary replication slot \"{slot}\"")),
                    Some((slot, false)) => self.info(&format!("created replication slot \"{slot}\"")),
                    None => {}
                }
            }
            Notice::Archive(name) => {
                if let Some(progress) = &mut self.progress {
                    progress.archive(name);
                }
            }
            Notice::Progress { progress: backup::Progress { done, .. }, file } => {
                if let Some(progress) = &mut self.progress {
                    progress.report(done, file);
                }
            }
            Notice::Ended(place) => {
                self.phase = Phase::End;
                if let Some(progress) = &mut self.progress {
                    progress.finish();
                }
                if self.wal != WalMethod::None {
                    self.info(&format!("write-ahead log end point: {}", client::short(place.lsn)));
                }
                if self.wal == WalMethod::Stream {
                    self.info("waiting for background process to finish streaming ...");
                }
            }
            Notice::Sync => self.info("syncing data to disk ..."),
            Notice::Complete => self.info("renaming backup_manifest.tmp to backup_manifest"),
            Notice::Verify => {}
            Notice::Removing { dir, kind, stays } => {
                let kind = match kind {
                    MadeKind::Backup => "data",
                    MadeKind::Wal => "WAL",
                    MadeKind::Tablespace => "tablespace",
                };
                let what = if stays { "removing contents of" } else { "removing" };
                self.after.push((Level::Info, format!("{what} {kind} directory \"{}\"", dir.display())));
            }
            Notice::SlotUnknown { slot } => {
                self.after.push((Level::Warning, format!("the server did not say whether it has created replication slot \"{slot}\"")));
            }
            Notice::SlotLeft { slot, problem } => {
                self.after.push((Level::Warning, format!("could not drop replication slot \"{slot}\": {problem}")));
            }
        }
    }

    /// The real program's words for an error.
    fn explain(&self, error: &BackupError) -> Vec<(Level, String)> {
        let text = match error {
            BackupError::Server(connection::Error::Server(said)) if said.code == DATA_CORRUPTED => "checksum error occurred".to_owned(),
            BackupError::Server(error) => match self.phase {
                Phase::Prepared => error.to_string(),
                Phase::Upload => format!("could not upload manifest: {error}"),
                Phase::Begin => format!("could not initiate base backup: {error}"),
                // Only a slot that stays is there already, or not to be had.
                Phase::Slot => {
                    format!("could not send replication command \"{}\": {error}", client::create_slot(&self.slot, true, self.major))
                }
                Phase::Receive => format!("could not read COPY data: {error}"),
                Phase::End => format!("final receive failed: {error}"),
            },
            BackupError::NotEmpty { path, .. } => format!("directory \"{}\" exists but is not empty", path.display()),
            BackupError::Archives(found) => format!("can only write single tablespace to stdout, database has {found}"),
            BackupError::Wal(problem) => {
                return vec![(Level::Error, problem.clone()), (Level::Error, "background process terminated unexpectedly".to_owned())];
            }
            BackupError::Stream(error) => {
                let text = match &**error {
                    // The real program does not ask for the slot before.
                    ReceiveError::NoSlot { slot } => {
                        format!(
                            "could not send replication command \"START_REPLICATION\": ERROR:  replication slot \"{slot}\" does not exist"
                        )
                    }
                    error => client::receive_error(error),
                };
                return vec![(Level::Error, text), (Level::Error, "background process terminated unexpectedly".to_owned())];
            }
            BackupError::File(error) => client::file_error(error),
            error => error.to_string(),
        };
        vec![(Level::Error, text)]
    }
}

/// SQLSTATE of a backup whose pages have wrong checksums.
const DATA_CORRUPTED: &str = "XX001";
