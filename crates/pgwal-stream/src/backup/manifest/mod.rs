//! Backup manifests: what a base backup contains. C: backup/backup_manifest.c, common/parse_manifest.c. From 13 on.
//!
//! A manifest is read token by token and kept compactly, so that it takes about as much memory as its text is long.

mod json;
mod numbers;
mod parse;
mod seal;

use std::fmt;
use std::io::{self, Read};

use pgwal::{Lsn, TimelineId};
use sha2::Digest;

pub use json::JsonError;

/// The manifest's own name in a backup.
pub const FILE_NAME: &str = "backup_manifest";

/// What a backup contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Version of the form: 1, or 2 from 17 on.
    pub version: u32,
    /// Cluster that the backup is of; from version 2 on. A manifest of version 2 without it does not match any cluster.
    pub system_identifier: Option<u64>,
    /// The files.
    pub files: Files,
    /// WAL that restoring the backup takes.
    pub wal_ranges: Vec<WalRange>,
}

/// The files of a manifest, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Of each file its size, the algorithm, and checksum and path with their lengths.
    bytes: Vec<u8>,
    /// Where each file starts in `bytes`.
    starts: Vec<u32>,
}

/// A file of a backup, as the manifest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'m> {
    /// Its path in the backup.
    pub path: &'m [u8],
    /// Its bytes.
    pub size: u64,
    /// Its checksum; `None`: the backup was made without.
    pub checksum: Option<Checksum<'m>>,
}

/// A file's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum<'m> {
    /// How it is computed.
    pub algorithm: Algorithm,
    /// Its bytes, which need not be as many as the algorithm gives.
    pub value: &'m [u8],
}

impl Files {
    /// How many files there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// All files, by path.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.starts.iter().map(|&start| self.at(start))
    }

    /// A file by its place in that order.
    pub fn get(&self, index: usize) -> Option<Entry<'_>> {
        self.starts.get(index).map(|&start| self.at(start))
    }

    /// The place of a file in that order.
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.starts.binary_search_by(|&start| self.at(start).path.cmp(path)).ok()
    }

    /// Adds a file, which is sorted in later; `false`: there is no room for more.
    fn add(&mut self, path: &[u8], size: u64, algorithm: Option<Algorithm>, checksum: &[u8]) -> bool {
        let Ok(start) = u32::try_from(self.bytes.len()) else { return false };
        self.starts.push(start);
        self.bytes.extend_from_slice(&size.to_le_bytes());
        self.bytes.push(algorithm.map_or(0, |algorithm| algorithm as u8));
        for part in [checksum, path] {
            // No token has more bytes.
            self.bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(part);
        }
        true
    }

    /// Sorts by path; a path that is there twice is an error.
    fn sort(&mut self) -> Result<(), ManifestError> {
        let mut starts = std::mem::take(&mut self.starts);
        starts.sort_unstable_by(|&a, &b| self.at(a).path.cmp(self.at(b).path).then(a.cmp(&b)));
        let twice = starts.windows(2).filter_map(|pair| match *pair {
            [a, b] if self.at(a).path == self.at(b).path => Some(b),
            _ => None,
        });
        // The first one that comes again.
        let twice = twice.min().map(|start| self.at(start).path);
        if let Some(path) = twice {
            return Err(ManifestError::Twice { path: lossy(path) });
        }
        self.starts = starts;
        Ok(())
    }

    /// What `add` put at `start`.
    fn at(&self, start: u32) -> Entry<'_> {
        let read = || {
            let (size, rest) = self.bytes.get(start as usize..)?.split_first_chunk()?;
            let (&[algorithm], rest) = rest.split_first_chunk()?;
            let (checksum_len, rest) = rest.split_first_chunk()?;
            let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*checksum_len) as usize)?;
            let (path_len, rest) = rest.split_first_chunk()?;
            let path = rest.get(..u32::from_le_bytes(*path_len) as usize)?;
            let checksum = Algorithm::ALL.get(usize::from(algorithm).wrapping_sub(1)).map(|&algorithm| Checksum { algorithm, value });
            Some(Entry { path, size: u64::from_le_bytes(*size), checksum })
        };
        // `add` wrote all of it.
        read().unwrap_or(Entry { path: &[], size: 0, checksum: None })
    }
}

/// How a checksum is computed. C: `pg_checksum_type`, common/checksum_helper.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// CRC-32C, its bytes in little-endian order.
    Crc32c = 1,
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
    /// In the order of their numbers.
    const ALL: [Algorithm; 5] = [Algorithm::Crc32c, Algorithm::Sha224, Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];

    /// Its name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Sha224 => "SHA224",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha384 => "SHA384",
            Algorithm::Sha512 => "SHA512",
        }
    }

    /// By its name in manifests, in upper or lower case.
    pub fn by_name(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// The checksum of all bytes that come. `seen` gets the number of bytes after each read; an error of it ends the reading.
    ///
    /// # Errors
    /// Reading fails, or `seen` does.
    pub fn of(self, content: impl Read, seen: impl FnMut(usize) -> io::Result<()>) -> io::Result<Vec<u8>> {
        match self {
            Algorithm::Crc32c => {
                let mut crc = 0;
                each_chunk(content, seen, |bytes| crc = crc32c::crc32c_append(crc, bytes))?;
                Ok(crc.to_le_bytes().to_vec())
            }
            Algorithm::Sha224 => digest::<sha2::Sha224>(content, seen),
            Algorithm::Sha256 => digest::<sha2::Sha256>(content, seen),
            Algorithm::Sha384 => digest::<sha2::Sha384>(content, seen),
            Algorithm::Sha512 => digest::<sha2::Sha512>(content, seen),
        }
    }
}

fn digest<D: Digest>(content: impl Read, seen: impl FnMut(usize) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut hasher = D::new();
    each_chunk(content, seen, |bytes| hasher.update(bytes))?;
    Ok(hasher.finalize().to_vec())
}

/// Gives `take` all bytes that come.
fn each_chunk(mut content: impl Read, mut seen: impl FnMut(usize) -> io::Result<()>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; super::BUFFER];
    loop {
        match content.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                take(chunk.get(..len).unwrap_or_default());
                seen(len)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// WAL that a backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// First byte.
    pub start: Lsn,
    /// After the last byte.
    pub end: Lsn,
}

/// Why a manifest cannot be used. The texts are those of 18's pg_verifybackup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is not JSON.
    Json(JsonError),
    /// It is JSON, and not that of a manifest.
    Form(FormError),
    /// It contains a file twice.
    Twice {
        /// Its path.
        path: String,
    },
    /// A checksum is computed in an unknown way.
    Algorithm(String),
    /// A file's checksum is not made of hexadecimal digits.
    FileChecksum {
        /// The file's path.
        path: String,
        /// The checksum.
        found: String,
    },
    /// Its own checksum is not one.
    ChecksumForm(String),
    /// Its own checksum does not match what stands before it: it was changed.
    Checksum {
        /// What its bytes come to, as hexadecimal digits.
        expected: String,
        /// What it says.
        found: String,
    },
    /// Its paths and checksums have more than 4 GiB.
    TooLarge,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Json(error) => write!(f, "could not parse backup manifest: {error}"),
            ManifestError::Form(error) => write!(f, "could not parse backup manifest: {error}"),
            ManifestError::Twice { path } => write!(f, "duplicate path name in backup manifest: \"{path}\""),
            ManifestError::Algorithm(name) => write!(f, "unrecognized checksum algorithm: \"{name}\""),
            ManifestError::FileChecksum { path, found } => write!(f, "invalid checksum for file \"{path}\": \"{found}\""),
            ManifestError::ChecksumForm(found) => write!(f, "invalid manifest checksum: \"{found}\""),
            ManifestError::Checksum { expected, found } => {
                write!(f, "manifest checksum mismatch: computed {expected}, but the manifest says {found}")
            }
            ManifestError::TooLarge => f.write_str("backup manifest is too large: its paths and checksums have more than 4 GiB"),
        }
    }
}

impl std::error::Error for ManifestError {}

/// What of a manifest's form is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormError {
    /// A `{` where none may be.
    ObjectStart,
    /// A `}` where none may be: something is missing before it.
    ObjectEnd,
    /// A `[` where none may be.
    ArrayStart,
    /// Text, a number or the like where none may be.
    Scalar,
    /// The first member is not the version.
    NoVersion,
    /// The version is not a number.
    VersionNumber,
    /// The version is unknown.
    Version,
    /// An unknown member, or a known one of another version.
    TopLevelField,
    /// A member after the checksum.
    FieldAtEnd,
    /// The system identifier is not a number.
    SystemIdentifier,
    /// An unknown member of a file.
    FileField,
    /// A file without a path.
    NoPath,
    /// A file with a path and an encoded path.
    BothPaths,
    /// An encoded path is not made of hexadecimal digits.
    EncodedPath,
    /// A file without a size.
    NoSize,
    /// A size is not a number.
    Size,
    /// A file with a checksum and nothing that says how it is computed.
    NoAlgorithm,
    /// An unknown member of a range of WAL.
    WalRangeField,
    /// A range without a timeline.
    NoTimeline,
    /// A range without a start.
    NoStart,
    /// A range without an end.
    NoEnd,
    /// A timeline is not a number.
    Timeline,
    /// A start is not an LSN.
    Start,
    /// An end is not an LSN.
    End,
    /// The manifest has fewer than two lines.
    Lines,
    /// The last line does not end with a newline.
    LastLine,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FormError::ObjectStart => "unexpected object start",
            FormError::ObjectEnd => "unexpected object end",
            FormError::ArrayStart => "unexpected array start",
            FormError::Scalar => "unexpected scalar",
            FormError::NoVersion => "expected version indicator",
            FormError::VersionNumber => "manifest version not an integer",
            FormError::Version => "unexpected manifest version",
            FormError::TopLevelField => "unrecognized top-level field",
            FormError::FieldAtEnd => "unexpected object field",
            FormError::SystemIdentifier => "system identifier in manifest not an integer",
            FormError::FileField => "unexpected file field",
            FormError::NoPath => "missing path name",
            FormError::BothPaths => "both path name and encoded path name",
            FormError::EncodedPath => "could not decode file name",
            FormError::NoSize => "missing size",
            FormError::Size => "file size is not an integer",
            FormError::NoAlgorithm => "checksum without algorithm",
            FormError::WalRangeField => "unexpected WAL range field",
            FormError::NoTimeline => "missing timeline",
            FormError::NoStart => "missing start LSN",
            FormError::NoEnd => "missing end LSN",
            FormError::Timeline => "timeline is not an integer",
            FormError::Start => "could not parse start LSN",
            FormError::End => "could not parse end LSN",
            FormError::Lines => "expected at least 2 lines",
            FormError::LastLine => "last line not newline-terminated",
        })
    }
}

impl Manifest {
    /// Reads a manifest, and checks it against the checksum that it ends with.
    ///
    /// # Errors
    /// It is no manifest, or it was changed.
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        // Reading bytes does not fail; if it did, the text would end there.
        Manifest::read(text).unwrap_or(Err(ManifestError::Json(JsonError::ExpectedMore)))
    }

    /// As [`Manifest::parse`], from a file.
    ///
    /// # Errors
    /// Reading fails.
    pub fn read(input: impl Read) -> io::Result<Result<Manifest, ManifestError>> {
        parse::manifest(input)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small manifest with the right checksum after `head`.
    fn sealed(head: &str) -> Vec<u8> {
        let checksum = hex(&sha2::Sha256::digest(head));
        format!("{head}\"Manifest-Checksum\": \"{checksum}\"}}\n").into_bytes()
    }

    const HEAD: &str = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7711197769568478309,\n\"Files\": [\n\
                        { \"Path\": \"x\", \"Size\": 4, \"Checksum-Algorithm\": \"crc32c\", \"Checksum\": \"0a0b0c0d\" },\n\
                        { \"Encoded-Path\": \"62617365ff\", \"Size\": 3, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\" }\n],\n\
                        \"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n";

    #[test]
    fn manifests_of_both_versions_are_read() {
        let manifest = Manifest::parse(&sealed(HEAD)).unwrap();
        assert_eq!((manifest.version, manifest.system_identifier), (2, Some(7_711_197_769_568_478_309)));
        let checksum = Checksum { algorithm: Algorithm::Crc32c, value: &[10, 11, 12, 13] };
        let expected = [Entry { path: b"base\xFF", size: 3, checksum: None }, Entry { path: b"x", size: 4, checksum: Some(checksum) }];
        assert_eq!(manifest.files.iter().collect::<Vec<_>>(), expected);
        assert_eq!([manifest.files.find(b"x"), manifest.files.find(b"base"), manifest.files.find(b"z")], [Some(1), None, None]);
        assert_eq!(manifest.wal_ranges, [WalRange { timeline: TimelineId(1), start: Lsn(0x200_0028), end: Lsn(0x200_0100) }]);
        let empty = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [], \"WAL-Ranges\": [],\n";
        assert_eq!(Manifest::parse(&sealed(empty)), Ok(Manifest { version: 1, ..Manifest::default() }));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for (from, to, expected) in [
            ("Version\": 2", "Version\": 3", "could not parse backup manifest: unexpected manifest version"),
            ("Version\": 2", "Version\": 1", "could not parse backup manifest: unrecognized top-level field"),
            ("769568478309", "x", "could not parse backup manifest: Token \"7711197x\" is invalid."),
            ("62617365ff", "6z", "could not parse backup manifest: could not decode file name"),
            ("62617365ff", "78", "duplicate path name in backup manifest: \"x\""),
            ("0/2000028", "zero", "could not parse backup manifest: could not parse start LSN"),
            ("crc32c", "MD5", "unrecognized checksum algorithm: \"MD5\""),
            ("0a0b0c0d", "0a0b0c0", "invalid checksum for file \"x\": \"0a0b0c0\""),
            ("\"Size\": 3", "\"Weight\": 3", "could not parse backup manifest: unexpected file field"),
            ("\"Size\": 3", "\"Size\": 1e1", "could not parse backup manifest: file size is not an integer"),
            ("},\n{", "}{", "could not parse backup manifest: Expected \",\" or \"]\", but found \"{\"."),
        ] {
            assert!(HEAD.contains(from), "{from}");
            let error = Manifest::parse(&sealed(&HEAD.replace(from, to))).unwrap_err().to_string();
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn the_checksum_covers_every_byte_and_the_lines_must_be_as_written() {
        let text = sealed(HEAD);
        for at in 0..HEAD.len() {
            let mut changed = text.clone();
            changed[at] ^= 4;
            assert!(Manifest::parse(&changed).is_err(), "byte {at}");
        }
        let error = |text: &[u8]| Manifest::parse(text).unwrap_err().to_string();
        let mismatch = "manifest checksum mismatch: computed ";
        assert!(error(&[&text[..], b"\n"].concat()).starts_with(mismatch));
        assert_eq!(error(&[&text[..], b" "].concat()), "could not parse backup manifest: last line not newline-terminated");
        assert_eq!(error(&text[..text.len() - 1]), "could not parse backup manifest: last line not newline-terminated");
        let padded = String::from_utf8(text.clone()).unwrap().replace("\"Manifest-Checksum", "\n\"Manifest-Checksum");
        assert!(error(padded.as_bytes()).starts_with(mismatch));
        assert_eq!(error(&[&text[..], b"x\n"].concat()), "could not parse backup manifest: Token \"x\" is invalid.");
        assert_eq!(error(&[&text[..], b"{}\n"].concat()), "could not parse backup manifest: Expected end of input, but found \"{\".");
        assert_eq!(error(b""), "could not parse backup manifest: The input string ended unexpectedly.");
        // Blanks at its front count, and so do blanks after the checksum that leave the last line what it is.
        assert!(error(&[b" ", &text[..]].concat()).starts_with(mismatch));
        let blank = [&text[..text.len() - 1], b" \n"].concat();
        assert!(Manifest::parse(&blank).is_ok(), "the checksum does not cover the last line");
    }

    #[test]
    fn a_manifest_takes_about_as_much_memory_as_its_text() {
        // As short as entries can be, and as they usually are.
        let short = "{\"Path\":\"NNNNNN\",\"Size\":1}";
        let usual = "{ \"Path\": \"base/5/NNNNNN\", \"Size\": 8192, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \
                     \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0a0b0c0d\" }";
        for entry in [short, usual] {
            let entries: Vec<String> = (0..20_000).map(|number| entry.replace("NNNNNN", &format!("{number:06}"))).collect();
            let text = sealed(&format!("{{\"PostgreSQL-Backup-Manifest-Version\":1,\n\"Files\":[{}],\n", entries.join(",\n")));
            let Files { bytes, starts } = Manifest::parse(&text).unwrap().files;
            let kept = bytes.len() + starts.len() * size_of::<u32>();
            assert!(starts.len() == 20_000 && kept < text.len() * 5 / 4, "{kept} bytes of {}", text.len());
        }
    }
}
