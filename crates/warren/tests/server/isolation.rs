//! What goes wrong on one channel or connection stays there.

use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use warren_amqp091_codec::{Method, OwnedProperties};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::{Client, declare, number_of, numbered, publish, put_publish};

#[test]
fn a_channel_error_leaves_other_channels_alone() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    client.open_channel(2);
    client.declare(1, "queue");
    client.consume(1, "queue", false);
    client.publish(2, "queue", b"before");
    let (tag, _, body) = client.receiver.delivery();
    assert_eq!(body, b"before");

    let close = client.call(2, &declare("missing", true), "channel.close");
    let Method::ChannelClose { reply_code, reply_text, .. } = close.method() else { unreachable!() };
    assert_eq!(
        (reply_code, String::from_utf8_lossy(reply_text).as_ref()),
        (404, "NOT_FOUND - no queue 'missing' in vhost '/'")
    );

    // Even while the other one waits for its end: what was delivered can be settled, and more comes.
    client.send(1, &Method::BasicAck { delivery_tag: tag, multiple: false });
    client.publish(1, "queue", b"after");
    assert_eq!(client.receiver.delivery().2, b"after");

    client.send(2, &Method::ChannelCloseOk {});
    client.open_channel(2);
    client.publish(2, "queue", b"again");
    assert_eq!(client.receiver.delivery().2, b"again");
    client.close();
}

/// Where a client waits for direct replies.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[test]
fn m38_nobody_waits_for_replies_on_a_connection_that_was_lost() {
    let broker = Broker::start();
    let mut server = Client::with_channel(broker.address());
    server.declare(1, "requests");
    server.consume(1, "requests", true);
    let mut requester = Client::with_channel(broker.address());
    requester.consume(1, REPLY_TO, true);
    let properties = OwnedProperties { reply_to: Some(REPLY_TO.into()), ..OwnedProperties::default() };
    requester.publish_with(1, "", "requests", &properties, b"request");
    let address = server.receiver.message().properties.reply_to.expect("it wants a reply");
    let address = String::from_utf8(address).expect("it is text");
    server.declare(1, &address);
    // Lost, not closed.
    drop(requester);
    let is_gone = poll(PATIENCE, || {
        server.send(1, &declare(&address, true));
        matches!(server.receiver.next().method(), Method::ChannelClose { reply_code: 404, .. })
    });
    assert!(is_gone, "the address outlives its connection");
}

#[test]
fn a_channel_that_goes_returns_what_it_held() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    client.open_channel(2);
    client.declare(1, "queue");
    client.consume(2, "queue", false);
    for number in 0..10 {
        client.publish(1, "queue", &numbered(number, 100));
    }
    for number in 0..10 {
        assert_eq!(number_of(&client.receiver.delivery().2), number);
    }
    client.call(2, &declare("missing", true), "channel.close");
    client.send(2, &Method::ChannelCloseOk {});
    client.consume(1, "queue", false);
    for number in 0..10 {
        let (_, redelivered, body) = client.receiver.delivery();
        assert_eq!((number_of(&body), redelivered), (number, true));
    }
    client.close();
}

#[test]
fn a_connection_error_leaves_other_connections_alone() {
    let broker = Broker::start();
    let mut good = Client::with_channel(broker.address());
    good.declare(1, "queue");
    good.consume(1, "queue", false);
    let mut bad = Client::with_channel(broker.address());
    // Content without a method before it.
    let mut bytes = Vec::new();
    put_publish(&mut bytes, 1, &publish("queue"), b"fine");
    let method_len = bytes.len();
    put_publish(&mut bytes, 1, &publish("queue"), b"broken");
    let header_at = method_len
        + 7
        + u32::from_be_bytes(bytes[method_len + 3..method_len + 7].try_into().expect("these are four"))
            as usize
        + 1;
    bytes.drain(method_len..header_at);
    bad.write(&bytes);
    let close = bad.receiver.method("connection.close");
    let Method::ConnectionClose { reply_code, .. } = close.method() else { unreachable!() };
    assert_eq!(reply_code, 505);
    assert_eq!(good.receiver.delivery().2, b"fine");
    good.publish(1, "queue", b"more");
    assert_eq!(good.receiver.delivery().2, b"more");
    good.close();
}

#[test]
fn a_connection_that_breaks_within_a_publish_leaves_whole_messages() {
    /// More than a frame, so that a body comes in pieces.
    const LEN: usize = 300_000;
    const COUNT: u64 = 40;
    let broker = Broker::start();
    let mut reader = Client::with_channel(broker.address());
    for round in 0..3 {
        let queue = format!("queue-{round}");
        reader.declare(1, &queue);
        let mut bytes = Vec::new();
        for number in 0..COUNT {
            put_publish(&mut bytes, 1, &publish(&queue), &numbered(number, LEN));
        }
        let mut writer = Client::with_channel(broker.address());
        // The cut is in a different part of a message in each round, the first ones sure to be there.
        writer.write(&bytes[..bytes.len() / 2]);
        assert!(poll(PATIENCE, || reader.declare(1, &queue) >= 3), "the first ones arrived");
        writer.write(&bytes[bytes.len() / 2..bytes.len() - 150_000 - round * 70_000]);
        set_socket_linger(&writer.socket, Some(Duration::ZERO)).expect("it is a socket");
        drop(writer);
        // Its last messages may still come in.
        let mut count = 0;
        let mut stable = 0;
        assert!(
            poll(PATIENCE, || {
                let now = reader.declare(1, &queue);
                stable = if now == count { stable + 1 } else { 0 };
                count = now;
                stable > 20
            }),
            "the queue comes to rest"
        );
        let mut number = 0;
        while let Some(body) = reader.get(1, &queue) {
            assert_eq!(body.len(), LEN);
            assert_eq!(number_of(&body), number);
            number += 1;
        }
        assert!((3..COUNT).contains(&number), "{number} arrived");
    }
    reader.close();
}

#[test]
fn an_exclusive_queue_goes_with_a_connection_that_breaks() {
    let broker = Broker::start();
    let mut owner = Client::with_channel(broker.address());
    let Method::QueueDeclare { ticket, queue, passive, durable, auto_delete, nowait, arguments, .. } =
        declare("own", false)
    else {
        unreachable!()
    };
    let own = Method::QueueDeclare {
        ticket,
        queue,
        passive,
        durable,
        exclusive: true,
        auto_delete,
        nowait,
        arguments,
    };
    owner.call(1, &own, "queue.declare-ok");
    set_socket_linger(&owner.socket, Some(Duration::ZERO)).expect("it is a socket");
    drop(owner);
    let mut other = Client::open(broker.address());
    let is_gone = poll(PATIENCE, || {
        other.open_channel(1);
        other.send(1, &declare("own", true));
        let close = other.receiver.method("channel.close");
        other.send(1, &Method::ChannelCloseOk {});
        let Method::ChannelClose { reply_code, .. } = close.method() else { unreachable!() };
        // 405 as long as it has an owner.
        reply_code == 404
    });
    assert!(is_gone);
    other.close();
}
