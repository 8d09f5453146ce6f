//! Archives as they come, or with the settings of a standby in them; and one of the WAL. C: fe_utils/astreamer_inject.c
//! (bin/pg_basebackup/bbstreamer_inject.c up to 17), bin/pg_basebackup/walmethods.c.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tar::{Archive, Builder, EntryType, Header};

use super::plain::inside;
use super::recovery::{AUTO_CONF, RECOVERY_CONF, Recovery, STANDBY_SIGNAL};
use super::stream::BackupStream;
use super::{BackupError, Job, Packing, as_path, copy};
use crate::compress::{Compression, Sink};
use crate::segments::{FileError, failed};

/// Name of the archive of the WAL, where it has been streamed.
pub(super) const WAL_ARCHIVE: &str = "pg_wal.tar";

/// What ends an archive; before 15 a server does not send it.
const END: [u8; 1024] = [0; 1024];

/// Stores an archive in the directory of the backup.
pub(super) fn store(stream: &mut BackupStream<'_>, name: &str, is_base: bool, job: &Job<'_>) -> Result<(), BackupError> {
    let Job { options, major, mode, .. } = *job;
    let plain_name = Path::new(name);
    if inside(plain_name).is_none_or(|path| path.components().count() != 1) {
        return Err(BackupError::Archive { archive: name.to_owned(), problem: "its name is not that of a file".to_owned() });
    }
    let packing = options.packing.client();
    if let Some(recovery) = options.recovery.as_ref().filter(|_| is_base) {
        let (packed, packing) = match &options.packing {
            Packing::Server { detail, .. } => (Compression::of_name(name), as_the_server(name, detail.as_deref())),
            _ => (Compression::None, packing),
        };
        let path = options.dir.join(format!("{}{}", name.strip_suffix(packed.suffix()).unwrap_or(name), packing.suffix()));
        let result = inject(&mut *stream, packed, create(&path, packing, mode)?, recovery, major);
        return match result {
            Ok(sink) => Ok(finish(sink, &path)?),
            Err(e) => Err(stream.explain(name, e)),
        };
    }
    let path = options.dir.join(format!("{name}{}", packing.suffix()));
    let mut sink = create(&path, packing, mode)?;
    copy(stream, &mut sink, name, &path)?;
    if major < 15 {
        sink.write_all(&END).map_err(failed("write", &path))?;
    }
    Ok(finish(sink, &path)?)
}

fn create(path: &Path, packing: Compression, mode: u32) -> Result<Sink, FileError> {
    Sink::new(super::create(path, mode)?, packing).map_err(failed("compress", path))
}

fn finish(sink: Sink, path: &Path) -> Result<(), FileError> {
    sink.finish().map(drop).map_err(failed("write", path))
}

/// The compression that the server was asked for, for an archive that is packed again.
fn as_the_server(name: &str, detail: Option<&str>) -> Compression {
    let usual = Compression::of_name(name);
    let mut levels =
        detail.unwrap_or_default().split(',').filter_map(|part| part.strip_prefix("level=").unwrap_or(part).parse::<u32>().ok());
    let level = levels.next_back();
    match (usual, level) {
        (Compression::Gzip(_), Some(level @ 1..=9)) => Compression::Gzip(level),
        (Compression::Zstd(_), Some(level @ 1..=22)) => Compression::Zstd(level as i32),
        _ => usual,
    }
}

/// Copies an archive and has the settings of a standby in it.
fn inject(from: impl Read, packed: Compression, to: Sink, recovery: &Recovery, major: u8) -> io::Result<Sink> {
    let mut archive = Archive::new(packed.reader(from)?);
    let mut builder = Builder::new(to);
    let settings = if major < 12 { RECOVERY_CONF } else { AUTO_CONF };
    let signal = (major >= 12).then_some(STANDBY_SIGNAL);
    let mut lines = Some(recovery.lines(major));
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let mut header = entry.header().clone();
        let path = inside(&as_path(&entry.path_bytes())).unwrap_or_default();
        if Some(path.as_path()) == signal.map(Path::new) || path == Path::new(RECOVERY_CONF) {
            continue;
        }
        match lines.take_if(|_| path == Path::new(settings)) {
            Some(lines) => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                content.extend_from_slice(lines.as_bytes());
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_slice())?;
            }
            None => {
                let size = header.entry_size()?;
                // A short one would be filled up with whatever comes next.
                let mut counted = Counted { inner: entry, read: 0 };
                builder.append(&header, &mut counted)?;
                if counted.read != size {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the archive ends in \"{}\"", path.display())));
                }
            }
        }
    }
    let mut add = |name: &str, content: &str| builder.append(&header(name, content.len() as u64)?, content.as_bytes());
    if let Some(lines) = lines {
        add(settings, &lines)?;
    }
    if let Some(signal) = signal {
        add(signal, "")?;
    }
    builder.into_inner()
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.read += len as u64;
        Ok(len)
    }
}

/// The header of a file that is the server's alone.
fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    header.set_cksum();
    Ok(header)
}

/// Puts the WAL that was streamed into `dir` into an archive beside the others, and removes `dir`.
pub(super) fn store_wal(dir: &Path, job: &Job<'_>) -> Result<(), BackupError> {
    let Job { options, mode, .. } = *job;
    let packing = options.packing.client();
    let path = options.dir.join(format!("{WAL_ARCHIVE}{}", packing.suffix()));
    let mut builder = Builder::new(create(&path, packing, mode)?);
    for name in files(dir, Path::new(""))? {
        let from = dir.join(&name);
        let file = File::open(&from).map_err(failed("open", &from))?;
        let size = file.metadata().map_err(failed("open", &from))?.len();
        let added = header(&name.to_string_lossy(), size).and_then(|header| builder.append(&header, file));
        added.map_err(failed("write", &path))?;
    }
    let sink = builder.into_inner().map_err(failed("write", &path))?;
    finish(sink, &path)?;
    fs::remove_dir_all(dir).map_err(failed("remove", dir))?;
    Ok(())
}

/// Files below `dir`, by name.
fn files(dir: &Path, below: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    let path = dir.join(below);
    for entry in fs::read_dir(&path).map_err(failed("read directory", &path))? {
        let entry = entry.map_err(failed("read directory", &path))?;
        let name = below.join(entry.file_name());
        match entry.file_type().map_err(failed("look at", &entry.path()))?.is_dir() {
            true => found.extend(files(dir, &name)?),
            false => found.push(name),
        }
    }
    found.sort();
    Ok(found)
}
