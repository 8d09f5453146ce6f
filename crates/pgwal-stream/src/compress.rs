//! Compression of what is written and read: gzip, LZ4 frames, Zstandard.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::str::FromStr;

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// They are not.
    #[default]
    None,
    /// gzip, at a level from 1 to 9.
    Gzip(u32),
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd(Zstd),
}

/// How Zstandard compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zstd {
    /// Level, from -131072 to 22; 0 is the default level.
    pub level: i32,
    /// Threads that compress beside the one that writes; 0: none.
    pub workers: u32,
    /// Long-distance matching.
    pub long: bool,
}

impl Zstd {
    /// The library's own default. C: `ZSTD_CLEVEL_DEFAULT`.
    pub const DEFAULT: Zstd = Zstd::level(3);

    /// A level, with everything else as usual.
    pub const fn level(level: i32) -> Zstd {
        Zstd { level, workers: 0, long: false }
    }
}

impl Compression {
    /// What stands after the names of files, of all kinds.
    pub const SUFFIXES: [&str; 4] = [
        Compression::None.suffix(),
        Compression::Gzip(GZIP_DEFAULT).suffix(),
        Compression::Lz4.suffix(),
        Compression::Zstd(Zstd::DEFAULT).suffix(),
    ];

    /// What stands after a file's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip(_) => ".gz",
            Compression::Lz4 => ".lz4",
            Compression::Zstd(_) => ".zst",
        }
    }

    /// By what stands after a name, at the usual level.
    pub fn of_name(name: &str) -> Compression {
        let all = [Compression::Gzip(GZIP_DEFAULT), Compression::Lz4, Compression::Zstd(Zstd::DEFAULT)];
        all.into_iter().find(|compression| name.ends_with(compression.suffix())).unwrap_or_default()
    }

    /// Whether bytes at the start of a file, which may be cut short, are those of a file that is compressed so.
    pub(crate) fn begins(self, bytes: &[u8]) -> bool {
        let magic: &[u8] = match self {
            Compression::None => &[],
            Compression::Gzip(_) => &[0x1F, 0x8B],
            Compression::Lz4 => &[0x04, 0x22, 0x4D, 0x18],
            Compression::Zstd(_) => &[0x28, 0xB5, 0x2F, 0xFD],
        };
        bytes.iter().zip(magic).all(|(found, expected)| found == expected)
    }

    /// Reads what was compressed so.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn reader<'r>(self, packed: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Compression::None => Box::new(packed),
            Compression::Gzip(_) => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
            Compression::Zstd(_) => Box::new(zstd::stream::read::Decoder::new(packed)?),
        })
    }
}

/// Level of gzip where none is given. C: `Z_DEFAULT_COMPRESSION`.
const GZIP_DEFAULT: u32 = 6;

/// `none`, a method, or a method with details: `gzip`, `gzip:9`, `zstd:level=5,workers=2,long`; a number alone is a level of gzip.
impl FromStr for Compression {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Compression, SpecError> {
        let (method, detail) = split_spec(text);
        Compression::from_spec(method, detail)
    }
}

/// Method and details of what follows `-Z`. C: `parse_compress_options`.
pub fn split_spec(text: &str) -> (&str, Option<&str>) {
    match integer(text) {
        Some(0) => ("none", None),
        Some(_) => ("gzip", Some(text)),
        None if text.is_empty() => ("none", None),
        None => text.split_once(':').map_or((text, None), |(method, detail)| (method, Some(detail))),
    }
}

impl Compression {
    /// A method, and its details: a level alone, or `level=N`, `workers=N`, `long`, separated by commas.
    /// C: `parse_compress_specification`, `validate_compress_specification`.
    ///
    /// # Errors
    /// There is no such method, or it does not take these details.
    pub fn from_spec(method: &str, detail: Option<&str>) -> Result<Compression, SpecError> {
        /// Names and levels of a method: the lowest, the highest, the default.
        const METHODS: [(&str, i64, i64, i64); 4] = [("none", 0, 0, 0), ("gzip", 1, 9, -1), ("lz4", 1, 12, 0), ("zstd", -131_072, 22, 3)];
        let known = METHODS.iter().find(|(name, ..)| *name == method);
        let &(method, min, max, default) = known.ok_or_else(|| SpecError::Method(method.to_owned()))?;
        let (mut level, mut workers, mut long) = (default, None, None);
        match detail.map(|detail| (detail, integer(detail))) {
            None => {}
            Some((_, Some(bare))) => level = bare,
            Some((detail, None)) => {
                for option in detail.split(',') {
                    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
                    match name {
                        "" => return Err(SpecError::Empty),
                        "level" => level = number("level", value)?,
                        "workers" => workers = Some(number("workers", value)?),
                        "long" => long = Some(boolean("long", value)?),
                        _ => return Err(SpecError::Option(name.to_owned())),
                    }
                }
            }
        }
        if method == "none" && level != 0 {
            return Err(SpecError::NoLevels { method });
        }
        if !(min..=max).contains(&level) && level != default {
            return Err(SpecError::Level { method, min, max, default });
        }
        if workers.is_some() && method != "zstd" {
            return Err(SpecError::NoWorkers { method });
        }
        if long.is_some() && method != "zstd" {
            return Err(SpecError::NotLong { method });
        }
        Ok(match method {
            "gzip" => Compression::Gzip(u32::try_from(level).unwrap_or(GZIP_DEFAULT)),
            "lz4" => Compression::Lz4,
            "zstd" => {
                let workers = u32::try_from(workers.unwrap_or_default()).map_err(|_| SpecError::Workers)?;
                // Within the bounds above.
                Compression::Zstd(Zstd { level: level as i32, workers, long: long.unwrap_or_default() })
            }
            _ => Compression::None,
        })
    }
}

/// A number as `strtol` reads it, if that is all there is.
fn integer(text: &str) -> Option<i64> {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bound = if digits.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(digits.parse().unwrap_or(bound))
}

fn number(option: &'static str, value: Option<&str>) -> Result<i64, SpecError> {
    integer(value.ok_or(SpecError::NoValue { option })?).ok_or(SpecError::NotInteger { option })
}

fn boolean(option: &'static str, value: Option<&str>) -> Result<bool, SpecError> {
    let is = |words: [&str; 3]| value.is_some_and(|value| words.iter().any(|word| word.eq_ignore_ascii_case(value)));
    match value {
        None => Ok(true),
        Some(_) if is(["yes", "on", "1"]) => Ok(true),
        Some(_) if is(["no", "off", "0"]) => Ok(false),
        Some(_) => Err(SpecError::NotBoolean { option }),
    }
}

/// What is wrong with a compression specification; shown in PostgreSQL's words. C: common/compression.c.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no such method.
    Method(String),
    /// There is nothing between two commas, or where the details should be.
    Empty,
    /// There is no such option.
    Option(String),
    /// An option without its value.
    NoValue {
        /// The option.
        option: &'static str,
    },
    /// The value of an option is no number.
    NotInteger {
        /// The option.
        option: &'static str,
    },
    /// The value of an option is neither yes nor no.
    NotBoolean {
        /// The option.
        option: &'static str,
    },
    /// A method that has no levels.
    NoLevels {
        /// The method.
        method: &'static str,
    },
    /// A level that the method does not have.
    Level {
        /// The method.
        method: &'static str,
        /// Its lowest level.
        min: i64,
        /// Its highest level.
        max: i64,
        /// The level where none is given.
        default: i64,
    },
    /// Workers for a method that has none.
    NoWorkers {
        /// The method.
        method: &'static str,
    },
    /// A number of workers that cannot be.
    Workers,
    /// Long-distance matching for a method that has none.
    NotLong {
        /// The method.
        method: &'static str,
    },
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecError::Method(name) => write!(f, "unrecognized compression algorithm: \"{name}\""),
            SpecError::Empty => f.write_str("found empty string where a compression option was expected"),
            SpecError::Option(name) => write!(f, "unrecognized compression option: \"{name}\""),
            SpecError::NoValue { option } => write!(f, "compression option \"{option}\" requires a value"),
            SpecError::NotInteger { option } => write!(f, "value for compression option \"{option}\" must be an integer"),
            SpecError::NotBoolean { option } => write!(f, "value for compression option \"{option}\" must be a Boolean value"),
            SpecError::NoLevels { method } => write!(f, "compression algorithm \"{method}\" does not accept a compression level"),
            SpecError::Level { method, min, max, default } => {
                write!(f, "compression algorithm \"{method}\" expects a compression level between {min} and {max} (default at {default})")
            }
            SpecError::NoWorkers { method } => write!(f, "compression algorithm \"{method}\" does not accept a worker count"),
            SpecError::Workers => f.write_str("the number of compression workers must be zero or more"),
            SpecError::NotLong { method } => write!(f, "compression algorithm \"{method}\" does not support long-distance mode"),
        }
    }
}

impl std::error::Error for SpecError {}

/// A file, and what compresses on the way into it.
pub(crate) enum Sink {
    Plain(File),
    Gzip(flate2::write::GzEncoder<File>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<File>>),
    Zstd(zstd::stream::write::Encoder<'static, File>),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sink::Plain(_) => "Plain",
            Sink::Gzip(_) => "Gzip",
            Sink::Lz4(_) => "Lz4",
            Sink::Zstd(_) => "Zstd",
        })
    }
}

impl Sink {
    /// Compresses into a file.
    pub(crate) fn new(file: File, compression: Compression) -> io::Result<Sink> {
        Ok(match compression {
            Compression::None => Sink::Plain(file),
            Compression::Gzip(level) => Sink::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::new(level))),
            Compression::Lz4 => Sink::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(file))),
            Compression::Zstd(Zstd { level, workers, long }) => {
                let mut encoder = zstd::stream::write::Encoder::new(file, level)?;
                encoder.multithread(workers)?;
                encoder.long_distance_matching(long)?;
                Sink::Zstd(encoder)
            }
        })
    }

    /// Has everything that was written stand in the file, and the file on disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(file) => file.sync_data(),
            Sink::Gzip(encoder) => encoder.flush().and_then(|()| encoder.get_ref().sync_data()),
            Sink::Lz4(encoder) => encoder.flush().and_then(|()| encoder.get_ref().sync_data()),
            Sink::Zstd(encoder) => encoder.flush().and_then(|()| encoder.get_ref().sync_data()),
        }
    }

    /// Ends what is compressed.
    pub(crate) fn finish(self) -> io::Result<File> {
        match self {
            Sink::Plain(file) => Ok(file),
            Sink::Gzip(encoder) => encoder.finish(),
            Sink::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Sink::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(file) => file.write(bytes),
            Sink::Gzip(encoder) => encoder.write(bytes),
            Sink::Lz4(encoder) => encoder.write(bytes),
            Sink::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(file) => file.flush(),
            Sink::Gzip(encoder) => encoder.flush(),
            Sink::Lz4(encoder) => encoder.flush(),
            Sink::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read_as_postgresql_reads_them() {
        let good = |text: &str| text.parse::<Compression>().unwrap();
        assert_eq!(["none", "none:0", "0", ""].map(good), [Compression::None; 4]);
        assert_eq!(["gzip", "gzip:-1", "gzip:level=6"].map(good), [Compression::Gzip(6); 3]);
        assert_eq!(["1", "gzip:1", " 1", "gzip:level=9,level=1"].map(good), [Compression::Gzip(1); 4]);
        assert_eq!(["lz4", "lz4:0", "lz4:12"].map(good), [Compression::Lz4; 3]);
        assert_eq!(good("zstd:-7"), Compression::Zstd(Zstd::level(-7)));
        let zstd = Zstd { level: 22, workers: 2, long: true };
        assert_eq!(good("zstd:level=22,workers=2,long"), Compression::Zstd(zstd));
        assert_eq!(good("zstd:long=OFF,workers=0,level=3"), Compression::Zstd(Zstd::DEFAULT));
        let empty = "found empty string where a compression option was expected";
        let gzip_levels = "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)";
        for (text, expected) in [
            ("extrasquishy", "unrecognized compression algorithm: \"extrasquishy\""),
            ("none+", "unrecognized compression algorithm: \"none+\""),
            ("GZIP", "unrecognized compression algorithm: \"GZIP\""),
            ("none:1", "compression algorithm \"none\" does not accept a compression level"),
            ("gzip:", empty),
            ("gzip:level=9,", empty),
            ("gzip:=9", empty),
            ("gzip:thunk", "unrecognized compression option: \"thunk\""),
            ("gzip:level", "compression option \"level\" requires a value"),
            ("gzip:level=", "value for compression option \"level\" must be an integer"),
            ("gzip:level=high", "value for compression option \"level\" must be an integer"),
            ("gzip:level=236", gzip_levels),
            ("10", gzip_levels),
            ("-1000000000000000000000", gzip_levels),
            ("gzip:0", gzip_levels),
            ("lz4:13", "compression algorithm \"lz4\" expects a compression level between 1 and 12 (default at 0)"),
            ("zstd:23", "compression algorithm \"zstd\" expects a compression level between -131072 and 22 (default at 3)"),
            ("gzip:workers=3", "compression algorithm \"gzip\" does not accept a worker count"),
            ("lz4:long", "compression algorithm \"lz4\" does not support long-distance mode"),
            ("zstd:long=perhaps", "value for compression option \"long\" must be a Boolean value"),
        ] {
            assert_eq!(text.parse::<Compression>().map_err(|error| error.to_string()), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn whatever_the_options_what_was_written_is_read_again() {
        let content: Vec<u8> = (0..300_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for text in ["none", "gzip:1", "lz4", "zstd:-5", "zstd:level=1,workers=2,long"] {
            let compression: Compression = text.parse().unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut sink = Sink::new(file.reopen().unwrap(), compression).unwrap();
            sink.write_all(&content).unwrap();
            sink.finish().unwrap();
            let mut found = Vec::new();
            compression.reader(file.reopen().unwrap()).unwrap().read_to_end(&mut found).unwrap();
            assert!(found == content, "{text}");
        }
    }
}
