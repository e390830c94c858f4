//! Exchanges that the broker itself publishes to: events and the log.
//!
//! Whoever has something to tell posts it, under whatever locks it holds, and goes on; a task of the exchange routes it. What
//! waits for the task is bounded, and what comes on top is dropped and counted. Queues behind the exchange are like all others.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use warren_amqp091_codec::{Dialect, OwnedProperties, Properties};
use warren_queue::{Command, Publish};
use warren_router::{ExchangeDefinition, ExchangeKind};
use warren_types::session::Tracking;
use warren_types::{ChannelId, ConnectionId, FieldTable, Message, MessageHead, MessageParts, ShortString};

use crate::broker::Broker;
use crate::mailbox::Mailbox;
use crate::shard::ShardCommand;
use crate::vhost::Vhost;

/// Milliseconds since 1970-01-01 UTC, by the system's clock.
pub(crate) fn system_time_ms() -> u64 {
    // Before 1970 there were no messages.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// A message of the broker's own making. What is too long for a routing key is cut.
pub(crate) fn own_message(exchange: &[u8], key: &[u8], properties: &OwnedProperties) -> MessageHead {
    const PERSISTENT: u8 = 2;
    let mut encoded = Vec::new();
    properties.encode(Dialect::Amqp091, &mut encoded);
    MessageHead::of(&MessageParts {
        exchange,
        routing_key: &key[..key.len().min(ShortString::LEN_MAX)],
        properties: &encoded,
        persistent: properties.delivery_mode == Some(PERSISTENT),
        ..MessageParts::default()
    })
}

/// An exchange of one virtual host that only the broker publishes to.
#[derive(Debug)]
pub(crate) struct SystemExchange {
    vhost: String,
    name: &'static str,
    /// There is a binding from it: else nothing need be made.
    is_bound: AtomicBool,
    posted: Mailbox<Message>,
    /// Bytes of what was posted and not routed.
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

impl SystemExchange {
    /// Bytes that may wait to be routed.
    const WAITING_MAX: usize = 16 * 1024 * 1024;

    pub(crate) fn new(vhost: &str, name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            vhost: vhost.to_owned(),
            name,
            is_bound: AtomicBool::new(false),
            posted: Mailbox::default(),
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn vhost(&self) -> &str {
        &self.vhost
    }

    /// As RabbitMQ declares it (`rabbit_exchange_type_event`, `rabbit_logger_exchange_h`).
    pub(crate) fn definition(&self) -> ExchangeDefinition {
        ExchangeDefinition {
            name: self.name.into(),
            kind: ExchangeKind::Topic,
            durable: true,
            auto_delete: false,
            internal: true,
            arguments: FieldTable::new(),
        }
    }

    pub(crate) fn set_bound(&self, is_bound: bool) {
        self.is_bound.store(is_bound, Ordering::Relaxed);
    }

    /// Whether anything that is posted could go anywhere.
    pub(crate) fn is_bound(&self) -> bool {
        self.is_bound.load(Ordering::Relaxed)
    }

    /// Has a message published soon. It is dropped if too much waits already.
    pub(crate) fn post(&self, message: Message) {
        let bytes = message.memory();
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > Self::WAITING_MAX {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.posted.push(message);
    }

    /// Publishes what is posted, for as long as there is a broker.
    pub(crate) async fn run(self: Arc<Self>, broker: Weak<Broker>) {
        let mut messages = Vec::new();
        loop {
            self.posted.take(&mut messages);
            if messages.is_empty() {
                self.posted.wait().await;
                continue;
            }
            let Some(broker) = broker.upgrade() else { return };
            let vhost = broker.directory().vhosts.get(&self.vhost).cloned();
            for message in messages.drain(..) {
                self.waiting.fetch_sub(message.memory(), Ordering::Relaxed);
                if let Some(vhost) = &vhost {
                    publish(&broker, vhost, &message);
                }
            }
            drop(broker);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(exchange = self.name, "{dropped} messages were dropped: they came too fast");
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Hands a message of the broker's to its queues.
fn publish(broker: &Broker, vhost: &Vhost, message: &Message) {
    let Ok(properties) = Properties::parse(message.properties()) else { return };
    let mut queues = Vec::new();
    let keys = [message.routing_key()];
    let routed = vhost.read().router.route(message.exchange(), &keys, &properties, &mut queues);
    let histories = routed.map(|routed| routed.histories).unwrap_or_default();
    histories.iter().for_each(|history| history.record(message.clone()));
    for queue in queues {
        let publish = Publish {
            connection: ConnectionId::NONE,
            channel: ChannelId::CONNECTION,
            tracking: Tracking::None,
            message: message.clone(),
        };
        let command = ShardCommand::Apply(queue, Command::Publish(publish));
        broker.shards[usize::from(queue.shard)].mailbox.push(command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e6_what_nobody_takes_is_bounded_and_counted() {
        let exchange = SystemExchange::new("/", "amq.rabbitmq.event");
        let body = vec![0; 1024 * 1024];
        let message = own_message(b"amq.rabbitmq.event", b"key", &OwnedProperties::default()).message(&body);
        for _ in 0..40 {
            exchange.post(message.clone());
        }
        let mut taken = Vec::new();
        exchange.posted.take(&mut taken);
        assert_eq!(taken.len(), 15);
        assert_eq!(exchange.dropped.load(Ordering::Relaxed), 25);
    }

    #[test]
    fn r5_a_key_that_is_too_long_is_cut() {
        let message = own_message(b"x", &[b'k'; 300], &OwnedProperties::default()).message(b"");
        assert_eq!(message.routing_key(), [b'k'; 255]);
    }
}
