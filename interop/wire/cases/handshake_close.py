"""connection.close from either side, heartbeats, update-secret."""

import time

import amqp
from harness import case, cases
from peer import Mismatch, check, check_equal


def provoke(peer):
    """A connection exception, up to the broker's connection.close."""
    peer.send(0, "basic.qos")
    peer.expect(0, "connection.close", reply_code=504)


@case("handshake/CON15-client-closes")
def client_closes(test):
    peer = test.connect()
    peer.channel(1)
    peer.channel(2)
    peer.shut()


@case("handshake/CON15-client-closes-without-channels")
def client_closes_early(test):
    test.connect().shut()


@case("handshake/CON15-close-is-answered-after-earlier-methods")
def close_after_methods(test):
    peer = test.connect()
    channel = peer.channel()
    queue = test.name()
    peer.send_bytes(
        peer.method_frame(1, "queue.declare", queue=queue, exclusive=True)
        + peer.publish_frames(1, queue, b"x")
        + peer.method_frame(1, "queue.purge", queue=queue)
    )
    channel.expect("queue.declare-ok", queue=queue)
    channel.expect("queue.purge-ok", message_count=1)
    peer.shut()


@case("handshake/CON15-exclusive-queues-are-gone-at-close-ok")
def exclusive_gone(test):
    other = test.channel()
    for _ in range(10):
        peer = test.connect()
        queue = peer.channel().queue(test.name(), durable=True)
        peer.shut()
        other.send("queue.declare", queue=queue, passive=True)
        other.refused(404, f"no queue '{queue}' in vhost '/'", "queue.declare")
        other.call("channel.open")


@case("handshake/CON15-exclusive-queues-are-gone-after-the-socket-breaks")
def exclusive_gone_after_break(test):
    other = test.connect()
    peer = test.connect()
    queue = peer.channel().queue(test.name())
    peer.close()
    deadline = time.monotonic() + 5
    number = 1
    while True:
        # 405 as long as the queue is still there, 404 when it is gone.
        other.channel(number).send("queue.declare", queue=queue, passive=True)
        close = other.expect(number, "channel.close")
        other.send(number, "channel.close-ok")
        if close.reply_code == 404:
            return
        check(time.monotonic() < deadline, "the exclusive queue outlives its connection")
        time.sleep(0.02)


@case("handshake/CON15-frames-are-ignored-after-server-close")
def ignored_after_close(test):
    peer = test.connect()
    peer.channel(1)
    provoke(peer)
    peer.send(2, "channel.open")
    peer.send(1, "queue.declare", queue="", exclusive=True)
    peer.send(0, "connection.open")
    peer.send_bytes(amqp.frame(amqp.BODY, 1, b"stray"))
    peer.send_bytes(amqp.frame(9, 1, b"unknown type"))
    peer.send(0, "connection.close-ok")
    peer.eof()


@case("handshake/CON15-close-is-answered-after-server-close")
def crossing_closes(test):
    peer = test.connect()
    provoke(peer)
    peer.send(0, "connection.close", reply_code=200, class_id=0, method_id=0)
    peer.expect(0, "connection.close-ok")
    peer.send(0, "connection.close-ok")
    peer.eof()


@case("handshake/CON15-server-waits-for-close-ok-one-heartbeat")
def no_close_ok(test):
    peer = test.connect(heartbeat=1)
    provoke(peer)
    began = time.monotonic()
    peer.eof()
    lasted = time.monotonic() - began
    check(0.5 < lasted < 4, f"dropped after {lasted:.1f} s instead of about 1 s")


@case("handshake/CON15-half-closed-client-gets-its-answers")
def half_closed(test):
    # What was sent before the client's FIN must not be lost or crash the broker.
    other = test.channel()
    queue = other.queue(test.name(), exclusive=False, auto_delete=True)
    peer = test.connect()
    channel = peer.channel()
    channel.publish(queue, b"last words")
    peer.socket.shutdown(1)
    peer.eof()
    other.ready(queue, 1)
    check_equal("body", other.get(queue).body, b"last words")


# Heartbeats: time itself is what these cases are about, so they do wait.


@case("handshake/CON18-server-sends-heartbeats")
def server_heartbeats(test):
    peer = test.connect(heartbeat=1)
    began = time.monotonic()
    count = 0
    while count < 3:
        frame = peer.next_frame()
        check(frame is not None, "socket closed between heartbeats")
        check_equal("frame", frame, amqp.Frame(amqp.HEARTBEAT, 0, b""))
        peer.send_bytes(frame.encode())
        count += 1
    lasted = time.monotonic() - began
    check(1 <= lasted < 4.5, f"three heartbeats of 1 s came in {lasted:.1f} s")


@case("handshake/CON18-server-drops-a-silent-client")
def silent_client(test):
    peer = test.connect(heartbeat=1)
    began = time.monotonic()
    peer.eof()
    lasted = time.monotonic() - began
    check(1.8 < lasted < 4.5, f"dropped after {lasted:.1f} s instead of 2 to 3 s")


@cases(
    [
        ("handshake/CON18-heartbeats-keep-a-connection", True),
        ("handshake/CON18-any-traffic-keeps-a-connection", False),
    ]
)
def kept_alive(test, heartbeats):
    peer = test.connect(heartbeat=1)
    channel = peer.channel()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        if heartbeats:
            peer.send_bytes(amqp.frame(amqp.HEARTBEAT, 0, b""))
        else:
            channel.alive()
        time.sleep(0.4)
    channel.alive()


@case("handshake/CON18-heartbeat-0-disables-them")
def no_heartbeats(test):
    peer = test.connect(heartbeat=0)
    try:
        frame = peer.next_frame(timeout=3)
    except TimeoutError:
        peer.channel().alive()
        return
    raise Mismatch("socket closed" if frame is None else f"got {peer.describe(frame)}")


@case("handshake/CON16-update-secret")
def update_secret(test):
    peer = test.connect()
    channel = peer.channel()
    queue = channel.queue()
    channel.consume(queue, "t", no_ack=True)
    peer.send(0, "connection.update-secret", new_secret="guest", reason="rotation")
    peer.expect(0, "connection.update-secret-ok")
    channel.publish(queue, b"after")
    check_equal("body", channel.delivery().body, b"after")
