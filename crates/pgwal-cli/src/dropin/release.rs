//! The release of PostgreSQL whose programs a drop-in stands in for.
//!
//! Programs ask each other for their versions: pg_verifybackup runs `pg_waldump -V` and refuses one of another minor release. So a drop-in
//! presents the release of the installation it lies in.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the release to present, such as `15.18`.
const VARIABLE: &str = "PGWAL_POSTGRES_VERSION";

/// Set while another program is asked for its version, which may be a script that runs us.
const ASKING: &str = "PGWAL_ASKING_VERSION";

/// The release where nothing says which: the major whose options and messages the drop-ins have.
const DEFAULT: &str = "18";

/// Programs of an installation that may say its release: those that are quick to start, and there in most packages.
const NEIGHBORS: [&str; 9] =
    ["pg_controldata", "pg_isready", "psql", "pg_ctl", "postgres", "pg_dump", "pg_verifybackup", "pg_basebackup", "pg_receivewal"];

/// The version to present: what [`VARIABLE`] says, or the programs in the directory of `called_by`, or the newest that is known.
pub fn version(called_by: &OsStr) -> String {
    if let Some(version) = env::var(VARIABLE).ok().filter(|version| is_version(version)) {
        return version;
    }
    if env::var_os(ASKING).is_some() {
        return DEFAULT.to_owned();
    }
    let ours = env::current_exe().and_then(|path| path.canonicalize()).ok();
    let ask = |name: &&str| {
        let program = directory(called_by)?.join(name);
        let is_ours = program.canonicalize().ok()? == *ours.as_ref()?;
        if is_ours { None } else { ask(&program) }
    };
    NEIGHBORS.iter().find_map(ask).unwrap_or_else(|| DEFAULT.to_owned())
}

/// The directory of the name that a program was called by; links are not followed. C: `find_my_exec`.
fn directory(called_by: &OsStr) -> Option<PathBuf> {
    let path = Path::new(called_by);
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => Some(dir.to_owned()),
        _ => env::split_paths(&env::var_os("PATH")?).find(|dir| dir.join(path).is_file()),
    }
}

/// What `program` says after `NAME (PostgreSQL)`.
fn ask(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").env(ASKING, "1").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (_, version) = text.lines().next()?.split_once(" (PostgreSQL) ")?;
    is_version(version).then(|| version.to_owned())
}

/// A version is printed as it is: it starts with a number and stays on its line.
fn is_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit()) && !text.contains(char::is_control)
}

/// The major of a version.
pub fn major(version: &str) -> Option<u8> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert!(is_version("15.18 (Debian 15.18-0+deb12u1)") && is_version("19rc1"));
        assert!(!is_version("") && !is_version("v15") && !is_version("15\n16"));
        assert_eq!([major("15.18 (Debian)"), major("19rc1"), major("x")], [Some(15), Some(19), None]);
    }
}
