//! Which file carries on which, over timelines, by their names.

use std::collections::BTreeMap;

use crate::lsn::{SegmentName, TimelineId};

/// What comes before each file.
#[derive(Debug)]
pub(super) struct Links {
    before: Vec<Option<usize>>,
    gaps: Vec<Option<(SegmentName, SegmentName)>>,
    /// Files that another than the next one carries on, each with the last one that does.
    forks: BTreeMap<usize, usize>,
}

impl Links {
    /// `files` are in the order of their names, the best one of each segment first.
    pub(super) fn new(files: &[(&str, Option<SegmentName>)], segment_size: u32) -> Links {
        let mut links = Links { before: vec![None; files.len()], gaps: vec![None; files.len()], forks: BTreeMap::new() };
        let named =
            files.iter().enumerate().filter_map(|(file, (_, name))| name.map(|name| (name.number(segment_size), name.timeline, file)));
        let mut named: Vec<(u64, TimelineId, usize)> = named.collect();
        named.sort(); // the best file of a segment stays the first
        // The last segment before, by timeline: without those that a later one of an older timeline comes before.
        let mut last: BTreeMap<TimelineId, (u64, usize)> = BTreeMap::new();
        for same in named.chunk_by(|a, b| a.0 == b.0) {
            for &(number, timeline, file) in same {
                // The newest timeline that can have led here.
                match last.range(..=timeline).next_back() {
                    Some((_, &(before, at))) if before + 1 == number => {
                        if let Some(link) = links.before.get_mut(file) {
                            *link = Some(at);
                        }
                        if at + 1 != file {
                            let last = links.forks.entry(at).or_default();
                            *last = file.max(*last);
                        }
                    }
                    Some((&timeline, &(before, _))) => {
                        let missing = |number| SegmentName::new(timeline, number, segment_size);
                        if let Some(gap) = links.gaps.get_mut(file) {
                            *gap = Some((missing(before + 1), missing(number - 1))); // before + 1 < number
                        }
                    }
                    None => {}
                }
            }
            if let Some(&(_, oldest, _)) = same.first() {
                drop(last.split_off(&oldest));
            }
            for &(number, timeline, file) in same {
                last.entry(timeline).or_insert((number, file));
            }
        }
        links
    }

    /// The file that `file` carries on.
    pub(super) fn before(&self, file: usize) -> Option<usize> {
        self.before.get(file).copied().flatten()
    }

    /// First and last of the segments that are missing before `file`.
    pub(super) fn gap(&self, file: usize) -> Option<(SegmentName, SegmentName)> {
        self.gaps.get(file).copied().flatten()
    }

    /// Whether a file further on carries on `file`.
    pub(super) fn is_fork(&self, file: usize) -> bool {
        self.forks.contains_key(&file)
    }

    /// Whether no file behind `file` carries on `before`.
    pub(super) fn is_last(&self, before: usize, file: usize) -> bool {
        self.forks.get(&before).is_none_or(|&last| last <= file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_carry_on_over_timelines() {
        let names = [
            "000000010000000000000004",
            "000000010000000000000005",
            "000000010000000000000006",
            "000000010000000000000006.partial",
            "000000010000000000000009",
            "000000020000000000000006",
            "000000020000000000000007",
            "000000030000000000000009",
        ];
        let files: Vec<(&str, Option<SegmentName>)> = names.iter().map(|name| (*name, name[..24].parse().ok())).collect();
        let links = Links::new(&files, 1 << 24);
        let before: Vec<Option<usize>> = (0..names.len()).map(|file| links.before(file)).collect();
        assert_eq!(before, [None, Some(0), Some(1), Some(1), None, Some(1), Some(5), None]);
        let gap = |first: &str, last: &str| Some((first.parse().unwrap(), last.parse().unwrap()));
        assert_eq!(links.gap(4), gap("000000010000000000000007", "000000010000000000000008"));
        assert_eq!(links.gap(7), gap("000000020000000000000008", "000000020000000000000008"));
        assert!(links.gap(1).is_none() && links.is_fork(1) && !links.is_fork(0));
    }
}
