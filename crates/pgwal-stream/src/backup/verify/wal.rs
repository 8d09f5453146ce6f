//! The WAL that a backup needs.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pgwal::SegmentName;
use pgwal::check::{self, Event, check};
use pgwal::source::Wal;

use super::super::manifest::WalRange;

/// Bytes that are enough to see where the WAL starts.
const FRONT: usize = 64 << 10;

/// Checks the WAL of a range; how many records it has, or what is wrong.
pub(super) fn records(place: &Path, range: &WalRange, stop: &AtomicBool) -> Result<u64, String> {
    let WalRange { timeline, start, end } = *range;
    let needed = format!("WAL from {start} to {end} on timeline {timeline} is needed");
    if !start.is_valid() || end <= start {
        return Err(format!("{needed}, which is no range"));
    }
    let wal = Wal::open_all(&[place], Some(timeline)).map_err(|e| format!("{needed}: {e}"))?;
    if let Some(name) = first_not_plain(&wal, range) {
        return Err(format!("{needed}, and there is no file {name}: the server reads neither compressed segments nor partial ones"));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = check::Options { from: Some(start), to: Some(end), system_identifier: None, threads };
    let mut first = None;
    let summary = check(&wal, options, |event| match event {
        Event::Finding(finding) => {
            first = Some(finding.to_string());
            ControlFlow::Break(())
        }
        _ if stop.load(Ordering::Relaxed) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if let Some(finding) = first {
        return Err(finding);
    }
    // The first record may come later, if the range starts inside a record or a page header; its bytes must be there.
    let starts_before = || wal.extents_from(start, FRONT).next().is_some_and(|extent| extent.is_ok_and(|extent| extent.start <= start));
    match summary.lsns {
        Some(lsns) if lsns.start > start && !starts_before() => {
            return Err(format!("{needed}, and the first record is at {}", lsns.start));
        }
        Some(_) => {}
        None => return Err(format!("{needed}, and there is no record")),
    }
    match summary.ends.iter().find(|found| found.timeline == timeline && found.end.lsn < end) {
        Some(found) => Err(format!("{needed}: {}", found.end)),
        None => Ok(summary.records),
    }
}

/// The first needed segment that is there only under a name which the server does not look for. A segment that is not there at all is found
/// by its records.
fn first_not_plain(wal: &Wal, range: &WalRange) -> Option<SegmentName> {
    let WalRange { timeline, start, end } = *range;
    let fmt = wal.extents_from(start, FRONT).next()?.ok()?.fmt;
    let needed = |name: &SegmentName| {
        let first = name.start(fmt.segment_size);
        name.timeline == timeline && first < end && start < first + u64::from(fmt.segment_size)
    };
    let is_plain = |name: SegmentName| wal.files().any(|(input, found)| found == Some(name) && input.ends_with(&name.to_string()));
    wal.files().filter_map(|(_, name)| name).filter(needed).find(|name| !is_plain(*name))
}
