"""Transactions (M19)."""

from harness import case, cases
from peer import check_equal


def transactional(test):
    """A transactional channel, another one on the same connection, and a queue."""
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.call("tx.select")
    return channel, other, channel.queue(test.name())


@cases([("tx/M19-commit-without-select", "tx.commit"), ("tx/M19-rollback-without-select", "tx.rollback")])
def without_select(test, name):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.send(name)
    channel.refused(406, "channel is not transactional", name)
    other.alive()


@case("tx/M19-empty-and-repeated")
def empty(test):
    channel, _, _ = transactional(test)
    channel.call("tx.select")
    for name in ("tx.commit", "tx.rollback", "tx.rollback", "tx.commit"):
        channel.call(name)


@case("tx/M19-publishes-are-held-until-commit")
def held(test):
    channel, other, queue = transactional(test)
    for number in range(5):
        channel.publish(queue, b"%d" % number)
    channel.get_empty(queue)
    other.get_empty(queue)
    channel.call("tx.commit")
    check_equal("bodies", other.drain(queue), [b"0", b"1", b"2", b"3", b"4"])
    # The next transaction starts with the commit.
    channel.publish(queue, b"next")
    channel.get_empty(queue)
    channel.call("tx.commit")
    check_equal("bodies", other.drain(queue), [b"next"])


@case("tx/M19-rollback-drops-publishes")
def rollback(test):
    channel, other, queue = transactional(test)
    channel.publish(queue, b"dropped")
    channel.call("tx.rollback")
    channel.publish(queue, b"kept")
    channel.call("tx.commit")
    check_equal("bodies", other.drain(queue), [b"kept"])


@case("tx/M19-close-drops-what-was-not-committed")
def close(test):
    channel, other, queue = transactional(test)
    channel.publish(queue, b"dropped")
    channel.close()
    other.get_empty(queue)


@case("tx/M19-persistent-to-durable")
def persistent(test):
    channel, other, _ = transactional(test)
    queue = channel.queue(test.name(), exclusive=False, durable=True)
    for number in range(50):
        channel.publish(queue, b"%d" % number, {"delivery_mode": 2})
    channel.call("tx.commit")
    check_equal("messages", len(other.drain(queue)), 50)


def with_messages(test, count):
    channel, other, queue = transactional(test)
    for number in range(count):
        other.publish(queue, b"%d" % number)
    other.ready(queue, count)
    for _ in range(count):
        channel.get(queue, no_ack=False)
    return channel, other, queue


@case("tx/M19-acks-are-held-until-commit")
def acks_committed(test):
    channel, other, queue = with_messages(test, 3)
    channel.send("basic.ack", delivery_tag=2, multiple=True)
    channel.call("tx.commit")
    channel.close()
    other.ready(queue, 1)
    check_equal("bodies", other.drain(queue), [b"2"])


@case("tx/M19-uncommitted-acks-are-void-when-the-channel-closes")
def acks_uncommitted(test):
    channel, other, queue = with_messages(test, 3)
    channel.send("basic.ack", delivery_tag=0, multiple=True)
    channel.close()
    other.ready(queue, 3)
    check_equal("bodies", other.drain(queue), [b"0", b"1", b"2"])


@case("tx/M19-rollback-makes-acked-messages-unacked-again")
def acks_rolled_back(test):
    channel, other, queue = with_messages(test, 2)
    channel.send("basic.ack", delivery_tag=1)
    channel.call("tx.rollback")
    # Not requeued by the rollback; the tag can be settled again.
    other.get_empty(queue)
    channel.send("basic.ack", delivery_tag=1)
    channel.call("tx.commit")
    channel.close()
    other.ready(queue, 1)
    check_equal("bodies", other.drain(queue), [b"1"])


@case("tx/M19-rejects-are-held-until-commit")
def rejects(test):
    channel, other, queue = with_messages(test, 2)
    channel.send("basic.reject", delivery_tag=1, requeue=True)
    channel.send("basic.nack", delivery_tag=2, requeue=False)
    channel.alive()
    other.get_empty(queue)
    channel.call("tx.commit")
    other.ready(queue, 1)
    check_equal("bodies", other.drain(queue), [b"0"])


@case("tx/M19-an-uncommitted-ack-uses-the-tag-up")
def ack_twice(test):
    channel, _, _ = with_messages(test, 1)
    channel.send("basic.ack", delivery_tag=1)
    channel.send("basic.ack", delivery_tag=1)
    channel.refused(406, "unknown delivery tag 1", "basic.ack")


@case("tx/M19-mandatory-is-returned-at-commit")
def mandatory(test):
    channel, other, queue = transactional(test)
    channel.publish("nowhere", b"r", mandatory=True)
    channel.publish(queue, b"q")
    channel.alive()
    channel.send("tx.commit")
    content = channel.content("basic.return", reply_code=312, routing_key="nowhere")
    check_equal("body", content.body, b"r")
    channel.expect("tx.commit-ok")
    check_equal("bodies", other.drain(queue), [b"q"])


@case("tx/M19-publish-to-a-missing-exchange-fails-at-once")
def missing_exchange(test):
    channel, other, queue = transactional(test)
    channel.publish(queue, b"lost with the channel")
    channel.publish("k", b"x", exchange="no such exchange")
    channel.refused(404, "no exchange 'no such exchange' in vhost '/'", "basic.publish")
    other.get_empty(queue)


@case("tx/M19-deliveries-are-not-held")
def deliveries(test):
    channel, other, queue = transactional(test)
    channel.consume(queue, "t")
    other.publish(queue, b"x")
    check_equal("body", channel.delivery(delivery_tag=1).body, b"x")
    channel.send("basic.ack", delivery_tag=1)
    channel.call("tx.commit")


@case("tx/M19-rejected-publish-fails-the-commit")
def partial(test):
    channel, _, _ = transactional(test)
    queue = channel.queue(arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    channel.publish(queue, b"x")
    channel.send("tx.commit")
    channel.refused(406, "partial tx completion", "tx.commit")
