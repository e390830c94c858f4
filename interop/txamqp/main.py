"""The interop cases with txAMQP, whose API is made from the spec that it is given: 0-8, 0-9 or 0-9-1.

    main.py HOST PORT SPEC
"""

import hashlib
import os
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import txamqp
from twisted.internet import reactor, threads
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from txamqp.client import ChannelClosed, Closed, ConnectionClosed, TwistedDelegate
from txamqp.content import Content
from txamqp.factory import AMQFactory
from txamqp.queue import Closed as QueueClosed

from cases import CASE_LIMIT_S, HOST, PORT, WAIT_LIMIT_S, case, check, equal, main, not_applicable, unique
from proxy import Proxy

SPEC = sys.argv[3]
SPEC_FILE = str(Path(txamqp.__file__).parent / ("specs/standard/amqp%s.stripped.xml" % SPEC))

# 0-8 writes the names of properties with blanks.
HYPHEN = " " if SPEC == "0-8" else "-"
# 0-9-1 took these fields away from clients, but brokers go on reading them.
AUTO_DELETE = "reserved_2" if SPEC == "0-9-1" else "auto_delete"
# Its recover is synchronous, and txAMQP does not know recover-ok for the answer.
RECOVER = "basic_recover_async" if SPEC == "0-9-1" else "basic_recover"
HAS_UNBIND = SPEC != "0-8"

# txAMQP can write more (bytes, void, arrays) than it can read back, which is S, I, F and t; integers are unsigned.
TABLE = {"zero": 0, "int": 2147483647, "string": "r\u00e9sum\u00e9".encode(), "empty string": ""}
READ_BACK = dict(TABLE, string="r\u00e9sum\u00e9")
WRITABLE = dict(TABLE, void=None, array=[1, "two", None, [3]], bytes=b"\x00\xff\xce")


class Delegate(TwistedDelegate):
    """The standard one accepts the frame_max that the broker offers."""

    frame_max = None

    def connection_tune(self, channel, message):
        self.client.MAX_LENGTH = self.frame_max or message.frame_max
        channel.connection_tune_ok(message.channel_max, self.client.MAX_LENGTH, self.client.heartbeatInterval)
        self.client.started.fire()


class Factory(AMQFactory):
    frame_max = None

    def buildProtocol(self, address):
        client = super().buildProtocol(address)
        client.delegate = Delegate()
        client.delegate.frame_max = self.frame_max
        client.delegate.client = client
        return client


async def open_client(port=PORT, password="guest", mechanism="AMQPLAIN", vhost="/", frame_max=None, heartbeat=0):
    factory = Factory(spec=SPEC_FILE)
    factory.set_vhost(vhost)
    factory.set_heartbeat(heartbeat)
    factory.frame_max = frame_max
    client = await HostnameEndpoint(reactor, HOST.encode(), port, timeout=WAIT_LIMIT_S).connect(factory)
    await client.authenticate("guest", password, mechanism)
    client.next_channel = 1
    return client


@asynccontextmanager
async def connect(**options):
    client = await open_client(**options)
    try:
        yield client
    finally:
        await client.close(within=WAIT_LIMIT_S)


async def open_channel(client):
    channel = await client.channel(client.next_channel)
    client.next_channel += 1
    await channel.channel_open()
    return channel


@asynccontextmanager
async def durable_queue(channel, name):
    """A durable queue; deleted over a connection of its own, as the channel may be closed by then."""
    queue = unique(name)
    await channel.queue_declare(queue=queue, durable=True)
    try:
        yield queue
    finally:
        async with connect() as client:
            await (await open_channel(client)).queue_delete(queue=queue)


async def exclusive_queue(channel):
    return (await channel.queue_declare(exclusive=True)).queue


def properties(**named):
    return {name.replace("_", HYPHEN): value for name, value in named.items()}


def publish(channel, queue, bodies):
    for body in bodies:
        channel.basic_publish(routing_key=queue, content=Content(body, properties=properties(delivery_mode=2)))


async def ready(channel, queue):
    return (await channel.queue_declare(queue=queue, passive=True)).message_count


async def consumer(channel, queue, **options):
    """Starts a consumer and returns the queue that its messages go to."""
    tag = (await channel.basic_consume(queue=queue, **options)).consumer_tag
    return await channel.client.queue(tag)


async def take(inbox, count):
    return [await inbox.get(timeout=WAIT_LIMIT_S) for _ in range(count)]


def numbered(count):
    return [b"%d" % i for i in range(count)]


def bodies(messages):
    return [message.content.body for message in messages]


def redelivered(messages):
    return [bool(message.redelivered) for message in messages]


async def fetch(channel, queue, **options):
    reply = await channel.basic_get(queue=queue, **options)
    equal(reply.method.name, "get-ok", "answer to basic.get")
    return reply


async def refusal(kind, awaitable):
    """Awaits, and returns the close method that must come of it."""
    try:
        await awaitable
    except kind as error:
        return error.args[0] if error.args else None
    raise AssertionError("no %s was raised" % kind.__name__)


async def closes(code, text, awaitable, kind=ChannelClosed):
    close = await refusal(kind, awaitable)
    equal((close.reply_code, close.reply_text), (code, text), "close")


not_applicable("publish_confirms", "AMQP %s has no confirm class" % SPEC)


@case
async def consume_acks():
    async with connect() as client:
        channel = await open_channel(client)
        async with durable_queue(channel, "acks") as queue:
            publish(channel, queue, numbered(10))

            messages = await take(await consumer(channel, queue), 10)
            equal(bodies(messages), numbered(10), "bodies")
            equal([m.delivery_tag for m in messages], list(range(1, 11)), "delivery tags")
            equal(redelivered(messages), [False] * 10, "redelivered flags")
            channel.basic_ack(delivery_tag=1)
            channel.basic_ack(delivery_tag=4, multiple=True)
            await channel.channel_close()

            channel = await open_channel(client)
            messages = await take(await consumer(channel, queue), 6)
            equal(bodies(messages), numbered(10)[4:], "bodies after the channel closed")
            equal(redelivered(messages), [True] * 6, "redelivered flags")
            channel.basic_ack(delivery_tag=0, multiple=True)
            await channel.channel_close()

            equal(await ready(await open_channel(client), queue), 0, "ready messages")


@case
async def prefetch():
    async with connect() as client:
        channel = await open_channel(client)
        async with durable_queue(channel, "prefetch") as queue:
            publish(channel, queue, numbered(10))
            await channel.basic_qos(prefetch_count=3)
            inbox = await consumer(channel, queue)
            await take(inbox, 3)
            # What the queue handed out beyond the limit would be missing from its ready messages.
            equal(await ready(channel, queue), 7, "ready messages")
            for acked in range(1, 4):
                channel.basic_ack(delivery_tag=acked)
                await take(inbox, 1)
                equal(await ready(channel, queue), 7 - acked, "ready messages")

        channel = await open_channel(client)
        async with durable_queue(channel, "one") as one, durable_queue(channel, "two") as two:
            publish(channel, one, [b"one"] * 10)
            publish(channel, two, [b"two"] * 10)
            await channel.basic_qos(prefetch_count=3, global_=True)
            # txAMQP keeps the messages of all consumers of one tag together.
            await channel.basic_consume(queue=one, consumer_tag="shared-limit")
            await take(await client.queue("shared-limit"), 3)
            await channel.basic_consume(queue=two, consumer_tag="shared-limit-too")
            equal((await ready(channel, one), await ready(channel, two)), (7, 10), "ready messages")
            # With nothing left in the first queue, the freed places are the second one's.
            await channel.queue_purge(queue=one)
            channel.basic_ack(delivery_tag=3, multiple=True)
            await take(await client.queue("shared-limit-too"), 3)
            equal(await ready(channel, two), 7, "ready messages")


@case
async def get():
    async with connect() as client:
        channel = await open_channel(client)
        if SPEC != "0-9-1":
            # A ticket is asked for, as in the time of realms.
            reply = await channel.access_request(realm="/data", active=True, read=True, write=True)
            equal(reply.ticket, 1, "ticket")
        async with durable_queue(channel, "get") as queue:
            equal((await channel.basic_get(queue=queue)).method.name, "get-empty", "answer of an empty queue")
            publish(channel, queue, [b"first", b"second", b"third"])
            for remaining, body in ((2, b"first"), (1, b"second"), (0, b"third")):
                message = await fetch(channel, queue)
                equal(message.content.body, body, "body")
                equal(message.content.properties, properties(delivery_mode=2), "properties")
                equal((message.message_count, bool(message.redelivered), message.exchange, message.routing_key),
                      (remaining, False, "", queue), "basic.get-ok")
                channel.basic_ack(delivery_tag=message.delivery_tag)
            equal((await channel.basic_get(queue=queue)).method.name, "get-empty", "answer of the emptied queue")


@case
async def reject_requeue():
    async with connect() as client:
        channel = await open_channel(client)
        async with durable_queue(channel, "reject") as queue:
            publish(channel, queue, [b"1", b"2", b"3"])

            first = await fetch(channel, queue)
            await fetch(channel, queue)
            channel.basic_reject(delivery_tag=first.delivery_tag, requeue=True)
            message = await fetch(channel, queue)
            equal((message.content.body, redelivered([message])), (b"1", [True]), "what was rejected")

            # There is no basic.nack, but this puts back all that is unacked, without an answer.
            getattr(channel, RECOVER)(requeue=True)
            again = [await fetch(channel, queue) for _ in range(3)]
            equal(bodies(again), [b"1", b"2", b"3"], "bodies after recover")
            equal(redelivered(again), [True, True, False], "redelivered flags")

            channel.basic_reject(delivery_tag=again[0].delivery_tag, requeue=False)
            channel.basic_reject(delivery_tag=again[1].delivery_tag, requeue=False)
            await channel.channel_close()
            channel = await open_channel(client)
            equal((await fetch(channel, queue, no_ack=True)).content.body, b"3", "what is left")
            equal(await ready(channel, queue), 0, "ready messages")


@case
async def returns():
    async with connect() as client:
        channel = await open_channel(client)
        body = os.urandom(200000)
        sent = properties(content_type="application/octet-stream", headers={"n": 1}, message_id="m-1", delivery_mode=2)
        channel.basic_publish(exchange="amq.direct", routing_key=unique("nowhere"), mandatory=True,
                              content=Content(body, properties=sent))
        key = unique("nowhere")
        channel.basic_publish(routing_key=key, mandatory=True, content=Content(b""))
        first, second = await take(client.basic_return_queue, 2)
        equal((first.reply_code, first.reply_text, first.exchange), (312, "NO_ROUTE", "amq.direct"), "basic.return")
        equal(first.content.properties, sent, "properties")
        check(first.content.body == body, "another body came back")
        equal((second.exchange, second.routing_key, second.content.body), ("", key, b""), "the second return")


async def missing(client, queue):
    await closes(404, "NOT_FOUND - no queue '%s' in vhost '/'" % queue,
                 (await open_channel(client)).queue_declare(queue=queue, passive=True))


@case
async def exclusive_auto_delete():
    async with connect() as other:
        async with connect() as client:
            queue = await exclusive_queue(await open_channel(client))
            check(queue.startswith("amq.gen-") and len(queue) == 30, "server-named queue is called %s" % queue)
            await closes(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. It "
                         "could be originally declared on another connection or the exclusive property value does not "
                         "match that of the original declaration." % queue,
                         (await open_channel(other)).queue_declare(queue=queue, passive=True))
        await missing(other, queue)

        channel = await open_channel(other)
        queue = unique("auto-delete")
        await channel.queue_declare(queue=queue, auto_delete=True)
        tags = [(await channel.basic_consume(queue=queue)).consumer_tag for _ in range(2)]
        await channel.basic_cancel(consumer_tag=tags[0])
        equal((await channel.queue_declare(queue=queue, passive=True)).consumer_count, 1, "consumers")
        await channel.basic_cancel(consumer_tag=tags[1])
        await missing(other, queue)

        exchange = unique("auto-delete")
        await channel.exchange_declare(exchange=exchange, type="fanout", **{AUTO_DELETE: True})
        queue = await exclusive_queue(channel)
        await channel.queue_bind(queue=queue, exchange=exchange)
        await channel.exchange_declare(exchange=exchange, type="fanout", passive=True)
        # The last binding of the exchange also goes with its queue.
        await channel.queue_delete(queue=queue)
        await closes(404, "NOT_FOUND - no exchange '%s' in vhost '/'" % exchange,
                     channel.exchange_declare(exchange=exchange, type="fanout", passive=True))


@case
async def tables():
    named = dict(content_type="text/plain", content_encoding="identity", delivery_mode=2, priority=9,
                 correlation_id="correlation", reply_to="reply", expiration="60000", message_id="message",
                 timestamp=2**40, type="type", user_id="guest", app_id="app")
    named["reserved" if SPEC == "0-9-1" else "cluster_id"] = "cluster"
    async with connect() as client:
        channel = await open_channel(client)
        exchange = unique("tables")
        # Any name is allowed in arguments, and none of these is one that the broker knows.
        await channel.exchange_declare(exchange=exchange, type="headers", arguments=WRITABLE, **{AUTO_DELETE: True})
        queue = unique("tables")
        for _ in range(2):
            declared = await channel.queue_declare(queue=queue, exclusive=True, arguments=WRITABLE)
            equal(declared.queue, queue, "declared queue")

        # The headers exchange routes only if binding and message carry the same values of the same types.
        await channel.queue_bind(queue=queue, exchange=exchange, arguments=dict(WRITABLE, **{"x-match": "all"}))
        channel.basic_publish(exchange=exchange, content=Content(b"x", properties=properties(headers=WRITABLE)))
        equal((await channel.queue_purge(queue=queue)).message_count, 1, "messages with the same headers")
        for name in TABLE:
            headers = dict(WRITABLE, **{name: "another"})
            channel.basic_publish(exchange=exchange, content=Content(b"x", properties=properties(headers=headers)))
        equal((await channel.queue_purge(queue=queue)).message_count, 0, "messages with other headers")

        channel.basic_publish(routing_key=queue, content=Content(b"all properties", properties=properties(
            headers=TABLE, **named)))
        message = await fetch(channel, queue, no_ack=True)
        equal(message.content.body, b"all properties", "body")
        equal(message.content.properties, properties(headers=READ_BACK, **named), "properties")
        equal(len(message.content.properties), 14, "properties")


@case
async def exchanges():
    async with connect() as client:
        channel = await open_channel(client)
        declared = []

        async def exchange(kind, **options):
            name = unique("%s-%d" % (kind, len(declared)))
            declared.append(name)
            await channel.exchange_declare(exchange=name, type=kind, **options)
            return name

        queues = {}

        async def bind(name, to, key="", arguments={}):
            if name not in queues:
                queues[name] = await exclusive_queue(channel)
            await channel.queue_bind(queue=queues[name], exchange=to, routing_key=key, arguments=arguments)

        async def routed(to, key="", **headers):
            """Publishes, and returns the names of the queues that got the message."""
            channel.basic_publish(exchange=to, routing_key=key,
                                  content=Content(b"x", properties=properties(headers=headers)))
            # The publishes of a channel are routed before its next synchronous method is answered.
            return "".join([name for name, q in sorted(queues.items())
                            if (await channel.queue_purge(queue=q)).message_count])

        async def all_routed(to, keys):
            return {key: await routed(to, key) for key in keys}

        direct = await exchange("direct", durable=True)
        await bind("a", direct, "red")
        await bind("b", direct, "red")
        await bind("b", direct, "blue")
        expected = {"red": "ab", "blue": "b", "Red": "", "": ""}
        equal(await all_routed(direct, expected), expected, "direct")
        if HAS_UNBIND:
            await channel.queue_unbind(queue=queues["b"], exchange=direct, routing_key="red")
            equal(await all_routed(direct, ("red", "blue")), {"red": "a", "blue": "b"}, "direct after unbind")

        fanout = await exchange("fanout")
        await bind("c", fanout, "ignored")
        await bind("d", fanout)
        equal(await all_routed(fanout, ("", "any")), {"": "cd", "any": "cd"}, "fanout")

        topic = await exchange("topic", durable=True)
        for name, pattern in (("e", "*.orange.*"), ("f", "lazy.#"), ("g", "#"), ("h", "*"), ("i", "a.#.b.*")):
            await bind(name, topic, pattern)
        expected = {"quick.orange.fox": "eg", "lazy": "fgh", "lazy.orange.elephant": "efg", "lazy.a.b.c": "fg", "": "g",
                    "a.b.x": "gi", "a.x.y.b.z": "gi", "orange": "gh", "x.orange": "g", "lazy..": "fg"}
        equal(await all_routed(topic, expected), expected, "topic")

        headers = await exchange("headers")
        await bind("j", headers, arguments={"x-match": "all", "type": "report", "pages": 2})
        await bind("k", headers, arguments={"x-match": "any", "type": "report", "pages": 2})
        equal([await routed(headers, **h) for h in ({"type": "report", "pages": 2, "more": 1}, {"type": "report"},
                                                    {"pages": 2}, {"pages": "2"}, {})],
              ["jk", "k", "k", "", ""], "headers")

        # Exchange-to-exchange bindings are in none of these specs; alternate exchanges are an argument like any other.
        main_exchange = await exchange("direct", arguments={"alternate-exchange": fanout})
        await bind("l", main_exchange, "known")
        equal(await all_routed(main_exchange, ("known", "unknown")), {"known": "l", "unknown": "cd"}, "alternate")

        for name in declared:
            await channel.exchange_delete(exchange=name)


@case
async def large_message():
    body = os.urandom(10 * 1024 * 1024)
    for frame_max in (131072, 8192):
        async with connect(frame_max=frame_max) as client:
            channel = await open_channel(client)
            queue = await exclusive_queue(channel)
            inbox = await consumer(channel, queue, no_ack=True)
            publish(channel, queue, [body])
            [message] = await take(inbox, 1)
            equal(hashlib.sha256(message.content.body).hexdigest(), hashlib.sha256(body).hexdigest(), "hash")
            # Sizes at which the last body frame is full, or one byte too long for it.
            for size in (0, 1, frame_max - 8, frame_max - 7, 2 * (frame_max - 8)):
                publish(channel, queue, [body[:size]])
                [message] = await take(inbox, 1)
                check(message.content.body == body[:size], "the body of %d bytes came back differently" % size)


@case
async def errors():
    async with connect() as client:
        steady = await open_channel(client)
        queue = await exclusive_queue(steady)

        async def refused(code, text, action):
            await closes(code, text, action(await open_channel(client)))
            # The connection and its other channels go on.
            publish(steady, queue, [text.encode()])
            equal((await fetch(steady, queue, no_ack=True)).content.body, text.encode(), "message on the other channel")

        absent = unique("absent")
        not_found = "NOT_FOUND - no queue '%s' in vhost '/'" % absent
        await refused(404, not_found, lambda ch: ch.basic_consume(queue=absent))
        await refused(404, not_found, lambda ch: ch.basic_get(queue=absent))
        await refused(404, not_found, lambda ch: ch.queue_declare(queue=absent, passive=True))
        await refused(404, "NOT_FOUND - no exchange '%s' in vhost '/'" % absent,
                      lambda ch: ch.queue_bind(queue=queue, exchange=absent))
        async with durable_queue(steady, "durable") as durable:
            await refused(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s' in vhost '/': received "
                          "'false' but current is 'true'" % durable, lambda ch: ch.queue_declare(queue=durable))
        await refused(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': "
                      "received 'fanout' but current is 'direct'",
                      lambda ch: ch.exchange_declare(exchange="amq.direct", type="fanout", durable=True))
        await refused(403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
                      lambda ch: ch.queue_declare(queue="amq.mine"))

        async def ack_unknown(channel):
            channel.basic_ack(delivery_tag=42)
            await channel.queue_declare(queue=queue, passive=True)

        await refused(406, "PRECONDITION_FAILED - unknown delivery tag 42", ack_unknown)

    # A client of that time announces no capabilities, so all it is told of a refused login is that the socket closes.
    await refusal(Closed, open_client(password="wrong"))
    await closes(530, "NOT_ALLOWED - vhost absent not found", open_client(vhost="absent"), ConnectionClosed)
    async with connect(mechanism="PLAIN", heartbeat=1):
        pass


@case
async def transactions():
    async with connect() as client:
        channel = await open_channel(client)
        observer = await open_channel(client)
        async with durable_queue(channel, "tx") as queue:
            await channel.tx_select()
            publish(channel, queue, [b"1", b"2"])
            equal(await ready(observer, queue), 0, "ready messages before commit")
            await channel.tx_commit()
            equal(await ready(observer, queue), 2, "ready messages after commit")
            publish(channel, queue, [b"3"])
            await channel.tx_rollback()
            await channel.tx_commit()
            equal(await ready(observer, queue), 2, "ready messages after rollback")

            # An ack that was rolled back leaves the message unacked, one that was committed is final.
            channel.basic_ack(delivery_tag=(await fetch(channel, queue)).delivery_tag)
            await channel.tx_rollback()
            channel.basic_ack(delivery_tag=(await fetch(channel, queue)).delivery_tag)
            await channel.tx_commit()
            await channel.channel_close()
            message = await fetch(observer, queue)
            equal((message.content.body, bool(message.redelivered), message.message_count), (b"1", True, 0), "the rest")

        await closes(406, "PRECONDITION_FAILED - channel is not transactional",
                     (await open_channel(client)).tx_commit())


@case
async def reconnect():
    proxy = Proxy(HOST, PORT)
    async with connect() as direct:
        channel = await open_channel(direct)
        async with durable_queue(channel, "reconnect") as queue:
            publish(channel, queue, numbered(5))

            client = await open_client(port=proxy.port)
            consuming = await open_channel(client)
            inbox = await consumer(consuming, queue)
            messages = await take(inbox, 5)
            consuming.basic_ack(delivery_tag=messages[1].delivery_tag, multiple=True)
            # The answer shows that the acks have reached the broker.
            await ready(consuming, queue)
            proxy.cut()
            await refusal(QueueClosed, inbox.get(timeout=WAIT_LIMIT_S))

            async with connect(port=proxy.port) as client:
                messages = await take(await consumer(await open_channel(client), queue), 3)
                equal(bodies(messages), [b"2", b"3", b"4"], "bodies after reconnecting")
                equal(redelivered(messages), [True] * 3, "redelivered flags")


@case
async def tutorials():
    await hello_world()
    await work_queues()
    equal(await emit_and_collect("fanout", [[""], [""]], ["info"]), [["info"], ["info"]], "publish/subscribe")
    equal(await emit_and_collect("direct", [["error"], ["info", "error"]], ["info", "warning", "error"]),
          [["error"], ["info", "error"]], "routing")
    equal(await emit_and_collect("topic", [["#"], ["kern.*"], ["*.critical"]],
                                 ["kern.critical", "kern", "cron.critical"]),
          [["kern.critical", "kern", "cron.critical"], ["kern.critical"], ["kern.critical", "cron.critical"]], "topics")
    await rpc(exclusive_queue)
    await rpc(direct_reply_to)


async def hello_world():
    async with connect() as client:
        channel = await open_channel(client)
        queue = (await channel.queue_declare(queue=unique("hello"), auto_delete=True)).queue
        channel.basic_publish(routing_key=queue, content=Content("Hello World!"))
        equal(bodies(await take(await consumer(channel, queue, no_ack=True), 1)), [b"Hello World!"], "hello world")


async def work_queues():
    tasks = numbered(6)
    async with connect() as sender:
        channel = await open_channel(sender)
        async with durable_queue(channel, "tasks") as queue, connect() as first, connect() as second:
            workers = []
            for client in (first, second):
                worker = await open_channel(client)
                await worker.basic_qos(prefetch_count=1)
                workers.append((worker, await consumer(worker, queue)))
            publish(channel, queue, tasks)
            # As each worker has one unacked task at most, taking them in turn is possible until the last one.
            done = []
            for _ in range(len(tasks) // 2):
                unacked = [(worker, (await take(inbox, 1))[0]) for worker, inbox in workers]
                for worker, task in unacked:
                    done.append(task.content.body)
                    worker.basic_ack(delivery_tag=task.delivery_tag)
                    await ready(worker, queue)
            equal(sorted(done), tasks, "tasks")


async def emit_and_collect(kind, subscriptions, keys):
    """Publishes one message per key, and returns the keys of those that each subscription got."""
    async with connect() as client:
        channel = await open_channel(client)
        exchange = unique("logs")
        await channel.exchange_declare(exchange=exchange, type=kind)
        inboxes = []
        for bindings in subscriptions:
            queue = await exclusive_queue(channel)
            # The last binding lets the end of the log be recognised.
            for key in bindings + ["end"]:
                await channel.queue_bind(queue=queue, exchange=exchange, routing_key=key)
            inboxes.append(await consumer(channel, queue, no_ack=True))
        for key in keys + ["end"]:
            channel.basic_publish(exchange=exchange, routing_key=key, content=Content("log of " + key))
        received = []
        for inbox in inboxes:
            received.append([])
            while True:
                [message] = await take(inbox, 1)
                equal(message.content.body, b"log of " + message.routing_key.encode(), "body")
                if message.routing_key == "end":
                    break
                received[-1].append(message.routing_key)
        await channel.exchange_delete(exchange=exchange)
        return received


async def direct_reply_to(_channel):
    return "amq.rabbitmq.reply-to"


async def rpc(reply_queue_on):
    async with connect() as server, connect() as client:
        requests = await open_channel(server)
        # The client may publish to it all the same: only the queue's own methods are for its connection alone.
        rpc_queue = await exclusive_queue(requests)
        rpc_inbox = await consumer(requests, rpc_queue)

        channel = await open_channel(client)
        reply_to = await reply_queue_on(channel)
        replies = await consumer(channel, reply_to, no_ack=True)
        for n in (3, 4):
            channel.basic_publish(routing_key=rpc_queue, content=Content(b"%d" % n, properties=properties(
                reply_to=reply_to, correlation_id="call-%d" % n)))

        for request in await take(rpc_inbox, 2):
            asked = request.content.properties
            reply = Content(b"%d" % int(request.content.body) ** 2,
                            properties=properties(correlation_id=asked["correlation" + HYPHEN + "id"]))
            requests.basic_publish(routing_key=asked["reply" + HYPHEN + "to"], content=reply)
            requests.basic_ack(delivery_tag=request.delivery_tag)
        got = {m.content.properties["correlation" + HYPHEN + "id"]: m.content.body for m in await take(replies, 2)}
        equal(got, {"call-3": b"9", "call-4": b"16"}, "replies")


def call(function):
    def start():
        return Deferred.fromCoroutine(function()).addTimeout(CASE_LIMIT_S, reactor)

    threads.blockingCallFromThread(reactor, start)


if __name__ == "__main__":
    # The main thread keeps the time limits of the cases, so the reactor gets a thread of its own.
    threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True).start()
    main(call)
