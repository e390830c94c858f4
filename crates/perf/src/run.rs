//! `warren perf run` and `warren perf backlog`.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use warren_amqp091_codec::Method;
use warren_types::{FieldTable, FieldValue};

use crate::Common;
use crate::client::Client;
use crate::load::{self, Outcome, Plan, STAMPED_LEN_MIN, Until};
use crate::process::usage;
use crate::report::Report;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    /// Connections that publish.
    #[arg(long, short = 'x', default_value_t = 1)]
    publishers: usize,

    /// Connections that consume, spread over the queues.
    #[arg(long, short = 'y', default_value_t = 1)]
    consumers: usize,

    /// Queues, declared for this run and deleted after it.
    #[arg(long, short = 'q', default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    queues: u16,

    /// What the queues' names begin with, and the exchange's.
    #[arg(long, default_value = "perf")]
    name: String,

    /// Publish to an exchange of this type that the queues are bound to [default: each publisher to a queue by name].
    #[arg(long, short = 't', value_name = "TYPE")]
    exchange_type: Option<String>,

    /// Bindings of the exchange, spread over the queues. Those of a topic exchange have three words with wildcards
    /// among them. How many queues get a message is not known then, so it cannot be verified.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["verify", "messages"])]
    bindings: u32,

    /// Routing keys that are taken in turn, with --bindings.
    #[arg(long, value_name = "N", default_value_t = 64)]
    keys: u32,

    /// Length of a body, in bytes.
    #[arg(long, short = 's', default_value_t = 16)]
    size: usize,

    /// Durable queues.
    #[arg(long)]
    durable: bool,

    /// Persistent messages.
    #[arg(long)]
    persistent: bool,

    /// Confirms, with at most so many messages of a publisher unconfirmed.
    #[arg(long, short = 'c', value_name = "WINDOW", value_parser = clap::value_parser!(u64).range(1..))]
    confirm: Option<u64>,

    /// Most unacknowledged messages of a consumer; 0 for no limit.
    #[arg(long, default_value_t = 0)]
    prefetch: u16,

    /// Acknowledge every so many messages; 0 for automatic acknowledgement.
    #[arg(long, short = 'A', default_value_t = 0, value_name = "N")]
    ack_every: u64,

    /// Messages a second, of all publishers together. Latencies are then measured from the time each message was due.
    #[arg(long, short = 'r', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Measure latencies: publish to delivery, and publish to confirm.
    #[arg(long)]
    latency: bool,

    /// Check that everything comes, unchanged and in order.
    #[arg(long)]
    verify: bool,

    /// Queue argument, a number if it looks like one. May be given several times.
    #[arg(long = "argument", value_name = "NAME=VALUE")]
    arguments: Vec<String>,

    /// Seconds to measure.
    #[arg(long, short = 'z', default_value_t = 10.0)]
    duration: f64,

    /// Seconds before, that do not count.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,

    /// Publish so many messages instead of for a time, and end when they are consumed.
    #[arg(long, short = 'C', value_name = "N", conflicts_with_all = ["duration", "warm_up"])]
    messages: Option<u64>,

    /// Speak to `warren perf relay`: no handshake, no queues.
    #[arg(long, conflicts_with_all = ["confirm", "exchange_type", "ack_every", "prefetch"])]
    bare: bool,
}

#[derive(Debug, Args)]
pub struct BacklogOptions {
    #[command(flatten)]
    common: Common,

    /// How many messages.
    #[arg(long, short = 'C', default_value_t = 1_000_000)]
    messages: u64,

    /// Length of a body, in bytes.
    #[arg(long, short = 's', default_value_t = 100)]
    size: usize,

    /// Connections that publish.
    #[arg(long, short = 'x', default_value_t = 1)]
    publishers: usize,

    /// Most unconfirmed messages of a publisher.
    #[arg(long, short = 'c', default_value_t = 10_000, value_name = "WINDOW")]
    confirm: u64,

    /// Name of the queue.
    #[arg(long, default_value = "perf-backlog")]
    name: String,

    /// Seconds between the last confirm and the look at the broker's memory.
    #[arg(long, default_value_t = 5.0)]
    rest: f64,
}

/// A sequence of numbers that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// Three words, of which some may be wildcards.
    fn key(&mut self, wildcards: bool) -> String {
        let words = (0..3).map(|_| match self.next(10) {
            0 | 1 if wildcards => "*".to_owned(),
            2 if wildcards => "#".to_owned(),
            _ => format!("w{}", self.next(20)),
        });
        words.collect::<Vec<_>>().join(".")
    }
}

impl Options {
    fn plan(&self) -> anyhow::Result<Plan> {
        let has_stamps = self.latency || self.verify || self.rate.is_some();
        if has_stamps && self.size < STAMPED_LEN_MIN {
            bail!("--size must be at least {STAMPED_LEN_MIN} for --rate, --latency and --verify");
        }
        let fans_out = self.exchange_type.as_deref() == Some("fanout");
        let mut numbers = Numbers(1);
        let keys = match (&self.exchange_type, self.bindings) {
            (None, _) => Vec::new(),
            (Some(_), 0) => vec!["key".to_owned()],
            (Some(_), _) => (0..self.keys.max(1)).map(|_| numbers.key(false)).collect(),
        };
        Ok(Plan {
            target: self.common.target()?,
            publishers: self.publishers,
            consumers: self.consumers,
            queues: (0..self.queues).map(|number| format!("{}-{number}", self.name)).collect(),
            exchange: self.exchange_type.as_ref().map(|_| self.name.clone()).unwrap_or_default(),
            keys,
            copies: if fans_out || (self.exchange_type.is_some() && self.bindings == 0) {
                self.queues.into()
            } else {
                1
            },
            size: self.size,
            persistent: self.persistent,
            confirm: self.confirm,
            prefetch: self.prefetch,
            ack_every: self.ack_every,
            rate: self.rate,
            latency: self.latency || self.rate.is_some(),
            verify: self.verify,
            until: match self.messages {
                Some(messages) => Until::Messages(messages),
                None => Until::After(seconds(self.duration)?),
            },
            warm_up: if self.messages.is_some() { Duration::ZERO } else { seconds(self.warm_up)? },
            watched: self.common.watched()?,
            progress: !self.common.quiet,
            bare: self.bare,
        })
    }

    /// Declares the exchange and binds the queues to it.
    fn bind(&self, plan: &Plan) -> anyhow::Result<()> {
        let Some(kind) = &self.exchange_type else { return Ok(()) };
        let mut client = Client::connect(&plan.target)?;
        let declare = Method::ExchangeDeclare {
            ticket: 0,
            exchange: plan.exchange.as_bytes(),
            kind: kind.as_bytes(),
            passive: false,
            durable: self.durable,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: FieldTable::new(),
        };
        client.call(1, &declare, "exchange.declare-ok")?;
        if self.bindings == 0 {
            for queue in &plan.queues {
                client.bind(queue, &plan.exchange, "key")?;
            }
        }
        let mut numbers = Numbers(2);
        for number in 0..self.bindings {
            let queue = &plan.queues[number as usize % plan.queues.len()];
            let key = numbers.key(kind == "topic");
            client.bind(queue, &plan.exchange, &key)?;
        }
        client.close()
    }

    fn arguments(&self) -> anyhow::Result<FieldTable> {
        let mut table = FieldTable::new();
        for argument in &self.arguments {
            let (name, value) =
                argument.split_once('=').with_context(|| format!("'{argument}' is not NAME=VALUE"))?;
            let value = match (value.parse(), value) {
                (Ok(number), _) => FieldValue::I64(number),
                (_, "true" | "false") => FieldValue::Bool(value == "true"),
                _ => FieldValue::string(value),
            };
            table.insert(name, value);
        }
        Ok(table)
    }
}

/// Deletes what was declared.
fn clean_up(plan: &Plan) -> anyhow::Result<()> {
    let mut client = Client::connect(&plan.target)?;
    for queue in &plan.queues {
        client.delete(queue)?;
    }
    if !plan.exchange.is_empty() {
        let exchange = plan.exchange.as_bytes();
        let delete = Method::ExchangeDelete { ticket: 0, exchange, if_unused: false, nowait: false };
        client.call(1, &delete, "exchange.delete-ok")?;
    }
    client.close()
}

fn seconds(value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{value} is not a number of seconds"))
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    let outcome = if plan.bare {
        load::run(plan)?
    } else {
        load::prepare(&plan, options.durable, &options.arguments()?)?;
        let result = options.bind(&plan).and_then(|()| load::run(plan.clone()));
        let cleaned = clean_up(&plan);
        let outcome = result?;
        cleaned?;
        outcome
    };
    let mut report = Report::default();
    put(&mut report, &outcome);
    if options.verify {
        report.put("verified", true, "verified: everything came, unchanged and in order".to_owned());
    }
    options.common.finish(&report)
}

fn put(report: &mut Report, outcome: &Outcome) {
    let elapsed = outcome.elapsed;
    report.put("seconds", elapsed.as_secs_f64(), format!("measured     {:>12.2} s", elapsed.as_secs_f64()));
    report.rate("published", outcome.published, elapsed);
    if outcome.confirmed + outcome.refused > 0 {
        report.rate("confirmed", outcome.confirmed, elapsed);
    }
    if outcome.refused > 0 {
        report.rate("refused", outcome.refused, elapsed);
    }
    if outcome.consumed > 0 {
        report.rate("consumed", outcome.consumed, elapsed);
    }
    report.latency("delivery", &outcome.delivery);
    report.latency("confirm", &outcome.confirm);
    let messages = if outcome.consumed > 0 { outcome.consumed } else { outcome.published };
    report.cpu(outcome.cpu, "message", messages);
    report.memory("now", outcome.memory);
}

pub(crate) fn backlog(options: &BacklogOptions) -> anyhow::Result<()> {
    let watched = options.common.watched()?;
    let memory = || anyhow::Ok(usage(watched)?.map(|usage| usage.memory));
    let before = memory()?;
    let fill = Plan {
        target: options.common.target()?,
        publishers: options.publishers,
        consumers: 0,
        queues: vec![options.name.clone()],
        exchange: String::new(),
        keys: Vec::new(),
        copies: 1,
        size: options.size,
        persistent: true,
        confirm: Some(options.confirm),
        prefetch: 0,
        ack_every: 0,
        rate: None,
        latency: false,
        verify: false,
        until: Until::Messages(options.messages),
        warm_up: Duration::ZERO,
        watched,
        progress: !options.common.quiet,
        bare: false,
    };
    let drain =
        Plan { publishers: 0, consumers: 1, prefetch: 1000, ack_every: 100, confirm: None, ..fill.clone() };
    load::prepare(&fill, true, &FieldTable::new())?;
    let filled = load::run(fill.clone())?;
    std::thread::sleep(seconds(options.rest)?);
    let full = memory()?;
    let drained = load::run(drain)?;
    clean_up(&fill)?;
    std::thread::sleep(seconds(options.rest)?);
    let mut report = Report::default();
    report.rate("filled", filled.confirmed, filled.elapsed);
    report.rate("drained", drained.consumed, drained.elapsed);
    let cpu = filled.cpu.zip(drained.cpu).map(|(fill, drain)| fill + drain);
    report.cpu(cpu, "message", drained.consumed);
    for (name, bytes) in
        [("before", before), ("with_the_backlog", full), ("drained", drained.memory), ("after", memory()?)]
    {
        report.memory(name, bytes);
    }
    options.common.finish(&report)
}
