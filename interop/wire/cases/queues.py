"""queue.declare, delete, purge: names, properties, exclusivity, counts."""

import re

from harness import case, cases, expect
from peer import check, check_equal

DECLARE, DELETE, PURGE = "queue.declare", "queue.delete", "queue.purge"
MISSING = "no queue 'no such queue' in vhost '/'"
NOT_DECLARED = "no previously declared queue"


def locked(queue):
    return (
        f"cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. "
        "It could be originally declared on another connection or the exclusive property value "
        "does not match that of the original declaration."
    )


def gone(channel, queue):
    channel.send(DECLARE, queue=queue, passive=True)
    channel.refused(404, f"no queue '{queue}' in vhost '/'", DECLARE)
    channel.call("channel.open")


# M7: names -------------------------------------------------------------------------------------


@case("queues/M7-server-named")
def server_named(test):
    channel = test.channel()
    names = {channel.queue() for _ in range(20)}
    check_equal("different names", len(names), 20)
    for name in names:
        check_equal("name", name, re.compile("amq\\.gen-[A-Za-z0-9_-]{22}"))


@case("queues/M7-name-prefix")
def name_prefix(test):
    # RabbitMQ 3.10 does not know the argument.
    channel = test.channel()
    queue = channel.queue(arguments={"x-name-prefix": "wire"})
    prefix = expect(rabbitmq="amq\\.gen", warren="wire")
    check_equal("name", queue, re.compile(prefix + "-[A-Za-z0-9_-]{22}"))
    # It is not stored, so a declaration without it is equivalent.
    if test.broker.is_warren:
        channel.queue(queue)


@cases([(f"queues/M7-no-server-named-{kind}-queue", kind) for kind in ("quorum", "stream")])
def server_named_refused(test, kind):
    channel = test.channel()
    channel.send(DECLARE, queue="", durable=True, arguments={"x-queue-type": kind})
    close = channel.expect("channel.close", reply_code=406, class_id=50, method_id=10)
    text = "PRECONDITION_FAILED - Cannot declare a server-named queue for type "
    check(close.reply_text.startswith(text), f"reply text is {close.reply_text!r}")


@case("queues/M7-empty-name-means-the-last-declared")
def last_declared(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    channel.call("queue.bind", queue="", exchange="amq.direct", routing_key=queue + "-k")
    channel.publish(queue + "-k", b"x", exchange="amq.direct")
    check_equal("body", channel.get("").body, b"x")
    # An empty key becomes the queue's name too, but only along with an empty queue.
    channel.call("queue.bind", queue="", exchange="amq.direct", routing_key="")
    channel.publish(queue, b"y", exchange="amq.direct")
    check_equal("body", channel.get("").body, b"y")
    channel.call("queue.unbind", queue="", exchange="amq.direct", routing_key="")
    channel.publish(queue, b"z", exchange="amq.direct", mandatory=True)
    check_equal("returned", channel.content("basic.return").body, b"z")
    channel.publish(queue, b"1")
    check_equal("purged", channel.call(PURGE, queue="").message_count, 1)
    channel.consume("", "t")
    channel.call("basic.cancel", consumer_tag="t")
    channel.call(DELETE, queue="")


@case("queues/M7-last-declared-is-per-channel-and-follows-declarations")
def last_declared_follows(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    first, second = channel.queue(), channel.queue()
    channel.publish(first, b"first")
    channel.publish(second, b"second")
    check_equal("body", channel.get("").body, b"second")
    channel.call(DECLARE, queue=first, passive=True)
    check_equal("body", channel.get("").body, b"first")
    other.send("basic.get", queue="")
    other.refused(404, NOT_DECLARED, "basic.get")


@case("queues/M7-last-declared-survives-a-nowait-declaration")
def last_declared_nowait(test):
    channel = test.channel()
    name = test.name()
    channel.send(DECLARE, queue=name, exclusive=True, nowait=True)
    channel.publish(name, b"x")
    check_equal("body", channel.get("").body, b"x")


@case("queues/M7-last-declared-is-deleted")
def last_declared_deleted(test):
    channel = test.channel()
    queue = channel.queue()
    channel.call(DELETE, queue="")
    channel.send(PURGE, queue="")
    channel.refused(404, f"no queue '{queue}' in vhost '/'", PURGE)


WITHOUT_QUEUE = [
    ("queue.bind", {"exchange": "amq.direct", "routing_key": "k"}),
    ("queue.unbind", {"exchange": "amq.direct", "routing_key": "k"}),
    (PURGE, {}),
    (DELETE, {}),
    ("basic.get", {}),
    ("basic.consume", {}),
]


@cases([(f"queues/M7-no-last-queue-for-{name}", name, arguments) for name, arguments in WITHOUT_QUEUE])
def no_last_declared(test, name, arguments):
    channel = test.channel()
    channel.send(name, queue="", **arguments)
    channel.refused(404, NOT_DECLARED, name)


@case("queues/M7-passive-declare-of-the-empty-name")
def passive_empty(test):
    channel = test.channel()
    channel.send(DECLARE, queue="", passive=True)
    channel.refused(404, "no queue '' in vhost '/'", DECLARE)


@cases(
    [
        ("queues/F8-name-of-255-octets", "x" * 232),
        ("queues/F8-name-with-spaces-and-quotes", " 'quoted' \"doubly\" \\ / %2f\t"),
        ("queues/F8-name-in-utf-8", "zażółć-兎穴-🐇"),
        ("queues/F8-name-with-octet-0", "a\0b"),
    ]
)
def any_name(test, suffix):
    channel = test.channel()
    name = (test.name() + suffix)[:255]
    check_equal("name", channel.queue(name), name)
    channel.publish(name, b"x")
    got = channel.get(name)
    check_equal("body, key", (got.body, got.method.routing_key), (b"x", name))
    channel.call(DELETE, queue=name)


@case("queues/F8-cr-and-lf-are-stripped-from-names")
def stripped(test):
    channel = test.channel()
    plain = test.name("-ab")
    broken = plain.replace("ab", "a\r\nb\n")
    check_equal("name", channel.queue(broken), plain)
    channel.call(DECLARE, queue=broken, passive=True)
    exchange = test.name("-ab")
    broken_exchange = exchange.replace("ab", "\na\rb")
    channel.exchange(broken_exchange)
    channel.call("exchange.declare", exchange=exchange, passive=True)
    channel.call("queue.bind", queue=broken, exchange=broken_exchange, routing_key="k")
    channel.publish("k", b"x", exchange=exchange)
    check_equal("body", channel.get(plain).body, b"x")
    channel.call("exchange.delete", exchange=broken_exchange)
    channel.call(DELETE, queue=broken)
    gone(channel, plain)


@case("queues/F8-name-that-is-only-cr-and-lf-is-server-named")
def only_cr_lf(test):
    check_equal("name", test.channel().queue("\r\n"), re.compile("amq\\.gen-.{22}"))


# Errors ----------------------------------------------------------------------------------------

REFUSED = [
    ("M8-passive-missing", DECLARE, {"queue": "no such queue", "passive": True}, 404, MISSING),
    (
        "N1-reserved-name",
        DECLARE,
        {"queue": "amq.wire"},
        403,
        "queue name 'amq.wire' contains reserved prefix 'amq.*'",
    ),
    (
        "N1-passive-reserved-name-is-missing",
        DECLARE,
        {"queue": "amq.wire", "passive": True},
        404,
        "no queue 'amq.wire' in vhost '/'",
    ),
    ("M13-purge-missing", PURGE, {"queue": "no such queue"}, 404, MISSING),
    ("M20-consume-missing", "basic.consume", {"queue": "no such queue"}, 404, MISSING),
    ("M25-get-missing", "basic.get", {"queue": "no such queue"}, 404, MISSING),
]


@cases([(f"queues/{name}", *rest) for name, *rest in REFUSED])
def refused(test, method, arguments, code, text):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.send(method, **arguments)
    channel.refused(code, text, method)
    other.alive()
    channel.call("channel.open")


# M8, M9: properties and counts -----------------------------------------------------------------


@case("queues/M8-declare-ok-counts")
def counts(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue(test.name())
    for _ in range(3):
        channel.publish(queue, b"x")
    channel.ready(queue, 3)
    channel.get(queue, no_ack=False)
    channel.ready(queue, 2)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "t")
    channel.delivery()
    again = channel.call(DECLARE, queue=queue, exclusive=True)
    check_equal("messages, consumers", (again.message_count, again.consumer_count), (1, 1))
    passive = channel.call(DECLARE, queue=queue, passive=True)
    check_equal("messages, consumers", (passive.message_count, passive.consumer_count), (1, 1))


INEQUIVALENT = [
    ("durable", {}, {"durable": True}, "true", "false"),
    ("durable", {"durable": True}, {}, "false", "true"),
    ("auto_delete", {}, {"auto_delete": True}, "true", "false"),
    ("auto_delete", {"auto_delete": True}, {}, "false", "true"),
    ("durable", {}, {"durable": True, "auto_delete": True}, "true", "false"),
]


@cases([(f"queues/M8-inequivalent-{number}-{row[0]}", *row) for number, row in enumerate(INEQUIVALENT, 1)])
def inequivalent(test, argument, first, second, received, current):
    channel = test.channel()
    name = test.name()
    channel.call(DECLARE, queue=name, **first)
    channel.call(DECLARE, queue=name, **first)
    channel.call(DECLARE, queue=name, passive=True, **second)
    channel.send(DECLARE, queue=name, **second)
    text = (
        f"inequivalent arg '{argument}' for queue '{name}' in vhost '/': "
        f"received '{received}' but current is '{current}'"
    )
    channel.refused(406, text, DECLARE)


@cases(
    [
        ("queues/M8-inequivalent-exclusive", {}, {"exclusive": True}),
        ("queues/M8-inequivalent-not-exclusive", {"exclusive": True}, {}),
    ]
)
def inequivalent_exclusive(test, first, second):
    channel = test.channel()
    name = test.name()
    channel.call(DECLARE, queue=name, **first)
    channel.send(DECLARE, queue=name, **second)
    channel.refused(405, locked(name), DECLARE)


@case("queues/M9-durable-exclusive-is-not-durable")
def durable_exclusive(test):
    channel = test.channel()
    queue = channel.queue(test.name(), durable=True)
    channel.queue(queue, durable=False)
    channel.queue(queue, durable=True)


FROM_ANOTHER_CONNECTION = [
    (DECLARE, {}),
    (DECLARE, {"exclusive": True}),
    (DECLARE, {"passive": True}),
    (DELETE, {}),
    (PURGE, {}),
    ("queue.bind", {"exchange": "amq.direct", "routing_key": "k"}),
    ("queue.unbind", {"exchange": "amq.direct", "routing_key": "k"}),
    ("basic.consume", {}),
    ("basic.get", {}),
]


@cases(
    [
        (f"queues/M9-exclusive-refuses-{name.replace('.', '-')}-{number}", name, arguments)
        for number, (name, arguments) in enumerate(FROM_ANOTHER_CONNECTION, 1)
    ]
)
def exclusive_access(test, method, arguments):
    owner = test.channel()
    queue = owner.queue(test.name())
    # Bound, because unbinding what was never bound is always fine.
    owner.bind(queue, "amq.direct", "k")
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.send(method, queue=queue, **arguments)
    channel.refused(405, locked(queue), method)
    other.alive()
    # Publishing is no access to the queue, and the owner has all of it.
    other.publish(queue, b"x")
    owner.ready(queue, 1)
    owner.peer.channel(2).call(DELETE, queue=queue)


# M10: auto-delete ------------------------------------------------------------------------------


@case("queues/M10-auto-delete-after-the-last-cancel")
def auto_delete(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name(), auto_delete=True)
    channel.consume(queue, "one")
    channel.consume(queue, "two")
    channel.call("basic.cancel", consumer_tag="one")
    other.call(DECLARE, queue=queue, passive=True)
    channel.call("basic.cancel", consumer_tag="two")
    gone(other, queue)


@case("queues/M10-auto-delete-after-channel-close")
def auto_delete_channel(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name(), auto_delete=True)
    channel.consume(queue, "t")
    channel.close()
    gone(other, queue)


@case("queues/M10-auto-delete-never-without-a-consumer")
def never_consumed(test):
    channel = test.channel()
    queue = channel.queue(test.name(), auto_delete=True)
    channel.publish(queue, b"x")
    channel.get(queue)
    channel.send("basic.cancel", consumer_tag="none")
    channel.expect("basic.cancel-ok", consumer_tag="none")
    channel.call(DECLARE, queue=queue, passive=True)


# M11, M13: delete and purge --------------------------------------------------------------------


@case("queues/M11-delete-missing")
def delete_missing(test):
    channel = test.channel()
    for flags in ({}, {"if_unused": True}, {"if_empty": True}):
        reply = channel.call(DELETE, queue="no such queue", **flags)
        check_equal("messages", reply.message_count, 0)


@case("queues/M11-delete-counts-ready-messages")
def delete_counts(test):
    channel = test.channel()
    queue = channel.queue()
    for _ in range(4):
        channel.publish(queue, b"x")
    channel.get(queue, no_ack=False)
    check_equal("messages", channel.call(DELETE, queue=queue).message_count, 3)
    gone(channel, queue)


@case("queues/M11-delete-if-empty")
def delete_if_empty(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name())
    channel.publish(queue, b"x")
    channel.ready(queue, 1)
    other.send(DELETE, queue=queue, if_empty=True)
    other.refused(406, f"queue '{queue}' in vhost '/' not empty", DELETE)
    channel.get(queue)
    channel.call(DELETE, queue=queue, if_empty=True)


@case("queues/M11-delete-if-unused")
def delete_if_unused(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name())
    channel.consume(queue, "t")
    other.send(DELETE, queue=queue, if_unused=True)
    other.refused(406, f"queue '{queue}' in vhost '/' in use", DELETE)
    channel.call("basic.cancel", consumer_tag="t")
    channel.call(DELETE, queue=queue, if_unused=True)


@case("queues/M11-delete-removes-bindings")
def delete_removes_bindings(test):
    channel = test.channel()
    queue, exchange = channel.queue(test.name()), channel.exchange(test.name())
    channel.bind(queue, exchange, "k")
    channel.call(DELETE, queue=queue)
    channel.queue(queue)
    channel.publish("k", b"x", exchange=exchange, mandatory=True)
    check_equal("returned", channel.content("basic.return").body, b"x")


@case("queues/M13-purge-takes-ready-messages-only")
def purge(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue(test.name())
    for body in (b"unacked", b"1", b"2"):
        channel.publish(queue, body)
    delivery = channel.get(queue, no_ack=False)
    check_equal("purged", channel.call(PURGE, queue=queue).message_count, 2)
    check_equal("purged", channel.call(PURGE, queue=queue).message_count, 0)
    channel.send("basic.reject", delivery_tag=delivery.method.delivery_tag, requeue=True)
    check_equal("body", channel.get(queue).body, b"unacked")


# nowait ----------------------------------------------------------------------------------------


@case("queues/nowait-sends-no-reply")
def nowait(test):
    channel = test.channel()
    queue, exchange = test.name(), channel.exchange(test.name())
    channel.send(DECLARE, queue=queue, exclusive=True, nowait=True)
    channel.send(DECLARE, queue=queue, passive=True, nowait=True)
    channel.send("queue.bind", queue=queue, exchange=exchange, routing_key="k", nowait=True)
    channel.publish("k", b"x", exchange=exchange)
    channel.send(PURGE, queue=queue, nowait=True)
    channel.alive()
    channel.get_empty(queue)
    channel.send(DELETE, queue=queue, nowait=True)
    channel.alive()
    gone(channel, queue)


NOWAIT_ERRORS = [
    (
        "declare",
        DECLARE,
        {"queue": "amq.wire"},
        403,
        "queue name 'amq.wire' contains reserved prefix 'amq.*'",
    ),
    ("declare-passive", DECLARE, {"queue": "no such queue", "passive": True}, 404, MISSING),
    ("purge", PURGE, {"queue": "no such queue"}, 404, MISSING),
    ("bind", "queue.bind", {"queue": "no such queue", "exchange": "amq.direct"}, 404, MISSING),
    ("consume", "basic.consume", {"queue": "no such queue"}, 404, MISSING),
]


@cases([(f"queues/nowait-error-of-{name}", *rest) for name, *rest in NOWAIT_ERRORS])
def nowait_error(test, method, arguments, code, text):
    channel = test.channel()
    channel.send(method, nowait=True, **arguments)
    channel.refused(code, text, method)


@case("queues/M9-exclusive-and-server-named-go-with-the-connection")
def exclusive_goes(test):
    peer = test.connect()
    names = [peer.channel(1).queue(), peer.channel(2).queue(test.name())]
    peer.shut()
    other = test.channel()
    for name in names:
        gone(other, name)


@case("queues/M9-others-stay-when-the-connection-goes")
def others_stay(test):
    peer = test.connect()
    channel = peer.channel()
    transient = channel.queue(test.name(), exclusive=False)
    durable = channel.queue(test.name(), exclusive=False, durable=True)
    channel.publish(transient, b"x")
    channel.publish(durable, b"y", {"delivery_mode": 2})
    channel.ready(durable, 1)
    peer.shut()
    other = test.channel()
    check_equal("body", other.get(transient).body, b"x")
    check_equal("body", other.get(durable).body, b"y")
