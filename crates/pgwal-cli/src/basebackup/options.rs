//! The command line of pg_basebackup.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pgwal_stream::backup::manifest::Algorithm;
use pgwal_stream::backup::{Form, ManifestOptions, Packing, Slot, SyncMethod, WalMethod};
use pgwal_stream::compress::SpecError;

use crate::dropin::client;
use crate::dropin::getopt::{Argument, Opt, split_all};
use crate::dropin::path::canonicalize;
use crate::dropin::wrong::{Wrong, take, too_many};
use crate::server::ClientArgs;

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    /// Which server.
    pub client: ClientArgs,
    /// `-D`; `-` with the tar form: standard output. `None` with a target only.
    pub dir: Option<PathBuf>,
    /// `-t`: name and detail; `None` also where it is the client.
    pub target: Option<(String, Option<String>)>,
    /// `-F`
    pub form: Form,
    /// `-X`
    pub wal: WalMethod,
    /// `-S`, `-C`, `--no-slot`
    pub slot: Slot,
    /// `-i`
    pub incremental: Option<PathBuf>,
    /// `-r`, in kilobytes a second.
    pub max_rate: Option<u32>,
    /// `-R`
    pub recovery: bool,
    /// `-T`, each one.
    pub tablespaces: Vec<(PathBuf, PathBuf)>,
    /// `--waldir`
    pub wal_dir: Option<PathBuf>,
    /// `-z`, `-Z`
    pub packing: Packing,
    /// `-c`
    pub fast: bool,
    /// `-l`
    pub label: String,
    /// `-n`
    pub no_clean: bool,
    /// `-N`, `--sync-method`
    pub sync: SyncMethod,
    /// `-P`
    pub progress: bool,
    /// `-v`
    pub verbose: bool,
    /// `-s`, in seconds; 0: only when the server asks.
    pub status_interval: u64,
    /// `--manifest-checksums`, `--manifest-force-encode`, `--no-manifest`
    pub manifest: Option<ManifestOptions>,
    /// `--no-verify-checksums` is not given.
    pub verify_checksums: bool,
}

const WALDIR: char = '\u{1}';
const NO_SLOT: char = '\u{2}';
const NO_VERIFY_CHECKSUMS: char = '\u{3}';
const NO_ESTIMATE_SIZE: char = '\u{4}';
const NO_MANIFEST: char = '\u{5}';
const FORCE_ENCODE: char = '\u{6}';
const CHECKSUMS: char = '\u{7}';
const SYNC_METHOD: char = '\u{8}';

/// Those of 18, which has all that releases before it have.
const OPTIONS: &[Opt] = &[
    Opt::new("help", '?', Argument::No),
    Opt::new("version", 'V', Argument::No),
    Opt::new("pgdata", 'D', Argument::Required),
    Opt::new("format", 'F', Argument::Required),
    Opt::new("incremental", 'i', Argument::Required),
    Opt::new("checkpoint", 'c', Argument::Required),
    Opt::new("create-slot", 'C', Argument::No),
    Opt::new("max-rate", 'r', Argument::Required),
    Opt::new("write-recovery-conf", 'R', Argument::No),
    Opt::new("slot", 'S', Argument::Required),
    Opt::new("target", 't', Argument::Required),
    Opt::new("tablespace-mapping", 'T', Argument::Required),
    Opt::new("wal-method", 'X', Argument::Required),
    Opt::new("gzip", 'z', Argument::No),
    Opt::new("compress", 'Z', Argument::Required),
    Opt::new("label", 'l', Argument::Required),
    Opt::new("no-clean", 'n', Argument::No),
    Opt::new("no-sync", 'N', Argument::No),
    Opt::new("dbname", 'd', Argument::Required),
    Opt::new("host", 'h', Argument::Required),
    Opt::new("port", 'p', Argument::Required),
    Opt::new("username", 'U', Argument::Required),
    Opt::new("no-password", 'w', Argument::No),
    Opt::new("password", 'W', Argument::No),
    Opt::new("status-interval", 's', Argument::Required),
    Opt::new("verbose", 'v', Argument::No),
    Opt::new("progress", 'P', Argument::No),
    Opt::new("waldir", WALDIR, Argument::Required),
    Opt::new("no-slot", NO_SLOT, Argument::No),
    Opt::new("no-verify-checksums", NO_VERIFY_CHECKSUMS, Argument::No),
    Opt::new("no-estimate-size", NO_ESTIMATE_SIZE, Argument::No),
    Opt::new("no-manifest", NO_MANIFEST, Argument::No),
    Opt::new("manifest-force-encode", FORCE_ENCODE, Argument::No),
    Opt::new("manifest-checksums", CHECKSUMS, Argument::Required),
    Opt::new("sync-method", SYNC_METHOD, Argument::Required),
];

/// The words as they come, before they are held against each other.
#[derive(Default)]
struct Raw {
    client: ClientArgs,
    dir: Option<OsString>,
    target: Option<String>,
    form: Option<Form>,
    wal: Option<WalMethod>,
    slot: Option<String>,
    create_slot: bool,
    no_slot: bool,
    incremental: Option<PathBuf>,
    max_rate: Option<u32>,
    recovery: bool,
    tablespaces: Vec<(PathBuf, PathBuf)>,
    wal_dir: Option<OsString>,
    compress: Option<String>,
    fast: bool,
    label: Option<String>,
    no_clean: bool,
    no_sync: bool,
    sync: SyncMethod,
    progress: bool,
    verbose: bool,
    status_interval: Option<u64>,
    no_estimate_size: bool,
    no_manifest: bool,
    force_encode: bool,
    checksums: Option<String>,
    no_verify_checksums: bool,
}

/// Takes the words in their order; the first that is wrong ends it. Then what does not go together is found, in the order of the real program.
pub fn parse(words: &[OsString]) -> Result<Options, Wrong> {
    let mut raw = Raw::default();
    let operands = take(split_all(words, OPTIONS), |id, value| raw.set(id, value.unwrap_or_default()))?;
    match operands.first() {
        Some(word) => Err(too_many(word)),
        None => raw.check(),
    }
}

impl Raw {
    fn set(&mut self, id: char, value: OsString) -> Result<(), Wrong> {
        let text = || value.to_string_lossy().into_owned();
        let wrong = |message: String| Err(Wrong::Value(message));
        match id {
            'D' => self.dir = Some(value),
            'F' => match text().as_str() {
                "p" | "plain" => self.form = Some(Form::Plain),
                "t" | "tar" => self.form = Some(Form::Tar),
                text => return wrong(format!("invalid output format \"{text}\", must be \"plain\" or \"tar\"")),
            },
            'i' => self.incremental = Some(value.into()),
            'c' if value.eq_ignore_ascii_case("fast") => self.fast = true,
            'c' if value.eq_ignore_ascii_case("spread") => self.fast = false,
            'c' => return wrong(format!("invalid checkpoint argument \"{}\", must be \"fast\" or \"spread\"", text())),
            'C' => self.create_slot = true,
            'r' => self.max_rate = Some(max_rate(&text())?),
            'R' => self.recovery = true,
            'S' => self.slot = Some(text()),
            't' => self.target = Some(text()),
            'T' => self.tablespaces.push(mapping(&text())?),
            'X' => match text().as_str() {
                "n" | "none" => self.wal = Some(WalMethod::None),
                "f" | "fetch" => self.wal = Some(WalMethod::Fetch),
                "s" | "stream" => self.wal = Some(WalMethod::Stream),
                text => return wrong(format!("invalid wal-method option \"{text}\", must be \"fetch\", \"stream\", or \"none\"")),
            },
            'z' => self.compress = Some("gzip".to_owned()),
            'Z' => self.compress = Some(text()),
            'l' => self.label = Some(text()),
            'n' => self.no_clean = true,
            'N' => self.no_sync = true,
            's' => self.status_interval = Some(client::status_interval(&text())?),
            'v' => self.verbose = true,
            'P' => self.progress = true,
            WALDIR => self.wal_dir = Some(value),
            NO_SLOT => self.no_slot = true,
            NO_VERIFY_CHECKSUMS => self.no_verify_checksums = true,
            NO_ESTIMATE_SIZE => self.no_estimate_size = true,
            NO_MANIFEST => self.no_manifest = true,
            FORCE_ENCODE => self.force_encode = true,
            CHECKSUMS => self.checksums = Some(text()),
            SYNC_METHOD => match text().as_str() {
                "fsync" => self.sync = SyncMethod::Fsync,
                "syncfs" => self.sync = SyncMethod::Syncfs,
                text => return wrong(format!("unrecognized sync method: {text}")),
            },
            id if client::set(&mut self.client, id, &value) => {}
            _ => return Err(Wrong::Silent),
        }
        Ok(())
    }

    /// What goes together. C: `main`, from the end of its loop over the options on.
    fn check(self) -> Result<Options, Wrong> {
        let usage = |message: &str| Err(Wrong::Usage(message.to_owned()));
        let target = self.target.as_deref().filter(|target| *target != "client");
        if target.is_some() && self.form.is_some() {
            return usage("cannot specify both format and backup target");
        }
        let form = self.form.unwrap_or_default();
        match (&self.dir, target) {
            (None, None) => return usage("must specify output directory or backup target"),
            (Some(_), Some(_)) => return usage("cannot specify both output directory and backup target"),
            _ => {}
        }
        let packing = Packing::parse(self.compress.as_deref().unwrap_or("none"), target.is_some());
        let packing = packing.map_err(|error| {
            Wrong::Value(match error {
                SpecError::Method(_) => error.to_string(),
                error => format!("invalid compression specification: {error}"),
            })
        })?;
        let is_client = matches!(packing, Packing::Client(_));
        if target.is_some() && is_client {
            return usage("client-side compression is not possible when a backup target is specified");
        }
        if form == Form::Plain && is_client {
            return usage("only tar mode backups can be compressed");
        }
        let wal = self.wal.unwrap_or_default();
        let is_stdout = form == Form::Tar && self.dir.as_deref().is_some_and(|dir| dir == "-");
        if wal == WalMethod::Stream {
            if target.is_some() {
                return usage("WAL cannot be streamed when a backup target is specified");
            }
            if is_stdout {
                return usage("cannot stream write-ahead logs in tar mode to stdout");
            }
        } else if self.slot.is_some() {
            return usage("replication slots can only be used with WAL streaming");
        }
        if self.no_slot && self.slot.is_some() {
            return usage("--no-slot cannot be used with slot name");
        }
        if self.create_slot && self.slot.is_none() {
            return usage("--create-slot needs a slot to be specified using --slot");
        }
        let wal_dir = self.wal_dir.as_deref().map(canonicalize);
        if let Some(wal_dir) = &wal_dir {
            if target.is_some() {
                return usage("WAL directory location cannot be specified along with a backup target");
            }
            if form != Form::Plain {
                return usage("WAL directory location can only be specified in plain mode");
            }
            if !wal_dir.is_absolute() {
                return usage("WAL directory location must be an absolute path");
            }
        }
        if self.progress && self.no_estimate_size {
            return usage("--progress and --no-estimate-size are incompatible options");
        }
        if self.no_manifest && self.checksums.is_some() {
            return usage("--no-manifest and --manifest-checksums are incompatible options");
        }
        if self.no_manifest && self.force_encode {
            return usage("--no-manifest and --manifest-force-encode are incompatible options");
        }
        let checksums = match self.checksums.as_deref() {
            None => Some(Algorithm::Crc32c),
            Some(name) if name.eq_ignore_ascii_case("none") => None,
            Some(name) => match Algorithm::by_name(name) {
                Some(algorithm) => Some(algorithm),
                // The server's words, which it would say to it.
                None => return Err(Wrong::Value(format!("unrecognized checksum algorithm: \"{name}\""))),
            },
        };
        let target = target.map(|target| match target.split_once(':') {
            Some((name, detail)) => (name.to_owned(), Some(detail.to_owned())),
            None => (target.to_owned(), None),
        });
        Ok(Options {
            client: self.client,
            dir: self.dir.map(PathBuf::from),
            target,
            form,
            wal,
            slot: match self.slot {
                Some(name) => Slot::Named { name, create: self.create_slot },
                None if self.no_slot => Slot::None,
                None => Slot::Temporary,
            },
            incremental: self.incremental,
            max_rate: self.max_rate,
            recovery: self.recovery,
            tablespaces: self.tablespaces,
            wal_dir,
            packing,
            fast: self.fast,
            label: self.label.unwrap_or_else(|| "pg_basebackup base backup".to_owned()),
            no_clean: self.no_clean,
            sync: if self.no_sync { SyncMethod::None } else { self.sync },
            progress: self.progress,
            verbose: self.verbose,
            status_interval: self.status_interval.unwrap_or(10),
            manifest: (!self.no_manifest).then_some(ManifestOptions { checksums, force_encode: self.force_encode }),
            verify_checksums: !self.no_verify_checksums,
        })
    }
}

impl Options {
    /// The backup goes to standard output.
    pub fn is_stdout(&self) -> bool {
        self.form == Form::Tar && self.dir.as_deref() == Some(Path::new("-"))
    }
}

/// `OLDDIR=NEWDIR`, with `\=` for a `=` in a name. C: `tablespace_list_append`.
fn mapping(text: &str) -> Result<(PathBuf, PathBuf), Wrong> {
    let wrong = |message: String| Err(Wrong::Value(message));
    let (mut old, mut new) = (String::new(), String::new());
    let mut is_new = false;
    let mut previous = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'=') => {}
            '=' if previous != Some('\\') => {
                if !new.is_empty() {
                    return wrong("multiple \"=\" signs in tablespace mapping".to_owned());
                }
                is_new = true;
            }
            c if is_new => new.push(c),
            c => old.push(c),
        }
        previous = Some(c);
    }
    if old.is_empty() || new.is_empty() {
        return wrong(format!("invalid tablespace mapping format \"{text}\", must be \"OLDDIR=NEWDIR\""));
    }
    for (which, dir) in [("old", &old), ("new", &new)] {
        if !dir.starts_with('/') {
            return wrong(format!("{which} directory is not an absolute path in tablespace mapping: {dir}"));
        }
    }
    Ok((canonicalize(old.as_ref()), canonicalize(new.as_ref())))
}

/// Kilobytes a second. C: `parse_max_rate`.
fn max_rate(text: &str) -> Result<u32, Wrong> {
    let wrong = |message: String| Err(Wrong::Value(message));
    let space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let start = text.trim_start_matches(space);
    // As far as strtod takes it for a number.
    let number = (1..=start.len()).rev().filter_map(|len| start.get(..len)).find_map(|prefix| {
        let is_number = prefix.ends_with(|c: char| c.is_ascii_digit() || c == '.') && !prefix.contains(space);
        prefix.parse::<f64>().ok().filter(|_| is_number).map(|number| (number, prefix.len()))
    });
    let Some((number, len)) = number else { return wrong(format!("transfer rate \"{text}\" is not a valid value")) };
    if number <= 0.0 {
        return wrong("transfer rate must be greater than zero".to_owned());
    }
    let unit = start.get(len..).unwrap_or_default().trim_start_matches(space);
    let factor = match unit.trim_end_matches(space) {
        "" | "k" => 1.0,
        "M" => 1024.0,
        _ => return wrong(format!("invalid --max-rate unit: \"{unit}\"")),
    };
    let rate = number * factor;
    if rate >= f64::from(u32::MAX) {
        return wrong(format!("transfer rate \"{text}\" exceeds integer range"));
    }
    if !(32.0..=1_048_576.0).contains(&rate) {
        return wrong(format!("transfer rate \"{text}\" is out of range"));
    }
    Ok(rate as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, Wrong> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn options_and_what_they_come_to() {
        let options =
            parsed("-D b -Xf -cFAST -Ft -Z9 -r 1M -T/a\\=b/=/c/ -l x -h h -p 1 -U u -w -NPvn --manifest-checksums=sha256").unwrap();
        assert_eq!((options.dir.as_deref(), options.form, options.wal), (Some(Path::new("b")), Form::Tar, WalMethod::Fetch));
        assert_eq!(options.packing, Packing::parse("gzip:9", false).unwrap());
        assert_eq!(options.tablespaces, [(PathBuf::from("/a=b"), PathBuf::from("/c"))]);
        assert_eq!((options.max_rate, options.label.as_str(), options.sync), (Some(1024), "x", SyncMethod::None));
        assert_eq!((options.client.host.as_deref(), options.client.port.as_deref()), (Some("h"), Some("1")));
        assert!(options.fast && options.progress && options.verbose && options.no_clean);
        let usual = parsed("-D b").unwrap();
        assert_eq!((usual.slot, usual.wal, usual.form), (Slot::Temporary, WalMethod::Stream, Form::Plain));
        assert_eq!((usual.label.as_str(), usual.status_interval), ("pg_basebackup base backup", 10));
        let target = parsed("-t server:/a:b -X none -z").unwrap();
        assert_eq!(target.target, Some(("server".to_owned(), Some("/a:b".to_owned()))));
        assert_eq!(target.packing, Packing::Server { method: "gzip".to_owned(), detail: None });
        assert!(parsed("-t client -D b").unwrap().target.is_none());
        assert!(parsed("-D - -Ft -Xn").unwrap().is_stdout() && !parsed("-D -").unwrap().is_stdout());
    }

    #[test]
    fn what_does_not_go_together() {
        for (line, expected) in [
            ("", "must specify output directory or backup target"),
            ("-D b x y", "too many command-line arguments (first is \"x\")"),
            ("-t blackhole -Xn -Ft", "cannot specify both format and backup target"),
            ("-t blackhole -D b", "cannot specify both output directory and backup target"),
            ("-t blackhole -Xn -Z client-none", "client-side compression is not possible when a backup target is specified"),
            ("-D b -z", "only tar mode backups can be compressed"),
            ("-t blackhole", "WAL cannot be streamed when a backup target is specified"),
            ("-D - -Ft", "cannot stream write-ahead logs in tar mode to stdout"),
            ("-D b -Xf -S s", "replication slots can only be used with WAL streaming"),
            ("-D b -C -S s --no-slot", "--no-slot cannot be used with slot name"),
            ("-D b -C", "--create-slot needs a slot to be specified using --slot"),
            ("-t blackhole -Xn --waldir /w", "WAL directory location cannot be specified along with a backup target"),
            ("-D b -Ft --waldir /w", "WAL directory location can only be specified in plain mode"),
            ("-D b --waldir w", "WAL directory location must be an absolute path"),
            ("-D b -P --no-estimate-size", "--progress and --no-estimate-size are incompatible options"),
            ("-D b --no-manifest --manifest-checksums none", "--no-manifest and --manifest-checksums are incompatible options"),
            ("-D b --no-manifest --manifest-force-encode", "--no-manifest and --manifest-force-encode are incompatible options"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), Wrong::Usage(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn values_that_are_wrong() {
        for (line, expected) in [
            ("-D b -F x", "invalid output format \"x\", must be \"plain\" or \"tar\""),
            ("-D b -X x", "invalid wal-method option \"x\", must be \"fetch\", \"stream\", or \"none\""),
            ("-D b -c x", "invalid checkpoint argument \"x\", must be \"fast\" or \"spread\""),
            ("-D b --sync-method x", "unrecognized sync method: x"),
            ("-D b --manifest-checksums md5", "unrecognized checksum algorithm: \"md5\""),
            ("-D b -Z none:1", "invalid compression specification: compression algorithm \"none\" does not accept a compression level"),
            ("-D b -Z none+", "unrecognized compression algorithm: \"none+\""),
            ("-T=/foo", "invalid tablespace mapping format \"=/foo\", must be \"OLDDIR=NEWDIR\""),
            ("-T/foo=", "invalid tablespace mapping format \"/foo=\", must be \"OLDDIR=NEWDIR\""),
            ("-Tfoo", "invalid tablespace mapping format \"foo\", must be \"OLDDIR=NEWDIR\""),
            ("-T/foo=/bar=/baz", "multiple \"=\" signs in tablespace mapping"),
            ("-Tfoo=/bar", "old directory is not an absolute path in tablespace mapping: foo"),
            ("-T/foo=bar", "new directory is not an absolute path in tablespace mapping: bar"),
            ("-r x", "transfer rate \"x\" is not a valid value"),
            ("-r -5", "transfer rate must be greater than zero"),
            ("-r 0", "transfer rate must be greater than zero"),
            ("-r 31", "transfer rate \"31\" is out of range"),
            ("-r 64G", "invalid --max-rate unit: \"G\""),
            ("-r 64kB", "invalid --max-rate unit: \"kB\""),
            ("-r 2000M", "transfer rate \"2000M\" is out of range"),
            ("-r 1e12", "transfer rate \"1e12\" exceeds integer range"),
            ("-s x", "invalid value \"x\" for option -s/--status-interval"),
            ("-s -1", "-s/--status-interval must be in range 0..2147483"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), Wrong::Value(expected.to_owned()), "{line}");
        }
        assert_eq!([max_rate("32.5"), max_rate(" 0.5 M "), max_rate("1024M")], [Ok(32), Ok(512), Ok(1_048_576)]);
        assert_eq!(parsed("-D b -q").unwrap_err(), Wrong::Getopt("invalid option -- 'q'".to_owned()));
        assert_eq!(parsed("-D b --help").unwrap_err(), Wrong::Silent);
    }
}
