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

/// WAL page sizes, the usual one first.
const PAGE_SIZES: [u32; 7] = [8192, 4096, 16384, 32768, 65536, 2048, 1024];

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

/// The format that the pages behind the first one agree on.
fn by_pages(front: &[u8], name: Option<SegmentName>) -> Option<(WalFormat, Lsn)> {
    PAGE_SIZES.into_iter().find_map(|size| {
        let page = |number: usize| PageHeader::read(front.get(size as usize * number..)?).ok().map(|(_, header)| header);
        let (zeroth, first, second) = (page(0)?, page(1)?, page(2)?);
        let follows =
            |page: &PageHeader, before: &PageHeader| page.magic == before.magic && page.address == before.address + u64::from(size);
        let major = first.magic.major().filter(|_| follows(&second, &first) || follows(&first, &zeroth))?;
        let start = Lsn(first.address.0.checked_sub(size.into())?);
        let fmt = |segment_size| WalFormat { major, wal_page_size: size, segment_size, block_size: 0 };
        let told = zeroth.long.map(|long| long.segment_size).filter(|&size| is_segment_size(size));
        let sizes = told.into_iter().chain((20..=30).map(|power| 1 << power));
        let fits = |&size: &u32| name.map_or(start.segment_offset(size) == 0, |name| name.start(size) == start);
        sizes.into_iter().find(fits).map(|size| (fmt(size), start))
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
        for damage in [0..40, 0..2, 32..40, 0..8192] {
            let good = bytes[damage.clone()].to_vec();
            bytes[damage.clone()].fill(0);
            assert_eq!(find(&bytes, name, None), Some(right), "{damage:?}");
            bytes[damage].copy_from_slice(&good);
        }
        assert_eq!(find(&[0; 1 << 20], name, None), None);
        assert_eq!(find(&[0; 1 << 20], name, Some(right.fmt)), Some(Form { is_wal: false, ..right }));
        assert_eq!(vote([&bytes[..], &[0; 8192], &[1; 30]].into_iter()).map(|(fmt, _)| fmt), Some(right.fmt));
    }
}
