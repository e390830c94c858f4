"""Celery with real workers, and kombu's own API: what their users do with the broker."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

from kombu import Connection, Consumer, Exchange, Producer, Queue

from cases import HOST, PORT, WAIT_LIMIT_S, NotApplicable, case, check, equal, main, raises, unique, wait_until
from proxy import Proxy

BROKER = "amqp://guest:guest@%s:%d//" % (HOST, PORT)
os.environ.update(INTEROP_PREFIX=unique("celery"), INTEROP_BROKER=BROKER)

import tasks  # noqa: E402 - reads the environment set above

RESULT_LIMIT_S = 20  # a worker takes some seconds to start
workers = {}


def start_worker(application="classic", broker=BROKER):
    """A worker as a process of its own, with the solo pool; its log goes to this program's stderr."""
    command = [sys.executable, "-m", "celery", "-A", "tasks:" + application, "worker", "--pool", "solo",
               "--loglevel", "INFO", "--hostname", unique(application)]
    return subprocess.Popen(command, env=dict(os.environ, INTEROP_BROKER=broker), stdin=subprocess.DEVNULL,
                            stdout=sys.stderr)


def stop_worker(process):
    # SIGTERM asks for a warm shutdown: the worker finishes what it is at, and says goodbye to the broker.
    process.terminate()
    try:
        process.wait(WAIT_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def own_worker(*args, **kwargs):
    """A worker for one case, which must not share the queue with that of the other cases."""
    stop_shared_worker()
    process = start_worker(*args, **kwargs)
    try:
        yield process
    finally:
        stop_worker(process)


def need_shared_worker():
    if "shared" not in workers:
        workers["shared"] = start_worker()
    # Starting is the slow part, so it happens once.
    equal(result(tasks.add.delay(0, 0)), 0, "first result of the worker")


def stop_shared_worker():
    if "shared" in workers:
        stop_worker(workers.pop("shared"))


def result(task):
    return task.get(timeout=RESULT_LIMIT_S)


def delete_objects(queues=(), exchanges=()):
    with Connection(BROKER) as connection:
        channel = connection.channel()
        for queue in queues:
            channel.queue_delete(queue)
        for exchange in exchanges:
            channel.exchange_delete(exchange)


@case
def results():
    need_shared_worker()
    equal(result(tasks.add.delay(2, 3)), 5, "result of add")
    value = {"text": "r\u00e9sum\u00e9 \u5154", "list": [1, 2.5, None, True], "nested": {"key": "x" * 100000}}
    equal(result(tasks.echo.delay(value)), value, "result of echo")

    many = [tasks.add.delay(n, n) for n in range(20)]
    equal([result(task) for task in many], [2 * n for n in range(20)], "results")

    failed = tasks.fail.delay()
    error = raises(ValueError, result, failed)
    equal((str(error), failed.state), ("as it should", "FAILURE"), "failure")

    equal(result((tasks.add.s(1, 2) | tasks.add.s(10)).delay()), 13, "result of the chain")
    equal(result(tasks.echo.apply_async(("zipped",), priority=9, compression="zlib")), "zipped", "result")


@case
def retry():
    need_shared_worker()
    equal(result(tasks.succeed_at_third_try.delay()), 2, "retries")


@case
def countdown():
    need_shared_worker()
    start = time.monotonic()
    later = tasks.echo.apply_async(("later",), countdown=1.5)
    # The worker holds the delayed task unacked, which must not keep others from it.
    equal(result(tasks.echo.delay("now")), "now", "result")
    check(time.monotonic() - start < 1.5, "the undelayed task waited for the delayed one")
    equal(result(later), "later", "result")
    check(time.monotonic() - start >= 1.5, "the task ran %.2f s after it was sent" % (time.monotonic() - start))


@case
def remote_control():
    need_shared_worker()
    [answer] = tasks.classic.control.ping(timeout=WAIT_LIMIT_S, limit=1)
    [(name, pong)] = answer.items()
    equal(pong, {"ok": "pong"}, "answer")
    inspect = tasks.classic.control.inspect(destination=[name], timeout=WAIT_LIMIT_S, limit=1)
    equal([queue["name"] for queue in inspect.active_queues()[name]], [tasks.PREFIX + "-classic"], "active queues")


@case
def events():
    need_shared_worker()
    # What monitors such as Flower do: an expiring queue with a TTL, bound to a topic exchange.
    received = []
    with Connection(BROKER) as connection:
        receiver = tasks.classic.events.Receiver(connection, handlers={"*": received.append})
        with receiver.consumer_context(wakeup=False) as (consuming, _, _):
            task = tasks.add.delay(1, 1)

            def types():
                return [event["type"] for event in received if event.get("uuid") == task.id]

            wait_until(lambda: "task-succeeded" in types(), "the event of the task's success",
                       step=lambda: drain(consuming))
            equal(types(), ["task-received", "task-started", "task-succeeded"], "events of the task")


def drain(connection):
    try:
        connection.drain_events(timeout=0.1)
    except TimeoutError:
        pass


@case
def acks_late():
    with own_worker() as process:
        task = tasks.die_once.delay()
        wait_until(lambda: process.poll() is not None, "the worker to die", limit_s=RESULT_LIMIT_S)
    with own_worker():
        equal(result(task), "survived", "result of the redelivered task")


@case
def reconnect():
    proxy = Proxy(HOST, PORT)
    with own_worker(broker="amqp://guest:guest@%s:%d//" % (proxy.host, proxy.port)) as process:
        equal(result(tasks.echo.delay("before")), "before", "result")
        held = tasks.echo.apply_async(("held",), countdown=2)
        # What was sent after it has been executed, so the worker has it too.
        equal(result(tasks.echo.delay("after it")), "after it", "result")
        proxy.cut()
        equal(result(tasks.echo.delay("after the cut")), "after the cut", "result")
        equal(result(held), "held", "result of the task that the worker held unacked")
        equal(process.poll(), None, "exit status of the worker")


@case
def native_delayed_delivery():
    """With quorum queues, Celery delays tasks in the broker: 28 levels of TTL queues, dead-lettered downwards."""
    need_quorum_queues()
    levels = ["celery_delayed_%d" % level for level in range(28)]
    try:
        with own_worker("quorum"):
            equal(result(tasks.quorum.send_task("tasks.echo", ("prompt",))), "prompt", "result")
            start = time.monotonic()
            equal(result(tasks.quorum.send_task("tasks.echo", ("late",), countdown=3)), "late", "result")
            waited = time.monotonic() - start
            check(3 <= waited < 10, "the task ran %.2f s after it was sent" % waited)
    finally:
        delete_objects(levels, levels + ["celery_delayed_delivery"])


def need_quorum_queues():
    name = unique("quorum")
    with Connection(BROKER) as connection:
        try:
            connection.channel().queue_declare(name, durable=True, auto_delete=False,
                                               arguments={"x-queue-type": "quorum"})
        except connection.channel_errors as error:
            # Any other refusal is one for the case to fail with.
            if "queue type 'quorum' is not available" in str(error):
                raise NotApplicable("the broker has no quorum queues")
            raise
    delete_objects([name])


@case
def kombu_producer_consumer():
    exchange = Exchange(unique("kombu"), "topic", durable=True)
    queue = Queue(unique("kombu"), exchange, routing_key="kombu.#", max_length=100)
    received = []

    def on_message(body, message):
        received.append((body, message.headers, message.properties["priority"], message.content_type))
        message.ack()

    sent = [({"n": n, "blob": "x" * 1000}, serializer) for n, serializer in enumerate(["json", "pickle", "json"])]
    with Connection(BROKER, transport_options={"confirm_publish": True}) as connection:
        producer = Producer(connection.channel())
        for body, serializer in sent:
            producer.publish(body, exchange=exchange, routing_key="kombu.test", declare=[queue], serializer=serializer,
                             compression="gzip", priority=3, headers={"n": body["n"]}, retry=True,
                             retry_policy={"max_retries": 3})
        with Consumer(connection, queue, callbacks=[on_message], accept=["json", "pickle"], prefetch_count=1):
            wait_until(lambda: len(received) >= len(sent), "the messages", step=lambda: drain(connection))
        equal([body for body, _, _, _ in received], [body for body, _ in sent], "bodies")
        equal([headers["n"] for _, headers, _, _ in received], [body["n"] for body, _ in sent], "headers")
        equal([priority for _, _, priority, _ in received], [3] * len(sent), "priorities")
        equal(queue(connection.default_channel).queue_declare(passive=True).message_count, 0, "ready messages")
    delete_objects([queue.name], [exchange.name])


@case
def simple_queue():
    name = unique("simple")
    with Connection(BROKER) as connection:
        with connection.SimpleQueue(name) as queue:
            for n in range(5):
                queue.put({"n": n})
            # The size is asked for on another channel than that of the messages.
            wait_until(lambda: queue.qsize() == 5, "the messages to be in the queue")
            first = queue.get(timeout=WAIT_LIMIT_S)
            equal(first.payload, {"n": 0}, "payload")
            first.requeue()
            again = [queue.get(timeout=WAIT_LIMIT_S) for _ in range(5)]
            equal(sorted(message.payload["n"] for message in again), list(range(5)), "payloads")
            for message in again:
                message.ack()
            raises(queue.Empty, queue.get, timeout=0.2)
            equal(queue.qsize(), 0, "size")
    delete_objects([name], [name])


def cleanup():
    stop_shared_worker()
    for name in (tasks.PREFIX + "-classic", tasks.PREFIX + "-quorum"):
        mailbox = name + "-control.pidbox"
        delete_objects([name], [name, name + "-events", mailbox, "reply." + mailbox])


if __name__ == "__main__":
    main(cleanup=cleanup)
