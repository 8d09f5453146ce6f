//! Every payload of every fixture: it parses, it accounts for every byte, and it writes back to the same bytes.

use std::collections::BTreeMap;

use pgwal::rmgr::Body;
use pgwal::{Decoder, Record};
use pgwal_testkit::fixtures::{self, Fixture};

/// Calls `visit` with every record of `fixture`.
fn each_record(fixture: &Fixture, mut visit: impl FnMut(&Record<'_>)) {
    for segments in fixture.timelines() {
        let mut decoder = Decoder::new();
        for segment in segments {
            decoder.feed(&segment);
            while let Some(raw) = decoder.next_record().unwrap_or_else(|e| panic!("{}: {e}", fixture.dir.display())) {
                visit(&raw.decode().unwrap());
            }
        }
    }
}

/// `PGWAL_RMGRS=Heap,Btree` looks at these resource managers only.
fn wanted(record: &Record<'_>) -> bool {
    std::env::var("PGWAL_RMGRS").map_or(true, |names| names.split(',').any(|name| name == record.rmgr_name()))
}

fn key(record: &Record<'_>) -> String {
    format!("{} {} {}", record.fmt().major, record.rmgr_name(), record.opcode_name().unwrap_or("UNKNOWN"))
}

#[test]
fn every_payload_is_read_whole_and_written_back() {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut wrong = BTreeMap::<String, (usize, String)>::new();
    for fixture in fixtures::all() {
        each_record(&fixture, |record| {
            if !wanted(record) || record.rmid().is_custom() {
                return;
            }
            *seen.entry(key(record)).or_default() += 1;
            let mut fail = |why: String| wrong.entry(key(record)).or_insert((0, why)).0 += 1;
            let payload = match record.payload() {
                Ok(Some(payload)) => payload,
                Ok(None) => return fail(format!("{}: no payload", record.raw.lsn)),
                Err(e) => return fail(e.to_string()),
            };
            let mut body = Body::default();
            payload.write(record.fmt(), &mut body);
            if body.main != record.main {
                fail(format!("{}: main data {:02x?} written as {:02x?}", record.raw.lsn, record.main, body.main));
            }
            body.blocks.sort();
            let data = record.blocks.iter().filter(|block| block.has_data()).map(|block| (block.id, block.data.to_vec()));
            let written = body.blocks.into_iter().filter(|block| !block.1.is_empty());
            for (real, written) in data.clone().zip(written.clone()) {
                if real != written {
                    fail(format!("{}: block {} {:02x?} written as {} {:02x?}", record.raw.lsn, real.0, real.1, written.0, written.1));
                }
            }
            if data.count() != written.count() {
                fail(format!("{}: a block's data is missing or made up", record.raw.lsn));
            }
        });
    }
    assert!(!seen.is_empty());
    for (key, (count, why)) in &wrong {
        println!("{key}: {count} of {}: {why}", seen[key]);
    }
    assert!(wrong.is_empty(), "{} kinds of record", wrong.len());
}

/// Cut at any byte, main data or block data is refused, but for payloads that end in an open tail.
#[test]
fn every_proper_prefix_is_an_error_or_an_open_tail() {
    // Filled by the resource managers' own unit tests for their records; here no prefix may panic or read beyond its bytes.
    let mut tried = BTreeMap::<String, usize>::new();
    for fixture in fixtures::all() {
        each_record(&fixture, |record| {
            let count = tried.entry(key(record)).or_default();
            *count += 1;
            if *count > 3 || !wanted(record) {
                return;
            }
            for len in 0..record.main.len().min(4096) {
                let cut = Record { main: &record.main[..len], ..record.clone() };
                let _ = cut.payload();
            }
            for at in 0..record.blocks.len() {
                for len in 0..record.blocks[at].data.len().min(1024) {
                    let mut cut = record.clone();
                    cut.blocks[at].data = &record.blocks[at].data[..len];
                    let _ = cut.payload();
                }
            }
        });
    }
    assert!(!tried.is_empty());
}
