"""Queues that are full: x-max-length, x-max-length-bytes, x-overflow, and what gives way first."""

import time

from harness import case, cases, expect
from peer import check_equal

from .dead_letter import arrived, pair, plain

REJECT = {"x-overflow": "reject-publish"}
REJECT_DLX = {"x-overflow": "reject-publish-dlx"}


def outcomes(channel, queue, *bodies):
    """What the publisher is told of each message."""
    channel.call("confirm.select")
    seen = []
    for body in bodies:
        channel.publish(queue, body)
        frame = channel.peer.receive("an answer to a publish")
        seen.append(channel.peer.decode(frame).name.removeprefix("basic."))
    return seen


def dead_bodies(channel, dead, count):
    bodies = []
    for got in arrived(channel, dead, count):
        check_equal("reason", plain(got.properties["headers"]["x-death"])[0]["reason"], "maxlen")
        bodies.append(got.body)
    return bodies


# The overflow, the limits, what is told of messages 0 to 4, what is left, what has died.
NAMES = (b"0", b"1", b"2", b"3", b"4")
LENGTH = {"x-max-length": 2}
BYTES = {"x-max-length-bytes": 2}
ALL = ["ack"] * 5
TWO = ["ack", "ack", "nack", "nack", "nack"]
TABLE = [
    ("drop-head", {}, ALL, NAMES[3:], NAMES[:3]),
    ("drop-head-named", {"x-overflow": "drop-head"}, ALL, NAMES[3:], NAMES[:3]),
    ("reject-publish", REJECT, TWO, NAMES[:2], ()),
    ("reject-publish-dlx", REJECT_DLX, TWO, NAMES[:2], NAMES[2:]),
]


@cases(
    [
        (f"limits/{name}-{limit}", {f"x-{limit}": 2, **arguments}, *rest)
        for limit in ("max-length", "max-length-bytes")
        for name, arguments, *rest in TABLE
    ]
)
def overflow(test, arguments, told, left, died):
    channel, queue, dead, _ = pair(test, arguments)
    check_equal("told", outcomes(channel, queue, *NAMES), told)
    check_equal("dead", dead_bodies(channel, dead, len(died)), list(died))
    check_equal("left", channel.drain(queue), list(left))


@cases(
    [
        ("limits/both-the-shorter-length", {"x-max-length": 2, "x-max-length-bytes": 100}),
        ("limits/both-the-fewer-bytes", {"x-max-length": 100, "x-max-length-bytes": 2}),
    ]
)
def both(test, arguments):
    channel, queue, dead, _ = pair(test, arguments)
    outcomes(channel, queue, *NAMES)
    check_equal("left", channel.drain(queue), list(NAMES[3:]))
    check_equal("dead", dead_bodies(channel, dead, 3), list(NAMES[:3]))


@cases(
    [
        ("limits/length-0", {"x-max-length": 0}),
        ("limits/bytes-0", {"x-max-length-bytes": 0}),
        ("limits/bytes-of-one-message", {"x-max-length-bytes": 3}),
    ]
)
def nothing_fits(test, arguments):
    channel, queue, dead, _ = pair(test, arguments)
    check_equal("told", outcomes(channel, queue, b"long"), ["ack"])
    check_equal("dead", dead_bodies(channel, dead, 1), [b"long"])
    channel.get_empty(queue)


@case("limits/length-0-with-a-consumer")
def to_consumer(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 0})
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "t")
    channel.publish(queue, b"taken")
    check_equal("body", channel.delivery().body, b"taken")
    channel.publish(queue, b"dropped")
    check_equal("dead", dead_bodies(channel, dead, 1), [b"dropped"])
    # What comes back finds no place.
    channel.call("basic.cancel", consumer_tag="t")
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"taken"])


@case("limits/empty-bodies-have-no-bytes")
def empty_bodies(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-length-bytes": 0})
    for _ in range(3):
        channel.publish(queue, b"")
    channel.ready(queue, 3)


@case("limits/unacked-messages-do-not-count")
def unacked(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-length": 2, **REJECT})
    check_equal("told", outcomes(channel, queue, b"0", b"1", b"2"), ["ack", "ack", "nack"])
    channel.get(queue, no_ack=False)
    channel.publish(queue, b"3")
    channel.expect("basic.ack", delivery_tag=4)
    # What comes back may make it longer than it should be.
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    channel.ready(queue, 3)
    channel.publish(queue, b"4")
    channel.expect("basic.nack", delivery_tag=5)
    check_equal("left", channel.drain(queue), [b"0", b"1", b"3"])


@case("limits/what-comes-back-is-the-head")
def requeued(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 2})
    channel.publish(queue, b"0")
    channel.get(queue, no_ack=False)
    channel.publish(queue, b"1")
    channel.publish(queue, b"2")
    channel.ready(queue, 2)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"0"])
    check_equal("left", channel.drain(queue), [b"1", b"2"])


@case("limits/refused-without-confirms")
def unconfirmed(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-length": 1, **REJECT})
    channel.publish(queue, b"0")
    channel.publish(queue, b"1", mandatory=True)
    channel.alive()
    check_equal("left", channel.drain(queue), [b"0"])


@case("limits/M18-refused-by-one-of-two-queues")
def one_refuses(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "fanout")
    full, other = channel.queue(arguments={"x-max-length": 0, **REJECT}), channel.queue()
    channel.bind(full, exchange)
    channel.bind(other, exchange)
    channel.call("confirm.select")
    channel.publish("", b"x", exchange=exchange)
    channel.expect("basic.nack", delivery_tag=1)
    check_equal("left", channel.drain(other), [b"x"])


# Priorities --------------------------------------------------------------------------------------


def prioritised(channel, queue, *priorities):
    for priority in priorities:
        channel.publish(queue, b"%d" % priority, {"priority": priority})


@case("limits/Q3-the-lowest-priority-gives-way-first")
def lowest_first(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 3, "x-max-priority": 5})
    prioritised(channel, queue, 1, 3, 2, 5, 4)
    # RabbitMQ drops what it would deliver next, which is the highest.
    check_equal("dead", dead_bodies(channel, dead, 2), expect(rabbitmq=[b"5", b"4"], warren=[b"1", b"2"]))
    prioritised(channel, queue, 0)
    check_equal("dead", dead_bodies(channel, dead, 1), expect(rabbitmq=[b"3"], warren=[b"0"]))
    wanted = expect(rabbitmq=[b"2", b"1", b"0"], warren=[b"5", b"4", b"3"])
    check_equal("left", channel.drain(queue), wanted)


@case("limits/Q3-the-oldest-of-the-lowest-priority-gives-way-first")
def oldest_of_lowest(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 3, "x-max-priority": 5})
    for body, priority in ((b"low 0", 1), (b"high", 5), (b"low 1", 1), (b"low 2", 1), (b"low 3", 1)):
        channel.publish(queue, body, {"priority": priority})
    wanted = expect(rabbitmq=[b"high", b"low 0"], warren=[b"low 0", b"low 1"])
    check_equal("dead", dead_bodies(channel, dead, 2), wanted)
    wanted = expect(rabbitmq=[b"low 1", b"low 2", b"low 3"], warren=[b"high", b"low 2", b"low 3"])
    check_equal("left", channel.drain(queue), wanted)


@case("limits/Q3-priorities-and-bytes")
def priorities_and_bytes(test):
    channel, queue, dead, _ = pair(test, {"x-max-length-bytes": 6, "x-max-priority": 5})
    for body, priority in ((b"aaa", 5), (b"bbb", 1), (b"ccc", 3)):
        channel.publish(queue, body, {"priority": priority})
    check_equal("dead", dead_bodies(channel, dead, 1), expect(rabbitmq=[b"aaa"], warren=[b"bbb"]))
    check_equal("left", channel.drain(queue), expect(rabbitmq=[b"ccc", b"bbb"], warren=[b"aaa", b"ccc"]))


@case("limits/Q3-priorities-and-reject-publish")
def priorities_and_reject(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-length": 1, "x-max-priority": 5, **REJECT})
    channel.call("confirm.select")
    channel.publish(queue, b"low", {"priority": 1})
    channel.expect("basic.ack", delivery_tag=1)
    # The queue is full for everybody.
    channel.publish(queue, b"high", {"priority": 5})
    channel.expect("basic.nack", delivery_tag=2)
    check_equal("left", channel.drain(queue), [b"low"])


@case("limits/Q3-requeued-messages-keep-their-priority")
def requeued_priority(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-priority": 5})
    prioritised(channel, queue, 2, 4)
    check_equal("first", channel.get(queue, no_ack=False).body, b"4")
    prioritised(channel, queue, 3)
    channel.ready(queue, 2)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    channel.ready(queue, 3)
    check_equal("left", channel.drain(queue), [b"4", b"3", b"2"])


@case("limits/Q3-priority-0-levels")
def no_levels(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-priority": 0})
    prioritised(channel, queue, 1, 3, 2)
    channel.ready(queue, 3)
    check_equal("left", channel.drain(queue), [b"1", b"3", b"2"])


@case("limits/Q3-consumers-get-the-highest-that-is-there")
def consumed(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-priority": 5})
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "t")
    prioritised(channel, queue, 1, 2, 5)
    bodies = []
    for tag in range(1, 4):
        bodies.append(channel.delivery().body)
        if tag == 1:
            channel.ready(queue, 2)
        channel.send("basic.ack", delivery_tag=tag)
    check_equal("order", bodies, [b"1", b"5", b"2"])


@case("limits/M31-Q3-each-priority-expires-by-itself")
def expiring_priorities(test):
    channel, queue, dead, _ = pair(test, {"x-max-priority": 5})
    channel.publish(queue, b"high", {"priority": 5})
    channel.publish(queue, b"low", {"priority": 1, "expiration": "50"})
    time.sleep(0.3)
    # RabbitMQ looks at the head of the highest priority only.
    channel.ready(queue, expect(rabbitmq=2, warren=1))
    check_equal("first", channel.get(queue).body, b"high")
    check_equal("dead", [got.body for got in arrived(channel, dead)], [b"low"])
