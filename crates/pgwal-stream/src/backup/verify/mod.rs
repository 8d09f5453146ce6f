//! Whether a backup is as its manifest says, and has the WAL that it needs. C: bin/pg_verifybackup.

mod problem;
mod tar;
mod wal;

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pgwal::datadir::ControlFile;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

pub use problem::{Problem, Problems, What};

use self::tar::Tar;
use super::archives::WAL_ARCHIVE;
use super::incremental::{IncrementalError, IncrementalFile};
use super::manifest::{Checksum, Entry, FILE_NAME, Manifest, WalRange, hex};
use super::plain::inside;
use super::stream::Place;
use super::{BackupError, Form, as_path};
use crate::compress::Compression;
use crate::connection;
use crate::segments::failed;

/// What may be there or not, and have any content, at the top of a backup: the WAL is checked by itself, and the rest comes or changes
/// after the backup.
const IGNORED: [&str; 5] = [FILE_NAME, "pg_wal", "postgresql.auto.conf", "recovery.signal", "standby.signal"];

/// Path of pg_control in a backup.
const CONTROL: &str = "global/pg_control";

/// Files that are read between two reports of how far it is.
const WINDOW: usize = 64;

/// How a backup is verified.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// How it lies on disk; `None`: in archives if one of the data directory is there and no `PG_VERSION`, else as a data directory.
    pub form: Option<Form>,
    /// The manifest; `None`: the one in the backup.
    pub manifest: Option<PathBuf>,
    /// A backup without a manifest is right, too: servers before 13 make none.
    pub needs_no_manifest: bool,
    /// Paths in the backup that are not looked at, with everything below them.
    pub ignore: Vec<PathBuf>,
    /// Only names and sizes are compared.
    pub skip_checksums: bool,
    /// The first problem ends it.
    pub exit_on_error: bool,
    /// The WAL to check.
    pub wal: WalCheck,
    /// Where the WAL is: a directory or an archive; `None`: in the backup.
    pub wal_dir: Option<PathBuf>,
    /// The headers of files with changed blocks only are read, too.
    pub incremental: bool,
    /// A link that leads out of the backup, other than that of a tablespace, is a problem; pg_verifybackup follows it.
    pub inside: bool,
}

/// Which WAL of a backup is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WalCheck {
    /// None: it comes from elsewhere.
    None,
    /// What the manifest says is needed.
    #[default]
    Manifest,
    /// The same; if there is no manifest, or none that says it, what is between these places.
    Between(Place, Place),
}

/// What was checked, and found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that are as the manifest says; `None`: there is no manifest.
    pub files: Option<u64>,
    /// Files of those that have changed blocks only: it is an incremental backup, and restoring it takes the one before it. 0 where they
    /// were not to be looked at.
    pub incremental: u64,
    /// Records in the WAL that the backup needs; `None`: it was not checked.
    pub records: Option<u64>,
}

/// What happens while a backup is verified.
#[derive(Debug)]
pub enum VerifyEvent<'a> {
    /// Something is wrong; it goes on.
    Problem(&'a Problem),
    /// So many bytes of what is to be read have been.
    Progress {
        /// Bytes read.
        done: u64,
        /// Bytes that there are.
        total: u64,
    },
}

/// Verifies the backup in `dir`, in either form: its files, and the WAL that it needs.
///
/// # Errors
/// It is not as its manifest says ([`BackupError::Different`]: all problems went to `on_event`), there is no manifest or none that can be
/// used, the backup or an archive cannot be read, or `stop` is set.
pub fn verify(
    dir: &Path,
    options: &VerifyOptions,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(VerifyEvent<'_>),
) -> Result<Verified, BackupError> {
    let result = verify_all(dir, options, stop, on_event);
    match result {
        Err(_) if stop.load(Ordering::Relaxed) => Err(connection::Error::Interrupted.into()),
        result => result,
    }
}

fn verify_all(
    dir: &Path,
    options: &VerifyOptions,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(VerifyEvent<'_>),
) -> Result<Verified, BackupError> {
    let names = names(dir).map_err(failed("open directory", dir))?;
    let path = options.manifest.clone().unwrap_or_else(|| dir.join(FILE_NAME));
    let manifest = match open_regular(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && options.needs_no_manifest => None,
        Err(e) => return Err(failed("open file", &path)(e).into()),
        Ok(file) => Some(Manifest::read(file).map_err(failed("read file", &path))??),
    };
    let has = |test: fn(&str) -> bool| names.iter().any(|name| test(&name.to_string_lossy()));
    let is_tar = !has(|name| name == "PG_VERSION") && has(|name| name.starts_with("base.t"));
    let form = options.form.unwrap_or(if is_tar { Form::Tar } else { Form::Plain });
    let mut verified = Verified::default();
    let mut problems = Problems::default();
    let ranges = match (options.wal, &manifest) {
        (WalCheck::None, _) => Vec::new(),
        (WalCheck::Between(start, end), manifest) if manifest.as_ref().is_none_or(|manifest| manifest.wal_ranges.is_empty()) => {
            vec![WalRange { timeline: end.timeline, start: start.lsn, end: end.lsn }]
        }
        (_, manifest) => manifest.as_ref().map(|manifest| manifest.wal_ranges.clone()).unwrap_or_default(),
    };
    if let Some(manifest) = &manifest {
        let mut verifier = Verifier::new(dir, manifest, options, stop, on_event);
        match verifier.files(form) {
            Ok(()) => (verified.files, verified.incremental) = (Some(verifier.files), verifier.incremental),
            Err(Stop::Enough) => return Err(BackupError::Different(verifier.problems)),
            Err(Stop::Fatal(error)) => return Err(error),
        }
        problems = verifier.problems;
    }
    if options.wal != WalCheck::None {
        let place = match (&options.wal_dir, form) {
            (Some(place), _) => place.clone(),
            (None, Form::Tar) => wal_archive(dir, &names),
            (None, Form::Plain) => dir.join("pg_wal"),
        };
        let mut records = 0;
        for range in &ranges {
            match wal::records(&place, range, stop) {
                Ok(found) => records += found,
                Err(problem) => {
                    let what = What::Wal { timeline: range.timeline, problem };
                    let problem = Problem { path: place.clone(), archive: None, what };
                    on_event(VerifyEvent::Problem(&problem));
                    problems.add(problem);
                    if options.exit_on_error {
                        break;
                    }
                }
            }
        }
        verified.records = Some(records);
    }
    if stop.load(Ordering::Relaxed) {
        return Err(connection::Error::Interrupted.into());
    }
    if problems.count > 0 { Err(BackupError::Different(problems)) } else { Ok(verified) }
}

/// Opens a file, and no pipe or device, which may have nothing to read, or no end.
fn open_regular(path: &Path) -> io::Result<File> {
    let kind = fs::metadata(path)?.file_type();
    // Reading a directory says that it is one.
    if kind.is_file() || kind.is_dir() { File::open(path) } else { Err(io::Error::other("not a regular file")) }
}

/// Names of the entries of a directory, sorted.
fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let names: io::Result<Vec<_>> = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names?;
    names.sort_unstable();
    Ok(names)
}

/// The archive of the WAL, or that of the data directory, which contains it then.
fn wal_archive(dir: &Path, names: &[OsString]) -> PathBuf {
    let starting = |start: &str| names.iter().find(|name| name.to_string_lossy().starts_with(start));
    let name = starting(WAL_ARCHIVE).or_else(|| starting("base.t"));
    name.map_or_else(|| dir.join(WAL_ARCHIVE), |name| dir.join(name))
}

/// Why it does not go on.
enum Stop {
    /// There is a problem, and the first one, or one of its kind, ends it.
    Enough,
    /// Something else.
    Fatal(BackupError),
}

impl<E: Into<BackupError>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Fatal(error.into())
    }
}

struct Verifier<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
    options: &'a VerifyOptions,
    /// Paths that are not looked at: what was asked for, and what has had its problem.
    ignored: Vec<Vec<u8>>,
    /// Of each file of the manifest, whether it was found.
    found: Vec<bool>,
    /// Files whose bytes are to be compared.
    to_read: Vec<u32>,
    problems: Problems,
    /// An archive could not be read to its end, so that nobody knows what else was in it.
    is_cut_short: bool,
    /// Files that were looked at.
    files: u64,
    /// Files with changed blocks only.
    incremental: u64,
    done: AtomicU64,
    total: u64,
    stop: &'a AtomicBool,
    on_event: &'a mut dyn FnMut(VerifyEvent<'_>),
}

impl<'a> Verifier<'a> {
    fn new(
        dir: &'a Path,
        manifest: &'a Manifest,
        options: &'a VerifyOptions,
        stop: &'a AtomicBool,
        on_event: &'a mut dyn FnMut(VerifyEvent<'_>),
    ) -> Verifier<'a> {
        let asked = options.ignore.iter().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
        Verifier {
            dir,
            manifest,
            options,
            ignored: IGNORED.iter().map(|name| name.as_bytes().to_vec()).chain(asked).collect(),
            found: vec![false; manifest.files.len()],
            to_read: Vec::new(),
            problems: Problems::default(),
            is_cut_short: false,
            files: 0,
            incremental: 0,
            done: AtomicU64::new(0),
            total: 0,
            stop,
            on_event,
        }
    }

    /// Compares all files with the manifest.
    fn files(&mut self, form: Form) -> Result<(), Stop> {
        match form {
            Form::Plain => {
                let top = fs::metadata(self.dir).map_err(failed("open directory", self.dir))?;
                self.directory(Path::new(""), &mut vec![(top.dev(), top.ino())])?;
                self.missing()?;
                self.checksums()
            }
            Form::Tar => {
                self.archives()?;
                self.missing()
            }
        }
    }

    fn problem(&mut self, path: &Path, archive: Option<&str>, what: What) -> Result<(), Stop> {
        let enough = self.options.exit_on_error || what.is_final();
        let problem = Problem { path: path.to_owned(), archive: archive.map(str::to_owned), what };
        (self.on_event)(VerifyEvent::Problem(&problem));
        self.problems.add(problem);
        if enough { Err(Stop::Enough) } else { Ok(()) }
    }

    fn check_stop(&self) -> Result<(), Stop> {
        if self.stop.load(Ordering::Relaxed) { Err(connection::Error::Interrupted.into()) } else { Ok(()) }
    }

    fn progress(&mut self) {
        (self.on_event)(VerifyEvent::Progress { done: self.done.load(Ordering::Relaxed), total: self.total });
    }

    /// Whether a path, or a directory that it is in, is not looked at.
    fn is_ignored(&self, path: &[u8]) -> bool {
        let is_at_or_below = |ignored: &Vec<u8>| path.strip_prefix(ignored.as_slice()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
        self.ignored.iter().any(is_at_or_below)
    }

    /// Looks at the files of a directory, and of those in it. `above` are the directories that it is in, by device and number.
    fn directory(&mut self, path: &Path, above: &mut Vec<(u64, u64)>) -> Result<(), Stop> {
        self.check_stop()?;
        let names = match names(&self.dir.join(path)) {
            Ok(names) => names,
            Err(error) => {
                self.ignored.push(path.as_os_str().as_encoded_bytes().to_vec());
                return self.problem(path, None, What::Unreadable { doing: "open directory", error });
            }
        };
        for name in names {
            let path = path.join(name);
            if !self.is_ignored(path.as_os_str().as_encoded_bytes()) {
                self.file(&path, above)?;
            }
        }
        Ok(())
    }

    /// Whether a path is a link that leads out of the backup, and is not that of a tablespace.
    fn leads_out(&self, path: &Path) -> bool {
        let whole = self.dir.join(path);
        if !fs::symlink_metadata(&whole).is_ok_and(|metadata| metadata.is_symlink()) {
            return false;
        }
        // A tablespace's own files are below its link.
        let mut parts = path.components();
        let is_in_tablespaces = parts.next().is_some_and(|part| part.as_os_str() == "pg_tblspc");
        let tablespace = parts.next().filter(|_| is_in_tablespaces).map(|oid| self.dir.join("pg_tblspc").join(oid));
        if tablespace.as_ref() == Some(&whole) {
            return false;
        }
        let Ok(target) = fs::canonicalize(&whole) else { return false };
        let contains = |root: &Path| fs::canonicalize(root).is_ok_and(|root| target.starts_with(root));
        !contains(self.dir) && !tablespace.is_some_and(|tablespace| contains(&tablespace))
    }

    /// Looks at a file, or a directory.
    fn file(&mut self, path: &Path, above: &mut Vec<(u64, u64)>) -> Result<(), Stop> {
        let bytes = path.as_os_str().as_encoded_bytes();
        if self.options.inside && self.leads_out(path) {
            match self.manifest.files.find(bytes).and_then(|index| self.found.get_mut(index)) {
                Some(found) => *found = true,
                None => self.ignored.push(bytes.to_vec()),
            }
            return self.problem(path, None, What::LeadsOut);
        }
        // A tablespace is a link to a directory.
        let metadata = match fs::metadata(self.dir.join(path)) {
            Ok(metadata) => metadata,
            Err(error) => {
                // It is not missing, nor is anything in it.
                match self.manifest.files.find(bytes).and_then(|index| self.found.get_mut(index)) {
                    Some(found) => *found = true,
                    None => self.ignored.push(bytes.to_vec()),
                }
                return self.problem(path, None, What::Unreadable { doing: "stat file or directory", error });
            }
        };
        if metadata.is_dir() {
            let this = (metadata.dev(), metadata.ino());
            if above.contains(&this) {
                self.ignored.push(bytes.to_vec());
                return self.problem(path, None, What::Loop);
            }
            above.push(this);
            let result = self.directory(path, above);
            above.pop();
            return result;
        }
        if !metadata.is_file() {
            return self.problem(path, None, What::NotRegular { in_tar_form: false });
        }
        let Some((index, entry)) = self.entry(bytes) else {
            return self.problem(path, None, What::Unknown);
        };
        if entry.size != metadata.len() {
            self.problem(path, None, What::Size { expected: entry.size, found: metadata.len() })?;
        } else if entry.checksum.is_some() && !self.options.skip_checksums {
            // As many as start offsets of 32 bits.
            self.to_read.push(index as u32);
            self.total = self.total.saturating_add(entry.size);
        }
        if self.is_incremental(bytes) {
            let read = |file: File| IncrementalFile::read(file, metadata.len(), &mut Vec::new());
            match File::open(self.dir.join(path)).and_then(read) {
                Ok(result) => self.incremental(path, None, result)?,
                // The checksum needs its bytes, too, and says so.
                Err(_) if entry.checksum.is_some() && !self.options.skip_checksums => {}
                Err(error) => self.problem(path, None, What::Unreadable { doing: "open file", error })?,
            }
        }
        if self.manifest.version >= 2 && bytes == CONTROL.as_bytes() {
            let read = File::open(self.dir.join(path)).and_then(read_control);
            match read {
                Ok(control) => self.control(path, None, &control)?,
                Err(error) => self.problem(path, None, What::Unreadable { doing: "open file", error })?,
            }
        }
        Ok(())
    }

    /// What the manifest says of a file, which has been found.
    fn entry(&mut self, path: &[u8]) -> Option<(usize, Entry<'a>)> {
        self.files += 1;
        let index = self.manifest.files.find(path)?;
        if let Some(found) = self.found.get_mut(index) {
            *found = true;
        }
        Some((index, self.manifest.files.get(index)?))
    }

    /// Whether the header of this file is to be read.
    fn is_incremental(&self, path: &[u8]) -> bool {
        self.options.incremental && IncrementalFile::is_path(path)
    }

    /// Counts a file with changed blocks only.
    fn incremental(&mut self, path: &Path, archive: Option<&str>, result: Result<IncrementalFile, IncrementalError>) -> Result<(), Stop> {
        self.incremental += 1;
        result.map_or_else(|error| self.problem(path, archive, What::Incremental(error)), |_| Ok(()))
    }

    /// Compares the cluster in pg_control with the one in the manifest.
    fn control(&mut self, path: &Path, archive: Option<&str>, bytes: &[u8]) -> Result<(), Stop> {
        let manifest = self.manifest.system_identifier;
        match ControlFile::system_identifier(bytes) {
            Err(error) => self.problem(path, archive, What::Control(error)),
            Ok(control) if manifest != Some(control) => self.problem(path, archive, What::SystemIdentifier { manifest, control }),
            Ok(_) => Ok(()),
        }
    }

    /// Reports what the manifest lists, and has not been found.
    fn missing(&mut self) -> Result<(), Stop> {
        if self.is_cut_short {
            return Ok(());
        }
        for (entry, index) in self.manifest.files.iter().zip(0..) {
            if self.found.get(index) == Some(&false) && !self.is_ignored(entry.path) {
                self.problem(&as_path(entry.path), None, What::Missing)?;
            }
        }
        Ok(())
    }

    /// Compares the bytes of the files that have been found, several at once.
    fn checksums(&mut self) -> Result<(), Stop> {
        self.progress();
        let to_read = std::mem::take(&mut self.to_read);
        let manifest = self.manifest;
        for window in to_read.chunks(WINDOW) {
            self.check_stop()?;
            let (dir, done, stop) = (self.dir, &self.done, self.stop);
            let compare = |index: &u32| {
                let entry = manifest.files.get(*index as usize)?;
                let opened = File::open(dir.join(as_path(entry.path)));
                let what = match opened {
                    Err(error) => Some(What::Unreadable { doing: "open file", error }),
                    Ok(file) => compare(&entry, file, done, stop),
                };
                what.map(|what| (entry.path, what))
            };
            let found: Vec<_> = window.par_iter().filter_map(compare).collect();
            self.check_stop()?;
            for (path, what) in found {
                self.problem(&as_path(path), None, what)?;
            }
            self.progress();
        }
        Ok(())
    }

    /// Compares the files in the archives of a backup in tar form.
    fn archives(&mut self) -> Result<(), Stop> {
        let mut archives = Vec::new();
        for name in names(self.dir).map_err(failed("open directory", self.dir))? {
            let path = PathBuf::from(name);
            if self.is_ignored(path.as_os_str().as_encoded_bytes()) {
                continue;
            }
            match fs::metadata(self.dir.join(&path)) {
                Err(error) => self.problem(&path, None, What::Unreadable { doing: "stat file or directory", error })?,
                Ok(metadata) if !metadata.is_file() => self.problem(&path, None, What::NotRegular { in_tar_form: true })?,
                Ok(metadata) => match Archive::of_name(&path.to_string_lossy(), &metadata) {
                    None => self.problem(&path, None, What::NotAnArchive)?,
                    Some(archive) if archive.is_wal => {}
                    Some(archive) => {
                        self.total = self.total.saturating_add(archive.size);
                        archives.push(archive);
                    }
                },
            }
        }
        self.progress();
        for archive in archives {
            self.archive(&archive)?;
            self.progress();
        }
        Ok(())
    }

    /// Compares the files in an archive.
    fn archive(&mut self, archive: &Archive) -> Result<(), Stop> {
        let path = Path::new(&archive.name);
        let file = match File::open(self.dir.join(path)) {
            Ok(file) => file,
            Err(error) => return self.problem(path, None, What::Unreadable { doing: "open file", error }),
        };
        let result = self.members(archive, file);
        self.check_stop()?;
        match result {
            Ok(()) => {
                self.done.fetch_add(archive.size, Ordering::Relaxed);
                Ok(())
            }
            Err(Broken::Stop(stop)) => Err(stop),
            Err(Broken::Archive(error)) => {
                self.is_cut_short = true;
                self.problem(path, None, What::Unreadable { doing: "read file", error })
            }
        }
    }

    fn members(&mut self, archive: &Archive, file: File) -> Result<(), Broken> {
        let stop = self.stop;
        let packed = archive.compression.reader(Watched { inner: file, stop })?;
        // What is unpacked can be much more than what is read.
        let mut tar = Tar::new(Watched { inner: packed, stop });
        while let Some(member) = tar.next()? {
            if !member.is_regular {
                continue;
            }
            let Some(name) = inside(&as_path(&member.name)) else {
                let problem = format!("the name of its member \"{}\" leads out of the backup", as_path(&member.name).display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem).into());
            };
            let place = archive.below.join(name);
            let bytes = place.as_os_str().as_encoded_bytes();
            if self.is_ignored(bytes) {
                continue;
            }
            let Some((_, entry)) = self.entry(bytes) else {
                self.problem(&place, Some(&archive.name), What::Unknown)?;
                continue;
            };
            if entry.size != member.size {
                self.problem(&place, Some(&archive.name), What::Size { expected: entry.size, found: member.size })?;
                continue;
            }
            let is_control = self.manifest.version >= 2 && bytes == CONTROL.as_bytes();
            // What has been read of it.
            let mut head = Vec::new();
            if is_control {
                (&mut tar).take(ControlFile::MAX_SIZE).read_to_end(&mut head)?;
            } else if self.is_incremental(bytes) {
                let result = IncrementalFile::read(&mut tar, member.size, &mut head)?;
                self.incremental(&place, Some(&archive.name), result)?;
            }
            if !self.options.skip_checksums {
                match compare(&entry, head.as_slice().chain(&mut tar), &AtomicU64::new(0), stop) {
                    Some(What::Unreadable { error, .. }) => return Err(error.into()),
                    Some(what) => self.problem(&place, Some(&archive.name), what)?,
                    None => {}
                }
            }
            if is_control {
                self.control(&place, Some(&archive.name), &head)?;
            }
        }
        Ok(tar.finish()?)
    }
}

/// Why an archive is not read to its end.
enum Broken {
    Archive(io::Error),
    Stop(Stop),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Archive(error)
    }
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Broken {
        Broken::Stop(stop)
    }
}

/// An archive of a backup in tar form.
struct Archive {
    name: String,
    compression: Compression,
    /// Where its files are in the backup.
    below: PathBuf,
    is_wal: bool,
    size: u64,
}

impl Archive {
    /// The archive that a file of this name must be; `None`: it is none. C: `precheck_tar_backup_file`.
    fn of_name(name: &str, metadata: &Metadata) -> Option<Archive> {
        let stem = name.split('.').next().unwrap_or_default();
        let compression = match name.strip_prefix(stem)? {
            ".tgz" => Compression::of_name(".gz"),
            suffix => {
                let compression = suffix.strip_prefix(".tar")?;
                Some(Compression::of_name(compression)).filter(|found| found.suffix() == compression)?
            }
        };
        let below = match stem {
            "base" | "pg_wal" => PathBuf::new(),
            oid => {
                oid.parse::<u32>().ok().filter(|&oid| oid > 0)?;
                Path::new("pg_tblspc").join(oid)
            }
        };
        Some(Archive { name: name.to_owned(), compression, below, is_wal: stem == "pg_wal", size: metadata.len() })
    }
}

/// What is wrong with the bytes of a file. `done` counts them.
fn compare(entry: &Entry<'_>, content: impl Read, done: &AtomicU64, stop: &AtomicBool) -> Option<What> {
    let Checksum { algorithm, value } = entry.checksum?;
    let mut read = 0;
    let seen = |len: usize| {
        read += len as u64;
        done.fetch_add(len as u64, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    };
    // A file that grows has no end.
    let found = match algorithm.of(content.take(entry.size.saturating_add(1)), seen) {
        Ok(found) => found,
        Err(error) => return Some(What::Unreadable { doing: "read file", error }),
    };
    if read != entry.size {
        return Some(What::Read { expected: entry.size, found: read });
    }
    if found.len() != value.len() {
        return Some(What::ChecksumLength { expected: found.len(), found: value.len() });
    }
    (found != value).then(|| What::Checksum { expected: hex(value), found: hex(&found) })
}

/// The bytes of pg_control that can matter.
fn read_control(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(ControlFile::MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A reader that ends with an error once `stop` is set.
struct Watched<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        self.inner.read(buffer)
    }
}
