//! Archives as they come, or with the settings of a standby in them; and one of the WAL. C: fe_utils/astreamer_inject.c
//! (bin/pg_basebackup/bbstreamer_inject.c up to 17), bin/pg_basebackup/walmethods.c.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tar::{Archive, Builder, EntryType, Header};

use super::manifest::FILE_NAME;
use super::plain::inside;
use super::recovery::{AUTO_CONF, RECOVERY_CONF, Recovery, STANDBY_SIGNAL};
use super::stream::BackupStream;
use super::{BackupError, Job, Packing, as_path, copy};
use crate::compress::{Compression, Sink, Zstd};
use crate::segments::{FileError, failed};

/// Name of the archive of the WAL, where it has been streamed.
pub(super) const WAL_ARCHIVE: &str = "pg_wal.tar";

/// What no file of settings has.
const MAX_SETTINGS: u64 = 16 << 20;

/// What ends an archive; before 15 a server does not send it.
const END: [u8; 1024] = [0; 1024];

/// Stores an archive in the directory of the backup.
pub(super) fn store(stream: &mut BackupStream<'_>, name: &str, is_base: bool, dir: &Path, job: &Job<'_>) -> Result<(), BackupError> {
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
        let path = dir.join(format!("{}{}", name.strip_suffix(packed.suffix()).unwrap_or(name), packing.suffix()));
        let mut builder = Builder::new(create(&path, packing, mode)?);
        let result = repack(&mut *stream, packed, &mut builder, Some(recovery), major).and_then(|()| builder.into_inner());
        return match result {
            Ok(sink) => Ok(finish(sink, &path)?),
            Err(e) => Err(stream.explain(name, e)),
        };
    }
    let path = dir.join(format!("{name}{}", packing.suffix()));
    let mut sink = create(&path, packing, mode)?;
    copy(stream, &mut sink, name, &path)?;
    if major < 15 {
        sink.write_all(&END).map_err(failed("write", &path))?;
    }
    Ok(finish(sink, &path)?)
}

/// The only archive of a backup, written into an open file, with the manifest in it.
pub(super) struct Single {
    content: Content,
    /// What the file is called in errors.
    path: PathBuf,
}

/// What is written of it.
enum Content {
    /// The archive as it came.
    Whole(Sink),
    /// Its entries, to which more can be added.
    Entries(Builder<Sink>),
}

impl Single {
    /// Writes the archive of the data directory.
    pub(super) fn store(stream: &mut BackupStream<'_>, name: &str, file: &File, job: &Job<'_>) -> Result<Single, BackupError> {
        let Job { options, major, .. } = *job;
        let path = PathBuf::from("-");
        let wants_manifest = options.manifest.is_some() && major >= 13;
        let (packed, packing) = match &options.packing {
            Packing::Server { detail, .. } => (Compression::of_name(name), as_the_server(name, detail.as_deref())),
            packing => (Compression::None, packing.client()),
        };
        let open = |packing| file.try_clone().and_then(|file| Sink::new(file, packing)).map_err(failed("write", &path));
        if options.recovery.is_none() && !wants_manifest {
            // What the server has compressed stays as it is.
            let mut sink = open(if packed == Compression::None { packing } else { Compression::None })?;
            copy(stream, &mut sink, name, &path)?;
            if major < 15 {
                sink.write_all(&END).map_err(failed("write", &path))?;
            }
            return Ok(Single { content: Content::Whole(sink), path });
        }
        let mut builder = Builder::new(open(packing)?);
        match repack(&mut *stream, packed, &mut builder, options.recovery.as_ref(), major) {
            Ok(()) => Ok(Single { content: Content::Entries(builder), path }),
            Err(e) => Err(stream.explain(name, e)),
        }
    }

    /// Adds the manifest. It lies on disk before, as its size comes first in the archive.
    pub(super) fn manifest(&mut self, stream: &mut BackupStream<'_>) -> Result<(), BackupError> {
        let Content::Entries(builder) = &mut self.content else { return Ok(()) };
        let mut spool = tempfile::tempfile().map_err(failed("create", &std::env::temp_dir()))?;
        let size = copy(stream, &mut spool, FILE_NAME, Path::new(FILE_NAME))?;
        let mut add = |mut spool: File| {
            spool.seek(SeekFrom::Start(0))?;
            builder.append(&header(FILE_NAME, size)?, spool)
        };
        Ok(add(spool).map_err(failed("write", &self.path))?)
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<(), BackupError> {
        let sink = match self.content {
            Content::Whole(sink) => sink,
            Content::Entries(builder) => builder.into_inner().map_err(failed("write", &self.path))?,
        };
        Ok(finish(sink, &self.path)?)
    }
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
        (Compression::Zstd(_), Some(level @ 1..=22)) => Compression::Zstd(Zstd::level(level as i32)),
        _ => usual,
    }
}

/// Copies the entries of an archive, with the settings of a standby in them.
fn repack(from: impl Read, packed: Compression, builder: &mut Builder<Sink>, recovery: Option<&Recovery>, major: u8) -> io::Result<()> {
    let mut archive = Archive::new(packed.reader(from)?);
    let settings = if major < 12 { RECOVERY_CONF } else { AUTO_CONF };
    let signal = recovery.filter(|_| major >= 12).map(|_| STANDBY_SIGNAL);
    let mut lines = recovery.map(|recovery| recovery.lines(major));
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let mut header = entry.header().clone();
        let path = inside(&as_path(&entry.path_bytes())).unwrap_or_default();
        if recovery.is_some() && (path == Path::new(STANDBY_SIGNAL) || path == Path::new(RECOVERY_CONF)) {
            continue;
        }
        match lines.take_if(|_| path == Path::new(settings)) {
            Some(lines) => {
                let mut content = Vec::new();
                entry.by_ref().take(MAX_SETTINGS).read_to_end(&mut content)?;
                if content.len() as u64 == MAX_SETTINGS {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, format!("\"{settings}\" has more than {MAX_SETTINGS} bytes")));
                }
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
    Ok(())
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

/// Puts the WAL that was streamed into `dir` into an archive beside the others in `backup`, and removes `dir`.
pub(super) fn store_wal(dir: &Path, backup: &Path, job: &Job<'_>) -> Result<(), BackupError> {
    let Job { options, mode, .. } = *job;
    let packing = options.wal_packing;
    let path = backup.join(format!("{WAL_ARCHIVE}{}", packing.suffix()));
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
