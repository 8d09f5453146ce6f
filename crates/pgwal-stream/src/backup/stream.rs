//! What a server sends of a base backup: archives and a manifest, one after the other. C: backup/basebackup_copy.c (in replication/ up to
//! 14, where each archive is a COPY of its own).

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgwal::{Lsn, TimelineId};

use super::{BackupError, Notice, answer, as_path};
use crate::command::{BaseBackup, Command};
use crate::connection::{self, Connection, CopyEvent, CopyStart, ResultSet};
use crate::message::FromBackup;

/// A tablespace, the data directory among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID, which its archive is named after; `None`: the data directory.
    pub oid: Option<u32>,
    /// Its directory on the server; empty for the data directory.
    pub location: PathBuf,
    /// Bytes in it, as far as the server has looked; `None`: it was not to look.
    pub size: Option<u64>,
}

/// A place in the WAL of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The place.
    pub lsn: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
}

/// What begins in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// An archive.
    Archive {
        /// Its name: `base.tar`, or the OID of a tablespace; with a suffix where the server compresses.
        name: String,
        /// The tablespace's directory on the server; `None`: it is that of the data directory.
        tablespace: Option<PathBuf>,
    },
    /// The manifest.
    Manifest,
    /// Nothing: this is where replay of the WAL must come to at least.
    End(Place),
}

/// The stream of a base backup. Between calls of [`BackupStream::next_part`] it is a [`Read`] of the part's bytes.
pub struct BackupStream<'c> {
    connection: &'c mut Connection,
    /// Where the backup starts.
    pub start: Place,
    /// The tablespaces, in the order of their archives before 15.
    pub tablespaces: Vec<Tablespace>,
    /// From 15 on all parts are in one COPY.
    is_one: bool,
    /// Before 15: how many COPYs have begun.
    begun: usize,
    wants_manifest: bool,
    /// A part has begun.
    has_part: bool,
    /// What came of a message and has not been asked for yet.
    rest: Vec<u8>,
    rest_at: usize,
    /// A part that begins where the one before ended.
    pending: Option<Part>,
    is_ended: bool,
    error: Option<BackupError>,
    notice: &'c mut dyn FnMut(Notice<'_>),
    /// Says that there is no use in going on.
    given_up: &'c dyn Fn() -> bool,
    done: u64,
    /// The file that is being written, for whoever is told of the progress.
    file: Rc<RefCell<PathBuf>>,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the server has read for it.
    pub done: u64,
    /// Bytes that there were when it began; `None`: nobody has looked.
    pub total: Option<u64>,
}

/// So often the stream looks whether it is given up while nothing comes.
const LOOK: Duration = Duration::from_secs(1);

impl<'c> BackupStream<'c> {
    /// Starts a backup: returns when the server has done its checkpoint.
    ///
    /// # Errors
    /// The server refuses, or its answer is not what it should be.
    pub fn start(
        connection: &'c mut Connection,
        backup: &BaseBackup<'_>,
        notice: &'c mut dyn FnMut(Notice<'_>),
        given_up: &'c dyn Fn() -> bool,
    ) -> Result<BackupStream<'c>, BackupError> {
        let sets = match connection.copy_out(&Command::BaseBackup(*backup).to_string())? {
            CopyStart::Started(sets) => sets,
            CopyStart::Finished(sets) => return Err(answer("archives", format!("{} result sets", sets.len()))),
        };
        let [start, tablespaces] = sets.as_slice() else {
            return Err(answer("a start and a list of tablespaces", format!("{} result sets", sets.len())));
        };
        let start = place(start)?;
        let tablespaces = (0..tablespaces.rows.len()).map(|row| tablespace(tablespaces, row)).collect::<Result<Vec<_>, _>>()?;
        let mut stream = BackupStream {
            connection,
            start,
            tablespaces,
            is_one: backup.major >= 15,
            begun: 0,
            wants_manifest: backup.manifest.is_some(),
            has_part: false,
            rest: Vec::new(),
            rest_at: 0,
            pending: None,
            is_ended: false,
            error: None,
            notice,
            given_up,
            done: 0,
            file: Rc::default(),
        };
        if !stream.is_one {
            stream.pending = Some(stream.of_old()?);
        }
        Ok(stream)
    }

    /// Whether the server was asked for a manifest.
    pub fn wants_manifest(&self) -> bool {
        self.wants_manifest
    }

    /// Goes on to the next part; what has not been read of this one is passed over.
    ///
    /// # Errors
    /// The connection breaks, the server ends the backup with an error, or sends what is none.
    pub fn next_part(&mut self) -> Result<Part, BackupError> {
        let mut passed_over = [0; 8192];
        while !self.is_ended && self.pending.is_none() {
            match self.read(&mut passed_over) {
                Ok(1..) if !self.has_part => return Err(answer("the start of an archive", "data of none".to_owned())),
                Ok(_) => {}
                Err(e) => return Err(self.explain("", e)),
            }
        }
        match self.pending.take() {
            Some(part) => {
                self.has_part = true;
                Ok(part)
            }
            None => {
                let sets = self.connection.finish_copy(None)?;
                self.pass_notices();
                let end = sets.iter().find(|set| set.rows.len() == 1).ok_or_else(|| answer("an end", "no row".to_owned()))?;
                place(end).map(Part::End)
            }
        }
    }

    /// What an error of reading `part` is about: the stream's own error, or else what the part is like.
    pub fn explain(&mut self, part: &str, error: io::Error) -> BackupError {
        let problem = error.to_string();
        self.error.take().unwrap_or_else(|| BackupError::Archive { archive: part.to_owned(), problem })
    }

    /// Before 15: the part that the COPY which begins is of.
    fn of_old(&mut self) -> Result<Part, BackupError> {
        let at = self.begun;
        self.begun += 1;
        match self.tablespaces.get(at) {
            Some(Tablespace { oid: Some(oid), location, .. }) => {
                Ok(Part::Archive { name: format!("{oid}.tar"), tablespace: Some(location.clone()) })
            }
            Some(Tablespace { oid: None, .. }) => Ok(Part::Archive { name: "base.tar".to_owned(), tablespace: None }),
            None if at == self.tablespaces.len() && self.wants_manifest => Ok(Part::Manifest),
            None => Err(answer("the end of the backup", "another COPY".to_owned())),
        }
    }

    /// The next bytes of this part go to the front of `buf`, and what does not fit is kept; 0: the part is over.
    fn fill(&mut self, buf: &mut [u8]) -> Result<usize, BackupError> {
        while !self.is_ended && self.pending.is_none() {
            if (self.given_up)() {
                return Err(BackupError::GivenUp);
            }
            self.pass_notices();
            match self.connection.next_copy(Instant::now().checked_add(LOOK))? {
                CopyEvent::Data(message) => {
                    let data = if self.is_one { FromBackup::read(message)? } else { FromBackup::Data(message) };
                    match data {
                        FromBackup::Data(data) if !data.is_empty() => {
                            let len = copy(data, buf);
                            self.rest.clear();
                            self.rest.extend_from_slice(data.get(len..).unwrap_or_default());
                            self.rest_at = 0;
                            if !self.is_one {
                                self.done += data.len() as u64;
                                self.report();
                            }
                            return Ok(len);
                        }
                        FromBackup::Data(_) => {}
                        FromBackup::Archive { name, tablespace } => {
                            let tablespace = (!tablespace.is_empty()).then(|| PathBuf::from(tablespace));
                            self.pending = Some(Part::Archive { name: name.to_owned(), tablespace });
                        }
                        FromBackup::Manifest => self.pending = Some(Part::Manifest),
                        FromBackup::Progress(done) => {
                            self.done = done;
                            self.report();
                        }
                    }
                }
                CopyEvent::Timeout => {}
                // Only what is streamed both ways ends so.
                CopyEvent::ShutDown => return Err(connection::Error::Tag { expected: "CopyData", found: b'C' }.into()),
                CopyEvent::Interrupted => return Err(connection::Error::Interrupted.into()),
                CopyEvent::Done if self.is_one || self.begun > self.tablespaces.len() => self.is_ended = true,
                CopyEvent::Done if self.begun == self.tablespaces.len() && !self.wants_manifest => self.is_ended = true,
                CopyEvent::Done => match self.connection.more_copies()? {
                    CopyStart::Started(_) => self.pending = Some(self.of_old()?),
                    CopyStart::Finished(_) => return Err(answer("another archive", "the end".to_owned())),
                },
            }
        }
        Ok(0)
    }

    /// Passes on what the server has said besides.
    fn pass_notices(&mut self) {
        for message in self.connection.take_notices() {
            self.say(Notice::Server(&message));
        }
    }

    /// Tells whoever takes the backup.
    pub fn say(&mut self, notice: Notice<'_>) {
        (self.notice)(notice);
    }

    fn report(&mut self) {
        let total = self.tablespaces.iter().map(|tablespace| tablespace.size).sum();
        let progress = Progress { done: self.done, total };
        let file = self.file.borrow().clone();
        self.say(Notice::Progress { progress, file: &file });
    }

    /// Where to say which file is being written.
    pub(super) fn file(&self) -> Rc<RefCell<PathBuf>> {
        Rc::clone(&self.file)
    }
}

impl Read for BackupStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.rest.get(self.rest_at..).unwrap_or_default();
        if !rest.is_empty() {
            let len = copy(rest, buf);
            self.rest_at += len;
            return Ok(len);
        }
        self.fill(buf).map_err(|error| {
            let text = error.to_string();
            self.error = Some(error);
            io::Error::other(text)
        })
    }
}

/// Copies as much as there is room for; how much that is.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..len), to.get_mut(..len)) {
        to.copy_from_slice(from);
    }
    len
}

/// An LSN and a timeline, as the only row of a result set.
fn place(set: &ResultSet) -> Result<Place, BackupError> {
    let lsn = set.text(0, 0).and_then(|text| text.parse().ok());
    let timeline = set.text(0, 1).and_then(|text| text.parse().ok()).map(TimelineId);
    match (lsn, timeline) {
        (Some(lsn), Some(timeline)) if set.rows.len() == 1 => Ok(Place { lsn, timeline }),
        _ => Err(answer("one row of an LSN and a timeline", format!("{} rows", set.rows.len()))),
    }
}

fn tablespace(set: &ResultSet, row: usize) -> Result<Tablespace, BackupError> {
    let number = |column: usize| set.text(row, column).map(|text| text.parse::<u64>().map_err(|_| answer("a number", text.to_owned())));
    let oid = number(0).transpose()?.map(|oid| u32::try_from(oid).map_err(|_| answer("an OID", oid.to_string()))).transpose()?;
    let location = as_path(set.bytes(row, 1).unwrap_or_default());
    // In kilobytes.
    let size = number(2).transpose()?.map(|size| size.saturating_mul(1024));
    Ok(Tablespace { oid, location, size })
}
