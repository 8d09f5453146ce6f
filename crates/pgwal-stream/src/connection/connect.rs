//! Getting a connection: hosts and their addresses in order, TLS, logging in, the kind of server. libpq: `PQconnectPoll`, fe-connect.c.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};

use super::auth::{Login, Progress, Step};
use super::error::{Attempt, AuthError, ConnectError, Error, Result, ServerError};
use super::stream::{Socket, Stream, Wait};
use super::{Connection, Mode, State, tls};
use crate::conninfo::{self, ChannelBindingMode, Config, Host, Keepalive, Place, SslMode, TargetSessionAttrs};

/// Tries the hosts of `config` until one will do.
pub(super) fn connect(config: &Config, mode: Mode, stop: Option<Arc<AtomicBool>>) -> std::result::Result<Connection, ConnectError> {
    let mut failed = ConnectError { warnings: Vec::new(), attempts: Vec::new() };
    let mut hosts: Vec<&Host> = config.hosts.iter().collect();
    if config.random_order {
        shuffle(&mut hosts);
    }
    // prefer-standby looks for a standby first, and then takes any.
    let wanted: &[TargetSessionAttrs] = match config.target_session_attrs {
        TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        ref other => std::slice::from_ref(other),
    };
    for &wanted in wanted {
        for host in &hosts {
            let connector = Connector { config, mode, host, stop: &stop, wanted };
            match connector.host(&mut failed) {
                Ok(mut connection) => {
                    connection.warnings = failed.warnings;
                    return Ok(connection);
                }
                Err(Next::Host) => {}
                Err(Next::Address | Next::Nothing) => return Err(failed),
            }
        }
    }
    Err(failed)
}

/// What is tried after a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next address of the host.
    Address,
    /// The next host.
    Host,
    /// Nothing: another server would not like us any better.
    Nothing,
}

/// A failure, and what to try after it.
struct Failed {
    error: Error,
    next: Next,
    /// Whether the same without TLS, or with it, may work.
    other_tls: bool,
    /// The server has asked for a password.
    password_asked: bool,
}

impl Failed {
    fn new(error: Error, next: Next) -> Failed {
        Failed { error, next, other_tls: false, password_asked: false }
    }
}

/// An address of a host.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(String),
}

impl Address {
    pub(super) fn open(&self, wait: Wait<'_>) -> Result<Socket> {
        match self {
            Address::Tcp(address) => Socket::tcp(address, wait),
            Address::Unix(path) => Socket::unix(path, wait),
        }
    }
}

struct Connector<'a> {
    config: &'a Config,
    mode: Mode,
    host: &'a Host,
    stop: &'a Option<Arc<AtomicBool>>,
    wanted: TargetSessionAttrs,
}

impl Connector<'_> {
    /// Tries all addresses of the host.
    fn host(&self, failed: &mut ConnectError) -> std::result::Result<Connection, Next> {
        let mut addresses = match self.addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                let next = if matches!(error, Error::Interrupted) { Next::Nothing } else { Next::Host };
                failed.attempts.push(Attempt { server: self.server(None), error, passfile: None });
                return Err(next);
            }
        };
        if self.config.random_order {
            shuffle(&mut addresses);
        }
        let (password, passfile) = self.password(failed);
        for address in &addresses {
            // With TLS first, or without; then, where sslmode allows and it may help, the other way round.
            let unix = matches!(address, Address::Unix(_));
            let order: &[bool] = match self.config.tls.mode {
                _ if unix => &[false],
                SslMode::Disable => &[false],
                SslMode::Allow => &[false, true],
                SslMode::Prefer => &[true, false],
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[true],
            };
            for (&with_tls, last) in order.iter().zip((1..=order.len()).map(|nth| nth == order.len())) {
                match self.attempt(address, with_tls, password.as_deref()) {
                    Ok(connection) => return Ok(connection),
                    Err(Failed { error, next, other_tls, password_asked }) => {
                        let refused = matches!(&error, Error::Server(error) if error.code == "28P01");
                        let passfile = passfile.clone().filter(|_| password_asked && refused);
                        failed.attempts.push(Attempt { server: self.server(Some(address)), error, passfile });
                        if other_tls && !last {
                            continue;
                        }
                        match next {
                            Next::Address => break,
                            other => return Err(other),
                        }
                    }
                }
            }
        }
        Err(Next::Host)
    }

    fn addresses(&self) -> Result<Vec<Address>> {
        match &self.host.place {
            Place::Socket(folder) => Ok(vec![Address::Unix(socket_path(folder, self.host.port))]),
            Place::Address { address, .. } => Ok(vec![Address::Tcp(SocketAddr::new(*address, self.host.port))]),
            Place::Name(name) => {
                let until = self.config.connect_timeout.and_then(|limit| Instant::now().checked_add(limit));
                let found = resolve(name, self.host.port, Wait::new(until, self.stop.as_deref()))?;
                let found: Vec<Address> = found.into_iter().map(Address::Tcp).collect();
                if found.is_empty() { Err(Error::Resolve { name: name.clone(), error: None }) } else { Ok(found) }
            }
        }
    }

    /// The server in libpq's words.
    fn server(&self, address: Option<&Address>) -> String {
        match address {
            Some(Address::Unix(path)) => format!("on socket \"{path}\""),
            Some(Address::Tcp(address)) if self.host.place.name() != address.ip().to_string() => {
                format!("at \"{}\" ({}), port {}", self.host.place.name(), address.ip(), self.host.port)
            }
            _ => format!("at \"{}\", port {}", self.host.place.name(), self.host.port),
        }
    }

    /// The password, and the file that it is from, if it is from one.
    fn password(&self, failed: &mut ConnectError) -> (Option<String>, Option<String>) {
        if let Some(password) = &self.config.password {
            return (Some(password.0.clone()), None);
        }
        let Some(path) = &self.config.passfile else { return (None, None) };
        let name = self.host.place.name();
        let found = conninfo::password(path, Some(&name), self.host.port, self.dbname(), &self.config.user);
        if let Some(warning) = found.warning.filter(|warning| !failed.warnings.contains(warning)) {
            failed.warnings.push(warning);
        }
        (found.password.filter(|password| !password.is_empty()), Some(path.display().to_string()))
    }

    /// The database of the startup message, and of password files.
    fn dbname(&self) -> &str {
        if self.mode == Mode::Replication { "replication" } else { &self.config.dbname }
    }

    fn attempt(&self, address: &Address, with_tls: bool, password: Option<&str>) -> std::result::Result<Connection, Failed> {
        let until = self.config.connect_timeout.map(|limit| Instant::now() + limit);
        let wait = Wait::new(until, self.stop.as_deref());
        let further = |error| match error {
            Error::Interrupted => Failed::new(error, Next::Nothing),
            error => Failed::new(error, Next::Address),
        };
        let late = self.config.late.as_ref();
        // libpq sets the keepalives before it connects, and reads connect_timeout while TCP connects.
        if let (Some(late), Address::Tcp(_)) = (late, address) {
            let next = if late.is_of("connect_timeout") { Next::Nothing } else { Next::Address };
            return Err(Failed::new(Error::Setting(late.clone()), next));
        }
        let mut stream = self.open(address, wait).map_err(further)?;
        if let Some(late) = late.filter(|late| late.is_of("connect_timeout")) {
            return Err(Failed::new(Error::Setting(late.clone()), Next::Nothing));
        }
        if with_tls {
            stream = self.start_tls(stream, wait)?;
        }
        // A server without TLS has gone on without: the other way would be the same one, and a wrong password count twice.
        let is_as_asked = stream.is_tls() == with_tls;
        let name = self.server(Some(address));
        let mut connection = Connection::new(stream, self.stop.clone(), address.clone(), name, self.config.connect_timeout);
        let mut progress = Progress::default();
        match self.log_in(&mut connection, &mut progress, password, wait) {
            Ok(()) => {}
            Err(error) => {
                let next = match &error {
                    Error::Timeout => Next::Address,
                    // It is starting up or shutting down; C: ERRCODE_CANNOT_CONNECT_NOW.
                    Error::Server(error) if error.code == "57P03" => Next::Host,
                    _ => Next::Nothing,
                };
                let other_tls = is_as_asked && matches!(error, Error::Server(_)) && next == Next::Nothing;
                connection.state = State::Broken;
                return Err(Failed { error, next, other_tls, password_asked: progress.password_asked });
            }
        }
        self.kind(&mut connection, wait).map_err(|error| match error {
            Error::Interrupted => Failed::new(error, Next::Nothing),
            error => Failed::new(error, Next::Host),
        })?;
        Ok(connection)
    }

    fn open(&self, address: &Address, wait: Wait<'_>) -> Result<Stream> {
        let socket = address.open(wait)?;
        match &socket {
            Socket::Tcp(tcp) => keep_alive(&SockRef::from(tcp), &self.config.keepalive)
                .map_err(|error| Error::Io { doing: "set the keepalives of the socket", error })?,
            Socket::Unix(unix) => {
                if let Some(expected) = &self.config.require_peer {
                    check_peer(unix, expected)?;
                }
            }
        }
        Stream::new(socket)
    }

    fn start_tls(&self, mut stream: Stream, wait: Wait<'_>) -> std::result::Result<Stream, Failed> {
        let hard = |error| match error {
            Error::Timeout => Failed::new(error, Next::Address),
            error => Failed::new(error, Next::Nothing),
        };
        // Trouble with TLS itself: without it all may be well.
        let soft = |error| match error {
            Error::Timeout | Error::Interrupted => hard(error),
            error => Failed { other_tls: true, ..Failed::new(error, Next::Nothing) },
        };
        // Files that cannot be used are such trouble, too, as they are to libpq.
        let client = tls::client(&self.config.tls, wait).map_err(soft)?;
        if !self.config.tls.direct {
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            stream.write_all(&request, wait).map_err(hard)?;
            // One byte and no more: what comes after it before TLS is on does not come from the server.
            let mut answer = [0; 1];
            let [answer] = match stream.read(&mut answer, wait).and_then(|waited| waited.or_error()).map_err(hard)? {
                0 => return Err(hard(Error::Closed { expected: "an answer to SSLRequest", partial: 0 })),
                _ => answer,
            };
            match answer {
                b'S' => {}
                b'N' if self.config.tls.mode >= SslMode::Require => return Err(hard(Error::TlsRefused)),
                // libpq goes on with the same socket; so does this.
                b'N' => return Ok(stream),
                // A server that cannot fork, for one. What it says is not to be believed: nobody has shown who it is.
                b'E' => return Err(soft(Error::Server(Box::new(early_error())))),
                found => return Err(hard(Error::Tag { expected: "an answer to SSLRequest, \"S\" or \"N\",", found })),
            }
        }
        let host = self.host.place.name();
        let (name, usable) = tls::server_name(&host);
        if !usable && self.config.tls.mode == SslMode::VerifyFull {
            let problem = format!("\"{host}\" is no name that a certificate could have");
            return Err(hard(Error::TlsFile { what: "host name", path: String::new(), problem }));
        }
        let stream = stream.start_tls(client, name, wait).map_err(soft)?;
        if self.config.tls.direct && !stream.is_alpn_postgres() {
            let error = rustls::Error::General("direct SSL connection was established without ALPN protocol negotiation".to_owned());
            return Err(hard(Error::Tls(error)));
        }
        Ok(stream)
    }

    /// From the startup message to ReadyForQuery.
    fn log_in(&self, connection: &mut Connection, progress: &mut Progress, password: Option<&str>, wait: Wait<'_>) -> Result<()> {
        let config = self.config;
        if config.channel_binding == ChannelBindingMode::Require && !connection.stream.is_tls() {
            return Err(Error::Auth(AuthError::ChannelBinding { reason: "SSL is not in use" }));
        }
        let mut parameters = vec![("user", config.user.as_str()), ("database", self.dbname())];
        match self.mode {
            Mode::Replication => parameters.push(("replication", "true")),
            Mode::ReplicationDatabase => parameters.push(("replication", "database")),
            Mode::Ordinary => {}
        }
        let optional =
            [("options", &config.options), ("application_name", &config.application_name), ("client_encoding", &config.client_encoding)];
        parameters.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out)
            .map_err(|_| Error::Message { message: "StartupMessage", field: "text without NUL" })?;
        connection.stream.write_all(&out, wait)?;
        let login = Login {
            user: &config.user,
            password,
            channel_binding: config.channel_binding,
            require_auth: config.require_auth.as_deref(),
            tls: connection.stream.is_tls(),
            end_point: connection.stream.peer_certificate().and_then(tls::end_point),
        };
        loop {
            let message = connection.message("an authentication request", wait)?.or_error()?;
            wait.check()?;
            let body = connection.input.body(&message);
            match message.tag {
                b'R' => {
                    out.clear();
                    match login.step(progress, body, &mut out)? {
                        Step::Done => break,
                        Step::Answer => connection.stream.write_all(&out, wait)?,
                    }
                }
                b'E' => return Err(Error::Server(Box::new(ServerError::parse(body)))),
                // NegotiateProtocolVersion: we speak 3.0 without options, so there is nothing to negotiate.
                b'v' => return Err(Error::Tag { expected: "an authentication request", found: b'v' }),
                found => return Err(Error::Tag { expected: "an authentication request", found }),
            }
        }
        connection.input.limit = super::input::MAX_MESSAGE;
        loop {
            let message = connection.message("ReadyForQuery", wait)?.or_error()?;
            wait.check()?;
            let body = connection.input.body(&message);
            match message.tag {
                b'Z' => break,
                b'E' => return Err(Error::Server(Box::new(ServerError::parse(body)))),
                b'K' => {
                    let key = body.split_first_chunk::<4>().and_then(|(process, key)| Some((*process, *key.first_chunk::<4>()?)));
                    let (process, key) = key.ok_or(Error::Message { message: "BackendKeyData", field: "key" })?;
                    connection.key = Some((i32::from_be_bytes(process), i32::from_be_bytes(key)));
                }
                found => return Err(Error::Tag { expected: "ReadyForQuery", found }),
            }
        }
        connection.state = State::Ready;
        Ok(())
    }

    /// Whether the server is of the kind that is wanted. libpq: CONNECTION_CHECK_TARGET.
    fn kind(&self, connection: &mut Connection, wait: Wait<'_>) -> Result<()> {
        use TargetSessionAttrs::{Any, Primary, ReadOnly, ReadWrite, Standby};
        let wrong = |found| Err(Error::SessionAttrs { found });
        match self.wanted {
            ReadWrite | ReadOnly => {
                let read_only = match (connection.parameter("default_transaction_read_only"), connection.parameter("in_hot_standby")) {
                    (Some(read_only), Some(standby)) => read_only == "on" || standby == "on",
                    _ => ask(connection, "SHOW transaction_read_only", wait)? == "on",
                };
                match self.wanted {
                    ReadWrite if read_only => wrong("session is read-only"),
                    ReadOnly if !read_only => wrong("session is not read-only"),
                    _ => Ok(()),
                }
            }
            Primary | Standby => {
                let standby = match connection.parameter("in_hot_standby") {
                    Some(standby) => standby == "on",
                    None if self.mode == Mode::Replication => {
                        return wrong("servers before 14 do not say on a replication connection whether they are in recovery");
                    }
                    None => ask(connection, "SELECT pg_catalog.pg_is_in_recovery()", wait)? == "t",
                };
                match self.wanted {
                    Primary if standby => wrong("server is in hot standby mode"),
                    Standby if !standby => wrong("server is not in hot standby mode"),
                    _ => Ok(()),
                }
            }
            Any | TargetSessionAttrs::PreferStandby => Ok(()),
        }
    }
}

/// The addresses of a host. The system's resolver cannot be stopped, so a thread of its own waits for it.
fn resolve(name: &str, port: u16, wait: Wait<'_>) -> Result<Vec<SocketAddr>> {
    let (sender, receiver) = mpsc::channel();
    let wanted = (name.to_owned(), port);
    let ask = move || {
        let found = (wanted.0.as_str(), wanted.1).to_socket_addrs().map(Iterator::collect);
        // Nobody may want it any more.
        let _ = sender.send(found);
    };
    let failed = |error| Error::Resolve { name: name.to_owned(), error: Some(error) };
    std::thread::Builder::new().name("resolve".to_owned()).spawn(ask).map_err(failed)?;
    loop {
        match receiver.recv_timeout(wait.slice()) {
            Ok(found) => return found.map_err(failed),
            Err(RecvTimeoutError::Timeout) => wait.check()?,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Resolve { name: name.to_owned(), error: None }),
        }
    }
}

/// The only field of the only row.
fn ask(connection: &mut Connection, sql: &str, wait: Wait<'_>) -> Result<String> {
    let sets = connection.query_waiting(sql, wait)?;
    let text = sets.first().and_then(|set| set.text(0, 0)).map(str::to_owned);
    text.ok_or(Error::Message { message: "DataRow", field: "value" })
}

/// What an error before TLS amounts to.
fn early_error() -> ServerError {
    ServerError {
        severity: "FATAL".to_owned(),
        message: "server sent an error response during SSL exchange".to_owned(),
        ..ServerError::default()
    }
}

/// C: `UNIXSOCK_PATH`.
fn socket_path(folder: &Path, port: u16) -> String {
    format!("{}/.s.PGSQL.{port}", folder.display())
}

fn keep_alive(socket: &SockRef<'_>, keepalive: &Keepalive) -> io::Result<()> {
    socket.set_tcp_user_timeout(keepalive.user_timeout)?;
    if !keepalive.enabled {
        return Ok(());
    }
    socket.set_keepalive(true)?;
    let mut wanted = TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        wanted = wanted.with_time(idle);
    }
    if let Some(interval) = keepalive.interval {
        wanted = wanted.with_interval(interval);
    }
    if let Some(count) = keepalive.count {
        wanted = wanted.with_retries(count);
    }
    socket.set_tcp_keepalive(&wanted)
}

/// `requirepeer`. libpq: `PQconnectPoll`, getpeereid.
fn check_peer(socket: &UnixStream, expected: &str) -> Result<()> {
    let doing = "find out who the server runs as";
    let credentials = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials);
    let uid = credentials.map_err(|error| Error::Io { doing, error: error.into() })?.uid();
    let account = nix::unistd::User::from_uid(uid.into()).map_err(|error| Error::Io { doing, error: error.into() })?;
    let found = account.map_or_else(|| uid.to_string(), |account| account.name);
    if found == expected { Ok(()) } else { Err(Error::Peer { expected: expected.to_owned(), found }) }
}

/// Puts into random order; that it spreads load is enough.
fn shuffle<T>(list: &mut [T]) {
    for at in (1..list.len()).rev() {
        let random = usize::try_from(RandomState::new().build_hasher().finish() >> 1).unwrap_or(0);
        list.swap(at, random % (at + 1));
    }
}
