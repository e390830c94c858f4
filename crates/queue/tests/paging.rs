//! Paging under a slow store: answers come late, in pieces and in any order, memory is short at times, and the node is
//! restarted. Whatever happens, messages keep their order, none is lost or comes twice, and what is stored is what lives.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use proptest::prelude::*;
use warren_queue::{
    CONSUMER_WINDOW, Command, DeadLetterTarget, DeathReason, DedupKey, Effects, Expiration, Fate, Forgotten,
    Getter, NewConsumer, Publish, Queue, QueueOptions, RESIDENT_MAX, Restored, RestoredLevel, Settings,
    StoredKey,
};
use warren_types::session::{Delivery, DeliveryRange, Got, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ChannelLimit, ConnectionId, ConsumerId, DeliveryId, Message, MessageParts, QueueId,
    QueueRef, StoredMessage,
};

const CONNECTION: ConnectionId = ConnectionId { slot: 1, generation: 1 };
const CHANNELS: u16 = 2;

/// The channel with a limit over all its consumers, and the limit.
const LIMITED: u16 = 2;
const CHANNEL_LIMIT: u32 = 3;

fn channel(number: u16) -> ChannelId {
    ChannelId { number, incarnation: 1 }
}

/// Body lengths, in bytes: a few of the second fill a queue that has no room, a few of the third any queue.
const BODY_LENS: [usize; 3] = [8, 20_000, 300_000];

#[derive(Debug, Clone)]
enum Step {
    Publish {
        size: usize,
        persistent: bool,
        priority: u8,
        ttl: Option<u64>,
    },
    Get {
        channel: u16,
        no_ack: bool,
    },
    Consume {
        channel: u16,
        no_ack: bool,
        prefetch: u32,
    },
    Cancel {
        pick: usize,
    },
    Settle {
        pick: usize,
        len: u64,
        settle: Settle,
    },
    Credit {
        pick: usize,
    },
    Purge,
    ChannelGone {
        channel: u16,
    },
    Wait {
        ms: u64,
    },
    Room(bool),
    /// The store reads what was asked for, at most so many messages of it.
    Read {
        pick: usize,
        messages: usize,
    },
    /// The queue hears what was read.
    Answer {
        pick: usize,
    },
    Restart {
        clean: bool,
    },
    /// An operator chooses messages, of which some may not be ready any more.
    Take {
        pick: usize,
        len: usize,
        fate: Fate,
    },
    /// It is clear whether somebody has taken a message that was to be moved.
    Moved {
        pick: usize,
        taken: bool,
    },
    /// A dead letter is safe elsewhere.
    Arrive {
        pick: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Ready,
    Unacked {
        delivery: u64,
        channel: u16,
        consumer: Option<u32>,
    },
    /// Rejected, and to become a dead letter.
    Dying,
    /// An operator moves it.
    Moving,
    Gone,
}

#[derive(Debug)]
struct ModelMessage {
    state: State,
    priority: u8,
    persistent: bool,
    redelivered: bool,
    /// How often its delivery failed.
    failed: u32,
    at: u64,
    /// When it expires by itself.
    expires_at: Option<u64>,
    memory: usize,
    message: Message,
}

#[derive(Debug)]
struct ModelConsumer {
    channel: u16,
    no_ack: bool,
    prefetch: u32,
    in_flight: usize,
}

#[derive(Debug, Clone)]
enum Asked {
    Next { after: Option<u64>, bytes: usize },
    These(Vec<u64>),
    Scan { after: Option<u64> },
}

/// A store that answers when it is told to.
#[derive(Debug, Default)]
struct SlowStore {
    messages: BTreeMap<(u8, u64), StoredMessage>,
    asked: Vec<(u8, Asked)>,
    read: Vec<(u8, Asked, Vec<StoredMessage>)>,
}

impl SlowStore {
    fn read(&mut self, pick: usize, messages: usize) {
        if self.asked.is_empty() {
            return;
        }
        let (priority, asked) = self.asked.remove(pick % self.asked.len());
        let found = match &asked {
            Asked::Next { after, bytes } => {
                let mut room = *bytes as i64;
                let first = after.map_or(0, |after| after + 1);
                let following = self.messages.range((priority, first)..=(priority, u64::MAX));
                (following.map(|(_, stored)| stored.clone()))
                    .take_while(|stored| {
                        let fits = room > 0;
                        room -= stored.message.memory() as i64;
                        fits
                    })
                    .take(messages)
                    .collect()
            }
            Asked::These(seqs) => {
                seqs.iter().filter_map(|seq| self.messages.get(&(priority, *seq)).cloned()).collect()
            }
            Asked::Scan { after } => {
                let first = after.map_or(0, |after| after + 1);
                let following = self.messages.range((priority, first)..=(priority, u64::MAX));
                following.map(|(_, stored)| stored.clone()).take(messages).collect()
            }
        };
        self.read.push((priority, asked, found));
    }

    fn has_behind(&self, priority: u8, after: Option<u64>) -> bool {
        let first = after.map_or(0, |after| after + 1);
        self.messages.range((priority, first)..=(priority, u64::MAX)).next().is_some()
    }

    /// What was read and is not gone meanwhile; if all of it is, the search goes on behind it.
    fn answer(&mut self, pick: usize) -> Option<Command> {
        if self.read.is_empty() {
            return None;
        }
        let (priority, asked, found) = self.read.remove(pick % self.read.len());
        let last = found.last().map(|stored| stored.seq);
        let is_live = |stored: &StoredMessage| self.messages.contains_key(&(priority, stored.seq));
        let messages: Vec<StoredMessage> = found.into_iter().filter(is_live).collect();
        match asked {
            Asked::Next { bytes, .. } if messages.is_empty() && last.is_some() => {
                self.asked.push((priority, Asked::Next { after: last, bytes }));
                None
            }
            // Nothing was there when it was looked; but since?
            Asked::Next { after, bytes } if messages.is_empty() && self.has_behind(priority, after) => {
                self.asked.push((priority, Asked::Next { after, bytes }));
                None
            }
            Asked::Next { .. } => Some(Command::Loaded { priority, end: messages.is_empty(), messages }),
            Asked::These(asked) => Some(Command::Fetched { priority, asked, messages }),
            Asked::Scan { .. } => {
                let expirations = messages
                    .iter()
                    .filter_map(|stored| Some(Expiration::after(stored.message.expiration_ms()?, stored)))
                    .collect();
                Some(Command::Scanned { priority, expirations, last })
            }
        }
    }
}

#[derive(Debug)]
struct World {
    messages: Vec<ModelMessage>,
    consumers: BTreeMap<u32, ModelConsumer>,
    /// Gets that wait for an answer, in order.
    getters: VecDeque<(u16, bool)>,
    store: SlowStore,
    settings: Settings,
    has_room: bool,
    now: u64,
    /// The most that was asked for at a time, in bytes.
    load_max: usize,
    /// Dead letters that are not safe elsewhere yet: they are still stored.
    on_their_way: Vec<Forgotten>,
    /// What the last command of an operator has taken.
    taken: Vec<u64>,
    /// What becomes of it.
    fate: Fate,
}

fn number_of(message: &Message) -> usize {
    let bytes = message.body()[..8].try_into().expect("every test message begins with its number");
    u64::from_le_bytes(bytes) as usize
}

impl World {
    fn first_of(&self, priority: u8) -> Option<usize> {
        let is_first = |m: &ModelMessage| {
            m.state == State::Ready && m.priority == priority && m.expires_at.is_none_or(|at| at > self.now)
        };
        self.messages.iter().position(is_first)
    }

    /// Ready messages, without and with those that have expired by themselves, which the queue may not know yet.
    fn ready(&self) -> RangeInclusive<usize> {
        let is_ready = |m: &&ModelMessage| m.state == State::Ready;
        let all = self.messages.iter().filter(is_ready);
        let live = all.clone().filter(|m| m.expires_at.is_none_or(|at| at > self.now));
        live.count()..=all.count()
    }

    fn first_ready(&self) -> Option<usize> {
        (0..=self.settings.max_priority).rev().find_map(|priority| self.first_of(priority))
    }

    fn count(&self, wanted: impl Fn(State) -> bool) -> usize {
        self.messages.iter().filter(|message| wanted(message.state)).count()
    }

    fn can_take(&self, id: u32) -> bool {
        let consumer = &self.consumers[&id];
        let unacked =
            self.count(|state| matches!(state, State::Unacked { consumer, .. } if consumer == Some(id)));
        let of_channel = self.count(|state| {
            matches!(state, State::Unacked { consumer: Some(_), channel, .. } if channel == consumer.channel)
        });
        (consumer.channel != LIMITED || of_channel < CHANNEL_LIMIT as usize)
            && consumer.in_flight < CONSUMER_WINDOW
            && (consumer.no_ack || consumer.prefetch == 0 || unacked < consumer.prefetch as usize)
    }

    fn is_expired(&self, number: usize) -> bool {
        let ttl = self.settings.message_ttl_ms;
        self.has_own_expired(number) || ttl.is_some_and(|ttl| self.messages[number].at + ttl <= self.now)
    }

    fn has_own_expired(&self, number: usize) -> bool {
        self.messages[number].expires_at.is_some_and(|at| at <= self.now)
    }

    fn take(&mut self, number: usize, redelivered: bool, state: State) {
        assert_eq!(self.first_ready(), Some(number), "out of order");
        assert!(!self.is_expired(number), "message {number} had expired");
        let message = &mut self.messages[number];
        assert_eq!(message.redelivered, redelivered, "redelivered flag of message {number}");
        message.state = state;
    }

    fn got(&mut self, got: Option<Got>, channel: u16, no_ack: bool) {
        let Some(got) = got else {
            assert_eq!(self.first_ready(), None, "told that the queue is empty");
            return;
        };
        let unacked = State::Unacked { delivery: got.id.0, channel, consumer: None };
        let state = if no_ack { State::Gone } else { unacked };
        self.take(number_of(&got.message), got.redelivered, state);
        assert!(self.ready().contains(&(got.remaining as usize)));
    }

    fn release(&mut self, number: usize, settle: Settle) {
        let is_buried = self.settings.dead_letter.is_some();
        let message = &mut self.messages[number];
        message.redelivered |= matches!(settle, Settle::Requeue { .. });
        message.failed += u32::from(matches!(settle, Settle::Requeue { failed: true }));
        let comes_too_often = self.settings.delivery_limit.is_some_and(|limit| message.failed > limit);
        message.state = match settle {
            Settle::Ack => State::Gone,
            Settle::Reject if is_buried => State::Dying,
            Settle::Reject => State::Gone,
            Settle::Requeue { .. } if comes_too_often => State::Dying,
            Settle::Requeue { .. } => State::Ready,
        };
    }
}

impl Effects for World {
    fn deliver(&mut self, _: ConnectionId, delivery: Delivery) {
        let id = delivery.consumer.0;
        assert!(self.can_take(id), "consumer {id} has no room");
        let consumer = self.consumers.get_mut(&id).expect("a consumer that exists");
        consumer.in_flight += delivery.message.memory();
        let (channel, consumer, no_ack) = (consumer.channel, Some(id), consumer.no_ack);
        let unacked = State::Unacked { delivery: delivery.id.0, channel, consumer };
        let state = if no_ack { State::Gone } else { unacked };
        self.take(number_of(&delivery.message), delivery.redelivered, state);
    }

    fn reply(&mut self, _: ConnectionId, to: ChannelId, reply: Result<Reply, AmqpError>) {
        if let Reply::Got(got) = reply.expect("everything in this file is allowed") {
            let (channel, no_ack) = self.getters.pop_front().expect("somebody asked");
            assert_eq!(channel, to.number, "gets are answered in order");
            self.got(got, channel, no_ack);
        }
    }

    fn accepted(&mut self, _: ConnectionId, _: ChannelId, number: u64, durable: bool) {
        let key = (self.messages[number as usize].priority, number);
        let is_stored = self.store.messages.get(&key).is_some_and(|stored| stored.persistent);
        assert_eq!(durable, is_stored, "a confirm waits for the record of its message, if there is one");
    }

    fn refused(&mut self, _: ConnectionId, _: ChannelId, _: u64) {
        panic!("no queue in this file refuses messages");
    }

    fn dead_letter(
        &mut self,
        message: Message,
        reason: DeathReason,
        _: &DeadLetterTarget,
        stored: Option<Forgotten>,
    ) {
        let number = number_of(&message);
        let priority = self.messages[number].priority;
        match reason {
            DeathReason::Rejected | DeathReason::DeliveryLimit => {
                assert_eq!(self.messages[number].state, State::Dying);
            }
            DeathReason::Expired => {
                assert!(self.is_expired(number));
                let is_first = self.first_of(priority) == Some(number);
                assert!(is_first || self.has_own_expired(number), "the queue's limit ends at the head first");
            }
            DeathReason::MaxLen => {
                let lowest = (0..=self.settings.max_priority).find_map(|priority| self.first_of(priority));
                assert_eq!(lowest, Some(number), "the oldest of the lowest priority gives way");
            }
            DeathReason::QueueDeleted => panic!("no queue in this file does that"),
        }
        self.messages[number].state = State::Gone;
        self.on_their_way.extend(stored);
    }

    fn taken(&mut self, seq: u64) {
        assert_eq!(self.messages[seq as usize].state, State::Ready, "message {seq} was not ready");
        assert!(!self.has_own_expired(seq as usize), "message {seq} had expired");
        self.messages[seq as usize].state = match self.fate {
            Fate::Delete => State::Gone,
            Fate::Move => State::Moving,
            Fate::Copy => State::Ready,
        };
        self.taken.push(seq);
    }

    fn is_stored(&self, priority: u8, seq: u64) -> bool {
        self.store.messages.contains_key(&(priority, seq))
    }

    fn immediate(&mut self, _: ConnectionId, _: ChannelId, _: u64, _: bool) {}

    fn consumer_cancelled(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId) {}

    fn deleted(&mut self) {
        panic!("nobody deletes the queue");
    }

    fn store(&mut self, seq: u64, priority: u8, at: u64, message: &Message, persistent: bool) {
        assert_eq!(seq, number_of(message) as u64);
        let level = self.store.messages.range((priority, 0)..=(priority, u64::MAX));
        assert!(level.last().is_none_or(|((_, last), _)| *last < seq), "records of a priority rise");
        let stored = StoredMessage { seq, at, persistent, message: message.clone() };
        self.store.messages.insert((priority, seq), stored);
    }

    fn forget(&mut self, gone: Forgotten) {
        let stored = self.store.messages.remove(&(gone.priority, gone.seq)).expect("it is stored");
        assert_eq!(stored.persistent, gone.persistent);
        assert_eq!(stored.message.body_len(), gone.body_len as usize);
    }

    fn forget_all(&mut self, priority: u8, last: u64, except: &[u64]) {
        assert!(except.is_sorted());
        self.store
            .messages
            .retain(|(level, seq), _| *level != priority || *seq > last || except.binary_search(seq).is_ok());
    }

    fn load(&mut self, priority: u8, after: Option<u64>, bytes: usize) {
        let is_next =
            |(level, asked): (&u8, &Asked)| *level == priority && matches!(asked, Asked::Next { .. });
        let asked = self.store.asked.iter().map(|(level, asked)| (level, asked));
        let read = self.store.read.iter().map(|(level, asked, _)| (level, asked));
        assert!(!asked.chain(read).any(is_next), "a second read of priority {priority}");
        self.load_max = self.load_max.max(bytes);
        self.store.asked.push((priority, Asked::Next { after, bytes }));
    }

    fn fetch(&mut self, priority: u8, seqs: &[u64]) {
        assert!(seqs.is_sorted() && !seqs.is_empty());
        self.store.asked.push((priority, Asked::These(seqs.to_vec())));
    }

    fn scan(&mut self, priority: u8, after: Option<u64>, _: usize) {
        self.store.asked.push((priority, Asked::Scan { after }));
    }

    fn room(&self) -> bool {
        self.has_room
    }

    fn release(&mut self, _: Message, _: Option<Forgotten>) {
        panic!("the queue is not that of a delayed exchange");
    }

    fn group(&self, message: &Message, _: &warren_types::ShortString) -> Option<u64> {
        message.body().first().map(|key| u64::from(*key))
    }

    fn dedup_key(&self, _: &Message, _: &warren_types::ShortString) -> Option<DedupKey> {
        unreachable!("no queue in this file drops duplicates");
    }

    fn remember(&mut self, _: StoredKey) {
        unreachable!("no queue in this file drops duplicates");
    }

    fn forget_key(&mut self, _: u128) {
        unreachable!("no queue in this file drops duplicates");
    }

    fn await_keys(&mut self) {
        unreachable!("no queue in this file drops duplicates");
    }

    fn delay_ms(&self, message: &Message) -> u64 {
        message.expiration_ms().unwrap_or(0)
    }

    fn with_counts(&self, message: &Message, _: u32, _: u32) -> Message {
        message.clone()
    }

    fn consumer_timed_out(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId, _: u64) {
        panic!("no consumer has a time limit");
    }
}

fn options(settings: Settings) -> QueueOptions {
    QueueOptions {
        queue: QueueRef { id: QueueId(1), shard: 0, slot: 0 },
        name: "q".into(),
        vhost: "/".into(),
        durable: true,
        auto_delete: false,
        settings,
    }
}

fn message(
    number: usize,
    body_len: usize,
    persistent: bool,
    priority: u8,
    expiration_ms: Option<u64>,
) -> Message {
    let mut body = (number as u64).to_le_bytes().to_vec();
    body.resize(body_len, 0);
    let parts =
        MessageParts { persistent, priority, expiration_ms, properties: &[0, 0], ..MessageParts::default() };
    Message::new(&parts, &body)
}

struct Run {
    queue: Queue,
    world: World,
    next_consumer: u32,
    limit: Arc<ChannelLimit>,
}

impl Run {
    fn new(settings: Settings) -> Self {
        let world = World {
            messages: Vec::new(),
            consumers: BTreeMap::new(),
            getters: VecDeque::new(),
            store: SlowStore::default(),
            settings: settings.clone(),
            has_room: true,
            now: 0,
            load_max: 0,
            on_their_way: Vec::new(),
            taken: Vec::new(),
            fate: Fate::Copy,
        };
        Self {
            queue: Queue::new(options(settings), 0),
            world,
            next_consumer: 0,
            limit: Arc::new(ChannelLimit::new(CHANNEL_LIMIT, 0)),
        }
    }

    fn apply(&mut self, command: Command) {
        self.queue.apply(self.world.now, command, &mut self.world);
    }

    fn pick(&self, pick: usize) -> Option<u32> {
        let len = self.world.consumers.len();
        (len > 0).then(|| self.world.consumers.keys().copied().nth(pick % len)).flatten()
    }

    fn publish(&mut self, size: usize, persistent: bool, priority: u8) {
        self.publish_with(size, persistent, priority, None);
    }

    fn publish_with(&mut self, size: usize, persistent: bool, priority: u8, ttl: Option<u64>) {
        let number = self.world.messages.len();
        let message = message(number, BODY_LENS[size], persistent, priority, ttl);
        self.world.messages.push(ModelMessage {
            state: State::Ready,
            priority: priority.min(self.world.settings.max_priority),
            persistent,
            redelivered: false,
            failed: 0,
            at: self.world.now,
            expires_at: ttl.map(|ttl| self.world.now + ttl),
            memory: message.memory(),
            message: message.clone(),
        });
        let tracking = Tracking::Confirm(number as u64);
        self.apply(Command::Publish(Publish {
            connection: CONNECTION,
            channel: channel(1),
            tracking,
            message,
        }));
    }

    fn settle(&mut self, pick: usize, len: u64, settle: Settle) {
        let unacked: Vec<(u64, u16)> = (self.world.messages.iter())
            .filter_map(|message| match message.state {
                State::Unacked { delivery, channel, .. } => Some((delivery, channel)),
                _ => None,
            })
            .collect();
        if unacked.is_empty() {
            return;
        }
        let (first, owner) = unacked[pick % unacked.len()];
        let mut released = 0;
        for number in 0..self.world.messages.len() {
            let State::Unacked { delivery, channel, consumer } = self.world.messages[number].state else {
                continue;
            };
            if channel != owner || delivery < first || delivery > first + len {
                continue;
            }
            released += u32::from(consumer.is_some());
            self.world.release(number, settle);
        }
        let range = DeliveryRange { first: DeliveryId(first), last: DeliveryId(first + len) };
        self.apply(Command::Settle { connection: CONNECTION, channel: channel(owner), range, settle });
        if owner == LIMITED {
            for (_, consumer) in self.limit.release(released) {
                self.apply(Command::Resume { connection: CONNECTION, consumer });
            }
        }
    }

    fn channel_gone(&mut self, gone: u16) {
        for number in 0..self.world.messages.len() {
            if matches!(self.world.messages[number].state, State::Unacked { channel, .. } if channel == gone)
            {
                self.world.release(number, Settle::Requeue { failed: true });
            }
        }
        self.world.consumers.retain(|_, consumer| consumer.channel != gone);
        if gone == LIMITED {
            self.limit = Arc::new(ChannelLimit::new(CHANNEL_LIMIT, 0));
        }
        self.world.getters.retain(|(channel, _)| *channel != gone);
        self.apply(Command::Gone { connection: CONNECTION, channel: Some(channel(gone)) });
    }

    fn restart(&mut self, clean: bool) {
        let next_seq = self.world.messages.len() as u64;
        let redelivered_below = if clean { self.queue.undelivered_from() } else { next_seq };
        while !self.world.on_their_way.is_empty() {
            self.arrive(0);
        }
        self.world.store.messages.retain(|_, stored| stored.persistent);
        (self.world.store.asked, self.world.store.read) = (Vec::new(), Vec::new());
        self.world.consumers.clear();
        self.limit = Arc::new(ChannelLimit::new(CHANNEL_LIMIT, 0));
        self.world.getters.clear();
        for (number, message) in self.world.messages.iter_mut().enumerate() {
            if message.state == State::Gone || !message.persistent {
                message.state = State::Gone;
                continue;
            }
            let was_delivered = !matches!(message.state, State::Ready | State::Moving) || message.redelivered;
            message.state = State::Ready;
            message.redelivered = (number as u64) < redelivered_below;
            message.failed = 0;
            assert!(message.redelivered || !was_delivered, "message {number} was delivered before");
        }
        let mut levels: BTreeMap<u8, RestoredLevel> = BTreeMap::new();
        for ((priority, _), stored) in &self.world.store.messages {
            let empty = RestoredLevel { priority: *priority, messages: 0, bytes: 0 };
            let level = levels.entry(*priority).or_insert(empty);
            level.messages += 1;
            level.bytes += stored.message.body_len() as u64;
        }
        let levels = levels.into_values().collect();
        let restored = Restored { levels, next_seq, redelivered_below, has_expirations: true };
        self.queue = Queue::restore(options(self.world.settings.clone()), self.world.now, restored);
        self.apply(Command::Tick);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { size, persistent, priority, ttl } => {
                self.publish_with(size, persistent, priority, ttl);
            }
            Step::Get { channel: number, no_ack } => {
                self.world.getters.push_back((number, no_ack));
                self.apply(Command::Get(Getter { connection: CONNECTION, channel: channel(number), no_ack }));
            }
            Step::Consume { channel: number, no_ack, prefetch } => self.consume(number, no_ack, prefetch),
            Step::Cancel { pick } => {
                let Some(id) = self.pick(pick) else { return };
                let number = self.world.consumers.remove(&id).map_or(1, |consumer| consumer.channel);
                let (connection, channel, consumer) = (CONNECTION, channel(number), ConsumerId(id));
                self.apply(Command::Cancel { connection, channel, consumer });
            }
            Step::Settle { pick, len, settle } => self.settle(pick, len, settle),
            Step::Credit { pick } => {
                let Some(id) = self.pick(pick) else { return };
                let consumer = self.world.consumers.get_mut(&id).expect("it was picked");
                let bytes = std::mem::take(&mut consumer.in_flight);
                self.apply(Command::Credit { connection: CONNECTION, consumer: ConsumerId(id), bytes });
            }
            Step::Purge => {
                for number in 0..self.world.messages.len() {
                    // What has expired is perhaps on its way already.
                    if self.world.messages[number].state == State::Ready
                        && !self.world.has_own_expired(number)
                    {
                        self.world.messages[number].state = State::Gone;
                    }
                }
                self.apply(Command::Purge { connection: CONNECTION, channel: channel(1) });
            }
            Step::ChannelGone { channel } => self.channel_gone(channel),
            Step::Wait { ms } => {
                self.world.now += ms;
                self.apply(Command::Tick);
            }
            Step::Room(has_room) => self.world.has_room = has_room,
            Step::Read { pick, messages } => self.world.store.read(pick, messages),
            Step::Answer { pick } => {
                if let Some(answer) = self.world.store.answer(pick) {
                    self.apply(answer);
                }
            }
            Step::Restart { clean } => self.restart(clean),
            Step::Take { pick, len, fate } => self.take(pick, len, fate),
            Step::Moved { pick, taken } => self.moved(pick, taken),
            Step::Arrive { pick } => self.arrive(pick),
        }
    }

    fn take(&mut self, pick: usize, len: usize, fate: Fate) {
        let all = self.world.messages.len();
        let numbers: Vec<usize> = (pick % (all + 1)..all).take(len).collect();
        let chosen = numbers.iter().map(|number| {
            let ModelMessage { priority, at, persistent, ref message, .. } = self.world.messages[*number];
            let message = message.clone();
            (priority, StoredMessage { seq: *number as u64, at, persistent, message })
        });
        let chosen = chosen.collect();
        // What expires now may be on its way already.
        let is_surely_ready = |number: &&usize| {
            self.world.messages[**number].state == State::Ready && !self.world.is_expired(**number)
        };
        let ready: Vec<u64> = numbers.iter().filter(is_surely_ready).map(|number| *number as u64).collect();
        self.world.fate = fate;
        self.apply(Command::Take { chosen, fate });
        let taken = std::mem::take(&mut self.world.taken);
        assert!(ready.iter().all(|seq| taken.contains(seq)), "{taken:?} of {ready:?} were taken");
        assert!(taken.is_sorted());
    }

    fn moved(&mut self, pick: usize, taken: bool) {
        let moving: Vec<usize> = (0..self.world.messages.len())
            .filter(|number| self.world.messages[*number].state == State::Moving)
            .collect();
        if moving.is_empty() {
            return;
        }
        let number = moving[pick % moving.len()];
        self.world.messages[number].state = if taken { State::Gone } else { State::Ready };
        self.apply(Command::Moved { seq: number as u64, taken });
    }

    fn arrive(&mut self, pick: usize) {
        if self.world.on_their_way.is_empty() {
            return;
        }
        let gone = self.world.on_their_way.remove(pick % self.world.on_their_way.len());
        // A purge may have been faster.
        self.world.store.messages.remove(&(gone.priority, gone.seq));
        self.queue.forgotten(&gone);
    }

    /// What an operator sees: the ready messages in their order, wherever they are.
    fn check_browsing(&self) {
        let world = &self.world;
        let is_stored = |priority, seq| world.is_stored(priority, seq);
        let mut seen = Vec::new();
        let mut priorities = Vec::new();
        let mut most = Some(u8::MAX);
        while let Some(priority) = most.and_then(|most| self.queue.priority_up_to(most)) {
            priorities.push(priority);
            most = priority.checked_sub(1);
            seen.extend(self.queue.browse(priority, None));
            let Some(behind) = self.queue.paged_behind(priority) else { continue };
            let first = behind.map_or(0, |behind| behind + 1);
            let paged = world.store.messages.range((priority, first)..=(priority, u64::MAX));
            let paged = paged.filter(|((_, seq), _)| self.queue.is_ready(priority, *seq, is_stored));
            seen.extend(paged.map(|(_, stored)| {
                let ttl_ms = stored.message.expiration_ms();
                self.queue.look_at_paged(priority, stored.clone(), ttl_ms)
            }));
        }
        assert!(priorities.is_sorted_by(|a, b| a > b));
        for message in &seen {
            let known = &world.messages[message.seq as usize];
            assert_eq!(message.priority, known.priority);
            assert_eq!((message.at, message.redelivered), (known.at, known.redelivered));
            let ttl = world.settings.message_ttl_ms.map(|ttl| known.at + ttl);
            assert_eq!(message.expires_at, [ttl, known.expires_at].into_iter().flatten().min());
            let contents = message.message.as_ref().map(number_of);
            assert!(contents.is_none_or(|number| number == message.seq as usize));
            assert!(contents.is_some() || world.is_stored(message.priority, message.seq));
        }
        let seen: Vec<(u8, u64)> = seen.iter().map(|message| (message.priority, message.seq)).collect();
        let mut expected: Vec<(u8, u64)> = (world.messages.iter().enumerate())
            .filter(|(number, message)| {
                let key = (message.priority, *number as u64);
                // What has expired may still be seen.
                message.state == State::Ready && (!world.has_own_expired(*number) || seen.contains(&key))
            })
            .map(|(number, message)| (message.priority, number as u64))
            .collect();
        expected.sort_by_key(|(priority, seq)| (u8::MAX - priority, *seq));
        assert_eq!(seen, expected);
    }

    fn consume(&mut self, number: u16, no_ack: bool, prefetch: u32) {
        self.next_consumer += 1;
        let id = self.next_consumer;
        let consumer = ModelConsumer { channel: number, no_ack, prefetch, in_flight: 0 };
        self.world.consumers.insert(id, consumer);
        self.apply(Command::Consume(Box::new(NewConsumer {
            connection: CONNECTION,
            channel: channel(number),
            consumer: ConsumerId(id),
            no_ack,
            exclusive: false,
            prefetch,
            limit: (number == LIMITED).then(|| Arc::clone(&self.limit)),
            priority: 0,
            timeout_ms: None,
        })));
    }

    /// What holds at any time.
    fn check(&self) {
        let world = &self.world;
        let (ready, len) = (world.ready(), self.queue.ready_len());
        assert!(ready.contains(&len), "{len} are ready instead of {ready:?}");
        assert_eq!(self.queue.unacked_len(), world.count(|state| matches!(state, State::Unacked { .. })));
        for (priority, seq) in world.store.messages.keys() {
            let message = &world.messages[*seq as usize];
            assert_eq!(message.priority, *priority);
            let is_on_its_way = world.on_their_way.iter().any(|gone| gone.seq == *seq);
            assert!(message.state != State::Gone || is_on_its_way, "message {seq} is still stored");
        }
        for (number, message) in world.messages.iter().enumerate() {
            let is_stored = world.store.messages.contains_key(&(message.priority, number as u64));
            assert!(
                is_stored
                    || !message.persistent
                    || message.state == State::Gone
                    || world.has_own_expired(number),
                "{number} is not stored"
            );
        }
        self.check_browsing();
        let levels = usize::from(world.settings.max_priority) + 1;
        let pinned = world.messages.iter().enumerate().filter(|(number, message)| {
            let is_stored = world.store.messages.contains_key(&(message.priority, *number as u64));
            message.state != State::Gone && !is_stored
        });
        let pinned: usize = pinned.map(|(_, message)| message.memory).sum();
        let bound = 2 * RESIDENT_MAX + levels * (384 * 1024 + 2 * BODY_LENS[2]) + pinned;
        assert!(self.queue.memory() <= bound, "{} of {bound} bytes are resident", self.queue.memory());
    }

    /// What holds once the store has answered everything.
    fn check_at_rest(&mut self) {
        let moving = self.world.count(|state| state == State::Moving);
        (0..moving).for_each(|number| self.moved(0, number % 2 == 0));
        for _ in 0..10_000 {
            self.world.store.read(0, usize::MAX);
            if let Some(answer) = self.world.store.answer(0) {
                self.apply(answer);
                self.check();
            }
            while !self.world.on_their_way.is_empty() {
                self.arrive(0);
            }
            if self.world.store.asked.is_empty() && self.world.store.read.is_empty() {
                break;
            }
        }
        let world = &self.world;
        assert!(world.store.asked.is_empty(), "the queue never stops to ask");
        assert!(world.getters.is_empty(), "a get was not answered");
        assert_eq!(world.count(|state| state == State::Dying), 0, "a dead letter was not sent");
        let first = world.first_ready();
        for id in world.consumers.keys() {
            assert!(first.is_none() || !world.can_take(*id), "consumer {id} idles while messages are ready");
        }
        let max = world.settings.max_length;
        assert!(max.is_none_or(|max| self.queue.ready_len() as u64 <= max), "the queue is too long");
        let heads = (0..=world.settings.max_priority).filter_map(|priority| world.first_of(priority));
        let heads = heads.filter_map(|head| Some(world.messages[head].at + world.settings.message_ttl_ms?));
        let ready = world.messages.iter().filter(|message| message.state == State::Ready);
        let own = ready.filter_map(|message| message.expires_at).filter(|at| *at > world.now);
        let deadline = heads.chain(own).min();
        assert!(self.queue.deadline().is_some() >= deadline.is_some());
        assert!(deadline.is_none_or(|deadline| self.queue.deadline() <= Some(deadline)));
        assert!(deadline.is_none_or(|deadline| deadline > world.now), "an expired message stays");
        for (priority, seq) in world.store.messages.keys() {
            let message = &world.messages[*seq as usize];
            let is_expired = message.state == State::Ready && world.has_own_expired(*seq as usize);
            assert!(!is_expired, "message {seq} of priority {priority} has expired and stays");
        }
        assert_eq!(self.queue.ready_len(), *world.ready().start(), "an expired message is still ready");
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let target = || Some(DeadLetterTarget { exchange: "dead".into(), routing_key: None });
    // Without limits, with one, and with all of them at once.
    (prop_oneof![Just(0u8), Just(2)], 0..6u8).prop_map(move |(max_priority, kind)| Settings {
        max_priority,
        dead_letter: if kind > 0 { target() } else { None },
        max_length: matches!(kind, 2 | 5).then_some(6),
        max_length_bytes: (kind == 5).then_some(150_000),
        message_ttl_ms: matches!(kind, 3 | 5).then_some(50),
        delivery_limit: matches!(kind, 4 | 5).then_some(1),
        ..Settings::default()
    })
}

fn settle() -> impl Strategy<Value = Settle> {
    prop_oneof![
        3 => Just(Settle::Ack),
        2 => Just(Settle::Reject),
        3 => Just(Settle::Requeue { failed: false }),
        2 => Just(Settle::Requeue { failed: true }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (
            prop_oneof![4 => Just(0usize), 8 => Just(1), 2 => Just(2)],
            any::<bool>(),
            0..3u8,
            prop_oneof![2 => Just(None), 1 => (1..100u64).prop_map(Some)],
        )
            .prop_map(|(size, persistent, priority, ttl)| Step::Publish { size, persistent, priority, ttl }),
        2 => (1..=CHANNELS, any::<bool>()).prop_map(|(channel, no_ack)| Step::Get { channel, no_ack }),
        1 => (1..=CHANNELS, prop::bool::weighted(0.3), 0..4u32)
            .prop_map(|(channel, no_ack, prefetch)| Step::Consume { channel, no_ack, prefetch }),
        1 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        4 => (any::<usize>(), 0..6u64, settle())
            .prop_map(|(pick, len, settle)| Step::Settle { pick, len, settle }),
        2 => any::<usize>().prop_map(|pick| Step::Credit { pick }),
        1 => prop::bool::weighted(0.4).prop_filter_map("purges are rare", |purge| purge.then_some(Step::Purge)),
        1 => (1..=CHANNELS).prop_map(|channel| Step::ChannelGone { channel }),
        1 => (1..40u64).prop_map(|ms| Step::Wait { ms }),
        2 => any::<bool>().prop_map(Step::Room),
        5 => (any::<usize>(), 1..5usize).prop_map(|(pick, messages)| Step::Read { pick, messages }),
        5 => any::<usize>().prop_map(|pick| Step::Answer { pick }),
        1 => any::<bool>().prop_map(|clean| Step::Restart { clean }),
        3 => (any::<usize>(), 1..8usize, fate()).prop_map(|(pick, len, fate)| Step::Take { pick, len, fate }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(pick, taken)| Step::Moved { pick, taken }),
        3 => any::<usize>().prop_map(|pick| Step::Arrive { pick }),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![2 => Just(Fate::Delete), 3 => Just(Fate::Move), 1 => Just(Fate::Copy)]
}

fn dead_letters() -> Settings {
    let target = DeadLetterTarget { exchange: "dead".into(), routing_key: None };
    Settings { dead_letter: Some(target), ..Settings::default() }
}

impl Run {
    fn publish_many(&mut self, count: usize, size: usize) {
        (0..count).for_each(|_| self.publish(size, true, 0));
    }
}

#[test]
fn a_long_backlog_takes_no_more_memory_than_a_short_one() {
    let mut run = Run::new(Settings::default());
    for number in 0..100_000 {
        run.publish(0, number % 2 == 0, 0);
        assert!(run.queue.memory() <= RESIDENT_MAX + 1024, "{} bytes are resident", run.queue.memory());
    }
    assert_eq!(run.queue.ready_len(), 100_000);
    run.step(Step::Purge);
    run.check_at_rest();
    assert!(run.world.store.messages.is_empty());
}

#[test]
fn a_paged_message_counts_as_delivered_only_if_it_was() {
    let mut run = Run::new(Settings { max_priority: 1, ..Settings::default() });
    run.world.has_room = false;
    run.consume(1, false, 1);
    run.publish_many(5, 1);
    run.publish(0, true, 1);
    for _ in 0..6 {
        run.settle(0, 0, Settle::Ack);
        run.check_at_rest();
    }
    assert_eq!(run.world.count(|state| state == State::Gone), 6);
}

#[test]
fn an_answer_from_before_a_purge_says_nothing_of_what_came_later() {
    let mut run = Run::new(Settings::default());
    run.world.has_room = false;
    run.publish_many(4, 1);
    run.consume(1, false, 2);
    run.step(Step::Purge);
    run.step(Step::Read { pick: 0, messages: usize::MAX });
    run.publish_many(6, 1);
    run.step(Step::Answer { pick: 0 });
    run.check_at_rest();
    assert_eq!(run.queue.ready_len(), 6);
}

#[test]
fn large_messages_come_back_a_few_at_a_time() {
    let mut run = Run::new(Settings::default());
    (0..40).for_each(|_| run.consume(1, false, 0));
    run.publish_many(80, 2);
    run.channel_gone(1);
    for _ in 0..80 {
        run.step(Step::Get { channel: 2, no_ack: true });
        run.check_at_rest();
    }
}

#[test]
fn a_wrong_count_is_put_right() {
    for counted in [1, 2, 3] {
        let mut run = Run::new(Settings::default());
        run.publish_many(2, 0);
        let levels = vec![RestoredLevel { priority: 0, messages: counted, bytes: counted * 8 }];
        let restored = Restored { levels, next_seq: 2, ..Restored::default() };
        run.queue = Queue::restore(options(Settings::default()), 0, restored);
        run.apply(Command::Tick);
        run.world.store.read(0, usize::MAX);
        let answer = run.world.store.answer(0).expect("the first messages are asked for");
        run.apply(answer);
        // A count that is too high shows when there is nothing left to read.
        run.consume(1, true, 0);
        run.check_at_rest();
        assert_eq!(run.queue.ready_len(), 0, "{counted} of 2 were counted");
    }
}

#[test]
fn as_much_is_read_as_is_wanted() {
    // Whether a consumer waits, whether there is room, whether the queue is too long, and the most to be read, in KiB.
    for (waits, has_room, too_long, expected) in [
        (false, true, false, 4),
        (true, true, false, 256),
        (true, false, false, 32),
        (false, true, true, 256),
    ] {
        let mut run = Run::new(dead_letters());
        run.publish_many(100, 1);
        run.world.settings.max_length = too_long.then_some(10);
        (run.world.has_room, run.world.load_max) = (has_room, 0);
        run.restart(false);
        if waits {
            run.consume(1, true, 0);
            run.check_at_rest();
        }
        assert_eq!(run.world.load_max, expected * 1024);
    }
}

#[test]
fn limits_hold_for_what_comes_back() {
    for settle in [Some(Settle::Requeue { failed: false }), None] {
        let mut run = Run::new(Settings { max_length: Some(2), message_ttl_ms: Some(50), ..dead_letters() });
        run.publish_many(2, 0);
        run.step(Step::Get { channel: 1, no_ack: false });
        run.publish_many(1, 0);
        match settle {
            Some(settle) => run.settle(0, 0, settle),
            None => run.channel_gone(1),
        }
        run.check_at_rest();
        assert_eq!(run.queue.ready_len(), 2);
    }
}

#[test]
fn what_comes_back_too_late_expires() {
    for settle in [Some(Settle::Requeue { failed: false }), None] {
        let mut run = Run::new(Settings { message_ttl_ms: Some(50), ..dead_letters() });
        run.consume(1, false, 0);
        run.publish_many(1, 0);
        run.consume(2, false, 0);
        run.step(Step::Wait { ms: 50 });
        match settle {
            Some(settle) => run.settle(0, 0, settle),
            None => run.channel_gone(1),
        }
        run.check_at_rest();
        assert_eq!(run.queue.ready_len() + run.queue.unacked_len(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slow_store_changes_nothing(settings in settings(), steps in prop::collection::vec(step(), 1..150)) {
        let mut run = Run::new(settings);
        for step in steps {
            run.step(step);
            run.check();
        }
        run.check_at_rest();
    }
}
