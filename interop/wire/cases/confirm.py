"""Publisher confirms (M18)."""

from harness import case, cases
from peer import check, check_equal


def confirming(test):
    channel = test.channel()
    channel.call("confirm.select")
    return channel, channel.queue(test.name())


def settled(channel, last, name="basic.ack"):
    """Reads confirms until all tags up to the last are settled, each exactly once."""
    open_tags = set(range(1, last + 1))
    while open_tags:
        confirm = channel.expect(name)
        if confirm.multiple:
            tags = {tag for tag in open_tags if tag <= confirm.delivery_tag}
        else:
            tags = {confirm.delivery_tag} & open_tags
        check(tags, f"{confirm} settles nothing")
        open_tags -= tags


@case("confirm/M18-select-twice")
def select_twice(test):
    channel = test.channel()
    channel.call("confirm.select")
    channel.call("confirm.select")
    channel.publish("nowhere")
    channel.expect("basic.ack", delivery_tag=1)


@case("confirm/M18-select-nowait")
def select_nowait(test):
    channel = test.channel()
    channel.send("confirm.select", nowait=True)
    channel.publish("nowhere")
    channel.expect("basic.ack", delivery_tag=1)


@case("confirm/M18-tags-count-from-1-per-channel")
def tags(test):
    peer = test.connect()
    first, second = peer.channel(1), peer.channel(2)
    first.publish("nowhere", b"before select")
    for channel in (first, second):
        channel.call("confirm.select")
        for number in range(1, 4):
            channel.publish("nowhere")
            channel.expect("basic.ack", delivery_tag=number)


@cases(
    [
        ("confirm/M18-transient", {}, {}),
        ("confirm/M18-persistent-to-transient-queue", {}, {"delivery_mode": 2}),
        ("confirm/M18-transient-to-durable-queue", {"durable": True, "exclusive": False}, {}),
        ("confirm/M18-persistent", {"durable": True, "exclusive": False}, {"delivery_mode": 2}),
    ]
)
def many(test, declare, properties):
    channel = test.channel()
    queue = channel.queue(test.name(), **declare)
    channel.call("confirm.select")
    frames = channel.peer.publish_frames(1, queue, b"x", properties)
    channel.peer.send_bytes(frames * 300)
    settled(channel, 300)
    check_equal("purged", channel.call("queue.purge", queue=queue).message_count, 300)


@case("confirm/M18-ack-when-consumed-at-once")
def consumed_at_once(test):
    channel, queue = confirming(test)
    other = channel.peer.channel(2)
    other.consume(queue, "t", no_ack=True)
    channel.publish(queue, b"x", {"delivery_mode": 2})
    frames = [channel.peer.receive("ack or delivery") for _ in range(4)]
    check_equal("channels", sorted(frame.channel for frame in frames), [1, 2, 2, 2])


@case("confirm/M18-unroutable-is-acked")
def unroutable(test):
    channel, _ = confirming(test)
    channel.publish("nowhere", b"x")
    channel.expect("basic.ack", delivery_tag=1)


@case("confirm/M15-return-comes-before-the-ack")
def return_first(test):
    channel, queue = confirming(test)
    for number in range(1, 21):
        channel.publish("nowhere", b"%d" % number, mandatory=True)
        content = channel.content("basic.return", reply_code=312)
        check_equal("body", content.body, b"%d" % number)
        channel.expect("basic.ack", delivery_tag=number)


@case("confirm/M15-returns-and-acks-pipelined")
def returns_pipelined(test):
    channel, queue = confirming(test)
    peer = channel.peer
    mandatory = peer.publish_frames(1, "nowhere", b"r", mandatory=True)
    peer.send_bytes((mandatory + peer.publish_frames(1, queue, b"q")) * 20)
    open_tags, returned = set(range(1, 41)), 0
    while open_tags:
        frame = peer.receive("return or ack")
        peer.push_back(frame)
        if peer.decode(frame).name == "basic.return":
            channel.content("basic.return")
            returned += 1
            continue
        ack = channel.expect("basic.ack")
        below = {tag for tag in open_tags if tag <= ack.delivery_tag}
        done = below if ack.multiple else {ack.delivery_tag}
        # The odd tags are the mandatory ones: each must have come back by now.
        check_equal(
            "returned before the ack",
            sum(tag % 2 for tag in range(1, 41) if tag not in open_tags - done) <= returned,
            True,
        )
        open_tags -= done
    check_equal("returned", returned, 20)


@case("confirm/M18-several-queues-one-ack")
def several_queues(test):
    channel, _ = confirming(test)
    exchange = channel.exchange(test.name(), "fanout")
    for _ in range(5):
        channel.bind(channel.queue(test.name()), exchange)
    for number in range(1, 4):
        channel.publish("", b"x", exchange=exchange)
        channel.expect("basic.ack", delivery_tag=number)
    channel.alive()


@case("confirm/M18-expired-and-dropped-messages-are-acked")
def dropped(test):
    channel = test.channel()
    channel.call("confirm.select")
    queue = channel.queue(arguments={"x-max-length": 1})
    channel.peer.send_bytes(channel.peer.publish_frames(1, queue, b"x", {"expiration": "0"}) * 10)
    settled(channel, 10)


@case("confirm/M18-reject-publish-nacks")
def rejected(test):
    channel = test.channel()
    channel.call("confirm.select")
    queue = channel.queue(arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.peer.send_bytes(channel.peer.publish_frames(1, queue, b"x") * 10)
    settled(channel, 10, "basic.nack")


@case("confirm/M18-failed-publish-is-not-confirmed")
def failed(test):
    channel, _ = confirming(test)
    channel.publish("k", b"x", exchange="no such exchange")
    text = "no exchange 'no such exchange' in vhost '/'"
    channel.refused(404, text, "basic.publish")
    # The reused number starts without confirms.
    channel.call("channel.open")
    channel.publish("nowhere", b"x")
    channel.alive()


@case("confirm/M18-tx-after-confirm")
def tx_after_confirm(test):
    channel = test.channel()
    channel.call("confirm.select")
    channel.send("tx.select")
    channel.refused(406, "cannot switch from confirm to tx mode", "tx.select")


@cases([("confirm/M18-confirm-after-tx", False), ("confirm/M18-confirm-nowait-after-tx", True)])
def confirm_after_tx(test, nowait):
    channel = test.channel()
    channel.call("tx.select")
    channel.send("confirm.select", nowait=nowait)
    channel.refused(406, "cannot switch from tx to confirm mode", "confirm.select")
