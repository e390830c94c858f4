"""Clients that misbehave, in bounded numbers, while others go on working."""

import random
import socket
import time

import amqp
from harness import case, expect
from peer import Peer, check, check_equal


def works(channel, rounds=20):
    """A client beside the abusive one gets its answers in good time."""
    began = time.monotonic()
    queue = channel.queue()
    for number in range(rounds):
        channel.publish(queue, b"%d" % number)
        check_equal("body", channel.get(queue).body, b"%d" % number)
    channel.call("queue.delete", queue=queue)
    lasted = time.monotonic() - began
    check(lasted < 5, f"{rounds} round trips took {lasted:.1f} s")


@case("abuse/300-half-open-connections", alone=True)
def half_open(test):
    channel = test.channel()
    for number in range(300):
        peer = test.raw()
        # Some send nothing, some part of the header, some a header and no more.
        peer.send_bytes(peer.dialect.header[: number % 9])
    works(channel)
    works(test.channel())


@case("abuse/300-connections-come-and-go", alone=True)
def come_and_go(test):
    channel = test.channel()
    for number in range(300):
        peer = test.raw()
        if number % 3:
            peer.start()
        if number % 3 == 2:
            peer.start_ok()
        peer.close()
    works(channel)


@case("abuse/consumer-that-never-reads", alone=True)
def never_reads(test):
    # Its deliveries fill the socket's buffers; neither the queue's publisher nor anybody else may
    # be held up by that.
    lazy = test.raw()
    lazy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.login()
    lazy.tune_ok()
    lazy.open()
    lazy_channel = lazy.channel()
    queue = lazy_channel.queue(test.name(), exclusive=False)
    lazy_channel.consume(queue, "t", no_ack=True)
    publisher = test.channel()
    publisher.call("confirm.select")
    for number in range(1, 201):
        publisher.publish(queue, bytes(50000))
        publisher.expect("basic.ack", delivery_tag=number)
    works(test.channel())
    lazy.close()


@case("abuse/publisher-that-never-reads-its-returns", alone=True)
def returns_unread(test):
    peer = test.connect()
    peer.channel()
    frames = peer.publish_frames(1, "nowhere", bytes(20000), mandatory=True)
    peer.socket.settimeout(0.5)
    try:
        for _ in range(400):
            peer.socket.sendall(frames)
    except TimeoutError:
        # The broker has stopped reading: that is one good answer to it.
        pass
    works(test.channel())


@case("abuse/endless-garbage-instead-of-a-header", alone=True)
def garbage(test):
    channel = test.channel()
    source = random.Random(1)
    for _ in range(20):
        peer = test.raw()
        try:
            for _ in range(50):
                peer.send_bytes(source.randbytes(4096))
        except OSError:
            pass
        # It answers with a header, unless that is lost with the reset, and hangs up.
        deadline = time.monotonic() + 6
        while peer.read_more(deadline):
            check(len(peer.buffer) <= 8, f"got {peer.buffer[:64]!r}")
    works(channel)


@case("abuse/garbage-frames-after-the-handshake", alone=True)
def garbage_frames(test):
    channel = test.channel()
    source = random.Random(2)
    for _ in range(30):
        peer = test.connect()
        peer.channel()
        try:
            for _ in range(20):
                payload = source.randbytes(source.randrange(64))
                peer.send_bytes(amqp.frame(source.randrange(256), source.randrange(4), payload))
        except OSError:
            continue
    works(channel)
    works(test.channel())


@case("abuse/random-bytes-in-methods", alone=True)
def random_methods(test):
    # Well-formed frames with existing method ids and random arguments: an error or an answer, but
    # the broker must live on.
    channel = test.channel()
    source = random.Random(3)
    for class_id, method_id in sorted(channel.peer.dialect.by_id):
        peer = Peer(test.broker.host, test.broker.port)
        try:
            peer.login()
            peer.tune_ok()
            peer.open()
            peer.channel()
            ids = class_id.to_bytes(2, "big") + method_id.to_bytes(2, "big")
            payload = ids + source.randbytes(source.randrange(40))
            peer.send_bytes(amqp.frame(amqp.METHOD, 1, payload))
        finally:
            peer.close()
    works(channel)


@case("abuse/announced-body-that-never-comes", alone=True)
def missing_body(test):
    # As much as the broker takes is announced on each of 20 channels: nothing may be allocated for
    # it in advance.
    size = expect(rabbitmq=134217728, warren=16777216)
    peer = test.connect()
    for number in range(1, 21):
        peer.channel(number)
        peer.send_bytes(
            peer.method_frame(number, "basic.publish", routing_key="nowhere")
            + amqp.frame(amqp.HEADER, number, amqp.content_header(size))
            + amqp.frame(amqp.BODY, number, b"only this")
        )
    works(test.channel())


@case("abuse/frame-that-never-ends", alone=True)
def unfinished_frame(test):
    for _ in range(20):
        peer = test.connect()
        peer.channel()
        peer.send_bytes(b"\3\0\1" + (100000).to_bytes(4, "big") + bytes(1000))
    works(test.channel())


@case("abuse/errors-in-a-row", alone=True)
def errors(test):
    peer = test.connect()
    channel = peer.channel()
    for _ in range(500):
        channel.send("basic.get", queue="no such queue")
        channel.expect("channel.close", reply_code=404)
        channel.send("channel.close-ok")
        channel.send("channel.open")
        channel.expect("channel.open-ok")
    works(test.channel())
