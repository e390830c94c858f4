use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use warren_types::session::{Delivery, DeliveryRange, Got, QueueDeclared, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, DeliveryId, Ledger, Message, QueueRef, ShortString,
    StoredMessage,
};

use crate::command::{Browsed, Command, Effects, Fate, Forgotten, Getter, NewConsumer, Publish};
use crate::consumers::{Consumer, Consumers, Taker};
use crate::dedup::{DedupCache, DedupKey, StoredKey};
use crate::due::Item;
use crate::groups::{Choice, Groups, NO_BUCKET, Waiting};
use crate::messages::{Entry, NEVER, Ready, Request, Wanted};
use crate::settings::{DeathReason, Overflow, QueueKind, RetryOf, Settings};

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

/// Messages that are looked at for one whose group has a consumer that can take it.
const LOOKED_AT_MAX: usize = 4096;

/// The priority of messages without one in a quorum queue.
const QUORUM_PRIORITY_DEFAULT: u8 = 4;

/// The highest priority in a quorum queue.
const QUORUM_PRIORITY_MAX: u8 = 31;

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
    /// There may be messages that expire by themselves.
    pub has_expirations: bool,
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
    /// When it was delivered.
    at: u64,
}

/// One queue: messages, consumers, and the rule that brings them together.
#[derive(Debug)]
pub struct Queue {
    options: QueueOptions,
    ready: Ready,
    unacked: Ledger<Unacked>,
    /// Rejected messages that are read again to become dead letters.
    burying: BTreeMap<u64, (Entry, DeathReason)>,
    /// Messages that are on their way elsewhere, and still in the store though not in the queue.
    leaving: BTreeMap<u64, Entry>,
    /// Messages that have come back and wait before they are delivered again, by when that is over.
    retrying: BTreeMap<(u64, u64), Entry>,
    /// When it is to be looked who has not acknowledged a message in time.
    timeouts_at: Option<u64>,
    /// The queue is about to go: what is left becomes dead letters first.
    closing: bool,
    now: u64,
    /// Who waits for the first message to be read, the longest first.
    getters: VecDeque<Getter>,
    consumers: Consumers,
    /// Who handles the messages of which group.
    groups: Option<Box<Groups>>,
    /// The keys of messages that it had lately, if it drops duplicates.
    dedup: Option<Box<DedupCache>>,
    /// All that is resident is for consumers that cannot take it now, and others could.
    is_starving: bool,
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
            leaving: BTreeMap::new(),
            retrying: BTreeMap::new(),
            timeouts_at: None,
            closing: false,
            now,
            getters: VecDeque::new(),
            consumers: Consumers::new(
                options.settings.single_active_consumer,
                options.settings.kind == QueueKind::Quorum,
            ),
            // A single consumer gets everything in order as it is.
            groups: (options.settings.group_header.is_some() && !options.settings.single_active_consumer)
                .then(|| Box::new(Groups::new())),
            dedup: options.settings.dedup.as_ref().map(|dedup| Box::new(DedupCache::new(dedup.size))),
            is_starving: false,
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
            if restored.has_expirations {
                queue.ready.scan(level.priority, restored.next_seq);
            }
        }
        queue.next_seq = restored.next_seq;
        queue.undelivered_from = restored.redelivered_below;
        queue.redelivered_below = restored.redelivered_below;
        queue
    }

    /// Takes back the keys that were stored, in any order. Returns those that need to be stored no more.
    #[must_use]
    pub fn restore_keys(&mut self, keys: Vec<StoredKey>) -> Vec<u128> {
        let Some(dedup) = &mut self.dedup else { return keys.iter().map(|key| key.hash).collect() };
        let mut gone = Vec::new();
        dedup.restore(self.now, keys, |hash| gone.push(hash));
        gone
    }

    /// The keys that are stored.
    pub fn stored_keys(&self) -> impl Iterator<Item = u128> + '_ {
        self.dedup.iter().flat_map(|dedup| dedup.stored())
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

    /// The channels that unacked messages were delivered to, one for each message.
    pub fn unacked_channels(&self) -> impl Iterator<Item = (ConnectionId, ChannelId)> + '_ {
        self.unacked.iter().map(|(_, unacked)| (unacked.connection, unacked.channel))
    }

    /// The consumer that gets all messages, if there is only to be one.
    #[must_use]
    pub fn single_active(&self) -> Option<(ConnectionId, ConsumerId)> {
        self.consumers.active()
    }

    /// Number of consumers.
    #[must_use]
    pub fn consumers_len(&self) -> usize {
        self.consumers.len()
    }

    /// Memory taken by ready and unacked messages, in bytes, by estimate. A message in several queues is
    /// counted in each, and one that is paged out in none. The keys of messages that it had count as well.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.ready.memory() + self.unacked_memory + self.dedup.as_ref().map_or(0, |dedup| dedup.memory())
    }

    /// When [`Command::Tick`] is to be applied, in milliseconds, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let unused = match self.options.settings.expires_ms {
            Some(expires) if self.consumers.is_empty() => Some(self.last_used.saturating_add(expires)),
            _ => None,
        };
        let oldest =
            self.options.settings.message_ttl_ms.and_then(|ttl| self.ready.oldest()?.checked_add(ttl));
        let retry = self.retrying.first_key_value().map(|((at, _), _)| *at);
        [self.ready.next_due(), oldest, unused, retry, self.timeouts_at].into_iter().flatten().min()
    }

    /// Applies a command at `now` milliseconds; what follows goes to `effects`.
    pub fn apply(&mut self, now: u64, command: Command, effects: &mut impl Effects) {
        self.now = now;
        self.ready.set_time(now);
        self.expire(effects);
        match command {
            Command::Publish(publish) => self.publish(now, publish, effects),
            Command::Settle { connection, channel, range, settle } => {
                self.settle(connection, channel, range, settle, effects);
                self.expire(effects);
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
            Command::Revoke { connection, consumer } => self.revoke(connection, consumer, effects),
            // Quorum queues do not know it.
            Command::Limit { .. } if self.options.settings.kind == QueueKind::Quorum => {}
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
            Command::Loaded { priority, messages, end } => self.loaded(priority, messages, end, effects),
            Command::Scanned { priority, expirations, last } => {
                self.ready.scanned(priority, &expirations, last);
            }
            Command::Fetched { priority, asked, messages } => {
                self.fetched(priority, &asked, messages, effects)
            }
            Command::Close { asked_by } => {
                self.end_consumers(asked_by, effects);
                self.close(effects);
            }
            Command::Take { chosen, fate } => self.take(chosen, fate, effects),
            Command::Moved { seq, taken } => self.moved(seq, taken, effects),
            Command::Delete { asked_by, if_unused, if_empty } => {
                self.delete(asked_by, if_unused, if_empty, effects);
            }
            Command::Gone { connection, channel } => self.gone(now, connection, channel, effects),
            Command::Configure(settings) => self.configure(*settings, effects),
            Command::Tick => self.tick(effects),
        }
        // What may not wait at all and found no taker expires in the turn in which it came.
        self.expire(effects);
        if self.closing {
            self.bury_all(effects);
        }
        self.ask_store(effects);
    }

    /// Asks for messages that are paged out as far as they will be wanted soon.
    fn ask_store(&mut self, effects: &mut impl Effects) {
        if self.ready.is_resident() && self.burying.is_empty() {
            return;
        }
        let wanted = !self.getters.is_empty()
            || (!self.options.settings.paused && self.consumers.any_can_take())
            || self.is_too_long()
            || self.closing;
        let wanted = match wanted {
            true if self.is_starving => Wanted::Others,
            true => Wanted::Next,
            false => Wanted::Nothing,
        };
        let mut requests = Vec::new();
        self.ready.requests(wanted, effects.room(), &mut requests);
        for request in requests {
            match request {
                Request::Load { priority, after, bytes } => effects.load(priority, after, bytes),
                Request::Fetch { priority, seqs } => effects.fetch(priority, &seqs),
                Request::Scan { priority, after, bytes } => effects.scan(priority, after, bytes),
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

    fn loaded(&mut self, priority: u8, messages: Vec<StoredMessage>, end: bool, effects: &mut impl Effects) {
        let entry = |stored: StoredMessage| self.restored_entry(priority, stored, effects);
        // What is to be buried, or on its way elsewhere, was ready no more when it was read.
        let is_ready = |stored: &StoredMessage| {
            !self.burying.contains_key(&stored.seq) && !self.leaving.contains_key(&stored.seq)
        };
        let entries = messages.into_iter().filter(is_ready).map(entry).collect();
        self.ready.loaded(priority, entries, end);
        self.expire(effects);
        self.serve(effects);
        self.drop_head(effects);
    }

    fn fetched(
        &mut self,
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
                    let left = Entry { message: None, ..entry.clone() };
                    if self.bury(Entry { message: Some(message), ..entry }, reason, effects) {
                        self.leaving.insert(*seq, left);
                    }
                }
                (Some((entry, _)), None) => effects.forget(entry.forgotten()),
                (None, message) => self.ready.fetched(priority, *seq, message),
            }
        }
        self.ready.fetch_ended(priority);
        self.expire(effects);
        self.serve(effects);
        self.drop_head(effects);
    }

    /// A message in its place that the store has.
    fn restored_entry(&self, priority: u8, stored: StoredMessage, effects: &impl Effects) -> Entry {
        Entry {
            priority,
            stored: true,
            persistent: stored.persistent,
            redelivered: stored.seq < self.redelivered_below,
            ..self.entry(stored.seq, stored.at, stored.message, effects)
        }
    }

    /// A message in its place, neither stored nor delivered yet.
    fn entry(&self, seq: u64, at: u64, message: Message, effects: &impl Effects) -> Entry {
        // A quorum queue stores everything, whatever the publisher asked for (features.md U1).
        let kind = self.options.settings.kind;
        let persistent = message.is_persistent() || kind == QueueKind::Quorum;
        let ttl = match kind {
            QueueKind::Gate => Some(effects.delay_ms(&message)),
            QueueKind::Classic | QueueKind::Quorum => message.expiration_ms(),
        };
        Entry {
            seq,
            at,
            expires_at: ttl.map_or(NEVER, |ttl| at.saturating_add(ttl)),
            body_len: u32::try_from(message.body_len()).unwrap_or(u32::MAX),
            priority: self.priority_of(&message),
            bucket: self.bucket_of(&message, effects),
            redelivered: false,
            failed: 0,
            acquired: 0,
            stored: false,
            persistent: persistent && self.options.durable,
            message: Some(message),
        }
    }

    fn bucket_of(&self, message: &Message, effects: &impl Effects) -> u16 {
        match &self.options.settings.group_header {
            Some(header) if self.groups.is_some() => Groups::bucket(effects.group(message, header)),
            _ => NO_BUCKET,
        }
    }

    /// The priority that the queue gives a message.
    fn priority_of(&self, message: &Message) -> u8 {
        let settings = &self.options.settings;
        match settings.kind {
            // Order within a group comes first.
            _ if settings.group_header.is_some() => 0,
            // The default of 4, and what is below, is one level, so that most queues have no other.
            QueueKind::Quorum if message.priority() <= QUORUM_PRIORITY_DEFAULT => 0,
            QueueKind::Quorum => message.priority().min(QUORUM_PRIORITY_MAX),
            QueueKind::Classic | QueueKind::Gate => message.priority().min(settings.max_priority),
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
        let key = self.key_of(&publish.message, effects);
        if let (Some(key), Some(dedup)) = (key, &self.dedup)
            && dedup.contains(now, key.hash)
        {
            self.drop_duplicate(&publish, effects);
            return;
        }
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
        let mut entry = self.entry(self.next_seq, now, message, effects);
        self.next_seq += 1;
        // Most messages of a queue that keeps up never wait in it.
        let taker = if self.ready.is_empty() { self.taker_of(&entry) } else { None };
        // Somebody who acknowledges nothing may have it before it is stored at all.
        let stored = entry.persistent && !taker.is_some_and(|taker| taker.no_ack);
        let paged = taker.is_none() && self.is_full(&entry, effects);
        if stored || paged {
            Self::store(&mut entry, effects);
        }
        // Its key is stored all the same: whoever was told that it was taken does not send it again.
        let durable = stored || (entry.persistent && key.is_some());
        if let Some(key) = key {
            self.remember(key, entry.persistent, effects);
        }
        if let Tracking::Confirm(number) = tracking {
            effects.accepted(connection, channel, number, durable);
        }
        match taker {
            Some(taker) => {
                self.ready.pass(&entry);
                self.deliver(taker, entry, effects);
            }
            None if paged => self.ready.page_out(&entry),
            None => {
                self.ready.push(entry);
                self.dispatch(effects);
            }
        }
        self.drop_head(effects);
    }

    /// The key of a message, if the queue drops duplicates and it has one.
    fn key_of(&self, message: &Message, effects: &impl Effects) -> Option<DedupKey> {
        let dedup = self.options.settings.dedup.as_ref()?;
        effects.dedup_key(message, &dedup.header)
    }

    /// The queue had the message already: its publisher is told the same again, and not before that is durable.
    fn drop_duplicate(&self, publish: &Publish, effects: &mut impl Effects) {
        let Publish { connection, channel, tracking, .. } = *publish;
        match tracking {
            Tracking::None => {}
            Tracking::Confirm(number) => {
                effects.accepted(connection, channel, number, self.options.durable);
                effects.await_keys();
            }
            Tracking::Immediate(number) => effects.immediate(connection, channel, number, true),
        }
    }

    /// Remembers the key of a message that the queue takes, on disk if the message survives a restart.
    fn remember(&mut self, key: DedupKey, is_stored: bool, effects: &mut impl Effects) {
        let (Some(cache), Some(dedup)) = (&mut self.dedup, &self.options.settings.dedup) else { return };
        let gone = |hash| effects.forget_key(hash);
        let stored = cache.insert(self.now, key, dedup.ttl_ms, is_stored, gone);
        if is_stored {
            effects.remember(stored);
        }
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
    #[inline]
    fn expire(&mut self, effects: &mut impl Effects) {
        if self.ready.may_expire() || self.options.settings.message_ttl_ms.is_some() {
            self.expire_all(effects);
        }
    }

    fn expire_all(&mut self, effects: &mut impl Effects) {
        // Who came back to its place may be due twice.
        while let Some(entry) = self.ready.pop_due(|priority, seq| {
            !self.burying.contains_key(&seq)
                && !self.leaving.contains_key(&seq)
                && effects.is_stored(priority, seq)
        }) {
            self.bury(entry, DeathReason::Expired, effects);
        }
        let Some(ttl) = self.options.settings.message_ttl_ms else { return };
        let Some(up_to) = self.now.checked_sub(ttl) else { return };
        while let Some(entry) = self.ready.pop_older(up_to) {
            self.bury(entry, DeathReason::Expired, effects);
        }
    }

    /// A message that is not in the queue any more becomes a dead letter if there is a place for them. Returns whether
    /// it goes there and the store still has it.
    fn bury(&mut self, entry: Entry, reason: DeathReason, effects: &mut impl Effects) -> bool {
        let stored = entry.stored.then(|| entry.forgotten());
        let is_gate = self.options.settings.kind == QueueKind::Gate;
        let target = self.options.settings.dead_letter.as_ref().filter(|_| !is_gate);
        if target.is_none() && !is_gate {
            if let Some(stored) = stored {
                effects.forget(stored);
            }
            return false;
        }
        match (entry.message, target) {
            (Some(message), Some(target)) => effects.dead_letter(message, reason, target, stored),
            (Some(message), None) => effects.release(message, stored),
            (None, _) => {
                let entry = Entry { message: None, ..entry };
                self.burying.insert(entry.seq, (entry, reason));
                return false;
            }
        }
        stored.is_some()
    }

    /// Takes chosen messages out that are still ready.
    fn take(&mut self, chosen: Vec<(u8, StoredMessage)>, fate: Fate, effects: &mut impl Effects) {
        for (priority, stored) in chosen {
            let seq = stored.seq;
            let was_paged = self.ready.is_paged_out(priority, seq);
            // After a restart it may not be known yet when what is paged out expires.
            if was_paged && self.entry(seq, stored.at, stored.message.clone(), effects).expires_at <= self.now
            {
                continue;
            }
            if fate == Fate::Copy {
                if self.is_ready(priority, seq, |priority, seq| effects.is_stored(priority, seq)) {
                    effects.taken(seq);
                }
                continue;
            }
            let body_len = u32::try_from(stored.message.body_len()).unwrap_or(u32::MAX);
            let item = Item { at: NEVER, seq, priority, persistent: stored.persistent, body_len };
            let Self { ready, burying, leaving, .. } = self;
            let is_there = || {
                !burying.contains_key(&seq) && !leaving.contains_key(&seq) && effects.is_stored(priority, seq)
            };
            let Some(entry) = ready.take_chosen(&item, is_there) else { continue };
            match fate {
                Fate::Move if was_paged => {
                    let entry = self.restored_entry(priority, stored, effects);
                    self.leaving.insert(seq, entry);
                }
                Fate::Move => {
                    self.leaving.insert(seq, Entry { message: Some(stored.message), ..entry });
                }
                Fate::Delete | Fate::Copy => Self::consumed(&entry, effects),
            }
            effects.taken(seq);
        }
        self.serve(effects);
    }

    /// A message that was to be moved is safe elsewhere, or comes back.
    fn moved(&mut self, seq: u64, taken: bool, effects: &mut impl Effects) {
        let Some(entry) = self.leaving.remove(&seq) else { return };
        if taken {
            Self::consumed(&entry, effects);
            return;
        }
        self.ready.put_in_place(entry);
        self.expire(effects);
        self.drop_head(effects);
        self.serve(effects);
    }

    /// A dead letter has arrived, and the store has forgotten it.
    pub fn forgotten(&mut self, gone: &Forgotten) {
        if !self.leaving.is_empty() {
            self.leaving.remove(&gone.seq);
        }
    }

    // ---- what operators see ------------------------------------------------------------------------------

    /// The number of the next message that comes.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The highest priority that has ready messages, of those up to one.
    #[must_use]
    pub fn priority_up_to(&self, most: u8) -> Option<u8> {
        self.ready.priority_up_to(most)
    }

    /// The ready messages of a priority behind a number that are not paged out, in the order of their numbers. Some may
    /// be without their contents.
    pub fn browse(&self, priority: u8, after: Option<u64>) -> impl Iterator<Item = Browsed> + '_ {
        self.ready.behind(priority, after).map(|entry| self.browsed(entry))
    }

    /// Behind which number ready messages of a priority are paged out, if any are.
    #[must_use]
    pub fn paged_behind(&self, priority: u8) -> Option<Option<u64>> {
        self.ready.paged_behind(priority)
    }

    /// Whether a message is ready; `is_stored` tells by priority and number what the store has.
    pub fn is_ready(&self, priority: u8, seq: u64, is_stored: impl FnOnce(u8, u64) -> bool) -> bool {
        self.ready.get(priority, seq).is_some()
            || (self.ready.is_paged_out(priority, seq)
                && !self.burying.contains_key(&seq)
                && !self.leaving.contains_key(&seq)
                && is_stored(priority, seq))
    }

    /// A ready message that is not paged out.
    #[must_use]
    pub fn look_at(&self, priority: u8, seq: u64) -> Option<Browsed> {
        self.ready.get(priority, seq).map(|entry| self.browsed(entry))
    }

    /// A ready message that is paged out as an operator sees it; by itself it expires after `ttl_ms`.
    #[must_use]
    pub fn look_at_paged(&self, priority: u8, stored: StoredMessage, ttl_ms: Option<u64>) -> Browsed {
        let StoredMessage { seq, at, persistent, message } = stored;
        Browsed {
            priority,
            seq,
            at,
            expires_at: self.expiration(at, ttl_ms.map_or(NEVER, |ttl| at.saturating_add(ttl))),
            redelivered: seq < self.redelivered_below,
            failed: 0,
            acquired: 0,
            persistent,
            body_len: u32::try_from(message.body_len()).unwrap_or(u32::MAX),
            message: Some(message),
        }
    }

    fn browsed(&self, entry: &Entry) -> Browsed {
        let &Entry {
            seq, at, expires_at, body_len, priority, redelivered, failed, acquired, persistent, ..
        } = entry;
        Browsed {
            priority,
            seq,
            at,
            expires_at: self.expiration(at, expires_at),
            redelivered,
            failed,
            acquired,
            persistent,
            body_len,
            message: entry.message.clone(),
        }
    }

    /// When a message expires by itself or by the queue's own limit.
    fn expiration(&self, at: u64, own: u64) -> Option<u64> {
        let ttl = self.options.settings.message_ttl_ms.map_or(NEVER, |ttl| at.saturating_add(ttl));
        Some(own.min(ttl)).filter(|expires_at| *expires_at != NEVER)
    }

    /// Whether the queue would refuse a new message because it is full.
    #[must_use]
    pub fn would_refuse(&self, message: &Message) -> bool {
        self.refuses(message)
    }

    /// A message has reached somebody for good.
    fn consumed(entry: &Entry, effects: &mut impl Effects) {
        if entry.stored {
            effects.forget(entry.forgotten());
        }
    }

    fn tick(&mut self, effects: &mut impl Effects) {
        self.take_from_slow_consumers(effects);
        self.retry(effects);
        if let Some(expires) = self.options.settings.expires_ms
            && self.consumers.is_empty()
            && self.last_used.saturating_add(expires) <= self.now
        {
            self.close(effects);
        }
    }

    /// Puts messages back whose wait is over.
    fn retry(&mut self, effects: &mut impl Effects) {
        while let Some(first) = self.retrying.first_entry()
            && first.key().0 <= self.now
        {
            self.ready.put_back(first.remove());
        }
        // What came back, here or from a slow consumer, may have waited too long by now.
        self.expire(effects);
        self.drop_head(effects);
        self.dispatch(effects);
    }

    /// Ends the consumers that have not acknowledged a message in time, and takes their messages back.
    fn take_from_slow_consumers(&mut self, effects: &mut impl Effects) {
        if self.timeouts_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.timeouts_at = None;
        let mut slow: Vec<(ConnectionId, ConsumerId, u64)> = Vec::new();
        for (_, unacked) in self.unacked.iter() {
            let Some(consumer) = unacked.consumer else { continue };
            let own = self.consumers.get(unacked.connection, consumer).and_then(|found| found.timeout_ms);
            let Some(timeout) = own.or(self.options.settings.consumer_timeout_ms) else { continue };
            let at = unacked.at.saturating_add(timeout);
            if at > self.now {
                self.timeouts_at = Some(self.timeouts_at.map_or(at, |earliest| earliest.min(at)));
            } else if !slow.iter().any(|(c, id, _)| (*c, *id) == (unacked.connection, consumer)) {
                slow.push((unacked.connection, consumer, timeout));
            }
        }
        for (connection, consumer, timeout) in slow {
            self.take_back(
                |unacked| unacked.connection == connection && unacked.consumer == Some(consumer),
                false,
                effects,
            );
            let is_it = |c: &NewConsumer| c.connection == connection && c.consumer == consumer;
            for gone in self.remove_consumers(self.now, is_it, effects) {
                effects.consumer_timed_out(connection, gone.channel, consumer, timeout);
            }
        }
    }

    /// Notes that a message was delivered, which is to be acknowledged in time: the consumer's own, if it has one.
    fn watch(&mut self, own_ms: Option<u64>) {
        if let Some(timeout) = own_ms.or(self.options.settings.consumer_timeout_ms) {
            let at = self.now.saturating_add(timeout);
            self.timeouts_at = Some(self.timeouts_at.map_or(at, |earliest| earliest.min(at)));
        }
    }

    fn configure(&mut self, settings: Settings, effects: &mut impl Effects) {
        let before = std::mem::replace(&mut self.options.settings, settings);
        // A queue that was idle for long does not go the moment it hears of it.
        if self.options.settings.expires_ms != before.expires_ms {
            self.last_used = self.now;
        }
        if let (Some(cache), Some(dedup)) = (&mut self.dedup, &self.options.settings.dedup) {
            cache.resize(self.now, dedup.size, |hash| effects.forget_key(hash));
        }
        // What was delivered before counts from now on.
        if self.options.settings.consumer_timeout_ms != before.consumer_timeout_ms {
            self.timeouts_at = (!self.unacked.is_empty()).then_some(self.now + 1);
        }
        self.expire(effects);
        self.drop_head(effects);
        self.dispatch(effects);
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
        if self.groups.is_some() {
            self.dispatch_groups(effects);
            return;
        }
        while let Some(memory) = self.ready.next_memory()
            && let Some(taker) = self.next_taker(memory)
            && let Some(entry) = self.ready.pop()
        {
            self.deliver(taker, entry, effects);
        }
    }

    /// The same if messages belong to groups: those whose consumer can take none wait, and others pass them.
    fn dispatch_groups(&mut self, effects: &mut impl Effects) {
        let mut waiting = Waiting::default();
        let mut place = None;
        let mut looked_at = 0;
        self.is_starving = false;
        while looked_at < LOOKED_AT_MAX && self.consumers.any_can_take() {
            let Some((next, entry)) = self.ready.next_behind(place) else {
                self.is_starving = looked_at > 0;
                return;
            };
            looked_at += 1;
            place = Some(next);
            let (bucket, is_resident, memory) = (entry.bucket, entry.message.is_some(), entry.memory());
            if waiting.contains(bucket) {
                continue;
            }
            let taker = if is_resident { self.taker_in(bucket, memory) } else { None };
            match taker.and_then(|taker| Some((taker, self.ready.take(next)?))) {
                Some((taker, entry)) => self.deliver(taker, entry, effects),
                None => waiting.insert(bucket),
            }
        }
    }

    /// Who takes a message.
    fn taker_of(&mut self, entry: &Entry) -> Option<Taker> {
        match self.groups {
            None => self.next_taker(entry.memory()),
            Some(_) => self.taker_in(entry.bucket, entry.memory()),
        }
    }

    /// The consumer that takes a message of a group, which has so many bytes.
    fn taker_in(&mut self, bucket: u16, memory: usize) -> Option<Taker> {
        let choice = self.groups.as_ref().map_or(Choice::Anyone, |groups| groups.choice(bucket));
        if self.options.settings.paused || !self.getters.is_empty() {
            return None;
        }
        let queue = self.options.queue;
        let chosen = match choice {
            Choice::Nobody => None,
            Choice::Anyone => self.consumers.next(queue),
            Choice::Only(owner) => self.consumers.this(owner, queue),
            Choice::Rather(consumer) if self.consumers.can_take(consumer) => {
                self.consumers.this(consumer, queue)
            }
            Choice::Rather(_) => self.consumers.next(queue),
        };
        chosen.map(|consumer| consumer.take(memory))
    }

    /// The consumer that takes the next message, which has so many bytes.
    fn next_taker(&mut self, memory: usize) -> Option<Taker> {
        // The first message may still have to be read, and then it goes to whoever waits for it longest.
        if !self.getters.is_empty() || self.options.settings.paused {
            return None;
        }
        self.consumers.next(self.options.queue).map(|consumer| consumer.take(memory))
    }

    /// Hands a resident message out.
    fn deliver(&mut self, taker: Taker, mut entry: Entry, effects: &mut impl Effects) {
        let Taker { connection, channel, consumer, no_ack, limited, timeout_ms } = taker;
        let message = if no_ack { entry.message.take() } else { entry.message.clone() };
        let Some(mut message) = message else { return };
        if entry.redelivered {
            message = self.told_apart(&entry, message, effects);
        }
        let (id, redelivered) = (self.next_delivery(&entry), entry.redelivered);
        if let Some(groups) = &mut self.groups {
            groups.taken(entry.bucket, Some((connection, consumer)), !no_ack);
        }
        if no_ack {
            Self::consumed(&entry, effects);
        } else {
            entry.acquired = entry.acquired.saturating_add(1);
            self.hold(id, Unacked { entry, connection, channel, consumer: Some(consumer), at: self.now });
            self.watch(timeout_ms);
        }
        let queue = self.options.queue;
        effects.deliver(connection, Delivery { channel, consumer, queue, id, redelivered, limited, message });
    }

    /// A message as it is delivered again: quorum queues tell how often that was.
    fn told_apart(&self, entry: &Entry, message: Message, effects: &impl Effects) -> Message {
        match self.options.settings.kind {
            QueueKind::Quorum if entry.acquired > 0 => {
                effects.with_counts(&message, entry.failed.into(), entry.acquired.into())
            }
            _ => message,
        }
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
        if let Some(groups) = &mut self.groups {
            groups.settled(unacked.entry.bucket);
        }
        self.unacked_memory -= unacked.entry.memory();
        Some(unacked)
    }

    fn get(&mut self, getter: Getter, effects: &mut impl Effects) {
        let Getter { connection, channel, no_ack } = getter;
        if self.options.settings.kind == QueueKind::Quorum && self.options.settings.single_active_consumer {
            let refusal = AmqpError::resource_locked(format!(
                "cannot obtain access to locked {}. basic.get operations are not supported by quorum queues with \
                 single active consumer",
                self.label()
            ));
            effects.reply(connection, channel, Err(refusal));
            return;
        }
        if self.options.settings.paused || self.closing {
            effects.reply(connection, channel, Ok(Reply::Got(None)));
            return;
        }
        let popped = match self.groups {
            _ if !self.getters.is_empty() => None,
            None => self.ready.pop(),
            Some(_) => {
                let idle = self.pop_idle();
                // What is resident but cannot be fetched now is as good as nothing.
                if idle.is_none() && self.ready.next_behind(None).is_some() {
                    effects.reply(connection, channel, Ok(Reply::Got(None)));
                    return;
                }
                idle
            }
        };
        let Some((mut message, mut entry)) = popped.and_then(|entry| Some((entry.message.clone()?, entry)))
        else {
            if self.ready.is_empty() {
                effects.reply(connection, channel, Ok(Reply::Got(None)));
            } else {
                self.getters.push_back(getter);
            }
            return;
        };
        if entry.redelivered {
            message = self.told_apart(&entry, message, effects);
        }
        entry.acquired = entry.acquired.saturating_add(1);
        if let Some(groups) = &mut self.groups {
            groups.taken(entry.bucket, None, !no_ack);
        }
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
            self.hold(id, Unacked { entry, connection, channel, consumer: None, at: self.now });
        }
        effects.reply(connection, channel, Ok(Reply::Got(Some(got))));
    }

    /// Takes the first resident message whose group nobody is busy with.
    fn pop_idle(&mut self) -> Option<Entry> {
        let groups = self.groups.as_ref()?;
        let mut place = None;
        for _ in 0..LOOKED_AT_MAX {
            let (next, entry) = self.ready.next_behind(place)?;
            if entry.message.is_some() && groups.is_idle(entry.bucket) {
                return self.ready.take(next);
            }
            place = Some(next);
        }
        None
    }

    fn consume(&mut self, mut new: NewConsumer, effects: &mut impl Effects) {
        if let Err(refusal) = self.check_consumer(&new) {
            effects.reply(new.connection, new.channel, Err(refusal));
            return;
        }
        if self.options.settings.kind == QueueKind::Quorum {
            new.limit = None;
        }
        effects.reply(new.connection, new.channel, Ok(Reply::Consuming));
        if let Some(groups) = &mut self.groups {
            groups.joined((new.connection, new.consumer));
        }
        self.consumers.add(new);
        self.dispatch(effects);
    }

    fn check_consumer(&self, new: &NewConsumer) -> Result<(), AmqpError> {
        if self.options.settings.kind == QueueKind::Quorum {
            // They do not know exclusive consumers, and take the flag for nothing.
            return match &new.limit {
                Some(limit) if limit.is_active() => {
                    Err(AmqpError::not_implemented(format!("{} does not support global qos", self.label())))
                }
                _ => Ok(()),
            };
        }
        let in_use = match new.exclusive {
            true => !self.consumers.is_empty() || self.consumers.is_single_active(),
            false => self.consumers.has_exclusive(),
        };
        match in_use {
            true => Err(AmqpError::access_refused(format!("{} in exclusive use", self.label()))),
            false => Ok(()),
        }
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
                Settle::Reject => drop(self.bury(unacked.entry, DeathReason::Rejected, effects)),
                Settle::Requeue { failed } => self.put_back(unacked.entry, failed, effects),
            }
        }
        self.drop_head(effects);
        if let Some((consumer, count)) = settled {
            self.consumers.update(connection, consumer, |c| c.settled(count));
        }
    }

    /// Takes a message back that was delivered, `failed` if its consumer did not get along with it.
    fn put_back(&mut self, mut entry: Entry, failed: bool, effects: &mut impl Effects) {
        entry.redelivered = true;
        entry.failed = entry.failed.saturating_add(failed.into());
        if entry.expires_at <= self.now {
            self.bury(entry, DeathReason::Expired, effects);
            return;
        }
        let settings = &self.options.settings;
        if settings.delivery_limit.is_some_and(|limit| u32::from(entry.failed) > limit) {
            self.bury(entry, DeathReason::DeliveryLimit, effects);
            return;
        }
        // A message that waits would be passed by those of its group.
        let retry = settings.retry.filter(|retry| {
            self.groups.is_none()
                && match retry.of {
                    RetryOf::All => true,
                    RetryOf::Failed => failed,
                    RetryOf::Returned => !failed,
                }
        });
        match retry {
            Some(retry) => {
                let times = u64::from(if failed { entry.failed } else { entry.acquired }).max(1);
                let wait = retry.min_ms.saturating_mul(times).min(retry.max_ms);
                self.retrying.insert((self.now.saturating_add(wait), entry.seq), entry);
            }
            None => self.ready.put_back(entry),
        }
    }

    /// Takes deliveries back.
    fn take_back(&mut self, which: impl Fn(&Unacked) -> bool, failed: bool, effects: &mut impl Effects) {
        let ids: Vec<u64> =
            (self.unacked.iter()).filter(|(_, unacked)| which(unacked)).map(|(id, _)| id).collect();
        for id in ids {
            if let Some(unacked) = self.release(id) {
                self.put_back(unacked.entry, failed, effects);
            }
        }
    }

    fn purge(&mut self, effects: &mut impl Effects) -> u32 {
        let purged = self.ready_count();
        let last = self.next_seq.checked_sub(1);
        for priority in self.ready.stored_priorities() {
            let unacked = self.unacked.iter().map(|(_, unacked)| &unacked.entry);
            let kept = unacked.chain(self.burying.values().map(|(entry, _)| entry));
            let kept = kept.chain(self.retrying.values()).chain(self.leaving.values());
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
        if let Err(refusal) = self.check_deletion(if_unused, if_empty) {
            if let Some((connection, channel)) = asked_by {
                effects.reply(connection, channel, Err(refusal));
            }
            return;
        }
        self.end_consumers(asked_by, effects);
        self.discard(effects);
    }

    /// The queue is about to go: tells its consumers, and whoever asked for it.
    fn end_consumers(&mut self, asked_by: Option<(ConnectionId, ChannelId)>, effects: &mut impl Effects) {
        for consumer in self.consumers.remove(|_| true) {
            effects.consumer_cancelled(consumer.connection, consumer.channel, consumer.consumer);
        }
        if let Some((connection, channel)) = asked_by {
            effects.reply(connection, channel, Ok(Reply::QueueDeleted(self.ready_count())));
        }
    }

    fn check_deletion(&self, if_unused: bool, if_empty: bool) -> Result<(), AmqpError> {
        if self.options.settings.kind == QueueKind::Quorum {
            let flags = [("if-unused", if_unused), ("if-empty", if_empty)];
            return match flags.iter().find(|(_, asked)| *asked) {
                Some((flag, _)) => Err(AmqpError::not_implemented(format!(
                    "cannot delete {}. queue.delete operations with {flag} flag set are not supported by quorum \
                     queues",
                    self.label()
                ))),
                None => Ok(()),
            };
        }
        let precondition = |state| Err(AmqpError::precondition_failed(format!("{} {state}", self.label())));
        if if_unused && !self.consumers.is_empty() {
            precondition("in use")
        } else if if_empty && !self.ready.is_empty() {
            precondition("not empty")
        } else {
            Ok(())
        }
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
        self.take_back(|unacked| is_gone(unacked.connection, unacked.channel), true, effects);
        self.getters.retain(|getter| !is_gone(getter.connection, getter.channel));
        self.expire(effects);
        self.drop_head(effects);
        self.remove_consumers(now, |c| is_gone(c.connection, c.channel), effects);
        self.dispatch(effects);
    }

    fn remove_consumers(
        &mut self,
        now: u64,
        gone: impl Fn(&NewConsumer) -> bool,
        effects: &mut impl Effects,
    ) -> Vec<NewConsumer> {
        let removed = self.consumers.remove(gone);
        if let Some(groups) = &mut self.groups {
            removed.iter().for_each(|consumer| groups.left((consumer.connection, consumer.consumer)));
        }
        if !removed.is_empty() && self.consumers.is_empty() {
            self.last_used = now;
            if self.options.auto_delete {
                self.close(effects);
            }
        }
        removed
    }

    /// Removes a consumer and tells it.
    fn revoke(&mut self, connection: ConnectionId, consumer: ConsumerId, effects: &mut impl Effects) {
        let is_it = |c: &NewConsumer| c.connection == connection && c.consumer == consumer;
        for gone in self.remove_consumers(self.now, is_it, effects) {
            effects.consumer_cancelled(gone.connection, gone.channel, gone.consumer);
        }
        self.dispatch(effects);
    }

    /// The queue goes by itself: at once, or when what is left has become dead letters.
    fn close(&mut self, effects: &mut impl Effects) {
        let settings = &self.options.settings;
        if !settings.dead_letter_on_delete || settings.dead_letter.is_none() {
            self.discard(effects);
            return;
        }
        self.closing = true;
        self.refuse_getters(effects);
        self.take_back(|_| true, false, effects);
        for (_, entry) in std::mem::take(&mut self.retrying) {
            self.ready.put_back(entry);
        }
    }

    fn bury_all(&mut self, effects: &mut impl Effects) {
        while let Some(entry) = self.ready.pop() {
            self.bury(entry, DeathReason::QueueDeleted, effects);
        }
        if self.ready.is_empty() && self.burying.is_empty() {
            self.discard(effects);
        }
    }

    fn discard(&mut self, effects: &mut impl Effects) {
        self.closing = false;
        self.ready.clear(None);
        self.refuse_getters(effects);
        self.unacked = Ledger::default();
        self.unacked_memory = 0;
        self.burying.clear();
        self.leaving.clear();
        self.retrying.clear();
        effects.deleted();
    }

    fn ready_count(&self) -> u32 {
        u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }

    fn label(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.options.name, self.options.vhost)
    }
}
