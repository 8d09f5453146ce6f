//! Memory: lengths and counts in hostile WAL allocate nothing until their bytes are there.

use std::sync::Mutex;

use peak_alloc::PeakAlloc;
use pgwal::record::{Compression, Needs};
use pgwal::{Decoder, Lsn, RawRecord, RmgrId, WalFormat};
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, Wal, relation};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The counter is one for the process: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

const KIB: usize = 1 << 10;

/// Bytes that `work` had allocated at most, over what was there before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    (result, ALLOCATOR.peak_usage().saturating_sub(before))
}

#[test]
fn the_counter_counts() {
    let _turn = TURN.lock().unwrap();
    let (bytes, used) = peak(|| vec![1u8; 1 << 20]);
    // The threads of tests that have had their turn give back what little they still hold.
    assert!(used + 64 * KIB >= bytes.len(), "{used} bytes for {}", bytes.len());
    assert!(peak(|| 1).1 < 64 * KIB);
}

#[test]
fn a_record_length_without_its_bytes() {
    let _turn = TURN.lock().unwrap();
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(17) });
    wal.leave(512);
    let lsn = wal.record(&RecordBuilder::filler(30_000));
    for len in [MIB, 1020 << 20, u32::MAX] {
        wal.patch_record(lsn, 0, &len.to_le_bytes());
        let mut page = lsn.0.next_multiple_of(8192);
        let mut left = len - 512;
        while page < wal.end().0 {
            wal.patch_page(Lsn(page), |header| header.remaining = left);
            left -= 8192 - 24;
            page += 8192;
        }
        let bytes = wal.bytes();
        let (_, used) = peak(|| {
            let mut decoder = Decoder::new();
            for chunk in bytes.chunks(1000) {
                decoder.feed(chunk);
                while let Ok(Some(_)) = decoder.next_record() {}
            }
            decoder.finish()
        });
        assert!(used < 3 * bytes.len(), "{used} bytes for {} bytes of WAL", bytes.len());
    }
}

/// However much WAL goes by, a decoder holds a record and a chunk.
#[test]
fn a_decoder_holds_one_record_and_one_chunk() {
    let _turn = TURN.lock().unwrap();
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(17) });
    while wal.bytes().len() < 32 << 20 {
        wal.record(&RecordBuilder::filler(300_000));
    }
    let bytes = wal.bytes();
    let (records, used) = peak(|| {
        let mut decoder = Decoder::new();
        let mut records = 0;
        for chunk in bytes.chunks(64 * KIB) {
            decoder.feed(chunk);
            while let Some(raw) = decoder.next_record().unwrap() {
                records += usize::from(raw.decode().is_ok());
            }
        }
        records
    });
    assert_eq!(records, wal.records().len());
    assert!(used < 1 << 20, "{used}");
}

/// Counts of everything in every payload, as high as they can be said.
#[test]
fn counts_without_their_values() {
    let _turn = TURN.lock().unwrap();
    for major in 10..=19 {
        let fmt = WalFormat::new(major);
        for rmid in 0..22 {
            for info in (0..=0xF0).step_by(0x10) {
                for fill in [0xFF, 0x7F, 0x3F, 0x01] {
                    for len in [4, 8, 12, 16, 24, 40, 64, 200] {
                        let main = vec![fill; len];
                        let block = |id| BlockBuilder::new(id, relation(), 0).data(&main);
                        let record = RecordBuilder::new(RmgrId(rmid), info).block(block(0)).block(block(1)).main(&main);
                        let bytes = record.bytes(fmt, Lsn(8));
                        let raw = RawRecord::from_bytes(&bytes, Lsn(1 << 24 | 40), fmt).unwrap();
                        let decoded = raw.decode().unwrap();
                        let (_, used) = peak(|| decoded.payload().is_ok());
                        assert!(used < 16 * KIB, "{used} bytes: {major} {rmid} {info:02X}, {len} bytes of {fill:02X}");
                    }
                }
            }
        }
    }
}

/// A compressed image makes a page, whatever its own header promises.
#[test]
fn images_that_promise_more_than_a_page() {
    let _turn = TURN.lock().unwrap();
    let fmt = WalFormat::new(17);
    let bomb = vec![0; 64 << 20];
    for (method, data) in [
        (Compression::Zstd, ImageBuilder::new(&bomb).compress(Compression::Zstd)),
        (Compression::Lz4, ImageBuilder::new(&bomb[..200_000]).compress(Compression::Lz4)),
        (Compression::Pglz, ImageBuilder::new(&bomb[..200_000]).compress(Compression::Pglz)),
    ] {
        let data = data.bytes()[..data.bytes().len().min(6000)].to_vec();
        let image = ImageBuilder::new(&[0; 8192]).compress(method).with_data(&data);
        let bytes = RecordBuilder::new(RmgrId::XLOG, 0xB0).block(BlockBuilder::new(0, relation(), 0).image(image)).bytes(fmt, Lsn(8));
        let raw = RawRecord::from_bytes(&bytes, Lsn(1 << 24 | 40), fmt).unwrap();
        let decoded = raw.decode().unwrap();
        let mut page = Vec::new();
        let (result, used) = peak(|| decoded.blocks[0].image.unwrap().restore(fmt, &mut page));
        assert!(result.is_err(), "{method:?}");
        assert!(used < 512 * KIB, "{method:?}: {used}");
    }
}

/// A compressed segment is as long as its header says, and what is no segment a page.
#[test]
fn files_that_unpack_to_more_than_a_segment() {
    let _turn = TURN.lock().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(17) });
    wal.record(&RecordBuilder::filler(100));
    for (front, is_segment) in [(wal.bytes(), true), (&[][..], false)] {
        let mut bytes = front.to_vec();
        bytes.resize(256 << 20, 0);
        std::fs::write(&path, zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
        let (segment, used) = peak(|| pgwal::Segment::open(&path));
        assert_eq!(segment.map(|segment| segment.bytes().len()).ok(), is_segment.then_some(MIB as usize));
        assert!(used < 4 << 20, "{used}");
    }
}

/// What is read of a record: where it starts, its length, the first bytes of its main data, whether its payload parses.
type Found = (Lsn, usize, Vec<u8>, bool);

/// Records, and the error that ends them; read in chunks.
fn read(bytes: &[u8], start: Lsn, fmt: WalFormat, needs: Needs) -> (Vec<Found>, Option<String>) {
    let mut decoder = Decoder::strict_at(start, fmt).with_needs(needs);
    let mut found = Vec::new();
    for mut chunk in bytes.chunks(MIB as usize - 1000) {
        loop {
            match decoder.next_in(&mut chunk) {
                Ok(Some(raw)) => {
                    let record = raw.decode().unwrap();
                    found.push((raw.lsn, record.main.len(), record.main.iter().take(31).copied().collect(), record.payload().is_ok()));
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }
    (found, None)
}

/// A message too long to hold is the same record for whoever needs all of it and whoever does not, wherever its headers are cut, and so is
/// its damage; while it comes it takes no memory.
#[test]
fn huge_messages() {
    let _turn = TURN.lock().unwrap();
    const HUGE: usize = 32 << 20;
    let fmt = WalFormat { segment_size: 64 * MIB, ..WalFormat::new(17) };
    let message: Vec<u8> = (0..HUGE as u32 / 4 + 20_000).flat_map(u32::to_le_bytes).collect();
    let head = [&5_u32.to_le_bytes()[..], &[0; 4], &7_u64.to_le_bytes(), &(message.len() as u64).to_le_bytes(), b"prefix\0"].concat();
    for left in [8, 24, 32, 48, 4000] {
        let mut wal = Wal::new(fmt);
        let start = wal.end();
        wal.record(&RecordBuilder::filler(100));
        wal.leave(left);
        let lsn = wal.record(&RecordBuilder::new(RmgrId(21), 0).main(&[&head[..], &message].concat()));
        wal.record(&RecordBuilder::filler(100));
        let start = Lsn(start.0 - start.0 % 8192);
        let mut bytes = wal.bytes().to_vec();
        let all = read(&bytes, start, fmt, Needs::Everything);
        assert!(all.1.is_none() && all.0.iter().any(|found| found.0 == lsn && found.1 > HUGE && found.3), "{left}: {all:?}");
        for needs in [Needs::NoImages, Needs::MainData, Needs::Headers] {
            let found = read(&bytes, start, fmt, needs);
            if needs == Needs::Headers {
                let headers =
                    |(found, error): &(Vec<Found>, _)| (found.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(), Option::clone(error));
                assert_eq!(headers(&found), headers(&all), "{left}");
            } else {
                assert_eq!(found, all, "{left} {needs:?}");
            }
            // Up to where it is nearly whole.
            let (_, used) = peak(|| read(&bytes[..HUGE - HUGE / 16], start, fmt, needs));
            assert!(used < HUGE / 8, "{left} {needs:?}: {used} bytes");
        }
        for at in [30, 100, HUGE as u64 / 2, (message.len() - 1) as u64] {
            let place = (fmt.lsn_in_record(lsn, at) - start) as usize;
            bytes[place] ^= 4;
            let expected = read(&bytes, start, fmt, Needs::Everything);
            assert!(expected.1.is_some(), "{left} {at}");
            for needs in [Needs::NoImages, Needs::MainData, Needs::Headers] {
                assert_eq!(read(&bytes, start, fmt, needs).1, expected.1, "{left} {at} {needs:?}");
            }
            bytes[place] ^= 4;
        }
    }
}
