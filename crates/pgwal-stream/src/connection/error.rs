//! What can go wrong with a connection.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use pgwal::printable::{printable, printable_lines};

use crate::conninfo::ConnInfoError;

/// Result of talking to a server.
pub type Result<T> = std::result::Result<T, Error>;

/// A connection that failed, or a command that the server refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server answers with an error.
    Server(Box<ServerError>),
    /// The system refuses.
    Io {
        /// What was to be done.
        doing: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The server closed the connection, between two messages or in one.
    Closed {
        /// What was to come.
        expected: &'static str,
        /// Bytes of a message that did arrive.
        partial: usize,
    },
    /// A message of a type that the protocol does not have, or not here.
    Tag {
        /// What was to come.
        expected: &'static str,
        /// The byte that says which message it is.
        found: u8,
    },
    /// A message's length is less than 4, or more than is reasonable.
    Length {
        /// The byte that says which message it is.
        tag: u8,
        /// The most that is taken, in bytes.
        limit: usize,
        /// What the message says.
        found: u32,
    },
    /// A message does not have the fields that it should have.
    Message {
        /// The message, by the manual's name.
        message: &'static str,
        /// The field that is missing or wrong.
        field: &'static str,
    },
    /// The server sends more than anybody wants to keep in memory.
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The most that is taken, in bytes.
        limit: usize,
    },
    /// `connect_timeout` has passed, or another limit.
    Timeout,
    /// The stop flag is set.
    Interrupted,
    /// The caller asks for what the connection's state does not allow.
    State {
        /// What was asked for.
        wanted: &'static str,
        /// The state.
        state: &'static str,
    },
    /// The path of a Unix socket is longer than the system allows.
    SocketPath {
        /// The path of the socket.
        path: String,
        /// The most bytes that it may have.
        limit: usize,
    },
    /// A setting that is read late, see `Config::late`.
    Setting(ConnInfoError),
    /// A host name that cannot be resolved.
    Resolve {
        /// The name.
        name: String,
        /// What the system says; `None`: it says that there are no addresses.
        error: Option<io::Error>,
    },
    /// `requirepeer`: the server after the socket runs as somebody else.
    Peer {
        /// The account that it must run as.
        expected: String,
        /// The one that it runs as.
        found: String,
    },
    /// TLS failed: certificates, versions, or what came was no TLS.
    Tls(rustls::Error),
    /// A file with certificates or a key cannot be used.
    TlsFile {
        /// What it is to be.
        what: &'static str,
        /// Its path; empty where there is none.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server has no TLS, and `sslmode` wants it.
    TlsRefused,
    /// What the server asks for to let us in cannot be given, or must not be.
    Auth(AuthError),
    /// `target_session_attrs`: the server is of the wrong kind.
    SessionAttrs {
        /// What it is.
        found: &'static str,
    },
}

/// Why we cannot log in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthError {
    /// The server wants a password, and there is none.
    NoPassword,
    /// The server asks for a method that is not supported.
    Unsupported {
        /// The method, by the name of its `AuthenticationRequest`, or SASL mechanisms.
        method: String,
    },
    /// `require_auth` does not have the method.
    NotAllowed {
        /// The method that the server asks for.
        method: String,
    },
    /// `channel_binding=require`, and there is none.
    ChannelBinding {
        /// Why.
        reason: &'static str,
    },
    /// The server says something in SCRAM that is wrong: it may not know the password.
    Scram {
        /// What is wrong.
        message: String,
    },
    /// SCRAM ended before the server had shown that it knows the password.
    Unproven,
}

/// An ErrorResponse or NoticeResponse. Manual: "Error and Notice Message Fields".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL, PANIC; WARNING, NOTICE, …: not translated (field V, or S before 9.6).
    pub severity: String,
    /// SQLSTATE, five characters (field C).
    pub code: String,
    /// The message (field M).
    pub message: String,
    /// More about it (field D).
    pub detail: Option<String>,
    /// What to do about it (field H).
    pub hint: Option<String>,
    /// Where it happened (field W).
    pub context: Option<String>,
    /// All fields by their letters.
    pub fields: BTreeMap<char, String>,
}

impl ServerError {
    /// Whether the server ends the connection after it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Bytes of text in it.
    pub(super) fn size(&self) -> usize {
        let optional = [&self.detail, &self.hint, &self.context].into_iter().flatten();
        let all = [&self.severity, &self.code, &self.message].into_iter().chain(optional).chain(self.fields.values());
        all.map(String::len).sum()
    }

    pub(super) fn parse(body: &[u8]) -> ServerError {
        let mut fields = BTreeMap::new();
        for field in body.split(|&byte| byte == 0) {
            if let Some((&letter, text)) = field.split_first() {
                fields.insert(char::from(letter), String::from_utf8_lossy(text).into_owned());
            }
        }
        let get = |letter| fields.get(&letter).cloned();
        ServerError {
            severity: get('V').or_else(|| get('S')).unwrap_or_default(),
            code: get('C').unwrap_or_default(),
            message: get('M').unwrap_or_default(),
            detail: get('D'),
            hint: get('H'),
            context: get('W'),
            fields,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever answers at that address may say anything, and this goes to a terminal. Messages may have several lines.
        write!(f, "{}:  {}", printable(&self.severity), printable_lines(&self.message))?;
        for (name, text) in [("DETAIL", &self.detail), ("HINT", &self.hint)] {
            if let Some(text) = text {
                write!(f, "\n{name}:  {}", printable_lines(text))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthError::NoPassword => write!(f, "no password supplied"),
            AuthError::Unsupported { method } => {
                write!(f, "the server asks for {} authentication, which is not supported", printable(method))
            }
            AuthError::NotAllowed { method } => write!(f, "the server asks for {method} authentication, which require_auth does not have"),
            AuthError::ChannelBinding { reason } => write!(f, "channel binding is required, but {reason}"),
            AuthError::Scram { message } => write!(f, "SCRAM: {}", printable(message)),
            AuthError::Unproven => write!(f, "the server ended authentication without showing that it knows the password"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Server(error) => error.fmt(f),
            Error::Io { doing, error } => write!(f, "could not {doing}: {error}"),
            Error::Closed { expected, partial: 0 } => write!(f, "server closed the connection unexpectedly, {expected} was to come"),
            Error::Closed { expected, partial } => {
                write!(f, "server closed the connection in the middle of a message, after {partial} bytes; {expected} was to come")
            }
            Error::Tag { expected, found } => {
                write!(f, "message of type \"{}\" (0x{found:02X}) where {expected} was to come", found.escape_ascii())
            }
            Error::Length { tag, limit, found } => {
                write!(f, "message of type \"{}\" says that its length is {found}, expected 4 to {limit}", tag.escape_ascii())
            }
            Error::Message { message, field } => write!(f, "{message}: {field} missing or wrong"),
            Error::TooMuch { what, limit } => write!(f, "the server sent more than {limit} bytes of {what}"),
            Error::Timeout => write!(f, "timeout expired"),
            Error::Interrupted => write!(f, "interrupted"),
            Error::State { wanted, state } => write!(f, "cannot {wanted}: {state}"),
            Error::SocketPath { path, limit } => write!(f, "Unix-domain socket path \"{path}\" is too long (maximum {limit} bytes)"),
            Error::Setting(error) => error.fmt(f),
            Error::Resolve { error: Some(error), .. } => write!(f, "could not translate host name to address: {error}"),
            Error::Resolve { error: None, .. } => write!(f, "could not translate host name to address: it has none"),
            Error::Peer { expected, found } => write!(f, "requirepeer specifies \"{expected}\", but actual peer user name is \"{found}\""),
            Error::Tls(error) => write!(f, "SSL error: {error}"),
            Error::TlsFile { what, path, problem } if path.is_empty() => write!(f, "{what}: {problem}"),
            Error::TlsFile { what, path, problem } => write!(f, "{what} \"{path}\": {problem}"),
            Error::TlsRefused => write!(f, "server does not support SSL, but SSL was required"),
            Error::Auth(error) => error.fmt(f),
            Error::SessionAttrs { found } => f.write_str(found),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { error, .. } | Error::Resolve { error: Some(error), .. } => Some(error),
            Error::Tls(error) => Some(error),
            _ => None,
        }
    }
}

/// No host would do.
#[derive(Debug)]
pub struct ConnectError {
    /// What was passed over on the way, such as a password file that others can read.
    pub warnings: Vec<String>,
    /// What was tried, in order.
    pub attempts: Vec<Attempt>,
}

/// One address that was tried in vain.
#[derive(Debug)]
pub struct Attempt {
    /// The server in libpq's words: `at "db" (10.0.0.1), port 5432`, `on socket "/run/.s.PGSQL.5432"`.
    pub server: String,
    /// Why not.
    pub error: Error,
    /// The password file whose password the server did not take.
    pub passfile: Option<String>,
}

impl Attempt {
    /// Whether it was on a Unix socket.
    pub fn is_local(&self) -> bool {
        self.server.starts_with("on socket ")
    }
}

impl ConnectError {
    /// The last error, which is why there is no connection.
    pub fn last(&self) -> Option<&Error> {
        self.attempts.last().map(|attempt| &attempt.error)
    }

    /// Whether it is only that the stop flag was set.
    pub fn is_interrupted(&self) -> bool {
        matches!(self.last(), Some(Error::Interrupted))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut line = || if std::mem::take(&mut first) { "" } else { "\n" };
        for warning in &self.warnings {
            write!(f, "{}WARNING: {warning}", line())?;
        }
        for attempt in &self.attempts {
            match &attempt.error {
                // It names the server itself.
                error @ Error::SocketPath { .. } => write!(f, "{}{error}", line())?,
                error => write!(f, "{}connection to server {} failed: {error}", line(), attempt.server)?,
            }
            if let Some(path) = &attempt.passfile {
                write!(f, "\npassword retrieved from file \"{path}\"")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}
