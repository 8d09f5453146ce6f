//! Points of the server that sends.

use std::net::IpAddr;

use super::facts::{Facts, Known, PrimaryConninfo, Role, Sender, Server, Summarizer};
use super::hba::{self, Near, Rule, Subject, Verdict};
use super::relation;
use super::slots::Owner;
use super::sync::{self, Synchronous};
use super::{Fix, RELOAD, RESTART, Report, Severity, Target, archive, ident, size, slots};

/// A standby that is further behind may not catch up before something else goes wrong.
const FAR_BEHIND: u64 = 1 << 30;
/// The same in time.
const LONG_BEHIND_MS: u64 = 5 * 60 * 1000;

pub(super) fn check(facts: &Facts, report: &mut Report) {
    let server = &facts.primary;
    start(server, report);
    wal_level(server, report);
    let standby = facts.standby.as_ref().and_then(|standby| standby.as_ref().ok());
    let wants_in = standby.is_some_and(|standby| standby.in_recovery == Ok(true) && relation::streams(standby) == Some(false));
    max_wal_senders(server, wants_in, report);
    max_replication_slots(server, report);
    role(server, report);
    hba_file(server, report);
    replication(server, wants_in, report);
    listen_addresses(server, standby, report);
    slots::check(server, &Owner::of_primary(facts), report);
    wal_keep(server, facts.standby.is_some(), report);
    archive::check(server, None, report);
    summarizer(server, report);
    synchronous(server, standby, report);
    sender_timeout(server, report);
    synchronized_slots(server, report);
    standbys(server, standby, report);
    hot_standby(server, report);
    durability(server, report);
    rewind(server, report);
    pending(server, report);
    if facts.passwords_told.0 {
        told_password(server, report);
    }
}

/// What to do where a password stands on the command line.
pub(super) fn told_password(server: &Server, report: &mut Report) {
    let found = "the connection string on the command line has a password in clear text";
    let why = "everybody on this machine sees it in the list of processes, and the shell writes it into its history";
    let fix = Fix::line("~/.pgpass, mode 0600", format!("host:port:*:{}:the password", server.user), None).on(Target::Here);
    report.warning("password", found, why, vec![fix]);
}

fn start(server: &Server, report: &mut Report) {
    let via = server.client.address.map_or_else(|| "a Unix socket".to_owned(), |address| format!("TCP from {address}"));
    let tls = if server.client.tls == Some(true) { " with TLS" } else { "" };
    match (&server.sql, &server.in_recovery) {
        (Ok(()), Ok(true)) => report.note(
            "server",
            format!("PostgreSQL {}, in recovery: a standby, as role \"{}\", by {via}{tls}", server.version, server.user),
            "what follows looks at it as one that sends WAL on to others (cascading); if it should be the primary, this is the wrong server",
        ),
        (Ok(()), _) => report.ok("server", format!("PostgreSQL {}, as role \"{}\", by {via}{tls}", server.version, server.user)),
        (Err(reason), _) => {
            let found = format!("PostgreSQL {}: only replication is possible, so most points are skipped: {reason}", server.version);
            report.note("server", found, "a role that may log in to a database, best with pg_monitor, sees more");
        }
    }
}

fn wal_level(server: &Server, report: &mut Report) {
    match server.setting("wal_level") {
        Err(reason) => report.skipped("wal-level", format!("wal_level: {reason}"), vec![]),
        Ok(level) if level.value == "minimal" => report.error(
            "wal-level",
            "wal_level is minimal",
            "the WAL then lacks what a standby or an archive needs: nobody can replicate, and no base backup can be taken",
            vec![Fix::setting(server, "wal_level", "replica", RESTART)],
        ),
        Ok(level) => report.ok("wal-level", format!("wal_level is {}", level.value)),
    }
}

/// `wants_in`: a standby that should stream does not.
fn max_wal_senders(server: &Server, wants_in: bool, report: &mut Report) {
    let id = "max-wal-senders";
    let max = match server.setting("max_wal_senders") {
        Err(reason) => return report.skipped(id, format!("max_wal_senders: {reason}"), vec![]),
        Ok(setting) => setting.value.parse::<usize>().unwrap_or(0),
    };
    let fix = |max: usize| vec![Fix::setting(server, "max_wal_senders", &max.to_string(), RESTART)];
    match &server.senders {
        _ if max == 0 => report.error(id, "max_wal_senders is 0", "no standby and no base backup can connect", fix(10)),
        Err(reason) => report.skipped(id, format!("max_wal_senders is {max}; how many are in use is not known: {reason}"), vec![]),
        Ok(senders) if senders.len() >= max => {
            let found = format!("all of max_wal_senders = {max} are in use");
            let why = "one more standby, or one that reconnects before its old connection has timed out, is refused";
            report.push(id, if wants_in { Severity::Error } else { Severity::Warning }, found, why, fix(max + 10));
        }
        Ok(senders) => report.ok(id, format!("{} of max_wal_senders = {max} in use", senders.len())),
    }
}

fn max_replication_slots(server: &Server, report: &mut Report) {
    let id = "max-replication-slots";
    let max = match server.setting("max_replication_slots") {
        Err(reason) => return report.skipped(id, format!("max_replication_slots: {reason}"), vec![]),
        Ok(setting) => setting.value.parse::<usize>().unwrap_or(0),
    };
    let fix = |max: usize| vec![Fix::setting(server, "max_replication_slots", &max.to_string(), RESTART)];
    match &server.slots {
        _ if max == 0 => {
            let why = "no slot can be created, so that nothing makes the server keep the WAL that a standby still needs";
            report.warning(id, "max_replication_slots is 0", why, fix(10));
        }
        Err(reason) => report.skipped(id, format!("max_replication_slots is {max}; how many there are is not known: {reason}"), vec![]),
        Ok(slots) if slots.len() >= max => {
            report.warning(id, format!("all of max_replication_slots = {max} are in use"), "no other slot can be created", fix(max + 10));
        }
        Ok(slots) => report.ok(id, format!("{} of max_replication_slots = {max} in use", slots.len())),
    }
}

fn role(server: &Server, report: &mut Report) {
    let id = "role-replication";
    match &server.roles {
        // That it works says enough.
        Err(_) if server.replication.is_ok() => report.ok(id, format!("role \"{}\" may replicate", server.user)),
        Err(reason) => report.skipped(id, format!("the role's attributes: {reason}"), vec![]),
        Ok(roles) => match roles.get(&server.user) {
            // Another name by pg_ident.conf does not exist here: the connection's user is the role.
            None => report.skipped(id, format!("role \"{}\" is not in pg_roles", server.user), vec![]),
            Some(role) => may_replicate(&server.user, role, report, id),
        },
    }
}

/// Whether a role has the attribute that replication takes.
pub(super) fn may_replicate(name: &str, role: &Role, report: &mut Report, id: &'static str) {
    if !role.replication && !role.superuser {
        report.error(
            id,
            format!("role \"{name}\" has neither REPLICATION nor SUPERUSER"),
            "the server refuses connections for replication of such a role",
            vec![Fix::sql(format!("ALTER ROLE {} REPLICATION;", ident(name)))],
        );
    } else if !role.login {
        let why = "nobody can connect as this role";
        report.error(id, format!("role \"{name}\" has no LOGIN"), why, vec![Fix::sql(format!("ALTER ROLE {} LOGIN;", ident(name)))]);
    } else if role.expired {
        let fix = vec![Fix::sql(format!("ALTER ROLE {} VALID UNTIL 'infinity';", ident(name)))];
        report.error(id, format!("the password of role \"{name}\" has expired"), "the server does not take it any more", fix);
    } else {
        report.ok(id, format!("role \"{name}\" has {}", if role.replication { "REPLICATION" } else { "SUPERUSER" }));
    }
}

fn hba_file(server: &Server, report: &mut Report) {
    let rules = match &server.hba {
        Ok(rules) => rules,
        Err(reason) => {
            let grant = format!(
                "GRANT SELECT ON pg_hba_file_rules TO {0}; GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO {0};",
                ident(&server.user)
            );
            let fix = if server.sql.is_ok() { vec![Fix::sql(grant)] } else { vec![] };
            return report.skipped("hba-replication", format!("pg_hba.conf: {reason}"), fix);
        }
    };
    for rule in rules {
        let Some(error) = &rule.error else { continue };
        let found = format!("{}, line {}: {error}", rule.file, rule.line);
        let correct = Fix::line(place(rule), "correct or remove this line", Some(RELOAD));
        if !rule.is_read() {
            let why = "with an error in it the file is not loaded: what counts is its state before, and a server that starts refuses to";
            report.error("hba-errors", found, why, vec![correct]);
        } else {
            let fix = if rule.kind == "hostssl" { Fix::setting(server, "ssl", "on", RELOAD) } else { correct };
            report.warning("hba-errors", found, "the line lets nobody in", vec![fix]);
        }
    }
    let works = server.replication.is_ok();
    let subject = Subject { user: &server.user, client: &server.client, server: server.address, major: server.major, roles: &server.roles };
    hba_replication(rules, &subject, works, server, report, "hba-replication");
    if let Ok(roles) = &server.roles {
        for (rule, name, nearest) in hba::unknown_roles(rules, server.major, roles) {
            let fix = match nearest {
                Some(role) => vec![instead(rule, rule.rewritten(None, Some((name, role))))],
                None => vec![
                    Fix::line(place(rule), "name the role that was meant, or remove this line", Some(RELOAD)),
                    Fix::sql(format!("CREATE ROLE {} REPLICATION LOGIN;", ident(name))),
                ],
            };
            let meant = nearest.map_or_else(String::new, |role| format!("; role \"{role}\" has nearly this name"));
            let found = format!("{}, line {}: \"{name}\" is no role of this server{meant}", rule.file, rule.line);
            report.warning("hba-roles", found, "the line lets nobody in", fix);
        }
    }
    methods(rules, report);
}

/// A line in the place of one that is there.
fn instead(rule: &Rule, line: String) -> Fix {
    let then = if rule.has_options { "… are its options, which stay; then SELECT pg_reload_conf()" } else { RELOAD };
    Fix::line(place(rule), line, Some(then))
}

/// The line of a rule, for a fix.
fn place(rule: &Rule) -> String {
    format!("{}, line {}", rule.file, rule.line)
}

/// Whether a line lets the subject replicate; `works`: it does, as was tried.
pub(super) fn hba_replication(rules: &[Rule], subject: &Subject<'_>, works: bool, server: &Server, report: &mut Report, id: &'static str) {
    let from = subject.client.address.map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string());
    let who = format!("role \"{}\" from {from}", subject.user);
    let file = rules.first().map_or("pg_hba.conf", |rule| rule.file.as_str()).to_owned();
    // Passwords that are stored as MD5 are no use to scram-sha-256.
    let md5 = server.value("password_encryption").is_some_and(|value| value != "scram-sha-256");
    let line = hba::line_for(subject.user, subject.client, if md5 { "md5" } else { "scram-sha-256" });
    let why =
        "connections for replication are let in only by a line with the keyword replication as database; the first line that fits decides";
    let refused = |mut found: String, fix: Fix, report: &mut Report| {
        if works {
            found.push_str("; yet it works, so the file has changed since the server read it");
            return report.warning(id, found, "with the next reload or restart it will be refused", vec![fix]);
        }
        report.error(id, found, why, vec![fix]);
    };
    match hba::decide(rules, subject) {
        Verdict::Accepted(rule) => {
            report.ok(id, format!("{}, line {} lets {who} replicate, with method {}", rule.file, rule.line, rule.method));
        }
        Verdict::Rejected(rule) => {
            let place = format!("{}, before line {}", rule.file, rule.line);
            refused(format!("{}, line {} rejects {who}", rule.file, rule.line), Fix::line(place, line, Some(RELOAD)), report);
        }
        Verdict::Uncertain(rule) if works => {
            report.ok(id, format!("{}, line {} or a later one lets {who} replicate: it was tried", rule.file, rule.line));
        }
        Verdict::Uncertain(rule) => report.skipped(
            id,
            format!(
                "{}, line {} may be for {who}: whether it is depends on names, networks or TLS that only the server knows",
                rule.file, rule.line
            ),
            vec![],
        ),
        Verdict::NoLine => {
            let near = hba::near(rules, subject);
            let mut found = format!("no line of {file} lets {who} replicate");
            for near in near.iter().take(3) {
                found.push_str(&format!("; line {}{}", near.rule().line, why_not(near)));
            }
            let fix = match near.first() {
                Some(Near::Misspelt(rule, name)) => instead(rule, rule.rewritten(None, Some((name, subject.user)))),
                Some(Near::Quoted(rule)) => instead(rule, rule.rewritten(Some("replication"), None)),
                _ => Fix::line(file, line, Some(RELOAD)),
            };
            refused(found, fix, report);
        }
    }
}

fn why_not(near: &Near<'_>) -> String {
    match near {
        Near::Misspelt(_, name) => format!(" would, but names \"{name}\""),
        Near::NoSuchRole(_, name) => format!(" would, but names \"{name}\", which is no role"),
        Near::All(_) => " has the database all, which does not match replication".to_owned(),
        Near::Quoted(_) => " has replication in quotes, which is an ordinary database of that name".to_owned(),
        Near::Address(rule) => format!(" is for {}", rule.address.as_deref().unwrap_or("another address")),
        Near::Kind(rule) => format!(" is for {} connections", rule.kind),
    }
}

/// Methods that show passwords, in lines for replication and others.
fn methods(rules: &[Rule], report: &mut Report) {
    let of = |method: &str| {
        let found = rules.iter().filter(|rule| rule.error.is_none() && rule.method == method);
        found.cloned().collect::<Vec<Rule>>()
    };
    // Through TLS and the socket nobody else reads it.
    for rule in of("password").iter().filter(|rule| !matches!(rule.kind.as_str(), "hostssl" | "hostgssenc" | "local")) {
        let mut better = rule.clone();
        better.method = "scram-sha-256".to_owned();
        let fix = instead(rule, better.rewritten(None, None));
        let found = format!("{}, line {} has method password", rule.file, rule.line);
        report.warning("hba-password", found, "the password goes over the network in clear text", vec![fix]);
    }
    let md5 = of("md5");
    if let Some(first) = md5.first() {
        let found = format!("{}, line {} has method md5 ({} of {} lines)", first.file, first.line, md5.len(), rules.len());
        let why = "where the password is stored as MD5 it can be found out and replayed; scram-sha-256 is in every server from 10 on";
        report.note("hba-md5", found, why);
    }
    let trust = rules.iter().find(|rule| {
        let loopback =
            rule.address.as_deref().and_then(|address| address.parse::<IpAddr>().ok()).is_some_and(|address| address.is_loopback());
        rule.error.is_none() && rule.method == "trust" && rule.kind != "local" && !loopback
    });
    if let Some(rule) = trust {
        let found = format!("{}, line {} has method trust", rule.file, rule.line);
        report.note("hba-trust", found, "whoever can reach the server from there is let in without being asked who it is");
    }
}

fn replication(server: &Server, wants_in: bool, report: &mut Report) {
    let id = "replication-connection";
    let refusal = match &server.replication {
        Ok(identity) => {
            let found =
                format!("a connection for replication works: system {}, timeline {}", identity.system_identifier, identity.timeline);
            return report.ok(id, found);
        }
        Err(refusal) => refusal,
    };
    let mut fix = Vec::new();
    let accepted = server.hba.as_ref().is_ok_and(|rules| {
        let (user, client) = (server.user.as_str(), &server.client);
        let subject = Subject { user, client, server: server.address, major: server.major, roles: &server.roles };
        matches!(hba::decide(rules, &subject), Verdict::Accepted(_))
    });
    let (why, next) = match refusal.code.as_deref() {
        Some("28000") if refusal.message.contains("pg_hba.conf") && accepted => (
            "the file has a line that fits, so the server has not read it since it was changed",
            Some(Fix::sql("SELECT pg_reload_conf();")),
        ),
        Some("28000") => ("no standby gets in so: see hba-replication and role-replication", None),
        Some("28P01") => ("the password is wrong, or none is stored: a password file needs a line for this", None),
        Some("53300") => ("there is no place left for another connection: see max-wal-senders", None),
        Some("42501") => ("the role lacks the permission: see role-replication", None),
        _ => ("no standby gets in so", None),
    };
    if refusal.code.as_deref() == Some("28P01") {
        fix.push(Fix::line("~/.pgpass, mode 0600", format!("host:port:replication:{}:the password", server.user), None).on(Target::Here));
    }
    fix.extend(next);
    // Those that are in have taken all places: that we get none is no more than max-wal-senders says.
    let full = server.senders.as_ref().is_ok_and(|senders| server.number("max_wal_senders").is_some_and(|max| senders.len() as i64 >= max));
    let is_full = refusal.code.as_deref() == Some("53300") && full && !server.senders.as_ref().is_ok_and(Vec::is_empty) && !wants_in;
    let severity = if is_full { Severity::Warning } else { Severity::Error };
    report.push(id, severity, format!("a connection for replication is refused: {}", refusal.message), why, fix);
}

fn listen_addresses(server: &Server, standby: Option<&Server>, report: &mut Report) {
    let id = "listen-addresses";
    let value = match server.setting("listen_addresses") {
        Err(reason) => return report.skipped(id, format!("listen_addresses: {reason}"), vec![]),
        Ok(setting) => setting.value.as_str(),
    };
    let is_local =
        |address: &str| address.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let addresses: Vec<&str> = value.split(',').map(str::trim).filter(|address| !address.is_empty()).collect();
    if !addresses.iter().all(|address| is_local(address)) {
        return report.ok(id, format!("listen_addresses is '{value}'"));
    }
    let found = format!("listen_addresses is '{value}'");
    let all_local = |senders: &[Sender]| {
        let mut standbys = senders.iter().filter(|sender| sender.state.as_deref() == Some("streaming")).peekable();
        standbys.peek().is_some() && standbys.all(|sender| sender.address.is_none_or(|address| address.is_loopback()))
    };
    if server.senders.as_ref().is_ok_and(|senders| all_local(senders)) {
        return report.note(id, found, "only standbys on the same machine can connect, and those that do are on it");
    }
    if standby.is_some_and(|standby| relation::on_one_machine(server, standby) == Some(true)) {
        return report.note(id, found, "only standbys on the same machine can connect, and the one that you gave is on it");
    }
    let fix = vec![Fix::setting(server, "listen_addresses", "'*'", RESTART)];
    report.warning(id, found, "the server listens to its own machine only: no standby elsewhere can connect", fix);
}

/// Whether logical slots are in use, and nobody else streams: there is no physical standby. Base backups are none.
fn is_logical_only(server: &Server) -> bool {
    let (Ok(slots), Ok(senders)) = (&server.slots, &server.senders) else { return false };
    let users: Vec<u32> = slots.iter().filter(|slot| slot.logical).filter_map(|slot| slot.active_pid).collect();
    let is_logical = |sender: &Sender| users.contains(&sender.pid) || sender.state.as_deref() == Some("backup");
    !users.is_empty() && senders.iter().all(is_logical)
}

fn wal_keep(server: &Server, has_standby: bool, report: &mut Report) {
    let id = "wal-keep";
    let (name, value) = if server.major >= 13 { ("wal_keep_size", "1GB") } else { ("wal_keep_segments", "64") };
    let kept = match server.setting(name) {
        Err(reason) => return report.skipped(id, format!("{name}: {reason}"), vec![]),
        Ok(setting) => setting.value.as_str(),
    };
    let unit = if server.major >= 13 { "MB" } else { "" };
    if kept != "0" {
        return report.ok(id, format!("{name} is {kept}{unit}"));
    }
    let slots = server.slots.as_ref().map_or(0, |slots| slots.iter().filter(|slot| !slot.logical && !slot.is_lost()).count());
    if slots > 0 {
        report.ok(id, format!("{name} is 0, and {slots} physical slots keep what is needed"));
    } else if !has_standby && is_logical_only(server) {
        report.ok(id, format!("{name} is 0, and only logical slots are in use, which keep what they need"));
    } else if server.slots.is_err() {
        report.skipped(id, format!("{name} is 0; whether there are slots is not known"), vec![]);
    } else if matches!(server.value("archive_mode"), Some("on" | "always")) {
        let why = "a standby that is away for long must get the WAL from the archive: it needs restore_command";
        report.note(id, format!("{name} is 0, and there is no physical slot"), why);
    } else {
        let fix = vec![
            Fix::shell("pgwal slot create NAME -d CONNINFO  # and primary_slot_name = 'NAME' on the standby"),
            Fix::setting(server, name, value, RELOAD),
        ];
        let why = "after two checkpoints the WAL is gone, and a standby that was away for that long must be made anew";
        report.warning(id, format!("{name} is 0, there is no physical slot, and no archive"), why, fix);
    }
}

fn synchronous(server: &Server, standby: Option<&Server>, report: &mut Report) {
    let id = "synchronous-standbys";
    let names = match server.setting("synchronous_standby_names") {
        Err(reason) => return report.skipped(id, format!("synchronous_standby_names: {reason}"), vec![]),
        Ok(setting) => setting.value.as_str(),
    };
    let Some(sync) = Synchronous::parse(names) else {
        return report.ok(id, "synchronous_standby_names is empty: commits wait for no standby");
    };
    let wanted = format!("synchronous_standby_names is '{names}'");
    if server.in_recovery == Ok(true) {
        return report.note(id, wanted, "in recovery nothing is committed; it counts once the server is promoted");
    }
    let senders = match &server.senders {
        Err(reason) => return report.skipped(id, format!("pg_stat_replication: {reason}"), vec![]),
        Ok(senders) => senders,
    };
    // The server's own judgement: the name alone does not make one that tells what it has flushed.
    let answers = |sender: &&Sender| matches!(sender.sync_state.as_deref(), Some("sync" | "quorum"));
    let is_named = |sender: &&Sender| sender.application_name.as_deref().is_some_and(|name| sync.has(name));
    let count = senders.iter().filter(answers).count();
    if count >= sync.needed {
        report.ok(id, format!("{wanted}, {count} such standbys answer, {} needed", sync.needed));
        return remote_apply(server, standby, report);
    }
    let hidden = senders.iter().filter(is_named).filter(|sender| sender.sync_state.is_none()).count();
    if count + hidden >= sync.needed {
        let fix = vec![Fix::sql(format!("GRANT pg_monitor TO {};", ident(&server.user)))];
        let found = format!("{wanted}, {hidden} such standbys are connected; whether they answer is not shown to role \"{}\"", server.user);
        return report.skipped(id, found, fix);
    }
    let shown = |sender: &Sender| {
        let name = sender.application_name.as_deref()?;
        Some(sender.sync_state.as_ref().map_or_else(|| name.to_owned(), |state| format!("{name} ({state})")))
    };
    let others: Vec<String> = senders.iter().filter_map(shown).collect();
    let mut others = if others.is_empty() { "none is connected".to_owned() } else { format!("connected are: {}", others.join(", ")) };
    let mut fix = Vec::new();
    // Position 2 is what it has flushed.
    let silent = |sender: &&Sender| sender.state.as_deref() == Some("streaming") && sender.behind[2].is_none();
    match senders.iter().filter(is_named).find(silent) {
        Some(sender) => {
            let name = sender.application_name.as_deref().unwrap_or_default();
            others.push_str(&format!("; \"{name}\" streams and does not say what it has flushed"));
            fix.push(Fix::shell(
                "pgwal receive --slot NAME --synchronous …  # it and pg_receivewal say so with a slot or --synchronous only",
            ));
        }
        // It is called so already.
        None if standby.and_then(own_name).is_some_and(|name| sync.has(&name)) => {
            others.push_str("; the standby that you gave is one of them by its name: what keeps it away is to be put right");
        }
        None => {
            let line = format!("primary_conninfo = '… application_name={}'", sync.names.first().map_or("NAME", String::as_str));
            fix.push(Fix::line("postgresql.conf", line, Some(RELOAD)).on(Target::Standby));
        }
    }
    match server.waiting_commits {
        Ok(1) => others.push_str("; one session waits now"),
        Ok(waiting @ 2..) => others.push_str(&format!("; {waiting} sessions wait now")),
        _ => {}
    }
    let give_up = Fix::setting(server, "synchronous_standby_names", "''", RELOAD);
    fix.push(Fix { then: Some("if commits are not to wait until then; then SELECT pg_reload_conf()"), ..give_up });
    let found = format!("{wanted}: {count} such standbys answer, {} needed; {others}", sync.needed);
    let off = server.value("synchronous_commit").is_some_and(|value| matches!(value, "off" | "local"));
    if off {
        report.warning(id, found, "synchronous_commit is off or local, so commits do not wait; sessions that set it otherwise hang", fix);
    } else {
        report.error(id, found, "every commit hangs until such a standby is there", fix);
    }
}

/// Without a timeout a walsender waits for a standby whose machine is gone until TCP gives up.
fn sender_timeout(server: &Server, report: &mut Report) {
    let id = "sender-timeout";
    if server.number("wal_sender_timeout") != Some(0) {
        return;
    }
    let found = "wal_sender_timeout is 0: no timeout";
    let why = "a standby whose machine or network fails without a word seems to stream on, and its slot stays in use, until TCP gives up, which may take hours";
    let fix = vec![Fix::setting(server, "wal_sender_timeout", "'60s'", RELOAD)];
    if server.value("synchronous_standby_names").is_some_and(|names| !names.is_empty()) {
        report.warning(id, found, format!("{why}; commits wait for it, although another one might take its place"), fix);
    } else {
        report.push(id, Severity::Note, found, why, fix);
    }
}

/// What a standby calls itself to its primary; `None`: not known.
fn own_name(standby: &Server) -> Option<String> {
    let conninfo = standby.value("primary_conninfo").filter(|conninfo| !conninfo.is_empty())?;
    let cluster = standby.value("cluster_name").filter(|name| !name.is_empty() && standby.major >= 12);
    PrimaryConninfo::parse(conninfo)?.application_name.or_else(|| Some(cluster.unwrap_or("walreceiver").to_owned()))
}

/// With synchronous_commit = remote_apply commits wait for replay, too.
fn remote_apply(server: &Server, standby: Option<&Server>, report: &mut Report) {
    let Some(standby) = standby.filter(|_| server.value("synchronous_commit") == Some("remote_apply")) else { return };
    let Some(sender) = relation::sender_of(server, standby) else { return };
    if !matches!(sender.sync_state.as_deref(), Some("sync" | "quorum")) {
        return;
    }
    let id = "synchronous-apply";
    if standby.paused == Ok(Some(true)) {
        let found = "synchronous_commit is remote_apply, and the synchronous standby has paused replay";
        report.error(id, found, "every commit hangs until replay goes on: see recovery-paused", vec![]);
    } else if let Some(delay) = delay(server, standby, sender) {
        let found = format!("synchronous_commit is remote_apply, and the synchronous standby replays {delay} ms late on purpose");
        let fix = vec![Fix::setting(standby, "recovery_min_apply_delay", "0", RELOAD).on(Target::Standby)];
        report.error(id, found, "every commit takes that long", fix);
    }
}

/// `synchronized_standby_slots`, 17 and later: walsenders of logical failover slots wait for these. C: `StandbySlotsHaveCaughtup`.
fn synchronized_slots(server: &Server, report: &mut Report) {
    let id = "synchronized-standby-slots";
    let Some(value) = server.value("synchronized_standby_slots").filter(|value| !value.trim().is_empty()) else { return };
    let Ok(slots) = &server.slots else { return };
    if server.in_recovery == Ok(true) {
        return;
    }
    let why = "consumers of logical slots with failover = true wait until this slot's standby has received what they are to get: they get nothing now";
    let mut good = true;
    for name in sync::names(value) {
        let what = match slots.iter().find(|slot| slot.name == name) {
            None => "which does not exist",
            Some(slot) if slot.logical => "which is a logical slot",
            Some(slot) if slot.is_lost() => "which is lost",
            Some(slot) if !slot.active => "which is not in use",
            Some(_) => continue,
        };
        good = false;
        let fix = Fix::setting(server, "synchronized_standby_slots", "''", RELOAD);
        let fix = Fix { then: Some("without this name, if its standby is not coming back; then SELECT pg_reload_conf()"), ..fix };
        report.warning(id, format!("synchronized_standby_slots names \"{name}\", {what}"), why, vec![fix]);
    }
    if good {
        report.ok(id, format!("synchronized_standby_slots is '{value}', and all of them are in use"));
    }
}

/// From 17 on no WAL is removed that is not summarized yet. C: `KeepLogSeg`.
pub(super) fn summarizer(server: &Server, report: &mut Report) {
    let id = "wal-summarizer";
    if server.is_on("summarize_wal") != Some(true) {
        return;
    }
    let why = "the server keeps all WAL that is not summarized yet, until the disk is full, and incremental backups fail; the server's log says what stops it";
    match &server.summarizer {
        Ok(Some(summarizer)) if !summarizer.runs => {
            let off = Fix::setting(server, "summarize_wal", "off", RELOAD);
            let off = Fix { then: Some("if no incremental backups are to be taken; then SELECT pg_reload_conf()"), ..off };
            report.warning(id, "summarize_wal is on, and no WAL summarizer runs", why, vec![off]);
        }
        Ok(Some(Summarizer { fails: true, .. })) => {
            let look =
                "SELECT pg_current_logfile();  -- what it fails with: permissions of pg_wal/summaries, a full disk, WAL that is gone, …";
            report.error(id, "the WAL summarizer has failed, and tries again every ten seconds", why, vec![Fix::sql(look)]);
        }
        Ok(Some(summarizer)) if summarizer.behind.is_some_and(|behind| behind > FAR_BEHIND) => {
            let found = format!("the WAL summarizer is {} behind", size(summarizer.behind.unwrap_or_default()));
            report.warning(id, found, why, vec![Fix::sql("SELECT * FROM pg_get_wal_summarizer_state();  -- again: does it come nearer?")]);
        }
        Ok(Some(_)) => report.ok(id, "summarize_wal is on, and the WAL summarizer keeps up"),
        Ok(None) => {}
        Err(reason) => report.skipped(id, format!("pg_get_wal_summarizer_state(): {reason}"), vec![]),
    }
}

/// Milliseconds by which that standby replays late on purpose; `None`: it does not, or is another one.
fn delay(server: &Server, standby: &Server, sender: &Sender) -> Option<u64> {
    let delay = standby.number("recovery_min_apply_delay").and_then(|delay| u64::try_from(delay).ok()).filter(|&delay| delay > 0)?;
    relation::sender_of(server, standby).is_some_and(|own| own.pid == sender.pid).then_some(delay)
}

/// Queries of a standby that hold back VACUUM on the primary by more transactions than this are worth a warning.
const OLD_XMIN: u64 = 10_000_000;

fn standbys(server: &Server, standby: Option<&Server>, report: &mut Report) {
    let id = "standby-lag";
    let senders = match &server.senders {
        Err(reason) => return report.skipped(id, format!("pg_stat_replication: {reason}"), vec![]),
        Ok(senders) => senders,
    };
    if senders.is_empty() && standby.is_none() {
        report.note(id, "nobody streams from this server", "if a standby should, look at it with --standby");
    }
    for sender in senders {
        let name = sender.application_name.as_deref().unwrap_or("?");
        let from = sender.address.map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string());
        let who = format!("\"{name}\" (process {}) from {from}", sender.pid);
        if let Some(age) = sender.xmin_age.filter(|&age| age > OLD_XMIN) {
            let found = format!("{who}: by hot_standby_feedback it holds back VACUUM by {age} transactions");
            let why =
                "a long-running query on the standby, or on a standby of that one, keeps dead rows alive on this server, so tables grow";
            let look = Fix::sql("SELECT pid, backend_xmin, xact_start, query FROM pg_stat_activity ORDER BY xact_start LIMIT 5;");
            report.warning("standby-xmin", found, why, vec![look.on(Target::Standby)]);
        }
        let Some(state) = sender.state.as_deref() else {
            let fix = vec![Fix::sql(format!("GRANT pg_monitor TO {};", ident(&server.user)))];
            report.skipped(id, format!("{who}: how far it is is not shown to role \"{}\"", server.user), fix);
            continue;
        };
        if state == "backup" {
            report.note(id, format!("{who} takes a base backup"), "");
            continue;
        }
        let names = ["sent", "write", "flush", "replay"];
        let behind: Vec<String> =
            names.iter().zip(sender.behind).filter_map(|(name, bytes)| Some(format!("{name} {}", size(bytes?)))).collect();
        let times: Vec<String> =
            names.iter().skip(1).zip(sender.lag_ms).filter_map(|(name, ms)| Some(format!("{name} {} ms", ms?))).collect();
        let times = if times.is_empty() { String::new() } else { format!("; in time: {}", times.join(", ")) };
        let behind = if behind.is_empty() { String::new() } else { format!(", behind: {}", behind.join(", ")) };
        let mut found = format!("{who}: {state}{behind}{times}");
        let (mut behind, mut lag) = (sender.behind, sender.lag_ms);
        if let Some(delay) = standby.and_then(|standby| delay(server, standby, sender)) {
            found.push_str(&format!("; recovery_min_apply_delay is {delay} ms"));
            // How many bytes it may then be behind depends on what was written.
            lag[2] = lag[2].map(|ms| ms.saturating_sub(delay));
            behind[3] = None;
        }
        let far = behind.iter().flatten().any(|&bytes| bytes > FAR_BEHIND) || lag.iter().flatten().any(|&ms| ms > LONG_BEHIND_MS);
        if state != "streaming" {
            let why = "it has not caught up: what it has not got would be lost with this server";
            report.warning(id, found, why, vec![Fix::sql("SELECT * FROM pg_stat_replication;  -- again: does it come nearer?")]);
        } else if far {
            let why = "what it has not got would be lost with this server, and what it has not replayed is not seen by its queries (on purpose, where it has recovery_min_apply_delay)";
            report.warning(id, found, why, vec![Fix::sql("SELECT * FROM pg_stat_replication;  -- again: does it come nearer?")]);
        } else {
            report.ok(id, found);
        }
    }
}

fn hot_standby(server: &Server, report: &mut Report) {
    let id = "hot-standby";
    match server.is_on("hot_standby") {
        None => report.skipped(id, "hot_standby is not known", vec![]),
        Some(true) => report.ok(id, "hot_standby is on"),
        Some(false) => report.note(
            id,
            "hot_standby is off",
            "once this server is a standby, it takes no queries; standbys copy the setting with a base backup",
        ),
    }
}

fn durability(server: &Server, report: &mut Report) {
    let cases = [
        ("fsync", "after a crash of the machine the data, and the standby's relation to it, are beyond repair"),
        ("full_page_writes", "a page that was half written when the machine crashed cannot be restored from the WAL"),
    ];
    for (name, why) in cases {
        let id = if name == "fsync" { "fsync" } else { "full-page-writes" };
        match server.is_on(name) {
            None => report.skipped(id, format!("{name} is not known"), vec![]),
            Some(true) => report.ok(id, format!("{name} is on")),
            Some(false) => report.warning(id, format!("{name} is off"), why, vec![Fix::setting(server, name, "on", RELOAD)]),
        }
    }
}

fn rewind(server: &Server, report: &mut Report) {
    let id = "pg-rewind";
    match (server.is_on("data_checksums"), server.is_on("wal_log_hints")) {
        (Some(true), _) | (_, Some(true)) => report.ok(id, "pg_rewind can be used: data checksums or wal_log_hints are on"),
        (Some(false), Some(false)) => report.note(
            id,
            "neither data checksums nor wal_log_hints are on",
            "after a failover pg_rewind cannot make a standby of this server; it would be a base backup (wal_log_hints = on needs a restart)",
        ),
        _ => {}
    }
}

fn pending(server: &Server, report: &mut Report) {
    let pending = |settings: &std::collections::BTreeMap<String, super::Setting>| {
        let names = settings.iter().filter(|(_, setting)| setting.pending_restart).map(|(name, _)| name.as_str());
        names.collect::<Vec<&str>>().join(", ")
    };
    let names: Known<String> = server.settings.as_ref().map(pending).map_err(String::clone);
    if let Ok(names) = names
        && !names.is_empty()
    {
        report.note("pending-restart", format!("changed, and not in effect before a restart: {names}"), "");
    }
}
