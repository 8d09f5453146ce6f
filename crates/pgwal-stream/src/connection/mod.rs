//! Connections to servers: the frontend/backend protocol 3.0 over blocking sockets, for replication and simple queries.
//!
//! Blocking, because a receiver has one connection and nothing to do between its messages: a message costs no more than its share of one
//! `read`. All that arrives is in one buffer, and [`Connection::next_copy`] lends what is in it.

mod auth;
mod connect;
mod der;
mod error;
mod input;
mod stream;
mod tls;
mod v1;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

pub use error::{Attempt, AuthError, ConnectError, Error, Result, ServerError};

use self::connect::Address;
use self::input::{Input, Message};
use self::stream::{Stream, Wait, Waited};
use crate::conninfo::Config;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Physical replication (`replication=true`): the commands of walsender only.
    Replication,
    /// Logical replication and SQL (`replication=database`).
    ReplicationDatabase,
    /// SQL.
    Ordinary,
}

/// A connection to a server. Dropping it says farewell to the server.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    input: Input,
    state: State,
    parameters: BTreeMap<String, String>,
    parameter_bytes: usize,
    notices: Vec<ServerError>,
    notice_bytes: usize,
    stop: Option<Arc<AtomicBool>>,
    limit: Limit,
    address: Address,
    /// The server in libpq's words.
    name: String,
    warnings: Vec<String>,
    /// Process id and secret of the server's process, for canceling.
    key: Option<(i32, i32)>,
    /// Written here, then sent in one piece.
    out: Vec<u8>,
}

/// How long a command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// Nobody has said it.
    Usual(Duration),
    /// What [`Connection::set_limit`] was told.
    Set(Option<Duration>),
}

/// What the protocol allows next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not logged in yet.
    Starting,
    /// A command may be sent.
    Ready,
    /// The server sends CopyData; with `both`, we do, too.
    Copy { both: bool, server_done: bool, client_done: bool },
    /// A command failed, or its answer was not waited for: what comes up to ReadyForQuery is its rest.
    Draining,
    /// Nothing can be said any more.
    Broken,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Starting => "the server has not let us in yet",
            State::Ready => "no COPY is going on",
            State::Copy { .. } => "a COPY is going on",
            State::Draining => "the last command has failed",
            State::Broken => "the connection is broken",
        }
    }
}

/// What [`Connection::next_copy`] waited for.
#[derive(Debug, PartialEq, Eq)]
pub enum CopyEvent<'a> {
    /// The content of a CopyData message, in the connection's buffer.
    Data(&'a [u8]),
    /// Nothing came in time.
    Timeout,
    /// The stop flag is set, and the buffer has no whole message left.
    Interrupted,
    /// The server has sent CopyDone: [`Connection::finish_copy`] is next.
    Done,
    /// The server was shut down: a walsender then sends CommandComplete without CopyDone, and ends. C: `WalSndDone`, walsender.c.
    ShutDown,
}

/// What a command that may start a COPY has led to.
#[derive(Debug, PartialEq, Eq)]
pub enum CopyStart {
    /// A COPY: [`Connection::next_copy`] has its data. These result sets came before it.
    Started(Vec<ResultSet>),
    /// None: the command is over, with these result sets. START_REPLICATION does so on a timeline that has ended.
    Finished(Vec<ResultSet>),
}

/// How far the answer to a command has been read.
enum Answer {
    /// To its end: its result sets.
    Over(Vec<ResultSet>),
    /// To a COPY from the server; these result sets came before it.
    Copy(Vec<ResultSet>),
    /// To a COPY towards the server.
    CopyIn,
}

/// A column of a result set. Manual: RowDescription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// OID of its type, in pg_type.
    pub type_oid: u32,
}

/// What one command of a query string answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Its columns; none for a command without rows.
    pub columns: Vec<Column>,
    /// Its rows: values as text, in bytes as the server sends them; `None` is NULL.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The command, as CommandComplete tells it: `SELECT 1`. Empty where there is none, as for some commands of walsender.
    pub tag: String,
}

impl ResultSet {
    /// A value, both counted from 0; `None`: NULL, or there is no such value.
    pub fn bytes(&self, row: usize, column: usize) -> Option<&[u8]> {
        self.rows.get(row)?.get(column)?.as_deref()
    }

    /// As [`ResultSet::bytes`], where it is UTF-8.
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        std::str::from_utf8(self.bytes(row, column)?).ok()
    }

    /// Place of the column of that name, counted from 0.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

impl Connection {
    /// Connects to the first host of `config` that will do.
    ///
    /// # Errors
    /// All that was tried, and why it did not work.
    pub fn connect(config: &Config, mode: Mode) -> std::result::Result<Connection, ConnectError> {
        connect::connect(config, mode, None)
    }

    /// As [`Connection::connect`], with a stop flag, which the connection keeps: see [`Connection::set_stop`].
    ///
    /// # Errors
    /// As for [`Connection::connect`]; the last one is [`Error::Interrupted`] where the flag was set.
    pub fn connect_until(config: &Config, mode: Mode, stop: Arc<AtomicBool>) -> std::result::Result<Connection, ConnectError> {
        connect::connect(config, mode, Some(stop))
    }

    /// Gives the connection a flag that ends its waiting, within 200 ms of being set; within a second in [`Connection::finish_copy`].
    pub fn set_stop(&mut self, stop: Option<Arc<AtomicBool>>) {
        self.stop = stop;
    }

    /// Gives commands so long to be answered, and messages to be sent: [`Error::Timeout`] after that. `None`: as long as it takes, for
    /// commands that wait by design, as BASE_BACKUP waits for a checkpoint.
    ///
    /// Unless this is called, the limit is `connect_timeout`, or a minute where there is none.
    pub fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = Limit::Set(limit);
    }

    /// The limit that was set; `None`: none was, or commands may take as long as they do.
    pub fn limit(&self) -> Option<Duration> {
        match self.limit {
            Limit::Set(limit) => limit,
            Limit::Usual(_) => None,
        }
    }

    /// The server in libpq's words: `at "db" (10.0.0.1), port 5432`, `on socket "/run/.s.PGSQL.5432"`.
    pub fn server(&self) -> &str {
        &self.name
    }

    /// Takes what was passed over on the way, such as a password file that others can read.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// A parameter that the server reports: `server_version`, `in_hot_standby`, … Manual: ParameterStatus.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's version as `server_version_num` has it: 150004 is 15.4, 90603 is 9.6.3. libpq: `pqSaveParameterStatus`.
    pub fn server_version_num(&self) -> Option<u32> {
        let text = self.parameter("server_version")?;
        let digits = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut numbers = digits.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        let (major, second, third) = (numbers.next()?, numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let number = major.checked_mul(10_000)?;
        if major >= 10 { number.checked_add(second) } else { number.checked_add(second.checked_mul(100)?)?.checked_add(third) }
    }

    /// The server's major version, from 10 on.
    pub fn major(&self) -> Option<u32> {
        self.server_version_num().map(|number| number / 10_000)
    }

    /// The server's process for this connection; `None`: it has not said it.
    pub fn backend_pid(&self) -> Option<i32> {
        self.key.map(|(pid, _)| pid)
    }

    /// The version of TLS, as `TLSv1_3`; `None`: the connection is not encrypted.
    pub fn tls_version(&self) -> Option<String> {
        self.stream.tls_version()
    }

    /// Takes the notices that have come since the last call.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        self.notice_bytes = 0;
        std::mem::take(&mut self.notices)
    }

    /// Runs a query string and returns the answers to its commands: SQL, or commands of walsender.
    ///
    /// # Errors
    /// [`Error::Server`] where the server refuses; the connection can be used again unless that is fatal.
    pub fn query(&mut self, sql: &str) -> Result<Vec<ResultSet>> {
        let stop = self.stop.clone();
        let answer = self.query_waiting(sql, Wait::new(self.until(), stop.as_deref()));
        self.unless_late(answer)
    }

    fn query_waiting(&mut self, sql: &str, wait: Wait<'_>) -> Result<Vec<ResultSet>> {
        self.send_query(sql, wait)?;
        match self.results(wait)? {
            CopyStart::Finished(sets) => Ok(sets),
            CopyStart::Started(_) => Err(Error::State { wanted: "read the answer to a query", state: "it is a COPY" }),
        }
    }

    /// Runs a command that leads to COPY in both directions: START_REPLICATION.
    ///
    /// # Errors
    /// As for [`Connection::query`].
    pub fn copy_both(&mut self, command: &str) -> Result<CopyStart> {
        self.copy(command)
    }

    /// Runs a command that leads to COPY from the server: BASE_BACKUP, COPY TO STDOUT.
    ///
    /// # Errors
    /// As for [`Connection::query`].
    pub fn copy_out(&mut self, command: &str) -> Result<CopyStart> {
        self.copy(command)
    }

    fn copy(&mut self, command: &str) -> Result<CopyStart> {
        let stop = self.stop.clone();
        let wait = Wait::new(self.until(), stop.as_deref());
        let started = self.send_query(command, wait).and_then(|()| self.results(wait));
        self.unless_late(started)
    }

    /// A server that has not answered in time is not asked again: each question would wait for the answer to the one before.
    fn unless_late<T>(&mut self, answer: Result<T>) -> Result<T> {
        answer.inspect_err(|error| {
            if matches!(error, Error::Timeout) {
                self.state = State::Broken;
            }
        })
    }

    /// Runs a command that takes data by COPY, UPLOAD_MANIFEST or COPY FROM STDIN, and sends it everything that `data` has.
    ///
    /// # Errors
    /// As for [`Connection::query`]; [`Error::Io`] where `data` cannot be read, and then the server has dropped what it was sent.
    pub fn copy_in(&mut self, command: &str, data: &mut dyn std::io::Read) -> Result<Vec<ResultSet>> {
        let stop = self.stop.clone();
        let wait = Wait::new(self.until(), stop.as_deref());
        self.send_query(command, wait)?;
        let mut data = Some(data);
        loop {
            match self.answer(wait)? {
                Answer::Over(sets) => return Ok(sets),
                Answer::Copy(_) => return Err(Error::State { wanted: "send data", state: "the server sends data itself" }),
                Answer::CopyIn => {
                    let Some(data) = data.take() else {
                        return Err(self.broken(Error::Tag { expected: "the end of the command", found: b'G' }));
                    };
                    if let Err(error) = self.send_all(data, wait)? {
                        self.refuse_copy("the data could not be read", wait)?;
                        // The server's answer to that is an error of its own, which says no more than this one.
                        let soon = Instant::now().checked_add(Duration::from_secs(10));
                        let _ = self.answer(Wait { until: soon, ..wait });
                        return Err(Error::Io { doing: READING, error });
                    }
                }
            }
        }
    }

    /// Sends all data as CopyData, and CopyDone, or as much of it as the server takes. The inner error is that of reading.
    fn send_all(&mut self, data: &mut dyn std::io::Read, wait: Wait<'_>) -> Result<std::io::Result<()>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            self.out.clear();
            self.out.push(b'd');
            self.out.extend_from_slice(&(len as u32 + 4).to_be_bytes()); // 64 kB at most
            self.out.extend_from_slice(buffer.get(..len).unwrap_or_default());
            self.send(wait)?;
            // The server may have had enough of it; what it is sent after that, it passes over.
            if (self.input.has_some() || self.stream.has_input())
                && let Waited::Done(message) = self.message("the answer to a command", Wait { until: Some(Instant::now()), ..wait })?
            {
                return Err(match message.tag {
                    b'E' => self.failed(&message),
                    found => self.broken(Error::Tag { expected: "the end of the data", found }),
                });
            }
        }
        self.out.clear();
        self.out.extend_from_slice(&[b'c', 0, 0, 0, 4]);
        self.send(wait)?;
        Ok(Ok(()))
    }

    /// Sends CopyFail; the server answers with an error.
    fn refuse_copy(&mut self, why: &str, wait: Wait<'_>) -> Result<()> {
        let mut fail = BytesMut::new();
        frontend::copy_fail(why, &mut fail).map_err(|_| Error::Message { message: "CopyFail", field: "text without NUL" })?;
        self.stream.write_all(&fail, wait).inspect_err(|_| self.state = State::Broken)
    }

    /// After [`CopyEvent::Done`] of a command that does several COPYs, as BASE_BACKUP before 15: the next of them.
    ///
    /// # Errors
    /// As for [`Connection::query`].
    pub fn more_copies(&mut self) -> Result<CopyStart> {
        let stop = self.stop.clone();
        match self.state {
            State::Copy { both: false, server_done: true, .. } => self.results(Wait::new(None, stop.as_deref())),
            state => Err(Error::State { wanted: "wait for another COPY", state: state.name() }),
        }
    }

    /// Waits for the next message of a COPY. What the buffer has is returned without a system call and without looking at the time;
    /// otherwise it waits until `until`, or, without it, as long as it takes.
    ///
    /// # Errors
    /// [`Error::Server`] where the server ends the COPY with an error; all others mean that the connection is of no use any more.
    pub fn next_copy(&mut self, until: Option<Instant>) -> Result<CopyEvent<'_>> {
        let State::Copy { both, server_done, client_done } = self.state else {
            return Err(Error::State { wanted: "receive CopyData", state: self.state.name() });
        };
        if server_done {
            return Ok(CopyEvent::Done);
        }
        let stop = self.stop.clone();
        let message = match self.message("CopyData", Wait::new(until, stop.as_deref()))? {
            Waited::Done(message) => message,
            Waited::Timeout => return Ok(CopyEvent::Timeout),
            Waited::Interrupted => return Ok(CopyEvent::Interrupted),
        };
        match message.tag {
            b'd' => Ok(CopyEvent::Data(self.input.body(&message))),
            b'c' => {
                self.state = State::Copy { both, server_done: true, client_done };
                Ok(CopyEvent::Done)
            }
            b'C' if both => {
                self.state = State::Broken;
                Ok(CopyEvent::ShutDown)
            }
            b'E' => Err(self.failed(&message)),
            found => Err(self.broken(Error::Tag { expected: "CopyData", found })),
        }
    }

    /// Sends a CopyData message.
    ///
    /// # Errors
    /// The connection is broken, or no COPY towards the server is going on.
    pub fn send_copy(&mut self, data: &[u8]) -> Result<()> {
        let State::Copy { both: true, client_done: false, .. } = self.state else {
            return Err(Error::State { wanted: "send CopyData", state: self.state.name() });
        };
        let len = data.len().checked_add(4).and_then(|len| u32::try_from(len).ok()).unwrap_or(u32::MAX);
        if usize::try_from(len).is_ok_and(|len| len > input::MAX_MESSAGE) {
            return Err(Error::Length { tag: b'd', limit: input::MAX_MESSAGE, found: len });
        }
        self.out.clear();
        self.out.push(b'd');
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(data);
        let stop = self.stop.clone();
        self.send(Wait::new(self.until(), stop.as_deref()))
    }

    /// Sends CopyDone: no more data comes from us. The server may still send some, up to its own CopyDone.
    ///
    /// # Errors
    /// The connection is broken, or no COPY towards the server is going on.
    pub fn send_copy_done(&mut self) -> Result<()> {
        let stop = self.stop.clone();
        self.send_copy_done_waiting(Wait::new(self.until(), stop.as_deref()))
    }

    fn send_copy_done_waiting(&mut self, wait: Wait<'_>) -> Result<()> {
        let State::Copy { both: true, server_done, client_done: false } = self.state else {
            return Err(Error::State { wanted: "send CopyDone", state: self.state.name() });
        };
        self.out.clear();
        self.out.extend_from_slice(&[b'c', 0, 0, 0, 4]);
        self.send(wait)?;
        self.state = State::Copy { both: true, server_done, client_done: true };
        Ok(())
    }

    /// Ends a COPY: sends CopyDone where that is due, passes over data that is still coming, and returns the result sets after it, such
    /// as the timeline that comes next. This is what is done when the stop flag is set, so it goes on for a second after that.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit`, [`Error::Interrupted`]; as for [`Connection::query`].
    pub fn finish_copy(&mut self, limit: Option<Duration>) -> Result<Vec<ResultSet>> {
        let (stop, seen) = (self.stop.clone(), Cell::new(None));
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let wait = Wait { grace: Some(&seen), ..Wait::new(until, stop.as_deref()) };
        if let State::Copy { both: true, client_done: false, .. } = self.state {
            self.send_copy_done_waiting(wait)?;
        }
        let mut all = Vec::new();
        loop {
            let State::Copy { both, server_done, client_done } = self.state else {
                return Err(Error::State { wanted: "finish a COPY", state: self.state.name() });
            };
            if server_done {
                match self.results(wait)? {
                    CopyStart::Finished(sets) => {
                        all.extend(sets);
                        return Ok(all);
                    }
                    CopyStart::Started(sets) => all.extend(sets),
                }
                continue;
            }
            wait.check()?;
            let message = self.message("CopyDone", wait)?.or_error()?;
            match message.tag {
                b'd' => {}
                b'c' => self.state = State::Copy { both, server_done: true, client_done },
                // The server was shut down before it had read that this side is done.
                b'C' if both => {
                    self.state = State::Broken;
                    return Ok(all);
                }
                b'E' => return Err(self.failed(&message)),
                found => return Err(self.broken(Error::Tag { expected: "CopyDone", found })),
            }
        }
    }

    /// Says farewell; the server need not wonder where we are. Dropping does the same.
    pub fn close(self) {}

    /// What can cancel what this connection is doing, from another thread; `None`: the server has not said how.
    pub fn cancel_handle(&self) -> Option<CancelHandle> {
        self.key.map(|key| CancelHandle { address: self.address.clone(), key })
    }

    fn new(stream: Stream, stop: Option<Arc<AtomicBool>>, address: Address, name: String, limit: Option<Duration>) -> Connection {
        Connection {
            stream,
            input: Input::new(),
            state: State::Starting,
            parameters: BTreeMap::new(),
            parameter_bytes: 0,
            notices: Vec::new(),
            notice_bytes: 0,
            stop,
            limit: Limit::Usual(limit.unwrap_or(LIMIT)),
            address,
            name,
            warnings: Vec::new(),
            key: None,
            out: Vec::new(),
        }
    }

    /// When what begins now has taken too long.
    fn until(&self) -> Option<Instant> {
        let limit = match self.limit {
            Limit::Usual(limit) => Some(limit),
            Limit::Set(limit) => limit,
        };
        limit.and_then(|limit| Instant::now().checked_add(limit))
    }

    /// The next message that is not for the connection itself.
    fn message(&mut self, expected: &'static str, wait: Wait<'_>) -> Result<Waited<Message>> {
        loop {
            let message = match self.input.next(&mut self.stream, expected, wait) {
                Ok(Waited::Done(message)) => message,
                Ok(other) => return Ok(other),
                Err(error) => return Err(self.broken(error)),
            };
            match message.tag {
                b'S' => self.set_parameter(&message)?,
                b'N' => self.keep_notice(&message),
                b'A' => {}
                _ => return Ok(Waited::Done(message)),
            }
            // A server that sends nothing else must neither keep us for ever nor fill the memory.
            if let Some(ended) = wait.ended() {
                return Ok(ended);
            }
        }
    }

    fn set_parameter(&mut self, message: &Message) -> Result<()> {
        let mut texts = self.input.body(message).split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        let (Some(name), Some(value)) = (texts.next(), texts.next()) else { return Ok(()) };
        let size = |name: &str, value: &str| name.len() + value.len() + OVERHEAD;
        let before = self.parameters.get(&name).map_or(0, |value| size(&name, value));
        let bytes = self.parameter_bytes - before + size(&name, &value);
        if bytes > MAX_PARAMETERS {
            return Err(self.broken(Error::TooMuch { what: "parameters", limit: MAX_PARAMETERS }));
        }
        self.parameters.insert(name, value);
        self.parameter_bytes = bytes;
        Ok(())
    }

    /// Keeps a notice, and forgets the oldest where there are too many.
    fn keep_notice(&mut self, message: &Message) {
        let notice = ServerError::parse(self.input.body(message));
        self.notice_bytes += notice.size();
        self.notices.push(notice);
        while self.notices.len() > 1 && (self.notices.len() > MAX_NOTICES || self.notice_bytes > MAX_NOTICE_BYTES) {
            self.notice_bytes -= self.notices.remove(0).size();
        }
    }

    fn send_query(&mut self, sql: &str, wait: Wait<'_>) -> Result<()> {
        if self.state == State::Draining {
            // The rest of the answer to what failed.
            while self.message("ReadyForQuery", wait)?.or_error()?.tag != b'Z' {
                wait.check()?;
            }
            self.state = State::Ready;
        }
        if self.state != State::Ready {
            return Err(Error::State { wanted: "send a query", state: self.state.name() });
        }
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|_| Error::Message { message: "Query", field: "text without NUL" })?;
        self.stream.write_all(&out, wait).inspect_err(|_| self.state = State::Broken)?;
        self.state = State::Draining;
        Ok(())
    }

    /// Reads result sets up to ReadyForQuery, or to the start of a COPY from the server.
    fn results(&mut self, wait: Wait<'_>) -> Result<CopyStart> {
        loop {
            match self.answer(wait)? {
                Answer::Over(sets) => return Ok(CopyStart::Finished(sets)),
                Answer::Copy(sets) => return Ok(CopyStart::Started(sets)),
                // Nobody here has data for COPY FROM STDIN.
                Answer::CopyIn => self.refuse_copy("COPY FROM STDIN is not supported", wait)?,
            }
        }
    }

    /// Reads result sets up to ReadyForQuery, or to the start of a COPY.
    fn answer(&mut self, wait: Wait<'_>) -> Result<Answer> {
        let expected = "the answer to a command";
        let (mut sets, mut set, mut open, mut bytes) = (Vec::new(), ResultSet::default(), false, 0);
        loop {
            let message = self.message(expected, wait)?.or_error()?;
            wait.check()?;
            let body = self.input.body(&message);
            // What is kept of it, with the memory that each value takes.
            let values = body.first_chunk().map_or(0, |count| usize::from(u16::from_be_bytes(*count)));
            bytes += match message.tag {
                b'T' | b'D' => body.len() + values * OVERHEAD + OVERHEAD,
                b'C' => body.len() + OVERHEAD,
                _ => 0,
            };
            if bytes > MAX_RESULTS {
                return Err(self.broken(Error::TooMuch { what: "rows", limit: MAX_RESULTS }));
            }
            match message.tag {
                b'T' => {
                    // walsender answers some commands without a CommandComplete between result sets.
                    if std::mem::replace(&mut open, true) {
                        sets.push(std::mem::take(&mut set));
                    }
                    match columns(body) {
                        Some(columns) => set = ResultSet { columns, ..ResultSet::default() },
                        None => return Err(self.broken(Error::Message { message: "RowDescription", field: "columns" })),
                    }
                }
                b'D' => match row(body) {
                    Some(row) => set.rows.push(row),
                    None => return Err(self.broken(Error::Message { message: "DataRow", field: "values" })),
                },
                b'C' => {
                    set.tag = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned();
                    open = false;
                    sets.push(std::mem::take(&mut set));
                }
                b'I' => {}
                b'Z' => {
                    if open {
                        sets.push(set);
                    }
                    self.state = State::Ready;
                    return Ok(Answer::Over(sets));
                }
                b'H' | b'W' => {
                    if open {
                        sets.push(set);
                    }
                    self.state = State::Copy { both: message.tag == b'W', server_done: false, client_done: false };
                    return Ok(Answer::Copy(sets));
                }
                b'G' => return Ok(Answer::CopyIn),
                b'E' => {
                    let error = self.failed(&message);
                    // ReadyForQuery follows at once, unless the error was fatal.
                    while self.state == State::Draining && wait.ended::<()>().is_none() {
                        match self.message(expected, wait) {
                            Ok(Waited::Done(message)) if message.tag == b'Z' => self.state = State::Ready,
                            Ok(Waited::Done(_)) => {}
                            Ok(Waited::Timeout | Waited::Interrupted) | Err(_) => break,
                        }
                    }
                    return Err(error);
                }
                found => return Err(self.broken(Error::Tag { expected, found })),
            }
        }
    }

    /// The error that the server sends instead of what was wanted.
    fn failed(&mut self, message: &Message) -> Error {
        let error = ServerError::parse(self.input.body(message));
        self.state = if error.is_fatal() { State::Broken } else { State::Draining };
        Error::Server(Box::new(error))
    }

    fn broken(&mut self, error: Error) -> Error {
        self.state = State::Broken;
        error
    }

    /// Sends what is in `out`.
    fn send(&mut self, wait: Wait<'_>) -> Result<()> {
        self.stream.write_all(&self.out, wait).inspect_err(|_| self.state = State::Broken)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !matches!(self.state, State::Broken | State::Starting) {
            // Terminate; a server that does not take it notices that we are gone.
            let wait = Wait::only(Duration::from_millis(200));
            let _ = self.stream.write_all(&[b'X', 0, 0, 0, 4], wait);
            self.stream.close();
        }
    }
}

/// What can cancel what a connection is doing. libpq: `PQcancel`.
#[derive(Clone)]
pub struct CancelHandle {
    address: Address,
    key: (i32, i32),
}

impl std::fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is a secret.
        f.debug_struct("CancelHandle").field("address", &self.address).field("process", &self.key.0).finish_non_exhaustive()
    }
}

impl CancelHandle {
    /// Asks the server to cancel; whether it did, the connection itself will tell. Not encrypted, as libpq up to 16 does.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn cancel(&self) -> Result<()> {
        let mut request = BytesMut::new();
        frontend::cancel_request(self.key.0, self.key.1, &mut request);
        let wait = Wait::only(Duration::from_secs(10));
        let mut stream = Stream::new(self.address.open(wait)?)?;
        stream.write_all(&request, wait)?;
        // The server closes the connection when it has done it.
        stream.read(&mut [0; 1], wait).map(drop)
    }
}

/// What could not be done where the data for [`Connection::copy_in`] cannot be read.
pub(crate) const READING: &str = "read the data to send";

/// How long a command may take where nothing says it.
const LIMIT: Duration = Duration::from_secs(60);

/// Notices that are kept, the newest, and their bytes.
const MAX_NOTICES: usize = 100;
const MAX_NOTICE_BYTES: usize = 1 << 20;

/// Bytes of all parameters that a server reports. Servers of today report some fifteen, of a few bytes.
const MAX_PARAMETERS: usize = 1 << 20;

/// Bytes of the answer to one command.
const MAX_RESULTS: usize = 96 << 20;

/// Bytes of memory that a value takes besides its own, about.
const OVERHEAD: usize = 56;

/// The columns of a RowDescription.
fn columns(body: &[u8]) -> Option<Vec<Column>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (name, after) = rest.split_at_checked(end)?;
        // NUL, table (4 bytes), attribute (2), type (4), size (2), modifier (4), format (2).
        let (field, after) = after.split_at_checked(19)?;
        let type_oid = u32::from_be_bytes(*field.get(7..11)?.first_chunk()?);
        columns.push(Column { name: String::from_utf8_lossy(name).into_owned(), type_oid });
        rest = after;
    }
    rest.is_empty().then_some(columns)
}

/// The values of a DataRow.
fn row(body: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (len, after) = rest.split_first_chunk::<4>()?;
        // -1 is NULL.
        let len = i32::from_be_bytes(*len);
        if len == -1 {
            values.push(None);
            rest = after;
            continue;
        }
        let (value, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
        values.push(Some(value.to_vec()));
        rest = after;
    }
    rest.is_empty().then_some(values)
}
