//! Where recovery shall stop.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::lsn::Lsn;
use crate::printable::printable;
use crate::text::Zone;
use crate::time_input;
use crate::types::{TimestampTz, Xid};

/// Where recovery shall stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "target", content = "at", rename_all = "snake_case")]
pub enum Target {
    /// At the end of the WAL.
    Latest,
    /// As soon as the base backup is consistent. C: `recovery_target`.
    Immediate,
    /// At the first record that starts here or later. C: `recovery_target_lsn`.
    Lsn(Lsn),
    /// Before the first commit or abort later than this. C: `recovery_target_time`.
    Time(TimestampTz),
    /// At the end of this transaction. C: `recovery_target_xid`.
    Xid(Xid),
    /// At the first restore point with this name. C: `recovery_target_name`.
    Name(String),
}

/// Text that is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTargetError(String);

impl fmt::Display for ParseTargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forms = "expected latest, an LSN like 16/B374D848, or a time like 2026-11-23 05:17:00+00, or immediate, xid:NUMBER or name:RESTORE_POINT";
        write!(f, "\"{}\": {forms}", printable(&self.0))
    }
}

impl std::error::Error for ParseTargetError {}

impl FromStr for Target {
    type Err = ParseTargetError;

    /// `latest`, `immediate`, an LSN, a time as PostgreSQL reads it in the local zone, `xid:` and a number, `name:` and the name of a
    /// restore point. `lsn:` and `time:` may stand before the others.
    fn from_str(text: &str) -> Result<Target, ParseTargetError> {
        let fail = || ParseTargetError(text.to_owned());
        match text {
            "latest" => return Ok(Target::Latest),
            "immediate" => return Ok(Target::Immediate),
            _ => {}
        }
        match text.split_once(':') {
            Some(("xid", number)) => {
                // As a server, which takes the low half of a number with its epoch.
                let xid = number.parse::<u64>().map_err(|_| fail())?;
                let xid = u32::try_from(xid & u64::from(u32::MAX)).map_err(|_| fail())?;
                return if xid == 0 { Err(fail()) } else { Ok(Target::Xid(Xid(xid))) };
            }
            // C: `MAXFNAMELEN`.
            Some(("name", name)) if (1..64).contains(&name.len()) => return Ok(Target::Name(name.to_owned())),
            Some(("name", _)) => return Err(fail()),
            Some(("lsn", lsn)) => return lsn.parse().map(Target::Lsn).map_err(|_| fail()),
            Some(("time", time)) => return parse_time(time).ok_or_else(fail),
            _ => {}
        }
        if let Ok(lsn) = text.parse() {
            return Ok(Target::Lsn(lsn));
        }
        // PostgreSQL takes six digits or more for a date, but here they may be a transaction, or an LSN without its slash.
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        parse_time(text).filter(|_| !is_number).ok_or_else(fail)
    }
}

/// The time that a server in this time zone would stop at.
fn parse_time(text: &str) -> Option<Target> {
    // C: `check_recovery_target_time`.
    if matches!(text.trim(), "now" | "today" | "tomorrow" | "yesterday") {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let now = TimestampTz(i64::try_from(now.as_micros()).ok()? - TimestampTz::UNIX_EPOCH_OFFSET);
    let zone = Zone::local();
    // ISO 8601 as this program writes it comes first: `Z` is an abbreviation, which a server may not know.
    zone.parse(text)
        .ok()
        .filter(|_| text.trim().ends_with(['Z', 'z']))
        .or_else(|| time_input::parse(text, &zone, now).ok())
        .map(Target::Time)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => write!(f, "the end of the WAL"),
            Target::Immediate => write!(f, "the consistent point"),
            Target::Lsn(lsn) => lsn.fmt(f),
            Target::Time(time) => time.fmt(f),
            Target::Xid(xid) => write!(f, "the end of transaction {}", xid.0),
            Target::Name(name) => write!(f, "restore point \"{}\"", printable(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let time = |text: &str| match text.parse() {
            Ok(Target::Time(time)) => time.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!("latest".parse(), Ok(Target::Latest));
        assert_eq!("immediate".parse(), Ok(Target::Immediate));
        for text in ["0/3000148", "lsn:0/3000148"] {
            assert_eq!(text.parse(), Ok(Target::Lsn(Lsn(0x300_0148))));
        }
        assert_eq!("xid:1234".parse(), Ok(Target::Xid(Xid(1234))));
        assert_eq!("xid:4294968530".parse(), Ok(Target::Xid(Xid(1234))));
        assert_eq!("name:before the upgrade".parse(), Ok(Target::Name("before the upgrade".to_owned())));
        let expected = "2026-11-23T05:17:00.500000Z";
        for text in [
            "2026-11-23 05:17:00.5+00",
            "2026-11-23T05:17:00.5Z",
            "2026-11-23 06:17:00.5+01:00",
            "2026-11-23 05:17:00.5 UTC",
            "Nov 23 2026 00:17:00.5 America/New_York",
            "time:20261123T051700.5 UTC",
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        for text in ["", "yesterday", "05:17", "3000148", "2026-13-01 00:00:00Z", "xid:", "xid:0", "xid:x", "name:", "lsn:3", "time:now"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!(format!("name:{}", "x".repeat(64)).parse::<Target>().is_err());
    }
}
