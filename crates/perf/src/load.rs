//! Publishers and consumers, each with a connection and a thread of its own.

use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use warren_amqp091_codec::{Dialect, Method, OwnedProperties, frame};
use warren_types::FieldTable;

use crate::client::{Client, FRAME_MAX, Incoming};
use crate::process::{Watched, cpu_between, usage};
use crate::target::Target;

/// Shortest body that has room for what latencies and verification need.
pub(crate) const STAMPED_LEN_MIN: usize = 16;

/// Bytes written at once.
const WRITE_LEN: usize = 64 * 1024;

/// What fills bodies behind the stamp.
const FILLER: u8 = b'w';

/// How often threads look whether they should stop while nothing comes.
const IDLE: Duration = Duration::from_millis(100);

/// What is asked of the broker.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub target: Target,
    pub publishers: usize,
    pub consumers: usize,
    /// The queues, which exist.
    pub queues: Vec<String>,
    /// Where publishers send; the default exchange if empty.
    pub exchange: String,
    /// Routing keys, taken in turn; with none, the queues' names.
    pub keys: Vec<String>,
    /// Queues that get a copy of each message.
    pub copies: u64,
    /// Length of a body, in bytes.
    pub size: usize,
    pub persistent: bool,
    /// Most unconfirmed messages of a publisher; none for no confirms.
    pub confirm: Option<u64>,
    pub prefetch: u16,
    /// 0 for automatic acknowledgement.
    pub ack_every: u64,
    /// Messages a second, all publishers together.
    pub rate: Option<u64>,
    pub latency: bool,
    pub verify: bool,
    pub until: Until,
    /// Time that is not counted, at the start.
    pub warm_up: Duration,
    pub watched: Option<Watched>,
    pub progress: bool,
    /// Speak without a handshake, to a relay.
    pub bare: bool,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    After(Duration),
    /// All publishers together, and consumers when they have all of them.
    Messages(u64),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub elapsed: Duration,
    pub published: u64,
    pub confirmed: u64,
    pub refused: u64,
    pub consumed: u64,
    /// From the moment a message was due to its delivery, in nanoseconds.
    pub delivery: Histogram<u64>,
    /// From the moment a message was due to its confirm, in nanoseconds.
    pub confirm: Histogram<u64>,
    /// What the broker used meanwhile.
    pub cpu: Option<Duration>,
    /// What it had at the end.
    pub memory: Option<u64>,
}

#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    confirmed: AtomicU64,
    refused: AtomicU64,
    consumed: AtomicU64,
}

impl Counters {
    fn read(&self) -> [u64; 4] {
        [&self.published, &self.confirmed, &self.refused, &self.consumed]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    counters: Counters,
    begin: Barrier,
    /// Time zero of all stamps.
    epoch: Instant,
    recording: AtomicBool,
    stop_publishing: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_stamped(&self) -> bool {
        self.plan.latency || self.plan.verify
    }

    fn records(&self) -> bool {
        self.plan.latency && self.recording.load(Ordering::Relaxed)
    }
}

/// A histogram from 1 ns to a minute, exact to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

fn record(histogram: &mut Histogram<u64>, nanoseconds: u64) {
    histogram.saturating_record(nanoseconds.max(1));
}

/// Runs the plan.
///
/// # Errors
/// If a connection fails, or what came is not what was sent.
pub(crate) fn run(plan: Plan) -> anyhow::Result<Outcome> {
    let threads = plan.publishers + plan.consumers;
    let shared = Arc::new(Shared {
        counters: Counters::default(),
        begin: Barrier::new(threads + 1),
        epoch: Instant::now(),
        recording: AtomicBool::new(plan.warm_up.is_zero()),
        stop_publishing: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        plan,
    });
    let plan = &shared.plan;
    // A relay takes its publisher first; a broker does not mind.
    let mut publishers = Vec::new();
    for index in 0..plan.publishers {
        let client = connect(plan)?;
        let shared = Arc::clone(&shared);
        publishers.push(spawn("perf-publisher", move || Publisher::new(&shared, index, client).run())?);
    }
    let mut consumers = Vec::new();
    for index in 0..plan.consumers {
        let mut client = connect(plan)?;
        if !plan.bare {
            client.consume(&plan.queues[index % plan.queues.len()], plan.prefetch, plan.ack_every == 0)?;
        }
        client.socket.set_read_timeout(Some(IDLE))?;
        let shared = Arc::clone(&shared);
        consumers.push(spawn("perf-consumer", move || consume(&shared, client))?);
    }
    shared.begin.wait();
    let measured = measure(&shared, &publishers, &consumers);
    shared.stop_publishing.store(true, Ordering::Relaxed);
    let mut confirm = histogram();
    for thread in publishers {
        confirm.add(ended(thread.join())?)?;
    }
    if plan.verify {
        wait_for_the_rest(&shared)?;
    }
    shared.stop.store(true, Ordering::Relaxed);
    let mut delivery = histogram();
    for thread in consumers {
        delivery.add(ended(thread.join())?)?;
    }
    let mut outcome = measured?;
    (outcome.delivery, outcome.confirm) = (delivery, confirm);
    Ok(outcome)
}

type Worker = JoinHandle<anyhow::Result<Histogram<u64>>>;

fn connect(plan: &Plan) -> anyhow::Result<Client> {
    if plan.bare { Client::connect_bare(&plan.target) } else { Client::connect(&plan.target) }
}

fn spawn(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<Histogram<u64>> + Send + 'static,
) -> anyhow::Result<Worker> {
    Ok(thread::Builder::new().name(name.to_owned()).spawn(work)?)
}

/// What a thread has ended with.
pub(crate) fn ended<T>(joined: thread::Result<anyhow::Result<T>>) -> anyhow::Result<T> {
    joined.map_err(|_| anyhow::anyhow!("a thread of the generator panicked"))?
}

/// Looks on until it is time to stop.
fn measure(shared: &Shared, publishers: &[Worker], consumers: &[Worker]) -> anyhow::Result<Outcome> {
    let plan = &shared.plan;
    if let Until::After(_) = plan.until {
        thread::sleep(plan.warm_up);
    }
    shared.recording.store(true, Ordering::Relaxed);
    // What is counted to the end is counted from the beginning.
    let before = if let Until::After(_) = plan.until { shared.counters.read() } else { [0; 4] };
    let (start, used) = (Instant::now(), usage(plan.watched)?);
    let (mut shown, mut last) = (start, before);
    let is_over = |counts: [u64; 4]| match plan.until {
        Until::After(duration) => start.elapsed() >= duration,
        Until::Messages(messages) => {
            let all_sent = plan.publishers == 0
                || if plan.confirm.is_some() {
                    counts[1] + counts[2] >= messages
                } else {
                    counts[0] >= messages
                };
            all_sent && (plan.consumers == 0 || counts[3] >= messages * plan.copies)
        }
    };
    loop {
        let counts = shared.counters.read();
        if is_over(counts) {
            break;
        }
        // A thread that has ended has failed, unless it was a publisher that was done.
        let is_done = matches!(plan.until, Until::Messages(_));
        if consumers.iter().any(JoinHandle::is_finished)
            || (!is_done && publishers.iter().any(JoinHandle::is_finished))
        {
            break;
        }
        if is_done && counts == last && shown.elapsed() > Duration::from_secs(60) {
            bail!("nothing has come for a minute: {} published, {} consumed", counts[0], counts[3]);
        }
        if shown.elapsed() >= Duration::from_secs(1) && counts != last {
            let seconds = shown.elapsed().as_secs_f64();
            let rate = |at: usize| (counts[at] - last[at]) as f64 / seconds;
            if plan.progress {
                eprintln!(
                    "{:5.0} s  published {:9.0}/s  confirmed {:9.0}/s  consumed {:9.0}/s",
                    start.elapsed().as_secs_f64(),
                    rate(0),
                    rate(1),
                    rate(3)
                );
            }
            (shown, last) = (Instant::now(), counts);
        }
        thread::sleep(if is_done { Duration::from_millis(2) } else { Duration::from_millis(20) });
    }
    let (elapsed, after, now) = (start.elapsed(), shared.counters.read(), usage(plan.watched)?);
    shared.recording.store(false, Ordering::Relaxed);
    let count = |at: usize| after[at] - before[at];
    Ok(Outcome {
        elapsed,
        published: count(0),
        confirmed: count(1),
        refused: count(2),
        consumed: count(3),
        delivery: histogram(),
        confirm: histogram(),
        cpu: cpu_between(used, now),
        memory: now.map(|now| now.memory),
    })
}

/// Everything that was published must come.
fn wait_for_the_rest(shared: &Shared) -> anyhow::Result<()> {
    if shared.plan.consumers == 0 || shared.plan.publishers == 0 {
        return Ok(());
    }
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let [published, _, refused, consumed] = shared.counters.read();
        let expected = (published - refused) * shared.plan.copies;
        if consumed == expected {
            return Ok(());
        }
        if consumed > expected {
            bail!("{consumed} messages came, {expected} were published");
        }
        if consumed != last {
            (last, since) = (consumed, Instant::now());
        } else if since.elapsed() > Duration::from_secs(10) {
            bail!("{} of {expected} messages are missing", expected - consumed);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Puts a publish with all its frames behind `out`; returns where the body begins.
pub(crate) fn put_publish(
    out: &mut Vec<u8>,
    exchange: &str,
    key: &str,
    persistent: bool,
    body: &[u8],
) -> usize {
    let (exchange, routing_key) = (exchange.as_bytes(), key.as_bytes());
    let publish =
        Method::BasicPublish { ticket: 0, exchange, routing_key, mandatory: false, immediate: false };
    frame::put_method(out, Dialect::Amqp091, 1, &publish);
    put_content(out, persistent, &[], body)
}

/// Puts a content header with a correlation id and a reply address, if there are any, and a body.
pub(crate) fn put_content(out: &mut Vec<u8>, persistent: bool, reply: &[(&str, u64)], body: &[u8]) -> usize {
    let mut properties =
        OwnedProperties { delivery_mode: Some(1 + u8::from(persistent)), ..OwnedProperties::default() };
    if let [(address, id)] = reply {
        properties.correlation_id = Some(id.to_string().into_bytes());
        properties.reply_to = (!address.is_empty()).then(|| address.as_bytes().to_vec());
    }
    let mut encoded = Vec::new();
    properties.encode(Dialect::Amqp091, &mut encoded);
    frame::put_content_header(out, 1, body.len() as u64, &encoded);
    let mut begin = None;
    for piece in body.chunks(FRAME_MAX as usize - frame::OVERHEAD) {
        frame::put_body_head(out, 1, u32::try_from(piece.len()).unwrap_or(0));
        begin.get_or_insert(out.len());
        out.extend_from_slice(piece);
        out.push(frame::END);
    }
    begin.unwrap_or(out.len())
}

/// Which publishes are confirmed.
#[derive(Debug, Default)]
struct Confirms {
    /// All up to this one are.
    low: u64,
    /// And these.
    above: BTreeSet<u64>,
    /// When those above `low` were due, if latencies are measured.
    due: VecDeque<u64>,
}

impl Confirms {
    fn settled(&self) -> u64 {
        self.low + self.above.len() as u64
    }

    /// Calls `each` for every publish that is confirmed by this, with the time it was due.
    fn settle(&mut self, tag: u64, multiple: bool, mut each: impl FnMut(u64)) {
        let first = if multiple { self.low + 1 } else { tag };
        for tag in first..=tag {
            if tag <= self.low || !self.above.insert(tag) {
                continue;
            }
            if let Some(due) = self.due.get((tag - self.low - 1) as usize) {
                each(*due);
            }
        }
        while self.above.remove(&(self.low + 1)) {
            self.low += 1;
            self.due.pop_front();
        }
    }
}

struct Publisher<'a> {
    shared: &'a Shared,
    client: Client,
    /// For each key the bytes of a publish, and where its body begins.
    templates: Vec<(Vec<u8>, usize)>,
    /// Many publishes that need no change, one after the other.
    block: Vec<u8>,
    index: usize,
    sent: u64,
    /// Most to send.
    messages: u64,
    confirms: Confirms,
    latencies: Histogram<u64>,
}

impl<'a> Publisher<'a> {
    fn new(shared: &'a Shared, index: usize, client: Client) -> Self {
        let plan = &shared.plan;
        let own = std::slice::from_ref(&plan.queues[index % plan.queues.len()]);
        let keys = if plan.keys.is_empty() { own } else { &plan.keys };
        let body = vec![FILLER; plan.size];
        let templates: Vec<(Vec<u8>, usize)> = keys
            .iter()
            .map(|key| {
                let mut bytes = Vec::new();
                let begin = put_publish(&mut bytes, &plan.exchange, key, plan.persistent, &body);
                (bytes, begin)
            })
            .collect();
        let mut block = Vec::new();
        if let [(bytes, _)] = &templates[..]
            && !shared.is_stamped()
        {
            block = bytes.repeat((WRITE_LEN / bytes.len()).max(1));
        }
        let messages = match plan.until {
            Until::After(_) => u64::MAX,
            Until::Messages(all) => {
                let (all, count) = (all, plan.publishers as u64);
                all / count + u64::from((index as u64) < all % count)
            }
        };
        let (confirms, latencies) = (Confirms::default(), histogram());
        Self { shared, client, templates, block, index, sent: 0, messages, confirms, latencies }
    }

    fn run(mut self) -> anyhow::Result<Histogram<u64>> {
        if self.shared.plan.confirm.is_some() {
            self.client.confirms()?;
        }
        self.shared.begin.wait();
        match self.shared.plan.rate {
            Some(rate) => self.run_at(rate as f64 / self.shared.plan.publishers as f64)?,
            None => self.run_freely()?,
        }
        if !self.shared.plan.bare {
            // In order, so that nothing on its way is lost.
            self.client.socket.set_read_timeout(Some(Duration::from_secs(60)))?;
            self.client.close()?;
        }
        Ok(self.latencies)
    }

    fn is_over(&self) -> bool {
        self.sent >= self.messages || self.shared.stop_publishing.load(Ordering::Relaxed)
    }

    /// As fast as the broker and the window of confirms allow.
    fn run_freely(&mut self) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        while !self.is_over() {
            let window = self.shared.plan.confirm.unwrap_or(u64::MAX);
            let room =
                window.saturating_sub(self.sent - self.confirms.settled()).min(self.messages - self.sent);
            if room > 0 {
                self.publish(room, |shared, _| shared.now(), &mut bytes)?;
            }
            if self.shared.plan.confirm.is_some() && self.sent - self.confirms.settled() >= window {
                self.client.read()?;
                self.take_confirms()?;
            }
        }
        while self.shared.plan.confirm.is_some() && self.confirms.settled() < self.sent {
            self.client.read()?;
            self.take_confirms()?;
        }
        Ok(())
    }

    /// Sends some messages, at most so many, due at the times that `due` tells for each.
    fn publish(
        &mut self,
        most: u64,
        due: impl Fn(&Shared, u64) -> u64,
        bytes: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        let template_len = self.templates[0].0.len();
        let count = most.min((WRITE_LEN / template_len).max(1) as u64);
        let track = self.shared.plan.latency && self.shared.plan.confirm.is_some();
        let written = if self.block.is_empty() {
            bytes.clear();
            for number in self.sent..self.sent + count {
                let (template, begin) = &self.templates[(number % self.templates.len() as u64) as usize];
                let at = bytes.len() + begin;
                bytes.extend_from_slice(template);
                if self.shared.is_stamped() {
                    let due = due(self.shared, number);
                    bytes[at..at + 8].copy_from_slice(&due.to_le_bytes());
                    let stamp = (self.index as u64) << 48 | number;
                    bytes[at + 8..at + 16].copy_from_slice(&stamp.to_le_bytes());
                    if track {
                        self.confirms.due.push_back(due);
                    }
                }
            }
            self.client.socket.write_all(bytes)
        } else {
            self.client.socket.write_all(&self.block[..count as usize * template_len])
        };
        if let Err(error) = written {
            // The broker may have said why.
            let _ended = self.client.read();
            self.client.next().map(drop)?;
            return Err(error).context("the broker has closed a publisher's connection");
        }
        self.sent += count;
        self.shared.counters.published.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    fn take_confirms(&mut self) -> anyhow::Result<()> {
        let (now, records) = (self.shared.now(), self.shared.records());
        let before = self.confirms.settled();
        let mut refused = 0;
        while let Some(incoming) = self.client.next()? {
            let (tag, multiple, is_refusal) = match incoming {
                Incoming::Confirm { tag, multiple } => (tag, multiple, false),
                Incoming::Refusal { tag, multiple } => (tag, multiple, true),
                Incoming::Delivery(_) => continue,
            };
            let before = self.confirms.settled();
            let latencies = &mut self.latencies;
            self.confirms.settle(tag, multiple, |due| {
                if records {
                    record(latencies, now.saturating_sub(due));
                }
            });
            if is_refusal {
                refused += self.confirms.settled() - before;
            }
        }
        let counters = &self.shared.counters;
        counters.confirmed.fetch_add(self.confirms.settled() - before - refused, Ordering::Relaxed);
        counters.refused.fetch_add(refused, Ordering::Relaxed);
        Ok(())
    }

    /// At a fixed rate. A message that is sent late is still measured from the moment it was due, so that a broker
    /// that makes the generator wait does not hide it.
    fn run_at(&mut self, rate: f64) -> anyhow::Result<()> {
        // Else a sleep takes 50 microseconds longer than it should.
        let _no_slack = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let start = self.shared.now();
        let due_at = move |number: u64| start + (number as f64 * 1e9 / rate) as u64;
        let reader = match self.shared.plan.confirm {
            Some(_) => Some(self.client.reader()?),
            None => None,
        };
        let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = self.shared;
        let (sent_here, latencies) = thread::scope(|scope| {
            let confirms = reader.map(|reader| {
                let (over, sent) = (&over, &sent);
                scope.spawn(move || read_confirms(shared, reader, due_at, over, sent))
            });
            let mut bytes = Vec::new();
            let result = loop {
                if self.is_over() {
                    break Ok(());
                }
                let now = shared.now();
                let due = (now.saturating_sub(start) as f64 * rate / 1e9) as u64 + 1;
                if due > self.sent {
                    let most = (due - self.sent).min(self.messages - self.sent);
                    if let Err(error) = self.publish(most, |_, number| due_at(number), &mut bytes) {
                        break Err(error);
                    }
                    sent.store(self.sent, Ordering::Relaxed);
                } else {
                    thread::sleep(Duration::from_nanos(due_at(self.sent).saturating_sub(shared.now())));
                }
            };
            over.store(true, Ordering::Relaxed);
            let latencies = confirms.map(|thread| ended(thread.join()));
            (result, latencies)
        });
        sent_here?;
        if let Some(latencies) = latencies {
            self.latencies.add(latencies?)?;
        }
        Ok(())
    }
}

/// Reads confirms beside a publisher that sends at a fixed rate.
fn read_confirms(
    shared: &Shared,
    mut client: Client,
    due_at: impl Fn(u64) -> u64,
    over: &AtomicBool,
    sent: &AtomicU64,
) -> anyhow::Result<Histogram<u64>> {
    let (mut latencies, mut confirms) = (histogram(), Confirms::default());
    let mut known = 0;
    let patience = Instant::now() + Duration::from_secs(24 * 3600);
    client.socket.set_read_timeout(Some(IDLE))?;
    while Instant::now() < patience {
        if over.load(Ordering::Relaxed) && confirms.settled() >= sent.load(Ordering::Relaxed) {
            return Ok(latencies);
        }
        if !client.read_unless_idle()? {
            continue;
        }
        let (now, records) = (shared.now(), shared.records());
        while let Some(incoming) = client.next()? {
            let (Incoming::Confirm { tag, multiple } | Incoming::Refusal { tag, multiple }) = incoming else {
                continue;
            };
            // What is due is known from the tag, so nothing need be kept for each.
            while known < tag {
                confirms.due.push_back(due_at(known));
                known += 1;
            }
            let before = confirms.settled();
            confirms.settle(tag, multiple, |due| {
                if records {
                    record(&mut latencies, now.saturating_sub(due));
                }
            });
            shared.counters.confirmed.fetch_add(confirms.settled() - before, Ordering::Relaxed);
        }
    }
    bail!("confirms did not come")
}

fn consume(shared: &Shared, mut client: Client) -> anyhow::Result<Histogram<u64>> {
    let plan = &shared.plan;
    let (mut latencies, mut count, mut acked) = (histogram(), 0_u64, 0);
    // For each publisher the number that must at least come next.
    let mut next = vec![0; plan.publishers.max(1)];
    let mut acks = Vec::new();
    shared.begin.wait();
    while !shared.stop.load(Ordering::Relaxed) {
        // Some may have come together with the last answer.
        let (now, records, before) = (shared.now(), shared.records(), count);
        while let Some(incoming) = client.next()? {
            let Incoming::Delivery(body) = incoming else { continue };
            count += 1;
            if records && let Some(due) = body.first_chunk() {
                record(&mut latencies, now.saturating_sub(u64::from_le_bytes(*due)));
            }
            if plan.verify {
                check(body, plan.size, &mut next)?;
            }
            if plan.ack_every > 0 && count - acked >= plan.ack_every {
                acked = count;
                let ack = Method::BasicAck { delivery_tag: count, multiple: true };
                frame::put_method(&mut acks, Dialect::Amqp091, 1, &ack);
            }
        }
        shared.counters.consumed.fetch_add(count - before, Ordering::Relaxed);
        if !acks.is_empty() {
            client.socket.write_all(&acks).context("the broker has closed a consumer's connection")?;
            acks.clear();
        }
        client.read_unless_idle()?;
    }
    if plan.ack_every > 0 && acked < count {
        client.send(1, &Method::BasicAck { delivery_tag: count, multiple: true })?;
    }
    if !plan.bare {
        client.socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    }
    Ok(latencies)
}

/// Each publisher's messages come in order, and as they were sent.
fn check(body: &[u8], size: usize, next: &mut [u64]) -> anyhow::Result<()> {
    let Some(stamp) = body.get(8..16).and_then(|bytes| bytes.first_chunk()) else {
        bail!("a message of {} bytes came, {size} were sent", body.len());
    };
    let stamp = u64::from_le_bytes(*stamp);
    let (publisher, number) = ((stamp >> 48) as usize, stamp & ((1 << 48) - 1));
    let Some(next) = next.get_mut(publisher) else {
        bail!("a message came from a publisher that does not exist")
    };
    if number < *next {
        bail!("message {number} of publisher {publisher} came again, or too late");
    }
    *next = number + 1;
    if body.len() != size.min(FRAME_MAX as usize - frame::OVERHEAD)
        || body[16..].iter().any(|byte| *byte != FILLER)
    {
        bail!("message {number} of publisher {publisher} is not what was sent");
    }
    Ok(())
}

/// Makes sure that a queue exists.
pub(crate) fn prepare(plan: &Plan, durable: bool, arguments: &FieldTable) -> anyhow::Result<()> {
    let mut client = Client::connect(&plan.target)?;
    for queue in &plan.queues {
        client.declare(queue, durable, arguments.clone())?;
    }
    client.close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_may_come_in_any_order() {
        let mut confirms = Confirms { due: (1..=6).map(|tag| tag * 10).collect(), ..Confirms::default() };
        let mut seen = Vec::new();
        let mut settle = |confirms: &mut Confirms, tag, multiple| {
            confirms.settle(tag, multiple, |due| seen.push(due));
            confirms.settled()
        };
        assert_eq!(settle(&mut confirms, 3, false), 1);
        assert_eq!(settle(&mut confirms, 3, false), 1, "once is enough");
        assert_eq!(settle(&mut confirms, 2, true), 3);
        assert_eq!(confirms.low, 3);
        assert_eq!(settle(&mut confirms, 6, true), 6);
        assert_eq!(seen, [30, 10, 20, 40, 50, 60]);
        assert_eq!((confirms.low, confirms.above.len(), confirms.due.len()), (6, 0, 0));
    }

    #[test]
    fn messages_are_checked() {
        let body = |publisher: u64, number: u64| {
            let mut body = vec![FILLER; 24];
            body[8..16].copy_from_slice(&(publisher << 48 | number).to_le_bytes());
            body
        };
        let mut next = vec![0; 2];
        assert!(check(&body(1, 0), 24, &mut next).is_ok());
        assert!(check(&body(1, 4), 24, &mut next).is_ok(), "others may have those between");
        assert!(check(&body(0, 2), 24, &mut next).is_ok());
        assert!(check(&body(1, 4), 24, &mut next).is_err(), "twice");
        assert!(check(&body(2, 0), 24, &mut next).is_err(), "no such publisher");
        assert!(check(&body(0, 3), 25, &mut next).is_err(), "too short");
        let mut changed = body(0, 4);
        changed[20] = 0;
        assert!(check(&changed, 24, &mut next).is_err(), "changed");
    }
}
