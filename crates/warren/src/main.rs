//! The `warren` command.

mod data_dir;
mod log_exchange;
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
                  List queues:               warren ctl list_queues\n\
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
    /// Look at a running broker and change it, with rabbitmqctl's commands.
    Ctl(warren_ctl::Options),
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
    if is_called_by_link() {
        return warren_ctl::run_as_rabbitmqctl(std::env::args());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Scripts look at rabbitmqctl's exit codes.
        Err(error) if std::env::args().nth(1).as_deref() == Some("ctl") => return warren_ctl::usage(&error),
        Err(error) => error.exit(),
    };
    match cli.command {
        Command::Ctl(options) => warren_ctl::run(&options),
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

/// Whether it goes by the name of one of RabbitMQ's tools.
fn is_called_by_link() -> bool {
    let path = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = path.as_deref().and_then(std::path::Path::file_name);
    name.and_then(std::ffi::OsStr::to_str).is_some_and(|name| warren_ctl::LINK_NAMES.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
