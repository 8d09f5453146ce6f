//! Finding the one bit that was turned.
//!
//! A checksum is linear: turning a bit of the message changes it by a value that depends only on how many bits come behind. So
//! the difference between the checksum that bytes have and the one that was stored names the bit, if it was one.

use crate::lsn::Lsn;
use crate::record::{RECORD_HEADER_SIZE, crc};

/// A bit: the number of its byte, and its place in the byte, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bit {
    pub at: usize,
    pub bit: u8,
}

impl Bit {
    /// Turns the bit in `bytes`.
    pub(super) fn turn(self, bytes: &mut [u8]) {
        if let Some(byte) = bytes.get_mut(self.at) {
            *byte ^= 1 << self.bit;
        }
    }
}

/// CRC-32C's polynomial, in the order of bits that the checksum has.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// Offset of `xl_crc` in a record.
const CRC_AT: usize = 20;
/// Offset of `xl_prev`.
const PREV_AT: usize = 8;

/// The bit that makes the record at the start of `bytes` right when it is turned back; `bytes` may go on behind the record.
///
/// `previous` is what its link must be, where that is known.
pub(super) fn in_record(bytes: &[u8], previous: Option<Lsn>) -> Option<Bit> {
    let total = u32_at(bytes, 0)?;
    let found = as_long_as_it_says(bytes.get(..total as usize).unwrap_or_default()).or_else(|| in_length(bytes, total))?;
    let mut header = bytes.get(..RECORD_HEADER_SIZE)?.to_vec();
    found.turn(&mut header);
    let link = u64::from(u32_at(&header, PREV_AT + 4)?) << 32 | u64::from(u32_at(&header, PREV_AT)?);
    previous.is_none_or(|previous| link == previous.0).then_some(found)
}

/// The bit, if it is not one of the record's length.
fn as_long_as_it_says(record: &[u8]) -> Option<Bit> {
    let stored = u32_at(record, CRC_AT)?;
    let difference = crc(record) ^ stored;
    match difference.count_ones() {
        0 => return None,
        1 => {
            let bit = difference.trailing_zeros(); // at most 31
            return Some(Bit { at: CRC_AT + (bit / 8) as usize, bit: (bit % 8) as u8 });
        }
        _ => {}
    }
    // What turning the last bit of the message changes, then the one before it, and so on.
    let message = record.len().checked_sub(RECORD_HEADER_SIZE - CRC_AT)?;
    let mut change = POLYNOMIAL;
    for from_end in 0..message * 8 {
        if change == difference {
            let byte = message - 1 - from_end / 8; // less than the message
            // The checksum takes what follows the header first, and then the header up to itself.
            let data = record.len() - RECORD_HEADER_SIZE; // not negative: the message has the header's first 20 bytes
            let at = if byte < data { RECORD_HEADER_SIZE + byte } else { byte - data };
            return Some(Bit { at, bit: (7 - from_end % 8) as u8 });
        }
        change = change >> 1 ^ if change & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    None
}

/// The bit, if it is one of the record's length: with another length the checksum covers other bytes.
fn in_length(bytes: &[u8], total: u32) -> Option<Bit> {
    (0..32).map(|bit| (bit, total ^ 1 << bit)).find_map(|(bit, total)| {
        let record = bytes.get(..total as usize).filter(|record| record.len() >= RECORD_HEADER_SIZE)?;
        let (head, data) = record.split_at_checked(RECORD_HEADER_SIZE)?;
        let mut head = head.to_vec();
        head.splice(..4, total.to_le_bytes());
        let is_right = crc32c::crc32c_append(crc32c::crc32c(data), head.get(..CRC_AT)?) == u32_at(&head, CRC_AT)?;
        is_right.then_some(Bit { at: bit / 8, bit: (bit % 8) as u8 })
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

/// The only bit in which `found` differs from `expected`, which is as long.
pub(super) fn between(found: &[u8], expected: &[u8]) -> Option<Bit> {
    let mut different = found.iter().zip(expected).enumerate().filter(|(_, (found, expected))| found != expected);
    let (at, (found, expected)) = different.next()?;
    let bits = found ^ expected;
    (different.next().is_none() && bits.is_power_of_two()).then_some(Bit { at, bit: bits.trailing_zeros() as u8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with a right checksum.
    fn record(len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&0x1234u64.to_le_bytes());
        let right = crc(&bytes);
        bytes[20..24].copy_from_slice(&right.to_le_bytes());
        bytes
    }

    #[test]
    fn every_bit_of_a_record_is_named() {
        for len in [24, 27, 60, 700] {
            let right = record(len);
            assert_eq!(in_record(&right, None), None);
            for at in 0..len {
                for bit in 0..8 {
                    let turned = Bit { at, bit };
                    let mut bytes = right.clone();
                    turned.turn(&mut bytes);
                    bytes.extend([0xA5; 3000]);
                    assert_eq!(in_record(&bytes, Some(Lsn(0x1234))), Some(turned), "{len}");
                    assert_eq!(in_record(&bytes, Some(Lsn(0x1235))), None);
                }
            }
        }
    }

    #[test]
    fn two_bits_are_not_one() {
        let right = record(200);
        for (a, b) in [(30, 31), (4, 199), (20, 21), (0, 150)] {
            let mut bytes = right.clone();
            bytes[a] ^= 1;
            bytes[b] ^= 4;
            assert_eq!(in_record(&bytes, None), None, "{a} {b}");
        }
        assert_eq!(between(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(between(&[1, 2, 3], &[1, 0, 3]), Some(Bit { at: 1, bit: 1 }));
        assert_eq!(between(&[1, 2, 3], &[0, 0, 3]), None);
    }
}
