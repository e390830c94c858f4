"""The client's end of a raw connection: it sends what a test says and checks what comes back.

Nothing is answered, skipped or reordered behind the test's back, except that heartbeats from the
broker are passed over. Every read has a deadline.
"""

import re
import socket
import time
from dataclasses import dataclass

import amqp

# Enough for RabbitMQ's grace period of 3 s before it drops a client it does not trust.
READ_TIMEOUT = 6.0

CAPABILITIES = {
    "authentication_failure_close": True,
    "consumer_cancel_notify": True,
    "basic.nack": True,
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "connection.blocked": True,
}


class Mismatch(AssertionError):
    """The broker did not do what it must."""


def check(condition, reason):
    if not condition:
        raise Mismatch(reason)


def check_equal(what, got, wanted):
    if isinstance(wanted, re.Pattern):
        check(wanted.fullmatch(got), f"{what} is {got!r}, wanted /{wanted.pattern}/")
    else:
        check(got == wanted, f"{what} is {got!r}, wanted {wanted!r}")


def octets(payload):
    """The part of a reply text that shows a payload, which must not be all printable characters:
    RabbitMQ prints those as text."""
    count = "all" if len(payload) <= 16 else "first 16"
    return f"{count} octets = <<{','.join(map(str, payload[:16]))}>>"


def plain_response(user="guest", password="guest"):
    return f"\0{user}\0{password}"


@dataclass
class Content:
    """A method that carries content, with the property bytes as they came."""

    method: amqp.Method
    raw_properties: bytes
    properties: dict
    body: bytes


class Peer:
    def __init__(self, host, port, dialect="0-9-1"):
        self.dialect = amqp.dialect(dialect)
        self.frame_max = 131072
        self.buffer = b""
        self.socket = socket.create_connection((host, port), timeout=READ_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.socket.close()

    # Sending --------------------------------------------------------------------------------

    def send_bytes(self, data):
        self.socket.settimeout(READ_TIMEOUT)
        self.socket.sendall(data)

    def method_frame(self, channel, name, **arguments):
        return amqp.frame(amqp.METHOD, channel, self.dialect.encode(name, **arguments))

    def send(self, channel, name, **arguments):
        self.send_bytes(self.method_frame(channel, name, **arguments))

    def content_frames(self, channel, body=b"", properties=None):
        """Header and body frames; properties are a dictionary or bytes made by hand."""
        if not isinstance(properties, bytes):
            properties = self.dialect.encode_properties(properties or {})
        header = amqp.content_header(len(body), properties)
        out = [amqp.frame(amqp.HEADER, channel, header)]
        piece = self.frame_max - amqp.FRAME_OVERHEAD
        for at in range(0, len(body), piece):
            out.append(amqp.frame(amqp.BODY, channel, body[at : at + piece]))
        return b"".join(out)

    def publish_frames(self, channel, routing_key, body=b"", properties=None, **arguments):
        method = self.method_frame(channel, "basic.publish", routing_key=routing_key, **arguments)
        return method + self.content_frames(channel, body, properties)

    # Receiving ------------------------------------------------------------------------------

    def read_more(self, deadline):
        """One more read into the buffer; False at the end of the stream."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self.socket.settimeout(remaining)
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def next_frame(self, timeout=READ_TIMEOUT):
        """The next frame of any kind, or None when the broker has closed the socket."""
        deadline = time.monotonic() + timeout
        while True:
            if len(self.buffer) >= 7:
                reader = amqp.Reader(self.buffer)
                kind, channel, size = reader.number("B"), reader.number("H"), reader.number("I")
                if len(self.buffer) >= size + amqp.FRAME_OVERHEAD:
                    payload, end = reader.take(size), reader.number("B")
                    check_equal("frame end octet", end, amqp.FRAME_END)
                    self.buffer = self.buffer[reader.at :]
                    return amqp.Frame(kind, channel, payload)
            if not self.read_more(deadline):
                check(not self.buffer, f"socket closed inside a frame: {self.buffer!r}")
                return None

    def push_back(self, frame):
        """Puts a frame that was only looked at back to be received again."""
        self.buffer = frame.encode() + self.buffer

    def receive(self, wanted, timeout=READ_TIMEOUT):
        """The next frame that is not a heartbeat; `wanted` says in the report what was awaited."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                frame = self.next_frame(deadline - time.monotonic())
            except TimeoutError:
                raise Mismatch(f"nothing came while waiting for {wanted}") from None
            if frame is None:
                raise Mismatch(f"socket closed while waiting for {wanted}")
            if frame.type != amqp.HEARTBEAT:
                return frame

    def decode(self, frame):
        try:
            return self.dialect.decode(frame.payload)
        except amqp.CodecError as error:
            raise Mismatch(f"undecodable method {frame.payload[:64]!r}: {error}") from None

    def describe(self, frame):
        if frame.type == amqp.METHOD:
            return f"{self.decode(frame)} on channel {frame.channel}"
        return f"frame type {frame.type} on channel {frame.channel}: {frame.payload[:64]!r}"

    def method(self, channel, name, timeout=READ_TIMEOUT):
        wanted = f"{name} on channel {channel}"
        frame = self.receive(wanted, timeout)
        if frame.type == amqp.METHOD and frame.channel == channel:
            method = self.decode(frame)
            if method.name == name:
                return method
        raise Mismatch(f"got {self.describe(frame)} instead of {wanted}")

    def expect(self, channel, name, timeout=READ_TIMEOUT, **arguments):
        """The next frame must be this method with at least these argument values."""
        method = self.method(channel, name, timeout)
        for key, wanted in arguments.items():
            check_equal(f"{name} {key}", getattr(method, key), wanted)
        return method

    def content(self, channel, name, **arguments):
        """A method that carries content, followed by exactly its header and body frames."""
        method = self.expect(channel, name, **arguments)
        header = self.receive(f"content header of {name}")
        check(
            (header.type, header.channel) == (amqp.HEADER, channel),
            f"got {self.describe(header)} instead of the content header of {name}",
        )
        reader = amqp.Reader(header.payload)
        check_equal("header class id", reader.number("H"), 60)
        check_equal("header weight", reader.number("H"), 0)
        size = reader.number("Q")
        properties = header.payload[reader.at :]
        body = bytearray()
        while len(body) < size:
            piece = self.receive(f"content body of {name}")
            check(
                (piece.type, piece.channel) == (amqp.BODY, channel),
                f"got {self.describe(piece)} instead of the content body of {name}",
            )
            check(piece.payload, "empty content body frame")
            check(
                len(piece.payload) <= self.frame_max - amqp.FRAME_OVERHEAD,
                f"body frame of {len(piece.payload)} bytes with frame_max {self.frame_max}",
            )
            body += piece.payload
        check_equal("content size", len(body), size)
        return Content(method, properties, self.dialect.decode_properties(properties), bytes(body))

    def eof(self, timeout=READ_TIMEOUT):
        """The broker must close the socket without another frame."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                frame = self.next_frame(deadline - time.monotonic())
            except TimeoutError:
                raise Mismatch("the socket was not closed") from None
            if frame is None:
                return
            check(
                frame.type == amqp.HEARTBEAT,
                f"got {self.describe(frame)} instead of the end of the stream",
            )

    def refused(self, code, text, method=None, timeout=READ_TIMEOUT):
        """The broker must close the connection with this reply, then the socket after close-ok.

        `text` is what follows the code's name; `method` the failing method's name, or its ids.
        """
        close = self.method(0, "connection.close", timeout)
        check_close(self.dialect, close, code, text, method)
        self.closed()
        return close

    def closed(self):
        """Answers the broker's connection.close. It may have closed the socket by then, if it
        could not make sense of the frames any more."""
        try:
            self.send(0, "connection.close-ok")
        except (BrokenPipeError, ConnectionResetError):
            return
        self.eof()

    # The handshake, step by step ------------------------------------------------------------

    def start(self):
        self.send_bytes(self.dialect.header)
        return self.expect(0, "connection.start")

    def start_ok(self, mechanism="PLAIN", response=None, capabilities=None, **properties):
        client_properties = {"product": "wire conformance", **properties}
        if capabilities is None and self.dialect.name != "0-8":
            capabilities = CAPABILITIES
        if capabilities:
            client_properties["capabilities"] = capabilities
        self.send(
            0,
            "connection.start-ok",
            client_properties=client_properties,
            mechanism=mechanism,
            response=plain_response() if response is None else response,
        )

    def login(self, **options):
        """Up to and including the broker's connection.tune."""
        self.start()
        self.start_ok(**options)
        return self.expect(0, "connection.tune")

    def tune_ok(self, channel_max=2047, frame_max=131072, heartbeat=0):
        self.frame_max = frame_max
        self.send(
            0,
            "connection.tune-ok",
            channel_max=channel_max,
            frame_max=frame_max,
            heartbeat=heartbeat,
        )

    def open(self, vhost="/"):
        self.send(0, "connection.open", virtual_host=vhost)
        return self.expect(0, "connection.open-ok")

    def shut(self):
        """The client's orderly end. Whoever wants may close the socket after it."""
        self.send(0, "connection.close", reply_code=200, class_id=0, method_id=0)
        self.expect(0, "connection.close-ok")
        self.close()

    def channel(self, number=1):
        """Opens a channel."""
        channel = Channel(self, number)
        channel.call("channel.open")
        return channel


class Channel:
    """One channel of a peer, as shorthand in tests."""

    def __init__(self, peer, number):
        self.peer = peer
        self.number = number

    def send(self, name, **arguments):
        self.peer.send(self.number, name, **arguments)

    def call(self, name, **arguments):
        """A synchronous method; its -ok must be the very next frame."""
        self.send(name, **arguments)
        return self.peer.method(self.number, name + "-ok")

    def expect(self, name, **arguments):
        return self.peer.expect(self.number, name, **arguments)

    def content(self, name, **arguments):
        return self.peer.content(self.number, name, **arguments)

    def publish(self, routing_key, body=b"", properties=None, **arguments):
        frames = self.peer.publish_frames(self.number, routing_key, body, properties, **arguments)
        self.peer.send_bytes(frames)

    def queue(self, name="", **arguments):
        """Declares a queue, by default one that goes with the connection."""
        arguments = {"exclusive": True, **arguments}
        return self.call("queue.declare", queue=name, **arguments).queue

    def exchange(self, name, kind="direct", **arguments):
        self.call("exchange.declare", exchange=name, type=kind, **arguments)
        return name

    def bind(self, queue, exchange, routing_key="", **arguments):
        self.call("queue.bind", queue=queue, exchange=exchange, routing_key=routing_key, **arguments)

    def ready(self, queue, wanted):
        """The queue has this many ready messages, or will have in a moment: RabbitMQ answers a
        passive declare ahead of messages and acknowledgements that came before it."""
        deadline = time.monotonic() + 3
        while True:
            count = self.call("queue.declare", queue=queue, passive=True).message_count
            if count == wanted:
                return
            check(time.monotonic() < deadline, f"{count} ready messages, wanted {wanted}")
            time.sleep(0.01)

    def get(self, queue, no_ack=True):
        self.send("basic.get", queue=queue, no_ack=no_ack)
        return self.content("basic.get-ok")

    def get_empty(self, queue):
        self.send("basic.get", queue=queue)
        self.expect("basic.get-empty", cluster_id="")

    def rest(self, queue):
        """Takes everything out of the queue."""
        messages = []
        while True:
            self.send("basic.get", queue=queue, no_ack=True)
            frame = self.peer.receive("an answer to basic.get")
            self.peer.push_back(frame)
            if self.peer.decode(frame).name == "basic.get-empty":
                self.expect("basic.get-empty")
                return messages
            messages.append(self.content("basic.get-ok"))

    def drain(self, queue):
        """The bodies of everything in the queue."""
        return [message.body for message in self.rest(queue)]

    def consume(self, queue, tag="", **arguments):
        self.send("basic.consume", queue=queue, consumer_tag=tag, **arguments)
        return self.expect("basic.consume-ok").consumer_tag

    def delivery(self, **arguments):
        return self.content("basic.deliver", **arguments)

    def alive(self):
        """The channel answers, and nothing else was on its way."""
        self.call("exchange.declare", exchange="amq.direct", passive=True)

    def refused(self, code, text, method, reply=True):
        """The broker must close this channel with this reply; the connection goes on."""
        close = self.peer.method(self.number, "channel.close")
        check_close(self.peer.dialect, close, code, text, method)
        if reply:
            self.send("channel.close-ok")
        return close

    def close(self):
        self.send("channel.close", reply_code=200, class_id=0, method_id=0)
        self.expect("channel.close-ok")


def check_close(dialect, close, code, text, method):
    """Checks a connection.close or channel.close.

    `text` follows the code's name; it may be a pattern. `method` is the name of the failing method,
    its ids, None for 0 and 0, or a list of names any of which will do.
    """
    check_equal("reply code", close.reply_code, code)
    prefix = amqp.REPLY_NAMES[code] + " - "
    if isinstance(text, re.Pattern):
        check_equal("reply text", close.reply_text, re.compile(re.escape(prefix) + text.pattern, text.flags))
    else:
        check_text(close.reply_text, prefix + text)
    got = close.class_id, close.method_id
    wanted = [name if isinstance(name, tuple) else dialect.ids(name) for name in as_list(method)]
    check(got in wanted, f"class and method of the reply are {got}, wanted {wanted}")


def check_text(got, wanted):
    """A reply text is cut at 255 octets; RabbitMQ marks the cut with an ellipsis."""
    if len(wanted) <= 255 or got != wanted[:255]:
        check_equal("reply text", got, wanted if len(wanted) <= 255 else wanted[:252] + "...")


def as_list(value):
    return value if isinstance(value, list) else [value]
