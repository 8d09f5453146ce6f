//! Asks servers for the facts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use pgwal::history::{self, History};
use pgwal::{Lsn, TimelineId};

use super::facts::{
    Archiver, Client, Endpoint, Identity, Known, PrimaryConninfo, Ready, Receiver, Refusal, Role, Sender, Server, Setting, Summarizer,
    Transaction, is_socket,
};
use super::hba::{self, Rule, Token};
use crate::command::Command;
use crate::connection::{Attempt, ConnectError, Connection, Error, Mode, ResultSet};
use crate::receive::{self, ReceiveError, System};
use crate::slots;

/// Settings that are looked at.
const SETTINGS: &[&str] = &[
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "data_checksums",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "hot_standby_feedback",
    "idle_replication_slot_timeout",
    "listen_addresses",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_standby_streaming_delay",
    "max_wal_senders",
    "max_wal_size",
    "max_worker_processes",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "ssl",
    "summarize_wal",
    "sync_replication_slots",
    "synchronized_standby_slots",
    "synchronous_commit",
    "synchronous_standby_names",
    "unix_socket_directories",
    "wal_keep_segments",
    "wal_keep_size",
    "wal_level",
    "wal_log_hints",
    "wal_receiver_timeout",
    "wal_sender_timeout",
];

/// More roles, memberships or lines than this are not looked at.
const MAX_ROWS: usize = 20_000;

/// Asks a server, through connections that `connect` makes; `user` is the role that it logs in as.
///
/// What a server or its permissions refuse is a fact, too: that point is not known.
///
/// # Errors
/// Neither SQL nor replication is possible: why there is no connection for SQL, or that the server does not answer over it.
pub fn gather(user: &str, connect: &mut dyn FnMut(Mode) -> Result<Connection, ConnectError>) -> Result<Server, ConnectError> {
    match connect(Mode::Ordinary).and_then(|sql| answering(sql, Mode::Ordinary)) {
        Ok(mut sql) => {
            let mut server = by_sql(&mut sql, user);
            // Only now: it counts as a walsender itself. The connection for SQL goes first, so that it does not take another place.
            drop(sql);
            match connect(Mode::Replication) {
                Ok(mut walsender) => {
                    server.replication = identify(&mut walsender);
                    if let Ok(history) = ancestry(&mut walsender, &server.replication) {
                        server.history = Ok(history);
                    }
                }
                Err(error) => server.replication = Err(refusal(&error)),
            }
            Ok(server)
        }
        // A role that may replicate need not have a database to log in to.
        Err(error) => match connect(Mode::Replication).and_then(|walsender| answering(walsender, Mode::Replication)) {
            Ok(mut walsender) => Ok(by_replication(&mut walsender, user, format!("no SQL: {error}"))),
            Err(_) => Err(error),
        },
    }
}

/// A connection whose server answers a first question, if only with an error. One that says nothing would say nothing to all others.
fn answering(mut server: Connection, mode: Mode) -> Result<Connection, ConnectError> {
    let question = match mode {
        // A question that hangs is one without an answer, and the server has to end it before the connection is given up.
        Mode::Ordinary => {
            let limit = server.limit().map_or(STATEMENT_TIMEOUT, |limit| STATEMENT_TIMEOUT.min(limit * 3 / 4));
            format!("SET statement_timeout = '{}ms'", limit.as_millis())
        }
        _ => Command::IdentifySystem.to_string(),
    };
    match server.query(&question) {
        Ok(_) | Err(Error::Server(_)) => Ok(server),
        Err(error) => {
            let attempt = Attempt { server: server.server().to_owned(), error, passfile: None };
            Err(ConnectError { warnings: Vec::new(), attempts: vec![attempt] })
        }
    }
}

/// How long the server may look for one answer, at most.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks a server for its position once more. What a standby has, asked before, cannot be beyond what its primary has written by then.
pub fn ask_position(server: &mut Server, connect: &mut dyn FnMut(Mode) -> Result<Connection, ConnectError>) {
    if server.sql.is_ok() && server.position.is_ok() {
        server.position = connect(Mode::Ordinary).map_err(|error| error.to_string()).and_then(|mut sql| position(&mut sql));
    }
}

/// Resolves the host names that a standby has for its primary. Its own machine may see them otherwise.
pub fn resolve(standby: &mut Server) {
    let configured = standby.value("primary_conninfo").and_then(PrimaryConninfo::parse);
    let receiver = standby.receiver.as_ref().ok().and_then(Option::as_ref);
    let used = receiver.and_then(|receiver| receiver.conninfo.clone());
    let hosts = configured.into_iter().chain(used).flat_map(|conninfo| conninfo.endpoints()).map(|(host, _)| host);
    let names: BTreeSet<String> = hosts.filter(|host| !host.is_empty() && !is_socket(host) && host.parse::<IpAddr>().is_err()).collect();
    for name in names {
        let addresses = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
        standby.names.insert(name, addresses.unwrap_or_default());
    }
}

/// A refused connection.
pub fn refusal(error: &ConnectError) -> Refusal {
    let code = match error.last() {
        Some(Error::Server(said)) => Some(said.code.clone()),
        _ => None,
    };
    // sslmode=prefer tries twice, and mostly gets the same answer.
    let text = error.to_string();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.dedup();
    Refusal { code, message: lines.join("\n") }
}

fn by_sql(sql: &mut Connection, user: &str) -> Server {
    let major = sql.major().unwrap_or_default();
    let settings = settings(sql);
    let in_recovery = one::<bool>(sql, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'true' ELSE 'false' END");
    let receiver = receiver(sql);
    let mut server = Server {
        version: sql.parameter("server_version").unwrap_or_default().to_owned(),
        major,
        user: user.to_owned(),
        client: Client { address: address(sql, "SELECT pg_catalog.inet_client_addr()"), tls: Some(sql.tls_version().is_some()) },
        address: address(sql, "SELECT pg_catalog.inet_server_addr()"),
        sql: Ok(()),
        replication: Err(Refusal { code: None, message: String::new() }),
        roles: roles(sql),
        hba: hba(sql),
        slots: slots::list(sql).map_err(|error| said(&error)),
        senders: senders(sql),
        archiver: archiver(sql),
        paused: match in_recovery {
            Ok(false) => Ok(None),
            _ => one::<bool>(sql, "SELECT CASE WHEN pg_catalog.pg_is_wal_replay_paused() THEN 'true' ELSE 'false' END").map(Some),
        },
        system_identifier: one(sql, "SELECT system_identifier FROM pg_catalog.pg_control_system()"),
        timeline: timeline(sql, &in_recovery, &receiver),
        endpoint: Endpoint::default(),
        names: BTreeMap::new(),
        started: one(sql, "SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::int8"),
        history: Err("the history file could not be read".to_owned()),
        position: position(sql),
        replayed: one(sql, "SELECT pg_catalog.pg_last_wal_replay_lsn()"),
        oldest_wal: oldest_wal(sql),
        standby_signal: match major {
            12.. => {
                one(sql, "SELECT CASE WHEN (pg_catalog.pg_stat_file('standby.signal', true)).size IS NULL THEN 'false' ELSE 'true' END")
            }
            _ => Err("before 12 there is none".to_owned()),
        },
        ready: ready(sql, major),
        conflicts: conflicts(sql),
        replay_waits: optional(
            sql,
            "SELECT wait_event_type || ' ' || wait_event FROM pg_catalog.pg_stat_activity
              WHERE backend_type = 'startup' AND (wait_event_type IN ('Lock', 'BufferPin') OR wait_event LIKE 'RecoveryConflict%')",
        ),
        oldest_transaction: oldest_transaction(sql),
        waiting_commits: one(sql, "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event = 'SyncRep'"),
        summarizer: summarizer(sql, major),
        settings,
        receiver,
        in_recovery,
    };
    if let Ok(timeline) = server.timeline {
        let file = format!("SELECT pg_catalog.pg_read_file('pg_wal/{}')", history::file_name(timeline));
        server.history = match timeline {
            TimelineId(1) => Ok(History::alone(timeline)),
            _ => one::<String>(sql, &file).and_then(|file| History::parse(timeline, file.as_bytes()).map_err(|error| error.to_string())),
        };
    }
    if let Ok(port) = server.setting("port").map(|port| port.value.parse().unwrap_or_default()) {
        let socket = server.value("unix_socket_directories").and_then(|folders| folders.split(',').next()).unwrap_or_default();
        server.endpoint = Endpoint { host: server.address.map_or_else(|| socket.trim().to_owned(), |address| address.to_string()), port };
    }
    // Quotes are in the file only, and that is for few to read.
    if let (Ok(rules), Ok(file)) = (&mut server.hba, one::<String>(sql, "SELECT pg_catalog.current_setting('hba_file')"))
        && let Ok(text) = one::<String>(sql, "SELECT pg_catalog.pg_read_file(pg_catalog.current_setting('hba_file'), 0, 4194304)")
    {
        hba::find_quotes(rules, &file, &text);
    }
    server
}

/// What a walsender tells: IDENTIFY_SYSTEM and SHOW.
fn by_replication(walsender: &mut Connection, user: &str, reason: String) -> Server {
    let mut settings = BTreeMap::new();
    for &name in SETTINGS {
        let set = walsender.query(&Command::Show(name).to_string()).ok().and_then(|mut sets| sets.pop());
        if let Some(value) = set.as_ref().and_then(|set| set.text(0, 0)).and_then(|value| plain(name, value)) {
            settings.insert(name.to_owned(), Setting { value, ..Setting::default() });
        }
    }
    let replication = identify(walsender);
    let history = ancestry(walsender, &replication);
    let unknown = || reason.clone();
    Server {
        version: walsender.parameter("server_version").unwrap_or_default().to_owned(),
        major: walsender.major().unwrap_or_default(),
        user: user.to_owned(),
        client: Client { address: None, tls: Some(walsender.tls_version().is_some()) },
        address: None,
        sql: Err(unknown()),
        settings: Ok(settings),
        roles: Err(unknown()),
        hba: Err(unknown()),
        slots: Err(unknown()),
        senders: Err(unknown()),
        archiver: Err(unknown()),
        receiver: Err(unknown()),
        in_recovery: walsender.parameter("in_hot_standby").map(|value| value == "on").ok_or_else(unknown),
        paused: Err(unknown()),
        system_identifier: Err(unknown()),
        timeline: Err(unknown()),
        endpoint: Endpoint::default(),
        names: BTreeMap::new(),
        started: Err(unknown()),
        history,
        position: Err(unknown()),
        replayed: Err(unknown()),
        oldest_wal: Err(unknown()),
        standby_signal: Err(unknown()),
        ready: Err(unknown()),
        conflicts: Err(unknown()),
        replay_waits: Err(unknown()),
        oldest_transaction: Err(unknown()),
        waiting_commits: Err(unknown()),
        summarizer: Err(unknown()),
        replication,
    }
}

/// A value that SHOW prints, as pg_settings has it: sizes in megabytes.
fn plain(name: &str, value: &str) -> Option<String> {
    if !["wal_keep_size", "max_slot_wal_keep_size", "max_wal_size"].contains(&name) {
        return Some(value.to_owned());
    }
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: i64 = digits.parse().ok()?;
    let megabytes = match value.get(digits.len()..)? {
        "" | "MB" => number,
        "GB" => number.checked_mul(1024)?,
        "TB" => number.checked_mul(1024 * 1024)?,
        _ => return None,
    };
    Some(megabytes.to_string())
}

fn identify(walsender: &mut Connection) -> Result<Identity, Refusal> {
    match System::identify(walsender) {
        Ok((identifier, timeline, _)) => Ok(Identity { system_identifier: identifier.to_string(), timeline }),
        Err(error) => Err(Refusal {
            code: match &error {
                ReceiveError::Server(Error::Server(said)) | ReceiveError::Refused { error: Error::Server(said), .. } => {
                    Some(said.code.clone())
                }
                _ => None,
            },
            message: error.to_string(),
        }),
    }
}

/// The history of the timeline that a walsender is on.
fn ancestry(walsender: &mut Connection, identity: &Result<Identity, Refusal>) -> Known<History> {
    let timeline = identity.as_ref().map_err(|refusal| refusal.message.clone())?.timeline;
    if timeline == TimelineId(1) {
        return Ok(History::alone(timeline));
    }
    let file = receive::history(walsender, timeline).map_err(|error| error.to_string())?;
    History::parse(timeline, &file).map_err(|error| error.to_string())
}

/// One line of what the server says.
fn said(error: &Error) -> String {
    match error {
        Error::Server(said) => said.message.clone(),
        _ => error.to_string(),
    }
}

/// The answer to one question.
fn rows(sql: &mut Connection, query: &str) -> Known<ResultSet> {
    let set = sql.query(query).map_err(|error| said(&error))?.pop().unwrap_or_default();
    if set.rows.len() > MAX_ROWS { Err(format!("there are more than {MAX_ROWS} rows")) } else { Ok(set) }
}

/// The first value of an answer.
fn one<T: FromStr>(sql: &mut Connection, query: &str) -> Known<T> {
    let set = rows(sql, query)?;
    set.text(0, 0).and_then(|text| text.parse().ok()).ok_or_else(|| "the server has no answer".to_owned())
}

/// As [`one`], where the answer may be no row, or null.
fn optional(sql: &mut Connection, query: &str) -> Known<Option<String>> {
    Ok(rows(sql, query)?.text(0, 0).map(str::to_owned))
}

/// Values of a row by the columns' names.
struct Fields<'s>(&'s ResultSet, usize);

impl Fields<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.text(self.1, self.0.column(name)?)
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    fn parse<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    fn is(&self, name: &str) -> bool {
        self.text(name) == Some("t")
    }

    /// An array that came as JSON.
    fn list(&self, name: &str) -> Vec<String> {
        self.text(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

fn fields(set: &ResultSet) -> impl Iterator<Item = Fields<'_>> {
    (0..set.rows.len()).map(move |row| Fields(set, row))
}

/// An address, without the mask that inet may show.
fn inet(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

fn address(sql: &mut Connection, query: &str) -> Option<IpAddr> {
    inet(&one::<String>(sql, query).ok()?)
}

fn settings(sql: &mut Connection) -> Known<BTreeMap<String, Setting>> {
    let names: Vec<String> = SETTINGS.iter().map(|name| format!("'{name}'")).collect();
    let query = "SELECT name, setting, sourcefile, sourceline, pending_restart FROM pg_catalog.pg_settings WHERE name IN";
    let set = rows(sql, &format!("{query} ({})", names.join(", ")))?;
    let setting = |fields: Fields<'_>| {
        let value = fields.owned("setting").unwrap_or_default();
        let (file, line) = (fields.owned("sourcefile"), fields.parse("sourceline"));
        Some((fields.owned("name")?, Setting { value, file, line, pending_restart: fields.is("pending_restart") }))
    };
    Ok(fields(&set).filter_map(setting).collect())
}

fn roles(sql: &mut Connection) -> Known<BTreeMap<String, Role>> {
    let set = rows(
        sql,
        "SELECT rolname, rolsuper, rolreplication, rolcanlogin, rolvaliduntil < pg_catalog.now() AS expired,
                (SELECT pg_catalog.json_agg(g.rolname) FROM pg_catalog.pg_auth_members m
                   JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) AS groups
           FROM pg_catalog.pg_roles r LIMIT 20001",
    )?;
    let role = |fields: Fields<'_>| {
        let role = Role {
            superuser: fields.is("rolsuper"),
            replication: fields.is("rolreplication"),
            login: fields.is("rolcanlogin"),
            expired: fields.is("expired"),
            member_of: fields.list("groups"),
        };
        Some((fields.owned("rolname")?, role))
    };
    Ok(fields(&set).filter_map(role).collect())
}

fn hba(sql: &mut Connection) -> Known<Vec<Rule>> {
    // The view names the file from 16 on, which has others beside it.
    let set = rows(
        sql,
        "SELECT coalesce(pg_catalog.to_jsonb(r) ->> 'file_name', pg_catalog.current_setting('hba_file', true), 'pg_hba.conf') AS file_name,
                line_number, type, pg_catalog.to_json(database) AS databases, pg_catalog.to_json(user_name) AS users, address, netmask,
                auth_method, options IS NOT NULL AS has_options, error
           FROM pg_catalog.pg_hba_file_rules r LIMIT 20001",
    )
    .or_else(|_| {
        // The file's name is for privileged roles, the view may be granted to others.
        rows(
            sql,
            "SELECT coalesce(pg_catalog.to_jsonb(r) ->> 'file_name', 'pg_hba.conf') AS file_name,
                    line_number, type, pg_catalog.to_json(database) AS databases, pg_catalog.to_json(user_name) AS users, address, netmask,
                    auth_method, options IS NOT NULL AS has_options, error
               FROM pg_catalog.pg_hba_file_rules r LIMIT 20001",
        )
    })?;
    let tokens = |texts: Vec<String>| texts.into_iter().map(|text| Token { text, quoted: false }).collect();
    let rule = |fields: Fields<'_>| Rule {
        file: fields.owned("file_name").unwrap_or_default(),
        line: fields.parse("line_number").unwrap_or_default(),
        kind: fields.owned("type").unwrap_or_default(),
        databases: tokens(fields.list("databases")),
        users: tokens(fields.list("users")),
        address: fields.owned("address"),
        netmask: fields.parse("netmask"),
        method: fields.owned("auth_method").unwrap_or_default(),
        has_options: fields.is("has_options"),
        error: fields.owned("error"),
    };
    Ok(fields(&set).map(rule).collect())
}

fn senders(sql: &mut Connection) -> Known<Vec<Sender>> {
    let set = rows(
        sql,
        "SELECT pid, application_name, client_addr, state, sync_state, sent_lsn, write_lsn, flush_lsn, replay_lsn,
                pg_catalog.age(backend_xmin) AS xmin_age, (extract(epoch FROM write_lag) * 1000)::int8 AS write_ms, (extract(epoch FROM flush_lag) * 1000)::int8 AS flush_ms,
                (extract(epoch FROM replay_lag) * 1000)::int8 AS replay_ms,
                CASE WHEN pg_catalog.pg_is_in_recovery()
                     THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
                     ELSE pg_catalog.pg_current_wal_lsn() END AS position
           FROM pg_catalog.pg_stat_replication LIMIT 20001",
    )?;
    let sender = |fields: Fields<'_>| {
        let position: Option<Lsn> = fields.parse("position");
        let behind = |name: &str| Some(position?.0.saturating_sub(fields.parse::<Lsn>(name)?.0));
        Sender {
            pid: fields.parse("pid").unwrap_or_default(),
            application_name: fields.owned("application_name"),
            address: fields.text("client_addr").and_then(inet),
            state: fields.owned("state"),
            sync_state: fields.owned("sync_state"),
            behind: ["sent_lsn", "write_lsn", "flush_lsn", "replay_lsn"].map(behind),
            lag_ms: ["write_ms", "flush_ms", "replay_ms"].map(|name| fields.parse(name)),
            xmin_age: fields.parse("xmin_age"),
        }
    };
    Ok(fields(&set).map(sender).collect())
}

fn archiver(sql: &mut Connection) -> Known<Archiver> {
    let set = rows(
        sql,
        "SELECT archived_count, failed_count, last_failed_wal, last_failed_time, last_archived_wal,
                last_failed_time > coalesce(last_archived_time, '-infinity') AS fails,
                extract(epoch FROM pg_catalog.clock_timestamp() - greatest(last_archived_time, last_failed_time)) AS idle,
                extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_postmaster_start_time()) AS uptime
           FROM pg_catalog.pg_stat_archiver",
    )?;
    let fields = Fields(&set, 0);
    Ok(Archiver {
        archived: fields.parse("archived_count").unwrap_or_default(),
        failed: fields.parse("failed_count").unwrap_or_default(),
        last_failed_wal: fields.owned("last_failed_wal"),
        last_failed_time: fields.owned("last_failed_time"),
        last_archived_wal: fields.owned("last_archived_wal"),
        fails: fields.is("fails"),
        idle: fields.parse("idle"),
        uptime: fields.parse("uptime").unwrap_or_default(),
    })
}

fn receiver(sql: &mut Connection) -> Known<Option<Receiver>> {
    let query = "SELECT r.*, pg_catalog.to_jsonb(r) ->> 'latest_end_lsn' AS latest_end FROM pg_catalog.pg_stat_wal_receiver r";
    let set = rows(sql, &format!("{query} WHERE pid IS NOT NULL"))?;
    Ok(fields(&set).next().map(|fields| Receiver {
        status: fields.owned("status"),
        timeline: fields.parse("received_tli").map(TimelineId),
        slot: fields.owned("slot_name"),
        conninfo: fields.text("conninfo").and_then(PrimaryConninfo::parse),
        sender_host: fields.owned("sender_host"),
        sender_port: fields.parse("sender_port"),
        latest_end: fields.parse("latest_end"),
    }))
}

fn timeline(sql: &mut Connection, in_recovery: &Known<bool>, receiver: &Known<Option<Receiver>>) -> Known<TimelineId> {
    if let Ok(Some(Receiver { timeline: Some(timeline), .. })) = receiver {
        return Ok(*timeline);
    }
    // A primary's is in the name of the segment that it writes; pg_control has it from the last checkpoint only.
    if in_recovery == &Ok(false)
        && let Ok(name) = one::<String>(sql, "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())")
        && let Some(timeline) = name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok())
    {
        return Ok(TimelineId(timeline));
    }
    one(sql, "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()").map(TimelineId)
}

fn position(sql: &mut Connection) -> Known<Lsn> {
    one(
        sql,
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
                     THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
                     ELSE pg_catalog.pg_current_wal_lsn() END",
    )
}

fn oldest_wal(sql: &mut Connection) -> Known<Lsn> {
    let set = rows(
        sql,
        "SELECT name, pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) AS size FROM pg_catalog.pg_ls_waldir()
          WHERE name ~ '^[0-9A-F]{24}$' ORDER BY pg_catalog.substr(name, 9) COLLATE \"C\" LIMIT 1",
    )?;
    let part = |name: &str, range| u64::from_str_radix(name.get(range)?, 16).ok();
    let start = fields(&set).next().and_then(|fields| {
        let (name, size) = (fields.text("name")?, fields.parse::<u64>("size")?);
        part(name, 16..24)?.checked_mul(size)?.checked_add(part(name, 8..16)? << 32)
    });
    start.map(Lsn).ok_or_else(|| "the server has no answer".to_owned())
}

fn ready(sql: &mut Connection, major: u32) -> Known<Ready> {
    // Before 12 it takes a superuser.
    let files = match major {
        12.. => "pg_catalog.pg_ls_archive_statusdir() AS f",
        _ => {
            "(SELECT d AS name, (pg_catalog.pg_stat_file('pg_wal/archive_status/' || d, true)).modification
                FROM pg_catalog.pg_ls_dir('pg_wal/archive_status') AS d) AS f"
        }
    };
    let query = "SELECT count(*) AS count, extract(epoch FROM pg_catalog.clock_timestamp() - min(modification)) AS oldest FROM";
    let set = rows(sql, &format!("{query} {files} WHERE name LIKE '%.ready'"))?;
    let fields = Fields(&set, 0);
    Ok(Ready { count: fields.parse("count").unwrap_or_default(), oldest: fields.parse("oldest").unwrap_or_default() })
}

fn conflicts(sql: &mut Connection) -> Known<BTreeMap<String, u64>> {
    let set = rows(
        sql,
        "SELECT key, sum(value::int8) AS sum FROM pg_catalog.pg_stat_database_conflicts c, pg_catalog.jsonb_each_text(pg_catalog.to_jsonb(c))
          WHERE key LIKE 'confl%' GROUP BY key HAVING sum(value::int8) > 0",
    )?;
    Ok(fields(&set).filter_map(|fields| Some((fields.owned("key")?, fields.parse("sum")?))).collect())
}

fn oldest_transaction(sql: &mut Connection) -> Known<Option<Transaction>> {
    let set = rows(
        sql,
        "SELECT true AS prepared, gid AS name, extract(epoch FROM pg_catalog.clock_timestamp() - prepared) AS age
           FROM pg_catalog.pg_prepared_xacts
          UNION ALL
         SELECT false, pid::text, extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)
           FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()
          ORDER BY age DESC LIMIT 1",
    )?;
    Ok(fields(&set).next().and_then(|fields| {
        Some(Transaction { is_prepared: fields.is("prepared"), name: fields.owned("name")?, age: fields.parse("age")? })
    }))
}

fn summarizer(sql: &mut Connection, major: u32) -> Known<Option<Summarizer>> {
    if major < 17 {
        return Ok(None);
    }
    let set = rows(
        sql,
        "SELECT summarizer_pid IS NOT NULL AS runs, greatest(pending_lsn, summarized_lsn) AS read,
                CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                     ELSE pg_catalog.pg_current_wal_lsn() END AS position,
                EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE wait_event = 'WalSummarizerError') AS fails
           FROM pg_catalog.pg_get_wal_summarizer_state()",
    )?;
    Ok(fields(&set).next().map(|fields| {
        let lsn = |name| fields.parse::<Lsn>(name).filter(|lsn| lsn.is_valid());
        let behind = lsn("position").and_then(|position| Some(position.0.saturating_sub(lsn("read")?.0)));
        Summarizer { runs: fields.is("runs"), fails: fields.is("fails"), behind }
    }))
}
