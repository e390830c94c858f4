"""basic.consume, cancel and qos: tags, order of frames, exclusivity, priorities, prefetch."""

import re

from amqp import Field
from harness import case, cases, expect
from peer import CAPABILITIES, check_equal

CONSUME, CANCEL = "basic.consume", "basic.cancel"


def filled(test, count, peer=None):
    """A channel with a queue that holds messages b"0", b"1", and so on."""
    channel = (peer or test.connect()).channel()
    queue = channel.queue(test.name())
    for number in range(count):
        channel.publish(queue, b"%d" % number)
    channel.ready(queue, count)
    return channel, queue


# M20: consume ----------------------------------------------------------------------------------


@case("consume/M20-empty-tag-is-generated")
def empty_tag(test):
    channel = test.channel()
    queue = channel.queue()
    tags = {channel.consume(queue) for _ in range(10)}
    check_equal("different tags", len(tags), 10)
    for tag in tags:
        check_equal("tag", tag, re.compile("amq\\.ctag-[A-Za-z0-9_-]{22}"))


@case("consume/M20-consume-ok-precedes-the-deliveries")
def consume_ok_first(test):
    channel, queue = filled(test, 3)
    for round_number in range(20):
        tag = f"t{round_number}"
        check_equal("tag", channel.consume(queue, tag), tag)
        for number in range(3):
            channel.delivery(
                consumer_tag=tag,
                delivery_tag=3 * round_number + number + 1,
                redelivered=round_number > 0,
                exchange="",
                routing_key=queue,
            )
        channel.call(CANCEL, consumer_tag=tag)
        channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)


@case("consume/M20-nowait-has-no-consume-ok")
def nowait(test):
    channel, queue = filled(test, 2)
    channel.send(CONSUME, queue=queue, consumer_tag="t", nowait=True)
    check_equal("body", channel.delivery(consumer_tag="t").body, b"0")
    check_equal("body", channel.delivery(consumer_tag="t").body, b"1")
    channel.send(CANCEL, consumer_tag="t", nowait=True)
    channel.publish(queue, b"2")
    channel.ready(queue, 1)
    channel.alive()


@case("consume/M20-duplicate-tag")
def duplicate_tag(test):
    peer = test.connect()
    channel = peer.channel()
    channel.queue()
    channel.consume("", "t")
    channel.send(CONSUME, queue="", consumer_tag="t")
    peer.refused(530, "attempt to reuse consumer tag 't'", CONSUME)


@case("consume/M20-tags-are-per-channel-and-free-after-cancel")
def tags_per_channel(test):
    peer = test.connect()
    first, second = peer.channel(1), peer.channel(2)
    queue = first.queue(test.name())
    for channel in (first, second):
        for _ in range(3):
            channel.consume(queue, "t")
            channel.call(CANCEL, consumer_tag="t")
        channel.consume(queue, "t")
    second.publish(queue, b"x")
    frame = peer.receive("basic.deliver")
    check_equal("method", peer.decode(frame).name, "basic.deliver")


@case("consume/M20-tag-of-255-octets")
def long_tag(test):
    channel = test.channel()
    queue = channel.queue()
    check_equal("tag", channel.consume(queue, "t" * 255), "t" * 255)
    channel.publish(queue, b"x")
    channel.delivery(consumer_tag="t" * 255)


@cases(
    [
        ("consume/M20-exclusive-when-another-consumes", {}, {"exclusive": True}),
        ("consume/M20-another-when-one-is-exclusive", {"exclusive": True}, {}),
        ("consume/M20-two-exclusive", {"exclusive": True}, {"exclusive": True}),
    ]
)
def exclusive(test, first, second):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name())
    channel.consume(queue, "one", **first)
    other.send(CONSUME, queue=queue, consumer_tag="two", **second)
    other.refused(403, f"queue '{queue}' in vhost '/' in exclusive use", CONSUME)
    other.call("channel.open")
    channel.call(CANCEL, consumer_tag="one")
    other.consume(queue, "two", **second)


@case("consume/M20-no-local-is-ignored")
def no_local(test):
    channel = test.channel()
    queue = channel.queue()
    channel.consume(queue, "t", no_local=True)
    channel.publish(queue, b"own")
    check_equal("body", channel.delivery().body, b"own")


@case("consume/M20-no-ack-deliveries-need-no-ack")
def no_ack(test):
    channel, queue = filled(test, 3)
    channel.consume(queue, "t", no_ack=True)
    for number in range(3):
        channel.delivery(delivery_tag=number + 1, redelivered=False)
    channel.call("queue.purge", queue=queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.refused(406, "unknown delivery tag 1", "basic.ack")


@case("consume/M20-round-robin")
def round_robin(test):
    channel = test.channel()
    queue = channel.queue()
    for tag in "abc":
        channel.consume(queue, tag, no_ack=True)
    for number in range(9):
        channel.publish(queue, b"%d" % number)
    tags = [channel.delivery().method.consumer_tag for _ in range(9)]
    check_equal("deliveries", sorted(tags), sorted("abc" * 3))


@case("consume/M42-order")
def order(test):
    channel = test.channel()
    queue = channel.queue()
    channel.consume(queue, "t", no_ack=True)
    for number in range(500):
        channel.publish(queue, b"%d" % number)
    bodies = [int(channel.delivery().body) for _ in range(500)]
    check_equal("order", bodies, list(range(500)))


@case("consume/M22-priority")
def priority(test):
    channel = test.channel()
    queue = channel.queue()
    channel.call("basic.qos", prefetch_count=2)
    channel.consume(queue, "low", arguments={"x-priority": -1})
    channel.consume(queue, "default")
    channel.consume(queue, "high", arguments={"x-priority": 10})
    for number in range(5):
        channel.publish(queue, b"%d" % number)
    tags = [channel.delivery().method.consumer_tag for _ in range(5)]
    check_equal("deliveries", tags, ["high", "high", "default", "default", "low"])


@case("consume/M22-priority-must-be-an-integer")
def bad_priority(test):
    channel = test.channel()
    queue = channel.queue()
    channel.send(CONSUME, queue=queue, consumer_tag="t", arguments={"x-priority": "high"})
    reason = '"expected integer, got longstr"'
    text = f"invalid arg 'x-priority' for queue '{queue}' in vhost '/': {reason}"
    channel.refused(406, text, CONSUME)


@case("consume/M23-single-active-consumer")
def single_active(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-single-active-consumer": True})
    for tag in ("first", "second", "third"):
        channel.consume(queue, tag, no_ack=True)
    for wanted in ("first", "second", "third"):
        for _ in range(3):
            channel.publish(queue, b"x")
            channel.delivery(consumer_tag=wanted)
        channel.call(CANCEL, consumer_tag=wanted)


@case("consume/M23-single-active-consumer-refuses-exclusive")
def single_active_exclusive(test):
    channel = test.channel()
    queue = channel.queue(test.name(), arguments={"x-single-active-consumer": True})
    channel.send(CONSUME, queue=queue, consumer_tag="t", exclusive=True)
    channel.refused(403, f"queue '{queue}' in vhost '/' in exclusive use", CONSUME)


@case("consume/M23-single-active-consumer-keeps-what-it-has")
def single_active_unacked(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-single-active-consumer": True})
    channel.call("basic.qos", prefetch_count=2)
    channel.consume(queue, "first")
    channel.consume(queue, "second")
    for number in range(4):
        channel.publish(queue, b"%d" % number)
    for _ in range(2):
        channel.delivery(consumer_tag="first")
    # It is busy, and nobody takes its place.
    channel.ready(queue, 2)
    channel.send(CANCEL, consumer_tag="first")
    channel.expect("basic.cancel-ok")
    # RabbitMQ 3.10 leaves the messages where they are, and the queue crashes when the next one comes.
    if expect(rabbitmq=True, warren=False):
        channel.ready(queue, 2)
        return
    check_equal("bodies", [channel.delivery(consumer_tag="second").body for _ in range(2)], [b"2", b"3"])
    channel.send("basic.nack", delivery_tag=2, multiple=True, requeue=True)
    channel.ready(queue, 2)
    channel.send("basic.ack", delivery_tag=4, multiple=True)
    check_equal("bodies", [channel.delivery(consumer_tag="second").body for _ in range(2)], [b"0", b"1"])


@case("consume/M23-single-active-consumer-and-priorities")
def single_active_priority(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-single-active-consumer": True})
    channel.consume(queue, "first", no_ack=True)
    channel.consume(queue, "low", no_ack=True, arguments={"x-priority": -5})
    channel.consume(queue, "high", no_ack=True, arguments={"x-priority": 5})
    # Who is active stays, and who came first among those of the highest priority is next.
    channel.publish(queue, b"x")
    channel.delivery(consumer_tag="first")
    channel.call(CANCEL, consumer_tag="first")
    channel.publish(queue, b"x")
    tag = channel.delivery().method.consumer_tag
    check_equal("next", tag, "high")


@case("consume/M23-single-active-consumer-whose-connection-goes")
def single_active_gone(test):
    channel, other = test.channel(), test.channel()
    queue = channel.queue(test.name(), exclusive=False, arguments={"x-single-active-consumer": True})
    other.consume(queue, "first")
    channel.consume(queue, "second")
    channel.publish(queue, b"x")
    other.delivery(consumer_tag="first", redelivered=False)
    other.peer.close()
    channel.delivery(consumer_tag="second", redelivered=True)


@case("consume/M23-single-active-consumer-and-get")
def single_active_get(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-single-active-consumer": True})
    channel.publish(queue, b"0")
    check_equal("body", channel.get(queue).body, b"0")


@case("consume/M20-exclusive-is-free-after-cancel")
def exclusive_again(test):
    channel = test.channel()
    queue = channel.queue()
    channel.consume(queue, "one", exclusive=True)
    channel.publish(queue, b"x")
    channel.delivery(consumer_tag="one")
    # Others may still ask for messages.
    channel.publish(queue, b"y", mandatory=True)
    channel.delivery(consumer_tag="one")
    channel.get_empty(queue)
    channel.call(CANCEL, consumer_tag="one")
    channel.consume(queue, "two", exclusive=True)
    channel.call(CANCEL, consumer_tag="two")
    channel.consume(queue, "three")


@case("consume/M22-equal-priorities-take-turns")
def equal_priorities(test):
    channel = test.channel()
    queue = channel.queue()
    for tag in ("a", "b"):
        channel.consume(queue, tag, no_ack=True, arguments={"x-priority": 3})
    channel.consume(queue, "never", no_ack=True)
    for number in range(6):
        channel.publish(queue, b"%d" % number)
    tags = [channel.delivery().method.consumer_tag for _ in range(6)]
    check_equal("deliveries", sorted(tags), ["a", "a", "a", "b", "b", "b"])


@case("consume/M22-a-lower-priority-helps-while-the-higher-is-busy")
def lower_helps(test):
    channel = test.channel()
    queue = channel.queue()
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "low", arguments={"x-priority": -1})
    channel.consume(queue, "high", arguments={"x-priority": 1})
    seen = []
    for tag in range(1, 4):
        channel.publish(queue, b"x")
        seen.append(channel.delivery(delivery_tag=tag).method.consumer_tag)
        if tag == 2:
            channel.send("basic.ack", delivery_tag=2)
            channel.send("basic.ack", delivery_tag=1)
    check_equal("deliveries", seen, ["high", "low", "high"])


@cases([(f"consume/M22-priority-of-type-{tag}", tag) for tag in "bBsuIil"])
def priority_types(test, tag):
    channel = test.channel()
    queue = channel.queue()
    channel.consume(queue, "low", no_ack=True)
    channel.consume(queue, "high", no_ack=True, arguments={"x-priority": Field(tag, 5)})
    channel.publish(queue, b"x")
    channel.delivery(consumer_tag="high")


# M21: cancel -----------------------------------------------------------------------------------


@cases([("consume/M21-cancel-unknown-tag", "no such tag"), ("consume/M21-cancel-empty-tag", "")])
def cancel_unknown(test, tag):
    channel = test.channel()
    channel.send(CANCEL, consumer_tag=tag)
    channel.expect("basic.cancel-ok", consumer_tag=tag)
    channel.send(CANCEL, consumer_tag=tag, nowait=True)
    channel.alive()


@case("consume/M21-nothing-is-delivered-after-cancel-ok")
def nothing_after_cancel(test):
    channel, queue = filled(test, 2)
    channel.consume(queue, "t")
    channel.delivery()
    channel.delivery()
    channel.send(CANCEL, consumer_tag="t")
    channel.expect("basic.cancel-ok", consumer_tag="t")
    channel.publish(queue, b"x")
    channel.ready(queue, 1)
    # What was delivered stays to be settled.
    channel.send("basic.nack", delivery_tag=2, requeue=True)
    channel.ready(queue, 2)
    channel.send("basic.ack", delivery_tag=1)
    channel.alive()
    check_equal("bodies", channel.drain(queue), [b"1", b"x"])


@case("consume/M21-cancel-while-messages-arrive")
def cancel_under_load(test):
    peer = test.connect()
    channel, other = peer.channel(1), test.channel()
    queue = other.queue(test.name(), exclusive=False)
    for _ in range(10):
        channel.send(CONSUME, queue=queue, consumer_tag="t", no_ack=True, nowait=True)
        for _ in range(20):
            other.publish(queue, b"x")
        channel.send(CANCEL, consumer_tag="t")
        while True:
            frame = peer.receive("basic.cancel-ok")
            if frame.type == 1 and peer.decode(frame).name == "basic.cancel-ok":
                break
        channel.alive()


@case("consume/M21-server-cancels-when-the-queue-is-deleted")
def cancel_notification(test):
    peer = test.connect()
    channel, other = peer.channel(1), test.channel()
    queue = channel.queue(test.name(), exclusive=False)
    channel.consume(queue, "one")
    channel.consume(queue, "two", no_ack=True)
    other.call("queue.delete", queue=queue)
    cancels = [channel.expect(CANCEL, nowait=True).consumer_tag for _ in range(2)]
    check_equal("cancelled", sorted(cancels), ["one", "two"])
    # The tags are free, and the channel goes on.
    queue = channel.queue()
    channel.consume(queue, "one")


@case("consume/M21-unacked-of-a-deleted-queue-can-still-be-acked")
def ack_after_delete(test):
    channel, queue = filled(test, 1)
    channel.consume(queue, "t")
    channel.delivery()
    channel.peer.channel(2).send("queue.delete", queue=queue)
    frames = [channel.peer.receive("cancel or delete-ok") for _ in range(2)]
    check_equal("channels", sorted(frame.channel for frame in frames), [1, 2])
    channel.send("basic.ack", delivery_tag=1)
    channel.alive()


@cases(
    [
        ("consume/M21-no-cancel-without-capabilities", {}),
        ("consume/M21-no-cancel-without-the-capability", {**CAPABILITIES, "consumer_cancel_notify": False}),
    ]
)
def no_cancel_notification(test, capabilities):
    peer = test.connect(capabilities=capabilities)
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name())
    channel.consume(queue, "t")
    other.call("queue.delete", queue=queue)
    other.alive()
    channel.alive()


# M24: qos --------------------------------------------------------------------------------------


@case("consume/M24-prefetch-size")
def prefetch_size(test):
    peer = test.connect()
    peer.channel()
    peer.send(1, "basic.qos", prefetch_size=5)
    peer.refused(540, "prefetch_size!=0 (5)", "basic.qos")


def exactly(channel, queue, first, last, ready):
    """Deliveries first to last, then none, with so many messages left in the queue."""
    for number in range(first, last):
        check_equal("body", channel.delivery().body, b"%d" % number)
    channel.ready(queue, ready)
    channel.alive()


@case("consume/M24-prefetch-count")
def prefetch_count(test):
    channel, queue = filled(test, 10)
    channel.call("basic.qos", prefetch_count=3)
    channel.consume(queue, "t")
    exactly(channel, queue, 0, 3, 7)
    channel.send("basic.ack", delivery_tag=1)
    exactly(channel, queue, 3, 4, 6)
    channel.send("basic.ack", delivery_tag=3, multiple=True)
    exactly(channel, queue, 4, 6, 4)
    channel.send("basic.reject", delivery_tag=4, requeue=False)
    exactly(channel, queue, 6, 7, 3)
    channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=False)
    exactly(channel, queue, 7, 10, 0)


@case("consume/M24-prefetch-is-per-consumer")
def prefetch_per_consumer(test):
    channel, queue = filled(test, 10)
    channel.call("basic.qos", prefetch_count=2)
    for tag in ("one", "two"):
        channel.consume(queue, tag)
        check_equal("tags", [channel.delivery().method.consumer_tag for _ in range(2)], [tag, tag])
    channel.ready(queue, 6)
    channel.alive()


@case("consume/M24-prefetch-applies-to-later-consumers")
def prefetch_later(test):
    channel, queue = filled(test, 9)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "one")
    exactly(channel, queue, 0, 1, 8)
    channel.call("basic.qos", prefetch_count=3)
    channel.alive()
    channel.consume(queue, "three")
    exactly(channel, queue, 1, 4, 5)
    channel.call("basic.qos", prefetch_count=0)
    channel.consume(queue, "unlimited")
    exactly(channel, queue, 4, 9, 0)


@case("consume/M24-global-prefetch-is-shared")
def prefetch_global(test):
    channel = test.channel()
    queue = channel.queue()
    channel.call("basic.qos", prefetch_count=3, global_=True)
    channel.consume(queue, "one")
    channel.consume(queue, "two")
    for number in range(6):
        channel.publish(queue, b"%d" % number)
    exactly(channel, queue, 0, 3, 3)
    channel.send("basic.ack", delivery_tag=2)
    exactly(channel, queue, 3, 4, 2)
    channel.call("basic.qos", prefetch_count=0, global_=True)
    exactly(channel, queue, 4, 6, 0)


@case("consume/M24-no-ack-waits-for-room-in-the-global-prefetch-and-takes-none")
def prefetch_global_no_ack(test):
    channel, queue = filled(test, 5)
    other = channel.queue()
    channel.call("basic.qos", prefetch_count=1, global_=True)
    channel.consume(other, "all", no_ack=True)
    for number in range(3):
        channel.publish(other, b"%d" % number)
        channel.delivery(consumer_tag="all")
    channel.consume(queue, "one")
    got = channel.delivery(consumer_tag="one")
    channel.publish(other, b"waits")
    channel.ready(other, 1)
    # A get does not wait, and what it takes counts for nobody.
    channel.get(queue, no_ack=False)
    channel.call(CANCEL, consumer_tag="one")
    channel.ready(other, 1)
    channel.send("basic.ack", delivery_tag=got.method.delivery_tag)
    check_equal("body", channel.delivery(consumer_tag="all").body, b"waits")


@case("consume/M24-prefetch-does-not-limit-get-and-no-ack")
def prefetch_unlimited(test):
    channel, queue = filled(test, 8)
    channel.call("basic.qos", prefetch_count=1)
    for number in range(3):
        check_equal("body", channel.get(queue, no_ack=False).body, b"%d" % number)
    channel.consume(queue, "t", no_ack=True)
    exactly(channel, queue, 3, 8, 0)


@case("consume/M24-requeue-gives-the-prefetch-back")
def prefetch_requeue(test):
    channel, queue = filled(test, 3)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "t")
    exactly(channel, queue, 0, 1, 2)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    again = channel.delivery(delivery_tag=2, redelivered=True)
    check_equal("body", again.body, b"0")
    channel.send("basic.ack", delivery_tag=2)
    exactly(channel, queue, 1, 2, 1)
