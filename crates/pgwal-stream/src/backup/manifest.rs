//! Backup manifests: what a base backup has in it, and whether it still has. C: backup/backup_manifest.c, common/parse_manifest.c,
//! bin/pg_verifybackup/pg_verifybackup.c. From 13 on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pgwal::Lsn;
use pgwal::TimelineId;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use serde::Deserialize;
use sha2::Digest;

/// The manifest's own name in a backup.
pub const FILE_NAME: &str = "backup_manifest";

/// What a backup has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Version of the form: 1, or 2 from 17 on.
    pub version: u32,
    /// Cluster that it is of; from version 2 on.
    pub system_identifier: Option<u64>,
    /// Its files, by path.
    pub files: BTreeMap<Vec<u8>, Entry>,
    /// WAL that it takes to restore it.
    pub wal_ranges: Vec<WalRange>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bytes that it has.
    pub size: u64,
    /// What they come to; `None`: the backup was made without checksums.
    pub checksum: Option<Checksum>,
}

/// A file's checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How it is computed.
    pub algorithm: Algorithm,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// How a checksum is computed. C: `pg_checksum_type`, common/checksum_helper.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// CRC-32C, in the order of bytes of a little-endian machine.
    Crc32c,
    /// SHA-2 with 224 bits.
    Sha224,
    /// SHA-2 with 256 bits.
    Sha256,
    /// SHA-2 with 384 bits.
    Sha384,
    /// SHA-2 with 512 bits.
    Sha512,
}

impl Algorithm {
    /// As manifests name it.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Sha224 => "SHA224",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha384 => "SHA384",
            Algorithm::Sha512 => "SHA512",
        }
    }

    /// By the name that manifests have.
    pub fn by_name(name: &str) -> Option<Algorithm> {
        Some(match name.to_ascii_uppercase().as_str() {
            "CRC32C" => Algorithm::Crc32c,
            "SHA224" => Algorithm::Sha224,
            "SHA256" => Algorithm::Sha256,
            "SHA384" => Algorithm::Sha384,
            "SHA512" => Algorithm::Sha512,
            _ => return None,
        })
    }
}

/// WAL that a backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// First byte.
    pub start: Lsn,
    /// Behind the last byte.
    pub end: Lsn,
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// It is not JSON, or not the JSON of a manifest.
    Json(String),
    /// Its version is not known.
    Version {
        /// The version.
        found: u64,
    },
    /// It has a file twice.
    Twice {
        /// Its path.
        path: String,
    },
    /// A field of a file is not what it should be.
    Field {
        /// The file's path.
        path: String,
        /// The field.
        field: &'static str,
        /// What it is.
        found: String,
    },
    /// It does not end with its own checksum, or not with the right one.
    Checksum {
        /// What its bytes come to, as hexadecimal digits.
        expected: String,
        /// What it says.
        found: String,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Json(error) => write!(f, "the manifest is not one: {error}"),
            ManifestError::Version { found } => write!(f, "the manifest is of version {found}: expected 1 or 2"),
            ManifestError::Twice { path } => write!(f, "the manifest has \"{path}\" twice"),
            ManifestError::Field { path, field, found } => write!(f, "the manifest says of \"{path}\": {field} is \"{found}\""),
            ManifestError::Checksum { expected, found } => {
                write!(f, "the manifest has been changed: its checksum is {found}, and its bytes come to {expected}")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u64,
    #[serde(rename = "System-Identifier")]
    system_identifier: Option<u64>,
    #[serde(rename = "Files", default)]
    files: Vec<FormFile>,
    #[serde(rename = "WAL-Ranges", default)]
    wal_ranges: Vec<FormRange>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    _last_modified: Option<String>,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

impl Manifest {
    /// Reads a manifest, and checks it against the checksum that it ends with.
    ///
    /// # Errors
    /// It is none, or it has been changed.
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let form: Form = serde_json::from_slice(text).map_err(|e| ManifestError::Json(e.to_string()))?;
        let version = match form.version {
            version @ 1..=2 => version as u32,
            found => return Err(ManifestError::Version { found }),
        };
        // The checksum is of everything before the line that it stands on.
        let line = text.trim_ascii_end().iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let expected = hex(&sha2::Sha256::digest(text.get(..line).unwrap_or_default()));
        if !form.checksum.eq_ignore_ascii_case(&expected) {
            return Err(ManifestError::Checksum { expected, found: form.checksum });
        }
        let mut files = BTreeMap::new();
        for file in form.files {
            let (path, entry) = file.read()?;
            if files.insert(path.clone(), entry).is_some() {
                return Err(ManifestError::Twice { path: String::from_utf8_lossy(&path).into_owned() });
            }
        }
        let wrong = |field, found: &str| ManifestError::Field { path: "WAL-Ranges".to_owned(), field, found: found.to_owned() };
        let read = |range: FormRange| {
            let start = range.start.parse().map_err(|_| wrong("Start-LSN", &range.start))?;
            let end = range.end.parse().map_err(|_| wrong("End-LSN", &range.end))?;
            Ok(WalRange { timeline: TimelineId(range.timeline), start, end })
        };
        let wal_ranges = form.wal_ranges.into_iter().map(read).collect::<Result<_, ManifestError>>()?;
        Ok(Manifest { version, system_identifier: form.system_identifier, files, wal_ranges })
    }

    /// Compares a backup in plain form with its manifest: what is not as the manifest says, by path. What a server or its administrator
    /// adds after the backup is passed over, as pg_verifybackup does, and so is the WAL.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn verify(&self, backup: &Path) -> io::Result<Vec<Difference>> {
        let mut comparison = Comparison::new(self);
        comparison.directory(backup, &AtomicBool::new(false))?;
        Ok(comparison.finish())
    }
}

/// The comparison of files, as they come, with a manifest.
pub struct Comparison<'m> {
    left: BTreeMap<&'m [u8], &'m Entry>,
    found: Vec<Difference>,
    /// Files that have been compared.
    pub files: u64,
}

impl<'m> Comparison<'m> {
    /// Nothing has come yet.
    pub fn new(manifest: &'m Manifest) -> Comparison<'m> {
        let entries = manifest.files.iter().filter(|(path, _)| !is_passed_over(path));
        let left = entries.map(|(path, entry)| (path.as_slice(), entry)).collect();
        Comparison { left, found: Vec::new(), files: 0 }
    }

    /// Compares a file: its path in the backup, its size, its bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(&mut self, path: &[u8], size: u64, content: impl Read) -> io::Result<()> {
        let what = self.expected(path, size).map(|checksum| checksum.compare(content)).transpose()?.flatten();
        self.differs(path, what);
        Ok(())
    }

    /// Compares the files of a backup in plain form, with as many threads as there are processors.
    ///
    /// # Errors
    /// A directory cannot be read, or `stop` is set ([`io::ErrorKind::Interrupted`]).
    pub fn directory(&mut self, backup: &Path, stop: &AtomicBool) -> io::Result<()> {
        let mut files = Vec::new();
        list(backup, &PathBuf::new(), &mut files)?;
        let sized = |(path, size): (PathBuf, u64)| Some((self.expected(path.as_os_str().as_encoded_bytes(), size)?, path));
        let checksums: Vec<(&Checksum, PathBuf)> = files.into_iter().filter_map(sized).collect();
        let compare = |(checksum, path): (&Checksum, PathBuf)| {
            if stop.load(Ordering::Relaxed) {
                return (path, None);
            }
            let opened = File::open(backup.join(&path)).and_then(|file| checksum.compare(file));
            (path, opened.unwrap_or_else(|e| Some(What::Unreadable(e.to_string()))))
        };
        let compared: Vec<(PathBuf, Option<What>)> = checksums.into_par_iter().map(compare).collect();
        compared.into_iter().for_each(|(path, what)| self.differs(path.as_os_str().as_encoded_bytes(), what));
        if stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// The checksum that a file must have; `None`: it does not count, or need not be read to say what there is to say.
    fn expected(&mut self, path: &[u8], size: u64) -> Option<&'m Checksum> {
        if is_passed_over(path) {
            return None;
        }
        self.files += 1;
        match self.left.remove(path) {
            None => self.differs(path, Some(What::Unknown)),
            Some(entry) if size != entry.size => self.differs(path, Some(What::Size { expected: entry.size, found: size })),
            Some(entry) => return entry.checksum.as_ref(),
        }
        None
    }

    fn differs(&mut self, path: &[u8], what: Option<What>) {
        let path = || String::from_utf8_lossy(path).into_owned();
        self.found.extend(what.map(|what| Difference { path: path(), what }));
    }

    /// All files have come: what is not as the manifest says, by path.
    pub fn finish(mut self) -> Vec<Difference> {
        for path in std::mem::take(&mut self.left).into_keys() {
            self.differs(path, Some(What::Missing));
        }
        self.found.sort_by(|a, b| a.path.cmp(&b.path));
        self.found
    }
}

impl FormFile {
    fn read(self) -> Result<(Vec<u8>, Entry), ManifestError> {
        let path = match (self.path, self.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(digits)) => match unhex(&digits) {
                Some(path) => path,
                None => return Err(ManifestError::Field { path: digits.clone(), field: "Encoded-Path", found: digits }),
            },
            (path, encoded) => {
                let found = path.or(encoded).unwrap_or_default();
                return Err(ManifestError::Field { path: found.clone(), field: "Path or Encoded-Path", found });
            }
        };
        let name = || String::from_utf8_lossy(&path).into_owned();
        let is_inside = |path: &[u8]| path.split(|&byte| byte == b'/').all(|part| !part.is_empty() && part != b".." && part != b".");
        if !is_inside(&path) {
            return Err(ManifestError::Field { path: name(), field: "Path", found: name() });
        }
        let checksum = match (self.algorithm, self.checksum) {
            (None, None) => None,
            (Some(algorithm), Some(digits)) => {
                let known = Algorithm::by_name(&algorithm);
                let known = known.ok_or_else(|| ManifestError::Field { path: name(), field: "Checksum-Algorithm", found: algorithm })?;
                let value = unhex(&digits).ok_or_else(|| ManifestError::Field { path: name(), field: "Checksum", found: digits })?;
                Some(Checksum { algorithm: known, value })
            }
            (Some(algorithm), None) => {
                return Err(ManifestError::Field { path: name(), field: "Checksum", found: format!("missing, of {algorithm}") });
            }
            (None, Some(digits)) => {
                return Err(ManifestError::Field { path: name(), field: "Checksum-Algorithm", found: format!("missing, of {digits}") });
            }
        };
        Ok((path, Entry { size: self.size, checksum }))
    }
}

/// A file that is not as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path in the backup.
    pub path: String,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with a file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is not there.
    Missing,
    /// The manifest does not have it.
    Unknown,
    /// It has not so many bytes.
    Size {
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// Its bytes are others.
    Checksum {
        /// By the manifest, as hexadecimal digits.
        expected: String,
        /// What its bytes come to.
        found: String,
    },
    /// It cannot be read.
    Unreadable(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.what {
            What::Missing => write!(f, "\"{path}\" is in the manifest and not in the backup"),
            What::Unknown => write!(f, "\"{path}\" is in the backup and not in the manifest"),
            What::Size { expected, found } => write!(f, "\"{path}\" has {found} bytes: expected {expected}"),
            What::Checksum { expected, found } => write!(f, "\"{path}\" has been changed: its bytes come to {found}, expected {expected}"),
            What::Unreadable(why) => write!(f, "\"{path}\" cannot be read: {why}"),
        }
    }
}

/// Whether what a manifest says of a file does not count.
fn is_passed_over(path: &[u8]) -> bool {
    let first = path.split(|&byte| byte == b'/').next().unwrap_or_default();
    PASSED_OVER.iter().any(|name| name.as_bytes() == first)
}

/// What may be there or not, and be as it likes, at the top of a backup.
const PASSED_OVER: [&str; 5] = [FILE_NAME, "pg_wal", "postgresql.auto.conf", "recovery.signal", "standby.signal"];

/// Files below `dir` that count, by their path in the backup, with their sizes.
fn list(backup: &Path, dir: &Path, found: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(backup.join(dir))? {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        if is_passed_over(path.as_os_str().as_encoded_bytes()) {
            continue;
        }
        // A tablespace is a link to a directory.
        let metadata = fs::metadata(entry.path())?;
        if metadata.is_dir() {
            list(backup, &path, found)?;
        } else {
            found.push((path, metadata.len()));
        }
    }
    Ok(())
}

impl Checksum {
    /// What is wrong with a file of these bytes.
    fn compare(&self, content: impl Read) -> io::Result<Option<What>> {
        let value = self.algorithm.of(content)?;
        Ok((value != self.value).then(|| What::Checksum { expected: hex(&self.value), found: hex(&value) }))
    }
}

impl Algorithm {
    /// The checksum of all bytes that come.
    fn of(self, content: impl Read) -> io::Result<Vec<u8>> {
        match self {
            Algorithm::Crc32c => {
                let mut crc = 0;
                each_chunk(content, |bytes| crc = crc32c::crc32c_append(crc, bytes))?;
                Ok(crc.to_le_bytes().to_vec())
            }
            Algorithm::Sha224 => digest::<sha2::Sha224>(content),
            Algorithm::Sha256 => digest::<sha2::Sha256>(content),
            Algorithm::Sha384 => digest::<sha2::Sha384>(content),
            Algorithm::Sha512 => digest::<sha2::Sha512>(content),
        }
    }
}

fn digest<D: Digest>(content: impl Read) -> io::Result<Vec<u8>> {
    let mut hasher = D::new();
    each_chunk(content, |bytes| hasher.update(bytes))?;
    Ok(hasher.finalize().to_vec())
}

/// Gives `take` all bytes that come.
fn each_chunk(mut content: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; super::BUFFER];
    loop {
        match content.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => take(chunk.get(..len).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        u8::try_from(high? << 4 | low?).ok()
    };
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgwal_testkit::server::Postgres;

    /// A backup that pg_basebackup made.
    fn backup(checksums: &str) -> Option<(tempfile::TempDir, PathBuf, Postgres)> {
        let postgres = Postgres::find_or_skip(Some(15), "manifest")?;
        let server = postgres.start(&[], "max_wal_senders = 4\nwal_level = replica").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let backup = server.dir().join("backup");
        let target = backup.to_str().unwrap().to_owned();
        server.client("pg_basebackup", ["-D", &target, "-c", "fast", "--manifest-checksums", checksums]).unwrap();
        let copy = dir.path().join("backup");
        assert!(std::process::Command::new("cp").arg("-a").args([&backup, &copy]).status().unwrap().success());
        Some((dir, copy, postgres))
    }

    #[test]
    fn a_backup_of_pg_basebackup_is_as_its_manifest_says_and_every_change_is_found() {
        for checksums in ["CRC32C", "SHA224", "SHA256", "SHA384", "SHA512", "NONE"] {
            let Some((_dir, backup, _)) = backup(checksums) else { return };
            let text = fs::read(backup.join(FILE_NAME)).unwrap();
            let manifest = Manifest::parse(&text).unwrap();
            assert!(manifest.files.len() > 900 && manifest.wal_ranges.len() == 1, "{}", manifest.files.len());
            assert_eq!(manifest.verify(&backup).unwrap(), [], "{checksums}");
            if checksums != "CRC32C" {
                continue;
            }
            fs::write(backup.join("standby.signal"), "").unwrap();
            fs::write(backup.join("base/new"), "").unwrap();
            fs::remove_file(backup.join("PG_VERSION")).unwrap();
            let mut conf = fs::read(backup.join("postgresql.conf")).unwrap();
            conf[10] ^= 1;
            fs::write(backup.join("postgresql.conf"), &conf).unwrap();
            fs::write(backup.join("pg_ident.conf"), "short").unwrap();
            let differences = manifest.verify(&backup).unwrap();
            let found: Vec<String> = differences.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), 4, "{found:?}");
            assert_eq!(found[0], "\"PG_VERSION\" is in the manifest and not in the backup");
            assert_eq!(found[1], "\"base/new\" is in the backup and not in the manifest");
            assert!(found[2].starts_with("\"pg_ident.conf\" has 5 bytes: expected "), "{}", found[2]);
            assert!(found[3].starts_with("\"postgresql.conf\" has been changed: its bytes come to "), "{}", found[3]);
        }
    }

    /// A small manifest with the right checksum behind `head`.
    fn sealed(head: &str) -> Vec<u8> {
        let checksum = hex(&sha2::Sha256::digest(head));
        format!("{head}\"Manifest-Checksum\": \"{checksum}\"}}\n").into_bytes()
    }

    #[test]
    fn manifests_of_both_versions_are_read_and_wrong_ones_refused() {
        let head = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7711197769568478309,\n\"Files\": [\n\
                    { \"Encoded-Path\": \"62617365ff\", \"Size\": 3, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\" }\n],\n\
                    \"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n";
        let manifest = Manifest::parse(&sealed(head)).unwrap();
        assert_eq!((manifest.version, manifest.system_identifier), (2, Some(7_711_197_769_568_478_309)));
        assert_eq!(manifest.files.keys().next().unwrap().as_slice(), b"base\xFF");
        assert_eq!(manifest.wal_ranges, [WalRange { timeline: TimelineId(1), start: Lsn(0x200_0028), end: Lsn(0x200_0100) }]);

        let mut changed = sealed(head);
        let at = changed.windows(4).position(|bytes| bytes == b"2028" || bytes == b"0028").unwrap();
        changed[at] = b'9';
        assert!(matches!(Manifest::parse(&changed), Err(ManifestError::Checksum { .. })));
        for (from, to, expected) in [
            ("Version\": 2", "Version\": 3", "the manifest is of version 3: expected 1 or 2"),
            ("62617365ff", "2e2e2f78", "the manifest says of \"../x\": Path is \"../x\""),
            ("62617365ff", "6z", "the manifest says of \"6z\": Encoded-Path is \"6z\""),
            ("0/2000028", "zero", "the manifest says of \"WAL-Ranges\": Start-LSN is \"zero\""),
            ("\"Size\": 3", "\"Size\": 3, \"Checksum-Algorithm\": \"MD5\", \"Checksum\": \"00\"", "Checksum-Algorithm is \"MD5\""),
            ("\"Size\"", "\"Weight\"", "the manifest is not one: unknown field `Weight`"),
        ] {
            let error = Manifest::parse(&sealed(&head.replace(from, to))).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
