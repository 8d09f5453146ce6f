//! One receiver at a time in a directory.
//!
//! The directory itself is locked (flock), and so is a file in it that says who holds the lock. The lock of the directory cannot be lost by
//! removing a file; the lock of the file is also seen by other hosts where the directory is on NFS, which locks directories on one host
//! only. The system releases both when the process dies, so that neither can be stale; the file is removed by an orderly end. pg_receivewal
//! and `pgwal verify` pass over its name.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::input_file::open_regular;
use crate::segments::{FileError, failed};

/// Name of the file that says who holds the lock.
pub const LOCK_FILE: &str = ".pgwal-receive.lock";

/// A directory that no other receiver writes into, until this is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    /// Keeps the lock of the directory; `None`: its file system has none.
    directory: Option<File>,
    /// Device and inode of the directory.
    id: (u64, u64),
    path: PathBuf,
    /// Keeps the lock of the file.
    file: File,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The host that it runs on.
    pub host: String,
}

/// Why a directory cannot be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another receiver writes into it.
    Held {
        /// The directory.
        dir: PathBuf,
        /// That receiver; `None`: it has not said who it is.
        holder: Option<Holder>,
    },
    /// The directory is a server's own `pg_wal`: what the server writes there must not be replaced.
    ServersOwn {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory or the file cannot be opened.
    File(FileError),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { dir, holder } => {
                write!(f, "another receiver is writing into \"{}\": ", dir.display())?;
                match holder {
                    Some(Holder { pid, host }) => write!(f, "process {pid} on host \"{}\"", host.escape_debug()),
                    None => f.write_str("an unknown process"),
                }
            }
            LockError::ServersOwn { dir } => {
                write!(f, "\"{}\" is the pg_wal of a server, which writes its own WAL there (it has archive_status)", dir.display())
            }
            LockError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Held { .. } | LockError::ServersOwn { .. } => None,
            LockError::File(error) => Some(error),
        }
    }
}

impl From<FileError> for LockError {
    fn from(error: FileError) -> LockError {
        LockError::File(error)
    }
}

/// Refuses a directory that a server writes its own WAL into: only there is an `archive_status`. A receiver would put its segments in the place
/// of the server's, with other contents and other owners.
///
/// # Errors
/// It is one.
pub fn refuse_servers_own(dir: &Path) -> Result<(), LockError> {
    if dir.join("archive_status").is_dir() { Err(LockError::ServersOwn { dir: dir.to_owned() }) } else { Ok(()) }
}

impl DirectoryLock {
    /// Locks `dir`.
    ///
    /// # Errors
    /// Another receiver has locked it, or it cannot be opened.
    pub fn take(dir: &Path) -> Result<DirectoryLock, LockError> {
        let path = dir.join(LOCK_FILE);
        let held = || LockError::Held { dir: dir.to_owned(), holder: holder(&path) };
        let directory = File::open(dir).map_err(failed("open", dir))?;
        let id = id(&directory).map_err(failed("open", dir))?;
        // Not a directory: the lock file says so.
        let directory = match lock(&directory).map_err(failed("lock", dir))? {
            Lock::Taken => Some(directory),
            Lock::Held => return Err(held()),
            Lock::Unsupported => None,
        };
        let mut file = loop {
            let mut options = OpenOptions::new();
            // A link, whoever put it there, is an error; so is a pipe or a device.
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o644).custom_flags(flags);
            let file = options.open(&path).map_err(failed("open", &path))?;
            if !file.metadata().map_err(failed("look at", &path))?.is_file() {
                return Err(failed("use", &path)(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")).into());
            }
            if let Lock::Held = lock(&file).map_err(failed("lock", &path))? {
                return Err(held());
            }
            // Its last holder may have removed it in between.
            let is_there = fs::symlink_metadata(&path).is_ok_and(|found| id_of(&found) == self::id(&file).unwrap_or_default());
            if is_there {
                break file;
            }
        };
        let text = format!("{} {}\n", std::process::id(), host());
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(failed("write", &path))?;
        Ok(DirectoryLock { directory, id, path, file })
    }

    /// Whether it is `dir` that is locked; another directory may have taken its place.
    pub fn is_of(&self, dir: &Path) -> bool {
        fs::metadata(dir).is_ok_and(|found| id_of(&found) == self.id)
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // While it is locked, so that the file of another holder is never removed.
        if let (Ok(found), Ok(own)) = (fs::symlink_metadata(&self.path), id(&self.file))
            && id_of(&found) == own
        {
            // What stays is taken over by the next holder.
            let _ = fs::remove_file(&self.path);
        }
        drop(self.directory.take());
    }
}

enum Lock {
    Taken,
    Held,
    /// The file system has no locks.
    Unsupported,
}

fn lock(file: &File) -> io::Result<Lock> {
    match rustix::io::retry_on_intr(|| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Lock::Taken),
        Err(Errno::WOULDBLOCK) => Ok(Lock::Held),
        // EBADF: a file system that wants a file open for writing, which a directory cannot be.
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK | Errno::INVAL | Errno::BADF) => Ok(Lock::Unsupported),
        Err(error) => Err(error.into()),
    }
}

/// Who has written its name into a lock file.
fn holder(path: &Path) -> Option<Holder> {
    // It writes its name as soon as it has the lock.
    for _ in 0..20 {
        let mut text = String::new();
        let read = open_regular(path).and_then(|file| file.take(1024).read_to_string(&mut text));
        if let (Ok(_), Some((pid, host))) = (read, text.trim_end().split_once(' ')) {
            return Some(Holder { pid: pid.parse().ok()?, host: host.to_owned() });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn id(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|found| id_of(&found))
}

fn id_of(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        // What a process that was killed has left.
        fs::write(dir.path().join(LOCK_FILE), "1 elsewhere\n").unwrap();
        let lock = DirectoryLock::take(dir.path()).unwrap();
        assert!(lock.is_of(dir.path()) && !lock.is_of(Path::new("/")));
        let expected = Holder { pid: std::process::id(), host: host() };
        let refused = || match DirectoryLock::take(dir.path()) {
            Err(LockError::Held { holder, .. }) => holder,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(), Some(expected.clone()));
        // Without the file, the directory is locked all the same; and without the directory's lock, the file.
        fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        assert_eq!(refused(), None);
        drop(lock);
        let mut lock = DirectoryLock::take(dir.path()).unwrap();
        lock.directory = None;
        assert_eq!(refused(), Some(expected));
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let error = DirectoryLock::take(Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(error, "could not open \"/nowhere\": No such file or directory (os error 2)");
    }
}
