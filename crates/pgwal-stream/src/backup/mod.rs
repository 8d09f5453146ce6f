//! Base backups, taken from a walsender as pg_basebackup takes them. C: bin/pg_basebackup/pg_basebackup.c, backup/basebackup.c (in
//! replication/ up to 14).
//!
//! [`take`] does all of it: files or archives, the WAL that the backup needs beside it on a connection of its own, the settings of a
//! standby, and at the end the comparison with the manifest and a check of that WAL. What was made of a backup that fails is removed, also
//! where it is this comparison that fails.

mod archives;
mod incremental;
pub mod manifest;
mod plain;
mod recovery;
mod stream;
mod verify;
mod wal;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgwal::printable::printable;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

pub use incremental::{IncrementalError, IncrementalFile};
pub use recovery::Recovery;
pub use stream::{Place, Progress, Tablespace};
pub use verify::{Problem, Problems, Verified, VerifyEvent, VerifyOptions, WalCheck, What, verify};

use crate::command::{self, BaseBackup, ManifestOption};
use crate::compress::{Compression, SpecError, split_spec};
use crate::connection::{self, Connection, Mode, ServerError};
use crate::conninfo::Config;
use crate::input_file::{self, InputFile, MAX_MANIFEST, Patience};
use crate::message::MessageError;
use crate::receive::{ReceiveError, System, Walsender};
use crate::segments::{FileError, failed, sync_directory};
use crate::slots;
use manifest::{Algorithm, ManifestError};
use stream::{BackupStream, Part};

/// How a backup lies on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As a data directory, and directories of tablespaces.
    #[default]
    Plain,
    /// As tar archives in one directory: `base.tar`, one for each tablespace, and `pg_wal.tar`.
    Tar,
}

/// How the WAL comes that a backup needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalMethod {
    /// Not: it must be restored from an archive.
    None,
    /// At the end, within the archive of the data directory; the server must still have it then.
    Fetch,
    /// While the backup is taken, on a connection of its own.
    #[default]
    Stream,
}

/// The slot by which the WAL is streamed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// One for this backup, which goes with the connection.
    #[default]
    Temporary,
    /// None: the server may remove WAL before it is here.
    None,
    /// This one.
    Named {
        /// Its name.
        name: String,
        /// It is created first.
        create: bool,
    },
}

/// Who compresses, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Nobody.
    #[default]
    None,
    /// We do; archives only.
    Client(Compression),
    /// The server does, from 15 on: a method and its details.
    Server {
        /// `gzip`, `lz4` or `zstd`.
        method: String,
        /// Such as `level=5`, which the server reads; `None`: its usual ones.
        detail: Option<String>,
    },
}

impl Packing {
    /// Reads what follows `-Z`: a method with its details, and in front of it `client-` or `server-`. Without that, the client compresses,
    /// except for a backup that is `elsewhere`, at the server's own target. Details for the server are checked by the server.
    ///
    /// # Errors
    /// The specification for the client is wrong.
    pub fn parse(text: &str, elsewhere: bool) -> Result<Packing, SpecError> {
        let (by_server, text) = match (text.strip_prefix("server-"), text.strip_prefix("client-")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => (elsewhere, text),
        };
        let (method, detail) = split_spec(text);
        if by_server {
            return Ok(match (method, detail) {
                ("none", None) => Packing::None,
                _ => Packing::Server { method: method.to_owned(), detail: detail.map(str::to_owned) },
            });
        }
        match Compression::from_spec(method, detail)? {
            Compression::None if !elsewhere => Ok(Packing::None),
            compression => Ok(Packing::Client(compression)),
        }
    }

    /// How we compress.
    pub fn client(&self) -> Compression {
        match self {
            Packing::Client(compression) => *compression,
            Packing::None | Packing::Server { .. } => Compression::None,
        }
    }
}

/// Where a backup goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into a directory here, which must be empty or not exist yet.
    Directory(PathBuf),
    /// Into an open file, such as standard output: one tar archive with the manifest in it. Only for a cluster without tablespaces.
    File(Arc<File>),
    /// To where the server puts it itself, from 15 on.
    Target {
        /// `server`, `blackhole`, or what an extension of the server offers.
        name: String,
        /// For `server`, the directory there.
        detail: Option<String>,
    },
}

impl Destination {
    /// The directory here; `None`: there is none.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Destination::Directory(dir) => Some(dir),
            Destination::File(_) | Destination::Target { .. } => None,
        }
    }
}

/// Which backup to take, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it goes.
    pub destination: Destination,
    /// How it lies there; a backup for the server's own target has the form that the server gives it.
    pub form: Form,
    /// How the WAL comes.
    pub wal: WalMethod,
    /// The slot by which it is streamed.
    pub slot: Slot,
    /// What the name of a temporary slot begins with.
    pub slot_prefix: String,
    /// pg_wal is a link to this directory; plain form only.
    pub wal_dir: Option<PathBuf>,
    /// Directories of tablespaces, on the server and here; plain form only.
    pub tablespaces: Vec<(PathBuf, PathBuf)>,
    /// A directory in `tablespaces` that the server does not have is an error.
    pub tablespaces_must_exist: bool,
    /// Only what has changed since the backup with this manifest; from 17 on.
    pub incremental: Option<PathBuf>,
    /// Compression.
    pub packing: Packing,
    /// Compression of the archive of streamed WAL.
    pub wal_packing: Compression,
    /// Its name, in backup_label.
    pub label: String,
    /// The checkpoint is done at once.
    pub fast: bool,
    /// At most so many kilobytes a second.
    pub max_rate: Option<u32>,
    /// The server says first how much there is.
    pub estimate: bool,
    /// The server checks the pages' checksums, from 11 on.
    pub verify_checksums: bool,
    /// What the manifest is like; `None`: there is none. Up to 12 there is none anyway.
    pub manifest: Option<ManifestOptions>,
    /// It becomes a standby.
    pub recovery: Option<Recovery>,
    /// How often the server is told how much of the streamed WAL is here.
    pub status_interval: Duration,
    /// How everything is put on disk at the end.
    pub sync: SyncMethod,
    /// Files are compared with the manifest, and the WAL is checked.
    pub verify: bool,
    /// What was made of a backup that fails stays.
    pub keep_failed: bool,
}

/// How a backup is put on disk. C: `DataDirSyncMethod`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMethod {
    /// It is left to the system.
    None,
    /// File by file.
    #[default]
    Fsync,
    /// The file systems that it lies on, with everything else on them; where the system cannot do that, file by file.
    Syncfs,
}

/// What a manifest is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManifestOptions {
    /// How checksums are computed; `None`: there are none.
    pub checksums: Option<Algorithm>,
    /// All paths stand in it as hexadecimal digits.
    pub force_encode: bool,
}

/// What happens while a backup is taken.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A message of the server that is no error.
    Server(&'a ServerError),
    /// The manifest of the backup that this one builds on is sent.
    Upload(&'a Path),
    /// The server is to do its checkpoint.
    Checkpoint,
    /// It has done it: the backup starts.
    Started {
        /// Here.
        place: Place,
        /// What there is to come.
        tablespaces: &'a [Tablespace],
    },
    /// The WAL is received from now on, on a connection of its own.
    Streaming {
        /// The slot that was created for it, and whether it goes with the connection; `None`: none was.
        created: Option<(&'a str, bool)>,
    },
    /// An archive begins.
    Archive(&'a str),
    /// Something has come.
    Progress {
        /// How much.
        progress: Progress,
        /// The file that is being written; empty where archives are not unpacked.
        file: &'a Path,
    },

    /// All archives are here: it ends at this place.
    Ended(Place),
    /// Everything is put on disk.
    Sync,
    /// The manifest gets its name: the backup is complete.
    Complete,
    /// Everything is compared with the manifest, and the WAL is checked.
    Verify,
    /// The backup has failed, and this directory is removed, or what is in it.
    Removing {
        /// The directory.
        dir: &'a Path,
        /// What was made of it.
        kind: MadeKind,
        /// The directory itself was there before, and stays.
        stays: bool,
    },
    /// The backup has failed, and the slot that was created for it could not be dropped: it makes the server keep WAL.
    SlotLeft {
        /// The slot.
        slot: &'a str,
        /// Why not.
        problem: String,
    },
    /// The backup has failed, and the server did not say whether it has created the slot.
    SlotUnknown {
        /// The slot.
        slot: &'a str,
    },
}

/// What a directory is to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeKind {
    /// The backup itself.
    Backup,
    /// Its WAL.
    Wal,
    /// A tablespace.
    Tablespace,
}

/// What was taken.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Where it starts: from here on the WAL is needed.
    pub start: Place,
    /// Where it ends: so far at least it has to be replayed.
    pub end: Place,
    /// What was checked; `None`: nothing was to be.
    pub verified: Option<Verified>,
}

/// Why there is no backup.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackupError {
    /// The connection, or what the server says.
    Server(connection::Error),
    /// A message of the server.
    Message(MessageError),
    /// What the server says does not say what it should.
    Answer {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// An option that this server, or this form, does not have.
    Option(String),
    /// The backup was to be one archive, and the cluster has so many, with its tablespaces.
    Archives(usize),
    /// A directory that is to be filled is not empty.
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// What of the backup goes there.
        kind: MadeKind,
    },
    /// A file or directory.
    File(FileError),
    /// An archive is not what it should be.
    Archive {
        /// Its name.
        archive: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The WAL that the backup needs did not come.
    Wal(String),
    /// The same: why it could not be received.
    Stream(Box<ReceiveError<connection::Error>>),
    /// It is given up, because of another error.
    GivenUp,
    /// It was to stop while it was compared with its manifest: the backup is complete, and stays.
    NotVerified,
    /// It is not as its manifest says, the WAL that it needs is damaged, or it cannot be read.
    Unverified {
        /// What was found.
        error: Box<BackupError>,
        /// It stays all the same, without a manifest of the usual name; otherwise it has been removed.
        kept: bool,
    },
    /// The manifest cannot be used.
    Manifest(ManifestError),
    /// The backup is not as its manifest says.
    Different(Problems),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Server(error) => error.fmt(f),
            BackupError::Message(error) => write!(f, "the server sent {error}"),
            BackupError::Answer { expected, found } => {
                write!(f, "the server answered BASE_BACKUP with {}: expected {expected}", printable(found))
            }
            BackupError::Option(text) => f.write_str(text),
            BackupError::Archives(found) => {
                write!(
                    f,
                    "the backup of a cluster with tablespaces cannot be written as one archive: it has {found}, one for each tablespace"
                )
            }
            BackupError::NotEmpty { path, kind: MadeKind::Tablespace } => {
                let path = path.display();
                write!(f, "directory \"{path}\" is not empty: the server has a tablespace there; put it elsewhere with -T {path}=NEWDIR")
            }
            BackupError::NotEmpty { path, .. } => write!(f, "directory \"{}\" is not empty", path.display()),
            BackupError::File(error) => error.fmt(f),
            BackupError::Archive { archive, problem } => write!(f, "archive \"{}\": {}", printable(archive), printable(problem)),
            BackupError::Wal(problem) => write!(f, "the WAL that the backup needs did not come: {problem}"),
            BackupError::Stream(error) => write!(f, "the WAL that the backup needs did not come: {error}"),
            BackupError::GivenUp => f.write_str("given up"),
            BackupError::NotVerified => {
                f.write_str("interrupted while it was verified: the backup is complete, but may not be as its manifest says")
            }
            BackupError::Unverified { error, kept: false } => {
                write!(f, "{error}\nthe backup has failed its verification and is removed; --no-clean leaves it for a closer look")
            }
            BackupError::Unverified { error, kept: true } => {
                write!(
                    f,
                    "{error}\nthe backup has failed its verification: do not restore it; its manifest, if it has one, is now called {MANIFEST_TMP}"
                )
            }
            BackupError::Manifest(error) => error.fmt(f),
            BackupError::Different(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BackupError::Server(error) => Some(error),
            BackupError::Message(error) => Some(error),
            BackupError::File(error) => Some(error),
            BackupError::Manifest(error) => Some(error),
            BackupError::Unverified { error, .. } => Some(&**error),
            _ => None,
        }
    }
}

impl From<connection::Error> for BackupError {
    fn from(error: connection::Error) -> Self {
        BackupError::Server(error)
    }
}

impl From<MessageError> for BackupError {
    fn from(error: MessageError) -> Self {
        BackupError::Message(error)
    }
}

impl From<FileError> for BackupError {
    fn from(error: FileError) -> Self {
        BackupError::File(error)
    }
}

impl From<ManifestError> for BackupError {
    fn from(error: ManifestError) -> Self {
        BackupError::Manifest(error)
    }
}

impl From<ReceiveError<connection::Error>> for BackupError {
    fn from(error: ReceiveError<connection::Error>) -> Self {
        match error {
            ReceiveError::Server(error) | ReceiveError::Refused { error, .. } => BackupError::Server(error),
            error => BackupError::Wal(error.to_string()),
        }
    }
}

/// Takes a backup from the server that `connection` leads to. The WAL comes on another connection, which `config` leads to; both look at
/// `stop`.
///
/// # Errors
/// There is no backup, and what was made of it is gone, unless it was to stay. So it is with one that fails its verification; only one
/// whose verification was interrupted stays as it is.
pub fn take(
    connection: &mut Connection,
    config: &Config,
    options: &Options,
    stop: &Arc<AtomicBool>,
    notice: &mut dyn FnMut(Notice<'_>),
) -> Result<Summary, BackupError> {
    let major = Walsender::major(connection);
    possible(options, major)?;
    // The backup itself begins when the server has done its checkpoint, which may take long; what comes before it does not.
    let limit = connection.limit();
    connection.set_limit(limit.or(config.connect_timeout).or(Some(TIMEOUT)));
    let system = System::ask(connection)?;
    let mode = directory_mode(connection, major)?;
    connection.set_limit(limit);
    let job = Job { config, options, system: &system, major, mode, stop };
    let mut made = Made { paths: Vec::new(), slot: MadeSlot::None, keep: options.keep_failed };
    let result = match options.destination.dir() {
        Some(dir) => job.take(dir, connection, &mut made, notice),
        None => job.transfer(None, connection, &mut made, notice).map(|(start, end)| Summary { start, end, verified: None }),
    };
    connection.take_notices().iter().for_each(|message| notice(Notice::Server(message)));
    if result.is_err() && !made.keep {
        made.remove(notice);
        match &made.slot {
            MadeSlot::None => {}
            MadeSlot::Created(slot) => {
                if let Err(problem) = drop_slot(config, slot) {
                    notice(Notice::SlotLeft { slot, problem });
                }
            }
            MadeSlot::Unknown(slot) => notice(Notice::SlotUnknown { slot }),
        }
    }
    result
}

/// Drops the slot of a backup that failed. The connections that used it may still be ending, and the server may be what failed.
fn drop_slot(config: &Config, slot: &str) -> Result<(), String> {
    let config = Config { connect_timeout: Some(config.connect_timeout.map_or(FAREWELL, |limit| limit.min(FAREWELL))), ..config.clone() };
    let mut server = Connection::connect(&config, Mode::Replication).map_err(|e| e.to_string())?;
    server.set_limit(Some(FAREWELL));
    slots::drop(&mut server, slot, true, true).map(drop).map_err(|e| e.to_string())
}

/// A server that says nothing for so long is given up. C: `wal_receiver_timeout`, as it is unless set.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A server gets so long to drop a slot.
const FAREWELL: Duration = Duration::from_secs(5);

/// SQLSTATE of a backup whose pages have wrong checksums.
const DATA_CORRUPTED: &str = "XX001";

/// Name of the manifest while the backup is not complete.
const MANIFEST_TMP: &str = "backup_manifest.tmp";

/// Whether this server, and this form, have what is asked for.
fn possible(options: &Options, major: u8) -> Result<(), BackupError> {
    let refuse = |text: &str| Err(BackupError::Option(text.to_owned()));
    let is_here = options.destination.dir().is_some();
    match options {
        Options { incremental: Some(_), .. } if major < 17 => refuse("incremental backups need a server of PostgreSQL 17 or later"),
        Options { destination: Destination::Target { .. }, .. } if major < 15 => {
            refuse("backup targets need a server of PostgreSQL 15 or later")
        }
        Options { destination: Destination::Target { .. }, recovery: Some(_), .. } => {
            refuse("the settings of a standby cannot be written into a backup that the server stores itself")
        }
        Options { destination: Destination::Target { .. }, packing: Packing::Client(_), .. } => {
            refuse("a backup that the server stores itself can only be compressed by the server")
        }
        Options { destination: Destination::Target { .. }, wal: WalMethod::Stream, .. } => {
            refuse("WAL cannot be streamed into a backup that the server stores itself: use fetch or none")
        }
        Options { destination: Destination::File(_), wal: WalMethod::Stream, .. } => {
            refuse("WAL cannot be streamed into a single archive: use fetch or none")
        }
        Options { destination: Destination::File(_), form: Form::Plain, .. } => {
            refuse("only the tar form can be written as a single archive")
        }
        Options { wal_dir: Some(_), .. } if !is_here => refuse("a directory for WAL needs a backup in a directory here"),
        Options { packing: Packing::Server { .. }, .. } if major < 15 => refuse("the server compresses from version 15 on"),
        Options { packing: Packing::Client(_), form: Form::Plain, .. } => {
            refuse("only archives can be compressed here: choose the tar form")
        }
        Options { wal_dir: Some(wal_dir), .. } if !wal_dir.is_absolute() => refuse("the directory for WAL must be an absolute path"),
        Options { form: Form::Tar, wal_dir: Some(_), .. } => refuse("a directory for WAL goes with the plain form only"),
        Options { form: Form::Tar, tablespaces, .. } if !tablespaces.is_empty() => {
            refuse("directories of tablespaces go with the plain form only")
        }
        Options { wal: WalMethod::None | WalMethod::Fetch, slot: Slot::Named { .. }, .. } => refuse("a slot goes with streamed WAL only"),
        _ => Ok(()),
    }
}

/// Permissions of the server's data directory: 0700, or 0750 from 11 on where its group may read it.
fn directory_mode(connection: &mut Connection, major: u8) -> Result<u32, BackupError> {
    if major < 11 {
        return Ok(0o700);
    }
    let rows = Walsender::rows(connection, &command::Command::Show("data_directory_mode"))?;
    let text = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default();
    let mode = std::str::from_utf8(&text).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
    mode.map(|mode| mode & 0o750).ok_or_else(|| answer("the mode of a directory", as_path(&text).display().to_string()))
}

/// What a backup is taken with.
struct Job<'a> {
    config: &'a Config,
    options: &'a Options,
    system: &'a System,
    major: u8,
    /// Permissions of directories.
    mode: u32,
    stop: &'a Arc<AtomicBool>,
}

impl Job<'_> {
    /// All of it, into a directory.
    fn take(
        &self,
        dir: &Path,
        connection: &mut Connection,
        made: &mut Made,
        notice: &mut dyn FnMut(Notice<'_>),
    ) -> Result<Summary, BackupError> {
        let Job { options, major, mode, stop, .. } = *self;
        made.directory(dir, MadeKind::Backup, mode)?;
        if let Some(wal_dir) = &options.wal_dir {
            made.directory(wal_dir, MadeKind::Wal, mode)?;
            let link = dir.join("pg_wal");
            std::os::unix::fs::symlink(wal_dir, &link).map_err(failed("create", &link))?;
        }

        let (start, end) = self.transfer(Some(dir), connection, made, notice).inspect_err(|error| {
            // Pages that are damaged on the server are no less so in the next backup: what is here may be all there is.
            if matches!(error, BackupError::Server(connection::Error::Server(error)) if error.code == DATA_CORRUPTED) {
                made.keep = true;
            }
        })?;
        if let (Form::Plain, Some(recovery)) = (options.form, &options.recovery) {
            recovery.write(dir, major)?;
        }
        if options.sync != SyncMethod::None {
            notice(Notice::Sync);
            made.paths.iter().try_for_each(|made| sync(&made.path, options.sync, stop))?;
        }
        let manifest = dir.join(manifest::FILE_NAME);
        let temporary = dir.join(MANIFEST_TMP);
        if temporary.exists() {
            notice(Notice::Complete);
            fs::rename(&temporary, &manifest).map_err(failed("rename", &temporary))?;
        }
        if options.sync != SyncMethod::None {
            sync_directory(dir)?;
        }
        made.keep = true;
        let verified = if options.verify {
            notice(Notice::Verify);
            let wal = if options.wal == WalMethod::None { WalCheck::None } else { WalCheck::Between(start, end) };
            let options = VerifyOptions {
                form: Some(options.form),
                wal,
                needs_no_manifest: true,
                incremental: true,
                inside: true,
                ..VerifyOptions::default()
            };
            match verify(dir, &options, stop, &mut |_| {}) {
                Ok(verified) => Some(verified),
                Err(BackupError::Server(connection::Error::Interrupted)) => return Err(BackupError::NotVerified),
                Err(error) => {
                    made.keep = self.options.keep_failed;
                    // It stays because that was asked for, and must not pass for a backup.
                    let _ = fs::rename(&manifest, &temporary);
                    return Err(BackupError::Unverified { error: Box::new(error), kept: made.keep });
                }
            }
        } else {
            None
        };
        Ok(Summary { start, end, verified })
    }

    /// Everything that comes from the server: the archives, and the WAL.
    fn transfer(
        &self,
        dir: Option<&Path>,
        connection: &mut Connection,
        made: &mut Made,
        notice: &mut dyn FnMut(Notice<'_>),
    ) -> Result<(Place, Place), BackupError> {
        if let Some(path) = &self.options.incremental {
            notice(Notice::Upload(path));
            // It may be a pipe from another host.
            let patience = Patience { until: None, stop: Some(self.stop) };
            let mut file = InputFile::open(path, MAX_MANIFEST, patience).map_err(failed("open", path))?;
            match connection.copy_in(&command::Command::UploadManifest.to_string(), &mut file) {
                Err(connection::Error::Io { doing: connection::READING, error }) => {
                    return Err(match input_file::Problem::of(&error) {
                        Some(input_file::Problem::Interrupted) => connection::Error::Interrupted.into(),
                        _ => failed("read", path)(error).into(),
                    });
                }
                result => result?,
            };
        }
        notice(Notice::Checkpoint);
        let progress = wal::Progress::default();
        let given_up = || progress.has_failed();
        let mut stream = BackupStream::start(connection, &self.command(), notice, &given_up)?;
        let start = stream.start;
        let tablespaces = stream.tablespaces.clone();
        stream.say(Notice::Started { place: start, tablespaces: &tablespaces });
        let tablespaces = match dir {
            Some(dir) => self.tablespaces(dir, tablespaces, made)?,
            None => Vec::new(),
        };
        let wal = match (dir, self.options.wal) {
            (Some(dir), WalMethod::Stream) => {
                let (wal, created) = wal::Streamer::start(self, dir, start, &progress, made)?;
                let created = created.as_ref().map(|(slot, temporary)| (slot.as_str(), *temporary));
                stream.say(Notice::Streaming { created });
                Some(wal)
            }
            _ => None,
        };
        match self.parts(dir, &mut stream, &tablespaces) {
            Ok(end) => {
                stream.say(Notice::Ended(end));
                let streamed = wal.map(|wal| wal.finish(end)).transpose()?;
                if let (Form::Tar, Some(dir), Some(streamed)) = (self.options.form, dir, streamed) {
                    archives::store_wal(&streamed, dir, self)?;
                }
                Ok((start, end))
            }
            Err(error) => match wal.map(wal::Streamer::abandon) {
                // The backup was given up because of it.
                Some(Err(cause)) if matches!(error, BackupError::GivenUp) => Err(cause),
                _ => Err(error),
            },
        }
    }

    fn command(&self) -> BaseBackup<'_> {
        let options = self.options;
        let manifest = |manifest: ManifestOptions| ManifestOption {
            checksums: Some(manifest.checksums.map_or("NONE", Algorithm::name)),
            force_encode: manifest.force_encode,
        };
        BaseBackup {
            major: self.major,
            label: &options.label,
            progress: options.estimate,
            fast: options.fast,
            wal: options.wal == WalMethod::Fetch,
            no_wait: options.wal != WalMethod::None,
            max_rate: options.max_rate,
            tablespace_map: options.form == Form::Tar || matches!(options.destination, Destination::Target { .. }),
            no_verify_checksums: !options.verify_checksums && self.major >= 11,
            manifest: options.manifest.filter(|_| self.major >= 13).map(manifest),
            compression: match &options.packing {
                Packing::Server { method, detail } => Some((method, detail.as_deref())),
                Packing::None | Packing::Client(_) => None,
            },
            incremental: options.incremental.is_some(),
            target: match &options.destination {
                Destination::Target { name, detail } => Some((name, detail.as_deref())),
                Destination::Directory(_) | Destination::File(_) => None,
            },
        }
    }

    /// Has directories for the tablespaces: where each goes.
    fn tablespaces(&self, dir: &Path, tablespaces: Vec<Tablespace>, made: &mut Made) -> Result<Vec<(Tablespace, PathBuf)>, BackupError> {
        let options = self.options;
        let is_there =
            |from: &PathBuf| !options.tablespaces_must_exist || tablespaces.iter().any(|tablespace| tablespace.location == *from);
        if let Some((from, _)) = options.tablespaces.iter().find(|(from, _)| !is_there(from)) {
            return Err(BackupError::Option(format!("the server has no tablespace in \"{}\"", from.display())));
        }
        let mut placed = Vec::new();
        // Where files of the data directory, and of each tablespace, go.
        let mut taken = vec![fs::canonicalize(dir).map_err(failed("look at", dir))?];
        for tablespace in tablespaces {
            let moved = options.tablespaces.iter().find(|(from, _)| *from == tablespace.location).map(|(_, to)| to);
            let here = match moved {
                Some(to) => to.clone(),
                None if tablespace.location.is_absolute() => tablespace.location.clone(),
                // Tablespaces can lie in the data directory, for tests (allow_in_place_tablespaces).
                None => match plain::inside(&tablespace.location) {
                    Some(below) => dir.join(below),
                    None => return Err(answer("the directory of a tablespace", tablespace.location.display().to_string())),
                },
            };
            if options.form == Form::Plain && tablespace.oid.is_some() {
                made.directory(&here, MadeKind::Tablespace, self.mode)?;
                let real = fs::canonicalize(&here).map_err(failed("look at", &here))?;
                let is_in_place = moved.is_none() && !tablespace.location.is_absolute();
                if !is_in_place && taken.iter().any(|other| real.starts_with(other) || other.starts_with(&real)) {
                    return Err(failed("create directory", &here)(rustix::io::Errno::EXIST.into()).into());
                }
                taken.push(real);
            }
            placed.push((tablespace, here));
        }
        Ok(placed)
    }

    /// The archives and the manifest.
    fn parts(
        &self,
        dir: Option<&Path>,
        stream: &mut BackupStream<'_>,
        tablespaces: &[(Tablespace, PathBuf)],
    ) -> Result<Place, BackupError> {
        if matches!(self.options.destination, Destination::File(_)) && stream.tablespaces.len() > 1 {
            return Err(BackupError::Archives(stream.tablespaces.len()));
        }
        let mut single = None;
        let is_here = !matches!(self.options.destination, Destination::Target { .. });
        let (mut has_base, mut has_manifest) = (false, false);
        loop {
            let part = stream.next_part()?;
            match &part {
                Part::Archive { tablespace, .. } => has_base |= tablespace.is_none(),
                Part::Manifest => has_manifest = true,
                Part::End(_) if is_here && !has_base => return Err(answer("an archive of the data directory", "none".to_owned())),
                Part::End(_) if is_here && stream.wants_manifest() && !has_manifest => return Err(answer("a manifest", "none".to_owned())),
                Part::End(_) => {}
            }
            match (part, &self.options.destination) {
                (Part::Archive { name, tablespace }, destination) => {
                    stream.say(Notice::Archive(&name));
                    match (dir, destination, self.options.form) {
                        (Some(dir), _, Form::Plain) => plain::extract(stream, &name, tablespace.as_deref(), dir, tablespaces)?,
                        (Some(dir), _, Form::Tar) => archives::store(stream, &name, tablespace.is_none(), dir, self)?,
                        (None, Destination::File(_), _) if single.is_some() => return Err(BackupError::Archives(2)),
                        (None, Destination::File(file), _) => single = Some(archives::Single::store(stream, &name, file, self)?),
                        // The server has it, and only says how far it is.
                        (None, ..) => {}
                    }
                }
                (Part::Manifest, Destination::Directory(dir)) => {
                    let path = dir.join(MANIFEST_TMP);
                    let mut file = create(&path, self.mode)?;
                    copy(stream, &mut file, manifest::FILE_NAME, &path)?;
                }
                (Part::Manifest, Destination::File(_)) => {
                    if let Some(single) = &mut single {
                        single.manifest(stream)?;
                    }
                }
                (Part::Manifest, Destination::Target { .. }) => {}
                (Part::End(end), _) => {
                    single.map(archives::Single::finish).transpose()?;
                    return Ok(end);
                }
            }
        }
    }
}

fn answer(expected: &'static str, found: String) -> BackupError {
    BackupError::Answer { expected, found }
}

/// A new file in a directory with permissions `mode`, with those that a file has there.
fn create(path: &Path, mode: u32) -> Result<File, FileError> {
    OpenOptions::new().write(true).create_new(true).mode(mode & 0o640).open(path).map_err(failed("create", path))
}

/// Copies what is left of a part into a file; how many bytes that are.
fn copy(stream: &mut BackupStream<'_>, to: &mut impl Write, part: &str, path: &Path) -> Result<u64, BackupError> {
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(len) => {
                to.write_all(buffer.get(..len).unwrap_or_default()).map_err(failed("write", path))?;
                copied += len as u64;
            }
            Err(e) => return Err(stream.explain(part, e)),
        }
    }
}

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// What the backup has made, or filled.
struct Made {
    paths: Vec<MadePath>,
    slot: MadeSlot,
    /// They stay.
    keep: bool,
}

/// A slot that was created for a backup, and is to stay if it succeeds.
enum MadeSlot {
    None,
    Created(String),
    /// The server was asked to create it and did not answer.
    Unknown(String),
}

struct MadePath {
    path: PathBuf,
    kind: MadeKind,
    /// Directories above that were made for it, the lowest first.
    above: Vec<PathBuf>,
    /// The directory was there, and empty: its permissions.
    was_there: Option<Permissions>,
}

impl Made {
    /// Makes a directory, with those above it, or takes one that is empty.
    fn directory(&mut self, path: &Path, kind: MadeKind, mode: u32) -> Result<(), BackupError> {
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(BackupError::NotEmpty { path: path.to_owned(), kind });
                }
                let before = fs::metadata(path).map_err(failed("look at", path))?.permissions();
                self.paths.push(MadePath { path: path.to_owned(), kind, above: Vec::new(), was_there: Some(before) });
                // A server does not start in a directory that others can read.
                fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set permissions of", path))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let is_missing = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
                let above: Vec<PathBuf> = path.ancestors().skip(1).take_while(is_missing).map(Path::to_owned).collect();
                let parents = path.parent().map_or(Ok(()), |parent| DirBuilder::new().recursive(true).mode(mode).create(parent));
                // The directory itself is not taken from anybody who has made it meanwhile.
                if let Err(e) = parents.and_then(|()| DirBuilder::new().mode(mode).create(path)) {
                    remove_empty(&above);
                    return Err(failed("create directory", path)(e).into());
                }
                self.paths.push(MadePath { path: path.to_owned(), kind, above, was_there: None });
            }
            Err(e) => return Err(failed("read directory", path)(e).into()),
        }
        Ok(())
    }

    /// Removes it.
    fn remove(&mut self, notice: &mut dyn FnMut(Notice<'_>)) {
        // There is an error already, which says more than that something could not be removed.
        for MadePath { path, kind, above, was_there } in self.paths.drain(..).rev() {
            notice(Notice::Removing { dir: &path, kind, stays: was_there.is_some() });
            if let Some(permissions) = was_there {
                for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                    let path = entry.path();
                    let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                    let _ = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
                }
                let _ = fs::set_permissions(&path, permissions);
                continue;
            }
            let _ = fs::remove_dir_all(&path);
            remove_empty(&above);
        }
    }
}

/// Removes directories, the lowest first, up to one that is not empty.
fn remove_empty(directories: &[PathBuf]) {
    let _ = directories.iter().try_for_each(fs::remove_dir);
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.keep {
            self.remove(&mut |_| {});
        }
    }
}

/// Puts a directory on disk, with all that is in it.
fn sync(path: &Path, method: SyncMethod, stop: &AtomicBool) -> Result<(), BackupError> {
    #[cfg(target_os = "linux")]
    if method == SyncMethod::Syncfs {
        let dir = File::open(path).map_err(failed("open", path))?;
        rustix::fs::syncfs(&dir).map_err(|error| failed("sync", path)(error.into()))?;
        return Ok(());
    }
    sync_all(path, stop)
}

/// Puts a directory on disk, with all that is in it; links are not followed. Several files at once, as each waits for the disk.
fn sync_all(path: &Path, stop: &AtomicBool) -> Result<(), BackupError> {
    let mut files = Vec::new();
    let mut directories = vec![path.to_owned()];
    let mut at = 0;
    while let Some(path) = directories.get(at).cloned() {
        at += 1;
        for entry in fs::read_dir(&path).map_err(failed("read directory", &path))? {
            let entry = entry.map_err(failed("read directory", &path))?;
            let kind = entry.file_type().map_err(failed("look at", &path))?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    let sync = |path: &PathBuf| match stop.load(Ordering::Relaxed) {
        true => Err(BackupError::Server(connection::Error::Interrupted)),
        false => Ok(File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))?),
    };
    files.par_iter().try_for_each(sync)?;
    // Names, when all that they name is there.
    Ok(directories.iter().rev().try_for_each(|path| sync_directory(path))?)
}

/// A path as bytes, which need not be UTF-8.
fn as_path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Zstd;

    #[test]
    fn who_compresses() {
        let server = |method: &str, detail: Option<&str>| Packing::Server { method: method.to_owned(), detail: detail.map(str::to_owned) };
        for (text, here, elsewhere) in [
            ("none", Packing::None, Packing::None),
            ("gzip", Packing::Client(Compression::Gzip(6)), server("gzip", None)),
            ("1", Packing::Client(Compression::Gzip(1)), server("gzip", Some("1"))),
            ("client-zstd:level=7", Packing::Client(Compression::Zstd(Zstd::level(7))), Packing::Client(Compression::Zstd(Zstd::level(7)))),
            // Refused later, as there is nothing here to compress.
            ("client-none", Packing::None, Packing::Client(Compression::None)),
            ("server-gzip", server("gzip", None), server("gzip", None)),
            ("server-gzip:", server("gzip", Some("")), server("gzip", Some(""))),
            ("server-zstd:level=3,workers=2", server("zstd", Some("level=3,workers=2")), server("zstd", Some("level=3,workers=2"))),
            ("server-none", Packing::None, Packing::None),
            ("server-none:1", server("none", Some("1")), server("none", Some("1"))),
        ] {
            assert_eq!(Packing::parse(text, false), Ok(here), "{text}");
            assert_eq!(Packing::parse(text, true), Ok(elsewhere), "{text}");
        }
        assert_eq!(Packing::parse("squishy", false), Err(SpecError::Method("squishy".to_owned())));
        assert_eq!(Packing::parse("squishy", true), Ok(server("squishy", None)));
        assert_eq!(Packing::parse("client-server-gzip", false), Err(SpecError::Method("server-gzip".to_owned())));
    }
}
