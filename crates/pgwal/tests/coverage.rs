//! Which record types of which major the fixtures hold, and that every row of the opcode tables is tested by something.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use pgwal::record::Info;
use pgwal::rmgr::{Body, Describe, RMGRS, RmgrId, identify};
use pgwal::text::{Text, Zone};
use pgwal::{Lsn, RawRecord, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::wal::{BlockBuilder, RecordBuilder, relation};

const MAJORS: RangeInclusive<u8> = 10..=19;

/// A row that no server's own WAL reaches, and the record that stands in for it.
struct Unreached {
    rmgr: u8,
    info: u8,
    name: &'static str,
    majors: RangeInclusive<u8>,
    /// Why no fixture can have it.
    why: &'static str,
    main: &'static [u8],
    /// Data of block 0, where the record has a block.
    block: Option<&'static [u8]>,
    /// Its description, by the first major that words it so.
    text: &'static [(u8, &'static str)],
}

const UNREACHED: &[Unreached] = &[
    Unreached {
        rmgr: 0,
        info: 0x20,
        name: "NOOP",
        majors: 10..=19,
        why: "no server writes it",
        main: b"of no meaning",
        block: None,
        text: &[(10, "")],
    },
    Unreached {
        rmgr: 0,
        info: 0xC0,
        name: "FPI_MULTI",
        majors: 10..=11,
        why: "only log_newpage_range writes it, which nothing in these servers calls",
        main: &[],
        block: Some(&[]),
        text: &[(10, "")],
    },
    Unreached {
        rmgr: 10,
        info: 0xC0,
        name: "HOT_UPDATE+INIT",
        majors: 10..=19,
        why: "a HOT update stays on the page of the old row, so the new one is never the first there",
        // old_xmax 700, old_offnum 3, XLHL_KEYS_UPDATED, no flags, new_xmax 0, new_offnum 1
        main: &[0xBC, 2, 0, 0, 3, 0, 0x10, 0, 0, 0, 0, 0, 1, 0],
        // one attribute, HEAP_UPDATED | HEAP_XMAX_INVALID, hoff 24; padding and a value
        block: Some(&[0x01, 0x80, 0x00, 0x28, 24, 0, 42, 0, 0, 0]),
        text: &[
            (10, "off 3 xmax 700 KEYS_UPDATED ; new off 1 xmax 0"),
            (12, "off 3 xmax 700 flags 0x00 KEYS_UPDATED ; new off 1 xmax 0"),
            (16, "old_xmax: 700, old_off: 3, old_infobits: [KEYS_UPDATED], flags: 0x00, new_xmax: 0, new_off: 1"),
        ],
    },
    Unreached {
        rmgr: 18,
        info: 0x20,
        name: "SETTS",
        majors: 10..=13,
        why: "written only where a caller of TransactionTreeSetCommitTsData asks for it, and none does",
        // 1.000001 seconds, node 3, padding, main xid 700, subxids 701 and 702
        main: &[0x41, 0x42, 0x0F, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0xBC, 2, 0, 0, 0xBD, 2, 0, 0, 0xBE, 2, 0, 0],
        block: None,
        text: &[(10, "set 2000-01-01 00:00:01.000001 UTC/3 for: 700, 701, 702")],
    },
];

/// Record type: major, resource manager, name.
type Row = (u8, u8, &'static str);

fn rows() -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    for major in MAJORS {
        for rmgr in RMGRS {
            rows.extend(rmgr.opcodes.iter().filter(|row| row.majors.contains(major)).map(|row| (major, rmgr.id.0, row.name)));
        }
    }
    rows
}

#[test]
fn every_row_is_in_a_fixture_or_has_a_stated_reason() {
    let mut counts: BTreeMap<Row, usize> = rows().into_iter().map(|row| (row, 0)).collect();
    let mut unknown = BTreeSet::new();
    for fixture in fixtures::all() {
        fixture.each_record(|record| {
            assert_eq!(record.fmt().major, fixture.major, "{}", fixture.dir.display());
            if record.rmid().is_custom() {
                return;
            }
            let row = record.opcode_name().and_then(|name| counts.get_mut(&(fixture.major, record.rmid().0, name)));
            match row {
                Some(count) => *count += 1,
                None => drop(unknown.insert((fixture.major, record.rmid().0, record.info().0))),
            }
        });
    }
    print_matrix(&counts);
    assert!(unknown.is_empty(), "records of no row: {unknown:x?}");

    let listed: BTreeSet<Row> = UNREACHED
        .iter()
        .flat_map(|row| {
            println!("{} {}: {}", RmgrId(row.rmgr).name(), row.name, row.why);
            row.majors.clone().map(|major| (major, row.rmgr, row.name))
        })
        .collect();
    let missing: BTreeSet<Row> = counts.iter().filter(|(_, count)| **count == 0).map(|(row, _)| *row).collect();
    assert_eq!(missing.difference(&listed).collect::<Vec<_>>(), Vec::<&Row>::new(), "rows that no fixture reaches");
    assert_eq!(listed.difference(&missing).collect::<Vec<_>>(), Vec::<&Row>::new(), "rows listed as unreached that a fixture reaches");
}

/// One line a record type, one column a major.
fn print_matrix(counts: &BTreeMap<Row, usize>) {
    print!("{:42}", "");
    MAJORS.for_each(|major| print!("{major:>7}"));
    println!();
    let names: BTreeSet<(u8, &str)> = counts.keys().map(|&(_, rmgr, name)| (rmgr, name)).collect();
    for (rmgr, name) in names {
        print!("{:42}", format!("{} {name}", RmgrId(rmgr).name()));
        for major in MAJORS {
            match counts.get(&(major, rmgr, name)) {
                Some(count) => print!("{count:>7}"),
                None => print!("{:>7}", "-"),
            }
        }
        println!();
    }
}

/// What no fixture has is built: it is read, described, and written back.
#[test]
fn every_unreached_row_has_a_record_that_was_built() {
    for row in UNREACHED {
        for major in row.majors.clone() {
            let fmt = WalFormat::new(major);
            let mut builder = RecordBuilder::new(RmgrId(row.rmgr), row.info).main(row.main);
            if let Some(data) = row.block {
                builder = builder.block(BlockBuilder::new(0, relation(), 7).data(data));
            }
            let bytes = builder.bytes(fmt, Lsn(0));
            let raw = RawRecord::from_bytes(&bytes, Lsn(0x100_0028), fmt).unwrap();
            let record = raw.decode().unwrap();
            assert_eq!(record.opcode_name(), Some(row.name), "{major}");
            let payload = record.payload().unwrap().unwrap();

            let mut text = Text::new(fmt, Zone::utc());
            payload.describe(&record, fmt, &mut text);
            let expected = row.text.iter().rfind(|(first, _)| *first <= major).unwrap().1;
            assert_eq!(text.to_string_lossy(), expected, "{major} {}", row.name);

            let mut body = Body::default();
            payload.write(fmt, &mut body);
            assert_eq!(body.main, row.main, "{major} {}", row.name);
            let data = row.block.filter(|data| !data.is_empty());
            assert_eq!(body.blocks, Vec::from_iter(data.map(|data| (0, data.to_vec()))), "{major} {}", row.name);
            let rebuilt = RecordBuilder::like(&record).payload(fmt, &payload).bytes(fmt, Lsn(0));
            let raw = RawRecord::from_bytes(&rebuilt, Lsn(0x100_0028), fmt).unwrap();
            assert_eq!(raw.decode().unwrap().payload().unwrap().as_ref(), Some(&payload), "{major} {}", row.name);
        }
    }
}

/// The names that the servers' own `rm_identify` functions give, kept with the fixtures: `10 Heap 0x00 INSERT`.
fn server_names(major: u8) -> BTreeMap<(u8, u8), String> {
    let path = fixtures::root().join(Path::new("oracle/opcodes")).join(format!("v{major}.txt"));
    let listing = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names: BTreeMap<(u8, u8), String> = listing
        .lines()
        .map(|line| {
            let [id, _, info, name] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            let info = u8::from_str_radix(info.trim_start_matches("0x"), 16).unwrap();
            ((id.parse().unwrap(), info), name.to_owned())
        })
        .collect();
    assert!(names.len() > 100, "{}", path.display());
    names
}

#[test]
fn names_are_those_of_the_servers() {
    for major in MAJORS {
        let mut theirs = server_names(major);
        for rmgr in RMGRS {
            for info in (0..=0xF0).step_by(0x10) {
                let ours = identify(rmgr.id, Info(info), WalFormat::new(major));
                assert_eq!(ours.map(str::to_owned), theirs.remove(&(rmgr.id.0, info)), "{major} {} {info:#x}", rmgr.name);
            }
        }
        assert!(theirs.is_empty(), "{major}: names that no resource manager here has: {theirs:?}");
    }
}

#[test]
fn a_name_means_the_same_bits_in_a_major_and_the_bits_one_name() {
    for major in MAJORS {
        for rmgr in RMGRS {
            let rows: Vec<_> = rmgr.opcodes.iter().filter(|row| row.majors.contains(major)).collect();
            let (bits, names): (BTreeSet<u8>, BTreeSet<&str>) = rows.iter().map(|row| (row.info, row.name)).unzip();
            assert_eq!((bits.len(), names.len()), (rows.len(), rows.len()), "{major} {}", rmgr.name);
        }
    }
}

/// A record type with a name has a parser, in the same majors; without a name it has none, unless the server describes it anyway.
#[test]
fn parsers_know_the_same_rows_as_the_tables() {
    // Resource managers whose descriptions look at fewer bits than their names.
    const DESCRIBED_WITHOUT_A_NAME: [u8; 3] = [9, 10, 17];
    for major in MAJORS {
        let fmt = WalFormat::new(major);
        for rmgr in RMGRS {
            for info in (0..=0xF0).step_by(0x10) {
                let bytes = RecordBuilder::new(rmgr.id, info).bytes(fmt, Lsn(0));
                let raw = RawRecord::from_bytes(&bytes, Lsn(0x100_0028), fmt).unwrap();
                let record = raw.decode().unwrap();
                // Most payloads are not empty: an error comes from a parser, too.
                let parsed = !matches!(record.payload(), Ok(None));
                match (record.opcode_name(), parsed) {
                    (Some(_), true) | (None, false) => {}
                    (None, true) if DESCRIBED_WITHOUT_A_NAME.contains(&rmgr.id.0) => {}
                    (name, _) => panic!("{major} {} {info:#x} has the name {name:?}, parser: {parsed}", rmgr.name),
                }
            }
        }
    }
}
