//! Replication slots of a server: what they are, how far they are, and what they make it keep. View: pg_replication_slots.

use std::fmt;

use pgwal::Lsn;
use pgwal::types::TimestampTz;

use crate::command::Command;
use crate::connection::{Connection, Error, ResultSet};

/// A replication slot. What the server's major does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// `slot_name`.
    pub name: String,
    /// `slot_type`: it is for logical decoding, not for a standby.
    pub logical: bool,
    /// `plugin` of a logical slot.
    pub plugin: Option<String>,
    /// `database` of a logical slot.
    pub database: Option<String>,
    /// `temporary`: it goes with its connection.
    pub temporary: bool,
    /// Somebody streams from it: the server's process that does.
    pub active_pid: Option<u32>,
    /// `active`.
    pub active: bool,
    /// `restart_lsn`: WAL from here on is kept. `None`: nothing is, because it was never used, or is lost.
    pub restart_lsn: Option<Lsn>,
    /// `confirmed_flush_lsn` of a logical slot: what its consumer has.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// `wal_status`, 13 and later: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// `safe_wal_size`, 13 and later: bytes that can still be written before the slot may be lost; `None` also where there is no limit.
    pub safe_wal_size: Option<i64>,
    /// `inactive_since`, 17 and later.
    pub inactive_since: Option<TimestampTz>,
    /// `invalidation_reason`, 17 and later.
    pub invalidation_reason: Option<String>,
    /// `synced`, 17 and later: on a standby, a copy of the primary's slot, which nobody can use there.
    pub synced: bool,
    /// Bytes from what the consumer has to the server's position.
    pub lag: Option<u64>,
    /// Bytes of WAL that the server keeps for the slot: from the start of the segment of `restart_lsn` to its position.
    pub pinned: Option<u64>,
    /// Transactions since the older of `xmin` and `catalog_xmin`: VACUUM must keep what has died since.
    pub xmin_age: Option<u64>,
}

impl Slot {
    /// What it once promised is gone.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.invalidation_reason.is_some()
    }
}

/// All slots of a server, by name, over a connection that takes SQL.
///
/// # Errors
/// The server refuses.
pub fn list(server: &mut Connection) -> Result<Vec<Slot>, Error> {
    let set = server.query(LIST)?.pop().unwrap_or_default();
    Ok((0..set.rows.len()).map(|row| slot(&set, row)).collect())
}

/// A column that a major lacks is null in `to_jsonb`; a standby's position is what it has received, or restored from the archive.
const LIST: &str = "
SELECT s.*, greatest(pg_catalog.age(s.xmin), pg_catalog.age(s.catalog_xmin)) AS xmin_age,
       (extract(epoch FROM (pg_catalog.to_jsonb(s) ->> 'inactive_since')::timestamptz) * 1000000)::int8 - 946684800000000 AS since_2000,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
            ELSE pg_catalog.pg_current_wal_lsn() END AS position,
       (SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))) AS segment_size
  FROM pg_catalog.pg_replication_slots s
 ORDER BY s.slot_name";

fn slot(set: &ResultSet, row: usize) -> Slot {
    let text = |name: &str| set.column(name).and_then(|column| set.text(row, column));
    let owned = |name: &str| text(name).map(str::to_owned);
    let lsn = |name: &str| text(name).and_then(|text| text.parse::<Lsn>().ok()).filter(|lsn| lsn.is_valid());
    let (restart_lsn, confirmed_flush_lsn, position) = (lsn("restart_lsn"), lsn("confirmed_flush_lsn"), lsn("position"));
    let behind = |lsn: Lsn| position.map(|position| position.0.saturating_sub(lsn.0));
    let segment_size = text("segment_size").and_then(|text| text.parse::<u64>().ok()).filter(|&size| size > 0);
    Slot {
        name: owned("slot_name").unwrap_or_default(),
        logical: text("slot_type") == Some("logical"),
        plugin: owned("plugin"),
        database: owned("database"),
        temporary: text("temporary") == Some("t"),
        active_pid: text("active_pid").and_then(|text| text.parse().ok()),
        active: text("active") == Some("t"),
        restart_lsn,
        confirmed_flush_lsn,
        wal_status: owned("wal_status"),
        safe_wal_size: text("safe_wal_size").and_then(|text| text.parse().ok()),
        inactive_since: text("since_2000").and_then(|text| text.parse().ok()).map(TimestampTz),
        invalidation_reason: owned("invalidation_reason"),
        synced: text("synced") == Some("t"),
        lag: confirmed_flush_lsn.or(restart_lsn).and_then(behind),
        pinned: restart_lsn.and_then(|lsn| behind(Lsn(segment_size.map_or(lsn.0, |size| lsn.0 - lsn.0 % size)))),
        xmin_age: text("xmin_age").and_then(|text| text.parse().ok()),
    }
}

/// What [`create`] found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// It was there already.
    pub existed: bool,
    /// WAL from here on is kept; `None`: none is yet, or it is not known, as servers before 15 do not tell over a connection for replication.
    pub restart_lsn: Option<Lsn>,
}

/// Creates a physical slot over a connection for replication. With `reserve_wal` it keeps WAL from now on, otherwise from when it is first
/// used; with `if_not_exists`, one that is there will do.
///
/// # Errors
/// There is one of that name already, or the server refuses.
pub fn create(server: &mut Connection, name: &str, reserve_wal: bool, if_not_exists: bool) -> Result<Created, SlotError> {
    let command = Command::CreateReplicationSlot { slot: name, temporary: false, reserve_wal };
    let existed = match server.query(&command.to_string()) {
        Ok(_) => false,
        Err(Error::Server(error)) if if_not_exists && error.code == DUPLICATE_OBJECT => true,
        Err(error) => return Err(SlotError::new(name, error)),
    };
    // The answer to the command itself has no position: consistent_point is for logical slots.
    let restart_lsn = match server.major() {
        Some(15..) => {
            let set = server.query(&Command::ReadReplicationSlot(name).to_string()).map_err(SlotError::Server)?.pop().unwrap_or_default();
            set.column("restart_lsn").and_then(|column| set.text(0, column)?.parse().ok())
        }
        _ => None,
    };
    Ok(Created { existed, restart_lsn })
}

/// Drops a slot, over a connection for replication; with `wait`, waits while somebody uses it. With `if_exists`, none to drop is no error.
/// Whether there was one.
///
/// # Errors
/// There is none of that name, somebody uses it, or the server refuses.
pub fn drop(server: &mut Connection, name: &str, wait: bool, if_exists: bool) -> Result<bool, SlotError> {
    match server.query(&Command::DropReplicationSlot { slot: name, wait }.to_string()) {
        Ok(_) => Ok(true),
        Err(Error::Server(error)) if if_exists && error.code == UNDEFINED_OBJECT => Ok(false),
        Err(error) => Err(SlotError::new(name, error)),
    }
}

/// Why a slot was not created or dropped.
#[derive(Debug)]
pub enum SlotError {
    /// There is a slot of that name.
    Exists {
        /// The name of the slot.
        name: String,
    },
    /// There is no slot of that name.
    Missing {
        /// The name of the slot.
        name: String,
    },
    /// Somebody uses it.
    InUse {
        /// The slot.
        name: String,
        /// The server's process that does; `None`: it does not say.
        pid: Option<u32>,
    },
    /// Anything else.
    Server(Error),
}

/// SQLSTATE where there is one of that name already.
const DUPLICATE_OBJECT: &str = "42710";
/// SQLSTATE where there is none of that name.
const UNDEFINED_OBJECT: &str = "42704";
/// SQLSTATE where somebody uses it.
const OBJECT_IN_USE: &str = "55006";

impl SlotError {
    fn new(name: &str, error: Error) -> SlotError {
        let owned = name.to_owned();
        match &error {
            Error::Server(said) if said.code == DUPLICATE_OBJECT => SlotError::Exists { name: owned },
            Error::Server(said) if said.code == UNDEFINED_OBJECT => SlotError::Missing { name: owned },
            Error::Server(said) if said.code == OBJECT_IN_USE => SlotError::InUse { name: owned, pid: pid(&said.message, name) },
            _ => SlotError::Server(error),
        }
    }
}

/// The process in `replication slot "s" is active for PID 4711`, in any language: the number that is not in the slot's name.
fn pid(message: &str, name: &str) -> Option<u32> {
    let message = message.replacen(name, "", 1);
    message.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotError::Exists { name } => write!(f, "replication slot \"{name}\" already exists"),
            SlotError::Missing { name } => write!(f, "replication slot \"{name}\" does not exist"),
            SlotError::InUse { name, pid: Some(pid) } => write!(f, "replication slot \"{name}\" is in use by the server's process {pid}"),
            SlotError::InUse { name, pid: None } => write!(f, "replication slot \"{name}\" is in use"),
            SlotError::Server(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SlotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SlotError::Server(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Column;

    #[test]
    fn process_that_uses_a_slot() {
        assert_eq!(pid("replication slot \"s1\" is active for PID 4711", "s1"), Some(4711));
        assert_eq!(pid("le slot de réplication « s » est actif pour le PID 12 ici", "s"), Some(12));
        assert_eq!(pid("something else", "s"), None);
    }

    #[test]
    fn columns_that_a_major_lacks() {
        let columns = ["slot_name", "slot_type", "active", "restart_lsn", "position", "segment_size"];
        let row = ["s", "physical", "f", "0/1800010", "0/3000020", "16777216"];
        let set = ResultSet {
            columns: columns.map(|name| Column { name: name.to_owned(), type_oid: 0 }).into(),
            rows: vec![row.map(|text| Some(text.into())).into()],
            tag: String::new(),
        };
        let slot = slot(&set, 0);
        assert_eq!((slot.lag, slot.pinned), (Some(0x0180_0010), Some(0x0200_0020)));
        assert_eq!((slot.wal_status.as_deref(), slot.inactive_since, slot.is_lost()), (None, None, false));
    }
}
