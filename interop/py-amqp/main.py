"""The interop cases with py-amqp, the library under kombu and Celery."""

import decimal
import hashlib
import os
import socket
from contextlib import contextmanager
from datetime import datetime

import amqp

from cases import HOST, PORT, WAIT_LIMIT_S, case, check, equal, main, raises, unique, wait_until
from proxy import Proxy

# py-amqp writes bytes as `S` like strings, integers as `I` or `L`, and floats as `d`.
TABLE = {
    "true": True, "false": False,
    "int": -2147483647, "int max": 2147483647,
    "long": -9223372036854775808, "long max": 9223372036854775807,
    "double": 3.141592653589793, "negative double": -1e300,
    "decimal": decimal.Decimal("-12345.6789"), "whole decimal": decimal.Decimal(7),
    "string": "r\u00e9sum\u00e9 \u5154", "empty string": "", "bytes": b"\x00\xff\xce",
    "timestamp": datetime(2038, 1, 19, 3, 14, 8),
    "void": None,
    "table": {"nested": {"deeper": [1, "two", None]}}, "empty table": {},
    "array": [True, 2**40, "three", None, [5, [6.5]], {"seven": 7}, decimal.Decimal("8.9")], "empty array": [],
}


@contextmanager
def connect(port=PORT, **options):
    connection = amqp.Connection("%s:%d" % (HOST, port), connect_timeout=WAIT_LIMIT_S, **options)
    connection.connect()
    try:
        yield connection
    finally:
        if connection.connected:
            connection.close()


@contextmanager
def durable_queue(channel, name, **arguments):
    """A durable classic queue; deleted over a connection of its own, as the channel may be closed by then."""
    queue = unique(name)
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
    try:
        yield queue
    finally:
        with connect() as connection:
            connection.channel().queue_delete(queue)


def exclusive_queue(channel):
    return channel.queue_declare(exclusive=True, auto_delete=False).queue


def publish(channel, queue, bodies):
    for body in bodies:
        channel.basic_publish(amqp.Message(body, delivery_mode=2), routing_key=queue)


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True).message_count


def consumer(channel, queue, **options):
    """Starts a consumer and returns the list that fills with its messages."""
    messages = []
    channel.basic_consume(queue, callback=messages.append, **options)
    return messages


def drain_until(connections, condition, what):
    def step():
        for connection in connections:
            try:
                connection.drain_events(timeout=0.1)
            except socket.timeout:
                pass

    wait_until(condition, what, step)


def wait_for(connection, messages, count):
    drain_until([connection], lambda: len(messages) >= count, "%d messages" % count)


def bodies(messages):
    return [message_bytes(message) for message in messages]


def message_bytes(message):
    """The body as bytes: py-amqp decodes what says content_encoding, which str bodies set to utf-8."""
    return message.body.encode() if isinstance(message.body, str) else bytes(message.body)


def redelivered(messages):
    return [message.delivery_info["redelivered"] for message in messages]


def fetch(channel, queue, **options):
    message = channel.basic_get(queue, **options)
    check(message is not None, "the queue is empty")
    return message


@case
def publish_confirms():
    with connect(confirm_publish=True) as connection:
        channel = connection.channel()
        with durable_queue(channel, "confirms") as queue:
            acked = []
            channel.events["basic_ack"].add(lambda tag, multiple: acked.append((tag, multiple)))
            # With confirm_publish, basic_publish returns once the broker has acked.
            publish(channel, queue, [b"%d" % i for i in range(100)])
            equal(acked, [(i, False) for i in range(1, 101)], "acks")
            equal(ready(channel, queue), 100, "ready messages")

            events = []
            channel.events["basic_ack"].add(lambda tag, multiple: events.append("ack"))
            channel.events["basic_return"].add(lambda error, exchange, key, message: events.append("return"))
            channel.basic_publish(amqp.Message(b"lost"), routing_key=unique("nowhere"), mandatory=True)
            equal(events, ["return", "ack"], "events of an unroutable message")

    with connect() as connection:
        channel = connection.channel()
        queue = exclusive_queue(channel)
        channel.confirm_select()
        acked = set()
        channel.events["basic_ack"].add(
            lambda tag, multiple: acked.update(range(1 if multiple else tag, tag + 1)))
        publish(channel, queue, [b"%d" % i for i in range(500)])
        drain_until([connection], lambda: len(acked) >= 500, "500 acks")
        equal(acked, set(range(1, 501)), "acked sequence numbers")


@case
def consume_acks():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "acks") as queue:
            expected = [b"%d" % i for i in range(10)]
            publish(channel, queue, expected)

            messages = consumer(channel, queue)
            wait_for(connection, messages, 10)
            equal(bodies(messages), expected, "bodies")
            equal([m.delivery_tag for m in messages], list(range(1, 11)), "delivery tags")
            equal(redelivered(messages), [False] * 10, "redelivered flags")
            channel.basic_ack(1)
            channel.basic_ack(4, multiple=True)
            channel.close()

            channel = connection.channel()
            messages = consumer(channel, queue)
            wait_for(connection, messages, 6)
            equal(bodies(messages), expected[4:], "bodies after the channel closed")
            equal(redelivered(messages), [True] * 6, "redelivered flags")
            channel.basic_ack(0, multiple=True)
            channel.close()

            equal(ready(connection.channel(), queue), 0, "ready messages")


@case
def prefetch():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "prefetch") as queue:
            publish(channel, queue, [b"%d" % i for i in range(10)])
            channel.basic_qos(0, 3, False)
            messages = consumer(channel, queue)
            wait_for(connection, messages, 3)
            # What the queue handed out beyond the limit would be missing from its ready messages.
            equal(ready(channel, queue), 7, "ready messages")
            for acked in range(1, 4):
                channel.basic_ack(acked)
                wait_for(connection, messages, 3 + acked)
                equal(ready(channel, queue), 7 - acked, "ready messages")
                equal(len(messages), 3 + acked, "messages")
            channel.close()

        channel = connection.channel()
        with durable_queue(channel, "one") as one, durable_queue(channel, "two") as two:
            publish(channel, one, [b"one"] * 10)
            publish(channel, two, [b"two"] * 10)
            channel.basic_qos(0, 3, True)
            first = consumer(channel, one)
            wait_for(connection, first, 3)
            second = consumer(channel, two)
            equal((ready(channel, one), ready(channel, two), len(second)), (7, 10, 0), "ready and delivered")
            # The acks free the channel's places for whichever queue is first to take them.
            channel.basic_ack(3, multiple=True)
            drain_until([connection], lambda: len(first) + len(second) >= 6, "6 messages")
            equal(ready(channel, one) + ready(channel, two), 14, "ready messages")
            equal(len(first) + len(second), 6, "messages")
            # Else the deletion of the queues would cancel the consumers, which py-amqp raises as an error.
            channel.close()


@case
def get():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "get") as queue:
            equal(channel.basic_get(queue), None, "answer of an empty queue")
            publish(channel, queue, [b"first", b"second", b"third"])
            for remaining, body in ((2, b"first"), (1, b"second"), (0, b"third")):
                message = fetch(channel, queue)
                equal((message_bytes(message), message.properties), (body, {"delivery_mode": 2}), "message")
                equal({name: message.delivery_info[name] for name in ("message_count", "redelivered", "exchange",
                                                                      "routing_key")},
                      {"message_count": remaining, "redelivered": False, "exchange": "", "routing_key": queue},
                      "basic.get-ok")
                channel.basic_ack(message.delivery_tag)
            equal(channel.basic_get(queue), None, "answer of the emptied queue")


@case
def reject_requeue():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "reject") as queue:
            publish(channel, queue, [b"1", b"2", b"3"])

            first = fetch(channel, queue)
            fetch(channel, queue)
            channel.basic_reject(first.delivery_tag, requeue=True)
            message = fetch(channel, queue)
            equal((message_bytes(message), redelivered([message])), (b"1", [True]), "what was rejected")

            # basic.recover puts everything unacked back; py-amqp has no basic.nack.
            channel.basic_recover(requeue=True)
            again = [fetch(channel, queue) for _ in range(3)]
            equal(bodies(again), [b"1", b"2", b"3"], "bodies after recover")
            equal(redelivered(again), [True, True, False], "redelivered flags")

            channel.basic_reject(again[0].delivery_tag, requeue=False)
            channel.basic_reject(again[1].delivery_tag, requeue=False)
            channel.close()
            channel = connection.channel()
            equal(bodies([fetch(channel, queue, no_ack=True)]), [b"3"], "what is left")
            equal(ready(channel, queue), 0, "ready messages")


@case
def returns():
    with connect() as connection:
        channel = connection.channel()
        returned = []
        channel.events["basic_return"].add(lambda *message: returned.append(message))
        body = os.urandom(200000)
        sent = amqp.Message(body, content_type="application/octet-stream", application_headers={"n": 1},
                            message_id="m-1", delivery_mode=2)
        channel.basic_publish(sent, "amq.direct", unique("nowhere"), mandatory=True)
        key = unique("nowhere")
        channel.basic_publish(amqp.Message(b""), "", key, mandatory=True)
        wait_for(connection, returned, 2)
        error, exchange, _, message = returned[0]
        equal((error.reply_code, error.reply_text, exchange), (312, "NO_ROUTE", "amq.direct"), "basic.return")
        equal(message.properties, sent.properties, "properties")
        check(message_bytes(message) == body, "another body came back")
        _, exchange, routing_key, message = returned[1]
        equal((exchange, routing_key, message_bytes(message)), ("", key, b""), "the second return")


def equal_close(error, code, text):
    equal((error.reply_code, error.reply_text), (code, text), "close")


def missing(channel, queue):
    error = raises(amqp.NotFound, channel.queue_declare, queue, passive=True)
    equal_close(error, 404, "NOT_FOUND - no queue '%s' in vhost '/'" % queue)


@case
def exclusive_auto_delete():
    with connect() as other:
        channel = other.channel()
        with connect() as connection:
            queue = exclusive_queue(connection.channel())
            check(queue.startswith("amq.gen-") and len(queue) == 30, "server-named queue is called %s" % queue)
            error = raises(amqp.ResourceLocked, channel.queue_declare, queue, passive=True)
            equal_close(error, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost "
                        "'/'. It could be originally declared on another connection or the exclusive property value "
                        "does not match that of the original declaration." % queue)
        # py-amqp has reopened the channel, under its old number, as soon as it was closed.
        missing(channel, queue)

        queue = unique("auto-delete")
        channel.queue_declare(queue, auto_delete=True)
        tags = [channel.basic_consume(queue) for _ in range(2)]
        channel.basic_cancel(tags[0])
        equal(channel.queue_declare(queue, passive=True).consumer_count, 1, "consumers")
        channel.basic_cancel(tags[1])
        missing(channel, queue)

        exchange = unique("auto-delete")
        channel.exchange_declare(exchange, "fanout", auto_delete=True)
        queue = exclusive_queue(channel)
        channel.queue_bind(queue, exchange)
        channel.exchange_declare(exchange, "fanout", passive=True)
        channel.queue_unbind(queue, exchange)
        error = raises(amqp.NotFound, channel.exchange_declare, exchange, "fanout", passive=True)
        equal_close(error, 404, "NOT_FOUND - no exchange '%s' in vhost '/'" % exchange)


@case
def tables():
    sent = amqp.Message(
        b"all types", content_type="text/plain; charset=utf-8", content_encoding="identity", application_headers=TABLE,
        delivery_mode=2, priority=9, correlation_id="correlation", reply_to="reply", expiration="60000",
        message_id="message", timestamp=2**40, type="type", user_id="guest", app_id="app", cluster_id="cluster")
    equal(len(sent.properties), 14, "properties in the test")
    with connect(confirm_publish=True) as connection:
        channel = connection.channel()
        returned = []
        channel.events["basic_return"].add(lambda *message: returned.append(message))
        exchange = unique("tables")
        # Any name is allowed in arguments, and none of these is one that the broker knows.
        channel.exchange_declare(exchange, "headers", auto_delete=True, arguments=TABLE)
        queue = unique("tables")
        for _ in range(2):
            declared = channel.queue_declare(queue, exclusive=True, auto_delete=False, arguments=TABLE)
            equal(declared.queue, queue, "declared queue")

        # The headers exchange routes only if binding and message carry the same values of the same types.
        channel.queue_bind(queue, exchange, arguments=dict(TABLE, **{"x-match": "all"}))
        channel.basic_publish(sent, exchange, mandatory=True)
        message = fetch(channel, queue, no_ack=True)
        equal(message_bytes(message), b"all types", "body")
        # What is not UTF-8 comes back as the slice of the receive buffer that it is.
        headers = {name: bytes(value) if isinstance(value, memoryview) else value
                   for name, value in message.headers.items()}
        equal(headers, TABLE, "headers")
        for name, value in TABLE.items():
            equal(type(headers[name]), type(value), "type of the header " + name)
        equal(dict(message.properties, application_headers=TABLE), sent.properties, "properties")

        equal(returned, [], "returned messages")
        changed = [name for name in TABLE if TABLE[name] is not None]  # void asks for nothing but presence
        for name in changed:
            other = amqp.Message(b"", application_headers=dict(TABLE, **{name: "another"}))
            channel.basic_publish(other, exchange, mandatory=True)
        equal(len(returned), len(changed), "returned messages")

        channel.queue_unbind(queue, exchange, arguments=dict(TABLE, **{"x-match": "all"}))
        raises(amqp.NotFound, channel.exchange_declare, exchange, "headers", passive=True)


@case
def exchanges():
    with connect() as connection:
        channel = connection.channel()
        declared = []

        def exchange(kind, **options):
            name = unique("%s-%d" % (kind, len(declared)))
            declared.append(name)
            channel.exchange_declare(name, kind, auto_delete=False, **options)
            return name

        queues = {}

        def queue(name):
            queues[name] = exclusive_queue(channel)
            return queues[name]

        def routed(to, key="", **headers):
            """Publishes, and returns the names of the queues that got the message."""
            channel.basic_publish(amqp.Message("x", application_headers=headers), to, key)
            # The publishes of a channel are routed before its next synchronous method is answered.
            return "".join(name for name, q in sorted(queues.items()) if channel.queue_purge(q))

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
        channel.queue_bind(queue("j"), headers, arguments={"x-match": "all", "type": "report", "pages": 2})
        channel.queue_bind(queue("k"), headers, arguments={"x-match": "any", "type": "report", "pages": 2})
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


@case
def large_message():
    body = os.urandom(10 * 1024 * 1024)
    for frame_max in (131072, 8192):
        with connect(frame_max=frame_max, confirm_publish=True) as connection:
            channel = connection.channel()
            queue = exclusive_queue(channel)
            channel.basic_publish(amqp.Message(body, delivery_mode=2), routing_key=queue)
            messages = consumer(channel, queue, no_ack=True)
            wait_for(connection, messages, 1)
            equal(hashlib.sha256(message_bytes(messages[0])).hexdigest(), hashlib.sha256(body).hexdigest(), "hash")
            # Sizes at which the last body frame is full, or one byte too long for it.
            sizes = (0, 1, frame_max - 8, frame_max - 7, 2 * (frame_max - 8))
            for size in sizes:
                channel.basic_publish(amqp.Message(body[:size]), routing_key=queue)
            wait_for(connection, messages, 1 + len(sizes))
            for size, message in zip(sizes, messages[1:]):
                check(message_bytes(message) == body[:size], "the body of %d bytes came back differently" % size)


@case
def errors():
    with connect() as connection:
        steady = connection.channel()
        queue = exclusive_queue(steady)
        absent = unique("absent")
        not_found = "NOT_FOUND - no queue '%s' in vhost '/'" % absent
        channel = connection.channel()

        def refused(code, text, method, *args, **kwargs):
            # py-amqp reopens the channel by itself, so the next error is one of the same channel.
            equal_close(raises(amqp.ChannelError, method, *args, **kwargs), code, text)
            # The connection and its other channels go on.
            publish(steady, queue, [text.encode()])
            equal(message_bytes(fetch(steady, queue, no_ack=True)), text.encode(), "message on the other channel")

        refused(404, not_found, channel.basic_consume, absent)
        refused(404, not_found, channel.basic_get, absent)
        refused(404, not_found, channel.queue_declare, absent, passive=True)
        refused(404, "NOT_FOUND - no exchange '%s' in vhost '/'" % absent, channel.queue_bind, queue, absent)
        with durable_queue(steady, "durable") as durable:
            refused(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s' in vhost '/': received "
                    "'false' but current is 'true'" % durable, channel.queue_declare, durable, auto_delete=False)
            refused(406, "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '%s' in vhost '/': received "
                    "'true' but current is 'false'" % durable, channel.queue_declare, durable, durable=True)
        refused(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received "
                "'fanout' but current is 'direct'", channel.exchange_declare, "amq.direct", "fanout", durable=True,
                auto_delete=False)
        refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
                channel.queue_declare, "amq.mine")

        def ack_unknown():
            channel.basic_ack(42)
            channel.queue_declare(queue, passive=True)

        refused(406, "PRECONDITION_FAILED - unknown delivery tag 42", ack_unknown)

    def open_connection(**options):
        with connect(**options):
            pass

    for method in ("PLAIN", "AMQPLAIN"):
        equal_close(raises(amqp.AccessRefused, open_connection, password="wrong", login_method=method),
                    403, "ACCESS_REFUSED - Login was refused using authentication mechanism %s. For details see the "
                    "broker logfile." % method)
        open_connection(login_method=method)
    equal_close(raises(amqp.NotAllowed, open_connection, virtual_host="absent"),
                530, "NOT_ALLOWED - vhost absent not found")


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
            channel.basic_ack(fetch(channel, queue).delivery_tag)
            channel.tx_rollback()
            channel.basic_ack(fetch(channel, queue).delivery_tag)
            channel.tx_commit()
            channel.close()
            message = fetch(observer, queue)
            equal((message_bytes(message), redelivered([message])), (b"1", [True]), "what is left")
            equal(ready(observer, queue), 0, "ready messages")

        equal_close(raises(amqp.PreconditionFailed, connection.channel().tx_commit),
                    406, "PRECONDITION_FAILED - channel is not transactional")


@case
def reconnect():
    proxy = Proxy(HOST, PORT)
    with connect() as direct:
        channel = direct.channel()
        with durable_queue(channel, "reconnect") as queue:
            publish(channel, queue, [b"%d" % i for i in range(5)])

            connection = amqp.Connection("%s:%d" % (proxy.host, proxy.port))
            connection.connect()
            consuming = connection.channel()
            messages = consumer(consuming, queue)
            wait_for(connection, messages, 5)
            consuming.basic_ack(messages[1].delivery_tag, multiple=True)
            # The answer shows that the acks have reached the broker.
            ready(consuming, queue)
            proxy.cut()
            raises(connection.recoverable_connection_errors, connection.drain_events, timeout=WAIT_LIMIT_S)
            connection.collect()

            wait_until(lambda: ready(channel, queue) == 3, "the unacked messages to be back")
            with connect(proxy.port) as connection:
                messages = consumer(connection.channel(), queue)
                wait_for(connection, messages, 3)
                equal(bodies(messages), [b"2", b"3", b"4"], "bodies after reconnecting")
                equal(redelivered(messages), [True] * 3, "redelivered flags")


@case
def tutorials():
    hello_world()
    work_queues()
    equal(emit_and_collect("fanout", [[""], [""]], ["info"]), [["info"], ["info"]], "publish/subscribe")
    equal(emit_and_collect("direct", [["error"], ["info", "error"]], ["info", "warning", "error"]),
          [["error"], ["info", "error"]], "routing")
    equal(emit_and_collect("topic", [["#"], ["kern.*"], ["*.critical"]], ["kern.critical", "kern", "cron.critical"]),
          [["kern.critical", "kern", "cron.critical"], ["kern.critical"], ["kern.critical", "cron.critical"]], "topics")
    rpc(lambda channel: exclusive_queue(channel))
    rpc(lambda channel: "amq.rabbitmq.reply-to")


def hello_world():
    with connect() as connection:
        channel = connection.channel()
        name = unique("hello")
        channel.queue_declare(name)
        channel.basic_publish(amqp.Message("Hello World!"), routing_key=name)
        messages = consumer(channel, name, no_ack=True)
        wait_for(connection, messages, 1)
        equal(messages[0].body, "Hello World!", "hello world")
        equal(messages[0].properties, {"content_encoding": "utf-8"}, "properties")
        # The queue goes away under the consumer, which this client has asked to be told.
        with connect() as other:
            other.channel().queue_delete(name)
        raises(amqp.ConsumerCancelled, connection.drain_events, timeout=WAIT_LIMIT_S)


def work_queues():
    tasks = [b"task %d" % i for i in range(6)]
    with connect() as sender, durable_queue(sender.channel(), "tasks") as queue:
        with connect() as first, connect() as second:
            done = {first: [], second: []}
            for worker in done:
                channel = worker.channel()
                channel.basic_qos(0, 1, False)

                def work(message, worker=worker):
                    done[worker].append(message_bytes(message))
                    message.channel.basic_ack(message.delivery_tag)

                channel.basic_consume(queue, callback=work)
            publish(sender.channel(), queue, tasks)
            drain_until([first, second], lambda: len(done[first] + done[second]) >= len(tasks), "all tasks")
            equal(sorted(done[first] + done[second]), tasks, "tasks")
            check(done[first] and done[second], "one worker did everything: %s" % done)


def emit_and_collect(kind, subscriptions, keys):
    """Publishes one message per key, and returns the keys of those that each subscription got."""
    with connect() as connection:
        channel = connection.channel()
        exchange = unique("logs")
        channel.exchange_declare(exchange, kind, auto_delete=False)
        received = []
        for bindings in subscriptions:
            queue = exclusive_queue(channel)
            # The last binding lets the end of the log be recognised.
            for key in bindings + ["end"]:
                channel.queue_bind(queue, exchange, key)
            received.append(consumer(channel, queue, no_ack=True))
        for key in keys + ["end"]:
            channel.basic_publish(amqp.Message(b"log of " + key.encode()), exchange, key)
        drain_until([connection], lambda: all(m and m[-1].delivery_info["routing_key"] == "end" for m in received),
                    "the end of the logs")
        channel.exchange_delete(exchange)
        for messages in received:
            for message in messages:
                equal(message_bytes(message), b"log of " + message.delivery_info["routing_key"].encode(), "body")
        return [[message.delivery_info["routing_key"] for message in messages[:-1]] for messages in received]


def rpc(reply_queue_on):
    with connect() as server, connect() as client:
        requests = server.channel()
        rpc_queue = exclusive_queue(requests)
        # The client may publish to it all the same: only the queue's own methods are for its connection alone.

        def answer(request):
            reply = amqp.Message(b"%d" % (int(request.body) ** 2),
                                 correlation_id=request.properties["correlation_id"])
            requests.basic_publish(reply, routing_key=request.properties["reply_to"])
            requests.basic_ack(request.delivery_tag)

        served = []
        requests.basic_consume(rpc_queue, callback=lambda request: (answer(request), served.append(request)))

        channel = client.channel()
        reply_to = reply_queue_on(channel)
        replies = consumer(channel, reply_to, no_ack=True)
        for n in (3, 4):
            request = amqp.Message(b"%d" % n, reply_to=reply_to, correlation_id="call-%d" % n)
            channel.basic_publish(request, routing_key=rpc_queue)
        wait_for(server, served, 2)
        wait_for(client, replies, 2)
        equal({m.properties["correlation_id"]: message_bytes(m) for m in replies},
              {"call-3": b"9", "call-4": b"16"}, "replies")


if __name__ == "__main__":
    main()
