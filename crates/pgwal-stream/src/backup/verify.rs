//! Whether a backup is what its manifest says, and has the WAL that it needs. C: bin/pg_verifybackup.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pgwal::check::{self, Event, check};
use pgwal::source::Wal;
use tar::Archive;

use super::archives::WAL_ARCHIVE;
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
    let files = manifest.as_ref().map(|manifest| files(dir, &archives, manifest, stop)).transpose()?;
    let ranges = match (wal, manifest) {
        (WalCheck::None, _) => return Ok(Verified { files, records: None }),
        (_, Some(manifest)) if !manifest.wal_ranges.is_empty() => manifest.wal_ranges,
        (WalCheck::Between(start, end), _) => vec![WalRange { timeline: end.timeline, start: start.lsn, end: end.lsn }],
        (WalCheck::Manifest, _) => return Err(BackupError::NoManifest(path)),
    };
    let place = match archives.iter().find(|archive| archive.name.starts_with(WAL_ARCHIVE)).or_else(|| archives.first()) {
        Some(archive) => archive.path.clone(),
        None => dir.join("pg_wal"),
    };
    let records = ranges.iter().map(|range| records(&place, range, stop)).sum::<Result<u64, _>>()?;
    Ok(Verified { files, records: Some(records) })
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

/// Compares all files with the manifest; how many they are.
fn files(dir: &Path, archives: &[ArchiveFile], manifest: &Manifest, stop: &AtomicBool) -> Result<u64, BackupError> {
    let mut comparison = Comparison::new(manifest);
    if archives.is_empty() {
        comparison.directory(dir, stop).map_err(failed("read", dir))?;
    }
    for archive in archives.iter().filter(|archive| !archive.name.starts_with(WAL_ARCHIVE)) {
        compare(archive, &mut comparison, stop).map_err(failed("read", &archive.path))?;
    }
    let files = comparison.files;
    match comparison.finish() {
        differences if differences.is_empty() => Ok(files),
        differences => Err(BackupError::Different(differences)),
    }
}

/// Compares the files of an archive.
fn compare(archive: &ArchiveFile, comparison: &mut Comparison<'_>, stop: &AtomicBool) -> io::Result<()> {
    let below = match archive.name.split('.').next() {
        Some(oid) if oid != "base" => Path::new("pg_tblspc").join(oid),
        _ => PathBuf::new(),
    };
    let file = File::open(&archive.path)?;
    let mut unpacked = Archive::new(Compression::of_name(&archive.name).reader(file)?);
    for entry in unpacked.entries()? {
        let entry = entry?;
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let name = as_path(&entry.path_bytes());
        if let (Some(path), true) = (inside(&name), entry.header().entry_type().is_file()) {
            let size = entry.size();
            comparison.file(below.join(path).as_os_str().as_encoded_bytes(), size, entry)?;
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
