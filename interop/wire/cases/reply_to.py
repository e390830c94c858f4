"""Direct reply-to (M38)."""

import re

from harness import case, cases
from peer import check, check_equal

REPLY_TO = "amq.rabbitmq.reply-to"
MISSING = f"no queue '{REPLY_TO}' in vhost '/'"
VOLATILE = "cannot bind or unbind to a volatile (direct reply-to) queue"


def requester(test, tag="replies"):
    """A channel with a reply consumer, and the reply address it hands out."""
    channel = test.channel()
    queue = channel.queue()
    channel.consume(REPLY_TO, tag, no_ack=True)
    channel.publish(queue, b"request", {"reply_to": REPLY_TO, "correlation_id": "1"})
    got = channel.get(queue)
    check_equal("properties", set(got.properties), {"reply_to", "correlation_id"})
    address = got.properties["reply_to"]
    check_equal("reply address", address, re.compile(re.escape(REPLY_TO) + "\\..+"))
    return channel, address


@case("reply_to/M38-round-trip")
def round_trip(test):
    channel, address = requester(test)
    server = test.channel()
    for number in range(3):
        server.publish(address, b"%d" % number, {"correlation_id": "1", "headers": {"n": number}})
        reply = channel.delivery(consumer_tag="replies", redelivered=False, exchange="", routing_key=address)
        check_equal("body", reply.body, b"%d" % number)
        check_equal("correlation id", reply.properties["correlation_id"], "1")


@case("reply_to/M38-large-reply")
def large_reply(test):
    channel, address = requester(test)
    body = b"r" * 300000
    test.channel().publish(address, body)
    check_equal("body is intact", channel.delivery().body == body, True)


@case("reply_to/M38-reply-from-the-same-channel")
def same_channel(test):
    channel, address = requester(test)
    channel.publish(address, b"to myself")
    check_equal("body", channel.delivery().body, b"to myself")


@case("reply_to/M38-generated-tag")
def generated_tag(test):
    tag = test.channel().consume(REPLY_TO, "", no_ack=True)
    check_equal("tag", tag, re.compile("amq\\.ctag-.{22}"))


@case("reply_to/M38-other-addresses-are-not-rewritten")
def not_rewritten(test):
    channel = test.channel()
    queue = channel.queue()
    for address in (queue, REPLY_TO + "s", "amq.rabbitmq", "Amq.rabbitmq.reply-to"):
        channel.publish(queue, b"x", {"reply_to": address})
        check_equal("reply_to", channel.get(queue).properties["reply_to"], address)


@case("reply_to/M38-confirmed")
def confirmed(test):
    channel, address = requester(test)
    server = test.channel()
    server.call("confirm.select")
    server.publish(address, b"x")
    server.expect("basic.ack", delivery_tag=1)
    check_equal("body", channel.delivery().body, b"x")


# Errors ------------------------------------------------------------------------------------------


@case("reply_to/M38-publish-without-reply-consumer")
def no_consumer(test):
    channel = test.channel()
    channel.publish("nowhere", b"x", {"reply_to": REPLY_TO})
    channel.refused(406, "fast reply consumer does not exist", "basic.publish")


@case("reply_to/M38-the-consumer-must-be-on-the-same-channel")
def other_channel(test):
    peer = test.connect()
    channel, other = peer.channel(1), peer.channel(2)
    channel.consume(REPLY_TO, "t", no_ack=True)
    other.publish("nowhere", b"x", {"reply_to": REPLY_TO})
    other.refused(406, "fast reply consumer does not exist", "basic.publish")


@case("reply_to/M38-with-acknowledgements")
def acknowledging(test):
    channel = test.channel()
    channel.send("basic.consume", queue=REPLY_TO, consumer_tag="t")
    channel.refused(406, "reply consumer cannot acknowledge", "basic.consume")


@cases([("reply_to/M38-second-consumer", "other"), ("reply_to/M38-second-consumer-same-tag", "t")])
def second(test, tag):
    channel = test.channel()
    channel.consume(REPLY_TO, "t", no_ack=True)
    channel.send("basic.consume", queue=REPLY_TO, consumer_tag=tag, no_ack=True)
    channel.refused(406, "reply consumer already set", "basic.consume")


@case("reply_to/M38-tag-of-another-consumer")
def tag_taken(test):
    peer = test.connect()
    channel = peer.channel()
    channel.consume(channel.queue(), "t")
    channel.send("basic.consume", queue=REPLY_TO, consumer_tag="t", no_ack=True)
    peer.refused(530, "attempt to reuse consumer tag 't'", "basic.consume")


@case("reply_to/M38-the-tag-may-be-taken-by-another-consumer")
def tag_shared(test):
    channel, address = requester(test, "t")
    queue = channel.queue()
    channel.consume(queue, "t", no_ack=True)
    # The consumer of replies ends first.
    channel.call("basic.cancel", consumer_tag="t")
    test.channel().publish(address, b"too late")
    channel.publish(queue, b"x")
    check_equal("body", channel.delivery(consumer_tag="t").body, b"x")
    channel.call("basic.cancel", consumer_tag="t")
    channel.publish(queue, b"y")
    channel.ready(queue, 1)


@case("reply_to/M38-after-cancel")
def after_cancel(test):
    channel, address = requester(test)
    channel.send("basic.cancel", consumer_tag="replies")
    channel.expect("basic.cancel-ok", consumer_tag="replies")
    server = test.channel()
    server.publish(address, b"too late")
    server.alive()
    channel.alive()
    # And again, with a new consumer.
    channel.consume(REPLY_TO, "replies", no_ack=True)


@case("reply_to/M38-requester-gone")
def requester_gone(test):
    channel, address = requester(test)
    server = test.channel()
    server.call("queue.declare", queue=address, passive=True)
    channel.close()
    server.publish(address, b"x", mandatory=True)
    content = server.content("basic.return", reply_code=312, routing_key=address)
    check_equal("body", content.body, b"x")
    server.send("queue.declare", queue=address, passive=True)
    server.refused(404, f"no queue '{address}' in vhost '/'", "queue.declare")


@cases([("reply_to/M38-declare-of-an-address", False), ("reply_to/M38-passive-declare-of-an-address", True)])
def declare_address(test, passive):
    channel, address = requester(test)
    server = test.channel()
    server.send("queue.declare", queue=address, passive=passive)
    server.expect("queue.declare-ok", queue=address, message_count=0, consumer_count=1)
    made_up = address[:-3] + "zzz"
    server.send("queue.declare", queue=made_up, passive=passive)
    server.refused(404, f"no queue '{made_up}' in vhost '/'", "queue.declare")


@cases([("reply_to/M38-declare-of-the-name", False), ("reply_to/M38-passive-declare-of-the-name", True)])
def declare_name(test, passive):
    channel = test.channel()
    channel.consume(REPLY_TO, "t", no_ack=True)
    reply = channel.call("queue.declare", queue=REPLY_TO, passive=passive)
    check_equal("queue, messages", (reply.queue, reply.message_count), (REPLY_TO, 0))


@cases([(f"reply_to/M38-no-{name.replace('.', '-')}", name) for name in ("basic.get", "queue.purge")])
def no_queue(test, name):
    channel = test.channel()
    channel.send(name, queue=REPLY_TO)
    channel.refused(404, MISSING, name)


@cases([(f"reply_to/M38-no-{name.replace('.', '-')}", name) for name in ("queue.bind", "queue.unbind")])
def no_binding(test, name):
    channel = test.channel()
    channel.send(name, queue=REPLY_TO, exchange="amq.direct", routing_key="k")
    # RabbitMQ has the text of its own since 4.2; before, it looked for a queue of the name.
    if test.broker.is_warren:
        channel.refused(403, VOLATILE, name)
    elif name == "queue.bind":
        channel.refused(404, MISSING, name)
    else:
        channel.expect("queue.unbind-ok")


@case("reply_to/M38-nowait")
def nowait(test):
    channel = test.channel()
    queue = channel.queue()
    channel.send("basic.consume", queue=REPLY_TO, consumer_tag="t", no_ack=True, nowait=True)
    channel.publish(queue, b"x", {"reply_to": REPLY_TO})
    address = channel.get(queue).properties["reply_to"]
    check(address.startswith(REPLY_TO + "."), f"reply_to is {address!r}")
    channel.publish(address, b"reply")
    channel.delivery(consumer_tag="t")
