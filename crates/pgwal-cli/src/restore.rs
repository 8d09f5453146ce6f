//! `--reach` and `--from-backup`: whether a restore comes to a place.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use pgwal::TimelineId;
use pgwal::base_backup::BaseBackup;
use pgwal::check::Finding;
use pgwal::printable::printable;
use pgwal::reach::{Reach, Request, Target, TargetTimeline, reach};
use pgwal::source::Archive;

/// Whether a restore comes to a place.
#[derive(Args, Debug, Default)]
pub struct RestoreArgs {
    /// Say whether a restore can stop here, as a server would, and which files it takes: latest, immediate, an LSN, a time as PostgreSQL
    /// reads it (in the local time zone), xid:NUMBER, or name:RESTORE_POINT
    #[arg(long, value_name = "TARGET")]
    pub reach: Option<Target>,
    /// Base backup to restore: its directory, the directory of its tar archives, its backup_label or its .backup file [default: the newest one
    /// that the archive tells of and that ends before the target]
    #[arg(long, value_name = "BACKUP", requires = "reach")]
    pub from_backup: Option<PathBuf>,
    /// Replay what is at the target itself, as recovery_target_inclusive does [default]
    #[arg(long, requires = "reach", overrides_with = "exclusive")]
    pub inclusive: bool,
    /// Stop right before the target, as with recovery_target_inclusive off
    #[arg(long, requires = "reach")]
    pub exclusive: bool,
}

impl RestoreArgs {
    /// Answers for the files of `archive`, which are those in `paths`, and in which `findings` were found; `None`: nobody asked.
    pub fn answer(
        &self,
        archive: &Archive,
        paths: &[PathBuf],
        findings: &[Finding],
        timeline: Option<TimelineId>,
        system_identifier: Option<u64>,
        threads: usize,
    ) -> Result<Option<Reach>, Box<dyn Error>> {
        let Some(target) = &self.reach else { return Ok(None) };
        let backup = self.from_backup.clone().or_else(|| data_directory(paths));
        let backup = backup.map(|path| BaseBackup::open(&path)).transpose()?;
        let timeline = timeline.map_or(TargetTimeline::ByVersion, TargetTimeline::Id);
        let (backup, inclusive) = (backup.as_ref(), !self.exclusive);
        Ok(Some(reach(archive, Request { target, inclusive, backup, timeline, system_identifier, findings, threads })))
    }
}

/// The data directory that the WAL is the pg_wal of: its own pg_control says where recovery starts.
fn data_directory(paths: &[PathBuf]) -> Option<PathBuf> {
    let [path] = paths else { return None };
    let is_pg_wal = path.file_name().is_some_and(|name| name == "pg_wal");
    let directory = if is_pg_wal { path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")) } else { path };
    directory.join("global/pg_control").is_file().then(|| directory.to_owned())
}

/// Writes the answer: sentences, what else has to be known, and the files, one a line.
pub fn write_text(answer: &Reach, findings: u64, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", printable(answer))?;
    for caveat in &answer.caveats {
        writeln!(out, "note: {}", printable(caveat))?;
    }
    match findings {
        0 => {}
        _ if !answer.is_yes() => {}
        1 => writeln!(out, "note: the finding above is not in the way of this")?,
        count => writeln!(out, "note: the {count} findings above are not in the way of this")?,
    }
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
        let ask = |args: &RestoreArgs, timeline| args.answer(&archive, &[], &[], timeline, None, 2).unwrap();
        assert_eq!(ask(&RestoreArgs::default(), None), None);
        let latest = RestoreArgs { reach: Some(Target::Latest), ..RestoreArgs::default() };
        let mut text = Vec::new();
        write_text(&ask(&latest, None).unwrap(), 0, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap().replace(&format!("{}/", fixture.dir.display()), "");
        let files = "3 files, in this order:\n  00000002.history\n  000000010000000000000007\n  000000020000000000000008\n";
        assert!(
            text.starts_with("yes: recovery from 0/00700000 along timeline 2 reaches the end of the WAL") && text.ends_with(files),
            "{text}"
        );
        assert!(text.contains("\nnote: no base backup is named or found in the archive"), "{text}");
        let three = ask(&latest, Some(TimelineId(3))).unwrap();
        assert!(
            three.to_string().ends_with("00000003.history is missing: the server follows a timeline only where its history file is there")
        );
        let json = serde_json::to_value(&three).unwrap();
        assert_eq!((&json["reach"], &json["obstacle"]["obstacle"]), (&"no".into(), &"no_history".into()));
        let none = RestoreArgs { from_backup: Some(fixture.dir.clone()), ..latest };
        let refused = none.answer(&archive, &[], &[], None, None, 1).unwrap_err().to_string();
        assert!(refused.ends_with(": not a base backup: it has neither a backup_label nor a global/pg_control"), "{refused}");
    }
}
