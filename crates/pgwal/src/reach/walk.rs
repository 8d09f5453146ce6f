//! What recovery looks for in the records.

use super::{Stop, Target};
use crate::error::Error;
use crate::history::History;
use crate::lsn::{Lsn, TimelineId};
use crate::record::RawRecord;
use crate::rmgr::xlog::PgTime;
use crate::rmgr::{Payload, RmgrId, tblspc, xact, xlog};
use crate::scan::Work;
use crate::times;
use crate::types::{TimestampTz, Xid};

/// What recovery looks for in the records.
pub(super) struct Replay<'a> {
    pub(super) target: &'a Target,
    pub(super) inclusive: bool,
    /// The record of the checkpoint that replay starts from.
    pub(super) checkpoint: Option<Lsn>,
    /// Records that start before this one are read, and not replayed.
    pub(super) from: Lsn,
    /// Where the backup started whose end is looked for.
    pub(super) backup_start: Option<Lsn>,
    /// Replay must come here.
    pub(super) minimum: Option<Lsn>,
    /// The timelines that WAL may go over to.
    pub(super) history: &'a History,
}

/// What was seen in some of the records, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The record to stop at.
    pub(super) hit: Option<Mark>,
    /// Redo point of the checkpoint that replay starts from; invalid: another record is in its place.
    pub(super) checkpoint: Option<Lsn>,
    /// When that checkpoint began, to the second.
    pub(super) checkpoint_time: Option<PgTime>,
    /// The record that ends the backup.
    pub(super) backup_end: Option<Mark>,
    /// The first record that ends at the minimum recovery point or after it.
    pub(super) minimum: Option<Mark>,
    /// The first record that says wal_level=minimal.
    pub(super) minimal: Option<Mark>,
    /// The first record that goes over to a timeline which the history does not have, and that timeline.
    pub(super) strayed: Option<(Mark, TimelineId)>,
    /// Time of the last commit or abort.
    pub(super) last_transaction: Option<TimestampTz>,
    /// LSN after the last record.
    pub(super) end: Option<Lsn>,
    /// Start of the first record that is replayed.
    pub(super) first: Option<Lsn>,
    /// The highest values that hot standby needs, and the record with each.
    pub(super) settings: [Option<(i32, Lsn)>; SETTINGS.len()],
    /// Tablespaces that are created.
    pub(super) tablespaces: Vec<(u32, String, Lsn)>,
}

/// A record, and what was replayed up to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) lsn: Lsn,
    pub(super) end: Lsn,
    /// The last commit or abort before it.
    pub(super) before: Option<TimestampTz>,
    /// The last one, itself included.
    pub(super) until: Option<TimestampTz>,
    /// It is a commit or abort itself.
    pub(super) ends_transaction: bool,
}

/// Settings of a primary that a hot standby must not be below, and their defaults. C: `CheckRequiredParameterValues`.
pub(super) const SETTINGS: [(&str, i32); 5] = [
    ("max_connections", 100),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// C: `RM_TBLSPC_ID`.
const TBLSPC: RmgrId = RmgrId(5);

/// So many tablespaces are told of.
const TABLESPACES: usize = 100;

impl Seen {
    /// Adds what was seen in the records that follow.
    pub(super) fn add(&mut self, behind: Seen) {
        let known = self.last_transaction;
        let join = |ours: &mut Option<Mark>, theirs: Option<Mark>| {
            if ours.is_none() {
                *ours = theirs.map(|mark| Mark { before: mark.before.or(known), until: mark.until.or(known), ..mark });
            }
        };
        let is_over = self.hit.is_some();
        join(&mut self.hit, behind.hit);
        join(&mut self.backup_end, behind.backup_end);
        join(&mut self.minimum, behind.minimum);
        join(&mut self.minimal, behind.minimal);
        let mut strayed = self.strayed.map(|(mark, _)| mark);
        join(&mut strayed, behind.strayed.map(|(mark, _)| mark));
        self.strayed = strayed.zip(self.strayed.or(behind.strayed).map(|(_, timeline)| timeline));
        self.checkpoint = self.checkpoint.or(behind.checkpoint);
        self.checkpoint_time = self.checkpoint_time.or(behind.checkpoint_time);
        self.last_transaction = behind.last_transaction.or(self.last_transaction);
        self.end = behind.end.or(self.end);
        self.first = self.first.or(behind.first);
        if !is_over {
            for (ours, theirs) in self.settings.iter_mut().zip(behind.settings) {
                if theirs.map(|setting| setting.0) > ours.map(|setting| setting.0) {
                    *ours = theirs;
                }
            }
            let room = TABLESPACES.saturating_sub(self.tablespaces.len());
            self.tablespaces.extend(behind.tablespaces.into_iter().take(room));
        }
    }

    /// Where the search for the target may end: the stop, and the record that was replayed last.
    pub(super) fn stop(&self, target: &Target, inclusive: bool) -> Option<Stop> {
        let hit = self.hit?;
        let before = match target {
            Target::Time(_) => true,
            Target::Lsn(_) | Target::Xid(_) => !inclusive,
            Target::Name(_) | Target::Immediate | Target::Latest => false,
        };
        Some(match before {
            true => Stop { end: hit.lsn, read: hit.end, last_transaction: hit.before },
            false => Stop { end: hit.end, read: hit.end, last_transaction: hit.until },
        })
    }
}

impl Work for Replay<'_> {
    type Part = Seen;

    fn part(&self) -> Seen {
        Seen::default()
    }

    fn record(&self, raw: &RawRecord<'_>, part: &mut Seen) -> Result<(), Error> {
        // Like a server, which decodes a record before it asks what it is.
        let record = raw.decode()?;
        part.end = Some(raw.end);
        if self.checkpoint == Some(raw.lsn) {
            part.checkpoint = Some(Lsn::INVALID);
        }
        let payload = match raw.header.rmid {
            RmgrId::XACT | RmgrId::XLOG | TBLSPC => record.payload()?,
            _ => None,
        };
        if let Some(Payload::Xlog(xlog::Op::CheckpointOnline(checkpoint) | xlog::Op::CheckpointShutdown(checkpoint))) = &payload
            && self.checkpoint == Some(raw.lsn)
        {
            part.checkpoint = Some(checkpoint.redo);
            part.checkpoint_time = Some(checkpoint.time);
        }
        if raw.lsn < self.from {
            return Ok(());
        }
        part.first.get_or_insert(raw.lsn);
        let before = part.last_transaction;
        let mut ended: Option<(Xid, TimestampTz)> = None;
        if let Some(Payload::Transaction(op)) = &payload
            && let Some(time) = times::ended(op)
        {
            let own = raw.header.xid;
            let xid = match op {
                xact::Op::CommitPrepared(end) | xact::Op::AbortPrepared(end) => end.twophase_xid.unwrap_or(own),
                _ => own,
            };
            ended = Some((xid, time));
            part.last_transaction = Some(time);
        }
        let mark = Mark { lsn: raw.lsn, end: raw.end, before, until: part.last_transaction, ends_transaction: ended.is_some() };
        let is_hit = match self.target {
            Target::Latest | Target::Immediate => false,
            Target::Lsn(target) => raw.lsn >= *target,
            Target::Time(target) => ended.is_some_and(|(_, time)| if self.inclusive { time > *target } else { time >= *target }),
            Target::Xid(target) => ended.is_some_and(|(xid, _)| xid == *target),
            Target::Name(target) => {
                matches!(&payload, Some(Payload::Xlog(xlog::Op::RestorePoint(point))) if point.name.text().0 == target.as_bytes())
            }
        };
        if is_hit {
            part.hit.get_or_insert(mark);
        }
        if self.minimum.is_some_and(|minimum| raw.end >= minimum) {
            part.minimum.get_or_insert(mark);
        }
        if let Some(Payload::Xlog(op)) = &payload
            && let Some((_, timeline)) = op.timeline_switch()
            && !self.history.contains(timeline)
        {
            part.strayed.get_or_insert((mark, timeline));
        }
        match payload {
            Some(Payload::Xlog(xlog::Op::BackupEnd { start })) if self.backup_start == Some(start) => {
                part.backup_end.get_or_insert(mark);
            }
            Some(Payload::Xlog(xlog::Op::ParameterChange(change))) => {
                if change.wal_level.name() == "minimal" {
                    part.minimal.get_or_insert(mark);
                }
                let values = [
                    Some(change.max_connections),
                    Some(change.max_worker_processes),
                    *change.max_wal_senders,
                    Some(change.max_prepared_xacts),
                    Some(change.max_locks_per_xact),
                ];
                // What comes after the target is not replayed.
                if part.hit.is_some_and(|hit| hit.lsn < raw.lsn) {
                    return Ok(());
                }
                for (known, value) in part.settings.iter_mut().zip(values) {
                    if value > known.map(|known| known.0) {
                        *known = value.map(|value| (value, raw.lsn));
                    }
                }
            }
            Some(Payload::Tablespace(tblspc::Op::Create(create))) if part.tablespaces.len() < TABLESPACES => {
                let path = String::from_utf8_lossy(create.path.0).into_owned();
                if !path.is_empty() {
                    part.tablespaces.push((create.id.0, path, raw.lsn));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
