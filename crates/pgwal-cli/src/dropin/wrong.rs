//! Command lines that are wrong, and how programs say so.

use std::ffi::{OsStr, OsString};

use pgwal::printable::printable_bytes;

use super::getopt::Word;
use super::log::{Level, Log, printable_message, to_stderr};

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// getopt's message, which follows the name that the program was called by, and a hint.
    Getopt(String),
    /// A message and a hint.
    Usage(String),
    /// A message, a second line about it, and a hint.
    Detailed(String, &'static str),
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
                to_stderr(&format!("{}\n", printable_message(&format!("{program}: {text}"))));
            }
            Wrong::Usage(text) | Wrong::Value(text) => log.say(Level::Error, text),
            Wrong::Detailed(text, detail) => {
                log.say(Level::Error, text);
                log.say(Level::Detail, detail);
            }
            Wrong::Silent => {}
        }
        if !matches!(self, Wrong::Value(_)) {
            log.try_help();
        }
    }
}

/// Gives `set` the options among `words` in their order, until one is wrong; the words that are no options.
pub fn take<E: From<Wrong>>(words: Vec<Word>, mut set: impl FnMut(char, Option<OsString>) -> Result<(), E>) -> Result<Vec<OsString>, E> {
    let mut operands = Vec::new();
    for word in words {
        match word {
            Word::Operand(operand) => operands.push(operand),
            Word::Option(id, value) => set(id, value)?,
            Word::Wrong(Some(message)) => return Err(Wrong::Getopt(message).into()),
            Word::Wrong(None) => return Err(Wrong::Silent.into()),
        }
    }
    Ok(operands)
}

/// The error of an operand that the program does not take.
pub fn too_many(first: &OsStr) -> Wrong {
    Wrong::Usage(format!("too many command-line arguments (first is \"{}\")", printable_bytes(first.as_encoded_bytes())))
}
