//! What readers need of records: who counts millions of them has no use for most of their bytes.

use std::ops::Range;

use super::{
    BlockRef, ID_DATA_LONG, ID_DATA_SHORT, ID_ORIGIN, ID_TOPLEVEL_XID, MAX_BLOCK_ID, RECORD_HEADER_SIZE, RecordHeader, Refusal, read,
};
use crate::format::WalFormat;
use crate::rmgr::RmgrId;
use crate::rmgr::logicalmsg::MessageHead;
use crate::types::{RepOriginId, Xid};
use crate::wire::Wire;

/// What a reader needs of the bytes of a record, besides its headers and its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// All of them.
    #[default]
    Everything,
    /// No page images, unless they are compressed, and of huge messages for logical decoding only what is before the message itself.
    NoImages,
    /// Main data, as for [`Needs::NoImages`]: neither page images nor data of blocks.
    MainData,
    /// Headers, of the record and of what is in it: no data at all.
    Headers,
}

/// The bytes of a record of `len` bytes that are not needed, as far as they follow each other, by its first bytes; empty where these do
/// not have all headers, or the headers are not in order.
pub(crate) fn unneeded(front: &[u8], len: usize, needs: Needs, fmt: WalFormat) -> Range<usize> {
    match needs {
        Needs::Everything => 0..0,
        Needs::NoImages | Needs::MainData | Needs::Headers => try_unneeded(front, len, needs, fmt).unwrap_or(0..0),
    }
}

/// The work of [`unneeded`]. C: `DecodeXLogRecord`.
fn try_unneeded(front: &[u8], len: usize, needs: Needs, fmt: WalFormat) -> Result<Range<usize>, Refusal> {
    let mut input = front.get(RECORD_HEADER_SIZE..).unwrap_or_default();
    let (mut total, mut main, mut previous) = (0_usize, 0, None);
    // Images that nothing stands between, at the front of the data.
    let (mut images, mut only_images) = (0, true);
    while len.saturating_sub(front.len() - input.len()) > total {
        let at = input;
        let id = read::<u8>(at, fmt, "id")?;
        input = id.0;
        match id.1 {
            ID_DATA_SHORT => {
                let (rest, len) = read::<u8>(input, fmt, "XLogRecordDataHeaderShort.data_length")?;
                (input, main) = (rest, usize::from(len));
                break;
            }
            ID_DATA_LONG => {
                let (rest, len) = read::<u32>(input, fmt, "XLogRecordDataHeaderLong.data_length")?;
                (input, main) = (rest, len as usize);
                break;
            }
            id @ 0..=MAX_BLOCK_ID => {
                let (rest, block) = BlockRef::read(id, previous, at, fmt)?;
                (input, previous) = (rest, Some((block.id, block.rel)));
                if block.image.is_some() && fmt.block_size == 0 {
                    return Ok(0..0); // it is found out from the images
                }
                let image = block.image.map_or(0, |image| usize::from(image.len));
                only_images &= block.image.is_none_or(|image| !image.info.is_compressed());
                if only_images {
                    images += image;
                }
                only_images &= block.data_len == 0;
                total += image + usize::from(block.data_len); // at most 33 blocks
            }
            ID_ORIGIN => input = read::<RepOriginId>(input, fmt, "replorigin_session_origin")?.0,
            ID_TOPLEVEL_XID if fmt.since(14) => input = read::<Xid>(input, fmt, "toplevel_xid")?.0,
            _ => return Ok(0..0),
        }
    }
    let start = front.len() - input.len();
    let is_whole = start.checked_add(total).and_then(|end| end.checked_add(main)) == Some(len);
    let data = start + total; // the record has as many bytes, or this is not used
    Ok(match needs {
        _ if !is_whole => 0..0,
        Needs::Headers => start..len,
        _ if total == 0 => message(front, data, len, fmt).unwrap_or(0..0),
        Needs::NoImages => start..start + images,
        Needs::MainData | Needs::Everything => start..data,
    })
}

/// The message in a message for logical decoding whose main data are the bytes from `main` to `len`; `None`: this is no such record, or it is
/// not worth while.
fn message(front: &[u8], main: usize, len: usize, fmt: WalFormat) -> Option<Range<usize>> {
    /// A prefix of more bytes is unusual.
    const LONG: u64 = 64 << 10;
    const WORTH: usize = 32 << 20;
    let (_, header) = RecordHeader::read(front, fmt).ok()?;
    if header.rmid != RmgrId::LOGICALMSG || len.saturating_sub(main) < WORTH {
        return None;
    }
    let (rest, head) = MessageHead::read(front.get(main..)?, fmt).ok()?;
    let prefix = usize::try_from(head.prefix_size).ok().filter(|_| head.prefix_size < LONG)?;
    let message = front.len() - rest.len() + prefix; // less than 64 kB more
    (message < len).then_some(message..len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Segment, records};
    use pgwal_testkit::fixtures;

    /// What is not needed are images and data of blocks, and what decodes without them is the same besides.
    #[test]
    fn what_is_not_needed_is_no_part_of_the_rest() {
        let mut spared = [0_usize; 2];
        for fixture in fixtures::with_odd() {
            let segments: Vec<Segment> = fixture.segments().iter().map(|path| Segment::open(path).unwrap()).collect();
            for raw in records(&segments) {
                let Ok(raw) = raw else { break };
                let record = raw.decode().unwrap();
                for (number, needs) in [Needs::NoImages, Needs::MainData].into_iter().enumerate() {
                    // The front is cut anywhere.
                    for front in [raw.bytes.len(), 600, 60, 48, 26].into_iter().filter_map(|len| raw.bytes.get(..len)) {
                        let range = unneeded(front, raw.bytes.len(), needs, raw.fmt);
                        assert!(range.is_empty() || range.start <= front.len());
                        let mut without = raw.clone();
                        without.bytes.to_mut()[range.clone()].fill(0);
                        let without = without.decode().unwrap();
                        assert_eq!((without.main, without.origin, without.toplevel_xid), (record.main, record.origin, record.toplevel_xid));
                        let mut changed = 0;
                        for (found, block) in without.blocks.iter().zip(&record.blocks) {
                            assert_eq!((found.id, found.rel, found.fork, found.block), (block.id, block.rel, block.fork, block.block));
                            assert_eq!((found.flags, found.data.len()), (block.flags, block.data.len()));
                            if needs == Needs::NoImages {
                                assert_eq!(found.data, block.data);
                            }
                            match (found.image, block.image) {
                                (Some(found), Some(image)) => {
                                    assert_eq!((found.len, found.info, found.hole_length), (image.len, image.info, image.hole_length));
                                    assert!(needs == Needs::MainData || !image.info.is_compressed() || found.data == image.data);
                                    changed += image.data.len();
                                }
                                (found, image) => assert_eq!(found, image),
                            }
                            changed += if needs == Needs::MainData { block.data.len() } else { 0 };
                        }
                        assert!(range.len() <= changed);
                        spared[number] += range.len();
                    }
                }
            }
        }
        assert!(spared.iter().all(|&bytes| bytes > 1_000_000) && spared[1] > spared[0], "{spared:?}");
    }

    #[test]
    fn headers_that_are_not_in_order_spare_nothing() {
        let fmt = WalFormat::new(15);
        let mut record = vec![0; 100];
        record[..4].copy_from_slice(&100_u32.to_le_bytes());
        for front in [&[][..], &[0xFF], &[0xFE, 1], &[0xFF, 75], &[40, 0, 0, 0], &[0, 0x10, 0, 0], &[0xFE, 255, 255, 255, 255]] {
            let mut record = record.clone();
            record[RECORD_HEADER_SIZE..][..front.len()].copy_from_slice(front);
            for needs in [Needs::Everything, Needs::NoImages, Needs::MainData, Needs::Headers] {
                for len in RECORD_HEADER_SIZE..100 {
                    assert!(unneeded(&record[..len], 100, needs, fmt).is_empty(), "{front:?} {needs:?} {len}");
                }
            }
        }
    }
}
