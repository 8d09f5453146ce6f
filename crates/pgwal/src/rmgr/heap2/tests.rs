use std::ops::RangeInclusive;

use super::super::testing::{Rec, le};
use super::*;
use crate::wire::FixedSize;

const HEAP2: u8 = 9;

fn rec<'a>(info: u8, main: &'a [u8], blocks: &'a [(u8, &'a [u8])]) -> Rec<'a> {
    Rec { rmid: HEAP2, info, main, blocks, ..Rec::default() }
}

fn check(majors: RangeInclusive<u8>, rec: &Rec<'_>, text: &str) {
    majors.for_each(|major| Rec { major, ..rec.clone() }.check(text, &[]));
}

fn offsets(offsets: &[u16]) -> Vec<u8> {
    offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect()
}

#[test]
fn rewrite() {
    let head = |n: u32| le![731u32, 5u32, 1259u32, 0xA5A5A5A5u32, 72i64, n, 0x5A5A5A5Au32, 0x1_0000_00A8u64];
    let mapping = le![1663u32, 5u32, 1259u32, 1663u32, 5u32, 16400u32, 1u16, 2u16, 3u16, 0u16, 4u16, 5u16];
    check(10..=19, &rec(0x00, &[head(2), mapping.clone(), mapping.clone()].concat(), &[]), "");
    check(10..=19, &rec(0x00, &head(0), &[]), "");
    Rec { major: 15, ..rec(0x00, &[head(1), mapping].concat(), &[]) }.with(|rec| {
        let Some(Op::Rewrite(rewrite)) = parse(rec, rec.fmt()).unwrap() else { panic!() };
        assert_eq!(rewrite.head.start_lsn, Lsn(0x1_0000_00A8));
        let mapping = rewrite.mappings.get(0).unwrap();
        assert_eq!((mapping.old_tid.block.0, mapping.old_tid.offnum.0, mapping.new_rel.rel.0), (0x1_0002, 3, 16400));
    });
}

#[test]
fn clean_and_prune() {
    let main = le![900u32, 1u16, 2u16];
    let data = offsets(&[3, 4, 5, 6, 7]);
    let blocks: &[(u8, &[u8])] = &[(0, &data)];
    // What is left are free line pointers, so shorter data is good too, unless it is too short for the others.
    let same = |majors: RangeInclusive<u8>, main: &[u8], text: &str| {
        for major in majors {
            let rec = Rec { major, ..rec(0x10, main, blocks) };
            rec.with(|rec| {
                let payload = rec.payload().unwrap().unwrap();
                let mut out = Text::new(rec.fmt(), crate::text::Zone::utc());
                payload.describe(rec, rec.fmt(), &mut out);
                assert_eq!(out.to_string_lossy(), text);
                let mut body = Body::default();
                payload.write(rec.fmt(), &mut body);
                assert_eq!((body.main, body.blocks), (main.to_vec(), vec![(0, data.clone())]));
            });
            for len in 0..data.len() {
                let cut = Rec { blocks: &[(0, &data[..len])], ..rec.clone() };
                assert_eq!(cut.parse().is_ok(), len == 8, "{len}");
            }
        }
    };
    same(10..=13, &main, "remxid 900");
    same(14..=15, &main, "latestRemovedXid 900 nredirected 1 ndead 2");
    let main = le![900u32, 1u16, 2u16, 1u8];
    let text = "snapshotConflictHorizon: 900, nredirected: 1, ndead: 2, nunused: 1, redirected: [3->4], dead: [5, 6], unused: [7]";
    same(16..=16, &main, text);
    // No data: the lists are not shown, not even as empty ones.
    let main = le![900u32, 0u16, 0u16, 0u8];
    check(16..=16, &rec(0x10, &main, &[(0, &[])]), "snapshotConflictHorizon: 900, nredirected: 0, ndead: 0");
}

#[test]
fn vacuum() {
    let blocks: &[(u8, &[u8])] = &[(0, &offsets(&[3, 9]))];
    check(14..=15, &rec(0x20, &[2, 0], blocks), "nunused 2");
    check(16..=16, &rec(0x20, &[2, 0], blocks), "nunused: 2, unused: [3, 9]");
    check(16..=16, &rec(0x20, &[0, 0], &[(0, &[])]), "nunused: 0");
}

#[test]
fn freeze_page() {
    let tuple = le![0u32, 4u16, 3u16, 0x0B00u16, 2u8, 0xEEu8];
    let blocks: &[(u8, &[u8])] = &[(0, &[tuple.clone(), tuple].concat())];
    let main = le![731u32, 2u16];
    check(10..=13, &rec(0x20, &main, blocks), "cutoff xid 731 ntuples 2");
    check(14..=15, &rec(0x30, &main, blocks), "cutoff xid 731 ntuples 2");

    let plans = [le![0u32, 3u16, 2816u16, 0u8, 0xEEu8, 2u16], le![7u32, 4u16, 2817u16, 4u8, 0xEEu8, 1u16]].concat();
    let blocks: &[(u8, &[u8])] = &[(0, &[plans, offsets(&[1, 2, 9])].concat())];
    let text = "snapshotConflictHorizon: 731, nplans: 2, plans: [{ xmax: 0, infomask: 2816, infomask2: 3, ntuples: 2, \
                offsets: [1, 2] }, { xmax: 7, infomask: 2817, infomask2: 4, ntuples: 1, offsets: [9] }]";
    check(16..=16, &rec(0x30, &le![731u32, 2u16, 1u8], blocks), text);
    check(16..=16, &rec(0x30, &le![731u32, 0u16, 0u8], &[(0, &[])]), "snapshotConflictHorizon: 731, nplans: 0");
}

#[test]
fn cleanup_info() {
    check(10..=13, &rec(0x30, &le![1663u32, 5u32, 16384u32, 900u32], &[]), "remxid 900");
}

#[test]
fn prune_and_freeze() {
    let plan = le![0u32, 3u16, 2816u16, 0u8, 0xEEu8, 2u16];
    let parts = [
        le![1u16, 0xEEEEu16],
        plan,
        offsets(&[1, 10, 20]), // redirected
        offsets(&[2, 3, 4]),   // dead
        offsets(&[1, 5]),      // unused
        offsets(&[6, 7]),      // frozen
    ]
    .concat();
    let blocks: &[(u8, &[u8])] = &[(0, &parts), (1, &[])];
    let lists = ", nplans: 1, nredirected: 1, ndead: 2, nunused: 1, plans: [{ xmax: 0, infomask: 2816, infomask2: 3, ntuples: 2, \
                 offsets: [6, 7] }], redirected: [10->20], dead: [3, 4], unused: [5]";
    for info in [0x10u8, 0x20, 0x30] {
        // 17 and 18: the reason, flags in one byte, and the horizon unaligned.
        let main = le![(info / 0x10 - 1), 0xFEu8, 900u32];
        check(17..=18, &rec(info, &main, blocks), &format!("snapshotConflictHorizon: 900, isCatalogRel: T{lists}"));
        check(17..=18, &rec(info, &le![0u8, 0x04u8], &[(0, &[])]), ", isCatalogRel: F");
        // 19: flags in two bytes.
        for (vm, text) in [(0u16, ""), (0x100, ", vm_flags: 0x01"), (0x300, ", vm_flags: 0x03"), (0x200, "")] {
            let main = le![0xFEu16 | vm, 900u32];
            check(19..=19, &rec(info, &main, blocks), &format!("snapshotConflictHorizon: 900, isCatalogRel: T{text}{lists}"));
            check(19..=19, &rec(info, &le![vm], &[(0, &[])]), &format!(", isCatalogRel: F{text}"));
        }
    }
    // Each part alone.
    for (flag, data, text) in [
        (0x20u8, offsets(&[1, 10, 20]), ", nplans: 0, nredirected: 1, ndead: 0, nunused: 0, redirected: [10->20]"),
        (0x40, offsets(&[1, 3]), ", nplans: 0, nredirected: 0, ndead: 1, nunused: 0, dead: [3]"),
        (0x80, offsets(&[2, 3, 4]), ", nplans: 0, nredirected: 0, ndead: 0, nunused: 2, unused: [3, 4]"),
    ] {
        let text = format!(", isCatalogRel: F{text}");
        check(17..=18, &rec(0x20, &le![1u8, flag], &[(0, &data)]), &text);
        check(19..=19, &rec(0x20, &le![u16::from(flag)], &[(0, &data)]), &text);
    }
    // A part that the flags promise, and neither data nor an image.
    assert!(Rec { major: 17, ..rec(0x10, &le![0u8, 0x80u8], &[(0, &[])]) }.parse().is_err());
}

#[test]
fn visible() {
    let main = le![731u32, 3u8];
    let blocks: &[(u8, &[u8])] = &[(0, &[]), (1, &[])];
    check(10..=11, &rec(0x40, &main, blocks), "cutoff xid 731 flags 3");
    check(12..=15, &rec(0x40, &main, blocks), "cutoff xid 731 flags 0x03");
    check(16..=18, &rec(0x40, &main, blocks), "snapshotConflictHorizon: 731, flags: 0x03");
    assert_eq!(Rec { major: 19, ..rec(0x40, &main, blocks) }.parse(), Ok(None));
}

#[test]
fn multi_insert() {
    // Tuples start at even places, so the first one's three bytes are followed by one of padding.
    let tuple = |data: &[u8]| [le![data.len() as u16, 3u16, 0x0902u16, 24u8], data.to_vec()].concat();
    let data = [tuple(b"abcd"), vec![0xEE], tuple(b"xyz")].concat();
    let blocks: &[(u8, &[u8])] = &[(0, &data), (1, &[])];
    let main = le![0x22u8, 0xEEu8, 2u16, 4u16, 5u16];
    check(10..=11, &rec(0x50, &main, blocks), "2 tuples");
    check(12..=15, &rec(0x50, &main, blocks), "2 tuples flags 0x22");
    check(16..=18, &rec(0x50, &main, blocks), "ntuples: 2, flags: 0x22, offsets: [4, 5]");
    check(19..=19, &rec(0x50, &main, blocks), "ntuples: 2, flags: 0x22, vm_flags: 0x03, offsets: [4, 5]");
    let main = le![0x02u8, 0xEEu8, 2u16];
    check(10..=11, &rec(0xD0, &main, blocks), "2 tuples");
    check(12..=15, &rec(0xD0, &main, blocks), "2 tuples flags 0x02");
    check(16..=19, &rec(0xD0, &main, blocks), "ntuples: 2, flags: 0x02");
    Rec { major: 17, ..rec(0xD0, &main, blocks) }.with(|rec| {
        let Some(Op::MultiInsert(insert)) = parse(rec, rec.fmt()).unwrap() else { panic!() };
        let tuples: Vec<_> = insert.tuples.unwrap().iter().map(|tuple| tuple.data.0.to_vec()).collect();
        assert_eq!(tuples, [b"abcd".to_vec(), b"xyz".to_vec()]);
    });
    check(16..=19, &rec(0x50, &le![0u8, 0u8, 0u16], &[(0, &[])]), "ntuples: 0, flags: 0x00");
}

#[test]
fn lock_updated() {
    let main = le![9u32, 3u16, 0x0Au8, 1u8];
    check(10..=11, &rec(0x60, &main, &[(0, &[])]), "off 3: xmax 9: flags 1 LOCK_ONLY KEYSHR_LOCK ");
    check(12..=15, &rec(0x60, &main, &[(0, &[])]), "off 3: xmax 9: flags 0x01 LOCK_ONLY KEYSHR_LOCK ");
    check(16..=19, &rec(0x60, &main, &[(0, &[])]), "xmax: 9, off: 3, infobits: [LOCK_ONLY, KEYSHR_LOCK], flags: 0x01");
}

#[test]
fn new_cid() {
    let main = le![731u32, 0u32, u32::MAX, u32::MAX, 1663u32, 5u32, 1259u32, 1u16, 2u16, 3u16];
    check(10..=15, &rec(0x70, &main, &[]), "rel 1663/5/1259; tid 65538/3; cmin: 0, cmax: 4294967295, combo: 4294967295");
    check(16..=19, &rec(0x70, &main, &[]), "rel: 1663/5/1259, tid: 65538/3, cmin: 0, cmax: 4294967295, combo: 4294967295");
}

#[test]
fn data_of_a_block_that_has_none() {
    for info in [0x00, 0x40, 0x60, 0x70] {
        assert!(Rec { major: 17, ..rec(info, &[0; 40], &[(0, b"x")]) }.parse().is_err());
    }
    assert!(Rec { major: 19, ..rec(0x20, &[0, 1], &[(1, b"x")]) }.parse().is_err());
    assert!(Rec { major: 13, ..rec(0x30, &[0; 16], &[(0, b"x")]) }.parse().is_err());
}

#[test]
fn sizes_of_the_c_structs() {
    for major in 10..=19 {
        let fmt = WalFormat::new(major);
        assert_eq!(PruneHead::size(fmt), if major >= 16 { 9 } else { 8 });
        let sizes = [FreezePlan::size(fmt), FreezeTuple::size(fmt), Visible::size(fmt), NewCid::size(fmt), RewriteHead::size(fmt)];
        assert_eq!(sizes, [12, 12, 5, 34, 40]);
    }
}
