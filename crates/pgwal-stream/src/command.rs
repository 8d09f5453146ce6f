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
    /// The manifest that an incremental backup builds on, which is then sent by COPY; from 17 on.
    UploadManifest,
    /// A base backup is taken.
    BaseBackup(BaseBackup<'a>),
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

/// What a base backup is to have. `None` and `false` leave out what the server then does as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BaseBackup<'a> {
    /// Major version of the server, which has a word in the syntax: options stand in parentheses from 15 on.
    pub major: u8,
    /// Its name, in backup_label.
    pub label: &'a str,
    /// The server says first how much there is.
    pub progress: bool,
    /// The checkpoint that it starts with is done at once, instead of spread over time.
    pub fast: bool,
    /// The WAL that it needs is in the archive of the data directory.
    pub wal: bool,
    /// The server does not wait until the WAL that it needs has been archived: whoever takes the backup has it otherwise.
    pub no_wait: bool,
    /// At most so many kilobytes a second.
    pub max_rate: Option<u32>,
    /// Links of tablespaces stand in a file `tablespace_map`, which a server reads when it starts, instead of the archive.
    pub tablespace_map: bool,
    /// The server does not check the pages' checksums; from 11 on.
    pub no_verify_checksums: bool,
    /// A manifest comes, too; from 13 on.
    pub manifest: Option<ManifestOption<'a>>,
    /// The server compresses the archives: method and details, such as `level=5`; from 15 on.
    pub compression: Option<(&'a str, Option<&'a str>)>,
    /// Only what has changed since the backup whose manifest was uploaded before; from 17 on.
    pub incremental: bool,
    /// Where the server puts the backup itself, and details such as a directory; `None`: it is sent here. From 15 on.
    pub target: Option<(&'a str, Option<&'a str>)>,
}

/// What a manifest is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManifestOption<'a> {
    /// How checksums are computed; `None`: as the server does unless told, which is CRC-32C.
    pub checksums: Option<&'a str>,
    /// All paths stand in it as hexadecimal digits.
    pub force_encode: bool,
}

impl fmt::Display for BaseBackup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_new = self.major >= 15;
        let mut list: Vec<String> = Vec::new();
        let text = |name: &str, value: &str| format!("{name} {}", Literal(value));
        // An option that has a value from 15 on, and a word of its own before.
        let either = |new: &str, old: &str| if is_new { new.to_owned() } else { old.to_owned() };
        list.extend(self.incremental.then(|| "INCREMENTAL".to_owned()));
        list.push(text("LABEL", self.label));
        list.extend(self.progress.then(|| "PROGRESS".to_owned()));
        list.extend(self.wal.then(|| "WAL".to_owned()));
        list.extend(self.fast.then(|| either("CHECKPOINT 'fast'", "FAST")));
        list.extend(self.no_wait.then(|| either("WAIT 0", "NOWAIT")));
        list.extend(self.max_rate.map(|rate| format!("MAX_RATE {rate}")));
        list.extend(self.tablespace_map.then(|| "TABLESPACE_MAP".to_owned()));
        list.extend(self.no_verify_checksums.then(|| either("VERIFY_CHECKSUMS 0", "NOVERIFY_CHECKSUMS")));
        if let Some(manifest) = self.manifest {
            list.push(text("MANIFEST", if manifest.force_encode { "force-encode" } else { "yes" }));
            list.extend(manifest.checksums.map(|checksums| text("MANIFEST_CHECKSUMS", checksums)));
        }
        match self.target {
            Some((target, detail)) => {
                list.push(text("TARGET", target));
                list.extend(detail.map(|detail| text("TARGET_DETAIL", detail)));
            }
            None if is_new => list.push(text("TARGET", "client")),
            None => {}
        }
        if let Some((method, detail)) = self.compression {
            list.push(text("COMPRESSION", method));
            list.extend(detail.map(|detail| text("COMPRESSION_DETAIL", detail)));
        }
        if is_new { write!(f, "BASE_BACKUP ({})", list.join(", ")) } else { write!(f, "BASE_BACKUP {}", list.join(" ")) }
    }
}

/// Text in single quotes; a walsender knows no escapes but two quotes for one.
struct Literal<'a>(&'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
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
            Command::UploadManifest => write!(f, "UPLOAD_MANIFEST"),
            Command::BaseBackup(backup) => backup.fmt(f),
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
        let manifest = Some(ManifestOption { checksums: Some("SHA256"), force_encode: true });
        let all = |major| BaseBackup {
            major,
            label: "it's",
            progress: true,
            fast: true,
            wal: true,
            no_wait: true,
            max_rate: Some(32),
            tablespace_map: true,
            no_verify_checksums: true,
            manifest,
            compression: (major >= 15).then_some(("gzip", Some("level=5"))),
            incremental: false,
            target: None,
        };
        assert_eq!(
            text(Command::BaseBackup(all(14))),
            "BASE_BACKUP LABEL 'it''s' PROGRESS WAL FAST NOWAIT MAX_RATE 32 TABLESPACE_MAP NOVERIFY_CHECKSUMS \
             MANIFEST 'force-encode' MANIFEST_CHECKSUMS 'SHA256'"
        );
        assert_eq!(
            text(Command::BaseBackup(all(15))),
            "BASE_BACKUP (LABEL 'it''s', PROGRESS, WAL, CHECKPOINT 'fast', WAIT 0, MAX_RATE 32, TABLESPACE_MAP, VERIFY_CHECKSUMS 0, \
             MANIFEST 'force-encode', MANIFEST_CHECKSUMS 'SHA256', TARGET 'client', COMPRESSION 'gzip', COMPRESSION_DETAIL 'level=5')"
        );
        let target = Some(("server", Some("/it's")));
        let elsewhere = BaseBackup { major: 17, label: "l", incremental: true, target, ..BaseBackup::default() };
        assert_eq!(text(Command::BaseBackup(elsewhere)), "BASE_BACKUP (INCREMENTAL, LABEL 'l', TARGET 'server', TARGET_DETAIL '/it''s')");
        assert_eq!(text(Command::UploadManifest), "UPLOAD_MANIFEST");
        let plain = BaseBackup { major: 10, label: "", ..BaseBackup::default() };
        assert_eq!(text(Command::BaseBackup(plain)), "BASE_BACKUP LABEL ''");
        assert_eq!(text(Command::Show("wal_segment_size")), "SHOW wal_segment_size");
    }
}
