//! Numbers as C's `sscanf` and `strtoul` read them, which is how pg_waldump reads its options: blanks and a sign before the
//! digits are fine, whatever follows them is ignored, and what is too large is cut.

/// Text that is being scanned.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'t>(&'t [u8]);

impl<'t> Scan<'t> {
    /// From the start of `text`.
    pub fn new(text: &'t [u8]) -> Scan<'t> {
        Scan(text)
    }

    /// What has not been scanned yet.
    pub fn rest(&self) -> &'t [u8] {
        self.0
    }

    /// Takes `literal`, which must come next.
    pub fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// `%u` and `%X`: 32 bits in `base` 10 or 16, of at most `width` characters.
    pub fn unsigned(&mut self, base: u32, width: usize) -> Option<u32> {
        self.number(base, width).map(|number| number.wrapped() as u32)
    }

    /// `%d`.
    pub fn signed(&mut self, width: usize) -> Option<i32> {
        self.number(10, width).map(|number| number.saturated() as i32)
    }

    fn blanks(&mut self) {
        while let [b' ' | b'\t'..=b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// A number; `None`: there are no digits, or the text is cut to nothing. A `base` of 0 is told by its prefix.
    fn number(&mut self, mut base: u32, width: usize) -> Option<Number> {
        self.blanks();
        let mut field = self.0.get(..width).unwrap_or(self.0);
        let all = field.len();
        let negative = field.first() == Some(&b'-');
        if let [b'-' | b'+', rest @ ..] = field {
            field = rest;
        }
        let mut some = false;
        if let ([b'0', b'x' | b'X', rest @ ..], 0 | 16) = (field, base) {
            (field, base, some) = (rest, 16, true); // the zero before the x is a digit
        } else if base == 0 {
            base = if field.first() == Some(&b'0') { 8 } else { 10 };
        }
        let mut number = Number { negative, magnitude: Some(0) };
        while let [digit, rest @ ..] = field {
            let Some(value) = char::from(*digit).to_digit(base) else { break };
            number.magnitude = number.magnitude.and_then(|m| m.checked_mul(base.into())?.checked_add(value.into()));
            (field, some) = (rest, true);
        }
        if !some {
            return None;
        }
        self.0 = self.0.get(all - field.len()..).unwrap_or_default(); // what is left of the field is no longer than all of it
        Some(number)
    }
}

/// Sign and magnitude; no magnitude: more than 64 bits.
struct Number {
    negative: bool,
    magnitude: Option<u64>,
}

impl Number {
    /// As `strtoul`: negative numbers wrap around, what is too large is the largest.
    fn wrapped(&self) -> u64 {
        match self.magnitude {
            Some(magnitude) if self.negative => magnitude.wrapping_neg(),
            Some(magnitude) => magnitude,
            None => u64::MAX,
        }
    }

    /// As `strtol`.
    fn saturated(&self) -> i64 {
        let magnitude = self.magnitude.unwrap_or(u64::MAX);
        if self.negative { 0i64.saturating_sub_unsigned(magnitude) } else { 0i64.saturating_add_unsigned(magnitude) }
    }
}

/// `strtoul` with base 0: the value, and what follows it; the value is `None` where it has more than 64 bits.
pub fn strtoul(text: &[u8]) -> (Option<u64>, &[u8]) {
    let mut scan = Scan::new(text);
    match scan.number(0, usize::MAX) {
        Some(number) => (number.magnitude.map(|_| number.wrapped()), scan.rest()),
        None => (Some(0), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsigned(text: &str, base: u32, width: usize) -> (Option<u32>, &str) {
        let mut scan = Scan::new(text.as_bytes());
        (scan.unsigned(base, width), std::str::from_utf8(scan.rest()).unwrap())
    }

    #[test]
    fn numbers_as_c_reads_them() {
        assert_eq!(unsigned(" \t7x", 10, 99), (Some(7), "x"));
        assert_eq!(unsigned("-1", 10, 99), (Some(u32::MAX), ""));
        assert_eq!(unsigned("+0x1fG", 16, 99), (Some(0x1F), "G"));
        assert_eq!(unsigned("123456789", 16, 99), (Some(0x2345_6789), ""));
        assert_eq!(unsigned("123456789", 16, 8), (Some(0x1234_5678), "9"));
        assert_eq!(unsigned("99999999999999999999", 10, 99), (Some(u32::MAX), ""));
        for bad in ["", " ", "-", "x", "/1"] {
            assert_eq!(unsigned(bad, 16, 99).0, None, "{bad:?}");
        }
        assert_eq!(Scan::new(b"-5").signed(99), Some(-5));
        assert_eq!(Scan::new(b"1234").signed(3), Some(123));
        assert_eq!(Scan::new(b"99999999999999999999").signed(99), Some(-1));
    }

    #[test]
    fn strtoul_tells_the_base_by_its_prefix() {
        assert_eq!(strtoul(b"0x10 "), (Some(16), &b" "[..]));
        assert_eq!(strtoul(b"010"), (Some(8), &b""[..]));
        assert_eq!(strtoul(b"10"), (Some(10), &b""[..]));
        assert_eq!(strtoul(b"09"), (Some(0), &b"9"[..]));
        assert_eq!(strtoul(b"x"), (Some(0), &b"x"[..]));
        assert_eq!(strtoul(b"18446744073709551616"), (None, &b""[..]));
    }
}
