"""basic.publish: errors and their order, returns, properties byte for byte, CC and BCC, expiration."""

import re

import amqp
from amqp import Field
from harness import case, cases, expect
from peer import check_equal

PUBLISH = "basic.publish"
MISSING = "no exchange 'no such exchange' in vhost '/'"
USER_ID = "user_id property set to 'other' but authenticated user was 'guest'"


# M14: errors -------------------------------------------------------------------------------------


def refused(test, code, text, properties=None, **arguments):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.publish("k", b"x", properties, **arguments)
    channel.refused(code, text, PUBLISH)
    other.alive()
    channel.call("channel.open")


@cases(
    [
        ("publish/M14-missing-exchange", 404, MISSING, {}, "no such exchange"),
        (
            "publish/M14-missing-exchange-comes-before-expiration-and-user",
            404,
            MISSING,
            {"expiration": "x", "user_id": "other"},
            "no such exchange",
        ),
        (
            "publish/M35-internal-exchange-comes-before-expiration",
            403,
            "cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'",
            {"expiration": "x"},
            "amq.rabbitmq.trace",
        ),
        (
            "publish/M16-missing-exchange-comes-before-cc",
            404,
            MISSING,
            {"headers": {"CC": 5}},
            "no such exchange",
        ),
        (
            "publish/M38-missing-exchange-comes-before-missing-reply-consumer",
            404,
            MISSING,
            {"reply_to": "amq.rabbitmq.reply-to"},
            "no such exchange",
        ),
        (
            "publish/M38-missing-reply-consumer-comes-before-expiration-user-and-cc",
            406,
            "fast reply consumer does not exist",
            {"reply_to": "amq.rabbitmq.reply-to", "expiration": "x", "user_id": "other", "headers": {"CC": 5}},
            "",
        ),
        (
            "publish/M16-expiration-comes-before-cc",
            406,
            re.compile("invalid expiration 'x': .*"),
            {"headers": {"CC": 5}, "expiration": "x"},
            "",
        ),
        ("publish/M17-user-id", 406, USER_ID, {"user_id": "other"}, ""),
        (
            "publish/M17-user-id-empty",
            406,
            "user_id property set to '' but authenticated user was 'guest'",
            {"user_id": ""},
            "",
        ),
        (
            "publish/M14-expiration-and-user",
            406,
            # RabbitMQ checks the user first before 4.0.
            expect(rabbitmq=USER_ID, warren=re.compile("invalid expiration 'x': .*")),
            {"user_id": "other", "expiration": "x"},
            "",
        ),
    ]
)
def errors(test, code, text, properties, exchange):
    refused(test, code, text, properties, exchange=exchange)


@cases([("publish/M15-immediate", ""), ("publish/M15-immediate-to-missing-exchange", "no such exchange")])
def immediate(test, exchange):
    peer = test.connect()
    channel = peer.channel()
    channel.publish("k", b"x", exchange=exchange, immediate=True)
    peer.refused(540, "immediate=true", PUBLISH)


@case("publish/M14-missing-exchange-closes-the-channel-with-content-on-its-way")
def pipelined_after_error(test):
    # Errors arrive asynchronously: what follows on the channel is dropped, contents and all.
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = other.queue(test.name())
    frames = peer.publish_frames(1, queue, b"x" * 5000)
    peer.send_bytes(peer.publish_frames(1, "k", b"x", exchange="no such exchange") + frames * 20)
    channel.refused(404, MISSING, PUBLISH)
    channel.call("channel.open")
    other.get_empty(queue)


@case("publish/M17-own-user-id")
def own_user_id(test):
    channel = test.channel()
    queue = channel.queue()
    channel.publish(queue, b"x", {"user_id": "guest"})
    check_equal("properties", channel.get(queue).properties, {"user_id": "guest"})


# M15: returns ------------------------------------------------------------------------------------

ALL_PROPERTIES = {
    "content_type": "text/plain",
    "content_encoding": "utf-8",
    "headers": {"k": "v", "n": Field("l", 2**40)},
    "delivery_mode": 2,
    "priority": 255,
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "60000",
    "message_id": "m",
    "timestamp": 2**63,
    "type": "t",
    "user_id": "guest",
    "app_id": "a",
    "cluster_id": "cl",
}


@cases(
    [
        ("publish/M15-mandatory-returns-the-whole-content", b"body" * 50000),
        ("publish/M15-mandatory-returns-an-empty-body", b""),
    ]
)
def returned(test, body):
    channel = test.channel()
    channel.publish("nowhere", body, ALL_PROPERTIES, exchange="amq.direct", mandatory=True)
    content = channel.content(
        "basic.return",
        reply_code=312,
        reply_text="NO_ROUTE",
        exchange="amq.direct",
        routing_key="nowhere",
    )
    check_equal("body is intact", content.body == body, True)
    raw = channel.peer.dialect.encode_properties(ALL_PROPERTIES)
    check_equal("property bytes", content.raw_properties, raw)
    channel.alive()


@case("publish/M15-routable-mandatory-is-not-returned")
def not_returned(test):
    channel = test.channel()
    queue = channel.queue()
    channel.publish(queue, b"x", mandatory=True)
    check_equal("body", channel.get(queue).body, b"x")


@case("publish/M15-unroutable-is-dropped")
def unroutable(test):
    channel = test.channel()
    channel.publish("nowhere", b"x")
    channel.alive()


# F6, F7: content is delivered byte for byte ------------------------------------------------------


def round_trip(test, raw, body=b"body"):
    channel = test.channel()
    queue = channel.queue()
    channel.publish(queue, body, raw)
    got = channel.get(queue)
    check_equal("property bytes", got.raw_properties, raw)
    check_equal("body", got.body, body)
    channel.consume(queue, "t", no_ack=True)
    channel.publish(queue, body, raw)
    check_equal("delivered property bytes", channel.delivery().raw_properties, raw)


@cases([(f"publish/F6-property-{name}", name) for name in ALL_PROPERTIES])
def one_property(test, name):
    round_trip(test, amqp.dialect("0-9-1").encode_properties({name: ALL_PROPERTIES[name]}))


@case("publish/F6-all-properties")
def all_properties(test):
    round_trip(test, amqp.dialect("0-9-1").encode_properties(ALL_PROPERTIES))


@case("publish/F6-no-properties")
def no_properties(test):
    round_trip(test, b"\0\0")


EMPTY = {name: "" for name, kind in amqp.dialect("0-9-1").properties if kind == "shortstr"}
# An empty user id or expiration is refused.
EMPTY = {name: "" for name in EMPTY if name not in ("user_id", "expiration")}


@cases(
    [
        ("publish/F6-empty-strings", {**EMPTY, "headers": {}}),
        ("publish/F6-zeroes", {"delivery_mode": 1, "priority": 0, "timestamp": 0}),
        ("publish/F6-timestamp-of-64-bits", {"timestamp": 2**64 - 1}),
        ("publish/F6-strings-of-255-octets", {name: "x" * 255 for name in EMPTY}),
        ("publish/F6-strings-that-are-not-utf-8", {name: b"\xff\0\xfe" for name in EMPTY}),
    ]
)
def odd_properties(test, properties):
    round_trip(test, amqp.dialect("0-9-1").encode_properties(properties))


HEADER_TABLES = [
    ("repeated-names", amqp.table_pairs([("k", 1), ("k", "two"), ("k", 1)])),
    ("unsorted-names", amqp.table_pairs([("z", 1), ("a", 2), ("m", 3), ("", 4)])),
    ("bool-of-2", amqp.longstr(b"\1kt\2")),
    ("names-that-are-not-utf-8", amqp.table_pairs([(b"\xff\xfe", b"\xfd")])),
    ("name-of-255-octets", amqp.table_pairs([("n" * 255, None)])),
    ("l-and-L", amqp.longstr(b"\1al" + bytes(8) + b"\1bL" + b"\xff" * 8)),
    ("nested", amqp.table({"t": {"t": {"a": [[], {}, None, [{"x": []}]]}}})),
    ("of-100-kilobytes", amqp.table({f"key-{number}": "v" * 90 for number in range(1000)})),
    ("x-death-made-up", amqp.table({"x-death": "not an array", "x-first-death-queue": 5})),
]


@cases([(f"publish/F7-headers-{name}", table) for name, table in HEADER_TABLES])
def header_tables(test, table):
    round_trip(test, b"\x20\0" + table)


@case("publish/F7-headers-not-a-number")
def not_a_number(test):
    raw = b"\x20\0" + amqp.longstr(b"\1kd\x7f\xf8\0\0\0\0\0\1")
    if test.broker.is_warren:
        round_trip(test, raw)
        return
    # Erlang has no NaN, so that RabbitMQ's channel crashes on one.
    peer = test.connect()
    channel = peer.channel()
    channel.publish(channel.queue(), b"", raw)
    peer.expect(0, "connection.close", reply_code=541, reply_text="INTERNAL_ERROR")


EVERY_FIELD = {
    "bool": True,
    "i8": Field("b", -128),
    "u8": Field("B", 255),
    "i16": Field("s", -32768),
    "u16": Field("u", 65535),
    "i32": Field("I", -(2**31)),
    "u32": Field("i", 2**32 - 1),
    "l": Field("l", -(2**63)),
    "L": Field("L", -1),
    "float": Field("f", 0.1),
    "double": Field("d", 1e300),
    "decimal": Field("D", (255, 2**32 - 1)),
    "text": "zażółć",
    "long text": "x" * 70000,
    "bytes": Field("x", bytes(range(256))),
    "time": Field("T", 2**64 - 1),
    "array": [True, -1, "s", [], {}, None],
    "table": {"a": {"b": 1}},
    "void": None,
}


@cases([(f"publish/F7-header-{name.replace(' ', '-')}", name) for name in EVERY_FIELD])
def header_types(test, name):
    round_trip(test, b"\x20\0" + amqp.table({name: EVERY_FIELD[name]}))


@case("publish/F6-kept-by-a-durable-queue-across-requeue")
def durable_round_trip(test):
    channel = test.channel()
    queue = channel.queue(test.name(), exclusive=False, durable=True)
    raw = channel.peer.dialect.encode_properties({**ALL_PROPERTIES, "headers": EVERY_FIELD})
    channel.publish(queue, b"x" * 100000, raw)
    for redelivered in (False, True):
        got = channel.get(queue, no_ack=False)
        check_equal("redelivered", got.method.redelivered, redelivered)
        check_equal("property bytes are intact", got.raw_properties == raw, True)
        check_equal("body is intact", got.body == b"x" * 100000, True)
        channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=True)


# M16: CC and BCC ---------------------------------------------------------------------------------


@case("publish/M16-cc-and-bcc")
def cc_and_bcc(test):
    channel = test.channel()
    to, cc, bcc = (channel.queue(test.name()) for _ in range(3))
    headers = {"CC": [cc], "BCC": [bcc, to], "other": 1}
    channel.publish(to, b"x", {"headers": headers})
    for queue in (to, cc, bcc):
        got = channel.get(queue)
        check_equal("routing key", got.method.routing_key, to)
        kept = {"CC": Field("A", [Field("S", cc)]), "other": Field("I", 1)}
        check_equal("headers", got.properties["headers"], kept)
        channel.get_empty(queue)


@case("publish/M16-unroutable-cc-is-returned-without-bcc")
def cc_returned(test):
    channel = test.channel()
    headers = {"CC": ["nowhere either"], "BCC": ["hidden"]}
    channel.publish("nowhere", b"x", {"headers": headers}, mandatory=True)
    content = channel.content("basic.return", routing_key="nowhere")
    check_equal("headers", list(content.properties["headers"]), ["CC"])


@case("publish/M16-cc-alone-makes-it-routable")
def cc_alone(test):
    channel = test.channel()
    queue = channel.queue()
    channel.publish("nowhere", b"x", {"headers": {"CC": [queue, queue]}}, mandatory=True)
    check_equal("bodies", channel.drain(queue), [b"x"])


@case("publish/M16-cc-that-is-no-text-is-no-key")
def cc_of_other_types(test):
    channel = test.channel()
    to, cc, bcc = (channel.queue(test.name()) for _ in range(3))
    headers = {"CC": [1, cc, {}, [cc], b"\xff"], "BCC": [True, bcc]}
    channel.publish(to, b"x", {"headers": headers})
    for queue in (to, cc, bcc):
        check_equal("headers", list(channel.get(queue).properties["headers"]), ["CC"])
        channel.get_empty(queue)


@case("publish/M16-cc-and-bcc-are-empty")
def cc_empty(test):
    channel = test.channel()
    queue = channel.queue(test.name())
    channel.publish(queue, b"x", {"headers": {"CC": [], "BCC": []}})
    check_equal("headers", channel.get(queue).properties["headers"], {"CC": Field("A", [])})


@case("publish/M16-cc-of-an-exchange")
def cc_of_exchange(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "topic")
    queues = [channel.queue(test.name()) for _ in range(3)]
    for queue, key in zip(queues, ["a.*", "b.#", "#"]):
        channel.bind(queue, exchange, key)
    channel.publish("a.1", b"x", {"headers": {"CC": ["b", "a.2"], "BCC": ["b.1"]}}, exchange=exchange)
    for queue in queues:
        check_equal("bodies", channel.drain(queue), [b"x"])


@case("publish/M16-bcc-is-not-seen-by-a-headers-exchange-behind")
def bcc_is_stripped(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "headers")
    queue = channel.queue(test.name())
    channel.bind(queue, exchange, arguments={"x-match": "all", "n": 1})
    channel.publish("k", b"x", {"headers": {"n": 1, "BCC": ["elsewhere"]}}, exchange=exchange)
    check_equal("headers", list(channel.get(queue).properties["headers"]), ["n"])


@cases(
    [
        ("publish/M16-cc-is-text", "CC", "longstr", "q"),
        ("publish/M16-bcc-is-text", "BCC", "longstr", "q"),
        ("publish/M16-cc-is-a-table", "CC", "table", {}),
    ]
)
def bad_cc(test, name, kind, value):
    text = f'invalid message: {{unacceptable_type_in_header,"{name}",'
    wanted = expect(rabbitmq=text + kind + "}", warren=re.compile(re.escape(text) + ".+"))
    refused(test, 406, wanted, {"headers": {name: value}})


# M31: expiration -----------------------------------------------------------------------------------

INVALID_EXPIRATION = [
    ("abc", "no_integer"),
    ("", "no_integer"),
    (" 1", "no_integer"),
    ("-1", "{value_negative,-1}"),
    ("1.5", '{leftover_string,".5"}'),
    ("1x", '{leftover_string,"x"}'),
    ("315360000001", "{value_too_large,315360000001}"),
]


@cases([(f"publish/M31-expiration-{number}", *row) for number, row in enumerate(INVALID_EXPIRATION, 1)])
def invalid_expiration(test, value, reason):
    text = f"invalid expiration '{value}': "
    # The reason is an Erlang term, whose form has changed over the versions.
    wanted = expect(rabbitmq=text + reason, warren=re.compile(re.escape(text) + ".+"))
    refused(test, 406, wanted, {"expiration": value})


@cases([(f"publish/M31-expiration-of-{value}", value) for value in ("1000", "315360000000")])
def valid_expiration(test, value):
    channel = test.channel()
    queue = channel.queue()
    channel.publish(queue, b"x", {"expiration": value})
    check_equal("properties", channel.get(queue).properties, {"expiration": value})


@case("publish/M31-expiration-0-needs-a-consumer-at-once")
def expiration_0(test):
    channel = test.channel()
    queue = channel.queue()
    channel.publish(queue, b"lost", {"expiration": "0"})
    channel.get_empty(queue)
    channel.consume(queue, "t", no_ack=True)
    channel.publish(queue, b"now", {"expiration": "0"})
    got = channel.delivery()
    check_equal("body, properties", (got.body, got.properties), (b"now", {"expiration": "0"}))


@cases(
    [
        ("publish/M31-expires", {}, {"expiration": "100"}),
        ("publish/M31-queue-ttl", {"x-message-ttl": 100}, {}),
        ("publish/M31-the-shorter-of-both", {"x-message-ttl": 100}, {"expiration": "60000"}),
        ("publish/M31-the-shorter-of-both-reversed", {"x-message-ttl": 60000}, {"expiration": "100"}),
    ]
)
def expires(test, arguments, properties):
    channel = test.channel()
    queue = channel.queue(arguments=arguments)
    channel.call("confirm.select")
    channel.publish(queue, b"x", properties)
    channel.expect("basic.ack", delivery_tag=1)
    channel.ready(queue, 0)
    channel.get_empty(queue)


@case("publish/M31-expires-at-the-head-only")
def head_only(test):
    channel = test.channel()
    queue = channel.queue(test.name())
    channel.publish(queue, b"long", {"expiration": "60000"})
    channel.publish(queue, b"short", {"expiration": "1"})
    head = channel.get(queue, no_ack=False)
    check_equal("body", head.body, b"long")
    channel.ready(queue, 0)
