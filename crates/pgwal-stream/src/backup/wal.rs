//! The WAL of a backup, streamed while it is taken. C: `StartLogStreamer` in bin/pg_basebackup/pg_basebackup.c.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pgwal::Lsn;

use super::stream::Place;
use super::{BackupError, Form, Job, Made, MadeSlot, Slot, TIMEOUT, create};
use crate::command::Command;
use crate::compress::Compression;
use crate::connection::{self, Connection, Mode};
use crate::receive::{self, Memory, Notice, Outcome, System, Walsender, receive};
use crate::receiver::OnDamage;
use crate::segments::{PARTIAL, Policy, failed, sync_directory};

/// Where the WAL lies before it becomes an archive.
const TEMPORARY_DIR: &str = "pg_wal.tmp";
/// A server gets so long to create a slot.
const ANSWER: Duration = Duration::from_secs(10);

/// What the two connections know of each other.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Everything before this LSN has been written.
    written: AtomicU64,
    /// Nothing from this LSN on is needed; unknown while the archives come.
    end: AtomicU64,
    /// There is no use in going on with the archives.
    failed: AtomicBool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress(Arc::new(Shared { written: AtomicU64::new(0), end: AtomicU64::new(u64::MAX), failed: AtomicBool::new(false) }))
    }
}

impl Progress {
    pub(super) fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Everything that is needed has been written. Each side stores what it knows before it asks, so one of them sees it.
    fn is_complete(&self) -> bool {
        self.0.written.load(Ordering::SeqCst) >= self.0.end.load(Ordering::SeqCst)
    }
}

/// A thread that receives the WAL.
pub(super) struct Streamer<'a> {
    thread: JoinHandle<Result<(), BackupError>>,
    dir: PathBuf,
    progress: Progress,
    /// Ends the thread.
    stop: Arc<AtomicBool>,
    /// Set from outside.
    interrupted: &'a AtomicBool,
    /// Directory of the marks of segments that are archived.
    marks: PathBuf,
    /// Permissions of directories.
    mode: u32,
}

impl<'a> Streamer<'a> {
    /// Starts to receive from the start of a backup in `backup`, once the slot is there. With the slot that was created for it, and whether
    /// that goes with the connection.
    pub(super) fn start(
        job: &Job<'a>,
        backup: &Path,
        start: Place,
        progress: &Progress,
        made: &mut Made,
    ) -> Result<(Streamer<'a>, Option<(String, bool)>), BackupError> {
        let dir = backup.join(if job.options.form == Form::Plain { "pg_wal" } else { TEMPORARY_DIR });
        let marks = dir.join("archive_status");
        for dir in [&dir, &marks] {
            if !dir.is_dir() {
                DirBuilder::new().mode(job.mode).create(dir).map_err(failed("create directory", dir))?;
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let connected = Connection::connect_until(job.config, Mode::Replication, Arc::clone(job.stop));
        let mut connection = connected.map_err(|e| BackupError::Wal(e.to_string()))?;
        connection.set_limit(job.config.connect_timeout.or(Some(TIMEOUT)));
        // With several hosts, it may be another server.
        let system = System::ask(&mut connection)?;
        if system.identifier != job.system.identifier {
            let (expected, found) = (job.system.identifier, system.identifier);
            return Err(BackupError::Wal(format!("the server has system identifier {found}: expected {expected}, that of the backup")));
        }
        let (slot, create) = match &job.options.slot {
            Slot::None => (None, None),
            Slot::Temporary => {
                // The server's process has a number of its own, other than clients on several machines.
                let number = connection.backend_pid().map_or_else(|| std::process::id().to_string(), |pid| pid.to_string());
                (Some(format!("{}_{number}", job.options.slot_prefix)), Some(true))
            }
            Slot::Named { name, create } => (Some(name.clone()), create.then_some(false)),
        };
        if let (Some(slot), Some(temporary)) = (&slot, create) {
            // Whoever is told to stop in between must know whether there is a slot to drop.
            connection.set_stop(None);
            connection.set_limit(Some(ANSWER));
            let created = connection.rows(&Command::CreateReplicationSlot { slot, temporary, reserve_wal: true });
            if !temporary {
                made.slot = match &created {
                    Ok(_) => MadeSlot::Created(slot.clone()),
                    Err(connection::Error::Server(_)) => MadeSlot::None,
                    Err(_) => MadeSlot::Unknown(slot.clone()),
                };
            }
            created?;
            connection.set_limit(Some(TIMEOUT));
        }
        let created = slot.clone().zip(create);
        connection.set_stop(Some(Arc::clone(&stop)));
        let options = receive::Options {
            dir: dir.clone(),
            compression: Compression::None,
            slot,
            synchronous: false,
            // They are put on disk at the end, with everything else.
            policy: Policy { sync: false, mode: job.mode & Policy::GROUP },
            status_interval: job.options.status_interval,
            end: None,
            on_damage: OnDamage::Stop,
            timeout: Some(TIMEOUT),
        };
        let run = {
            let (progress, stop) = (progress.clone(), Arc::clone(&stop));
            move || {
                // As if the WAL before the backup had been here.
                let memory = Memory { written: Some((start.timeline, start.lsn)), ..Memory::default() };
                let result = run(&mut connection, &options, memory, &progress, &stop);
                progress.0.failed.store(result.is_err(), Ordering::Relaxed);
                result
            }
        };
        let thread = std::thread::Builder::new().name("wal".to_owned()).spawn(run);
        let thread = thread.map_err(|e| BackupError::Wal(format!("no thread: {e}")))?;
        let streamer = Streamer { thread, dir, progress: progress.clone(), stop, interrupted: job.stop, marks, mode: job.mode };
        Ok((streamer, created))
    }

    /// Waits until all WAL before `end` is here; the directory that it is in.
    pub(super) fn finish(self, end: Place) -> Result<PathBuf, BackupError> {
        self.progress.0.end.store(end.lsn.0, Ordering::SeqCst);
        while !self.thread.is_finished() {
            if self.progress.is_complete() || self.interrupted.load(Ordering::Relaxed) {
                self.stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let is_complete = self.progress.is_complete();
        let (dir, marks, mode) = (self.dir.clone(), self.marks.clone(), self.mode);
        self.abandon()?;
        if !is_complete {
            return Err(BackupError::Server(crate::connection::Error::Interrupted));
        }
        name_files(&dir, &marks, mode)?;
        Ok(dir)
    }

    /// Ends it; what it came to.
    pub(super) fn abandon(self) -> Result<(), BackupError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(BackupError::Wal("the thread that receives it has died".to_owned())))
    }
}

/// What the thread does.
fn run(
    connection: &mut Connection,
    options: &receive::Options,
    mut memory: Memory,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<(), BackupError> {
    let outcome = receive(connection, options, &mut memory, stop, &mut |notice| {
        if let Notice::Written { written: Lsn(written), .. } = notice {
            progress.0.written.store(written, Ordering::SeqCst);
            if progress.is_complete() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    let outcome = match outcome {
        // All that is needed is here; how the connection ends does not matter.
        Err(error) if error.server().is_some() && progress.is_complete() => return Ok(()),
        outcome => outcome,
    };
    match outcome.map_err(|e| BackupError::Stream(Box::new(e)))? {
        Outcome::Stopped | Outcome::Reached(_) => Ok(()),
        Outcome::ShutDown => Err(BackupError::Wal("the server was shut down".to_owned())),
        Outcome::Ended => Err(BackupError::Wal("the server ended the stream".to_owned())),
    }
}

/// The last segment loses its `.partial`, as zeroes follow what is needed of it; and those that are whole are marked as archived, so that
/// the server that starts here does not archive them again.
fn name_files(dir: &Path, marks: &Path, mode: u32) -> Result<(), BackupError> {
    for entry in fs::read_dir(dir).map_err(failed("read directory", dir))? {
        let path = entry.map_err(failed("read directory", dir))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file()) else { continue };
        fs::set_permissions(&path, Permissions::from_mode(mode & 0o640)).map_err(failed("set permissions of", &path))?;
        match name.strip_suffix(PARTIAL) {
            Some(whole) => fs::rename(&path, dir.join(whole)).map_err(failed("rename", &path))?,
            None => drop(create(&marks.join(format!("{name}.done")), mode)?),
        }
    }
    sync_directory(marks)?;
    Ok(sync_directory(dir)?)
}
