"""Content frames: their order and sizes, properties that cannot be decoded, size limits."""

import struct

import amqp
from harness import case, cases, expect
from peer import check_equal

PUBLISH = "basic.publish"
METHOD_EXPECTED = "expected method frame, got non method frame instead"
HEADER_EXPECTED = "expected content header for class 60, got non content header frame instead"
BODY_EXPECTED = "expected content body, got non content body frame instead"


def header(size, properties=b"\0\0", class_id=60, weight=0):
    return amqp.frame(amqp.HEADER, 1, amqp.content_header(size, properties, class_id, weight))


def body(data):
    return amqp.frame(amqp.BODY, 1, data)


# F4 ------------------------------------------------------------------------------------------


@cases(
    [
        ("content/F4-header-without-method", False, header(4), METHOD_EXPECTED, None),
        ("content/F4-body-without-method", False, body(b"x"), METHOD_EXPECTED, None),
        ("content/F4-body-instead-of-header", True, body(b"x"), HEADER_EXPECTED, PUBLISH),
        ("content/F4-header-with-weight", True, header(4, weight=1), HEADER_EXPECTED, PUBLISH),
        ("content/F4-second-header", True, header(4) + header(4), BODY_EXPECTED, PUBLISH),
        ("content/F4-header-inside-body", True, header(4) + body(b"ab") + header(4), BODY_EXPECTED, PUBLISH),
        ("content/F4-body-after-empty-content", True, header(0) + body(b"x"), METHOD_EXPECTED, None),
        (
            "content/F4-empty-body-frame-after-empty-content",
            True,
            header(0) + body(b""),
            METHOD_EXPECTED,
            None,
        ),
        (
            "content/F4-body-after-complete-content",
            True,
            header(1) + body(b"x") + body(b"x"),
            METHOD_EXPECTED,
            None,
        ),
        (
            "content/F4-header-of-another-class",
            True,
            header(4, class_id=50),
            "expected content header for class 60, got one for class 50 instead",
            PUBLISH,
        ),
    ]
)
def out_of_order(test, after_publish, frames, text, method):
    peer = test.connect()
    peer.channel()
    start = peer.method_frame(1, PUBLISH, routing_key="nowhere") if after_publish else b""
    peer.send_bytes(start + frames)
    peer.refused(505, text, method)


@cases(
    [
        ("content/F4-method-instead-of-header", b"", HEADER_EXPECTED),
        ("content/F4-method-instead-of-body", header(4), BODY_EXPECTED),
        ("content/F4-method-inside-body", header(4) + body(b"ab"), BODY_EXPECTED),
    ]
)
def method_too_early(test, frames, text):
    peer = test.connect()
    peer.channel()
    publish = peer.method_frame(1, PUBLISH, routing_key="nowhere")
    peer.send_bytes(publish + frames + peer.method_frame(1, "basic.qos"))
    peer.refused(505, text, PUBLISH)


@case("content/F4-heartbeat-on-the-channel-inside-content")
def heartbeat_inside(test):
    peer = test.connect()
    peer.channel()
    publish = peer.method_frame(1, PUBLISH, routing_key="nowhere")
    peer.send_bytes(publish + amqp.frame(amqp.HEARTBEAT, 1, b""))
    peer.refused(505, "type 8, all octets = <<>>")


@cases(
    [
        ("content/F4-too-much-body-in-one-frame", [b"12345"]),
        ("content/F4-too-much-body-in-the-last-frame", [b"123", b"45"]),
    ]
)
def too_much_body(test, pieces):
    peer = test.connect()
    peer.channel(1)
    other = peer.channel(2)
    publish = peer.method_frame(1, PUBLISH, routing_key="nowhere")
    peer.send_bytes(publish + header(4) + b"".join(map(body, pieces)))
    if test.broker.is_warren:
        peer.refused(501, "content body frame exceeds remaining content size", PUBLISH)
    else:
        # RabbitMQ 3.10 counts below zero and waits on, which later versions mend.
        other.alive()


@cases(
    [
        ("content/F4-body-size-above-512-MiB", 536870913),
        ("content/F4-body-size-2-to-63", 2**63),
        ("content/F4-body-size-2-to-64-less-1", 2**64 - 1),
    ]
)
def announced_too_large(test, size):
    peer = test.connect()
    peer.channel(1)
    other = peer.channel(2)
    peer.send_bytes(peer.method_frame(1, PUBLISH, routing_key="nowhere") + header(size))
    if test.broker.is_warren:
        text = f"content body size {size} exceeds maximum allowed size 536870912"
        peer.refused(501, text, PUBLISH)
    else:
        # RabbitMQ 3.10 checks the size only when all of it has come.
        other.alive()


# Accepted content ----------------------------------------------------------------------------


@cases(
    [
        ("content/F4-body-in-one-octet-frames", [bytes([number]) for number in range(256)] * 8),
        ("content/F4-empty-body-frames-before-and-inside", [b"", b"ab", b"", b"", b"cd"]),
        ("content/F4-uneven-body-frames", [b"a" * 3, b"b" * 70000, b"c", b"d" * 9000]),
    ]
)
def fragmented(test, pieces):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    whole = b"".join(pieces)
    peer.send_bytes(
        peer.method_frame(1, PUBLISH, routing_key=queue) + header(len(whole)) + b"".join(map(body, pieces))
    )
    check_equal("body", channel.get(queue).body, whole)


@case("content/F4-no-body-frame-for-size-0")
def no_body(test):
    channel = test.channel()
    queue = channel.queue()
    channel.publish(queue, b"")
    # Peer.content reads no body frame for size 0, so a superfluous one would be the next frame.
    check_equal("body", channel.get(queue).body, b"")
    channel.alive()


@cases([(f"content/F4-body-of-{size}", size) for size in (1, 4088, 131063, 131064, 131065, 262128, 262129)])
def sizes(test, size):
    channel = test.channel()
    queue = channel.queue()
    data = bytes(number * 7 % 251 for number in range(size))
    channel.publish(queue, data)
    check_equal("body is intact", channel.get(queue).body == data, True)
    channel.alive()


@case("content/F4-interleaved-with-another-channel")
def interleaved(test):
    # The order of frames is per channel; whole methods may come in between on another one.
    peer = test.connect()
    first, second = peer.channel(1), peer.channel(2)
    queue = first.queue(test.name())

    def frames(channel, data):
        return [
            peer.method_frame(channel, PUBLISH, routing_key=queue),
            amqp.frame(amqp.HEADER, channel, amqp.content_header(len(data))),
            amqp.frame(amqp.BODY, channel, data[:2]),
            amqp.frame(amqp.BODY, channel, data[2:]),
        ]

    pairs = zip(frames(1, b"one-"), frames(2, b"two-"), strict=True)
    peer.send_bytes(b"".join(left + right for left, right in pairs))
    peer.send(1, "basic.get", queue=queue, no_ack=True)
    one = first.content("basic.get-ok").body
    # The channels are independent, so channel 2's message is certain only after its own sync.
    second.alive()
    two = second.get(queue).body if one == b"one-" else first.get(queue).body
    check_equal("bodies", sorted([one, two]), [b"one-", b"two-"])


# Properties that cannot be decoded -------------------------------------------------------------


@cases(
    [
        ("content/F6-flags-missing", b""),
        ("content/F6-flags-truncated", b"\0"),
        ("content/F6-string-truncated", b"\x80\0\x05ab"),
        ("content/F6-octets-follow", b"\x80\0\x02abZZ"),
        ("content/F6-octets-follow-no-properties", b"\0\0Z"),
        ("content/F6-timestamp-truncated", b"\0\x40\0\0\0"),
        ("content/F6-headers-length-beyond-the-frame", b"\x20\0\0\0\0\x10\1aS"),
        ("content/F7-header-of-unknown-type", b"\x20\0" + amqp.longstr(b"\1aZ")),
        ("content/F7-header-truncated", b"\x20\0" + amqp.longstr(b"\1aI\0\0")),
        ("content/F6-property-beyond-the-fourteenth", b"\0\1\x80\0\2ab"),
    ]
)
def undecodable_properties(test, properties):
    peer = test.connect()
    channel = peer.channel()
    frame = amqp.frame(amqp.HEADER, 1, struct.pack(">HHQ", 60, 0, 0) + properties)
    peer.send_bytes(peer.method_frame(1, PUBLISH, routing_key=channel.queue()) + frame)
    if test.broker.is_warren:
        test.malformed(peer, PUBLISH)
    else:
        # The channel process crashes; RabbitMQ gives nothing but the code's name then.
        peer.expect(0, "connection.close", reply_code=541, reply_text="INTERNAL_ERROR")


@case("content/F6-flags-continuation-bit")
def continuation_bit(test):
    # The second word of flags names no property. RabbitMQ's decoder does not know the bit.
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    frame = amqp.frame(amqp.HEADER, 1, amqp.content_header(0, b"\x80\1\0\0\x02ab"))
    peer.send_bytes(peer.method_frame(1, PUBLISH, routing_key=queue) + frame)
    if test.broker.is_warren:
        channel.send("basic.get", queue=queue, no_ack=True)
        channel.expect("basic.get-ok")
        properties = peer.receive("content header").payload[12:]
        check_equal("property bytes", properties in (b"\x80\1\0\0\x02ab", b"\x80\0\x02ab"), True)
    else:
        peer.expect(0, "connection.close", reply_code=541)


# F5 ------------------------------------------------------------------------------------------


@case("content/F5-max-message-size", alone=True)
def max_message_size(test):
    limit = expect(rabbitmq=134217728, warren=16777216)
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    if test.broker.is_warren:
        # Too dear for the much larger limit of RabbitMQ.
        channel.publish(queue, bytes(limit))
        check_equal("size", len(channel.get(queue).body), limit)
    # The size is checked before the exchange, which does not exist.
    channel.publish(queue, bytes(limit + 1), exchange="no such exchange")
    size = limit + 1
    text = f"message size {size} is larger than configured max size {limit}"
    channel.refused(406, text, PUBLISH)
    channel.call("channel.open")
    channel.get_empty(queue)
