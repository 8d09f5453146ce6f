//! Files that are written: whole, or not at all.
//!
//! An [`OutputFile`] is written without a name, in the directory where it will be, and takes the place of what is there once all of it is on
//! disk. Whatever fails, the old file stays as it was, and nothing else is left, even where the process is killed. Only file systems that
//! have no files without names see it under a temporary one.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that is being written. Without [`OutputFile::commit`] nothing has happened.
///
/// Links are followed: the file that a link leads to is replaced, and the link stays. The new file has the permissions of the old one, and its
/// owner and group where that is allowed; a hard link to the old file keeps the old content. A file that may not be written is not replaced,
/// and neither is a directory or a socket. What is written to a device, to a pipe, or to an open file (`/dev/stdout`, `/dev/fd/3`) goes
/// there at once: nothing can be replaced there.
#[derive(Debug)]
pub struct OutputFile {
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// A file without a name: it goes with the process.
    #[cfg(target_os = "linux")]
    Unnamed {
        file: File,
        path: PathBuf,
    },
    Replace {
        temporary: NamedTempFile,
        path: PathBuf,
    },
    Direct(File),
}

impl OutputFile {
    /// Begins to write what will be at `path`.
    ///
    /// # Errors
    /// It may not be written, or its directory not, or it is a directory.
    pub fn create(path: &Path) -> io::Result<OutputFile> {
        let (path, old) = match resolve(path)? {
            Place::Descriptor(number, path) => return Ok(OutputFile { target: Target::Direct(descriptor(number, &path)?) }),
            Place::Path(path, old) => (path, old),
        };
        if let Some(old) = &old {
            if old.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            // As whoever writes into the file itself would be refused.
            let file = File::options().write(true).open(&path)?;
            if !old.is_file() {
                return Ok(OutputFile { target: Target::Direct(file) });
            }
        }
        #[cfg(target_os = "linux")]
        if let Some(file) = unnamed(directory(&path)) {
            if let Some(old) = &old {
                keep_owner_and_permissions(&file, old)?;
            }
            return Ok(OutputFile { target: Target::Unnamed { file, path } });
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        if let (None, Some(permissions)) = (&old, permissions_of_a_new_file()) {
            builder.permissions(permissions);
        }
        let temporary = builder.tempfile_in(directory(&path)).map_err(plain)?;
        if let Some(old) = &old {
            keep_owner_and_permissions(temporary.as_file(), old)?;
        }
        Ok(OutputFile { target: Target::Replace { temporary, path } })
    }

    /// Ends the file, and has it take its place: it is on disk, and so is its name.
    ///
    /// # Errors
    /// It could not be written. The old file is there, or, where only the directory could not be synced, the new one.
    pub fn commit(self) -> io::Result<()> {
        match self.target {
            Target::Direct(mut file) => file.flush(),
            #[cfg(target_os = "linux")]
            Target::Unnamed { file, path } => {
                file.sync_all()?;
                give_name(&file, &path)?;
                sync_directory(directory(&path))
            }
            Target::Replace { temporary, path } => {
                temporary.as_file().sync_all()?;
                temporary.persist(&path).map_err(|e| e.error)?;
                sync_directory(directory(&path))
            }
        }
    }

    /// As [`OutputFile::commit`], without waiting until it is on disk: for files that can be made again.
    ///
    /// # Errors
    /// It could not take its place.
    pub fn commit_without_sync(self) -> io::Result<()> {
        match self.target {
            Target::Direct(mut file) => file.flush(),
            #[cfg(target_os = "linux")]
            Target::Unnamed { file, path } => give_name(&file, &path),
            Target::Replace { temporary, path } => temporary.persist(&path).map(drop).map_err(|e| e.error),
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl OutputFile {
    fn file(&mut self) -> &mut File {
        match &mut self.target {
            Target::Direct(file) => file,
            #[cfg(target_os = "linux")]
            Target::Unnamed { file, .. } => file,
            Target::Replace { temporary, .. } => temporary.as_file_mut(),
        }
    }
}

/// Whether `path` is another name of standard output, such as `/dev/stdout`.
pub fn is_standard_output(path: &Path) -> bool {
    matches!(resolve(path), Ok(Place::Descriptor(Some(1), _)))
}

/// Where a path leads.
enum Place {
    /// An open file, by the number that it has in this process; `None`: of another process.
    Descriptor(Option<u32>, PathBuf),
    /// What is there; `None`: nothing yet.
    Path(PathBuf, Option<Metadata>),
}

/// Links that may lead to each other, as many as Linux follows.
const LINKS: usize = 40;

fn resolve(path: &Path) -> io::Result<Place> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if let Some(number) = descriptor_of_path(&path) {
            return Ok(Place::Descriptor(number, path));
        }
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => path = directory(&path).join(fs::read_link(&path)?),
            Ok(metadata) => return Ok(Place::Path(path, Some(metadata))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Place::Path(path, None)),
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// What `/dev/fd/N` and `/proc/self/fd/N` mean. They look like links, and what they show may have no name at all.
fn descriptor_of_path(path: &Path) -> Option<Option<u32>> {
    let parts: Vec<_> =
        path.components().map(|part| if let Component::Normal(name) = part { name.to_str().unwrap_or("") } else { "/" }).collect();
    let own = std::process::id().to_string();
    match parts.as_slice() {
        ["/", "dev", "fd", number] => Some(number.parse().ok()),
        ["/", "proc", process, "fd", number] if *process == "self" || *process == own => Some(number.parse().ok()),
        ["/", "proc", "thread-self", "fd", number] => Some(number.parse().ok()),
        ["/", "proc", _, "fd", _] => Some(None),
        _ => None,
    }
}

/// An open file. One that is opened anew is written at its end: what its owner has written stays.
fn descriptor(number: Option<u32>, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        match number {
            Some(1) => return io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Some(2) => return io::stderr().as_fd().try_clone_to_owned().map(File::from),
            _ => {}
        }
    }
    File::options().append(true).open(path)
}

/// What the temporary names begin with.
const PREFIX: &str = ".pgwal-";

/// A new file without a name; `None`: the file system has none, or it could not get a name later.
#[cfg(target_os = "linux")]
fn unnamed(dir: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    let mode = Mode::from_raw_mode(0o666); // the user's mask takes from it
    let file = File::from(rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode).ok()?);
    path_of(&file).exists().then_some(file)
}

/// Gives a file without a name that of `path`, where another one may be.
#[cfg(target_os = "linux")]
fn give_name(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    let from = path_of(file);
    // A link replaces nothing, so it gets another name first.
    let link = |name: &Path| Ok(linkat(CWD, &from, CWD, name, AtFlags::SYMLINK_FOLLOW)?);
    let named = tempfile::Builder::new().prefix(PREFIX).make_in(directory(path), link).map_err(plain)?;
    named.persist(path).map_err(|e| e.error)
}

/// The path by which the system knows an open file.
#[cfg(target_os = "linux")]
fn path_of(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."))
}

/// Those that any program asks for; the user's mask takes from them.
fn permissions_of_a_new_file() -> Option<Permissions> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    #[cfg(not(unix))]
    None
}

#[cfg(unix)]
fn keep_owner_and_permissions(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let new = file.metadata()?;
    let mut mode = old.mode() & 0o7777;
    if new.uid() != old.uid() && fchown(file, Some(old.uid()), None).is_err() {
        mode &= 0o1777; // not ours to run as somebody else
    }
    if new.gid() != old.gid() && fchown(file, None, Some(old.gid())).is_err() {
        // Another group gets no more than everybody had.
        mode = (mode & 0o5707) | ((mode & 0o007) << 3);
    }
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn keep_owner_and_permissions(file: &File, old: &Metadata) -> io::Result<()> {
    file.set_permissions(old.permissions())
}

/// Puts the names in a directory on disk, where the file system knows how.
fn sync_directory(dir: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    match File::open(dir)?.sync_all() {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// An error without the temporary name, which means nothing to anybody.
fn plain(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((what, _)) => io::Error::new(error.kind(), what.to_owned()),
        None => error,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OutputFile::create(path)?;
        file.write_all(bytes)?;
        file.commit()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        write(&path, b"old").unwrap();
        // As another program's file would be.
        let usual = dir.path().join("usual");
        File::create(&usual).unwrap();
        assert_eq!(path.metadata().unwrap().mode(), usual.metadata().unwrap().mode());
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let inode = path.metadata().unwrap().ino();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        // Whoever is killed now leaves nothing.
        #[cfg(target_os = "linux")]
        assert!(unnamed(dir.path()).is_none() || names(dir.path()).len() == 2, "{:?}", names(dir.path()));
        drop(file); // given up
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["out".to_owned(), "usual".to_owned()]));
        write(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"new".to_vec(), vec!["out".to_owned(), "usual".to_owned()]));
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o640);
        assert_ne!(metadata.ino(), inode);
    }

    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("other")).unwrap();
        fs::write(at("other/file"), "old").unwrap();
        symlink("other/file", at("link")).unwrap();
        symlink(at("link"), at("link2")).unwrap();
        symlink("other/new", at("dangling")).unwrap();
        symlink("round", at("round")).unwrap();
        write(&at("link2"), b"new").unwrap();
        assert_eq!(fs::read(at("other/file")).unwrap(), b"new");
        assert!(at("link").symlink_metadata().unwrap().is_symlink());
        write(&at("dangling"), b"new").unwrap();
        assert_eq!(fs::read(at("other/new")).unwrap(), b"new");
        assert!(write(&at("round"), b"").is_err());
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        assert_eq!(write(&at("dir"), b"").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(write(&at("socket"), b"x").is_err());
        assert_eq!(write(&at("none/out"), b"").unwrap_err().to_string(), "No such file or directory (os error 2)");
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
        assert_eq!(write(Path::new("/dev/full"), b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(names(dir.path()), ["dir", "socket"]);
    }

    #[test]
    fn open_files_by_their_numbers() {
        for (path, is_stdout) in
            [("/dev/stdout", true), ("/dev/fd/1", true), ("/proc/self/fd/1", true), ("/dev/stderr", false), ("x", false)]
        {
            assert_eq!(is_standard_output(Path::new(path)), is_stdout, "{path}");
        }
        // Opened anew, it is written behind what is there.
        use std::os::fd::AsRawFd;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"old ").unwrap();
        let path = PathBuf::from(format!("/dev/fd/{}", file.as_raw_fd()));
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"old new");
    }
}
