use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use warren_types::session::{Delivery, DeliveryRange, Got, QueueDeclared, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, DeliveryId, Ledger, Message, QueueRef, ShortString,
    StoredMessage,
};

use crate::command::{Command, Effects, Getter, NewConsumer, Publish};
use crate::consumers::{Consumer, Consumers, Taker};
use crate::messages::{Entry, NEVER, Ready, Request};
use crate::settings::{DeathReason, Overflow, Settings};

/// Memory of ready messages that a queue keeps resident while there is room, in bytes: what comes on top is paged out.
pub const RESIDENT_MAX: usize = 1024 * 1024;

/// The same in a queue with consumers, who would have to wait for what is read again.
const RESIDENT_MAX_CONSUMED: usize = 16 * RESIDENT_MAX;

/// Ready messages from which on a queue with consumers has more than they take at a time.
const CROWDED: usize = 1000;

/// The same in bytes.
const CROWDED_MEMORY: usize = RESIDENT_MAX / 4;

/// The same without room: enough for a batch.
const RESIDENT_MIN: usize = 32 * 1024;

/// Memory of unacked messages that a queue keeps resident though they are stored, in bytes. More are read again should
/// they come back.
const UNACKED_MAX: usize = 1024 * 1024;

/// What a queue is declared with.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Where the queue lives.
    pub queue: QueueRef,
    /// Its name.
    pub name: ShortString,
    /// Its virtual host.
    pub vhost: Arc<str>,
    /// It survives a restart, with its persistent messages.
    pub durable: bool,
    /// It goes when the last consumer goes.
    pub auto_delete: bool,
    /// What its arguments ask for.
    pub settings: Settings,
}

/// What the store has of a queue at the start.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Messages of each priority.
    pub levels: Vec<RestoredLevel>,
    /// The number of the next message.
    pub next_seq: u64,
    /// Messages below this number may have been delivered.
    pub redelivered_below: u64,
}

/// Stored messages of one priority.
#[derive(Debug, Clone, Copy)]
pub struct RestoredLevel {
    /// The priority.
    pub priority: u8,
    /// How many there are.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// A delivery that waits to be settled.
#[derive(Debug)]
struct Unacked {
    entry: Entry,
    connection: ConnectionId,
    channel: ChannelId,
    /// None for `basic.get`.
    consumer: Option<ConsumerId>,
}

/// One queue: messages, consumers, and the rule that brings them together.
#[derive(Debug)]
pub struct Queue {
    options: QueueOptions,
    ready: Ready,
    unacked: Ledger<Unacked>,
    /// Rejected messages that are read again to become dead letters.
    burying: BTreeMap<u64, (Entry, DeathReason)>,
    /// Who waits for the first message to be read, the longest first.
    getters: VecDeque<Getter>,
    consumers: Consumers,
    next_seq: u64,
    next_delivery: u64,
    /// Memory of unacked messages, in bytes.
    unacked_memory: usize,
    /// Every message from this number on was never delivered.
    undelivered_from: u64,
    /// Messages below this number were there before the last restart, and may have been delivered.
    redelivered_below: u64,
    /// When the queue was last of use to anyone.
    last_used: u64,
}

impl Queue {
    /// An empty queue, made at `now` milliseconds.
    #[must_use]
    pub fn new(options: QueueOptions, now: u64) -> Self {
        Self {
            ready: Ready::default(),
            unacked: Ledger::default(),
            burying: BTreeMap::new(),
            getters: VecDeque::new(),
            consumers: Consumers::new(options.settings.single_active_consumer),
            options,
            last_used: now,
            next_seq: 0,
            next_delivery: 0,
            unacked_memory: 0,
            undelivered_from: 0,
            redelivered_below: 0,
        }
    }

    /// The queue as the store has it: all of its messages are paged out. [`Command::Tick`] must follow, or what has
    /// expired would stay until somebody asks.
    #[must_use]
    pub fn restore(options: QueueOptions, now: u64, restored: Restored) -> Self {
        let mut queue = Self::new(options, now);
        for level in restored.levels {
            queue.ready.restore(level.priority, level.messages, level.bytes);
        }
        queue.next_seq = restored.next_seq;
        queue.undelivered_from = restored.redelivered_below;
        queue.redelivered_below = restored.redelivered_below;
        queue
    }

    /// The number from which on no message was ever delivered.
    #[must_use]
    pub fn undelivered_from(&self) -> u64 {
        self.undelivered_from
    }

    /// What it was declared with.
    #[must_use]
    pub fn options(&self) -> &QueueOptions {
        &self.options
    }

    /// Messages that wait to be delivered.
    #[must_use]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Whether messages come faster than its consumers take them.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        let is_much = self.ready.len() > CROWDED || self.ready.memory() > CROWDED_MEMORY;
        is_much && !self.consumers.is_empty()
    }

    /// Messages that were delivered and are not settled.
    #[must_use]
    pub fn unacked_len(&self) -> usize {
        self.unacked.len()
    }

    /// Number of consumers.
    #[must_use]
    pub fn consumers_len(&self) -> usize {
        self.consumers.len()
    }

    /// Memory taken by ready and unacked messages, in bytes, by estimate. A message in several queues is
    /// counted in each, and one that is paged out in none.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.ready.memory() + self.unacked_memory
    }

    /// When [`Command::Tick`] is to be applied, in milliseconds, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let unused = match self.options.settings.expires_ms {
            Some(expires) if self.consumers.is_empty() => Some(self.last_used + expires),
            _ => None,
        };
        [self.ready.next_expiry(), unused].into_iter().flatten().min()
    }

    /// Applies a command at `now` milliseconds; what follows goes to `effects`.
    pub fn apply(&mut self, now: u64, command: Command, effects: &mut impl Effects) {
        self.expire(now, effects);
        match command {
            Command::Publish(publish) => self.publish(now, publish, effects),
            Command::Settle { connection, channel, range, settle } => {
                self.settle(connection, channel, range, settle, effects);
                self.expire(now, effects);
                self.dispatch(effects);
            }
            Command::Credit { connection, consumer, bytes } => {
                self.consumers.update(connection, consumer, |c| c.credit(bytes));
                self.dispatch(effects);
            }
            Command::Get(getter) => {
                self.last_used = now;
                self.get(getter, effects);
            }
            Command::Consume(new) => self.consume(*new, effects),
            Command::Cancel { connection, channel, consumer } => {
                effects.reply(connection, channel, Ok(Reply::Cancelled));
                self.remove_consumers(now, |c| c.connection == connection && c.consumer == consumer, effects);
                self.dispatch(effects);
            }
            Command::Limit { connection, consumer, limit } => {
                self.consumers.update(connection, consumer, |c| c.new.limit = Some(limit));
            }
            Command::Resume { connection, consumer } => {
                self.consumers.update(connection, consumer, Consumer::resume);
                self.dispatch(effects);
            }
            Command::Purge { connection, channel } => {
                let purged = self.purge(effects);
                effects.reply(connection, channel, Ok(Reply::QueuePurged(purged)));
            }
            Command::Count { connection, channel } => {
                self.last_used = now;
                self.tell_count(connection, channel, effects);
            }
            Command::Loaded { priority, messages, end } => self.loaded(now, priority, messages, end, effects),
            Command::Fetched { priority, asked, messages } => {
                self.fetched(now, priority, &asked, messages, effects)
            }
            Command::Delete { asked_by, if_unused, if_empty } => {
                self.delete(asked_by, if_unused, if_empty, effects);
            }
            Command::Gone { connection, channel } => self.gone(now, connection, channel, effects),
            Command::Tick => self.delete_if_unused_for_long(now, effects),
        }
        // What may not wait at all and found no taker expires in the turn in which it came.
        self.expire(now, effects);
        self.ask_store(effects);
    }

    /// Asks for messages that are paged out as far as they will be wanted soon.
    fn ask_store(&mut self, effects: &mut impl Effects) {
        if self.ready.is_resident() && self.burying.is_empty() {
            return;
        }
        let wanted = !self.getters.is_empty() || self.consumers.any_can_take() || self.is_too_long();
        let mut requests = Vec::new();
        self.ready.requests(wanted, effects.room(), &mut requests);
        for request in requests {
            match request {
                Request::Load { priority, after, bytes } => effects.load(priority, after, bytes),
                Request::Fetch { priority, seqs } => effects.fetch(priority, &seqs),
            }
        }
        if let Some((_, (first, _))) = self.burying.first_key_value()
            && self.ready.begin_fetch(first.priority)
        {
            let priority = first.priority;
            let same = self.burying.values().filter(|(entry, _)| entry.priority == priority);
            effects.fetch(priority, &Ready::batch(same.map(|(entry, _)| entry)));
        }
    }

    fn loaded(
        &mut self,
        now: u64,
        priority: u8,
        messages: Vec<StoredMessage>,
        end: bool,
        effects: &mut impl Effects,
    ) {
        let entry = |stored: StoredMessage| Entry {
            stored: true,
            persistent: stored.persistent,
            redelivered: stored.seq < self.redelivered_below,
            ..self.entry(stored.seq, stored.at, priority, stored.message)
        };
        let entries = messages.into_iter().map(entry).collect();
        self.ready.loaded(priority, entries, end);
        self.expire(now, effects);
        self.serve(effects);
        self.drop_head(effects);
    }

    fn fetched(
        &mut self,
        now: u64,
        priority: u8,
        asked: &[u64],
        messages: Vec<StoredMessage>,
        effects: &mut impl Effects,
    ) {
        let mut found = messages.into_iter().peekable();
        for seq in asked {
            while found.next_if(|stored| stored.seq < *seq).is_some() {}
            let message = found.next_if(|stored| stored.seq == *seq).map(|stored| stored.message);
            match (self.burying.remove(seq), message) {
                (Some((entry, reason)), Some(message)) => {
                    self.bury(Entry { message: Some(message), ..entry }, reason, effects);
                }
                (Some((entry, _)), None) => effects.forget(entry.forgotten()),
                (None, message) => self.ready.fetched(priority, *seq, message),
            }
        }
        self.ready.fetch_ended(priority);
        self.expire(now, effects);
        self.serve(effects);
        self.drop_head(effects);
    }

    /// A message in its place, neither stored nor delivered yet.
    fn entry(&self, seq: u64, at: u64, priority: u8, message: Message) -> Entry {
        let settings = &self.options.settings;
        let ttl = match (settings.message_ttl_ms, message.expiration_ms()) {
            (Some(queue), Some(message)) => Some(queue.min(message)),
            (queue, message) => queue.or(message),
        };
        Entry {
            seq,
            at,
            expires_at: ttl.map_or(NEVER, |ttl| at.saturating_add(ttl)),
            body_len: u32::try_from(message.body_len()).unwrap_or(u32::MAX),
            priority,
            redelivered: false,
            stored: false,
            persistent: message.is_persistent() && self.options.durable,
            message: Some(message),
        }
    }

    fn tell_count(&self, connection: ConnectionId, channel: ChannelId, effects: &mut impl Effects) {
        let declared = QueueDeclared {
            name: self.options.name.clone(),
            messages: self.ready_count(),
            consumers: u32::try_from(self.consumers.len()).unwrap_or(u32::MAX),
        };
        effects.reply(connection, channel, Ok(Reply::QueueDeclared(declared)));
    }

    fn publish(&mut self, now: u64, publish: Publish, effects: &mut impl Effects) {
        let Publish { connection, channel, tracking, message } = publish;
        if self.refuses(&message) {
            if let Tracking::Confirm(number) = tracking {
                effects.refused(connection, channel, number);
            }
            if let Some(target) = &self.options.settings.dead_letter
                && self.options.settings.overflow == Overflow::RejectPublishDlx
            {
                effects.dead_letter(message, DeathReason::MaxLen, target, None);
            }
            return;
        }
        if let Tracking::Immediate(number) = tracking {
            let taken = self.ready.is_empty() && self.consumers.any_can_take();
            effects.immediate(connection, channel, number, taken);
            if !taken {
                return;
            }
        }
        let priority = message.priority().min(self.options.settings.max_priority);
        let mut entry = self.entry(self.next_seq, now, priority, message);
        self.next_seq += 1;
        // Most messages of a queue that keeps up never wait in it.
        let taker = if self.ready.is_empty() { self.next_taker(entry.memory()) } else { None };
        // Somebody who acknowledges nothing may have it before it is stored at all.
        let durable = entry.persistent && !taker.is_some_and(|taker| taker.no_ack);
        let paged = taker.is_none() && self.is_full(&entry, effects);
        if durable || paged {
            Self::store(&mut entry, effects);
        }
        if let Tracking::Confirm(number) = tracking {
            effects.accepted(connection, channel, number, durable);
        }
        match taker {
            Some(taker) => {
                self.ready.pass(&entry);
                self.deliver(taker, entry, effects);
            }
            None if paged => self.ready.page_out(entry.priority, entry.seq, entry.body_len),
            None => {
                self.ready.push(entry);
                self.dispatch(effects);
            }
        }
        self.drop_head(effects);
    }

    /// Whether there is no place for one more resident message, or paged ones stand before it.
    fn is_full(&self, entry: &Entry, effects: &impl Effects) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let memory = self.ready.memory();
        self.ready.is_paged(entry.priority)
            || memory >= if self.consumers.is_empty() { RESIDENT_MAX } else { RESIDENT_MAX_CONSUMED }
            || (memory >= RESIDENT_MIN && !effects.room())
    }

    fn store(entry: &mut Entry, effects: &mut impl Effects) {
        if let Some(message) = entry.message.as_ref().filter(|_| !entry.stored) {
            effects.store(entry.seq, entry.priority, entry.at, message, entry.persistent);
            entry.stored = true;
        }
    }

    /// Whether the message would make the queue too long, and new messages are what gives way.
    fn refuses(&self, message: &Message) -> bool {
        let settings = &self.options.settings;
        if settings.overflow == Overflow::DropHead {
            return false;
        }
        let bytes = self.ready.body_bytes() + message.body_len() as u64;
        settings.max_length.is_some_and(|max| self.ready.len() as u64 + 1 > max)
            || settings.max_length_bytes.is_some_and(|max| bytes > max)
    }

    /// Whether the oldest messages have to give way.
    fn is_too_long(&self) -> bool {
        let settings = &self.options.settings;
        settings.overflow == Overflow::DropHead
            && (settings.max_length.is_some_and(|max| self.ready.len() as u64 > max)
                || settings.max_length_bytes.is_some_and(|max| self.ready.body_bytes() > max))
    }

    /// Drops the oldest messages while the queue is too long.
    fn drop_head(&mut self, effects: &mut impl Effects) {
        while self.is_too_long() {
            // What is paged out gives way as soon as it has been read.
            let Some(entry) = self.ready.pop_lowest() else { return };
            self.bury(entry, DeathReason::MaxLen, effects);
        }
    }

    /// Takes out what has waited too long.
    fn expire(&mut self, now: u64, effects: &mut impl Effects) {
        while let Some(entry) = self.ready.pop_expired(now) {
            self.bury(entry, DeathReason::Expired, effects);
        }
    }

    /// A message that is not in the queue any more becomes a dead letter if there is a place for them.
    fn bury(&mut self, entry: Entry, reason: DeathReason, effects: &mut impl Effects) {
        let stored = entry.stored.then(|| entry.forgotten());
        match (&self.options.settings.dead_letter, stored) {
            (Some(target), _) => match entry.message {
                Some(message) => effects.dead_letter(message, reason, target, stored),
                None => {
                    self.burying.insert(entry.seq, (entry, reason));
                }
            },
            (None, Some(stored)) => effects.forget(stored),
            (None, None) => {}
        }
    }

    /// A message has reached somebody for good.
    fn consumed(entry: &Entry, effects: &mut impl Effects) {
        if entry.stored {
            effects.forget(entry.forgotten());
        }
    }

    fn delete_if_unused_for_long(&mut self, now: u64, effects: &mut impl Effects) {
        let Some(expires) = self.options.settings.expires_ms else { return };
        if self.consumers.is_empty() && self.last_used + expires <= now {
            self.discard(effects);
        }
    }

    /// Hands messages to whoever waited for them to be read.
    fn serve(&mut self, effects: &mut impl Effects) {
        for getter in std::mem::take(&mut self.getters) {
            self.get(getter, effects);
        }
        self.dispatch(effects);
    }

    /// Hands ready messages to consumers until either runs out.
    fn dispatch(&mut self, effects: &mut impl Effects) {
        while let Some(memory) = self.ready.next_memory()
            && let Some(taker) = self.next_taker(memory)
            && let Some(entry) = self.ready.pop()
        {
            self.deliver(taker, entry, effects);
        }
    }

    /// The consumer that takes the next message, which has so many bytes.
    fn next_taker(&mut self, memory: usize) -> Option<Taker> {
        // The first message may still have to be read, and then it goes to whoever waits for it longest.
        if !self.getters.is_empty() {
            return None;
        }
        self.consumers.next(self.options.queue).map(|consumer| consumer.take(memory))
    }

    /// Hands a resident message out.
    fn deliver(&mut self, taker: Taker, mut entry: Entry, effects: &mut impl Effects) {
        let Taker { connection, channel, consumer, no_ack, limited } = taker;
        let message = if no_ack { entry.message.take() } else { entry.message.clone() };
        let Some(message) = message else { return };
        let (id, redelivered) = (self.next_delivery(&entry), entry.redelivered);
        if no_ack {
            Self::consumed(&entry, effects);
        } else {
            self.hold(id, Unacked { entry, connection, channel, consumer: Some(consumer) });
        }
        let queue = self.options.queue;
        effects.deliver(connection, Delivery { channel, consumer, queue, id, redelivered, limited, message });
    }

    /// Numbers the delivery of a message.
    fn next_delivery(&mut self, entry: &Entry) -> DeliveryId {
        let id = DeliveryId(self.next_delivery);
        self.next_delivery += 1;
        self.undelivered_from = self.undelivered_from.max(entry.seq + 1);
        id
    }

    /// Keeps a delivered message until it is settled; beyond a limit only the store does, if it has it. (Storing it now
    /// would break the order in which the store gets the messages of a queue.)
    fn hold(&mut self, id: DeliveryId, mut unacked: Unacked) {
        if self.unacked_memory > UNACKED_MAX && unacked.entry.stored {
            unacked.entry.message = None;
        }
        self.unacked_memory += unacked.entry.memory();
        self.unacked.push(id.0, unacked);
    }

    /// Takes a delivered message back.
    fn release(&mut self, id: u64) -> Option<Unacked> {
        let unacked = self.unacked.take(id)?;
        self.unacked_memory -= unacked.entry.memory();
        Some(unacked)
    }

    fn get(&mut self, getter: Getter, effects: &mut impl Effects) {
        let Getter { connection, channel, no_ack } = getter;
        let popped = if self.getters.is_empty() { self.ready.pop() } else { None };
        let Some((message, entry)) = popped.and_then(|entry| Some((entry.message.clone()?, entry))) else {
            if self.ready.is_empty() {
                effects.reply(connection, channel, Ok(Reply::Got(None)));
            } else {
                self.getters.push_back(getter);
            }
            return;
        };
        let id = self.next_delivery(&entry);
        let got = Got {
            queue: self.options.queue,
            id,
            redelivered: entry.redelivered,
            remaining: self.ready_count(),
            message,
        };
        if no_ack {
            Self::consumed(&entry, effects);
        } else {
            self.hold(id, Unacked { entry, connection, channel, consumer: None });
        }
        effects.reply(connection, channel, Ok(Reply::Got(Some(got))));
    }

    fn consume(&mut self, new: NewConsumer, effects: &mut impl Effects) {
        let in_use = match new.exclusive {
            true => !self.consumers.is_empty() || self.consumers.is_single_active(),
            false => self.consumers.has_exclusive(),
        };
        if in_use {
            let refusal = AmqpError::access_refused(format!("{} in exclusive use", self.label()));
            effects.reply(new.connection, new.channel, Err(refusal));
            return;
        }
        effects.reply(new.connection, new.channel, Ok(Reply::Consuming));
        self.consumers.add(new);
        self.dispatch(effects);
    }

    fn settle(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        range: DeliveryRange,
        settle: Settle,
        effects: &mut impl Effects,
    ) {
        // Deliveries to one consumer mostly come in a row: it is told once for all of them.
        let mut settled: Option<(ConsumerId, u32)> = None;
        for id in range.first.0..=range.last.0 {
            let owned = |u: &Unacked| u.connection == connection && u.channel == channel;
            if !self.unacked.get(id).is_some_and(owned) {
                continue;
            }
            let Some(unacked) = self.release(id) else { continue };
            match (unacked.consumer, &mut settled) {
                (Some(consumer), Some((same, count))) if *same == consumer => *count += 1,
                (Some(consumer), _) => {
                    if let Some((other, count)) = settled.replace((consumer, 1)) {
                        self.consumers.update(connection, other, |c| c.settled(count));
                    }
                }
                (None, _) => {}
            }
            match settle {
                Settle::Ack => Self::consumed(&unacked.entry, effects),
                Settle::Reject => self.bury(unacked.entry, DeathReason::Rejected, effects),
                Settle::Requeue => self.put_back(unacked.entry),
            }
        }
        self.drop_head(effects);
        if let Some((consumer, count)) = settled {
            self.consumers.update(connection, consumer, |c| c.settled(count));
        }
    }

    fn put_back(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        self.ready.put_back(entry);
    }

    fn purge(&mut self, effects: &mut impl Effects) -> u32 {
        let purged = self.ready_count();
        let last = self.next_seq.checked_sub(1);
        for priority in self.ready.stored_priorities() {
            let unacked = self.unacked.iter().map(|(_, unacked)| &unacked.entry);
            let kept = unacked.chain(self.burying.values().map(|(entry, _)| entry));
            let kept = kept.filter(|entry| entry.stored && entry.priority == priority);
            let mut except: Vec<u64> = kept.map(|entry| entry.seq).collect();
            except.sort_unstable();
            effects.forget_all(priority, last.unwrap_or(0), &except);
        }
        self.ready.clear(last);
        self.refuse_getters(effects);
        purged
    }

    /// There is nothing to wait for.
    fn refuse_getters(&mut self, effects: &mut impl Effects) {
        for getter in std::mem::take(&mut self.getters) {
            effects.reply(getter.connection, getter.channel, Ok(Reply::Got(None)));
        }
    }

    fn delete(
        &mut self,
        asked_by: Option<(ConnectionId, ChannelId)>,
        if_unused: bool,
        if_empty: bool,
        effects: &mut impl Effects,
    ) {
        let refusal = if if_unused && !self.consumers.is_empty() {
            Some("in use")
        } else if if_empty && !self.ready.is_empty() {
            Some("not empty")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            if let Some((connection, channel)) = asked_by {
                let error = AmqpError::precondition_failed(format!("{} {refusal}", self.label()));
                effects.reply(connection, channel, Err(error));
            }
            return;
        }
        for consumer in self.consumers.remove(|_| true) {
            effects.consumer_cancelled(consumer.connection, consumer.channel, consumer.consumer);
        }
        if let Some((connection, channel)) = asked_by {
            effects.reply(connection, channel, Ok(Reply::QueueDeleted(self.ready_count())));
        }
        self.discard(effects);
    }

    fn gone(
        &mut self,
        now: u64,
        connection: ConnectionId,
        channel: Option<ChannelId>,
        effects: &mut impl Effects,
    ) {
        let is_gone =
            |c: ConnectionId, ch: ChannelId| c == connection && channel.is_none_or(|gone| gone == ch);
        let ids: Vec<u64> = (self.unacked.iter())
            .filter(|(_, unacked)| is_gone(unacked.connection, unacked.channel))
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            if let Some(unacked) = self.release(id) {
                self.put_back(unacked.entry);
            }
        }
        self.getters.retain(|getter| !is_gone(getter.connection, getter.channel));
        self.expire(now, effects);
        self.drop_head(effects);
        self.remove_consumers(now, |c| is_gone(c.connection, c.channel), effects);
        self.dispatch(effects);
    }

    fn remove_consumers(
        &mut self,
        now: u64,
        gone: impl Fn(&NewConsumer) -> bool,
        effects: &mut impl Effects,
    ) {
        let removed = self.consumers.remove(gone);
        if !removed.is_empty() && self.consumers.is_empty() {
            self.last_used = now;
            if self.options.auto_delete {
                self.discard(effects);
            }
        }
    }

    fn discard(&mut self, effects: &mut impl Effects) {
        self.ready.clear(None);
        self.refuse_getters(effects);
        self.unacked = Ledger::default();
        self.unacked_memory = 0;
        self.burying.clear();
        effects.deleted();
    }

    fn ready_count(&self) -> u32 {
        u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }

    fn label(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.options.name, self.options.vhost)
    }
}
