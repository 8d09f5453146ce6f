//! What servers say of themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pgwal::{Lsn, TimelineId};

use crate::slots::Slot;

/// An answer, or why there is none.
pub type Known<T> = Result<T, String>;

/// Everything that is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The server that sends.
    pub primary: Server,
    /// The one that receives; `None`: nobody asked for it.
    pub standby: Option<Known<Server>>,
    /// SQLSTATE of what the standby said where it could not be asked.
    pub standby_code: Option<String>,
    /// Connection strings on the command line that have a password in them: of the primary, of the standby.
    pub passwords_told: (bool, bool),
}

/// A server, as far as it lets us see.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its version, as it says it.
    pub version: String,
    /// Its major version.
    pub major: u32,
    /// The role that we log in as.
    pub user: String,
    /// How the connection reaches it.
    pub client: Client,
    /// Its own address, where the connection is one of TCP.
    pub address: Option<IpAddr>,
    /// Whether SQL is possible; if not, why.
    pub sql: Known<()>,
    /// What became of a connection for replication with the same settings.
    pub replication: Result<Identity, Refusal>,
    /// pg_settings, by name.
    pub settings: Known<BTreeMap<String, Setting>>,
    /// pg_roles, by name.
    pub roles: Known<BTreeMap<String, Role>>,
    /// pg_hba_file_rules.
    pub hba: Known<Vec<super::hba::Rule>>,
    /// Its replication slots.
    pub slots: Known<Vec<Slot>>,
    /// pg_stat_replication.
    pub senders: Known<Vec<Sender>>,
    /// pg_stat_archiver.
    pub archiver: Known<Archiver>,
    /// pg_stat_wal_receiver; `None`: no walreceiver runs.
    pub receiver: Known<Option<Receiver>>,
    /// pg_is_in_recovery().
    pub in_recovery: Known<bool>,
    /// pg_is_wal_replay_paused(); `None`: it is not in recovery.
    pub paused: Known<Option<bool>>,
    /// pg_control_system().
    pub system_identifier: Known<String>,
    /// The timeline that it writes, receives or replays.
    pub timeline: Known<TimelineId>,
}

impl Server {
    /// A setting.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn setting(&self, name: &str) -> Known<&Setting> {
        let settings = self.settings.as_ref().map_err(String::clone)?;
        settings.get(name).ok_or_else(|| format!("{name} is not shown to role \"{}\"", self.user))
    }

    /// The value of a setting; `None` also where it is not known.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.setting(name).ok().map(|setting| setting.value.as_str())
    }

    /// As [`Server::value`], where it is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.value(name)?.parse().ok()
    }

    /// As [`Server::value`], where it is `on` or `off`.
    pub fn is_on(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "on")
    }
}

/// How somebody comes to a server, as pg_hba.conf sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address; `None`: a Unix socket.
    pub address: Option<IpAddr>,
    /// It is encrypted with TLS; `None`: not known.
    pub tls: Option<bool>,
}

/// What IDENTIFY_SYSTEM answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `systemid`.
    pub system_identifier: String,
    /// `timeline`.
    pub timeline: TimelineId,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE, where the server said one.
    pub code: Option<String>,
    /// What was said, without passwords.
    pub message: String,
}

/// A row of pg_settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// `setting`, in the setting's own unit.
    pub value: String,
    /// `sourcefile`: shown to privileged roles only.
    pub file: Option<String>,
    /// `sourceline`.
    pub line: Option<u32>,
    /// `pending_restart`: the file has another value.
    pub pending_restart: bool,
}

/// A row of pg_roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// `rolsuper`.
    pub superuser: bool,
    /// `rolreplication`.
    pub replication: bool,
    /// `rolcanlogin`.
    pub login: bool,
    /// `rolvaliduntil` is over: its password does not count any more.
    pub expired: bool,
    /// The roles that it is a direct member of.
    pub member_of: Vec<String>,
}

/// A row of pg_stat_replication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// `pid`.
    pub pid: u32,
    /// `application_name`.
    pub application_name: Option<String>,
    /// `client_addr`; `None`: a Unix socket, or not shown.
    pub address: Option<IpAddr>,
    /// `state`: `startup`, `catchup`, `streaming`, `backup`, `stopping`; `None`: not shown to us.
    pub state: Option<String>,
    /// `sync_state`: `async`, `potential`, `sync`, `quorum`; `None`: not shown to us.
    pub sync_state: Option<String>,
    /// Bytes that were not sent, written, flushed, replayed yet.
    pub behind: [Option<u64>; 4],
    /// `write_lag`, `flush_lag`, `replay_lag` in milliseconds; `None`: nothing was written lately.
    pub lag_ms: [Option<u64>; 3],
}

/// pg_stat_archiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archiver {
    /// `archived_count`.
    pub archived: u64,
    /// `failed_count`.
    pub failed: u64,
    /// `last_failed_wal`.
    pub last_failed_wal: Option<String>,
    /// `last_failed_time`.
    pub last_failed_time: Option<String>,
    /// `last_archived_wal`.
    pub last_archived_wal: Option<String>,
    /// The last try failed.
    pub fails: bool,
}

/// pg_stat_wal_receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receiver {
    /// `status`; `None`: not shown to us.
    pub status: Option<String>,
    /// `received_tli`.
    pub timeline: Option<TimelineId>,
    /// `slot_name`.
    pub slot: Option<String>,
    /// What `conninfo` has; passwords are hidden in it.
    pub conninfo: Option<PrimaryConninfo>,
    /// `latest_end_lsn`.
    pub latest_end: Option<Lsn>,
}

/// What primary_conninfo says, without its password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrimaryConninfo {
    /// `user`.
    pub user: Option<String>,
    /// `host` or `hostaddr`.
    pub host: Option<String>,
    /// `port`.
    pub port: Option<String>,
    /// `application_name`.
    pub application_name: Option<String>,
    /// `password` is in it.
    pub has_password: bool,
}

impl PrimaryConninfo {
    /// Reads it; `None`: it cannot be read.
    pub fn parse(text: &str) -> Option<PrimaryConninfo> {
        let settings = crate::conninfo::Settings::parse(text).ok()?;
        let get = |keyword| settings.get(keyword).map(str::to_owned);
        Some(PrimaryConninfo {
            user: get("user"),
            host: get("host").or_else(|| get("hostaddr")),
            port: get("port"),
            application_name: get("application_name"),
            has_password: settings.get("password").is_some(),
        })
    }
}
