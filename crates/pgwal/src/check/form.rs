//! How the bytes of a file are to be read: format and place, by its name and what most of its pages say.

use crate::format::WalFormat;
use crate::lsn::{Lsn, SegmentName};
use crate::page::{PageHeader, is_segment_size};
use crate::set::most_frequent;

/// What a file is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub fmt: WalFormat,
    /// LSN of its first byte.
    pub start: Lsn,
    /// Whether its first or second page is of the place that its name tells.
    pub is_wal: bool,
}

/// WAL page sizes, smallest first: pages fit every multiple of their size, too.
const PAGE_SIZES: [u32; 7] = [1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// Pages at the front of a file that are asked for its format.
const WITNESSES: usize = 16;

/// What most files say, by their first bytes: format and system identifier.
pub(super) fn vote<'f>(fronts: impl Iterator<Item = &'f [u8]>) -> Option<(WalFormat, u64)> {
    most_frequent(fronts.filter_map(|front| {
        let (_, header) = PageHeader::read(front).ok()?;
        Some((header.format().ok()?, header.long?.system_identifier))
    }))
}

/// Finds out by the first bytes of a file, `front`; `expected` is the format of most files. `None`: it is not WAL, as far as one can see.
pub(super) fn find(front: &[u8], name: Option<SegmentName>, expected: Option<WalFormat>) -> Option<Form> {
    let header = PageHeader::read(front).ok().map(|(_, header)| header);
    let own = header.and_then(|header| Some((header.format().ok()?, header.address)));
    let form = |fmt: WalFormat, address: Lsn| {
        let start = name.map_or(address, |name| name.start(fmt.segment_size));
        let second = front.get(fmt.wal_page_size as usize..).and_then(|page| PageHeader::read(page).ok()).map(|(_, header)| header);
        let places = [(header, start), (second, start + u64::from(fmt.wal_page_size))];
        let is_wal = places.iter().any(|(header, at)| header.is_some_and(|header| belongs(&header, fmt, *at)));
        Form { fmt, start, is_wal }
    };
    // One header can be damaged; two pages that agree with each other and with the name are right.
    match (by_pages(front, name), expected, own) {
        (Some((fmt, start)), ..) => Some(form(fmt, start)),
        (None, Some(fmt), _) if name.is_some() => Some(form(fmt, Lsn::INVALID)),
        (None, _, Some((fmt, address))) => Some(form(fmt, address)),
        (None, ..) => None,
    }
}

/// Whether a page says that it belongs at `start`.
fn belongs(header: &PageHeader, fmt: WalFormat, start: Lsn) -> bool {
    header.magic.major() == Some(fmt.major) && header.address == start
}

/// The format that most of the first pages agree on: whatever is damaged, the long page header included, is outvoted.
fn by_pages(front: &[u8], name: Option<SegmentName>) -> Option<(WalFormat, Lsn)> {
    let long = PageHeader::read(front).ok().and_then(|(_, header)| header.long);
    PAGE_SIZES.into_iter().find_map(|size| {
        let headers = front.chunks(size as usize).take(WITNESSES).map(|page| PageHeader::read(page).ok().map(|(_, header)| header));
        // What each page says of where the file starts; the first ones are asked first, as the last ones may be left from an older segment.
        let origins: Vec<Option<(u8, Lsn)>> = (0..)
            .zip(headers)
            .map(|(number, header)| {
                let header = header?;
                let before = u64::from(size) * number; // less than WITNESSES pages
                Some((header.magic.major()?, Lsn(header.address.0.checked_sub(before)?)))
            })
            .collect();
        origins.iter().flatten().find_map(|&(major, start)| {
            let agrees = |origin: &&Option<(u8, Lsn)>| **origin == Some((major, start));
            // Pages after the last one that agrees may not be written yet, so they do not vote.
            let (count, last) = (origins.iter().filter(agrees).count(), origins.iter().rposition(|origin| agrees(&origin))?);
            // If the size is too small, every other place lies inside a page and has no header, so no two in a row agree.
            let has_pair = origins.windows(2).any(|pair| pair.iter().all(|origin| agrees(&origin)));
            let is_told = long.is_some_and(|long| long.wal_page_size == size);
            if count < 2 || 3 * count < 2 * (last + 1) || !(has_pair || is_told) {
                return None;
            }
            let fmt = |segment_size| WalFormat { major, wal_page_size: size, segment_size, block_size: 0 };
            let told = long.map(|long| long.segment_size).filter(|&size| is_segment_size(size));
            let sizes = told.into_iter().chain((20..=30).map(|power| 1 << power));
            let fits = |&size: &u32| name.map_or(start.segment_offset(size) == 0, |name| name.start(size) == start);
            sizes.into_iter().find(fits).map(|size| (fmt(size), start))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgwal_testkit::fixtures;

    #[test]
    fn a_damaged_first_page_does_not_hide_the_format() {
        let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 15 && fixture.scenario == "pgbench").unwrap();
        let path = &fixture.segments()[0];
        let name = path.file_name().unwrap().to_str().unwrap().parse().ok();
        let mut bytes = std::fs::read(path).unwrap();
        let right = find(&bytes, name, None).unwrap();
        assert!(right.fmt.major == 15 && right.is_wal && Some(right.start) == name.map(|name| name.start(1 << 20)));
        for damage in [0..40, 0..2, 32..40, 0..8192, 8192..8194, 8192..8200, 8192..16384, 16384..16400, 8200..8208] {
            for with in [0, 0x14, 0xFF] {
                let good = bytes[damage.clone()].to_vec();
                bytes[damage.clone()].fill(with);
                assert_eq!(find(&bytes, name, None), Some(right), "{damage:?}");
                // Also where nothing more has come, or what stood there before, or where the file ends.
                let end = damage.end.next_multiple_of(8192) + 2 * 8192;
                let rest = bytes[end..].to_vec();
                bytes[end..].fill(0);
                assert_eq!(find(&bytes, name, None), Some(right), "{damage:?}, and zeroes");
                assert_eq!(find(&bytes[..end], name, None), Some(right), "{damage:?}, cut short");
                bytes[end..].copy_from_slice(&rest);
                bytes[damage.clone()].copy_from_slice(&good);
            }
        }
        assert_eq!(find(&[0; 1 << 20], name, None), None);
        assert_eq!(find(&[0; 1 << 20], name, Some(right.fmt)), Some(Form { is_wal: false, ..right }));
        assert_eq!(vote([&bytes[..], &[0; 8192], &[1; 30]].into_iter()).map(|(fmt, _)| fmt), Some(right.fmt));
    }
}
