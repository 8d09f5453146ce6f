//! `--reach` and `--from-backup`: whether a restore comes to a place.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use pgwal::TimelineId;
use pgwal::backup_label::BackupLabel;
use pgwal::check::Finding;
use pgwal::printable::{printable, printable_path};
use pgwal::reach::{Reach, Request, Target, TargetTimeline, reach};
use pgwal::source::Archive;

/// Whether a restore comes to a place.
#[derive(Args, Debug, Default)]
pub struct RestoreArgs {
    /// Say whether a restore comes to this place, and which files it takes: an LSN, a time, or `latest`
    #[arg(long, value_name = "LSN|TIME|latest")]
    pub reach: Option<Target>,
    /// Start the restore from this base backup: its backup_label, its directory, or its .backup file [default: the oldest segment]
    #[arg(long, value_name = "LABEL_FILE", requires = "reach")]
    pub from_backup: Option<PathBuf>,
}

impl RestoreArgs {
    /// Answers for the files of `archive`, in which `findings` were found; `None`: nobody asked.
    pub fn answer(
        &self,
        archive: &Archive,
        findings: &[Finding],
        timeline: Option<TimelineId>,
        system_identifier: Option<u64>,
        threads: usize,
    ) -> Result<Option<Reach>, Box<dyn Error>> {
        let Some(target) = self.reach else { return Ok(None) };
        let label = self.from_backup.as_deref().map(read_label).transpose()?;
        let timeline = timeline.map_or(TargetTimeline::Latest, TargetTimeline::Id);
        Ok(Some(reach(archive, Request { target, backup: label.as_ref(), timeline, system_identifier, findings, threads })))
    }
}

/// Bytes of a backup label, at most; a server writes some hundred, and a line for each tablespace is in a file of its own.
const LABEL_LEN: u64 = 1 << 20;

fn read_label(path: &Path) -> Result<BackupLabel, Box<dyn Error>> {
    let path = if path.is_dir() { path.join("backup_label") } else { path.to_owned() };
    let shown = printable_path(&path);
    // A pipe with nobody at its other end is not waited for.
    let is_file = fs::metadata(&path).map_err(|e| format!("{shown}: {e}"))?.is_file();
    let mut bytes = Vec::new();
    let mut read =
        || if is_file { File::open(&path)?.take(LABEL_LEN + 1).read_to_end(&mut bytes) } else { Err(io::Error::other("not a file")) };
    let len = read();
    if len.map_err(|e| format!("{shown}: {e}"))? as u64 > LABEL_LEN {
        return Err(format!("{shown}: longer than a backup label: more than {LABEL_LEN} bytes").into());
    }
    BackupLabel::parse(&bytes).map_err(|e| format!("{shown}: {e}").into())
}

/// Writes the answer: a sentence, and the files, one a line.
pub fn write_text(answer: &Reach, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", printable(answer))?;
    match answer.files.len() {
        0 => Ok(()),
        1 => writeln!(out, "  {}", printable(answer.files.join(""))),
        count => {
            writeln!(out, "{count} files, in this order:")?;
            answer.files.iter().try_for_each(|file| writeln!(out, "  {}", printable(file)))
        }
    }
}

#[cfg(test)]
mod tests {
    use pgwal_testkit::fixtures;

    use super::*;

    #[test]
    fn an_answer_over_a_promotion() {
        let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 15 && fixture.scenario == "timeline2").unwrap();
        let archive = Archive::open(&[&fixture.dir]).unwrap();
        let ask = |args: &RestoreArgs, timeline| args.answer(&archive, &[], timeline, None, 2).unwrap();
        assert_eq!(ask(&RestoreArgs::default(), None), None);
        let latest = RestoreArgs { reach: Some(Target::Latest), from_backup: None };
        let mut text = Vec::new();
        write_text(&ask(&latest, None).unwrap(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap().replace(&format!("{}/", fixture.dir.display()), "");
        let files = "3 files, in this order:\n  00000002.history\n  000000010000000000000007\n  000000020000000000000008\n";
        assert!(
            text.starts_with("yes: recovery from 0/00700000 along timeline 2 comes to the end of the WAL") && text.ends_with(files),
            "{text}"
        );
        let three = ask(&latest, Some(TimelineId(3))).unwrap();
        assert!(
            three.to_string().ends_with("00000003.history is missing: the server follows a timeline only where its history file is there")
        );
        let json = serde_json::to_value(&three).unwrap();
        assert_eq!((&json["reach"], &json["obstacle"]["obstacle"]), (&"no".into(), &"no_history".into()));
        let none = RestoreArgs { from_backup: Some(fixture.dir.clone()), ..latest };
        assert!(none.answer(&archive, &[], None, None, 1).unwrap_err().to_string().contains("/backup_label: "));
    }
}
