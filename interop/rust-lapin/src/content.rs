use crate::{scope::Scope, support::*};
use lapin::{
    BasicProperties, Channel, Connection, ExchangeKind,
    options::*,
    types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString},
};

fn string(text: &str) -> AMQPValue {
    LongString::from(text).into()
}

fn table(fields: Vec<(&str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name.into(), value);
    }
    table
}

/// A table with every type that this client can write.
fn full_table() -> FieldTable {
    let deep =
        table(vec![("deeper", FieldArray::from(vec![table(vec![("deepest", true.into())]).into()]).into())]);
    let nested = table(vec![
        ("void", AMQPValue::Void),
        ("empty", FieldTable::default().into()),
        ("deep", deep.into()),
    ]);
    let array = FieldArray::from(vec![
        1i32.into(),
        2i64.into(),
        string("three"),
        true.into(),
        AMQPValue::Void,
        FieldArray::default().into(),
        ByteArray::from(vec![4]).into(),
        table(vec![("k", string("v"))]).into(),
    ]);
    table(vec![
        ("true", true.into()),
        ("false", false.into()),
        ("i8", i8::MIN.into()),
        ("u8", u8::MAX.into()),
        ("i16", i16::MIN.into()),
        ("u16", u16::MAX.into()),
        ("i32", i32::MIN.into()),
        ("u32", u32::MAX.into()),
        ("i64", i64::MIN.into()),
        ("max i64", i64::MAX.into()),
        ("f32", 0.1f32.into()),
        ("f64", std::f64::consts::PI.into()),
        ("decimal", DecimalValue { scale: 4, value: 123_456_789 }.into()),
        ("string", string("Grüße, 兎 🐇")),
        ("bytes that are no text", LongString::from(vec![0xff, 0xfe, 0]).into()),
        ("empty string", string("")),
        ("long string", string(&"x".repeat(3000))),
        ("byte array", ByteArray::from(vec![0, 1, 0xce, 0xff]).into()),
        ("timestamp", AMQPValue::Timestamp(1_700_000_000)),
        ("table", nested.into()),
        ("array", array.into()),
        ("void", AMQPValue::Void),
        ("", string("the empty name")),
        ("name with spaces and ü", 1i16.into()),
    ])
}

fn with(mut table: FieldTable, name: &str, value: impl Into<AMQPValue>) -> FieldTable {
    table.insert(name.into(), value.into());
    table
}

pub async fn tables(scope: &Scope) -> Outcome {
    let channel = scope.confirm_channel().await?;
    properties(scope, &channel).await?;
    rewritten(scope, &channel).await?;
    arguments(scope, &channel).await
}

async fn properties(scope: &Scope, channel: &Channel) -> Outcome {
    let queue = scope.queue("properties");
    declare_queue(channel, &queue, true).await?;
    let mut consumer = consume(channel, &queue, true).await?;
    let all = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("gzip".into())
        .with_headers(full_table())
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("correlation".into())
        .with_reply_to("reply".into())
        .with_expiration("600000".into())
        .with_message_id("message".into())
        .with_timestamp(1_600_000_000)
        .with_type("type".into())
        .with_user_id("guest".into())
        .with_app_id("app".into())
        .with_cluster_id("cluster".into());
    let few = BasicProperties::default()
        .with_headers(FieldTable::default())
        .with_correlation_id("".into())
        .with_priority(0)
        .with_cluster_id("c".into());
    for sent in [all, few, BasicProperties::default()] {
        publish_with(channel, "", queue.as_str(), BasicPublishOptions::default(), &[1], sent.clone()).await?;
        assert_eq!(take_one(&mut consumer).await?.properties, sent);
    }
    Ok(())
}

/// To take out BCC, the broker has to write the headers itself.
async fn rewritten(scope: &Scope, channel: &Channel) -> Outcome {
    let (open, blind) = (scope.queue("open"), scope.queue("blind"));
    declare_queue(channel, &open, false).await?;
    declare_queue(channel, &blind, false).await?;
    let keys = |key: &str| FieldArray::from(vec![string(key)]);
    let expected = with(full_table(), "CC", keys("nowhere"));
    let properties = BasicProperties::default().with_priority(3).with_type("t".into());
    let sent = properties.clone().with_headers(with(expected.clone(), "BCC", keys(blind.as_str())));
    publish_with(channel, "", open.as_str(), BasicPublishOptions::default(), &[1, 2, 3], sent).await?;
    for queue in [&open, &blind] {
        let delivery = take_one(&mut consume(channel, queue, true).await?).await?;
        assert_eq!(delivery.data, [1, 2, 3]);
        assert_eq!(delivery.routing_key, open);
        assert_eq!(delivery.properties, properties.clone().with_headers(expected.clone()));
    }
    Ok(())
}

async fn arguments(scope: &Scope, channel: &Channel) -> Outcome {
    let queue = scope.queue("arguments");
    let declare = async |channel: &Channel, ttl: AMQPValue, length: AMQPValue| {
        let arguments = with(with(full_table(), "x-message-ttl", ttl), "x-max-length", length);
        channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments).await
    };
    declare(channel, 600_000i32.into(), 1000i64.into()).await?;
    declare(channel, 600_000i32.into(), 1000i64.into()).await?;
    // The width of an integer makes no difference.
    declare(channel, 600_000i64.into(), 1000i16.into()).await?;
    let inequivalent = format!(
        "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '{queue}' in vhost '/': received '5' but \
         current is '600000'"
    );
    channel_error(&scope.connect().await?, 406, &inequivalent, async |channel| {
        Ok(declare(&channel, 5i32.into(), 1000i64.into()).await?)
    })
    .await?;

    let exchange = scope.exchange("arguments");
    for _ in 0..2 {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, options, full_table()).await?;
    }

    // The arguments are part of a binding's identity: only equal ones take it away.
    channel
        .queue_bind(queue.clone(), exchange.clone(), "key".into(), QueueBindOptions::default(), full_table())
        .await?;
    for arguments in [with(full_table(), "i64", 0i64), FieldTable::default()] {
        channel.queue_unbind(queue.clone(), exchange.clone(), "key".into(), arguments).await?;
    }
    publish(channel, exchange.as_str(), "key", &["bound"]).await?;
    channel.queue_unbind(queue.clone(), exchange.clone(), "key".into(), full_table()).await?;
    publish(channel, exchange.as_str(), "key", &["unbound"]).await?;
    assert_eq!(drain(channel, &queue).await?, ["bound"]);

    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let arguments = with(full_table(), "x-priority", 5i32);
    let mut consumer = channel.basic_consume(queue.clone(), "".into(), options, arguments).await?;
    publish(channel, "", queue.as_str(), &["consumed"]).await?;
    same_deliveries(&[take_one(&mut consumer).await?], &["consumed"], false);
    Ok(())
}

pub async fn large_message(scope: &Scope) -> Outcome {
    let connection = scope.connect().await?;
    assert_eq!(connection.configuration().frame_max(), 131_072);
    round_trips(scope, &connection, "large").await?;

    let url = scope.url("guest:guest", "%2f?frame_max=8192");
    let small = Connection::connect(&url, scope.properties()).await?;
    assert_eq!(small.configuration().frame_max(), 8192);
    round_trips(scope, &small, "small frames").await
}

async fn round_trips(scope: &Scope, connection: &Connection, suffix: &str) -> Outcome {
    let channel = connection.create_channel().await?;
    let queue = scope.queue(suffix);
    declare_queue(&channel, &queue, false).await?;
    let mut consumer = consume(&channel, &queue, false).await?;
    let frame = connection.configuration().frame_max() as usize - 8;
    for size in [10 << 20, 0, 1, frame - 1, frame, frame + 1, 2 * frame] {
        let body = noise(size);
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), queue.clone(), options, &body, properties).await?;
        let delivery = take_one(&mut consumer).await?;
        assert_eq!(delivery.data.len(), size);
        // Not assert_eq, which would print the whole bodies.
        assert!(delivery.data == body, "a body of {size} bytes has changed");
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// Bytes without a pattern that exchanged or repeated frames would keep, from a linear congruential
/// generator.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 42u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(size)
    .collect()
}
