//! Segment files as pg_receivewal writes them: `.partial` until they are whole and on disk. C: bin/pg_basebackup/receivelog.c,
//! walmethods.c.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pgwal::history;
use pgwal::{Decoder, Location, Lsn, Segment, SegmentName, TimelineId, WalFormat};

use crate::compress::{Compression, Sink};
use crate::input_file;
pub use crate::segment_start::Origin;
use crate::segment_start::{page_problem, partial_problem};

/// What stands after the name of a segment that is not whole yet.
pub const PARTIAL: &str = ".partial";

/// What stands after that of a compressed segment that is written again.
const AGAIN: &str = ".again";

/// What went wrong with a file.
#[derive(Debug)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What was to be done with it.
    pub doing: &'static str,
    /// Why it could not.
    pub error: io::Error,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} \"{}\": {}", self.doing, self.path.display(), self.error)
    }
}

impl FileError {
    /// It could not be put on disk: what was written may be lost, though another try says nothing of it. The server does not go on after
    /// that, either (C: `data_sync_elevel`).
    pub fn is_sync(&self) -> bool {
        self.doing == "sync"
    }

    /// What lies there is not what it should be: another try finds the same.
    pub fn is_unusable(&self) -> bool {
        self.doing == "use"
    }

    /// Permissions, or what lies at the path, are in the way.
    pub fn is_refused(&self) -> bool {
        use rustix::io::Errno;
        let refusals = [
            Errno::ACCESS,
            Errno::PERM,
            Errno::ROFS,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::LOOP,
            Errno::NAMETOOLONG,
            Errno::NXIO,
            Errno::NODEV,
        ];
        Errno::from_io_error(&self.error).is_some_and(|error| refusals.contains(&error))
    }

    /// Nothing is amiss but that there is no room, which may be made.
    pub fn is_full(&self) -> bool {
        is_full(&self.error)
    }
}

/// The disk, a quota or a limit on the size of files is exhausted.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Says which file an error is about, and what was to be done with it.
pub(crate) fn failed<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> FileError + 'p {
    move |error| FileError { path: path.to_owned(), doing, error }
}

/// How files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Everything is put on disk before it counts as written. Otherwise that is left to the system, and a machine that loses its power may
    /// lose what was acknowledged.
    pub sync: bool,
    /// Permissions of files.
    pub mode: u32,
}

impl Policy {
    /// Permissions of files that are their owner's alone. C: `PG_FILE_MODE_OWNER`.
    pub const OWNER: u32 = 0o600;
    /// Permissions of files that a group may read. C: `PG_FILE_MODE_GROUP`.
    pub const GROUP: u32 = 0o640;

    fn sync(self, file: &File) -> io::Result<()> {
        if self.sync { file.sync_all() } else { Ok(()) }
    }

    fn sync_directory(self, dir: &Path) -> Result<(), FileError> {
        if self.sync { sync_directory(dir) } else { Ok(()) }
    }

    /// Opens a file to write into it, and creates it if need be; with `anew`, one that is there is removed before.
    fn open(self, path: &Path, anew: bool) -> io::Result<File> {
        let file = if anew { create_anew(path)? } else { create().create(true).open(path)? };
        #[cfg(unix)]
        if self.mode != Policy::OWNER {
            // Whatever the umask leaves, the server's permissions count.
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(self.mode))?;
        }
        Ok(file)
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { sync: true, mode: Policy::OWNER }
    }
}

/// Where WAL is written to, segment by segment.
///
/// After an error nothing has been lost: what was written stays, and [`Newest::find`] finds where to go on.
#[derive(Debug)]
pub struct Segments {
    dir: PathBuf,
    segment_size: u32,
    compression: Compression,
    policy: Policy,
    open: Option<Open>,
}

/// The segment that is being written.
#[derive(Debug)]
struct Open {
    name: SegmentName,
    place: Place,
    sink: Sink,
    /// Behind the last byte written.
    position: Lsn,
    /// Everything before this is on disk.
    synced: Lsn,
}

/// Where the segment that is being written lies.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// What is compressed is written from its start again, into a file beside the one that an earlier attempt left: that one's name, and up
    /// to where it goes. It may have what nobody else has any more, and stays until there is as much here.
    earlier: Option<(PathBuf, Lsn)>,
}

impl Segments {
    /// Writes segments of `segment_size` bytes into `dir`, which must be there.
    pub fn new(dir: impl Into<PathBuf>, segment_size: u32, compression: Compression) -> Segments {
        Segments { dir: dir.into(), segment_size, compression, policy: Policy::default(), open: None }
    }

    /// The same, with files written in another way than as usual.
    #[must_use]
    pub fn with(self, policy: Policy) -> Segments {
        Segments { policy, ..self }
    }

    /// Writes WAL of `timeline` that starts at `lsn`: after what was written before, or where nothing is open. Segments that become
    /// whole are put on disk and lose their `.partial`; how many that were.
    ///
    /// # Errors
    /// A file cannot be written. All that was written before stays.
    pub fn write(&mut self, timeline: TimelineId, lsn: Lsn, mut data: &[u8]) -> Result<u32, FileError> {
        let mut lsn = lsn;
        let mut finished = 0;
        while !data.is_empty() {
            let name = SegmentName::of(timeline, lsn, self.segment_size);
            let end = name.start(self.segment_size) + u64::from(self.segment_size);
            let len = usize::try_from(end - lsn).unwrap_or(usize::MAX).min(data.len());
            let (here, rest) = data.split_at_checked(len).unwrap_or((data, &[]));
            let open = match &mut self.open {
                Some(open) if open.name == name && open.position == lsn => open,
                _ => {
                    self.close()?;
                    self.open.insert(Open::new(&self.dir, name, lsn, self.segment_size, self.compression, self.policy)?)
                }
            };
            if let Err(error) = open.sink.write_all(here) {
                return Err(self.failed_to("write", error));
            }
            (lsn, data) = (lsn + len as u64, rest);
            open.position = lsn;
            if lsn == end {
                self.finish()?;
                finished += 1;
            }
        }
        Ok(finished)
    }

    /// Puts on disk what was written to the segment that is open.
    ///
    /// # Errors
    /// The system cannot.
    pub fn sync(&mut self) -> Result<(), FileError> {
        if let Some(open) = self.open.as_mut().filter(|open| open.synced < open.position) {
            let result = if self.policy.sync { open.sink.sync() } else { open.sink.flush() };
            if let Err(error) = result {
                return Err(self.failed_to("sync", error));
            }
            open.synced = open.position;
            open.place.replace_earlier(&self.dir, open.position, self.policy)?;
        }
        Ok(())
    }

    /// What was written stays. If it is compressed, the segment begins again, as what compresses it is not to be trusted any more.
    fn failed_to(&mut self, doing: &'static str, error: io::Error) -> FileError {
        let path = self.open.as_ref().map(|open| open.place.path.clone()).unwrap_or_default();
        if self.compression != Compression::None
            && let Some(Open { place, .. }) = self.open.take()
        {
            place.abandon();
        }
        FileError { path, doing, error }
    }

    /// Leaves the segment that is open as it is, `.partial`, on disk.
    ///
    /// # Errors
    /// The system cannot put it on disk.
    pub fn close(&mut self) -> Result<(), FileError> {
        let Some(Open { mut place, sink, position, .. }) = self.open.take() else { return Ok(()) };
        let result = match sink.finish() {
            Ok(file) => self.policy.sync(&file).map_err(failed("sync", &place.path)),
            Err(error) => Err(failed("write", &place.path)(error)),
        };
        let result = result.and_then(|()| place.replace_earlier(&self.dir, position, self.policy));
        place.abandon();
        result
    }

    /// The segment is whole.
    fn finish(&mut self) -> Result<(), FileError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let file = match open.sink.finish() {
            Ok(file) => file,
            Err(error) => {
                let error = failed("write", &open.place.path)(error);
                open.place.abandon();
                return Err(error);
            }
        };
        let path = open.place.path;
        if self.compression == Compression::None {
            let len = file.metadata().map_err(failed("look at", &path))?.len();
            if len != u64::from(self.segment_size) {
                return Err(wrong_size(&path, len, self.segment_size));
            }
        }
        self.policy.sync(&file).map_err(failed("sync", &path))?;
        let whole = self.dir.join(format!("{}{}", open.name, self.compression.suffix()));
        rename_to_new(&path, &whole).map_err(failed("rename", &path))?;
        // What earlier attempts have left, with this compression or another one; and nothing else.
        for suffix in Compression::SUFFIXES {
            for partial in [PARTIAL.to_owned(), format!("{PARTIAL}{AGAIN}")] {
                let path = self.dir.join(format!("{}{suffix}{partial}", open.name));
                let is_ours = match open_file(&path) {
                    Ok(file) => partial_problem(&file, open.name, self.segment_size, Compression::of_name(suffix))
                        .is_ok_and(|found| found.is_none()),
                    Err(_) => false,
                };
                if is_ours {
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
            }
        }
        self.policy.sync_directory(&self.dir)
    }

    /// The history file of `timeline` in the directory; `None`: it is not there.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn history(&self, timeline: TimelineId) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.dir.join(history::file_name(timeline));
        // The server's own limit is far below.
        let read = |file: File| {
            let mut content = Vec::new();
            file.take(MAX_HISTORY).read_to_end(&mut content).map(|_| content)
        };
        match open_file(&path).and_then(read) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Writes the history file of `timeline` that is there anew, and puts it on disk: as [`Newest::rewrite`] does with segments.
    ///
    /// # Errors
    /// The system cannot.
    pub fn rewrite_history(&self, timeline: TimelineId) -> Result<(), FileError> {
        rewrite(&self.dir.join(history::file_name(timeline)), &AtomicBool::new(false))?;
        sync_directory(&self.dir)
    }

    /// Writes the history file of `timeline`, which is there whole or not at all; one that is there is replaced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_history(&self, timeline: TimelineId, content: &[u8]) -> Result<(), FileError> {
        let path = self.dir.join(history::file_name(timeline));
        let temporary = self.dir.join(format!("{}.tmp", history::file_name(timeline)));
        let mut file = self.policy.open(&temporary, true).map_err(failed("open", &temporary))?;
        let mut write = || {
            file.write_all(content).map_err(failed("write", &temporary))?;
            self.policy.sync(&file).map_err(failed("sync", &temporary))?;
            fs::rename(&temporary, &path).map_err(failed("rename", &temporary))
        };
        if let Err(error) = write() {
            if error.is_full() {
                // It takes up room. The error says more than that this could not be removed, either.
                let _ = fs::remove_file(&temporary);
            }
            return Err(error);
        }
        self.policy.sync_directory(&self.dir)
    }
}

impl Open {
    /// Opens the segment to write at `lsn`: anew from its start, or after what is there.
    fn new(
        dir: &Path,
        name: SegmentName,
        lsn: Lsn,
        segment_size: u32,
        compression: Compression,
        policy: Policy,
    ) -> Result<Open, FileError> {
        let mut path = dir.join(format!("{name}{}{PARTIAL}", compression.suffix()));
        let at = lsn.segment_offset(segment_size);
        let packed = compression != Compression::None;
        if packed && at > 0 {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "a compressed segment can only be written from its start");
            return Err(FileError { path, doing: "open", error });
        }
        let mut earlier = None;
        if let Ok(file) = open_file(&path)
            && let Some(problem) = partial_problem(&file, name, segment_size, compression).map_err(failed("read", &path))?
        {
            return Err(unusable(&path, problem.to_string()));
        }
        if packed && let Ok(file) = open_file(&path) {
            let until = lsn + unpacked_len(file, compression, u64::from(segment_size));
            if until > lsn {
                let again = dir.join(format!("{name}{}{PARTIAL}{AGAIN}", compression.suffix()));
                earlier = Some((std::mem::replace(&mut path, again), until));
            }
        }
        let mut file = policy.open(&path, packed).map_err(failed("open", &path))?;
        if !packed {
            let len = file.metadata().map_err(failed("look at", &path))?.len();
            if len > u64::from(segment_size) {
                return Err(wrong_size(&path, len, segment_size));
            }
            // The room is taken before there is WAL to lose; what is after its end reads as zeroes, as in the server's own files.
            if let Err(error) = reserve(&file, u64::from(segment_size)) {
                if len == 0 {
                    // It has nothing, and would look like a segment that has lost everything.
                    let _ = fs::remove_file(&path);
                }
                return Err(failed("reserve room for", &path)(error));
            }
            file.seek(SeekFrom::Start(at)).map_err(failed("seek in", &path))?;
        }
        policy.sync(&file).map_err(failed("sync", &path))?;
        policy.sync_directory(dir)?;
        let sink = Sink::new(file, compression).map_err(failed("compress", &path))?;
        Ok(Open { name, place: Place { path, earlier }, sink, position: lsn, synced: lsn })
    }
}

impl Place {
    /// Nothing more is written into it. What an earlier attempt left has more than this one, if it is there.
    fn abandon(self) {
        if self.earlier.is_some() {
            let _ = fs::remove_file(self.path);
        }
    }

    /// Takes the place of what an earlier attempt left, once there is as much on disk.
    fn replace_earlier(&mut self, dir: &Path, synced: Lsn, policy: Policy) -> Result<(), FileError> {
        let Some((path, _)) = self.earlier.take_if(|(_, until)| *until <= synced) else { return Ok(()) };
        fs::rename(&self.path, &path).map_err(failed("rename", &self.path))?;
        self.path = path;
        policy.sync_directory(dir)
    }
}

/// Bytes that a compressed file has, up to where it was left; at most `limit`, as no segment has more.
fn unpacked_len(packed: File, compression: Compression, limit: u64) -> u64 {
    let Ok(mut reader) = compression.reader(packed) else { return 0 };
    let mut chunk = vec![0; CHUNK];
    let mut found = 0;
    while let (Ok(len @ 1..), true) = (reader.read(&mut chunk), found < limit) {
        found += len as u64;
    }
    found.min(limit)
}

/// Writes a file anew, under its own name and for the same owner, and puts it on disk; one that is not there is passed over.
///
/// Another fsync does not do: after one that failed, Linux takes the pages in memory for written, and the next one succeeds without them.
fn rewrite(path: &Path, stop: &AtomicBool) -> Result<(), FileError> {
    let mut from = match open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let old = from.metadata().map_err(failed("look at", path))?;
    let mut again = path.as_os_str().to_owned();
    again.push(AGAIN);
    let again = PathBuf::from(again);
    match copy_anew(&mut from, &old, path, &again, stop) {
        Ok(true) => fs::rename(&again, path).map_err(failed("rename", &again)),
        Ok(false) => {
            let _ = fs::remove_file(&again);
            Ok(())
        }
        Err(error) => {
            let _ = fs::remove_file(&again);
            if error.is_full() { overwrite(path, from, stop) } else { Err(error) }
        }
    }
}

/// Copies a file to `again`, and puts it on disk; `false`: `stop` was set before its end.
fn copy_anew(from: &mut File, old: &fs::Metadata, path: &Path, again: &Path, stop: &AtomicBool) -> Result<bool, FileError> {
    let mut to = create_anew(again).map_err(failed("open", again))?;
    reserve(&to, old.len()).map_err(failed("reserve room for", again))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => to.write_all(chunk.get(..len).unwrap_or_default()).map_err(failed("write", again))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path)(error)),
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let own = to.metadata().map_err(failed("look at", again))?;
        // Who may not give files away keeps them.
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            let _ = fchown(&to, Some(old.uid()), Some(old.gid()));
        }
        to.set_permissions(old.permissions()).map_err(failed("set permissions of", again))?;
    }
    to.sync_all().map_err(failed("sync", again))?;
    Ok(true)
}

/// Writes the bytes of a file over themselves, and puts them on disk: where there is no room for a second one. Whoever reads it meanwhile,
/// or finds it after a crash, finds these bytes.
fn overwrite(path: &Path, mut from: File, stop: &AtomicBool) -> Result<(), FileError> {
    let mut to = create().open(path).map_err(failed("open", path))?;
    from.rewind().map_err(failed("read", path))?;
    let mut chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        match from.read(&mut chunk) {
            Ok(0) => return to.sync_all().map_err(failed("sync", path)),
            Ok(len) => to.write_all(chunk.get(..len).unwrap_or_default()).map_err(failed("write", path))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path)(error)),
        }
    }
    Ok(())
}

/// Bytes that are read at once.
const CHUNK: usize = 1 << 17;

/// What no history file has.
const MAX_HISTORY: u64 = 16 << 20;

/// A file whose length is none of a segment.
fn wrong_size(path: &Path, found: u64, expected: u32) -> FileError {
    unusable(path, format!("{found} bytes: expected {expected}"))
}

/// A file that is not what its name says.
fn unusable(path: &Path, problem: String) -> FileError {
    FileError { path: path.to_owned(), doing: "use", error: io::Error::new(io::ErrorKind::InvalidData, problem) }
}

/// How files are opened: to be written, and read by nobody else, as WAL has what the tables have. Links are not followed, whoever put them
/// there, and a pipe is not waited for. C: `pg_file_create_mode`.
fn create() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    options
}

/// Creates a new file, removing whatever has its name.
fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create().create_new(true).open(path)
}

/// Opens a file to read it. What is none, as a pipe, is an error and not waited for.
fn open_file(path: &Path) -> io::Result<File> {
    input_file::open_regular(path)
}

/// Gives a file a name that no file has: one that has it stays.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // The file system has no such renaming.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {}
            result => return Ok(result?),
        }
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(rustix::io::Errno::EXIST.into());
    }
    fs::rename(from, to)
}

/// Takes room on disk for `len` bytes, where the file system can.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len)) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {}
        Err(e) => return Err(e.into()),
    }
    if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) }
}

/// Has the names in a directory on disk.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), FileError> {
    File::open(dir).map_err(failed("open", dir))?.sync_all().map_err(failed("sync", dir))
}

/// Ends of the segments that became whole while WAL was written from `before` on up to `after`.
pub fn segment_ends(before: Lsn, after: Lsn, segment_size: u32) -> impl Iterator<Item = Lsn> {
    let size = u64::from(segment_size.max(1));
    (before.0 / size + 1..=after.0 / size).map(move |number| Lsn(number.saturating_mul(size)))
}

/// How far the WAL in a directory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The newest segment.
    pub segment: SegmentName,
    /// Where to go on: after it, if it is whole; after its last whole record, if it is not; at its start, if it is compressed. A
    /// record that ends the segment is written again, as the segment is not whole before that.
    pub next: Lsn,
    /// Start of the record before: the one at `next` links to it.
    pub previous: Option<Lsn>,
    /// Who wrote the WAL, as the newest of its last segments says that says it.
    pub origin: Option<Origin>,
    /// The newest segment is whole.
    pub is_whole: bool,
}

/// What a look at whole segments has shown, see [`Newest::check`].
#[derive(Debug)]
pub struct Checked {
    /// What has seen them; `None`: there are none, or the last one is damaged.
    pub decoder: Option<Decoder>,
    /// Behind the last of them.
    pub next: Lsn,
    /// The first damage.
    pub damage: Option<String>,
    /// The damage is that the newest segment, which is not whole, is longer than a segment: nothing can be written into it.
    pub is_too_long: bool,
}

impl Newest {
    /// The newest segment in `dir`, compressed or not: the one that lies furthest, on the newest timeline that has it; `None`: there is
    /// none.
    ///
    /// # Errors
    /// The directory or the segment cannot be read.
    pub fn find(dir: &Path, segment_size: u32) -> Result<Option<Newest>, FileError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed("read", dir))? {
            let path = entry.map_err(failed("read", dir))?.path();
            let Some((name, is_whole, is_packed)) = path.file_name().and_then(|name| segment(name.to_str()?)) else { continue };
            // What is no file is no segment, whatever it is called.
            if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
                continue;
            }
            if name.timeline.0 == 0 {
                return Err(unusable(&path, "no segment has this name: timelines begin with 1".to_owned()));
            }
            if SegmentName::new(name.timeline, name.number(segment_size), segment_size) != name {
                let last = SegmentName::new(name.timeline, u64::MAX >> 1, segment_size).seg;
                let problem = format!("no segment of {segment_size} bytes has this name: its last 8 digits are at most {last:08X}");
                return Err(unusable(&path, problem));
            }
            files.push(((name.number(segment_size), name.timeline, is_whole, !is_packed), name, path));
        }
        files.sort_unstable_by_key(|file| std::cmp::Reverse(file.0));
        let Some(((.., is_whole, is_plain), segment, path)) = files.first() else { return Ok(None) };
        let (segment, is_whole, start) = (*segment, *is_whole, segment.start(segment_size));
        // One that has just begun, or that is compressed and not whole, may not say it.
        let origin = files.iter().take(3).find_map(|(_, name, path)| Origin::of(path, *name));
        let (next, previous) = match (is_whole, is_plain) {
            (true, _) => (start + u64::from(segment_size), None),
            (false, true) => match last_record(path, start, start + u64::from(segment_size)).map_err(failed("read", path))? {
                Some((previous, next)) => (next, Some(previous)),
                None => (start, None),
            },
            (false, false) => (start, None),
        };
        Ok(Some(Newest { segment, next, previous, origin, is_whole }))
    }

    /// Writes anew what another process may have left in memory only, and puts it on disk: the newest segment, those before it from the one
    /// with `from` on. What is compressed and not whole is left out, as it begins again anyway.
    ///
    /// All other segments are on disk: nobody begins a segment before the one before it is there. It ends early when `stop` is set.
    ///
    /// # Errors
    /// The system cannot.
    pub fn rewrite(&self, dir: &Path, segment_size: u32, from: Option<Lsn>, stop: &AtomicBool) -> Result<(), FileError> {
        let newest = self.segment.number(segment_size);
        let first = from.map_or(newest, |lsn| lsn.segment_number(segment_size)).min(newest);
        for number in first..=newest {
            let name = SegmentName::new(self.segment.timeline, number, segment_size);
            for suffix in Compression::SUFFIXES {
                rewrite(&dir.join(format!("{name}{suffix}")), stop)?;
            }
        }
        let partial = dir.join(format!("{}{PARTIAL}", self.segment));
        // One that is too long is never used: see `Newest::check`.
        if !self.is_whole && fs::metadata(&partial).is_ok_and(|found| found.len() <= u64::from(segment_size)) {
            rewrite(&partial, stop)?;
        }
        sync_directory(dir)
    }

    /// Decodes the whole segments in `dir` on the newest one's timeline: the last one, and those from the one with `from` on.
    /// It ends early when `stop` is set.
    pub fn check(&self, dir: &Path, fmt: WalFormat, from: Option<Lsn>, stop: &AtomicBool) -> Checked {
        let size = fmt.segment_size;
        let end = self.segment.number(size) + u64::from(self.is_whole);
        // And the one before, which may have the start of a record.
        let first = from.map_or(u64::MAX, |lsn| lsn.segment_number(size)).min(end.saturating_sub(1)).saturating_sub(1);
        let next = SegmentName::new(self.segment.timeline, end, size).start(size);
        let mut checked = Checked { decoder: None, next, damage: None, is_too_long: false };
        let partial = dir.join(format!("{}{PARTIAL}", self.segment));
        if let (false, Ok(found)) = (self.is_whole, fs::metadata(&partial))
            && found.len() > u64::from(size)
        {
            checked.damage = Some(format!("{}: {} bytes: a segment has {size}", partial.display(), found.len()));
            checked.is_too_long = true;
            return checked;
        }
        for number in (first..end).take_while(|_| !stop.load(Ordering::Relaxed)) {
            let name = SegmentName::new(self.segment.timeline, number, size);
            let files = Compression::SUFFIXES.map(|suffix| dir.join(format!("{name}{suffix}")));
            let Some(path) = files.iter().find(|path| path.exists()) else {
                checked.decoder = None;
                continue;
            };
            let start = Decoder::strict_at(name.start(size), fmt);
            let system = self.origin.map(|origin| origin.system_identifier);
            match decode(path, name, fmt, system, checked.decoder.take().unwrap_or(start), stop) {
                Ok(decoder) => checked.decoder = Some(decoder),
                Err(problem) => checked.damage = checked.damage.or(Some(problem)),
            }
        }
        checked
    }
}

/// Decodes a whole segment; what is wrong with it.
fn decode(
    path: &Path,
    name: SegmentName,
    fmt: WalFormat,
    system: Option<u64>,
    mut decoder: Decoder,
    stop: &AtomicBool,
) -> Result<Decoder, String> {
    let segment = Segment::open(path).map_err(|error| error.to_string())?;
    // First, as it tells more than a length or a damaged page: which server, cluster or segment it is.
    if let Some(problem) = page_problem(segment.bytes(), name, fmt.major, fmt.segment_size, system) {
        return Err(format!("{}: {problem}", path.display()));
    }
    if segment.bytes().len() as u64 != u64::from(fmt.segment_size) {
        return Err(format!("{}: {} bytes: expected {}", path.display(), segment.bytes().len(), fmt.segment_size));
    }
    for mut chunk in segment.bytes().chunks(CHUNK).take_while(|_| !stop.load(Ordering::Relaxed)) {
        loop {
            match decoder.next_in(&mut chunk).and_then(|raw| raw.map(|raw| raw.decode().map(drop)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => break,
                Err(error) => {
                    // Without a page header, the decoder does not know the timeline.
                    let location = error.location();
                    let segment = SegmentName { timeline: name.timeline, ..location.segment };
                    let error = if location.segment.timeline.0 > 0 {
                        error
                    } else {
                        pgwal::Error::new(error.kind().clone(), Location { segment, ..location })
                    };
                    return Err(error.to_string());
                }
            }
        }
    }
    Ok(decoder)
}

/// The segment that a file's name tells, whether it is whole, and whether it is compressed.
fn segment(file: &str) -> Option<(SegmentName, bool, bool)> {
    let (rest, is_whole) = file.strip_suffix(PARTIAL).map_or((file, true), |rest| (rest, false));
    let packed = Compression::SUFFIXES.iter().filter(|suffix| !suffix.is_empty()).find_map(|suffix| rest.strip_suffix(suffix));
    Some((packed.unwrap_or(rest).parse().ok()?, is_whole, packed.is_some()))
}

/// Start and end of the last whole record of a segment from `start` to `end`, but for one that ends the segment.
fn last_record(path: &Path, start: Lsn, end: Lsn) -> io::Result<Option<(Lsn, Lsn)>> {
    let mut file = open_file(path)?;
    let mut chunk = vec![0; 1 << 20];
    let mut decoder = Decoder::new();
    let mut last = None;
    loop {
        let len = file.read(&mut chunk)?;
        decoder.feed(chunk.get(..len).unwrap_or_default());
        while let Ok(Some(raw)) = decoder.next_record() {
            // A whole record of another segment is none of this one.
            if raw.lsn >= start && raw.end < end {
                last = Some((raw.lsn, raw.end));
            }
        }
        if len == 0 || decoder.end().is_some() || decoder.next_record().is_err() {
            return Ok(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Zstd;
    use pgwal_testkit::fixtures;

    /// Two segments that follow each other, of a real server, and the timeline that they are on.
    fn pair() -> (TimelineId, Vec<Vec<u8>>, SegmentName) {
        let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 15 && fixture.scenario == "pgbench").unwrap();
        let paths = fixture.segments();
        let name: SegmentName = paths[0].file_name().unwrap().to_str().unwrap().get(..24).unwrap().parse().unwrap();
        let segments = fixture.timelines().concat();
        (name.timeline, segments, name)
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn segments_are_partial_until_they_are_whole() {
        let (timeline, segments, name) = pair();
        let size = segments[0].len() as u32;
        let start = name.start(size);
        for compression in [Compression::None, Compression::Gzip(5), Compression::Lz4, Compression::Zstd(Zstd::DEFAULT)] {
            let dir = tempfile::tempdir().unwrap();
            let suffix = compression.suffix();
            let mut out = Segments::new(dir.path(), size, compression);
            let wal = &segments[0];
            let (first, second) = wal.split_at(100_001);
            assert_eq!(out.write(timeline, start, first).unwrap(), 0);
            assert_eq!(names(dir.path()), [format!("{name}{suffix}.partial")]);
            out.sync().unwrap();
            assert_eq!(out.write(timeline, start + first.len() as u64, second).unwrap(), 1);
            assert_eq!(names(dir.path()), [format!("{name}{suffix}")]);
            let whole = pgwal::Segment::open(dir.path().join(format!("{name}{suffix}"))).unwrap();
            assert!(whole.bytes() == wal.as_slice(), "{compression:?}");
            let newest = Newest::find(dir.path(), size).unwrap().unwrap();
            assert_eq!((newest.segment, newest.next, newest.previous), (name, start + u64::from(size), None));
            let (_, header) = pgwal::page::PageHeader::read(wal).unwrap();
            let found = newest.origin.map(|origin| (origin.segment, origin.major, origin.segment_size, origin.system_identifier));
            assert_eq!(found, header.long.map(|long| (name, 15, size, long.system_identifier)));
        }
    }

    #[test]
    fn what_is_compressed_stays_until_there_is_as_much_again() {
        let (timeline, segments, name) = pair();
        let size = segments[0].len() as u32;
        let (start, wal) = (name.start(size), &segments[0]);
        for compression in [Compression::Gzip(5), Compression::Lz4, Compression::Zstd(Zstd::DEFAULT)] {
            let dir = tempfile::tempdir().unwrap();
            let partial = dir.path().join(format!("{name}{}{PARTIAL}", compression.suffix()));
            let kept = || unpacked_len(File::open(&partial).unwrap(), compression, u64::MAX);
            let mut out = Segments::new(dir.path(), size, compression);
            out.write(timeline, start, &wal[..500_000]).unwrap();
            out.sync().unwrap();
            // Killed: nothing ends what is compressed.
            std::mem::forget(out);
            let had = kept();
            assert!(had >= 400_000, "{compression:?}: {had}");
            for (len, expected) in [(100_000, had), (600_000, 600_000), (1_000, 600_000)] {
                let mut out = Segments::new(dir.path(), size, compression);
                out.write(timeline, start, &wal[..len]).unwrap();
                out.sync().unwrap();
                assert!(kept() >= had, "{compression:?}, {len}");
                out.close().unwrap();
                assert_eq!(kept(), expected, "{compression:?}, {len}");
            }
            fs::write(dir.path().join(format!("{name}{PARTIAL}")), &wal[..1000]).unwrap();
            let mut out = Segments::new(dir.path(), size, compression);
            assert_eq!(out.write(timeline, start, wal).unwrap(), 1);
            assert_eq!(names(dir.path()), [format!("{name}{}", compression.suffix())], "nor of another compression");
        }
    }

    #[test]
    fn writing_goes_on_behind_the_last_whole_record() {
        let (timeline, segments, name) = pair();
        let size = segments[0].len() as u32;
        let (start, wal) = (name.start(size), &segments[0]);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Newest::find(dir.path(), size).unwrap(), None);
        for cut in [0, 1, 100, 8192, 123_457, wal.len() - 1] {
            let mut out = Segments::new(dir.path(), size, Compression::None);
            out.write(timeline, start, &wal[..cut.max(1)]).unwrap();
            out.close().unwrap();
            let newest = Newest::find(dir.path(), size).unwrap().unwrap();
            let at = newest.next.segment_offset(size) as usize;
            assert!(newest.next >= start && at <= cut.max(1) + 7, "{newest:?}");
            assert!(cut < 100_000 || newest.previous.is_some(), "{newest:?}");
            let mut out = Segments::new(dir.path(), size, Compression::None);
            assert_eq!(out.write(timeline, newest.next, &wal[at..]).unwrap(), 1);
            assert!(fs::read(dir.path().join(name.to_string())).unwrap() == *wal);
            fs::remove_file(dir.path().join(name.to_string())).unwrap();
        }
    }

    #[test]
    fn the_furthest_segment_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let size = 16 << 20;
        for file in ["000000010000000000000005", "00000002.history", "000000010000000000000007.gz", "000000020000000000000007.lz4.partial"]
        {
            fs::write(dir.path().join(file), b"").unwrap();
        }
        let newest = Newest::find(dir.path(), size).unwrap().unwrap();
        assert_eq!((newest.segment.to_string().as_str(), newest.next), ("000000020000000000000007", Lsn(7 << 24)));
        fs::write(dir.path().join("000000020000000000000007.zst"), b"").unwrap();
        assert_eq!(Newest::find(dir.path(), size).unwrap().unwrap().next, Lsn(8 << 24));
    }

    #[test]
    fn a_history_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = Segments::new(dir.path(), 1 << 20, Compression::None);
        assert_eq!(out.history(TimelineId(2)).unwrap(), None);
        let content = b"1\t0/3000148\tno recovery target specified\n";
        out.write_history(TimelineId(2), content).unwrap();
        assert_eq!(names(dir.path()), ["00000002.history"]);
        assert_eq!(out.history(TimelineId(2)).unwrap().as_deref(), Some(&content[..]));
    }

    #[test]
    fn what_was_left_is_written_anew_with_its_owner_and_permissions() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let (timeline, segments, name) = pair();
        let size = segments[0].len() as u32;
        let dir = tempfile::tempdir().unwrap();
        let mut out = Segments::new(dir.path(), size, Compression::None);
        out.write(timeline, name.start(size), &[&segments[0][..], &segments[0][..500_000]].concat()).unwrap();
        out.close().unwrap();
        out.write_history(timeline, b"history").unwrap();
        let before = names(dir.path());
        let look = || -> Vec<(u64, u32, Vec<u8>)> {
            let path = |name: &String| dir.path().join(name);
            let one = |path: PathBuf| (path.metadata().unwrap().ino(), path.metadata().unwrap().mode(), fs::read(&path).unwrap());
            before.iter().map(path).map(one).collect()
        };
        fs::set_permissions(dir.path().join(&before[0]), fs::Permissions::from_mode(0o640)).unwrap();
        let old = look();
        let newest = Newest::find(dir.path(), size).unwrap().unwrap();
        newest.rewrite(dir.path(), size, None, &AtomicBool::new(true)).unwrap();
        assert!(look() == old, "told to stop, it does nothing");
        newest.rewrite(dir.path(), size, None, &AtomicBool::new(false)).unwrap();
        let new = look();
        let is_new: Vec<bool> = old.iter().zip(&new).map(|(old, new)| old.0 != new.0).collect();
        assert_eq!((is_new.as_slice(), before.len()), (&[false, false, true][..], 3), "{before:?}");
        out.rewrite_history(timeline).unwrap();
        assert_ne!(look()[0].0, old[0].0);
        newest.rewrite(dir.path(), size, Some(name.start(size) + 5), &AtomicBool::new(false)).unwrap();
        assert_ne!(look()[1].0, old[1].0, "from the slot's position on");
        assert!(look().iter().zip(&old).all(|(new, old)| (new.1, &new.2) == (old.1, &old.2)));
        assert_eq!(names(dir.path()), before);
    }

    #[test]
    fn what_is_longer_than_a_segment_never_becomes_one() {
        let (timeline, segments, name) = pair();
        let size = segments[0].len() as u32;
        let dir = tempfile::tempdir().unwrap();
        let partial = dir.path().join(format!("{name}{PARTIAL}"));
        let long = [&segments[0][..], b"more"].concat();
        fs::write(&partial, &long).unwrap();
        let newest = Newest::find(dir.path(), size).unwrap().unwrap();
        let fmt = WalFormat { segment_size: size, ..WalFormat::new(15) };
        let checked = newest.check(dir.path(), fmt, None, &AtomicBool::new(false));
        assert!(checked.is_too_long && checked.damage.unwrap().ends_with(&format!(" bytes: a segment has {size}")));
        let mut out = Segments::new(dir.path(), size, Compression::None);
        let error = out.write(timeline, name.start(size), &segments[0]).unwrap_err().to_string();
        assert!(error.starts_with("could not use \"") && error.contains(&format!("expected {size}")), "{error}");
        // It has grown since it was opened.
        fs::write(&partial, &segments[0][..1000]).unwrap();
        out.write(timeline, name.start(size), &segments[0][..2000]).unwrap();
        fs::write(&partial, &long).unwrap();
        out.write(timeline, name.start(size) + 2000, &segments[0][2000..]).unwrap_err();
        assert_eq!(names(dir.path()), [format!("{name}{PARTIAL}")]);
    }

    #[test]
    fn what_is_not_this_segment_is_left_alone_and_named() {
        let (timeline, segments, name) = pair();
        let size = segments[0].len() as u32;
        let start = name.start(size);
        let other = SegmentName::new(timeline, name.number(size) + 1, size);
        let mut elsewhere = segments[0][..1000].to_vec();
        elsewhere[8..16].copy_from_slice(&other.start(size).0.to_le_bytes());
        // What lies where the segment is to be written.
        let text = b"precious notes\n".as_slice();
        for (suffix, content, problem) in [
            ("", text, "it begins with \"precious notes\\n\", which is not WAL; move it away"),
            ("", &elsewhere, &format!("so it is segment {other} by another name")),
            (".gz", text, "which is not a file of .gz; move it away"),
            (".lz4", text, "which is not a file of .lz4; move it away"),
            (".zst", text, "which is not a file of .zst; move it away"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(format!("{name}{suffix}{PARTIAL}"));
            fs::write(&path, content).unwrap();
            let mut out = Segments::new(dir.path(), size, Compression::of_name(suffix));
            let error = out.write(timeline, start, &segments[0]).unwrap_err();
            assert!(error.is_unusable() && error.to_string().ends_with(problem), "{error}");
            assert_eq!((fs::read(&path).unwrap(), names(dir.path()).len()), (content.to_vec(), 1), "{suffix}");
            // Nor is it taken for what an attempt with another compression has left.
            let method = if suffix.is_empty() { Compression::Lz4 } else { Compression::None };
            assert_eq!(Segments::new(dir.path(), size, method).write(timeline, start, &segments[0]).unwrap(), 1);
            assert_eq!(fs::read(&path).unwrap(), content, "{suffix}");
        }
        // What may be the start of this one: nothing, zeroes, and as much of it as there was time for.
        for content in [&b""[..], &[0; 10], &[0; 9000], &segments[0][..2], &segments[0][..30], &segments[0][..38], &segments[0][..9000]] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(format!("{name}{PARTIAL}")), content).unwrap();
            assert_eq!(Segments::new(dir.path(), size, Compression::None).write(timeline, start, &segments[0]).unwrap(), 1);
        }
        // Names that no segment has, and a whole segment under the name of another.
        let fmt = WalFormat { segment_size: size, ..WalFormat::new(15) };
        let wrong = |file: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(file), &segments[0]).unwrap();
            match Newest::find(dir.path(), size) {
                Ok(newest) => newest.unwrap().check(dir.path(), fmt, None, &AtomicBool::new(false)).damage.unwrap(),
                Err(error) => error.to_string(),
            }
        };
        let last = (1 << 32) / u64::from(size) - 1;
        let other_timeline = SegmentName { timeline: TimelineId(timeline.0 + 1), ..name };
        let mut newer = segments[0].clone();
        newer[4] += 1;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name.to_string()), &newer).unwrap();
        let said = Newest::find(dir.path(), size).unwrap().unwrap().check(dir.path(), fmt, None, &AtomicBool::new(false)).damage.unwrap();
        assert!(said.ends_with(&format!("so it is segment {other_timeline} by another name")), "{said}");
        for (file, problem) in [
            ("0000000000000000000000FE".to_owned(), "timelines begin with 1".to_owned()),
            (
                format!("0000000100000000{:08X}", last + 1),
                format!("no segment of {size} bytes has this name: its last 8 digits are at most {last:08X}"),
            ),
            (other.to_string(), format!("its first page says {start} on timeline {timeline}, so it is segment {name} by another name")),
        ] {
            let said = wrong(&file);
            assert!(said.contains(&file) && said.ends_with(&problem), "{said}");
        }
    }

    #[test]
    fn files_have_the_permissions_that_are_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for (mode, name, timeline) in [(Policy::OWNER, "00000002", 2), (Policy::GROUP, "00000003", 3)] {
            let policy = Policy { sync: false, mode };
            let mut out = Segments::new(dir.path(), 1 << 20, Compression::None).with(policy);
            out.write(TimelineId(timeline), Lsn(0), &[1; 1000]).unwrap();
            out.write_history(TimelineId(timeline), b"history").unwrap();
            out.sync().unwrap();
            out.close().unwrap();
            for file in names(dir.path()).into_iter().filter(|file| file.starts_with(name)) {
                let found = fs::metadata(dir.path().join(&file)).unwrap().permissions().mode();
                assert_eq!(found & 0o777, mode, "{file}");
            }
        }
    }

    #[test]
    fn ends_of_segments_on_the_way() {
        let ends = |before: u64, after: u64| segment_ends(Lsn(before), Lsn(after), 16).map(|lsn| lsn.0).collect::<Vec<_>>();
        assert_eq!(ends(0, 15), [0_u64; 0]);
        assert_eq!(ends(0, 16), [16]);
        assert_eq!(ends(16, 31), [0_u64; 0]);
        assert_eq!(ends(17, 64), [32, 48, 64]);
        assert_eq!(ends(64, 17), [0_u64; 0]);
    }

    #[test]
    fn an_error_names_the_file() {
        let mut out = Segments::new("/nowhere", 1 << 20, Compression::None);
        let error = out.write(TimelineId(1), Lsn(1 << 20), b"WAL").unwrap_err().to_string();
        assert!(error.starts_with("could not open \"/nowhere/000000010000000000000001.partial\": "), "{error}");
    }
}
