"""Dead-lettering (M32, M33) and length limits of classic queues."""

import time

from amqp import Field
from harness import case, cases, expect
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


# The record of deaths is the broker's own -----------------------------------------------------------


def deaths(content):
    """Queue, reason and count of each death, newest first."""
    record = plain(content.properties["headers"]["x-death"])
    return [(death["queue"], death["reason"], death["count"]) for death in record]


ELSEWHERE = {"queue": "elsewhere", "reason": "rejected", "count": 7}


@cases(
    [
        ("dead_letter/M33-x-death-of-another-type", "not even an array", "not even an array", []),
        ("dead_letter/M33-x-death-empty", [], [], []),
        (
            "dead_letter/M33-x-death-of-a-client",
            [{**ELSEWHERE, "count": Field("l", 7)}],
            [ELSEWHERE],
            [("elsewhere", "rejected", 7)],
        ),
    ]
)
def forged(test, sent, seen, kept):
    channel, queue, dead, _ = pair(test)
    channel.publish(queue, b"x", {"headers": {"x-death": sent, "mine": 1}})
    # It is a header like any other until the message dies.
    got = channel.get(queue, no_ack=False)
    check_equal("x-death", plain(got.properties["headers"]["x-death"]), seen)
    channel.send("basic.reject", delivery_tag=1, requeue=False)
    (got,) = arrived(channel, dead)
    # Until 4.0 the broker added to what it found.
    check_equal("deaths", deaths(got), [(queue, "rejected", 1), *expect(rabbitmq=kept, warren=[])])
    check_equal("another header", plain(got.properties["headers"]["mine"]), 1)


@case("dead_letter/M33-a-client-that-publishes-a-dead-letter-again")
def published_again(test):
    channel, queue, dead, _ = pair(test)
    properties = {"headers": {"mine": 1}}
    sizes = set()
    for count in range(1, 5):
        channel.publish(queue, b"x", properties)
        reject_one(channel, queue)
        (got,) = arrived(channel, dead)
        # Each time it is a new message, whose record begins anew.
        check_equal("deaths", deaths(got), [(queue, "rejected", expect(rabbitmq=count, warren=1))])
        properties = {"headers": got.properties["headers"]}
        sizes.add(len(got.raw_properties))
    check_equal("sizes", len(sizes), 1)


@case("dead_letter/M32-a-client-cannot-break-a-cycle")
def unbroken_cycle(test):
    channel = test.channel()
    name = test.name()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name, "x-message-ttl": 50}
    queue = channel.queue(name, arguments=arguments)
    # As if it had been rejected elsewhere.
    rejection = {"queue": "elsewhere", "reason": "rejected", "count": Field("l", 1)}
    channel.publish(queue, b"x", {"headers": {"x-death": [rejection]}})
    time.sleep(0.5)
    channel.get_empty(queue)


@case("dead_letter/M32-a-client-cannot-make-a-cycle")
def forged_cycle(test):
    channel, queue, dead, _ = pair(test, {"x-max-length": 0})
    expiry = {"queue": dead, "reason": "expired", "count": Field("l", 1)}
    channel.publish(queue, b"x", {"headers": {"x-death": [expiry]}})
    # Until 4.0 the header was believed.
    if expect(rabbitmq=False, warren=True):
        check_equal("deaths", deaths(arrived(channel, dead)[0]), [(queue, "maxlen", 1)])
    else:
        time.sleep(0.2)
        channel.get_empty(dead)


@case("dead_letter/M32-a-rejection-breaks-the-cycle")
def broken_cycle(test):
    channel = test.channel()
    one, two = test.name(), test.name()
    for queue, other, ttl in ((one, two, 1), (two, one, None)):
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": other}
        channel.queue(queue, arguments={**arguments, **({"x-message-ttl": ttl} if ttl else {})})
    channel.publish(one, b"x")
    for count in range(1, 4):
        channel.ready(two, 1)
        got = channel.get(two, no_ack=False)
        earlier = [(two, "rejected", count - 1)] if count > 1 else []
        check_equal("deaths", deaths(got), [(one, "expired", count), *earlier])
        channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=False)


@case("dead_letter/M32-a-queue-that-is-its-own-place-for-dead-letters")
def own_place(test):
    channel = test.channel()
    name = test.name()
    queue = channel.queue(name, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name})
    channel.publish(queue, b"x")
    for count in range(1, 4):
        reject_one(channel, queue)
        channel.ready(queue, 1)
        got = channel.get(queue, no_ack=False)
        check_equal("deaths", deaths(got), [(queue, "rejected", count)])
        channel.send("basic.reject", delivery_tag=got.method.delivery_tag, requeue=True)
        channel.ready(queue, 1)


@case("dead_letter/M33-one-entry-for-each-queue-and-reason")
def entries(test):
    channel = test.channel()
    dead = channel.queue()
    name = test.name()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name}
    queue = channel.queue(name, arguments=arguments)
    other = channel.queue(test.name(), arguments={**arguments, "x-max-length": 0})
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    channel.ready(queue, 1)
    reject_one(channel, queue)
    channel.ready(queue, 1)
    got = channel.get(queue)
    check_equal("deaths", deaths(got), [(queue, "rejected", 2)])
    channel.publish(other, b"y")
    channel.ready(queue, 1)
    reject_one(channel, queue)
    channel.ready(queue, 1)
    got = channel.get(queue)
    check_equal("deaths", deaths(got), [(queue, "rejected", 1), (other, "maxlen", 1)])
    headers = {key: plain(value) for key, value in got.properties["headers"].items()}
    first = {"reason": "maxlen", "queue": other, "exchange": ""}
    last = {"reason": "rejected", "queue": queue, "exchange": ""}
    for aspect in first:
        check_equal(f"x-first-death-{aspect}", headers[f"x-first-death-{aspect}"], first[aspect])
        # The headers of the last death came with 4.0.
        wanted = expect(rabbitmq=None, warren=last[aspect])
        check_equal(f"x-last-death-{aspect}", headers.get(f"x-last-death-{aspect}"), wanted)
    channel.get_empty(dead)


@case("dead_letter/M33-the-exchange-and-keys-of-each-death")
def second_death(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "fanout")
    dead = channel.queue()
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    middle = channel.queue(test.name(), arguments=arguments)
    channel.bind(middle, exchange)
    queue = channel.queue(
        test.name(), arguments={"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "middle"}
    )
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    channel.ready(middle, 1)
    reject_one(channel, middle)
    (got,) = arrived(channel, dead)
    record = plain(got.properties["headers"]["x-death"])
    seen = [(death["queue"], death["exchange"], death["routing-keys"]) for death in record]
    check_equal("deaths", seen, [(middle, exchange, ["middle"]), (queue, "", [queue])])


# Where they go ---------------------------------------------------------------------------------------


@case("dead_letter/M32-the-key-of-its-own-and-cc")
def own_key_and_cc(test):
    channel = test.channel()
    exchange = channel.exchange(test.name())
    by_key, by_cc = channel.queue(), channel.queue()
    channel.bind(by_key, exchange, "key")
    channel.bind(by_cc, exchange, "copy")
    arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "key"}
    queue = channel.queue(test.name(), arguments=arguments)
    channel.publish(queue, b"x", {"headers": {"CC": ["copy"]}})
    reject_one(channel, queue)
    (got,) = arrived(channel, by_key)
    headers = {key: plain(value) for key, value in got.properties["headers"].items()}
    check_equal("routing-keys", headers["x-death"][0]["routing-keys"], [queue, "copy"])
    # Until 4.0 the header was removed.
    check_equal("CC", headers.get("CC"), expect(rabbitmq=None, warren=["copy"]))
    channel.get_empty(by_cc)


@case("dead_letter/M32-bcc-is-a-key-of-the-dead-letter-too")
def bcc(test):
    channel = test.channel()
    exchange = channel.exchange(test.name())
    dead = channel.queue()
    channel.bind(dead, exchange, "hidden")
    queue = channel.queue(test.name(), arguments={"x-dead-letter-exchange": exchange})
    channel.publish(queue, b"x", {"headers": {"BCC": ["hidden"]}})
    reject_one(channel, queue)
    (got,) = arrived(channel, dead)
    check_equal("key", got.method.routing_key, queue)
    headers = {key: plain(value) for key, value in got.properties["headers"].items()}
    check_equal("routing-keys", headers["x-death"][0]["routing-keys"], [queue])
    check_equal("BCC", headers.get("BCC"), None)


@case("dead_letter/M32-to-an-internal-exchange")
def internal(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "fanout", internal=True)
    dead = channel.queue()
    channel.bind(dead, exchange)
    queue = channel.queue(test.name(), arguments={"x-dead-letter-exchange": exchange})
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    check_equal("body", arrived(channel, dead)[0].body, b"x")


@case("dead_letter/M32-M34-by-the-alternate-exchange")
def alternate(test):
    channel = test.channel()
    other = channel.exchange(test.name(), "fanout")
    exchange = channel.exchange(test.name(), "direct", arguments={"alternate-exchange": other})
    dead = channel.queue()
    channel.bind(dead, other)
    queue = channel.queue(test.name(), arguments={"x-dead-letter-exchange": exchange})
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    check_equal("exchange", arrived(channel, dead)[0].method.exchange, exchange)


@case("dead_letter/M32-to-several-queues")
def several(test):
    channel = test.channel()
    exchange = channel.exchange(test.name(), "fanout")
    places = [channel.queue() for _ in range(3)]
    for place in places:
        channel.bind(place, exchange)
    queue = channel.queue(test.name(), arguments={"x-dead-letter-exchange": exchange})
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    for place in places:
        check_equal("deaths", deaths(arrived(channel, place)[0]), [(queue, "rejected", 1)])


@case("dead_letter/M32-unroutable-ones-are-dropped")
def unroutable(test):
    channel = test.channel()
    exchange = channel.exchange(test.name())
    queue = channel.queue(test.name(), arguments={"x-dead-letter-exchange": exchange})
    channel.publish(queue, b"x")
    reject_one(channel, queue)
    channel.ready(queue, 0)
    channel.alive()


@case("dead_letter/M32-priority-and-other-properties-stay")
def properties_stay(test):
    channel = test.channel()
    dead = channel.queue(arguments={"x-max-priority": 5})
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue = channel.queue(test.name(), arguments=arguments)
    for body, priority in ((b"low", 1), (b"high", 4)):
        channel.publish(queue, body, {"priority": priority, "content_type": "a/b", "correlation_id": "c"})
    for _ in range(2):
        reject_one(channel, queue)
    got = arrived(channel, dead, 2)
    check_equal("order", [message.body for message in got], [b"high", b"low"])
    kept = [got[0].properties[name] for name in ("priority", "content_type", "correlation_id")]
    check_equal("properties", kept, [4, "a/b", "c"])


@cases(
    [
        ("dead_letter/M32-purge-makes-none", "queue.purge"),
        ("dead_letter/M32-delete-makes-none", "queue.delete"),
    ]
)
def no_letters(test, method):
    channel, queue, dead, _ = pair(test)
    channel.publish(queue, b"x")
    channel.ready(queue, 1)
    channel.call(method, queue=queue)
    time.sleep(0.1)
    channel.get_empty(dead)
