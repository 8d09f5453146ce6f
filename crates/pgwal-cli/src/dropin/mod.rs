//! Drop-ins: under the name of a program of PostgreSQL, pgwal takes its options, prints its messages and ends with its exit status.

pub mod client;
pub mod getopt;
pub mod log;
pub mod path;
pub mod release;
pub mod wrong;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use self::log::{Level, Log};
use crate::fullpage::Errno;
use crate::{basebackup, receivewal, verifybackup, waldump};

/// A program that pgwal stands in for.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What `--help` prints.
    pub help: &'static str,
    /// Runs it. The arguments begin with the name that it was called by, and are neither `--help` nor `--version`.
    pub run: fn(&[OsString]) -> ExitCode,
}

/// Every program that pgwal stands in for.
const PROGRAMS: &[Program] = &[basebackup::PROGRAM, receivewal::PROGRAM, verifybackup::PROGRAM, waldump::PROGRAM];

/// The program that `called_by` names; `None`: pgwal itself.
pub fn find(called_by: &OsStr) -> Option<&'static Program> {
    let name = Path::new(called_by).file_stem()?;
    PROGRAMS.iter().find(|program| name == program.name)
}

impl Program {
    /// Runs the program. `args` begin with the name that it was called by.
    pub fn main(&self, args: &[OsString]) -> ExitCode {
        // C takes these two in the first place only.
        match args.get(1).and_then(|word| word.to_str()) {
            Some("--help" | "-?") => self.print(self.help),
            Some("--version" | "-V") => {
                let version = release::version(args.first().map_or(OsStr::new(""), OsString::as_os_str));
                let own = env!("CARGO_PKG_VERSION");
                // Programs that ask for a version read the first line, and people both.
                self.print(&format!("{} (PostgreSQL) {version}\npgwal {own}, standing in for it\n", self.name))
            }
            _ => (self.run)(args),
        }
    }

    fn print(&self, text: &str) -> ExitCode {
        print(&Log::new(self.name), text);
        ExitCode::SUCCESS
    }
}

/// Writes to standard output. A closed pipe ends the program as it ends one in C. On a full disk the real programs do not notice, and
/// their exit status is the same: so it is here, with a warning.
pub fn print(log: &Log, text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => log::end_by_closed_pipe(),
        Err(e) => log.say(Level::Warning, &format!("could not write to standard output: {}", Errno(&e))),
    }
}
