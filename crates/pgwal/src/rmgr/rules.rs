//! What records of the most usual types must be like to be right, as data: whoever checks millions of records asks this first.

use std::sync::OnceLock;

use crate::format::{MAGICS, WalFormat};
use crate::record::{BlockFlags, ID_DATA_SHORT, RECORD_HEADER_SIZE, RecordHeader};
use crate::rmgr::{RmgrId, heap, heap2, xact};

/// A record with short main data, and at most one block that has data, surely parses where this allows its sizes.
///
/// All of it is asked of every record, in a few instructions without a branch: types come in no order that a processor could foresee.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Bits of the record's last eight bytes, as a little-endian number, that must not be set.
    forbidden: u64,
    /// Where two counts of 16 bits stand in the last eight bytes, as a number of bits: of four bytes of data each, and of two.
    counts_at: u8,
    /// Bytes of main data.
    main: u8,
    /// Bits that must not be set in the number of bytes of data.
    odd: u16,
    /// All bits, if there are counts; else none.
    counts: u32,
    /// Fewest bytes of data that block 0 has, besides those that are counted.
    min_data: u16,
    /// So many bytes of data there may be more.
    more_data: u16,
    /// How the record goes on behind its header.
    layout: Layout,
}

/// What stands behind a record's header, if that is one block reference or none, and short main data.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Bits of the first four bytes, as a little-endian number, that must be like those of `front`.
    front_mask: u32,
    front: u32,
    /// Bits of the two bytes behind a block's header that must be like those of `main`: id and length of main data.
    main_mask: u16,
    main: u16,
    /// Bytes of the record without block data.
    size: u16,
}

impl Layout {
    /// Id and length, in front of `main` bytes of main data.
    const fn main(main: u8) -> u16 {
        u16::from_le_bytes([ID_DATA_SHORT, main])
    }

    /// Main data only.
    const fn main_only(main: u8) -> Layout {
        let size = RECORD_HEADER_SIZE as u16 + 2 + main as u16;
        Layout { front_mask: 0xFFFF, front: Layout::main(main) as u32, main_mask: 0, main: 0, size }
    }

    /// Block 0, with a relation and no image, and main data.
    const fn with_block(main: u8) -> Layout {
        let not_set = BlockFlags::BKPBLOCK_HAS_IMAGE.0 | BlockFlags::BKPBLOCK_SAME_REL.0;
        let front_mask = u32::from_le_bytes([0xFF, not_set, 0, 0]);
        Layout { front_mask, front: 0, main_mask: u16::MAX, main: Layout::main(main), size: WITH_BLOCK as u16 + main as u16 }
    }
}

/// Bytes of a record that has one block reference, to a relation of its own, up to its data.
const WITH_BLOCK: usize = RECORD_HEADER_SIZE + 22;

impl Rule {
    /// Allows nothing: there is no main data with this id.
    const NEVER: Rule = Rule { layout: Layout { front_mask: 0, front: 1, main_mask: 0, main: 0, size: 0 }, ..Rule::sized(0, 0) };

    /// Main data of so many bytes, and data of block 0 with so many bytes at least.
    pub(super) const fn sized(main: usize, min_data: usize) -> Rule {
        let (main, min_data) = (main as u8, min_data as u16); // sizes of C structs that are a few bytes long
        let layout = Layout::with_block(main);
        Rule { forbidden: 0, counts_at: 0, main, odd: 0, counts: 0, min_data, more_data: u16::MAX, layout }
    }

    /// No block data.
    pub(super) const fn without_data(self) -> Rule {
        Rule { min_data: 0, more_data: 0, ..self }
    }

    /// No block.
    pub(super) const fn without_block(self) -> Rule {
        Rule { layout: Layout::main_only(self.main), ..self.without_data() }
    }

    /// Main data in which none of `bits` of the byte at `at` is set.
    pub(super) const fn without_bits(self, at: usize, bits: u8) -> Rule {
        // The last byte of main data is that of the record.
        let byte = at as u32 + 8 - self.main as u32;
        Rule { forbidden: (bits as u64) << (8 * byte), ..self }
    }

    /// Even data, as long at least as the two counts at byte `at` of main data say, of four and of two bytes each.
    pub(super) const fn counted(self, at: usize) -> Rule {
        Rule { counts_at: 8 * (at as u8 + 8 - self.main), counts: u32::MAX, odd: 1, ..self }
    }

    #[inline(always)]
    fn allows(&self, data: u16, last: u64) -> bool {
        let counts = (last >> (self.counts_at & 63)) as u32 & self.counts; // the lower half
        let needed = u32::from(self.min_data) + 4 * (counts & 0xFFFF) + 2 * (counts >> 16);
        // Too few are very many more.
        let more = u32::from(data).wrapping_sub(needed);
        (more <= u32::from(self.more_data)) & (data & self.odd == 0) & (last & self.forbidden == 0)
    }

    /// Whether these are the first bytes, and the last ones, of a record that has the layout and is allowed.
    #[inline(always)]
    fn allows_record(&self, front: &Front, last: u64) -> bool {
        let Layout { front_mask, front: expected, main_mask, main, size } = self.layout;
        let found = u32_at(front, RECORD_HEADER_SIZE);
        let has_front = found & front_mask == expected;
        let has_main = u16::from_le_bytes([front[WITH_BLOCK - 2], front[WITH_BLOCK - 1]]) & main_mask == main;
        // Behind the flags stands the length of the data. Without a block these are other bytes, but no flag for data.
        let [_, flags, low, high] = found.to_le_bytes();
        let len = u16::from_le_bytes([low, high]) & if main_mask == 0 { 0 } else { u16::MAX };
        let has_data = (flags & BlockFlags::BKPBLOCK_HAS_DATA.0 != 0) == (len > 0);
        let is_whole = u32::from(size) + u32::from(len) == u32_at(front, 0);
        has_front & has_main & has_data & is_whole & self.allows(len, last)
    }
}

/// The first bytes of a record; what stands behind it, if it is shorter.
pub(crate) type Front = [u8; WITH_BLOCK];

/// Four bytes as a little-endian number.
#[inline(always)]
const fn u32_at(front: &Front, at: usize) -> u32 {
    u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]])
}

/// The rules of a major, by record type.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Number of the rule, by [`Rules::place`].
    numbers: [u8; 1 << 12],
    rules: [Rule; 16],
    len: u8,
}

impl Rules {
    /// The rules for WAL of `fmt`, of which only the major counts.
    pub(crate) fn of(fmt: WalFormat) -> &'static Rules {
        static RULES: [OnceLock<Rules>; MAGICS.len() + 1] = [const { OnceLock::new() }; MAGICS.len() + 1];
        let place = usize::from(fmt.major.wrapping_sub(super::FIRST_MAJOR as u8)).min(MAGICS.len());
        let [rules @ .., none] = &RULES;
        rules.get(place).unwrap_or(none).get_or_init(|| {
            let mut rules = Rules { numbers: [0; _], rules: [Rule::NEVER; _], len: 0 };
            if place < MAGICS.len() {
                xact::rules(&mut rules);
                heap::rules(fmt, &mut rules);
                heap2::rules(fmt, &mut rules);
            }
            rules
        })
    }

    /// Has records checked by `rule` whose info byte is `info` in the bits of `mask`.
    pub(super) fn add(&mut self, rmid: RmgrId, info: u8, mask: u8, rule: Rule) {
        let number = self.len + 1;
        if let Some(slot) = self.rules.get_mut(usize::from(number)) {
            (*slot, self.len) = (rule, number);
            for bits in (0..=u8::MAX).filter(|bits| bits & mask == info) {
                if let Some(slot) = self.numbers.get_mut(Rules::place(u32::from_le_bytes([bits, rmid.0, 0, 0]))) {
                    *slot = number;
                }
            }
        }
    }

    /// Place of a record's number, from its [`RecordHeader::kind`]: none where the padding is not zero. The WAL's own bits of `info`
    /// do not matter.
    #[inline(always)]
    const fn place(kind: u32) -> usize {
        (kind >> 4) as usize // 28 bits
    }

    /// The rule for records of this kind, see [`RecordHeader::kind`].
    #[inline(always)]
    fn rule(&self, kind: u32) -> &Rule {
        let number = self.numbers.get(Rules::place(kind)).copied().unwrap_or_default();
        &self.rules[usize::from(number & 15)] // there are 16
    }

    /// Whether a record with this header, so many bytes of main data and of data in block 0, and these last bytes, surely is right. It
    /// has no other data.
    pub(super) fn allow(&self, header: &RecordHeader, main: usize, data: usize, last: u64) -> bool {
        let rule = self.rule(header.kind());
        main == usize::from(rule.main) && main > 0 && u16::try_from(data).is_ok_and(|data| rule.allows(data, last))
    }

    /// Whether a record has one block reference without an image, or none, and short main data, and surely parses.
    #[inline(always)]
    pub(crate) fn allow_record(&self, front: &Front, last: u64) -> bool {
        self.rule(u32_at(front, 16)).allows_record(front, last)
    }
}
