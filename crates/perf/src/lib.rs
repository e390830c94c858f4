//! `warren perf`: a load generator for any AMQP 0-9-1 broker.
//!
//! It should cost far less for each message than any broker does, so that it can load one from a core of its own: frames
//! are built once and written many at a time, and what comes is counted in place. It stands on the codec alone.

mod churn;
mod client;
mod idle;
mod load;
mod process;
mod relay;
mod report;
mod requests;
mod run;
mod sync;
mod target;

use clap::{Args, Subcommand};

use crate::process::Watched;
use crate::report::Report;
use crate::target::Target;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish and consume: rates, latencies, verification.
    ///
    /// Without --rate publishers send as fast as the broker lets them. Examples:
    ///
    ///   warren perf run --size 1024 --duration 30
    ///   warren perf run --durable --persistent --confirm 1000 --prefetch 1000 --ack-every 100
    ///   warren perf run --rate 5000 --size 100 --latency
    ///   warren perf run --exchange-type fanout --queues 10 --consumers 10 --size 100
    #[command(verbatim_doc_comment)]
    Run(run::Options),
    /// Fill a durable queue with persistent messages, then drain it.
    Backlog(run::BacklogOptions),
    /// Requests and replies over direct reply-to: round trips a second, and how long each takes.
    Requests(requests::Options),
    /// Open and close, declare and delete, bind: operations a second, one at a time.
    Churn(churn::Options),
    /// Open connections or declare queues and leave them: memory of each.
    Idle(idle::Options),
    /// Be the floor: hand publishes of one connection to another as deliveries, and do nothing else.
    ///
    /// Takes pairs of connections, a publisher's first, without a handshake: warren perf run --bare connects so.
    Relay(relay::Options),
    /// Be the floor for confirms: write and fdatasync, as if each sync confirmed a group of messages.
    Sync(sync::Options),
}

/// Which broker, and how to tell what came out.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The broker.
    #[arg(long, env = "WARREN_PERF_URI", default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    uri: String,

    /// Process id of the broker, if it runs here: its processor time and memory are told, with its children's.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,

    /// Do not show progress on standard error.
    #[arg(long)]
    quiet: bool,
}

impl Common {
    fn target(&self) -> anyhow::Result<Target> {
        Target::parse(&self.uri)
    }

    fn watched(&self) -> anyhow::Result<Option<Watched>> {
        self.broker_pid.map(Watched::new).transpose()
    }

    fn finish(&self, report: &Report) -> anyhow::Result<()> {
        report.print(self.json)
    }
}

/// Runs a measurement and prints what came out.
///
/// # Errors
/// If the broker cannot be reached, ends a connection, or does not do what it should.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Run(options) => run::run(options),
        Command::Backlog(options) => run::backlog(options),
        Command::Requests(options) => requests::run(options),
        Command::Churn(options) => churn::run(options),
        Command::Idle(options) => idle::run(options),
        Command::Relay(options) => relay::run(options),
        Command::Sync(options) => sync::run(options),
    }
}
