//! Small data directories, built byte by byte.

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::control::{LAYOUTS, Layout};
use super::heap::TupleHeader;
use super::xact::Transactions;
use super::*;
use crate::heap_tuple::{Infomask, Infomask2};
use crate::rmgr::relmap::max_mappings;
use crate::types::{BlockNumber, CommandId, ItemPointer, OffsetNumber, Xid};

const BLOCK: usize = 8192;
const FROZEN: u16 = 0x0300;
const XMAX_INVALID: u16 = 0x0800;
const DB: u32 = 16_000;

/// A tuple, as it is on its page.
#[derive(Clone)]
struct Row {
    oid: u32,
    attributes: Vec<u8>,
    natts: u16,
    xmin: u32,
    xmax: u32,
    infomask: u16,
    nulls: Option<u8>,
}

impl Row {
    fn new(oid: u32, natts: u16, attributes: Vec<u8>) -> Row {
        Row { oid, attributes, natts, xmin: 3, xmax: 0, infomask: FROZEN | XMAX_INVALID, nulls: None }
    }

    fn bytes(&self, major: u8) -> Vec<u8> {
        let old = major < 12;
        let oid_flag = if old { 0x0008 } else { 0 };
        let infomask = self.infomask | oid_flag | u16::from(self.nulls.is_some());
        let mut header = tuple_header(self.xmin, self.xmax, infomask);
        header.infomask2 = Infomask2(self.natts + u16::from(!old));
        header.hoff = if old || self.nulls.is_some() { 32 } else { 24 };
        let mut out = Vec::new();
        header.write(WalFormat::new(major), &mut out);
        out.extend(self.nulls.map(|bits| [bits, 0xFF, 0xFF]).into_iter().flatten());
        out.resize(header.hoff.into(), 0);
        if old {
            out.truncate(28);
        }
        out.extend(self.oid.to_le_bytes());
        out.extend(&self.attributes);
        out
    }
}

fn tuple_header(xmin: u32, xmax: u32, infomask: u16) -> TupleHeader {
    let ctid = ItemPointer { block: BlockNumber(0), offnum: OffsetNumber(1) };
    let (infomask2, infomask) = (Infomask2(0), Infomask(infomask));
    TupleHeader { xmin: Xid(xmin), xmax: Xid(xmax), cid: CommandId(0), ctid, infomask2, infomask, hoff: 24 }
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(64, 0);
    bytes
}

fn fours(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A row of pg_class.
fn class(major: u8, oid: u32, relname: &str, filenode: u32, tablespace: u32, flags: &[u8; 4]) -> Row {
    let counts = if major >= 18 { 5 } else { 4 };
    let mut numbers = vec![2200, 0, 0, 10, 2, filenode, tablespace];
    numbers.extend(vec![0; counts]); // relpages to reltoastrelid
    Row::new(oid, 13 + counts as u16, [name(relname), fours(&numbers), flags.to_vec()].concat())
}

fn page(major: u8, rows: &[Row]) -> Vec<u8> {
    let mut page = vec![0; BLOCK];
    let (mut upper, mut pointers) = (BLOCK, Vec::new());
    for row in rows {
        let bytes = row.bytes(major);
        upper = (upper - bytes.len()) & !7;
        page[upper..upper + bytes.len()].copy_from_slice(&bytes);
        pointers.extend((upper as u32 | 1 << 15 | (bytes.len() as u32) << 17).to_le_bytes());
    }
    page[12..14].copy_from_slice(&(24 + pointers.len() as u16).to_le_bytes());
    page[14..16].copy_from_slice(&(upper as u16).to_le_bytes());
    page[16..18].copy_from_slice(&(BLOCK as u16).to_le_bytes());
    page[18..20].copy_from_slice(&(BLOCK as u16 | 4).to_le_bytes());
    page[24..24 + pointers.len()].copy_from_slice(&pointers);
    page
}

fn map(major: u8, mappings: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = fours(&[0x592717, mappings.len() as u32]);
    mappings.iter().for_each(|&(oid, number)| bytes.extend(fours(&[oid, number])));
    bytes.resize(8 + 8 * max_mappings(WalFormat::new(major)), 0);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    if major < 16 {
        bytes.extend([0; 4]);
    }
    bytes
}

fn control(major: u8, blocks_per_file: u32, checksums: u32) -> Vec<u8> {
    let layout: &Layout = LAYOUTS.iter().find(|layout| layout.majors.contains(&major)).unwrap();
    let mut bytes = [0x1234_5678_9ABC_DEF0_u64.to_le_bytes().to_vec(), fours(&[layout.version, 777, 1])].concat();
    bytes.resize(layout.build, 0);
    bytes.extend(fours(&[8, 0]));
    bytes.extend(1_234_567.0_f64.to_le_bytes());
    bytes.extend(fours(&[BLOCK as u32, blocks_per_file]));
    bytes.extend(fours(&[32][..usize::from(major >= 19)]));
    bytes.extend(fours(&[BLOCK as u32, 16 << 20, 64, 32, 1996, 2048, 1, checksums]));
    bytes.resize(layout.crc, 0);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes.resize(8192, 0);
    bytes
}

/// A cluster with the database `shop`, in the schema `public` of which are the rows of `pg_class` that are given.
struct Cluster {
    dir: TempDir,
}

impl Cluster {
    fn new(major: u8, pg_class: &[Vec<u8>]) -> Cluster {
        let cluster = Cluster { dir: tempfile::tempdir().unwrap() };
        cluster.put("PG_VERSION", format!("{major}\n").as_bytes());
        cluster.put("global/pg_control", &control(major, 131_072, 0));
        cluster.put("global/pg_filenode.map", &map(major, &[(1262, 20_001), (1213, 20_002)]));
        let collation = if major < 15 { [name("C"), name("C")].concat() } else { Vec::new() };
        let provider = if major < 15 { "" } else { "c" };
        let flags = if major < 17 { &[0, 1][..] } else { &[0, 1, 0] };
        let mut datname = [name("shop"), fours(&[10, 6]), provider.as_bytes().to_vec(), collation, flags.to_vec()].concat();
        let before = if major < 12 { 0 } else { 4 };
        datname.resize((before + datname.len()).next_multiple_of(4) - before, 0);
        datname.extend(fours(&[0; 4][..if major < 15 { 4 } else { 3 }]));
        datname.extend(fours(&[1663]));
        cluster.put("global/20001", &page(major, &[Row::new(DB, 14, datname)]));
        cluster.put("global/20002", &page(major, &[Row::new(1663, 1, name("pg_default"))]));
        cluster.put(&format!("base/{DB}/pg_filenode.map"), &map(major, &[(1259, 1259)]));
        cluster.put(&format!("base/{DB}/2615"), &page(major, &[Row::new(2200, 1, name("public"))]));
        cluster.put(&format!("base/{DB}/1259"), &pg_class.concat());
        cluster
    }

    fn put(&self, file: &str, bytes: &[u8]) {
        let path = self.dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Changes a file's bytes.
    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.dir.path().join(file)).unwrap();
        change(&mut bytes);
        self.put(file, &bytes);
    }

    /// Relations by their names, and what was said, without the path of the cluster.
    fn names(&self) -> (BTreeMap<String, String>, Vec<String>) {
        let mut said = Vec::new();
        let dir = DataDir::open(self.dir.path(), |warning| said.push(warning.to_string()));
        let names = dir.and_then(|dir| dir.names(|warning| said.push(warning.to_string())));
        let names = names.map_err(|error| said.push(error.to_string())).unwrap_or_default();
        let relations = names.relations().map(|(rel, relation)| (relation.to_string(), rel.to_string())).collect();
        let root = format!("{}/", self.dir.path().display());
        (relations, said.into_iter().map(|text| text.replace(&root, "")).collect())
    }
}

/// What every cluster here has in pg_class.
fn usual(major: u8) -> Vec<Row> {
    vec![
        class(major, 1259, "pg_class", 0, 0, b"\x01\x00pr"),
        class(major, 2615, "pg_namespace", 2615, 0, b"\x01\x00pr"),
        class(major, 1262, "pg_database", 0, 1664, b"\x01\x01pr"),
        class(major, 30_001, "accounts", 30_009, 0, b"\x01\x00pr"),
        class(major, 30_002, "accounts_pkey", 30_002, 40_000, b"\x00\x00pi"),
        class(major, 30_003, "a_view", 0, 0, b"\x00\x00pv"),
        class(major, 30_004, "temporary", 30_004, 0, b"\x00\x00tr"),
    ]
}

fn expected() -> BTreeMap<String, String> {
    let all = [
        ("public.pg_class", "1663/16000/1259"),
        ("public.pg_namespace", "1663/16000/2615"),
        ("public.pg_database", "1664/0/20001"),
        ("public.accounts", "1663/16000/30009"),
        ("public.accounts_pkey", "40000/16000/30002"),
    ];
    all.map(|(name, rel)| (name.to_owned(), rel.to_owned())).into()
}

#[test]
fn catalogs_of_every_major() {
    for (major, _) in CATALOG_VERSIONS.iter().copied() {
        let (found, said) = Cluster::new(major, &[page(major, &usual(major))]).names();
        assert_eq!((found, &said[..]), (expected(), &[][..]), "{major}");
    }
}

#[test]
fn the_files_of_a_relation() {
    let rows = usual(17);
    let (first, second) = rows.split_at(3);
    let never_used = vec![0; BLOCK];
    let cluster = Cluster::new(17, &[page(17, first), never_used]);
    cluster.put("global/pg_control", &control(17, 2, 0));
    cluster.put(&format!("base/{DB}/1259.1"), &page(17, second));
    assert_eq!(cluster.names(), (expected(), vec![]));
    // What comes after a file that is not full is left over.
    cluster.put(&format!("base/{DB}/1259"), &page(17, first));
    assert_eq!(cluster.names().0.len(), 3);
    // The file ends inside a block.
    cluster.put(&format!("base/{DB}/1259"), &[page(17, &rows), vec![7; 100]].concat());
    assert_eq!(cluster.names(), (expected(), vec!["base/16000/1259, block 1: the file ends after 100 bytes of the block".to_owned()]));
}

#[test]
fn damage_costs_what_it_hits() {
    let class_file = format!("base/{DB}/1259");
    // The row that is damaged is that of `accounts`, line pointer 4; the pointers start at 24, the rows grow down from the end.
    let rows = usual(17);
    let start = |n: usize| BLOCK - (1..=n).map(|n| rows[n - 1].bytes(17).len().next_multiple_of(8)).sum::<usize>();
    let (pointer, tuple) = (24 + 3 * 4, start(4));
    type Change<'c> = Box<dyn FnOnce(&mut Vec<u8>) + 'c>;
    let row_cases: Vec<(Change<'_>, &str)> = vec![
        (
            Box::new(|page| page[tuple + 22] = 20),
            "HeapTupleHeaderData.t_hoff: expected a multiple of 4 that leaves room for header and null bitmap, within the tuple, found 20",
        ),
        (
            Box::new(|page| page[tuple + 22] = 248),
            "HeapTupleHeaderData.t_hoff: expected a multiple of 4 that leaves room for header and null bitmap, within the tuple, found 248",
        ),
        (Box::new(|page| page[tuple + 18] = 5), "relowner is null"),
        (
            Box::new(|page| page[pointer..pointer + 4].copy_from_slice(&(8000u32 | 1 << 15 | 500 << 17).to_le_bytes())),
            "ItemIdData: expected offset and length between pd_upper and pd_special, found 65576768",
        ),
        (
            Box::new(|page| page[pointer..pointer + 4].copy_from_slice(&(tuple as u32 | 1 << 15 | 10 << 17).to_le_bytes())),
            "HeapTupleHeaderData.cid: 2 more bytes needed",
        ),
        (Box::new(|page| page[pointer..pointer + 4].copy_from_slice(&(tuple as u32 | 1 << 15 | 40 << 17).to_le_bytes())), "oid: "),
    ];
    let mut without = expected();
    without.remove("public.accounts");
    for (change, what) in row_cases {
        let cluster = Cluster::new(17, &[page(17, &rows)]);
        cluster.change(&class_file, change);
        let (found, said) = cluster.names();
        let place = format!("{class_file}, block 0, line pointer 4: ");
        assert!(said.len() == 1 && said[0].starts_with(&place), "{what}: {said:?}");
        assert!(said[0][place.len()..].starts_with(what) || what == "oid: " && said[0].contains("more byte"), "{what}: {said:?}");
        assert_eq!(found, without, "{what}");
    }
    // A line pointer that is redirected, dead or not used is no damage.
    for flags in [0, 2, 3] {
        let cluster = Cluster::new(17, &[page(17, &rows)]);
        cluster.change(&class_file, |page| page[pointer..pointer + 4].copy_from_slice(&(4u32 | flags << 15).to_le_bytes()));
        assert_eq!(cluster.names(), (without.clone(), vec![]));
    }
    // A page is given up, and the next one is read.
    let page_cases: [(usize, u16, &str); 5] = [
        (12, 20, "PageHeaderData.pd_lower: expected a place between the header and pd_upper, found 20"),
        (12, 8191, "PageHeaderData.pd_lower: expected a place between the header and pd_upper, found 8191"),
        (14, 8193, "PageHeaderData.pd_upper: expected a place before pd_special, found 8193"),
        (16, 8200, "PageHeaderData.pd_special: expected a place on the page, found 8200"),
        (18, 4100, "PageHeaderData.pd_pagesize_version: expected the size of a block and layout version 4, found 4100"),
    ];
    for (at, value, what) in page_cases {
        let cluster = Cluster::new(17, &[page(17, &rows[3..]), page(17, &rows[..3])]);
        cluster.change(&class_file, |page| page[at..at + 2].copy_from_slice(&value.to_le_bytes()));
        let (found, said) = cluster.names();
        assert_eq!((found.len(), said), (3, vec![format!("{class_file}, block 0: {what}")]));
    }
    // With checksums, which these pages do not have.
    let cluster = Cluster::new(17, &[page(17, &rows)]);
    cluster.put("global/pg_control", &control(17, 131_072, 1));
    let (found, said) = cluster.names();
    assert!(found.is_empty() && said[0].starts_with("global/20001, block 0: PageHeaderData.pd_checksum: the bytes have "), "{said:?}");
}

#[test]
fn files_that_are_wrong() {
    type Change = fn(&Cluster);
    let cases: [(Change, &[&str]); 13] = [
        (|c| c.put("PG_VERSION", b"9.6\n"), &["PG_VERSION: expected a major version from 10 to 19, found \"9.6\""]),
        (|c| fs::remove_file(c.dir.path().join("PG_VERSION")).unwrap(), &["PG_VERSION: does not exist"]),
        (|c| c.put("PG_VERSION", b"20\n"), &["PG_VERSION: expected a major version from 10 to 19, found \"20\""]),
        (|c| c.change("global/pg_control", |b| b[0] ^= 1), &["global/pg_control: ControlFileData.crc: the bytes have "]),
        (|c| c.change("global/pg_control", |b| b.truncate(100)), &["global/pg_control: ControlFileData.crc: 4 more bytes needed"]),
        (
            |c| c.put("global/pg_control", &control(18, 1, 0)),
            &["global/pg_control: ControlFileData.pg_control_version: expected that of the major in PG_VERSION, found 1800"],
        ),
        (
            |c| c.put("global/pg_control", &control(17, 0, 0)),
            &["global/pg_control: ControlFileData.relseg_size: expected at least 1, found 0"],
        ),
        (|c| c.change("global/pg_filenode.map", |b| b[9] ^= 1), &["global/pg_filenode.map: RelMapFile.crc: the bytes have "]),
        (
            |c| c.change("global/pg_filenode.map", |b| b[0] ^= 1),
            &["global/pg_filenode.map: RelMapFile.magic: expected 5842711 (0x592717), found 5842710"],
        ),
        (|c| c.change("global/pg_filenode.map", |b| b.truncate(523)), &["global/pg_filenode.map: RelMapFile.crc: 1 more byte needed"]),
        (|c| c.put("base/16000/pg_filenode.map", &map(17, &[])), &["base/16000/pg_filenode.map: no file number for catalog 1259"]),
        // Once, not once for each relation.
        (
            |c| c.put("base/16000/2615", b""),
            &["base/16000/2615: pg_namespace has no row 2200; 5 relations are listed with the schema's object id instead of its name"],
        ),
        (
            |c| {
                let mapped =
                    [usual(17), vec![class(17, 30_006, "mapped", 0, 0, b"\x01\x00pr"), class(17, 30_007, "too", 0, 0, b"\x01\x00pr")]];
                c.put("base/16000/1259", &page(17, &mapped.concat()));
            },
            &["base/16000/pg_filenode.map: no file number for catalog 30006 and 1 more"],
        ),
    ];
    for (change, expected) in cases {
        let cluster = Cluster::new(17, &[page(17, &usual(17))]);
        change(&cluster);
        let (_, said) = cluster.names();
        assert_eq!(said.len(), expected.len(), "{expected:?}: {said:?}");
        assert!(said.iter().zip(expected).all(|(said, expected)| said.starts_with(expected)), "{expected:?}: {said:?}");
    }
}

#[test]
fn rows_that_contradict_each_other() {
    let mut rows = usual(17);
    let newer = Row { xmin: 700, ..class(17, 30_001, "accounts_2", 30_010, 0, b"\x01\x00pr") };
    rows.insert(0, newer);
    rows.push(class(17, 30_005, "same_file", 30_010, 0, b"\x01\x00pr"));
    let (found, said) = Cluster::new(17, &[page(17, &rows)]).names();
    let expected = [
        "base/16000/1259: pg_class has two valid versions of row 30001; the newer one counts",
        "base/16000/1259: relations 30001 and 30005 have the same file number; the second one counts",
    ];
    assert_eq!(said, expected);
    assert_eq!(found.get("public.same_file").map(String::as_str), Some("1663/16000/30010"));
}

#[test]
fn what_became_of_transactions() {
    // Two bits for each transaction, from 100 on: committed, aborted, in progress, and subtransactions whose parents are above.
    let statuses = [1u8, 2, 0, 3, 3, 3, 3, 1];
    let parents = [(103, 100u32), (104, 102), (105, 0), (106, 106)];
    // Members of multixacts from 1 on, each a transaction and its flags.
    let multis: [&[(u32, u8)]; 5] =
        [&[(102, 0), (100, 5)], &[(100, 0), (101, 5)], &[(100, 0), (107, 1), (102, 3)], &[(101, 4), (107, 0)], &[(102, 1), (103, 4)]];
    let (set, invalid, multi, lock, xmax_done) = (0x0100, 0x0200, 0x1000, 0x0080, 0x0400);
    for major in [10, 17, 19] {
        let cluster = Cluster::new(major, &[]);
        let mut clog = vec![0; BLOCK];
        (100..).zip(statuses).for_each(|(xid, status)| clog[xid / 4] |= status << (xid % 4 * 2));
        let mut subtrans = vec![0; BLOCK];
        parents.iter().for_each(|&(xid, parent)| subtrans[xid * 4..xid * 4 + 4].copy_from_slice(&parent.to_le_bytes()));
        let (mut offsets, mut members, mut next) = (vec![0; BLOCK], vec![0; BLOCK], 1usize);
        let width = if major >= 19 { 8 } else { 4 };
        for (id, multi) in (1..).zip(multis) {
            offsets[id * width..id * width + 4].copy_from_slice(&(next as u32).to_le_bytes());
            for &(xid, flags) in multi {
                let group = next / 4 * 20;
                members[group + next % 4] = flags;
                let at = group + 4 + next % 4 * 4;
                members[at..at + 4].copy_from_slice(&xid.to_le_bytes());
                next += 1;
            }
        }
        cluster.put("pg_xact/0000", &clog);
        cluster.put("pg_subtrans/0000", &subtrans);
        cluster.put("pg_multixact/offsets/0000", &offsets);
        cluster.put(if major >= 19 { "pg_multixact/members/000000000000000" } else { "pg_multixact/members/0000" }, &members);
        let dir = DataDir::open(cluster.dir.path(), |warning| panic!("{warning}")).unwrap();
        let mut xacts = Transactions::new(&dir);
        let cases = [
            // Who made it.
            ("committed", 100, 0, 0, true),
            ("aborted", 101, 0, 0, false),
            ("in progress", 102, 0, 0, false),
            ("beyond the statuses", 5000, 0, 0, false),
            ("parent committed", 103, 0, 0, true),
            ("parent in progress", 104, 0, 0, false),
            ("parent forgotten", 105, 0, 0, false),
            ("its own parent", 106, 0, 0, false),
            ("bootstrap", 1, 0, 0, true),
            ("none", 0, 0, 0, false),
            ("hint: committed", 102, 0, set, true),
            ("hint: aborted", 100, 0, invalid, false),
            ("frozen", 101, 0, set | invalid, true),
            // Who removed it.
            ("removed", 100, 107, 0, false),
            ("removed by an aborted one", 100, 101, 0, true),
            ("removed by one in progress", 100, 102, 0, true),
            ("removed by a subtransaction", 100, 103, 0, false),
            ("removed by one of a transaction in progress", 100, 104, 0, true),
            ("hint: removed", 100, 102, xmax_done, false),
            ("hint: not removed", 100, 107, XMAX_INVALID, true),
            ("locked", 100, 107, lock, true),
            ("locked, as before LOCK_ONLY", 100, 107, 0x0040, true),
            ("key-share locked and removed", 100, 107, 0x0010, false),
            ("locked by many", 100, 1, multi | lock, true),
            ("one of many removed it", 100, 1, multi, false),
            ("one of many, aborted", 100, 2, multi, true),
            ("none of many", 100, 3, multi, true),
            ("one of many, aborted, then a lock", 100, 4, multi, true),
            ("the last of all multixacts", 100, 5, multi, false),
            ("no such multixact", 100, 6, multi, true),
        ];
        for (what, xmin, xmax, infomask, expected) in cases {
            let seen = xacts.sees(&tuple_header(xmin, xmax, infomask), &mut |warning| panic!("{what}: {warning}"));
            assert_eq!(seen, expected, "{major}: {what}");
        }
        // A file that is not there is reported once.
        let mut said = Vec::new();
        for xid in [2_000_000, 2_000_001, 2_030_000] {
            assert!(!xacts.sees(&tuple_header(xid, 0, 0), &mut |warning| said.push(warning.to_string())));
        }
        assert!(said.len() == 1 && said[0].contains("pg_xact/0001: transaction 2000000 counts as unfinished: "), "{said:?}");
    }
}

#[test]
fn no_damage_panics() {
    let mut seed: u64 = 42;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for major in [10, 15, 19] {
        let mut rows = usual(major);
        // Statuses and multixacts are looked up, not hinted at.
        for (n, row) in rows.iter_mut().enumerate() {
            (row.xmin, row.xmax, row.infomask) = (100 + n as u32, if n % 2 == 0 { 1 } else { 3 }, if n % 2 == 0 { 0x1000 } else { 0 });
        }
        let cluster = Cluster::new(major, &[page(major, &rows)]);
        let statuses: Vec<u8> = (0..2 * BLOCK).map(|n| if n < 64 { 0xD5 } else { n as u8 }).collect();
        let members = if major >= 19 { "pg_multixact/members/000000000000000" } else { "pg_multixact/members/0000" };
        let slrus = ["pg_xact/0000", "pg_subtrans/0000", "pg_multixact/offsets/0000", members];
        slrus.iter().for_each(|file| cluster.put(file, &statuses));
        let maps = ["global/pg_control", "global/pg_filenode.map", "base/16000/pg_filenode.map"];
        let heaps = ["base/16000/1259", "base/16000/2615", "global/20001"];
        let mut unlike = 0;
        let healthy = cluster.names();
        for file in slrus.iter().chain(&maps).chain(&heaps) {
            let good = fs::read(cluster.dir.path().join(file)).unwrap();
            for round in 0..60 {
                let mut bytes = good.clone();
                for _ in 0..=random(4) {
                    // Most of a page is empty: its header and rows are worth more.
                    let at = if random(2) == 0 { random(bytes.len().min(300)) } else { bytes.len() - 1 - random(bytes.len().min(2000)) };
                    bytes[at] = if random(2) == 0 { bytes[at] ^ 1 << random(8) } else { random(256) as u8 };
                }
                if round % 10 == 0 {
                    bytes.truncate(random(bytes.len()));
                }
                cluster.put(file, &bytes);
                unlike += usize::from(cluster.names() != healthy);
            }
            cluster.put(file, &good);
        }
        assert_eq!(cluster.names(), healthy);
        assert!(unlike > 120, "{major}: {unlike}");
    }
}
