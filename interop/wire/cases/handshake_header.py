"""Protocol header, connection.start, and clients that stop before or during the handshake."""

import time

import amqp
from harness import case, cases, expect
from peer import Mismatch, check, check_equal

SASL_1_0 = b"AMQP\3\1\0\0"
AMQP_0_9_1 = b"AMQP\0\0\x09\1"


@cases(
    [
        ("handshake/CON1-header-0-9-1", AMQP_0_9_1, "0-9-1", (0, 9)),
        ("handshake/CON1-header-0-9", b"AMQP\1\1\0\x09", "0-9", (0, 9)),
        ("handshake/O1-header-0-8-as-1-1-8-0", b"AMQP\1\1\x08\0", "0-8", (8, 0)),
        ("handshake/O1-header-0-8-as-1-1-9-1", b"AMQP\1\1\x09\1", "0-8", (8, 0)),
    ]
)
def header_accepted(test, header, dialect, version):
    peer = test.raw(dialect)
    peer.send_bytes(header)
    start = peer.expect(0, "connection.start")
    check_equal("version", (start.version_major, start.version_minor), version)
    peer.start_ok()
    peer.expect(0, "connection.tune")


def answer(peer):
    """The header with which the broker answers one that it does not accept."""
    deadline = time.monotonic() + 6
    while len(peer.buffer) < 8:
        check(peer.read_more(deadline), f"socket closed after {peer.buffer!r}")
    header, peer.buffer = peer.buffer[:8], peer.buffer[8:]
    return header


def speaks_amqp_1_0(test):
    peer = test.raw()
    peer.send_bytes(SASL_1_0)
    return answer(peer) == SASL_1_0


@cases(
    [
        ("handshake/CON2-header-0-9-0", b"AMQP\0\0\x09\0", True),
        ("handshake/CON2-header-0-9-2", b"AMQP\0\0\x09\2", True),
        ("handshake/CON2-header-0-10", b"AMQP\0\0\x0a\0", True),
        ("handshake/CON2-header-0-8-of-the-new-form", b"AMQP\0\0\x08\0", False),
        ("handshake/CON2-header-1-1-10-0", b"AMQP\1\1\x0a\0", False),
        ("handshake/CON2-header-1-1-8-1", b"AMQP\1\1\x08\1", False),
        ("handshake/CON2-amqp-1-0-without-sasl", b"AMQP\0\1\0\0", False),
        ("handshake/CON2-amqp-1-0-tls", b"AMQP\2\1\0\0", False),
        ("handshake/CON2-lower-case", b"amqp\0\0\x09\1", False),
        ("handshake/CON2-garbage", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", False),
        ("handshake/CON2-zeroes", bytes(8), False),
        ("handshake/CON2-frame-without-header", amqp.frame(8, 0, b""), False),
        ("handshake/CON2-http-get", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        ("handshake/CON2-tls-hello", b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(64), False),
    ]
)
def header_refused(test, header, wants_0_9):
    # The answer is a header the broker does support: who did not ask for 0-9 or later is offered
    # AMQP 1.0 where there is one.
    offered = AMQP_0_9_1 if wants_0_9 or not speaks_amqp_1_0(test) else SASL_1_0
    peer = test.raw()
    peer.send_bytes(header)
    check_equal("offered header", answer(peer), offered)
    # At once, not after the grace period for clients that are not trusted.
    peer.eof(timeout=2)


@case("handshake/CON1-header-amqp-1-0-sasl")
def amqp_1_0(test):
    # Only a plug-in in RabbitMQ 3.10, which offers 0-9-1 without it.
    # Warren does not serve it yet.
    check_equal("speaks AMQP 1.0", speaks_amqp_1_0(test), False)


@case("handshake/CON1-everything-byte-by-byte")
def byte_by_byte(test):
    peer = test.raw()

    def trickle(data):
        for at in range(len(data)):
            peer.send_bytes(data[at : at + 1])

    trickle(peer.dialect.header)
    peer.expect(0, "connection.start")
    response = "\0guest\0guest"
    trickle(peer.method_frame(0, "connection.start-ok", client_properties={}, response=response))
    peer.expect(0, "connection.tune")
    trickle(peer.method_frame(0, "connection.tune-ok", channel_max=2047, frame_max=131072))
    trickle(peer.method_frame(0, "connection.open"))
    peer.expect(0, "connection.open-ok", known_hosts="")
    trickle(peer.method_frame(1, "channel.open"))
    peer.expect(1, "channel.open-ok")


@case("handshake/CON1-everything-in-one-write")
def pipelined(test):
    peer = test.raw()
    peer.send_bytes(
        peer.dialect.header
        + peer.method_frame(0, "connection.start-ok", client_properties={}, response="\0guest\0guest")
        + peer.method_frame(0, "connection.tune-ok", channel_max=2047, frame_max=131072)
        + peer.method_frame(0, "connection.open")
        + peer.method_frame(1, "channel.open")
    )
    peer.expect(0, "connection.start")
    peer.expect(0, "connection.tune")
    peer.expect(0, "connection.open-ok")
    peer.expect(1, "channel.open-ok")


@case("handshake/CON5-start-fields")
def start_fields(test):
    start = test.raw().start()
    check_equal("version", (start.version_major, start.version_minor), (0, 9))
    # RabbitMQ 3.10 lists them in the order of its registry and has no ANONYMOUS.
    mechanisms = expect(rabbitmq="AMQPLAIN PLAIN", warren="PLAIN AMQPLAIN ANONYMOUS")
    check_equal("mechanisms", start.mechanisms, mechanisms)
    check_equal("locales", start.locales, "en_US")
    tags = {name: value.tag for name, value in start.server_properties.items()}
    texts = ("cluster_name", "copyright", "information", "platform", "product", "version")
    check_equal("server_properties", tags, {"capabilities": "F", **{name: "S" for name in texts}})
    for name in texts:
        check(start.server_properties[name].value, f"{name} is empty")


@case("handshake/CON6-server-capabilities")
def server_capabilities(test):
    capabilities = test.raw().start().server_properties["capabilities"].value
    names = (
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    )
    check_equal("capabilities", capabilities, {name: amqp.Field("t", True) for name in names})


@case("handshake/CON3-connects-without-a-byte")
def health_checks(test):
    for _ in range(20):
        test.raw().close()
    # Half-closed, as `nc -z` and some load balancers do: the broker closes its half.
    for sent in (b"", b"AMQ", AMQP_0_9_1[:7]):
        peer = test.raw()
        peer.send_bytes(sent)
        peer.socket.shutdown(1)
        peer.eof()
    test.channel().alive()


@case("handshake/CON3-client-vanishes-in-each-state")
def vanishing(test):
    for steps in range(4):
        peer = test.raw()
        peer.start()
        if steps > 0:
            peer.start_ok()
        if steps > 1:
            peer.expect(0, "connection.tune")
            peer.tune_ok()
        if steps > 2:
            peer.open()
        peer.close()
    test.channel().alive()


def silence(peer):
    """Seconds until the broker closes the socket."""
    began = time.monotonic()
    peer.eof(timeout=14)
    return time.monotonic() - began


@cases(
    [
        ("handshake/CON4-timeout-without-header", 0),
        ("handshake/CON4-timeout-inside-header", 1),
        ("handshake/CON4-timeout-before-start-ok", 2),
        ("handshake/CON4-timeout-before-open", 3),
    ]
)
def handshake_timeout(test, steps):
    peer = test.raw()
    if steps == 1:
        peer.send_bytes(b"AMQP")
    if steps == 2:
        peer.start()
    if steps == 3:
        peer.login()
        peer.tune_ok()
    lasted = silence(peer)
    check(8 < lasted < 13, f"closed after {lasted:.1f} s instead of 10 s")


@case("handshake/CON4-frame-limit-before-tune")
def frame_limit_before_tune(test):
    # Eight octets of tolerance over the payload limit: a frame of 8192 + 1 is too large.
    limit = expect(rabbitmq=4096, warren=8192)

    def attempt(size):
        peer = test.raw()
        peer.start()
        empty = peer.dialect.encode(
            "connection.start-ok", client_properties={"pad": ""}, response="\0guest\0guest"
        )
        peer.send(
            0,
            "connection.start-ok",
            client_properties={"pad": "x" * (size - len(empty))},
            response="\0guest\0guest",
        )
        return peer

    attempt(limit).expect(0, "connection.tune")
    text = f"type 1, all octets = <<>>: {{frame_too_large,{limit + 1},{limit - 8}}}"
    test.distrusted(attempt(limit + 1), 501, text)


@case("handshake/CON1-rest-of-the-header-never-comes-but-others-work")
def others_work(test):
    for count in range(8):
        test.raw().send_bytes(AMQP_0_9_1[:count])
    try:
        test.channel().alive()
    except TimeoutError:
        raise Mismatch("unfinished handshakes block a new connection") from None
