//! The effects of a queue's command: for connections, for the store, and for other queues.

use warren_queue::{DeadLetterTarget, DeathReason, DedupKey, Effects, Forgotten, StoredKey};
use warren_store::{QueueIndex, SharedBody, Store, Stored, Turn};
use warren_types::session::{Delivery, Event, Reply};
use warren_types::{AmqpError, ChannelId, ConnectionId, ConsumerId, Message, QueueRef, ShortString};

use super::commands::Asked;
use super::connections::Connections;
use crate::dedup::{self, KeyChanges};
use crate::{delayed, delivery_counts, reroute};

/// A message that leaves its queue for others, before it is known which.
pub(super) struct Letter {
    pub message: Message,
    pub why: Why,
    pub stored: Option<Forgotten>,
}

/// Why a message leaves its queue for others.
pub(super) enum Why {
    /// It died, and there is a place for dead letters.
    Died(DeathReason, DeadLetterTarget),
    /// It was delayed, and is due.
    Due,
}

/// Messages that a queue asks the store for.
pub(super) struct Wanted {
    pub queue: QueueRef,
    pub priority: u8,
    pub asked: Asked,
}

/// Where the effects of one command go.
pub(super) struct Applied<'a> {
    pub queue: QueueRef,
    pub connections: &'a mut Connections,
    pub store: &'a Store,
    pub turn: &'a mut Turn,
    pub index: &'a mut QueueIndex,
    pub wanted: &'a mut Vec<Wanted>,
    pub keys: &'a mut KeyChanges,
    pub shared: Option<&'a SharedBody>,
    pub has_room: bool,
    /// A message that expires by itself is in the store.
    pub has_expirations: bool,
    pub letters: Vec<Letter>,
    /// Messages that an operator has chosen and that were ready.
    pub taken: &'a mut Vec<u64>,
    pub deleted: bool,
}

impl Effects for Applied<'_> {
    fn deliver(&mut self, connection: ConnectionId, delivery: Delivery) {
        self.connections.event(connection, Event::Deliver(delivery));
    }

    fn reply(&mut self, connection: ConnectionId, channel: ChannelId, reply: Result<Reply, AmqpError>) {
        self.connections.reply(connection, channel, reply);
    }

    fn accepted(&mut self, connection: ConnectionId, channel: ChannelId, number: u64, durable: bool) {
        self.connections.accepted(connection, channel, number, durable);
    }

    fn refused(&mut self, connection: ConnectionId, channel: ChannelId, number: u64) {
        let event = Event::Settled { channel, first: number, last: number, accepted: false };
        self.connections.event(connection, event);
    }

    fn dead_letter(
        &mut self,
        message: Message,
        reason: DeathReason,
        target: &DeadLetterTarget,
        stored: Option<Forgotten>,
    ) {
        self.letters.push(Letter { message, why: Why::Died(reason, target.clone()), stored });
    }

    fn release(&mut self, message: Message, stored: Option<Forgotten>) {
        self.letters.push(Letter { message, why: Why::Due, stored });
    }

    fn group(&self, message: &Message, header: &ShortString) -> Option<u64> {
        reroute::header_hash(message, header)
    }

    fn dedup_key(&self, message: &Message, header: &ShortString) -> Option<DedupKey> {
        dedup::key(message, header)
    }

    fn remember(&mut self, key: StoredKey) {
        self.keys.remember(self.queue.id, key);
    }

    fn forget_key(&mut self, hash: u128) {
        self.keys.forget(self.queue.id, hash);
    }

    fn await_keys(&mut self) {
        self.keys.await_all();
    }

    fn delay_ms(&self, message: &Message) -> u64 {
        delayed::delay_ms(message)
    }

    fn with_counts(&self, message: &Message, failed: u32, acquired: u32) -> Message {
        delivery_counts::written(message, failed, acquired)
    }

    fn immediate(&mut self, connection: ConnectionId, channel: ChannelId, number: u64, taken: bool) {
        self.connections.event(connection, Event::Immediate { channel, number, taken });
    }

    fn consumer_cancelled(&mut self, connection: ConnectionId, channel: ChannelId, consumer: ConsumerId) {
        self.connections.event(connection, Event::ConsumerCancelled(channel, consumer));
    }

    fn consumer_timed_out(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        consumer: ConsumerId,
        timeout_ms: u64,
    ) {
        self.connections.event(connection, Event::ConsumerTimedOut(channel, consumer, timeout_ms));
    }

    fn deleted(&mut self) {
        self.deleted = true;
    }

    fn store(&mut self, seq: u64, priority: u8, at: u64, message: &Message, persistent: bool) {
        let (slot, shared) = (self.queue.slot, self.shared);
        self.has_expirations |= persistent && message.expiration_ms().is_some();
        self.turn.store(
            self.store,
            self.index,
            Stored { slot, seq, priority, at, persistent, message, shared },
        );
    }

    fn forget(&mut self, gone: Forgotten) {
        let Forgotten { seq, priority, persistent, body_len } = gone;
        self.turn.forget(self.index, priority, seq, persistent, u64::from(body_len));
    }

    fn forget_all(&mut self, priority: u8, last: u64, except: &[u64]) {
        self.turn.forget_all(self.index, priority, last, except);
    }

    fn load(&mut self, priority: u8, after: Option<u64>, bytes: usize) {
        self.wanted.push(Wanted { queue: self.queue, priority, asked: Asked::Next { after, bytes } });
    }

    fn fetch(&mut self, priority: u8, seqs: &[u64]) {
        self.wanted.push(Wanted { queue: self.queue, priority, asked: Asked::These(seqs.to_vec()) });
    }

    fn scan(&mut self, priority: u8, after: Option<u64>, bytes: usize) {
        self.wanted.push(Wanted { queue: self.queue, priority, asked: Asked::Expirations { after, bytes } });
    }

    fn taken(&mut self, seq: u64) {
        self.taken.push(seq);
    }

    fn is_stored(&self, priority: u8, seq: u64) -> bool {
        self.index.has(priority, seq)
    }

    fn room(&self) -> bool {
        self.has_room
    }
}
