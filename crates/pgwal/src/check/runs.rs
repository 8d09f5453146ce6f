//! The same damage in one segment after the other, told as one finding.

use std::fmt;

use serde::Serialize;

use super::finding::{Action, Class, Finding, Problem};
use crate::lsn::SegmentName;
use crate::printable::printable;
use crate::source::file_of_input;

/// Joins findings that are the same damage in consecutive segments. They are given one by one, in the order of a check.
#[derive(Debug, Default)]
pub struct Runs {
    open: Option<(Run, Finding)>,
}

/// A finding, or the same one in several consecutive segments. JSON: the first finding; if there are more, `first` and `last` are the
/// segments and `files` all inputs, and `lsns` goes to the end of the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    #[serde(flatten)]
    finding: Finding,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    further: Option<Further>,
}

/// The segments of a [`Run`] that has more than one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Further {
    first: SegmentName,
    last: SegmentName,
    files: Vec<String>,
    /// The class has the same values in all of them.
    #[serde(skip)]
    is_uniform: bool,
}

/// A longer run is told in pieces, as all its files are kept until it ends.
const MOST_FILES: usize = 10_000;

impl Runs {
    /// Takes the next finding, and gives the run before if that has ended.
    pub fn add(&mut self, finding: Finding) -> Option<Run> {
        if let Some((run, last)) = &mut self.open
            && run.len() < MOST_FILES
            && continues(last, &finding)
        {
            run.extend(&finding);
            *last = finding;
            return None;
        }
        let run = Run { finding: finding.clone(), further: None };
        self.open.replace((run, finding)).map(|(run, _)| run)
    }

    /// The last run: there are no more findings.
    pub fn finish(&mut self) -> Option<Run> {
        self.open.take().map(|(run, _)| run)
    }
}

impl Run {
    /// Number of files.
    pub fn len(&self) -> usize {
        self.further.as_ref().map_or(1, |further| further.files.len())
    }

    /// Never: there is at least one file.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The finding in the first file.
    pub fn first(&self) -> &Finding {
        &self.finding
    }

    fn extend(&mut self, next: &Finding) {
        let (Some(first), Some(last)) = (self.finding.segment, next.segment) else { return };
        let (input, class) = (&self.finding.input, &self.finding.class);
        let new = || Further { first, last, files: vec![input.clone()], is_uniform: true };
        let further = self.further.get_or_insert_with(new);
        further.last = last;
        further.is_uniform &= next.class == *class;
        further.files.push(next.input.clone());
        if let (Some(lsns), Some(next)) = (&mut self.finding.lsns, &next.lsns) {
            lsns.end = next.end;
        }
    }
}

/// Whether `next` is the same damage as `last`, in the segment after it.
fn continues(last: &Finding, next: &Finding) -> bool {
    let is_next = matches!((last.segment, next.segment), (Some(last), Some(next)) if follows(last, next));
    let is_alone = |finding: &Finding| finding.whole_copy.is_some() || matches!(finding.problem, Some(Problem::Control(_)));
    if !is_next || is_alone(last) || is_alone(next) {
        return false;
    }
    match (&last.class, &next.class) {
        // Damage inside the files: it goes over the border.
        (Class::RecycledPage { .. }, Class::RecycledPage { .. })
        | (Class::ZeroedPage, Class::ZeroedPage)
        | (Class::Corrupted, Class::Corrupted) => {
            matches!((&last.lsns, &next.lsns), (Some(last), Some(next)) if last.end == next.start)
        }
        // The files as such, each with values of its own.
        (Class::Truncated { .. }, Class::Truncated { .. })
        | (Class::TooLong { .. }, Class::TooLong { .. })
        | (Class::AfterPacked { .. }, Class::AfterPacked { .. })
        | (Class::DuplicateSegment { .. }, Class::DuplicateSegment { .. }) => true,
        // All names are off by as much.
        (Class::WrongName { content: a }, Class::WrongName { content: b }) => distance(last.segment, *a) == distance(next.segment, *b),
        // The files as such, all alike.
        (
            Class::ForeignCluster { .. }
            | Class::WrongMajor { .. }
            | Class::NotWal
            | Class::EmptyFile
            | Class::NotAFile { .. }
            | Class::NotRead { .. }
            | Class::Unreadable { .. },
            class,
        ) => last.class == *class,
        _ => false,
    }
}

/// How far a name is from that of the content.
fn distance(name: Option<SegmentName>, content: SegmentName) -> Option<(i64, i64)> {
    let name = name.filter(|name| name.timeline == content.timeline)?;
    Some((i64::from(content.log) - i64::from(name.log), i64::from(content.seg) - i64::from(name.seg)))
}

/// Whether `next` is the segment after `last`, of whatever size they are.
fn follows(last: SegmentName, next: SegmentName) -> bool {
    let after = last.seg.wrapping_add(1);
    // The last segment of 4 GB: there are 4 of them or more, always a power of two.
    let is_new_log = next.seg == 0 && last.log.checked_add(1) == Some(next.log) && after >= 4 && after.is_power_of_two();
    next.timeline == last.timeline && (is_new_log || (next.log == last.log && next.seg == after))
}

/// One paragraph, as of a [`Finding`].
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(further) = &self.further else { return self.finding.fmt(f) };
        let Finding { input, lsns, class, problem, .. } = &self.finding;
        let last = further.files.last().map_or("", String::as_str);
        write!(f, "{} to {}, {} files", printable(input), printable(file_of_input(last)), further.files.len())?;
        if let Some(lsns) = lsns {
            write!(f, " ({} to {})", lsns.start, lsns.end)?;
        }
        let which = if further.is_uniform { "" } else { "the first of them: " };
        write!(f, ": {which}{class}. ")?;
        if let Some(problem) = problem {
            write!(f, "{problem}. ")?;
        }
        let action = self.finding.action();
        match for_several(action) {
            Some(advice) => f.write_str(advice),
            None => write!(f, "{action}"),
        }
    }
}

/// What to do about several files, where it has to be said in other words than for one.
fn for_several(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::FetchAgain => {
            "A restore would stop here: take these segments from another copy of the WAL (the server's pg_wal, a standby, another archive)."
        }
        Action::Separate => "A restore would stop here: move the files out of this set, and look for the segments that belong there.",
        Action::ArchiveAgain => {
            "A restore would stop here: take the segments from another copy of the WAL. If they are to be archived from the server's pg_wal \
             again, remove these empty files first."
        }
        Action::Repack => {
            "gzip, xz, zstd and lz4 unpack them but exit with an error, so a restore_command that calls them may fail: compress the segments \
             anew, or take the files from another copy of the archive."
        }
        Action::RemoveOne => {
            "Both copies of each are whole, but a restore takes one of them: two servers have written these segments, as after two promotions to \
             the same timeline. Find out which server's WAL you need, and keep the two apart."
        }
        Action::Unwrap => "Nothing is known of what is inside: unpack or decrypt them, and check that.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    fn finding(number: u64, offset: u64, class: Class) -> Finding {
        let size = 1 << 20;
        let name = SegmentName::new(crate::lsn::TimelineId(1), number, size as u32);
        let start = Lsn(number * size);
        let (offsets, lsns) = (Some(offset..size), Some(start + offset..start + size));
        Finding { input: format!("dir/{name}"), segment: Some(name), offsets, lsns, record: None, class, problem: None, whole_copy: None }
    }

    fn joined(findings: Vec<Finding>) -> Vec<usize> {
        let mut runs = Runs::default();
        let mut all: Vec<Run> = findings.into_iter().filter_map(|finding| runs.add(finding)).collect();
        all.extend(runs.finish());
        all.iter().map(Run::len).collect()
    }

    #[test]
    fn what_is_one_run() {
        let zeroed = |number, offset| finding(number, offset, Class::ZeroedPage);
        assert_eq!(joined(vec![zeroed(3, 8192), zeroed(4, 0), zeroed(5, 0)]), [3]);
        // Not over the border, not in a row, other classes.
        assert_eq!(joined(vec![zeroed(3, 0), zeroed(4, 8192), zeroed(6, 0), finding(7, 0, Class::Corrupted)]), [1, 1, 1, 1]);
        let short = |number, len| finding(number, len, Class::Truncated { len, expected: 1 << 20 });
        // 4096 segments of 1 MB are 4 GB.
        assert_eq!(joined(vec![short(4094, 9), short(4095, 7), short(4096, 8), short(4097, 7), short(4097, 6)]), [4, 1]);
        let foreign =
            |number, found| finding(number, 0, Class::ForeignCluster { expected: 1, found, by: crate::check::Authority::Majority });
        assert_eq!(joined(vec![foreign(1, 2), foreign(2, 2), foreign(3, 9), foreign(4, 9)]), [2, 2]);
        // One that has a whole copy has a remedy of its own.
        let other = Finding { whole_copy: Some("copy".to_owned()), ..zeroed(4, 0) };
        assert_eq!(joined(vec![zeroed(3, 0), other, zeroed(5, 0)]), [1, 1, 1]);
        assert_eq!(joined((0..MOST_FILES as u64 + 5).map(|number| zeroed(number, 0)).collect()), [MOST_FILES, 5]);
    }

    #[test]
    fn it_tells_all_files() {
        let mut runs = Runs::default();
        let class =
            |from: u64| Class::RecycledPage { from: SegmentName::new(crate::lsn::TimelineId(1), from, 1 << 20), address: Lsn(from << 20) };
        assert_eq!(runs.add(finding(8, 0, class(2))), None);
        assert_eq!(runs.add(finding(9, 0, class(3))), None);
        let run = runs.finish().unwrap();
        let text = run.to_string();
        let start =
            "dir/000000010000000000000008 to 000000010000000000000009, 2 files (0/00800000 to 0/00A00000): the first of them: recycled";
        assert!(text.starts_with(start) && text.contains("take these segments"), "{text}");
        let json = serde_json::to_value(&run).unwrap();
        assert_eq!((&json["first"], &json["last"]), (&"000000010000000000000008".into(), &"000000010000000000000009".into()));
        assert_eq!(json["files"], serde_json::json!(["dir/000000010000000000000008", "dir/000000010000000000000009"]));
        assert_eq!((&json["class"], &json["lsns"]["end"]), (&"recycled_page".into(), &"0/00A00000".into()));
        let one = serde_json::to_value(Run { finding: finding(8, 0, class(2)), further: None }).unwrap();
        assert_eq!(one, serde_json::to_value(finding(8, 0, class(2))).unwrap());
    }
}
