//! The time zone of descriptions: what C's `localtime` makes of a time.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

use crate::input_file;
use crate::types::TimestampTz;

/// The time zone that timestamps are shown in.
#[derive(Clone, Debug)]
pub struct Zone {
    rules: TimeZone,
    /// Shown in the place of the rules' abbreviation: C keeps the name in a `TZ` that it can make nothing else of.
    abbreviation: Option<String>,
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Zone {
        Zone { rules: TimeZone::UTC, abbreviation: None }
    }

    /// The machine's zone, as C's `localtime` sees it: `TZ`, or else /etc/localtime, or else UTC.
    pub fn local() -> Zone {
        match env::var_os("TZ") {
            Some(tz) => Zone::from_tz(&tz),
            None => read_rules(Path::new("/etc/localtime")).map_or_else(Zone::utc, Zone::from),
        }
    }

    /// What C makes of a value of `TZ`: a file of the zone database, or else rules as POSIX writes them, or else UTC under
    /// the name that the value begins with.
    fn from_tz(tz: &OsStr) -> Zone {
        let Some(tz) = tz.to_str() else { return Zone { abbreviation: Some(String::new()), ..Zone::utc() } };
        let tz = tz.strip_prefix(':').unwrap_or(tz);
        if tz.is_empty() {
            return Zone::utc();
        }
        let database = env::var_os("TZDIR").unwrap_or_else(|| "/usr/share/zoneinfo".into());
        // Joining an absolute path gives that path.
        let rules = read_rules(&Path::new(&database).join(tz))
            .or_else(|| TimeZone::posix(tz).ok())
            // Without dates for summer time, those of the United States hold.
            .or_else(|| TimeZone::posix(&format!("{tz},M3.2.0,M11.1.0")).ok());
        rules.map_or_else(|| Zone { abbreviation: Some(leading_name(tz).to_owned()), ..Zone::utc() }, Zone::from)
    }

    /// The time that `text` means: a date, or a date and a time, with an offset (`+02`, `Z`), UTC, this zone's own abbreviation as
    /// dumps show it, or nothing, which means this zone. Of two times in the hour that the end of summer time repeats, the first.
    ///
    /// # Errors
    /// It is no time.
    ///
    /// ```
    /// use pgwal::text::Zone;
    /// let time = Zone::utc().parse("2026-11-23 05:17:08.25+02")?;
    /// assert_eq!(time.to_string(), "2026-11-23T03:17:08.250000Z");
    /// assert_eq!(Zone::utc().parse("2026-11-23 03:17:08.25 UTC")?, time);
    /// # Ok::<(), pgwal::text::ParseTimeError>(())
    /// ```
    pub fn parse(&self, text: &str) -> Result<TimestampTz, ParseTimeError> {
        let fail = || ParseTimeError(text.to_owned());
        let pg = |time: Timestamp| TimestampTz(time.as_microsecond() - TimestampTz::UNIX_EPOCH_OFFSET); // within the years -9999 to 9999
        let trimmed = text.trim();
        if let Ok(time) = trimmed.parse::<Timestamp>() {
            return Ok(pg(time));
        }
        let (civil, name) = match trimmed.rsplit_once(' ') {
            Some((civil, name)) if name.starts_with(|c: char| c.is_ascii_alphabetic()) => (civil, Some(name)),
            _ => (trimmed, None),
        };
        // Where an offset is given that does not parse, it must not be taken for nothing.
        if civil.get(11..).unwrap_or_default().contains(['+', '-', 'Z', 'z', '[']) {
            return Err(fail());
        }
        let civil: civil::DateTime = civil.parse().map_err(|_| fail())?;
        let zone = if matches!(name, Some("UTC" | "GMT")) { &TimeZone::UTC } else { &self.rules };
        let time = zone.to_timestamp(civil).map_err(|_| fail())?;
        match name {
            Some(name) if name != "UTC" && name != "GMT" && self.at(time.as_second()).1 != name.as_bytes() => Err(fail()),
            _ => Ok(pg(time)),
        }
    }

    /// The zone that PostgreSQL knows by `name`, in any case: one of the zone database, or rules as POSIX writes them.
    pub fn named(name: &str) -> Option<Zone> {
        // The database has its zones once more under this folder.
        let is_posix = name.get(..6).is_some_and(|folder| folder.eq_ignore_ascii_case("posix/"));
        let name = if is_posix { name.get(6..)? } else { name };
        TimeZone::get(name).or_else(|_| TimeZone::posix(name)).ok().map(Zone::from)
    }

    /// When clocks of the zone show `civil`. As in PostgreSQL, clocks that are turned forward have not been, where a time is skipped, and those
    /// that are turned back have been, where one comes twice.
    pub(crate) fn instant(&self, civil: civil::DateTime) -> Option<TimestampTz> {
        use jiff::tz::AmbiguousOffset::{Fold, Gap, Unambiguous};
        let (Unambiguous { offset } | Gap { before: offset, .. } | Fold { after: offset, .. }) =
            self.rules.to_ambiguous_timestamp(civil).offset();
        Zone::at_offset(civil, offset.seconds())
    }

    /// When clocks that are `east` seconds ahead of UTC show `civil`.
    pub(crate) fn at_offset(civil: civil::DateTime, east: i32) -> Option<TimestampTz> {
        let utc = TimeZone::UTC.to_timestamp(civil).ok()?;
        let micros = utc.as_microsecond() - i64::from(east) * 1_000_000; // both are far from the ends
        Some(TimestampTz(micros - TimestampTz::UNIX_EPOCH_OFFSET))
    }

    /// What clocks of the zone show: the date, the second of the day and its microseconds.
    pub(crate) fn civil_at(&self, time: TimestampTz) -> Option<(civil::Date, i32, i32)> {
        let at = Timestamp::from_microsecond(time.0.checked_add(TimestampTz::UNIX_EPOCH_OFFSET)?).ok()?;
        let shown = self.rules.to_datetime(at);
        let second = i32::from(shown.hour()) * 3600 + i32::from(shown.minute()) * 60 + i32::from(shown.second());
        Some((shown.date(), second, shown.subsec_nanosecond() / 1000))
    }

    /// Seconds east of UTC that `abbreviation` meant in the zone when it was last used before `time`, or else is first used afterwards.
    pub(crate) fn offset_of(&self, abbreviation: &str, time: TimestampTz) -> Option<i32> {
        let at = Timestamp::from_microsecond(time.0.checked_add(TimestampTz::UNIX_EPOCH_OFFSET)?).ok()?;
        let now = self.rules.to_offset_info(at);
        if now.abbreviation() == abbreviation {
            return Some(now.offset().seconds());
        }
        let mut before = self.rules.preceding(at).map(|change| (change.abbreviation().to_owned(), change.offset().seconds()));
        let mut after = self.rules.following(at).take(FEW).map(|change| (change.abbreviation().to_owned(), change.offset().seconds()));
        before.find(|(name, _)| name == abbreviation).or_else(|| after.find(|(name, _)| name == abbreviation)).map(|(_, offset)| offset)
    }

    /// Seconds east of UTC and the abbreviation in force at `unix` (seconds since 1970-01-01 00:00:00 UTC).
    pub(crate) fn at(&self, unix: i64) -> (i64, Vec<u8>) {
        // The calendar library ends at the year 9999, PostgreSQL's timestamps do not. The Gregorian calendar repeats after
        // 400 years, weekdays included, and so do rules that have no end.
        const CYCLE: i64 = 146_097 * 86_400;
        let (min, max) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        let within = if unix > max {
            unix - (unix - max).div_euclid(CYCLE).saturating_add(1) * CYCLE
        } else if unix < min {
            unix + (min - unix).div_euclid(CYCLE).saturating_add(1) * CYCLE
        } else {
            unix
        };
        let info = self.rules.to_offset_info(Timestamp::from_second(within).unwrap_or(Timestamp::UNIX_EPOCH));
        let abbreviation = self.abbreviation.as_deref().unwrap_or(info.abbreviation());
        (info.offset().seconds().into(), abbreviation.as_bytes().to_vec())
    }
}

/// Text that is not a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTimeError(String);

impl ParseTimeError {
    pub(crate) fn new(text: &str) -> ParseTimeError {
        ParseTimeError(text.to_owned())
    }
}

/// Changes of a zone that are looked at in the future, where rules have no end.
const FEW: usize = 100;

impl fmt::Display for ParseTimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a time: expected one like 2026-11-23 05:17:08.25+02, or without the offset in the local zone", self.0)
    }
}

impl std::error::Error for ParseTimeError {}

impl From<TimeZone> for Zone {
    fn from(rules: TimeZone) -> Zone {
        Zone { rules, abbreviation: None }
    }
}

fn read_rules(file: &Path) -> Option<TimeZone> {
    TimeZone::tzif("", &input_file::read(file, 1 << 20).ok()?).ok()
}

/// Name at the start of a POSIX `TZ`: three letters or more, or as many characters between angle brackets.
fn leading_name(tz: &str) -> &str {
    let name = match tz.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>').map_or("", |(name, _)| name),
        None => tz.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default(),
    };
    if name.len() < 3 { "" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::WalFormat;
    use crate::text::Text;

    fn at(tz: &str, unix: i64) -> (i64, String) {
        let (offset, abbreviation) = Zone::from_tz(tz.as_ref()).at(unix);
        (offset, String::from_utf8(abbreviation).unwrap())
    }

    #[test]
    fn tz_that_is_no_zone_keeps_its_name() {
        for (tz, name) in [("Bogus", "Bogus"), (":Bogus/Zone", "Bogus"), ("AB", ""), ("<AB>", ""), ("123", ""), ("/none", ""), ("", "UTC")]
        {
            assert_eq!(at(tz, 0), (0, name.into()), "{tz}");
        }
    }

    #[test]
    fn posix_rules() {
        const SUMMER: i64 = 1_719_792_000; // 2024-07-01
        assert_eq!(at("ABC5", SUMMER), (-5 * 3600, "ABC".into()));
        assert_eq!(at("<+0330>-3:30", SUMMER), (12_600, "+0330".into()));
        assert_eq!(at("ABC5DEF", SUMMER), (-4 * 3600, "DEF".into()));
        assert_eq!(at("CET-1CEST,M3.5.0,M10.5.0/3", SUMMER), (7200, "CEST".into()));
    }

    #[test]
    fn offsets_with_seconds() {
        let mut out = Text::new(WalFormat::new(15), Zone::from_tz("ABC-0:00:30".as_ref()));
        for seconds in [0, 40, 50] {
            put!(&mut out, TimestampTz(seconds * 1_000_000), ";");
        }
        let text = "2000-01-01 00:00:30.000000 ABC;2000-01-01 00:01:10.000000 ABC;2000-01-01 00:01:20.000000 ABC;";
        assert_eq!(out.to_string_lossy(), text);
    }

    #[test]
    fn times_are_read_back() {
        let zone = Zone::from_tz("CET-1CEST,M3.5.0,M10.5.0/3".as_ref());
        let expected = |utc: &str| Zone::utc().parse(utc).unwrap();
        for (text, utc) in [
            ("2024-07-01 12:00:00", "2024-07-01 10:00:00Z"),
            ("2024-07-01T12:00", "2024-07-01 10:00:00Z"),
            ("2024-07-01", "2024-06-30 22:00:00Z"),
            ("2024-01-01 12:00:00.123456 CET", "2024-01-01 11:00:00.123456+00"),
            ("2024-07-01 12:00:00.5 CEST", "2024-07-01 10:00:00.5+00:00"),
            ("2024-07-01 12:00:00 UTC", "2024-07-01 12:00:00Z"),
            ("2024-07-01 12:00:00-0330", "2024-07-01 15:30:00Z"),
        ] {
            assert_eq!(zone.parse(text), Ok(expected(utc)), "{text}");
            assert_eq!(zone.parse(&expected(utc).to_string()), Ok(expected(utc)));
        }
        for bad in ["", "now", "12:00", "2024-13-01", "2024-07-01 12:00:00 CET", "2024-07-01 12:00:00 PST", "2024-07-01 12:00:00+99:99"] {
            assert!(zone.parse(bad).is_err(), "{bad:?}");
        }
    }

    /// 400 years are a whole number of weeks, so that summer time comes at the same second of the cycle.
    #[test]
    fn rules_go_on_after_the_year_9999() {
        const JULY_9999: i64 = 253_386_403_200;
        const JULY_99999: i64 = 3_093_512_083_200;
        let tz = "CET-1CEST,M3.5.0,M10.5.0/3";
        assert_eq!(at(tz, JULY_9999), (7200, "CEST".into()));
        assert_eq!(at(tz, JULY_99999).0, 7200);
        assert_eq!(at(tz, i64::MAX / 1_000_000).0, 3600); // January
        assert_eq!(at(tz, i64::MIN / 1_000_000).0, 3600); // December
    }
}
