//! Which rows are valid: what became of the transactions that made and removed them.
//! C: access/heap/heapam_visibility.c, access/transam/clog.c, subtrans.c, multixact.c.

use super::heap::TupleHeader;
use super::slru::{NoPage, Slru};
use super::{DataDir, DataDirError, Problem};
use crate::format::WalFormat;
use crate::heap_tuple::Infomask;
use crate::types::Xid;
use crate::wire::Wire;

/// The cluster's transactions, as its files have them.
pub(super) struct Transactions {
    fmt: WalFormat,
    page_size: u64,
    clog: Slru,
    subtrans: Slru,
    offsets: Slru,
    members: Slru,
}

/// Members of a multixact that are looked at where its end is not known.
const MOST_MEMBERS: u64 = 4096;

impl Transactions {
    pub fn new(dir: &DataDir) -> Transactions {
        let fmt = dir.format();
        Transactions {
            fmt,
            page_size: fmt.block_size.into(),
            clog: Slru::new(dir, "pg_xact", 4),
            subtrans: Slru::new(dir, "pg_subtrans", 4),
            offsets: Slru::new(dir, "pg_multixact/offsets", 4),
            // From 19 on offsets have 64 bits, and the files of what they point to names to match.
            members: Slru::new(dir, "pg_multixact/members", if fmt.since(19) { 15 } else { 4 }),
        }
    }

    /// Whether a tuple is the version of its row that a transaction starting now would see. C: `HeapTupleSatisfiesMVCC`.
    pub fn sees(&mut self, tuple: &TupleHeader, warn: &mut dyn FnMut(DataDirError)) -> bool {
        self.is_inserted(tuple, warn) && !self.is_deleted(tuple, warn)
    }

    fn is_inserted(&mut self, tuple: &TupleHeader, warn: &mut dyn FnMut(DataDirError)) -> bool {
        let mask = tuple.infomask;
        // Committed and invalid together mean frozen.
        if mask.contains(Infomask::HEAP_XMIN_COMMITTED) {
            return true;
        }
        !mask.contains(Infomask::HEAP_XMIN_INVALID) && self.is_committed(tuple.xmin, warn)
    }

    fn is_deleted(&mut self, tuple: &TupleHeader, warn: &mut dyn FnMut(DataDirError)) -> bool {
        let (mask, xmax) = (tuple.infomask, tuple.xmax);
        let locks = Infomask(Infomask::HEAP_XMAX_EXCL_LOCK.0 | Infomask::HEAP_XMAX_KEYSHR_LOCK.0 | Infomask::HEAP_XMAX_IS_MULTI.0);
        // An exclusive lock of a single transaction had no LOCK_ONLY in older releases. C: `HEAP_XMAX_IS_LOCKED_ONLY`.
        let only_locked = mask.contains(Infomask::HEAP_XMAX_LOCK_ONLY) || mask.0 & locks.0 == Infomask::HEAP_XMAX_EXCL_LOCK.0;
        if mask.contains(Infomask::HEAP_XMAX_INVALID) || only_locked || xmax.0 == 0 {
            return false;
        }
        if mask.contains(Infomask::HEAP_XMAX_IS_MULTI) {
            return self.updater(xmax.0, warn).is_some_and(|xid| self.is_committed(xid, warn));
        }
        mask.contains(Infomask::HEAP_XMAX_COMMITTED) || self.is_committed(xmax, warn)
    }

    /// Whether a transaction and, of a subtransaction, all it is part of, committed. C: `TransactionIdDidCommit`.
    fn is_committed(&mut self, xid: Xid, warn: &mut dyn FnMut(DataDirError)) -> bool {
        let mut xid = xid.0;
        loop {
            match xid {
                0 => return false,
                1 | 2 => return true, // BootstrapTransactionId, FrozenTransactionId
                _ => {}
            }
            let status = match clog_status(&mut self.clog, xid, self.page_size) {
                Ok(status) => status,
                Err(NoPage { path, reason }) => {
                    warn(DataDirError::of(&path, Problem::NoStatus { xid, reason }));
                    return false;
                }
            };
            match status {
                Status::Committed => return true,
                Status::InProgress | Status::Aborted => return false,
                Status::SubCommitted => {}
            }
            // The server empties pg_subtrans when it starts: a parent that is gone has not committed.
            let entries = self.page_size / 4;
            let page = self.subtrans.page(u64::from(xid) / entries).ok().flatten();
            let parent = page.map_or(0, |page| number(page, u64::from(xid) % entries * 4, self.fmt));
            // A parent is older; anything else would go round in circles. C: `TransactionIdPrecedes`.
            if parent > 2 && (xid.wrapping_sub(parent) as i32) <= 0 {
                return false;
            }
            xid = parent;
        }
    }

    /// The member of a multixact that updated or deleted the row; the others only locked it. C: `MultiXactIdGetUpdateXid`.
    fn updater(&mut self, multi: u32, warn: &mut dyn FnMut(DataDirError)) -> Option<Xid> {
        match self.find_updater(multi) {
            Ok(updater) => updater,
            Err(NoPage { path, reason }) => {
                warn(DataDirError::of(&path, Problem::NoStatus { xid: multi, reason: format!("a multixact: {reason}") }));
                None
            }
        }
    }

    fn find_updater(&mut self, multi: u32) -> Result<Option<Xid>, NoPage> {
        let Some(start) = self.offset(multi)? else { return Ok(None) };
        // Ids wrap around and leave out zero. The last one's end may not be there yet.
        let next = self.offset(multi.checked_add(1).unwrap_or(1)).ok().flatten().filter(|&next| next != 0);
        let wide = self.fmt.since(19);
        let count = match next {
            Some(next) if wide => next.saturating_sub(start),
            Some(next) => u64::from((next as u32).wrapping_sub(start as u32)),
            None => MOST_MEMBERS,
        };
        // Members are in groups of four: their flags, one byte each, then their ids.
        let groups = self.page_size / 20;
        for at in 0..count.min(MOST_MEMBERS) {
            let member = if wide { start.saturating_add(at) } else { u64::from((start as u32).wrapping_add(at as u32)) };
            let (group, of_group) = (member / 4, member % 4);
            let Some(page) = self.members.page(group / groups)? else { return Ok(None) };
            let group = group % groups * 20;
            let flags = usize::try_from(group + of_group).ok().and_then(|at| page.get(at)).copied().unwrap_or(0);
            let xid = number(page, group + 4 + of_group * 4, self.fmt);
            match (xid, next) {
                // Where ids wrap around, a place that no member has.
                (0, Some(_)) => {}
                (0, None) => break,
                // MultiXactStatusNoKeyUpdate, MultiXactStatusUpdate; those below are locks.
                _ if flags >= 4 => return Ok(Some(Xid(xid))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Where the members of a multixact start.
    fn offset(&mut self, multi: u32) -> Result<Option<u64>, NoPage> {
        let (fmt, width) = (self.fmt, if self.fmt.since(19) { 8 } else { 4 });
        let entries = self.page_size / width;
        let page = self.offsets.page(u64::from(multi) / entries)?;
        let at = u64::from(multi) % entries * width;
        Ok(page.map(|page| {
            let high = if width == 8 { number(page, at + 4, fmt) } else { 0 };
            u64::from(high) << 32 | u64::from(number(page, at, fmt))
        }))
    }
}

/// C: `TRANSACTION_STATUS_IN_PROGRESS` and so on, access/clog.h.
enum Status {
    InProgress,
    Committed,
    Aborted,
    SubCommitted,
}

/// Two bits for each transaction.
fn clog_status(clog: &mut Slru, xid: u32, page_size: u64) -> Result<Status, NoPage> {
    let entries = page_size * 4;
    let page = clog.page(u64::from(xid) / entries)?;
    let at = u64::from(xid) % entries;
    let byte = page.zip(usize::try_from(at / 4).ok()).and_then(|(page, at)| page.get(at)).copied().unwrap_or(0);
    Ok(match byte >> (at % 4 * 2) & 3 {
        1 => Status::Committed,
        2 => Status::Aborted,
        3 => Status::SubCommitted,
        _ => Status::InProgress,
    })
}

/// Four bytes of a page; zero beyond its end, where no entry is.
fn number(page: &[u8], at: u64, fmt: WalFormat) -> u32 {
    let at = usize::try_from(at).ok().and_then(|at| page.get(at..));
    at.and_then(|at| u32::read(at, fmt).ok()).map_or(0, |(_, number)| number)
}
