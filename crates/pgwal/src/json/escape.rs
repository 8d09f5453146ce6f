//! JSON that is safe to show on a terminal: what JSON lets stand as it is, and [`crate::printable`] does not, is written as `\u009b`, which
//! readers take for the same value.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::printable::is_unprintable;

/// As [`serde_json::to_writer`], with escapes for everything that [`crate::printable`] escapes.
///
/// # Errors
/// What the writer or the value says.
pub fn to_writer<T: Serialize + ?Sized>(out: impl Write, value: &T) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, Escaping(CompactFormatter)))?)
}

/// As [`to_writer`], with line breaks and indentation.
///
/// # Errors
/// As of [`to_writer`].
pub fn to_writer_pretty<T: Serialize + ?Sized>(out: impl Write, value: &T) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, Escaping(PrettyFormatter::new())))?)
}

/// As [`to_writer`], into a string.
///
/// # Errors
/// As of [`to_writer`].
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> io::Result<String> {
    let mut out = Vec::new();
    to_writer(&mut out, value)?;
    String::from_utf8(out).map_err(io::Error::other)
}

/// The first character of `text` that has to be escaped for a terminal and not for JSON, and where it is.
pub(super) fn first(text: &str) -> Option<(usize, char)> {
    // Nearly all text is ASCII.
    let start = text.bytes().position(|byte| byte >= 0x7F)?;
    let rest = text.get(start..)?; // all before it is ASCII
    let (at, c) = rest.char_indices().find(|&(_, c)| c >= '\u{7F}' && is_unprintable(c))?;
    Some((start + at, c))
}

/// The escape of a character: `\u009b`, or two of these above U+FFFF.
pub(super) fn escape(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Writes JSON as `F` does, with these escapes.
struct Escaping<F>(F);

fn write<W: ?Sized + Write>(out: &mut W, text: &str) -> io::Result<()> {
    let mut rest = text;
    while let Some((at, c)) = first(rest) {
        let (before, after) = rest.split_at(at);
        out.write_all(before.as_bytes())?;
        out.write_all(escape(c).as_bytes())?;
        rest = after.get(c.len_utf8()..).unwrap_or_default();
    }
    out.write_all(rest.as_bytes())
}

impl<F: Formatter> Formatter for Escaping<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        write(out, fragment)
    }
    // JSON has such characters in strings only.
    fn write_raw_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        write(out, fragment)
    }
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }
    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }
    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ser::tests::written;
    use super::*;
    use crate::printable::has_unprintable;

    #[test]
    fn nothing_steers_a_terminal_and_the_value_is_the_same() {
        let bad = (0..0xA0).chain([0xAD, 0x61C, 0x200B, 0x200E, 0x202E, 0x2028, 0x2066, 0x2069, 0xFEFF, 0xE0041]);
        let texts = bad.filter_map(char::from_u32).flat_map(|c| {
            let long = format!("{}{c}{}", "é".repeat(30), "x".repeat(60));
            [c.to_string(), format!("Größe{c}表"), format!("{c}{c}"), long]
        });
        for text in texts.chain(["", "plain", "Größe 表", "\u{1f469}\u{200d}\u{1f4bb}"].map(str::to_owned)) {
            let plain = serde_json::to_string(&text).unwrap();
            let ours = to_string(&text).unwrap();
            assert!(!has_unprintable(&ours), "{text:?}: {ours:?}");
            assert_eq!(ours == plain, !has_unprintable(&plain), "{ours}");
            assert_eq!(serde_json::from_str::<String>(&ours).unwrap(), text);
            // What records are written with makes the same of it.
            assert_eq!(written(&text), ours);
        }
    }

    #[test]
    fn the_form_is_serde_jsons() {
        let value = serde_json::json!({"a": [1, 2.5, null, true, []], "b": {}, "c": {"d": "\n\"\\"}});
        let mut pretty = Vec::new();
        to_writer_pretty(&mut pretty, &value).unwrap();
        assert_eq!(String::from_utf8(pretty).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(to_string(&value).unwrap(), value.to_string());
        let raw = serde_json::value::RawValue::from_string("[\"a\u{9b}\"]".to_owned()).unwrap();
        assert_eq!(to_string(&raw).unwrap(), "[\"a\\u009b\"]");
    }
}
