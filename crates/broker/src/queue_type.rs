//! Types of queues as clients name them, and the arguments that each of them knows (features.md section 7).

use warren_types::FieldTable;

/// What kind of queue a client asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum QueueType {
    /// One log on one node.
    #[default]
    Classic,
    /// Replicated, and counts how often a message came back.
    Quorum,
    /// Keeps messages that were read.
    Stream,
}

impl QueueType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Classic, Self::Quorum, Self::Stream];

    /// The type with this name in `x-queue-type`; exported definitions have the names of modules.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name == b"undefined" {
            return Some(Self::default());
        }
        Self::ALL
            .into_iter()
            .find(|known| known.name().as_bytes() == name || known.module().as_bytes() == name)
    }

    /// The name in `x-queue-type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }

    /// The name of RabbitMQ's module, as exceptions have it.
    #[must_use]
    pub fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
            Self::Stream => "rabbit_stream_queue",
        }
    }

    /// The arguments that it knows, which must be the same on redeclaration (`capabilities/0` of its module).
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Classic => CLASSIC,
            Self::Quorum => QUORUM,
            Self::Stream => STREAM,
        }
    }

    /// The first argument that only other types know.
    pub(crate) fn foreign_argument(self, arguments: &FieldTable) -> Option<&str> {
        let is_foreign = |name: &str| {
            let extra: &[&str] = if self == Self::Classic { EXTRA_FOR_CLASSIC } else { &[] };
            !self.arguments().contains(&name)
                && !extra.contains(&name)
                && Self::ALL.iter().any(|other| other.arguments().contains(&name))
        };
        let names = arguments.0.iter().filter_map(|(name, _)| std::str::from_utf8(name.as_bytes()).ok());
        names.into_iter().find(|name| is_foreign(name))
    }
}

const CLASSIC: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
    "x-dead-letter-on-delete",
    "x-message-group-header",
    "x-message-deduplication",
    "x-cache-size",
    "x-cache-ttl",
    "x-deduplication-header",
];

/// What RabbitMQ has taken from classic queues, or never given them.
const EXTRA_FOR_CLASSIC: &[&str] = &["x-consumer-timeout"];

const QUORUM: &[&str] = &[
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-member-placement-tag",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
    "x-consumer-disconnected-timeout",
    "x-consumer-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
    "x-dead-letter-on-delete",
    "x-message-group-header",
    "x-message-deduplication",
    "x-cache-size",
    "x-cache-ttl",
    "x-deduplication-header",
];

const STREAM: &[&str] = &[
    "x-max-length-bytes",
    "x-queue-type",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
    "x-initial-cluster-size",
    "x-queue-leader-locator",
];
