//! `global/pg_control`. C: `ControlFileData`, catalog/pg_control.h.

use std::fmt;

use super::Problem;
use serde::Serialize;

use crate::format::WalFormat;
use crate::lsn::{Lsn, TimelineId};
use crate::page::{is_segment_size, is_wal_page_size};
use crate::rmgr::xlog::{Checkpoint, PgTime, WalLevel};
use crate::types::Float8;
use crate::wire::{CBool, Pad, Since, Until, Wire};

/// What of `pg_control` matters to a reader of the directory. C: `ControlFileData`, catalog/pg_control.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster, as in `xlp_sysid`. C: `system_identifier`.
    pub system_identifier: u64,
    /// Version number of the system catalogs; part of folder names in tablespaces. C: `catalog_version_no`.
    pub catalog_version: u32,
    /// What the server was doing when the file was last written.
    pub state: DbState,
    /// When the file was last written. C: `time`.
    pub time: PgTime,
    /// Start of the last checkpoint's record. C: `checkPoint`.
    pub checkpoint: Lsn,
    /// That record: where replay starts (`redo`), and on which timeline. C: `checkPointCopy`.
    pub checkpoint_copy: Checkpoint,
    /// Replay must come at least this far, because data pages on disk may be this new; zero: the server was not in archive recovery.
    /// C: `minRecoveryPoint`.
    pub min_recovery_point: Lsn,
    /// Timeline of that point; zero without one. C: `minRecoveryPointTLI`.
    pub min_recovery_timeline: TimelineId,
    /// Redo point of the base backup whose end replay has not reached yet; zero: none. C: `backupStartPoint`.
    pub backup_start: Lsn,
    /// End of that backup, where it was taken from a standby; zero: none. C: `backupEndPoint`.
    pub backup_end: Lsn,
    /// Whether a BACKUP_END record must be replayed. C: `backupEndRequired`.
    pub backup_end_required: bool,
    /// Settings that WAL and its replay depend on.
    pub settings: ControlSettings,
    /// Bytes of a block. C: `blcksz`.
    pub block_size: u32,
    /// Blocks in a file of a relation. C: `relseg_size`.
    pub blocks_per_file: u32,
    /// Pages in a file of the commit log and its like; 32 before 19, where it became a setting of the build. C: `slru_pages_per_segment`.
    pub slru_pages_per_segment: u32,
    /// Bytes of a WAL page. C: `xlog_blcksz`.
    pub wal_page_size: u32,
    /// Bytes of a WAL segment. C: `xlog_seg_size`.
    pub segment_size: u32,
    /// Bytes of a `name`. C: `nameDataLen`.
    pub name_data_len: u32,
    /// Whether pages have checksums. C: `data_checksum_version`.
    pub data_checksums: bool,
}

/// Settings of a server as `pg_control` keeps them: what its WAL can be used for, and what a hot standby must have at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// C: `wal_level`.
    pub wal_level: WalLevel,
    /// C: `MaxConnections`.
    pub max_connections: i32,
    /// C: `max_worker_processes`.
    pub max_worker_processes: i32,
    /// From 12 on. C: `max_wal_senders`.
    pub max_wal_senders: Option<i32>,
    /// C: `max_prepared_xacts`.
    pub max_prepared_transactions: i32,
    /// C: `max_locks_per_xact`.
    pub max_locks_per_transaction: i32,
}

/// Why `pg_control` does not say which cluster it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// It has too few bytes.
    CutShort {
        /// How many it has.
        found: usize,
    },
    /// It is not of a supported major.
    Version {
        /// C: `pg_control_version`.
        found: u32,
    },
    /// Its checksum is wrong.
    Checksum {
        /// That of its bytes.
        expected: u32,
        /// The one that it has. C: `crc`.
        found: u32,
    },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::CutShort { found } => write!(f, "pg_control has only {found} bytes"),
            ControlError::Version { found } => write!(f, "unsupported version of pg_control: {found}"),
            ControlError::Checksum { expected, found } => {
                write!(f, "the checksum of pg_control is wrong: computed {expected:08X}, but it says {found:08X}")
            }
        }
    }
}

impl std::error::Error for ControlError {}

/// C: `DBState`, catalog/pg_control.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DbState(pub u32);

impl DbState {
    /// C: `DB_SHUTDOWNED`.
    pub const SHUT_DOWN: DbState = DbState(1);
    /// C: `DB_SHUTDOWNED_IN_RECOVERY`.
    pub const SHUT_DOWN_IN_RECOVERY: DbState = DbState(2);
    /// C: `DB_IN_ARCHIVE_RECOVERY`.
    pub const IN_ARCHIVE_RECOVERY: DbState = DbState(5);
    /// C: `DB_IN_PRODUCTION`, the last one.
    pub const IN_PRODUCTION: DbState = DbState(6);

    /// Whether archive recovery was running, or was shut down: a standby, or a restore that is not over.
    pub const fn is_in_archive_recovery(self) -> bool {
        matches!(self, DbState::IN_ARCHIVE_RECOVERY | DbState::SHUT_DOWN_IN_RECOVERY)
    }

    /// Whether the server was shut down, so that all it had is on disk. C: `DB_SHUTDOWNED`, `DB_SHUTDOWNED_IN_RECOVERY`.
    pub const fn is_shut_down(self) -> bool {
        matches!(self.0, 1 | 2)
    }

    /// What pg_controldata calls it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "starting up",
            1 => "shut down",
            2 => "shut down in recovery",
            3 => "shutting down",
            4 => "in crash recovery",
            5 => "in archive recovery",
            6 => "in production",
            _ => "unrecognized status code",
        }
    }
}

impl fmt::Display for DbState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a version of `pg_control` has what is read here.
pub(super) struct Layout {
    /// C: `PG_CONTROL_VERSION`.
    pub version: u32,
    /// Offset of [`Build`]. C: `maxAlign`.
    pub build: usize,
    /// Offset of the checksum. C: `crc`.
    pub crc: usize,
    pub majors: std::ops::RangeInclusive<u8>,
}

/// 19's is that of its first release candidate.
pub(super) const LAYOUTS: &[Layout] = &[
    Layout { version: 1002, build: 200, crc: 288, majors: 10..=10 },
    Layout { version: 1100, build: 192, crc: 280, majors: 11..=11 },
    Layout { version: 1201, build: 200, crc: 288, majors: 12..=12 },
    Layout { version: 1300, build: 200, crc: 288, majors: 13..=16 },
    Layout { version: 1700, build: 200, crc: 288, majors: 17..=17 },
    Layout { version: 1800, build: 200, crc: 292, majors: 18..=18 },
    Layout { version: 1905, build: 208, crc: 308, majors: 19..=19 },
];

wire_struct! {
    /// What the server did last, the part of `pg_control` after the version numbers.
    pub struct Status("ControlFileData") {
        state: u32,
        pad1: Pad<4>,
        time: PgTime,
        check_point: Lsn,
        prev_check_point: Until<10, Lsn>,
        check_point_copy: Checkpoint,
        unlogged_lsn: Lsn,
        min_recovery_point: Lsn,
        min_recovery_point_tli: TimelineId,
        pad2: Pad<4>,
        backup_start_point: Lsn,
        backup_end_point: Lsn,
        backup_end_required: CBool,
        pad3: Pad<3>,
        wal_level: WalLevel,
        wal_log_hints: CBool,
        pad4: Pad<3>,
        max_connections: i32,
        max_worker_processes: i32,
        max_wal_senders: Since<12, i32>,
        max_prepared_xacts: i32,
        max_locks_per_xact: i32,
    }
}

wire_struct! {
    /// How the server was built, the end of `pg_control`.
    pub struct Build("ControlFileData") {
        max_align: u32,
        pad: Pad<4>,
        float_format: Float8,
        blcksz: u32,
        relseg_size: u32,
        slru_pages_per_segment: Since<19, u32>,
        xlog_blcksz: u32,
        xlog_seg_size: u32,
        name_data_len: u32,
        index_max_keys: u32,
        toast_max_chunk_size: u32,
        loblksize: u32,
        /// One `bool` from 13 on, two before.
        pass_by_value: Pad<4>,
        data_checksum_version: u32,
    }
}

impl ControlFile {
    /// Bytes that the file has at most. C: `PG_CONTROL_FILE_SIZE`.
    pub const MAX_SIZE: u64 = 8192;

    /// The cluster that the file is of, whatever the major, and whatever else it says.
    ///
    /// # Errors
    /// It is not of a supported major, or its checksum is wrong.
    pub fn system_identifier(bytes: &[u8]) -> Result<u64, ControlError> {
        let short = ControlError::CutShort { found: bytes.len() };
        let fmt = WalFormat::new(LAYOUTS.last().map_or(0, |layout| *layout.majors.end()));
        let (i, system_identifier) = u64::read(bytes, fmt).map_err(|_| short)?;
        let (_, version) = u32::read(i, fmt).map_err(|_| short)?;
        let layout = LAYOUTS.iter().find(|layout| layout.version == version);
        let crc = layout.ok_or(ControlError::Version { found: version })?.crc;
        let (covered, at_crc) = bytes.split_at_checked(crc).ok_or(short)?;
        let (_, found) = u32::read(at_crc, fmt).map_err(|_| short)?;
        match crc32c::crc32c(covered) {
            expected if expected != found => Err(ControlError::Checksum { expected, found }),
            _ => Ok(system_identifier),
        }
    }

    /// Reads the file of whatever major it says it is of. Majors with the same version of the file have the same fields.
    ///
    /// # Errors
    /// It is not of a supported major, its checksum is wrong, or a value in it is impossible.
    pub fn of_any_major(bytes: &[u8]) -> Result<ControlFile, Problem> {
        let newest = WalFormat::new(LAYOUTS.last().map_or(0, |layout| *layout.majors.end()));
        let version = u64::read(bytes, newest).and_then(|(bytes, _)| u32::read(bytes, newest));
        let (_, version) = version.map_err(|e| e.in_field("ControlFileData.pg_control_version"))?;
        match LAYOUTS.iter().find(|layout| layout.version == version) {
            Some(layout) => ControlFile::read(bytes, *layout.majors.start()),
            None => {
                let expected = "that of a supported major, 10 to 19";
                Err(Problem::Value { field: "ControlFileData.pg_control_version", expected, found: version.into() })
            }
        }
    }

    /// Reads the file of `major`.
    ///
    /// # Errors
    /// It is not of that major, its checksum is wrong, or a value in it is impossible.
    pub fn read(bytes: &[u8], major: u8) -> Result<ControlFile, Problem> {
        let fmt = WalFormat::new(major);
        let bad = |field, expected, found: u64| Err(Problem::Value { field, expected, found });
        let (i, system_identifier) = u64::read(bytes, fmt).map_err(|e| e.in_field("ControlFileData.system_identifier"))?;
        let (i, version) = u32::read(i, fmt).map_err(|e| e.in_field("ControlFileData.pg_control_version"))?;
        let (status, catalog_version) = u32::read(i, fmt).map_err(|e| e.in_field("ControlFileData.catalog_version_no"))?;
        let Some(layout) = LAYOUTS.iter().find(|layout| layout.version == version && layout.majors.contains(&major)) else {
            return bad("ControlFileData.pg_control_version", "that of the major in PG_VERSION", version.into());
        };
        let covered = bytes.get(..layout.crc).unwrap_or(bytes);
        let at_crc = bytes.get(layout.crc..).unwrap_or_default();
        let (_, found) = u32::read(at_crc, fmt).map_err(|e| e.in_field("ControlFileData.crc"))?;
        let expected = crc32c::crc32c(covered);
        if expected != found {
            return Err(Problem::Checksum { field: "ControlFileData.crc", expected, found });
        }
        let (_, status) = Status::read(status, fmt)?;
        let (_, build) = Build::read(covered.get(layout.build..).unwrap_or_default(), fmt)?;
        // Right bytes can still be those of a server whose numbers this program cannot read.
        if build.float_format.value() != 1_234_567.0 {
            return bad("ControlFileData.floatFormat", "1234567.0 as this machine writes it", build.float_format.0);
        }
        if !build.blcksz.is_power_of_two() || !(1024..=32768).contains(&build.blcksz) {
            return bad("ControlFileData.blcksz", "a power of two from 1024 to 32768", build.blcksz.into());
        }
        if build.relseg_size == 0 {
            return bad("ControlFileData.relseg_size", "at least 1", 0);
        }
        if !is_wal_page_size(build.xlog_blcksz) {
            return bad("ControlFileData.xlog_blcksz", "a power of two from 1024 to 65536", build.xlog_blcksz.into());
        }
        if !is_segment_size(build.xlog_seg_size) {
            return bad("ControlFileData.xlog_seg_size", "a power of two from 1 MB to 1 GB", build.xlog_seg_size.into());
        }
        if !(8..=1024).contains(&build.name_data_len) {
            return bad("ControlFileData.nameDataLen", "from 8 to 1024", build.name_data_len.into());
        }
        let slru_pages_per_segment = build.slru_pages_per_segment.unwrap_or(32);
        if slru_pages_per_segment == 0 {
            return bad("ControlFileData.slru_pages_per_segment", "at least 1", 0);
        }
        Ok(ControlFile {
            system_identifier,
            catalog_version,
            state: DbState(status.state),
            time: status.time,
            checkpoint: status.check_point,
            checkpoint_copy: status.check_point_copy,
            min_recovery_point: status.min_recovery_point,
            min_recovery_timeline: status.min_recovery_point_tli,
            backup_start: status.backup_start_point,
            backup_end: status.backup_end_point,
            backup_end_required: status.backup_end_required.get(),
            settings: ControlSettings {
                wal_level: status.wal_level,
                max_connections: status.max_connections,
                max_worker_processes: status.max_worker_processes,
                max_wal_senders: *status.max_wal_senders,
                max_prepared_transactions: status.max_prepared_xacts,
                max_locks_per_transaction: status.max_locks_per_xact,
            },
            block_size: build.blcksz,
            blocks_per_file: build.relseg_size,
            slru_pages_per_segment,
            wal_page_size: build.xlog_blcksz,
            segment_size: build.xlog_seg_size,
            name_data_len: build.name_data_len,
            // 19 has further values for the time while they are switched on or off, when some pages are without.
            data_checksums: build.data_checksum_version == 1,
        })
    }
}
