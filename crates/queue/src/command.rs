use std::sync::Arc;

use crate::dedup::{DedupKey, StoredKey};
use crate::settings::{DeadLetterTarget, DeathReason, Settings};
use warren_types::session::{Delivery, DeliveryRange, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ChannelLimit, ConnectionId, ConsumerId, Message, ShortString, StoredMessage,
};

/// What can be asked of a queue.
#[derive(Debug)]
pub enum Command {
    /// Take a message.
    Publish(Publish),
    /// Settle deliveries to this channel.
    Settle {
        /// Connection of the channel.
        connection: ConnectionId,
        /// Channel that got the deliveries.
        channel: ChannelId,
        /// Which of them.
        range: DeliveryRange,
        /// How.
        settle: Settle,
    },
    /// The connection's socket has taken so many bytes of the consumer's deliveries.
    Credit {
        /// Connection of the consumer.
        connection: ConnectionId,
        /// The consumer.
        consumer: ConsumerId,
        /// Bytes, as counted by [`Message::memory`].
        bytes: usize,
    },
    /// Fetch one message.
    Get(Getter),
    /// Add a consumer.
    Consume(Box<NewConsumer>),
    /// Remove a consumer; its unacked messages stay.
    Cancel {
        /// Connection of the consumer.
        connection: ConnectionId,
        /// Channel of the consumer.
        channel: ChannelId,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// Remove a consumer whose client may not have it any more, and tell it; its unacked messages stay.
    Revoke {
        /// Connection of the consumer.
        connection: ConnectionId,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// The consumer comes under its channel's limit.
    Limit {
        /// Connection of the consumer.
        connection: ConnectionId,
        /// The consumer.
        consumer: ConsumerId,
        /// The limit.
        limit: Arc<ChannelLimit>,
    },
    /// The channel's limit may have room for the consumer again.
    Resume {
        /// Connection of the consumer.
        connection: ConnectionId,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// Drop all ready messages.
    Purge {
        /// Who asks.
        connection: ConnectionId,
        /// Where the answer goes.
        channel: ChannelId,
    },
    /// Tell how many messages and consumers there are, in answer to `queue.declare`.
    Count {
        /// Who asks.
        connection: ConnectionId,
        /// Where the answer goes.
        channel: ChannelId,
    },
    /// Messages that were asked for with [`Effects::load`].
    Loaded {
        /// Their priority.
        priority: u8,
        /// In order, without those that are gone; at least one unless `end`.
        messages: Vec<StoredMessage>,
        /// There are no more.
        end: bool,
    },
    /// What was asked for with [`Effects::scan`].
    Scanned {
        /// The priority.
        priority: u8,
        /// The messages that expire by themselves, in rising order.
        expirations: Vec<Expiration>,
        /// The last message that was looked at; none if there are no more.
        last: Option<u64>,
    },
    /// Messages that were asked for with [`Effects::fetch`].
    Fetched {
        /// Their priority.
        priority: u8,
        /// The numbers asked for, in rising order.
        asked: Vec<u64>,
        /// Those that there are, in rising order.
        messages: Vec<StoredMessage>,
    },
    /// The queue goes with the connection that it belongs to: what is left may become dead letters first.
    Close {
        /// Who waits for it and where the answer goes.
        asked_by: Option<(ConnectionId, ChannelId)>,
    },
    /// Take these ready messages out, as an operator has chosen; what is not ready any more is left out.
    Take {
        /// Their priorities, and what they were when they were looked at.
        chosen: Vec<(u8, StoredMessage)>,
        /// What becomes of them.
        fate: Fate,
    },
    /// A message that was taken out to be moved is safe elsewhere, or nobody has taken it.
    Moved {
        /// Its number in the queue.
        seq: u64,
        /// Whether somebody has taken it; if not, it comes back to its place.
        taken: bool,
    },
    /// Delete the queue.
    Delete {
        /// Who asks and where the answer goes.
        asked_by: Option<(ConnectionId, ChannelId)>,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
    },
    /// What the queue is asked for has changed. What never changes must be the same.
    Configure(Box<Settings>),
    /// Nothing but that time has passed.
    Tick,
    /// A channel, or the whole connection, is gone.
    Gone {
        /// The connection.
        connection: ConnectionId,
        /// The channel, if only that.
        channel: Option<ChannelId>,
    },
}

/// What becomes of ready messages that an operator has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are gone.
    Delete,
    /// They are nobody's until [`Command::Moved`] tells how it went.
    Move,
    /// They stay; others get the same.
    Copy,
}

/// A ready message as an operator sees it.
#[derive(Debug, Clone)]
pub struct Browsed {
    /// Its priority.
    pub priority: u8,
    /// Its number in the queue.
    pub seq: u64,
    /// When it came, in milliseconds of the queue's clock.
    pub at: u64,
    /// When it expires, or is due if it is held back, in milliseconds of the queue's clock.
    pub expires_at: Option<u64>,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// How often its delivery failed.
    pub failed: u16,
    /// How often it was delivered since the broker was started.
    pub acquired: u16,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// Bytes of its body.
    pub body_len: u32,
    /// The message; none while only the store has it.
    pub message: Option<Message>,
}

/// A message and who published it.
#[derive(Debug)]
pub struct Publish {
    /// Connection of the publisher.
    pub connection: ConnectionId,
    /// Channel of the publisher.
    pub channel: ChannelId,
    /// What the publisher wants to hear of it.
    pub tracking: Tracking,
    /// The message.
    pub message: Message,
}

/// Arguments of `basic.get`.
#[derive(Debug, Clone, Copy)]
pub struct Getter {
    /// Who asks.
    pub connection: ConnectionId,
    /// Where the answer goes.
    pub channel: ChannelId,
    /// The message counts as acknowledged.
    pub no_ack: bool,
}

/// A consumer to add.
#[derive(Debug, Clone)]
pub struct NewConsumer {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its channel.
    pub channel: ChannelId,
    /// Its id within the connection.
    pub consumer: ConsumerId,
    /// Messages count as acknowledged when they are sent.
    pub no_ack: bool,
    /// No other consumer may be on the queue.
    pub exclusive: bool,
    /// Most unacked messages; 0 for no limit.
    pub prefetch: u32,
    /// The limit of its channel, if it has one.
    pub limit: Option<Arc<ChannelLimit>>,
    /// Consumers of a higher priority are served first (`x-priority`).
    pub priority: i64,
    /// How long it may take to acknowledge a message, in milliseconds (`x-consumer-timeout`); wins over the queue's.
    pub timeout_ms: Option<u64>,
}

/// When a stored message expires by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiration {
    /// Its number in the queue.
    pub seq: u64,
    /// When it expires, in milliseconds of the queue's clock.
    pub at: u64,
    /// Whether it would survive a restart.
    pub persistent: bool,
    /// Bytes of its body.
    pub body_len: u32,
}

impl Expiration {
    /// What is to be known of a stored message that expires after so many milliseconds.
    #[must_use]
    pub fn after(ttl_ms: u64, stored: &StoredMessage) -> Self {
        let StoredMessage { seq, at, persistent, message } = stored;
        let at = at.saturating_add(ttl_ms);
        let body_len = u32::try_from(message.body_len()).unwrap_or(u32::MAX);
        Self { seq: *seq, at, persistent: *persistent, body_len }
    }
}

/// A stored message that is not in the queue any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Its number in the queue.
    pub seq: u64,
    /// Its priority.
    pub priority: u8,
    /// Whether it would survive a restart.
    pub persistent: bool,
    /// Bytes of its body.
    pub body_len: u32,
}

/// Where the consequences of a command go.
pub trait Effects {
    /// A message goes to a consumer.
    fn deliver(&mut self, connection: ConnectionId, delivery: Delivery);

    /// A channel's pending call is answered.
    fn reply(&mut self, connection: ConnectionId, channel: ChannelId, reply: Result<Reply, AmqpError>);

    /// The queue is responsible for the message with this publish number: at once, or if `durable` as soon as
    /// everything is durable that was stored so far.
    fn accepted(&mut self, connection: ConnectionId, channel: ChannelId, number: u64, durable: bool);

    /// The queue refuses the message with this publish number.
    fn refused(&mut self, connection: ConnectionId, channel: ChannelId, number: u64);

    /// A message died in the queue, which has a place for dead letters. If it is stored, it is to be forgotten once
    /// it is safe in that place.
    fn dead_letter(
        &mut self,
        message: Message,
        reason: DeathReason,
        target: &DeadLetterTarget,
        stored: Option<Forgotten>,
    );

    /// The hash of a message's value of a header, if it has a value; the same after a restart is not asked.
    fn group(&self, message: &Message, header: &ShortString) -> Option<u64>;

    /// What a message's value of a header is remembered as, if it has a value; the same for ever.
    fn dedup_key(&self, message: &Message, header: &ShortString) -> Option<DedupKey>;

    /// The store remembers a key beyond a restart, behind all messages that it was given so far.
    fn remember(&mut self, key: StoredKey);

    /// The store need not remember a key any more.
    fn forget_key(&mut self, hash: u128);

    /// What this command has accepted as durable waits also for all keys that were remembered before.
    fn await_keys(&mut self);

    /// How long a message that came to a queue of the kind [`Gate`](crate::QueueKind::Gate) is held back, in
    /// milliseconds.
    fn delay_ms(&self, message: &Message) -> u64;

    /// A message that an operator has chosen was ready: now its fate is met.
    fn taken(&mut self, seq: u64);

    /// Whether the store has a message of the queue.
    fn is_stored(&self, priority: u8, seq: u64) -> bool;

    /// A message that was held back goes on its way. If it is stored, it is to be forgotten once it has
    /// arrived.
    fn release(&mut self, message: Message, stored: Option<Forgotten>);

    /// The message as it is delivered again: with headers that tell how often its delivery failed, and how often it was
    /// delivered before (features.md M30).
    fn with_counts(&self, message: &Message, failed: u32, acquired: u32) -> Message;

    /// What became of an immediate message.
    fn immediate(&mut self, connection: ConnectionId, channel: ChannelId, number: u64, taken: bool);

    /// A consumer ends because the queue does.
    fn consumer_cancelled(&mut self, connection: ConnectionId, channel: ChannelId, consumer: ConsumerId);

    /// A consumer ends because it has not acknowledged a message in time, in milliseconds.
    fn consumer_timed_out(
        &mut self,
        connection: ConnectionId,
        channel: ChannelId,
        consumer: ConsumerId,
        timeout_ms: u64,
    );

    /// The queue is gone: no further command may be applied.
    fn deleted(&mut self);

    /// The store takes a message, which came at `at` milliseconds; it must survive a restart if `persistent`.
    fn store(&mut self, seq: u64, priority: u8, at: u64, message: &Message, persistent: bool);

    /// A stored message is not in the queue any more.
    fn forget(&mut self, gone: Forgotten);

    /// No stored message of this priority up to number `last` is in the queue any more, except for some, in rising
    /// order.
    fn forget_all(&mut self, priority: u8, last: u64, except: &[u64]);

    /// Read the stored messages of this priority that follow number `after`, about so many bytes of them, and apply
    /// [`Command::Loaded`].
    fn load(&mut self, priority: u8, after: Option<u64>, bytes: usize);

    /// Read these stored messages, in rising order, and apply [`Command::Fetched`].
    fn fetch(&mut self, priority: u8, seqs: &[u64]);

    /// Look through the stored messages of this priority that follow number `after`, about so many bytes of them, for
    /// those that expire by themselves, and apply [`Command::Scanned`].
    fn scan(&mut self, priority: u8, after: Option<u64>, bytes: usize);

    /// Whether there is memory for more resident messages than the few that every queue may have.
    fn room(&self) -> bool;
}
