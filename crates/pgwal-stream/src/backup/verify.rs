//! Whether a backup is what its manifest says, and has the WAL that it needs. C: bin/pg_verifybackup.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pgwal::check::{self, Event, check};
use pgwal::source::Wal;
use tar::Archive;

use super::archives::WAL_ARCHIVE;
use super::incremental::{IncrementalError, IncrementalFile};
use super::manifest::{Comparison, FILE_NAME, Manifest, WalRange};
use super::plain::inside;
use super::stream::Place;
use super::{BackupError, as_path};
use crate::compress::Compression;
use crate::connection;
use crate::segments::failed;

/// What was checked, and found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that are as the manifest says; `None`: there is no manifest.
    pub files: Option<u64>,
    /// Files of those that have changed blocks only: it is an incremental backup, and restoring it takes the one before it.
    pub incremental: u64,
    /// Records of WAL with the right checksum in what the backup needs; `None`: it has none with it.
    pub records: Option<u64>,
}

/// Which WAL of a backup is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalCheck {
    /// None: it comes from elsewhere.
    None,
    /// What the manifest says that is needed.
    Manifest,
    /// The same; where no manifest says it, what is between these places.
    Between(Place, Place),
}

/// Checks the backup in `dir`, in either form: its files, and the WAL that it needs.
///
/// # Errors
/// It cannot be read; it is not as its manifest says; the WAL does not do; `stop` is set.
pub fn verify(dir: &Path, wal: WalCheck, stop: &AtomicBool) -> Result<Verified, BackupError> {
    match check_all(dir, wal, stop) {
        Err(_) if stop.load(Ordering::Relaxed) => Err(connection::Error::Interrupted.into()),
        result => result,
    }
}

fn check_all(dir: &Path, wal: WalCheck, stop: &AtomicBool) -> Result<Verified, BackupError> {
    let archives = archives(dir)?;
    let path = dir.join(FILE_NAME);
    let manifest = match fs::read(&path) {
        Ok(text) => Some(Manifest::parse(&text)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed("read", &path)(e).into()),
    };
    let found = manifest.as_ref().map(|manifest| files(dir, &archives, manifest, stop)).transpose()?;
    let (files, incremental) = found.map_or((None, 0), |(files, incremental)| (Some(files), incremental));
    let ranges = match (wal, manifest) {
        (WalCheck::None, _) => return Ok(Verified { files, incremental, records: None }),
        (_, Some(manifest)) if !manifest.wal_ranges.is_empty() => manifest.wal_ranges,
        (WalCheck::Between(start, end), _) => vec![WalRange { timeline: end.timeline, start: start.lsn, end: end.lsn }],
        (WalCheck::Manifest, _) => return Err(BackupError::NoManifest(path)),
    };
    let place = match archives.iter().find(|archive| archive.name.starts_with(WAL_ARCHIVE)).or_else(|| archives.first()) {
        Some(archive) => archive.path.clone(),
        None => dir.join("pg_wal"),
    };
    let records = ranges.iter().map(|range| records(&place, range, stop)).sum::<Result<u64, _>>()?;
    Ok(Verified { files, incremental, records: Some(records) })
}

/// An archive of a backup.
struct ArchiveFile {
    name: String,
    path: PathBuf,
}

/// The archives of a backup in tar form, that of the data directory first; none: it is in plain form.
fn archives(dir: &Path) -> Result<Vec<ArchiveFile>, BackupError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("read directory", dir))? {
        let path = entry.map_err(failed("read directory", dir))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = name.strip_suffix(Compression::of_name(&name).suffix()).and_then(|name| name.strip_suffix(".tar"));
        let is_oid = |stem: &str| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
        if stem.is_some_and(|stem| stem == "base" || stem == "pg_wal" || is_oid(stem)) {
            found.push(ArchiveFile { name, path });
        }
    }
    found.sort_by_key(|archive| (!archive.name.starts_with("base."), archive.name.clone()));
    Ok(found)
}

/// Compares all files with the manifest; how many they are, and how many of them are those of an incremental backup.
fn files(dir: &Path, archives: &[ArchiveFile], manifest: &Manifest, stop: &AtomicBool) -> Result<(u64, u64), BackupError> {
    let mut comparison = Comparison::new(manifest);
    let mut incremental = Incremental::default();
    if archives.is_empty() {
        comparison.directory(dir, stop).map_err(failed("read", dir))?;
    }
    for archive in archives.iter().filter(|archive| !archive.name.starts_with(WAL_ARCHIVE)) {
        compare(archive, &mut comparison, &mut incremental, stop).map_err(failed("read", &archive.path))?;
    }
    let files = comparison.files;
    match comparison.finish() {
        differences if differences.is_empty() => {}
        differences => return Err(BackupError::Different(differences)),
    }
    // What the manifest says has come; whether it can be used is another matter.
    if archives.is_empty() {
        for (path, entry) in manifest.files.iter().filter(|(path, _)| IncrementalFile::is_path(path)) {
            let at = dir.join(as_path(path));
            let read = |file: File| IncrementalFile::read(file, entry.size, &mut Vec::new());
            let result = File::open(&at).and_then(read).map_err(failed("read", &at))?;
            incremental.count(path, result);
        }
    }
    match incremental.error {
        Some((path, error)) => Err(BackupError::Incremental { path, error }),
        None => Ok((files, incremental.files)),
    }
}

/// Files of an incremental backup that have been looked at.
#[derive(Default)]
struct Incremental {
    files: u64,
    /// The first that is damaged.
    error: Option<(String, IncrementalError)>,
}

impl Incremental {
    fn count(&mut self, path: &[u8], result: Result<IncrementalFile, IncrementalError>) {
        self.files += 1;
        if let (Err(error), None) = (result, &self.error) {
            self.error = Some((String::from_utf8_lossy(path).into_owned(), error));
        }
    }
}

/// Compares the files of an archive.
fn compare(archive: &ArchiveFile, comparison: &mut Comparison<'_>, incremental: &mut Incremental, stop: &AtomicBool) -> io::Result<()> {
    let below = match archive.name.split('.').next() {
        Some(oid) if oid != "base" => Path::new("pg_tblspc").join(oid),
        _ => PathBuf::new(),
    };
    let file = File::open(&archive.path)?;
    let mut unpacked = Archive::new(Compression::of_name(&archive.name).reader(file)?);
    for entry in unpacked.entries()? {
        let mut entry = entry?;
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let name = as_path(&entry.path_bytes());
        if let (Some(path), true) = (inside(&name), entry.header().entry_type().is_file()) {
            let size = entry.size();
            let path = below.join(path);
            let path = path.as_os_str().as_encoded_bytes();
            let mut head = Vec::new();
            if IncrementalFile::is_path(path) {
                incremental.count(path, IncrementalFile::read(&mut entry, size, &mut head)?);
            }
            comparison.file(path, size, head.as_slice().chain(entry))?;
        }
    }
    Ok(())
}

/// Checks the WAL of a range; how many records it has.
fn records(place: &Path, range: &WalRange, stop: &AtomicBool) -> Result<u64, BackupError> {
    let damaged = |problem: String| BackupError::WalDamaged(problem);
    let wal = Wal::open_all(&[place], Some(range.timeline)).map_err(|e| damaged(e.to_string()))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = check::Options { from: Some(range.start), to: Some(range.end), system_identifier: None, threads };
    let mut first = None;
    let summary = check(&wal, options, |event| match event {
        Event::Finding(finding) => {
            first = Some(finding.to_string());
            ControlFlow::Break(())
        }
        _ if stop.load(Ordering::Relaxed) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if let Some(finding) = first {
        return Err(damaged(finding));
    }
    let WalRange { timeline, start, end } = range;
    let needed = format!("WAL from {start} to {end} on timeline {timeline} is needed");
    match summary.lsns {
        Some(lsns) if lsns.start > *start => return Err(damaged(format!("{needed}, and the first record is at {}", lsns.start))),
        Some(_) => {}
        None => return Err(damaged(format!("{needed}, and there is no record"))),
    }
    match summary.ends.iter().find(|found| found.timeline == *timeline && found.end.lsn < *end) {
        Some(found) => Err(damaged(format!("{needed}: {}", found.end))),
        None => Ok(summary.records),
    }
}
