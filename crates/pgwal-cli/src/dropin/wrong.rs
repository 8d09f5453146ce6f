//! Command lines that are wrong, and how programs say so.

use std::ffi::OsString;

use super::log::{Level, Log, to_stderr};

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// getopt's message, which follows the name that the program was called by, and a hint.
    Getopt(String),
    /// A message and a hint.
    Usage(String),
    /// A message.
    Value(String),
    /// A hint.
    Silent,
}

impl Wrong {
    /// Says it. `args` begin with the name that the program was called by.
    pub fn say(&self, args: &[OsString], log: &Log) {
        match self {
            Wrong::Getopt(text) => {
                let program = args.first().map(|program| program.to_string_lossy()).unwrap_or_default();
                to_stderr(&format!("{program}: {text}\n"));
            }
            Wrong::Usage(text) | Wrong::Value(text) => log.say(Level::Error, text),
            Wrong::Silent => {}
        }
        if !matches!(self, Wrong::Value(_)) {
            log.try_help();
        }
    }
}
