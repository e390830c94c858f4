//! `warren perf requests`

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use warren_amqp091_codec::{Dialect, Method, frame};
use warren_types::FieldTable;

use crate::Common;
use crate::client::{Client, Incoming};
use crate::load::{ended, histogram, put_content, put_publish};
use crate::process::{cpu_between, usage};
use crate::report::Report;
use crate::target::Target;

const QUEUE: &str = "perf-requests";
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    /// Length of requests and replies, in bytes.
    #[arg(long, short = 's', default_value_t = 16)]
    size: usize,

    /// Seconds to measure.
    #[arg(long, short = 'z', default_value_t = 10.0)]
    duration: f64,
}

/// Answers requests. The reply address stands in the properties, whose length is always the same here.
fn serve(target: &Target, size: usize, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut client = Client::connect(target)?;
    client.consume(QUEUE, 0, true)?;
    client.socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (body, mut out) = (vec![b'r'; size], Vec::new());
    while !stop.load(Ordering::Relaxed) {
        // Some may have come together with the last answer.
        while let Some(address) = client.next_reply_to()? {
            put_publish(&mut out, "", &address, false, &body);
        }
        client.socket.write_all(&out).context("the broker has closed the server's connection")?;
        out.clear();
        client.read_unless_idle()?;
    }
    client.socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    client.close()
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (target, watched) = (options.common.target()?, options.common.watched()?);
    let mut client = Client::connect(&target)?;
    client.declare(QUEUE, false, FieldTable::new())?;
    client.consume(REPLY_TO, 0, true)?;
    let stop = AtomicBool::new(false);
    let mut latencies = histogram();
    let (elapsed, count, used) = std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&target, options.size, &stop));
        let (start, before, mut count) = (Instant::now(), usage(watched)?, 0);
        let result = ask(&mut client, options, start, &mut latencies, &mut count);
        let (elapsed, after) = (start.elapsed(), usage(watched)?);
        stop.store(true, Ordering::Relaxed);
        let served = ended(server.join());
        result.and(served)?;
        anyhow::Ok((elapsed, count, cpu_between(before, after)))
    })?;
    client.delete(QUEUE)?;
    client.close()?;
    let mut report = Report::default();
    report.rate("requests", count, elapsed);
    report.latency("round_trip", &latencies);
    report.cpu(used, "request", count);
    options.common.finish(&report)
}

fn ask(
    client: &mut Client,
    options: &Options,
    start: Instant,
    latencies: &mut hdrhistogram::Histogram<u64>,
    count: &mut u64,
) -> anyhow::Result<()> {
    let (body, mut out) = (vec![b'q'; options.size], Vec::new());
    while start.elapsed().as_secs_f64() < options.duration {
        out.clear();
        let publish = Method::BasicPublish {
            ticket: 0,
            exchange: b"",
            routing_key: QUEUE.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        frame::put_method(&mut out, Dialect::Amqp091, 1, &publish);
        put_content(&mut out, false, &[(REPLY_TO, *count)], &body);
        let sent = Instant::now();
        client.socket.write_all(&out)?;
        loop {
            match client.next()? {
                Some(Incoming::Delivery(_)) => break,
                Some(_) => {}
                None => client.read()?,
            }
        }
        latencies.saturating_record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1));
        *count += 1;
    }
    Ok(())
}
