//! Checkpoints.

use serde::Serialize;

use super::CAP;
use crate::lsn::{Lsn, TimelineId};
use crate::rmgr::xlog;
use crate::types::TimestampTz;

/// Why a checkpoint was taken, as far as the WAL tells. Whether an online one came by `checkpoint_timeout`, `max_wal_size` or on
/// request is not in the WAL, but in the server's log (`log_checkpoints`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The server ran on.
    Online,
    /// A base backup started: one that also ended in this WAL.
    Backup,
    /// Recovery had ended with a new timeline, by a record of its own (`END_OF_RECOVERY`).
    Promotion,
    /// The server shut down; or it recovered from a crash that cut off no transaction, which looks the same.
    Shutdown,
    /// The server had recovered from a crash: transactions before it never ended.
    CrashRecovery,
    /// Recovery ended, and a new timeline begins.
    EndOfRecovery,
}

impl Cause {
    /// Its name, as JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Online => "online",
            Cause::Backup => "backup",
            Cause::Promotion => "promotion",
            Cause::Shutdown => "shutdown",
            Cause::CrashRecovery => "crash_recovery",
            Cause::EndOfRecovery => "end_of_recovery",
        }
    }
}

/// A checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Start of its record, which is written when it is complete.
    pub lsn: Lsn,
    /// Where replay after a crash starts: the position of the WAL when the checkpoint began. C: `CheckPoint.redo`.
    pub redo: Lsn,
    /// Bytes of WAL from the redo position of the checkpoint before to this one's, what `log_checkpoints` calls distance; `None`
    /// for the first one.
    pub distance: Option<u64>,
    /// When it began, in whole seconds. C: `CheckPoint.time`.
    pub time: TimestampTz,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Why it was taken.
    pub cause: Cause,
    /// Transactions that had not ended before, and now never will.
    pub lost_transactions: u64,
}

/// Checkpoints of all parts.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    rows: Vec<Checkpoint>,
    /// How many there were, also those that there was no room for.
    pub(super) count: u64,
    previous_redo: Option<Lsn>,
    promoted: bool,
}

impl Checkpoints {
    pub(super) fn add(&mut self, lsn: Lsn, is_shutdown: bool, checkpoint: &xlog::Checkpoint, lost_transactions: u64) {
        let xlog::Checkpoint { redo, timeline, prev_timeline, time, .. } = *checkpoint;
        let promoted = std::mem::take(&mut self.promoted);
        let cause = match is_shutdown {
            _ if timeline != prev_timeline => Cause::EndOfRecovery,
            true if lost_transactions > 0 => Cause::CrashRecovery,
            true => Cause::Shutdown,
            false if promoted => Cause::Promotion,
            false => Cause::Online,
        };
        let distance = self.previous_redo.replace(redo).map(|previous| redo - previous);
        let micros = time.0.saturating_mul(1_000_000).saturating_sub(TimestampTz::UNIX_EPOCH_OFFSET);
        self.count += 1;
        if self.rows.len() < CAP {
            self.rows.push(Checkpoint { lsn, redo, distance, time: TimestampTz(micros), timeline, cause, lost_transactions });
        }
    }

    /// A base backup ended that started at `start`, the redo position of its checkpoint.
    pub(super) fn backup_ended(&mut self, start: Lsn) {
        let its = self.rows.iter_mut().rev().find(|row| row.redo == start);
        if let Some(row) = its.filter(|row| row.cause == Cause::Online) {
            row.cause = Cause::Backup;
        }
    }

    /// Recovery ended without a checkpoint; one follows.
    pub(super) fn promoted(&mut self) {
        self.promoted = true;
    }

    pub(super) fn rows(&self) -> &[Checkpoint] {
        &self.rows
    }
}
