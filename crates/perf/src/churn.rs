//! `warren perf churn`

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use warren_amqp091_codec::Method;
use warren_types::FieldTable;

use crate::Common;
use crate::client::Client;
use crate::load::ended;
use crate::process::{cpu_between, usage};
use crate::relay::{ANSWER_LEN, QUESTION_LEN};
use crate::report::Report;
use crate::target::Target;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    /// What comes and goes.
    #[arg(value_enum)]
    what: What,

    /// Clients that do it at the same time.
    #[arg(long, default_value_t = 1)]
    clients: usize,

    /// Seconds to measure.
    #[arg(long, short = 'z', default_value_t = 10.0)]
    duration: f64,

    /// Do as many round trips, connections and syncs with the echo of warren perf relay, and nothing else: the floor.
    #[arg(long)]
    bare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Open a connection and a channel, and close the connection.
    Connections,
    /// Open and close a channel.
    Channels,
    /// Declare and delete a transient queue.
    Queues,
    /// Declare and delete a durable queue.
    DurableQueues,
    /// Bind a durable queue to a durable exchange with a new key each time.
    Bindings,
    /// Start and cancel a consumer.
    Consumers,
}

impl What {
    /// How often the client waits for an answer: as `once` does.
    fn round_trips(self) -> usize {
        match self {
            Self::Connections => 5,
            Self::Channels | Self::Queues | Self::DurableQueues | Self::Consumers => 2,
            Self::Bindings => 1,
        }
    }

    fn once_bare(self, target: &Target, client: &mut Client) -> anyhow::Result<()> {
        let mut question = [0; QUESTION_LEN];
        question[0] = u8::from(matches!(self, Self::DurableQueues | Self::Bindings));
        let mut connection = None;
        let socket = match self {
            Self::Connections => &mut connection.insert(Client::connect_bare(target)?).socket,
            _ => &mut client.socket,
        };
        for _ in 0..self.round_trips() {
            socket.write_all(&question)?;
            socket.read_exact(&mut [0; ANSWER_LEN])?;
        }
        Ok(())
    }

    fn is_durable(self) -> bool {
        self != Self::Queues
    }

    fn once(self, target: &Target, client: &mut Client, queue: &str, number: u64) -> anyhow::Result<()> {
        match self {
            Self::Connections => Client::connect(target)?.close(),
            Self::Channels => {
                client.call(2, &Method::ChannelOpen { out_of_band: b"" }, "channel.open-ok")?;
                let close =
                    Method::ChannelClose { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
                client.call(2, &close, "channel.close-ok")
            }
            Self::Queues | Self::DurableQueues => {
                client.declare(&format!("{queue}-{number}"), self.is_durable(), FieldTable::new())?;
                client.delete(&format!("{queue}-{number}"))
            }
            Self::Bindings => client.bind(queue, "amq.direct", &format!("key-{number}")),
            Self::Consumers => {
                let consume = Method::BasicConsume {
                    ticket: 0,
                    queue: queue.as_bytes(),
                    consumer_tag: b"tag",
                    no_local: false,
                    no_ack: false,
                    exclusive: false,
                    nowait: false,
                    arguments: FieldTable::new(),
                };
                client.call(1, &consume, "basic.consume-ok")?;
                client.call(
                    1,
                    &Method::BasicCancel { consumer_tag: b"tag", nowait: false },
                    "basic.cancel-ok",
                )
            }
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (target, watched) = (options.common.target()?, options.common.watched()?);
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let (elapsed, used) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.clients)
            .map(|index| {
                let (stop, count, target) = (&stop, &count, &target);
                scope.spawn(move || match options.bare {
                    true => repeat_bare(options.what, target, stop, count),
                    false => repeat(options.what, target, &format!("perf-churn-{index}"), stop, count),
                })
            })
            .collect();
        let (start, before) = (Instant::now(), usage(watched));
        while start.elapsed().as_secs_f64() < options.duration
            && !threads.iter().any(|thread| thread.is_finished())
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (elapsed, after) = (start.elapsed(), usage(watched));
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            ended(thread.join())?;
        }
        anyhow::Ok((elapsed, cpu_between(before?, after?)))
    })?;
    let mut report = Report::default();
    let count = count.into_inner();
    report.rate("operations", count, elapsed);
    report.cpu(used, "operation", count);
    options.common.finish(&report)
}

fn repeat_bare(what: What, target: &Target, stop: &AtomicBool, count: &AtomicU64) -> anyhow::Result<()> {
    let mut client = Client::connect_bare(target)?;
    while !stop.load(Ordering::Relaxed) {
        what.once_bare(target, &mut client)?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn repeat(
    what: What,
    target: &Target,
    queue: &str,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> anyhow::Result<()> {
    let mut client = Client::connect(target)?;
    client.declare(queue, what.is_durable(), FieldTable::new())?;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        what.once(target, &mut client, queue, number)?;
        number += 1;
        count.fetch_add(1, Ordering::Relaxed);
    }
    client.delete(queue)?;
    client.close()
}
