//! Servers that commands talk to.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use pgwal::SegmentName;
use pgwal::printable::printable;
use pgwal_stream::connection::{AuthError, ConnectError, Connection, Error as ConnectionError, Mode};
use pgwal_stream::conninfo::{Config, ConnInfoError, Environment, Secret, Settings};
use pgwal_stream::slots::{self, Slot};

use crate::console::write_stderr;
use crate::signals;

/// Which server, and how to get in.
#[derive(Args, Debug, Default)]
pub struct ServerArgs {
    /// The server: `keyword=value` pairs or a URI, as libpq takes them; PG* variables, services and password files fill in what is missing
    #[arg(short, long, value_name = "CONNINFO", default_value = "", hide_default_value = true)]
    pub dbname: String,
    #[command(flatten)]
    pub password: PasswordArgs,
}

/// Which server, and how to get in, with the options of PostgreSQL's own programs.
#[derive(Args, Debug, Default)]
pub struct ClientArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Host of the server, or directory of its socket; takes precedence over --dbname, as do the next two
    #[arg(short = 'h', long, value_name = "HOST")]
    pub host: Option<String>,
    /// Port of the server
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<String>,
    /// Role to log in as
    #[arg(short = 'U', long, value_name = "ROLE")]
    pub username: Option<String>,
    /// Print help: a summary with -?, all of it with --help
    #[arg(short = '?', long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

impl ClientArgs {
    /// As [`settings`], with the options.
    pub fn settings(&self) -> Result<Settings, ConnInfoError> {
        let mut settings = settings(&self.server.dbname)?;
        self.add_to(&mut settings)?;
        Ok(settings)
    }

    /// Adds what the options say beside --dbname.
    pub fn add_to(&self, settings: &mut Settings) -> Result<(), ConnInfoError> {
        for (keyword, value) in [("host", &self.host), ("port", &self.port), ("user", &self.username)] {
            if let Some(value) = value {
                settings.set(keyword, value.clone())?;
            }
        }
        Ok(())
    }

    /// The settings of the connection; a password is asked for where the user wants that.
    pub fn config(&self) -> Result<Config, Box<dyn Error>> {
        let mut config = Config::new(self.settings()?, &Environment::current())?;
        if self.server.password.ask_password {
            config.password = Some(ask()?);
        }
        Ok(config)
    }
}

/// Whether to ask the user for a password.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PasswordArgs {
    /// Never ask for a password
    #[arg(short = 'w', long)]
    pub no_password: bool,
    /// Ask for a password before connecting; without this, only when the server wants one that is not found
    #[arg(short = 'W', long = "password", conflicts_with = "no_password")]
    pub ask_password: bool,
}

impl ServerArgs {
    /// The settings of the connection; a password is asked for where the user wants that.
    pub fn config(&self) -> Result<Config, Box<dyn Error>> {
        let mut config = config(&self.dbname)?;
        if self.password.ask_password {
            config.password = Some(ask()?);
        }
        Ok(config)
    }

    /// Connects. Where the server wants a password that is not found, and there is a terminal, the user is asked, and `config` has the
    /// answer for the next time.
    pub fn connect(&self, config: &mut Config, mode: Mode) -> Result<Connection, ConnectError> {
        self.connect_until(config, mode, &Arc::default())
    }

    /// As [`ServerArgs::connect`], until `stop` is set; the connection keeps looking at it.
    pub fn connect_until(&self, config: &mut Config, mode: Mode, stop: &Arc<AtomicBool>) -> Result<Connection, ConnectError> {
        match connect(config, mode, stop) {
            Err(error) if wants_password(&error) && !self.password.no_password && io::stdin().is_terminal() => {
                let Ok(password) = ask() else { return Err(error) };
                config.password = Some(password);
                connect(config, mode, stop)
            }
            result => result,
        }
    }

    /// Connects for SQL about the server as a whole, which any database will do for. Where none is named, and there is none by the user's
    /// name, it is `postgres`.
    pub fn connect_sql(&self, config: &mut Config) -> Result<Connection, ConnectError> {
        self.connect_sql_until(config, &Arc::default())
    }

    /// As [`ServerArgs::connect_sql`], until `stop` is set; the connection keeps looking at it.
    fn connect_sql_until(&self, config: &mut Config, stop: &Arc<AtomicBool>) -> Result<Connection, ConnectError> {
        match self.connect_until(config, Mode::Ordinary, stop) {
            Err(error) if config.dbname == config.user && lacks_database(&error) => {
                config.dbname = "postgres".to_owned();
                self.connect_until(config, Mode::Ordinary, stop)
            }
            result => result,
        }
    }

    /// The slot of that name, by SQL; `None`: there is none, or the user may not ask, or the server does not answer within `limit` or until
    /// `stop` is set.
    pub fn slot(&self, config: &Config, name: &str, limit: Option<Duration>, stop: &Arc<AtomicBool>) -> Option<Slot> {
        let mut server = self.connect_sql_until(&mut config.clone(), stop).ok()?;
        server.set_limit(limit);
        slots::list(&mut server).ok()?.into_iter().find(|slot| slot.name == name)
    }

    /// The oldest segment that the server has, by SQL; `None`: the user may not ask, or the server does not answer within `limit` or until
    /// `stop` is set.
    pub fn oldest_segment(&self, config: &Config, limit: Option<Duration>, stop: &Arc<AtomicBool>) -> Option<SegmentName> {
        let mut server = self.connect_sql_until(&mut config.clone(), stop).ok()?;
        server.set_limit(limit);
        server.query(OLDEST).ok()?.first()?.text(0, 0)?.parse().ok()
    }
}

/// Connects, and says what was passed over on the way, whether or not there is a connection: each thing once, in libpq's words.
pub fn connect(config: &Config, mode: Mode, stop: &Arc<AtomicBool>) -> Result<Connection, ConnectError> {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut result = Connection::connect_until(config, mode, Arc::clone(stop));
    let warnings = match &mut result {
        Ok(connection) => connection.take_warnings(),
        Err(error) => std::mem::take(&mut error.warnings),
    };
    for warning in warnings {
        let is_new = TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(warning.clone());
        if is_new {
            write_stderr(format!("WARNING: {}\n", printable(&warning)).as_bytes());
        }
    }
    result
}

/// What to do about a server that takes no connections for replication at all; empty: that is not what is wrong.
pub fn replication_hint(error: &ConnectError) -> &'static str {
    /// SQLSTATE `too_many_connections`.
    const TOO_MANY: &str = "53300";
    match error.last() {
        // It says how many there may be.
        Some(ConnectionError::Server(said))
            if said.code == TOO_MANY && said.message.contains("max_wal_senders") && said.message.contains(" 0)") =>
        {
            "\nThe server takes no connections for replication, as with wal_level = minimal: it needs wal_level = replica, max_wal_senders above 0, and a restart"
        }
        _ => "",
    }
}

/// The oldest segment that a server has, as SQL finds its name.
const OLDEST: &str = "SELECT name FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' ORDER BY substr(name, 9), name LIMIT 1";

/// SQLSTATE `invalid_catalog_name`.
fn lacks_database(error: &ConnectError) -> bool {
    matches!(error.last(), Some(ConnectionError::Server(error)) if error.code == "3D000")
}

/// The server would have let us in with a password.
fn wants_password(error: &ConnectError) -> bool {
    matches!(error.last(), Some(ConnectionError::Auth(AuthError::NoPassword)))
}

/// Asks the user, on the terminal, without showing the answer.
pub fn ask() -> io::Result<Secret> {
    signals::while_asking(|| rpassword::prompt_password("Password: ")).map(Secret::new)
}

/// Reads a connection string as psql does: what is none is the name of a database.
pub fn config(conninfo: &str) -> Result<Config, ConnInfoError> {
    Config::new(settings(conninfo)?, &Environment::current())
}

/// As [`config`], as it is given.
pub fn settings(conninfo: &str) -> Result<Settings, ConnInfoError> {
    let is_string =
        conninfo.is_empty() || conninfo.contains('=') || ["postgresql://", "postgres://"].iter().any(|uri| conninfo.starts_with(uri));
    let mut settings = if is_string { Settings::parse(conninfo)? } else { Settings::default() };
    if !is_string {
        settings.set("dbname", conninfo.to_owned())?;
    }
    settings.set("fallback_application_name", "pgwal".to_owned())?;
    Ok(settings)
}

/// Seconds that are as good as no limit, and that no clock overflows with: ten years.
pub const FOREVER: u64 = 10 * 365 * 24 * 3600;

/// A server that says nothing for so long is given up where nothing else is said. C: `wal_receiver_timeout`, as it is unless set.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Reads an option that is a number of seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected 0 to {FOREVER} seconds");
    text.parse().ok().filter(|&seconds| seconds <= FOREVER).ok_or_else(wrong)
}

/// How often something is done that is told in seconds; 0: never, as good as.
pub fn interval(seconds: u64) -> Duration {
    Duration::from_secs(if seconds == 0 { FOREVER } else { seconds.min(FOREVER) })
}
