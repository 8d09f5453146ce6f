//! Generic records of extensions, resource manager 20. C: access/generic_xlog.h; text: rmgrdesc/genericdesc.c.

use serde::Serialize;

use super::{Body, Describe, Opcode, op};
use crate::error::Result;
use crate::format::{Majors, WalFormat};
use crate::record::Record;
use crate::text::Text;
use crate::wire::{Bytes, List, Parsed, Wire, bytes, list_all};

/// The one record type. Its name does not depend on the info bits.
pub const OPCODES: &[Opcode] = &[op(0x00, "Generic", Majors::ALL)];

/// Bytes of a page that are written over. On disk: offset, length, both of 2 bytes, then the bytes. C: `writeFragment`,
/// access/transam/generic_xlog.c.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fragment<'a> {
    /// Where on the page they go, in bytes.
    pub offset: u16,
    /// The new bytes.
    pub data: Bytes<'a>,
}

impl<'a> Wire<'a> for Fragment<'a> {
    fn read(i: &'a [u8], fmt: WalFormat) -> Parsed<'a, Self> {
        let (i, offset) = u16::read(i, fmt).map_err(|e| e.in_field("fragment.offset"))?;
        let (i, length) = u16::read(i, fmt).map_err(|e| e.in_field("fragment.length"))?;
        let (i, data) = bytes(i, length.into(), "fragment.data")?;
        Ok((i, Fragment { offset, data: Bytes(data) }))
    }
    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.offset.write(fmt, out);
        (self.data.len() as u16).write(fmt, out); // was read as such
        out.extend_from_slice(self.data.0);
    }
}

/// How a page changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Delta<'a> {
    /// Block reference of the page.
    pub block: u8,
    /// The changes in the order of their offsets.
    pub fragments: List<'a, Fragment<'a>>,
}

/// A record of this resource manager.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op<'a> {
    /// Changes of up to four pages.
    Generic {
        /// One for each block reference with data; the others have an image, or are as they were.
        deltas: Vec<Delta<'a>>,
        /// Fragments in the main data. No server writes any, but the description is made from these.
        #[serde(skip_serializing_if = "List::is_empty")]
        main: List<'a, Fragment<'a>>,
    },
}

/// Reads the payload.
///
/// # Errors
/// The payload does not parse.
pub fn parse<'r>(rec: &Record<'r>, fmt: WalFormat) -> Result<Option<Op<'r>>> {
    let fragments = |i: &'r [u8]| Ok((&[][..], list_all(i, fmt)?));
    let main = rec.parse_all("fragment", rec.main, fragments)?;
    let mut deltas = Vec::new();
    for block in rec.blocks.iter().filter(|block| block.has_data()) {
        deltas.push(Delta { block: block.id, fragments: rec.parse_all("fragment", block.data, fragments)? });
    }
    Ok(Some(Op::Generic { deltas, main }))
}

impl Op<'_> {
    /// Writes the payload: the inverse of [`parse`].
    pub fn write(&self, _fmt: WalFormat, body: &mut Body) {
        let Op::Generic { deltas, main } = self;
        main.write(&mut body.main);
        for delta in deltas {
            delta.fragments.write(body.block(delta.block));
        }
    }
}

impl Describe for Op<'_> {
    fn describe(&self, _rec: &Record<'_>, _fmt: WalFormat, out: &mut Text) {
        let Op::Generic { main, .. } = self;
        for (at, fragment) in main.iter().enumerate() {
            put!(out, if at == 0 { "" } else { "; " }, "offset ", fragment.offset, ", length ", fragment.data.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rmgr::testing::{Rec, le};

    #[test]
    fn fragments_of_pages() {
        let first = [&le![24u16, 3u16][..], b"abc", &le![8000u16, 0u16]].concat();
        let second = [&le![100u16, 1u16][..], b"x"].concat();
        let blocks: &[(u8, &[u8])] = &[(0, &first), (1, &[]), (3, &second)];
        let rec = Rec { major: 15, rmid: 20, blocks, ..Rec::default() };
        let parsed = rec.parse().unwrap().unwrap();
        assert_eq!(
            parsed,
            "Generic(Generic { deltas: [Delta { block: 0, fragments: [Fragment { offset: 24, data: 616263 }, \
             Fragment { offset: 8000, data:  }] }, Delta { block: 3, fragments: [Fragment { offset: 100, data: 78 }] }], main: [] })"
        );
        for cut in 1..first.len() {
            let whole = cut == 7; // between the two fragments
            assert_eq!(Rec { blocks: &[(0, &first[..cut])], ..rec.clone() }.parse().is_ok(), whole, "{cut}");
        }
    }

    #[test]
    fn the_description_is_of_the_main_data() {
        let main = [&le![24u16, 3u16][..], b"abc", &le![8000u16, 0u16]].concat();
        let rec = Rec { major: 15, rmid: 20, main: &main, ..Rec::default() };
        rec.check("offset 24, length 3; offset 8000, length 0", &[0, 7]);
        // Info bits make no difference.
        Rec { info: 0x30, ..rec }.check("offset 24, length 3; offset 8000, length 0", &[0, 7]);
        Rec { major: 15, rmid: 20, ..Rec::default() }.check("", &[]);
    }
}
