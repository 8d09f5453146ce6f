use std::ops::RangeInclusive;

use super::super::testing::{Rec, le};
use super::*;
use crate::text::Zone;
use crate::wire::FixedSize;

const BTREE: u8 = 11;

fn rec<'a>(info: u8, main: &'a [u8], blocks: &'a [(u8, &'a [u8])]) -> Rec<'a> {
    Rec { rmid: BTREE, info, main, blocks, ..Rec::default() }
}

fn check(majors: RangeInclusive<u8>, rec: &Rec<'_>, text: &str) {
    majors.for_each(|major| Rec { major, ..rec.clone() }.check(text, &[]));
}

/// An index tuple of 16 bytes.
fn tuple(key: u64) -> Vec<u8> {
    le![0u16, 1u16, 2u16, 0x4010u16, key]
}

/// The metapage's contents as `major` writes them; 77 deleted pages, or -1 tuples and transaction 731.
fn metadata(major: u8) -> Vec<u8> {
    let pages = le![3u32, 1u32, 4u32, 0u32];
    match major {
        10 => pages,
        11 => [pages, le![731u32, 0xEEEEEEEEu32, (-1f64).to_bits()]].concat(),
        12 => [le![4u32], pages, le![731u32, (-1f64).to_bits()]].concat(),
        13 => [le![4u32], pages, le![731u32, (-1f64).to_bits(), 1u8, 0xEEu8, 0u16, 0xEEEEEEEEu32]].concat(),
        _ => [le![4u32], pages, le![77u32, 1u8, 0xEEu8, 0xEEEEu16]].concat(),
    }
}

#[test]
fn insert() {
    let tuple = tuple(5);
    for (majors, text) in [(10..=15, "off 7"), (16..=19, "off: 7")] {
        check(majors.clone(), &rec(0x00, &[7, 0], &[(0, &tuple)]), text);
        check(majors.clone(), &rec(0x10, &[7, 0], &[(0, &tuple), (1, &[])]), text);
        for major in majors {
            check(major..=major, &rec(0x20, &[7, 0], &[(0, &tuple), (1, &[]), (2, &metadata(major))]), text);
        }
    }
    let posting = [le![3u16], tuple].concat();
    check(13..=15, &rec(0x50, &[7, 0], &[(0, &posting)]), "off 7");
    check(16..=19, &rec(0x50, &[7, 0], &[(0, &posting)]), "off: 7");
    assert_eq!(Rec { major: 12, ..rec(0x50, &[7, 0], &[(0, &posting)]) }.parse(), Ok(None));
    // A tuple of another size than its header says, and one smaller than a header.
    let long = le![0u16, 1u16, 2u16, 0x000Fu16, 0u64];
    let short = le![0u16, 1u16, 2u16, 0x0007u16];
    assert!(Rec { major: 15, ..rec(0x00, &[7, 0], &[(0, &long)]) }.parse().is_err());
    assert!(Rec { major: 15, ..rec(0x00, &[7, 0], &[(0, &short)]) }.parse().is_err());
}

#[test]
fn split() {
    // The right page has at least one tuple, so a cut at its end is no tuple boundary.
    let (one, two, right) = (tuple(1), [tuple(1), tuple(2)].concat(), tuple(3));
    let main = |level: u32| le![level, 20u16, 9u16];
    let v10 = |level: u32| format!("level {level}, firstright 20, newitemoff 9");
    let none: &[u8] = &[];
    // Up to 11 a leaf page's high key is not stored, but where 11 says so.
    for (majors, info, level, left) in [
        (10..=11, 0x30, 0, &one[..]),
        (10..=11, 0x30, 1, &two),
        (10..=11, 0x40, 0, none),
        (10..=11, 0x40, 1, &one),
        (10..=10, 0x50, 1, &two),
        (10..=10, 0x60, 1, &one),
        (11..=11, 0x50, 0, &two),
        (11..=11, 0x60, 0, &one),
        (12..=12, 0x30, 0, &two),
        (12..=12, 0x40, 0, &one),
    ] {
        for major in majors {
            let blocks = [(0, left), (1, &right[..]), (2, none)];
            let (main, text) = (main(level), v10(level));
            let rec = Rec { major, ..rec(info, &main, &blocks) };
            rec.with(|rec| {
                let mut out = Text::new(rec.fmt(), Zone::utc());
                let payload = rec.payload().unwrap().unwrap();
                payload.describe(rec, rec.fmt(), &mut out);
                assert_eq!(out.to_string_lossy(), text);
                let mut body = Body::default();
                payload.write(rec.fmt(), &mut body);
                body.blocks.retain(|block| !block.1.is_empty());
                let data: Vec<_> = blocks.iter().filter(|b| !b.1.is_empty()).map(|b| (b.0, b.1.to_vec())).collect();
                assert_eq!((body.main, body.blocks), (main.clone(), data));
            });
            for len in 0..left.len() {
                assert!(Rec { blocks: &[(0, &left[..len]), (1, &right)], ..rec.clone() }.parse().is_err(), "{len}");
            }
            let long = [left, &tuple(9)].concat();
            assert!(Rec { blocks: &[(0, &long), (1, &right)], ..rec.clone() }.parse().is_err());
        }
    }
    assert_eq!(Rec { major: 12, ..rec(0x60, &main(0), &[(0, &one), (1, &right)]) }.parse(), Ok(None));
    for (info, posting_off, left) in [(0x30, 0u16, &two), (0x40, 0, &one), (0x30, 3, &two), (0x40, 3, &two)] {
        let main = le![0u32, 20u16, 9u16, posting_off];
        let blocks: &[(u8, &[u8])] = &[(0, left), (1, &right)];
        let old = format!("level 0, firstrightoff 20, newitemoff 9, postingoff {posting_off}");
        let new = format!("level: 0, firstrightoff: 20, newitemoff: 9, postingoff: {posting_off}");
        check_but_for_the_right_page(13..=15, &rec(info, &main, blocks), &old);
        check_but_for_the_right_page(16..=19, &rec(info, &main, blocks), &new);
    }
}

/// The right page's tuples are not counted, so an empty list of them is not an error.
fn check_but_for_the_right_page(majors: RangeInclusive<u8>, rec: &Rec<'_>, text: &str) {
    for major in majors {
        let rec = Rec { major, ..rec.clone() };
        rec.with(|rec| {
            let mut out = Text::new(rec.fmt(), Zone::utc());
            let payload = rec.payload().unwrap().unwrap();
            payload.describe(rec, rec.fmt(), &mut out);
            assert_eq!(out.to_string_lossy(), text);
            let mut body = Body::default();
            payload.write(rec.fmt(), &mut body);
            let data: Vec<_> = rec.blocks.iter().map(|block| (block.id, block.data.to_vec())).collect();
            assert_eq!((&body.main[..], body.blocks), (rec.main, data));
        });
        let [(_, left), (_, right)] = *rec.blocks else { panic!() };
        for len in 0..left.len() {
            assert!(Rec { blocks: &[(0, &left[..len]), (1, right)], ..rec.clone() }.parse().is_err());
        }
        for len in 1..right.len() {
            assert!(Rec { blocks: &[(0, left), (1, &right[..len])], ..rec.clone() }.parse().is_err());
        }
        for len in 0..rec.main.len() {
            assert!(Rec { main: &rec.main[..len], ..rec.clone() }.parse().is_err());
        }
    }
}

#[test]
fn dedup() {
    let data = le![1u16, 3u16, 4u16, 2u16];
    check(13..=15, &rec(0x60, &[2, 0], &[(0, &data)]), "nintervals 2");
    check(16..=19, &rec(0x60, &[2, 0], &[(0, &data)]), "nintervals: 2");
}

#[test]
fn delete() {
    let main = le![1663u32, 5u32, 16384u32, 2i32, 4u16, 5u16];
    check(10..=11, &rec(0x70, &main, &[(0, &[])]), "2 items");
    let main = le![900u32, 2i32, 4u16, 5u16];
    check(12..=12, &rec(0x70, &main, &[(0, &[])]), "2 items, latest removed xid 900");
    assert!(Rec { major: 12, ..rec(0x70, &le![900u32, -1i32], &[]) }.parse().is_err());
    let main = le![900u32, 2u32];
    check(13..=13, &rec(0x70, &main, &[(0, &le![4u16, 5u16])]), "latestRemovedXid 900; ndeleted 2");
    // Two tuples go, and of two posting lists three heap tuples and one.
    let data = le![4u16, 5u16, 8u16, 9u16, 3u16, 0u16, 1u16, 7u16, 1u16, 2u16];
    let main = le![900u32, 2u16, 2u16];
    check(14..=15, &rec(0x70, &main, &[(0, &data)]), "latestRemovedXid 900; ndeleted 2; nupdated 2");
    let lists = ", deleted: [4, 5], updated: [{ off: 8, nptids: 3, ptids: [0, 1, 7] }, { off: 9, nptids: 1, ptids: [2] }]";
    let main = le![900u32, 2u16, 2u16, 1u8];
    let text = format!("snapshotConflictHorizon: 900, ndeleted: 2, nupdated: 2{lists}");
    check(16..=16, &rec(0x70, &main, &[(0, &data)]), &text);
    let text = format!("snapshotConflictHorizon: 900, ndeleted: 2, nupdated: 2, isCatalogRel: T{lists}");
    check(17..=19, &rec(0x70, &main, &[(0, &data)]), &text);
    let main = le![900u32, 1u16, 0u16, 0u8];
    let text = "snapshotConflictHorizon: 900, ndeleted: 1, nupdated: 0, isCatalogRel: F, deleted: [4], updated: []";
    check(17..=19, &rec(0x70, &main, &[(0, &[4, 0])]), text);
}

#[test]
fn vacuum() {
    let main = le![41u32];
    for major in 10..=12 {
        let rec = Rec { major, ..rec(0xC0, &main, &[(0, &[4, 0, 5, 0])]) };
        rec.with(|rec| {
            let Some(Op::Vacuum(vacuum)) = parse(rec, rec.fmt()).unwrap() else { panic!() };
            assert!(vacuum.items.unwrap().deleted.iter().eq([OffsetNumber(4), OffsetNumber(5)]));
        });
        // The last record of a VACUUM may delete nothing. Half a line pointer is an error.
        Rec { blocks: &[(0, &[])], ..rec.clone() }.check("lastBlockVacuumed 41", &[]);
        assert!(Rec { blocks: &[(0, &[4, 0, 5])], ..rec }.parse().is_err());
    }
    let main = le![2u16, 1u16];
    let data = le![4u16, 5u16, 8u16, 2u16, 0u16, 1u16];
    check(13..=15, &rec(0xC0, &main, &[(0, &data)]), "ndeleted 2; nupdated 1");
    let text = "ndeleted: 2, nupdated: 1, deleted: [4, 5], updated: [{ off: 8, nptids: 2, ptids: [0, 1] }]";
    check(16..=19, &rec(0xC0, &main, &[(0, &data)]), text);
    let text = "ndeleted: 0, nupdated: 1, deleted: [], updated: [{ off: 8, nptids: 0, ptids: [] }]";
    check(16..=19, &rec(0xC0, &le![0u16, 1u16], &[(0, &le![8u16, 0u16])]), text);
    check(16..=19, &rec(0xC0, &le![0u16, 0u16], &[(0, &[])]), "ndeleted: 0, nupdated: 0");
}

#[test]
fn mark_page_half_dead() {
    let main = le![3u16, 0xEEEEu16, 10u32, 9u32, 11u32, u32::MAX];
    let blocks: &[(u8, &[u8])] = &[(0, &[]), (1, &[])];
    check(10..=15, &rec(0xB0, &main, blocks), "topparent 4294967295; leaf 10; left 9; right 11");
    check(16..=19, &rec(0xB0, &main, blocks), "topparent: 4294967295, leaf: 10, left: 9, right: 11");
}

#[test]
fn unlink_page() {
    let old = le![9u32, 11u32, 1u32, 2u32, 3u32, 731u32];
    let new = le![9u32, 11u32, 0u32, 0xEEEEEEEEu32, 0x2_0000_02DBu64, 1u32, 2u32, 3u32];
    for major in 10..=19 {
        let main = if major >= 14 { &new } else { &old };
        let text = match major {
            ..=13 => "left 9; right 11; btpo_xact 731; leafleft 1; leafright 2; topparent 3",
            14 | 15 => "left 9; right 11; level 0; safexid 2:731; leafleft 1; leafright 2; leaftopparent 3",
            _ => "left: 9, right: 11, level: 0, safexid: 2:731, leafleft: 1, leafright: 2, leaftopparent: 3",
        };
        check(major..=major, &rec(0x80, main, &[(0, &[]), (2, &[])]), text);
        check(major..=major, &rec(0x90, main, &[(0, &[]), (2, &[]), (4, &metadata(major))]), text);
        assert!(Rec { major, ..rec(0x80, main, &[(4, &metadata(major))]) }.parse().is_err());
        assert!(Rec { major, ..rec(0x90, main, &[(0, &[])]) }.parse().is_err());
    }
}

#[test]
fn new_root() {
    for major in 10..=19 {
        let old = major < 16;
        let tuples = [tuple(1), tuple(2)].concat();
        let blocks: &[(u8, &[u8])] = &[(0, &tuples), (1, &[]), (2, &metadata(major))];
        let text = if old { "lev 1" } else { "level: 1" };
        check(major..=major, &rec(0xA0, &le![3u32, 1u32], blocks), text);
        let blocks: &[(u8, &[u8])] = &[(0, &[]), (2, &metadata(major))];
        let text = if old { "lev 0" } else { "level: 0" };
        check(major..=major, &rec(0xA0, &le![3u32, 0u32], blocks), text);
    }
}

#[test]
fn reuse_page() {
    let rel = le![1663u32, 5u32, 16384u32, 77u32];
    check(10..=13, &rec(0xD0, &[&rel[..], &le![731u32]].concat(), &[]), "rel 1663/5/16384; latestRemovedXid 731");
    let full = [&rel[..], &le![0x2_0000_02DBu64]].concat();
    check(14..=15, &rec(0xD0, &full, &[]), "rel 1663/5/16384; latestRemovedXid 2:731");
    let with_flag = [&full[..], &[0]].concat();
    check(16..=16, &rec(0xD0, &with_flag, &[]), "rel: 1663/5/16384, snapshotConflictHorizon: 2:731");
    check(17..=19, &rec(0xD0, &with_flag, &[]), "rel: 1663/5/16384, snapshotConflictHorizon: 2:731, isCatalogRel: F");
}

#[test]
fn meta_cleanup() {
    for major in 11..=19 {
        let text = match major {
            ..=13 => "oldest_btpo_xact 731; last_cleanup_num_heap_tuples: -1.000000",
            14 | 15 => "last_cleanup_num_delpages 77",
            _ => "last_cleanup_num_delpages: 77",
        };
        Rec { major, ..rec(0xE0, &[], &[(0, &metadata(major))]) }.check(text, &[]);
    }
    assert_eq!(Rec { major: 10, ..rec(0xE0, &[], &[(0, &metadata(10))]) }.parse(), Ok(None));
    // 10 has the four page numbers alone.
    assert_eq!(metadata(10).len(), Metadata::size(WalFormat::new(10)));
}

#[test]
fn numbers_that_are_none() {
    for (value, v11, v12) in [
        (f64::NAN, "nan", "NaN"),
        (f64::INFINITY, "inf", "Infinity"),
        (f64::NEG_INFINITY, "-inf", "-Infinity"),
        (-0.0, "-0.000000", "-0.000000"),
        (2.5e-7, "0.000000", "0.000000"),
        (1e300, &format!("{:.6}", 1e300), &format!("{:.6}", 1e300)),
    ] {
        for (major, text) in [(11, v11), (12, v12), (13, v12)] {
            let mut data = metadata(major);
            data[24..32].copy_from_slice(&value.to_le_bytes());
            let text = format!("oldest_btpo_xact 731; last_cleanup_num_heap_tuples: {text}");
            Rec { major, ..rec(0xE0, &[], &[(0, &data)]) }.check(&text, &[]);
        }
    }
}

#[test]
fn sizes_of_the_c_structs() {
    for major in 10..=19 {
        let fmt = WalFormat::new(major);
        assert_eq!(Metadata::size(fmt), [16, 32, 32, 40, 28][usize::from(major.min(14) - 10)]);
        assert_eq!(DeleteHead::size(fmt), [16, 16, 8, 8, 8, 8, 9][usize::from(major.min(16) - 10)]);
        assert_eq!(ReusePage::size(fmt), [20, 20, 20, 20, 24, 24, 25][usize::from(major.min(16) - 10)]);
        assert_eq!(UnlinkPageHead::size(fmt), if major >= 14 { 36 } else { 24 });
        assert_eq!(MarkPageHalfDead::size(fmt), 20);
    }
}
