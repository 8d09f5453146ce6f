//! Files that somebody else names: certificates, services, passwords, manifests. What is no regular file, such as a pipe or a device, is
//! read with a time limit and a stop flag, and nothing is read beyond a limit on its size.
//!
//! A pipe is how shells pass the output of a command (`<(command)`), so libpq's users have them where libpq reads what `fopen` opens.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::fs::OFlags;

/// The most bytes of a service file and of a password file. Ordinary ones have a few hundred.
pub(crate) const MAX_SETTINGS: u64 = 1 << 20;

/// The most bytes of a file of certificates, keys or revocation lists. The bundle of all public authorities has a quarter of a megabyte.
pub(crate) const MAX_CERTIFICATES: u64 = 16 << 20;

/// The most bytes of a backup manifest: that of twenty million files.
pub(crate) const MAX_MANIFEST: u64 = 4 << 30;

/// How long a pipe or a device may have nothing to read.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a wait lasts before the stop flag is looked at again.
const SLICE: Duration = Duration::from_millis(200);

/// How long to wait for what is no regular file; never longer than [`PATIENCE`] at a time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Patience<'a> {
    /// Until then.
    pub(crate) until: Option<Instant>,
    /// Until this is set.
    pub(crate) stop: Option<&'a AtomicBool>,
}

/// Why a file is not read, or no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It has more bytes than it may.
    TooLong {
        /// The most that it may have.
        limit: u64,
    },
    /// Nothing came of it for so long.
    Silent(Duration),
    /// It is not a regular file, and must be one here.
    NotRegular,
    /// The stop flag is set.
    Interrupted,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TooLong { limit } => write!(f, "has more than {limit} bytes"),
            Problem::Silent(time) => write!(f, "is a pipe or a device, and nothing came from it for {:.0} s", time.as_secs_f32()),
            Problem::NotRegular => f.write_str("is not a regular file"),
            Problem::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for io::Error {
    fn from(problem: Problem) -> io::Error {
        io::Error::other(problem)
    }
}

impl Problem {
    /// The problem in an error of [`InputFile`]; `None`: the system reports it.
    pub(crate) fn of(error: &io::Error) -> Option<Problem> {
        error.get_ref()?.downcast_ref::<Problem>().copied()
    }
}

/// A file that is read as described at the top of this module.
pub(crate) struct InputFile<'a> {
    file: File,
    is_regular: bool,
    /// Bytes that may still come.
    left: u64,
    limit: u64,
    patience: Patience<'a>,
}

/// Opens a file for reading, whatever it is, without waiting: not for a writer of a pipe, either.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Opens a regular file.
///
/// # Errors
/// [`Problem::NotRegular`]: it is something else.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Problem::NotRegular.into()) }
}

/// All bytes of a regular file.
pub(crate) fn read_regular(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    InputFile { file, is_regular: true, left: limit, limit, patience: Patience::default() }.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All bytes of a file. Those of a pipe are kept, as each connection reads the file again, and a pipe can be read only once.
pub(crate) fn read(path: &Path, limit: u64, patience: Patience<'_>) -> io::Result<Vec<u8>> {
    /// What came out of pipes, by their names.
    static PIPES: LazyLock<Mutex<BTreeMap<PathBuf, Vec<u8>>>> = LazyLock::new(Mutex::default);
    let mut file = InputFile::open(path, limit, patience)?;
    let is_pipe = file.file.metadata()?.file_type().is_fifo();
    let pipes = || PIPES.lock().unwrap_or_else(PoisonError::into_inner);
    if is_pipe && let Some(bytes) = pipes().get(path) {
        return Ok(bytes.clone());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if is_pipe {
        pipes().insert(path.to_owned(), bytes.clone());
    }
    Ok(bytes)
}

impl<'a> InputFile<'a> {
    /// Opens a file that has at most `limit` bytes.
    pub(crate) fn open(path: &Path, limit: u64, patience: Patience<'a>) -> io::Result<InputFile<'a>> {
        let file = open(path)?;
        let is_regular = file.metadata()?.is_file();
        Ok(InputFile { file, is_regular, left: limit, limit, patience })
    }

    /// Waits until there is something to read, or the end. A pipe that nobody has opened for writing yet has neither.
    fn wait(&self, since: Instant) -> Result<(), Problem> {
        let until = [Some(since + PATIENCE), self.patience.until].into_iter().flatten().min();
        loop {
            if self.patience.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Problem::Interrupted);
            }
            let left = until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()));
            let slice = u16::try_from(left.min(SLICE).as_millis()).unwrap_or(u16::MAX);
            let mut poll = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match nix::poll::poll(&mut poll, PollTimeout::from(slice)) {
                Ok(0) | Err(Errno::EINTR) if left.is_zero() => return Err(Problem::Silent(since.elapsed())),
                Ok(0) | Err(Errno::EINTR) => {}
                // Where it cannot be waited for, reading says so.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

impl Read for InputFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let since = Instant::now();
        loop {
            if self.patience.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Problem::Interrupted.into());
            }
            if !self.is_regular {
                self.wait(since)?;
            }
            match self.file.read(buffer) {
                Ok(len) => {
                    self.left = self.left.checked_sub(len as u64).ok_or(Problem::TooLong { limit: self.limit })?;
                    return Ok(len);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn fifo(dir: &Path) -> PathBuf {
        let path = dir.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn nothing_is_waited_for_or_read_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "certificate").unwrap();
        let problem = |path: &Path, limit, patience| Problem::of(&read(path, limit, patience).unwrap_err()).unwrap();
        assert_eq!(read(&path, 11, Patience::default()).unwrap(), b"certificate");
        assert_eq!(problem(&path, 10, Patience::default()), Problem::TooLong { limit: 10 });
        assert_eq!(problem(Path::new("/dev/zero"), 1 << 20, Patience::default()), Problem::TooLong { limit: 1 << 20 });
        assert_eq!(read(Path::new("/dev/null"), 10, Patience::default()).unwrap(), b"");
        let fifo = fifo(dir.path());
        let soon = Patience { until: Some(Instant::now() + Duration::from_millis(1)), stop: None };
        assert!(matches!(problem(&fifo, 10, soon), Problem::Silent(_)));
        let stop = AtomicBool::new(true);
        assert_eq!(problem(&fifo, 10, Patience { until: None, stop: Some(&stop) }), Problem::Interrupted);
        for other in [&fifo, Path::new("/dev/zero"), dir.path()] {
            assert_eq!(Problem::of(&open_regular(other).unwrap_err()), Some(Problem::NotRegular), "{}", other.display());
        }
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path());
        let to = path.clone();
        let writer = std::thread::spawn(move || {
            let mut file = OpenOptions::new().write(true).open(to).unwrap();
            for piece in [b"one ".as_slice(), b"two"] {
                file.write_all(piece).unwrap();
            }
        });
        assert_eq!(read(&path, 100, Patience::default()).unwrap(), b"one two");
        writer.join().unwrap();
        assert_eq!(read(&path, 100, Patience::default()).unwrap(), b"one two", "another connection needs it, too");
    }
}
