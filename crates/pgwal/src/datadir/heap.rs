//! Heap files: pages, line pointers, tuples. C: storage/bufpage.h, storage/itemid.h, access/htup_details.h.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataDir, DataDirError, Problem, read_at};
use crate::format::WalFormat;
use crate::heap_tuple::{Infomask, Infomask2};
use crate::input_file;
use crate::lsn::Lsn;
use crate::types::{BlockNumber, CommandId, ItemPointer, Oid, RelFileLocator, Xid};
use crate::wire::{FixedSize, Wire};

wire_struct! {
    /// Start of every page. C: `PageHeaderData`, storage/bufpage.h, 24 bytes.
    pub struct PageHeader("PageHeaderData") {
        lsn: Lsn,
        checksum: u16,
        flags: u16,
        lower: u16,
        upper: u16,
        special: u16,
        pagesize_version: u16,
        prune_xid: Xid,
    }
}

wire_struct! {
    /// Start of every tuple. C: `HeapTupleHeaderData`, access/htup_details.h, 23 bytes.
    pub struct TupleHeader("HeapTupleHeaderData") {
        xmin: Xid,
        xmax: Xid,
        /// Command ids, or a transaction of a time before 9.0. C: `t_cid`.
        cid: CommandId,
        ctid: ItemPointer,
        infomask2: Infomask2,
        infomask: Infomask,
        hoff: u8,
    }
}

/// A tuple on its page.
#[derive(Clone, Copy)]
pub(super) struct Tuple<'p> {
    pub header: TupleHeader,
    /// From the start of the header to the end of the attributes.
    bytes: &'p [u8],
}

impl<'p> Tuple<'p> {
    /// Reads a tuple and checks that its header lies within it.
    fn read(bytes: &'p [u8], fmt: WalFormat) -> Result<Tuple<'p>, Problem> {
        let (_, header) = TupleHeader::read(bytes, fmt)?;
        let bitmap = if header.infomask.contains(Infomask::HEAP_HASNULL) { usize::from(header.infomask2.natts()).div_ceil(8) } else { 0 };
        let oid = if has_oid(&header, fmt) { Oid::size(fmt) } else { 0 };
        let hoff = usize::from(header.hoff);
        if hoff < TupleHeader::size(fmt) + bitmap + oid || hoff > bytes.len() || !hoff.is_multiple_of(4) {
            let expected = "a multiple of 4 that leaves room for header and null bitmap, within the tuple";
            return Err(Problem::Value { field: "HeapTupleHeaderData.t_hoff", expected, found: header.hoff.into() });
        }
        Ok(Tuple { header, bytes })
    }

    /// The attributes, one after the other.
    pub fn attributes(&self) -> &'p [u8] {
        self.bytes.get(usize::from(self.header.hoff)..).unwrap_or_default() // `read` has checked it
    }

    /// Whether attribute number `index`, counted from 0, has a value.
    pub fn has(&self, index: usize, fmt: WalFormat) -> bool {
        let bitmap = self.bytes.get(TupleHeader::size(fmt)..).unwrap_or_default();
        let set = || bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
        index < usize::from(self.header.infomask2.natts()) && (!self.header.infomask.contains(Infomask::HEAP_HASNULL) || set())
    }

    /// The object id that was a part of the header until 11. C: `HeapTupleGetOid`.
    pub fn oid(&self, fmt: WalFormat) -> Option<Oid> {
        let at = usize::from(self.header.hoff).checked_sub(Oid::size(fmt)).filter(|_| has_oid(&self.header, fmt))?;
        Oid::read(self.bytes.get(at..)?, fmt).ok().map(|(_, oid)| oid)
    }
}

fn has_oid(header: &TupleHeader, fmt: WalFormat) -> bool {
    !fmt.since(12) && header.infomask.contains(Infomask::HEAP_HASOID)
}

/// The blocks of a relation's main fork, over all its files.
pub(super) struct Blocks {
    fmt: WalFormat,
    first: PathBuf,
    blocks_per_file: u32,
    checksums: bool,
    file: Option<(u32, File)>,
    next: BlockNumber,
    page: Vec<u8>,
}

/// C: `RELSEG_SIZE` of almost every server: 1 GB.
const DEFAULT_BLOCKS_PER_FILE: u32 = 131_072;

/// Times that a page is read whose header or checksum is wrong: a server may just be writing it.
const ATTEMPTS: u32 = 3;

impl Blocks {
    pub fn open(dir: &DataDir, rel: RelFileLocator) -> Result<Blocks, DataDirError> {
        let first = dir.relation_path(rel);
        let file = input_file::open(&first).map_err(|e| DataDirError::of(&first, Problem::Io(e)))?;
        Ok(Blocks {
            fmt: dir.format(),
            first,
            blocks_per_file: dir.control().map_or(DEFAULT_BLOCKS_PER_FILE, |control| control.blocks_per_file),
            checksums: dir.control().is_some_and(|control| control.data_checksums),
            file: Some((0, file)),
            next: BlockNumber(0),
            page: Vec::new(),
        })
    }

    /// Path of the file that has the current block.
    fn path(&self) -> PathBuf {
        match &self.file {
            Some((number @ 1.., _)) => file_path(&self.first, *number),
            _ => self.first.clone(),
        }
    }

    fn error(&self, block: BlockNumber, offnum: Option<u16>, problem: Problem) -> DataDirError {
        DataDirError { path: self.path(), block: Some(block), offnum, problem }
    }

    /// Reads the next block and gives its tuples to `visit`, which says what is wrong with one. `false`: there are no more blocks.
    pub fn next(&mut self, warn: &mut dyn FnMut(DataDirError), visit: &mut dyn FnMut(Tuple<'_>) -> Result<(), Problem>) -> bool {
        let block = self.next;
        let mut attempts = 0;
        let header = loop {
            match self.fill(block) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(problem) => {
                    warn(self.error(block, None, problem));
                    return false;
                }
            }
            attempts += 1;
            match check_page(&self.page, block, self.checksums, self.fmt) {
                Err(_) if attempts < ATTEMPTS => {}
                checked => break checked,
            }
        };
        let Some(next) = block.0.checked_add(1) else { return false };
        self.next = BlockNumber(next);
        match header {
            Ok(Some(header)) => {
                let of_page = |offnum, problem| warn(self.error(block, Some(offnum), problem));
                each_tuple(&self.page, header, self.fmt, visit, of_page);
            }
            Ok(None) => {} // never used
            Err(problem) => warn(self.error(block, None, problem)),
        }
        true
    }

    /// Reads `block` into `page`; `false`: the relation ends before it.
    fn fill(&mut self, block: BlockNumber) -> Result<bool, Problem> {
        let (number, within) = (block.0 / self.blocks_per_file, block.0 % self.blocks_per_file); // never zero
        if self.file.as_ref().is_none_or(|(open, _)| *open != number) {
            match input_file::open(&file_path(&self.first, number)) {
                Ok(file) => self.file = Some((number, file)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(Problem::Io(e)),
            }
        }
        let Some((_, file)) = &self.file else { return Ok(false) };
        let start = u64::from(within) * u64::from(self.fmt.block_size);
        read_at(file, start, self.fmt.block_size, &mut self.page).map_err(Problem::Io)?;
        match self.page.len() {
            0 => Ok(false),
            len if len < self.fmt.block_size as usize => Err(Problem::PartialBlock { len }),
            _ => Ok(true),
        }
    }
}

/// Name of a relation's file number `number`: the first has none. C: `_mdfd_segpath`.
fn file_path(first: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return first.to_owned();
    }
    let mut path = first.as_os_str().to_owned();
    path.push(format!(".{number}"));
    path.into()
}

/// The page's header, if it is one of a heap page; `None`: the page was never used. C: `PageIsVerified`.
fn check_page(page: &[u8], block: BlockNumber, checksums: bool, fmt: WalFormat) -> Result<Option<PageHeader>, Problem> {
    let (_, header) = PageHeader::read(page, fmt)?;
    if header.upper == 0 && page.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    if checksums {
        let expected = page_checksum(page, block);
        if expected != header.checksum {
            return Err(Problem::Checksum {
                field: "PageHeaderData.pd_checksum",
                expected: expected.into(),
                found: header.checksum.into(),
            });
        }
    }
    let bad = |field, expected, found: u16| Err(Problem::Value { field, expected, found: found.into() });
    // The lowest byte is the version of the layout, 4 since 8.3; the size has zeroes there.
    if u32::from(header.pagesize_version) != fmt.block_size | 4 {
        return bad("PageHeaderData.pd_pagesize_version", "the size of a block and layout version 4", header.pagesize_version);
    }
    if u32::from(header.special) > fmt.block_size {
        return bad("PageHeaderData.pd_special", "a place on the page", header.special);
    }
    if header.upper > header.special {
        return bad("PageHeaderData.pd_upper", "a place before pd_special", header.upper);
    }
    if header.lower > header.upper || usize::from(header.lower) < PageHeader::size(fmt) {
        return bad("PageHeaderData.pd_lower", "a place between the header and pd_upper", header.lower);
    }
    Ok(Some(header))
}

/// Calls `visit` with the tuples of a page, and `warn` with the line pointers that lead to none.
fn each_tuple(
    page: &[u8],
    header: PageHeader,
    fmt: WalFormat,
    visit: &mut dyn FnMut(Tuple<'_>) -> Result<(), Problem>,
    mut warn: impl FnMut(u16, Problem),
) {
    let pointers = page.get(PageHeader::size(fmt)..usize::from(header.lower)).unwrap_or_default(); // `check_page` has checked it
    for (offnum, pointer) in (1..).zip(pointers.chunks_exact(4)) {
        let Ok((_, pointer)) = u32::read(pointer, fmt) else { continue }; // four bytes are there
        let (start, flags, len) = (pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17);
        // LP_UNUSED, LP_REDIRECT and LP_DEAD have no tuple; the one that a redirection leads to has a line pointer of its own.
        if flags != 1 {
            continue;
        }
        let place = start as usize..(start + len) as usize; // both have 15 bits
        let on_page = start >= header.upper.into() && start + len <= header.special.into();
        let tuple = match page.get(place).filter(|_| on_page) {
            Some(bytes) => Tuple::read(bytes, fmt),
            None => {
                let (field, expected) = ("ItemIdData", "offset and length between pd_upper and pd_special");
                Err(Problem::Value { field, expected, found: pointer.into() })
            }
        };
        if let Err(problem) = tuple.and_then(&mut *visit) {
            warn(offnum, problem);
        }
    }
}

/// Starting values of the partial checksums. C: `checksumBaseOffsets`, storage/checksum_impl.h.
const CHECKSUM_START: [u32; 32] = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C, 0xF8D4474F, 0xE39EB970, 0x42C6AE16,
    0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB, 0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2,
    0x304A0979, 0x85AA43D4, 0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
];

/// A page's checksum: 32 interleaved FNV-1a hashes with an extra shift, folded, and the block number. C: `pg_checksum_page`.
fn page_checksum(page: &[u8], block: BlockNumber) -> u16 {
    const PRIME: u32 = 16_777_619;
    let mix = |sum: &mut u32, word: u32| {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ mixed >> 17;
    };
    let mut sums = CHECKSUM_START;
    for (row, words) in page.chunks_exact(4 * sums.len()).enumerate() {
        for (column, (sum, word)) in sums.iter_mut().zip(words.chunks_exact(4)).enumerate() {
            let word = word.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
            // The checksum's own two bytes count as zeroes: the lower half of the third word.
            mix(sum, if (row, column) == (0, 2) { word & 0xFFFF_0000 } else { word });
        }
    }
    for _ in 0..2 {
        sums.iter_mut().for_each(|sum| mix(sum, 0));
    }
    let folded = sums.iter().fold(0, |folded, sum| folded ^ sum) ^ block.0;
    (folded % 65535 + 1) as u16 // at most 65535
}
