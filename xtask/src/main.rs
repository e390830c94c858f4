//! Developer tasks, run as `cargo xtask <task>`.

mod bench;
mod broker;
mod cases;
mod codegen;
mod fuzz;
mod instructions;
mod interop;
mod process;
mod steps;
mod tally;
mod tools;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::tally::Tally;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of Warren.")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Bench(bench::Options),
    Codegen(codegen::Options),
    Instructions(instructions::Options),
    Interop(interop::Options),
    Test(steps::Options),
    /// The load generator of `bench`, which runs it on a core of its own.
    #[command(hide = true)]
    Wire(bench::WireOptions),
}

fn main() -> ExitCode {
    match run(Options::parse().task) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    process::end_with_children().context("cannot handle signals")?;
    match task {
        Task::Bench(options) => bench::run(root, &options),
        Task::Codegen(options) => codegen::run(&options).map(|()| ExitCode::SUCCESS),
        Task::Instructions(options) => instructions::run(root, &options).map(conclude),
        Task::Interop(options) => interop::run(root, &options).map(conclude),
        Task::Test(options) => steps::run(root, &options).map(conclude),
        Task::Wire(options) => bench::run_wire(&options),
    }
}

/// Prints the counts as the last line.
fn conclude(tally: Tally) -> ExitCode {
    println!("{tally}");
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The cargo that runs this program, in the workspace's folder.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
