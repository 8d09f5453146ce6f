//! From tokens to a manifest. C: common/parse_manifest.c, whose order of checks this follows.

use std::io::{self, Read};

use pgwal::{Lsn, TimelineId};

use super::json::{JsonError, LexError, Lexer, Token};
use super::numbers::{decimal, lsn, unhex};
use super::seal::LineError;
use super::{Algorithm, FormError, Manifest, ManifestError, WalRange, hex, lossy};

/// Why there is no manifest.
enum Stop {
    Io(io::Error),
    Manifest(ManifestError),
}

impl From<LexError> for Stop {
    fn from(error: LexError) -> Stop {
        match error {
            LexError::Io(error) => Stop::Io(error),
            LexError::Json(error) => error.into(),
        }
    }
}

impl From<JsonError> for Stop {
    fn from(error: JsonError) -> Stop {
        Stop::Manifest(ManifestError::Json(error))
    }
}

impl From<FormError> for Stop {
    fn from(error: FormError) -> Stop {
        Stop::Manifest(ManifestError::Form(error))
    }
}

impl From<ManifestError> for Stop {
    fn from(error: ManifestError) -> Stop {
        Stop::Manifest(error)
    }
}

pub(super) fn manifest(input: impl Read) -> io::Result<Result<Manifest, ManifestError>> {
    let mut parser = Parser { lexer: Lexer::new(input), manifest: Manifest::default() };
    let result = parser.document();
    // C notices a path that is there twice when it comes, before what may be wrong after it.
    let sorted = parser.manifest.files.sort();
    match result {
        Err(Stop::Io(error)) => Err(error),
        Err(Stop::Manifest(error)) => Ok(sorted.and(Err(error))),
        Ok(digits) => Ok(sorted.and_then(|()| check_seal(parser, &digits))),
    }
}

/// Compares the manifest's checksum with what it says.
fn check_seal(parser: Parser<impl Read>, digits: &[u8]) -> Result<Manifest, ManifestError> {
    let value = parser.lexer.seal.value().map_err(|error| match error {
        LineError::TooFew => ManifestError::Form(FormError::Lines),
        LineError::NotEnded => ManifestError::Form(FormError::LastLine),
    })?;
    match unhex(digits).filter(|found| found.len() == value.len()) {
        None => Err(ManifestError::ChecksumForm(lossy(digits))),
        Some(found) if found != value => Err(ManifestError::Checksum { expected: hex(&value), found: hex(&found) }),
        Some(_) => Ok(parser.manifest),
    }
}

struct Parser<R> {
    lexer: Lexer<R>,
    manifest: Manifest,
}

/// Members of a file that have come, as they were written.
#[derive(Default)]
struct FileFields {
    path: Option<Vec<u8>>,
    encoded_path: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    algorithm: Option<Vec<u8>>,
    checksum: Option<Vec<u8>>,
    ignored: Option<Vec<u8>>,
}

/// Members of a range of WAL that have come.
#[derive(Default)]
struct RangeFields {
    timeline: Option<Vec<u8>>,
    start: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
}

impl<R: Read> Parser<R> {
    /// The whole manifest; returns its checksum, as it was written.
    fn document(&mut self) -> Result<Vec<u8>, Stop> {
        match self.lexer.next()? {
            Token::ObjectStart => {}
            token => return Err(self.no_value(token)),
        }
        let mut checksum = None;
        let mut is_first = true;
        while let Some(name) = self.member(is_first)? {
            match name.as_slice() {
                _ if checksum.is_some() => return Err(FormError::FieldAtEnd.into()),
                b"PostgreSQL-Backup-Manifest-Version" if is_first => self.manifest.version = version(&self.scalar()?)?,
                _ if is_first => return Err(FormError::NoVersion.into()),
                // Releases with version 1 do not know it.
                b"System-Identifier" if self.manifest.version >= 2 => {
                    let text = self.scalar()?;
                    self.manifest.system_identifier = Some(number(&text, FormError::SystemIdentifier)?);
                }
                b"Files" => self.array(Parser::file)?,
                b"WAL-Ranges" => self.array(Parser::range)?,
                b"Manifest-Checksum" => checksum = Some(self.scalar()?),
                _ => return Err(FormError::TopLevelField.into()),
            }
            is_first = false;
        }
        let checksum = checksum.ok_or(FormError::ObjectEnd)?;
        match self.lexer.next()? {
            Token::End => Ok(checksum),
            _ => Err(JsonError::ExpectedEnd(self.lexer.found()).into()),
        }
    }

    /// The name of the next member of an object, with the colon after it; `None`: the object ends.
    fn member(&mut self, is_first: bool) -> Result<Option<Vec<u8>>, Stop> {
        let mut token = self.lexer.next()?;
        match token {
            Token::ObjectEnd => return Ok(None),
            Token::Comma if !is_first => {
                token = self.lexer.next()?;
                if token != Token::String {
                    return Err(self.syntax(token, JsonError::ExpectedString));
                }
            }
            Token::String if is_first => {}
            _ if is_first => return Err(self.syntax(token, JsonError::ExpectedObjectFirst)),
            _ => return Err(self.syntax(token, JsonError::ExpectedObjectNext)),
        }
        let name = self.lexer.text().to_vec();
        match self.lexer.next()? {
            Token::Colon => Ok(Some(name)),
            token => Err(self.syntax(token, JsonError::ExpectedColon)),
        }
    }

    /// A value that is text, a number or a word.
    fn scalar(&mut self) -> Result<Vec<u8>, Stop> {
        match self.lexer.next()? {
            Token::String | Token::Literal => Ok(self.lexer.text().to_vec()),
            token => Err(self.no_value(token)),
        }
    }

    /// An array of objects, each of which `element` reads, starting after its `{`.
    fn array(&mut self, element: fn(&mut Parser<R>) -> Result<(), Stop>) -> Result<(), Stop> {
        match self.lexer.next()? {
            Token::ArrayStart => {}
            token => return Err(self.no_value(token)),
        }
        let mut token = self.lexer.next()?;
        if token == Token::ArrayEnd {
            return Ok(());
        }
        loop {
            match token {
                Token::ObjectStart => element(self)?,
                token => return Err(self.no_value(token)),
            }
            match self.lexer.next()? {
                Token::ArrayEnd => return Ok(()),
                Token::Comma => token = self.lexer.next()?,
                token => return Err(self.syntax(token, JsonError::ExpectedArrayNext)),
            }
        }
    }

    fn file(&mut self) -> Result<(), Stop> {
        let mut fields = FileFields::default();
        let mut is_first = true;
        while let Some(name) = self.member(is_first)? {
            let field = match name.as_slice() {
                b"Path" => &mut fields.path,
                b"Encoded-Path" => &mut fields.encoded_path,
                b"Size" => &mut fields.size,
                b"Last-Modified" => &mut fields.ignored,
                b"Checksum-Algorithm" => &mut fields.algorithm,
                b"Checksum" => &mut fields.checksum,
                _ => return Err(FormError::FileField.into()),
            };
            *field = Some(self.scalar()?);
            is_first = false;
        }
        let FileFields { path, encoded_path, size, algorithm, checksum, ignored: _ } = fields;
        let path = match (path, encoded_path) {
            (None, None) => return Err(FormError::NoPath.into()),
            (Some(_), Some(_)) => return Err(FormError::BothPaths.into()),
            (Some(path), None) => Ok(path),
            (None, Some(digits)) => Err(digits),
        };
        let size = size.ok_or(FormError::NoSize)?;
        if algorithm.is_none() && checksum.is_some() {
            return Err(FormError::NoAlgorithm.into());
        }
        let path = match path {
            Ok(path) => path,
            Err(digits) => {
                let mut path = unhex(&digits).ok_or(FormError::EncodedPath)?;
                // Where a C string ends.
                path.truncate(path.iter().position(|&byte| byte == 0).unwrap_or(path.len()));
                path
            }
        };
        let size = number(&size, FormError::Size)?;
        let algorithm = algorithm.map(|name| match lossy(&name) {
            name if name.eq_ignore_ascii_case("NONE") => Ok(None),
            name => Algorithm::by_name(&name).map(Some).ok_or(ManifestError::Algorithm(name)),
        });
        let algorithm = algorithm.transpose()?.flatten();
        let digits = checksum.unwrap_or_default();
        let invalid = || ManifestError::FileChecksum { path: lossy(&path), found: lossy(&digits) };
        let checksum = unhex(&digits).ok_or_else(invalid)?;
        if self.manifest.files.add(&path, size, algorithm, &checksum) { Ok(()) } else { Err(ManifestError::TooLarge.into()) }
    }

    fn range(&mut self) -> Result<(), Stop> {
        let mut fields = RangeFields::default();
        let mut is_first = true;
        while let Some(name) = self.member(is_first)? {
            let field = match name.as_slice() {
                b"Timeline" => &mut fields.timeline,
                b"Start-LSN" => &mut fields.start,
                b"End-LSN" => &mut fields.end,
                _ => return Err(FormError::WalRangeField.into()),
            };
            *field = Some(self.scalar()?);
            is_first = false;
        }
        let timeline = fields.timeline.ok_or(FormError::NoTimeline)?;
        let start = fields.start.ok_or(FormError::NoStart)?;
        let end = fields.end.ok_or(FormError::NoEnd)?;
        let timeline = TimelineId(number(&timeline, FormError::Timeline)? as u32); // C keeps 32 bits
        let start = lsn(&start).map(Lsn).ok_or(FormError::Start)?;
        let end = lsn(&end).map(Lsn).ok_or(FormError::End)?;
        self.manifest.wal_ranges.push(WalRange { timeline, start, end });
        Ok(())
    }

    /// What is wrong where `token` stands and another kind of value should.
    fn no_value(&self, token: Token) -> Stop {
        match token {
            Token::ObjectStart => FormError::ObjectStart.into(),
            Token::ArrayStart => FormError::ArrayStart.into(),
            Token::String | Token::Literal => FormError::Scalar.into(),
            token => self.syntax(token, JsonError::ExpectedValue),
        }
    }

    fn syntax(&self, token: Token, error: fn(String) -> JsonError) -> Stop {
        match token {
            Token::End => JsonError::ExpectedMore.into(),
            _ => error(self.lexer.found()).into(),
        }
    }
}

/// A version that is known.
fn version(text: &[u8]) -> Result<u32, FormError> {
    match text {
        b"1" => Ok(1),
        b"2" => Ok(2),
        _ if decimal(text).1.is_empty() => Err(FormError::Version),
        _ => Err(FormError::VersionNumber),
    }
}

/// All of `text` as a number.
fn number(text: &[u8], error: FormError) -> Result<u64, FormError> {
    match decimal(text) {
        (number, []) => Ok(number),
        _ => Err(error),
    }
}
