//! Telling a segment that is still being copied from one that is damaged.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::finding::{Class, Finding};
use crate::source::{Archive, ArchiveFile, nanoseconds};

/// Whoever copies a file writes to it now and then.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// Neighbours that are this much older were copied before.
const OLDER: Duration = Duration::from_secs(60);
/// Files of one segment that are looked at.
const MOST_FILES: usize = 16;
/// Zeroes that a copy leaves at least, where the file got its size before its content.
const BLOCK: u64 = 4096;

/// Whether a finding is that a segment ends with zeroes because somebody is still copying it: it was written to a short time ago, long
/// after the segments around it.
pub fn is_being_copied(archive: &Archive, finding: &Finding) -> bool {
    let name = match (&finding.class, &finding.offsets, finding.segment) {
        (Class::TornPage { .. } | Class::ZeroedPage | Class::ZeroedTail | Class::Corrupted, Some(_), Some(name)) => name,
        _ => return false,
    };
    let (before, files, after) = archive.of_segment(name);
    let Some(file) = files.iter().take(MOST_FILES).find(|file| *file.input == *finding.input) else { return false };
    let modified = |file: &ArchiveFile| file.stamp.map(|stamp| stamp.modified);
    let (Some(own), Ok(recent), Ok(older)) = (modified(file), i64::try_from(RECENT.as_nanos()), i64::try_from(OLDER.as_nanos())) else {
        return false;
    };
    let is_recent = nanoseconds(SystemTime::now()).saturating_sub(own) < recent;
    let mut neighbours = before.into_iter().chain(after).peekable();
    let has_neighbours = neighbours.peek().is_some();
    is_recent
        && has_neighbours
        && neighbours.all(|other| modified(other).is_some_and(|other| own.saturating_sub(other) > older))
        && finding.offsets.as_ref().is_some_and(|offsets| ends_with_zeroes(Path::new(&*file.input), offsets.end))
}

/// Whether a file ends with zeroes, and damage that goes to `end` reaches into them.
fn ends_with_zeroes(path: &Path, end: u64) -> bool {
    let read = || {
        let mut file = File::open(path)?;
        let len = file.seek(SeekFrom::End(0))?;
        let from = len.saturating_sub(BLOCK);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.take(BLOCK).read_to_end(&mut tail)?;
        std::io::Result::Ok(end > from && tail.len() as u64 == BLOCK && tail.iter().all(|&byte| byte == 0))
    };
    read().unwrap_or(false)
}
