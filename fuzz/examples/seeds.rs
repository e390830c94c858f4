//! Writes the seeds of the corpus: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`, from the root.

use std::fs;
use std::path::Path;

use warren_amqp091_codec::frame::{self, FrameHead};
use warren_amqp091_codec::{Dialect, table};
use warren_types::{FieldTable, FieldValue};

#[path = "../../crates/amqp091/tests/dialogue/script.rs"]
#[allow(dead_code)]
mod script;

const HANDSHAKE: &str = "header 091
    0 start-ok PLAIN guest guest authentication_failure_close consumer_cancel_notify connection.blocked
    0 tune-ok 10 8192 10
    0 open /";

/// Dialogues behind `connection.open`.
const SESSIONS: &[(&str, &str)] = &[
    (
        "publish",
        "1 channel.open/1 declare q/1 publish - q hello mode=2 t:n=1/1 publish - nowhere x mandatory",
    ),
    (
        "get",
        "1 channel.open/1 declare q/1 publish - q a/1 publish - q b/1 get q/1 get q no-ack/1 get q/1 ack 1",
    ),
    (
        "consume",
        "1 channel.open/1 declare q/1 qos 1/1 consume q t/repeat 3 1 publish - q a/1 ack 1/1 cancel t",
    ),
    (
        "global",
        "1 channel.open/1 declare q/1 declare r/1 qos 1 global/1 consume q t/1 consume r u/1 publish - q a/1 publish - r b/1 ack 0 multiple",
    ),
    (
        "confirms",
        "1 channel.open/1 declare q/1 confirm/1 publish - q a/1 publish - nowhere b/1 publish - q c/1 channel.close",
    ),
    (
        "nacks",
        "1 channel.open/1 declare q t:x-max-length=1 t:x-overflow=reject-publish/1 confirm/repeat 3 1 publish - q a",
    ),
    (
        "commit",
        "1 channel.open/1 declare q/1 tx.select/1 publish - q a/1 tx.commit/1 get q/1 ack 1/1 tx.commit",
    ),
    (
        "rollback",
        "1 channel.open/1 declare q/1 publish - q a/1 tx.select/1 get q/1 ack 1/1 publish - q b/1 tx.rollback/1 ack 0 multiple/1 tx.commit",
    ),
    (
        "reply",
        "1 channel.open/1 consume amq.rabbitmq.reply-to t no-ack/2 channel.open/2 publish - amq.rabbitmq.reply-to.0000000000000000000001 x/1 cancel t",
    ),
    (
        "recover",
        "1 channel.open/1 declare q/repeat 2 1 publish - q a/1 consume q t/1 recover requeue/1 nack 0 multiple requeue/1 reject 5",
    ),
    (
        "delete",
        "1 channel.open/1 declare q exclusive/1 consume q t/1 publish - q a/1 delete q/1 declare q auto-delete/1 consume q t/1 cancel t/0 close",
    ),
    (
        "exchanges",
        "1 channel.open/1 exchange e topic/1 exchange f fanout/1 exchange.bind f e a.#/1 declare q/1 bind q f -/1 publish e a.b x t:CC=[c] t:BCC=[d]/1 unbind q f -/1 exchange.delete e",
    ),
    (
        "failed",
        "1 channel.open/1 declare q passive/1 publish - q a/1 channel.close-ok/1 channel.open/1 ack 7/1 channel.close",
    ),
    (
        "pieces",
        "1 channel.open/1 declare q/1 begin-publish - q/1 content 6/1 body abc/0 heartbeat/1 body def/1 begin-publish - q/1 content 0",
    ),
    ("toolong", "1 channel.open/1 begin-publish - q/1 content 2/1 body abc/0 close-ok"),
    ("early", "1 channel.open/1 begin-publish - q/1 get q/0 close-ok"),
    (
        "immediate",
        "1 channel.open/1 declare q/1 publish - q a immediate/1 consume q t/1 publish - q b immediate",
    ),
    ("large", "1 channel.open/1 declare q/1 publish-zeros - q 5000/1 get q"),
    ("closing", "1 channel.open/1 declare q exclusive/0 close/0 close-ok"),
];

fn bytes(dialect: Dialect, lines: impl Iterator<Item = impl AsRef<str>>) -> Vec<u8> {
    lines.flat_map(|line| script::encode(dialect, line.as_ref().trim())).collect()
}

fn main() -> std::io::Result<()> {
    connection()?;
    frames()?;
    tables()?;
    topics()
}

fn put(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// The frames of a stream as the target's list of (type, channel, length, payload).
fn framed(mut stream: &[u8]) -> Vec<u8> {
    let mut list = Vec::new();
    while let Some(head) = stream.first_chunk() {
        let head = FrameHead::parse(head);
        let end = frame::HEAD_LEN + head.size as usize;
        list.extend_from_slice(&[head.kind, head.channel as u8]);
        list.extend_from_slice(&(head.size as u16).to_be_bytes());
        list.extend_from_slice(&stream[frame::HEAD_LEN..end]);
        stream = &stream[end + 1..];
    }
    list
}

fn connection() -> std::io::Result<()> {
    const OPEN_AND_FRAMED: u8 = 3;
    for (name, session) in SESSIONS {
        let stream = bytes(Dialect::Amqp091, session.split('/').map(str::to_owned));
        let controls = [0x9e, 0x63, 0x5d, 0x9e, 0x7e, 0x8f];
        let seed = [&[OPEN_AND_FRAMED, controls.len() as u8], &controls[..], &framed(&stream)].concat();
        put("connection", name, &seed)?;
    }
    for (name, session) in SESSIONS.iter().step_by(4) {
        let lines = HANDSHAKE.lines().chain(session.split('/'));
        let seed = [&[0, 2, 0xa7, 0xb9], &bytes(Dialect::Amqp091, lines)[..]].concat();
        put("connection", &format!("raw-{name}"), &seed)?;
    }
    for (name, controls) in [
        ("blocked", &[0xaf, 0x9f, 0xcf, 0xbf, 0x9f][..]),
        ("forced", &[0x6e, 0xee, 0x9e, 0xdf]),
        ("idle", &[0xcf, 0xdf, 0xcf, 0xdf]),
        ("whole", &[]),
    ] {
        for options in [0x03, 0x0b, 0x23, 0x33] {
            let dialect = if options == 0x33 { Dialect::Amqp08 } else { Dialect::Amqp091 };
            let stream = bytes(dialect, SESSIONS[0].1.split('/').map(str::to_owned));
            let seed = [&[options, controls.len() as u8], controls, &framed(&stream)].concat();
            put("connection", &format!("{name}-{options:02x}"), &seed)?;
        }
    }
    let unopened = HANDSHAKE.lines().filter(|line| !line.contains("open"));
    put(
        "connection",
        "unopened",
        &[&[0, 3, 0xcf, 0xcf, 0xcf], &bytes(Dialect::Amqp091, unopened)[..]].concat(),
    )?;
    for (name, session) in [SESSIONS[1], SESSIONS[9], SESSIONS[16]] {
        let stream = bytes(
            Dialect::Amqp08,
            session.split('/').filter(|line| !line.contains("nack")).map(str::to_owned),
        );
        put("connection", &format!("08-{name}"), &[&[0x33, 0], &framed(&stream)[..]].concat())?;
    }
    for (name, text) in [
        ("refused", "header 091/0 start-ok PLAIN guest wrong authentication_failure_close/0 close-ok"),
        ("tune", "header 09/0 start-ok AMQPLAIN guest guest/0 tune-ok 0 0 0"),
        ("anonymous", "header 08/0 start-ok ANONYMOUS - -/0 tune-ok 10 8192 1"),
        ("header", "header 10"),
    ] {
        let stream = bytes(Dialect::Amqp091, text.split('/').map(str::to_owned));
        put("connection", name, &[&[4, 0], &stream[..]].concat())?;
    }
    Ok(())
}

fn frames() -> std::io::Result<()> {
    for (dialect, choice) in [(Dialect::Amqp091, 0), (Dialect::Amqp08, 2)] {
        let mut seen = std::collections::BTreeSet::new();
        for (_, session) in SESSIONS {
            let lines = session.split('/').filter(|line| {
                dialect != Dialect::Amqp08
                    || !["nack", "confirm", "exchange."].iter().any(|word| line.contains(word))
            });
            let list = framed(&bytes(dialect, lines.map(str::to_owned)));
            let mut rest = &list[..];
            while let [kind, _, high, low, behind @ ..] = rest {
                let (payload, next) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                rest = next;
                let offset = match *kind {
                    frame::METHOD => 0,
                    frame::HEADER => 3,
                    _ => continue,
                };
                let id = payload[..4].iter().fold(0_u32, |id, byte| id << 8 | u32::from(*byte));
                if seen.insert(id) || offset == 3 {
                    let name = format!("{choice}-{kind}-{id:08x}-{}", payload.len());
                    put("frames", &name, &[&[choice + offset], payload].concat())?;
                }
            }
        }
    }
    // Every property.
    let mut all = vec![6, 0xff, 0xfc, 1, b'a', 1, b'b', 0, 0, 0, 0, 2, 9];
    for _ in 0..4 {
        all.extend_from_slice(&[1, b'c']);
    }
    all.extend_from_slice(&[0; 8]);
    all.extend_from_slice(&[1, b'd', 1, b'e', 1, b'f', 1, b'g']);
    put("frames", "all-properties", &all)
}

fn tables() -> std::io::Result<()> {
    let nested = |value: FieldValue| {
        let mut inner = FieldTable::new();
        inner.insert("in", value);
        FieldValue::Table(inner)
    };
    let values = [
        ("bool", FieldValue::Bool(true)),
        ("i8", FieldValue::I8(-1)),
        ("u8", FieldValue::U8(200)),
        ("i16", FieldValue::I16(-300)),
        ("u16", FieldValue::U16(60_000)),
        ("i32", FieldValue::I32(-70_000)),
        ("u32", FieldValue::U32(4_000_000_000)),
        ("i64", FieldValue::I64(-5_000_000_000)),
        ("f32", FieldValue::F32(0.5)),
        ("f64", FieldValue::F64(f64::NAN)),
        ("decimal", FieldValue::Decimal { scale: 2, value: 314 }),
        ("string", FieldValue::string("text")),
        ("bytes", FieldValue::ByteArray(vec![0, 255])),
        ("array", FieldValue::Array(vec![FieldValue::I8(1), FieldValue::Void, FieldValue::string("a")])),
        ("timestamp", FieldValue::Timestamp(1_700_000_000)),
        ("void", FieldValue::Void),
        ("table", nested(nested(FieldValue::Array(vec![nested(FieldValue::Bool(false))])))),
    ];
    let mut all = FieldTable::new();
    for (name, value) in values {
        let mut one = FieldTable::new();
        one.insert(name, value.clone());
        all.insert(name, value);
        put_table(name, &one)?;
    }
    all.insert("bool", FieldValue::Bool(false));
    put_table("all", &all)
}

fn put_table(name: &str, value: &FieldTable) -> std::io::Result<()> {
    let mut encoded = Vec::new();
    table::encode(value, Dialect::Amqp091, &mut encoded);
    put("tables", name, &encoded[4..])
}

/// Operations as the target reads them: 6 queues, 8 operations of which 0 binds, 3 unbinds, 4 deletes, 5 routes.
fn topics() -> std::io::Result<()> {
    const BIND: u8 = 0;
    const UNBIND: u8 = 18;
    const DELETE: u8 = 24;
    const ROUTE: u8 = 30;
    let (a, b, star, hash, empty) = (0, 1, 2, 3, 4);
    let scripts: [(&str, &[&[u8]]); 7] = [
        ("plain", &[&[BIND, 2, a, b], &[BIND + 1, 2, a, a], &[ROUTE, 2, a, b]]),
        ("star", &[&[BIND, 2, a, star], &[BIND + 1, 1, star], &[ROUTE, 2, a, b], &[ROUTE, 1, a]]),
        (
            "hash",
            &[
                &[BIND, 1, hash],
                &[BIND + 1, 3, a, hash, b],
                &[ROUTE, 0],
                &[ROUTE, 4, a, a, b, b],
                &[ROUTE, 2, a, b],
            ],
        ),
        (
            "hashes",
            &[&[BIND, 5, hash, a, hash, b, hash], &[BIND + 1, 2, hash, hash], &[ROUTE, 6, b, a, b, a, a, b]],
        ),
        (
            "empty",
            &[
                &[BIND, 2, empty, empty],
                &[BIND, 0],
                &[ROUTE, 2, empty, empty],
                &[ROUTE, 0],
                &[ROUTE, 1, empty],
            ],
        ),
        (
            "unbind",
            &[
                &[BIND, 2, a, b],
                &[BIND, 2, a, hash],
                &[UNBIND, 2, a, b],
                &[ROUTE, 2, a, b],
                &[UNBIND, 2, a, hash],
                &[ROUTE, 2, a, b],
            ],
        ),
        (
            "delete",
            &[
                &[BIND, 2, a, b],
                &[BIND + 1, 2, a, b],
                &[DELETE],
                &[ROUTE + 1, 2, a, b, 1, a],
                &[BIND, 1, a],
                &[ROUTE, 1, a],
            ],
        ),
    ];
    for (name, operations) in scripts {
        put("topics", name, &operations.concat())?;
    }
    Ok(())
}
