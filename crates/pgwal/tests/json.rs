//! JSON of our own serializer, compared with serde_json's. The fuzz seeds are compared too, where they are read.

use std::ops::ControlFlow;

use pgwal::json::{Json, write_record};
use pgwal::scan::{Options, Work, scan};
use pgwal::source::Wal;
use pgwal::{Lsn, RawRecord, RmgrId, WalFormat};
use pgwal_testkit::wal::{BlockBuilder, RecordBuilder, relation};
use pgwal_testkit::{fixtures, json};

struct Compared;

impl Work for Compared {
    type Part = (u64, Json, Vec<u8>);

    fn part(&self) -> Self::Part {
        (0, Json::new(), Vec::new())
    }

    fn record(&self, raw: &RawRecord<'_>, (count, ours, expected): &mut Self::Part) -> pgwal::Result<()> {
        let record = raw.decode()?;
        *count += 1;
        assert!(write_record(&record, ours).is_ok(), "{record:?}");
        expected.extend_from_slice(&json::line(&record));
        Ok(())
    }
}

#[test]
fn every_record_of_the_fixtures() {
    let mut all = 0;
    for fixture in fixtures::with_odd() {
        let dir = fixture.unpacked();
        let Ok(wal) = Wal::open(&[dir.path()], None) else { continue };
        let options = Options { start: None, end: None, threads: 2 };
        scan(&wal, options, &Compared, |(count, ours, expected)| {
            let lines = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let (ours, expected) = (lines(ours.as_bytes()), lines(&expected));
            for (ours, expected) in ours.lines().zip(expected.lines()) {
                assert_eq!(ours, expected, "v{}/{}", fixture.major, fixture.scenario);
            }
            assert_eq!(ours.len(), expected.len());
            all += count;
            ControlFlow::Continue(())
        });
    }
    println!("{all} records");
    assert!(all > 100_000, "{all}");
}

/// Lines that do not fit the room, or do so just about.
#[test]
fn lines_of_any_length() {
    let fmt = WalFormat::new(17);
    let (mut ours, mut expected) = (Json::new(), Vec::new());
    let lengths = (0..20_000).step_by(7).chain([0, 1 << 20, 3, 300_000]);
    for (at, len) in lengths.enumerate() {
        let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
        let insert = RecordBuilder::new(RmgrId(10), 0).main(&[1, 0, 0]);
        let record = match at % 3 {
            // A tuple; main data of a resource manager that nobody knows; text, to be escaped and not.
            0 => insert.block(BlockBuilder::new(0, relation(), 7).data(&[&[3, 0, 0, 8, 24], &data[..len.min(65_000)]].concat())),
            1 => RecordBuilder::new(RmgrId(200), 0).main(&data),
            _ => {
                let text = if at % 2 == 0 { data } else { vec![b'a'; len] };
                let sizes = [(len as u64 + 1).to_le_bytes(), 0u64.to_le_bytes()].concat();
                let head = [&5u32.to_le_bytes()[..], &[1, 0, 0, 0], &sizes].concat();
                RecordBuilder::new(RmgrId(21), 0).main(&[head, text, vec![0]].concat())
            }
        };
        let bytes = record.bytes(fmt, Lsn(8));
        let raw = RawRecord::from_bytes(&bytes, Lsn(1 << 24 | 40), fmt).unwrap();
        let record = raw.decode().unwrap();
        assert!(write_record(&record, &mut ours).is_ok(), "{:?}", record.payload());
        expected.extend_from_slice(&json::line(&record));
        assert!(ours.as_bytes().ends_with(&json::line(&record)), "{len}");
    }
    assert!(ours.as_bytes() == expected);
    assert!(ours.take() == expected);
    assert!(ours.as_bytes().is_empty());
}
