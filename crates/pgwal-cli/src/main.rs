//! The `pgwal` command.

// What comes in is hostile: nothing that it says may stop the program.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo))]
// They panic where nobody listens: see `console`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[macro_use]
mod console;

mod args;
mod basebackup;
mod closed;
mod cmd;
mod dropin;
mod fullpage;
mod live;
mod metrics;
mod receivewal;
mod report;
mod restore;
mod server;
mod shrunk;
mod signals;
mod table;
mod verifybackup;
mod waldump;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use pgwal::printable::printable_lines;

use self::console::{COULD_NOT_RUN, CouldNotRun, Output};

/// Look into PostgreSQL's write-ahead log: every segment of PostgreSQL 10 to 19.
#[derive(Parser, Debug)]
#[command(name = "pgwal", bin_name = "pgwal", version, propagate_version = true)]
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
    signals::survive_file_size_limit();
    let cli = match console::parse(&args, Cli::try_parse_from) {
        Ok(cli) => cli,
        Err(answer) => return console::answer(&answer),
    };
    let is_answer = matches!(cli.command, Command::Basebackup(_) | Command::Diff(_) | Command::Doctor(_) | Command::Verify(_));
    let mut out = Output::new();
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
    // Where the output failed, the command's own error is that, too.
    if let Some(code) = out.finish(is_answer) {
        return code;
    }
    match result {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<args::WrongOption>() {
            Some(wrong) => {
                let mut cli = Cli::command();
                cli.build();
                let name = args.get(1).and_then(|name| name.to_str());
                let mut command = name.and_then(|name| cli.find_subcommand_mut(name).cloned()).unwrap_or(cli);
                console::answer(&command.error(ErrorKind::ValueValidation, printable_lines(wrong)))
            }
            None => {
                note!("{error}");
                if error.is::<CouldNotRun>() { COULD_NOT_RUN.into() } else { ExitCode::FAILURE }
            }
        },
    }
}
