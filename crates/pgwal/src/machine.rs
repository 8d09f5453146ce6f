//! What only the machine can do, and Rust calls unsafe: mapping a file, and the processor's CRC-32C instruction.
//!
//! The only unsafe code of this crate is here.

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

use crate::record::RECORD_HEADER_SIZE;

/// Maps `len` bytes of `file` from `offset`.
///
/// Mapping is right for files that stay as long as they are: archives and finished segments. A file that is cut short while it is
/// mapped kills the process (SIGBUS); the server never does that to a segment, it removes or renames it.
///
/// # Errors
/// The file system does not map, or `len` is zero.
#[expect(unsafe_code, reason = "a file can change while it is mapped")]
pub(crate) fn map(file: &File, offset: u64, len: usize) -> io::Result<Mmap> {
    let mut options = MmapOptions::new();
    options.offset(offset).len(len);
    // SAFETY: the map is private and read-only, and nothing in this process writes to the file. Another process may change
    // bytes under us, as it may while we read them; every byte is checked as hostile input anyway, and no reference to the map
    // is handed out as anything but bytes.
    unsafe { options.map_copy_read_only(file) }
}

/// Has the system set up the pages of `len` bytes at `start` of `map` now, which is faster than one by one as they are touched.
///
/// Where it does not do that (Linux before 5.14), it sets them up as they are touched.
pub(crate) fn populate(map: &Mmap, start: usize, len: usize) {
    #[cfg(target_os = "linux")]
    {
        // The address has to be that of a page; those before it are there or are wanted soon.
        let start_of_page = start & !0xFFFF;
        let _ = map.advise_range(memmap2::Advice::PopulateRead, start_of_page, len + (start - start_of_page));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (map, start, len);
}

/// Has the processor fetch what stands some way after the start of `bytes`, if anything does.
///
/// WAL is read faster than memory brings it, and what the processor fetches by itself ends with each page of the system's memory.
#[inline(always)]
pub(crate) fn fetch_ahead(bytes: &[u8]) {
    /// A page: far enough for the memory to answer, and near enough for the cache.
    const AHEAD: usize = 4096;
    fetch(bytes, AHEAD);
}

/// Has the processor fetch two lines of its cache `ahead` of the start of `bytes`, as most records are a little longer than one.
#[inline(always)]
pub(crate) fn fetch(bytes: &[u8], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = bytes.as_ptr().wrapping_add(ahead);
        #[expect(unsafe_code, reason = "the compiler does not know that nothing happens at addresses that are not there")]
        // SAFETY: this reads nothing that the program sees; an address that is not there is passed over.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
            _mm_prefetch::<_MM_HINT_T0>(address.wrapping_add(64).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, ahead);
}

/// What computes the CRC-32C of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc {
    /// The processor has an instruction for it, as was found out.
    has_instruction: bool,
}

/// Records with more data than this have their CRC computed by crc32c, which works on several pieces at a time.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 512;

impl Crc {
    /// What there is.
    #[inline]
    pub(crate) fn new() -> Crc {
        #[cfg(target_arch = "x86_64")]
        let has_instruction = is_x86_feature_detected!("sse4.2");
        #[cfg(not(target_arch = "x86_64"))]
        let has_instruction = false;
        Crc { has_instruction }
    }

    /// Runs `f`, compiled for processors that compute CRCs themselves if this is one: inside it, that costs no call then.
    #[inline]
    pub(crate) fn with<R>(f: impl FnOnce(Crc) -> R) -> R {
        let crc = Crc::new();
        #[cfg(target_arch = "x86_64")]
        if crc.has_instruction {
            #[target_feature(enable = "sse4.2")]
            fn run<R>(f: impl FnOnce(Crc) -> R) -> R {
                f(Crc { has_instruction: true })
            }
            #[expect(unsafe_code, reason = "the compiler cannot know that the processor was asked")]
            // SAFETY: the processor has the instruction.
            return unsafe { run(f) };
        }
        f(crc)
    }

    /// The CRC-32C of a record's bytes as the server takes them: what follows the header, and then the header, here with the CRC in it.
    ///
    /// crc32c spends twice as much on a call as on the bytes of a usual record, and every pass over the WAL does this for each
    /// record: hence a loop of our own for what is short.
    #[inline(always)]
    pub(crate) fn with_own(self, record: &[u8]) -> Option<u32> {
        let (header, data) = record.split_first_chunk::<RECORD_HEADER_SIZE>()?;
        #[cfg(target_arch = "x86_64")]
        if data.len() <= SHORT && self.has_instruction {
            #[expect(unsafe_code, reason = "the compiler cannot know that the processor was asked")]
            // SAFETY: the processor has the instruction.
            return Some(unsafe { short::crc(header, data, record.last_chunk()?) });
        }
        Some(crc32c::crc32c_append(crc32c::crc32c(data), header))
    }

    /// Whether the CRC in a record's header is right.
    #[inline(always)]
    pub(crate) fn is_right(self, record: &[u8]) -> bool {
        /// What the CRC-32C of bytes comes to with their own CRC-32C after them, whatever they are.
        const RESIDUE: u32 = 0x4867_4BC7;
        self.with_own(record) == Some(RESIDUE)
    }
}

/// Extends the CRC-32C `crc` by `bytes`, prefetching them: they are not expected to be in the cache.
pub(crate) fn append_to_crc(mut crc: u32, bytes: &[u8]) -> u32 {
    /// What crc32c takes at a time: three times 256 bytes.
    const STEP: usize = 768;
    /// Far enough for the memory to answer, on a machine where 1,024 and 4,096 were slower.
    const AHEAD: usize = 2048;
    for (number, step) in bytes.chunks(STEP).enumerate() {
        for line in (0..STEP).step_by(128) {
            fetch(bytes, number * STEP + line + AHEAD);
        }
        crc = crc32c::crc32c_append(crc, step);
    }
    crc
}

/// Whether the CRC in the header of a single record is right.
#[inline(never)]
pub(crate) fn has_right_crc(record: &[u8]) -> bool {
    Crc::new().is_right(record)
}

#[cfg(target_arch = "x86_64")]
mod short {
    use std::arch::x86_64::_mm_crc32_u64;

    use crate::record::RECORD_HEADER_SIZE;

    /// `last` are the last bytes of the record, whether they belong to `data` or to `header`.
    #[inline]
    #[target_feature(enable = "sse4.2")]
    pub(super) fn crc(header: &[u8; RECORD_HEADER_SIZE], mut data: &[u8], last: &[u8; 8]) -> u32 {
        let mut crc = u64::from(u32::MAX);
        // For so few words, the compiler's preparations for several words at a time would cost more than they save.
        while let Some((word, rest)) = data.split_first_chunk() {
            crc = _mm_crc32_u64(crc, u64::from_le_bytes(*word));
            data = rest;
        }
        // Up to seven bytes are left. To take them one after the other costs branches that nothing predicts. But zeroes do not
        // change a CRC that is zero, so the bits that are left can stand at the end of a word, behind zeroes, once those of the
        // CRC that they meet are in them; the other bits of the CRC only move up.
        let bits = 8 * data.len() as u32; // at most 56
        let left = u64::from_le_bytes(*last) >> (56 - bits) >> 8;
        crc = _mm_crc32_u64(0, (crc ^ left) << (56 - bits) << 8) ^ crc >> bits;
        let (words, _) = header.as_chunks();
        for word in words {
            crc = _mm_crc32_u64(crc, u64::from_le_bytes(*word));
        }
        !(crc as u32) // the upper half is zero
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_records_have_the_crc_that_crc32c_computes() {
        let bytes: Vec<u8> = (0..700_u32).map(|i| ((i * i) >> 3) as u8).collect();
        for start in [0, 3, 8] {
            for len in 0..600 {
                let record = &bytes[start..start + len];
                let expected = (len >= 24).then(|| crc32c::crc32c_append(crc32c::crc32c(&record[24..]), &record[..24]));
                assert_eq!(Crc::new().with_own(record), expected, "{len} bytes at {start}");
            }
        }
    }
}
