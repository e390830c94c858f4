"""Frames: size, end octet, types, segmentation, and methods that cannot be decoded."""

import amqp
from harness import case, cases, expect
from peer import check_equal, octets

FRAME_MIN = expect(rabbitmq=4096, warren=8192)


def frame_header(kind, channel, size):
    return amqp.frame(kind, channel, b"")[:3] + size.to_bytes(4, "big")


# F1 ------------------------------------------------------------------------------------------


@cases(
    [
        ("frames/F1-bad-end-0", 1, bytes(4), 0),
        ("frames/F1-bad-end-255", 1, bytes(4), 255),
        ("frames/F1-bad-end-on-channel-0", 0, bytes(4), 0),
        ("frames/F1-bad-end-of-empty-frame", 1, b"", 1),
    ]
)
def bad_end(test, channel, payload, end):
    peer = test.connect()
    peer.channel()
    peer.send_bytes(amqp.frame(amqp.METHOD, channel, payload, end))
    peer.refused(501, f"type 1, {octets(payload)}: {{invalid_frame_end_marker,{end}}}")


@cases(
    [
        ("frames/F1-too-large", 131072, 131073),
        ("frames/F1-too-large-after-smaller-frame-max", FRAME_MIN, FRAME_MIN + 1),
        ("frames/F1-size-of-4-gigabytes", 131072, 2**32 - 1),
    ]
)
def too_large(test, frame_max, size):
    peer = test.connect(frame_max=frame_max)
    peer.channel()
    # The header alone must do: the broker must not wait for so much payload.
    peer.send_bytes(frame_header(amqp.BODY, 1, size))
    text = f"type 3, all octets = <<>>: {{frame_too_large,{size},{frame_max - 8}}}"
    peer.refused(501, text)


@case("frames/F1-eight-octets-of-tolerance")
def tolerance(test):
    peer = test.connect(frame_max=FRAME_MIN)
    channel = peer.channel()
    queue = channel.queue()
    body = b"t" * FRAME_MIN
    peer.send_bytes(
        peer.method_frame(1, "basic.publish", routing_key=queue)
        + amqp.frame(amqp.HEADER, 1, amqp.content_header(len(body)))
        + amqp.frame(amqp.BODY, 1, body)
    )
    check_equal("body", channel.get(queue).body, body)


@case("frames/F1-server-keeps-frame-max")
def server_keeps_frame_max(test):
    # Peer.content checks the size of every body frame.
    channel = test.channel(frame_max=FRAME_MIN)
    queue = channel.queue()
    for size in (FRAME_MIN - 8, FRAME_MIN - 7, 3 * FRAME_MIN):
        channel.publish(queue, b"b" * size)
        check_equal("body size", len(channel.get(queue).body), size)


@case("frames/F1-headers-larger-than-frame-max-are-refused")
def large_headers(test):
    # A content header cannot be split over frames.
    peer = test.connect(frame_max=FRAME_MIN)
    peer.channel()
    properties = {"headers": {"a": "x" * FRAME_MIN}}
    frames = peer.publish_frames(1, "nowhere", b"", properties)
    size = len(peer.dialect.encode_properties(properties)) + 12
    peer.send_bytes(frames)
    text = f"type 2, all octets = <<>>: {{frame_too_large,{size},{FRAME_MIN - 8}}}"
    peer.refused(501, text)


# F2 ------------------------------------------------------------------------------------------


@cases(
    [
        ("frames/F2-unknown-type-0", 0, 1, bytes(2)),
        # OOB and trace frames of 0-8.
        ("frames/F2-unknown-type-4", 4, 1, bytes(2)),
        ("frames/F2-unknown-type-5", 5, 1, bytes(2)),
        ("frames/F2-unknown-type-6", 6, 1, bytes(2)),
        ("frames/F2-unknown-type-7", 7, 1, bytes(2)),
        ("frames/F2-unknown-type-9", 9, 1, bytes(2)),
        ("frames/F2-unknown-type-255", 255, 1, bytes(2)),
        ("frames/F2-unknown-type-on-channel-0", 9, 0, bytes(2)),
        ("frames/F2-unknown-type-on-closed-channel", 9, 2, bytes(2)),
        ("frames/F2-unknown-type-long", 9, 1, bytes(range(40))),
        ("frames/F2-empty-method", amqp.METHOD, 1, b""),
        ("frames/F2-method-of-3-octets", amqp.METHOD, 1, b"\0\x3c\0"),
        ("frames/F2-content-header-of-4-octets", amqp.HEADER, 1, b"\0\x3c\0\0"),
        ("frames/F2-heartbeat-with-payload", amqp.HEARTBEAT, 0, bytes(1)),
        ("frames/F2-heartbeat-with-payload-on-channel-1", amqp.HEARTBEAT, 1, bytes(1)),
    ]
)
def unknown_frame(test, kind, channel, payload):
    peer = test.connect()
    peer.channel()
    peer.send_bytes(amqp.frame(kind, channel, payload))
    peer.refused(501, f"type {kind}, {octets(payload)}: unknown_frame")


@cases(
    [
        ("frames/F2-heartbeat-on-channel-1", amqp.HEARTBEAT, 1, b""),
        ("frames/F2-heartbeat-on-closed-channel", amqp.HEARTBEAT, 2, b""),
        ("frames/F2-header-on-channel-0", amqp.HEADER, 0, amqp.content_header(0)),
        ("frames/F2-body-on-channel-0", amqp.BODY, 0, bytes(3)),
    ]
)
def unexpected_frame(test, kind, channel, payload):
    peer = test.connect()
    peer.channel()
    peer.send_bytes(amqp.frame(kind, channel, payload))
    peer.refused(505, f"type {kind}, {octets(payload)}")


# F11 -----------------------------------------------------------------------------------------


@cases(
    [
        ("frames/F11-unknown-class", 99, 1),
        ("frames/F11-class-0", 0, 0),
        ("frames/F11-class-65535", 65535, 65535),
        ("frames/F11-unknown-method-of-basic", 60, 99),
        ("frames/F11-unknown-method-of-queue", 50, 60),
        ("frames/F11-exchange-unbind-ok-of-the-schema", 40, 41),
        ("frames/F11-file-class", 70, 10),
        ("frames/F11-stream-class", 80, 10),
        ("frames/F11-dtx-class", 100, 10),
        ("frames/F11-tunnel-class", 110, 10),
        ("frames/F11-message-class", 120, 10),
    ]
)
def unknown_ids(test, class_id, method_id):
    peer = test.connect()
    peer.channel()
    ids = class_id.to_bytes(2, "big") + method_id.to_bytes(2, "big")
    peer.send_bytes(amqp.frame(amqp.METHOD, 1, ids))
    test.unknown_method(peer, (class_id, method_id))


@cases(
    [
        # Methods that only the server sends, or that belong on channel 0.
        ("frames/F11-connection-open-on-channel-1", "connection.open", {}),
        ("frames/F11-connection-close-ok-on-channel-1", "connection.close-ok", {}),
        ("frames/F11-channel-open-ok", "channel.open-ok", {}),
        ("frames/F11-channel-flow-ok", "channel.flow-ok", {"active": True}),
        ("frames/F11-channel-close-ok-unasked", "channel.close-ok", {}),
        (
            "frames/F11-queue-declare-ok",
            "queue.declare-ok",
            {"queue": "q", "message_count": 0, "consumer_count": 0},
        ),
        ("frames/F11-basic-qos-ok", "basic.qos-ok", {}),
        ("frames/F11-basic-cancel-ok", "basic.cancel-ok", {"consumer_tag": "t"}),
        ("frames/F11-basic-get-empty", "basic.get-empty", {}),
        ("frames/F11-confirm-select-ok", "confirm.select-ok", {}),
    ]
)
def not_for_the_server(test, name, arguments):
    peer = test.connect()
    channel = peer.channel()
    channel.send(name, **arguments)
    peer.refused(503, "unimplemented method", name)


@case("frames/F11-basic-deliver-with-content")
def deliver_to_the_server(test):
    peer = test.connect()
    peer.channel()
    deliver = peer.method_frame(
        1, "basic.deliver", consumer_tag="t", delivery_tag=1, exchange="", routing_key=""
    )
    peer.send_bytes(deliver + peer.content_frames(1, b"x"))
    peer.refused(503, "unimplemented method", "basic.deliver")


# Arguments that end too early or too late -----------------------------------------------------


@cases(
    [
        ("frames/undecodable-string-longer-than-the-frame", "queue.declare", b"\0\0\x05ab"),
        ("frames/undecodable-no-arguments-at-all", "queue.declare", b""),
        ("frames/undecodable-number-truncated", "basic.qos", b"\0\0"),
        ("frames/undecodable-bits-missing", "basic.qos", bytes(6)),
        ("frames/undecodable-table-missing", "queue.declare", b"\0\0\0\4"),
        ("frames/undecodable-table-length-truncated", "queue.declare", b"\0\0\0\4\0\0"),
        ("frames/undecodable-one-octet-follows", "basic.qos", bytes(8)),
        ("frames/undecodable-octets-follow-a-table", "queue.declare", b"\0\0\0\4\0\0\0\0\1\2\3\4"),
        ("frames/undecodable-octets-follow-no-arguments", "tx.select", bytes(1)),
    ]
)
def undecodable_arguments(test, method, arguments):
    peer = test.connect()
    peer.channel()
    ids = b"".join(number.to_bytes(2, "big") for number in peer.dialect.ids(method))
    peer.send_bytes(amqp.frame(amqp.METHOD, 1, ids + arguments))
    shown = ",".join(map(str, arguments))
    test.malformed(peer, method, 501, f"cannot decode <<{shown}>>", method)


@case("frames/undecodable-method-on-channel-0")
def undecodable_on_channel_0(test):
    peer = test.connect()
    peer.send_bytes(amqp.frame(amqp.METHOD, 0, b"\0\x0a\0\x32\0\xc8"))
    if test.broker.is_warren:
        test.malformed(peer, "connection.close")
    else:
        # RabbitMQ's reader catches its own decoding error as a crash.
        peer.expect(0, "connection.close", reply_code=541, reply_text="INTERNAL_ERROR")


# Segments ------------------------------------------------------------------------------------


@case("frames/F1-method-in-one-octet-segments")
def tiny_segments(test):
    peer = test.connect()
    channel = peer.channel()
    queue = test.name()
    data = (
        peer.method_frame(1, "queue.declare", queue=queue, exclusive=True)
        + peer.publish_frames(1, queue, b"body", {"content_type": "text/plain"})
        + peer.method_frame(1, "basic.get", queue=queue, no_ack=True)
    )
    for at in range(len(data)):
        peer.send_bytes(data[at : at + 1])
    channel.expect("queue.declare-ok", queue=queue)
    check_equal("body", channel.content("basic.get-ok").body, b"body")


@case("frames/F1-cut-at-every-octet")
def every_cut(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    data = peer.publish_frames(1, queue, b"ab", {"headers": {"k": 1}}) + peer.method_frame(
        1, "basic.get", queue=queue, no_ack=True
    )
    for cut in range(1, len(data)):
        peer.send_bytes(data[:cut])
        peer.send_bytes(data[cut:])
        check_equal(f"body after a cut at {cut}", channel.content("basic.get-ok").body, b"ab")


@case("frames/F1-a-thousand-frames-in-one-write")
def one_write(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    bodies = [f"{number}".encode() for number in range(400)]
    peer.send_bytes(
        b"".join(peer.publish_frames(1, queue, body) for body in bodies)
        + peer.method_frame(1, "basic.consume", queue=queue, consumer_tag="t", no_ack=True)
    )
    channel.expect("basic.consume-ok", consumer_tag="t")
    for body in bodies:
        check_equal("body", channel.delivery(consumer_tag="t").body, body)


@case("frames/F1-heartbeats-between-all-frames")
def heartbeats_between(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    beat = amqp.frame(amqp.HEARTBEAT, 0, b"")
    peer.send_bytes(
        peer.method_frame(1, "basic.publish", routing_key=queue)
        + beat
        + amqp.frame(amqp.HEADER, 1, amqp.content_header(4))
        + beat
        + amqp.frame(amqp.BODY, 1, b"ab")
        + beat
        + amqp.frame(amqp.BODY, 1, b"cd")
        + beat
    )
    check_equal("body", channel.get(queue).body, b"abcd")


@case("frames/F9-reply-text-is-cut-at-255")
def long_reply_text(test):
    channel = test.channel()
    name = test.name() + "x" * 220
    channel.send("queue.declare", queue=name, passive=True)
    channel.refused(404, f"no queue '{name}' in vhost '/'", "queue.declare")
    channel.call("channel.open")
