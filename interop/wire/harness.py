"""The register of cases, what they need, and the runner."""

import fnmatch
import itertools
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import amqp
from peer import Mismatch, Peer, check, check_equal, plain_response

# Cases mostly wait for the broker's timeouts and grace periods.
WORKERS = 20
# A broker that answers nothing at all must not hold the suite up for READ_TIMEOUT a thousand times.
SUITE_TIMEOUT = 100


@dataclass(frozen=True)
class Broker:
    host: str
    port: int
    product: str
    version: str

    @property
    def is_warren(self):
        return self.product == "Warren"


@dataclass(frozen=True)
class Case:
    name: str
    body: object
    # Runs alone, after the others, because it loads the broker.
    alone: bool


_broker = None
_cases = []


def detect(host, port):
    """Asks the broker what it is. Must run before the case files are imported."""
    global _broker
    peer = Peer(host, port)
    try:
        properties = peer.start().server_properties
    finally:
        peer.close()
    _broker = Broker(host, port, properties["product"].value, properties["version"].value)
    return _broker


def expect(*, rabbitmq, warren):
    """What a case expects where the oracle, RabbitMQ 3.10, and Warren rightly differ."""
    return warren if _broker.is_warren else rabbitmq


def case(name, alone=False):
    def register(body):
        assert all(name != other.name for other in _cases), f"two cases are called {name}"
        _cases.append(Case(name, body, alone))
        return body

    return register


def cases(rows):
    """One case for each row (name, arguments...) of a table."""

    def register(body):
        for name, *arguments in rows:
            case(name)(lambda test, arguments=arguments: body(test, *arguments))
        return body

    return register


class NotApplicable(Exception):
    """The broker has nothing that the case could be about."""


class Test:
    """What a case works with: connections and names that are cleaned up for it."""

    _numbers = itertools.count(1)
    # Short, so that names fit in full into reply texts of 255 characters.
    _run = f"wire-{os.getpid()}-{int(time.time()) % 10000}"
    _names = []
    _lock = threading.Lock()

    def __init__(self, broker):
        self.broker = broker
        self.peers = []

    def raw(self, dialect="0-9-1"):
        """A TCP connection on which nothing has been sent."""
        peer = Peer(self.broker.host, self.broker.port, dialect)
        self.peers.append(peer)
        return peer

    def connect(self, dialect="0-9-1", channel_max=2047, frame_max=131072, heartbeat=0, vhost="/", **login):
        """An open connection."""
        peer = self.raw(dialect)
        peer.login(**login)
        peer.tune_ok(channel_max, frame_max, heartbeat)
        peer.open(vhost)
        return peer

    def channel(self, **options):
        """Channel 1 of a new connection."""
        return self.connect(**options).channel()

    def name(self, suffix=""):
        """A name nobody else uses; a queue or exchange of that name is deleted at the end."""
        with self._lock:
            name = f"{self._run}-{next(self._numbers)}{suffix}"
            self._names.append(name)
        return name

    def distrusted(self, peer, code, text, method=None):
        """A client refused before it has tuned. Warren says why. RabbitMQ waits for 3 s and drops
        the socket without a word, to slow down whoever is guessing."""
        if self.broker.is_warren:
            peer.refused(code, text, method)
        else:
            peer.eof()

    def malformed(self, peer, method, *rabbitmq):
        """Bytes that cannot be decoded. Warren closes the connection with 501 or 502, as it sees
        fit, and names the method if it knows it; RabbitMQ closes it with the given reply, or, when
        none is given, its reader crashes and the socket closes without a word."""
        if self.broker.is_warren:
            close = peer.expect(0, "connection.close")
            check(close.reply_code in (501, 502), f"got {close}, wanted 501 or 502")
            self.check_ids(peer, close, peer.dialect.ids(method))
            peer.closed()
        elif rabbitmq:
            peer.refused(*rabbitmq)
        else:
            peer.eof()

    def unknown_method(self, peer, ids):
        """RabbitMQ's reader crashes on a method that does not exist."""
        if self.broker.is_warren:
            close = peer.expect(0, "connection.close", reply_code=503)
            check_equal("reply text", close.reply_text, "COMMAND_INVALID - unimplemented method")
            self.check_ids(peer, close, ids)
            peer.closed()
        else:
            peer.eof()

    def check_ids(self, peer, close, ids):
        got = close.class_id, close.method_id
        check(got in ((0, 0), ids), f"class and method of the reply are {got}, wanted {ids}")

    def finish(self):
        for peer in self.peers:
            peer.close()


def delete_leftovers(broker):
    peer = Peer(broker.host, broker.port)
    try:
        peer.login(response=plain_response())
        peer.tune_ok()
        peer.open()
        channel = peer.channel()
        for kind, name in itertools.product(("queue", "exchange"), Test._names):
            channel.send(f"{kind}.delete", **{kind: name})
            if peer.decode(peer.receive("delete-ok")).name == "channel.close":
                # Still owned by a connection that is just going, and will go with it.
                channel.send("channel.close-ok")
                channel.call("channel.open")
        peer.shut()
    finally:
        peer.close()


def run_case(case, broker, deadline):
    """None when the case passed, else the reason; NotApplicable when there was nothing to try."""
    if time.monotonic() > deadline:
        return f"not begun within {SUITE_TIMEOUT} s"
    test = Test(broker)
    try:
        case.body(test)
    except NotApplicable as error:
        return error
    except (Mismatch, amqp.CodecError, OSError) as error:
        where = traceback.extract_tb(error.__traceback__)
        line = next((entry for entry in reversed(where) if "cases" in entry.filename), where[-1])
        reason = str(error) or type(error).__name__
        return f"{reason} ({os.path.basename(line.filename)}:{line.lineno})"
    except Exception:
        # A fault of the test itself: show where, and count it as a failure.
        traceback.print_exc()
        return "the test broke: " + traceback.format_exc().splitlines()[-1]
    finally:
        test.finish()
    return None


def run(broker, only):
    """Runs the cases whose names match the pattern; returns the exit status."""
    chosen = [case for case in _cases if fnmatch.fnmatchcase(case.name, only)]
    if not chosen:
        print(f"no case matches {only!r}", file=sys.stderr)
        return 2
    began = time.monotonic()
    deadline = began + SUITE_TIMEOUT
    with ThreadPoolExecutor(WORKERS) as pool:
        together = [
            (case, pool.submit(run_case, case, broker, deadline)) for case in chosen if not case.alone
        ]
        outcomes = [report(case, future.result()) for case, future in together]
    outcomes += [report(case, run_case(case, broker, deadline)) for case in chosen if case.alone]
    try:
        delete_leftovers(broker)
    except (Mismatch, OSError) as error:
        print(f"cleaning up failed: {error}", file=sys.stderr)
    print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
    failed = outcomes.count("FAIL")
    print(f"{outcomes.count('ok')} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def report(case, reason):
    if reason is None:
        print(f"ok {case.name}", flush=True)
        return "ok"
    outcome = "n/a" if isinstance(reason, NotApplicable) else "FAIL"
    print(f"{outcome} {case.name}: {' '.join(str(reason).split())}", flush=True)
    return outcome
