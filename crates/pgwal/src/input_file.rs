//! Files that are read: opened without ever waiting for what they are.
//!
//! Opening a named pipe waits until somebody writes into it, and opening some devices does something. In a folder that others fill,
//! a pipe under the name of a history file would stop a run for good. So a path is opened here only where it leads to a regular file.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::source::NoFile;

/// Opens the regular file at `path`, through links.
///
/// A pipe is opened too where `path` names it as a descriptor of this process (`/dev/stdin`, `/dev/fd/63`), as it does in
/// `--names <(command)`: the shell has connected its other end.
///
/// # Errors
/// It cannot be opened, or is no regular file; the error says what it is.
pub fn open(path: &Path) -> io::Result<File> {
    let allow_pipe = is_own_descriptor(path);
    // Opening a device may do something, so the look comes first; what is opened may be something else by then.
    check(&fs::metadata(path)?, allow_pipe)?;
    let file = open_without_waiting(path)?;
    let metadata = file.metadata()?;
    check(&metadata, allow_pipe)?;
    if !metadata.is_file() {
        wait_when_reading(&file)?;
    }
    Ok(file)
}

/// The content of the regular file at `path`, which may have `limit` bytes; see [`open`].
///
/// # Errors
/// As of [`open`], or it has more bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

fn check(metadata: &Metadata, allow_pipe: bool) -> io::Result<()> {
    match NoFile::of(metadata) {
        None => Ok(()),
        Some(NoFile::Pipe) if allow_pipe => Ok(()),
        Some(NoFile::Directory) => Err(io::ErrorKind::IsADirectory.into()),
        Some(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a regular file: {what}"))),
    }
}

/// Whether a path names a descriptor of this process.
fn is_own_descriptor(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text == "/dev/stdin" || ["/dev/fd/", "/proc/self/fd/"].iter().any(|folder| text.starts_with(folder))
}

#[cfg(unix)]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    File::options().read(true).custom_flags(flags.bits() as i32).open(path)
}

#[cfg(not(unix))]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn wait_when_reading(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - rustix::fs::OFlags::NONBLOCK)?)
}

#[cfg(not(unix))]
fn wait_when_reading(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "content").unwrap();
        symlink("file", at("link")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink("pipe", at("link-to-pipe")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&at(name), 7).unwrap(), b"content");
            assert_eq!(read(&at(name), 6).unwrap_err().to_string(), "larger than 6 bytes");
        }
        for (path, what) in [
            (at("pipe"), "not a regular file: a named pipe"),
            (at("link-to-pipe"), "not a regular file: a named pipe"),
            (at("socket"), "not a regular file: a socket"),
            ("/dev/zero".into(), "not a regular file: a device"),
            (at(""), "is a directory"),
            (at("none"), "No such file or directory (os error 2)"),
        ] {
            assert_eq!(open(&path).unwrap_err().to_string(), what, "{path:?}");
        }
    }
}
