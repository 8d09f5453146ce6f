//! What can be wrong with a backup.

use std::fmt;
use std::io;
use std::path::PathBuf;

use pgwal::TimelineId;
use pgwal::datadir::ControlError;

use super::super::incremental::IncrementalError;

/// Something in a backup that is not as its manifest says.
#[derive(Debug)]
pub struct Problem {
    /// The file's path in the backup; of WAL, where it was looked for.
    pub path: PathBuf,
    /// Name of the archive that the file was found in; `None`: it lies in a directory, or was not found.
    pub archive: Option<String>,
    /// What is wrong.
    pub what: What,
}

/// What is wrong with a file of a backup.
#[derive(Debug)]
#[non_exhaustive]
pub enum What {
    /// The manifest lists it, and it is not there.
    Missing,
    /// It is there, and the manifest does not list it.
    Unknown,
    /// It has another size.
    Size {
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// So many bytes came when it was read, though its size was right.
    Read {
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// Its bytes have changed.
    Checksum {
        /// Checksum by the manifest, as hexadecimal digits.
        expected: String,
        /// Checksum of its bytes.
        found: String,
    },
    /// The manifest has a checksum for it that is too long or too short.
    ChecksumLength {
        /// Bytes that the algorithm gives.
        expected: usize,
        /// Bytes in the manifest.
        found: usize,
    },
    /// It is neither a file nor a directory; in the directory of a backup in tar form, no file.
    NotRegular {
        /// Directories are not expected either.
        in_tar_form: bool,
    },
    /// It does not belong into the directory of a backup in tar form.
    NotAnArchive,
    /// The operating system does not let it be read.
    Unreadable {
        /// What was to be done: `open file`, `open directory`, `stat file or directory`, `read file`.
        doing: &'static str,
        /// Why it could not be done.
        error: io::Error,
    },
    /// A link that leads out of the backup, and is not that of a tablespace.
    LeadsOut,
    /// A directory that a link below it leads to: it would be read for ever.
    Loop,
    /// pg_control does not say which cluster this is.
    Control(ControlError),
    /// The manifest is that of another cluster.
    SystemIdentifier {
        /// In the manifest; `None`: it has none.
        manifest: Option<u64>,
        /// In pg_control.
        control: u64,
    },
    /// Its header is not that of a file with changed blocks only, as its name says.
    Incremental(IncrementalError),
    /// WAL that the backup needs is missing or damaged.
    Wal {
        /// Timeline of the WAL.
        timeline: TimelineId,
        /// What is wrong with it.
        problem: String,
    },
}

impl What {
    /// Whether it makes no sense to look at anything else: the backup and the manifest do not belong together.
    pub fn is_final(&self) -> bool {
        matches!(self, What::Control(_) | What::SystemIdentifier { .. })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, archive, what } = self;
        if let What::Wal { problem, .. } = what {
            return write!(f, "the WAL that the backup needs is missing or damaged: {problem}");
        }
        write!(f, "\"{}\"", path.display())?;
        if let Some(archive) = archive {
            write!(f, " in archive \"{archive}\"")?;
        }
        match what {
            What::Missing => f.write_str(" is in the manifest but not in the backup"),
            What::Unknown => f.write_str(" is in the backup but not in the manifest"),
            What::Size { expected, found } => write!(f, " has {found} bytes: expected {expected}"),
            What::Read { expected, found } => write!(f, " has {expected} bytes, but {found} could be read"),
            What::Checksum { expected, found } => write!(f, " has been changed: its checksum is {found}, expected {expected}"),
            What::ChecksumLength { expected, found } => write!(f, " has a checksum of {found} bytes in the manifest: expected {expected}"),
            What::NotRegular { in_tar_form: false } => f.write_str(" is neither a regular file nor a directory"),
            What::NotRegular { in_tar_form: true } => f.write_str(" is not a regular file, as everything in a backup in tar format is"),
            What::NotAnArchive => f.write_str(" is not an archive of a backup in tar format"),
            What::Unreadable { doing, error } => write!(f, ": could not {doing}: {error}"),
            What::LeadsOut => f.write_str(" is a link that leads out of the backup"),
            What::Loop => f.write_str(" contains a link to itself"),
            What::Control(error) => write!(f, ": {error}"),
            What::Incremental(error) => write!(f, " is damaged: {error}"),
            What::SystemIdentifier { manifest: Some(manifest), control } => {
                write!(f, " has system identifier {control}, but the manifest has {manifest}: it is that of another cluster")
            }
            What::SystemIdentifier { manifest: None, control } => {
                write!(f, " has system identifier {control}, but the manifest has none, as one of version 2 must")
            }
            What::Wal { .. } => Ok(()),
        }
    }
}

/// The problems of a backup: how many, and the first of them.
#[derive(Debug, Default)]
pub struct Problems {
    /// The first ones, in the order in which they were found.
    pub first: Vec<Problem>,
    /// How many there are in all.
    pub count: u64,
}

/// So many are kept.
const KEPT: usize = 20;

impl Problems {
    pub(super) fn add(&mut self, problem: Problem) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(problem);
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the backup is not as its manifest says:")?;
        self.first.iter().try_for_each(|problem| write!(f, "\n  {problem}"))?;
        match self.count.saturating_sub(self.first.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
