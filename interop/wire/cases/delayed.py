"""Delayed messages (E7): exchanges of type x-delayed-message, which RabbitMQ has with a plugin only."""

import time

from amqp import Field, field
from harness import NotApplicable, case, cases, expect
from peer import check, check_equal

DECLARE = "exchange.declare"
TYPE = "x-delayed-message"
# What a machine that has much to do may be late.
LATE = 0.5


def with_plugin(test):
    """A channel of a broker that knows delayed exchanges."""
    channel = test.channel()
    channel.send(DECLARE, exchange=test.name(), type=TYPE, arguments={"x-delayed-type": "direct"})
    answer = channel.peer.decode(channel.peer.receive("an answer to exchange.declare"))
    if answer.name != "exchange.declare-ok":
        raise NotApplicable(f"this broker has no exchanges of type {TYPE}")
    return channel


def delayed(test, kind="fanout", key="", **arguments):
    """A delayed exchange and a queue behind it."""
    channel = with_plugin(test)
    exchange = channel.exchange(test.name(), TYPE, arguments={"x-delayed-type": kind, **arguments})
    queue = channel.queue(test.name())
    channel.bind(queue, exchange, key)
    return channel, exchange, queue


def publish(channel, exchange, body, delay, key="", **properties):
    headers = {} if delay is None else {"x-delay": delay}
    headers.update(properties.pop("headers", {}))
    channel.publish(key, body, {"headers": headers, **properties}, exchange=exchange)


@case("delayed/E7-order")
def order(test):
    channel, exchange, queue = delayed(test)
    channel.consume(queue, "t", no_ack=True)
    began = time.monotonic()
    delays = {b"last": 600, b"first": 100, b"middle": 350, b"at once": None}
    for body, delay in delays.items():
        publish(channel, exchange, body, delay)
    for body in (b"at once", b"first", b"middle", b"last"):
        got = channel.delivery()
        took = time.monotonic() - began
        check_equal("body", got.body, body)
        wanted = (delays[body] or 0) / 1000
        check(wanted <= took < wanted + LATE, f"{body!r} came after {took:.3f} s, wanted {wanted}")


@case("delayed/E7-equal-delays-keep-the-order")
def equal_delays(test):
    channel, exchange, queue = delayed(test)
    channel.consume(queue, "t", no_ack=True)
    for number in range(50):
        publish(channel, exchange, b"%d" % number, 100)
    check_equal("order", [int(channel.delivery().body) for _ in range(50)], list(range(50)))


@cases(
    [
        ("delayed/E7-no-delay", None),
        ("delayed/E7-delay-0", 0),
        ("delayed/E7-negative-delay", -5000),
        ("delayed/E7-delay-of-another-type", "5000"),
        ("delayed/E7-delay-that-is-void", Field("V", None)),
    ]
)
def at_once(test, delay):
    channel, exchange, queue = delayed(test)
    publish(channel, exchange, b"x", delay)
    channel.ready(queue, 1)
    headers = channel.get(queue).properties["headers"]
    check_equal("headers", headers, {} if delay is None else {"x-delay": field(delay)})


@cases([(f"delayed/E7-delay-of-type-{tag}", tag) for tag in "bBsuIil"])
def types(test, tag):
    channel, exchange, queue = delayed(test)
    publish(channel, exchange, b"x", Field(tag, 100), headers={"mine": True}, message_id="m", priority=3)
    channel.get_empty(queue)
    channel.ready(queue, 1)
    got = channel.get(queue)
    # It tells how long it was, and asks for nothing should it come to a delayed exchange again.
    check_equal("x-delay", got.properties["headers"]["x-delay"].value, -100)
    check_equal("another header", got.properties["headers"]["mine"], Field("t", True))
    check_equal("properties", (got.properties["message_id"], got.properties["priority"]), ("m", 3))
    check_equal("exchange, key", (got.method.exchange, got.method.routing_key), (exchange, ""))


@case("delayed/E7-routes-when-it-is-due")
def late_route(test):
    channel, exchange, queue = delayed(test, "direct", "key")
    publish(channel, exchange, b"x", 300, "key")
    other = channel.queue(test.name())
    channel.bind(other, exchange, "key")
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="key")
    channel.ready(other, 1)
    channel.get_empty(queue)


@cases(
    [
        ("delayed/E7-routes-as-topic", "topic", "a.*", "a.b", {}),
        ("delayed/E7-routes-as-direct", "direct", "k", "k", {}),
        ("delayed/E7-routes-by-cc", "direct", "copy", "k", {"CC": ["copy"]}),
        ("delayed/E7-routes-by-bcc", "direct", "copy", "k", {"BCC": ["copy"]}),
    ]
)
def routes(test, kind, binding, key, headers):
    channel, exchange, queue = delayed(test, kind, binding)
    stray = channel.queue(test.name())
    channel.bind(stray, exchange, "another")
    publish(channel, exchange, b"x", 100, key, headers=headers)
    channel.ready(queue, 1)
    channel.get_empty(stray)
    check_equal("BCC", channel.get(queue).properties["headers"].get("BCC"), None)


@case("delayed/E7-routes-by-headers")
def headers_exchange(test):
    channel = with_plugin(test)
    exchange = channel.exchange(test.name(), TYPE, arguments={"x-delayed-type": "headers"})
    queue = channel.queue(test.name())
    channel.bind(queue, exchange, arguments={"colour": "red"})
    for colour in ("blue", "red"):
        publish(channel, exchange, colour.encode(), 100, headers={"colour": colour})
    channel.ready(queue, 1)
    check_equal("body", channel.get(queue).body, b"red")


@case("delayed/E7-mandatory")
def mandatory(test):
    channel, exchange, queue = delayed(test, "direct", "key")
    channel.call("confirm.select")
    channel.publish("key", b"late", {"headers": {"x-delay": 100}}, exchange=exchange, mandatory=True)
    # Where it goes is not known before it is due. The plugin returns it, and delivers it all the same.
    if expect(rabbitmq=True, warren=False):
        channel.content("basic.return", reply_code=312)
    channel.expect("basic.ack", delivery_tag=1)
    channel.ready(queue, 1)


@case("delayed/E7-expiration-counts-from-when-it-is-due")
def expiration(test):
    channel, exchange, queue = delayed(test)
    publish(channel, exchange, b"x", 300, expiration="200")
    channel.get_empty(queue)
    channel.ready(queue, 1)
    time.sleep(0.5)
    channel.get_empty(queue)


@case("delayed/E7-a-deleted-exchange-takes-its-messages-along")
def deleted(test):
    channel, exchange, queue = delayed(test)
    publish(channel, exchange, b"x", 300)
    channel.call("exchange.delete", exchange=exchange)
    channel.exchange(exchange, "fanout")
    channel.bind(queue, exchange)
    time.sleep(0.6)
    channel.get_empty(queue)


@case("delayed/E7-through-a-bound-exchange")
def bound_exchange(test):
    channel, exchange, queue = delayed(test)
    first = channel.exchange(test.name(), "fanout")
    channel.call("exchange.bind", destination=exchange, source=first, routing_key="")
    publish(channel, first, b"x", 100)
    channel.ready(queue, 1)
    got = channel.get(queue)
    check_equal("body, exchange", (got.body, got.method.exchange), (b"x", first))


@case("delayed/E7-dead-letters-are-delayed")
def dead_letters(test):
    channel, exchange, dead = delayed(test)
    queue = channel.queue(test.name(), arguments={"x-dead-letter-exchange": exchange})
    channel.publish(queue, b"x", {"headers": {"x-delay": 200}})
    got = channel.get(queue, no_ack=False)
    channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=False)
    channel.ready(queue, 0)
    channel.get_empty(dead)
    channel.ready(dead, 1)
    headers = channel.get(dead).properties["headers"]
    check_equal("reason", headers["x-first-death-reason"], Field("S", "rejected"))


# Arguments ---------------------------------------------------------------------------------------


INVALID = [
    ("no-type", {}, "Invalid argument, 'x-delayed-type' must be an existing exchange type"),
    ("type-5", {"x-delayed-type": 5}, "Invalid argument, 'x-delayed-type' must be an existing exchange type"),
    ("unknown-type", {"x-delayed-type": "no-such"}, "unknown exchange type 'no-such'"),
    (
        "itself",
        {"x-delayed-type": TYPE},
        "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'",
    ),
    (
        "bad-argument-of-the-type",
        {"x-delayed-type": "x-consistent-hash", "hash-header": "a", "hash-property": "message_id"},
        "hash-header and hash-property are mutually exclusive",
    ),
]


@cases([(f"delayed/C406-{name}", *rest) for name, *rest in INVALID])
def invalid(test, arguments, text):
    channel = with_plugin(test)
    channel.send(DECLARE, exchange=test.name(), type=TYPE, arguments=arguments)
    channel.refused(406, text, DECLARE)


@case("delayed/E7-an-exchange-of-any-type")
def any_type(test):
    # Warren's own: the argument makes any exchange a delayed one.
    with_plugin(test)
    if not test.broker.is_warren:
        raise NotApplicable("x-delayed-exchange is Warren's own")
    channel = test.channel()
    for kind in ("fanout", "direct", "topic"):
        exchange = channel.exchange(test.name(), kind, arguments={"x-delayed-exchange": True})
        queue = channel.queue(test.name())
        channel.bind(queue, exchange, "k")
        publish(channel, exchange, b"late", 200, "k")
        publish(channel, exchange, b"now", None, "k")
        channel.ready(queue, 1)
        check_equal("body", channel.get(queue).body, b"now")
        channel.ready(queue, 1)
        check_equal("x-delay", channel.get(queue).properties["headers"]["x-delay"].value, -200)
