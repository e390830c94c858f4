//! What a client says, from words to bytes.
//!
//! One line is one thing said: `CHANNEL METHOD POSITIONAL... flag... key=value...`. `-` stands for an empty
//! string. Not every argument of every method can be said: only what the dialogues need.

use warren_amqp091_codec::{Dialect, Method, OwnedProperties, frame};
use warren_types::{FieldTable, FieldValue};

struct Words<'a> {
    positional: Vec<&'a str>,
    all: Vec<&'a str>,
}

impl<'a> Words<'a> {
    const FLAGS: &'static [&'static str] = &[
        "active",
        "auto-delete",
        "durable",
        "exclusive",
        "global",
        "if-empty",
        "if-unused",
        "immediate",
        "mandatory",
        "multiple",
        "no-ack",
        "nowait",
        "passive",
        "requeue",
    ];

    fn of(line: &'a str) -> Self {
        let all: Vec<&str> = line.split_whitespace().collect();
        let positional =
            all.iter().copied().filter(|word| !Self::FLAGS.contains(word) && !word.contains('=')).collect();
        Self { positional, all }
    }

    fn text(&self, index: usize) -> &'a str {
        match self.positional.get(index).copied() {
            Some("-") | None => "",
            Some(word) => word,
        }
    }

    fn bytes(&self, index: usize) -> &'a [u8] {
        self.text(index).as_bytes()
    }

    fn number<T: std::str::FromStr>(&self, index: usize) -> T {
        self.text(index).parse().unwrap_or_else(|_| panic!("{:?} lacks number {index}", self.all))
    }

    fn has(&self, flag: &str) -> bool {
        self.all.contains(&flag)
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.all.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn bytes_of(&self, key: &str) -> Option<Vec<u8>> {
        self.value(key).map(|value| value.as_bytes().to_vec())
    }

    /// `x-name=value`: integers as such, `[a,b]` as an array of strings, anything else as a string.
    fn table(&self) -> FieldTable {
        let mut table = FieldTable::new();
        for (name, value) in self.all.iter().filter_map(|word| word.split_once('=')) {
            let Some(name) = name.strip_prefix("t:") else { continue };
            let list = value.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
            let value = match (list, value.parse()) {
                (Some(list), _) => FieldValue::Array(list.split(',').map(FieldValue::string).collect()),
                (None, Ok(number)) => FieldValue::I32(number),
                (None, Err(_)) => FieldValue::string(value),
            };
            table.insert(name, value);
        }
        table
    }

    fn properties(&self) -> Vec<u8> {
        let headers = self.table();
        let properties = OwnedProperties {
            headers: (!headers.is_empty()).then_some(headers),
            delivery_mode: self.value("mode").map(|mode| mode.parse().unwrap()),
            correlation_id: self.bytes_of("correlation-id"),
            reply_to: self.bytes_of("reply-to"),
            expiration: self.bytes_of("expiration"),
            user_id: self.bytes_of("user-id"),
            ..OwnedProperties::default()
        };
        let mut out = Vec::new();
        properties.encode(Dialect::Amqp091, &mut out);
        out
    }
}

/// The bytes for one line.
///
/// # Panics
/// If it makes no sense.
pub fn encode(dialect: Dialect, line: &str) -> Vec<u8> {
    let words = Words::of(line);
    let mut out = Vec::new();
    match words.text(0) {
        "header" => return header(words.text(1)).to_vec(),
        "raw" => {
            let hex: String = words.positional[1..].concat();
            let octet = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            return (0..hex.len()).step_by(2).map(octet).collect();
        }
        "repeat" => {
            let (count, rest) = line.trim_start()["repeat".len()..].trim_start().split_once(' ').unwrap();
            return encode(dialect, rest).repeat(count.parse().unwrap());
        }
        _ => {}
    }
    let channel: u16 = words.number(0);
    match words.text(1) {
        "heartbeat" => {
            frame::put_heartbeat(&mut out);
            out[1..3].copy_from_slice(&channel.to_be_bytes());
        }
        "content" => {
            frame::put_content_header(&mut out, channel, words.number(2), &words.properties());
        }
        "body" => put_body(&mut out, channel, words.bytes(2)),
        "publish" => {
            frame::put_method(&mut out, dialect, channel, &publish(&words));
            let body = words.bytes(4);
            frame::put_content_header(&mut out, channel, body.len() as u64, &words.properties());
            if !body.is_empty() {
                put_body(&mut out, channel, body);
            }
        }
        "publish-zeros" => {
            frame::put_method(&mut out, dialect, channel, &publish(&words));
            let len: usize = words.number(4);
            frame::put_content_header(&mut out, channel, len as u64, &words.properties());
            put_body(&mut out, channel, &vec![b'0'; len]);
        }
        // In 0-8 the same but for the types of the table's values, and clients send those of 0-9-1 there.
        "start-ok" => {
            frame::put_method(&mut out, Dialect::Amqp091, channel, &connection_method("start-ok", &words));
        }
        name => {
            let method =
                if channel == 0 { connection_method(name, &words) } else { channel_method(name, &words) };
            frame::put_method(&mut out, dialect, channel, &method);
        }
    }
    out
}

fn header(dialect: &str) -> &'static [u8] {
    match dialect {
        "091" => b"AMQP\x00\x00\x09\x01",
        "09" => b"AMQP\x01\x01\x00\x09",
        "08" => b"AMQP\x01\x01\x08\x00",
        "08-amqplib" => b"AMQP\x01\x01\x09\x01",
        "10" => b"AMQP\x00\x01\x00\x00",
        "http" => b"GET / HT",
        other => panic!("no header {other}"),
    }
}

fn put_body(out: &mut Vec<u8>, channel: u16, body: &[u8]) {
    frame::put_body_head(out, channel, body.len() as u32);
    out.extend_from_slice(body);
    out.push(frame::END);
}

fn publish<'a>(words: &Words<'a>) -> Method<'a> {
    Method::BasicPublish {
        ticket: 0,
        exchange: words.bytes(2),
        routing_key: words.bytes(3),
        mandatory: words.has("mandatory"),
        immediate: words.has("immediate"),
    }
}

fn connection_method<'a>(name: &str, words: &Words<'a>) -> Method<'a> {
    match name {
        // `start-ok MECHANISM USER PASSWORD capability...`
        "start-ok" => {
            let mut capabilities = FieldTable::new();
            for name in &words.positional[5.min(words.positional.len())..] {
                capabilities.insert(name, FieldValue::Bool(true));
            }
            let mut client_properties = FieldTable::new();
            client_properties.insert("capabilities", FieldValue::Table(capabilities));
            Method::ConnectionStartOk {
                client_properties,
                mechanism: words.bytes(2),
                response: response(words),
                locale: b"en_US",
            }
        }
        "tune-ok" => Method::ConnectionTuneOk {
            channel_max: words.number(2),
            frame_max: words.number(3),
            heartbeat: words.number(4),
        },
        "open" => Method::ConnectionOpen { virtual_host: words.bytes(2), capabilities: b"", insist: false },
        "close" => Method::ConnectionClose { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 },
        "close-ok" => Method::ConnectionCloseOk,
        "update-secret" => Method::ConnectionUpdateSecret { new_secret: words.bytes(2), reason: b"" },
        "channel.open" => Method::ChannelOpen { out_of_band: b"" },
        other => panic!("no method {other} on channel 0"),
    }
}

fn response(words: &Words<'_>) -> &'static [u8] {
    let (user, password) = (words.text(3), words.text(4));
    let response = match words.text(2) {
        "AMQPLAIN" => {
            let mut login = FieldTable::new();
            login.insert("LOGIN", FieldValue::string(user));
            login.insert("PASSWORD", FieldValue::string(password));
            let mut encoded = Vec::new();
            warren_amqp091_codec::table::encode(&login, Dialect::Amqp091, &mut encoded);
            encoded.split_off(4)
        }
        _ if user.is_empty() => Vec::new(),
        _ => format!("\0{user}\0{password}").into_bytes(),
    };
    Box::leak(response.into_boxed_slice())
}

fn channel_method<'a>(name: &str, words: &Words<'a>) -> Method<'a> {
    let (a, b, c) = (words.bytes(2), words.bytes(3), words.bytes(4));
    let (ticket, nowait, arguments) = (0, words.has("nowait"), words.table());
    match name {
        "channel.open" => Method::ChannelOpen { out_of_band: b"" },
        "channel.close" => {
            Method::ChannelClose { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 }
        }
        "channel.close-ok" => Method::ChannelCloseOk,
        "flow" => Method::ChannelFlow { active: words.has("active") },
        "access" => Method::AccessRequest {
            realm: a,
            exclusive: false,
            passive: false,
            active: true,
            write: true,
            read: true,
        },
        "exchange" => Method::ExchangeDeclare {
            ticket,
            exchange: a,
            kind: b,
            passive: words.has("passive"),
            durable: words.has("durable"),
            auto_delete: words.has("auto-delete"),
            internal: false,
            nowait,
            arguments,
        },
        "exchange.delete" => {
            Method::ExchangeDelete { ticket, exchange: a, if_unused: words.has("if-unused"), nowait }
        }
        "exchange.bind" => {
            Method::ExchangeBind { ticket, destination: a, source: b, routing_key: c, nowait, arguments }
        }
        "exchange.unbind" => {
            Method::ExchangeUnbind { ticket, destination: a, source: b, routing_key: c, nowait, arguments }
        }
        "declare" => Method::QueueDeclare {
            ticket,
            queue: a,
            passive: words.has("passive"),
            durable: words.has("durable"),
            exclusive: words.has("exclusive"),
            auto_delete: words.has("auto-delete"),
            nowait,
            arguments,
        },
        "bind" => Method::QueueBind { ticket, queue: a, exchange: b, routing_key: c, nowait, arguments },
        "unbind" => Method::QueueUnbind { ticket, queue: a, exchange: b, routing_key: c, arguments },
        "purge" => Method::QueuePurge { ticket, queue: a, nowait },
        "delete" => Method::QueueDelete {
            ticket,
            queue: a,
            if_unused: words.has("if-unused"),
            if_empty: words.has("if-empty"),
            nowait,
        },
        "qos" => Method::BasicQos {
            prefetch_size: words.value("size").map_or(0, |size| size.parse().unwrap()),
            prefetch_count: words.number(2),
            global: words.has("global"),
        },
        "consume" => Method::BasicConsume {
            ticket,
            queue: a,
            consumer_tag: b,
            no_local: false,
            no_ack: words.has("no-ack"),
            exclusive: words.has("exclusive"),
            nowait,
            arguments,
        },
        "cancel" => Method::BasicCancel { consumer_tag: a, nowait },
        "begin-publish" => publish(words),
        "get" => Method::BasicGet { ticket, queue: a, no_ack: words.has("no-ack") },
        "ack" => Method::BasicAck { delivery_tag: words.number(2), multiple: words.has("multiple") },
        "reject" => Method::BasicReject { delivery_tag: words.number(2), requeue: words.has("requeue") },
        "nack" => Method::BasicNack {
            delivery_tag: words.number(2),
            multiple: words.has("multiple"),
            requeue: words.has("requeue"),
        },
        "recover" => Method::BasicRecover { requeue: words.has("requeue") },
        "recover-async" => Method::BasicRecoverAsync { requeue: words.has("requeue") },
        "confirm" => Method::ConfirmSelect { nowait },
        "tx.select" => Method::TxSelect,
        "tx.commit" => Method::TxCommit,
        "tx.rollback" => Method::TxRollback,
        "close" => Method::ConnectionClose { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 },
        other => panic!("no method {other}"),
    }
}
