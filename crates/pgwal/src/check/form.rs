//! How the bytes of a file are to be read: format and place, by its name and what most of its pages say.

use crate::format::{DEFAULT_BLOCK_SIZE, WalFormat};
use crate::lsn::{Lsn, SegmentName};
use crate::page::{PageHeader, is_segment_size};

/// What a file is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub fmt: WalFormat,
    /// LSN of its first byte.
    pub start: Lsn,
    /// System identifier of its first page.
    pub system_identifier: Option<u64>,
    /// Whether its first or second page is of the place that its name tells.
    pub is_wal: bool,
}

/// WAL page sizes, the usual one first.
const PAGE_SIZES: [u32; 7] = [8192, 4096, 16384, 32768, 65536, 2048, 1024];

/// Finds out by the first bytes of a file, `front`; `expected` is the format of the files before. `None`: it is not WAL, as far as one
/// can see.
pub(super) fn find(front: &[u8], name: Option<SegmentName>, expected: Option<WalFormat>) -> Option<Form> {
    let header = PageHeader::read(front).ok().map(|(_, header)| header);
    let own = header.and_then(|header| Some((header.format().ok()?, header.address)));
    // A page behind the first, where the format says that one is, agrees with it.
    let is_confirmed = |fmt: WalFormat, start: Lsn| {
        let page = front.get(fmt.wal_page_size as usize..).and_then(|page| PageHeader::read(page).ok());
        page.is_some_and(|(_, page)| super::belongs(&page, fmt, start + u64::from(fmt.wal_page_size)))
    };
    let system_identifier = header.and_then(|header| header.long).map(|long| long.system_identifier);
    let place = |fmt: WalFormat, address: Lsn| name.map_or(address, |name| name.start(fmt.segment_size));
    let form = |fmt: WalFormat, address: Lsn| {
        let start = place(fmt, address);
        let is_wal = is_confirmed(fmt, start) || header.is_some_and(|header| super::belongs(&header, fmt, start));
        Form { fmt, start, system_identifier, is_wal }
    };
    match (own, expected) {
        (Some((fmt, address)), Some(expected)) if fmt != expected => {
            // Another format counts where two pages have it; one page alone can be damaged.
            let is_other = is_confirmed(fmt, address) || (name.is_none() && !is_confirmed(expected, address));
            Some(if is_other { form(fmt, address) } else { form(expected, address) })
        }
        (_, Some(expected)) if name.is_some() => Some(form(expected, Lsn::INVALID)),
        (Some((fmt, address)), _) if is_confirmed(fmt, address) || by_pages(front, name).is_none() => Some(form(fmt, address)),
        _ => by_pages(front, name).map(|(fmt, start)| form(fmt, start)),
    }
}

/// The format that the pages behind the first one agree on.
fn by_pages(front: &[u8], name: Option<SegmentName>) -> Option<(WalFormat, Lsn)> {
    PAGE_SIZES.into_iter().find_map(|size| {
        let page = |number: usize| PageHeader::read(front.get(size as usize * number..)?).ok().map(|(_, header)| header);
        let (first, second) = (page(1)?, page(2)?);
        let major = first.magic.major().filter(|_| first.magic == second.magic)?;
        let start = Lsn(first.address.0.checked_sub(size.into())?);
        if second.address != first.address + u64::from(size) {
            return None;
        }
        let fmt = |segment_size| WalFormat { major, wal_page_size: size, segment_size, block_size: DEFAULT_BLOCK_SIZE };
        let told = page(0).and_then(|header| header.long).map(|long| long.segment_size).filter(|&size| is_segment_size(size));
        let sizes = told.into_iter().chain((20..=30).map(|power| 1 << power));
        let fits = |&size: &u32| name.map_or(start.segment_offset(size) == 0, |name| name.start(size) == start);
        sizes.into_iter().find(fits).map(|size| (fmt(size), start))
    })
}
