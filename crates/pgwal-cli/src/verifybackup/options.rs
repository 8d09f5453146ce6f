//! The command line of pg_verifybackup.

use std::ffi::OsString;
use std::path::PathBuf;

use pgwal_stream::backup::Form;

use crate::dropin::getopt::{Argument, Opt, split_all};
use crate::dropin::path::canonicalize;
use crate::dropin::wrong::{Wrong, take, too_many};

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-e`
    pub exit_on_error: bool,
    /// `-F`; `None`: what the backup turns out to be.
    pub format: Option<Form>,
    /// `-i`, each one.
    pub ignore: Vec<PathBuf>,
    /// `-m`
    pub manifest_path: Option<PathBuf>,
    /// `-n`
    pub no_parse_wal: bool,
    /// `-P`
    pub progress: bool,
    /// `-q`
    pub quiet: bool,
    /// `-s`
    pub skip_checksums: bool,
    /// `-w`
    pub wal_directory: Option<PathBuf>,
    /// BACKUPDIR
    pub directory: PathBuf,
}

/// Those of 18; earlier releases have no `-F` and `-P`.
const OPTIONS: &[Opt] = &[
    Opt::new("exit-on-error", 'e', Argument::No),
    Opt::new("ignore", 'i', Argument::Required),
    Opt::new("manifest-path", 'm', Argument::Required),
    Opt::new("format", 'F', Argument::Required),
    Opt::new("no-parse-wal", 'n', Argument::No),
    Opt::new("progress", 'P', Argument::No),
    Opt::new("quiet", 'q', Argument::No),
    Opt::new("skip-checksums", 's', Argument::No),
    Opt::new("wal-directory", 'w', Argument::Required),
];

/// Takes the words in their order; the first that is wrong ends it.
pub fn parse(words: &[OsString]) -> Result<Options, Wrong> {
    let mut options = Options::default();
    let mut operands = take(split_all(words, OPTIONS), |id, value| options.set(id, value.unwrap_or_default()))?.into_iter();
    let directory = operands.next().ok_or_else(|| Wrong::Usage("no backup directory specified".to_owned()))?;
    options.directory = canonicalize(&directory);
    if let Some(second) = operands.next() {
        return Err(too_many(&second));
    }
    if options.progress && options.quiet {
        return Err(Wrong::Value("cannot specify both -P/--progress and -q/--quiet".to_owned()));
    }
    Ok(options)
}

impl Options {
    fn set(&mut self, id: char, value: OsString) -> Result<(), Wrong> {
        match id {
            'e' => self.exit_on_error = true,
            'F' => {
                self.format = Some(match value.to_str() {
                    Some("p" | "plain") => Form::Plain,
                    Some("t" | "tar") => Form::Tar,
                    _ => {
                        let text = format!("invalid backup format \"{}\", must be \"plain\" or \"tar\"", value.display());
                        return Err(Wrong::Value(text));
                    }
                });
            }
            'i' => self.ignore.push(canonicalize(&value)),
            'm' => self.manifest_path = Some(canonicalize(&value)),
            'n' => self.no_parse_wal = true,
            'P' => self.progress = true,
            'q' => self.quiet = true,
            's' => self.skip_checksums = true,
            'w' => self.wal_directory = Some(canonicalize(&value)),
            _ => return Err(Wrong::Silent),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, Wrong> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn options_and_what_is_wrong_with_them() {
        let options = parsed("-enqs b/ --ignore=a//b/ -i c -m ./m --wal w/../x -F t").unwrap();
        let expected = Options {
            exit_on_error: true,
            format: Some(Form::Tar),
            ignore: vec!["a/b".into(), "c".into()],
            manifest_path: Some("m".into()),
            no_parse_wal: true,
            progress: false,
            quiet: true,
            skip_checksums: true,
            wal_directory: Some("x".into()),
            directory: "b".into(),
        };
        assert_eq!(options, expected);
        assert_eq!(parsed("-s"), Err(Wrong::Usage("no backup directory specified".into())));
        assert_eq!(parsed("a b c"), Err(Wrong::Usage("too many command-line arguments (first is \"b\")".into())));
        assert_eq!(parsed("-F y a"), Err(Wrong::Value("invalid backup format \"y\", must be \"plain\" or \"tar\"".into())));
        assert_eq!(parsed("-P -q a"), Err(Wrong::Value("cannot specify both -P/--progress and -q/--quiet".into())));
        assert_eq!(parsed("a --help"), Err(Wrong::Getopt("unrecognized option '--help'".into())));
        assert_eq!(parsed("a -x"), Err(Wrong::Getopt("invalid option -- 'x'".into())));
    }
}
