//! `xtask wire`: load for the brokers that `warren perf` does not speak to.
//!
//! One thread for each connection, all on one core. The publisher writes the same bytes over and over, and consumers do
//! no more than count, so that the generator takes less time than any server and the server is what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::cpu;
use super::wire::{GROUP, Protocol, Role, Wire};

/// Bytes written at once, as by `warren perf`, and bytes read at once.
const WRITE_LEN: usize = 64 * 1024;
const READ_LEN: usize = 256 * 1024;

/// How far ahead of the slowest consumer the publisher may be, in messages and in bytes of bodies: NATS drops consumers
/// for which it holds 64 MB.
const AHEAD_MAX: u64 = 50_000;
const AHEAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most unconfirmed persistent messages, as in the rows of the other brokers.
const UNCONFIRMED_MAX: u64 = 1000;

/// How long the publisher waits when it is too far ahead.
const PAUSE: Duration = Duration::from_micros(100);

/// How often threads look whether they should stop while nothing comes.
const IDLE: Duration = Duration::from_millis(100);

/// Time for a server to take or to give anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends messages through a broker and prints what they cost it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    protocol: Protocol,

    /// Where messages go.
    #[arg(long, value_name = "IP:PORT")]
    publish: SocketAddr,

    /// Where they come from.
    #[arg(long, value_name = "IP:PORT")]
    consume: SocketAddr,

    /// The server, whose processor time is told.
    #[arg(long)]
    pid: u32,

    /// Seconds to measure.
    #[arg(long)]
    seconds: f64,

    /// Seconds before, that do not count.
    #[arg(long)]
    warm_up: f64,

    /// Length of a body, in bytes.
    #[arg(long)]
    size: usize,

    /// Connections of which each gets every message.
    #[arg(long, default_value_t = 1)]
    consumers: usize,

    /// Persistent messages, with confirms and acknowledgements.
    #[arg(long)]
    persistent: bool,

    /// Send one message at a time and wait for a reply to it.
    #[arg(long, conflicts_with_all = ["consumers", "persistent"])]
    requests: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let result = if options.requests { requests(options)? } else { messages(options)? };
    println!("{result}");
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn connect(&self, wire: &mut dyn Wire, role: Role) -> anyhow::Result<TcpStream> {
        let address = match role {
            Role::Publisher => self.publish,
            Role::Consumer => self.consume,
        };
        let mut socket = TcpStream::connect(address).with_context(|| format!("nobody is at {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        wire.open(&mut socket, role)?;
        socket.set_read_timeout(Some(IDLE))?;
        Ok(socket)
    }

    fn warm_up(&self) -> anyhow::Result<Duration> {
        Ok(Duration::try_from_secs_f64(self.warm_up)?)
    }

    fn duration(&self) -> anyhow::Result<Duration> {
        Ok(Duration::try_from_secs_f64(self.seconds)?)
    }
}

/// What the threads tell each other.
struct Shared {
    /// The publisher is to stop.
    stop: AtomicBool,
    /// How many it has sent, when it has stopped.
    sent: AtomicU64,
    confirmed: AtomicU64,
    /// Of each consumer.
    delivered: Vec<AtomicU64>,
}

impl Shared {
    fn delivered(&self) -> u64 {
        self.delivered.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// One publisher that sends as fast as the broker takes it.
fn messages(options: &Options) -> anyhow::Result<Value> {
    let (warm_up, duration) = (options.warm_up()?, options.duration()?);
    // What an earlier run may have left behind is in a queue of another name.
    let name = format!("bench-{}", std::process::id());
    let wire = || options.protocol.wire(&name, options.persistent);
    let shared = Shared {
        stop: AtomicBool::new(false),
        sent: AtomicU64::new(u64::MAX),
        confirmed: AtomicU64::new(0),
        delivered: (0..options.consumers).map(|_| AtomicU64::new(0)).collect(),
    };
    let mut consumers = Vec::new();
    for _ in 0..options.consumers {
        let mut wire = wire()?;
        consumers.push((options.connect(&mut *wire, Role::Consumer)?, wire));
    }
    let (mut publisher, mut confirms) = (wire()?, wire()?);
    // It stays open until all has come: closing it with something unread would reset the connection, and the server would
    // not read the rest.
    let mut socket = options.connect(&mut *publisher, Role::Publisher)?;
    thread::scope(|scope| {
        let shared = &shared;
        let mut threads = Vec::new();
        for ((socket, mut wire), count) in consumers.into_iter().zip(&shared.delivered) {
            threads.push(scope.spawn(move || receive(socket, &mut *wire, &shared.sent, count)));
        }
        if options.persistent {
            let socket = socket.try_clone()?;
            threads
                .push(scope.spawn(move || receive(socket, &mut *confirms, &shared.sent, &shared.confirmed)));
        }
        let socket = &mut socket;
        let publisher = scope.spawn(move || {
            let result = publish(socket, &mut *publisher, options, shared);
            // Whatever ended it, the others must not wait for more.
            shared.sent.store(result.as_ref().copied().unwrap_or(0), Ordering::Relaxed);
            result
        });
        thread::sleep(warm_up);
        let before = Look::at(options.pid, shared);
        thread::sleep(duration);
        let after = Look::at(options.pid, shared);
        shared.stop.store(true, Ordering::Relaxed);
        ended(publisher.join())?;
        for thread in threads {
            ended(thread.join())?;
        }
        before?.to(&after?)
    })
}

/// What was used and done up to one moment.
struct Look {
    at: Instant,
    server: Duration,
    generator: Duration,
    delivered: u64,
}

impl Look {
    fn at(pid: u32, shared: &Shared) -> anyhow::Result<Self> {
        let (server, generator) = (cpu::used(pid)?, cpu::used(std::process::id())?);
        Ok(Self { at: Instant::now(), server, generator, delivered: shared.delivered() })
    }

    fn to(&self, after: &Self) -> anyhow::Result<Value> {
        let seconds = (after.at - self.at).as_secs_f64();
        let (consumed, server) = (after.delivered - self.delivered, after.server - self.server);
        if consumed == 0 {
            bail!("no message came");
        }
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / consumed as f64;
        Ok(json!({
            "seconds": seconds,
            "consumed": consumed,
            "consumed_per_second": consumed as f64 / seconds,
            "broker_cpu_us_per_message": micros(server),
            "broker_cpu_share": server.as_secs_f64() / seconds,
            "generator_cpu_us_per_message": micros(after.generator - self.generator),
        }))
    }
}

/// Sends until it is told to stop; tells how many messages that were.
fn publish(
    socket: &mut TcpStream,
    wire: &mut dyn Wire,
    options: &Options,
    shared: &Shared,
) -> anyhow::Result<u64> {
    let body = vec![b'b'; options.size];
    let (mut batch, mut in_batch) = (Vec::new(), 0);
    loop {
        wire.encode(&mut batch, &body);
        in_batch += 1;
        let full = batch.len() + batch.len() / in_batch > WRITE_LEN;
        if if options.persistent { in_batch as u64 == GROUP } else { full } {
            break;
        }
    }
    let in_batch = in_batch as u64;
    let ahead_max = (AHEAD_BYTES_MAX / (options.size as u64).max(1)).min(AHEAD_MAX).max(in_batch);
    let mut sent = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let slowest = shared.delivered.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0);
        let confirmed = shared.confirmed.load(Ordering::Relaxed);
        let unconfirmed = options.persistent && sent + in_batch > confirmed + UNCONFIRMED_MAX;
        if sent + in_batch > slowest + ahead_max || unconfirmed {
            thread::sleep(PAUSE);
            continue;
        }
        socket.write_all(&batch).context("the server does not take more")?;
        sent += in_batch;
    }
    Ok(sent)
}

/// Counts what comes until all of it is there.
fn receive(
    mut socket: TcpStream,
    wire: &mut dyn Wire,
    expected: &AtomicU64,
    count: &AtomicU64,
) -> anyhow::Result<()> {
    let (mut buffer, mut filled, mut answer) = (vec![0; READ_LEN], 0, Vec::new());
    let mut last = Instant::now();
    while count.load(Ordering::Relaxed) < expected.load(Ordering::Relaxed) {
        match socket.read(&mut buffer[filled..]) {
            Ok(0) => bail!("the server has closed a connection"),
            Ok(len) => filled += len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if last.elapsed() > PATIENCE {
                    let (count, expected) = (count.load(Ordering::Relaxed), expected.load(Ordering::Relaxed));
                    bail!(
                        "{count} of {expected} messages have come, and nothing for {} s",
                        PATIENCE.as_secs()
                    );
                }
                continue;
            }
            Err(error) => return Err(error).context("cannot read"),
        }
        last = Instant::now();
        let counted = wire.count(&buffer[..filled], &mut answer)?;
        buffer.copy_within(counted.used..filled, 0);
        filled -= counted.used;
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        if !answer.is_empty() {
            socket.write_all(&answer).context("the server does not take an answer")?;
            answer.clear();
        }
        count.fetch_add(counted.messages, Ordering::Relaxed);
    }
    Ok(())
}

/// A requester and a replier, each with a connection of its own.
fn requests(options: &Options) -> anyhow::Result<Value> {
    let (warm_up, duration) = (options.warm_up()?, options.duration()?);
    let (name, reply_to) = ("bench.requests", "bench.replies");
    let mut replier = options.protocol.wire(name, false)?;
    let replier_socket = options.connect(&mut *replier, Role::Consumer)?;
    // It consumes replies, and sends to where the replier is.
    let mut replies = options.protocol.wire(reply_to, false)?;
    let mut socket = options.connect(&mut *replies, Role::Consumer)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    options.protocol.asking(name, reply_to)?.encode(&mut request, &vec![b'q'; options.size]);
    let (expected, answered) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
    thread::scope(|scope| {
        let (expected, answered) = (&expected, &answered);
        let replier = scope.spawn(move || receive(replier_socket, &mut *replier, expected, answered));
        let result = ask(&mut socket, &mut *replies, &request, warm_up, duration);
        expected.store(0, Ordering::Relaxed);
        let mut times = result?;
        ended(replier.join())?;
        times.sort_unstable();
        let at = |share: f64| {
            let time = times.get((times.len() as f64 * share) as usize).copied();
            time.map(|time| time.as_secs_f64() * 1e6)
        };
        Ok(json!({
            "requests": times.len(),
            "round_trip_us": { "p50": at(0.5), "p99": at(0.99), "max": times.last().map(|time| time.as_secs_f64() * 1e6) },
        }))
    })
}

/// How long each request took to be answered.
fn ask(
    socket: &mut TcpStream,
    replies: &mut dyn Wire,
    request: &[u8],
    warm_up: Duration,
    duration: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let (mut times, mut buffer, mut answer) = (Vec::new(), vec![0; READ_LEN], Vec::new());
    let start = Instant::now();
    while start.elapsed() < warm_up + duration {
        let sent = Instant::now();
        socket.write_all(request)?;
        let mut filled = 0;
        loop {
            match socket.read(&mut buffer[filled..]).context("no reply came")? {
                0 => bail!("the server has closed a connection"),
                len => filled += len,
            }
            let counted = replies.count(&buffer[..filled], &mut answer)?;
            if counted.messages > 0 {
                break;
            }
            buffer.copy_within(counted.used..filled, 0);
            filled -= counted.used;
        }
        let time = sent.elapsed();
        if start.elapsed() > warm_up {
            times.push(time);
        }
        socket.write_all(&answer)?;
        answer.clear();
    }
    Ok(times)
}

/// What a thread returned, or that it panicked.
fn ended<T>(joined: thread::Result<anyhow::Result<T>>) -> anyhow::Result<T> {
    joined.unwrap_or_else(|_| bail!("a thread has panicked"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server of ZMTP that hands what one connection sends to another.
    fn relay(listener: &TcpListener) {
        let greet = |socket: &mut TcpStream| {
            let mut bytes = [0; 64];
            socket.read_exact(&mut bytes).expect("a greeting");
            socket.write_all(&bytes).expect("it listens");
            let mut ready = [0; 28];
            socket.read_exact(&mut ready).expect("a command");
            socket.write_all(&ready).expect("it listens");
        };
        let (mut consumer, _) = listener.accept().expect("a consumer");
        greet(&mut consumer);
        let (mut publisher, _) = listener.accept().expect("a publisher");
        greet(&mut publisher);
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = publisher.read(&mut buffer) {
            consumer.write_all(&buffer[..len]).expect("it listens");
        }
    }

    #[test]
    fn all_messages_that_are_sent_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let relay = thread::spawn(move || relay(&listener));
        let options = Options {
            protocol: Protocol::Zmtp,
            publish: address,
            consume: address,
            pid: std::process::id(),
            seconds: 0.2,
            warm_up: 0.1,
            size: 300,
            consumers: 1,
            persistent: false,
            requests: false,
        };
        let result = messages(&options).expect("it works");
        assert!(result["consumed"].as_u64().is_some_and(|consumed| consumed > 0), "{result}");
        relay.join().expect("it works");
    }
}
