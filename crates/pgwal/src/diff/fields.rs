//! The bytes of page headers and records with the names of their fields, as far as bytes that may be damaged can be named.

use std::borrow::Cow;

use crate::format::WalFormat;
use crate::page::{LONG_HEADER_SIZE, PageHeader, PageInfo, SHORT_HEADER_SIZE};
use crate::record::{BlockFlags, ImageInfo};

/// Some bytes and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'r> {
    /// Offset in the page header or record.
    pub at: usize,
    /// Name in C, where it has one.
    pub name: Cow<'static, str>,
    /// The bytes.
    pub bytes: &'r [u8],
}

/// The fields of a page header.
const PAGE_HEADER: &[(&str, usize)] =
    &[("xlp_magic", 2), ("xlp_info", 2), ("xlp_tli", 4), ("xlp_pageaddr", 8), ("xlp_rem_len", 4), ("padding", 4)];
/// Those that only a long one has.
const LONG_PAGE_HEADER: &[(&str, usize)] = &[("xlp_sysid", 8), ("xlp_seg_size", 4), ("xlp_xlog_blcksz", 4)];
/// The fields of a record header.
const RECORD_HEADER: &[(&str, usize)] =
    &[("xl_tot_len", 4), ("xl_xid", 4), ("xl_prev", 8), ("xl_info", 1), ("xl_rmid", 1), ("padding", 2), ("xl_crc", 4)];

/// The fields of the page header at the start of `page`.
pub fn page_header_fields(page: &[u8]) -> Vec<Field<'_>> {
    let mut walk = Walk { bytes: page, at: 0, fields: Vec::new() };
    walk.list(PAGE_HEADER);
    let info = page.get(2..4).and_then(|info| info.try_into().ok()).map_or(0, u16::from_le_bytes);
    if PageInfo(info).contains(PageInfo::XLP_LONG_HEADER) {
        walk.list(LONG_PAGE_HEADER);
    }
    walk.fields
}

/// Names of the fields in which two page headers differ.
pub(super) fn page_header_differences(a: &PageHeader, b: &PageHeader) -> Vec<&'static str> {
    let bytes = |header: &PageHeader| {
        let mut bytes = Vec::with_capacity(LONG_HEADER_SIZE);
        header.write(&mut bytes);
        bytes
    };
    let (a, b) = (bytes(a), bytes(b));
    let mut at = 0;
    let mut names = Vec::new();
    for &(name, len) in PAGE_HEADER.iter().chain(LONG_PAGE_HEADER) {
        // A header that is only long on one side differs in xlp_info too.
        if at < SHORT_HEADER_SIZE || a.len() == b.len() {
            let range = at..at + len;
            names.extend((a.get(range.clone()) != b.get(range)).then_some(name));
        }
        at += len;
    }
    names
}

/// The fields of a record: its header, those of its block references and of its main data, and then their data.
///
/// Bytes that cannot be told, because what comes before them contradicts itself or ends, come last, as `rest`.
pub fn record_fields(record: &[u8], fmt: WalFormat) -> Vec<Field<'_>> {
    let mut walk = Walk { bytes: record, at: 0, fields: Vec::new() };
    let mut parts = Vec::new();
    if walk.list(RECORD_HEADER).is_some() {
        walk.parts(fmt, &mut parts);
    }
    for (name, len) in parts {
        if len > 0 && walk.field(name, len).is_none() {
            break;
        }
    }
    let left = record.len().saturating_sub(walk.at);
    if left > 0 {
        walk.field("rest", left);
    }
    walk.fields
}

struct Walk<'r> {
    bytes: &'r [u8],
    at: usize,
    fields: Vec<Field<'r>>,
}

impl<'r> Walk<'r> {
    /// Takes a field; `None`: the bytes end before.
    fn field(&mut self, name: impl Into<Cow<'static, str>>, len: usize) -> Option<&'r [u8]> {
        let bytes = self.bytes.get(self.at..)?.get(..len)?;
        self.fields.push(Field { at: self.at, name: name.into(), bytes });
        self.at += len; // inside the bytes
        Some(bytes)
    }

    fn list(&mut self, fields: &[(&'static str, usize)]) -> Option<()> {
        fields.iter().try_for_each(|&(name, len)| self.field(name, len).map(drop))
    }

    fn byte(&mut self, name: impl Into<Cow<'static, str>>) -> Option<u8> {
        self.field(name, 1)?.first().copied()
    }

    fn length(&mut self, name: impl Into<Cow<'static, str>>) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(self.field(name, 2)?.try_into().ok()?)))
    }

    /// Takes the headers behind the record's own, as far as they go; `data` are the parts that they speak of.
    fn parts(&mut self, fmt: WalFormat, data: &mut Vec<(String, usize)>) -> Option<()> {
        loop {
            let told: usize = data.iter().map(|(_, len)| len).sum();
            if self.bytes.len().saturating_sub(self.at) <= told {
                return Some(());
            }
            // What the id is shows when it has been read.
            let id = *self.bytes.get(self.at)?;
            match id {
                255 => {
                    self.byte("main data id")?;
                    let len = self.byte("main data data_length")?;
                    data.push(("main data".to_owned(), len.into()));
                    return Some(());
                }
                254 => {
                    self.byte("main data id")?;
                    let len = u32::from_le_bytes(self.field("main data data_length", 4)?.try_into().ok()?);
                    data.push(("main data".to_owned(), len as usize));
                    return Some(());
                }
                253 => {
                    self.byte("origin id")?;
                    self.field("replorigin_session_origin", 2)?;
                }
                252 if fmt.since(14) => {
                    self.byte("toplevel_xid id")?;
                    self.field("toplevel_xid", 4)?;
                }
                0..=32 => self.block(id, fmt, data)?,
                _ => return None,
            }
        }
    }

    fn block(&mut self, id: u8, fmt: WalFormat, data: &mut Vec<(String, usize)>) -> Option<()> {
        let name = |field: &str| format!("block {id} {field}");
        self.byte(name("id"))?;
        let flags = BlockFlags(self.byte(name("fork_flags"))?);
        let data_len = self.length(name("data_length"))?;
        if flags.contains(BlockFlags::BKPBLOCK_HAS_IMAGE) {
            let len = self.length(name("image length"))?;
            self.field(name("hole_offset"), 2)?;
            let info = ImageInfo::new(self.byte(name("bimg_info"))?, fmt);
            if info.is_compressed() && info.has_hole() {
                self.field(name("hole_length"), 2)?;
            }
            data.push((name("image"), len));
        }
        if !flags.contains(BlockFlags::BKPBLOCK_SAME_REL) {
            for field in ["spcOid", "dbOid", if fmt.since(16) { "relNumber" } else { "relNode" }] {
                self.field(name(field), 4)?;
            }
        }
        self.field(name("block number"), 4)?;
        data.push((name("data"), data_len));
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::WalMagic;
    use crate::lsn::{Lsn, TimelineId};
    use crate::page::LongHeader;

    #[test]
    fn page_headers() {
        let long = Some(LongHeader { system_identifier: 7, segment_size: 1 << 20, wal_page_size: 8192 });
        let (magic, info, address) = (WalMagic(0xD110), PageInfo::XLP_LONG_HEADER, Lsn(0x10_0000));
        let header = PageHeader { magic, info, timeline: TimelineId(1), address, remaining: 0, padding: 0, long };
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let fields = page_header_fields(&bytes);
        assert_eq!(fields.iter().flat_map(|field| field.bytes).copied().collect::<Vec<_>>(), bytes);
        assert_eq!(fields.last().map(|field| (&*field.name, field.at)), Some(("xlp_xlog_blcksz", 36)));
        let mut other = PageHeader { padding: 1, remaining: 9, ..header };
        assert_eq!(page_header_differences(&header, &other), ["xlp_rem_len", "padding"]);
        (other.long, other.info) = (None, PageInfo(0));
        assert_eq!(page_header_differences(&header, &other), ["xlp_info", "xlp_rem_len", "padding"]);
        bytes.clear();
        other.write(&mut bytes);
        assert_eq!(page_header_fields(&bytes).len(), 6);
    }
}
