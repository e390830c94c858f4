use std::sync::Arc;

use crate::settings::{DeadLetterTarget, DeathReason};
use warren_types::session::{Delivery, DeliveryRange, Reply, Settle, Tracking};
use warren_types::{AmqpError, ChannelId, ChannelLimit, ConnectionId, ConsumerId, Message, StoredMessage};

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
    /// Messages that were asked for with [`Effects::fetch`].
    Fetched {
        /// Their priority.
        priority: u8,
        /// The numbers asked for, in rising order.
        asked: Vec<u64>,
        /// Those that there are, in rising order.
        messages: Vec<StoredMessage>,
    },
    /// Delete the queue.
    Delete {
        /// Who asks and where the answer goes; none if the queue goes with its owner.
        asked_by: Option<(ConnectionId, ChannelId)>,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
    },
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

    /// What became of an immediate message.
    fn immediate(&mut self, connection: ConnectionId, channel: ChannelId, number: u64, taken: bool);

    /// A consumer ends because the queue does.
    fn consumer_cancelled(&mut self, connection: ConnectionId, channel: ChannelId, consumer: ConsumerId);

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

    /// Whether there is memory for more resident messages than the few that every queue may have.
    fn room(&self) -> bool;
}
