//! The effects of a queue's command: for connections, for the store, and for other queues.

use warren_queue::{DeadLetterTarget, DeathReason, Effects, Forgotten};
use warren_store::{QueueIndex, SharedBody, Store, Stored, Turn};
use warren_types::session::{Delivery, Event, Reply};
use warren_types::{AmqpError, ChannelId, ConnectionId, ConsumerId, Message, QueueRef};

use super::commands::Asked;
use super::connections::Connections;

/// A message that died, before it is known where it goes.
pub(super) struct Letter {
    pub message: Message,
    pub reason: DeathReason,
    pub target: DeadLetterTarget,
    pub stored: Option<Forgotten>,
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
    pub shared: Option<&'a SharedBody>,
    pub has_room: bool,
    pub letters: Vec<Letter>,
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
        self.letters.push(Letter { message, reason, target: target.clone(), stored });
    }

    fn immediate(&mut self, connection: ConnectionId, channel: ChannelId, number: u64, taken: bool) {
        self.connections.event(connection, Event::Immediate { channel, number, taken });
    }

    fn consumer_cancelled(&mut self, connection: ConnectionId, channel: ChannelId, consumer: ConsumerId) {
        self.connections.event(connection, Event::ConsumerCancelled(channel, consumer));
    }

    fn deleted(&mut self) {
        self.deleted = true;
    }

    fn store(&mut self, seq: u64, priority: u8, at: u64, message: &Message, persistent: bool) {
        let (slot, shared) = (self.queue.slot, self.shared);
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

    fn room(&self) -> bool {
        self.has_room
    }
}
