//! What the resource managers' unit tests share: records built from a payload's bytes.

use super::{Body, Describe, Payload};
use crate::error::Result;
use crate::format::WalFormat;
use crate::lsn::Lsn;
use crate::record::{RawRecord, Record, crc};
use crate::text::{Text, Zone};

/// A record to build.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rec<'a> {
    pub major: u8,
    pub rmid: u8,
    pub info: u8,
    pub origin: Option<u16>,
    pub main: &'a [u8],
    /// Data by block reference; all blocks are of relation 1663/5/16384, number 100 + id.
    pub blocks: &'a [(u8, &'a [u8])],
}

impl Rec<'_> {
    /// The record's bytes, with a right length and CRC.
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 24];
        for &(id, data) in self.blocks {
            out.extend([id, if data.is_empty() { 0 } else { 0x20 }]);
            out.extend((data.len() as u16).to_le_bytes());
            out.extend([1663, 5, 16384, 100 + u32::from(id)].map(u32::to_le_bytes).concat());
        }
        if let Some(origin) = self.origin {
            out.push(253);
            out.extend(origin.to_le_bytes());
        }
        if self.main.len() > 255 {
            out.push(254);
            out.extend((self.main.len() as u32).to_le_bytes());
        } else if !self.main.is_empty() {
            out.extend([255, self.main.len() as u8]);
        }
        self.blocks.iter().for_each(|block| out.extend(block.1));
        out.extend(self.main);
        let len = out.len() as u32;
        out[..4].copy_from_slice(&len.to_le_bytes());
        out[16..18].copy_from_slice(&[self.info, self.rmid]);
        let crc = crc(&out);
        out[20..24].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Calls `with` with the decoded record.
    pub(crate) fn with<T>(&self, with: impl FnOnce(&Record<'_>) -> T) -> T {
        let bytes = self.encode();
        let raw = RawRecord::from_bytes(&bytes, Lsn(0x100_0028), WalFormat::new(self.major)).unwrap();
        with(&raw.decode().unwrap())
    }

    /// The payload, as `Debug` shows it.
    pub(crate) fn parse(&self) -> Result<Option<String>> {
        self.with(|rec| Ok(rec.payload()?.map(|payload| format!("{payload:?}"))))
    }

    /// Checks that the record is described as `text`, written back to the same bytes, and refused when main data or a
    /// block's data is cut, but for main data cut at the lengths in `open`.
    pub(crate) fn check(&self, text: &str, open: &[usize]) {
        self.with(|rec| {
            let payload = rec.payload().unwrap().expect("an opcode that this major defines");
            let mut out = Text::new(rec.fmt(), Zone::utc());
            payload.describe(rec, rec.fmt(), &mut out);
            assert_eq!(out.to_string_lossy(), text, "{self:?}");
            assert!(rec.opcode_name().is_some(), "{self:?}");
            let mut body = Body::default();
            payload.write(rec.fmt(), &mut body);
            assert_eq!(body.main, self.main, "{self:?}");
            body.blocks.retain(|block| !block.1.is_empty());
            body.blocks.sort();
            assert!(body.blocks.iter().map(|(id, data)| (*id, &data[..])).eq(self.blocks.iter().copied().filter(|b| !b.1.is_empty())));
            serde_json::to_string(&payload).unwrap();
        });
        for len in 0..self.main.len() {
            let cut = Rec { main: &self.main[..len], ..self.clone() };
            assert_eq!(cut.parse().is_ok(), open.contains(&len), "{cut:?}");
        }
        for (at, block) in self.blocks.iter().enumerate() {
            for len in 0..block.1.len() {
                let mut blocks = self.blocks.to_vec();
                blocks[at].1 = &block.1[..len];
                let cut = Rec { blocks: &blocks, ..self.clone() };
                assert!(cut.parse().is_err(), "{cut:?}");
            }
        }
        if !open.contains(&usize::MAX) {
            let long = [self.main, &[0]].concat();
            assert!(Rec { main: &long, ..self.clone() }.parse().is_err(), "{self:?}: trailing byte");
        }
    }
}

/// Checks that `payload` is written as `size` bytes of main data, which read back as the same payload, described as `text`.
pub(crate) fn check(major: u8, rmid: u8, info: u8, payload: &Payload<'_>, size: usize, text: &str) {
    let mut body = Body::default();
    payload.write(WalFormat::new(major), &mut body);
    assert_eq!(body.main.len(), size, "{major}: {payload:?}");
    let rec = Rec { major, rmid, info, main: &body.main, ..Rec::default() };
    rec.with(|rec| assert_eq!(rec.payload().unwrap().as_ref(), Some(payload), "{major}"));
    rec.check(text, &[]);
}

/// The bytes of integers, one after the other: `le![1u32, 2u16]`.
macro_rules! le {
    ($($value:expr),* $(,)?) => { [$(&$value.to_le_bytes()[..]),*].concat() };
}
pub(crate) use le;
