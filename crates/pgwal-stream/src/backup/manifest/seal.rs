//! The checksum that a manifest ends with. C: `verify_manifest_checksum`, common/parse_manifest.c.

use sha2::{Digest, Sha256};

/// Sees the bytes of a manifest as they come, and knows what everything before the last line comes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Seal {
    all: Sha256,
    /// What everything up to the last newline comes to, with it, and the same for the one before.
    last: Option<Sha256>,
    last_but_one: Option<Sha256>,
    newlines: u64,
    ends_with_newline: bool,
}

/// What is wrong with the lines of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    TooFew,
    NotEnded,
}

impl Seal {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let Some(&end) = bytes.last() else { return };
        self.ends_with_newline = end == b'\n';
        let newlines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        self.newlines = self.newlines.saturating_add(newlines as u64);
        // Of many newlines only the last two can count.
        let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
        for _ in 2..newlines {
            lines.next().inspect(|line| self.all.update(line));
        }
        for line in lines {
            self.all.update(line);
            if line.ends_with(b"\n") {
                self.last_but_one = self.last.replace(self.all.clone());
            }
        }
    }

    /// The checksum of everything before the last line, which must end with a newline.
    pub(super) fn value(self) -> Result<[u8; 32], LineError> {
        if self.newlines < 2 {
            return Err(LineError::TooFew);
        }
        match self.last_but_one {
            Some(value) if self.ends_with_newline => Ok(value.finalize().into()),
            _ => Err(LineError::NotEnded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_does_not_count_however_the_bytes_come() {
        let text = b"{ one,\n two,\n\n three,\nfour }\n";
        let expected: [u8; 32] = Sha256::digest(b"{ one,\n two,\n\n three,\n").into();
        for size in 1..=text.len() {
            let mut seal = Seal::default();
            text.chunks(size).for_each(|chunk| seal.add(chunk));
            assert_eq!(seal.value(), Ok(expected), "{size} at once");
        }
        let value = |text: &[u8]| {
            let mut seal = Seal::default();
            seal.add(text);
            seal.value()
        };
        assert_eq!(value(b"one\n"), Err(LineError::TooFew));
        assert_eq!(value(b"one\ntwo\nthree"), Err(LineError::NotEnded));
        assert_eq!(value(b"one\ntwo\n\n"), Ok(Sha256::digest(b"one\ntwo\n").into()));
        assert_eq!(value(b""), Err(LineError::TooFew));
    }
}
