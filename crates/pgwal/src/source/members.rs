//! Small files of a tar archive, whatever it is compressed with.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use super::archive::guarded;
use super::kind::Kind;
use super::unpack;
use crate::input_file;

/// The members of the tar archive at `path` that have one of the names `wanted`, each up to `limit` bytes. A leading `./` counts for nothing.
///
/// An archive that is not compressed is not read but for the headers.
///
/// # Errors
/// The file cannot be read, or is no archive, or a damaged one.
pub(crate) fn members(path: &Path, wanted: &[&str], limit: u64) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut look = Vec::new();
    input_file::open(path)?.take(Kind::LOOK as u64).read_to_end(&mut look)?;
    let mut found = BTreeMap::new();
    match Kind::of(&look) {
        Kind::Packed(packing) => {
            let (stream, guard) = guarded(unpack::stream(packing, input_file::open(path)?)?);
            let mut archive = tar::Archive::new(stream);
            for member in archive.entries()? {
                let mut member = member?;
                guard.allow(&member)?;
                keep(&mut member, wanted, limit, &mut found)?;
            }
        }
        Kind::Tar | Kind::Plain => {
            let (stream, guard) = guarded(input_file::open(path)?);
            let mut archive = tar::Archive::new(stream);
            for member in archive.entries_with_seek()? {
                let mut member = member?;
                guard.allow(&member)?;
                keep(&mut member, wanted, limit, &mut found)?;
            }
        }
    }
    Ok(found)
}

/// The bytes of a file, unpacked where it is compressed; no more than `limit`.
///
/// # Errors
/// The file cannot be read, or does not unpack.
pub(crate) fn unpacked(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut look = Vec::new();
    input_file::open(path)?.take(Kind::LOOK as u64).read_to_end(&mut look)?;
    let file = input_file::open(path)?;
    let mut bytes = Vec::new();
    match Kind::of(&look) {
        Kind::Packed(packing) => unpack::stream(packing, file)?.take(limit).read_to_end(&mut bytes)?,
        Kind::Tar | Kind::Plain => file.take(limit).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn keep<R: Read>(member: &mut tar::Entry<'_, R>, wanted: &[&str], limit: u64, found: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let path = member.path()?.to_string_lossy().into_owned();
    let name = path.strip_prefix("./").unwrap_or(&path);
    if wanted.contains(&name) && member.header().entry_type().is_file() {
        let mut bytes = Vec::new();
        member.take(limit).read_to_end(&mut bytes)?;
        found.insert(name.to_owned(), bytes);
    }
    Ok(())
}
