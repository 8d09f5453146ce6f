//! `pgwal receive`: WAL from a live server, as a standby takes it.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args, ValueEnum};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use pgwal::Lsn;
use pgwal_stream::compress::Compression;
use pgwal_stream::connection::{self, Mode};
use pgwal_stream::conninfo::Config;
use pgwal_stream::receive::{self, Notice, Options, Outcome, ReceiveError};
use pgwal_stream::receiver::OnDamage;
use pgwal_stream::slots;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::server::ServerArgs;

/// Receive WAL from a live server as a standby does, and write it into segments, every record verified on its way
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("work").required(true).multiple(true),
    after_help = "\
Example: pgwal receive -D wal -d \"host=db.example.org user=replicator\" --slot archive

The files are those of pg_receivewal: a segment is called `.partial` until it is whole and on disk. What is in the directory tells where to
go on; an empty directory starts where the slot is, or else where the server is.

Exit status: 0 it was told to stop, or got to --endpos; 1 it could not go on; 2 wrong options."
)]
pub struct Opts {
    /// Write segments into this directory
    #[arg(short = 'D', long, value_name = "DIR", group = "work")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// The slot that remembers on the server how far this is, so that it keeps what is not here yet
    #[arg(short = 'S', long, value_name = "NAME")]
    slot: Option<String>,
    /// Create the slot, which keeps WAL from now on; without --directory, do nothing else
    #[arg(long, requires = "slot", group = "work")]
    create_slot: bool,
    /// Take a slot that is there already
    #[arg(long, requires = "create_slot")]
    if_not_exists: bool,
    /// Drop the slot, and do nothing else
    #[arg(long, requires = "slot", group = "work", conflicts_with_all = ["create_slot", "directory"])]
    drop_slot: bool,
    /// Stop when everything up to this LSN has been received
    #[arg(short = 'E', long, value_name = "LSN")]
    endpos: Option<Lsn>,
    /// Give up when the connection breaks, instead of trying again
    #[arg(short, long)]
    no_loop: bool,
    /// Tell the server this often how far this is
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    status_interval: u64,
    /// Put everything on disk and acknowledge it as it comes: a server can wait for that with each commit
    #[arg(long)]
    synchronous: bool,
    /// Compress segments: gzip, lz4 or zstd, with a level as in gzip:9
    #[arg(short = 'Z', long, value_name = "METHOD[:LEVEL]", default_value = "none")]
    compress: Compression,
    /// What to do with WAL that is damaged: stop before it; or write it, say so, and never acknowledge it
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    on_damage: Damage,
    /// Print no progress, and nothing of what goes well
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Damage {
    Stop,
    Warn,
}

/// Time until the next try, at first and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl Opts {
    /// Runs the command.
    pub fn run(self, _out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
        let mut config = self.server.config()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        if let Some(slot) = self.slot.as_deref().filter(|_| self.create_slot || self.drop_slot) {
            self.change_slot(&mut config, slot)?;
        }
        let Some(dir) = self.directory.clone() else { return Ok(ExitCode::SUCCESS) };
        if !dir.is_dir() {
            return Err(format!("{}: not a directory", dir.display()).into());
        }
        let options = Options {
            dir,
            compression: self.compress,
            slot: self.slot.clone(),
            synchronous: self.synchronous,
            status_interval: match self.status_interval {
                0 => Duration::from_secs(365 * 24 * 3600),
                seconds => Duration::from_secs(seconds),
            },
            start: None,
            end: self.endpos,
            on_damage: match self.on_damage {
                Damage::Stop => OnDamage::Stop,
                Damage::Warn => OnDamage::Warn,
            },
        };
        let mut progress = Progress::new(self.quiet);
        let mut wait = WAIT.0;
        loop {
            let before = progress.written;
            let result = receive(&self.server, &mut config, &options, &stop, &mut progress);
            if progress.written > before {
                wait = WAIT.0;
            }
            let error: Box<dyn Error> = match result {
                Ok(Outcome::Stopped | Outcome::Reached(_)) => return Ok(ExitCode::SUCCESS),
                _ if stop.load(Ordering::Relaxed) => return Ok(ExitCode::SUCCESS),
                Ok(Outcome::Ended) => "the server ended the stream".into(),
                Err(Failure { error, is_final }) if is_final || self.no_loop => return Err(error),
                Err(Failure { error, .. }) => error,
            };
            if self.no_loop {
                return Err(error);
            }
            progress.say(&format!("{error}; trying again in {} s", wait.as_secs_f32()));
            let until = Instant::now() + wait;
            while Instant::now() < until && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
            wait = (wait * 2).min(WAIT.1);
        }
    }

    /// Creates or drops the slot.
    fn change_slot(&self, config: &mut Config, slot: &str) -> Result<(), Box<dyn Error>> {
        let mut connection = self.server.connect(config, Mode::Replication)?;
        match self.drop_slot {
            true => slots::drop(&mut connection, slot, false, false).map(drop)?,
            false => slots::create(&mut connection, slot, self.if_not_exists).map(drop)?,
        }
        Ok(())
    }
}

/// Why receiving ended.
struct Failure {
    error: Box<dyn Error>,
    /// To try again would change nothing.
    is_final: bool,
}

/// Connects and receives.
fn receive(
    server: &ServerArgs,
    config: &mut Config,
    options: &Options,
    stop: &AtomicBool,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    let mut connection = server.connect(config, Mode::Replication).map_err(|e| Failure { error: e.into(), is_final: false })?;
    receive::receive(&mut connection, options, stop, &mut |notice| progress.take(notice)).map_err(|error| {
        let is_final = match &error {
            ReceiveError::Server(connection::Error::Server(error)) => is_final(&error.code),
            // The disk may have room again, and the directory be writable.
            ReceiveError::Server(_) | ReceiveError::File(_) => false,
            _ => true,
        };
        let error = match &error {
            ReceiveError::Server(connection::Error::Server(removed)) if removed.code == UNDEFINED_FILE => {
                format!("{error}\nThe server does not have this WAL any more: there would be a gap. Take it from an archive, or start in an empty directory").into()
            }
            _ => error.into(),
        };
        Failure { error, is_final }
    })
}

/// SQLSTATE of WAL that is asked for and not there any more.
const UNDEFINED_FILE: &str = "58P01";

/// Whether the server would say the same again, by SQLSTATE: WAL that it has removed, and commands and settings that are wrong; but not a
/// slot that is still in use by a connection that broke, nor a server that starts or stops.
fn is_final(code: &str) -> bool {
    code == UNDEFINED_FILE || ["0A", "22", "28", "3D", "42"].iter().any(|class| code.starts_with(class))
}

/// What the user sees while it runs.
struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    written: Lsn,
    started: Instant,
    received: u64,
    shown: Instant,
}

impl Progress {
    fn new(quiet: bool) -> Progress {
        let bar = (!quiet && io::stderr().is_terminal()).then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(200));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
        }
        Progress { bar, quiet, written: Lsn::INVALID, started: Instant::now(), received: 0, shown: Instant::now() }
    }

    /// Prints a line, beside the progress.
    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("pgwal: {line}")),
            None => eprintln!("pgwal: {line}"),
        }
    }

    fn take(&mut self, notice: Notice<'_>) {
        match notice {
            Notice::Starting { lsn, timeline } => {
                self.written = lsn;
                if !self.quiet {
                    self.say(&format!("starting at {lsn}, timeline {timeline}"));
                }
            }
            Notice::Switched { from, to } if !self.quiet => {
                self.say(&format!("timeline {from} ended at {}: going on with timeline {}", to.start, to.timeline));
            }
            Notice::Switched { .. } => {}
            Notice::Written { written, server_end } => {
                self.received += written - self.written;
                self.written = written;
                let Some(bar) = self.bar.as_ref().filter(|_| self.shown.elapsed() > Duration::from_millis(200)) else { return };
                self.shown = Instant::now();
                let rate = self.received as f64 / self.started.elapsed().as_secs_f64().max(0.001);
                let lag = HumanBytes(server_end - written);
                bar.set_message(format!("{written}, {} received, {}/s, {lag} behind", HumanBytes(self.received), HumanBytes(rate as u64)));
            }
            Notice::Damage(error) => self.say(&format!("the WAL that the server sent is damaged: {error}")),
        }
    }
}
