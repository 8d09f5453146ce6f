use std::ops::RangeInclusive;

use super::super::testing::{Rec, le};
use super::*;
use crate::heap_tuple::{HeapTupleHeader, Infomask, Infomask2};
use crate::wire::FixedSize;

const HEAP: u8 = 10;
const ALL: RangeInclusive<u8> = 10..=19;

fn rec<'a>(info: u8, main: &'a [u8], blocks: &'a [(u8, &'a [u8])]) -> Rec<'a> {
    Rec { rmid: HEAP, info, main, blocks, ..Rec::default() }
}

/// The text in 10 and 11, in 12 to 15, and from 16 on.
fn check(rec: &Rec<'_>, [v10, v12, v16]: [&str; 3]) {
    for major in ALL {
        let text = match major {
            10 | 11 => v10,
            12..=15 => v12,
            _ => v16,
        };
        Rec { major, ..rec.clone() }.check(text, &[]);
    }
}

/// Header of a tuple with three attributes, as the WAL has it.
fn tuple() -> Vec<u8> {
    le![0x8003u16, 0x0902u16, 24u8]
}

#[test]
fn insert() {
    let (main, tuple) = (le![7u16, 0x0Au8], tuple());
    let text = ["off 7", "off 7 flags 0x0A", "off: 7, flags: 0x0A"];
    check(&rec(0x00, &main, &[(0, &tuple)]), text);
    check(&rec(0x80, &main, &[(0, &tuple), (1, &[])]), text);
}

#[test]
fn delete() {
    let main = le![731u32, 7u16, 0x10u8, 0x01u8];
    let text = ["off 7 KEYS_UPDATED ", "off 7 flags 0x01 KEYS_UPDATED ", "xmax: 731, off: 7, infobits: [KEYS_UPDATED], flags: 0x01"];
    check(&rec(0x10, &main, &[(0, &[])]), text);
    let with_key = [le![731u32, 7u16, 0x10u8, 0x04u8], tuple()].concat();
    let text = ["off 7 KEYS_UPDATED ", "off 7 flags 0x04 KEYS_UPDATED ", "xmax: 731, off: 7, infobits: [KEYS_UPDATED], flags: 0x04"];
    for major in ALL {
        let rec = Rec { major, ..rec(0x10, &with_key, &[]) };
        rec.check(text[if major >= 16 { 2 } else { usize::from(major >= 12) }], &[usize::MAX]);
    }
}

#[test]
fn infobits() {
    for (bits, old, new) in [
        (0x00u8, "", ""),
        (0x03, "IS_MULTI LOCK_ONLY ", "IS_MULTI, LOCK_ONLY"),
        (0x1C, "EXCL_LOCK KEYSHR_LOCK KEYS_UPDATED ", "EXCL_LOCK, KEYSHR_LOCK, KEYS_UPDATED"),
        (0xE0, "", ""),
    ] {
        let main = le![9u32, 3u16, bits, 0x01u8];
        let v10 = format!("off 3: xid 9: flags 1 {old}");
        let v12 = format!("off 3: xid 9: flags 0x01 {old}");
        let v16 = format!("xmax: 9, off: 3, infobits: [{new}], flags: 0x01");
        check(&rec(0x60, &main, &[(0, &[])]), [&v10, &v12, &v16]);
    }
}

#[test]
fn update() {
    for info in [0x20, 0x40, 0xA0, 0xC0] {
        let main = le![731u32, 7u16, 0x00u8, 0x00u8, 0u32, 9u16];
        let text = [
            "off 7 xmax 731 ; new off 9 xmax 0",
            "off 7 xmax 731 flags 0x00 ; new off 9 xmax 0",
            "old_xmax: 731, old_off: 7, old_infobits: [], flags: 0x00, new_xmax: 0, new_off: 9",
        ];
        check(&rec(info, &main, &[(0, &tuple()), (1, &[])]), text);
        let main = le![731u32, 7u16, 0x12u8, 0x60u8, 5u32, 9u16];
        let text = [
            "off 7 xmax 731 LOCK_ONLY KEYS_UPDATED ; new off 9 xmax 5",
            "off 7 xmax 731 flags 0x60 LOCK_ONLY KEYS_UPDATED ; new off 9 xmax 5",
            "old_xmax: 731, old_off: 7, old_infobits: [LOCK_ONLY, KEYS_UPDATED], flags: 0x60, new_xmax: 5, new_off: 9",
        ];
        check(&rec(info, &main, &[(0, &[le![4u16, 6u16], tuple()].concat())]), text);
    }
}

#[test]
fn parts_of_an_update() {
    let main = [le![731u32, 7u16, 0u8, 0x68u8, 0u32, 9u16], tuple(), b"key".to_vec()].concat();
    let block = [le![4u16, 6u16], tuple(), b"?rest".to_vec()].concat();
    Rec { major: 15, ..rec(0x20, &main, &[(0, &block)]) }.with(|rec| {
        let Some(Op::Update(update)) = parse(rec, rec.fmt()).unwrap() else { panic!() };
        let new = update.new_tuple.unwrap();
        assert_eq!((new.prefix_len, new.suffix_len), (Some(4), Some(6)));
        assert_eq!(new.tuple.attributes(), Some(&b"rest"[..]));
        assert_eq!(new.tuple.header.infomask2.natts(), 3);
        assert_eq!(new.tuple.null_bitmap(), None);
        let old = update.old_tuple.unwrap();
        assert_eq!(old.data.0, b"key");
        let mut body = Body::default();
        Op::Update(update).write(rec.fmt(), &mut body);
        assert_eq!((body.main, body.blocks), (main.clone(), vec![(0, block.clone())]));
        assert_eq!(
            serde_json::to_value(update).unwrap()["new_tuple"],
            serde_json::json!({
                "prefix_len": 4, "suffix_len": 6,
                "infomask2": {"natts": 3, "flags": ["HEAP_ONLY_TUPLE"]},
                "infomask": ["HEAP_HASVARWIDTH", "HEAP_XMIN_COMMITTED", "HEAP_XMAX_INVALID"],
                "hoff": 24, "data": "3f72657374",
            })
        );
    });
}

#[test]
fn header_beyond_the_tuple() {
    let header = HeapTupleHeader { infomask2: Infomask2(0x07FF), infomask: Infomask::HEAP_HASNULL, hoff: 0 };
    let tuple = HeapTuple { header, data: Bytes(b"x") };
    assert_eq!((tuple.attributes(), tuple.null_bitmap()), (None, None));
}

#[test]
fn truncate() {
    let main = le![5u32, 2u32, 3u8, 0xAAu8, 0u8, 0xBBu8, 16384u32, 16390u32];
    for major in 11..=19 {
        let text = if major >= 16 {
            "flags: [CASCADE, RESTART_SEQS], nrelids: 2, relids: [16384, 16390]"
        } else {
            "cascade restart_seqs nrelids 2 relids 16384 16390"
        };
        Rec { major, ..rec(0x30, &main, &[]) }.check(text, &[]);
    }
    let none = le![5u32, 0u32, 0u8, 0u8, 0u8, 0u8];
    Rec { major: 16, ..rec(0x30, &none, &[]) }.check("flags: [], nrelids: 0, relids: []", &[]);
    Rec { major: 15, ..rec(0x30, &none, &[]) }.check("nrelids 0 relids", &[]);
    assert_eq!(Rec { major: 10, ..rec(0x30, &main, &[]) }.parse(), Ok(None));
    // A count without its bytes.
    let many = le![5u32, u32::MAX, 0u8, 0u8, 0u8, 0u8];
    assert!(Rec { major: 16, ..rec(0x30, &many, &[]) }.parse().is_err());
}

#[test]
fn confirm() {
    check(&rec(0x50, &le![7u16], &[(0, &[])]), ["off 7", "off 7", "off: 7"]);
}

#[test]
fn inplace() {
    for major in 10..18 {
        let rec = Rec { major, ..rec(0x70, &[7, 0], &[(0, &[])]) };
        rec.check(if major >= 16 { "off: 7" } else { "off 7" }, &[]);
    }
    let msg = |id: i8, object: u32| le![id, 0xA5u8, 0u16, 5u32, object, 0x7F7F7F7Fu32];
    let head = |init: u8, ninvals: i32| le![7u16, 0xABCDu16, 5u32, 1663u32, init, 1u8, 2u8, 3u8, ninvals];
    for major in 18..=19 {
        Rec { major, ..rec(0x70, &head(1, 0), &[(0, &[])]) }.check("off: 7", &[]);
        let main = [head(0, 2), msg(57, 99), msg(-2, 16526)].concat();
        Rec { major, ..rec(0x70, &main, &[]) }.check("off: 7; inval msgs: catcache 57 relcache 16526", &[]);
        let main = [head(1, 1), msg(-1, 1259)].concat();
        let text = "off: 7; relcache init file inval dbid 5 tsid 1663; inval msgs: catalog 1259";
        Rec { major, ..rec(0x70, &main, &[]) }.check(text, &[]);
        assert!(Rec { major, ..rec(0x70, &head(0, -1), &[]) }.parse().is_err());
    }
}

#[test]
fn data_of_a_block_that_has_none() {
    for info in [0x10, 0x30, 0x50, 0x60] {
        assert!(Rec { major: 17, ..rec(info, &[0; 8], &[(0, b"x")]) }.parse().is_err());
    }
    assert!(Rec { major: 17, ..rec(0x00, &[0; 3], &[(0, &tuple()), (1, b"x")]) }.parse().is_err());
}

#[test]
fn sizes_of_the_c_structs() {
    for major in ALL {
        let fmt = WalFormat::new(major);
        let sizes = [InsertHead::size(fmt), DeleteHead::size(fmt), UpdateHead::size(fmt), TruncateHead::size(fmt), Lock::size(fmt)];
        assert_eq!(sizes, [3, 8, 14, 12, 8]);
        assert_eq!(InplaceHead::size(fmt), if major >= 18 { 20 } else { 2 });
    }
}
