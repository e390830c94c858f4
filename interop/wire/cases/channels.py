"""Channels: opening, closing by either side, reuse of numbers, and isolation from each other."""

import amqp
from harness import case, cases
from peer import check, check_equal

NOT_OPEN = "expected 'channel.open'"


@cases(
    [
        ("channels/F3-method", "basic.qos", {}),
        ("channels/F3-declare", "queue.declare", {"queue": "", "exclusive": True}),
        ("channels/F3-close", "channel.close", {"reply_code": 200, "class_id": 0, "method_id": 0}),
        ("channels/F3-close-ok", "channel.close-ok", {}),
    ]
)
def not_opened(test, name, arguments):
    peer = test.connect()
    peer.send(1, name, **arguments)
    peer.refused(504, NOT_OPEN, name)


@case("channels/F3-publish")
def publish_not_opened(test):
    peer = test.connect()
    peer.send_bytes(peer.publish_frames(1, "nowhere", b"x"))
    peer.refused(504, NOT_OPEN, "basic.publish")


@case("channels/F3-after-close")
def method_after_close(test):
    peer = test.connect()
    channel = peer.channel()
    channel.close()
    channel.send("basic.qos")
    peer.refused(504, NOT_OPEN, "basic.qos")


@case("channels/F3-second-open")
def second_open(test):
    peer = test.connect()
    peer.channel()
    peer.send(1, "channel.open")
    peer.refused(504, "second 'channel.open' seen", "channel.open")


@case("channels/F3-open-ok-has-an-empty-channel-id")
def open_ok(test):
    peer = test.connect()
    peer.send(1, "channel.open", out_of_band="ignored")
    peer.expect(1, "channel.open-ok", channel_id="")


@case("channels/F3-more-than-channel-max")
def too_many(test):
    peer = test.connect(channel_max=3)
    for number in (1, 2, 3):
        peer.channel(number)
    peer.send(4, "channel.open")
    peer.refused(530, "number of channels opened (3) has reached the negotiated channel_max (3)")


@case("channels/F3-closed-channels-do-not-count")
def closed_do_not_count(test):
    peer = test.connect(channel_max=2)
    first = peer.channel(1)
    peer.channel(2)
    for number in (3, 4, 5):
        first.close()
        first = peer.channel(number)
    first.alive()


@case("channels/F3-failed-channels-do-not-count")
def failed_do_not_count(test):
    peer = test.connect(channel_max=1)
    for _ in range(3):
        channel = peer.channel()
        channel.send("basic.get", queue="no such queue")
        channel.refused(404, "no queue 'no such queue' in vhost '/'", "basic.get")


@cases([(f"channels/F3-number-{number}", number) for number in (2047, 2048, 65535)])
def any_number(test, number):
    # channel_max limits how many channels are open, not how they are numbered.
    channel = test.connect().channel(number)
    queue = channel.queue()
    channel.publish(queue, b"x")
    check_equal("body", channel.get(queue).body, b"x")


@case("channels/F3-numbers-in-any-order")
def any_order(test):
    peer = test.connect()
    for number in (7, 3, 900, 1, 2):
        peer.channel(number)
    for number in (1, 900, 2, 7, 3):
        peer.send(number, "basic.qos", prefetch_count=1)
        peer.expect(number, "basic.qos-ok")


# Closing by the broker -------------------------------------------------------------------------


def fail(channel):
    """A channel exception, up to the broker's channel.close."""
    channel.send("basic.get", queue="no such queue")
    text = "no queue 'no such queue' in vhost '/'"
    channel.refused(404, text, "basic.get", reply=False)


@case("channels/F10-everything-is-ignored-until-close-ok")
def ignored(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = other.queue(test.name())
    fail(channel)
    channel.send("queue.declare", queue=test.name(), exclusive=True)
    channel.send("basic.get", queue="no such queue either")
    channel.send("basic.ack", delivery_tag=99)
    channel.publish(queue, b"never")
    channel.send("channel.close-ok")
    channel.call("channel.open")
    channel.alive()
    other.get_empty(queue)


@case("channels/F10-client-close-crosses-server-close")
def crossing(test):
    peer = test.connect()
    channel = peer.channel()
    fail(channel)
    channel.close()
    channel.send("channel.close-ok")
    channel.call("channel.open")
    channel.alive()


@case("channels/F10-number-is-reused-right-after-close-ok")
def reused(test):
    peer = test.connect()
    channel = peer.channel()
    for _ in range(50):
        fail(channel)
        peer.send_bytes(peer.method_frame(1, "channel.close-ok") + peer.method_frame(1, "channel.open"))
        channel.expect("channel.open-ok")
    channel.alive()


@case("channels/F10-number-is-reused-after-client-close")
def reused_after_close(test):
    peer = test.connect()
    channel = peer.channel()
    for _ in range(50):
        channel.close()
        channel.call("channel.open")
    channel.alive()


@case("channels/F10-nothing-carries-over-to-the-reused-number")
def fresh_state(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue(test.name())
    channel.consume(queue, "t")
    channel.call("confirm.select")
    channel.publish(queue, b"x")
    frames = {peer.describe(peer.receive("deliver or ack")).split("(")[0] for _ in range(4)}
    check(any(frame.startswith("basic.deliver") for frame in frames), f"no delivery in {frames}")
    channel.close()
    channel.call("channel.open")
    # No consumer, no confirms, no last queue, and delivery tags start at 1 again.
    delivery = channel.get(queue, no_ack=False)
    check_equal("delivery tag", delivery.method.delivery_tag, 1)
    check_equal("redelivered", delivery.method.redelivered, True)
    channel.publish(queue, b"y")
    channel.alive()
    channel.call("tx.select")
    channel.send("queue.purge", queue="")
    channel.refused(404, "no previously declared queue", "queue.purge")


@case("channels/M43-error-leaves-the-other-channels-alone")
def isolation(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = other.queue(test.name())
    other.consume(queue, "t", no_ack=True)
    for number in range(10):
        fail(channel)
        other.publish(queue, b"%d" % number)
        check_equal("body", other.delivery(consumer_tag="t").body, b"%d" % number)
        channel.send("channel.close-ok")
        channel.call("channel.open")


@case("channels/M43-error-inside-the-content-of-another-channel")
def error_inside_content(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = other.queue(test.name())
    publish = peer.publish_frames(2, queue, b"abcd")
    cut = len(publish) - 12
    peer.send_bytes(publish[:cut])
    fail(channel)
    peer.send_bytes(publish[cut:])
    check_equal("body", other.get(queue).body, b"abcd")


@case("channels/F10-unacked-go-back-when-the-channel-closes")
def unacked_go_back(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = other.queue(test.name())
    for body in (b"1", b"2", b"3"):
        other.publish(queue, body)
    channel.consume(queue, "t")
    for body in (b"1", b"2", b"3"):
        check_equal("body", channel.delivery(redelivered=False).body, body)
    channel.close()
    for body in (b"1", b"2", b"3"):
        message = other.get(queue)
        check_equal("body, redelivered", (message.body, message.method.redelivered), (body, True))


@case("channels/F10-unacked-go-back-when-the-channel-fails")
def unacked_go_back_after_failure(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = other.queue(test.name())
    other.publish(queue, b"1")
    other.ready(queue, 1)
    channel.get(queue, no_ack=False)
    fail(channel)
    channel.send("channel.close-ok")
    channel.call("channel.open")
    other.ready(queue, 1)
    message = other.get(queue)
    check_equal("body, redelivered", (message.body, message.method.redelivered), (b"1", True))


# Flow and access -------------------------------------------------------------------------------


@case("channels/M39-flow-active")
def flow_active(test):
    channel = test.channel()
    channel.send("channel.flow", active=True)
    channel.expect("channel.flow-ok", active=True)


@case("channels/M39-flow-inactive")
def flow_inactive(test):
    peer = test.connect()
    peer.channel()
    peer.send(1, "channel.flow", active=False)
    peer.refused(540, "active=false", "channel.flow")


@cases(
    [
        ("channels/M40-access-request", {}),
        (
            "channels/M40-access-request-all-bits",
            {"realm": "/admin", "exclusive": True, "passive": False, "write": False},
        ),
    ]
)
def access_request(test, arguments):
    channel = test.channel()
    channel.send("access.request", **arguments)
    channel.expect("access.request-ok", ticket=1)


@cases([(f"channels/M40-ticket-{ticket}-is-ignored", ticket) for ticket in (0, 1, 101, 65535)])
def ticket_ignored(test, ticket):
    channel = test.channel()
    queue = channel.queue(ticket=ticket)
    exchange = channel.exchange(test.name(), ticket=ticket)
    channel.bind(queue, exchange, "k", ticket=ticket)
    channel.publish("k", b"x", exchange=exchange, ticket=ticket)
    channel.send("basic.get", queue=queue, no_ack=True, ticket=ticket)
    check_equal("body", channel.content("basic.get-ok").body, b"x")
    channel.send("basic.consume", queue=queue, consumer_tag="t", ticket=ticket)
    channel.expect("basic.consume-ok", consumer_tag="t")


# Pipelining ------------------------------------------------------------------------------------


@case("channels/pipelined-from-channel-open-to-get")
def pipelined(test):
    peer = test.connect()
    queue, exchange = test.name("q"), test.name("e")
    declare = peer.method_frame(1, "queue.declare", queue=queue, exclusive=True)
    bind = peer.method_frame(1, "queue.bind", queue=queue, exchange=exchange, routing_key="k")
    peer.send_bytes(
        peer.method_frame(1, "channel.open")
        + peer.method_frame(1, "exchange.declare", exchange=exchange, type="direct")
        + declare
        + bind
        + peer.publish_frames(1, "k", b"one", exchange=exchange)
        + peer.publish_frames(1, "k", b"two", exchange=exchange)
        + peer.method_frame(1, "basic.get", queue=queue, no_ack=True)
        + peer.method_frame(1, "queue.purge", queue=queue)
        + peer.method_frame(1, "queue.delete", queue=queue)
        + peer.method_frame(1, "exchange.delete", exchange=exchange)
        + peer.method_frame(1, "channel.close", reply_code=200, class_id=0, method_id=0)
    )
    peer.expect(1, "channel.open-ok")
    peer.expect(1, "exchange.declare-ok")
    peer.expect(1, "queue.declare-ok", queue=queue, message_count=0, consumer_count=0)
    peer.expect(1, "queue.bind-ok")
    got = peer.content(1, "basic.get-ok", message_count=1, exchange=exchange, routing_key="k")
    check_equal("body", got.body, b"one")
    peer.expect(1, "queue.purge-ok", message_count=1)
    peer.expect(1, "queue.delete-ok", message_count=0)
    peer.expect(1, "exchange.delete-ok")
    peer.expect(1, "channel.close-ok")


@case("channels/pipelined-on-many-channels")
def pipelined_channels(test):
    peer = test.connect()
    numbers = range(1, 65)
    names = {number: test.name() for number in numbers}
    peer.send_bytes(
        b"".join(
            peer.method_frame(number, "channel.open")
            + peer.method_frame(number, "queue.declare", queue=names[number], exclusive=True)
            + peer.publish_frames(number, names[number], b"%d" % number)
            + peer.method_frame(number, "queue.purge", queue=names[number])
            for number in numbers
        )
    )
    # The order holds within each channel only.
    got = {number: [] for number in numbers}
    for _ in range(3 * len(numbers)):
        frame = peer.receive("a reply on some channel")
        check_equal("frame type", frame.type, amqp.METHOD)
        got[frame.channel].append(peer.decode(frame))
    for number, replies in got.items():
        check_equal(
            f"replies on channel {number}",
            [reply.name for reply in replies],
            ["channel.open-ok", "queue.declare-ok", "queue.purge-ok"],
        )
        check_equal("messages", replies[2].message_count, 1)
