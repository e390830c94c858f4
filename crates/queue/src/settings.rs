//! What a queue's arguments and policies ask of it.

use warren_types::ShortString;

/// What a queue is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// A classic queue.
    #[default]
    Classic,
    /// A quorum queue: it counts how often a message came back.
    Quorum,
    /// Holds the messages of an exchange back until they may go on: see [`Effects::delay_ms`](crate::Effects::delay_ms).
    Gate,
}

/// What happens to a message that would make the queue longer than allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest message goes.
    #[default]
    DropHead,
    /// The new message is refused: its publisher gets a nack.
    RejectPublish,
    /// The same, and the refused message is dead-lettered.
    RejectPublishDlx,
}

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterTarget {
    /// The exchange; empty means the default exchange.
    pub exchange: ShortString,
    /// The routing key, if not the message's own.
    pub routing_key: Option<ShortString>,
}

/// Why a message is dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathReason {
    /// A consumer does not want it.
    Rejected,
    /// It waited too long.
    Expired,
    /// The queue is too long.
    MaxLen,
    /// It came back too often.
    DeliveryLimit,
    /// The queue is gone.
    QueueDeleted,
}

impl DeathReason {
    /// The reason as it stands in the header `x-death`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLen => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
            Self::QueueDeleted => "queue_deleted",
        }
    }
}

/// Which of the messages that come back wait before they are delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOf {
    /// All of them.
    All,
    /// Those that a consumer failed to handle: that count for the delivery limit.
    Failed,
    /// The others.
    Returned,
}

/// How long messages that come back wait (`x-delayed-retry-type`, `-min`, `-max`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Which messages.
    pub of: RetryOf,
    /// The wait after the first failure, in milliseconds; it grows by as much with each.
    pub min_ms: u64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
}

/// Which messages count as those that a queue had lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedup {
    /// The header whose value tells messages apart (`x-deduplication-header`); those without it are never dropped.
    pub header: ShortString,
    /// How many values are remembered (`x-cache-size`).
    pub size: usize,
    /// How long they are, in milliseconds, if the message does not say (`x-cache-ttl`).
    pub ttl_ms: Option<u64>,
}

/// The settings of a queue (features.md section 7); all of them are off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What the queue is for; never changes.
    pub kind: QueueKind,
    /// Longest wait of a message, in milliseconds (`x-message-ttl`).
    pub message_ttl_ms: Option<u64>,
    /// Longest time without use of the queue itself, in milliseconds (`x-expires`).
    pub expires_ms: Option<u64>,
    /// Most ready messages (`x-max-length`).
    pub max_length: Option<u64>,
    /// Most bytes of bodies of ready messages (`x-max-length-bytes`).
    pub max_length_bytes: Option<u64>,
    /// What gives way when there are more (`x-overflow`).
    pub overflow: Overflow,
    /// Where dead letters go (`x-dead-letter-exchange`, `x-dead-letter-routing-key`).
    pub dead_letter: Option<DeadLetterTarget>,
    /// What is left when the queue goes by itself is dead-lettered (`x-dead-letter-on-delete`).
    pub dead_letter_on_delete: bool,
    /// Highest priority (`x-max-priority`); without it priorities mean nothing. Never changes.
    pub max_priority: u8,
    /// Only one consumer at a time gets messages (`x-single-active-consumer`). Never changes.
    pub single_active_consumer: bool,
    /// How often a message may come back before it is dead-lettered (`x-delivery-limit`).
    pub delivery_limit: Option<u32>,
    /// How long messages that come back wait.
    pub retry: Option<Retry>,
    /// How long a consumer may take to acknowledge a message, in milliseconds (`x-consumer-timeout`).
    pub consumer_timeout_ms: Option<u64>,
    /// The header whose value keeps messages together (`x-message-group-header`): those with the same value are
    /// handled in order, by one consumer at a time. Never changes.
    pub group_header: Option<ShortString>,
    /// Messages that the queue had lately are dropped (`x-message-deduplication`). Whether they are never
    /// changes.
    pub dedup: Option<Box<Dedup>>,
    /// Nobody gets messages until this is over.
    pub paused: bool,
}
