use crate::rmgr::testing::Rec;

const TIME: &str = "2000-01-01 00:00:01.000000 UTC";

/// Bytes of a payload, put together field by field.
#[derive(Default)]
struct Main(Vec<u8>);

impl Main {
    fn new(time: i64) -> Main {
        Main::default().i64(time)
    }
    fn i64(mut self, value: i64) -> Main {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn words(mut self, words: &[u32]) -> Main {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Main {
        self.0.extend(bytes);
        self
    }
    /// Fills up to a multiple of eight with bytes that are not zero.
    fn align(mut self) -> Main {
        self.0.resize(self.0.len().next_multiple_of(8), 0xEE);
        self
    }
}

fn rec(major: u8, info: u8, main: &Main) -> Rec<'_> {
    Rec { major, rmid: 1, info, main: &main.0, ..Rec::default() }
}

const RELCACHE: [u32; 4] = [0xFE, 5, 1259, 0];

#[test]
fn bare_time() {
    let main = Main::new(1_000_000);
    for major in 10..=19 {
        rec(major, 0x00, &main).check(TIME, &[]);
        rec(major, 0x20, &main).check(TIME, &[]);
    }
}

/// Every part that a commit of `major` can have, under the flags that announce them.
fn full(major: u8, is_commit: bool) -> Main {
    let flags = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 7 << 29;
    let mut main = Main::new(1_000_000).words(&[flags | u32::from(is_commit) << 3]);
    let twophase_abort = major >= 11;
    if is_commit || twophase_abort {
        main = main.words(&[5, 1663]);
    }
    main = main.words(&[2, 701, 702]).words(&[2, 1663, 5, 16384, 1664, 0, 1260]);
    if major >= 15 {
        main = main.words(&[1, 2, 5, 16384]);
    }
    if major >= 18 {
        main = main.words(&[1]); // the object's upper half
    }
    if is_commit {
        main = main.words(&[1]).words(&RELCACHE);
    }
    main = main.words(&[700]);
    if major >= 11 {
        main = main.bytes(b"my gid\0");
    }
    if is_commit || twophase_abort {
        main = main.i64(0x1_0000_00AB).i64(0); // not aligned from 11 on
    }
    main
}

#[test]
fn commit_with_everything() {
    for major in 10..=19 {
        let stats = match major {
            10..=14 => "",
            15..=17 => "; dropped stats: 2/5/16384",
            _ => "; dropped stats: 2/5/4294983680",
        };
        let feedback = if major >= 15 { "; apply_feedback" } else { "" };
        let lsn = if major >= 19 { "1/000000AB" } else { "1/AB" };
        let text = format!(
            "700: {TIME}; rels: base/5/16384 global/1260; subxacts: 701 702{stats}; relcache init file inval dbid 5 tsid 1663; \
             inval msgs: relcache 1259{feedback}; sync; origin: node 3, lsn {lsn}, at 2000-01-01 00:00:00.000000 UTC"
        );
        for info in [0x80, 0xB0] {
            Rec { origin: Some(3), ..rec(major, info, &full(major, true)) }.check(&text, &[]);
        }
    }
}

#[test]
fn abort_with_everything() {
    for major in 10..=19 {
        let lsn = if major >= 19 { "1/000000AB" } else { "1/AB" };
        let rest = match major {
            10..=14 => String::new(),
            _ => format!(
                "; origin: node 3, lsn {lsn}, at 2000-01-01 00:00:00.000000 UTC; dropped stats: 2/5/{}",
                if major >= 18 { "4294983680" } else { "16384" }
            ),
        };
        let text = format!("700: {TIME}; rels: base/5/16384 global/1260; subxacts: 701 702{rest}");
        for info in [0xA0, 0xC0] {
            Rec { origin: Some(3), ..rec(major, info, &full(major, false)) }.check(&text, &[]);
        }
    }
}

#[test]
fn xinfo_counts_only_with_its_info_bit() {
    // Without the bit the same bytes are left over.
    assert!(rec(15, 0x00, &Main::new(0).words(&[0])).parse().is_err());
    rec(15, 0x80, &Main::new(1_000_000).words(&[0])).check(TIME, &[]);
}

#[test]
fn assignment() {
    for major in 10..=19 {
        rec(major, 0x50, &Main::default().words(&[700, 2, 701, 702])).check("xtop 700: subxacts: 701 702", &[]);
    }
}

#[test]
fn invalidation() {
    let main = Main::default().words(&[1]).words(&RELCACHE);
    rec(14, 0x60, &main).check("; inval msgs: relcache 1259", &[]);
    rec(15, 0x60, &Main::default().words(&[0])).check("", &[]);
    assert_eq!(rec(13, 0x60, &main).parse(), Ok(None));
}

/// A prepared transaction with every kind of part and state.
fn prepared(major: u8) -> Main {
    let since = |first| major >= first;
    let mut main = Main::default().words(&[0x57F9_4534, 0, 700, 5]).i64(1_000_000).words(&[10, 1, 1, 1]);
    if since(15) {
        main = main.words(&[1, 1]);
    }
    main = main.words(&[1]).bytes(&[1, 0xEE, 4, 0]); // one message, init file, padding, four bytes of name
    if since(11) {
        main = main.i64(0xAB).i64(0);
    }
    main = main.bytes(b"gid\0").align();
    main = main.words(&[701]).align().words(&[1663, 5, 16384]).align().words(&[1700, 5, 16385]).align();
    if since(15) {
        for relation in [16384, 16385] {
            main = main.words(&[2, 5, relation]);
            main = if since(18) { main.words(&[0]) } else { main.align() };
        }
    }
    main = main.words(&RELCACHE);
    let state = |main: Main, len: u32, rmid: u8| main.words(&[len]).bytes(&[rmid, 0xEE, 0, 0]);
    main = state(main, 20, 1).words(&[5, 16384, 0]).bytes(&[0, 0, 0, 1]).words(&[8]).align();
    main = state(main, 56, 2).i64(1).i64(2).i64(3).i64(4).i64(5).i64(6).words(&[16384]).bytes(&[0, 1, 0xEE, 0xEE]);
    main = state(main, 4, 3).words(&[7]).align();
    main = state(main, 24, 4).words(&[0, 699, 1, 0xEE, 0xEE, 0xEE]);
    main = state(main, 24, 4).words(&[1, 5, 16384, 0, 0, 0xEE]);
    main = state(main, 3, 9).bytes(b"abc").align();
    state(main, 0, 0)
}

#[test]
fn prepare() {
    for major in 10..=19 {
        let main = prepared(major);
        let directory = match major {
            13 => "PG_13_202007201",
            14 => "PG_14_202107181",
            15 => "PG_15_202209061",
            16 => "PG_16_202307071",
            17 => "PG_17_202406281",
            18 => "PG_18_202506291",
            _ => "PG_19_202610061",
        };
        let stats = if major >= 15 { "; commit dropped stats: 2/5/16384; abort dropped stats: 2/5/16385" } else { "" };
        let text = format!(
            "gid gid: {TIME}; rels(commit): base/5/16384; rels(abort): pg_tblspc/1700/{directory}/5/16385{stats}; subxacts: 701; \
             relcache init file inval dbid 5 tsid 0; inval msgs: relcache 1259"
        );
        rec(major, 0x10, &main).check(if major >= 13 { &text } else { "" }, &[]);
        let origin = match major {
            10..=14 => "",
            15..=18 => "; origin: node 3, lsn 0/AB, at 2000-01-01 00:00:00.000000 UTC",
            _ => "; origin: node 3, lsn 0/000000AB, at 2000-01-01 00:00:00.000000 UTC",
        };
        if major >= 13 {
            Rec { origin: Some(3), ..rec(major, 0x10, &main) }.check(&format!("{text}{origin}"), &[]);
        }
    }
}

#[test]
fn state_of_a_wrong_length() {
    let head = Main::default().words(&[0, 0, 700, 5]).i64(0).words(&[10, 0, 0, 0, 0]).bytes(&[0, 0, 0, 0]).i64(0).i64(0);
    let lock = |len: u32| {
        let main = Main(head.0.clone()).words(&[len]).bytes(&[1, 0, 0, 0]).words(&vec![0; len as usize / 4]).align();
        main.words(&[0, 0])
    };
    assert!(rec(11, 0x10, &lock(20)).parse().is_ok());
    assert!(rec(11, 0x10, &lock(24)).parse().is_err());
    assert!(rec(11, 0x10, &lock(16)).parse().is_err());
    // An unknown kind of predicate record.
    let predicate = Main(head.0.clone()).words(&[24]).bytes(&[4, 0, 0, 0]).words(&[2, 0, 0, 0, 0, 0]).words(&[0, 0]);
    assert!(rec(11, 0x10, &predicate).parse().is_err());
}
