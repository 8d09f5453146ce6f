//! Text from elsewhere, made safe to show on a terminal.
//!
//! Names of files and relations, labels, and messages of servers may hold anything. Written to a terminal as they are, control characters
//! move the cursor, rewrite what stands there, change the title, or answer in the user's place; line breaks look like lines of our own;
//! and bidirectional overrides and invisible characters make one name look like another. [`printable`] shows all of these as escapes
//! and leaves other text alone.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::path::Path;

/// Shows `text` on one line: control characters, line breaks among them, as escapes such as `\n`, `\x1b` and `\u{202e}`.
///
/// ```
/// use pgwal::printable::printable;
///
/// assert_eq!(printable("nightly\n\x1b[2Jok").to_string(), "nightly\\n\\x1b[2Jok");
/// assert_eq!(printable("Größe 表").to_string(), "Größe 表");
/// ```
pub fn printable<T: fmt::Display>(text: T) -> Printable<T> {
    Printable { text, line_feeds: false }
}

/// As [`printable`], with line feeds as they are: for text that is meant to have several lines.
pub fn printable_lines<T: fmt::Display>(text: T) -> Printable<T> {
    Printable { text, line_feeds: true }
}

/// As [`printable`], of bytes that should be UTF-8: those that are not are shown as `\xff`.
pub fn printable_bytes(bytes: &[u8]) -> Printable<Bytes<'_>> {
    printable(Bytes(bytes))
}

/// As [`printable`], of a path; bytes of it that are not UTF-8 are shown as `\xff`.
pub fn printable_path(path: &Path) -> Printable<Bytes<'_>> {
    printable_bytes(path.as_os_str().as_encoded_bytes())
}

/// Whether `text` has a character that [`printable`] escapes.
pub fn has_unprintable(text: &str) -> bool {
    text.chars().any(is_unprintable)
}

/// As [`printable`], of a string, which is copied only where it must be.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if has_unprintable(text) { Cow::Owned(printable(text).to_string()) } else { Cow::Borrowed(text) }
}

/// A value whose text is shown without control characters. See [`printable`] and [`printable_lines`].
#[derive(Clone, Copy, Debug)]
pub struct Printable<T> {
    text: T,
    line_feeds: bool,
}

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape { out: f, line_feeds: self.line_feeds }, "{}", self.text)
    }
}

/// Bytes that should be UTF-8. See [`printable_bytes`].
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Passes on what is written to it, with escapes.
struct Escape<W> {
    out: W,
    line_feeds: bool,
}

impl<W: Write> Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_unprintable(c) && !(self.line_feeds && c == '\n')) {
            let (good, bad) = rest.split_at(at);
            self.out.write_str(good)?;
            match c {
                '\n' => self.out.write_str("\\n")?,
                '\r' => self.out.write_str("\\r")?,
                '\t' => self.out.write_str("\\t")?,
                '\0'..='\x7f' => write!(self.out, "\\x{:02x}", u32::from(c))?,
                _ => write!(self.out, "\\u{{{:x}}}", u32::from(c))?,
            }
            rest = bad.get(c.len_utf8()..).unwrap_or_default();
        }
        self.out.write_str(rest)
    }
}

/// Control characters (C0, DEL, C1), breaks of lines and paragraphs, and what is invisible or changes the direction of the text around it.
///
/// The joiners U+200C and U+200D stay: Persian, Indic scripts and emoji need them.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        for c in (0..0x20).chain(0x7f..0xa0).chain([0x61c, 0x200e, 0x202e, 0x2066, 0x2069, 0x2028, 0xfeff, 0xe0041]) {
            let c = char::from_u32(c).unwrap();
            let shown = printable(format!("a{c}b")).to_string();
            assert!(!has_unprintable(&shown) && shown.starts_with("a\\") && shown.ends_with('b'), "{c:?}: {shown}");
            assert_eq!(shown, escaped(&format!("a{c}b")));
            let lines = printable_lines(format!("a{c}b")).to_string();
            assert_eq!(lines == shown, c != '\n', "{c:?}: {lines}");
        }
        assert_eq!(printable("\r\t\x1b]0;x\x07\u{9b}A").to_string(), "\\r\\t\\x1b]0;x\\x07\\u{9b}A");
        assert_eq!(printable_lines("a\nb\x1b").to_string(), "a\nb\\x1b");
    }

    #[test]
    fn other_text_stays() {
        for text in ["", "a b", "Größe", "可", "\u{1f469}\u{200d}\u{1f4bb}", "a\\b", "مرحبا"] {
            assert_eq!(printable(text).to_string(), text);
            assert!(matches!(escaped(text), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(printable_bytes(b"a\xff\xc3b\x1b").to_string(), "a\\xff\\xc3b\\x1b");
        // The eight-bit form of ESC [, which some terminals obey.
        assert_eq!(printable_bytes(b"\x9b2J").to_string(), "\\x9b2J");
        assert_eq!(printable_path(Path::new("wal\n/1")).to_string(), "wal\\n/1");
    }
}
