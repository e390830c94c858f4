//! What a publish costs to read and a delivery to write, without the buffers and the socket.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use warren_amqp091_codec::{ContentHeader, Dialect, Method, OwnedProperties, Properties, frame};
use warren_types::{FieldTable, FieldValue};

const DIALECT: Dialect = Dialect::Amqp091;
const CHANNEL: u16 = 1;
const BODY: [u8; 256] = [b'x'; 256];

fn few_properties() -> OwnedProperties {
    OwnedProperties {
        content_type: Some(b"application/json".to_vec()),
        delivery_mode: Some(2),
        ..OwnedProperties::default()
    }
}

fn properties_with_headers() -> OwnedProperties {
    let mut headers = FieldTable::new();
    headers.insert("x-retries", FieldValue::I32(3));
    headers.insert("trace-id", FieldValue::string("4bf92f3577b34da6a3ce929d0e0e4736"));
    headers.insert("sampled", FieldValue::Bool(true));
    OwnedProperties { headers: Some(headers), ..few_properties() }
}

/// The three frames of a publish.
fn publish(properties: &OwnedProperties) -> Vec<u8> {
    let mut raw = Vec::new();
    properties.encode(DIALECT, &mut raw);
    let publish = Method::BasicPublish {
        ticket: 0,
        exchange: b"amq.topic",
        routing_key: b"orders.created.eu",
        mandatory: false,
        immediate: false,
    };
    let mut frames = Vec::new();
    frame::put_method(&mut frames, DIALECT, CHANNEL, &publish);
    frame::put_content_header(&mut frames, CHANNEL, BODY.len() as u64, &raw);
    frame::put_body_head(&mut frames, CHANNEL, BODY.len() as u32);
    frames.extend_from_slice(&BODY);
    frames.push(frame::END);
    frames
}

/// Takes the payload of the frame in front off `input`.
fn payload<'a>(input: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    let head = frame::FrameHead::parse(input.first_chunk()?);
    let end = frame::HEAD_LEN + head.size as usize;
    let payload = input.get(frame::HEAD_LEN..end)?;
    if head.kind != kind || *input.get(end)? != frame::END {
        return None;
    }
    *input = &input[end + 1..];
    Some(payload)
}

fn read_publish(mut input: &[u8]) -> Option<(usize, usize, bool)> {
    let method = Method::decode(DIALECT, payload(&mut input, frame::METHOD)?).ok()?;
    let Method::BasicPublish { exchange, routing_key, .. } = method else { return None };
    let header = ContentHeader::parse(payload(&mut input, frame::HEADER)?).ok()?;
    let properties = Properties::parse(header.properties).ok()?;
    let is_persistent = properties.delivery_mode() == Some(2);
    let has_keys = properties.has_header(b"CC") || properties.has_header(b"BCC");
    let body = payload(&mut input, frame::BODY)?;
    Some((exchange.len() + routing_key.len(), body.len(), is_persistent && !has_keys))
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    for (name, properties) in
        [("publish", few_properties()), ("publish with headers", properties_with_headers())]
    {
        let frames = publish(&properties);
        group.bench_function(name, |b| b.iter(|| read_publish(black_box(&frames))));
    }
    let mut ack = Vec::new();
    Method::BasicAck { delivery_tag: 7, multiple: true }.encode(DIALECT, &mut ack);
    group.bench_function("ack", |b| b.iter(|| Method::decode(DIALECT, black_box(&ack)).is_ok()));
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let mut properties = Vec::new();
    few_properties().encode(DIALECT, &mut properties);
    let mut out = Vec::with_capacity(4096);
    group.bench_function("deliver", |b| {
        b.iter(|| {
            out.clear();
            let deliver = Method::BasicDeliver {
                consumer_tag: black_box(b"amq.ctag-J8PW4gMRJ2OZAzbeDlJGpQ"),
                delivery_tag: black_box(7),
                redelivered: false,
                exchange: black_box(b"amq.topic"),
                routing_key: black_box(b"orders.created.eu"),
            };
            frame::put_method(&mut out, DIALECT, CHANNEL, &deliver);
            frame::put_content_header(&mut out, CHANNEL, BODY.len() as u64, black_box(&properties));
            frame::put_body_head(&mut out, CHANNEL, BODY.len() as u32);
            out.extend_from_slice(black_box(&BODY));
            out.push(frame::END);
            out.len()
        });
    });
    group.bench_function("ack", |b| {
        b.iter(|| {
            out.clear();
            let ack = Method::BasicAck { delivery_tag: black_box(7), multiple: true };
            frame::put_method(&mut out, DIALECT, CHANNEL, &ack);
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
