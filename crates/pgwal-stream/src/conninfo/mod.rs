//! Where and how to connect, told as libpq's programs are told: connection strings, service files, `PG*` variables, password files.
//!
//! [`Settings`] has what was said in words, [`Config`] what it means. Values come from the first of these that has one: the settings,
//! the service, the environment, what is built in. libpq: fe-connect.c; "Database Connection Control Functions" in the manual.

mod files;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use files::password;

/// The port where nobody says another. C: `DEF_PGPORT`.
pub const DEFAULT_PORT: u16 = 5432;

/// The folder of the socket where nobody names a host, as Debian builds libpq. C: `DEFAULT_PGSOCKET_DIR`.
pub const DEFAULT_SOCKET_DIR: &str = "/var/run/postgresql";

/// What of the process a connection depends on, so that a test can have its own.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
    user: Option<String>,
}

impl Environment {
    /// That of this process: its `PG*` variables, its home directory, the account it runs as.
    pub fn current() -> Environment {
        let account = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Environment {
            variables: variables.filter(|(name, _)| name.starts_with("PG")).collect(),
            home: home.or_else(|| account.as_ref().map(|account| account.dir.clone())),
            user: account.map(|account| account.name),
        }
    }

    /// One without variables, of an account with this name and home directory.
    pub fn new(user: &str, home: &Path) -> Environment {
        Environment { variables: BTreeMap::new(), home: Some(home.to_owned()), user: Some(user.to_owned()) }
    }

    /// The same with one variable more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Environment {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A variable; an empty one counts as none.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The home directory; `None`: there is none.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<&str, &str> = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), if name == "PGPASSWORD" { HIDDEN } else { value.as_str() }))
            .collect();
        f.debug_struct("Environment").field("variables", &shown).field("home", &self.home).field("user", &self.user).finish()
    }
}

/// Connection options by their keywords, as given; an empty value counts as none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Reads a connection string: `postgresql://…`, `postgres://…`, or `key=value key=value`.
    ///
    /// # Errors
    /// What is wrong with it, in libpq's words; a database name alone is no connection string. libpq: `PQconninfoParse`.
    pub fn parse(text: &str) -> Result<Settings, ConnInfoError> {
        let mut settings = Settings::default();
        parse::parse(text, &mut settings)?;
        Ok(settings)
    }

    /// Sets an option; it takes the place of what was set before.
    ///
    /// # Errors
    /// libpq knows no such option.
    pub fn set(&mut self, keyword: &str, value: String) -> Result<(), ConnInfoError> {
        // Kept by libpq for programs from before sslmode.
        if keyword == "requiressl" {
            let mode = if value.starts_with('1') { "require" } else { "prefer" };
            self.0.insert("sslmode", mode.to_owned());
            return Ok(());
        }
        let option = OPTIONS.iter().find(|option| option.keyword == keyword);
        let option = option.ok_or_else(|| ConnInfoError::UnknownOption { keyword: keyword.to_owned() })?;
        self.0.insert(option.keyword, value);
        Ok(())
    }

    /// Fills in what is not set from the service and the environment.
    ///
    /// # Errors
    /// The service is not found, or its file cannot be read.
    pub fn complete(mut self, env: &Environment) -> Result<Settings, ConnInfoError> {
        files::service(&mut self, env)?;
        for option in OPTIONS {
            if let Some(value) = option.variable.and_then(|name| env.var(name)).filter(|_| self.get(option.keyword).is_none()) {
                self.0.insert(option.keyword, value.to_owned());
            }
        }
        Ok(self)
    }

    /// The value of an option; `None`: not set, or empty.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All options that have a value, by keyword.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(keyword, value)| (*keyword, value.as_str())).filter(|(_, value)| !value.is_empty())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(keyword, value)| (keyword, if is_secret(keyword) { HIDDEN } else { value }))).finish()
    }
}

/// A password: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(crate) String);

impl Secret {
    /// Keeps a password.
    pub fn new(password: String) -> Secret {
        Secret(password)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Everything that a connection needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to connect, in the order of trying; at least one.
    pub hosts: Vec<Host>,
    /// `user`: the role to log in as.
    pub user: String,
    /// `dbname`.
    pub dbname: String,
    /// `password`; `None`: the password file may have one.
    pub password: Option<Secret>,
    /// `passfile`; `None`: there is no home directory to have one in.
    pub passfile: Option<PathBuf>,
    /// `connect_timeout`, for each address; `None`: as long as it takes.
    pub connect_timeout: Option<Duration>,
    /// What is wrong with a setting that libpq reads only when it connects; see [`Config::new_as_libpq`]. Connecting fails with it.
    pub late: Option<ConnInfoError>,
    /// `application_name`, or what `fallback_application_name` says.
    pub application_name: Option<String>,
    /// `options`: command-line options for the server.
    pub options: Option<String>,
    /// `client_encoding`; `None`: that of the database.
    pub client_encoding: Option<String>,
    /// How to encrypt.
    pub tls: TlsConfig,
    /// `channel_binding`.
    pub channel_binding: ChannelBindingMode,
    /// `require_auth`: the methods by which the server may ask who we are; `None`: any.
    pub require_auth: Option<Vec<AuthMethod>>,
    /// `requirepeer`: the account that the server after a Unix socket must run as.
    pub require_peer: Option<String>,
    /// `target_session_attrs`.
    pub target_session_attrs: TargetSessionAttrs,
    /// `load_balance_hosts=random`: hosts and their addresses are tried in random order.
    pub random_order: bool,
    /// How the kernel watches a TCP connection.
    pub keepalive: Keepalive,
}

/// One of the hosts to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub place: Place,
    /// TCP port, or the number in the name of the socket.
    pub port: u16,
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder with a Unix socket; with `@` in front, a name in the abstract namespace.
    Socket(PathBuf),
    /// A name to be resolved.
    Name(String),
    /// `hostaddr`: an address, with the name that the certificate should have, if one was given.
    Address {
        /// The address.
        address: IpAddr,
        /// `host`, if given.
        name: Option<String>,
    },
}

impl Place {
    /// The name that password files and certificates know it by. libpq: `connhost[].host`, else `hostaddr`.
    pub fn name(&self) -> String {
        match self {
            Place::Socket(folder) => folder.display().to_string(),
            Place::Name(name) | Place::Address { name: Some(name), .. } => name.clone(),
            Place::Address { address, name: None } => address.to_string(),
        }
    }
}

/// The options that begin with `ssl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslnegotiation=direct`: TLS from the first byte, PostgreSQL 17 and later.
    pub direct: bool,
    /// `sslrootcert`: who is trusted to sign for servers.
    pub roots: Roots,
    /// `sslcert`: file with the client's certificates; used where it exists, and an error where it is named and does not.
    pub cert: Option<NamedFile>,
    /// `sslkey`: file with the key of the client's certificate.
    pub key: Option<NamedFile>,
    /// `sslcrl`: file with certificates that do not count any more.
    pub crl: Option<NamedFile>,
    /// `sslsni`: tell the server which name is wanted.
    pub sni: bool,
    /// `ssl_min_protocol_version` and `ssl_max_protocol_version`.
    pub versions: (TlsVersion, TlsVersion),
}

/// A file that was named, or the one that is usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path.
    pub path: PathBuf,
    /// Whether somebody named it: then it must exist.
    pub named: bool,
}

/// Who is trusted to sign for servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those in a PEM file; the usual one is `~/.postgresql/root.crt`.
    File(NamedFile),
    /// `system`: those that the operating system trusts.
    System,
    /// No file is named, and there is no home directory.
    None,
}

/// TCP keepalive and user timeout; `None` is what the system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// `keepalives`.
    pub enabled: bool,
    /// `keepalives_idle`.
    pub idle: Option<Duration>,
    /// `keepalives_interval`.
    pub interval: Option<Duration>,
    /// `keepalives_count`: lost probes before the connection counts as dead.
    pub count: Option<u32>,
    /// `tcp_user_timeout`: how long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $keyword:literal, { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl Word for $name {
            const KEYWORD: &'static str = $keyword;

            fn from_word(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$variant => $word,)+ })
            }
        }
    };
}

words! {
    /// `sslmode`, from the least to the most.
    SslMode, "sslmode", {
        /// No TLS.
        Disable = "disable",
        /// TLS where the server wants no other.
        Allow = "allow",
        /// TLS where the server has it.
        Prefer = "prefer",
        /// TLS with whomever; with a root certificate file, as `verify-ca`.
        Require = "require",
        /// TLS with a server whose certificate is signed by whom we trust.
        VerifyCa = "verify-ca",
        /// As `verify-ca`, and the certificate has the name of the host.
        VerifyFull = "verify-full",
    }
}

words! {
    /// `channel_binding`: whether logging in must prove that the password went through this very TLS connection.
    ChannelBindingMode, "channel_binding", {
        /// Never.
        Disable = "disable",
        /// Where the server offers it.
        Prefer = "prefer",
        /// Always, or there is no connection.
        Require = "require",
    }
}

words! {
    /// `target_session_attrs`: which kind of server will do.
    TargetSessionAttrs, "target_session_attrs", {
        /// Any.
        Any = "any",
        /// One that accepts changes.
        ReadWrite = "read-write",
        /// One that accepts none.
        ReadOnly = "read-only",
        /// One that is not in recovery.
        Primary = "primary",
        /// One that is in recovery.
        Standby = "standby",
        /// One that is in recovery, or any where there is none.
        PreferStandby = "prefer-standby",
    }
}

words! {
    /// A method of `require_auth`.
    AuthMethod, "require_auth", {
        /// The password as it is.
        Password = "password",
        /// MD5 of the password.
        Md5 = "md5",
        /// Kerberos through GSSAPI, which is not supported.
        Gss = "gss",
        /// SSPI, which is not supported.
        Sspi = "sspi",
        /// SCRAM, with or without channel binding.
        ScramSha256 = "scram-sha-256",
        /// None: the server believes us, or our certificate.
        None = "none",
    }
}

words! {
    /// A version of TLS.
    TlsVersion, "ssl_min_protocol_version", {
        /// 1.0, which is refused.
        Tls10 = "TLSv1",
        /// 1.1, which is refused.
        Tls11 = "TLSv1.1",
        /// 1.2.
        Tls12 = "TLSv1.2",
        /// 1.3.
        Tls13 = "TLSv1.3",
    }
}

impl Config {
    /// Reads a connection string and completes it.
    ///
    /// # Errors
    /// See [`Settings::parse`] and [`Config::new`].
    pub fn parse(text: &str, env: &Environment) -> Result<Config, ConnInfoError> {
        Config::new(Settings::parse(text)?, env)
    }

    /// As [`Config::new`], where a number that libpq reads only when it connects is an error only then: `connect_timeout` for all
    /// connections, keepalives for those over TCP.
    ///
    /// # Errors
    /// As for [`Config::new`].
    pub fn new_as_libpq(settings: Settings, env: &Environment) -> Result<Config, ConnInfoError> {
        let mut settings = settings.complete(env)?;
        let mut late: Option<ConnInfoError> = None;
        for option in LATE {
            if let Err(error) = integer(&settings, option) {
                // Of several, that of connect_timeout, which is the first here, is an error on every connection.
                late.get_or_insert(error);
                settings.set(option, "0".to_owned())?;
            }
        }
        Ok(Config { late, ..Config::new(settings, env)? })
    }

    /// Completes settings by the service, the environment and what is built in, and checks them.
    ///
    /// # Errors
    /// A value that libpq refuses, or one that asks for what is not supported here; a service that is not found.
    pub fn new(settings: Settings, env: &Environment) -> Result<Config, ConnInfoError> {
        let settings = settings.complete(env)?;
        let text = |keyword: &str| settings.get(keyword).map(str::to_owned);
        refuse(&settings)?;
        let user = text("user").or_else(|| env.user.clone()).ok_or(ConnInfoError::NoUser)?;
        let application_name = text("application_name").or_else(|| text("fallback_application_name"));
        let at_home = |name: &str| env.home().map(|home| home.join(name));
        let timeout = integer(&settings, "connect_timeout")?.and_then(|seconds| u64::try_from(seconds).ok()).filter(|&seconds| seconds > 0);
        Ok(Config {
            hosts: hosts(&settings)?,
            dbname: text("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: text("password").map(Secret),
            passfile: text("passfile").map(PathBuf::from).or_else(|| at_home(".pgpass")),
            // libpq up to 16 takes less than two seconds for two.
            connect_timeout: timeout.map(|seconds| Duration::from_secs(seconds.max(2))),
            late: None,
            application_name,
            options: text("options"),
            // Ours is all bytes; `auto` asks for that of a locale.
            client_encoding: text("client_encoding").filter(|name| name != "auto"),
            tls: tls(&settings, env)?,
            channel_binding: word(&settings)?.unwrap_or(ChannelBindingMode::Prefer),
            require_auth: require_auth(&settings)?,
            require_peer: text("requirepeer"),
            target_session_attrs: word(&settings)?.unwrap_or(TargetSessionAttrs::Any),
            random_order: match settings.get("load_balance_hosts") {
                None | Some("disable") => false,
                Some("random") => true,
                Some(found) => return Err(invalid("load_balance_hosts", found)),
            },
            keepalive: keepalive(&settings)?,
        })
    }
}

/// libpq: `connectOptions2`.
fn hosts(settings: &Settings) -> Result<Vec<Host>, ConnInfoError> {
    let list = |keyword| settings.get(keyword).map(|list| list.split(',').collect::<Vec<_>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    if let (Some(names), Some(addresses)) = (&names, &addresses)
        && names.len() != addresses.len()
    {
        return Err(ConnInfoError::HostCounts { hosts: names.len(), addresses: addresses.len() });
    }
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    let ports = ports.unwrap_or_default();
    // One port, or none, is for all.
    if ports.len() > 1 && ports.len() != count {
        return Err(ConnInfoError::PortCounts { ports: ports.len(), hosts: count });
    }
    let nth = |list: &Option<Vec<&str>>, at: usize| {
        list.as_ref().and_then(|list| list.get(at).copied()).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let host = |at: usize| {
        let name = nth(&names, at);
        let place = match (nth(&addresses, at), name) {
            (Some(address), name) => match address.parse() {
                Ok(address) => Place::Address { address, name },
                Err(_) => return Err(ConnInfoError::HostAddress { found: address }),
            },
            (None, Some(name)) if name.starts_with(['/', '@']) => Place::Socket(PathBuf::from(name)),
            (None, Some(name)) => Place::Name(name),
            (None, None) => Place::Socket(PathBuf::from(DEFAULT_SOCKET_DIR)),
        };
        let port = if ports.len() == 1 { ports.first() } else { ports.get(at) };
        Ok(Host { place, port: port.filter(|text| !text.is_empty()).map_or(Ok(DEFAULT_PORT), |text| self::port(text))? })
    };
    (0..count).map(host).collect()
}

fn port(text: &str) -> Result<u16, ConnInfoError> {
    let number = text.trim().parse::<i32>().map_err(|_| ConnInfoError::Integer { option: "port", found: text.to_owned() })?;
    u16::try_from(number).ok().filter(|&port| port > 0).ok_or_else(|| ConnInfoError::Port { found: text.to_owned() })
}

fn tls(settings: &Settings, env: &Environment) -> Result<TlsConfig, ConnInfoError> {
    let file = |keyword: &str, usual: &str| match settings.get(keyword) {
        Some(path) => Some(NamedFile { path: PathBuf::from(path), named: true }),
        None => env.home().map(|home| NamedFile { path: home.join(".postgresql").join(usual), named: false }),
    };
    let system = settings.get("sslrootcert") == Some("system");
    let usual = if system { SslMode::VerifyFull } else { SslMode::Prefer };
    let mode = word(settings)?.unwrap_or(usual);
    if system && mode < SslMode::VerifyFull {
        return Err(ConnInfoError::WeakSslMode { mode, with: "sslrootcert=system", instead: "\"verify-full\"" });
    }
    let direct = match settings.get("sslnegotiation") {
        None | Some("postgres") => false,
        Some("direct") if mode < SslMode::Require => {
            let instead = "\"require\", \"verify-ca\", or \"verify-full\"";
            return Err(ConnInfoError::WeakSslMode { mode, with: "sslnegotiation=direct", instead });
        }
        Some("direct") => true,
        Some(found) => return Err(invalid("sslnegotiation", found)),
    };
    let version = |keyword: &'static str, usual| match settings.get(keyword) {
        None => Ok(usual),
        Some(found) => TlsVersion::from_word(found).ok_or_else(|| invalid(keyword, found)),
    };
    let lowest = version("ssl_min_protocol_version", TlsVersion::Tls12)?;
    let highest = version("ssl_max_protocol_version", TlsVersion::Tls13)?;
    if lowest > highest {
        return Err(ConnInfoError::VersionRange);
    }
    if highest < TlsVersion::Tls12 {
        return Err(unsupported("ssl_max_protocol_version", "TLS before 1.2 is not supported"));
    }
    // A client's certificate is for certain servers; libpq leaves the usual one away as told by sslcertmode.
    let with_cert = match settings.get("sslcertmode") {
        None | Some("allow") => true,
        Some("disable") => false,
        Some("require") => return Err(unsupported("sslcertmode", "whether the server asked for a certificate is not known here")),
        Some(found) => return Err(invalid("sslcertmode", found)),
    };
    Ok(TlsConfig {
        mode,
        direct,
        roots: if system { Roots::System } else { file("sslrootcert", "root.crt").map_or(Roots::None, Roots::File) },
        cert: file("sslcert", "postgresql.crt").filter(|_| with_cert),
        key: file("sslkey", "postgresql.key"),
        crl: file("sslcrl", "root.crl"),
        sni: settings.get("sslsni") != Some("0"),
        versions: (lowest, highest),
    })
}

fn keepalive(settings: &Settings) -> Result<Keepalive, ConnInfoError> {
    let positive = |keyword| Ok(integer(settings, keyword)?.and_then(|value| u32::try_from(value).ok()).filter(|&value| value > 0));
    let seconds = |keyword| Ok(positive(keyword)?.map(|seconds| Duration::from_secs(seconds.into())));
    Ok(Keepalive {
        enabled: integer(settings, "keepalives")? != Some(0),
        idle: seconds("keepalives_idle")?,
        interval: seconds("keepalives_interval")?,
        count: positive("keepalives_count")?,
        user_timeout: positive("tcp_user_timeout")?.map(|millis| Duration::from_millis(millis.into())),
    })
}

/// `md5,scram-sha-256`, or `!password,!none`: all but these.
fn require_auth(settings: &Settings) -> Result<Option<Vec<AuthMethod>>, ConnInfoError> {
    use AuthMethod::{Gss, Md5, None as NoAuth, Password, ScramSha256, Sspi};
    let Some(list) = settings.get("require_auth") else { return Ok(None) };
    let mut named = Vec::new();
    let negated = list.starts_with('!');
    for text in list.split(',') {
        let (not, name) = text.strip_prefix('!').map_or((false, text), |name| (true, name));
        match AuthMethod::from_word(name) {
            Some(method) if not == negated && !named.contains(&method) => named.push(method),
            _ => return Err(invalid("require_auth", list)),
        }
    }
    let all = [Password, Md5, Gss, Sspi, ScramSha256, NoAuth];
    Ok(Some(all.into_iter().filter(|method| named.contains(method) != negated).collect()))
}

/// Refuses what asks for something that is not there, rather than connect without it.
fn refuse(settings: &Settings) -> Result<(), ConnInfoError> {
    let is = |keyword: &str, value: &str| settings.get(keyword) == Some(value);
    match settings.get("gssencmode") {
        None | Some("disable" | "prefer") => {}
        Some("require") => return Err(unsupported("gssencmode", "encryption by GSSAPI is not supported")),
        Some(found) => return Err(invalid("gssencmode", found)),
    }
    if settings.get("sslcrldir").is_some() {
        return Err(unsupported("sslcrldir", "folders of revocation lists are not supported, sslcrl names a file"));
    }
    if is("gssdelegation", "1") {
        return Err(unsupported("gssdelegation", "GSSAPI is not supported"));
    }
    if settings.get("scram_client_key").is_some() || settings.get("scram_server_key").is_some() {
        return Err(unsupported("scram_client_key", "logging in by keys instead of a password is not supported"));
    }
    match settings.get("min_protocol_version") {
        None | Some("3.0") => Ok(()),
        Some("3.2" | "latest") => Err(unsupported("min_protocol_version", "protocol 3.0 is spoken")),
        Some(found) => Err(invalid("min_protocol_version", found)),
    }
}

/// The value of an option that has a fixed set of words.
fn word<T: Word>(settings: &Settings) -> Result<Option<T>, ConnInfoError> {
    settings.get(T::KEYWORD).map(|found| T::from_word(found).ok_or_else(|| invalid(T::KEYWORD, found))).transpose()
}

trait Word: Sized {
    const KEYWORD: &'static str;

    fn from_word(word: &str) -> Option<Self>;
}

/// Numbers that libpq reads only when it connects. libpq: `connectDBComplete`, `PQconnectPoll`.
const LATE: [&str; 6] = ["connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"];

/// libpq: `parse_int_param`.
fn integer(settings: &Settings, option: &'static str) -> Result<Option<i32>, ConnInfoError> {
    let read = |text: &str| text.trim().parse().map_err(|_| ConnInfoError::Integer { option, found: text.to_owned() });
    settings.get(option).map(read).transpose()
}

fn invalid(option: &'static str, found: &str) -> ConnInfoError {
    ConnInfoError::Value { option, found: found.to_owned() }
}

fn unsupported(option: &'static str, reason: &'static str) -> ConnInfoError {
    ConnInfoError::Unsupported { option, reason }
}

/// What is wrong with the options of a connection. The texts are libpq's, where it has the same error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnInfoError {
    /// A keyword has no `=` after it.
    MissingEquals {
        /// What stands where the keyword should.
        after: String,
    },
    /// A value begins with `'`, and the string ends before the next.
    UnterminatedQuote,
    /// libpq knows no such option.
    UnknownOption {
        /// The keyword.
        keyword: String,
    },
    /// A `[` without its `]`.
    Ipv6Unterminated {
        /// The URI, without passwords.
        uri: String,
    },
    /// `[]`.
    Ipv6Empty {
        /// The URI, without passwords.
        uri: String,
    },
    /// Something after `]` that is neither a port nor the end of the host.
    UriUnexpected {
        /// The unexpected character.
        found: char,
        /// Its place in the URI, in bytes from 1.
        position: usize,
        /// The URI, without passwords.
        uri: String,
    },
    /// A parameter of a URI has no `=`.
    MissingSeparator {
        /// The parameter.
        parameter: String,
    },
    /// A parameter of a URI has a second `=`.
    ExtraSeparator {
        /// Its keyword.
        parameter: String,
    },
    /// A parameter of a URI is no option that libpq knows.
    UnknownParameter {
        /// Its keyword.
        parameter: String,
    },
    /// A `%` without two hexadecimal digits.
    PercentToken {
        /// The part of the URI that has it.
        text: String,
    },
    /// `%00`.
    PercentZero {
        /// The part of the URI that has it.
        text: String,
    },
    /// What the `%` stand for is not UTF-8.
    PercentText {
        /// The part of the URI that has it.
        text: String,
    },
    /// PGSERVICEFILE names a file that is not there.
    ServiceFileMissing {
        /// Its path.
        path: PathBuf,
    },
    /// A service file cannot be read.
    ServiceFile {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
    /// A line of a service file is neither `[name]` nor `key=value` with a keyword that libpq knows.
    ServiceSyntax {
        /// Path of the file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A service names another.
    ServiceNested {
        /// Path of the file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// No service file has the service.
    ServiceUndefined {
        /// Its name.
        service: String,
    },
    /// A word that the option does not have.
    Value {
        /// The option.
        option: &'static str,
        /// The word.
        found: String,
    },
    /// Not a number.
    Integer {
        /// The option.
        option: &'static str,
        /// What it has.
        found: String,
    },
    /// Not from 1 to 65535.
    Port {
        /// What `port` has.
        found: String,
    },
    /// `hostaddr` is a name.
    HostAddress {
        /// What it has.
        found: String,
    },
    /// `host` and `hostaddr` are lists of different lengths.
    HostCounts {
        /// Length of `host`.
        hosts: usize,
        /// Length of `hostaddr`.
        addresses: usize,
    },
    /// There are several ports, and not as many as hosts.
    PortCounts {
        /// Length of `port`.
        ports: usize,
        /// Number of hosts.
        hosts: usize,
    },
    /// An option makes no sense without more of `sslmode`.
    WeakSslMode {
        /// `sslmode`.
        mode: SslMode,
        /// The option.
        with: &'static str,
        /// What may be used.
        instead: &'static str,
    },
    /// `ssl_min_protocol_version` is above `ssl_max_protocol_version`.
    VersionRange,
    /// No user is named, and the account of the process has no name.
    NoUser,
    /// The option asks for something that libpq has and this program has not.
    Unsupported {
        /// The option.
        option: &'static str,
        /// What is missing.
        reason: &'static str,
    },
}

impl ConnInfoError {
    /// Whether it is about the number of this option.
    pub(crate) fn is_of(&self, name: &str) -> bool {
        matches!(self, ConnInfoError::Integer { option, .. } if *option == name)
    }
}

impl fmt::Display for ConnInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ConnInfoError as E;
        match self {
            E::MissingEquals { after } => write!(f, "missing \"=\" after \"{after}\" in connection info string"),
            E::UnterminatedQuote => write!(f, "unterminated quoted string in connection info string"),
            E::UnknownOption { keyword } => write!(f, "invalid connection option \"{keyword}\""),
            E::Ipv6Unterminated { uri } => {
                write!(f, "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"{uri}\"")
            }
            E::Ipv6Empty { uri } => write!(f, "IPv6 host address may not be empty in URI: \"{uri}\""),
            E::UriUnexpected { found, position, uri } => {
                write!(f, "unexpected character \"{found}\" at position {position} in URI (expected \":\" or \"/\"): \"{uri}\"")
            }
            E::MissingSeparator { parameter } => write!(f, "missing key/value separator \"=\" in URI query parameter: \"{parameter}\""),
            E::ExtraSeparator { parameter } => write!(f, "extra key/value separator \"=\" in URI query parameter: \"{parameter}\""),
            E::UnknownParameter { parameter } => write!(f, "invalid URI query parameter: \"{parameter}\""),
            E::PercentToken { text } => write!(f, "invalid percent-encoded token: \"{text}\""),
            E::PercentZero { text } => write!(f, "forbidden value %00 in percent-encoded value: \"{text}\""),
            E::PercentText { text } => write!(f, "percent-encoded value is not UTF-8: \"{text}\""),
            E::ServiceFileMissing { path } => write!(f, "service file \"{}\" not found", path.display()),
            E::ServiceFile { path, message } => write!(f, "could not read service file \"{}\": {message}", path.display()),
            E::ServiceSyntax { path, line } => write!(f, "syntax error in service file \"{}\", line {line}", path.display()),
            E::ServiceNested { path, line } => {
                write!(f, "nested service specifications not supported in service file \"{}\", line {line}", path.display())
            }
            E::ServiceUndefined { service } => write!(f, "definition of service \"{service}\" not found"),
            E::Value { option, found } => write!(f, "invalid {option} value: \"{found}\""),
            E::Integer { option, found } => write!(f, "invalid integer value \"{found}\" for connection option \"{option}\""),
            E::Port { found } => write!(f, "invalid port number: \"{found}\""),
            E::HostAddress { found } => write!(f, "could not parse network address \"{found}\": Name or service not known"),
            E::HostCounts { hosts, addresses } => write!(f, "could not match {hosts} host names to {addresses} hostaddr values"),
            E::PortCounts { ports, hosts } => write!(f, "could not match {ports} port numbers to {hosts} hosts"),
            E::WeakSslMode { mode, with, instead } => write!(f, "weak sslmode \"{mode}\" may not be used with {with} (use {instead})"),
            E::VersionRange => write!(f, "invalid SSL protocol version range"),
            E::NoUser => write!(f, "no user is named, and the account of this process has no name"),
            E::Unsupported { option, reason } => write!(f, "connection option \"{option}\": {reason}"),
        }
    }
}

impl std::error::Error for ConnInfoError {}

/// What is shown in the place of a password.
const HIDDEN: &str = "***";

fn is_secret(keyword: &str) -> bool {
    matches!(keyword, "password" | "sslpassword" | "scram_client_key" | "scram_server_key")
}

/// An option of libpq.
struct Opt {
    keyword: &'static str,
    variable: Option<&'static str>,
}

const fn opt(keyword: &'static str, variable: &'static str) -> Opt {
    Opt { keyword, variable: Some(variable) }
}

const fn bare(keyword: &'static str) -> Opt {
    Opt { keyword, variable: None }
}

/// All options of libpq up to 18. C: `PQconninfoOptions`, fe-connect.c.
const OPTIONS: &[Opt] = &[
    bare("service"),
    opt("user", "PGUSER"),
    opt("password", "PGPASSWORD"),
    opt("passfile", "PGPASSFILE"),
    opt("channel_binding", "PGCHANNELBINDING"),
    opt("require_auth", "PGREQUIREAUTH"),
    opt("connect_timeout", "PGCONNECT_TIMEOUT"),
    opt("dbname", "PGDATABASE"),
    opt("host", "PGHOST"),
    opt("hostaddr", "PGHOSTADDR"),
    opt("port", "PGPORT"),
    opt("client_encoding", "PGCLIENTENCODING"),
    opt("options", "PGOPTIONS"),
    opt("application_name", "PGAPPNAME"),
    bare("fallback_application_name"),
    bare("keepalives"),
    bare("keepalives_idle"),
    bare("keepalives_interval"),
    bare("keepalives_count"),
    bare("tcp_user_timeout"),
    opt("sslmode", "PGSSLMODE"),
    opt("sslnegotiation", "PGSSLNEGOTIATION"),
    opt("sslcompression", "PGSSLCOMPRESSION"),
    opt("sslcert", "PGSSLCERT"),
    opt("sslkey", "PGSSLKEY"),
    opt("sslcertmode", "PGSSLCERTMODE"),
    bare("sslpassword"),
    opt("sslrootcert", "PGSSLROOTCERT"),
    opt("sslcrl", "PGSSLCRL"),
    opt("sslcrldir", "PGSSLCRLDIR"),
    opt("sslsni", "PGSSLSNI"),
    opt("requirepeer", "PGREQUIREPEER"),
    opt("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    opt("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    opt("min_protocol_version", "PGMINPROTOCOLVERSION"),
    opt("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    opt("gssencmode", "PGGSSENCMODE"),
    opt("krbsrvname", "PGKRBSRVNAME"),
    opt("gsslib", "PGGSSLIB"),
    opt("gssdelegation", "PGGSSDELEGATION"),
    bare("replication"),
    opt("target_session_attrs", "PGTARGETSESSIONATTRS"),
    opt("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    bare("scram_client_key"),
    bare("scram_server_key"),
    bare("sslkeylogfile"),
];
