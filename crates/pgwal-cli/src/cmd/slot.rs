//! `pgwal slot`: the replication slots of a server.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use pgwal::text::Zone;
use pgwal_stream::connection::Mode;
use pgwal_stream::conninfo::Config;
use pgwal_stream::slots::{self, Slot, SlotError};

use crate::server::{ServerArgs, TIMEOUT};
use crate::table::{Cell, Form, Table, column};

/// List, create and drop the replication slots of a server
#[derive(Args, Debug)]
#[command(after_help = "\
Example: pgwal slot list -d \"host=db.example.org user=replicator\"

A slot makes the server keep the WAL that its consumer does not have yet. One that nobody uses any more fills the disk: drop it.

Exit status: 0 done; 1 not done; 2 wrong options, or standard output cannot be written.")]
pub struct Opts {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show the slots: who uses them, how far they are, and how much WAL the server keeps for them
    List {
        #[command(flatten)]
        server: ServerArgs,
        /// Form of the output: columns that the server's major lacks are empty, in JSON null
        #[arg(long, value_name = "FORM", default_value = "text")]
        format: Form,
    },
    /// Create a physical slot, which keeps WAL from now on
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArgs,
        /// Take a slot that is there already
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Drop a slot: the server removes the WAL that it kept for it alone
    Drop {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArgs,
        /// Wait while somebody uses it, instead of giving up
        #[arg(long)]
        wait: bool,
        /// No such slot is no error
        #[arg(long)]
        if_exists: bool,
    },
}

impl Opts {
    /// Runs the command.
    pub fn run(self, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        match self.what {
            What::List { server, format } => {
                let mut config = config(&server)?;
                let mut connection = server.connect_sql(&mut config)?;
                connection.set_limit(config.connect_timeout);
                let slots = slots::list(&mut connection)?;
                let table = table(&slots);
                match format {
                    Form::Text if slots.is_empty() => writeln!(out, "No replication slots")?,
                    Form::Text => table.write_text(&Zone::local(), out)?,
                    Form::Json => table.write_json(out)?,
                    Form::Csv => table.write_csv(out)?,
                }
            }
            What::Create { name, server, if_not_exists } => {
                let mut config = config(&server)?;
                let mut connection = server.connect(&mut config, Mode::Replication)?;
                connection.set_limit(config.connect_timeout);
                let mut created = slots::create(&mut connection, &name, true, if_not_exists)?;
                if created.restart_lsn.is_none() {
                    created.restart_lsn =
                        server.slot(&config, &name, config.connect_timeout, &Arc::default()).and_then(|slot| slot.restart_lsn);
                }
                let what = if created.existed { "is there already" } else { "created" };
                let from = created.restart_lsn.map_or_else(String::new, |lsn| format!(": WAL is kept from {lsn} on"));
                writeln!(out, "replication slot \"{name}\" {what}{from}")?;
            }
            What::Drop { name, server, wait, if_exists } => {
                let mut config = config(&server)?;
                let mut connection = server.connect(&mut config, Mode::Replication)?;
                // Whoever uses the slot may do so for long.
                connection.set_limit(config.connect_timeout.filter(|_| !wait));
                let what = match slots::drop(&mut connection, &name, wait, if_exists) {
                    Ok(true) => "dropped",
                    Ok(false) => "is not there",
                    Err(error @ SlotError::InUse { .. }) => return Err(format!("{error}; --wait waits until it is not").into()),
                    Err(error) => return Err(error.into()),
                };
                writeln!(out, "replication slot \"{name}\" {what}")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The settings of the connection; a server that does not answer is given up.
fn config(server: &ServerArgs) -> Result<Config, Box<dyn Error>> {
    let config = server.config()?;
    Ok(Config { connect_timeout: config.connect_timeout.or(Some(TIMEOUT)), ..config })
}

fn table(slots: &[Slot]) -> Table {
    let columns = vec![
        column("name", "slot"),
        column("type", "type"),
        column("plugin", "plugin"),
        column("database", "database"),
        column("active", ""),
        column("active_pid", "used by"),
        column("temporary", "temporary"),
        column("restart_lsn", "restart"),
        column("confirmed_flush_lsn", "confirmed"),
        column("lag", "lag"),
        column("pinned", "WAL kept"),
        column("wal_status", "status"),
        column("safe_wal_size", "safe"),
        column("inactive_since", "inactive since"),
        column("invalidation_reason", "invalid"),
    ];
    let mut table = Table { name: "slot", title: "Replication slots".to_owned(), columns, rows: Vec::new() };
    for slot in slots {
        let text = |text: &Option<String>| text.clone().map_or(Cell::None, Cell::Text);
        table.push(vec![
            Cell::Text(slot.name.clone()),
            Cell::Text(if slot.logical { "logical" } else { "physical" }.to_owned()),
            text(&slot.plugin),
            text(&slot.database),
            Cell::Flag(slot.active),
            slot.active_pid.map_or(Cell::None, |pid| Cell::Id(pid.into())),
            Cell::Flag(slot.temporary),
            slot.restart_lsn.map_or(Cell::None, Cell::Lsn),
            slot.confirmed_flush_lsn.map_or(Cell::None, Cell::Lsn),
            slot.lag.map_or(Cell::None, Cell::Size),
            slot.pinned.map_or(Cell::None, Cell::Size),
            text(&slot.wal_status),
            // Below zero: it can be lost with the next checkpoint.
            slot.safe_wal_size.map_or(Cell::None, |size| Cell::Size(u64::try_from(size).unwrap_or(0))),
            slot.inactive_since.map_or(Cell::None, Cell::Time),
            text(&slot.invalidation_reason),
        ]);
    }
    table
}
