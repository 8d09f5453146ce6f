//! `pgwal dump` under its own name.

mod exits;
mod fixtures;
mod hostile;
mod inputs;
mod json;
mod live;
mod memory;
mod options;
#[cfg(unix)]
mod unreadable;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `pgwal dump` in `dir`, in the time zone that the fixtures were printed in.
fn dump<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = pgwal(dir, ["dump"]);
    command.args(args);
    command
}

/// `pgwal` in `dir`, in that time zone.
fn pgwal<S: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    command.args(args).current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C").env_remove("PGDATA").stdin(Stdio::null());
    command
}

/// What a run came to, in a form whose difference can be read.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    status: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let status = output.status.code().unwrap_or(-1);
        Ran { status, stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

/// Runs `command` to its end.
#[track_caller]
fn run(command: &mut Command) -> Ran {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}")).into()
}

/// Fails with the first line that differs.
#[track_caller]
fn same_bytes(what: &str, found: &[u8], expected: &[u8]) {
    if found == expected {
        return;
    }
    let lines = |bytes: &[u8]| bytes.split(|&b| b == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>();
    let (found, expected) = (lines(found), lines(expected));
    let at = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    let line = |lines: &[String]| lines.get(at).map_or("(none)".to_owned(), |line| line.chars().take(2000).collect());
    panic!(
        "{what}: line {} of {} (expected {})\n   found: {}\nexpected: {}",
        at + 1,
        found.len(),
        expected.len(),
        line(&found),
        line(&expected)
    );
}
