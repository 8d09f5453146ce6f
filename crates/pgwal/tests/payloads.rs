//! Every payload of every fixture: it parses, it accounts for every byte, and it writes back to the same bytes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use pgwal::rmgr::{Body, Payload};
use pgwal::{RawRecord, Record};
use pgwal_testkit::fixtures;
use pgwal_testkit::wal::RecordBuilder;

/// `PGWAL_RMGRS=Heap,Btree` looks at these resource managers only.
fn wanted(record: &Record<'_>) -> bool {
    std::env::var("PGWAL_RMGRS").map_or(true, |names| names.split(',').any(|name| name == record.rmgr_name()))
}

/// Calls `visit` with every record of every fixture that is of a built-in resource manager.
fn each_record(mut visit: impl FnMut(&Record<'_>)) {
    let mut seen = 0;
    for fixture in fixtures::with_odd() {
        fixture.each_record(|record| {
            if wanted(record) && !record.rmid().is_custom() {
                seen += 1;
                visit(record);
            }
        });
    }
    assert!(seen > 0);
}

fn key(record: &Record<'_>) -> String {
    format!("{} {} {}", record.fmt().major, record.rmgr_name(), record.opcode_name().unwrap_or("UNKNOWN"))
}

/// What is wrong, by kind of record: how often, and the first case.
#[derive(Default)]
struct Wrong(BTreeMap<String, (usize, String)>);

impl Wrong {
    fn add(&mut self, kind: String, why: String) {
        self.0.entry(kind).or_insert((0, why)).0 += 1;
    }

    fn finish(self) {
        for (kind, (count, why)) in &self.0 {
            println!("{kind}: {count} times, first: {why}");
        }
        assert!(self.0.is_empty(), "{} kinds of record", self.0.len());
    }
}

fn body(payload: &Payload<'_>, record: &Record<'_>) -> Body {
    let mut body = Body::default();
    payload.write(record.fmt(), &mut body);
    body.blocks.retain(|block| !block.1.is_empty());
    body.blocks.sort();
    body
}

/// Reads the record that `builder` builds, in the place of `record`.
fn read<T>(builder: &RecordBuilder, record: &Record<'_>, with: impl FnOnce(&Record<'_>) -> T) -> T {
    let bytes = builder.bytes(record.fmt(), record.header().prev);
    let raw = RawRecord::from_bytes(&bytes, record.raw.lsn, record.fmt()).expect("the builder's framing is right");
    with(&raw.decode().expect("the builder's framing is right"))
}

#[test]
fn every_payload_is_read_whole_and_written_back() {
    let mut wrong = Wrong::default();
    each_record(|record| {
        let mut fail = |why: String| wrong.add(key(record), format!("{}: {why}", record.raw.lsn));
        let payload = match record.payload() {
            Ok(Some(payload)) => payload,
            Ok(None) => return fail("no payload".to_owned()),
            Err(e) => return fail(e.to_string()),
        };
        let body = body(&payload, record);
        if body.main != record.main {
            fail(format!("main data {:02x?} written as {:02x?}", record.main, body.main));
        }
        let data = record.blocks.iter().filter(|block| block.has_data()).map(|block| (block.id, block.data));
        let data: Vec<(u8, Vec<u8>)> = data.map(|(id, data)| (id, data.to_vec())).collect();
        if data != body.blocks {
            fail(format!("block data {data:02x?} written as {:02x?}", body.blocks));
        }
    });
    wrong.finish();
}

/// A record made of the written payload has the same payload.
#[test]
fn what_is_written_reads_as_the_same_value() {
    let mut wrong = Wrong::default();
    each_record(|record| {
        let Ok(Some(payload)) = record.payload() else { return wrong.add(key(record), "no payload".to_owned()) };
        let body = body(&payload, record);
        // Nothing of the old data stays: what the payload does not write is missing.
        let mut builder = RecordBuilder::like(record).main(&body.main);
        for block in &record.blocks {
            let data = body.blocks.iter().find(|(id, _)| *id == block.id);
            builder = builder.block_data(block.id, data.map_or(&[], |(_, data)| data));
        }
        read(&builder, record, |again| match again.payload() {
            Ok(Some(again)) if again == payload => {}
            other => wrong.add(key(record), format!("{}: {payload:?} reads as {other:?}", record.raw.lsn)),
        });
    });
    wrong.finish();
}

/// Every payload is a JSON object with its record type, without duplicate names, and with nothing that JSON's readers would round.
#[test]
fn every_payload_is_a_json_object() {
    let mut wrong = Wrong::default();
    each_record(|record| {
        let mut fail = |why: String| wrong.add(key(record), format!("{}: {why}", record.raw.lsn));
        let payload = record.payload().unwrap().unwrap();
        let text = match serde_json::to_string(&payload) {
            Ok(text) => text,
            Err(e) => return fail(e.to_string()),
        };
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        // A second field of the same name would be lost on the way.
        if value.to_string().len() != text.len() {
            fail(format!("a name is there twice: {text}"));
        }
        let name = record.opcode_name().unwrap_or_default();
        let op = name.trim_end_matches("+INIT").to_lowercase();
        // Before 15 there was one way to create a database: the one that got a longer name then.
        let op = if record.rmgr_name() == "Database" && op == "create" { "create_file_copy".to_owned() } else { op };
        if value.get("op").and_then(|op| op.as_str()) != Some(&op) {
            fail(format!("\"op\" is not {op}: {text}"));
        }
        if let Err(why) = json_shape("", &value) {
            fail(format!("{why}: {text}"));
        }
    });
    wrong.finish();
}

fn json_shape(name: &str, value: &serde_json::Value) -> Result<(), String> {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            if fields.is_empty() {
                return Err(format!("{name} is empty"));
            }
            fields.iter().try_for_each(|(name, value)| {
                if name.chars().any(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_') {
                    return Err(format!("{name} is no name"));
                }
                json_shape(name, value)
            })
        }
        Value::Array(values) => values.iter().try_for_each(|value| json_shape(name, value)),
        Value::Number(_) if name.ends_with("lsn") => Err(format!("{name} is no string")),
        _ => Ok(()),
    }
}

/// Where data may end early (or go on) and still be a payload: it runs to the end of the main data, or of a block's data.
struct OpenTail {
    rmgr: &'static str,
    /// Record types, separated by blanks; `+INIT` is left off.
    opcodes: &'static str,
    majors: RangeInclusive<u8>,
    part: Part,
    /// Lengths below this one are refused.
    from: usize,
    why: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Main,
    Block(u8),
    AnyBlock,
}

/// A row; majors are all unless given.
const fn open(rmgr: &'static str, opcodes: &'static str, part: Part, from: usize, why: &'static str) -> OpenTail {
    OpenTail { rmgr, opcodes, majors: 10..=19, part, from, why }
}

const OPEN_TAILS: &[OpenTail] = &[
    open("Heap", "INSERT", Part::Block(0), 5, "a tuple's attributes follow xl_heap_header; their length is stored nowhere"),
    open("Heap", "UPDATE HOT_UPDATE", Part::Block(0), 5, "the new tuple's attributes follow xl_heap_header"),
    open("Heap", "DELETE", Part::Main, 8 + 5, "the old tuple's attributes follow xl_heap_header"),
    open("Heap", "UPDATE HOT_UPDATE", Part::Main, 14 + 5, "the old tuple's attributes follow xl_heap_header"),
    open("Heap", "INPLACE", Part::Block(0), 0, "nothing but the tuple's attributes"),
    open("BRIN", "INSERT UPDATE SAMEPAGE_UPDATE", Part::Block(0), 5, "the values follow the tuple's header and bitmap"),
    open("Btree", "SPLIT_L SPLIT_R", Part::Block(1), 8, "the right page's tuples, of which the record has no count"),
    OpenTail { majors: 10..=10, ..open("Btree", "SPLIT_L_ROOT SPLIT_R_ROOT", Part::Block(1), 8, "the right page's tuples") },
    OpenTail { majors: 11..=11, ..open("Btree", "SPLIT_L_HIGHKEY SPLIT_R_HIGHKEY", Part::Block(1), 8, "the right page's tuples") },
    OpenTail { majors: 10..=12, ..open("Btree", "VACUUM", Part::Block(0), 0, "line pointers, of which the record has no count") },
    OpenTail { majors: 10..=13, ..open("Heap2", "CLEAN", Part::Block(0), 0, "the number of unused line pointers is not stored") },
    OpenTail { majors: 14..=16, ..open("Heap2", "PRUNE", Part::Block(0), 0, "the number of unused line pointers is not stored") },
    open("Hash", "DELETE", Part::Block(1), 0, "line pointers, of which the record has no count"),
    open("Generic", "Generic", Part::AnyBlock, 0, "any number of fragments"),
    OpenTail { majors: 10..=11, ..open("Gist", "PAGE_UPDATE", Part::Main, 4, "the conflict's relation is in dead tuples' deletion alone") },
    OpenTail { majors: 10..=11, ..open("Gin", "DELETE_PAGE", Part::Main, 8, "minor releases before 10.7 and 11.2 have no deleteXid") },
];

/// The row for `part` of `record`.
fn open_tail(record: &Record<'_>, part: Part) -> Option<usize> {
    let opcode = record.opcode_name()?.trim_end_matches("+INIT");
    OPEN_TAILS.iter().position(|tail| {
        let same_part = tail.part == part || (tail.part == Part::AnyBlock && part != Part::Main);
        let same_type = tail.rmgr == record.rmgr_name() && tail.opcodes.split(' ').any(|name| name == opcode);
        same_part && same_type && tail.majors.contains(&record.fmt().major)
    })
}

/// What tells records apart: major, resource manager, info byte, length of the main data, and each block's id, data length and image.
type Shape = (u8, u8, u8, usize, Vec<(u8, usize, bool)>);

/// What tells records of one type apart that are worth a look: block references with data, with an image, with both, and optional
/// parts, which show in lengths.
fn shape(record: &Record<'_>) -> Shape {
    let class = |len: usize| if len < 32 { len } else { 32 + len.min(512) / 16 };
    let blocks = record.blocks.iter().map(|block| (block.id, class(block.data.len()), block.image.is_some())).collect();
    (record.fmt().major, record.rmid().0, record.info().0, class(record.main.len()), blocks)
}

/// Cut at any byte, or with a byte more, main data or block data is refused, but for open tails; and what is accepted there
/// is a payload of exactly these bytes.
#[test]
fn every_proper_prefix_is_an_error_but_for_open_tails() {
    let mut wrong = Wrong::default();
    let mut tried = BTreeMap::new();
    let mut used = vec![0usize; OPEN_TAILS.len()];
    each_record(|record| {
        let count: &mut usize = tried.entry(shape(record)).or_default();
        *count += 1;
        if *count > 2 {
            return;
        }
        let builder = RecordBuilder::like(record);
        read(&builder, record, |same| assert_eq!((same.main, same.blocks.len()), (record.main, record.blocks.len())));
        let parts = record.blocks.iter().map(|block| (Part::Block(block.id), block.data));
        for (part, data) in parts.chain([(Part::Main, record.main)]) {
            // The image stands for the page, so the server may leave the data out.
            let has_image = matches!(part, Part::Block(id) if record.has_image(id));
            let longer = [data, &[0]].concat();
            // Every prefix of usual records; of long ones the first, the last, and some between.
            let step = (data.len() / 100).max(61);
            let lens =
                (0..data.len()).filter(|&len| len < 200 || len + 40 > data.len() || len % step == 0).filter(|&len| len > 0 || !has_image);
            for bytes in lens.map(|len| &data[..len]).chain([&longer[..]]) {
                let cut = match part {
                    Part::Main => builder.clone().main(bytes),
                    Part::Block(id) => builder.clone().block_data(id, bytes),
                    Part::AnyBlock => unreachable!("no part of a record"),
                };
                read(&cut, record, |cut| {
                    let Ok(payload) = cut.payload() else { return };
                    let what = || format!("{} {part:?}", key(record));
                    let Some(payload) = payload else { return wrong.add(what(), "no payload".to_owned()) };
                    let len = bytes.len();
                    match open_tail(record, part) {
                        Some(tail) if OPEN_TAILS[tail].from <= len => used[tail] += 1,
                        _ => wrong.add(what(), format!("{}: {len} bytes of {} read as {payload:?}", record.raw.lsn, data.len())),
                    }
                    let body = body(&payload, cut);
                    let written = match part {
                        Part::Main => &body.main[..],
                        Part::Block(id) => body.blocks.iter().find(|block| block.0 == id).map_or(&[][..], |block| &block.1),
                        Part::AnyBlock => unreachable!("no part of a record"),
                    };
                    if written != bytes {
                        wrong.add(what(), format!("{}: {bytes:02x?} written as {written:02x?}", record.raw.lsn));
                    }
                });
            }
        }
    });
    wrong.finish();
    for (tail, used) in OPEN_TAILS.iter().zip(used) {
        let OpenTail { rmgr, opcodes, part, why, .. } = tail;
        println!("{rmgr} {opcodes} {part:?}: {used} prefixes: {why}");
        assert!(used > 0 || std::env::var_os("PGWAL_RMGRS").is_some(), "{rmgr} {opcodes} {part:?} is not open");
    }
}
