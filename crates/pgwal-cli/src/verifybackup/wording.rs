//! Messages as pg_verifybackup words them. C: bin/pg_verifybackup/pg_verifybackup.c, bin/pg_verifybackup/astreamer_verify.c.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use pgwal::datadir::ControlError;
use pgwal_stream::backup::manifest::{FormError, ManifestError};
use pgwal_stream::backup::{BackupError, Problem, What};

use super::shown;
use crate::fullpage::Errno;

/// What is said of a problem of the backup in `dir`, and perhaps a line with details.
pub fn problem(problem: &Problem, dir: &Path) -> (String, Option<String>) {
    let Problem { path, archive, what } = problem;
    let whole = || shown(&dir.join(path));
    let path = shown(path);
    let text = match (what, archive) {
        (What::Missing, _) => format!("\"{path}\" is present in the manifest but not on disk"),
        (What::Unknown, None) => format!("\"{path}\" is present on disk but not in the manifest"),
        (What::Unknown, Some(archive)) => format!("file \"{path}\" is present in archive \"{archive}\" but not in the manifest"),
        (What::Size { expected, found }, None) => {
            format!("\"{path}\" has size {found} on disk but size {expected} in the manifest")
        }
        (What::Size { expected, found }, Some(archive)) => {
            format!("file \"{path}\" has size {found} in archive \"{archive}\" but size {expected} in the manifest")
        }
        (What::Read { expected, found }, None) => format!("file \"{path}\" should contain {expected} bytes, but read {found}"),
        (What::Read { expected, found }, Some(archive)) => {
            format!("file \"{path}\" in archive \"{archive}\" should contain {expected} bytes, but {found} bytes were read")
        }
        (What::Checksum { .. }, None) => format!("checksum mismatch for file \"{path}\""),
        (What::Checksum { .. }, Some(archive)) => format!("checksum mismatch for file \"{path}\" in archive \"{archive}\""),
        (What::ChecksumLength { expected, found }, None) => {
            format!("file \"{path}\" has checksum of length {found}, but expected {expected}")
        }
        (What::ChecksumLength { expected, found }, Some(archive)) => {
            format!("file \"{path}\" in archive \"{archive}\" has checksum of length {found}, but expected {expected}")
        }
        (What::NotRegular { in_tar_form: false }, _) => format!("\"{path}\" is not a regular file or directory"),
        (What::NotRegular { in_tar_form: true }, _) => format!("file \"{path}\" is not a regular file"),
        (What::NotAnArchive, _) => format!("file \"{path}\" is not expected in a tar format backup"),
        (What::Unreadable { doing: doing @ "open directory", error }, _) => {
            format!("could not {doing} \"{}\": {}", whole(), Errno(error))
        }
        (What::Unreadable { doing, error }, _) => format!("could not {doing} \"{path}\": {}", Errno(error)),
        (What::Loop, _) => format!("could not open directory \"{}\": it contains a link to itself", whole()),
        (What::Control(ControlError::CutShort { found }), None) => {
            format!("could not read file \"{}\": read only {found} bytes", whole())
        }
        (What::Control(error), archive) => {
            let place = archive.as_ref().map_or_else(whole, |archive| format!("{archive}: {path}"));
            match error {
                ControlError::Checksum { .. } => format!("{place}: CRC is incorrect"),
                ControlError::Version { .. } => format!("{place}: unexpected control file version"),
                error => format!("{place}: {error}"),
            }
        }
        (What::SystemIdentifier { manifest, control }, archive) => {
            let place = archive.as_ref().map_or_else(whole, |archive| format!("{archive}: {path}"));
            let manifest = manifest.unwrap_or(0); // as C has it where there is none
            format!("{place}: manifest system identifier is {manifest}, but control file has {control}")
        }
        (What::Wal { timeline, problem }, _) => return (format!("WAL parsing failed for timeline {timeline}"), Some(problem.clone())),
        (_, _) => problem.to_string(),
    };
    (text, None)
}

/// Whether this is a device such as /dev/null.
fn is_character_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// What is said of an error that ends the program. `is_early`: the wording is that of a release before 17.
pub fn fatal(error: &BackupError, is_early: impl Fn() -> bool) -> String {
    match error {
        BackupError::Manifest(ManifestError::Json(_)) if is_early() => "could not parse backup manifest: parsing failed".to_owned(),
        BackupError::Manifest(ManifestError::Form(FormError::VersionNumber)) if is_early() => {
            ManifestError::Form(FormError::Version).to_string()
        }
        // The real program takes as many bytes as a device says it has: none.
        BackupError::File(error) if error.doing == "open file" && is_character_device(&error.path) => {
            let problem = if is_early() { "parsing failed" } else { "The input string ended unexpectedly." };
            format!("could not parse backup manifest: {problem}")
        }
        BackupError::File(error) => format!("could not {} \"{}\": {}", error.doing, shown(&error.path), Errno(&error.error)),
        error => error.to_string(),
    }
}
