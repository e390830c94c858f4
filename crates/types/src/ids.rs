//! Ids that cross crate borders. All of them are plain values: no handle, no reference count.

/// A client connection, unique for the life of the node: `slot` is reused, `generation` never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Index into tables of connections.
    pub slot: u32,
    /// Tells this connection from earlier ones in the same slot.
    pub generation: u32,
}

impl ConnectionId {
    /// No connection: the publisher of messages that the broker itself moves.
    pub const NONE: Self = Self { slot: u32::MAX, generation: u32::MAX };
}

/// A channel of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    /// The number on the wire, 1 to 65535.
    pub number: u16,
    /// Tells this channel from earlier ones of the same number, whose late events must be dropped.
    pub incarnation: u32,
}

impl ChannelId {
    /// Channel 0: the connection itself, as the one to answer.
    pub const CONNECTION: Self = Self { number: 0, incarnation: 0 };
}

/// A queue, unique for the life of the node and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// Where a queue lives: its shard, its slot there, and the id that guards against a reused slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueRef {
    /// Identity.
    pub id: QueueId,
    /// Index of the shard that owns the queue.
    pub shard: u16,
    /// Index into the shard's table of queues.
    pub slot: u32,
}

/// A consumer on a channel, unique within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u32);

/// One delivery of a queue: a number that rises with every message the queue hands out.
///
/// Not the delivery tag, which belongs to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub u64);
