//! Commands that a walsender takes instead of SQL. C: replication/repl_gram.y.

use std::fmt;

use pgwal::{Lsn, TimelineId};

/// A replication command; its text is what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Who the server is, and where it is: one row of `systemid`, `timeline`, `xlogpos`, `dbname`.
    IdentifySystem,
    /// A setting, as one row; from 10 on.
    Show(&'a str),
    /// The history file of a timeline, as one row of `filename`, `content`.
    TimelineHistory(TimelineId),
    /// What a slot has: `slot_type`, `restart_lsn`, `restart_tli`, all null where there is none; from 15 on.
    ReadReplicationSlot(&'a str),
    /// A new physical slot.
    CreateReplicationSlot {
        /// Its name.
        slot: &'a str,
        /// It goes with the connection.
        temporary: bool,
        /// It keeps WAL from now on, not only from when it is first used.
        reserve_wal: bool,
    },
    /// A slot is dropped.
    DropReplicationSlot {
        /// Its name.
        slot: &'a str,
        /// Waits while it is in use, instead of failing.
        wait: bool,
    },
    /// WAL is streamed.
    StartReplication {
        /// The slot that remembers how far this is; `None`: nobody does.
        slot: Option<&'a str>,
        /// First byte that is sent.
        start: Lsn,
        /// The timeline that it is of.
        timeline: TimelineId,
    },
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Command::IdentifySystem => write!(f, "IDENTIFY_SYSTEM"),
            Command::Show(setting) => write!(f, "SHOW {setting}"),
            Command::TimelineHistory(timeline) => write!(f, "TIMELINE_HISTORY {}", timeline.0),
            Command::ReadReplicationSlot(slot) => write!(f, "READ_REPLICATION_SLOT {}", Quoted(slot)),
            Command::CreateReplicationSlot { slot, temporary, reserve_wal } => {
                write!(f, "CREATE_REPLICATION_SLOT {}", Quoted(slot))?;
                f.write_str(if temporary { " TEMPORARY PHYSICAL" } else { " PHYSICAL" })?;
                // All majors take this form; from 15 on there is another one with brackets.
                f.write_str(if reserve_wal { " RESERVE_WAL" } else { "" })
            }
            Command::DropReplicationSlot { slot, wait } => {
                write!(f, "DROP_REPLICATION_SLOT {}{}", Quoted(slot), if wait { " WAIT" } else { "" })
            }
            Command::StartReplication { slot, start, timeline } => {
                f.write_str("START_REPLICATION ")?;
                if let Some(slot) = slot {
                    write!(f, "SLOT {} ", Quoted(slot))?;
                }
                write!(f, "PHYSICAL {:X}/{:X} TIMELINE {}", start.0 >> 32, start.0 & u64::from(u32::MAX), timeline.0)
            }
        }
    }
}

/// An identifier in quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_commands() {
        let text = |command: Command<'_>| command.to_string();
        let start = |slot| Command::StartReplication { slot, start: Lsn(0x12_0300_0000), timeline: TimelineId(3) };
        assert_eq!(text(start(None)), "START_REPLICATION PHYSICAL 12/3000000 TIMELINE 3");
        assert_eq!(text(start(Some("a\"b"))), "START_REPLICATION SLOT \"a\"\"b\" PHYSICAL 12/3000000 TIMELINE 3");
        let create = |temporary, reserve_wal| Command::CreateReplicationSlot { slot: "s", temporary, reserve_wal };
        assert_eq!(text(create(false, true)), "CREATE_REPLICATION_SLOT \"s\" PHYSICAL RESERVE_WAL");
        assert_eq!(text(create(true, false)), "CREATE_REPLICATION_SLOT \"s\" TEMPORARY PHYSICAL");
        assert_eq!(text(Command::DropReplicationSlot { slot: "s", wait: true }), "DROP_REPLICATION_SLOT \"s\" WAIT");
        assert_eq!(text(Command::TimelineHistory(TimelineId(16))), "TIMELINE_HISTORY 16");
        assert_eq!(text(Command::Show("wal_segment_size")), "SHOW wal_segment_size");
    }
}
