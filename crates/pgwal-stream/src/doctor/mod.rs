//! What is wrong with a replication setup, why it matters, and the line to change.
//!
//! [`facts`] is what servers say of themselves, [`mod@gather`] asks them, and [`diagnose`] judges: a pure function, so that every mistake can be
//! tested without a server that makes it.

mod archive;
pub mod facts;
pub mod gather;
pub mod hba;
mod primary;
mod relation;
mod shell;
mod slots;
mod standby;
mod sync;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use gather::gather;

use self::facts::{Facts, Server, Setting};

/// What one point came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which point: a name that stays.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Which of the servers it is about.
    pub server: Side,
    /// What was found.
    pub found: String,
    /// Why that matters; empty where nothing is wrong.
    pub why: String,
    /// What to change; alternatives say so themselves.
    pub fix: Vec<Fix>,
}

/// How bad a finding is, from the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Replication does not work, or will stop.
    Error,
    /// It works, and not for long, or not safely.
    Warning,
    /// This could not be looked at.
    Skipped,
    /// Good to know.
    Note,
    /// As it should be.
    Ok,
}

impl Severity {
    /// Something to be put right.
    pub fn is_problem(self) -> bool {
        matches!(self, Severity::Error | Severity::Warning)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Skipped => "skipped",
            Severity::Note => "note",
            Severity::Ok => "ok",
        }
    }
}

/// A server, by its part in replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The one that sends.
    Primary,
    /// The one that receives.
    Standby,
}

/// Where a line is to be changed or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The server that sends.
    Primary,
    /// The server that receives.
    Standby,
    /// The machine and account that the doctor is run by.
    Here,
}

impl From<Side> for Target {
    fn from(side: Side) -> Target {
        match side {
            Side::Primary => Target::Primary,
            Side::Standby => Target::Standby,
        }
    }
}

/// A line to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// The server that it is for. Every finding's fixes have one.
    pub on: Option<Target>,
    /// Where it goes: `postgresql.conf`, a line of pg_hba.conf, `SQL`, `shell`.
    pub place: String,
    /// The line.
    pub line: String,
    /// What makes it count.
    pub then: Option<&'static str>,
}

impl Fix {
    /// A line of a file; `then` is what makes it count.
    fn line(place: impl Into<String>, line: impl Into<String>, then: Option<&'static str>) -> Fix {
        Fix { on: None, place: place.into(), line: line.into(), then }
    }

    /// The same for another server than that of the finding.
    fn on(self, target: Target) -> Fix {
        Fix { on: Some(target), ..self }
    }

    /// A setting of `server`.
    fn setting(server: &Server, name: &str, value: &str, then: &'static str) -> Fix {
        let place = match server.setting(name) {
            // What ALTER SYSTEM has written is not for editors.
            Ok(Setting { file: Some(file), .. }) if file.ends_with("postgresql.auto.conf") => {
                // A number with a unit needs no quotes in the file, and does in SQL.
                let is_bare =
                    value.starts_with('\'') || value.parse::<i64>().is_ok() || value.bytes().all(|byte| byte.is_ascii_lowercase());
                let value = if is_bare { value.to_owned() } else { literal(value) };
                let line = format!("ALTER SYSTEM SET {name} = {value};");
                return Fix::line("SQL", line, Some(then));
            }
            Ok(Setting { file: Some(file), line: Some(line), .. }) => format!("{file}, line {line}"),
            Ok(Setting { file: Some(file), .. }) => file.clone(),
            _ => "postgresql.conf".to_owned(),
        };
        Fix::line(place, format!("{name} = {value}"), Some(then))
    }

    fn sql(line: impl Into<String>) -> Fix {
        Fix::line("SQL", line, None)
    }

    fn shell(line: impl Into<String>) -> Fix {
        Fix::line("shell", line, None)
    }
}

/// The server must be started anew.
const RESTART: &str = "needs a restart";
/// The server must read its files anew.
const RELOAD: &str = "then SELECT pg_reload_conf()";

impl std::fmt::Display for Fix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.line)?;
        self.then.map_or(Ok(()), |then| write!(f, "  ({then})"))
    }
}

/// Judges everything, in the order in which one would look.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut report = Report { findings: Vec::new(), side: Side::Primary };
    if let Some(Ok(standby)) = &facts.standby
        && !arguments(&facts.primary, standby, &mut report)
    {
        return report.findings;
    }
    primary::check(facts, &mut report);
    report.side = Side::Standby;
    standby::check(facts, &mut report);
    report.findings
}

/// Whether the servers are those that were meant. If not, nothing more is said: it would be about the wrong one.
fn arguments(primary: &Server, standby: &Server, report: &mut Report) -> bool {
    let id = "arguments";
    let place = |server: &Server| {
        let facts::Endpoint { host, port } = &server.endpoint;
        if host.is_empty() { "…".to_owned() } else { format!("host={host} port={port} user={} …", server.user) }
    };
    let run = |first: &str, second: &str| Fix::shell(format!("pgwal doctor -d \"{first}\" --standby \"{second}\"")).on(Target::Here);
    if relation::is_same(primary, standby) {
        let found = format!("the server given as primary and the one given as standby are the same: {}", primary.endpoint);
        let (first, second) = match standby.in_recovery {
            Ok(true) => ("THE PRIMARY".to_owned(), place(standby)),
            _ => (place(primary), "THE STANDBY".to_owned()),
        };
        report.error(id, found, "the two cannot be compared, so no point is judged", vec![run(&first, &second)]);
        return false;
    }
    if relation::is_swapped(primary, standby) {
        let found = match standby.in_recovery {
            Ok(false) => {
                "the server given as primary is a standby, and the one given as standby is a primary: the two are swapped, or have changed roles"
            }
            _ => "the server given as primary receives its WAL from the one given as standby: the two are swapped",
        };
        let why = "advice would be for the wrong server, so no point is judged";
        report.error(id, found, why, vec![run(&place(standby), &place(primary))]);
        return false;
    }
    true
}

/// The findings so far, and which server the next are about.
struct Report {
    findings: Vec<Finding>,
    side: Side,
}

impl Report {
    fn push(&mut self, id: &'static str, severity: Severity, found: impl Into<String>, why: impl Into<String>, fix: Vec<Fix>) {
        let on = Some(Target::from(self.side));
        let fix = fix.into_iter().map(|fix| Fix { on: fix.on.or(on), ..fix }).collect();
        self.findings.push(Finding { id, severity, server: self.side, found: found.into(), why: why.into(), fix });
    }

    /// How many things are to be put right so far.
    fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity.is_problem()).count()
    }

    fn ok(&mut self, id: &'static str, found: impl Into<String>) {
        self.push(id, Severity::Ok, found, "", Vec::new());
    }

    fn note(&mut self, id: &'static str, found: impl Into<String>, why: impl Into<String>) {
        self.push(id, Severity::Note, found, why, Vec::new());
    }

    fn warning(&mut self, id: &'static str, found: impl Into<String>, why: impl Into<String>, fix: Vec<Fix>) {
        self.push(id, Severity::Warning, found, why, fix);
    }

    fn error(&mut self, id: &'static str, found: impl Into<String>, why: impl Into<String>, fix: Vec<Fix>) {
        self.push(id, Severity::Error, found, why, fix);
    }

    fn skipped(&mut self, id: &'static str, reason: impl Into<String>, fix: Vec<Fix>) {
        self.push(id, Severity::Skipped, reason, "", fix);
    }
}

/// An identifier as SQL takes it: in quotes unless it is plain.
fn ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A string as SQL takes it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Bytes in PostgreSQL's units, as settings take them.
fn size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "bytes";
    for next in ["kB", "MB", "GB", "TB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{size:.1} {unit}") }
}
