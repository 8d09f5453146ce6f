//! The command line of pg_waldump.

use std::ffi::OsString;

use pgwal::filter::{Filter, OneOf, RmgrSet};
use pgwal::rmgr::{RMGRS, RmgrId};
use pgwal::types::{BlockNumber, ForkNumber, Oid, RelFileLocator, Xid};
use pgwal::{Lsn, TimelineId};

use super::cscan::{Scan, strtoul};
use super::wording::Wording;
use crate::dropin::getopt::{self, Argument, Opt, Word};
use crate::dropin::wrong::{Wrong, take, too_many};

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `-b`
    pub details: bool,
    /// `-f`
    pub follow: bool,
    /// `-q`
    pub quiet: bool,
    /// `-z`: by resource manager, or by record type.
    pub stats: Option<Stats>,
    /// `-n`; none where it is not positive.
    pub limit: Option<u64>,
    /// `-r -x -R -B -F -w`
    pub filter: Filter,
    /// `-p`
    pub path: Option<OsString>,
    /// `-s`; invalid: not given.
    pub start: Lsn,
    /// `-e`; invalid: not given.
    pub end: Lsn,
    /// `-t`; the name of a segment file may replace it.
    pub timeline: Option<TimelineId>,
    /// `--save-fullpage`
    pub save_fullpage: Option<OsString>,
    /// STARTSEG and ENDSEG, and what is too much.
    pub operands: Vec<OsString>,
}

/// How statistics are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stats {
    /// By resource manager.
    Rmgr,
    /// By record type.
    Record,
}

/// What the command line comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// Go on.
    Run(Box<Options>),
    /// Show the names of the resource managers and end.
    ListRmgrs,
    /// An option is wrong.
    Wrong(Wrong),
}

impl From<Wrong> for Parsed {
    fn from(wrong: Wrong) -> Parsed {
        Parsed::Wrong(wrong)
    }
}

/// Options of every major; those of a later one work on WAL of an earlier one too.
const OPTIONS: &[Opt] = &[
    opt("bkp-details", 'b', Argument::No, 10),
    opt("block", 'B', Argument::Required, 15),
    opt("end", 'e', Argument::Required, 10),
    opt("follow", 'f', Argument::No, 10),
    opt("fork", 'F', Argument::Required, 15),
    opt("fullpage", 'w', Argument::No, 15),
    opt("help", '?', Argument::No, 10),
    opt("limit", 'n', Argument::Required, 10),
    opt("path", 'p', Argument::Required, 10),
    opt("quiet", 'q', Argument::No, 13),
    opt("relation", 'R', Argument::Required, 15),
    opt("rmgr", 'r', Argument::Required, 10),
    opt("start", 's', Argument::Required, 10),
    opt("timeline", 't', Argument::Required, 10),
    opt("xid", 'x', Argument::Required, 10),
    opt("version", 'V', Argument::No, 10),
    opt("stats", 'z', Argument::Optional, 10),
    opt("save-fullpage", SAVE_FULLPAGE, Argument::Required, 16),
];

const SAVE_FULLPAGE: char = '\u{1}';

const fn opt(long: &'static str, id: char, argument: Argument, since: u8) -> Opt {
    Opt { long, id, argument, since }
}

/// Looks for the WAL that the command line names, whatever else is wrong with it: its major words the messages.
pub fn peek(words: &[OsString]) -> (Option<OsString>, Option<OsString>) {
    let (mut path, mut first) = (None, None);
    for word in getopt::split(words, OPTIONS, u8::MAX, getopt::posix()) {
        match word {
            Word::Option('p', value) => path = value,
            Word::Operand(operand) if first.is_none() => first = Some(operand),
            _ => {}
        }
    }
    (path, first)
}

/// Takes the words in their order; the first that is wrong ends it.
pub fn parse(words: &[OsString], wording: Wording) -> Parsed {
    options(words, wording).map_or_else(|other| other, |options| Parsed::Run(Box::new(options)))
}

/// The options; an error is what else the command line comes to.
fn options(words: &[OsString], wording: Wording) -> Result<Options, Parsed> {
    let mut options = Options::default();
    let words = getopt::split(words, OPTIONS, wording.major, getopt::posix());
    options.operands = take(words, |id, value| match (id, &value) {
        ('r', Some(name)) if name.eq_ignore_ascii_case("list") => Err(Parsed::ListRmgrs),
        _ => options.set(id, value, wording).map_err(Parsed::from),
    })?;
    options.check()?;
    Ok(options)
}

impl Options {
    fn set(&mut self, id: char, value: Option<OsString>, wording: Wording) -> Result<(), Wrong> {
        let by_rmgr = value.is_none();
        let value = value.unwrap_or_default();
        let bytes = value.as_encoded_bytes();
        let text = String::from_utf8_lossy(bytes);
        let wrong = |message: String| Wrong::Usage(message);
        match id {
            'b' => self.details = true,
            'f' => self.follow = true,
            'q' => self.quiet = true,
            'w' => self.filter.full_page = true,
            'p' => self.path = Some(value),
            SAVE_FULLPAGE => self.save_fullpage = Some(value),
            'B' => {
                let block = Scan::new(bytes).unsigned(10, usize::MAX).map(BlockNumber).filter(|&block| block != BlockNumber::INVALID);
                self.filter.block = Some(block.ok_or_else(|| wrong(format!("invalid block number: \"{text}\"")))?);
            }
            'e' => self.end = location(bytes, wording).ok_or_else(|| wrong(wording.bad_location("end", &text)))?,
            's' => self.start = location(bytes, wording).ok_or_else(|| wrong(wording.bad_location("start", &text)))?,
            'F' => {
                let fork = (0u8..).zip(ForkNumber::NAMES).find(|(_, name)| *name == text);
                let (number, _) = fork.ok_or_else(|| wrong(format!("invalid fork name: \"{text}\"")))?;
                self.filter.fork = Some(ForkNumber(number));
            }
            'n' => {
                let limit = Scan::new(bytes).signed(usize::MAX).ok_or_else(|| wrong(wording.bad_limit(&text)))?;
                self.limit = u64::try_from(limit).ok().filter(|&limit| limit > 0);
            }
            'r' => {
                // Before 15 the last one counted alone, and one with a wrong name was passed over behind a good one.
                match (rmgr(bytes, &text, wording), &mut self.filter.rmgrs) {
                    (Ok(rmgr), Some(rmgrs)) if wording.major >= 15 => rmgrs.insert(rmgr),
                    (Ok(rmgr), rmgrs) => *rmgrs = Some(RmgrSet::from_iter([rmgr])),
                    (Err(_), Some(_)) if wording.major < 15 => {}
                    (Err(wrong), _) => return Err(wrong),
                }
            }
            'R' => {
                let detail = "Expecting \"tablespace OID/database OID/relation filenode\".";
                let bad = || Wrong::Detailed(format!("invalid relation specification: \"{text}\""), detail);
                self.filter.relations = Some(OneOf::from_iter([relation(bytes).ok_or_else(bad)?]));
            }
            't' => self.timeline = Some(timeline(bytes, &text, wording)?),
            'x' => {
                let xid = Scan::new(bytes).unsigned(10, usize::MAX);
                let xid = Xid(xid.ok_or_else(|| wrong(wording.bad_xid(&text)))?);
                self.filter.xids = Some(OneOf::from_iter([xid]));
            }
            'z' => {
                self.stats = Some(match &*text {
                    _ if by_rmgr => Stats::Rmgr,
                    "rmgr" => Stats::Rmgr,
                    "record" => Stats::Record,
                    _ => return Err(wrong(wording.bad_stats(&text))),
                });
            }
            _ => return Err(Wrong::Silent),
        }
        Ok(())
    }

    /// What can be wrong with the options together.
    fn check(&self) -> Result<(), Wrong> {
        if self.filter.block.is_some() && self.filter.relations.is_none() {
            return Err(Wrong::Usage("option -B/--block requires option -R/--relation to be specified".to_owned()));
        }
        if let Some(third) = self.operands.get(2) {
            return Err(too_many(third));
        }
        Ok(())
    }
}

fn location(text: &[u8], wording: Wording) -> Option<Lsn> {
    let mut scan = Scan::new(text);
    let high = scan.unsigned(16, usize::MAX)?;
    scan.literal(b"/")?;
    let low = scan.unsigned(16, if wording.major >= 19 { 8 } else { usize::MAX })?;
    Some(Lsn(u64::from(high) << 32 | u64::from(low)))
}

fn rmgr(bytes: &[u8], text: &str, wording: Wording) -> Result<RmgrId, Wrong> {
    let mut scan = Scan::new(bytes);
    let custom = scan.literal(b"custom").and_then(|()| scan.signed(3));
    if let (Some(number), 15..) = (custom, wording.major) {
        let id = u8::try_from(number).ok().map(RmgrId).filter(|id| id.is_custom());
        return id.ok_or_else(|| Wrong::Usage(format!("custom resource manager \"{text}\" does not exist")));
    }
    let builtin = RMGRS.iter().find(|rmgr| rmgr.name.eq_ignore_ascii_case(text));
    builtin.map(|rmgr| rmgr.id).ok_or_else(|| Wrong::Usage(format!("resource manager \"{text}\" does not exist")))
}

fn relation(text: &[u8]) -> Option<RelFileLocator> {
    let mut scan = Scan::new(text);
    let spc = scan.unsigned(10, usize::MAX).map(Oid)?;
    scan.literal(b"/")?;
    let db = scan.unsigned(10, usize::MAX).map(Oid)?;
    scan.literal(b"/")?;
    let rel = scan.unsigned(10, usize::MAX).map(Oid)?;
    (spc.0 != 0 && rel.0 != 0).then_some(RelFileLocator { spc, db, rel })
}

fn timeline(bytes: &[u8], text: &str, wording: Wording) -> Result<TimelineId, Wrong> {
    let bad = || Wrong::Usage(wording.bad_timeline(text));
    if wording.major < 16 {
        // 15 reads an unsigned number, earlier ones a signed one into the same 32 bits.
        let mut scan = Scan::new(bytes);
        let number = if wording.major == 15 { scan.unsigned(10, usize::MAX) } else { scan.signed(usize::MAX).map(|number| number as u32) };
        return number.map(TimelineId).ok_or_else(bad);
    }
    let (value, rest) = strtoul(bytes);
    if !rest.iter().all(|b| matches!(b, b' ' | b'\t'..=b'\r')) {
        return Err(bad());
    }
    let number = value.and_then(|value| u32::try_from(value).ok()).filter(|&number| number > 0);
    let range = || Wrong::Usage(format!("-t/--timeline must be in range 1..{}", u32::MAX));
    number.map(TimelineId).ok_or_else(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, major: u8) -> Parsed {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&words, Wording { major })
    }

    fn good(line: &str, major: u8) -> Options {
        match parsed(line, major) {
            Parsed::Run(options) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn message(line: &str, major: u8) -> String {
        match parsed(line, major) {
            Parsed::Wrong(Wrong::Usage(message) | Wrong::Detailed(message, _)) => message,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn values() {
        assert_eq!(good("-s 1/23456789ab -e 0/1x -n -3", 18).start, Lsn(0x1_4567_89AB));
        assert_eq!(good("-s 1/23456789ab", 19).start, Lsn(0x1_2345_6789));
        assert_eq!(good("-n -3", 18).limit, None);
        assert_eq!(good("-n 3x", 18).limit, Some(3));
        assert_eq!(good("-t 0x10", 18).timeline, Some(TimelineId(16)));
        assert_eq!(good("-t 010", 15).timeline, Some(TimelineId(10)));
        assert_eq!(good("-t 0", 13).timeline, Some(TimelineId(0)));
        assert_eq!(good("-x 0", 18).filter.xids, Some(OneOf::from_iter([Xid(0)])));
        assert_eq!(good("-R 1663/0/1259 -B 7", 18).filter.block, Some(BlockNumber(7)));
        assert_eq!(good("--stats=record -z", 18).stats, Some(Stats::Rmgr));
        let rmgrs = |line, major| good(line, major).filter.rmgrs.unwrap_or_default();
        assert_eq!(rmgrs("-r heap -r custom200x", 18), RmgrSet::from_iter([RmgrId(10), RmgrId(200)]));
        assert_eq!(rmgrs("-r heap -r btree", 13), RmgrSet::from_iter([RmgrId(11)]));
        assert_eq!(good("--quiet a b", 13).operands, ["a", "b"]);
        assert_eq!(parsed("-r LIST -n x", 18), Parsed::ListRmgrs);
    }

    #[test]
    fn messages() {
        for (line, major, text) in [
            ("-n x", 13, "could not parse limit \"x\""),
            ("-n x", 15, "invalid value \"x\" for option -n/--limit"),
            ("-s x", 13, "could not parse start WAL location \"x\""),
            ("-e 1/", 18, "invalid WAL location: \"1/\""),
            ("-t x", 14, "could not parse timeline \"x\""),
            ("-t x", 15, "invalid timeline specification: \"x\""),
            ("-t 1x", 16, "invalid value \"1x\" for option -t/--timeline"),
            ("-t 0", 16, "-t/--timeline must be in range 1..4294967295"),
            ("-t 4294967296", 19, "-t/--timeline must be in range 1..4294967295"),
            ("-x x", 13, "could not parse \"x\" as a transaction ID"),
            ("--stats=x", 13, "unrecognized argument to --stats: x"),
            ("--stats=x", 18, "unrecognized value for option --stats: x"),
            ("-B -1", 18, "invalid block number: \"-1\""),
            ("-B 1", 18, "option -B/--block requires option -R/--relation to be specified"),
            ("-F x", 18, "invalid fork name: \"x\""),
            ("-R 0/1/2", 18, "invalid relation specification: \"0/1/2\""),
            ("-r custom12", 18, "custom resource manager \"custom12\" does not exist"),
            ("-r custom128", 13, "resource manager \"custom128\" does not exist"),
            ("-r customx", 18, "resource manager \"customx\" does not exist"),
            ("a b c d", 18, "too many command-line arguments (first is \"c\")"),
        ] {
            assert_eq!(message(line, major), text, "{line} {major}");
        }
        assert_eq!(parsed("a --help", 18), Parsed::Wrong(Wrong::Silent));
    }
}
