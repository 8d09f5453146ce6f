//! Telling a segment that is still being copied from one that is damaged.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::finding::{Class, Finding, Problem};
use crate::error::ErrorKind;
use crate::record::RECORD_HEADER_SIZE;
use crate::source::{Archive, ArchiveFile, nanoseconds};

/// Whoever copies a file writes to it now and then.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// Neighbours that are this much older were copied before.
const OLDER: Duration = Duration::from_secs(60);
/// Files of one segment that are looked at.
const MOST_FILES: usize = 16;
/// Whoever copies writes a multiple of this, and leaves as many zeroes at least where the file got its size before its content.
const BLOCK: u64 = 4096;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 18;

/// Whether a finding is that a segment ends with zeroes because somebody is still copying it: it was written to a short time ago, long
/// after the segments around it, and all of it up to a block's border is right, with nothing but zeroes after that.
///
/// Nobody copies into the `pg_wal` of a data directory: what is missing there is lost.
pub fn is_being_copied(archive: &Archive, finding: &Finding) -> bool {
    let name = match (&finding.class, finding.segment) {
        (Class::TornPage { .. } | Class::ZeroedPage | Class::ZeroedTail | Class::Corrupted, Some(name)) => name,
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
    let path = Path::new(&*file.input);
    is_recent
        && has_neighbours
        && neighbours.all(|other| modified(other).is_some_and(|other| own.saturating_sub(other) > older))
        && !is_in_data_directory(path)
        && ends_in_mid_copy(path, finding)
}

fn is_in_data_directory(path: &Path) -> bool {
    path.parent().and_then(Path::parent).is_some_and(|dir| ["global/pg_control", "PG_VERSION"].iter().any(|file| dir.join(file).exists()))
}

/// Whether all of the file is right up to the border of a block, and nothing but zeroes follows: `finding` is about the first record or page
/// that reaches beyond the border.
fn ends_in_mid_copy(path: &Path, finding: &Finding) -> bool {
    let read = || {
        let mut file = File::open(path)?;
        let end = end_of_content(&mut file)?;
        let border = end.next_multiple_of(BLOCK);
        let Some(damage) = finding.offsets.as_ref().map(|offsets| offsets.start).filter(|_| border > 0) else { return Ok(false) };
        if file.metadata()?.len() < border + BLOCK {
            return Ok(false);
        }
        if damage >= border {
            return Ok(damage == border);
        }
        // A record that has begun, and is as long as it can be where it goes on after the border. A page header is there, or it is not.
        let is_cut = matches!(finding.problem, Some(Problem::Format(ErrorKind::Crc { .. })));
        let mut length = [0; 4];
        file.seek(SeekFrom::Start(damage))?;
        file.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        std::io::Result::Ok(is_cut && length >= RECORD_HEADER_SIZE as u64 && damage + length > border)
    };
    read().unwrap_or(false)
}

/// The offset after the last byte that is not zero.
fn end_of_content(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut buffer = vec![0; PIECE];
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        let piece = buffer.get_mut(..usize::try_from(end - start).unwrap_or(PIECE)).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
