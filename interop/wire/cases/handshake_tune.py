"""connection.tune to connection.open, and methods in states where they do not belong."""

import amqp
from harness import case, cases, expect
from peer import check_equal, octets, plain_response

# RabbitMQ raised its minimum with 4.0.
FRAME_MIN = expect(rabbitmq=4096, warren=8192)


@case("handshake/CON12-tune-values")
def tune_values(test):
    tune = test.raw().login()
    offered = tune.channel_max, tune.frame_max, tune.heartbeat
    check_equal("channel_max, frame_max, heartbeat", offered, (2047, 131072, 60))


def limits(**values):
    return {"channel_max": 2047, "frame_max": 131072, "heartbeat": 0, **values}


@cases(
    [
        (
            "handshake/CON12-tune-ok-channel-max-no-limit",
            {"channel_max": 0},
            "channel_max = 0 (no limit) is higher than the maximum allowed value (2047)",
        ),
        (
            "handshake/CON12-tune-ok-channel-max-raised",
            {"channel_max": 2048},
            "channel_max = 2048 is higher than the maximum allowed value (2047)",
        ),
        (
            "handshake/CON12-tune-ok-frame-max-no-limit",
            {"frame_max": 0},
            "frame_max = 0 is higher than the maximum allowed value (131072)",
        ),
        (
            "handshake/CON12-tune-ok-frame-max-raised",
            {"frame_max": 131073},
            "frame_max = 131073 is higher than the maximum allowed value (131072)",
        ),
        (
            "handshake/CON12-tune-ok-frame-max-below-minimum",
            {"frame_max": FRAME_MIN - 1},
            f"frame_max = {FRAME_MIN - 1} is lower than the minimum allowed value ({FRAME_MIN})",
        ),
        (
            "handshake/CON12-tune-ok-frame-max-1",
            {"frame_max": 1},
            f"frame_max = 1 is lower than the minimum allowed value ({FRAME_MIN})",
        ),
        (
            "handshake/CON12-frame-max-is-checked-before-channel-max",
            {"frame_max": 1, "channel_max": 0},
            f"frame_max = 1 is lower than the minimum allowed value ({FRAME_MIN})",
        ),
    ]
)
def tune_refused(test, values, text):
    peer = test.raw()
    peer.login()
    peer.send(0, "connection.tune-ok", **limits(**values))
    # RabbitMQ sends this text since 4.0, and blames the tune that its tune-ok answers.
    test.distrusted(peer, 530, f"negotiated {text}", ["connection.tune", "connection.tune-ok"])


@cases(
    [
        ("handshake/CON12-tune-ok-frame-max-minimum", {"frame_max": FRAME_MIN}),
        ("handshake/CON12-tune-ok-channel-max-1", {"channel_max": 1}),
        ("handshake/CON12-tune-ok-heartbeat-0", {"heartbeat": 0}),
        ("handshake/CON12-tune-ok-heartbeat-raised", {"heartbeat": 600}),
        ("handshake/CON12-tune-ok-heartbeat-65535", {"heartbeat": 65535}),
    ]
)
def tune_accepted(test, values):
    peer = test.connect(**limits(**values))
    channel = peer.channel()
    queue = channel.queue()
    channel.publish(queue, b"x" * 10000)
    check_equal("body", channel.get(queue).body, b"x" * 10000)


@cases(
    [
        ("handshake/CON13-unknown-vhost", "no-such-vhost", "vhost no-such-vhost not found"),
        ("handshake/CON13-empty-vhost-name", "", "vhost  not found"),
        ("handshake/CON13-vhost-without-slash", "%2f", "vhost %2f not found"),
        ("handshake/CON13-vhost-of-255-octets", "v" * 255, f"vhost {'v' * 255} not found"),
    ]
)
def unknown_vhost(test, vhost, text):
    peer = test.raw()
    peer.login()
    peer.tune_ok()
    peer.send(0, "connection.open", virtual_host=vhost)
    peer.refused(530, text, "connection.open")


@case("handshake/CON13-open-ignores-capabilities-and-insist")
def open_extras(test):
    peer = test.raw()
    peer.login()
    peer.tune_ok()
    peer.send(0, "connection.open", virtual_host="/", capabilities="anything", insist=True)
    peer.expect(0, "connection.open-ok", known_hosts="")


# States --------------------------------------------------------------------------------------

STATES = ("starting", "tuning", "opening", "running")


def reach(test, state):
    peer = test.raw()
    if state == "starting":
        peer.start()
        return peer
    peer.login()
    if state != "tuning":
        peer.tune_ok()
    if state == "running":
        peer.open()
    return peer


# What a client may not send on channel 0, and the one state in which it may.
OUT_OF_ORDER = [
    ("connection.start", {"server_properties": {}}, None),
    ("connection.start-ok", {"client_properties": {}, "response": plain_response()}, "starting"),
    ("connection.secure-ok", {"response": ""}, None),
    ("connection.tune-ok", {"channel_max": 2047, "frame_max": 131072}, "tuning"),
    ("connection.open", {}, "opening"),
    ("connection.open-ok", {}, None),
    ("connection.close-ok", {}, None),
    ("connection.update-secret", {"new_secret": "guest", "reason": "test"}, "running"),
    ("channel.open", {}, None),
    ("basic.qos", {}, None),
]


@cases(
    [
        (f"handshake/CON14-{name.replace('.', '-')}-while-{state}", name, arguments, state)
        for name, arguments, allowed in OUT_OF_ORDER
        for state in STATES
        if state != allowed
    ]
)
def out_of_order(test, name, arguments, state):
    peer = reach(test, state)
    peer.send(0, name, **arguments)
    text = f"unexpected method in connection state {state}"
    if state in ("opening", "running"):
        peer.refused(504, text, name)
    else:
        test.distrusted(peer, 504, text, name)


@cases([(f"handshake/CON14-close-while-{state}", state) for state in STATES[:3]])
def early_close(test, state):
    # The specification lets a client close at any time. RabbitMQ counts it as out of order before
    # the connection is open; Warren may as well answer it.
    peer = reach(test, state)
    peer.send(0, "connection.close", reply_code=200, class_id=0, method_id=0)
    text = f"unexpected method in connection state {state}"
    if test.broker.is_warren:
        answer = peer.decode(peer.receive("an answer to connection.close"))
        if answer.name == "connection.close-ok":
            return
        check_equal("method", answer.name, "connection.close")
        check_equal("reply", (answer.reply_code, answer.reply_text), (504, "CHANNEL_ERROR - " + text))
    elif state == "opening":
        peer.refused(504, text, "connection.close")
    else:
        peer.eof()


# Frames --------------------------------------------------------------------------------------

CHANNEL_OPEN = b"\0\x14\0\x0a\0"
EARLY_FRAMES = [
    ("F2-method-on-channel-1", amqp.METHOD, 1, CHANNEL_OPEN, 505, ""),
    ("F2-header-on-channel-1", amqp.HEADER, 1, amqp.content_header(0), 505, ""),
    ("F2-body-on-channel-1", amqp.BODY, 1, b"\0\1\2", 505, ""),
    ("F2-heartbeat-on-channel-1", amqp.HEARTBEAT, 1, b"", 505, ""),
    ("F2-header-on-channel-0", amqp.HEADER, 0, amqp.content_header(0), 505, ""),
    ("F2-body-on-channel-0", amqp.BODY, 0, b"\0\1\2", 505, ""),
    ("F2-heartbeat-with-payload", amqp.HEARTBEAT, 0, b"\0\1\2", 501, ": unknown_frame"),
    ("F2-unknown-frame-type", 9, 0, b"\0\1\2", 501, ": unknown_frame"),
    ("F2-short-method-frame", amqp.METHOD, 0, b"\0\x0a\0", 501, ": unknown_frame"),
]


@cases(
    [
        (f"handshake/{name}-while-{state}", state, *frame)
        for name, *frame in EARLY_FRAMES
        for state in STATES[:3]
    ]
)
def early_frame(test, state, kind, channel, payload, code, suffix):
    peer = reach(test, state)
    peer.send_bytes(amqp.frame(kind, channel, payload))
    text = f"type {kind}, {octets(payload)}{suffix}"
    if state == "opening":
        peer.refused(code, text)
    else:
        test.distrusted(peer, code, text)


@cases([(f"handshake/CON18-heartbeat-while-{state}", state) for state in STATES])
def early_heartbeat(test, state):
    peer = reach(test, state)
    peer.send_bytes(amqp.frame(amqp.HEARTBEAT, 0, b""))
    if state == "starting":
        peer.start_ok()
        peer.expect(0, "connection.tune")
    if state in ("starting", "tuning"):
        peer.tune_ok()
    if state != "running":
        peer.open()
    peer.channel().alive()


@cases([(f"handshake/F1-bad-frame-end-while-{state}", state) for state in STATES[:3]])
def early_bad_end(test, state):
    peer = reach(test, state)
    # Short, because RabbitMQ breaks long reply texts into lines.
    payload = bytes(4)
    peer.send_bytes(amqp.frame(amqp.METHOD, 0, payload, end=0xCD))
    text = f"type 1, {octets(payload)}: {{invalid_frame_end_marker,205}}"
    if state == "opening":
        peer.refused(501, text)
    else:
        test.distrusted(peer, 501, text)


@cases([(f"handshake/F11-unknown-method-while-{state}", state) for state in STATES])
def early_unknown_method(test, state):
    peer = reach(test, state)
    peer.send_bytes(amqp.frame(amqp.METHOD, 0, b"\0\x0a\0\x63"))
    test.unknown_method(peer, (10, 99))
