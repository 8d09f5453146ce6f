//! Tasks of the repository.

mod bench;
mod interrupt;
mod receive;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bench(bench::Opts),
    BenchReceive(receive::Opts),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Bench(opts) => opts.run(),
        Task::BenchReceive(opts) => opts.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
