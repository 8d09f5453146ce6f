//! Writes WAL byte by byte, as a server would, or as no server ever would.
//!
//! Nothing here uses pgwal's own writers: what the builder lays out by hand is what the reader has to find.
//!
//! ```
//! use pgwal::{Decoder, RmgrId, WalFormat};
//! use pgwal_testkit::wal::{RecordBuilder, Wal};
//!
//! let mut wal = Wal::new(WalFormat { segment_size: 1 << 20, ..WalFormat::new(17) });
//! wal.leave(8); // the next record header is cut after 8 bytes
//! let lsn = wal.record(&RecordBuilder::new(RmgrId(10), 0x00).main(&[1, 0, 0]));
//! let mut decoder = Decoder::new();
//! decoder.feed(wal.bytes());
//! let mut found = Vec::new();
//! while let Some(record) = decoder.next_record().unwrap() {
//!     found.push(record.lsn);
//! }
//! assert_eq!(found.last(), Some(&lsn));
//! ```

use pgwal::page::PageHeader;
use pgwal::record::{Compression, Image};
use pgwal::rmgr::{Body, Payload};
use pgwal::types::{BlockNumber, ForkNumber, Oid, RelFileLocator, RepOriginId, Xid};
use pgwal::{BlockRef, Lsn, Record, RmgrId, SegmentName, TimelineId, WalFormat, WalMagic};

/// One megabyte, the smallest segment size.
pub const MIB: u32 = 1 << 20;
/// Bytes of a record header.
pub const RECORD_HEADER: usize = 24;

/// `xlp_info`: the page starts with the rest of a record.
pub const CONTRECORD: u16 = 0x0001;
/// `xlp_info`: the page header is a long one.
pub const LONG_HEADER: u16 = 0x0002;
/// `xlp_info` up to 18: the record before was lost.
pub const OVERWRITE_CONTRECORD: u16 = 0x0008;
/// The same from 19 on.
pub const OVERWRITE_CONTRECORD_19: u16 = 0x0004;

/// WAL that is being written: a stream of bytes that starts with a page.
#[derive(Clone, Debug)]
pub struct Wal {
    fmt: WalFormat,
    start: Lsn,
    timeline: TimelineId,
    system_identifier: u64,
    prev: Lsn,
    bytes: Vec<u8>,
    records: Vec<Placed>,
    /// Further bits of the next page header.
    page_info: u16,
}

/// A record that has been written, as the reader must return it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its first byte.
    pub lsn: Lsn,
    /// Where the reader goes on: the aligned end of the record, behind a switch the end of the segment.
    pub end: Lsn,
    /// Its bytes without the page headers between them.
    pub bytes: Vec<u8>,
}

impl Wal {
    /// WAL of format `fmt` that starts with its second segment, as a new cluster's does.
    ///
    /// # Panics
    /// `fmt.major` has no magic.
    pub fn new(fmt: WalFormat) -> Wal {
        assert!(WalMagic::of(fmt.major).is_some(), "major {}", fmt.major);
        Wal {
            fmt,
            start: Lsn(fmt.segment_size.into()),
            timeline: TimelineId(1),
            system_identifier: 0x6543_2100_0000_0001,
            prev: Lsn::INVALID,
            bytes: Vec::new(),
            records: Vec::new(),
            page_info: 0,
        }
    }

    /// Starts at `lsn` instead, the start of a page.
    ///
    /// # Panics
    /// Something has been written, or `lsn` is inside a page.
    pub fn starting_at(mut self, lsn: Lsn) -> Wal {
        assert!(self.bytes.is_empty(), "the start is chosen before anything is written");
        assert_eq!(lsn.0 % u64::from(self.fmt.wal_page_size), 0, "{lsn} is inside a page");
        self.start = lsn;
        self
    }

    /// Timeline of the pages from here on.
    pub fn timeline(&mut self, timeline: TimelineId) -> &mut Wal {
        self.timeline = timeline;
        self
    }

    /// System identifier of the long headers from here on.
    pub fn system_identifier(&mut self, id: u64) -> &mut Wal {
        self.system_identifier = id;
        self
    }

    /// Previous-record link of the next record.
    pub fn previous(&mut self, prev: Lsn) -> &mut Wal {
        self.prev = prev;
        self
    }

    /// Format of the WAL.
    pub fn format(&self) -> WalFormat {
        self.fmt
    }

    /// LSN of the first byte.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// LSN behind the last byte written.
    pub fn end(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }

    /// Where the next record starts: [`Wal::end`], or behind the page header that comes first there.
    pub fn position(&self) -> Lsn {
        let end = self.end();
        if self.page_offset(end) == 0 { end + self.header_size(end) } else { end }
    }

    /// Everything written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes from `lsn` on.
    pub fn bytes_from(&self, lsn: Lsn) -> &[u8] {
        &self.bytes[self.index(lsn)..]
    }

    /// The whole records written, in order.
    pub fn records(&self) -> &[Placed] {
        &self.records
    }

    /// The segments as files, the last one filled with zeroes.
    ///
    /// # Panics
    /// The WAL does not start with a segment.
    pub fn segments(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let size = self.fmt.segment_size;
        assert_eq!(self.start.segment_offset(size), 0, "{} is inside a segment", self.start);
        let first = self.start.segment_number(size);
        let pieces = self.bytes.chunks(size as usize).zip(first..);
        pieces
            .map(|(piece, number)| {
                let mut segment = piece.to_vec();
                segment.resize(size as usize, 0);
                (SegmentName::new(self.timeline, number, size), segment)
            })
            .collect()
    }

    /// Writes a record and returns its start.
    pub fn record(&mut self, record: &RecordBuilder) -> Lsn {
        let bytes = record.bytes(self.fmt, self.prev);
        self.raw_record(bytes)
    }

    /// Writes a record of nothing but `payload`; block references that it needs are made up.
    pub fn payload(&mut self, rmid: RmgrId, info: u8, payload: &Payload<'_>) -> Lsn {
        let record = RecordBuilder::new(rmid, info).payload(self.fmt, payload);
        self.record(&record)
    }

    /// Writes the bytes of a record as they are, right or wrong, and returns its start.
    pub fn raw_record(&mut self, bytes: Vec<u8>) -> Lsn {
        let lsn = self.position();
        self.pieces(&bytes, usize::MAX);
        self.align();
        self.prev = lsn;
        self.records.push(Placed { lsn, end: self.end(), bytes });
        lsn
    }

    /// Writes a record that ends the segment, and the rest of the segment as the server does: empty pages with a header.
    pub fn switch(&mut self) -> Lsn {
        let lsn = self.record(&RecordBuilder::new(RmgrId::XLOG, 0x40));
        while !self.end().0.is_multiple_of(self.fmt.segment_size.into()) {
            if self.page_offset(self.end()) == 0 {
                self.page_header(0);
            }
            let left = self.page_left();
            self.zeroes(left);
        }
        let end = self.end();
        self.records.last_mut().expect("just written").end = end;
        lsn
    }

    /// Writes the start of `record` up to the end of its page and `pages` more, as a crash may leave it, and returns its start.
    ///
    /// # Panics
    /// The record ends before that.
    pub fn cut_short(&mut self, record: &RecordBuilder, pages: usize) -> Lsn {
        let lsn = self.position();
        let bytes = record.bytes(self.fmt, self.prev);
        let written = self.pieces(&bytes, pages + 1);
        assert!(written < bytes.len(), "the record ends on page {} already", pages + 1);
        lsn
    }

    /// Writes what the server puts behind the record at `lost` when it restarts: a page whose header says that a record was lost,
    /// and OVERWRITE_CONTRECORD. Returns the start of that record.
    ///
    /// # Panics
    /// The WAL does not end with a page.
    pub fn overwrite_contrecord(&mut self, lost: Lsn) -> Lsn {
        assert_eq!(self.page_offset(self.end()), 0, "{} is inside a page", self.end());
        self.page_info = if self.fmt.since(19) { OVERWRITE_CONTRECORD_19 } else { OVERWRITE_CONTRECORD };
        let main = [lost.0.to_le_bytes(), 700_000_000_000_000u64.to_le_bytes()].concat();
        self.record(&RecordBuilder::new(RmgrId::XLOG, 0xD0).main(&main))
    }

    /// Writes the header of the next page, without a record on it.
    ///
    /// # Panics
    /// The WAL does not end with a page.
    pub fn open_page(&mut self) -> &mut Wal {
        assert_eq!(self.page_offset(self.end()), 0, "{} is inside a page", self.end());
        self.page_header(0);
        self
    }

    /// Writes `len` zeroes.
    pub fn zeroes(&mut self, len: usize) -> &mut Wal {
        self.bytes.resize(self.bytes.len() + len, 0);
        self
    }

    /// Writes zeroes up to the end of the segment.
    pub fn zero_tail(&mut self) -> &mut Wal {
        let size = u64::from(self.fmt.segment_size);
        let left = self.end().0.next_multiple_of(size) - self.end().0;
        self.zeroes(left as usize)
    }

    /// Fills the page with zeroes, and then writes `count` pages left over from an earlier use of the file: their addresses are `back`
    /// bytes too low, and they are full of old records.
    pub fn recycled_pages(&mut self, count: usize, back: u64) -> &mut Wal {
        if self.page_offset(self.end()) != 0 {
            let left = self.page_left();
            self.zeroes(left);
        }
        let mut old = Wal::new(self.fmt).starting_at(Lsn(self.end().0 - back));
        old.timeline = self.timeline;
        old.system_identifier = self.system_identifier;
        old.prev = Lsn(old.start.0 - 8);
        let size = count * self.fmt.wal_page_size as usize;
        while old.bytes.len() < size {
            old.record(&RecordBuilder::filler(64));
        }
        self.bytes.extend_from_slice(&old.bytes[..size]);
        self
    }

    /// Writes bytes as they are, page headers and all.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Wal {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Fills up with a record of no meaning, so that the next record starts at `lsn`.
    ///
    /// # Panics
    /// No record fits in between: `lsn` lies back, or is 8 or 16 bytes away.
    pub fn fill_to(&mut self, lsn: Lsn) -> &mut Wal {
        assert!(self.position() <= lsn && lsn.0.is_multiple_of(8), "no record can start at {lsn} when the WAL ends at {}", self.end());
        let room = self.room(lsn);
        if room > 0 {
            self.record(&RecordBuilder::filler(room));
        }
        assert_eq!(self.position(), lsn, "a page header is in the way");
        self
    }

    /// Bytes for records between here and `lsn`.
    fn room(&self, lsn: Lsn) -> usize {
        let (mut at, mut room) = (self.position(), 0);
        while at < lsn {
            let page_end = Lsn(at.0 - self.page_offset(at) + u64::from(self.fmt.wal_page_size));
            room += page_end.min(lsn) - at;
            at = if page_end < lsn { page_end + self.header_size(page_end) } else { lsn };
        }
        room as usize
    }

    /// Fills up, so that the next record starts `left` bytes before the end of a page: of this one if that is possible.
    pub fn leave(&mut self, left: u64) -> &mut Wal {
        self.leave_of(left, self.fmt.wal_page_size)
    }

    /// Fills up, so that the next record starts `left` bytes before the end of a segment: of this one if that is possible.
    pub fn leave_in_segment(&mut self, left: u64) -> &mut Wal {
        self.leave_of(left, self.fmt.segment_size)
    }

    fn leave_of(&mut self, left: u64, unit: u32) -> &mut Wal {
        let at = self.position();
        let mut to = Lsn((at.0 + left).next_multiple_of(unit.into()) - left);
        let header = |wal: &Wal, at: Lsn| wal.header_size(Lsn(at.0 - wal.page_offset(at)));
        while (1..RECORD_HEADER).contains(&self.room(to)) || self.page_offset(to) < header(self, to) {
            to = to + u64::from(unit);
        }
        self.fill_to(to)
    }

    /// Writes `bytes` over what is at `lsn`.
    pub fn patch(&mut self, lsn: Lsn, bytes: &[u8]) -> &mut Wal {
        let at = self.index(lsn);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Writes `bytes` over the record at `lsn`, from its byte `at` on, stepping over page headers.
    pub fn patch_record(&mut self, lsn: Lsn, at: usize, bytes: &[u8]) -> &mut Wal {
        for (at, &byte) in (at..).zip(bytes) {
            let index = self.index(self.lsn_in_record(lsn, at));
            self.bytes[index] = byte;
        }
        self
    }

    /// Changes the header of the page at `page`.
    ///
    /// # Panics
    /// There is no page header.
    pub fn patch_page(&mut self, page: Lsn, change: impl FnOnce(&mut PageHeader)) -> &mut Wal {
        let (_, mut header) = PageHeader::read(self.bytes_from(page)).expect("a page header");
        change(&mut header);
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        self.patch(page, &bytes)
    }

    /// Cuts off everything from `lsn` on.
    pub fn truncate(&mut self, lsn: Lsn) -> &mut Wal {
        let at = self.index(lsn);
        self.bytes.truncate(at);
        self
    }

    /// Makes the checksum of the record at `lsn` right again, after patches. Its length is that of its header.
    pub fn refresh_crc(&mut self, lsn: Lsn) -> &mut Wal {
        let byte = |at| self.bytes[self.index(self.lsn_in_record(lsn, at))];
        let len = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]) as usize;
        let mut record: Vec<u8> = (0..len).map(byte).collect();
        refresh_crc(&mut record);
        self.patch_record(lsn, 20, &record[20..24])
    }

    /// LSN of byte `at` of the record at `lsn`.
    fn lsn_in_record(&self, lsn: Lsn, mut at: usize) -> Lsn {
        let mut lsn = lsn;
        loop {
            let left = (u64::from(self.fmt.wal_page_size) - self.page_offset(lsn)) as usize;
            if at < left {
                return lsn + at as u64;
            }
            at -= left;
            lsn = lsn + left as u64;
            lsn = lsn + self.header_size(lsn);
        }
    }

    /// Writes pieces of a record up to the end of page number `pages`, and returns how much was written.
    fn pieces(&mut self, record: &[u8], pages: usize) -> usize {
        let mut at = 0;
        for _ in 0..pages {
            if at == record.len() {
                break;
            }
            if self.page_offset(self.end()) == 0 {
                self.page_header(if at == 0 { 0 } else { record.len() - at });
            }
            let len = self.page_left().min(record.len() - at);
            self.bytes.extend_from_slice(&record[at..at + len]);
            at += len;
        }
        at
    }

    /// Writes the header of the page at the end, on which `remaining` bytes of a record go on.
    fn page_header(&mut self, remaining: usize) {
        let page = self.end();
        let long = page.segment_offset(self.fmt.segment_size) == 0;
        let mut info = std::mem::take(&mut self.page_info);
        if remaining > 0 {
            info |= CONTRECORD;
        }
        if long {
            info |= LONG_HEADER;
        }
        let magic = WalMagic::of(self.fmt.major).expect("checked in new").0;
        let out = &mut self.bytes;
        out.extend_from_slice(&magic.to_le_bytes());
        out.extend_from_slice(&info.to_le_bytes());
        out.extend_from_slice(&self.timeline.0.to_le_bytes());
        out.extend_from_slice(&page.0.to_le_bytes());
        out.extend_from_slice(&(remaining as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        if long {
            out.extend_from_slice(&self.system_identifier.to_le_bytes());
            out.extend_from_slice(&self.fmt.segment_size.to_le_bytes());
            out.extend_from_slice(&self.fmt.wal_page_size.to_le_bytes());
        }
    }

    fn align(&mut self) {
        let len = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(len, 0);
    }

    fn index(&self, lsn: Lsn) -> usize {
        assert!(self.start <= lsn && lsn <= self.end(), "{lsn} is not between {} and {}", self.start, self.end());
        (lsn.0 - self.start.0) as usize
    }

    fn page_offset(&self, lsn: Lsn) -> u64 {
        lsn.0 % u64::from(self.fmt.wal_page_size)
    }

    fn page_left(&self) -> usize {
        (u64::from(self.fmt.wal_page_size) - self.page_offset(self.end())) as usize
    }

    fn header_size(&self, page: Lsn) -> u64 {
        if page.segment_offset(self.fmt.segment_size) == 0 { 40 } else { 24 }
    }
}

/// Makes the checksum of a record right.
pub fn refresh_crc(record: &mut [u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&record[RECORD_HEADER..]), &record[..20]);
    record[20..24].copy_from_slice(&crc.to_le_bytes());
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBuilder {
    rmid: RmgrId,
    info: u8,
    xid: Xid,
    prev: Option<Lsn>,
    blocks: Vec<BlockBuilder>,
    origin: Option<RepOriginId>,
    toplevel_xid: Option<Xid>,
    main: Vec<u8>,
    main_header: MainHeader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MainHeader {
    None,
    Short,
    Long,
}

impl RecordBuilder {
    /// A record of resource manager `rmid` with `xl_info` `info`, and nothing in it.
    pub fn new(rmid: RmgrId, info: u8) -> RecordBuilder {
        RecordBuilder {
            rmid,
            info,
            xid: Xid(0),
            prev: None,
            blocks: Vec::new(),
            origin: None,
            toplevel_xid: None,
            main: Vec::new(),
            main_header: MainHeader::None,
        }
    }

    /// A copy of `record`, to be changed. What does not matter to the payload may differ: page images are all hole but for one byte.
    pub fn like(record: &Record<'_>) -> RecordBuilder {
        let header = record.header();
        let builder = RecordBuilder {
            xid: header.xid,
            prev: Some(header.prev),
            blocks: record.blocks.iter().map(|block| BlockBuilder::like(block, record.fmt())).collect(),
            origin: record.origin,
            toplevel_xid: record.toplevel_xid,
            ..RecordBuilder::new(header.rmid, header.info.0)
        };
        builder.main(record.main)
    }

    /// Replaces the data of block reference `id`, where there is one.
    pub fn block_data(mut self, id: u8, data: &[u8]) -> Self {
        if let Some(block) = self.blocks.iter_mut().find(|block| block.id == id) {
            block.data = data.to_vec();
        }
        self
    }

    /// A record of no meaning (XLOG's NOOP) that takes `len` bytes in all.
    ///
    /// # Panics
    /// `len` is less than 24, or 25, which no record has.
    pub fn filler(len: usize) -> RecordBuilder {
        let noop = RecordBuilder::new(RmgrId::XLOG, 0x20);
        match len {
            24 => noop,
            26..=281 => noop.main(&vec![0xA5; len - 26]).short_main(),
            282.. => noop.main(&vec![0xA5; len - 29]).long_main(),
            _ => panic!("no record has {len} bytes"),
        }
    }

    /// Transaction.
    pub fn xid(mut self, xid: u32) -> Self {
        self.xid = Xid(xid);
        self
    }

    /// Link to another record than the one before.
    pub fn prev(mut self, prev: Lsn) -> Self {
        self.prev = Some(prev);
        self
    }

    /// A block reference.
    pub fn block(mut self, block: BlockBuilder) -> Self {
        self.blocks.push(block);
        self
    }

    /// Replication origin.
    pub fn origin(mut self, origin: u16) -> Self {
        self.origin = Some(RepOriginId(origin));
        self
    }

    /// Top-level transaction.
    pub fn toplevel_xid(mut self, xid: u32) -> Self {
        self.toplevel_xid = Some(Xid(xid));
        self
    }

    /// Main data, with a short header where it fits.
    pub fn main(mut self, main: &[u8]) -> Self {
        self.main = main.to_vec();
        self.main_header = match main.len() {
            0 => MainHeader::None,
            1..=255 => MainHeader::Short,
            _ => MainHeader::Long,
        };
        self
    }

    /// Main data has a long header, however short it is.
    pub fn long_main(mut self) -> Self {
        self.main_header = MainHeader::Long;
        self
    }

    /// Main data has a short header, even where it is empty.
    pub fn short_main(mut self) -> Self {
        self.main_header = MainHeader::Short;
        self
    }

    /// Main data and block data of `payload`; block references that are missing are made up.
    pub fn payload(mut self, fmt: WalFormat, payload: &Payload<'_>) -> Self {
        let mut body = Body::default();
        payload.write(fmt, &mut body);
        for (id, data) in body.blocks {
            match self.blocks.iter_mut().find(|block| block.id == id) {
                Some(block) => block.data = data,
                None => self.blocks.push(BlockBuilder::new(id, relation(), 0).data(&data)),
            }
        }
        self.blocks.sort_by_key(|block| block.id);
        self.main(&body.main)
    }

    /// The record's bytes, with its length and checksum.
    pub fn bytes(&self, fmt: WalFormat, prev: Lsn) -> Vec<u8> {
        let mut out = vec![0; RECORD_HEADER];
        for block in &self.blocks {
            block.header(fmt, &mut out);
        }
        if let Some(origin) = self.origin {
            out.push(253);
            out.extend_from_slice(&origin.0.to_le_bytes());
        }
        if let Some(xid) = self.toplevel_xid {
            out.push(252);
            out.extend_from_slice(&xid.0.to_le_bytes());
        }
        match self.main_header {
            MainHeader::None => {}
            MainHeader::Short => out.extend_from_slice(&[255, self.main.len() as u8]),
            MainHeader::Long => {
                out.push(254);
                out.extend_from_slice(&(self.main.len() as u32).to_le_bytes());
            }
        }
        for block in &self.blocks {
            if let Some(image) = &block.image {
                out.extend_from_slice(&image.data);
            }
            out.extend_from_slice(&block.data);
        }
        out.extend_from_slice(&self.main);
        let len = out.len() as u32;
        out[0..4].copy_from_slice(&len.to_le_bytes());
        out[4..8].copy_from_slice(&self.xid.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.prev.unwrap_or(prev).0.to_le_bytes());
        out[16] = self.info;
        out[17] = self.rmid.0;
        refresh_crc(&mut out);
        out
    }
}

/// A relation for block references that stand for any.
pub fn relation() -> RelFileLocator {
    RelFileLocator { spc: Oid(1663), db: Oid(5), rel: Oid(16384) }
}

/// A block reference to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockBuilder {
    id: u8,
    rel: RelFileLocator,
    block: BlockNumber,
    fork: ForkNumber,
    flags: u8,
    data: Vec<u8>,
    image: Option<ImageBuilder>,
    /// Written instead of everything else.
    raw: Option<Vec<u8>>,
}

impl BlockBuilder {
    /// Block reference `id`: page `block` of the main fork of `rel`.
    pub fn new(id: u8, rel: RelFileLocator, block: u32) -> BlockBuilder {
        BlockBuilder { id, rel, block: BlockNumber(block), fork: ForkNumber::MAIN, flags: 0, data: Vec::new(), image: None, raw: None }
    }

    fn like(block: &BlockRef<'_>, fmt: WalFormat) -> BlockBuilder {
        BlockBuilder {
            fork: block.fork,
            flags: block.flags.0 & 0x40,
            data: block.data.to_vec(),
            image: block.image.map(|image| ImageBuilder::like(image, fmt)),
            ..BlockBuilder::new(block.id, block.rel, block.block.0)
        }
    }

    /// Bytes that stand in the place of a block reference's header, for headers that contradict themselves.
    pub fn raw(header: Vec<u8>) -> BlockBuilder {
        BlockBuilder { raw: Some(header), ..BlockBuilder::new(255, relation(), 0) }
    }

    /// Fork.
    pub fn fork(mut self, fork: ForkNumber) -> Self {
        self.fork = fork;
        self
    }

    /// Data; the flag comes with it.
    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    /// Page image; the flag comes with it.
    pub fn image(mut self, image: ImageBuilder) -> Self {
        self.image = Some(image);
        self
    }

    /// Replay initializes the page.
    pub fn will_init(mut self) -> Self {
        self.flags |= 0x40;
        self
    }

    /// The relation is left out: it is that of the block reference before.
    pub fn same_rel(mut self) -> Self {
        self.flags |= 0x80;
        self
    }

    fn header(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        if let Some(raw) = &self.raw {
            out.extend_from_slice(raw);
            return;
        }
        let image = if self.image.is_some() { 0x10 } else { 0 };
        let data = if self.data.is_empty() { 0 } else { 0x20 };
        out.extend_from_slice(&[self.id, self.fork.0 | self.flags | image | data]);
        out.extend_from_slice(&(self.data.len() as u16).to_le_bytes());
        if let Some(image) = &self.image {
            image.header(fmt, out);
        }
        if self.flags & 0x80 == 0 {
            for oid in [self.rel.spc, self.rel.db, self.rel.rel] {
                out.extend_from_slice(&oid.0.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.block.0.to_le_bytes());
    }
}

/// A page image to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBuilder {
    data: Vec<u8>,
    hole: (u16, u16),
    apply: bool,
    method: Option<Compression>,
}

impl ImageBuilder {
    /// An image of the whole `page`.
    pub fn new(page: &[u8]) -> ImageBuilder {
        ImageBuilder { data: page.to_vec(), hole: (0, 0), apply: true, method: None }
    }

    fn like(image: Image<'_>, fmt: WalFormat) -> ImageBuilder {
        let hole = (1, (fmt.known_block_size() - 1) as u16);
        ImageBuilder { data: vec![0], hole, apply: image.apply(), method: None }
    }

    /// Leaves `len` bytes from `offset` on out.
    pub fn hole(mut self, offset: u16, len: u16) -> Self {
        self.data.drain(usize::from(offset)..usize::from(offset) + usize::from(len));
        self.hole = (offset, len);
        self
    }

    /// A page of `size` zeroes, of which the first byte is there and all else is the hole.
    pub fn empty_page(size: u16) -> ImageBuilder {
        ImageBuilder::new(&vec![0; usize::from(size)]).hole(1, size - 1)
    }

    /// The image is for checking only (`wal_consistency_checking`).
    pub fn verify_only(mut self) -> Self {
        self.apply = false;
        self
    }

    /// Compresses it; the hole, if any, comes before.
    ///
    /// # Panics
    /// The compressor fails.
    pub fn compress(mut self, method: Compression) -> Self {
        self.data = match method {
            Compression::Pglz => pglz(&self.data),
            Compression::Lz4 => lz4_flex::block::compress(&self.data),
            Compression::Zstd => zstd::bulk::compress(&self.data, 3).expect("zstd compresses anything"),
        };
        self.method = Some(method);
        self
    }

    /// The bytes on disk.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Replaces the bytes on disk, compressed or not, and leaves the flags.
    pub fn with_data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    fn header(&self, fmt: WalFormat, out: &mut Vec<u8>) {
        let (offset, hole) = self.hole;
        let method = match self.method {
            None => 0,
            Some(_) if !fmt.since(15) => 0x02,
            Some(Compression::Pglz) => 0x04,
            Some(Compression::Lz4) => 0x08,
            Some(Compression::Zstd) => 0x10,
        };
        let apply = if fmt.since(15) { 0x02 } else { 0x04 };
        let info = u8::from(hole > 0) | method | if self.apply { apply } else { 0 };
        out.extend_from_slice(&(self.data.len() as u16).to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.push(info);
        if self.method.is_some() && hole > 0 {
            out.extend_from_slice(&hole.to_le_bytes());
        }
    }
}

/// PostgreSQL's own compression, in a simple form: runs of one byte become tags that point one byte back, all else is literal.
pub fn pglz(data: &[u8]) -> Vec<u8> {
    let mut items: Vec<Vec<u8>> = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let run = match at.checked_sub(1) {
            Some(before) => data[at..].iter().take(273).take_while(|&&byte| byte == data[before]).count(),
            None => 0,
        };
        match run {
            0..=2 => items.push(vec![data[at]]),
            3..=17 => items.push(vec![run as u8 - 3, 1]),
            _ => items.push(vec![0x0F, 1, (run - 18) as u8]),
        }
        at += if run < 3 { 1 } else { run };
    }
    let mut out = Vec::new();
    for eight in items.chunks(8) {
        out.push((0..).zip(eight).map(|(bit, item)| u8::from(item.len() > 1) << bit).sum());
        out.extend(eight.concat());
    }
    out
}

/// One small segment of 15 with a few records that start right behind its header, then zeroes: what documentation shows things on.
pub fn example() -> Vec<u8> {
    let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(15) };
    let mut wal = Wal::new(fmt).starting_at(Lsn(0x100_0000));
    // A tuple of one int4: its header without what the record leaves out, a byte of padding, the value.
    let tuple = [1, 0, 0, 8, 24, 0, 42, 0, 0, 0];
    let insert = |offnum: u8| {
        let block = BlockBuilder::new(0, relation(), 0).data(&tuple);
        RecordBuilder::new(RmgrId(10), 0x00).xid(730).block(block).main(&[offnum, 0, 8])
    };
    let commit_time = 700_000_000_000_000u64.to_le_bytes();
    wal.record(&insert(1));
    wal.record(&insert(2));
    wal.record(&RecordBuilder::new(RmgrId::XACT, 0x00).xid(730).main(&commit_time));
    wal.zero_tail();
    wal.bytes
}
