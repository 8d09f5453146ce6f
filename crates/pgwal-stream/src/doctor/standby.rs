//! Points of the server that receives, and of the two together.

use std::net::IpAddr;

use pgwal::TimelineId;

use super::facts::{Client, Facts, Known, PrimaryConninfo, Receiver, Sender, Server};
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
        let found = format!("the standby does not take connections: {reason}");
        let streaming = |senders: &Vec<Sender>| senders.iter().any(|sender| sender.state.as_deref() == Some("streaming"));
        if facts.primary.senders.as_ref().is_ok_and(streaming) {
            // As hot_standby = off wants it, and somebody streams: nothing says that it is not this one.
            return report.skipped("hot-standby", format!("{found}; somebody streams from the primary"), vec![]);
        }
        let why = "nobody is seen to stream from the primary; with hot_standby = off a standby takes no connections at all, or it is still starting, and has not reached a consistent state: its log says";
        let then = Some("if it is to take queries; needs a restart");
        let fix = Fix { place: "the standby's postgresql.conf".to_owned(), line: "hot_standby = on".to_owned(), then };
        return report.warning("hot-standby", found, why, vec![fix]);
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
    if is_stale(server)
        && let Ok(identity) = &server.replication
    {
        return Ok(identity.timeline);
    }
    server.timeline.clone().or_else(|reason| server.replication.as_ref().map_or(Err(reason), |identity| Ok(identity.timeline)))
}

/// Its timeline is the one of pg_control: in recovery without a walreceiver that tells, it is old until the next restartpoint.
fn is_stale(server: &Server) -> bool {
    server.in_recovery == Ok(true) && !matches!(&server.receiver, Ok(Some(Receiver { timeline: Some(_), .. })))
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
        (Ok(first), Ok(second)) if is_stale(standby) && standby.replication.is_err() => report.skipped(
            id,
            format!(
                "the primary is on timeline {first}, the standby was on {second} at its last checkpoint; where it is now, only IDENTIFY_SYSTEM says, which role \"{}\" may not ask",
                standby.user
            ),
            vec![],
        ),
        (Ok(first), Ok(second)) => report.error(
            id,
            format!("the primary is on timeline {first}, the standby still on {second}"),
            "it has not followed the primary's promotion",
            vec![Fix {
                place: standby_file(standby).to_owned(),
                line: "recovery_target_timeline = 'latest'".to_owned(),
                then: Some(RESTART),
            }],
        ),
        (Err(reason), _) | (_, Err(reason)) => report.skipped(id, format!("the timeline: {reason}"), vec![]),
    }
}

/// Whether it streams; `None`: not known.
pub(super) fn streams(standby: &Server) -> Option<bool> {
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
                if elsewhere(primary, standby) {
                    let why = "nobody streams from the primary that you gave, or not by this standby's slot: it gets its WAL from another server (cascading)";
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
            no_receiver(primary, standby, report);
            if let Ok(Some(conninfo)) = configured(standby) {
                way_in(primary, standby, &conninfo, report);
            }
        }
    }
}

/// It streams, and from another server than the primary: nobody streams from that, or it has no slot such as the walreceiver uses.
fn elsewhere(primary: &Server, standby: &Server) -> bool {
    let Ok(Some(receiver)) = &standby.receiver else { return false };
    let lacks = |name: &String| primary.slots.as_ref().is_ok_and(|slots| slots.iter().all(|slot| slot.name != *name));
    // The primary was asked before, and neither its walsender nor the slot goes while the walreceiver streams.
    streams(standby) == Some(true) && (primary.senders.as_ref().is_ok_and(Vec::is_empty) || receiver.slot.as_ref().is_some_and(lacks))
}

/// What it means that no walreceiver runs depends on what the standby is to live from.
fn no_receiver(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "wal-receiver";
    let found = "no walreceiver runs";
    let log = "the standby's log says why: \"could not connect\", \"requested WAL segment has already been removed\", …";
    match (has_conninfo(standby), restores(standby)) {
        (Ok(false), Ok(true)) => {
            let why = "primary_conninfo is empty, so that it is behind by what the primary has not archived yet";
            report.note(id, format!("{found}; it lives from restore_command"), why);
        }
        (Ok(true), Ok(true)) => {
            let why = format!("nothing comes from the primary but what it archives; {log}");
            report.warning(id, format!("{found}; it lives from restore_command"), why, vec![]);
        }
        (Ok(false), _) => {
            let why = "nothing comes from the primary, because the standby does not know where it is";
            report.error(id, found, why, vec![conninfo_fix(primary, standby)]);
        }
        (Ok(true), _) => report.error(id, found, format!("nothing comes from the primary; {log}"), vec![]),
        (Err(_), Ok(false)) => {
            report.error(id, format!("{found}, and restore_command is empty"), format!("nothing comes from the primary; {log}"), vec![]);
        }
        (Err(reason), _) => {
            report.skipped(id, format!("{found}; whether one should is not known: primary_conninfo: {reason}"), show_settings(standby));
        }
    }
}

/// What lets a role see primary_conninfo; before 12 nothing does.
fn show_settings(standby: &Server) -> Vec<Fix> {
    if standby.major < 12 || standby.sql.is_err() {
        return vec![];
    }
    vec![Fix::sql(format!("GRANT pg_read_all_settings TO {};", ident(&standby.user)))]
}

/// A setting that only standbys have. Not to be seen is not the same as not to be set.
fn of_standbys<'s>(standby: &'s Server, name: &str) -> Known<&'s str> {
    let hidden =
        |reason| if standby.major < 12 { format!("before 12 {name} is in recovery.conf, which SQL does not show") } else { reason };
    standby.setting(name).map(|setting| setting.value.trim()).map_err(hidden)
}

/// Whether it has a restore_command.
fn restores(standby: &Server) -> Known<bool> {
    of_standbys(standby, "restore_command").map(|command| !command.is_empty())
}

/// Whether it has a primary_conninfo.
fn has_conninfo(standby: &Server) -> Known<bool> {
    of_standbys(standby, "primary_conninfo").map(|conninfo| !conninfo.is_empty())
}

/// primary_conninfo: from the settings, before 12 from what the walreceiver uses. `Ok(None)`: it is empty.
fn configured(standby: &Server) -> Known<Option<PrimaryConninfo>> {
    match of_standbys(standby, "primary_conninfo") {
        Ok("") => Ok(None),
        Ok(conninfo) => PrimaryConninfo::parse(conninfo).map(Some).ok_or_else(|| "it cannot be read".to_owned()),
        Err(reason) => match &standby.receiver {
            Ok(Some(receiver)) if receiver.conninfo.is_some() => Ok(receiver.conninfo.clone()),
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
        // Where we come to the standby by the loopback, the primary does not see it so.
        standby.address.filter(|address| !address.is_loopback())
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
            let fix = if has_conninfo(standby).is_err() { show_settings(standby) } else { vec![] };
            return report.skipped(id, format!("primary_conninfo: {reason}"), fix);
        }
        Ok(conninfo) => conninfo,
    };
    let Some(conninfo) = conninfo else {
        if restores(standby) == Ok(true) {
            let why =
                "the standby does not know its primary, and replays what restore_command brings: whole segments, once they are archived";
            return report.note(id, "primary_conninfo is empty", why);
        }
        let why = "the standby does not know its primary";
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
    let name = match of_standbys(standby, "primary_slot_name") {
        Ok(name) => name.to_owned(),
        Err(_) if used.is_some() => used.unwrap_or_default(),
        Err(_) if standby.major < 12 && streams(standby) == Some(true) => String::new(),
        Err(reason) => return report.skipped(id, format!("primary_slot_name: {reason}"), vec![]),
    };
    let slots = match &primary.slots {
        Err(reason) => return report.skipped(id, format!("slots of the primary: {reason}"), vec![]),
        Ok(slots) => slots,
    };
    if elsewhere(primary, standby) {
        // A slot here would be nobody's, and keep WAL until the disk is full.
        let found = if name.is_empty() { "primary_slot_name is not set".to_owned() } else { format!("primary_slot_name is '{name}'") };
        return report.note(id, found, "it streams from another server: its slot belongs there, and on this primary nobody would use it");
    }
    if name.is_empty() {
        if (has_conninfo(standby), restores(standby)) == (Ok(false), Ok(true)) {
            return report.note(id, "primary_slot_name is not set", "the standby does not stream, and needs no slot");
        }
        let keeps = ["wal_keep_size", "wal_keep_segments"].iter().any(|name| primary.number(name).is_some_and(|kept| kept > 0));
        let restores = restores(standby) == Ok(true);
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
            let found = format!("primary_slot_name is '{name}', and the primary has no such slot");
            if streams(standby).is_none() {
                let fix = vec![Fix::sql(format!("GRANT pg_monitor TO {};", ident(&standby.user)))];
                let fix = if standby.sql.is_ok() { fix } else { vec![] };
                return report.skipped(
                    id,
                    format!("{found}; whether the standby streams, which it then does from another server, is not known"),
                    fix,
                );
            }
            let why = "the primary refuses to stream for a slot that it does not have";
            let line = format!("SELECT pg_create_physical_replication_slot({}, true);", literal(&name));
            let then = Some("on the primary, if primary_conninfo leads to it");
            report.error(id, found, why, vec![Fix { place: "SQL".to_owned(), line, then }]);
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
