//! The drop-in for pg_receivewal: options, messages and exit status are those of 18, with servers of every major. C:
//! bin/pg_basebackup/pg_receivewal.c.
//!
//! It receives as `pgwal receive` does: every record is checked on its way. docs/drop-ins.md lists what is different on purpose.

mod options;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgwal::{Lsn, SegmentName, TimelineId};
use pgwal_stream::command::Command;
use pgwal_stream::connection::{self, Connection, Mode};
use pgwal_stream::conninfo::Config;
use pgwal_stream::lock::LockError;
use pgwal_stream::receive::{self, Memory, Notice, Outcome, ReceiveError};
use pgwal_stream::receiver::OnDamage;
use pgwal_stream::segments::{PARTIAL, Policy, segment_ends};
use pgwal_stream::slots::{self, SlotError};

use self::options::{Action, Options};
use crate::dropin::log::{Level, Log};
use crate::dropin::{Program, client};
use crate::{server, signals};

/// This drop-in.
pub const PROGRAM: Program = Program { name: "pg_receivewal", help: HELP, run };

const HELP: &str = "\
pg_receivewal (pgwal) receives PostgreSQL streaming write-ahead logs.

Usage:
  pg_receivewal [OPTION]...

Options:
  -D, --directory=DIR    receive write-ahead log files into this directory
  -E, --endpos=LSN       exit after receiving the specified LSN
      --if-not-exists    do not error if slot already exists when creating a slot
  -n, --no-loop          do not loop on connection lost
      --no-sync          do not wait for changes to be written safely to disk
  -s, --status-interval=SECS
                         time between status packets sent to server (default: 10)
  -S, --slot=SLOTNAME    replication slot to use
      --synchronous      flush write-ahead log immediately after writing
  -v, --verbose          output verbose messages
  -V, --version          output version information, then exit
  -Z, --compress=METHOD[:DETAIL]
                         compress as specified
  -?, --help             show this help, then exit

Connection options:
  -d, --dbname=CONNSTR   connection string
  -h, --host=HOSTNAME    database server host or socket directory
  -p, --port=PORT        database server port number
  -U, --username=NAME    connect as specified database user
  -w, --no-password      never prompt for password
  -W, --password         force password prompt (should happen automatically)

Optional actions:
      --create-slot      create a new replication slot (for the slot's name see --slot)
      --drop-slot        drop the replication slot (for the slot's name see --slot)

pgwal itself has more commands: see pgwal --help.
";

/// Time until the next try. C: `RECONNECT_SLEEP_TIME`.
const WAIT: Duration = Duration::from_secs(5);

/// Runs the program. `args` begin with the name that it was called by.
fn run(args: &[OsString]) -> ExitCode {
    let log = Log::lasting(PROGRAM.name);
    let options = match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => options,
        Err(wrong) => {
            wrong.say(args, &log);
            return ExitCode::FAILURE;
        }
    };
    match act(&options, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.say(Level::Error, &error);
            ExitCode::FAILURE
        }
    }
}

/// Does what is asked for.
fn act(options: &Options, log: &Log) -> Result<(), String> {
    if let Action::Receive(dir) = &options.action {
        std::fs::read_dir(dir).map_err(|e| format!("could not open directory \"{}\": {}", dir.display(), crate::fullpage::Errno(&e)))?;
    }
    let settings = client::settings(&options.client, PROGRAM.name).map_err(|e| e.to_string())?;
    let mut config = client::config(&options.client, &settings)?;
    let stop = signals::stop().map_err(|e| e.to_string())?;
    let connected = options.client.server.connect_until(&mut config, Mode::Replication, &stop);
    let mut connection = match connected {
        // Told to stop before there is anything to receive: that is no failure, as it is none later.
        Err(error) if error.is_interrupted() && matches!(options.action, Action::Receive(_)) => return Ok(()),
        connected => connected.map_err(|e| client::connect_error(&e))?,
    };
    // What is asked at the start is answered at once, or never.
    connection.set_limit(config.connect_timeout);
    let info = |text: String| {
        if options.verbose {
            log.say(Level::Info, &text);
        }
    };
    match &options.action {
        Action::DropSlot(slot) => {
            info(format!("dropping replication slot \"{slot}\""));
            let dropped = slots::drop(&mut connection, slot, false, false);
            let command = Command::DropReplicationSlot { slot, wait: false };
            dropped.map(drop).map_err(|e| format!("could not send replication command \"{command}\": {}", said(&e)))
        }
        Action::CreateSlot(slot) => {
            info(format!("creating replication slot \"{slot}\""));
            let created = slots::create(&mut connection, slot, false, options.if_not_exists);
            let command = client::create_slot(slot, false, connection.major());
            created.map(drop).map_err(|e| format!("could not send replication command \"{command}\": {}", said(&e)))
        }
        Action::Receive(dir) => {
            let mode = match receive::file_mode(&mut connection) {
                Err(_) if stop.load(Ordering::Relaxed) => return Ok(()),
                mode => mode.map_err(|e| explain(&e).0)?,
            };
            let wanted = receive::Options {
                dir: dir.clone(),
                compression: options.compression,
                slot: options.slot.clone(),
                synchronous: options.synchronous,
                policy: Policy { sync: !options.no_sync, mode },
                status_interval: server::interval(options.status_interval),
                end: options.end,
                on_damage: OnDamage::Stop,
                timeout: Some(server::TIMEOUT),
            };
            receive_until(options, &wanted, &mut config, connection, &stop, log)
        }
    }
}

/// Receives until it is told to stop, or has come to the end that was asked for; connects again where the connection breaks.
fn receive_until(
    options: &Options,
    wanted: &receive::Options,
    config: &mut Config,
    connection: Connection,
    stop: &Arc<AtomicBool>,
    log: &Log,
) -> Result<(), String> {
    let mut memory = Memory::default();
    // The real program locks nothing, so it has no words for this.
    match memory.hold(&wanted.dir) {
        Err(LockError::File(error)) if !error.is_full() => return Err(client::file_error(&error)),
        // The other errors come again below.
        _ => {}
    }
    let mut connection = Some(connection);
    loop {
        let mut teller = Teller { log, verbose: options.verbose, dir: &wanted.dir, at: None, segment_size: None };
        let connected = match connection.take() {
            Some(connection) => Ok(connection),
            None => options.client.server.connect_until(config, Mode::Replication, stop),
        };
        let result = connected.map_err(|e| (client::connect_error(&e), false)).and_then(|mut connection| {
            connection.set_limit(wanted.timeout);
            if let (Some(slot), Some(..15)) = (&wanted.slot, connection.major()) {
                // Over this connection they do not say where it is.
                memory.slot = options.client.server.slot(config, slot, wanted.timeout, stop).and_then(|slot| slot.restart_lsn);
            }
            receive::receive(&mut connection, wanted, &mut memory, stop, &mut |notice| teller.take(notice)).map_err(|error| explain(&error))
        });
        match result {
            Ok(Outcome::Reached(lsn)) => {
                teller.info(|timeline| format!("stopped log streaming at {} (timeline {timeline})", client::short(lsn)));
            }
            Ok(Outcome::Stopped) => teller.info(|_| "received interrupt signal, exiting".to_owned()),
            _ => {}
        }
        teller.close(wanted);
        match result {
            Ok(Outcome::Reached(_) | Outcome::Stopped) => return Ok(()),
            // Whoever is told to stop need not say that the connection broke.
            Ok(Outcome::Ended | Outcome::ShutDown) | Err((_, false)) if stop.load(Ordering::Relaxed) => return Ok(()),
            Ok(Outcome::Ended | Outcome::ShutDown) => log.say(Level::Error, "replication stream was terminated before stop point"),
            Err((text, true)) => return Err(text),
            Err((text, false)) => log.say(Level::Error, &text),
        }
        if options.no_loop {
            return Err("disconnected".to_owned());
        }
        log.say(Level::Info, &format!("disconnected; waiting {} seconds to try again", WAIT.as_secs()));
        let until = Instant::now() + WAIT;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The real program's words for an error, and whether to try again would change nothing.
fn explain(error: &ReceiveError<connection::Error>) -> (String, bool) {
    let is_final = match error {
        ReceiveError::File(error) => error.is_sync() || error.is_unusable(),
        // A standby may not have come to it yet.
        ReceiveError::NoSlot { .. } | ReceiveError::Silent(_) | ReceiveError::Timeline { .. } => false,
        error => error.server().is_none(),
    };
    (client::receive_error(error), is_final)
}

/// What the server says about a slot, which the error has in words of its own.
fn said(error: &SlotError) -> String {
    match error {
        SlotError::Server(error) => error.to_string(),
        error => format!("ERROR:  {error}"),
    }
}

/// Says what the real program says.
struct Teller<'a> {
    log: &'a Log,
    verbose: bool,
    dir: &'a Path,
    /// How far the WAL has been written, on which timeline.
    at: Option<(TimelineId, Lsn)>,
    segment_size: Option<u32>,
}

impl Teller<'_> {
    /// A line of `--verbose`.
    fn info(&self, text: impl FnOnce(TimelineId) -> String) {
        if self.verbose {
            let timeline = self.at.map_or(TimelineId(0), |(timeline, _)| timeline);
            self.log.say(Level::Info, &text(timeline));
        }
    }

    fn take(&mut self, notice: Notice<'_>) {
        match notice {
            Notice::Starting { lsn, timeline, segment_size } => {
                self.segment_size = Some(segment_size);
                if self.at.is_none() {
                    self.at = Some((timeline, lsn));
                    self.info(|_| format!("starting log streaming at {} (timeline {timeline})", client::short(lsn)));
                }
                self.at = Some((timeline, lsn));
            }
            Notice::Switched { to, .. } => {
                let before = self.at.map_or(to.start, |(_, lsn)| lsn);
                self.info(|_| format!("switched to timeline {} at {}", to.timeline, client::short(before)));
            }
            Notice::Written { written, .. } => {
                let (Some((timeline, before)), Some(size)) = (self.at, self.segment_size) else { return };
                for end in segment_ends(before, written, size) {
                    self.info(|timeline| format!("finished segment at {} (timeline {timeline})", client::short(end)));
                }
                self.at = Some((timeline, written));
            }
            Notice::Damage(error) => self.log.say(Level::Warning, &format!("the WAL that the server sent is damaged: {error}")),
            Notice::DamagedFile(problem) => self.log.say(Level::Warning, &format!("the WAL in the directory is damaged: {problem}")),
            // The real program does not know it, either, and does not say so.
            Notice::SlotUnknown { .. } => {}
        }
    }

    /// Streaming is over, perhaps within a segment.
    fn close(&self, wanted: &receive::Options) {
        let (Some((timeline, lsn)), Some(size)) = (self.at, self.segment_size) else { return };
        let name = SegmentName::of(timeline, lsn, size);
        let name = format!("{name}{}{PARTIAL}", wanted.compression.suffix());
        if self.dir.join(&name).exists() {
            self.log.say(Level::Info, &format!("not renaming \"{name}\", segment is not complete"));
        }
    }
}
