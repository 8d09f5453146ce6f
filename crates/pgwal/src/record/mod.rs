//! Records: header, block references, main data. C: access/xlogrecord.h.

mod block_size;
mod image;
mod needs;
mod plain;

use std::borrow::Cow;

use serde::Serialize;
use smallvec::SmallVec;

pub(crate) use block_size::{Shown, shown as shown_block_size};
pub use image::{Compression, Image, ImageInfo};
pub use needs::Needs;
pub(crate) use needs::unneeded as unneeded_data;
pub(crate) use plain::Plain;

use crate::error::{Error, ErrorKind, Location, Result};
use crate::format::WalFormat;
use crate::lsn::{Lsn, SegmentName, TimelineId};
use crate::rmgr::{self, Payload, RmgrId};
use crate::types::{BlockNumber, ForkNumber, Oid, RelFileLocator, RepOriginId, Xid};
use crate::wire::{Parsed, Problem, Wire, WireError};

/// Bytes of a record header. C: `SizeOfXLogRecord`.
pub const RECORD_HEADER_SIZE: usize = 24;
/// The longest record that a server replays, in bytes.
///
/// From 16 on no server writes a longer one than `XLogRecordMaxSize`. Before, nothing stopped it, but recovery cannot read a record for
/// which it cannot allocate a buffer (`MaxAllocSize`; C: `allocate_recordbuf`, access/transam/xlogreader.c): more than the record, up to
/// whole WAL pages. pg_waldump has no limit but memory.
pub fn max_record_size(fmt: WalFormat) -> u32 {
    const MAX_ALLOC_SIZE: u32 = 0x3FFF_FFFF;
    if fmt.since(16) { 1020 << 20 } else { MAX_ALLOC_SIZE.saturating_sub(fmt.wal_page_size) }
}

/// C: `XLR_MAX_BLOCK_ID`.
const MAX_BLOCK_ID: u8 = 32;
/// C: `XLR_BLOCK_ID_DATA_SHORT`.
pub(crate) const ID_DATA_SHORT: u8 = 255;
/// C: `XLR_BLOCK_ID_DATA_LONG`.
const ID_DATA_LONG: u8 = 254;
/// C: `XLR_BLOCK_ID_ORIGIN`.
const ID_ORIGIN: u8 = 253;
/// C: `XLR_BLOCK_ID_TOPLEVEL_XID`, from 14 on.
const ID_TOPLEVEL_XID: u8 = 252;

/// The info byte of a record: the upper four bits are the resource manager's, the lower four are common. C: `xl_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Info(pub u8);

impl Info {
    /// The bits that belong to the WAL itself. C: `XLR_INFO_MASK`.
    pub const MASK: u8 = 0x0F;
    /// The record must not be skipped by tools that do not know it. C: `XLR_SPECIAL_REL_UPDATE`.
    pub const XLR_SPECIAL_REL_UPDATE: u8 = 0x01;
    /// Full-page images are for checking only. C: `XLR_CHECK_CONSISTENCY`.
    pub const XLR_CHECK_CONSISTENCY: u8 = 0x02;
    /// Opcode of the XLOG resource manager that ends a segment early.
    pub const XLOG_SWITCH: u8 = 0x40;

    /// The resource manager's bits.
    pub const fn opcode(self) -> u8 {
        self.0 & !Info::MASK
    }
}

/// Header of a record. C: `XLogRecord`, 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RecordHeader {
    /// Bytes of the whole record, this header included. C: `xl_tot_len`.
    pub tot_len: u32,
    /// Transaction that wrote it, or zero. C: `xl_xid`.
    pub xid: Xid,
    /// Start of the record before. C: `xl_prev`.
    pub prev: Lsn,
    /// C: `xl_info`.
    pub info: Info,
    /// C: `xl_rmid`.
    pub rmid: RmgrId,
    /// Padding; zero in healthy WAL.
    pub padding: u16,
    /// CRC-32C of everything after the header, then of the header up to here. C: `xl_crc`.
    pub crc: u32,
}

impl RecordHeader {
    /// The header that `bytes` are. One bounds check for all of it: it is read for every record of every pass.
    #[inline]
    pub(crate) fn from_bytes(bytes: &[u8; RECORD_HEADER_SIZE]) -> RecordHeader {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]); // at + 3 < 24
        RecordHeader {
            tot_len: u32_at(0),
            xid: Xid(u32_at(4)),
            prev: Lsn(u64::from(u32_at(12)) << 32 | u64::from(u32_at(8))),
            info: Info(bytes[16]),
            rmid: RmgrId(bytes[17]),
            padding: u16::from_le_bytes([bytes[18], bytes[19]]),
            crc: u32_at(20),
        }
    }

    /// The bytes from `xl_info` to `xl_crc`, as a little-endian number.
    pub(crate) fn kind(&self) -> u32 {
        let [low, high] = self.padding.to_le_bytes();
        u32::from_le_bytes([self.info.0, self.rmid.0, low, high])
    }

    /// Whether the rest of the segment behind the record is unused. C: `XLOG_SWITCH`.
    #[inline]
    pub(crate) fn is_switch(&self) -> bool {
        self.rmid == RmgrId::XLOG && self.info.opcode() == Info::XLOG_SWITCH
    }
}

impl Wire<'_> for RecordHeader {
    #[inline]
    fn read(input: &[u8], _: WalFormat) -> Parsed<'_, Self> {
        match input.split_first_chunk() {
            Some((head, rest)) => Ok((rest, RecordHeader::from_bytes(head))),
            None => Err(WireError::truncated(input, "XLogRecord", RECORD_HEADER_SIZE)),
        }
    }

    fn write(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        self.tot_len.write(fmt, out);
        self.xid.write(fmt, out);
        self.prev.write(fmt, out);
        out.extend_from_slice(&[self.info.0, self.rmid.0]);
        self.padding.write(fmt, out);
        self.crc.write(fmt, out);
    }
}

/// CRC-32C of a record, in the order that the server computes it; zero for fewer bytes than a header has.
#[inline]
pub fn crc(record: &[u8]) -> u32 {
    match (record.get(RECORD_HEADER_SIZE..), record.get(..RECORD_HEADER_SIZE - 4)) {
        (Some(data), Some(header)) => crc32c::crc32c_append(crc32c::crc32c(data), header),
        _ => 0,
    }
}

/// The CRC-32C of a record whose bytes behind the header have the one of `data`; zero for fewer bytes than a header has.
#[inline]
pub(crate) fn crc_with_header(data: u32, record: &[u8]) -> u32 {
    record.get(..RECORD_HEADER_SIZE - 4).map_or(0, |header| crc32c::crc32c_append(data, header))
}

/// Whether `id` can stand in a record: a built-in resource manager or, from 15 on, a custom one. C: `RmgrIdIsValid`.
pub fn is_rmgr(id: RmgrId, fmt: WalFormat) -> bool {
    id.builtin().is_some() || (fmt.since(15) && id.is_custom())
}

/// A framed record: its bytes are whole and its CRC is right. Nothing inside has been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Where the record starts. C: `ReadRecPtr`.
    pub lsn: Lsn,
    /// Where the next one may start: aligned, or the next segment after a switch. C: `EndRecPtr`.
    pub end: Lsn,
    /// Timeline of the page that it ends on.
    pub timeline: TimelineId,
    /// Start of a record before this one that was lost in a crash and written over. C: `overwrittenRecPtr`.
    pub overwritten: Option<Lsn>,
    /// The header, already read.
    pub header: RecordHeader,
    /// All bytes of the record: borrowed from the segment, owned where page headers cut it.
    pub bytes: Cow<'a, [u8]>,
    /// Format of the WAL.
    pub fmt: WalFormat,
}

impl<'a> RawRecord<'a> {
    /// A place for a record, for the reader to fill.
    pub(crate) fn vacant(fmt: WalFormat) -> RawRecord<'a> {
        let header = RecordHeader::from_bytes(&[0; RECORD_HEADER_SIZE]);
        let (lsn, end, timeline) = (Lsn::INVALID, Lsn::INVALID, TimelineId::default());
        RawRecord { lsn, end, timeline, overwritten: None, header, bytes: Cow::Borrowed(&[]), fmt }
    }

    /// Checks the length and the CRC of one record's bytes, for WAL that comes record by record.
    ///
    /// `lsn` is where the record stands in the WAL; it is used for messages only. A block size that is not known is taken from the record's
    /// page images, where they show it.
    ///
    /// # Errors
    /// The length does not fit, or the CRC is wrong.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let segment = pgwal_testkit::example();
    /// # let bytes = segment[40..].to_vec();
    /// # let len = u32::from_le_bytes(bytes[..4].try_into()?) as usize;
    /// use pgwal::{Lsn, RawRecord, WalFormat};
    /// let raw = RawRecord::from_bytes(&bytes[..len], Lsn(0x100_0028), WalFormat::new(15))?;
    /// let record = raw.decode()?;
    /// println!("{} {:?}", record.rmgr_name(), record.payload()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_bytes(bytes: &'a [u8], lsn: Lsn, fmt: WalFormat) -> Result<RawRecord<'a>> {
        let fail = |kind, at| {
            let place = fmt.lsn_in_record(lsn, at);
            let segment = SegmentName::of(TimelineId::default(), place, fmt.segment_size);
            let offset = place.segment_offset(fmt.segment_size);
            Err(Error::new(kind, Location { segment, offset, lsn: place, record: Some(lsn) }))
        };
        let Ok((_, header)) = RecordHeader::read(bytes, fmt) else {
            let needed = RECORD_HEADER_SIZE.saturating_sub(bytes.len());
            return fail(ErrorKind::Truncated { field: "XLogRecord", needed }, bytes.len() as u64);
        };
        if (header.tot_len as usize) < RECORD_HEADER_SIZE {
            return fail(ErrorKind::RecordLength { found: header.tot_len }, 0);
        }
        if header.tot_len as usize != bytes.len() {
            let (needed, left) = (header.tot_len.into(), bytes.len() as u64);
            return fail(ErrorKind::RecordLayout { field: "xl_tot_len", needed, left }, 0);
        }
        if !is_rmgr(header.rmid, fmt) {
            return fail(ErrorKind::ResourceManager { found: header.rmid.0 }, 0);
        }
        let expected = crc(bytes);
        if expected != header.crc {
            return fail(ErrorKind::Crc { expected, found: header.crc }, 0);
        }
        let end = (fmt.lsn_in_record(lsn, bytes.len() as u64 - 1) + 1).align();
        let timeline = TimelineId::default();
        let fmt = match fmt.block_size {
            0 => fmt.with_block_size(shown_block_size(bytes, fmt).size().unwrap_or(0)),
            _ => fmt,
        };
        Ok(RawRecord { lsn, end, timeline, overwritten: None, header, bytes: Cow::Borrowed(bytes), fmt })
    }

    /// The place of byte `at` of the record.
    pub fn location(&self, at: usize) -> Location {
        let lsn = self.fmt.lsn_in_record(self.lsn, at as u64);
        let segment = SegmentName::of(self.timeline, lsn, self.fmt.segment_size);
        Location { segment, offset: lsn.segment_offset(self.fmt.segment_size), lsn, record: Some(self.lsn) }
    }

    /// Reads what comes after the header: block references and main data, not the payload inside them.
    ///
    /// # Errors
    /// The parts contradict each other, or do not add up to the record's length. C: `DecodeXLogRecord`.
    pub fn decode(&self) -> Result<Record<'_>> {
        let mut record = Record::unread(self);
        record.read()?;
        Ok(record)
    }

    /// The work of [`Record::read`]. `fmt` is the record's format; without a block size, that of images is not checked.
    #[inline]
    fn try_parts<'r>(&'r self, record: &mut Record<'r>, fmt: WalFormat) -> std::result::Result<(), Refusal> {
        let mut input = self.bytes.get(RECORD_HEADER_SIZE..).unwrap_or_default();
        // Bytes of data (images, block data, main data) that the headers read so far speak of.
        let mut data_total = 0;
        let mut main_len = 0;
        while input.len() > data_total {
            let at = input;
            let Some((&id, rest)) = input.split_first() else { break };
            input = rest;
            match id {
                ID_DATA_SHORT => {
                    let (i, len) = read::<u8>(input, fmt, "XLogRecordDataHeaderShort.data_length")?;
                    (input, main_len) = (i, usize::from(len));
                    data_total += main_len;
                    break; // by convention, the main data fragment is always last
                }
                0..=MAX_BLOCK_ID => {
                    let previous = record.blocks.last().map(|block| (block.id, block.rel));
                    let (i, block) = BlockRef::read(id, previous, at, fmt)?;
                    input = i;
                    data_total += usize::from(block.data_len) + block.image.map_or(0, |image| usize::from(image.len));
                    record.blocks.push(block);
                }
                ID_DATA_LONG => {
                    let (i, len) = read::<u32>(input, fmt, "XLogRecordDataHeaderLong.data_length")?;
                    (input, main_len) = (i, len as usize);
                    data_total = data_total.saturating_add(main_len);
                    break;
                }
                ID_ORIGIN => {
                    let (i, origin) = read::<RepOriginId>(input, fmt, "replorigin_session_origin")?;
                    (input, record.origin) = (i, Some(origin));
                }
                ID_TOPLEVEL_XID if fmt.since(14) => {
                    let (i, xid) = read::<Xid>(input, fmt, "toplevel_xid")?;
                    (input, record.toplevel_xid) = (i, Some(xid));
                }
                found => return Err(Refusal { kind: ErrorKind::BlockId { found }, left: at.len() }),
            }
        }
        if input.len() != data_total {
            let (needed, left) = (data_total as u64, input.len() as u64);
            return Err(Refusal { kind: ErrorKind::RecordLayout { field: "record data", needed, left }, left: input.len() });
        }
        // The lengths add up to what is there, so none of these reads can fail.
        for block in &mut record.blocks {
            if let Some(image) = &mut block.image {
                (image.data, input) = input.split_at_checked(image.len.into()).unwrap_or_default();
            }
            (block.data, input) = input.split_at_checked(block.data_len.into()).unwrap_or_default();
        }
        record.main = input.get(..main_len).unwrap_or_default();
        Ok(())
    }
}

/// Why the parts of a record cannot be read, and how many of its bytes were left there.
struct Refusal {
    kind: ErrorKind,
    left: usize,
}

fn read<'a, T: Wire<'a>>(input: &'a [u8], fmt: WalFormat, field: &'static str) -> std::result::Result<(&'a [u8], T), Refusal> {
    T::read(input, fmt).map_err(|e| {
        let needed = match e.problem {
            Problem::Truncated { needed } => needed,
            Problem::Invalid { .. } => 0,
        };
        let left = input.len();
        Refusal { kind: ErrorKind::RecordLayout { field, needed: (left + needed) as u64, left: left as u64 }, left }
    })
}

wire_flags! {
    /// C: `fork_flags` of `XLogRecordBlockHeader`: the fork in the lower four bits, flags above.
    pub struct BlockFlags: u8 {
        /// A page image follows.
        BKPBLOCK_HAS_IMAGE = 0x10,
        /// Data follows.
        BKPBLOCK_HAS_DATA = 0x20,
        /// Replay initializes the page.
        BKPBLOCK_WILL_INIT = 0x40,
        /// The relation is that of the block reference before.
        BKPBLOCK_SAME_REL = 0x80,
    }
}

/// A page that a record changes. C: `DecodedBkpBlock`, access/xlogreader.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef<'r> {
    /// Number by which the resource manager knows the block, 0 to 32.
    pub id: u8,
    /// Relation.
    pub rel: RelFileLocator,
    /// Fork of the relation.
    pub fork: ForkNumber,
    /// Page in the fork.
    pub block: BlockNumber,
    /// Flags without the fork's bits.
    pub flags: BlockFlags,
    /// Image of the page as it was before, or after, the change.
    pub image: Option<Image<'r>>,
    /// Data of the resource manager for this block; empty where the flags say there is none.
    pub data: &'r [u8],
    data_len: u16,
}

impl<'r> BlockRef<'r> {
    /// Reads the header of block reference `id`, whose first byte `at` starts with; images and data come later.
    #[inline]
    fn read(
        id: u8,
        previous: Option<(u8, RelFileLocator)>,
        at: &'r [u8],
        fmt: WalFormat,
    ) -> std::result::Result<(&'r [u8], BlockRef<'r>), Refusal> {
        // Most have no image and name their relation: twenty bytes, each in its place.
        if let Some((&[_, fork_flags, len0, len1, s0, s1, s2, s3, d0, d1, d2, d3, r0, r1, r2, r3, b0, b1, b2, b3], rest)) =
            at.split_first_chunk::<20>()
            && fork_flags & (BlockFlags::BKPBLOCK_HAS_IMAGE.0 | BlockFlags::BKPBLOCK_SAME_REL.0) == 0
            && previous.is_none_or(|(after, _)| id > after)
        {
            let data_len = u16::from_le_bytes([len0, len1]);
            if (fork_flags & BlockFlags::BKPBLOCK_HAS_DATA.0 != 0) == (data_len > 0) {
                let oid = |bytes| Oid(u32::from_le_bytes(bytes));
                let rel = RelFileLocator { spc: oid([s0, s1, s2, s3]), db: oid([d0, d1, d2, d3]), rel: oid([r0, r1, r2, r3]) };
                let (fork, flags) = (ForkNumber(fork_flags & 0x0F), BlockFlags(fork_flags & 0xF0));
                let block = BlockNumber(u32::from_le_bytes([b0, b1, b2, b3]));
                return Ok((rest, BlockRef { id, rel, fork, block, flags, image: None, data: &[], data_len }));
            }
        }
        BlockRef::read_any(id, previous, at, fmt)
    }

    /// [`BlockRef::read`] for whatever may come.
    fn read_any(
        id: u8,
        previous: Option<(u8, RelFileLocator)>,
        at: &'r [u8],
        fmt: WalFormat,
    ) -> std::result::Result<(&'r [u8], BlockRef<'r>), Refusal> {
        let refuse = |kind| Refusal { kind, left: at.len() };
        let i = at.get(1..).unwrap_or_default();
        if let Some((after, _)) = previous.filter(|&(after, _)| id <= after) {
            return Err(refuse(ErrorKind::BlockOrder { id, after }));
        }
        let (i, fork_flags) = read::<u8>(i, fmt, "XLogRecordBlockHeader.fork_flags")?;
        let flags = BlockFlags(fork_flags & 0xF0);
        let (mut i, data_len) = read::<u16>(i, fmt, "XLogRecordBlockHeader.data_length")?;
        let has_data = flags.contains(BlockFlags::BKPBLOCK_HAS_DATA);
        if has_data != (data_len > 0) {
            return Err(refuse(ErrorKind::BlockData { id, has_data, len: data_len }));
        }
        let mut image = None;
        if flags.contains(BlockFlags::BKPBLOCK_HAS_IMAGE) {
            let (rest, header) = Image::read_header(i, fmt)?;
            (i, image) = (rest, Some(header));
        }
        let rel = if flags.contains(BlockFlags::BKPBLOCK_SAME_REL) {
            previous.ok_or(refuse(ErrorKind::NoPreviousRelation { id }))?.1
        } else {
            let (rest, rel) = read::<RelFileLocator>(i, fmt, "RelFileLocator")?;
            i = rest;
            rel
        };
        let (i, block) = read::<BlockNumber>(i, fmt, "BlockNumber")?;
        Ok((i, BlockRef { id, rel, fork: ForkNumber(fork_flags & 0x0F), block, flags, image, data: &[], data_len }))
    }

    /// Whether the record has data for this block. C: `has_data`.
    pub fn has_data(&self) -> bool {
        self.flags.contains(BlockFlags::BKPBLOCK_HAS_DATA)
    }

    /// Whether replay restores the page from the image (and does not only compare). C: `XLogRecBlockImageApply`.
    pub fn applies_image(&self) -> bool {
        self.image.is_some_and(|image| image.apply())
    }
}

/// A decoded record, borrowed from a [`RawRecord`]. Its payload is decoded when asked for.
#[derive(Clone, Debug)]
pub struct Record<'r> {
    /// The framed record: its place, header and bytes.
    pub raw: &'r RawRecord<'r>,
    /// Block references in ascending order of their ids.
    pub blocks: SmallVec<[BlockRef<'r>; 2]>,
    /// Replication origin of the transaction, where it has one. C: `record_origin`.
    pub origin: Option<RepOriginId>,
    /// Top-level transaction, told once for each subtransaction at `wal_level=logical`, from 14 on. C: `toplevel_xid`.
    pub toplevel_xid: Option<Xid>,
    /// Main data: the resource manager's own.
    pub main: &'r [u8],
}

impl<'r> Record<'r> {
    /// A record of which nothing but the header has been read: [`Record::read`] comes next.
    ///
    /// The two of them are [`RawRecord::decode`] for who reads millions of records: a record is too big to be moved around.
    #[inline]
    pub fn unread(raw: &'r RawRecord<'r>) -> Record<'r> {
        Record { raw, blocks: SmallVec::new(), origin: None, toplevel_xid: None, main: &[] }
    }

    /// Reads what comes after the header, once; see [`RawRecord::decode`].
    ///
    /// # Errors
    /// Those of [`RawRecord::decode`].
    #[inline]
    pub fn read(&mut self) -> Result<()> {
        self.raw.try_parts(self, self.raw.fmt.with_block_size(self.raw.fmt.known_block_size())).map_err(|Refusal { kind, left }| {
            let at = self.raw.bytes.len().saturating_sub(left);
            Error::new(kind, self.raw.location(at))
        })
    }

    /// The record's header.
    pub fn header(&self) -> &'r RecordHeader {
        &self.raw.header
    }

    /// The resource manager.
    pub fn rmid(&self) -> RmgrId {
        self.raw.header.rmid
    }

    /// Info byte of the header.
    pub fn info(&self) -> Info {
        self.raw.header.info
    }

    /// Format of the WAL.
    pub fn fmt(&self) -> WalFormat {
        self.raw.fmt
    }

    /// Block reference number `id`.
    #[inline]
    pub fn block(&self, id: u8) -> Option<&BlockRef<'r>> {
        self.blocks.iter().find(|block| block.id == id)
    }

    /// Data of block reference `id`; `None` where there is no such block or it has no data. C: `XLogRecGetBlockData`.
    #[inline]
    pub fn block_data(&self, id: u8) -> Option<&'r [u8]> {
        self.block(id).filter(|block| block.has_data()).map(|block| block.data)
    }

    /// Whether block reference `id` has an image. C: `XLogRecHasBlockImage`.
    #[inline]
    pub fn has_image(&self, id: u8) -> bool {
        self.block(id).is_some_and(|block| block.image.is_some())
    }

    /// Name of the resource manager, `custom128` for one that an extension brings.
    pub fn rmgr_name(&self) -> Cow<'static, str> {
        self.rmid().name()
    }

    /// Name of the record type, `INSERT+INIT`; `None`: this version defines no such opcode. C: `rm_identify`.
    pub fn opcode_name(&self) -> Option<&'static str> {
        rmgr::identify(self.rmid(), self.info(), self.fmt())
    }

    /// Decodes the payload. `None`: a custom resource manager, or an opcode that this version does not define.
    ///
    /// # Errors
    /// The payload does not parse; the record's other parts stay good.
    pub fn payload(&self) -> Result<Option<Payload<'r>>> {
        rmgr::parse(self, self.fmt())
    }

    /// Bytes of all page images. C: `XLogRecGetLen` calls them `fpi_len`.
    pub fn image_len(&self) -> u32 {
        self.blocks.iter().filter_map(|block| block.image.as_ref()).map(|image| u32::from(image.len)).sum()
    }

    /// Reads `part`, main data or a block's data, with `reader`, and refuses bytes left over.
    ///
    /// # Errors
    /// What `reader` says, or [`ErrorKind::TrailingBytes`], with its place in the file.
    #[inline]
    pub fn parse_all<T>(&self, what: &'static str, part: &'r [u8], reader: impl FnOnce(&'r [u8]) -> Parsed<'r, T>) -> Result<T> {
        match reader(part) {
            Ok(([], value)) => Ok(value),
            Ok((rest, _)) => Err(self.error(ErrorKind::TrailingBytes { after: what, count: rest.len() }, part, rest.len())),
            Err(e) => Err(self.error(e.in_field(what).into(), part, e.left)),
        }
    }

    /// Like [`Record::parse_all`] for the data of block `id`; `None` where the block or its data is not there.
    ///
    /// # Errors
    /// As [`Record::parse_all`].
    #[inline]
    pub fn parse_block<T>(&self, what: &'static str, id: u8, reader: impl FnOnce(&'r [u8]) -> Parsed<'r, T>) -> Result<Option<T>> {
        self.block_data(id).map(|data| self.parse_all(what, data, reader)).transpose()
    }

    /// Refuses data of block references other than `ids`: a payload accounts for every byte.
    ///
    /// # Errors
    /// [`ErrorKind::TrailingBytes`] of the first such block.
    #[inline]
    pub fn only_block_data(&self, what: &'static str, ids: &[u8]) -> Result<()> {
        match self.blocks.iter().find(|block| !block.data.is_empty() && !ids.contains(&block.id)) {
            None => Ok(()),
            Some(block) => {
                let count = block.data.len();
                Err(self.error(ErrorKind::TrailingBytes { after: what, count }, block.data, count))
            }
        }
    }

    /// Like [`Record::parse_all`] for the data of block `id`; `None` where the block has an image and no data.
    ///
    /// The server leaves the data out where replay restores the page from the image anyway.
    ///
    /// # Errors
    /// As [`Record::parse_all`]; data that is not there without an image is read as no bytes.
    #[inline]
    pub fn parse_block_or_image<T>(&self, what: &'static str, id: u8, reader: impl FnOnce(&'r [u8]) -> Parsed<'r, T>) -> Result<Option<T>> {
        match self.block_data(id) {
            None if self.has_image(id) => Ok(None),
            data => self.parse_all(what, data.unwrap_or_default(), reader).map(Some),
        }
    }

    /// Like [`Record::parse_block_or_image`] for data that can be empty: `None` wherever the record has no data for the block.
    ///
    /// # Errors
    /// As [`Record::parse_block_or_image`]: where there is no image either, `reader` must be content with no bytes.
    #[inline]
    pub fn parse_block_or_nothing<T>(
        &self,
        what: &'static str,
        id: u8,
        reader: impl FnOnce(&'r [u8]) -> Parsed<'r, T>,
    ) -> Result<Option<T>> {
        let value = self.parse_block_or_image(what, id, reader)?;
        Ok(value.filter(|_| self.block_data(id).is_some()))
    }

    /// An error at the place where `left` bytes of `part` were left.
    #[cold]
    fn error(&self, kind: ErrorKind, part: &[u8], left: usize) -> Error {
        // `part` lies inside the record's bytes, so the difference of the addresses is its offset; were it elsewhere, the
        // place would be the record's start.
        let offset = (part.as_ptr() as usize).wrapping_sub(self.raw.bytes.as_ptr() as usize);
        let at = offset.wrapping_add(part.len().saturating_sub(left));
        Error::new(kind, self.raw.location(if at <= self.raw.bytes.len() { at } else { 0 }))
    }
}

impl From<WireError> for ErrorKind {
    fn from(e: WireError) -> ErrorKind {
        match e.problem {
            Problem::Truncated { needed } => ErrorKind::Truncated { field: e.field, needed },
            Problem::Invalid { expected, found } => ErrorKind::Value { field: e.field, expected, found },
        }
    }
}
