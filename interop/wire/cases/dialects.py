"""AMQP 0-8 and 0-9 clients (section 6 of the feature reference)."""

import amqp
from amqp import Field
from harness import case, cases, expect
from peer import Mismatch, check, check_equal

OLD = ("0-8", "0-9")


def in_each(area_case):
    """Registers a case for both old dialects; % is replaced by the dialect's name."""
    return cases([(area_case.replace("%", name), name) for name in OLD])


@in_each("dialect-%/O1-works-from-open-to-close")
def whole_session(test, dialect):
    peer = test.connect(dialect)
    channel = peer.channel()
    queue, exchange = channel.queue(test.name()), channel.exchange(test.name(), "topic")
    channel.bind(queue, exchange, "a.#")
    properties = {"content_type": "text/plain", "headers": {"s": "text", "i": 5}, "priority": 3}
    channel.publish("a.b", b"x" * 200000, properties, exchange=exchange)
    got = channel.get(queue, no_ack=False)
    check_equal("body is intact", got.body == b"x" * 200000, True)
    check_equal("property bytes", got.raw_properties, peer.dialect.encode_properties(properties))
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    check_equal("tag", channel.consume(queue, "t"), "t")
    channel.delivery(consumer_tag="t", delivery_tag=2, redelivered=True, exchange=exchange)
    channel.send("basic.ack", delivery_tag=2)
    channel.call("basic.cancel", consumer_tag="t")
    channel.get_empty(queue)
    channel.call("basic.qos", prefetch_count=1)
    channel.call("queue.unbind", queue=queue, exchange=exchange, routing_key="a.#")
    channel.publish("a.b", b"r", exchange=exchange, mandatory=True)
    channel.content("basic.return", reply_code=312, reply_text="NO_ROUTE")
    check_equal("purged", channel.call("queue.purge", queue=queue).message_count, 0)
    check_equal("deleted", channel.call("queue.delete", queue=queue).message_count, 0)
    channel.call("exchange.delete", exchange=exchange)
    for name in ("tx.select", "tx.commit", "tx.rollback"):
        channel.call(name)
    channel.send("channel.flow", active=True)
    channel.expect("channel.flow-ok", active=True)
    channel.close()
    peer.shut()


# Start, open, close ------------------------------------------------------------------------------


@case("dialect-0-8/O2-start")
def start_0_8(test):
    start = test.raw("0-8").start()
    check_equal("version", (start.version_major, start.version_minor), (8, 0))
    check_equal("locales", start.locales, "en_US")
    check({"PLAIN", "AMQPLAIN"} <= set(start.mechanisms.split()), f"mechanisms {start.mechanisms}")
    properties = start.server_properties
    # RabbitMQ 3.10 sends an empty table, strict decoders of which are better off without.
    wanted = expect(rabbitmq=Field("F", {}), warren=None)
    check_equal("capabilities", properties.get("capabilities"), wanted)
    tags = {value.tag for name, value in properties.items() if name != "capabilities"}
    check_equal("types", tags, {"S"})
    check({"product", "version"} <= set(properties), "product or version is missing")


@case("dialect-0-9/O1-start-has-capabilities")
def start_0_9(test):
    start = test.raw("0-9").start()
    check_equal("version", (start.version_major, start.version_minor), (0, 9))
    check_equal("capabilities", start.server_properties["capabilities"].tag, "F")


def exact(peer, payload):
    """The next frame's payload, as bytes, so that the method's form itself is checked."""
    check_equal("payload", peer.receive("a method").payload, payload)


def opening(test, dialect):
    peer = test.raw(dialect)
    peer.login()
    peer.tune_ok()
    return peer


@cases(
    [
        (f"dialect-{name}/O4-open-ok-has-empty-known-hosts-with-insist-{insist}", name, insist)
        for name in OLD
        for insist in (False, True)
    ]
)
def open_ok(test, dialect, insist):
    peer = opening(test, dialect)
    peer.send(0, "connection.open", virtual_host="/", insist=insist)
    # Never connection.redirect, whether or not the client insists.
    exact(peer, b"\0\x0a\0\x29\0")


@cases(
    [
        ("dialect-0-8/O5-channel-open-ok-is-bare", "0-8", b""),
        ("dialect-0-9/O5-channel-open-ok-has-a-channel-id", "0-9", bytes(4)),
    ]
)
def channel_open_ok(test, dialect, arguments):
    peer = test.connect(dialect)
    peer.send(1, "channel.open")
    exact(peer, b"\0\x14\0\x0b" + arguments)


@cases([("dialect-0-8/O4-close-is-10-60", "0-8", 60), ("dialect-0-9/O4-close-is-10-50", "0-9", 50)])
def close_ids(test, dialect, method_id):
    arguments = b"\0\xc8\0\0\0\0\0"
    peer = test.connect(dialect)
    peer.send_bytes(amqp.frame(amqp.METHOD, 0, b"\0\x0a\0" + bytes([method_id]) + arguments))
    exact(peer, b"\0\x0a\0" + bytes([method_id + 1]))


@cases(
    [("dialect-0-8/O4-server-close-is-10-60", "0-8", 60), ("dialect-0-9/O4-server-close-is-10-50", "0-9", 50)]
)
def server_close_ids(test, dialect, method_id):
    peer = test.connect(dialect)
    peer.send(0, "basic.qos")
    payload = peer.receive("connection.close").payload
    check_equal("method ids", payload[:4], b"\0\x0a\0" + bytes([method_id]))
    check_equal("reply code", int.from_bytes(payload[4:6], "big"), 504)
    peer.send_bytes(amqp.frame(amqp.METHOD, 0, b"\0\x0a\0" + bytes([method_id + 1])))
    peer.eof()


@in_each("dialect-%/CON10-refused-login-without-capabilities")
def refused_login(test, dialect):
    peer = test.raw(dialect)
    peer.start()
    peer.start_ok(response="\0guest\0wrong", capabilities={})
    peer.eof()


@in_each("dialect-%/CON13-unknown-vhost")
def unknown_vhost(test, dialect):
    peer = opening(test, dialect)
    peer.send(0, "connection.open", virtual_host="no-such-vhost")
    peer.refused(530, "vhost no-such-vhost not found", "connection.open")


@in_each("dialect-%/CON18-heartbeats")
def heartbeats(test, dialect):
    peer = test.connect(dialect, heartbeat=1)
    check_equal("frame", peer.next_frame(), amqp.Frame(amqp.HEARTBEAT, 0, b""))


@case("dialect-0-8/O10-amqplain-as-py-amqplib")
def py_amqplib(test):
    # The header 1 1 9 1, AMQPLAIN, insist, no heartbeat, a ticket in every method.
    peer = test.raw("0-8")
    peer.send_bytes(b"AMQP\1\1\x09\1")
    peer.expect(0, "connection.start", version_major=8, version_minor=0)
    peer.send(
        0,
        "connection.start-ok",
        client_properties={"product": "client_0_8", "product_version": "0.1"},
        mechanism="AMQPLAIN",
        response=amqp.table({"LOGIN": "guest", "PASSWORD": "guest"})[4:],
    )
    peer.expect(0, "connection.tune")
    peer.tune_ok(channel_max=2047, frame_max=131072, heartbeat=0)
    peer.send(0, "connection.open", virtual_host="/", capabilities="", insist=True)
    peer.expect(0, "connection.open-ok", known_hosts="")
    channel = peer.channel()
    channel.send("access.request", realm="/data", active=True, write=True, read=True)
    ticket = channel.expect("access.request-ok", ticket=1).ticket
    channel.call("exchange.declare", ticket=ticket, exchange=test.name(), type="fanout", auto_delete=True)
    queue = channel.queue("", ticket=ticket)
    channel.call("queue.bind", ticket=ticket, queue=queue, exchange="amq.fanout")
    channel.send("basic.consume", ticket=ticket, queue=queue, consumer_tag="t", no_ack=True)
    channel.expect("basic.consume-ok", consumer_tag="t")
    properties = {"content_type": "text/plain", "headers": {"foo": 7, "bar": "baz"}}
    channel.publish(queue, b"test message", properties, ticket=ticket)
    got = channel.delivery(consumer_tag="t")
    headers = {"foo": Field("I", 7), "bar": Field("S", "baz")}
    check_equal("properties", got.properties, {"content_type": "text/plain", "headers": headers})
    channel.call("basic.cancel", consumer_tag="t")
    channel.close()
    peer.shut()


@in_each("dialect-%/O9-access-request-and-tickets")
def tickets(test, dialect):
    channel = test.connect(dialect).channel()
    for realm in ("/data", "/admin", "no such realm"):
        channel.send("access.request", realm=realm, exclusive=True, passive=False)
        channel.expect("access.request-ok", ticket=1)
    for ticket in (0, 1, 101, 65535):
        queue = channel.queue(ticket=ticket)
        channel.publish(queue, b"x", ticket=ticket)
        channel.send("basic.get", queue=queue, no_ack=True, ticket=ticket)
        check_equal("body", channel.content("basic.get-ok").body, b"x")


# Methods that differ -----------------------------------------------------------------------------


@case("dialect-0-8/O6-consume-has-no-arguments")
def consume_0_8(test):
    peer = test.connect("0-8")
    channel = peer.channel()
    queue = channel.queue(test.name())
    payload = b"\0\x3c\0\x14\0\1" + amqp.shortstr(queue) + amqp.shortstr("t") + b"\0"
    peer.send_bytes(amqp.frame(amqp.METHOD, 1, payload))
    channel.expect("basic.consume-ok", consumer_tag="t")


@case("dialect-0-9/O6-consume-has-a-filter-table")
def consume_0_9(test):
    peer = test.connect("0-9")
    channel = peer.channel()
    queue = channel.queue(test.name())
    payload = b"\0\x3c\0\x14\0\1" + amqp.shortstr(queue) + amqp.shortstr("t") + b"\0"
    peer.send_bytes(amqp.frame(amqp.METHOD, 1, payload + amqp.table({"x-priority": 1})))
    channel.expect("basic.consume-ok", consumer_tag="t")


@in_each("dialect-%/O7-bind-with-arguments-and-unbind")
def binding_arguments(test, dialect):
    channel = test.connect(dialect).channel()
    queue, exchange = channel.queue(), channel.exchange(test.name(), "headers")
    arguments = {"x-match": "all", "n": 1}
    channel.bind(queue, exchange, arguments=arguments)
    channel.publish("", b"x", {"headers": {"n": 1}}, exchange=exchange)
    check_equal("body", channel.get(queue).body, b"x")
    channel.send("queue.unbind", queue=queue, exchange=exchange, arguments=arguments)
    exact(channel.peer, b"\0\x32\0\x33")
    channel.publish("", b"x", {"headers": {"n": 1}}, exchange=exchange)
    channel.get_empty(queue)


@cases(
    [
        ("dialect-0-8/O7-no-exchange-bind", 40, 30, 1),
        ("dialect-0-8/O7-no-exchange-unbind", 40, 40, 1),
        ("dialect-0-8/O7-no-confirm-select", 85, 10, 1),
        ("dialect-0-8/O7-no-basic-nack", 60, 120, 1),
        ("dialect-0-8/O7-no-update-secret", 10, 70, 0),
        ("dialect-0-8/O11-no-message-class", 120, 99, 1),
    ]
)
def absent_from_0_8(test, class_id, method_id, channel):
    peer = test.connect("0-8")
    peer.channel()
    ids = class_id.to_bytes(2, "big") + method_id.to_bytes(2, "big")
    peer.send_bytes(amqp.frame(amqp.METHOD, channel, ids + bytes(9)))
    test.unknown_method(peer, (class_id, method_id))


UNSUPPORTED = [
    ("file-qos", "file.qos", {}),
    ("file-consume", "file.consume", {}),
    ("file-open", "file.open", {"identifier": "x", "content_size": 1}),
    ("file-ack", "file.ack", {"delivery_tag": 1}),
    ("stream-qos", "stream.qos", {}),
    ("stream-consume", "stream.consume", {}),
    ("dtx-select", "dtx.select", {}),
    ("dtx-start", "dtx.start", {"dtx_identifier": "x"}),
    (
        "test-integer",
        "test.integer",
        {"integer_1": 1, "integer_2": 2, "integer_3": 3, "integer_4": 4, "operation": 1},
    ),
    ("test-string", "test.string", {"string_1": "a", "string_2": "b", "operation": 1}),
    ("test-table", "test.table", {"table": {}, "integer_op": 1, "string_op": 1}),
]


@cases([(f"dialect-0-8/O11-{name}", *rest) for name, *rest in UNSUPPORTED])
def unsupported_class(test, name, arguments):
    peer = test.connect("0-8")
    peer.channel()
    peer.send(1, name, **arguments)
    peer.refused(503, "unimplemented method", name)


@cases([(f"dialect-0-9/O11-class-{class_id}", class_id) for class_id in (70, 80, 100, 110, 120)])
def unknown_class_0_9(test, class_id):
    peer = test.connect("0-9")
    peer.channel()
    peer.send_bytes(amqp.frame(amqp.METHOD, 1, bytes([0, class_id, 0, 10])))
    test.unknown_method(peer, (class_id, 10))


@cases([(f"dialect-0-8/O11-frame-type-{kind}", kind) for kind in (4, 5, 6, 7)])
def frame_types(test, kind):
    peer = test.connect("0-8")
    peer.channel()
    peer.send_bytes(amqp.frame(kind, 1, bytes(2)))
    peer.refused(501, f"type {kind}, all octets = <<0,0>>: unknown_frame")


def unacked(test, dialect):
    channel = test.connect(dialect).channel()
    queue = channel.queue()
    channel.publish(queue, b"x")
    channel.get(queue, no_ack=False)
    return channel, queue


@cases([(f"dialect-{name}/O8-recover-60-100-has-no-reply", name) for name in OLD])
def recover_without_reply(test, dialect):
    channel, queue = unacked(test, dialect)
    channel.peer.send_bytes(amqp.frame(amqp.METHOD, 1, b"\0\x3c\0\x64\1"))
    channel.alive()
    got = channel.get(queue)
    check_equal("redelivered", got.method.redelivered, True)


@case("dialect-0-8/O8-recover-60-110-has-a-reply")
def recover_with_reply(test):
    channel, queue = unacked(test, "0-8")
    channel.peer.send_bytes(amqp.frame(amqp.METHOD, 1, b"\0\x3c\0\x6e\1"))
    exact(channel.peer, b"\0\x3c\0\x6f")
    check_equal("redelivered", channel.get(queue).method.redelivered, True)


@cases([(f"dialect-{name}/O8-recover-without-requeue", name) for name in OLD])
def recover_refused(test, dialect):
    peer = test.connect(dialect)
    peer.channel()
    peer.send_bytes(amqp.frame(amqp.METHOD, 1, b"\0\x3c\0\x64\0"))
    peer.refused(540, "requeue=false", (60, 100))


# Errors and tables ---------------------------------------------------------------------------------


@in_each("dialect-%/O12-channel-errors")
def channel_errors(test, dialect):
    peer = test.connect(dialect)
    channel, other = peer.channel(1), peer.channel(2)
    channel.send("queue.declare", queue="no such queue", passive=True)
    channel.refused(404, "no queue 'no such queue' in vhost '/'", "queue.declare")
    other.alive()
    channel.call("channel.open")
    channel.send("basic.ack", delivery_tag=5)
    channel.refused(406, "unknown delivery tag 5", "basic.ack")
    channel.call("channel.open")


@in_each("dialect-%/O12-connection-errors")
def connection_errors(test, dialect):
    peer = test.connect(dialect)
    peer.channel()
    peer.send(1, "channel.open")
    peer.refused(504, "second 'channel.open' seen", "channel.open")


@in_each("dialect-%/M21-no-cancel-for-clients-without-capabilities")
def no_cancel(test, dialect):
    peer = test.connect(dialect, capabilities={})
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name())
    channel.consume(queue, "t")
    other.call("queue.delete", queue=queue)
    other.alive()
    channel.alive()


def tags_of(table):
    """All type tags in a decoded table."""
    for value in table.values():
        yield value.tag
        if value.tag == "F":
            yield from tags_of(value.value)
        if value.tag == "A":
            yield from tags_of({str(at): item for at, item in enumerate(value.value)})


@case("dialect-0-8/O3-headers-added-by-the-broker")
def broker_headers(test):
    channel = test.connect("0-8").channel()
    dead = channel.queue(test.name())
    # An integer of 0-8 is I; RabbitMQ answers with its own types all the same.
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead,
        "x-message-ttl": 1,
    }
    queue = channel.queue(test.name(), arguments=arguments)
    channel.publish(queue, b"x", {"headers": {"s": "text"}})
    channel.ready(dead, 1)
    headers = channel.get(dead).properties["headers"]
    check_equal("header", headers["s"], Field("S", "text"))
    check("x-death" in headers or "x-first-death-queue" in headers, f"no death in {list(headers)}")
    beyond = set(tags_of(headers)) - set("SIDTF")
    if test.broker.is_warren and beyond:
        raise Mismatch(f"header types {sorted(beyond)} are unknown to 0-8")


@cases([(f"dialect-{old}/O12-{old}-and-0-9-1-exchange-messages", old) for old in OLD])
def across(test, dialect):
    old, new = test.connect(dialect).channel(), test.channel()
    queue = new.queue(test.name(), exclusive=False)
    raw = old.peer.dialect.encode_properties(
        {
            "content_type": "a/b",
            "headers": {"s": "x", "i": -1, "d": Field("D", (1, 5)), "t": Field("T", 5), "f": {"s": ""}},
            "delivery_mode": 2,
            "cluster_id": "c",
        }
    )
    for sender, receiver in ((old, new), (new, old), (old, old)):
        sender.publish(queue, b"x" * 1000, raw)
        receiver.ready(queue, 1)
        got = receiver.get(queue)
        check_equal("property bytes", got.raw_properties, raw)
        check_equal("body", got.body, b"x" * 1000)
