//! A base backup as recovery sees it: where it starts, and how far replay must come until it is consistent.
//!
//! `backup_label` tells where replay starts. Where it ends, the WAL tells, by a record, for a backup of a primary; for one of a standby only
//! `global/pg_control` does. A data directory without a label starts from the checkpoint in its `pg_control`.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::backup_label::{BackupLabel, BackupLabelError};
use crate::datadir::{self, ControlFile};
use crate::input_file;
use crate::lsn::{Lsn, TimelineId};
use crate::printable::printable;
use crate::source::{Archive, ArchiveFile, FileKind, members, unpacked};

/// A base backup, or a data directory that is used as one.
#[derive(Debug, Default)]
pub struct BaseBackup {
    /// What the user knows it by.
    pub input: String,
    /// Its backup_label, or its backup history file; `None`: it has none, and starts as its pg_control says.
    pub label: Option<BackupLabel>,
    /// Its pg_control; `None`: not available.
    pub control: Option<ControlFile>,
    /// What its manifest says about WAL; `None`: not available.
    pub manifest: Option<ManifestEnd>,
    /// Tablespaces outside of the data directory: their object ids, and where they must be. C: tablespace_map.
    pub tablespaces: Vec<(u32, String)>,
    /// The WAL in its own pg_wal, which a server reads where the archive does not have it.
    pub wal: Option<Archive>,
}

/// What `backup_manifest` says about the WAL that the backup needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManifestEnd {
    /// The cluster; from 17 on. C: `System-Identifier`.
    pub system_identifier: Option<u64>,
    /// The end of the last range of WAL. Replay up to here is enough; less may be. C: `End-LSN`.
    pub end: Option<Lsn>,
    /// Timeline of that range.
    pub timeline: Option<TimelineId>,
}

/// Why something cannot be used as a base backup.
#[derive(Debug)]
pub struct BaseBackupError {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: BaseBackupProblem,
}

/// What can be wrong with a base backup.
#[derive(Debug)]
#[non_exhaustive]
pub enum BaseBackupProblem {
    /// The operating system says no, or an archive does not unpack.
    Io(io::Error),
    /// The backup label is not one.
    Label(BackupLabelError),
    /// The file is larger than a file of its kind can be.
    TooLarge {
        /// Bytes that it may have.
        limit: u64,
    },
    /// pg_control is damaged, or of an unsupported version.
    Control(datadir::Problem),
    /// The manifest is not one.
    Manifest(String),
    /// Neither backup_label nor global/pg_control is in it.
    NoBackup,
}

impl fmt::Display for BaseBackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", printable(self.path.display()))?;
        match &self.problem {
            BaseBackupProblem::Io(e) => e.fmt(f),
            BaseBackupProblem::Label(e) => e.fmt(f),
            BaseBackupProblem::TooLarge { limit } => write!(f, "longer than a backup label: more than {limit} bytes"),
            BaseBackupProblem::Control(problem) => problem.fmt(f),
            BaseBackupProblem::Manifest(why) => write!(f, "not a backup manifest: {}", printable(why)),
            BaseBackupProblem::NoBackup => write!(f, "not a base backup: it has neither a backup_label nor a global/pg_control"),
        }
    }
}

impl std::error::Error for BaseBackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            BaseBackupProblem::Io(e) => Some(e),
            _ => None,
        }
    }
}

/// Bytes of a backup label, at most; a server writes some hundred, and a line for each tablespace is in a file of its own.
const LABEL_LEN: u64 = 1 << 20;
/// Bytes of a manifest, at most: it has a line for each file.
const MANIFEST_LEN: u64 = 4 << 30;

const LABEL: &str = "backup_label";
const CONTROL: &str = "global/pg_control";
const TABLESPACES: &str = "tablespace_map";
const MANIFEST: &str = "backup_manifest";

impl From<BackupLabel> for BaseBackup {
    /// A backup of which nothing but the label is available.
    fn from(label: BackupLabel) -> BaseBackup {
        BaseBackup { input: LABEL.to_owned(), label: Some(label), ..BaseBackup::default() }
    }
}

impl BaseBackup {
    /// Opens a base backup: its directory, its backup_label or backup history file, or the archives that `pg_basebackup -F tar` makes,
    /// compressed or not, by their directory or the `base.tar` in it.
    ///
    /// # Errors
    /// It cannot be read, or is not a base backup.
    pub fn open(path: &Path) -> Result<BaseBackup, BaseBackupError> {
        let fail = |problem| BaseBackupError { path: path.to_owned(), problem };
        let metadata = fs::metadata(path).map_err(|e| fail(BaseBackupProblem::Io(e)))?;
        if metadata.is_dir() {
            return match base_archive(path) {
                Some(archive) if !path.join(LABEL).exists() && !path.join(CONTROL).exists() => BaseBackup::of_archive(&archive, path),
                _ => BaseBackup::of_directory(path),
            };
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_base_archive(&name) {
            return BaseBackup::of_archive(path, parent);
        }
        if name == LABEL && parent.join(CONTROL).exists() {
            return BaseBackup::of_directory(parent);
        }
        // A pipe with nobody at its other end is not waited for.
        if !metadata.is_file() {
            return Err(fail(BaseBackupProblem::Io(io::Error::other("not a file"))));
        }
        let text = unpacked(path, LABEL_LEN + 1).map_err(|e| fail(BaseBackupProblem::Io(e)))?;
        if text.len() as u64 > LABEL_LEN {
            return Err(fail(BaseBackupProblem::TooLarge { limit: LABEL_LEN }));
        }
        let label = Some(label(path, &text)?);
        let manifest = if name == LABEL { read_manifest(parent)? } else { None };
        let tablespaces = if name == LABEL { read_tablespaces(parent)? } else { Vec::new() };
        Ok(BaseBackup { input: path.display().to_string(), label, manifest, tablespaces, ..BaseBackup::default() })
    }

    /// The base backups that an archive of WAL tells of, by backup history files and labels; the newest first.
    pub fn in_archive(archive: &Archive) -> Vec<BaseBackup> {
        let label = |file: &ArchiveFile| match &file.kind {
            FileKind::BackupLabel { label, .. } => label.as_ref().as_ref().ok().cloned(),
            _ => None,
        };
        let mut backups: Vec<BaseBackup> = Vec::new();
        for (file, label) in archive.files().iter().filter_map(|file| Some((file, label(file)?))) {
            // A label has its pg_control beside it; a history file, or the member of an archive, stands alone.
            let whole = label.stop.is_none().then(|| BaseBackup::open(Path::new(&*file.input)).ok()).flatten();
            backups.push(whole.unwrap_or_else(|| BaseBackup { input: file.input.to_string(), ..label.into() }));
        }
        let place = |backup: &BaseBackup| {
            let label = backup.label.as_ref();
            (label.map(|label| label.start), label.and_then(|label| label.stop.as_ref()).map(|stop| stop.lsn))
        };
        backups.sort_by_key(|backup| std::cmp::Reverse(place(backup)));
        backups
    }

    fn of_directory(path: &Path) -> Result<BaseBackup, BaseBackupError> {
        let at = path.join(LABEL);
        let label = read(&at, LABEL_LEN)?.map(|text| label(&at, &text)).transpose()?;
        let at = path.join(CONTROL);
        let control = read(&at, ControlFile::MAX_SIZE)?.map(|bytes| control(&at, &bytes)).transpose()?;
        if label.is_none() && control.is_none() {
            return Err(BaseBackupError { path: path.to_owned(), problem: BaseBackupProblem::NoBackup });
        }
        let (manifest, tablespaces) = (read_manifest(path)?, read_tablespaces(path)?);
        let wal = path.join("pg_wal");
        let wal = if wal.is_dir() { Archive::open(&[wal]).ok() } else { None };
        Ok(BaseBackup { input: path.display().to_string(), label, control, manifest, tablespaces, wal })
    }

    fn of_archive(archive: &Path, folder: &Path) -> Result<BaseBackup, BaseBackupError> {
        let fail = |problem| BaseBackupError { path: archive.to_owned(), problem };
        let found = members(archive, &[LABEL, CONTROL, TABLESPACES], LABEL_LEN).map_err(|e| fail(BaseBackupProblem::Io(e)))?;
        let file = |name: &str| found.get(name).map(Vec::as_slice);
        let label = file(LABEL).map(|text| label(&archive.join(LABEL), text)).transpose()?;
        let control = file(CONTROL).map(|bytes| control(&archive.join(CONTROL), bytes)).transpose()?;
        if label.is_none() && control.is_none() {
            return Err(fail(BaseBackupProblem::NoBackup));
        }
        // WAL that was fetched is in the archive itself, WAL that was streamed beside it.
        let streamed = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let streamed = streamed.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pg_wal.tar"))).min();
        let wal = Archive::open(&[streamed.as_deref().unwrap_or(archive)]).ok();
        let tablespaces = file(TABLESPACES).map(tablespaces).unwrap_or_default();
        Ok(BaseBackup { input: archive.display().to_string(), label, control, manifest: read_manifest(folder)?, tablespaces, wal })
    }

    /// Where replay starts: the redo point of its checkpoint.
    pub fn start(&self) -> Option<Lsn> {
        let of_control = || self.control.map(|control| control.checkpoint_copy.redo);
        self.label.as_ref().map(|label| label.start).or_else(of_control)
    }

    /// The record of its checkpoint.
    pub fn checkpoint(&self) -> Option<Lsn> {
        self.label.as_ref().map(|label| label.checkpoint).or_else(|| self.control.map(|control| control.checkpoint))
    }

    /// Timeline of its checkpoint.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.label.as_ref().map(BackupLabel::timeline).or_else(|| self.control.map(|control| control.checkpoint_copy.timeline))
    }

    /// The timeline that a server looks for newer ones from: the newest that its pg_control knows. C: `recoveryTargetTLI`.
    pub fn newest_timeline(&self) -> Option<TimelineId> {
        let of_control = self.control.map(|control| control.min_recovery_timeline.max(control.checkpoint_copy.timeline));
        of_control.or_else(|| self.timeline())
    }

    /// The cluster, where a file of the backup tells.
    pub fn system_identifier(&self) -> Option<u64> {
        let of_manifest = || self.manifest.and_then(|manifest| manifest.system_identifier);
        self.control.map(|control| control.system_identifier).or_else(of_manifest)
    }
}

/// Whether a file has the name of the archive of the main tablespace.
fn is_base_archive(name: &str) -> bool {
    name.strip_prefix("base.tar").is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('.'))
}

fn base_archive(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten();
    files.filter(|file| is_base_archive(&file.file_name().to_string_lossy())).map(|file| file.path()).min()
}

/// The file, where it is there.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, BaseBackupError> {
    let fail = |problem| BaseBackupError { path: path.to_owned(), problem };
    let mut bytes = Vec::new();
    let file = match input_file::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(BaseBackupProblem::Io(e))),
    };
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| fail(BaseBackupProblem::Io(e)))?;
    if bytes.len() as u64 > limit {
        return Err(fail(BaseBackupProblem::TooLarge { limit }));
    }
    Ok(Some(bytes))
}

fn label(path: &Path, text: &[u8]) -> Result<BackupLabel, BaseBackupError> {
    BackupLabel::parse(text).map_err(|e| BaseBackupError { path: path.to_owned(), problem: BaseBackupProblem::Label(e) })
}

fn control(path: &Path, bytes: &[u8]) -> Result<ControlFile, BaseBackupError> {
    ControlFile::of_any_major(bytes).map_err(|e| BaseBackupError { path: path.to_owned(), problem: BaseBackupProblem::Control(e) })
}

fn read_tablespaces(folder: &Path) -> Result<Vec<(u32, String)>, BaseBackupError> {
    Ok(read(&folder.join(TABLESPACES), LABEL_LEN)?.map(|text| tablespaces(&text)).unwrap_or_default())
}

/// Reads tablespace_map: an object id and a path, one a line; a backslash stands before a character of the path that ends lines. C:
/// `read_tablespace_map`.
fn tablespaces(text: &[u8]) -> Vec<(u32, String)> {
    let (mut lines, mut line, mut escaped) = (Vec::new(), Vec::new(), false);
    for &byte in text {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'\n' if !escaped => lines.push(std::mem::take(&mut line)),
            _ => {
                line.push(byte);
                escaped = false;
            }
        }
    }
    let parsed = lines.iter().filter_map(|line| {
        let line = String::from_utf8_lossy(line);
        let (oid, path) = line.split_once(' ')?;
        Some((oid.parse().ok()?, path.to_owned()))
    });
    parsed.collect()
}

fn read_manifest(folder: &Path) -> Result<Option<ManifestEnd>, BaseBackupError> {
    let path = folder.join(MANIFEST);
    let file = match input_file::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(BaseBackupError { path, problem: BaseBackupProblem::Io(e) }),
    };
    let parsed = serde_json::from_reader::<_, Manifest>(io::BufReader::new(file.take(MANIFEST_LEN)));
    match parsed {
        Ok(manifest) => Ok(Some(manifest.end())),
        Err(e) => Err(BaseBackupError { path, problem: BaseBackupProblem::Manifest(e.to_string()) }),
    }
}

/// What is read of a manifest; the list of files is passed over.
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "WAL-Ranges", default)]
    ranges: Vec<Range>,
}

#[derive(Deserialize)]
struct Range {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "End-LSN", deserialize_with = "lsn")]
    end: Lsn,
}

fn lsn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format_args!("\"{text}\" is not an LSN")))
}

impl Manifest {
    fn end(&self) -> ManifestEnd {
        let last = self.ranges.iter().max_by_key(|range| range.end);
        ManifestEnd {
            system_identifier: self.system_identifier,
            end: last.map(|range| range.end),
            timeline: last.map(|range| TimelineId(range.timeline)),
        }
    }
}

/// The backup in the words of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupName {
    /// What the user knows it by.
    pub input: String,
    /// Its name. C: `LABEL`.
    pub label: Option<String>,
    /// When it ended, in the server's words and time zone; only of a backup history file. C: `STOP TIME`.
    pub stop_time: Option<String>,
    /// Whether it was taken from a standby; `None`: not said.
    pub from_standby: Option<bool>,
    /// Whether it was found in the archive, not named by whoever asked.
    pub found: bool,
}

impl BackupName {
    /// Names `backup`.
    pub fn of(backup: &BaseBackup, found: bool) -> BackupName {
        let label = backup.label.as_ref();
        BackupName {
            input: backup.input.clone(),
            label: label.and_then(|label| label.label.clone()),
            stop_time: label.and_then(|label| label.stop.as_ref()).and_then(|stop| stop.time.clone()),
            from_standby: label.and_then(|label| label.from_standby),
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespace_maps_and_manifests() {
        let map = b"16385 /srv/fast\n16386 /srv/with space\n16387 /srv/new\\\nline\\\\\n";
        let expected = [(16385, "/srv/fast"), (16386, "/srv/with space"), (16387, "/srv/new\nline\\")];
        assert_eq!(tablespaces(map), expected.map(|(oid, path)| (oid, path.to_owned())));
        let text = r#"{"PostgreSQL-Backup-Manifest-Version": 2, "System-Identifier": 7298367502912384, "Files": [{"Path": "a", "Size": 1}],
            "WAL-Ranges": [{"Timeline": 2, "Start-LSN": "0/2000028", "End-LSN": "0/2000100"}], "Manifest-Checksum": "x"}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        let expected =
            ManifestEnd { system_identifier: Some(7_298_367_502_912_384), end: Some(Lsn(0x200_0100)), timeline: Some(TimelineId(2)) };
        assert_eq!(manifest.end(), expected);
        assert!(serde_json::from_str::<Manifest>(&text.replace("0/2000100", "x")).is_err());
    }
}
