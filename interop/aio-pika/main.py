"""The interop cases with aio-pika (over aiormq and pamqp), its robust connections and patterns included."""

import asyncio
import decimal
import hashlib
import os
from contextlib import asynccontextmanager
from datetime import datetime, timezone

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.exceptions import InvalidFrameError, ProbableAuthenticationError, PublishError, QueueEmpty
from aio_pika.patterns import RPC, Master
from aiormq.exceptions import (ChannelAccessRefused, ChannelLockedResource, ChannelNotFoundEntity,
                               ChannelPreconditionFailed)
from pamqp.commands import Basic

from cases import CASE_LIMIT_S, HOST, PORT, WAIT_LIMIT_S, case, check, equal, main, unique
from proxy import Proxy

# pamqp writes an integer as the smallest of b, s, u, I, i and l that holds it, and floats as `f`.
TABLE = {
    "true": True, "false": False,
    "int8": -128, "int8 max": 127, "int16": -32768, "int16 max": 32767, "uint16": 65535,
    "int32": -2147483648, "int32 max": 2147483647, "uint32": 4294967295,
    "int64": -9223372036854775808, "int64 max": 9223372036854775807,
    "float": 0.15625, "negative float": -2.0**40,
    "decimal": decimal.Decimal("-12345.6789"), "whole decimal": decimal.Decimal(7),
    "string": "r\u00e9sum\u00e9 \u5154", "empty string": "",
    "bytes": bytearray(b"\x00\xff\xce"), "no bytes": bytearray(),
    "timestamp": datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone.utc),
    "void": None,
    "table": {"nested": {"deeper": [1, "two", None]}}, "empty table": {},
    "array": [True, 200, "three", bytearray(b"4"), None, [5, [6.5]], {"seven": 7}, decimal.Decimal("8.9")],
    "empty array": [],
}


@asynccontextmanager
async def connect(port=PORT, **options):
    connection = await aio_pika.connect(host=HOST, port=port, timeout=WAIT_LIMIT_S, **options)
    async with connection:
        yield connection


@asynccontextmanager
async def durable_queue(channel, name, **arguments):
    """A durable classic queue; deleted over a connection of its own, as the channel may be closed by then."""
    queue = await channel.declare_queue(unique(name), durable=True, arguments=arguments)
    try:
        yield queue
    finally:
        async with connect() as connection:
            await (await connection.channel()).queue_delete(queue.name)


async def exclusive_queue(channel):
    return await channel.declare_queue(exclusive=True)


async def publish(channel, queue, bodies):
    for body in bodies:
        await channel.default_exchange.publish(Message(body, delivery_mode=DeliveryMode.PERSISTENT), queue.name)


async def ready(channel, queue):
    declared = await channel.declare_queue(queue.name, passive=True)
    return declared.declaration_result.message_count


async def consumer(queue, **options):
    """Starts a consumer and returns the asyncio queue that its messages go to."""
    inbox = asyncio.Queue()
    await queue.consume(inbox.put, **options)
    return inbox


async def take(inbox, count):
    async with asyncio.timeout(WAIT_LIMIT_S):
        return [await inbox.get() for _ in range(count)]


def bodies(messages):
    return [message.body for message in messages]


def redelivered(messages):
    return [message.redelivered for message in messages]


async def refusal(kind, awaitable):
    """Awaits, and returns the exception of that kind which must come of it."""
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError("no %s was raised" % kind.__name__)


async def closes(kind, text, awaitable):
    """aiormq has an exception per reply code, whose text is the reply text."""
    equal(str(await refusal(kind, awaitable)), text, "reply text")


@case
async def publish_confirms():
    async with connect() as connection:
        channel = await connection.channel(publisher_confirms=True)
        async with durable_queue(channel, "confirms") as queue:
            # All at once: the confirms come in whatever grouping the broker chooses.
            confirms = await asyncio.gather(*(
                channel.default_exchange.publish(Message(b"%d" % i, delivery_mode=2), queue.name) for i in range(500)))
            equal({type(confirm) for confirm in confirms}, {Basic.Ack}, "kinds of confirm")
            equal(await ready(channel, queue), 500, "ready messages")

            result = await channel.default_exchange.publish(Message(b"dropped"), unique("nowhere"), mandatory=False)
            equal(type(result), Basic.Ack, "confirm of what is unroutable and not mandatory")
            result = await channel.default_exchange.publish(Message(b"lost"), unique("nowhere"), mandatory=True)
            equal((type(result.delivery), result.body), (Basic.Return, b"lost"), "answer to what is mandatory")

            # Whether the returned message was acked too shows in that the next confirm finds its message.
            await publish(channel, queue, [b"last"])
            equal(await ready(channel, queue), 501, "ready messages")

        raising = await connection.channel(on_return_raises=True)
        error = await refusal(PublishError, raising.default_exchange.publish(Message(b"lost"), unique("nowhere")))
        equal(error.message.body, b"lost", "body of the returned message")


@case
async def consume_acks():
    async with connect() as connection:
        channel = await connection.channel()
        async with durable_queue(channel, "acks") as queue:
            expected = [b"%d" % i for i in range(10)]
            await publish(channel, queue, expected)

            messages = await take(await consumer(queue), 10)
            equal(bodies(messages), expected, "bodies")
            equal([m.delivery_tag for m in messages], list(range(1, 11)), "delivery tags")
            equal(redelivered(messages), [False] * 10, "redelivered flags")
            await messages[0].ack()
            await messages[3].ack(multiple=True)
            await channel.close()

            channel = await connection.channel()
            queue = await channel.get_queue(queue.name)
            messages = await take(await consumer(queue), 6)
            equal(bodies(messages), expected[4:], "bodies after the channel closed")
            equal(redelivered(messages), [True] * 6, "redelivered flags")
            await messages[-1].ack(multiple=True)
            await channel.close()

            equal(await ready(await connection.channel(), queue), 0, "ready messages")


@case
async def prefetch():
    async with connect() as connection:
        channel = await connection.channel()
        async with durable_queue(channel, "prefetch") as queue:
            await publish(channel, queue, [b"%d" % i for i in range(10)])
            await channel.set_qos(prefetch_count=3)
            inbox = await consumer(queue)
            unacked = await take(inbox, 3)
            # What the queue handed out beyond the limit would be missing from its ready messages.
            equal(await ready(channel, queue), 7, "ready messages")
            for acked in range(1, 4):
                await unacked.pop(0).ack()
                unacked += await take(inbox, 1)
                equal(await ready(channel, queue), 7 - acked, "ready messages")
                equal(inbox.qsize(), 0, "further deliveries")
            await channel.close()

        channel = await connection.channel()
        async with durable_queue(channel, "one") as one, durable_queue(channel, "two") as two:
            await publish(channel, one, [b"one"] * 10)
            await publish(channel, two, [b"two"] * 10)
            await channel.set_qos(prefetch_count=3, global_=True)
            inbox = await consumer(one)
            messages = await take(inbox, 3)
            await two.consume(inbox.put)
            equal((await ready(channel, one), await ready(channel, two), inbox.qsize()), (7, 10, 0), "ready, delivered")
            # The ack frees the channel's places for whichever queue is first to take them.
            await messages[-1].ack(multiple=True)
            await take(inbox, 3)
            equal(await ready(channel, one) + await ready(channel, two), 14, "ready messages")
            equal(inbox.qsize(), 0, "further deliveries")
            await channel.close()


@case
async def get():
    async with connect() as connection:
        channel = await connection.channel()
        async with durable_queue(channel, "get") as queue:
            await refusal(QueueEmpty, queue.get())
            equal(await queue.get(fail=False), None, "answer of an empty queue")
            await publish(channel, queue, [b"first", b"second", b"third"])
            for remaining, body in ((2, b"first"), (1, b"second"), (0, b"third")):
                message = await queue.get()
                equal((message.body, message.delivery_mode), (body, DeliveryMode.PERSISTENT), "message")
                equal((message.message_count, message.redelivered, message.exchange, message.routing_key),
                      (remaining, False, "", queue.name), "basic.get-ok")
                await message.ack()
            equal(await queue.get(fail=False), None, "answer of the emptied queue")


@case
async def reject_requeue():
    async with connect() as connection:
        channel = await connection.channel()
        async with durable_queue(channel, "reject") as queue:
            await publish(channel, queue, [b"1", b"2", b"3", b"4"])

            first = await queue.get()
            await queue.get()
            await first.reject(requeue=True)
            message = await queue.get()
            equal((message.body, message.redelivered), (b"1", True), "what was rejected")

            message = await queue.get()
            equal((message.body, message.redelivered), (b"3", False), "the next message")
            await message.nack(multiple=True, requeue=True)
            again = [await queue.get() for _ in range(4)]
            equal(bodies(again), [b"1", b"2", b"3", b"4"], "bodies after nack multiple")
            equal(redelivered(again), [True, True, True, False], "redelivered flags")

            await again[0].reject(requeue=False)
            await again[2].nack(multiple=True, requeue=False)
            await channel.close()
            channel = await connection.channel()
            queue = await channel.get_queue(queue.name)
            equal((await queue.get(no_ack=True)).body, b"4", "what is left")
            equal(await ready(channel, queue), 0, "ready messages")


@case
async def returns():
    async with connect() as connection:
        channel = await connection.channel()
        returned = asyncio.Queue()
        channel.return_callbacks.add(lambda _channel, message: returned.put_nowait(message))
        body = os.urandom(200000)
        exchange = await channel.get_exchange("amq.direct")
        await exchange.publish(Message(body, content_type="application/octet-stream", headers={"n": 1},
                                       message_id="m-1", delivery_mode=2), unique("nowhere"), mandatory=True)
        key = unique("nowhere")
        await channel.default_exchange.publish(Message(b""), key, mandatory=True)
        first, second = await take(returned, 2)
        equal((first.exchange, first.content_type, first.headers, first.message_id, first.delivery_mode),
              ("amq.direct", "application/octet-stream", {"n": 1}, "m-1", DeliveryMode.PERSISTENT), "message")
        check(first.body == body, "another body came back")
        equal((second.exchange, second.routing_key, second.body), ("", key, b""), "the second return")

        result = await exchange.publish(Message(b"x"), key, mandatory=True)
        equal((result.delivery.reply_code, result.delivery.reply_text), (312, "NO_ROUTE"), "basic.return")


async def missing(connection, queue):
    await closes(ChannelNotFoundEntity, "NOT_FOUND - no queue '%s' in vhost '/'" % queue,
                 (await connection.channel()).declare_queue(queue, passive=True))


@case
async def exclusive_auto_delete():
    async with connect() as other:
        async with connect() as connection:
            queue = (await exclusive_queue(await connection.channel())).name
            check(queue.startswith("amq.gen-") and len(queue) == 30, "server-named queue is called %s" % queue)
            await closes(ChannelLockedResource,
                         "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. It "
                         "could be originally declared on another connection or the exclusive property value does not "
                         "match that of the original declaration." % queue,
                         (await other.channel()).declare_queue(queue, passive=True))
        await missing(other, queue)

        channel = await other.channel()
        queue = await channel.declare_queue(unique("auto-delete"), auto_delete=True)
        inbox = asyncio.Queue()
        tags = [await queue.consume(inbox.put) for _ in range(2)]
        await queue.cancel(tags[0])
        again = await channel.declare_queue(queue.name, passive=True)
        equal(again.declaration_result.consumer_count, 1, "consumers")
        await queue.cancel(tags[1])
        await missing(other, queue.name)

        exchange = await channel.declare_exchange(unique("auto-delete"), ExchangeType.FANOUT, auto_delete=True)
        queue = await exclusive_queue(channel)
        await queue.bind(exchange)
        await channel.get_exchange(exchange.name)
        await queue.unbind(exchange)
        await closes(ChannelNotFoundEntity, "NOT_FOUND - no exchange '%s' in vhost '/'" % exchange.name,
                     channel.get_exchange(exchange.name))


@case
async def tables():
    # aio-pika has no cluster-id, which leaves 13 properties.
    properties = dict(
        content_type="text/plain; charset=utf-8", content_encoding="identity", delivery_mode=DeliveryMode.PERSISTENT,
        priority=9, correlation_id="correlation", reply_to="reply", expiration=60.0, message_id="message",
        timestamp=datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone.utc), type="type", user_id="guest", app_id="app")
    async with connect() as connection:
        channel = await connection.channel()
        # Any name is allowed in arguments, and none of these is one that the broker knows.
        exchange = await channel.declare_exchange(unique("tables"), ExchangeType.HEADERS, auto_delete=True,
                                                  arguments=TABLE)
        name = unique("tables")
        for _ in range(2):
            queue = await channel.declare_queue(name, exclusive=True, arguments=TABLE)
            equal(queue.name, name, "declared queue")

        # The headers exchange routes only if binding and message carry the same values of the same types.
        arguments = dict(TABLE, **{"x-match": "all"})
        await queue.bind(exchange, arguments=arguments)
        confirm = await exchange.publish(Message(b"all types", headers=TABLE, **properties), "", mandatory=True)
        equal(type(confirm), Basic.Ack, "confirm")
        message = await queue.get(no_ack=True)
        equal(message.body, b"all types", "body")
        equal(message.headers, TABLE, "headers")
        for key, value in TABLE.items():
            equal(type(message.headers[key]), type(value), "type of the header " + key)
        equal({key: getattr(message, key) for key in properties}, properties, "properties")

        for key, value in TABLE.items():
            if value is None:
                continue  # a void binding argument asks for nothing but the header's presence
            other = Message(b"", headers=dict(TABLE, **{key: "another"}))
            result = await exchange.publish(other, "", mandatory=True)
            check(not isinstance(result, Basic.Ack), "routed although the header %s differs" % key)

        await queue.unbind(exchange, arguments=arguments)
        await closes(ChannelNotFoundEntity, "NOT_FOUND - no exchange '%s' in vhost '/'" % exchange.name,
                     channel.get_exchange(exchange.name))


@case
async def exchanges():
    async with connect() as connection:
        channel = await connection.channel()
        declared = []

        async def exchange(kind, **options):
            declared.append(await channel.declare_exchange(unique("%s-%d" % (kind, len(declared))), kind, **options))
            return declared[-1]

        queues = {}

        async def queue(name):
            queues[name] = await exclusive_queue(channel)
            return queues[name]

        async def routed(to, key="", **headers):
            """Publishes, and returns the names of the queues that got the message."""
            await to.publish(Message(b"x", headers=headers), key, mandatory=False)
            return "".join([name for name, q in sorted(queues.items()) if (await q.purge()).message_count])

        async def all_routed(to, keys):
            return {key: await routed(to, key) for key in keys}

        direct = await exchange("direct", durable=True)
        await (await queue("a")).bind(direct, "red")
        await (await queue("b")).bind(direct, "red")
        await queues["b"].bind(direct, "blue")
        equal(await all_routed(direct, ("red", "blue", "Red", "")), {"red": "ab", "blue": "b", "Red": "", "": ""},
              "direct")
        await queues["b"].unbind(direct, "red")
        equal(await all_routed(direct, ("red", "blue")), {"red": "a", "blue": "b"}, "direct after unbind")

        fanout = await exchange("fanout")
        await (await queue("c")).bind(fanout, "ignored")
        await (await queue("d")).bind(fanout, "")
        equal(await all_routed(fanout, ("", "any")), {"": "cd", "any": "cd"}, "fanout")

        topic = await exchange("topic", durable=True)
        for name, pattern in (("e", "*.orange.*"), ("f", "lazy.#"), ("g", "#"), ("h", "*"), ("i", "a.#.b.*")):
            await (await queue(name)).bind(topic, pattern)
        expected = {"quick.orange.fox": "eg", "lazy": "fgh", "lazy.orange.elephant": "efg", "lazy.a.b.c": "fg", "": "g",
                    "a.b.x": "gi", "a.x.y.b.z": "gi", "orange": "gh", "x.orange": "g", "lazy..": "fg"}
        equal(await all_routed(topic, expected), expected, "topic")

        headers = await exchange("headers")
        await (await queue("j")).bind(headers, arguments={"x-match": "all", "type": "report", "pages": 2})
        await (await queue("k")).bind(headers, arguments={"x-match": "any", "type": "report", "pages": 2})
        equal([await routed(headers, **h) for h in ({"type": "report", "pages": 2, "more": 1}, {"type": "report"},
                                                    {"pages": 2}, {"pages": "2"}, {})],
              ["jk", "k", "k", "", ""], "headers")

        # direct -> topic -> direct again: a cycle must deliver once.
        await topic.bind(direct, "lazy")
        await direct.bind(topic, "#")
        equal(await routed(direct, "lazy"), "fgh", "through the exchange binding")
        await topic.unbind(direct, "lazy")
        equal(await routed(direct, "lazy"), "", "after the exchange was unbound")

        main_exchange = await exchange("direct", arguments={"alternate-exchange": fanout.name})
        await (await queue("l")).bind(main_exchange, "known")
        equal(await all_routed(main_exchange, ("known", "unknown")), {"known": "l", "unknown": "cd"}, "alternate")

        for each in declared:
            await each.delete()


@case
async def large_message():
    # aiormq takes the frame_max that the server offers; it has no setting for a smaller one.
    body = os.urandom(10 * 1024 * 1024)
    async with connect() as connection:
        channel = await connection.channel()
        queue = await exclusive_queue(channel)
        inbox = await consumer(queue, no_ack=True)
        await publish(channel, queue, [body])
        [message] = await take(inbox, 1)
        equal(hashlib.sha256(message.body).hexdigest(), hashlib.sha256(body).hexdigest(), "hash")
        # Sizes at which the last body frame is full, or one byte too long for it.
        for size in (0, 1, 131072 - 8, 131072 - 7, 2 * (131072 - 8)):
            await publish(channel, queue, [body[:size]])
            [message] = await take(inbox, 1)
            check(message.body == body[:size], "the body of %d bytes came back differently" % size)


@case
async def errors():
    async with connect() as connection:
        steady = await connection.channel()
        queue = await exclusive_queue(steady)

        async def refused(kind, text, action):
            await closes(kind, text, action(await connection.channel()))
            # The connection and its other channels go on.
            await publish(steady, queue, [text.encode()])
            equal((await queue.get(no_ack=True)).body, text.encode(), "message on the other channel")

        absent = unique("absent")
        not_found = "NOT_FOUND - no queue '%s' in vhost '/'" % absent

        async def consume(channel):
            await (await channel.get_queue(absent, ensure=False)).consume(print)

        async def get_one(channel):
            await (await channel.get_queue(absent, ensure=False)).get()

        async def bind_to_absent(channel):
            await (await channel.get_queue(queue.name)).bind(absent)

        async def ack_unknown(channel):
            await (await channel.get_underlay_channel()).basic_ack(42)
            await channel.declare_queue(queue.name, passive=True)

        await refused(ChannelNotFoundEntity, not_found, consume)
        await refused(ChannelNotFoundEntity, not_found, get_one)
        await refused(ChannelNotFoundEntity, not_found, lambda channel: channel.get_queue(absent))
        await refused(ChannelNotFoundEntity, "NOT_FOUND - no exchange '%s' in vhost '/'" % absent, bind_to_absent)
        async with durable_queue(steady, "durable") as durable:
            await refused(ChannelPreconditionFailed,
                          "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s' in vhost '/': received "
                          "'false' but current is 'true'" % durable.name,
                          lambda channel: channel.declare_queue(durable.name, durable=False))
        await refused(ChannelPreconditionFailed,
                      "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received "
                      "'fanout' but current is 'direct'",
                      lambda channel: channel.declare_exchange("amq.direct", "fanout", durable=True))
        await refused(ChannelAccessRefused,
                      "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
                      lambda channel: channel.declare_queue("amq.mine"))
        await refused(ChannelPreconditionFailed, "PRECONDITION_FAILED - unknown delivery tag 42", ack_unknown)

    error = await refusal(ProbableAuthenticationError, aio_pika.connect(host=HOST, port=PORT, password="wrong"))
    check("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker "
          "logfile." in repr(error), "unexpected refusal: %r" % error)
    # aiormq hides what the close says.
    error = await refusal(InvalidFrameError, aio_pika.connect(host=HOST, port=PORT, virtualhost="absent"))
    check("Connection.Close" in str(error), "unexpected refusal: %r" % error)


@case
async def transactions():
    async with connect() as connection:
        channel = await connection.channel(publisher_confirms=False)
        observer = await connection.channel()
        async with durable_queue(channel, "tx") as queue:
            async with channel.transaction():
                await publish(channel, queue, [b"1", b"2"])
                equal(await ready(observer, queue), 0, "ready messages before commit")
            equal(await ready(observer, queue), 2, "ready messages after commit")

            transaction = channel.transaction()
            await transaction.select()
            await publish(channel, queue, [b"3"])
            await transaction.rollback()
            await transaction.commit()
            equal(await ready(observer, queue), 2, "ready messages after rollback")

            # An ack that was rolled back leaves the message unacked, one that was committed is final.
            await (await queue.get()).ack()
            await transaction.rollback()
            await (await queue.get()).ack()
            await transaction.commit()
            await channel.close()
            message = await (await observer.get_queue(queue.name)).get()
            equal((message.body, message.redelivered, message.message_count), (b"1", True, 0), "what is left")

        plain = await connection.channel(publisher_confirms=False)
        await closes(ChannelPreconditionFailed, "PRECONDITION_FAILED - channel is not transactional",
                     plain.transaction().commit())


@case
async def reconnect():
    proxy = Proxy(HOST, PORT)
    async with connect() as direct:
        channel = await direct.channel()
        async with durable_queue(channel, "reconnect") as queue:
            await publish(channel, queue, [b"%d" % i for i in range(5)])

            # Everything here is declared once; the robust connection restores it after the cut.
            robust = await aio_pika.connect_robust(host=HOST, port=proxy.port, reconnect_interval=0.2)
            async with robust:
                robust_channel = await robust.channel()
                await robust_channel.set_qos(prefetch_count=5)
                robust_queue = await robust_channel.declare_queue(queue.name, durable=True)
                callback_queue = await robust_channel.declare_queue(unique("callback"), exclusive=True)
                exchange = await robust_channel.declare_exchange(unique("robust"), auto_delete=True)
                await callback_queue.bind(exchange, "key")
                inbox = await consumer(robust_queue)
                callback_inbox = await consumer(callback_queue, no_ack=True)
                messages = await take(inbox, 5)
                equal(redelivered(messages), [False] * 5, "redelivered flags")
                await messages[1].ack(multiple=True)
                # The answer shows that the acks have reached the broker.
                underlay = await robust_channel.get_underlay_channel()
                await underlay.queue_declare(queue.name, passive=True)
                reconnected = asyncio.Event()
                robust.reconnect_callbacks.add(lambda *_: reconnected.set())
                proxy.cut()

                messages = await take(inbox, 3)
                equal(bodies(messages), [b"2", b"3", b"4"], "bodies after the reconnection")
                equal(redelivered(messages), [True] * 3, "redelivered flags")
                async with asyncio.timeout(WAIT_LIMIT_S):
                    await reconnected.wait()
                await exchange.publish(Message(b"bound again"), "key")
                equal(bodies(await take(callback_inbox, 1)), [b"bound again"], "message through the restored binding")


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
    await rpc_by_hand(direct_reply_to=False)
    await rpc_by_hand(direct_reply_to=True)
    await patterns()


@asynccontextmanager
async def robust_connection():
    connection = await aio_pika.connect_robust("amqp://guest:guest@%s:%d/" % (HOST, PORT))
    async with connection:
        yield connection


async def hello_world():
    async with robust_connection() as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(unique("hello"), auto_delete=True)
        await channel.default_exchange.publish(Message(b"Hello World!"), routing_key=queue.name)
        async with queue.iterator(timeout=WAIT_LIMIT_S) as messages:
            async for message in messages:
                async with message.process():
                    equal(message.body, b"Hello World!", "hello world")
                    break


async def work_queues():
    tasks = [b"task %d" % i for i in range(6)]
    async with robust_connection() as sender:
        channel = await sender.channel()
        async with durable_queue(channel, "tasks") as queue:
            async with robust_connection() as first, robust_connection() as second:
                done = asyncio.Queue()
                for name, connection in (("first", first), ("second", second)):
                    worker = await connection.channel()
                    await worker.set_qos(prefetch_count=1)
                    worker_queue = await worker.declare_queue(queue.name, durable=True)

                    async def work(message, name=name):
                        async with message.process():
                            await done.put((name, message.body))

                    await worker_queue.consume(work)
                await publish(channel, queue, tasks)
                results = await take(done, len(tasks))
                equal(sorted(body for _, body in results), tasks, "tasks")
                equal({name for name, _ in results}, {"first", "second"}, "workers")


async def emit_and_collect(kind, subscriptions, keys):
    """Publishes one message per key, and returns the keys of those that each subscription got."""
    async with robust_connection() as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(unique("logs"), kind)
        inboxes = []
        for bindings in subscriptions:
            queue = await exclusive_queue(channel)
            # The last binding lets the end of the log be recognised.
            for key in bindings + ["end"]:
                await queue.bind(exchange, routing_key=key)
            inboxes.append(await consumer(queue, no_ack=True))
        for key in keys + ["end"]:
            await exchange.publish(Message(b"log of " + key.encode()), routing_key=key, mandatory=False)
        received = []
        for inbox in inboxes:
            received.append([])
            while True:
                [message] = await take(inbox, 1)
                equal(message.body, b"log of " + message.routing_key.encode(), "body")
                if message.routing_key == "end":
                    break
                received[-1].append(message.routing_key)
        await exchange.delete()
        return received


async def rpc_by_hand(direct_reply_to):
    async with connect() as server, connect() as client:
        server_channel = await server.channel()
        rpc_queue = await exclusive_queue(server_channel)

        async def answer(request):
            async with request.process():
                reply = Message(b"%d" % int(request.body) ** 2, correlation_id=request.correlation_id)
                await server_channel.default_exchange.publish(reply, routing_key=request.reply_to)

        await rpc_queue.consume(answer)

        channel = await client.channel()
        replies = asyncio.Queue()
        if direct_reply_to:
            # The pseudo-queue is not declared, so this goes below aio-pika's Queue.
            reply_to = "amq.rabbitmq.reply-to"
            await (await channel.get_underlay_channel()).basic_consume(reply_to, replies.put, no_ack=True)
        else:
            callback_queue = await exclusive_queue(channel)
            reply_to = callback_queue.name
            await callback_queue.consume(replies.put, no_ack=True)
        for n in (3, 4):
            request = Message(b"%d" % n, correlation_id="call-%d" % n, reply_to=reply_to)
            await channel.default_exchange.publish(request, routing_key=rpc_queue.name)
        got = {}
        for reply in await take(replies, 2):
            properties = reply.header.properties if direct_reply_to else reply
            got[properties.correlation_id] = reply.body
        equal(got, {"call-3": b"9", "call-4": b"16"}, "replies")


async def patterns():
    """The RPC and Master patterns that ship with aio-pika: callback queues, dead lettering of lost calls, tasks."""
    async with robust_connection() as connection:
        channel = await connection.channel()
        rpc = await RPC.create(channel)

        async def multiply(*, x, y):
            return x * y

        name = unique("multiply")
        await rpc.register(name, multiply, auto_delete=True)
        results = await asyncio.gather(*(rpc.call(name, {"x": i, "y": 2}) for i in range(5)))
        equal(results, [0, 2, 4, 6, 8], "results")
        await rpc.close()

        master = Master(channel)
        done = asyncio.Queue()

        async def work(*, task):
            await done.put(task)

        task_name = unique("work")
        worker = await master.create_worker(task_name, work, auto_delete=True)
        for task in range(5):
            await master.create_task(task_name, {"task": task})
        equal(sorted(await take(done, 5)), [0, 1, 2, 3, 4], "tasks")
        await worker.close()


async def within_limit(function):
    async with asyncio.timeout(CASE_LIMIT_S):
        await function()


if __name__ == "__main__":
    main(lambda function: asyncio.run(within_limit(function)))
