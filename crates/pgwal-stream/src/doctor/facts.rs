//! What servers say of themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pgwal::history::History;
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
    /// Host and port by which it was reached.
    pub endpoint: Endpoint,
    /// Addresses of the host names that it has for its primary, as the machine that asks resolves them.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// When it was started, in microseconds since 1970: two servers that agree in this and in their identifier are one.
    pub started: Known<i64>,
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
    /// The ancestry of its timeline, from its history file.
    pub history: Known<History>,
    /// How far its WAL goes: what it has written; in recovery, what it has received or replayed.
    pub position: Known<Lsn>,
    /// pg_last_wal_replay_lsn(), in recovery.
    pub replayed: Known<Lsn>,
    /// Start of the oldest segment in its pg_wal.
    pub oldest_wal: Known<Lsn>,
    /// Whether standby.signal is in its data directory; before 12 there is no such file.
    pub standby_signal: Known<bool>,
    /// Segments and other files that are ready to be archived.
    pub ready: Known<Ready>,
    /// Queries that recovery has cancelled since the statistics were reset, by kind: the columns `confl_…` of pg_stat_database_conflicts.
    pub conflicts: Known<BTreeMap<String, u64>>,
    /// Type and name of the `wait_event` by which replay waits for queries; `None`: it does not.
    pub replay_waits: Known<Option<String>>,
    /// The transaction with an id that has been open for longest.
    pub oldest_transaction: Known<Option<Transaction>>,
    /// Sessions whose commit waits for a synchronous standby at this moment.
    pub waiting_commits: Known<u64>,
    /// The WAL summarizer; `None`: this major has none.
    pub summarizer: Known<Option<Summarizer>>,
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

/// Host and port of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name, address, or directory of the socket; empty: not known.
    pub host: String,
    /// Port; 0: not known.
    pub port: u16,
}

impl Endpoint {
    /// A Unix socket or the loopback leads to the machine that one is on.
    pub fn is_local(&self) -> bool {
        is_socket(&self.host) || is_loopback(&self.host)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {}, port {}", self.host, self.port)
    }
}

/// Whether a host is the directory of a socket, or a socket's name in the abstract namespace.
pub(super) fn is_socket(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

/// Whether a host is the machine that one is on.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Files in pg_wal/archive_status that end in `.ready`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ready {
    /// How many.
    pub count: u64,
    /// Seconds for which the oldest has been there.
    pub oldest: f64,
}

/// A transaction that has an id, or is prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// It was prepared (two-phase commit).
    pub is_prepared: bool,
    /// Its global identifier if it is prepared, otherwise the process id of its session.
    pub name: String,
    /// Seconds since it began, or was prepared.
    pub age: f64,
}

/// pg_get_wal_summarizer_state().
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summarizer {
    /// A WAL summarizer process is running.
    pub runs: bool,
    /// It waits after an error before it tries again; false also where that is not shown.
    pub fails: bool,
    /// Bytes of WAL that it has not read yet.
    pub behind: Option<u64>,
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
    /// Transactions since `backend_xmin`, which a standby sends with hot_standby_feedback: VACUUM must keep what has died since.
    pub xmin_age: Option<u64>,
}

/// pg_stat_archiver.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Seconds since the last try ended, well or badly; `None`: none has ended yet.
    pub idle: Option<f64>,
    /// Seconds since the server was started.
    pub uptime: f64,
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
    /// `sender_host`, 11 and later: host, address or socket directory of the server that sends.
    pub sender_host: Option<String>,
    /// `sender_port`, 11 and later.
    pub sender_port: Option<u16>,
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
    /// `dbname`, which synchronising slots takes.
    pub dbname: Option<String>,
    /// `application_name`.
    pub application_name: Option<String>,
    /// `fallback_application_name`: what it is called otherwise, in a connection that exists.
    pub fallback_name: Option<String>,
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
            dbname: get("dbname"),
            application_name: get("application_name"),
            fallback_name: get("fallback_application_name"),
            has_password: settings.get("password").is_some(),
        })
    }

    /// Host and port of each server that it names; an empty host is the default, a Unix socket.
    pub fn endpoints(&self) -> Vec<(String, String)> {
        let split = |text: &Option<String>| -> Vec<String> {
            text.as_deref().unwrap_or_default().split(',').map(|part| part.trim().to_owned()).collect()
        };
        let (hosts, ports) = (split(&self.host), split(&self.port));
        // One port is that of all hosts.
        let port = |at: usize| ports.get(if ports.len() == 1 { 0 } else { at }).filter(|port| !port.is_empty());
        let port = |at: usize| port(at).map_or("5432", String::as_str).to_owned();
        hosts.into_iter().enumerate().map(|(at, host)| (host, port(at))).collect()
    }
}
