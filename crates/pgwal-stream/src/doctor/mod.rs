//! What is wrong with a replication setup, why it matters, and the line to change.
//!
//! [`facts`] is what servers say of themselves, [`mod@gather`] asks them, and [`diagnose`] judges: a pure function, so that every mistake can be
//! tested without a server that makes it.

pub mod facts;
pub mod gather;
pub mod hba;
mod primary;
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

/// A line to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// Where it goes: `postgresql.conf`, a line of pg_hba.conf, `SQL`, `shell`.
    pub place: String,
    /// The line.
    pub line: String,
    /// What makes it count.
    pub then: Option<&'static str>,
}

impl Fix {
    /// A setting of `server`.
    fn setting(server: &Server, name: &str, value: &str, then: &'static str) -> Fix {
        let place = match server.setting(name) {
            // What ALTER SYSTEM has written is not for editors.
            Ok(Setting { file: Some(file), .. }) if file.ends_with("postgresql.auto.conf") => {
                let line = format!("ALTER SYSTEM SET {name} = {value};");
                return Fix { place: "SQL".to_owned(), line, then: Some(then) };
            }
            Ok(Setting { file: Some(file), line: Some(line), .. }) => format!("{file}, line {line}"),
            Ok(Setting { file: Some(file), .. }) => file.clone(),
            _ => "postgresql.conf".to_owned(),
        };
        Fix { place, line: format!("{name} = {value}"), then: Some(then) }
    }

    fn sql(line: impl Into<String>) -> Fix {
        Fix { place: "SQL".to_owned(), line: line.into(), then: None }
    }

    fn shell(line: impl Into<String>) -> Fix {
        Fix { place: "shell".to_owned(), line: line.into(), then: None }
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
    primary::check(facts, &mut report);
    report.side = Side::Standby;
    standby::check(facts, &mut report);
    report.findings
}

/// The findings so far, and which server the next are about.
struct Report {
    findings: Vec<Finding>,
    side: Side,
}

impl Report {
    fn push(&mut self, id: &'static str, severity: Severity, found: impl Into<String>, why: impl Into<String>, fix: Vec<Fix>) {
        self.findings.push(Finding { id, severity, server: self.side, found: found.into(), why: why.into(), fix });
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
