//! Asks servers for the facts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use pgwal::{Lsn, TimelineId};

use super::facts::{Archiver, Client, Identity, Known, PrimaryConninfo, Receiver, Refusal, Role, Sender, Server, Setting};
use super::hba::{self, Rule, Token};
use crate::command::Command;
use crate::connection::{ConnectError, Connection, Error, Mode, ResultSet};
use crate::receive::{ReceiveError, System};
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
    "max_wal_senders",
    "max_worker_processes",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "restore_command",
    "ssl",
    "synchronous_commit",
    "synchronous_standby_names",
    "wal_keep_segments",
    "wal_keep_size",
    "wal_level",
    "wal_log_hints",
];

/// More roles, memberships or lines than this are not looked at.
const MAX_ROWS: usize = 20_000;

/// Asks a server, through connections that `connect` makes; `user` is the role that it logs in as.
///
/// What a server or its permissions refuse is a fact, too: that point is not known.
///
/// # Errors
/// Neither SQL nor replication is possible: why there is no connection for SQL.
pub fn gather(user: &str, connect: &mut dyn FnMut(Mode) -> Result<Connection, ConnectError>) -> Result<Server, ConnectError> {
    match connect(Mode::Ordinary) {
        Ok(mut sql) => {
            let mut server = by_sql(&mut sql, user);
            // Only now: it counts as a walsender itself. The connection for SQL goes first, so that it does not take another place.
            drop(sql);
            server.replication = match connect(Mode::Replication) {
                Ok(mut walsender) => identify(&mut walsender),
                Err(error) => Err(refusal(&error)),
            };
            Ok(server)
        }
        // A role that may replicate need not have a database to log in to.
        Err(error) => match connect(Mode::Replication) {
            Ok(mut walsender) => Ok(by_replication(&mut walsender, user, format!("no SQL: {error}"))),
            Err(_) => Err(error),
        },
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
    // A question that hangs is one without an answer.
    let _ = sql.query("SET statement_timeout = '30s'");
    let settings = settings(sql);
    let in_recovery = one::<bool>(sql, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'true' ELSE 'false' END");
    let receiver = receiver(sql);
    let mut server = Server {
        version: sql.parameter("server_version").unwrap_or_default().to_owned(),
        major: sql.major().unwrap_or_default(),
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
        settings,
        receiver,
        in_recovery,
    };
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
        replication,
    }
}

/// A value that SHOW prints, as pg_settings has it: sizes in megabytes.
fn plain(name: &str, value: &str) -> Option<String> {
    if !["wal_keep_size", "max_slot_wal_keep_size"].contains(&name) {
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
                (extract(epoch FROM write_lag) * 1000)::int8 AS write_ms, (extract(epoch FROM flush_lag) * 1000)::int8 AS flush_ms,
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
        }
    };
    Ok(fields(&set).map(sender).collect())
}

fn archiver(sql: &mut Connection) -> Known<Archiver> {
    let set = rows(
        sql,
        "SELECT archived_count, failed_count, last_failed_wal, last_failed_time, last_archived_wal,
                last_failed_time > coalesce(last_archived_time, '-infinity') AS fails
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
