"""Dead-lettering (M32, M33) and length limits of classic queues."""

import time

from amqp import Field
from harness import case, cases
from peer import check, check_equal


def pair(test, arguments=None, **declare):
    """A queue whose dead letters go through an exchange to a second queue."""
    channel = test.channel()
    exchange = channel.exchange(test.name(), "topic")
    dead = channel.queue(test.name())
    channel.bind(dead, exchange, "#")
    arguments = {"x-dead-letter-exchange": exchange, **(arguments or {})}
    queue = channel.queue(test.name(), arguments=arguments, **declare)
    return channel, queue, dead, exchange


def arrived(channel, queue, count=1):
    channel.ready(queue, count)
    return [channel.get(queue) for _ in range(count)]


def reject_one(channel, queue):
    got = channel.get(queue, no_ack=False)
    channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=False)


def plain(value):
    """A decoded field without its types."""
    content = value.value
    if isinstance(content, dict):
        return {name: plain(item) for name, item in content.items()}
    if isinstance(content, list):
        return [plain(item) for item in content]
    return content


@case("dead_letter/M32-rejected")
def rejected(test):
    channel, queue, dead, exchange = pair(test)
    before = int(time.time())
    channel.publish(queue, b"x", {"headers": {"k": 1}, "message_id": "m", "delivery_mode": 2})
    reject_one(channel, queue)
    got = arrived(channel, dead)[0]
    check_equal("body", got.body, b"x")
    check_equal("exchange, key", (got.method.exchange, got.method.routing_key), (exchange, queue))
    check_equal("redelivered", got.method.redelivered, False)
    check_equal("message id, mode", (got.properties["message_id"], got.properties["delivery_mode"]), ("m", 2))
    headers = got.properties["headers"]
    check_equal("header", headers["k"], Field("I", 1))
    check_equal("x-death type", headers["x-death"].tag, "A")
    (death,) = headers["x-death"].value
    check_equal("entry type", death.tag, "F")
    when = death.value.pop("time")
    check_equal("time type", when.tag, "T")
    check(before <= when.value <= time.time() + 1, f"time of death {when.value}")
    wanted = {
        "count": Field("l", 1),
        "reason": Field("S", "rejected"),
        "queue": Field("S", queue),
        "exchange": Field("S", ""),
        "routing-keys": Field("A", [Field("S", queue)]),
    }
    check_equal("x-death", death.value, wanted)
    for name, value in (("reason", "rejected"), ("queue", queue), ("exchange", "")):
        check_equal(f"x-first-death-{name}", headers[f"x-first-death-{name}"], Field("S", value))


@cases(
    [
        ("dead_letter/M32-message-expired", {}, {"expiration": "1"}, "1"),
        ("dead_letter/M32-queue-ttl-expired", {"x-message-ttl": 1}, {}, None),
    ]
)
def expired(test, arguments, properties, original):
    channel, queue, dead, _ = pair(test, arguments)
    channel.publish(queue, b"x", properties)
    got = arrived(channel, dead)[0]
    (death,) = plain(got.properties["headers"]["x-death"])
    check_equal("reason", death["reason"], "expired")
    check_equal("original-expiration", death.get("original-expiration"), original)
    check("expiration" not in got.properties, "the expiration property is still there")


@case("dead_letter/M32-maxlen-drop-head")
def maxlen(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 2})
    for number in range(4):
        channel.publish(queue, b"%d" % number)
    bodies = []
    for got in arrived(channel, dead, 2):
        (death,) = plain(got.properties["headers"]["x-death"])
        check_equal("reason", death["reason"], "maxlen")
        bodies.append(got.body)
    check_equal("dead", bodies, [b"0", b"1"])
    check_equal("left", channel.drain(queue), [b"2", b"3"])


@case("dead_letter/maxlen-bytes")
def maxlen_bytes(test):
    channel, queue, dead, _ = pair(test, {"x-max-length-bytes": 10})
    for body in (b"aaaa", b"bbbb", b"cccc"):
        channel.publish(queue, body)
    check_equal("dead", [got.body for got in arrived(channel, dead)], [b"aaaa"])
    check_equal("left", channel.drain(queue), [b"bbbb", b"cccc"])


@case("dead_letter/maxlen-reject-publish")
def reject_publish(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.call("confirm.select")
    channel.publish(queue, b"0")
    channel.expect("basic.ack", delivery_tag=1)
    channel.publish(queue, b"1")
    channel.expect("basic.nack", delivery_tag=2)
    check_equal("left", channel.drain(queue), [b"0"])
    check_equal("dead", channel.drain(dead), [])


@case("dead_letter/maxlen-reject-publish-dlx")
def reject_publish_dlx(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 1, "x-overflow": "reject-publish-dlx"})
    channel.publish(queue, b"0")
    channel.publish(queue, b"1")
    got = arrived(channel, dead)[0]
    (death,) = plain(got.properties["headers"]["x-death"])
    check_equal("body, reason", (got.body, death["reason"]), (b"1", "maxlen"))
    check_equal("left", channel.drain(queue), [b"0"])


@case("dead_letter/M32-routing-key-of-its-own")
def own_key(test):
    channel, queue, dead, exchange = pair(test, {"x-dead-letter-routing-key": "own"})
    channel.publish(queue, b"x", {"headers": {"CC": ["nowhere"]}})
    reject_one(channel, queue)
    got = arrived(channel, dead)[0]
    check_equal("key", got.method.routing_key, "own")
    (death,) = plain(got.properties["headers"]["x-death"])
    check_equal("routing-keys", death["routing-keys"], [queue, "nowhere"])


@case("dead_letter/M32-original-keys-including-cc")
def original_keys(test):
    channel = test.channel()
    exchange = channel.exchange(test.name())
    by_key, by_cc = channel.queue(test.name()), channel.queue(test.name())
    queue = channel.queue(test.name(), arguments={"x-dead-letter-exchange": exchange})
    channel.bind(by_key, exchange, queue)
    channel.bind(by_cc, exchange, "copy")
    channel.publish(queue, b"x", {"headers": {"CC": ["copy"], "BCC": ["hidden"]}})
    reject_one(channel, queue)
    for dead in (by_key, by_cc):
        got = arrived(channel, dead)[0]
        (death,) = plain(got.properties["headers"]["x-death"])
        check_equal("routing-keys", death["routing-keys"], [queue, "copy"])


@case("dead_letter/M32-default-exchange")
def default_exchange(test):
    channel = test.channel()
    dead = channel.queue(test.name())
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue = channel.queue(test.name(), arguments=arguments)
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    got = arrived(channel, dead)[0].method
    check_equal("exchange, key", (got.exchange, got.routing_key), ("", dead))


@cases([("dead_letter/M32-missing-exchange", "no such exchange"), ("dead_letter/M32-no-exchange", None)])
def missing_exchange(test, exchange):
    channel = test.channel()
    arguments = {"x-dead-letter-exchange": exchange} if exchange else {}
    queue = channel.queue(test.name(), arguments=arguments)
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    channel.get_empty(queue)
    channel.alive()


@case("dead_letter/M32-nack-multiple-in-order")
def nack_multiple(test):
    channel, queue, dead, _ = pair(test)
    for number in range(5):
        channel.publish(queue, b"%d" % number)
        channel.get(queue, no_ack=False)
    channel.send("basic.nack", delivery_tag=4, multiple=True, requeue=False)
    bodies = [got.body for got in arrived(channel, dead, 4)]
    check_equal("dead", bodies, [b"0", b"1", b"2", b"3"])


@case("dead_letter/M33-repeated-deaths-are-counted")
def repeated(test):
    channel = test.channel()
    retry = test.name()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry}
    work = channel.queue(test.name(), arguments=arguments)
    channel.queue(
        retry,
        arguments={
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": work,
            "x-message-ttl": 1,
        },
    )
    channel.publish(work, b"x")
    for count in range(1, 4):
        reject_one(channel, work)
        channel.ready(work, 1)
        got = channel.get(work, no_ack=False)
        deaths = plain(got.properties["headers"]["x-death"])
        seen = [(death["queue"], death["reason"], death["count"]) for death in deaths]
        check_equal("deaths", seen, [(retry, "expired", count), (work, "rejected", count)])
        headers = {name: plain(value) for name, value in got.properties["headers"].items()}
        check_equal("first death", headers["x-first-death-queue"], work)
        channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=True)


@case("dead_letter/M32-automatic-cycle-is-dropped")
def cycle(test):
    channel = test.channel()
    one, two = test.name(), test.name()
    # Long enough in the second queue to be seen there.
    for queue, other, ttl in ((one, two, 1), (two, one, 500)):
        arguments = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": other,
            "x-message-ttl": ttl,
        }
        channel.queue(queue, arguments=arguments)
    channel.publish(one, b"x")
    channel.ready(two, 1)
    channel.ready(two, 0)
    # It would be back in the first queue by now, since expiry and routing are one step.
    channel.get_empty(one)


@case("dead_letter/maxlen-without-dead-letter-exchange")
def maxlen_plain(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-length": 3})
    for number in range(10):
        channel.publish(queue, b"%d" % number)
    check_equal("left", channel.drain(queue), [b"7", b"8", b"9"])


@case("dead_letter/maxlen-counts-ready-messages-only")
def maxlen_ready(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-length": 1})
    channel.publish(queue, b"0")
    channel.get(queue, no_ack=False)
    channel.publish(queue, b"1")
    check_equal("left", channel.drain(queue), [b"1"])
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    check_equal("left", channel.drain(queue), [b"0"])


@case("dead_letter/Q3-priorities")
def priorities(test):
    channel = test.channel()
    queue = channel.queue(arguments={"x-max-priority": 5})
    for body, properties in (
        (b"none", {}),
        (b"1", {"priority": 1}),
        (b"5", {"priority": 5}),
        (b"clamped", {"priority": 200}),
        (b"1 again", {"priority": 1}),
        (b"0", {"priority": 0}),
    ):
        channel.publish(queue, body, properties)
    wanted = [b"5", b"clamped", b"1", b"1 again", b"none", b"0"]
    check_equal("order", channel.drain(queue), wanted)
