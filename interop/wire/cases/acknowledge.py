"""basic.get, ack, nack, reject and recover: tags, order after requeue, redelivered."""

from harness import case, cases
from peer import check_equal


def fetched(test, count):
    """A channel that has fetched messages b"0", b"1", ... without acknowledging them."""
    channel = test.channel()
    queue = channel.queue(test.name())
    for number in range(count):
        channel.publish(queue, b"%d" % number)
    for number in range(count):
        got = channel.get(queue, no_ack=False)
        check_equal("body, tag", (got.body, got.method.delivery_tag), (b"%d" % number, number + 1))
        check_equal("redelivered", got.method.redelivered, False)
    return channel, queue


def left(channel, queue):
    """(body, redelivered) of everything in the queue, which is then empty."""
    messages = channel.rest(queue)
    return [(message.body.decode(), message.method.redelivered) for message in messages]


def redelivered(*bodies):
    return [(body, True) for body in bodies]


# M25: get --------------------------------------------------------------------------------------


@case("acknowledge/M25-get-ok-has-the-remaining-count")
def get_counts(test):
    channel = test.channel()
    queue = channel.queue()
    for _ in range(3):
        channel.publish(queue, b"x")
    for count in (2, 1, 0):
        channel.send("basic.get", queue=queue, no_ack=True)
        channel.content(
            "basic.get-ok", message_count=count, exchange="", routing_key=queue, redelivered=False
        )
    channel.get_empty(queue)


@case("acknowledge/M25-get-empty-has-an-empty-cluster-id")
def get_empty(test):
    channel = test.channel()
    queue = channel.queue()
    for no_ack in (False, True):
        channel.send("basic.get", queue=queue, no_ack=no_ack)
        channel.expect("basic.get-empty", cluster_id="")


@case("acknowledge/M26-tags-count-over-consumers-and-gets")
def common_tags(test):
    channel = test.channel()
    one, two = channel.queue(test.name()), channel.queue(test.name())
    channel.consume(one, "acks")
    channel.consume(two, "no acks", no_ack=True)
    third = channel.queue(test.name())
    for tag, queue in enumerate((one, two, one, two), 1):
        channel.publish(queue, b"x")
        channel.delivery(delivery_tag=tag)
    channel.publish(third, b"x")
    check_equal("tag", channel.get(third, no_ack=False).method.delivery_tag, 5)
    channel.publish(third, b"x")
    check_equal("tag", channel.get(third, no_ack=True).method.delivery_tag, 6)
    other = channel.peer.channel(2)
    other.publish(third, b"x")
    check_equal("tag of another channel", other.get(third).method.delivery_tag, 1)


# M26: settling -----------------------------------------------------------------------------------


@case("acknowledge/M26-ack-one")
def ack_one(test):
    channel, queue = fetched(test, 3)
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.nack", delivery_tag=0, multiple=True, requeue=True)
    check_equal("left", left(channel, queue), redelivered("0", "2"))


@case("acknowledge/M26-ack-multiple")
def ack_multiple(test):
    channel, queue = fetched(test, 4)
    channel.send("basic.ack", delivery_tag=3, multiple=True)
    channel.send("basic.reject", delivery_tag=4, requeue=True)
    check_equal("left", left(channel, queue), redelivered("3"))


@case("acknowledge/M26-ack-multiple-over-a-gap")
def ack_multiple_gap(test):
    channel, queue = fetched(test, 5)
    channel.send("basic.ack", delivery_tag=2)
    channel.send("basic.ack", delivery_tag=4, multiple=True)
    channel.send("basic.nack", delivery_tag=5, multiple=True, requeue=True)
    check_equal("left", left(channel, queue), redelivered("4"))


@case("acknowledge/M26-multiple-with-tag-0-is-everything")
def all_of_them(test):
    channel, queue = fetched(test, 3)
    channel.send("basic.ack", delivery_tag=0, multiple=True)
    channel.close()
    channel.call("channel.open")
    check_equal("left", left(channel, queue), [])


@case("acknowledge/M26-multiple-with-tag-0-and-nothing-outstanding")
def nothing_outstanding(test):
    channel = test.channel()
    channel.send("basic.ack", delivery_tag=0, multiple=True)
    channel.send("basic.nack", delivery_tag=0, multiple=True)
    channel.alive()


UNKNOWN = [
    ("ack", {"delivery_tag": 7}),
    ("nack", {"delivery_tag": 7}),
    ("reject", {"delivery_tag": 7}),
    ("ack", {"delivery_tag": 0}),
    ("nack", {"delivery_tag": 0}),
    ("reject", {"delivery_tag": 0}),
    ("ack", {"delivery_tag": 5, "multiple": True}),
    ("nack", {"delivery_tag": 5, "multiple": True}),
    ("ack", {"delivery_tag": 2**64 - 1}),
    ("ack", {"delivery_tag": 2**64 - 1, "multiple": True}),
    ("reject", {"delivery_tag": 2**63}),
]


@cases([(f"acknowledge/M26-unknown-tag-{number}-{row[0]}", *row) for number, row in enumerate(UNKNOWN, 1)])
def unknown_tag(test, name, arguments):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.send(f"basic.{name}", **arguments)
    channel.refused(406, f"unknown delivery tag {arguments['delivery_tag']}", f"basic.{name}")
    other.alive()
    channel.call("channel.open")


@cases([(f"acknowledge/M26-{name}-twice", name) for name in ("ack", "nack", "reject")])
def twice(test, name):
    channel, _ = fetched(test, 2)
    channel.send(f"basic.{name}", delivery_tag=1)
    channel.send(f"basic.{name}", delivery_tag=1)
    channel.refused(406, "unknown delivery tag 1", f"basic.{name}")


@case("acknowledge/M26-multiple-beyond-the-last-settles-nothing")
def beyond_the_last(test):
    channel, queue = fetched(test, 2)
    channel.send("basic.ack", delivery_tag=3, multiple=True)
    channel.refused(406, "unknown delivery tag 3", "basic.ack")
    channel.call("channel.open")
    channel.ready(queue, 2)
    check_equal("left", left(channel, queue), redelivered("0", "1"))


@case("acknowledge/M26-multiple-with-a-tag-settled-before")
def settled_before(test):
    # 406 in spite of unsettled tags below it.
    channel, _ = fetched(test, 3)
    channel.send("basic.ack", delivery_tag=3)
    channel.send("basic.ack", delivery_tag=3, multiple=True)
    channel.refused(406, "unknown delivery tag 3", "basic.ack")


@case("acknowledge/M26-tags-are-per-channel")
def per_channel(test):
    channel, _ = fetched(test, 1)
    other = channel.peer.channel(2)
    other.send("basic.ack", delivery_tag=1)
    other.refused(406, "unknown delivery tag 1", "basic.ack")
    channel.send("basic.ack", delivery_tag=1)
    channel.alive()


# M27: requeue ------------------------------------------------------------------------------------


@cases(
    [
        ("acknowledge/M27-reject-requeue-goes-back-to-its-place", "reject", {}),
        ("acknowledge/M27-nack-requeue-goes-back-to-its-place", "nack", {}),
    ]
)
def original_place(test, name, arguments):
    channel = test.channel()
    queue = channel.queue()
    for number in range(4):
        channel.publish(queue, b"%d" % number)
    tags = [channel.get(queue, no_ack=False).method.delivery_tag for _ in range(3)]
    # Out of order, yet each to its own place.
    for tag in (tags[1], tags[0]):
        channel.send(f"basic.{name}", delivery_tag=tag, requeue=True, **arguments)
    wanted = [("0", True), ("1", True), ("3", False)]
    check_equal("left", left(channel, queue), wanted)


@case("acknowledge/M27-nack-multiple-requeue")
def nack_multiple(test):
    channel, queue = fetched(test, 5)
    channel.publish(queue, b"5")
    channel.send("basic.nack", delivery_tag=4, multiple=True, requeue=True)
    channel.send("basic.ack", delivery_tag=5)
    wanted = redelivered("0", "1", "2", "3") + [("5", False)]
    check_equal("left", left(channel, queue), wanted)


@cases(
    [
        ("acknowledge/M27-reject-without-requeue", "reject", {"delivery_tag": 1}, ["1", "2"]),
        ("acknowledge/M27-nack-without-requeue", "nack", {"delivery_tag": 1}, ["1", "2"]),
        (
            "acknowledge/M27-nack-multiple-without-requeue",
            "nack",
            {"delivery_tag": 2, "multiple": True},
            ["2"],
        ),
    ]
)
def dropped(test, name, arguments, remaining):
    channel, queue = fetched(test, 3)
    channel.send(f"basic.{name}", requeue=False, **arguments)
    channel.call("basic.recover", requeue=True)
    check_equal("left", left(channel, queue), redelivered(*remaining))


@case("acknowledge/M27-requeue-default-bits")
def default_bits(test):
    # nack and reject carry requeue=true by default in the specification.
    channel, queue = fetched(test, 2)
    channel.send("basic.nack", delivery_tag=1)
    channel.send("basic.reject", delivery_tag=2)
    check_equal("left", left(channel, queue), redelivered("0", "1"))


@case("acknowledge/M27-requeued-message-goes-to-another-consumer")
def to_another(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    queue = channel.queue(test.name())
    channel.call("basic.qos", prefetch_count=1)
    channel.consume(queue, "one")
    channel.publish(queue, b"x", {"message_id": "m"})
    first = channel.delivery(consumer_tag="one")
    other.consume(queue, "two")
    channel.call("basic.cancel", consumer_tag="one")
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    second = other.delivery(consumer_tag="two", delivery_tag=1, redelivered=True)
    check_equal("body", second.body, b"x")
    check_equal("properties", second.raw_properties, first.raw_properties)


@case("acknowledge/M29-redelivered-after-the-connection-breaks")
def broken_connection(test):
    channel, queue = None, test.name()
    other = test.channel()
    other.queue(queue, exclusive=False)
    for number in range(3):
        other.publish(queue, b"%d" % number)
    other.ready(queue, 3)
    channel = test.channel()
    channel.consume(queue, "t")
    for _ in range(3):
        channel.delivery()
    channel.send("basic.ack", delivery_tag=2)
    # An answer shows that the acknowledgement was read before the socket breaks.
    channel.alive()
    channel.peer.close()
    other.ready(queue, 2)
    check_equal("left", left(other, queue), redelivered("0", "2"))


# M28: recover ------------------------------------------------------------------------------------


@case("acknowledge/M28-recover")
def recover(test):
    channel, queue = fetched(test, 3)
    channel.call("basic.recover", requeue=True)
    check_equal("left", left(channel, queue), redelivered("0", "1", "2"))
    channel.send("basic.ack", delivery_tag=1)
    channel.refused(406, "unknown delivery tag 1", "basic.ack")


@case("acknowledge/M28-recover-async-has-no-reply")
def recover_async(test):
    channel, queue = fetched(test, 2)
    channel.send("basic.recover-async", requeue=True)
    channel.alive()
    check_equal("left", left(channel, queue), redelivered("0", "1"))


@case("acknowledge/M28-recover-delivers-again-to-the-consumer")
def recover_consumer(test):
    channel = test.channel()
    queue = channel.queue()
    channel.consume(queue, "t")
    channel.publish(queue, b"0")
    channel.publish(queue, b"1")
    for tag in (1, 2):
        channel.delivery(delivery_tag=tag)
    channel.send("basic.recover-async", requeue=True)
    for number in range(2):
        again = channel.delivery(consumer_tag="t", delivery_tag=number + 3, redelivered=True)
        check_equal("body", again.body, b"%d" % number)


@case("acknowledge/M28-recover-with-nothing-outstanding")
def recover_nothing(test):
    channel = test.channel()
    channel.call("basic.recover", requeue=True)
    channel.alive()


@cases([(f"acknowledge/M28-{name}-without-requeue", name) for name in ("recover", "recover-async")])
def recover_refused(test, name):
    peer = test.connect()
    peer.channel()
    peer.send(1, f"basic.{name}", requeue=False)
    peer.refused(540, "requeue=false", f"basic.{name}")
