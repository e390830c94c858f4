//! What a queue's arguments ask of it.

use warren_types::ShortString;

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
}

impl DeathReason {
    /// The reason as it stands in the header `x-death`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLen => "maxlen",
        }
    }
}

/// The settings of a queue (features.md section 7); all of them are off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
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
    /// Highest priority (`x-max-priority`); without it priorities mean nothing.
    pub max_priority: u8,
    /// Only one consumer at a time gets messages (`x-single-active-consumer`).
    pub single_active_consumer: bool,
}
