//! The fixtures: WAL of real servers with the output of the real pg_waldump.

use std::fs;
use std::path::{Path, PathBuf};

use pgwal::{Decoder, Record, SegmentName};

/// One folder `fixtures/vNN/<scenario>` or `fixtures/odd/vNN/<scenario>`.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Major version of the server that wrote it.
    pub major: u8,
    /// Name of the scenario.
    pub scenario: String,
    /// The folder.
    pub dir: PathBuf,
}

impl Fixture {
    /// The whole segments, in the order of their names; some are compressed with Zstandard.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = list(&self.dir);
        paths.retain(|path| name(path).trim_end_matches(".zst").parse::<SegmentName>().is_ok());
        paths
    }

    /// The segments that one run of a reader takes, one list for each timeline: bytes, unpacked.
    ///
    /// # Panics
    /// A segment cannot be read.
    pub fn timelines(&self) -> Vec<Vec<Vec<u8>>> {
        let mut timelines: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
        for path in self.segments() {
            let timeline = name(&path)[..8].to_owned();
            let bytes = unpacked(&path);
            match timelines.last_mut() {
                Some((last, segments)) if *last == timeline => segments.push(bytes),
                _ => timelines.push((timeline, vec![bytes])),
            }
        }
        timelines.into_iter().map(|(_, segments)| segments).collect()
    }

    /// Calls `visit` with every record.
    ///
    /// # Panics
    /// A record's framing is wrong: no fixture has one like that.
    pub fn each_record(&self, mut visit: impl FnMut(&Record<'_>)) {
        for segments in self.timelines() {
            let mut decoder = Decoder::new();
            for segment in segments {
                decoder.feed(&segment);
                while let Some(raw) = decoder.next_record().unwrap_or_else(|e| panic!("{}: {e}", self.dir.display())) {
                    visit(&raw.decode().unwrap_or_else(|e| panic!("{}: {e}", self.dir.display())));
                }
            }
        }
    }

    /// A copy of the folder with its segments unpacked, as the real pg_waldump read them.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn unpacked(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for path in list(&self.dir) {
            if path.is_file() {
                let file = name(&path);
                fs::write(dir.path().join(file.trim_end_matches(".zst")), unpacked(&path)).expect("room for a segment");
            }
        }
        dir
    }

    /// Contents of a file in the folder, where it is there.
    pub fn read(&self, file: &str) -> Option<Vec<u8>> {
        fs::read(self.dir.join(file)).ok()
    }
}

/// Where the fixtures are: `PGWAL_FIXTURES`, or the folder at the top of the repository.
pub fn root() -> PathBuf {
    match std::env::var_os("PGWAL_FIXTURES") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures"),
    }
}

/// Every fixture of a server as it is usually built, by major and scenario: what an installed pg_waldump of its major can read.
///
/// # Panics
/// There are none: a test over nothing would pass without having looked.
pub fn all() -> Vec<Fixture> {
    below(&root())
}

/// The fixtures of servers that are built with other sizes of blocks and WAL pages.
///
/// # Panics
/// As [`all`].
pub fn odd() -> Vec<Fixture> {
    below(&root().join("odd"))
}

/// [`all`] and [`odd`].
///
/// # Panics
/// As [`all`].
pub fn with_odd() -> Vec<Fixture> {
    [all(), odd()].concat()
}

/// The fixtures in the folders of majors in `top`.
fn below(top: &Path) -> Vec<Fixture> {
    let mut found = Vec::new();
    for dir in list(top) {
        let Some(major) = name(&dir).strip_prefix('v').and_then(|digits| digits.parse().ok()) else { continue };
        for dir in list(&dir) {
            let fixture = Fixture { major, scenario: name(&dir), dir };
            if !fixture.segments().is_empty() {
                found.push(fixture);
            }
        }
    }
    assert!(!found.is_empty(), "no fixtures in {}", top.display());
    found
}

/// Contents of a file, decompressed where its name says so.
fn unpacked(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_some_and(|suffix| suffix == "zst") {
        return zstd::stream::decode_all(&bytes[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    bytes
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
