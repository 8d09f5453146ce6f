//! Archives into files. C: fe_utils/astreamer_file.c (bin/pg_basebackup/bbstreamer_file.c up to 17).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use pgwal::source::guarded;
use tar::{Archive, Entry, EntryType};

use super::stream::{BackupStream, Tablespace};
use super::{BUFFER, BackupError, as_path};
use crate::compress::Compression;
use crate::segments::{FileError, failed};

/// Puts the files of an archive into the data directory `dir`, or into the directory of its tablespace.
///
/// Nothing is written outside of these: names lead below the directory, and links are those of tablespaces.
pub(super) fn extract(
    stream: &mut BackupStream<'_>,
    name: &str,
    tablespace: Option<&Path>,
    dir: &Path,
    tablespaces: &[(Tablespace, PathBuf)],
) -> Result<(), BackupError> {
    let unknown = |location: &Path| {
        let problem = format!("it is of a tablespace in \"{}\", which the server has not named", location.display());
        BackupError::Archive { archive: name.to_owned(), problem }
    };
    let root = match tablespace {
        None => dir,
        Some(location) => &tablespaces.iter().find(|(known, _)| known.location == *location).ok_or_else(|| unknown(location))?.1,
    };
    let current = stream.file();
    let mut files =
        Files { name, root, is_base: tablespace.is_none(), tablespaces, links: BTreeSet::new(), buffer: vec![0; BUFFER], current };
    let result = files.extract(&mut *stream);
    match result {
        Ok(()) => Ok(()),
        Err(Problem::File(error)) => Err(error.into()),
        Err(Problem::Read(error)) => Err(stream.explain(name, error)),
    }
}

struct Files<'a> {
    name: &'a str,
    root: &'a Path,
    /// It is the archive of the data directory, which has the links of tablespaces.
    is_base: bool,
    tablespaces: &'a [(Tablespace, PathBuf)],
    /// Links that have been made.
    links: BTreeSet<PathBuf>,
    buffer: Vec<u8>,
    /// The file that is being written, for whoever watches.
    current: Rc<RefCell<PathBuf>>,
}

enum Problem {
    /// Writing fails.
    File(FileError),
    /// Reading fails, or what is read is not what it should be.
    Read(io::Error),
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Problem {
        Problem::File(error)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Read(error)
    }
}

impl Files<'_> {
    fn extract(&mut self, packed: impl Read) -> Result<(), Problem> {
        let (unpacked, guard) = guarded(Compression::of_name(self.name).reader(packed)?);
        let mut archive = Archive::new(unpacked);
        for entry in archive.entries()? {
            let mut entry = entry?;
            guard.allow(&entry)?;
            self.entry(&mut entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Problem> {
        let name = as_path(&entry.path_bytes());
        let Some(path) = inside(&name) else { return Err(wrong(&name, "its name leads out of the archive")) };
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        if path.ancestors().skip(1).any(|above| self.links.contains(above)) {
            return Err(wrong(&name, "it is below a link"));
        }
        let target = self.root.join(&path);
        self.current.borrow_mut().clone_from(&target);
        let mode = entry.header().mode()? & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => match DirBuilder::new().mode(mode).create(&target) {
                // As pg_wal may, where WAL is streamed, or where it is a link of ours.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && target.is_dir() => Ok(()),
                // Whatever the umask leaves, the server's permissions count.
                result => Ok(result.and_then(|()| set_mode(&target, mode)).map_err(failed("create directory", &target))?),
            },
            EntryType::Regular | EntryType::Continuous => self.file(entry, &target, mode),
            EntryType::Symlink if self.is_base => {
                let to = entry.link_name_bytes().map(|bytes| as_path(&bytes)).unwrap_or_default();
                let is_tablespace = path.parent() == Some(Path::new("pg_tblspc"));
                let Some((_, here)) = self.tablespaces.iter().find(|(tablespace, _)| is_tablespace && tablespace.location == to) else {
                    return Err(wrong(&name, &format!("it is a link to \"{}\", where no tablespace is", to.display())));
                };
                symlink(here, &target).map_err(failed("create", &target))?;
                self.links.insert(path);
                Ok(())
            }
            kind => Err(wrong(&name, &format!("it is neither a file nor a directory nor the link of a tablespace, but {kind:?}"))),
        }
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, target: &Path, mode: u32) -> Result<(), Problem> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(target).map_err(failed("create", target))?;
        set_mode(target, mode).map_err(failed("create", target))?;
        let mut left = entry.size();
        while left > 0 {
            match entry.read(&mut self.buffer)? {
                0 => return Err(wrong(&as_path(&entry.path_bytes()), &format!("the archive ends {left} bytes before its end"))),
                len => {
                    file.write_all(self.buffer.get(..len).unwrap_or_default()).map_err(failed("write", target))?;
                    left = left.saturating_sub(len as u64);
                }
            }
        }
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// What is wrong with an entry.
fn wrong(name: &Path, problem: &str) -> Problem {
    Problem::Read(io::Error::new(io::ErrorKind::InvalidData, format!("\"{}\": {problem}", name.display())))
}

/// A name that leads below the directory where it stands, without what does not count in it; `None`: it leads elsewhere.
pub(super) fn inside(name: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}
