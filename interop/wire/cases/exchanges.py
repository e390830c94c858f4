"""exchange.declare, delete, bind and unbind."""

from harness import case, cases
from peer import check_equal

DECLARE, DELETE = "exchange.declare", "exchange.delete"
BIND, UNBIND = "exchange.bind", "exchange.unbind"
DEFAULT = "operation not permitted on the default exchange"
MISSING = "no exchange 'no such exchange' in vhost '/'"


# M1, M4: declare -------------------------------------------------------------------------------

PREDECLARED = [
    ("amq.direct", "direct", False),
    ("amq.fanout", "fanout", False),
    ("amq.topic", "topic", False),
    ("amq.headers", "headers", False),
    ("amq.match", "headers", False),
    ("amq.rabbitmq.trace", "topic", True),
]


@cases([(f"exchanges/M4-{name}", name, kind, internal) for name, kind, internal in PREDECLARED])
def predeclared(test, name, kind, internal):
    channel = test.channel()
    channel.call(DECLARE, exchange=name, type=kind, durable=True, internal=internal)
    channel.call(DECLARE, exchange=name, passive=True)


@cases(
    [
        ("exchanges/M1-passive-ignores-an-unknown-type", {"type": "no such type"}),
        (
            "exchanges/M1-passive-ignores-properties",
            {"durable": False, "auto_delete": True, "internal": True},
        ),
        ("exchanges/M1-passive-ignores-arguments", {"arguments": {"alternate-exchange": "x"}}),
    ]
)
def passive(test, arguments):
    test.channel().call(DECLARE, exchange="amq.direct", passive=True, **arguments)


@case("exchanges/M1-every-type-and-property")
def every_type(test):
    channel = test.channel()
    for kind in ("direct", "fanout", "topic", "headers"):
        for bits in range(8):
            properties = {
                "durable": bool(bits & 1),
                "auto_delete": bool(bits & 2),
                "internal": bool(bits & 4),
            }
            name = channel.exchange(test.name(), kind, **properties)
            channel.exchange(name, kind, **properties)


REFUSED = [
    ("M1-passive-missing", {"exchange": "no such exchange", "passive": True}, 404, MISSING),
    (
        "N1-reserved-name",
        {"exchange": "amq.wire"},
        403,
        "exchange name 'amq.wire' contains reserved prefix 'amq.*'",
    ),
    ("M5-default", {"exchange": "", "type": "direct", "durable": True}, 403, DEFAULT),
    ("M5-default-passive", {"exchange": "", "passive": True}, 403, DEFAULT),
    (
        "M1-redeclared-reserved-name",
        {"exchange": "amq.direct", "type": "topic", "durable": True},
        406,
        "inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': "
        "received 'topic' but current is 'direct'",
    ),
]


@cases([(f"exchanges/{name}", *rest) for name, *rest in REFUSED])
def refused_declare(test, arguments, code, text):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.send(DECLARE, **arguments)
    channel.refused(code, text, DECLARE)
    other.alive()
    channel.call("channel.open")


@case("exchanges/M1-passive-reserved-name-is-missing")
def passive_reserved(test):
    channel = test.channel()
    channel.send(DECLARE, exchange="amq.wire", passive=True)
    channel.refused(404, "no exchange 'amq.wire' in vhost '/'", DECLARE)


@case("exchanges/M1-unknown-type")
def unknown_type(test):
    peer = test.connect()
    channel = peer.channel()
    channel.send(DECLARE, exchange=test.name(), type="no-such-type")
    # RabbitMQ 3.10 closes the connection with 503; later versions the channel with 406.
    text = "unknown exchange type 'no-such-type'"
    if test.broker.is_warren:
        channel.refused(406, text, DECLARE)
    else:
        peer.refused(503, text, DECLARE)


# The property, what it is and what is asked for, both as reply texts show them.
INEQUIVALENT = [
    ("type", {"type": "direct"}, {"type": "fanout"}, "received 'fanout' but current is 'direct'"),
    ("durable", {}, {"durable": True}, "received 'true' but current is 'false'"),
    ("durable", {"durable": True}, {}, "received 'false' but current is 'true'"),
    ("auto_delete", {}, {"auto_delete": True}, "received 'true' but current is 'false'"),
    ("auto_delete", {"auto_delete": True}, {}, "received 'false' but current is 'true'"),
    ("internal", {}, {"internal": True}, "received 'true' but current is 'false'"),
    ("internal", {"internal": True}, {}, "received 'false' but current is 'true'"),
    (
        "alternate-exchange",
        {},
        {"arguments": {"alternate-exchange": "a"}},
        "received the value 'a' of type 'longstr' but current is none",
    ),
    (
        "alternate-exchange",
        {"arguments": {"alternate-exchange": "a"}},
        {},
        "received none but current is the value 'a' of type 'longstr'",
    ),
    (
        "alternate-exchange",
        {"arguments": {"alternate-exchange": "a"}},
        {"arguments": {"alternate-exchange": "b"}},
        "received 'b' but current is 'a'",
    ),
    # The first difference in this order is reported.
    ("type", {}, {"type": "topic", "durable": True}, "received 'topic' but current is 'direct'"),
    ("durable", {}, {"durable": True, "auto_delete": True}, "received 'true' but current is 'false'"),
]


@cases([(f"exchanges/M1-inequivalent-{number}-{row[0]}", *row) for number, row in enumerate(INEQUIVALENT, 1)])
def inequivalent(test, argument, first, second, difference):
    channel = test.channel()
    name = test.name()
    channel.call(DECLARE, exchange=name, **first)
    channel.send(DECLARE, exchange=name, **second)
    text = f"inequivalent arg '{argument}' for exchange '{name}' in vhost '/': {difference}"
    channel.refused(406, text, DECLARE)


@case("exchanges/M1-other-arguments-are-not-compared")
def other_arguments(test):
    channel = test.channel()
    name = channel.exchange(test.name(), arguments={"a": 1, "alternate-exchange": "x"})
    channel.exchange(name, arguments={"alternate-exchange": "x", "b": "two"})


@case("exchanges/M1-alternate-exchange-must-be-text")
def alternate_type(test):
    channel = test.channel()
    name = test.name()
    channel.send(DECLARE, exchange=name, arguments={"alternate-exchange": 5})
    text = f"invalid type 'signedint' for arg 'alternate-exchange' in exchange '{name}' in vhost '/'"
    channel.refused(406, text, DECLARE)


@case("exchanges/M1-alternate-exchange-is-looked-at-for-new-exchanges-only")
def alternate_of_existing(test):
    channel = test.channel()
    name = channel.exchange(test.name())
    channel.send(DECLARE, exchange=name, arguments={"alternate-exchange": 5})
    difference = "received the value '5' of type 'signedint' but current is none"
    text = f"inequivalent arg 'alternate-exchange' for exchange '{name}' in vhost '/': {difference}"
    channel.refused(406, text, DECLARE)


@case("exchanges/N1-a-reserved-name-is-refused-before-an-alternate-exchange")
def reserved_before_alternate(test):
    channel = test.channel()
    channel.send(DECLARE, exchange="amq.wire", arguments={"alternate-exchange": 5})
    channel.refused(403, "exchange name 'amq.wire' contains reserved prefix 'amq.*'", DECLARE)


# M2: delete ------------------------------------------------------------------------------------


@cases(
    [
        ("exchanges/M5-delete-default", "", DEFAULT),
        (
            "exchanges/N1-delete-predeclared",
            "amq.direct",
            "deletion of system exchange 'amq.direct' in vhost '/' not allowed",
        ),
        (
            "exchanges/N1-delete-missing-reserved-name",
            "amq.wire",
            "deletion of system exchange 'amq.wire' in vhost '/' not allowed",
        ),
    ]
)
def refused_delete(test, name, text):
    channel = test.channel()
    channel.send(DELETE, exchange=name)
    channel.refused(403, text, DELETE)


@case("exchanges/M2-delete-missing")
def delete_missing(test):
    channel = test.channel()
    channel.call(DELETE, exchange="no such exchange")
    channel.call(DELETE, exchange="no such exchange", if_unused=True)


@case("exchanges/M2-delete-takes-its-bindings-along")
def delete_with_bindings(test):
    channel = test.channel()
    name, queue = channel.exchange(test.name()), channel.queue()
    channel.bind(queue, name, "k")
    channel.call(DELETE, exchange=name)
    channel.exchange(name)
    channel.publish("k", b"x", exchange=name, mandatory=True)
    check_equal("returned", channel.content("basic.return").body, b"x")
    channel.call(DELETE, exchange=name)
    channel.send(DECLARE, exchange=name, passive=True)
    channel.refused(404, f"no exchange '{name}' in vhost '/'", DECLARE)


@case("exchanges/M2-delete-if-unused")
def delete_if_unused(test):
    peer = test.connect()
    channel = peer.channel(1)
    name, queue = channel.exchange(test.name()), channel.queue()
    channel.bind(queue, name, "k")
    other = peer.channel(2)
    other.send(DELETE, exchange=name, if_unused=True)
    other.refused(406, f"exchange '{name}' in vhost '/' in use", DELETE)
    channel.call("queue.unbind", queue=queue, exchange=name, routing_key="k")
    channel.call(DELETE, exchange=name, if_unused=True)


@case("exchanges/M2-being-a-destination-is-not-use")
def destination_is_not_use(test):
    channel = test.channel()
    source, destination = channel.exchange(test.name()), channel.exchange(test.name())
    channel.call(BIND, source=source, destination=destination, routing_key="k")
    channel.call(DELETE, exchange=destination, if_unused=True)
    channel.call(DELETE, exchange=source, if_unused=True)


# M6: auto-delete -------------------------------------------------------------------------------


def gone(channel, name):
    channel.send(DECLARE, exchange=name, passive=True)
    channel.refused(404, f"no exchange '{name}' in vhost '/'", DECLARE)
    channel.call("channel.open")


@case("exchanges/M6-auto-delete-after-last-unbind")
def auto_delete(test):
    channel = test.channel()
    name = channel.exchange(test.name(), auto_delete=True)
    one, two = channel.queue(test.name()), channel.queue(test.name())
    channel.bind(one, name, "k")
    channel.bind(two, name, "k")
    channel.call("queue.unbind", queue=one, exchange=name, routing_key="k")
    channel.call(DECLARE, exchange=name, passive=True)
    channel.call("queue.unbind", queue=two, exchange=name, routing_key="k")
    gone(channel, name)


@case("exchanges/M6-auto-delete-after-queue-delete")
def auto_delete_with_queue(test):
    channel = test.channel()
    name, queue = channel.exchange(test.name(), auto_delete=True), channel.queue()
    channel.bind(queue, name)
    channel.call("queue.delete", queue=queue)
    gone(channel, name)


@case("exchanges/M6-auto-delete-of-an-exchange-chain")
def auto_delete_chain(test):
    channel = test.channel()
    first = channel.exchange(test.name(), auto_delete=True)
    second = channel.exchange(test.name(), auto_delete=True)
    queue = channel.queue()
    channel.call(BIND, source=first, destination=second)
    channel.bind(queue, second)
    channel.call("queue.delete", queue=queue)
    gone(channel, second)
    gone(channel, first)


@case("exchanges/M6-auto-delete-never-without-a-binding")
def never_bound(test):
    channel = test.channel()
    name = channel.exchange(test.name(), auto_delete=True)
    channel.call("queue.unbind", queue=channel.queue(), exchange=name, routing_key="k")
    channel.call(DECLARE, exchange=name, passive=True)


# M3: exchange-to-exchange bindings, errors -------------------------------------------------------


@cases(
    [
        ("exchanges/M5-bind-from-default", BIND, "", "amq.direct", 403, DEFAULT),
        ("exchanges/M5-bind-to-default", BIND, "amq.direct", "", 403, DEFAULT),
        ("exchanges/M5-unbind-from-default", UNBIND, "", "amq.direct", 403, DEFAULT),
        ("exchanges/M5-unbind-to-default", UNBIND, "amq.direct", "", 403, DEFAULT),
        ("exchanges/M3-bind-missing-source", BIND, "no such exchange", "amq.direct", 404, MISSING),
        ("exchanges/M3-bind-missing-destination", BIND, "amq.direct", "no such exchange", 404, MISSING),
        (
            "exchanges/M3-bind-both-missing-names-the-source",
            BIND,
            "no such exchange",
            "nor this",
            404,
            MISSING,
        ),
    ]
)
def refused_bind(test, method, source, destination, code, text):
    channel = test.channel()
    channel.send(method, source=source, destination=destination, routing_key="k")
    channel.refused(code, text, method)


@cases(
    [
        ("exchanges/M3-unbind-missing-source", "no such exchange", "amq.direct"),
        ("exchanges/M3-unbind-missing-destination", "amq.direct", "no such exchange"),
        ("exchanges/M3-unbind-missing-binding", "amq.direct", "amq.fanout"),
    ]
)
def unbind_missing(test, source, destination):
    channel = test.channel()
    channel.send(UNBIND, source=source, destination=destination, routing_key="never bound")
    channel.expect("exchange.unbind-ok")


@case("exchanges/M3-unbind-ok-is-40-51")
def unbind_ok_id(test):
    channel = test.channel()
    channel.send(UNBIND, source="amq.direct", destination="amq.fanout", routing_key="never bound")
    check_equal("method ids", channel.peer.receive("unbind-ok").payload, b"\0\x28\0\x33")


# nowait ----------------------------------------------------------------------------------------


@case("exchanges/nowait-sends-no-reply")
def nowait(test):
    channel = test.channel()
    one, two = test.name(), test.name()
    channel.send(DECLARE, exchange=one, nowait=True)
    channel.send(DECLARE, exchange=two, nowait=True)
    channel.send(DECLARE, exchange=one, passive=True, nowait=True)
    channel.send(BIND, source=one, destination=two, routing_key="k", nowait=True)
    channel.alive()
    queue = channel.queue()
    channel.bind(queue, two, "k")
    channel.publish("k", b"x", exchange=one)
    check_equal("body", channel.get(queue).body, b"x")
    channel.send(UNBIND, source=one, destination=two, routing_key="k", nowait=True)
    channel.send(DELETE, exchange=one, nowait=True)
    channel.send(DELETE, exchange=two, nowait=True)
    channel.alive()
    gone(channel, one)


NOWAIT_ERRORS = [
    ("declare-passive", DECLARE, {"exchange": "no such exchange", "passive": True}, 404, MISSING),
    ("declare", DECLARE, {"exchange": ""}, 403, DEFAULT),
    ("delete", DELETE, {"exchange": ""}, 403, DEFAULT),
    ("bind", BIND, {"source": "no such exchange", "destination": "amq.direct"}, 404, MISSING),
    ("unbind", UNBIND, {"source": "", "destination": "amq.direct"}, 403, DEFAULT),
]


@cases([(f"exchanges/nowait-error-of-{name}", *rest) for name, *rest in NOWAIT_ERRORS])
def nowait_error(test, method, arguments, code, text):
    channel = test.channel()
    channel.send(method, nowait=True, **arguments)
    channel.refused(code, text, method)
