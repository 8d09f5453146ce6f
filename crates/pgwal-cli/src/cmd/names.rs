//! `pgwal names`: what a cluster calls its databases, tablespaces and relations, as a file that other commands read.

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use pgwal::datadir::DataDir;
use pgwal::names::Names;
use pgwal::output_file::{OutputFile, is_standard_output};
use pgwal::printable::printable_path;

use crate::live;

/// Write down what databases, tablespaces and relations are called: from a data directory, without its server, or from a live server
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("source").required(true),
    after_help = "\
Example: pgwal names --data-dir fixtures/names/data

With a server: pgwal names --dbname \"host=/var/run/postgresql user=postgres\" -o names.json

Exit status: 0 everything was read; 1 something could not be read, what could is written; 2 wrong options, or standard output \
cannot be written."
)]
pub struct Opts {
    /// Read the files of this data directory, of PostgreSQL 10 to 19; what a running server has not written yet is missing
    #[arg(short = 'D', long, value_name = "DIR", group = "source")]
    data_dir: Option<PathBuf>,
    /// Ask the server: a database's name, `keyword=value` pairs or a URI, as in psql; PGHOST, PGPORT, PGUSER, PGPASSWORD and
    /// PGDATABASE fill in what is missing
    #[arg(short, long, value_name = "CONNINFO", group = "source")]
    dbname: Option<String>,
    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        let mut complete = true;
        let names = match (&self.data_dir, &self.dbname) {
            (Some(dir), _) => offline(dir, &mut complete)?,
            (None, Some(conninfo)) => live::names(conninfo, |warning| {
                complete = false;
                note!("{warning}");
            })?,
            (None, None) => return Err("expected --data-dir or --dbname".into()), // clap asks for one
        };
        // Only now, so that an old file stays where nothing could be read.
        match &self.output {
            Some(path) if !is_standard_output(path) => {
                let failed = |e| format!("{}: {e}", printable_path(path));
                let mut file = OutputFile::create(path).map_err(failed)?;
                names.write(BufWriter::new(&mut file)).map_err(failed)?;
                file.commit().map_err(failed)?;
            }
            _ => names.write(BufWriter::new(out))?,
        }
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn offline(dir: &Path, complete: &mut bool) -> Result<Names, Box<dyn Error>> {
    let mut warn = |warning| {
        *complete = false;
        note!("{warning}");
    };
    let dir = DataDir::open(dir, &mut warn)?;
    if dir.is_live() {
        note!("the server is running, or was not shut down: what it has not written since its last checkpoint may be missing");
    }
    Ok(dir.names(&mut warn)?)
}
