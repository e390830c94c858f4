//! The log exchange (features.md CFG6): what is logged, for whoever binds a queue to it.

use std::sync::Arc;

use warren_amqp091_codec::OwnedProperties;
use warren_types::{FieldTable, FieldValue};

use crate::system_exchange::{SystemExchange, own_message, system_time_ms};

/// The exchange's name.
pub(crate) const LOG_EXCHANGE: &str = "amq.rabbitmq.log";

/// Publishes what is logged, without ever waiting.
#[derive(Debug, Clone)]
pub struct LogExchange {
    exchange: Arc<SystemExchange>,
    node: Arc<str>,
}

impl LogExchange {
    pub(crate) fn new(exchange: Arc<SystemExchange>, node: Arc<str>) -> Self {
        Self { exchange, node }
    }

    /// Whether anybody has bound a queue to the exchange.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.exchange.is_bound()
    }

    /// Has a line published soon, with its level as routing key (`rabbit_logger_exchange_h`). If too many lines wait
    /// already, it is dropped and counted.
    pub fn post(&self, level: &'static str, line: &[u8]) {
        let mut headers = FieldTable::new();
        headers.insert("node", FieldValue::string(&self.node));
        let properties = OwnedProperties {
            content_type: Some(b"text/plain".to_vec()),
            timestamp: Some(system_time_ms() / 1000),
            headers: Some(headers),
            ..OwnedProperties::default()
        };
        let mut head = own_message(self.exchange.name().as_bytes(), level.as_bytes(), &properties);
        self.exchange.post(head.message(line));
    }
}
