//! The JSON of manifests, token by token, as it comes from a reader. C: common/jsonapi.c.
//!
//! What is valid is what PostgreSQL takes for valid. A token is kept while it is read, and nothing else of the text.

use std::fmt;
use std::io::{self, Read};

use super::seal::Seal;

/// Bytes that are read at once.
const CHUNK: usize = 128 << 10;

/// A token may have this many bytes: a path has at most 4096 on Linux, and twice as many as hexadecimal digits.
pub(super) const MAX_TOKEN: usize = 1 << 20;

/// Bytes of a token that an error shows.
const SHOWN: usize = 200;

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Comma,
    Colon,
    /// A string; its value is [`Lexer::text`].
    String,
    /// A number, `true`, `false` or `null`, as it stands there: [`Lexer::text`].
    Literal,
    End,
}

/// What is wrong with a text that should be JSON. C: `JsonParseErrorType`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonError {
    /// It ends too early.
    ExpectedMore,
    /// It goes on after its end.
    ExpectedEnd(String),
    /// Something else stands where a value must.
    ExpectedValue(String),
    /// Something else stands where a string must.
    ExpectedString(String),
    /// Something else stands at the start of an object.
    ExpectedObjectFirst(String),
    /// Something else stands after a member of an object.
    ExpectedObjectNext(String),
    /// Something else stands at the start of an array.
    ExpectedArrayFirst(String),
    /// Something else stands after an element of an array.
    ExpectedArrayNext(String),
    /// Something else stands after the name of a member.
    ExpectedColon(String),
    /// No token.
    InvalidToken(String),
    /// A control character in a string.
    EscapingRequired(u8),
    /// A backslash with something that it does not escape.
    EscapingInvalid(char),
    /// `\u` without four digits.
    UnicodeEscapeFormat,
    /// `\u0000`
    UnicodeZero,
    /// Two first halves of a surrogate pair.
    UnicodeHighSurrogate,
    /// Half a surrogate pair.
    UnicodeLowSurrogate,
    /// A token is longer than anything in a manifest.
    TokenTooLong,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::ExpectedMore => f.write_str("The input string ended unexpectedly."),
            JsonError::ExpectedEnd(found) => write!(f, "Expected end of input, but found \"{found}\"."),
            JsonError::ExpectedValue(found) => write!(f, "Expected JSON value, but found \"{found}\"."),
            JsonError::ExpectedString(found) => write!(f, "Expected string, but found \"{found}\"."),
            JsonError::ExpectedObjectFirst(found) => write!(f, "Expected string or \"}}\", but found \"{found}\"."),
            JsonError::ExpectedObjectNext(found) => write!(f, "Expected \",\" or \"}}\", but found \"{found}\"."),
            JsonError::ExpectedArrayFirst(found) => write!(f, "Expected array element or \"]\", but found \"{found}\"."),
            JsonError::ExpectedArrayNext(found) => write!(f, "Expected \",\" or \"]\", but found \"{found}\"."),
            JsonError::ExpectedColon(found) => write!(f, "Expected \":\", but found \"{found}\"."),
            JsonError::InvalidToken(found) => write!(f, "Token \"{found}\" is invalid."),
            JsonError::EscapingRequired(byte) => write!(f, "Character with value 0x{byte:02x} must be escaped."),
            JsonError::EscapingInvalid(found) => write!(f, "Escape sequence \"\\{found}\" is invalid."),
            JsonError::UnicodeEscapeFormat => f.write_str("\"\\u\" must be followed by four hexadecimal digits."),
            JsonError::UnicodeZero => f.write_str("\\u0000 cannot be converted to text."),
            JsonError::UnicodeHighSurrogate => f.write_str("Unicode high surrogate must not follow a high surrogate."),
            JsonError::UnicodeLowSurrogate => f.write_str("Unicode low surrogate must follow a high surrogate."),
            JsonError::TokenTooLong => write!(f, "A token is longer than {MAX_TOKEN} bytes."),
        }
    }
}

/// Why there is no next token.
#[derive(Debug)]
pub(super) enum LexError {
    Io(io::Error),
    Json(JsonError),
}

impl From<io::Error> for LexError {
    fn from(error: io::Error) -> LexError {
        LexError::Io(error)
    }
}

impl From<JsonError> for LexError {
    fn from(error: JsonError) -> LexError {
        LexError::Json(error)
    }
}

/// Takes a text apart.
pub(super) struct Lexer<R> {
    input: R,
    chunk: Vec<u8>,
    /// Bytes in it, and how many of them have been taken.
    len: usize,
    at: usize,
    /// Value of a string, or what a literal is.
    text: Vec<u8>,
    /// The start of the token as it stands there, for errors.
    raw: Vec<u8>,
    /// Sees all that is read.
    pub(super) seal: Seal,
}

impl<R: Read> Lexer<R> {
    pub(super) fn new(input: R) -> Lexer<R> {
        Lexer { input, chunk: vec![0; CHUNK], len: 0, at: 0, text: Vec::new(), raw: Vec::new(), seal: Seal::default() }
    }

    /// Value of the last string or literal.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The last token as it stands there.
    pub(super) fn found(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// The next byte, which stays where it is.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.at >= self.len {
            self.len = loop {
                match self.input.read(&mut self.chunk) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    result => break result?,
                }
            };
            self.seal.add(self.chunk.get(..self.len).unwrap_or_default());
            self.at = 0;
        }
        Ok(self.chunk.get(self.at).copied().filter(|_| self.at < self.len))
    }

    /// The next byte, which becomes part of the token.
    fn take(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.at += 1; // peek found a byte there
            if self.raw.len() < SHOWN {
                self.raw.push(byte);
            }
        }
        Ok(byte)
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Result<Token, LexError> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek()? {
            self.at += 1; // as in take
        }
        self.raw.clear();
        Ok(match self.take()? {
            None => Token::End,
            Some(b'{') => Token::ObjectStart,
            Some(b'}') => Token::ObjectEnd,
            Some(b'[') => Token::ArrayStart,
            Some(b']') => Token::ArrayEnd,
            Some(b',') => Token::Comma,
            Some(b':') => Token::Colon,
            Some(b'"') => {
                self.string()?;
                Token::String
            }
            Some(first) => {
                self.literal(first)?;
                Token::Literal
            }
        })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), LexError> {
        if self.text.len().saturating_add(bytes.len()) > MAX_TOKEN {
            return Err(JsonError::TokenTooLong.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    fn invalid(&self) -> LexError {
        JsonError::InvalidToken(self.found()).into()
    }

    /// A number, or one of three words.
    fn literal(&mut self, first: u8) -> Result<(), LexError> {
        self.text.clear();
        self.push(&[first])?;
        while let Some(byte) = self.peek()? {
            let is_part = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
            if !is_part && !matches!(byte, b'.' | b'+' | b'-') {
                break;
            }
            self.push(&[byte])?;
            self.take()?;
        }
        if is_number(&self.text) || matches!(self.text.as_slice(), b"true" | b"false" | b"null") { Ok(()) } else { Err(self.invalid()) }
    }

    fn string(&mut self) -> Result<(), LexError> {
        self.text.clear();
        // The first half of a pair of surrogates, whose second must follow.
        let mut high = None;
        loop {
            let byte = self.take()?.ok_or_else(|| self.invalid())?;
            match byte {
                b'\\' => {
                    let escaped = self.take()?.ok_or_else(|| self.invalid())?;
                    if escaped == b'u' {
                        high = self.unicode(high)?;
                        continue;
                    }
                    if high.is_some() {
                        return Err(JsonError::UnicodeLowSurrogate.into());
                    }
                    let byte = match escaped {
                        b'"' | b'\\' | b'/' => escaped,
                        b'b' => 0x08,
                        b'f' => 0x0C,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        _ => return Err(JsonError::EscapingInvalid(char::from(escaped)).into()),
                    };
                    self.push(&[byte])?;
                }
                0..32 => return Err(JsonError::EscapingRequired(byte).into()),
                _ if high.is_some() => return Err(JsonError::UnicodeLowSurrogate.into()),
                b'"' => return Ok(()),
                _ => self.push(&[byte])?,
            }
        }
    }

    /// The digits after `\u`: a character, or half of one, which is returned.
    fn unicode(&mut self, high: Option<u32>) -> Result<Option<u32>, LexError> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.take()?.ok_or_else(|| self.invalid())?;
            let digit = char::from(byte).to_digit(16).ok_or(JsonError::UnicodeEscapeFormat)?;
            code = code << 4 | digit;
        }
        let code = match (high, code) {
            (None, 0xD800..=0xDBFF) => return Ok(Some(code)),
            (Some(_), 0xD800..=0xDBFF) => return Err(JsonError::UnicodeHighSurrogate.into()),
            (Some(high), 0xDC00..=0xDFFF) => 0x10000 + ((high & 0x3FF) << 10 | code & 0x3FF),
            (None, 0xDC00..=0xDFFF) | (Some(_), _) => return Err(JsonError::UnicodeLowSurrogate.into()),
            (None, 0) => return Err(JsonError::UnicodeZero.into()),
            (None, code) => code,
        };
        // No surrogate any more, and below 0x110000.
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.push(character.encode_utf8(&mut [0; 4]).as_bytes())?;
        Ok(None)
    }
}

/// Whether this is a number of JSON.
fn is_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count > 0 { text.get(count..) } else { None }
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = match text {
        [b'0', rest @ ..] => Some(rest),
        _ => digits(text),
    };
    let fraction = match whole {
        Some([b'.', rest @ ..]) => digits(rest),
        rest => rest,
    };
    match fraction {
        Some([b'e' | b'E', b'+' | b'-', rest @ ..] | [b'e' | b'E', rest @ ..]) => digits(rest).is_some_and(<[u8]>::is_empty),
        rest => rest.is_some_and(<[u8]>::is_empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, as nothing may depend on how many come at once.
    struct Slowly<'t>(&'t [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (Some((&byte, rest)), Some(to)) = (self.0.split_first(), buffer.first_mut()) else { return Ok(0) };
            (*to, self.0) = (byte, rest);
            Ok(1)
        }
    }

    fn strings(text: &str) -> Result<Vec<String>, JsonError> {
        let mut lexer = Lexer::new(Slowly(text.as_bytes()));
        let mut found = Vec::new();
        loop {
            match lexer.next() {
                Ok(Token::End) => return Ok(found),
                Ok(Token::String | Token::Literal) => found.push(String::from_utf8_lossy(lexer.text()).into_owned()),
                Ok(token) => found.push(format!("{token:?}")),
                Err(LexError::Json(error)) => return Err(error),
                Err(LexError::Io(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn tokens() {
        let text = " {\"a\\u00e4\\n\\/\":[-1.5e+3,0 ,true\t,null]}\r\n\"\\ud83d\\ude00\"";
        let expected =
            ["ObjectStart", "aä\n/", "Colon", "ArrayStart", "-1.5e+3", "Comma", "0", "Comma", "true", "Comma", "null", "ArrayEnd"];
        assert_eq!(strings(text).unwrap(), [&expected[..], &["ObjectEnd", "😀"]].concat());
    }

    #[test]
    fn what_is_no_token() {
        let token = |text: &str| JsonError::InvalidToken(text.to_owned());
        for (text, error) in [
            ("truth", token("truth")),
            ("01", token("01")),
            ("1.", token("1.")),
            ("-", token("-")),
            ("1e", token("1e")),
            ("+1", token("+1")),
            ("'", token("'")),
            ("\"abc", token("\"abc")),
            ("\"\\", token("\"\\")),
            ("\"a\nb\"", JsonError::EscapingRequired(10)),
            ("\"\\x\"", JsonError::EscapingInvalid('x')),
            ("\"\\u12x4\"", JsonError::UnicodeEscapeFormat),
            ("\"\\u0000\"", JsonError::UnicodeZero),
            ("\"\\ud800\\ud800\"", JsonError::UnicodeHighSurrogate),
            ("\"\\ud800x\"", JsonError::UnicodeLowSurrogate),
            ("\"\\ud800\"", JsonError::UnicodeLowSurrogate),
            ("\"\\udc00\"", JsonError::UnicodeLowSurrogate),
        ] {
            assert_eq!(strings(text), Err(error), "{text}");
        }
        assert_eq!(strings(&format!("\"{}\"", "x".repeat(MAX_TOKEN + 1))), Err(JsonError::TokenTooLong));
        assert!(strings(&format!("\"{}\"", "x".repeat(MAX_TOKEN))).is_ok());
    }
}
