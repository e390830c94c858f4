# -*- coding: utf-8 -*-
"""The interop cases with amqplib, which speaks AMQP 0-8. For Python 2.7 and 3."""

from __future__ import print_function

import decimal
import hashlib
import os
import sys
from contextlib import contextmanager
from datetime import datetime

from amqplib import client_0_8 as amqp

from cases import HOST, PORT, case, check, equal, main, not_applicable, raises, unique, wait_until
from proxy import Proxy

# All that 0-8 tables know; bytes that are not UTF-8 could be written, but not read back.
TABLE = {
    "int": -2147483648, "int max": 2147483647,
    "decimal": decimal.Decimal("-12345.6789"), "whole decimal": decimal.Decimal(7),
    "string": u"r\u00e9sum\u00e9 \u5154", "empty string": u"",
    "timestamp": datetime(2020, 2, 29, 12, 34, 56),
    "table": {"nested": {"deeper": 1, "string": u"s"}}, "empty table": {},
}


@contextmanager
def connect(port=PORT, **options):
    # The login is AMQPLAIN, which is amqplib's default.
    connection = amqp.Connection("%s:%d" % (HOST, port), insist=False, **options)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def durable_queue(channel, name):
    """A durable queue; deleted over a connection of its own, as the channel may be closed by then."""
    queue = unique(name)
    channel.queue_declare(queue, durable=True, auto_delete=False)
    try:
        yield queue
    finally:
        with connect() as connection:
            connection.channel().queue_delete(queue)


def exclusive_queue(channel):
    return channel.queue_declare(exclusive=True, auto_delete=False)[0]


def publish(channel, queue, bodies):
    for body in bodies:
        channel.basic_publish(amqp.Message(body, delivery_mode=2), routing_key=queue)


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True)[1]


def consumer(channel, queue, **options):
    """Starts a consumer and returns the list that fills with its messages."""
    messages = []
    channel.basic_consume(queue, callback=messages.append, **options)
    return messages


def wait_for(channel, messages, count):
    while len(messages) < count:
        channel.wait()


def numbered(count):
    return [str(i).encode() for i in range(count)]


def bodies(messages):
    return [message.body for message in messages]


def redelivered(messages):
    return [message.redelivered for message in messages]


def fetch(channel, queue, **options):
    message = channel.basic_get(queue, **options)
    check(message is not None, "the queue is empty")
    return message


not_applicable("publish_confirms", "AMQP 0-8 has no confirm class")


@case
def consume_acks():
    with connect() as connection:
        channel = connection.channel()
        with durable_queue(channel, "acks") as queue:
            expected = numbered(10)
            publish(channel, queue, expected)

            messages = consumer(channel, queue)
            wait_for(channel, messages, 10)
            equal(bodies(messages), expected, "bodies")
            equal([m.delivery_tag for m in messages], list(range(1, 11)), "delivery tags")
            equal(redelivered(messages), [False] * 10, "redelivered flags")
            channel.basic_ack(1)
            channel.basic_ack(4, multiple=True)
            channel.close()

            channel = connection.channel()
            messages = consumer(channel, queue)
            wait_for(channel, messages, 6)
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
            publish(channel, queue, numbered(10))
            channel.basic_qos(0, 3, False)
            messages = consumer(channel, queue)
            wait_for(channel, messages, 3)
            # What the queue handed out beyond the limit would be missing from its ready messages.
            equal(ready(channel, queue), 7, "ready messages")
            for acked in range(1, 4):
                channel.basic_ack(acked)
                wait_for(channel, messages, 3 + acked)
                equal(ready(channel, queue), 7 - acked, "ready messages")
            channel.close()

        channel = connection.channel()
        with durable_queue(channel, "one") as one, durable_queue(channel, "two") as two:
            publish(channel, one, [b"one"] * 10)
            publish(channel, two, [b"two"] * 10)
            channel.basic_qos(0, 3, True)
            messages = consumer(channel, one)
            wait_for(channel, messages, 3)
            channel.basic_consume(two, callback=messages.append)
            equal((ready(channel, one), ready(channel, two)), (7, 10), "ready messages")
            # The ack frees the channel's places for whichever queue is first to take them.
            channel.basic_ack(3, multiple=True)
            wait_for(channel, messages, 6)
            equal(ready(channel, one) + ready(channel, two), 14, "ready messages")
            channel.close()


@case
def get():
    with connect() as connection:
        channel = connection.channel()
        # A ticket is asked for and put into every method, as in the time of realms.
        equal(channel.access_request("/data", active=True, read=True, write=True), 1, "ticket")
        with durable_queue(channel, "get") as queue:
            equal(channel.basic_get(queue), None, "answer of an empty queue")
            publish(channel, queue, [b"first", b"second", b"third"])
            for remaining, body in ((2, b"first"), (1, b"second"), (0, b"third")):
                message = fetch(channel, queue)
                equal((message.body, message.properties), (body, {"delivery_mode": 2}), "message")
                equal((message.message_count, message.redelivered, message.exchange, message.routing_key),
                      (remaining, False, "", queue), "basic.get-ok")
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
            equal((message.body, message.redelivered), (b"1", True), "what was rejected")

            # basic.recover, which has no answer in 0-8, puts back all that is unacked; there is no basic.nack.
            channel.basic_recover(requeue=True)
            again = [fetch(channel, queue) for _ in range(3)]
            equal(bodies(again), [b"1", b"2", b"3"], "bodies after recover")
            equal(redelivered(again), [True, True, False], "redelivered flags")

            channel.basic_reject(again[0].delivery_tag, requeue=False)
            channel.basic_reject(again[1].delivery_tag, requeue=False)
            channel.close()
            channel = connection.channel()
            equal(fetch(channel, queue, no_ack=True).body, b"3", "what is left")
            equal(ready(channel, queue), 0, "ready messages")


@case
def returns():
    with connect() as connection:
        channel = connection.channel()
        body = os.urandom(200000)
        sent = amqp.Message(body, content_type="application/octet-stream", application_headers={"n": 1},
                            message_id="m-1", delivery_mode=2)
        channel.basic_publish(sent, "amq.direct", unique("nowhere"), mandatory=True)
        key = unique("nowhere")
        channel.basic_publish(amqp.Message(b""), "", key, mandatory=True)
        # Both returns come before the answer to this.
        exclusive_queue(channel)
        code, text, exchange, _, message = channel.returned_messages.get(timeout=1)
        equal((code, text, exchange), (312, "NO_ROUTE", "amq.direct"), "basic.return")
        equal(message.properties, sent.properties, "properties")
        check(message.body == body, "another body came back")
        _, _, exchange, routing_key, message = channel.returned_messages.get(timeout=1)
        # On Python 3, amqplib makes an empty body a str.
        equal((exchange, routing_key, len(message.body)), ("", key, 0), "the second return")


def equal_close(error, code, text):
    equal((error.amqp_reply_code, error.amqp_reply_text), (code, text), "close")


def missing(connection, queue):
    error = raises(amqp.AMQPChannelException, connection.channel().queue_declare, queue, passive=True)
    equal_close(error, 404, "NOT_FOUND - no queue '%s' in vhost '/'" % queue)


@case
def exclusive_auto_delete():
    with connect() as other:
        with connect() as connection:
            queue = exclusive_queue(connection.channel())
            check(queue.startswith("amq.gen-") and len(queue) == 30, "server-named queue is called %s" % queue)
            error = raises(amqp.AMQPChannelException, other.channel().queue_declare, queue, passive=True)
            equal_close(error, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost "
                        "'/'. It could be originally declared on another connection or the exclusive property value "
                        "does not match that of the original declaration." % queue)
        missing(other, queue)

        channel = other.channel()
        queue = unique("auto-delete")
        channel.queue_declare(queue, auto_delete=True)
        tags = [channel.basic_consume(queue) for _ in range(2)]
        channel.basic_cancel(tags[0])
        equal(channel.queue_declare(queue, passive=True)[2], 1, "consumers")
        channel.basic_cancel(tags[1])
        missing(other, queue)

        exchange = unique("auto-delete")
        channel.exchange_declare(exchange, "fanout", auto_delete=True)
        queue = exclusive_queue(channel)
        channel.queue_bind(queue, exchange)
        channel.exchange_declare(exchange, "fanout", passive=True)
        channel.queue_unbind(queue, exchange)
        error = raises(amqp.AMQPChannelException, channel.exchange_declare, exchange, "fanout", passive=True)
        equal_close(error, 404, "NOT_FOUND - no exchange '%s' in vhost '/'" % exchange)


@case
def tables():
    sent = amqp.Message(
        b"all types", content_type="application/octet-stream", content_encoding="none of Python's",
        application_headers=TABLE, delivery_mode=2, priority=9, correlation_id="correlation", reply_to="reply",
        expiration="60000", message_id="message", timestamp=datetime(2020, 2, 29, 12, 34, 56), type="type",
        user_id="guest", app_id="app", cluster_id="cluster")
    equal(len(sent.properties), 14, "properties in the test")
    with connect() as connection:
        channel = connection.channel()
        exchange = unique("tables")
        # Any name is allowed in arguments, and none of these is one that the broker knows.
        channel.exchange_declare(exchange, "headers", auto_delete=True, arguments=TABLE)
        queue = unique("tables")
        for _ in range(2):
            declared, _, _ = channel.queue_declare(queue, exclusive=True, auto_delete=False, arguments=TABLE)
            equal(declared, queue, "declared queue")

        # The headers exchange routes only if binding and message carry the same values of the same types.
        channel.queue_bind(queue, exchange, arguments=dict(TABLE, **{"x-match": "all"}))
        channel.basic_publish(sent, exchange)
        message = fetch(channel, queue, no_ack=True)
        equal(message.body, b"all types", "body")
        equal(message.application_headers, TABLE, "headers")
        for name, value in TABLE.items():
            equal(type(message.application_headers[name]), type(value), "type of the header " + name)
        equal(message.properties, sent.properties, "properties")

        for name in TABLE:
            other = amqp.Message(b"", application_headers=dict(TABLE, **{name: "another"}))
            channel.basic_publish(other, exchange, mandatory=True)
        equal(ready(channel, queue), 0, "ready messages")
        equal(channel.returned_messages.qsize(), len(TABLE), "returned messages")

        channel.queue_unbind(queue, exchange, arguments=dict(TABLE, **{"x-match": "all"}))
        raises(amqp.AMQPChannelException, channel.exchange_declare, exchange, "headers", passive=True)


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
            channel.basic_publish(amqp.Message(b"x", application_headers=headers), to, key)
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

        # Exchange-to-exchange bindings came with 0-9-1; alternate exchanges are an argument like any other.
        main_exchange = exchange("direct", arguments={"alternate-exchange": fanout})
        channel.queue_bind(queue("l"), main_exchange, "known")
        equal([routed(main_exchange, k) for k in ("known", "unknown")], ["l", "cd"], "alternate exchange")

        for name in declared:
            channel.exchange_delete(name)


@case
def large_message():
    # amqplib accepts the frame_max that the server offers; it has no setting for a smaller one.
    body = os.urandom(10 * 1024 * 1024)
    with connect() as connection:
        channel = connection.channel()
        queue = exclusive_queue(channel)
        publish(channel, queue, [body])
        messages = consumer(channel, queue, no_ack=True)
        wait_for(channel, messages, 1)
        equal(hashlib.sha256(messages[0].body).hexdigest(), hashlib.sha256(body).hexdigest(), "hash")
        frame_max = connection.frame_max
        # Sizes at which the last body frame is full, or one byte too long for it.
        sizes = (0, 1, frame_max - 8, frame_max - 7, 2 * (frame_max - 8))
        publish(channel, queue, [body[:size] for size in sizes])
        wait_for(channel, messages, 1 + len(sizes))
        for size, message in zip(sizes, messages[1:]):
            check((message.body or b"") == body[:size], "the body of %d bytes came back differently" % size)


@case
def errors():
    with connect() as connection:
        steady = connection.channel()
        queue = exclusive_queue(steady)
        absent = unique("absent")
        not_found = "NOT_FOUND - no queue '%s' in vhost '/'" % absent

        def refused(code, text, action):
            channel = connection.channel()
            equal_close(raises(amqp.AMQPChannelException, action, channel), code, text)
            # The connection and its other channels go on.
            publish(steady, queue, [text.encode()])
            equal(fetch(steady, queue, no_ack=True).body, text.encode(), "message on the other channel")

        refused(404, not_found, lambda ch: ch.basic_consume(absent))
        refused(404, not_found, lambda ch: ch.basic_get(absent))
        refused(404, not_found, lambda ch: ch.queue_declare(absent, passive=True))
        refused(404, "NOT_FOUND - no exchange '%s' in vhost '/'" % absent, lambda ch: ch.queue_bind(queue, absent))
        with durable_queue(steady, "durable") as durable:
            refused(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s' in vhost '/': received "
                    "'false' but current is 'true'" % durable, lambda ch: ch.queue_declare(durable, auto_delete=False))
            refused(406, "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '%s' in vhost '/': received "
                    "'true' but current is 'false'" % durable, lambda ch: ch.queue_declare(durable, durable=True))
        refused(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received "
                "'fanout' but current is 'direct'",
                lambda ch: ch.exchange_declare("amq.direct", "fanout", durable=True, auto_delete=False))
        refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
                lambda ch: ch.queue_declare("amq.mine"))

        def ack_unknown(channel):
            channel.basic_ack(42)
            channel.queue_declare(queue, passive=True)

        refused(406, "PRECONDITION_FAILED - unknown delivery tag 42", ack_unknown)

    def open_connection(**options):
        with connect(**options):
            pass

    # A client of that time announces no capabilities, so all it is told of a refused login is that the socket closes.
    raises(IOError, open_connection, password="wrong")
    equal_close(raises(amqp.AMQPConnectionException, open_connection, virtual_host="absent"),
                530, "NOT_ALLOWED - vhost absent not found")
    open_connection(login_method="PLAIN", login_response="\0guest\0guest")


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
            equal((message.body, message.redelivered, message.message_count), (b"1", True, 0), "what is left")

        equal_close(raises(amqp.AMQPChannelException, connection.channel().tx_commit),
                    406, "PRECONDITION_FAILED - channel is not transactional")


@case
def reconnect():
    proxy = Proxy(HOST, PORT)
    with connect() as direct:
        channel = direct.channel()
        with durable_queue(channel, "reconnect") as queue:
            publish(channel, queue, numbered(5))

            connection = amqp.Connection("%s:%d" % (proxy.host, proxy.port))
            consuming = connection.channel()
            messages = consumer(consuming, queue)
            wait_for(consuming, messages, 5)
            consuming.basic_ack(messages[1].delivery_tag, multiple=True)
            # The answer shows that the acks have reached the broker.
            ready(consuming, queue)
            proxy.cut()
            raises(EnvironmentError, consuming.wait)

            wait_until(lambda: ready(channel, queue) == 3, "the unacked messages to be back")
            with connect(proxy.port) as connection:
                consuming = connection.channel()
                messages = consumer(consuming, queue)
                wait_for(consuming, messages, 3)
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
        name, _, _ = channel.queue_declare(unique("hello"), auto_delete=True)
        channel.basic_publish(amqp.Message(u"Hello W\u00f6rld!"), routing_key=name)
        messages = consumer(channel, name, no_ack=True, consumer_tag="hello")
        wait_for(channel, messages, 1)
        equal((messages[0].body, messages[0].content_encoding), (u"Hello W\u00f6rld!", "UTF-8"), "hello world")
        channel.basic_cancel("hello")


def work_queues():
    tasks = [b"task 0", b"task 1", b"task 2", b"task 3"]
    with connect() as sender, durable_queue(sender.channel(), "tasks") as queue:
        with connect() as first, connect() as second:
            done = []
            channels = [worker.channel() for worker in (first, second)]
            for channel in channels:
                channel.basic_qos(0, 1, False)

                def work(message):
                    done.append(message.body)
                    message.channel.basic_ack(message.delivery_tag)

                channel.basic_consume(queue, callback=work)
            publish(sender.channel(), queue, tasks)
            # As each worker has one unacked task at most, each gets one of the first two, and one more for its ack.
            for channel in channels:
                channel.wait()
                # The answer tells that the ack before it has arrived, so that neither worker can be ahead by one.
                channel.basic_qos(0, 1, False)
            for channel in channels:
                channel.wait()
            equal(sorted(done), tasks, "tasks")


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
        while not all(messages and messages[-1].routing_key == "end" for messages in received):
            channel.wait()
        channel.exchange_delete(exchange)
        for messages in received:
            for message in messages:
                equal(message.body, b"log of " + message.routing_key.encode(), "body")
        return [[message.routing_key for message in messages[:-1]] for messages in received]


def rpc(reply_queue_on):
    with connect() as server, connect() as client:
        requests = server.channel()
        # The client may publish to it all the same: only the queue's own methods are for its connection alone.
        rpc_queue = exclusive_queue(requests)
        served = []

        def answer(request):
            reply = amqp.Message(str(int(request.body) ** 2).encode(), correlation_id=request.correlation_id)
            requests.basic_publish(reply, routing_key=request.reply_to)
            requests.basic_ack(request.delivery_tag)
            served.append(request)

        requests.basic_consume(rpc_queue, callback=answer)

        channel = client.channel()
        reply_to = reply_queue_on(channel)
        replies = consumer(channel, reply_to, no_ack=True)
        for n in (3, 4):
            request = amqp.Message(str(n).encode(), reply_to=reply_to, correlation_id="call-%d" % n)
            channel.basic_publish(request, routing_key=rpc_queue)
        wait_for(requests, served, 2)
        wait_for(channel, replies, 2)
        equal({m.correlation_id: m.body for m in replies}, {"call-3": b"9", "call-4": b"16"}, "replies")


if __name__ == "__main__":
    print("amqplib from %s on Python %s" % (os.path.dirname(amqp.__file__), sys.version.split()[0]), file=sys.stderr)
    main()
