//! Real PostgreSQL servers, started for a test and gone with it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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
    fn command(&self, name: &str) -> Command {
        if !is_root() {
            return Command::new(self.program_somewhere(name));
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(self.program_somewhere(name));
        command
    }

    /// Makes a cluster in a new directory and starts a server on it, reached through a socket in that directory only.
    ///
    /// # Errors
    /// What the programs say.
    pub fn start(&self, initdb: &[&str], settings: &str) -> io::Result<Server> {
        self.start_new(DEFAULT_PORT, initdb, settings)
    }

    /// As [`Postgres::start`], and the server listens on a free port of 127.0.0.1, too: [`Server::port`].
    ///
    /// # Errors
    /// What the programs say.
    pub fn start_tcp(&self, initdb: &[&str], settings: &str) -> io::Result<Server> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        self.start_new(port, initdb, &format!("listen_addresses = '127.0.0.1'\nport = {port}\n{settings}"))
    }

    fn start_new(&self, port: u16, initdb: &[&str], settings: &str) -> io::Result<Server> {
        let dir = tempfile::Builder::new().prefix("pgwal-server-").tempdir()?;
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()))?;
        }
        let data = dir.path().join("data");
        run(self.command("initdb").arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "--no-sync"]).args(initdb))?;
        let socket = dir.path().display();
        let settings = format!("listen_addresses = ''\nunix_socket_directories = '{socket}'\nfsync = off\n{settings}\n");
        let conf = data.join("postgresql.conf");
        fs::write(&conf, fs::read_to_string(&conf)? + &settings)?;
        let server = Server { postgres: self.clone(), dir, data, port };
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

    fn start_copy(&self, backup: &Path, signal: Option<&str>, settings: &str) -> io::Result<Server> {
        let dir = tempfile::Builder::new().prefix("pgwal-server-").tempdir()?;
        let data = dir.path().join("data");
        run(Command::new("cp").arg("-a").arg(backup).arg(&data))?;
        signal.map(|name| fs::write(data.join(name), "")).transpose()?;
        let conf = data.join("postgresql.conf");
        let socket = dir.path().display();
        fs::write(&conf, fs::read_to_string(&conf)? + &format!("unix_socket_directories = '{socket}'\n{settings}\n"))?;
        give(dir.path())?;
        let server = Server { postgres: self.clone(), dir, data, port: DEFAULT_PORT };
        server.control("start")?;
        Ok(server)
    }
}

/// Waits until `done` says so.
///
/// # Panics
/// It does not within a minute.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
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
        let server = Server { postgres: self.postgres.clone(), dir, data, port };
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
    /// It does not read them within a minute.
    pub fn reload(&self) -> io::Result<()> {
        let before = self.sql("SELECT pg_conf_load_time()")?;
        self.sql("SELECT pg_reload_conf()")?;
        wait_until("the server reads its files", || {
            self.sql(&format!("SELECT pg_conf_load_time() > '{before}'")).is_ok_and(|later| later == "t")
        });
        Ok(())
    }

    /// Runs a client program against the server.
    ///
    /// # Errors
    /// What the program says.
    pub fn client<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> io::Result<Output> {
        let port = self.port.to_string();
        run(self.postgres.command(program).args(["-U", "postgres", "-p", &port, "-h"]).arg(self.dir.path()).args(args))
    }

    /// `pg_ctl start`, `stop -m fast`, `stop -m immediate`, …
    ///
    /// # Errors
    /// What pg_ctl says.
    pub fn control(&self, what: &str) -> io::Result<()> {
        let log = self.dir.path().join("log");
        let mut command = self.postgres.command("pg_ctl");
        command.arg("-D").arg(&self.data).arg("-l").arg(log).arg("-w").args(what.split(' '));
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
