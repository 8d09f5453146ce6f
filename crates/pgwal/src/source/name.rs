//! What the name of a file says: which segment it is, and in which form.
//!
//! Only an exact name is that of a segment. What programs and people put beside segments, under names that begin like theirs, is theirs:
//! files that are still being copied, checksums, copies that somebody kept.

use std::path::Path;

use super::kind::{Packing, Wrapping};
use crate::lsn::{SegmentName, is_upper_hex};

/// The name of a segment's file, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFileName {
    /// The segment.
    pub segment: SegmentName,
    /// `.partial`: not filled when its timeline was left, or not received to its end.
    pub is_partial: bool,
    /// What its suffix says of its form; the content decides.
    pub form: NamedForm,
}

/// The form of a file by the suffix of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedForm {
    /// No suffix.
    Plain,
    /// Compressed in a way that is read.
    Packed(Packing),
    /// Compressed or encrypted in a way that is not read.
    Wrapped(Wrapping),
}

/// Suffixes of files that are compressed: those of gzip, lz4, zstd, xz, bzip2, and of pgmoneta (`.zstd`, `.bzip2`).
const PACKINGS: &[(&str, Packing)] = &[
    ("gz", Packing::Gzip),
    ("gzip", Packing::Gzip),
    ("lz4", Packing::Lz4),
    ("zst", Packing::Zstd),
    ("zstd", Packing::Zstd),
    ("xz", Packing::Xz),
    ("bz2", Packing::Bzip2),
    ("bzip2", Packing::Bzip2),
];

/// Suffixes of files in other forms: those of WAL-G (`.br`, `.lzma`, `.lzo`), Barman (`.snappy`), pgmoneta (`.aes`), and of programs that
/// archive_command may call.
const WRAPPINGS: &[(&str, Wrapping)] = &[
    ("br", Wrapping::Brotli),
    ("lzma", Wrapping::Lzma),
    ("lzo", Wrapping::Lzop),
    ("snappy", Wrapping::Snappy),
    ("sz", Wrapping::Snappy),
    ("Z", Wrapping::Compress),
    ("zip", Wrapping::Zip),
    ("7z", Wrapping::SevenZip),
    ("gpg", Wrapping::OpenPgp),
    ("pgp", Wrapping::OpenPgp),
    ("asc", Wrapping::OpenPgp),
    ("age", Wrapping::Age),
    ("enc", Wrapping::Encrypted),
    ("aes", Wrapping::Encrypted),
];

impl SegmentFileName {
    /// Takes `name` apart: `000000010000000000000001`, and after it what servers and archivers append: `.partial`, the checksum of
    /// pgBackRest, suffixes of compression and encryption. `None`: it is not the name of a segment.
    pub fn parse(name: &str) -> Option<SegmentFileName> {
        let (digits, mut rest) = name.split_at_checked(SegmentName::LEN)?;
        let segment = digits.parse().ok()?;
        let mut is_partial = false;
        let mut form = NamedForm::Plain;
        // pgBackRest's checksum stands behind `.partial` and before the suffix of the compression, pg_receivewal's `.partial` after that.
        let mut may_have_checksum = true;
        while !rest.is_empty() {
            if let Some(checksum) = rest.strip_prefix('-').filter(|_| may_have_checksum) {
                let (checksum, behind) = checksum.split_at_checked(40)?;
                if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                (rest, may_have_checksum) = (behind, false);
                continue;
            }
            let suffix = rest.strip_prefix('.')?;
            let end = suffix.find(['.', '-']).unwrap_or(suffix.len());
            let (suffix, behind) = suffix.split_at(end); // found in it
            rest = behind;
            if suffix == "partial" && !is_partial {
                is_partial = true;
                continue;
            }
            may_have_checksum = false;
            let packing = PACKINGS.iter().find(|(known, _)| *known == suffix).map(|(_, packing)| NamedForm::Packed(*packing));
            let wrapping = WRAPPINGS.iter().find(|(known, _)| *known == suffix).map(|(_, wrapping)| NamedForm::Wrapped(*wrapping));
            // The last suffix is what the file is in now.
            form = packing.or(wrapping)?;
        }
        Some(SegmentFileName { segment, is_partial, form })
    }
}

/// The segment that a file name tells: see [`SegmentFileName::parse`]. `None` for history files, backup labels, and what stands beside
/// segments under names that begin like theirs.
pub fn segment_of_file_name(name: &str) -> Option<SegmentName> {
    SegmentFileName::parse(name).map(|name| name.segment)
}

/// Whether a name begins with that of a segment and is none, nor that of a file about segments: `.tmp`, `.bak`, `.md5`, …
pub(crate) fn is_beside_segments(name: &str) -> bool {
    // A server finds none in lower case.
    let is_segment = |digits: &str| digits.to_ascii_uppercase().parse::<SegmentName>().is_ok();
    let begins = name.split_at_checked(SegmentName::LEN).is_some_and(|(digits, _)| is_segment(digits));
    begins && segment_of_file_name(name).is_none() && !super::is_text_file_name(name)
}

/// Whether a folder of this name has the segments of one timeline and log file: their first 16 digits, as Barman and pgBackRest have it.
pub(super) fn is_folder_of_segments(name: &str) -> bool {
    name.len() == 16 && is_upper_hex(name)
}

/// Whether a file of this name belongs to an archive: a segment, a history file, a backup history file or a backup_label, or what stands
/// beside a segment under a name that begins like its.
pub fn is_wal_file_name(name: &str) -> bool {
    segment_of_file_name(name).is_some() || super::is_text_file_name(name) || is_beside_segments(name)
}

/// The name of the file that an input of a directory or archive is, without folders and without the archive.
pub fn file_of_input(input: &str) -> &str {
    input.rsplit(['/', ':']).next().unwrap_or_default()
}

/// Whether an input has the name of a segment that is compressed.
pub(crate) fn is_packed(input: &str) -> bool {
    SegmentFileName::parse(file_of_input(input)).is_some_and(|name| matches!(name.form, NamedForm::Packed(_)))
}

/// Whether an input is a `.partial` segment, which may end anywhere.
pub(crate) fn is_partial(input: &str) -> bool {
    SegmentFileName::parse(file_of_input(input)).is_some_and(|name| name.is_partial)
}

/// Whether an input without bytes has the name of a segment that is compressed as it is received: nothing has come of it yet.
pub(crate) fn is_begun(input: &str) -> bool {
    let name = SegmentFileName::parse(file_of_input(input));
    name.is_some_and(|name| name.is_partial && matches!(name.form, NamedForm::Packed(_)))
}

/// Its name, of a path.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Which of several files with the same segment is the best: whole before `.partial`, plain before compressed, and last what is not read.
pub(super) fn rank(input: &str) -> u8 {
    match SegmentFileName::parse(file_of_input(input)) {
        Some(SegmentFileName { form: NamedForm::Wrapped(_), .. }) | None => 0,
        Some(SegmentFileName { is_partial: true, .. }) => 1,
        Some(SegmentFileName { form: NamedForm::Packed(_), .. }) => 2,
        Some(SegmentFileName { form: NamedForm::Plain, .. }) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "000000010000000A000000FE";

    #[test]
    fn only_exact_names_are_those_of_segments() {
        let sum = "-0123456789abcdef0123456789abcdef01234567";
        for (suffix, is_partial, form) in [
            ("", false, NamedForm::Plain),
            (".partial", true, NamedForm::Plain),
            (".gz", false, NamedForm::Packed(Packing::Gzip)),
            (".gzip", false, NamedForm::Packed(Packing::Gzip)),
            (".gz.partial", true, NamedForm::Packed(Packing::Gzip)),
            (".partial.gz", true, NamedForm::Packed(Packing::Gzip)),
            (".lz4.partial", true, NamedForm::Packed(Packing::Lz4)),
            (".zst", false, NamedForm::Packed(Packing::Zstd)),
            (".zstd", false, NamedForm::Packed(Packing::Zstd)),
            (".xz", false, NamedForm::Packed(Packing::Xz)),
            (".bz2", false, NamedForm::Packed(Packing::Bzip2)),
            (sum, false, NamedForm::Plain),
            (&format!("{sum}.gz"), false, NamedForm::Packed(Packing::Gzip)),
            (&format!(".partial{sum}.lz4"), true, NamedForm::Packed(Packing::Lz4)),
            (".gz.gpg", false, NamedForm::Wrapped(Wrapping::OpenPgp)),
            (".age", false, NamedForm::Wrapped(Wrapping::Age)),
            (".zst.aes", false, NamedForm::Wrapped(Wrapping::Encrypted)),
            (".br", false, NamedForm::Wrapped(Wrapping::Brotli)),
        ] {
            let name = format!("{NAME}{suffix}");
            let segment = NAME.parse().unwrap();
            assert_eq!(SegmentFileName::parse(&name), Some(SegmentFileName { segment, is_partial, form }), "{name}");
            assert!(!is_beside_segments(&name) && is_wal_file_name(&name));
        }
        for suffix in [
            ".tmp",
            ".bak",
            ".old",
            ".part",
            ".md5",
            ".sha256",
            ".gz.tmp",
            ".gz.md5",
            ".tmp.gz",
            ".copy",
            ".1",
            ".",
            ".gz.",
            "..gz",
            ".GZ",
            "-",
            "-0123",
            "-0123456789abcdef0123456789abcdef0123456g",
            "~",
            ".partial.partial",
            ".00000028",
            ".gz-0123456789abcdef0123456789abcdef01234567",
            " (1)",
            ".ready",
            ".done",
            ".partial~",
            ".partial.tmp",
            ".filepart",
            ".swp",
            ".lock",
        ] {
            let name = format!("{NAME}{suffix}");
            assert_eq!(segment_of_file_name(&name), None, "{name}");
            assert!(is_beside_segments(&name) && is_wal_file_name(&name), "{name}");
        }
        for name in ["00000002.history", "000000010000000A000000FE.00000028.backup", "backup_label"] {
            assert!(segment_of_file_name(name).is_none() && !is_beside_segments(name) && is_wal_file_name(name), "{name}");
        }
        for name in ["", "README", "000000010000000A000000F", "x000000010000000A000000FE"] {
            assert!(!is_wal_file_name(name) && !is_beside_segments(name), "{name}");
        }
    }

    #[test]
    fn the_best_file_of_a_segment() {
        let order = [".gpg", ".gz.partial", ".partial", ".gz", ""].map(|suffix| rank(&format!("archive.d/{NAME}{suffix}")));
        assert!(order.is_sorted() && order[0] < order[1] && order[2] < order[3] && order[3] < order[4], "{order:?}");
    }
}
