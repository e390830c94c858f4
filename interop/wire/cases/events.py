"""The event exchange: what is told of connections, channels, exchanges, queues, bindings and consumers."""

import time

from amqp import Field
from harness import case, expect
from peer import check, check_equal

EVENTS = "amq.rabbitmq.event"
INTERNAL = "rmq-internal"
# Names that later versions of RabbitMQ add to an event of 3.10.
ADDED = {
    "queue.created": ["type", "members", "leader"],
    "queue.deleted": ["type"],
    "channel.closed": ["consumer_count"],
}


def listen(test, *keys):
    """A channel that consumes events with these keys, its own binding's left out."""
    channel = test.channel()
    queue = channel.queue(test.name())
    for key in keys:
        channel.bind(queue, EVENTS, key)
    channel.consume(queue, no_ack=True)
    return channel


def told(channel, key, **wanted):
    """The next event with this key and at least these headers: other cases cause events too."""
    while True:
        event = channel.delivery(exchange=EVENTS)
        headers = plain(event.properties["headers"])
        if event.method.routing_key == key and wanted.items() <= headers.items():
            return event, headers


def plain(value):
    """A table or array without its types."""
    if isinstance(value, Field):
        return plain(value.value)
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items()}
    if isinstance(value, list):
        return [plain(field) for field in value]
    return value


def check_names(event, names):
    key = event.method.routing_key
    got = list(event.properties["headers"])
    added = [name for name in got if name in ADDED.get(key, [])]
    check_equal(f"added headers of {key}", added, expect(rabbitmq=[], warren=ADDED.get(key, [])))
    check_equal(f"headers of {key}", [name for name in got if name not in added], names + ["timestamp_in_ms"])


@case("events/E6-form")
def form(test):
    listener, channel = listen(test, "exchange.created"), test.channel()
    name = channel.exchange(test.name(), "fanout", auto_delete=True, arguments={"a": 1, "b": "c"})
    event, headers = told(listener, "exchange.created", name=name)
    check_equal("body", event.body, b"")
    check_equal("properties", sorted(event.properties), ["delivery_mode", "headers", "timestamp"])
    check_equal("delivery mode", event.properties["delivery_mode"], 2)
    stamp = event.properties["headers"]["timestamp_in_ms"]
    check_equal("type of the time", stamp.tag, "l")
    check_equal("times", stamp.value // 1000, event.properties["timestamp"])
    check(abs(time.time() - event.properties["timestamp"]) < 60, "the time is not now")
    del headers["timestamp_in_ms"]
    wanted = {
        "user_who_performed_action": "guest",
        "policy": "",
        "arguments": ['{<<"a">>,signedint,1}', '{<<"b">>,longstr,<<"c">>}'],
        "internal": False,
        "auto_delete": True,
        "durable": False,
        "type": "fanout",
        "name": name,
        "vhost": "/",
    }
    check_equal("headers", headers, wanted)


@case("events/E6-connection-and-channel")
def connection(test):
    listener = listen(test, "user.authentication.*", "connection.*", "channel.*")
    peer = test.connect(connection_name="my name")
    channel = peer.channel(7)
    host, port = peer.socket.getsockname()
    server = "{}:{}".format(*peer.socket.getpeername())
    name = f"{host}:{port} -> {server}"
    event, login = told(listener, "user.authentication.success", connection_name=name)
    names = ["ssl", "auth_mechanism", "protocol", "peer_port", "peer_host", "connection_name", "host"]
    check_names(event, names + ["name", "connection_type"])
    event, created = told(listener, "connection.created", name=name)
    check_equal("user-provided name", created["user_provided_name"], "my name")
    for given in (login, created):
        check_equal("protocol", given["protocol"], "{0,9,1}")
        check_equal("mechanism", given["auth_mechanism"], "PLAIN")
        # A listener for IPv4 and IPv6 sees clients of IPv4 at mapped addresses, and RabbitMQ tells these as they are.
        check(given["peer_host"] in ("{127,0,0,1}", "{0,0,0,0,0,65535,32512,1}"), f"peer is {given['peer_host']}")
        check_equal("port of the peer", given["peer_port"], port)
    tuned = [created[name] for name in ("channel_max", "frame_max", "timeout", "user", "vhost", "ssl")]
    check_equal("what was agreed on", tuned, [2047, 131072, 0, "guest", "/", False])
    check('{<<"product">>,longstr,<<"wire conformance">>}' in created["client_properties"], "no product")
    event, opened = told(listener, "channel.created", name=f"{name} (7)")
    names = ["user_who_performed_action", "vhost", "user", "number", "connection", "name", "pid"]
    check_names(event, names)
    check_equal("connection of the channel", opened["connection"], created["pid"])
    check_equal("number", opened["number"], 7)
    channel.close()
    event, _ = told(listener, "channel.closed", pid=opened["pid"])
    check_names(event, ["user_who_performed_action", "pid"])
    peer.shut()
    event, _ = told(listener, "connection.closed", pid=created["pid"])
    check_names(event, ["client_properties", "node", "pid", "name", "user_provided_name"])


@case("events/E6-refused-login")
def refused(test):
    listener = listen(test, "user.authentication.failure")
    peer = test.raw()
    peer.start()
    peer.start_ok(response="\0guest\0wrong")
    event, failure = told(listener, "user.authentication.failure", peer_port=peer.socket.getsockname()[1])
    names = ["error", "ssl", "auth_mechanism", "protocol", "peer_port", "peer_host", "connection_name"]
    check_names(event, names + ["host", "name", "connection_type"])
    # RabbitMQ tells a list of characters, which becomes an array of numbers.
    error = failure["error"]
    error = error if isinstance(error, str) else "".join(map(chr, error))
    check_equal("error", error, "user 'guest' - invalid credentials")


@case("events/E6-queue-binding-and-consumer")
def queue(test):
    listener = listen(test, "queue.*", "binding.*", "consumer.*")
    channel = test.channel()
    name = channel.queue(test.name(), arguments={"x-max-length": 5})
    event, created = told(listener, "queue.created", name=name)
    names = ["user_who_performed_action", "exclusive", "owner_pid", "arguments", "auto_delete", "durable"]
    check_names(event, names + ["name", "vhost"])
    flags = [created[name] for name in ("exclusive", "auto_delete", "durable")]
    check_equal("exclusive, auto-delete, durable", flags, [True, False, False])
    check_equal("arguments", created["arguments"], ['{<<"x-max-length">>,signedint,5}'])
    check(created["owner_pid"].startswith("<"), f"owner {created['owner_pid']!r}")
    channel.bind(name, "amq.topic", "k.#", arguments={"b": True})
    event, bound = told(listener, "binding.created", destination_name=name)
    names = ["user_who_performed_action", "vhost", "arguments", "routing_key", "destination_kind"]
    check_names(event, names + ["destination_name", "source_kind", "source_name"])
    got = [bound[name] for name in ("source_name", "destination_kind", "routing_key", "arguments")]
    check_equal("binding", got, ["amq.topic", "queue", "k.#", ['{<<"b">>,bool,true}']])
    channel.call("basic.qos", prefetch_count=9)
    channel.consume(name, tag="tag", exclusive=True, arguments={"x-priority": 3})
    event, consumer = told(listener, "consumer.created", queue=name)
    names = ["user_who_performed_action", "arguments", "prefetch_count", "queue", "vhost", "channel"]
    check_names(event, names + ["ack_required", "exclusive", "consumer_tag"])
    got = [consumer[name] for name in ("consumer_tag", "exclusive", "ack_required", "prefetch_count")]
    check_equal("consumer", got, ["tag", True, True, 9])
    channel.call("basic.cancel", consumer_tag="tag")
    event, ended = told(listener, "consumer.deleted", queue=name)
    check_names(event, ["user_who_performed_action", "queue", "vhost", "channel", "consumer_tag"])
    check_equal("channel", ended["channel"], consumer["channel"])
    channel.call("queue.delete", queue=name)
    _, unbound = told(listener, "binding.deleted", destination_name=name)
    check_equal("who", unbound["user_who_performed_action"], INTERNAL)
    event, deleted = told(listener, "queue.deleted", name=name)
    check_names(event, ["user_who_performed_action", "name", "vhost"])
    check_equal("who", deleted["user_who_performed_action"], "guest")


@case("events/E6-exchange-goes-before-its-bindings")
def exchange(test):
    listener, channel = listen(test, "exchange.deleted", "binding.deleted"), test.channel()
    name, other = channel.exchange(test.name()), channel.exchange(test.name(), auto_delete=True)
    queue = channel.queue(test.name())
    channel.bind(queue, name, "k")
    channel.call("exchange.delete", exchange=name)
    event, gone = told(listener, "exchange.deleted", name=name)
    check_names(event, ["user_who_performed_action", "name", "vhost"])
    check_equal("who", gone["user_who_performed_action"], "guest")
    _, unbound = told(listener, "binding.deleted", source_name=name)
    check_equal("who", unbound["user_who_performed_action"], "guest")
    # And one that goes by itself with its last binding.
    channel.bind(queue, other, "k")
    channel.call("queue.unbind", queue=queue, exchange=other, routing_key="k")
    told(listener, "exchange.deleted", name=other)


@case("events/M35-event-exchange-is-internal")
def internal(test):
    channel = test.channel()
    channel.call("exchange.declare", exchange=EVENTS, type="topic", durable=True, internal=True)
    channel.publish("k", b"x", exchange=EVENTS)
    text = f"cannot publish to internal exchange '{EVENTS}' in vhost '/'"
    channel.refused(403, text, "basic.publish")
