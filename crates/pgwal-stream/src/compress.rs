//! Compression of what is written and read: gzip, LZ4 frames, Zstandard.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::str::FromStr;

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not.
    #[default]
    None,
    /// gzip, at a level from 1 to 9.
    Gzip(u32),
    /// LZ4 frames.
    Lz4,
    /// Zstandard, at a level from 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// What stands behind the names of files, of all kinds.
    pub const SUFFIXES: [&str; 4] =
        [Compression::None.suffix(), Compression::Gzip(6).suffix(), Compression::Lz4.suffix(), Compression::Zstd(3).suffix()];

    /// What stands behind a file's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip(_) => ".gz",
            Compression::Lz4 => ".lz4",
            Compression::Zstd(_) => ".zst",
        }
    }

    /// By what stands behind a name, at the usual level.
    pub fn of_name(name: &str) -> Compression {
        let all = [Compression::Gzip(6), Compression::Lz4, Compression::Zstd(3)];
        all.into_iter().find(|compression| name.ends_with(compression.suffix())).unwrap_or_default()
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

/// `none`, or a method with its level or its usual one: `gzip`, `gzip:9`, `lz4`, `zstd:5`.
impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        let (method, level) = text.split_once(':').map_or((text, None), |(method, level)| (method, Some(level)));
        let level = |usual: u32, last: u32| match level.map(|level| level.strip_prefix("level=").unwrap_or(level)) {
            None => Ok(usual),
            Some(level) => match level.parse() {
                Ok(level) if (1..=last).contains(&level) => Ok(level),
                _ => Err(format!("expected a level from 1 to {last}")),
            },
        };
        match method {
            "none" if text == method => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip(level(6, 9)?)),
            "lz4" if text == method => Ok(Compression::Lz4),
            "zstd" => Ok(Compression::Zstd(level(3, 22)? as i32)),
            "none" | "lz4" => Err(format!("{method} has no levels")),
            _ => Err("expected none, gzip, lz4 or zstd".to_owned()),
        }
    }
}

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
            Compression::Zstd(level) => Sink::Zstd(zstd::stream::write::Encoder::new(file, level)?),
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
