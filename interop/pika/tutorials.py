"""RabbitMQ's seven tutorials, each with its programs as functions over connections of their own."""

import threading
from contextlib import contextmanager

import pika

from cases import HOST, PORT, WAIT_LIMIT_S, check, equal, unique, wait_until


def tutorials():
    hello_world()
    work_queues()
    publish_subscribe()
    routing()
    topics()
    rpc()
    direct_reply_to()
    publisher_confirms()


@contextmanager
def connect():
    parameters = pika.ConnectionParameters(HOST, PORT, socket_timeout=WAIT_LIMIT_S, stack_timeout=WAIT_LIMIT_S)
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection
    finally:
        connection.close()


def consume_until(connection, received, count):
    wait_until(lambda: len(received) >= count, "%d messages" % count,
               step=lambda: connection.process_data_events(0.1))


def hello_world():
    name = unique("hello")
    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare(queue=name)
        channel.basic_publish(exchange="", routing_key=name, body="Hello World!")

    with connect() as connection:
        channel = connection.channel()
        channel.queue_declare(queue=name)
        received = []
        channel.basic_consume(queue=name, auto_ack=True, on_message_callback=lambda *m: received.append(m[3]))
        consume_until(connection, received, 1)
        equal(received, [b"Hello World!"], "hello world")
        channel.queue_delete(name)


def work_queues():
    name = unique("task_queue")
    tasks = [b"task %d" % i + b"." * i for i in range(6)]
    with connect() as first, connect() as second, connect() as sender:
        done = {first: [], second: []}
        for worker in (first, second):
            channel = worker.channel()
            channel.queue_declare(queue=name, durable=True)
            channel.basic_qos(prefetch_count=1)

            def work(ch, method, properties, body, worker=worker):
                done[worker].append(body)
                equal(properties.delivery_mode, 2, "delivery mode")
                ch.basic_ack(delivery_tag=method.delivery_tag)

            channel.basic_consume(queue=name, on_message_callback=work)

        channel = sender.channel()
        for task in tasks:
            channel.basic_publish(exchange="", routing_key=name, body=task, properties=pika.BasicProperties(
                delivery_mode=pika.DeliveryMode.Persistent))

        def both():
            for worker in (first, second):
                worker.process_data_events(0.05)

        wait_until(lambda: sum(map(len, done.values())) == len(tasks), "all tasks", step=both)
        equal(sorted(done[first] + done[second]), tasks, "tasks done")
        check(done[first] and done[second], "one worker did everything: %s" % done)
        channel.queue_delete(name)


def publish_subscribe():
    logs = unique("logs")
    with connect() as connection, connect() as emitter:
        received = []
        for subscriber in ("screen", "file"):
            channel = connection.channel()
            channel.exchange_declare(exchange=logs, exchange_type="fanout")
            queue = channel.queue_declare(queue="", exclusive=True).method.queue
            channel.queue_bind(exchange=logs, queue=queue)
            channel.basic_consume(queue=queue, auto_ack=True, on_message_callback=lambda ch, m, p, body,
                                  subscriber=subscriber: received.append((subscriber, body)))

        channel = emitter.channel()
        channel.exchange_declare(exchange=logs, exchange_type="fanout")
        channel.basic_publish(exchange=logs, routing_key="", body="info: Hello World!")
        consume_until(connection, received, 2)
        equal(sorted(received), [("file", b"info: Hello World!"), ("screen", b"info: Hello World!")], "logs")
        channel.exchange_delete(logs)


def subscribe(connection, exchange, kind, keys, received):
    channel = connection.channel()
    channel.exchange_declare(exchange=exchange, exchange_type=kind)
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for key in keys:
        channel.queue_bind(exchange=exchange, queue=queue, routing_key=key)
    channel.basic_consume(queue=queue, auto_ack=True,
                          on_message_callback=lambda ch, method, p, body: received.append((method.routing_key, body)))


def emit_and_collect(kind, subscriptions, keys):
    """Publishes one message per key, and returns the keys of those that each subscription got."""
    exchange = unique(kind + "_logs")
    with connect() as connection, connect() as emitter:
        received = [[] for _ in subscriptions]
        for subscription, messages in zip(subscriptions, received):
            # The last binding lets the end of the log be recognised.
            subscribe(connection, exchange, kind, subscription + ["end"], messages)
        channel = emitter.channel()
        for key in keys + ["end"]:
            channel.basic_publish(exchange=exchange, routing_key=key, body="log of " + key)
        wait_until(lambda: all(messages and messages[-1][0] == "end" for messages in received), "the end of the logs",
                   step=lambda: connection.process_data_events(0.1))
        for messages in received:
            for key, body in messages:
                equal(body, ("log of " + key).encode(), "body")
        channel.exchange_delete(exchange)
        return [[key for key, _ in messages[:-1]] for messages in received]


def routing():
    got = emit_and_collect("direct", [["error"], ["info", "warning", "error"]], ["info", "warning", "error", "debug"])
    equal(got, [["error"], ["info", "warning", "error"]], "severities")


def topics():
    got = emit_and_collect("topic", [["#"], ["kern.*"], ["*.critical"], ["kern.*", "*.critical"]],
                           ["kern.critical", "kern.info", "cron.critical", "kern", "a.b.critical"])
    equal(got, [["kern.critical", "kern.info", "cron.critical", "kern", "a.b.critical"],
                ["kern.critical", "kern.info"], ["kern.critical", "cron.critical"],
                ["kern.critical", "kern.info", "cron.critical"]], "topics")


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@contextmanager
def rpc_server():
    queue = unique("rpc_queue")
    ready = threading.Event()
    stop = threading.Event()
    failures = []

    def serve():
        try:
            with connect() as connection:
                channel = connection.channel()
                channel.queue_declare(queue=queue, auto_delete=True)
                channel.basic_qos(prefetch_count=1)
                channel.basic_consume(queue=queue, on_message_callback=answer)
                ready.set()
                while not stop.is_set():
                    connection.process_data_events(0.1)
        except Exception as error:
            failures.append(error)

    def answer(channel, method, properties, body):
        channel.basic_publish(exchange="", routing_key=properties.reply_to, body=str(fibonacci(int(body))),
                              properties=pika.BasicProperties(correlation_id=properties.correlation_id))
        channel.basic_ack(delivery_tag=method.delivery_tag)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        check(ready.wait(WAIT_LIMIT_S), "the RPC server did not start: %s" % failures)
        yield queue
    finally:
        stop.set()
        thread.join(WAIT_LIMIT_S)
    equal(failures, [], "failures of the RPC server")


def call_several(connection, channel, rpc_queue, reply_queue):
    replies = {}
    channel.basic_consume(queue=reply_queue, auto_ack=True, on_message_callback=lambda ch, m, properties, body:
                          replies.update({properties.correlation_id: body}))
    numbers = (1, 7, 20)
    for n in numbers:
        channel.basic_publish(exchange="", routing_key=rpc_queue, body=str(n), properties=pika.BasicProperties(
            reply_to=reply_queue, correlation_id="fib-%d" % n))
    consume_until(connection, replies, len(numbers))
    equal(replies, {"fib-%d" % n: b"%d" % fibonacci(n) for n in numbers}, "replies")


def rpc():
    with rpc_server() as rpc_queue, connect() as connection:
        channel = connection.channel()
        callback_queue = channel.queue_declare(queue="", exclusive=True).method.queue
        call_several(connection, channel, rpc_queue, callback_queue)


def direct_reply_to():
    with rpc_server() as rpc_queue, connect() as connection:
        call_several(connection, connection.channel(), rpc_queue, "amq.rabbitmq.reply-to")


def publisher_confirms():
    with connect() as connection:
        channel = connection.channel()
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        channel.confirm_delivery()
        for i in range(50):
            channel.basic_publish(exchange="", routing_key=queue, body=str(i), properties=pika.BasicProperties(
                delivery_mode=pika.DeliveryMode.Persistent))
        equal(channel.queue_declare(queue=queue, passive=True).method.message_count, 50, "confirmed messages")
