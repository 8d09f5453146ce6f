//! The lines of `--progress`. C: `progress_report`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use pgwal::printable::printable_path;
use pgwal_stream::backup::Tablespace;

use crate::console::write_stderr;

/// Characters of a file's name that fit.
const NAME_LEN: usize = 35;

/// What is shown of a backup while it comes.
#[derive(Debug)]
pub struct Progress {
    verbose: bool,
    is_terminal: bool,
    /// Kilobytes that there are.
    total: u64,
    /// Kilobytes that have come.
    done: u64,
    /// Archives that there are.
    tablespaces: usize,
    /// Archives that have come whole.
    at: usize,
    begun: bool,
    /// The file, or the archive, that is being written.
    name: String,
    shown: Option<Instant>,
}

impl Progress {
    /// Nothing has come; with names of files if `verbose`.
    pub fn new(verbose: bool) -> Progress {
        let is_terminal = io::stderr().is_terminal();
        Progress { verbose, is_terminal, total: 0, done: 0, tablespaces: 0, at: 0, begun: false, name: String::new(), shown: None }
    }

    /// The server is waited for.
    pub fn checkpoint(&self) {
        if !self.verbose {
            self.write("waiting for checkpoint", false);
        }
    }

    /// This is what is going to come.
    pub fn begin(&mut self, tablespaces: &[Tablespace]) {
        self.tablespaces = tablespaces.len();
        self.total = tablespaces.iter().filter_map(|tablespace| tablespace.size).sum::<u64>() / 1024;
    }

    /// An archive begins.
    pub fn archive(&mut self, name: &str) {
        if std::mem::replace(&mut self.begun, true) {
            self.at += 1;
            self.show(false);
        }
        name.clone_into(&mut self.name);
    }

    /// So many bytes have come, and `file` is being written.
    pub fn report(&mut self, done: u64, file: &Path) {
        self.done = done / 1024;
        if !file.as_os_str().is_empty() {
            self.name = printable_path(file).to_string();
        }
        // At most once a second.
        if self.shown.is_none_or(|shown| shown.elapsed() >= Duration::from_secs(1)) {
            self.show(false);
        }
    }

    /// Everything has come.
    pub fn finish(&mut self) {
        self.at = self.tablespaces;
        self.name.clear();
        self.show(true);
    }

    fn show(&mut self, finished: bool) {
        self.shown = Some(Instant::now());
        let line = self.line();
        self.write(&line, finished);
    }

    fn line(&mut self) -> String {
        let percent = self.done.saturating_mul(100).checked_div(self.total).map_or(0, |percent| percent.min(100));
        // The estimate is wrong once there is WAL in the backup.
        self.total = self.total.max(self.done);
        let total = self.total.to_string();
        let plural = if self.tablespaces == 1 { "" } else { "s" };
        let counted = |percent| {
            format!(
                "{:>width$}/{total} kB ({percent}%), {}/{} tablespace{plural}",
                self.done,
                self.at,
                self.tablespaces,
                width = total.len()
            )
        };
        if !self.verbose {
            return counted(percent);
        }
        if self.name.is_empty() {
            return format!("{} {:width$}", counted(100), "", width = NAME_LEN + 5);
        }
        let count = self.name.chars().count();
        if count > NAME_LEN {
            let end: String = self.name.chars().skip(count - NAME_LEN + 3).collect();
            format!("{} (...{end})", counted(percent))
        } else {
            format!("{} ({:NAME_LEN$})", counted(percent), self.name)
        }
    }

    /// On the same line, if that is on a terminal and more is to come.
    fn write(&self, line: &str, finished: bool) {
        let end = if self.is_terminal && !finished { '\r' } else { '\n' };
        write_stderr(format!("{line}{end}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(verbose: bool) -> Progress {
        let tablespace = |size| Tablespace { oid: None, location: "".into(), size: Some(size) };
        let mut progress = Progress::new(verbose);
        progress.begin(&[tablespace(1024 * 1000), tablespace(1024 * 1500)]);
        progress
    }

    #[test]
    fn lines_are_those_of_pg_basebackup() {
        let mut plain = progress(false);
        plain.archive("16384.tar");
        plain.done = 25;
        assert_eq!(plain.line(), "  25/2500 kB (1%), 0/2 tablespaces");
        plain.archive("base.tar");
        plain.done = 3000;
        assert_eq!(plain.line(), "3000/3000 kB (100%), 1/2 tablespaces");
        plain.finish();
        assert_eq!(plain.line(), "3000/3000 kB (100%), 2/2 tablespaces");
        let mut verbose = progress(true);
        verbose.archive("base.tar");
        assert_eq!(verbose.line(), format!("   0/2500 kB (0%), 0/2 tablespaces (base.tar{})", " ".repeat(27)));
        verbose.name = "backup/pg_wal/000000010000000000000001".to_owned();
        assert_eq!(verbose.line(), "   0/2500 kB (0%), 0/2 tablespaces (.../pg_wal/000000010000000000000001)");
        verbose.finish();
        assert_eq!(verbose.line(), format!("   0/2500 kB (100%), 2/2 tablespaces {}", " ".repeat(40)));
    }
}
