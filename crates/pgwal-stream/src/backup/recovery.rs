//! What makes a standby of a backup. C: fe_utils/recovery_gen.c.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::conninfo::{Config, Settings};
use crate::segments::{FileError, failed};

/// Settings of a standby: where its primary is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// `primary_conninfo`, without the database.
    pub conninfo: String,
    /// The database that was named. A standby of 17 or later synchronizes logical slots over a connection to it; others have no use for it.
    pub dbname: Option<String>,
    /// `primary_slot_name`; `None`: it uses no slot.
    pub slot: Option<String>,
}

/// Name of the file that has the settings up to 11.
pub(super) const RECOVERY_CONF: &str = "recovery.conf";
/// Name of the file that has the settings from 12 on; a server reads it last.
pub(super) const AUTO_CONF: &str = "postgresql.auto.conf";
/// Name of the file that makes a server a standby, from 12 on.
pub(super) const STANDBY_SIGNAL: &str = "standby.signal";

impl Recovery {
    /// For a standby of the server that `settings` lead to, logged in as with `config`, which was made of them.
    ///
    /// What only this connection is about is left out: the program's name, options for the server.
    pub fn new(mut settings: Settings, config: &Config, slot: Option<String>) -> Recovery {
        // It may have been asked for.
        if let (None, Some(password)) = (settings.get("password"), &config.password) {
            let _ = settings.set("password", password.0.clone());
        }
        let left_out = ["dbname", "fallback_application_name", "replication", "service", "servicefile", "client_encoding", "options"];
        let mut conninfo = String::new();
        let all = settings.iter().filter(|(keyword, _)| *keyword != "user" && !left_out.contains(keyword));
        for (keyword, value) in [("user", config.user.as_str())].into_iter().chain(all) {
            let _ = write!(conninfo, "{}{keyword}={}", if conninfo.is_empty() { "" } else { " " }, quoted_value(value));
        }
        Recovery { conninfo, dbname: settings.get("dbname").map(str::to_owned), slot }
    }

    /// The lines of the settings; before 12 in recovery.conf, since then in postgresql.auto.conf.
    pub fn lines(&self, major: u8) -> String {
        let mut lines = String::new();
        if major < 12 {
            lines.push_str("standby_mode = 'on'\n");
        }
        let mut conninfo = self.conninfo.clone();
        if let Some(dbname) = self.dbname.as_ref().filter(|_| major >= 17) {
            let _ = write!(conninfo, " dbname={}", quoted_value(dbname));
        }
        let _ = writeln!(lines, "primary_conninfo = '{}'", escaped(&conninfo));
        if let Some(slot) = &self.slot {
            let _ = writeln!(lines, "primary_slot_name = '{}'", escaped(slot));
        }
        lines
    }

    /// Has the settings in the data directory `dir`.
    pub(super) fn write(&self, dir: &Path, major: u8) -> Result<(), FileError> {
        let path = dir.join(if major < 12 { RECOVERY_CONF } else { AUTO_CONF });
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.create(true).append(true), 0o600);
        options.open(&path).and_then(|mut file| file.write_all(self.lines(major).as_bytes())).map_err(failed("write", &path))?;
        if major >= 12 {
            let path = dir.join(STANDBY_SIGNAL);
            options.open(&path).map_err(failed("create", &path))?;
        }
        Ok(())
    }
}

/// A value of a connection string. C: `appendConnStrVal`.
fn quoted_value(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Text within quotes of a configuration file. C: `escape_single_quotes_ascii`.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "''")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conninfo::Environment;

    #[test]
    fn settings_are_quoted_twice() {
        let settings = Settings::parse("host=db.example.org port=5433 password='a b\\'c\\\\d' sslmode=verify-full dbname=x").unwrap();
        let config = Config::new(settings.clone(), &Environment::new("replicator", Path::new("/home/replicator"))).unwrap();
        let recovery = Recovery::new(settings.clone(), &config, Some("standby_1".to_owned()));
        assert_eq!(recovery.conninfo, "user=replicator host=db.example.org password='a b\\'c\\\\d' port=5433 sslmode='verify-full'");
        // What it stands for is what was given.
        let again = Settings::parse(&recovery.conninfo).unwrap();
        assert_eq!(again.get("password"), settings.get("password"));
        let lines = "primary_conninfo = 'user=replicator host=db.example.org password=''a b\\\\''c\\\\\\\\d'' port=5433 \
                     sslmode=''verify-full'''\nprimary_slot_name = 'standby_1'\n";
        assert_eq!(recovery.lines(12), lines);
        assert_eq!(recovery.lines(11), format!("standby_mode = 'on'\n{lines}"));
        assert_eq!(recovery.lines(16), lines);
        assert_eq!(recovery.lines(17), lines.replace("verify-full'''", "verify-full'' dbname=x'"));
    }
}
