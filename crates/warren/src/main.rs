//! The `warren` command.

mod data_dir;
mod server;
mod store;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// A message broker for RabbitMQ clients.
#[derive(Debug, Parser)]
#[command(
    name = "warren",
    version,
    about,
    long_about = "Warren is a message broker. Clients of RabbitMQ (AMQP 0-9-1), and of its ancestors \
                  (AMQP 0-9 and 0-8), talk to it unchanged.",
    after_help = "Start a broker:            warren server\n\
                  With a port and a place:   warren server --amqp-port 5673 --data-dir /var/lib/warren\n\
                  Verify stored messages:    warren store check /var/lib/warren\n\
                  Measure a broker:          warren perf run\n\
                  Complete commands in bash: source <(warren completion bash)"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker until it gets SIGTERM or SIGINT.
    Server(server::Options),
    /// Look at the data directory of a stopped broker.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Measure a broker: rates, latencies, processor time and memory.
    #[command(subcommand)]
    Perf(warren_perf::Command),
    /// Print a script that completes warren's commands in a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Gives memory back after a burst, where the system's keeps it for each of the threads that had it.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Server(options) => server::run(&options),
        Command::Store(command) => store::run(&command),
        Command::Perf(command) => match warren_perf::run(&command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("warren: {error:#}");
                ExitCode::FAILURE
            }
        },
        Command::Completion { shell } => {
            // Not straight to standard output: the generator panics when nobody reads it any more.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "warren", &mut script);
            match std::io::stdout().write_all(&script) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
