//! `pgwal doctor`: what is wrong with a replication setup.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use pgwal::printable::printable;
use pgwal_stream::connection::{ConnectError, Connection, Mode};
use pgwal_stream::conninfo::{Config, Settings};
use pgwal_stream::doctor::facts::{Endpoint, Facts, Server};
use pgwal_stream::doctor::{self, Finding, Severity, Side, Target};

use crate::args::Form;
use crate::console::CouldNotRun;
use crate::server::ServerArgs;

/// Look at a replication setup for what people get wrong, and name the line to change
#[derive(Args, Debug)]
#[command(after_help = "\
Example: pgwal doctor -d \"host=db.example.org user=replicator\" --standby \"host=standby.example.org user=monitor\"

Use the role, and the way, by which the standby connects: whether it gets in is tried. A member of pg_monitor sees most points, a superuser
all of them, pg_hba.conf among them. Nothing is changed on the servers.

Exit status: 0 nothing wrong; 1 errors or warnings; 2 no connection, wrong options, or standard output cannot be written; \
141 nobody reads it (as `| head` leaves it).")]
pub struct Opts {
    #[command(flatten)]
    server: ServerArgs,
    /// The standby, too: what of it does not fit the primary
    #[arg(short, long, value_name = "CONNINFO")]
    standby: Option<String>,
    /// Form of the output
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
    /// Print errors and warnings only
    #[arg(short, long)]
    quiet: bool,
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        let facts = self.facts().map_err(CouldNotRun)?;
        let mut findings = doctor::diagnose(&facts);
        let counts = findings.iter().fold(BTreeMap::new(), |mut counts: BTreeMap<Severity, usize>, finding| {
            *counts.entry(finding.severity).or_default() += 1;
            counts
        });
        let problems = findings.iter().any(|finding| finding.severity.is_problem());
        findings.retain(|finding| !self.quiet || finding.severity.is_problem());
        match self.format {
            Form::Text => {
                // The worst comes first; otherwise it stays in the order in which one would look.
                findings.sort_by_key(|finding| finding.severity);
                findings.iter().try_for_each(|finding| show(finding, facts.standby.is_some(), out))?;
                let counts: Vec<String> = counts.iter().map(|(severity, count)| counted(*severity, *count)).collect();
                writeln!(out, "{}", counts.join(", "))?;
            }
            Form::Json => {
                for finding in &findings {
                    pgwal::json::to_writer(&mut *out, finding)?;
                    writeln!(out)?;
                }
            }
        }
        Ok(ExitCode::from(u8::from(problems)))
    }

    fn facts(&self) -> Result<Facts, Box<dyn Error>> {
        let mut config = config(&self.server)?;
        let primary = gather(&self.server, &mut config)?;
        let mut facts = Facts { primary, standby: None, standby_code: None, passwords_told: (has_password(&self.server.dbname), false) };
        if let Some(conninfo) = &self.standby {
            facts.passwords_told.1 = has_password(conninfo);
            let standby = ServerArgs { dbname: conninfo.clone(), password: self.server.password };
            let result = gather(&standby, &mut self::config(&standby)?);
            facts.standby = Some(result.map_err(|error| {
                facts.standby_code = doctor::gather::refusal(&error).code;
                error.to_string()
            }));
            // The standby has gone on since the primary was asked.
            if let Some(Ok(standby)) = &mut facts.standby {
                doctor::gather::resolve(standby);
                doctor::gather::ask_position(&mut facts.primary, &mut |mode| connect(&self.server, &mut config, mode));
            }
        }
        Ok(facts)
    }
}

/// Somebody who waits for an answer about a server that is down does not wait for long, unless the connection string says so.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server that lets us in may take so long for one answer; less where `connect_timeout` is less than usual.
const ANSWER: Duration = Duration::from_secs(40);

/// An error is one of the connection string.
fn config(args: &ServerArgs) -> Result<Config, Box<dyn Error>> {
    let mut config = args.config()?;
    config.connect_timeout.get_or_insert(TIMEOUT);
    Ok(config)
}

/// Asks a server.
fn gather(args: &ServerArgs, config: &mut Config) -> Result<Server, ConnectError> {
    let user = config.user.clone();
    let mut server = doctor::gather(&user, &mut |mode| connect(args, config, mode))?;
    if let [host] = config.hosts.as_slice() {
        server.endpoint = Endpoint { host: host.place.name(), port: host.port };
    }
    Ok(server)
}

fn connect(args: &ServerArgs, config: &mut Config, mode: Mode) -> Result<Connection, ConnectError> {
    let mut connection = match mode {
        Mode::Ordinary => args.connect_sql(config),
        _ => args.connect(config, mode),
    }?;
    connection.set_limit(Some(match config.connect_timeout {
        Some(limit) if limit < TIMEOUT => limit,
        limit => limit.unwrap_or_default().max(ANSWER),
    }));
    Ok(connection)
}

/// A password is in the connection string itself, not in a file or a variable.
fn has_password(conninfo: &str) -> bool {
    Settings::parse(conninfo).is_ok_and(|settings| settings.get("password").is_some())
}

fn counted(severity: Severity, count: usize) -> String {
    let plural = if count == 1 || matches!(severity, Severity::Ok | Severity::Skipped) { "" } else { "s" };
    format!("{count} {}{plural}", severity.name())
}

fn show(finding: &Finding, two: bool, out: &mut impl Write) -> io::Result<()> {
    let mark = match finding.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Skipped => "skipped",
        Severity::Note => "note",
        Severity::Ok => "ok",
    };
    let side = match finding.server {
        Side::Standby => "standby: ",
        Side::Primary if two => "primary: ",
        Side::Primary => "",
    };
    writeln!(out, "{mark:<8} {}: {side}{}", finding.id, clean(&finding.found))?;
    if !finding.why.is_empty() {
        writeln!(out, "         why: {}", clean(&finding.why))?;
    }
    for fix in &finding.fix {
        let on = match fix.on {
            Some(Target::Standby) => "on the standby: ",
            Some(Target::Primary) if two => "on the primary: ",
            Some(Target::Here) if two => "here: ",
            _ => "",
        };
        writeln!(out, "         fix: {on}{}", clean(&fix.to_string()))?;
    }
    // What is wrong stands apart.
    if finding.severity.is_problem() { writeln!(out) } else { Ok(()) }
}

/// What comes from a server must neither look like lines of ours nor steer the terminal.
fn clean(text: &str) -> String {
    printable(text.replace('\n', "; ")).to_string()
}
