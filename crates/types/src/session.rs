//! The vocabulary between a protocol's connection machine and the broker.
//!
//! The machine calls a [`Session`]; the session never blocks. What can be decided at once is in the return
//! value. What another owner (a shard) decides is [`Outcome::Pending`] and comes back as an [`Event`]: one
//! [`Reply`] for each pending call, in order, on the same path as deliveries and confirms, so that whatever the
//! broker did first is also seen first.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::{
    AmqpError, ChannelId, ChannelLimit, ConnectionId, ConsumerId, DeliveryId, FieldTable, FieldValue,
    History, Message, QueueRef, ShortString,
};

/// A call's answer: now, or later as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The answer.
    Done(T),
    /// The answer comes as [`Event::Reply`] for the channel of the call.
    Pending,
}

/// Arguments of `exchange.declare`.
#[derive(Debug, Clone)]
pub struct ExchangeDeclare {
    /// Name of the exchange.
    pub name: ShortString,
    /// Name of its type.
    pub kind: ShortString,
    /// Only check that it exists.
    pub passive: bool,
    /// Survives a restart.
    pub durable: bool,
    /// Goes when the last binding from it goes.
    pub auto_delete: bool,
    /// Takes messages from exchanges only.
    pub internal: bool,
    /// Optional arguments.
    pub arguments: FieldTable,
}

/// Arguments of `queue.declare`.
#[derive(Debug, Clone)]
pub struct QueueDeclare {
    /// Name of the queue; empty asks for a generated one.
    pub name: ShortString,
    /// Only check that it exists.
    pub passive: bool,
    /// Survives a restart.
    pub durable: bool,
    /// Belongs to the declaring connection and goes with it.
    pub exclusive: bool,
    /// Goes when the last consumer goes.
    pub auto_delete: bool,
    /// Optional arguments.
    pub arguments: FieldTable,
}

/// What a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindTarget {
    /// `queue.bind`
    Queue,
    /// `exchange.bind`
    Exchange,
}

/// Arguments of the four bind and unbind methods.
#[derive(Debug, Clone)]
pub struct Bind {
    /// Exchange that messages come from.
    pub source: ShortString,
    /// Kind of the destination.
    pub target: BindTarget,
    /// Name of the destination.
    pub destination: ShortString,
    /// Binding key.
    pub routing_key: ShortString,
    /// Arguments of the binding.
    pub arguments: FieldTable,
}

/// Arguments of `basic.consume`.
#[derive(Debug, Clone)]
pub struct Consume {
    /// Name of the queue.
    pub queue: ShortString,
    /// Id that the connection gave the consumer.
    pub consumer: ConsumerId,
    /// The consumer's tag.
    pub tag: ShortString,
    /// Messages count as acknowledged when they are sent.
    pub no_ack: bool,
    /// No other consumer may be on the queue.
    pub exclusive: bool,
    /// Most unacked messages; 0 for no limit.
    pub prefetch: u32,
    /// The channel's limit, if it was ever set.
    pub limit: Option<Arc<ChannelLimit>>,
    /// Arguments of the consumer.
    pub arguments: FieldTable,
}

/// What exchanges may look at beside the routing keys. A function that returns headers will do where there is nothing
/// else.
pub trait RoutingContent {
    /// The message's headers, decoded.
    fn headers(&self) -> FieldTable;

    /// A property of the message, if it has it.
    fn property(&self, property: HashProperty) -> Option<FieldValue>;
}

impl<F: Fn() -> FieldTable> RoutingContent for F {
    fn headers(&self) -> FieldTable {
        self()
    }

    fn property(&self, _: HashProperty) -> Option<FieldValue> {
        None
    }
}

/// The properties that an exchange may be told to hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashProperty {
    /// `correlation-id`
    CorrelationId,
    /// `message-id`
    MessageId,
    /// `timestamp`
    Timestamp,
}

/// What routing a message needs to know of it.
#[derive(Clone, Copy)]
pub struct RouteRequest<'a> {
    /// Exchange it is published to.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// More routing keys (`CC` and `BCC`).
    pub extra_keys: &'a [&'a [u8]],
    /// What else exchanges may look at; read only when one does.
    pub content: &'a dyn RoutingContent,
    /// The property `user-id`, which must be the user's own name.
    pub user_id: Option<&'a [u8]>,
    /// The property `expiration`, which must be a number of milliseconds.
    pub expiration: Option<&'a [u8]>,
}

impl std::fmt::Debug for RouteRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteRequest")
            .field("exchange", &String::from_utf8_lossy(self.exchange))
            .field("routing_key", &String::from_utf8_lossy(self.routing_key))
            .finish_non_exhaustive()
    }
}

/// Where a message goes.
#[derive(Debug, Clone)]
pub enum Route {
    /// To these queues, each once; none means that it is unroutable.
    Queues(Arc<[QueueRef]>),
    /// Straight to a channel that waits for replies (direct reply-to).
    DirectReply(ConnectionId, ChannelId),
    /// To queues, and into the history of exchanges that have one.
    Recorded(Box<RecordedRoute>),
}

/// A route over exchanges with a history.
#[derive(Debug, Clone)]
pub struct RecordedRoute {
    /// The queues, each once.
    pub queues: Arc<[QueueRef]>,
    /// Where the message is to be recorded.
    pub histories: Vec<Arc<History>>,
}

impl Route {
    /// How many places the message goes to.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Queues(queues) => queues.len(),
            Self::DirectReply(..) => 1,
            Self::Recorded(recorded) => recorded.queues.len(),
        }
    }

    /// How many queues there are to say that they have the message.
    #[must_use]
    pub fn queues(&self) -> usize {
        match self {
            Self::DirectReply(..) => 0,
            _ => self.len(),
        }
    }

    /// Whether the message is unroutable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing is to be done with the message: it is unroutable, and not recorded either.
    #[must_use]
    pub fn leads_nowhere(&self) -> bool {
        self.is_empty() && !matches!(self, Self::Recorded(_))
    }
}

/// Stands for everything that a route depends on: exchanges, bindings, queues, permissions. It changes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteGeneration(pub u64);

/// What the publisher wants to hear of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// Nothing.
    None,
    /// [`Event::Settled`] with this publish number once a queue is responsible for it.
    Confirm(u64),
    /// [`Event::Immediate`] with this publish number: whether a consumer took it at once.
    Immediate(u64),
}

/// How the client settles deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// `basic.ack`: done with.
    Ack,
    /// `basic.reject` or `basic.nack` without requeue: dead-lettered or dropped.
    Reject,
    /// Back to its original position, as redelivered.
    Requeue {
        /// It counts as a failed delivery: `basic.reject` does, `basic.nack` and `basic.recover` do not (features.md M30).
        failed: bool,
    },
}

/// Consecutive deliveries of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryRange {
    /// The first.
    pub first: DeliveryId,
    /// The last.
    pub last: DeliveryId,
}

/// Something about a connection that only its machine knows, and that others may want to hear.
#[derive(Debug, Clone, Copy)]
pub enum Announcement<'a> {
    /// The client has said who it is, and is about to log in.
    Introduced {
        /// The SASL mechanism.
        mechanism: &'a [u8],
        /// Version of the protocol: major, minor, revision.
        protocol: (u8, u8, u8),
        /// What the client tells of itself.
        client_properties: &'a FieldTable,
    },
    /// A virtual host is open.
    Opened {
        /// The heartbeat interval that was agreed on, in seconds.
        heartbeat_s: u16,
        /// The largest frame that was agreed on, in bytes.
        frame_max: u32,
        /// Most channels that were agreed on.
        channel_max: u16,
    },
    /// A channel is open.
    ChannelOpened(ChannelId),
    /// A channel is gone, and with it so many consumers.
    ChannelClosed(ChannelId, usize),
    /// A consumer is gone.
    ConsumerDeleted {
        /// Channel of the consumer.
        channel: ChannelId,
        /// Name of its queue.
        queue: &'a ShortString,
        /// The consumer's tag.
        tag: &'a ShortString,
    },
}

/// A message that somebody published, as the firehose shows it.
#[derive(Debug, Clone, Copy)]
pub struct TracedPublish<'a> {
    /// Channel of the publisher.
    pub channel: ChannelId,
    /// The routing key and those in `CC` and `BCC`.
    pub routing_keys: &'a [&'a [u8]],
    /// Where it goes.
    pub route: &'a Route,
    /// The message.
    pub message: &'a Message,
}

/// Why a login was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginRefused {
    /// Wrong name or password, or not from this address. The reason is in the log, not for the client.
    Credentials,
    /// The mechanism's response cannot be understood.
    Malformed(AmqpError),
}

/// What a connection machine asks of the broker. No call blocks.
pub trait Session {
    /// Checks name and password.
    ///
    /// # Errors
    /// If the user may not log in; the cause has been logged.
    fn login(&mut self, user: &[u8], password: &[u8]) -> Result<(), LoginRefused>;

    /// Whether clients may log in without credentials (SASL `ANONYMOUS`).
    fn offers_anonymous(&self) -> bool;

    /// Logs in as the user for anonymous clients.
    ///
    /// # Errors
    /// If there is none, or it may not log in from there; the cause has been logged.
    fn login_anonymous(&mut self) -> Result<(), LoginRefused>;

    /// Enters a virtual host.
    ///
    /// # Errors
    /// 530 if it does not exist or the user has no access.
    fn open(&mut self, vhost: &[u8]) -> Result<(), AmqpError>;

    /// Checks new credentials for the user (`connection.update-secret`).
    ///
    /// # Errors
    /// 530 if they are refused.
    fn update_secret(&mut self, secret: &[u8]) -> Result<(), AmqpError>;

    /// `exchange.declare`
    ///
    /// # Errors
    /// As in features.md M1.
    fn exchange_declare(&mut self, declare: ExchangeDeclare) -> Result<(), AmqpError>;

    /// `exchange.delete`
    ///
    /// # Errors
    /// As in features.md M2.
    fn exchange_delete(&mut self, name: &[u8], if_unused: bool) -> Result<(), AmqpError>;

    /// `queue.bind` and `exchange.bind`
    ///
    /// # Errors
    /// As in features.md M12.
    fn bind(&mut self, bind: Bind) -> Result<(), AmqpError>;

    /// `queue.unbind` and `exchange.unbind`
    ///
    /// # Errors
    /// As in features.md M12.
    fn unbind(&mut self, bind: Bind) -> Result<(), AmqpError>;

    /// `queue.declare`; the reply is [`Reply::QueueDeclared`].
    ///
    /// # Errors
    /// As in features.md M7 to M9.
    fn queue_declare(
        &mut self,
        channel: ChannelId,
        declare: QueueDeclare,
    ) -> Result<Outcome<QueueDeclared>, AmqpError>;

    /// `queue.delete`; the reply is [`Reply::QueueDeleted`].
    ///
    /// # Errors
    /// As in features.md M11.
    fn queue_delete(
        &mut self,
        channel: ChannelId,
        name: &[u8],
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Outcome<u32>, AmqpError>;

    /// `queue.purge`; the reply is [`Reply::QueuePurged`].
    ///
    /// # Errors
    /// As in features.md M13.
    fn queue_purge(&mut self, channel: ChannelId, name: &[u8]) -> Result<(), AmqpError>;

    /// `basic.get`; the reply is [`Reply::Got`].
    ///
    /// # Errors
    /// As in features.md M25.
    fn get(&mut self, channel: ChannelId, queue: &[u8], no_ack: bool) -> Result<(), AmqpError>;

    /// `basic.consume`; the reply is [`Reply::Consuming`]. Returns the queue.
    ///
    /// # Errors
    /// As in features.md M20.
    fn consume(&mut self, channel: ChannelId, consume: Consume) -> Result<QueueRef, AmqpError>;

    /// `basic.cancel`; the reply is [`Reply::Cancelled`], behind the consumer's last delivery.
    fn cancel(&mut self, channel: ChannelId, queue: QueueRef, consumer: ConsumerId);

    /// Looks again whether the user may read the queue of a consumer. If not, the consumer is removed, and
    /// [`Event::ConsumerCancelled`] follows its last delivery.
    fn recheck(&mut self, queue: QueueRef, name: &[u8], consumer: ConsumerId);

    /// Puts a consumer under its channel's limit.
    fn limit(&mut self, queue: QueueRef, consumer: ConsumerId, limit: Arc<ChannelLimit>);

    /// Tells a consumer that the channel's limit may have room for it.
    fn resume(&mut self, queue: QueueRef, consumer: ConsumerId);

    /// Starts to take direct replies on the channel; returns its reply address.
    fn start_direct_replies(&mut self, channel: ChannelId) -> ShortString;

    /// Takes no more direct replies at this address.
    fn stop_direct_replies(&mut self, address: &[u8]);

    /// Whether somebody waits for replies at this address of direct reply-to.
    fn is_direct_reply_alive(&self, address: &[u8]) -> bool;

    /// Finds the queues for a message. With a generation, messages that differ in nothing but their body go the same
    /// way as long as that [is current](Session::is_current).
    ///
    /// # Errors
    /// As in features.md M14.
    fn route(&mut self, request: &RouteRequest<'_>) -> Result<(Route, Option<RouteGeneration>), AmqpError>;

    /// Whether routes of this generation are still right.
    fn is_current(&self, generation: RouteGeneration) -> bool;

    /// Hands a message to where [`Session::route`] said it goes.
    fn submit(&mut self, channel: ChannelId, route: &Route, message: Message, tracking: Tracking);

    /// Settles deliveries of a queue.
    fn settle(&mut self, channel: ChannelId, queue: QueueRef, range: DeliveryRange, settle: Settle);

    /// A unique name: the prefix and 22 characters of URL-safe base64.
    fn generate_name(&mut self, prefix: &str) -> ShortString;

    /// Notes that a delivery was encoded for the client; once the socket took it, the consumer's byte credit
    /// is returned to the queue.
    fn delivered(&mut self, channel: ChannelId, queue: QueueRef, consumer: ConsumerId, bytes: usize);

    /// The channel is gone: its consumers end and its unacked messages return.
    fn channel_closed(&mut self, channel: ChannelId);

    /// The connection ends: consumers end, unacked messages return, exclusive queues are deleted. Returns how
    /// many replies for [`ChannelId::CONNECTION`] will tell that this is done.
    fn close(&mut self) -> usize;

    /// Milliseconds since 1970-01-01 UTC, by the system's clock.
    fn system_time_ms(&self) -> u64;

    /// Hears what others may want to know of the connection.
    fn announce(&mut self, _news: Announcement<'_>) {}

    /// Whether what is published and delivered is copied to the firehose now. While it is, no route has a generation.
    fn is_traced(&self) -> bool {
        false
    }

    /// Copies a message that is published to the firehose.
    fn trace_publish(&mut self, _publish: &TracedPublish<'_>) {}

    /// Copies a message that the client gets from a queue to the firehose.
    fn trace_delivery(&mut self, _channel: ChannelId, _queue: &[u8], _redelivered: bool, _message: &Message) {
    }
}

/// What the broker tells a connection.
#[derive(Debug)]
pub enum Event {
    /// A message for a consumer.
    Deliver(Delivery),
    /// A reply from direct reply-to for a channel.
    DirectReply(ChannelId, Message),
    /// A queue took responsibility for the messages with these publish numbers, or refused it.
    Settled {
        /// Channel of the publisher.
        channel: ChannelId,
        /// First publish number.
        first: u64,
        /// Last publish number.
        last: u64,
        /// False if the queue refused them.
        accepted: bool,
    },
    /// What became of a message published as immediate, for one of its queues.
    Immediate {
        /// Channel of the publisher.
        channel: ChannelId,
        /// Publish number.
        number: u64,
        /// Whether a consumer took it.
        taken: bool,
    },
    /// The answer to the channel's pending call.
    Reply(ChannelId, Result<Reply, AmqpError>),
    /// The consumer's queue is gone.
    ConsumerCancelled(ChannelId, ConsumerId),
    /// The consumer has not acknowledged a message in time, in milliseconds, and is gone.
    ConsumerTimedOut(ChannelId, ConsumerId, u64),
    /// Publishers must wait, for this reason (`connection.blocked`).
    Blocked(&'static str),
    /// Publishers may go on.
    Unblocked,
    /// Close the connection with this error.
    Close(AmqpError),
}

/// Answers to pending calls.
#[derive(Debug)]
pub enum Reply {
    /// To [`Session::queue_declare`].
    QueueDeclared(QueueDeclared),
    /// To [`Session::queue_delete`]: how many messages were ready.
    QueueDeleted(u32),
    /// To [`Session::queue_purge`]: how many messages were ready.
    QueuePurged(u32),
    /// To [`Session::get`].
    Got(Option<Got>),
    /// To [`Session::consume`].
    Consuming,
    /// To [`Session::cancel`].
    Cancelled,
}

/// The contents of `queue.declare-ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDeclared {
    /// Name of the queue.
    pub name: ShortString,
    /// Messages that are ready.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// A message pushed to a consumer.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Channel of the consumer.
    pub channel: ChannelId,
    /// The consumer.
    pub consumer: ConsumerId,
    /// Where it comes from.
    pub queue: QueueRef,
    /// Number to settle it by.
    pub id: DeliveryId,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Whether it has taken a place of its channel's limit.
    pub limited: bool,
    /// The message.
    pub message: Message,
}

/// A message fetched by `basic.get`.
#[derive(Debug, Clone)]
pub struct Got {
    /// Where it comes from.
    pub queue: QueueRef,
    /// Number to settle it by.
    pub id: DeliveryId,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Messages that are still ready.
    pub remaining: u32,
    /// The message.
    pub message: Message,
}

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client's address.
    pub client: SocketAddr,
    /// Our address, as the client sees it.
    pub server: SocketAddr,
}
