"""Messages that expire (M31), wherever they stand, and queues that do (x-expires)."""

import time

from harness import case, cases, expect
from peer import check_equal

from .dead_letter import arrived, pair, plain, reject_one

# Long enough to see that something is still there, even on a machine that has much to do.
SOON = 0.3


def dead_bodies(channel, dead, count):
    """The bodies of that many messages, all of which expired."""
    bodies = []
    for got in arrived(channel, dead, count):
        death = plain(got.properties["headers"]["x-death"])[0]
        check_equal("reason", death["reason"], "expired")
        bodies.append(got.body)
    return bodies


# Behind others -----------------------------------------------------------------------------------


@cases(
    [
        ("expiry/M31-behind-a-longer-lived-message", {"expiration": "60000"}, "50"),
        ("expiry/M31-behind-a-message-that-stays", {}, "50"),
        ("expiry/M31-zero-behind-a-message-that-stays", {}, "0"),
    ]
)
def behind(test, first, expiration):
    channel, queue, dead, _ = pair(test)
    channel.publish(queue, b"first", first)
    channel.publish(queue, b"behind", {"expiration": expiration})
    time.sleep(SOON)
    # RabbitMQ looks at the head only; here it goes on time.
    channel.ready(queue, expect(rabbitmq=2, warren=1))
    channel.ready(dead, expect(rabbitmq=0, warren=1))
    check_equal("first", channel.get(queue).body, b"first")
    channel.get_empty(queue)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"behind"])


@case("expiry/M31-the-order-of-dead-letters-is-that-of-their-times")
def order_of_times(test):
    channel, queue, dead, _ = pair(test)
    for body, expiration in ((b"third", "350"), (b"first", "50"), (b"second", "200")):
        channel.publish(queue, body, {"expiration": expiration})
    wanted = expect(rabbitmq=[b"third", b"first", b"second"], warren=[b"first", b"second", b"third"])
    check_equal("dead", dead_bodies(channel, dead, 3), wanted)


# While consumers work ----------------------------------------------------------------------------


@cases(
    [
        ("expiry/M31-queue-ttl-while-the-consumer-is-busy", {"x-message-ttl": 200}, {}),
        ("expiry/M31-message-ttl-while-the-consumer-is-busy", {}, {"expiration": "200"}),
        ("expiry/M31-both-while-the-consumer-is-busy", {"x-message-ttl": 60000}, {"expiration": "200"}),
    ]
)
def busy(test, arguments, options):
    channel, queue, dead, _ = pair(test, arguments)
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "t")
    channel.publish(queue, b"0", options)
    channel.publish(queue, b"1", options)
    check_equal("delivered", channel.delivery().body, b"0")
    check_equal("dead", dead_bodies(channel, dead, 1), [b"1"])
    # What is being worked on does not expire, and can be acknowledged.
    channel.send("basic.ack", delivery_tag=1)
    channel.publish(queue, b"2", options)
    check_equal("delivered", channel.delivery().body, b"2")


@cases(
    [
        ("expiry/M31-queue-ttl-and-requeue", {"x-message-ttl": 200}, {}),
        ("expiry/M31-message-ttl-and-requeue", {}, {"expiration": "200"}),
        ("expiry/M31-both-and-requeue", {"x-message-ttl": 200}, {"expiration": "60000"}),
    ]
)
def requeued(test, arguments, options):
    channel, queue, dead, _ = pair(test, arguments)
    channel.publish(queue, b"x", options)
    channel.get(queue, no_ack=False)
    time.sleep(SOON)
    channel.ready(dead, 0)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"x"])
    channel.get_empty(queue)


@case("expiry/M31-requeue-does-not-start-the-time-again")
def requeue_resets_nothing(test):
    channel, queue, dead, _ = pair(test, {"x-message-ttl": 600})
    began = time.monotonic()
    channel.publish(queue, b"x")
    for tag in range(1, 4):
        time.sleep(0.1)
        channel.get(queue, no_ack=False)
        channel.send("basic.reject", delivery_tag=tag, requeue=True)
        channel.ready(queue, 1)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"x"])
    check_equal("in time", time.monotonic() - began < 0.85, True)


# Without any time --------------------------------------------------------------------------------


@cases(
    [
        ("expiry/M31-queue-ttl-0", {"x-message-ttl": 0}, {}),
        ("expiry/M31-expiration-0", {}, {"expiration": "0"}),
        ("expiry/M31-expiration-0-in-a-queue-with-ttl", {"x-message-ttl": 60000}, {"expiration": "0"}),
    ]
)
def zero(test, arguments, options):
    channel, queue, dead, _ = pair(test, arguments)
    channel.publish(queue, b"nobody", options)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"nobody"])
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "t")
    channel.publish(queue, b"somebody", options)
    got = channel.delivery()
    check_equal("delivered", got.body, b"somebody")
    channel.publish(queue, b"busy", options)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"busy"])
    # There is no way back either.
    channel.send("basic.cancel", consumer_tag="t")
    channel.expect("basic.cancel-ok")
    channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=True)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"somebody"])


@case("expiry/M31-a-requeued-message-goes-to-a-ready-consumer-only-in-time")
def requeue_to_consumer(test):
    channel, queue, dead, _ = pair(test, {"x-message-ttl": 100})
    channel.publish(queue, b"x")
    got = channel.get(queue, no_ack=False)
    channel.consume(queue, "t", no_ack=True)
    time.sleep(SOON)
    channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=True)
    check_equal("dead", dead_bodies(channel, dead, 1), [b"x"])
    channel.alive()


# Dead letters of messages that had a time --------------------------------------------------------


@case("expiry/M32-a-dead-letter-has-no-expiration-of-its-own")
def no_expiration(test):
    channel, queue, dead, _ = pair(test)
    channel.publish(queue, b"x", {"expiration": "500"})
    reject_one(channel, queue)
    (got,) = arrived(channel, dead)
    (death,) = plain(got.properties["headers"]["x-death"])
    check_equal("reason, expiration", (death["reason"], death["original-expiration"]), ("rejected", "500"))
    check_equal("expiration", got.properties.get("expiration"), None)


@case("expiry/M33-original-expiration-is-a-number")
def spelling(test):
    channel, queue, dead, _ = pair(test)
    channel.publish(queue, b"x", {"expiration": "0010"})
    (got,) = arrived(channel, dead)
    (death,) = plain(got.properties["headers"]["x-death"])
    # Before 4.0 it was kept as it came.
    check_equal("expiration", death["original-expiration"], expect(rabbitmq="0010", warren="10"))


# Queues ------------------------------------------------------------------------------------------


def gone(channel, queue):
    channel.send("queue.declare", queue=queue, passive=True)
    channel.refused(404, f"no queue '{queue}' in vhost '/'", "queue.declare")


def expiring(test, ms):
    channel = test.channel()
    return channel, channel.queue(test.name(), exclusive=False, arguments={"x-expires": ms})


@case("expiry/queue-that-nobody-uses")
def unused_queue(test):
    channel, queue = expiring(test, 200)
    # Publishing is not use.
    channel.publish(queue, b"x")
    time.sleep(0.6)
    gone(channel, queue)


@case("expiry/queue-that-never-had-a-message")
def empty_queue(test):
    channel, queue = expiring(test, 200)
    time.sleep(0.6)
    gone(channel, queue)


@case("expiry/queue-with-a-consumer")
def used_queue(test):
    channel, queue = expiring(test, 300)
    channel.consume(queue, "t")
    time.sleep(0.8)
    channel.call("queue.declare", queue=queue, passive=True)
    channel.call("basic.cancel", consumer_tag="t")
    time.sleep(0.8)
    gone(channel, queue)


@cases(
    [
        ("expiry/queue-that-is-asked-for-messages", "get"),
        ("expiry/queue-that-is-declared-again", "declare"),
        ("expiry/queue-that-is-declared-passively", "passive"),
    ]
)
def renewed(test, how):
    channel, queue = expiring(test, 600)
    for _ in range(4):
        time.sleep(0.3)
        if how == "get":
            channel.get_empty(queue)
        elif how == "declare":
            channel.queue(queue, exclusive=False, arguments={"x-expires": 600})
        else:
            channel.call("queue.declare", queue=queue, passive=True)
    time.sleep(1.2)
    gone(channel, queue)


@case("expiry/queue-goes-without-dead-letters")
def no_dead_letters(test):
    channel = test.channel()
    dead = channel.queue()
    arguments = {"x-expires": 200, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue = channel.queue(test.name(), exclusive=False, arguments=arguments)
    channel.publish(queue, b"x")
    time.sleep(0.6)
    gone(channel, queue)
    other = test.channel()
    other.queue(test.name())
    channel.call("channel.open")
    channel.get_empty(dead)


@case("expiry/queue-goes-with-its-unacked-messages")
def unacked(test):
    channel, queue = expiring(test, 200)
    channel.publish(queue, b"x")
    channel.get(queue, no_ack=False)
    time.sleep(0.6)
    channel.send("basic.ack", delivery_tag=1)
    gone(channel, queue)


@case("expiry/queue-of-another-time-is-another-queue")
def other_time(test):
    channel, queue = expiring(test, 60000)
    channel.send("queue.declare", queue=queue, arguments={"x-expires": 60001})
    text = f"inequivalent arg 'x-expires' for queue '{queue}' in vhost '/': "
    channel.refused(406, text + "received '60001' but current is '60000'", "queue.declare")
