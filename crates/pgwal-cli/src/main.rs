//! The `pgwal` command.

// What comes in is hostile: nothing that it says may stop the program.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo))]

mod args;
mod cmd;
mod dropin;
mod fullpage;
mod live;
mod report;
mod restore;
mod server;
mod shrunk;
mod signals;
mod table;
mod verifybackup;
mod waldump;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

/// Look into PostgreSQL's write-ahead log: every segment of PostgreSQL 10 to 19.
#[derive(Parser, Debug)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Basebackup(Box<cmd::basebackup::Opts>),
    Diff(cmd::diff::Opts),
    Doctor(cmd::doctor::Opts),
    Dump(Box<cmd::dump::Opts>),
    Names(cmd::names::Opts),
    Receive(cmd::receive::Opts),
    Slot(cmd::slot::Opts),
    Stats(cmd::stats::Opts),
    Verify(cmd::verify::Opts),
}

fn main() -> ExitCode {
    shrunk::watch();
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(program) = args.first().and_then(|name| dropin::find(name)) {
        return program.main(&args);
    }
    let name = args.get(1).and_then(|name| name.to_str()).map(str::to_owned);
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let result = match cli.command {
        Command::Basebackup(opts) => opts.run(&mut out),
        Command::Diff(opts) => opts.run(&mut out),
        Command::Doctor(opts) => opts.run(&mut out),
        Command::Dump(opts) => opts.run(&mut out),
        Command::Names(opts) => opts.run(&mut out),
        Command::Receive(opts) => opts.run(&mut out),
        Command::Slot(opts) => opts.run(&mut out),
        Command::Stats(opts) => opts.run(&mut out),
        Command::Verify(opts) => opts.run(&mut out),
    };
    match result.and_then(|code| out.flush().map(|()| code).map_err(Into::into)) {
        Ok(code) => code,
        Err(error) => {
            if let Some(wrong) = error.downcast_ref::<args::WrongOption>() {
                let mut cli = Cli::command();
                cli.build();
                let mut command = name.and_then(|name| cli.find_subcommand_mut(name).cloned()).unwrap_or(cli);
                command.error(ErrorKind::ValueValidation, wrong).exit();
            }
            match error.downcast_ref::<io::Error>() {
                // Whoever read the output has seen enough.
                Some(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                _ => {
                    eprintln!("pgwal: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
