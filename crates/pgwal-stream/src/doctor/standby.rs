//! Points of the server that receives, and of the two together.

use std::net::IpAddr;

use pgwal::Lsn;

use super::facts::{Client, Facts, Known, PrimaryConninfo, Receiver, Sender, Server};
use super::hba::Subject;
use super::primary::{hba_replication, may_replicate, summarizer, told_password};
use super::relation::{
    self, Lineage, Match, Source, are_strangers, identifier, is_stale, leads_to, missing_wal, streams, streams_from, timeline,
};
use super::slots::{self, Owner};
use super::{Fix, RELOAD, RESTART, Report, Severity, Side, Target, archive, ident, literal, size};
use crate::slots::Slot;

pub(super) fn check(facts: &Facts, report: &mut Report) {
    let standby = match &facts.standby {
        None => return,
        Some(Ok(standby)) => standby,
        Some(Err(reason)) => return unreachable(facts, reason, report),
    };
    let primary = &facts.primary;
    report.ok("server", format!("PostgreSQL {}, as role \"{}\"", standby.version, standby.user));
    if facts.passwords_told.1 {
        told_password(standby, report);
    }
    if !identifiers(primary, standby, report) {
        return report.skipped("timeline", "timelines of different clusters say nothing", vec![]);
    }
    let lineage = relation::lineage(primary, standby);
    let in_recovery = recovery(primary, standby, &lineage, report);
    versions(primary, standby, report);
    timelines(primary, standby, &lineage, report);
    if in_recovery != Some(false) {
        signal(standby, report);
        receiver(primary, standby, &lineage, report);
        conninfo(primary, standby, report);
        receiver_timeout(standby, report);
        slot(primary, standby, &lineage, report);
        paused(primary, standby, &lineage, report);
        conflicts(standby, report);
        settings(primary, standby, report);
        slot_sync(primary, standby, report);
    }
    // Nobody to judge by whether they are in use: what they keep is told.
    if standby.slots.as_ref().is_ok_and(|slots| !slots.is_empty()) {
        slots::check(standby, &Owner::nobody(), report);
    }
    archive::check(standby, Some(primary), report);
    summarizer(standby, report);
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
        // C: `ProcessStartupPacket`'s CAC_NOTHOTSTANDBY and CAC_NOTCONSISTENT, which are one message before 14.
        if facts.primary.major >= 14 && (reason.contains("not yet accepting") || reason.contains("starting up")) {
            let why = "it is starting, or has not replayed enough yet to be consistent; if that goes on, its log says what it waits for";
            return report.warning("standby-connection", found, why, vec![]);
        }
        let why = "nobody is seen to stream from the primary; with hot_standby = off a standby takes no connections at all, or it is still starting, and has not reached a consistent state: its log says";
        let fix = Fix::line("postgresql.conf", "hot_standby = on", Some("if it is to take queries; needs a restart"));
        return report.warning("hot-standby", found, why, vec![fix]);
    }
    let why = "nothing can be said about the standby; if it does not start, its log says why";
    report.error("standby-connection", format!("no connection: {reason}"), why, vec![]);
}

fn recovery(primary: &Server, standby: &Server, lineage: &Lineage, report: &mut Report) -> Option<bool> {
    let id = "in-recovery";
    match &standby.in_recovery {
        Err(reason) => report.skipped(id, reason.clone(), vec![]),
        Ok(true) => report.ok(id, "it is in recovery"),
        Ok(false) => {
            let why = "it takes writes of its own: it was promoted, or started without the file that makes it a standby; it will never follow again by itself";
            // Which of the two has the right data comes first, where both may.
            let fix = match lineage {
                Lineage::Newer { .. } => vec![
                    Fix { then: Some("where it was promoted by mistake, and the other one is right"), ..rewind(primary, standby) },
                    Fix {
                        then: Some("where it was promoted on purpose, and is the primary now"),
                        ..rewind(standby, primary).on(Target::Primary)
                    },
                ],
                _ => vec![rewind(primary, standby)],
            };
            report.error(id, "it is not in recovery: it is a primary", why, fix);
        }
    }
    standby.in_recovery.as_ref().ok().copied()
}

/// How a server that has WAL of its own becomes a standby of `source`.
fn rewind(source: &Server, server: &Server) -> Fix {
    let user = ident(&source.user);
    let same = timeline(source).is_ok_and(|one| timeline(server).is_ok_and(|other| one == other));
    let hints = [server.is_on("data_checksums"), server.is_on("wal_log_hints")];
    // C: `main` and `sanityChecks` of pg_rewind.c.
    let why_not = if same {
        Some("by their timelines pg_rewind takes the two for the same, and does nothing")
    } else if hints == [Some(false), Some(false)] {
        Some("pg_rewind takes data checksums or wal_log_hints, which are off here")
    } else {
        None
    };
    let recovery = if server.major >= 13 { " -R" } else { "" };
    Fix::shell(match why_not {
        Some(why_not) => format!("pg_basebackup -R -D DATADIR  # a new standby, from that server: {why_not}"),
        None => {
            format!(
                "pg_rewind -D DATADIR --source-server=\"… user={user}\"{recovery}  # with this server stopped; or a new pg_basebackup -R"
            )
        }
    })
}

/// Without the file the next start is that of a primary.
fn signal(standby: &Server, report: &mut Report) {
    if standby.standby_signal == Ok(false) && standby.in_recovery == Ok(true) {
        let found = "it is in recovery, and there is no standby.signal in its data directory";
        let why = "once recovery ends, or with the next start, it becomes a primary of its own";
        report.warning(
            "standby-signal",
            found,
            why,
            vec![Fix::shell(
                "touch DATADIR/standby.signal  # as the server's account; if it is in recovery to a point in time, it is none",
            )],
        );
    }
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

/// Whether it makes sense to go on: what is said to a server of somebody else does harm.
fn identifiers(primary: &Server, standby: &Server, report: &mut Report) -> bool {
    let id = "system-identifier";
    let (one, other) = match (identifier(primary), identifier(standby)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(reason), _) | (_, Err(reason)) => {
            report.skipped(id, format!("the system identifier: {reason}"), vec![]);
            return true;
        }
    };
    if one == other {
        report.ok(id, format!("both have system identifier {one}"));
        return true;
    }
    let found = format!("the primary has system identifier {one}, the standby {other}");
    let why = "they are different clusters: the standby was not made from this primary, and can never follow it";
    if standby.in_recovery == Ok(false) {
        let why = format!(
            "{why}; the one given as standby is a primary itself, so this is probably the wrong server, and nothing more is said about it"
        );
        report.error(id, found, why, vec![]);
        return false;
    }
    if streams(standby) == Some(true) {
        let source = standby.receiver.as_ref().ok().and_then(|receiver| relation::sender_endpoint(receiver.as_ref()?));
        let from = source.as_ref().map_or_else(String::new, |(host, port)| format!(", from host {host}, port {port}"));
        let why = format!("{why}; it streams{from}, so one of the two is probably the wrong server, and nothing more is said about it");
        let fix =
            source.map(|(host, port)| Fix::shell(format!("pgwal doctor -d \"host={host} port={port} …\" --standby …")).on(Target::Here));
        report.error(id, found, why, fix.into_iter().collect());
        return false;
    }
    report.error(id, found, why, vec![Fix::shell("pg_basebackup -R -D DATADIR  # a new standby, from this primary")]);
    true
}

fn timelines(primary: &Server, standby: &Server, lineage: &Lineage, report: &mut Report) {
    let id = "timeline";
    if are_strangers(primary, standby) {
        return report.skipped(id, "timelines of different clusters say nothing", vec![]);
    }
    let (first, second) = match (timeline(primary), timeline(standby)) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(reason), _) | (_, Err(reason)) => return report.skipped(id, format!("the timeline: {reason}"), vec![]),
    };
    match lineage {
        Lineage::Unknown(reason) => report.skipped(id, format!("the timeline: {reason}"), vec![]),
        Lineage::Same(timeline) => report.ok(id, format!("both are on timeline {timeline}")),
        Lineage::Diverged { found, only_received: false } => {
            let why = "no setting brings it back: what it has and the primary has not must be undone, by pg_rewind or by making it anew";
            let rewind = rewind(primary, standby);
            let diff = Fix::shell("pgwal diff PRIMARY/pg_wal STANDBY/pg_wal  # first, if what only the standby has may be wanted").on(Target::Here);
            report.error(id, found.clone(), why, vec![rewind, diff]);
        }
        Lineage::Diverged { found, only_received: true } => {
            let why = "once it replays that, it has data that the primary does not have: it must neither resume replay nor restart before it is made anew";
            report.error(id, found.clone(), why, vec![Fix::shell("pg_basebackup -R -D DATADIR  # a new standby, from this primary")]);
        }
        Lineage::Newer { written, fork } => newer(primary, standby, *written, *fork, report),
        Lineage::Behind { .. } if is_stale(standby) && standby.replication.is_err() => report.skipped(
            id,
            format!(
                "the primary is on timeline {first}, the standby was on {second} at its last checkpoint; where it is now, only IDENTIFY_SYSTEM says, which role \"{}\" may not ask",
                standby.user
            ),
            vec![],
        ),
        Lineage::Behind { fork } => behind(primary, standby, *fork, report),
    }
}

/// There is a newer primary than the one that was given.
fn newer(primary: &Server, standby: &Server, written: Option<u64>, fork: Option<Lsn>, report: &mut Report) {
    let (Ok(first), Ok(second)) = (timeline(primary), timeline(standby)) else { return };
    let mut found = format!("the primary is on timeline {first}, the standby on {second}");
    if let Some(fork) = fork {
        found.push_str(&format!(", which began at {fork}"));
    }
    match written {
        Some(0) => found.push_str("; the primary has written nothing since"),
        Some(bytes) => found.push_str(&format!("; the primary has written {} of its own since", size(bytes))),
        None => {}
    }
    let diff =
        Fix::shell("pgwal diff PRIMARY/pg_wal STANDBY/pg_wal  # what each has alone; then pg_rewind the one that lost").on(Target::Here);
    if standby.in_recovery == Ok(true) {
        let why = "the standby follows a server that was promoted: the one that you gave as primary was left behind, or the other was promoted by mistake; which of them has the right data must be decided first";
        let left = Fix { then: Some("if the newer one is right"), ..rewind(standby, primary).on(Target::Primary) };
        return report.error("timeline", found, why, vec![diff, left]);
    }
    let why = "the standby was promoted: which of them has the right data must be decided first";
    report.error("timeline", found, why, vec![diff]);
}

/// It has not followed the primary's promotion, and still can.
fn behind(primary: &Server, standby: &Server, fork: Option<Lsn>, report: &mut Report) {
    let id = "timeline";
    let (Ok(first), Ok(second)) = (timeline(primary), timeline(standby)) else { return };
    let mut found = format!("the primary is on timeline {first}, the standby still on {second}");
    if standby.in_recovery == Ok(false) {
        // It writes its own: no setting has a say in that.
        return report.error(id, found, "it is a primary itself: see in-recovery", vec![]);
    }
    let mut why = String::from("it has not followed the primary's promotion");
    match fork {
        Some(fork) => found.push_str(&format!(", and has nothing beyond {fork}, where the primary left that timeline")),
        None => {
            why.push_str("; whether it has gone past the place where the primary left that timeline, and so can never follow, is not known")
        }
    }
    let target = standby.value("recovery_target_timeline").map(str::to_owned);
    let leads = configured(standby).ok().flatten().map(|conninfo| leads_to(primary, standby, &conninfo));
    let other = match streams_from(primary, standby) {
        Source::Other(what) => Some(what),
        _ if leads == Some(Match::No) => Some("primary_conninfo leads to another server".to_owned()),
        _ => None,
    };
    let latest = Fix::line(standby_file(standby), "recovery_target_timeline = 'latest'", Some(RESTART));
    let mut fix = Vec::new();
    match target.as_deref() {
        Some("latest") => {}
        Some(_) => fix.push(Fix::setting(standby, "recovery_target_timeline", "'latest'", RESTART)),
        // Before 12 it cannot be seen, and is not the default.
        None => fix.push(Fix { then: Some("unless it is there already; needs a restart"), ..latest }),
    }
    if let Some(other) = other.filter(|_| leads != Some(Match::Yes)) {
        why.push_str(&format!("; {other}: once it is past the fork, it cannot follow any more"));
        fix.push(conninfo_fix(primary, standby));
    } else if target.as_deref() == Some("latest") {
        why.push_str("; its settings are right, so it will once it receives from this primary: see wal-receiver");
    }
    report.error(id, found, why, fix);
}

fn receiver(primary: &Server, standby: &Server, lineage: &Lineage, report: &mut Report) {
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
                if let Source::Other(what) = streams_from(primary, standby) {
                    return streams_elsewhere(primary, standby, receiver, &what, lineage, report);
                }
                report.ok(id, format!("it streams{timeline}{end}"));
            }
            Some(status) if lineage.is_diverged() => {
                report.error(id, format!("the walreceiver is {status}"), "it gets no WAL, because it has diverged: see timeline", vec![]);
            }
            Some(status) => report.warning(
                id,
                format!("the walreceiver is {status}"),
                "it is connected and does not stream",
                vec![Fix::sql("SELECT * FROM pg_stat_wal_receiver;  -- again: does it stream now?")],
            ),
        },
        Ok(None) => {
            no_receiver(primary, standby, lineage, report);
            if let Ok(Some(conninfo)) = configured(standby)
                && leads_to(primary, standby, &conninfo) != Match::No
            {
                way_in(primary, standby, &conninfo, report);
            }
        }
    }
}

/// It streams, and not from the server that was given as its primary.
fn streams_elsewhere(primary: &Server, standby: &Server, receiver: &Receiver, what: &str, lineage: &Lineage, report: &mut Report) {
    let timeline = receiver.timeline.map_or_else(String::new, |timeline| format!(", timeline {timeline}"));
    let end = receiver.latest_end.map_or_else(String::new, |lsn| format!(", up to {lsn}"));
    let source = relation::sender_endpoint(receiver);
    let from = source.as_ref().map_or_else(String::new, |(host, port)| format!(": host {host}, port {port}"));
    let found = format!("it streams{timeline}{end}, from another server{from}");
    let mut fix = Vec::new();
    let why = match lineage {
        Lineage::Diverged { .. } => format!("{what}; and it has diverged from that: see timeline"),
        Lineage::Newer { .. } => format!("{what}; it follows a newer primary: see timeline"),
        _ => {
            let (host, port) = source.unwrap_or_else(|| ("…".to_owned(), "…".to_owned()));
            let look = Fix::shell(format!(
                "pgwal doctor -d \"host={host} port={port} …\" --standby …  # if it is to (cascading): that is its primary"
            ));
            // One that does not follow a promotion has no business there.
            fix.extend((!matches!(lineage, Lineage::Behind { .. })).then(|| look.on(Target::Here)));
            let leads = configured(standby).ok().flatten().map(|conninfo| leads_to(primary, standby, &conninfo));
            if leads == Some(Match::Yes) {
                format!(
                    "{what}, although primary_conninfo leads there: the setting has not been read yet, or its host name leads to another server by now"
                )
            } else {
                fix.push(conninfo_fix(primary, standby));
                format!("{what}: it has what that other server has, and no more")
            }
        }
    };
    let severity = if matches!(lineage, Lineage::Behind { .. }) { Severity::Error } else { Severity::Warning };
    report.push("wal-receiver", severity, found, why, fix);
}

/// What it means that no walreceiver runs depends on what the standby is to live from, and on whom it asks.
fn no_receiver(primary: &Server, standby: &Server, lineage: &Lineage, report: &mut Report) {
    let id = "wal-receiver";
    let mut found = "no walreceiver runs".to_owned();
    let conninfo = configured(standby).ok().flatten();
    let restores = restores(standby);
    let archive = if restores == Ok(true) { "; it lives from restore_command" } else { "" };
    let severity = if restores == Ok(true) { Severity::Warning } else { Severity::Error };
    if lineage.is_diverged() {
        let why = "nothing comes from the primary, because the standby has diverged: see timeline";
        return report.push(id, severity, format!("{found}{archive}"), why, vec![]);
    }
    let leads = conninfo.as_ref().map(|conninfo| leads_to(primary, standby, conninfo));
    if matches!(leads, Some(Match::Yes | Match::Differs))
        && let Some((needed, oldest)) = missing_wal(primary, standby)
        && !are_strangers(primary, standby)
    {
        found.push_str(&format!("; the standby needs the WAL from {needed} on, and the oldest that the primary has begins at {oldest}"));
        let restore = Fix::setting(standby, "restore_command", "'cp /archive/%f %p'", then_restore(standby));
        let restore = if restores == Ok(true) { None } else { Some(restore) };
        let anew = Fix::shell("pg_basebackup -R -D DATADIR  # a new standby, from this primary, unless an archive has that WAL");
        let why = "the primary has removed what the standby needs: it cannot go on without an archive";
        return report.push(id, severity, format!("{found}{archive}"), why, restore.into_iter().chain([anew]).collect());
    }
    if let (Some(conninfo), Some(leads @ (Match::No | Match::Differs))) = (&conninfo, leads) {
        let asks: Vec<String> =
            conninfo.endpoints().into_iter().map(|(host, port)| format!("{}, port {port}", shown_host(&host))).collect();
        found.push_str(&format!("; primary_conninfo leads to {}", asks.join(" or ")));
        let given = match primary.endpoint.host.is_empty() {
            true => "the primary that you gave".to_owned(),
            false => format!("the primary that you gave ({})", primary.endpoint),
        };
        let (why, then) = match leads {
            Match::No => {
                found.push_str(&format!(", which is not {given}"));
                ("the standby asks the wrong server, or one that is not there any more", None)
            }
            _ => {
                found.push_str(&format!(", and not by that address to {given}"));
                (
                    "unless both addresses are of one server, the standby asks the wrong one; otherwise its log says why it does not stream",
                    Some("if they are not one server"),
                )
            }
        };
        let fix = conninfo_fix(primary, standby);
        let fix = Fix { then: then.or(fix.then), ..fix };
        return report.push(id, severity, format!("{found}{archive}"), why, vec![fix]);
    }
    let log = "the standby's log says why: \"could not connect\", \"requested WAL segment has already been removed\", …";
    match (has_conninfo(standby), restores) {
        (Ok(false), Ok(true)) => {
            let why = "primary_conninfo is empty, so that it is behind by what the primary has not archived yet";
            report.note(id, format!("{found}{archive}"), why);
        }
        (Ok(true), Ok(true)) => {
            let why = format!("nothing comes from the primary but what it archives; {log}");
            report.warning(id, format!("{found}{archive}"), why, vec![]);
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

/// Without a timeout a walreceiver waits for a primary that is gone until TCP gives up.
fn receiver_timeout(standby: &Server, report: &mut Report) {
    if standby.number("wal_receiver_timeout") != Some(0) || has_conninfo(standby) == Ok(false) {
        return;
    }
    let why = "a primary whose machine or network fails without a word is not noticed: the standby waits, and does not connect again until TCP gives up, which may take hours";
    let fix = vec![Fix::setting(standby, "wal_receiver_timeout", "'60s'", RELOAD)];
    report.warning("receiver-timeout", "wal_receiver_timeout is 0: no timeout", why, fix);
}

/// restore_command takes effect without a restart from 14 on.
fn then_restore(standby: &Server) -> &'static str {
    if standby.major >= 14 { RELOAD } else { RESTART }
}

fn shown_host(host: &str) -> String {
    if host.is_empty() { "the Unix socket".to_owned() } else { format!("host {host}") }
}

/// What lets a role see primary_conninfo; before 12 nothing does.
fn show_settings(standby: &Server) -> Vec<Fix> {
    if standby.major < 12 || standby.sql.is_err() {
        return vec![];
    }
    vec![Fix::sql(format!("GRANT pg_read_all_settings TO {};", ident(&standby.user)))]
}

/// A setting that only standbys have. Not to be seen is not the same as not to be set.
pub(super) fn of_standbys<'s>(standby: &'s Server, name: &str) -> Known<&'s str> {
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
    if standby.major >= 12 { "postgresql.conf" } else { "recovery.conf" }
}

/// Settings of a standby that take effect without a restart, in these majors and later.
fn then(standby: &Server) -> &'static str {
    if standby.major >= 13 { RELOAD } else { RESTART }
}

/// primary_conninfo as it should be; what else is in it stays.
fn conninfo_fix(primary: &Server, standby: &Server) -> Fix {
    let there = configured(standby).ok().flatten();
    // The loopback and a socket lead there from the same machine only.
    let is_near = !primary.endpoint.host.is_empty() && (!primary.endpoint.is_local() || standby.endpoint.is_local());
    let host = match primary.address.filter(|address| !address.is_loopback() || is_near) {
        _ if is_near => primary.endpoint.host.clone(),
        Some(address) => address.to_string(),
        None => "HOST".to_owned(),
    };
    let port = primary.value("port").map_or_else(|| primary.endpoint.port.to_string(), str::to_owned);
    let user = there.as_ref().and_then(|conninfo| conninfo.user.clone()).unwrap_or_else(|| primary.user.clone());
    let mut value = format!("host={host} port={port} user={user}");
    if let Some(name) = there.as_ref().and_then(|conninfo| conninfo.application_name.as_ref()) {
        value.push_str(&format!(" application_name={name}"));
    }
    let value = literal(&value);
    let fix = match standby.setting("primary_conninfo") {
        Ok(setting) if setting.file.is_some() => Fix::setting(standby, "primary_conninfo", &value, then(standby)),
        _ => Fix::line(standby_file(standby), format!("primary_conninfo = {value}"), Some(then(standby))),
    };
    fix.on(Target::Standby)
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
    let leads = format!("primary_conninfo leads to {host}, port {}, user {user}", conninfo.port.as_deref().unwrap_or("5432"));
    if leads_to(primary, standby, &conninfo) == Match::No {
        // What that means is said with the walreceiver.
        report.note(id, format!("{leads}: another server than the primary that you gave"), "see wal-receiver");
    } else {
        report.ok(id, leads);
    }
    if conninfo.has_password {
        let line = format!("{host}:{}:replication:{user}:the password", conninfo.port.as_deref().unwrap_or("5432"));
        let then = Some("and take password=… out of primary_conninfo");
        let fix = Fix::line("~/.pgpass of the standby's account, mode 0600", line, then);
        let why = "whoever reads the standby's configuration, or a backup of it, has the password; ALTER SYSTEM and pg_basebackup -R put it there";
        report.warning("primary-conninfo-password", "primary_conninfo has a password in clear text", why, vec![fix]);
    }
}

fn slot(primary: &Server, standby: &Server, lineage: &Lineage, report: &mut Report) {
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
    let leads = configured(standby).ok().flatten().map(|conninfo| leads_to(primary, standby, &conninfo));
    let elsewhere = match streams_from(primary, standby) {
        Source::Other(_) => Some("it streams from another server: its slot belongs there, and on this primary nobody would use it"),
        _ if streams(standby) == Some(false) && leads == Some(Match::No) => {
            Some("primary_conninfo leads to another server, and the slot that it asks for is one of that")
        }
        _ => None,
    };
    if let Some(why) = elsewhere {
        // A slot here would be nobody's, and keep WAL until the disk is full.
        let found = if name.is_empty() { "primary_slot_name is not set".to_owned() } else { format!("primary_slot_name is '{name}'") };
        return report.note(id, found, why);
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
        if lineage.is_diverged() {
            return report.warning(id, found, format!("{why}; it has diverged, so that comes first: see timeline"), vec![]);
        }
        return report.warning(id, found, why, new_slot(slots, standby));
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
            if lineage.is_diverged() {
                return report.error(id, found, format!("{why}; it has diverged, so that comes first: see timeline"), vec![]);
            }
            let line = format!("SELECT pg_create_physical_replication_slot({}, true);", literal(&name));
            let then = if leads == Some(Match::Yes) { None } else { Some("on the primary, if primary_conninfo leads to it") };
            report.error(id, found, why, vec![Fix { then, ..Fix::sql(line).on(Target::Primary) }]);
        }
        Some(slot) if slot.logical => {
            let found = format!("primary_slot_name is '{name}', which is a logical slot");
            let fix = vec![Fix::line(standby_file(standby), "primary_slot_name = 'another'", Some(then(standby)))];
            report.error(id, found, "a standby takes a physical slot", fix);
        }
        Some(slot) if slot.is_lost() => {
            report.note(id, format!("primary_slot_name is '{name}', and the primary has it, but it is lost"), "see slot-lost");
        }
        Some(slot) if slot.active_pid.is_some() && standby.receiver == Ok(None) && leads == Some(Match::Yes) && !lineage.is_diverged() => {
            taken(primary, standby, &name, slot.active_pid, report);
        }
        Some(slot) if !slot.active && streams(standby) == Some(true) => {
            let found = format!("primary_slot_name is '{name}', and the walreceiver does not use it");
            report.note(id, found, "the setting was changed and has not been read yet, or the walreceiver has not reconnected");
        }
        Some(slot) => {
            report.ok(id, format!("primary_slot_name is '{name}', and the primary has it{}", if slot.active { ", in use" } else { "" }))
        }
    }
}

/// A slot of its own for a standby.
fn new_slot(slots: &[Slot], standby: &Server) -> Vec<Fix> {
    let is_new = |name: &String| slots.iter().all(|slot| slot.name != *name);
    let name = std::iter::once("standby".to_owned()).chain((2..=slots.len() + 2).map(|number| format!("standby_{number}"))).find(is_new);
    let name = literal(&name.unwrap_or_default());
    vec![
        Fix::sql(format!("SELECT pg_create_physical_replication_slot({name}, true);")).on(Target::Primary),
        Fix::setting(standby, "primary_slot_name", &name, then(standby)),
    ]
}

/// The standby does not stream, and its slot is in use.
fn taken(primary: &Server, standby: &Server, name: &str, pid: Option<u32>, report: &mut Report) {
    let sender = primary.senders.as_ref().ok().and_then(|senders| senders.iter().find(|sender| Some(sender.pid) == pid));
    let who = sender.map_or_else(String::new, |sender| {
        let from = sender.address.map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string());
        format!(", by \"{}\" from {from}", sender.application_name.as_deref().unwrap_or("?"))
    });
    let found = format!("primary_slot_name is '{name}', and somebody else uses that slot of the primary{who}");
    let why = "a slot serves one standby, and the primary refuses a second; if that is this standby's own connection of before, it ends with wal_sender_timeout";
    let slots = primary.slots.as_deref().unwrap_or_default();
    report.error("primary-slot", found, why, new_slot(slots, standby));
}

fn paused(primary: &Server, standby: &Server, lineage: &Lineage, report: &mut Report) {
    let id = "recovery-paused";
    match &standby.paused {
        Err(reason) => return report.skipped(id, reason.clone(), vec![]),
        Ok(Some(true)) => {}
        Ok(_) => return report.ok(id, "replay is not paused"),
    }
    let found = "replay is paused";
    let old = "WAL is received and not replayed: queries see old data, a promotion takes long";
    let resume = Fix::sql("SELECT pg_wal_replay_resume();");
    let target = ["", "_time", "_xid", "_name", "_lsn"].map(|kind| format!("recovery_target{kind}"));
    let target = target.iter().find(|name| standby.value(name).is_some_and(|value| !value.is_empty()));
    if lineage.is_diverged() {
        let why = format!("{old}; but it has diverged, and must not replay more before that is put right: see timeline");
        report.error(id, found, why, vec![]);
    } else if let Some(name) = target {
        // C: `recoveryPausesHere` at the target; what follows is a promotion.
        let why =
            format!("{old}; {name} is set: where it has been reached, pg_wal_replay_resume() does not go on, but promotes the server");
        let reset = Fix::setting(standby, name, "''", RESTART);
        report.error(id, found, why, vec![Fix { then: Some("to follow the primary again; needs a restart"), ..reset }]);
    } else if standby.major >= 14 && too_low(primary, standby).next().is_some() {
        let why = format!(
            "{old}; settings are too low (see standby-settings), and pg_wal_replay_resume() would shut the server down: raise them and restart it"
        );
        report.error(id, found, why, vec![]);
    } else {
        report.error(id, found, format!("{old}; somebody asked for it with pg_wal_replay_pause()"), vec![resume]);
    }
}

/// Queries that replay cancels, and replay that waits for queries.
fn conflicts(standby: &Server, report: &mut Report) {
    let delay = standby.number("max_standby_streaming_delay");
    if let Ok(Some(event)) = &standby.replay_waits {
        let found = format!("replay waits for queries of the standby ({event})");
        let look = Fix::sql(
            "SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_type = 'client backend' ORDER BY xact_start LIMIT 5;  -- pg_terminate_backend(pid) ends one",
        );
        if delay == Some(-1) {
            let why = "max_standby_streaming_delay is -1, so it waits for as long as they take, and the standby falls behind; another setting counts for the next query, this one is to be ended";
            let limit = Fix::setting(standby, "max_standby_streaming_delay", "'30s'", RELOAD);
            report.warning("replay-waits", found, why, vec![look, limit]);
        } else {
            report.note("replay-waits", found, "they are cancelled once max_standby_streaming_delay is over");
        }
    }
    let Ok(conflicts) = &standby.conflicts else { return };
    if conflicts.is_empty() {
        return;
    }
    let kinds: Vec<String> = conflicts.iter().map(|(kind, count)| format!("{count} ({})", kind.trim_start_matches("confl_"))).collect();
    let mut why = String::from(
        "a query that needs what replay removes is cancelled once max_standby_streaming_delay is over; a longer delay lets replay wait for it",
    );
    if conflicts.contains_key("confl_snapshot") {
        why.push_str(match standby.is_on("hot_standby_feedback") {
            Some(true) => "; hot_standby_feedback is on, so these were from before, or from when it was not connected",
            _ => "; hot_standby_feedback = on has the primary keep such rows, at the price of larger tables there",
        });
    }
    report.note("recovery-conflicts", format!("replay has cancelled queries: {}", kinds.join(", ")), why);
}

/// What the slots of a primary take to be synchronised. C: `ValidateSlotSyncParams`, 17 and later.
fn slot_sync(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "slot-sync";
    if standby.is_on("sync_replication_slots") != Some(true) {
        return;
    }
    let empty = |name: &str| standby.value(name).is_some_and(|value| value.trim().is_empty());
    let mut missing = Vec::new();
    if standby.is_on("hot_standby_feedback") == Some(false) {
        missing.push(("hot_standby_feedback is off", Fix::setting(standby, "hot_standby_feedback", "on", RELOAD)));
    }
    if empty("primary_slot_name") {
        missing.push(("primary_slot_name is not set", Fix::line(standby_file(standby), "primary_slot_name = '…'", Some(RELOAD))));
    }
    if let Ok(Some(conninfo)) = configured(standby)
        && conninfo.dbname.is_none()
    {
        missing.push((
            "primary_conninfo has no dbname",
            Fix::line(standby_file(standby), "primary_conninfo = '… dbname=postgres'", Some(RELOAD)),
        ));
    }
    if primary.value("wal_level").is_some_and(|level| level != "logical") {
        missing
            .push(("the primary's wal_level is not logical", Fix::setting(primary, "wal_level", "logical", RESTART).on(Target::Primary)));
    }
    if missing.is_empty() {
        return report.ok(id, "sync_replication_slots is on, with the settings that it takes");
    }
    let (what, fix): (Vec<&str>, Vec<Fix>) = missing.into_iter().unzip();
    let why = "no slot is synchronized: after a failover consumers of logical slots cannot go on here";
    report.error(id, format!("sync_replication_slots is on, but {}", what.join(", and ")), why, fix);
}

/// Settings that decide how much room a standby has for what the primary's sessions do. C: `CheckRequiredParameterValues`.
const NOT_LOWER: [&str; 5] =
    ["max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction"];

/// Those that are lower on the standby: name, there, on the primary.
fn too_low<'s>(primary: &'s Server, standby: &'s Server) -> impl Iterator<Item = (&'static str, i64, i64)> + 's {
    // Before 12 walsenders were among max_connections, and did not count here.
    let names = NOT_LOWER.into_iter().filter(|name| *name != "max_wal_senders" || standby.major >= 12);
    names.filter_map(|name| Some((name, standby.number(name)?, primary.number(name)?)).filter(|(_, found, wanted)| found < wanted))
}

fn settings(primary: &Server, standby: &Server, report: &mut Report) {
    let id = "standby-settings";
    let known = |name: &&str| primary.number(name).is_some() && standby.number(name).is_some();
    let (known, mut unknown): (Vec<&str>, Vec<&str>) = NOT_LOWER.into_iter().partition(known);
    unknown.retain(|name| *name != "max_wal_senders" || standby.major >= 12);
    let mut good = known.len() - usize::from(standby.major < 12 && known.contains(&"max_wal_senders"));
    for (name, found, wanted) in too_low(primary, standby) {
        good -= 1;
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
