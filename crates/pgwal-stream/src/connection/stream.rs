//! Bytes to and from a server, with time limits, plain or in TLS.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use pgwal::aligned;
use rustls::ClientConnection;
use socket2::{Domain, SockAddr, Type};

use super::error::{Error, Result};

/// Bytes of the path of a socket. C: `UNIXSOCK_PATH_BUFLEN`, less its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// How long a wait lasts before the stop flag is looked at again.
const SLICE: Duration = Duration::from_millis(200);

/// How long a wait that ends something goes on after the stop flag is set.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// How long to wait.
#[derive(Clone, Copy, Default)]
pub(super) struct Wait<'a> {
    /// Until then; `None`: as long as it takes.
    pub(super) until: Option<Instant>,
    /// Until this is set.
    pub(super) stop: Option<&'a AtomicBool>,
    /// With this, the wait goes on for [`GRACE`] after `stop` is set. The cell holds the time at which that was first seen.
    pub(super) grace: Option<&'a Cell<Option<Instant>>>,
}

impl<'a> Wait<'a> {
    /// Until then, or until `stop` is set.
    pub(super) fn new(until: Option<Instant>, stop: Option<&'a AtomicBool>) -> Wait<'a> {
        Wait { until, stop, grace: None }
    }

    /// As long as that.
    pub(super) fn only(limit: Duration) -> Wait<'a> {
        Wait::new(Instant::now().checked_add(limit), None)
    }

    fn stopped(&self) -> bool {
        if !self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return false;
        }
        let Some(seen) = self.grace else { return true };
        let since = seen.get().unwrap_or_else(Instant::now);
        seen.set(Some(since));
        since.elapsed() >= GRACE
    }

    /// How long the next system call may take; zero: the time is over.
    pub(super) fn slice(&self) -> Duration {
        let slice = self.until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()).min(SLICE));
        match self.grace.and_then(Cell::get) {
            // No longer than the grace lasts, and yet not zero, which would mean that the time is over.
            Some(since) => slice.min(GRACE.saturating_sub(since.elapsed()).max(Duration::from_millis(1))),
            None => slice,
        }
    }

    /// How it has ended; `None`: it goes on. To be asked wherever something comes again and again, as a server that never lets one wait
    /// must not keep one for ever.
    pub(super) fn ended<T>(&self) -> Option<Waited<T>> {
        match () {
            () if self.stopped() => Some(Waited::Interrupted),
            () if self.slice().is_zero() => Some(Waited::Timeout),
            () => None,
        }
    }

    /// The same as an error.
    pub(super) fn check(&self) -> Result<()> {
        self.ended().map_or(Ok(()), Waited::or_error)
    }
}

/// What a wait ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited<T> {
    /// It came.
    Done(T),
    /// The time is over.
    Timeout,
    /// The flag is set.
    Interrupted,
}

impl<T> Waited<T> {
    /// The value, where anything else is an error.
    pub(super) fn or_error(self) -> Result<T> {
        match self {
            Waited::Done(value) => Ok(value),
            Waited::Timeout => Err(Error::Timeout),
            Waited::Interrupted => Err(Error::Interrupted),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Connects to a TCP address.
    pub(super) fn tcp(address: &SocketAddr, wait: Wait<'_>) -> Result<Socket> {
        let failed = |error| Error::Io { doing: "connect", error };
        let socket = socket2::Socket::new(Domain::for_address(*address), Type::STREAM, None).map_err(failed)?;
        // std's connect cannot be stopped, and without a limit it may take minutes.
        socket.set_nonblocking(true).map_err(failed)?;
        match socket.connect(&(*address).into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {
                loop {
                    let slice = u16::try_from(wait.slice().as_millis()).unwrap_or(u16::MAX);
                    let mut poll = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                    match nix::poll::poll(&mut poll, PollTimeout::from(slice)) {
                        Ok(0) | Err(Errno::EINTR) => wait.check()?,
                        Ok(_) => break,
                        Err(error) => return Err(failed(error.into())),
                    }
                }
                if let Some(error) = socket.take_error().map_err(failed)? {
                    return Err(failed(error));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        socket.set_nonblocking(false).and_then(|()| socket.set_tcp_nodelay(true)).map_err(failed)?;
        Ok(Socket::Tcp(socket.into()))
    }

    /// Connects to a Unix socket; `@` in front of the path is for the abstract namespace.
    pub(super) fn unix(path: &str, wait: Wait<'_>) -> Result<Socket> {
        let failed = |error| Error::Io { doing: "connect", error };
        if path.len() > MAX_SOCKET_PATH {
            return Err(Error::SocketPath { path: path.to_owned(), limit: MAX_SOCKET_PATH });
        }
        let address = match path.strip_prefix('@') {
            Some(name) => SockAddr::unix(format!("\0{name}")),
            None => SockAddr::unix(path),
        };
        let address = address.map_err(failed)?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        loop {
            match socket.connect(&address) {
                Ok(()) => break,
                // The server takes no connections now, and has no room for more that wait; there is nothing to poll.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait.check()?;
                    std::thread::sleep(wait.slice().min(Duration::from_millis(50)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        socket.set_nonblocking(false).map_err(failed)?;
        Ok(Socket::Unix(socket.into()))
    }

    fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.set_read_timeout(Some(limit)),
            Socket::Unix(socket) => socket.set_read_timeout(Some(limit)),
        }
    }

    fn set_write_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.set_write_timeout(Some(limit)),
            Socket::Unix(socket) => socket.set_write_timeout(Some(limit)),
        }
    }
}

/// A socket, and TLS on it where it is on.
#[derive(Debug)]
pub(super) struct Stream {
    channel: Channel,
    /// The read timeout that the socket has, so that setting it again costs nothing.
    timeout: Duration,
}

#[derive(Debug)]
enum Channel {
    Plain(Socket),
    Tls(Box<TlsChannel>),
}

#[derive(Debug)]
struct TlsChannel {
    session: ClientConnection,
    /// Several TLS records of 16 kB are read at once.
    socket: aligned::Reader<Socket>,
}

impl Stream {
    pub(super) fn new(socket: Socket) -> Result<Stream> {
        let limited = socket.set_read_timeout(SLICE).and_then(|()| socket.set_write_timeout(SLICE));
        limited.map_err(|error| Error::Io { doing: "set the time limits of the socket", error })?;
        Ok(Stream { channel: Channel::Plain(socket), timeout: SLICE })
    }

    /// Turns TLS on: does the handshake.
    pub(super) fn start_tls(
        self,
        config: Arc<rustls::ClientConfig>,
        name: rustls::pki_types::ServerName<'static>,
        wait: Wait<'_>,
    ) -> Result<Stream> {
        let Channel::Plain(socket) = self.channel else {
            return Err(Error::State { wanted: "start TLS", state: "it is on" });
        };
        let session = ClientConnection::new(config, name).map_err(Error::Tls)?;
        let channel = TlsChannel { session, socket: aligned::Reader::new(socket) };
        let mut stream = Stream { channel: Channel::Tls(Box::new(channel)), timeout: self.timeout };
        loop {
            stream.flush_tls(wait)?;
            let Channel::Tls(tls) = &mut stream.channel else { return Ok(stream) };
            if !tls.session.is_handshaking() {
                return Ok(stream);
            }
            wait.check()?;
            let handshake = stream.wait(wait, |stream| match &mut stream.channel {
                Channel::Tls(tls) => tls.receive(),
                Channel::Plain(_) => Ok(Ok(0)),
            });
            match handshake {
                Ok(waited) => {
                    if waited.or_error()? == 0 {
                        return Err(Error::Closed { expected: "a TLS handshake", partial: 0 });
                    }
                }
                Err(error) => {
                    // The alert that tells the server why.
                    let _ = stream.flush_tls(Wait { until: Some(Instant::now() + SLICE), ..wait });
                    return Err(error);
                }
            }
        }
    }

    /// The session's certificates of the server, its own first; `None` without TLS.
    pub(super) fn peer_certificate(&self) -> Option<&[u8]> {
        match &self.channel {
            Channel::Plain(_) => None,
            Channel::Tls(tls) => tls.session.peer_certificates()?.first().map(AsRef::as_ref),
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.channel, Channel::Tls(_))
    }

    /// The name of the TLS version, as `TLSv1_3`.
    pub(super) fn tls_version(&self) -> Option<String> {
        match &self.channel {
            Channel::Plain(_) => None,
            Channel::Tls(tls) => tls.session.protocol_version().map(|version| format!("{version:?}")),
        }
    }

    pub(super) fn is_alpn_postgres(&self) -> bool {
        matches!(&self.channel, Channel::Tls(tls) if tls.session.alpn_protocol() == Some(b"postgresql"))
    }

    /// Whether there is something to read now, if only of TLS itself, or the end.
    pub(super) fn has_input(&self) -> bool {
        let socket = match self.socket() {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        };
        nix::poll::poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Waits for bytes; zero: the server has closed the connection.
    pub(super) fn read(&mut self, buffer: &mut [u8], wait: Wait<'_>) -> Result<Waited<usize>> {
        self.wait(wait, |stream| match &mut stream.channel {
            Channel::Plain(socket) => Ok(socket.read(buffer)),
            Channel::Tls(tls) => {
                if let Some(read) = tls.decrypted(buffer) {
                    return Ok(read);
                }
                match tls.receive()? {
                    // A part of a TLS record is nothing to read yet.
                    Ok(_) => Ok(tls.decrypted(buffer).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))),
                    Err(error) => Ok(Err(error)),
                }
            }
        })
    }

    /// Tries again and again until it works, the time is over, or the flag is set; tries once in any case.
    fn wait(&mut self, wait: Wait<'_>, mut attempt: impl FnMut(&mut Stream) -> Result<io::Result<usize>>) -> Result<Waited<usize>> {
        loop {
            if wait.stopped() {
                return Ok(Waited::Interrupted);
            }
            let slice = wait.slice();
            // Zero would be no limit at all.
            let limit = slice.max(Duration::from_millis(1));
            if limit != self.timeout {
                self.socket().set_read_timeout(limit).map_err(|error| Error::Io { doing: "set a time limit", error })?;
                self.timeout = limit;
            }
            match attempt(self)? {
                Ok(count) => return Ok(Waited::Done(count)),
                Err(error) if again(&error) && slice.is_zero() => return Ok(Waited::Timeout),
                Err(error) if again(&error) => {}
                Err(error) => return Err(Error::Io { doing: "receive data from server", error }),
            }
        }
    }

    /// Writes all of it.
    pub(super) fn write_all(&mut self, bytes: &[u8], wait: Wait<'_>) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match &mut self.channel {
                Channel::Plain(socket) => socket.write(rest),
                Channel::Tls(tls) => tls.session.writer().write(rest),
            };
            match written {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if again(&error) => {}
                Err(error) => return Err(Error::Io { doing: "send data to server", error }),
            }
            self.flush_tls(wait)?;
            if !rest.is_empty() {
                wait.check()?;
            }
        }
        Ok(())
    }

    /// Sends what TLS has to say.
    fn flush_tls(&mut self, wait: Wait<'_>) -> Result<()> {
        let Channel::Tls(tls) = &mut self.channel else { return Ok(()) };
        while tls.session.wants_write() {
            match tls.session.write_tls(tls.socket.get_mut()) {
                Ok(_) => {}
                Err(error) if again(&error) => {}
                Err(error) => return Err(Error::Io { doing: "send data to server", error }),
            }
            if tls.session.wants_write() {
                wait.check()?;
            }
        }
        Ok(())
    }

    /// Says farewell, if TLS is on.
    pub(super) fn close(&mut self) {
        if let Channel::Tls(tls) = &mut self.channel {
            tls.session.send_close_notify();
        }
        let _ = self.flush_tls(Wait::only(SLICE));
    }

    pub(super) fn socket(&self) -> &Socket {
        match &self.channel {
            Channel::Plain(socket) => socket,
            Channel::Tls(tls) => tls.socket.get_ref(),
        }
    }
}

impl TlsChannel {
    /// What has been decrypted; zero: the server has closed the connection; `None`: nothing has.
    fn decrypted(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        match self.session.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // Without a farewell; whoever waits for a message knows whether that was the end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(Ok(0)),
            read => Some(read),
        }
    }

    /// Takes ciphertext from the socket and answers it; the count is that of its bytes, zero at the end.
    fn receive(&mut self) -> Result<io::Result<usize>> {
        let count = match self.session.read_tls(&mut self.socket) {
            Ok(count) => count,
            Err(error) => return Ok(Err(error)),
        };
        self.session.process_new_packets().map_err(Error::Tls)?;
        // Such as a new key that the server asked for; what does not go now goes with the next message.
        if self.session.wants_write() && !self.session.is_handshaking() {
            let _ = self.session.write_tls(self.socket.get_mut());
        }
        Ok(Ok(count))
    }
}

/// Whether a call only ran out of its slice of time.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
