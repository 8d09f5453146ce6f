//! What pg_basebackup and pg_receivewal have in common: options for the connection, and how it is made. C: bin/pg_basebackup/streamutil.c.

use std::ffi::OsStr;

use pgwal::Lsn;
use pgwal::printable::printable_path;
use pgwal_stream::command::Command;
use pgwal_stream::connection::{self, AuthError, ConnectError, Error};
use pgwal_stream::conninfo::{Config, ConnInfoError, Environment, Settings};
use pgwal_stream::receive::ReceiveError;
use pgwal_stream::segments::FileError;

use super::wrong::Wrong;
use crate::fullpage::Errno;
use crate::server::{self, ClientArgs};

/// Takes an option for the connection; `false`: it is none.
pub fn set(client: &mut ClientArgs, id: char, value: &OsStr) -> bool {
    let text = || value.to_string_lossy().into_owned();
    let password = &mut client.server.password;
    match id {
        'd' => client.server.dbname = text(),
        'h' => client.host = Some(text()),
        'p' => client.port = Some(text()),
        'U' => client.username = Some(text()),
        // The last one counts.
        'w' => (password.no_password, password.ask_password) = (true, false),
        'W' => (password.no_password, password.ask_password) = (false, true),
        _ => return false,
    }
    true
}

/// The settings as they are given, for a program of that name.
pub fn settings(client: &ClientArgs, program: &str) -> Result<Settings, ConnInfoError> {
    let mut settings = Settings::parse(&client.server.dbname)?;
    settings.set("fallback_application_name", program.to_owned())?;
    client.add_to(&mut settings)?;
    Ok(settings)
}

/// The settings of the connection, with the password that the user is asked for.
pub fn config(client: &ClientArgs, settings: &Settings) -> Result<Config, String> {
    let mut config = Config::new_as_libpq(settings.clone(), &Environment::current()).map_err(|e| e.to_string())?;
    // The real programs wait for ever.
    config.connect_timeout = config.connect_timeout.or(Some(server::TIMEOUT));
    if client.server.password.ask_password {
        config.password = Some(server::ask().map_err(|e| e.to_string())?);
    }
    Ok(config)
}

/// Seconds between two messages about how far this is. C: `option_parse_int`.
pub fn status_interval(text: &str) -> Result<u64, Wrong> {
    const OPTION: &str = "-s/--status-interval";
    /// Milliseconds must fit an int.
    const MAX: i64 = i32::MAX as i64 / 1000;
    let digits = text.trim();
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Value(format!("invalid value \"{text}\" for option {OPTION}")));
    }
    match digits.parse::<i64>() {
        Ok(seconds @ 0..=MAX) => Ok(seconds as u64),
        _ => Err(Wrong::Value(format!("{OPTION} must be in range 0..{MAX}"))),
    }
}

/// An LSN as programs up to 18 print it. C: `%X/%X` of `LSN_FORMAT_ARGS`.
pub fn short(lsn: Lsn) -> String {
    format!("{:X}/{:X}", lsn.0 >> 32, lsn.0 & u64::from(u32::MAX))
}

/// The command that creates a slot, as programs name it in errors: from 15 on it has its options in brackets.
pub fn create_slot(slot: &str, reserve_wal: bool, major: Option<u32>) -> String {
    let command = Command::CreateReplicationSlot { slot, temporary: false, reserve_wal }.to_string();
    match command.strip_suffix(" RESERVE_WAL") {
        Some(rest) if major >= Some(15) => format!("{rest} ( RESERVE_WAL)"),
        _ => command,
    }
}

/// Why there is no connection, in libpq's words. C: `connectFailureMessage`, fe-connect.c.
pub fn connect_error(error: &ConnectError) -> String {
    let mut lines: Vec<String> = error.warnings.iter().map(|warning| format!("WARNING: {warning}")).collect();
    for attempt in &error.attempts {
        let server = &attempt.server;
        lines.push(match &attempt.error {
            Error::Io { doing: "connect", error } => {
                let hint = if attempt.is_local() {
                    "Is the server running locally and accepting connections on that socket?"
                } else {
                    "Is the server running on that host and accepting TCP/IP connections?"
                };
                format!("connection to server {server} failed: {}\n\t{hint}", Errno(error))
            }
            Error::Resolve { name, error } => {
                let reason = error.as_ref().map_or_else(|| "Name or service not known".to_owned(), ToString::to_string);
                // Rust's own words stand before those of the system.
                let reason = reason.strip_prefix("failed to lookup address information: ").unwrap_or(&reason);
                format!("could not translate host name \"{name}\" to address: {reason}")
            }
            error @ Error::SocketPath { .. } => error.to_string(),
            error => format!("connection to server {server} failed: {}", connection_error(error)),
        });
        lines.extend(attempt.passfile.as_ref().map(|path| format!("password retrieved from file \"{path}\"")));
    }
    lines.join("\n")
}

/// An error of a connection in libpq's words, where it has any for it.
fn connection_error(error: &Error) -> String {
    match error {
        Error::Closed { .. } => "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.".to_owned(),
        Error::Auth(AuthError::NoPassword) => "fe_sendauth: no password supplied".to_owned(),
        error => error.to_string(),
    }
}

/// Why WAL cannot be received, in the words of pg_receivewal. C: bin/pg_basebackup/receivelog.c.
pub fn receive_error(error: &ReceiveError<connection::Error>) -> String {
    match error {
        ReceiveError::Refused { command, error } => format!("could not send replication command \"{command}\": {error}"),
        ReceiveError::Server(Error::Server(said)) => format!("unexpected termination of replication stream: {said}"),
        ReceiveError::Server(error) => format!("could not receive data from WAL stream: {}", connection_error(error)),
        ReceiveError::File(error) => file_error(error),
        error => error.to_string(),
    }
}

/// An error of a file in the words of C.
pub fn file_error(error: &FileError) -> String {
    let FileError { path, doing, error } = error;
    let doing = if *doing == "read directory" { "access directory" } else { doing };
    let is_file = ["open", "create", "read", "write", "rename", "sync"].contains(&doing);
    format!("could not {doing} {}\"{}\": {}", if is_file { "file " } else { "" }, printable_path(path), Errno(error))
}
