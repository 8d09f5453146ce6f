//! Times as people write them for `recovery_target_time`: the input of PostgreSQL's `timestamptz`. C: `ParseDateTime` and
//! `DecodeDateTime`, utils/adt/datetime.c.
//!
//! Fields may come in almost any order. Numbers with a date's or a time's punctuation, or of a length that says so, a month's name, an
//! offset, an abbreviation or a name of a time zone, `BC`, `AM` and `PM`, `today` and its like are all understood, and where a date is
//! ambiguous, the month comes first, as with the server's default `DateStyle`.

mod abbreviations;

use jiff::civil;

use self::abbreviations::{BY_DATE, FIXED};
use crate::text::{ParseTimeError, Zone};
use crate::types::TimestampTz;

/// The time that `text` means. Without a time zone in it, `zone` is meant; `today` is the day of `now` there.
///
/// # Errors
/// It is not a time, or `infinity`, `epoch` and their like, which a server does not take for a target either.
///
/// ```
/// use pgwal::text::Zone;
/// use pgwal::{time_input, types::TimestampTz};
/// let parse = |text| time_input::parse(text, &Zone::utc(), TimestampTz(0)).map(|time| time.to_string());
/// assert_eq!(parse("Mon Nov 23 2026 7:17 PM CET")?, "2026-11-23T18:17:00.000000Z");
/// assert_eq!(parse("20261123T191700 America/New_York")?, "2026-11-24T00:17:00.000000Z");
/// # Ok::<(), pgwal::text::ParseTimeError>(())
/// ```
pub fn parse(text: &str, zone: &Zone, now: TimestampTz) -> Result<TimestampTz, ParseTimeError> {
    let fields = split(text).filter(|fields| fields.len() <= MAX_FIELDS);
    fields.and_then(|fields| Decoder::new(zone, now).decode(fields)).ok_or_else(|| ParseTimeError::new(text))
}

/// C: `MAXDATEFIELDS`.
const MAX_FIELDS: usize = 25;

/// A word, and what its form says it is. C: `ftype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Date,
    Time,
    Number,
    Word,
    Offset,
}

/// C: `ParseDateTime`. `None`: a character that no time has.
fn split(text: &str) -> Option<Vec<(Form, String)>> {
    let chars: Vec<char> = text.chars().collect();
    let mut fields = Vec::new();
    let mut at = 0;
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let take = |at: &mut usize, field: &mut String, wanted: &dyn Fn(char) -> bool| {
        while *at < chars.len() && wanted(peek(*at)) {
            field.push(peek(*at).to_ascii_lowercase());
            *at += 1;
        }
    };
    let digit = |c: char| c.is_ascii_digit();
    let letter = |c: char| c.is_ascii_alphabetic();
    while at < chars.len() {
        let first = peek(at);
        let mut field = String::new();
        let form = match first {
            c if c.is_ascii_whitespace() || c == '\u{b}' => {
                at += 1;
                continue;
            }
            c if digit(c) => {
                take(&mut at, &mut field, &digit);
                match peek(at) {
                    ':' => {
                        take(&mut at, &mut field, &|c| digit(c) || c == ':' || c == '.');
                        Form::Time
                    }
                    delimiter @ ('-' | '/' | '.') => {
                        field.push(delimiter);
                        at += 1;
                        if digit(peek(at)) {
                            take(&mut at, &mut field, &digit);
                            if peek(at) == delimiter {
                                take(&mut at, &mut field, &|c| digit(c) || c == delimiter);
                                Form::Date
                            } else if delimiter == '.' {
                                Form::Number
                            } else {
                                Form::Date
                            }
                        } else {
                            take(&mut at, &mut field, &|c| c.is_ascii_alphanumeric() || c == delimiter);
                            Form::Date
                        }
                    }
                    _ => Form::Number,
                }
            }
            '.' => {
                field.push('.');
                at += 1;
                take(&mut at, &mut field, &digit);
                Form::Number
            }
            c if letter(c) => {
                take(&mut at, &mut field, &letter);
                // A date with its month's name first, or the name of a zone.
                let next = peek(at);
                let goes_on = matches!(next, '-' | '/' | '.') || ((next == '+' || digit(next)) && special(&field).is_none());
                if goes_on {
                    take(&mut at, &mut field, &|c| c.is_ascii_alphanumeric() || "+-/_.:".contains(c));
                    Form::Date
                } else {
                    Form::Word
                }
            }
            '+' | '-' => {
                field.push(first);
                at += 1;
                while peek(at).is_ascii_whitespace() {
                    at += 1;
                }
                if digit(peek(at)) {
                    take(&mut at, &mut field, &|c| digit(c) || ":.-".contains(c));
                    Form::Offset
                } else if letter(peek(at)) {
                    take(&mut at, &mut field, &letter);
                    Form::Word
                } else {
                    return None;
                }
            }
            c if c.is_ascii_punctuation() => {
                at += 1;
                continue;
            }
            _ => return None,
        };
        fields.push((form, field));
    }
    Some(fields)
}

/// What a word means that is not a time zone. C: `datetktbl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    Month(i32),
    Weekday,
    /// Days from today.
    Day(i64),
    Now,
    /// `allballs`: midnight UTC.
    Midnight,
    /// `infinity`, `-infinity`, `epoch`.
    NoTarget,
    Afternoon(bool),
    BeforeChrist(bool),
    /// `dst` after the name of a zone.
    Summer,
    /// `t` before a time.
    Time,
    /// `j` before a day's Julian number.
    Julian,
    Ignored,
}

fn special(word: &str) -> Option<Special> {
    const MONTHS: [&str; 12] =
        ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
    const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    if let Some(at) = MONTHS.iter().position(|month| *month == word || month.get(..3) == Some(word)) {
        return i32::try_from(at + 1).ok().map(Special::Month);
    }
    let is_weekday = WEEKDAYS.iter().any(|day| *day == word || day.get(..3) == Some(word));
    if is_weekday || matches!(word, "tues" | "weds" | "thur" | "thurs") {
        return Some(Special::Weekday);
    }
    Some(match word {
        "sept" => Special::Month(9),
        "yesterday" => Special::Day(-1),
        "today" => Special::Day(0),
        "tomorrow" => Special::Day(1),
        "now" => Special::Now,
        "allballs" => Special::Midnight,
        "infinity" | "-infinity" | "epoch" => Special::NoTarget,
        "am" => Special::Afternoon(false),
        "pm" => Special::Afternoon(true),
        "ad" => Special::BeforeChrist(false),
        "bc" => Special::BeforeChrist(true),
        "dst" => Special::Summer,
        "t" => Special::Time,
        "j" | "jd" | "julian" => Special::Julian,
        "at" | "on" => Special::Ignored,
        _ => return None,
    })
}

/// What has been given so far. C: `fmask`.
mod given {
    pub(super) const YEAR: u32 = 1;
    pub(super) const MONTH: u32 = 2;
    pub(super) const DAY: u32 = 4;
    pub(super) const DATE: u32 = YEAR | MONTH | DAY;
    /// Hour, minute and second.
    pub(super) const TIME: u32 = 8;
    pub(super) const DAY_OF_YEAR: u32 = 16;
    pub(super) const ZONE: u32 = 32;
    pub(super) const SUMMER: u32 = 64;
    pub(super) const AFTERNOON: u32 = 128;
    pub(super) const ERA: u32 = 256;
    pub(super) const WEEKDAY: u32 = 512;
}
use given::*;

/// What the next field is, by the one before. C: `ptype`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    Time,
    Julian,
}

/// How the offset from UTC is found, once the date is known.
enum Where<'z> {
    /// Seconds east.
    Offset(i32),
    Zone(Zone),
    /// An abbreviation whose offset has changed, and the zone that uses it.
    Abbreviation(Zone, String),
    Local(&'z Zone),
}

struct Decoder<'z> {
    given: u32,
    year: i32,
    month: i32,
    day: i32,
    day_of_year: Option<i32>,
    hour: i32,
    minute: i32,
    second: i32,
    micros: i32,
    /// Adds to the offset: `dst`.
    summer: i32,
    place: Where<'z>,
    local: &'z Zone,
    now: TimestampTz,
    has_text_month: bool,
    is_julian: bool,
    is_two_digits: bool,
    before_christ: bool,
    afternoon: Option<bool>,
    /// The date is given by its distance from today, or by a Julian number.
    civil: Option<civil::Date>,
    /// The date is that of the other fields, and so many times 400 years later.
    cycles: i64,
}

/// The calendar library ends at the year 9999, PostgreSQL's timestamps do not. The Gregorian calendar repeats after 400 years, weekdays
/// included, and so do the rules of time zones that have no end. Days of such a cycle, and the year after which dates are moved by it.
const CYCLE: (i64, i64) = (146_097, 9_500);

/// C: `END_TIMESTAMP`: the first microsecond after the year 294276.
const END: i64 = 9_223_371_331_200_000_000;

/// The first day of the Julian numbering in the proleptic Gregorian calendar is so many days before 1970-01-01.
const JULIAN_OF_1970: i64 = 2_440_588;

impl<'z> Decoder<'z> {
    fn new(local: &'z Zone, now: TimestampTz) -> Decoder<'z> {
        Decoder {
            given: 0,
            year: 0,
            month: 0,
            day: 0,
            day_of_year: None,
            hour: 0,
            minute: 0,
            second: 0,
            micros: 0,
            summer: 0,
            place: Where::Local(local),
            local,
            now,
            has_text_month: false,
            is_julian: false,
            is_two_digits: false,
            before_christ: false,
            afternoon: None,
            civil: None,
            cycles: 0,
        }
    }

    /// C: `DecodeDateTime`.
    fn decode(mut self, fields: Vec<(Form, String)>) -> Option<TimestampTz> {
        let mut prefix = None;
        for (form, field) in fields {
            let now_given = match form {
                Form::Date if prefix == Some(Prefix::Julian) => {
                    let digits = field.find(|c: char| !c.is_ascii_digit())?;
                    let (day, offset) = field.split_at(digits);
                    self.julian(day.parse().ok()?)?;
                    self.place = Where::Offset(offset_of(offset)?);
                    prefix = None;
                    DATE | TIME | ZONE
                }
                // A zone's name with punctuation, or a time in one with an offset.
                Form::Date if prefix.is_some() || self.given & (MONTH | DAY) == MONTH | DAY => {
                    if field.starts_with(|c: char| c.is_ascii_digit()) || prefix.is_some() {
                        if self.given & TIME != 0 {
                            return None;
                        }
                        prefix = None;
                        let (time, offset) = field.split_at(field.find('-')?);
                        self.place = Where::Offset(offset_of(offset)?);
                        self.number_field(time, self.given)? | ZONE
                    } else {
                        self.place = Where::Zone(Zone::named(&field)?);
                        ZONE
                    }
                }
                Form::Date => self.date(&field)?,
                Form::Time => {
                    if prefix.is_some_and(|prefix| prefix != Prefix::Time) {
                        return None;
                    }
                    prefix = None;
                    self.time(&field)?
                }
                Form::Offset => {
                    self.place = Where::Offset(offset_of(&field)?);
                    ZONE
                }
                Form::Number => match prefix.take() {
                    Some(Prefix::Julian) => {
                        let (day, fraction) = field.split_once('.').unwrap_or((&field, ""));
                        self.julian(day.parse().ok()?)?;
                        match fraction {
                            "" => DATE,
                            digits => {
                                self.fraction_of_day(digits)?;
                                DATE | TIME
                            }
                        }
                    }
                    Some(Prefix::Time) => {
                        let given = self.number_field(&field, self.given | DATE)?;
                        if given != TIME {
                            return None;
                        }
                        TIME
                    }
                    None => {
                        let point = field.find('.');
                        if point.is_some() && self.given & DATE == 0 {
                            self.date(&field)?
                        } else if point.is_some_and(|at| at > 2)
                            || (point.is_none() && field.len() >= 6 && self.given & (DATE | TIME) != DATE | TIME)
                        {
                            self.number_field(&field, self.given)?
                        } else {
                            self.number(&field, self.given)?
                        }
                    }
                },
                Form::Word => match self.word(&field, &mut prefix)? {
                    Some(given) => given,
                    None => continue,
                },
            };
            if now_given & self.given != 0 {
                return None;
            }
            self.given |= now_given;
        }
        if prefix.is_some() || self.given & DATE != DATE {
            return None;
        }
        self.finish()
    }

    /// A word: what it gives; `None` inside: nothing.
    fn word(&mut self, word: &str, prefix: &mut Option<Prefix>) -> Option<Option<u32>> {
        // The zone's own abbreviations come first, as with servers of 18; they differ from the others in few zones.
        if let Some(&(_, offset)) = FIXED.iter().find(|(name, _)| *name == word) {
            self.place = Where::Offset(offset);
            return Some(Some(ZONE));
        }
        if let Some(&(_, zone)) = BY_DATE.iter().find(|(name, _)| *name == word) {
            self.place = Where::Abbreviation(Zone::named(zone)?, word.to_ascii_uppercase());
            return Some(Some(ZONE));
        }
        let Some(special) = special(word) else {
            self.place = Where::Zone(Zone::named(word)?);
            return Some(Some(ZONE));
        };
        Some(Some(match special {
            Special::Ignored => return Some(None),
            Special::NoTarget => return None,
            Special::Now => {
                let (date, seconds, micros) = self.local.civil_at(self.now)?;
                self.civil = Some(date);
                (self.hour, self.minute, self.second, self.micros) = (seconds / 3600, seconds / 60 % 60, seconds % 60, micros);
                DATE | TIME
            }
            Special::Day(days) => {
                let (date, ..) = self.local.civil_at(self.now)?;
                self.civil = Some(date.checked_add(jiff::Span::new().try_days(days).ok()?).ok()?);
                DATE
            }
            Special::Midnight => {
                self.place = Where::Offset(0);
                TIME | ZONE
            }
            Special::Month(month) => {
                let is_day = self.given & MONTH != 0 && !self.has_text_month && self.given & DAY == 0 && (1..=31).contains(&self.month);
                self.has_text_month = true;
                let given = if is_day {
                    self.day = self.month;
                    DAY
                } else {
                    MONTH
                };
                self.month = month;
                given
            }
            Special::Weekday => WEEKDAY,
            Special::Afternoon(afternoon) => {
                self.afternoon = Some(afternoon);
                AFTERNOON
            }
            Special::BeforeChrist(before) => {
                self.before_christ = before;
                ERA
            }
            Special::Summer => {
                self.summer = 3600;
                SUMMER
            }
            Special::Time => {
                if self.given & DATE != DATE || prefix.is_some() {
                    return None;
                }
                *prefix = Some(Prefix::Time);
                0
            }
            Special::Julian => {
                if prefix.is_some() {
                    return None;
                }
                *prefix = Some(Prefix::Julian);
                0
            }
        }))
    }

    /// C: `DecodeDate`.
    fn date(&mut self, field: &str) -> Option<u32> {
        let mut parts: Vec<&str> = Vec::new();
        let mut rest = field;
        while !rest.is_empty() {
            rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
            let first = rest.chars().next()?;
            let len = rest.find(|c: char| c.is_ascii_digit() != first.is_ascii_digit() || !c.is_ascii_alphanumeric());
            let (part, behind) = rest.split_at(len.unwrap_or(rest.len()));
            parts.push(part);
            // A character between two fields goes.
            rest = behind.get(behind.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default();
        }
        let (before, mut given) = (self.given, 0);
        let mut has_text_month = false;
        for part in parts.iter().filter(|part| part.starts_with(|c: char| c.is_ascii_alphabetic())) {
            match special(part)? {
                Special::Ignored => continue,
                Special::Month(month) if (before | given) & MONTH == 0 => self.month = month,
                _ => return None,
            }
            has_text_month = true;
            given |= MONTH;
        }
        let outside = std::mem::replace(&mut self.has_text_month, has_text_month);
        for part in parts.iter().filter(|part| part.starts_with(|c: char| c.is_ascii_digit())) {
            let new = self.number(part, before | given)?;
            if (before | given) & new != 0 {
                return None;
            }
            given |= new;
        }
        self.has_text_month = outside;
        ((before | given) & !(DAY_OF_YEAR | ZONE) == DATE).then_some(given)
    }

    /// C: `DecodeTime`.
    fn time(&mut self, field: &str) -> Option<u32> {
        let (whole, fraction) = field.split_once('.').map_or((field, None), |(whole, fraction)| (whole, Some(fraction)));
        let parts: Vec<i32> = whole.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        (self.hour, self.minute, self.second) = match (parts.as_slice(), fraction) {
            (&[hour, minute], None) => (hour, minute, 0),
            // A fraction is one of seconds.
            (&[minute, second], Some(_)) => (0, minute, second),
            (&[hour, minute, second], _) => (hour, minute, second),
            _ => return None,
        };
        self.micros = fraction.map_or(Some(0), micros_of)?;
        Some(TIME)
    }

    /// C: `DecodeNumber`.
    fn number(&mut self, field: &str, given: u32) -> Option<u32> {
        let (whole, fraction) = field.split_once('.').map_or((field, None), |(whole, fraction)| (whole, Some(fraction)));
        let value: i32 = whole.parse().ok()?;
        if let Some(fraction) = fraction {
            if whole.len() > 2 {
                return self.number_field(field, given | DATE);
            }
            self.micros = micros_of(fraction)?;
        }
        let len = field.len();
        if len == 3 && given & DATE == YEAR && (1..=366).contains(&value) {
            self.day_of_year = Some(value);
            return Some(DAY_OF_YEAR | MONTH | DAY);
        }
        let what = match (given & DATE, self.has_text_month) {
            (0, _) if len >= 3 => YEAR,
            (0, _) => MONTH,
            (MONTH, true) if len >= 3 => YEAR,
            (YEAR_MONTH, true) if len >= 3 && self.is_two_digits => {
                // The first number was the day after all.
                (self.day, self.year, self.is_two_digits) = (self.year, value, false);
                return Some(DAY);
            }
            (MONTH | YEAR_MONTH, _) => DAY,
            (YEAR | DAY, _) => MONTH,
            (MONTH_DAY, _) => YEAR,
            (DATE, _) => return self.number_field(field, given),
            _ => return None,
        };
        match what {
            YEAR => (self.year, self.is_two_digits) = (value, len <= 2),
            MONTH => self.month = value,
            _ => self.day = value,
        }
        Some(what)
    }

    /// A date or a time without punctuation. C: `DecodeNumberField`.
    fn number_field(&mut self, field: &str, given: u32) -> Option<u32> {
        let part = |from: usize, to: usize| field.get(from..to).and_then(|digits| digits.parse::<i32>().ok());
        let whole = match field.split_once('.') {
            Some((whole, fraction)) => {
                self.micros = micros_of(fraction)?;
                whole.len()
            }
            None => {
                let len = field.len();
                if given & DATE != DATE && len >= 6 {
                    (self.day, self.month, self.year) = (part(len - 2, len)?, part(len - 4, len - 2)?, part(0, len - 4)?);
                    self.is_two_digits |= len == 6;
                    return Some(DATE);
                }
                len
            }
        };
        if given & TIME != 0 {
            return None;
        }
        (self.hour, self.minute, self.second) = match whole {
            6 => (part(0, 2)?, part(2, 4)?, part(4, 6)?),
            4 => (part(0, 2)?, part(2, 4)?, 0),
            _ => return None,
        };
        Some(TIME)
    }

    fn julian(&mut self, day: i64) -> Option<()> {
        let days = day.checked_sub(JULIAN_OF_1970)?;
        let beyond = days.saturating_sub((CYCLE.1 - 1970) * 366);
        self.cycles = if beyond > 0 { beyond.div_euclid(CYCLE.0) + 1 } else { 0 };
        let days = jiff::Span::new().try_days(days - self.cycles * CYCLE.0).ok()?;
        self.civil = Some(civil::date(1970, 1, 1).checked_add(days).ok()?);
        self.is_julian = true;
        Some(())
    }

    /// The time of day that a fraction of a day is.
    fn fraction_of_day(&mut self, digits: &str) -> Option<()> {
        let fraction: f64 = format!("0.{digits}").parse().ok()?;
        let micros = (fraction * 86_400e6) as i64;
        let seconds = i32::try_from(micros / 1_000_000).ok()?;
        (self.hour, self.minute, self.second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        self.micros = i32::try_from(micros % 1_000_000).ok()?;
        Some(())
    }

    /// Checks the fields, and puts them together. C: `ValidateDate`, `tm2timestamp`.
    fn finish(mut self) -> Option<TimestampTz> {
        let date = match self.civil {
            Some(date) => date,
            None => {
                match (self.before_christ, self.is_two_digits) {
                    (true, _) if self.year <= 0 => return None,
                    // There is no year 0: 1 BC comes before 1 AD.
                    (true, _) => self.year = 1 - self.year,
                    (false, true) if self.year < 70 => self.year += 2000,
                    (false, true) => self.year += 1900,
                    (false, false) if self.year <= 0 => return None,
                    _ => {}
                }
                let beyond = i64::from(self.year) - CYCLE.1;
                self.cycles = if beyond > 0 { beyond.div_euclid(400) + 1 } else { 0 };
                let year = i16::try_from(i64::from(self.year) - self.cycles * 400).ok()?;
                match self.day_of_year {
                    Some(day) => civil::Date::new(year, 1, 1).ok()?.checked_add(jiff::Span::new().days(day - 1)).ok()?,
                    None => civil::Date::new(year, i8::try_from(self.month).ok()?, i8::try_from(self.day).ok()?).ok()?,
                }
            }
        };
        match self.afternoon {
            Some(_) if self.hour > 12 => return None,
            Some(false) if self.hour == 12 => self.hour = 0,
            Some(true) if self.hour != 12 => self.hour += 12,
            _ => {}
        }
        let in_range = (0..=24).contains(&self.hour) && (0..60).contains(&self.minute) && (0..=60).contains(&self.second);
        let seconds = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let micros = seconds * 1_000_000 + i64::from(self.micros);
        if !in_range || micros > 86_400_000_000 {
            return None;
        }
        let midnight = date.to_datetime(civil::Time::midnight());
        let at = midnight.checked_add(jiff::Span::new().try_microseconds(micros).ok()?).ok()?;
        if self.given & SUMMER != 0 && !matches!(self.place, Where::Offset(_)) {
            return None;
        }
        let time = match self.place {
            Where::Offset(east) => Zone::at_offset(at, east.checked_add(self.summer)?),
            Where::Local(zone) => zone.instant(at),
            Where::Zone(zone) => zone.instant(at),
            Where::Abbreviation(zone, abbreviation) => {
                let east = zone.offset_of(&abbreviation, zone.instant(at)?);
                east.map_or_else(|| zone.instant(at), |east| Zone::at_offset(at, east))
            }
        }?;
        let cycles = self.cycles.checked_mul(CYCLE.0 * 86_400_000_000)?;
        time.0.checked_add(cycles).filter(|&time| time < END).map(TimestampTz)
    }
}

const YEAR_MONTH: u32 = YEAR | MONTH;
const MONTH_DAY: u32 = MONTH | DAY;

/// Microseconds of the digits after a decimal point, rounded. C: `ParseFractionalSecond`.
fn micros_of(digits: &str) -> Option<i32> {
    if digits.is_empty() {
        return Some(0);
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: f64 = format!("0.{digits}").parse().ok()?;
    Some((fraction * 1e6).round_ties_even() as i32) // between 0 and 1,000,000
}

/// Seconds east of UTC of an offset such as `+05:30`, `-0330` or `+2`. C: `DecodeTimezone`.
fn offset_of(text: &str) -> Option<i32> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let parts: Vec<i32> = digits.split(':').map(|part| part.parse().ok().filter(|&n: &i32| n >= 0)).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match *parts.as_slice() {
        [together] if digits.len() > 2 => (together / 100, together % 100, 0),
        [hours] => (hours, 0, 0),
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    // C: `MAX_TZDISP_HOUR`.
    let in_range = hours <= 15 && minutes < 60 && seconds < 60;
    if !in_range {
        return None;
    }
    Some(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> String {
        let now = Zone::utc().parse("2026-11-26 01:02:03.5Z").unwrap();
        parse(text, &Zone::utc(), now).map_or_else(|_| "-".to_owned(), |time| time.to_string().replace(".000000Z", "Z"))
    }

    #[test]
    fn fields_in_any_order() {
        for (text, expected) in [
            ("2026-11-23 05:17:00+00", "2026-11-23T05:17:00Z"),
            ("Nov 23 2026 05:17", "2026-11-23T05:17:00Z"),
            ("23 Nov 2026 5:17 PM", "2026-11-23T17:17:00Z"),
            ("Mon Nov 23 05:17:00.25 2026 UTC", "2026-11-23T05:17:00.250000Z"),
            ("20261123T051700", "2026-11-23T05:17:00Z"),
            ("20261123 051700.5", "2026-11-23T05:17:00.500000Z"),
            ("11/23/2026 05:17", "2026-11-23T05:17:00Z"),
            ("23-Nov-26 05:17", "2026-11-23T05:17:00Z"),
            ("2026.327", "2026-11-23T00:00:00Z"),
            ("J2461368", "2026-11-23T00:00:00Z"),
            ("2026-11-23", "2026-11-23T00:00:00Z"),
            ("2026-11-23 24:00", "2026-11-24T00:00:00Z"),
            ("2026-11-23 05:17:60", "2026-11-23T05:18:00Z"),
            ("2026-11-23 05:17:00.1234567", "2026-11-23T05:17:00.123457Z"),
            ("2026-11-23 05:17:00-0330", "2026-11-23T08:47:00Z"),
            ("2026-11-23 05:17 +15:59:59", "2026-11-22T13:17:01Z"),
            ("2026-11-23 05:17 EST", "2026-11-23T10:17:00Z"),
            ("2026-11-23 05:17 met dst", "2026-11-23T03:17:00Z"),
            ("2026-11-23 05:17 zulu", "2026-11-23T05:17:00Z"),
            ("2026-11-23 05:17 America/New_York", "2026-11-23T10:17:00Z"),
            ("2026-07-23 05:17 america/new_york", "2026-07-23T09:17:00Z"),
            ("2026-11-23 05:17 UTC+3", "2026-11-23T08:17:00Z"),
            ("2026-11-23 05:17 MSK", "2026-11-23T02:17:00Z"),
            ("today 05:17", "2026-11-26T05:17:00Z"),
            ("yesterday 23:00", "2026-11-25T23:00:00Z"),
            ("2026-11-23 12:00 AM", "2026-11-23T00:00:00Z"),
            // A gap is taken with the offset before it, a repeated hour the second time.
            ("2026-03-08 02:30 America/New_York", "2026-03-08T07:30:00Z"),
            ("2026-11-01 01:30 America/New_York", "2026-11-01T06:30:00Z"),
            ("2026-07-23 05:17 posix/America/New_York", "2026-07-23T09:17:00Z"),
            ("12026-07-23 05:17 America/New_York", "316407633420000000 us since 2000-01-01"),
            ("294276-12-31 23:59:59.999999", "9223371331199999999 us since 2000-01-01"),
        ] {
            assert_eq!(utc(text), expected, "{text}");
        }
        for bad in [
            "",
            "05:17",
            "nonsense",
            "2026-13-01",
            "2026-02-30",
            "infinity",
            "-infinity",
            "epoch",
            "2026-11-23 25:00",
            "2026-11-23 05:17+16",
            "2026-11-23 05:61",
            "2026-11-23 05:17 Mars/Phobos",
            "294277-01-01 00:00",
            "294276-12-31 23:00-01",
            "2026-11-23 2026-11-24",
            "2026-11-23 13:00 PM",
            "2026-11-23 T",
            "1764000000",
            "2026-11-23 05:17 \u{e9}",
            "05:17 2026-11-23",
            "J",
            "+",
            "2026-11-23 05:17 2026",
        ] {
            assert_eq!(utc(bad), "-", "{bad}");
        }
    }

    #[test]
    fn no_input_panics() {
        let pieces = ["2026", "-", "11", "/", "j", "t", ":", ".", "+", " ", "nov", "pm", "999999999999", "\u{e9}", "bc", "utc", "0", "dst"];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    for d in pieces {
                        let _ = utc(&[a, b, c, d].concat());
                    }
                }
            }
        }
    }
}
