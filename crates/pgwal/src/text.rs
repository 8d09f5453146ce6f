//! The text of pg_waldump, written into a byte buffer.
//!
//! Text is the hot path of the whole program, so descriptions are built from plain integer and hex writers under
//! [`put!`](crate::put) instead of `core::fmt`.

use std::fmt;

use crate::format::WalFormat;
use crate::lsn::{Lsn, TimelineId};
use crate::types::{BlockNumber, CommandId, FullXid, MultiXactId, OffsetNumber, Oid, RelFileLocator, RepOriginId, TimestampTz, Xid};
use crate::wire::{Bytes, Str};
pub use crate::zone::{ParseTimeError, Zone};

/// A byte buffer that knows how PostgreSQL writes its values.
#[derive(Debug)]
pub struct Text {
    buf: Vec<u8>,
    /// 19 pads the lower half of every LSN to eight digits; before, only the record line did.
    pad_lsn: bool,
    zone: Zone,
    /// The last minute written.
    minute: Option<Minute>,
    /// Relations written before, each at the place that its file number gives; empty until the first.
    relations: Vec<Relation>,
    /// The last transaction id written in a column, and the column.
    xid: Option<(Xid, u64)>,
    /// The last upper half of an LSN written with a slash behind it, its text and the bytes of that that count.
    upper: Option<(u32, [u8; 9], usize)>,
}

/// Relations that are remembered.
const RELATIONS: usize = 64;
/// Bytes that `spc/db/rel` can have.
const RELATION_LEN: usize = 32;

/// The text of a relation.
#[derive(Clone, Copy, Debug, Default)]
struct Relation {
    rel: RelFileLocator,
    text: [u8; RELATION_LEN],
    /// Bytes of `text` that count; zero in an unused place.
    len: usize,
}

/// The part of a timestamp that stays the same for a minute.
#[derive(Debug)]
struct Minute {
    /// Minutes since the Unix epoch; `None`: good for one second only.
    number: Option<i64>,
    /// Text up to the seconds.
    text: Vec<u8>,
    /// The zone's abbreviation.
    zone: Vec<u8>,
}

impl Text {
    /// An empty buffer for WAL of format `fmt`, with timestamps in `zone`.
    pub fn new(fmt: WalFormat, zone: Zone) -> Text {
        Text { buf: Vec::new(), pad_lsn: fmt.since(19), zone, minute: None, relations: Vec::new(), xid: None, upper: None }
    }

    /// Continues with WAL of another format.
    pub fn set_format(&mut self, fmt: WalFormat) {
        self.pad_lsn = fmt.since(19);
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    /// What has been written, as a string; bytes from the WAL that are not UTF-8 are replaced.
    pub fn to_string_lossy(&self) -> String {
        String::from_utf8_lossy(&self.buf).into_owned()
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Forgets what has been written and keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
    }

    /// Forgets what has been written after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.buf.truncate(len);
    }

    /// Takes out what has been written.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buf)
    }

    /// Appends bytes as they are.
    // Always inlined: most bytes are literals, whose copy is then a few moves instead of a call.
    #[inline(always)]
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Appends the first `len` bytes of `bytes`. A copy of fixed size is cheap, and what is too much is taken back.
    #[inline(always)]
    fn push_part<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        let end = self.buf.len() + len.min(N);
        self.buf.extend_from_slice(bytes);
        self.buf.truncate(end);
    }

    /// Appends `form`, in which `values` then fills the gaps.
    // In place: to put the pieces together first and to copy them then would make the copy wait for the pieces.
    #[inline(always)]
    pub(crate) fn fill<const N: usize>(&mut self, form: &[u8; N], values: impl FnOnce(&mut [u8; N])) {
        self.push(form);
        if let Some(form) = self.buf.last_chunk_mut() {
            values(form);
        }
    }

    /// Appends a name: bytes that are few, but how many is not known where it is written.
    #[inline]
    pub fn name(&mut self, name: &[u8]) {
        // Two overlapping copies of fixed size in the place of a call.
        let start = self.buf.len();
        let len = name.len();
        if let (Some(first), Some(last), 8..=16) = (name.first_chunk::<8>(), name.last_chunk::<8>(), len) {
            self.push(first);
            self.buf.truncate(start + len - 8);
            self.push(last);
        } else if let (Some(first), Some(last), 4..=8) = (name.first_chunk::<4>(), name.last_chunk::<4>(), len) {
            self.push(first);
            self.buf.truncate(start + len - 4);
            self.push(last);
        } else {
            self.push(name);
        }
    }

    /// Appends decimal digits, right-aligned in at least `width` columns.
    // The digits stay in a register until they are stored at once: storing them one by one and copying them from there would
    // make the copy wait for the stores.
    #[inline]
    pub fn decimal(&mut self, value: u64, width: usize) {
        match value {
            0..=9 if width <= 1 => self.push(&[b'0' + value as u8]),            // value < 10
            0..=9_999 if width <= 8 => self.four_digits(value as usize, width), // value < 10,000
            _ => self.many_digits(value, width),
        }
    }

    #[inline]
    fn four_digits(&mut self, value: usize, width: usize) {
        let pair = |value: usize| u32::from(u16::from_le_bytes(PAIRS[value % 100]));
        let digits = pair(value / 100) | pair(value) << 16;
        let leading = usize::from(value < 10) + usize::from(value < 100) + usize::from(value < 1000);
        if width <= 4 - leading {
            return self.push_part(&(digits >> (8 * leading as u32)).to_le_bytes(), 4 - leading);
        }
        // Leading zeroes become blanks, and more blanks come before them.
        let blanks = (1u64 << (8 * leading as u32)) - 1;
        let text = u64::from(digits) ^ (blanks & (ZEROES ^ BLANKS));
        self.push_part(&((text << 32 | BLANKS >> 32) >> (8 * (8 - width) as u32)).to_le_bytes(), width);
    }

    #[inline(never)]
    fn many_digits(&mut self, value: u64, width: usize) {
        const EIGHT: u64 = 100_000_000;
        if value >= EIGHT {
            self.decimal(value / EIGHT, width.saturating_sub(8));
            return self.push(&(eight_digits((value % EIGHT) as u32) | ZEROES).to_le_bytes());
        }
        let mut width = width;
        while width > 8 {
            self.push(b" ");
            width -= 1;
        }
        let digits = eight_digits(value as u32); // value < EIGHT
        let leading = (digits.trailing_zeros() as usize / 8).min(7); // zero has one digit
        let len = (8 - leading).max(width);
        let blanks = (1 << (8 * leading as u32)) - 1;
        let text = (digits | ZEROES) ^ (blanks & (ZEROES ^ BLANKS));
        self.push_part(&(text >> (8 * (8 - len) as u32)).to_le_bytes(), len);
    }

    /// Appends a transaction id in ten columns; records that follow each other often have the same. C: `%10u`.
    // The columns are remembered as a number: to read them back from where they have just been written would wait for that.
    #[inline]
    pub(crate) fn xid_column(&mut self, xid: Xid) {
        let columns = match self.xid {
            Some((known, columns)) if known == xid => columns,
            _ if xid.0 < 100_000_000 => {
                let columns = eight_columns(xid.0);
                self.xid = Some((xid, columns));
                columns
            }
            _ => return self.decimal(xid.0.into(), 10),
        };
        self.push(b"  ");
        self.push(&columns.to_le_bytes());
    }

    /// Appends the upper half of an LSN and the slash.
    #[cold]
    fn upper_half(&mut self, upper: u32) {
        let start = self.buf.len();
        self.hexadecimal(upper.into(), 1, Letters::Upper);
        self.push(b"/");
        let mut text = [0; 9];
        let len = self.buf.get(start..).map_or(0, |written| {
            text[..written.len()].copy_from_slice(written); // up to eight digits and the slash
            written.len()
        });
        self.upper = Some((upper, text, len));
    }

    /// Appends `spc/db/rel`. WAL names the same few relations again and again, so their text is remembered.
    #[inline]
    pub(crate) fn relation(&mut self, rel: RelFileLocator) {
        let place = rel.rel.0 as usize % RELATIONS;
        if let Some(known) = self.relations.get(place).filter(|known| known.rel == rel && known.len > 0) {
            let end = self.buf.len() + known.len;
            self.buf.extend_from_slice(&known.text);
            self.buf.truncate(end);
            return;
        }
        let start = self.buf.len();
        self.decimal(rel.spc.0.into(), 0);
        self.push(b"/");
        self.decimal(rel.db.0.into(), 0);
        self.push(b"/");
        self.decimal(rel.rel.0.into(), 0);
        self.relations.resize(RELATIONS, Relation::default());
        if let (Some(known), Some(text)) = (self.relations.get_mut(place), self.buf.get(start..)) {
            let mut padded = [0; RELATION_LEN];
            padded[..text.len()].copy_from_slice(text); // three numbers of up to ten digits, two slashes
            *known = Relation { rel, text: padded, len: text.len() };
        }
    }

    /// Appends hexadecimal digits, zero-padded to at least `width`, at most 16.
    #[inline]
    fn hexadecimal(&mut self, value: u64, width: usize, letters: Letters) {
        let len = (16 - value.leading_zeros() as usize / 4).clamp(width.clamp(1, 16), 16);
        let low = letters.digits(value as u32);
        if len <= 8 {
            let aligned = low << (8 * (8 - len)) as u32;
            return self.push_part(&aligned.to_be_bytes(), len);
        }
        let high = letters.digits((value >> 32) as u32) << (8 * (16 - len)) as u32;
        self.push_part(&high.to_be_bytes(), len - 8);
        self.push(&low.to_be_bytes());
    }

    /// Appends a timestamp as C's `timestamptz_to_str` in pg_waldump does: local time, microseconds, zone abbreviation.
    fn timestamp(&mut self, time: TimestampTz) {
        // Like C, the division truncates towards zero, so that times before 2000 show negative microseconds.
        let unix = time.0 / 1_000_000 + TimestampTz::UNIX_EPOCH_OFFSET / 1_000_000;
        let micros = time.0 % 1_000_000;
        let number = unix.div_euclid(60);
        let mut seconds = unix.rem_euclid(60);
        let minute = match self.minute.take() {
            Some(minute) if minute.number == Some(number) => minute,
            _ => {
                let zone = self.zone.at(unix);
                let local = unix + zone.0;
                seconds = local.rem_euclid(60);
                // Local mean times have seconds in their offsets, so that local minutes are not UTC's.
                let steady = zone.0 % 60 == 0 && [0, 59].iter().all(|second| self.zone.at(number * 60 + second) == zone);
                Minute { number: steady.then_some(number), text: minute_text(local), zone: zone.1 }
            }
        };
        self.push(&minute.text);
        self.push(&PAIRS[seconds as usize]); // 0..60
        let digits = eight_digits(micros.unsigned_abs() as u32) | ZEROES; // less than a million
        self.push(if micros < 0 { b".-" } else { b"." });
        match micros {
            // C's %06d counts the sign.
            -99_999..0 => self.push_part(&(digits >> 24).to_le_bytes(), 5),
            _ => self.push_part(&(digits >> 16).to_le_bytes(), 6),
        }
        self.push(b" ");
        self.push(&minute.zone);
        self.minute = Some(minute);
    }
}

/// Text of a local time (seconds since 1970-01-01 00:00:00 there) up to its seconds. C: `strftime`, which does not pad years.
fn minute_text(local: i64) -> Vec<u8> {
    let (year, month, day) = civil_from_days(local.div_euclid(86_400));
    let second = local.rem_euclid(86_400);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:", second / 3600, second / 60 % 60).into_bytes()
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// A calendar library stops at year 9999; PostgreSQL's timestamps, and damaged ones, do not.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01: leap days come last
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Eight characters '0'.
pub(crate) const ZEROES: u64 = u64::from_le_bytes([b'0'; 8]);
/// Eight blanks.
const BLANKS: u64 = u64::from_le_bytes([b' '; 8]);

/// The eight digits of a number below 100,000,000, one a byte, the first in the least significant one.
#[inline]
pub(crate) fn eight_digits(value: u32) -> u64 {
    // Halved three times: all halves of a step are divided at once, by multiplying with the reciprocal.
    let halves = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    let hundreds = (halves * 10_486) >> 20 & 0x0000_007F_0000_007F;
    let quarters = hundreds | (halves - hundreds * 100) << 16;
    let tens = (quarters * 103) >> 10 & 0x000F_000F_000F_000F;
    tens | (quarters - tens * 10) << 8
}

/// A number below 1,000,000 in six columns. C: `%6u`.
#[inline]
pub(crate) fn six_columns(value: u32) -> [u8; 6] {
    let [_, _, columns @ ..] = eight_columns(value).to_le_bytes();
    columns
}

/// A number below 100,000,000 in eight columns, the first in the least significant byte. C: `%8u`.
#[inline]
fn eight_columns(value: u32) -> u64 {
    let digits = eight_digits(value);
    let blanks = (1 << (digits.trailing_zeros() / 8 * 8).min(56)) - 1; // zero has one digit
    (digits | ZEROES) ^ (blanks & (ZEROES ^ BLANKS))
}

/// "00" to "99".
pub(crate) const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + i as u8 / 10, b'0' + i as u8 % 10];
        i += 1;
    }
    pairs
};

/// A value that can be appended to [`Text`].
pub trait Put {
    /// Appends the value in PostgreSQL's usual form for its type.
    fn put(&self, out: &mut Text);
}

/// Appends values one after the other: `put!(out, "off: ", self.offnum, ", flags: 0x", hex2(self.flags.0))`.
#[macro_export]
macro_rules! put {
    ($out:expr $(, $value:expr)* $(,)?) => {{
        let out: &mut $crate::text::Text = $out;
        $($crate::text::Put::put(&$value, out);)*
    }};
}

impl<T: Put + ?Sized> Put for &T {
    #[inline(always)]
    fn put(&self, out: &mut Text) {
        (**self).put(out);
    }
}
impl Put for str {
    #[inline(always)]
    fn put(&self, out: &mut Text) {
        out.push(self.as_bytes());
    }
}
impl Put for [u8] {
    #[inline(always)]
    fn put(&self, out: &mut Text) {
        out.push(self);
    }
}
impl Put for Str<'_> {
    #[inline]
    fn put(&self, out: &mut Text) {
        out.push(self.0);
    }
}
/// The bytes as they are, like C's `%s`.
impl Put for Bytes<'_> {
    #[inline]
    fn put(&self, out: &mut Text) {
        out.push(self.0);
    }
}
macro_rules! put_integers {
    (unsigned $($u:ty),*; signed $($i:ty),*; newtypes $($n:ty),*) => {
        $(impl Put for $u {
            #[inline]
            fn put(&self, out: &mut Text) {
                out.decimal(*self as u64, 0);
            }
        })*
        $(impl Put for $i {
            #[inline]
            fn put(&self, out: &mut Text) {
                if *self < 0 {
                    out.push(b"-");
                }
                out.decimal(self.unsigned_abs() as u64, 0);
            }
        })*
        $(impl Put for $n {
            #[inline]
            fn put(&self, out: &mut Text) {
                out.decimal(self.0.into(), 0);
            }
        })*
    };
}
put_integers!(unsigned u8, u16, u32, u64, usize; signed i8, i16, i32, i64;
    newtypes Xid, MultiXactId, Oid, BlockNumber, OffsetNumber, CommandId, RepOriginId, TimelineId);

/// `epoch:xid`, as descriptions of 12 and later write it.
impl Put for FullXid {
    fn put(&self, out: &mut Text) {
        put!(out, self.epoch(), ":", self.xid());
    }
}
/// As descriptions write it: `%X/%X` before 19, `%X/%08X` from 19 on.
impl Put for Lsn {
    #[inline]
    fn put(&self, out: &mut Text) {
        let width = if out.pad_lsn { 8 } else { 1 };
        put!(out, hex(self.high()), "/");
        out.hexadecimal(self.low().into(), width, Letters::Upper);
    }
}
impl Put for TimestampTz {
    fn put(&self, out: &mut Text) {
        out.timestamp(*self);
    }
}

/// Which letters stand for the hexadecimal digits from ten on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Letters {
    Upper,
    Lower,
}

impl Letters {
    /// The eight digits of `value`, one a byte, the first in the most significant one.
    #[inline]
    pub(crate) fn digits(self, value: u32) -> u64 {
        // Spread the nibbles over the bytes, then turn all of them into characters at once.
        let mut spread = u64::from(value);
        spread = (spread << 16 | spread) & 0x0000_FFFF_0000_FFFF;
        spread = (spread << 8 | spread) & 0x00FF_00FF_00FF_00FF;
        spread = (spread << 4 | spread) & 0x0F0F_0F0F_0F0F_0F0F;
        let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101; // 1 where the nibble is ten or more
        let distance = match self {
            Letters::Upper => u64::from(b'A' - b'9' - 1),
            Letters::Lower => u64::from(b'a' - b'9' - 1),
        };
        spread + 0x3030_3030_3030_3030 + letters * distance
    }
}

/// A number in one of C's formats; made by [`hex`], [`hex2`] and their like.
#[derive(Clone, Copy, Debug)]
pub struct Formatted(Form, u64);

#[derive(Clone, Copy, Debug)]
enum Form {
    Upper(usize),
    Lower(usize),
    Decimal(usize),
}

/// `%X`
#[inline]
pub fn hex(value: impl Into<u64>) -> Formatted {
    Formatted(Form::Upper(1), value.into())
}
/// `%02X`
#[inline]
pub fn hex2(value: impl Into<u64>) -> Formatted {
    Formatted(Form::Upper(2), value.into())
}
/// `%x`
#[inline]
pub fn lower_hex(value: impl Into<u64>) -> Formatted {
    Formatted(Form::Lower(1), value.into())
}
/// `%02x`
#[inline]
pub fn lower_hex2(value: impl Into<u64>) -> Formatted {
    Formatted(Form::Lower(2), value.into())
}
/// `%{width}u`: right-aligned.
#[inline]
pub fn right(value: impl Into<u64>, width: usize) -> Formatted {
    Formatted(Form::Decimal(width), value.into())
}
impl Put for Formatted {
    #[inline]
    fn put(&self, out: &mut Text) {
        match self.0 {
            Form::Upper(width) => out.hexadecimal(self.1, width, Letters::Upper),
            Form::Lower(width) => out.hexadecimal(self.1, width, Letters::Lower),
            Form::Decimal(width) => out.decimal(self.1, width),
        }
    }
}

/// An LSN as `%X/%08X` whatever the major, as the record line writes it.
#[derive(Clone, Copy, Debug)]
pub struct Padded(pub Lsn);

impl Put for Padded {
    #[inline]
    fn put(&self, out: &mut Text) {
        // The upper half stays the same for 4 GB of WAL.
        match out.upper {
            Some((upper, text, len)) if upper == self.0.high() => out.push_part(&text, len),
            _ => out.upper_half(self.0.high()),
        }
        out.push(&Letters::Upper.digits(self.0.low()).to_be_bytes());
    }
}

/// So that rarely used values can be written with `write!(out, …)` too.
impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Text)) -> String {
        let mut out = Text::new(WalFormat::new(15), Zone::utc());
        write(&mut out);
        out.to_string_lossy()
    }

    #[test]
    fn integers_equal_core_fmt() {
        for n in [0, 1, 9, 10, 99, 100, 101, 999, 1000, 65_535, 99_999, 100_000, u32::MAX.into(), u64::MAX / 2, u64::MAX] {
            assert_eq!(text(|t| put!(t, n)), n.to_string());
            assert_eq!(text(|t| put!(t, hex(n), " ", hex2(n), " ", lower_hex(n))), format!("{n:X} {n:02X} {n:x}"));
            for width in [0, 1, 6, 10, 20, 25] {
                assert_eq!(text(|t| put!(t, right(n, width))), format!("{n:width$}"));
            }
        }
        assert_eq!(text(|t| put!(t, i32::MIN, " ", -1i64, " ", 7i8)), "-2147483648 -1 7");
    }

    #[test]
    fn all_ways_to_write_eight_digits() {
        for n in (0..100_000_000).step_by(9_973).chain([9, 99, 9_999, 10_000, 99_999_999]) {
            let digits = (eight_digits(n) | ZEROES).to_le_bytes();
            assert_eq!(digits, format!("{n:08}").as_bytes(), "{n}");
        }
    }

    #[test]
    fn names_of_every_length() {
        let name = "INSERT_UPGRADE_PLACEHOLDER";
        for len in 0..=name.len() {
            assert_eq!(text(|t| t.name(&name.as_bytes()[..len])), name[..len]);
        }
    }

    #[test]
    fn lsn_width_follows_the_major() {
        assert_eq!(text(|t| put!(t, Lsn(0x1_0000_0ABC), " ", Padded(Lsn(0x1_0000_0ABC)))), "1/ABC 1/00000ABC");
        let mut out = Text::new(WalFormat::new(19), Zone::utc());
        put!(&mut out, Lsn(0xABC));
        assert_eq!(out.as_bytes(), b"0/00000ABC");
    }

    #[test]
    fn timestamps() {
        assert_eq!(text(|t| put!(t, TimestampTz(0))), "2000-01-01 00:00:00.000000 UTC");
        assert_eq!(text(|t| put!(t, TimestampTz(846_979_199_999_999))), "2026-11-02 23:59:59.999999 UTC");
        assert_eq!(text(|t| put!(t, TimestampTz(-1))), "2000-01-01 00:00:00.-00001 UTC");
        // Beyond any calendar library: PostgreSQL's infinities, and years that C does not pad.
        assert_eq!(text(|t| put!(t, TimestampTz(i64::MAX))), "294277-01-09 04:00:54.775807 UTC");
        assert_eq!(text(|t| put!(t, TimestampTz(i64::MIN))), "-290278-12-22 19:59:06.-775808 UTC");
        assert_eq!(text(|t| put!(t, TimestampTz(-63_076_906_432_999_992))), "1-03-04 05:06:08.-999992 UTC");
    }
}
