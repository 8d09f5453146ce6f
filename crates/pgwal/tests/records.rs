//! Records built by hand: every part that a header can speak of, and page images in every form.

use pgwal::record::{BlockFlags, Compression};
use pgwal::rmgr::{Payload, clog};
use pgwal::types::{ForkNumber, Oid, RelFileLocator, RepOriginId, SlruPage, Xid};
use pgwal::{Lsn, RawRecord, RmgrId, WalFormat};
use pgwal_testkit::read::every_way;
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, Wal, pglz, relation};

const FMT: WalFormat = WalFormat { wal_page_size: 1 << 10, segment_size: MIB, ..WalFormat::new(17) };

fn other() -> RelFileLocator {
    RelFileLocator { spc: Oid(1664), db: Oid(0), rel: Oid(1260) }
}

#[test]
fn every_part_of_a_record() {
    let image = ImageBuilder::new(&[3; 8192]);
    let record = RecordBuilder::new(RmgrId(10), 0x52)
        .xid(4_000_000_000)
        .block(BlockBuilder::new(0, relation(), 7).data(b"first").will_init())
        .block(BlockBuilder::new(1, relation(), 8).same_rel().fork(ForkNumber::FSM))
        .block(BlockBuilder::new(5, other(), u32::MAX).fork(ForkNumber::INIT).image(image.verify_only()).data(&[9; 65535]))
        .block(BlockBuilder::new(32, other(), 1).same_rel().fork(ForkNumber::VM).data(&[1]))
        .origin(0xFFFE)
        .toplevel_xid(77)
        .main(&[5; 255]);
    for record in [record.clone(), record.clone().long_main(), record.clone().main(&[6; 256]), record.main(&[])] {
        for major in 14..=19 {
            let fmt = WalFormat { major, ..FMT };
            let bytes = record.bytes(fmt, Lsn(8));
            let raw = RawRecord::from_bytes(&bytes, Lsn(1 << 20 | 40), fmt).unwrap();
            let decoded = raw.decode().unwrap();
            assert_eq!((decoded.header().xid, decoded.info().0, decoded.rmid()), (Xid(4_000_000_000), 0x52, RmgrId(10)));
            assert_eq!((decoded.origin, decoded.toplevel_xid), (Some(RepOriginId(0xFFFE)), Some(Xid(77))));
            let main: &[u8] = match decoded.main.len() {
                0 => &[],
                255 => &[5; 255],
                _ => &[6; 256],
            };
            assert_eq!(decoded.main, main);
            let blocks: Vec<_> = decoded.blocks.iter().map(|b| (b.id, b.rel, b.fork.0, b.block.0, b.data.len())).collect();
            let expected = [(0, relation(), 0, 7, 5), (1, relation(), 1, 8, 0), (5, other(), 3, u32::MAX, 65535), (32, other(), 2, 1, 1)];
            assert_eq!(blocks, expected);
            assert!(decoded.blocks[0].flags.contains(BlockFlags::BKPBLOCK_WILL_INIT));
            assert_eq!(decoded.block_data(0), Some(&b"first"[..]));
            assert_eq!((decoded.block_data(1), decoded.block_data(2)), (None, None));
            assert!(decoded.has_image(5) && !decoded.blocks[2].applies_image());
            assert_eq!(decoded.image_len(), 8192);
            // Everything after the header lies in the record's bytes in the order of the format.
            assert_eq!(raw.end, fmt.lsn_in_record(raw.lsn, bytes.len() as u64 - 1).align());
        }
    }
}

#[test]
fn as_many_blocks_as_there_can_be() {
    let record = (0..=32).fold(RecordBuilder::new(RmgrId(13), 0x20), |record, id| {
        let block = BlockBuilder::new(id, relation(), id.into()).data(&[id; 3]);
        record.block(if id > 0 { block.same_rel() } else { block })
    });
    let bytes = record.main(b"main").bytes(FMT, Lsn(8));
    let raw = RawRecord::from_bytes(&bytes, Lsn(1 << 20 | 40), FMT).unwrap();
    let decoded = raw.decode().unwrap();
    assert_eq!(decoded.blocks.len(), 33);
    for block in &decoded.blocks {
        assert_eq!((block.rel, block.block.0, block.data), (relation(), block.id.into(), &[block.id; 3][..]));
    }
    assert_eq!(decoded.main, b"main");
}

#[test]
fn typed_payloads_are_written_and_read() {
    let truncate = clog::Truncate { page: SlruPage(32), oldest_xact: Xid(1_048_600), oldest_xact_db: Oid(5) };
    let payload = Payload::Clog(clog::Op::Truncate(truncate));
    for major in 10..=19 {
        let fmt = WalFormat { major, ..FMT };
        let mut wal = Wal::new(fmt);
        let lsn = wal.payload(RmgrId(3), 0x10, &payload);
        // What a real record has in the blocks is taken over from it.
        let block = BlockBuilder::new(0, other(), 3).data(&[1, 0, 0, 8, 24, 0, 42]);
        let insert = RecordBuilder::new(RmgrId(10), 0x00).block(block).main(&[1, 0, 8]);
        let bytes = insert.bytes(fmt, lsn);
        let raw = RawRecord::from_bytes(&bytes, wal.position(), fmt).unwrap();
        let record = raw.decode().unwrap();
        let again = RecordBuilder::new(RmgrId(10), 0x00).payload(fmt, &record.payload().unwrap().unwrap());
        wal.record(&again);

        let reading = every_way(&wal);
        let [first, second] = &reading.records[..] else { panic!("{:?}", reading.stop) };
        let raw = RawRecord::from_bytes(&first.placed.bytes, first.placed.lsn, fmt).unwrap();
        assert_eq!(raw.decode().unwrap().payload().unwrap(), Some(payload.clone()));
        let raw = RawRecord::from_bytes(&second.placed.bytes, second.placed.lsn, fmt).unwrap();
        let made_up = raw.decode().unwrap();
        assert_eq!((made_up.blocks[0].rel, made_up.blocks[0].data, made_up.main), (relation(), record.blocks[0].data, record.main));
    }
}

/// A page like real ones: line pointers, a hole, tuples with runs of equal bytes.
fn page(hole: (u16, u16), size: usize) -> Vec<u8> {
    let hole = usize::from(hole.0)..usize::from(hole.0) + usize::from(hole.1);
    (0..size).map(|i| if hole.contains(&i) { 0 } else { (i / 37 * i / 11) as u8 | 1 }).collect()
}

#[test]
fn images_are_restored_to_the_page_that_they_were_taken_of() {
    for major in 10..=19 {
        for block_size in [1024u32, 8192, 32768] {
            let fmt = WalFormat { major, block_size, ..FMT };
            for hole in [(0, 0), (24, 1), (40, block_size as u16 / 2), (24, block_size as u16 - 25)] {
                let page = page(hole, block_size as usize);
                let plain = match hole {
                    (0, 0) => ImageBuilder::new(&page),
                    (offset, len) => ImageBuilder::new(&page).hole(offset, len),
                };
                let methods = [None, Some(Compression::Pglz), Some(Compression::Lz4), Some(Compression::Zstd)];
                for method in methods.into_iter().take(if fmt.since(15) { 4 } else { 2 }) {
                    let image = match method {
                        Some(method) => plain.clone().compress(method),
                        None => plain.clone(),
                    };
                    for apply in [true, false] {
                        let image = if apply { image.clone() } else { image.clone().verify_only() };
                        let mut wal = Wal::new(fmt);
                        wal.record(&RecordBuilder::new(RmgrId::XLOG, 0xB0).block(BlockBuilder::new(0, relation(), 0).image(image)));
                        let reading = every_way(&wal);
                        let raw = RawRecord::from_bytes(&reading.records[0].placed.bytes, wal.records()[0].lsn, fmt).unwrap();
                        let record = raw.decode().unwrap();
                        let image = record.blocks[0].image.unwrap();
                        let what = format!("{major}, {block_size}, hole {hole:?}, {method:?}");
                        assert_eq!((image.hole_offset, image.hole_length), hole, "{what}");
                        assert_eq!((image.info.compression(), image.apply()), (method, apply), "{what}");
                        let mut restored = Vec::new();
                        image.restore(fmt, &mut restored).unwrap_or_else(|e| panic!("{what}: {e}"));
                        assert!(restored == page, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn images_that_do_not_restore_are_refused() {
    let whole = page((24, 1000), 8192);
    let restore = |image: ImageBuilder| {
        let block = BlockBuilder::new(0, relation(), 0).image(image);
        let bytes = RecordBuilder::new(RmgrId::XLOG, 0xB0).block(block).bytes(FMT, Lsn(8));
        let raw = RawRecord::from_bytes(&bytes, Lsn(1 << 20 | 40), FMT).unwrap();
        let record = raw.decode().unwrap();
        record.blocks[0].image.unwrap().restore(FMT, &mut Vec::new()).map_err(|kind| kind.to_string())
    };
    for method in [Compression::Pglz, Compression::Lz4, Compression::Zstd] {
        let image = ImageBuilder::new(&whole).hole(24, 1000).compress(method);
        restore(image.clone()).unwrap();
        let short = ImageBuilder::new(&whole[..7191]).compress(method);
        let long = ImageBuilder::new(&[&whole[..], &[1]].concat()).compress(method);
        for (what, other) in [("one byte less", short), ("too much", long)] {
            let data = other.bytes().to_vec();
            let error = restore(image.clone().with_data(&data)).expect_err(what);
            assert!(error.contains(method.name()), "{error}");
        }
        restore(image.with_data(&[])).unwrap_err();
    }
}

#[test]
fn the_builders_pglz_has_tags_of_both_lengths() {
    let data = [&[7; 300][..], &[1, 2, 3, 4, 4, 4, 4, 4], &[0; 19]].concat();
    let packed = pglz(&data);
    assert!(packed.len() < 30, "{packed:?}");
}
