"""Bindings and routing: identity, copies, each exchange type, alternate and internal exchanges."""

import re

from amqp import Field, to_bytes, to_text
from harness import case, cases, expect
from peer import check_equal

BIND, UNBIND = "queue.bind", "queue.unbind"
DEFAULT = "operation not permitted on the default exchange"


def routed(channel, exchange, key="", headers=None):
    """Whether a message reaches some queue; a mandatory one that does not comes back."""
    properties = {"headers": headers} if headers is not None else {}
    channel.publish(key, b"r", properties, exchange=exchange, mandatory=True)
    channel.send("channel.flow", active=True)
    frame = channel.peer.receive("basic.return or flow-ok")
    channel.peer.push_back(frame)
    if channel.peer.decode(frame).name == "basic.return":
        channel.content("basic.return", reply_code=312, exchange=exchange, routing_key=key)
        channel.expect("channel.flow-ok")
        return False
    channel.expect("channel.flow-ok")
    return True


# M12: bind and unbind ----------------------------------------------------------------------------

NO_QUEUE = "no queue 'no such thing' in vhost '/'"
NO_EXCHANGE = "no exchange 'no such thing' in vhost '/'"


@cases(
    [
        ("bindings/M12-bind-missing-queue", BIND, "no such thing", "amq.direct", 404, NO_QUEUE),
        ("bindings/M12-bind-both-missing", BIND, "no such thing", "no such thing", 404, NO_EXCHANGE),
        ("bindings/M12-bind-missing-exchange", BIND, "", "no such thing", 404, NO_EXCHANGE),
        ("bindings/M5-bind-default", BIND, "", "", 403, DEFAULT),
        ("bindings/M5-unbind-default", UNBIND, "", "", 403, DEFAULT),
    ]
)
def refused(test, method, queue, exchange, code, text):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.queue()
    channel.send(method, queue=queue, exchange=exchange, routing_key="k")
    channel.refused(code, text, method)
    other.alive()


@cases(
    [
        ("bindings/M12-unbind-missing-queue", "no such thing", "amq.direct"),
        ("bindings/M12-unbind-missing-exchange", "", "no such thing"),
        ("bindings/M12-unbind-missing-binding", "", "amq.direct"),
        ("bindings/M12-unbind-both-missing", "no such thing", "no such thing"),
    ]
)
def unbind_missing(test, queue, exchange):
    channel = test.channel()
    channel.queue()
    channel.call(UNBIND, queue=queue, exchange=exchange, routing_key="never bound")


@case("bindings/M12-identical-binding-is-one-binding")
def identical(test):
    channel = test.channel()
    queue, exchange = channel.queue(), channel.exchange(test.name())
    for _ in range(3):
        channel.bind(queue, exchange, "k", arguments={"a": 1})
    channel.call(UNBIND, queue=queue, exchange=exchange, routing_key="k", arguments={"a": 1})
    check_equal("routed", routed(channel, exchange, "k"), False)


@case("bindings/M12-arguments-are-part-of-the-identity")
def identity(test):
    channel = test.channel()
    queue, exchange = channel.queue(), channel.exchange(test.name())
    for arguments in ({}, {"a": 1}, {"a": 2}):
        channel.bind(queue, exchange, "k", arguments=arguments)
    channel.publish("k", b"once", exchange=exchange)
    check_equal("bodies", channel.drain(queue), [b"once"])
    # What is not exactly a binding removes none.
    for arguments in ({"a": 3}, {"b": 1}, {"a": 1, "b": 1}):
        channel.call(UNBIND, queue=queue, exchange=exchange, routing_key="k", arguments=arguments)
    for arguments in ({"a": 1}, {}, {"a": 2}):
        check_equal("routed", routed(channel, exchange, "k"), True)
        channel.call(UNBIND, queue=queue, exchange=exchange, routing_key="k", arguments=arguments)
    check_equal("routed", routed(channel, exchange, "k"), False)


@case("bindings/M12-arguments-are-compared-sorted")
def sorted_arguments(test):
    channel = test.channel()
    queue, exchange = channel.queue(), channel.exchange(test.name())
    channel.bind(queue, exchange, "k", arguments={"b": 1, "a": "x", "c": None})
    arguments = {"c": None, "a": "x", "b": 1}
    channel.call(UNBIND, queue=queue, exchange=exchange, routing_key="k", arguments=arguments)
    check_equal("routed", routed(channel, exchange, "k"), False)


@case("bindings/M12-several-keys")
def several_keys(test):
    channel = test.channel()
    queue, exchange = channel.queue(), channel.exchange(test.name())
    channel.bind(queue, exchange, "a")
    channel.bind(queue, exchange, "b")
    channel.call(UNBIND, queue=queue, exchange=exchange, routing_key="a")
    check_equal("routed", [routed(channel, exchange, key) for key in "ab"], [False, True])


@case("bindings/M3-one-copy-for-each-queue")
def one_copy(test):
    channel = test.channel()
    exchange, fanout = channel.exchange(test.name(), "topic"), channel.exchange(test.name(), "fanout")
    one, two = channel.queue(test.name()), channel.queue(test.name())
    for key in ("#", "a.#", "*.b", "a.b"):
        channel.bind(one, exchange, key)
    channel.bind(one, fanout)
    channel.bind(two, fanout)
    channel.call("exchange.bind", source=exchange, destination=fanout, routing_key="a.*")
    channel.publish("a.b", b"x", exchange=exchange)
    check_equal("bodies", (channel.drain(one), channel.drain(two)), ([b"x"], [b"x"]))


@case("bindings/M3-cycles-of-exchanges")
def cycle(test):
    channel = test.channel()
    names = [channel.exchange(test.name(), "fanout") for _ in range(3)]
    queues = [channel.queue(test.name()) for _ in names]
    for position, name in enumerate(names):
        channel.call("exchange.bind", source=name, destination=names[(position + 1) % 3])
        channel.call("exchange.bind", source=name, destination=name)
        channel.bind(queues[position], name)
    for name in names:
        channel.publish("", b"x", exchange=name)
        check_equal("bodies", [channel.drain(queue) for queue in queues], [[b"x"]] * 3)


@case("bindings/M3-the-original-exchange-and-key-are-delivered")
def original_names(test):
    channel = test.channel()
    first, second = channel.exchange(test.name(), "topic"), channel.exchange(test.name(), "topic")
    queue = channel.queue()
    channel.call("exchange.bind", source=first, destination=second, routing_key="a.#")
    channel.bind(queue, second, "#.b")
    channel.publish("a.b", b"x", exchange=first)
    got = channel.get(queue).method
    check_equal("exchange, key", (got.exchange, got.routing_key), (first, "a.b"))
    check_equal("routed", [routed(channel, first, key) for key in ("a.c", "c.b")], [False, False])


# Exchange types ----------------------------------------------------------------------------------


@case("bindings/M5-default-exchange-routes-by-queue-name")
def default_exchange(test):
    channel = test.channel()
    queue = channel.queue()
    channel.publish(queue, b"x")
    got = channel.get(queue)
    wanted = b"x", "", queue
    check_equal("body, exchange, key", (got.body, got.method.exchange, got.method.routing_key), wanted)
    check_equal("routed", routed(channel, "", queue + "x"), False)


@case("bindings/direct")
def direct(test):
    channel = test.channel()
    exchange = channel.exchange(test.name())
    channel.bind(channel.queue(), exchange, "")
    for key, wanted in (("", True), ("k", False), ("#", False)):
        check_equal(f"routed {key!r}", routed(channel, exchange, key), wanted)


@case("bindings/fanout-ignores-the-key")
def fanout(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "fanout")
    channel.bind(channel.queue(), exchange, "k")
    for key in ("", "k", "other"):
        check_equal(f"routed {key!r}", routed(channel, exchange, key), True)


@case("bindings/published-keys-need-not-be-utf-8")
def binary_keys(test):
    channel = test.channel()
    queue, exchange = channel.queue(), channel.exchange(test.name(), "fanout")
    channel.bind(queue, exchange)
    key = bytes([0, 255, 254, 128])
    channel.publish(key, b"x", exchange=exchange)
    check_equal("key", to_bytes(channel.get(queue).method.routing_key), key)
    check_equal("routed", routed(channel, "amq.direct", to_text(key)), False)


@case("bindings/F8-other-short-strings-that-are-not-utf-8")
def binary_arguments(test):
    # RabbitMQ refuses them in every method but basic.publish. Warren may as well take them.
    peer = test.connect()
    channel = peer.channel()
    queue, exchange = channel.queue(), channel.exchange(test.name())
    key = bytes([0, 255, 254, 128])
    channel.send(BIND, queue=queue, exchange=exchange, routing_key=key)
    frame = peer.receive("an answer to queue.bind")
    peer.push_back(frame)
    if test.broker.is_warren and frame.channel == 1:
        channel.expect("queue.bind-ok")
        check_equal("routed", routed(channel, exchange, to_text(key)), True)
    else:
        close = peer.expect(0, "connection.close", reply_code=501)
        text = "FRAME_ERROR - Malformed UTF-8 in shortstr"
        check_equal("reply text", close.reply_text, text)


@case("bindings/keys-of-255-octets")
def long_keys(test):
    channel = test.channel()
    queue, exchange = channel.queue(), channel.exchange(test.name())
    channel.bind(queue, exchange, "k" * 255)
    channel.publish("k" * 255, b"x", exchange=exchange)
    check_equal("key", channel.get(queue).method.routing_key, "k" * 255)
    check_equal("routed", routed(channel, exchange, "k" * 254), False)


TOPICS = [
    # An empty word is a word, but an empty key has none.
    ("#", ["", "a", "a.b", ".", "..."], []),
    ("*", ["a", "*"], ["", "a.b", ".", "a."]),
    ("a.b", ["a.b"], ["a", "a.b.c", "a.", "A.b", "aXb"]),
    ("a.*", ["a.b", "a."], ["a", "a.b.c", "b.a"]),
    ("*.b", ["a.b", ".b"], ["b", "a.a.b"]),
    ("a.#", ["a", "a.b", "a.b.c", "a..", "a."], ["b", "", "ab"]),
    ("#.c", ["c", "b.c", "a.b.c", ".c"], ["", "c.d", "bc"]),
    ("a.#.c", ["a.c", "a.b.c", "a.b.b.c", "a..c"], ["a", "c", "ac", "a.c.d"]),
    ("*.#", ["a", "a.b", "."], [""]),
    ("#.*", ["a", "a.b", "."], [""]),
    ("#.#", ["", "a", "a.b"], []),
    ("*.*", ["a.b", "."], ["a", "a.b.c", ""]),
    ("#.a.#", ["a", "b.a", "a.b", "c.b.a.b.c"], ["", "b", "ab"]),
    ("a.*.#.*", ["a.b.c", "a.b.c.d"], ["a", "a.b"]),
    ("a.b.#.#", ["a.b", "a.b.c"], ["a"]),
    ("a#", ["a#"], ["a", "ab"]),
    ("a.*b", ["a.*b"], ["a.b", "a.xb"]),
    ("..", [".."], [".", "a.b.c"]),
]


@cases([(f"bindings/M37-topic-{row[0]}", *row) for row in TOPICS])
def topic(test, pattern, matching, others):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "topic")
    # A second binding that never matches keeps the first from being a special case.
    queue = channel.queue()
    channel.bind(queue, exchange, "never.matched.by.these")
    channel.bind(queue, exchange, pattern)
    for wanted, keys in ((True, matching), (False, others)):
        for key in keys:
            check_equal(f"{key!r} routed", routed(channel, exchange, key), wanted)


HEADERS = [
    (
        "all-default",
        {"a": 1, "b": "x"},
        [{"a": 1, "b": "x"}, {"a": 1, "b": "x", "c": 0}],
        [{"a": 1}, {}, {"a": 2, "b": "x"}],
    ),
    ("all", {"x-match": "all", "a": 1}, [{"a": 1}], [{"b": 1}, {}]),
    (
        "any",
        {"x-match": "any", "a": 1, "b": "x"},
        [{"a": 1}, {"b": "x"}, {"a": 1, "b": "y"}],
        [{}, {"a": 2}, {"c": 1}],
    ),
    ("all-without-arguments", {}, [{}, {"a": 1}], []),
    ("all-alone", {"x-match": "all"}, [{}, {"a": 1}], []),
    ("any-alone", {"x-match": "any"}, [], [{}, {"a": 1}]),
    ("void-is-presence", {"a": None}, [{"a": 1}, {"a": "x"}, {"a": None}], [{}, {"b": 1}]),
    ("any-void-is-presence", {"x-match": "any", "a": None}, [{"a": 5}], [{}, {"b": 1}]),
    ("all-ignores-x-keys", {"x-match": "all", "x-a": 1, "b": 1}, [{"b": 1}], [{"x-a": 1}]),
    ("any-ignores-x-keys", {"x-match": "any", "x-a": 1, "b": 1}, [{"b": 1}], [{"x-a": 1}]),
    ("all-with-x", {"x-match": "all-with-x", "x-a": 1, "b": 1}, [{"b": 1, "x-a": 1}], [{"b": 1}, {"x-a": 1}]),
    ("any-with-x", {"x-match": "any-with-x", "x-a": 1, "b": 1}, [{"b": 1}, {"x-a": 1}], [{}]),
    ("text-is-no-number", {"a": "1"}, [{"a": "1"}], [{"a": 1}, {"a": True}]),
    ("bool", {"a": True}, [{"a": True}], [{"a": False}, {"a": "true"}]),
    ("table", {"a": {"b": 1}}, [{"a": {"b": 1}}], [{"a": {"b": 2}}, {"a": {}}]),
    ("array", {"a": [1, "x"]}, [{"a": [1, "x"]}], [{"a": ["x", 1]}, {"a": [1]}]),
    ("decimal", {"a": Field("D", (1, 15))}, [{"a": Field("D", (1, 15))}], [{"a": Field("D", (2, 15))}]),
]


@cases([(f"bindings/M36-headers-{name}", *rest) for name, *rest in HEADERS])
def headers(test, arguments, matching, others):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "headers")
    channel.bind(channel.queue(), exchange, arguments=arguments)
    for wanted, tables in ((True, matching), (False, others)):
        for table in tables:
            check_equal(f"{table} routed", routed(channel, exchange, headers=table), wanted)


@case("bindings/M36-headers-without-header-table")
def no_headers(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "headers")
    channel.bind(channel.queue(), exchange, arguments={"a": 1})
    check_equal("routed", routed(channel, exchange), False)


@cases(
    [
        (
            "bindings/M36-x-match-unknown",
            "some",
            'value <<"some">>; expected all, any, all-with-x, or any-with-x',
        ),
        ("bindings/M36-x-match-is-a-number", 5, "type signedint (value 5); expected longstr"),
    ]
)
def bad_x_match(test, value, reason):
    channel = test.channel()
    exchange, queue = channel.exchange(test.name(), "headers"), channel.queue()
    channel.send(BIND, queue=queue, exchange=exchange, arguments={"x-match": value})
    # The reason holds Erlang terms, whose form has changed over the versions.
    wanted = expect(
        rabbitmq="Invalid x-match field " + reason,
        warren=re.compile("Invalid x-match field .+"),
    )
    channel.refused(406, wanted, BIND)


# M34, M35: alternate and internal exchanges ------------------------------------------------------


@case("bindings/M34-alternate-exchange")
def alternate(test):
    channel = test.channel()
    last = channel.exchange(test.name(), "fanout")
    middle = channel.exchange(test.name(), arguments={"alternate-exchange": last})
    first = channel.exchange(test.name(), arguments={"alternate-exchange": middle})
    queue, direct_queue = channel.queue(test.name()), channel.queue(test.name())
    channel.bind(queue, last)
    channel.bind(direct_queue, first, "direct")
    channel.publish("direct", b"direct", exchange=first)
    check_equal("bodies", (channel.drain(direct_queue), channel.drain(queue)), ([b"direct"], []))
    # Not returned, because the alternate exchange routed it.
    check_equal("routed", routed(channel, first, "stray"), True)
    got = channel.get(queue).method
    check_equal("exchange, key", (got.exchange, got.routing_key), (first, "stray"))
    channel.call(UNBIND, queue=queue, exchange=last)
    check_equal("routed", routed(channel, first, "stray"), False)


@case("bindings/M34-missing-and-circular-alternate-exchange")
def missing_alternate(test):
    channel = test.channel()
    names = test.name(), test.name()
    channel.exchange(names[0], arguments={"alternate-exchange": names[1]})
    check_equal("routed", routed(channel, names[0], "k"), False)
    channel.exchange(names[1], arguments={"alternate-exchange": names[0]})
    check_equal("routed", routed(channel, names[0], "k"), False)
    channel.bind(channel.queue(), names[1], "k")
    check_equal("routed", routed(channel, names[0], "k"), True)


@case("bindings/M34-alternate-exchange-of-an-unroutable-copy")
def alternate_of_copies(test):
    channel = test.channel()
    last = channel.exchange(test.name(), "fanout")
    first = channel.exchange(test.name(), arguments={"alternate-exchange": last})
    queue, other = channel.queue(test.name()), channel.queue(test.name())
    channel.bind(queue, first, "k")
    channel.bind(other, last)
    # One of its keys leads somewhere: so it is not unroutable.
    channel.publish("stray", b"x", {"headers": {"CC": ["k"]}}, exchange=first, mandatory=True)
    channel.alive()
    check_equal("bodies", (channel.drain(queue), channel.drain(other)), ([b"x"], []))
    channel.publish("stray", b"y", {"headers": {"CC": ["stray too"]}}, exchange=first, mandatory=True)
    channel.alive()
    check_equal("bodies", (channel.drain(queue), channel.drain(other)), ([], [b"y"]))


@case("bindings/M34-alternate-exchange-is-internal")
def alternate_internal(test):
    channel = test.channel()
    inner = channel.exchange(test.name(), "fanout", internal=True)
    first = channel.exchange(test.name(), arguments={"alternate-exchange": inner})
    queue = channel.queue(test.name())
    channel.bind(queue, inner)
    check_equal("routed", routed(channel, first, "k"), True)
    check_equal("bodies", len(channel.drain(queue)), 1)


@case("bindings/M34-default-exchange-leads-nowhere-as-alternate-exchange")
def alternate_default(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), arguments={"alternate-exchange": ""})
    queue = channel.queue(test.name())
    check_equal("routed", routed(channel, exchange, queue), False)
    channel.ready(queue, 0)


@case("bindings/M35-internal-exchange")
def internal(test):
    peer = test.connect()
    channel = peer.channel()
    inner = channel.exchange(test.name(), "fanout", internal=True)
    outer = channel.exchange(test.name(), "fanout")
    queue = channel.queue(test.name())
    channel.call("exchange.bind", source=outer, destination=inner)
    channel.bind(queue, inner)
    channel.publish("", b"x", exchange=outer)
    check_equal("bodies", channel.drain(queue), [b"x"])
    channel.publish("", b"y", exchange=inner)
    text = f"cannot publish to internal exchange '{inner}' in vhost '/'"
    channel.refused(403, text, "basic.publish")
