"""The interop cases with pika: BlockingConnection, and SelectConnection for confirms in bulk."""

import decimal
import hashlib
import os
import time
from contextlib import contextmanager
from datetime import datetime, timezone

import pika
from pika.compat import long
from pika.exceptions import (ChannelClosedByBroker, ConnectionClosedByBroker, ProbableAccessDeniedError,
                             ProbableAuthenticationError, StreamLostError, UnroutableError)

from cases import HOST, PORT, WAIT_LIMIT_S, NotApplicable, case, check, equal, main, raises, unique, wait_until
from proxy import Proxy
import tutorials

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)

# pika writes no floating point numbers, and integers only as `I` and, of its own type `long`, as `l`.
TABLE = {
    "true": True, "false": False,
    "int": -2147483648, "int max": 2147483647,
    "long": long(-9223372036854775808), "long max": long(9223372036854775807),
    "decimal": decimal.Decimal("-12345.6789"), "whole decimal": decimal.Decimal(7),
    "string": "r\u00e9sum\u00e9 \u5154", "empty string": "",
    "bytes": b"\x00\xff\xce", "no bytes": b"",
    "timestamp": datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone.utc),
    "void": None,
    "table": {"nested": {"deeper": [1, "two", None]}}, "empty table": {},
    "array": [True, long(2), "three", b"4", None, [5, [6]], {"seven": 7}, decimal.Decimal("8.9")], "empty array": [],
}


def parameters(port=PORT, password="guest", **options):
    return pika.ConnectionParameters(HOST, port, credentials=pika.PlainCredentials("guest", password),
                                     socket_timeout=WAIT_LIMIT_S, stack_timeout=WAIT_LIMIT_S, **options)


@contextmanager
def connect(**options):
    connection = pika.BlockingConnection(parameters(**options))
    try:
        yield connection
    finally:
        if connection.is_open:
            connection.close()


@contextmanager
def durable_queue(channel, name, **arguments):
    """A durable classic queue; deleted over a connection of its own, as the channel may be closed by then."""
    queue = unique(name)
    channel.queue_declare(queue, durable=True, arguments=arguments)
    try:
        yield queue
    finally:
        with connect() as connection:
            connection.channel().queue_delete(queue)


def exclusive_queue(channel):
    return channel.queue_declare("", exclusive=True).method.queue


def publish(channel, queue, bodies):
    for body in bodies:
        channel.basic_publish("", queue, body, PERSISTENT)


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def consumer(channel, queue, **options):
    """Starts a consumer and returns the list that fills with its (method, properties, body)."""
    deliveries = []
    channel.basic_consume(queue, lambda _channel, *delivery: deliveries.append(delivery), **options)
    return deliveries


def wait_for(connection, deliveries, count):
    wait_until(lambda: len(deliveries) >= count, "%d deliveries" % count,
               step=lambda: connection.process_data_events(0.1))


def bodies(deliveries):
    return [body for _, _, body in deliveries]


def fetch(channel, queue, **options):
    method, properties, body = channel.basic_get(queue, **options)
    check(method is not None, "the queue is empty")
    return method, properties, body


@case
def publish_confirms():
    with connect() as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        with durable_queue(channel, "confirms") as queue:
            # In confirm mode basic_publish returns once the broker has acked.
            publish(channel, queue, [b"%d" % i for i in range(100)])
            equal(ready(channel, queue), 100, "ready messages")
            error = raises(UnroutableError, channel.basic_publish, "", unique("nowhere"), b"lost", mandatory=True)
            equal([m.body for m in error.messages], [b"lost"], "returned bodies")
            # Not mandatory: dropped, and acked all the same.
            channel.basic_publish("", unique("nowhere"), b"dropped")
    publisher = BulkPublisher(500)
    publisher.run()
    equal(publisher.acked, set(range(1, 501)), "acked sequence numbers")


class BulkPublisher:
    """Publishes on a SelectConnection without waiting in between, and collects what the broker acked."""

    def __init__(self, count):
        self.count = count
        self.acked = set()
        self.problem = None
        self.connection = pika.SelectConnection(
            parameters(), on_open_callback=lambda connection: connection.channel(on_open_callback=self.on_channel),
            on_open_error_callback=lambda _connection, error: self.give_up(error),
            on_close_callback=lambda connection, _reason: connection.ioloop.stop())

    def run(self):
        self.connection.ioloop.call_later(WAIT_LIMIT_S, lambda: self.give_up("time is up"))
        self.connection.ioloop.start()
        equal(self.problem, None, "problem")

    def give_up(self, problem):
        self.problem = problem
        self.connection.ioloop.stop()

    def on_channel(self, channel):
        self.channel = channel
        channel.queue_declare("", exclusive=True, callback=self.on_queue)

    def on_queue(self, declare_ok):
        self.queue = declare_ok.method.queue
        self.channel.confirm_delivery(self.on_confirm, callback=self.on_select_ok)

    def on_select_ok(self, _select_ok):
        for i in range(self.count):
            self.channel.basic_publish("", self.queue, b"%d" % i, PERSISTENT)

    def on_confirm(self, frame):
        confirm = frame.method
        if not isinstance(confirm, pika.spec.Basic.Ack):
            return self.give_up(confirm)
        self.acked |= set(range(1 if confirm.multiple else confirm.delivery_tag, confirm.delivery_tag + 1))
        if len(self.acked) == self.count:
            self.connection.close()


@case
def consume_acks():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "acks") as queue:
            expected = [b"%d" % i for i in range(10)]
            publish(channel, queue, expected)

            deliveries = consumer(channel, queue)
            wait_for(connection, deliveries, 10)
            equal(bodies(deliveries), expected, "bodies")
            equal([m.delivery_tag for m, _, _ in deliveries], list(range(1, 11)), "delivery tags")
            equal({m.redelivered for m, _, _ in deliveries}, {False}, "redelivered flags")
            channel.basic_ack(1)
            channel.basic_ack(4, multiple=True)
            channel.close()

            channel = connection.channel()
            deliveries = consumer(channel, queue)
            wait_for(connection, deliveries, 6)
            equal(bodies(deliveries), expected[4:], "bodies after the channel closed")
            equal({m.redelivered for m, _, _ in deliveries}, {True}, "redelivered flags")
            channel.basic_ack(0, multiple=True)
            channel.close()

            equal(ready(connection.channel(), queue), 0, "ready messages")


@case
def prefetch():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "prefetch") as queue:
            publish(channel, queue, [b"%d" % i for i in range(10)])
            channel.basic_qos(prefetch_count=3)
            deliveries = consumer(channel, queue)
            wait_for(connection, deliveries, 3)
            # What the queue handed out beyond the limit would be missing from its ready messages.
            equal(ready(channel, queue), 7, "ready messages")
            for acked in range(1, 4):
                channel.basic_ack(acked)
                wait_for(connection, deliveries, 3 + acked)
                equal(ready(channel, queue), 7 - acked, "ready messages")
                equal(len(deliveries), 3 + acked, "deliveries")

        channel = connection.channel()
        with durable_queue(channel, "one") as one, durable_queue(channel, "two") as two:
            publish(channel, one, [b"one"] * 10)
            publish(channel, two, [b"two"] * 10)
            channel.basic_qos(prefetch_count=3, global_qos=True)
            first = consumer(channel, one)
            wait_for(connection, first, 3)
            second = consumer(channel, two)
            equal((ready(channel, one), ready(channel, two), len(second)), (7, 10, 0), "ready and delivered")
            # The acks free the channel's places for whichever queue is first to take them.
            channel.basic_ack(3, multiple=True)
            wait_until(lambda: len(first) + len(second) >= 6, "6 deliveries",
                       step=lambda: connection.process_data_events(0.1))
            equal(ready(channel, one) + ready(channel, two), 14, "ready messages")
            equal(len(first) + len(second), 6, "deliveries")


@case
def get():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "get") as queue:
            equal(channel.basic_get(queue), (None, None, None), "answer of an empty queue")
            publish(channel, queue, [b"first", b"second", b"third"])
            for remaining, body in ((2, b"first"), (1, b"second"), (0, b"third")):
                method, properties, content = fetch(channel, queue)
                equal((content, properties.delivery_mode), (body, 2), "message")
                equal((method.message_count, method.redelivered, method.exchange, method.routing_key),
                      (remaining, False, "", queue), "basic.get-ok")
                channel.basic_ack(method.delivery_tag)
            equal(channel.basic_get(queue), (None, None, None), "answer of the emptied queue")


@case
def reject_requeue():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "reject") as queue:
            publish(channel, queue, [b"1", b"2", b"3", b"4"])

            first, _, _ = fetch(channel, queue)
            fetch(channel, queue)
            channel.basic_reject(first.delivery_tag, requeue=True)
            method, _, body = fetch(channel, queue)
            equal((body, method.redelivered), (b"1", True), "what was rejected")

            method, _, body = fetch(channel, queue)
            equal((body, method.redelivered), (b"3", False), "the next message")
            channel.basic_nack(method.delivery_tag, multiple=True, requeue=True)
            again = [fetch(channel, queue) for _ in range(4)]
            equal(bodies(again), [b"1", b"2", b"3", b"4"], "bodies after nack multiple")
            equal([m.redelivered for m, _, _ in again], [True, True, True, False], "redelivered flags")

            channel.basic_reject(again[0][0].delivery_tag, requeue=False)
            channel.basic_nack(again[2][0].delivery_tag, multiple=True, requeue=False)
            channel.close()
            channel = connection.channel()
            equal(bodies([fetch(channel, queue, auto_ack=True)]), [b"4"], "what is left")
            equal(ready(channel, queue), 0, "ready messages")


@case
def returns():
    with connect() as connection:
        channel = connection.channel()
        returned = []
        channel.add_on_return_callback(lambda _channel, *message: returned.append(message))
        properties = pika.BasicProperties(content_type="application/octet-stream", headers={"n": 1},
                                          message_id="m-1", delivery_mode=2)
        body = os.urandom(200000)
        channel.basic_publish("amq.direct", unique("nowhere"), body, properties, mandatory=True)
        key = unique("nowhere")
        channel.basic_publish("", key, b"", mandatory=True)
        wait_for(connection, returned, 2)
        method, back, content = returned[0]
        equal((method.reply_code, method.reply_text, method.exchange), (312, "NO_ROUTE", "amq.direct"), "basic.return")
        equal(back, properties, "properties")
        check(content == body, "another body came back")
        method, _, content = returned[1]
        equal((method.exchange, method.routing_key, content), ("", key, b""), "the second return")


def equal_close(error, code, text):
    equal((error.reply_code, error.reply_text), (code, text), "channel.close")


def missing(connection, queue):
    error = raises(ChannelClosedByBroker, connection.channel().queue_declare, queue, passive=True)
    equal_close(error, 404, "NOT_FOUND - no queue '%s' in vhost '/'" % queue)


@case
def exclusive_auto_delete():
    with connect() as other:
        with connect() as connection:
            channel = connection.channel()
            queue = exclusive_queue(channel)
            check(queue.startswith("amq.gen-") and len(queue) == 30, "server-named queue is called %s" % queue)
            error = raises(ChannelClosedByBroker, other.channel().queue_declare, queue, passive=True)
            equal_close(error, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost "
                        "'/'. It could be originally declared on another connection or the exclusive property value "
                        "does not match that of the original declaration." % queue)
            equal(channel.queue_declare(queue, passive=True).method.queue, queue, "queue of the owner")
        missing(other, queue)

        channel = other.channel()
        queue = unique("auto-delete")
        channel.queue_declare(queue, auto_delete=True)
        tags = [channel.basic_consume(queue, lambda *_: None) for _ in range(2)]
        channel.basic_cancel(tags[0])
        equal(channel.queue_declare(queue, passive=True).method.consumer_count, 1, "consumers")
        channel.basic_cancel(tags[1])
        missing(other, queue)

        exchange = unique("auto-delete")
        channel.exchange_declare(exchange, "fanout", auto_delete=True)
        queue = exclusive_queue(channel)
        channel.queue_bind(queue, exchange)
        channel.exchange_declare(exchange, passive=True)
        channel.queue_unbind(queue, exchange)
        error = raises(ChannelClosedByBroker, channel.exchange_declare, exchange, passive=True)
        equal_close(error, 404, "NOT_FOUND - no exchange '%s' in vhost '/'" % exchange)


@case
def tables():
    properties = pika.BasicProperties(
        content_type="text/plain; charset=utf-8", content_encoding="identity", headers=TABLE, delivery_mode=2,
        priority=9, correlation_id="correlation", reply_to="reply", expiration="60000", message_id="message",
        timestamp=2**40, type="type", user_id="guest", app_id="app", cluster_id="cluster")
    with connect() as connection:
        channel = connection.channel()
        exchange = unique("tables")
        # Any name is allowed in arguments, and none of these is one that the broker knows.
        channel.exchange_declare(exchange, "headers", auto_delete=True, arguments=TABLE)
        queue = unique("tables")
        for _ in range(2):
            equal(channel.queue_declare(queue, exclusive=True, arguments=TABLE).method.queue, queue, "declared queue")

        # The headers exchange routes only if binding and message carry the same values of the same types.
        channel.queue_bind(queue, exchange, "", dict(TABLE, **{"x-match": "all"}))
        channel.confirm_delivery()
        channel.basic_publish(exchange, "", b"all types", properties, mandatory=True)
        _, back, body = fetch(channel, queue, auto_ack=True)
        equal(body, b"all types", "body")
        equal(back.headers, TABLE, "headers")
        for name, value in TABLE.items():
            equal(type(back.headers[name]), type(value), "type of the header " + name)
        equal(back, properties, "properties")

        for name in TABLE:
            if TABLE[name] is None:
                continue  # a void binding argument asks for nothing but the header's presence
            other = pika.BasicProperties(headers=dict(TABLE, **{name: "another"}))
            raises(UnroutableError, channel.basic_publish, exchange, "", b"", other, mandatory=True)

        channel.queue_unbind(queue, exchange, "", dict(TABLE, **{"x-match": "all"}))
        error = raises(ChannelClosedByBroker, channel.exchange_declare, exchange, passive=True)
        equal(error.reply_code, 404, "code of the close after the last binding was removed")


@case
def exchanges():
    with connect() as connection:
        channel = connection.channel()
        declared = []

        def exchange(kind, **options):
            name = unique("%s-%d" % (kind, len(declared)))
            declared.append(name)
            channel.exchange_declare(name, kind, **options)
            return name

        queues = {}

        def queue(name):
            queues[name] = exclusive_queue(channel)
            return queues[name]

        def routed(to, key="", **headers):
            """Publishes, and returns the names of the queues that got the message."""
            channel.basic_publish(to, key, b"x", pika.BasicProperties(headers=headers))
            # The publishes of a channel are routed before its next synchronous method is answered.
            return "".join(name for name, q in sorted(queues.items()) if channel.queue_purge(q).method.message_count)

        direct = exchange("direct", durable=True)
        channel.queue_bind(queue("a"), direct, "red")
        channel.queue_bind(queue("b"), direct, "red")
        channel.queue_bind(queues["b"], direct, "blue")
        equal([routed(direct, k) for k in ("red", "blue", "Red", "")], ["ab", "b", "", ""], "direct")
        channel.queue_unbind(queues["b"], direct, "red")
        equal([routed(direct, k) for k in ("red", "blue")], ["a", "b"], "direct after unbind")

        fanout = exchange("fanout")
        channel.queue_bind(queue("c"), fanout, "ignored")
        channel.queue_bind(queue("d"), fanout)
        equal([routed(fanout, k) for k in ("", "any")], ["cd", "cd"], "fanout")

        topic = exchange("topic", durable=True)
        for name, pattern in (("e", "*.orange.*"), ("f", "lazy.#"), ("g", "#"), ("h", "*"), ("i", "a.#.b.*")):
            channel.queue_bind(queue(name), topic, pattern)
        equal({k: routed(topic, k) for k in ("quick.orange.fox", "lazy", "lazy.orange.elephant", "lazy.a.b.c", "",
                                             "a.b.x", "a.x.y.b.z", "orange", "x.orange", "lazy..")},
              {"quick.orange.fox": "eg", "lazy": "fgh", "lazy.orange.elephant": "efg", "lazy.a.b.c": "fg", "": "g",
               "a.b.x": "gi", "a.x.y.b.z": "gi", "orange": "gh", "x.orange": "g", "lazy..": "fg"}, "topic")

        headers = exchange("headers")
        channel.queue_bind(queue("j"), headers, "", {"x-match": "all", "type": "report", "pages": 2})
        channel.queue_bind(queue("k"), headers, "", {"x-match": "any", "type": "report", "pages": 2})
        equal([routed(headers, **h) for h in ({"type": "report", "pages": 2, "more": 1}, {"type": "report"},
                                              {"pages": 2}, {"pages": "2"}, {})], ["jk", "k", "k", "", ""], "headers")

        # direct -> topic -> direct again: a cycle must deliver once.
        channel.exchange_bind(topic, direct, "lazy")
        channel.exchange_bind(direct, topic, "#")
        equal(routed(direct, "lazy"), "fgh", "through the exchange binding")
        channel.exchange_unbind(topic, direct, "lazy")
        equal(routed(direct, "lazy"), "", "after the exchange was unbound")

        main_exchange = exchange("direct", arguments={"alternate-exchange": fanout})
        channel.queue_bind(queue("l"), main_exchange, "known")
        equal([routed(main_exchange, k) for k in ("known", "unknown")], ["l", "cd"], "alternate exchange")

        for name in declared:
            channel.exchange_delete(name)


# The exchange types of RabbitMQ's plugins, which come with it but must be enabled.

@contextmanager
def exchange_of(kind, **arguments):
    """A channel in confirm mode and an exchange of a type that the broker may not have."""
    name = unique(kind)
    with connect() as connection:
        channel = connection.channel()
        try:
            channel.exchange_declare(name, kind, arguments=arguments)
        except (ChannelClosedByBroker, ConnectionClosedByBroker) as error:
            # 406 in RabbitMQ 4, 503 in RabbitMQ 3.
            if "unknown exchange type" not in error.reply_text:
                raise
            raise NotApplicable("this broker has no exchanges of type " + kind)
        channel.confirm_delivery()
        try:
            yield channel, name
        finally:
            with connect() as other:
                other.channel().exchange_delete(name)


def refused(code, text, action):
    """Has a channel of its own refuse something."""
    with connect() as connection:
        error = raises(ChannelClosedByBroker, action, connection.channel())
        equal((error.reply_code, error.reply_text.split(" - ")[-1]), (code, text), "refusal")


def shares(channel, exchange, queues, messages):
    """Publishes (key, properties) pairs; returns which queue each went to, one at most."""
    found = []
    for key, properties in messages:
        channel.basic_publish(exchange, key, b"x", properties)
        got = [name for name in queues if channel.queue_purge(name).method.message_count]
        check(len(got) <= 1, "%r went to %d queues" % (key, len(got)))
        found.append(got[0] if got else None)
    return found


@case
def consistent_hash():
    with exchange_of("x-consistent-hash") as (channel, exchange):
        queues = [exclusive_queue(channel) for _ in range(3)]
        for queue, weight in zip(queues, ("1", "1", "8")):
            channel.queue_bind(queue, exchange, weight)
        channel.queue_bind(queues[0], exchange, "100")  # of two bindings of a queue one counts
        messages = [("key-%d" % i, None) for i in range(400)]
        found = shares(channel, exchange, queues, messages)
        check(None not in found, "every message goes to a queue")
        counts = [found.count(queue) for queue in queues]
        check(10 <= counts[0] <= 80 and 10 <= counts[1] <= 80 and counts[2] >= 240, "shares %r" % counts)
        equal(shares(channel, exchange, queues, messages[:50]), found[:50], "queues of the same keys")
        for key, text in (("0", "The binding key must be greater than 0"),
                          ("heavy", "The binding key must be an integer: <<\"heavy\">>")):
            with connect() as other:
                queue = exclusive_queue(other.channel())
                error = raises(ChannelClosedByBroker, other.channel().queue_bind, queue, exchange, key)
                equal((error.reply_code, error.reply_text.split(" - ")[-1]), (406, text), "refusal")

        def declare(**arguments):
            return lambda channel: channel.exchange_declare(unique("bad"), "x-consistent-hash", arguments=arguments)

        refused(406, "Unsupported property: app_id", declare(**{"hash-property": "app_id"}))
        refused(406, "hash-header and hash-property are mutually exclusive",
                declare(**{"hash-property": "message_id", "hash-header": "h"}))
    for argument, value, properties in (
            ("hash-header", "user", lambda i: pika.BasicProperties(headers={"user": "u%d" % i})),
            ("hash-header", "number", lambda i: pika.BasicProperties(headers={"number": i})),
            ("hash-property", "correlation_id", lambda i: pika.BasicProperties(correlation_id="c%d" % i)),
            ("hash-property", "message_id", lambda i: pika.BasicProperties(message_id="m%d" % i)),
            ("hash-property", "timestamp", lambda i: pika.BasicProperties(timestamp=i))):
        with exchange_of("x-consistent-hash", **{argument: value}) as (channel, exchange):
            queues = [exclusive_queue(channel) for _ in range(3)]
            for queue in queues:
                channel.queue_bind(queue, exchange, "1")
            found = shares(channel, exchange, queues, [("a", properties(i)) for i in range(40)])
            equal(set(found), set(queues), "queues by %s" % value)
            equal(shares(channel, exchange, queues, [("b", properties(i)) for i in range(40)]), found, "other keys")
            without = shares(channel, exchange, queues, [("k%d" % i, None) for i in range(20)])
            check(len(set(without)) == 1 and None not in without, "without %s all go to one queue" % value)


@case
def modulus_hash():
    with exchange_of("x-modulus-hash") as (channel, exchange):
        queues = [exclusive_queue(channel) for _ in range(3)]
        for queue in queues:
            channel.queue_bind(queue, exchange, "any")
        messages = [("key-%d" % i, None) for i in range(90)]
        found = shares(channel, exchange, queues, messages)
        check(all(found.count(queue) >= 10 for queue in queues), "each queue has a share")
        equal(shares(channel, exchange, queues, messages), found, "queues of the same keys")


@case
def random():
    with exchange_of("x-random") as (channel, exchange):
        queues = [exclusive_queue(channel) for _ in range(3)]
        for queue in queues:
            channel.queue_bind(queue, exchange, "any")
        found = shares(channel, exchange, queues, [("same", None)] * 90)
        check(all(found.count(queue) >= 10 for queue in queues), "each queue has a share")


@case
def local_random():
    with exchange_of("x-local-random") as (channel, exchange):
        queues = [exclusive_queue(channel) for _ in range(3)]
        for queue in queues:
            channel.queue_bind(queue, exchange, "")
        found = shares(channel, exchange, queues, [("", None)] * 90)
        check(all(found.count(queue) >= 10 for queue in queues), "each queue has a share")
        with connect() as other:
            queue = exclusive_queue(other.channel())
            error = raises(ChannelClosedByBroker, other.channel().queue_bind, queue, exchange, "k")
            equal((error.reply_code, error.reply_text.split(" - ")[-1]),
                  (406, "Non empty binding 'k' key not permitted"), "refusal")


@case
def recent_history():
    with exchange_of("x-recent-history", **{"x-recent-history-length": 3}) as (channel, exchange):
        for number in range(5):
            channel.basic_publish(exchange, "k%d" % number, b"%d" % number)
        channel.basic_publish(exchange, "", b"hidden", pika.BasicProperties(headers={"x-recent-history-no-store": True}))
        queue = exclusive_queue(channel)
        channel.queue_bind(queue, exchange)
        wait_until(lambda: ready(channel, queue) == 3, "the history")
        equal([fetch(channel, queue, auto_ack=True)[2] for _ in range(3)], [b"2", b"3", b"4"], "history")
        channel.queue_bind(queue, exchange)  # no new binding
        channel.basic_publish(exchange, "", b"5")
        wait_until(lambda: ready(channel, queue) == 1, "the message")
        method, _, body = fetch(channel, queue, auto_ack=True)
        equal((method.exchange, body), (exchange, b"5"), "message")
        # A bound exchange passes on what it has a binding for.
        direct = unique("direct")
        channel.exchange_declare(direct, auto_delete=True)
        channel.queue_bind(queue, direct, "k3")
        channel.queue_bind(queue, direct, "k4")
        channel.queue_bind(queue, direct, "")
        channel.exchange_bind(direct, exchange)
        wait_until(lambda: ready(channel, queue) == 3, "the history of the bound exchange")
        # RabbitMQ passes them on the newest first.
        equal({fetch(channel, queue, auto_ack=True)[2] for _ in range(3)}, {b"3", b"4", b"5"}, "history")
    for value, shown in ((0, "0"), (-1, "-1"), ("5", "<<\"5\">>")):
        refused(406, "Invalid argument %s, 'x-recent-history-length' must be a positive integer" % shown,
                lambda channel, value=value: channel.exchange_declare(
                    unique("bad"), "x-recent-history", arguments={"x-recent-history-length": value}))


@case
def delayed_messages():
    with exchange_of("x-delayed-message", **{"x-delayed-type": "direct"}) as (channel, exchange):
        queue = exclusive_queue(channel)
        channel.queue_bind(queue, exchange, "k")
        began = time.monotonic()
        for body, delay in ((b"last", 600), (b"first", 200), (b"at once", 0), (b"in the past", -1000)):
            channel.basic_publish(exchange, "k", body, pika.BasicProperties(headers={"x-delay": delay}))
        wait_until(lambda: ready(channel, queue) == 2, "what is not delayed")
        deliveries = consumer(channel, queue, auto_ack=True)
        wait_for(channel.connection, deliveries, 4)
        check(time.monotonic() - began >= 0.6, "the last one came too early")
        equal(bodies(deliveries), [b"at once", b"in the past", b"first", b"last"], "order")
        equal([properties.headers["x-delay"] for _, properties, _ in deliveries], [0, -1000, -200, -600], "delays")
    text = "Invalid argument, 'x-delayed-type' must be an existing exchange type"
    refused(406, text, lambda channel: channel.exchange_declare(unique("bad"), "x-delayed-message"))


@case
def dead_letters():
    """What is rejected waits in a second queue and comes back; its deaths are counted, a client's copy begins anew."""
    with connect() as connection:
        channel = connection.channel()
        retry = unique("retry")
        work = channel.queue_declare("", exclusive=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry}).method.queue
        channel.queue_declare(retry, exclusive=True, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 50})
        channel.basic_publish("", work, b"x", pika.BasicProperties(headers={"mine": 1}, expiration="60000"))
        deliveries = consumer(channel, work)
        for count in range(1, 4):
            wait_for(connection, deliveries, count)
            channel.basic_reject(deliveries[-1][0].delivery_tag, requeue=False)
        wait_for(connection, deliveries, 4)
        method, properties, body = deliveries[-1]
        deaths = [(death["queue"], death["reason"], death["count"]) for death in properties.headers["x-death"]]
        equal(deaths, [(retry, "expired", 3), (work, "rejected", 3)], "deaths")
        first = {name: properties.headers["x-first-death-" + name] for name in ("queue", "reason", "exchange")}
        equal(first, {"queue": work, "reason": "rejected", "exchange": ""}, "first death")
        equal(properties.headers["x-death"][1]["original-expiration"], "60000", "original expiration")
        equal((body, properties.expiration, properties.headers["mine"]), (b"x", None, 1), "message")
        channel.basic_ack(method.delivery_tag)
        # The header of a message that is published again does not grow.
        channel.basic_publish("", work, b"y", pika.BasicProperties(headers=properties.headers))
        wait_for(connection, deliveries, 5)
        channel.basic_reject(deliveries[-1][0].delivery_tag, requeue=False)
        wait_for(connection, deliveries, 6)
        equal(len(deliveries[-1][1].headers["x-death"]), 2, "deaths of the copy")


@case
def jms_selectors():
    selectors = {
        "a": "{'=',{'ident',<<\"colour\">>},<<\"blue\">>}.",
        "b": "{'and',{'>',{'ident',<<\"weight\">>},10},{'<=',{'ident',<<\"weight\">>},20}}.",
        "c": "{'not',{'in',{'ident',<<\"colour\">>},[<<\"blue\">>,<<\"green\">>]}}.",
        "d": "{'like',{'ident',<<\"colour\">>},<<\"%!_r_d\">>,<<\"!\">>}.",
        "e": "{'or',{'is_null',{'ident',<<\"colour\">>}},{'between',{'ident',<<\"weight\">>},1,5}}.",
        "f": "{'ident',<<\"urgent\">>}.",
        "g": "{'=',{'*',{'ident',<<\"weight\">>},2},{'-',{'+',1,31},2}}.",
        "h": "{'not_like',{'ident',<<\"colour\">>},<<\"b%\">>,'no_escape'}.",
    }
    with exchange_of("x-jms-topic") as (channel, exchange):
        queues = {}
        for name, selector in selectors.items():
            queues[name] = exclusive_queue(channel)
            arguments = {"rjms_erlang_selector": selector, "rjms_version": "1.4.0"}
            channel.queue_bind(queues[name], exchange, "topic", arguments)

        def routed(**headers):
            channel.basic_publish(exchange, "other", b"x", pika.BasicProperties(headers=headers))
            return "".join(name for name, q in sorted(queues.items()) if channel.queue_purge(q).method.message_count)

        equal([routed(), routed(colour="blue"), routed(colour="red"), routed(colour="dark_red"), routed(weight=15),
               routed(weight=3, colour="green"), routed(weight=21, colour="brown", urgent=True), routed(urgent=False)],
              ["e", "a", "ch", "cdh", "beg", "eh", "cf", "e"], "queues")


@case
def large_message():
    body = os.urandom(10 * 1024 * 1024)
    for frame_max in (131072, 8192):
        with connect(frame_max=frame_max) as connection:
            channel = connection.channel()
            queue = exclusive_queue(channel)
            channel.confirm_delivery()
            channel.basic_publish("", queue, body, PERSISTENT)
            deliveries = consumer(channel, queue, auto_ack=True)
            wait_for(connection, deliveries, 1)
            equal(hashlib.sha256(deliveries[0][2]).hexdigest(), hashlib.sha256(body).hexdigest(), "hash")
            # Sizes at which the last body frame is full, or one byte too long for it.
            sizes = (0, 1, frame_max - 8, frame_max - 7, 2 * (frame_max - 8))
            for size in sizes:
                channel.basic_publish("", queue, body[:size])
            wait_for(connection, deliveries, 1 + len(sizes))
            for size, received in zip(sizes, bodies(deliveries)[1:]):
                check(received == body[:size], "the body of %d bytes came back differently" % size)


@case
def errors():
    with connect() as connection:
        steady = connection.channel()
        queue = exclusive_queue(steady)
        absent = unique("absent")
        not_found = "NOT_FOUND - no queue '%s' in vhost '/'" % absent

        def refused(code, text, action):
            channel = connection.channel()
            equal_close(raises(ChannelClosedByBroker, action, channel), code, text)
            check(channel.is_closed, "the channel is still open")
            # The connection and its other channels go on.
            steady.basic_publish("", queue, text.encode())
            equal(fetch(steady, queue, auto_ack=True)[2], text.encode(), "message on the other channel")

        refused(404, not_found, lambda ch: ch.basic_consume(absent, lambda *_: None))
        refused(404, not_found, lambda ch: ch.basic_get(absent))
        refused(404, not_found, lambda ch: ch.queue_declare(absent, passive=True))
        refused(404, "NOT_FOUND - no exchange '%s' in vhost '/'" % absent, lambda ch: ch.queue_bind(queue, absent))
        with durable_queue(steady, "durable", **{"x-message-ttl": 1800000}) as durable:
            refused(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s' in vhost '/': received "
                    "'false' but current is 'true'" % durable, lambda ch: ch.queue_declare(durable, durable=False))
            refused(406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '%s' in vhost '/': received "
                    "none but current is the value '1800000' of type 'signedint'" % durable,
                    lambda ch: ch.queue_declare(durable, durable=True))
        refused(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received "
                "'fanout' but current is 'direct'",
                lambda ch: ch.exchange_declare("amq.direct", "fanout", durable=True))
        refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
                lambda ch: ch.queue_declare("amq.mine"))

        def ack_unknown(channel):
            channel.basic_ack(42)
            channel.queue_declare(queue, passive=True)

        refused(406, "PRECONDITION_FAILED - unknown delivery tag 42", ack_unknown)

    error = raises(ProbableAuthenticationError, pika.BlockingConnection, parameters(password="wrong"))
    check("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker "
          "logfile." in str(error) and "403" in str(error), "unexpected refusal: %s" % error)
    error = raises(ProbableAccessDeniedError, pika.BlockingConnection, parameters(virtual_host="absent"))
    check("NOT_ALLOWED - vhost absent not found" in str(error) and "530" in str(error), "unexpected: %s" % error)


@case
def transactions():
    with connect() as connection:
        channel = connection.channel()
        observer = connection.channel()
        with durable_queue(channel, "tx") as queue:
            channel.tx_select()
            publish(channel, queue, [b"1", b"2"])
            equal(ready(observer, queue), 0, "ready messages before commit")
            channel.tx_commit()
            equal(ready(observer, queue), 2, "ready messages after commit")
            publish(channel, queue, [b"3"])
            channel.tx_rollback()
            channel.tx_commit()
            equal(ready(observer, queue), 2, "ready messages after rollback")

            # An ack that was rolled back leaves the message unacked, one that was committed is final.
            first, _, _ = fetch(channel, queue)
            channel.basic_ack(first.delivery_tag)
            channel.tx_rollback()
            second, _, _ = fetch(channel, queue)
            channel.basic_ack(second.delivery_tag)
            channel.tx_commit()
            channel.close()
            method, _, body = fetch(observer, queue)
            equal((body, method.redelivered, method.message_count), (b"1", True, 0), "what is left")

        error = raises(ChannelClosedByBroker, connection.channel().tx_commit)
        equal_close(error, 406, "PRECONDITION_FAILED - channel is not transactional")


@case
def reconnect():
    proxy = Proxy(HOST, PORT)
    with connect() as direct:
        channel = direct.channel()
        with durable_queue(channel, "reconnect") as queue:
            publish(channel, queue, [b"%d" % i for i in range(5)])

            connection = pika.BlockingConnection(parameters(port=proxy.port))
            consuming = connection.channel()
            deliveries = consumer(consuming, queue)
            wait_for(connection, deliveries, 5)
            consuming.basic_ack(deliveries[1][0].delivery_tag, multiple=True)
            # The answer shows that the acks have reached the broker.
            consuming.queue_declare(queue, passive=True)
            proxy.cut()
            raises(StreamLostError, connection.process_data_events, WAIT_LIMIT_S)

            wait_until(lambda: ready(channel, queue) == 3, "the unacked messages to be back")
            with connect(port=proxy.port) as connection:
                deliveries = consumer(connection.channel(), queue)
                wait_for(connection, deliveries, 3)
                equal(bodies(deliveries), [b"2", b"3", b"4"], "bodies after reconnecting")
                equal({m.redelivered for m, _, _ in deliveries}, {True}, "redelivered flags")


case(tutorials.tutorials)

if __name__ == "__main__":
    main()
