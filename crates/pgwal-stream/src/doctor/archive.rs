//! WAL archiving: of a primary, and of a standby with `archive_mode = always`.

use super::facts::{Archiver, Server};
use super::shell::{self, Flaw};
use super::{Fix, RELOAD, Report, Severity, Side};

/// With nothing archived and no failure counted for so many seconds, the archiver hangs.
const HANGS: f64 = 30.0;
/// With this many files in waiting it may do so after so many seconds.
const SEVERAL: (u64, f64) = (3, 5.0);
/// More files than this in waiting: the archive is far behind.
const BACKLOG: u64 = 100;

/// `primary`: of a standby, so that what is the same there is not told twice.
pub(super) fn check(server: &Server, primary: Option<&Server>, report: &mut Report) {
    let id = "archive";
    let mode = match server.setting("archive_mode") {
        Err(reason) => return report.skipped(id, format!("archive_mode: {reason}"), vec![]),
        Ok(setting) => setting.value.as_str(),
    };
    if mode == "off" {
        if report.side == Side::Standby {
            return report.ok(id, "archive_mode is off");
        }
        return report.note(
            id,
            "archive_mode is off",
            "there is no WAL archive: no recovery to a point in time, and no other place for WAL that the server has removed",
        );
    }
    let is_nowhere =
        server.setting("archive_command").is_ok() && is_empty(server, "archive_command") && is_empty(server, "archive_library");
    if mode == "on" && server.in_recovery == Ok(true) {
        // In recovery only "always" archives.
        let found = "archive_mode is on, which counts once the server is promoted";
        if is_nowhere {
            let why = "from then on it would keep all WAL until the disk is full";
            return report.note(id, format!("{found}; there is neither archive_command nor archive_library"), why);
        }
        let is_same = |name| primary.is_some_and(|primary| primary.value(name) == server.value(name));
        let flaws = if is_same("archive_command") && is_same("archive_library") { vec![] } else { flaws(server) };
        return match flaws.first() {
            Some(&flaw) => report.note(id, format!("{found}; then {}", what(flaw)), why(flaw)),
            None => report.ok(id, found),
        };
    }
    if is_nowhere {
        let found = format!("archive_mode is {mode}, and there is neither archive_command nor archive_library");
        let why = "the server keeps all WAL until it is archived, which is never: the disk fills";
        return report.error(id, found, why, vec![command_fix(server)]);
    }
    let before = report.problems();
    command(server, report);
    let archiver = match &server.archiver {
        Err(reason) => return report.skipped(id, format!("pg_stat_archiver: {reason}"), vec![]),
        Ok(archiver) => archiver,
    };
    if archiver.fails {
        fails(server, archiver, report);
    } else {
        waiting(server, archiver, report);
    }
    if report.problems() == before {
        let last = archiver.last_archived_wal.as_ref().map_or_else(|| "nothing to archive yet".to_owned(), |wal| format!("last {wal}"));
        report.ok(id, format!("archive_mode is {mode}, {} archived, {} failures, {last}", archiver.archived, archiver.failed));
    }
}

/// An empty library means the command.
fn is_empty(server: &Server, name: &str) -> bool {
    server.value(name).is_none_or(|value| value.trim().is_empty() || value == "(disabled)")
}

/// What is wrong with the command, where it is used.
fn flaws(server: &Server) -> Vec<Flaw> {
    if is_empty(server, "archive_command") || !is_empty(server, "archive_library") {
        return Vec::new();
    }
    server.value("archive_command").map(shell::flaws).unwrap_or_default()
}

fn command(server: &Server, report: &mut Report) {
    let id = "archive-command";
    if !is_empty(server, "archive_command") && !is_empty(server, "archive_library") {
        // C: `LoadArchiveLibrary`.
        if server.major >= 16 {
            let found = "both archive_command and archive_library are set";
            let why =
                "from 16 on the archiver then stops with an error, which is counted nowhere: nothing is archived, and all WAL is kept";
            report.error(id, found, why, vec![Fix::setting(server, "archive_command", "''", RELOAD)]);
        } else {
            report.note(id, "both archive_command and archive_library are set", "15 uses the library; from 16 on this is an error");
        }
    }
    for flaw in flaws(server) {
        let found = what(flaw);
        match flaw {
            Flaw::Removes => report.error(id, found, why(flaw), vec![command_fix(server)]),
            _ => report.warning(id, found, why(flaw), vec![command_fix(server)]),
        }
    }
}

/// The command itself is not shown: it may have secrets.
fn what(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::DoesNothing => "archive_command does nothing and reports success",
        Flaw::CannotFail => "archive_command cannot fail: it reports success whatever happens",
        Flaw::NoFile => "archive_command has neither %p nor %f, so it does not know which file to archive",
        Flaw::Removes => "archive_command takes the segment away from pg_wal",
        Flaw::Overwrites => "archive_command overwrites a file of the same name in the archive",
    }
}

fn why(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::DoesNothing => {
            "the server believes that its WAL is archived and removes it; no recovery from the archive can get past such a gap"
        }
        Flaw::CannotFail => {
            "where the copy fails, the server believes that the segment is archived and removes it; no recovery from the archive can get past such a gap"
        }
        Flaw::NoFile => "the same thing happens for every segment, whichever it is",
        Flaw::Removes => {
            "the server may still need the segment for crash recovery and for its standbys, and removes it itself when nobody does"
        }
        Flaw::Overwrites => {
            "two servers with one archive by mistake, or a server that was restored, then destroy each other's WAL; it must fail where there is such a file"
        }
    }
}

/// A command that the server's documentation would take.
fn command_fix(server: &Server) -> Fix {
    let command = server.value("archive_command").and_then(shell::with_test);
    let command = command.unwrap_or_else(|| "test ! -f /archive/%f && cp %p /archive/%f".to_owned());
    Fix::setting(server, "archive_command", &format!("'{command}'"), RELOAD)
}

fn fails(server: &Server, archiver: &Archiver, report: &mut Report) {
    let (wal, time) = (archiver.last_failed_wal.as_deref().unwrap_or("?"), archiver.last_failed_time.as_deref().unwrap_or("?"));
    let last = archiver
        .last_archived_wal
        .as_ref()
        .map_or_else(|| "none was archived yet".to_owned(), |wal| format!("{wal} was the last to be archived"));
    let name = if is_empty(server, "archive_library") { "archive_command" } else { "archive_library" };
    let mut why = String::from(
        "the server keeps all WAL from there on until the disk is full, and the archive has nothing after it; the server's log has what was said",
    );
    if server.value("archive_mode") == Some("always") {
        why.push_str(
            "; with archive_mode = always primary and standby archive the same segments: with one archive for both, the command must succeed where an identical file is there already",
        );
    }
    let found = format!("archiving fails: {wal} at {time}, {} failures in all; {last}", archiver.failed);
    report.error("archive-failing", found, why, vec![Fix::setting(server, name, "'…'", RELOAD)]);
}

/// What waits to be archived: an archiver that hangs counts no failure.
fn waiting(server: &Server, archiver: &Archiver, report: &mut Report) {
    let Ok(ready) = server.ready else { return };
    // What was there before the server started, or before the last success, has not waited for this try.
    let since = archiver.idle.map_or(ready.oldest, |idle| idle.min(ready.oldest)).min(archiver.uptime);
    let hangs = ready.count > 0 && since >= HANGS || ready.count >= SEVERAL.0 && since >= SEVERAL.1;
    let name = if is_empty(server, "archive_library") { "archive_command" } else { "archive_library" };
    if hangs {
        let found = format!(
            "archiving hangs: {} files wait to be archived, and for {since:.0} seconds none was archived and no failure was counted",
            ready.count
        );
        let why = format!(
            "{name} does not come back, or takes that long: the server waits for it without end, and keeps all WAL until the disk is full; if the archiver cannot start, the server's log says so"
        );
        let archiver = match server.major {
            14.. => {
                "ps -o pid,etime,args --ppid PID  # PID of the archiver: SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'"
            }
            _ => "ps -o pid,etime,args --ppid PID  # PID of the process \"archiver\" of this server",
        };
        let mut fix = vec![Fix::shell(format!("{archiver}; kill what hangs, and the archiver tries again"))];
        if name == "archive_command" {
            fix.push(Fix::setting(server, name, "'timeout 60 …'", RELOAD));
        }
        let severity = if since >= HANGS { Severity::Error } else { Severity::Warning };
        report.push("archive-hangs", severity, found, why, fix);
    } else if ready.count >= BACKLOG {
        let found = format!("{} files wait to be archived", ready.count);
        let why = "the archive is that far behind, and the server keeps this WAL; if the number grows, archiving is slower than writing";
        let look = Fix::sql(format!(
            "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready';  -- again: while it grows, {name} takes too long for one file"
        ));
        report.warning("archive-backlog", found, why, vec![look]);
    }
}
