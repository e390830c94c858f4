"""Queue arguments: which values are refused, and how a redeclaration must match."""

import re

from amqp import Field
from harness import case, cases, expect
from peer import check_equal

DECLARE = "queue.declare"

# An argument, its value, its value as text, the name of its type, and another value as text.
DIFFERENT = [
    ("x-message-ttl", 1000, "1000", "signedint", 2000, "2000"),
    ("x-expires", 100000, "100000", "signedint", 200000, "200000"),
    ("x-max-length", 1, "1", "signedint", 2, "2"),
    ("x-max-length-bytes", 1, "1", "signedint", 2, "2"),
    ("x-max-priority", 1, "1", "signedint", 2, "2"),
    ("x-dead-letter-exchange", "a", "a", "longstr", "b", "b"),
    ("x-overflow", "drop-head", "drop-head", "longstr", "reject-publish", "reject-publish"),
    ("x-single-active-consumer", True, "true", "bool", False, "false"),
    ("x-queue-mode", "lazy", "lazy", "longstr", "default", "default"),
    ("x-queue-master-locator", "min-masters", "min-masters", "longstr", "random", "random"),
]


def difference(queue, argument, text):
    return f"inequivalent arg '{argument}' for queue '{queue}' in vhost '/': {text}"


def redeclare(test, first, second):
    """Declares a queue with the first arguments and again with the second ones."""
    channel = test.channel()
    queue = channel.queue(test.name(), arguments=first)
    channel.queue(queue, arguments=first)
    channel.send(DECLARE, queue=queue, exclusive=True, arguments=second)
    return channel, queue


@cases([(f"arguments/M8-{row[0]}-different", *row) for row in DIFFERENT])
def different(test, argument, value, shown, kind, other, other_shown):
    channel, queue = redeclare(test, {argument: value}, {argument: other})
    text = f"received '{other_shown}' but current is '{shown}'"
    channel.refused(406, difference(queue, argument, text), DECLARE)


@cases([(f"arguments/M8-{row[0]}-missing", *row[:4]) for row in DIFFERENT])
def missing(test, argument, value, shown, kind):
    channel, queue = redeclare(test, {argument: value}, {})
    text = f"received none but current is the value '{shown}' of type '{kind}'"
    channel.refused(406, difference(queue, argument, text), DECLARE)


@cases([(f"arguments/M8-{row[0]}-added", *row[:4]) for row in DIFFERENT])
def added(test, argument, value, shown, kind):
    channel, queue = redeclare(test, {}, {argument: value})
    text = f"received the value '{shown}' of type '{kind}' but current is none"
    channel.refused(406, difference(queue, argument, text), DECLARE)


INTEGER_TYPES = [
    ("b", "byte"),
    ("B", "unsignedbyte"),
    ("s", "short"),
    ("u", "unsignedshort"),
    ("I", "signedint"),
    ("i", "unsignedint"),
    ("l", "long"),
    ("L", "long"),
]


@cases([(f"arguments/M8-integer-type-{name}-{tag}", tag, name) for tag, name in INTEGER_TYPES])
def integer_types(test, tag, name):
    # Any integer type will do, and the width does not count in the comparison.
    argument = "x-message-ttl"
    channel = test.channel()
    queue = channel.queue(test.name(), arguments={argument: Field(tag, 100)})
    channel.queue(queue, arguments={argument: 100})
    channel.send(DECLARE, queue=queue, exclusive=True)
    text = f"received none but current is the value '100' of type '{name}'"
    channel.refused(406, difference(queue, argument, text), DECLARE)


@case("arguments/M8-queue-type-classic-is-the-default")
def classic_is_default(test):
    channel = test.channel()
    for first, second in (({}, {"x-queue-type": "classic"}), ({"x-queue-type": "classic"}, {})):
        queue = channel.queue(test.name(), exclusive=False, durable=True, arguments=first)
        channel.queue(queue, exclusive=False, durable=True, arguments=second)


@case("arguments/M8-queue-type-different")
def queue_type_different(test):
    channel = test.channel()
    arguments = {"x-queue-type": "classic"}
    queue = channel.queue(test.name(), exclusive=False, durable=True, arguments=arguments)
    channel.send(DECLARE, queue=queue, durable=True, arguments={"x-queue-type": "quorum"})
    text = "received 'quorum' but current is 'classic'"
    channel.refused(406, difference(queue, "x-queue-type", text), DECLARE)


@case("arguments/M8-unknown-arguments-are-not-compared")
def unknown_arguments(test):
    channel = test.channel()
    queue = channel.queue(test.name(), arguments={"a": 1, "x-max-length": 5})
    channel.queue(queue, arguments={"x-max-length": 5, "b": "two"})


@case("arguments/M8-properties-are-compared-before-arguments")
def properties_first(test):
    channel = test.channel()
    queue = channel.queue(test.name(), exclusive=False)
    channel.send(DECLARE, queue=queue, durable=True, arguments={"x-max-length": 5})
    text = difference(queue, "durable", "received 'true' but current is 'false'")
    channel.refused(406, text, DECLARE)


# Values out of range or of the wrong type --------------------------------------------------------

# As RabbitMQ prints them: the reason is an Erlang term.
NOT_AN_INTEGER = [
    ("longstr", "5"),
    ("double", 1.5),
    ("float", Field("f", 1.5)),
    ("void", None),
    ("binary", Field("x", b"5")),
    ("array", [1]),
    ("table", {"a": 1}),
    ("timestamp", Field("T", 5)),
    ("decimal", Field("D", (0, 5))),
    ("bool", True),
]
INVALID = [
    *(("x-message-ttl", value, f'"expected integer, got {name}"') for name, value in NOT_AN_INTEGER),
    ("x-message-ttl", -1, "{value_negative,-1}"),
    ("x-message-ttl", 315360000001, "{value_too_large,315360000001}"),
    ("x-expires", 0, "{value_zero,0}"),
    ("x-expires", -1, "{value_negative,-1}"),
    ("x-expires", 315360000001, "{value_too_large,315360000001}"),
    ("x-expires", "a", '"expected integer, got longstr"'),
    ("x-max-length", -1, "{value_negative,-1}"),
    ("x-max-length", "a", '"expected integer, got longstr"'),
    ("x-max-length-bytes", -1, "{value_negative,-1}"),
    ("x-max-length-bytes", "a", '"expected integer, got longstr"'),
    ("x-max-priority", -1, "{value_negative,-1}"),
    ("x-max-priority", 256, "{max_value_exceeded,256}"),
    ("x-max-priority", "a", '"expected integer, got longstr"'),
    ("x-overflow", "no-such-overflow", "invalid_overflow"),
    ("x-overflow", 5, "{unacceptable_type,signedint}"),
    ("x-single-active-consumer", 1, "{unacceptable_type,signedint}"),
    ("x-single-active-consumer", "true", "{unacceptable_type,longstr}"),
    ("x-dead-letter-routing-key", 5, "{unacceptable_type,signedint}"),
    ("x-queue-mode", "no-such-mode", "\"unsupported queue mode 'no-such-mode'\""),
    ("x-queue-mode", 5, "{unacceptable_type,signedint}"),
    ("x-queue-type", 5, "{unacceptable_type,signedint}"),
    *(("x-expires", value, f'"expected integer, got {name}"') for name, value in NOT_AN_INTEGER),
    *(("x-max-priority", value, f'"expected integer, got {name}"') for name, value in NOT_AN_INTEGER),
    ("x-message-ttl", Field("l", -(2**63)), "{value_negative,-9223372036854775808}"),
    ("x-max-length", Field("b", -1), "{value_negative,-1}"),
    ("x-max-length-bytes", Field("s", -300), "{value_negative,-300}"),
    ("x-overflow", None, "{unacceptable_type,void}"),
    ("x-overflow", Field("x", b"drop-head"), "{unacceptable_type,binary}"),
    ("x-overflow", "", "invalid_overflow"),
    ("x-single-active-consumer", None, "{unacceptable_type,void}"),
    ("x-dead-letter-routing-key", None, "{unacceptable_type,void}"),
    ("x-queue-version", 0, "\"unsupported queue version '0'\""),
    ("x-queue-version", 3, "\"unsupported queue version '3'\""),
    ("x-queue-version", "2", '"expected integer, got longstr"'),
]


def refused_value(test, argument, value, reason):
    channel = test.channel()
    queue = test.name()
    channel.send(DECLARE, queue=queue, durable=True, arguments={argument: value})
    prefix = f"invalid arg '{argument}' for queue '{queue}' in vhost '/': "
    if isinstance(reason, re.Pattern):
        text = re.compile(re.escape(prefix) + reason.pattern)
    else:
        text = prefix + reason
    channel.refused(406, text, DECLARE)


@cases([(f"arguments/C406-{number}-{row[0]}", *row) for number, row in enumerate(INVALID, 1)])
def invalid(test, argument, value, reason):
    refused_value(test, argument, value, reason)


@case("arguments/C406-dead-letter-routing-key-without-exchange")
def key_without_exchange(test):
    reason = expect(
        rabbitmq="routing_key_but_no_dlx_defined",
        # Later versions wrap the reason in a tuple.
        warren=re.compile(r"\{?.*routing_key_but_no_dlx_defined\}?"),
    )
    refused_value(test, "x-dead-letter-routing-key", "k", reason)


@case("arguments/C406-dead-letter-exchange-is-a-number")
def exchange_is_a_number(test):
    channel = test.channel()
    queue = test.name()
    channel.send(DECLARE, queue=queue, arguments={"x-dead-letter-exchange": 5})
    text = f"invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue '{queue}' in vhost '/'"
    channel.refused(406, text, DECLARE)


@case("arguments/C406-queue-type-unknown")
def unknown_queue_type(test):
    channel = test.channel()
    queue = test.name()
    channel.send(DECLARE, queue=queue, durable=True, arguments={"x-queue-type": "no-such-type"})
    close = channel.expect("channel.close", reply_code=406, class_id=50, method_id=10)
    wanted = expect(
        rabbitmq=f"invalid arg 'x-queue-type' for queue '{queue}' in vhost '/': "
        "\"unsupported queue type 'no-such-type'\"",
        warren=re.compile(".*'?x-queue-type'? .*"),
    )
    check_equal("reply text", close.reply_text.removeprefix("PRECONDITION_FAILED - "), wanted)


@cases(
    [
        (f"arguments/C406-{argument}-on-a-classic-queue", argument, value)
        for argument, value in (("x-delivery-limit", 5), ("x-max-age", "1D"))
    ]
)
def other_types_argument(test, argument, value):
    channel = test.channel()
    queue = test.name()
    channel.send(DECLARE, queue=queue, durable=True, arguments={argument: value})
    text = f"invalid arg '{argument}' for queue '{queue}' in vhost '/' of queue type rabbit_classic_queue"
    channel.refused(406, text, DECLARE)


LIMITS = [
    ("x-message-ttl", 0),
    ("x-message-ttl", 315360000000),
    ("x-expires", 10000),
    ("x-expires", 315360000000),
    ("x-max-length", 0),
    ("x-max-length-bytes", 0),
    ("x-max-length-bytes", 2**40),
    ("x-max-priority", 0),
    ("x-max-priority", 255),
    ("x-overflow", "reject-publish-dlx"),
    ("x-dead-letter-exchange", ""),
    ("x-dead-letter-exchange", "need not exist"),
    ("x-queue-mode", "default"),
    ("x-queue-mode", "lazy"),
    ("x-queue-version", 2),
    ("x-max-length", 2**62),
    ("x-overflow", "drop-head"),
    ("x-overflow", "reject-publish"),
    ("x-single-active-consumer", True),
    ("x-single-active-consumer", False),
    ("x-queue-type", "classic"),
    ("x-queue-master-locator", "min-masters"),
    ("x-of-my-own", {"a": [1, "two", None]}),
]


@cases([(f"arguments/accepted-{number}-{row[0]}", *row) for number, row in enumerate(LIMITS, 1)])
def accepted(test, argument, value):
    redeclared = {argument: value}
    channel = test.channel()
    channel.queue(channel.queue(test.name(), arguments=redeclared), arguments=redeclared)


@cases(
    [
        ("arguments/M8-dead-letter-routing-key-different", "b", "received 'b' but current is 'a'"),
        (
            "arguments/M8-dead-letter-routing-key-missing",
            None,
            "received none but current is the value 'a' of type 'longstr'",
        ),
    ]
)
def dead_letter_key(test, key, text):
    first = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"}
    second = {"x-dead-letter-exchange": "", **({"x-dead-letter-routing-key": key} if key else {})}
    channel, queue = redeclare(test, first, second)
    channel.refused(406, difference(queue, "x-dead-letter-routing-key", text), DECLARE)


@case("arguments/leader-locator-of-a-classic-queue")
def leader_locator(test):
    channel = test.channel()
    queue = test.name()
    # Classic queues know it since 4.0.
    if expect(rabbitmq=False, warren=True):
        channel.queue(queue, arguments={"x-queue-leader-locator": "client-local"})
        return
    channel.send(DECLARE, queue=queue, arguments={"x-queue-leader-locator": "client-local"})
    text = f"invalid arg 'x-queue-leader-locator' for queue '{queue}' in vhost '/' of queue type "
    channel.refused(406, text + "rabbit_classic_queue", DECLARE)


@case("arguments/C406-queue-version-1")
def version_1(test):
    channel = test.channel()
    queue = test.name()
    # The first version of classic queues went with 4.0.
    if expect(rabbitmq=True, warren=False):
        channel.queue(queue, arguments={"x-queue-version": 1})
        return
    channel.send(DECLARE, queue=queue, arguments={"x-queue-version": 1})
    text = f"invalid arg 'x-queue-version' for queue '{queue}' in vhost '/': "
    channel.refused(406, text + "\"unsupported queue version '1'\"", DECLARE)


@case("arguments/M8-a-refused-redeclaration-changes-nothing")
def nothing_changes(test):
    channel, queue = redeclare(test, {"x-max-length": 1}, {"x-max-length": 2})
    text = "received '2' but current is '1'"
    channel.refused(406, difference(queue, "x-max-length", text), DECLARE)
    channel.call("channel.open")
    channel.publish(queue, b"0")
    channel.publish(queue, b"1")
    check_equal("left", channel.drain(queue), [b"1"])
