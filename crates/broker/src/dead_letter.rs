//! Dead letters: the headers that tell how a message died, and where it goes then (features.md M32, M33).
//!
//! Properties are kept in the encoding of AMQP 0-9-1, so this is the one place beside that protocol's own crate
//! that reads and writes it.
//!
//! The headers are also the record from which cycles are seen and deaths counted, but only if this broker wrote them:
//! what a client sends, be it its own or what it once got, counts for nothing and is overwritten (`mc:record_death/3`
//! keeps annotations that no client sees). Whose they are is a mark on the message.

use warren_amqp091_codec::{OwnedProperties, Properties};
use warren_queue::{DeadLetterTarget, DeathReason};
use warren_types::{FieldTable, FieldValue, Marks, Message, QueueRef, ShortString};

use crate::reroute::{self, Sent, routing_keys};
use crate::vhost::Vhost;

const DEATHS: &str = "x-death";

/// What the headers of the first and the last death tell.
const ASPECTS: [&str; 3] = ["reason", "queue", "exchange"];

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
        let original_keys = routing_keys(&self.message, &headers);
        if !self.message.marks().deaths {
            forget_deaths(&mut headers);
        }
        owned.expiration = None;
        self.record_death(&mut headers, &original_keys, now_ms);
        owned.headers = Some(headers);
        let exchange = self.target.exchange.as_bytes();
        let (routing_key, key_only, blind_keys) = match &self.target.routing_key {
            Some(key) => (key.as_bytes(), true, &[][..]),
            None => (self.message.routing_key(), self.message.marks().key_only, self.message.blind_keys()),
        };
        let marks = Marks { deaths: true, key_only };
        let sent = Sent { exchange, routing_key, expiration_ms: None, marks, blind_keys };
        let message = reroute::rewritten(&self.message, &owned, &sent);
        let mut queues = Vec::new();
        let tables = vhost.read();
        reroute::route(&tables, exchange, &message, &mut queues)?;
        if self.reason != DeathReason::Rejected {
            let cycling = cycling_queues(owned.headers.as_ref().map_or(&[], deaths));
            let cycling: Vec<_> =
                cycling.filter_map(|name| tables.queues.get(name)).map(|entry| entry.queue).collect();
            queues.retain(|queue| !cycling.contains(queue));
        }
        drop(tables);
        Some((message, queues))
    }

    /// Updates `x-death`, newest first, and the headers of the first and the last death
    /// (`mc:record_death/3`).
    fn record_death(&self, headers: &mut FieldTable, keys: &[Vec<u8>], now_ms: u64) {
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
                if let Some(expiration_ms) = self.message.expiration_ms() {
                    death.insert("original-expiration", FieldValue::string(&expiration_ms.to_string()));
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
        for (name, value) in ASPECTS.into_iter().zip([reason, queue, exchange]) {
            let first = format!("x-first-death-{name}");
            if headers.get(&first).is_none() {
                headers.insert(&first, value.clone());
            }
            set(headers, &format!("x-last-death-{name}"), value);
        }
    }
}

/// Removes all headers about deaths.
pub(crate) fn forget_deaths(headers: &mut FieldTable) {
    let names = ASPECTS.map(|aspect| [format!("x-first-death-{aspect}"), format!("x-last-death-{aspect}")]);
    headers.0.retain(|(name, _)| *name != *DEATHS && !names.iter().flatten().any(|gone| *name == **gone));
}

/// Where a message was before it died for the first time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FirstDeath {
    pub queue: Vec<u8>,
    /// Where it had come from, and with which key, if that is known.
    pub exchange: Option<Vec<u8>>,
    pub routing_key: Option<Vec<u8>>,
}

impl FirstDeath {
    /// What the headers tell of it; none if the message did not die.
    pub(crate) fn of(headers: &FieldTable) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(FieldValue::as_long_string);
        let queue = text("x-first-death-queue")?;
        let reason = text("x-first-death-reason");
        let is_first = |death: &&FieldTable| {
            let field = |name| death.get(name).and_then(FieldValue::as_long_string);
            field("queue") == Some(queue) && (reason.is_none() || field("reason") == reason)
        };
        let deaths = deaths(headers).iter().filter_map(|death| match death {
            FieldValue::Table(death) => Some(death),
            _ => None,
        });
        let first = deaths.rev().find(is_first);
        let exchange = first.and_then(|death| death.get("exchange")?.as_long_string());
        let routing_key = first.and_then(|death| match death.get("routing-keys")? {
            FieldValue::Array(keys) => keys.first()?.as_long_string(),
            _ => None,
        });
        Some(Self {
            queue: queue.to_vec(),
            exchange: exchange.map(<[u8]>::to_vec),
            routing_key: routing_key.map(<[u8]>::to_vec),
        })
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

    use warren_amqp091_codec::Dialect;
    use warren_testkit::MemoryJournal;
    use warren_types::MessageParts;

    use super::*;

    /// A message as a client publishes it.
    fn published(properties: &OwnedProperties) -> Message {
        let mut encoded = Vec::new();
        properties.encode(Dialect::Amqp091, &mut encoded);
        let expiration = properties.expiration.as_deref().map(String::from_utf8_lossy);
        let parts = MessageParts {
            routing_key: b"key",
            properties: &encoded,
            expiration_ms: expiration.map(|ms| ms.parse().expect("a number")),
            ..MessageParts::default()
        };
        Message::new(&parts, b"body")
    }

    fn die_with(key: Option<&str>, message: Message, reason: DeathReason, queue: &str) -> Message {
        let vhost = Vhost::new("/", Arc::new(MemoryJournal::durable()));
        let target = DeadLetterTarget {
            exchange: "".into(),
            routing_key: key.map(|key| ShortString::truncated(key.as_bytes())),
        };
        let letter = DeadLetter { message, reason, target, queue: ShortString::truncated(queue.as_bytes()) };
        let (message, queues) = letter.route(&vhost, 5_000).expect("there is a default exchange");
        assert!(queues.is_empty());
        assert_eq!(message.body(), b"body");
        message
    }

    fn die(message: Message, reason: DeathReason, queue: &str) -> Message {
        die_with(None, message, reason, queue)
    }

    fn properties(message: &Message) -> OwnedProperties {
        Properties::parse(message.properties()).expect("they were just written").to_owned()
    }

    fn headers(message: &Message) -> FieldTable {
        properties(message).headers.expect("there are headers")
    }

    /// `queue reason count` of each death, newest first.
    fn summary(message: &Message) -> Vec<String> {
        let headers = headers(message);
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
        deaths(&headers).iter().map(one).collect()
    }

    #[test]
    fn deaths_are_counted_newest_first() {
        let first = die(published(&OwnedProperties::default()), DeathReason::Rejected, "a");
        let second = die(first, DeathReason::Expired, "b");
        assert_eq!(summary(&second), ["b expired 1", "a rejected 1"]);
        let third = die(second, DeathReason::Rejected, "a");
        assert_eq!(summary(&third), ["a rejected 2", "b expired 1"]);
        let headers = headers(&third);
        assert_eq!(headers.get("x-first-death-queue"), Some(&FieldValue::string("a")));
        assert_eq!(headers.get("x-last-death-queue"), Some(&FieldValue::string("a")));
    }

    #[test]
    fn the_expiration_moves_into_the_record() {
        let properties = OwnedProperties { expiration: Some(b"10".to_vec()), ..OwnedProperties::default() };
        let dead = die(published(&properties), DeathReason::Expired, "a");
        assert_eq!((self::properties(&dead).expiration, dead.expiration_ms()), (None, None));
        let headers = headers(&dead);
        let [FieldValue::Table(death)] = deaths(&headers) else { panic!("no record of the death") };
        assert_eq!(death.get("original-expiration"), Some(&FieldValue::string("10")));
    }

    #[test]
    fn m33_a_record_that_a_client_wrote_is_overwritten() {
        let once = die(published(&OwnedProperties::default()), DeathReason::Expired, "a");
        let twice = die(once, DeathReason::MaxLen, "b");
        // What a client publishes again is a new message, whatever it says of its deaths.
        let again = published(&properties(&twice));
        let dead = die(again, DeathReason::Rejected, "b");
        assert_eq!(summary(&dead), ["b rejected 1"]);
        assert_eq!(headers(&dead).get("x-first-death-queue"), Some(&FieldValue::string("b")));
        assert_eq!(headers(&dead).0.len(), 7, "no header is there twice");
    }

    #[test]
    fn m33_what_a_client_writes_makes_no_cycle_and_breaks_none() {
        let mut forged = FieldTable::new();
        forged.insert("x-death", FieldValue::string("not even an array"));
        forged.insert("x-last-death-queue", FieldValue::Bool(true));
        forged.insert("mine", FieldValue::Void);
        let properties = OwnedProperties { headers: Some(forged), ..OwnedProperties::default() };
        let dead = die(published(&properties), DeathReason::Expired, "a");
        assert_eq!(summary(&dead), ["a expired 1"]);
        assert_eq!(headers(&dead).get("x-last-death-queue"), Some(&FieldValue::string("a")));
        assert_eq!(headers(&dead).get("mine"), Some(&FieldValue::Void));
    }

    #[test]
    fn m32_another_routing_key_leaves_the_header_of_copies_without_effect() {
        let mut headers = FieldTable::new();
        let copies = FieldValue::Array(vec![FieldValue::string("copy")]);
        headers.insert("CC", copies.clone());
        let cc = OwnedProperties { headers: Some(headers), ..OwnedProperties::default() };
        let keys = |message: &Message| {
            let headers = self::headers(message);
            assert_eq!(headers.get("CC"), Some(&copies));
            routing_keys(message, &headers)
        };
        let kept = die(published(&cc), DeathReason::Rejected, "a");
        assert_eq!(keys(&kept), [b"key".to_vec(), b"copy".to_vec()]);
        let sent = die_with(Some("other"), kept, DeathReason::Rejected, "a");
        assert_eq!(keys(&sent), [b"other".to_vec()]);
        assert_eq!(keys(&die(sent, DeathReason::Rejected, "b")), [b"other".to_vec()]);
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
