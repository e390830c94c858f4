//! Dead letters: the headers that tell how a message died, and where it goes then (features.md M32, M33).
//!
//! Properties are kept in the encoding of AMQP 0-9-1, so this is the one place beside that protocol's own crate
//! that reads and writes it.

use warren_amqp091_codec::{Dialect, OwnedProperties, Properties};
use warren_queue::{DeadLetterTarget, DeathReason};
use warren_types::{FieldTable, FieldValue, Message, MessageHead, MessageParts, QueueRef, ShortString};

use crate::vhost::Vhost;

const DEATHS: &str = "x-death";

/// A message that died in a queue.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub message: Message,
    pub reason: DeathReason,
    pub target: DeadLetterTarget,
    /// The queue it died in.
    pub queue: ShortString,
}

impl DeadLetter {
    /// The message as it is published again, and the queues it goes to. Without an exchange to go to, or with
    /// properties that cannot be read, it is dropped.
    pub(crate) fn route(self, vhost: &Vhost, now_ms: u64) -> Option<(Message, Vec<QueueRef>)> {
        let properties = Properties::parse(self.message.properties()).ok()?;
        let mut owned: OwnedProperties = properties.to_owned();
        let mut headers = owned.headers.take().unwrap_or_default();
        let original_keys = self.original_keys(&headers);
        self.record_death(&mut headers, owned.expiration.take(), &original_keys, now_ms);
        let keys = match &self.target.routing_key {
            Some(key) => {
                headers.0.retain(|(name, _)| *name != *"CC");
                vec![key.as_bytes().to_vec()]
            }
            None => original_keys,
        };
        let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut queues = Vec::new();
        {
            let tables = vhost.read();
            let exchange = self.target.exchange.as_bytes();
            tables.router.route(exchange, &borrowed, &mut || headers.clone(), &mut queues)?;
            if self.reason != DeathReason::Rejected {
                let cycling = cycling_queues(deaths(&headers));
                let cycling: Vec<_> =
                    (cycling.filter_map(|name| tables.queues.get(name))).map(|entry| entry.queue).collect();
                queues.retain(|queue| !cycling.contains(queue));
            }
        }
        owned.headers = Some(headers);
        let mut encoded = Vec::new();
        owned.encode(Dialect::Amqp091, &mut encoded);
        let parts = MessageParts {
            exchange: self.target.exchange.as_bytes(),
            routing_key: keys.first().map_or(&[], Vec::as_slice),
            properties: &encoded,
            persistent: self.message.is_persistent(),
            priority: self.message.priority(),
            expiration_ms: None,
        };
        let message = match self.message.large_body() {
            Some(body) => MessageHead::of(&parts).message_with(body.clone()),
            None => Message::new(&parts, self.message.small_body()),
        };
        Some((message, queues))
    }

    /// The routing key and those in the header `CC`.
    fn original_keys(&self, headers: &FieldTable) -> Vec<Vec<u8>> {
        let mut keys = vec![self.message.routing_key().to_vec()];
        if let Some(FieldValue::Array(copies)) = headers.get("CC") {
            keys.extend(copies.iter().filter_map(|key| key.as_long_string().map(<[u8]>::to_vec)));
        }
        keys
    }

    /// Updates `x-death`, newest first, and the headers of the first and the last death
    /// (`mc:record_death/3`).
    fn record_death(
        &self,
        headers: &mut FieldTable,
        expiration: Option<Vec<u8>>,
        keys: &[Vec<u8>],
        now_ms: u64,
    ) {
        let queue = FieldValue::LongString(self.queue.as_bytes().to_vec());
        let reason = FieldValue::string(self.reason.name());
        let exchange = FieldValue::LongString(self.message.exchange().to_vec());
        let mut deaths = deaths(headers).to_vec();
        let same = |death: &FieldValue| match death {
            FieldValue::Table(death) => {
                death.get("queue") == Some(&queue) && death.get("reason") == Some(&reason)
            }
            _ => false,
        };
        let mut death = match deaths.iter().position(same) {
            Some(place) => deaths.remove(place),
            None => {
                let keys = keys.iter().cloned().map(FieldValue::LongString).collect();
                let mut death = FieldTable::new();
                death.insert("count", FieldValue::I64(0));
                death.insert("reason", reason.clone());
                death.insert("queue", queue.clone());
                death.insert("time", FieldValue::Timestamp(now_ms / 1000));
                death.insert("exchange", exchange.clone());
                death.insert("routing-keys", FieldValue::Array(keys));
                if let Some(expiration) = expiration {
                    death.insert("original-expiration", FieldValue::LongString(expiration));
                }
                FieldValue::Table(death)
            }
        };
        if let FieldValue::Table(FieldTable(fields)) = &mut death
            && let Some((_, FieldValue::I64(count))) = fields.iter_mut().find(|(name, _)| *name == *"count")
        {
            *count += 1;
        }
        deaths.insert(0, death);
        set(headers, DEATHS, FieldValue::Array(deaths));
        for (name, value) in [("reason", reason), ("queue", queue), ("exchange", exchange)] {
            let first = format!("x-first-death-{name}");
            if headers.get(&first).is_none() {
                headers.insert(&first, value.clone());
            }
            set(headers, &format!("x-last-death-{name}"), value);
        }
    }
}

fn deaths(headers: &FieldTable) -> &[FieldValue] {
    match headers.get(DEATHS) {
        Some(FieldValue::Array(deaths)) => deaths,
        _ => &[],
    }
}

fn set(headers: &mut FieldTable, name: &str, value: FieldValue) {
    match headers.0.iter_mut().find(|(key, _)| *key == *name) {
        Some((_, old)) => *old = value,
        None => headers.insert(name, value),
    }
}

/// The queues that the message has died in since somebody last rejected it: back there, it would go round without
/// end (`rabbit_dead_letter:detect_cycles/3`).
fn cycling_queues(deaths: &[FieldValue]) -> impl Iterator<Item = &[u8]> {
    let is_rejection =
        |death: &FieldTable| death.get("reason").and_then(FieldValue::as_long_string) == Some(b"rejected");
    deaths
        .iter()
        .take_while(move |death| !matches!(death, FieldValue::Table(death) if is_rejection(death)))
        .filter_map(|death| match death {
            FieldValue::Table(death) => death.get("queue")?.as_long_string(),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use warren_testkit::MemoryJournal;

    use super::*;

    fn letter(properties: &OwnedProperties, reason: DeathReason, queue: &'static str) -> DeadLetter {
        let mut encoded = Vec::new();
        properties.encode(Dialect::Amqp091, &mut encoded);
        let parts = MessageParts { routing_key: b"key", properties: &encoded, ..MessageParts::default() };
        let message = Message::new(&parts, b"body");
        let target = DeadLetterTarget { exchange: "".into(), routing_key: None };
        DeadLetter { message, reason, target, queue: queue.into() }
    }

    fn die(properties: &OwnedProperties, reason: DeathReason, queue: &'static str) -> OwnedProperties {
        let vhost = Vhost::new("/", Arc::new(MemoryJournal::durable()));
        let (message, queues) =
            letter(properties, reason, queue).route(&vhost, 5_000).expect("there is a default exchange");
        assert!(queues.is_empty());
        assert_eq!(message.body(), b"body");
        Properties::parse(message.properties()).expect("they were just written").to_owned()
    }

    /// `queue reason count` of each death, newest first.
    fn summary(properties: &OwnedProperties) -> Vec<String> {
        let headers = properties.headers.as_ref().expect("there are headers");
        let field = |death: &FieldTable, name| {
            String::from_utf8_lossy(death.get(name).and_then(FieldValue::as_long_string).unwrap_or_default())
                .into_owned()
        };
        let one = |death: &FieldValue| match death {
            FieldValue::Table(death) => format!(
                "{} {} {}",
                field(death, "queue"),
                field(death, "reason"),
                death.get("count").and_then(FieldValue::as_integer).unwrap_or_default()
            ),
            _ => String::new(),
        };
        deaths(headers).iter().map(one).collect()
    }

    #[test]
    fn deaths_are_counted_newest_first() {
        let first = die(&OwnedProperties::default(), DeathReason::Rejected, "a");
        let second = die(&first, DeathReason::Expired, "b");
        assert_eq!(summary(&second), ["b expired 1", "a rejected 1"]);
        let third = die(&second, DeathReason::Rejected, "a");
        assert_eq!(summary(&third), ["a rejected 2", "b expired 1"]);
        let headers = third.headers.expect("there are headers");
        assert_eq!(headers.get("x-first-death-queue"), Some(&FieldValue::string("a")));
        assert_eq!(headers.get("x-last-death-queue"), Some(&FieldValue::string("a")));
    }

    #[test]
    fn the_expiration_moves_into_the_record() {
        let properties = OwnedProperties { expiration: Some(b"10".to_vec()), ..OwnedProperties::default() };
        let dead = die(&properties, DeathReason::Expired, "a");
        assert_eq!(dead.expiration, None);
        let Some(FieldValue::Table(death)) = dead.headers.as_ref().and_then(|h| deaths(h).first()) else {
            panic!("no record of the death");
        };
        assert_eq!(death.get("original-expiration"), Some(&FieldValue::string("10")));
    }

    #[test]
    fn a_cycle_needs_a_way_round_without_a_reject() {
        let death = |queue: &str, reason: &str| {
            let mut death = FieldTable::new();
            death.insert("queue", FieldValue::string(queue));
            death.insert("reason", FieldValue::string(reason));
            FieldValue::Table(death)
        };
        let cycling = |deaths: &[FieldValue]| -> Vec<String> {
            cycling_queues(deaths).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert!(cycling(&[]).is_empty());
        assert_eq!(cycling(&[death("b", "expired"), death("a", "maxlen")]), ["b", "a"]);
        assert!(cycling(&[death("b", "rejected"), death("a", "expired")]).is_empty());
        assert_eq!(cycling(&[death("b", "expired"), death("a", "rejected")]), ["b"]);
    }
}
