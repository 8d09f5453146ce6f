//! Points of the server that receives, and of the two together.

use std::net::IpAddr;

use pgwal::TimelineId;

use super::facts::{Client, Facts, Known, PrimaryConninfo, Server};
use super::hba::Subject;
use super::primary::{hba_replication, may_replicate, told_password};
use super::{Fix, RELOAD, RESTART, Report, Side, ident, literal};

pub(super) fn check(facts: &Facts, report: &mut Report) {
    let standby = match &facts.standby {
        None => return,
        Some(Ok(standby)) => standby,
        Some(Err(reason)) => return unreachable(facts, reason, report),
    };
    let primary = &facts.primary;
    report.ok("server", format!("PostgreSQL {}, as role \"{}\"", standby.version, standby.user));
    let in_recovery = recovery(primary, standby, report);
    versions(primary, standby, report);
    identifiers(primary, standby, report);
    timelines(primary, standby, report);
    if in_recovery != Some(false) {
        receiver(primary, standby, report);
        conninfo(primary, standby, report);
        slot(primary, standby, report);
        paused(standby, report);
        settings(primary, standby, report);
    }
    if facts.passwords_told.1 {
        told_password(standby, report);
    }
}

/// SQLSTATE of a server that does not take connections now.
const CANNOT_CONNECT_NOW: &str = "57P03";

fn unreachable(facts: &Facts, reason: &str, report: &mut Report) {
    if facts.standby_code.as_deref() == Some(CANNOT_CONNECT_NOW) {
        let why =
            "with hot_standby = off a standby takes no connections at all; or it is still starting, and has not reached a consistent state";
        let fix = Fix { place: "the standby's postgresql.conf".to_owned(), line: "hot_standby = on".to_owned(), then: Some(RESTART) };
        return report.error("hot-standby", format!("the standby does not take connections: {reason}"), why, vec![fix]);
    }
    report.error("standby-connection", format!("no connection: {reason}"), "nothing can be said about the standby", vec![]);
}

fn recovery(primary: &Server, standby: &Server, report: &mut Report) -> Option<bool> {
    let id = "in-recovery";
    match &standby.in_recovery {
        Err(reason) => report.skipped(id, reason.clone(), vec![]),
        Ok(true) => report.ok(id, "it is in recovery"),
        Ok(false) => {
            let file = if standby.major >= 12 { "standby.signal" } else { "recovery.conf" };
            let user = ident(&primary.user);
            let fix = vec![
                Fix::shell(format!(
                    "pg_rewind -D DATADIR --source-server=\"… user={user}\" -R  # with the standby stopped; or a new pg_basebackup -R"
                )),
                Fix::shell(format!("touch DATADIR/{file}  # only where it has not written anything of its own, then start it again")),
            ];
            let why = "it takes writes of its own: it was promoted, or started without the file that makes it a standby; it will never follow again by itself";
            report.error(id, "it is not in recovery: it is a primary", why, fix);
        }
    }
    standby.in_recovery.as_ref().ok().copied()
}

fn versions(primary: &Server, standby: &Server, report: &mut Report) {
    if primary.major == standby.major {
        return report.ok("major", format!("both are of major {}", primary.major));
    }
    let found = format!("the primary is PostgreSQL {}, the standby {}", primary.version, standby.version);
    report.error(
        "major",
        found,
        "WAL is replayed by the same major only",
        vec![Fix::shell("pg_basebackup -R -D DATADIR  # with the programs of the primary's major")],
    );
}

/// What is known of the cluster, by one way or the other.
fn identifier(server: &Server) -> Known<String> {
    server
        .system_identifier
        .clone()
        .or_else(|reason| server.replication.as_ref().map_or(Err(reason), |identity| Ok(identity.system_identifier.clone())))
}

fn timeline(server: &Server) -> Known<TimelineId> {
    server.timeline.clone().or_else(|reason| server.replication.as_ref().map_or(Err(reason), |identity| Ok(identity.timeline)))
}

fn identifiers(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "system-identifier";
    match (identifier(primary), identifier(standby)) {
        (Ok(primary), Ok(standby)) if primary == standby => report.ok(id, format!("both have system identifier {primary}")),
        (Ok(primary), Ok(standby)) => report.error(
            id,
            format!("the primary has system identifier {primary}, the standby {standby}"),
            "they are different clusters: the standby was not made from this primary, and can never follow it",
            vec![Fix::shell("pg_basebackup -R -D DATADIR  # a new standby, from this primary")],
        ),
        (Err(reason), _) | (_, Err(reason)) => report.skipped(id, format!("the system identifier: {reason}"), vec![]),
    }
}

fn timelines(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "timeline";
    if identifier(primary).is_ok_and(|of| identifier(standby).is_ok_and(|other| of != other)) {
        return report.skipped(id, "timelines of different clusters say nothing", vec![]);
    }
    match (timeline(primary), timeline(standby)) {
        (Ok(first), Ok(second)) if first == second => report.ok(id, format!("both are on timeline {first}")),
        (Ok(first), Ok(second)) if second > first => report.error(
            id,
            format!("the primary is on timeline {first}, the standby on {second}"),
            "the standby was promoted, or follows one that was: which of them has the right data must be decided first",
            vec![Fix::shell("pgwal diff PRIMARY/pg_wal STANDBY/pg_wal  # what each has alone; then pg_rewind the one that lost")],
        ),
        (Ok(first), Ok(second)) => report.error(
            id,
            format!("the primary is on timeline {first}, the standby still on {second}"),
            "it has not followed the primary's promotion",
            vec![Fix {
                place: "the standby's postgresql.conf".to_owned(),
                line: "recovery_target_timeline = 'latest'".to_owned(),
                then: Some(RESTART),
            }],
        ),
        (Err(reason), _) | (_, Err(reason)) => report.skipped(id, format!("the timeline: {reason}"), vec![]),
    }
}

/// Whether it streams; `None`: not known.
fn streams(standby: &Server) -> Option<bool> {
    match standby.receiver.as_ref().ok()? {
        None => Some(false),
        Some(receiver) => Some(receiver.status.as_deref()? == "streaming"),
    }
}

fn receiver(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "wal-receiver";
    match &standby.receiver {
        Err(reason) => report.skipped(id, format!("pg_stat_wal_receiver: {reason}"), vec![]),
        Ok(Some(receiver)) => match receiver.status.as_deref() {
            None => {
                let fix = vec![Fix::sql(format!("GRANT pg_monitor TO {};", ident(&standby.user)))];
                report.skipped(id, format!("a walreceiver runs; its status is not shown to role \"{}\"", standby.user), fix);
            }
            Some("streaming") => {
                let timeline = receiver.timeline.map_or_else(String::new, |timeline| format!(", timeline {timeline}"));
                let end = receiver.latest_end.map_or_else(String::new, |lsn| format!(", up to {lsn}"));
                // The primary was asked before, and its walsender does not go while the walreceiver streams.
                if primary.senders.as_ref().is_ok_and(Vec::is_empty) {
                    let why = "nobody streams from the primary that you gave: this standby gets its WAL from another server";
                    return report.note(id, format!("it streams{timeline}{end}, from another server"), why);
                }
                report.ok(id, format!("it streams{timeline}{end}"));
            }
            Some(status) => report.warning(
                id,
                format!("the walreceiver is {status}"),
                "it is connected and does not stream",
                vec![Fix::sql("SELECT * FROM pg_stat_wal_receiver;  -- again: does it stream now?")],
            ),
        },
        Ok(None) => {
            let restores = standby.value("restore_command").is_some_and(|command| !command.is_empty());
            let set = configured(standby).as_ref().is_ok_and(Option::is_some);
            let found = if restores { "no walreceiver runs; it lives from restore_command" } else { "no walreceiver runs" };
            let why = match set {
                true => {
                    "nothing comes from the primary; the standby's log says why: \"could not connect\", \"requested WAL segment has already been removed\", …"
                }
                false => "nothing comes from the primary, because the standby does not know where it is",
            };
            let mut fix = Vec::new();
            if !set {
                fix.push(conninfo_fix(primary, standby));
            }
            report.error(id, found, why, fix);
            if let Ok(Some(conninfo)) = configured(standby) {
                way_in(primary, standby, &conninfo, report);
            }
        }
    }
}

/// primary_conninfo: from the settings, before 12 from what the walreceiver uses. `Ok(None)`: it is empty.
fn configured(standby: &Server) -> Known<Option<PrimaryConninfo>> {
    match standby.setting("primary_conninfo") {
        Ok(setting) if setting.value.trim().is_empty() => Ok(None),
        Ok(setting) => PrimaryConninfo::parse(&setting.value).map(Some).ok_or_else(|| "primary_conninfo cannot be read".to_owned()),
        Err(reason) => match &standby.receiver {
            Ok(Some(receiver)) if receiver.conninfo.is_some() => Ok(receiver.conninfo.clone()),
            _ if standby.major < 12 => Err("before 12 primary_conninfo is in recovery.conf, which SQL does not show".to_owned()),
            _ => Err(reason),
        },
    }
}

/// The file with the settings of a standby.
fn standby_file(standby: &Server) -> &'static str {
    if standby.major >= 12 { "the standby's postgresql.conf" } else { "the standby's recovery.conf" }
}

/// Settings of a standby that take effect without a restart, in these majors and later.
fn then(standby: &Server) -> &'static str {
    if standby.major >= 13 { RELOAD } else { RESTART }
}

fn conninfo_fix(primary: &Server, standby: &Server) -> Fix {
    let host = primary.address.map_or_else(|| "HOST".to_owned(), |address| address.to_string());
    let port = primary.value("port").unwrap_or("5432").to_owned();
    let line = format!("primary_conninfo = 'host={host} port={port} user={}'", primary.user);
    Fix { place: standby_file(standby).to_owned(), line, then: Some(then(standby)) }
}

/// Whether the primary would let the standby in: its role, and pg_hba.conf.
fn way_in(primary: &Server, standby: &Server, conninfo: &PrimaryConninfo, report: &mut Report) {
    let Some(user) = conninfo.user.as_deref() else { return };
    // What is found is to be changed on the primary.
    report.side = Side::Primary;
    match primary.roles.as_ref().map(|roles| roles.get(user)) {
        Ok(Some(role)) => may_replicate(user, role, report, "standby-role"),
        Ok(None) => {
            let fix = vec![Fix::sql(format!("CREATE ROLE {} REPLICATION LOGIN PASSWORD '…';", ident(user)))];
            report.error(
                "standby-role",
                format!("primary_conninfo names user \"{user}\", which is no role of the primary"),
                "the primary refuses the standby",
                fix,
            );
        }
        Err(_) => {}
    }
    let is_socket = conninfo.host.as_deref().is_none_or(|host| host.starts_with(['/', '@']));
    // From where it comes to the primary is known only where we come to it by that address, or both by the loopback.
    let loopback =
        conninfo.host.as_deref().is_some_and(|host| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback()));
    let address = if loopback {
        conninfo.host.as_deref().and_then(|host| host.parse().ok()).or(Some(IpAddr::from([127, 0, 0, 1])))
    } else {
        standby.address
    };
    if let Ok(rules) = &primary.hba
        && (is_socket || address.is_some())
    {
        let client = Client { address: address.filter(|_| !is_socket), tls: None };
        let subject = Subject { user, client: &client, server: primary.address, major: primary.major, roles: &primary.roles };
        hba_replication(rules, &subject, false, primary, report, "standby-hba");
    }
    report.side = Side::Standby;
}

fn conninfo(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "primary-conninfo";
    let conninfo = match configured(standby) {
        Err(reason) => {
            let fix = if standby.major >= 12 {
                vec![Fix::sql(format!("GRANT pg_read_all_settings TO {};", ident(&standby.user)))]
            } else {
                vec![]
            };
            return report.skipped(id, format!("primary_conninfo: {reason}"), fix);
        }
        Ok(conninfo) => conninfo,
    };
    let Some(conninfo) = conninfo else {
        let why = "the standby does not know its primary, and replays only what restore_command brings";
        return report.error(id, "primary_conninfo is empty", why, vec![conninfo_fix(primary, standby)]);
    };
    let host = conninfo.host.as_deref().unwrap_or("the Unix socket");
    let user = conninfo.user.as_deref().unwrap_or("the server's account");
    report.ok(id, format!("primary_conninfo leads to {host}, port {}, user {user}", conninfo.port.as_deref().unwrap_or("5432")));
    if conninfo.has_password {
        let fix = Fix {
            place: "~/.pgpass of the standby's account, mode 0600".to_owned(),
            line: format!("{host}:{}:replication:{user}:the password", conninfo.port.as_deref().unwrap_or("5432")),
            then: Some("and take password=… out of primary_conninfo"),
        };
        let why = "whoever reads the standby's configuration, or a backup of it, has the password; ALTER SYSTEM and pg_basebackup -R put it there";
        report.warning("primary-conninfo-password", "primary_conninfo has a password in clear text", why, vec![fix]);
    }
}

fn slot(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "primary-slot";
    let used = standby.receiver.as_ref().ok().and_then(|receiver| receiver.as_ref()?.slot.clone());
    let name = match standby.setting("primary_slot_name") {
        Ok(setting) => setting.value.clone(),
        Err(_) if used.is_some() => used.unwrap_or_default(),
        Err(_) if standby.major < 12 && streams(standby) == Some(true) => String::new(),
        Err(reason) => return report.skipped(id, format!("primary_slot_name: {reason}"), vec![]),
    };
    let slots = match &primary.slots {
        Err(reason) => return report.skipped(id, format!("slots of the primary: {reason}"), vec![]),
        Ok(slots) => slots,
    };
    if name.is_empty() {
        let keeps = ["wal_keep_size", "wal_keep_segments"].iter().any(|name| primary.number(name).is_some_and(|kept| kept > 0));
        let restores = standby.value("restore_command").is_some_and(|command| !command.is_empty());
        let found = "primary_slot_name is not set";
        let why = "the primary does not know what this standby still needs, and may remove it";
        if keeps || restores {
            return report.note(
                id,
                found,
                format!("{why}; {}", if restores { "restore_command then helps" } else { "wal_keep_size delays that" }),
            );
        }
        let fix = vec![
            Fix::sql("SELECT pg_create_physical_replication_slot('standby', true);  -- on the primary"),
            Fix { place: standby_file(standby).to_owned(), line: "primary_slot_name = 'standby'".to_owned(), then: Some(then(standby)) },
        ];
        return report.warning(id, found, why, fix);
    }
    match slots.iter().find(|slot| slot.name == name) {
        None => {
            let why = "the primary refuses to stream for a slot that it does not have";
            let fix = vec![Fix::sql(format!("SELECT pg_create_physical_replication_slot({}, true);", literal(&name)))];
            report.error(id, format!("primary_slot_name is '{name}', and the primary has no such slot"), why, fix);
        }
        Some(slot) if slot.logical => {
            let found = format!("primary_slot_name is '{name}', which is a logical slot");
            let fix = vec![Fix {
                place: standby_file(standby).to_owned(),
                line: "primary_slot_name = 'another'".to_owned(),
                then: Some(then(standby)),
            }];
            report.error(id, found, "a standby takes a physical slot", fix);
        }
        Some(slot) => {
            report.ok(id, format!("primary_slot_name is '{name}', and the primary has it{}", if slot.active { ", in use" } else { "" }))
        }
    }
}

fn paused(standby: &Server, report: &mut Report) {
    match &standby.paused {
        Err(reason) => report.skipped("recovery-paused", reason.clone(), vec![]),
        Ok(Some(true)) => report.error(
            "recovery-paused",
            "replay is paused",
            "WAL is received and not replayed: queries see old data, a promotion takes long; somebody asked for it, or, from 14 on, a setting that is too low (see standby-settings)",
            vec![Fix::sql("SELECT pg_wal_replay_resume();")],
        ),
        Ok(_) => report.ok("recovery-paused", "replay is not paused"),
    }
}

/// Settings that decide how much room a standby has for what the primary's sessions do. C: `CheckRequiredParameterValues`.
const NOT_LOWER: [&str; 5] =
    ["max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction"];

fn settings(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "standby-settings";
    let (mut good, mut unknown) = (0, Vec::new());
    for name in NOT_LOWER {
        // Before 12 walsenders were among max_connections, and did not count here.
        if name == "max_wal_senders" && standby.major < 12 {
            continue;
        }
        let (Some(wanted), Some(found)) = (primary.number(name), standby.number(name)) else {
            unknown.push(name);
            continue;
        };
        if found >= wanted {
            good += 1;
            continue;
        }
        let why = match standby.major {
            14.. => {
                "on a hot standby it must not be lower: when such a record of the primary comes, replay pauses, and after pg_wal_replay_resume() the standby shuts down"
            }
            _ => "on a hot standby it must not be lower: the standby shuts down, or does not start",
        };
        let fix = vec![Fix::setting(standby, name, &wanted.to_string(), RESTART)];
        report.error(id, format!("{name} is {found}, on the primary {wanted}"), why, fix);
    }
    if good > 0 {
        report.ok(id, format!("{good} settings that must not be lower than on the primary are not"));
    }
    if !unknown.is_empty() {
        report.skipped(id, format!("not known: {}", unknown.join(", ")), vec![]);
    }
    match standby.is_on("hot_standby") {
        Some(false) => report.note("hot-standby", "hot_standby is off", "the standby takes no queries"),
        Some(true) => report.ok("hot-standby", "hot_standby is on"),
        None => {}
    }
    if standby.is_on("fsync") == Some(false) {
        let why = "after a crash of its machine the standby is beyond repair";
        report.warning("fsync", "fsync is off", why, vec![Fix::setting(standby, "fsync", "on", RELOAD)]);
    }
}
