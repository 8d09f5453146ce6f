//! The files that libpq reads besides the connection string: services and passwords. libpq: fe-connect.c.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::input_file::{self, MAX_SETTINGS, PATIENCE, Patience, Problem};

use super::{ConnInfoError, DEFAULT_PORT, DEFAULT_SOCKET_DIR, Environment, Settings};

/// Where Debian's libpq looks for the services of all users. C: `SYSCONFDIR`.
const SYSTEM_CONFIG_DIR: &str = "/etc/postgresql-common";

/// Adds what the service has to what is not set yet. libpq: `parseServiceInfo`.
pub(super) fn service(settings: &mut Settings, env: &Environment) -> Result<(), ConnInfoError> {
    let Some(service) = settings.get("service").or_else(|| env.var("PGSERVICE")).map(str::to_owned) else { return Ok(()) };
    // A file that the user names must be there, the usual ones need not.
    let own = match env.var("PGSERVICEFILE") {
        Some(named) => Some(PathBuf::from(named)),
        None => env.home().map(|home| home.join(".pg_service.conf")).filter(|path| path.exists()),
    };
    if let Some(own) = own
        && service_file(&own, &service, settings, env)?
    {
        return Ok(());
    }
    let shared = Path::new(env.var("PGSYSCONFDIR").unwrap_or(SYSTEM_CONFIG_DIR)).join("pg_service.conf");
    if shared.exists() && service_file(&shared, &service, settings, env)? {
        return Ok(());
    }
    Err(ConnInfoError::ServiceUndefined { service })
}

/// Whether the file has the service. libpq: `parseServiceFile`.
fn service_file(path: &Path, service: &str, settings: &mut Settings, env: &Environment) -> Result<bool, ConnInfoError> {
    // A pipe has as long as a host has to answer.
    let limit = settings.get("connect_timeout").or_else(|| env.var("PGCONNECT_TIMEOUT"));
    let limit = limit.and_then(|seconds| seconds.trim().parse().ok()).filter(|&seconds| seconds > 0).map_or(PATIENCE, Duration::from_secs);
    let patience = Patience { until: Instant::now().checked_add(limit), stop: None };
    let text = match input_file::read(path, MAX_SETTINGS, patience) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ConnInfoError::ServiceFileMissing { path: path.to_owned() }),
        Err(error) => return Err(ConnInfoError::ServiceFile { path: path.to_owned(), message: error.to_string() }),
    };
    let mut found = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            if found {
                return Ok(true);
            }
            found = group.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
            continue;
        }
        if !found {
            continue;
        }
        let syntax = || ConnInfoError::ServiceSyntax { path: path.to_owned(), line: number };
        let (keyword, value) = line.split_once('=').ok_or_else(syntax)?;
        if keyword == "service" {
            return Err(ConnInfoError::ServiceNested { path: path.to_owned(), line: number });
        }
        if settings.get(keyword).is_none() {
            settings.set(keyword, value.to_owned()).map_err(|_| syntax())?;
        }
    }
    Ok(found)
}

/// What a password file said.
#[derive(Default)]
pub(crate) struct FoundPassword {
    /// The password, where a line fits.
    pub(crate) password: Option<String>,
    /// Why the file was passed over, where it was.
    pub(crate) warning: Option<String>,
}

/// The password of the first line that fits; `host` is `None` for the usual Unix socket. libpq: `passwordFromFile`.
pub(crate) fn password(path: &Path, host: Option<&str>, port: u16, dbname: &str, user: &str) -> FoundPassword {
    let none = FoundPassword::default();
    let warn = |problem: &str| FoundPassword { warning: Some(format!("password file \"{}\" {problem}", path.display())), password: None };
    let file = match input_file::open_regular(path) {
        Ok(file) => file,
        Err(error) if Problem::of(&error).is_some() => return warn("is not a plain file"),
        Err(_) => return none,
    };
    let Ok(meta) = file.metadata() else { return none };
    if meta.permissions().mode() & 0o077 != 0 {
        return warn("has group or world access; permissions should be u=rw (0600) or less");
    }
    let bytes = match input_file::read_regular(file, MAX_SETTINGS) {
        Ok(bytes) => bytes,
        Err(error) => return Problem::of(&error).map_or(none, |problem| warn(&problem.to_string())),
    };
    let host = host.filter(|host| !host.is_empty() && *host != DEFAULT_SOCKET_DIR).unwrap_or("localhost");
    let port = if port == 0 { DEFAULT_PORT } else { port }.to_string();
    let text = String::from_utf8_lossy(&bytes);
    let fields = [host, &port, dbname, user];
    let password = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let rest = fields.iter().try_fold(line, |line, field| matched(line, field))?;
        Some(unescaped(rest))
    });
    FoundPassword { password, warning: None }
}

/// What follows the first field of the line and its colon, where the field is `*` or, with its backslashes taken away, `wanted`.
fn matched<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = wanted.chars();
    let mut chars = line.chars();
    loop {
        match chars.next()? {
            // Only after all of it: libpq takes `::1:5432:…` without backslashes.
            ':' if wanted.as_str().is_empty() => return Some(chars.as_str()),
            '\\' => match chars.next() {
                Some(c) if wanted.next() == Some(c) => {}
                _ => return None,
            },
            c if wanted.next() == Some(c) => {}
            _ => return None,
        }
    }
}

/// A field up to its colon, if it has one, without its backslashes.
fn unescaped(field: &str) -> String {
    let mut text = String::new();
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => break,
            '\\' => text.push(chars.next().unwrap_or('\\')),
            c => text.push(c),
        }
    }
    text
}
