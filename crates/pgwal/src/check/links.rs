//! Which file carries on which, over timelines, by their names.

use std::collections::{BTreeMap, BTreeSet};

use crate::lsn::{SegmentName, TimelineId};

/// What comes before each file.
#[derive(Debug)]
pub(super) struct Links {
    before: Vec<Option<usize>>,
    gaps: Vec<Option<(SegmentName, SegmentName)>>,
    /// Files that another than the next one carries on.
    forks: BTreeSet<usize>,
}

impl Links {
    /// `files` are in the order of their names, the best one of each segment first.
    pub(super) fn new(files: &[(&str, Option<SegmentName>)], segment_size: u32) -> Links {
        let mut numbers: BTreeMap<u64, BTreeMap<TimelineId, usize>> = BTreeMap::new();
        for (file, (_, name)) in files.iter().enumerate() {
            if let Some(name) = name {
                numbers.entry(name.number(segment_size)).or_default().entry(name.timeline).or_insert(file);
            }
        }
        let mut links = Links { before: Vec::new(), gaps: Vec::new(), forks: BTreeSet::new() };
        for (file, (_, name)) in files.iter().enumerate() {
            let (mut before, mut gap) = (None, None);
            if let Some(name) = name {
                let number = name.number(segment_size);
                // The newest timeline that can have led here.
                let ancestors =
                    |timelines: &BTreeMap<TimelineId, usize>| timelines.range(..=name.timeline).next_back().map(|(&t, &f)| (t, f));
                let nearest = numbers.range(..number).rev().find_map(|(&number, timelines)| Some((number, ancestors(timelines)?)));
                match nearest {
                    Some((last, (_, file))) if last + 1 == number => before = Some(file),
                    Some((last, (timeline, _))) => {
                        let missing = |number| SegmentName::new(timeline, number, segment_size);
                        gap = Some((missing(last + 1), missing(number - 1))); // last + 1 < number
                    }
                    None => {}
                }
            }
            if let Some(before) = before.filter(|before| before + 1 != file) {
                links.forks.insert(before);
            }
            links.before.push(before);
            links.gaps.push(gap);
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
        self.forks.contains(&file)
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
