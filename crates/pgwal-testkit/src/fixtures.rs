//! The fixtures: WAL of real servers with the output of the real pg_waldump.

use std::fs;
use std::path::{Path, PathBuf};

use pgwal::SegmentName;

/// One folder `fixtures/vNN/<scenario>`.
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
    /// The whole segments, in the order of their names.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = list(&self.dir);
        names.retain(|path| name(path).parse::<SegmentName>().is_ok());
        names
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

/// Every fixture, by major and scenario.
///
/// # Panics
/// There are none: a test over nothing would pass without having looked.
pub fn all() -> Vec<Fixture> {
    let mut found = Vec::new();
    for dir in list(&root()) {
        let Some(major) = name(&dir).strip_prefix('v').and_then(|digits| digits.parse().ok()) else { continue };
        for dir in list(&dir) {
            let fixture = Fixture { major, scenario: name(&dir), dir };
            if !fixture.segments().is_empty() {
                found.push(fixture);
            }
        }
    }
    assert!(!found.is_empty(), "no fixtures in {}", root().display());
    found
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
