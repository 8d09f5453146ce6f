//! `--save-fullpage`: every page image of the chosen records, restored, in a file of its own.
//!
//! The names and rules are pg_waldump's. The page is written as the image has it: its LSN is the one that it had before the
//! record, and checksums may not match.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pgwal::output_file::OutputFile;
use pgwal::record::BlockRef;
use pgwal::{ErrorKind, Lsn, Record, TimelineId};

/// A directory that page images are saved to.
#[derive(Debug)]
pub struct FullPages {
    dir: PathBuf,
    page: Vec<u8>,
}

/// Why a page image could not be saved.
#[derive(Debug)]
pub enum FullPageError {
    /// The directory could not be looked at.
    Access(PathBuf, io::Error),
    /// The directory is there and has files.
    NotEmpty(PathBuf),
    /// The directory could not be created.
    Create(PathBuf, io::Error),
    /// The image does not restore to a page.
    Restore {
        /// Block reference of the image.
        block: u8,
        /// Record that has it.
        record: Lsn,
        /// What is wrong with the image.
        kind: ErrorKind,
    },
    /// The block reference has a fork without a name.
    Fork(u8),
    /// The file could not be opened.
    Open(PathBuf, io::Error),
    /// The file could not be written.
    Write(PathBuf, io::Error),
}

impl fmt::Display for FullPageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FullPageError::Access(dir, e) => write!(f, "could not access directory \"{}\": {}", dir.display(), Errno(e)),
            FullPageError::NotEmpty(dir) => write!(f, "directory \"{}\" exists but is not empty", dir.display()),
            FullPageError::Create(dir, e) => write!(f, "could not create directory \"{}\": {}", dir.display(), Errno(e)),
            FullPageError::Restore { block, record, kind } => {
                write!(f, "could not restore the page image of block {block} of the record at {record}: {kind}")
            }
            FullPageError::Fork(fork) => write!(f, "invalid fork number: {fork}"),
            FullPageError::Open(path, e) => write!(f, "could not open file \"{}\": {}", path.display(), Errno(e)),
            FullPageError::Write(path, e) => write!(f, "could not write file \"{}\": {}", path.display(), Errno(e)),
        }
    }
}

impl std::error::Error for FullPageError {}

impl FullPages {
    /// Takes `dir`, which must be empty, or not there: then it is created.
    ///
    /// # Errors
    /// It is not empty, or cannot be looked at or created.
    pub fn create(dir: &Path) -> Result<FullPages, FullPageError> {
        match fs::read_dir(dir) {
            Ok(mut entries) => match entries.next() {
                None => {}
                Some(Ok(_)) => return Err(FullPageError::NotEmpty(dir.to_owned())),
                Some(Err(e)) => return Err(FullPageError::Access(dir.to_owned(), e)),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create_private_dir(dir).map_err(|e| FullPageError::Create(dir.to_owned(), e))?;
            }
            Err(e) => return Err(FullPageError::Access(dir.to_owned(), e)),
        }
        Ok(FullPages { dir: dir.to_owned(), page: Vec::new() })
    }

    /// Saves the page images of `record`. `timeline` is the one that is being read; file names begin with it.
    ///
    /// # Errors
    /// An image does not restore, or a file cannot be written.
    pub fn save(&mut self, record: &Record<'_>, timeline: TimelineId) -> Result<(), FullPageError> {
        for block in &record.blocks {
            let Some(image) = &block.image else { continue };
            let lsn = record.raw.lsn;
            let failed = |kind| FullPageError::Restore { block: block.id, record: lsn, kind };
            image.restore(record.fmt(), &mut self.page).map_err(failed)?;
            let path = self.dir.join(file_name(block, lsn, timeline)?);
            let mut file = OutputFile::create(&path).map_err(|e| FullPageError::Open(path.clone(), e))?;
            file.write_all(&self.page).and_then(|()| file.commit_without_sync()).map_err(|e| FullPageError::Write(path, e))?;
        }
        Ok(())
    }
}

/// Timeline, LSN of the record, tablespace, database, relation, block, fork.
fn file_name(block: &BlockRef<'_>, lsn: Lsn, timeline: TimelineId) -> Result<String, FullPageError> {
    let fork = block.fork.name().ok_or(FullPageError::Fork(block.fork.0))?;
    let rel = block.rel;
    let (timeline, high, low) = (timeline.0, lsn.high(), lsn.low());
    Ok(format!("{timeline:08X}-{high:08X}-{low:08X}.{}.{}.{}.{}_{fork}", rel.spc.0, rel.db.0, rel.rel.0, block.block.0))
}

/// Like a data directory: for its owner alone. Parents that are missing get the usual rights.
fn create_private_dir(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// The text of an operating system error as C's `strerror` gives it, without the number that Rust appends.
pub struct Errno<'e>(pub &'e io::Error);

impl fmt::Display for Errno<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match self.0.raw_os_error().and_then(|code| text.strip_suffix(&format!(" (os error {code})"))) {
            Some(text) => f.write_str(text),
            None => f.write_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::File;

    #[test]
    fn operating_system_errors_read_as_in_c() {
        let error = File::open("/nowhere/at/all").unwrap_err();
        assert_eq!(Errno(&error).to_string(), "No such file or directory");
        assert_eq!(Errno(&io::Error::other("made up")).to_string(), "made up");
    }

    #[test]
    fn directories_are_created_or_must_be_empty() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b");
        FullPages::create(&dir).unwrap();
        FullPages::create(&dir).unwrap();
        let full = FullPages::create(top.path()).unwrap_err();
        assert!(matches!(full, FullPageError::NotEmpty(_)), "{full}");
        let file = top.path().join("file");
        fs::write(&file, "").unwrap();
        let not_a_directory = FullPages::create(&file).unwrap_err();
        assert!(not_a_directory.to_string().ends_with("\": Not a directory"), "{not_a_directory}");
    }
}
