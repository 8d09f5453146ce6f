//! Standard output and standard error: what commands print goes through here.
//!
//! Either may be closed, full, or a pipe that nobody reads, and `println!` and `eprintln!` panic there, in the middle of whatever is
//! being done. So they are forbidden in this crate. Notes on standard error are lost where it cannot be written, and nothing else is;
//! [`Output`] remembers that standard output failed, so that the exit status can say so.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, StdoutLock, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use pgwal::printable::{printable, printable_lines};

use crate::closed;

/// Says something on standard error, with the program's name before it.
macro_rules! note {
    ($($text:tt)*) => { $crate::console::note(format_args!($($text)*)) };
}

/// As the macro `note!`.
pub fn note(text: fmt::Arguments<'_>) {
    // In one piece, so that lines of two processes do not mix.
    write_stderr(format!("{}\n", note_text(text)).as_bytes());
}

/// What `note!` prints, for whoever prints it in another way.
pub fn note_text(text: impl fmt::Display) -> String {
    format!("pgwal: {}", printable_lines(text))
}

/// Writes to standard error as far as it can be written.
pub fn write_stderr(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes); // there is nowhere left to say so
}

/// Exit status of a command that could not run, was called wrongly, or could not write to standard output.
pub const COULD_NOT_RUN: u8 = 2;

/// Exit status of a command whose answer nobody reads, where status 0 would be an answer: as a shell has it for a program that SIGPIPE ended.
const CLOSED_PIPE: u8 = 128 + 13;

/// An error that ends a command with [`COULD_NOT_RUN`], where status 1 has another meaning.
#[derive(Debug)]
pub struct CouldNotRun(pub Box<dyn Error>);

impl fmt::Display for CouldNotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for CouldNotRun {}

/// Standard output, which remembers how it failed.
///
/// Errors take many forms on their way up, and a connection to a server can break like a pipe: only this knows which it was.
pub struct Output {
    stdout: StdoutLock<'static>,
    failed: Option<io::Error>,
}

impl Output {
    /// Takes standard output.
    pub fn new() -> Output {
        Output { stdout: io::stdout().lock(), failed: None }
    }

    /// Ends the output. `None`: all of it was written; otherwise the exit status, after a word on standard error. `is_answer`: the exit status
    /// says what was found, so that a pipe that nobody reads must not make it 0.
    pub fn finish(mut self, is_answer: bool) -> Option<ExitCode> {
        let _ = self.flush(); // it is remembered
        let failed = self.failed?;
        if is_answer && failed.kind() == io::ErrorKind::BrokenPipe {
            return Some(CLOSED_PIPE.into());
        }
        Some(output_failed(&failed))
    }

    fn remember<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(e) = &result
            && e.kind() != io::ErrorKind::Interrupted
            && self.failed.is_none()
        {
            self.failed = Some(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error));
        }
        result
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = closed::check_stdout().and_then(|()| self.stdout.write(bytes));
        self.remember(result)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = closed::check_stdout().and_then(|()| self.stdout.write_all(bytes));
        self.remember(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.stdout.flush();
        self.remember(result)
    }
}

/// What it comes to that standard output cannot be written.
fn output_failed(error: &io::Error) -> ExitCode {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ExitCode::SUCCESS; // whoever read it has seen enough
    }
    note!("cannot write to standard output: {error}");
    ExitCode::from(COULD_NOT_RUN)
}

/// Prints what clap has to say about the command line: an error, or the help that was asked for.
pub fn answer(answer: &clap::Error) -> ExitCode {
    let is_open = if answer.use_stderr() { Ok(()) } else { closed::check_stdout() };
    let printed = is_open.and_then(|()| answer.print()).and_then(|()| io::stdout().flush());
    match (answer.use_stderr(), printed) {
        (true, _) => ExitCode::from(COULD_NOT_RUN),
        (false, Ok(())) => ExitCode::SUCCESS,
        (false, Err(error)) => output_failed(&error),
    }
}

/// Reads the command line with `parse`.
///
/// # Errors
/// What is wrong with it. Arguments are quoted there, and may be names of files that the shell filled in: without control characters.
pub fn parse<T>(args: &[OsString], parse: impl Fn(Vec<OsString>) -> Result<T, clap::Error>) -> Result<T, clap::Error> {
    let wrong = match parse(args.to_vec()) {
        Ok(parsed) => return Ok(parsed),
        Err(wrong) => wrong,
    };
    let safe: Vec<OsString> = args.iter().map(|arg| printable(arg.to_string_lossy()).to_string().into()).collect();
    Err(if safe == args { wrong } else { parse(safe).err().unwrap_or_else(|| clap::Error::new(ErrorKind::InvalidValue)) })
}
