//! `pgwal receive`: WAL from a live server, as a standby takes it.

use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args, ValueEnum};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use pgwal::{Lsn, SegmentName, TimelineId};
use pgwal_stream::compress::Compression;
use pgwal_stream::connection::{self, Connection, Mode};
use pgwal_stream::conninfo::Config;
use pgwal_stream::lock::{LockError, refuse_servers_own};
use pgwal_stream::receive::{self, Memory, Notice, Options, Outcome, ReceiveError};
use pgwal_stream::receiver::OnDamage;
use pgwal_stream::segments::{Newest, Policy, segment_ends};
use pgwal_stream::slots::{self, Slot, SlotError};

use crate::args::compression;
use crate::console;
use crate::server::{ClientArgs, FOREVER, seconds};
use crate::signals;

/// Receive WAL from a live server as a standby does, and write it into segments, every record verified on its way
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("work").required(true).multiple(true),
    after_help = "\
Example: pgwal receive -D wal -d \"host=db.example.org user=replicator\" --slot archive

The files are those of pg_receivewal: a segment is called `.partial` until it is whole and on disk. What is in the directory tells where to
go on; an empty directory starts where the slot is, or else where the server is.

All options of pg_receivewal work here with the same meaning, except that with --create-slot and --directory it creates the slot, which keeps
WAL from then on, and goes on to receive; pg_receivewal creates one that keeps nothing until it is used, and stops.

Exit status: 0 it was told to stop, or got to --endpos; 1 it could not go on; 2 wrong options.",
    disable_help_flag = true
)]
pub struct Opts {
    /// Write segments into this directory
    #[arg(short = 'D', long, value_name = "DIR", group = "work")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
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
    /// Tell the server this often how far this is; 0: only when it asks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds)]
    status_interval: u64,
    /// Give up a server that says nothing for so long, and connect again; it is asked for a sign of life after half of it; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = seconds)]
    timeout: u64,
    /// Put everything on disk and acknowledge it as it comes: a server can wait for that with each commit
    #[arg(long)]
    synchronous: bool,
    /// Do not wait until files are on disk: a machine that loses its power may then lose WAL that was acknowledged
    #[arg(long, conflicts_with = "synchronous")]
    no_sync: bool,
    /// Compress segments with gzip, lz4 or zstd, at a level as in gzip:9, or with options as in zstd:level=5,workers=2,long; a number alone
    /// is a level of gzip
    #[arg(short = 'Z', long, value_name = "METHOD[:DETAIL]", default_value = "none", value_parser = compression)]
    compress: Compression,
    /// What to do with WAL that is damaged: stop before it; or write it, say so, and never acknowledge it
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    on_damage: Damage,
    /// Say more: the end of each segment
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Print only problems, and no progress
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
        let mut config = self.client.config()?;
        let timeout = (self.timeout > 0).then(|| Duration::from_secs(self.timeout.min(FOREVER)));
        // A server that stalls may do so before it has let us in.
        config.connect_timeout = config.connect_timeout.or(timeout);
        let Some(dir) = self.directory.clone() else {
            let mut connection = self.client.server.connect(&mut config, Mode::Replication)?;
            connection.set_limit(timeout);
            self.change_slot(&mut connection, self.if_not_exists)?;
            return Ok(ExitCode::SUCCESS);
        };
        let problem = match fs::metadata(&dir) {
            Ok(found) if found.is_dir() => None,
            Ok(_) => Some("not a directory".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("does not exist".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            return Err(format!("{}: {problem}", pgwal::printable::printable_path(&dir)).into());
        }
        let stop = signals::stop()?;
        let options = Options {
            dir,
            compression: self.compress,
            slot: self.slot.clone(),
            synchronous: self.synchronous,
            policy: Policy { sync: !self.no_sync, ..Policy::default() },
            status_interval: Duration::from_secs(match self.status_interval {
                0 => FOREVER,
                seconds => seconds.min(FOREVER),
            }),
            // All up to there is enough, although the library, like pg_receivewal, asks for one byte more: a server without work sends none.
            end: self.endpos.map(|end| Lsn(end.0.saturating_sub(1))),
            on_damage: match self.on_damage {
                Damage::Stop => OnDamage::Stop,
                Damage::Warn => OnDamage::Warn,
            },
            timeout,
        };
        let mut memory = Memory::default();
        // Before anything else is done. A full disk is waited for, here as later.
        match refuse_servers_own(&options.dir).and_then(|()| memory.hold(&options.dir)) {
            Err(LockError::File(error)) if error.is_full() => {}
            result => result?,
        }
        let mut slot = if self.create_slot { SlotState::Wanted } else { SlotState::Settled };
        let mut progress = Progress::new(self.verbose, self.quiet);
        let mut wait = WAIT.0;
        loop {
            let before = progress.written;
            let result = self.receive(&mut config, &options, &mut memory, &mut slot, &stop, &mut progress);
            if progress.written > before {
                wait = WAIT.0;
            }
            let error: Box<dyn Error> = match result {
                Ok(Outcome::Stopped | Outcome::Reached(_)) => return Ok(ExitCode::SUCCESS),
                // Whoever is told to stop need not say that the connection broke, but that a file cannot be written.
                Ok(Outcome::Ended | Outcome::ShutDown) | Err(Failure { is_connection: true, .. }) if stop.load(Ordering::Relaxed) => {
                    return Ok(ExitCode::SUCCESS);
                }
                Ok(Outcome::ShutDown) => "the server was shut down".into(),
                Ok(Outcome::Ended) => "the server ended the stream".into(),
                Err(Failure { error, is_final: true, .. }) => return Err(error),
                // Later, somebody may be about to put it right.
                Err(Failure { error, is_refused: true, .. }) if progress.received == 0 => return Err(error),
                Err(Failure { error, .. }) => error,
            };
            if self.no_loop || stop.load(Ordering::Relaxed) {
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

    /// Creates or drops the slot, as the options say.
    fn change_slot(&self, connection: &mut Connection, may_exist: bool) -> Result<(), SlotError> {
        match &self.slot {
            Some(slot) if self.drop_slot => slots::drop(connection, slot, false, false).map(drop),
            Some(slot) if self.create_slot => slots::create(connection, slot, true, may_exist).map(drop),
            _ => Ok(()),
        }
    }

    /// Connects and receives.
    fn receive(
        &self,
        config: &mut Config,
        options: &Options,
        memory: &mut Memory,
        slot: &mut SlotState,
        stop: &Arc<AtomicBool>,
        progress: &mut Progress,
    ) -> Result<Outcome, Failure> {
        let mut connection = self.client.server.connect_until(config, Mode::Replication, stop).map_err(|error| Failure {
            is_final: !error.attempts.is_empty() && error.attempts.iter().all(|attempt| is_final(&attempt.error)),
            error: error.into(),
            is_refused: false,
            is_connection: true,
        })?;
        connection.set_limit(options.timeout);
        if *slot != SlotState::Settled {
            let may_exist = self.if_not_exists || *slot == SlotState::Asked;
            *slot = SlotState::Asked;
            self.change_slot(&mut connection, may_exist).map_err(|error| match error {
                SlotError::Server(error) => Failure::new(ReceiveError::Server(error), options, None),
                error => Failure { error: error.into(), is_final: true, is_refused: false, is_connection: false },
            })?;
            *slot = SlotState::Settled;
        }
        if let (Some(slot), Some(..15)) = (&self.slot, connection.major()) {
            // Over this connection they do not say where it is.
            memory.slot = self.client.server.slot(config, slot, options.timeout, stop).and_then(|slot| slot.restart_lsn);
        }
        let received = receive::receive(&mut connection, options, memory, stop, &mut |notice| progress.take(notice));
        received.map_err(|error| {
            let gap = match error.server() {
                Some(connection::Error::Server(said)) if said.code == UNDEFINED_FILE || said.code == NOT_IN_STATE => {
                    self.gap(config, options, progress, stop, said.code == UNDEFINED_FILE)
                }
                _ => None,
            };
            Failure::new(error, options, gap.as_ref())
        })
    }

    /// What the server no longer has of the WAL that is wanted, as far as it says so over a connection for SQL. `None`: that is not why
    /// it refuses; `is_removed`: it says that it is.
    fn gap(&self, config: &Config, options: &Options, progress: &Progress, stop: &Arc<AtomicBool>, is_removed: bool) -> Option<Gap> {
        let server = &self.client.server;
        let lost = self.slot.as_ref().and_then(|name| server.slot(config, name, options.timeout, stop)).filter(Slot::is_lost);
        if lost.is_none() && !is_removed {
            return None;
        }
        let (from, size) = (progress.written, progress.segment_size);
        let oldest = server.oldest_segment(config, options.timeout, stop).filter(|_| size > 0);
        let mut text = String::new();
        if let Some(slot) = &lost {
            text = format!("\nslot \"{}\" is lost: the server keeps no WAL for it any more. Drop it and create it again", slot.name);
        }
        match oldest.map(|oldest| (oldest, oldest.start(size))) {
            Some((oldest, to)) if from < to => {
                let name = |lsn| SegmentName::of(progress.timeline, lsn, size);
                text.push_str(&format!(
                    "\nThe server does not have this WAL any more: there would be a gap from {from} to {to}, segments {} to {} \
                     (the oldest that it has is {oldest}). Take them from an archive, or start in an empty directory",
                    name(from),
                    name(Lsn(to.0 - 1))
                ));
            }
            Some(_) if lost.is_some() && Newest::find(&options.dir, size).is_ok_and(|newest| newest.is_some()) => {
                text.push_str(&format!("\nThe server still has what follows the WAL in the directory, from {from} on"));
            }
            _ if lost.is_some() => {}
            _ => text.push_str(
                "\nThe server does not have this WAL any more: there would be a gap. Take it from an archive, or start in an empty directory",
            ),
        }
        Some(Gap { is_slot_lost: lost.is_some(), text })
    }
}

/// What is known of the slot that is to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Wanted,
    /// The server was told, and its answer may have been lost.
    Asked,
    /// It is there, or none is to be created.
    Settled,
}

/// WAL that the server no longer has.
struct Gap {
    /// The slot should have kept it, and does so no longer.
    is_slot_lost: bool,
    /// What is said of it.
    text: String,
}

/// Why receiving ended.
struct Failure {
    error: Box<dyn Error>,
    /// To try again would change nothing.
    is_final: bool,
    /// Permissions, or what lies at a path, are in the way.
    is_refused: bool,
    /// It is about the connection, and about nothing that came over it.
    is_connection: bool,
}

impl Failure {
    fn new(error: ReceiveError<connection::Error>, options: &Options, gap: Option<&Gap>) -> Failure {
        Failure {
            is_final: match &error {
                ReceiveError::Server(error) | ReceiveError::Refused { error, .. } => {
                    is_final(error) || gap.is_some_and(|gap| gap.is_slot_lost)
                }
                ReceiveError::Silent(_) => false,
                // The disk may have room again, and the directory be writable.
                ReceiveError::File(error) => error.is_sync() || error.is_unusable(),
                // A standby may not have come to it yet.
                ReceiveError::Timeline { .. } => false,
                _ => true,
            },
            is_refused: matches!(&error, ReceiveError::File(error) if error.is_refused()),
            is_connection: error.server().is_some() || matches!(error, ReceiveError::Silent(_)),
            error: match (error, options.timeout) {
                (ReceiveError::Server(connection::Error::Timeout), Some(limit)) => ReceiveError::<connection::Error>::Silent(limit).into(),
                (error, _) if gap.is_some() => format!("{error}{}", gap.map_or("", |gap| &gap.text)).into(),
                (error @ ReceiveError::DamagedFile(_), _) => {
                    format!("{error}\nIt is received again once this file and those behind it are moved away").into()
                }
                (error, _) => error.into(),
            },
        }
    }
}

/// SQLSTATE of a slot that is lost, among other things.
const NOT_IN_STATE: &str = "55000";

/// SQLSTATE of WAL that is asked for and not there any more.
const UNDEFINED_FILE: &str = "58P01";

/// Whether the same would come again: what the server says of WAL that it has removed, and of commands, settings and users that are wrong,
/// and what is wrong with the settings here; but not a slot that is still in use by a connection that broke, nor a server that starts or
/// stops, nor a network that fails.
pub(super) fn is_final(error: &connection::Error) -> bool {
    match error {
        connection::Error::Server(error) => {
            error.code == UNDEFINED_FILE || ["0A", "22", "28", "3D", "42"].iter().any(|class| error.code.starts_with(class))
        }
        connection::Error::Auth(_)
        | connection::Error::Peer { .. }
        | connection::Error::SocketPath { .. }
        | connection::Error::Tls(_)
        | connection::Error::TlsFile { .. }
        | connection::Error::TlsRefused => true,
        _ => false,
    }
}

/// What the user sees while it runs.
struct Progress {
    bar: Option<ProgressBar>,
    verbose: bool,
    quiet: bool,
    written: Lsn,
    timeline: TimelineId,
    /// Bytes of a segment.
    segment_size: u32,
    received: u64,
    shown: Instant,
    /// When the rate was last looked at, and what had been received then.
    mark: (Instant, u64),
    /// Bytes per second, of late.
    rate: f64,
}

impl Progress {
    fn new(verbose: bool, quiet: bool) -> Progress {
        let bar = (!quiet && io::stderr().is_terminal()).then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(200));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
        }
        let now = Instant::now();
        Progress {
            bar,
            verbose,
            quiet,
            written: Lsn::INVALID,
            timeline: TimelineId(0),
            segment_size: 0,
            received: 0,
            shown: now,
            mark: (now, 0),
            rate: 0.0,
        }
    }

    /// Prints a line, beside the progress.
    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(console::note_text(line)),
            None => note!("{line}"),
        }
    }

    fn take(&mut self, notice: Notice<'_>) {
        match notice {
            Notice::Starting { lsn, timeline, segment_size } => {
                (self.written, self.timeline, self.segment_size) = (lsn, timeline, segment_size);
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
                if self.verbose {
                    segment_ends(self.written, written, self.segment_size).for_each(|end| self.say(&format!("segment is whole, up to {end}")));
                }
                self.written = written;
                let Some(bar) = &self.bar else { return };
                let (now, lag) = (Instant::now(), server_end - written);
                // What has caught up may be the last for long.
                if lag > 0 && now - self.shown < Duration::from_millis(200) {
                    return;
                }
                self.shown = now;
                let (since, before) = self.mark;
                if now - since >= Duration::from_secs(1) {
                    self.rate = (self.received - before) as f64 / (now - since).as_secs_f64();
                    self.mark = (now, self.received);
                }
                let (received, rate, lag) = (HumanBytes(self.received), HumanBytes(self.rate as u64), HumanBytes(lag));
                bar.set_message(format!("{written}, {received} received, {rate}/s, {lag} behind"));
            }
            Notice::Damage(error) => self.say(&format!("the WAL that the server sent is damaged: {error}")),
            Notice::DamagedFile(problem) => self.say(&format!("the WAL in the directory is damaged: {problem}")),
            Notice::SlotUnknown { slot, start } => self.say(&format!(
                "it is not known where slot \"{slot}\" is, as before PostgreSQL 15 that takes a connection for SQL: what the slot keeps from before {start} is not received"
            )),
        }
    }
}
