"""connection.start-ok: mechanisms, responses, client properties, refused logins."""

import re

import amqp
from amqp import Field
from harness import case, cases, expect
from peer import CAPABILITIES, check, plain_response

START_OK = "connection.start-ok"


def amqplain(**fields):
    """A field table body without its length prefix."""
    return amqp.table(fields)[4:]


@cases(
    [
        ("handshake/CON8-plain", "PLAIN", plain_response()),
        ("handshake/CON8-amqplain", "AMQPLAIN", amqplain(LOGIN="guest", PASSWORD="guest")),
        (
            "handshake/CON8-amqplain-other-order-and-more-fields",
            "AMQPLAIN",
            amqplain(MORE=5, PASSWORD="guest", LOGIN="guest", TABLE={"a": True}),
        ),
    ]
)
def login(test, mechanism, response):
    test.connect(mechanism=mechanism, response=response).channel().alive()


@case("handshake/CON8-anonymous")
def anonymous(test):
    # RabbitMQ has the ANONYMOUS mechanism since 4.0.
    peer = test.raw()
    peer.start()
    peer.start_ok(mechanism="ANONYMOUS", response="")
    if test.broker.is_warren:
        peer.expect(0, "connection.tune")
        peer.tune_ok()
        peer.open()
    else:
        peer.eof()


@cases(
    [
        ("handshake/CON8-plain-with-authzid", "guest\0guest\0guest"),
        ("handshake/CON8-plain-with-trailing-octet", "\0guest\0guest\0"),
        ("handshake/CON8-plain-with-trailing-field", "\0guest\0guest\0guest"),
        ("handshake/CON8-plain-without-password", "\0guest"),
        ("handshake/CON8-plain-without-octet-0", "guestguest"),
        ("handshake/CON8-plain-empty", ""),
    ]
)
def malformed_plain(test, response):
    peer = test.raw()
    peer.start()
    peer.start_ok(response=response)
    test.distrusted(peer, 502, re.compile("response .* invalid", re.DOTALL), START_OK)


@cases(
    [
        ("handshake/CON8-amqplain-without-password", amqplain(LOGIN="guest")),
        ("handshake/CON8-amqplain-without-login", amqplain(PASSWORD="guest")),
        ("handshake/CON8-amqplain-login-is-a-number", amqplain(LOGIN=5, PASSWORD="guest")),
        ("handshake/CON8-amqplain-in-lower-case", amqplain(login="guest", password="guest")),
        ("handshake/CON8-amqplain-empty", b""),
        ("handshake/CON8-amqplain-garbage", b"\xff\xffgarbage"),
        (
            "handshake/CON8-amqplain-with-length-prefix",
            amqp.table({"LOGIN": "guest", "PASSWORD": "guest"}),
        ),
        (
            "handshake/CON8-amqplain-truncated",
            amqplain(LOGIN="guest", PASSWORD="guest")[:-1],
        ),
    ]
)
def malformed_amqplain(test, response):
    peer = test.raw()
    peer.start()
    peer.start_ok(mechanism="AMQPLAIN", response=response)
    test.distrusted(peer, 502, re.compile(".*", re.DOTALL), START_OK)


@cases(
    [
        ("handshake/CON9-unknown-mechanism", "X", "unknown authentication mechanism 'X'"),
        ("handshake/CON9-empty-mechanism", "", "unknown authentication mechanism ''"),
        ("handshake/CON9-mechanism-in-lower-case", "plain", "unknown authentication mechanism 'plain'"),
        # Known to the broker, or not, but surely not offered.
        (
            "handshake/CON9-mechanism-not-offered",
            "EXTERNAL",
            re.compile("(unknown|invalid) authentication mechanism 'EXTERNAL'"),
        ),
    ]
)
def mechanism_refused(test, mechanism, text):
    peer = test.raw()
    peer.start()
    peer.start_ok(mechanism=mechanism)
    test.distrusted(peer, 503, text, START_OK)


def login_refused(mechanism):
    return (
        f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
    )


@cases(
    [
        ("handshake/CON10-wrong-password", "PLAIN", plain_response("guest", "x")),
        ("handshake/CON10-unknown-user", "PLAIN", plain_response("nobody-of-this-name", "guest")),
        ("handshake/CON10-empty-user", "PLAIN", plain_response("", "guest")),
        ("handshake/CON10-blank-password", "PLAIN", plain_response("guest", "")),
        ("handshake/CON10-password-prefix", "PLAIN", plain_response("guest", "gues")),
        ("handshake/CON10-user-in-capitals", "PLAIN", plain_response("GUEST", "guest")),
        ("handshake/CON10-user-not-utf-8", "PLAIN", b"\0\xff\xfe\0guest"),
        ("handshake/CON10-amqplain-wrong-password", "AMQPLAIN", amqplain(LOGIN="guest", PASSWORD="x")),
    ]
)
def refused_login(test, mechanism, response):
    peer = test.raw()
    peer.start()
    peer.start_ok(mechanism=mechanism, response=response)
    peer.refused(403, login_refused(mechanism))


@cases(
    [
        ("handshake/CON10-without-capabilities", {}),
        ("handshake/CON10-without-authentication-failure-close", {"basic.nack": True}),
        ("handshake/CON10-authentication-failure-close-false", {"authentication_failure_close": False}),
        ("handshake/CON10-authentication-failure-close-not-bool", {"authentication_failure_close": 1}),
    ]
)
def refused_login_silently(test, capabilities):
    peer = test.raw()
    peer.start()
    peer.start_ok(response=plain_response("guest", "x"), capabilities=capabilities)
    peer.eof()


@cases(
    [
        (
            "handshake/CON7-client-properties-of-every-type",
            {
                "bool": True,
                "i8": Field("b", -128),
                "u8": Field("B", 255),
                "i16": Field("s", -32768),
                "u16": Field("u", 65535),
                "i32": Field("I", -(2**31)),
                "u32": Field("i", 2**32 - 1),
                "l": Field("l", -(2**63)),
                "L": Field("L", 2**63 - 1),
                "float": Field("f", 0.5),
                "double": Field("d", 0.1),
                "decimal": Field("D", (2, 314)),
                "text": "text",
                "bytes": Field("x", b"\0\xff"),
                "time": Field("T", 1),
                "void": None,
                "array": [1, "two", [3], {"four": 4}, None],
                "table": {"a": {"b": {"c": []}}},
                "": "",
            },
        ),
        ("handshake/CON7-empty-client-properties", {}),
        ("handshake/CON7-capabilities-is-no-table", {"capabilities": "all of them"}),
        ("handshake/CON7-connection-name", {"connection_name": "wire"}),
        ("handshake/CON7-connection-name-is-no-text", {"connection_name": 5, "product": [1]}),
    ]
)
def client_properties(test, properties):
    peer = test.raw()
    peer.start()
    peer.send(0, START_OK, client_properties=properties, response=plain_response())
    peer.expect(0, "connection.tune")
    peer.tune_ok()
    peer.open()
    peer.channel().alive()


@case("handshake/CON7-connection-blocked-not-sent-without-alarm")
def not_blocked(test):
    # Without an alarm neither connection.blocked nor unblocked belongs on the wire.
    peer = test.connect(capabilities=CAPABILITIES)
    channel = peer.channel()
    channel.publish(channel.queue(), b"x")
    channel.alive()


@case("handshake/CON10-login-works-after-failed-ones")
def login_after_failures(test):
    for _ in range(5):
        peer = test.raw()
        peer.start()
        peer.start_ok(response=plain_response("guest", "x"))
        peer.refused(403, login_refused("PLAIN"))
    peer = test.connect()
    check(peer.channel(), "no channel")


@case("handshake/CON5-locale-is-not-checked")
def locale(test):
    peer = test.raw()
    peer.start()
    peer.send(0, START_OK, client_properties={}, response=plain_response(), locale="xx")
    peer.expect(0, "connection.tune", channel_max=expect(rabbitmq=2047, warren=2047))
