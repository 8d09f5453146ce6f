//! Messages in the form of PostgreSQL's client programs. C: common/logging.c.

use std::io::{self, IsTerminal, Write};

use pgwal::printable::printable;

use crate::console::write_stderr;

/// Severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The program ends because of it. C: `pg_fatal`.
    Fatal,
    /// Something is wrong. C: `pg_log_error`.
    Error,
    /// More about the message before. C: `pg_log_error_detail`.
    Detail,
    /// What to do about the message before. C: `pg_log_error_hint`.
    Hint,
    /// Something may be wrong. C: `pg_log_warning`.
    Warning,
    /// Information. C: `pg_log_info`.
    Info,
}

/// A line for standard error, as `program` of `major` writes it.
pub fn line(program: &str, major: u8, level: Level, text: &str, colors: &Colors) -> String {
    // Before 12 programs wrote their messages without the common logging functions.
    let (sgr, word) = match level {
        Level::Fatal if major < 12 => ("", "FATAL:  "),
        Level::Fatal if major < 15 => (colors.error.as_str(), "fatal: "),
        Level::Error if major < 12 => ("", ""),
        Level::Fatal | Level::Error => (colors.error.as_str(), "error: "),
        Level::Hint if major < 15 => return format!("{}\n", printable_message(text)),
        Level::Hint => (colors.note.as_str(), "hint: "),
        Level::Detail => (colors.note.as_str(), "detail: "),
        Level::Warning => (colors.warning.as_str(), "warning: "),
        Level::Info => ("", ""),
    };
    let program = paint(&colors.locus, &format!("{program}: "));
    format!("{program}{}{}\n", paint(sgr, word), printable_message(text))
}

/// A message as it may go to a terminal: names and texts in it may come from elsewhere. Tabs that libpq indents lines with stay.
pub fn printable_message(text: &str) -> String {
    let line = |line: &str| {
        let rest = line.trim_start_matches('\t');
        let (tabs, _) = line.split_at(line.len() - rest.len());
        format!("{tabs}{}", printable(rest))
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Writes a program's messages to standard error.
#[derive(Debug)]
pub struct Log {
    program: &'static str,
    colors: Colors,
    /// A closed pipe does not end the program.
    is_lasting: bool,
}

impl Log {
    /// Messages of `program`.
    pub fn new(program: &'static str) -> Log {
        Log { program, colors: Colors::from_env(io::stderr().is_terminal()), is_lasting: false }
    }

    /// Messages of a program that goes on where nobody reads them any more, so that it leaves nothing half done.
    pub fn lasting(program: &'static str) -> Log {
        Log { is_lasting: true, ..Log::new(program) }
    }

    /// Writes a message.
    pub fn say(&self, level: Level, text: &str) {
        let line = line(self.program, MAJOR, level, text, &self.colors);
        if self.is_lasting { write_stderr(line.as_bytes()) } else { to_stderr(&line) }
    }

    /// The hint that follows a wrong command line.
    pub fn try_help(&self) {
        self.say(Level::Hint, &format!("Try \"{} --help\" for more information.", self.program));
    }
}

/// Writes to standard error. Where that cannot be written, there is nowhere to say so; a closed pipe ends the program as it ends one in C.
pub fn to_stderr(text: &str) {
    if io::stderr().write_all(text.as_bytes()).is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        end_by_closed_pipe();
    }
}

/// Ends the program by SIGPIPE, as writing into a closed pipe ends a program in C. Should it return, the exit status has to do.
pub fn end_by_closed_pipe() {
    #[cfg(unix)]
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGPIPE);
}

/// Major whose form messages have where nothing asks for another one.
const MAJOR: u8 = 18;

/// Colors of messages, as terminal attributes; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Colors {
    error: String,
    warning: String,
    note: String,
    locus: String,
}

impl Colors {
    /// From the environment: `PG_COLOR` says whether, `PG_COLORS` which.
    pub fn from_env(is_terminal: bool) -> Colors {
        let wanted = match std::env::var("PG_COLOR").as_deref() {
            Ok("always") => true,
            Ok("auto") => is_terminal,
            _ => false,
        };
        match std::env::var("PG_COLORS") {
            _ if !wanted => Colors::default(),
            Ok(list) => Colors::parse(&list),
            Err(_) => Colors::parse("error=01;31:warning=01;35:note=01;36:locus=01"),
        }
    }

    fn parse(list: &str) -> Colors {
        let mut colors = Colors::default();
        for (name, value) in list.split(':').filter_map(|item| item.split_once('=')) {
            let place = match name {
                "error" => &mut colors.error,
                "warning" => &mut colors.warning,
                "note" => &mut colors.note,
                "locus" => &mut colors.locus,
                _ => continue,
            };
            value.clone_into(place);
        }
        colors
    }
}

fn paint(sgr: &str, text: &str) -> String {
    if sgr.is_empty() { text.to_owned() } else { format!("\x1b[{sgr}m{text}\x1b[0m") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_by_major() {
        let line = |major, level| line("pg_waldump", major, level, "x", &Colors::default());
        assert_eq!(line(18, Level::Fatal), "pg_waldump: error: x\n");
        assert_eq!(line(14, Level::Fatal), "pg_waldump: fatal: x\n");
        assert_eq!(line(14, Level::Error), "pg_waldump: error: x\n");
        assert_eq!(line(11, Level::Fatal), "pg_waldump: FATAL:  x\n");
        assert_eq!(line(11, Level::Error), "pg_waldump: x\n");
        assert_eq!(line(14, Level::Hint), "x\n");
        assert_eq!(line(15, Level::Hint), "pg_waldump: hint: x\n");
        assert_eq!(line(18, Level::Info), "pg_waldump: x\n");
        let colors = Colors::parse("error=31:locus=1:nonsense:other=7");
        assert_eq!(super::line("pg_waldump", 18, Level::Error, "x", &colors), "\x1b[1mpg_waldump: \x1b[0m\x1b[31merror: \x1b[0mx\n");
    }
}
