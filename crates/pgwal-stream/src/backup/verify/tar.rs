//! Tar archives, member by member, in bounded memory. C: fe_utils/astreamer_tar.c, port/tar.c.
//!
//! Servers write members with names of up to 99 bytes. What GNU tar and POSIX have for longer names is read too, as users pack backups
//! again.

use std::io::{self, Read};

/// Bytes of a header, and what members are padded to.
const BLOCK: usize = 512;

/// Bytes that a long name, or a list of attributes, may have.
const MAX_NAME: u64 = 64 << 10;

/// The members of an archive.
pub(super) struct Tar<R> {
    stream: R,
    /// Bytes of the last member that have not been read, and of what it is padded with.
    left: u64,
    padding: u64,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name, as it stands there.
    pub(super) name: Vec<u8>,
    /// Its bytes.
    pub(super) size: u64,
    /// Whether it is a file, and not a directory or a link.
    pub(super) is_regular: bool,
}

impl<R: Read> Tar<R> {
    pub(super) fn new(stream: R) -> Tar<R> {
        Tar { stream, left: 0, padding: 0 }
    }

    /// The next member; its bytes can be read until the one after it is asked for. `None`: the archive ends.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        // What GNU tar or POSIX says about the next member.
        let (mut long_name, mut long_size) = (None, None::<u64>);
        loop {
            self.skip()?;
            let mut header = [0; BLOCK];
            if !fill(&mut self.stream, &mut header)? || header == [0; BLOCK] {
                return Ok(None);
            }
            let Some(Header { name, size, kind }) = Header::read(&header) else { return Err(damaged("no header of a tar member")) };
            self.padding = size.wrapping_neg() % BLOCK as u64;
            self.left = size;
            match kind {
                b'L' => {
                    let mut name = self.small()?;
                    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                    long_name = Some(name);
                }
                b'x' => {
                    let attributes = self.small()?;
                    long_name = attribute(&attributes, b"path").map(<[u8]>::to_vec).or(long_name);
                    if let Some(text) = attribute(&attributes, b"size") {
                        let size: Option<u64> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                        long_size = Some(size.ok_or_else(|| damaged("a size that is no number"))?);
                    }
                }
                b'K' | b'g' => {} // the target of a link, attributes of all members
                b'S' => return Err(damaged("a member with holes, which backups do not have")),
                kind => {
                    if let Some(size) = long_size {
                        (self.left, self.padding) = (size, size.wrapping_neg() % BLOCK as u64);
                    }
                    let name = long_name.unwrap_or(name);
                    if name.is_empty() {
                        return Err(damaged("a member without a name"));
                    }
                    return Ok(Some(Member { name, size: self.left, is_regular: matches!(kind, b'0' | 0 | b'7') }));
                }
            }
        }
    }

    /// All bytes of a member that says something about the next one.
    fn small(&mut self) -> io::Result<Vec<u8>> {
        if self.left > MAX_NAME {
            return Err(damaged("a name that is too long"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Leaves what has not been read of the last member.
    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        match io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())? {
            skipped if skipped < rest => Err(cut_short()),
            _ => Ok(()),
        }
    }

    /// Reads what follows the archive, so that damage of what it is compressed with is noticed.
    pub(super) fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self.stream, &mut io::sink()).map(drop)
    }
}

/// Reads the bytes of the member.
impl<R: Read> Read for Tar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..len).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        match self.stream.read(buffer)? {
            0 => Err(cut_short()),
            len => {
                self.left = self.left.saturating_sub(len as u64);
                Ok(len)
            }
        }
    }
}

/// Fills a block; `false`: there is nothing more.
fn fill(stream: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(cut_short()),
            Ok(len) => filled += len,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

struct Header {
    name: Vec<u8>,
    size: u64,
    kind: u8,
}

impl Header {
    /// `None`: it is no header.
    fn read(block: &[u8; BLOCK]) -> Option<Header> {
        let field = |at: usize, len: usize| block.get(at..at + len).unwrap_or_default(); // within the block
        let text = |at, len| field(at, len).split(|&byte| byte == 0).next().unwrap_or_default();
        let magic = field(257, 8);
        if !matches!(magic, b"ustar\x0000" | b"ustar  \0" | b"ustar00\0") {
            return None;
        }
        // The checksum's own field counts as blanks.
        let bytes = block.iter().zip(0..).map(|(&byte, at)| if (148..156).contains(&at) { u64::from(b' ') } else { byte.into() });
        if number(field(148, 8))? != bytes.sum::<u64>() {
            return None;
        }
        let mut name = text(0, 100).to_vec();
        let prefix = text(345, 155);
        if magic == b"ustar\x0000" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        Some(Header { name, size: number(field(124, 12))?, kind: field(156, 1).first().copied()? })
    }
}

/// A number in octal digits, or in binary after a byte 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest.iter().try_fold(0u64, |value, &byte| value.checked_mul(256)?.checked_add(byte.into()));
    }
    let digits = field.trim_ascii_start();
    let digits = digits.split(|byte| matches!(byte, b' ' | 0)).next()?;
    digits.iter().try_fold(0u64, |value, &byte| value.checked_mul(8)?.checked_add(char::from(byte).to_digit(8)?.into()))
}

/// An attribute of POSIX: lines of `LENGTH NAME=VALUE`.
fn attribute<'a>(mut lines: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    while !lines.is_empty() {
        let blank = lines.iter().position(|&byte| byte == b' ')?;
        let len: usize = std::str::from_utf8(lines.get(..blank)?).ok()?.parse().ok()?;
        let line = lines.get(blank + 1..len)?.strip_suffix(b"\n")?;
        found = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")).or(found);
        lines = lines.get(len..)?;
    }
    found
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged archive: {what}"))
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short")
}

#[cfg(test)]
mod tests {
    use tar::{Builder, EntryType};

    use super::*;

    /// Name, size, whether it is a file, and bytes.
    type Found = (String, u64, bool, Vec<u8>);

    fn members(archive: &[u8]) -> io::Result<Vec<Found>> {
        let mut tar = Tar::new(archive);
        let mut found = Vec::new();
        while let Some(member) = tar.next()? {
            let mut bytes = Vec::new();
            // One of them is left unread.
            if member.name != b"skipped" {
                tar.read_to_end(&mut bytes)?;
            }
            found.push((String::from_utf8_lossy(&member.name).into_owned(), member.size, member.is_regular, bytes));
        }
        tar.finish()?;
        Ok(found)
    }

    fn archive(header: fn() -> tar::Header, names: &[&str]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for name in names {
            let mut header = header();
            header.set_size(3);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, "abc".as_bytes()).unwrap();
        }
        let mut header = header();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, "dir", &[][..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn members_of_every_kind_of_archive() {
        let long = "x/".repeat(70) + "end";
        let file = |name: &str| (name.to_owned(), 3, true, if name == "skipped" { Vec::new() } else { b"abc".to_vec() });
        let dir = ("dir".to_owned(), 0, false, Vec::new());
        for header in [tar::Header::new_ustar, tar::Header::new_gnu] {
            let names = ["a", "skipped", &long, "base/1/2"];
            let bytes = archive(header, &names);
            let expected: Vec<_> = names.iter().map(|name| file(name)).chain([dir.clone()]).collect();
            assert_eq!(members(&bytes).unwrap(), expected);
            // Without its end it is still whole; inside a member it is not.
            assert_eq!(members(&bytes[..bytes.len() - 1024]).unwrap(), expected);
            assert_eq!(members(&bytes[..1024 + 512 + 2]).unwrap_err().to_string(), "the archive is cut short");
            assert_eq!(members(&bytes[..600]).unwrap_err().to_string(), "the archive is cut short");
        }
        let mut builder = Builder::new(Vec::new());
        let attributes = [("path", "é/long".as_bytes()), ("size", b"3")];
        builder.append_pax_extensions(attributes).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        builder.append_data(&mut header, "short", "abc".as_bytes()).unwrap();
        assert_eq!(members(&builder.into_inner().unwrap()).unwrap(), [file("é/long")]);
        assert_eq!(members(b"").unwrap(), []);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let bytes = archive(tar::Header::new_gnu, &["a", &"y".repeat(200)]);
        for at in (0..bytes.len()).step_by(7) {
            for bit in [1, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= bit;
                let _ = members(&changed);
            }
            let _ = members(&bytes[..at]);
        }
        let mut nameless = bytes.clone();
        nameless[300] ^= 1;
        assert_eq!(members(&nameless).unwrap_err().to_string(), "damaged archive: no header of a tar member");
        assert_eq!(number(b"\x80\x00\x00\x00\x01\x02"), Some(0x102));
        assert_eq!([number(b"\x80\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), number(b"9\0")], [None, None]);
    }
}
