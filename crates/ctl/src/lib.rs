//! `warren ctl`: rabbitmqctl's commands, in its words, for a broker on this machine.
//!
//! Commands reach the broker through the socket in its data directory. What rabbitmqctl says of a node that it would
//! reach by name is accepted; the data directory decides.

mod client;
mod command;
mod failure;
mod format;
mod messages;
mod run;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use command::Command;
pub use format::Formatter;

use failure::EXIT_USAGE;

/// Names under which the program is rabbitmqctl, when it is called by a link.
pub const LINK_NAMES: [&str; 2] = ["rabbitmqctl", "rabbitmq-diagnostics"];

/// Options of all commands.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Virtual host that the command is about.
    #[arg(short = 'p', long, global = true, default_value = "/", value_name = "VHOST")]
    vhost: String,

    /// Data directory of the broker.
    #[arg(long, global = true, env = "WARREN_DATA_DIR", default_value = "warren-data", value_name = "DIR")]
    data_dir: PathBuf,

    /// Name of the node: accepted, but the data directory decides.
    #[arg(short = 'n', long, global = true, value_name = "NODE")]
    node: Option<String>,

    /// Time for the node to answer, in seconds; 0 or infinity for as long as it takes.
    #[arg(short = 't', long, global = true, value_name = "SECONDS")]
    timeout: Option<String>,

    /// Print results alone.
    #[arg(short = 'q', long, global = true)]
    quiet: bool,

    /// Print results alone, without the names of columns.
    #[arg(short = 's', long, global = true)]
    silent: bool,

    /// Leave the names of columns out.
    #[arg(long, global = true)]
    no_table_headers: bool,

    /// How listings are shown.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    formatter: Formatter,

    /// Accepted: node names are not used.
    #[arg(short = 'l', long, global = true)]
    longnames: bool,

    /// Accepted: no script is in the way.
    #[arg(long, global = true, hide = true)]
    script_name: Option<String>,

    /// The command.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Parser)]
#[command(
    name = "rabbitmqctl",
    version,
    about = "Look at a broker on this machine and change it.",
    disable_help_subcommand = false,
    infer_subcommands = false
)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// Runs a command.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error:\n{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs the command in these arguments, the program's name first, as rabbitmqctl does.
#[must_use]
pub fn run_as_rabbitmqctl(arguments: impl Iterator<Item = String>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => run(&cli.options),
        Err(error) => usage(&error),
    }
}

/// Tells what is wrong with a command line, or helps if that was asked for.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    // There is nobody to tell if it cannot be printed.
    let _printed = error.print();
    ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
}

/// The command line of the linked names, for completion.
#[must_use]
pub fn command_line() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_anywhere() {
        for line in [
            "rabbitmqctl -q -p v list_queues name messages --formatter json",
            "rabbitmqctl list_queues -p v name messages -q --formatter=json",
            "rabbitmqctl -n rabbit@host --longnames list_queues name messages -q -p v --formatter json -t 10",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).expect("it is right");
            let Command::ListQueues(columns) = &cli.options.command else { panic!("{line}") };
            assert_eq!(columns.columns, ["name", "messages"]);
            assert_eq!((cli.options.vhost.as_str(), cli.options.quiet), ("v", true));
            assert_eq!(cli.options.formatter, Formatter::Json);
        }
    }
}
