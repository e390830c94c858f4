"""Field tables in method arguments: every type, malformed ones, and deep nesting."""

import amqp
from amqp import Field
from harness import case, cases
from peer import check_equal

EVERY_TYPE = {
    "bool": True,
    "false": False,
    "i8": Field("b", -128),
    "u8": Field("B", 255),
    "i16": Field("s", -32768),
    "u16": Field("u", 65535),
    "i32": Field("I", -(2**31)),
    "u32": Field("i", 2**32 - 1),
    "l": Field("l", -(2**63)),
    "L": Field("L", 2**63 - 1),
    "float": Field("f", 0.5),
    "double": Field("d", 0.1),
    "decimal": Field("D", (2, 4294967295)),
    "text": "zażółć",
    "not utf-8": b"\xff\xfe",
    "empty": "",
    "bytes": Field("x", b"\0\xff"),
    "time": Field("T", 2**63),
    "void": None,
    "array": [1, "two", [3, []], {"four": 4}, None, True, Field("x", b"")],
    "table": {"a": {"b": {"c": []}}, "": None},
    "": "an empty name",
}


@cases([(f"tables/F7-queue-argument-{name or 'of-empty-name'}", name) for name in EVERY_TYPE])
def queue_argument(test, name):
    # Unknown arguments are stored and ignored, whatever their type.
    channel = test.channel()
    arguments = {name: EVERY_TYPE[name]}
    queue = channel.queue(test.name(), arguments=arguments)
    check_equal("queue", channel.queue(queue, arguments=arguments), queue)


@case("tables/F7-every-type-in-queue-exchange-binding-and-consumer")
def every_argument(test):
    channel = test.channel()
    queue = channel.queue(test.name(), arguments=EVERY_TYPE)
    exchange = channel.exchange(test.name(), "direct", arguments=EVERY_TYPE)
    channel.exchange(exchange, "direct", arguments=EVERY_TYPE)
    channel.bind(queue, exchange, "k", arguments=EVERY_TYPE)
    channel.send("basic.consume", queue=queue, consumer_tag="t", no_ack=True, arguments=EVERY_TYPE)
    channel.expect("basic.consume-ok", consumer_tag="t")
    channel.publish("k", b"x", exchange=exchange)
    check_equal("body", channel.delivery(routing_key="k").body, b"x")
    # The same table finds the binding again.
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="k", arguments=EVERY_TYPE)
    channel.publish("k", b"y", exchange=exchange, mandatory=True)
    check_equal("returned", channel.content("basic.return", reply_code=312).body, b"y")


@case("tables/F7-names-may-repeat-and-bool-may-be-any-octet")
def odd_but_accepted(test):
    channel = test.channel()
    channel.queue(arguments=amqp.table_pairs([("x-a", 1), ("x-a", "two")]))
    channel.queue(arguments=amqp.longstr(b"\1at\5"))


MALFORMED = [
    ("unknown-type", amqp.longstr(b"\1aZ")),
    ("name-truncated", amqp.longstr(b"\5a")),
    ("type-missing", amqp.longstr(b"\1a")),
    ("number-truncated", amqp.longstr(b"\1aI\0\0")),
    ("string-truncated", amqp.longstr(b"\1aS\0\0\0\5ab")),
    ("string-of-4-gigabytes", amqp.longstr(b"\1aS\xff\xff\xff\xffab")),
    ("decimal-truncated", amqp.longstr(b"\1aD\2\0\0")),
    ("inner-table-beyond-the-outer", amqp.longstr(b"\1aF\0\0\1\0")),
    ("inner-table-of-unknown-type", amqp.longstr(b"\1aF" + amqp.longstr(b"\1bZ"))),
    ("array-beyond-the-table", amqp.longstr(b"\1aA\0\0\1\0")),
    ("array-of-unknown-type", amqp.longstr(b"\1aA" + amqp.longstr(b"Z"))),
    ("array-item-truncated", amqp.longstr(b"\1aA" + amqp.longstr(b"I\0"))),
]


@cases([(f"tables/F7-{name}", data) for name, data in MALFORMED])
def malformed(test, data):
    peer = test.connect()
    peer.channel()
    peer.send(1, "queue.declare", queue="", exclusive=True, arguments=data)
    test.malformed(peer, "queue.declare")


@cases([(f"tables/F7-client-properties-{name}", data) for name, data in MALFORMED[:4]])
def malformed_client_properties(test, data):
    peer = test.raw()
    peer.start()
    peer.send(0, "connection.start-ok", client_properties=data, response="\0guest\0guest")
    test.malformed(peer, "connection.start-ok")


@cases(
    [
        ("tables/F7-length-beyond-the-frame", b"\0\0\x10\0\1at\1"),
        ("tables/F7-length-of-4-gigabytes", b"\xff\xff\xff\xff"),
    ]
)
def length_beyond(test, data):
    peer = test.connect()
    peer.channel()
    peer.send(1, "queue.declare", queue="", exclusive=True, arguments=data)
    shown = ",".join(map(str, b"\0\0\0\4" + data))
    test.malformed(peer, "queue.declare", 501, f"cannot decode <<{shown}>>", "queue.declare")


def nested_tables(depth):
    data = b""
    for _ in range(depth):
        data = b"\1aF" + amqp.longstr(data)
    return amqp.longstr(data)


def nested_arrays(depth):
    data = b""
    for _ in range(depth):
        data = b"A" + amqp.longstr(data)
    return amqp.longstr(b"\1a" + data)


@cases(
    [
        ("tables/F7-tables-20-deep", nested_tables(20)),
        ("tables/F7-arrays-20-deep", nested_arrays(20)),
    ]
)
def deep(test, data):
    # Deeper than what any application sends.
    test.channel().queue(arguments=data)


@cases(
    [
        ("tables/F7-tables-1000-deep", nested_tables(1000)),
        ("tables/F7-tables-10000-deep", nested_tables(10000)),
        ("tables/F7-arrays-10000-deep", nested_arrays(10000)),
    ]
)
def too_deep(test, data):
    # RabbitMQ's stack has no limit of its own. Warren may refuse, but must not fall over.
    peer = test.connect()
    peer.channel()
    peer.send(1, "queue.declare", queue="", exclusive=True, arguments=data)
    frame = peer.receive("an answer to queue.declare")
    if test.broker.is_warren and frame.channel == 0:
        check_equal("code", peer.decode(frame).reply_code in (501, 502), True)
    else:
        check_equal("answer", peer.decode(frame).name, "queue.declare-ok")
    test.channel().alive()


@case("tables/F7-message-headers-10000-deep")
def deep_headers(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    properties = b"\x20\0" + nested_tables(10000)
    channel.publish(queue, b"x", properties)
    channel.send("basic.get", queue=queue, no_ack=True)
    frame = peer.receive("basic.get-ok or connection.close")
    if test.broker.is_warren and frame.channel == 0:
        check_equal("code", peer.decode(frame).reply_code in (501, 502), True)
    else:
        check_equal("answer", peer.decode(frame).name, "basic.get-ok")
        check_equal("property bytes are intact", peer.receive("header").payload[12:] == properties, True)
    test.channel().alive()
