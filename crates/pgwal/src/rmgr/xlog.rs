//! XLOG, resource manager 0. C: access/xlog_internal.h, catalog/pg_control.h; text: rmgrdesc/xlogdesc.c.

use serde::{Serialize, Serializer};

use super::multixact::MultiXactOffset;
use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::lsn::{Lsn, TimelineId};
use crate::record::Record;
use crate::text::{Put, Text};
use crate::types::{FullXid, MultiXactId, Oid, TimestampTz, Xid};
use crate::wire::{Bytes, CBool, FixedSize, Pad, Parsed, Since, Str, Until, Wire, rest};

/// Record types. C: `XLOG_*`, catalog/pg_control.h.
pub const OPCODES: &[Opcode] = &[
    op(0x00, "CHECKPOINT_SHUTDOWN", Majors::ALL),
    op(0x10, "CHECKPOINT_ONLINE", Majors::ALL),
    op(0x20, "NOOP", Majors::ALL),
    op(0x30, "NEXTOID", Majors::ALL),
    op(0x40, "SWITCH", Majors::ALL),
    op(0x50, "BACKUP_END", Majors::ALL),
    op(0x60, "PARAMETER_CHANGE", Majors::ALL),
    op(0x70, "RESTORE_POINT", Majors::ALL),
    op(0x80, "FPW_CHANGE", Majors::ALL),
    op(0x90, "END_OF_RECOVERY", Majors::ALL),
    op(0xA0, "FPI_FOR_HINT", Majors::ALL),
    op(0xB0, "FPI", Majors::ALL),
    op(0xC0, "FPI_MULTI", Majors::until(11)),
    op(0xC0, "ASSIGN_LSN", Majors::since(19)),
    op(0xD0, "OVERWRITE_CONTRECORD", Majors::ALL),
    op(0xE0, "CHECKPOINT_REDO", Majors::since(17)),
    op(0xF0, "LOGICAL_DECODING_STATUS_CHANGE", Majors::since(19)),
];

wire_struct! {
    /// A checkpoint. C: `CheckPoint`, catalog/pg_control.h: 80 bytes in 10 and 11, 88 from 12 on, 96 in 19.
    pub struct Checkpoint("CheckPoint") {
        /// Where replay after a crash starts.
        redo: Lsn,
        /// Timeline of the checkpoint.
        timeline: TimelineId,
        /// Timeline before, where the checkpoint starts a new one; else the same.
        prev_timeline: TimelineId,
        /// `full_page_writes` is on.
        full_page_writes: CBool,
        /// Alignment.
        pad1: Pad<3>,
        /// `wal_level`.
        wal_level: Since<17, WalLevel>,
        /// Logical decoding is possible.
        logical_decoding_enabled: Since<19, CBool>,
        /// Alignment.
        pad2: Since<12, Until<16, Pad<4>>>,
        /// Alignment.
        pad3: Since<19, Pad<7>>,
        /// The next transaction id that will be given out.
        next_xid: NextXid,
        /// The next object id that will be given out.
        next_oid: Oid,
        /// The next multixact that will be given out.
        next_multi: MultiXactId,
        /// Place of its members.
        next_multi_offset: MultiXactOffset,
        /// The oldest `pg_database.datfrozenxid`.
        oldest_xid: Xid,
        /// Database that has it.
        oldest_xid_db: Oid,
        /// The oldest `pg_database.datminmxid`.
        oldest_multi: MultiXactId,
        /// Database that has it.
        oldest_multi_db: Oid,
        /// Alignment.
        pad4: Since<12, Until<18, Pad<4>>>,
        /// When the checkpoint was taken.
        time: PgTime,
        /// The oldest transaction with a commit timestamp; zero: none.
        oldest_commit_ts_xid: Xid,
        /// The newest transaction with a commit timestamp; zero: none.
        newest_commit_ts_xid: Xid,
        /// The oldest transaction that runs; zero in a shutdown checkpoint, or where hot standby does not need it.
        oldest_active_xid: Xid,
        /// Alignment.
        pad5: Pad<4>,
    }
}

wire_newtype! {
    /// Setting `wal_level`. JSON: its name, or the digits of a number that no version defines. C: `WalLevel`, access/xlog.h.
    pub struct WalLevel(i32);
    /// Seconds since 1970-01-01 00:00:00 UTC. JSON: an ISO 8601 string in UTC. C: `pg_time_t`, pgtime.h.
    pub struct PgTime(i64);
}
impl Serialize for PgTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let micros = self.0.checked_mul(1_000_000).and_then(|micros| micros.checked_sub(TimestampTz::UNIX_EPOCH_OFFSET));
        match micros {
            Some(micros) => TimestampTz(micros).serialize(serializer),
            None => serializer.collect_str(&format_args!("{} s since 1970-01-01", self.0)),
        }
    }
}

impl WalLevel {
    /// Its name; `?` for a number that no version defines.
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "minimal",
            1 => "replica",
            2 => "logical",
            _ => "?",
        }
    }
}
impl Serialize for WalLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            0..=2 => serializer.serialize_str(self.name()),
            other => serializer.collect_str(&other),
        }
    }
}
impl Put for WalLevel {
    fn put(&self, out: &mut Text) {
        put!(out, self.name());
    }
}

/// A transaction id with its epoch: from 12 on one 64-bit number, before two of 32 bits with the epoch first.
/// C: `nextXid` (`nextFullXid` in 12 and 13; `nextXidEpoch` and `nextXid` before).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NextXid(pub FullXid);

impl Wire<'_> for NextXid {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        let (input, value) = u64::read(input, fmt)?;
        Ok((input, NextXid(FullXid(if fmt.since(12) { value } else { value.rotate_left(32) }))))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        let value = self.0.0;
        if fmt.since(12) { value.write(fmt, out) } else { value.rotate_left(32).write(fmt, out) }
    }
}
impl FixedSize for NextXid {
    fn size(_: WalFormat) -> usize {
        8
    }
}

wire_struct! {
    /// Settings that a standby has to follow. C: `xl_parameter_change`: 24 bytes in 10 and 11, 28 from 12 on.
    pub struct ParameterChange("xl_parameter_change") {
        /// `max_connections`.
        max_connections: i32,
        /// `max_worker_processes`.
        max_worker_processes: i32,
        /// `max_wal_senders`.
        max_wal_senders: Since<12, i32>,
        /// `max_prepared_transactions`.
        max_prepared_xacts: i32,
        /// `max_locks_per_transaction`.
        max_locks_per_xact: i32,
        /// `wal_level`.
        wal_level: WalLevel,
        /// `wal_log_hints`.
        wal_log_hints: CBool,
        /// `track_commit_timestamp`.
        track_commit_timestamp: CBool,
        /// Alignment.
        pad: Pad<2>,
    }
}

wire_struct! {
    /// A place that recovery can be told to stop at. C: `xl_restore_point`, 72 bytes.
    pub struct RestorePoint("xl_restore_point") {
        /// When it was made.
        time: TimestampTz,
        /// Its name.
        name: RestorePointName,
    }
}

/// Name of a restore point: at most 63 bytes and a NUL; what comes after it means nothing. JSON: a string. C: `rp_name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePointName(pub [u8; 64]);

impl RestorePointName {
    /// The name without the NUL.
    pub fn text(&self) -> Str<'_> {
        Str(self.0.split(|&byte| byte == 0).next().unwrap_or_default())
    }
}
impl Wire<'_> for RestorePointName {
    fn read(input: &[u8], fmt: WalFormat) -> Parsed<'_, Self> {
        let (input, Pad(name)) = Pad::<64>::read(input, fmt)?;
        Ok((input, RestorePointName(name)))
    }
    fn write(&self, _: WalFormat, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}
impl FixedSize for RestorePointName {
    fn size(_: WalFormat) -> usize {
        64
    }
}
impl Serialize for RestorePointName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.text().serialize(serializer)
    }
}

wire_struct! {
    /// A new timeline starts. C: `xl_end_of_recovery`: 16 bytes, from 17 on 24.
    pub struct EndOfRecovery("xl_end_of_recovery") {
        /// When recovery ended.
        end_time: TimestampTz,
        /// The new timeline.
        timeline: TimelineId,
        /// The timeline that it forks off.
        prev_timeline: TimelineId,
        /// `wal_level`.
        wal_level: Since<17, WalLevel>,
        /// Alignment.
        pad: Since<17, Pad<4>>,
    }
}

wire_struct! {
    /// The record that was cut off here by a crash will not be finished. C: `xl_overwrite_contrecord`, 16 bytes.
    pub struct OverwriteContrecord("xl_overwrite_contrecord") {
        /// Start of the record.
        overwritten_lsn: Lsn,
        /// When the server found out.
        overwrite_time: TimestampTz,
    }
}

/// A record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// A checkpoint before the server stopped.
    CheckpointShutdown(Checkpoint),
    /// A checkpoint while the server ran.
    CheckpointOnline(Checkpoint),
    /// Nothing to do, whatever the data; tests write it.
    Noop {
        /// Of no meaning.
        data: Bytes<'a>,
    },
    /// Object ids up to this one may have been given out.
    #[serde(rename = "nextoid")]
    NextOid {
        /// The next one after a crash.
        next_oid: Oid,
    },
    /// The rest of the segment is not used.
    Switch,
    /// A base backup has all it needs when replay reaches this record.
    BackupEnd {
        /// Where the backup started.
        start: Lsn,
    },
    /// Settings that a standby has to follow.
    ParameterChange(ParameterChange),
    /// A place that recovery can be told to stop at.
    RestorePoint(RestorePoint),
    /// `full_page_writes` was switched.
    FpwChange {
        /// The new setting.
        full_page_writes: CBool,
    },
    /// A new timeline starts.
    EndOfRecovery(EndOfRecovery),
    /// Page images, before hint bits are set.
    FpiForHint,
    /// Page images.
    Fpi,
    /// Page images; 10 and 11.
    FpiMulti,
    /// Makes the next record start at an LSN of its own; from 19 on.
    AssignLsn {
        /// Zero.
        dummy: i32,
    },
    /// A record that a crash cut off.
    OverwriteContrecord(OverwriteContrecord),
    /// Start of an online checkpoint; from 17 on.
    CheckpointRedo {
        /// `wal_level`.
        wal_level: WalLevel,
    },
    /// Logical decoding became possible, or impossible; from 19 on.
    LogicalDecodingStatusChange {
        /// Whether it is possible now.
        enabled: CBool,
    },
}

impl Op<'_> {
    /// The timelines before and after a record that switches from one to another, which a server writes at the start of a timeline.
    pub fn timeline_switch(&self) -> Option<(TimelineId, TimelineId)> {
        let (from, to) = match self {
            Op::EndOfRecovery(end) => (end.prev_timeline, end.timeline),
            Op::CheckpointShutdown(checkpoint) => (checkpoint.prev_timeline, checkpoint.timeline),
            _ => return None,
        };
        (from != to).then_some((from, to))
    }
}

/// Reads the payload; `None`: this version defines no such opcode.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    rec.only_block_data("XLOG", &[])?;
    let main = rec.main;
    let empty = || rec.parse_all("XLOG", main, |i| Ok((i, ())));
    Ok(Some(match rec.info().opcode() {
        0x00 => Op::CheckpointShutdown(rec.parse_all("CheckPoint", main, |i| Checkpoint::read(i, fmt))?),
        0x10 => Op::CheckpointOnline(rec.parse_all("CheckPoint", main, |i| Checkpoint::read(i, fmt))?),
        0x20 => Op::Noop { data: Bytes(rec.parse_all("XLOG_NOOP", main, rest)?) },
        0x30 => Op::NextOid { next_oid: rec.parse_all("XLOG_NEXTOID.nextOid", main, |i| Oid::read(i, fmt))? },
        0x40 => {
            empty()?;
            Op::Switch
        }
        0x50 => Op::BackupEnd { start: rec.parse_all("XLOG_BACKUP_END.startpoint", main, |i| Lsn::read(i, fmt))? },
        0x60 => Op::ParameterChange(rec.parse_all("xl_parameter_change", main, |i| ParameterChange::read(i, fmt))?),
        0x70 => Op::RestorePoint(rec.parse_all("xl_restore_point", main, |i| RestorePoint::read(i, fmt))?),
        0x80 => Op::FpwChange { full_page_writes: rec.parse_all("XLOG_FPW_CHANGE.fpw", main, |i| CBool::read(i, fmt))? },
        0x90 => Op::EndOfRecovery(rec.parse_all("xl_end_of_recovery", main, |i| EndOfRecovery::read(i, fmt))?),
        0xA0 => {
            empty()?;
            Op::FpiForHint
        }
        0xB0 => {
            empty()?;
            Op::Fpi
        }
        0xC0 if !fmt.since(12) => {
            empty()?;
            Op::FpiMulti
        }
        0xC0 if fmt.since(19) => Op::AssignLsn { dummy: rec.parse_all("XLOG_ASSIGN_LSN.dummy", main, |i| i32::read(i, fmt))? },
        0xD0 => Op::OverwriteContrecord(rec.parse_all("xl_overwrite_contrecord", main, |i| OverwriteContrecord::read(i, fmt))?),
        0xE0 if fmt.since(17) => {
            Op::CheckpointRedo { wal_level: rec.parse_all("XLOG_CHECKPOINT_REDO.wal_level", main, |i| WalLevel::read(i, fmt))? }
        }
        0xF0 if fmt.since(19) => {
            let field = "XLOG_LOGICAL_DECODING_STATUS_CHANGE.new_status";
            Op::LogicalDecodingStatusChange { enabled: rec.parse_all(field, main, |i| CBool::read(i, fmt))? }
        }
        _ => return Ok(None),
    }))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, fmt: WalFormat, body: &mut Body) {
        let out = &mut body.main;
        match self {
            Op::CheckpointShutdown(checkpoint) | Op::CheckpointOnline(checkpoint) => checkpoint.write(fmt, out),
            Op::Noop { data } => out.extend_from_slice(data),
            Op::NextOid { next_oid } => next_oid.write(fmt, out),
            Op::BackupEnd { start } => start.write(fmt, out),
            Op::ParameterChange(change) => change.write(fmt, out),
            Op::RestorePoint(point) => point.write(fmt, out),
            Op::FpwChange { full_page_writes } => full_page_writes.write(fmt, out),
            Op::EndOfRecovery(end) => end.write(fmt, out),
            Op::Switch | Op::FpiForHint | Op::Fpi | Op::FpiMulti => {}
            Op::AssignLsn { dummy } => dummy.write(fmt, out),
            Op::OverwriteContrecord(overwrite) => overwrite.write(fmt, out),
            Op::CheckpointRedo { wal_level } => wal_level.write(fmt, out),
            Op::LogicalDecodingStatusChange { enabled } => enabled.write(fmt, out),
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        match self {
            Op::CheckpointShutdown(checkpoint) => describe_checkpoint(checkpoint, "shutdown", out),
            Op::CheckpointOnline(checkpoint) => describe_checkpoint(checkpoint, "online", out),
            Op::NextOid { next_oid } => put!(out, next_oid),
            Op::BackupEnd { start } => put!(out, start),
            Op::ParameterChange(change) => describe_parameters(change, out),
            Op::RestorePoint(point) => put!(out, point.name.text()),
            Op::FpwChange { full_page_writes: on } | Op::LogicalDecodingStatusChange { enabled: on } => put!(out, truth(on.get())),
            Op::EndOfRecovery(end) => {
                put!(out, "tli ", end.timeline, "; prev tli ", end.prev_timeline, "; time ", end.end_time);
                if let Some(level) = *end.wal_level {
                    put!(out, "; wal_level ", level);
                }
            }
            Op::OverwriteContrecord(overwrite) => put!(out, "lsn ", overwrite.overwritten_lsn, "; time ", overwrite.overwrite_time),
            Op::CheckpointRedo { wal_level } => put!(out, "wal_level ", wal_level),
            Op::Noop { .. } | Op::Switch | Op::FpiForHint | Op::Fpi | Op::FpiMulti | Op::AssignLsn { .. } => {}
        }
    }
}

fn describe_checkpoint(c: &Checkpoint, kind: &str, out: &mut Text) {
    put!(out, "redo ", c.redo, "; tli ", c.timeline, "; prev tli ", c.prev_timeline, "; fpw ", truth(c.full_page_writes.get()));
    if let Some(level) = *c.wal_level {
        put!(out, "; wal_level ", level);
    }
    if let Some(enabled) = *c.logical_decoding_enabled {
        put!(out, "; logical decoding ", truth(enabled.get()));
    }
    put!(out, "; xid ", c.next_xid.0, "; oid ", c.next_oid, "; multi ", c.next_multi, "; offset ", c.next_multi_offset);
    put!(out, "; oldest xid ", c.oldest_xid, " in DB ", c.oldest_xid_db);
    put!(out, "; oldest multi ", c.oldest_multi, " in DB ", c.oldest_multi_db);
    put!(out, "; oldest/newest commit timestamp xid: ", c.oldest_commit_ts_xid, "/", c.newest_commit_ts_xid);
    put!(out, "; oldest running xid ", c.oldest_active_xid, "; ", kind);
}

fn describe_parameters(change: &ParameterChange, out: &mut Text) {
    put!(out, "max_connections=", change.max_connections, " max_worker_processes=", change.max_worker_processes);
    if let Some(senders) = *change.max_wal_senders {
        put!(out, " max_wal_senders=", senders);
    }
    put!(out, " max_prepared_xacts=", change.max_prepared_xacts, " max_locks_per_xact=", change.max_locks_per_xact);
    put!(out, " wal_level=", change.wal_level, " wal_log_hints=", on_off(change.wal_log_hints.get()));
    put!(out, " track_commit_timestamp=", on_off(change.track_commit_timestamp.get()));
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::super::testing::{Rec, check};
    use super::*;

    fn checkpoint(major: u8) -> Checkpoint {
        let since = |first| major >= first;
        Checkpoint {
            redo: Lsn(0x1_0000_0028),
            timeline: TimelineId(2),
            prev_timeline: TimelineId(1),
            full_page_writes: CBool(1),
            pad1: Pad([1, 2, 3]),
            wal_level: Since(since(17).then_some(WalLevel(2))),
            logical_decoding_enabled: Since(since(19).then_some(CBool(0))),
            pad2: Since(since(12).then_some(Until((!since(17)).then_some(Pad([4; 4]))))),
            pad3: Since(since(19).then_some(Pad([5; 7]))),
            next_xid: NextXid(FullXid(0x7_0000_02BC)),
            next_oid: Oid(24576),
            next_multi: MultiXactId(3),
            next_multi_offset: MultiXactOffset(4),
            oldest_xid: Xid(690),
            oldest_xid_db: Oid(1),
            oldest_multi: MultiXactId(2),
            oldest_multi_db: Oid(5),
            pad4: Since(since(12).then_some(Until((!since(19)).then_some(Pad([6; 4]))))),
            time: PgTime(1_700_000_000),
            oldest_commit_ts_xid: Xid(691),
            newest_commit_ts_xid: Xid(699),
            oldest_active_xid: Xid(698),
            pad5: Pad([7; 4]),
        }
    }

    #[test]
    fn checkpoints() {
        for major in 10..=19 {
            let size = match major {
                10..=11 => 80,
                12..=18 => 88,
                _ => 96,
            };
            let (lsn, level) = match major {
                10..=16 => ("1/28", ""),
                17..=18 => ("1/28", "; wal_level logical"),
                _ => ("1/00000028", "; wal_level logical; logical decoding false"),
            };
            let text = format!(
                "redo {lsn}; tli 2; prev tli 1; fpw true{level}; xid 7:700; oid 24576; multi 3; offset 4; oldest xid 690 in DB 1; \
                 oldest multi 2 in DB 5; oldest/newest commit timestamp xid: 691/699; oldest running xid 698; "
            );
            let shutdown = Payload::Xlog(Op::CheckpointShutdown(checkpoint(major)));
            check(major, 0, 0x00, &shutdown, size, &format!("{text}shutdown"));
            check(major, 0, 0x10, &Payload::Xlog(Op::CheckpointOnline(checkpoint(major))), size, &format!("{text}online"));
        }
    }

    #[test]
    fn epoch_comes_first_before_12() {
        let bytes = |major| {
            let mut body = Body::default();
            Op::CheckpointOnline(checkpoint(major)).write(WalFormat::new(major), &mut body);
            body.main
        };
        assert_eq!(bytes(11)[20..28], [7, 0, 0, 0, 0xBC, 2, 0, 0]);
        assert_eq!(bytes(12)[24..32], [0xBC, 2, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn parameters() {
        let change = |major| ParameterChange {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: Since((major >= 12).then_some(10)),
            max_prepared_xacts: 20,
            max_locks_per_xact: 64,
            wal_level: WalLevel(1),
            wal_log_hints: CBool(1),
            track_commit_timestamp: CBool(0),
            pad: Pad([1, 2]),
        };
        for major in 10..=19 {
            let (size, senders) = if major >= 12 { (28, " max_wal_senders=10") } else { (24, "") };
            let text = format!(
                "max_connections=100 max_worker_processes=8{senders} max_prepared_xacts=20 max_locks_per_xact=64 \
                 wal_level=replica wal_log_hints=on track_commit_timestamp=off"
            );
            check(major, 0, 0x60, &Payload::Xlog(Op::ParameterChange(change(major))), size, &text);
        }
    }

    #[test]
    fn timelines() {
        for major in 10..=19 {
            let since_17 = major >= 17;
            let end = EndOfRecovery {
                end_time: TimestampTz(1),
                timeline: TimelineId(4),
                prev_timeline: TimelineId(3),
                wal_level: Since(since_17.then_some(WalLevel(9))),
                pad: Since(since_17.then_some(Pad([1; 4]))),
            };
            let level = if since_17 { "; wal_level ?" } else { "" };
            let text = format!("tli 4; prev tli 3; time 2000-01-01 00:00:00.000001 UTC{level}");
            check(major, 0, 0x90, &Payload::Xlog(Op::EndOfRecovery(end)), if since_17 { 24 } else { 16 }, &text);
            assert_eq!(Op::EndOfRecovery(end).timeline_switch(), Some((TimelineId(3), TimelineId(4))));
            let (switch, same) = (checkpoint(major), Checkpoint { prev_timeline: TimelineId(2), ..checkpoint(major) });
            assert_eq!(Op::CheckpointShutdown(switch).timeline_switch(), Some((TimelineId(1), TimelineId(2))));
            assert_eq!(Op::CheckpointShutdown(same).timeline_switch(), None);
            assert_eq!(Op::CheckpointOnline(switch).timeline_switch(), None);
        }
    }

    #[test]
    fn single_values() {
        let mut name = [b'x'; 64];
        name[..4].copy_from_slice(b"abc\0"); // behind the NUL stands what was in memory
        let point = RestorePoint { time: TimestampTz(0), name: RestorePointName(name) };
        let overwrite = OverwriteContrecord { overwritten_lsn: Lsn(0xABC), overwrite_time: TimestampTz(0) };
        for major in 10..=19 {
            let lsn = if major >= 19 { "0/00000ABC" } else { "0/ABC" };
            let check = |info, op, size, text: &str| check(major, 0, info, &Payload::Xlog(op), size, text);
            check(0x30, Op::NextOid { next_oid: Oid(24576) }, 4, "24576");
            check(0x40, Op::Switch, 0, "");
            check(0x50, Op::BackupEnd { start: Lsn(0xABC) }, 8, lsn);
            check(0x70, Op::RestorePoint(point), 72, "abc");
            check(0x80, Op::FpwChange { full_page_writes: CBool(1) }, 1, "true");
            check(0xA0, Op::FpiForHint, 0, "");
            check(0xB0, Op::Fpi, 0, "");
            let text = format!("lsn {lsn}; time 2000-01-01 00:00:00.000000 UTC");
            check(0xD0, Op::OverwriteContrecord(overwrite), 16, &text);
            if major >= 17 {
                check(0xE0, Op::CheckpointRedo { wal_level: WalLevel(0) }, 4, "wal_level minimal");
            }
        }
        for major in [10, 11] {
            check(major, 0, 0xC0, &Payload::Xlog(Op::FpiMulti), 0, "");
        }
        check(19, 0, 0xC0, &Payload::Xlog(Op::AssignLsn { dummy: 0 }), 4, "");
        check(19, 0, 0xF0, &Payload::Xlog(Op::LogicalDecodingStatusChange { enabled: CBool(0) }), 1, "false");
    }

    #[test]
    fn noop_takes_any_data() {
        let rec = Rec { major: 15, rmid: 0, info: 0x20, main: b"anything", ..Rec::default() };
        rec.check("", &[0, 1, 2, 3, 4, 5, 6, 7, usize::MAX]);
    }

    #[test]
    fn opcodes_come_and_go() {
        for (major, info) in [(12, 0xC0), (18, 0xC0), (16, 0xE0), (18, 0xF0)] {
            assert_eq!(Rec { major, rmid: 0, info, main: &[0; 4], ..Rec::default() }.parse(), Ok(None));
        }
    }
}
