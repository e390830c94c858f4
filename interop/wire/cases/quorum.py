"""Quorum queues (U1, U2, M30): declaration, counts and limits of deliveries, and what they do not have."""

import time

from amqp import Field
from harness import NotApplicable, case, cases, expect
from peer import CAPABILITIES, check_equal

from .dead_letter import arrived, plain

DECLARE = "queue.declare"
QUORUM = {"x-queue-type": "quorum"}


def declared(test, arguments=None, channel=None):
    """A quorum queue and a channel."""
    channel = channel or test.channel()
    arguments = {**QUORUM, **(arguments or {})}
    return channel, channel.queue(test.name(), exclusive=False, durable=True, arguments=arguments)


def publish(channel, queue, *bodies, **properties):
    """Publishes until the queue has it: it is not ready before."""
    for body in bodies:
        channel.publish(queue, body, properties)
    channel.ready(queue, len(bodies))


def counts(content):
    """What the headers of a delivery tell of earlier ones: failed, all."""
    headers = content.properties.get("headers", {})
    return tuple(plain(headers[name]) if name in headers else None for name in COUNTS)


COUNTS = ("x-delivery-count", "x-acquired-count")


# U1: declaration ---------------------------------------------------------------------------------


@cases(
    [
        ("quorum/U1-transient", {}, "non-durable"),
        ("quorum/U1-exclusive", {"durable": True, "exclusive": True}, "exclusive-owner"),
        ("quorum/U1-auto-delete", {"durable": True, "auto_delete": True}, "auto-delete"),
        ("quorum/U1-nothing-fits", {"exclusive": True, "auto_delete": True}, "auto-delete"),
    ]
)
def properties(test, options, name):
    channel = test.channel()
    queue = test.name()
    channel.send(DECLARE, queue=queue, arguments=QUORUM, **options)
    channel.refused(406, f"invalid property '{name}' for queue '{queue}' in vhost '/'", DECLARE)


@case("quorum/U1-server-named")
def server_named(test):
    channel = test.channel()
    channel.send(DECLARE, queue="", durable=True, arguments=QUORUM)
    channel.refused(406, "Cannot declare a server-named queue for type rabbit_quorum_queue", DECLARE)


@case("quorum/U1-declared-again")
def again(test):
    channel, queue = declared(test, {"x-delivery-limit": 5})
    channel.queue(queue, exclusive=False, durable=True, arguments={**QUORUM, "x-delivery-limit": 5})
    ok = channel.call(DECLARE, queue=queue, passive=True)
    check_equal("messages, consumers", (ok.message_count, ok.consumer_count), (0, 0))
    channel.send(DECLARE, queue=queue, durable=True, arguments={**QUORUM, "x-delivery-limit": 6})
    text = f"inequivalent arg 'x-delivery-limit' for queue '{queue}' in vhost '/': "
    channel.refused(406, text + "received '6' but current is '5'", DECLARE)


@case("quorum/U1-declared-again-without-the-type")
def again_as_classic(test):
    channel, queue = declared(test)
    channel.send(DECLARE, queue=queue, durable=True)
    text = (
        f"inequivalent arg 'x-queue-type' for queue '{queue}' in vhost '/': "
        "received none but current is the value 'quorum' of type 'longstr'"
    )
    channel.refused(406, text, DECLARE)


FOREIGN = [
    ("x-max-priority", 5),
    ("x-queue-mode", "lazy"),
    ("x-queue-version", 2),
    ("x-max-age", "1D"),
    ("x-stream-max-segment-size-bytes", 5),
    ("x-initial-cluster-size", 1),
]


@cases([(f"quorum/C406-{row[0]}-of-another-type", *row) for row in FOREIGN])
def foreign(test, argument, value):
    channel = test.channel()
    queue = test.name()
    channel.send(DECLARE, queue=queue, durable=True, arguments={**QUORUM, argument: value})
    text = f"invalid arg '{argument}' for queue '{queue}' in vhost '/' of queue type rabbit_quorum_queue"
    channel.refused(406, text, DECLARE)


INVALID = [
    ("x-quorum-initial-group-size", 0, "{value_zero,0}"),
    ("x-quorum-initial-group-size", -1, "{value_negative,-1}"),
    ("x-quorum-initial-group-size", "a", '"expected integer, got longstr"'),
    ("x-max-in-memory-length", -1, "{value_negative,-1}"),
    ("x-max-in-memory-length", "a", '"expected integer, got longstr"'),
    ("x-max-in-memory-bytes", -1, "{value_negative,-1}"),
    ("x-dead-letter-strategy", "twice", "invalid_dlx_strategy"),
    ("x-dead-letter-strategy", 5, "{unacceptable_type,signedint}"),
    ("x-queue-leader-locator", "here", "invalid_queue_locator_arg"),
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-expires", 0, "{value_zero,0}"),
    ("x-max-length", -1, "{value_negative,-1}"),
    ("x-overflow", "no-such-overflow", "invalid_overflow"),
]


@cases([(f"quorum/C406-{number}-{row[0]}", *row) for number, row in enumerate(INVALID, 1)])
def invalid(test, argument, value, reason):
    channel = test.channel()
    queue = test.name()
    channel.send(DECLARE, queue=queue, durable=True, arguments={**QUORUM, argument: value})
    channel.refused(406, f"invalid arg '{argument}' for queue '{queue}' in vhost '/': {reason}", DECLARE)


ACCEPTED = [
    # Whatever is no number is no limit of its own.
    ("x-delivery-limit", "a"),
    ("x-delivery-limit", -1),
    ("x-delivery-limit", 0),
    ("x-quorum-initial-group-size", 1),
    ("x-dead-letter-strategy", "at-least-once"),
    ("x-dead-letter-strategy", "at-most-once"),
    ("x-overflow", "reject-publish"),
    ("x-overflow", "reject-publish-dlx"),
    ("x-max-in-memory-length", 0),
    ("x-queue-leader-locator", "balanced"),
    ("x-queue-leader-locator", "client-local"),
]


@cases([(f"quorum/accepted-{number}-{row[0]}", *row) for number, row in enumerate(ACCEPTED, 1)])
def accepted(test, argument, value):
    channel, queue = declared(test, {argument: value})
    publish(channel, queue, b"x")
    check_equal("body", channel.get(queue).body, b"x")


# What they do not have ---------------------------------------------------------------------------


@cases([(f"quorum/U2-delete-{flag}", flag) for flag in ("if_unused", "if_empty")])
def delete_flags(test, flag):
    channel, queue = declared(test)
    channel.send("queue.delete", queue=queue, **{flag: True})
    shown = flag.replace("_", "-")
    text = (
        f"cannot delete queue '{queue}' in vhost '/'. "
        f"queue.delete operations with {shown} flag set are not supported by quorum queues"
    )
    channel.peer.refused(540, text, "queue.delete")


@case("quorum/U2-delete-tells-how-many-messages-there-were")
def delete(test):
    channel, queue = declared(test)
    publish(channel, queue, b"0", b"1", b"2")
    check_equal("messages", channel.call("queue.delete", queue=queue).message_count, 3)


@case("quorum/U2-purge")
def purge(test):
    channel, queue = declared(test)
    publish(channel, queue, b"0", b"1", b"2")
    channel.get(queue, no_ack=False)
    check_equal("messages", channel.call("queue.purge", queue=queue).message_count, 2)
    channel.get_empty(queue)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    channel.ready(queue, 1)


@case("quorum/U2-single-active-consumer-refuses-get")
def get_refused(test):
    channel, queue = declared(test, {"x-single-active-consumer": True})
    publish(channel, queue, b"x")
    channel.send("basic.get", queue=queue)
    text = (
        f"cannot obtain access to locked queue '{queue}' in vhost '/'. "
        "basic.get operations are not supported by quorum queues with single active consumer"
    )
    channel.refused(405, text, "basic.get")


@case("quorum/U2-single-active-consumer")
def single_active(test):
    channel, queue = declared(test, {"x-single-active-consumer": True})
    for tag in ("first", "second", "third"):
        channel.consume(queue, tag)
    for number, tag in enumerate(("first", "second", "third"), 1):
        channel.publish(queue, b"x")
        channel.delivery(consumer_tag=tag)
        channel.send("basic.ack", delivery_tag=number)
        channel.call("basic.cancel", consumer_tag=tag)


# M30: counts -------------------------------------------------------------------------------------


def give_back(channel, how, tag):
    if how == "recover":
        channel.call("basic.recover", requeue=True)
    else:
        channel.send(f"basic.{how}", delivery_tag=tag, requeue=True)


# What comes back without a fault of its consumer counts for RabbitMQ since 4.0 only.
GIVEN_BACK = [
    ("quorum/M30-reject-counts", "reject", [(None, None), (1, 1), (2, 2)]),
    ("quorum/M30-nack-does-not-count", "nack", [(7, None), (7, 1), (7, 2)]),
    ("quorum/M30-recover-does-not-count", "recover", [(None, None), (None, 1), (None, 2)]),
]


@cases(GIVEN_BACK)
def given_back(test, how, wanted):
    channel, queue = declared(test)
    # What the publisher says of failures is seen until the queue has something to say.
    headers = {"x-delivery-count": 7} if how == "nack" else {}
    publish(channel, queue, b"x", message_id="m", headers=headers)
    seen = []
    for tag in range(1, 4):
        channel.ready(queue, 1)
        got = channel.get(queue, no_ack=False)
        check_equal("redelivered", got.method.redelivered, tag > 1)
        check_equal("message id", got.properties["message_id"], "m")
        seen.append(counts(got))
        give_back(channel, how, tag)
    check_equal("counts", seen, expect(rabbitmq=[(0, None), (1, None), (2, None)], warren=wanted))


@case("quorum/M30-types")
def types(test):
    channel, queue = declared(test)
    publish(channel, queue, b"x")
    channel.get(queue, no_ack=False)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    channel.ready(queue, 1)
    headers = channel.get(queue).properties["headers"]
    count = Field("l", 1)
    wanted = expect(
        rabbitmq={"x-delivery-count": count},
        warren={"x-delivery-count": count, "x-acquired-count": count},
    )
    check_equal("headers", headers, wanted)


@case("quorum/M30-a-lost-channel-counts")
def lost_channel(test):
    channel, queue = declared(test)
    publish(channel, queue, b"x")
    other = test.channel()
    other.consume(queue, "t")
    other.delivery(redelivered=False)
    other.close()
    channel.ready(queue, 1)
    check_equal("counts", counts(channel.get(queue)), expect(rabbitmq=(1, None), warren=(1, 1)))


@case("quorum/M27-what-comes-back-goes-to-its-place")
def returned(test):
    channel, queue = declared(test)
    publish(channel, queue, b"0", b"1", b"2", b"3")
    channel.call("basic.qos", prefetch_count=3)
    channel.consume(queue, "t")
    for _ in range(3):
        channel.delivery()
    channel.call("basic.cancel", consumer_tag="t")
    channel.send("basic.nack", delivery_tag=3, requeue=True)
    channel.send("basic.nack", delivery_tag=1, requeue=True)
    channel.ready(queue, 3)
    # RabbitMQ has them in the order in which they came back, until 4.0 behind the others.
    check_equal("order", channel.drain(queue), expect(rabbitmq=[b"3", b"2", b"0"], warren=[b"0", b"2", b"3"]))


# M30, M32: the delivery limit --------------------------------------------------------------------


@case("quorum/M32-delivery-limit")
def delivery_limit(test):
    channel = test.channel()
    exchange, dead = channel.exchange(test.name(), "fanout"), channel.queue(test.name())
    channel.bind(dead, exchange)
    _, queue = declared(test, {"x-delivery-limit": 2, "x-dead-letter-exchange": exchange}, channel)
    publish(channel, queue, b"x")
    channel.consume(queue, "t")
    for tag in range(1, 4):
        channel.delivery(redelivered=tag > 1)
        channel.send("basic.reject", delivery_tag=tag, requeue=True)
    (got,) = arrived(channel, dead)
    (death,) = plain(got.properties["headers"]["x-death"])
    del death["time"]
    wanted = {"count": 1, "reason": "delivery_limit", "queue": queue, "exchange": "", "routing-keys": [queue]}
    check_equal("x-death", death, wanted)
    check_equal("first death", plain(got.properties["headers"]["x-first-death-reason"]), "delivery_limit")
    channel.ready(queue, 0)


@case("quorum/M30-the-limit-is-for-failures")
def failures_only(test):
    channel, queue = declared(test, {"x-delivery-limit": 1})
    publish(channel, queue, b"x")
    for tag in range(1, 5):
        if channel.call(DECLARE, queue=queue, passive=True).message_count == 0:
            break
        channel.get(queue, no_ack=False)
        channel.send("basic.nack", delivery_tag=tag, requeue=True)
        channel.ready(queue, 1 if tag < 2 else expect(rabbitmq=0, warren=1))
    check_equal("left", len(channel.drain(queue)), expect(rabbitmq=0, warren=1))


@case("quorum/M30-default-limit")
def default_limit(test):
    channel, queue = declared(test)
    publish(channel, queue, b"x")
    channel.consume(queue, "t")
    # RabbitMQ has a limit by default since 4.0.
    for tag in range(1, expect(rabbitmq=30, warren=21) + 1):
        channel.delivery()
        channel.send("basic.reject", delivery_tag=tag, requeue=True)
    if expect(rabbitmq=True, warren=False):
        channel.delivery()
        return
    channel.call("basic.cancel", consumer_tag="t")
    channel.get_empty(queue)


@case("quorum/M30-no-limit")
def no_limit(test):
    channel, queue = declared(test, {"x-delivery-limit": expect(rabbitmq="none", warren=-1)})
    publish(channel, queue, b"x")
    channel.consume(queue, "t")
    for tag in range(1, 31):
        channel.delivery()
        channel.send("basic.reject", delivery_tag=tag, requeue=True)
    got = channel.delivery()
    check_equal("counts", counts(got), expect(rabbitmq=(30, None), warren=(30, 30)))


# Dead letters, limits, TTL -----------------------------------------------------------------------


def with_dead_letters(test, arguments):
    channel = test.channel()
    exchange, dead = channel.exchange(test.name(), "fanout"), channel.queue(test.name())
    channel.bind(dead, exchange)
    _, queue = declared(test, {"x-dead-letter-exchange": exchange, **arguments}, channel)
    return channel, queue, dead


def reasons(channel, dead, count):
    messages = arrived(channel, dead, count)
    return [(got.body, plain(got.properties["headers"]["x-death"])[0]["reason"]) for got in messages]


@case("quorum/M32-rejected")
def rejected(test):
    channel, queue, dead = with_dead_letters(test, {})
    publish(channel, queue, b"0", b"1")
    channel.get(queue, no_ack=False)
    channel.get(queue, no_ack=False)
    channel.send("basic.nack", delivery_tag=2, multiple=True, requeue=False)
    check_equal("dead", reasons(channel, dead, 2), [(b"0", "rejected"), (b"1", "rejected")])


@case("quorum/M32-maxlen")
def maxlen(test):
    channel, queue, dead = with_dead_letters(test, {"x-max-length": 2})
    channel.call("confirm.select")
    for number in range(4):
        channel.publish(queue, b"%d" % number)
        channel.expect("basic.ack", delivery_tag=number + 1)
    check_equal("dead", reasons(channel, dead, 2), [(b"0", "maxlen"), (b"1", "maxlen")])
    check_equal("left", channel.drain(queue), [b"2", b"3"])


@case("quorum/maxlen-bytes")
def maxlen_bytes(test):
    channel, queue, dead = with_dead_letters(test, {"x-max-length-bytes": 10})
    for body in (b"aaaa", b"bbbb", b"cccc"):
        channel.publish(queue, body)
    # RabbitMQ 3.10 counts the headers it adds as well.
    wanted = [(b"aaaa", "maxlen")]
    check_equal("dead", reasons(channel, dead, 1), wanted)
    check_equal("left", channel.drain(queue), [b"bbbb", b"cccc"])


@case("quorum/U2-reject-publish")
def reject_publish(test):
    channel, queue = declared(test, {"x-max-length": 2, "x-overflow": "reject-publish"})
    channel.call("confirm.select")
    outcomes = []
    for number in range(12):
        channel.publish(queue, b"%d" % number)
        frame = channel.peer.receive("an answer to a publish")
        outcomes.append(channel.peer.decode(frame).name)
    # RabbitMQ refuses once it has told the channel, which is one message too late.
    check_equal("first", outcomes[:2], ["basic.ack"] * 2)
    check_equal("last", outcomes[4:], ["basic.nack"] * 8)
    check_equal("left", channel.drain(queue)[:2], [b"0", b"1"])


@cases(
    [
        ("quorum/M31-queue-ttl", {"x-message-ttl": 50}, {}),
        ("quorum/M31-message-ttl", {}, {"expiration": "50"}),
        ("quorum/M31-both", {"x-message-ttl": 60000}, {"expiration": "50"}),
        ("quorum/M31-zero", {}, {"expiration": "0"}),
        ("quorum/M31-queue-ttl-zero", {"x-message-ttl": 0}, {}),
    ]
)
def expires(test, arguments, options):
    channel, queue, dead = with_dead_letters(test, arguments)
    channel.publish(queue, b"x", options)
    check_equal("dead", reasons(channel, dead, 1), [(b"x", "expired")])
    channel.ready(queue, 0)


@case("quorum/U1-everything-is-persistent")
def persistent(test):
    channel, queue = declared(test)
    publish(channel, queue, b"x", delivery_mode=1)
    check_equal("mode", channel.get(queue).properties["delivery_mode"], 1)


@case("quorum/U2-priorities")
def priorities(test):
    channel, queue = declared(test)
    for body, options in (
        (b"none", {}),
        (b"4", {"priority": 4}),
        (b"0", {"priority": 0}),
        (b"31", {"priority": 31}),
        (b"5", {"priority": 5}),
        (b"255", {"priority": 255}),
    ):
        channel.publish(queue, body, options)
    channel.ready(queue, 6)
    # RabbitMQ has priorities in quorum queues since 4.0, all 32 of them since 4.3.
    wanted = expect(
        rabbitmq=[b"none", b"4", b"0", b"31", b"5", b"255"],
        warren=[b"31", b"255", b"5", b"none", b"4", b"0"],
    )
    check_equal("order", channel.drain(queue), wanted)


@case("quorum/U2-consumer-priorities")
def consumer_priorities(test):
    channel, queue = declared(test)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "low", arguments={"x-priority": -1})
    channel.consume(queue, "high", arguments={"x-priority": 10})
    channel.publish(queue, b"0")
    channel.delivery(consumer_tag="high")
    channel.publish(queue, b"1")
    channel.delivery(consumer_tag="low")
    channel.send("basic.ack", delivery_tag=1)
    channel.publish(queue, b"2")
    channel.delivery(consumer_tag="high")


@case("quorum/M23-a-higher-priority-takes-over")
def takes_over(test):
    channel, queue = declared(test, {"x-single-active-consumer": True})
    channel.consume(queue, "first")
    publish(channel, queue)
    channel.publish(queue, b"0")
    channel.delivery(consumer_tag="first")
    channel.consume(queue, "high", arguments={"x-priority": 1})
    channel.publish(queue, b"1")
    # RabbitMQ does so since 4.0: the active one settles what it has first.
    if expect(rabbitmq=True, warren=False):
        channel.delivery(consumer_tag="first")
        return
    channel.ready(queue, 1)
    channel.send("basic.ack", delivery_tag=1)
    channel.delivery(consumer_tag="high")


# Consumers ---------------------------------------------------------------------------------------


@case("quorum/M24-global-prefetch")
def global_prefetch(test):
    channel, queue = declared(test)
    channel.call("basic.qos", prefetch_count=5, global_=True)
    channel.call("basic.qos", prefetch_count=0, global_=True)
    channel.consume(queue, "without")
    # It does not apply to who is there, and nobody else may come.
    channel.call("basic.qos", prefetch_count=1, global_=True)
    for _ in range(3):
        channel.publish(queue, b"x")
        channel.delivery(consumer_tag="without")
    channel.send("basic.consume", queue=queue, consumer_tag="with")
    text = f"queue '{queue}' in vhost '/' does not support global qos"
    channel.peer.refused(540, text, "basic.consume")


@case("quorum/U2-exclusive-consumers-are-like-others")
def exclusive_consumers(test):
    channel, queue = declared(test)
    channel.consume(queue, "one", exclusive=True)
    channel.consume(queue, "two")
    channel.consume(queue, "three", exclusive=True)


# M41: consumers that take too long ---------------------------------------------------------------


def with_timeout(test, queue_arguments, capabilities=None, **consume):
    """A consumer that has a message and does not acknowledge it."""
    if not test.broker.is_warren:
        raise NotApplicable("queues and consumers have timeouts of their own since 4.3")
    watcher, queue = declared(test, queue_arguments)
    channel = test.channel(capabilities=capabilities)
    channel.consume(queue, "slow", **consume)
    channel.publish(queue, b"x")
    channel.delivery()
    return channel, watcher, queue


@cases(
    [
        ("quorum/M41-timeout-of-the-queue", {"x-consumer-timeout": 200}, {}),
        ("quorum/M41-timeout-of-the-consumer", {}, {"x-consumer-timeout": 200}),
        ("quorum/M41-the-consumer-knows-better", {"x-consumer-timeout": 60000}, {"x-consumer-timeout": 200}),
    ]
)
def timeout(test, arguments, consumer):
    channel, watcher, queue = with_timeout(test, arguments, arguments=consumer)
    channel.expect("basic.cancel", consumer_tag="slow", nowait=True)
    # The message is back, and that is no fault of the message.
    watcher.ready(queue, 1)
    got = watcher.get(queue)
    check_equal("redelivered, counts", (got.method.redelivered, counts(got)), (True, (None, 1)))
    # The channel goes on.
    channel.alive()


@case("quorum/M41-timeout-without-cancel-notifications")
def timeout_closes(test):
    capabilities = {**CAPABILITIES, "consumer_cancel_notify": False}
    channel, watcher, queue = with_timeout(test, {"x-consumer-timeout": 200}, capabilities=capabilities)
    text = (
        "delivery acknowledgement on channel 1 timed out. Timeout value used: 200 ms. "
        "This timeout value can be configured, see consumers doc guide to learn more"
    )
    channel.refused(406, text, (0, 0))
    watcher.ready(queue, 1)


@case("quorum/M41-in-time")
def in_time(test):
    channel, watcher, queue = with_timeout(test, {"x-consumer-timeout": 400})
    for tag in range(1, 4):
        time.sleep(0.2)
        channel.send("basic.ack", delivery_tag=tag)
        channel.publish(queue, b"x")
        channel.delivery(delivery_tag=tag + 1)
