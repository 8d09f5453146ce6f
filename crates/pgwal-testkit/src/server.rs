//! Real PostgreSQL servers, started for a test and gone with it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// The programs of one installed PostgreSQL.
#[derive(Clone, Debug)]
pub struct Postgres {
    bin: PathBuf,
    /// Its major version.
    pub major: u8,
}

impl Postgres {
    /// Finds an installation with a server and pg_waldump: in `PATH`, then where Debian puts them; of `major`, or the newest.
    pub fn find(major: Option<u8>) -> Option<Postgres> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = installed(std::env::split_paths(&path), &["pg_waldump"]);
        found.into_iter().rfind(|postgres| major.is_none_or(|major| major == postgres.major))
    }

    /// The server of every major that is found, with or without its other programs: in the folders of `PGWAL_TEST_SERVERS`, then in
    /// those of [`Postgres::find`].
    pub fn all() -> Vec<Postgres> {
        let list = |name| std::env::var_os(name).unwrap_or_default();
        let (servers, path) = (list("PGWAL_TEST_SERVERS"), list("PATH"));
        let mut found = installed(std::env::split_paths(&servers).chain(std::env::split_paths(&path)), &[]);
        found.dedup_by_key(|postgres| postgres.major);
        found
    }

    /// As [`Postgres::find`]; where there is none, says so by the test's name, and fails where `CI` is `true`.
    ///
    /// # Panics
    /// None is found and `CI` is `true`: a check that never runs must not look like one that passes.
    pub fn find_or_skip(major: Option<u8>, test: &str) -> Option<Postgres> {
        let found = Postgres::find(major);
        if found.is_none() {
            let wanted = major.map_or_else(|| "PostgreSQL".to_owned(), |major| format!("PostgreSQL {major}"));
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: no {wanted} found");
            eprintln!("SKIPPED {test}: no {wanted} found in PATH or /usr/lib/postgresql");
        }
        found
    }

    /// Path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// As [`Postgres::program`]; of another installation, where this one has only the server.
    fn program_somewhere(&self, name: &str) -> PathBuf {
        let own = self.program(name);
        if own.exists() { own } else { Postgres::find(None).map_or(own, |other| other.program(name)) }
    }

    /// A command that runs one of its programs. A server refuses to run as root, so root runs it as `postgres`.
    ///
    /// Messages and times are the same whatever the locale, the time zone and the PG* variables of whoever runs the tests.
    fn command(&self, name: &str) -> Command {
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(self.program_somewhere(name));
            command
        } else {
            Command::new(self.program_somewhere(name))
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command
    }

    /// Makes a cluster in a new directory and starts a server on it, reached through a socket in that directory only.
    ///
    /// # Errors
    /// What the programs say.
    pub fn start(&self, initdb: &[&str], settings: &str) -> io::Result<Server> {
        self.start_new(None, initdb, settings)
    }

    /// As [`Postgres::start`], and the server listens on a free port of 127.0.0.1, too: [`Server::port`].
    ///
    /// # Errors
    /// What the programs say.
    pub fn start_tcp(&self, initdb: &[&str], settings: &str) -> io::Result<Server> {
        let held = HeldPort::new()?;
        let settings = format!("listen_addresses = '127.0.0.1'\nport = {}\n{settings}", held.port());
        self.start_new(Some(held), initdb, &settings)
    }

    fn start_new(&self, held: Option<HeldPort>, initdb: &[&str], settings: &str) -> io::Result<Server> {
        let dir = tempfile::Builder::new().prefix("pgwal-server-").tempdir()?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()))?;
        }
        let data = dir.path().join("data");
        run(self.command("initdb").arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"]).args(initdb))?;
        let socket = dir.path().display();
        let settings = format!("listen_addresses = ''\nunix_socket_directories = '{socket}'\nfsync = off\n{settings}\n");
        let conf = data.join("postgresql.conf");
        fs::write(&conf, fs::read_to_string(&conf)? + &settings)?;
        let port = held.as_ref().map_or(DEFAULT_PORT, HeldPort::port);
        let server = Server { postgres: self.clone(), dir, data, port, _held: held };
        server.control("start")?;
        Ok(server)
    }
}

impl Postgres {
    /// Starts a server on a copy of the base backup in `backup`, in archive recovery: 12 and later.
    ///
    /// # Errors
    /// What the programs say; also where recovery fails before anybody can connect.
    pub fn recover(&self, backup: &Path, settings: &str) -> io::Result<Server> {
        self.start_copy(backup, Some("recovery.signal"), settings)
    }

    /// Starts a server on a copy of the base backup in `backup`, as what it is: a standby, if it was made one.
    ///
    /// # Errors
    /// As for [`Postgres::recover`].
    pub fn start_on(&self, backup: &Path, settings: &str) -> io::Result<Server> {
        self.start_copy(backup, None, settings)
    }

    /// Has a server recover from a copy of the base backup in `backup`, and stops it. The settings must not let it open before recovery is
    /// over (`hot_standby = off`); before 12, those of recovery go to recovery.conf.
    ///
    /// # Errors
    /// The copy cannot be made.
    ///
    /// # Panics
    /// Recovery does not end within [`PATIENCE`].
    pub fn recovery(&self, backup: &Path, settings: &str) -> io::Result<Recovery> {
        let dir = tempfile::Builder::new().prefix("pgwal-server-").tempdir()?;
        let data = dir.path().join("data");
        run(Command::new("cp").arg("-a").arg(backup).arg(&data))?;
        // A backup of a standby would make another standby, which waits for more WAL.
        let _ = fs::remove_file(data.join("standby.signal"));
        let is_of_recovery = |line: &&str| line.starts_with("recovery_") || line.starts_with("restore_command");
        let (own, settings): (Vec<&str>, Vec<&str>) = settings.lines().partition(|line| self.major < 12 && is_of_recovery(line));
        let settings = settings.join("\n");
        match self.major {
            0..=11 => fs::write(data.join("recovery.conf"), own.join("\n") + "\n")?,
            _ => fs::write(data.join("recovery.signal"), "")?,
        }
        let conf = data.join("postgresql.conf");
        let socket = dir.path().display();
        fs::write(&conf, fs::read_to_string(&conf)? + &format!("unix_socket_directories = '{socket}'\nfsync = off\n{settings}\n"))?;
        give(dir.path())?;
        let server = Server { postgres: self.clone(), dir, data, port: DEFAULT_PORT, _held: None };
        // pg_ctl counts a server that recovers and takes no connections as started.
        let mut opened = server.control("start").is_ok();
        if opened {
            wait_until("the end of recovery", || {
                let log = server.log().unwrap_or_default();
                opened = log.contains("database system is ready to accept connections");
                opened || log.contains("database system is shut down")
            });
        }
        let last_commit = "SELECT x.\"timestamp\" AT TIME ZONE 'UTC' FROM pg_last_committed_xact() x";
        let last_commit = if opened { server.sql(last_commit).ok() } else { None };
        Ok(Recovery { opened, log: server.log()?, last_commit: last_commit.filter(|time| !time.is_empty()) })
    }

    fn start_copy(&self, backup: &Path, signal: Option<&str>, settings: &str) -> io::Result<Server> {
        let dir = tempfile::Builder::new().prefix("pgwal-server-").tempdir()?;
        let data = dir.path().join("data");
        run(Command::new("cp").arg("-a").arg(backup).arg(&data))?;
        signal.map(|name| fs::write(data.join(name), "")).transpose()?;
        let conf = data.join("postgresql.conf");
        let socket = dir.path().display();
        fs::write(&conf, fs::read_to_string(&conf)? + &format!("unix_socket_directories = '{socket}'\n{settings}\n"))?;
        give(dir.path())?;
        let server = Server { postgres: self.clone(), dir, data, port: DEFAULT_PORT, _held: None };
        server.control("start")?;
        Ok(server)
    }
}

/// How a recovery ended.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The server opened for writing.
    pub opened: bool,
    /// What it logged.
    pub log: String,
    /// When the newest transaction was committed that it has, in UTC; `None`: it did not open, or does not track commit times.
    pub last_commit: Option<String>,
}

/// How long tests wait for something that should happen: far longer than it takes, also on a machine that is busy with other things.
/// What a test waits for and never comes fails it after this time.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `done` says so.
///
/// # Panics
/// It does not within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A TCP port of 127.0.0.1 that the kernel gives to nobody else while this lives.
///
/// A socket is bound to it and never listens, so that connections are refused. Whoever knows the number and sets `SO_REUSEADDR`, as
/// PostgreSQL and the standard library do, can listen on it: once, or again and again, as a server that is restarted does.
#[derive(Debug)]
pub struct HeldPort {
    port: u16,
    _socket: Option<Socket>,
}

impl HeldPort {
    /// Takes a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> io::Result<HeldPort> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let port = socket.local_addr()?.as_socket_ipv4().map(|address| address.port()).ok_or_else(|| io::Error::other("no port"))?;
        // Elsewhere two sockets do not get along on a port, even if only one of them listens.
        Ok(HeldPort { port, _socket: cfg!(target_os = "linux").then_some(socket) })
    }

    /// Its number.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Has a file or directory, with all in it, be the server's own.
///
/// # Errors
/// The system refuses.
pub fn give(path: &Path) -> io::Result<()> {
    if is_root() { run(Command::new("chown").arg("-R").arg("postgres").arg(path)).map(drop) } else { Ok(()) }
}

/// A running server. Dropping it stops it at once and removes its directory.
#[derive(Debug)]
pub struct Server {
    postgres: Postgres,
    dir: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    _held: Option<HeldPort>,
}

impl Server {
    /// Its port: in the name of its socket, and, if it was started so, of TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Writes a file of its data directory that is the server's alone, such as pg_hba.conf or server.key.
    ///
    /// # Errors
    /// The file cannot be written or given to the server.
    pub fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.data.join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if is_root() { run(Command::new("chown").arg("postgres").arg(&path)).map(drop) } else { Ok(()) }
    }

    /// Its major version.
    pub fn major(&self) -> u8 {
        self.postgres.major
    }

    /// The directory that it has for itself, with the data directory in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it has logged.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.dir.path().join("log"))
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder of its socket.
    pub fn socket(&self) -> &Path {
        self.dir.path()
    }

    /// Its pg_wal.
    pub fn wal(&self) -> PathBuf {
        self.data.join("pg_wal")
    }

    /// Starts a standby that streams from this server, which must allow it (`wal_level = replica`).
    ///
    /// # Errors
    /// What the programs say.
    pub fn standby(&self) -> io::Result<Server> {
        self.standby_on(self.port)
    }

    /// As [`Server::standby`], on another port; it is reached through its socket only.
    ///
    /// # Errors
    /// What the programs say.
    pub fn standby_on(&self, port: u16) -> io::Result<Server> {
        let dir = tempfile::Builder::new().prefix("pgwal-server-").tempdir()?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()))?;
        }
        let data = dir.path().join("data");
        self.client(
            "pg_basebackup",
            [OsStr::new("-R"), "-X".as_ref(), "stream".as_ref(), "-c".as_ref(), "fast".as_ref(), "-D".as_ref(), data.as_ref()],
        )?;
        let conf = data.join("postgresql.conf");
        fs::write(
            &conf,
            fs::read_to_string(&conf)?
                + &format!("unix_socket_directories = '{}'\nlisten_addresses = ''\nport = {port}\n", dir.path().display()),
        )?;
        if !self.postgres.program("pg_basebackup").exists() {
            // That of a newer major wrote options that this server's library may not know.
            let file = if self.major() < 12 { "recovery.conf" } else { "postgresql.auto.conf" };
            let conninfo = format!("primary_conninfo = 'user=postgres host={} port={}'\n", self.dir.path().display(), self.port);
            fs::write(data.join(file), fs::read_to_string(data.join(file))? + &conninfo)?;
        }
        let server = Server { postgres: self.postgres.clone(), dir, data, port, _held: None };
        server.control("start")?;
        Ok(server)
    }

    /// Runs SQL and returns what it prints, unaligned and without headers.
    ///
    /// # Errors
    /// What psql says.
    pub fn sql(&self, sql: &str) -> io::Result<String> {
        let output = self.client("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql])?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Has it read its files anew, and waits until new sessions see it.
    ///
    /// # Errors
    /// What psql says.
    ///
    /// # Panics
    /// It does not read them within [`PATIENCE`].
    pub fn reload(&self) -> io::Result<()> {
        let before = self.sql("SELECT pg_conf_load_time()")?;
        self.sql("SELECT pg_reload_conf()")?;
        wait_until("the server reads its files", || {
            self.sql(&format!("SELECT pg_conf_load_time() > '{before}'")).is_ok_and(|later| later == "t")
        });
        Ok(())
    }

    /// Keeps pgbench writing, with two clients and over and over, while `work` runs; its tables must be there.
    ///
    /// # Panics
    /// pgbench fails.
    pub fn while_pgbench_runs<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        /// Also where `work` panics: else its thread would be waited for without end.
        struct AtEnd<'a>(&'a AtomicBool);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            let end = AtEnd(&over);
            let load = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.client("pgbench", ["-n", "-c", "2", "-T", "1", "postgres"]).expect("pgbench");
                }
            });
            let result = work();
            assert!(!load.is_finished(), "pgbench has ended");
            drop(end);
            load.join().expect("pgbench");
            result
        })
    }

    /// Runs a client program against the server.
    ///
    /// # Errors
    /// What the program says.
    pub fn client<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> io::Result<Output> {
        let port = self.port.to_string();
        run(self.postgres.command(program).args(["-U", "postgres", "-p", &port, "-h"]).arg(self.dir.path()).args(args))
    }

    /// Runs a program on its data directory (`-D`), such as pg_resetwal; the server should be stopped.
    ///
    /// # Errors
    /// What the program says.
    pub fn on_data<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> io::Result<Output> {
        run(self.postgres.command(program).args(args).arg("-D").arg(&self.data))
    }

    /// `pg_ctl start`, `stop -m fast`, `stop -m immediate`, …
    ///
    /// # Errors
    /// What pg_ctl says.
    pub fn control(&self, what: &str) -> io::Result<()> {
        let log = self.dir.path().join("log");
        let mut command = self.postgres.command("pg_ctl");
        command.arg("-D").arg(&self.data).arg("-l").arg(log).arg("-w").arg("-t").arg(PATIENCE.as_secs().to_string()).args(what.split(' '));
        // The server keeps what it inherits, so its output goes nowhere.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("pg_ctl {what}: {status}"))) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A server that was stopped already is no trouble.
        let _ = self.control("stop -m immediate");
    }
}

/// The port of a server that is reached by its socket only.
const DEFAULT_PORT: u16 = 5432;

fn run(command: &mut Command) -> io::Result<Output> {
    let output = command.stdin(Stdio::null()).current_dir("/").output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(io::Error::other(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
}

/// The installations in `folders` and where Debian puts them that have a server and the programs of `besides`, by major; of one
/// major the first found comes first.
fn installed(folders: impl Iterator<Item = PathBuf>, besides: &[&str]) -> Vec<Postgres> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let programs = ["postgres", "initdb", "pg_ctl"];
    let mut found: Vec<Postgres> = folders
        .chain(debian)
        .filter(|bin| programs.iter().chain(besides).all(|program| bin.join(program).is_file()))
        .filter_map(|bin| Some(Postgres { major: version(&bin)?, bin }))
        .collect();
    found.sort_by_key(|postgres| postgres.major);
    found
}

fn version(bin: &Path) -> Option<u8> {
    let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(2)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_held_port_is_free_for_who_knows_it_and_for_nobody_else() {
        let held = HeldPort::new().unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, held.port()));
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST] {
            let _listener = TcpListener::bind((address, held.port())).unwrap();
            connect().unwrap();
        }
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    /// With nothing between them that others could take: all ports that the kernel has to give are taken once.
    #[test]
    fn nobody_is_given_a_held_port() {
        let held: Vec<HeldPort> = (0..50).map(|_| HeldPort::new().unwrap()).collect();
        let mut given: Vec<u16> =
            (0..2000).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()).collect();
        given.extend(held.iter().map(HeldPort::port));
        let of_held = |port: &u16| held.iter().filter(|held| held.port() == *port).count();
        assert_eq!(given.iter().map(of_held).sum::<usize>(), held.len());
    }
}
