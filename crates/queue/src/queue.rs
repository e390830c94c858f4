use std::sync::Arc;

use warren_types::session::{Delivery, DeliveryRange, Got, QueueDeclared, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, DeliveryId, Ledger, Message, QueueRef, ShortString,
};

use crate::command::{Command, Effects, Getter, NewConsumer, Publish};
use crate::consumers::Consumers;
use crate::messages::{Entry, NEVER, Ready};
use crate::settings::{DeathReason, Overflow, Settings};

/// What a queue is declared with.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Where the queue lives.
    pub queue: QueueRef,
    /// Its name.
    pub name: ShortString,
    /// Its virtual host.
    pub vhost: Arc<str>,
    /// It goes when the last consumer goes.
    pub auto_delete: bool,
    /// What its arguments ask for.
    pub settings: Settings,
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
    consumers: Consumers,
    next_position: u64,
    next_delivery: u64,
    memory: usize,
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
            consumers: Consumers::new(options.settings.single_active_consumer),
            options,
            last_used: now,
            next_position: 0,
            next_delivery: 0,
            memory: 0,
        }
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
    /// counted in each.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory
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
            Command::Resume { connection, consumer, prefetch } => {
                self.consumers.update(connection, consumer, |c| c.resume(prefetch));
                self.dispatch(effects);
            }
            Command::Purge { connection, channel } => {
                let purged = self.purge();
                effects.reply(connection, channel, Ok(Reply::QueuePurged(purged)));
            }
            Command::Count { connection, channel } => {
                self.last_used = now;
                self.tell_count(connection, channel, effects);
            }
            Command::Delete { asked_by, if_unused, if_empty } => {
                self.delete(asked_by, if_unused, if_empty, effects);
            }
            Command::Gone { connection, channel } => self.gone(now, connection, channel, effects),
            Command::Tick => self.delete_if_unused_for_long(now, effects),
        }
        // What may not wait at all and found no taker expires in the turn in which it came.
        self.expire(now, effects);
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
            if self.options.settings.overflow == Overflow::RejectPublishDlx {
                self.bury(message, DeathReason::MaxLen, effects);
            }
            return;
        }
        match tracking {
            Tracking::None => {}
            Tracking::Confirm(number) => effects.accepted(connection, channel, number),
            Tracking::Immediate(number) => {
                let taken = self.ready.is_empty() && self.consumers.any_can_take();
                effects.immediate(connection, channel, number, taken);
                if !taken {
                    return;
                }
            }
        }
        self.memory += message.memory();
        let settings = &self.options.settings;
        let ttl = match (settings.message_ttl_ms, message.expiration_ms()) {
            (Some(queue), Some(message)) => Some(queue.min(message)),
            (queue, message) => queue.or(message),
        };
        let entry = Entry {
            position: self.next_position,
            expires_at: ttl.map_or(NEVER, |ttl| now.saturating_add(ttl)),
            priority: message.priority().min(settings.max_priority),
            redelivered: false,
            message,
        };
        self.ready.push(entry);
        self.next_position += 1;
        self.dispatch(effects);
        self.drop_head(effects);
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

    /// Drops the oldest messages while the queue is too long.
    fn drop_head(&mut self, effects: &mut impl Effects) {
        let settings = &self.options.settings;
        if settings.overflow != Overflow::DropHead {
            return;
        }
        let (max_length, max_bytes) = (settings.max_length, settings.max_length_bytes);
        while max_length.is_some_and(|max| self.ready.len() as u64 > max)
            || max_bytes.is_some_and(|max| self.ready.body_bytes() > max)
        {
            let Some(entry) = self.ready.pop_lowest() else { return };
            self.memory -= entry.message.memory();
            self.bury(entry.message, DeathReason::MaxLen, effects);
        }
    }

    /// Takes out what has waited too long.
    fn expire(&mut self, now: u64, effects: &mut impl Effects) {
        while let Some(entry) = self.ready.pop_expired(now) {
            self.memory -= entry.message.memory();
            self.bury(entry.message, DeathReason::Expired, effects);
        }
    }

    fn bury(&self, message: Message, reason: DeathReason, effects: &mut impl Effects) {
        if let Some(target) = &self.options.settings.dead_letter {
            effects.dead_letter(message, reason, target);
        }
    }

    fn delete_if_unused_for_long(&mut self, now: u64, effects: &mut impl Effects) {
        let Some(expires) = self.options.settings.expires_ms else { return };
        if self.consumers.is_empty() && self.last_used + expires <= now {
            self.discard(effects);
        }
    }

    /// Hands ready messages to consumers until either runs out.
    fn dispatch(&mut self, effects: &mut impl Effects) {
        while !self.ready.is_empty()
            && let Some(consumer) = self.consumers.next()
        {
            let Some(entry) = self.ready.pop() else { return };
            let delivery = Delivery {
                channel: consumer.channel(),
                consumer: consumer.new.consumer,
                queue: self.options.queue,
                id: DeliveryId(self.next_delivery),
                redelivered: entry.redelivered,
                message: entry.message.clone(),
            };
            self.next_delivery += 1;
            consumer.take(&delivery);
            let connection = consumer.new.connection;
            if consumer.new.no_ack {
                self.memory -= entry.message.memory();
            } else {
                let (channel, id) = (delivery.channel, delivery.consumer);
                let unacked = Unacked { entry, connection, channel, consumer: Some(id) };
                self.unacked.push(delivery.id.0, unacked);
            }
            effects.deliver(connection, delivery);
        }
    }

    fn get(&mut self, getter: Getter, effects: &mut impl Effects) {
        let got = self.ready.pop().map(|entry| {
            let id = DeliveryId(self.next_delivery);
            self.next_delivery += 1;
            let got = Got {
                queue: self.options.queue,
                id,
                redelivered: entry.redelivered,
                remaining: self.ready_count(),
                message: entry.message.clone(),
            };
            if getter.no_ack {
                self.memory -= entry.message.memory();
            } else {
                let Getter { connection, channel, .. } = getter;
                self.unacked.push(id.0, Unacked { entry, connection, channel, consumer: None });
            }
            got
        });
        effects.reply(getter.connection, getter.channel, Ok(Reply::Got(got)));
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
            let Some(unacked) = self.unacked.take(id) else { continue };
            match (unacked.consumer, &mut settled) {
                (Some(consumer), _) if settle == Settle::Refuse => {
                    let bytes = unacked.entry.message.memory();
                    self.consumers.update(connection, consumer, |c| c.refuse(bytes));
                }
                (Some(consumer), Some((same, count))) if *same == consumer => *count += 1,
                (Some(consumer), _) => {
                    if let Some((other, count)) = settled.replace((consumer, 1)) {
                        self.consumers.update(connection, other, |c| c.settled(count));
                    }
                }
                (None, _) => {}
            }
            match settle {
                Settle::Ack => self.memory -= unacked.entry.message.memory(),
                Settle::Reject => {
                    self.memory -= unacked.entry.message.memory();
                    self.bury(unacked.entry.message, DeathReason::Rejected, effects);
                }
                Settle::Requeue => self.put_back(unacked.entry, true),
                Settle::Refuse => self.put_back(unacked.entry, false),
            }
        }
        if settle == Settle::Requeue {
            self.drop_head(effects);
        }
        if let Some((consumer, count)) = settled {
            self.consumers.update(connection, consumer, |c| c.settled(count));
        }
    }

    fn put_back(&mut self, mut entry: Entry, delivered: bool) {
        entry.redelivered |= delivered;
        self.ready.put_back(entry);
    }

    fn purge(&mut self) -> u32 {
        let purged = self.ready_count();
        self.ready.clear();
        self.memory = self.unacked.iter().map(|(_, unacked)| unacked.entry.message.memory()).sum();
        purged
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
            if let Some(unacked) = self.unacked.take(id) {
                self.put_back(unacked.entry, true);
            }
        }
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
        self.ready.clear();
        self.unacked = Ledger::default();
        self.memory = 0;
        effects.deleted();
    }

    fn ready_count(&self) -> u32 {
        u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }

    fn label(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.options.name, self.options.vhost)
    }
}
