//! `warren perf idle`

use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use warren_types::FieldTable;

use crate::Common;
use crate::client::Client;
use crate::report::Report;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    /// What is left idle.
    #[arg(value_enum)]
    what: What,

    /// How many.
    #[arg(long, short = 'n', default_value_t = 1000)]
    count: u64,

    /// Seconds in which the broker comes to rest before each look at its memory, and for which its use of the
    /// processor is measured.
    #[arg(long, default_value_t = 5.0)]
    rest: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Connections with a channel.
    Connections,
    /// Durable queues.
    Queues,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let target = options.common.target()?;
    let watched = options.common.watched()?.context("--broker-pid is needed: memory is what is measured")?;
    let rest = || std::thread::sleep(Duration::from_secs_f64(options.rest.max(0.0)));
    let mut client = Client::connect(&target)?;
    rest();
    let before = watched.usage()?;
    let mut connections = Vec::new();
    for number in 0..options.count {
        match options.what {
            What::Connections => connections.push(Client::connect(&target)?),
            What::Queues => drop(client.declare(&format!("perf-idle-{number}"), true, FieldTable::new())?),
        }
    }
    rest();
    let with = watched.usage()?;
    rest();
    let later = watched.usage()?;
    for connection in connections {
        connection.close()?;
    }
    if options.what == What::Queues {
        for number in 0..options.count {
            client.delete(&format!("perf-idle-{number}"))?;
        }
    }
    client.close()?;
    rest();
    let mut report = Report::default();
    let each = with.memory.saturating_sub(before.memory) as f64 / options.count.max(1) as f64;
    report.put("bytes_each", each.round(), format!("each         {each:>12.0} B"));
    report.memory("before", Some(before.memory));
    report.memory("with", Some(with.memory));
    report.memory("after", Some(watched.usage()?.memory));
    let busy = later.cpu.saturating_sub(with.cpu).as_secs_f64() / options.rest.max(1e-3);
    report.put("cpu_while_idle", busy, format!("CPU while idle {:>10.2} %", busy * 100.0));
    options.common.finish(&report)
}
