//! The command line of pg_receivewal.

use std::ffi::OsString;
use std::path::PathBuf;

use pgwal::Lsn;
use pgwal_stream::compress::{Compression, SpecError};

use crate::dropin::client;
use crate::dropin::getopt::{Argument, Opt, split_all};
use crate::dropin::wrong::{Wrong, take, too_many};
use crate::server::ClientArgs;
use crate::waldump::cscan::Scan;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// WAL is received into this directory.
    Receive(PathBuf),
    /// The slot is created.
    CreateSlot(String),
    /// The slot is dropped.
    DropSlot(String),
}

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    /// Which server.
    pub client: ClientArgs,
    /// What is to be done.
    pub action: Action,
    /// `-S`
    pub slot: Option<String>,
    /// `--if-not-exists`
    pub if_not_exists: bool,
    /// `-E`
    pub end: Option<Lsn>,
    /// `-n`
    pub no_loop: bool,
    /// `--no-sync`
    pub no_sync: bool,
    /// `--synchronous`
    pub synchronous: bool,
    /// `-s`, in seconds; 0: only when the server asks.
    pub status_interval: u64,
    /// `-v`
    pub verbose: bool,
    /// `-Z`
    pub compression: Compression,
}

const CREATE_SLOT: char = '\u{1}';
const DROP_SLOT: char = '\u{2}';
const IF_NOT_EXISTS: char = '\u{3}';
const SYNCHRONOUS: char = '\u{4}';
const NO_SYNC: char = '\u{5}';

/// Those of 18, which has all that releases before it have.
const OPTIONS: &[Opt] = &[
    Opt::new("help", '?', Argument::No),
    Opt::new("version", 'V', Argument::No),
    Opt::new("directory", 'D', Argument::Required),
    Opt::new("dbname", 'd', Argument::Required),
    Opt::new("endpos", 'E', Argument::Required),
    Opt::new("host", 'h', Argument::Required),
    Opt::new("port", 'p', Argument::Required),
    Opt::new("username", 'U', Argument::Required),
    Opt::new("no-loop", 'n', Argument::No),
    Opt::new("no-password", 'w', Argument::No),
    Opt::new("password", 'W', Argument::No),
    Opt::new("status-interval", 's', Argument::Required),
    Opt::new("slot", 'S', Argument::Required),
    Opt::new("verbose", 'v', Argument::No),
    Opt::new("compress", 'Z', Argument::Required),
    Opt::new("create-slot", CREATE_SLOT, Argument::No),
    Opt::new("drop-slot", DROP_SLOT, Argument::No),
    Opt::new("if-not-exists", IF_NOT_EXISTS, Argument::No),
    Opt::new("synchronous", SYNCHRONOUS, Argument::No),
    Opt::new("no-sync", NO_SYNC, Argument::No),
];

/// Takes the words in their order; the first that is wrong ends it. Then what does not go together is found, in the order of the real program.
pub fn parse(words: &[OsString]) -> Result<Options, Wrong> {
    let mut client = ClientArgs::default();
    let (mut dir, mut slot, mut end, mut compress) = (None, None, None, None);
    let (mut create_slot, mut drop_slot, mut if_not_exists, mut no_loop) = (false, false, false, false);
    let (mut no_sync, mut synchronous, mut verbose, mut status_interval) = (false, false, false, 10);
    let operands = take(split_all(words, OPTIONS), |id, value| {
        let value = value.unwrap_or_default();
        let text = || value.to_string_lossy().into_owned();
        match id {
            'D' => dir = Some(PathBuf::from(value)),
            'E' => match location(&text()) {
                Some(lsn) => end = Some(lsn),
                None => return Err(Wrong::Value(format!("could not parse end position \"{}\"", text()))),
            },
            'n' => no_loop = true,
            's' => status_interval = client::status_interval(&text())?,
            'S' => slot = Some(text()),
            'v' => verbose = true,
            'Z' => compress = Some(text()),
            CREATE_SLOT => create_slot = true,
            DROP_SLOT => drop_slot = true,
            IF_NOT_EXISTS => if_not_exists = true,
            SYNCHRONOUS => synchronous = true,
            NO_SYNC => no_sync = true,
            id if client::set(&mut client, id, &value) => {}
            _ => return Err(Wrong::Silent),
        }
        Ok(())
    })?;
    let usage = |message: String| Err(Wrong::Usage(message));
    if let Some(word) = operands.first() {
        return Err(too_many(word));
    }
    if drop_slot && create_slot {
        return usage("cannot use --create-slot together with --drop-slot".to_owned());
    }
    let needs_slot = |option: &str| Wrong::Usage(format!("{option} needs a slot to be specified using --slot"));
    let wanted = match (drop_slot, create_slot) {
        (true, _) => Some(Action::DropSlot(slot.clone().ok_or_else(|| needs_slot("--drop-slot"))?)),
        (_, true) => Some(Action::CreateSlot(slot.clone().ok_or_else(|| needs_slot("--create-slot"))?)),
        _ => None,
    };
    if synchronous && no_sync {
        return usage("cannot use --synchronous together with --no-sync".to_owned());
    }
    let action = match (wanted, dir) {
        (Some(action), _) => action,
        (None, Some(dir)) => Action::Receive(dir),
        (None, None) => return usage("no target directory specified".to_owned()),
    };
    let compression = compress.as_deref().unwrap_or("none").parse::<Compression>().map_err(|error| {
        Wrong::Value(match error {
            SpecError::Method(_) => error.to_string(),
            error => format!("invalid compression specification: {error}"),
        })
    })?;
    // An invalid LSN is as good as none.
    let end = end.filter(|lsn| lsn.is_valid());
    Ok(Options { client, action, slot, if_not_exists, end, no_loop, no_sync, synchronous, status_interval, verbose, compression })
}

/// A location as `sscanf` reads it by `%X/%X`: what follows does not count, and neither does what is more than 32 bits.
fn location(text: &str) -> Option<Lsn> {
    let mut scan = Scan::new(text.as_bytes());
    let high = scan.unsigned(16, usize::MAX)?;
    scan.literal(b"/")?;
    let low = scan.unsigned(16, usize::MAX)?;
    Some(Lsn(u64::from(high) << 32 | u64::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, Wrong> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn options_and_what_is_wrong_with_them() {
        let options = parsed("-D d -vn -E 1/2A -S s --no-sync -Z gzip:1 -s 0 -h h -U u").unwrap();
        assert_eq!(
            (options.action, options.end, options.slot.as_deref()),
            (Action::Receive("d".into()), Some(Lsn(0x1_0000_002A)), Some("s"))
        );
        assert_eq!((options.compression, options.status_interval), (Compression::Gzip(1), 0));
        assert!(options.verbose && options.no_loop && options.no_sync && !options.synchronous);
        assert_eq!(parsed("-D d --create-slot -S s").unwrap().action, Action::CreateSlot("s".to_owned()));
        assert_eq!(parsed("--drop-slot -S s").unwrap().action, Action::DropSlot("s".to_owned()));
        assert_eq!(parsed("-D d -E 0/0").unwrap().end, None);
        for (line, expected) in [
            ("", "no target directory specified"),
            ("-D d x", "too many command-line arguments (first is \"x\")"),
            ("-D d --create-slot --drop-slot", "cannot use --create-slot together with --drop-slot"),
            ("-D d --create-slot", "--create-slot needs a slot to be specified using --slot"),
            ("--drop-slot", "--drop-slot needs a slot to be specified using --slot"),
            ("-D d --synchronous --no-sync", "cannot use --synchronous together with --no-sync"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), Wrong::Usage(expected.to_owned()), "{line}");
        }
        let none = "invalid compression specification: compression algorithm \"none\" does not accept a compression level";
        for (line, expected) in [
            ("-D d -Z none:1", none),
            ("-D d -Z bzip2", "unrecognized compression algorithm: \"bzip2\""),
            ("-D d -E x", "could not parse end position \"x\""),
            ("-D d -E 1", "could not parse end position \"1\""),
            ("-D d -s 9999999", "-s/--status-interval must be in range 0..2147483"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), Wrong::Value(expected.to_owned()), "{line}");
        }
    }
}
